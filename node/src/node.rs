//! A running node: open it, call it in this process, serve it on a listener.

use std::{
    fs, io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use champ::Cid;
use http::{Request, Response};
use http_body_util::Full;
use pki::{
    keys::{Owner, SecretKeyWithHash},
    proof_of_work::DifficultyPolicy,
};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    backup::{self, RESTORING_FILE},
    challenges::Challenges,
    check::{Scrub, start_scrub, start_sweep},
    config::{BlockPlace, Config, MetadataPlace},
    directory::Directory,
    error::Refusal,
    gc::{self, CollectError, CollectOptions, Collector, Progress, Report},
    guard::Guards,
    health::{self, Health, Probe},
    http::{Admission, Hosts, Origin, RequestBody, Transport, answer, secure_site, serve, whole},
    identity::{KeyFileError, load_or_create_secret},
    metrics::{self, Metrics},
    migration,
    mirror::{self, Mirrors},
    names::{self, Names},
    node_keys::NodeKeys,
    operator,
    p2p::{self, PeerId},
    registrar::Registrar,
    rotation,
    second_factors::{self, FactorKey, FactorKeyError},
    shared_keys::{SharedKeyError, shared_secret},
    signup::{UserCount, token_key},
    state::{State, StoreHandle},
    store::{
        Batch, Clock as StoreClock, DiskOptions, DiskStore, MemoryStore, MetaEngine, PostgresStore,
        Store, StoreError, s3::S3Blocks, tables,
    },
    sweep,
    tls::{self, Certificates, TlsError},
    usage::{self, Usage},
    web::{BlockHost, Pages, RootError, WebRoot},
    webauthn::InvalidHost,
    workers::Workers,
    writers::Writers,
};

/// File of the key under which second factor secrets are stored.
pub(crate) const SECOND_FACTOR_KEY: &str = "second-factors.key";

/// How long the log reminds of a restore.
const RESTORE_NOTICE_SECONDS: i64 = 30 * 86_400;

/// A node. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Node {
    state: Arc<State>,
    hosts: Arc<Hosts>,
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data folder cannot be made or read.
    #[error("cannot use data folder {}", path.display())]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder of the web application cannot be read.
    #[error("cannot use web folder")]
    Web(#[from] RootError),
    /// The public host is not one.
    #[error(transparent)]
    PublicHost(#[from] InvalidHost),
    /// A key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The key file of second factors does not belong to this store.
    #[error(transparent)]
    SecondFactors(#[from] FactorKeyError),
    /// Certificate or key of the TLS listener cannot be used.
    #[error("cannot offer TLS")]
    Tls(#[from] TlsError),
    /// The nodes on this store do not agree about a key.
    #[error(transparent)]
    SharedKey(#[from] SharedKeyError),
    /// The store cannot be opened.
    #[error("cannot open the store")]
    Store(#[from] StoreError),
    /// The data folder is a restore that broke off.
    #[error("{} is not restored completely", .0.display())]
    Restoring(std::path::PathBuf),
    /// The stored names are those of another network than the one of the settings.
    #[error("the names stored here belong to another name authority")]
    OtherNames,
    /// The node's own data cannot be set up or read.
    #[error("cannot set up the node")]
    Setup(#[from] Refusal),
}

impl Node {
    /// Opens the node that `config` describes, and makes what is missing on a first start.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        if let Some(folder) = &config.data
            && folder.join(RESTORING_FILE).exists()
        {
            return Err(OpenError::Restoring(folder.clone()));
        }
        let store = open_data_set(&config).await?;
        Self::with_store(config, store).await
    }

    /// Opens a node on a store of the caller's choice; key files still live in the data folder.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn with_store(config: Config, store: Arc<dyn Store>) -> Result<Self, OpenError> {
        let folder = config.data.as_deref();
        let keys = NodeKeys::open(&config, store.as_ref()).await?;
        let identity = keys.identity;
        let now = config.clock.now_millis();
        let since_epoch = Duration::from_millis(u64::try_from(now).unwrap_or(0));
        let policy = DifficultyPolicy::new(
            u32::try_from(config.max_signups_per_day).unwrap_or(u32::MAX),
            std::time::UNIX_EPOCH + since_epoch,
        );
        let registrar = keys.table.map(|table| {
            let (owner, writer) = (table.owner, table.writer);
            let with_hash = SecretKeyWithHash::new;
            Registrar::new(with_hash(owner), with_hash(writer), policy)
        });
        let (owner, authority) = match (&registrar, &keys.follows) {
            (Some(registrar), _) => (registrar.owner(), identity.current().clone()),
            (None, Some(network)) => (Owner(network.owner.clone()), network.node.to_cid()),
            (None, None) => return Err(Refusal::internal("a node without names").into()),
        };
        if !names::bind(store.as_ref(), &owner).await? {
            return Err(OpenError::OtherNames);
        }
        if let Some(network) = &keys.follows {
            names::remember(store.as_ref(), network).await?;
        }
        let status = names::stored_status(store.as_ref()).await?;
        let hosts = Hosts::new(config.listen, config.public_host.as_deref(), identity.all())?
            .public(config.is_public);
        let factor_key = factor_key(folder, store.as_ref()).await?;
        let mut pages = config.pages.clone();
        pages.block_hosts.extend(block_host(store.as_ref()));
        let state = Arc::new(State {
            pages: Pages::new(config.web.as_deref(), pages)?,
            clock: Arc::clone(&config.clock),
            directory: Directory::new(
                Arc::clone(&store),
                identity.clone(),
                owner.clone(),
                authority,
            )?,
            identity,
            store: StoreHandle(store),
            registrar,
            names: Names::new(keys.follows, owner, status),
            mirrors: Mirrors::new(config.mirror.bytes_per_second),
            writers: Writers::default(),
            usage: Usage::default(),
            collector: Collector::default(),
            guards: Guards::default(),
            challenges: Challenges::default(),
            factor_key,
            started_millis: now,
            users: UserCount::default(),
            workers: Workers::default(),
            scrub: Scrub::default(),
            admission: Admission::new(config.limits),
            metrics: Metrics::default(),
            probe: Probe::default(),
            peers: OnceLock::new(),
            network: OnceLock::new(),
            node_key: keys.node,
            keys_before: keys.before,
            rotating: tokio::sync::Mutex::default(),
            tls: match config.tls.listen {
                Some(_) => Some(Certificates::open(&config.tls)?),
                None => None,
            },
            config,
        });
        if let Some(peers) = &state.config.p2p.peers {
            // The cell is new: nobody has filled it.
            let _ = state.peers.set(following(&state, Arc::clone(peers)));
        }
        if let Some(restored) = backup::restored(&*state.store).await? {
            let now = state.clock.now_seconds();
            let is_recent = now.saturating_sub(restored.restored_seconds) < RESTORE_NOTICE_SECONDS;
            let hours = (restored.restored_seconds - restored.created_seconds) / 3600;
            if is_recent {
                tracing::warn!(
                    hours_lost = hours,
                    "this node was restored from a backup: what users wrote in the hours before the restore is not in it"
                );
            }
        }
        if let Some(registrar) = &state.registrar {
            registrar.found(&state).await?;
        }
        migration::remember(&state).await?;
        add_tokens(&state).await?;
        usage::resume(&state).await?;
        metrics::start(&state);
        gc::start(&state);
        tls::start(&state)?;
        if state.store.is_shared() {
            sweep::start(&state);
        }
        names::start(&state);
        mirror::start(&state);
        tracing::info!(id = %state.identity.current(), "node is open");
        Ok(Self {
            state,
            hosts: Arc::new(hosts),
        })
    }

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

    /// Begins to take part in the peer-to-peer network that the settings describe, if they ask for one. Done by
    /// [`Self::serve`] too; once is enough.
    ///
    /// Nothing that goes wrong there stops the node: it is logged.
    pub fn join(&self) {
        let state = &self.state;
        if !state.config.p2p.is_enabled || state.config.p2p.peers.is_some() {
            return;
        }
        let Some(key) = &state.node_key else {
            tracing::warn!(
                "server_ids are set: without their key this node cannot prove them to others"
            );
            return;
        };
        let Ok(key) = rotation::pair(key) else {
            return;
        };
        let before = state.keys_before.iter();
        let before = before.filter_map(|key| rotation::pair(key).ok()).collect();
        let network = state
            .network
            .get_or_init(|| p2p::start(state, &self.hosts, key, before));
        // Set already when this is the second call.
        let _ = state.peers.set(following(state, Arc::clone(network) as _));
        // Nobody could be asked for good copies before.
        state.scrub.look_again();
    }

    /// Returns the addresses at which other nodes reach this one, each with its id; waits until it listens. None for
    /// a node that has not joined a network.
    pub async fn peer_addresses(&self) -> Vec<p2p::Multiaddr> {
        match self.state.network.get() {
            Some(network) => network.addresses().await,
            None => Vec::new(),
        }
    }

    /// Returns how it stands with the network; `None` for a node that has not joined one.
    pub fn peer_status(&self) -> Option<p2p::PeerStatus> {
        self.state.network.get().map(|network| network.status())
    }

    /// Waits until something is so of how it stands with the network, and returns how it stands then. `None` for a
    /// node that has not joined one, or is closed meanwhile.
    pub async fn peer_status_when(
        &self,
        is_so: impl FnMut(&p2p::PeerStatus) -> bool + Send,
    ) -> Option<p2p::PeerStatus> {
        self.state.network.get()?.when(is_so).await
    }

    /// Tells the node an address of another one, as the network would.
    pub async fn know_peer(&self, peer: &PeerId, address: p2p::Multiaddr) {
        if let Some(network) = self.state.network.get() {
            network.know(peer, address).await;
        }
    }

    /// Returns the way to other nodes; `None` for a node that takes no part in a network.
    pub fn peers(&self) -> Option<&dyn p2p::Peers> {
        self.state.peers()
    }

    /// Serves connections until `shutdown` resolves, then lets requests in flight finish within the grace period.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        start_scrub(&self.state);
        start_sweep(&self.state);
        self.join();
        serve(
            Arc::clone(&self.state),
            listener,
            Transport::Plain,
            shutdown,
        )
        .await
    }

    /// As [`Self::serve`], over TLS: HTTP/2 or HTTP/1.1, as the client likes.
    ///
    /// # Errors
    /// When the listener cannot be used, or no certificate was configured.
    pub async fn serve_tls(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let missing = || io::Error::other("TLS is not configured");
        let certificates = self.state.tls.as_ref().ok_or_else(missing)?;
        let config = certificates.server_config().map_err(io::Error::other)?;
        serve(
            Arc::clone(&self.state),
            listener,
            Transport::Tls(config),
            shutdown,
        )
        .await
    }

    /// Sends everybody to the TLS listener on `port`, and answers certificate authorities.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn serve_redirect(
        &self,
        listener: TcpListener,
        port: u16,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let host = self
            .state
            .config
            .public_host
            .as_deref()
            .unwrap_or("localhost");
        let site = secure_site(host, port);
        serve(
            Arc::clone(&self.state),
            listener,
            Transport::Redirect(site),
            shutdown,
        )
        .await
    }

    /// Serves on `main` and on what [`Config::tls`] asks for, until `shutdown` resolves.
    ///
    /// # Errors
    /// When a listener cannot be used; the others are shut down then.
    pub async fn serve_all(
        &self,
        main: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let tls = bind(self.state.config.tls.listen).await?;
        let redirect = match &tls {
            Some(_) => bind(self.state.config.tls.redirect).await?,
            None => None,
        };
        let (stop, stopping) = watch::channel(false);
        let stopped = || {
            let mut stopping = stopping.clone();
            async move { drop(stopping.wait_for(|stop| *stop).await) }
        };
        let port = match &tls {
            Some(listener) => listener.local_addr()?.port(),
            None => 0,
        };
        // Whatever ends first, by order or by failure, ends all.
        let ended = async |served: io::Result<()>| {
            stop.send_replace(true);
            served
        };
        let (main, tls, redirect, ()) = tokio::join!(
            async { ended(self.serve(main, stopped()).await).await },
            async {
                match tls {
                    Some(listener) => ended(self.serve_tls(listener, stopped()).await).await,
                    None => Ok(()),
                }
            },
            async {
                match redirect {
                    Some(listener) => {
                        ended(self.serve_redirect(listener, port, stopped()).await).await
                    }
                    None => Ok(()),
                }
            },
            async {
                tokio::select! {
                    () = shutdown => drop(stop.send_replace(true)),
                    () = stopped() => {}
                }
            },
        );
        main.and(tls).and(redirect)
    }

    /// Looks at the certificate files now, without waiting for the next turn.
    ///
    /// # Errors
    /// When they cannot be used; the certificate before stays in use.
    pub fn reload_certificates(&self) -> Result<(), TlsError> {
        self.state.tls.as_ref().map_or(Ok(()), Certificates::look)
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

/// Returns the way to other nodes that follows them to new identities.
fn following(state: &State, peers: Arc<dyn p2p::Peers>) -> Arc<dyn p2p::Peers> {
    p2p::Following::new(peers, Arc::clone(&state.clock))
}

async fn bind(address: Option<SocketAddr>) -> io::Result<Option<TcpListener>> {
    let Some(address) = address else {
        return Ok(None);
    };
    let bound = TcpListener::bind(address).await;
    bound.map(Some).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// Opens the store that `config` names, wherever its halves are.
pub(crate) async fn open_data_set(config: &Config) -> Result<Arc<dyn Store>, OpenError> {
    with_blocks(config, open_store(config).await?).await
}

async fn open_store(config: &Config) -> Result<Arc<dyn Store>, OpenError> {
    if let MetadataPlace::Postgres(options) = &config.metadata {
        if let Some(folder) = &config.data {
            make_folder(folder).map_err(|source| OpenError::Folder {
                path: folder.clone(),
                source,
            })?;
        }
        let mut options = options.as_ref().clone();
        options.clock = store_clock(config);
        return Ok(Arc::new(PostgresStore::open(options).await?));
    }
    let Some(folder) = &config.data else {
        return Ok(Arc::new(MemoryStore::new()));
    };
    make_folder(folder).map_err(|source| OpenError::Folder {
        path: folder.clone(),
        source,
    })?;
    let mut options = DiskOptions::new(config.store_folder().unwrap_or_else(|| folder.clone()));
    options.free_floor = config.free_floor;
    Ok(Arc::new(DiskStore::open(options)?))
}

/// Returns the host that browsers transfer blocks with, if the store lets them (Spec: 13 §5).
fn block_host(store: &dyn Store) -> Option<BlockHost> {
    let offer = store.direct()?.offer();
    offer.origin.strip_prefix("https://")?.parse().ok()
}

/// Returns the node's clock as stores read it.
fn store_clock(config: &Config) -> StoreClock {
    let of_node = Arc::clone(&config.clock);
    Arc::new(move || {
        let millis = u64::try_from(of_node.now_millis()).unwrap_or(0);
        std::time::UNIX_EPOCH + Duration::from_millis(millis)
    })
}

/// Puts the blocks where the settings want them.
async fn with_blocks(config: &Config, store: Arc<dyn Store>) -> Result<Arc<dyn Store>, OpenError> {
    let BlockPlace::S3(options) = &config.blocks else {
        return Ok(store);
    };
    let clock = store_clock(config);
    let meta: Arc<dyn MetaEngine> = store;
    let blocks =
        S3Blocks::open(options, meta.as_ref(), config.cache_folder(), clock.clone()).await?;
    Ok(Arc::new(blocks.with_metadata(meta, clock)))
}

/// Makes the data folder readable by its owner only: second factor keys are in it.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // A folder that was made by other means; the keys in it are checked on their own.
        let mode = fs::metadata(folder)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
            tracing::warn!(folder = %folder.display(), "others could enter the data folder; closed it to them");
        }
    }
    Ok(())
}

/// Reads or makes the key of second factors; never makes a new one next to rows that need another.
async fn factor_key(folder: Option<&Path>, store: &dyn Store) -> Result<FactorKey, OpenError> {
    let bytes = match folder {
        _ if store.is_shared() => shared_secret(store, folder, SECOND_FACTOR_KEY).await?,
        Some(folder) => {
            let is_there = folder.join(SECOND_FACTOR_KEY).exists();
            if !is_there && second_factors::needs_key(store).await? {
                return Err(FactorKeyError::Missing.into());
            }
            load_or_create_secret(folder, SECOND_FACTOR_KEY)?
        }
        None => second_factors::key_in_memory(store).await?,
    };
    Ok(second_factors::unlock(store, &bytes).await??)
}

/// Adds the configured sign-up tokens that were not added before; a used one does not come back.
async fn add_tokens(state: &State) -> Result<(), Refusal> {
    for token in &state.config.signup_tokens {
        let seen = [b"token ".as_slice(), &token_key(token)].concat();
        let batch = Batch::new()
            .expect_absent(tables::NODE, seen.clone())
            .put(tables::NODE, seen, Bytes::new())
            .put(tables::SIGNUP_TOKENS, token_key(token), Bytes::new());
        let _ = state.store.commit(batch).await?;
    }
    Ok(())
}
