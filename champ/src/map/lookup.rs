//! All blocks that a lookup reads, for the server's answer (Spec: 03 §9).

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::{
    ChampError, KeyHash, MAX_DEPTH,
    node::{ChampNode, Slot},
    tree::{decode_node, read_block},
};
use crate::{
    access::BatWithId,
    block::{Block, BlockSource},
    cbor::Value,
    cid::Cid,
};

/// Keys of one lookup (Spec: 03 §9).
pub const MAX_LOOKUP_KEYS: usize = 20;
/// Bytes of blocks that one lookup returns; blocks beyond it are left out, and the client reads them singly.
pub const MAX_LOOKUP_BYTES: usize = 32 << 20;

/// One key to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupKey {
    /// The key; its position is the key itself.
    pub key: Bytes,
    /// Opens the block that the key's value links to.
    pub value_token: Option<BatWithId>,
}

/// Why a whole lookup is refused.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// More than [`MAX_LOOKUP_KEYS`] keys.
    #[error("{actual} keys in one lookup, at most {MAX_LOOKUP_KEYS}")]
    TooManyKeys {
        /// Number of keys.
        actual: usize,
    },
    /// The root block is not here.
    #[error("Champ root not present locally: {0}")]
    RootMissing(Cid),
    /// A block that may not be read, or a malformed node.
    #[error("lookup failed")]
    Champ(#[from] ChampError),
}

/// Returns the distinct blocks that looking up `keys` reads: the root, every node visited, and the blocks
/// that the values link to.
///
/// `source` enforces block access: nodes are read without a token, values with the key's own. A node or
/// value that is not there ends the walk of its key. Reads at most [`MAX_LOOKUP_KEYS`] times
/// [`MAX_DEPTH`] nodes and as many values as there are keys.
///
/// # Errors
/// [`LookupError`]; a value that may not be read and a malformed node refuse the whole call. The root is
/// read before any key is looked at.
pub async fn lookup_blocks(
    root: &Cid,
    keys: &[LookupKey],
    source: &dyn BlockSource,
) -> Result<Vec<Block>, LookupError> {
    if keys.len() > MAX_LOOKUP_KEYS {
        return Err(LookupError::TooManyKeys { actual: keys.len() });
    }
    let mut reply = Reply::default();
    let mut nodes: HashMap<Cid, Option<ChampNode>> = HashMap::new();
    if read_node(root, source, &mut nodes, &mut reply)
        .await?
        .is_none()
    {
        return Err(LookupError::RootMissing(root.clone()));
    }
    for LookupKey { key, value_token } in keys {
        let path = KeyHash::Identity.path(key);
        let mut at = root.clone();
        for depth in 0..MAX_DEPTH {
            let Some(node) = read_node(&at, source, &mut nodes, &mut reply).await? else {
                break;
            };
            match node.slots.get(path.slot(depth)) {
                Some(Slot::Child(child)) => {
                    let cid = child.cid().ok_or(ChampError::Unfinished)?.clone();
                    if depth + 1 == MAX_DEPTH {
                        return Err(ChampError::TooDeep(cid).into());
                    }
                    at = cid;
                }
                Some(Slot::Bucket(bucket)) => {
                    let found = bucket.iter().find(|mapping| mapping.key == *key);
                    if let Some(Value::Link(value)) = found.map(|mapping| &mapping.value)
                        && let Some(block) = read_block(value, value_token.as_ref(), source).await?
                    {
                        reply.add(block);
                    }
                    break;
                }
                _ => break,
            }
        }
    }
    Ok(reply.blocks)
}

#[derive(Default)]
struct Reply {
    blocks: Vec<Block>,
    known: HashSet<Cid>,
    bytes: usize,
}

impl Reply {
    fn add(&mut self, block: Block) {
        // What an identity CID holds needs no block.
        if block.cid().identity_content().is_some() || self.known.contains(block.cid()) {
            return;
        }
        let total = self.bytes.saturating_add(block.bytes().len());
        if total <= MAX_LOOKUP_BYTES {
            self.bytes = total;
            self.known.insert(block.cid().clone());
            self.blocks.push(block);
        }
    }
}

async fn read_node<'a>(
    cid: &Cid,
    source: &dyn BlockSource,
    nodes: &'a mut HashMap<Cid, Option<ChampNode>>,
    reply: &mut Reply,
) -> Result<Option<&'a ChampNode>, ChampError> {
    if !nodes.contains_key(cid) {
        let node = match read_block(cid, None, source).await? {
            Some(block) => {
                let node = decode_node(&block)?;
                reply.add(block);
                Some(node)
            }
            None => None,
        };
        nodes.insert(cid.clone(), node);
    }
    Ok(nodes.get(cid).and_then(Option::as_ref))
}
