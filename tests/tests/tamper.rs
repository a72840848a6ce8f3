//! A transport that changes replies, or loses them after the node has acted.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use cryptree::transport::{ApiRequest, ApiResponse, Transport, TransportError};

/// Changes the reply to a call of the given path.
type Change = Box<dyn Fn(&str, &mut ApiResponse) + Send + Sync>;

/// Passes calls on; what comes back is up to the test.
pub(crate) struct Tamper<T> {
    inner: T,
    change: Mutex<Option<Change>>,
    /// Every n-th reply is lost; 0 loses none.
    lose_every: AtomicUsize,
    calls: AtomicUsize,
    lost: AtomicUsize,
}

impl<T> Tamper<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner,
            change: Mutex::new(None),
            lose_every: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
        }
    }

    /// From now on replies are changed so.
    pub(crate) fn change(&self, change: impl Fn(&str, &mut ApiResponse) + Send + Sync + 'static) {
        *self.change.lock().unwrap() = Some(Box::new(change));
    }

    /// From now on every `n`-th reply is lost, after the node has acted.
    pub(crate) fn lose_every(&self, n: usize) {
        self.lose_every.store(n, Ordering::Relaxed);
    }

    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl<T: Transport> Transport for Tamper<T> {
    async fn call(&self, request: ApiRequest) -> Result<ApiResponse, TransportError> {
        let path = request.path.clone();
        let mut response = self.inner.call(request).await?;
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let every = self.lose_every.load(Ordering::Relaxed);
        if every > 0 && number.is_multiple_of(every) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            return Err(TransportError::Interrupted(std::sync::Arc::new(reset)));
        }
        if let Some(change) = self.change.lock().unwrap().as_ref() {
            change(&path, &mut response);
        }
        Ok(response)
    }
}
