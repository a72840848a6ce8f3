//! The links of cbor blocks as they are stored, so that a collection reads only blocks that are new.
//!
//! What a block links to follows from its name and never changes, so records need no order, no update and no
//! transaction with anything else: a record of a block that is gone is dead weight, a block without record is read.
//! Records are kept in chunks of a few hundred kilobytes, each with a checksum: a chunk that does not match is
//! thrown away, because links that are wrong could make a needed block look unneeded.

use bytes::Bytes;
use champ::{Cid, Codec, cid::Multihash};
use sha2::{Digest as _, Sha256};

/// First byte of a chunk.
const VERSION: u8 = 1;
/// Bytes of SHA-256 over the records.
const CHECKSUM_BYTES: usize = 16;
/// A chunk is closed when it has grown to this.
pub(super) const CHUNK_BYTES: usize = 128 << 10;
/// Codec of a link.
const CBOR_LINK: u8 = 0;
const RAW_LINK: u8 = 1;

/// Links of blocks, being gathered.
#[derive(Debug, Default)]
pub(super) struct ChunkWriter {
    open: Vec<u8>,
    closed: Vec<Bytes>,
}

impl ChunkWriter {
    /// Adds the record of a cbor block. Links that name no stored block are left out.
    pub(super) fn add(&mut self, digest: &[u8; 32], links: &[Cid]) {
        let links: Vec<_> = links.iter().filter_map(encoded).collect();
        let Ok(count) = u32::try_from(links.len()) else {
            return;
        };
        self.open.extend_from_slice(digest);
        self.open.extend_from_slice(&count.to_be_bytes());
        for (codec, digest) in links {
            self.open.push(codec);
            self.open.extend_from_slice(digest);
        }
        if self.open.len() >= CHUNK_BYTES {
            self.close();
        }
    }

    /// Returns how many bytes are in memory.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.open.len() + self.closed.iter().map(Bytes::len).sum::<usize>()
    }

    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let records = std::mem::take(&mut self.open);
        let mut chunk = Vec::with_capacity(records.len() + 1 + CHECKSUM_BYTES);
        chunk.push(VERSION);
        chunk.extend_from_slice(&checksum(&records));
        chunk.extend_from_slice(&records);
        self.closed.push(chunk.into());
    }

    /// Takes the chunks that are full.
    pub(super) fn take_full(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.closed)
    }

    /// Takes all chunks.
    pub(super) fn finish(mut self) -> Vec<Bytes> {
        self.close();
        self.closed
    }
}

fn encoded(link: &Cid) -> Option<(u8, &[u8; 32])> {
    let codec = match link.codec() {
        Codec::DagCbor => CBOR_LINK,
        Codec::Raw => RAW_LINK,
        _ => return None,
    };
    Some((codec, link.hash().sha2_256_digest()?))
}

fn checksum(records: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    for (to, from) in sum.iter_mut().zip(Sha256::digest(records)) {
        *to = from;
    }
    sum
}

/// Returns the records of a chunk; `None` for one that is damaged or of another version.
pub(super) fn records(chunk: &[u8]) -> Option<Records<'_>> {
    let (version, rest) = chunk.split_first()?;
    let (sum, records) = rest.split_at_checked(CHECKSUM_BYTES)?;
    (*version == VERSION && sum == checksum(records)).then_some(Records(records))
}

/// The records of a chunk: digests of cbor blocks and their links.
#[derive(Debug)]
pub(super) struct Records<'a>(&'a [u8]);

impl Iterator for Records<'_> {
    type Item = (Cid, Vec<Cid>);

    fn next(&mut self) -> Option<Self::Item> {
        let (digest, rest) = self.0.split_first_chunk::<32>()?;
        let (count, mut rest) = rest.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
        // The checksum has vouched for the count; the capacity is bounded all the same.
        let mut links = Vec::with_capacity(count.min(rest.len() / 33));
        for _ in 0..count {
            let (codec, after) = rest.split_first()?;
            let (link, after) = after.split_first_chunk::<32>()?;
            let codec = match *codec {
                CBOR_LINK => Codec::DagCbor,
                _ => Codec::Raw,
            };
            links.push(Cid::v1(codec, Multihash::from_sha2_256(*link)));
            rest = after;
        }
        self.0 = rest;
        let block = Cid::v1(Codec::DagCbor, Multihash::from_sha2_256(*digest));
        Some((block, links))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(cid: &Cid) -> [u8; 32] {
        *cid.hash().sha2_256_digest().unwrap()
    }

    #[test]
    fn records_survive_and_chunks_are_bounded() {
        let mut writer = ChunkWriter::default();
        let mut expected = Vec::new();
        for n in 0_u32..5000 {
            let block = Cid::of_cbor(&n.to_be_bytes());
            let links: Vec<_> = (0..n % 4)
                .map(|k| match k % 2 {
                    0 => Cid::of_raw(&n.to_le_bytes()),
                    _ => Cid::of_cbor(&n.to_le_bytes()),
                })
                .collect();
            writer.add(&digest(&block), &links);
            expected.push((block, links));
        }
        let chunks = writer.finish();
        assert!(chunks.len() > 1);
        assert!(chunks.iter().all(|chunk| chunk.len() < CHUNK_BYTES + 300));
        let found: Vec<_> = chunks.iter().flat_map(|c| records(c).unwrap()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_changed_chunk_is_thrown_away() {
        let mut writer = ChunkWriter::default();
        writer.add(&digest(&Cid::of_cbor(b"x")), &[Cid::of_raw(b"y")]);
        let chunk = writer.finish().remove(0);
        for at in 0..chunk.len() {
            let mut changed = chunk.to_vec();
            changed[at] ^= 1;
            assert!(records(&changed).is_none(), "byte {at}");
        }
        assert!(records(&chunk[..chunk.len() - 1]).is_none());
        assert!(records(b"").is_none());
    }
}
