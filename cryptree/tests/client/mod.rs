//! The client against the fake node.

mod accounts;
mod files;

use std::sync::Arc;

use champ::{BlockSource, MemoryBlocks, map::Champ};
use cryptree::{Client, ClientError, Session};

use crate::fake::{FakeNode, TestSurroundings};

pub const PASSWORD: &str = "correct horse battery staple";

pub fn client(node: &Arc<FakeNode>, seed: u64) -> Client {
    Client::new(node.clone(), Arc::new(TestSurroundings::new(seed)))
}

/// Signs up `alice` on a new node.
pub async fn alice() -> (Arc<FakeNode>, Session) {
    let node = FakeNode::new();
    let session = client(&node, 1)
        .sign_up("alice", PASSWORD, "")
        .await
        .unwrap();
    (node, session)
}

/// Signs in to `alice` from a machine that has nothing.
pub async fn empty_machine(node: &Arc<FakeNode>, seed: u64) -> Result<Session, ClientError> {
    client(node, seed).sign_in("alice", PASSWORD).await?.done()
}

/// Counts the nodes in all trees of a node with one user.
pub async fn tree_entries(node: &FakeNode) -> u64 {
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
