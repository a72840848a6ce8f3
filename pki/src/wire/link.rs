//! Secret links: what the server keeps and hands out (Spec: 04 §6, 06 §7).

use std::{fmt, num::NonZeroU32, str::FromStr};

use champ::{
    access::BatWithId,
    cbor::{Fields, Map, Record, RecordError, Value},
};
use sha2::{Digest, Sha256};

use super::{
    WireError,
    body::record_body,
    login_data::OpaqueCipherText,
    query::{Query, QueryError},
};

/// Longest encrypted capability that is read; real ones have a few hundred bytes.
pub const MAX_ENCRYPTED_CAPABILITY_BYTES: usize = 64 << 10;
/// Most links in one reply of `link/counts`.
pub const MAX_LINK_COUNTS: usize = 100_000;

/// The label of a secret link: 1 to 2^32 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkLabel(NonZeroU32);

/// Text or a number that is not a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// Zero or negative.
    #[error("Link labels must be positive!")]
    NotPositive,
    /// Above 2^32 - 1, or no number at all.
    #[error("malformed link label")]
    Malformed,
}

impl LinkLabel {
    /// Makes a label; none for zero, which has to be drawn again.
    pub fn new(label: u32) -> Option<Self> {
        NonZeroU32::new(label).map(Self)
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// Returns the key in the link champ: SHA-256 of the label as 8 bytes, little endian.
    pub fn champ_key(self) -> [u8; 32] {
        Sha256::digest(u64::from(self.get()).to_le_bytes()).into()
    }
}

impl TryFrom<i64> for LinkLabel {
    type Error = LabelError;

    fn try_from(label: i64) -> Result<Self, LabelError> {
        if label <= 0 {
            return Err(LabelError::NotPositive);
        }
        u32::try_from(label)
            .ok()
            .and_then(Self::new)
            .ok_or(LabelError::Malformed)
    }
}

impl FromStr for LinkLabel {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        text.parse::<i64>()
            .map_err(|_| LabelError::Malformed)?
            .try_into()
    }
}

impl fmt::Display for LinkLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The reply of `link/get`: a capability that only the link's password opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptedCapability {
    /// The absolute capability, under the link key.
    pub cipher_text: OpaqueCipherText,
    /// A user password is needed besides the one in the link.
    pub needs_password: bool,
}

impl Record for EncryptedCapability {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("c", self.cipher_text.to_value());
        // Left out when false.
        map.insert_some("p", self.needs_password.then_some(true));
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "encrypted capability")?;
        Ok(Self {
            cipher_text: OpaqueCipherText::from_value(fields.required("c")?)?,
            needs_password: fields.flag("p")?,
        })
    }
}

/// The block a label leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretLinkTarget {
    /// What the link hands out.
    pub capability: EncryptedCapability,
    /// Last moment, in UTC seconds since 1970.
    pub expiry_epoch_seconds: Option<i64>,
    /// Most retrievals.
    pub max_retrievals: Option<i64>,
}

impl Record for SecretLinkTarget {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("cap", self.capability.to_value());
        map.insert_some("max", self.max_retrievals);
        map.insert_some("expiry", self.expiry_epoch_seconds);
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "secret link target")?;
        let capability = EncryptedCapability::from_value(fields.required("cap")?)?;
        let mut int = |field: &'static str| {
            fields
                .optional(field)
                .map(|value| value.into_int(field))
                .transpose()
        };
        Ok(Self {
            capability,
            expiry_epoch_seconds: int("expiry")?,
            max_retrievals: int("max")?,
        })
    }
}

/// How often a link was retrieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkCount {
    /// Which link.
    pub label: i64,
    /// Retrievals so far.
    pub count: i64,
    /// Time of the last one, in UTC seconds since 1970.
    pub modified_epoch_seconds: i64,
}

/// Retrievals of a user's links.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkCounts(pub Vec<LinkCount>);

impl Record for LinkCounts {
    fn to_value(&self) -> Value {
        let numbers: Vec<_> = self
            .0
            .iter()
            .flat_map(|c| [c.label, c.count, c.modified_epoch_seconds])
            .map(Value::Int)
            .collect();
        Value::Map(Map::from_iter([("d", numbers)]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let numbers = Fields::of(value, "link counts")?
            .required("d")?
            .into_list("d")?;
        if numbers.len() % 3 != 0 || numbers.len() / 3 > MAX_LINK_COUNTS {
            return Err(RecordError::OutOfRange { field: "d" });
        }
        let mut numbers = numbers.into_iter().map(|n| n.into_int("d"));
        let mut counts = Vec::with_capacity(numbers.len() / 3);
        while let (Some(label), Some(count), Some(modified)) =
            (numbers.next(), numbers.next(), numbers.next())
        {
            counts.push(LinkCount {
                label: label?,
                count: count?,
                modified_epoch_seconds: modified?,
            });
        }
        Ok(Self(counts))
    }
}

/// The parameters of `link/counts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkCountsQuery {
    /// Only links retrieved after this, in seconds since 1970.
    pub after_epoch_seconds: i64,
    /// The user's newest mirror token.
    pub bat: BatWithId,
    /// User name, although the parameter is called `owner`.
    pub owner: String,
}

impl LinkCountsQuery {
    /// Reads the parameters; also `after=<n>?bat=...`, as official clients write them.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn from_query(query: &Query<'_>) -> Result<Self, QueryError> {
        let after = query.required("after")?;
        let (after, bat) = match after.split_once("?bat=") {
            Some((after, bat)) => (after, bat),
            None => (after, query.required("bat")?),
        };
        Ok(Self {
            after_epoch_seconds: after.parse().map_err(|_| QueryError::Malformed("after"))?,
            bat: BatWithId::parse(bat).map_err(|_| QueryError::Malformed("bat"))?,
            owner: query.required("owner")?.to_owned(),
        })
    }
}

impl From<LabelError> for WireError {
    fn from(_: LabelError) -> Self {
        Self::Text("link label")
    }
}

record_body! {
    EncryptedCapability: MAX_ENCRYPTED_CAPABILITY_BYTES, 64;
    LinkCounts: 4 << 20, 3 * MAX_LINK_COUNTS + 64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_positive_and_below_two_to_the_32() {
        assert_eq!("4294967295".parse(), Ok(LinkLabel::new(u32::MAX).unwrap()));
        for (text, error) in [
            ("0", LabelError::NotPositive),
            ("-1", LabelError::NotPositive),
            ("4294967296", LabelError::Malformed),
            ("9223372036854775808", LabelError::Malformed),
            ("", LabelError::Malformed),
            ("1x", LabelError::Malformed),
        ] {
            assert_eq!(text.parse::<LinkLabel>(), Err(error), "{text}");
        }
        assert!(LinkLabel::new(0).is_none());
    }

    #[test]
    fn counts_come_in_threes() {
        for (numbers, legal) in [(0, true), (1, false), (2, false), (3, true), (4, false)] {
            let list = vec![Value::Int(1); numbers];
            let value = Value::Map(Map::from_iter([("d", list)]));
            assert_eq!(LinkCounts::from_value(value).is_ok(), legal, "{numbers}");
        }
    }
}
