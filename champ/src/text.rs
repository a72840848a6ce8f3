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
/// Decoding takes time that grows with the square of the length. The longest text in use is the CID of old
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
    limit_radix(text)?;
    bs58::decode(text)
        .into_vec()
        .map_err(|_| TextError::Malformed { base: "base58" })
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
        'k' => from_base36(rest),
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

/// Decodes base36: a big endian number in digits and lower-case letters, leading zero bytes as `0`.
fn from_base36(text: &str) -> Result<Vec<u8>, TextError> {
    limit_radix(text)?;
    // Least significant byte first.
    let mut number: Vec<u8> = Vec::new();
    for byte in text.bytes() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            _ => return Err(TextError::Malformed { base: "base36" }),
        };
        let mut carry = u16::from(digit);
        for place in &mut number {
            let [high, low] = (u16::from(*place) * 36 + carry).to_be_bytes();
            *place = low;
            carry = u16::from(high);
        }
        // Below 36, so it fits.
        if let (1.., [_, low]) = (carry, carry.to_be_bytes()) {
            number.push(low);
        }
    }
    let zeros = text.bytes().take_while(|byte| *byte == b'0').count();
    number.resize(number.len() + zeros, 0);
    number.reverse();
    Ok(number)
}

const fn limit_radix(text: &str) -> Result<(), TextError> {
    if text.len() > MAX_RADIX_CHARS {
        return Err(TextError::TooLong { actual: text.len() });
    }
    Ok(())
}

/// Returns RFC 4648 base32, upper case, without padding: block file names (Spec: 01 §4).
pub fn to_base32_upper(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes)
}

/// Decodes what [`to_base32_upper`] writes.
pub fn from_base32_upper(text: &str) -> Result<Vec<u8>, TextError> {
    strict(&BASE32_NOPAD, text, "base32")
}
