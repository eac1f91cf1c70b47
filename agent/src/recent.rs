//! A bounded map that forgets what was not used for long.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};

/// A map whose keys the kernel gives: numbers of processes, inodes, namespaces. Whatever a file, a document or a program can
/// choose is hashed with a seed, as the standard library's maps do.
#[expect(clippy::disallowed_types, reason = "this is the one place where nobody outside chooses the keys")]
pub(crate) type ByNumber<K, V> = rustc_hash::FxHashMap<K, V>;
/// How they are hashed.
#[expect(clippy::disallowed_types, reason = "this is the one place where nobody outside chooses the keys")]
type Fast = rustc_hash::FxBuildHasher;

/// A bounded map in two generations: what is used moves to the young one; when the young one is full it becomes the
/// old one and what was in the old one is forgotten. Every operation is O(1), and an entry used at least once per
/// `capacity / 2` new entries is never forgotten.
pub struct Recent<K, V, S = Fast> {
    young: HashMap<K, V, S>,
    old: HashMap<K, V, S>,
    half: usize,
}

impl<K: fmt::Debug, V: fmt::Debug, S> fmt::Debug for Recent<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { young, old, half } = self;
        f.debug_struct("Recent").field("young", young).field("old", old).field("half", half).finish()
    }
}

/// One whose keys somebody outside may choose.
pub type Seeded<K, V> = Recent<K, V, RandomState>;

impl<K: Eq + Hash, V> Recent<K, V> {
    /// Holds at most `capacity` entries (at least 2).
    pub fn new(capacity: usize) -> Self {
        Self::holding(capacity)
    }
}

impl<K: Eq + Hash, V> Seeded<K, V> {
    /// Holds at most `capacity` entries (at least 2).
    pub fn seeded(capacity: usize) -> Self {
        Self::holding(capacity)
    }
}

impl<K: Eq + Hash, V, S: BuildHasher + Default> Recent<K, V, S> {
    fn holding(capacity: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), half: (capacity / 2).max(1) }
    }

    /// The entry, which counts as used.
    pub fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
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
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
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
