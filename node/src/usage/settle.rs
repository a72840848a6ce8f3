//! Working out committed updates, one user at a time (Spec: 12 §3.3).

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use champ::Cid;
use pki::{keys::Writer, pointer::PointerUpdate};

use super::{UsageRow, UserAccount, delta::tree_delta, ledger};
use crate::{
    directory::User,
    error::Refusal,
    pointers::stored_update,
    state::State,
    store::{Batch, tables},
    writers::{self, WriterRow},
};

/// Attempts at one update before it is left for the next start.
const MAX_ATTEMPTS: u32 = 5;
/// Wait after a failure, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Most writers that one update may attach or detach.
const MAX_CHANGED_WRITERS: usize = 20_000;

/// Accounts everything that is dirty, then ends.
pub(super) async fn run(state: &Arc<State>, user: &Arc<User>, account: &UserAccount) {
    let mut failures = 0;
    loop {
        let Some(writer) = next(account) else {
            account.settled.notify_waiters();
            return;
        };
        match settle(state, user, account, &writer).await {
            Ok(Settled::Done) => {
                failures = 0;
                account
                    .settler
                    .lock()
                    .dirty
                    .retain(|dirty| *dirty != writer);
            }
            Ok(Settled::Again) => {}
            Err(error) if failures < MAX_ATTEMPTS => {
                failures += 1;
                tracing::warn!(%error, user = user.name.as_str(), "cannot account an update yet");
                tokio::time::sleep(FIRST_PAUSE * 2u32.pow(failures)).await;
            }
            Err(error) => {
                failures = 0;
                tracing::error!(%error, user = user.name.as_str(), "an update stays unaccounted until restart");
                let forget = |account: &mut super::Account| account.settling.remove(&writer);
                if let Err(error) = account.change(state, user, forget).await {
                    tracing::warn!(%error, "an account cannot be changed");
                }
                account
                    .settler
                    .lock()
                    .dirty
                    .retain(|dirty| *dirty != writer);
            }
        }
    }
}

/// Returns a dirty writer, or ends the task in the same step that finds none.
fn next(account: &UserAccount) -> Option<Writer> {
    let mut settler = account.settler.lock();
    let writer = settler.dirty.first().cloned();
    settler.is_running = writer.is_some();
    writer
}

enum Settled {
    Done,
    /// Something changed meanwhile.
    Again,
}

async fn settle(
    state: &Arc<State>,
    user: &Arc<User>,
    account: &UserAccount,
    writer: &Writer,
) -> Result<Settled, Refusal> {
    let key = writer.cid().to_bytes();
    // The mark first: a commit that comes later leaves another one behind.
    let mark = state.store.get(tables::UNSETTLED, &key).await?;
    let settling = account
        .view(state, user, |account| account.settling.get(writer).copied())
        .await?
        .unwrap_or(0);
    let mut change = Change::start(state, user).await?;
    let target = stored_update(state, writer)
        .await?
        .and_then(|update| update.updated().cloned());
    change.account(state, user, writer, target).await?;
    change.detach_and_attach(state, user).await?;
    let total = change.total();
    let over = account
        .view(state, user, |account| account.over && total > account.quota)
        .await?;
    let mut batch = change.into_batch(user, over);
    if let Some(mark) = mark {
        batch = batch
            .expect(tables::UNSETTLED, key.clone(), Some(mark))
            .remove(tables::UNSETTLED, key);
    }
    let is_done = |account: &mut super::Account| account.settled(writer, settling, total);
    if state.store.is_shared() {
        let done = ledger::change_with(state, user, account, &batch, is_done).await?;
        return Ok(match done {
            Some(()) => Settled::Done,
            None => Settled::Again,
        });
    }
    if !state.store.commit(batch).await?.is_committed() {
        return Ok(Settled::Again);
    }
    is_done(&mut account.account.lock());
    Ok(Settled::Done)
}

/// Adds to a batch that these writers of a user are not counted any more; it is conditional on the present count.
pub(crate) async fn drop_writers(
    state: &State,
    user: &User,
    writers: &[&Writer],
    mut batch: Batch,
) -> Result<Batch, Refusal> {
    let mut change = Change::start(state, user).await?;
    for writer in writers {
        change.drop_writer(state, writer).await?;
    }
    batch.append(change.into_batch(user, false));
    Ok(batch)
}

/// The rows that one update changes.
pub(super) struct Change {
    before: Option<bytes::Bytes>,
    usage: UsageRow,
    total: i128,
    rows: Vec<(Writer, Option<bytes::Bytes>, WriterRow)>,
    /// Writers whose parent changed: detach these, then account those.
    removed: VecDeque<(Writer, Writer)>,
    added: VecDeque<(Writer, Writer)>,
}

impl Change {
    pub(super) async fn start(state: &State, user: &User) -> Result<Self, Refusal> {
        let before = state
            .store
            .get(tables::USAGE, user.name.as_str().as_bytes())
            .await?;
        let usage = match &before {
            Some(row) => UsageRow::decode(row).map_err(Refusal::internal)?,
            None => UsageRow::default(),
        };
        Ok(Self {
            before,
            usage,
            total: usage.total.into(),
            rows: Vec::new(),
            removed: VecDeque::new(),
            added: VecDeque::new(),
        })
    }

    /// Moves the accounted root of a writer to `target`.
    async fn account(
        &mut self,
        state: &State,
        user: &User,
        writer: &Writer,
        target: Option<Cid>,
    ) -> Result<(), Refusal> {
        let Some((bytes, mut row)) = self.row(state, writer).await? else {
            return Ok(());
        };
        if row.user != user.name || row.is_detached || row.accounted == target {
            return Ok(());
        }
        let delta = match &target {
            Some(_) => tree_delta(state, user, row.accounted.clone(), target.clone()).await?,
            // What was counted goes, whether it can still be read or not.
            None => -i128::from(row.bytes),
        };
        let owned =
            writers::owned_change(state, user, writer, row.accounted.as_ref(), target.as_ref())
                .await;
        match owned {
            Ok((removed, added)) => {
                self.removed
                    .extend(removed.into_iter().map(|owned| (writer.clone(), owned)));
                self.added
                    .extend(added.into_iter().map(|owned| (writer.clone(), owned)));
            }
            // Malformed lists of owned keys own nothing.
            Err(error) => tracing::warn!(%error, "owned keys of an update cannot be read"),
        }
        if self.removed.len() + self.added.len() > MAX_CHANGED_WRITERS {
            return Err(Refusal::internal("one update changes too many writers"));
        }
        self.total += delta;
        row.bytes = u64::try_from((i128::from(row.bytes) + delta).max(0)).unwrap_or(u64::MAX);
        row.accounted = target;
        self.set(writer.clone(), bytes, row);
        Ok(())
    }

    /// Treats writers that are no longer owned as deleted, and accounts newly owned ones.
    async fn detach_and_attach(&mut self, state: &State, user: &User) -> Result<(), Refusal> {
        loop {
            if let Some((parent, writer)) = self.removed.pop_front() {
                let Some((bytes, mut row)) = self.row(state, &writer).await? else {
                    continue;
                };
                // Moved to another parent before it was removed here: still owned.
                let is_moved = row.parent.as_ref().is_some_and(|known| *known != parent);
                let is_identity = writer == user.identity.as_writer();
                if row.user != user.name || row.is_detached || is_moved || is_identity {
                    continue;
                }
                let held =
                    writers::owned_change(state, user, &writer, row.accounted.as_ref(), None)
                        .await
                        .map(|(removed, _)| removed)
                        .unwrap_or_default();
                self.removed
                    .extend(held.into_iter().map(|owned| (writer.clone(), owned)));
                self.total -= i128::from(row.bytes);
                row.is_detached = true;
                row.bytes = 0;
                row.accounted = None;
                self.set(writer, bytes, row);
            } else if let Some((parent, writer)) = self.added.pop_front() {
                let Some((bytes, mut row)) = self.row(state, &writer).await? else {
                    continue;
                };
                if row.user != user.name {
                    continue;
                }
                row.is_detached = false;
                row.parent = Some(parent);
                self.set(writer.clone(), bytes, row);
                let target = stored_update(state, &writer)
                    .await?
                    .and_then(|update: PointerUpdate| update.updated().cloned());
                Box::pin(self.account(state, user, &writer, target)).await?;
            } else {
                return Ok(());
            }
        }
    }

    /// Stops counting a writer whose pointer was dropped.
    async fn drop_writer(&mut self, state: &State, writer: &Writer) -> Result<(), Refusal> {
        if let Some((bytes, mut row)) = self.row(state, writer).await? {
            self.total -= i128::from(row.bytes);
            row.is_detached = true;
            row.bytes = 0;
            row.accounted = None;
            self.set(writer.clone(), bytes, row);
        }
        Ok(())
    }

    /// Returns a row as this change leaves it, with the bytes it was read from.
    async fn row(
        &self,
        state: &State,
        writer: &Writer,
    ) -> Result<Option<(Option<bytes::Bytes>, WriterRow)>, Refusal> {
        if let Some((_, bytes, row)) = self.rows.iter().find(|(known, _, _)| known == writer) {
            return Ok(Some((bytes.clone(), row.clone())));
        }
        Ok(writers::read_row(state, writer)
            .await?
            .map(|(bytes, row)| (Some(bytes), row)))
    }

    fn set(&mut self, writer: Writer, bytes: Option<bytes::Bytes>, row: WriterRow) {
        match self.rows.iter_mut().find(|(known, _, _)| *known == writer) {
            Some(entry) => entry.2 = row,
            None => self.rows.push((writer, bytes, row)),
        }
    }

    /// Takes over a row that was counted anew.
    pub(super) fn set_row(&mut self, writer: Writer, bytes: bytes::Bytes, row: WriterRow) {
        self.set(writer, Some(bytes), row);
    }

    /// Makes the total the sum over these writers, and returns it.
    pub(super) async fn recounted(
        &mut self,
        state: &State,
        owned: &BTreeSet<Writer>,
    ) -> Result<u64, Refusal> {
        self.total = 0;
        for writer in owned {
            if let Some((_, row)) = self.row(state, writer).await? {
                self.total += i128::from(row.bytes);
            }
        }
        Ok(self.total())
    }

    pub(super) fn total(&self) -> u64 {
        u64::try_from(self.total.max(0)).unwrap_or(u64::MAX)
    }

    pub(super) fn into_batch(self, user: &User, over: bool) -> Batch {
        let row = UsageRow {
            total: self.total(),
            over,
        };
        let key = user.name.as_str().as_bytes().to_vec();
        let mut batch = Batch::new();
        if row != self.usage || self.before.is_none() {
            batch = batch.expect(tables::USAGE, key.clone(), self.before).put(
                tables::USAGE,
                key,
                row.encode(),
            );
        }
        for (writer, before, row) in self.rows {
            let key = writer.cid().to_bytes();
            batch = batch.expect(tables::WRITERS, key.clone(), before).put(
                tables::WRITERS,
                key,
                row.encode(),
            );
        }
        batch
    }
}

/// Accounts what an earlier run of the node left behind.
pub(crate) async fn resume(state: &Arc<State>) -> Result<(), Refusal> {
    let mut after: Option<bytes::Bytes> = None;
    loop {
        let page = state
            .store
            .scan(tables::UNSETTLED, b"", after.as_deref(), 1000)
            .await?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for (key, _) in page {
            let Ok(writer) = Cid::decode(&key)
                .map_err(Refusal::internal)
                .and_then(|cid| writers::writer_of(cid).map_err(Refusal::internal))
            else {
                continue;
            };
            let Some((_, row)) = writers::read_row(state, &writer).await? else {
                continue;
            };
            let user = state.directory.named(row.user.as_str()).await?;
            if state.store.is_shared() {
                // What is pending now belongs to writes of other processes.
                state.usage.settle_left_over(state, &user, writer).await?;
            } else {
                state.usage.committed(state, &user, [writer]).await;
            }
        }
    }
}
