//! Everything about a user that another node needs besides the blocks (Spec: 12 §6.1).

use champ::{
    access::BatWithId,
    cbor::{Fields, Map, Record, RecordError, Value},
};

use super::{
    body::record_body,
    link::LinkCounts,
    login_data::{LoginData, username_field},
    pointer_batch::PointerWrite,
    social::FollowRequest,
};
use crate::{
    keys::{Owner, Writer},
    username::Username,
};

/// Longest snapshot of one user, in bytes.
pub const MAX_SNAPSHOT_BYTES: usize = 8 << 20;

/// The state of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSnapshot {
    /// Name.
    pub username: Username,
    /// Identity key hash.
    pub owner: Owner,
    /// Signed pointers by writer; written in key order, read in any.
    pub pointers: Vec<PointerWrite>,
    /// Pending follow requests.
    pub follow_requests: Vec<FollowRequest>,
    /// Mirror tokens, newest last.
    pub mirror_bats: Vec<BatWithId>,
    /// Login data; absent for legacy accounts.
    pub login: Option<LoginData>,
    /// Retrievals of secret links.
    pub link_counts: LinkCounts,
}

impl Record for UserSnapshot {
    fn to_value(&self) -> Value {
        let mut pointers: Vec<_> = self.pointers.iter().collect();
        pointers.sort_by(|a, b| a.writer.cmp(&b.writer));
        let pointers: Vec<_> = pointers
            .into_iter()
            .flat_map(|p| [p.writer.to_value(), Value::Bytes(p.signed.clone())])
            .collect();
        let list = |values: Vec<Value>| Value::List(values);
        let mut map = Map::new();
        map.insert("n", self.username.as_str());
        map.insert("o", self.owner.to_value());
        map.insert("p", list(pointers));
        map.insert(
            "f",
            list(self.follow_requests.iter().map(Record::to_value).collect()),
        );
        map.insert(
            "b",
            list(self.mirror_bats.iter().map(Record::to_value).collect()),
        );
        map.insert_some("l", self.login.as_ref().map(Record::to_value));
        map.insert("lc", self.link_counts.to_value());
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "user snapshot")?;
        let pointers = fields.required("p")?.into_list("p")?;
        if pointers.len() % 2 != 0 {
            return Err(RecordError::OutOfRange { field: "p" });
        }
        let mut items = pointers.into_iter();
        let mut pointers = Vec::with_capacity(items.len() / 2);
        while let (Some(writer), Some(signed)) = (items.next(), items.next()) {
            pointers.push(PointerWrite {
                writer: Writer::from_value(writer)?,
                signed: signed.into_bytes("p")?,
            });
        }
        Ok(Self {
            username: username_field(fields.required("n")?, "n")?,
            owner: Owner::from_value(fields.required("o")?)?,
            pointers,
            follow_requests: records(fields.required("f")?, "f")?,
            mirror_bats: records(fields.required("b")?, "b")?,
            login: fields
                .optional("l")
                .map(LoginData::from_value)
                .transpose()?,
            link_counts: LinkCounts::from_value(fields.required("lc")?)?,
        })
    }
}

fn records<R: Record>(value: Value, field: &'static str) -> Result<Vec<R>, RecordError> {
    value
        .into_list(field)?
        .into_iter()
        .map(R::from_value)
        .collect()
}

record_body! {
    UserSnapshot: MAX_SNAPSHOT_BYTES, 1 << 20;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{PublicKeyHash, SecretSigningKey};

    fn key(seed: u8) -> PublicKeyHash {
        PublicKeyHash::of(&SecretSigningKey::from_seed(&[seed; 32]).public())
    }

    fn snapshot() -> UserSnapshot {
        let pointer = |seed| PointerWrite {
            signed: vec![seed].into(),
            writer: Writer(key(seed)),
        };
        UserSnapshot {
            username: Username::parse("alice").unwrap(),
            owner: Owner(key(1)),
            pointers: vec![pointer(1), pointer(2), pointer(3)],
            follow_requests: Vec::new(),
            mirror_bats: Vec::new(),
            login: None,
            link_counts: LinkCounts::default(),
        }
    }

    #[test]
    fn pointers_are_written_in_key_order_and_read_in_any() {
        let mut reversed = snapshot();
        reversed.pointers.reverse();
        assert_eq!(reversed.encode(), snapshot().encode());
        let read = UserSnapshot::decode(&reversed.encode()).unwrap();
        assert!(read.pointers.is_sorted_by_key(|p| p.writer.clone()));
        assert_eq!(read.encode(), snapshot().encode());
    }

    #[test]
    fn half_a_pointer_is_refused() {
        let Value::Map(mut map) = snapshot().to_value() else {
            unreachable!()
        };
        map.insert("p", vec![key(1).to_value()]);
        assert_eq!(
            UserSnapshot::from_value(Value::Map(map)),
            Err(RecordError::OutOfRange { field: "p" })
        );
    }
}
