//! A home that takes a new identity, and the person whose claim names the one before (Spec: 11 §2.4 step 3).

use std::{path::Path, sync::Arc};

use champ::Cid;
use cli::{environment::TokioEnvironment, transport::InProcess};
use cryptree::client::{Client, HomeIdentity, Session};
use node::{
    Config, Node,
    operator::{Operation as _, Report, identity::RotateIdentity},
};
use pki::{chain::ClaimChain, username::Username};

use crate::PASSWORD;

async fn open(folder: &Path) -> Node {
    let config = Config {
        data: Some(folder.to_owned()),
        ..Config::default()
    };
    Node::open(config).await.unwrap()
}

fn client(node: &Node) -> Client {
    let transport = InProcess::of(node.clone());
    Client::new(Arc::new(transport), Arc::new(TokioEnvironment))
}

async fn sign_in(node: &Node) -> Session {
    let signed_in = client(node).sign_in("alice", PASSWORD).await;
    signed_in.unwrap().done().unwrap()
}

async fn chain(node: &Node) -> ClaimChain {
    let alice = Username::parse("alice").unwrap();
    client(node).api().chain(&alice).await.unwrap()
}

/// Gives a node a new identity and starts it again; returns the id.
async fn rotate(node: Node, folder: &Path) -> (Node, Cid) {
    let report = Report::silent();
    let done = RotateIdentity::default().run(&node, &report).await;
    let id = Cid::parse_peer_id(&done.unwrap().to).unwrap();
    // Until then it goes by the old one.
    assert_ne!(node.id().hash(), id.hash());
    node.close().await.unwrap();
    drop(node);
    (open(folder).await, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_follows_the_home_at_the_next_login_and_at_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path()).await;
    let first = node.id().clone();
    let session = client(&node).sign_up("alice", PASSWORD, "").await.unwrap();
    session.make_folder("/alice/kept").await.unwrap();
    drop(session);
    // Twice, before anybody logs in.
    let (node, _) = rotate(node, folder.path()).await;
    let (node, newest) = rotate(node, folder.path()).await;
    let before = chain(&node).await;
    assert_eq!(before.home().map(Cid::hash), Some(first.hash()));

    let session = sign_in(&node).await;
    let done = session.upkeep().await.unwrap();
    assert_eq!(done.home, HomeIdentity::Renewed);
    let after = chain(&node).await;
    assert_eq!(after.home().map(Cid::hash), Some(newest.hash()));
    assert_eq!(after.identity(), before.identity());
    assert_eq!(after.links().len(), 1);
    assert!(session.exists("/alice/kept").await.unwrap());

    let again = sign_in(&node).await.upkeep().await.unwrap();
    assert_eq!(again.home, HomeIdentity::Unchanged);
    assert_eq!(chain(&node).await, after);
    session.make_folder("/alice/new").await.unwrap();
    node.close().await.unwrap();
}
