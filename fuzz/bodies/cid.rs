//! Whatever the bytes or text: no panic, and what is read is written the same.

use champ::{
    Cid,
    cid::{read_varint, write_varint},
    text::{from_base58, from_multibase, to_base58},
};

pub fn run(data: &[u8]) {
    if let Ok(cid) = Cid::decode(data) {
        assert_eq!(cid.to_bytes(), data);
        assert_eq!(cid.encoded_len(), data.len());
        assert_eq!(cid.to_string().parse(), Ok(cid));
    }
    if let Ok((value, rest)) = read_varint(data) {
        let mut bytes = Vec::new();
        write_varint(value, &mut bytes);
        bytes.extend(rest);
        assert_eq!(bytes, data);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(cid) = text.parse::<Cid>() {
            assert_eq!(cid.to_string().parse(), Ok(cid));
        }
        let _ = Cid::parse_peer_id(text);
        let _ = from_multibase(text);
        if let Ok(bytes) = from_base58(text) {
            assert_eq!(to_base58(&bytes), text);
        }
    }
}
