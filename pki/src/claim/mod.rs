//! Claims: a signed statement that a key holds a name, until when, and where its data is (Spec: 10 §2.1).
//!
//! A [`Claim`] is what was received. Its outer elements repeat what is signed inside it; only
//! [`Claim::verify`] compares the two.

mod date;

pub use date::{Date, NotADate};

use bytes::Bytes;
use champ::{
    Cid, Codec, Multihash,
    cbor::{Record, RecordError, Value},
    data_stream::{DataStreamError, Reader, Writer},
};

use crate::{
    keys::{PublicSigningKey, SecretSigningKey, SignatureError},
    list::elements,
    username::{MAX_USERNAME_BYTES, Username},
};

/// Longest date in a signed payload, in bytes.
pub const MAX_DATE_BYTES: usize = 16;
/// Longest server id in a signed payload, in bytes.
pub const MAX_PROVIDER_BYTES: usize = 100;
/// Most storage providers one claim is read with; a valid claim has at most one.
pub const MAX_PROVIDERS: usize = 8;

/// Months from signing to expiry that official clients choose.
const VALIDITY_MONTHS: u32 = 2;

/// The bytes of a signature in front of the payload.
const SIGNATURE_BYTES: usize = 64;

/// A claim as received: nothing in it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The name, in whatever form it was sent.
    pub username: String,
    /// Until when. Advisory: plays no part in validity (Spec: 10 §9).
    pub expiry: Date,
    /// Server ids where the user's data is; exactly one in a live claim, none in a superseded one.
    pub providers: Vec<Cid>,
    /// Attached signature and payload.
    pub signed: Bytes,
}

/// Why a claim is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidClaim {
    /// The claim is for another name.
    #[error("claim is for another name")]
    OtherName,
    /// More than one storage provider.
    #[error("claim has {0} storage providers")]
    TooManyProviders(usize),
    /// The signature is not by the owner's key.
    #[error("claim signature does not verify")]
    Signature(#[source] SignatureError),
    /// The signed payload is malformed.
    #[error("claim payload is malformed")]
    Payload(#[source] DataStreamError),
    /// The signed payload says something else than the outer elements.
    #[error("claim payload differs from the claim")]
    Mismatch,
}

impl Claim {
    /// Signs a claim.
    ///
    /// # Errors
    /// [`DataStreamError::TooLong`] when a provider id is longer than readers accept.
    pub fn sign(
        username: &Username,
        expiry: Date,
        providers: Vec<Cid>,
        identity: &SecretSigningKey,
    ) -> Result<Self, DataStreamError> {
        let count = i32::try_from(providers.len()).map_err(|_| DataStreamError::TooLong {
            actual: providers.len(),
            max: MAX_PROVIDERS,
        })?;
        let mut payload = Writer::new()
            .string(username.as_str())
            .string(&expiry.to_string())
            .int(count);
        for provider in &providers {
            let id = provider.to_bytes();
            if id.len() > MAX_PROVIDER_BYTES {
                return Err(DataStreamError::TooLong {
                    actual: id.len(),
                    max: MAX_PROVIDER_BYTES,
                });
            }
            payload = payload.bytes(&id);
        }
        Ok(Self {
            username: username.as_str().to_owned(),
            expiry,
            providers,
            signed: identity.sign_attached(&payload.finish()).into(),
        })
    }

    /// Checks the claim for `name` under `owner`.
    ///
    /// Bytes after the last payload item are tolerated; the expiry is not looked at.
    ///
    /// # Errors
    /// [`InvalidClaim`].
    pub fn verify(&self, name: &Username, owner: &PublicSigningKey) -> Result<(), InvalidClaim> {
        if self.username != name.as_str() {
            return Err(InvalidClaim::OtherName);
        }
        if self.providers.len() > 1 {
            return Err(InvalidClaim::TooManyProviders(self.providers.len()));
        }
        let payload = owner
            .verify_attached(&self.signed)
            .map_err(InvalidClaim::Signature)?;
        if self.says_the_same(payload).map_err(InvalidClaim::Payload)? {
            Ok(())
        } else {
            Err(InvalidClaim::Mismatch)
        }
    }

    fn says_the_same(&self, payload: &[u8]) -> Result<bool, DataStreamError> {
        let mut reader = Reader::new(payload);
        let same_name = reader.string(MAX_USERNAME_BYTES)? == self.username;
        let date = reader.string(MAX_DATE_BYTES)?.parse::<Date>();
        let count = reader.int()?;
        if !same_name
            || date != Ok(self.expiry)
            || usize::try_from(count) != Ok(self.providers.len())
        {
            return Ok(false);
        }
        for provider in &self.providers {
            if reader.bytes(MAX_PROVIDER_BYTES)? != provider.to_bytes() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the signed payload; unverified.
    pub fn payload(&self) -> &[u8] {
        self.signed.get(SIGNATURE_BYTES..).unwrap_or_default()
    }
}

impl Record for Claim {
    fn to_value(&self) -> Value {
        let providers: Vec<_> = self
            .providers
            .iter()
            .map(|id| Value::from(id.to_bytes()))
            .collect();
        Value::List(vec![
            Value::from(self.username.as_str()),
            Value::from(self.expiry.to_string()),
            Value::from(providers),
            Value::Bytes(self.signed.clone()),
        ])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let [username, expiry, providers, signed] = elements(value, "claim")?;
        let providers = providers.into_list("providers")?;
        if providers.len() > MAX_PROVIDERS {
            return Err(RecordError::OutOfRange { field: "providers" });
        }
        Ok(Self {
            username: username.into_text("username")?,
            expiry: expiry
                .into_text("expiry")?
                .parse()
                .map_err(|_| RecordError::OutOfRange { field: "expiry" })?,
            providers: providers
                .into_iter()
                .map(|id| id.into_cid_bytes("provider"))
                .collect::<Result<_, _>>()?,
            signed: signed.into_bytes("signed")?,
        })
    }
}

/// Returns the expiry of a claim signed now: today in UTC and two calendar months.
pub fn default_expiry(now_epoch_seconds: i64) -> Date {
    Date::from_unix_seconds(now_epoch_seconds).plus_months(VALIDITY_MONTHS)
}

/// Returns true when a claim should be renewed: it expires in less than a month (Spec: 10 §4).
pub fn is_due_for_renewal(expiry: Date, now_epoch_seconds: i64) -> bool {
    expiry < Date::from_unix_seconds(now_epoch_seconds).plus_months(1)
}

/// Returns the provider id that means "the server that is asked" (Spec: 10 §2.1).
///
/// Left behind by clients that signed up through a plain gateway; refused in new claims.
pub const fn placeholder_provider() -> Cid {
    Cid::v1(Codec::Libp2pKey, Multihash::from_sha2_256([0; 32]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> SecretSigningKey {
        SecretSigningKey::from_seed(&[1; 32])
    }

    fn name() -> Username {
        Username::parse("alice").unwrap()
    }

    fn claim() -> Claim {
        let expiry = "2030-01-31".parse().unwrap();
        Claim::sign(&name(), expiry, vec![placeholder_provider()], &identity()).unwrap()
    }

    fn signed(payload: Writer) -> Claim {
        Claim {
            signed: identity().sign_attached(&payload.finish()).into(),
            ..claim()
        }
    }

    fn check(claim: &Claim) -> Result<(), InvalidClaim> {
        claim.verify(&name(), &identity().public())
    }

    #[test]
    fn a_claim_verifies_under_its_key_only() {
        assert_eq!(check(&claim()), Ok(()));
        let other = SecretSigningKey::from_seed(&[2; 32]).public();
        assert!(matches!(
            claim().verify(&name(), &other),
            Err(InvalidClaim::Signature(_))
        ));
        let bob = Username::parse("bob").unwrap();
        assert_eq!(
            claim().verify(&bob, &identity().public()),
            Err(InvalidClaim::OtherName)
        );
        let short = Claim {
            signed: Bytes::from_static(&[0; 63]),
            ..claim()
        };
        assert!(matches!(check(&short), Err(InvalidClaim::Signature(_))));
    }

    #[test]
    fn outer_elements_must_repeat_the_payload() {
        let later = Claim {
            expiry: Date::NEVER,
            ..claim()
        };
        assert_eq!(check(&later), Err(InvalidClaim::Mismatch));
        let moved = Claim {
            providers: vec![Cid::of_raw(b"elsewhere")],
            ..claim()
        };
        assert_eq!(check(&moved), Err(InvalidClaim::Mismatch));
        let none = Claim {
            providers: Vec::new(),
            ..claim()
        };
        assert_eq!(check(&none), Err(InvalidClaim::Mismatch));
    }

    #[test]
    fn payload_items_are_limited() {
        let id = placeholder_provider().to_bytes();
        let payload = |name: &str, date: &str, id: &[u8]| {
            Writer::new().string(name).string(date).int(1).bytes(id)
        };
        assert_eq!(check(&signed(payload("alice", "2030-01-31", &id))), Ok(()));
        for long in [
            payload(&"x".repeat(65), "2030-01-31", &id),
            payload("alice", "+999999999-12-310", &id),
            payload("alice", "2030-01-31", &[0; 101]),
        ] {
            assert!(matches!(
                check(&signed(long)),
                Err(InvalidClaim::Payload(DataStreamError::TooLong { .. }))
            ));
        }
        assert!(matches!(
            check(&signed(Writer::new().string("alice"))),
            Err(InvalidClaim::Payload(DataStreamError::Truncated))
        ));
        let negative = Writer::new().string("alice").string("2030-01-31").int(-1);
        assert_eq!(check(&signed(negative)), Err(InvalidClaim::Mismatch));
    }

    #[test]
    fn bytes_after_the_payload_are_tolerated() {
        let id = placeholder_provider().to_bytes();
        let payload = Writer::new().string("alice").string("2030-01-31").int(1);
        assert_eq!(check(&signed(payload.bytes(&id).int(7))), Ok(()));
    }

    #[test]
    fn provider_lists_are_bounded() {
        let many = Claim {
            providers: vec![placeholder_provider(); MAX_PROVIDERS + 1],
            ..claim()
        };
        assert!(Claim::decode(&many.encode()).is_err());
    }

    #[test]
    fn expiry_follows_the_clock_handed_in() {
        // 2026-11-21
        let now = 1_795_219_200;
        assert_eq!(default_expiry(now), "2027-01-21".parse().unwrap());
        assert!(is_due_for_renewal("2026-12-20".parse().unwrap(), now));
        assert!(!is_due_for_renewal("2026-12-21".parse().unwrap(), now));
        assert!(is_due_for_renewal("2019-01-01".parse().unwrap(), now));
        assert!(!is_due_for_renewal(Date::NEVER, now));
    }

    #[test]
    fn the_placeholder_has_its_known_text() {
        assert_eq!(
            placeholder_provider().to_string(),
            "zdvgq1QytJnbSZiAGiduxkd7hnhdnpHqBSfYGiCyG1YQjLEij"
        );
    }
}
