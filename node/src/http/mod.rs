//! HTTP: listener, host and method rules, parameters, bodies, answers (Spec: 05).
//!
//! Nothing here knows what a call does. [`answer`] decides who may ask and in which form, hands the call to
//! its family in [`crate::api`], and turns the outcome into a response; it never lets a failure close a
//! connection without an answer.

mod access_log;
mod admission;
mod body;
mod forwarded;
mod framing;
mod h2;
mod head;
mod host;
pub(crate) mod multipart;
mod query;
mod redirect;
mod reply;
mod screen;
mod serve;
mod stream;

use std::{net::IpAddr, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full};
use pki::keys::Owner;
use pki::wire::{
    call::{Call as CallName, Target},
    query::percent_decode,
};

pub(crate) use admission::{Admission, source};
pub(crate) use body::RequestBody;
pub use forwarded::{Network, NotANetwork};
pub(crate) use head::{Framing, check as check_head};
pub(crate) use host::{Hosts, Reach};
pub(crate) use query::Query;
pub(crate) use redirect::secure_site;
pub(crate) use reply::Reply;
pub(crate) use serve::{Transport, serve};

use crate::{
    api,
    directory::User,
    error::Refusal,
    metrics::{Class, Observation},
    mirror,
    p2p::{self, PeerId},
    state::State,
    web::{PUBLIC_FILES, Place, public_files},
    webauthn::RelyingParty,
};

/// Longest path that is looked at.
pub(crate) const MAX_PATH_BYTES: usize = 2048;

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin {
    /// A program in this process: trusted to reach the API without a `Host`.
    InProcess,
    /// A connection from this address.
    Address(IpAddr),
    /// Another node, which proved its id.
    Peer(PeerId),
}

impl Origin {
    /// Returns the key under which failures of this source are counted.
    ///
    /// Peers are counted by id, each under an address of a range that nobody has.
    pub(crate) fn address(self) -> Option<IpAddr> {
        match self {
            Self::InProcess => None,
            Self::Address(address) => Some(address),
            Self::Peer(peer) => Some(peer.stand_in().into()),
        }
    }
}

/// One call of the API, ready for its family.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// The node.
    pub(crate) state: &'a Arc<State>,
    /// Which call it is.
    pub(crate) what: CallName,
    /// Path segments after the call's own.
    pub(crate) rest: &'a str,
    /// Parameters.
    pub(crate) query: Query<'a>,
    /// Request headers.
    pub(crate) headers: &'a HeaderMap,
    /// Who asks.
    pub(crate) origin: Origin,
    /// Host name and port that links of this node carry.
    pub(crate) site: &'a str,
    /// What this node is to security keys.
    pub(crate) relying_party: &'a RelyingParty,
}

impl Call<'_> {
    /// Returns the user of an owner parameter if data of the user is here to read: at home, or as a copy, which
    /// answers peers always and clients as long as the home cannot (Spec: 11 §7, 12 §5.5).
    pub(crate) async fn readable(&self, owner: &Owner) -> Result<Arc<User>, Refusal> {
        match self.state.directory.local(owner).await {
            Err(Refusal::NotHome) => {
                let user = self.state.directory.user(owner).await?;
                match mirror::is_readable(self.state, &user).await? {
                    true => Ok(user),
                    false => Err(Refusal::NotHome),
                }
            }
            found => found,
        }
    }
}

/// Answers one request.
pub(crate) async fn answer(
    state: &Arc<State>,
    hosts: &Hosts,
    request: Request<RequestBody>,
    origin: Origin,
) -> Response<Full<Bytes>> {
    let started = Instant::now();
    let (parts, mut body) = request.into_parts();
    let future = route(state, hosts, &parts, &mut body, origin);
    let mut response = match AssertUnwindSafe(future).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => refuse(state, refusal),
        Err(_) => refuse(state, Refusal::internal("a handler panicked")),
    };
    finish(&mut response);
    if parts.method == Method::GET && shows_a_token(&parts.uri) {
        reply::keep_private(&mut response);
    }
    if hosts.ends_tls() {
        response.headers_mut().insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
    let time = started.elapsed();
    let is_refused = response.status().is_client_error() || response.status().is_server_error();
    // Who waits for permission to send has sent nothing yet, and reading would grant it.
    let waits = is_refused && parts.headers.contains_key(header::EXPECT);
    if !body.is_done() && !waits {
        body.discard().await;
    }
    let bytes_out = http_body::Body::size_hint(response.body()).lower();
    state.metrics.observe(Observation {
        class: Class::of_path(parts.uri.path()),
        status: response.status(),
        time,
        bytes_in: body.received(),
        bytes_out,
    });
    access_log::Line {
        method: &parts.method,
        path: parts.uri.path(),
        client: origin.address(),
        status: response.status(),
        bytes: bytes_out,
        time,
    }
    .write();
    response
}

fn refuse(state: &State, refusal: Refusal) -> Response<Full<Bytes>> {
    state.metrics.note_refusal(&refusal);
    refusal.into_response()
}

/// Adds the headers that every answer has, refusals included.
pub(crate) fn finish<B>(response: &mut Response<B>) {
    let is_success = response.status().is_success();
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // Successes say for themselves how long they are good for.
    if !is_success && !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Returns true when a request shows what opens protected blocks, or may: a look-up carries its tokens in a list.
fn shows_a_token(uri: &Uri) -> bool {
    Query::parse(uri.query()).is_ok_and(|query| {
        let shows = |name| query.optional(name).is_some();
        shows("bat") || shows("caps")
    })
}

async fn route(
    state: &Arc<State>,
    hosts: &Hosts,
    parts: &http::request::Parts,
    body: &mut RequestBody,
    origin: Origin,
) -> Result<Response<Full<Bytes>>, Refusal> {
    if let Origin::Peer(peer) = origin {
        return p2p::route(state, hosts, peer, parts, body).await;
    }
    let site = hosts.origin();
    let reach = reach(hosts, &parts.headers, &parts.uri, origin);
    let place = match &reach {
        Reach::Sandbox(label) => Place::Sandbox(label),
        Reach::Main | Reach::Nothing => Place::Main,
    };
    let nothing = || Ok(state.pages.refuse(Refusal::NotFound, site, place));
    if reach == Reach::Nothing || parts.uri.path().len() > MAX_PATH_BYTES {
        return nothing();
    }
    let Some(path) = percent_decode(parts.uri.path()) else {
        return nothing();
    };
    let target = CallName::at_path(&path);
    if target == Target::Other {
        if place == Place::Main && path.starts_with(p2p::GATEWAY) && state.config.p2p.has_gateway {
            return p2p::gateway(state, parts, body, origin).await;
        }
        return match path.strip_prefix(PUBLIC_FILES) {
            Some(_) if place != Place::Main => nothing(),
            Some(wanted) => public_files::answer(state, parts, wanted, origin).await,
            None => Ok(state.pages.answer(parts, &path, site, place).await),
        };
    }
    if place != Place::Main {
        return nothing();
    }
    let (what, rest) = match target {
        Target::Call(what, rest) => (what, rest),
        other => {
            allow_method(&parts.method, state.config.is_public, false)?;
            return Err(unknown_call(other));
        }
    };
    let takes_body = what.max_body_bytes().is_some();
    allow_method(&parts.method, state.config.is_public, takes_body)?;
    let call = Call {
        state,
        what,
        rest,
        query: Query::parse(parts.uri.query())?,
        headers: &parts.headers,
        origin,
        site: hosts.site(),
        relying_party: hosts.relying_party(),
    };
    if let Some(home) = p2p::home_elsewhere(&call).await {
        let raw_query = parts.uri.query().unwrap_or_default();
        match p2p::forward(&call, home, raw_query, body).await {
            // A copy answers as long as the home does not.
            Err(Refusal::HomeUnreachable) if mirror::may_answer(what) => {
                return api::answer(&call, body)
                    .await
                    .map(Reply::into_response)
                    .map_err(|refusal| match refusal {
                        Refusal::NotHome => Refusal::HomeUnreachable,
                        refusal => refusal,
                    });
            }
            answer => return answer,
        }
    }
    Ok(api::answer(&call, body).await?.into_response())
}

/// Applies the Host check to the header and to an absolute request target.
fn reach(hosts: &Hosts, headers: &HeaderMap, uri: &Uri, origin: Origin) -> Reach {
    let mut values = headers.get_all(header::HOST).iter();
    let reach = match (values.next(), values.next()) {
        (Some(host), None) => host
            .to_str()
            .map_or(Reach::Nothing, |host| hosts.reach(host)),
        (None, None) if matches!(origin, Origin::InProcess) => return Reach::Main,
        _ => Reach::Nothing,
    };
    match uri.authority() {
        Some(target) if hosts.reach(target.as_str()) != reach => Reach::Nothing,
        _ => reach,
    }
}

/// Returns the bytes of an answer, which is always complete.
pub(crate) async fn whole(body: Full<Bytes>) -> Bytes {
    match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(never) => match never {},
    }
}

/// Applies the method rule (Spec: 05 §3): POST everywhere, and GET for body-less calls of a public node.
fn allow_method(method: &Method, is_public: bool, takes_body: bool) -> Result<(), Refusal> {
    if method == Method::POST || (is_public && method == Method::GET && !takes_body) {
        Ok(())
    } else {
        Err(Refusal::Method)
    }
}

fn unknown_call(target: Target<'_>) -> Refusal {
    match target {
        Target::NoSuchCall(text) => Refusal::UnknownCall(text),
        _ => Refusal::NotFound,
    }
}
