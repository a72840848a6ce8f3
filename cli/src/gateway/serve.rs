//! The gateway's listener (Spec: 13 §9).

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use super::Gateway;

/// Open connections; more wait to be accepted.
const MAX_CONNECTIONS: usize = 512;
/// Time to send the head of a request, which is also how long an idle connection is kept.
const HEAD: Duration = Duration::from_secs(30);
/// Longest head of a request.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Gateway {
    /// Serves connections until `shutdown` resolves.
    ///
    /// # Errors
    /// None so far: a connection that cannot be accepted is tried again.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => return Ok(()),
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = async {
                    let slot = Arc::clone(&slots).acquire_owned().await;
                    (slot, listener.accept().await)
                } => accepted,
            };
            match accepted {
                (Ok(slot), Ok((stream, peer))) => {
                    let gateway = self.clone();
                    connections.spawn(async move {
                        gateway.connection(stream, peer.ip()).await;
                        drop(slot);
                    });
                }
                (Ok(_), Err(_)) => tokio::time::sleep(ACCEPT_PAUSE).await,
                (Err(_), _) => return Ok(()),
            }
        }
    }

    async fn connection(&self, stream: TcpStream, address: IpAddr) {
        let _ = stream.set_nodelay(true);
        let service = service_fn(move |request: Request<Incoming>| {
            let gateway = self.clone();
            async move {
                let (parts, body) = request.into_parts();
                // No request to a site has a body that matters.
                drop(body);
                let answer = gateway
                    .answer(&parts.method, &parts.uri, &parts.headers, address)
                    .await;
                Ok::<_, Infallible>(answer)
            }
        });
        // Browsers and scanners break off connections all the time.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }
}
