//! A home that goes by a new identity: the claim to the name is to say so (Spec: 11 §2.4 step 3).
//!
//! The node that is asked is believed nothing: that its present id follows the one in the claim says only what the
//! holder of each id between them has signed. So a foreign node cannot draw an account to itself.

use champ::Cid;
use pki::{
    claim::placeholder_provider,
    node_identity::{NotFollowed, Trail},
};

use super::Session;
use crate::error::ClientError;

/// What became of the home in the account's claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum HomeIdentity {
    /// The claim names the node by its present id, or another node than the one that was asked.
    #[default]
    Unchanged,
    /// The claim named an id that the node went by before; now it names the present one.
    Renewed,
    /// The node says that it goes by another id now and does not prove it: the claim stays as it is.
    Unproven(NotFollowed),
}

/// The id that the claim should name.
pub(super) enum Present {
    /// The one it names.
    Same,
    /// This one.
    Now(Cid),
    /// Not known: the records of the one it names do not lead to the one the node gives.
    Unproven(NotFollowed),
}

impl Session {
    /// Finds out by which id the node of this session is to be claimed that goes by `claimed` in the claim.
    pub(super) async fn present_id(&self, claimed: &Cid) -> Result<Present, ClientError> {
        let api = self.account.api();
        let ids = match api.ids().await {
            Ok(ids) => ids,
            // A node that tells none has no more than one.
            Err(ClientError::Refused { .. }) => return Ok(Present::Same),
            Err(error) => return Err(error),
        };
        let placeholder = placeholder_provider();
        let Some(current) = ids.as_slice().last().filter(|id| **id != placeholder) else {
            return Ok(Present::Same);
        };
        if current.hash() == claimed.hash() {
            return Ok(Present::Same);
        }
        // "Whichever node is asked": it names none that could have signed anything.
        if *claimed == placeholder {
            return Ok(Present::Now(current.clone()));
        }
        let own = |id: &Cid| id.hash() == claimed.hash();
        if !ids.as_slice().iter().any(own) {
            return Ok(Present::Same);
        }
        let mut trail = Trail::from(claimed.hash().clone());
        while trail.last() != current.hash() {
            if let Err(reason) = self.one_step(&mut trail).await? {
                return Ok(Present::Unproven(reason));
            }
        }
        Ok(Present::Now(trail.last_id()))
    }

    async fn one_step(&self, trail: &mut Trail) -> Result<Result<(), NotFollowed>, ClientError> {
        match trail.follow_known() {
            Ok(false) => {}
            done => return Ok(done.map(|_| ())),
        }
        match self.account.api().identity_record(trail.last()).await {
            Ok(record) => Ok(trail.follow_signed(&record.data, &record.signature)),
            Err(ClientError::Refused { .. }) => Ok(Err(NotFollowed::NoRecord)),
            Err(error) => Err(error),
        }
    }
}
