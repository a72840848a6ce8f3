//! Removing an account from this node (Spec: 12 §8).
//!
//! The first step is one durable row that says that the account is going: from then on this node is no home for
//! it, whatever its claim says, so nothing is written for it any more. Then its rows go, writers that others
//! depend on last, then its blocks. Cut off anywhere, the same command goes on where it was. The name stays
//! taken: the claim belongs to the network, not to this node.

use std::collections::HashMap;

use bytes::Bytes;
use champ::Cid;
use pki::{
    keys::Writer,
    username::{PKI_OWNER, Username},
};
use serde::{Deserialize, Serialize};

use super::{
    Failed, FailedKind, Operation, Report, Unit,
    users::{claimed, known_name, writers_of},
};
use crate::{
    bats,
    directory::{Removal, User},
    gc, migration,
    node::Node,
    state::State,
    store::{Batch, MAX_DELETE_BLOCKS, Table, tables},
    usage::stored_quota,
    writers::WriterRow,
};

/// Rows removed in one step.
const ROWS_PER_STEP: usize = 1000;
/// Rounds over what writes that were under way left behind.
const MAX_ROUNDS: usize = 5;

/// Removes an account. Can be asked for again after it was cut off.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveUser {
    /// User name.
    pub name: String,
    /// Also when this node is the account's home, or has what a move still needs: nobody else has its data then.
    #[serde(default)]
    pub force: bool,
}

/// What was removed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct UserRemoved {
    /// User name.
    pub name: String,
    /// Writers.
    pub writers: u64,
    /// Blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Operation for RemoveUser {
    const NAME: &'static str = "users-remove";
    type Outcome = UserRemoved;

    async fn run(self, node: &Node, report: &Report) -> Result<UserRemoved, Failed> {
        let state = node.state();
        let name = known_name(state, &self.name).await?;
        if name.as_str() == PKI_OWNER {
            return Err(Failed::new(
                FailedKind::Refused,
                "that account is this node's table of names",
            ));
        }
        let mut removed = UserRemoved {
            name: self.name,
            ..UserRemoved::default()
        };
        let Some(user) = claimed(state, &name).await? else {
            close(state, &name).await?;
            return Ok(removed);
        };
        if user.is_local && !self.force {
            return Err(Failed::new(
                FailedKind::Refused,
                format!("this node is the home of {name}: its files exist nowhere else"),
            )
            .help("--force removes them for good; there is no undo"));
        }
        if self.force {
            migration::give_up(state, &name).await?;
        } else if state.directory.removal(&name).await?.is_none() {
            let writers = writers_of(state, &name).await?;
            let writers: Vec<_> = writers.into_iter().map(|(writer, _)| writer).collect();
            if !migration::is_dispensable(state, &user, &writers).await? {
                return Err(Failed::new(
                    FailedKind::Refused,
                    format!("{name} is moving, and the other node does not have everything yet"),
                )
                .help(
                    "the nodes go on with that each minute, once both run and reach each other and the name authority; \
                     `kastro users remove --force` removes what is here all the same, for good",
                ));
            }
        }
        close(state, &name).await?;
        tracing::info!(user = name.as_str(), "account is being removed");
        // Updates that were committed before may still be being accounted.
        state.usage.confirmed(state, &user).await?;
        for _ in 0..MAX_ROUNDS {
            let writers = remove_writers(state, &user, report).await?;
            remove_rows(state, &user).await?;
            let blocks = collect(state, &user, report, &mut removed).await?;
            state.usage.forget(&user.name);
            removed.writers += writers;
            if writers == 0 && blocks == 0 {
                let batch = Removal::Done.write(Batch::new(), &name);
                let _ = state.store.commit(batch).await?;
                tracing::info!(
                    user = name.as_str(),
                    bytes = removed.bytes,
                    "account removed"
                );
                return Ok(removed);
            }
        }
        Err(Failed::new(
            FailedKind::Conflict,
            format!("writes for {name} that were under way go on arriving"),
        )
        .help("run the command again to remove them too"))
    }
}

/// Ends the account's rights here in one step.
async fn close(state: &State, name: &Username) -> Result<(), Failed> {
    let had_space = stored_quota(state, name).await?.is_some();
    let key = name.as_str().as_bytes().to_vec();
    let mut batch = Batch::new()
        .remove(tables::QUOTAS, key.clone())
        .remove(tables::SPACE_REQUESTS, key);
    let chain = state.directory.chain(name.as_str()).await?;
    if !chain.is_empty() {
        batch = Removal::Going.write(batch, name);
    }
    let _ = state.store.commit(batch).await?;
    state.directory.forget(&chain);
    if had_space {
        state.users.removed();
    }
    Ok(())
}

/// Removes pointers and registrations, each writer before the one that vouches for it.
async fn remove_writers(state: &State, user: &User, report: &Report) -> Result<u64, Failed> {
    let mut writers = writers_of(state, &user.name).await?;
    let depths = depths(&writers);
    writers.sort_by_key(|(writer, _)| std::cmp::Reverse(depths.get(writer).copied()));
    let total = writers.len() as u64;
    let mut done = 0;
    for step in writers.chunks(ROWS_PER_STEP) {
        let mut batch = Batch::new();
        for (writer, _) in step {
            let key = writer.cid().to_bytes();
            let mut index = user.name.as_str().as_bytes().to_vec();
            index.push(0);
            index.extend_from_slice(&key);
            batch = batch
                .remove(tables::POINTERS, key.clone())
                .remove(tables::UNSETTLED, key.clone())
                .remove(tables::WRITERS, key)
                .remove(tables::USER_WRITERS, index);
        }
        let _ = state.store.commit(batch).await?;
        state.writers.forget(step.iter().map(|(writer, _)| writer));
        done += step.len() as u64;
        report.progress("removing writers", done, Some(total), Unit::Items);
    }
    Ok(total)
}

/// Returns how many others vouch for each writer.
fn depths(writers: &[(Writer, WriterRow)]) -> HashMap<Writer, usize> {
    let parents: HashMap<&Writer, Option<&Writer>> = writers
        .iter()
        .map(|(writer, row)| (writer, row.parent.as_ref()))
        .collect();
    let depth_of = |writer: &Writer| {
        let mut depth = 0;
        let mut at = writer;
        // Damaged rows may form a circle.
        while let Some(Some(parent)) = parents.get(at).copied()
            && depth <= writers.len()
        {
            depth += 1;
            at = parent;
        }
        depth
    };
    writers
        .iter()
        .map(|(writer, _)| (writer.clone(), depth_of(writer)))
        .collect()
}

/// Removes everything that is kept under the account's name or key.
async fn remove_rows(state: &State, user: &User) -> Result<(), Failed> {
    let name = user.name.as_str().as_bytes().to_vec();
    let mut batch = Batch::new();
    for bat in bats::of_user(state, &user.name).await? {
        batch = batch.remove(tables::BAT_IDS, bat.id.cid().to_bytes());
    }
    for table in [
        tables::USAGE,
        tables::PENDING,
        tables::LOGINS,
        tables::SECOND_FACTORS,
        tables::BATS,
        tables::MESSAGES,
        tables::POINTER_EPOCHS,
        tables::GC_SWEEPS,
        tables::GC_DOOMED,
        tables::GC_STATES,
    ] {
        batch = batch.remove(table, name.clone());
    }
    let _ = state.store.commit(batch).await?;
    let mut under_name = name.clone();
    under_name.push(0);
    for table in [
        tables::PAST_LOGINS,
        tables::LINK_COUNTS,
        tables::GC_LINKS,
        tables::RETIRED_POINTERS,
    ] {
        remove_where(state, table, &under_name, |_| true).await?;
    }
    let inbox = user.identity.cid().to_bytes();
    remove_where(state, tables::FOLLOW_REQUESTS, &inbox, |_| true).await?;
    // These are found by key digest only; a scan of the table is rare enough.
    remove_where(state, tables::SECURITY_KEYS, b"", |row| row == name).await
}

/// Removes the rows below a prefix whose value is wanted.
async fn remove_where(
    state: &State,
    table: Table,
    prefix: &[u8],
    is_wanted: impl Fn(&[u8]) -> bool,
) -> Result<(), Failed> {
    let mut after: Option<Bytes> = None;
    loop {
        let page = state
            .store
            .scan(table, prefix, after.as_deref(), ROWS_PER_STEP)
            .await?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        let batch = page
            .into_iter()
            .filter(|(_, row)| is_wanted(row))
            .fold(Batch::new(), |batch, (key, _)| batch.remove(table, key));
        if !batch.is_empty() {
            let _ = state.store.commit(batch).await?;
        }
    }
}

fn busy(error: gc::CollectError) -> Failed {
    match error {
        gc::CollectError::Store(error) => error.into(),
        error => Failed::of(FailedKind::Conflict, &error)
            .help("run the command again when it is done: it goes on where it stopped"),
    }
}

/// Deletes all blocks of the partition; nothing leads to them any more. Returns how many there were.
async fn collect(
    state: &State,
    user: &User,
    report: &Report,
    removed: &mut UserRemoved,
) -> Result<u64, Failed> {
    let total = state.store.block_counts(&user.partition).await?.blocks;
    // No transaction protects what belongs to nobody.
    let future = std::time::SystemTime::now() + std::time::Duration::from_secs(86_400);
    state
        .store
        .expire_transactions(&user.partition, future)
        .await?;
    let mut turn = gc::Turn::take(state).await.map_err(busy)?;
    let mut seen: u64 = 0;
    let mut after: Option<Cid> = None;
    loop {
        if let Some(turn) = &mut turn
            && !turn.renew(state).await
        {
            return Err(busy(gc::CollectError::Running));
        }
        let page = state
            .store
            .list_blocks(&user.partition, after.as_ref(), MAX_DELETE_BLOCKS)
            .await?;
        let Some(last) = page.last() else {
            if let Some(turn) = turn {
                turn.release(state).await?;
            }
            return Ok(seen);
        };
        after = Some(last.cid.clone());
        seen += page.len() as u64;
        let candidates = page
            .into_iter()
            .map(|info| (info.cid, info.generation))
            .collect();
        let deleted = state
            .store
            .delete_blocks(&user.partition, candidates)
            .await?;
        removed.blocks += deleted.removed.blocks;
        removed.bytes = removed.bytes.saturating_add(deleted.removed.bytes);
        report.progress("deleting blocks", seen, Some(total.max(seen)), Unit::Items);
    }
}

#[cfg(test)]
mod tests {
    use pki::keys::{PublicKeyHash, PublicSigningKey};

    use super::*;

    fn writer(byte: u8) -> Writer {
        Writer(PublicKeyHash::of(&PublicSigningKey::from_bytes([byte; 32])))
    }

    #[test]
    fn children_come_before_their_parents_and_a_circle_ends() {
        let name = Username::parse("alice").unwrap();
        let row = |parent: Option<u8>| WriterRow::new(name.clone(), parent.map(writer));
        let depths = depths(&[
            (writer(1), row(None)),
            (writer(2), row(Some(1))),
            (writer(3), row(Some(2))),
            (writer(4), row(Some(5))),
            (writer(5), row(Some(4))),
        ]);
        assert_eq!(depths[&writer(1)], 0);
        assert_eq!(depths[&writer(2)], 1);
        assert_eq!(depths[&writer(3)], 2);
        assert!(depths[&writer(4)] > 2);
    }
}
