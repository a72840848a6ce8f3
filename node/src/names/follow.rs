//! One round: what changed in the authority's table since the last one, checked and taken over (Spec: 10 §8.2, §8.3).

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use champ::{
    Block, BlockSource, Cid, SourceError,
    access::BatWithId,
    cbor::{Record as _, Value},
    map::{Champ, Difference, KeyHash, diff_each},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use pki::{
    chain::{Adoption, ClaimChain, OwnerKeys, judge},
    keys::Writer,
    pointer::SignedPointer,
    username::Username,
    writer_data::{PKI_NAME, WriterData},
};

use super::authorities;
use crate::{
    directory::User,
    error::{Refusal, chain},
    mirror::{Copying, Fetching, MirrorError, Pace, Remote, Source, commit_pointer},
    pointers,
    state::State,
    store::{Batch, tables},
};

/// The transaction of rounds: what a broken one fetched stays protected for the next.
const TRANSACTION: &str = "names";
/// Nodes of the table that one round reads at most: a network of some millions of names.
const MAX_NODES: usize = 4_000_000;
/// Changed entries that one round takes over at most; each is some 100 bytes until then.
const MAX_CHANGES: usize = 4_000_000;
/// Times that one node of the tables before and after is read. Each stands in one place, since the names below it do; one
/// that stands in many makes a walk of millions of steps out of a few blocks (Spec: 40 DOS-3).
const MAX_READS: u8 = 4;
/// Bytes of a key that are kept: more than a name has.
const MAX_KEY_BYTES: usize = 128;
/// Refused entries that a round tells of.
const MAX_TOLD: usize = 1000;
/// Chains that are asked for at a time.
const FETCHES_AT_ONCE: usize = 8;
/// Names that are taken over in one commit.
const NAMES_AT_ONCE: usize = 500;

/// What a round came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Names whose chain changed here.
    pub(super) changed: u64,
    /// Names whose change was refused, with the reason.
    pub(super) refused: Vec<(String, String)>,
    /// Sequence of the table.
    pub(super) sequence: Option<i64>,
}

impl Round {
    fn refuse(&mut self, name: String, reason: String) {
        if self.refused.len() < MAX_TOLD {
            self.refused.push((name, reason));
        }
    }
}

/// An entry that changed: its key, or the beginning of one that is too long for a name, and its value now.
#[derive(Debug, Clone)]
struct Entry {
    key: Bytes,
    after: Option<Listed>,
}

/// What an entry of the table holds.
#[derive(Debug, Clone)]
enum Listed {
    Chain(Cid),
    /// Something that is no link.
    Else,
}

impl From<Difference> for Entry {
    /// Copies what is needed, so that the blocks it came from can go.
    fn from(difference: Difference) -> Self {
        let key = &difference.key;
        let key = key.get(..MAX_KEY_BYTES.min(key.len())).unwrap_or_default();
        Self {
            key: Bytes::copy_from_slice(key),
            after: difference.after.map(|value| match value {
                Value::Link(cid) => Listed::Chain(cid),
                _ => Listed::Else,
            }),
        }
    }
}

/// The nodes of the tables, each read a few times at most.
struct Nodes<'a> {
    blocks: &'a Fetching<'a>,
    reads: parking_lot::Mutex<HashMap<Cid, u8>>,
}

#[async_trait::async_trait]
impl BlockSource for Nodes<'_> {
    async fn block(
        &self,
        cid: &Cid,
        token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError> {
        let is_repeated = {
            let mut reads = self.reads.lock();
            let count = reads.entry(cid.clone()).or_default();
            *count += 1;
            *count > MAX_READS
        };
        if is_repeated {
            let malformed = MirrorError::Malformed("table of names: one node in many places");
            return Err(SourceError::Failed(Arc::new(malformed)));
        }
        self.blocks.block(cid, token).await
    }
}

/// Asks the nodes that may have the table, one after the other.
pub(super) async fn round(state: &Arc<State>) -> Result<Round, MirrorError> {
    let peers = state.peers.get().cloned().ok_or(MirrorError::Offline)?;
    let mut failure = MirrorError::Offline;
    for peer in authorities(state).await? {
        let owner = state.names.owner.clone();
        let remote = Remote::new(
            Arc::clone(&peers),
            peer,
            owner,
            None,
            Arc::<Pace>::default(),
        );
        match from(state, &remote).await {
            Err(error) if !matches!(error, MirrorError::Here(_)) => failure = error,
            done => return done,
        }
    }
    Err(failure)
}

async fn from(state: &Arc<State>, remote: &Remote) -> Result<Round, MirrorError> {
    let user = state.directory.table_user();
    let copying = Copying::unbounded(state, &user, remote, TRANSACTION)?;
    let blocks = Fetching::new(&copying);
    let source = Source::new(state, remote, &blocks);
    let owner = state.names.owner.as_writer();
    let root = read_root(&source, &blocks, &owner).await?;
    let (owner_pointer, root) = root.ok_or(MirrorError::Malformed("table of names"))?;
    let malformed = || MirrorError::Malformed("table of names");
    let proof = root.named.get(PKI_NAME).ok_or_else(malformed)?;
    proof
        .verify(owner.hash(), &blocks)
        .await
        .map_err(|_| malformed())?;
    let writer = Writer(proof.owned().clone());
    let table = read_root(&source, &blocks, &writer).await?;
    let Some((pointer, table)) = table else {
        return Ok(Round::default());
    };
    let mut round = Round {
        sequence: pointer.update().sequence(),
        ..Round::default()
    };
    let before = pointers::stored(state, &writer).await?;
    if before.as_ref() == Some(pointer.bytes()) {
        return Ok(round);
    }
    let old = stored_tree(state, &user, &writer).await?;
    let hashed = |tree: Option<Cid>| {
        let champ = tree.map_or_else(Champ::empty, Champ::at);
        champ.hashed_by(KeyHash::Blake2b512)
    };
    let mut entries = Vec::new();
    let mut is_endless = false;
    let each = |difference| match entries.len() < MAX_CHANGES {
        true => entries.push(Entry::from(difference)),
        false => is_endless = true,
    };
    let nodes = Nodes {
        blocks: &blocks,
        reads: parking_lot::Mutex::default(),
    };
    let walked = diff_each(&hashed(old), &hashed(table.tree), &nodes, MAX_NODES, each).await;
    walked.map_err(|error| {
        tracing::warn!(error = chain(&error), "the table of names cannot be read");
        malformed()
    })?;
    drop(nodes);
    if is_endless {
        return Err(malformed());
    }
    for some in entries.chunks(NAMES_AT_ONCE) {
        take(state, &blocks, some, &mut round).await?;
    }
    blocks.flush().await?;
    // What the walk had no reason to read belongs to the copy too: others fetch it from here, and collections follow it.
    for (writer, pointer) in [(&owner, &owner_pointer), (&writer, &pointer)] {
        complete(state, &copying, writer, pointer).await?;
    }
    // The names are in force; the pointers say up to where.
    commit_pointer(state, &user, &copying, &owner, &owner_pointer).await?;
    commit_pointer(state, &user, &copying, &writer, &pointer).await?;
    copying.close().await?;
    Ok(round)
}

/// Fetches what is still missing below a pointer of the table.
async fn complete(
    state: &State,
    copying: &Copying<'_>,
    writer: &Writer,
    pointer: &SignedPointer,
) -> Result<(), MirrorError> {
    let before = pointers::stored_update(state, writer).await?;
    let old = before.as_ref().and_then(|update| update.updated());
    let Some(target) = pointer.update().updated() else {
        return Ok(());
    };
    match copying.tree(old, target).await {
        // An entry that names a key nobody has must not keep all other names back.
        Err(MirrorError::Missing(cid)) => {
            tracing::warn!(%cid, "a block of the table of names is missing at its source");
            Ok(())
        }
        done => done,
    }
}

async fn read_root(
    source: &Source<'_>,
    blocks: &Fetching<'_>,
    writer: &Writer,
) -> Result<Option<(SignedPointer, WriterData)>, MirrorError> {
    let Some(pointer) = source.pointer(writer).await? else {
        return Ok(None);
    };
    let Some(target) = pointer.update().updated() else {
        return Ok(None);
    };
    let block = blocks.read(target).await?;
    let data = WriterData::in_block(&block, writer)
        .map_err(|_| MirrorError::Malformed("table of names"))?;
    Ok(Some((pointer, data)))
}

/// Returns the root of the table as this node has it.
async fn stored_tree(
    state: &State,
    user: &User,
    writer: &Writer,
) -> Result<Option<Cid>, MirrorError> {
    let update = pointers::stored_update(state, writer).await?;
    let Some(target) = update.as_ref().and_then(|update| update.updated()) else {
        return Ok(None);
    };
    let block = state.store.block(&user.partition, target).await?;
    Ok(block
        .and_then(|block| WriterData::in_block(&block, writer).ok())
        .and_then(|data| data.tree))
}

/// A changed entry: the name, and the chain that the table has now.
type Changed = (Username, Option<ClaimChain>);

/// Takes over some changed entries, each by the rules of Spec: 10 §8.3.
async fn take(
    state: &Arc<State>,
    blocks: &Fetching<'_>,
    entries: &[Entry],
    round: &mut Round,
) -> Result<(), MirrorError> {
    let entries = stream::iter(entries.iter().cloned())
        .map(async |entry| read_entry(blocks, entry).await)
        .buffered(FETCHES_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    let mut batch = Batch::new();
    let mut chains = Vec::new();
    for entry in entries {
        let (name, new) = match entry {
            Ok(entry) => entry,
            Err((name, reason)) => {
                round.refuse(name, reason);
                continue;
            }
        };
        let existing = state.directory.chain(name.as_str()).await?;
        let old = (!existing.is_empty()).then_some(&existing);
        let keys = OwnerKeys::inline_only();
        let reason = match judge(old, &name, new.as_ref(), &keys) {
            Adoption::Unchanged => continue,
            Adoption::Accepted => {
                let Some(new) = new else { continue };
                let (with, elsewhere) = adopt(state, batch, &name, &existing, &new).await?;
                batch = with;
                round.changed += 1;
                chains.push(existing);
                chains.push(new);
                if !elsewhere {
                    continue;
                }
                "one of its keys is bound to another name".to_owned()
            }
            Adoption::Kept(kept) => chain(&kept),
            Adoption::Blocked(invalid) => format!("blocked: {}", chain(&invalid)),
        };
        tracing::error!(
            name = name.as_str(),
            reason,
            "a change in the table of names is refused"
        );
        round.refuse(name.as_str().to_owned(), reason);
    }
    if !batch.is_empty() && !state.store.commit(batch).await?.is_committed() {
        // A sign-up here wrote one of the names at the same time.
        return Err(MirrorError::Conflict);
    }
    for chain in &chains {
        state.directory.forget(chain);
    }
    Ok(())
}

/// Reads the chain of a changed entry; an entry that nobody can use is refused by name.
async fn read_entry(
    blocks: &Fetching<'_>,
    entry: Entry,
) -> Result<Result<Changed, (String, String)>, MirrorError> {
    let shown: String = String::from_utf8_lossy(&entry.key)
        .chars()
        .take(80)
        .collect();
    let refused = |reason: &str| Ok(Err((shown.clone(), reason.to_owned())));
    let name = std::str::from_utf8(&entry.key).ok();
    let Some(name) = name.and_then(|name| Username::parse(name).ok()) else {
        return refused("not a name");
    };
    match entry.after {
        None => Ok(Ok((name, None))),
        Some(Listed::Chain(cid)) => {
            let block = blocks.read(&cid).await?;
            // What is no chain counts as an empty one, which is never valid.
            let chain = ClaimChain::decode(block.bytes()).unwrap_or_default();
            Ok(Ok((name, Some(chain))))
        }
        Some(Listed::Else) => refused("the entry is no link"),
    }
}

/// Adds an accepted chain to a batch; a key that is bound to another name stays bound to it, and that is told.
async fn adopt(
    state: &State,
    mut batch: Batch,
    name: &Username,
    existing: &ClaimChain,
    new: &ClaimChain,
) -> Result<(Batch, bool), Refusal> {
    let row = name.as_str().as_bytes().to_vec();
    let before = (!existing.is_empty()).then(|| existing.encode());
    batch = batch.expect(tables::CHAINS, row.clone(), before).put(
        tables::CHAINS,
        row.clone(),
        new.encode(),
    );
    let mut is_elsewhere = false;
    for link in new.links() {
        let key = link.owner.cid().to_bytes();
        match state.store.get(tables::KEYS, &key).await? {
            None => batch = batch.put(tables::KEYS, key, row.clone()),
            Some(bound) => is_elsewhere |= bound != row,
        }
    }
    Ok((batch, is_elsewhere))
}
