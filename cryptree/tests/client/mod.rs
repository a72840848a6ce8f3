//! The client against the fake node.

mod accounts;
mod boxing;
mod byzantine;
mod changes;
mod conflicts;
mod costs;
mod files;
mod home_identity;
mod hostile_names;
mod links;
mod model;
mod privacy;
mod promises;
mod sessions;
mod simulation;
mod surgery;
mod trust;
mod two_devices;

use std::sync::Arc;

use champ::{BlockSource, MemoryBlocks, map::Champ};
use cryptree::{Client, ClientError, Session};

use tokio::sync::OnceCell;

use crate::fake::{FakeNode, State, TestSurroundings};

pub(crate) const KEY: [u8; 32] = [3; 32];
pub(crate) const PASSWORD: &str = "correct horse battery staple";

pub(crate) fn client(node: &Arc<FakeNode>, seed: u64) -> Client {
    Client::new(node.clone(), Arc::new(TestSurroundings::new(seed)))
}

/// A node on which `alice` has just signed up, and her session saved under [`KEY`].
///
/// Deriving a login key takes a third of a second on purpose, so most tests start from a copy of this.
async fn prepared() -> &'static (State, Vec<u8>) {
    static PREPARED: OnceCell<(State, Vec<u8>)> = OnceCell::const_new();
    PREPARED
        .get_or_init(|| async {
            let (node, session) = signed_up().await;
            let state = node.state.lock().unwrap().clone();
            (state, session.save(&KEY))
        })
        .await
}

/// Signs up `alice` on a new node.
pub(crate) async fn signed_up() -> (Arc<FakeNode>, Session) {
    let node = FakeNode::new();
    let client = client(&node, 1);
    let session = client.sign_up("alice", PASSWORD, "").await.unwrap();
    (node, session)
}

/// Returns a node on which `alice` has just signed up, and a session of hers.
pub(crate) async fn alice() -> (Arc<FakeNode>, Session) {
    let node = FakeNode::new();
    *node.state.lock().unwrap() = prepared().await.0.clone();
    let session = machine(&node, 1).await;
    (node, session)
}

/// Opens a session of `alice` that has nothing in memory but what it had after the sign-up.
pub(crate) async fn machine(node: &Arc<FakeNode>, seed: u64) -> Session {
    let saved = &prepared().await.1;
    client(node, seed).restore(saved, &KEY).unwrap()
}

/// Signs in to `alice` from a machine that has nothing.
pub(crate) async fn empty_machine(node: &Arc<FakeNode>, seed: u64) -> Result<Session, ClientError> {
    client(node, seed).sign_in("alice", PASSWORD).await?.done()
}

/// Counts the nodes in all trees of a node with one user.
pub(crate) async fn tree_entries(node: &FakeNode) -> u64 {
    let (roots, blocks) = {
        let state = node.state.lock().unwrap();
        let mut blocks = MemoryBlocks::new();
        blocks.extend(
            state
                .blocks
                .values()
                .flat_map(|space| space.values().cloned()),
        );
        let roots: Vec<_> = state
            .writers
            .keys()
            .filter_map(|writer| state.current(writer)?.updated().cloned())
            .collect();
        (roots, blocks)
    };
    let mut count = 0;
    for root in roots {
        let block = blocks.block(&root, None).await.unwrap().unwrap();
        let data: pki::writer_data::WriterData =
            champ::cbor::Record::decode(block.bytes()).unwrap();
        if let Some(tree) = data.tree {
            count += Champ::at(tree).count(&blocks).await.unwrap();
        }
    }
    count
}
