//! The web-site gateway: published folders as ordinary web sites (Spec: 13 §9).
//!
//! It holds no keys and reads through a node like any client without an account. Invariants: nothing is served but
//! what the host's owner publishes now; what owners write gets into a header only after it was checked; memory,
//! time and the number of requests at work are bounded whatever an owner publishes.

mod admission;
mod cache;
mod content;
mod failure;
mod request;
mod respond;
mod serve;
mod site;

pub use request::{DomainSuffix, InvalidSuffix};
pub use respond::Body;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use cryptree::Client;
use http::{HeaderMap, Method, Response, Uri};
use pki::username::Username;

use admission::{Admission, Admitted};
use cache::Cache;
use failure::SiteFailure;
use respond::Sender;
use site::{Content, Page, Site};

/// Sites kept; each keeps up to half a megabyte of what it was read from.
const MAX_SITES: usize = 200;
/// Files kept.
const MAX_FILES: usize = 1000;
/// Bytes of files kept.
const MAX_FILE_BYTES: usize = 32 << 20;

/// A file of a site: owner, and the names that lead to it.
type FileKey = (Username, Vec<String>);

/// A gateway. Clones share what was read.
#[derive(Debug, Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    suffix: DomainSuffix,
    /// Reached over TLS, which ends in front of it.
    is_public: bool,
    admission: Admission,
    sites: Mutex<Cache<Username, Arc<Site>>>,
    files: Mutex<Cache<FileKey, Page>>,
}

impl Gateway {
    /// Makes a gateway that reads with `client`, which should be one that does not retry.
    pub fn new(client: Client, suffix: DomainSuffix, is_public: bool) -> Self {
        Self {
            shared: Arc::new(Shared {
                client,
                suffix,
                is_public,
                admission: Admission::default(),
                sites: Mutex::new(Cache::new(MAX_SITES, usize::MAX)),
                files: Mutex::new(Cache::new(MAX_FILES, MAX_FILE_BYTES)),
            }),
        }
    }

    /// Answers one request.
    pub async fn answer(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        address: IpAddr,
    ) -> Response<Body> {
        let sender = Sender {
            is_head: method == Method::HEAD,
            is_public: self.shared.is_public,
        };
        match self.page(method, uri, headers, address).await {
            Ok((Some(page), site, admitted)) => sender.page(page, &site.policy, admitted).await,
            Ok((None, site, _)) => sender.nothing(&site.policy),
            Err(failure) => sender.refusal(&failure),
        }
    }

    async fn page(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        address: IpAddr,
    ) -> Result<(Option<Page>, Arc<Site>, Admitted), SiteFailure> {
        let shared = &self.shared;
        let owner = shared
            .suffix
            .owner(headers, uri)
            .ok_or_else(|| SiteFailure::Domain(shared.suffix.to_string()))?;
        if method != Method::GET && method != Method::HEAD {
            return Err(SiteFailure::Method);
        }
        let admitted = shared.admission.enter(&owner, address);
        let admitted = admitted.ok_or(SiteFailure::Busy)?;
        let site = self.site(&owner).await?;
        let page = match request::names(uri) {
            Some(names) => self.file(&site, &owner, names).await?,
            None => None,
        };
        let page = match page {
            Some(page) => Some(page),
            None => site.missing_page().await?,
        };
        Ok((page, site, admitted))
    }

    /// Returns the owner's site as it is now: the one known if nothing of it has changed.
    async fn site(&self, owner: &Username) -> Result<Arc<Site>, SiteFailure> {
        let known = lock(&self.shared.sites).get(owner);
        if let Some(site) = known {
            if site.is_current().await? {
                return Ok(site);
            }
            lock(&self.shared.sites).remove(owner);
            lock(&self.shared.files).retain(|(of, _)| of != owner);
        }
        let site = Arc::new(Site::load(&self.shared.client, owner).await?);
        lock(&self.shared.sites).insert(owner.clone(), Arc::clone(&site), 0);
        Ok(site)
    }

    async fn file(
        &self,
        site: &Site,
        owner: &Username,
        names: Vec<String>,
    ) -> Result<Option<Page>, SiteFailure> {
        let key = (owner.clone(), names);
        let known = lock(&self.shared.files).get(&key);
        if let Some(page) = known {
            if let Content::Small(_, versions) = &page.content
                && site.are_current(versions).await?
            {
                return Ok(Some(page));
            }
            lock(&self.shared.files).remove(&key);
        }
        let page = site.page(&key.1).await?;
        if let Some(page) = &page
            && let Content::Small(body, _) = &page.content
        {
            let bytes = body.len();
            lock(&self.shared.files).insert(key, page.clone(), bytes);
        }
        Ok(page)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A cache is a cache after any panic of another holder.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
