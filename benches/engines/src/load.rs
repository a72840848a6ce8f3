//! The load, phase by phase.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    engine::{Engine, Kind},
    report::Figures,
};

const FRAGMENT_BYTES: usize = 1 << 20;
const FRAGMENTS: u64 = 5;
const SMALL_PER_COMMIT: u64 = 6;
/// An encrypted directory entry or CHAMP node.
const SMALL_BYTES: usize = 4096;
/// What fills the store: rows of the index and of accounts.
const ROW_BYTES: usize = 300;
const FILL_BATCH: u64 = 1000;

/// How much of everything.
pub struct Plan {
    pub blocks: u64,
    pub uploads: u64,
    pub commits: u64,
    pub reads: u64,
}

/// Numbers that need no dependency: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Bytes that do not compress, like ciphertext.
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length + 8);
        while out.len() < length {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(length);
        out
    }
}

/// The key of block `n` of a phase: spread like hashes.
fn key(phase: u8, n: u64) -> Vec<u8> {
    let mut random = Random(n.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ (u64::from(phase) << 56));
    let mut key = random.bytes(35);
    key.push(phase);
    key
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

pub fn run(kind: Kind, folder: &Path, plan: &Plan) -> Result<Figures> {
    let store = folder.join("store");
    fs::create_dir_all(&store)?;
    let mut random = Random(1);
    let mut engine = kind.open(&store)?;

    let mut time = Duration::ZERO;
    for n in 0..plan.uploads {
        let mut pairs: Vec<_> = (0..FRAGMENTS)
            .map(|i| (key(0, n * FRAGMENTS + i), random.bytes(FRAGMENT_BYTES)))
            .collect();
        pairs.extend(
            (0..SMALL_PER_COMMIT)
                .map(|i| (key(1, n * SMALL_PER_COMMIT + i), random.bytes(SMALL_BYTES))),
        );
        time += timed(|| engine.put(&pairs))?;
    }
    let upload_bytes =
        plan.uploads * (FRAGMENTS * FRAGMENT_BYTES as u64 + SMALL_PER_COMMIT * SMALL_BYTES as u64);
    let upload_mb_per_s = per_second(upload_bytes, time) / 1e6;

    let mut time = Duration::ZERO;
    for n in 0..plan.commits {
        let pairs: Vec<_> = (0..SMALL_PER_COMMIT)
            .map(|i| (key(2, n * SMALL_PER_COMMIT + i), random.bytes(SMALL_BYTES)))
            .collect();
        time += timed(|| engine.put(&pairs))?;
    }
    let commits_per_s = per_second(plan.commits, time);

    let mut time = Duration::ZERO;
    let mut filled = 0;
    while filled < plan.blocks {
        let end = (filled + FILL_BATCH).min(plan.blocks);
        let pairs: Vec<_> = (filled..end)
            .map(|n| (key(3, n), random.bytes(ROW_BYTES)))
            .collect();
        time += timed(|| engine.put(&pairs))?;
        filled = end;
    }
    let fill_per_s = per_second(plan.blocks, time);
    let peak_rss_mib = status_kib("VmHWM:") / 1024.0;

    drop(engine);
    let started = Instant::now();
    let mut engine = kind.open(&store)?;
    ensure!(
        plan.blocks == 0 || engine.get(&key(3, 0))?.is_some(),
        "a row is gone after reopening"
    );
    let open_ms = started.elapsed().as_secs_f64() * 1e3;

    let mut time = Duration::ZERO;
    for _ in 0..plan.reads.min(plan.blocks.saturating_mul(10)) {
        let wanted = key(3, random.next() % plan.blocks);
        let mut found = None;
        time += timed(|| {
            found = engine.get(&wanted)?;
            Ok(())
        })?;
        ensure!(
            found.is_some_and(|value| value.len() == ROW_BYTES),
            "a row is gone"
        );
    }
    let reads_per_s = per_second(plan.reads, time);
    let rss_mib = status_kib("VmRSS:") / 1024.0;

    let live = remove_half(engine.as_mut(), plan)?;
    let after_delete = bytes_below(&store)? as f64 / live as f64;
    drop(engine);
    drop(kind.open(&store)?);
    let after_reopen = bytes_below(&store)? as f64 / live as f64;

    Ok(Figures {
        engine: kind.title().to_owned(),
        upload_mb_per_s,
        commits_per_s,
        fill_per_s,
        reads_per_s,
        open_ms,
        peak_rss_mib,
        rss_mib,
        disk_per_live_byte: after_delete,
        disk_per_live_byte_reopened: after_reopen,
    })
}

/// Removes every second block of each phase and returns the bytes that are left.
fn remove_half(engine: &mut dyn Engine, plan: &Plan) -> Result<u64> {
    let phases = [
        (0, plan.uploads * FRAGMENTS, FRAGMENT_BYTES),
        (1, plan.uploads * SMALL_PER_COMMIT, SMALL_BYTES),
        (2, plan.commits * SMALL_PER_COMMIT, SMALL_BYTES),
        (3, plan.blocks, ROW_BYTES),
    ];
    let mut live = 0;
    for (phase, count, size) in phases {
        let gone: Vec<_> = (0..count)
            .filter(|n| n % 2 == 0)
            .map(|n| key(phase, n))
            .collect();
        for batch in gone.chunks(1000) {
            engine.remove(batch)?;
        }
        live += (count - gone.len() as u64) * size as u64;
    }
    Ok(live.max(1))
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed())
}

/// Allocated bytes of all files, not their lengths: stores make sparse files.
fn bytes_below(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() {
            bytes_below(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(sum)
}

fn status_kib(field: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(f64::NAN)
}
