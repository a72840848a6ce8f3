//! A running node: open it, call it in this process, serve it on a listener.
//!
//! * [`open`][]: keys, names and stores come together; why a node cannot start;
//! * [`stores`][]: the stores that the settings name;
//! * [`peers`][]: the node among others;
//! * [`serve`][]: its listeners.

mod open;
mod peers;
mod serve;
mod stores;

use std::sync::Arc;

use bytes::Bytes;
use champ::Cid;
use http::{Request, Response};
use http_body_util::Full;

use crate::{
    config::Config,
    gc::{self, CollectError, CollectOptions, Progress, Report},
    health::{self, Health},
    http::{Hosts, Origin, RequestBody, answer, whole},
    operator,
    p2p::{self, PeerId},
    state::State,
    store::StoreError,
    web::WebRoot,
    workers::Workers,
};

pub use open::OpenError;
pub(crate) use open::SECOND_FACTOR_KEY;
pub(crate) use stores::{make_folder, open_data_set};

/// A node. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Node {
    state: Arc<State>,
    hosts: Arc<Hosts>,
}

impl Node {
    /// Returns the node's current server id.
    pub fn id(&self) -> &Cid {
        self.state.identity.current()
    }

    /// Returns the settings the node was opened with.
    pub fn config(&self) -> &Config {
        &self.state.config
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    #[cfg(test)]
    pub(crate) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Examines the node: store, workers, the last failure of this machine.
    pub async fn examine(&self) -> Health {
        health::examine(&self.state).await
    }

    /// Returns how the node is, for monitoring: `application/json`, status 200 when it can serve and 503 when not.
    pub async fn health(&self) -> Response<Full<Bytes>> {
        operator::status::health(&self.state).await
    }

    /// Returns counters and gauges for monitoring, in the text format of Prometheus.
    pub async fn metrics(&self) -> Response<Full<Bytes>> {
        operator::status::metrics(&self.state).await
    }

    /// Returns the web application that the node serves.
    pub fn web_root(&self) -> Option<&WebRoot> {
        self.state.pages.root()
    }

    /// Answers one request of this process, as the listener would. A `Host` header may be left out.
    ///
    /// Dropping the future is safe; a write may or may not have happened then.
    pub async fn call(&self, request: Request<Bytes>) -> Response<Bytes> {
        let request = request.map(RequestBody::Ready);
        let response = answer(&self.state, &self.hosts, request, Origin::InProcess).await;
        let (parts, body) = response.into_parts();
        Response::from_parts(parts, whole(body).await)
    }

    /// Answers one request that `peer` sent, as the peer side of the node does: an explicit list of calls, never
    /// passed on, under the peer's limits (Spec: 11 §7).
    ///
    /// Whoever calls this vouches for `peer`. The `Host` header must be an id of this node.
    pub async fn answer_peer(
        &self,
        peer: PeerId,
        request: Request<p2p::Body>,
    ) -> Response<p2p::Body> {
        let request = request.map(|body| RequestBody::of_peer(body, &self.state.admission));
        let origin = Origin::Peer(peer);
        let response = answer(&self.state, &self.hosts, request, origin).await;
        let (parts, body) = response.into_parts();
        Response::from_parts(parts, p2p::full(whole(body).await))
    }

    /// Returns the background workers, for their status and for starting more.
    pub fn workers(&self) -> &Workers {
        &self.state.workers
    }

    /// Deletes blocks that nothing needs, beside running writers, and tells `progress` where it is.
    ///
    /// Dropping the future stops at a safe place.
    ///
    /// # Errors
    /// [`CollectError`]; what goes wrong with one owner is in the report.
    pub async fn collect_garbage(
        &self,
        options: &CollectOptions,
        progress: &(dyn Fn(&Progress) + Send + Sync),
    ) -> Result<Report, CollectError> {
        gc::collect(&self.state, options, progress).await
    }

    /// Returns the report of the last collection since the node was opened.
    pub fn last_collection(&self) -> Option<Arc<Report>> {
        self.state.collector.last()
    }

    /// Stops the background workers, finishes accepted writes and closes the store; later calls fail.
    ///
    /// # Errors
    /// Failures of the disk; what was acknowledged is safe also then.
    pub async fn close(&self) -> Result<(), StoreError> {
        let grace = self.state.config.limits.shutdown_grace;
        self.state.workers.stop(grace).await;
        self.state.store.close().await
    }
}
