//! Deriving one key from secret material of any length (Spec: 02 §6).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::SymmetricKey;

/// Derives a key: HKDF-SHA256 with empty salt, 32 bytes.
///
/// The label is part of the network's protocol.
pub fn derive_key(material: &[u8]) -> SymmetricKey {
    let mut extracted = hmac(&[0; 32], material);
    let key = SymmetricKey::from_bytes(hmac(&extracted, b"peergos\x01"));
    extracted.zeroize();
    key
}

fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    // HMAC itself fills the key with zeros to the block length of the hash.
    let mut block = Zeroizing::new([0; 64]);
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}
