//! The HTTP client below `object_store`: the node's own, which follows no redirects (Spec: 40, P2P-2).

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector as TcpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use object_store::{
    ClientConfigKey, ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
        HttpResponse, HttpResponseBody, HttpService,
    },
};

/// Time for a connection to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept: shorter than servers keep theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections kept unused.
const MAX_IDLE: usize = 64;

/// Makes clients of one kind.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    /// Time for one request, its answer included.
    pub(super) request_timeout: Duration,
}

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
enum TlsError {
    #[error("this machine has no list of trusted certificates; SSL_CERT_FILE may name one")]
    NoRoots,
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allow_http = options
            .get_config_value(&ClientConfigKey::AllowHttp)
            .is_some_and(|value| value == "true");
        let connector = tls(allow_http).map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: Box::new(error),
        })?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector);
        Ok(HttpClient::new(Service {
            client,
            request_timeout: self.request_timeout,
        }))
    }
}

/// Trusts what the machine trusts. Without any trusted certificate only plain connections work.
fn tls(allow_http: bool) -> Result<HttpsConnector<TcpConnector>, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    if !allow_http {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = TcpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let builder = HttpsConnectorBuilder::new().with_tls_config(config);
    let builder = match allow_http {
        true => builder.https_or_http(),
        false => builder.https_only(),
    };
    Ok(builder.enable_http1().wrap_connector(tcp))
}

#[derive(Debug)]
struct Service {
    client: Client<HttpsConnector<TcpConnector>, HttpRequestBody>,
    request_timeout: Duration,
}

/// A request took too long.
#[derive(Debug, thiserror::Error)]
#[error("no complete answer within {0:?}")]
struct TimedOut(Duration);

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let exchange = async {
            let response = self.client.request(request).await.map_err(failure)?;
            let (parts, body) = response.into_parts();
            // Blocks are small: taking the body in one piece puts it under the same time limit, and a
            // connection that breaks in the middle is one more failed attempt.
            let body = http_body_util::Limited::new(body, MAX_ANSWER_BYTES);
            let body = body
                .collect()
                .await
                .map_err(|error| HttpError::new_boxed(HttpErrorKind::Interrupted, error))?
                .to_bytes();
            Ok(HttpResponse::from_parts(
                parts,
                HttpResponseBody::from(body),
            ))
        };
        tokio::time::timeout(self.request_timeout, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(HttpError::new(
                    HttpErrorKind::Timeout,
                    TimedOut(self.request_timeout),
                ))
            })
    }
}

/// Longest answer: a page of a listing is the longest there is.
const MAX_ANSWER_BYTES: usize = 8 << 20;

fn failure(error: hyper_util::client::legacy::Error) -> HttpError {
    let kind = match error.is_connect() {
        true => HttpErrorKind::Connect,
        // Requests of this store are all safe to repeat.
        false => HttpErrorKind::Request,
    };
    HttpError::new(kind, error)
}
