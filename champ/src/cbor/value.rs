//! Values of the profile and how they are written (Spec: 01 §1.1, §1.2).

use bytes::Bytes;

use super::Map;
use crate::cid::Cid;

/// One value of the data model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A signed 64-bit integer.
    Int(i64),
    /// A byte string.
    Bytes(Bytes),
    /// A text string.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// A map with text keys.
    Map(Map),
    /// A link (tag 42).
    Link(Cid),
    /// A boolean.
    Bool(bool),
    /// Null.
    Null,
}

impl Value {
    /// Returns the canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Appends the canonical bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(n) => match u64::try_from(*n) {
                Ok(n) => write_head(0, n, out),
                // -1 - n never overflows for a negative n, and is never negative.
                Err(_) => write_head(1, (-1 - *n).unsigned_abs(), out),
            },
            Self::Bytes(bytes) => {
                write_head(2, bytes.len() as u64, out);
                out.extend_from_slice(bytes);
            }
            Self::Text(text) => write_text(text, out),
            Self::List(items) => {
                write_head(4, items.len() as u64, out);
                for item in items {
                    item.write(out);
                }
            }
            Self::Map(map) => {
                write_head(5, map.len() as u64, out);
                for (key, value) in map.iter() {
                    write_text(key, out);
                    value.write(out);
                }
            }
            Self::Link(cid) => Self::write_link(cid, out),
            Self::Bool(false) => out.push(0xf4),
            Self::Bool(true) => out.push(0xf5),
            Self::Null => out.push(0xf6),
        }
    }

    /// Appends the canonical bytes of a link to `cid`.
    pub fn write_link(cid: &Cid, out: &mut Vec<u8>) {
        write_head(6, 42, out);
        write_head(2, cid.encoded_len() as u64 + 1, out);
        out.push(0);
        cid.write(out);
    }

    /// Appends every link, depth first, maps in key order (Spec: 01 §1.8).
    pub fn links_into(&self, out: &mut Vec<Cid>) {
        match self {
            Self::Link(cid) => out.push(cid.clone()),
            Self::List(items) => items.iter().for_each(|item| item.links_into(out)),
            Self::Map(map) => map.iter().for_each(|(_, value)| value.links_into(out)),
            _ => {}
        }
    }

    /// Returns every link, depth first, maps in key order.
    pub fn links(&self) -> Vec<Cid> {
        let mut out = Vec::new();
        self.links_into(&mut out);
        out
    }

    /// Names the kind, for error texts.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Int(_) => "integer",
            Self::Bytes(_) => "bytes",
            Self::Text(_) => "text",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Link(_) => "link",
            Self::Bool(_) => "boolean",
            Self::Null => "null",
        }
    }
}

/// Appends a head of a byte string of `length` bytes, for writers that append the content themselves.
pub fn write_bytes_head(length: usize, out: &mut Vec<u8>) {
    write_head(2, length as u64, out);
}

/// Appends a head of a list of `count` elements.
pub fn write_list_head(count: usize, out: &mut Vec<u8>) {
    write_head(4, count as u64, out);
}

/// Appends a head of a map of `count` entries; keys must follow in order.
pub fn write_map_head(count: usize, out: &mut Vec<u8>) {
    write_head(5, count as u64, out);
}

/// Appends a text string.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    write_head(3, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Appends the shortest head of `major` with `argument`.
fn write_head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    if let Ok(small) = u8::try_from(argument) {
        if small < 24 {
            out.push(major | small);
        } else {
            out.extend_from_slice(&[major | 24, small]);
        }
    } else if let Ok(n) = u16::try_from(argument) {
        out.push(major | 25);
        out.extend_from_slice(&n.to_be_bytes());
    } else if let Ok(n) = u32::try_from(argument) {
        out.push(major | 26);
        out.extend_from_slice(&n.to_be_bytes());
    } else {
        out.push(major | 27);
        out.extend_from_slice(&argument.to_be_bytes());
    }
}

macro_rules! from {
    ($($source:ty => |$v:ident| $make:expr;)*) => {$(
        impl From<$source> for Value {
            fn from($v: $source) -> Self { $make }
        }
    )*};
}

from! {
    i64 => |v| Self::Int(v);
    i32 => |v| Self::Int(v.into());
    u32 => |v| Self::Int(v.into());
    u8 => |v| Self::Int(v.into());
    bool => |v| Self::Bool(v);
    Bytes => |v| Self::Bytes(v);
    Vec<u8> => |v| Self::Bytes(v.into());
    &[u8] => |v| Self::Bytes(Bytes::copy_from_slice(v));
    &[u8; 32] => |v| Self::Bytes(Bytes::copy_from_slice(v));
    &[u8; 24] => |v| Self::Bytes(Bytes::copy_from_slice(v));
    &[u8; 64] => |v| Self::Bytes(Bytes::copy_from_slice(v));
    String => |v| Self::Text(v);
    &str => |v| Self::Text(v.to_owned());
    Vec<Self> => |v| Self::List(v);
    Map => |v| Self::Map(v);
    Cid => |v| Self::Link(v);
    &Cid => |v| Self::Link(v.clone());
}
