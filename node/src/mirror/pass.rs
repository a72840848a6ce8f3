//! One pass over one user: what changed at the other node since the last one (Spec: 12 §5.3).

use std::{collections::HashMap, sync::Arc};

use champ::{Cid, SourceError};
use parking_lot::Mutex;
use pki::{
    keys::Writer,
    owned::{OwnershipWalk, PointerSource, WalkLimits},
    pointer::{PointerMemory, SignedPointer},
};

use super::{Copying, Fetching, MirrorError, Remote};
use crate::{
    directory::User,
    error::Refusal,
    pointers::{self, Planned},
    state::State,
    store::Batch,
};

/// The transaction of passes: the same one each time, so that what a broken one fetched stays protected.
const TRANSACTION: &str = "mirror";

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Writers of the user.
    pub(crate) writers: u64,
    /// Pointers that changed.
    pub(crate) pointers: u64,
    /// Blocks that were asked for.
    pub(crate) blocks: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// Copies what changed of a user.
///
/// Every pointer that is stored has its whole tree here; pointers of different writers may be of different moments.
/// Cut off anywhere, the next pass goes on with the blocks that are here.
///
/// # Errors
/// [`MirrorError`]; writers that were copied before stay copied.
pub(crate) async fn pass(
    state: &Arc<State>,
    user: &Arc<User>,
    remote: &Remote,
) -> Result<Copied, MirrorError> {
    let copying = Copying::start(state, user, remote, TRANSACTION).await?;
    let (writers, found) = {
        let blocks = Fetching::new(&copying);
        let source = Source::new(state, remote, &blocks);
        let mut walk = OwnershipWalk::new(&user.identity, &source, &blocks, WalkLimits::default());
        let mut writers = Vec::new();
        while let Some(writer) = walk.next().await? {
            writers.push(writer);
        }
        if let Some(damage) = walk.damage().first() {
            return Err(damage.error.clone().into());
        }
        let found = source.into_found();
        blocks.flush().await?;
        (writers, found)
    };
    let mut copied = Copied {
        writers: writers.len() as u64,
        ..Copied::default()
    };
    // Owners before what they own, so that nobody is unknown here.
    let mut found = found;
    let in_order = writers
        .into_iter()
        .filter_map(|writer| found.remove(&writer).map(|signed| (writer, signed)));
    copied.pointers = store_pointers(state, user, &copying, in_order.collect()).await?;
    copying.close().await?;
    (copied.blocks, copied.bytes) = remote.fetched();
    Ok(copied)
}

/// Copies what verified pointers lead to, and stores each of them once its tree is complete; returns how many changed.
pub(crate) async fn store_pointers(
    state: &Arc<State>,
    user: &Arc<User>,
    copying: &Copying<'_>,
    pointers: Vec<(Writer, SignedPointer)>,
) -> Result<u64, MirrorError> {
    let mut changed = 0;
    for (writer, signed) in pointers {
        let before = pointers::stored_update(state, &writer).await?;
        let old = before.as_ref().and_then(|update| update.updated());
        if before.as_ref() == Some(signed.update()) {
            continue;
        }
        history(&writer, before.as_ref(), Some(&signed))?;
        if let Some(target) = signed.update().updated() {
            copying.tree(old, target).await?;
        }
        commit_pointer(state, user, copying, &writer, &signed).await?;
        changed += 1;
    }
    Ok(changed)
}

/// Stores a verified pointer whose tree is here, unless a newer one is.
pub(crate) async fn commit_pointer(
    state: &Arc<State>,
    user: &Arc<User>,
    copying: &Copying<'_>,
    writer: &Writer,
    signed: &SignedPointer,
) -> Result<(), MirrorError> {
    let before = pointers::stored(state, writer).await?;
    if before.as_ref() == Some(signed.bytes()) {
        return Ok(());
    }
    let replaced = before.as_deref().map(pointers::read_update).transpose()?;
    history(writer, replaced.as_ref(), Some(signed))?;
    state.writers.ensure(state, user, writer).await?;
    let commit = async || {
        let plan = Planned::copied(writer, signed, before.clone())?;
        pointers::commit_copy(state, user, vec![plan], Batch::new()).await
    };
    let mut outcome = commit().await;
    if let (Err(Refusal::Rule(_)), Some(target)) = (&outcome, signed.update().updated()) {
        // A collection has given up blocks that were here: put them again, under the transaction.
        let old = replaced.as_ref().and_then(|update| update.updated());
        copying.tree_again(old, target).await?;
        outcome = commit().await;
    }
    outcome.map_err(|refusal| match refusal {
        Refusal::Pointer(_) => MirrorError::Conflict,
        other => other.into(),
    })
}

/// Stores verified pointers that came in no useful order: owners have to be known before what they own.
pub(crate) async fn store_snapshot_pointers(
    state: &Arc<State>,
    user: &Arc<User>,
    copying: &Copying<'_>,
    mut open: Vec<(Writer, SignedPointer)>,
) -> Result<(), MirrorError> {
    open.sort_by_key(|(writer, _)| *writer != user.identity.as_writer());
    while !open.is_empty() {
        let mut later = Vec::new();
        let count = open.len();
        for (writer, signed) in open {
            let one = vec![(writer.clone(), signed.clone())];
            match store_pointers(state, user, copying, one).await {
                Err(MirrorError::Here(Refusal::UnknownWriter(_))) => later.push((writer, signed)),
                done => drop(done?),
            }
        }
        if later.len() == count {
            // Nobody vouches for these.
            return Err(MirrorError::Malformed("list of writers"));
        }
        open = later;
    }
    Ok(())
}

/// Refuses a pointer that is older than the one that is here, or another one of the same age.
pub(crate) fn history(
    writer: &Writer,
    here: Option<&pki::pointer::PointerUpdate>,
    offered: Option<&SignedPointer>,
) -> Result<(), MirrorError> {
    let mut memory = PointerMemory::new();
    if let Some(here) = here {
        memory.restore(writer.clone(), here.clone());
    }
    memory.observe(writer, offered.map(SignedPointer::update))?;
    Ok(())
}

/// The pointers of an owner at the peer: verified, never older than those that are here, each asked for once.
pub(crate) struct Source<'a> {
    state: &'a State,
    remote: &'a Remote,
    blocks: &'a Fetching<'a>,
    found: Mutex<HashMap<Writer, SignedPointer>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(state: &'a State, remote: &'a Remote, blocks: &'a Fetching<'a>) -> Self {
        Self {
            state,
            remote,
            blocks,
            found: Mutex::default(),
        }
    }

    /// Asks for a writer's pointer and checks it.
    pub(crate) async fn pointer(
        &self,
        writer: &Writer,
    ) -> Result<Option<SignedPointer>, MirrorError> {
        let here = pointers::stored_update(self.state, writer).await?;
        let Some(bytes) = self.remote.pointer(writer).await? else {
            history(writer, here.as_ref(), None)?;
            return Ok(None);
        };
        let signed = verified(writer, bytes, self.blocks).await?;
        history(writer, here.as_ref(), Some(&signed))?;
        self.found.lock().insert(writer.clone(), signed.clone());
        Ok(Some(signed))
    }

    fn into_found(self) -> HashMap<Writer, SignedPointer> {
        self.found.into_inner()
    }
}

/// Checks that a pointer is its writer's.
pub(crate) async fn verified(
    writer: &Writer,
    bytes: bytes::Bytes,
    blocks: &Fetching<'_>,
) -> Result<SignedPointer, MirrorError> {
    let forged = || MirrorError::Forged(writer.clone());
    let key = match writer.hash().inline_key() {
        Some(key) => key,
        None => {
            let block = blocks.read(writer.cid()).await?;
            writer.hash().key_in(&block).map_err(|_| forged())?
        }
    };
    SignedPointer::verify(&key, bytes).map_err(|_| forged())
}

#[async_trait::async_trait]
impl PointerSource for Source<'_> {
    async fn root(&self, writer: &Writer) -> Result<Option<Cid>, SourceError> {
        let signed = self
            .pointer(writer)
            .await
            .map_err(|error| SourceError::Failed(Arc::new(error)))?;
        Ok(signed.and_then(|signed| signed.update().updated().cloned()))
    }
}
