//! Space, the node itself, sign-up policy (Spec: 06 §3, 09 §1, §2).

use bytes::Bytes;
use champ::{
    Cid,
    cbor::{self, Fields, Value},
};
use data_encoding::HEXLOWER;
use pki::keys::Owner;

use super::{Api, Repeat};
use crate::{error::ClientError, transport::ApiRequest};

/// Largest of these small replies.
const MAX_REPLY_BYTES: usize = 64 << 10;

/// Version of the node's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeVersion {
    /// `major.minor.patch` with an optional suffix.
    pub version: String,
    /// Build id, may be empty.
    pub build: String,
}

/// Which new accounts a node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signups {
    /// Free accounts are open.
    pub free: bool,
    /// Paid accounts are open.
    pub paid: bool,
}

impl Api {
    /// Returns the node's current server id.
    pub async fn id(&self) -> Result<Cid, ClientError> {
        const CALL: &str = "api/v0/id";
        let body = self
            .call(ApiRequest::new(CALL, MAX_REPLY_BYTES), Repeat::Safe)
            .await?;
        let malformed = || ClientError::malformed(CALL);
        let json: serde_json::Value = serde_json::from_slice(&body).map_err(|_| malformed())?;
        let id = json
            .get("ID")
            .and_then(|id| id.as_str())
            .ok_or_else(malformed)?;
        Cid::parse_peer_id(id).map_err(|_| malformed())
    }

    /// Returns the version of the node's program.
    pub async fn version(&self) -> Result<NodeVersion, ClientError> {
        const CALL: &str = "peergos/v0/admin/version";
        let mut fields = self.fields(CALL).await?;
        let mut text = |name| fields.required(name).and_then(|v| v.into_text(name));
        match (text("v"), text("s")) {
            (Ok(version), Ok(build)) => Ok(NodeVersion { version, build }),
            _ => Err(ClientError::malformed(CALL)),
        }
    }

    /// Returns which new accounts the node takes.
    pub async fn signups(&self) -> Result<Signups, ClientError> {
        const CALL: &str = "peergos/v0/admin/signups";
        let mut fields = self.fields(CALL).await?;
        match (fields.flag("f"), fields.flag("p")) {
            (Ok(free), Ok(paid)) => Ok(Signups { free, paid }),
            _ => Err(ClientError::malformed(CALL)),
        }
    }

    /// Returns the bytes in use; `auth` is a signed time by the identity.
    pub async fn usage(&self, owner: &Owner, auth: &[u8]) -> Result<u64, ClientError> {
        self.space_bytes("peergos/v0/storage/usage", owner, auth)
            .await
    }

    /// Returns the bytes allowed; `auth` is a signed time by the identity.
    pub async fn quota(&self, owner: &Owner, auth: &[u8]) -> Result<u64, ClientError> {
        self.space_bytes("peergos/v0/storage/quota", owner, auth)
            .await
    }

    async fn space_bytes(
        &self,
        call: &'static str,
        owner: &Owner,
        auth: &[u8],
    ) -> Result<u64, ClientError> {
        let request = ApiRequest::new(call, MAX_REPLY_BYTES)
            .with("owner", owner.to_string())
            .with("auth", HEXLOWER.encode(auth));
        let body = self.call(request, Repeat::Safe).await?;
        cbor_reply(call, &body)?
            .into_int("bytes")
            .ok()
            .and_then(|n| u64::try_from(n).ok())
            .ok_or(ClientError::malformed(call))
    }

    async fn fields(&self, call: &'static str) -> Result<Fields, ClientError> {
        let body = self
            .call(ApiRequest::new(call, MAX_REPLY_BYTES), Repeat::Safe)
            .await?;
        Fields::of(cbor_reply(call, &body)?, "reply").map_err(|_| ClientError::malformed(call))
    }
}

pub(super) fn cbor_reply(call: &'static str, body: &Bytes) -> Result<Value, ClientError> {
    cbor::decode(body).map_err(|_| ClientError::malformed(call))
}
