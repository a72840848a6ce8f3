//! The padded plaintext, never held in one piece.

use bytes::BytesMut;
use champ::cbor::{self, Malformed, RecordError};

use super::{DATA_PADDING_BYTES, HEAD_SLACK_BYTES, MAX_SECRET_BYTES, STEP_BYTES, SealError};
use crate::crypto::secretbox::Sealer;

/// A CBOR head, the content, and zeros: what remains to be sealed.
pub(super) struct Plaintext<'a> {
    parts: [&'a [u8]; 2],
    zeros: usize,
}

impl<'a> Plaintext<'a> {
    /// Pads `head || content` (Spec: 02 §7.4 step 2).
    pub(super) fn new(head: &'a [u8], content: &'a [u8]) -> Result<Self, SealError> {
        let length = head.len() + content.len();
        if length > MAX_SECRET_BYTES {
            return Err(SealError::TooLarge { actual: length });
        }
        let slack = if length <= DATA_PADDING_BYTES {
            0
        } else {
            HEAD_SLACK_BYTES
        };
        let padded = (length - slack).next_multiple_of(DATA_PADDING_BYTES) + slack;
        Ok(Self {
            parts: [head, content],
            zeros: padded - length,
        })
    }

    /// Returns the number of bytes that remain.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum::<usize>() + self.zeros
    }

    /// Appends the next `length` bytes, sealed, to `out`, which has room for them.
    pub(super) fn seal_into(&mut self, mut length: usize, sealer: &mut Sealer, out: &mut BytesMut) {
        while length > 0 {
            let step = sealer.step(length.min(STEP_BYTES));
            let start = out.len();
            self.take_into(step, out);
            sealer.apply(out.split_at_mut(start).1);
            length -= step;
        }
    }

    fn take_into(&mut self, mut length: usize, out: &mut BytesMut) {
        for part in &mut self.parts {
            let (taken, rest) = part.split_at(length.min(part.len()));
            out.extend_from_slice(taken);
            *part = rest;
            length -= taken.len();
        }
        let zeros = length.min(self.zeros);
        out.resize(out.len() + zeros, 0);
        self.zeros -= zeros;
    }
}

/// Returns the content of the byte string at the start of `plaintext`, without copying it.
pub(super) fn byte_string(plaintext: &[u8]) -> Result<&[u8], RecordError> {
    let (&initial, rest) = plaintext.split_first().ok_or_else(truncated)?;
    if initial >> 5 != 2 {
        // Not a byte string: let the decoder say what it is.
        let (value, _) = cbor::decode_prefix(plaintext)?;
        value.into_bytes("file data")?;
        return Err(RecordError::OutOfRange { field: "file data" });
    }
    let width = match initial & 31 {
        0..=23 => 0,
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => return Err(RecordError::OutOfRange { field: "file data" }),
    };
    let (argument, rest) = rest.split_at_checked(width).ok_or_else(truncated)?;
    let length = if width == 0 {
        u64::from(initial & 31)
    } else {
        argument.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
    };
    usize::try_from(length)
        .ok()
        .and_then(|length| rest.get(..length))
        .ok_or_else(truncated)
}

fn truncated() -> RecordError {
    cbor::DecodeError {
        reason: Malformed::Truncated,
        offset: 0,
    }
    .into()
}
