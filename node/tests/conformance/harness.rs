//! A node for tests, with a clock that is set by hand and a raw socket client.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::Request;
use node::{BlockPlace, Config, Node, clock::ManualClock};
use pki::keys::PublicKeyHash;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

use super::kinds::Kind;

/// The present of the recorded exchanges.
pub(crate) const NOW: i64 = 1_795_279_680_000;

/// A node in memory, or on the kind of store that the whole suite is run with; see `kinds`.
pub(crate) struct TestNode {
    pub(crate) node: Node,
    pub(crate) clock: Arc<ManualClock>,
    /// More nodes on the same data set: calls go to each in turn.
    others: Vec<Node>,
    turn: AtomicUsize,
    _folder: Option<tempfile::TempDir>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lower-case names, in order.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The decoded `Trailer`.
    pub(crate) fn message(&self) -> String {
        pki::wire::trailer::decode_trailer(self.header("trailer").unwrap_or_default())
    }
}

/// The settings of a test node.
pub(crate) fn config() -> Config {
    Config {
        server_ids: vec![
            "zdvgqGsMfVfU6MCNi6HxgDCuZKuieiRvFmXjri6H8Sdf5B39t"
                .parse()
                .unwrap(),
        ],
        // The clock stands still: every sign-up happens in the same moment.
        max_signups_per_day: 4_000_000_000,
        ..Config::default()
    }
}

/// `KASTRO_TEST_BLOCKS=s3` keeps the blocks of every test node in a bucket.
fn place_blocks(config: &mut Config) {
    let place = std::env::var("KASTRO_TEST_BLOCKS").unwrap_or_default();
    match place.as_str() {
        "" => {}
        #[cfg(unix)]
        "s3" if matches!(config.blocks, BlockPlace::WithMetadata) => {
            use crate::servers::s3::{S3Server, server};
            let server = server().expect("an S3 server was asked for: cargo build --manifest-path tests/s3-server/Cargo.toml --target-dir target");
            config.blocks = BlockPlace::S3(Box::new(server.options(&S3Server::fresh_prefix())));
        }
        #[cfg(unix)]
        "s3" => {}
        other => panic!("unknown place for blocks: {other}"),
    }
}

impl TestNode {
    pub(crate) async fn new() -> Self {
        Self::with(config()).await
    }

    /// A node whose time may stand still: it waits for nothing outside this process.
    pub(crate) async fn in_memory() -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let mut config = config();
        config.clock = clock.clone();
        Self::of(Node::open(config).await.unwrap(), clock)
    }

    pub(crate) async fn with(mut config: Config) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        config.clock = clock.clone();
        let kind = Kind::of_this_run();
        // A test that brings a folder of its own is about that folder.
        let is_placed = config.data.is_none();
        let folder = is_placed.then(|| kind.place(&mut config)).flatten();
        let mut others = Vec::new();
        if is_placed {
            place_blocks(&mut config);
            for _ in 1..kind.nodes {
                others.push(Node::open(config.clone()).await.unwrap());
            }
        }
        let node = Node::open(config).await.unwrap();
        Self {
            others,
            _folder: folder,
            ..Self::of(node, clock)
        }
    }

    /// Takes over a node on a store that the test chose.
    pub(crate) fn of(node: Node, clock: Arc<ManualClock>) -> Self {
        Self {
            node,
            clock,
            others: Vec::new(),
            turn: AtomicUsize::new(0),
            _folder: None,
        }
    }

    /// The node whose turn it is.
    fn next(&self) -> &Node {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % (self.others.len() + 1);
        match turn.checked_sub(1) {
            None => &self.node,
            Some(other) => &self.others[other],
        }
    }

    /// Calls the node in process with POST.
    pub(crate) async fn post(&self, target: &str, body: impl Into<Bytes>) -> Answer {
        let target = format!("/{}", target.trim_start_matches('/'));
        let request = Request::post(target).body(body.into()).unwrap();
        let response = self.next().call(request).await;
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        Answer {
            status: response.status().as_u16(),
            headers,
            body: response.body().to_vec(),
        }
    }

    /// Expects success and returns the body.
    pub(crate) async fn ok(&self, target: &str, body: impl Into<Bytes>) -> Vec<u8> {
        let answer = self.post(target, body).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.message());
        answer.body
    }

    /// Expects 400 and returns the message.
    pub(crate) async fn refused(&self, target: &str, body: impl Into<Bytes>) -> String {
        let answer = self.post(target, body).await;
        assert_eq!(answer.status, 400, "{target}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert!(answer.body.is_empty());
        answer.message()
    }

    /// Serves on a free port.
    pub(crate) async fn serve(&self) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let node = self.next().clone();
        let task = tokio::spawn(async move {
            node.serve(listener, async {
                let _ = stopped.await;
            })
            .await
            .unwrap();
        });
        Served {
            address,
            stop,
            task,
        }
    }
}

/// A node that listens.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Served {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The host that a browser would send.
    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// Shuts down and waits for the end.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }

    /// Sends exact bytes on a connection of its own and reads all answers until it is closed.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        let mut out = Vec::new();
        stream.read_to_end(&mut out).await.unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Sends one request with these header lines and reads the answer. `Host` is added unless it is there.
    pub(crate) async fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|line| line.starts_with("Host:")) {
            head.push_str(&format!("Host: {}\r\n", self.host()));
        }
        for line in headers {
            head.push_str(line);
            head.push_str("\r\n");
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut stream = self.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        // The node may answer and close before it has read everything.
        let _ = stream.write_all(body).await;
        let mut out = Vec::new();
        stream.read_to_end(&mut out).await.unwrap();
        parse(&out)
    }
}

/// Parses one answer strictly: exactly one header block.
pub(crate) fn parse(bytes: &[u8]) -> Answer {
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a header block");
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap();
    assert!(status.starts_with("HTTP/1."), "{status}");
    let status = status.split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        })
        .collect();
    Answer {
        status,
        headers,
        body: bytes[end + 4..].to_vec(),
    }
}

/// Blocks read over the API.
pub(crate) struct Remote<'a>(pub(crate) &'a TestNode, pub(crate) &'a PublicKeyHash);

#[async_trait::async_trait]
impl champ::BlockSource for Remote<'_> {
    async fn block(
        &self,
        cid: &champ::Cid,
        _token: Option<&champ::access::BatWithId>,
    ) -> Result<Option<champ::Block>, champ::SourceError> {
        let target = format!("api/v0/block/get?arg={cid}&owner={}", self.1);
        let bytes = self.0.ok(&target, "").await;
        Ok((!bytes.is_empty()).then(|| champ::Block::verified(cid.clone(), bytes).unwrap()))
    }
}
