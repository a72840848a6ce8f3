//! A signed-in account and what every operation on it shares.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use champ::access::{BatId, BatWithId};
use futures_util::lock::Mutex as AsyncMutex;
use pki::{
    keys::{Owner, PublicSigningKey, SecretKeyWithHash, Writer},
    signed::SignedTime,
    username::Username,
};
use rand_core::CryptoRng;

use super::{
    cache::ChildLists,
    draft::{Draft, Runs},
    nodes::Opened,
    snapshot::{Item, Snapshot},
    space::OwnerView,
};
use crate::{
    api::Api,
    capability::AbsoluteCapability,
    counters::Usage,
    environment::{Environment, computed},
    error::ClientError,
    login::EntryPoints,
    properties::Timestamp,
};

/// A signed-in account. Cheap to clone; clones share caches and the order of writes.
///
/// Operations of one session that write to the same space queue up; reads do not wait for them.
#[derive(Clone)]
pub struct Session {
    pub(crate) account: Arc<Account>,
}

/// What reading one owner's data needs: where it starts and what was read already, but no key to sign with.
pub(crate) struct Reading {
    /// Whose data it is.
    pub(crate) name: Username,
    /// The folder or file that everything is reached from.
    pub(crate) home: AbsoluteCapability,
    pub(crate) view: OwnerView,
    pub(crate) child_lists: ChildLists,
}

/// What belongs to one account on one node.
pub(crate) struct Account {
    pub(crate) reading: Arc<Reading>,
    pub(crate) identity: SecretKeyWithHash,
    /// The login key that the password gives: tells whether a password is the current one.
    pub(crate) reader: PublicSigningKey,
    /// What the login data hold: kept to be saved and to be sealed again under a new password.
    pub(crate) entry_points: EntryPoints,
    /// Mirror tokens, oldest first.
    pub(crate) mirror_bats: Vec<BatWithId>,
    pub(crate) locks: WriteLocks,
}

/// Whoever can write can read.
impl std::ops::Deref for Account {
    type Target = Reading;

    fn deref(&self) -> &Reading {
        &self.reading
    }
}

impl Reading {
    pub(crate) fn api(&self) -> &Api {
        &self.view.blocks.api
    }

    pub(crate) fn environment(&self) -> &dyn Environment {
        self.api().environment().as_ref()
    }

    pub(crate) fn owner(&self) -> &Owner {
        self.view.owner()
    }

    /// Runs work that keeps a processor busy.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ClientError> {
        Ok(computed(self.environment(), work).await?)
    }
}

impl Account {
    pub(crate) fn random(&self) -> Box<dyn CryptoRng + Send> {
        self.environment().random()
    }

    /// Returns the current time as files record it.
    pub(crate) fn now(&self) -> Timestamp {
        let since = self
            .environment()
            .now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        Timestamp::new(seconds, since.subsec_nanos())
            .unwrap_or(Timestamp::from_epoch_seconds(seconds))
    }

    /// Returns the mirror token id for new blocks in a folder: the folder's own, else the account's newest.
    pub(crate) fn mirror_for(&self, folder: &Opened) -> Option<BatId> {
        let newest = || self.mirror_bats.last().map(|bat| bat.id.clone());
        folder.mirror().cloned().or_else(newest)
    }

    /// Starts a change of the space an item is in, on the state the snapshot has of it.
    pub(crate) async fn draft(
        &self,
        snapshot: &mut Snapshot<'_>,
        item: &Item,
        signer: Arc<SecretKeyWithHash>,
    ) -> Result<Draft, ClientError> {
        let space = snapshot.space(&item.capability().writer, None).await?;
        Draft::new(self.view.clone(), signer, space)
    }

    pub(crate) fn runs(&self) -> Runs<'_> {
        Runs::new(self.api())
    }
}

impl Session {
    /// Returns the user name.
    pub fn username(&self) -> &str {
        self.account.name.as_str()
    }

    /// Returns what the session has cost so far.
    pub fn usage(&self) -> Usage {
        self.account.api().counters().usage()
    }
}

impl Session {
    /// Says whether reading may go on while the node is out of reach: on the states that were seen last, as far as their
    /// blocks were kept (see [`BlockKeeper`](super::BlockKeeper)). Writing always needs the node.
    ///
    /// Only the node out of reach is bridged: one that answers with an older state is still caught.
    pub fn allow_offline(&self, is_allowed: bool) {
        self.account.view.offline.allow(is_allowed);
    }

    /// Returns true when something was read from a state that was not asked of the node, since
    /// [`Session::allow_offline`] was called last.
    pub fn was_offline(&self) -> bool {
        self.account.view.offline.was_used()
    }
}

/// Space of an account on its home server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes used.
    pub used_bytes: u64,
    /// Bytes allowed.
    pub quota_bytes: u64,
}

impl Session {
    /// Asks for the space used and allowed.
    ///
    /// # Errors
    /// [`ClientError::Refused`] and [`ClientError::Network`].
    pub async fn space(&self) -> Result<Space, ClientError> {
        let account = &self.account;
        let now = account.environment().now();
        let auth = SignedTime::at(now).sign(account.identity.secret());
        Ok(Space {
            used_bytes: account.api().usage(account.owner(), &auth).await?,
            quota_bytes: account.api().quota(account.owner(), &auth).await?,
        })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("name", &self.account.name.as_str())
            .finish_non_exhaustive()
    }
}

/// One write at a time per writing space (Spec: 21 §13.1).
#[derive(Debug, Default, Clone)]
pub(crate) struct WriteLocks {
    locks: Arc<Mutex<HashMap<Writer, Arc<AsyncMutex<()>>>>>,
}

impl WriteLocks {
    pub(crate) fn of(&self, writer: &Writer) -> Arc<AsyncMutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(writer.clone()).or_default())
    }
}
