//! What an operator may choose. Every field has a default that works for one person at home.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use champ::{Cid, access::Bat};

use crate::{
    check::ScrubOptions,
    clock::{Clock, SystemClock},
    store::FreeFloor,
};

/// Settings of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder that holds everything the node keeps; made when missing, readable by its owner only.
    /// `None` keeps everything in memory.
    pub data: Option<PathBuf>,
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
    /// Token that opens every block: for the operator's own mirror.
    pub instance_bat: Option<Bat>,
    /// Seconds of the sliding window in which a user may upload as many bytes as the quota.
    pub upload_window: Duration,
    /// Space of the file system to leave to others.
    pub free_floor: FreeFloor,
    /// How often and how fast every stored block is verified.
    pub scrub: ScrubOptions,
    /// Limits of the listener.
    pub limits: Limits,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Server ids to answer to instead of the one kept in the data folder; the last one is current.
    pub server_ids: Vec<Cid>,
}

impl Config {
    /// Returns the folder of the store inside the data folder.
    pub fn store_folder(&self) -> Option<PathBuf> {
        self.data.as_ref().map(|folder| folder.join("store"))
    }
}

/// Limits of the listener (Spec: 40 §9).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections; more wait to be accepted.
    pub connections: usize,
    /// Open connections of one address; loopback is exempt.
    pub connections_per_address: usize,
    /// Time to send the headers of a request, which is also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// Time an answer may be stuck because the client does not read.
    pub write_timeout: Duration,
    /// How long requests in flight may run after shutdown began.
    pub shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 256,
            header_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: None,
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
            instance_bat: None,
            upload_window: Duration::from_secs(86_400),
            free_floor: FreeFloor::Default,
            scrub: ScrubOptions::default(),
            limits: Limits::default(),
            clock: Arc::new(SystemClock),
            server_ids: Vec::new(),
        }
    }
}
