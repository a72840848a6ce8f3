//! The older framing of concatenated items (Spec: 01 §7).

/// Default limit of a string, in bytes.
pub const MAX_STRING_BYTES: usize = 1024;

/// Input that is not the expected sequence of items.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataStreamError {
    /// The input ends inside an item.
    #[error("data stream ends early")]
    Truncated,
    /// A negative length.
    #[error("data stream holds a negative length")]
    NegativeLength,
    /// A length above the field's limit.
    #[error("item of {actual} bytes is larger than {max}")]
    TooLong {
        /// Declared length.
        actual: usize,
        /// Limit of the field.
        max: usize,
    },
    /// A string that is not UTF-8.
    #[error("data stream string is not UTF-8")]
    NotUtf8,
}

/// Reads items in order; bytes after the last item are ignored.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DataStreamError> {
        let (head, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DataStreamError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// Reads a boolean; any byte but zero is true.
    pub fn boolean(&mut self) -> Result<bool, DataStreamError> {
        Ok(self.array::<1>()? != [0])
    }

    /// Reads a 4-byte signed integer.
    pub fn int(&mut self) -> Result<i32, DataStreamError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// Reads an 8-byte signed integer.
    pub fn long(&mut self) -> Result<i64, DataStreamError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// Reads length-prefixed bytes of at most `max`.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], DataStreamError> {
        let length = usize::try_from(self.int()?).map_err(|_| DataStreamError::NegativeLength)?;
        if length > max {
            return Err(DataStreamError::TooLong {
                actual: length,
                max,
            });
        }
        let (item, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DataStreamError::Truncated)?;
        self.rest = rest;
        Ok(item)
    }

    /// Reads a UTF-8 string of at most `max` bytes.
    pub fn string(&mut self, max: usize) -> Result<&'a str, DataStreamError> {
        std::str::from_utf8(self.bytes(max)?).map_err(|_| DataStreamError::NotUtf8)
    }

    /// Returns what has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// Writes items in order.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// Starts an empty stream.
    pub const fn new() -> Self {
        Self { out: Vec::new() }
    }

    /// Appends a boolean.
    #[must_use]
    pub fn boolean(mut self, value: bool) -> Self {
        self.out.push(u8::from(value));
        self
    }

    /// Appends a 4-byte signed integer.
    #[must_use]
    pub fn int(mut self, value: i32) -> Self {
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Appends an 8-byte signed integer.
    #[must_use]
    pub fn long(mut self, value: i64) -> Self {
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Appends length-prefixed bytes. Items of 2 GiB and more do not occur; the length saturates.
    #[must_use]
    pub fn bytes(self, item: &[u8]) -> Self {
        let mut next = self.int(i32::try_from(item.len()).unwrap_or(i32::MAX));
        next.out.extend_from_slice(item);
        next
    }

    /// Appends a string with its UTF-8 byte length.
    #[must_use]
    pub fn string(self, item: &str) -> Self {
        self.bytes(item.as_bytes())
    }

    /// Returns the bytes.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}
