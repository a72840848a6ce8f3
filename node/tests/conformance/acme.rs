//! Automatic certificates against a small certificate authority in this process (RFC 8555).
//!
//! The authority is written for this test: it speaks HTTPS, checks nonces and the signature of every request, asks
//! the node's plain listener for the token like a real one, and signs the public key of the request.

use std::{
    collections::HashMap,
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD as B64;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use node::{Config, Node, clock::ManualClock, tls::TlsConfig};
use ring::{digest, signature};
use rustls::{ServerConfig, crypto::ring as provider, pki_types::CertificateDer, version::TLS13};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;

use super::{
    harness::{config, parse},
    tls::connector,
};

/// Longest wait for a certificate.
const SOON: Duration = Duration::from_secs(60);
const DAY_MILLIS: i64 = 86_400_000;

/// The certificate authority.
struct Authority {
    url: String,
    /// Where the node's plain listener is: stands for port 80 of every name.
    node: Mutex<Option<SocketAddr>>,
    root: CertificateDer<'static>,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    nonces: Mutex<Vec<String>>,
    counter: AtomicU64,
    /// JWK of the account, and its thumbprint.
    account: Mutex<Option<(Json, String)>>,
    orders: Mutex<HashMap<u64, Order>>,
    is_down: AtomicBool,
    /// When the next certificate is good from and until, in days since 1970.
    validity: Mutex<(i64, i64)>,
    issued: AtomicU64,
    attempts: AtomicU64,
}

#[derive(Clone)]
struct Order {
    name: String,
    token: String,
    status: &'static str,
    certificate: Option<String>,
}

struct PointKey(Vec<u8>);

impl rcgen::PublicKeyData for PointKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl Authority {
    async fn start(root_file: &Path) -> Arc<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(root_file, made.cert.pem()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let root = parameters.self_signed(&key).unwrap().der().clone();
        let authority = Arc::new(Self {
            url,
            node: Mutex::default(),
            root,
            issuer: rcgen::Issuer::new(parameters, key),
            nonces: Mutex::default(),
            counter: AtomicU64::new(0),
            account: Mutex::default(),
            orders: Mutex::default(),
            is_down: AtomicBool::new(false),
            validity: Mutex::new((20_000, 40_000)),
            issued: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
        });
        let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![made.cert.der().clone()],
                made.signing_key.serialize_der().try_into().unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let serving = Arc::clone(&authority);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, serving) = (acceptor.clone(), Arc::clone(&serving));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request| {
                        let serving = Arc::clone(&serving);
                        async move { Ok::<_, Infallible>(serving.answer(request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        authority
    }

    fn respond(
        &self,
        status: u16,
        location: Option<String>,
        body: impl Into<Bytes>,
    ) -> Response<Full<Bytes>> {
        let nonce = format!("nonce{}", self.counter.fetch_add(1, Ordering::SeqCst));
        self.nonces.lock().unwrap().push(nonce.clone());
        let mut response = Response::builder()
            .status(status)
            .header("replay-nonce", nonce);
        if let Some(location) = location {
            response = response.header("location", location);
        }
        response.body(Full::new(body.into())).unwrap()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if self.is_down.load(Ordering::SeqCst) {
            self.attempts.fetch_add(1, Ordering::SeqCst);
            return self.respond(503, None, "down");
        }
        let path = request.uri().path().to_owned();
        let url = |path: &str| format!("{}{path}", self.url);
        match path.as_str() {
            "/directory" => {
                let directory = json!({
                    "newNonce": url("/nonce"), "newAccount": url("/account"), "newOrder": url("/order"),
                    "revokeCert": url("/revoke"), "keyChange": url("/key"),
                });
                return self.respond(200, None, directory.to_string());
            }
            "/nonce" => return self.respond(200, None, ""),
            _ => {}
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let payload = self.verify(&url(&path), &body);
        let number = path
            .rsplit('/')
            .next()
            .and_then(|last| last.parse::<u64>().ok());
        let kind = path.split('/').nth(1).unwrap();
        if let (None, "account") = (number, kind) {
            return self.respond(
                201,
                Some(url("/account/1")),
                json!({"status": "valid"}).to_string(),
            );
        }
        if let (None, "order") = (number, kind) {
            let name = payload["identifiers"][0]["value"]
                .as_str()
                .unwrap()
                .to_owned();
            let number = self.counter.fetch_add(1, Ordering::SeqCst);
            let order = Order {
                name,
                token: format!("Token_{number}"),
                status: "pending",
                certificate: None,
            };
            self.orders.lock().unwrap().insert(number, order);
            return self.respond(
                201,
                Some(url(&format!("/order/{number}"))),
                self.order(number),
            );
        }
        let number = number.unwrap();
        let order = self.orders.lock().unwrap()[&number].clone();
        match kind {
            "order" => self.respond(200, None, self.order(number)),
            "authorization" => {
                let challenge = json!({"type": "http-01", "url": url(&format!("/challenge/{number}")),
                    "token": order.token, "status": "pending"});
                let status = if order.status == "pending" {
                    "pending"
                } else {
                    "valid"
                };
                let text = json!({"status": status, "challenges": [challenge],
                    "identifier": {"type": "dns", "value": order.name}});
                self.respond(200, None, text.to_string())
            }
            "challenge" => {
                let is_proven = self.prove(&order).await;
                let status = if is_proven { "ready" } else { "invalid" };
                self.orders.lock().unwrap().get_mut(&number).unwrap().status = status;
                let text = json!({"type": "http-01", "url": url(&path), "token": order.token,
                    "status": if is_proven { "valid" } else { "invalid" }});
                self.respond(200, None, text.to_string())
            }
            "finalize" => {
                assert_eq!(order.status, "ready");
                let request = B64
                    .decode(payload["csr"].as_str().unwrap().as_bytes())
                    .unwrap();
                let certificate = self.sign(&order.name, &request);
                let mut orders = self.orders.lock().unwrap();
                let order = orders.get_mut(&number).unwrap();
                (order.status, order.certificate) = ("valid", Some(certificate));
                drop(orders);
                self.respond(200, None, self.order(number))
            }
            "certificate" => self.respond(200, None, order.certificate.unwrap()),
            _ => self.respond(404, None, ""),
        }
    }

    fn order(&self, number: u64) -> String {
        let order = self.orders.lock().unwrap()[&number].clone();
        let mut text = json!({
            "status": order.status,
            "identifiers": [{"type": "dns", "value": order.name}],
            "authorizations": [format!("{}/authorization/{number}", self.url)],
            "finalize": format!("{}/finalize/{number}", self.url),
        });
        if order.certificate.is_some() {
            text["certificate"] = format!("{}/certificate/{number}", self.url).into();
        }
        text.to_string()
    }

    /// Checks the envelope of a request and returns what is in it.
    fn verify(&self, url: &str, body: &[u8]) -> Json {
        let envelope: Json = serde_json::from_slice(body).unwrap();
        let text = |name: &str| envelope[name].as_str().unwrap();
        let header: Json =
            serde_json::from_slice(&B64.decode(text("protected").as_bytes()).unwrap()).unwrap();
        assert_eq!(header["alg"], "ES256");
        assert_eq!(header["url"], url);
        let mut nonces = self.nonces.lock().unwrap();
        let at = nonces
            .iter()
            .position(|nonce| header["nonce"] == **nonce)
            .expect("a fresh nonce");
        nonces.remove(at);
        drop(nonces);
        let mut account = self.account.lock().unwrap();
        if let Some(key) = header.get("jwk") {
            // RFC 7638: required members in order, without blanks.
            let canonical = format!(
                "{{\"crv\":{},\"kty\":{},\"x\":{},\"y\":{}}}",
                key["crv"], key["kty"], key["x"], key["y"]
            );
            let thumbprint =
                B64.encode(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
            *account = Some((key.clone(), thumbprint));
        }
        let (key, _) = account.as_ref().expect("an account");
        let part = |name: &str| B64.decode(key[name].as_str().unwrap().as_bytes()).unwrap();
        let point = [&[4][..], &part("x"), &part("y")].concat();
        let signed = format!("{}.{}", text("protected"), text("payload"));
        signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
            .verify(
                signed.as_bytes(),
                &B64.decode(text("signature").as_bytes()).unwrap(),
            )
            .expect("a good signature");
        let payload = B64.decode(text("payload").as_bytes()).unwrap();
        serde_json::from_slice(&payload).unwrap_or(Json::Null)
    }

    /// Asks the node for the token, as the owner of the name would have to answer.
    async fn prove(&self, order: &Order) -> bool {
        let address = self.node.lock().unwrap().unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let text = format!(
            "GET /.well-known/acme-challenge/{} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            order.token, order.name
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut out = Vec::new();
        stream.read_to_end(&mut out).await.unwrap();
        let answer = parse(&out);
        let thumbprint = self.account.lock().unwrap().clone().unwrap().1;
        answer.status == StatusCode::OK
            && answer.body == format!("{}.{thumbprint}", order.token).as_bytes()
    }

    fn sign(&self, name: &str, request: &[u8]) -> String {
        // The point of the public key, after BIT STRING, 66 bytes, no unused bits.
        let at = request
            .windows(4)
            .position(|window| window == [3, 0x42, 0, 4])
            .unwrap();
        let key = PointKey(request[at + 3..at + 68].to_vec());
        let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let (from, until) = *self.validity.lock().unwrap();
        let day = |days: i64| {
            rcgen::date_time_ymd(1970, 1, 1)
                + Duration::from_secs(u64::try_from(days * 86_400).unwrap())
        };
        (parameters.not_before, parameters.not_after) = (day(from), day(until));
        self.issued.fetch_add(1, Ordering::SeqCst);
        parameters.signed_by(&key, &self.issuer).unwrap().pem()
    }
}

struct Running {
    node: Node,
    secure: SocketAddr,
    stop: Vec<oneshot::Sender<()>>,
}

async fn run(authority: &Authority, folder: &Path, clock: &Arc<ManualClock>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let secure = listener.local_addr().unwrap();
    *authority.node.lock().unwrap() = Some(plain.local_addr().unwrap());
    let node = Node::open(Config {
        data: Some(folder.join("data")),
        public_host: Some("localhost".to_owned()),
        clock: clock.clone(),
        tls: TlsConfig {
            listen: Some(secure),
            redirect: plain.local_addr().ok(),
            acme_directory: format!("{}/directory", authority.url),
            acme_root: Some(folder.join("root.pem")),
            acme_contact: Some("operator@example.org".to_owned()),
            ..TlsConfig::default()
        },
        ..config()
    })
    .await
    .unwrap();
    let mut stop = Vec::new();
    let (sender, stopped) = oneshot::channel::<()>();
    let serving = node.clone();
    tokio::spawn(async move {
        serving
            .serve_tls(listener, async { drop(stopped.await) })
            .await
    });
    stop.push(sender);
    let (sender, stopped) = oneshot::channel::<()>();
    let serving = node.clone();
    tokio::spawn(async move {
        serving
            .serve_redirect(plain, secure.port(), async { drop(stopped.await) })
            .await
    });
    stop.push(sender);
    Running { node, secure, stop }
}

impl Running {
    /// Waits until a handshake succeeds and returns the certificate.
    async fn certificate(&self, authority: &Authority) -> CertificateDer<'static> {
        let connector = connector(std::slice::from_ref(&authority.root), &[&TLS13], &[]);
        let wait = async {
            loop {
                let stream = TcpStream::connect(self.secure).await.unwrap();
                let name = "localhost".try_into().unwrap();
                if let Ok(stream) = connector.connect(name, stream).await {
                    return stream.get_ref().1.peer_certificates().unwrap()[0]
                        .clone()
                        .into_owned();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(SOON, wait)
            .await
            .expect("a certificate")
    }

    async fn note(&self, expected: &str) {
        let wait = async {
            loop {
                let health = self.node.examine().await;
                let worker = health
                    .workers
                    .iter()
                    .find(|worker| worker.name == "certificates");
                let note = worker
                    .and_then(|worker| worker.note.clone())
                    .unwrap_or_default();
                if note.starts_with(expected) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.expect(expected);
    }

    async fn end(self) {
        drop(self.stop);
        self.node.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_asked_for_kept_and_renewed_and_failures_stop_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::start(&folder.path().join("root.pem")).await;
    let today = i64::try_from(
        std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_secs(),
    )
    .unwrap()
        / 86_400;
    *authority.validity.lock().unwrap() = (today - 10, today + 80);
    let clock = Arc::new(ManualClock::at(today * DAY_MILLIS));
    // The authority is down: the node serves all the same, and says so.
    authority.is_down.store(true, Ordering::SeqCst);
    let running = run(&authority, folder.path(), &clock).await;
    running
        .note("no new certificate, next attempt in 10 minutes")
        .await;
    assert_eq!(
        running.node.examine().await.status,
        node::health::Status::Degraded
    );
    let id = Request::post("/api/v0/id").body(Bytes::new()).unwrap();
    assert_eq!(running.node.call(id).await.status(), 200);
    running.end().await;
    // It is up: a certificate comes.
    authority.is_down.store(false, Ordering::SeqCst);
    let running = run(&authority, folder.path(), &clock).await;
    let first = running.certificate(&authority).await;
    running.note("renewal in 50 days").await;
    assert_eq!(authority.issued.load(Ordering::SeqCst), 1);
    running.end().await;
    #[cfg(unix)]
    for file in ["account.json", "certificate.pem"] {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.path().join("data/tls").join(file);
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600,
            "{file}"
        );
    }
    // The next start uses what is kept and asks nobody.
    authority.is_down.store(true, Ordering::SeqCst);
    let before = authority.attempts.load(Ordering::SeqCst);
    let running = run(&authority, folder.path(), &clock).await;
    assert_eq!(running.certificate(&authority).await, first);
    assert_eq!(authority.attempts.load(Ordering::SeqCst), before);
    running.end().await;
    // Two thirds of its life are over: it is renewed, with the account of before, and while that fails it stays.
    clock.advance(51 * DAY_MILLIS);
    let running = run(&authority, folder.path(), &clock).await;
    running.note("no new certificate").await;
    assert_eq!(running.certificate(&authority).await, first);
    running.end().await;
    authority.is_down.store(false, Ordering::SeqCst);
    *authority.validity.lock().unwrap() = (today - 1, today + 141);
    let running = run(&authority, folder.path(), &clock).await;
    running.note("renewal in").await;
    assert_ne!(running.certificate(&authority).await, first);
    assert_eq!(authority.issued.load(Ordering::SeqCst), 2);
    running.end().await;
}
