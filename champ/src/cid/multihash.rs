//! Self-describing hashes (Spec: 01 §2.2).

use sha2::{Digest, Sha256};

use super::{CidError, read_varint, write_varint};

/// Longest identity digest a reader accepts: old inlined cipher text (Spec: 01 §2.2).
pub const MAX_IDENTITY_BYTES: usize = 4112;
/// Longest identity digest that is written: an encoded 32-byte public key.
pub const MAX_WRITTEN_IDENTITY_BYTES: usize = 36;

/// A hash function of the table in Spec: 01 §2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashCode {
    /// The digest is the content.
    Identity,
    /// Every block.
    Sha2_256,
    /// Parsed only: sha2-512.
    Sha2_512,
    /// Parsed only: sha3-512.
    Sha3_512,
    /// Parsed only: blake3.
    Blake3,
    /// Parsed only: code 0x40.
    X40,
    /// Parsed only: code 0x41.
    X41,
}

impl HashCode {
    /// Returns the multihash code.
    pub const fn code(self) -> u64 {
        match self {
            Self::Identity => 0x00,
            Self::Sha2_256 => 0x12,
            Self::Sha2_512 => 0x13,
            Self::Sha3_512 => 0x14,
            Self::Blake3 => 0x1e,
            Self::X40 => 0x40,
            Self::X41 => 0x41,
        }
    }

    const fn from_code(code: u64) -> Option<Self> {
        match code {
            0x00 => Some(Self::Identity),
            0x12 => Some(Self::Sha2_256),
            0x13 => Some(Self::Sha2_512),
            0x14 => Some(Self::Sha3_512),
            0x1e => Some(Self::Blake3),
            0x40 => Some(Self::X40),
            0x41 => Some(Self::X41),
            _ => None,
        }
    }

    const fn allows(self, length: u64) -> bool {
        match self {
            Self::Identity => length <= MAX_IDENTITY_BYTES as u64,
            Self::Sha2_256 | Self::Blake3 | Self::X41 => length == 32,
            Self::Sha2_512 | Self::Sha3_512 | Self::X40 => length == 64,
        }
    }
}

/// A hash with its function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Multihash(Repr);

// SHA-256 inline: maps hold millions of these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Sha256([u8; 32]),
    Other(HashCode, Box<[u8]>),
}

impl Multihash {
    /// Hashes `content` with SHA-256.
    pub fn sha2_256(content: &[u8]) -> Self {
        Self(Repr::Sha256(Sha256::digest(content).into()))
    }

    /// Wraps a SHA-256 digest.
    pub const fn from_sha2_256(digest: [u8; 32]) -> Self {
        Self(Repr::Sha256(digest))
    }

    /// Makes an identity hash.
    ///
    /// # Errors
    /// [`CidError::DigestLength`] above [`MAX_WRITTEN_IDENTITY_BYTES`].
    pub fn identity(content: &[u8]) -> Result<Self, CidError> {
        if content.len() > MAX_WRITTEN_IDENTITY_BYTES {
            return Err(CidError::DigestLength {
                code: 0,
                actual: content.len() as u64,
            });
        }
        Ok(Self(Repr::Other(HashCode::Identity, content.into())))
    }

    /// Returns the hash function.
    pub const fn code(&self) -> HashCode {
        match &self.0 {
            Repr::Sha256(_) => HashCode::Sha2_256,
            Repr::Other(code, _) => *code,
        }
    }

    /// Returns the digest.
    pub fn digest(&self) -> &[u8] {
        match &self.0 {
            Repr::Sha256(digest) => digest,
            Repr::Other(_, digest) => digest,
        }
    }

    /// Returns the digest when the function is SHA-256.
    pub const fn sha2_256_digest(&self) -> Option<&[u8; 32]> {
        match &self.0 {
            Repr::Sha256(digest) => Some(digest),
            Repr::Other(..) => None,
        }
    }

    /// Returns the content of an identity hash.
    pub fn identity_content(&self) -> Option<&[u8]> {
        match &self.0 {
            Repr::Other(HashCode::Identity, content) => Some(content),
            _ => None,
        }
    }

    /// Returns true when `content` hashes to this; functions other than sha2-256 and identity never match.
    pub fn matches(&self, content: &[u8]) -> bool {
        match &self.0 {
            Repr::Sha256(digest) => Sha256::digest(content).as_slice() == digest.as_slice(),
            Repr::Other(HashCode::Identity, digest) => digest.as_ref() == content,
            Repr::Other(..) => false,
        }
    }

    /// Reads one multihash and returns what follows it.
    ///
    /// # Errors
    /// [`CidError::HashCode`], [`CidError::DigestLength`], [`CidError::Truncated`], [`CidError::BadVarint`].
    pub fn read(bytes: &[u8]) -> Result<(Self, &[u8]), CidError> {
        let (code, rest) = read_varint(bytes)?;
        let (length, rest) = read_varint(rest)?;
        let function = HashCode::from_code(code).ok_or(CidError::HashCode(code))?;
        if !function.allows(length) {
            return Err(CidError::DigestLength {
                code,
                actual: length,
            });
        }
        let length = usize::try_from(length).map_err(|_| CidError::Truncated)?;
        let (digest, rest) = rest.split_at_checked(length).ok_or(CidError::Truncated)?;
        let repr = match (function, <[u8; 32]>::try_from(digest)) {
            (HashCode::Sha2_256, Ok(digest)) => Repr::Sha256(digest),
            _ => Repr::Other(function, digest.into()),
        };
        Ok((Self(repr), rest))
    }

    /// Appends the binary form.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_varint(self.code().code(), out);
        write_varint(self.digest().len() as u64, out);
        out.extend_from_slice(self.digest());
    }

    /// Returns the number of bytes of the binary form.
    pub fn encoded_len(&self) -> usize {
        let length = self.digest().len();
        // All codes take one byte; only the length of an old identity digest takes two.
        1 + if length < 128 { 1 } else { 2 } + length
    }

    /// Returns the binary form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.write(&mut out);
        out
    }
}
