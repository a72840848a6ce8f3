//! Nodes that reach each other without a network: a call to a peer is a call of the peer side of its node.
//!
//! Every hop is written down, and a node can be cut off.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use http::{HeaderValue, Method, Request, Response, header};
use node::{
    Config, Node,
    p2p::{Body, PeerError, PeerId, Peers},
};

/// One request from one node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) from: PeerId,
    pub(crate) to: PeerId,
    pub(crate) path: String,
}

/// Connects nodes.
#[derive(Debug, Default)]
pub(crate) struct Switchboard {
    nodes: Mutex<BTreeMap<PeerId, Node>>,
    cut_off: Mutex<BTreeSet<PeerId>>,
    hops: Mutex<Vec<Hop>>,
}

/// The way of one node to all others.
#[derive(Debug)]
struct Line {
    from: PeerId,
    board: Arc<Switchboard>,
}

impl Switchboard {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Opens a node that has this id and reaches the others.
    pub(crate) async fn open(self: &Arc<Self>, id: PeerId, mut config: Config) -> Node {
        config.server_ids = vec![id.to_cid()];
        config.p2p.peers = Some(self.line(id));
        let node = Node::open(config).await.unwrap();
        self.add(id, &node);
        node
    }

    /// The way to the others for a node that has this id.
    pub(crate) fn line(self: &Arc<Self>, from: PeerId) -> Arc<dyn Peers> {
        let board = Arc::clone(self);
        Arc::new(Line { from, board })
    }

    /// Makes a node reachable.
    pub(crate) fn add(&self, id: PeerId, node: &Node) {
        self.nodes.lock().unwrap().insert(id, node.clone());
    }

    /// Makes a node unreachable, and unable to reach others.
    pub(crate) fn cut(&self, id: PeerId) {
        self.cut_off.lock().unwrap().insert(id);
    }

    /// Undoes [`Self::cut`].
    pub(crate) fn heal(&self, id: PeerId) {
        self.cut_off.lock().unwrap().remove(&id);
    }

    /// Returns the requests since this was last asked.
    pub(crate) fn take_hops(&self) -> Vec<Hop> {
        std::mem::take(&mut *self.hops.lock().unwrap())
    }
}

#[async_trait]
impl Peers for Line {
    async fn call(
        &self,
        peer: &PeerId,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, PeerError> {
        let board = &self.board;
        board.hops.lock().unwrap().push(Hop {
            from: self.from,
            to: *peer,
            path: request.uri().path().to_owned(),
        });
        if *peer == self.from {
            return Err(PeerError::Own(*peer));
        }
        let cut_off = {
            let cut_off = board.cut_off.lock().unwrap();
            cut_off.contains(peer) || cut_off.contains(&self.from)
        };
        let node = board.nodes.lock().unwrap().get(peer).cloned();
        let Some(node) = node.filter(|_| !cut_off) else {
            return Err(PeerError::Unreachable {
                peer: *peer,
                reason: "cut off".to_owned(),
            });
        };
        *request.method_mut() = Method::POST;
        let host = HeaderValue::from_str(&peer.to_string()).unwrap();
        request.headers_mut().insert(header::HOST, host);
        Ok(node.answer_peer(self.from, request).await)
    }
}

/// The id that a key of these bytes has.
pub(crate) fn peer(seed: u8) -> PeerId {
    let key = pki::keys::SecretSigningKey::from_seed(&[seed; 32]).public();
    PeerId::from_cid(&pki::node_identity::id_of_key(&key)).unwrap()
}
