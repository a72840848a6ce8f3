//! Names: who holds them, and whose home this node is (Spec: 06 §2, 10 §8).
//!
//! Look-ups are answered from the node's own tables and never leave it.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use champ::{Cid, cbor::Record as _};
use parking_lot::RwLock;
use pki::{
    chain::{ClaimChain, OwnerKeys},
    claim::placeholder_provider,
    keys::Owner,
    username::{PKI_OWNER, Username},
};

use crate::{
    error::Refusal,
    identity::NodeIdentity,
    migration::Arrivals,
    store::{Batch, Partition, Store, tables},
};

/// Most users whose routing is remembered.
const MAX_CACHED: usize = 100_000;

/// A user as far as routing is concerned.
#[derive(Debug)]
pub(crate) struct User {
    /// Name.
    pub(crate) name: Username,
    /// The identity key that holds the name now.
    pub(crate) identity: Owner,
    /// The user's block space.
    pub(crate) partition: Partition,
    /// The node that the last claim names.
    pub(crate) home: Cid,
    /// True when the last claim names this node.
    pub(crate) is_local: bool,
}

/// How far the removal of a user from this node is (Spec: 12 §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Its rights have ended; its data may not be gone yet.
    Going,
    /// Nothing but the name is left.
    Done,
}

impl Removal {
    /// Adds the row to a batch.
    pub(crate) fn write(self, batch: Batch, name: &Username) -> Batch {
        let row: &[u8] = match self {
            Self::Going => b"going",
            Self::Done => b"done",
        };
        batch.put(tables::REMOVED, name.as_str().as_bytes().to_vec(), row)
    }
}

/// Looks up names and keys.
pub(crate) struct Directory {
    store: Arc<dyn Store>,
    identity: NodeIdentity,
    /// The table of names: its owner, and whether this node gives names out.
    table: Arc<User>,
    /// Users whose last state is not here yet.
    pub(crate) arrivals: Arrivals,
    by_key: RwLock<HashMap<Cid, Known>>,
}

/// What is remembered of a user.
#[derive(Clone)]
struct Known {
    user: Arc<User>,
    /// The chain that says so: other processes on the same store may change it.
    chain: Bytes,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").finish_non_exhaustive()
    }
}

impl Directory {
    /// Starts with the owner of the table of names, which resolves whatever the table says; `home` is the node that
    /// gives names out, this one or another.
    ///
    /// # Errors
    /// Never in practice: the name of the table's owner is a name.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        identity: NodeIdentity,
        owner: Owner,
        home: Cid,
    ) -> Result<Self, Refusal> {
        let name = Username::parse(PKI_OWNER).map_err(Refusal::internal)?;
        let table = User {
            partition: partition_of(&name)?,
            is_local: identity.is_own(&home),
            identity: owner,
            home,
            name,
        };
        Ok(Self {
            store,
            identity,
            table: Arc::new(table),
            arrivals: Arrivals::default(),
            by_key: RwLock::default(),
        })
    }

    /// Returns the user whose data the table of names is.
    pub(crate) fn table_user(&self) -> Arc<User> {
        Arc::clone(&self.table)
    }

    /// Returns the chain of a name; empty for an unknown one.
    pub(crate) async fn chain(&self, name: &str) -> Result<ClaimChain, Refusal> {
        if name.len() > pki::username::MAX_USERNAME_BYTES {
            return Ok(ClaimChain::default());
        }
        match self.store.get(tables::CHAINS, name.as_bytes()).await? {
            Some(bytes) => ClaimChain::decode(&bytes).map_err(Refusal::internal),
            None => Ok(ClaimChain::default()),
        }
    }

    /// Returns the name that a key holds or held.
    pub(crate) async fn name_of(&self, key: &Owner) -> Result<Option<Username>, Refusal> {
        let Some(bytes) = self.store.get(tables::KEYS, &key.cid().to_bytes()).await? else {
            return Ok(None);
        };
        let name = std::str::from_utf8(&bytes).map_err(Refusal::internal)?;
        Username::parse(name).map(Some).map_err(Refusal::internal)
    }

    /// Returns all names in byte order.
    pub(crate) async fn names(&self) -> Result<Vec<String>, Refusal> {
        let mut names = Vec::new();
        let mut after: Option<Bytes> = None;
        loop {
            let page = self
                .store
                .scan(tables::CHAINS, b"", after.as_deref(), 1000)
                .await?;
            let Some((last, _)) = page.last() else {
                return Ok(names);
            };
            after = Some(last.clone());
            names.extend(
                page.iter()
                    .filter_map(|(name, _)| std::str::from_utf8(name).ok())
                    .map(str::to_owned),
            );
        }
    }

    /// Returns the user of an owner parameter.
    ///
    /// # Errors
    /// [`Refusal::UnknownOwner`], [`Refusal::NoHome`].
    pub(crate) async fn user(&self, owner: &Owner) -> Result<Arc<User>, Refusal> {
        if *owner == self.table.identity {
            return Ok(self.table_user());
        }
        let known = self.by_key.read().get(owner.cid()).cloned();
        if let Some(known) = known
            && (!self.store.is_shared() || self.is_present(&known).await?)
        {
            return Ok(known.user);
        }
        let name = self
            .name_of(owner)
            .await?
            .ok_or_else(|| Refusal::UnknownOwner(owner.cid().clone()))?;
        let row = self
            .store
            .get(tables::CHAINS, name.as_str().as_bytes())
            .await?;
        let user = Arc::new(self.user_of(name, owner, row.as_deref()).await?);
        let mut by_key = self.by_key.write();
        if by_key.len() >= MAX_CACHED {
            by_key.clear();
        }
        let known = Known {
            user: Arc::clone(&user),
            chain: row.unwrap_or_default(),
        };
        by_key.insert(owner.cid().clone(), known);
        Ok(user)
    }

    /// Returns the user of an owner parameter if this node is the home.
    ///
    /// # Errors
    /// As [`Directory::user`], and [`Refusal::NotHome`].
    pub(crate) async fn local(&self, owner: &Owner) -> Result<Arc<User>, Refusal> {
        let user = self.user(owner).await?;
        if !user.is_local {
            return Err(Refusal::NotHome);
        }
        if self.arrivals.contains(&user.name) {
            return Err(Refusal::Moving);
        }
        Ok(user)
    }

    /// Returns the user of a name parameter.
    ///
    /// # Errors
    /// [`Refusal::UnknownName`].
    pub(crate) async fn named(&self, name: &str) -> Result<Arc<User>, Refusal> {
        if name == PKI_OWNER {
            return Ok(self.table_user());
        }
        let chain = self.chain(name).await?;
        let identity = chain.identity().ok_or(Refusal::UnknownName)?;
        self.user(identity).await
    }

    /// Returns the user of a name parameter if this node is the home.
    ///
    /// # Errors
    /// As [`Directory::named`], and [`Refusal::NotHome`].
    pub(crate) async fn named_local(&self, name: &str) -> Result<Arc<User>, Refusal> {
        let user = self.named(name).await?;
        self.local(&user.identity).await
    }

    /// Returns how far the removal of a user is, `None` for users who are not removed.
    pub(crate) async fn removal(&self, name: &Username) -> Result<Option<Removal>, Refusal> {
        let key = name.as_str().as_bytes();
        let row = self.store.get(tables::REMOVED, key).await?;
        Ok(row.map(|row| match row.as_ref() {
            b"done" => Removal::Done,
            _ => Removal::Going,
        }))
    }

    /// Returns true when what was remembered of a local user still holds.
    async fn is_present(&self, known: &Known) -> Result<bool, Refusal> {
        let name = known.user.name.as_str().as_bytes();
        let (chain, removed) = futures_util::try_join!(
            self.store.get(tables::CHAINS, name),
            self.store.get(tables::REMOVED, name),
        )?;
        Ok(known.user.is_local
            && removed.is_none()
            && chain.is_some_and(|chain| chain == known.chain))
    }

    async fn user_of(
        &self,
        name: Username,
        owner: &Owner,
        chain: Option<&[u8]>,
    ) -> Result<User, Refusal> {
        let chain = match chain {
            Some(bytes) => ClaimChain::decode(bytes).map_err(Refusal::internal)?,
            None => ClaimChain::default(),
        };
        let no_home = || Refusal::NoHome(owner.cid().clone());
        let identity = chain.identity().ok_or_else(no_home)?.clone();
        let home = chain.home().ok_or_else(no_home)?;
        let is_home = self.identity.is_own(home) || *home == placeholder_provider();
        Ok(User {
            partition: partition_of(&name)?,
            // Whoever was removed has no home here any more, whatever the claim says.
            is_local: is_home && self.removal(&name).await?.is_none(),
            name,
            home: home.clone(),
            identity,
        })
    }

    /// Adds a chain to a batch: the chain row, guarded by what it was before, and the keys it binds.
    ///
    /// # Errors
    /// When the chain is not valid for the name; what is stored is always checked first.
    pub(crate) fn write_chain(
        &self,
        mut batch: Batch,
        name: &Username,
        existing: &ClaimChain,
        chain: &ClaimChain,
    ) -> Result<Batch, Refusal> {
        chain
            .valid(name, &OwnerKeys::inline_only())
            .map_err(|error| Refusal::malformed(error.to_string()))?;
        let row = name.as_str().as_bytes().to_vec();
        let before = (!existing.is_empty()).then(|| existing.encode());
        batch = batch.expect(tables::CHAINS, row.clone(), before).put(
            tables::CHAINS,
            row.clone(),
            chain.encode(),
        );
        for link in chain.links() {
            let key = link.owner.cid().to_bytes();
            // A key bound to another name is never rebound.
            let bound = existing.is_owned_by(link.owner.hash()).then(|| row.clone());
            batch =
                batch
                    .expect(tables::KEYS, key.clone(), bound)
                    .put(tables::KEYS, key, row.clone());
        }
        Ok(batch)
    }

    /// Forgets what was remembered about the owners of a chain.
    pub(crate) fn forget(&self, chain: &ClaimChain) {
        let mut by_key = self.by_key.write();
        for link in chain.links() {
            by_key.remove(link.owner.cid());
        }
    }
}

/// Returns the block space of a user: the name itself where it is harmless as a file name, else its base32.
///
/// The two forms cannot meet, and no name leads to a path of its own making.
pub(crate) fn partition_of(name: &Username) -> Result<Partition, Refusal> {
    let text = name.as_str();
    let is_harmless = text
        .bytes()
        .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let partition = if is_harmless {
        format!("u-{text}")
    } else {
        format!(
            "x-{}",
            champ::text::to_base32_upper(text.as_bytes()).to_ascii_lowercase()
        )
    };
    Partition::new(&partition).map_err(Refusal::internal)
}

/// Returns the user whose block space this is, whether such a user exists or not; `None` for a space of no user.
pub(crate) fn name_of_partition(partition: &Partition) -> Option<Username> {
    let text = partition.as_str();
    let name = match text.strip_prefix("x-") {
        Some(encoded) => {
            let bytes = champ::text::from_base32_upper(&encoded.to_ascii_uppercase()).ok()?;
            String::from_utf8(bytes).ok()?
        }
        None => text.strip_prefix("u-")?.to_owned(),
    };
    let name = Username::parse(&name).ok()?;
    (partition_of(&name).ok()? == *partition).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pki_5_names_never_become_paths_of_their_own_making() {
        let partition = |name: &str| {
            partition_of(&Username::parse(name).unwrap())
                .unwrap()
                .as_str()
                .to_owned()
        };
        assert_eq!(partition("alice"), "u-alice");
        for hostile in ["..", "a/b", "A", "a_b", "con\\x", &"x/".repeat(32)] {
            let made = partition(hostile);
            assert!(made.starts_with("x-"), "{made}");
            assert!(made.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
            let back = name_of_partition(&Partition::new(&made).unwrap()).unwrap();
            assert_eq!(back.as_str(), hostile);
        }
        assert_ne!(partition("A"), partition("a"));
        for nobody in ["alice", "u-A", "x-me", "x-", "u-"] {
            assert_eq!(name_of_partition(&Partition::new(nobody).unwrap()), None);
        }
    }
}
