//! What keeps the blocks of an owner alive: the pointers of every writer, however it became known (Spec: 12 §4.1).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use champ::Cid;
use pki::{
    keys::Writer,
    owned::{OwnershipWalk, WalkLimits},
};

use super::Abort;
use crate::{
    blocks::StoredBlocks,
    directory::User,
    pointers,
    state::State,
    store::tables,
    writers::{self, StoredPointers},
};

/// The roots of one owner at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Roots {
    /// The owner's pointer epoch: while it is the same, no pointer has changed since.
    pub(super) epoch: Option<Bytes>,
    /// Where pointers lead.
    pub(super) targets: BTreeSet<Cid>,
    /// Where they led when their updates were last accounted: needed until accounting has caught up.
    pub(super) accounted: BTreeSet<Cid>,
    /// Writers that are known, with the stored bytes of their pointers.
    pub(super) writers: BTreeMap<Writer, Option<Bytes>>,
    /// True when the owner has deleted the identity's pointer.
    pub(super) is_identity_deleted: bool,
}

/// Reads the roots of a user; the epoch first, so that a change while reading is noticed.
///
/// # Errors
/// Anything that cannot be read: then nobody knows what is needed.
pub(super) async fn gather(state: &State, user: &User) -> Result<Roots, Abort> {
    let name = user.name.as_str().as_bytes();
    let mut roots = Roots {
        epoch: state.store.get(tables::POINTER_EPOCHS, name).await?,
        ..Roots::default()
    };
    for writer in writers::of_user(state, &user.name).await? {
        let (_, row) = writers::read_row(state, &writer)
            .await?
            .ok_or(Abort::Writer(writer.cid().clone()))?;
        roots.accounted.extend(row.accounted);
        add_pointer(state, &mut roots, writer).await?;
    }
    let identity = user.identity.as_writer();
    add_pointer(state, &mut roots, identity.clone()).await?;
    let pointer = pointers::stored_update(state, &identity).await?;
    let pointer = pointer.ok_or(Abort::NoIdentity)?;
    roots.is_identity_deleted = pointer.updated().is_none();
    // Registration follows ownership; should it ever have missed a writer, that one's blocks are needed all the same.
    let pointers = StoredPointers(state);
    let blocks = StoredBlocks { state, user };
    let mut walk = OwnershipWalk::new(&user.identity, &pointers, &blocks, WalkLimits::default());
    while let Some(writer) = walk.next().await? {
        if !roots.writers.contains_key(&writer) {
            add_pointer(state, &mut roots, writer).await?;
        }
    }
    if let Some(damage) = walk.damage().first() {
        return Err(damage.error.clone().into());
    }
    Ok(roots)
}

async fn add_pointer(state: &State, roots: &mut Roots, writer: Writer) -> Result<(), Abort> {
    let stored = pointers::stored(state, &writer).await?;
    if let Some(bytes) = &stored {
        let update = pointers::read_update(bytes)?;
        roots.targets.extend(update.updated().cloned());
    }
    roots.writers.insert(writer, stored);
    Ok(())
}
