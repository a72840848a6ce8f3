//! One owner's site as it is published now (Spec: 13 §9.1 steps 3 to 7, §9.3).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cryptree::{
    Client, ClientError,
    client::{PublishedFiles, PublishedItem, RemoteFile, Versions},
};
use http::HeaderValue;
use pki::{published::PublishedPath, username::Username};
use tokio::time::timeout;

use super::{
    content::{ContentType, MAX_POLICY_BYTES, SMALL_FILE_BYTES, policy},
    failure::SiteFailure,
};

/// Longest content of the file that names the web root.
const MAX_WEBROOT_BYTES: u64 = 4096;
/// How long the server may take for one step: a chunk, or finding something.
pub(super) const STEP: Duration = Duration::from_secs(15);
/// How long a name is taken to belong to the same key.
const MAX_AGE: Duration = Duration::from_secs(60);

/// A site.
#[derive(Debug)]
pub(super) struct Site {
    published: PublishedFiles,
    root: PublishedItem,
    pub(super) policy: HeaderValue,
    versions: Versions,
    looked: Instant,
}

/// What a request for a site gets.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) kind: ContentType,
    pub(super) size: u64,
    pub(super) content: Content,
    pub(super) is_missing: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    /// In memory, and what it was read from.
    Small(Bytes, Versions),
    /// To be read chunk by chunk.
    Large(Arc<RemoteFile>),
}

/// Waits for one step.
pub(super) async fn step<T>(
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, SiteFailure> {
    Ok(timeout(STEP, work)
        .await
        .map_err(|_| SiteFailure::TimedOut)??)
}

impl Site {
    /// Finds out what the owner has published as a site.
    pub(super) async fn load(client: &Client, owner: &Username) -> Result<Self, SiteFailure> {
        let looked = Instant::now();
        let webroot = format!("/{owner}/.profile/webroot");
        let published = step(client.published(owner.as_str()))
            .await
            .map_err(|failure| match failure {
                SiteFailure::Client(ClientError::UnknownUser { .. }) => {
                    SiteFailure::Absent(format!("Owner doesn't exist for path {webroot}"))
                }
                other => other,
            })?;
        let profile = open(&published, &webroot).await?;
        let text = read_small(&profile, MAX_WEBROOT_BYTES).await?;
        let path = text
            .as_deref()
            .and_then(|text| std::str::from_utf8(text).ok())
            .and_then(|text| PublishedPath::parse(text.trim()).ok())
            .filter(|path| path.owner() == owner.as_str() && path.elements().len() > 1)
            .ok_or_else(|| {
                SiteFailure::Absent(format!(
                    "User {owner} has no folder of their own as web root"
                ))
            })?;
        let root = open(&published, &path.to_string()).await?;
        if !root.properties().is_directory {
            return Err(SiteFailure::Absent(format!("No folder at {path}")));
        }
        let mut versions = profile.versions().clone();
        versions.extend(root.versions());
        let headers = match step(root.below(&["headers.json"])).await {
            Ok(file) => read_small(&file, MAX_POLICY_BYTES).await?,
            Err(failure) if failure.is_absence() => None,
            Err(failure) => return Err(failure),
        };
        Ok(Self {
            published,
            root,
            policy: policy(headers.as_deref()),
            versions,
            looked,
        })
    }

    /// Returns true when what the site consists of is still published, and unchanged.
    pub(super) async fn is_current(&self) -> Result<bool, SiteFailure> {
        if self.looked.elapsed() > MAX_AGE {
            return Ok(false);
        }
        self.are_current(&self.versions).await
    }

    /// Returns true when what was read from these states would be read again.
    pub(super) async fn are_current(&self, versions: &Versions) -> Result<bool, SiteFailure> {
        step(self.published.are_current(versions)).await
    }

    /// Finds a file; a folder stands for its `index.html`. `None`: nothing is there.
    pub(super) async fn page(&self, names: &[String]) -> Result<Option<Page>, SiteFailure> {
        let item = match self.item(names).await {
            Ok(item) => item,
            Err(failure) if failure.is_absence() => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let file = step(item.file()).await?;
        let properties = item.properties();
        let name = properties.name.to_string();
        let size = file.size();
        if size >= SMALL_FILE_BYTES {
            return Ok(Some(Page {
                kind: ContentType::of(&name, file.mime_type(), None),
                size,
                content: Content::Large(Arc::new(file)),
                is_missing: false,
            }));
        }
        let body = whole(&file).await?;
        Ok(Some(Page {
            kind: ContentType::of(&name, file.mime_type(), Some(&body)),
            size: body.len() as u64,
            content: Content::Small(body, item.versions().clone()),
            is_missing: false,
        }))
    }

    /// Returns the site's own page for what is not there.
    pub(super) async fn missing_page(&self) -> Result<Option<Page>, SiteFailure> {
        let page = self.page(&["404.html".to_owned()]).await?;
        Ok(page
            .filter(|page| matches!(page.content, Content::Small(..)))
            .map(|page| Page {
                kind: ContentType::page(),
                is_missing: true,
                ..page
            }))
    }

    async fn item(&self, names: &[String]) -> Result<PublishedItem, SiteFailure> {
        let item = step(self.root.below(names)).await?;
        if item.properties().is_directory {
            return step(item.below(&["index.html"])).await;
        }
        Ok(item)
    }
}

async fn open(published: &PublishedFiles, path: &str) -> Result<PublishedItem, SiteFailure> {
    let absent = || {
        SiteFailure::Absent(format!(
            "User {} has not published a file at {path}",
            published.username()
        ))
    };
    let parsed = PublishedPath::parse(path).map_err(|_| absent())?;
    match step(published.open(&parsed)).await {
        Ok(found) => found.ok_or_else(absent),
        Err(failure) if failure.is_absence() => Err(absent()),
        Err(failure) => Err(failure),
    }
}

/// Reads a file of at most `max` bytes; `None` for anything else.
async fn read_small(item: &PublishedItem, max: u64) -> Result<Option<Bytes>, SiteFailure> {
    if item.properties().is_directory || item.properties().size_bytes > max {
        return Ok(None);
    }
    let file = step(item.file()).await?;
    whole(&file).await.map(Some)
}

/// Reads a file of one chunk.
async fn whole(file: &RemoteFile) -> Result<Bytes, SiteFailure> {
    let mut chunks = file.chunks(0);
    Ok(step(chunks.next()).await?.unwrap_or_default())
}
