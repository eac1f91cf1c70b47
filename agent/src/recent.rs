//! A bounded map that forgets what was not used for long.

use std::hash::Hash;

/// A map whose keys the kernel gives: numbers of processes, inodes, namespaces. Whatever a file, a document or a program can
/// choose is hashed with a seed, as the standard library's maps do.
#[expect(clippy::disallowed_types, reason = "this is the one place where nobody outside chooses the keys")]
pub(crate) type ByNumber<K, V> = rustc_hash::FxHashMap<K, V>;

/// A bounded map in two generations: what is used moves to the young one; when the young one is full it becomes the
/// old one and what was in the old one is forgotten. Every operation is O(1), and an entry used at least once per
/// `capacity / 2` new entries is never forgotten.
#[derive(Debug)]
pub struct Recent<K, V> {
    young: ByNumber<K, V>,
    old: ByNumber<K, V>,
    half: usize,
}

impl<K: Eq + Hash + Copy, V> Recent<K, V> {
    /// Holds at most `capacity` entries (at least 2).
    pub fn new(capacity: usize) -> Self {
        Self { young: ByNumber::default(), old: ByNumber::default(), half: (capacity / 2).max(1) }
    }

    /// The entry, which counts as used.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        if let Some(value) = self.old.remove(key) {
            self.insert(*key, value);
        }
        self.young.get_mut(key)
    }

    /// Puts an entry in place of an older one with the same key.
    pub fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let old = self.old.remove(key);
        self.young.remove(key).or(old)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// No entry is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_unused_and_keeps_the_used() {
        let mut map = Recent::new(8);
        map.insert(0, "kept");
        for n in 1..1000 {
            map.insert(n, "new");
            assert_eq!(map.get(&0).copied(), Some("kept"), "after {n}");
            assert!(map.len() <= 8, "{} entries after {n}", map.len());
        }
        assert_eq!(map.get(&1), None);
        assert_eq!(map.get(&999).copied(), Some("new"));
        assert_eq!(map.remove(&0), Some("kept"));
        assert_eq!(map.get(&0), None);
    }

    #[test]
    fn the_newest_value_counts() {
        let mut map = Recent::new(2);
        map.insert(1, 'a');
        map.insert(2, 'b');
        map.insert(1, 'c');
        assert_eq!(map.get(&1).copied(), Some('c'));
        assert_eq!(map.remove(&1), Some('c'));
        assert_eq!(map.remove(&1), None);
    }
}
