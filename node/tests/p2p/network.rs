//! Nodes on loopback over libp2p: each on free ports, none with a bootstrap node unless a test says so.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use node::{
    Config, Node,
    clock::ManualClock,
    p2p::{DialScope, Multiaddr, PeerError, PeerId, Peers, ask, full},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::forwarding::tell;
use crate::conformance::{
    account::Account,
    harness::{NOW, TestNode, config},
};

/// Longest wait of any step: machines may be slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A node that others reach over TCP and QUIC on loopback.
pub(super) struct Networked {
    pub(super) test: TestNode,
    pub(super) id: PeerId,
    addresses: Vec<Multiaddr>,
}

impl Networked {
    pub(super) async fn open(change: impl FnOnce(&mut Config)) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let mut config = Config {
            clock: clock.clone(),
            server_ids: Vec::new(),
            ..config()
        };
        config.p2p.is_enabled = true;
        config.p2p.listen = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"]
            .map(|address| address.parse().unwrap())
            .to_vec();
        change(&mut config);
        let node = Node::open(config).await.unwrap();
        node.join();
        let addresses = timeout(PATIENCE, node.peer_addresses()).await.unwrap();
        let id = PeerId::from_cid(node.id()).unwrap();
        Self {
            test: TestNode::of(node, clock),
            id,
            addresses,
        }
    }

    /// Listens on TCP only, where it is seen at once that nobody listens any more.
    pub(super) fn tcp_only(config: &mut Config) {
        config.p2p.listen.truncate(1);
    }

    /// A node that knows where others are.
    pub(super) async fn knowing(addresses: Vec<Multiaddr>) -> Self {
        Self::open(|config| config.p2p.known = addresses).await
    }

    pub(super) fn peers(&self) -> &dyn Peers {
        self.test.node.peers().unwrap()
    }

    pub(super) fn address(&self, transport: &str) -> Multiaddr {
        let mut of_kind = self.addresses.iter();
        let found = of_kind.find(|address| address.to_string().contains(transport));
        found.unwrap().clone()
    }

    pub(super) async fn id_of(&self, other: PeerId) -> Result<Bytes, PeerError> {
        timeout(PATIENCE, ask(self.peers(), &other, "/api/v0/id", "", 1000))
            .await
            .unwrap()
    }

    pub(super) async fn close(self) {
        self.test.node.close().await.unwrap();
    }
}

#[tokio::test]
async fn two_nodes_talk_over_tcp_and_over_quic() {
    let home = Networked::open(|_| {}).await;
    for transport in ["/tcp/", "/quic-v1"] {
        let other = Networked::knowing(vec![home.address(transport)]).await;
        let answer = other.id_of(home.id).await.unwrap();
        assert_eq!(answer, format!("{{\"ID\":\"{}\"}}", home.id.to_cid()));
        // The connection works in the other direction too, with nobody dialing.
        home.id_of(other.id).await.unwrap();
        other.close().await;
    }
    home.close().await;
}

#[tokio::test]
async fn a_client_of_another_node_is_served_by_the_home() {
    let home = Networked::open(Networked::tcp_only).await;
    let other = Networked::knowing(home.addresses.clone()).await;
    let alice = Account::sign_up(&home.test, "alice", 7).await;
    tell(&other.test, &alice, 7, home.id).await;
    let writer = alice.home.writer();
    let pointer = alice.pointer(&other.test, &writer).await;
    assert_eq!(pointer, alice.pointer(&home.test, &writer).await);
    let answer = alice.get_login(&other.test, &alice.login, NOW, "").await;
    assert_eq!(answer.status, 200, "{}", answer.message());
    // A burst: streams side by side on one connection.
    let target = format!(
        "peergos/v0/mutable/getPointer?owner={}&writer={writer}",
        alice.owner()
    );
    let all = (0..100).map(|_| other.test.ok(&target, ""));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer, pointer);
    }
    let id = home.id;
    home.close().await;
    // Killed: in words, and for no longer than it takes to see it.
    let message = timeout(PATIENCE, other.test.refused(&target, "")).await;
    assert_eq!(
        message.unwrap(),
        "The home server of this user cannot be reached, please try again later",
        "{id}"
    );
    other.close().await;
}

/// The first knows the second, the second the third: the first finds the third by the routing table.
#[tokio::test]
async fn a_node_is_found_by_its_id_alone() {
    let wide = |config: &mut Config| config.p2p.dials = DialScope::Any;
    let middle = Networked::open(wide).await;
    let by_middle = |config: &mut Config| {
        wide(config);
        config.p2p.bootstrap = vec![middle.address("/tcp/")];
    };
    let third = Networked::open(by_middle).await;
    // It is in the routing table once it was heard of; a request makes sure that they are connected.
    third.id_of(middle.id).await.unwrap();
    middle.id_of(third.id).await.unwrap();
    let first = Networked::open(by_middle).await;
    let found = timeout(PATIENCE, async {
        loop {
            match first.id_of(third.id).await {
                Ok(answer) => return answer,
                // Who the third is reaches the middle a moment after its connection.
                Err(error) => assert!(matches!(error, PeerError::Unreachable { .. }), "{error}"),
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(
        found.await.unwrap(),
        format!("{{\"ID\":\"{}\"}}", third.id.to_cid())
    );
    for node in [first, middle, third] {
        node.close().await;
    }
}

#[tokio::test]
async fn private_addresses_that_others_tell_are_not_dialed() {
    let home = Networked::open(|_| {}).await;
    let other = Networked::open(|_| {}).await;
    for address in &home.addresses {
        other.test.node.know_peer(&home.id, address.clone()).await;
    }
    let error = other.id_of(home.id).await.unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error}");
    home.close().await;
    other.close().await;
}

/// Addresses of a stranger that lead to this machine, each in another disguise, among thousands that lead nowhere: nobody
/// knocks at its door.
#[tokio::test]
async fn p2p_4_no_disguise_leads_to_this_machine() {
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = door.local_addr().unwrap().port();
    let node = Networked::open(|_| {}).await;
    let (bait, relay) = (super::switchboard::peer(70), super::switchboard::peer(71));
    let mut deep = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{relay}");
    let mut circuits = Vec::new();
    for _ in 0..5 {
        deep = format!("{deep}/p2p-circuit");
        circuits.push(deep.clone());
        deep = format!("{deep}/p2p/{relay}");
    }
    let disguises = [
        format!("/ip4/127.0.0.1/tcp/{port}"),
        format!("/ip4/0.0.0.0/tcp/{port}"),
        format!("/ip6/::1/tcp/{port}"),
        format!("/ip6/::ffff:127.0.0.1/tcp/{port}"),
        format!("/dns4/localhost/tcp/{port}"),
        format!("/dns/localhost/tcp/{port}"),
        format!("/dns4/localhost/tcp/{port}/p2p/{relay}/p2p-circuit"),
    ];
    let nowhere = (0..10_000).map(|number| format!("/ip4/127.0.0.1/tcp/{}", 1 + number));
    for address in nowhere.chain(disguises).chain(circuits) {
        let address = address.parse().unwrap();
        node.test.node.know_peer(&bait, address).await;
    }
    let error = node.id_of(bait).await.unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error}");
    // Whoever had knocked would wait in the queue by now.
    let door = door.into_std().unwrap();
    let knocked = door.accept();
    assert!(
        matches!(&knocked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        "{knocked:?}"
    );
    node.close().await;
}

#[tokio::test]
async fn a_node_is_not_its_own_peer() {
    let node = Networked::open(|_| {}).await;
    let error = node.id_of(node.id).await.unwrap_err();
    assert!(matches!(error, PeerError::Own(id) if id == node.id));
    node.close().await;
}

/// Another node's id in the address: the handshake fails, and no request is sent.
#[tokio::test]
async fn pgs_01_007_the_proven_id_must_be_the_dialed_one() {
    let home = Networked::open(|_| {}).await;
    let wanted = super::switchboard::peer(77);
    let forged = home
        .addresses
        .iter()
        .map(|address| {
            let address = address
                .to_string()
                .replace(&home.id.to_string(), &wanted.to_string());
            address.parse().unwrap()
        })
        .collect();
    let other = Networked::knowing(forged).await;
    let error = other.id_of(wanted).await.unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error}");
    home.close().await;
    other.close().await;
}

/// Proposes security protocols by hand.
#[tokio::test]
async fn pgs_01_007_only_noise_is_offered() {
    let node = Networked::open(|_| {}).await;
    let address = node.address("/tcp/").to_string();
    let port = address.split('/').nth(4).unwrap();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))
        .await
        .unwrap();
    let message = |text: &str| {
        let length = u8::try_from(text.len() + 1).unwrap();
        [&[length], text.as_bytes(), b"\n"].concat()
    };
    let receive = async |stream: &mut TcpStream| {
        let length = stream.read_u8().await.unwrap();
        let mut text = vec![0; usize::from(length)];
        stream.read_exact(&mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    };
    stream
        .write_all(&message("/multistream/1.0.0"))
        .await
        .unwrap();
    assert_eq!(receive(&mut stream).await, "/multistream/1.0.0\n");
    for refused in [
        "/secio/1.0.0",
        "/plaintext/1.0.0",
        "/plaintext/2.0.0",
        "/tls/1.0.0",
    ] {
        stream.write_all(&message(refused)).await.unwrap();
        assert_eq!(receive(&mut stream).await, "na\n", "{refused}");
    }
    stream.write_all(&message("/noise")).await.unwrap();
    assert_eq!(receive(&mut stream).await, "/noise\n");
    node.close().await;
}

#[tokio::test]
async fn a_busy_port_does_not_stop_a_node() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let node = Networked::open(|config| {
        config.p2p.listen = vec![
            format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap(),
            // No such address on this machine, and no such transport.
            "/ip4/192.0.2.1/tcp/4001".parse().unwrap(),
            "/ip4/127.0.0.1/tcp/0/ws".parse().unwrap(),
        ];
    })
    .await;
    let other = Networked::knowing(node.addresses.clone()).await;
    assert!(
        !node
            .address("/tcp/")
            .to_string()
            .contains(&format!("/{port}/"))
    );
    other.id_of(node.id).await.unwrap();
    node.close().await;
    other.close().await;
}

#[tokio::test]
async fn addresses_survive_a_restart() {
    let home = Networked::open(|_| {}).await;
    let folder = tempfile::tempdir().unwrap();
    let data = || Some(folder.path().to_path_buf());
    let wide = |config: &mut Config| {
        config.data = data();
        config.p2p.dials = DialScope::Any;
    };
    let other = Networked::open(|config| {
        wide(config);
        config.p2p.known = home.addresses.clone();
    })
    .await;
    other.id_of(home.id).await.unwrap();
    other.close().await;
    let again = Networked::open(wide).await;
    again.id_of(home.id).await.unwrap();
    home.close().await;
    again.close().await;
}

/// The own record at once; that of another node from whoever keeps it.
#[tokio::test]
async fn identity_records_are_handed_out() {
    let node = Networked::open(|_| {}).await;
    let target = format!("api/v0/ipns/get?arg={}", node.id);
    let record = timeout(PATIENCE, async {
        loop {
            // It is signed soon after the start.
            let answer = node.test.post(&target, "").await;
            if answer.status == 200 {
                return answer.body;
            }
            tokio::task::yield_now().await;
        }
    });
    let record = record.await.unwrap();
    assert!(record.starts_with(b"{\"sig\":\"") || record.starts_with(b"{\"data\":\""));
    let stranger = super::switchboard::peer(5);
    let target = format!("api/v0/ipns/get?arg={stranger}");
    assert_eq!(
        node.test.refused(&target, "").await,
        "No identity record found"
    );
    node.close().await;
}

/// A peer that takes the request and dies.
#[tokio::test]
async fn a_peer_that_dies_in_the_middle_is_noticed() {
    let home = Networked::open(Networked::tcp_only).await;
    let other = Networked::knowing(home.addresses.clone()).await;
    other.id_of(home.id).await.unwrap();
    let (sender, pieces) = tokio::sync::mpsc::channel::<Result<_, PeerError>>(1);
    let body = super::slow_body(pieces, 1000);
    let request = Request::post("/api/v0/block/put/bulk?x=y")
        .body(body)
        .unwrap();
    let peers = other.test.node.clone();
    let id = home.id;
    let call = tokio::spawn(async move { peers.peers().unwrap().call(&id, request).await });
    sender.send(Ok(Bytes::from_static(&[0; 10]))).await.unwrap();
    home.close().await;
    drop(sender);
    let outcome = timeout(PATIENCE, call).await.unwrap().unwrap();
    // Refused before the body was there, or broken: never a success.
    if let Ok(response) = outcome {
        assert_ne!(response.status(), 200);
    }
    let request = Request::post("/api/v0/id").body(full("")).unwrap();
    let gone = timeout(PATIENCE, other.peers().call(&id, request)).await;
    assert!(gone.unwrap().is_err());
    other.close().await;
}

/// Whoever opens connections and says nothing takes up the share of one address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn p2p_5_half_open_handshakes_keep_nobody_out() {
    let home = Networked::open(Networked::tcp_only).await;
    let address = home.address("/tcp/").to_string();
    let target = format!("127.0.0.1:{}", address.split('/').nth(4).unwrap());
    let mut silent = Vec::new();
    for _ in 0..200 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // A machine of its own, as far as limits are concerned.
        socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(target.parse().unwrap()).await.unwrap());
    }
    let other = Networked::knowing(home.addresses.clone()).await;
    other.id_of(home.id).await.unwrap();
    drop(silent);
    home.close().await;
    other.close().await;
}
