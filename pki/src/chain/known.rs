//! The client's own list of chains: trust on first use (Spec: 10 §10).

use std::collections::BTreeMap;

use champ::cbor::{Map, Record, RecordError, Value};

use super::{ClaimChain, InvalidChain, MergeError, OwnerKeys};
use crate::{keys::PublicKeyHash, username::Username};

/// Longest store that is read, in bytes.
pub const MAX_KNOWN_CHAINS_BYTES: usize = 16 << 20;

/// Name -> chain as last accepted, live and expired alike.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KnownChains {
    chains: BTreeMap<Username, ClaimChain>,
}

/// What [`KnownChains::learn`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// The store already ends in the same link.
    Nothing,
    /// The name was not known: trusted on first use.
    FirstUse,
    /// The chain extends the one that was stored.
    Extended,
}

/// A chain that is not trusted; the stored one stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotTrusted {
    /// The chain itself is not valid for the name.
    #[error("the claim chain of {name} is not valid")]
    Invalid {
        /// Whose.
        name: Username,
        /// Why.
        source: InvalidChain,
    },
    /// The chain does not extend what is stored.
    #[error("the key of {name} changed in a way that {name} did not sign")]
    Unsigned {
        /// Whose.
        name: Username,
        /// Why.
        source: MergeError,
    },
    /// A server named a user for a key that is in no link of that user's chain.
    #[error("the key does not belong to {name}")]
    NotTheOwner {
        /// Whom the server named.
        name: Username,
    },
}

impl KnownChains {
    /// Knows nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the chain of a name.
    pub fn chain(&self, name: &Username) -> Option<&ClaimChain> {
        self.chains.get(name)
    }

    /// Returns the names whose chain ends in this key, in byte order.
    ///
    /// More than one is possible: nothing stops a key from holding two names.
    pub fn names_of(&self, key: &PublicKeyHash) -> impl Iterator<Item = &Username> {
        self.chains
            .iter()
            .filter(move |(_, chain)| chain.identity().is_some_and(|owner| owner.hash() == key))
            .map(|(name, _)| name)
    }

    /// Accepts a chain received for `name` when it is valid and extends what is stored.
    ///
    /// # Errors
    /// [`NotTrusted`], to be shown to the user.
    pub fn learn(
        &mut self,
        name: &Username,
        chain: &ClaimChain,
        keys: &OwnerKeys,
    ) -> Result<Learned, NotTrusted> {
        chain
            .valid(name, keys)
            .map_err(|source| NotTrusted::Invalid {
                name: name.clone(),
                source,
            })?;
        let stored = self.chains.get(name).filter(|stored| !stored.is_empty());
        let Some(stored) = stored else {
            self.chains.insert(name.clone(), chain.clone());
            return Ok(Learned::FirstUse);
        };
        if stored.last() == chain.last() {
            return Ok(Learned::Nothing);
        }
        let merged = ClaimChain::merge(stored, chain, name, keys).map_err(|source| {
            NotTrusted::Unsigned {
                name: name.clone(),
                source,
            }
        })?;
        self.chains.insert(name.clone(), merged);
        Ok(Learned::Extended)
    }

    /// Accepts a server's answer that `key` belongs to `name`, once the chain of that name proves it.
    ///
    /// Official clients believe the answer alone, so their server can present anybody as anybody.
    ///
    /// # Errors
    /// As [`KnownChains::learn`], and [`NotTrusted::NotTheOwner`]; the key is then to be treated as unknown.
    pub fn learn_owner(
        &mut self,
        key: &PublicKeyHash,
        name: &Username,
        chain: &ClaimChain,
        keys: &OwnerKeys,
    ) -> Result<Learned, NotTrusted> {
        if !chain.is_owned_by(key) {
            return Err(NotTrusted::NotTheOwner { name: name.clone() });
        }
        self.learn(name, chain, keys)
    }

    /// Decodes a stored file.
    ///
    /// # Errors
    /// [`RecordError::WrongLength`] above [`MAX_KNOWN_CHAINS_BYTES`], else any [`RecordError`].
    pub fn decode_file(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > MAX_KNOWN_CHAINS_BYTES {
            return Err(RecordError::WrongLength {
                field: "known chains",
                actual: bytes.len(),
            });
        }
        Self::decode(bytes)
    }

    /// Visits names and chains in byte order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Username, &ClaimChain)> {
        self.chains.iter()
    }
}

impl Record for KnownChains {
    fn to_value(&self) -> Value {
        let entries = self.chains.iter();
        Value::Map(
            entries
                .map(|(name, chain)| (name.as_str(), chain.to_value()))
                .collect::<Map>(),
        )
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut chains = BTreeMap::new();
        for (name, chain) in value.into_map("known chains")? {
            let name =
                Username::parse(&name).map_err(|_| RecordError::OutOfRange { field: "name" })?;
            chains.insert(name, ClaimChain::from_value(chain)?);
        }
        Ok(Self { chains })
    }
}
