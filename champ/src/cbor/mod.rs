//! The CBOR profile (Spec: 01 §1).
//!
//! A strict subset of RFC 8949: signed 64-bit integers, bytes, text, lists, maps with text keys, links
//! (tag 42), booleans and null. Writing is always canonical; reading has the three modes of §1.5.

mod decode;
mod map;
mod reader;
mod record;
mod scan;
mod value;

pub use decode::{
    DecodeError, MAX_DEPTH, Malformed, decode, decode_canonical, decode_prefix, decode_shared,
};
pub use map::{Map, compare_keys};
pub use record::{Fields, Record, RecordError};
pub(crate) use scan::bat_ids_prefix;
pub use scan::{Scan, scan_block, scan_block_lenient};
pub use value::{Value, write_bytes_head, write_list_head, write_map_head, write_text};
