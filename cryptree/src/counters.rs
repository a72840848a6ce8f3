//! What the client has cost so far: calls, blocks and bytes. Tests and benches assert on these.

use std::sync::atomic::{AtomicU64, Ordering};

/// Running totals of one client.
#[derive(Debug, Default)]
pub struct Counters {
    calls: AtomicU64,
    retries: AtomicU64,
    blocks_read: AtomicU64,
    blocks_written: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    commits: AtomicU64,
}

/// The totals at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Calls made, repeated ones included.
    pub calls: u64,
    /// Calls that were repeated.
    pub retries: u64,
    /// Blocks fetched one by one, fragments included; blocks of trie lookups are not counted.
    pub blocks_read: u64,
    /// Blocks sent.
    pub blocks_written: u64,
    /// Bytes of request bodies.
    pub bytes_sent: u64,
    /// Bytes of reply bodies.
    pub bytes_received: u64,
    /// Pointer updates acknowledged.
    pub commits: u64,
}

impl Counters {
    /// Returns the totals.
    pub fn usage(&self) -> Usage {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Usage {
            calls: read(&self.calls),
            retries: read(&self.retries),
            blocks_read: read(&self.blocks_read),
            blocks_written: read(&self.blocks_written),
            bytes_sent: read(&self.bytes_sent),
            bytes_received: read(&self.bytes_received),
            commits: read(&self.commits),
        }
    }

    pub(crate) fn call(&self, sent: usize) {
        add(&self.calls, 1);
        add(&self.bytes_sent, sent);
    }

    pub(crate) fn reply(&self, received: usize) {
        add(&self.bytes_received, received);
    }

    pub(crate) fn retry(&self) {
        add(&self.retries, 1);
    }

    pub(crate) fn block_read(&self) {
        add(&self.blocks_read, 1);
    }

    pub(crate) fn blocks_written(&self, count: usize) {
        add(&self.blocks_written, count);
    }

    pub(crate) fn commit(&self) {
        add(&self.commits, 1);
    }
}

impl Usage {
    /// Returns what was added since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            retries: self.retries.saturating_sub(earlier.retries),
            blocks_read: self.blocks_read.saturating_sub(earlier.blocks_read),
            blocks_written: self.blocks_written.saturating_sub(earlier.blocks_written),
            bytes_sent: self.bytes_sent.saturating_sub(earlier.bytes_sent),
            bytes_received: self.bytes_received.saturating_sub(earlier.bytes_received),
            commits: self.commits.saturating_sub(earlier.commits),
        }
    }
}

fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}
