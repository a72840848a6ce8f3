//! Secret links as a node serves them (Spec: 06 §7).

use champ::access::BatWithId;
use pki::{
    keys::Owner,
    username::Username,
    wire::{
        Body as _,
        link::{EncryptedCapability, LinkCounts},
    },
};

use super::{Api, Repeat};
use crate::{error::ClientError, transport::ApiRequest};

impl Api {
    /// Retrieves what a link leads to. It counts, so it is never asked for twice.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the node's reason: no such link, expired, used up.
    pub async fn secret_link(
        &self,
        owner: &Owner,
        label: u64,
    ) -> Result<EncryptedCapability, ClientError> {
        const CALL: &str = "api/v0/link/get";
        let request = ApiRequest::new(CALL, EncryptedCapability::MAX_BYTES)
            .with("label", label.to_string())
            .with("owner", owner.to_string());
        let body = self.call(request, Repeat::Never).await?;
        EncryptedCapability::from_body(&body).map_err(|_| ClientError::malformed(CALL))
    }

    /// Returns how often a user's links were retrieved; `mirror` is the newest mirror token.
    pub async fn link_counts(
        &self,
        name: &Username,
        mirror: &BatWithId,
    ) -> Result<LinkCounts, ClientError> {
        const CALL: &str = "api/v0/link/counts";
        let request = ApiRequest::new(CALL, LinkCounts::MAX_BYTES)
            .with("after", "0")
            .with("bat", mirror.to_text())
            .with("owner", name.as_str());
        let body = self.call(request, Repeat::Safe).await?;
        LinkCounts::from_body(&body).map_err(|_| ClientError::malformed(CALL))
    }
}
