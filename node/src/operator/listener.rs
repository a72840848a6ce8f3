//! The operator's door to a running node: a socket in the data folder, and on demand a TCP port for monitoring.
//!
//! The socket `admin.sock` lies in a folder that only the operator can enter and has mode 0600; who connects
//! must be the user the node runs as, or root. It takes `POST /operator/NAME` with the parameters of an
//! operation as JSON and answers with lines of JSON ([`Line`]). The TCP port serves `GET /metrics` and
//! `GET /health` only, to who brings the token of `admin.token`, under the same checks as every function that
//! is for this machine alone (Spec: 05 §11, 40 SC-7, WEB-4).

use std::{
    convert::Infallible,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use champ::text::to_hex;
use futures_util::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rand_core::Rng as _;
use subtle::ConstantTimeEq as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use zeroize::Zeroizing;

use super::{Event, Failed, Line, Report, perform};
use crate::{identity::write_durably, node::Node, random::OsRandom};

/// Name of the socket in the data folder.
pub const SOCKET_FILE: &str = "admin.sock";
/// Name of the file with the token of the TCP port.
pub const TOKEN_FILE: &str = "admin.token";
/// Path below which the operations are.
pub const OPERATION_PATH: &str = "/operator/";
/// Longest parameters of an operation.
const MAX_PARAMETERS_BYTES: usize = 64 << 10;
/// Open connections; more are closed at once.
const MAX_CONNECTIONS: usize = 32;
/// Time to send the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Read buffer of a connection: also the longest header block.
const MAX_BUFFER_BYTES: usize = 16 << 10;
/// Wait after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Why the operator's door cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoorError {
    /// The socket or the token file cannot be made.
    #[error("cannot make {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The TCP address is not of this machine alone.
    #[error("the monitoring address {0} can be reached by others")]
    NotLoopback(SocketAddr),
    /// The TCP address cannot be used.
    #[error("cannot listen on {address}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Somebody else can read the token.
    #[error("{} can be read by others", .0.display())]
    Exposed(PathBuf),
}

/// The opened door.
#[derive(Debug)]
pub struct Door {
    #[cfg(unix)]
    socket: Socket,
    tcp: Option<(TcpListener, Monitoring)>,
}

/// What the TCP port checks.
#[derive(Clone)]
struct Monitoring {
    token: std::sync::Arc<Zeroizing<String>>,
    /// Accepted `Host` values.
    hosts: std::sync::Arc<[String]>,
    /// Connections must come from this machine.
    is_local: bool,
}

impl std::fmt::Debug for Monitoring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitoring")
            .field("hosts", &self.hosts)
            .field("is_local", &self.is_local)
            .finish_non_exhaustive()
    }
}

impl Door {
    /// Opens the door of a node that keeps its data in `folder`, whose lock the caller holds: a socket that is
    /// there already is left over from a crash and is replaced.
    ///
    /// # Errors
    /// [`DoorError`].
    pub async fn open(
        folder: &Path,
        monitoring: Option<SocketAddr>,
        allows_others: bool,
    ) -> Result<Self, DoorError> {
        let tcp = match monitoring {
            None => None,
            Some(address) => Some(Monitoring::open(folder, address, allows_others).await?),
        };
        Ok(Self {
            #[cfg(unix)]
            socket: Socket::bind(folder)?,
            tcp,
        })
    }

    /// Returns the address of the TCP port.
    pub fn monitoring_address(&self) -> Option<SocketAddr> {
        let (listener, _) = self.tcp.as_ref()?;
        listener.local_addr().ok()
    }

    /// Serves until `shutdown` resolves, then ends what runs within the node's grace period and removes the
    /// socket.
    pub async fn serve(self, node: Node, shutdown: impl Future<Output = ()> + Send) {
        let (stop, stopping) = watch::channel(false);
        let mut connections: JoinSet<()> = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = shutdown.as_mut() => break,
                accepted = self.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            if connections.len() >= MAX_CONNECTIONS {
                continue;
            }
            match accepted {
                Ok((stream, gate)) => {
                    connections.spawn(connection(node.clone(), stream, gate, stopping.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of the operator");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        #[cfg(unix)]
        if let Err(error) = fs::remove_file(&self.socket.path) {
            tracing::warn!(%error, "cannot remove the operator's socket");
        }
        stop.send_replace(true);
        let finished = async { while connections.join_next().await.is_some() {} };
        let grace = node.state().config.limits.shutdown_grace;
        if tokio::time::timeout(grace, finished).await.is_err() {
            connections.shutdown().await;
        }
    }

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Gate)> {
        let tcp = async {
            match &self.tcp {
                None => std::future::pending().await,
                Some((listener, monitoring)) => {
                    let (stream, peer) = listener.accept().await?;
                    let gate = Gate::Monitoring(monitoring.clone(), peer);
                    Ok((Box::new(stream) as Box<dyn Stream>, gate))
                }
            }
        };
        #[cfg(unix)]
        tokio::select! {
            accepted = tcp => accepted,
            accepted = self.socket.accept() => Ok((accepted?, Gate::Operator)),
        }
        #[cfg(not(unix))]
        tcp.await
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What a connection may ask for.
#[derive(Clone)]
enum Gate {
    Operator,
    Monitoring(Monitoring, SocketAddr),
}

/// The socket in the data folder.
#[cfg(unix)]
#[derive(Debug)]
struct Socket {
    listener: tokio::net::UnixListener,
    path: PathBuf,
    /// The user this process runs as: the owner of the socket it made.
    owner: u32,
}

#[cfg(unix)]
impl Socket {
    /// Makes the socket under a name of its own and moves it into place: it is never there with a wider mode.
    fn bind(folder: &Path) -> Result<Self, DoorError> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let path = folder.join(SOCKET_FILE);
        let draft_name = format!(".{SOCKET_FILE}.new");
        let draft = folder.join(&draft_name);
        let bind = || -> io::Result<Self> {
            match fs::remove_file(&draft) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = short_path(folder, |near| {
                tokio::net::UnixListener::bind(near.join(&draft_name))
            })?;
            fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
            let owner = fs::symlink_metadata(&draft)?.uid();
            fs::rename(&draft, &path)?;
            Ok(Self {
                listener,
                path: path.clone(),
                owner,
            })
        };
        bind().map_err(|source| DoorError::File {
            path: path.clone(),
            source,
        })
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        let (stream, _) = self.listener.accept().await?;
        let peer = stream.peer_cred()?.uid();
        if peer != self.owner && peer != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "another user of this machine connected",
            ));
        }
        Ok(Box::new(stream))
    }
}

/// Runs `use_path` with a short path to `folder`: the path of a socket has about a hundred bytes only.
///
/// # Errors
/// Those of `use_path`, and when the folder cannot be opened.
#[cfg(unix)]
pub fn short_path<T>(
    folder: &Path,
    use_path: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    use std::os::fd::AsRawFd as _;
    const LONGEST: usize = 80;
    let descriptors = Path::new("/proc/self/fd");
    if folder.as_os_str().len() <= LONGEST || !descriptors.is_dir() {
        return use_path(folder);
    }
    let opened = fs::File::open(folder)?;
    use_path(&descriptors.join(opened.as_raw_fd().to_string()))
}

impl Monitoring {
    async fn open(
        folder: &Path,
        address: SocketAddr,
        allows_others: bool,
    ) -> Result<(TcpListener, Self), DoorError> {
        let is_local = address.ip().is_loopback();
        if !is_local && !allows_others {
            return Err(DoorError::NotLoopback(address));
        }
        let token = token(folder)?;
        let tcp = |source| DoorError::Tcp { address, source };
        let listener = TcpListener::bind(address).await.map_err(tcp)?;
        let port = listener.local_addr().map_err(tcp)?.port();
        let mut hosts = vec![SocketAddr::new(address.ip(), port).to_string()];
        if is_local {
            hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(|name| format!("{name}:{port}")));
        }
        let monitoring = Self {
            token: token.into(),
            hosts: hosts.into(),
            is_local,
        };
        Ok((listener, monitoring))
    }

    /// Applies the checks of functions for this machine; the order is that of Spec: 05 §11.
    fn admit(&self, peer: SocketAddr, method: &Method, headers: &HeaderMap) -> Option<StatusCode> {
        if self.is_local && !peer.ip().is_loopback() {
            return Some(StatusCode::NOT_FOUND);
        }
        if method != Method::GET {
            return Some(StatusCode::METHOD_NOT_ALLOWED);
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let is_known = host.is_some_and(|host| self.hosts.iter().any(|known| known == host));
        if !is_known || hosts.next().is_some() {
            return Some(StatusCode::NOT_FOUND);
        }
        // Nothing of ours is a page that could send one.
        if headers.contains_key(header::ORIGIN) {
            return Some(StatusCode::FORBIDDEN);
        }
        let site = headers.get("sec-fetch-site");
        if site.is_some_and(|site| site != "same-origin" && site != "none") {
            return Some(StatusCode::FORBIDDEN);
        }
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let is_right = given.is_some_and(|given| given.ct_eq(self.token.as_bytes()).into());
        (!is_right).then_some(StatusCode::UNAUTHORIZED)
    }
}

/// Reads the token, or makes it.
fn token(folder: &Path) -> Result<Zeroizing<String>, DoorError> {
    let path = folder.join(TOKEN_FILE);
    let failed = |source| DoorError::File {
        path: path.clone(),
        source,
    };
    match fs::read_to_string(&path) {
        Ok(text) => {
            let text = Zeroizing::new(text);
            if crate::identity::is_exposed(&path).map_err(failed)? {
                return Err(DoorError::Exposed(path));
            }
            let token = text.trim();
            if token.len() >= 32 {
                return Ok(Zeroizing::new(token.to_owned()));
            }
            Err(failed(io::Error::other(
                "it holds no token; delete it to get a new one",
            )))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = Zeroizing::new([0; 32]);
            OsRandom.fill_bytes(bytes.as_mut_slice());
            let token = Zeroizing::new(to_hex(bytes.as_slice()));
            write_durably(folder, TOKEN_FILE, token.as_bytes()).map_err(failed)?;
            Ok(token)
        }
        Err(error) => Err(failed(error)),
    }
}

async fn connection(
    node: Node,
    stream: Box<dyn Stream>,
    gate: Gate,
    mut stopping: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (node, gate) = (node.clone(), gate.clone());
        async move {
            let mut response = answer(node, &gate, request).await;
            let headers = response.headers_mut();
            for (name, value) in [
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::CACHE_CONTROL, "no-store"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_BUFFER_BYTES)
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
        tracing::debug!(%error, "connection of the operator ended early");
    }
}

async fn answer(node: Node, gate: &Gate, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if let Gate::Monitoring(monitoring, peer) = gate
        && let Some(status) = monitoring.admit(*peer, &parts.method, &parts.headers)
    {
        return empty(status);
    }
    let path = parts.uri.path();
    match (&parts.method, path) {
        (&Method::GET, "/health") => node.health().await.map(boxed),
        (&Method::GET, "/metrics") => node.metrics().await.map(boxed),
        (&Method::POST, _) if matches!(gate, Gate::Operator) => {
            let Some(name) = path.strip_prefix(OPERATION_PATH).map(str::to_owned) else {
                return empty(StatusCode::NOT_FOUND);
            };
            let body = Limited::new(body, MAX_PARAMETERS_BYTES).collect().await;
            match body {
                Ok(parameters) => operate(node, name, parameters.to_bytes()),
                Err(_) => empty(StatusCode::PAYLOAD_TOO_LARGE),
            }
        }
        (&Method::GET | &Method::POST, _) => empty(StatusCode::NOT_FOUND),
        _ => empty(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn boxed(body: Full<Bytes>) -> Body {
    body.boxed_unsync()
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(boxed(Full::default()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Starts an operation; its answer is streamed, and giving up on the answer cancels it.
fn operate(node: Node, name: String, parameters: Bytes) -> Response<Body> {
    let (report, events) = Report::channel();
    let work: BoxFuture<'static, _> = Box::pin(async move {
        tracing::info!(operation = name, "the operator asks");
        perform(&name, &parameters, &node, &report).await
    });
    let lines: BoxStream<'static, _> = futures_util::stream::unfold(
        Running {
            work: Some(work),
            events,
            end: None,
        },
        |mut running| async move {
            let line = running.next().await?;
            let mut text = serde_json::to_vec(&line).unwrap_or_default();
            text.push(b'\n');
            Some((Ok(Frame::data(Bytes::from(text))), running))
        },
    )
    .boxed();
    let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
    let json = HeaderValue::from_static("application/json-seq");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// An operation whose answer is being sent.
struct Running {
    work: Option<BoxFuture<'static, Result<serde_json::Value, Failed>>>,
    events: mpsc::Receiver<Event>,
    end: Option<Line>,
}

impl Running {
    async fn next(&mut self) -> Option<Line> {
        if let Some(work) = &mut self.work {
            let ended = tokio::select! {
                biased;
                Some(event) = self.events.recv() => return Some(event.into()),
                ended = work => ended,
            };
            self.work = None;
            self.end = Some(match ended {
                Ok(value) => Line::Result(value),
                Err(failed) => Line::Failed(failed),
            });
        }
        match self.events.try_recv() {
            Ok(event) => Some(event.into()),
            Err(_) => self.end.take(),
        }
    }
}
