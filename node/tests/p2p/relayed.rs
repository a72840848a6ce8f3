//! A node that only a relay makes reachable: its place there is kept, lost, and found again.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use node::p2p::{DialScope, Multiaddr, PeerId, PeerStatus, Reach, Standing, full};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use super::network::{Networked, PATIENCE};

/// A port that leads to where a node listens at present, as the forwarded ports of routers do. It stays the same when the
/// node is started again, and nobody else takes it meanwhile.
struct ForwardedPort {
    address: SocketAddr,
    to: watch::Sender<Option<SocketAddr>>,
    task: JoinHandle<()>,
}

impl ForwardedPort {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (to, target) = watch::channel(None);
        let task = tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let target: Option<SocketAddr> = *target.borrow();
                tokio::spawn(async move {
                    if let Some(target) = target
                        && let Ok(mut to) = TcpStream::connect(target).await
                    {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    }
                });
            }
        });
        Self { address, to, task }
    }

    fn multiaddr(&self) -> Multiaddr {
        let text = format!("/ip4/127.0.0.1/tcp/{}", self.address.port());
        text.parse().unwrap()
    }

    /// From now on it leads to this node.
    fn lead_to(&self, node: &Networked) {
        let address = node.address("/tcp/").to_string();
        let port: u16 = address.split('/').nth(4).unwrap().parse().unwrap();
        self.to
            .send_replace(Some(SocketAddr::from(([127, 0, 0, 1], port))));
    }

    fn lead_nowhere(&self) {
        self.to.send_replace(None);
    }
}

impl Drop for ForwardedPort {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A relay that others reach through a forwarded port.
struct Relay {
    port: ForwardedPort,
    /// Where it keeps its identity, if it is to be started again.
    folder: Option<tempfile::TempDir>,
    node: Option<Networked>,
    id: PeerId,
}

impl Relay {
    async fn start() -> Self {
        Self::start_in(None).await
    }

    async fn start_in(folder: Option<tempfile::TempDir>) -> Self {
        let port = ForwardedPort::open().await;
        let node = Self::run(&port, folder.as_ref()).await;
        Self {
            id: node.id,
            node: Some(node),
            port,
            folder,
        }
    }

    async fn run(port: &ForwardedPort, folder: Option<&tempfile::TempDir>) -> Networked {
        let node = Networked::open(|config| {
            Networked::tcp_only(config);
            config.data = folder.map(|folder| folder.path().to_path_buf());
            config.p2p.dials = DialScope::Any;
            config.p2p.announce = vec![port.multiaddr()];
        })
        .await;
        port.lead_to(&node);
        node
    }

    async fn stop(&mut self) {
        self.port.lead_nowhere();
        self.node.take().unwrap().close().await;
    }

    async fn start_again(&mut self) {
        let node = Self::run(&self.port, self.folder.as_ref()).await;
        assert_eq!(node.id, self.id);
        self.node = Some(node);
    }

    /// Where a node listens that has a place here.
    fn place(&self) -> Multiaddr {
        format!("{}/p2p-circuit", self.address()).parse().unwrap()
    }

    fn address(&self) -> Multiaddr {
        format!("{}/p2p/{}", self.port.multiaddr(), self.id)
            .parse()
            .unwrap()
    }

    async fn close(mut self) {
        self.stop().await;
    }
}

/// A node that listens at a relay and nowhere else.
async fn hidden(place: Multiaddr) -> Networked {
    Networked::open(|config| config.p2p.listen = vec![place]).await
}

/// Waits until it stands so with the only place of a node.
async fn place_when(node: &Networked, is_so: impl Fn(&Standing) -> bool + Sync) -> Standing {
    let is_so = |status: &PeerStatus| status.places.iter().all(&is_so);
    let status = timeout(PATIENCE, node.test.node.peer_status_when(is_so)).await;
    status.unwrap().unwrap().places.remove(0)
}

async fn opened(node: &Networked) -> Multiaddr {
    let standing = place_when(node, |place| !place.open.is_empty()).await;
    standing.open[0].clone()
}

/// A node that listens nowhere, so that nobody comes back to it by another way, and knows one address.
async fn caller(known: Multiaddr) -> Networked {
    Networked::open(|config| {
        config.p2p.listen.clear();
        config.p2p.known = vec![known];
    })
    .await
}

/// Asks until there is an answer: a connection that is gone is noticed by using it.
async fn reach(node: &Networked, other: PeerId) -> Bytes {
    let answered = timeout(PATIENCE, async {
        loop {
            if let Ok(answer) = node.id_of(other).await {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    });
    answered.await.unwrap()
}

#[tokio::test]
async fn a_place_at_a_relay_is_found_again_when_the_relay_is_back() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut relay = Relay::start_in(Some(folder)).await;
    // The relay leads into the network as well: both dial it in the same moment.
    let home = Networked::open(|config| {
        config.p2p.listen = vec![relay.place()];
        config.p2p.bootstrap = vec![relay.address()];
    })
    .await;
    let address = opened(&home).await;
    let expected: Multiaddr = format!("{}/p2p/{}", relay.place(), home.id)
        .parse()
        .unwrap();
    assert_eq!(address, expected);
    assert_eq!(
        home.test.node.peer_addresses().await,
        [expected],
        "the address to give to others"
    );

    let other = caller(address.clone()).await;
    let answer = format!("{{\"ID\":\"{}\"}}", home.id.to_cid());
    assert_eq!(reach(&other, home.id).await, answer);

    relay.stop().await;
    let standing = place_when(&home, |place| place.open.is_empty()).await;
    assert_eq!(standing.address, relay.place());
    let lost = standing.trouble.unwrap();
    assert!(lost.contains("relay"), "{lost}");
    // Tried again while the relay is still away, in vain, and told why.
    place_when(&home, |place| {
        let trouble = place.trouble.as_deref().unwrap_or_default();
        trouble.contains("cannot be reached") && place.next_try.is_some()
    })
    .await;
    relay.start_again().await;
    assert_eq!(opened(&home).await, address);
    assert_eq!(reach(&other, home.id).await, answer);
    other.close().await;
    home.close().await;
    relay.close().await;
}

#[tokio::test]
async fn what_a_relay_does_not_carry_fails_and_the_next_request_gets_through() {
    let relay = Relay::start().await;
    let home = hidden(relay.place()).await;
    let other = caller(opened(&home).await).await;
    reach(&other, home.id).await;
    // Longer than what one relayed connection carries, and shorter than a request may be.
    let request = Request::post("/api/v0/block/put/bulk?x=y")
        .body(full(vec![0; 3 << 20]))
        .unwrap();
    let outcome = timeout(PATIENCE, other.peers().call(&home.id, request)).await;
    if let Ok(response) = outcome.unwrap() {
        // Refused before all of it was there.
        assert_ne!(response.status(), 200);
    }
    reach(&other, home.id).await;
    for node in [other, home] {
        node.close().await;
    }
    relay.close().await;
}

/// Nobody said that the node is reachable, so it promises to nobody that he will be.
#[tokio::test]
async fn a_node_that_is_not_public_passes_nothing_on() {
    let private = Networked::open(Networked::tcp_only).await;
    let place = format!("{}/p2p-circuit", private.address("/tcp/"));
    let home = hidden(place.parse().unwrap()).await;
    let standing = place_when(&home, |place| {
        place.next_try.is_some() && place.trouble.is_some()
    })
    .await;
    let trouble = standing.trouble.unwrap();
    assert!(trouble.contains("is no relay"), "{trouble}");
    assert!(home.test.node.peer_addresses().await.is_empty());
    home.close().await;
    private.close().await;
}

#[tokio::test]
async fn a_relay_has_five_places() {
    let relay = Relay::start().await;
    let mut inside = Vec::new();
    for _ in 0..5 {
        let node = hidden(relay.place()).await;
        opened(&node).await;
        inside.push(node);
    }
    let last = hidden(relay.place()).await;
    // On a busy machine it may take more than one try to hear it.
    place_when(&last, |place| {
        place.trouble.as_deref() == Some("the relay has no place left")
    })
    .await;
    // Whoever leaves makes room.
    inside.remove(0).close().await;
    opened(&last).await;
    inside.push(last);
    for node in inside {
        node.close().await;
    }
    relay.close().await;
}

/// A node that listens at an address of this machine, and knows the relay only.
async fn listening_at(ip: &str, relay: &Relay) -> Networked {
    let listen = ["tcp/0", "udp/0/quic-v1"].map(|port| format!("/ip4/{ip}/{port}"));
    Networked::open(|config| {
        config.p2p.listen = listen.map(|address| address.parse().unwrap()).to_vec();
        config.p2p.known = vec![relay.address()];
        config.p2p.dials = DialScope::Any;
    })
    .await
}

async fn status_when(
    node: &Networked,
    is_so: impl FnMut(&PeerStatus) -> bool + Send,
) -> PeerStatus {
    let status = timeout(PATIENCE, node.test.node.peer_status_when(is_so)).await;
    status.unwrap().unwrap()
}

/// Peers dial back to where a node seems to come from. One that listens at another address of the machine is not found
/// there, like one behind a router; and takes a place at the relay by itself.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_node_that_nobody_can_dial_takes_a_place_at_a_relay_by_itself() {
    let relay = Relay::start().await;
    let hidden = listening_at("127.0.0.9", &relay).await;
    let at_relay = |status: &PeerStatus| {
        let mut places = status.places.iter();
        let place = places.find(|place| place.address.to_string().ends_with("/p2p-circuit"));
        place.and_then(|place| place.open.first()).cloned()
    };
    let status = status_when(&hidden, |status| at_relay(status).is_some()).await;
    assert_eq!(status.reach, Reach::Private);
    let address = at_relay(&status).unwrap();
    assert!(address.to_string().contains(&relay.id.to_string()));
    let other = caller(address).await;
    reach(&other, hidden.id).await;
    for node in [other, hidden] {
        node.close().await;
    }
    relay.close().await;
}

#[tokio::test]
async fn a_node_that_others_can_dial_is_a_relay_without_being_told_to() {
    let relay = Relay::start().await;
    let public = listening_at("127.0.0.1", &relay).await;
    let status = status_when(&public, |status| status.reach == Reach::Public).await;
    assert_eq!(status.places.len(), 2, "no place at a relay: {status:?}");
    let place = format!("{}/p2p-circuit", public.address("/quic-v1"));
    let guest = hidden(place.parse().unwrap()).await;
    opened(&guest).await;
    for node in [guest, public] {
        node.close().await;
    }
    relay.close().await;
}
