//! Public keys of authenticators and their signatures (RFC 9053, RFC 8812).
//!
//! Three algorithms, those that clients offer to authenticators (Spec: 08 §4.4).

use bytes::Bytes;
use pki::keys::PublicSigningKey;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::{
    Rejection,
    cbor::{Item, Malformed, Reader, once},
};

/// Algorithm codes.
const EDDSA: i64 = -8;
const ES256: i64 = -7;
const RS256: i64 = -257;
/// Key types: octet key pair, elliptic curve with two coordinates, RSA.
const OKP: i64 = 1;
const EC2: i64 = 2;
const RSA: i64 = 3;
/// Curves.
const P256: i64 = 1;
const ED25519: i64 = 6;
/// Labels. The meaning of the negative ones depends on the key type: curve or modulus, x or exponent, y.
const KEY_TYPE: i64 = 1;
const ALGORITHM: i64 = 3;
const CURVE_OR_MODULUS: i64 = -1;
const X_OR_EXPONENT: i64 = -2;
const Y: i64 = -3;
/// Shortest and longest RSA modulus, in bytes. RFC 8812 asks for 2048 bits; answers have no room for much more than 4096.
const MIN_MODULUS_BYTES: usize = 256;
const MAX_MODULUS_BYTES: usize = 512;
/// Longest RSA exponent, in bytes; a long one would only make verification slow.
const MAX_EXPONENT_BYTES: usize = 4;

/// A public key of one of the algorithms clients offer.
///
/// Well-formed is all a key is known to be: one that is no point of its curve verifies nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CoseKey {
    /// Ed25519.
    EdDsa(PublicSigningKey),
    /// ECDSA with P-256 and SHA-256: the two coordinates.
    Es256 {
        /// Big endian.
        x: [u8; 32],
        /// Big endian.
        y: [u8; 32],
    },
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256 {
        /// Big endian, without leading zeros.
        modulus: Bytes,
        /// Big endian, without leading zeros.
        exponent: Bytes,
    },
}

/// The value of label -1, whose kind depends on the key type.
enum CurveOrModulus<'a> {
    Curve(i64),
    Modulus(&'a [u8]),
}

/// The members of a key that are used, in whatever order they came.
#[derive(Default)]
struct Members<'a> {
    key_type: Option<i64>,
    algorithm: Option<i64>,
    curve_or_modulus: Option<CurveOrModulus<'a>>,
    x_or_exponent: Option<&'a [u8]>,
    y: Option<&'a [u8]>,
}

impl CoseKey {
    /// Decodes a whole COSE key.
    ///
    /// # Errors
    /// [`Rejection::PublicKey`], also for bytes after the key, and [`Rejection::Algorithm`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Rejection> {
        match Self::decode_prefix(bytes)? {
            (key, []) => Ok(key),
            _ => Err(Rejection::PublicKey),
        }
    }

    /// Decodes the COSE key at the start of `bytes` and returns what follows it.
    pub(super) fn decode_prefix(bytes: &[u8]) -> Result<(Self, &[u8]), Rejection> {
        let mut reader = Reader::new(bytes);
        let members = Members::read(&mut reader).map_err(|Malformed| Rejection::PublicKey)?;
        Ok((members.into_key()?, reader.rest()))
    }

    /// Encodes the key canonically, without members that are not used.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut bytes = |head: &[u8], bytes: &[u8]| {
            out.extend_from_slice(head);
            champ::cbor::write_bytes_head(bytes.len(), &mut out);
            out.extend_from_slice(bytes);
        };
        match self {
            Self::EdDsa(key) => {
                bytes(
                    &[0xa4, 0x01, 0x01, 0x03, 0x27, 0x20, 0x06, 0x21],
                    key.as_bytes(),
                );
            }
            Self::Es256 { x, y } => {
                bytes(&[0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21], x);
                bytes(&[0x22], y);
            }
            Self::Rs256 { modulus, exponent } => {
                bytes(&[0xa4, 0x01, 0x03, 0x03, 0x39, 0x01, 0x00, 0x20], modulus);
                bytes(&[0x21], exponent);
            }
        }
        out
    }

    /// Verifies a signature over `message`.
    ///
    /// # Errors
    /// [`Rejection::Signature`], whatever is wrong.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Rejection> {
        let is_right = match self {
            Self::EdDsa(key) => key.verify_detached(message, signature).is_ok(),
            Self::Es256 { x, y } => {
                // An uncompressed point (SEC 1, 2.3.3).
                let point = [&[4], x.as_slice(), y].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
                    .verify(message, signature)
                    .is_ok()
            }
            Self::Rs256 { modulus, exponent } => RsaPublicKeyComponents {
                n: modulus,
                e: exponent,
            }
            .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            .is_ok(),
        };
        is_right.then_some(()).ok_or(Rejection::Signature)
    }
}

impl<'a> Members<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut members = Self::default();
        for _ in 0..reader.map()? {
            let mut ahead = reader.clone();
            match ahead.item()? {
                Item::Int(
                    label @ (KEY_TYPE | ALGORITHM | CURVE_OR_MODULUS | X_OR_EXPONENT | Y),
                ) => {
                    *reader = ahead;
                    members.read_member(label, reader)?;
                }
                _ => {
                    reader.skip()?;
                    reader.skip()?;
                }
            }
        }
        Ok(members)
    }

    fn read_member(&mut self, label: i64, reader: &mut Reader<'a>) -> Result<(), Malformed> {
        match label {
            KEY_TYPE => once(&mut self.key_type, reader.integer()?),
            ALGORITHM => once(&mut self.algorithm, reader.integer()?),
            CURVE_OR_MODULUS => once(
                &mut self.curve_or_modulus,
                match reader.item()? {
                    Item::Int(curve) => CurveOrModulus::Curve(curve),
                    Item::Bytes(modulus) => CurveOrModulus::Modulus(modulus),
                    _ => return Err(Malformed),
                },
            ),
            X_OR_EXPONENT => once(&mut self.x_or_exponent, reader.byte_string()?),
            _ => once(&mut self.y, reader.byte_string()?),
        }
    }

    fn into_key(self) -> Result<CoseKey, Rejection> {
        use CurveOrModulus::{Curve, Modulus};
        let algorithm = self.algorithm.ok_or(Rejection::PublicKey)?;
        match (
            algorithm,
            self.key_type,
            self.curve_or_modulus,
            self.x_or_exponent,
            self.y,
        ) {
            (EDDSA, Some(OKP), Some(Curve(ED25519)), Some(x), None) => {
                Ok(CoseKey::EdDsa(PublicSigningKey::from_bytes(coordinate(x)?)))
            }
            (ES256, Some(EC2), Some(Curve(P256)), Some(x), Some(y)) => Ok(CoseKey::Es256 {
                x: coordinate(x)?,
                y: coordinate(y)?,
            }),
            (RS256, Some(RSA), Some(Modulus(modulus)), Some(exponent), None)
                if is_rsa_key(modulus, exponent) =>
            {
                Ok(CoseKey::Rs256 {
                    modulus: Bytes::copy_from_slice(modulus),
                    exponent: Bytes::copy_from_slice(exponent),
                })
            }
            (EDDSA | ES256 | RS256, ..) => Err(Rejection::PublicKey),
            (other, ..) => Err(Rejection::Algorithm(other)),
        }
    }
}

fn coordinate(bytes: &[u8]) -> Result<[u8; 32], Rejection> {
    bytes.try_into().map_err(|_| Rejection::PublicKey)
}

/// Returns true for an odd modulus and exponent of reasonable size, the exponent above 1.
fn is_rsa_key(modulus: &[u8], exponent: &[u8]) -> bool {
    let is_odd = |number: &[u8]| {
        number.first().is_some_and(|first| *first != 0)
            && number.last().is_some_and(|last| last & 1 == 1)
    };
    // The first byte of the shortest modulus has its highest bit set: 2048 bits, not 2041.
    let has_bits = modulus.len() > MIN_MODULUS_BYTES
        || (modulus.len() == MIN_MODULUS_BYTES && modulus.first().is_some_and(|b| *b >= 0x80));
    has_bits
        && modulus.len() <= MAX_MODULUS_BYTES
        && exponent.len() <= MAX_EXPONENT_BYTES
        && is_odd(modulus)
        && is_odd(exponent)
        && exponent != [1]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> [CoseKey; 3] {
        let mut modulus = vec![0xff; 256];
        modulus[7] = 3;
        [
            CoseKey::EdDsa(PublicSigningKey::from_bytes([9; 32])),
            CoseKey::Es256 {
                x: [1; 32],
                y: [2; 32],
            },
            CoseKey::Rs256 {
                modulus: modulus.into(),
                exponent: Bytes::from_static(&[1, 0, 1]),
            },
        ]
    }

    #[test]
    fn keys_survive_encoding() {
        for key in keys() {
            let bytes = key.encode();
            assert_eq!(CoseKey::decode(&bytes), Ok(key.clone()));
            let longer = [bytes.as_slice(), b"more"].concat();
            assert_eq!(CoseKey::decode(&longer), Err(Rejection::PublicKey));
            assert_eq!(CoseKey::decode_prefix(&longer), Ok((key, &b"more"[..])));
        }
    }

    #[test]
    fn order_does_not_matter_and_further_members_are_skipped() {
        let mut bytes = vec![0xa7, 0x21, 0x58, 0x20];
        bytes.extend([9; 32]);
        // key id, key operations, a text label, then curve, algorithm and type
        bytes.extend([0x02, 0x41, 0x00, 0x04, 0x81, 0x02, 0x61, b'a', 0xf6]);
        bytes.extend([0x20, 0x06, 0x03, 0x38, 0x07, 0x01, 0x01]);
        assert_eq!(CoseKey::decode(&bytes), Ok(keys()[0].clone()));
    }

    #[test]
    fn log_3_only_offered_algorithms_are_taken() {
        let with_algorithm = |head: &[u8]| {
            let mut bytes = vec![0xa5, 0x01, 0x02, 0x03];
            bytes.extend(head);
            bytes.extend([0x20, 0x01, 0x21, 0x58, 0x20]);
            bytes.extend([1; 32]);
            bytes.extend([0x22, 0x58, 0x20]);
            bytes.extend([2; 32]);
            CoseKey::decode(&bytes)
        };
        assert_eq!(with_algorithm(&[0x26]), Ok(keys()[1].clone()));
        // ES384, ES512, PS256, RS1, ES256K, HMAC, none
        for (head, code) in [
            (&[0x38, 0x22][..], -35),
            (&[0x38, 0x23], -36),
            (&[0x38, 0x24], -37),
            (&[0x39, 0xff, 0xfe], -65_535),
            (&[0x38, 0x2e], -47),
            (&[0x05], 5),
            (&[0x00], 0),
        ] {
            assert_eq!(with_algorithm(head), Err(Rejection::Algorithm(code)));
        }
        // An offered algorithm with a key of another type.
        for head in [&[0x27][..], &[0x39, 0x01, 0x00]] {
            assert_eq!(with_algorithm(head), Err(Rejection::PublicKey));
        }
    }

    #[test]
    fn malformed_keys_are_refused() {
        let refused = |bytes: &[u8]| assert_eq!(CoseKey::decode(bytes), Err(Rejection::PublicKey));
        for key in keys() {
            let good = key.encode();
            for cut in 0..good.len() {
                refused(&good[..cut]);
            }
            // One entry more, and it repeats the algorithm.
            let mut twice = good.clone();
            twice[0] += 1;
            twice.extend_from_slice(&[0x03, 0x26]);
            refused(&twice);
        }
        let [ed, ec, _] = keys().map(|key| key.encode());
        for (base, at, byte) in [
            (&ed, 2, 0x02), // type
            (&ed, 6, 0x01), // curve
            (&ed, 9, 0x1f), // length of the key
            (&ec, 2, 0x01),
            (&ec, 6, 0x06),
            (&ec, 9, 0x1f),
            (&ec, 6, 0xf6), // a curve that is no integer
            (&ec, 4, 0x41), // an algorithm that is no integer
        ] {
            let mut bad = base.clone();
            bad[at] = byte;
            refused(&bad);
        }
        // Without algorithm; and a compressed point, whose y is a truth value.
        refused(&[&[0xa3, 0x01, 0x01, 0x20, 0x06, 0x21], &ed[8..]].concat());
        refused(&[&ec[..8], &ec[8..42], &[0x22, 0xf5]].concat());
    }

    #[test]
    fn rsa_keys_have_reasonable_sizes() {
        let number = |bytes: usize, first: u8, last: u8| {
            let mut number = vec![0x55; bytes];
            number[0] = first;
            number[bytes - 1] = last;
            number
        };
        let good = number(256, 0x80, 1);
        assert!(is_rsa_key(&good, &[3]));
        assert!(is_rsa_key(&number(512, 0xff, 0xff), &[1, 0, 1]));
        assert!(is_rsa_key(&number(257, 1, 1), &[0xff, 0xff, 0xff, 0xff]));
        for (modulus, exponent) in [
            (number(256, 0x7f, 1), vec![3]),
            (number(255, 0xff, 1), vec![3]),
            (number(513, 0xff, 1), vec![3]),
            (number(257, 0, 1), vec![3]),
            (number(256, 0x80, 2), vec![3]),
            (good.clone(), vec![]),
            (good.clone(), vec![1]),
            (good.clone(), vec![2]),
            (good.clone(), vec![0, 3]),
            (good, vec![1, 0, 0, 0, 1]),
        ] {
            assert!(!is_rsa_key(&modulus, &exponent), "{exponent:?}");
        }
    }

    #[test]
    fn points_off_the_curve_and_weak_keys_verify_nothing() {
        // R = the identity and S = 0 fit every message under the key of order one.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        let weak = CoseKey::EdDsa(PublicSigningKey::from_bytes(identity));
        assert_eq!(
            weak.verify(b"message", &signature),
            Err(Rejection::Signature)
        );
        for key in keys() {
            for signature in [&[][..], &[0; 64], &[0x30, 6, 2, 1, 0, 2, 1, 0], &[0; 256]] {
                assert_eq!(key.verify(b"message", signature), Err(Rejection::Signature));
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key_or_refused(bytes: Vec<u8>) {
            let _ = CoseKey::decode(&bytes);
        }

        #[test]
        fn flipped_bits_never_mean_the_same_key(which in 0..3usize, at: prop::sample::Index, bit in 0..8u32) {
            let key = keys()[which].clone();
            let mut bytes = key.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_ne!(CoseKey::decode(&bytes), Ok(key));
        }
    }
}
