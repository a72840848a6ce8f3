//! Overload: how many requests are at work, and how many bytes wait in memory (Spec: 40 §9, REL-20, DOS-5).
//!
//! A node that takes everything on answers nothing. What is above the limits is refused at once with 503 (429 when
//! one address is the cause), `Retry-After`, and a message that clients take for "try again": a refusal costs
//! little, and the requests that were let in keep their speed. Buffered bytes are counted from the moment they
//! arrive until the request is answered, and from the answer until the client has taken it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{config::Limits, error::Refusal};

/// Answers shorter than this are not counted: the HTTP library copies them anyway.
const MIN_COUNTED_BYTES: usize = 16 << 10;

/// What is at work on the listeners of one node.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    requests: AtomicUsize,
    buffered: AtomicUsize,
    connections: AtomicUsize,
    connections_of: Counts,
    requests_of: Counts,
}

/// Why something was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The node as a whole is at its limit.
    Node,
    /// This address is at its limit.
    Address,
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        match full {
            Full::Node => Self::Busy,
            Full::Address => Self::TooManyRequests,
        }
    }
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            requests: AtomicUsize::new(0),
            buffered: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            connections_of: Counts::default(),
            requests_of: Counts::default(),
        })
    }

    /// Returns the limits.
    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the number of open connections.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Returns the number of requests at work.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes of bodies and answers in memory.
    pub(crate) fn buffered(&self) -> usize {
        self.buffered.load(Ordering::Relaxed)
    }

    /// Lets a connection in. `address` is `None` for one that many clients share: loopback, or a trusted proxy.
    pub(crate) fn connect(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Seat, Full> {
        let max = (self.limits.connections, self.limits.connections_per_address);
        self.sit(Kind::Connection, address, max)
    }

    /// Lets a request in.
    pub(crate) fn request(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Seat, Full> {
        let max = (self.limits.requests, self.limits.requests_per_address);
        self.sit(Kind::Request, address, max)
    }

    fn sit(
        self: &Arc<Self>,
        kind: Kind,
        address: Option<IpAddr>,
        (max, max_of_address): (usize, usize),
    ) -> Result<Seat, Full> {
        let (total, counts) = self.of(kind);
        if !add(total, 1, max) {
            return Err(Full::Node);
        }
        if let Some(address) = address
            && !counts.enter(address, max_of_address)
        {
            total.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Address);
        }
        Ok(Seat {
            admission: Arc::clone(self),
            kind,
            address,
        })
    }

    const fn of(&self, kind: Kind) -> (&AtomicUsize, &Counts) {
        match kind {
            Kind::Connection => (&self.connections, &self.connections_of),
            Kind::Request => (&self.requests, &self.requests_of),
        }
    }

    /// Begins to count the bytes of a body.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        Held {
            admission: Arc::clone(self),
            bytes: 0,
        }
    }

    /// Counts an answer until the client has taken it.
    pub(crate) fn hold_answer(self: &Arc<Self>, bytes: Bytes) -> Result<Bytes, Refusal> {
        if bytes.len() < MIN_COUNTED_BYTES {
            return Ok(bytes);
        }
        let mut held = self.hold();
        held.add(bytes.len())?;
        Ok(held.keep(bytes))
    }
}

/// Adds to a counter unless it would be above `max`.
fn add(counter: &AtomicUsize, count: usize, max: usize) -> bool {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            now.checked_add(count).filter(|sum| *sum <= max)
        })
        .is_ok()
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Connection,
    Request,
}

/// One connection or request that was let in; it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    admission: Arc<Admission>,
    kind: Kind,
    address: Option<IpAddr>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let (total, counts) = self.admission.of(self.kind);
        total.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address {
            counts.leave(address);
        }
    }
}

/// Bytes in memory; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Held {
    /// Counts more of them, or refuses when memory is short.
    pub(crate) fn add(&mut self, count: usize) -> Result<(), Refusal> {
        let max = self.admission.limits.buffered_bytes;
        if !add(&self.admission.buffered, count, max) {
            return Err(Refusal::Busy);
        }
        self.bytes += count;
        Ok(())
    }
}

impl Held {
    /// Counts on until the last handle to these bytes, which were counted while they came, is gone.
    pub(crate) fn keep(self, bytes: Bytes) -> Bytes {
        if bytes.len() < MIN_COUNTED_BYTES {
            return bytes;
        }
        Bytes::from_owner(HeldBytes { bytes, _held: self })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.admission
            .buffered
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct HeldBytes {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Counts by source; as long as the list of those who are here.
#[derive(Debug, Default)]
struct Counts(Mutex<HashMap<IpAddr, usize>>);

impl Counts {
    fn enter(&self, address: IpAddr, max: usize) -> bool {
        let mut counts = self.0.lock();
        let count = counts.entry(address).or_insert(0);
        if *count >= max {
            return false;
        }
        *count += 1;
        true
    }

    fn leave(&self, address: IpAddr) {
        let mut counts = self.0.lock();
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

/// Returns what limits count an address as: one who has an IPv6 address has the whole /64 around it.
pub(crate) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            if v6.is_loopback() {
                IpAddr::V6(v6)
            } else {
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Arc<Admission> {
        Admission::new(Limits {
            requests: 3,
            requests_per_address: 2,
            buffered_bytes: 40_000,
            ..Limits::default()
        })
    }

    #[test]
    fn rel_20_what_is_above_the_limit_is_refused_and_comes_in_later() {
        let admission = small();
        let address = "192.0.2.1".parse().ok();
        let first = admission.request(address).unwrap();
        let _second = admission.request(address).unwrap();
        assert_eq!(admission.request(address).unwrap_err(), Full::Address);
        let _third = admission.request(None).unwrap();
        assert_eq!(admission.request(None).unwrap_err(), Full::Node);
        drop(first);
        let _again = admission.request(address).unwrap();
        assert_eq!(admission.requests(), 3);
    }

    #[test]
    fn bytes_are_counted_until_the_last_handle_is_gone() {
        let admission = small();
        let answer = admission.hold_answer(Bytes::from(vec![0; 30_000])).unwrap();
        let copy = answer.slice(10..20);
        drop(answer);
        assert_eq!(admission.buffered(), 30_000);
        let mut body = admission.hold();
        body.add(10_000).unwrap();
        assert!(matches!(body.add(1), Err(Refusal::Busy)));
        assert!(admission.hold_answer(Bytes::from(vec![0; 20_000])).is_err());
        drop((copy, body));
        assert_eq!(admission.buffered(), 0);
    }

    #[test]
    fn counts_forget_who_left() {
        let admission = small();
        drop(admission.request("192.0.2.1".parse().ok()).unwrap());
        assert!(admission.requests_of.0.lock().is_empty());
    }

    #[test]
    fn an_ipv6_neighbourhood_is_one_source() {
        let of = |text: &str| source(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("::1"), "::1");
    }
}
