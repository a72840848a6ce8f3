//! Space: requests for more of it, and what it costs (Spec: 09 §1).

use std::fmt;

use bytes::Bytes;
use champ::cbor::{Fields, Map, Record, RecordError, Value};

use super::{body::record_body, login_data::username_field};
use crate::username::Username;

/// Longest payment proof in a space request, in bytes.
pub const MAX_PAYMENT_PROOF_BYTES: usize = 4096;
/// Largest amount of space that can be asked for, in bytes (Spec: 09 §1.1).
pub const MAX_SPACE_BYTES: i64 = 1 << 53;
/// Space of an account that is being deleted; at most this much means "not paid" (Spec: 09 §3).
pub const DELETION_QUOTA_BYTES: i64 = 1_000_000;
/// Longest payment properties that are read.
pub const MAX_PAYMENT_PROPERTIES_BYTES: usize = 64 << 10;
/// Most requests in the reply of `pending`.
pub const MAX_PENDING_REQUESTS: usize = 100_000;

/// Space a user asks for. Travels as an attached signature by the identity key over this record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceRequest {
    /// Who asks.
    pub username: Username,
    /// Wanted total quota in bytes, 0 to [`MAX_SPACE_BYTES`].
    pub quota_bytes: i64,
    /// Pay per year.
    pub is_annual: bool,
    /// When, in UTC milliseconds since 1970.
    pub epoch_millis: i64,
    /// Proof of payment, at most [`MAX_PAYMENT_PROOF_BYTES`].
    pub payment_proof: Option<Bytes>,
}

impl Record for SpaceRequest {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("a", self.is_annual);
        map.insert_some("p", self.payment_proof.clone());
        map.insert("s", self.quota_bytes);
        map.insert("t", self.epoch_millis);
        map.insert("u", self.username.as_str());
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "space request")?;
        let quota_bytes = fields.required("s")?.into_int("s")?;
        if !(0..=MAX_SPACE_BYTES).contains(&quota_bytes) {
            return Err(RecordError::OutOfRange { field: "s" });
        }
        let payment_proof = fields
            .optional("p")
            .map(|value| value.into_bytes("p"))
            .transpose()?;
        if let Some(proof) = &payment_proof
            && proof.len() > MAX_PAYMENT_PROOF_BYTES
        {
            return Err(RecordError::WrongLength {
                field: "p",
                actual: proof.len(),
            });
        }
        Ok(Self {
            username: username_field(fields.required("u")?, "u")?,
            quota_bytes,
            is_annual: fields.flag("a")?,
            epoch_millis: fields.required("t")?.into_int("t")?,
            payment_proof,
        })
    }
}

/// A pending request as an administrator sees it, and what an approval signs: `{"r", "u"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledSpaceRequest {
    /// The signed space request, exactly as sent.
    pub signed: Bytes,
    /// Who asked.
    pub username: Username,
}

impl Record for LabelledSpaceRequest {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("r", self.signed.clone());
        map.insert("u", self.username.as_str());
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "labelled space request")?;
        Ok(Self {
            signed: fields.required("r")?.into_bytes("r")?,
            username: username_field(fields.required("u")?, "u")?,
        })
    }
}

/// The reply of `pending`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PendingSpaceRequests(pub Vec<LabelledSpaceRequest>);

impl Record for PendingSpaceRequests {
    fn to_value(&self) -> Value {
        Value::List(self.0.iter().map(Record::to_value).collect())
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        value
            .into_list("pending")?
            .into_iter()
            .map(LabelledSpaceRequest::from_value)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// What a user has, wanted and pays.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PaymentProperties {
    /// Payment failed: text for the user.
    pub error: Option<String>,
    /// Payment page; only on paid nodes.
    pub url: Option<String>,
    /// Paid per year.
    pub is_annual: bool,
    /// End of the paid period, in seconds since 1970.
    pub expiry_epoch_seconds: Option<i64>,
    /// Bytes the user has without paying.
    pub free_quota_bytes: i64,
    /// Amount of the next charge, in cents.
    pub next_charge_cents: i64,
    /// Bytes the user asked for.
    pub desired_quota_bytes: i64,
    /// Secret of the payment page.
    pub client_secret: Option<String>,
}

impl PaymentProperties {
    /// The answer of a node without payment.
    pub fn free(quota_bytes: i64) -> Self {
        Self {
            free_quota_bytes: quota_bytes,
            ..Self::default()
        }
    }
}

impl fmt::Debug for PaymentProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaymentProperties")
            .field("error", &self.error)
            .field("url", &self.url)
            .field("free_quota_bytes", &self.free_quota_bytes)
            .field("desired_quota_bytes", &self.desired_quota_bytes)
            .finish_non_exhaustive()
    }
}

impl Record for PaymentProperties {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert_some("err", self.error.as_deref());
        map.insert_some("url", self.url.as_deref());
        map.insert("annual", self.is_annual);
        map.insert_some("expiry", self.expiry_epoch_seconds);
        map.insert("freeQuota", self.free_quota_bytes);
        map.insert("nextCharge", self.next_charge_cents);
        map.insert("desiredQuota", self.desired_quota_bytes);
        map.insert_some("client_secret", self.client_secret.as_deref());
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "payment properties")?;
        let mut text = |field: &'static str| {
            fields
                .optional(field)
                .map(|value| value.into_text(field))
                .transpose()
        };
        let (error, url, client_secret) = (text("err")?, text("url")?, text("client_secret")?);
        Ok(Self {
            error,
            url,
            client_secret,
            is_annual: fields.flag("annual")?,
            expiry_epoch_seconds: fields
                .optional("expiry")
                .map(|value| value.into_int("expiry"))
                .transpose()?,
            free_quota_bytes: fields.required("freeQuota")?.into_int("freeQuota")?,
            next_charge_cents: fields
                .optional("nextCharge")
                .map_or(Ok(0), |value| value.into_int("nextCharge"))?,
            desired_quota_bytes: fields.required("desiredQuota")?.into_int("desiredQuota")?,
        })
    }
}

record_body! {
    PaymentProperties: MAX_PAYMENT_PROPERTIES_BYTES, 256;
    PendingSpaceRequests: 64 << 20, 5 * MAX_PENDING_REQUESTS + 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> SpaceRequest {
        SpaceRequest {
            username: Username::parse("alice").unwrap(),
            quota_bytes: 1,
            is_annual: false,
            epoch_millis: 2,
            payment_proof: None,
        }
    }

    fn with(field: &str, value: Value) -> Result<SpaceRequest, RecordError> {
        let Value::Map(mut map) = request().to_value() else {
            unreachable!()
        };
        map.insert(field, value);
        SpaceRequest::from_value(Value::Map(map))
    }

    #[test]
    fn space_is_bounded() {
        for bytes in [0, MAX_SPACE_BYTES] {
            assert_eq!(with("s", Value::Int(bytes)).unwrap().quota_bytes, bytes);
        }
        for bytes in [-1, MAX_SPACE_BYTES + 1, i64::MIN, i64::MAX] {
            assert_eq!(
                with("s", Value::Int(bytes)),
                Err(RecordError::OutOfRange { field: "s" })
            );
        }
        let proof = |length: usize| with("p", Value::from(vec![0; length]));
        assert!(proof(MAX_PAYMENT_PROOF_BYTES).is_ok());
        assert!(proof(MAX_PAYMENT_PROOF_BYTES + 1).is_err());
        assert!(with("u", Value::from("al ice")).is_err());
    }

    #[test]
    fn defaults_of_readers() {
        let Value::Map(mut map) = request().to_value() else {
            unreachable!()
        };
        map.remove("a");
        assert_eq!(SpaceRequest::from_value(Value::Map(map)), Ok(request()));
        let Value::Map(mut map) = PaymentProperties::free(5).to_value() else {
            unreachable!()
        };
        map.remove("annual");
        map.remove("nextCharge");
        assert_eq!(
            PaymentProperties::from_value(Value::Map(map.clone())),
            Ok(PaymentProperties::free(5))
        );
        map.remove("freeQuota");
        assert_eq!(
            PaymentProperties::from_value(Value::Map(map)),
            Err(RecordError::Missing("freeQuota"))
        );
    }
}
