//! `cryptree.json` and `cryptree_legacy.json`: open, compare every field, seal again, compare the bytes.

use champ::{Block, Cid, MemoryBlocks, access::BatId, cbor::Record};
use cryptree::{
    capability::{AbsoluteCapability, Child},
    ciphertext::FragmentedPaddedCipherText,
    directory::ChildList,
    link_node::link_target,
    node::{CryptreeNode, Layout, NodeError, NodeParts, OpenNode, SealedNode},
};

use crate::{
    capability_vectors::compare_relative,
    properties_vectors::compare_properties,
    replay::Replay,
    support::{Case, file_pattern, for_each_case, sha256},
};

#[test]
fn current_nodes() {
    let mut ran = 0;
    for_each_case("cryptree.json", |case| {
        ran += 1;
        let (open, content) = open_and_compare(case);
        let sealed = seal_again(case, &open, &content);
        assert_eq!(
            sealed.node.to_block().unwrap().cid().to_string(),
            case.text("cid")
        );
        assert_eq!(sealed.node.encode(), case.base64("block"));
    });
    assert_eq!(ran, 17);
}

#[test]
fn legacy_nodes() {
    let mut ran = 0;
    for_each_case("cryptree_legacy.json", |case| {
        ran += 1;
        let (open, _) = open_and_compare(case);
        assert!(open.node().bats().is_empty());
        // The base part is written as ever; properties gain fields, the data part may have an old shape.
        let base = open.with_base(
            open.base_part().unwrap(),
            &mut Replay::of([case.part("base").hex("nonce")]),
        );
        assert_eq!(base.unwrap(), *open.node());
    });
    assert_eq!(ran, 4);
}

enum Content {
    File(Vec<u8>),
    Children(ChildList),
}

fn open_and_compare(case: &Case) -> (OpenNode, Content) {
    let capability: AbsoluteCapability = case.text("capability").parse().unwrap();
    let cid: Cid = case.text("cid").parse().unwrap();
    let block = Block::verified(cid, case.base64("block")).unwrap();
    let node = CryptreeNode::of_block(&block).unwrap();
    let bats: Vec<Vec<u8>> = node.bats().iter().map(|b| b.cid().to_bytes()).collect();
    let expected: Vec<Vec<u8>> = case.list("bats").iter().map(|b| b.hex("cidHex")).collect();
    assert_eq!(bats, expected);
    for (bat, expected) in node.bats().iter().zip(case.list("bats")) {
        assert_eq!(bat.is_inline(), expected.flag("inline"));
    }
    let fragments = node.data().fragments().to_vec();
    let open = node.open(&capability.r_base).unwrap();

    let layout = if case.flag("isDirectoryNode") {
        Layout::Directory
    } else {
        Layout::File
    };
    assert_eq!(open.layout(), layout);
    base(case, &open, &capability);
    parent(case, &open);

    let data = case.part("data");
    let expected = data.list("fragments");
    // A legacy link that holds the data itself is read as inline data.
    let expected: Vec<Case> = expected
        .into_iter()
        .filter(|fragment| !fragment.text("cid").starts_with("identity:"))
        .collect();
    assert_eq!(fragments.len(), expected.len());
    for (fragment, expected) in fragments.iter().zip(&expected) {
        assert_eq!(fragment.cid.to_string(), expected.text("cid"));
        let token = fragment.token.as_ref();
        assert_eq!(
            token.map(|t| t.bat.secret().to_vec()),
            expected.optional_hex("batSecret")
        );
        assert_eq!(
            token.map(|t| t.id.cid().to_string()).as_deref(),
            expected.optional_text("batId")
        );
    }
    let content = content(case, &open, &capability);
    (open, content)
}

fn base(case: &Case, open: &OpenNode, capability: &AbsoluteCapability) {
    let expected = case.part("base");
    let base = open.base_part().unwrap();
    assert_eq!(base.encode(), expected.hex("plaintextCbor"));
    assert_eq!(base.second_key.bytes().to_vec(), expected.hex("secondKey"));
    assert_eq!(base.second_key.is_dirty(), expected.flag("secondKeyDirty"));
    compare_relative(&base.next, &expected.part("nextChunk"));
    assert_eq!(base.signer.is_some(), expected.flag("signerLinkPresent"));
    if expected.has("signer") {
        let signer = open.signer(capability).unwrap().unwrap();
        let expected = expected.part("signer");
        assert_eq!(signer.hash().to_string(), expected.text("publicKeyHash"));
        assert_eq!(signer.encode(), expected.hex("cborHex"));
    } else if base.signer.is_none() {
        assert!(open.signer(capability).unwrap().is_none());
    } else {
        assert_eq!(open.signer(capability).unwrap_err(), NodeError::ReadOnly);
    }
}

fn parent(case: &Case, open: &OpenNode) {
    let expected = case.part("parent");
    assert_eq!(open.parent_key().bytes().to_vec(), expected.hex("key"));
    compare_properties(open.properties(), &expected.part("properties"));
    match open.parent_link() {
        Some(link) => compare_relative(link, &expected.part("parentLink")),
        None => assert!(!expected.has("parentLink")),
    }
}

fn content(case: &Case, open: &OpenNode, capability: &AbsoluteCapability) -> Content {
    let data = case.part("data");
    let blocks = in_order(open, case.blocks("fragmentBlocks"));
    if open.layout() == Layout::Directory {
        let children = open.children(&blocks).unwrap();
        compare_children(&children, &data, capability);
        let encoded = children.encode();
        assert_eq!(encoded.len(), data.size("plaintextCborLength"));
        assert_eq!(sha256(&encoded), data.hex("plaintextCborSha256"));
        if open.properties().is_link {
            let target = link_target(capability, &children).unwrap();
            assert_ne!(target.writer, capability.writer);
        }
        return Content::Children(children);
    }
    let length = data.size("contentLength");
    let content = if blocks.is_empty() && !open.node().data().fragments().is_empty() {
        // The big file's fragments are not stored: they are made again below.
        let chunk = case.text("name").strip_prefix("multi-chunk-").unwrap();
        file_pattern(chunk.parse::<usize>().unwrap() * (5 << 20), length)
    } else {
        open.file_data(&blocks).unwrap().to_vec()
    };
    assert_eq!(content.len(), length);
    assert_eq!(sha256(&content), data.hex("contentSha256"));
    if let Some(expected) = data.optional_hex("contentHex") {
        assert_eq!(content, expected);
    }
    Content::File(content)
}

fn in_order(open: &OpenNode, blocks: Vec<Block>) -> Vec<Block> {
    let mut memory = MemoryBlocks::new();
    memory.extend(blocks);
    let fragments = open.node().data().fragments().iter();
    fragments
        .filter_map(|fragment| memory.get(&fragment.cid).cloned())
        .collect()
}

fn compare_children(children: &ChildList, data: &Case, capability: &AbsoluteCapability) {
    let expected = data.list("children");
    assert_eq!(children.len(), data.size("childCount"));
    assert_eq!(children.len(), expected.len());
    for (child, expected) in children.iter().zip(&expected) {
        let relative = child.capability().unwrap();
        if let Some(name) = expected.0.as_str() {
            // The long list gives the names alone; its bytes are compared as a whole.
            assert_eq!(child.name().unwrap().as_str(), name);
            assert!(relative.resolve(capability).unwrap().is_writable());
            continue;
        }
        compare_relative(relative, &expected.part("relative"));
        let absolute = relative.resolve(capability).unwrap();
        assert_eq!(absolute.writer.to_string(), expected.text("absoluteWriter"));
        assert_eq!(
            absolute.w_base.map(|key| key.bytes().to_vec()),
            expected.optional_hex("absoluteWriteKey")
        );
        let Child::Named(entry) = child else {
            assert!(!expected.has("name"));
            continue;
        };
        assert_eq!(entry.name.as_str(), expected.text("name"));
        assert_eq!(entry.is_directory, Some(expected.flag("isDir")));
        assert_eq!(
            entry.mime_type.as_deref(),
            expected.optional_text("mimeType")
        );
        assert_eq!(
            entry.created_epoch_seconds,
            Some(expected.int("createdEpochSeconds"))
        );
    }
}

fn seal_again(case: &Case, open: &OpenNode, content: &Content) -> SealedNode {
    let data = case.part("data");
    let mut draws = vec![data.hex("nonce")];
    draws.extend(data.list("fragments").iter().map(|f| f.hex("batSecret")));
    draws.push(case.part("base").hex("nonce"));
    draws.push(case.part("parent").hex("nonce"));
    let mut random = Replay::of(draws);
    let bats: Vec<BatId> = open.node().bats().to_vec();
    let parts = NodeParts {
        layout: open.layout(),
        r_base: open.r_base().unwrap(),
        base: open.base_part().unwrap(),
        parent: open.parent_part(),
        bats,
    };
    let sealed = match content {
        Content::File(content) => CryptreeNode::seal_chunk(parts, content, &mut random),
        Content::Children(children) => CryptreeNode::seal_page(parts, children, &mut random),
    }
    .unwrap();
    assert!(random.is_used_up());
    let expected = data.list("fragments");
    assert_eq!(sealed.fragments.len(), expected.len());
    for (block, expected) in sealed.fragments.iter().zip(&expected) {
        assert_eq!(block.cid().to_string(), expected.text("cid"));
        assert_eq!(block.bytes().len(), expected.size("blockLength"));
        assert!(block.bytes().starts_with(&expected.hex("prefixHex")));
    }
    // What was just made opens again.
    let record: &FragmentedPaddedCipherText = sealed.node.data();
    if let Content::File(content) = content {
        let key = &open.base_part().unwrap().second_key;
        assert_eq!(record.open_bytes(key, &sealed.fragments).unwrap(), *content);
    }
    sealed
}
