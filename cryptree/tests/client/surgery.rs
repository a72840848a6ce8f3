//! Files in states that only other clients leave behind: their nodes are replaced past the client under test.

use champ::{
    Block, MemoryBlocks,
    cbor::{Record, Value},
    map::Champ,
};
use cryptree::{
    Session,
    capability::{AbsoluteCapability, MapKey},
    node::{CryptreeNode, OpenNode},
};
use pki::{
    pointer::{PointerUpdate, SignedPointer},
    wire::pointer_batch::PointerWrite,
    writer_data::WriterData,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::fake::FakeNode;

/// Puts the nodes that `make` gives for the file at `path`, in one commit of the home space; none: just looks.
pub(crate) async fn replace_nodes(
    node: &FakeNode,
    session: &Session,
    path: &str,
    make: impl FnOnce(&AbsoluteCapability, &OpenNode, &mut ChaCha20Rng) -> Vec<(MapKey, Block)>,
) {
    let link = |text: String| text.parse::<AbsoluteCapability>().unwrap();
    let file = link(session.capability_link(path).await.unwrap());
    let home = link(session.capability_link("/alice").await.unwrap());
    let mut blocks = MemoryBlocks::new();
    let (pointer, mut data) = {
        let state = node.state.lock().unwrap();
        let space = &state.blocks[&home.owner];
        blocks.extend(space.values().cloned());
        let pointer = state.current(&home.writer).unwrap();
        let data = WriterData::decode(space[pointer.updated().unwrap()].bytes()).unwrap();
        (pointer, data)
    };
    let mut tree = Champ::at(data.tree.clone().unwrap());
    let open = async |tree: &Champ, capability: &AbsoluteCapability| -> OpenNode {
        let value = tree.get(capability.map_key.bytes(), &blocks).await.unwrap();
        let Some(Value::Link(cid)) = value else {
            panic!("no link")
        };
        let node = CryptreeNode::of_block(blocks.get(&cid).unwrap()).unwrap();
        node.open(&capability.r_base).unwrap()
    };
    let signer = open(&tree, &home).await.signer(&home).unwrap().unwrap();
    let first = open(&tree, &file).await;
    let made = make(&file, &first, &mut ChaCha20Rng::seed_from_u64(77));
    if made.is_empty() {
        return;
    }
    for (key, block) in &made {
        let old = tree.get(key.bytes(), &blocks).await.unwrap();
        let new = Value::Link(block.cid().clone());
        tree.put(key.bytes().to_vec(), old.as_ref(), new, &blocks)
            .await
            .unwrap();
    }
    let (tree, trie_blocks) = tree.finish().unwrap();
    data.tree = Some(tree);
    let root = data.to_block().unwrap();
    let update = PointerUpdate::next(Some(&pointer), Some(root.cid().clone())).unwrap();
    let signed = SignedPointer::sign(update.clone(), signer.secret()).into_bytes();
    let mut state = node.state.lock().unwrap();
    let space = state.blocks.get_mut(&home.owner).unwrap();
    let made = made.into_iter().map(|(_, block)| block);
    for block in trie_blocks.into_iter().chain(made).chain([root]) {
        space.insert(block.cid().clone(), block);
    }
    let write = PointerWrite {
        signed,
        writer: home.writer.clone(),
    };
    state.apply_pointer(&home.owner, &update, write);
}
