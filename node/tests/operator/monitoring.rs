//! The TCP port for monitoring: only what it is for, only for who is meant (Spec: 05 §11).

use std::net::SocketAddr;

use node::operator::listener::{Door, DoorError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
};

use crate::conformance::harness::{Answer, TestNode, parse};

async fn request(address: SocketAddr, method: &str, path: &str, headers: &[String]) -> Answer {
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut out = Vec::new();
    stream.read_to_end(&mut out).await.unwrap();
    parse(&out)
}

#[tokio::test]
async fn p2p_2_web_4_monitoring_answers_its_operator_alone() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::new().await;
    let any = "127.0.0.1:0".parse().unwrap();
    let door = Door::open(folder.path(), Some(any), false).await.unwrap();
    let address = door.monitoring_address().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(door.serve(node.node.clone(), async {
        let _ = stopped.await;
    }));
    let token = std::fs::read_to_string(folder.path().join("admin.token")).unwrap();
    assert_eq!(token.len(), 64);
    let host = format!("Host: localhost:{}", address.port());
    let key = format!("Authorization: Bearer {token}");
    let good = [host.clone(), key.clone()];
    for path in ["/metrics", "/health"] {
        let answer = request(address, "GET", path, &good).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(!answer.body.is_empty());
        let with = |more: &[&str]| {
            let mut headers = good.to_vec();
            headers.extend(more.iter().map(|header| (*header).to_owned()));
            headers
        };
        let wrong_key = format!("Authorization: Bearer {}", "0".repeat(64));
        for (method, headers, status) in [
            ("POST", good.to_vec(), 405),
            ("GET", vec![key.clone()], 404),
            (
                "GET",
                vec!["Host: evil.example:80".to_owned(), key.clone()],
                404,
            ),
            ("GET", with(&[&host]), 404),
            ("GET", with(&["Origin: http://evil.example"]), 403),
            ("GET", with(&["Sec-Fetch-Site: cross-site"]), 403),
            ("GET", with(&["Sec-Fetch-Site: none"]), 200),
            ("GET", vec![host.clone()], 401),
            ("GET", vec![host.clone(), wrong_key], 401),
            (
                "GET",
                vec![host.clone(), format!("Authorization: Bearer {token}x")],
                401,
            ),
        ] {
            let answer = request(address, method, path, &headers).await;
            assert_eq!(answer.status, status, "{method} {path} {headers:?}");
            assert!(answer.header("access-control-allow-origin").is_none());
        }
    }
    // Operations are on the socket alone.
    for (method, path) in [
        ("GET", "/operator/users-list"),
        ("POST", "/operator/users-list"),
    ] {
        let answer = request(address, method, path, &good).await;
        assert!(matches!(answer.status, 404 | 405), "{}", answer.status);
    }
    stop.send(()).unwrap();
    served.await.unwrap();
    assert!(!folder.path().join("admin.sock").exists());
}

#[tokio::test]
async fn p2p_2_the_listener_for_users_knows_nothing_of_the_operator() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    for path in [
        "/operator/users-list",
        "/operator/users-remove",
        "/metrics",
        "/health",
        "/p2p/x/http/",
        "/peergos/v0/config/set",
        "/peergos/v0/stop/",
    ] {
        for method in ["GET", "POST"] {
            let answer = served.request(method, path, &[], b"").await;
            assert!(
                matches!(answer.status, 404 | 405),
                "{method} {path}: {}",
                answer.status
            );
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn monitoring_for_other_machines_must_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let refused = Door::open(folder.path(), Some(everywhere), false).await;
    assert!(matches!(refused, Err(DoorError::NotLoopback(_))));
    Door::open(folder.path(), Some(everywhere), true)
        .await
        .unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn sc_7_a_token_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.token");
    let any = "127.0.0.1:0".parse().unwrap();
    Door::open(folder.path(), Some(any), false).await.unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Door::open(folder.path(), Some(any), false).await;
    assert!(matches!(refused, Err(DoorError::Exposed(_))));
}
