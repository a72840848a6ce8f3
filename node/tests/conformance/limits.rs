//! Limits of the listener and requests that proxies could misread (Spec: 05 §8, 40 §9).

use std::time::Duration;

use node::{Config, Limits};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::harness::{Answer, Served, TestNode, config, parse};

/// Longest wait for something that happens at once.
const SOON: Duration = Duration::from_secs(20);

async fn node_with(change: impl FnOnce(&mut Limits)) -> TestNode {
    let mut config = config();
    change(&mut config.limits);
    TestNode::with(config).await
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut out = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut out)).await;
    let _ = read.expect("the node closes the connection");
    out
}

/// Every answer carries a message, its type, `nosniff`, and nothing else of the request.
fn assert_refused(answer: &Answer, status: u16, what: &str) {
    assert_eq!(answer.status, status, "{what}");
    assert!(!answer.message().is_empty(), "{what}");
    for (name, value) in [
        ("content-type", "text/plain"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{what} {name}");
    }
    assert!(answer.body.is_empty(), "{what}");
}

fn head(served: &Served, more: &str) -> String {
    format!(
        "POST /api/v0/id HTTP/1.1\r\nHost: {}\r\n{more}\r\n",
        served.host()
    )
}

#[tokio::test]
async fn dos_5_heads_above_the_limits_get_414_and_431_with_a_message() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    for (line, more, status) in [
        ("x".repeat(40_000), String::new(), 414),
        (String::new(), format!("X: {}\r\n", "y".repeat(70_000)), 431),
        (String::new(), "X: y\r\n".repeat(64), 431),
    ] {
        let text = format!(
            "POST /api/v0/id?{line} HTTP/1.1\r\nHost: {}\r\n{more}\r\n",
            served.host()
        );
        let answer = parse(served.raw(text.as_bytes()).await.as_bytes());
        assert_refused(&answer, status, &status.to_string());
        assert_eq!(answer.header("connection"), Some("close"));
    }
    // What official clients send fits.
    let target = format!("/api/v0/id?x={}", "y".repeat(17_000));
    let filler = format!("X-Filler: {}", "y".repeat(33_000));
    assert_eq!(
        served
            .request("POST", &target, &[&filler], b"")
            .await
            .status,
        200
    );
    let many = vec!["A: b"; 60];
    assert_eq!(
        served
            .request("POST", "/api/v0/id", &many, b"")
            .await
            .status,
        200
    );
    served.stop().await;
}

#[tokio::test]
async fn dos_9_what_proxies_read_in_two_ways_is_refused_once_and_the_connection_closed() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let smuggled = head(&served, "");
    for (more, body) in [
        (
            "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\nX",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
            "0\r\n\r\nX",
        ),
        ("Content-Length: 0\r\nContent-Length: 5\r\n", "hello"),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        ("Content-Length: 0, 5\r\n", "hello"),
        ("Content-Length: +5\r\n", "hello"),
        ("Content-Length: -0\r\n", ""),
        ("Content-Length: 18446744073709551616\r\n", ""),
        ("Content-Length : 5\r\n", "hello"),
        ("X: y\r\n Content-Length: 5\r\n", "hello"),
        ("X: y\nContent-Length: 5\r\n", "hello"),
        ("X: y\rContent-Length: 5\r\n", "hello"),
        ("Transfer-Encoding: identity\r\n", "hello"),
        ("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
            "0\r\n\r\n",
        ),
        ("Transfer-Encoding:\x0bchunked\r\n", "0\r\n\r\n"),
    ] {
        let text = format!("{}{}{body}{smuggled}", smuggled, head(&served, more));
        let answers = served.raw(text.as_bytes()).await;
        let statuses: Vec<_> = answers
            .match_indices("HTTP/1.1 ")
            .map(|(at, _)| &answers[at + 9..at + 12])
            .collect();
        // The honest request in front is answered, the ambiguous one refused, and nothing after it is read.
        assert_eq!(statuses, ["200", "400"], "{more:?}\n{answers}");
        let refusal = answers.rfind("HTTP/1.1 ").unwrap();
        assert_refused(&parse(&answers.as_bytes()[refusal..]), 400, more);
    }
    for body in [
        "ffffffffffffffff1\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5 \r\nhello\r\n",
        "-1\r\n",
        "5\nhello\n0\n\n",
    ] {
        let text = format!(
            "{}{body}{smuggled}",
            head(&served, "Transfer-Encoding: chunked\r\n")
        );
        let answers = served.raw(text.as_bytes()).await;
        // The call needs no body, so it may be answered before the body is found bad; never twice.
        assert!(
            answers.matches("HTTP/1.1 ").count() <= 1,
            "{body:?}\n{answers}"
        );
    }
    let old = format!(
        "GET / HTTP/1.0\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        served.host()
    );
    let answer = served.raw(old.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("\r\ntrailer: "), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn dos_5_bodies_that_stop_or_trickle_are_cut_off() {
    let node = node_with(|limits| {
        limits.body_idle = Duration::from_millis(200);
        limits.slow_after = Duration::from_millis(300);
        limits.min_rate = 1000;
    })
    .await;
    let served = node.serve().await;
    let head = format!(
        "POST /peergos/v0/core/getChain HTTP/1.1\r\nHost: {}\r\nContent-Length: 500\r\n\r\n",
        served.host()
    );
    let mut stopped = served.connect().await;
    stopped.write_all(head.as_bytes()).await.unwrap();
    let out = read_all(&mut stopped).await;
    assert_refused(&parse(&out), 400, "stopped");
    let (mut reader, mut writer) = served.connect().await.into_split();
    writer.write_all(head.as_bytes()).await.unwrap();
    let trickle = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            if writer.write_all(b"x").await.is_err() {
                return;
            }
        }
    });
    let mut out = Vec::new();
    let _ = timeout(SOON, reader.read_to_end(&mut out))
        .await
        .expect("is cut off");
    assert_refused(&parse(&out), 400, "trickling");
    trickle.abort();
    served.stop().await;
}

#[tokio::test]
async fn dos_5_readers_that_do_not_read_are_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("big.js"), vec![b'/'; 4 << 20]).unwrap();
    let mut config = Config {
        web: Some(folder.path().to_owned()),
        ..config()
    };
    config.limits.slow_after = Duration::from_millis(300);
    let node = TestNode::with(config).await;
    let served = node.serve().await;
    let mut stream = served.connect().await;
    let request = format!("GET /big.js HTTP/1.1\r\nHost: {}\r\n\r\n", served.host());
    // More than the buffers of both ends take.
    stream
        .write_all(request.repeat(8).as_bytes())
        .await
        .unwrap();
    wait_for(&node, |health| health.connections == 1).await;
    wait_for(&node, |health| health.connections == 0).await;
    drop(stream);
    served.stop().await;
}

async fn wait_for(node: &TestNode, is_so: impl Fn(&node::health::Health) -> bool) {
    let wait = async {
        while !is_so(&node.node.examine().await) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, wait).await.expect("happens soon");
}

/// Many slow connections do not keep an honest client waiting, and none outlives its limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dos_5_slow_connections_do_not_slow_down_honest_ones() {
    const SLOW: usize = 300;
    let node = node_with(|limits| limits.header_timeout = Duration::from_secs(2)).await;
    let served = node.serve().await;
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut stream = served.connect().await;
        stream.write_all(b"POST /api/v0/id HT").await.unwrap();
        slow.push(stream);
    }
    for _ in 0..50 {
        let answer = timeout(SOON, served.request("POST", "/api/v0/id", &[], b"")).await;
        assert_eq!(answer.expect("is answered").status, 200);
    }
    for mut stream in slow {
        assert_refused(&parse(&read_all(&mut stream).await), 408, "slow");
    }
    served.stop().await;
}

#[tokio::test]
async fn rel_20_connections_above_the_limit_are_told_to_come_back() {
    let node = node_with(|limits| limits.connections = 2).await;
    let served = node.serve().await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = served.connect().await;
        stream
            .write_all(head(&served, "").as_bytes())
            .await
            .unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'H');
        kept.push(stream);
    }
    let out = served.raw(head(&served, "").as_bytes()).await;
    let answer = parse(out.as_bytes());
    assert_refused(&answer, 503, "third connection");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(
        answer.message().starts_with("Queue full"),
        "{}",
        answer.message()
    );
    drop(kept);
    wait_for(&node, |health| health.connections == 0).await;
    assert_eq!(
        served.request("POST", "/api/v0/id", &[], b"").await.status,
        200
    );
    served.stop().await;
}

/// Twenty times what is let in, and an honest client that tries again completes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_20_overload_is_refused_and_retrying_clients_complete() {
    let node = node_with(|limits| limits.requests = 4).await;
    let served = node.serve().await;
    // Four requests hold all places: their bodies are on the way.
    let request = format!(
        "POST /peergos/v0/core/getChain HTTP/1.1\r\nHost: {}\r\nContent-Length: 9\r\nConnection: close\r\n\r\n",
        served.host()
    );
    let mut holders = Vec::new();
    for _ in 0..4 {
        let mut stream = served.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        holders.push(stream);
    }
    wait_for(&node, |health| health.requests == 4).await;
    let address = served.address;
    let host = served.host();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..80 {
        let text = format!("POST /api/v0/id HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        clients.spawn(async move {
            let mut refusals = 0;
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(text.as_bytes()).await.unwrap();
                let answer = parse(&read_all(&mut stream).await);
                if answer.status == 200 {
                    return refusals;
                }
                assert_refused(&answer, 503, "overload");
                assert_eq!(answer.header("retry-after"), Some("1"));
                refusals += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    for mut stream in holders {
        stream.write_all(b"\0\0\0\x05carol").await.unwrap();
        assert_eq!(parse(&read_all(&mut stream).await).body, [0x80]);
    }
    let mut refusals = 0;
    while let Some(client) = clients.join_next().await {
        refusals += client.unwrap();
    }
    assert!(refusals >= 80, "{refusals}");
    served.stop().await;
}

#[tokio::test]
async fn rel_20_memory_for_bodies_is_bounded() {
    let node = node_with(|limits| limits.buffered_bytes = 100_000).await;
    let served = node.serve().await;
    let target = "/peergos/v0/mutable/setPointers?owner=z59vuwzfFDp3ak75RXXATPGnpBRGsvv2EvsGZw3YmA5TedSJKHmTnwL";
    let answer = served.request("POST", target, &[], &vec![0; 200_000]).await;
    assert_refused(&answer, 503, "memory");
    let answer = served.request("POST", target, &[], &vec![0; 50_000]).await;
    assert_eq!(answer.status, 400);
    let text = metrics(&node).await;
    assert!(text.contains("kastro_http_buffered_bytes 0\n"), "{text}");
    served.stop().await;
}

async fn metrics(node: &TestNode) -> String {
    use http_body_util::BodyExt as _;
    let body = node
        .node
        .metrics()
        .await
        .into_body()
        .collect()
        .await
        .unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn dos_12_the_labels_of_metrics_do_not_depend_on_requests() {
    let node = TestNode::new().await;
    let before = metrics(&node).await;
    for number in 0..2000 {
        node.post(&format!("evil{number}/x?user=mallory{number}"), "")
            .await;
        node.post(&format!("peergos/v0/login/evil{number}?a=b"), "")
            .await;
    }
    let after = metrics(&node).await;
    assert_eq!(before.lines().count(), after.lines().count());
    assert!(after.contains("kastro_http_requests_total{class=\"login\",status=\"4xx\"} 2000\n"));
    assert!(!after.contains("evil") && !after.contains("mallory"));
}

#[tokio::test]
async fn dos_13_health_tells_of_a_worker_that_panicked_and_the_node_goes_on() {
    let node = TestNode::new().await;
    node.node
        .workers()
        .spawn("doomed", |_| async { panic!("on purpose") });
    wait_for(&node, |health| {
        health.workers.iter().any(|worker| worker.panics == 1)
    })
    .await;
    let health = node.node.health().await;
    assert_eq!(health.status(), 200);
    let health = node.node.examine().await;
    assert_eq!(health.status, node::health::Status::Degraded);
    assert!(health.store.writable);
    assert_eq!(node.post("api/v0/id", "").await.status, 200);
}

#[tokio::test]
async fn health_and_metrics_are_nothing_on_the_main_listener() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    for path in ["/health", "/metrics", "/operator/list-users"] {
        for method in ["GET", "POST"] {
            let answer = served.request(method, path, &[], b"").await;
            assert!(matches!(answer.status, 404 | 405), "{method} {path}");
            assert!(answer.body.is_empty());
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn forwarded_addresses_count_only_from_trusted_proxies() {
    for (trusted, expected) in [(vec![], 200), (vec!["127.0.0.0/8".parse().unwrap()], 429)] {
        let mut config = Config {
            trusted_proxies: trusted,
            ..config()
        };
        config.limits.requests_per_address = 0;
        let node = TestNode::with(config).await;
        let served = node.serve().await;
        let answer = served
            .request("POST", "/api/v0/id", &["X-Forwarded-For: 192.0.2.1"], b"")
            .await;
        assert_eq!(answer.status, expected);
        served.stop().await;
    }
    // The host that the proxy was asked for decides, under the same rules.
    let node = TestNode::with(Config {
        trusted_proxies: vec!["127.0.0.1".parse().unwrap()],
        public_host: Some("example.org".to_owned()),
        is_public: true,
        ..config()
    })
    .await;
    let served = node.serve().await;
    for (forwarded, expected) in [("example.org", 200), ("evil.example", 404)] {
        let header = format!("X-Forwarded-Host: {forwarded}");
        let answer = served.request("POST", "/api/v0/id", &[&header], b"").await;
        assert_eq!(answer.status, expected, "{forwarded}");
    }
    served.stop().await;
}
