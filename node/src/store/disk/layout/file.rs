//! Files of blocks, and what their names say.

use champ::{Cid, text};

use super::{
    damaged,
    keys::{PartitionNumber, engine_key},
    rows::Reader,
};
use crate::store::StoreError;

/// The name of one block file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::disk) struct BlockFile {
    pub(in crate::store::disk) cid: Cid,
    pub(in crate::store::disk) partition: PartitionNumber,
    pub(in crate::store::disk) sequence: u64,
}

impl BlockFile {
    /// Returns the name of the folder of a run.
    pub(in crate::store::disk) fn folder(run: u64) -> String {
        format!("{run:08x}")
    }

    /// Parses the name of the folder of a run.
    pub(in crate::store::disk) fn parse_folder(name: &str) -> Option<u64> {
        (name.len() >= 8)
            .then(|| u64::from_str_radix(name, 16).ok())
            .flatten()
    }

    /// Returns the file name.
    pub(in crate::store::disk) fn name(&self) -> String {
        format!(
            "{}-{:08x}-{:016x}",
            self.cid.storage_key(),
            self.partition.0,
            self.sequence
        )
    }

    /// Parses a file name.
    pub(in crate::store::disk) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let cid = text::from_base32_upper(parts.next()?).ok()?;
        let cid = Cid::decode(&cid).ok()?;
        let partition = PartitionNumber(u32::from_str_radix(parts.next()?, 16).ok()?);
        let sequence = u64::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some(Self {
            cid,
            partition,
            sequence,
        })
    }

    /// Returns the key of the row that says that this file is to be removed.
    pub(in crate::store::disk) fn unlink_key(&self) -> Vec<u8> {
        let sequence = self.sequence.to_be_bytes();
        let partition = self.partition.0.to_be_bytes();
        engine_key(&[b"u", &sequence, &partition, &self.cid.to_bytes()])
    }

    /// Reads such a key.
    pub(in crate::store::disk) fn from_unlink_key(key: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Reader(key, "removal");
        rest.take(3)?;
        let sequence = rest.u64()?;
        let partition = PartitionNumber(rest.u32()?);
        let cid = Cid::decode(rest.0).map_err(|_| damaged("removal"))?;
        Ok(Self {
            cid,
            partition,
            sequence,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_and_removal_keys_survive_a_round_trip() {
        let file = BlockFile {
            cid: Cid::of_raw(b"x"),
            partition: PartitionNumber(0x1234),
            sequence: 0x5_6789,
        };
        assert_eq!(BlockFile::parse(&file.name()).unwrap(), file);
        assert_eq!(
            BlockFile::from_unlink_key(&file.unlink_key()).unwrap(),
            file
        );
        assert!(file.name().starts_with("AFK"));
        assert_eq!(BlockFile::parse(&format!("{}-0", file.name())), None);
        assert_eq!(BlockFile::parse("lost+found"), None);
        assert_eq!(
            BlockFile::parse_folder(&BlockFile::folder(0x56)),
            Some(0x56)
        );
        assert_eq!(BlockFile::parse_folder("x"), None);
    }
}
