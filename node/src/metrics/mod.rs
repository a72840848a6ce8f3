//! What the node counts, and its text for Prometheus (Spec: 40 DOS-12).
//!
//! Every label is a value of an enum of this crate, so the number of series is fixed whatever anybody sends: no
//! names, addresses, CIDs or paths. Counting is a few relaxed additions; nothing is locked on the way of a request.
//! Names: `kastro_<area>_<what>_<unit>`.

mod text;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{error::Refusal, state::State, workers::WorkerError};
use text::Text;

/// How often the gauges that cost a walk through the store are renewed.
const GAUGE_INTERVAL: Duration = Duration::from_secs(60);
/// Partitions looked at in one step of that walk.
const PARTITION_PAGE: usize = 1000;
/// Upper ends of the buckets of durations, in microseconds.
const BUCKETS_MICROS: [u64; 13] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000,
];

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Class {
    Storage,
    Core,
    Mutable,
    Login,
    Social,
    Space,
    Admin,
    Bats,
    Messages,
    /// Pages, and paths that nothing is at.
    Pages,
}

const CLASSES: [&str; 10] = [
    "storage", "core", "mutable", "login", "social", "space", "admin", "bats", "messages", "pages",
];

impl Class {
    /// Returns what a request for this path was for; the path need not be decoded, since odd ways to write a path
    /// are as good as no path here.
    pub(crate) fn of_path(path: &str) -> Self {
        if path.starts_with("/api/v0/") {
            return Self::Storage;
        }
        let family = path
            .strip_prefix("/peergos/v0/")
            .and_then(|rest| rest.split_once('/'));
        match family.map(|(family, _)| family) {
            Some("core") => Self::Core,
            Some("mutable") => Self::Mutable,
            Some("login") => Self::Login,
            Some("social") => Self::Social,
            Some("storage") => Self::Space,
            Some("admin") => Self::Admin,
            Some("bats") => Self::Bats,
            Some("server-message") => Self::Messages,
            _ => Self::Pages,
        }
    }
}

/// Which limit something ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Limit {
    /// Too many connections, of all or of one address.
    Connections,
    /// Too many requests at work, of all or of one address.
    Requests,
    /// Too many bytes in memory.
    Memory,
    /// A request line that is too long.
    Line,
    /// Headers that are too many or too long.
    Headers,
    /// A head that did not come in time.
    HeaderTime,
    /// A request that could be read in two ways, or in none.
    Malformed,
    /// A body above the limit of its call.
    Body,
    /// A body that did not come in time.
    BodyTime,
    /// Too many attempts: guessing, flooding.
    Rate,
    /// A TLS handshake that failed or did not come in time.
    Handshake,
}

const LIMITS: [&str; 11] = [
    "connections",
    "requests",
    "memory",
    "line",
    "headers",
    "header_time",
    "malformed",
    "body",
    "body_time",
    "rate",
    "handshake",
];

const STATUSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The counters of one node.
#[derive(Debug)]
pub struct Metrics {
    started: Instant,
    classes: [ClassCounters; CLASSES.len()],
    refused: [AtomicU64; LIMITS.len()],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    accepted: AtomicU64,
    gauges: Mutex<BTreeMap<&'static str, (&'static str, u64)>>,
    last_error: Mutex<Option<(String, Instant)>>,
}

#[derive(Debug, Default)]
struct ClassCounters {
    statuses: [AtomicU64; STATUSES.len()],
    buckets: [AtomicU64; BUCKETS_MICROS.len()],
    micros: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            classes: Default::default(),
            refused: Default::default(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            gauges: Mutex::default(),
            last_error: Mutex::default(),
        }
    }
}

/// One request as it is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observation {
    pub(crate) class: Class,
    pub(crate) status: StatusCode,
    pub(crate) time: Duration,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Metrics {
    /// Counts a request.
    pub(crate) fn observe(&self, seen: Observation) {
        self.bytes_in.fetch_add(seen.bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(seen.bytes_out, Ordering::Relaxed);
        let Some(class) = self.classes.get(seen.class as usize) else {
            return;
        };
        let status = match seen.status.as_u16() {
            ..300 => 0,
            300..400 => 1,
            400..500 => 2,
            500.. => 3,
        };
        let micros = u64::try_from(seen.time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MICROS.iter().position(|end| micros <= *end);
        let status = class.statuses.get(status);
        let bucket = bucket.and_then(|bucket| class.buckets.get(bucket));
        for counter in [status, bucket].into_iter().flatten() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        class.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Counts something that a limit kept out.
    pub(crate) fn refused(&self, limit: Limit) {
        if let Some(counter) = self.refused.get(limit as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes why a call was refused: limits are counted, failures of this machine are kept for the health page.
    pub(crate) fn note_refusal(&self, refusal: &Refusal) {
        match refusal {
            Refusal::BodyTooLarge { .. } => self.refused(Limit::Body),
            Refusal::BodyIncomplete => self.refused(Limit::BodyTime),
            Refusal::RateLimit(_) => self.refused(Limit::Rate),
            Refusal::Busy => self.refused(Limit::Memory),
            Refusal::Internal(cause) => self.note_error(crate::error::chain(cause.as_ref())),
            _ => {}
        }
    }

    /// Keeps a failure of this machine for the health page; no secrets in it.
    pub fn note_error(&self, text: String) {
        *self.last_error.lock() = Some((text, Instant::now()));
    }

    /// Returns the last failure of this machine and how long ago it was.
    pub(crate) fn last_error(&self) -> Option<(String, Duration)> {
        let last = self.last_error.lock();
        last.as_ref().map(|(text, at)| (text.clone(), at.elapsed()))
    }

    /// Counts a connection that was let in.
    pub(crate) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets a gauge of a background worker, for example `kastro_gc_live_blocks`. Name and help are fixed texts, so
    /// their number is bounded.
    pub fn set_gauge(&self, name: &'static str, help: &'static str, value: u64) {
        self.gauges.lock().insert(name, (help, value));
    }

    /// Returns the time since the node started.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn write(&self, text: &mut Text) {
        text.family(
            "kastro_http_requests_total",
            "counter",
            "Requests by what they were for and how they ended.",
        );
        for (class, counters) in CLASSES.iter().zip(&self.classes) {
            for (status, counter) in STATUSES.iter().zip(&counters.statuses) {
                let labels = [("class", *class), ("status", *status)];
                text.sample("", &labels, counter.load(Ordering::Relaxed));
            }
        }
        text.family(
            "kastro_http_request_duration_seconds",
            "histogram",
            "Time from the head of a request to its answer.",
        );
        for (class, counters) in CLASSES.iter().zip(&self.classes) {
            let buckets = counters
                .buckets
                .iter()
                .map(|count| count.load(Ordering::Relaxed));
            let count = counters
                .statuses
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .sum();
            let micros = counters.micros.load(Ordering::Relaxed);
            text.histogram(
                ("class", class),
                BUCKETS_MICROS.into_iter().zip(buckets),
                count,
                micros,
            );
        }
        text.family(
            "kastro_refused_total",
            "counter",
            "What was kept out, by the limit it ran into.",
        );
        for (limit, counter) in LIMITS.iter().zip(&self.refused) {
            text.sample("", &[("limit", limit)], counter.load(Ordering::Relaxed));
        }
        for (name, help, counter) in [
            (
                "kastro_http_received_bytes_total",
                "Bytes of request bodies.",
                &self.bytes_in,
            ),
            (
                "kastro_http_sent_bytes_total",
                "Bytes of answers, without their headers.",
                &self.bytes_out,
            ),
            (
                "kastro_connections_accepted_total",
                "Connections that were let in.",
                &self.accepted,
            ),
        ] {
            text.family(name, "counter", help);
            text.sample("", &[], counter.load(Ordering::Relaxed));
        }
        for (name, (help, value)) in self.gauges.lock().iter() {
            text.gauge(name, help, *value);
        }
    }
}

/// Renders all metrics of a node.
pub(crate) async fn render(state: &State) -> String {
    let mut text = Text::default();
    state.metrics.write(&mut text);
    let admission = &state.admission;
    let users = state.users.count(state).await.unwrap_or(0);
    for (name, help, value) in [
        (
            "kastro_connections_open",
            "Open connections.",
            admission.connections() as u64,
        ),
        (
            "kastro_http_requests_active",
            "Requests at work.",
            admission.requests() as u64,
        ),
        (
            "kastro_http_buffered_bytes",
            "Bytes of bodies and answers in memory.",
            admission.buffered() as u64,
        ),
        ("kastro_users", "Users with a quota.", users),
        (
            "kastro_uptime_seconds",
            "Time since the node started.",
            state.metrics.uptime().as_secs(),
        ),
    ] {
        text.gauge(name, help, value);
    }
    if let Some(bytes) = resident_bytes() {
        text.gauge(
            "kastro_process_resident_bytes",
            "Memory of the process.",
            bytes,
        );
    }
    let workers = state.workers.list();
    text.family(
        "kastro_worker_runs_total",
        "counter",
        "Runs of background workers.",
    );
    for worker in &workers {
        text.sample("", &[("worker", worker.name)], worker.runs);
    }
    text.family(
        "kastro_worker_failures_total",
        "counter",
        "Failed runs of background workers, panics included.",
    );
    for worker in &workers {
        text.sample("", &[("worker", worker.name)], worker.failures);
    }
    text.finish()
}

/// Starts the worker that renews the gauges of the store.
pub(crate) fn start(state: &Arc<State>) {
    let weak = Arc::downgrade(state);
    state
        .workers
        .every("gauges", GAUGE_INTERVAL, move |_| renew(weak.clone()));
}

async fn renew(state: Weak<State>) -> Result<(), WorkerError> {
    let Some(state) = state.upgrade() else {
        return Ok(());
    };
    let (mut blocks, mut bytes, mut after) = (0u64, 0u64, None);
    loop {
        let page = state
            .store
            .partitions(after.as_ref(), PARTITION_PAGE)
            .await?;
        for partition in &page {
            let counts = state.store.block_counts(partition).await?;
            blocks = blocks.saturating_add(counts.blocks);
            bytes = bytes.saturating_add(counts.bytes);
        }
        after = page.last().cloned();
        if after.is_none() {
            break;
        }
    }
    state.metrics.set_gauge(
        "kastro_store_blocks",
        "Blocks stored, of all users.",
        blocks,
    );
    state
        .metrics
        .set_gauge("kastro_store_block_bytes", "Bytes of these blocks.", bytes);
    for (name, help, value) in state.store.gauges() {
        state.metrics.set_gauge(name, help, value);
    }
    Ok(())
}

/// Reads the memory of this process, where the system tells it.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: u16, millis: u64) -> Observation {
        Observation {
            class: Class::Mutable,
            status: StatusCode::from_u16(status).unwrap(),
            time: Duration::from_millis(millis),
            bytes_in: 10,
            bytes_out: 20,
        }
    }

    fn rendered(metrics: &Metrics) -> String {
        let mut text = Text::default();
        metrics.write(&mut text);
        text.finish()
    }

    #[tokio::test]
    async fn requests_are_counted_by_class_status_and_time() {
        let metrics = Metrics::default();
        metrics.observe(seen(200, 3));
        metrics.observe(seen(400, 60_000));
        metrics.refused(Limit::Rate);
        metrics.set_gauge("kastro_gc_live_blocks", "Blocks found live.", 7);
        let text = rendered(&metrics);
        for line in [
            "kastro_http_requests_total{class=\"mutable\",status=\"2xx\"} 1",
            "kastro_http_requests_total{class=\"mutable\",status=\"4xx\"} 1",
            "kastro_http_requests_total{class=\"login\",status=\"2xx\"} 0",
            "kastro_http_request_duration_seconds_bucket{class=\"mutable\",le=\"0.0025\"} 0",
            "kastro_http_request_duration_seconds_bucket{class=\"mutable\",le=\"0.005\"} 1",
            "kastro_http_request_duration_seconds_bucket{class=\"mutable\",le=\"10\"} 1",
            "kastro_http_request_duration_seconds_bucket{class=\"mutable\",le=\"+Inf\"} 2",
            "kastro_http_request_duration_seconds_sum{class=\"mutable\"} 60.003",
            "kastro_http_request_duration_seconds_count{class=\"mutable\"} 2",
            "kastro_refused_total{limit=\"rate\"} 1",
            "kastro_http_received_bytes_total 20",
            "kastro_http_sent_bytes_total 40",
            "kastro_gc_live_blocks 7",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
    }

    #[tokio::test]
    async fn dos_12_the_number_of_series_does_not_grow_with_what_is_sent() {
        let metrics = Metrics::default();
        let before = rendered(&metrics).lines().count();
        for number in 0..100_000u64 {
            let status = u16::try_from(200 + number % 400).unwrap();
            metrics.observe(seen(status, number));
        }
        assert_eq!(rendered(&metrics).lines().count(), before);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_knows_its_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
