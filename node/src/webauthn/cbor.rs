//! The CBOR of authenticators: items in a row, read without allocating (RFC 8949, CTAP2 §6).
//!
//! The network's own profile (Spec: 01) has text keys only; keys of authenticators are maps with integer keys, and
//! attestation statements hold whatever their makers liked. So this reader walks over every definite-length item
//! and hands out the few kinds that matter. Heads of any length and keys in any order are accepted, as the
//! authenticators in use are not all canonical; a label that is read must not come twice.

/// Deepest nesting that is walked over; CTAP2 allows 4.
const MAX_DEPTH: usize = 8;

/// Input that is no item of definite length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// One item; what it contains follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// An integer that fits.
    Int(i64),
    Bytes(&'a [u8]),
    Text(&'a str),
    /// A list of so many items.
    List(usize),
    /// A map of so many entries.
    Map(usize),
    /// A tag; the item it is put on follows.
    Tag,
    /// Floats, booleans, null, other simple values, and integers that do not fit.
    Other,
}

/// Reads items from the start of its input.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// Returns what has not been read.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads the head of an item, and its bytes or text if that is what it is.
    pub(super) fn item(&mut self) -> Result<Item<'a>, Malformed> {
        let [initial] = self.array()?;
        let argument = match initial & 31 {
            small @ 0..=23 => u64::from(small),
            24 => u64::from(u8::from_be_bytes(self.array()?)),
            25 => u64::from(u16::from_be_bytes(self.array()?)),
            26 => u64::from(u32::from_be_bytes(self.array()?)),
            27 => u64::from_be_bytes(self.array()?),
            // Reserved, or of indefinite length.
            _ => return Err(Malformed),
        };
        Ok(match initial >> 5 {
            0 => i64::try_from(argument).map_or(Item::Other, Item::Int),
            1 => i64::try_from(argument).map_or(Item::Other, |n| Item::Int(-1 - n)),
            2 => Item::Bytes(self.bytes(argument)?),
            3 => Item::Text(std::str::from_utf8(self.bytes(argument)?).map_err(|_| Malformed)?),
            4 => Item::List(self.count(argument, 1)?),
            5 => Item::Map(self.count(argument, 2)?),
            6 => Item::Tag,
            _ => Item::Other,
        })
    }

    /// Walks over one item with everything in it.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        self.skip_at(0)
    }

    /// Reads the head of a map and returns the number of its entries.
    pub(super) fn map(&mut self) -> Result<usize, Malformed> {
        match self.item()? {
            Item::Map(count) => Ok(count),
            _ => Err(Malformed),
        }
    }

    /// Reads a byte string.
    pub(super) fn byte_string(&mut self) -> Result<&'a [u8], Malformed> {
        match self.item()? {
            Item::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed),
        }
    }

    /// Reads an integer.
    pub(super) fn integer(&mut self) -> Result<i64, Malformed> {
        match self.item()? {
            Item::Int(n) => Ok(n),
            _ => Err(Malformed),
        }
    }

    fn skip_at(&mut self, depth: usize) -> Result<(), Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed);
        }
        let inside = match self.item()? {
            Item::List(count) => count,
            Item::Map(count) => count * 2,
            Item::Tag => 1,
            _ => 0,
        };
        for _ in 0..inside {
            self.skip_at(depth + 1)?;
        }
        Ok(())
    }

    /// Checks a declared count against what is left: an item takes a byte at least.
    fn count(&self, declared: u64, items_each: usize) -> Result<usize, Malformed> {
        usize::try_from(declared)
            .ok()
            .filter(|count| *count <= self.rest.len() / items_each)
            .ok_or(Malformed)
    }

    fn bytes(&mut self, declared: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(declared).map_err(|_| Malformed)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// Puts a value where none may be yet.
pub(super) fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use champ::text::from_hex;
    use proptest::prelude::*;

    use super::*;

    fn skipped(hex: &str) -> Result<usize, Malformed> {
        let input = from_hex(hex).unwrap();
        let mut reader = Reader::new(&input);
        reader.skip()?;
        Ok(reader.rest().len())
    }

    #[test]
    fn items_are_told_apart() {
        for (hex, item) in [
            ("07", Item::Int(7)),
            ("1800", Item::Int(0)),
            ("26", Item::Int(-7)),
            ("390100", Item::Int(-257)),
            ("3b7fffffffffffffff", Item::Int(i64::MIN)),
            ("3b8000000000000000", Item::Other),
            ("1bffffffffffffffff", Item::Other),
            ("4201ff", Item::Bytes(&[1, 255])),
            ("63666d74", Item::Text("fmt")),
            ("8101", Item::List(1)),
            ("a10102", Item::Map(1)),
            ("c100", Item::Tag),
            ("f5", Item::Other),
            ("fb7ff8000000000000", Item::Other),
        ] {
            let input = from_hex(hex).unwrap();
            assert_eq!(Reader::new(&input).item(), Ok(item), "{hex}");
        }
    }

    #[test]
    fn what_has_no_definite_length_or_ends_early_is_refused() {
        for hex in [
            "",
            "18",
            "1b00",
            "1c",
            "1f",
            "5f",
            "7f",
            "9f",
            "bf",
            "ff",
            "4201",
            "61ff",
            "8201",
            "a101",
            "c1",
            "5bffffffffffffffff",
            "9bffffffffffffffff",
            "bbffffffffffffffff",
            "ba7fffffff00",
        ] {
            assert_eq!(skipped(hex), Err(Malformed), "{hex}");
        }
    }

    #[test]
    fn nesting_is_walked_over_up_to_its_limit() {
        assert_eq!(skipped("a2010281820304c1f600"), Ok(1));
        let nested = |depth| format!("{}00", "81".repeat(depth));
        assert_eq!(skipped(&nested(MAX_DEPTH)), Ok(0));
        assert_eq!(skipped(&nested(MAX_DEPTH + 1)), Err(Malformed));
        assert_eq!(skipped(&"81".repeat(100_000)), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(input: Vec<u8>) {
            let mut reader = Reader::new(&input);
            if reader.skip().is_ok() {
                prop_assert!(reader.rest().len() < input.len());
            }
        }
    }
}
