//! Where an account lives: permitting copies, moving, taking a copy for the home (Spec: 10 §6, 12 §5 to §7); and by which
//! ids that node goes (Spec: 11 §1).

use champ::{Multihash, cbor::Record as _, text::to_base58};
use data_encoding::HEXLOWER;
use pki::wire::{
    Body as _,
    login_data::LoginData,
    mirror::{MigrateRequest, MirrorRequest},
    node_info::{IdentityRecord, NodeIds},
    snapshot::UserSnapshot,
};

use super::{Api, Repeat};
use crate::{error::ClientError, transport::ApiRequest};

/// Largest of the small replies.
const MAX_REPLY_BYTES: usize = 1 << 10;

impl Api {
    /// Permits the node to keep a copy of the account.
    pub async fn allow_mirror(&self, request: &MirrorRequest) -> Result<bool, ClientError> {
        const CALL: &str = "peergos/v0/core/mirror";
        let request = ApiRequest::new(CALL, MAX_REPLY_BYTES).with_body(request.to_body());
        match self.call(request, Repeat::Safe).await?.as_ref() {
            [1] => Ok(true),
            [0] => Ok(false),
            _ => Err(ClientError::malformed(CALL)),
        }
    }

    /// Brings login data to a node that keeps a copy; `auth` is the identity's signature over them.
    pub async fn set_login_of_copy(
        &self,
        data: &LoginData,
        auth: &[u8; 64],
    ) -> Result<bool, ClientError> {
        const CALL: &str = "peergos/v0/login/setLogin";
        let request = ApiRequest::new(CALL, MAX_REPLY_BYTES)
            .with("username", data.username.as_str())
            .with("auth", HEXLOWER.encode(auth))
            .with("local", "true")
            .with_body(data.to_body());
        match self.call(request, Repeat::Safe).await?.as_ref() {
            [1] => Ok(true),
            [0] => Ok(false),
            _ => Err(ClientError::malformed(CALL)),
        }
    }

    /// Moves the account to the node that is asked. May take as long as copying everything does; can be repeated.
    pub async fn migrate(&self, request: &MigrateRequest) -> Result<UserSnapshot, ClientError> {
        const CALL: &str = "peergos/v0/core/migrateUser";
        let request = ApiRequest::new(CALL, UserSnapshot::MAX_BYTES)
            .with_body(request.to_body())
            .long();
        let body = self.call(request, Repeat::Safe).await?;
        UserSnapshot::decode(&body).map_err(|_| ClientError::malformed(CALL))
    }

    /// Returns all ids of the node, the present one last.
    pub async fn ids(&self) -> Result<NodeIds, ClientError> {
        const CALL: &str = "api/v0/ids";
        let request = ApiRequest::new(CALL, NodeIds::MAX_BYTES);
        let body = self.call(request, Repeat::Safe).await?;
        NodeIds::from_body(&body).map_err(|_| ClientError::malformed(CALL))
    }

    /// Returns the newest record that is known of the id of a node; nothing in it was checked.
    pub async fn identity_record(&self, id: &Multihash) -> Result<IdentityRecord, ClientError> {
        const CALL: &str = "api/v0/ipns/get";
        let request =
            ApiRequest::new(CALL, IdentityRecord::MAX_BYTES).with("arg", to_base58(&id.to_bytes()));
        let body = self.call(request, Repeat::Safe).await?;
        IdentityRecord::from_body(&body).map_err(|_| ClientError::malformed(CALL))
    }
}
