//! What the node and a thief of the disk can learn (Spec: 40 §3), and names that are ordinary here.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use champ::{
    Block, Cid, Codec,
    access::{Bat, split_raw},
};
use cryptree::{
    Client,
    capability::AbsoluteCapability,
    chunk_chain::{ChunkPlace, StreamSecret},
    client::{BlockKeeper, Detail},
    directory::ItemKeys,
    file::NewChunk,
    node::CryptreeNode,
    properties::{FileName, FileProperties, Timestamp},
};
use data_encoding::BASE64;
use pki::keys::{Owner, PublicKeyHash, SecretSigningKey};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use super::{
    KEY, alice,
    files::{content, get, names, put},
    machine, prepared,
};
use crate::fake::{FakeNode, TestSurroundings};

fn stored(node: &FakeNode) -> Vec<Block> {
    let state = node.state.lock().unwrap();
    let spaces = state.blocks.values();
    spaces.flat_map(|space| space.values().cloned()).collect()
}

/// The cipher texts of one file and of many have nothing in common that a node can see.
#[tokio::test]
async fn prv_3_chunks_of_one_file_cannot_be_told_from_those_of_many() {
    let (node, session) = alice().await;
    let before: HashSet<Cid> = stored(&node)
        .iter()
        .map(|block| block.cid().clone())
        .collect();
    // One file among many, in an order that is not theirs.
    let large = vec![7; 30 << 20];
    for i in 0..30 {
        put(&session, &format!("/alice/{i}"), &large[..1 << 20])
            .await
            .unwrap();
        if i == 11 {
            put(&session, "/alice/large", &large).await.unwrap();
        }
    }
    node.collect_garbage();
    let mut tokens: HashMap<String, u32> = HashMap::new();
    let mut pieces = HashSet::new();
    let mut nonces = HashSet::new();
    let (mut nodes, mut fragments) = (0, 0);
    for block in stored(&node)
        .iter()
        .filter(|block| !before.contains(block.cid()))
    {
        let ids = match block.cid().codec() {
            Codec::Raw => {
                fragments += 1;
                let (ids, data) = split_raw(block.bytes()).unwrap();
                // Equal content, no equal bytes: neither blocks nor any aligned piece of them.
                for piece in data.chunks(4096) {
                    assert!(pieces.insert(piece.to_vec()), "equal cipher text");
                }
                ids
            }
            _ => {
                let Ok(cryptree) = CryptreeNode::of_block(block) else {
                    continue;
                };
                nodes += 1;
                // Every nonce of a node stands in it as 24 bytes.
                for nonce in nonces_in(block.bytes()) {
                    assert!(nonces.insert(nonce), "a nonce twice");
                }
                cryptree.bats().to_vec()
            }
        };
        for id in ids {
            *tokens.entry(id.cid().to_string()).or_default() += 1;
        }
    }
    assert!(nodes >= 36 && fragments >= 60, "{nodes} {fragments}");
    let shared = tokens.values().filter(|count| **count > 1).count();
    assert_eq!(shared, 1, "only the mirror token is in common");
}

/// A chunk as the node sees it: its label in the map, its block, and what the block names.
#[derive(Clone)]
struct Chunk {
    label: [u8; 32],
    block: Bytes,
    fragments: Vec<Vec<u8>>,
    tokens: Vec<String>,
    /// The truth, which only the owner knows.
    file: usize,
}

/// How alike two chunks look: a view for each thing that a node can compare.
type View = fn(&Chunk, &Chunk) -> f64;

fn number(bytes: &[u8]) -> f64 {
    u64::from_be_bytes(bytes[bytes.len() - 8..].try_into().unwrap()) as f64
}

fn leading_bits_in_common(a: &Chunk, b: &Chunk) -> f64 {
    let mut pairs = a.label.iter().zip(&b.label);
    let first = pairs.position(|(a, b)| a != b).unwrap();
    8.0 * first as f64 + f64::from((a.label[first] ^ b.label[first]).leading_zeros())
}

fn bits_in_common(a: &Chunk, b: &Chunk) -> f64 {
    let pairs = a.label.iter().zip(&b.label);
    -f64::from(pairs.map(|(a, b)| (a ^ b).count_ones()).sum::<u32>())
}

fn label_distance(a: &Chunk, b: &Chunk) -> f64 {
    -(number(&a.label[..8]) - number(&b.label[..8])).abs()
}

fn bytes_in_common(a: &Chunk, b: &Chunk) -> f64 {
    let equal = a.block.iter().zip(&b.block).filter(|(a, b)| a == b);
    equal.count() as f64
}

fn tokens_in_common(a: &Chunk, b: &Chunk) -> f64 {
    let common = a.tokens.iter().filter(|token| b.tokens.contains(token));
    common.count() as f64
}

fn length_distance(a: &Chunk, b: &Chunk) -> f64 {
    -(a.block.len() as f64 - b.block.len() as f64).abs()
}

fn fragment_distance(a: &Chunk, b: &Chunk) -> f64 {
    let pairs = a.fragments.iter().zip(&b.fragments);
    -pairs
        .map(|(a, b)| (number(a) - number(b)).abs())
        .sum::<f64>()
}

const VIEWS: [(&str, View); 7] = [
    ("leading bits of labels", leading_bits_in_common),
    ("bits of labels", bits_in_common),
    ("labels as numbers", label_distance),
    ("bytes of blocks", bytes_in_common),
    ("tokens", tokens_in_common),
    ("lengths", length_distance),
    ("names of fragments", fragment_distance),
];

/// The chance that two chunks of one file look more alike than two chunks of different files, less one half.
fn advantage(chunks: &[Chunk], view: View) -> f64 {
    let mut pairs = Vec::new();
    for (i, a) in chunks.iter().enumerate() {
        for (j, b) in chunks[..i].iter().enumerate() {
            // There are far more pairs of different files: every tenth will do.
            if a.file == b.file || (31 * i + j) % 10 == 0 {
                pairs.push((view(a, b), a.file == b.file));
            }
        }
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut ranks, mut below) = (0.0, 0.0);
    for equal in pairs.chunk_by(|a, b| a.0 == b.0) {
        let same = equal.iter().filter(|(_, same)| *same).count() as f64;
        ranks += same * (below + (equal.len() as f64 + 1.0) / 2.0);
        below += equal.len() as f64;
    }
    let same = pairs.iter().filter(|(_, same)| *same).count() as f64;
    let different = pairs.len() as f64 - same;
    (ranks - same * (same + 1.0) / 2.0) / (same * different) - 0.5
}

/// Files of equal chunks, as uploads make them, but small: nothing that is compared depends on the size.
fn chunks_of_files(files: usize, chunks: usize) -> Vec<Chunk> {
    let rng = &mut ChaCha20Rng::seed_from_u64(30);
    let owner = Owner(PublicKeyHash::of(
        &SecretSigningKey::from_seed(&[1; 32]).public(),
    ));
    let writer = owner.as_writer();
    let mirror = Bat::random(rng).secret_hash_id();
    let parent = ItemKeys::random(rng).as_parent_link();
    let properties = FileProperties::directory(
        FileName::parse("a file like any other").unwrap(),
        Timestamp::from_epoch_seconds(1),
        false,
    );
    let properties = FileProperties {
        is_directory: false,
        size_bytes: (chunks as u64) * (5 << 20),
        ..properties
    };
    let mut all = Vec::new();
    for file in 0..files {
        let (keys, secret) = (ItemKeys::random(rng), StreamSecret::random(rng));
        let mut place = ChunkPlace::first(&keys.capability(owner.clone(), writer.clone()));
        for _ in 0..chunks {
            let chunk = NewChunk {
                keys: &keys,
                stream_secret: &secret,
                place: &place,
                properties: properties.clone(),
                parent: Some(parent.clone()),
                signer: None,
                mirror: Some(&mirror),
            };
            let sealed = chunk.seal(&[7; 5000], rng).unwrap();
            let ids = sealed.node.bats().to_vec();
            let mut tokens: Vec<String> = ids.iter().map(|id| id.cid().to_string()).collect();
            let mut fragments = Vec::new();
            for block in &sealed.fragments {
                let (ids, _) = split_raw(block.bytes()).unwrap();
                tokens.extend(ids.iter().map(|id| id.cid().to_string()));
                fragments.push(block.cid().to_bytes());
            }
            assert!(!fragments.is_empty());
            all.push(Chunk {
                label: *place.map_key.bytes(),
                block: sealed.block().unwrap().bytes().clone(),
                fragments,
                tokens,
                file,
            });
            place = place.next(&secret);
        }
    }
    // No order tells anything either.
    all.sort_by_key(|chunk| chunk.label);
    all
}

/// The row's experiment with enough pairs to see one percent: who has all that is stored, and not the truth, compares chunks
/// in every way and guesses which belong together. What this leaves out the node does see: how large a chunk is, and when the
/// requests for it came (SECURITY.md).
#[test]
fn prv_3_who_compares_what_is_stored_guesses_no_better_than_chance() {
    let chunks = chunks_of_files(30, 30);
    for (name, view) in VIEWS {
        let found = advantage(&chunks, view);
        eprintln!("{name}: {found:+.4}");
        assert!(found.abs() < 0.01, "{name}: {found}");
    }
    // The guesses are good ones: each would see what the format avoids.
    let spoiled = |spoil: fn(&mut Chunk, usize)| {
        let mut chunks = chunks.clone();
        for (i, chunk) in chunks.iter_mut().enumerate() {
            spoil(chunk, i);
        }
        chunks
    };
    let counted = spoiled(|chunk, i| {
        let label = ((chunk.file as u64) << 32) + i as u64;
        chunk.label[..8].copy_from_slice(&label.to_be_bytes());
    });
    assert!(advantage(&counted, label_distance) > 0.4);
    assert!(advantage(&counted, leading_bits_in_common) > 0.4);
    let shared = spoiled(|chunk, _| chunk.tokens.push(chunk.file.to_string()));
    assert!(advantage(&shared, tokens_in_common) > 0.4);
    let padded_not = spoiled(|chunk, _| {
        chunk.block = Bytes::from([&chunk.block[..], &vec![0; chunk.file]].concat());
    });
    assert!(advantage(&padded_not, length_distance) > 0.4);
    let one_nonce = spoiled(|chunk, _| {
        let mut block = chunk.block.to_vec();
        block[100..124].fill(u8::try_from(chunk.file).unwrap());
        chunk.block = block.into();
    });
    assert!(advantage(&one_nonce, bytes_in_common) > 0.4);
}

/// Byte strings of 24 bytes in CBOR.
fn nonces_in(bytes: &[u8]) -> Vec<[u8; 24]> {
    fn collect(value: &champ::cbor::Value, found: &mut Vec<[u8; 24]>) {
        use champ::cbor::Value;
        match value {
            Value::Bytes(bytes) => found.extend(<[u8; 24]>::try_from(&bytes[..]).ok()),
            Value::List(list) => list.iter().for_each(|value| collect(value, found)),
            Value::Map(map) => map.iter().for_each(|(_, value)| collect(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(&champ::cbor::decode(bytes).unwrap(), &mut found);
    found
}

/// The sizes of nodes, which a node of the network sees, do not tell folders from small files.
#[tokio::test]
async fn prv_4_small_folders_and_small_files_are_padded_alike() {
    let (node, session) = alice().await;
    session.make_folder("/alice/d").await.unwrap();
    let size_of = async |path: &str| {
        let link = session.capability_link(path).await.unwrap();
        let capability: AbsoluteCapability = link.parse().unwrap();
        node.collect_garbage();
        let mut sizes = Vec::new();
        for block in stored(&node) {
            if block.cid().codec() == Codec::Raw {
                continue;
            }
            let opens = CryptreeNode::of_block(&block)
                .is_ok_and(|found| found.open(&capability.r_base).is_ok());
            if opens {
                sizes.push(block.bytes().len());
            }
        }
        assert_eq!(sizes.len(), 1, "{path}");
        sizes[0]
    };
    let mut folders = BTreeSet::new();
    let mut files = BTreeSet::new();
    folders.insert(size_of("/alice/d").await);
    for i in 0..5 {
        let path = format!("/alice/d/{i}");
        put(&session, &path, &content(1 + 700 * i, 1))
            .await
            .unwrap();
        files.insert(size_of(&path).await);
        folders.insert(size_of("/alice/d").await);
    }
    // How many children, and how many bytes, does not show; what kind it is shows at most in the second padding step.
    assert_eq!(
        (folders.len(), files.len()),
        (1, 1),
        "{folders:?} {files:?}"
    );
    let difference = folders.first().unwrap().abs_diff(*files.first().unwrap());
    eprintln!("a folder has {folders:?} bytes, a file {files:?}");
    assert!(difference <= 512, "{folders:?} {files:?}");
}

#[derive(Default)]
struct Disk(Mutex<Vec<u8>>);

#[async_trait::async_trait]
impl BlockKeeper for Disk {
    async fn load(&self, _: &Cid) -> Option<Bytes> {
        None
    }

    async fn keep(&self, _: &Cid, bytes: &Bytes) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}

#[tokio::test]
async fn prv_7_what_is_kept_on_disk_holds_neither_keys_nor_names_nor_content() {
    let (node, _) = alice().await;
    let disk = Arc::new(Disk::default());
    let client = Client::new(node.clone(), Arc::new(TestSurroundings::new(5)));
    let client = client.with_keeper(disk.clone());
    let session = client.restore(&prepared().await.1, &KEY).unwrap();
    session.make_folder("/alice/canary-folder").await.unwrap();
    let path = "/alice/canary-folder/canary-file.txt";
    put(&session, path, b"canary-content").await.unwrap();
    get(&session, path).await;
    session.list("/alice", Detail::Full).await.unwrap();
    // With the state that outlives the session.
    let saved = session.save(&KEY);
    let kept = [&disk.0.lock().unwrap()[..], &saved].concat();
    assert!(kept.len() > 10_000);
    let mut secrets: Vec<Vec<u8>> = vec![
        b"canary-folder".to_vec(),
        b"canary-file".to_vec(),
        b"canary-content".to_vec(),
        KEY.to_vec(),
    ];
    for path in ["/alice", "/alice/canary-folder", path] {
        let capability: AbsoluteCapability = session
            .capability_link(path)
            .await
            .unwrap()
            .parse()
            .unwrap();
        secrets.push(capability.r_base.bytes().to_vec());
        secrets.push(capability.w_base.as_ref().unwrap().bytes().to_vec());
    }
    drop(session);
    for secret in &secrets {
        for form in [secret.clone(), BASE64.encode(secret).into_bytes()] {
            let is_there = kept.windows(form.len()).any(|window| window == form);
            assert!(!is_there, "a secret is on disk");
        }
    }
}

#[tokio::test]
async fn prg_003_names_of_built_in_properties_are_names_like_others() {
    const NAMES: [&str; 12] = [
        "constructor",
        "__defineGetter__",
        "__defineSetter__",
        "hasOwnProperty",
        "__lookupGetter__",
        "__lookupSetter__",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "toString",
        "valueOf",
        "__proto__",
        "toLocaleString",
    ];
    let (node, session) = alice().await;
    session.make_folder("/alice/f").await.unwrap();
    for name in NAMES.into_iter().chain(["ordinary"]) {
        put(&session, &format!("/alice/f/{name}"), name.as_bytes())
            .await
            .unwrap();
    }
    let again = machine(&node, 2).await;
    let mut expected: Vec<&str> = NAMES.into_iter().chain(["ordinary"]).collect();
    expected.sort_unstable();
    let mut found = names(&again, "/alice/f").await;
    found.sort();
    assert_eq!(found, expected);
    for name in NAMES {
        let path = format!("/alice/f/{name}");
        assert_eq!(get(&again, &path).await, name.as_bytes());
        again.rename(&path, &format!("{name}.x")).await.unwrap();
        again.delete(&format!("{path}.x")).await.unwrap();
    }
    assert_eq!(names(&session, "/alice/f").await, ["ordinary"]);
}
