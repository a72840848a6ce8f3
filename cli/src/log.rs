//! The node's log: what may be in it, and how much of it (Spec: 40 DOS-12, PRV-6).
//!
//! Who can make a node write a line can make it write a million, so each place in the code may write so many lines
//! in ten seconds; the rest is counted and the count is written. Libraries that would print what they read from
//! the network at their lower levels are kept above these, unless a filter names them. A panic is logged by its
//! place alone: its text may hold what somebody sent.

use std::{
    collections::HashMap,
    hash::Hash,
    io::{self, Write},
    panic::PanicHookInfo,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Metadata, callsite::Identifier};
use tracing_subscriber::fmt::MakeWriter;

/// Lines of one place in the code in one window.
const MAX_LINES: u64 = 100;
/// The same for the access log, which has one place for all requests.
const MAX_ACCESS_LINES: u64 = 5000;
const WINDOW: Duration = Duration::from_secs(10);
/// Libraries that handle bytes from the network. Those of the peer-to-peer network speak to their developers even when
/// all is well; a node that knows no other is not worth a warning.
const QUIET: &str = "hyper=info,hyper_util=info,h2=info,rustls=info,tokio_rustls=info,instant_acme=info,\
     libp2p=warn,libp2p_kad=error,multistream_select=warn,yamux=warn,quinn=warn,hickory=warn,netlink=warn";

/// Returns a filter under which libraries print nothing they read, unless `filter` names them.
#[must_use]
pub fn capped(filter: &str) -> String {
    // Of two directives for one target the later counts.
    format!("{QUIET},{filter}")
}

/// Has panics logged by their place in the code.
pub fn log_panics_by_place() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(place, "a task panicked");
    }));
}

/// Standard error, with a limit for each place in the code.
#[derive(Debug)]
pub struct Limited<W = fn() -> io::Stderr> {
    open: W,
    places: Places<Identifier>,
}

/// Counts lines by place.
#[derive(Debug)]
struct Places<K>(Mutex<HashMap<K, Window>>);

#[derive(Debug)]
struct Window {
    begun: Instant,
    lines: u64,
}

/// Where one line goes.
#[derive(Debug)]
pub enum Line<W> {
    /// Out, after a note about lines left out before it.
    Out(W, Option<u64>),
    /// Nowhere.
    Dropped,
}

impl Limited {
    /// Limits standard error.
    #[must_use]
    pub fn stderr() -> Self {
        Self::new(io::stderr)
    }
}

impl<W> Limited<W> {
    /// Limits what `open` opens.
    pub fn new(open: W) -> Self {
        Self {
            open,
            places: Places(Mutex::default()),
        }
    }
}

impl<K: Eq + Hash> Places<K> {
    /// Counts a line; `None` when it is one too many, else how many were left out before it.
    fn admit(&self, place: K, max: u64, now: Instant) -> Option<u64> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(place).or_insert(Window {
            begun: now,
            lines: 0,
        });
        let mut left_out = 0;
        if now.duration_since(window.begun) >= WINDOW {
            left_out = window.lines.saturating_sub(max);
            (window.begun, window.lines) = (now, 0);
        }
        window.lines += 1;
        (window.lines <= max).then_some(left_out)
    }
}

impl<'a, W: Write, F: Fn() -> W> MakeWriter<'a> for Limited<F> {
    type Writer = Line<W>;

    fn make_writer(&'a self) -> Line<W> {
        Line::Out((self.open)(), None)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<W> {
        let max = match metadata.target() {
            "access" => MAX_ACCESS_LINES,
            _ => MAX_LINES,
        };
        match self.places.admit(metadata.callsite(), max, Instant::now()) {
            Some(left_out) => Line::Out((self.open)(), (left_out > 0).then_some(left_out)),
            None => Line::Dropped,
        }
    }
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Out(out, left_out) => {
                if let Some(count) = left_out.take() {
                    // A form that is good among text and among JSON.
                    writeln!(out, "{{\"lines_left_out\":{count},\"like\":\"the next\"}}")?;
                }
                out.write(bytes)
            }
            Self::Dropped => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Out(out, _) => out.flush(),
            Self::Dropped => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::EnvFilter;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn dos_12_a_flood_of_one_line_does_not_fill_the_disk_nor_hide_the_others() {
        let buffer = Buffer::default();
        let open = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(Limited::new(move || open.clone()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..50_000 {
                tracing::warn!(number, "a bad request");
            }
            tracing::warn!("something else");
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        // The loop may take longer than a window on a busy machine.
        assert!(text.lines().count() < 2000, "{}", text.lines().count());
        assert!(text.contains("something else"));
    }

    #[test]
    fn lines_left_out_are_counted() {
        let places = Places(Mutex::default());
        let begun = Instant::now();
        for number in 0..150 {
            assert_eq!(places.admit("here", 100, begun).is_some(), number < 100);
        }
        assert_eq!(places.admit("there", 100, begun), Some(0));
        assert_eq!(places.admit("here", 100, begun + WINDOW), Some(50));
        assert_eq!(places.admit("here", 100, begun + WINDOW), Some(0));
    }

    #[test]
    fn prv_6_libraries_are_quiet_unless_they_are_named() {
        let buffer = Buffer::default();
        let open = buffer.clone();
        let log = |filter: &str| {
            let open = open.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(EnvFilter::new(capped(filter)))
                .with_writer(move || open.clone())
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::trace!(target: "h2::codec", "what was read");
                tracing::info!(target: "libp2p_swarm", "what was read");
                tracing::warn!(target: "libp2p_kad::behaviour", "what was read");
                tracing::trace!(target: "node::http", "ours");
            });
            String::from_utf8(std::mem::take(&mut *buffer.0.lock().unwrap())).unwrap()
        };
        let all = log("trace");
        assert!(
            all.contains("ours") && !all.contains("what was read"),
            "{all}"
        );
        assert!(log("info,h2=trace").contains("what was read"));
    }
}
