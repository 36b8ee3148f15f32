//! Look-ups in stages.
#![allow(unsafe_code, reason = "readers and the writer share entries without a lock")]

use super::bucket::index_of;
use super::{Entry, Place, Table};
use crate::sync::{AtomicU64, Ordering};
use crate::table::keyed::TableKey;
use crate::table::prefetch::prefetch;

/// The table of a reader that is online, and stays so as long as this borrows it: to go
/// offline, or to be quiescent, it must be borrowed alone.
///
/// It looks up in stages, so that the cache misses of many keys overlap: [`probe`] for
/// each, then [`locate`] for each, then [`confirm`].
///
/// [`probe`]: AtHand::probe
/// [`locate`]: AtHand::locate
/// [`confirm`]: AtHand::confirm
pub struct AtHand<'t, K, V> {
    /// Of a reader that is online.
    pub(super) table: &'t Table<K, V>,
}

impl<K, V> Clone for AtHand<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for AtHand<'_, K, V> {}

impl<'t, K, V> AtHand<'t, K, V>
where
    K: TableKey,
    V: Copy + Send + Sync + 'static,
{
    /// The first stage of a look-up: hashes the key and brings its first bucket into
    /// the cache.
    #[inline(always)]
    pub fn probe(self, key: &K) -> Probe {
        let Place { tag, buckets: [first, _] } = self.table.place(key);
        if let Some(bucket) = self.table.buckets.get(first) {
            prefetch(bucket);
        }
        // Buckets are fewer than entries can be numbered.
        Probe { tag, first: first as u32 }
    }

    /// The same for a key that is most probably not there: brings its second bucket into
    /// the cache too, which says so.
    #[inline(always)]
    pub fn probe_both(self, key: &K) -> Probe {
        let probe = self.probe(key);
        let second = self.table.second_bucket(probe.first as usize, probe.tag);
        if let Some(bucket) = self.table.buckets.get(second) {
            prefetch(bucket);
        }
        probe
    }

    /// The second stage: finds an entry that may be the key's, and brings it into the
    /// cache. `None`: the key is not there.
    #[inline(always)]
    pub fn locate(self, probe: &Probe) -> Option<Candidate<'t, K, V>> {
        let first = self.table.buckets.get(probe.first as usize)?;
        match first.slot(first.matching(probe.tag)) {
            Some(slot) => self.candidate(slot),
            None => self.locate_in_second(probe),
        }
    }

    /// The second stage for the few keys that are not in their first bucket.
    #[inline(never)]
    fn locate_in_second(self, probe: &Probe) -> Option<Candidate<'t, K, V>> {
        let second = self.table.second_bucket(probe.first as usize, probe.tag);
        let second = self.table.buckets.get(second)?;
        self.candidate(second.slot(second.matching(probe.tag))?)
    }

    #[inline(always)]
    fn candidate(self, slot: &AtomicU64) -> Option<Candidate<'t, K, V>> {
        // Acquire: the entry that it names has been filled.
        let word = slot.load(Ordering::Acquire);
        // SAFETY: a slot named it just now, and the reader is online and says nothing of
        // a quiescent point as long as the candidate lives (`AtHand`). (An empty slot
        // names nothing.)
        let entry = unsafe { self.table.entry(index_of(word)) }?;
        prefetch(entry);
        Some(Candidate { entry })
    }

    /// The last stage: the value, if the candidate is the key's.
    #[inline(always)]
    pub fn confirm(self, candidate: &Candidate<'t, K, V>, key: &K) -> Option<&'t V> {
        if candidate.entry.key == *key {
            return Some(&candidate.entry.value);
        }
        // Another key with the same tag: one in 2³¹.
        self.table.find(&self.table.place(key), key).map(|found| &found.entry.value)
    }
}

/// A look-up between its first two stages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Probe {
    tag: u32,
    first: u32,
}

impl Probe {
    /// Of no key.
    pub const NONE: Probe = Probe { tag: 0, first: 0 };
}

/// An entry that is the key's unless another has the same tag.
pub struct Candidate<'t, K, V> {
    entry: &'t Entry<K, V>,
}

impl<K, V> Clone for Candidate<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Candidate<'_, K, V> {}
