//! Text forms of bytes: base58btc, hex, base32, multibase (Spec: 01 §3.2, §6).

use data_encoding::{BASE32_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};

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
}

/// Returns lower-case hex.
pub fn to_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Decodes hex of either case; odd lengths and other characters are refused.
pub fn from_hex(text: &str) -> Result<Vec<u8>, TextError> {
    HEXLOWER_PERMISSIVE
        .decode(text.as_bytes())
        .map_err(|_| TextError::Malformed { base: "hex" })
}

/// Returns plain base58btc (no multibase prefix); leading zero bytes become `1`s.
pub fn to_base58(bytes: &[u8]) -> String {
    bs58::encode(bytes).into_string()
}

/// Decodes plain base58btc.
pub fn from_base58(text: &str) -> Result<Vec<u8>, TextError> {
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
    match prefix {
        'z' => from_base58(rest.as_str()),
        'f' => from_hex(rest.as_str()),
        'b' | 'B' | 'v' | 'V' | 'k' | 'm' | 'M' => multibase::decode(text)
            .map(|(_, bytes)| bytes)
            .map_err(|_| TextError::Malformed { base: "multibase" }),
        _ => Err(TextError::UnknownBase),
    }
}

/// Returns RFC 4648 base32, upper case, without padding: block file names (Spec: 01 §4).
pub fn to_base32_upper(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes)
}

/// Decodes what [`to_base32_upper`] writes.
pub fn from_base32_upper(text: &str) -> Result<Vec<u8>, TextError> {
    BASE32_NOPAD
        .decode(text.as_bytes())
        .map_err(|_| TextError::Malformed { base: "base32" })
}
