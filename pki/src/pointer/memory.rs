//! What a client remembers of pointers, so that no server can turn back time (Spec: 04 §3, 07 §7).

use std::collections::HashMap;

use super::{PointerError, PointerUpdate};
use crate::keys::Writer;

/// What a server should not have answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The server offers an older state than one that was seen before.
    #[error(
        "pointer of {writer} went back from {} to {}",
        shown(.seen),
        shown(.offered)
    )]
    Rollback {
        /// Whose pointer.
        writer: Writer,
        /// Highest sequence seen.
        seen: Option<i64>,
        /// Sequence offered; none for no pointer and for a legacy one.
        offered: Option<i64>,
    },
    /// Two different updates with one sequence: proof that the writer or the server equivocates.
    #[error("pointer of {writer} forked at sequence {sequence}")]
    Fork {
        /// Whose pointer.
        writer: Writer,
        /// The sequence both have.
        sequence: i64,
    },
}

fn shown(sequence: &Option<i64>) -> String {
    sequence.map_or_else(
        || "no sequence".to_owned(),
        |sequence| format!("sequence {sequence}"),
    )
}

/// The latest pointer seen, and the latest one signed, of each writer.
///
/// Keep [`PointerMemory::seen`] persistently where possible and feed it back with
/// [`PointerMemory::restore`]. It grows by one small record per writer of the user.
#[derive(Debug, Clone, Default)]
pub struct PointerMemory {
    seen: HashMap<Writer, PointerUpdate>,
    signed: HashMap<Writer, PointerUpdate>,
}

impl PointerMemory {
    /// Starts without memories.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what an earlier run remembered; the higher sequence wins.
    pub fn restore(&mut self, writer: Writer, update: PointerUpdate) {
        match self.seen.get(&writer) {
            Some(known) if known.sequence() >= update.sequence() => {}
            _ => {
                self.seen.insert(writer, update);
            }
        }
    }

    /// Visits what is remembered, in no particular order.
    pub fn seen(&self) -> impl Iterator<Item = (&Writer, &PointerUpdate)> {
        self.seen.iter()
    }

    /// Returns the latest pointer seen of one writer.
    pub fn latest(&self, writer: &Writer) -> Option<&PointerUpdate> {
        self.seen.get(writer)
    }

    /// Checks a verified pointer (none: the server says there is none) and remembers it.
    ///
    /// # Errors
    /// [`HistoryError::Rollback`] for a lower sequence than seen, for none after one, and for no pointer
    /// after any; [`HistoryError::Fork`] for the same sequence with another update. Nothing is remembered
    /// then.
    pub fn observe(
        &mut self,
        writer: &Writer,
        offered: Option<&PointerUpdate>,
    ) -> Result<(), HistoryError> {
        let seen = self.seen.get(writer);
        let rollback = || HistoryError::Rollback {
            writer: writer.clone(),
            seen: seen.and_then(PointerUpdate::sequence),
            offered: offered.and_then(PointerUpdate::sequence),
        };
        let Some(offered) = offered else {
            return seen.map_or(Ok(()), |_| Err(rollback()));
        };
        if let Some(known) = seen {
            // None orders below every sequence.
            if offered.sequence() < known.sequence() {
                return Err(rollback());
            }
            if let Some(sequence) = offered.sequence()
                && known.sequence() == Some(sequence)
                && known != offered
            {
                return Err(HistoryError::Fork {
                    writer: writer.clone(),
                    sequence,
                });
            }
        }
        self.seen.insert(writer.clone(), offered.clone());
        Ok(())
    }

    /// Makes the update to sign after `current`, never a second one with the original and sequence of
    /// one made before: an earlier attempt whose answer was lost may still arrive, so the sequence then
    /// skips one.
    ///
    /// # Errors
    /// [`PointerError::Unchanged`], [`PointerError::SequenceExhausted`].
    pub fn propose(
        &mut self,
        writer: &Writer,
        current: Option<&PointerUpdate>,
        updated: Option<champ::Cid>,
    ) -> Result<PointerUpdate, PointerError> {
        let mut next = PointerUpdate::next(current, updated)?;
        if let Some(before) = self.signed.get(writer)
            && before.original() == next.original()
            && before.sequence() >= next.sequence()
        {
            if before.updated() == next.updated() {
                return Ok(before.clone());
            }
            let sequence = before.sequence().and_then(|n| n.checked_add(1));
            let sequence = sequence.ok_or(PointerError::SequenceExhausted)?;
            let (original, updated) = (next.original().cloned(), next.updated().cloned());
            next = PointerUpdate::try_new(original, updated, Some(sequence))?;
        }
        self.signed.insert(writer.clone(), next.clone());
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use champ::Cid;

    use super::*;
    use crate::keys::{PublicKeyHash, PublicSigningKey};

    fn writer() -> Writer {
        Writer(PublicKeyHash::of(&PublicSigningKey::from_bytes([3; 32])))
    }

    fn cid(n: u8) -> Option<Cid> {
        Some(Cid::of_cbor(&[n]))
    }

    fn update(updated: u8, sequence: impl Into<Option<i64>>) -> PointerUpdate {
        PointerUpdate::try_new(cid(0), cid(updated), sequence.into()).unwrap()
    }

    #[test]
    fn time_does_not_run_backwards() {
        let mut memory = PointerMemory::new();
        let writer = writer();
        assert_eq!(memory.observe(&writer, None), Ok(()));
        assert_eq!(memory.observe(&writer, Some(&update(1, None))), Ok(()));
        assert_eq!(memory.observe(&writer, Some(&update(7, 7))), Ok(()));
        assert_eq!(memory.observe(&writer, Some(&update(7, 7))), Ok(()));
        for offered in [Some(update(5, 5)), Some(update(1, None)), None] {
            let refused = memory.observe(&writer, offered.as_ref());
            assert!(matches!(refused, Err(HistoryError::Rollback { .. })));
        }
        let fork = memory.observe(&writer, Some(&update(8, 7)));
        assert!(matches!(fork, Err(HistoryError::Fork { sequence: 7, .. })));
        assert_eq!(memory.latest(&writer), Some(&update(7, 7)));
        assert_eq!(memory.observe(&writer, Some(&update(9, 9))), Ok(()));

        // Another run of the program knows what this one saw.
        let mut restarted = PointerMemory::new();
        for (writer, update) in memory.seen() {
            restarted.restore(writer.clone(), update.clone());
        }
        restarted.restore(writer.clone(), update(5, 5));
        assert!(restarted.observe(&writer, Some(&update(8, 8))).is_err());
    }

    #[test]
    fn no_two_updates_share_original_and_sequence() {
        let mut memory = PointerMemory::new();
        let writer = writer();
        let first = memory.propose(&writer, None, cid(1)).unwrap();
        assert_eq!(first.sequence(), Some(1));
        // The same again is the same statement.
        assert_eq!(memory.propose(&writer, None, cid(1)), Ok(first.clone()));
        let other = memory.propose(&writer, None, cid(2)).unwrap();
        assert_eq!(other.sequence(), Some(2));
        let third = memory.propose(&writer, None, cid(3)).unwrap();
        assert_eq!(third.sequence(), Some(3));
        // A conflict changes the original, so counting starts from what the server has.
        let next = memory.propose(&writer, Some(&first), cid(3)).unwrap();
        assert_eq!(next.original(), first.updated());
        assert_eq!(next.sequence(), Some(2));
        assert!(memory.propose(&writer, Some(&next), cid(3)).is_err());
    }
}
