//! Claim chains: who holds a name now, and every key that held it before (Spec: 10 §2.2 to §4).
//!
//! A [`ClaimChain`] is what was received; [`ClaimChain::valid`] checks all of it and
//! [`ClaimChain::merge`] decides whether an update extends what is known. Both are always asked with the
//! name under which the chain is, or will be, stored: never with a name out of the chain itself.

mod directory;
mod known;
mod merge;
mod owner_keys;
mod registrar;

pub use directory::{Adoption, Kept, NameDirectory, judge};
pub use known::{KnownChains, Learned, MAX_KNOWN_CHAINS_BYTES, NotTrusted};
pub use merge::MergeError;
pub use owner_keys::OwnerKeys;
pub use registrar::{FREE_LINKS, Registration, RegistrationError, Ruling, needs_proof_of_work};

use bytes::Bytes;
use champ::{
    Cid,
    cbor::{Fields, Map, Record, RecordError, Value},
    data_stream::DataStreamError,
};

use crate::{
    claim::{Claim, Date, InvalidClaim},
    keys::{Owner, PublicKeyHash, PublicSigningKey, SecretSigningKey, SignatureError},
    username::Username,
};

/// Most links of a chain that is read; each costs up to two signature checks.
pub const MAX_LINKS: usize = 1024;

/// One holder of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimLink {
    /// The identity key that claims the name.
    pub owner: Owner,
    /// Its claim.
    pub claim: Claim,
    /// Attached signature by `owner` over the CBOR link of the next holder's key hash.
    pub keychange: Option<Bytes>,
}

impl ClaimLink {
    /// Makes the link of a live claim.
    ///
    /// # Errors
    /// As [`Claim::sign`].
    pub fn sign(
        username: &Username,
        expiry: Date,
        provider: Cid,
        identity: &SecretSigningKey,
    ) -> Result<Self, DataStreamError> {
        Ok(Self {
            owner: Owner(PublicKeyHash::of(&identity.public())),
            claim: Claim::sign(username, expiry, vec![provider], identity)?,
            keychange: None,
        })
    }

    /// Makes the link of a key that hands the name over to `next`.
    ///
    /// # Errors
    /// As [`Claim::sign`].
    pub fn sign_superseded(
        username: &Username,
        identity: &SecretSigningKey,
        next: &PublicKeyHash,
    ) -> Result<Self, DataStreamError> {
        Ok(Self {
            owner: Owner(PublicKeyHash::of(&identity.public())),
            claim: Claim::sign(username, Date::NEVER, Vec::new(), identity)?,
            keychange: Some(identity.sign_attached(&next.encode()).into()),
        })
    }

    fn hands_over_to(&self, next: &Owner, key: &PublicSigningKey) -> Result<(), InvalidChain> {
        let keychange = self.keychange.as_ref().ok_or(InvalidChain::NoKeyChange)?;
        let signed = key
            .verify_attached(keychange)
            .map_err(InvalidChain::KeyChange)?;
        if signed == next.encode() {
            Ok(())
        } else {
            Err(InvalidChain::OtherSuccessor)
        }
    }
}

impl Record for ClaimLink {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("claim", self.claim.to_value());
        map.insert("owner", self.owner.to_value());
        map.insert_some("keychange", self.keychange.clone());
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "claim link")?;
        Ok(Self {
            owner: Owner::from_value(fields.required("owner")?)?,
            claim: Claim::from_value(fields.required("claim")?)?,
            keychange: fields
                .optional("keychange")
                .map(|value| value.into_bytes("keychange"))
                .transpose()?,
        })
    }
}

/// Links, oldest first, as received: nothing in them has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClaimChain {
    links: Vec<ClaimLink>,
}

/// Why a chain is not valid for a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidChain {
    /// No link.
    #[error("claim chain is empty")]
    Empty,
    /// The last claim must name one server, all others none.
    #[error("claim {index} of the chain has {actual} storage providers")]
    Providers {
        /// Position from the oldest.
        index: usize,
        /// Number found.
        actual: usize,
    },
    /// The owner's key is not inside its hash and could not be had.
    #[error("claim owner's key is unknown")]
    UnknownKey,
    /// A claim is not valid.
    #[error("claim chain holds an invalid claim")]
    Claim(#[from] InvalidClaim),
    /// A superseded link without key change.
    #[error("claim chain lacks a key change")]
    NoKeyChange,
    /// The key change is not signed by the link's owner.
    #[error("key change signature does not verify")]
    KeyChange(#[source] SignatureError),
    /// The key change names another successor.
    #[error("key change is for another key")]
    OtherSuccessor,
}

impl ClaimChain {
    /// Makes a chain.
    ///
    /// # Errors
    /// [`RecordError::OutOfRange`] for more than [`MAX_LINKS`].
    pub fn new(links: Vec<ClaimLink>) -> Result<Self, RecordError> {
        if links.len() > MAX_LINKS {
            return Err(RecordError::OutOfRange { field: "links" });
        }
        Ok(Self { links })
    }

    /// Makes the chain of a first registration.
    pub fn single(link: ClaimLink) -> Self {
        Self { links: vec![link] }
    }

    /// Returns the links, oldest first.
    pub fn links(&self) -> &[ClaimLink] {
        &self.links
    }

    /// Returns the link of the current holder.
    pub fn last(&self) -> Option<&ClaimLink> {
        self.links.last()
    }

    /// Returns true for a chain without links: the answer for an unknown name.
    pub const fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Returns the identity key that holds the name now.
    pub fn identity(&self) -> Option<&Owner> {
        self.last().map(|link| &link.owner)
    }

    /// Returns the server that stores the user's data.
    pub fn home(&self) -> Option<&Cid> {
        self.last().and_then(|link| link.claim.providers.first())
    }

    /// Returns true when `key` holds the name or held it before.
    pub fn is_owned_by(&self, key: &PublicKeyHash) -> bool {
        self.links.iter().any(|link| link.owner.hash() == key)
    }

    /// Checks every claim and every key change for the name under which the chain is stored.
    ///
    /// Expiry plays no part (Spec: 10 §9). Keys that are not inside their hash must be in `keys`. Costs up
    /// to two signature checks per link.
    ///
    /// # Errors
    /// [`InvalidChain`].
    pub fn valid(&self, name: &Username, keys: &OwnerKeys) -> Result<(), InvalidChain> {
        let (last, superseded) = self.links.split_last().ok_or(InvalidChain::Empty)?;
        for (index, link) in self.links.iter().enumerate() {
            let wanted = usize::from(index == superseded.len());
            let actual = link.claim.providers.len();
            if actual != wanted {
                return Err(InvalidChain::Providers { index, actual });
            }
        }
        for pair in self.links.windows(2) {
            let [link, next] = pair else { continue };
            let key = keys.resolve(&link.owner).ok_or(InvalidChain::UnknownKey)?;
            link.claim.verify(name, &key)?;
            link.hands_over_to(&next.owner, &key)?;
        }
        let key = keys.resolve(&last.owner).ok_or(InvalidChain::UnknownKey)?;
        last.claim.verify(name, &key)?;
        Ok(())
    }

    /// Returns the chain with its last claim renewed or moved: same key, other expiry or server.
    ///
    /// # Errors
    /// As [`Claim::sign`].
    pub fn with_last_claim(
        &self,
        username: &Username,
        expiry: Date,
        provider: Cid,
        identity: &SecretSigningKey,
    ) -> Result<Self, DataStreamError> {
        let mut links = self.links.clone();
        links.pop();
        links.push(ClaimLink::sign(username, expiry, provider, identity)?);
        Ok(Self { links })
    }

    /// Returns the chain that moves the user to another server: expiry one day later (Spec: 12 §7.1).
    ///
    /// # Errors
    /// As [`Claim::sign`].
    pub fn migrated(
        &self,
        username: &Username,
        provider: Cid,
        identity: &SecretSigningKey,
    ) -> Result<Self, DataStreamError> {
        let expiry = self.last().map_or(Date::NEVER, |link| link.claim.expiry);
        self.with_last_claim(username, expiry.plus_days(1), provider, identity)
    }

    /// Returns the chain that hands the name over to another identity key.
    ///
    /// # Errors
    /// As [`Claim::sign`].
    pub fn with_new_key(
        &self,
        username: &Username,
        expiry: Date,
        provider: Cid,
        old: &SecretSigningKey,
        new: &SecretSigningKey,
    ) -> Result<Self, DataStreamError> {
        let mut links = self.links.clone();
        links.pop();
        let next = PublicKeyHash::of(&new.public());
        links.push(ClaimLink::sign_superseded(username, old, &next)?);
        links.push(ClaimLink::sign(username, expiry, provider, new)?);
        Ok(Self { links })
    }
}

impl Record for ClaimChain {
    fn to_value(&self) -> Value {
        Value::List(self.links.iter().map(Record::to_value).collect())
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let list = value.into_list("claim chain")?;
        if list.len() > MAX_LINKS {
            return Err(RecordError::OutOfRange { field: "links" });
        }
        Self::new(
            list.into_iter()
                .map(ClaimLink::from_value)
                .collect::<Result<_, _>>()?,
        )
    }
}

#[cfg(test)]
mod tests;
