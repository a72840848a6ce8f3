//! The world that every row of the table is asked in: some users, some blocks, something of everything.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use champ::{
    Block, Cid,
    access::{Bat, BatWithId},
    cbor::{Map, Record as _, Value},
    map::Champ,
};
use http::Request;
use node::{
    Config, Node,
    clock::ManualClock,
    store::{BlockStore as _, MemoryStore, MetaStore as _, Partition, Table, tables},
};
use pki::{
    chain::ClaimChain,
    claim::default_expiry,
    keys::SecretKeyWithHash,
    proof_of_work::ProofOfWork,
    wire::{
        Body as _,
        block_group::BlockFormat,
        link::{EncryptedCapability, LinkLabel, SecretLinkTarget},
        login_data::OpaqueCipherText,
        payment::SpaceRequest,
        second_factor::TotpKey,
        signup::{SentLinks, UpdateChainRequest},
    },
    writer_data::WriterData,
};

use crate::{
    conformance::{
        account::{Account, Root, cbor_block, key, private_raw, update},
        accounts::{enrol, signed},
        harness::{Answer, NOW, TestNode, config},
    },
    webauthn::authenticator::{Algorithm, Authenticator},
};

/// The label of the one link that is published.
pub(super) const LABEL: u32 = 77;
/// The administrator.
pub(super) const ADMIN: &str = "admin1";

/// Everything a row may refer to.
pub(super) struct World {
    pub(super) node: TestNode,
    pub(super) store: Arc<MemoryStore>,
    /// Has a link, factors, messages and a pending space request.
    pub(super) alice: Account,
    /// Has nothing but an account.
    pub(super) bob: Account,
    /// Lives on another server now.
    pub(super) carol: Account,
    pub(super) admin: Account,
    /// A private raw block and what opens it.
    pub(super) raw: (Cid, Bytes, BatWithId),
    /// A public block.
    pub(super) public: (Cid, Bytes),
    /// Root of a tree with one private value, its key and the value.
    pub(super) tree: (Cid, [u8; 32], Bytes),
    pub(super) link: EncryptedCapability,
    /// Roots of alice's home writer: committed, and uploaded to be committed.
    pub(super) first_root: Cid,
    pub(super) next_root: Cid,
    pub(super) identity_root: Cid,
    /// Root of a writer that nobody owns, uploaded by alice.
    pub(super) stray_root: Cid,
    /// Enabled, and waiting to be enabled.
    pub(super) totp: TotpKey,
    pub(super) waiting_totp: TotpKey,
    pub(super) waiting_mount: TotpKey,
    pub(super) challenge: Vec<u8>,
    /// Where a browser believes to be.
    pub(super) origin: String,
    pub(super) space_request: Vec<u8>,
}

/// A node, private or public.
pub(super) async fn world(is_public: bool) -> World {
    let clock = Arc::new(ManualClock::at(NOW));
    let store = Arc::new(MemoryStore::new());
    let config = Config {
        clock: clock.clone(),
        is_public,
        public_host: is_public.then(|| "example.org".to_owned()),
        admins: [ADMIN.to_owned()].into(),
        waiting_list: true,
        ..config()
    };
    let node = Node::with_store(config, store.clone()).await.unwrap();
    let node = TestNode::of(node, clock);
    let alice = Account::sign_up(&node, "alice", 7).await;
    let bob = Account::sign_up(&node, "bob", 8).await;
    let admin = Account::sign_up(&node, ADMIN, 9).await;
    let carol = Account::sign_up(&node, "carol", 10).await;
    carol.usage(&node, "").await;
    move_away(&node, &carol).await;

    let bat = Bat::from_secret([5; 32]);
    let raw = private_raw(&bat, Some(&alice.mirror), b"cipher text");
    store_blocks(&node, &alice, BlockFormat::Raw, std::slice::from_ref(&raw)).await;
    let public = cbor_block("public", &[]);
    store_blocks(
        &node,
        &alice,
        BlockFormat::DagCbor,
        &[public.bytes().clone()],
    )
    .await;
    let tree = tree(&node, &alice, &bat).await;
    let mut next_root = alice.home_root().await;
    next_root.data.tree = Some(tree.0.clone());
    alice.put_root(&node, &alice.home, &next_root).await;
    let stray_root = WriterData::new_writer(stray_writer().writer())
        .to_block()
        .unwrap();
    let stray = [stray_root.bytes().clone()];
    store_blocks(&node, &alice, BlockFormat::DagCbor, &stray).await;
    let link = EncryptedCapability {
        cipher_text: OpaqueCipherText {
            nonce: [1; 24],
            cipher: vec![2; 50].into(),
        },
        needs_password: false,
    };
    let identity_root = publish(&node, &alice, &link).await;
    let totp = enrol(&node, &alice, "addTotp", "enableTotp", "").await;
    let waiting = async |call, more: &str| {
        let text = node.ok(&signed(&alice, call, more), "").await;
        String::from_utf8(text).unwrap().parse::<TotpKey>().unwrap()
    };
    let waiting_totp = waiting("addTotp", "").await;
    let waiting_mount = waiting("addMount", "&name=laptop").await;
    let start = signed(&alice, "registerWebauthnStart", "");
    let challenge = node.ok(&start, "").await;
    let space_request = space_request(&alice, "alice", 6000, NOW);
    let target = format!(
        "peergos/v0/storage/request?owner={}&req={}",
        alice.owner(),
        champ::text::to_hex(&space_request)
    );
    node.ok(&target, "").await;
    let send = format!("peergos/v0/social/followRequest?owner={}", alice.owner());
    assert_eq!(node.ok(&send, follow_request(1)).await, [1]);
    // What is worked out after an answer is done when these are answered.
    for who in [&alice, &bob, &admin] {
        who.usage(&node, "").await;
    }
    World {
        raw: (Cid::of_raw(&raw), raw, bat.with_calculated_id()),
        public: (public.cid().clone(), public.bytes().clone()),
        first_root: alice.home_root().await.cid(),
        next_root: next_root.cid(),
        identity_root,
        stray_root: stray_root.cid().clone(),
        node,
        store,
        alice,
        bob,
        carol,
        admin,
        tree,
        link,
        totp,
        waiting_totp,
        waiting_mount,
        challenge,
        origin: "http://localhost:8000".to_owned(),
        space_request,
    }
}

/// A signed space request.
pub(super) fn space_request(who: &Account, name: &str, bytes: i64, millis: i64) -> Vec<u8> {
    let request = SpaceRequest {
        username: name.parse().unwrap(),
        quota_bytes: bytes,
        is_annual: false,
        epoch_millis: millis,
        payment_proof: None,
    };
    who.identity.secret().sign_attached(&request.encode())
}

/// A well-formed sealed follow request.
pub(super) fn follow_request(n: u32) -> Vec<u8> {
    let mut map = Map::new();
    map.insert("f", [&n.to_be_bytes()[..], &[7; 40]].concat());
    map.insert("k", vec![Value::Int(1), Value::from(&[9u8; 32])]);
    Value::Map(map).encode()
}

async fn store_blocks(node: &TestNode, who: &Account, format: BlockFormat, blocks: &[Bytes]) {
    let answer = who.put(node, &who.home, format, blocks).await;
    assert_eq!(answer.status, 200, "{}", answer.message());
}

/// Renews the claim of a user with another server in it.
async fn move_away(node: &TestNode, who: &Account) {
    let elsewhere =
        Cid::parse_peer_id("12D3KooWEnCzE4uSeniFaCGXQuV1UnYkvqvbQJnYC363S2abgknr").unwrap();
    let moved = ClaimChain::single(who.link(node))
        .with_last_claim(
            &who.name.parse().unwrap(),
            default_expiry(NOW / 1000).plus_days(1),
            elsewhere,
            who.identity.secret(),
        )
        .unwrap();
    let request = UpdateChainRequest {
        username: who.name.clone(),
        chain: SentLinks::new(moved),
        proof: ProofOfWork::empty().encode().into(),
        token: String::new(),
    };
    let done = node.ok("peergos/v0/core/updateChain", request.to_body());
    assert_eq!(done.await, [1]);
}

async fn tree(node: &TestNode, alice: &Account, bat: &Bat) -> (Cid, [u8; 32], Bytes) {
    let mut map = Map::new();
    map.insert("bats", vec![bat.inline_id().to_value()]);
    let value = Block::cbor(Value::Map(map).encode()).unwrap();
    let key = [3; 32];
    let mut champ = Champ::empty();
    champ
        .put(
            key.to_vec(),
            None,
            Value::from(value.cid()),
            &champ::MemoryBlocks::new(),
        )
        .await
        .unwrap();
    let (root, nodes) = champ.finish().unwrap();
    let mut blocks: Vec<Bytes> = nodes.iter().map(|node| node.bytes().clone()).collect();
    blocks.push(value.bytes().clone());
    store_blocks(node, alice, BlockFormat::DagCbor, &blocks).await;
    (root, key, value.bytes().clone())
}

async fn publish(node: &TestNode, alice: &Account, capability: &EncryptedCapability) -> Cid {
    let target = SecretLinkTarget {
        capability: capability.clone(),
        expiry_epoch_seconds: None,
        max_retrievals: Some(3),
    };
    let block = Block::cbor(target.encode()).unwrap();
    let mut links = Champ::empty_private(alice.mirror.secret_hash_id());
    let label = LinkLabel::new(LABEL).unwrap();
    links
        .put(
            label.champ_key().to_vec(),
            None,
            Value::from(block.cid()),
            &champ::MemoryBlocks::new(),
        )
        .await
        .unwrap();
    let (links, nodes) = links.finish().unwrap();
    let mut root: Root = alice.identity_root().await;
    let before = root.cid();
    root.data.links = Some(links);
    root.blocks.extend(nodes);
    root.blocks.push(block);
    alice.put_root(node, &alice.identity, &root).await;
    let write = update(&alice.identity, Some(&before), Some(&root.cid()), Some(2));
    assert_eq!(alice.set(node, &write).await.body, [1]);
    root.cid()
}

impl World {
    /// A key that nobody here has.
    pub(super) fn stranger(&self) -> Account {
        Account::new("nobody", 66)
    }

    pub(super) fn authenticator(&self) -> Authenticator {
        Authenticator::new(Algorithm::EdDsa, 3, "localhost", &self.origin)
    }

    /// Calls the node in this process.
    pub(super) async fn call(
        &self,
        method: &str,
        target: &str,
        headers: &[(&'static str, String)],
        body: &[u8],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/{target}"));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Bytes::copy_from_slice(body)).unwrap();
        let response = self.node.node.call(request).await;
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

    /// Every row and every block: what no refusal may change.
    pub(super) async fn everything(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        // An authorisation is used up also when the call is refused for another reason.
        const TABLES: [Table; 19] = [
            tables::POINTERS,
            tables::CHAINS,
            tables::KEYS,
            tables::LOGINS,
            tables::SECOND_FACTORS,
            tables::SECURITY_KEYS,
            tables::BATS,
            tables::BAT_IDS,
            tables::QUOTAS,
            tables::USAGE,
            tables::SPACE_REQUESTS,
            tables::FOLLOW_REQUESTS,
            tables::LINK_COUNTS,
            tables::MESSAGES,
            tables::NODE,
            tables::USER_WRITERS,
            tables::PAST_LOGINS,
            tables::SIGNUP_TOKENS,
            tables::WAITING_LIST,
        ];
        let mut all = BTreeMap::new();
        for table in TABLES {
            let rows = self.store.scan(table, b"", None, 10_000).await.unwrap();
            for (row, value) in rows {
                let row = [table.name().as_bytes(), b" ", &row].concat();
                all.insert(row, value.to_vec());
            }
        }
        for name in ["alice", "bob", "carol", ADMIN, "dave"] {
            let partition = Partition::new(&format!("u-{name}")).unwrap();
            let blocks = self.store.list_blocks(&partition, None, 10_000).await;
            for info in blocks.unwrap() {
                all.insert(format!("{name} {}", info.cid).into_bytes(), Vec::new());
            }
        }
        all
    }

    /// A writer that nobody owns.
    pub(super) fn foreign_writer(&self) -> SecretKeyWithHash {
        stray_writer()
    }
}

fn stray_writer() -> SecretKeyWithHash {
    key(66, 2)
}
