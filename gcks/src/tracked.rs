//! A map that knows which of its entries differ from what the state has of them, so that a change
//! of one entry costs one record and not all.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// Entries that may wait for a later write, written with each one: a push to ten thousand members
/// must not make one write of ten thousand records.
const LATER: usize = 256;

/// A map read like a [`BTreeMap`] and changed by methods that take note of it. A new one counts as
/// changed as a whole.
#[derive(Clone, Debug)]
pub struct Tracked<K, V> {
    entries: BTreeMap<K, V>,
    all: bool,
    changed: BTreeSet<K>,
    /// Figures that may be lost in a crash.
    later: BTreeSet<K>,
}

impl<K, V> Default for Tracked<K, V> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            all: true,
            changed: BTreeSet::new(),
            later: BTreeSet::new(),
        }
    }
}

impl<K, V> Deref for Tracked<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.entries
    }
}

impl<K: Ord + Clone, V> Tracked<K, V> {
    /// Adds or replaces an entry; returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.note(&key);
        self.entries.insert(key, value)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.entries.remove(key)?;
        self.note(key);
        Some(removed)
    }

    /// An entry to change.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        if !self.all {
            self.changed.insert(key.clone());
        }
        Some(entry)
    }

    /// An entry whose change may be lost in a crash.
    pub fn get_mut_for_later(&mut self, key: &K) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        if !self.all && !self.changed.contains(key) {
            self.later.insert(key.clone());
        }
        Some(entry)
    }

    /// All entries to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.all = true;
        self.entries.iter_mut()
    }

    /// Takes all entries out.
    pub fn take(&mut self) -> BTreeMap<K, V> {
        self.all |= !self.entries.is_empty();
        std::mem::take(&mut self.entries)
    }

    /// Takes the entries out that `is_meant` tells.
    pub fn extract(&mut self, mut is_meant: impl FnMut(&V) -> bool) -> Vec<(K, V)> {
        let extracted: Vec<(K, V)> =
            self.entries.extract_if(.., |_, value| is_meant(value)).collect();
        extracted.iter().for_each(|(key, _)| self.note(key));
        extracted
    }

    /// Whether an entry has to be written, those that may wait not counted.
    pub fn is_changed(&self) -> bool {
        self.all || !self.changed.is_empty()
    }

    /// What to write: `None` is everything, and whatever else there is in the state goes.
    pub fn unsaved(&self) -> Option<impl Iterator<Item = &K>> {
        (!self.all).then(|| self.changed.iter().chain(self.later.iter().take(LATER)))
    }

    /// What [`Tracked::unsaved`] told has been written.
    pub fn saved(&mut self) {
        if std::mem::take(&mut self.all) {
            self.later.clear();
        }
        self.changed.clear();
        match self.later.iter().nth(LATER).cloned() {
            Some(first) => self.later = self.later.split_off(&first),
            None => self.later.clear(),
        }
    }

    fn note(&mut self, key: &K) {
        self.later.remove(key);
        if !self.all {
            self.changed.insert(key.clone());
        }
    }
}

impl<K: Ord + Clone, V> Extend<(K, V)> for Tracked<K, V> {
    fn extend<T: IntoIterator<Item = (K, V)>>(&mut self, entries: T) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord + Clone, V> FromIterator<(K, V)> for Tracked<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Self {
        let mut tracked = Self::default();
        tracked.extend(entries);
        tracked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsaved(tracked: &Tracked<u32, u32>) -> Option<Vec<u32>> {
        tracked.unsaved().map(|keys| keys.copied().collect())
    }

    #[test]
    fn every_change_is_noted_once_and_what_may_wait_is_written_in_parts() {
        let mut tracked: Tracked<u32, u32> = (0..1000).map(|number| (number, 0)).collect();
        assert_eq!(unsaved(&tracked), None, "a new one as a whole");
        tracked.saved();
        assert_eq!(unsaved(&tracked), Some(Vec::new()));
        tracked.insert(7, 1);
        *tracked.get_mut(&3).unwrap() = 2;
        tracked.remove(&5);
        assert_eq!((tracked.remove(&5), tracked.get_mut(&5)), (None, None));
        assert_eq!(unsaved(&tracked), Some(vec![3, 5, 7]));
        assert_eq!(tracked.extract(|value| *value == 1), [(7, 1)]);
        assert!(tracked.is_changed());
        tracked.saved();
        for key in 0..600 {
            tracked.get_mut_for_later(&key);
        }
        assert!(!tracked.is_changed());
        let mut written = BTreeSet::new();
        for count in [256, 256, 86, 0] {
            let part = unsaved(&tracked).unwrap();
            assert_eq!(part.len(), count);
            written.extend(part);
            tracked.saved();
        }
        assert_eq!(written.len(), 598, "all that are there");
        tracked.iter_mut().for_each(|(_, value)| *value = 9);
        assert_eq!(unsaved(&tracked), None);
        tracked.saved();
        assert_eq!(tracked.take().len(), 998);
        assert_eq!(unsaved(&tracked), None);
    }
}
