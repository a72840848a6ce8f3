//! Nodes that reach each other through a table in memory: every request can be counted, lost, or lose its answer.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use champ::{Block, Cid, access::Bat, cbor::Record as _};
use http::{Request, Response, header};
use node::{
    Config, Node,
    clock::ManualClock,
    config::MirrorConfig,
    gc::CollectionConfig,
    names::NameAuthority,
    operator::{
        Failed, Operation, Report,
        mirror::{AddMirror, ListMirrors, MirrorShown, MirrorsRun, RunMirrors},
        names::{NamesShown, ShowNames},
    },
    p2p::{Body, MAX_BODY_BYTES, P2pConfig, PeerError, PeerId, Peers, collect, full},
    store::MemoryStore,
};
use parking_lot::Mutex;
use pki::{
    chain::ClaimChain,
    pointer::{PointerUpdate, SignedPointer},
    wire::{Body as _, block_group::BlockFormat, directory::NameRequest, mirror::MirrorRequest},
};

use crate::{
    conformance::{
        account::{Account, cbor_block, private_raw, update},
        harness::{Answer, NOW, TestNode},
    },
    operator::ask,
};

/// What goes wrong with the call of this number, counted from the last reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request is lost.
    Request(u64),
    /// The answer is lost.
    Answer(u64),
}

/// Changes what nodes answer with success: target of the request, and the body as it was.
pub(crate) type Twist = Box<dyn Fn(&str, Bytes) -> Bytes + Send + Sync>;

/// The links between all nodes.
#[derive(Default)]
pub(crate) struct Links {
    nodes: Mutex<HashMap<PeerId, Node>>,
    cut: Mutex<HashSet<(PeerId, PeerId)>>,
    calls: AtomicU64,
    blocks: AtomicU64,
    fault: Mutex<Option<Fault>>,
    twist: Mutex<Option<Twist>>,
    /// Paths of all requests since the last reset.
    pub(crate) paths: Mutex<Vec<String>>,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Links")
    }
}

/// The links of one node.
#[derive(Debug)]
struct Wire {
    /// Known once the node has made its key.
    from: OnceLock<PeerId>,
    links: Arc<Links>,
}

impl Wire {
    fn from(&self) -> PeerId {
        *self.from.get().unwrap()
    }
}

#[async_trait::async_trait]
impl Peers for Wire {
    async fn call(
        &self,
        peer: &PeerId,
        request: Request<Body>,
    ) -> Result<Response<Body>, PeerError> {
        let links = &self.links;
        let lost = || PeerError::Unreachable {
            peer: *peer,
            reason: "the link is cut".to_owned(),
        };
        let number = links.calls.fetch_add(1, Ordering::SeqCst);
        let path = request.uri().path().to_owned();
        if path.ends_with("block/get") {
            links.blocks.fetch_add(1, Ordering::SeqCst);
        }
        links.paths.lock().push(path);
        let fault = *links.fault.lock();
        if links.is_cut(self.from(), *peer) || fault == Some(Fault::Request(number)) {
            return Err(lost());
        }
        let node = links.nodes.lock().get(peer).cloned().ok_or_else(lost)?;
        let target = request.uri().to_string();
        let (mut parts, body) = request.into_parts();
        parts.method = http::Method::POST;
        parts
            .headers
            .insert(header::HOST, peer.to_string().parse().unwrap());
        let request = Request::from_parts(parts, body);
        // A task of its own, as behind a real link: one node's call inside another's would pile up on one stack.
        let from = self.from();
        let answered = tokio::spawn(async move { node.answer_peer(from, request).await });
        let response = answered.await.map_err(|_| lost())?;
        if links.is_cut(self.from(), *peer) || fault == Some(Fault::Answer(number)) {
            return Err(PeerError::TimedOut(*peer));
        }
        if response.status() == 200 && links.twist.lock().is_some() {
            let (parts, body) = response.into_parts();
            let body = collect(body, MAX_BODY_BYTES).await?;
            let twist = links.twist.lock();
            let body = twist
                .as_ref()
                .map_or(body.clone(), |twist| twist(&target, body));
            return Ok(Response::from_parts(parts, full(body)));
        }
        Ok(response)
    }
}

impl Links {
    fn is_cut(&self, a: PeerId, b: PeerId) -> bool {
        self.cut.lock().contains(&(a.min(b), a.max(b)))
    }

    pub(crate) fn cut(&self, a: &Member, b: &Member) {
        self.cut.lock().insert((a.id.min(b.id), a.id.max(b.id)));
    }

    pub(crate) fn heal(&self) {
        self.cut.lock().clear();
        *self.fault.lock() = None;
    }

    /// Changes answers from here on.
    pub(crate) fn twist(&self, twist: Option<Twist>) {
        *self.twist.lock() = twist;
    }

    /// Counts from here, with this fault to come.
    pub(crate) fn reset(&self, fault: Option<Fault>) {
        self.calls.store(0, Ordering::SeqCst);
        self.blocks.store(0, Ordering::SeqCst);
        self.paths.lock().clear();
        *self.fault.lock() = fault;
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Blocks that were asked for.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::SeqCst)
    }
}

/// A network.
pub(crate) struct Net {
    pub(crate) links: Arc<Links>,
    pub(crate) clock: Arc<ManualClock>,
}

/// A node of it, which can be killed and started again.
pub(crate) struct Member {
    pub(crate) node: TestNode,
    pub(crate) id: PeerId,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) folder: Arc<tempfile::TempDir>,
    pub(crate) config: Config,
}

impl Net {
    pub(crate) fn new() -> Self {
        Self {
            links: Arc::default(),
            clock: Arc::new(ManualClock::at(NOW)),
        }
    }

    fn config(&self, folder: &std::path::Path) -> Config {
        Config {
            data: Some(folder.to_owned()),
            clock: self.clock.clone(),
            max_signups_per_day: 4_000_000_000,
            collection: CollectionConfig {
                period: std::time::Duration::ZERO,
                duty_percent: 100,
                ..CollectionConfig::default()
            },
            mirror: MirrorConfig {
                is_automatic: false,
                ..MirrorConfig::default()
            },
            ..Config::default()
        }
    }

    /// Adds a node that gives names out.
    pub(crate) async fn authority(&self) -> Member {
        self.add(None, |_| {}).await
    }

    /// Adds a node that follows the names of another.
    pub(crate) async fn join(&self, authority: &Member) -> Member {
        let network: NameAuthority = authority.names().await.network.parse().unwrap();
        self.add(Some(network), |_| {}).await
    }

    pub(crate) async fn add(
        &self,
        network: Option<NameAuthority>,
        change: impl FnOnce(&mut Config),
    ) -> Member {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let mut config = self.config(folder.path());
        config.name_authority = network;
        change(&mut config);
        let store = Arc::new(MemoryStore::new());
        let (node, id) = self.open(&config, &store).await;
        Member {
            node: TestNode::of(node, self.clock.clone()),
            id,
            store,
            folder,
            config,
        }
    }

    async fn open(&self, config: &Config, store: &Arc<MemoryStore>) -> (Node, PeerId) {
        let wire = Arc::new(Wire {
            from: OnceLock::new(),
            links: self.links.clone(),
        });
        let mut config = config.clone();
        config.p2p = P2pConfig {
            peers: Some(wire.clone()),
            ..P2pConfig::default()
        };
        let node = Node::with_store(config, store.clone()).await.unwrap();
        let id = PeerId::from_cid(node.id()).unwrap();
        wire.from.set(id).unwrap();
        self.links.nodes.lock().insert(id, node.clone());
        (node, id)
    }

    /// Takes a node out of the network.
    pub(crate) fn kill(&self, member: &Member) {
        self.links.nodes.lock().remove(&member.id);
    }

    /// Brings a node back that was taken out, as it is.
    pub(crate) fn revive(&self, member: &Member) {
        let node = member.node.node.clone();
        self.links.nodes.lock().insert(member.id, node);
    }

    /// Starts a node again with what its store holds.
    pub(crate) async fn restart(&self, member: &mut Member) {
        self.kill(member);
        let (node, _) = self.open(&member.config, &member.store).await;
        member.node = TestNode::of(node, self.clock.clone());
    }
}

impl Member {
    pub(crate) async fn run<O: Operation>(&self, operation: O) -> Result<O::Outcome, Failed> {
        operation.run(&self.node.node, &Report::silent()).await
    }

    pub(crate) async fn names(&self) -> NamesShown {
        self.run(ShowNames::default()).await.unwrap()
    }

    /// One round over the table of names.
    pub(crate) async fn sync(&self) -> NamesShown {
        self.run(ShowNames { sync: true }).await.unwrap()
    }

    pub(crate) async fn mirror(&self) -> MirrorsRun {
        self.run(RunMirrors::default()).await.unwrap()
    }

    /// The chain that this node answers for a name.
    pub(crate) async fn chain(&self, name: &str) -> ClaimChain {
        let body = NameRequest(name.to_owned()).to_body();
        let bytes = self.node.ok("peergos/v0/core/getChain", body).await;
        ClaimChain::decode(&bytes).unwrap()
    }

    /// The operator's and the user's part of keeping a copy here.
    pub(crate) async fn keep(&self, account: &Account, home: &Self) -> MirrorShown {
        let add = AddMirror {
            user: account.name.clone(),
            from: None,
            quota_bytes: Some(1 << 30),
            token: None,
        };
        self.run(add.clone()).await.unwrap();
        account.allow(self).await;
        let _ = home;
        self.run(add).await.unwrap()
    }

    /// Whether a block is here, and right.
    pub(crate) async fn has(&self, account: &Account, cid: &Cid) -> bool {
        use node::store::BlockStore as _;
        let partition = format!("u-{}", account.name);
        let partition = node::store::Partition::new(&partition).unwrap();
        self.store.block(&partition, cid).await.unwrap().is_some()
    }
}

/// A tree under the home writer, as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) root: Cid,
    pub(crate) sequence: i64,
    pub(crate) parts: Vec<Cid>,
}

impl Account {
    /// Permits a node to keep a copy, and brings the login data there.
    pub(crate) async fn allow(&self, mirror: &Member) {
        let request = MirrorRequest {
            username: self.name.clone(),
            bat: self.mirror_with_id(),
            auth: champ::text::from_hex(&self.time(NOW)).unwrap().into(),
            proof: pki::proof_of_work::ProofOfWork::empty().encode().into(),
        };
        let answer = mirror.node.ok("peergos/v0/core/mirror", request.to_body());
        assert_eq!(answer.await, [1]);
        let data = self.login_data(&self.login, 1);
        let auth = champ::text::to_hex(&self.identity.secret().sign_detached(&data.encode()));
        let target = format!(
            "peergos/v0/login/setLogin?username={}&auth={auth}&local=true",
            self.name
        );
        assert_eq!(mirror.node.ok(&target, data.to_body()).await, [1]);
    }

    /// The home writer's pointer as a node answers it.
    pub(crate) async fn current(&self, node: &TestNode) -> Option<PointerUpdate> {
        let signed = self.pointer(node, &self.home.writer()).await;
        let key = self.home.secret().public();
        let signed = (!signed.is_empty()).then(|| SignedPointer::verify(&key, signed).unwrap());
        signed.map(|signed| signed.update().clone())
    }

    /// Writes a tree with these contents, one private block each; the answer tells whether it was committed.
    pub(crate) async fn write(
        &self,
        node: &TestNode,
        contents: &[String],
    ) -> Result<Version, Answer> {
        let mut parts = Vec::new();
        let mut raw = Vec::new();
        for content in contents {
            let bat = Bat::from_secret([content.len() as u8; 32]);
            let bytes = private_raw(&bat, Some(&self.mirror), content.as_bytes());
            parts.push(Cid::of_raw(&bytes));
            raw.push(bytes);
        }
        // Two levels, so that an unchanged half is shared by two versions.
        let halves: Vec<Block> = parts
            .chunks(parts.len().div_ceil(2).max(1))
            .map(|half| cbor_block("half", half))
            .collect();
        let links: Vec<Cid> = halves.iter().map(|half| half.cid().clone()).collect();
        let tree = cbor_block("tree", &links);
        let mut root = self.home_root().await;
        root.data.tree = Some(tree.cid().clone());
        let cid = root.cid();
        root.blocks.extend(halves);
        root.blocks.push(tree);
        let target = self.put(node, &self.home, BlockFormat::Raw, &raw).await;
        if target.status != 200 {
            return Err(target);
        }
        let cbor: Vec<_> = root
            .all_blocks()
            .iter()
            .map(|b| b.bytes().clone())
            .collect();
        let put = self
            .put(node, &self.home, BlockFormat::DagCbor, &cbor)
            .await;
        if put.status != 200 {
            return Err(put);
        }
        let target = format!(
            "peergos/v0/mutable/getPointer?owner={}&writer={}",
            self.owner(),
            self.home.writer()
        );
        let answer = node.post(&target, "").await;
        if answer.status != 200 {
            return Err(answer);
        }
        let key = self.home.secret().public();
        let before = SignedPointer::verify(&key, answer.body).unwrap();
        let before = before.update();
        if before.updated() == Some(&cid) {
            let sequence = before.sequence().unwrap();
            return Ok(Version {
                root: cid,
                sequence,
                parts,
            });
        }
        let sequence = before.sequence().unwrap() + 1;
        let write = update(&self.home, before.updated(), Some(&cid), Some(sequence));
        let answer = self.set(node, &write).await;
        match answer.status {
            200 if answer.body == [1] => Ok(Version {
                root: cid,
                sequence,
                parts,
            }),
            _ => Err(answer),
        }
    }

    /// Checks that everything of a version is in a node's own store.
    pub(crate) async fn is_complete(&self, member: &Member, version: &Version) -> bool {
        use node::store::{BlockStore as _, MetaStore as _, tables};
        let writer = self.home.writer().cid().to_bytes();
        let Some(signed) = member.store.get(tables::POINTERS, &writer).await.unwrap() else {
            return false;
        };
        let signed = SignedPointer::verify(&self.home.secret().public(), signed).unwrap();
        if signed.update().sequence() < Some(version.sequence) {
            return false;
        }
        let partition = node::store::Partition::new(&format!("u-{}", self.name)).unwrap();
        let mut open = vec![version.root.clone()];
        while let Some(cid) = open.pop() {
            if cid.identity_content().is_some() {
                continue;
            }
            let Some(block) = member.store.block(&partition, &cid).await.unwrap() else {
                return false;
            };
            if cid.codec() == champ::Codec::DagCbor {
                open.extend(
                    champ::cbor::scan_block_lenient(block.bytes())
                        .unwrap()
                        .links,
                );
            }
        }
        true
    }

    /// Checks that everything of a version is readable through a node with the mirror token.
    pub(crate) async fn is_readable(&self, member: &Member, version: &Version) -> bool {
        let mut open = vec![version.root.clone()];
        while let Some(cid) = open.pop() {
            if cid.identity_content().is_some() {
                continue;
            }
            let token = self.mirror_with_id().to_text();
            let target = format!("{}&bat={token}", self.get_target(&cid));
            let answer = member.node.post(&target, "").await;
            if answer.status != 200 || answer.body.is_empty() || !cid.matches(&answer.body) {
                return false;
            }
            if cid.codec() == champ::Codec::DagCbor {
                open.extend(champ::cbor::scan_block_lenient(&answer.body).unwrap().links);
            }
        }
        true
    }

    /// Signs the claim that moves the account to a node.
    pub(crate) async fn moved_to(&self, at: &Member, target: &Member) -> ClaimChain {
        let chain = at.chain(&self.name).await;
        let name = self.name.parse().unwrap();
        let provider = target.node.node.id().clone();
        chain
            .migrated(&name, provider, self.identity.secret())
            .unwrap()
    }
}

/// The message of a refused write.
pub(crate) fn message(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.message())
}

/// Contents of `count` blocks, of which the first `changed` differ from those of other versions.
pub(crate) fn contents(version: u64, count: usize, changed: usize) -> Vec<String> {
    let size = 4000;
    (0..count)
        .map(|part| {
            let version = if part < changed { version } else { 0 };
            format!("part {part} of version {version} ").repeat(size / 20)
        })
        .collect()
}

impl Member {
    /// What the operator is shown of a copy.
    pub(crate) async fn keep_shown(&self, user: &str) -> MirrorShown {
        let (copies, listed) = ask(&self.node.node, ListMirrors::default()).await;
        listed.unwrap();
        let copies = copies.into_iter().map(serde_json::from_value);
        let mut copies = copies.map(Result::<MirrorShown, _>::unwrap);
        copies.find(|copy| copy.user == user).unwrap()
    }
}
