//! Every pointer: is it signed by its writer, is everything it leads to here, and is it counted right?

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use champ::{Block, BlockSource, Cid, Codec, SourceError, access::BatWithId, cbor};
use pki::{
    keys::{PublicKeyHash, Writer},
    pointer::SignedPointer,
    username::Username,
};

use super::{Affected, CheckOptions, Finding, Kind, Progress, user_of};
use crate::{
    directory::partition_of,
    store::{Copy, MAX_SCAN_ROWS, Partition, Store, StoreError, Table, tables},
    usage,
    writers::WriterRow,
};

/// Findings below one pointer that are listed one by one.
const MAX_LISTED: u64 = 100;
/// Attempts at a pointer that moves while it is looked at.
const MAX_ATTEMPTS: u32 = 5;
/// Sizes saturate here: a hostile graph can claim any size (Spec: 12 §3.1).
const MAX_TREE_BYTES: u128 = 1 << 62;

/// The blocks of one space, for the resolution of keys.
struct PartitionBlocks<'a>(&'a dyn Store, &'a Partition);

#[async_trait::async_trait]
impl BlockSource for PartitionBlocks<'_> {
    async fn block(
        &self,
        cid: &Cid,
        _token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError> {
        let block = self.0.block(self.1, cid).await;
        block.map_err(|error| SourceError::Failed(Arc::new(error)))
    }
}

/// Checks all pointers, or those of one user; false when it was told to stop.
pub(super) async fn check(
    store: &dyn Store,
    options: &CheckOptions,
    progress: &mut Progress,
    told: &mut (dyn FnMut(&Progress) -> bool + Send),
) -> Result<bool, StoreError> {
    let totals_before = stored_totals(store).await?;
    let mut sums: HashMap<Username, u128> = HashMap::new();
    let mut after: Option<Bytes> = None;
    loop {
        let page = store
            .scan(tables::POINTERS, b"", after.as_deref(), 1000)
            .await?;
        let Some((last, _)) = page.last() else {
            break;
        };
        after = Some(last.clone());
        for (key, _) in page {
            pointer(store, options, &key, &mut sums, progress).await?;
            if !told(progress) {
                return Ok(false);
            }
        }
    }
    totals(store, options, &sums, &totals_before, progress).await?;
    if options.user.is_none() {
        rows(store, progress).await?;
    }
    Ok(true)
}

/// Checks one pointer and everything below it.
async fn pointer(
    store: &dyn Store,
    options: &CheckOptions,
    row_key: &[u8],
    sums: &mut HashMap<Username, u128>,
    progress: &mut Progress,
) -> Result<(), StoreError> {
    let report = &mut progress.report;
    let writer = Cid::decode(row_key)
        .ok()
        .and_then(|cid| PublicKeyHash::try_new(cid).ok());
    let Some(writer) = writer.map(Writer) else {
        if options.user.is_none() {
            report.add(Finding::new(Kind::BadPointer).note("its writer cannot be read"));
        }
        return Ok(());
    };
    let row = store.get(tables::WRITERS, row_key).await?;
    let row = row.as_deref().map(WriterRow::decode);
    let row = match row {
        Some(Ok(row)) => row,
        _ if options.user.is_some() => return Ok(()),
        Some(Err(error)) => {
            let finding = Finding::new(Kind::BadRow).writer(writer.cid());
            report.add(finding.note(format!("writer: {error}")));
            return Ok(());
        }
        None => {
            report.add(Finding::new(Kind::UnknownWriter).writer(writer.cid()));
            return Ok(());
        }
    };
    if options.user.as_ref().is_some_and(|only| *only != row.user) {
        return Ok(());
    }
    let Ok(partition) = partition_of(&row.user) else {
        return Ok(());
    };
    if !row.is_detached {
        *sums.entry(row.user.clone()).or_default() += u128::from(row.bytes);
    }
    report.pointers += 1;
    let bad = |note: String| {
        Finding::new(Kind::BadPointer)
            .user(row.user.as_str())
            .writer(writer.cid())
            .note(note)
    };
    let key = match writer
        .hash()
        .resolve(&PartitionBlocks(store, &partition))
        .await
    {
        Ok(key) => key,
        Err(error) => {
            report.add(bad(format!("its key cannot be had: {error}")));
            return Ok(());
        }
    };
    let mut walk = Walk::new(store, &partition);
    let mut attempt = 0;
    loop {
        let Some(signed) = store.get(tables::POINTERS, row_key).await? else {
            return Ok(());
        };
        let update = match SignedPointer::verify(&key, signed.clone()) {
            Ok(pointer) => pointer.update().clone(),
            Err(error) => {
                report.add(bad(error.to_string()));
                return Ok(());
            }
        };
        let Some(root) = update.updated() else {
            break;
        };
        walk.tree(root).await?;
        attempt += 1;
        // Blocks of an old root go when a new one has come: that is no loss.
        if walk.lost > 0
            && attempt < MAX_ATTEMPTS
            && store.get(tables::POINTERS, row_key).await?.as_ref() != Some(&signed)
        {
            walk = Walk::new(store, &partition);
            continue;
        }
        report.reachable += walk.sizes.len() as u64;
        walk.report(&writer, root, report);
        break;
    }
    // What is counted is what was accounted last; an update may be waiting.
    let accounted = match &row.accounted {
        Some(root) => walk.tree(root).await?,
        None => 0,
    };
    let is_settled = store.get(tables::UNSETTLED, row_key).await?.is_none();
    let again = store.get(tables::WRITERS, row_key).await?;
    let is_current = again.as_deref().map(WriterRow::decode) == Some(Ok(row.clone()));
    // Lost blocks count nothing when they are looked up, and counted when they were stored.
    if is_settled && is_current && walk.lost == 0 && u128::from(row.bytes) != accounted {
        progress.report.add(
            Finding::new(Kind::WrongUsage)
                .user(row.user.as_str())
                .writer(writer.cid())
                .note(format!(
                    "{} bytes are counted, it is {accounted}",
                    row.bytes
                )),
        );
    }
    Ok(())
}

/// Reads the rows with the totals of all users.
async fn stored_totals(store: &dyn Store) -> Result<HashMap<Bytes, Bytes>, StoreError> {
    let mut rows = HashMap::new();
    let mut after: Option<Bytes> = None;
    loop {
        let page = store
            .scan(tables::USAGE, b"", after.as_deref(), 1000)
            .await?;
        let Some((last, _)) = page.last() else {
            return Ok(rows);
        };
        after = Some(last.clone());
        rows.extend(page);
    }
}

/// Compares the totals of users with the sums of their writers.
async fn totals(
    store: &dyn Store,
    options: &CheckOptions,
    sums: &HashMap<Username, u128>,
    totals_before: &HashMap<Bytes, Bytes>,
    progress: &mut Progress,
) -> Result<(), StoreError> {
    let waiting = store.scan(tables::UNSETTLED, b"", None, 1).await?;
    if !waiting.is_empty() {
        // The rows of a user change together; with updates under way the sum may be of two moments.
        return Ok(());
    }
    for (user, sum) in sums {
        if options.user.as_ref().is_some_and(|only| only != user) {
            continue;
        }
        let row = store.get(tables::USAGE, user.as_str().as_bytes()).await?;
        // A total that has moved since the writers were looked at is of another moment than their sum.
        if row.as_ref() != totals_before.get(user.as_str().as_bytes()) {
            continue;
        }
        let total = match row.as_deref().map(usage::stored_total) {
            None => 0,
            Some(Ok(total)) => u128::from(total),
            Some(Err(error)) => {
                let finding = Finding::new(Kind::BadRow).user(user.as_str());
                progress.report.add(finding.note(format!("usage: {error}")));
                continue;
            }
        };
        if total != *sum {
            progress.report.add(
                Finding::new(Kind::WrongUsage)
                    .user(user.as_str())
                    .note(format!("{total} bytes in all, the writers have {sum}")),
            );
        }
    }
    Ok(())
}

/// Reads every row whose form is known.
async fn rows(store: &dyn Store, progress: &mut Progress) -> Result<(), StoreError> {
    let chain = |row: &[u8]| {
        use cbor::Record as _;
        pki::chain::ClaimChain::decode(row)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let quota = |row: &[u8]| {
        usage::read_quota(row)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let name = |row: &[u8]| {
        let text = std::str::from_utf8(row).map_err(|error| error.to_string())?;
        Username::parse(text)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    read_all(store, tables::CHAINS, &chain, progress).await?;
    read_all(store, tables::QUOTAS, &quota, progress).await?;
    read_all(store, tables::KEYS, &name, progress).await
}

async fn read_all(
    store: &dyn Store,
    table: Table,
    read: &(dyn Fn(&[u8]) -> Result<(), String> + Send + Sync),
    progress: &mut Progress,
) -> Result<(), StoreError> {
    let mut after: Option<Bytes> = None;
    loop {
        let page = store
            .scan(table, b"", after.as_deref(), MAX_SCAN_ROWS)
            .await?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for (_, row) in page {
            if let Err(error) = read(&row) {
                let note = format!("{}: {error}", table.name());
                progress.report.add(Finding::new(Kind::BadRow).note(note));
            }
        }
    }
}

/// A block whose children are being looked at.
struct Frame {
    cid: Cid,
    parent: Option<Cid>,
    bytes: u128,
    children: Vec<Cid>,
}

/// What is below the roots of one writer.
struct Walk<'a> {
    store: &'a dyn Store,
    partition: &'a Partition,
    /// Bytes of the tree below each block, every occurrence counted.
    sizes: HashMap<Cid, u128>,
    findings: Vec<Finding>,
    missing: u64,
    damaged: u64,
    lost: u64,
    is_root_lost: bool,
}

impl<'a> Walk<'a> {
    fn new(store: &'a dyn Store, partition: &'a Partition) -> Self {
        Self {
            store,
            partition,
            sizes: HashMap::new(),
            findings: Vec::new(),
            missing: 0,
            damaged: 0,
            lost: 0,
            is_root_lost: false,
        }
    }

    /// Follows all links below a root, each block once; returns the bytes of the tree.
    async fn tree(&mut self, root: &Cid) -> Result<u128, StoreError> {
        let mut stack = Vec::new();
        if !self.sizes.contains_key(root) {
            stack.push(self.open(root.clone(), None).await?);
        }
        while let Some(frame) = stack.last_mut() {
            if let Some(child) = frame.children.pop() {
                if let Some(bytes) = self.sizes.get(&child) {
                    frame.bytes = (frame.bytes + bytes).min(MAX_TREE_BYTES);
                } else {
                    // Comes back for the result: it is known by then.
                    frame.children.push(child.clone());
                    let parent = Some(frame.cid.clone());
                    stack.push(self.open(child, parent).await?);
                }
                continue;
            }
            if let Some(done) = stack.pop() {
                self.sizes.insert(done.cid, done.bytes);
            }
        }
        Ok(self.sizes.get(root).copied().unwrap_or(0))
    }

    /// Reads a block and its links.
    async fn open(&mut self, cid: Cid, parent: Option<Cid>) -> Result<Frame, StoreError> {
        let mut frame = Frame {
            cid,
            parent,
            bytes: 0,
            children: Vec::new(),
        };
        if frame.cid.identity_content().is_some() {
            return Ok(frame);
        }
        if frame.cid.codec() != Codec::DagCbor {
            match self.store.block_size(self.partition, &frame.cid).await? {
                Some(size) => {
                    frame.bytes = size.into();
                    self.note_copy(&frame).await?;
                }
                None => self.lose(&frame, Kind::MissingBlock),
            }
            return Ok(frame);
        }
        match self.store.block(self.partition, &frame.cid).await {
            Ok(Some(block)) => {
                frame.bytes = block.bytes().len() as u128;
                // Unreadable blocks of other servers have no links.
                if let Ok(value) = cbor::decode_shared(block.bytes()) {
                    frame.children = value.links();
                }
            }
            Ok(None) => self.lose(&frame, Kind::MissingBlock),
            Err(StoreError::Damaged(_) | StoreError::Io { .. }) => {
                self.lose(&frame, Kind::DamagedLink);
            }
            Err(error) => return Err(error),
        }
        Ok(frame)
    }

    /// Raw blocks are hashed one by one elsewhere; here it matters whether there is a copy at all.
    async fn note_copy(&mut self, frame: &Frame) -> Result<(), StoreError> {
        let Some(upkeep) = self.store.upkeep() else {
            return Ok(());
        };
        if let Copy::Missing | Copy::WrongLength { .. } =
            upkeep.inspect(self.partition, &frame.cid).await?
        {
            self.lose(frame, Kind::DamagedLink);
        }
        Ok(())
    }

    fn lose(&mut self, frame: &Frame, kind: Kind) {
        self.lost += 1;
        let count = match kind {
            Kind::MissingBlock => &mut self.missing,
            _ => &mut self.damaged,
        };
        *count += 1;
        self.is_root_lost |= frame.parent.is_none();
        if self.lost <= MAX_LISTED {
            let finding = Finding::new(kind).cid(&frame.cid);
            self.findings.push(finding.parent(frame.parent.as_ref()));
        }
    }

    /// Adds what the pointer's own tree lacks to the report.
    fn report(&mut self, writer: &Writer, root: &Cid, report: &mut super::Report) {
        // Raw blocks whose bytes were found wrong before.
        let known = damaged_below(report, self.partition, &self.sizes);
        for cid in &known {
            if !self.findings.iter().any(|f| f.cid.as_deref() == Some(cid)) {
                let mut finding = Finding::new(Kind::DamagedLink);
                finding.cid = Some(cid.clone());
                self.findings.push(finding);
                self.damaged += 1;
            }
        }
        if self.missing + self.damaged == 0 {
            return;
        }
        let user = user_of(self.partition);
        report.affected.push(Affected {
            user: user.clone(),
            writer: writer.to_string(),
            root: root.to_string(),
            is_root_lost: self.is_root_lost,
            missing: self.missing,
            damaged: self.damaged,
        });
        for finding in self.findings.drain(..) {
            report.add(finding.user(user.clone()).writer(writer.cid()));
        }
    }
}

/// Returns the blocks that were found damaged one by one and lie below a root.
fn damaged_below(
    report: &super::Report,
    partition: &Partition,
    reached: &HashMap<Cid, u128>,
) -> Vec<String> {
    let user = user_of(partition);
    let kinds = [Kind::DamagedBlock, Kind::UnreadableBlock];
    let suspects = report
        .findings
        .iter()
        .filter(|finding| kinds.contains(&finding.kind) && finding.user.as_ref() == Some(&user));
    suspects
        .filter_map(|finding| finding.cid.clone())
        .filter(|cid| cid.parse().is_ok_and(|cid: Cid| reached.contains_key(&cid)))
        .collect()
}
