//! A transport that remembers what was asked, so that real requests can be repeated under load.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use cryptree::transport::{ApiRequest, ApiResponse, Transport, TransportError};

/// Passes calls on and remembers the targets of those without a body.
#[derive(Debug)]
pub struct Recorder<T> {
    inner: T,
    seen: Mutex<BTreeMap<String, Vec<String>>>,
}

impl<T> Recorder<T> {
    /// Starts with nothing remembered.
    pub const fn new(inner: T) -> Self {
        Self {
            inner,
            seen: Mutex::new(BTreeMap::new()),
        }
    }

    /// Returns the distinct targets of successful calls of `path`, each with path and query.
    pub fn targets(&self, path: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut targets = seen.get(path).cloned().unwrap_or_default();
        targets.sort_unstable();
        targets.dedup();
        targets
    }
}

#[async_trait]
impl<T: Transport> Transport for Recorder<T> {
    async fn call(&self, request: ApiRequest) -> Result<ApiResponse, TransportError> {
        let record = request
            .body
            .is_none()
            .then(|| (request.path.to_string(), request.target()));
        let response = self.inner.call(request).await?;
        if let Some((path, target)) = record.filter(|_| response.status == 200) {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.entry(path).or_default().push(target);
        }
        Ok(response)
    }
}
