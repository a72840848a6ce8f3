use champ::{access::Bat, cid::Codec};
use pki::keys::{Owner, PublicKeyHash, SecretKeyWithHash, SecretSigningKey, Writer};
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::*;
use crate::{
    capability::AbsoluteCapability,
    chunk_chain::{ChunkPlace, StreamSecret},
    crypto::SymmetricKey,
    directory::{ChildList, ItemKeys, NewPage},
    file::NewChunk,
    properties::{FileName, FileProperties, Timestamp},
};

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

fn name(name: &str) -> FileName {
    FileName::parse(name).unwrap()
}

fn signer(seed: u8) -> SecretKeyWithHash {
    SecretKeyWithHash::new(SecretSigningKey::from_seed(&[seed; 32]))
}

const NOW: Timestamp = Timestamp::from_epoch_seconds(7);

fn directory(signer: Option<&SecretKeyWithHash>) -> (ItemKeys, CryptreeNode) {
    let rng = &mut rng();
    let keys = ItemKeys::random(rng);
    let page = NewPage {
        keys: &keys,
        properties: FileProperties::directory(name("d"), NOW, false),
        parent: None,
        signer,
        mirror: None,
    };
    let sealed = page.seal(&ChildList::new(), rng).unwrap();
    (keys, sealed.node)
}

fn file(content: &[u8]) -> (ItemKeys, SealedNode) {
    let rng = &mut rng();
    let keys = ItemKeys::random(rng);
    let secret = StreamSecret::random(rng);
    let place = ChunkPlace {
        map_key: keys.map_key,
        bat: Some(keys.bat.clone()),
    };
    let mirror = Bat::from_secret([9; 32]).secret_hash_id();
    let size = content.len() as u64;
    let chunk = NewChunk {
        keys: &keys,
        stream_secret: &secret,
        place: &place,
        properties: FileProperties::file(name("f"), "text/plain", size, NOW, secret.clone()),
        parent: None,
        signer: None,
        mirror: Some(&mirror),
    };
    let sealed = chunk.seal(content, rng).unwrap();
    (keys, sealed)
}

fn capability(keys: &ItemKeys, writer: &SecretKeyWithHash) -> AbsoluteCapability {
    keys.capability(Owner(PublicKeyHash::placeholder()), writer.writer())
}

#[test]
fn directory_opens_with_both_keys_and_only_one_reaches_children() {
    let (keys, node) = directory(None);
    let node = CryptreeNode::of_block(&node.to_block().unwrap()).unwrap();
    let full = node.clone().open(&keys.r_base).unwrap();
    assert_eq!(full.layout(), Layout::Directory);
    assert!(full.children(&[]).unwrap().is_empty());
    assert_eq!(full.parent_key(), &keys.second_key);
    let path = node.open(&keys.second_key).unwrap();
    assert_eq!(path.properties(), full.properties());
    assert_eq!(path.parent_key(), &keys.second_key);
    assert_eq!(path.children(&[]), Err(NodeError::PathOnly));
}

#[test]
fn file_opens_and_is_no_directory() {
    let (keys, sealed) = file(b"content");
    let open = sealed.node.open(&keys.r_base).unwrap();
    assert_eq!(open.layout(), Layout::File);
    assert_eq!(open.parent_key(), &keys.r_base);
    assert_eq!(open.file_data(&[]).unwrap(), "content");
    assert_eq!(open.children(&[]), Err(NodeError::WrongKind));
}

#[test]
fn a_chunk_that_is_a_directory_is_rejected() {
    let (keys, node) = directory(None);
    let open = node.open(&keys.r_base).unwrap();
    assert_eq!(open.file_data(&[]), Err(NodeError::WrongKind));
}

#[test]
fn a_key_of_another_item_opens_nothing() {
    for node in [directory(None).1, file(b"x").1.node] {
        let error = node.open(&SymmetricKey::from_bytes([1; 32])).unwrap_err();
        assert!(matches!(error, NodeError::CanNotRead(_)));
        assert_eq!(error.to_string(), "can not read node");
    }
}

#[test]
fn padded_lengths_are_those_of_the_network() {
    let (_, plain) = directory(None);
    let (_, top) = directory(Some(&signer(5)));
    let length = |node: &CryptreeNode| node.base.encode().len();
    assert_eq!(length(&top) - length(&plain), 384 - 192 + 1);
}

#[test]
fn signer_must_belong_to_the_writer() {
    let ours = signer(5);
    let (keys, node) = directory(Some(&ours));
    let open = node.open(&keys.r_base).unwrap();
    let good = capability(&keys, &ours);
    assert_eq!(open.signer(&good).unwrap().unwrap().hash(), ours.hash());
    let foreign = capability(&keys, &signer(6));
    assert_eq!(open.signer(&foreign).unwrap_err(), NodeError::ForeignSigner);
    let reader = good.read_only();
    assert_eq!(open.signer(&reader).unwrap_err(), NodeError::ReadOnly);
    let mut forged = good;
    forged.w_base = Some(SymmetricKey::from_bytes([3; 32]));
    assert!(matches!(
        open.signer(&forged),
        Err(NodeError::CanNotRead(_))
    ));
    let (keys, node) = directory(None);
    let without = node.open(&keys.r_base).unwrap();
    assert!(without.signer(&capability(&keys, &ours)).unwrap().is_none());
}

#[test]
fn rewriting_one_part_keeps_the_others() {
    let (keys, sealed) = file(b"content");
    let open = sealed.node.clone().open(&keys.r_base).unwrap();
    let mut parent = open.parent_part().clone();
    parent.properties.name = name("renamed");
    let renamed = open.with_parent(&parent, &mut rng());
    assert_eq!(renamed.base, sealed.node.base);
    assert_eq!(renamed.data, sealed.node.data);
    assert_ne!(renamed.parent, sealed.node.parent);
    let reopened = renamed.open(&keys.r_base).unwrap();
    assert_eq!(reopened.properties().name.as_str(), "renamed");

    let changed = reopened.with_content(b"other", &mut rng()).unwrap();
    let changed = changed.node.open(&keys.r_base).unwrap();
    assert_eq!(changed.file_data(&[]).unwrap(), "other");
    assert_eq!(changed.properties(), reopened.properties());
}

#[test]
fn nothing_is_written_under_a_dirty_data_key() {
    let (mut keys, _) = file(b"");
    keys.second_key = keys.second_key.as_dirty();
    let secret = StreamSecret::from_bytes([1; 32]);
    let place = ChunkPlace {
        map_key: keys.map_key,
        bat: None,
    };
    let chunk = NewChunk {
        keys: &keys,
        stream_secret: &secret,
        place: &place,
        properties: FileProperties::file(name("f"), "", 0, NOW, secret.clone()),
        parent: None,
        signer: None,
        mirror: None,
    };
    let node = chunk.seal(b"old", &mut rng()).unwrap().node;
    let open = node.open(&keys.r_base).unwrap();
    assert_eq!(open.file_data(&[]).unwrap(), "old");
    assert_eq!(
        open.with_content(b"new", &mut rng()).unwrap_err(),
        NodeError::DirtyKey
    );
}

#[test]
fn equal_keys_are_refused() {
    let (mut keys, _) = directory(None);
    keys.second_key = keys.r_base.clone();
    let page = NewPage {
        keys: &keys,
        properties: FileProperties::directory(name("d"), NOW, false),
        parent: None,
        signer: None,
        mirror: None,
    };
    assert_eq!(
        page.seal(&ChildList::new(), &mut rng()).unwrap_err(),
        NodeError::SharedKey
    );
}

#[test]
fn malformed_nodes_are_rejected() {
    let (_, node) = directory(None);
    let Value::Map(good) = node.to_value() else {
        unreachable!()
    };
    let with = |key: &str, value: Value| {
        let mut map = good.clone();
        map.insert(key, value);
        CryptreeNode::of_block(&Block::cbor(Value::Map(map).encode()).unwrap())
    };
    let bat = Bat::from_secret([1; 32]).inline_id().to_value();
    assert!(with("bats", Value::List(vec![bat.clone(); 2])).is_ok());
    assert!(with("v", Value::Int(2)).is_err());
    assert!(with("v", Value::Int(0)).is_err());
    assert!(with("bats", Value::List(vec![bat; MAX_BATS + 1])).is_err());
    assert!(with("bats", Value::List(vec![Value::Int(1)])).is_err());
    assert!(
        with(
            "b",
            Value::List(vec![Value::from(&[0u8; 23][..]), Value::from(&[0u8; 24])])
        )
        .is_err()
    );
    for key in ["v", "b", "p", "d"] {
        let mut map = good.clone();
        map.remove(key);
        let block = Block::cbor(Value::Map(map).encode()).unwrap();
        assert!(CryptreeNode::of_block(&block).is_err(), "{key}");
    }
    // Not canonical: one byte more in a head.
    let mut bytes = node.encode();
    bytes.splice(0..1, [0xb8, bytes[0] & 31]);
    assert!(CryptreeNode::of_block(&Block::cbor(bytes).unwrap()).is_err());
    assert_eq!(node.to_block().unwrap().cid().codec(), Codec::DagCbor);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = CryptreeNode::of_block(&Block::cbor(bytes.clone()).unwrap());
        let _ = ParentPart::decode(&bytes);
        let _ = BasePart::decode(&bytes);
        let _ = ChildList::decode(&bytes);
        let _ = AbsoluteCapability::decode(&bytes);
    }

    #[test]
    fn any_changed_bit_fails_closed(bit in any::<prop::sample::Index>()) {
        let (keys, sealed) = file(b"content");
        let mut bytes = sealed.node.encode();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(changed) = CryptreeNode::of_block(&Block::cbor(bytes).unwrap()) else {
            return Ok(());
        };
        let bats_differ = changed.bats != sealed.node.bats;
        let opened = changed.open(&keys.r_base).and_then(|open| {
            open.base_part()?;
            open.file_data(&[])
        });
        // The ids are for the server; every other bit is authenticated.
        prop_assert!(opened.is_err() || (bats_differ && opened.unwrap() == "content"));
    }

    #[test]
    fn writer_of_a_placeholder_is_never_a_signer(seed in any::<u8>()) {
        let ours = signer(seed);
        let (keys, node) = directory(Some(&ours));
        let mut stolen = capability(&keys, &ours);
        stolen.writer = Writer(PublicKeyHash::placeholder());
        let open = node.open(&keys.r_base).unwrap();
        prop_assert_eq!(open.signer(&stolen).unwrap_err(), NodeError::ForeignSigner);
    }
}
