//! Cipher texts as they stand in records (Spec: 02 §7.3, §7.4).
//!
//! Each record is a nonce and a secret box over the CBOR of some secret. Opening decodes the first CBOR
//! value and ignores the padding after it, but returns nothing unless everything authenticates.

mod asymmetric;
mod fragmented;
mod links;
mod padded;

pub use asymmetric::{AsymmetricCipherText, SourcedCipherText};
pub use fragmented::{
    DATA_PADDING_BYTES, FRAGMENT_BYTES, Fragment, FragmentedPaddedCipherText, MAX_SECRET_BYTES,
    SealError, SealedFragments,
};
pub use links::{SignerLink, SymmetricLink};
pub use padded::{CipherText, PaddedCipherText};

use champ::cbor::{self, Record, RecordError};
use zeroize::Zeroizing;

use crate::crypto::CannotOpen;

/// Why a cipher text record gives no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It does not authenticate: wrong key, damaged or forged.
    #[error(transparent)]
    Refused(#[from] CannotOpen),
    /// It authenticates, but the plaintext is not the expected record.
    #[error("decrypted content is not the expected record")]
    Content(#[from] RecordError),
    /// The blocks handed in are not the fragments in their order.
    #[error("fragment {index} is missing or is another block")]
    WrongFragment {
        /// Position in the fragment list.
        index: usize,
    },
    /// More cipher text than any writer makes.
    #[error("cipher text is larger than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
}

/// Decodes the record at the start of decrypted bytes and wipes them.
fn first_record<R: Record>(plaintext: Vec<u8>) -> Result<R, OpenError> {
    let plaintext = Zeroizing::new(plaintext);
    let (value, _) = cbor::decode_prefix(&plaintext).map_err(RecordError::from)?;
    Ok(R::from_value(value)?)
}
