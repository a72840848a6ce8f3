//! Secret links of one's own: making, listing, taking back (Spec: 23 §9).
//!
//! A link hands out the key to read one item and what is below it. Its limits bind the node alone: who once opened it
//! has the key, and a dishonest node can count wrongly.

use std::sync::Arc;

use champ::{
    Block,
    cbor::{Record as _, Value},
    map::Champ,
};
use pki::wire::link::{LinkLabel, SecretLinkTarget};
use zeroize::Zeroizing;

use super::{
    Session,
    draft::Draft,
    path::RemotePath,
    session::Account,
    snapshot::Snapshot,
    upload::{IfExists, UploadOptions},
};
use crate::{
    error::ClientError,
    properties::FileName,
    secret_link::SecretLink,
    shared_with::{LinkProperties, MAX_LINKS, MAX_SHARED_WITH_BYTES, SharedWith},
};

/// Folders in the home folder under which the records of what is shared are.
const OUTBOUND: [&str; 2] = [".capabilitycache", "outbound"];
/// Name of the record of a folder.
const RECORD: &str = "sharedWith.cbor";

/// The terms of a new link.
#[derive(Clone, Default)]
pub struct LinkOptions {
    /// What the visitor is asked for besides the text of the link; empty for nothing.
    pub user_password: Zeroizing<String>,
    /// Last moment at which the node hands it out, in UTC seconds since 1970.
    pub expiry_epoch_seconds: Option<i64>,
    /// How often the node hands it out at most.
    pub max_retrievals: Option<u32>,
    /// The page of the link opens the file at once.
    pub opens_file: bool,
}

impl std::fmt::Debug for LinkOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkOptions")
            .field("expiry_epoch_seconds", &self.expiry_epoch_seconds)
            .field("max_retrievals", &self.max_retrievals)
            .finish_non_exhaustive()
    }
}

/// A link that its owner has made.
#[derive(Debug, Clone)]
pub struct OwnLink {
    /// What it leads to.
    pub path: String,
    /// Its text.
    pub link: SecretLink,
    /// Its terms.
    pub properties: LinkProperties,
    /// How often it was retrieved, when the node tells.
    pub retrievals: Option<u64>,
}

impl Session {
    /// Makes a link: whoever has its text, and the password when there is one, reads the item at `path` and everything
    /// below it, without an account.
    ///
    /// # Errors
    /// [`ClientError::NotFound`]; [`ClientError::IllegalPath`] for the home folder; [`ClientError::TooLarge`] for more
    /// than a thousand links of one item.
    pub async fn create_link(
        &self,
        path: &str,
        options: &LinkOptions,
    ) -> Result<SecretLink, ClientError> {
        let path: RemotePath = path.parse()?;
        let account = &self.account;
        let Some((folder, name)) = path.split_last() else {
            return Err(ClientError::IllegalPath {
                path: path.to_string(),
            });
        };
        let (item, _) = Snapshot::new(account).resolve(&path).await?;
        let capability = item.capability().read_only();
        let mut runs = account.runs();
        let (link, target) = loop {
            let mut rng = account.random();
            let link = SecretLink::random(account.owner().clone(), &mut *rng);
            let (drawn, sealed) = (link.clone(), capability.clone());
            let password = options.user_password.clone();
            // The key is made on purpose slowly.
            let sealed = account
                .compute(move || drawn.seal(&sealed, &password, &mut *rng))
                .await?;
            let target = SecretLinkTarget {
                capability: sealed.map_err(|_| ClientError::Internal("a link has no key"))?,
                expiry_epoch_seconds: options.expiry_epoch_seconds,
                max_retrievals: options.max_retrievals.map(i64::from),
            };
            let target = Block::cbor(target.encode())
                .map_err(|_| ClientError::Internal("the target of a link is too large"))?;
            match account.set_link(link.label, Some(&target)).await {
                Ok(()) => break (link, target),
                Err(error) => runs.again_after(error).await?,
            }
        };
        let properties = LinkProperties {
            label: link.label,
            password: link.password.clone(),
            user_password: options.user_password.clone(),
            is_writable: false,
            opens_file: options.opens_file,
            max_retrievals: options.max_retrievals.map(i64::from),
            expiry_epoch_seconds: options.expiry_epoch_seconds,
            target: Some(target.cid().clone()),
        };
        let noted = self
            .change_record(&folder, |shared| {
                let links = shared.links.entry(name.to_string()).or_default();
                if links.len() >= MAX_LINKS {
                    return Err(ClientError::TooLarge {
                        what: "the number of links of one item",
                        max: MAX_LINKS as u64,
                    });
                }
                links.push(properties.clone());
                Ok(())
            })
            .await;
        if let Err(error) = noted {
            // A link that its owner does not know of cannot be taken back.
            let _ = account.set_link(link.label, None).await;
            return Err(error);
        }
        Ok(link)
    }

    /// Lists the links of the account, with how often each was retrieved where the node tells.
    ///
    /// # Errors
    /// Whatever keeps the records from being read.
    pub async fn links(&self) -> Result<Vec<OwnLink>, ClientError> {
        let outbound = self.account.outbound()?;
        let mut links = Vec::new();
        let mut walk = match self.walk(&outbound.to_string()).await {
            Err(ClientError::NotFound { .. }) => return Ok(links),
            walk => walk?,
        };
        while let Some(page) = walk.next().await? {
            let is_there = page.entries.iter().any(|found| found.entry.name == RECORD);
            if !is_there {
                continue;
            }
            let (shared, _) = self
                .read_record(&format!("{outbound}/{}", page.folder))
                .await?;
            for (name, list) in shared.links {
                for properties in list {
                    links.push(OwnLink {
                        path: format!("/{}/{name}", page.folder),
                        link: SecretLink {
                            owner: self.account.owner().clone(),
                            label: properties.label,
                            password: properties.password.clone(),
                        },
                        properties,
                        retrievals: None,
                    });
                }
            }
        }
        if let (false, Some(mirror)) = (links.is_empty(), self.account.mirror_bats.last()) {
            let api = self.account.api();
            // Not every node tells.
            if let Ok(counts) = api.link_counts(&self.account.name, mirror).await {
                for link in &mut links {
                    let count = counts.0.iter().find(|count| {
                        u64::try_from(count.label).is_ok_and(|label| label == link.link.label)
                    });
                    let count = count.map_or(0, |count| count.count);
                    link.retrievals = u64::try_from(count).ok();
                }
            }
        }
        Ok(links)
    }

    /// Takes a link back: the node hands it out no longer. Who has opened it keeps what it gave.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when there is no such link.
    pub async fn remove_link(&self, label: u64) -> Result<(), ClientError> {
        let known = self.links().await?;
        let known = known.into_iter().find(|known| known.link.label == label);
        let mut runs = self.account.runs();
        loop {
            match self.account.set_link(label, None).await {
                Ok(()) => break,
                // It is in the record and no longer handed out.
                Err(ClientError::NotFound { .. }) if known.is_some() => break,
                Err(error) => runs.again_after(error).await?,
            }
        }
        let Some(known) = known else { return Ok(()) };
        let path: RemotePath = known.path.parse()?;
        let Some((folder, name)) = path.split_last() else {
            return Ok(());
        };
        self.change_record(&folder, |shared| {
            if let Some(links) = shared.links.get_mut(name.as_str()) {
                links.retain(|link| link.label != label);
            }
            Ok(())
        })
        .await
    }

    /// Changes the record of what is shared below `folder`; somebody else's change of it is kept.
    async fn change_record(
        &self,
        folder: &RemotePath,
        change: impl Fn(&mut SharedWith) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let mut place = self.account.outbound()?;
        place = place.join(part(folder.user())?);
        for name in folder.names() {
            place = place.join(name.clone());
        }
        self.account.make_folders(&place).await?;
        let path = place.to_string();
        let mut runs = self.account.runs();
        loop {
            let (mut shared, version) = self.read_record(&path).await?;
            change(&mut shared)?;
            let bytes = shared.encode();
            let options = UploadOptions {
                if_exists: version.map_or(IfExists::Fail, IfExists::ReplaceExactly),
                ..UploadOptions::default()
            };
            let size = Some(bytes.len() as u64);
            let mut source = futures_util::io::Cursor::new(&bytes);
            let path = format!("{path}/{RECORD}");
            let done = self
                .upload(&path, &mut source, size, &options, &mut |_, _| {})
                .await;
            match done {
                Ok(_) => return Ok(()),
                Err(ClientError::ChangedElsewhere { .. } | ClientError::Exists { .. }) => {
                    runs.again_after(ClientError::Conflict).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the record in a folder of records, and its state; none when there is none yet.
    async fn read_record(
        &self,
        place: &str,
    ) -> Result<(SharedWith, Option<super::Version>), ClientError> {
        let path = format!("{place}/{RECORD}");
        let file = match self.open_file(&path).await {
            Err(ClientError::NotFound { .. }) => return Ok((SharedWith::default(), None)),
            file => file?,
        };
        if file.size() > MAX_SHARED_WITH_BYTES {
            return Err(ClientError::TooLarge {
                what: "the record of what is shared",
                max: MAX_SHARED_WITH_BYTES,
            });
        }
        let mut bytes = Vec::new();
        let mut chunks = file.chunks(0);
        while let Some(chunk) = chunks.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        let shared =
            SharedWith::decode(&bytes).map_err(|_| ClientError::bad_record("shared with"))?;
        Ok((shared, Some(file.version())))
    }
}

fn part(name: &str) -> Result<FileName, ClientError> {
    FileName::parse(name).map_err(|_| ClientError::Internal("a folder name is illegal"))
}

impl Account {
    fn outbound(&self) -> Result<RemotePath, ClientError> {
        let mut path = RemotePath::home(self.name.as_str());
        for name in OUTBOUND {
            path = path.join(part(name)?);
        }
        Ok(path)
    }

    /// Lets a label lead to `target`, or to nothing.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] when the label is taken, [`ClientError::NotFound`] when there is nothing to remove.
    async fn set_link(&self, label: u64, target: Option<&Block>) -> Result<(), ClientError> {
        let missing = || ClientError::not_found("the link");
        let key = u32::try_from(label).ok().and_then(LinkLabel::new);
        let key = key.ok_or_else(missing)?.champ_key();
        let mirror = self.mirror_bats.last().cloned();
        let mirror = mirror.ok_or(ClientError::OldLayout {
            what: "secret links",
        })?;
        let identity = self.owner().as_writer();
        let lock = self.locks.of(&identity);
        let _writing = lock.lock().await;
        let space = self.view.space(&identity).await?;
        let space = space.ok_or_else(|| ClientError::AccountDeleted {
            name: self.name.to_string(),
        })?;
        let mut links = match space.data.links.clone() {
            Some(root) => Champ::at(root).with_root_token(mirror),
            None => Champ::empty_private(mirror.id),
        };
        let blocks = &self.view.blocks;
        let present = links.get(&key, blocks).await?;
        match (target, &present) {
            (Some(_), Some(_)) => return Err(ClientError::Conflict),
            (None, None) => return Err(missing()),
            (Some(target), None) => {
                let value = Value::Link(target.cid().clone());
                links.put(key.to_vec(), None, value, blocks).await?;
            }
            (None, Some(_)) => links.remove(&key, present.as_ref(), blocks).await?,
        }
        let (root, mut new) = links.finish()?;
        new.extend(target.cloned());
        let mut draft = Draft::new(self.view.clone(), Arc::new(self.identity.clone()), space)?;
        draft.change_root(|data| data.links = Some(root), new);
        draft.commit().await.map(|_| ())
    }
}
