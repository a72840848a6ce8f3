//! Which updates extend a chain (Spec: 10 §4).

use super::{ClaimChain, InvalidChain, MAX_LINKS, OwnerKeys};
use crate::username::Username;

/// Why an update is not a legal extension; most texts are what official registrars answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A first registration must have exactly one link.
    #[error("First claim chain must have exactly one link!")]
    FirstChainLength(usize),
    /// A first registration that is not valid for the name.
    #[error("Invalid first claim!")]
    InvalidFirstClaim(#[source] InvalidChain),
    /// The update adds nothing to a leading part of the existing chain: an empty or truncated chain.
    #[error("Claim chain update without new links!")]
    NothingNew,
    /// A claim that would expire earlier than the one it replaces.
    #[error("New claim chain expiry before existing!")]
    EarlierExpiry,
    /// One link by another key.
    #[error("User already exists: Invalid key change attempt!")]
    OtherKey,
    /// Several links that start with another key.
    #[error("Different keys in merge chains intersection!")]
    OtherKeys,
    /// The new holder is a key that was replaced before.
    #[error("You cannot reuse a previous password!")]
    ReusedKey,
    /// The result would not be valid for the name.
    #[error("Invalid key chain merge!")]
    InvalidResult(#[source] InvalidChain),
    /// The result would have more than [`MAX_LINKS`].
    #[error("Claim chain too long!")]
    TooLong,
}

impl ClaimChain {
    /// Applies `update`, the full new chain or only its changed tail, to the chain stored under `name`.
    ///
    /// Returns the new chain; it equals `existing` when nothing changes.
    ///
    /// # Errors
    /// [`MergeError`]; the existing chain stays in force.
    pub fn merge(
        existing: &Self,
        update: &Self,
        name: &Username,
        keys: &OwnerKeys,
    ) -> Result<Self, MergeError> {
        let Some((last, before_last)) = existing.links.split_last() else {
            if update.links.len() != 1 {
                return Err(MergeError::FirstChainLength(update.links.len()));
            }
            return match update.valid(name, keys) {
                Ok(()) => Ok(update.clone()),
                Err(reason) => Err(MergeError::InvalidFirstClaim(reason)),
            };
        };
        if update == existing {
            return Ok(existing.clone());
        }
        let common = existing
            .links
            .iter()
            .zip(&update.links)
            .take_while(|(a, b)| a == b)
            .count();
        let tail = update.links.get(common..).unwrap_or_default();
        let (Some(first), Some(newest)) = (tail.first(), tail.last()) else {
            return Err(MergeError::NothingNew);
        };
        if first.claim.expiry < last.claim.expiry {
            return Err(MergeError::EarlierExpiry);
        }
        if first.owner != last.owner {
            return Err(match tail {
                [_] => MergeError::OtherKey,
                _ => MergeError::OtherKeys,
            });
        }
        if before_last.iter().any(|link| link.owner == newest.owner) {
            return Err(MergeError::ReusedKey);
        }
        if before_last.len() + tail.len() > MAX_LINKS {
            return Err(MergeError::TooLong);
        }
        let result = Self {
            links: [before_last, tail].concat(),
        };
        result
            .valid(name, keys)
            .map_err(MergeError::InvalidResult)?;
        Ok(result)
    }
}
