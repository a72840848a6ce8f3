//! 200 clients for a minute: mixed reads and writes over loopback, on a folder. Every answer is success or a
//! documented refusal, memory stays flat, and what the slowest hundredth waited is printed.
//!
//! `cargo test --release -p node --test main load -- --ignored --nocapture`; `KASTRO_LOAD_SECONDS` changes the span.
//! Clients and node share one process and its cores.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use champ::{Block, Cid, access::Bat};
use node::{Config, store::FreeFloor};
use pki::{
    keys::SecretKeyWithHash,
    wire::{
        Body as _,
        block_group::{BlockFormat, BlockGroup},
        pointer_batch::PointerBatch,
        trailer::decode_trailer,
    },
    writer_data::WriterData,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    account::{Account, cbor_block, key, owning, private_raw, sign_block, update},
    harness::{NOW, TestNode, config},
};
use crate::store::model_disk::Dice;

const CLIENTS: u64 = 200;
const USERS: u64 = 20;

/// How a documented refusal begins (Spec: 05 §7.3). Every writer belongs to one client, so none is expected but
/// those of limits.
const DOCUMENTED: [&str; 3] = [
    "Rate Limit: ",
    "Upload bandwidth exceeded",
    "Storage quota reached!",
];

/// One connection, kept.
struct Connection {
    stream: TcpStream,
    host: String,
    buffer: Vec<u8>,
}

impl Connection {
    /// Sends one request and returns status, decoded message and body.
    async fn ask(&mut self, target: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let head = format!(
            "POST /{target} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        self.stream
            .write_all(&[head.as_bytes(), body].concat())
            .await
            .unwrap();
        self.buffer.clear();
        let end = loop {
            let read = self.stream.read_buf(&mut self.buffer).await.unwrap();
            assert!(read > 0, "the node closed the connection after {target}");
            let head = self.buffer.windows(4).position(|part| part == b"\r\n\r\n");
            if let Some(end) = head {
                break end + 4;
            }
        };
        let head = String::from_utf8(self.buffer[..end].to_vec()).unwrap();
        let header = |name: &str| {
            head.split("\r\n").find_map(|line| {
                let (known, value) = line.split_once(": ")?;
                known.eq_ignore_ascii_case(name).then(|| value.to_owned())
            })
        };
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length: usize = header("content-length").unwrap().parse().unwrap();
        while self.buffer.len() < end + length {
            let read = self.stream.read_buf(&mut self.buffer).await.unwrap();
            assert!(read > 0, "the node closed the connection inside an answer");
        }
        let message = decode_trailer(&header("trailer").unwrap_or_default());
        (status, message, self.buffer[end..].to_vec())
    }
}

/// What one client has done.
#[derive(Default)]
struct Tally {
    times: BTreeMap<&'static str, Vec<Duration>>,
    refused: BTreeMap<String, usize>,
}

impl Tally {
    fn note(
        &mut self,
        what: &'static str,
        took: Duration,
        answer: &(u16, String, Vec<u8>),
    ) -> bool {
        self.times.entry(what).or_default().push(took);
        if answer.0 == 200 {
            return true;
        }
        let is_documented = DOCUMENTED.iter().any(|text| answer.1.starts_with(text));
        assert!(is_documented, "{what}: {} {}", answer.0, answer.1);
        *self.refused.entry(answer.1.clone()).or_default() += 1;
        false
    }
}

struct Client {
    user: Arc<Account>,
    writer: SecretKeyWithHash,
    root: Cid,
    sequence: i64,
    bat: Bat,
    blocks: Vec<Cid>,
    dice: Dice,
}

impl Client {
    /// Uploads a fragment, a tree that links to it and a root, and moves the pointer.
    async fn write(&mut self, connection: &mut Connection, tally: &mut Tally) {
        let user = &self.user;
        let content: Vec<u8> = (0..1024)
            .flat_map(|_| self.dice.roll(u64::MAX).to_be_bytes())
            .collect();
        let fragment = private_raw(&self.bat, Some(&user.mirror), &content);
        let fragment_cid = Cid::of_raw(&fragment);
        let put = |format: BlockFormat| {
            user.put_target(&self.writer.writer(), format.as_str())
                .replace(
                    "transaction=t1",
                    &format!("transaction={}", self.writer.hash()),
                )
        };
        let group = |blocks: &[Bytes], format: BlockFormat| {
            let signatures = blocks
                .iter()
                .map(|block| sign_block(&self.writer, &format.cid(block)));
            BlockGroup::new(blocks.to_vec(), signatures.collect())
                .unwrap()
                .to_body()
        };
        let start = Instant::now();
        let raw = group(&[fragment], BlockFormat::Raw);
        let answer = connection.ask(&put(BlockFormat::Raw), &raw).await;
        if !tally.note("put raw", start.elapsed(), &answer) {
            return;
        }
        let tree = cbor_block(
            &format!("{}", self.sequence),
            std::slice::from_ref(&fragment_cid),
        );
        let mut data = WriterData::new_writer(self.writer.writer());
        data.tree = Some(tree.cid().clone());
        let root: Block = data.to_block().unwrap();
        let start = Instant::now();
        let cbor = group(
            &[tree.bytes().clone(), root.bytes().clone()],
            BlockFormat::DagCbor,
        );
        let answer = connection.ask(&put(BlockFormat::DagCbor), &cbor).await;
        if !tally.note("put cbor", start.elapsed(), &answer) {
            return;
        }
        let write = update(
            &self.writer,
            Some(&self.root),
            Some(root.cid()),
            Some(self.sequence + 1),
        );
        let target = format!("peergos/v0/mutable/setPointers?owner={}", user.owner());
        let body = PointerBatch::new(vec![write]).unwrap().to_body();
        let start = Instant::now();
        let answer = connection.ask(&target, &body).await;
        if tally.note("commit", start.elapsed(), &answer) {
            assert_eq!(answer.2, [1]);
            self.root = root.cid().clone();
            self.sequence += 1;
            self.blocks.push(fragment_cid);
        }
    }

    async fn read(&mut self, connection: &mut Connection, tally: &mut Tally) {
        let owner = self.user.owner();
        let start = Instant::now();
        match self.dice.roll(4) {
            0 => {
                let writer = self.writer.writer();
                let target = format!("peergos/v0/mutable/getPointer?owner={owner}&writer={writer}");
                let answer = connection.ask(&target, b"").await;
                tally.note("get pointer", start.elapsed(), &answer);
                assert!(!answer.2.is_empty());
            }
            1 => {
                let target = format!(
                    "peergos/v0/storage/quota?owner={owner}&auth={}",
                    self.user.time(NOW)
                );
                let answer = connection.ask(&target, b"").await;
                tally.note("quota", start.elapsed(), &answer);
            }
            _ => {
                let Some(at) = self.blocks.len().checked_sub(1) else {
                    return;
                };
                let cid = &self.blocks[self.dice.roll(at as u64 + 1) as usize];
                let token = self.bat.with_calculated_id().to_text();
                let target = format!("{}&bat={token}", self.user.get_target(cid));
                let answer = connection.ask(&target, b"").await;
                if tally.note("get block", start.elapsed(), &answer) {
                    assert_eq!(Cid::of_raw(&answer.2), *cid);
                }
            }
        }
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

/// Users whose home writers own one writer for each of their clients.
async fn clients(node: &TestNode) -> Vec<Client> {
    let mut clients = Vec::new();
    for n in 0..USERS {
        let user = Arc::new(Account::sign_up(node, &format!("user-{n}"), 100 + n as u8).await);
        let writers: Vec<_> = (0..CLIENTS / USERS)
            .map(|role| key(100 + n as u8, 10 + role as u8))
            .collect();
        let owned: Vec<_> = writers.iter().collect();
        let parent = owning(&user.home, &owned).await;
        user.put_root(node, &user.home, &parent).await;
        let first = user.home_root().await.cid();
        let adopt = update(&user.home, Some(&first), Some(&parent.cid()), Some(2));
        assert_eq!(user.set(node, &adopt).await.body, [1]);
        for writer in writers {
            let root = owning(&writer, &[]).await;
            user.put_root(node, &writer, &root).await;
            let write = update(&writer, None, Some(&root.cid()), Some(1));
            assert_eq!(user.set(node, &write).await.body, [1]);
            clients.push(Client {
                user: Arc::clone(&user),
                root: root.cid(),
                sequence: 1,
                bat: Bat::from_secret([n as u8; 32]),
                blocks: Vec::new(),
                dice: Dice(clients.len() as u64),
                writer,
            });
        }
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute of load; the command is at the top of the file"]
async fn load_of_two_hundred_clients_is_borne() {
    let span = std::env::var("KASTRO_LOAD_SECONDS").map_or(60, |span| span.parse().unwrap());
    let span = Duration::from_secs(span);
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Config {
        data: Some(folder.path().join("data")),
        free_floor: FreeFloor::Bytes(0),
        ..config()
    };
    settings.limits.connections_per_address = 1000;
    let node = TestNode::with(settings).await;
    let clients = clients(&node).await;
    let served = node.serve().await;
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut client in clients {
        let mut connection = Connection {
            stream: served.connect().await,
            host: served.host(),
            buffer: Vec::new(),
        };
        connection.stream.set_nodelay(true).unwrap();
        tasks.spawn(async move {
            let mut tally = Tally::default();
            while begin.elapsed() < span {
                match client.dice.roll(4) {
                    0 => client.write(&mut connection, &mut tally).await,
                    _ => client.read(&mut connection, &mut tally).await,
                }
            }
            tally
        });
    }
    // A thread of its own: it must not wait for the load it watches.
    let watch = std::thread::spawn(move || {
        let mut samples = Vec::new();
        while begin.elapsed() < span {
            std::thread::sleep(span / 60);
            samples.push(resident_kib());
        }
        samples
    });
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        let tally = tally.unwrap();
        for (what, times) in tally.times {
            all.times.entry(what).or_default().extend(times);
        }
        for (text, count) in tally.refused {
            *all.refused.entry(text).or_default() += count;
        }
    }
    let samples = watch.join().unwrap();
    let peak = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    let third = samples.len() / 3;
    let (middle, last) = (
        peak(&samples[third..2 * third]),
        peak(&samples[2 * third..]),
    );
    let mut total = 0;
    for (what, times) in &mut all.times {
        times.sort_unstable();
        total += times.len();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        eprintln!(
            "{what:12} {:7}  p50 {:?}  p99 {:?}  max {:?}",
            times.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    eprintln!(
        "{total} requests, {:.0}/s; refused {:?}; resident {middle} KiB in the middle, {last} KiB at the end",
        total as f64 / span.as_secs_f64(),
        all.refused
    );
    assert!(all.times.len() >= 5, "not every kind of request was made");
    // Flat: what was stored meanwhile does not stay in memory.
    assert!(
        middle > 0 && last <= middle + middle / 5 + (16 << 10),
        "{samples:?}"
    );
    served.stop().await;
    node.node.close().await.unwrap();
}
