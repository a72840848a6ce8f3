//! The children of one page (Spec: 20 §4.3, §4.4).

use champ::cbor::{Record, RecordError, Value};

use crate::{
    capability::{Child, ChildEntry, RelativeCapability},
    properties::FileName,
};

/// Most children a writer puts on a page; readers accept more.
pub const MAX_PAGE_CHILDREN: usize = 500;

/// The children of one page, in stored order, which means nothing.
///
/// Names should be unique over all pages, but readers meet duplicates: lookup takes the first, and nothing
/// is lost on rewriting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChildList {
    children: Vec<Child>,
}

impl ChildList {
    /// Makes an empty list.
    pub const fn new() -> Self {
        Self {
            children: Vec::new(),
        }
    }

    /// Visits all children, with those that cannot be used.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Child> {
        self.children.iter()
    }

    /// Visits the children with names.
    pub fn entries(&self) -> impl Iterator<Item = &ChildEntry> {
        self.children.iter().filter_map(|child| match child {
            Child::Named(entry) => Some(entry),
            Child::Unnamed(_) | Child::Unreadable(..) => None,
        })
    }

    /// Returns the number of children.
    pub const fn len(&self) -> usize {
        self.children.len()
    }

    /// Returns true when there are none.
    pub const fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Returns how many entries a writer may still add.
    pub const fn room(&self) -> usize {
        MAX_PAGE_CHILDREN.saturating_sub(self.children.len())
    }

    /// Returns true when the names must be fetched from the children (legacy).
    pub fn is_unnamed(&self) -> bool {
        matches!(self.children.first(), Some(Child::Unnamed(_)))
    }

    /// Returns the first child of that name.
    pub fn find(&self, name: &str) -> Option<&ChildEntry> {
        self.entries().find(|entry| entry.name.as_str() == name)
    }

    /// Appends a child. That the name is free on all pages is for the caller to check.
    pub fn push(&mut self, entry: ChildEntry) {
        self.children.push(Child::Named(entry));
    }

    /// Replaces the first child with that name and place; false when there is none.
    ///
    /// The place is compared because two children may have one name.
    pub fn replace(
        &mut self,
        name: &FileName,
        capability: &RelativeCapability,
        entry: ChildEntry,
    ) -> bool {
        self.position(name, capability)
            .and_then(|i| self.children.get_mut(i))
            .map(|child| *child = Child::Named(entry))
            .is_some()
    }

    /// Removes the first child with that name and place.
    pub fn remove(&mut self, name: &FileName, capability: &RelativeCapability) -> Option<Child> {
        self.position(name, capability)
            .map(|i| self.children.remove(i))
    }

    /// Removes the entries that readers must not use, and returns how many there were.
    pub fn remove_unreadable(&mut self) -> usize {
        let before = self.children.len();
        self.children
            .retain(|child| !matches!(child, Child::Unreadable(..)));
        before - self.children.len()
    }

    fn position(&self, name: &FileName, capability: &RelativeCapability) -> Option<usize> {
        self.children.iter().position(|child| {
            child.name() == Some(name)
                && child.capability().is_some_and(|found| {
                    found.map_key == capability.map_key && found.writer == capability.writer
                })
        })
    }
}

impl FromIterator<ChildEntry> for ChildList {
    fn from_iter<T: IntoIterator<Item = ChildEntry>>(entries: T) -> Self {
        Self {
            children: entries.into_iter().map(Child::Named).collect(),
        }
    }
}

impl IntoIterator for ChildList {
    type Item = Child;
    type IntoIter = std::vec::IntoIter<Child>;

    fn into_iter(self) -> Self::IntoIter {
        self.children.into_iter()
    }
}

impl Record for ChildList {
    fn to_value(&self) -> Value {
        let encode = |child: &Child| match child {
            Child::Named(entry) => entry.to_value(),
            Child::Unnamed(capability) => capability.to_value(),
            Child::Unreadable(value, _) => value.clone(),
        };
        Value::List(self.children.iter().map(encode).collect())
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let list = value.into_list("child list")?;
        // The first element decides for the whole list.
        let is_named = matches!(list.first(), Some(Value::Map(map)) if map.contains("n"));
        let decode = |value: Value| {
            let child = if is_named {
                ChildEntry::from_value(value.clone()).map(Child::Named)
            } else {
                RelativeCapability::from_value(value.clone()).map(Child::Unnamed)
            };
            child.unwrap_or_else(|reason| Child::Unreadable(value, reason))
        };
        Ok(Self {
            children: list.into_iter().map(decode).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use champ::cbor::Map;

    use super::*;
    use crate::{capability::MapKey, crypto::SymmetricKey};

    fn entry(name: &str, place: u8) -> ChildEntry {
        ChildEntry {
            name: FileName::parse(name).unwrap(),
            is_directory: None,
            mime_type: None,
            created_epoch_seconds: None,
            capability: RelativeCapability::read_only(
                MapKey::from_bytes([place; 32]),
                None,
                SymmetricKey::from_bytes([1; 32]),
            ),
            unknown: Map::new(),
        }
    }

    #[test]
    fn one_bad_entry_does_not_lock_the_page_and_is_not_lost() {
        let mut bad = entry("x", 3).to_value();
        if let Value::Map(map) = &mut bad {
            map.insert("n", "../x");
        }
        let list = Value::List(vec![
            entry("a", 1).to_value(),
            bad,
            Value::Null,
            entry("b", 2).to_value(),
        ]);
        let children = ChildList::from_value(list.clone()).unwrap();
        let names: Vec<&str> = children.entries().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(children.len(), 4);
        assert!(children.iter().any(|c| matches!(c, Child::Unreadable(..))));
        assert_eq!(children.to_value(), list);
    }

    #[test]
    fn duplicates_are_kept_and_addressed_by_place() {
        let mut children: ChildList = [entry("a", 1), entry("a", 2)].into_iter().collect();
        assert_eq!(children.find("a"), Some(&entry("a", 1)));
        let second = entry("a", 2);
        assert!(children.remove(&second.name, &second.capability).is_some());
        assert!(children.remove(&second.name, &second.capability).is_none());
        assert_eq!(children.find("a"), Some(&entry("a", 1)));
        assert!(!children.replace(&second.name, &second.capability, entry("b", 2)));
        let first = entry("a", 1);
        assert!(children.replace(&first.name, &first.capability, entry("c", 3)));
        assert_eq!(children.find("c"), Some(&entry("c", 3)));
    }

    #[test]
    fn the_first_element_decides_whether_names_are_there() {
        let bare = entry("a", 1).capability;
        let list = Value::List(vec![bare.to_value(), entry("b", 2).to_value()]);
        let children = ChildList::from_value(list).unwrap();
        assert!(children.is_unnamed());
        assert_eq!(children.entries().count(), 0);
        assert!(!ChildList::new().is_unnamed());
    }
}
