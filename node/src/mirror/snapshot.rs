//! Everything of a user that another node needs besides the blocks (Spec: 12 §6.1).

use champ::cbor::Record as _;
use pki::{
    owned::{OwnedError, OwnershipWalk, WalkLimits},
    username::{PKI_OWNER, Username},
    wire::{
        login_data::LoginData,
        mirror::{MAX_SNAPSHOTS_BYTES, SNAPSHOT_PAGE, UserSnapshots},
        pointer_batch::PointerWrite,
        snapshot::UserSnapshot,
        social::FollowRequest,
    },
};

use crate::{
    accounts::LoginRow,
    bats,
    blocks::StoredBlocks,
    directory::User,
    error::Refusal,
    follow_requests, link_counts, pointers,
    state::State,
    store::{Batch, tables},
    writers::StoredPointers,
};

/// Most bytes of the snapshots of one answer, the list around them left out.
const MAX_PAGE_BYTES: usize = MAX_SNAPSHOTS_BYTES - 1024;

/// Returns the state of a user; of link counts only what changed after a moment, in seconds since 1970.
///
/// # Errors
/// Failures of the store, and a rule for ownership that cannot be followed: half a snapshot would lose the other half.
pub(crate) async fn snapshot(
    state: &State,
    user: &User,
    after_seconds: i64,
) -> Result<UserSnapshot, Refusal> {
    let blocks = StoredBlocks { state, user };
    let source = StoredPointers(state);
    let mut walk = OwnershipWalk::new(&user.identity, &source, &blocks, WalkLimits::default());
    let mut writes = Vec::new();
    while let Some(writer) = walk.next().await.map_err(unfollowed)? {
        if let Some(signed) = pointers::stored(state, &writer).await? {
            writes.push(PointerWrite { signed, writer });
        }
    }
    if let Some(damage) = walk.damage().first() {
        return Err(unfollowed(damage.error.clone()));
    }
    let login = state
        .store
        .get(tables::LOGINS, user.name.as_str().as_bytes())
        .await?
        .map(|row| LoginRow::decode(&row).map_err(Refusal::internal))
        .transpose()?
        .map(|row| LoginData {
            username: user.name.clone(),
            record: row.record,
            reader: row.reader,
            root_change: None,
        });
    let requests = follow_requests::list(state, &user.identity).await?;
    Ok(UserSnapshot {
        username: user.name.clone(),
        owner: user.identity.clone(),
        pointers: writes,
        follow_requests: requests
            .iter()
            .filter_map(|request| FollowRequest::decode(request).ok())
            .collect(),
        mirror_bats: bats::of_user(state, &user.name).await?,
        login,
        link_counts: link_counts::changed_after(state, &user.name, after_seconds).await?,
    })
}

/// What a user made of the owned keys is the user's trouble; that the store fails is everybody's.
fn unfollowed(error: OwnedError) -> Refusal {
    match error {
        OwnedError::Source(_) => Refusal::internal(error),
        error => Refusal::rule(format!(
            "The owned keys of this user cannot be followed: {error}"
        )),
    }
}

/// Returns the next users whose home this node is, after the name `cursor` (Spec: 12 §6).
///
/// A user of whom there is no snapshot, or one that is longer than an answer may be, is left out and told of in the log:
/// nobody's data may keep a node from copying the others.
pub(crate) async fn page(
    state: &State,
    cursor: &str,
    after_seconds: i64,
) -> Result<UserSnapshots, Refusal> {
    let mut found = UserSnapshots::default();
    let mut bytes = 0;
    let mut after = cursor.as_bytes().to_vec();
    while found.0.len() < SNAPSHOT_PAGE {
        let rows = state
            .store
            .scan(tables::CHAINS, b"", Some(&after), 100)
            .await?;
        let Some((last, _)) = rows.last() else { break };
        after = last.to_vec();
        for (name, _) in &rows {
            let Ok(name) = std::str::from_utf8(name) else {
                continue;
            };
            if name == PKI_OWNER || found.0.len() == SNAPSHOT_PAGE {
                continue;
            }
            let user = match state.directory.named(name).await {
                Ok(user) if user.is_local => user,
                Ok(_) | Err(Refusal::UnknownName | Refusal::NoHome(_)) => continue,
                Err(error) => return Err(error),
            };
            let one = match snapshot(state, &user, after_seconds).await {
                Err(Refusal::Rule(reason)) => {
                    tracing::error!(user = name, %reason, "left out of the copy of this node");
                    continue;
                }
                one => one?,
            };
            let size = one.encode().len();
            if size > MAX_PAGE_BYTES {
                tracing::error!(
                    user = name,
                    size,
                    "left out of the copy of this node: too long"
                );
                continue;
            }
            // A short page ends the run of other software that asks; one that is too long would end ours too.
            if bytes + size > MAX_PAGE_BYTES {
                return Ok(found);
            }
            bytes += size;
            found.0.push(one);
        }
    }
    Ok(found)
}

/// Stores everything of a snapshot but the pointers.
pub(crate) async fn apply(
    state: &State,
    user: &User,
    snapshot: &UserSnapshot,
) -> Result<(), Refusal> {
    for bat in &snapshot.mirror_bats {
        bats::add_copy(state, &user.name, bat).await?;
    }
    if let Some(login) = &snapshot.login
        && login.username == user.name
    {
        let row = LoginRow {
            record: login.record.clone(),
            reader: login.reader,
        };
        let key = user.name.as_str().as_bytes().to_vec();
        let batch = Batch::new().put(tables::LOGINS, key, row.encode());
        let _ = state.store.commit(batch).await?;
    }
    for request in &snapshot.follow_requests {
        let _ = follow_requests::add_copy(state, &user.identity, request.encode().into()).await?;
    }
    link_counts::store(state, &user.name, &snapshot.link_counts).await
}

/// Returns the name of a snapshot's user as this node knows it; `None` when it is somebody else's.
pub(super) fn is_of(snapshot: &UserSnapshot, user: &User) -> bool {
    let name: &Username = &snapshot.username;
    *name == user.name && snapshot.owner == user.identity
}
