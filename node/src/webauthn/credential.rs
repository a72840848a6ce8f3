//! What is kept of a registered security key.

use bytes::Bytes;
use champ::cbor::{Fields, Map, Record, RecordError, Value};
use pki::wire::second_factor::MAX_CREDENTIAL_ID_BYTES;

use super::{CoseKey, Rejection};

/// The name an authenticator gave a key: 1 to 1023 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CredentialId(Bytes);

impl CredentialId {
    /// Checks the length.
    ///
    /// # Errors
    /// [`Rejection::CredentialIdLength`].
    pub fn try_new(bytes: &[u8]) -> Result<Self, Rejection> {
        if bytes.is_empty() || bytes.len() > MAX_CREDENTIAL_ID_BYTES {
            return Err(Rejection::CredentialIdLength(bytes.len()));
        }
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the bytes, shared.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// The public key of a security key and the counter of its last accepted answer.
///
/// Stored as `{"k": bytes COSE key, "n": int counter}`; the credential id stands next to it, as for every factor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCredential {
    /// Verifies the answers.
    pub key: CoseKey,
    /// Signature counter; 0 until the authenticator counts, forever for those that do not.
    pub counter: u32,
}

impl Record for StoredCredential {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("k", Bytes::from(self.key.encode()));
        map.insert("n", i64::from(self.counter));
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "security key")?;
        let key = fields.required("k")?.into_bytes("k")?;
        let counter = fields.required("n")?.into_int("n")?;
        Ok(Self {
            key: CoseKey::decode(&key).map_err(|_| RecordError::OutOfRange { field: "k" })?,
            counter: u32::try_from(counter).map_err(|_| RecordError::OutOfRange { field: "n" })?,
        })
    }
}

#[cfg(test)]
mod tests {
    use pki::keys::PublicSigningKey;

    use super::*;

    #[test]
    fn a_stored_credential_survives_encoding() {
        for counter in [0, 5, u32::MAX] {
            let stored = StoredCredential {
                key: CoseKey::EdDsa(PublicSigningKey::from_bytes([9; 32])),
                counter,
            };
            assert_eq!(StoredCredential::decode(&stored.encode()).unwrap(), stored);
        }
    }

    #[test]
    fn what_was_not_stored_by_us_is_refused() {
        let key = CoseKey::EdDsa(PublicSigningKey::from_bytes([9; 32])).encode();
        for (key, counter) in [
            (key.clone(), -1),
            (key.clone(), 1_i64 << 32),
            (key[1..].to_vec(), 5),
            ([key.as_slice(), &[0]].concat(), 5),
        ] {
            let mut map = Map::new();
            map.insert("k", Bytes::from(key));
            map.insert("n", counter);
            assert!(StoredCredential::from_value(Value::Map(map)).is_err());
        }
    }
}
