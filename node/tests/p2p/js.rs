//! The stream protocol spoken with js-libp2p, in both directions.
//!
//! Needs `node` and the packages: `npm ci --prefix tests/js-libp2p`. Says SKIP without them, unless
//! `KASTRO_REQUIRE_JS` is set.

use std::{path::PathBuf, process::Stdio};

use node::p2p::{DialScope, PeerId, ask};
use serde_json::Value as Json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{ChildStdout, Command},
    time::timeout,
};

use super::network::{Networked, PATIENCE};

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Json {
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap();
    serde_json::from_str(&line.unwrap().expect("js-libp2p goes on")).unwrap()
}

#[tokio::test]
async fn js_libp2p_asks_and_is_asked() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/js-libp2p"));
    let spawned = folder.join("node_modules").is_dir().then(|| {
        Command::new("node")
            .arg("interop.mjs")
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    });
    let Some(Ok(mut js)) = spawned else {
        assert!(
            std::env::var_os("KASTRO_REQUIRE_JS").is_none(),
            "npm ci --prefix tests/js-libp2p"
        );
        println!("SKIP: js-libp2p is not installed");
        return;
    };
    let mut input = js.stdin.take().unwrap();
    let mut lines = BufReader::new(js.stdout.take().unwrap()).lines();
    let theirs = next(&mut lines).await;
    let their_id: PeerId = theirs["id"].as_str().unwrap().parse().unwrap();
    let ours = Networked::open(|config| config.p2p.dials = DialScope::Any).await;

    // They ask.
    let address = format!("{}\n", ours.address("/tcp/"));
    input.write_all(address.as_bytes()).await.unwrap();
    let answer = next(&mut lines).await;
    let answer = answer["answer"].as_str().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let body = format!("{{\"ID\":\"{}\"}}", ours.id.to_cid());
    assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");

    // They are asked, on a connection of our making.
    let address = theirs["address"].as_str().unwrap().parse().unwrap();
    ours.test.node.know_peer(&their_id, address).await;
    let target = "/api/v0/block/put/bulk?x=y";
    let sent = "z".repeat(100_000);
    let answered = timeout(
        PATIENCE,
        ask(ours.peers(), &their_id, target, sent.clone(), 1 << 20),
    );
    assert_eq!(answered.await.unwrap().unwrap(), "x".repeat(300_000));
    let request = next(&mut lines).await;
    let expected = format!(
        "POST {target} HTTP/1.1\r\nhost: {their_id}\r\ncontent-length: {}\r\n\r\n{sent}",
        sent.len()
    );
    assert_eq!(request["request"].as_str().unwrap(), expected);
    ours.close().await;
}
