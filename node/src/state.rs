//! Everything that the calls of one node share.

use std::sync::{Arc, OnceLock};

use pki::keys::{PublicSigningKey, SecretSigningKey, Writer};

use crate::{
    blocks::StoredBlocks,
    challenges::Challenges,
    check::Scrub,
    clock::Clock,
    config::Config,
    directory::{Directory, User},
    error::Refusal,
    gc::Collector,
    guard::Guards,
    health::Probe,
    http::Admission,
    identity::NodeIdentity,
    metrics::Metrics,
    mirror::Mirrors,
    names::{self, Names},
    p2p::{Network, Peers},
    pointers,
    registrar::Registrar,
    second_factors::FactorKey,
    signup::UserCount,
    store::Store,
    tls::Certificates,
    usage::Usage,
    web::Pages,
    workers::Workers,
    writers::Writers,
};

/// The shared state of a node.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) identity: NodeIdentity,
    pub(crate) store: StoreHandle,
    pub(crate) pages: Pages,
    pub(crate) directory: Directory,
    /// The name authority, of a node that is it.
    pub(crate) registrar: Option<Registrar>,
    pub(crate) names: Names,
    pub(crate) mirrors: Mirrors,
    pub(crate) writers: Writers,
    pub(crate) usage: Usage,
    pub(crate) collector: Collector,
    pub(crate) guards: Guards,
    pub(crate) challenges: Challenges,
    pub(crate) factor_key: FactorKey,
    /// When this process began to serve.
    pub(crate) started_millis: i64,
    pub(crate) users: UserCount,
    /// What runs beside the calls: garbage collection, scrubbing and the like.
    pub(crate) workers: Workers,
    pub(crate) scrub: Scrub,
    /// Who may come in while there is much to do.
    pub(crate) admission: Arc<Admission>,
    pub(crate) metrics: Metrics,
    pub(crate) probe: Probe,
    /// The way to other nodes, once there is one.
    pub(crate) peers: OnceLock<Arc<dyn Peers>>,
    /// The network, when that is the way to them.
    pub(crate) network: OnceLock<Arc<Network>>,
    /// The key that proves the node's id to others; none when the ids were given.
    pub(crate) node_key: Option<SecretSigningKey>,
    /// The keys of ids that the node had before.
    pub(crate) keys_before: Vec<SecretSigningKey>,
    /// One change of identity at a time.
    pub(crate) rotating: tokio::sync::Mutex<()>,
    pub(crate) tls: Option<Certificates>,
}

impl State {
    /// Returns the way to other nodes; `None` for a node that takes no part in a network.
    pub(crate) fn peers(&self) -> Option<&dyn Peers> {
        self.peers.get().map(AsRef::as_ref)
    }

    /// Returns the time that limits count with, in milliseconds: one that nobody sets, so that a clock that jumps
    /// neither lifts a limit nor prolongs it (Spec: 40 DOS-14). Processes that count together in one store have only
    /// the time of day in common.
    pub(crate) fn limit_millis(&self) -> i64 {
        match self.store.is_shared() {
            true => self.clock.now_millis(),
            false => self.clock.steady_millis(),
        }
    }

    /// Returns [`State::limit_millis`] in seconds.
    pub(crate) fn limit_seconds(&self) -> i64 {
        self.limit_millis().div_euclid(1000)
    }

    /// Returns the name authority.
    ///
    /// # Errors
    /// On a node that follows another one's names.
    pub(crate) fn registrar(&self) -> Result<&Registrar, Refusal> {
        let missing = || Refusal::rule(names::NOT_THE_AUTHORITY);
        self.registrar.as_ref().ok_or_else(missing)
    }

    /// Returns the key of a writer of `user`: from its hash, or from a stored block for old keys.
    pub(crate) async fn writing_key(
        &self,
        user: &User,
        writer: &Writer,
    ) -> Result<PublicSigningKey, Refusal> {
        let blocks = StoredBlocks { state: self, user };
        pointers::signing_key(writer, &blocks).await
    }

    /// Returns the identity key of a user.
    pub(crate) async fn identity_key(&self, user: &User) -> Result<PublicSigningKey, Refusal> {
        self.writing_key(user, &user.identity.as_writer()).await
    }
}

/// The store; shown opaquely because it has nothing to show.
#[derive(Clone)]
pub(crate) struct StoreHandle(pub(crate) Arc<dyn Store>);

impl std::fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store(..)")
    }
}

impl std::ops::Deref for StoreHandle {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref()
    }
}
