//! Accounts of nodes that share a store: a row per user, changed by compare-and-swap (Spec: 06 §4.4).
//!
//! The row holds what is on its way: pending and settling bytes, the tolerance, the upload window. Confirmed bytes and
//! quota have rows of their own and are read each time.

use std::collections::HashMap;

use bytes::Bytes;
use champ::cbor::{Map, RecordError, Value, decode};
use pki::keys::Writer;

use super::{
    UsageRow, UserAccount,
    account::{Account, Pending},
    stored_quota,
};
use crate::{
    directory::User,
    error::Refusal,
    state::State,
    store::{Batch, CommitOutcome, TransactionId, tables},
    writers::writer_of,
};

/// Attempts at a change that those of other processes overtake.
const MAX_ATTEMPTS: usize = 200;
/// Transactions whose bytes are kept apart; those of older ones are counted without saying whose they are.
const MAX_PENDING: usize = 4096;
/// How long bytes stay pending that nobody commits, in seconds: their process may have died.
const PENDING_SECONDS: i64 = 2 * 86_400;

/// Reads the account of a user.
pub(super) async fn view(state: &State, user: &User) -> Result<Account, Refusal> {
    read(state, user).await.map(|(_, account)| account)
}

/// Changes the account of a user; `edit` may be called several times, each time on the present account.
pub(super) async fn change<R>(
    state: &State,
    user: &User,
    account: &UserAccount,
    edit: impl FnMut(&mut Account) -> R,
) -> Result<R, Refusal> {
    change_with(state, user, account, &Batch::new(), edit)
        .await?
        .ok_or_else(|| Refusal::internal("an unconditional change failed"))
}

/// Changes the account of a user together with what `batch` holds; `None` when a condition of the batch does not
/// hold.
pub(super) async fn change_with<R>(
    state: &State,
    user: &User,
    account: &UserAccount,
    batch: &Batch,
    mut edit: impl FnMut(&mut Account) -> R,
) -> Result<Option<R>, Refusal> {
    // The calls of this process wait for each other here instead of overtaking each other below.
    let _turn = account.turn.lock().await;
    let key = user.name.as_str().as_bytes().to_vec();
    let (mut before, mut present) = read(state, user).await?;
    for _ in 0..MAX_ATTEMPTS {
        let outcome = edit(&mut present);
        let mut whole = batch.clone();
        let own = whole.conditions().len();
        whole.append(
            Batch::new()
                .expect(tables::PENDING, key.clone(), before)
                .put(tables::PENDING, key.clone(), encode(&present)),
        );
        match state.store.commit(whole).await? {
            CommitOutcome::Committed => return Ok(Some(outcome)),
            CommitOutcome::ConditionFailed { index, .. } if index != own => return Ok(None),
            CommitOutcome::ConditionFailed { .. } => {}
        }
        (before, present) = read(state, user).await?;
    }
    Err(Refusal::internal("an account keeps changing"))
}

async fn read(state: &State, user: &User) -> Result<(Option<Bytes>, Account), Refusal> {
    let name = user.name.as_str().as_bytes();
    let rows = async {
        let row = state.store.get(tables::PENDING, name).await?;
        let usage = state.store.get(tables::USAGE, name).await?;
        Ok::<_, Refusal>((row, usage))
    };
    let ((row, usage), quota) = futures_util::try_join!(rows, stored_quota(state, &user.name))?;
    let usage = match usage {
        Some(usage) => UsageRow::decode(&usage).map_err(Refusal::internal)?,
        None => UsageRow::default(),
    };
    let mut account = Account::new(usage.total, quota.unwrap_or(0), usage.over, 0);
    if let Some(row) = &row {
        fill(&mut account, row, state.clock.now_seconds()).map_err(Refusal::internal)?;
    }
    Ok((row, account))
}

fn encode(account: &Account) -> Bytes {
    let mut pending: Vec<_> = account.pending.iter().collect();
    pending.sort_by_key(|(_, pending)| std::cmp::Reverse(pending.since_seconds));
    let nameless = pending
        .iter()
        .skip(MAX_PENDING)
        .fold(account.recovered, |sum, (_, pending)| {
            sum.saturating_add(pending.bytes)
        });
    let pending = pending
        .into_iter()
        .take(MAX_PENDING)
        .map(|((writer, transaction), pending)| {
            Value::List(vec![
                Value::from(writer.cid().to_bytes()),
                Value::from(transaction.as_str()),
                integer(pending.bytes),
                Value::Int(pending.since_seconds),
            ])
        })
        .collect();
    let settling = account
        .settling
        .iter()
        .map(|(writer, bytes)| {
            Value::List(vec![Value::from(writer.cid().to_bytes()), integer(*bytes)])
        })
        .collect();
    let (number, now, before) = account.window;
    let mut map = Map::new();
    map.insert("l", integer(account.spare));
    map.insert("o", account.over);
    map.insert("p", Value::List(pending));
    map.insert("r", integer(nameless));
    map.insert("s", Value::List(settling));
    map.insert(
        "w",
        Value::List(vec![Value::Int(number), integer(now), integer(before)]),
    );
    Value::Map(map).encode().into()
}

fn fill(account: &mut Account, row: &[u8], now_seconds: i64) -> Result<(), RecordError> {
    let mut fields = champ::cbor::Fields::of(decode(row)?, "pending")?;
    account.spare = unsigned(fields.required("l")?)?;
    account.over = fields.flag("o")?;
    account.recovered = unsigned(fields.required("r")?)?;
    let mut pending = HashMap::new();
    for item in fields.required("p")?.into_list("p")? {
        let mut item = item.into_list("p")?.into_iter();
        let mut next = || item.next().ok_or(RecordError::Missing("p"));
        let writer = writer(next()?)?;
        let transaction = TransactionId::new(&next()?.into_text("p")?)
            .map_err(|_| RecordError::OutOfRange { field: "p" })?;
        let bytes = unsigned(next()?)?;
        let since_seconds = next()?.into_int("p")?;
        if now_seconds.saturating_sub(since_seconds) < PENDING_SECONDS {
            let entry = Pending {
                bytes,
                since_seconds,
            };
            pending.insert((writer, transaction), entry);
        }
    }
    account.pending = pending;
    for item in fields.required("s")?.into_list("s")? {
        let mut item = item.into_list("s")?.into_iter();
        let mut next = || item.next().ok_or(RecordError::Missing("s"));
        let writer = writer(next()?)?;
        account.settling.insert(writer, unsigned(next()?)?);
    }
    let mut window = fields.required("w")?.into_list("w")?.into_iter();
    let mut next = || window.next().ok_or(RecordError::Missing("w"));
    account.window = (
        next()?.into_int("w")?,
        unsigned(next()?)?,
        unsigned(next()?)?,
    );
    Ok(())
}

fn writer(value: Value) -> Result<Writer, RecordError> {
    value.into_cid_bytes("writer").and_then(writer_of)
}

fn integer(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn unsigned(value: Value) -> Result<u64, RecordError> {
    u64::try_from(value.into_int("bytes")?).map_err(|_| RecordError::OutOfRange { field: "bytes" })
}

#[cfg(test)]
mod tests {
    use pki::{
        keys::{PublicKeyHash, PublicSigningKey},
        wire::block_group::BlockFormat,
    };

    use super::*;

    fn writer_number(n: u8) -> Writer {
        Writer(PublicKeyHash::of(&PublicSigningKey::from_bytes([n; 32])))
    }

    fn transaction(id: &str) -> TransactionId {
        TransactionId::new(id).unwrap()
    }

    fn read_back(account: &Account, now_seconds: i64) -> Account {
        let mut back = Account::new(account.confirmed, account.quota, false, 0);
        fill(&mut back, &encode(account), now_seconds).unwrap();
        back
    }

    #[test]
    fn accounts_survive_encoding() {
        let mut account = Account::new(10, 1_000_000, true, 7);
        for n in 1..4 {
            let (writer, open) = (writer_number(n), transaction("t"));
            account
                .reserve(&writer, &open, 100, BlockFormat::Raw, 50, 86_400)
                .unwrap();
        }
        account.commit(&writer_number(2));
        assert_eq!(read_back(&account, 50), account);
    }

    #[test]
    fn what_nobody_commits_is_forgotten_in_the_end() {
        let mut account = Account::new(0, 1_000, false, 0);
        let (writer, open) = (writer_number(1), transaction("t"));
        account
            .reserve(&writer, &open, 100, BlockFormat::Raw, 50, 86_400)
            .unwrap();
        let back = read_back(&account, 50 + PENDING_SECONDS - 1);
        assert_eq!(back.pending_total(), 100);
        let back = read_back(&account, 50 + PENDING_SECONDS);
        assert_eq!(back.pending_total(), 0);
    }

    #[test]
    fn dos_12_rows_of_accounts_are_bounded_and_lose_no_byte() {
        let mut account = Account::new(0, 1 << 40, false, 0);
        for n in 0..MAX_PENDING + 100 {
            let open = transaction(&format!("t{n}"));
            account
                .reserve(&writer_number(1), &open, 1, BlockFormat::Raw, 50, 86_400)
                .unwrap();
        }
        let back = read_back(&account, 50);
        assert_eq!(back.pending.len(), MAX_PENDING);
        assert_eq!(back.pending_total(), account.pending_total());
    }
}
