//! Shapes that were written once and must stay readable (Spec: 02 §7.4, 20 "legacy").

use bytes::Bytes;
use champ::cbor::{RecordError, decode_shared};

use super::{Body, Fragment};

/// Returns the cipher text in a dag-cbor fragment: one byte string.
pub(super) fn cbor_fragment(block: &Bytes) -> Result<Bytes, RecordError> {
    decode_shared(block)?.into_bytes("fragment")
}

/// Turns a single link that holds its raw data itself into the inline form, as which it is rewritten.
pub(super) fn inlined(fragments: Vec<Fragment>) -> Result<Body, RecordError> {
    match fragments.as_slice() {
        [only] if only.is_inline() => Ok(Body::Inline(
            only.data(None, 0)
                .map_err(|_| RecordError::OutOfRange { field: "f" })?,
        )),
        _ => Ok(Body::Fragments(fragments)),
    }
}
