//! What the node and a thief of the disk can learn (Spec: 40 §3), and names that are ordinary here.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use champ::{Block, Cid, Codec, access::split_raw};
use cryptree::{
    Client,
    capability::AbsoluteCapability,
    client::{BlockKeeper, Detail},
    node::CryptreeNode,
};
use data_encoding::BASE64;

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
    let large = vec![7; 15 << 20];
    put(&session, "/alice/large", &large).await.unwrap();
    for i in 0..3 {
        put(&session, &format!("/alice/{i}"), &large[..5 << 20])
            .await
            .unwrap();
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
    assert!(nodes >= 6 && fragments >= 30, "{nodes} {fragments}");
    let shared = tokens.values().filter(|count| **count > 1).count();
    assert_eq!(shared, 1, "only the mirror token is in common");
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
