//! Copies of other nodes' users: which, how far, now (Spec: 12 §5, §6).

use std::sync::Arc;

use champ::access::{Bat, BatWithId};
use pki::username::Username;
use serde::{Deserialize, Serialize};

use super::{
    Failed, FailedKind, Operation, Report, peer_id,
    quota::set as set_quota,
    removal::{RemoveUser, UserRemoved},
    this_node,
    users::{claimed, known_name},
};
use crate::{
    bats,
    directory::User,
    migration,
    mirror::{self, Mirroring, NodeRow},
    node::Node,
    p2p::PeerId,
    state::State,
    store::{Batch, tables},
    usage::stored_quota,
};

/// Space of a copy when nothing else is said, in bytes: that of a new account.
async fn default_quota(state: &State, given: Option<u64>) -> Result<u64, Failed> {
    Ok(match given {
        Some(bytes) => super::quota::checked(bytes)?,
        None => super::quota::default_bytes(state).await?,
    })
}

/// Keeps a copy of a user whose home is another node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddMirror {
    /// User name.
    pub user: String,
    /// Node to copy from; the user's home when absent.
    pub from: Option<String>,
    /// Space of the copy in bytes; what new accounts get when absent.
    pub quota_bytes: Option<u64>,
    /// The user's mirror token, as text; when absent the user's own client brings it (`kastro mirror allow`).
    pub token: Option<String>,
}

/// A copy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MirrorShown {
    /// User name.
    pub user: String,
    /// The user's home.
    pub home: String,
    /// Where it is copied from, if not from there.
    pub from: Option<String>,
    /// True when the user has allowed the copy.
    pub is_allowed: bool,
    /// True when the user can log in here if the home is lost.
    pub can_log_in: bool,
    /// Space of the copy in bytes.
    pub quota_bytes: u64,
    /// Confirmed bytes.
    pub used_bytes: u64,
    /// When it was last in step, seconds since 1970.
    pub in_step_seconds: Option<i64>,
    /// Passes that failed in a row.
    pub failures: u32,
    /// Why the last one failed.
    pub error: Option<String>,
    /// Blocks fetched since the copy was begun.
    pub fetched_blocks: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// A move of the account that is not complete.
    pub moving: Option<String>,
}

impl Operation for AddMirror {
    const NAME: &'static str = "mirror-add";
    type Outcome = MirrorShown;

    async fn run(self, node: &Node, _: &Report) -> Result<MirrorShown, Failed> {
        let state = node.state();
        let user = foreign(state, &self.user).await?;
        let from = self.from.as_deref().map(peer_id).transpose()?;
        if from.is_some_and(|peer| state.identity.is_own(&peer.to_cid())) {
            return Err(
                this_node().help("a copy is made from the user's home when nothing is said")
            );
        }
        let token = self.token.as_deref().map(read_token).transpose()?;
        if stored_quota(state, &user.name).await?.is_none() || self.quota_bytes.is_some() {
            let quota = default_quota(state, self.quota_bytes).await?;
            set_quota(state, &user.name, quota, Batch::new()).await?;
        }
        if let Some(token) = token {
            bats::add_copy(state, &user.name, &token).await?;
        }
        let name = user.name.as_str();
        let mut row = Mirroring(state).user(name).await?.unwrap_or_default();
        // From the home, said or not, means wherever that is after a move.
        let is_home = |peer: &PeerId| peer.to_cid().hash() == user.home.hash();
        let from = from.filter(|peer| !is_home(peer));
        row.from = from.map(|peer| peer.to_string());
        row.due_seconds = 0;
        // What it failed at is tried anew, in other circumstances.
        (row.failures, row.error) = (0, None);
        Mirroring(state).set_user(name, &row).await?;
        shown(state, &user).await
    }
}

/// Reads a token as people are shown it: with its id, or the secret alone.
fn read_token(text: &str) -> Result<BatWithId, Failed> {
    BatWithId::parse(text.trim())
        .or_else(|_| {
            let bat = Bat::parse(text.trim())?;
            let id = bat.secret_hash_id();
            Ok::<_, champ::cbor::RecordError>(BatWithId { bat, id })
        })
        .map_err(|_| Failed::new(FailedKind::NotAllowed, "not a mirror token"))
}

async fn foreign(state: &State, name: &str) -> Result<Arc<User>, Failed> {
    let parsed = Username::parse(name).map_err(|_| Failed::no_user(name))?;
    let user = claimed(state, &parsed).await?;
    let user = user.ok_or_else(|| {
        Failed::new(FailedKind::NotFound, format!("there is no user {name}")).help(
            "names of other nodes are known once the node follows their network: `kastro names`",
        )
    })?;
    let is_removed = state.directory.removal(&user.name).await?.is_some();
    if user.is_local || (is_removed && state.identity.is_own(&user.home)) {
        return Err(Failed::new(
            FailedKind::Refused,
            format!("this node is the home of {name}"),
        ));
    }
    Ok(user)
}

async fn shown(state: &State, user: &User) -> Result<MirrorShown, Failed> {
    let name = user.name.as_str();
    let row = Mirroring(state).user(name).await?.unwrap_or_default();
    let home =
        PeerId::from_cid(&user.home).map_or_else(|_| user.home.to_string(), |p| p.to_string());
    let moving = migration::of_user(state, &user.name).await?;
    let moving = moving.filter(|(_, moved)| moved.phase != migration::Phase::Left);
    let login = state.store.get(tables::LOGINS, name.as_bytes()).await?;
    Ok(MirrorShown {
        user: name.to_owned(),
        home,
        from: row.from,
        is_allowed: bats::newest(state, &user.name).await?.is_some(),
        can_log_in: login.is_some(),
        quota_bytes: stored_quota(state, &user.name).await?.unwrap_or(0),
        used_bytes: state.usage.confirmed(state, user).await?,
        in_step_seconds: row.in_step_seconds,
        failures: row.failures,
        error: row.error,
        fetched_blocks: row.blocks,
        fetched_bytes: row.bytes,
        moving: moving.map(|(_, moved)| match moved.phase {
            migration::Phase::Arriving => format!("from {}", moved.other),
            _ => format!("to {}", moved.other),
        }),
    })
}

/// Ends a copy and deletes it from this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveMirror {
    /// User name.
    pub user: String,
}

impl Operation for RemoveMirror {
    const NAME: &'static str = "mirror-remove";
    type Outcome = UserRemoved;

    async fn run(self, node: &Node, report: &Report) -> Result<UserRemoved, Failed> {
        let state = node.state();
        known_name(state, &self.user).await?;
        let user = foreign(state, &self.user).await?;
        let row = Mirroring(state).user(&self.user).await?;
        let is_kept = row.is_some()
            || stored_quota(state, &user.name).await?.is_some()
            || state.usage.confirmed(state, &user).await? > 0;
        if !is_kept {
            let text = format!("this node keeps no copy of {}", self.user);
            return Err(Failed::new(FailedKind::NotFound, text)
                .help("`kastro mirror status` shows the copies it keeps"));
        }
        let key = self.user.as_bytes().to_vec();
        let remove = RemoveUser {
            name: self.user,
            force: false,
        };
        let removed = remove.run(node, report).await?;
        let batch = Batch::new().remove(tables::MIRRORS, key);
        let _ = state.store.commit(batch).await?;
        Ok(removed)
    }
}

/// Lists the copies. Items: [`MirrorShown`], in order of names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListMirrors {}

/// What mirroring is about.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MirrorsListed {
    /// Number of copies.
    pub copies: u64,
    /// The node that is mirrored as a whole.
    pub node: Option<NodeMirror>,
}

/// A node that is mirrored as a whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeMirror {
    /// Its id.
    pub node: String,
    /// Space of each copy, in bytes.
    pub quota_bytes: u64,
    /// When all its users were last copied, seconds since 1970.
    pub in_step_seconds: Option<i64>,
    /// Users copied in the last run.
    pub users: u64,
    /// Users that failed in it.
    pub failed: u64,
    /// Why the last run failed.
    pub error: Option<String>,
}

impl Operation for ListMirrors {
    const NAME: &'static str = "mirror-list";
    type Outcome = MirrorsListed;

    async fn run(self, node: &Node, report: &Report) -> Result<MirrorsListed, Failed> {
        let state = node.state();
        let mut listed = MirrorsListed {
            node: Mirroring(state).node().await?.map(|row| NodeMirror {
                node: row.from,
                quota_bytes: row.quota_bytes,
                in_step_seconds: row.in_step_seconds,
                users: row.users,
                failed: row.failed,
                error: row.error,
            }),
            ..MirrorsListed::default()
        };
        for user in mirror::users(state).await? {
            report.item(&shown(state, &user).await?).await;
            listed.copies += 1;
        }
        Ok(listed)
    }
}

/// Brings all copies into step now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunMirrors {}

/// What a round did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorsRun {
    /// Users that are in step.
    pub in_step: u64,
    /// Users whose pass failed.
    pub failed: u64,
    /// Blocks fetched.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Moves of accounts that are not complete.
    pub moving: u64,
}

impl Operation for RunMirrors {
    const NAME: &'static str = "mirror-run";
    type Outcome = MirrorsRun;

    async fn run(self, node: &Node, _: &Report) -> Result<MirrorsRun, Failed> {
        let state = node.state();
        let moving = migration::round(state).await?;
        let round = mirror::round(state, true).await?;
        Ok(MirrorsRun {
            in_step: round.in_step,
            failed: round.failed,
            blocks: round.blocks,
            bytes: round.bytes,
            moving,
        })
    }
}

/// Keeps copies of all users of another node, which knows this one by its instance token.
#[derive(Clone, Serialize, Deserialize)]
pub struct MirrorNode {
    /// The node's id; `None` ends the mirroring and leaves the copies.
    pub from: Option<String>,
    /// The other node's `instance_bat`, as text.
    pub token: String,
    /// Space of each copy in bytes; what new accounts get when absent.
    pub quota_bytes: Option<u64>,
}

impl std::fmt::Debug for MirrorNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MirrorNode")
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

impl Operation for MirrorNode {
    const NAME: &'static str = "mirror-node";
    type Outcome = MirrorsListed;

    async fn run(self, node: &Node, report: &Report) -> Result<MirrorsListed, Failed> {
        let state = node.state();
        let row = match self.from {
            None => None,
            Some(from) => {
                let peer = peer_id(&from)?;
                Bat::parse(self.token.trim())
                    .map_err(|_| Failed::new(FailedKind::NotAllowed, "not an instance token"))?;
                Some(NodeRow {
                    from: peer.to_string(),
                    token: self.token.trim().to_owned(),
                    quota_bytes: default_quota(state, self.quota_bytes).await?,
                    in_step_seconds: None,
                    due_seconds: 0,
                    users: 0,
                    failed: 0,
                    error: None,
                })
            }
        };
        Mirroring(state).set_node(row.as_ref()).await?;
        ListMirrors::default().run(node, report).await
    }
}
