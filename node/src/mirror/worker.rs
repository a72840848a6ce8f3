//! When users are copied: a pass each minute, less often for who fails (Spec: 12 §5.2, §6).

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use pki::{
    username::Username,
    wire::{
        Body as _,
        call::Call,
        mirror::{FROM_THE_BEGINNING, SnapshotsRequest, UserSnapshots},
    },
};

use super::{
    Copied, Copying, Fetching, MirrorError, Mirroring, NodeRow, Pace, Remote, UserRow,
    heal::Holders,
    pass::{pass, store_snapshot_pointers, verified},
    snapshot,
};
use crate::{
    bats,
    directory::User,
    error::{Refusal, chain},
    link_counts,
    migration::{self, Phase},
    p2p::{PeerId, ask},
    state::State,
    store::{Batch, tables},
    usage::{quota_row, stored_quota},
    workers::WorkerError,
};

/// Time between two looks at what is due.
const LOOK: Duration = Duration::from_secs(60);
/// Wait after the first failure; doubles with each.
const FIRST_WAIT_SECONDS: i64 = 60;
/// Longest wait after failures.
const MAX_WAIT_SECONDS: i64 = 3600;
/// Users that are copied at the same time.
const USERS_AT_ONCE: usize = 4;
/// Wait after a run over a whole node without failures, and with some.
const NODE_WAIT_SECONDS: (i64, i64) = (86_400, 30);
/// A quota of at most this many bytes counts as none (Spec: 12 §3.4).
const NO_SPACE_BYTES: u64 = 1 << 20;
/// Longest reason that is kept, in bytes.
const MAX_ERROR_BYTES: usize = 300;

/// What mirroring keeps in memory.
#[derive(Debug, Default)]
pub(crate) struct Mirrors {
    /// One round at a time.
    running: tokio::sync::Mutex<()>,
    pub(crate) pace: Arc<Pace>,
    /// Who has copies of users of this node.
    pub(crate) holders: Holders,
}

impl Mirrors {
    /// Starts with the bound on what is read from other nodes, in bytes a second.
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            running: tokio::sync::Mutex::default(),
            pace: Arc::new(Pace::new(bytes_per_second)),
            holders: Holders::default(),
        }
    }
}

/// Returns true for a user of another node of whom a whole copy is here that may be read, and never written; and for
/// the table of names.
pub(crate) async fn is_readable(state: &State, user: &User) -> Result<bool, Refusal> {
    if user.is_local {
        return Ok(false);
    }
    if user.identity == state.names.owner {
        return Ok(true);
    }
    if stored_quota(state, &user.name).await?.is_none() {
        return Ok(false);
    }
    // The home that is being left has everything, and the new one fetches the last of it there.
    let moved = migration::of_user(state, &user.name).await?;
    if moved.is_some_and(|(_, moved)| moved.phase != Phase::Arriving) {
        return Ok(true);
    }
    // Half a copy would say of the other half that it does not exist.
    let row = Mirroring(state).user(user.name.as_str()).await?;
    Ok(row.is_some_and(|row| row.in_step_seconds.is_some()))
}

/// Returns true for calls that a copy answers while the user's home cannot be reached: what it takes to log in and to
/// read.
pub(crate) const fn may_answer(call: Call) -> bool {
    matches!(
        call,
        Call::GetPointer
            | Call::BlockGet
            | Call::ChampGet
            | Call::ChampGetBulk
            | Call::GetLogin
            | Call::GetUserBats
    )
}

/// Starts the background worker.
pub(crate) fn start(state: &Arc<State>) {
    let p2p = &state.config.p2p;
    let has_network = p2p.is_enabled || p2p.peers.is_some();
    if !has_network || !state.config.mirror.is_automatic {
        return;
    }
    let weak = Arc::downgrade(state);
    state.workers.every("mirrors", LOOK, move |run| {
        let weak = weak.clone();
        async move {
            let Some(state) = weak.upgrade() else {
                return Ok(());
            };
            tokio::select! {
                done = round(&state, false) => {
                    run.note(done.map_err(WorkerError::from)?.to_string());
                }
                () = run.stopping() => {}
            }
            Ok(())
        }
    });
}

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// Users that are in step.
    pub(crate) in_step: u64,
    /// Users whose pass failed.
    pub(crate) failed: u64,
    /// Blocks fetched.
    pub(crate) blocks: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} users in step, {} failed, {} blocks with {} bytes fetched",
            self.in_step, self.failed, self.blocks, self.bytes
        )
    }
}

/// Copies every user who is due; all of them when `now`.
///
/// # Errors
/// Failures of this machine. What goes wrong with one user is in that user's row.
pub(crate) async fn round(state: &Arc<State>, now: bool) -> Result<Round, Refusal> {
    let _one = state.mirrors.running.lock().await;
    let mut round = Round::default();
    whole_node(state, now, &mut round).await?;
    let due = due(state, now).await?;
    let passes = stream::iter(due).map(async |(user, row)| {
        let copied = one(state, &user).await;
        note(state, &user.name, row, &copied).await?;
        Ok::<_, Refusal>(copied)
    });
    let mut passes = passes.buffer_unordered(USERS_AT_ONCE);
    while let Some(done) = passes.next().await {
        match done? {
            Ok(copied) => {
                round.in_step += 1;
                round.blocks += copied.blocks;
                round.bytes += copied.bytes;
            }
            Err(_) => round.failed += 1,
        }
    }
    Ok(round)
}

/// Returns the users of other nodes who have space here, in order of names.
pub(crate) async fn users(state: &State) -> Result<Vec<Arc<User>>, Refusal> {
    let mut found = Vec::new();
    let mut after: Option<bytes::Bytes> = None;
    loop {
        let page = state
            .store
            .scan(tables::QUOTAS, b"", after.as_deref(), 1000)
            .await?;
        let Some((last, _)) = page.last() else {
            return Ok(found);
        };
        after = Some(last.clone());
        for (name, _) in page {
            let Ok(name) = std::str::from_utf8(&name) else {
                continue;
            };
            match state.directory.named(name).await {
                Ok(user) if !user.is_local => found.push(user),
                Ok(_) | Err(Refusal::UnknownName | Refusal::NoHome(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Returns the users to copy: whoever has space and a token here and a home elsewhere (Spec: 12 §5.2).
async fn due(state: &State, now: bool) -> Result<Vec<(Arc<User>, UserRow)>, Refusal> {
    let mut due = Vec::new();
    for user in users(state).await? {
        let quota = stored_quota(state, &user.name).await?.unwrap_or(0);
        if quota <= NO_SPACE_BYTES || bats::newest(state, &user.name).await?.is_none() {
            continue;
        }
        let row = Mirroring(state).user(user.name.as_str()).await?;
        let row = row.unwrap_or_default();
        if now || is_due(row.due_seconds, state.clock.now_seconds(), MAX_WAIT_SECONDS) {
            due.push((user, row));
        }
    }
    Ok(due)
}

/// Returns true when the moment has come, and when it is further off than anybody waits: then the clock was set back
/// (Spec: 40 DOS-14).
const fn is_due(due_seconds: i64, now_seconds: i64, longest_wait_seconds: i64) -> bool {
    due_seconds <= now_seconds || due_seconds > now_seconds.saturating_add(longest_wait_seconds)
}

/// Copies one user from home, or from where the operator said.
async fn one(state: &Arc<State>, user: &Arc<User>) -> Result<Copied, MirrorError> {
    let row = Mirroring(state).user(user.name.as_str()).await?;
    let from = row.and_then(|row| row.from);
    let peer = match from {
        Some(text) => text.parse().ok(),
        None => PeerId::from_cid(&user.home).ok(),
    };
    let peer = peer.ok_or(MirrorError::Malformed("node id"))?;
    let token = bats::newest(state, &user.name).await?;
    let token = token.ok_or(MirrorError::NoToken)?;
    let peers = state.peers.get().cloned().ok_or(MirrorError::Offline)?;
    let remote = Remote::new(
        peers,
        peer,
        user.identity.clone(),
        Some(token.clone()),
        Arc::clone(&state.mirrors.pace),
    );
    let copied = pass(state, user, &remote).await?;
    let after = link_counts::ask_after(state, &user.name).await?;
    let counts = remote.link_counts(&user.name, &token, after).await?;
    link_counts::store(state, &user.name, &counts).await?;
    Ok(copied)
}

async fn note(
    state: &State,
    name: &Username,
    mut row: UserRow,
    copied: &Result<Copied, MirrorError>,
) -> Result<(), Refusal> {
    let now = state.clock.now_seconds();
    match copied {
        Ok(copied) => {
            row.in_step_seconds = Some(now);
            row.due_seconds = now;
            row.failures = 0;
            row.error = None;
            row.blocks += copied.blocks;
            row.bytes += copied.bytes;
        }
        Err(error) => {
            let wait = FIRST_WAIT_SECONDS << row.failures.min(6);
            row.failures += 1;
            row.due_seconds = now + wait.min(MAX_WAIT_SECONDS);
            let mut text = chain(error);
            text.truncate(text.floor_char_boundary(MAX_ERROR_BYTES));
            tracing::warn!(user = name.as_str(), error = text, "a copy is not in step");
            row.error = Some(text);
        }
    }
    Mirroring(state).set_user(name.as_str(), &row).await
}

/// Copies all users of a node that is mirrored as a whole, when that is due (Spec: 12 §6).
async fn whole_node(state: &Arc<State>, now: bool, round: &mut Round) -> Result<(), Refusal> {
    let Some(mut row) = Mirroring(state).node().await? else {
        return Ok(());
    };
    let clock = state.clock.now_seconds();
    if !now && !is_due(row.due_seconds, clock, NODE_WAIT_SECONDS.0) {
        return Ok(());
    }
    let done = all_users(state, &row, round).await;
    let clock = state.clock.now_seconds();
    (row.users, row.failed, row.error) = match &done {
        Ok((users, failed)) => (*users, *failed, None),
        Err(error) => (0, 1, Some(chain(error))),
    };
    let is_clean = row.failed == 0;
    row.due_seconds = clock
        + if is_clean {
            NODE_WAIT_SECONDS.0
        } else {
            NODE_WAIT_SECONDS.1
        };
    if is_clean {
        row.in_step_seconds = Some(clock);
    }
    if let Some(error) = &row.error {
        tracing::warn!(error, "a node cannot be mirrored");
    }
    Mirroring(state).set_node(Some(&row)).await
}

async fn all_users(
    state: &Arc<State>,
    row: &NodeRow,
    round: &mut Round,
) -> Result<(u64, u64), MirrorError> {
    let peers = state.peers.get().cloned().ok_or(MirrorError::Offline)?;
    let peer: PeerId = row
        .from
        .parse()
        .map_err(|_| MirrorError::Malformed("node id"))?;
    let token = champ::access::Bat::parse(&row.token)
        .map_err(|_| MirrorError::Malformed("instance token"))?
        .with_calculated_id();
    let target = format!("/{}", Call::GetUserSnapshots.path());
    let (mut cursor, mut users, mut failed) = (String::new(), 0, 0);
    loop {
        let request = SnapshotsRequest {
            cursor: cursor.clone(),
            instance_bat: token.clone(),
            after_epoch_seconds: FROM_THE_BEGINNING,
        };
        let answer = ask(
            &*peers,
            &peer,
            &target,
            request.to_body(),
            UserSnapshots::MAX_BYTES,
        );
        let page = UserSnapshots::from_body(&answer.await?)
            .map_err(|_| MirrorError::Malformed("snapshots"))?;
        for one in &page.0 {
            let remote = Remote::new(
                Arc::clone(&peers),
                peer,
                one.owner.clone(),
                Some(token.clone()),
                Arc::clone(&state.mirrors.pace),
            );
            match from_snapshot(state, &remote, one, row.quota_bytes).await {
                Ok(()) => users += 1,
                Err(error) => {
                    failed += 1;
                    let user = one.username.as_str();
                    tracing::warn!(user, error = chain(&error), "a user cannot be mirrored");
                }
            }
            let (blocks, bytes) = remote.fetched();
            round.blocks += blocks;
            round.bytes += bytes;
        }
        // A page may be short because those who come next are long.
        match page.0.last() {
            Some(last) if last.username.as_str() > cursor.as_str() => {
                cursor = last.username.as_str().to_owned();
            }
            _ => break,
        }
    }
    round.in_step += users;
    round.failed += failed;
    Ok((users, failed))
}

async fn from_snapshot(
    state: &Arc<State>,
    remote: &Remote,
    one: &pki::wire::snapshot::UserSnapshot,
    quota_bytes: u64,
) -> Result<(), MirrorError> {
    let user = state.directory.named(one.username.as_str()).await?;
    if user.is_local || !snapshot::is_of(one, &user) {
        return Err(MirrorError::Malformed("snapshot of a user of another node"));
    }
    let name = user.name.as_str().as_bytes().to_vec();
    if stored_quota(state, &user.name).await?.is_none() {
        let batch = Batch::new()
            .expect_absent(tables::QUOTAS, name.clone())
            .put(tables::QUOTAS, name, quota_row(quota_bytes));
        let _ = state.store.commit(batch).await?;
    }
    snapshot::apply(state, &user, one).await?;
    let copying = Copying::start(state, &user, remote, "mirror").await?;
    let blocks = Fetching::new(&copying);
    let mut pointers = Vec::new();
    for write in &one.pointers {
        let signed = verified(&write.writer, write.signed.clone(), &blocks).await?;
        pointers.push((write.writer.clone(), signed));
    }
    blocks.flush().await?;
    store_snapshot_pointers(state, &user, &copying, pointers).await?;
    copying.close().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dos_14_a_copy_is_made_also_after_the_clock_was_set_back() {
        assert!(is_due(100, 100, 3600) && is_due(99, 100, 3600));
        assert!(!is_due(101, 100, 3600) && !is_due(3700, 100, 3600));
        assert!(is_due(3701, 100, 3600));
        assert!(is_due(i64::MAX, i64::MAX, 3600) && !is_due(i64::MAX, i64::MAX - 1, 3600));
    }
}
