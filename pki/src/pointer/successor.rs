//! Which update may follow which (Spec: 04 §2.1, 07 §3 checks 9 and 10, security check 10).

use std::{fmt, str::FromStr};

use champ::Cid;

use super::PointerUpdate;

/// Largest sequence a server accepts: above it official servers could not store the next update.
pub const MAX_SEQUENCE: i64 = 1 << 32;
/// Furthest a sequence may leap; a client mistake beyond it would freeze the writer for good.
pub const MAX_SEQUENCE_LEAP: i64 = 1 << 20;

/// Why an update may not follow the current one. Every text is what existing clients parse or show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PointerRejection {
    /// The original is not the current target: somebody else was faster.
    #[error(transparent)]
    Cas(#[from] PointerCas),
    /// The sequence is missing or not above the current one.
    #[error(
        "Invalid sequence number update in mutable pointer: {} => {}",
        Shown(.current),
        Shown(.new)
    )]
    Sequence {
        /// The current sequence.
        current: Option<i64>,
        /// The sequence offered.
        new: Option<i64>,
    },
    /// The sequence is above [`MAX_SEQUENCE`] or leaps further than [`MAX_SEQUENCE_LEAP`].
    #[error(
        "Invalid sequence number update in mutable pointer: {} => {}",
        Shown(.current),
        Shown(.new)
    )]
    SequenceLeap {
        /// The current sequence.
        current: Option<i64>,
        /// The sequence offered.
        new: Option<i64>,
    },
}

/// Writes an optional sequence the way the wire texts do.
struct Shown<'a>(&'a Option<i64>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(n) => write!(f, "Optional[{n}]"),
            None => f.write_str("Optional.empty"),
        }
    }
}

/// Decides whether `new` may replace `current`: the original first, then the sequence.
///
/// # Errors
/// Any [`PointerRejection`].
pub fn check_successor(
    current: Option<&PointerUpdate>,
    new: &PointerUpdate,
) -> Result<(), PointerRejection> {
    let target = current.and_then(PointerUpdate::updated);
    let sequence = current.and_then(PointerUpdate::sequence);
    if new.original() != target {
        return Err(PointerCas {
            current: target.cloned(),
            sequence,
            claimed: new.original().cloned(),
        }
        .into());
    }
    // Nothing, or a legacy update: anything may follow, within the limits.
    let (Some(old), offered) = (sequence, new.sequence()) else {
        return check_leap(None, new.sequence());
    };
    match offered {
        Some(n) if n > old => check_leap(sequence, offered),
        _ => Err(PointerRejection::Sequence {
            current: sequence,
            new: offered,
        }),
    }
}

fn check_leap(current: Option<i64>, new: Option<i64>) -> Result<(), PointerRejection> {
    let Some(sequence) = new else {
        return Ok(());
    };
    let furthest = current.unwrap_or(0).saturating_add(MAX_SEQUENCE_LEAP);
    if sequence > MAX_SEQUENCE || sequence > furthest {
        return Err(PointerRejection::SequenceLeap { current, new });
    }
    Ok(())
}

/// A lost compare-and-swap: `PointerCAS:<current>,<sequence>,<claimed>` (Spec: 07 §3.1).
///
/// The text is exact in both directions: clients parse it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointerCas {
    /// The current target; none when there is no pointer or it was deleted.
    pub current: Option<Cid>,
    /// The current sequence, if any.
    pub sequence: Option<i64>,
    /// What the update took for the current target.
    pub claimed: Option<Cid>,
}

impl std::error::Error for PointerCas {}

impl fmt::Display for PointerCas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = |f: &mut fmt::Formatter<'_>, cid: &Option<Cid>| match cid {
            Some(cid) => cid.fmt(f),
            None => f.write_str(EMPTY),
        };
        f.write_str(PREFIX)?;
        target(f, &self.current)?;
        f.write_str(",")?;
        if let Some(sequence) = self.sequence {
            sequence.fmt(f)?;
        }
        f.write_str(",")?;
        target(f, &self.claimed)
    }
}

const PREFIX: &str = "PointerCAS:";
const EMPTY: &str = "EMPTY";

/// Text that is not a compare-and-swap failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a compare-and-swap failure")]
pub struct ParseCasError;

impl FromStr for PointerCas {
    type Err = ParseCasError;

    /// Parses the decoded text of a `Trailer` header.
    fn from_str(text: &str) -> Result<Self, ParseCasError> {
        let rest = text.strip_prefix(PREFIX).ok_or(ParseCasError)?;
        let mut parts = rest.split(',');
        let (Some(current), Some(sequence), Some(claimed), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ParseCasError);
        };
        let target = |text: &str| match text {
            EMPTY => Ok(None),
            text => text.parse().map(Some).map_err(|_| ParseCasError),
        };
        let sequence = match sequence {
            "" => None,
            text => Some(text.parse().map_err(|_| ParseCasError)?),
        };
        Ok(Self {
            current: target(current)?,
            sequence,
            claimed: target(claimed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(original: u8, updated: u8, sequence: impl Into<Option<i64>>) -> PointerUpdate {
        let cid = |n: u8| (n > 0).then(|| Cid::of_cbor(&[n]));
        PointerUpdate::try_new(cid(original), cid(updated), sequence.into()).unwrap()
    }

    #[test]
    fn leaps_and_huge_sequences_are_refused() {
        let leap = |current: Option<i64>, new| {
            let current = current.map(|sequence| update(0, 1, sequence));
            let original = u8::from(current.is_some());
            check_successor(current.as_ref(), &update(original, 2, new))
        };
        assert_eq!(leap(None, 1 << 20), Ok(()));
        assert_eq!(leap(Some(7), 7 + (1 << 20)), Ok(()));
        assert_eq!(leap(Some((1 << 32) - 1), 1 << 32), Ok(()));
        for (current, new) in [
            (None, (1 << 20) + 1),
            (None, i64::MAX),
            (Some(7), 8 + (1 << 20)),
            (Some(1 << 32), (1 << 32) + 1),
            (Some(i64::MAX - 1), i64::MAX),
        ] {
            let refused = leap(current, new);
            assert!(
                matches!(refused, Err(PointerRejection::SequenceLeap { .. })),
                "{current:?} {new} {refused:?}"
            );
        }
        let legacy = update(0, 1, None);
        assert!(check_successor(Some(&legacy), &update(1, 2, i64::MAX)).is_err());
        assert_eq!(check_successor(Some(&legacy), &update(1, 2, None)), Ok(()));
    }

    #[test]
    fn cas_failures_survive_a_round_trip() {
        for cas in [
            PointerCas {
                current: None,
                sequence: None,
                claimed: Some(Cid::of_cbor(b"a")),
            },
            PointerCas {
                current: Some(Cid::of_cbor(b"b")),
                sequence: Some(-3),
                claimed: None,
            },
        ] {
            assert_eq!(cas.to_string().parse(), Ok(cas));
        }
        for text in [
            "",
            "PointerCAS:",
            "PointerCAS:EMPTY,,",
            "PointerCAS:EMPTY,EMPTY",
            "PointerCAS:EMPTY,,EMPTY,",
            "PointerCAS:EMPTY,x,EMPTY",
            "PointerCAS:EMPTY,99999999999999999999,EMPTY",
            "pointercas:EMPTY,,EMPTY",
        ] {
            assert_eq!(text.parse::<PointerCas>(), Err(ParseCasError), "{text}");
        }
    }
}
