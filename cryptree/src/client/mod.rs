//! The client: signing up and in, and every operation on files and folders (Spec: 21).
//!
//! Formats live beside this module; here they are put to work against a node that is trusted with nothing
//! but keeping bytes. Invariants: every block is checked against its name, every pointer against its
//! signature and what was seen before; nothing acknowledged is ever replaced by an older or foreign state; a
//! dropped future leaves the old or the new state, never a mixture.

mod blocks;
mod bulk;
mod cache;
mod draft;
mod edit;
mod file;
mod folder;
mod list;
mod nodes;
mod password;
mod path;
mod record;
mod remove;
mod saved;
mod session;
mod sign_in;
mod sign_up;
mod snapshot;
mod space;
mod transfer;
mod upload;

pub use bulk::BulkUpload;
pub use file::{ChunkReader, RemoteFile};
pub use list::{DamagedEntry, Detail, Entry, FolderReader, Listing};
pub use path::RemotePath;
pub use record::UnfinishedUpload;
pub use session::{Session, Space};
pub use sign_in::{FactorCode, PendingSignIn, SignIn};
pub use upload::{IfExists, Progress, UploadOptions};

use std::sync::{Arc, Mutex};

use pki::{keys::Owner, pointer::PointerMemory};

use crate::{api::Api, counters::Usage, environment::Environment, transport::Transport};
use blocks::OwnerBlocks;
use cache::BlockCache;
use space::OwnerView;

/// Memory for blocks read lately, in bytes.
const CACHE_BYTES: usize = 16 << 20;

/// A client of one node.
#[derive(Clone)]
pub struct Client {
    api: Arc<Api>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client that reaches its node through `transport`. Nothing is sent yet.
    pub fn new(transport: Arc<dyn Transport>, environment: Arc<dyn Environment>) -> Self {
        Self {
            api: Arc::new(Api::new(transport, environment)),
        }
    }

    /// Returns the typed calls of the node.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Returns what the client has cost so far.
    pub fn usage(&self) -> Usage {
        self.api.counters().usage()
    }

    fn view(&self, owner: Owner, memory: PointerMemory) -> OwnerView {
        OwnerView {
            blocks: OwnerBlocks {
                api: Arc::clone(&self.api),
                cache: Arc::new(BlockCache::new(CACHE_BYTES)),
                owner,
            },
            memory: Arc::new(Mutex::new(memory)),
        }
    }
}
