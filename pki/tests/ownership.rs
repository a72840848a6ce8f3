//! The ownership walk over hostile trees (Spec: 04 §5.3).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use champ::{
    Block, BlockSource, Cid, MemoryBlocks, SourceError,
    access::BatWithId,
    cbor::{Record, Value},
    map::Champ,
};
use pki::{
    keys::{Owner, PublicKeyHash, SecretKeyWithHash, Writer},
    owned::{
        OwnedError, OwnerProof, OwnershipWalk, PointerSource, WalkLimits, add_owned_key,
        directly_owned, owned_by_user, owned_key_label,
    },
    writer_data::{RootError, WriterData},
};

use crate::support::{key, now};

/// Pointers and blocks in memory.
#[derive(Default)]
struct World {
    blocks: MemoryBlocks,
    roots: HashMap<Writer, Cid>,
}

#[async_trait::async_trait]
impl PointerSource for World {
    async fn root(&self, writer: &Writer) -> Result<Option<Cid>, SourceError> {
        Ok(self.roots.get(writer).cloned())
    }
}

impl World {
    /// Gives `parent` a root block that owns `children`.
    fn owns(&mut self, parent: &SecretKeyWithHash, children: &[&SecretKeyWithHash]) -> WriterData {
        let mut champ = Champ::empty();
        for child in children {
            let proof = OwnerProof::make(child, parent.hash());
            let block = now(add_owned_key(&mut champ, &proof, &self.blocks)).unwrap();
            self.blocks.insert(block);
        }
        self.point(parent, champ)
    }

    fn point(&mut self, parent: &SecretKeyWithHash, mut champ: Champ) -> WriterData {
        let (root, nodes) = champ.finish().unwrap();
        self.blocks.extend(nodes);
        let mut data = WriterData::new_writer(parent.writer());
        data.owned = Some(root);
        self.set(parent, &data);
        data
    }

    fn set(&mut self, writer: &SecretKeyWithHash, data: &WriterData) {
        let block = data.to_block().unwrap();
        self.roots.insert(writer.writer(), block.cid().clone());
        self.blocks.insert(block);
    }

    fn closure(&self, owner: &SecretKeyWithHash) -> pki::owned::Owned {
        let owner = Owner(owner.hash().clone());
        now(owned_by_user(
            &owner,
            self,
            &self.blocks,
            WalkLimits::default(),
        ))
        .unwrap()
    }
}

fn writers(keys: &[&SecretKeyWithHash]) -> BTreeSet<Writer> {
    keys.iter().map(|key| key.writer()).collect()
}

#[test]
fn ownership_is_followed_through_cycles_and_each_writer_is_met_once() {
    let (alice, home, shared, stranger) = (key(1), key(2), key(3), key(4));
    let mut world = World::default();
    world.owns(&alice, &[&home]);
    world.owns(&home, &[&shared, &home]);
    world.owns(&shared, &[&alice, &home]);
    world.owns(&stranger, &[&alice]);
    let owned = world.closure(&alice);
    assert_eq!(owned.writers, writers(&[&alice, &home, &shared]));
    assert!(owned.damage.is_empty());

    let owner = Owner(alice.hash().clone());
    let finds = |writer: &SecretKeyWithHash| {
        let limits = WalkLimits::default();
        let mut walk = OwnershipWalk::new(&owner, &world, &world.blocks, limits);
        now(walk.finds(&writer.writer())).unwrap()
    };
    assert!(finds(&alice) && finds(&shared));
    assert!(!finds(&stranger));
}

#[test]
fn invalid_proofs_are_ignored() {
    let (alice, good, foreign, wrong_label) = (key(1), key(2), key(3), key(4));
    let mut world = World::default();
    let mut champ = Champ::empty();
    let mut put = |label: &PublicKeyHash, value: Value| {
        let label = owned_key_label(label);
        now(champ.put(label, None, value, &MemoryBlocks::new())).unwrap();
    };
    let stored = |world: &mut World, encoded: Vec<u8>| {
        let block = Block::cbor(encoded).unwrap();
        let link = Value::from(block.cid());
        world.blocks.insert(block);
        link
    };
    let proof = |child: &SecretKeyWithHash, parent: &SecretKeyWithHash| {
        OwnerProof::make(child, parent.hash()).encode()
    };
    put(good.hash(), stored(&mut world, proof(&good, &alice)));
    // About another parent, under another label, no proof at all, no link, an inline record.
    put(foreign.hash(), stored(&mut world, proof(&foreign, &key(9))));
    put(
        key(5).hash(),
        stored(&mut world, proof(&wrong_label, &alice)),
    );
    put(key(6).hash(), stored(&mut world, vec![0x80]));
    put(key(7).hash(), Value::Int(1));
    put(
        key(8).hash(),
        OwnerProof::make(&key(8), alice.hash()).to_value(),
    );
    let data = world.point(&alice, champ);

    let owned = now(directly_owned(&data, &world.blocks, WalkLimits::default())).unwrap();
    assert_eq!(owned.writers, writers(&[&good]));
    assert!(owned.damage.is_empty());
}

#[test]
fn named_proofs_count_and_are_verified() {
    let (peergos, directory) = (key(1), key(2));
    let mut data = WriterData::new_writer(peergos.writer());
    data.owned = None;
    data.named.insert(
        "pki".to_owned(),
        OwnerProof::make(&directory, peergos.hash()),
    );
    data.named.insert(
        "bad".to_owned(),
        OwnerProof::make(&key(3), directory.hash()),
    );
    let blocks = MemoryBlocks::new();
    let owned = now(directly_owned(&data, &blocks, WalkLimits::default())).unwrap();
    assert_eq!(owned.writers, writers(&[&directory]));
}

#[test]
fn keys_named_by_block_can_be_owned() {
    let (alice, old) = (key(1), key(2));
    let public = old.secret().public();
    let block = Block::cbor(public.encode()).unwrap();
    let hash = PublicKeyHash::try_new(block.cid().clone()).unwrap();
    let proof = Value::Map(champ::cbor::Map::from_iter([
        ("o", hash.to_value()),
        (
            "p",
            Value::from(old.secret().sign_attached(&alice.hash().encode())),
        ),
    ]));
    let proof = OwnerProof::from_value(proof).unwrap();
    let mut world = World::default();
    let mut champ = Champ::empty();
    let stored = now(add_owned_key(&mut champ, &proof, &world.blocks)).unwrap();
    world.blocks.insert(stored);
    let data = world.point(&alice, champ);

    let before = now(directly_owned(&data, &world.blocks, WalkLimits::default())).unwrap();
    assert!(before.writers.is_empty());
    assert!(matches!(before.damage[0].error, OwnedError::Missing(_)));
    world.blocks.insert(block);
    let after = now(directly_owned(&data, &world.blocks, WalkLimits::default())).unwrap();
    assert_eq!(after.writers, BTreeSet::from([Writer(hash)]));
    assert!(after.damage.is_empty());
}

#[test]
fn a_broken_branch_ends_there_and_is_reported() {
    let (alice, deleted, foreign, missing, champless) = (key(1), key(2), key(3), key(4), key(5));
    let mut world = World::default();
    world.owns(&alice, &[&deleted, &foreign, &missing, &champless]);
    world.owns(&foreign, &[]);
    // A root block that belongs to somebody else, a root and a champ that are not there.
    let of_alice = world.roots[&alice.writer()].clone();
    world.roots.insert(foreign.writer(), of_alice);
    world
        .roots
        .insert(missing.writer(), Cid::of_cbor(b"nowhere"));
    let mut data = WriterData::new_writer(champless.writer());
    data.owned = Some(Cid::of_cbor(b"nothing"));
    world.set(&champless, &data);

    let owned = world.closure(&alice);
    let all = [&alice, &deleted, &foreign, &missing, &champless];
    assert_eq!(owned.writers, writers(&all));
    assert_eq!(owned.damage.len(), 3);
    for damage in &owned.damage {
        let expected = if damage.writer == foreign.writer() {
            matches!(damage.error, OwnedError::Root(RootError::Controller { .. }))
        } else {
            matches!(damage.error, OwnedError::Missing(_))
        };
        assert!(expected, "{damage:?}");
    }
}

#[test]
fn work_is_bounded() {
    let alice = key(1);
    let children: Vec<SecretKeyWithHash> = (10..40).map(key).collect();
    let mut world = World::default();
    let data = world.owns(&alice, &children.iter().collect::<Vec<_>>());
    let owner = Owner(alice.hash().clone());
    let walk = |max_writers, max_blocks| {
        let limits = WalkLimits {
            max_writers,
            max_blocks,
        };
        (
            now(directly_owned(&data, &world.blocks, limits)),
            now(owned_by_user(&owner, &world, &world.blocks, limits)),
        )
    };
    let (direct, all) = walk(31, 1_000);
    assert_eq!(direct.unwrap().writers.len(), 30);
    assert_eq!(all.unwrap().writers.len(), 31);
    let (direct, all) = walk(29, 1_000);
    assert!(matches!(
        direct,
        Err(OwnedError::TooManyWriters { max: 29 })
    ));
    assert!(matches!(all, Err(OwnedError::TooManyWriters { max: 29 })));
    for max in [0, 1, 20] {
        let (direct, all) = walk(1_000, max);
        assert!(
            matches!(direct, Err(OwnedError::TooManyBlocks { .. })),
            "{direct:?}"
        );
        assert!(
            matches!(all, Err(OwnedError::TooManyBlocks { .. })),
            "{all:?}"
        );
    }
}

/// A source that fails.
struct Down;

#[async_trait::async_trait]
impl BlockSource for Down {
    async fn block(&self, _: &Cid, _: Option<&BatWithId>) -> Result<Option<Block>, SourceError> {
        Err(SourceError::Failed(Arc::new(std::io::Error::other("down"))))
    }
}

#[test]
fn a_failing_source_is_no_answer() {
    let (alice, home) = (key(1), key(2));
    let mut world = World::default();
    let data = world.owns(&alice, &[&home]);
    let owner = Owner(alice.hash().clone());
    let limits = WalkLimits::default();
    let direct = now(directly_owned(&data, &Down, limits));
    assert!(matches!(direct, Err(OwnedError::Source(_))));
    let all = now(owned_by_user(&owner, &world, &Down, limits));
    assert!(matches!(all, Err(OwnedError::Source(_))));
}
