//! Maps with text keys in the profile's key order (Spec: 01 §1.3).

use std::cmp::Ordering;

use super::Value;

/// A map sorted by [`compare_keys`], without duplicate keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Map {
    entries: Vec<(String, Value)>,
}

impl Map {
    /// Makes an empty map.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// Sets `key`, replacing what was there.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.search(&key) {
            Ok(i) => self
                .entries
                .get_mut(i)
                .map(|entry| std::mem::replace(&mut entry.1, value)),
            Err(i) => {
                self.entries.insert(i, (key, value));
                None
            }
        }
    }

    /// Sets `key` when there is a value; optional fields are left out, never null (Spec: 01 §1.7).
    pub fn insert_some(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.insert(key, value);
        }
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.search(key)
            .ok()
            .and_then(|i| self.entries.get(i))
            .map(|(_, value)| value)
    }

    /// Replaces the value of `key` by null and returns it, without moving the entries after it.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        let i = self.search(key).ok()?;
        let (_, value) = self.entries.get_mut(i)?;
        Some(std::mem::replace(value, Value::Null))
    }

    /// Removes the entries of `keys`.
    pub(super) fn without(mut self, keys: &[&str]) -> Self {
        self.entries
            .retain(|(key, _)| !keys.contains(&key.as_str()));
        self
    }

    /// Removes and returns the value of `key`.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.search(key).ok().map(|i| self.entries.remove(i).1)
    }

    /// Returns true when `key` is present.
    pub fn contains(&self, key: &str) -> bool {
        self.search(key).is_ok()
    }

    /// Visits the entries in encoded order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// Returns the number of entries.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true when there are none.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds entries read from input in any order; false when a key occurs twice.
    pub(super) fn from_unsorted(mut entries: Vec<(String, Value)>) -> Option<Self> {
        let ascending = |entries: &[(String, Value)]| {
            entries
                .iter()
                .zip(entries.iter().skip(1))
                .all(|((a, _), (b, _))| compare_keys(a, b).is_lt())
        };
        if !ascending(&entries) {
            entries.sort_by(|(a, _), (b, _)| compare_keys(a, b));
        }
        ascending(&entries).then_some(Self { entries })
    }

    fn search(&self, key: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|(k, _)| compare_keys(k, key))
    }
}

impl IntoIterator for Map {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Map {
    /// Of several values for a key the last one stays.
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Self {
        let mut entries: Vec<(String, Value)> = entries
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        entries.reverse();
        entries.sort_by(|(a, _), (b, _)| compare_keys(a, b));
        entries.dedup_by(|(a, _), (b, _)| a == b);
        Self { entries }
    }
}

/// Orders keys by number of UTF-16 code units, then by the units themselves.
pub fn compare_keys(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() {
        return a.len().cmp(&b.len()).then_with(|| a.cmp(b));
    }
    let length = |s: &str| s.encode_utf16().count();
    length(a)
        .cmp(&length(b))
        .then_with(|| a.encode_utf16().cmp(b.encode_utf16()))
}
