//! A node at a glance, for `kastro doctor`.

use std::{net::SocketAddr, path::PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Failed, FailedKind, Operation, Report, quota};
use crate::{
    health::examine,
    node::Node,
    state::State,
    store::{Table, tables},
};

/// Rows read at once.
const PAGE: usize = 10_000;

/// Shows how the node is, for `kastro doctor`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ShowOverview {}

/// How a node is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Overview {
    /// Version of the program.
    pub version: String,
    /// Process.
    pub pid: u32,
    /// Server id.
    pub id: String,
    /// Where it listens; meaningless for a folder that no node serves.
    pub listen: SocketAddr,
    /// True when TLS is configured.
    pub has_tls: bool,
    /// Until when the certificate in use is good, in seconds since 1970 UTC.
    pub certificate_until: Option<i64>,
    /// Host name under which browsers reach it.
    pub public_host: Option<String>,
    /// Folder with a web application.
    pub web: Option<PathBuf>,
    /// Its clock, in UTC milliseconds since 1970.
    pub now_epoch_millis: i64,
    /// Accounts with space.
    pub users: u64,
    /// Accounts up to which anybody may sign up.
    pub max_users: u64,
    /// Configured administrators who do not exist.
    pub missing_admins: Vec<String>,
    /// Requests for more space that wait.
    pub space_requests: u64,
    /// Accounts whose removal was cut off.
    pub unfinished_removals: Vec<String>,
    /// True when an operator's command set the quota of new accounts.
    pub is_default_quota_set: bool,
    /// The health page.
    pub health: serde_json::Value,
}

impl Operation for ShowOverview {
    const NAME: &'static str = "overview";
    type Outcome = Overview;

    async fn run(self, node: &Node, _: &Report) -> Result<Overview, Failed> {
        let state = node.state();
        let mut missing_admins = Vec::new();
        for name in &state.config.admins {
            if state.directory.chain(name).await?.is_empty() {
                missing_admins.push(name.clone());
            }
        }
        let mut unfinished_removals = Vec::new();
        for (key, row) in rows(state, tables::REMOVED).await? {
            if row.as_ref() != b"done" {
                unfinished_removals.push(String::from_utf8_lossy(&key).into_owned());
            }
        }
        Ok(Overview {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            id: state.identity.current().to_string(),
            listen: state.config.listen,
            has_tls: state.tls.is_some(),
            certificate_until: state.tls.as_ref().and_then(|tls| tls.good_until()),
            public_host: state.config.public_host.clone(),
            web: state.config.web.clone(),
            now_epoch_millis: state.clock.now_millis(),
            users: state.users.count(state).await?,
            max_users: state.config.max_users,
            missing_admins,
            space_requests: rows(state, tables::SPACE_REQUESTS).await?.len() as u64,
            unfinished_removals,
            is_default_quota_set: quota::is_default_set(state).await?,
            health: serde_json::to_value(examine(state).await)
                .map_err(|error| Failed::of(FailedKind::Internal, &error))?,
        })
    }
}

async fn rows(state: &State, table: Table) -> Result<Vec<(Bytes, Bytes)>, Failed> {
    let mut rows: Vec<(Bytes, Bytes)> = Vec::new();
    loop {
        let after = rows.last().map(|(key, _)| key.clone());
        let page = state.store.scan(table, b"", after.as_deref(), PAGE).await?;
        if page.is_empty() {
            return Ok(rows);
        }
        rows.extend(page);
    }
}
