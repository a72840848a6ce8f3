//! Asking for a name or a change of a claim: of this node's registrar, or of the node that gives names out.

use std::sync::Arc;

use bytes::Bytes;
use champ::cbor::Record as _;
use pki::{
    chain::{ClaimChain, OwnerKeys},
    proof_of_work::ProofOfWork,
    username::Username,
    wire::{
        Body as _,
        call::Call,
        signup::{SentLinks, SignupReply, UpdateChainRequest},
    },
};

use crate::{
    error::Refusal,
    p2p::{PeerError, ask},
    state::State,
    store::Batch,
};

/// Longest answer, in bytes.
const MAX_REPLY_BYTES: usize = SignupReply::MAX_BYTES;

/// What the authority says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registered {
    /// The chain is in the table, on stable storage.
    Done,
    /// A proof of this difficulty is wanted.
    MoreWork(i32),
}

/// Asks the authority of the network to put a chain into its table.
///
/// # Errors
/// [`Refusal::AuthorityUnreachable`] when the outcome is unknown; everything else is the authority's refusal.
pub(crate) async fn forward(
    state: &State,
    request: &UpdateChainRequest,
) -> Result<Registered, Refusal> {
    let peers = state.peers().ok_or(Refusal::AuthorityUnreachable)?;
    let target = format!("/{}", Call::UpdateChain.path());
    for peer in super::authorities(state).await? {
        match ask(peers, &peer, &target, request.to_body(), MAX_REPLY_BYTES).await {
            Ok(body) => {
                let reply = SignupReply::from_body(&body);
                return match reply.map_err(|_| Refusal::AuthorityUnreachable)? {
                    SignupReply::Accepted => Ok(Registered::Done),
                    SignupReply::MoreWork(difficulty) => Ok(Registered::MoreWork(difficulty)),
                };
            }
            Err(PeerError::Refused {
                status: 400,
                message,
            }) if message != NOT_THE_AUTHORITY => return Err(Refusal::rule(message)),
            // The next one may know more: what is asked for can be asked for twice.
            Err(error) => tracing::warn!(%peer, %error, "the name authority does not answer"),
        }
    }
    Err(Refusal::AuthorityUnreachable)
}

/// What a node says that gives out no names.
pub(crate) const NOT_THE_AUTHORITY: &str = "This server is not the name authority";

/// Puts a chain of a known name into the table and into this node's own.
///
/// # Errors
/// As [`forward`].
pub(crate) async fn publish(
    state: &Arc<State>,
    name: &Username,
    chain: &ClaimChain,
) -> Result<Registered, Refusal> {
    if state.directory.chain(name.as_str()).await? == *chain {
        return Ok(Registered::Done);
    }
    let request = UpdateChainRequest {
        username: name.as_str().to_owned(),
        chain: SentLinks::new(chain.clone()),
        proof: Bytes::from(ProofOfWork::empty().encode()),
        token: String::new(),
    };
    update(state, &request, false).await
}

/// Updates the chain of a name. `allows_new` lets a name in that nobody has, for other nodes' sign-ups.
///
/// # Errors
/// As [`forward`].
pub(crate) async fn update(
    state: &Arc<State>,
    request: &UpdateChainRequest,
    allows_new: bool,
) -> Result<Registered, Refusal> {
    if state.names.follows.is_none() {
        return crate::registrar::update(state, request, allows_new).await;
    }
    let existing = state.directory.chain(&request.username).await?;
    if existing.is_empty() {
        return Err(Refusal::rule("Unknown user, please sign up"));
    }
    let name = Username::parse(&request.username).map_err(|e| Refusal::rule(e.to_string()))?;
    let keys = OwnerKeys::inline_only();
    let merged = ClaimChain::merge(&existing, request.chain.get(), &name, &keys)
        .map_err(|error| Refusal::rule(error.to_string()))?;
    let registered = forward(state, request).await?;
    if registered == Registered::Done && merged != existing {
        // What its holder signed, and the authority took: no need to wait for the next round.
        let batch = state
            .directory
            .write_chain(Batch::new(), &name, &existing, &merged)?;
        let _ = state.store.commit(batch).await?;
        state.directory.forget(&existing);
        state.directory.forget(&merged);
    }
    Ok(registered)
}
