//! Calls a node over HTTP/1.1 with kept-alive connections. Spec: 05 §3, §7, §8.
//!
//! Always POST; every wait is bounded; a reply is never buffered beyond what its call allows.

use std::{error::Error, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cryptree::transport::{ApiRequest, ApiResponse, MAX_IN_FLIGHT, Transport, TransportError};
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::{sync::Semaphore, time::timeout};

use crate::exit::{Class, Failure};

/// A node behind an `http` or `https` address.
#[derive(Debug)]
pub struct HttpTransport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Scheme and authority, and a path prefix if there is one, with a slash at the end.
    base: String,
    in_flight: Semaphore,
}

impl HttpTransport {
    /// Prepares calls to `server`: `http://host:port`, `https://host`, or `host:port`. Opens no connection.
    ///
    /// # Errors
    ///
    /// When `server` is no such address, or no certificate store is found for an `https` address.
    pub fn new(server: &str) -> Result<Self, Failure> {
        let base = base_url(server)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.enforce_http(false);
        // A machine that is gone without a word is noticed also while a long answer is waited for.
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE));
        connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(MAX_IN_FLIGHT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http1_max_headers(64)
            .build(tls(connector, base.starts_with("https:"))?);
        Ok(Self {
            client,
            base,
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
        })
    }

    /// Asks once, without patience, whether a node answers: a mistyped address is told at once.
    ///
    /// # Errors
    ///
    /// `NoServer` when nobody answers, `WrongServer` when somebody else does.
    pub async fn probe(&self) -> Result<(), Failure> {
        let reply = self.call(ApiRequest::new("api/v0/id", MAX_ID_BYTES)).await;
        match reply {
            Ok(reply) if reply.status == 200 && reply.body.starts_with(b"{\"ID\":") => Ok(()),
            // Busy: the calls that follow wait and try again.
            Ok(reply) if matches!(reply.status, 429 | 502..=504) => Ok(()),
            Ok(_) | Err(TransportError::ReplyTooLarge { .. }) => Err(Failure::new(
                Class::WrongServer,
                format!("{} answers, and is no such node", self.server()),
            )
            .help("check --server; a node also refuses host names that it was not told (--public-host)")),
            Err(error) => Err(cryptree::ClientError::from(error).into()),
        }
    }

    /// Asks any web server for the time, as it stands in its answers.
    ///
    /// # Errors
    ///
    /// `NoServer` when nobody answers in time; an answer without a time is an empty text.
    pub async fn date(&self) -> Result<String, Failure> {
        let unreachable = |why: String| {
            Failure::new(
                Class::NoServer,
                format!("cannot ask {} for the time: {why}", self.server()),
            )
        };
        let request = Request::head(&self.base)
            .header(header::USER_AGENT, USER_AGENT)
            .body(Full::default())
            .map_err(|error| unreachable(error.to_string()))?;
        let reply = timeout(CONNECT_TIMEOUT, self.client.request(request))
            .await
            .map_err(|_| unreachable("no answer in time".to_owned()))?
            .map_err(|error| unreachable(error.to_string()))?;
        let date = reply.headers().get(header::DATE);
        let date = date.and_then(|date| date.to_str().ok());
        Ok(date.unwrap_or_default().to_owned())
    }

    /// Returns the address as it is used, for messages.
    #[must_use]
    pub fn server(&self) -> &str {
        self.base.trim_end_matches('/')
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn call(&self, request: ApiRequest) -> Result<ApiResponse, TransportError> {
        let max = request.max_reply_bytes;
        let patience = match request.is_long {
            true => LONG_REPLY_TIMEOUT,
            false => REPLY_TIMEOUT,
        };
        let uri: Uri = format!("{}{}", self.base, request.target())
            .parse()
            .map_err(|error| TransportError::Unreachable(Arc::new(error)))?;
        let body = request.body.unwrap_or_default();
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(header::USER_AGENT, USER_AGENT)
            .body(Full::new(body))
            .map_err(|error| TransportError::Unreachable(Arc::new(error)))?;
        let _permit = self
            .in_flight
            .acquire()
            .await
            .map_err(|error| TransportError::Unreachable(Arc::new(error)))?;
        let reply = timeout(patience, self.client.request(request))
            .await
            .map_err(|_| TransportError::TimedOut)?
            .map_err(|error| {
                if error.is_connect() {
                    TransportError::Unreachable(Arc::new(error))
                } else {
                    TransportError::Interrupted(Arc::new(error))
                }
            })?;
        let status = reply.status().as_u16();
        let trailer = reply
            .headers()
            .get(header::TRAILER)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = read_body(reply.into_body(), max).await?;
        Ok(ApiResponse {
            status,
            trailer,
            body,
        })
    }
}

/// Reads a reply body of at most `max` bytes; the node may pause at most [`BODY_TIMEOUT`] between pieces.
async fn read_body(mut body: Incoming, max: usize) -> Result<Bytes, TransportError> {
    let too_large = TransportError::ReplyTooLarge { max };
    let expected = hyper::body::Body::size_hint(&body).lower();
    let expected = usize::try_from(expected).map_err(|_| too_large.clone())?;
    if expected > max {
        return Err(too_large);
    }
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    loop {
        let frame = timeout(BODY_TIMEOUT, body.frame())
            .await
            .map_err(|_| TransportError::TimedOut)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| TransportError::Interrupted(Arc::new(error)))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let so_far = rest.as_ref().map_or(first.len(), BytesMut::len);
        if data.len() > max - so_far {
            return Err(too_large);
        }
        match &mut rest {
            Some(rest) => rest.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                let mut all = BytesMut::with_capacity(expected.max(so_far + data.len()));
                all.extend_from_slice(&first);
                all.extend_from_slice(&data);
                rest = Some(all);
            }
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}

/// Completes and checks the address of a node.
fn base_url(server: &str) -> Result<String, Failure> {
    let wrong = || {
        Failure::new(
            Class::Usage,
            format!("`{server}` is not the address of a node"),
        )
        .help("write http://host:port or https://host")
    };
    let server = server.trim();
    let text = if server.contains("://") {
        server.to_owned()
    } else {
        format!("http://{server}")
    };
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    if !is_web || !has_host || uri.query().is_some() || text.contains('@') {
        return Err(wrong());
    }
    Ok(format!("{}/", text.trim_end_matches('/')))
}

/// Adds TLS with the certificates this machine trusts; they are read only when they are needed.
fn tls(
    connector: HttpConnector,
    needs_certificates: bool,
) -> Result<HttpsConnector<HttpConnector>, Failure> {
    let failure = |error: &dyn Error| {
        Failure::new(Class::Local, format!("TLS cannot be set up: {error}"))
            .help("SSL_CERT_FILE may name a file with the certificates to trust")
    };
    let mut roots = rustls::RootCertStore::empty();
    if needs_certificates {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(Failure::new(
                Class::Local,
                "this machine has no list of trusted certificates",
            )
            .help(
                "install the package ca-certificates, or let SSL_CERT_FILE name a certificate file",
            ));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failure(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector))
}

/// Longest answer to the question who is there.
const MAX_ID_BYTES: usize = 1024;
const USER_AGENT: &str = concat!("Kastro-", env!("CARGO_PKG_VERSION"), "-shell");
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait from the start of a request to the head of its reply: pointer writes may wait for a flush.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// The same of calls that the node works on for hours.
const LONG_REPLY_TIMEOUT: Duration = Duration::from_secs(30 * 86_400);
/// Silence after which a connection is tried, and between trials.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Trials without an answer after which it is lost.
const KEEPALIVE_RETRIES: u32 = 4;
/// Longest pause within a reply body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Shorter than the idle limit of common reverse proxies, so that a kept connection is rarely a dead one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed() {
        assert_eq!(
            base_url("127.0.0.1:8000").unwrap(),
            "http://127.0.0.1:8000/"
        );
        assert_eq!(
            base_url("https://a.example/").unwrap(),
            "https://a.example/"
        );
        assert_eq!(base_url("http://[::1]:1/x/").unwrap(), "http://[::1]:1/x/");
        for wrong in [
            "",
            "ftp://a",
            "http://",
            "http://user:pw@a",
            "http://a/?b=c",
            "a b",
        ] {
            assert_eq!(base_url(wrong).unwrap_err().class, Class::Usage, "{wrong}");
        }
    }

    /// Answers of a byzantine node are never expanded (Spec: 40, DOS-7): what counts is what came over the wire.
    #[tokio::test]
    async fn dos_7_compressed_answers_are_not_expanded() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        // A stored block of a gzip stream would do; that nothing looks into it is what is tested.
        let bomb: Vec<u8> = [0x1f, 0x8b, 8, 0]
            .into_iter()
            .cycle()
            .take(40_000)
            .collect();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = bomb.clone();
        let server = tokio::spawn(async move {
            let mut asked = Vec::new();
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                asked.extend_from_slice(&head[..length]);
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    answer.len()
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                // The client may hang up when it is too much.
                let _ = stream.write_all(&answer).await;
            }
            String::from_utf8_lossy(&asked).to_lowercase()
        });
        let transport = HttpTransport::new(&address.to_string()).unwrap();
        let reply = transport.call(ApiRequest::new("x", 40_000)).await.unwrap();
        assert_eq!(reply.body, bomb);
        let error = transport
            .call(ApiRequest::new("x", 39_999))
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            TransportError::ReplyTooLarge { max: 39_999 }
        ));
        assert!(!server.await.unwrap().contains("accept-encoding"));
    }
}
