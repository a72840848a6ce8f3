//! Ed25519 keys and signatures (Spec: 02 §3).

use std::fmt;

use champ::{
    cbor::{Record, RecordError, Value},
    text,
};
use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::list::{elements, variant};

/// Length of a signature: R (32 bytes), then S (32 bytes).
pub const SIGNATURE_BYTES: usize = 64;
/// The only type code of signing keys.
const ED25519: i64 = 1;

/// A signature that does not verify; why is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("signature does not verify")]
pub struct SignatureError;

/// A 32-byte Ed25519 public key.
///
/// Any 32 bytes are a well-formed key; one that is no curve point, or a point of small order (for which
/// anybody can sign), verifies nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicSigningKey([u8; 32]);

impl PublicSigningKey {
    /// Length of the encoded record `[1, bytes(32)]`.
    pub const ENCODED_BYTES: usize = 36;

    /// Wraps the 32 bytes of RFC 8032 §5.1.5.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Verifies `signature(64) || message` and returns the message ("unsign").
    ///
    /// # Errors
    /// [`SignatureError`] for fewer than 64 bytes, S not below the group order, a key that is no point or
    /// of small order, and a signature that does not fit.
    pub fn verify_attached<'a>(&self, signed: &'a [u8]) -> Result<&'a [u8], SignatureError> {
        let (signature, message) = signed
            .split_first_chunk::<SIGNATURE_BYTES>()
            .ok_or(SignatureError)?;
        self.verify(message, signature)?;
        Ok(message)
    }

    /// Verifies a signature that travelled apart from its message.
    ///
    /// # Errors
    /// As [`PublicSigningKey::verify_attached`]; `signature` must have exactly 64 bytes.
    pub fn verify_detached(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let signature = signature.try_into().map_err(|_| SignatureError)?;
        self.verify(message, signature)
    }

    /// Single, cofactorless verification: `[S]B - [k]A` is computed and its encoding compared with R.
    fn verify(
        &self,
        message: &[u8],
        signature: &[u8; SIGNATURE_BYTES],
    ) -> Result<(), SignatureError> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| SignatureError)?;
        if key.is_weak() {
            return Err(SignatureError);
        }
        // `verify` refuses S >= L, and unlike `verify_strict` asks nothing of R that the equation does not.
        key.verify(message, &Signature::from_bytes(signature))
            .map_err(|_| SignatureError)
    }
}

impl fmt::Debug for PublicSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicSigningKey({})", text::to_hex(&self.0))
    }
}

impl Record for PublicSigningKey {
    fn to_value(&self) -> Value {
        Value::List(vec![Value::Int(ED25519), Value::from(&self.0)])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        variant(value, ED25519, "signing key")?
            .into_array("signing key")
            .map(Self)
    }
}

/// An Ed25519 secret key; erased when dropped.
///
/// The public half is always computed from the seed, never taken from elsewhere.
#[derive(Clone)]
pub struct SecretSigningKey(SigningKey);

impl SecretSigningKey {
    /// Draws a fresh key.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut_slice());
        Self::from_seed(&seed)
    }

    /// Derives the key of a 32-byte seed (RFC 8032 §5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Returns the seed.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// Returns the public key.
    pub fn public(&self) -> PublicSigningKey {
        PublicSigningKey(self.0.verifying_key().to_bytes())
    }

    /// Returns `signature(64) || message`.
    pub fn sign_attached(&self, message: &[u8]) -> Vec<u8> {
        let mut signed = Vec::with_capacity(SIGNATURE_BYTES + message.len());
        signed.extend_from_slice(&self.sign_detached(message));
        signed.extend_from_slice(message);
        signed
    }

    /// Returns the signature alone.
    pub fn sign_detached(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SecretSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretSigningKey(..)")
    }
}

/// The encoding holds the secret in clear: seed (32), then public key (32).
impl Record for SecretSigningKey {
    fn to_value(&self) -> Value {
        let bytes = Zeroizing::new(self.0.to_keypair_bytes());
        Value::List(vec![Value::Int(ED25519), Value::from(&*bytes)])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let bytes = Zeroizing::new(
            variant(value, ED25519, "secret signing key")?.into_array("secret signing key")?,
        );
        // Refuses a public half that does not belong to the seed: signing with it would leak the key.
        SigningKey::from_keypair_bytes(&bytes)
            .map(Self)
            .map_err(|_| RecordError::OutOfRange {
                field: "secret signing key",
            })
    }
}

/// A secret key with its public key: `[public, secret]`.
#[derive(Debug, Clone)]
pub struct SigningKeyPair {
    secret: SecretSigningKey,
}

impl SigningKeyPair {
    /// Pairs a secret key with the public key it determines.
    pub const fn new(secret: SecretSigningKey) -> Self {
        Self { secret }
    }

    /// Returns the secret key.
    pub const fn secret(&self) -> &SecretSigningKey {
        &self.secret
    }

    /// Returns the public key.
    pub fn public(&self) -> PublicSigningKey {
        self.secret.public()
    }

    /// Takes the secret key.
    pub fn into_secret(self) -> SecretSigningKey {
        self.secret
    }

    /// Returns the text form: multibase base58btc of the encoding. It is a secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(text::to_multibase(&Zeroizing::new(self.encode())))
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// Any [`RecordError`].
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        let bytes = text::from_multibase(text)
            .map(Zeroizing::new)
            .map_err(|_| RecordError::OutOfRange {
                field: "signing key pair",
            })?;
        Self::decode(&bytes)
    }
}

impl Record for SigningKeyPair {
    fn to_value(&self) -> Value {
        Value::List(vec![self.public().to_value(), self.secret.to_value()])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let [public, secret] = elements(value, "signing key pair")?;
        let public = PublicSigningKey::from_value(public)?;
        let secret = SecretSigningKey::from_value(secret)?;
        if secret.public() != public {
            return Err(RecordError::OutOfRange {
                field: "signing key pair",
            });
        }
        Ok(Self { secret })
    }
}
