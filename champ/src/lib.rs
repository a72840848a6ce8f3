//! Bytes and hashes: everything that is addressed by what it contains.
//!
//! This crate fixes the exact bytes of the network: the CBOR profile, CIDs, blocks and their access
//! tokens, the older data stream framing, and the CHAMP merkle map. It performs no I/O: whoever holds
//! blocks implements [`BlockSource`], and every block is checked against its CID before it is parsed.
//!
//! ```
//! use champ::{Block, cbor::{Map, Value}};
//!
//! let mut record = Map::new();
//! record.insert("name", Value::from("kastro"));
//! let block = Block::cbor(Value::Map(record).encode())?;
//! assert!(block.cid().to_string().starts_with("zdpu"));
//! assert!(Block::verified(block.cid().clone(), b"something else".to_vec()).is_err());
//! # Ok::<(), champ::BlockError>(())
//! ```
//!
//! Spec: 01 and 03.

pub mod access;
pub mod block;
pub mod cbor;
pub mod cid;
pub mod data_stream;
pub mod map;
pub mod text;

pub use block::{
    Block, BlockError, BlockSource, MAX_BLOCK_BYTES, MemoryBlocks, Overlay, SourceError,
};
pub use cid::{Cid, CidError, Codec, Multihash};
