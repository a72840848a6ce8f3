//! Capabilities relative to the node they stand in (Spec: 20 §2.4, §2.5).

use champ::{
    access::Bat,
    cbor::{Fields, Map, Record, RecordError, Value},
};
use pki::keys::Writer;
use rand_core::CryptoRng;

use super::{AbsoluteCapability, MapKey};
use crate::{
    ciphertext::{OpenError, SymmetricLink},
    crypto::SymmetricKey,
    properties::FileName,
};

/// A capability without what its source tells already: owner, usually the writer, and the write base key
/// only under the source's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelativeCapability {
    /// Present only when the target is in another writing space than the source.
    pub writer: Option<Writer>,
    /// CHAMP key of the target.
    pub map_key: MapKey,
    /// Token of the target; absent only for legacy data.
    pub bat: Option<Bat>,
    /// The target's read base key (in a parent link: its parent key).
    pub r_base: SymmetricKey,
    /// The target's write base key, sealed under the source's.
    pub w_base: Option<SymmetricLink>,
}

/// Why a capability has no relative form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelativeError {
    /// A relative capability has no owner field: the owner is inherited.
    #[error("target belongs to another owner than its source")]
    OtherOwner,
    /// The write base key can only be sealed under the source's.
    #[error("writable target in a read-only source")]
    SourceReadOnly,
    /// Source and target share a write base key, and resolving would lose write access.
    #[error("target has the write key of its source")]
    SharedWriteKey,
}

impl RelativeCapability {
    /// Returns a link in the same writing space without write access: next chunk, next page.
    pub const fn read_only(map_key: MapKey, bat: Option<Bat>, r_base: SymmetricKey) -> Self {
        Self {
            writer: None,
            map_key,
            bat,
            r_base,
            w_base: None,
        }
    }

    /// Expresses `target` relative to `source`, sealing its write base key.
    ///
    /// # Errors
    /// [`RelativeError`].
    pub fn between(
        source: &AbsoluteCapability,
        target: &AbsoluteCapability,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, RelativeError> {
        if source.owner != target.owner {
            return Err(RelativeError::OtherOwner);
        }
        let w_base = match (&source.w_base, &target.w_base) {
            (_, None) => None,
            (None, Some(_)) => return Err(RelativeError::SourceReadOnly),
            (Some(from), Some(to)) if from == to => return Err(RelativeError::SharedWriteKey),
            (Some(from), Some(to)) => Some(SymmetricLink::seal(from, to, rng)),
        };
        Ok(Self {
            writer: (source.writer != target.writer).then(|| target.writer.clone()),
            map_key: target.map_key,
            bat: target.bat.clone(),
            r_base: target.r_base.clone(),
            w_base,
        })
    }

    /// Returns the absolute capability, given the source's.
    ///
    /// The owner is always the source's. The result is writable only when the source is and a sealed write
    /// key is here: the source's own write key is never carried over.
    ///
    /// # Errors
    /// [`OpenError`] when the sealed write key does not open with the source's.
    pub fn resolve(&self, source: &AbsoluteCapability) -> Result<AbsoluteCapability, OpenError> {
        let w_base = match (&source.w_base, &self.w_base) {
            (Some(from), Some(link)) => Some(link.open(from)?),
            _ => None,
        };
        Ok(AbsoluteCapability {
            owner: source.owner.clone(),
            writer: self.writer.clone().unwrap_or_else(|| source.writer.clone()),
            map_key: self.map_key,
            bat: self.bat.clone(),
            r_base: self.r_base.clone(),
            w_base,
        })
    }

    fn to_map(&self) -> Map {
        let mut map = Map::from_iter([
            ("k", self.r_base.to_value()),
            ("m", self.map_key.to_value()),
        ]);
        map.insert_some("a", self.bat.as_ref().map(Record::to_value));
        map.insert_some("l", self.w_base.as_ref().map(Record::to_value));
        map.insert_some("w", self.writer.as_ref().map(Record::to_value));
        map
    }

    fn from_fields(fields: &mut Fields) -> Result<Self, RecordError> {
        Ok(Self {
            writer: fields.optional("w").map(Writer::from_value).transpose()?,
            map_key: MapKey::from_value(fields.required("m")?)?,
            bat: fields.optional("a").map(Bat::from_value).transpose()?,
            r_base: SymmetricKey::from_value(fields.required("k")?)?,
            w_base: fields
                .optional("l")
                .map(SymmetricLink::from_value)
                .transpose()?,
        })
    }
}

impl Record for RelativeCapability {
    fn to_value(&self) -> Value {
        Value::Map(self.to_map())
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        Self::from_fields(&mut Fields::of(value, "relative capability")?)
    }
}

/// A child with its name and hints for a listing (a named relative capability).
///
/// Name and hints are as trustworthy as whoever may write the directory; the child's own properties decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildEntry {
    /// The child's name.
    pub name: FileName,
    /// Hint: is a directory. Older entries have no hints.
    pub is_directory: Option<bool>,
    /// Hint: mime type, empty for directories; one client leaves it out for them.
    pub mime_type: Option<String>,
    /// Hint: created, in seconds since 1970 UTC.
    pub created_epoch_seconds: Option<i64>,
    /// The child.
    pub capability: RelativeCapability,
    /// Keys of later versions, kept on rewriting.
    pub unknown: Map,
}

impl Record for ChildEntry {
    fn to_value(&self) -> Value {
        let mut map = self.unknown.clone();
        for (key, value) in self.capability.to_map() {
            map.insert(key, value);
        }
        map.insert("n", self.name.as_str());
        map.insert_some("d", self.is_directory);
        map.insert_some("t", self.mime_type.as_deref());
        map.insert_some("c", self.created_epoch_seconds);
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "child entry")?;
        Ok(Self {
            name: FileName::from_value(fields.required("n")?)?,
            is_directory: fields.optional("d").map(|v| v.into_bool("d")).transpose()?,
            mime_type: fields.optional("t").map(|v| v.into_text("t")).transpose()?,
            created_epoch_seconds: fields.optional("c").map(|v| v.into_int("c")).transpose()?,
            capability: RelativeCapability::from_fields(&mut fields)?,
            unknown: fields.rest(),
        })
    }
}

/// One element of a child list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Child {
    /// What is written today.
    Named(ChildEntry),
    /// Legacy: the name must be fetched from the child.
    Unnamed(RelativeCapability),
    /// An entry that readers must not use; kept as it is, so that rewriting the page loses nothing and one
    /// bad entry cannot lock a directory.
    Unreadable(Value, RecordError),
}

impl Child {
    /// Returns the name, if the list tells it.
    pub fn name(&self) -> Option<&FileName> {
        match self {
            Self::Named(entry) => Some(&entry.name),
            Self::Unnamed(_) | Self::Unreadable(..) => None,
        }
    }

    /// Returns the capability, relative to the directory's.
    pub const fn capability(&self) -> Option<&RelativeCapability> {
        match self {
            Self::Named(entry) => Some(&entry.capability),
            Self::Unnamed(capability) => Some(capability),
            Self::Unreadable(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use pki::keys::{Owner, PublicKeyHash, SecretSigningKey};
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use crate::crypto::CannotOpen;

    fn hash(seed: u8) -> PublicKeyHash {
        PublicKeyHash::of(&SecretSigningKey::from_seed(&[seed; 32]).public())
    }

    fn capability(writer: u8, w_base: Option<u8>) -> AbsoluteCapability {
        AbsoluteCapability {
            owner: Owner(hash(1)),
            writer: Writer(hash(writer)),
            w_base: w_base.map(|byte| SymmetricKey::from_bytes([byte; 32])),
            ..AbsoluteCapability::null()
        }
    }

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(1)
    }

    #[test]
    fn resolving_undoes_making_relative() {
        for (writer, w_base) in [(2, Some(9)), (3, Some(9)), (3, None)] {
            let (source, target) = (capability(2, Some(8)), capability(writer, w_base));
            let relative = RelativeCapability::between(&source, &target, &mut rng()).unwrap();
            assert_eq!(relative.writer.is_some(), writer != 2);
            assert_eq!(relative.resolve(&source).unwrap(), target);
            assert_eq!(
                relative.resolve(&source.read_only()).unwrap(),
                target.read_only()
            );
        }
    }

    #[test]
    fn a_target_without_link_never_inherits_the_write_key() {
        let source = capability(2, Some(8));
        let relative =
            RelativeCapability::between(&source, &capability(2, None), &mut rng()).unwrap();
        assert_eq!(relative.resolve(&source).unwrap().w_base, None);
    }

    #[test]
    fn what_has_no_relative_form_is_refused() {
        let mut foreign = capability(2, None);
        foreign.owner = Owner(hash(7));
        for (source, target, error) in [
            (capability(2, Some(8)), foreign, RelativeError::OtherOwner),
            (
                capability(2, None),
                capability(2, Some(8)),
                RelativeError::SourceReadOnly,
            ),
            (
                capability(2, Some(8)),
                capability(2, Some(8)),
                RelativeError::SharedWriteKey,
            ),
        ] {
            assert_eq!(
                RelativeCapability::between(&source, &target, &mut rng()),
                Err(error)
            );
        }
    }

    #[test]
    fn a_sealed_write_key_under_another_key_fails_closed() {
        let relative = RelativeCapability::between(
            &capability(2, Some(8)),
            &capability(2, Some(9)),
            &mut rng(),
        )
        .unwrap();
        assert_eq!(
            relative.resolve(&capability(2, Some(7))),
            Err(OpenError::Refused(CannotOpen))
        );
    }

    #[test]
    fn unknown_keys_of_an_entry_survive() {
        let entry = ChildEntry {
            name: FileName::parse("a").unwrap(),
            is_directory: Some(false),
            mime_type: Some("text/plain".into()),
            created_epoch_seconds: Some(5),
            capability: RelativeCapability::read_only(
                MapKey::from_bytes([1; 32]),
                None,
                SymmetricKey::from_bytes([2; 32]),
            ),
            unknown: Map::from_iter([("zz", Value::Int(1))]),
        };
        assert_eq!(ChildEntry::decode(&entry.encode()).unwrap(), entry);
    }
}
