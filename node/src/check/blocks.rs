//! Every stored block, in order: is its copy there, and is it what its name says?

use champ::{Cid, text};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::{Finding, Kind, Progress, Report, user_of};
use crate::store::{BlockInfo, Copy, Partition, Store, StoreError, Upkeep};

/// Blocks looked at between two reports of progress.
const PAGE_BLOCKS: usize = 512;
/// Blocks read at the same time.
const READS_AT_ONCE: usize = 4;

/// A place in the order of all blocks: the last block that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Block space; the first one when absent.
    pub partition: Option<String>,
    /// Storage key of the block; the first one when absent.
    pub cid: Option<String>,
    /// True after the last block.
    pub is_end: bool,
}

impl Position {
    pub(super) fn at(partition: &Partition, cid: Option<&Cid>) -> Self {
        Self {
            partition: Some(partition.as_str().to_owned()),
            cid: cid.map(Cid::storage_key),
            is_end: false,
        }
    }

    fn partition(&self) -> Option<Partition> {
        Partition::new(self.partition.as_deref()?).ok()
    }

    fn cid(&self) -> Option<Cid> {
        let bytes = text::from_base32_upper(self.cid.as_deref()?).ok()?;
        Cid::decode(&bytes).ok()
    }
}

/// How closely to look at a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Is a copy of the right length there?
    Copies,
    /// Do the bytes match the name?
    Bytes,
}

/// Counts what is to be done.
pub(super) async fn expect(
    store: &dyn Store,
    only: Option<&Partition>,
    progress: &mut Progress,
) -> Result<(), StoreError> {
    (progress.expected_blocks, progress.expected_bytes) = (0, 0);
    for partition in partitions(store, only).await? {
        let counts = store.block_counts(&partition).await?;
        progress.expected_blocks += counts.blocks;
        progress.expected_bytes += counts.bytes;
    }
    Ok(())
}

/// Returns the names of all block spaces, or the one that is asked for.
pub(super) async fn partitions(
    store: &dyn Store,
    only: Option<&Partition>,
) -> Result<Vec<Partition>, StoreError> {
    if let Some(only) = only {
        return Ok(vec![only.clone()]);
    }
    let mut all: Vec<Partition> = Vec::new();
    loop {
        let page = store.partitions(all.last(), 1000).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// One page of blocks.
pub(super) struct Page {
    pub(super) position: Position,
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    pub(super) findings: Vec<Finding>,
}

/// Looks at the blocks behind `position`; the page after the last one says so in its position.
pub(super) async fn page(
    store: &dyn Store,
    only: Option<&Partition>,
    depth: Depth,
    position: &Position,
    limit: usize,
) -> Result<Page, StoreError> {
    let end = |blocks| Page {
        position: Position {
            is_end: true,
            ..position.clone()
        },
        blocks,
        bytes: 0,
        findings: Vec::new(),
    };
    let partition = match (position.partition(), only) {
        (Some(partition), _) => partition,
        (None, Some(only)) => only.clone(),
        (None, None) => match store.partitions(None, 1).await?.pop() {
            Some(first) => first,
            None => return Ok(end(0)),
        },
    };
    let listed = store
        .list_blocks(&partition, position.cid().as_ref(), limit)
        .await?;
    let Some(last) = listed.last() else {
        if only.is_some() {
            return Ok(end(0));
        }
        return Ok(match store.partitions(Some(&partition), 1).await?.pop() {
            Some(next) => Page {
                position: Position::at(&next, None),
                ..end(0)
            },
            None => end(0),
        });
    };
    let mut page = Page {
        position: Position::at(&partition, Some(&last.cid)),
        blocks: listed.len() as u64,
        bytes: listed.iter().map(|info| u64::from(info.size_bytes)).sum(),
        findings: Vec::new(),
    };
    let looks = listed
        .into_iter()
        .map(|info| look(store, &partition, info, depth));
    let mut looks = stream::iter(looks).buffered(READS_AT_ONCE);
    while let Some(finding) = looks.next().await {
        page.findings.extend(finding?);
    }
    Ok(page)
}

/// Looks at one block. A suspicion counts only if the block is still listed as it was.
async fn look(
    store: &dyn Store,
    partition: &Partition,
    info: BlockInfo,
    depth: Depth,
) -> Result<Option<Finding>, StoreError> {
    let Some((kind, note)) = suspect(store, partition, &info, depth).await? else {
        return Ok(None);
    };
    // Deleted or put again meanwhile?
    if suspect(store, partition, &info, depth).await?.is_none() {
        return Ok(None);
    }
    let finding = Finding::new(kind).user(user_of(partition)).cid(&info.cid);
    Ok(Some(finding.note(note)))
}

async fn suspect(
    store: &dyn Store,
    partition: &Partition,
    info: &BlockInfo,
    depth: Depth,
) -> Result<Option<(Kind, String)>, StoreError> {
    if let Some(upkeep) = store.upkeep() {
        match upkeep.inspect(partition, &info.cid).await? {
            Copy::Missing => return Ok(Some((Kind::MissingCopy, String::new()))),
            Copy::WrongLength { actual, recorded } => {
                let note = format!("{actual} bytes instead of {recorded}");
                return Ok(Some((Kind::WrongLength, note)));
            }
            Copy::Absent | Copy::Present => {}
        }
    }
    if depth == Depth::Copies {
        return Ok(None);
    }
    match store.block(partition, &info.cid).await {
        Ok(_) => Ok(None),
        Err(StoreError::Damaged(_)) => Ok(Some((Kind::DamagedBlock, String::new()))),
        Err(StoreError::Io { source, .. }) => Ok(Some((Kind::UnreadableBlock, source.to_string()))),
        Err(error) => Err(error),
    }
}

/// Looks at all blocks from the position of `progress` on; false when it was told to stop.
pub(super) async fn walk(
    store: &dyn Store,
    only: Option<&Partition>,
    depth: Depth,
    progress: &mut Progress,
    told: &mut (dyn FnMut(&Progress) -> bool + Send),
) -> Result<bool, StoreError> {
    while !progress.position.is_end {
        let page = page(store, only, depth, &progress.position, PAGE_BLOCKS).await?;
        progress.report.blocks += page.blocks;
        progress.report.bytes += page.bytes;
        for finding in page.findings {
            progress.report.add(finding);
        }
        progress.position = page.position;
        if !told(progress) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Looks for files and objects that the index does not name.
pub(super) async fn strays(store: &dyn Store, report: &mut Report) -> Result<(), StoreError> {
    let strays = store.strays(false).await?;
    if strays.found.blocks > 0 {
        let (count, bytes) = (strays.found.blocks, strays.found.bytes);
        let what = match store.upkeep() {
            Some(_) => "files",
            None => "objects",
        };
        let note = format!("{count} {what} of {bytes} bytes");
        report.add(Finding::new(Kind::OrphanFiles).note(note));
    }
    Ok(())
}

/// Compares counters with the index, and counts what is in quarantine.
pub(super) async fn tidy(
    store: &dyn Store,
    upkeep: &dyn Upkeep,
    only: Option<&Partition>,
    report: &mut Report,
) -> Result<(), StoreError> {
    for partition in partitions(store, only).await? {
        report.partitions += 1;
        let (mut believed, mut actual) = upkeep.recount(&partition, false).await?;
        if believed != actual {
            (believed, actual) = upkeep.recount(&partition, false).await?;
        }
        if believed != actual {
            let note = format!(
                "{} blocks of {} bytes are counted, {} of {} are there",
                believed.blocks, believed.bytes, actual.blocks, actual.bytes
            );
            report.add(
                Finding::new(Kind::WrongCounts)
                    .user(user_of(&partition))
                    .note(note),
            );
        }
    }
    let mut after: Option<(Partition, Cid)> = None;
    loop {
        let last = after.as_ref().map(|(partition, cid)| (partition, cid));
        let page = upkeep.quarantined(last).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some((last.partition.clone(), last.cid.clone()));
        let counted = page
            .iter()
            .filter(|row| only.is_none_or(|only| row.partition == *only));
        report.quarantined += counted.count() as u64;
    }
}
