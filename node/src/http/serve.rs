//! The listener: admits connections, speaks HTTP on them, and ends them in peace (Spec: 05 §8, 40 §9, REL-21).

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Hosts, Origin, RequestBody,
    admission::source,
    answer, finish,
    forwarded::client,
    h2::{self, Activity, Sliced},
    head::{HeadRefusal, MAX_HEAD_BYTES, MAX_HEADERS, MAX_LINE_BYTES},
    redirect,
    screen::{Patience, Screen},
    stream::{Paced, Pacing},
};
use crate::{config::Limits, error::Refusal, metrics::Limit, state::State};

/// One year (Spec: 13 §4).
const STRICT: HeaderValue = HeaderValue::from_static("max-age=31536000");
/// Read buffer of a connection; a whole head is handed over at once.
const MAX_BUFFER_BYTES: usize = 2 * MAX_HEAD_BYTES;
/// Wait after a failure to accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections above the limits that are told so at the same time; more are closed without a word.
const MAX_TURNED_AWAY: usize = 64;
/// How long telling them may take.
const TURN_AWAY_TIME: Duration = Duration::from_secs(2);

/// What a listener speaks.
#[derive(Debug)]
pub(crate) enum Transport {
    /// HTTP/1.
    Plain,
    /// HTTP/1 or HTTP/2 over TLS.
    Tls(Arc<rustls::ServerConfig>),
    /// HTTP/1 that sends everybody to this host and port over TLS.
    Redirect(String),
}

/// What the connections of one listener share.
#[derive(Debug)]
struct Door {
    transport: Transport,
    state: Arc<State>,
    hosts: Hosts,
    stopping: watch::Receiver<bool>,
}

/// Serves connections until `shutdown` resolves, then finishes the requests in flight.
///
/// # Errors
/// When the listener has no address, or the public host is none.
pub(crate) async fn serve(
    state: Arc<State>,
    listener: TcpListener,
    transport: Transport,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let public_host = state.config.public_host.as_deref();
    let hosts = Hosts::new(address, public_host, state.identity.all())
        .map_err(io::Error::other)?
        .public(state.config.is_public);
    let hosts = match transport {
        Transport::Tls(_) => hosts.ending_tls(),
        Transport::Plain | Transport::Redirect(_) => hosts,
    };
    let limits = state.config.limits;
    let (stop, stopping) = watch::channel(false);
    let door = Arc::new(Door {
        transport,
        state,
        hosts,
        stopping,
    });
    let turned_away = Arc::new(Semaphore::new(MAX_TURNED_AWAY));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let peer = peer.ip().to_canonical();
        let door = Arc::clone(&door);
        match door.state.admission.connect(door.counted(peer)) {
            Ok(seat) => {
                door.state.metrics.accepted();
                connections.spawn(async move {
                    door.admit(stream, peer).await;
                    drop(seat);
                });
            }
            Err(full) => {
                door.state.metrics.refused(Limit::Connections);
                // A handshake is more than there is time for.
                if matches!(door.transport, Transport::Tls(_)) {
                    continue;
                }
                if let Ok(permit) = Arc::clone(&turned_away).try_acquire_owned() {
                    connections.spawn(async move {
                        let _ =
                            tokio::time::timeout(TURN_AWAY_TIME, turn_away(stream, full.into()))
                                .await;
                        drop(permit);
                    });
                }
            }
        }
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

/// Answers a connection that cannot be served, before it has asked for anything.
async fn turn_away(mut stream: TcpStream, refusal: Refusal) -> io::Result<()> {
    let mut response = refusal.into_response();
    finish(&mut response);
    let mut text = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"content-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(&text).await?;
    stream.shutdown().await?;
    // Closing with unread bytes would reset the connection and could take the answer with it.
    let mut space = [0; 1024];
    for _ in 0..MAX_TURNED_AWAY {
        if stream.read(&mut space).await? == 0 {
            break;
        }
    }
    Ok(())
}

impl Door {
    /// Returns the address under which a connection is counted, unless many clients share it.
    fn counted(&self, peer: IpAddr) -> Option<IpAddr> {
        let trusted = &self.state.config.trusted_proxies;
        let is_shared = peer.is_loopback() || trusted.iter().any(|network| network.contains(peer));
        (!is_shared).then(|| source(peer))
    }

    async fn admit(self: Arc<Self>, stream: TcpStream, peer: IpAddr) {
        // Answers are written whole, so waiting to coalesce them only adds latency.
        let _ = stream.set_nodelay(true);
        let Transport::Tls(config) = &self.transport else {
            return self.http1(stream, peer).await;
        };
        let handshake = TlsAcceptor::from(Arc::clone(config)).accept(stream);
        let patience = self.state.config.limits.header_timeout;
        let Ok(Ok(stream)) = tokio::time::timeout(patience, handshake).await else {
            self.state.metrics.refused(Limit::Handshake);
            return;
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.http2(stream, peer).await;
        } else {
            self.http1(stream, peer).await;
        }
    }

    /// Answers a request that got through, or says why one did not.
    async fn reply(
        &self,
        request: Request<Incoming>,
        refusal: Option<HeadRefusal>,
        peer: IpAddr,
    ) -> Response<Full<Bytes>> {
        let mut response = match (refusal, &self.transport) {
            (Some(refusal), _) => self.refuse_head(refusal),
            (None, Transport::Redirect(site)) => {
                let challenges = self.state.tls.as_ref().map(|tls| tls.challenges());
                redirect::answer(site, request.uri().path(), challenges)
            }
            (None, _) => self.respond(request, peer).await,
        };
        if matches!(self.transport, Transport::Tls(_)) {
            response
                .headers_mut()
                .insert(header::STRICT_TRANSPORT_SECURITY, STRICT);
        }
        response
    }

    /// Speaks HTTP/2 on a connection until it ends.
    async fn http2<S>(self: Arc<Self>, stream: S, peer: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = self.state.config.limits;
        let mut stopping = self.stopping.clone();
        let activity = Activity::new();
        let seen = Arc::clone(&activity);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (door, exchange) = (Arc::clone(&self), seen.begin());
            async move {
                h2::name_host(&mut request);
                let response = door.reply(request, None, peer).await;
                Ok::<_, std::convert::Infallible>(Sliced::of(response, exchange))
            }
        });
        let connection = h2::builder(TokioExecutor::new(), &limits)
            .serve_connection(TokioIo::new(Paced::new(stream, pacing(&limits))), service);
        tokio::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => Ok(outcome),
            () = activity.is_over(limits.keep_alive, limits.body_time) => Err(()),
            () = async { drop(stopping.wait_for(|stop| *stop).await) } => Err(()),
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(()) => {
                connection.as_mut().graceful_shutdown();
                // A client that does not go is left.
                let ended = tokio::time::timeout(limits.shutdown_grace, connection).await;
                ended.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "connection ended early");
        }
    }

    /// Speaks HTTP/1 on a connection until it ends.
    async fn http1<S>(self: Arc<Self>, stream: S, peer: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = self.state.config.limits;
        let patience = Patience {
            head: limits.header_timeout,
            idle: limits.keep_alive,
        };
        let (screen, desk) = Screen::new(Paced::new(stream, pacing(&limits)), patience);
        let mut stopping = self.stopping.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (door, desk) = (Arc::clone(&self), Arc::clone(&desk));
            async move {
                let is_old = request.version() == Version::HTTP_10;
                let mut response = door.reply(request, desk.take_request(), peer).await;
                if is_old {
                    desk.stand_in(response.headers_mut());
                }
                desk.answered();
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(MAX_BUFFER_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(screen), service);
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

    /// Answers in place of a request that never got through.
    fn refuse_head(&self, refusal: HeadRefusal) -> Response<Full<Bytes>> {
        self.state.metrics.refused(refusal.limit());
        let mut response = Refusal::Head {
            status: refusal.status(),
            text: refusal.to_string(),
        }
        .into_response();
        finish(&mut response);
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// Lets a request in and answers it.
    async fn respond(&self, mut request: Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        let state = &self.state;
        if request.headers().len() > MAX_HEADERS {
            return self.refuse_head(HeadRefusal::TooLarge);
        }
        if target_bytes(&request) > MAX_LINE_BYTES {
            return self.refuse_head(HeadRefusal::LineTooLong);
        }
        let client = client(peer, request.headers(), &state.config.trusted_proxies);
        if let Some(host) = client.host {
            request.headers_mut().insert(header::HOST, host);
        }
        let seat = match state.admission.request(self.counted(client.address)) {
            Ok(seat) => seat,
            Err(full) => {
                state.metrics.refused(Limit::Requests);
                let mut response = Refusal::from(full).into_response();
                finish(&mut response);
                return response;
            }
        };
        let request = request.map(|body| RequestBody::arriving(body, &state.admission));
        let origin = Origin::Address(source(client.address));
        let response = answer(state, &self.hosts, request, origin).await;
        drop(seat);
        self.hold(response)
    }

    /// Counts the bytes of an answer until they are sent.
    fn hold(&self, response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
        let (parts, body) = response.into_parts();
        let bytes = match body.collect().now_or_never() {
            Some(Ok(body)) => body.to_bytes(),
            // A body in memory is always ready.
            _ => Bytes::new(),
        };
        match self.state.admission.hold_answer(bytes) {
            Ok(bytes) => Response::from_parts(parts, Full::new(bytes)),
            Err(refusal) => {
                self.state.metrics.note_refusal(&refusal);
                let mut response = refusal.into_response();
                finish(&mut response);
                response
            }
        }
    }
}

fn target_bytes(request: &Request<Incoming>) -> usize {
    let uri = request.uri();
    uri.path().len() + uri.query().map_or(0, str::len)
}

const fn pacing(limits: &Limits) -> Pacing {
    Pacing {
        slow_after: limits.slow_after,
        min_rate: limits.min_rate,
    }
}
