//! An account made by hand: keys, sign-up, uploads; everything that a client would encrypt is left out.

use anyhow::{Result, ensure};
use bytes::Bytes;
use champ::{
    Block, Cid, Codec,
    cbor::{Map, Record as _, Value},
};
use http::Request;
use node::Node;
use pki::{
    chain::ClaimLink,
    claim::default_expiry,
    keys::{Owner, SecretKeyWithHash, SecretSigningKey},
    pointer::{PointerUpdate, SignedPointer},
    proof_of_work::ProofOfWork,
    wire::{
        Body as _,
        block_group::{BlockFormat, BlockGroup},
        op_log::{BlockWrite, Op, OpLog},
        pointer_batch::PointerWrite,
        signup::{SentLinks, SignupRequest},
    },
    writer_data::WriterData,
};

/// An account whose only writer is its identity key.
pub(crate) struct Account {
    key: SecretKeyWithHash,
    root: Cid,
    sequence: i64,
    /// What its tree consists of.
    shares: Vec<Cid>,
    /// The last share is of a write.
    has_written: bool,
}

/// A cbor block with a name and links.
pub(crate) fn linked(name: &str, links: &[Cid]) -> Result<Block> {
    let mut map = Map::new();
    map.insert("links", links.iter().map(Value::from).collect::<Vec<_>>());
    map.insert("name", name);
    Ok(Block::cbor(Value::Map(map).encode())?)
}

pub(crate) async fn post(node: &Node, target: &str, body: impl Into<Bytes>) -> Result<Bytes> {
    let request = Request::post(format!("/{target}")).body(body.into())?;
    let response = node.call(request).await;
    let trailer = response.headers().get("trailer");
    ensure!(response.status().is_success(), "{target}: {trailer:?}");
    Ok(response.into_body())
}

impl Account {
    pub(crate) async fn sign_up(node: &Node, name: &str, seed: u8) -> Result<Self> {
        let key = SecretKeyWithHash::new(SecretSigningKey::from_seed(&[seed; 32]));
        let root = root_of(&key, None)?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let expiry = default_expiry(i64::try_from(now.as_secs())?);
        let link = ClaimLink::sign(&name.parse()?, expiry, node.id().clone(), key.secret())?;
        let block = Op::Block(BlockWrite {
            block: root.bytes().clone(),
            format: BlockFormat::DagCbor,
            signature: signature(&key, root.cid())?,
            writer: key.writer(),
        });
        let pointer = Op::Pointer(update(&key, None, root.cid(), 1)?);
        let request = SignupRequest {
            username: name.to_owned(),
            link: SentLinks::new(link),
            ops: OpLog {
                ops: vec![block, pointer],
                mirror_bat: None,
                login: None,
            },
            proof: ProofOfWork::empty().encode().into(),
            token: String::new(),
        };
        let answer = post(node, "peergos/v0/core/signup", request.to_body()).await?;
        ensure!(answer[..] == [1], "sign-up of {name}");
        Ok(Self {
            key,
            root: root.cid().clone(),
            sequence: 1,
            shares: Vec::new(),
            has_written: false,
        })
    }

    /// The request for its pointer.
    pub(crate) fn pointer_request(&self) -> String {
        let (owner, writer) = (self.owner(), self.key.writer());
        format!("peergos/v0/mutable/getPointer?owner={owner}&writer={writer}")
    }

    fn owner(&self) -> Owner {
        Owner(self.key.hash().clone())
    }

    async fn put(&self, node: &Node, transaction: &str, blocks: &[Block]) -> Result<()> {
        for (format, codec) in [
            (BlockFormat::DagCbor, Codec::DagCbor),
            (BlockFormat::Raw, Codec::Raw),
        ] {
            let some: Vec<_> = blocks.iter().filter(|b| b.cid().codec() == codec).collect();
            if some.is_empty() {
                continue;
            }
            let bytes = some.iter().map(|b| b.bytes().clone()).collect();
            let signatures = some.iter().map(|b| signature(&self.key, b.cid()));
            let group = BlockGroup::new(bytes, signatures.collect::<Result<_>>()?)?;
            let target = format!(
                "api/v0/block/put/bulk?format={}&owner={}&transaction={transaction}&writer={}",
                format.as_str(),
                self.owner(),
                self.key.writer()
            );
            post(node, &target, group.to_body()).await?;
        }
        Ok(())
    }

    /// Uploads blocks and makes these shares the tree.
    pub(crate) async fn commit(
        &mut self,
        node: &Node,
        shares: &[Cid],
        blocks: &[Block],
    ) -> Result<()> {
        let transaction = format!("t{}", self.sequence);
        let tree = linked(&format!("tree {}", self.sequence), shares)?;
        let root = root_of(&self.key, Some(tree.cid()))?;
        let mut all = blocks.to_vec();
        let cid = root.cid().clone();
        all.extend([tree, root]);
        self.put(node, &transaction, &all).await?;
        let update = update(&self.key, Some(&self.root), &cid, self.sequence + 1)?;
        let target = format!(
            "peergos/v0/mutable/setPointer?owner={}&writer={}",
            self.owner(),
            self.key.writer()
        );
        let answer = post(node, &target, update.signed).await?;
        ensure!(answer[..] == [1], "the pointer was not accepted");
        let target = format!(
            "api/v0/transaction/close?arg={transaction}&owner={}",
            self.owner()
        );
        post(node, &target, Bytes::new()).await?;
        self.root = cid;
        self.sequence += 1;
        self.shares = shares.to_vec();
        self.has_written = false;
        Ok(())
    }

    /// One write: two new blocks instead of those of the last write.
    pub(crate) async fn write(&mut self, node: &Node) -> Result<()> {
        let content = format!("written {} by {}", self.sequence, self.key.writer());
        let leaf = Block::raw(content.clone().into_bytes())?;
        let share = linked(&content, &[leaf.cid().clone()])?;
        let mut shares = self.shares.clone();
        if self.has_written {
            shares.pop();
        }
        shares.push(share.cid().clone());
        self.commit(node, &shares, &[leaf, share]).await?;
        self.has_written = true;
        Ok(())
    }
}

/// The root block of a writer that owns no other writers.
fn root_of(key: &SecretKeyWithHash, tree: Option<&Cid>) -> Result<Block> {
    let mut root = WriterData::new_writer(key.writer());
    // Without the map of owned writers, which would have to be stored too.
    root.owned = None;
    root.tree = tree.cloned();
    Ok(root.to_block()?)
}

fn signature(key: &SecretKeyWithHash, cid: &Cid) -> Result<Bytes> {
    let digest = cid.hash().sha2_256_digest();
    let digest = digest.ok_or_else(|| anyhow::anyhow!("not the name of a block"))?;
    Ok(key.secret().sign_attached(digest).into())
}

fn update(
    key: &SecretKeyWithHash,
    from: Option<&Cid>,
    to: &Cid,
    sequence: i64,
) -> Result<PointerWrite> {
    let update = PointerUpdate::try_new(from.cloned(), Some(to.clone()), Some(sequence))?;
    Ok(PointerWrite {
        signed: SignedPointer::sign(update, key.secret()).into_bytes(),
        writer: key.writer(),
    })
}
