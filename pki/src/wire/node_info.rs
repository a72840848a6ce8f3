//! Small JSON replies about a node (Spec: 06 §3, §5.2).

use bytes::Bytes;
use champ::{Cid, text};
use serde_json::Value as Json;

use super::{Body, WireError};

/// Longest reply of any call here.
pub const MAX_NODE_INFO_BYTES: usize = 256 << 10;
/// Most identities of one node that are read.
pub const MAX_IDENTITIES: usize = 1024;

fn json(body: &Bytes) -> Result<Json, WireError> {
    if body.len() > MAX_NODE_INFO_BYTES {
        return Err(WireError::TooLarge {
            max: MAX_NODE_INFO_BYTES,
        });
    }
    serde_json::from_slice(body).map_err(|_| WireError::Text("json"))
}

fn peer_id(value: &Json) -> Option<Cid> {
    Cid::parse_peer_id(value.as_str()?).ok()
}

/// The reply of `id`: the node's current server id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeId(pub Cid);

impl Body for NodeId {
    const MAX_BYTES: usize = MAX_NODE_INFO_BYTES;

    fn to_body(&self) -> Vec<u8> {
        format!("{{\"ID\":\"{}\"}}", self.0).into_bytes()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        json(body)?
            .get("ID")
            .and_then(peer_id)
            .map(Self)
            .ok_or(WireError::Text("server id"))
    }
}

/// The reply of `ids`: all identities, oldest first, current last; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIds(Vec<Cid>);

impl NodeIds {
    /// Collects identities; none when there are none.
    pub fn new(ids: Vec<Cid>) -> Option<Self> {
        (!ids.is_empty()).then_some(Self(ids))
    }

    /// Returns the identities, current last.
    pub fn as_slice(&self) -> &[Cid] {
        &self.0
    }
}

impl Body for NodeIds {
    const MAX_BYTES: usize = MAX_NODE_INFO_BYTES;

    fn to_body(&self) -> Vec<u8> {
        let ids: Vec<_> = self.0.iter().map(|id| format!("\"{id}\"")).collect();
        format!("{{\"IDS\":[{}]}}", ids.join(",")).into_bytes()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        let malformed = || WireError::Text("server ids");
        let json = json(body)?;
        let ids = json
            .get("IDS")
            .and_then(Json::as_array)
            .filter(|ids| ids.len() <= MAX_IDENTITIES)
            .ok_or_else(malformed)?;
        let ids: Option<Vec<_>> = ids.iter().map(peer_id).collect();
        ids.and_then(Self::new).ok_or_else(malformed)
    }
}

/// The reply of `block/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockStat {
    /// Size in bytes; 0 for an absent block.
    pub size_bytes: u64,
}

impl Body for BlockStat {
    const MAX_BYTES: usize = MAX_NODE_INFO_BYTES;

    fn to_body(&self) -> Vec<u8> {
        format!("{{\"Size\":{}}}", self.size_bytes).into_bytes()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        json(body)?
            .get("Size")
            .and_then(Json::as_u64)
            .map(|size_bytes| Self { size_bytes })
            .ok_or(WireError::Text("block size"))
    }
}

/// The reply of `ipns/get`: a signed identity record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRecord {
    /// Signature.
    pub signature: Vec<u8>,
    /// What is signed.
    pub data: Vec<u8>,
}

impl Body for IdentityRecord {
    const MAX_BYTES: usize = MAX_NODE_INFO_BYTES;

    fn to_body(&self) -> Vec<u8> {
        let (sig, data) = (text::to_hex(&self.signature), text::to_hex(&self.data));
        format!("{{\"sig\":\"{sig}\",\"data\":\"{data}\"}}").into_bytes()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        let json = json(body)?;
        let hex = |field: &str| {
            json.get(field)
                .and_then(Json::as_str)
                .and_then(|hex| text::from_hex(hex).ok())
                .ok_or(WireError::Text("identity record"))
        };
        Ok(Self {
            signature: hex("sig")?,
            data: hex("data")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn server_ids_are_read_in_every_form() {
        let bare = "12D3KooWQbb6k91VYokt5K45RdSVM4oyN3QhkCNwwfqy1L3DWbsz";
        let cid = "z5AanNVJCxnVccBcsVCbpTH4qyQTJtdiNYAkwzEth4LJFf3F9c4uJ5a";
        let rsa = "QmVdFZgHnEgcedCS2G2ZNiEN59LuVrnRm7z3yXtEBv2XiF";
        let read = |id| NodeId::from_body(&body(&format!("{{\"ID\": \"{id}\"}}"))).unwrap();
        assert_eq!(read(bare), read(cid));
        assert_eq!(read(rsa).0.to_string(), rsa);
        let ids =
            NodeIds::from_body(&body(&format!("{{\"IDS\":[\"{rsa}\",\"{bare}\"]}}"))).unwrap();
        assert_eq!(
            ids.to_body(),
            format!("{{\"IDS\":[\"{rsa}\",\"{cid}\"]}}").into_bytes()
        );
    }

    #[test]
    fn other_json_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "{\"ID\":1}",
            "{\"ID\":\"x\"}",
            "{\"IDS\":[]}",
            "{\"IDS\":[1]}",
        ] {
            assert!(NodeId::from_body(&body(text)).is_err(), "{text}");
            assert!(NodeIds::from_body(&body(text)).is_err(), "{text}");
            assert!(BlockStat::from_body(&body(text)).is_err(), "{text}");
            assert!(IdentityRecord::from_body(&body(text)).is_err(), "{text}");
        }
        assert!(BlockStat::from_body(&body("{\"Size\":-1}")).is_err());
        assert!(IdentityRecord::from_body(&body("{\"sig\":\"0\",\"data\":\"\"}")).is_err());
        let long = " ".repeat(MAX_NODE_INFO_BYTES + 1);
        assert!(NodeId::from_body(&body(&long)).is_err());
    }

    #[test]
    fn stat_and_record_round_trip() {
        let stat = BlockStat { size_bytes: 42 };
        assert_eq!(stat.to_body(), b"{\"Size\":42}");
        assert_eq!(BlockStat::from_body(&stat.to_body().into()), Ok(stat));
        let record = IdentityRecord {
            signature: vec![1],
            data: vec![0xab],
        };
        assert_eq!(record.to_body(), b"{\"sig\":\"01\",\"data\":\"ab\"}");
        assert_eq!(
            IdentityRecord::from_body(&record.to_body().into()),
            Ok(record)
        );
    }
}
