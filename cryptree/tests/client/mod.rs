//! The client against the fake node.

mod accounts;

use std::sync::Arc;

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
