//! What a node believes about names, whatever the registrar does (Spec: 10 §8.3, §8.4).
//!
//! The registrar is hostile for everything but the assignment of free names. Per name the table is append
//! only, and a key that is bound to a name is never bound to another one.

use std::collections::HashMap;

use super::{ClaimChain, InvalidChain, MergeError, OwnerKeys};
use crate::{keys::PublicKeyHash, username::Username};

/// What becomes of one changed name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// The new chain is in force.
    Accepted,
    /// The new value equals the old one.
    Unchanged,
    /// The old chain stays in force; to be logged and reported.
    Kept(Kept),
    /// There was no valid chain before and there is none now: answered as unknown, never routed by.
    Blocked(InvalidChain),
}

/// Why an old chain stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Kept {
    /// The table no longer has the name; deletions do not exist.
    #[error("the name was removed from the table")]
    Removed,
    /// The new chain does not extend the old one.
    #[error("the new chain does not extend the old one")]
    NotAnExtension(#[source] MergeError),
    /// The new chain is not what the rules make of it and the old one.
    #[error("the new chain is not the result of its merge")]
    OtherResult,
}

/// Names, their chains, and keys -> names.
#[derive(Debug, Clone, Default)]
pub struct NameDirectory {
    entries: HashMap<Username, Entry>,
    names: HashMap<PublicKeyHash, Username>,
}

#[derive(Debug, Clone)]
enum Entry {
    Chain(ClaimChain),
    Blocked,
}

impl NameDirectory {
    /// Knows no name.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides what a changed value means for a name, without changing anything.
    ///
    /// `new` is none when the table no longer has the name. A value that is no chain at all counts as an
    /// empty one.
    pub fn judge(&self, name: &Username, new: Option<&ClaimChain>, keys: &OwnerKeys) -> Adoption {
        judge(self.chain(name.as_str()), name, new, keys)
    }

    /// Applies a changed value.
    ///
    /// Returns the judgement, and the keys of an accepted chain that stay bound to another name.
    pub fn apply(
        &mut self,
        name: &Username,
        new: Option<ClaimChain>,
        keys: &OwnerKeys,
    ) -> (Adoption, Vec<PublicKeyHash>) {
        let adoption = self.judge(name, new.as_ref(), keys);
        let mut elsewhere = Vec::new();
        match (&adoption, new) {
            (Adoption::Accepted, Some(chain)) => {
                for link in chain.links() {
                    let bound = self
                        .names
                        .entry(link.owner.hash().clone())
                        .or_insert_with(|| name.clone());
                    if bound != name {
                        elsewhere.push(link.owner.hash().clone());
                    }
                }
                self.entries.insert(name.clone(), Entry::Chain(chain));
            }
            (Adoption::Blocked(_), Some(_)) => {
                self.entries.insert(name.clone(), Entry::Blocked);
            }
            _ => {}
        }
        (adoption, elsewhere)
    }

    /// Returns the chain of a name; none for unknown and for blocked names.
    pub fn chain(&self, name: &str) -> Option<&ClaimChain> {
        match self.entries.get(name)? {
            Entry::Chain(chain) => Some(chain),
            Entry::Blocked => None,
        }
    }

    /// Returns true for a name whose entries so far were all invalid.
    pub fn is_blocked(&self, name: &str) -> bool {
        matches!(self.entries.get(name), Some(Entry::Blocked))
    }

    /// Returns the name a key was first bound to, for every key that ever was in its chain.
    pub fn name_of(&self, key: &PublicKeyHash) -> Option<&Username> {
        self.names.get(key)
    }

    /// Visits the names with a chain, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &Username> {
        self.entries
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Chain(_)))
            .map(|(name, _)| name)
    }

    /// Returns the number of names, blocked ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true when no name is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Decides what a changed value means for a name whose accepted chain is `old` (Spec: 10 §8.3).
pub fn judge(
    old: Option<&ClaimChain>,
    name: &Username,
    new: Option<&ClaimChain>,
    keys: &OwnerKeys,
) -> Adoption {
    match (old, new) {
        (None, None) => Adoption::Unchanged,
        (Some(_), None) => Adoption::Kept(Kept::Removed),
        (None, Some(new)) => match new.valid(name, keys) {
            Ok(()) => Adoption::Accepted,
            Err(reason) => Adoption::Blocked(reason),
        },
        (Some(old), Some(new)) if old == new => Adoption::Unchanged,
        (Some(old), Some(new)) => match ClaimChain::merge(old, new, name, keys) {
            Ok(merged) if merged == *new => Adoption::Accepted,
            Ok(_) => Adoption::Kept(Kept::OtherResult),
            Err(reason) => Adoption::Kept(Kept::NotAnExtension(reason)),
        },
    }
}
