//! Mirroring and migration of users (Spec: 10 §6, 12 §5 to §7).

use bytes::Bytes;
use champ::{
    Cid,
    access::BatWithId,
    cbor::{Record, RecordError, Value},
    data_stream::MAX_STRING_BYTES,
};

use super::{
    body::record_body,
    signup::{MAX_PROOF_BYTES, MAX_SPACE_REQUEST_BYTES},
    snapshot::UserSnapshot,
    stream::{FIXED, stream_body},
};
use crate::chain::ClaimChain;

/// Longest token item, in bytes; in `migrateUser` 128.
pub const MAX_BAT_BYTES: usize = 100;
/// Longest signed time item, in bytes.
pub const MAX_AUTH_BYTES: usize = 4096;
/// Longest chain in `migrateUser` that clients may send, in bytes: about 12 links.
pub const CLIENT_MIGRATION_CHAIN_BYTES: usize = 4096;
/// Longest chain in `migrateUser` that is read, in bytes.
pub const MAX_MIGRATION_CHAIN_BYTES: usize = 64 << 10;
/// Longest server id item, in bytes.
pub const MAX_SERVER_ID_BYTES: usize = 128;
/// Most snapshots in one page.
pub const SNAPSHOT_PAGE: usize = 10;
/// Longest page of snapshots, in bytes (Spec: 12, security checks).
pub const MAX_SNAPSHOTS_BYTES: usize = 8 << 20;
/// The time that stands for "everything", in epoch seconds: what official mirrors send at first, the first
/// second of the year -999999999. (Spec: 12 §6 names a number one year smaller; the recorded requests do
/// not.)
pub const FROM_THE_BEGINNING: i64 = -31_557_014_135_596_800;

/// The body of `mirror`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorRequest {
    /// Whose data shall be mirrored here.
    pub username: String,
    /// The mirror token.
    pub bat: BatWithId,
    /// Signed time by the identity key.
    pub auth: Bytes,
    /// Proof of work record.
    pub proof: Bytes,
}

/// The body of `startPaidMirror`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartPaidMirror {
    /// Whose data shall be mirrored here.
    pub username: String,
    /// Signed time by the identity key.
    pub auth: Bytes,
    /// Proof of work record over the name.
    pub proof: Bytes,
}

/// The body of `completePaidMirror`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletePaidMirror {
    /// Whose data shall be mirrored here.
    pub username: String,
    /// The mirror token.
    pub bat: BatWithId,
    /// Proof of work record.
    pub proof: Bytes,
    /// Space request signed by the identity.
    pub space_request: Bytes,
}

/// The body of `getUserSnapshots`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotsRequest {
    /// The last name already seen; empty at the start.
    pub cursor: String,
    /// The token of the whole node.
    pub instance_bat: BatWithId,
    /// Only link counts changed after this, in seconds since 1970.
    pub after_epoch_seconds: i64,
}

/// The reply of `getUserSnapshots`: at most [`SNAPSHOT_PAGE`] users, in byte order of names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserSnapshots(pub Vec<UserSnapshot>);

impl Record for UserSnapshots {
    fn to_value(&self) -> Value {
        Value::List(self.0.iter().map(Record::to_value).collect())
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let list = value.into_list("snapshots")?;
        if list.len() > SNAPSHOT_PAGE {
            return Err(RecordError::OutOfRange { field: "snapshots" });
        }
        list.into_iter()
            .map(UserSnapshot::from_value)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// The body of `migrateUser`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrateRequest {
    /// Who moves.
    pub username: String,
    /// The full new chain, naming the target.
    pub chain: ClaimChain,
    /// The server the user is at, as in the old claim.
    pub current_server: Cid,
    /// The mirror token, if the account has one.
    pub bat: Option<BatWithId>,
    /// Only link counts changed after this, in seconds since 1970.
    pub after_epoch_seconds: i64,
    /// The user's usage in bytes, as the client knows it.
    pub usage_bytes: i64,
    /// Publish the claim, or only hand out the state.
    pub commit: bool,
}

stream_body! {
    MirrorRequest: 16 << 10, {
        username: MAX_STRING_BYTES,
        bat: MAX_BAT_BYTES,
        auth: MAX_AUTH_BYTES,
        proof: MAX_PROOF_BYTES,
    }
    StartPaidMirror: 16 << 10, {
        username: MAX_STRING_BYTES,
        auth: MAX_AUTH_BYTES,
        proof: MAX_PROOF_BYTES,
    }
    CompletePaidMirror: MAX_SPACE_REQUEST_BYTES + (8 << 10), {
        username: MAX_STRING_BYTES,
        bat: MAX_BAT_BYTES,
        proof: MAX_PROOF_BYTES,
        space_request: MAX_SPACE_REQUEST_BYTES,
    }
    SnapshotsRequest: 8 << 10, {
        cursor: MAX_STRING_BYTES,
        instance_bat: MAX_BAT_BYTES,
        after_epoch_seconds: FIXED,
    }
    MigrateRequest: MAX_MIGRATION_CHAIN_BYTES + (8 << 10), {
        username: MAX_STRING_BYTES,
        chain: MAX_MIGRATION_CHAIN_BYTES,
        current_server: MAX_SERVER_ID_BYTES,
        bat: MAX_SERVER_ID_BYTES,
        after_epoch_seconds: FIXED,
        usage_bytes: FIXED,
        commit: FIXED,
    }
}

record_body! {
    UserSnapshots: MAX_SNAPSHOTS_BYTES, 1 << 20;
}

#[cfg(test)]
mod tests {
    use champ::{access::Bat, data_stream::Writer};

    use super::*;
    use crate::{
        claim::placeholder_provider,
        wire::{Body as _, WireError},
    };

    fn request() -> MigrateRequest {
        MigrateRequest {
            username: "alice".into(),
            chain: ClaimChain::default(),
            current_server: placeholder_provider(),
            bat: Some(Bat::from_secret([1; 32]).with_calculated_id()),
            after_epoch_seconds: FROM_THE_BEGINNING,
            usage_bytes: 5,
            commit: true,
        }
    }

    #[test]
    fn the_token_is_optional() {
        let without = MigrateRequest {
            bat: None,
            ..request()
        };
        for sent in [request(), without] {
            let body = sent.to_body();
            for end in 0..body.len() {
                let part = Bytes::copy_from_slice(&body[..end]);
                assert!(MigrateRequest::from_body(&part).is_err(), "{end}");
            }
            assert_eq!(MigrateRequest::from_body(&body.into()), Ok(sent));
        }
    }

    #[test]
    fn pages_and_items_are_limited() {
        let page = vec![Value::Null; SNAPSHOT_PAGE + 1];
        assert_eq!(
            UserSnapshots::from_value(Value::List(page)),
            Err(RecordError::OutOfRange { field: "snapshots" })
        );
        let stream = Writer::new()
            .string("")
            .bytes(&[0; MAX_BAT_BYTES + 1])
            .long(0);
        assert!(matches!(
            SnapshotsRequest::from_body(&stream.finish().into()),
            Err(WireError::Stream(_))
        ));
        let stream = Writer::new()
            .string("alice")
            .bytes(&[0x80])
            .bytes(&[0; MAX_SERVER_ID_BYTES + 1]);
        assert!(matches!(
            MigrateRequest::from_body(&stream.finish().into()),
            Err(WireError::Stream(_))
        ));
        let large = Bytes::from(vec![0; MigrateRequest::MAX_BYTES + 1]);
        assert!(matches!(
            MigrateRequest::from_body(&large),
            Err(WireError::TooLarge { .. })
        ));
    }
}
