//! Space: quotas, what is stored, what is on its way (Spec: 06 §4.4, 12 §3).
//!
//! Confirmed bytes are exact: they change by the difference of the trees below the old and the new root of
//! each committed update, and every update whose difference is still to be worked out leaves a row, written
//! with the pointer itself, that survives a crash.

mod account;
mod delta;
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
#[derive(Debug)]
struct UserAccount {
    account: Mutex<Account>,
    /// True while a task works out differences.
    settler: Mutex<Settler>,
    /// Told when that task has nothing left to do.
    settled: Notify,
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
        if !self.is_kept {
            self.account
                .account
                .lock()
                .release(&self.writer, &self.transaction, self.size);
        }
    }
}

impl Usage {
    /// Checks a write of `size` bytes against quota and upload rate and counts it as pending.
    ///
    /// # Errors
    /// [`Refusal::QuotaReached`], [`Refusal::UploadRate`].
    pub(crate) async fn reserve(
        &self,
        state: &State,
        user: &User,
        writer: &Writer,
        transaction: &TransactionId,
        size: u64,
        format: BlockFormat,
    ) -> Result<Reservation, Refusal> {
        let account = self.account(state, user).await?;
        let was_over;
        let outcome = {
            let mut guard = account.account.lock();
            was_over = guard.over;
            guard.reserve(
                writer,
                transaction,
                size,
                format,
                state.clock.now_seconds(),
                i64::try_from(state.config.upload_window.as_secs()).unwrap_or(i64::MAX),
            )
        };
        if matches!(outcome, Err(Refusal::QuotaReached { .. })) && !was_over {
            tracing::info!(user = user.name.as_str(), "quota reached");
        }
        outcome?;
        Ok(Reservation {
            account,
            writer: writer.clone(),
            transaction: transaction.clone(),
            size,
            is_kept: false,
        })
    }

    /// Returns confirmed bytes; all committed updates are accounted first.
    pub(crate) async fn confirmed(&self, state: &State, user: &User) -> Result<u64, Refusal> {
        let account = self.settled(state, user).await?;
        let confirmed = account.account.lock().confirmed;
        Ok(confirmed)
    }

    /// Returns confirmed and pending bytes.
    pub(crate) async fn expected(&self, state: &State, user: &User) -> Result<u64, Refusal> {
        let account = self.settled(state, user).await?;
        let account = account.account.lock();
        Ok(account.confirmed.saturating_add(account.pending_total()))
    }

    /// Returns confirmed and pending bytes as they are this moment, without waiting for anything.
    pub(crate) async fn present(&self, state: &State, user: &User) -> Result<(u64, u64), Refusal> {
        let account = self.account(state, user).await?;
        let account = account.account.lock();
        Ok((account.confirmed, account.pending_total()))
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
        let mut account = account.account.lock();
        account.quota = quota_bytes;
        if account.confirmed <= quota_bytes {
            account.over = false;
        }
        Ok(())
    }

    /// Forgets the account of a user who was removed.
    pub(crate) fn forget(&self, name: &Username) {
        self.accounts.lock().remove(name);
    }

    /// Drops what is pending under a closed transaction.
    pub(crate) fn transaction_closed(&self, user: &User, transaction: &TransactionId) {
        let account = self.accounts.lock().get(&user.name).cloned();
        if let Some(account) = account.as_ref().and_then(|cell| cell.get()) {
            account.account.lock().close(transaction);
        }
    }

    /// Notes that updates of these writers were committed; their differences are worked out in the background.
    pub(crate) async fn committed(
        &self,
        state: &Arc<State>,
        user: &Arc<User>,
        writers: impl IntoIterator<Item = Writer>,
    ) {
        let account = match self.account(state, user).await {
            Ok(account) => account,
            Err(error) => {
                // The rows stay, so the next start catches up.
                tracing::warn!(%error, "cannot account a committed update now");
                return;
            }
        };
        let start = {
            let mut guard = account.account.lock();
            let mut settler = account.settler.lock();
            for writer in writers {
                guard.commit(&writer);
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

impl UserAccount {
    fn is_idle(&self) -> bool {
        self.account.lock().is_idle() && !self.settler.lock().is_running
    }
}

async fn load(state: &State, user: &User) -> Result<Arc<UserAccount>, Refusal> {
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
    }))
}

/// Adds to a batch what makes an update accountable: a row that stays until it has been accounted.
pub(crate) fn mark_unsettled(batch: Batch, writer: &Writer, signed: &Bytes) -> Batch {
    batch.put(tables::UNSETTLED, writer.cid().to_bytes(), signed.clone())
}
