//! A factor as it is stored, and what it is checked with.

use bytes::Bytes;
use champ::cbor::{Fields, Map, Record, RecordError, Value};
use pki::wire::second_factor::{FactorName, MethodKind, MultiFactorMethod};
use zeroize::ZeroizeOnDrop;

use crate::webauthn::StoredCredential;

/// A factor as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Factor {
    pub(super) credential_id: Bytes,
    pub(super) name: FactorName,
    pub(super) is_enabled: bool,
    pub(super) created_epoch_day: i64,
    pub(super) secret: Secret,
}

/// What a factor is checked with.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub(super) enum Secret {
    /// Key and the last step that was used.
    Totp {
        key: [u8; 32],
        #[zeroize(skip)]
        last_step: Option<i64>,
    },
    /// As a time based code, for a device that keeps its own key.
    Mount {
        key: [u8; 32],
        #[zeroize(skip)]
        last_step: Option<i64>,
    },
    /// Digests of unused codes.
    BackupCodes(Vec<[u8; 32]>),
    /// Public key and counter of a security key.
    WebAuthn(#[zeroize(skip)] StoredCredential),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Factor {
    pub(super) const fn kind(&self) -> MethodKind {
        match self.secret {
            Secret::Totp { .. } => MethodKind::Totp,
            Secret::Mount { .. } => MethodKind::Mount,
            Secret::BackupCodes(_) => MethodKind::BackupCodes,
            Secret::WebAuthn(_) => MethodKind::WebAuthn,
        }
    }

    pub(super) fn method(&self) -> MultiFactorMethod {
        let name = match &self.secret {
            Secret::BackupCodes(codes) => {
                FactorName::parse(&codes.len().to_string()).unwrap_or_default()
            }
            _ => self.name.clone(),
        };
        MultiFactorMethod {
            created_epoch_day: self.created_epoch_day,
            is_enabled: self.is_enabled,
            credential_id: self.credential_id.clone(),
            name,
            kind: self.kind(),
        }
    }

    pub(super) fn is_listed(&self) -> bool {
        match &self.secret {
            Secret::BackupCodes(codes) => !codes.is_empty(),
            _ => self.is_enabled,
        }
    }
}

impl Record for Factor {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("c", self.created_epoch_day);
        map.insert("e", self.is_enabled);
        map.insert("i", self.credential_id.clone());
        map.insert("n", self.name.as_str());
        map.insert("t", i64::from(self.kind().code()));
        match &self.secret {
            Secret::Totp { key, last_step } | Secret::Mount { key, last_step } => {
                map.insert("k", key);
                map.insert_some("l", *last_step);
            }
            Secret::BackupCodes(codes) => {
                map.insert("h", codes.iter().map(Value::from).collect::<Vec<_>>());
            }
            Secret::WebAuthn(credential) => {
                map.insert("w", credential.to_value());
            }
        }
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "factor")?;
        let name = fields.required("n")?.into_text("n")?;
        let kind = fields.required("t")?.into_int("t")?;
        let mut key = || -> Result<([u8; 32], Option<i64>), RecordError> {
            let key = fields.required("k")?.into_array("k")?;
            let step = fields.optional("l").map(|v| v.into_int("l")).transpose()?;
            Ok((key, step))
        };
        let secret = match MethodKind::from_code(kind) {
            Some(MethodKind::Totp) => {
                let (key, last_step) = key()?;
                Secret::Totp { key, last_step }
            }
            Some(MethodKind::Mount) => {
                let (key, last_step) = key()?;
                Secret::Mount { key, last_step }
            }
            Some(MethodKind::BackupCodes) => Secret::BackupCodes(
                fields
                    .required("h")?
                    .into_list("h")?
                    .into_iter()
                    .map(|hash| hash.into_array("h"))
                    .collect::<Result<_, _>>()?,
            ),
            Some(MethodKind::WebAuthn) => {
                Secret::WebAuthn(StoredCredential::from_value(fields.required("w")?)?)
            }
            None => return Err(RecordError::OutOfRange { field: "t" }),
        };
        Ok(Self {
            credential_id: fields.required("i")?.into_bytes("i")?,
            name: FactorName::parse(&name).map_err(|_| RecordError::OutOfRange { field: "n" })?,
            is_enabled: fields.required("e")?.into_bool("e")?,
            created_epoch_day: fields.required("c")?.into_int("c")?,
            secret,
        })
    }
}

#[cfg(test)]
mod tests {
    use pki::keys::PublicSigningKey;

    use super::*;
    use crate::webauthn::CoseKey;

    #[test]
    fn factors_survive_encoding_and_show_no_secret() {
        let factor = |secret| Factor {
            credential_id: Bytes::from_static(&[1; 32]),
            name: FactorName::parse("laptop").unwrap(),
            is_enabled: true,
            created_epoch_day: 20_000,
            secret,
        };
        for secret in [
            Secret::Totp {
                key: [9; 32],
                last_step: Some(3),
            },
            Secret::Mount {
                key: [9; 32],
                last_step: None,
            },
            Secret::BackupCodes(vec![[1; 32], [2; 32]]),
            Secret::WebAuthn(StoredCredential {
                key: CoseKey::EdDsa(PublicSigningKey::from_bytes([9; 32])),
                counter: 7,
            }),
        ] {
            let factor = factor(secret);
            assert_eq!(Factor::decode(&factor.encode()).unwrap(), factor);
            assert!(!format!("{factor:?}").contains("9, 9"));
        }
    }
}
