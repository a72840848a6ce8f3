//! A bounded memory of verified blocks (Spec: 21 §2.2). Blocks never change, so entries never expire.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use champ::{Block, Cid};

use super::nodes::Opened;
use crate::{crypto::SymmetricKey, directory::ChildList};

/// Blocks above this are not kept: fragments would push out the small blocks that every operation reads.
const MAX_CACHED_BLOCK_BYTES: usize = 100 << 10;
/// Bookkeeping per entry that counts against the budget, in bytes.
const ENTRY_BYTES: usize = 160;

/// Blocks read or written lately, within a budget of bytes.
///
/// Two generations instead of an exact order of use: what is read moves to the young one, and when the
/// young one has used half of the budget it becomes the old one and the previous old one is dropped.
#[derive(Debug)]
pub(crate) struct BlockCache {
    budget_bytes: usize,
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Cid, Block>,
    young_bytes: usize,
    old: HashMap<Cid, Block>,
}

impl BlockCache {
    pub(crate) fn new(budget_bytes: usize) -> Self {
        Self {
            budget_bytes,
            generations: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, cid: &Cid) -> Option<Block> {
        let mut generations = self.lock();
        if let Some(block) = generations.young.get(cid) {
            return Some(block.clone());
        }
        let block = generations.old.remove(cid)?;
        self.add(&mut generations, block.clone());
        Some(block)
    }

    pub(crate) fn insert(&self, block: Block) {
        if block.bytes().len() <= MAX_CACHED_BLOCK_BYTES {
            self.add(&mut self.lock(), block);
        }
    }

    fn add(&self, generations: &mut Generations, block: Block) {
        let size = block.bytes().len() + ENTRY_BYTES;
        if generations.young_bytes + size > self.budget_bytes / 2 {
            generations.old = mem::take(&mut generations.young);
            generations.young_bytes = 0;
        }
        if generations
            .young
            .insert(block.cid().clone(), block)
            .is_none()
        {
            generations.young_bytes += size;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        // The maps are valid after any panic of another holder.
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Child lists kept; a full page is some 200 kB.
const MAX_CHILD_LISTS: usize = 16;

/// The child lists of folder pages read lately. A list is fixed by the block that holds it and the key that opens
/// it, so entries never expire.
#[derive(Debug)]
pub(crate) struct ChildLists {
    max: usize,
    recent: Mutex<VecDeque<(Cid, SymmetricKey, Arc<ChildList>)>>,
}

impl Default for ChildLists {
    fn default() -> Self {
        Self::at_most(MAX_CHILD_LISTS)
    }
}

impl ChildLists {
    pub(crate) fn at_most(max: usize) -> Self {
        Self {
            max,
            recent: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, page: &Opened) -> Option<Arc<ChildList>> {
        let mut recent = self.lock();
        let position = recent
            .iter()
            .position(|(cid, key, _)| *cid == page.cid && *key == page.capability.r_base)?;
        let found = recent.remove(position)?;
        let children = Arc::clone(&found.2);
        recent.push_back(found);
        Some(children)
    }

    pub(crate) fn insert(&self, page: &Opened, children: Arc<ChildList>) {
        let mut recent = self.lock();
        if recent.len() >= self.max {
            recent.pop_front();
        }
        recent.push_back((page.cid.clone(), page.capability.r_base.clone(), children));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(Cid, SymmetricKey, Arc<ChildList>)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(n: u32, bytes: usize) -> Block {
        let mut content = vec![0; bytes];
        content[..4].copy_from_slice(&n.to_be_bytes());
        Block::raw(content).unwrap()
    }

    #[test]
    fn memory_stays_within_the_budget_and_recent_blocks_stay() {
        let cache = BlockCache::new(100_000);
        let kept = block(u32::MAX, 1000);
        cache.insert(kept.clone());
        for n in 0..1000 {
            cache.insert(block(n, 1000));
            assert!(cache.get(kept.cid()).is_some(), "lost after {n}");
        }
        let generations = cache.lock();
        let held: usize = generations
            .young
            .values()
            .chain(generations.old.values())
            .map(|block| block.bytes().len() + ENTRY_BYTES)
            .sum();
        assert!(held <= 100_000);
    }

    #[test]
    fn fragments_are_not_kept() {
        let cache = BlockCache::new(10 << 20);
        let fragment = block(1, 1 << 20);
        cache.insert(fragment.clone());
        assert!(cache.get(fragment.cid()).is_none());
    }
}
