//! Counting a user's bytes from nothing, to compare with what the updates added up to (Spec: 12 §3.3).

use std::collections::BTreeSet;

use pki::{
    keys::Writer,
    owned::{WalkLimits, owned_by_user},
};

use super::{UserAccount, delta::tree_delta, settle::Change};
use crate::{
    blocks::StoredBlocks,
    directory::User,
    error::Refusal,
    pointers,
    state::State,
    store::{Batch, tables},
    writers::{self, StoredPointers},
};

/// Attempts while updates change what is being counted.
const MAX_ATTEMPTS: u32 = 8;

/// What a count from nothing found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recounted {
    /// Bytes that were counted before.
    pub(crate) before: u64,
    /// Bytes below the pointers of all owned writers.
    pub(crate) total: u64,
    /// Writers whose bytes or root were recorded wrongly.
    pub(crate) wrong_writers: u64,
}

/// Counts all writers of a user anew and, if `apply`, puts the rows right.
///
/// # Errors
/// When ownership cannot be read completely, or updates come faster than they can be counted.
pub(super) async fn recount(
    state: &State,
    user: &User,
    account: &UserAccount,
    apply: bool,
) -> Result<Recounted, Refusal> {
    for _ in 0..MAX_ATTEMPTS {
        if let Some(found) = attempt(state, user, account, apply).await? {
            return Ok(found);
        }
    }
    Err(Refusal::internal(
        "updates come faster than they can be counted",
    ))
}

async fn attempt(
    state: &State,
    user: &User,
    account: &UserAccount,
    apply: bool,
) -> Result<Option<Recounted>, Refusal> {
    let mut change = Change::start(state, user).await?;
    let before = change.total();
    let owned = owned(state, user).await?;
    let mut guard = Batch::new();
    let mut wrong_writers = 0;
    let mut all = owned.clone();
    all.extend(writers::of_user(state, &user.name).await?);
    for writer in all {
        let Some((bytes, mut row)) = writers::read_row(state, &writer).await? else {
            continue;
        };
        let stored = pointers::stored(state, &writer).await?;
        let update = stored.as_deref().map(pointers::read_update).transpose()?;
        let is_owned = owned.contains(&writer);
        let target = update
            .and_then(|update| update.updated().cloned())
            .filter(|_| is_owned);
        let counted = match &target {
            Some(_) => tree_delta(state, user, None, target.clone()).await?,
            None => 0,
        };
        let counted = u64::try_from(counted.max(0)).unwrap_or(u64::MAX);
        let key = writer.cid().to_bytes();
        guard = guard.expect(tables::POINTERS, key, stored);
        let is_right =
            row.bytes == counted && row.accounted == target && row.is_detached != is_owned;
        if is_right {
            continue;
        }
        wrong_writers += u64::from(row.bytes != counted);
        row.bytes = counted;
        row.accounted = target;
        row.is_detached = !is_owned;
        change.set_row(writer, bytes, row);
    }
    let total = change.recounted(state, &owned).await?;
    let found = Recounted {
        before,
        total,
        wrong_writers,
    };
    if !apply {
        return Ok(Some(found));
    }
    let quota = account.view(state, user, |account| account.quota).await?;
    let mut batch = change.into_batch(user, total > quota);
    batch.append(guard);
    if !state.store.commit(batch).await?.is_committed() {
        return Ok(None);
    }
    account
        .change(state, user, |account| account.confirm(total))
        .await?;
    Ok(Some(found))
}

async fn owned(state: &State, user: &User) -> Result<BTreeSet<Writer>, Refusal> {
    let pointers = StoredPointers(state);
    let blocks = StoredBlocks { state, user };
    let owned = owned_by_user(&user.identity, &pointers, &blocks, WalkLimits::default())
        .await
        .map_err(Refusal::internal)?;
    match owned.damage.first() {
        None => Ok(owned.writers),
        // Nobody may conclude from a damaged record that a key is no longer owned.
        Some(damage) => Err(Refusal::internal(damage.error.clone())),
    }
}
