//! The registrar's decision about one update (Spec: 10 §8.5).
//!
//! Pure: loading the chain from the current root, counting requests and writing the result, all under one
//! lock, are for the node.

use super::{ClaimChain, MergeError, OwnerKeys};
use crate::{
    claim::placeholder_provider,
    keys::PublicKeyHash,
    username::{Username, UsernameError},
};

/// Links up to which updates of an existing chain need no proof of work (Spec: 10 §5).
pub const FREE_LINKS: usize = 10;

/// Returns true when an update needs a proof of work: new names, and long chains.
pub fn needs_proof_of_work(existing: &ClaimChain) -> bool {
    existing.is_empty() || existing.links().len() > FREE_LINKS
}

/// An update as it arrives, and what the registrar knows about it.
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    /// The name as sent.
    pub name: &'a str,
    /// The chain or its changed tail.
    pub update: &'a ClaimChain,
    /// The chain in the current root; empty for a free name.
    pub existing: &'a ClaimChain,
    /// The key for which a started paid sign-up reserved the name.
    pub reserved_for: Option<&'a PublicKeyHash>,
    /// Whether new claims may name "the server that is asked" (Spec: 10 §2.1): official registrars take
    /// them, new networks should not.
    pub allows_placeholder: bool,
}

/// What to do with an update that is not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// Store this chain, compare-and-set against the existing value, then answer true.
    Store(ClaimChain),
    /// The update equals what is stored: answer true.
    Unchanged,
    /// Answer false and this difficulty; no state changes.
    MoreWork(u16),
}

/// Why an update is refused; the texts are what official registrars answer where they have one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// A new name that may not be registered.
    #[error("Invalid username")]
    Username(#[source] UsernameError),
    /// Not a legal extension of the chain.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The identity key of a new name already holds another one.
    #[error("Identity key already has a username!")]
    KeyBound,
    /// The name is reserved for another key.
    #[error("Username already reserved!")]
    Reserved,
    /// A new claim for "the server that is asked", which names no server.
    #[error("Claim names no server!")]
    PlaceholderProvider,
}

impl Registration<'_> {
    /// Decides, in the order of Spec: 10 §8.5.
    ///
    /// `missing_work` is asked once, and only when a proof is needed: it returns the difficulty when the
    /// proof sent with the update does not reach it. `bound_to` is the reverse table.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn decide<'n>(
        &self,
        keys: &OwnerKeys,
        missing_work: impl FnOnce() -> Option<u16>,
        bound_to: impl Fn(&PublicKeyHash) -> Option<&'n Username>,
    ) -> Result<Ruling, RegistrationError> {
        let is_new = self.existing.is_empty();
        let name = match is_new {
            true => Username::parse_new(self.name),
            false => Username::parse(self.name),
        }
        .map_err(RegistrationError::Username)?;
        if needs_proof_of_work(self.existing)
            && let Some(difficulty) = missing_work()
        {
            return Ok(Ruling::MoreWork(difficulty));
        }
        let merged = ClaimChain::merge(self.existing, self.update, &name, keys)?;
        if merged == *self.existing {
            return Ok(Ruling::Unchanged);
        }
        let identity = merged.identity().map(|owner| owner.hash());
        if is_new && self.reserved_for.is_some() && self.reserved_for != identity {
            return Err(RegistrationError::Reserved);
        }
        // Also for a key change: otherwise one key would end up with two names.
        if identity
            .and_then(&bound_to)
            .is_some_and(|held| *held != name)
        {
            return Err(RegistrationError::KeyBound);
        }
        if !self.allows_placeholder
            && merged.home() == Some(&placeholder_provider())
            && self.existing.home() != Some(&placeholder_provider())
        {
            return Err(RegistrationError::PlaceholderProvider);
        }
        Ok(Ruling::Store(merged))
    }
}
