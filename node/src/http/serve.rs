//! The listener: bounded connections, time limits, graceful shutdown (Spec: 05 §8, 40 §9, REL-21).

use std::{collections::HashMap, convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use http::{Request, Version};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{Hosts, Origin, RequestBody, answer, stream::GuardedStream};
use crate::state::State;

/// Read buffer of a connection: also the longest header block.
const MAX_BUFFER_BYTES: usize = 192 << 10;
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Wait after a failure to accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Counts open connections by address.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

impl Addresses {
    /// Counts one more connection, unless the address has too many.
    fn enter(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Entered> {
        let mut counts = self.0.lock();
        let count = counts.entry(address).or_insert(0);
        if *count >= max && !address.is_loopback() {
            return None;
        }
        *count += 1;
        Some(Entered {
            addresses: Arc::clone(self),
            address,
        })
    }
}

struct Entered {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Serves connections until `shutdown` resolves, then finishes the requests in flight.
///
/// # Errors
/// When the listener has no address, or the public host is none.
pub(crate) async fn serve(
    state: Arc<State>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let public_host = state.config.public_host.as_deref();
    let hosts = Hosts::new(address, public_host, state.identity.all()).map_err(io::Error::other)?;
    let hosts = Arc::new(hosts);
    let limits = state.config.limits;
    let slots = Arc::new(Semaphore::new(limits.connections));
    let addresses = Arc::new(Addresses::default());
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        // A slot first: what cannot be served waits in the listener's queue.
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, listener.accept().await)
            } => accepted,
        };
        let (Ok(slot), accepted) = accepted else {
            break;
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(entered) = addresses.enter(peer.ip(), limits.connections_per_address) else {
            continue;
        };
        let (state, hosts, stopping) = (Arc::clone(&state), Arc::clone(&hosts), stopping.clone());
        connections.spawn(async move {
            connection(state, hosts, stream, peer.ip(), stopping).await;
            drop((slot, entered));
        });
    }
    drop(listener);
    stop.send_replace(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.shutdown_grace, finished)
        .await
        .is_err()
    {
        tracing::warn!(
            open = connections.len(),
            "closing connections that did not finish"
        );
        connections.shutdown().await;
    }
    Ok(())
}

async fn connection(
    state: Arc<State>,
    hosts: Arc<Hosts>,
    stream: TcpStream,
    address: IpAddr,
    mut stopping: watch::Receiver<bool>,
) {
    // Answers are written whole, so waiting to coalesce them only adds latency.
    let _ = stream.set_nodelay(true);
    let limits = state.config.limits;
    let (stream, stand_in) = GuardedStream::new(stream, limits.write_timeout);
    let service = service_fn(move |request: Request<Incoming>| {
        let (state, hosts) = (Arc::clone(&state), Arc::clone(&hosts));
        let stand_in = stand_in.clone();
        async move {
            let is_old = request.version() == Version::HTTP_10;
            let request = request.map(RequestBody::Arriving);
            let mut response = answer(&state, &hosts, request, Origin::Address(address)).await;
            if is_old {
                stand_in.apply(response.headers_mut());
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(MAX_BUFFER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = async { drop(stopping.wait_for(|stop| *stop).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "connection ended early");
    }
}
