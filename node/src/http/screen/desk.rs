//! What the two sides of a connection tell each other, and the header that stands in for `Trailer`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, header};
use parking_lot::Mutex;

use super::super::head::HeadRefusal;

const STAND_IN: &str = "x-trail";

const STAND_IN_LINE: &[u8] = b"\r\nx-trail: ";

const TRAILER_LINE: &[u8] = b"\r\ntrailer: ";

/// What the two sides of a connection tell each other.
#[derive(Debug, Default)]
pub(in crate::http) struct Desk {
    /// The next answer holds a stand-in header.
    pub(super) has_stand_in: AtomicBool,
    /// Requests that reached the service.
    pub(super) seen: AtomicU64,
    /// Requests that the service has answered.
    pub(super) answered: AtomicU64,
    /// Number of the request that stands for a refused one, and why.
    pub(super) refused: Mutex<Option<(u64, HeadRefusal)>>,
}

impl Desk {
    /// Takes the next request in order; returns why it is refused, if it stands for one.
    pub(in crate::http) fn take_request(&self) -> Option<HeadRefusal> {
        let number = self.seen.fetch_add(1, Ordering::AcqRel);
        let refused = *self.refused.lock();
        refused.and_then(|(at, refusal)| (at == number).then_some(refusal))
    }

    /// Says that an answer is ready.
    pub(in crate::http) fn answered(&self) {
        self.answered.fetch_add(1, Ordering::AcqRel);
    }

    /// Replaces the `Trailer` header of an HTTP/1.0 answer.
    pub(in crate::http) fn stand_in(&self, headers: &mut HeaderMap) {
        if let Some(message) = headers.remove(header::TRAILER) {
            headers.insert(HeaderName::from_static(STAND_IN), message);
            self.has_stand_in.store(true, Ordering::Release);
        }
    }
}

/// Returns a copy of `head` with the stand-in put right, if it is in there.
pub(super) fn put_right(head: &[u8]) -> Option<Vec<u8>> {
    let at = head
        .windows(STAND_IN_LINE.len())
        .position(|window| window == STAND_IN_LINE)?;
    let mut fixed = head.to_vec();
    fixed
        .get_mut(at..at + TRAILER_LINE.len())?
        .copy_from_slice(TRAILER_LINE);
    Some(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stand_in_has_the_length_of_the_header_it_stands_for() {
        assert_eq!(STAND_IN.len(), "trailer".len());
        assert_eq!(STAND_IN_LINE.len(), TRAILER_LINE.len());
        let fixed = put_right(b"HTTP/1.0 400 Bad Request\r\nx-trail: Unauthorised%21\r\n\r\n");
        assert_eq!(
            fixed.unwrap(),
            b"HTTP/1.0 400 Bad Request\r\ntrailer: Unauthorised%21\r\n\r\n"
        );
        assert!(put_right(b"HTTP/1.0 200 OK\r\n\r\n").is_none());
    }
}
