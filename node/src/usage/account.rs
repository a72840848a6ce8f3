//! What the quota rules need to know about one user, in memory (Spec: 06 §4.4).

use std::collections::HashMap;

use pki::{keys::Writer, wire::block_group::BlockFormat};

use crate::{error::Refusal, store::TransactionId};

/// Bytes above the quota that a full user may still write, so that deletions can be committed.
pub(super) const TOLERANCE_BYTES: u64 = 1 << 20;

/// Bytes that one writer wrote under one transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) bytes: u64,
    /// When the last of them were written.
    pub(super) since_seconds: i64,
}

/// The account of one user.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Bytes reachable from the user's pointers.
    pub(super) confirmed: u64,
    /// Bytes the user may store.
    pub(super) quota: u64,
    /// A write was refused and nothing has been freed since.
    pub(super) over: bool,
    /// Bytes written and not yet reachable.
    pub(super) pending: HashMap<(Writer, TransactionId), Pending>,
    /// Bytes of open transactions found at start; nobody knows which writer they belong to.
    pub(super) recovered: u64,
    /// Bytes of committed updates that are not yet part of `confirmed`, by writer.
    pub(super) settling: HashMap<Writer, u64>,
    /// What is left of the tolerance of a user who is above the quota already.
    pub(super) spare: u64,
    /// Uploaded bytes: number of the current window, bytes in it, bytes in the one before.
    pub(super) window: (i64, u64, u64),
}

impl Account {
    pub(super) fn new(confirmed: u64, quota: u64, over: bool, recovered: u64) -> Self {
        Self {
            confirmed,
            quota,
            over,
            recovered,
            spare: TOLERANCE_BYTES,
            ..Self::default()
        }
    }

    /// Returns all bytes that are stored or on their way, confirmed ones excepted.
    pub(super) fn pending_total(&self) -> u64 {
        self.pending
            .values()
            .map(|pending| pending.bytes)
            .chain(self.settling.values().copied())
            .fold(self.recovered, u64::saturating_add)
    }

    fn pending_of(&self, writer: &Writer) -> u64 {
        self.pending
            .iter()
            .filter(|((owner, _), _)| owner == writer)
            .fold(0, |sum, (_, pending)| sum.saturating_add(pending.bytes))
    }

    /// Checks a write against quota and upload rate and counts it as pending.
    pub(super) fn reserve(
        &mut self,
        writer: &Writer,
        transaction: &TransactionId,
        size: u64,
        format: BlockFormat,
        now_seconds: i64,
        window_seconds: i64,
    ) -> Result<(), Refusal> {
        let pending = self.pending_total();
        let expected = self.confirmed.saturating_add(pending).saturating_add(size);
        let limit = match self.over {
            false => self.quota,
            true => self.quota.saturating_add(TOLERANCE_BYTES),
        };
        // Somebody far above a lowered quota must still be able to write the nodes that delete files.
        let is_deletion = format == BlockFormat::DagCbor
            && self.confirmed >= self.quota
            && pending.saturating_add(size) <= self.spare;
        if expected > limit && !is_deletion {
            let refused = size.saturating_add(self.pending_of(writer));
            self.pending.retain(|(owner, _), _| owner != writer);
            self.over = true;
            return Err(Refusal::QuotaReached {
                used: self.confirmed,
                quota: self.quota,
                size: refused,
            });
        }
        if self.uploaded(now_seconds, window_seconds) >= self.quota
            && self.quota > 0
            && !is_deletion
        {
            return Err(Refusal::UploadRate);
        }
        self.window.1 = self.window.1.saturating_add(size);
        let pending = self
            .pending
            .entry((writer.clone(), transaction.clone()))
            .or_default();
        pending.bytes = pending.bytes.saturating_add(size);
        pending.since_seconds = now_seconds;
        Ok(())
    }

    /// Takes back a reservation whose write failed.
    pub(super) fn release(&mut self, writer: &Writer, transaction: &TransactionId, size: u64) {
        let key = (writer.clone(), transaction.clone());
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.bytes = pending.bytes.saturating_sub(size);
            if pending.bytes == 0 {
                self.pending.remove(&key);
            }
        }
    }

    /// Drops what is pending under a transaction that was closed.
    pub(super) fn close(&mut self, transaction: &TransactionId) {
        self.pending.retain(|(_, open), _| open != transaction);
    }

    /// Moves what a writer has pending to what is being settled: its update was committed.
    pub(super) fn commit(&mut self, writer: &Writer) {
        let bytes = self.pending_of(writer);
        self.pending.retain(|(owner, _), _| owner != writer);
        let settling = self.settling.entry(writer.clone()).or_default();
        *settling = settling
            .saturating_add(bytes)
            .saturating_add(std::mem::take(&mut self.recovered));
    }

    /// Takes over a new confirmed total.
    pub(super) fn confirm(&mut self, total: u64) {
        if total > self.quota {
            let grown = total.saturating_sub(self.confirmed);
            let freed = self.confirmed.saturating_sub(total);
            self.spare = self
                .spare
                .saturating_sub(grown)
                .saturating_add(freed)
                .min(TOLERANCE_BYTES);
        } else {
            self.over = false;
            self.spare = TOLERANCE_BYTES;
        }
        self.confirmed = total;
    }

    /// Returns the weighted count of the sliding window before this call.
    fn uploaded(&mut self, now_seconds: i64, window_seconds: i64) -> u64 {
        let seconds = window_seconds.max(1);
        let number = now_seconds.div_euclid(seconds);
        if number != self.window.0 {
            let before = match number == self.window.0 + 1 {
                true => self.window.1,
                false => 0,
            };
            self.window = (number, 0, before);
        }
        let left = seconds - now_seconds.rem_euclid(seconds);
        let weighted = u128::from(self.window.2) * u128::try_from(left).unwrap_or(0)
            / u128::try_from(seconds).unwrap_or(1);
        self.window
            .1
            .saturating_add(u64::try_from(weighted).unwrap_or(u64::MAX))
    }

    /// Returns true when something is pending under a transaction.
    pub(super) fn has_open(&self, transaction: &TransactionId) -> bool {
        self.pending.keys().any(|(_, open)| open == transaction)
    }

    /// Notes that the bytes which were `settling` for a writer are part of the new confirmed total.
    pub(super) fn settled(&mut self, writer: &Writer, settling: u64, total: u64) {
        self.confirm(total);
        if let Some(bytes) = self.settling.get_mut(writer) {
            *bytes = bytes.saturating_sub(settling);
            if *bytes == 0 {
                self.settling.remove(writer);
            }
        }
    }

    /// Returns true when nothing would be lost by forgetting this account.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.settling.is_empty() && self.recovered == 0
    }
}

#[cfg(test)]
mod tests {
    use pki::keys::{PublicKeyHash, PublicSigningKey};

    use super::*;

    const DAY: i64 = 86_400;

    fn writer(n: u8) -> Writer {
        Writer(PublicKeyHash::of(&PublicSigningKey::from_bytes([n; 32])))
    }

    fn transaction() -> TransactionId {
        TransactionId::new("t").unwrap()
    }

    fn put(account: &mut Account, n: u8, size: u64) -> Result<(), Refusal> {
        account.reserve(&writer(n), &transaction(), size, BlockFormat::Raw, 0, DAY)
    }

    fn account(quota: u64) -> Account {
        Account::new(0, quota, false, 0)
    }

    #[test]
    fn wr_11_pending_bytes_of_all_writers_count() {
        let mut account = account(100);
        put(&mut account, 1, 60).unwrap();
        let error = put(&mut account, 2, 41).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Storage quota reached! \nUsed 0 out of 100 bytes. Rejecting write of size 41. \nPlease delete some files or request more space."
        );
        // The tolerance is open now, and the refused writer starts from nothing.
        put(&mut account, 2, 41).unwrap();
        assert!(put(&mut account, 2, TOLERANCE_BYTES).is_err());
    }

    #[test]
    fn a_refusal_names_what_the_writer_had_pending() {
        let mut account = account(100);
        put(&mut account, 1, 60).unwrap();
        let error = put(&mut account, 1, 50).unwrap_err();
        assert!(matches!(error, Refusal::QuotaReached { size: 110, .. }));
        assert_eq!(account.pending_total(), 0);
    }

    #[test]
    fn commits_settle_and_later_writes_stay_pending() {
        let mut account = account(1000);
        put(&mut account, 1, 100).unwrap();
        account.commit(&writer(1));
        put(&mut account, 1, 50).unwrap();
        assert_eq!(account.pending_total(), 150);
        account.settling.remove(&writer(1));
        account.confirm(100);
        assert_eq!((account.confirmed, account.pending_total()), (100, 50));
    }

    #[test]
    fn a_user_above_a_lowered_quota_can_still_delete_but_not_grow_for_ever() {
        let mut account = Account::new(100 << 20, 1 << 20, false, 0);
        assert!(put(&mut account, 1, 1000).is_err());
        let cbor = |account: &mut Account| {
            account.reserve(
                &writer(1),
                &transaction(),
                1 << 19,
                BlockFormat::DagCbor,
                0,
                DAY,
            )
        };
        for _ in 0..2 {
            cbor(&mut account).unwrap();
            account.commit(&writer(1));
            account.settling.clear();
            account.confirm(account.confirmed + (1 << 19));
        }
        assert!(cbor(&mut account).is_err());
        account.confirm(account.confirmed - (10 << 20));
        cbor(&mut account).unwrap();
    }

    #[test]
    fn uploads_of_a_day_are_limited_by_the_quota() {
        let mut account = account(100);
        for _ in 0..2 {
            put(&mut account, 1, 50).unwrap();
            account.close(&transaction());
        }
        assert!(matches!(put(&mut account, 1, 1), Err(Refusal::UploadRate)));
        let later = |account: &mut Account, at| {
            account.reserve(&writer(1), &transaction(), 1, BlockFormat::Raw, at, DAY)
        };
        assert!(matches!(later(&mut account, DAY), Err(Refusal::UploadRate)));
        later(&mut account, DAY + DAY / 2).unwrap();
    }
}
