//! Boxing keys of either kind (Spec: 02 §5).

use champ::cbor::{Record, RecordError, Value};
use pki::boxing::PublicBoxingKey;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::{CannotOpen, CurveSecretKey, HybridSecretKey};

/// A secret key with which messages from others are opened.
#[derive(Debug, Clone)]
pub enum SecretBoxingKey {
    /// X25519 alone: legacy accounts, and ephemeral senders to them.
    Curve25519(CurveSecretKey),
    /// X25519 and ML-KEM-1024: every new account.
    Hybrid(HybridSecretKey),
}

/// Why a message was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BoxError {
    /// A recipient key with which everybody would share the secret, or that fails the FIPS 203 check.
    #[error("recipient key is degenerate")]
    WeakKey,
    /// Sender and recipient have keys of different kinds; towards a Curve25519 recipient use an ephemeral
    /// key of that kind.
    #[error("sender and recipient have different kinds of keys")]
    MixedKinds,
    /// More than the cipher can take.
    #[error("message is too long")]
    TooLong,
}

impl SecretBoxingKey {
    /// Draws the key of a new account.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        Self::Hybrid(HybridSecretKey::random(rng))
    }

    /// Returns the public key.
    ///
    /// # Errors
    /// None for a key that was drawn or decoded: both check it.
    pub fn public(&self) -> Result<PublicBoxingKey, RecordError> {
        Ok(match self {
            Self::Curve25519(curve) => PublicBoxingKey::Curve25519(curve.public()),
            Self::Hybrid(hybrid) => PublicBoxingKey::Hybrid(hybrid.public()?),
        })
    }

    /// Seals a message to `recipient`, who must know this key's public half to open it.
    ///
    /// # Errors
    /// [`BoxError`].
    pub fn seal(
        &self,
        message: &[u8],
        recipient: &PublicBoxingKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, BoxError> {
        match (self, recipient) {
            (Self::Curve25519(ours), PublicBoxingKey::Curve25519(theirs)) => {
                ours.seal(message, theirs, rng)
            }
            (Self::Hybrid(ours), PublicBoxingKey::Hybrid(theirs)) => {
                ours.seal(message, theirs, rng)
            }
            _ => Err(BoxError::MixedKinds),
        }
    }

    /// Opens what `sender` sealed to this key.
    ///
    /// # Errors
    /// [`CannotOpen`], also for a sender with a key of another kind.
    pub fn open(
        &self,
        sealed: &[u8],
        sender: &PublicBoxingKey,
    ) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        match (self, sender) {
            (Self::Curve25519(ours), PublicBoxingKey::Curve25519(theirs)) => {
                ours.open(sealed, theirs)
            }
            (Self::Hybrid(ours), PublicBoxingKey::Hybrid(theirs)) => ours.open(sealed, theirs),
            _ => Err(CannotOpen),
        }
    }
}

impl Record for SecretBoxingKey {
    fn to_value(&self) -> Value {
        match self {
            Self::Curve25519(curve) => curve.to_value(),
            Self::Hybrid(hybrid) => hybrid.to_value(),
        }
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let hybrid =
            matches!(&value, Value::List(items) if items.first() == Some(&Value::Int(HYBRID)));
        if hybrid {
            HybridSecretKey::from_value(value).map(Self::Hybrid)
        } else {
            CurveSecretKey::from_value(value).map(Self::Curve25519)
        }
    }
}

/// A secret boxing key with its public key: `[public, secret]`.
#[derive(Debug, Clone)]
pub struct BoxingKeyPair {
    secret: SecretBoxingKey,
    public: PublicBoxingKey,
}

impl BoxingKeyPair {
    /// Pairs a secret key with the public key it determines.
    ///
    /// # Errors
    /// As [`SecretBoxingKey::public`].
    pub fn new(secret: SecretBoxingKey) -> Result<Self, RecordError> {
        let public = secret.public()?;
        Ok(Self { secret, public })
    }

    /// Returns the secret key.
    pub const fn secret(&self) -> &SecretBoxingKey {
        &self.secret
    }

    /// Returns the public key.
    pub const fn public(&self) -> &PublicBoxingKey {
        &self.public
    }
}

impl Record for BoxingKeyPair {
    fn to_value(&self) -> Value {
        Value::List(vec![self.public.to_value(), self.secret.to_value()])
    }

    /// Refuses a public key that does not belong to the secret one.
    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut items = value.into_list("boxing key pair")?.into_iter();
        let mut next = || items.next().ok_or(RecordError::Missing("boxing key pair"));
        let public = PublicBoxingKey::from_value(next()?)?;
        let pair = Self::new(SecretBoxingKey::from_value(next()?)?)?;
        if pair.public != public {
            return Err(RecordError::OutOfRange {
                field: "boxing key pair",
            });
        }
        Ok(pair)
    }
}

/// Takes the content of a key record `[code, content]`.
pub(super) fn content_of(value: Value, code: i64) -> Result<Value, RecordError> {
    let field = "secret boxing key";
    let mut items = value.into_list(field)?.into_iter();
    let mut next = || items.next().ok_or(RecordError::Missing(field));
    if next()?.into_int(field)? != code {
        return Err(RecordError::OutOfRange { field });
    }
    next()
}

pub(super) const CURVE25519: i64 = 1;
pub(super) const HYBRID: i64 = 2;
