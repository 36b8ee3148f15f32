//! Records in memory that is taken once, and the hash chains that find them.

use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

use crate::table::memory;
use crate::table::prefetch::prefetch;

/// No record.
pub(super) const NONE: u32 = u32::MAX;

/// Memory for as many elements, which all are the same in the beginning: all that is
/// large in the NAPT is made here.
pub(super) fn array<T>(count: usize, element: impl Fn() -> T) -> Box<[T]> {
    let mut array = Vec::with_capacity(count);
    memory::advise(array.spare_capacity_mut());
    array.extend((0..count).map(|_| element()));
    array.into_boxed_slice()
}

/// How many records from now a place is asked for.
const AHEAD: usize = 8;

/// Up to a fixed number of records, each under a number of its own.
pub(super) struct Slab<T> {
    records: Box<[Option<T>]>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    /// Room for `capacity` records, taken now.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = u32::try_from(capacity).unwrap_or(NONE - 1);
        let records = array(capacity as usize, || None);
        Slab { records, free: (0..capacity).rev().collect() }
    }

    /// Brings a record into the cache.
    #[inline(always)]
    pub(super) fn prefetch(&self, id: u32) {
        if let Some(record) = self.records.get(id as usize) {
            prefetch(record);
        }
    }

    #[inline(always)]
    pub(super) fn get(&self, id: u32) -> Option<&T> {
        self.records.get(id as usize)?.as_ref()
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.records.get_mut(id as usize)?.as_mut()
    }

    /// Keeps a record; `None` when all places are taken.
    pub(super) fn insert(&mut self, record: T) -> Option<u32> {
        let id = self.free.pop()?;
        // Who comes soon finds its place in the cache.
        if let Some(soon) = self.free.len().checked_sub(AHEAD).and_then(|at| self.free.get(at)) {
            self.prefetch(*soon);
        }
        *self.records.get_mut(id as usize)? = Some(record);
        Some(id)
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<T> {
        let record = self.records.get_mut(id as usize)?.take()?;
        self.free.push(id);
        Some(record)
    }

    pub(super) fn capacity(&self) -> usize {
        self.records.len()
    }

    pub(super) fn len(&self) -> usize {
        self.records.len() - self.free.len()
    }

    pub(super) fn available(&self) -> usize {
        self.free.len()
    }
}

/// Chains of record numbers by the hash of their keys.
pub(super) struct Chains {
    heads: Box<[u32]>,
    next: Box<[u32]>,
}

impl Chains {
    /// Chains for the records of a slab with this capacity.
    pub(super) fn new(capacity: usize) -> Self {
        let heads = vec![NONE; capacity.max(1).next_power_of_two()].into_boxed_slice();
        Chains { heads, next: vec![NONE; capacity].into_boxed_slice() }
    }

    /// The records whose keys may have this hash.
    pub(super) fn of(&self, hash: u64) -> impl Iterator<Item = u32> {
        let first = self.heads.get(self.head(hash)).copied();
        let link = |id: &u32| self.next.get(*id as usize).copied().filter(|id| *id != NONE);
        std::iter::successors(first.filter(|id| *id != NONE), link)
    }

    pub(super) fn insert(&mut self, hash: u64, id: u32) {
        let at = self.head(hash);
        if let (Some(head), Some(next)) = (self.heads.get_mut(at), self.next.get_mut(id as usize)) {
            *next = std::mem::replace(head, id);
        }
    }

    pub(super) fn remove(&mut self, hash: u64, id: u32) {
        let Some(after) = self.next.get_mut(id as usize).map(|next| std::mem::replace(next, NONE))
        else {
            return;
        };
        let at = self.head(hash);
        let Some(head) = self.heads.get_mut(at) else { return };
        if *head == id {
            *head = after;
            return;
        }
        let mut before = *head;
        while let Some(next) = self.next.get_mut(before as usize) {
            if *next == id {
                *next = after;
                return;
            }
            before = *next;
        }
    }

    fn head(&self, hash: u64) -> usize {
        // A power of two of heads: the low bits choose.
        hash as usize & (self.heads.len() - 1)
    }
}

/// The keyed hash of what outsiders choose.
pub(super) fn hash([k0, k1]: [u64; 2], key: &impl Hash) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(k0, k1);
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Slab and chains together are a map, whatever comes and goes.
        #[test]
        fn records_are_found_until_they_are_removed(
            steps in proptest::collection::vec((any::<bool>(), 0u8..24), 1..200),
        ) {
            let mut slab = Slab::new(16);
            let mut chains = Chains::new(16);
            let mut model: HashMap<u8, u32> = HashMap::new();
            // Few heads: every chain is long.
            let hash = |key: u8| u64::from(key % 3);
            for (insert, key) in steps {
                if insert && !model.contains_key(&key) {
                    match slab.insert(key) {
                        Some(id) => {
                            chains.insert(hash(key), id);
                            model.insert(key, id);
                        }
                        None => prop_assert_eq!(model.len(), 16),
                    }
                } else if let Some(id) = model.remove(&key) {
                    chains.remove(hash(key), id);
                    prop_assert_eq!(slab.remove(id), Some(key));
                }
                prop_assert_eq!(slab.len(), model.len());
                for key in 0..24 {
                    let found = chains.of(hash(key)).find(|id| slab.get(*id) == Some(&key));
                    prop_assert_eq!(found, model.get(&key).copied());
                }
            }
        }
    }
}
