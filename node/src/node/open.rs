//! Opening a node: keys, names and stores come together, and what is missing on a first start is made.

use std::{
    io,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use pki::{
    keys::{Owner, SecretKeyWithHash},
    proof_of_work::DifficultyPolicy,
};

use super::{
    Node,
    peers::following,
    stores::{block_host, open_data_set},
};
use crate::{
    backup::{self, RESTORING_FILE},
    challenges::Challenges,
    check::Scrub,
    config::Config,
    directory::Directory,
    error::Refusal,
    gc::{self, Collector},
    guard::Guards,
    health::Probe,
    http::{Admission, Hosts},
    identity::{KeyFileError, load_or_create_secret},
    metrics::{self, Metrics},
    migration,
    mirror::{self, Mirrors},
    names::{self, Names},
    node_keys::NodeKeys,
    registrar::Registrar,
    second_factors::{self, FactorKey, FactorKeyError},
    shared_keys::{SharedKeyError, shared_secret},
    signup::{UserCount, token_key},
    state::{State, StoreHandle},
    store::{Batch, Store, StoreError, tables},
    sweep,
    tls::{self, Certificates, TlsError},
    usage::{self, Usage},
    web::{Pages, RootError},
    webauthn::InvalidHost,
    workers::Workers,
    writers::Writers,
};

/// File of the key under which second factor secrets are stored.
pub(crate) const SECOND_FACTOR_KEY: &str = "second-factors.key";

/// How long the log reminds of a restore.
const RESTORE_NOTICE_SECONDS: i64 = 30 * 86_400;

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
