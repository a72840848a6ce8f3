//! How many bytes a pointer update adds (Spec: 12 §3.1).
//!
//! The size of a tree counts every occurrence of a block. The difference of two trees is computed without
//! reading what they share: links in both cancel, the others are paired and compared in turn. Every pair is
//! worked out once, so a small graph with exponentially many paths costs no more than its blocks.

use std::collections::HashMap;

use champ::{Cid, Codec, cbor::scan_block_lenient};
use sha2::{Digest as _, Sha256};

use crate::{directory::User, error::Refusal, random::random, state::State};

/// Sizes saturate here: a hostile graph can claim any size.
const MAX_TREE_BYTES: i128 = 1 << 62;
/// Most pairs of blocks that one update may make the node look at.
const MAX_PAIRS: usize = 20_000_000;

/// What was in a place and what is there now.
type Pair = (Option<Cid>, Option<Cid>);

/// The pairs that have been worked out. Whoever deletes a large tree makes as many as it had blocks, so each is kept as
/// half of a hash and a number, 24 bytes; the salt keeps anybody from looking for two pairs with one hash.
struct Known {
    salt: [u8; 16],
    bytes: HashMap<[u8; 16], i64>,
    buffer: Vec<u8>,
}

impl Known {
    fn new() -> Self {
        Self {
            salt: random(),
            bytes: HashMap::new(),
            buffer: Vec::new(),
        }
    }

    fn key(&mut self, pair: &Pair) -> [u8; 16] {
        self.buffer.clear();
        self.buffer.extend_from_slice(&self.salt);
        for cid in [&pair.0, &pair.1] {
            self.buffer.push(cid.is_some().into());
            if let Some(cid) = cid {
                cid.write(&mut self.buffer);
            }
        }
        let hash: [u8; 32] = Sha256::digest(&self.buffer).into();
        hash.first_chunk().copied().unwrap_or_default()
    }

    fn get(&mut self, pair: &Pair) -> Option<i128> {
        let key = self.key(pair);
        self.bytes.get(&key).copied().map(i128::from)
    }

    fn insert(&mut self, pair: &Pair, bytes: i128) {
        let key = self.key(pair);
        // Clamped to what fits.
        let bytes = i64::try_from(clamp(bytes)).unwrap_or_default();
        self.bytes.insert(key, bytes);
    }
}

struct Frame {
    pair: Pair,
    /// Own bytes of the pair, and those of the children worked out so far.
    bytes: i128,
    children: Vec<Pair>,
}

/// Returns size(new) - size(old), in bytes.
pub(super) async fn tree_delta(
    state: &State,
    user: &User,
    old: Option<Cid>,
    new: Option<Cid>,
) -> Result<i128, Refusal> {
    let mut known = Known::new();
    let root = (old, new);
    if root.0 == root.1 {
        return Ok(0);
    }
    let mut stack = vec![open(state, user, root.clone()).await?];
    while let Some(frame) = stack.last_mut() {
        if let Some(child) = frame.children.pop() {
            if let Some(bytes) = known.get(&child) {
                frame.bytes = clamp(frame.bytes + bytes);
            } else {
                // Comes back for the result: it is known by then.
                frame.children.push(child.clone());
                let opened = open(state, user, child).await?;
                stack.push(opened);
            }
            continue;
        }
        if let Some(done) = stack.pop() {
            if known.bytes.len() >= MAX_PAIRS {
                return Err(Refusal::internal("too many blocks below one root"));
            }
            known.insert(&done.pair, done.bytes);
        }
    }
    Ok(known.get(&root).unwrap_or(0))
}

fn clamp(bytes: i128) -> i128 {
    bytes.clamp(-MAX_TREE_BYTES, MAX_TREE_BYTES)
}

/// Reads a pair of blocks and lists the pairs below it that may differ.
async fn open(state: &State, user: &User, pair: Pair) -> Result<Frame, Refusal> {
    let (old_bytes, old_links) = look(state, user, pair.0.as_ref()).await?;
    let (new_bytes, new_links) = look(state, user, pair.1.as_ref()).await?;
    let (removed, added) = differing(old_links, new_links);
    let mut removed = removed.into_iter();
    let mut added = added.into_iter();
    let mut children = Vec::new();
    loop {
        match (removed.next(), added.next()) {
            (None, None) => break,
            child => children.push(child),
        }
    }
    Ok(Frame {
        pair,
        bytes: new_bytes - old_bytes,
        children,
    })
}

/// Returns size and links of a block. One that is missing counts nothing: a client may commit a root whose
/// blocks it never sent, and that takes no space.
async fn look(state: &State, user: &User, cid: Option<&Cid>) -> Result<(i128, Vec<Cid>), Refusal> {
    let Some(cid) = cid else {
        return Ok((0, Vec::new()));
    };
    if cid.identity_content().is_some() {
        return Ok((0, Vec::new()));
    }
    if cid.codec() != Codec::DagCbor {
        let size = state.store.block_size(&user.partition, cid).await?;
        return Ok((size.unwrap_or(0).into(), Vec::new()));
    }
    let Some(block) = state.store.block(&user.partition, cid).await? else {
        return Ok((0, Vec::new()));
    };
    // Blocks that arrived from other servers may be unreadable; they have no links then.
    let links = scan_block_lenient(block.bytes()).map_or_else(|_| Vec::new(), |scan| scan.links);
    Ok((block.bytes().len() as i128, links))
}

/// Removes what both lists have in common, occurrence by occurrence.
fn differing(old: Vec<Cid>, new: Vec<Cid>) -> (Vec<Cid>, Vec<Cid>) {
    let mut counts: HashMap<&Cid, usize> = HashMap::new();
    for cid in &new {
        *counts.entry(cid).or_default() += 1;
    }
    let mut kept: HashMap<Cid, usize> = HashMap::new();
    let mut removed = Vec::new();
    for cid in old {
        match counts.get_mut(&cid) {
            Some(count) if *count > 0 => {
                *count -= 1;
                *kept.entry(cid).or_default() += 1;
            }
            _ => removed.push(cid),
        }
    }
    let added = new
        .into_iter()
        .filter(|cid| match kept.get_mut(cid) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        })
        .collect();
    (removed, added)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dos_16_a_pair_that_is_known_takes_24_bytes() {
        assert_eq!(size_of::<([u8; 16], i64)>(), 24);
        let cid = |n: u8| Some(Cid::of_raw(&[n]));
        let mut known = Known::new();
        known.insert(&(cid(1), None), 5);
        known.insert(&(cid(1), cid(2)), i128::MAX);
        known.insert(&(None, None), i128::MIN);
        assert_eq!(known.get(&(cid(1), None)), Some(5));
        assert_eq!(known.get(&(cid(1), cid(2))), Some(MAX_TREE_BYTES));
        assert_eq!(known.get(&(None, None)), Some(-MAX_TREE_BYTES));
        assert_eq!(known.get(&(None, cid(1))), None);
        assert_eq!(known.get(&(cid(2), cid(1))), None);
    }

    #[test]
    fn occurrences_cancel_one_by_one() {
        let cid = |n: u8| Cid::of_raw(&[n]);
        let (removed, added) = differing(
            vec![cid(1), cid(1), cid(2)],
            vec![cid(2), cid(1), cid(3), cid(3)],
        );
        assert_eq!(removed, [cid(1)]);
        assert_eq!(added, [cid(3), cid(3)]);
    }
}
