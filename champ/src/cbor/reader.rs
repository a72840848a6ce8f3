//! The grammar of the profile, one item at a time, without building values (Spec: 01 §1.5).

use super::{DecodeError, Malformed, compare_keys};
use crate::cid::Cid;

/// Which encodings of a value are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Only what a writer of the profile produces.
    Canonical,
    /// Any head length and key order.
    Lenient,
}

/// One item; the elements of a list and the entries of a map follow it.
pub(super) enum Item<'a> {
    Int(i64),
    Bytes(&'a [u8]),
    Text(&'a str),
    List(usize),
    Map(usize),
    Link(Cid),
    Bool(bool),
    Null,
}

/// Reads items from the start of the input.
pub(super) struct Reader<'a> {
    input: &'a [u8],
    position: usize,
    mode: Mode,
}

struct Head {
    major: u8,
    argument: u64,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(input: &'a [u8], mode: Mode) -> Self {
        Self {
            input,
            position: 0,
            mode,
        }
    }

    pub(super) const fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the number of bytes read.
    pub(super) const fn position(&self) -> usize {
        self.position
    }

    pub(super) const fn error(&self, reason: Malformed) -> DecodeError {
        DecodeError {
            reason,
            offset: self.position,
        }
    }

    /// Fails when the input has not been used up.
    pub(super) const fn end(&self) -> Result<(), DecodeError> {
        if self.position < self.input.len() {
            return Err(self.error(Malformed::TrailingBytes));
        }
        Ok(())
    }

    /// Reads an item.
    pub(super) fn item(&mut self) -> Result<Item<'a>, DecodeError> {
        let Head { major, argument } = self.head()?;
        Ok(match major {
            0 => Item::Int(self.integer(argument)?),
            1 => Item::Int(-1 - self.integer(argument)?),
            2 => Item::Bytes(self.bytes(argument)?),
            3 => Item::Text(self.text(argument)?),
            4 => Item::List(self.length(argument)?),
            5 => Item::Map(self.length(argument)?),
            6 if argument == 42 => Item::Link(self.link()?),
            6 => return Err(self.error(Malformed::Tag)),
            _ => match argument {
                20 => Item::Bool(false),
                21 => Item::Bool(true),
                _ => Item::Null,
            },
        })
    }

    /// Reads a map key. `previous` is the key before it in the same map; in canonical mode it must be
    /// smaller, in lenient mode finding duplicates is for the caller.
    pub(super) fn key(&mut self, previous: Option<&str>) -> Result<&'a str, DecodeError> {
        let head = self.head()?;
        if head.major != 3 {
            return Err(self.error(Malformed::KeyKind));
        }
        let key = self.text(head.argument)?;
        if self.mode == Mode::Canonical
            && let Some(previous) = previous
        {
            match compare_keys(previous, key) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Err(self.error(Malformed::DuplicateKey)),
                std::cmp::Ordering::Greater => return Err(self.error(Malformed::KeyOrder)),
            }
        }
        Ok(key)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.input.get(self.position..).unwrap_or_default();
        let taken = rest
            .get(..length)
            .ok_or_else(|| self.error(Malformed::Truncated))?;
        self.position += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.take(N)?;
        <[u8; N]>::try_from(taken).map_err(|_| self.error(Malformed::Truncated))
    }

    fn head(&mut self) -> Result<Head, DecodeError> {
        let [initial] = self.array()?;
        let major = initial >> 5;
        let (argument, least) = match initial & 31 {
            small @ 0..=23 => (u64::from(small), 0),
            24 => (u64::from(u8::from_be_bytes(self.array()?)), 24),
            25 => (u64::from(u16::from_be_bytes(self.array()?)), 1 << 8),
            26 => (u64::from(u32::from_be_bytes(self.array()?)), 1 << 16),
            27 => (u64::from_be_bytes(self.array()?), 1 << 32),
            _ => return Err(self.error(Malformed::Unsupported)),
        };
        if major == 7 {
            // Booleans and null have one byte; `f8 f5` and floats are not in the profile.
            return match initial {
                0xf4..=0xf6 => Ok(Head { major, argument }),
                _ => Err(self.error(Malformed::Unsupported)),
            };
        }
        if self.mode == Mode::Canonical && argument < least {
            return Err(self.error(Malformed::NotShortest));
        }
        Ok(Head { major, argument })
    }

    /// Checks a declared length against the whole input before anything is allocated from it.
    fn length(&self, argument: u64) -> Result<usize, DecodeError> {
        usize::try_from(argument)
            .ok()
            .filter(|length| *length <= self.input.len())
            .ok_or_else(|| self.error(Malformed::Length))
    }

    fn bytes(&mut self, argument: u64) -> Result<&'a [u8], DecodeError> {
        let length = self.length(argument)?;
        self.take(length)
    }

    fn text(&mut self, argument: u64) -> Result<&'a str, DecodeError> {
        let bytes = self.bytes(argument)?;
        std::str::from_utf8(bytes).map_err(|_| self.error(Malformed::Utf8))
    }

    fn integer(&self, argument: u64) -> Result<i64, DecodeError> {
        i64::try_from(argument).map_err(|_| self.error(Malformed::IntegerRange))
    }

    fn link(&mut self) -> Result<Cid, DecodeError> {
        let head = self.head()?;
        if head.major != 2 {
            return Err(self.error(Malformed::Link));
        }
        let content = self.bytes(head.argument)?;
        let [0, cid @ ..] = content else {
            return Err(self.error(Malformed::Link));
        };
        Cid::decode(cid).map_err(|_| self.error(Malformed::Link))
    }
}
