//! Signed times and signed requests: authority for one call, bounded in time (Spec: 02 §3.2, 08, 09).
//!
//! Signatures carry no domain separation, so the signed message must be exactly the canonical encoding of
//! the expected record; anything else a key may have signed is refused.

use std::time::{Duration, SystemTime};

use champ::cbor::{Fields, Map, Record, RecordError, Value};

use crate::keys::{PublicSigningKey, SecretSigningKey, SignatureError};

/// Why a signed time or request gives no authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorizationError {
    /// The signature is not by the key.
    #[error("authorization is not signed by the expected key")]
    Signature(#[from] SignatureError),
    /// The signed message is not the expected record.
    #[error("authorization holds another record")]
    Malformed,
    /// Further from now than the endpoint's window, either way.
    #[error("authorization is {age_millis} ms old")]
    Stale {
        /// Age in milliseconds; negative for a time in the future.
        age_millis: i64,
    },
    /// Made for another call.
    #[error("authorization is for `{path}`")]
    Path {
        /// The path that was signed.
        path: String,
    },
}

impl AuthorizationError {
    /// Returns the text existing clients know; signature failures have none of their own.
    ///
    /// Spec: 08 §3 item 7, 09 head.
    pub fn wire_text(&self) -> String {
        match self {
            Self::Signature(_) => "Invalid signature!".to_owned(),
            Self::Malformed => "Invalid cbor for time in authorisation!".to_owned(),
            Self::Stale { .. } => "Stale auth time, is your clock accurate?".to_owned(),
            Self::Path { path } => format!("Illegal path for signed request: {path}"),
        }
    }
}

/// A moment in milliseconds since 1970 UTC: the record inside a signed time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SignedTime {
    /// Milliseconds since 1970 UTC.
    pub epoch_millis: i64,
}

impl SignedTime {
    /// Takes the moment from a clock; moments that do not fit 64 bits saturate.
    pub fn at(now: SystemTime) -> Self {
        let epoch_millis = match now.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis)
            }
        };
        Self { epoch_millis }
    }

    /// Returns the attached signature of the moment.
    pub fn sign(&self, key: &SecretSigningKey) -> Vec<u8> {
        key.sign_attached(&self.encode())
    }

    /// Verifies an attached signature and the age, at most `window` either way.
    ///
    /// # Errors
    /// [`AuthorizationError::Signature`], [`AuthorizationError::Malformed`],
    /// [`AuthorizationError::Stale`], tested in this order.
    pub fn verify(
        signed: &[u8],
        key: &PublicSigningKey,
        now: SystemTime,
        window: Duration,
    ) -> Result<Self, AuthorizationError> {
        let time: Self = open(signed, key)?;
        time.check_age(now, window)?;
        Ok(time)
    }

    /// Checks the age alone: at most `window` either way, bounds included.
    ///
    /// # Errors
    /// [`AuthorizationError::Stale`].
    pub fn check_age(&self, now: SystemTime, window: Duration) -> Result<(), AuthorizationError> {
        let age_millis = Self::at(now).epoch_millis.saturating_sub(self.epoch_millis);
        if u128::from(age_millis.unsigned_abs()) > window.as_millis() {
            return Err(AuthorizationError::Stale { age_millis });
        }
        Ok(())
    }
}

impl Record for SignedTime {
    fn to_value(&self) -> Value {
        Value::Int(self.epoch_millis)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        value
            .into_int("signed time")
            .map(|epoch_millis| Self { epoch_millis })
    }
}

/// A call a key allows, at a moment: `{"p": path, "t": milliseconds}`.
///
/// Only path and time are signed, so within its window it is good for every parameter of that call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRequest {
    /// The call's path without leading slash, `peergos/v0/login/listMfa`.
    pub path: String,
    /// When it was made.
    pub time: SignedTime,
}

impl SignedRequest {
    /// Returns the attached signature of the request.
    pub fn sign(&self, key: &SecretSigningKey) -> Vec<u8> {
        key.sign_attached(&self.encode())
    }

    /// Verifies an attached signature, the age (at most `window` either way) and the path.
    ///
    /// # Errors
    /// Any [`AuthorizationError`], tested in the order of its variants.
    pub fn verify(
        signed: &[u8],
        key: &PublicSigningKey,
        path: &str,
        now: SystemTime,
        window: Duration,
    ) -> Result<Self, AuthorizationError> {
        let request: Self = open(signed, key)?;
        request.time.check_age(now, window)?;
        if request.path != path {
            return Err(AuthorizationError::Path { path: request.path });
        }
        Ok(request)
    }
}

impl Record for SignedRequest {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([
            ("p", Value::from(self.path.as_str())),
            ("t", self.time.to_value()),
        ]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "signed request")?;
        Ok(Self {
            path: fields.required("p")?.into_text("p")?,
            time: SignedTime::from_value(fields.required("t")?)?,
        })
    }
}

/// Verifies and decodes; the message must be the canonical encoding of exactly this record.
fn open<T: Record>(signed: &[u8], key: &PublicSigningKey) -> Result<T, AuthorizationError> {
    let message = key.verify_attached(signed)?;
    let record = T::decode(message).map_err(|_| AuthorizationError::Malformed)?;
    if record.encode() == message {
        Ok(record)
    } else {
        Err(AuthorizationError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);

    fn moment(epoch_millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(epoch_millis)
    }

    fn key() -> SecretSigningKey {
        SecretSigningKey::from_seed(&[7; 32])
    }

    #[test]
    fn failures_are_reported_in_order_and_with_the_known_texts() {
        let now = moment(2_000_000_000_000);
        let signed = |path: &str, epoch_millis| {
            let time = SignedTime { epoch_millis };
            let path = path.to_owned();
            SignedRequest { path, time }.sign(&key())
        };
        let verify = |signed: &[u8]| {
            SignedRequest::verify(signed, &key().public(), "a/b", now, WINDOW)
                .map_err(|error| error.wire_text())
        };
        assert!(verify(&signed("a/b", 2_000_000_300_000)).is_ok());
        assert_eq!(
            verify(&signed("a/c", 1)).unwrap_err(),
            "Stale auth time, is your clock accurate?"
        );
        assert_eq!(
            verify(&signed("a/c", 2_000_000_000_000)).unwrap_err(),
            "Illegal path for signed request: a/c"
        );
        assert_eq!(
            verify(&SignedTime { epoch_millis: 1 }.sign(&key())).unwrap_err(),
            "Invalid cbor for time in authorisation!"
        );
        let other = SecretSigningKey::from_seed(&[8; 32]);
        let request = SignedRequest {
            path: "a/b".to_owned(),
            time: SignedTime::at(now),
        };
        assert_eq!(
            verify(&request.sign(&other)).unwrap_err(),
            "Invalid signature!"
        );
    }

    #[test]
    fn any_other_signed_record_is_refused() {
        let now = moment(5_000);
        for message in [
            "",         // nothing
            "1900ff",   // a head that is not shortest
            "0505",     // two items
            "8105",     // a list
            "a1617405", // a map
            "f6", "4105",
        ] {
            let message = champ::text::from_hex(message).unwrap();
            let signed = key().sign_attached(&message);
            assert_eq!(
                SignedTime::verify(&signed, &key().public(), now, WINDOW),
                Err(AuthorizationError::Malformed)
            );
        }
        // Keys out of order, and a key that does not belong.
        for message in [
            "a26174056170616d",
            "a361700061740561780a",
            "a3617060617405617801",
        ] {
            let message = champ::text::from_hex(message).unwrap();
            let signed = key().sign_attached(&message);
            assert_eq!(
                SignedRequest::verify(&signed, &key().public(), "", now, WINDOW),
                Err(AuthorizationError::Malformed)
            );
        }
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        for epoch_millis in [i64::MIN, i64::MAX, -1] {
            let signed = SignedTime { epoch_millis }.sign(&key());
            let result = SignedTime::verify(&signed, &key().public(), moment(u64::MAX / 4), WINDOW);
            assert!(matches!(result, Err(AuthorizationError::Stale { .. })));
        }
        let before = SystemTime::UNIX_EPOCH - Duration::from_millis(5);
        assert_eq!(SignedTime::at(before).epoch_millis, -5);
    }
}
