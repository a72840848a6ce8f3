//! The reply of block uploads: one JSON object per block, without separator (Spec: 06 §4.2).

use bytes::Bytes;
use champ::Cid;

use super::{Body, WireError, block_group::MAX_GROUP_BLOCKS};

/// Longest reply: 10 000 objects with generous spacing.
pub const MAX_REPLY_BYTES: usize = 4 << 20;

/// The CIDs of stored blocks, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutReply(pub Vec<Cid>);

impl Body for PutReply {
    const MAX_BYTES: usize = MAX_REPLY_BYTES;

    fn to_body(&self) -> Vec<u8> {
        let mut out = String::new();
        for cid in &self.0 {
            out.push_str("{\"Hash\":\"");
            out.push_str(&cid.to_string());
            out.push_str("\"}");
        }
        out.into_bytes()
    }

    /// Accepts white space between objects, and `{"Key":"cid"}` or `{"Key":{"/":"cid"}}` for an object.
    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        if body.len() > Self::MAX_BYTES {
            return Err(WireError::TooLarge {
                max: Self::MAX_BYTES,
            });
        }
        let malformed = || WireError::Text("upload reply");
        let mut cids = Vec::new();
        for object in serde_json::Deserializer::from_slice(body).into_iter::<serde_json::Value>() {
            let object = object.map_err(|_| malformed())?;
            if cids.len() == MAX_GROUP_BLOCKS {
                return Err(WireError::TooMany {
                    what: "blocks",
                    actual: cids.len() + 1,
                    max: MAX_GROUP_BLOCKS,
                });
            }
            let name = object.get("Hash").or_else(|| object.get("Key"));
            let text = name
                .map(|name| name.get("/").unwrap_or(name))
                .and_then(|name| name.as_str())
                .ok_or_else(malformed)?;
            cids.push(text.parse().map_err(|_| malformed())?);
        }
        Ok(Self(cids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: String) -> Result<PutReply, WireError> {
        PutReply::from_body(&text.into())
    }

    #[test]
    fn objects_stand_without_separator() {
        let (a, b) = (Cid::of_raw(b"a"), Cid::of_cbor(b"b"));
        let reply = PutReply(vec![a.clone(), b.clone()]);
        let sent = String::from_utf8(reply.to_body()).unwrap();
        assert_eq!(sent, format!("{{\"Hash\":\"{a}\"}}{{\"Hash\":\"{b}\"}}"));
        assert_eq!(read(sent), Ok(reply));
        assert_eq!(read(String::new()), Ok(PutReply::default()));
    }

    #[test]
    fn older_forms_are_read() {
        let cid = Cid::of_raw(b"a");
        let text = format!(
            "\n {{ \"Key\" : \"{cid}\" }}\r\n{{\"Key\":{{\"/\":\"{cid}\"}}}} {{\"Size\":1,\"Hash\":\"{cid}\"}}\n"
        );
        assert_eq!(read(text), Ok(PutReply(vec![cid; 3])));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "{}",
            "[]",
            "\"x\"",
            "{\"Hash\":1}",
            "{\"Hash\":\"x\"}",
            "{\"Hash\":",
            "1",
            "x",
            "{\"Key\":{\"a\":\"b\"}}",
        ] {
            assert_eq!(
                read(text.to_owned()),
                Err(WireError::Text("upload reply")),
                "{text}"
            );
        }
        assert!(matches!(
            read(" ".repeat(MAX_REPLY_BYTES + 1)),
            Err(WireError::TooLarge { .. })
        ));
        let cid = Cid::of_raw(b"a");
        let many = PutReply(vec![cid; MAX_GROUP_BLOCKS + 1]).to_body();
        assert!(matches!(
            PutReply::from_body(&many.into()),
            Err(WireError::TooMany { .. })
        ));
    }
}
