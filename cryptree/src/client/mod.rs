//! The client: signing up and in, and every operation on files and folders (Spec: 21).
//!
//! Formats live beside this module; here they are put to work against a node that is trusted with nothing
//! but keeping bytes. Invariants: every block is checked against its name, every pointer against its
//! signature and what was seen before; nothing acknowledged is ever replaced by an older or foreign state; a
//! dropped future leaves the old or the new state, never a mixture.
//!
//! The page of the crate has examples that compile.

mod attributes;
mod blocks;
mod boxing_upgrade;
mod bulk;
mod cache;
mod change;
mod conflict;
mod content;
mod draft;
mod edit;
mod file;
mod folder;
mod home_identity;
mod keeper;
mod link;
mod link_visit;
mod list;
mod moving;
mod nodes;
mod password;
mod path;
mod publish;
mod published;
mod record;
mod remove;
mod saved;
mod session;
mod sign_in;
mod sign_up;
mod snapshot;
mod space;
mod transfer;
mod trust;
mod upkeep;
mod upload;
mod verify;
mod version;
mod walk;

pub use boxing_upgrade::BoxingUpgrade;
pub use bulk::{BulkUpload, ConflictCopy};
pub use file::{ChunkReader, RemoteFile};
pub use home_identity::HomeIdentity;
pub use keeper::BlockKeeper;
pub use link::{LinkOptions, OwnLink};
pub use link_visit::RetrievedLink;
pub use list::{DamagedEntry, Detail, Entry, FolderReader, FoundEntry, FoundPage, Listing};
pub use moving::Moved;
pub use password::NEW_PASSWORD;
pub use path::RemotePath;
pub use published::{PublishedFiles, PublishedItem, Versions};
pub use record::UnfinishedUpload;
pub use session::{Session, Space};
pub use sign_in::{FactorCode, PendingSignIn, SignIn};
pub use upkeep::Upkeep;
pub use upload::{IfExists, Progress, UploadOptions, Uploaded};
pub use verify::ContentCheck;
pub use version::Version;
pub use walk::{Walk, WalkedFolder};

use std::sync::{Arc, Mutex};

use pki::{keys::Owner, pointer::PointerMemory};

use crate::{api::Api, counters::Usage, environment::Environment, transport::Transport};
use blocks::OwnerBlocks;
use cache::BlockCache;
use keeper::Keeper;
use space::{Offline, OwnerView};

/// Memory for blocks read lately, in bytes.
const CACHE_BYTES: usize = 16 << 20;

/// A client of one node.
#[derive(Clone)]
pub struct Client {
    api: Arc<Api>,
    keeper: Keeper,
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
            keeper: Keeper::default(),
        }
    }

    /// Makes a client that asks once and reports the failure, for those who are waited for themselves.
    pub fn impatient(transport: Arc<dyn Transport>, environment: Arc<dyn Environment>) -> Self {
        Self {
            api: Arc::new(Api::new(transport, environment).with_attempts(1)),
            keeper: Keeper::default(),
        }
    }

    /// Keeps the blocks that are read and written with `keeper` as well as in memory.
    #[must_use]
    pub fn with_keeper(mut self, keeper: Arc<dyn BlockKeeper>) -> Self {
        self.keeper = Keeper::new(keeper);
        self
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
        self.view_keeping(CACHE_BYTES, owner, memory)
    }

    fn view_keeping(&self, cache_bytes: usize, owner: Owner, memory: PointerMemory) -> OwnerView {
        OwnerView {
            blocks: OwnerBlocks {
                api: Arc::clone(&self.api),
                cache: Arc::new(BlockCache::new(cache_bytes)),
                keeper: self.keeper.clone(),
                owner,
            },
            memory: Arc::new(Mutex::new(memory)),
            offline: Arc::new(Offline::default()),
        }
    }
}
