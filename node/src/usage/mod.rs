//! Space: quotas, what is stored, what is on its way (Spec: 06 §4.4, 12 §3).
//!
//! Confirmed bytes are exact: they change by the difference of the trees below the old and the new root of
//! each committed update, and every update whose difference is still to be worked out leaves a row, written
//! with the pointer itself, that survives a crash.
//!
//! A node that is alone keeps what is pending in memory; nodes that share a store keep it there (`ledger`). Both settle
//! updates alike: every row a settlement changes is a condition of it, so two processes that settle one update count
//! it once.

mod account;
mod delta;
mod ledger;
mod recount;
mod settle;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use champ::cbor::{Fields, Map, RecordError, Value, decode};
use parking_lot::Mutex;
use pki::{keys::Writer, username::Username, wire::block_group::BlockFormat};
use tokio::sync::{Notify, OnceCell};

use crate::{
    directory::User,
    error::Refusal,
    state::State,
    store::{Batch, TransactionId, tables},
};
use account::Account;

pub(crate) use recount::Recounted;
pub(crate) use settle::{drop_writers, resume};

/// Accounts kept in memory before idle ones are forgotten.
const MAX_ACCOUNTS: usize = 10_000;
/// How long a question about usage waits for updates that are still being worked out.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The accounts of all users.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    accounts: Mutex<HashMap<Username, Arc<OnceCell<Arc<UserAccount>>>>>,
}

/// One user's account and the work on it.
#[derive(Debug, Default)]
struct UserAccount {
    account: Mutex<Account>,
    /// True while a task works out differences.
    settler: Mutex<Settler>,
    /// Told when that task has nothing left to do.
    settled: Notify,
    /// Held while the row of a shared account is changed.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Settler {
    is_running: bool,
    /// Writers with committed updates that are not accounted yet.
    dirty: Vec<Writer>,
}

/// What is stored about a user's usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct UsageRow {
    total: u64,
    over: bool,
}

impl UsageRow {
    fn encode(self) -> Bytes {
        let mut map = Map::new();
        map.insert("o", self.over);
        map.insert("t", i64::try_from(self.total).unwrap_or(i64::MAX));
        Value::Map(map).encode().into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut fields = Fields::of(decode(bytes)?, "usage")?;
        Ok(Self {
            over: fields.flag("o")?,
            total: u64::try_from(fields.required("t")?.into_int("t")?)
                .map_err(|_| RecordError::OutOfRange { field: "t" })?,
        })
    }
}

/// Encodes a quota row.
pub(crate) fn quota_row(quota_bytes: u64) -> Bytes {
    Value::Int(i64::try_from(quota_bytes).unwrap_or(i64::MAX))
        .encode()
        .into()
}

/// Returns the stored quota; `None` for a user without space here.
pub(crate) async fn stored_quota(state: &State, name: &Username) -> Result<Option<u64>, Refusal> {
    let Some(row) = state
        .store
        .get(tables::QUOTAS, name.as_str().as_bytes())
        .await?
    else {
        return Ok(None);
    };
    read_quota(&row).map(Some).map_err(Refusal::internal)
}

/// Reads a quota row; returns bytes.
pub(crate) fn read_quota(row: &[u8]) -> Result<u64, RecordError> {
    let quota = decode(row)?.into_int("quota")?;
    Ok(u64::try_from(quota).unwrap_or(0))
}

/// Reads the confirmed bytes in a usage row.
pub(crate) fn stored_total(row: &[u8]) -> Result<u64, RecordError> {
    UsageRow::decode(row).map(|row| row.total)
}

/// Bytes counted as pending; they are given back unless the write is kept.
#[derive(Debug)]
pub(crate) struct Reservation {
    account: Arc<UserAccount>,
    /// Where the account is when other processes share it.
    shared: Option<(Arc<State>, Arc<User>)>,
    writer: Writer,
    transaction: TransactionId,
    size: u64,
    is_kept: bool,
}

impl Reservation {
    /// The write happened.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let (writer, transaction, size) =
            (self.writer.clone(), self.transaction.clone(), self.size);
        let Some((state, user)) = self.shared.take() else {
            self.account
                .account
                .lock()
                .release(&writer, &transaction, size);
            return;
        };
        let account = Arc::clone(&self.account);
        tokio::spawn(async move {
            let release = |account: &mut Account| account.release(&writer, &transaction, size);
            if let Err(error) = ledger::change(&state, &user, &account, release).await {
                // They are forgotten with time.
                tracing::warn!(%error, "bytes of a failed write stay pending");
            }
        });
    }
}

impl Usage {
    /// Checks a write of `size` bytes against quota and upload rate and counts it as pending.
    ///
    /// # Errors
    /// [`Refusal::QuotaReached`], [`Refusal::UploadRate`].
    pub(crate) async fn reserve(
        &self,
        state: &Arc<State>,
        user: &Arc<User>,
        writer: &Writer,
        transaction: &TransactionId,
        size: u64,
        format: BlockFormat,
    ) -> Result<Reservation, Refusal> {
        let account = self.account(state, user).await?;
        let now = state.limit_seconds();
        let window = i64::try_from(state.config.upload_window.as_secs()).unwrap_or(i64::MAX);
        let (was_over, outcome) = account
            .change(state, user, |account| {
                let was_over = account.over;
                let outcome = account.reserve(writer, transaction, size, format, now, window);
                (was_over, outcome)
            })
            .await?;
        if matches!(outcome, Err(Refusal::QuotaReached { .. })) && !was_over {
            tracing::info!(user = user.name.as_str(), "quota reached");
        }
        outcome?;
        Ok(Reservation {
            account,
            shared: state
                .store
                .is_shared()
                .then(|| (Arc::clone(state), Arc::clone(user))),
            writer: writer.clone(),
            transaction: transaction.clone(),
            size,
            is_kept: false,
        })
    }

    /// Returns confirmed bytes; all committed updates are accounted first.
    pub(crate) async fn confirmed(&self, state: &State, user: &User) -> Result<u64, Refusal> {
        let account = self.settled(state, user).await?;
        account.view(state, user, |account| account.confirmed).await
    }

    /// Returns confirmed and pending bytes.
    pub(crate) async fn expected(&self, state: &State, user: &User) -> Result<u64, Refusal> {
        let account = self.settled(state, user).await?;
        let sum = |account: &Account| account.confirmed.saturating_add(account.pending_total());
        account.view(state, user, sum).await
    }

    /// Returns confirmed and pending bytes as they are this moment, without waiting for anything.
    pub(crate) async fn present(&self, state: &State, user: &User) -> Result<(u64, u64), Refusal> {
        let account = self.account(state, user).await?;
        let both = |account: &Account| (account.confirmed, account.pending_total());
        account.view(state, user, both).await
    }

    /// Returns the quota; 0 for a user without space here.
    pub(crate) async fn quota(&self, state: &State, user: &User) -> Result<u64, Refusal> {
        Ok(stored_quota(state, &user.name).await?.unwrap_or(0))
    }

    /// Takes over a quota that has been stored.
    pub(crate) async fn quota_changed(
        &self,
        state: &State,
        user: &User,
        quota_bytes: u64,
    ) -> Result<(), Refusal> {
        let account = self.account(state, user).await?;
        account
            .change(state, user, |account| {
                account.quota = quota_bytes;
                if account.confirmed <= quota_bytes {
                    account.over = false;
                }
            })
            .await
    }

    /// Forgets the account of a user who was removed.
    pub(crate) fn forget(&self, name: &Username) {
        self.accounts.lock().remove(name);
    }

    /// Drops what is pending under a closed transaction.
    ///
    /// # Errors
    /// Failures of the store, when other processes share it.
    pub(crate) async fn transaction_closed(
        &self,
        state: &State,
        user: &User,
        transaction: &TransactionId,
    ) -> Result<(), Refusal> {
        if state.store.is_shared() {
            let account = self.account(state, user).await?;
            let has_open = |account: &Account| account.has_open(transaction);
            if account.view(state, user, has_open).await? {
                let close = |account: &mut Account| account.close(transaction);
                account.change(state, user, close).await?;
            }
            return Ok(());
        }
        let account = self.accounts.lock().get(&user.name).cloned();
        if let Some(account) = account.as_ref().and_then(|cell| cell.get()) {
            account.account.lock().close(transaction);
        }
        Ok(())
    }

    /// Notes that updates of these writers were committed; their differences are worked out in the background.
    pub(crate) async fn committed(
        &self,
        state: &Arc<State>,
        user: &Arc<User>,
        writers: impl IntoIterator<Item = Writer>,
    ) {
        let writers: Vec<Writer> = writers.into_iter().collect();
        let account = match self.moved(state, user, &writers).await {
            Ok(account) => account,
            Err(error) => {
                // The rows stay, so the next start or sweep catches up.
                tracing::warn!(%error, "cannot account a committed update now");
                return;
            }
        };
        self.settle_soon(state, user, account, writers);
    }

    /// Counts what writers have pending as being settled.
    async fn moved(
        &self,
        state: &State,
        user: &User,
        writers: &[Writer],
    ) -> Result<Arc<UserAccount>, Refusal> {
        let account = self.account(state, user).await?;
        account
            .change(state, user, |account| {
                for writer in writers {
                    account.commit(writer);
                }
            })
            .await?;
        Ok(account)
    }

    /// Settles an update that its process committed and did not settle.
    pub(crate) async fn settle_left_over(
        &self,
        state: &Arc<State>,
        user: &Arc<User>,
        writer: Writer,
    ) -> Result<(), Refusal> {
        let account = self.account(state, user).await?;
        self.settle_soon(state, user, account, vec![writer]);
        Ok(())
    }

    fn settle_soon(
        &self,
        state: &Arc<State>,
        user: &Arc<User>,
        account: Arc<UserAccount>,
        writers: Vec<Writer>,
    ) {
        let start = {
            let mut settler = account.settler.lock();
            for writer in writers {
                if !settler.dirty.contains(&writer) {
                    settler.dirty.push(writer);
                }
            }
            !std::mem::replace(&mut settler.is_running, true)
        };
        if start {
            let (state, user) = (Arc::clone(state), Arc::clone(user));
            tokio::spawn(async move { settle::run(&state, &user, &account).await });
        }
    }

    /// Waits, but not for long, until committed updates are accounted; what was replaced is needed until then.
    pub(crate) async fn catch_up(&self, state: &State, user: &User) -> Result<(), Refusal> {
        self.settled(state, user).await.map(drop)
    }

    /// Counts a user's bytes from nothing and, if `apply`, puts what is stored right.
    ///
    /// # Errors
    /// When something cannot be read; nothing is changed then.
    pub(crate) async fn recount(
        &self,
        state: &State,
        user: &User,
        apply: bool,
    ) -> Result<Recounted, Refusal> {
        let account = self.settled(state, user).await?;
        recount::recount(state, user, &account, apply).await
    }

    /// Forgets what is in memory of a user whose rows were changed behind its back, unless something is under way.
    pub(crate) fn forget_idle(&self, user: &User) {
        let mut accounts = self.accounts.lock();
        let account = accounts.get(&user.name).and_then(|cell| cell.get());
        if account.is_some_and(|account| account.is_idle()) {
            accounts.remove(&user.name);
        }
    }

    async fn settled(&self, state: &State, user: &User) -> Result<Arc<UserAccount>, Refusal> {
        let account = self.account(state, user).await?;
        let wait = async {
            loop {
                let notified = account.settled.notified();
                if !account.settler.lock().is_running {
                    return;
                }
                notified.await;
            }
        };
        // Better an answer that lags than none.
        let _ = tokio::time::timeout(MAX_WAIT, wait).await;
        if state.store.is_shared() {
            let _ = tokio::time::timeout(MAX_WAIT, settled_elsewhere(state, user, &account)).await;
        }
        Ok(account)
    }

    async fn account(&self, state: &State, user: &User) -> Result<Arc<UserAccount>, Refusal> {
        let cell = {
            let mut accounts = self.accounts.lock();
            if accounts.len() >= MAX_ACCOUNTS && !accounts.contains_key(&user.name) {
                accounts.retain(|_, cell| cell.get().is_none_or(|account| !account.is_idle()));
            }
            Arc::clone(accounts.entry(user.name.clone()).or_default())
        };
        cell.get_or_try_init(|| load(state, user)).await.cloned()
    }
}

/// Waits until other processes have settled what they committed.
async fn settled_elsewhere(
    state: &State,
    user: &User,
    account: &UserAccount,
) -> Result<(), Refusal> {
    let mut pause = Duration::from_millis(5);
    while !account
        .view(state, user, |account| account.settling.is_empty())
        .await?
    {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
    Ok(())
}

impl UserAccount {
    /// Changes the account, wherever it is kept; `edit` may be called several times.
    async fn change<R>(
        &self,
        state: &State,
        user: &User,
        mut edit: impl FnMut(&mut Account) -> R,
    ) -> Result<R, Refusal> {
        if state.store.is_shared() {
            return ledger::change(state, user, self, edit).await;
        }
        Ok(edit(&mut self.account.lock()))
    }

    /// Looks at the account, wherever it is kept.
    async fn view<R>(
        &self,
        state: &State,
        user: &User,
        look: impl FnOnce(&Account) -> R,
    ) -> Result<R, Refusal> {
        if state.store.is_shared() {
            return Ok(look(&ledger::view(state, user).await?));
        }
        Ok(look(&self.account.lock()))
    }

    fn is_idle(&self) -> bool {
        self.account.lock().is_idle() && !self.settler.lock().is_running
    }
}

async fn load(state: &State, user: &User) -> Result<Arc<UserAccount>, Refusal> {
    if state.store.is_shared() {
        return Ok(Arc::default());
    }
    let row = match state
        .store
        .get(tables::USAGE, user.name.as_str().as_bytes())
        .await?
    {
        Some(row) => UsageRow::decode(&row).map_err(Refusal::internal)?,
        None => UsageRow::default(),
    };
    let quota = stored_quota(state, &user.name).await?.unwrap_or(0);
    // Writes that were acknowledged before a restart and not committed yet must not become free space.
    let mut recovered: u64 = 0;
    for cid in state.store.protected_blocks(&user.partition).await? {
        let size = state.store.block_size(&user.partition, &cid).await?;
        recovered = recovered.saturating_add(size.unwrap_or(0).into());
    }
    Ok(Arc::new(UserAccount {
        account: Mutex::new(Account::new(row.total, quota, row.over, recovered)),
        settler: Mutex::default(),
        settled: Notify::new(),
        turn: tokio::sync::Mutex::default(),
    }))
}

/// Adds to a batch what makes an update accountable: a row that stays until it has been accounted.
pub(crate) fn mark_unsettled(batch: Batch, writer: &Writer, signed: &Bytes) -> Batch {
    batch.put(tables::UNSETTLED, writer.cid().to_bytes(), signed.clone())
}
