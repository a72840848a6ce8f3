//! Checking a whole block and finding its links without building its value (Spec: 01 §1.5, §1.8, §5.4).
//!
//! For servers, which look at every block that is uploaded: what is allocated is the two result lists, a
//! few bytes per open list or map, and in lenient mode one pointer per map key. A hostile block of 1 MiB
//! takes 64 MiB as a [`Value`](super::Value) and at most a third of that here.

use super::{
    DecodeError, MAX_DEPTH, Malformed,
    reader::{Item, Mode, Reader},
};
use crate::{access::BatId, cid::Cid};

/// What a server needs to know of a dag-cbor block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// Every link, depth first, in the order of the bytes; identity CIDs included.
    pub links: Vec<Cid>,
    /// The ids that protect the block: its top level `bats`.
    pub bat_ids: Vec<BatId>,
}

/// Checks that `bytes` are one canonical value and returns its links and access token ids.
///
/// # Errors
/// As [`decode_canonical`](super::decode_canonical), and [`Malformed::AccessTokens`].
pub fn scan_block(bytes: &[u8]) -> Result<Scan, DecodeError> {
    scan(Reader::new(bytes, Mode::Canonical))
}

/// Does what [`scan_block`] does for a block that another writer may have left in non-canonical form.
///
/// # Errors
/// As [`decode`](super::decode), and [`Malformed::AccessTokens`].
pub fn scan_block_lenient(bytes: &[u8]) -> Result<Scan, DecodeError> {
    scan(Reader::new(bytes, Mode::Lenient))
}

/// Reads a list of BAT ids at the start of `input` and returns the number of bytes it took.
///
/// # Errors
/// As [`decode_prefix`](super::decode_prefix), and [`Malformed::AccessTokens`].
pub(crate) fn bat_ids_prefix(input: &[u8]) -> Result<(Vec<BatId>, usize), DecodeError> {
    let mut reader = Reader::new(input, Mode::Lenient);
    let ids = bat_ids(&mut reader)?;
    Ok((ids, reader.position()))
}

fn scan(mut reader: Reader<'_>) -> Result<Scan, DecodeError> {
    let mut found = Scan::default();
    let mut open: Vec<Open<'_>> = Vec::new();
    loop {
        // What is at depth 0 is the block's own value, at depth 1 its fields.
        let depth = open.len();
        if depth > MAX_DEPTH {
            return Err(reader.error(Malformed::Depth));
        }
        let is_bats = depth == 1
            && open
                .last()
                .is_some_and(|open| open.is_map && open.previous == Some("bats"));
        if is_bats {
            found.bat_ids = bat_ids(&mut reader)?;
        } else {
            match reader.item()? {
                Item::List(count) => open.push(Open::new(count, false)),
                Item::Map(count) => open.push(Open::new(count, true)),
                Item::Link(cid) => found.links.push(cid),
                Item::Int(_) | Item::Bytes(_) | Item::Text(_) | Item::Bool(_) | Item::Null => {}
            }
        }
        loop {
            let Some(innermost) = open.last_mut() else {
                reader.end()?;
                return Ok(found);
            };
            if innermost.next(&mut reader)? {
                break;
            }
            open.pop();
        }
    }
}

/// A list or map whose elements are being read.
struct Open<'a> {
    left: usize,
    is_map: bool,
    previous: Option<&'a str>,
    /// All keys so far, in lenient mode: a duplicate can be anywhere.
    keys: Vec<&'a str>,
}

impl<'a> Open<'a> {
    const fn new(left: usize, is_map: bool) -> Self {
        Self {
            left,
            is_map,
            previous: None,
            keys: Vec::new(),
        }
    }

    /// Moves to the next element, past the key of a map entry; false at the end.
    fn next(&mut self, reader: &mut Reader<'a>) -> Result<bool, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else {
            self.keys.sort_unstable();
            let mut pairs = self.keys.iter().zip(self.keys.iter().skip(1));
            if pairs.any(|(a, b)| a == b) {
                return Err(reader.error(Malformed::DuplicateKey));
            }
            return Ok(false);
        };
        self.left = left;
        if self.is_map {
            let key = reader.key(self.previous)?;
            self.previous = Some(key);
            if reader.mode() == Mode::Lenient {
                self.keys.push(key);
            }
        }
        Ok(true)
    }
}

fn bat_ids(reader: &mut Reader<'_>) -> Result<Vec<BatId>, DecodeError> {
    let Item::List(count) = reader.item()? else {
        return Err(reader.error(Malformed::AccessTokens));
    };
    let mut ids = Vec::new();
    for _ in 0..count {
        let Item::Bytes(bytes) = reader.item()? else {
            return Err(reader.error(Malformed::AccessTokens));
        };
        let cid = Cid::decode(bytes).map_err(|_| reader.error(Malformed::AccessTokens))?;
        ids.push(BatId::new(cid));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_bats_do_not_protect_a_block() {
        // {"y": {"bats": 1}}
        let scan = scan_block(b"\xa1\x61y\xa1\x64bats\x01").unwrap();
        assert_eq!(scan, Scan::default());
    }

    #[test]
    fn top_level_bats_that_are_no_id_list_are_refused() {
        for bats in [&b"\x01"[..], b"\x81\x01", b"\x81\x41\x00", b"\xa0", b"\xf6"] {
            let block = [b"\xa1\x64bats", bats].concat();
            let error = scan_block(&block).unwrap_err();
            assert_eq!(error.reason, Malformed::AccessTokens);
            assert_eq!(
                scan_block_lenient(&block).unwrap_err().reason,
                Malformed::AccessTokens
            );
        }
        assert_eq!(scan_block(b"\xa1\x64bats\x80"), Ok(Scan::default()));
    }

    #[test]
    fn lenient_scan_accepts_key_disorder_and_refuses_duplicates_anywhere() {
        let disorder = b"\xa2\x61b\x01\x61a\x02";
        assert_eq!(scan_block_lenient(disorder), Ok(Scan::default()));
        assert_eq!(
            scan_block(disorder).unwrap_err().reason,
            Malformed::KeyOrder
        );
        let duplicate = b"\xa3\x61b\x01\x61a\x02\x61b\x03";
        assert_eq!(
            scan_block_lenient(duplicate).unwrap_err().reason,
            Malformed::DuplicateKey
        );
    }

    #[test]
    fn hostile_nesting_is_refused_at_the_depth_limit() {
        let mut block = vec![0x81; MAX_DEPTH];
        block.push(1);
        assert!(scan_block(&block).is_ok());
        block.insert(0, 0x81);
        assert_eq!(scan_block(&block).unwrap_err().reason, Malformed::Depth);
    }
}
