//! What an operator may choose. Every field has a default that works for one person at home.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use champ::{Cid, access::Bat};

use crate::{
    check::ScrubOptions,
    clock::{Clock, SystemClock},
    gc::CollectionConfig,
    names::NameAuthority,
    p2p::P2pConfig,
    store::{FreeFloor, PostgresOptions, s3::S3Options},
    web::PageSettings,
};
pub use crate::{
    http::{Network, NotANetwork},
    names::NotAnAuthority,
    tls::TlsConfig,
};

/// Where metadata is kept.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum MetadataPlace {
    /// In the data folder, or in memory without one.
    #[default]
    Data,
    /// In a PostgreSQL database, which several nodes may share; `docs/postgresql.md`.
    Postgres(Box<PostgresOptions>),
}

/// Where the bytes of blocks are kept.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum BlockPlace {
    /// Where the metadata is.
    #[default]
    WithMetadata,
    /// In a bucket; `docs/s3.md`.
    S3(Box<S3Options>),
}

/// Settings of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder that holds everything the node keeps; made when missing, readable by its owner only.
    /// `None` keeps everything in memory.
    pub data: Option<PathBuf>,
    /// Where metadata is kept.
    pub metadata: MetadataPlace,
    /// Where the main listener binds.
    pub listen: SocketAddr,
    /// Host name, with port if it is not a default one, under which browsers reach the node.
    pub public_host: Option<String>,
    /// True when strangers may reach the node: body-less calls may then come as GET.
    pub is_public: bool,
    /// Bytes a new user may store.
    pub default_quota_bytes: u64,
    /// Number of users with a quota up to which anybody may sign up.
    pub max_users: u64,
    /// Sign-up tokens to add at start; each admits one user also when sign-ups are closed.
    pub signup_tokens: Vec<String>,
    /// New names per day before sign-ups cost proof of work; 0 refuses all new names.
    pub max_signups_per_day: u64,
    /// Names of the users who may approve space requests.
    pub admins: BTreeSet<String>,
    /// True when addresses may be left for later (waiting list).
    pub waiting_list: bool,
    /// Where `/metrics` and `/health` are served to monitoring programs; `None` for nowhere but the socket.
    pub monitoring: Option<SocketAddr>,
    /// True when that may be an address that other machines reach; the token then travels unencrypted.
    pub monitoring_is_open: bool,
    /// Folder with a web application to serve.
    pub web: Option<PathBuf>,
    /// Which apps have a host of their own, and what pages may load besides the site.
    pub pages: PageSettings,
    /// Token that opens every block: for the operator's own mirror.
    pub instance_bat: Option<Bat>,
    /// Seconds of the sliding window in which a user may upload as many bytes as the quota.
    pub upload_window: Duration,
    /// Space of the file system to leave to others.
    pub free_floor: FreeFloor,
    /// How often and how fast every stored block is verified.
    pub scrub: ScrubOptions,
    /// How garbage is collected.
    pub collection: CollectionConfig,
    /// Where the bytes of blocks are kept.
    pub blocks: BlockPlace,
    /// Limits of the listeners.
    pub limits: Limits,
    /// Reverse proxies in front of this node: only what comes from them is asked for `X-Forwarded-For` or
    /// `Forwarded`, `X-Forwarded-Host` and `X-Forwarded-Proto`.
    pub trusted_proxies: Vec<Network>,
    /// The TLS listener, if there is one.
    pub tls: TlsConfig,
    /// Other nodes.
    pub p2p: P2pConfig,
    /// The network whose names this node follows; `None` for a node that gives out names of its own.
    pub name_authority: Option<NameAuthority>,
    /// How names and users of other nodes are followed.
    pub mirror: MirrorConfig,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// True to make a new identity key when the one of the data folder is lost or was exchanged. For one start:
    /// the ids of before still name the node afterwards.
    pub allows_new_identity: bool,
    /// Server ids to answer to instead of the one kept in the data folder; the last one is current.
    pub server_ids: Vec<Cid>,
}

impl Config {
    /// Returns the folder of the store inside the data folder.
    pub fn store_folder(&self) -> Option<PathBuf> {
        self.data.as_ref().map(|folder| folder.join("store"))
    }

    /// Returns the folder of the read cache inside the data folder.
    pub fn cache_folder(&self) -> Option<PathBuf> {
        self.data.as_ref().map(|folder| folder.join("cache"))
    }
}

/// How names and users of other nodes are followed.
#[derive(Debug, Clone, Copy)]
pub struct MirrorConfig {
    /// True to look once a minute for what changed at other nodes; else only when the operator asks.
    pub is_automatic: bool,
    /// Most bytes of blocks that are read from other nodes per second; `None` for no bound.
    pub bytes_per_second: Option<u64>,
}

impl Default for MirrorConfig {
    fn default() -> Self {
        Self {
            is_automatic: true,
            bytes_per_second: None,
        }
    }
}

/// Limits of the listeners (Spec: 40 §9). A client in the field has up to 50 requests in flight.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections of all listeners; more are answered with 503 and closed.
    pub connections: usize,
    /// Open connections of one address (of one /64 in IPv6); loopback and trusted proxies are exempt.
    pub connections_per_address: usize,
    /// Requests at work; more are answered with 503.
    pub requests: usize,
    /// Requests of one address at work; more are answered with 429. Loopback is exempt.
    pub requests_per_address: usize,
    /// Bytes of bodies and answers in memory; what would be above is answered with 503.
    pub buffered_bytes: usize,
    /// Time to send the head of a request, from its first byte or from the beginning of the connection.
    pub header_timeout: Duration,
    /// Time a connection is kept between an answer and the next request.
    pub keep_alive: Duration,
    /// Longest wait for the next piece of a body.
    pub body_idle: Duration,
    /// Longest time for a whole body.
    pub body_time: Duration,
    /// After this much time of sending or receiving the rate must be at least `min_rate`.
    pub slow_after: Duration,
    /// Least bytes a second of a client that sends a body or takes an answer.
    pub min_rate: u64,
    /// How long requests in flight may run after shutdown began.
    pub shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 64,
            requests: 1000,
            requests_per_address: 128,
            buffered_bytes: 128 << 20,
            header_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            body_idle: Duration::from_secs(20),
            body_time: Duration::from_secs(600),
            slow_after: Duration::from_secs(30),
            min_rate: 1024,
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: None,
            metadata: MetadataPlace::default(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            public_host: None,
            is_public: false,
            default_quota_bytes: 1 << 40,
            max_users: 10_000,
            signup_tokens: Vec::new(),
            max_signups_per_day: 100_000,
            admins: BTreeSet::new(),
            waiting_list: false,
            monitoring: None,
            monitoring_is_open: false,
            web: None,
            pages: PageSettings::default(),
            instance_bat: None,
            upload_window: Duration::from_secs(86_400),
            free_floor: FreeFloor::Default,
            scrub: ScrubOptions::default(),
            collection: CollectionConfig::default(),
            blocks: BlockPlace::default(),
            limits: Limits::default(),
            trusted_proxies: Vec::new(),
            tls: TlsConfig::default(),
            p2p: P2pConfig::default(),
            name_authority: None,
            mirror: MirrorConfig::default(),
            clock: Arc::new(SystemClock),
            allows_new_identity: false,
            server_ids: Vec::new(),
        }
    }
}
