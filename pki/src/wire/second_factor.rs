//! Second factors: methods, requests, answers, codes (Spec: 08 §1, §4).

use std::{fmt, str::FromStr};

use bytes::Bytes;
use champ::cbor::{Fields, Map, Record, RecordError, Value};
use data_encoding::BASE32_NOPAD;
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{WireError, body::record_body};

/// Longest name of a factor, in UTF-16 units.
pub const MAX_FACTOR_NAME_UNITS: usize = 32;
/// Longest credential id, in bytes (Spec: 08 §4.4).
pub const MAX_CREDENTIAL_ID_BYTES: usize = 1023;
/// Most factors in one list; a server keeps at most 10 per user and a few of its own.
pub const MAX_METHODS: usize = 64;
/// Longest body of `registerWebauthnComplete`.
pub const MAX_REGISTRATION_BYTES: usize = 2048;
/// Number of backup codes in a set.
pub const BACKUP_CODE_COUNT: usize = 10;
/// Length of a backup code in normal form.
pub const BACKUP_CODE_CHARS: usize = 10;

const MAX_CODE_BYTES: usize = 64;

/// Kinds of second factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MethodKind {
    /// Time based codes.
    Totp,
    /// Security keys.
    WebAuthn,
    /// Single use codes.
    BackupCodes,
    /// Time based codes kept by a device; never offered.
    Mount,
}

impl MethodKind {
    /// Returns the type code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Totp => 1,
            Self::WebAuthn => 2,
            Self::BackupCodes => 3,
            Self::Mount => 4,
        }
    }

    /// Returns the kind of a type code.
    pub const fn from_code(code: i64) -> Option<Self> {
        match code {
            1 => Some(Self::Totp),
            2 => Some(Self::WebAuthn),
            3 => Some(Self::BackupCodes),
            4 => Some(Self::Mount),
            _ => None,
        }
    }

    /// Reads the `mfaTypes` parameter: the codes a client can handle; absent means `1,2`.
    ///
    /// Codes this version does not know are left out.
    ///
    /// # Errors
    /// [`WireError::Text`] for an entry that is not a number.
    pub fn parse_list(parameter: Option<&str>) -> Result<Vec<Self>, WireError> {
        let mut kinds = Vec::new();
        for entry in parameter.unwrap_or("1,2").split(',') {
            let code: i64 = entry.parse().map_err(|_| WireError::Text("mfaTypes"))?;
            kinds.extend(Self::from_code(code).filter(|kind| !kinds.contains(kind)));
        }
        Ok(kinds)
    }
}

/// The name of a factor, at most [`MAX_FACTOR_NAME_UNITS`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FactorName(String);

/// A name that readers would fail on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Second factor names must be smaller than 33 characters")]
pub struct FactorNameTooLong;

impl FactorName {
    /// Checks the length.
    ///
    /// # Errors
    /// [`FactorNameTooLong`].
    pub fn parse(text: &str) -> Result<Self, FactorNameTooLong> {
        if text.encode_utf16().count() > MAX_FACTOR_NAME_UNITS {
            return Err(FactorNameTooLong);
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One factor of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiFactorMethod {
    /// Day of creation, in days since 1970-01-01.
    pub created_epoch_day: i64,
    /// False until the first code was right.
    pub is_enabled: bool,
    /// 32 random bytes, or the authenticator's id.
    pub credential_id: Bytes,
    /// Empty for TOTP; the number of unused codes for backup codes.
    pub name: FactorName,
    /// Kind.
    pub kind: MethodKind,
}

impl Record for MultiFactorMethod {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("c", self.created_epoch_day);
        map.insert("e", self.is_enabled);
        map.insert("i", self.credential_id.clone());
        map.insert("n", self.name.as_str());
        map.insert("t", self.kind.code());
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "second factor")?;
        let kind = fields.required("t")?.into_int("t")?;
        let name = fields.required("n")?.into_text("n")?;
        Ok(Self {
            created_epoch_day: fields.required("c")?.into_int("c")?,
            is_enabled: fields.required("e")?.into_bool("e")?,
            credential_id: credential_id(fields.required("i")?)?,
            name: FactorName::parse(&name).map_err(|_| RecordError::OutOfRange { field: "n" })?,
            kind: MethodKind::from_code(kind).ok_or(RecordError::OutOfRange { field: "t" })?,
        })
    }
}

fn credential_id(value: Value) -> Result<Bytes, RecordError> {
    let id = value.into_bytes("i")?;
    if id.len() > MAX_CREDENTIAL_ID_BYTES {
        return Err(RecordError::WrongLength {
            field: "i",
            actual: id.len(),
        });
    }
    Ok(id)
}

/// The reply of `listMfa`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MultiFactorMethods(pub Vec<MultiFactorMethod>);

impl Record for MultiFactorMethods {
    fn to_value(&self) -> Value {
        Value::List(self.0.iter().map(Record::to_value).collect())
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let list = value.into_list("methods")?;
        if list.len() > MAX_METHODS {
            return Err(RecordError::OutOfRange { field: "methods" });
        }
        list.into_iter()
            .map(MultiFactorMethod::from_value)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// What a server asks for before it hands out the login record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiFactorRequest {
    /// Challenge for security keys.
    pub challenge: [u8; 32],
    /// Factors the user may answer with.
    pub methods: MultiFactorMethods,
}

impl Record for MultiFactorRequest {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("c", &self.challenge);
        map.insert("m", self.methods.to_value());
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "second factor request")?;
        Ok(Self {
            challenge: fields.required("c")?.into_array("c")?,
            methods: MultiFactorMethods::from_value(fields.required("m")?)?,
        })
    }
}

/// What the user answers with.
#[derive(Clone, PartialEq, Eq)]
pub enum FactorAnswer {
    /// A code as typed.
    Code(String),
    /// A security key's answer; at registration `authenticator_data` is the attestation object.
    WebAuthn {
        /// Authenticator data, or attestation object.
        authenticator_data: Bytes,
        /// Client data JSON.
        client_data: Bytes,
        /// Signature; empty at registration.
        signature: Bytes,
    },
}

impl fmt::Debug for FactorAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Code(_) => "Code(..)",
            Self::WebAuthn { .. } => "WebAuthn(..)",
        })
    }
}

/// An answer and the factor it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiFactorResponse {
    /// Which factor.
    pub credential_id: Bytes,
    /// The answer.
    pub answer: FactorAnswer,
}

impl Record for MultiFactorResponse {
    fn to_value(&self) -> Value {
        let answer = match &self.answer {
            FactorAnswer::Code(code) => Value::from(code.as_str()),
            FactorAnswer::WebAuthn {
                authenticator_data,
                client_data,
                signature,
            } => Value::Map(Map::from_iter([
                ("a", authenticator_data.clone()),
                ("c", client_data.clone()),
                ("s", signature.clone()),
            ])),
        };
        Value::Map(Map::from_iter([
            ("i", Value::Bytes(self.credential_id.clone())),
            ("r", answer),
        ]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "second factor response")?;
        let answer = match fields.required("r")? {
            Value::Text(code) if code.len() > MAX_CODE_BYTES => {
                return Err(RecordError::WrongLength {
                    field: "r",
                    actual: code.len(),
                });
            }
            Value::Text(code) => FactorAnswer::Code(code),
            other => {
                let mut fields = Fields::of(other, "r")?;
                FactorAnswer::WebAuthn {
                    authenticator_data: fields.required("a")?.into_bytes("a")?,
                    client_data: fields.required("c")?.into_bytes("c")?,
                    signature: fields.required("s")?.into_bytes("s")?,
                }
            }
        };
        Ok(Self {
            credential_id: credential_id(fields.required("i")?)?,
            answer,
        })
    }
}

/// A fresh set of backup codes: shown once, stored only as hashes.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct BackupCodes {
    /// Codes in normal form.
    pub codes: Vec<String>,
    /// Credential id of the set.
    pub credential_id: [u8; 32],
}

impl fmt::Debug for BackupCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackupCodes(..)")
    }
}

impl BackupCodes {
    /// Draws a set of [`BACKUP_CODE_COUNT`] distinct codes.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut credential_id = [0; 32];
        rng.fill_bytes(&mut credential_id);
        let mut codes: Vec<String> = Vec::with_capacity(BACKUP_CODE_COUNT);
        while codes.len() < BACKUP_CODE_COUNT {
            let mut random = [0; 7];
            rng.fill_bytes(&mut random);
            let code = backup_code(&random);
            random.zeroize();
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
        Self {
            codes,
            credential_id,
        }
    }
}

impl Record for BackupCodes {
    fn to_value(&self) -> Value {
        let codes: Vec<_> = self.codes.iter().map(|c| Value::from(c.as_str())).collect();
        let mut map = Map::new();
        map.insert("c", codes);
        map.insert("i", &self.credential_id);
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "backup codes")?;
        let codes = fields.required("c")?.into_list("c")?;
        if codes.len() > MAX_METHODS {
            return Err(RecordError::OutOfRange { field: "c" });
        }
        Ok(Self {
            codes: codes
                .into_iter()
                .map(|code| code.into_text("c"))
                .collect::<Result<_, _>>()?,
            credential_id: fields.required("i")?.into_array("i")?,
        })
    }
}

/// Returns the normal form of the code made from 7 random bytes: 10 characters of `a-z2-7`.
pub fn backup_code(random: &[u8; 7]) -> String {
    let mut code = BASE32_NOPAD.encode(random).to_ascii_lowercase();
    code.truncate(BACKUP_CODE_CHARS);
    code
}

/// Returns a code as it is shown: `xxxxx-xxxxx`.
pub fn display_backup_code(code: &str) -> String {
    match code.split_at_checked(BACKUP_CODE_CHARS / 2) {
        Some((first, second)) => format!("{first}-{second}"),
        None => code.to_owned(),
    }
}

/// Returns the normal form of an entered code: lower case, only `a-z` and `2-7`.
pub fn normalize_backup_code(entered: &str) -> String {
    entered
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .filter(|c| matches!(c, 'a'..='z' | '2'..='7'))
        .collect()
}

/// Returns what a server stores of a code in normal form.
pub fn backup_code_hash(normal: &str) -> [u8; 32] {
    Sha256::digest(normal.as_bytes()).into()
}

/// Finds the stored hash that an entered code matches, in time independent of where it is.
pub fn match_backup_code(entered: &str, stored: &[[u8; 32]]) -> Option<usize> {
    let hash = backup_code_hash(&normalize_backup_code(entered));
    stored
        .iter()
        .enumerate()
        .fold(None, |found, (i, candidate)| {
            if bool::from(candidate.ct_eq(&hash)) {
                Some(i)
            } else {
                found
            }
        })
}

/// The reply of `addTotp` and `addMount`: `base32(credential id):base32(key)`.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct TotpKey {
    /// Credential id.
    #[zeroize(skip)]
    pub credential_id: [u8; 32],
    /// The shared secret.
    pub key: [u8; 32],
}

impl TotpKey {
    /// Draws a credential id and a key.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        let (mut credential_id, mut key) = ([0; 32], [0; 32]);
        rng.fill_bytes(&mut credential_id);
        rng.fill_bytes(&mut key);
        Self { credential_id, key }
    }

    /// Returns the text; not `Display`, since it holds the secret.
    pub fn to_text(&self) -> String {
        let mut text = BASE32_NOPAD.encode(&self.credential_id);
        text.push(':');
        text.push_str(&BASE32_NOPAD.encode(&self.key));
        text
    }

    /// Returns what authenticator apps scan.
    pub fn to_uri(&self, username: &str) -> String {
        let secret = BASE32_NOPAD.encode(&self.key);
        format!("otpauth://totp/peergos:{username}@peergos?secret={secret}&issuer=peergos")
    }
}

impl fmt::Debug for TotpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpKey(..)")
    }
}

impl FromStr for TotpKey {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        let malformed = || WireError::Text("totp key");
        let part = |text: &str| {
            let bytes = BASE32_NOPAD.decode(text.as_bytes()).ok()?;
            <[u8; 32]>::try_from(bytes).ok()
        };
        let (id, key) = text.split_once(':').ok_or_else(malformed)?;
        Ok(Self {
            credential_id: part(id).ok_or_else(malformed)?,
            key: part(key).ok_or_else(malformed)?,
        })
    }
}

record_body! {
    MultiFactorMethods: 256 << 10, 16 * MAX_METHODS;
    MultiFactorResponse: MAX_REGISTRATION_BYTES, 64;
    BackupCodes: 16 << 10, 256;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts up, so that a draw can be told from the next one.
    struct Counter(u8);

    impl rand_core::TryRng for Counter {
        type Error = std::convert::Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            let mut bytes = [0; 4];
            self.try_fill_bytes(&mut bytes)?;
            Ok(u32::from_le_bytes(bytes))
        }

        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            let mut bytes = [0; 8];
            self.try_fill_bytes(&mut bytes)?;
            Ok(u64::from_le_bytes(bytes))
        }

        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
            for byte in out {
                self.0 = self.0.wrapping_add(1);
                *byte = self.0;
            }
            Ok(())
        }
    }

    impl rand_core::TryCryptoRng for Counter {}

    #[test]
    fn ten_distinct_codes_are_drawn() {
        let set = BackupCodes::random(&mut Counter(0));
        assert_eq!(set.codes.len(), BACKUP_CODE_COUNT);
        for (i, code) in set.codes.iter().enumerate() {
            assert_eq!(code.len(), BACKUP_CODE_CHARS);
            assert_eq!(normalize_backup_code(code), *code);
            assert!(!set.codes[..i].contains(code));
            assert_eq!(normalize_backup_code(&display_backup_code(code)), *code);
        }
        assert_eq!(display_backup_code("abc"), "abc");
    }

    #[test]
    fn secrets_stay_out_of_debug() {
        let set = BackupCodes::random(&mut Counter(0));
        let key = TotpKey::random(&mut Counter(0));
        let answer = MultiFactorResponse {
            credential_id: Bytes::new(),
            answer: FactorAnswer::Code("123456".into()),
        };
        assert_eq!(format!("{set:?} {key:?}"), "BackupCodes(..) TotpKey(..)");
        assert!(!format!("{answer:?}").contains("123456"));
    }

    #[test]
    fn totp_keys_have_two_parts_of_32_bytes() {
        let key = TotpKey::random(&mut Counter(0));
        assert_ne!(key.credential_id, key.key);
        assert_eq!(key.to_text().parse::<TotpKey>().as_ref(), Ok(&key));
        let text = key.to_text();
        for bad in [
            "",
            ":",
            &text[1..],
            &text.replace(':', ""),
            &text.to_lowercase(),
        ] {
            assert!(bad.parse::<TotpKey>().is_err(), "{bad}");
        }
        let (_, secret) = text.split_once(':').unwrap();
        assert_eq!(
            key.to_uri("alice"),
            format!("otpauth://totp/peergos:alice@peergos?secret={secret}&issuer=peergos")
        );
    }

    #[test]
    fn clients_announce_numbers() {
        use MethodKind as M;

        for (parameter, kinds) in [
            (None, vec![M::Totp, M::WebAuthn]),
            (
                Some("1,2,3,4"),
                vec![M::Totp, M::WebAuthn, M::BackupCodes, M::Mount],
            ),
            (Some("3,99,3"), vec![M::BackupCodes]),
        ] {
            assert_eq!(MethodKind::parse_list(parameter), Ok(kinds));
        }
        for bad in ["", "1,", "x", "1, 2"] {
            assert!(MethodKind::parse_list(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_ids_codes_and_lists_are_bounded() {
        assert!(FactorName::parse(&"x".repeat(32)).is_ok());
        assert!(FactorName::parse(&"x".repeat(33)).is_err());
        assert!(FactorName::parse(&"\u{1f600}".repeat(16)).is_ok());
        assert!(FactorName::parse(&"\u{1f600}".repeat(17)).is_err());
        let method = |id: usize| MultiFactorMethod {
            created_epoch_day: 0,
            is_enabled: true,
            credential_id: vec![0; id].into(),
            name: FactorName::default(),
            kind: MethodKind::Totp,
        };
        let read = |m: MultiFactorMethod| MultiFactorMethod::from_value(m.to_value());
        assert!(read(method(MAX_CREDENTIAL_ID_BYTES)).is_ok());
        assert!(read(method(MAX_CREDENTIAL_ID_BYTES + 1)).is_err());
        let list = |n: usize| MultiFactorMethods(vec![method(0); n]).to_value();
        assert!(MultiFactorMethods::from_value(list(MAX_METHODS)).is_ok());
        assert!(MultiFactorMethods::from_value(list(MAX_METHODS + 1)).is_err());
        let response = |length: usize| {
            MultiFactorResponse::from_value(
                MultiFactorResponse {
                    credential_id: Bytes::new(),
                    answer: FactorAnswer::Code("1".repeat(length)),
                }
                .to_value(),
            )
        };
        assert!(response(MAX_CODE_BYTES).is_ok());
        assert!(response(MAX_CODE_BYTES + 1).is_err());
    }
}
