//! Public key hashes: how keys are named (Spec: 02 §4).

use std::{fmt, str::FromStr};

use champ::{
    Block, BlockSource, Cid, CidError, Codec, Multihash, SourceError,
    cbor::{Fields, Map, Record, RecordError, Value},
    cid::{HashCode, MAX_WRITTEN_IDENTITY_BYTES},
};

use super::{PublicSigningKey, SecretSigningKey};

/// The name of a public key, signing or boxing: a version 1 dag-cbor CID, identity or sha2-256.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKeyHash(Cid);

/// Why a key could not be had from its hash.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The all-zero placeholder, which names no key.
    #[error("the placeholder key hash authorizes nothing")]
    Placeholder,
    /// The block that holds the key does not exist.
    #[error("key {0} is not stored")]
    NotFound(PublicKeyHash),
    /// The hash or its block does not hold a signing key.
    #[error("key {hash} is malformed")]
    Malformed {
        /// The hash.
        hash: PublicKeyHash,
        /// What is wrong with the content.
        source: RecordError,
    },
    /// The block source failed.
    #[error("key {hash} could not be read")]
    Source {
        /// The hash.
        hash: PublicKeyHash,
        /// Why.
        source: SourceError,
    },
}

impl PublicKeyHash {
    /// Checks that `cid` can name a key.
    ///
    /// # Errors
    /// [`RecordError::OutOfRange`] for a version, codec, hash function or inline length that no key has.
    pub fn try_new(cid: Cid) -> Result<Self, RecordError> {
        let fits = match cid.hash().code() {
            HashCode::Identity => cid.hash().digest().len() <= MAX_WRITTEN_IDENTITY_BYTES,
            HashCode::Sha2_256 => true,
            _ => false,
        };
        if fits && !cid.is_v0() && cid.codec() == Codec::DagCbor {
            Ok(Self(cid))
        } else {
            Err(RecordError::OutOfRange {
                field: "public key hash",
            })
        }
    }

    /// Names a signing key by identity hash: the key is inside its name.
    pub fn of(key: &PublicSigningKey) -> Self {
        Self::of_encoded(&key.encode())
    }

    /// Names a key by its encoding: identity up to 36 bytes, sha2-256 above.
    pub(crate) fn of_encoded(encoded: &[u8]) -> Self {
        let hash = Multihash::identity(encoded).unwrap_or_else(|_| Multihash::sha2_256(encoded));
        Self(Cid::v1(Codec::DagCbor, hash))
    }

    /// Returns the placeholder that stands for "no key" inside clients: sha2-256 with an all-zero digest.
    pub const fn placeholder() -> Self {
        Self(Cid::v1(Codec::DagCbor, Multihash::from_sha2_256([0; 32])))
    }

    /// Returns true for [`PublicKeyHash::placeholder`].
    pub fn is_placeholder(&self) -> bool {
        self.0.hash().sha2_256_digest() == Some(&[0; 32])
    }

    /// Returns the CID.
    pub const fn cid(&self) -> &Cid {
        &self.0
    }

    /// Returns the signing key inside an identity hash.
    pub fn inline_key(&self) -> Option<PublicSigningKey> {
        PublicSigningKey::decode(self.0.identity_content()?).ok()
    }

    /// Returns true when this is a name of `key`, in either of its forms.
    pub fn names(&self, key: &PublicSigningKey) -> bool {
        self.0.matches(&key.encode())
    }

    /// Reads the signing key out of the block this hash names.
    ///
    /// # Errors
    /// [`RecordError::OutOfRange`] when `block` is another block, else any [`RecordError`].
    pub fn key_in(&self, block: &Block) -> Result<PublicSigningKey, RecordError> {
        if block.cid() != &self.0 || self.is_placeholder() {
            return Err(RecordError::OutOfRange {
                field: "public key hash",
            });
        }
        PublicSigningKey::decode(block.bytes())
    }

    /// Returns the signing key: from the hash itself, or by one block read without token.
    ///
    /// Dropping the future is safe.
    ///
    /// # Errors
    /// Any [`ResolveError`].
    pub async fn resolve(
        &self,
        blocks: &dyn BlockSource,
    ) -> Result<PublicSigningKey, ResolveError> {
        let malformed = |source| ResolveError::Malformed {
            hash: self.clone(),
            source,
        };
        if self.is_placeholder() {
            return Err(ResolveError::Placeholder);
        }
        if let Some(content) = self.0.identity_content() {
            return PublicSigningKey::decode(content).map_err(malformed);
        }
        let block = blocks
            .block(&self.0, None)
            .await
            .map_err(|source| ResolveError::Source {
                hash: self.clone(),
                source,
            })?
            .ok_or_else(|| ResolveError::NotFound(self.clone()))?;
        self.key_in(&block).map_err(malformed)
    }
}

impl fmt::Display for PublicKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PublicKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKeyHash({self})")
    }
}

impl FromStr for PublicKeyHash {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<Self, RecordError> {
        let cid = text.parse().map_err(|source: CidError| RecordError::Cid {
            field: "public key hash",
            source,
        })?;
        Self::try_new(cid)
    }
}

/// A link.
impl Record for PublicKeyHash {
    fn to_value(&self) -> Value {
        Value::from(&self.0)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        Self::try_new(value.into_link("public key hash")?)
    }
}

macro_rules! role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub PublicKeyHash);

        impl $name {
            /// Returns the key hash.
            pub const fn hash(&self) -> &PublicKeyHash {
                &self.0
            }

            /// Returns the CID of the key hash.
            pub const fn cid(&self) -> &Cid {
                self.0.cid()
            }
        }

        impl From<PublicKeyHash> for $name {
            fn from(hash: PublicKeyHash) -> Self {
                Self(hash)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = RecordError;

            fn from_str(text: &str) -> Result<Self, RecordError> {
                text.parse().map(Self)
            }
        }

        impl Record for $name {
            fn to_value(&self) -> Value {
                self.0.to_value()
            }

            fn from_value(value: Value) -> Result<Self, RecordError> {
                PublicKeyHash::from_value(value).map(Self)
            }
        }
    };
}

role! {
    /// The identity key of a user: whose space, quota and name it is.
    Owner
}
role! {
    /// A signing key with a pointer of its own; the owner's identity key is one too.
    Writer
}

impl Owner {
    /// Returns the identity key in its role as a writer.
    pub fn as_writer(&self) -> Writer {
        Writer(self.0.clone())
    }
}

/// A secret signing key with the name of its public key: `{"p": link, "s": secret}`.
#[derive(Debug, Clone)]
pub struct SecretKeyWithHash {
    hash: PublicKeyHash,
    secret: SecretSigningKey,
}

impl SecretKeyWithHash {
    /// Names the key by identity hash, as every new key is.
    pub fn new(secret: SecretSigningKey) -> Self {
        Self {
            hash: PublicKeyHash::of(&secret.public()),
            secret,
        }
    }

    /// Returns the name of the public key.
    pub const fn hash(&self) -> &PublicKeyHash {
        &self.hash
    }

    /// Returns the secret key.
    pub const fn secret(&self) -> &SecretSigningKey {
        &self.secret
    }

    /// Returns the key in its role as a writer.
    pub fn writer(&self) -> Writer {
        Writer(self.hash.clone())
    }

    /// Takes the secret key.
    pub fn into_secret(self) -> SecretSigningKey {
        self.secret
    }
}

impl Record for SecretKeyWithHash {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([
            ("p", self.hash.to_value()),
            ("s", self.secret.to_value()),
        ]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "secret key with hash")?;
        let hash = PublicKeyHash::from_value(fields.required("p")?)?;
        let secret = SecretSigningKey::from_value(fields.required("s")?)?;
        if !hash.names(&secret.public()) {
            return Err(RecordError::OutOfRange { field: "p" });
        }
        Ok(Self { hash, secret })
    }
}
