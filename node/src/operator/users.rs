//! The accounts of a node, as far as a node can know them.

use std::collections::BTreeSet;

use champ::Cid;
use pki::username::{PKI_OWNER, Username};
use serde::{Deserialize, Serialize};

use super::{Failed, FailedKind, Operation, Report, Unit};
use crate::{
    bats,
    directory::{Removal, User},
    node::Node,
    pointers, second_factors,
    state::State,
    store::tables,
    usage::stored_quota,
    writers::{self, WriterRow},
};

/// Rows read at once.
const PAGE: usize = 1000;

/// Lists the accounts that have space or data here. Items: [`UserSummary`], in order of names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListUsers {}

/// How many accounts there are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UsersListed {
    /// Number of accounts.
    pub users: u64,
    /// Confirmed bytes of all.
    pub used_bytes: u64,
}

/// An account in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserSummary {
    /// Name.
    pub name: String,
    /// Where the account lives.
    pub home: Home,
    /// Space in bytes; `None` without a quota: the account cannot write.
    pub quota_bytes: Option<u64>,
    /// Confirmed bytes.
    pub used_bytes: u64,
    /// Bytes on their way: written and not yet committed.
    pub pending_bytes: u64,
    /// Signing keys that write for the account.
    pub writers: u64,
    /// True for a configured administrator.
    pub is_admin: bool,
}

/// Where an account lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Home {
    /// This node.
    Here,
    /// Another node; this one may keep a mirror.
    Elsewhere,
    /// Nowhere: the account was removed from this node.
    Removed,
    /// Its removal was begun and cut off: `users remove` finishes it.
    BeingRemoved,
    /// Nobody has the name yet: it only has space reserved.
    Unclaimed,
}

impl Operation for ListUsers {
    const NAME: &'static str = "users-list";
    type Outcome = UsersListed;

    async fn run(self, node: &Node, report: &Report) -> Result<UsersListed, Failed> {
        let state = node.state();
        let names = names(state).await?;
        let total = names.len() as u64;
        let mut listed = UsersListed {
            users: 0,
            used_bytes: 0,
        };
        for name in names {
            let user = summary(state, &name).await?;
            listed.users += 1;
            listed.used_bytes = listed.used_bytes.saturating_add(user.used_bytes);
            report.item(&user).await;
            report.progress("accounts", listed.users, Some(total), Unit::Items);
        }
        Ok(listed)
    }
}

/// Shows one account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShowUser {
    /// User name.
    pub name: String,
}

/// All that the node knows about an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserDetails {
    /// What a list shows.
    #[serde(flatten)]
    pub summary: UserSummary,
    /// Hash of the identity key; `None` for an unclaimed name.
    pub identity: Option<String>,
    /// Last day of the claim on the name, as `YYYY-MM-DD`.
    pub claim_expires: Option<String>,
    /// Blocks stored, also those that nothing points to any more.
    pub blocks: u64,
    /// Their bytes.
    pub block_bytes: u64,
    /// True when login data is stored.
    pub can_log_in: bool,
    /// Enabled second factors.
    pub second_factors: u64,
    /// Mirror access tokens.
    pub mirror_tokens: u64,
    /// Follow requests that wait.
    pub follow_requests: u64,
    /// Its writers.
    pub writing_keys: Vec<WriterDetails>,
}

/// A writer of an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WriterDetails {
    /// Hash of the key.
    pub key: String,
    /// The writer that vouches for it; `None` for the identity.
    pub parent: Option<String>,
    /// Bytes counted for it.
    pub bytes: u64,
    /// Its pointer's sequence; `None` without pointer.
    pub sequence: Option<i64>,
    /// Nothing owns it any more: it is not counted.
    pub is_detached: bool,
}

impl Operation for ShowUser {
    const NAME: &'static str = "users-show";
    type Outcome = UserDetails;

    async fn run(self, node: &Node, _: &Report) -> Result<UserDetails, Failed> {
        let state = node.state();
        let name = known_name(state, &self.name).await?;
        let summary = summary(state, &name).await?;
        let mut details = UserDetails {
            summary,
            identity: None,
            claim_expires: None,
            blocks: 0,
            block_bytes: 0,
            can_log_in: false,
            second_factors: 0,
            mirror_tokens: 0,
            follow_requests: 0,
            writing_keys: Vec::new(),
        };
        let Some(user) = claimed(state, &name).await? else {
            return Ok(details);
        };
        let chain = state.directory.chain(name.as_str()).await?;
        details.claim_expires = chain
            .links()
            .last()
            .map(|link| link.claim.expiry.to_string());
        details.identity = Some(user.identity.to_string());
        let counts = state.store.block_counts(&user.partition).await?;
        (details.blocks, details.block_bytes) = (counts.blocks, counts.bytes);
        let login = state.store.get(tables::LOGINS, name.as_str().as_bytes());
        details.can_log_in = login.await?.is_some();
        details.second_factors = second_factors::enabled(state, &name).await?.len() as u64;
        details.mirror_tokens = bats::of_user(state, &name).await?.len() as u64;
        let requests = crate::follow_requests::list(state, &user.identity).await?;
        details.follow_requests = requests.len() as u64;
        for (writer, row) in writers_of(state, &name).await? {
            let update = pointers::stored_update(state, &writer).await?;
            details.writing_keys.push(WriterDetails {
                key: writer.to_string(),
                parent: row.parent.map(|parent| parent.to_string()),
                bytes: row.bytes,
                sequence: update.and_then(|update| update.sequence()),
                is_detached: row.is_detached,
            });
        }
        Ok(details)
    }
}

/// Parses a name that somebody could sign up with.
pub(super) fn new_name(name: &str) -> Result<Username, Failed> {
    Username::parse_new(name)
        .map_err(|error| Failed::new(FailedKind::NotAllowed, format!("`{name}`: {error}")))
}

/// Parses a name and checks that the node knows it: claimed, or with space reserved.
pub(super) async fn known_name(state: &State, name: &str) -> Result<Username, Failed> {
    let parsed = Username::parse(name).map_err(|_| Failed::no_user(name))?;
    let is_claimed = !state.directory.chain(name).await?.is_empty();
    if is_claimed || stored_quota(state, &parsed).await?.is_some() {
        return Ok(parsed);
    }
    Err(Failed::no_user(name))
}

/// Returns the routing of a name, `None` when nobody has claimed it.
pub(super) async fn claimed(
    state: &State,
    name: &Username,
) -> Result<Option<std::sync::Arc<User>>, Failed> {
    if state.directory.chain(name.as_str()).await?.is_empty() {
        return Ok(None);
    }
    Ok(Some(state.directory.named(name.as_str()).await?))
}

/// Returns the registered writers of a user with their rows.
pub(super) async fn writers_of(
    state: &State,
    name: &Username,
) -> Result<Vec<(pki::keys::Writer, WriterRow)>, Failed> {
    let mut prefix = name.as_str().as_bytes().to_vec();
    prefix.push(0);
    let mut found = Vec::new();
    let mut after: Option<bytes::Bytes> = None;
    loop {
        let page = state
            .store
            .scan(tables::USER_WRITERS, &prefix, after.as_deref(), PAGE)
            .await?;
        let Some((last, _)) = page.last() else {
            return Ok(found);
        };
        after = Some(last.clone());
        for (key, _) in page {
            let damaged = || Failed::new(FailedKind::Damaged, "a stored writer is damaged");
            let key = key.get(prefix.len()..).unwrap_or_default();
            let cid = Cid::decode(key).map_err(|_| damaged())?;
            let writer = writers::writer_of(cid).map_err(|_| damaged())?;
            if let Some((_, row)) = writers::read_row(state, &writer).await? {
                found.push((writer, row));
            }
        }
    }
}

/// Returns the names that have space or writers here, without the owner of the name table.
async fn names(state: &State) -> Result<BTreeSet<Username>, Failed> {
    let mut names = BTreeSet::new();
    for table in [tables::QUOTAS, tables::USER_WRITERS, tables::REMOVED] {
        let mut after: Option<bytes::Bytes> = None;
        loop {
            let page = state.store.scan(table, b"", after.as_deref(), PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, row) in page {
                if table == tables::REMOVED && row.as_ref() == b"done" {
                    continue;
                }
                // Names hold no zero byte: what follows one is the writer.
                let name = key.split(|byte| *byte == 0).next().unwrap_or_default();
                let name = std::str::from_utf8(name).ok();
                if let Some(name) = name.and_then(|name| Username::parse(name).ok()) {
                    names.insert(name);
                }
            }
        }
    }
    names.retain(|name| name.as_str() != PKI_OWNER);
    Ok(names)
}

async fn summary(state: &State, name: &Username) -> Result<UserSummary, Failed> {
    let quota_bytes = stored_quota(state, name).await?;
    let mut summary = UserSummary {
        name: name.as_str().to_owned(),
        home: Home::Unclaimed,
        quota_bytes,
        used_bytes: 0,
        pending_bytes: 0,
        writers: 0,
        is_admin: state.config.admins.contains(name.as_str()),
    };
    let Some(user) = claimed(state, name).await? else {
        return Ok(summary);
    };
    summary.home = match (state.directory.removal(name).await?, user.is_local) {
        (Some(Removal::Done), _) => Home::Removed,
        (Some(Removal::Going), _) => Home::BeingRemoved,
        (None, true) => Home::Here,
        (None, false) => Home::Elsewhere,
    };
    let (confirmed, pending) = state.usage.present(state, &user).await?;
    (summary.used_bytes, summary.pending_bytes) = (confirmed, pending);
    summary.writers = writers_of(state, name).await?.len() as u64;
    Ok(summary)
}
