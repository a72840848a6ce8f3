//! Three-way merge, for a client whose pointer update came second (Spec: 03 §8).

use std::collections::HashSet;

use bytes::Bytes;

use super::{Champ, ChampError, Change, Difference, diff};
use crate::block::BlockSource;

/// Why two changes of one tree cannot be joined.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// Both sides changed the same key, even when to the same value.
    #[error("concurrent modification of a file or directory")]
    Conflict {
        /// The key.
        key: Bytes,
    },
    /// The merged tree does not hold one of our own changes.
    #[error("merge lost a change")]
    Lost {
        /// The key.
        key: Bytes,
    },
    /// A tree could not be read or changed.
    #[error("champ could not be merged")]
    Champ(#[from] ChampError),
}

/// Returns `ours` with everything that changed between `base` and `theirs`.
///
/// A key that they removed is removed; null mappings are not made. The result keeps the mirror BAT of
/// `ours`, and holds our own changes: that is checked before it is returned.
///
/// # Errors
/// [`MergeError::Conflict`] when a key changed on both sides, [`MergeError::Champ`] as [`diff`] and
/// [`Champ::apply`].
pub async fn merge(
    base: &Champ,
    ours: &Champ,
    theirs: &Champ,
    source: &dyn BlockSource,
) -> Result<Champ, MergeError> {
    let our_changes = diff(base, ours, source).await?;
    let their_changes = diff(base, theirs, source).await?;
    let our_keys: HashSet<&Bytes> = our_changes.iter().map(|change| &change.key).collect();
    if let Some(change) = their_changes
        .iter()
        .find(|change| our_keys.contains(&change.key))
    {
        return Err(MergeError::Conflict {
            key: change.key.clone(),
        });
    }
    let mut merged = ours.clone();
    let changes = their_changes.into_iter().map(|difference| Change {
        key: difference.key,
        expected: difference.before,
        value: difference.after,
    });
    merged.apply(changes.collect(), source).await?;
    for Difference { key, after, .. } in our_changes {
        if merged.get(&key, source).await? != after {
            return Err(MergeError::Lost { key });
        }
    }
    Ok(merged)
}
