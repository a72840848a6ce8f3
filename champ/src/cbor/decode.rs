//! Reading in the three modes of Spec: 01 §1.5.

use bytes::Bytes;

use super::{
    Map, Value,
    reader::{Item, Mode, Reader},
};

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
    /// Where a block's access tokens stand: something that is not a list of their ids.
    #[error("malformed access token ids")]
    AccessTokens,
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
///
/// # Errors
/// [`DecodeError`] with the first thing that is wrong.
pub fn decode(input: &[u8]) -> Result<Value, DecodeError> {
    whole(Decoder::new(input, None, Mode::Lenient))
}

/// Decodes like [`decode`]; byte strings share the memory of `input` instead of being copied.
///
/// # Errors
/// As [`decode`].
pub fn decode_shared(input: &Bytes) -> Result<Value, DecodeError> {
    whole(Decoder::new(input, Some(input), Mode::Lenient))
}

/// Decodes in canonical mode: what every writer produces, and nothing else.
///
/// # Errors
/// As [`decode`], and [`Malformed::NotShortest`], [`Malformed::KeyOrder`].
pub fn decode_canonical(input: &[u8]) -> Result<Value, DecodeError> {
    whole(Decoder::new(input, None, Mode::Canonical))
}

/// Decodes one value at the start of `input` and returns the number of bytes it took.
///
/// For padded plaintext and concatenated values.
///
/// # Errors
/// As [`decode`], but bytes after the value are none.
pub fn decode_prefix(input: &[u8]) -> Result<(Value, usize), DecodeError> {
    let mut decoder = Decoder::new(input, None, Mode::Lenient);
    let value = decoder.value(0)?;
    Ok((value, decoder.reader.position()))
}

fn whole(mut decoder: Decoder<'_>) -> Result<Value, DecodeError> {
    let value = decoder.value(0)?;
    decoder.reader.end()?;
    Ok(value)
}

struct Decoder<'a> {
    reader: Reader<'a>,
    shared: Option<&'a Bytes>,
}

impl<'a> Decoder<'a> {
    const fn new(input: &'a [u8], shared: Option<&'a Bytes>, mode: Mode) -> Self {
        Self {
            reader: Reader::new(input, mode),
            shared,
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(self.reader.error(Malformed::Depth));
        }
        Ok(match self.reader.item()? {
            Item::Int(n) => Value::Int(n),
            Item::Bytes(bytes) => Value::Bytes(match self.shared {
                Some(whole) => whole.slice_ref(bytes),
                None => Bytes::copy_from_slice(bytes),
            }),
            Item::Text(text) => Value::Text(text.to_owned()),
            Item::List(count) => Value::List(self.list(count, depth)?),
            Item::Map(count) => Value::Map(self.map(count, depth)?),
            Item::Link(cid) => Value::Link(cid),
            Item::Bool(b) => Value::Bool(b),
            Item::Null => Value::Null,
        })
    }

    fn list(&mut self, count: usize, depth: usize) -> Result<Vec<Value>, DecodeError> {
        let mut items = Vec::with_capacity(count.min(TRUSTED_COUNT));
        for _ in 0..count {
            items.push(self.value(depth + 1)?);
        }
        Ok(items)
    }

    fn map(&mut self, count: usize, depth: usize) -> Result<Map, DecodeError> {
        let mut entries: Vec<(String, Value)> = Vec::with_capacity(count.min(TRUSTED_COUNT));
        for _ in 0..count {
            let previous = entries.last().map(|(key, _)| key.as_str());
            let key = self.reader.key(previous)?.to_owned();
            entries.push((key, self.value(depth + 1)?));
        }
        Map::from_unsorted(entries).ok_or_else(|| self.reader.error(Malformed::DuplicateKey))
    }
}

/// Elements for which room is made before they have been seen.
///
/// Exact room for short lists keeps a hostile block of one-element lists at 64 times its size instead of
/// 240; more than this for a count that is merely declared would be the larger danger.
const TRUSTED_COUNT: usize = 16;
