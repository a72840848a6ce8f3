//! Content identifiers: multihashes and CIDs (Spec: 01 §2, §3).

mod multihash;
mod varint;

pub use multihash::{HashCode, MAX_IDENTITY_BYTES, MAX_WRITTEN_IDENTITY_BYTES, Multihash};
pub use varint::{read_varint, write_varint};

use std::{fmt, str::FromStr};

use crate::text;

/// What the content behind a CID is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// Opaque bytes: cipher text fragments, access token ids.
    Raw,
    /// Legacy version 0 identifiers; parsed only.
    DagPb,
    /// Structured blocks and public key hashes.
    DagCbor,
    /// Server ids.
    Libp2pKey,
}

impl Codec {
    /// Returns the multicodec number.
    pub const fn code(self) -> u64 {
        match self {
            Self::Raw => 0x55,
            Self::DagPb => 0x70,
            Self::DagCbor => 0x71,
            Self::Libp2pKey => 0x72,
        }
    }

    const fn from_code(code: u64) -> Option<Self> {
        match code {
            0x55 => Some(Self::Raw),
            0x70 => Some(Self::DagPb),
            0x71 => Some(Self::DagCbor),
            0x72 => Some(Self::Libp2pKey),
            _ => None,
        }
    }
}

/// A content identifier, version 0 or 1.
///
/// Equality covers version, codec, hash code and digest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cid {
    version: Version,
    codec: Codec,
    hash: Multihash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Version {
    V0,
    V1,
}

/// Bytes or text that are not a CID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CidError {
    /// The input ends inside the identifier.
    #[error("cid is truncated")]
    Truncated,
    /// A varint is not minimal or longer than ten bytes.
    #[error("cid holds a malformed varint")]
    BadVarint,
    /// A version other than 0 (bare) or 1.
    #[error("cid version {0} is not supported")]
    Version(u64),
    /// A codec outside the table of Spec: 01 §3.1.
    #[error("cid codec {0:#x} is not known")]
    Codec(u64),
    /// A hash outside the table of Spec: 01 §2.2.
    #[error("hash code {0:#x} is not known")]
    HashCode(u64),
    /// A digest length that its hash cannot have.
    #[error("digest of {actual} bytes does not fit hash code {code:#x}")]
    DigestLength {
        /// Multihash code.
        code: u64,
        /// Declared digest length.
        actual: u64,
    },
    /// Bytes after the multihash.
    #[error("bytes after the end of the cid")]
    TrailingBytes,
    /// Text in no base that readers accept.
    #[error("cid text is malformed")]
    Text(#[from] text::TextError),
}

impl Cid {
    /// Makes a version 1 CID.
    pub const fn v1(codec: Codec, hash: Multihash) -> Self {
        Self {
            version: Version::V1,
            codec,
            hash,
        }
    }

    /// Returns the CID of a raw block with these bytes.
    pub fn of_raw(bytes: &[u8]) -> Self {
        Self::v1(Codec::Raw, Multihash::sha2_256(bytes))
    }

    /// Returns the CID of a dag-cbor block with these bytes.
    pub fn of_cbor(bytes: &[u8]) -> Self {
        Self::v1(Codec::DagCbor, Multihash::sha2_256(bytes))
    }

    /// Returns the codec.
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// Returns the multihash.
    pub const fn hash(&self) -> &Multihash {
        &self.hash
    }

    /// Returns true for the legacy 34-byte form.
    pub const fn is_v0(&self) -> bool {
        matches!(self.version, Version::V0)
    }

    /// Returns the content itself when the hash is the identity (Spec: 01 §3.3).
    pub fn identity_content(&self) -> Option<&[u8]> {
        self.hash.identity_content()
    }

    /// Returns true when `bytes` are what this CID names; only sha2-256 and identity are ever trusted.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.hash.matches(bytes)
    }

    /// Decodes the binary form; the input must be used up.
    ///
    /// # Errors
    /// Every way the bytes can fail to be a CID of Spec: 01 §3.1.
    pub fn decode(bytes: &[u8]) -> Result<Self, CidError> {
        if bytes.len() == 34 && bytes.starts_with(&[0x12, 0x20]) {
            let (hash, _) = Multihash::read(bytes)?;
            return Ok(Self {
                version: Version::V0,
                codec: Codec::DagPb,
                hash,
            });
        }
        let (version, rest) = read_varint(bytes)?;
        if version != 1 {
            return Err(CidError::Version(version));
        }
        let (code, rest) = read_varint(rest)?;
        let codec = Codec::from_code(code).ok_or(CidError::Codec(code))?;
        let (hash, rest) = Multihash::read(rest)?;
        if !rest.is_empty() {
            return Err(CidError::TrailingBytes);
        }
        Ok(Self::v1(codec, hash))
    }

    /// Appends the binary form.
    pub fn write(&self, out: &mut Vec<u8>) {
        if self.version == Version::V1 {
            write_varint(1, out);
            write_varint(self.codec.code(), out);
        }
        self.hash.write(out);
    }

    /// Returns the binary form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.write(&mut out);
        out
    }

    /// Returns the number of bytes of the binary form.
    pub fn encoded_len(&self) -> usize {
        // Version and codec take one byte each.
        let prefix = if self.is_v0() { 0 } else { 2 };
        prefix + self.hash.encoded_len()
    }

    /// Parses a server id: a CID string, or base58 of a bare multihash (Spec: 01 §3.4).
    ///
    /// # Errors
    /// As [`Cid::decode`], and [`CidError::Text`].
    pub fn parse_peer_id(text: &str) -> Result<Self, CidError> {
        if text.starts_with('1') {
            let bytes = text::from_base58(text)?;
            let (hash, rest) = Multihash::read(&bytes)?;
            if !rest.is_empty() {
                return Err(CidError::TrailingBytes);
            }
            return Ok(Self::v1(Codec::Libp2pKey, hash));
        }
        text.parse()
    }

    /// Returns base58 of the bare multihash: the host name form of a server id.
    pub fn bare_multihash_text(&self) -> String {
        text::to_base58(&self.hash.to_bytes())
    }

    /// Returns the file and object store name: upper-case base32 of the binary form (Spec: 01 §4).
    pub fn storage_key(&self) -> String {
        text::to_base32_upper(&self.to_bytes())
    }
}

impl FromStr for Cid {
    type Err = CidError;

    fn from_str(text: &str) -> Result<Self, CidError> {
        if text.len() < 2 {
            return Err(text::TextError::TooShort.into());
        }
        if text.len() == 46 && text.starts_with("Qm") {
            return Self::decode(&text::from_base58(text)?);
        }
        Self::decode(&text::from_multibase(text)?)
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::V0 => f.write_str(&text::to_base58(&self.to_bytes())),
            Version::V1 => f.write_str(&text::to_multibase(&self.to_bytes())),
        }
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cid({self})")
    }
}
