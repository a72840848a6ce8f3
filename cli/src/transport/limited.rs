//! A connection that takes its time: bytes per second, both ways together.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use cryptree::transport::{ApiRequest, ApiResponse, Transport, TransportError};
use tokio::{sync::Mutex, time::Instant};

/// A node that is asked no faster than a limit.
pub struct Limited {
    inner: Arc<dyn Transport>,
    bytes_per_second: u64,
    /// When what was transferred so far would be through at that rate.
    paid_until: Mutex<Instant>,
}

impl std::fmt::Debug for Limited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limited")
            .field("bytes_per_second", &self.bytes_per_second)
            .finish_non_exhaustive()
    }
}

impl Limited {
    /// Limits a connection; at least a byte per second.
    pub fn new(inner: Arc<dyn Transport>, bytes_per_second: u64) -> Self {
        Self {
            inner,
            bytes_per_second: bytes_per_second.max(1),
            paid_until: Mutex::new(Instant::now()),
        }
    }

    /// Waits as long as `bytes` take after those before them.
    async fn pay(&self, bytes: usize) {
        let took = Duration::from_nanos(
            (bytes as u64)
                .saturating_mul(1_000_000_000)
                .checked_div(self.bytes_per_second)
                .unwrap_or(0),
        );
        let until = {
            let mut paid_until = self.paid_until.lock().await;
            *paid_until = (*paid_until).max(Instant::now()) + took;
            *paid_until
        };
        tokio::time::sleep_until(until).await;
    }
}

#[async_trait]
impl Transport for Limited {
    async fn call(&self, request: ApiRequest) -> Result<ApiResponse, TransportError> {
        self.pay(request.body.as_ref().map_or(0, bytes::Bytes::len))
            .await;
        let reply = self.inner.call(request).await?;
        self.pay(reply.body.len()).await;
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    #[async_trait]
    impl Transport for Echo {
        async fn call(&self, request: ApiRequest) -> Result<ApiResponse, TransportError> {
            Ok(ApiResponse {
                status: 200,
                trailer: None,
                body: request.body.unwrap_or_default(),
            })
        }
    }

    #[tokio::test]
    async fn the_rate_is_kept_over_parallel_calls() {
        let limited = Limited::new(Arc::new(Echo), 1_000_000);
        let begin = Instant::now();
        let call = || {
            let mut request = ApiRequest::new("x", 1 << 20);
            request.body = Some(vec![0; 25_000].into());
            limited.call(request)
        };
        for reply in futures_util::future::join_all((0..4).map(|_| call())).await {
            assert_eq!(reply.unwrap().body.len(), 25_000);
        }
        // 100 kB there and 100 kB back.
        assert!(
            begin.elapsed() >= Duration::from_millis(199),
            "{:?}",
            begin.elapsed()
        );
    }
}
