//! TLS, HTTP/2 and the plain listener beside them (Spec: 13 §4, 40 WEB-10, DOS-10).

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use node::{Config, tls::TlsConfig};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::harness::{Answer, TestNode, config, parse};

/// A certificate for localhost in two files.
pub(crate) struct Files {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl Files {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            chain: folder.join("chain.pem"),
            key: folder.join("key.pem"),
        }
    }

    /// Writes a new certificate and returns it.
    pub(crate) fn renew(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        for (path, text) in [
            (&self.key, made.signing_key.serialize_pem()),
            (&self.chain, made.cert.pem()),
        ] {
            let draft = path.with_extension("new");
            fs::write(&draft, text).unwrap();
            private(&draft);
            fs::rename(&draft, path).unwrap();
        }
        made.cert.der().clone()
    }
}

fn private(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A client that trusts these roots.
pub(crate) fn connector(
    roots: &[CertificateDer<'static>],
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> TlsConnector {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

struct Secure {
    node: TestNode,
    address: SocketAddr,
    redirect: SocketAddr,
    files: Files,
    root: CertificateDer<'static>,
    stops: Vec<oneshot::Sender<()>>,
    tasks: Vec<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Secure {
    async fn new(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let root = files.renew();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let redirect_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let redirect = redirect_listener.local_addr().unwrap();
        let mut config = Config {
            tls: TlsConfig {
                listen: Some(address),
                redirect: Some(redirect),
                certificate: Some(files.chain.clone()),
                key: Some(files.key.clone()),
                ..TlsConfig::default()
            },
            ..config()
        };
        change(&mut config);
        let node = TestNode::with(config).await;
        let (mut stops, mut tasks) = (Vec::new(), Vec::new());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = node.node.clone();
        tasks.push(tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            serving.serve_tls(listener, stopped).await.unwrap();
        }));
        stops.push(stop);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = node.node.clone();
        tasks.push(tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            serving
                .serve_redirect(redirect_listener, address.port(), stopped)
                .await
                .unwrap();
        }));
        stops.push(stop);
        Self {
            node,
            address,
            redirect,
            files,
            root,
            stops,
            tasks,
            _folder: folder,
        }
    }

    async fn connect(&self, alpn: &[&str]) -> TlsStream<TcpStream> {
        let connector = connector(std::slice::from_ref(&self.root), &[&TLS13], alpn);
        open(&connector, self.address).await.unwrap()
    }

    async fn h2(&self) -> SendRequest<Full<Bytes>> {
        let stream = self.connect(&["h2", "http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        send
    }

    fn request(&self, target: &str) -> Request<Full<Bytes>> {
        Request::post(format!("https://localhost:{}{target}", self.address.port()))
            .body(Full::default())
            .unwrap()
    }

    async fn stop(self) {
        drop(self.stops);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

async fn open(
    connector: &TlsConnector,
    address: SocketAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, stream).await
}

async fn ask(mut stream: TlsStream<TcpStream>, port: u16, target: &str) -> Answer {
    let text =
        format!("POST {target} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut out = Vec::new();
    stream.read_to_end(&mut out).await.unwrap();
    parse(&out)
}

#[tokio::test]
async fn web_10_versions_12_and_13_are_spoken_and_every_answer_says_to_stay() {
    let secure = Secure::new(|_| ()).await;
    for version in [&TLS12, &TLS13] {
        let connector = connector(std::slice::from_ref(&secure.root), &[version], &[]);
        for (target, status) in [
            ("/api/v0/id", 200),
            ("/nosuch", 404),
            ("/peergos/v0/core/nosuch", 400),
        ] {
            let stream = open(&connector, secure.address).await.unwrap();
            let answer = ask(stream, secure.address.port(), target).await;
            assert_eq!(answer.status, status);
            assert_eq!(
                answer.header("strict-transport-security"),
                Some("max-age=31536000")
            );
        }
    }
    // Refusals of the parser too.
    let mut stream = secure.connect(&[]).await;
    stream.write_all(b"GET / HTTP/9\r\n\r\n").await.unwrap();
    let mut out = Vec::new();
    stream.read_to_end(&mut out).await.unwrap();
    let answer = parse(&out);
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.header("strict-transport-security"),
        Some("max-age=31536000")
    );
    // A hello of TLS 1.1, and one that offers nothing but CBC with 1.2: an alert, no session.
    for version in [2u8, 3] {
        let mut hello = vec![3, version];
        hello.extend([7; 32]);
        hello.extend([0, 0, 2, 0x00, 0x2f, 1, 0]);
        let mut record = vec![22, 3, 1];
        record.extend(u16::try_from(hello.len() + 4).unwrap().to_be_bytes());
        record.extend([1, 0]);
        record.extend(u16::try_from(hello.len()).unwrap().to_be_bytes());
        record.extend(hello);
        let mut stream = TcpStream::connect(secure.address).await.unwrap();
        stream.write_all(&record).await.unwrap();
        let mut out = Vec::new();
        let _ = stream.read_to_end(&mut out).await;
        assert!(matches!(out.first(), None | Some(21)), "{out:?}");
    }
    // A listener without TLS does not say it.
    let served = secure.node.serve().await;
    let answer = served.request("POST", "/api/v0/id", &[], b"").await;
    assert!(answer.header("strict-transport-security").is_none());
    served.stop().await;
    secure.stop().await;
}

#[tokio::test]
async fn web_10_port_80_sends_to_our_host_whatever_is_asked() {
    let secure = Secure::new(|config| config.public_host = Some("example.org".to_owned())).await;
    let port = secure.address.port();
    for (line, place) in [
        ("GET //evil.com/ HTTP/1.1", "/"),
        ("GET http://evil.com/x HTTP/1.1", "/x"),
        ("GET /secret/zabc/12?auth=x HTTP/1.1", "/secret/zabc/12"),
        ("POST /api/v0/id HTTP/1.1", "/api/v0/id"),
        (
            "GET /.well-known/acme-challenge/none HTTP/1.1",
            "/.well-known/acme-challenge/none",
        ),
    ] {
        let mut stream = TcpStream::connect(secure.redirect).await.unwrap();
        let text = format!("{line}\r\nHost: evil.com\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut out = Vec::new();
        stream.read_to_end(&mut out).await.unwrap();
        let answer = parse(&out);
        assert_eq!(answer.status, 301, "{line}");
        let expected = format!("https://example.org:{port}{place}");
        assert_eq!(answer.header("location"), Some(expected.as_str()), "{line}");
        assert!(answer.header("strict-transport-security").is_none());
        assert!(answer.body.is_empty());
    }
    secure.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn web_10_a_certificate_is_exchanged_under_load_without_a_failed_request() {
    let mut secure = Secure::new(|_| ()).await;
    let address = secure.address;
    for _ in 0..5 {
        let old = secure.root.clone();
        let new = secure.files.renew();
        // Both are good while the exchange is under way.
        let connector = connector(&[old, new.clone()], &[&TLS13], &[]);
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let connector = connector.clone();
            clients.spawn(async move {
                for _ in 0..10 {
                    let stream = open(&connector, address).await.unwrap();
                    assert_eq!(ask(stream, address.port(), "/api/v0/id").await.status, 200);
                }
            });
        }
        secure.node.node.reload_certificates().unwrap();
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        secure.root = new;
        let answer = ask(secure.connect(&[]).await, address.port(), "/api/v0/id").await;
        assert_eq!(answer.status, 200);
    }
    // Files that cannot be used change nothing.
    fs::write(&secure.files.chain, "rubbish").unwrap();
    assert!(secure.node.node.reload_certificates().is_err());
    let answer = ask(secure.connect(&[]).await, address.port(), "/api/v0/id").await;
    assert_eq!(answer.status, 200);
    secure.stop().await;
}

#[tokio::test]
async fn http_2_answers_as_http_1_does() {
    let secure = Secure::new(|_| ()).await;
    let mut send = secure.h2().await;
    let response = send
        .send_request(secure.request("/api/v0/id"))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["strict-transport-security"],
        "max-age=31536000"
    );
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"{\"ID\":"));
    let response = send
        .send_request(secure.request("/peergos/v0/admin/nosuch"))
        .await
        .unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(
        response.headers()["trailer"],
        "Unknown+method+in+admin+handler%21"
    );
    // The Host check, in the form it has here.
    let foreign = Request::post("https://evil.example/api/v0/id")
        .body(Full::default())
        .unwrap();
    assert_eq!(send.send_request(foreign).await.unwrap().status(), 404);
    let mut two = secure.request("/api/v0/id");
    two.headers_mut()
        .insert("host", "evil.example".parse().unwrap());
    assert_eq!(send.send_request(two).await.unwrap().status(), 404);
    // A body, in pieces.
    let mut chain = secure.request("/peergos/v0/core/getChain");
    *chain.body_mut() = Full::new(Bytes::from_static(b"\0\0\0\x05carol"));
    let response = send.send_request(chain).await.unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        &[0x80][..]
    );
    secure.stop().await;
}

#[tokio::test]
async fn dos_10_headers_of_http_2_have_the_limits_of_http_1() {
    let secure = Secure::new(|_| ()).await;
    let mut send = secure.h2().await;
    let mut many = secure.request("/api/v0/id");
    for number in 0..70 {
        let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
        many.headers_mut().insert(name, "y".parse().unwrap());
    }
    let response = send.send_request(many).await.unwrap();
    assert_eq!(response.status(), 431);
    assert!(response.headers().contains_key("trailer"));
    let long = secure.request(&format!("/api/v0/id?x={}", "y".repeat(40_000)));
    let response = send.send_request(long).await.unwrap();
    assert_eq!(response.status(), 414);
    let fits = secure.request(&format!("/api/v0/id?x={}", "y".repeat(17_000)));
    assert_eq!(send.send_request(fits).await.unwrap().status(), 200);
    let mut huge = secure.request("/api/v0/id");
    let value = "y".repeat(100_000).parse().unwrap();
    huge.headers_mut().insert("x", value);
    let refused = send.send_request(huge).await;
    assert!(refused.map_or(true, |response| response.status() == 431));
    secure.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dos_10_requests_that_are_taken_back_at_once_end_the_connection() {
    let secure = Secure::new(|_| ()).await;
    let mut send = secure.h2().await;
    let mut is_cut = false;
    for _ in 0..20_000 {
        if send.ready().await.is_err() {
            is_cut = true;
            break;
        }
        // Dropping the answer takes the request back.
        drop(send.send_request(secure.request("/api/v0/id")));
    }
    // Either the flood was cut off, or it was no more than ordinary load; honest clients are served.
    let mut honest = secure.h2().await;
    let answer = tokio::time::timeout(
        Duration::from_secs(20),
        honest.send_request(secure.request("/api/v0/id")),
    );
    assert_eq!(answer.await.expect("is answered").unwrap().status(), 200);
    assert!(
        is_cut
            || send
                .send_request(secure.request("/api/v0/id"))
                .await
                .is_ok()
    );
    secure.stop().await;
}

#[tokio::test]
async fn dos_10_a_connection_that_asks_for_nothing_is_closed() {
    let secure = Secure::new(|config| {
        config.limits.keep_alive = Duration::from_millis(200);
        config.limits.header_timeout = Duration::from_millis(200);
    })
    .await;
    let mut idle = secure.h2().await;
    assert_eq!(
        idle.send_request(secure.request("/api/v0/id"))
            .await
            .unwrap()
            .status(),
        200
    );
    let closed = async {
        while idle.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closed)
        .await
        .expect("is closed");
    // A handshake that is not made either.
    let mut silent = TcpStream::connect(secure.address).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(20), silent.read_u8()).await;
    assert!(read.expect("is closed").is_err());
    secure.stop().await;
}
