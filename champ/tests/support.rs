//! Loading golden vectors and running the asynchronous API over memory.

use std::{collections::BTreeMap, path::Path};

use champ::{Block, Cid, MemoryBlocks, cbor::Value, map::Champ};
use futures_util::FutureExt;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

/// Runs a future that never waits: everything is in memory.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory sources never wait")
}

/// Returns the cases of a vector file.
pub fn cases(file: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(file);
    let json: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = json["cases"].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

/// Runs `check` on every case; it must know every kind. Failures name the case.
pub fn each_case(file: &str, mut check: impl FnMut(&str, &Json)) {
    for (i, case) in cases(file).iter().enumerate() {
        let kind = text(case, "kind");
        let name = case["name"].as_str().unwrap_or_default();
        let run = std::panic::AssertUnwindSafe(|| check(kind, case));
        if let Err(cause) = std::panic::catch_unwind(run) {
            eprintln!("{file} case {i} ({kind}) {name:?} failed");
            std::panic::resume_unwind(cause);
        }
    }
}

pub fn text<'a>(case: &'a Json, field: &str) -> &'a str {
    case[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} is no text in {case}"))
}

pub fn hex(case: &Json, field: &str) -> Vec<u8> {
    unhex(text(case, field))
}

pub fn unhex(text: &str) -> Vec<u8> {
    champ::text::from_hex(text).unwrap()
}

pub fn cid(text: &str) -> Cid {
    text.parse().unwrap()
}

pub fn link(cid_hex: &str) -> Value {
    Value::Link(Cid::decode(&unhex(cid_hex)).unwrap())
}

pub fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// A link whose digest is the hash of a sentence: how the vectors make values.
pub fn link_of(text: &str) -> Value {
    Value::Link(Cid::v1(
        champ::Codec::DagCbor,
        champ::Multihash::from_sha2_256(sha256(text)),
    ))
}

/// Writes the changes of a tree and returns its root.
pub fn write(champ: &mut Champ, stored: &mut MemoryBlocks) -> Cid {
    let (root, blocks) = champ.finish().unwrap();
    stored.extend(blocks);
    root
}

/// Returns all nodes reachable from a root.
pub fn reachable(root: &Cid, stored: &MemoryBlocks) -> BTreeMap<String, Block> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.clone()];
    while let Some(cid) = left.pop() {
        let block = stored.get(&cid).expect("reachable node is stored").clone();
        left.extend(child_links(block.bytes()));
        found.insert(cid.to_string(), block);
    }
    found
}

/// Returns the child links of a node, found without the map's own parser.
pub fn child_links(node: &[u8]) -> Vec<Cid> {
    let value = match champ::cbor::decode(node).unwrap() {
        Value::Map(mut map) => map.remove("d").unwrap(),
        list => list,
    };
    let Value::List(elements) = value else {
        panic!("not a node");
    };
    let Some(Value::List(contents)) = elements.get(2) else {
        panic!("no contents");
    };
    contents
        .iter()
        .filter_map(|content| match content {
            Value::Link(cid) => Some(cid.clone()),
            _ => None,
        })
        .collect()
}

/// Replaces the value of a key in a one-node tree by null, as the official merge leaves it.
pub fn with_null(root: &Cid, key: &[u8], stored: &mut MemoryBlocks) -> Cid {
    fn nullify(value: &mut Value, key: &[u8]) {
        if let Value::List(items) = value {
            for i in 0..items.len() {
                if matches!(&items[i], Value::Bytes(found) if found == key) {
                    items[i + 1] = Value::Null;
                }
                nullify(&mut items[i], key);
            }
        }
    }
    let mut node = champ::cbor::decode(stored.get(root).unwrap().bytes()).unwrap();
    nullify(&mut node, key);
    let block = Block::cbor(node.encode()).unwrap();
    let cid = block.cid().clone();
    stored.insert(block);
    cid
}

/// A source that remembers what was asked of it and can be told to misbehave.
#[derive(Default)]
pub struct Watched {
    pub blocks: MemoryBlocks,
    pub asked: std::sync::Mutex<Vec<Cid>>,
    /// Blocks that are readable with this token only.
    pub protected: BTreeMap<Cid, champ::access::BatWithId>,
    /// Answered instead of the block asked for.
    pub swapped: Option<Block>,
}

impl Watched {
    pub fn over(blocks: &MemoryBlocks) -> Self {
        Self {
            blocks: blocks.clone(),
            ..Self::default()
        }
    }

    /// Returns the blocks asked for since the last call.
    pub fn take_asked(&self) -> Vec<Cid> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[async_trait::async_trait]
impl champ::BlockSource for Watched {
    async fn block(
        &self,
        cid: &Cid,
        token: Option<&champ::access::BatWithId>,
    ) -> Result<Option<Block>, champ::SourceError> {
        self.asked.lock().unwrap().push(cid.clone());
        if self
            .protected
            .get(cid)
            .is_some_and(|needed| Some(needed) != token)
        {
            return Err(champ::SourceError::Rejected {
                cid: cid.clone(),
                reason: "not authorised".to_owned(),
            });
        }
        Ok(self
            .swapped
            .clone()
            .or_else(|| self.blocks.get(cid).cloned()))
    }
}
