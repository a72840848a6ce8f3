//! Whose key is whose: the list of claim chains in the user's own space, trusted on first use (Spec: 10 §10).
//!
//! Invariant: no answer of a node replaces a key that was seen before; only the holder of that key can, by signing the
//! next one (Spec: 40, INT-9). Whether the first answer was right is for people to compare, by fingerprints.

use champ::cbor::Record as _;
use futures_util::io::Cursor;
use pki::{
    chain::{ClaimChain, KnownChains, Learned, MAX_KNOWN_CHAINS_BYTES, NotTrusted, OwnerKeys},
    keys::{Owner, PublicKeyHash},
    username::Username,
};

use super::{
    Session,
    draft::MAX_RUNS,
    path::RemotePath,
    session::Reading,
    upload::{IfExists, UploadOptions},
    version::Version,
};
use crate::{
    error::{ClientError, Misbehavior},
    properties::FileName,
};

/// The file, in the home folder.
const FILE: &str = ".keystore";

impl Session {
    /// Returns the identity key of a user: the one in the user's own list, else the one the node names, which is checked
    /// and added to the list.
    ///
    /// # Errors
    /// [`ClientError::UnknownUser`], [`Misbehavior::BadClaimChain`].
    pub async fn identity_of(&self, name: &str) -> Result<Owner, ClientError> {
        let unknown = || ClientError::UnknownUser {
            name: name.to_owned(),
        };
        let user = Username::parse(name).map_err(|_| unknown())?;
        let (known, _) = self.known_chains().await?;
        if let Some(owner) = known.chain(&user).and_then(ClaimChain::identity) {
            return Ok(owner.clone());
        }
        self.refresh_identity(name).await
    }

    /// Asks the node for the chain of a user again, and takes it over when the user signed it.
    ///
    /// For when what a user shared can no longer be opened: the user may have changed key or server.
    ///
    /// # Errors
    /// [`ClientError::KeyChanged`]: the key that is known stays in force. [`ClientError::UnknownUser`],
    /// [`Misbehavior::BadClaimChain`].
    pub async fn refresh_identity(&self, name: &str) -> Result<Owner, ClientError> {
        let unknown = || ClientError::UnknownUser {
            name: name.to_owned(),
        };
        let user = Username::parse(name).map_err(|_| unknown())?;
        let chain = self.account.api().chain(&user).await?;
        if chain.is_empty() {
            return Err(unknown());
        }
        self.learn(&user, &chain).await?;
        // What was learned may extend an answer that told only a part.
        let (known, _) = self.known_chains().await?;
        let owner = known.chain(&user).and_then(ClaimChain::identity);
        owner.cloned().ok_or_else(unknown)
    }

    /// Returns the users whose keys are known, with the key each has now.
    ///
    /// # Errors
    /// Whatever keeps the list from being read.
    pub async fn known_users(&self) -> Result<Vec<(String, PublicKeyHash)>, ClientError> {
        let (known, _) = self.known_chains().await?;
        let users = known
            .iter()
            .filter_map(|(name, chain)| Some((name.to_string(), chain.identity()?.hash().clone())));
        Ok(users.collect())
    }

    /// Takes a chain into the list, if it may be.
    pub(super) async fn learn(
        &self,
        name: &Username,
        chain: &ClaimChain,
    ) -> Result<Learned, ClientError> {
        let keys = self.account.owner_keys(chain).await;
        for _ in 0..MAX_RUNS {
            let (mut known, version) = self.known_chains().await?;
            let learned = known
                .learn(name, chain, &keys)
                .map_err(|error| match error {
                    NotTrusted::Unsigned { name, .. } => ClientError::KeyChanged {
                        name: name.to_string(),
                    },
                    _ => Misbehavior::BadClaimChain {
                        name: name.to_string(),
                    }
                    .into(),
                })?;
            if learned == Learned::Nothing {
                return Ok(learned);
            }
            match self.keep_chains(&known, version).await {
                // Another device has learned something at the same time: both must be in it.
                Err(ClientError::Exists { .. } | ClientError::ChangedElsewhere { .. }) => {}
                done => return done.map(|()| learned),
            }
        }
        Err(ClientError::Conflict)
    }

    /// Returns true when there is a list.
    pub(super) async fn knows_keys(&self) -> Result<bool, ClientError> {
        self.exists(&self.keystore()?.to_string()).await
    }

    fn keystore(&self) -> Result<RemotePath, ClientError> {
        let name =
            FileName::parse(FILE).map_err(|_| ClientError::Internal("a file name is illegal"))?;
        Ok(RemotePath::home(self.username()).join(name))
    }

    /// Reads the list; a missing one is empty. A damaged one is an error: it must not be replaced by an empty one.
    async fn known_chains(&self) -> Result<(KnownChains, Option<Version>), ClientError> {
        let path = self.keystore()?.to_string();
        let file = match self.open_file(&path).await {
            Err(ClientError::NotFound { .. }) => return Ok((KnownChains::new(), None)),
            file => file?,
        };
        if file.size() > MAX_KNOWN_CHAINS_BYTES as u64 {
            return Err(ClientError::TooLarge {
                what: "the list of known keys",
                max: MAX_KNOWN_CHAINS_BYTES as u64,
            });
        }
        let mut bytes = Vec::new();
        let mut chunks = file.chunks(0);
        while let Some(chunk) = chunks.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        let known = KnownChains::decode_file(&bytes).map_err(|_| ClientError::cannot_read(path))?;
        Ok((known, Some(file.version())))
    }

    async fn keep_chains(
        &self,
        known: &KnownChains,
        version: Option<Version>,
    ) -> Result<(), ClientError> {
        let options = UploadOptions {
            if_exists: version.map_or(IfExists::Fail, IfExists::ReplaceExactly),
            is_hidden: true,
            ..UploadOptions::default()
        };
        let bytes = known.encode();
        let size = Some(bytes.len() as u64);
        let path = self.keystore()?.to_string();
        self.upload(
            &path,
            &mut Cursor::new(bytes),
            size,
            &options,
            &mut |_, _| {},
        )
        .await
        .map(|_| ())
    }
}

impl Reading {
    /// Collects the keys of a chain that are not inside their hashes; one that cannot be had makes the chain invalid.
    pub(super) async fn owner_keys(&self, chain: &ClaimChain) -> OwnerKeys {
        let mut keys = OwnerKeys::inline_only();
        if keys.missing(chain).next().is_some()
            && let Some(owner) = chain.identity()
        {
            let mut blocks = self.view.blocks.clone();
            blocks.owner = owner.clone();
            keys.gather(chain, &blocks).await;
        }
        keys
    }
}
