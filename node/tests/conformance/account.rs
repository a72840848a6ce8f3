//! An account made by hand: keys, a sign-up request, signed writes.

use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use champ::{
    Block, Cid,
    access::{Bat, BatWithId},
    cbor::{Map, Record as _, Value},
    map::Champ,
    text::to_hex,
};
use pki::{
    chain::ClaimLink,
    claim::default_expiry,
    keys::{Owner, PublicKeyHash, SecretKeyWithHash, SecretSigningKey, Writer},
    owned::{OwnerProof, add_owned_key},
    pointer::{PointerUpdate, SignedPointer},
    signed::{SignedRequest, SignedTime},
    wire::{
        Body as _,
        block_group::{BlockFormat, BlockGroup},
        login_data::{LoginData, OpaqueCipherText},
        op_log::{BlockWrite, NewLogin, NewMirrorBat, Op, OpLog},
        pointer_batch::{PointerBatch, PointerWrite},
        signup::{SentLinks, SignupRequest},
    },
    writer_data::WriterData,
};

use super::harness::{Answer, NOW, TestNode};

/// A user with an identity, a home writer and a mirror token.
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) identity: SecretKeyWithHash,
    pub(crate) home: SecretKeyWithHash,
    pub(crate) login: SecretSigningKey,
    pub(crate) mirror: Bat,
}

/// A root block with everything it needs, and where it is named.
pub(crate) struct Root {
    pub(crate) data: WriterData,
    pub(crate) blocks: Vec<Block>,
}

impl Root {
    pub(crate) fn cid(&self) -> Cid {
        self.data.to_block().unwrap().cid().clone()
    }

    pub(crate) fn all_blocks(&self) -> Vec<Block> {
        let mut blocks = self.blocks.clone();
        blocks.push(self.data.to_block().unwrap());
        blocks
    }
}

pub(crate) fn key(seed: u8, role: u8) -> SecretKeyWithHash {
    let mut bytes = [seed; 32];
    bytes[0] = role;
    SecretKeyWithHash::new(SecretSigningKey::from_seed(&bytes))
}

/// A root block that owns these keys.
pub(crate) async fn owning(parent: &SecretKeyWithHash, owned: &[&SecretKeyWithHash]) -> Root {
    let mut champ = Champ::empty();
    let source = champ::MemoryBlocks::new();
    let mut blocks = Vec::new();
    for key in owned {
        let proof = OwnerProof::make(key, parent.hash());
        blocks.push(add_owned_key(&mut champ, &proof, &source).await.unwrap());
    }
    let (root, nodes) = champ.finish().unwrap();
    blocks.extend(nodes);
    let mut data = WriterData::new_writer(parent.writer());
    data.owned = Some(root);
    Root { data, blocks }
}

/// A time a little before this one, never the same twice: signatures over equal times are equal. The last second is
/// left to tests that choose their times themselves.
pub(crate) fn unique_millis(millis: i64) -> i64 {
    static COUNT: AtomicI64 = AtomicI64::new(0);
    millis - 1_000 - COUNT.fetch_add(1, Ordering::Relaxed) % 199_000
}

/// A signed pointer update.
pub(crate) fn update(
    key: &SecretKeyWithHash,
    original: Option<&Cid>,
    updated: Option<&Cid>,
    sequence: Option<i64>,
) -> PointerWrite {
    let update = PointerUpdate::try_new(original.cloned(), updated.cloned(), sequence).unwrap();
    PointerWrite {
        signed: SignedPointer::sign(update, key.secret()).into_bytes(),
        writer: key.writer(),
    }
}

/// The authorisation of one block.
pub(crate) fn sign_block(key: &SecretKeyWithHash, cid: &Cid) -> Bytes {
    key.secret()
        .sign_attached(cid.hash().sha2_256_digest().unwrap())
        .into()
}

fn block_op(key: &SecretKeyWithHash, block: &Block) -> Op {
    Op::Block(BlockWrite {
        block: block.bytes().clone(),
        format: BlockFormat::DagCbor,
        signature: sign_block(key, block.cid()),
        writer: key.writer(),
    })
}

impl Account {
    pub(crate) fn new(name: &str, seed: u8) -> Self {
        Self {
            name: name.to_owned(),
            identity: key(seed, 1),
            home: key(seed, 2),
            login: SecretSigningKey::from_seed(&[seed ^ 0x55; 32]),
            mirror: Bat::from_secret([seed ^ 0xaa; 32]),
        }
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner(self.identity.hash().clone())
    }

    /// Signs up and returns the account.
    pub(crate) async fn sign_up(node: &TestNode, name: &str, seed: u8) -> Self {
        let account = Self::new(name, seed);
        let request = account.request(node).await;
        assert_eq!(
            node.ok("peergos/v0/core/signup", request.to_body()).await,
            [1]
        );
        account
    }

    pub(crate) fn mirror_with_id(&self) -> BatWithId {
        BatWithId {
            bat: self.mirror.clone(),
            id: self.mirror.secret_hash_id(),
        }
    }

    /// The identity's first root block.
    pub(crate) async fn identity_root(&self) -> Root {
        let mut root = owning(&self.identity, &[&self.home]).await;
        let inbound = PublicKeyHash::of(&key(9, 9).secret().public());
        root.data.inbound = Some(inbound);
        root
    }

    /// The home writer's first root block.
    pub(crate) async fn home_root(&self) -> Root {
        owning(&self.home, &[]).await
    }

    /// The op log of a sign-up: the home writer's pointer first, as the Rust client sends them.
    pub(crate) async fn ops(&self) -> OpLog {
        let (identity, home) = (self.identity_root().await, self.home_root().await);
        let mut ops = Vec::new();
        for block in home.all_blocks() {
            ops.push(block_op(&self.home, &block));
        }
        ops.push(Op::Pointer(update(
            &self.home,
            None,
            Some(&home.cid()),
            Some(1),
        )));
        for block in identity.all_blocks() {
            ops.push(block_op(&self.identity, &block));
        }
        let pointer = update(&self.identity, None, Some(&identity.cid()), Some(1));
        ops.push(Op::Pointer(pointer));
        let data = self.login_data(&self.login, 1);
        OpLog {
            ops,
            mirror_bat: Some(NewMirrorBat {
                bat: self.mirror_with_id(),
                auth: self.request_auth("peergos/v0/bats/addBat", NOW).into(),
            }),
            login: Some(NewLogin {
                auth: self.identity.secret().sign_detached(&data.encode()),
                data,
            }),
        }
    }

    pub(crate) fn link(&self, node: &TestNode) -> ClaimLink {
        ClaimLink::sign(
            &self.name.parse().unwrap(),
            default_expiry(NOW / 1000),
            node.node.id().clone(),
            self.identity.secret(),
        )
        .unwrap()
    }

    pub(crate) async fn request(&self, node: &TestNode) -> SignupRequest {
        SignupRequest {
            username: self.name.clone(),
            link: SentLinks::new(self.link(node)),
            ops: self.ops().await,
            proof: pki::proof_of_work::ProofOfWork::empty().encode().into(),
            token: String::new(),
        }
    }

    pub(crate) fn login_data(&self, reader: &SecretSigningKey, content: u8) -> LoginData {
        LoginData {
            username: self.name.parse().unwrap(),
            record: OpaqueCipherText {
                nonce: [content; 24],
                cipher: vec![content; 100].into(),
            },
            reader: reader.public(),
            root_change: None,
        }
    }

    /// A signed time by the identity key, attached.
    pub(crate) fn time(&self, millis: i64) -> String {
        let time = SignedTime {
            epoch_millis: millis,
        };
        to_hex(&time.sign(self.identity.secret()))
    }

    pub(crate) fn request_auth(&self, path: &str, millis: i64) -> Vec<u8> {
        SignedRequest {
            path: path.to_owned(),
            time: SignedTime {
                epoch_millis: millis,
            },
        }
        .sign(self.identity.secret())
    }

    /// `username` and `auth` for a call, at this time.
    pub(crate) fn signed(&self, path: &str, millis: i64) -> String {
        format!(
            "{path}?username={}&auth={}",
            self.name,
            to_hex(&self.request_auth(path, millis))
        )
    }

    /// `setLogin` of this data.
    pub(crate) async fn set_login(&self, node: &TestNode, data: &LoginData) -> Answer {
        let auth = to_hex(&self.identity.secret().sign_detached(&data.encode()));
        let target = format!(
            "peergos/v0/login/setLogin?username={}&auth={auth}",
            self.name
        );
        node.post(&target, data.to_body()).await
    }

    /// `getLogin` with this login key, and more parameters.
    pub(crate) async fn get_login(
        &self,
        node: &TestNode,
        reader: &SecretSigningKey,
        millis: i64,
        more: &str,
    ) -> Answer {
        let time = SignedTime {
            epoch_millis: millis,
        };
        let target = format!(
            "peergos/v0/login/getLogin?username={}&author={}&auth={}{more}",
            self.name,
            to_hex(&reader.public().encode()),
            to_hex(&time.sign(reader)),
        );
        node.post(&target, "").await
    }

    pub(crate) fn put_target(&self, writer: &Writer, format: &str) -> String {
        format!(
            "api/v0/block/put/bulk?format={format}&owner={}&transaction=t1&writer={writer}",
            self.owner()
        )
    }

    /// Uploads blocks of one format, signed by `key`.
    pub(crate) async fn put(
        &self,
        node: &TestNode,
        key: &SecretKeyWithHash,
        format: BlockFormat,
        blocks: &[Bytes],
    ) -> Answer {
        let signatures = blocks
            .iter()
            .map(|block| sign_block(key, &format.cid(block)))
            .collect();
        let group = BlockGroup::new(blocks.to_vec(), signatures).unwrap();
        let target = self.put_target(&key.writer(), format.as_str());
        node.post(&target, group.to_body()).await
    }

    pub(crate) async fn put_root(&self, node: &TestNode, key: &SecretKeyWithHash, root: &Root) {
        let blocks: Vec<_> = root
            .all_blocks()
            .iter()
            .map(|block| block.bytes().clone())
            .collect();
        let answer = self.put(node, key, BlockFormat::DagCbor, &blocks).await;
        assert_eq!(answer.status, 200, "{}", answer.message());
    }

    /// `setPointer` of one update.
    pub(crate) async fn set(&self, node: &TestNode, write: &PointerWrite) -> Answer {
        let target = format!(
            "peergos/v0/mutable/setPointer?owner={}&writer={}",
            self.owner(),
            write.writer
        );
        node.post(&target, write.signed.clone()).await
    }

    /// `setPointers` of several updates.
    pub(crate) async fn set_all(&self, node: &TestNode, writes: Vec<PointerWrite>) -> Answer {
        let target = format!("peergos/v0/mutable/setPointers?owner={}", self.owner());
        node.post(&target, PointerBatch::new(writes).unwrap().to_body())
            .await
    }

    pub(crate) async fn pointer(&self, node: &TestNode, writer: &Writer) -> Vec<u8> {
        let target = format!(
            "peergos/v0/mutable/getPointer?owner={}&writer={writer}",
            self.owner()
        );
        node.ok(&target, "").await
    }

    pub(crate) fn get_target(&self, cid: &Cid) -> String {
        format!("api/v0/block/get?arg={cid}&owner={}", self.owner())
    }

    pub(crate) async fn usage(&self, node: &TestNode, more: &str) -> i64 {
        let target = format!(
            "peergos/v0/storage/usage?owner={}&auth={}{more}",
            self.owner(),
            self.time(NOW)
        );
        match champ::cbor::decode(&node.ok(&target, "").await).unwrap() {
            Value::Int(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }
}

/// A dag-cbor block with some links.
pub(crate) fn cbor_block(content: &str, links: &[Cid]) -> Block {
    let mut map = Map::new();
    map.insert("content", content);
    map.insert("links", links.iter().map(Value::from).collect::<Vec<_>>());
    Block::cbor(Value::Map(map).encode()).unwrap()
}

/// A raw block opened by `bat`, and by the mirror token if there is one.
pub(crate) fn private_raw(bat: &Bat, mirror: Option<&Bat>, content: &[u8]) -> Bytes {
    let mut ids = vec![bat.inline_id()];
    ids.extend(mirror.map(Bat::secret_hash_id));
    let mut block = champ::access::raw_prefix(&ids);
    block.extend_from_slice(content);
    block.into()
}
