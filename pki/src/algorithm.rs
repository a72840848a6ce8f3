//! The record that says how a password becomes keys (Spec: 02 §8.1).
//!
//! Only the record and its bounds; the derivation is confidential and lives in `cryptree`. The record
//! comes from a server, so [`LoginAlgorithm::login_work`] must be asked before any work is done.

use champ::{
    cbor::{Fields, Map, Record, RecordError, Value},
    text,
};
use rand_core::CryptoRng;

/// Smallest log2 of the scrypt cost that readers accept at all.
pub const MIN_MEMORY_COST: u8 = 15;
/// Smallest log2 of the scrypt cost that a login accepts.
pub const MIN_LOGIN_MEMORY_COST: u8 = 17;
/// Largest log2 of the scrypt cost that a login is willing to do.
pub const MAX_LOGIN_MEMORY_COST: u8 = 22;
/// Largest scrypt block size (r) that a login is willing to do.
pub const MAX_LOGIN_BLOCK_SIZE: u32 = 16;
/// Largest scrypt parallelism (p) that a login is willing to do.
pub const MAX_LOGIN_PARALLELISM: u32 = 4;
/// Longest output that a login asks for.
pub const MAX_LOGIN_OUTPUT_BYTES: u32 = 128;
/// Output length that marks the layout of accounts whose identity key comes from the password.
pub const LEGACY_OUTPUT_BYTES: u32 = 96;
/// Output length of current accounts.
pub const CURRENT_OUTPUT_BYTES: u32 = 64;
/// Longest extra salt, in bytes; 64 are written.
pub const MAX_EXTRA_SALT_BYTES: usize = 1024;

const RANDOM: i64 = 0;
const SCRYPT: i64 = 1;

/// How the keys of an account are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginAlgorithm {
    /// Keys are random, not derived from a password.
    Random,
    /// Keys are derived with scrypt.
    Scrypt(Scrypt),
}

/// Parameters of one scrypt derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrypt {
    memory_cost: u8,
    block_size: u32,
    parallelism: u32,
    output_bytes: u32,
    extra_salt: Option<String>,
    /// Fields of later versions, kept when a root block is rewritten.
    unknown: Map,
}

/// A derivation nobody should agree to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// The account is not password derived.
    #[error("the account does not log in with a password")]
    NotDerived,
    /// So cheap that the password could be guessed: a server could have weakened it.
    #[error("password hashing parameters are too weak")]
    TooWeak,
    /// So dear that the record is an attack on this machine.
    #[error("password hashing parameters ask for too much work")]
    TooDear,
}

impl LoginAlgorithm {
    /// Makes the record of a new account, with a fresh extra salt of 64 hex digits.
    pub fn current(rng: &mut dyn CryptoRng) -> Self {
        Self::login(CURRENT_OUTPUT_BYTES, rng)
    }

    /// Makes the record of the legacy layout: only for the account named `peergos`, and for tests.
    pub fn legacy(rng: &mut dyn CryptoRng) -> Self {
        Self::login(LEGACY_OUTPUT_BYTES, rng)
    }

    /// Returns the fixed record of secret links; it is never transmitted.
    pub const fn secret_link() -> Self {
        Self::Scrypt(Scrypt {
            memory_cost: MIN_MEMORY_COST,
            block_size: 8,
            parallelism: 1,
            output_bytes: 32,
            extra_salt: Some(String::new()),
            unknown: Map::new(),
        })
    }

    fn login(output_bytes: u32, rng: &mut dyn CryptoRng) -> Self {
        let mut salt = [0; 32];
        rng.fill_bytes(&mut salt);
        Self::Scrypt(Scrypt {
            memory_cost: MIN_LOGIN_MEMORY_COST,
            block_size: 8,
            parallelism: 1,
            output_bytes,
            extra_salt: Some(text::to_hex(&salt)),
            unknown: Map::new(),
        })
    }

    /// Returns the parameters of a login if the work is neither suspiciously small nor excessive.
    ///
    /// # Errors
    /// Any [`WorkError`].
    pub fn login_work(&self) -> Result<&Scrypt, WorkError> {
        let Self::Scrypt(scrypt) = self else {
            return Err(WorkError::NotDerived);
        };
        if scrypt.memory_cost < MIN_LOGIN_MEMORY_COST {
            return Err(WorkError::TooWeak);
        }
        // Anything below 64 bytes would leave a key without material.
        if scrypt.output_bytes < CURRENT_OUTPUT_BYTES {
            return Err(WorkError::TooWeak);
        }
        if scrypt.memory_cost > MAX_LOGIN_MEMORY_COST
            || scrypt.block_size > MAX_LOGIN_BLOCK_SIZE
            || scrypt.parallelism > MAX_LOGIN_PARALLELISM
            || scrypt.output_bytes > MAX_LOGIN_OUTPUT_BYTES
        {
            return Err(WorkError::TooDear);
        }
        Ok(scrypt)
    }
}

impl Scrypt {
    /// Returns log2 of the cost N, at least [`MIN_MEMORY_COST`].
    pub const fn memory_cost(&self) -> u8 {
        self.memory_cost
    }

    /// Returns r, at least 1.
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Returns p, at least 1.
    pub const fn parallelism(&self) -> u32 {
        self.parallelism
    }

    /// Returns the output length in bytes, at least 1.
    pub const fn output_bytes(&self) -> u32 {
        self.output_bytes
    }

    /// Returns the extra salt; empty for old accounts.
    pub fn extra_salt(&self) -> &str {
        self.extra_salt.as_deref().unwrap_or_default()
    }

    /// Returns true when the identity key itself comes from the password (Spec: 02 §8.3).
    pub const fn is_legacy_layout(&self) -> bool {
        self.output_bytes == LEGACY_OUTPUT_BYTES
    }
}

impl Record for LoginAlgorithm {
    fn to_value(&self) -> Value {
        let Self::Scrypt(scrypt) = self else {
            return Value::Map(Map::from_iter([("type", RANDOM)]));
        };
        let mut map = scrypt.unknown.clone();
        map.insert("type", SCRYPT);
        map.insert("m", scrypt.memory_cost);
        map.insert("c", scrypt.block_size);
        map.insert("p", scrypt.parallelism);
        map.insert("o", scrypt.output_bytes);
        map.insert_some("s", scrypt.extra_salt.clone());
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "algorithm")?;
        match fields.required("type")?.into_int("type")? {
            RANDOM => return Ok(Self::Random),
            SCRYPT => {}
            _ => return Err(RecordError::OutOfRange { field: "type" }),
        }
        let memory_cost = u8::try_from(fields.required("m")?.into_int("m")?)
            .ok()
            .filter(|m| (MIN_MEMORY_COST..64).contains(m))
            .ok_or(RecordError::OutOfRange { field: "m" })?;
        let mut positive = |field| {
            u32::try_from(fields.required(field)?.into_int(field)?)
                .ok()
                .filter(|n| *n > 0)
                .ok_or(RecordError::OutOfRange { field })
        };
        let (block_size, parallelism, output_bytes) =
            (positive("c")?, positive("p")?, positive("o")?);
        let extra_salt = fields
            .optional("s")
            .map(|salt| salt.into_text("s"))
            .transpose()?;
        if let Some(salt) = &extra_salt
            && salt.len() > MAX_EXTRA_SALT_BYTES
        {
            return Err(RecordError::WrongLength {
                field: "s",
                actual: salt.len(),
            });
        }
        Ok(Self::Scrypt(Scrypt {
            memory_cost,
            block_size,
            parallelism,
            output_bytes,
            extra_salt,
            unknown: fields.rest(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(m: i64, c: i64, p: i64, o: i64) -> Result<LoginAlgorithm, RecordError> {
        let fields = [("m", m), ("c", c), ("p", p), ("o", o), ("type", SCRYPT)];
        LoginAlgorithm::from_value(Value::Map(Map::from_iter(fields)))
    }

    #[test]
    fn work_is_bounded_before_it_is_done() {
        let work = |m, c, p, o| record(m, c, p, o).unwrap().login_work().err();
        assert_eq!(work(17, 8, 1, 64), None);
        assert_eq!(work(22, 16, 4, 128), None);
        assert_eq!(work(16, 8, 1, 64), Some(WorkError::TooWeak));
        assert_eq!(work(17, 8, 1, 63), Some(WorkError::TooWeak));
        for (m, c, p, o) in [
            (23, 8, 1, 64),
            (17, 17, 1, 64),
            (17, 8, 5, 64),
            (17, 8, 1, 129),
            (63, i64::from(u32::MAX), 1, 64),
        ] {
            assert_eq!(work(m, c, p, o), Some(WorkError::TooDear));
        }
        let random = LoginAlgorithm::Random.login_work().err();
        assert_eq!(random, Some(WorkError::NotDerived));
    }

    #[test]
    fn parameters_outside_their_types_are_refused() {
        for (m, c, p, o) in [
            (14, 8, 1, 64),
            (64, 8, 1, 64),
            (-17, 8, 1, 64),
            (273, 8, 1, 64),
            (17, 0, 1, 64),
            (17, -8, 1, 64),
            (17, 8, 0, 64),
            (17, 8, 1, 0),
            (17, 1 << 32, 1, 64),
        ] {
            assert!(record(m, c, p, o).is_err(), "{m} {c} {p} {o}");
        }
    }

    #[test]
    fn unknown_fields_survive() {
        let LoginAlgorithm::Scrypt(mut scrypt) = LoginAlgorithm::secret_link() else {
            panic!("scrypt");
        };
        scrypt.unknown.insert("later", 1i64);
        let bytes = LoginAlgorithm::Scrypt(scrypt).encode();
        assert_eq!(LoginAlgorithm::decode(&bytes).unwrap().encode(), bytes);
    }
}
