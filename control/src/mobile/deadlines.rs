//! Many deadlines, of which the next one is known at once.

use std::collections::{BTreeMap, BTreeSet};

use homeport_proto::Instant;

/// One deadline for each key.
#[derive(Clone, Debug)]
pub struct Deadlines<K> {
    of: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Deadlines { of: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Deadlines<K> {
    /// Sets the deadline of `key`, in place of the one that it had.
    pub fn set(&mut self, key: K, at: Instant) {
        if let Some(old) = self.of.insert(key.clone(), at) {
            self.order.remove(&(old, key.clone()));
        }
        self.order.insert((at, key));
    }

    /// `key` has none any more.
    pub fn remove(&mut self, key: &K) {
        if let Some(old) = self.of.remove(key) {
            self.order.remove(&(old, key.clone()));
        }
    }

    /// The deadline of `key`.
    pub fn get(&self, key: &K) -> Option<Instant> {
        self.of.get(key).copied()
    }

    /// The next deadline.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the key whose deadline is the oldest that has passed.
    pub fn take_due(&mut self, now: Instant) -> Option<K> {
        let (at, _) = self.order.first()?;
        if *at > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.of.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_comes_first_and_what_was_set_anew_or_removed_comes_no_more() {
        let mut deadlines = Deadlines::default();
        assert_eq!((deadlines.next(), deadlines.take_due(Instant(9))), (None, None));
        for (key, at) in [("a", 5), ("b", 3), ("c", 3), ("a", 2), ("d", 1)] {
            deadlines.set(key, Instant(at));
        }
        deadlines.remove(&"d");
        assert_eq!((deadlines.next(), deadlines.get(&"a")), (Some(Instant(2)), Some(Instant(2))));
        assert_eq!(deadlines.take_due(Instant(1)), None);
        let due: Vec<_> = std::iter::from_fn(|| deadlines.take_due(Instant(3))).collect();
        assert_eq!(due, ["a", "b", "c"]);
        assert_eq!((deadlines.next(), deadlines.get(&"a")), (None, None));
    }
}
