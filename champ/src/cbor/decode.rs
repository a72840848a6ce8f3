//! Reading in the three modes of Spec: 01 §1.5.

use bytes::Bytes;

use super::{Map, Value, compare_keys};
use crate::cid::Cid;

/// Deepest nesting that is followed (Spec: 01 §1.6).
pub const MAX_DEPTH: usize = 256;

/// Why input is not a value of the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The input ends inside a value, or is empty.
    #[error("input ends early")]
    Truncated,
    /// A declared length or count exceeds the size of the whole input.
    #[error("declared length exceeds the input")]
    Length,
    /// Floats, undefined, other simple values, indefinite lengths, the break byte, reserved information.
    #[error("a kind of value outside the profile")]
    Unsupported,
    /// An integer outside the signed 64-bit range.
    #[error("integer outside the signed 64-bit range")]
    IntegerRange,
    /// A tag other than 42.
    #[error("a tag other than 42")]
    Tag,
    /// A link that is not bytes starting with 00 and a CID.
    #[error("malformed link")]
    Link,
    /// Text or a key that is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// A map key that is not text.
    #[error("map key is not text")]
    KeyKind,
    /// A map key that occurs twice.
    #[error("duplicate map key")]
    DuplicateKey,
    /// Nesting deeper than [`MAX_DEPTH`].
    #[error("nested too deep")]
    Depth,
    /// Bytes after the value.
    #[error("bytes after the value")]
    TrailingBytes,
    /// Canonical mode only: a head that is not in its shortest form.
    #[error("head is not in its shortest form")]
    NotShortest,
    /// Canonical mode only: map keys out of order.
    #[error("map keys are out of order")]
    KeyOrder,
}

/// Input that is not a value of the profile, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed cbor at byte {offset}")]
pub struct DecodeError {
    /// What is wrong.
    #[source]
    pub reason: Malformed,
    /// Byte offset at which it was noticed.
    pub offset: usize,
}

/// Decodes in lenient mode: any head length and key order, nothing after the value.
///
/// For bytes whose hash or signature has been verified, for request bodies and parameters.
pub fn decode(input: &[u8]) -> Result<Value, DecodeError> {
    whole(Decoder::new(input, None, false))
}

/// Decodes like [`decode`]; byte strings share the memory of `input` instead of being copied.
pub fn decode_shared(input: &Bytes) -> Result<Value, DecodeError> {
    whole(Decoder::new(input, Some(input), false))
}

/// Decodes in canonical mode: what every writer produces, and nothing else.
pub fn decode_canonical(input: &[u8]) -> Result<Value, DecodeError> {
    whole(Decoder::new(input, None, true))
}

/// Decodes one value at the start of `input` and returns the number of bytes it took.
///
/// For padded plaintext and concatenated values.
pub fn decode_prefix(input: &[u8]) -> Result<(Value, usize), DecodeError> {
    let mut decoder = Decoder::new(input, None, false);
    let value = decoder.value(0)?;
    Ok((value, decoder.position))
}

fn whole(mut decoder: Decoder<'_>) -> Result<Value, DecodeError> {
    let value = decoder.value(0)?;
    if decoder.position < decoder.input.len() {
        return Err(decoder.error(Malformed::TrailingBytes));
    }
    Ok(value)
}

struct Decoder<'a> {
    input: &'a [u8],
    shared: Option<&'a Bytes>,
    position: usize,
    canonical: bool,
}

struct Head {
    major: u8,
    argument: u64,
}

impl<'a> Decoder<'a> {
    const fn new(input: &'a [u8], shared: Option<&'a Bytes>, canonical: bool) -> Self {
        Self {
            input,
            shared,
            position: 0,
            canonical,
        }
    }

    const fn error(&self, reason: Malformed) -> DecodeError {
        DecodeError {
            reason,
            offset: self.position,
        }
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
        if self.canonical && argument < least {
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

    fn value(&mut self, depth: usize) -> Result<Value, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(self.error(Malformed::Depth));
        }
        let head = self.head()?;
        match head.major {
            0 => self.integer(head.argument, false),
            1 => self.integer(head.argument, true),
            2 => {
                let bytes = self.bytes(head.argument)?;
                Ok(Value::Bytes(match self.shared {
                    Some(whole) => whole.slice_ref(bytes),
                    None => Bytes::copy_from_slice(bytes),
                }))
            }
            3 => Ok(Value::Text(self.text(head.argument)?.to_owned())),
            4 => {
                let count = self.length(head.argument)?;
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(self.value(depth + 1)?);
                }
                Ok(Value::List(items))
            }
            5 => self.map(head.argument, depth),
            6 if head.argument == 42 => self.link(),
            6 => Err(self.error(Malformed::Tag)),
            _ => Ok(match head.argument {
                20 => Value::Bool(false),
                21 => Value::Bool(true),
                _ => Value::Null,
            }),
        }
    }

    fn integer(&self, argument: u64, negative: bool) -> Result<Value, DecodeError> {
        let n = i64::try_from(argument).map_err(|_| self.error(Malformed::IntegerRange))?;
        Ok(Value::Int(if negative { -1 - n } else { n }))
    }

    fn map(&mut self, argument: u64, depth: usize) -> Result<Value, DecodeError> {
        let count = self.length(argument)?;
        let mut entries: Vec<(String, Value)> = Vec::new();
        for _ in 0..count {
            let head = self.head()?;
            if head.major != 3 {
                return Err(self.error(Malformed::KeyKind));
            }
            let key = self.text(head.argument)?;
            if self.canonical
                && let Some((previous, _)) = entries.last()
                && compare_keys(previous, key).is_gt()
            {
                return Err(self.error(Malformed::KeyOrder));
            }
            let value = self.value(depth + 1)?;
            entries.push((key.to_owned(), value));
        }
        Map::from_unsorted(entries)
            .map(Value::Map)
            .ok_or_else(|| self.error(Malformed::DuplicateKey))
    }

    fn link(&mut self) -> Result<Value, DecodeError> {
        let head = self.head()?;
        if head.major != 2 {
            return Err(self.error(Malformed::Link));
        }
        let content = self.bytes(head.argument)?;
        let [0, cid @ ..] = content else {
            return Err(self.error(Malformed::Link));
        };
        Cid::decode(cid)
            .map(Value::Link)
            .map_err(|_| self.error(Malformed::Link))
    }
}
