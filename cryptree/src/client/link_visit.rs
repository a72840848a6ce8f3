//! Opening a secret link of somebody else, without an account (Spec: 23 §9.3).
//!
//! The password of the link and that of the visitor stay here: the node hands out a sealed capability and learns
//! nothing but which label was asked for. Nothing is read but what the owner's own keys lead to.

use std::sync::Arc;

use champ::Block;
use pki::{pointer::PointerMemory, username::Username, wire::link::EncryptedCapability};
use zeroize::Zeroizing;

use super::{
    CACHE_BYTES, Client, blocks::Wanted, cache::ChildLists, nodes::Opened,
    published::PublishedItem, session::Reading, snapshot::Snapshot, space::OwnerView,
};
use crate::{
    capability::AbsoluteCapability,
    environment::computed,
    error::{ClientError, Misbehavior},
    node::CryptreeNode,
    secret_link::{LinkError, SecretLink},
};

/// Folders above an item that are followed.
const MAX_DEPTH: usize = 2048;
/// Child lists kept; a full page is some 200 kB.
const MAX_CHILD_LISTS: usize = 16;

/// What the node handed out for a link. Opening it asks the node for nothing that counts, so a wrong password can be
/// tried again.
#[derive(Clone)]
pub struct RetrievedLink {
    client: Client,
    link: SecretLink,
    sealed: EncryptedCapability,
}

impl std::fmt::Debug for RetrievedLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetrievedLink")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Retrieves a link. The node counts it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the node's reason: no such link, expired, used up.
    pub async fn retrieve_link(&self, link: &SecretLink) -> Result<RetrievedLink, ClientError> {
        let sealed = self.api.secret_link(&link.owner, link.label).await?;
        Ok(RetrievedLink {
            client: self.clone(),
            link: link.clone(),
            sealed,
        })
    }
}

impl RetrievedLink {
    /// Returns true when a password is needed besides the text of the link. The node says so: it is a hint.
    pub const fn needs_password(&self) -> bool {
        self.sealed.needs_password
    }

    /// Opens what the link leads to, for reading.
    ///
    /// # Errors
    /// [`ClientError::WrongCredentials`] for a wrong password, [`Misbehavior`] when the item is not the owner's.
    pub async fn open(&self, user_password: &str) -> Result<PublishedItem, ClientError> {
        let (link, sealed) = (self.link.clone(), self.sealed.clone());
        let password = Zeroizing::new(user_password.to_owned());
        let environment = self.client.api.environment().as_ref();
        let opened = computed(environment, move || link.open(&sealed, &password)).await?;
        let capability = opened.map_err(|error| match error {
            LinkError::Open(_) => ClientError::WrongCredentials,
            _ => ClientError::bad_record("secret link"),
        })?;
        let view =
            self.client
                .view_keeping(CACHE_BYTES, self.link.owner.clone(), PointerMemory::new());
        view.check_owned(None, &capability.writer).await?;
        let path = self.path(&view, &capability).await?;
        let name = path.first().ok_or_else(invalid)?;
        let reading = Arc::new(Reading {
            name: Username::parse(name).map_err(|_| invalid())?,
            home: capability,
            view,
            child_lists: ChildLists::at_most(MAX_CHILD_LISTS),
        });
        let mut snapshot = Snapshot::new(&reading);
        let first = snapshot.open(&reading.home, None).await?;
        let first = first.ok_or_else(|| ClientError::not_found("what the link leads to"))?;
        let item = snapshot.follow(first, None).await?;
        let versions = snapshot.versions();
        drop(snapshot);
        let path = format!("/{}", path.join("/"));
        Ok(PublishedItem::found(reading, item, path, versions))
    }

    /// Follows the item's parents up to the home folder, which must be that of the link's owner.
    async fn path(
        &self,
        view: &OwnerView,
        capability: &AbsoluteCapability,
    ) -> Result<Vec<String>, ClientError> {
        let mut names = Vec::new();
        let mut capability = capability.clone();
        for _ in 0..MAX_DEPTH {
            let block = node_block(view, &capability).await?;
            let node = CryptreeNode::of_block(&block)?.open(&capability.r_base)?;
            let properties = node.properties();
            // What is behind a link node goes by the name of the link, which comes next.
            let is_behind_link = names.is_empty() && node.parent_link().is_some() && {
                let opened = Opened::open(&block, &capability);
                opened.is_ok_and(|opened| opened.starts_space()) && !properties.is_link
            };
            if !is_behind_link {
                names.push(properties.name.to_string());
            }
            let Some(parent) = node.parent_link() else {
                let name = names.last().cloned().ok_or_else(invalid)?;
                let name = Username::parse(&name).map_err(|_| invalid())?;
                let identity = self.client.api.public_key(&name).await?;
                if identity.as_ref() != Some(&self.link.owner.0) {
                    return Err(invalid());
                }
                names.reverse();
                return Ok(names);
            };
            let above = parent.resolve(&capability).map_err(|_| invalid())?;
            if above.writer != capability.writer {
                view.check_owned(None, &above.writer).await?;
            }
            capability = above;
        }
        Err(ClientError::TooLarge {
            what: "the depth of the folder",
            max: MAX_DEPTH as u64,
        })
    }
}

async fn node_block(
    view: &OwnerView,
    capability: &AbsoluteCapability,
) -> Result<Block, ClientError> {
    let missing = || ClientError::not_found("what the link leads to");
    let space = view.space(&capability.writer).await?;
    let space = space.ok_or_else(missing)?;
    let wanted = [Wanted {
        map_key: *capability.map_key.bytes(),
        bat: capability.bat.clone(),
    }];
    let found = view.blocks.lookup(space.tree()?, &wanted).await?;
    found.into_iter().flatten().next().ok_or_else(missing)
}

/// The item is not in the files of whom the link names.
fn invalid() -> ClientError {
    Misbehavior::MalformedRecord {
        what: "secret link",
    }
    .into()
}
