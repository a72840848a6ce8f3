//! Client and node together, with a network between them that lies, loses and damages.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod hostile_node;
mod lost_replies;
mod new_identity;
mod repository;
mod tamper;

use std::sync::Arc;

use cli::{environment::TokioEnvironment, transport::InProcess};
use cryptree::client::{Client, Session, UploadOptions};
use node::{Config, Node};

use tamper::Tamper;

/// A node in memory, and a network that does what a test wants.
struct World {
    network: Arc<Tamper<InProcess>>,
}

impl World {
    async fn new() -> Self {
        let node = Node::open(Config::default()).await.unwrap();
        Self {
            network: Arc::new(Tamper::new(InProcess::of(node))),
        }
    }

    /// A client that remembers nothing.
    fn client(&self) -> Client {
        Client::new(Arc::clone(&self.network) as _, Arc::new(TokioEnvironment))
    }

    async fn sign_up(&self, name: &str) -> Session {
        self.client().sign_up(name, PASSWORD, "").await.unwrap()
    }

    async fn sign_in(&self, name: &str) -> Session {
        let signed_in = self.client().sign_in(name, PASSWORD).await;
        signed_in.unwrap().done().unwrap()
    }
}

async fn upload(
    session: &Session,
    path: &str,
    content: &[u8],
) -> Result<(), cryptree::ClientError> {
    let mut source = futures_util::io::Cursor::new(content);
    let size = Some(content.len() as u64);
    session
        .upload(
            path,
            &mut source,
            size,
            &UploadOptions::default(),
            &mut |_, _| {},
        )
        .await
        .map(|_| ())
}

/// Returns bytes that differ everywhere.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

const PASSWORD: &str = "a long enough password";
