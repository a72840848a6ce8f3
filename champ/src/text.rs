//! Text forms of bytes: base58btc, hex, base32, multibase (Spec: 01 §3.2, §6).

use data_encoding::{
    BASE32_NOPAD, BASE32HEX_NOPAD, BASE64, BASE64_NOPAD, Encoding, HEXLOWER, HEXLOWER_PERMISSIVE,
};

/// Text that is not a legal encoding of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A character outside the alphabet, or a length the base cannot have.
    #[error("not valid {base} text")]
    Malformed {
        /// The base that was expected.
        base: &'static str,
    },
    /// The first character names no base that is in use.
    #[error("unknown multibase prefix")]
    UnknownBase,
    /// Shorter than the shortest legal text.
    #[error("text too short")]
    TooShort,
    /// Base58 or base36 above [`MAX_RADIX_CHARS`].
    #[error("text of {actual} characters is longer than {MAX_RADIX_CHARS}")]
    TooLong {
        /// Length in bytes.
        actual: usize,
    },
}

/// Longest text in a base that is no power of two, in characters.
///
/// Decoding takes time that grows with the square of the length: 2.5 ms at this limit. The longest text in use is the CID of old
/// inlined cipher text, 5,632 characters (Spec: 01 §2.2).
pub const MAX_RADIX_CHARS: usize = 8192;

/// Returns lower-case hex.
pub fn to_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Decodes hex of either case; odd lengths and other characters are refused.
pub fn from_hex(text: &str) -> Result<Vec<u8>, TextError> {
    strict(&HEXLOWER_PERMISSIVE, text, "hex")
}

/// Returns plain base58btc (no multibase prefix); leading zero bytes become `1`s.
pub fn to_base58(bytes: &[u8]) -> String {
    bs58::encode(bytes).into_string()
}

/// Decodes plain base58btc.
///
/// # Errors
/// [`TextError::Malformed`], [`TextError::TooLong`].
pub fn from_base58(text: &str) -> Result<Vec<u8>, TextError> {
    from_radix(text, &BASE58)
}

/// Returns multibase base58btc: `z` and base58.
pub fn to_multibase(bytes: &[u8]) -> String {
    let mut text = String::from("z");
    text.push_str(&to_base58(bytes));
    text
}

/// Decodes multibase text in any base that readers must accept (Spec: 01 §3.2).
///
/// # Errors
/// [`TextError::TooShort`] for less than one character, [`TextError::UnknownBase`] for a prefix outside
/// `z f b B v V k m M`, [`TextError::Malformed`] for characters outside the alphabet.
pub fn from_multibase(text: &str) -> Result<Vec<u8>, TextError> {
    let mut rest = text.chars();
    let prefix = rest.next().ok_or(TextError::TooShort)?;
    let rest = rest.as_str();
    match prefix {
        'z' => from_base58(rest),
        'f' => from_hex(rest),
        'b' => strict(&BASE32_NOPAD, &upper_case(rest, "base32")?, "base32"),
        'B' => strict(&BASE32_NOPAD, rest, "base32"),
        'v' => strict(
            &BASE32HEX_NOPAD,
            &upper_case(rest, "base32hex")?,
            "base32hex",
        ),
        'V' => strict(&BASE32HEX_NOPAD, rest, "base32hex"),
        'k' => from_radix(rest, &BASE36),
        'm' => strict(&BASE64_NOPAD, rest, "base64"),
        'M' => strict(&BASE64, rest, "base64"),
        _ => Err(TextError::UnknownBase),
    }
}

fn strict(encoding: &Encoding, text: &str, base: &'static str) -> Result<Vec<u8>, TextError> {
    encoding
        .decode(text.as_bytes())
        .map_err(|_| TextError::Malformed { base })
}

/// Maps a lower-case alphabet to the upper-case one; upper case does not belong to it.
fn upper_case(text: &str, base: &'static str) -> Result<String, TextError> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(TextError::Malformed { base });
    }
    Ok(text.to_ascii_uppercase())
}

/// Decodes a big endian number; leading zero digits stand for leading zero bytes.
fn from_radix(text: &str, radix: &Radix) -> Result<Vec<u8>, TextError> {
    if text.len() > MAX_RADIX_CHARS {
        return Err(TextError::TooLong { actual: text.len() });
    }
    // 32 bits in each, least significant first.
    let mut number: Vec<u64> = Vec::with_capacity(text.len() / radix.digits_at_once + 1);
    for digits in text.as_bytes().chunks(radix.digits_at_once) {
        let (mut factor, mut carry) = (1, 0);
        for digit in digits {
            let digit = (radix.digit)(*digit).ok_or(TextError::Malformed { base: radix.name })?;
            factor *= radix.base;
            carry = carry * radix.base + u64::from(digit);
        }
        for place in &mut number {
            // Below 2^32 * 2^32: neither the product nor the sum overflows.
            let sum = *place * factor + carry;
            *place = sum & 0xffff_ffff;
            carry = sum >> 32;
        }
        if carry > 0 {
            number.push(carry);
        }
    }
    let mut bytes: Vec<u8> = text
        .chars()
        .map_while(|c| (c == radix.zero).then_some(0))
        .collect();
    let digits = number.iter().rev().flat_map(|place| {
        let [.., a, b, c, d] = place.to_be_bytes();
        [a, b, c, d]
    });
    bytes.extend(digits.skip_while(|byte| *byte == 0));
    Ok(bytes)
}

/// A base that is no power of two.
struct Radix {
    name: &'static str,
    base: u64,
    zero: char,
    /// As many as have a value below 2^32.
    digits_at_once: usize,
    digit: fn(u8) -> Option<u8>,
}

const BASE58: Radix = Radix {
    name: "base58",
    base: 58,
    zero: '1',
    digits_at_once: 5,
    digit: |byte| match byte {
        b'1'..=b'9' => Some(byte - b'1'),
        b'A'..=b'H' => Some(byte - b'A' + 9),
        b'J'..=b'N' => Some(byte - b'J' + 17),
        b'P'..=b'Z' => Some(byte - b'P' + 22),
        b'a'..=b'k' => Some(byte - b'a' + 33),
        b'm'..=b'z' => Some(byte - b'm' + 44),
        _ => None,
    },
};

const BASE36: Radix = Radix {
    name: "base36",
    base: 36,
    zero: '0',
    digits_at_once: 6,
    digit: |byte| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'z' => Some(byte - b'a' + 10),
        _ => None,
    },
};

/// Returns RFC 4648 base32, upper case, without padding: block file names (Spec: 01 §4).
pub fn to_base32_upper(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes)
}

/// Decodes what [`to_base32_upper`] writes.
pub fn from_base32_upper(text: &str) -> Result<Vec<u8>, TextError> {
    strict(&BASE32_NOPAD, text, "base32")
}
