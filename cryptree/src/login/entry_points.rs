//! The record under the root key: where the user's files are and who he is (Spec: 21 §5.4, §14).

use champ::cbor::{Fields, Map, Record, RecordError, Value};
use pki::{boxing::PublicBoxingKey, keys::SigningKeyPair, writer_data::EncryptedEntryPoints};
use rand_core::CryptoRng;

use crate::{
    capability::EntryPoint,
    ciphertext::{CipherText, OpenError, PaddedCipherText},
    crypto::{BoxingKeyPair, Nonce, SymmetricKey},
};

/// Newest version that is read and the one that is written.
const VERSION: i64 = 2;
/// Most entry points that are read; accounts have one.
const MAX_ENTRIES: usize = 1024;
/// Padding of the user static data, in bytes.
const PADDING_BYTES: usize = 4096;

/// Entry points, boxing pair and identity pair of an account.
#[derive(Debug, Clone)]
pub struct EntryPoints {
    version: i64,
    /// Where file systems start: the user's own home directory carries his own name.
    pub entries: Vec<EntryPoint>,
    /// Boxing key pair; absent in legacy accounts, which derive it.
    pub boxing: Option<BoxingKeyPair>,
    /// Identity key pair; absent in legacy accounts, whose login key it is.
    pub identity: Option<SigningKeyPair>,
    unknown: Map,
}

impl EntryPoints {
    /// Makes the record of a current account.
    pub const fn new(
        entries: Vec<EntryPoint>,
        boxing: BoxingKeyPair,
        identity: SigningKeyPair,
    ) -> Self {
        Self {
            version: VERSION,
            entries,
            boxing: Some(boxing),
            identity: Some(identity),
            unknown: Map::new(),
        }
    }

    /// Returns the same with another boxing pair.
    #[must_use]
    pub fn with_boxing(&self, boxing: BoxingKeyPair) -> Self {
        Self {
            boxing: Some(boxing),
            ..self.clone()
        }
    }

    /// Returns true when the boxing pair is one that quantum computers do not open (Spec: 02 §5.2).
    pub fn has_hybrid_boxing(&self) -> bool {
        let public = self.boxing.as_ref().map(BoxingKeyPair::public);
        matches!(public, Some(PublicBoxingKey::Hybrid(_)))
    }

    /// Returns the entry point of the user's own home directory.
    pub fn home(&self, username: &str) -> Option<&EntryPoint> {
        self.entries
            .iter()
            .find(|entry| entry.owner_name == username)
    }
}

impl Record for EntryPoints {
    fn to_value(&self) -> Value {
        let mut map = self.unknown.clone();
        map.insert("v", self.version);
        map.insert(
            "e",
            self.entries
                .iter()
                .map(Record::to_value)
                .collect::<Vec<_>>(),
        );
        map.insert_some("b", self.boxing.as_ref().map(Record::to_value));
        map.insert_some("i", self.identity.as_ref().map(Record::to_value));
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "entry points")?;
        let version = fields.required("v")?.into_int("v")?;
        if !(0..=VERSION).contains(&version) {
            return Err(RecordError::OutOfRange { field: "v" });
        }
        let entries = fields.required("e")?.into_list("e")?;
        if entries.len() > MAX_ENTRIES {
            return Err(RecordError::OutOfRange { field: "e" });
        }
        Ok(Self {
            version,
            entries: entries
                .into_iter()
                .map(EntryPoint::from_value)
                .collect::<Result<_, _>>()?,
            boxing: fields
                .optional("b")
                .map(BoxingKeyPair::from_value)
                .transpose()?,
            identity: fields
                .optional("i")
                .map(SigningKeyPair::from_value)
                .transpose()?,
            unknown: fields.rest(),
        })
    }
}

/// The entry points sealed under the root key: in the login data, or in the root block of legacy accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserStaticData(PaddedCipherText);

impl UserStaticData {
    /// Seals entry points.
    pub fn seal(root: &SymmetricKey, entries: &EntryPoints, rng: &mut dyn CryptoRng) -> Self {
        Self(PaddedCipherText::seal(root, entries, PADDING_BYTES, rng))
    }

    /// Opens the entry points.
    ///
    /// # Errors
    /// [`OpenError::Refused`] for a wrong user name or password; [`OpenError::Content`], also for a version
    /// newer than this program.
    pub fn open(&self, root: &SymmetricKey) -> Result<EntryPoints, OpenError> {
        self.0.open(root)
    }
}

/// Legacy accounts keep it in the root block of the identity.
impl From<EncryptedEntryPoints> for UserStaticData {
    fn from(field: EncryptedEntryPoints) -> Self {
        Self(CipherText::from_parts(Nonce::received(field.nonce), field.cipher_text).into())
    }
}

impl From<&UserStaticData> for EncryptedEntryPoints {
    fn from(data: &UserStaticData) -> Self {
        let cipher_text = data.0.as_cipher_text();
        Self {
            nonce: *cipher_text.nonce().bytes(),
            cipher_text: cipher_text.cipher().clone(),
        }
    }
}

impl Record for UserStaticData {
    fn to_value(&self) -> Value {
        self.0.to_value()
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        PaddedCipherText::from_value(value).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_and_endless_lists_are_rejected() {
        let record = |version: i64, entries: usize| {
            let entry = EntryPoint {
                capability: crate::capability::AbsoluteCapability::null(),
                owner_name: "a".into(),
            };
            let entries = vec![entry.to_value(); entries];
            let map = Map::from_iter([("v", Value::Int(version)), ("e", Value::List(entries))]);
            EntryPoints::from_value(Value::Map(map))
        };
        for version in [0, 1, 2] {
            let read = record(version, 1).unwrap();
            assert_eq!(read.version, version);
            assert!(read.home("a").is_some() && read.home("b").is_none());
        }
        for version in [-1, 3] {
            assert!(record(version, 1).is_err());
        }
        assert!(record(2, MAX_ENTRIES + 1).is_err());
    }
}
