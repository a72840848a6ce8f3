//! Putting right what a check found: damaged copies are moved aside, good ones fetched from wherever there are
//! some, counters counted anew. The only thing that is ever removed is a file that no row names, and only after
//! its block was not missed: rows of the index that were lost are made again from such files.

use std::{collections::BTreeSet, sync::Arc};

use champ::{Block, Cid, Codec, cbor};
use serde::{Deserialize, Serialize};

use super::{Finding, Kind, Report, space_of};
use crate::store::{Copy, Partition, Quarantine, Store, StoreError, Unnamed, Upkeep};

/// Blocks that one repair fetches below a block that had been missing.
const MAX_FETCHED: u64 = 10_000_000;

/// A failure of a [`BlockSupply`].
#[derive(Debug, Clone, thiserror::Error)]
#[error("{supply} cannot be asked for blocks")]
pub struct SupplyError {
    /// Which supply.
    pub supply: String,
    /// Why.
    #[source]
    pub source: Arc<dyn std::error::Error + Send + Sync>,
}

/// Somewhere else that may have good copies of blocks: a backup, a mirror.
///
/// Contract: a returned block carries the CID asked for. `Ok(None)` means that it is not there; after an error it
/// is not asked again.
#[async_trait::async_trait]
pub trait BlockSupply: Send + Sync {
    /// Returns a block of a user.
    ///
    /// # Errors
    /// When it cannot be asked.
    async fn block(&self, user: &str, cid: &Cid) -> Result<Option<Block>, SupplyError>;
}

/// How to repair.
#[derive(Clone, Copy, Default)]
pub struct RepairOptions<'a> {
    /// Change nothing, only say what would be done.
    pub is_dry_run: bool,
    /// Where good copies may be.
    pub supply: Option<&'a dyn BlockSupply>,
}

impl std::fmt::Debug for RepairOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RepairOptions")
            .field("is_dry_run", &self.is_dry_run)
            .field("has_supply", &self.supply.is_some())
            .finish()
    }
}

/// What a repair did or, on a dry run, would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    /// True when nothing was changed.
    pub is_dry_run: bool,
    /// Damaged copies that were moved aside.
    pub quarantined: u64,
    /// Blocks that have a good copy again.
    pub healed: u64,
    /// Blocks for which no good copy was found, with their user.
    pub lost: Vec<(String, String)>,
    /// Files removed that no row named.
    pub orphans_removed: u64,
    /// Block spaces counted anew.
    pub recounted: u64,
    /// Findings that need something else: usage, pointers, rows.
    pub left: u64,
}

/// Repairs what `report` lists.
///
/// # Errors
/// Failures of the disk; [`StoreError::NoSpace`] among them when fetched blocks do not fit.
pub async fn repair(
    store: &dyn Store,
    report: &Report,
    options: RepairOptions<'_>,
) -> Result<Repaired, StoreError> {
    let mut repaired = Repaired {
        is_dry_run: options.is_dry_run,
        ..Repaired::default()
    };
    let mut seen = BTreeSet::new();
    let mut sources = Sources {
        upkeep: store.upkeep(),
        unnamed: None,
        supply: options.supply,
    };
    let mut has_strays = false;
    for finding in &report.findings {
        match finding.kind {
            Kind::DamagedBlock
            | Kind::MissingCopy
            | Kind::WrongLength
            | Kind::UnreadableBlock
            | Kind::MissingBlock
            | Kind::DamagedLink => {
                if let Some(block) = block_of(finding)
                    && seen.insert(block.clone())
                {
                    one(store, finding, &block, &mut sources, &mut repaired).await?;
                }
            }
            Kind::OrphanFiles => {
                has_strays = true;
            }
            Kind::WrongCounts => {
                let space = finding.user.as_deref().and_then(space_of);
                if let (Some(upkeep), Some(space)) = (store.upkeep(), space) {
                    upkeep.recount(&space, !options.is_dry_run).await?;
                    repaired.recounted += 1;
                }
            }
            Kind::BadPointer | Kind::UnknownWriter | Kind::BadRow | Kind::WrongUsage => {
                repaired.left += 1;
            }
        }
    }
    // Not before everything that is missing has been looked for among them.
    if has_strays {
        let strays = store.strays(!options.is_dry_run).await?;
        repaired.orphans_removed += strays.found.blocks;
    }
    Ok(repaired)
}

/// Where good copies are looked for.
struct Sources<'a> {
    upkeep: Option<&'a dyn Upkeep>,
    /// Files here that no row names, once they have been asked for.
    unnamed: Option<Unnamed>,
    supply: Option<&'a dyn BlockSupply>,
}

impl Sources<'_> {
    async fn block(
        &mut self,
        user: &str,
        partition: &Partition,
        cid: &Cid,
    ) -> Result<Option<Block>, StoreError> {
        if let Some(upkeep) = self.upkeep {
            if self.unnamed.is_none() {
                self.unnamed = Some(upkeep.unnamed().await?);
            }
            let place = (partition.clone(), cid.clone());
            let unnamed = self.unnamed.as_ref();
            if let Some(file) = unnamed.and_then(|all| all.get(&place).copied())
                && let Some(block) = upkeep.unnamed_block(file, cid).await?
            {
                return Ok(Some(block));
            }
        }
        Ok(supplied(self.supply, user, cid).await)
    }
}

fn block_of(finding: &Finding) -> Option<(Partition, Cid)> {
    let space = space_of(finding.user.as_deref()?)?;
    Some((space, finding.cid.as_deref()?.parse().ok()?))
}

async fn one(
    store: &dyn Store,
    finding: &Finding,
    (partition, cid): &(Partition, Cid),
    sources: &mut Sources<'_>,
    repaired: &mut Repaired,
) -> Result<(), StoreError> {
    let user = finding.user.clone().unwrap_or_default();
    if is_sound(store, partition, cid).await? {
        return Ok(());
    }
    if let Some(upkeep) = store.upkeep() {
        let has_copy = match upkeep.inspect(partition, cid).await? {
            Copy::Absent | Copy::Missing => false,
            Copy::Present | Copy::WrongLength { .. } => true,
        };
        let is_moved = if repaired.is_dry_run {
            has_copy
        } else {
            upkeep.quarantine(partition, cid).await? == Quarantine::Moved
        };
        repaired.quarantined += u64::from(is_moved);
    }
    // Below a block that was missing, more may be missing that nobody could see.
    let mut wanted = vec![cid.clone()];
    let mut budget = MAX_FETCHED;
    while let Some(cid) = wanted.pop() {
        budget = budget.saturating_sub(1);
        if budget == 0 || cid.identity_content().is_some() {
            continue;
        }
        if is_sound(store, partition, &cid).await? {
            continue;
        }
        let Some(block) = sources.block(&user, partition, &cid).await? else {
            repaired.lost.push((user.clone(), cid.to_string()));
            continue;
        };
        if cid.codec() == Codec::DagCbor
            && let Ok(value) = cbor::decode_shared(block.bytes())
        {
            wanted.extend(value.links());
        }
        if !repaired.is_dry_run {
            store.put_blocks(partition, vec![block], None).await?;
        }
        repaired.healed += 1;
    }
    Ok(())
}

async fn is_sound(store: &dyn Store, partition: &Partition, cid: &Cid) -> Result<bool, StoreError> {
    match store.block(partition, cid).await {
        Ok(block) => Ok(block.is_some()),
        Err(StoreError::Damaged(_) | StoreError::Io { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn supplied(supply: Option<&dyn BlockSupply>, user: &str, cid: &Cid) -> Option<Block> {
    match supply?.block(user, cid).await {
        Ok(block) => block,
        Err(error) => {
            tracing::warn!(%error, "no copy from there");
            None
        }
    }
}
