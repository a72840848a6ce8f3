//! `writerdata.json`: root blocks, owner proofs and the owned key champ.

use champ::{
    Block, Cid, MemoryBlocks,
    cbor::{Record, decode},
    map::Champ,
    text,
};
use pki::{
    keys::{PublicKeyHash, Writer},
    owned::{
        OwnerProof, WalkLimits, add_owned_key, directly_owned, owned_key_label, remove_owned_key,
    },
    writer_data::{PKI_NAME, WriterData},
};

use crate::support::{Case, each, key_hash, key_of_seed, now};

#[test]
fn root_blocks_and_proofs() {
    let mut owned_blocks = MemoryBlocks::new();
    let mut owned_root = None;
    each(
        "writerdata.json",
        "kind",
        // Public directories are written and read by clients.
        &["public_directory_growth"],
        vec![
            ("writer_data", &mut |case| {
                let data = root_block(case);
                if case.name() == "identity owning the writer" {
                    owned_root = data.owned.clone();
                    owned_blocks = owned_champ(case, &data);
                }
                if !case.raw("additions").is_null() {
                    let root = owned_root.clone().expect("the case before");
                    changes(case, &data, root, &owned_blocks);
                }
            }),
            ("writer_data_invalid", &mut |case| {
                assert!(
                    WriterData::decode(&case.hex("cbor")).is_err(),
                    "{}",
                    case.name()
                );
            }),
            ("writer_data_unknown_field", &mut |case| {
                let mut data = WriterData::decode(&case.hex("cbor")).unwrap();
                assert_eq!(data.encode(), case.hex("cbor"));
                data.tree = Some(Cid::of_cbor(b"changed"));
                let value = decode(&data.encode()).unwrap().into_map("root").unwrap();
                assert!(value.contains("zzz-unknown"));
            }),
            ("owner_proof", &mut |case| {
                let owned = key_of_seed(case.array("owned_seed"));
                let parent = key_hash(case.str("owner"));
                let proof = OwnerProof::make(&owned, &parent);
                assert_eq!(proof.owned().to_string(), case.str("owned"));
                assert_eq!(proof.signed_parent(), &case.hex("signed_owner"));
                assert_eq!(proof.encode(), case.hex("cbor"));
                assert_eq!(OwnerProof::decode(&case.hex("cbor")).unwrap(), proof);
                let block = Block::cbor(proof.encode()).unwrap();
                assert_eq!(block.cid().to_string(), case.str("block_cid"));
                assert!(now(proof.verify(&parent, &MemoryBlocks::new())).is_ok());
            }),
            ("owner_proof_invalid", &mut |case| {
                let proof = OwnerProof::decode(&case.hex("cbor")).unwrap();
                let parent = key_hash(case.str("owner"));
                let refused = now(proof.verify(&parent, &MemoryBlocks::new()));
                assert!(refused.is_err(), "{}", case.name());
            }),
        ],
    );
    assert!(owned_root.is_some());
}

fn root_block(case: &Case) -> WriterData {
    let block = Block::cbor(case.hex("block")).unwrap();
    assert_eq!(block.cid().to_string(), case.str("cid"));
    let fields = case.raw("fields").as_object().unwrap();
    let text = |field: &str| {
        fields
            .get(field)
            .map(|value| value.as_str().unwrap().to_owned())
    };
    let controller: Writer = text("controller").unwrap().parse().unwrap();
    let data = WriterData::in_block(&block, &controller).unwrap();
    assert_eq!(data.to_block().unwrap(), block, "{}", case.name());

    let mut known = 1;
    let mut same = |field: &str, found: Option<String>| {
        assert_eq!(found, text(field), "{field} of {}", case.name());
        known += usize::from(fields.contains_key(field));
    };
    let shown = |cid: &Option<Cid>| cid.as_ref().map(ToString::to_string);
    same("tree", shown(&data.tree));
    same("owned", shown(&data.owned));
    same("links", shown(&data.links));
    same("public", shown(&data.public));
    same("inbound", data.inbound.as_ref().map(ToString::to_string));
    let hex = |bytes: Vec<u8>| text::to_hex(&bytes);
    same(
        "algorithm",
        data.algorithm.as_ref().map(|a| hex(a.encode())),
    );
    same(
        "named.pki",
        data.named.get(PKI_NAME).map(|proof| hex(proof.encode())),
    );
    if let Some(length) = fields.get("static_cbor_length") {
        known += 1;
        let encoded = data.entry_points.as_ref().unwrap().encode();
        assert_eq!(length.as_u64(), Some(encoded.len() as u64));
        assert!(data.is_legacy_account());
    } else {
        assert!(!data.is_legacy_account());
    }
    assert_eq!(
        known,
        fields.len(),
        "{}: a field nobody looked at",
        case.name()
    );

    match case.name() {
        "new writer: controller and empty owned champ" => {
            assert_eq!(WriterData::new_writer(controller), data);
        }
        "new identity" => {
            let (inbound, algorithm) = (data.inbound.clone(), data.algorithm.clone());
            let made = WriterData::new_identity(controller, inbound.unwrap(), algorithm.unwrap());
            assert_eq!(made, data);
        }
        _ => {}
    }
    data
}

fn owned_champ(case: &Case, data: &WriterData) -> MemoryBlocks {
    let mut blocks = MemoryBlocks::new();
    for (cid, bytes) in case.raw("owned_champ_blocks").as_object().unwrap() {
        let bytes = text::from_hex(bytes.as_str().unwrap()).unwrap();
        blocks.insert(Block::verified(cid.parse().unwrap(), bytes).unwrap());
    }
    let owned = now(directly_owned(data, &blocks, WalkLimits::default())).unwrap();
    assert!(owned.damage.is_empty());
    let labels: Vec<String> = owned
        .writers
        .iter()
        .map(|writer| text::to_hex(&owned_key_label(writer.hash())))
        .collect();
    assert_eq!(labels, [case.str("owned_champ_key")]);
    blocks
}

fn changes(case: &Case, data: &WriterData, root: Cid, blocks: &MemoryBlocks) {
    let mut blocks = blocks.clone();
    let mut champ = Champ::at(root);
    let parent: PublicKeyHash = data.controller.hash().clone();
    let mut added = Vec::new();
    for step in case.list("additions") {
        let key = key_of_seed(step.array("owned_seed"));
        let proof = OwnerProof::make(&key, &parent);
        let block = now(add_owned_key(&mut champ, &proof, &blocks)).unwrap();
        assert!(
            now(add_owned_key(&mut champ, &proof, &blocks)).is_err(),
            "twice"
        );
        let (root, nodes) = champ.finish().unwrap();
        blocks.insert(block);
        blocks.extend(nodes);
        assert_eq!(root.to_string(), step.str("owned_root_after"));
        added.push(key.writer());
    }
    assert_eq!(champ.root(), data.owned.as_ref());
    let owned = now(directly_owned(data, &blocks, WalkLimits::default())).unwrap();
    assert_eq!(owned.writers.len(), added.len() + 1);
    assert!(added.iter().all(|writer| owned.writers.contains(writer)));

    for step in case.list("removals_after_that") {
        let key = key_of_seed(step.array("removed_seed"));
        now(remove_owned_key(&mut champ, key.hash(), &blocks)).unwrap();
        now(remove_owned_key(&mut champ, key.hash(), &blocks)).expect("absent: nothing changes");
        let (root, nodes) = champ.finish().unwrap();
        blocks.extend(nodes);
        assert_eq!(root.to_string(), step.str("owned_root_after"));
    }
}
