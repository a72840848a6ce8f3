//! What was read lately: sites and small files, the one unused longest goes first (Spec: 13 §9.3).

use std::{collections::HashMap, hash::Hash};

/// Values by key, bounded in number and in bytes.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    entries: HashMap<K, Entry<V>>,
    clock: u64,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            entries: HashMap::new(),
            clock: 0,
            bytes: 0,
            max_entries,
            max_bytes,
        }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(entry.value.clone())
    }

    /// Keeps a value that takes `bytes`; one that is larger than the whole cache is not kept.
    pub(super) fn insert(&mut self, key: K, value: V, bytes: usize) {
        self.remove(&key);
        if bytes > self.max_bytes {
            return;
        }
        while self.entries.len() >= self.max_entries || self.bytes + bytes > self.max_bytes {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                return;
            };
            self.remove(&oldest);
        }
        self.clock += 1;
        self.bytes += bytes;
        let used = self.clock;
        self.entries.insert(key, Entry { value, bytes, used });
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
        }
    }

    /// Removes all entries whose key is not wanted.
    pub(super) fn retain(&mut self, wanted: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| wanted(key));
        self.bytes = self.entries.values().map(|entry| entry.bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_bytes_are_bounded_and_the_oldest_goes_first() {
        let mut cache = Cache::new(3, 100);
        for n in 0..3 {
            cache.insert(n, n, 30);
        }
        assert_eq!(cache.get(&0), Some(0));
        cache.insert(3, 3, 30);
        assert_eq!(cache.get(&1), None, "the one unused longest");
        assert_eq!(cache.get(&0), Some(0));
        cache.insert(4, 4, 80);
        assert_eq!((cache.entries.len(), cache.bytes), (1, 80));
        cache.insert(5, 5, 101);
        assert_eq!(cache.get(&5), None);
        cache.insert(4, 6, 10);
        assert_eq!((cache.get(&4), cache.bytes), (Some(6), 10));
        cache.retain(|key| *key != 4);
        assert_eq!((cache.entries.len(), cache.bytes), (0, 0));
    }
}
