//! The other side of the sweep: a pointer update must not reach blocks that were collected (Spec: 40, REL-8).
//!
//! The protocol has clients put all blocks of a new root under an open transaction, which protects them. One that
//! points back to an old root, or builds on blocks it put long ago, without putting them again, may reach blocks
//! that are gone or being deleted. Such an update is refused; the client puts the blocks and tries again.

use std::collections::HashSet;

use bytes::Bytes;
use champ::{Cid, Codec, block::is_block_cid, cbor::scan_block_lenient};

use super::sweep::doomed_blocks;
use crate::{
    directory::User,
    error::Refusal,
    state::State,
    store::{Batch, tables},
};

/// Most blocks that are looked at for one update. What a longer list hides harms only its own account.
const MAX_BLOCKS: usize = 50_000;

/// Where a pointer led and where it shall lead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) from: Option<&'a Cid>,
    pub(crate) to: &'a Cid,
}

/// The state of the sweep that updates were admitted against.
#[derive(Debug)]
pub(crate) struct Admission {
    key: Vec<u8>,
    seen: Option<Bytes>,
}

impl Admission {
    /// Adds to the batch of an update that the admission still holds when it is committed: one condition, and the
    /// note that pointers have changed.
    pub(crate) fn guard(self, batch: Batch) -> Batch {
        batch.expect(tables::GC_SWEEPS, self.key, self.seen)
    }
}

/// Adds to a batch that changes pointers of a user the note that they have changed; without it a collection that
/// runs beside it could take blocks of the new root for garbage.
pub(crate) fn note_change(batch: Batch, user: &str) -> Batch {
    let epoch = crate::random::random::<16>();
    batch.put(
        tables::POINTER_EPOCHS,
        user.as_bytes().to_vec(),
        epoch.to_vec(),
    )
}

/// Checks that everything the new roots add is stored and stays.
///
/// Costs nothing for users of whom nothing was ever collected.
///
/// # Errors
/// A rule about the first block that is missing.
pub(crate) async fn admit(
    state: &State,
    user: &User,
    steps: &[Step<'_>],
) -> Result<Admission, Refusal> {
    let key = user.name.as_str().as_bytes().to_vec();
    let seen = state.store.get(tables::GC_SWEEPS, &key).await?;
    if seen.is_some() {
        let mut check = Check {
            state,
            user,
            doomed: doomed_blocks(state, &user.name).await?,
            protected: None,
            visited: HashSet::new(),
        };
        for step in steps {
            check.step(step).await?;
        }
    }
    Ok(Admission { key, seen })
}

struct Check<'a> {
    state: &'a State,
    user: &'a User,
    doomed: HashSet<Cid>,
    /// Blocks in open transactions; read when a doomed block is met.
    protected: Option<HashSet<Cid>>,
    visited: HashSet<Cid>,
}

impl Check<'_> {
    async fn step(&mut self, step: &Step<'_>) -> Result<(), Refusal> {
        let mut open = vec![(step.from.cloned(), step.to.clone())];
        while let Some((old, new)) = open.pop() {
            if old.as_ref() == Some(&new)
                || new.identity_content().is_some()
                || !is_block_cid(&new)
                || self.visited.len() >= MAX_BLOCKS
                || !self.visited.insert(new.clone())
            {
                continue;
            }
            self.is_kept(&new).await?;
            let partition = &self.user.partition;
            if new.codec() != Codec::DagCbor {
                let size = self.state.store.block_size(partition, &new).await?;
                size.ok_or_else(|| missing(&new))?;
                continue;
            }
            let block = self.state.store.block(partition, &new).await?;
            let links = links(block.ok_or_else(|| missing(&new))?.bytes());
            let before = self.links_before(old.as_ref()).await?;
            // What the old block links to was complete with it. The rest is paired in order, so that a changed
            // path is followed and its unchanged neighbours are not.
            let known: HashSet<&Cid> = before.iter().collect();
            let added: HashSet<&Cid> = links.iter().collect();
            let mut removed = before.iter().filter(|link| !added.contains(link));
            for link in links.iter().filter(|link| !known.contains(link)) {
                open.push((removed.next().cloned(), link.clone()));
            }
        }
        Ok(())
    }

    async fn links_before(&self, old: Option<&Cid>) -> Result<Vec<Cid>, Refusal> {
        let Some(old) = old.filter(|cid| is_block_cid(cid) && cid.codec() == Codec::DagCbor) else {
            return Ok(Vec::new());
        };
        // The old tree is only a shortcut: without it everything is looked at.
        let block = self.state.store.block(&self.user.partition, old).await;
        Ok(block
            .ok()
            .flatten()
            .map_or_else(Vec::new, |block| links(block.bytes())))
    }

    /// Refuses a block that is being deleted, unless a put under an open transaction has saved it.
    async fn is_kept(&mut self, cid: &Cid) -> Result<(), Refusal> {
        if !self.doomed.contains(cid) {
            return Ok(());
        }
        let protected = match self.protected.take() {
            Some(protected) => protected,
            None => {
                let store = &self.state.store;
                let protected = store.protected_blocks(&self.user.partition).await?;
                protected.into_iter().collect()
            }
        };
        let is_kept = protected.contains(cid);
        self.protected = Some(protected);
        if is_kept { Ok(()) } else { Err(missing(cid)) }
    }
}

fn links(block: &[u8]) -> Vec<Cid> {
    scan_block_lenient(block).map_or_else(|_| Vec::new(), |scan| scan.links)
}

fn missing(cid: &Cid) -> Refusal {
    Refusal::rule(format!("Block of the new root not present: {cid}"))
}
