//! Bodies of requests and replies, and the limits that guard them.

use bytes::Bytes;
use champ::{
    cbor::{DecodeError, RecordError, Value, decode_shared},
    data_stream::DataStreamError,
};

/// A request or reply body with its own limit.
pub trait Body: Sized {
    /// Longest body that is read, in bytes.
    const MAX_BYTES: usize;

    /// Returns the bytes to send.
    fn to_body(&self) -> Vec<u8>;

    /// Reads a received body; byte strings share its memory where that pays.
    ///
    /// # Errors
    /// [`WireError`]: the sender is to blame for all of them.
    fn from_body(body: &Bytes) -> Result<Self, WireError>;
}

/// A body that is not what its call expects. Where official clients show or compare the text it is exact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// More bytes than the call accepts.
    #[error("Input exceeds maximum size of {max} bytes")]
    TooLarge {
        /// Limit in bytes.
        max: usize,
    },
    /// More CBOR values than any legal body of the call holds.
    #[error("body holds more than {max} values")]
    TooManyValues {
        /// Limit.
        max: usize,
    },
    /// Too many entries of one kind.
    #[error("{actual} {what} are more than {max}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// Number found.
        actual: usize,
        /// Limit.
        max: usize,
    },
    /// A block group whose lists differ in length (Spec: 06 §4.2).
    #[error("Different number of of blocks and signatures! {blocks} != {signatures}")]
    UnequalGroup {
        /// Number of blocks.
        blocks: usize,
        /// Number of signatures.
        signatures: usize,
    },
    /// More keys in a champ lookup than allowed (Spec: 06 §5.3).
    #[error("Too many caps in bulk champ get call! {0}")]
    TooManyCaps(usize),
    /// A direct read request for more blocks than allowed (Spec: 06 §9.2).
    #[error("Too many reads to auth!")]
    TooManyReads,
    /// A direct write request for more blocks than allowed (Spec: 06 §9.3).
    #[error("Too many writes to auth!")]
    TooManyWrites,
    /// A claimed block size outside 0 to 2^31 - 1 (Spec: 06 §9.3).
    #[error("Invalid block size: {0}")]
    BlockSize(i64),
    /// Not the expected CBOR record.
    #[error("malformed body")]
    Record(#[from] RecordError),
    /// Not the expected sequence of items.
    #[error("malformed body")]
    Stream(#[from] DataStreamError),
    /// Not the expected text or JSON.
    #[error("malformed {0}")]
    Text(&'static str),
}

impl From<DecodeError> for WireError {
    fn from(error: DecodeError) -> Self {
        Self::Record(error.into())
    }
}

/// Decodes one CBOR value of at most `max_bytes` that holds at most `max_values` values.
///
/// The second limit is why this exists: a body of one-byte values costs fifty times its size in memory.
pub(super) fn decode_bounded(
    body: &Bytes,
    max_bytes: usize,
    max_values: usize,
) -> Result<Value, WireError> {
    if body.len() > max_bytes {
        return Err(WireError::TooLarge { max: max_bytes });
    }
    // One value needs at least one byte.
    if body.len() > max_values && !holds_at_most(body, max_values) {
        return Err(WireError::TooManyValues { max: max_values });
    }
    Ok(decode_shared(body)?)
}

/// Walks over heads and skips contents; what is malformed is left for the decoder to name.
fn holds_at_most(mut rest: &[u8], max_values: usize) -> bool {
    for _ in 0..=max_values {
        let Some((&initial, after)) = rest.split_first() else {
            return true;
        };
        let argument_bytes = match initial & 31 {
            0..=23 => 0,
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => return true,
        };
        let Some((argument, after)) = after.split_at_checked(argument_bytes) else {
            return true;
        };
        let argument = match argument_bytes {
            0 => u64::from(initial & 31),
            _ => argument
                .iter()
                .fold(0u64, |n, byte| (n << 8) | u64::from(*byte)),
        };
        rest = match initial >> 5 {
            2 | 3 => match usize::try_from(argument).ok().and_then(|n| after.get(n..)) {
                Some(after) => after,
                None => return true,
            },
            _ => after,
        };
    }
    false
}

/// Makes CBOR records bodies of their own, each with its limits.
macro_rules! record_body {
    ($($record:ty: $max_bytes:expr, $max_values:expr;)*) => {$(
        impl $crate::wire::Body for $record {
            const MAX_BYTES: usize = $max_bytes;

            fn to_body(&self) -> Vec<u8> {
                champ::cbor::Record::encode(self)
            }

            fn from_body(body: &bytes::Bytes) -> Result<Self, $crate::wire::WireError> {
                let value = $crate::wire::body::decode_bounded(body, $max_bytes, $max_values)?;
                Ok(champ::cbor::Record::from_value(value)?)
            }
        }
    )*};
}

pub(super) use record_body;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_before_they_are_made() {
        let body = Bytes::from(Value::List(vec![Value::List(Vec::new()); 99]).encode());
        assert!(decode_bounded(&body, 1 << 20, 100).is_ok());
        assert_eq!(
            decode_bounded(&body, 1 << 20, 99),
            Err(WireError::TooManyValues { max: 99 })
        );
        assert_eq!(
            decode_bounded(&body, 100, 100),
            Err(WireError::TooLarge { max: 100 })
        );
    }

    #[test]
    fn content_of_strings_is_not_counted() {
        let value = Value::List(vec![
            Value::Bytes(vec![0x80; 70_000].into()),
            Value::Text("x".repeat(300)),
        ]);
        let body = Bytes::from(value.encode());
        assert_eq!(decode_bounded(&body, 1 << 20, 3), Ok(value));
    }

    #[test]
    fn malformed_bodies_are_the_decoders_to_name() {
        for bytes in [&[0x5a, 0xff, 0xff, 0xff, 0xff][..], &[0x9f; 9], &[0x1b; 3]] {
            let error = decode_bounded(&Bytes::copy_from_slice(bytes), 100, 2).unwrap_err();
            assert!(matches!(error, WireError::Record(RecordError::Cbor(_))));
        }
    }
}
