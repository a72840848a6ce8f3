//! Root blocks: everything a writer controls (Spec: 04 §4).
//!
//! Invariants: the controller is always there; a field of the wrong type refuses the whole block; fields
//! of later versions survive when a root block is changed and written back.

use std::collections::BTreeMap;

use bytes::Bytes;
use champ::{
    Block, BlockError, Cid, Codec,
    cbor::{Fields, Map, Record, RecordError, Value},
};

use crate::{
    algorithm::LoginAlgorithm,
    keys::{PublicKeyHash, Writer},
    list::elements,
    owned::OwnerProof,
};

/// The name of the writer that holds the user directory.
pub const PKI_NAME: &str = "pki";
/// Encoding of the champ without entries: bit width 3, buckets of 4.
const EMPTY_CHAMP: [u8; 4] = [0x83, 0x40, 0x40, 0x80];

/// The content of a root block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterData {
    /// The writer itself; must equal the writer whose pointer leads here.
    pub controller: Writer,
    /// Root of the file champ.
    pub tree: Option<Cid>,
    /// Root of the owned key champ; absent means nothing is owned.
    pub owned: Option<Cid>,
    /// Named owned keys of the identity of user `peergos`.
    pub named: BTreeMap<String, OwnerProof>,
    /// Root of the secret link champ.
    pub links: Option<Cid>,
    /// Public data root.
    pub public: Option<Cid>,
    /// Legacy entry points, encrypted; marks an account whose identity key comes from the password.
    pub entry_points: Option<EncryptedEntryPoints>,
    /// Hash of the boxing key that receives follow requests.
    pub inbound: Option<PublicKeyHash>,
    /// How the password becomes keys.
    pub algorithm: Option<LoginAlgorithm>,
    /// Fields of later versions.
    unknown: Map,
}

/// The `static` field: a cipher text `[nonce, bytes]` that only the owner can open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptedEntryPoints {
    /// 24-byte nonce.
    pub nonce: [u8; 24],
    /// Tag and cipher text.
    pub cipher_text: Bytes,
}

/// Why a block cannot be the root block of a writer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// The block is not dag-cbor.
    #[error("root block {0} is not dag-cbor")]
    Codec(Cid),
    /// The block is no root block.
    #[error("root block is malformed")]
    Malformed(#[from] RecordError),
    /// The block belongs to another writer.
    #[error("root block belongs to {found}")]
    Controller {
        /// The controller in the block.
        found: Writer,
    },
}

impl WriterData {
    /// Makes the first root block of a new writer: nothing owned yet.
    ///
    /// The block of the empty champ must be uploaded with it.
    pub fn new_writer(controller: Writer) -> Self {
        Self {
            controller,
            tree: None,
            owned: Some(Cid::of_cbor(&EMPTY_CHAMP)),
            named: BTreeMap::new(),
            links: None,
            public: None,
            entry_points: None,
            inbound: None,
            algorithm: None,
            unknown: Map::new(),
        }
    }

    /// Makes the first root block of a new identity.
    pub fn new_identity(
        controller: Writer,
        inbound: PublicKeyHash,
        algorithm: LoginAlgorithm,
    ) -> Self {
        Self {
            inbound: Some(inbound),
            algorithm: Some(algorithm),
            ..Self::new_writer(controller)
        }
    }

    /// Reads the root block of `writer`.
    ///
    /// # Errors
    /// Any [`RootError`].
    pub fn in_block(block: &Block, writer: &Writer) -> Result<Self, RootError> {
        if block.cid().codec() != Codec::DagCbor {
            return Err(RootError::Codec(block.cid().clone()));
        }
        let data = Self::decode_shared(block.bytes())?;
        if data.controller != *writer {
            return Err(RootError::Controller {
                found: data.controller,
            });
        }
        Ok(data)
    }

    /// Returns the block to upload.
    ///
    /// # Errors
    /// [`BlockError::TooLarge`].
    pub fn to_block(&self) -> Result<Block, BlockError> {
        Block::cbor(self.encode())
    }

    /// Returns true when the account's identity key comes from the password.
    pub const fn is_legacy_account(&self) -> bool {
        self.entry_points.is_some()
    }

    /// Returns true when this differs from `base` in the file tree at most, so that a conflict can be
    /// resolved by merging trees (Spec: 04 §8.4).
    pub fn differs_in_tree_alone(&self, base: &Self) -> bool {
        let aligned = Self {
            tree: base.tree.clone(),
            ..self.clone()
        };
        aligned == *base
    }
}

impl Record for WriterData {
    fn to_value(&self) -> Value {
        let mut map = self.unknown.clone();
        map.insert_some("tree", self.tree.clone());
        map.insert_some("links", self.links.clone());
        if !self.named.is_empty() {
            let named = self
                .named
                .iter()
                .map(|(name, proof)| (name.as_str(), proof.to_value()));
            map.insert("named", named.collect::<Map>());
        }
        map.insert_some("owned", self.owned.clone());
        map.insert_some("public", self.public.clone());
        let entry_points = self.entry_points.as_ref().map(Record::to_value);
        map.insert_some("static", entry_points);
        map.insert_some("inbound", self.inbound.as_ref().map(Record::to_value));
        map.insert_some("algorithm", self.algorithm.as_ref().map(Record::to_value));
        map.insert("controller", self.controller.to_value());
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "root block")?;
        let controller = Writer::from_value(fields.required("controller")?)?;
        let mut link = |field| {
            fields
                .optional(field)
                .map(|value| value.into_link(field))
                .transpose()
        };
        let (tree, owned, links, public) = (
            link("tree")?,
            link("owned")?,
            link("links")?,
            link("public")?,
        );
        let named = match fields.optional("named") {
            None => BTreeMap::new(),
            Some(named) => named
                .into_map("named")?
                .into_iter()
                .map(|(name, proof)| Ok((name, OwnerProof::from_value(proof)?)))
                .collect::<Result<_, RecordError>>()?,
        };
        fn record<T: Record>(value: Option<Value>) -> Result<Option<T>, RecordError> {
            value.map(T::from_value).transpose()
        }
        Ok(Self {
            controller,
            tree,
            owned,
            named,
            links,
            public,
            entry_points: record(fields.optional("static"))?,
            inbound: record(fields.optional("inbound"))?,
            algorithm: record(fields.optional("algorithm"))?,
            unknown: fields.rest(),
        })
    }
}

impl Record for EncryptedEntryPoints {
    fn to_value(&self) -> Value {
        Value::List(vec![
            Value::from(&self.nonce),
            Value::from(self.cipher_text.clone()),
        ])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let [nonce, cipher_text] = elements(value, "static")?;
        Ok(Self {
            nonce: nonce.into_array("static")?,
            cipher_text: cipher_text.into_bytes("static")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::PublicSigningKey;

    fn writer(n: u8) -> Writer {
        Writer(PublicKeyHash::of(&PublicSigningKey::from_bytes([n; 32])))
    }

    #[test]
    fn root_block_of_another_writer_is_refused() {
        let block = WriterData::new_writer(writer(1)).to_block().unwrap();
        assert!(WriterData::in_block(&block, &writer(1)).is_ok());
        let found = writer(1);
        assert_eq!(
            WriterData::in_block(&block, &writer(2)),
            Err(RootError::Controller { found })
        );
        let raw = Block::raw(block.bytes().clone()).unwrap();
        assert!(matches!(
            WriterData::in_block(&raw, &writer(1)),
            Err(RootError::Codec(_))
        ));
    }

    #[test]
    fn every_field_of_a_wrong_type_is_refused() {
        let good = WriterData::new_writer(writer(1));
        let wrong = Value::from("text");
        for field in [
            "tree",
            "links",
            "named",
            "owned",
            "public",
            "static",
            "inbound",
            "algorithm",
            "controller",
        ] {
            let Value::Map(mut map) = good.to_value() else {
                panic!("a map");
            };
            map.insert(field, wrong.clone());
            assert!(WriterData::from_value(Value::Map(map)).is_err(), "{field}");
        }
    }

    #[test]
    fn only_a_changed_tree_can_be_merged() {
        let base = WriterData::new_writer(writer(1));
        let mut ours = base.clone();
        ours.tree = Some(Cid::of_cbor(b"new"));
        assert!(ours.differs_in_tree_alone(&base));
        ours.owned = Some(Cid::of_cbor(b"more"));
        assert!(!ours.differs_in_tree_alone(&base));
        let mut later = base.clone();
        later.unknown.insert("later", 1i64);
        assert!(!later.differs_in_tree_alone(&base));
    }
}
