//! One large secret box in a record and up to five blocks: file chunks and child lists (Spec: 02 §7.4).
//!
//! Writing touches each byte as little as possible: a step of plaintext is copied to where it will be sent
//! from, encrypted and authenticated there while it is in the cache, and the finished block is hashed once.

mod legacy;
mod plaintext;

use bytes::{BufMut, Bytes, BytesMut};
use champ::{
    Block, BlockError, Cid, Codec,
    access::{Bat, BatId, BatWithId, MAX_PREFIX_BYTES, raw_prefix, split_raw},
    cbor::{self, Fields, Map, Record, RecordError, Value},
};
use rand_core::CryptoRng;

use self::plaintext::Plaintext;
use super::{OpenError, first_record};
use crate::crypto::{
    CannotOpen, Nonce, SymmetricKey,
    secretbox::{self, Sealer, TAG_BYTES},
};

/// Padding block of file data and child lists, in bytes (Spec: 20 §1).
pub const DATA_PADDING_BYTES: usize = 4096;
/// Cipher text of one full fragment, in bytes (Spec: 20 §1).
pub const FRAGMENT_BYTES: usize = 1 << 20;
/// Room for the CBOR head, so that a full chunk pads to itself and this (Spec: 02 §7.4).
const HEAD_SLACK_BYTES: usize = 6;
/// Longest secret that is sealed or opened, in bytes: three full chunks. A directory page of another
/// client may hold more than the 500 children of ours.
pub const MAX_SECRET_BYTES: usize = 15 << 20;
/// Most fragments that are read; old ones may have as little as one padding block.
const MAX_FRAGMENTS: usize = MAX_SECRET_BYTES / DATA_PADDING_BYTES;
/// Plaintext copied and encrypted at a time: stays in the cache.
const STEP_BYTES: usize = 32 * 1024;

/// A secret box cut into a header in the record and fragments in blocks of their own; small ones are whole
/// in the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FragmentedPaddedCipherText {
    nonce: Nonce,
    /// The first bytes of the cipher text; absent in inline and in old records.
    header: Option<Bytes>,
    body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    Inline(Bytes),
    Fragments(Vec<Fragment>),
}

/// Where a piece of the cipher text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// The block.
    pub cid: Cid,
    /// The token that opens it; absent for old data.
    pub token: Option<BatWithId>,
}

/// A sealed secret: the record, and the blocks that must be stored before it.
#[derive(Debug, Clone)]
pub struct SealedFragments {
    /// The record.
    pub record: FragmentedPaddedCipherText,
    /// The fragment blocks in order; empty when the cipher text is inline.
    pub blocks: Vec<Block>,
}

/// Why a secret was not sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Longer than [`MAX_SECRET_BYTES`].
    #[error("secret of {actual} bytes is larger than {max}", max = MAX_SECRET_BYTES)]
    TooLarge {
        /// Length in bytes.
        actual: usize,
    },
    /// A fragment does not fit a block: an oversized mirror token id.
    #[error("fragment does not fit a block")]
    Fragment(#[from] BlockError),
}

impl FragmentedPaddedCipherText {
    /// Seals `content` as a CBOR byte string: the data of one file chunk.
    ///
    /// Draws a nonce, then one token per fragment. Each fragment can be fetched with its own token or with
    /// the owner's mirror token.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_bytes(
        key: &SymmetricKey,
        content: &[u8],
        mirror: Option<&BatId>,
        rng: &mut dyn CryptoRng,
    ) -> Result<SealedFragments, SealError> {
        let mut head = Vec::with_capacity(9);
        cbor::write_bytes_head(content.len(), &mut head);
        let plaintext = Plaintext::new(&head, content)?;
        seal(key, plaintext, FRAGMENT_BYTES, mirror, rng)
    }

    /// Seals the CBOR of a record: a child list.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_record(
        key: &SymmetricKey,
        secret: &impl Record,
        mirror: Option<&BatId>,
        rng: &mut dyn CryptoRng,
    ) -> Result<SealedFragments, SealError> {
        let encoded = zeroize::Zeroizing::new(secret.encode());
        let plaintext = Plaintext::new(&[], &encoded)?;
        seal(key, plaintext, FRAGMENT_BYTES, mirror, rng)
    }

    /// Returns the fragments that opening needs, in order; empty when the cipher text is inline.
    pub fn fragments(&self) -> &[Fragment] {
        match &self.body {
            Body::Inline(_) => &[],
            Body::Fragments(fragments) => fragments,
        }
    }

    /// Opens a byte string: the data of one file chunk. `blocks` are the [`fragments`](Self::fragments).
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_bytes(&self, key: &SymmetricKey, blocks: &[Block]) -> Result<Bytes, OpenError> {
        let plaintext = Bytes::from(self.open(key, blocks)?);
        let content = plaintext::byte_string(&plaintext)?;
        Ok(plaintext.slice_ref(content))
    }

    /// Opens a record: a child list. `blocks` are the [`fragments`](Self::fragments).
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_record<R: Record>(
        &self,
        key: &SymmetricKey,
        blocks: &[Block],
    ) -> Result<R, OpenError> {
        first_record(self.open(key, blocks)?)
    }

    fn open(&self, key: &SymmetricKey, blocks: &[Block]) -> Result<Vec<u8>, OpenError> {
        let data = match &self.body {
            Body::Inline(cipher) => vec![cipher.clone()],
            Body::Fragments(fragments) => fragments
                .iter()
                .enumerate()
                .map(|(index, fragment)| fragment.data(blocks.get(index), index))
                .collect::<Result<_, _>>()?,
        };
        // Headers are as long as their writer chose; the tag is wherever the first 16 bytes are.
        let mut pieces: Vec<&[u8]> = self.header.iter().chain(&data).map(AsRef::as_ref).collect();
        if pieces.iter().map(|piece| piece.len()).sum::<usize>() > MAX_CIPHER_BYTES {
            return Err(OpenError::TooLarge {
                max: MAX_CIPHER_BYTES,
            });
        }
        let mut tag = [0; TAG_BYTES];
        let mut filled = 0;
        for piece in &mut pieces {
            let (head, rest) = piece.split_at(piece.len().min(TAG_BYTES - filled));
            for (to, from) in tag.iter_mut().skip(filled).zip(head) {
                *to = *from;
            }
            filled += head.len();
            *piece = rest;
        }
        if filled < TAG_BYTES {
            return Err(CannotOpen.into());
        }
        Ok(secretbox::open_pieces(key, &self.nonce, &tag, &pieces)?)
    }
}

impl Fragment {
    /// Returns true when the link itself holds the data (old files); no block is fetched for it.
    pub fn is_inline(&self) -> bool {
        self.cid.identity_content().is_some()
    }

    /// Returns the piece of cipher text in `block`, which must be the one this fragment names.
    fn data(&self, block: Option<&Block>, index: usize) -> Result<Bytes, OpenError> {
        let inline = Block::inline(&self.cid);
        let block = match (&inline, block) {
            (Some(inline), _) => inline,
            (None, Some(block)) if *block.cid() == self.cid => block,
            _ => return Err(OpenError::WrongFragment { index }),
        };
        match self.cid.codec() {
            Codec::Raw => Ok(split_raw(block.bytes())?.1),
            _ => Ok(legacy::cbor_fragment(block.bytes())?),
        }
    }
}

/// Longest cipher text that is opened.
const MAX_CIPHER_BYTES: usize =
    MAX_SECRET_BYTES + DATA_PADDING_BYTES + TAG_BYTES + HEAD_SLACK_BYTES;

fn seal(
    key: &SymmetricKey,
    mut plaintext: Plaintext<'_>,
    fragment_bytes: usize,
    mirror: Option<&BatId>,
    rng: &mut dyn CryptoRng,
) -> Result<SealedFragments, SealError> {
    let nonce = Nonce::random(rng);
    let mut sealer = Sealer::new(key, &nonce);
    // The tag comes first and is known last.
    let inline = plaintext.len() <= DATA_PADDING_BYTES + HEAD_SLACK_BYTES;
    let first_bytes = if inline {
        plaintext.len()
    } else {
        (plaintext.len() + TAG_BYTES) % DATA_PADDING_BYTES - TAG_BYTES
    };
    let mut first = BytesMut::with_capacity(TAG_BYTES + first_bytes);
    first.put_bytes(0, TAG_BYTES);
    plaintext.seal_into(first_bytes, &mut sealer, &mut first);

    let mut fragments = Vec::new();
    let mut blocks = Vec::new();
    // One buffer for all blocks: allocators keep one of this size for the next chunk, but return several
    // smaller ones to the system, and getting them back costs as much as a fifth of the sealing.
    let count = plaintext.len().div_ceil(fragment_bytes);
    let mut buffer = BytesMut::with_capacity(plaintext.len() + count * MAX_PREFIX_BYTES);
    while plaintext.len() > 0 {
        let bat = Bat::random(rng);
        let mut ids = vec![bat.inline_id()];
        ids.extend(mirror.cloned());
        buffer.extend_from_slice(&raw_prefix(&ids));
        let length = plaintext.len().min(fragment_bytes);
        plaintext.seal_into(length, &mut sealer, &mut buffer);
        let block = Block::raw(buffer.split().freeze())?;
        fragments.push(Fragment {
            cid: block.cid().clone(),
            token: Some(bat.with_calculated_id()),
        });
        blocks.push(block);
    }
    if let Some(tag) = first.first_chunk_mut() {
        *tag = sealer.finish();
    }
    let first = first.freeze();
    let record = if inline {
        FragmentedPaddedCipherText {
            nonce,
            header: None,
            body: Body::Inline(first),
        }
    } else {
        FragmentedPaddedCipherText {
            nonce,
            header: Some(first),
            body: Body::Fragments(fragments),
        }
    };
    Ok(SealedFragments { record, blocks })
}

impl Record for FragmentedPaddedCipherText {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("n", self.nonce.bytes());
        map.insert_some("h", self.header.clone());
        match &self.body {
            Body::Inline(cipher) => {
                map.insert("f", vec![Value::Bytes(cipher.clone())]);
            }
            Body::Fragments(fragments) => {
                let links: Vec<Value> = fragments.iter().map(|f| Value::from(&f.cid)).collect();
                map.insert("f", links);
                let tokens: Vec<Value> = fragments
                    .iter()
                    .map_while(|f| f.token.as_ref().map(Record::to_value))
                    .collect();
                map.insert_some("bats", (!tokens.is_empty()).then_some(tokens));
            }
        }
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "fragmented cipher text")?;
        let nonce = Nonce::received(fields.required("n")?.into_array("n")?);
        let header = fields
            .optional("h")
            .map(|h| h.into_bytes("h"))
            .transpose()?;
        let list = fields.required("f")?.into_list("f")?;
        let tokens = fields
            .optional("bats")
            .map_or(Ok(Vec::new()), |v| v.into_list("bats"))?;
        if list.is_empty() || list.len() > MAX_FRAGMENTS {
            return Err(RecordError::OutOfRange { field: "f" });
        }
        let body = if let [Value::Bytes(cipher)] = list.as_slice() {
            Body::Inline(cipher.clone())
        } else {
            let mut tokens = tokens.into_iter().map(BatWithId::from_value);
            let fragments = list
                .into_iter()
                .map(|link| {
                    Ok(Fragment {
                        cid: link.into_link("f")?,
                        token: tokens.next().transpose()?,
                    })
                })
                .collect::<Result<Vec<_>, RecordError>>()?;
            legacy::inlined(fragments)?
        };
        Ok(Self {
            nonce,
            header,
            body,
        })
    }
}

#[cfg(test)]
mod tests;
