//! Requests per second and memory, measured: client and node share one process and its cores.
//!
//! `cargo test --release -p node --test main load -- --ignored --nocapture`

use std::time::{Duration, Instant};

use bytes::Bytes;
use champ::Cid;
use node::{Config, store::FreeFloor};
use pki::wire::block_group::BlockFormat;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    account::Account,
    harness::{Served, TestNode, config},
};

const CONNECTIONS: usize = 16;
const SPAN: Duration = Duration::from_secs(3);

/// Sends the same requests round and round on 16 connections; returns answers per second.
async fn rate(served: &Served, targets: Vec<String>) -> f64 {
    let host = served.host();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CONNECTIONS {
        let address = served.address;
        let requests: Vec<_> = targets
            .iter()
            .map(|target| format!("POST /{target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .collect();
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut buffer = vec![0; 256 << 10];
            let start = Instant::now();
            let mut count = 0usize;
            while start.elapsed() < SPAN {
                let request = &requests[(count * CONNECTIONS + client) % requests.len()];
                stream.write_all(request.as_bytes()).await.unwrap();
                answer(&mut stream, &mut buffer).await;
                count += 1;
            }
            count
        });
    }
    let mut total = 0;
    while let Some(count) = clients.join_next().await {
        total += count.unwrap();
    }
    total as f64 / SPAN.as_secs_f64()
}

/// Reads one answer by its length.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    let (mut left, begun) = loop {
        filled += stream.read(&mut buffer[filled..]).await.unwrap();
        let head = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n");
        let Some(end) = head else { continue };
        let head = std::str::from_utf8(&buffer[..end]).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let length = head
            .split("\r\n")
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        break (length.parse::<usize>().unwrap(), filled - end - 4);
    };
    left -= begun;
    while left > 0 {
        let read = stream.read(buffer).await.unwrap();
        assert!(read > 0);
        left -= read;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; the command is at the top of the file"]
async fn requests_per_second() {
    let folder = tempfile::tempdir().unwrap();
    let before = Instant::now();
    let node = TestNode::with(Config {
        data: Some(folder.path().join("data")),
        free_floor: FreeFloor::Bytes(0),
        ..config()
    })
    .await;
    eprintln!(
        "first start {:?}, resident {} KiB",
        before.elapsed(),
        resident_kib()
    );
    let served = node.serve().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let mut small = Vec::new();
    for n in 0..200u32 {
        let block = champ::cbor::Value::from([n.to_be_bytes().to_vec(), vec![1; 4800]].concat());
        let bytes = Bytes::from(block.encode());
        small.push(alice.get_target(&Cid::of_cbor(&bytes)));
        alice
            .put(&node, &alice.home, BlockFormat::DagCbor, &[bytes])
            .await;
    }
    let mut large = Vec::new();
    for n in 0..32u8 {
        let bytes = Bytes::from(vec![n; 1 << 20]);
        large.push(alice.get_target(&Cid::of_raw(&bytes)));
        let answer = alice
            .put(&node, &alice.home, BlockFormat::Raw, &[bytes])
            .await;
        assert_eq!(answer.status, 200, "{}", answer.message());
    }
    let pointer = format!(
        "peergos/v0/mutable/getPointer?owner={}&writer={}",
        alice.owner(),
        alice.home.writer()
    );
    eprintln!(
        "id           {:.0}/s",
        rate(&served, vec!["api/v0/id".to_owned()]).await
    );
    eprintln!("block get    {:.0}/s", rate(&served, small).await);
    eprintln!("pointer get  {:.0}/s", rate(&served, vec![pointer]).await);
    eprintln!("1 MiB get    {:.0}/s", rate(&served, large).await);
    eprintln!("resident after {} KiB (client included)", resident_kib());
    served.stop().await;
    node.node.close().await.unwrap();
}
