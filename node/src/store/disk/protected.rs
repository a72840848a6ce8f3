//! The blocks that open transactions protect, kept from one batch of a collector's deletions to the next.
//!
//! Every batch has to know them. Reading all transaction rows of the space for each would make a collection beside a
//! large upload cost the product of the two, so they are read once and then follow the rows.

use std::collections::HashMap;

use redb::ReadableTable;

use super::{
    fault::database_fault,
    layout::{PartitionNumber, TransactionRow, transactions_prefix},
};
use crate::store::StoreError;

/// Most blocks kept between groups: 100 bytes each.
const MAX_KEPT: usize = 100_000;

/// What is protected in the space of the last deletion.
///
/// Follows uncommitted changes, so it must be forgotten when the group that made them fails.
#[derive(Debug, Default)]
pub(super) struct Protected(Option<Space>);

#[derive(Debug)]
struct Space {
    number: PartitionNumber,
    /// How many rows name each block, by binary CID.
    cids: HashMap<Vec<u8>, u32>,
}

impl Protected {
    /// Forgets everything; the next deletion reads it again.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    /// Lets go of more memory than it may hold on to.
    pub(super) fn trim(&mut self) {
        if self
            .0
            .as_ref()
            .is_some_and(|space| space.cids.len() > MAX_KEPT)
        {
            self.forget();
        }
    }

    /// Follows a row that was added.
    pub(super) fn add(&mut self, number: PartitionNumber, cids: &[Vec<u8>]) {
        if let Some(space) = self.of(number) {
            for cid in cids {
                *space.cids.entry(cid.clone()).or_default() += 1;
            }
        }
    }

    /// Follows a row that was removed.
    pub(super) fn remove(&mut self, number: PartitionNumber, cids: &[Vec<u8>]) {
        let Some(space) = self.of(number) else {
            return;
        };
        for cid in cids {
            if let Some(rows) = space.cids.get_mut(cid) {
                *rows -= 1;
                if *rows == 0 {
                    space.cids.remove(cid);
                }
            }
        }
    }

    fn of(&mut self, number: PartitionNumber) -> Option<&mut Space> {
        self.0.as_mut().filter(|space| space.number == number)
    }

    /// Reads the rows of a space unless they are known.
    pub(super) fn load(
        &mut self,
        number: PartitionNumber,
        meta: &impl ReadableTable<&'static [u8], &'static [u8]>,
    ) -> Result<(), StoreError> {
        if self.of(number).is_some() {
            return Ok(());
        }
        let mut cids: HashMap<Vec<u8>, u32> = HashMap::new();
        let prefix = transactions_prefix(number);
        for row in meta.range(prefix.as_slice()..).map_err(database_fault)? {
            let (key, row) = row.map_err(database_fault)?;
            if !key.value().starts_with(&prefix) {
                break;
            }
            for cid in TransactionRow::decode(row.value())?.cids {
                *cids.entry(cid).or_default() += 1;
            }
        }
        self.0 = Some(Space { number, cids });
        Ok(())
    }

    /// Returns true when a transaction protects a block of the space that was loaded.
    pub(super) fn contains(&self, cid: &[u8]) -> bool {
        self.0
            .as_ref()
            .is_some_and(|space| space.cids.contains_key(cid))
    }
}
