//! The error channel: messages in the `Trailer` response header (Spec: 05 §7.1, §7.3).
//!
//! The encoding is exact, since browser code compares the encoded text; and since everything outside
//! letters, digits and `-_.*` is escaped, no message can break out of its header.

use super::query::{hex_pair, push_percent};

/// Longest message that is sent or read, in bytes before encoding.
pub const MAX_MESSAGE_BYTES: usize = 4096;

/// Encodes a message as the header's value; what exceeds [`MAX_MESSAGE_BYTES`] is cut off.
pub fn encode_trailer(message: &str) -> String {
    let mut out = String::with_capacity(message.len() + 16);
    for byte in cut(message).bytes() {
        match byte {
            b' ' => out.push('+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => {
                out.push(char::from(byte));
            }
            other => push_percent(other, &mut out),
        }
    }
    out
}

/// Decodes the header's value; malformed escapes stay as they are, bytes that are not UTF-8 are replaced.
///
/// Total: a client that cannot read an error must still report one.
pub fn decode_trailer(header: &str) -> String {
    let mut out = Vec::with_capacity(header.len());
    let mut rest = header.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if out.len() >= MAX_MESSAGE_BYTES {
            break;
        }
        rest = after;
        let escaped = match byte {
            b'%' => after
                .split_first_chunk::<2>()
                .and_then(|(pair, after)| hex_pair(*pair).map(|byte| (byte, after))),
            _ => None,
        };
        match escaped {
            Some((byte, after)) => {
                out.push(byte);
                rest = after;
            }
            None => out.push(if byte == b'+' { b' ' } else { byte }),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn cut(message: &str) -> &str {
    let end = (0..=MAX_MESSAGE_BYTES.min(message.len()))
        .rev()
        .find(|end| message.is_char_boundary(*end))
        .unwrap_or(0);
    message.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_encoding_is_exact() {
        assert_eq!(
            encode_trailer("Storage quota reached! \nUsed 1"),
            "Storage+quota+reached%21+%0AUsed+1"
        );
        assert_eq!(encode_trailer("a-b_c.d*~+%ü"), "a-b_c.d*%7E%2B%25%C3%BC");
    }

    #[test]
    fn nothing_escapes_into_the_header() {
        assert_eq!(encode_trailer("\r\n\0: x"), "%0D%0A%00%3A+x");
    }

    #[test]
    fn malformed_headers_still_give_a_message() {
        assert_eq!(decode_trailer("a%zz%4"), "a%zz%4");
        assert_eq!(decode_trailer("%FF"), "\u{fffd}");
        assert_eq!(decode_trailer("%"), "%");
    }

    #[test]
    fn messages_are_bounded() {
        let long = "é".repeat(MAX_MESSAGE_BYTES);
        assert_eq!(
            decode_trailer(&encode_trailer(&long)).len(),
            MAX_MESSAGE_BYTES
        );
        assert_eq!(
            decode_trailer(&"x".repeat(1 << 20)).len(),
            MAX_MESSAGE_BYTES
        );
    }

    proptest! {
        #[test]
        fn messages_round_trip(message in "\\PC{0,80}") {
            let header = encode_trailer(&message);
            prop_assert!(header.bytes().all(|b| b.is_ascii_graphic()));
            prop_assert_eq!(decode_trailer(&header), message);
        }
    }
}
