//! What a peer may ask: an explicit list of calls, never passed on (Spec: 11 §6 column "peer side", §7).
//!
//! A peer is a client without rights of its own, and with fewer paths: no page, no file, nothing of the operator, no
//! sign-up. Whoever owns what it asks for must live here.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, header, request::Parts};
use http_body_util::Full;
use pki::wire::{
    call::{Call as CallName, Home, Target},
    query::percent_decode,
};

use super::PeerId;
use crate::{
    api,
    error::Refusal,
    http::{Call, Hosts, MAX_PATH_BYTES, Origin, Query, RequestBody},
    names,
    state::State,
    usage::stored_quota,
};

/// What a node says that is not, or no longer, the home of whom it is asked about.
pub(super) const OWNER_HAS_MOVED: &str = "Owner has moved";
/// Header of an answer from a copy: a peer that took this node for the home of whom it asked about knows an older table of
/// names, and would show its clients old data until it looks again. No more than a hint: the table itself decides.
pub(super) const HOME_HEADER: HeaderName = HeaderName::from_static("kastro-home");
/// What the header says.
const HOME_ELSEWHERE: HeaderValue = HeaderValue::from_static("elsewhere");
/// A table of names that is older is looked at again before a peer is told that somebody lives elsewhere.
const FRESH_SECONDS: i64 = 60;

/// How a call is treated when a peer makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerSide {
    /// As if a client had made it; users of other nodes are refused.
    Local,
    /// Only for users who have space here.
    Writes,
    /// Not there.
    Absent,
}

const fn peer_side(call: CallName) -> PeerSide {
    match call {
        CallName::Id
        | CallName::Ids
        | CallName::LinkHost
        | CallName::BlockstoreProps
        | CallName::BlockstoreAuth
        | CallName::BlockstoreAuthReads
        | CallName::TransactionStart
        | CallName::TransactionClose
        | CallName::BlockGet
        | CallName::BlockStat
        | CallName::ChampGetBulk
        | CallName::ChampGet
        | CallName::LinkGet
        | CallName::LinkCounts
        | CallName::IpnsGet
        | CallName::GetPointer
        | CallName::SetPointer
        | CallName::SetPointers
        | CallName::SetLogin
        | CallName::GetLogin
        | CallName::ListMfa
        | CallName::AddTotp
        | CallName::EnableTotp
        | CallName::AddMount
        | CallName::EnableMount
        | CallName::GenBackupCodes
        | CallName::RegisterWebauthnStart
        | CallName::RegisterWebauthnComplete
        | CallName::DeleteMfa
        | CallName::Usage
        | CallName::Quota
        | CallName::PaymentProperties
        | CallName::RequestSpace
        | CallName::GetUserBats
        | CallName::AddBat
        | CallName::SendFollowRequest
        | CallName::GetFollowRequests
        | CallName::RemoveFollowRequest
        | CallName::GetChain
        | CallName::GetPublicKey
        | CallName::GetUsername
        | CallName::GetUsernames
        // The registrar takes these from other nodes; elsewhere the calls themselves refuse.
        | CallName::UpdateChain
        | CallName::StartPaidSignup
        | CallName::CompletePaidSignup
        // From one's own node with its token, and to the node that a user leaves.
        | CallName::GetUserSnapshots
        | CallName::MigrateUser => PeerSide::Local,
        CallName::BlockPutBulk | CallName::BlockPut => PeerSide::Writes,
        CallName::Version
        | CallName::Signups
        | CallName::Waitlist
        | CallName::Pending
        | CallName::Approve
        | CallName::RetrieveMessages
        | CallName::SendMessage
        | CallName::Signup
        | CallName::StartPaidMirror
        | CallName::CompletePaidMirror
        | CallName::Mirror => PeerSide::Absent,
    }
}

/// Answers a request of a peer.
pub(crate) async fn route(
    state: &Arc<State>,
    hosts: &Hosts,
    peer: PeerId,
    parts: &Parts,
    body: &mut RequestBody,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let is_origin_form = parts.uri.authority().is_none() && parts.method != Method::CONNECT;
    let path = parts.uri.path();
    if !is_origin_form || !names_us(state, parts) || path.len() > MAX_PATH_BYTES {
        return Err(Refusal::NotFound);
    }
    let path = percent_decode(path).ok_or(Refusal::NotFound)?;
    let Target::Call(what, rest) = CallName::at_path(&path) else {
        return Err(Refusal::NotFound);
    };
    let side = peer_side(what);
    if side == PeerSide::Absent {
        return Err(Refusal::NotFound);
    }
    if parts.method != Method::POST {
        return Err(Refusal::Method);
    }
    let query = mend(what, parts.uri.query().unwrap_or_default());
    let call = Call {
        state,
        what,
        rest,
        query: Query::parse(Some(&query))?,
        headers: &parts.headers,
        origin: Origin::Peer(peer),
        site: hosts.site(),
        relying_party: hosts.relying_party(),
    };
    if side == PeerSide::Writes {
        let user = state.directory.user(&call.query.owner()?).await?;
        if !user.is_local && stored_quota(state, &user.name).await?.is_none() {
            return Err(Refusal::rule("Write blocks to user's server"));
        }
    }
    let mut is_elsewhere = what.home() == Home::Forwarded && super::home_of(&call).await.is_some();
    if is_elsewhere {
        // Who has just moved here is known to others first, sometimes. Whether that worked shows below.
        let _ = names::refresh_if_older(state, FRESH_SECONDS).await;
        is_elsewhere = super::home_of(&call).await.is_some();
    }
    match api::answer(&call, body).await {
        Ok(reply) => {
            let mut response = reply.into_response();
            if is_elsewhere {
                response.headers_mut().insert(HOME_HEADER, HOME_ELSEWHERE);
            }
            Ok(response)
        }
        // Not here, and nobody passes it on a second time.
        Err(Refusal::NotHome) => Err(Refusal::rule(OWNER_HAS_MOVED)),
        Err(refusal) => Err(refusal),
    }
}

/// Returns true when the one `Host` is an id of this node.
fn names_us(state: &State, parts: &Parts) -> bool {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let ids = state.identity.all().iter();
    ids.filter_map(|id| PeerId::from_cid(id).ok())
        .any(|id| id.is_named(host))
}

/// Puts right what older nodes do to queries: an `&` at the end, repeated parameters of which the last counts, and a
/// second `?` in one call (Spec: 11 §4.1, §6).
fn mend(call: CallName, query: &str) -> String {
    let query = query.strip_suffix('&').unwrap_or(query);
    let query = match call {
        CallName::LinkCounts => query.replacen('?', "&", 1),
        _ => query.to_owned(),
    };
    let name = |part: &str| part.split_once('=').map(|(name, _)| name.to_owned());
    let parts: Vec<&str> = query.split('&').collect();
    let is_last = |at: usize, part: &str| match name(part) {
        Some(own) if own != "arg" => parts
            .iter()
            .skip(at + 1)
            .all(|later| name(later).as_deref() != Some(&own)),
        _ => true,
    };
    let kept: Vec<&str> = parts
        .iter()
        .enumerate()
        .filter(|(at, part)| is_last(*at, part))
        .map(|(_, part)| *part)
        .collect();
    kept.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_older_nodes_are_put_right() {
        let mended = |query: &str| mend(CallName::GetPointer, query);
        assert_eq!(mended("owner=a&writer=b&"), "owner=a&writer=b");
        assert_eq!(mended(""), "");
        assert_eq!(mended("a=1&b=2&a=3"), "b=2&a=3");
        assert_eq!(mended("arg=1&arg=2"), "arg=1&arg=2");
        // A blank that an older node turned into a plus stays one.
        assert_eq!(mended("name=my+key"), "name=my+key");
        assert_eq!(mended("a=1?b=2"), "a=1?b=2");
        assert_eq!(
            mend(CallName::LinkCounts, "after=1&owner=a?bat=x"),
            "after=1&owner=a&bat=x"
        );
        // What is wrong otherwise is left for the parser to refuse.
        assert_eq!(mended("foo&&b=1"), "foo&&b=1");
    }

    #[test]
    fn p2p_2_what_changes_this_machine_is_absent() {
        for call in CallName::ALL {
            let is_absent = peer_side(*call) == PeerSide::Absent;
            let path = call.path();
            let is_operators = path.starts_with("peergos/v0/admin/")
                || path.starts_with("peergos/v0/server-message/");
            assert!(!is_operators || is_absent, "{path}");
        }
    }
}
