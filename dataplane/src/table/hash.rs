//! A hash table of fixed capacity with one writer and any number of readers that
//! never wait.
//!
//! # How it works
//!
//! *Buckets* are cache lines of eight slots. A slot is one atomic word: 32 bits of
//! the key's hash (the *tag*) and the number of an entry. *Entries* hold key and
//! value, a cache line each, in a slab. A key lives in one of two buckets that its
//! hash names, so a look-up costs at most two bucket lines and one entry line; a
//! wrong entry is looked at once in 2³¹ tags.
//!
//! Entries never change once they are published. A replacement fills a fresh
//! entry and stores its number into the same slot; a removal empties the slot. The
//! old entry is reused when all readers have passed a quiescent point
//! ([`qsbr`](super::qsbr)). The slab has room for more entries than the capacity
//! because of those that wait for readers.
//!
//! A new key goes into its first bucket while that has room, and the bucket array is
//! at most half full: so almost every key is found in one bucket line and one entry
//! line. Where the first bucket is full, the key goes into the second; where both are,
//! a key of theirs makes room by moving *from its first bucket to its second*, never
//! back. Both being full with nobody able to move is so improbable (far below 10⁻⁹ for
//! a whole filling) that the capacity is real.
//!
//! A burst is looked up in stages, so that its cache misses overlap: [`AtHand::probe`]
//! hashes and fetches the bucket, [`AtHand::locate`] finds the entry's number and
//! fetches the entry, [`AtHand::confirm`] compares the key. That is worth ten times
//! more than anything else about a table.
//!
//! The hash is [keyed](super::keyed) with a secret seed, as outsiders choose keys. A
//! [filter](super::filter), if the key type has one, says of most addresses that are
//! not in the table that they are not; and so do the [classes](super::classes) of
//! addresses, which several tables share. Buckets and entries lie on huge pages where
//! there are any ([`memory`](super::memory)).
//!
//! # Why it is right
//!
//! * The writer fills an entry and then stores the slot with `Release`; a reader
//!   loads the slot with `Acquire`, so it sees the entry's contents.
//! * Key and slot stay together while the key is in the table, and a replacement is
//!   one store: a reader sees the old value or the new one.
//! * A key that moves is stored into its second bucket before its slot in the first
//!   is stored over (`Release`). A reader looks into the first bucket first: if it no
//!   longer sees the key there (`Acquire`), it sees it in the second.
//! * A reference that a look-up gave borrows the reader, and `quiescent` needs the
//!   reader mutably: no reference outlives the promise that there is none.
//! * Only the writer stores to slots and entries, and it is `&mut` when it does, so
//!   what it lends from `get` and `iter` cannot change either.
#![allow(unsafe_code, reason = "readers and the writer share entries without a lock")]

mod bucket;
mod staged;

use std::{fmt, mem::MaybeUninit, net::Ipv4Addr};

use self::bucket::{Bucket, EMPTY, SLOTS, index_of, tag_of, word};
pub use self::staged::{AtHand, Candidate, Probe};
use super::classes::{AddressClasses, ClassWriter};
use super::filter::{Filter, FilterWriter};
use super::keyed::{KeyedHash, TableKey};
use super::memory::{Array, Pages, Zeroable};
use super::qsbr::{Domain, Held, Participant};
use crate::sync::{Arc, AtomicU64, Mutant, Ordering, UnsafeCell, planted};

/// The most entries of a table: a quarter of what a slot can number.
pub const MAX_CAPACITY: usize = 1 << 30;

/// Entries beyond the capacity, for those that wait for readers.
const SPARE: std::ops::RangeInclusive<usize> = if cfg!(loom) { 1..=1 } else { 64..=65_536 };

/// Retired entries that are worth a look at all readers.
const RECLAIM_BATCH: usize = if cfg!(loom) { 1 } else { 32 };

/// There is no room for an entry.
///
/// Either the table holds as many keys as it may, or so many entries were replaced
/// or removed since the slowest reader's last quiescent point that none is free;
/// the latter passes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table is full")]
pub struct TableFull;

/// Makes a table for at most `capacity` keys (from 1 to [`MAX_CAPACITY`]; what is
/// outside is taken as the nearest). `seed` keys the hash: it must be secret where
/// outsiders choose keys.
pub fn table<K, V>(capacity: usize, seed: [u64; 2]) -> Writer<K, V>
where
    K: TableKey,
    V: Copy + Send + Sync + 'static,
{
    make(capacity, seed, ClassWriter::none())
}

/// The same, with the networks of its keys marked in `classes`, which other tables mark
/// as well.
pub fn table_with<K, V>(capacity: usize, seed: [u64; 2], classes: &AddressClasses) -> Writer<K, V>
where
    K: TableKey,
    V: Copy + Send + Sync + 'static,
{
    make(capacity, seed, ClassWriter::new(classes, K::CLASS))
}

fn make<K, V>(capacity: usize, seed: [u64; 2], classes: ClassWriter) -> Writer<K, V>
where
    K: TableKey,
    V: Copy + Send + Sync + 'static,
{
    let capacity = capacity.clamp(1, MAX_CAPACITY);
    let entries = capacity + (capacity / 8).clamp(*SPARE.start(), *SPARE.end());
    let filter = FilterWriter::new(K::FILTER, KeyedHash::new(seed).hash(&seed[0]));
    let table = Table::new(capacity, entries, seed, filter.reader());
    Writer {
        table: Arc::new(table),
        filter,
        classes,
        slab: Slab { domain: Domain::new(), free: Vec::new(), fresh: 0, entries },
        len: 0,
        capacity,
    }
}

/// The only one who changes a table.
pub struct Writer<K, V> {
    table: Arc<Table<K, V>>,
    filter: FilterWriter,
    classes: ClassWriter,
    slab: Slab,
    len: usize,
    capacity: usize,
}

impl<K, V> Writer<K, V>
where
    K: TableKey,
    V: Copy + Send + Sync + 'static,
{
    /// A new reader, online. It must soon say `quiescent` or `offline`, and go on
    /// doing so, or the table runs out of room for replacements.
    pub fn reader(&self) -> Reader<K, V> {
        Reader { table: Arc::clone(&self.table), participant: self.slab.domain.reader() }
    }

    /// Adds a key, or replaces its value in one step: a reader sees the old value
    /// or the new one.
    ///
    /// # Errors
    ///
    /// [`TableFull`], and then nothing has changed.
    pub fn install(&mut self, key: K, value: V) -> Result<(), TableFull> {
        let place = self.table.place(&key);
        let old = self.table.find(&place, &key);
        let slot = match &old {
            Some(found) => found.slot,
            None if self.len >= self.capacity => return Err(TableFull),
            None => self.table.vacancy(&place).ok_or(TableFull)?,
        };
        let index = self.slab.take().ok_or(TableFull)?;
        if let (None, Some(address)) = (&old, key.filtered()) {
            self.filter.add(address);
            self.classes.add(address);
        }
        // SAFETY: the slab gave out `index`: no slot names it, and every reader
        // that could have found it in a slot has passed a quiescent point since.
        unsafe { self.table.fill(index, Entry { key, value }) };
        if planted(Mutant::ReplaceInTwoSteps) {
            slot.store(EMPTY, Ordering::Release);
        }
        // Release: who sees the number sees the entry.
        let order =
            if planted(Mutant::PublishRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        slot.store(word(place.tag, index), order);
        match old {
            Some(found) => self.slab.retire(found.index),
            None => self.len += 1,
        }
        Ok(())
    }

    /// Removes a key; whether it was there.
    pub fn remove(&mut self, key: &K) -> bool {
        let Some(found) = self.table.find(&self.table.place(key), key) else {
            return false;
        };
        // Release: who no longer finds the key sees what was done before.
        found.slot.store(EMPTY, Ordering::Release);
        self.slab.retire(found.index);
        self.len -= 1;
        if let Some(address) = key.filtered() {
            self.filter.remove(address);
            self.classes.remove(address);
        }
        true
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.table.find(&self.table.place(key), key).map(|found| &found.entry.value)
    }

    /// All keys and values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.table
            .buckets
            .iter()
            .flat_map(|bucket| &bucket.slots)
            // Relaxed: the writer stored it itself.
            .map(|slot| slot.load(Ordering::Relaxed))
            .filter(|word| *word != EMPTY)
            // SAFETY: a slot names it, and only `&mut self` could unlink it.
            .filter_map(|word| unsafe { self.table.entry(index_of(word)) })
            .map(|entry| (&entry.key, &entry.value))
    }

    /// What was replaced or removed and waits for the slowest reader.
    pub fn held(&mut self) -> Option<Held> {
        self.slab.reclaim();
        self.slab.domain.held()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many keys there may be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// What pages its entries lie on.
    pub fn pages(&self) -> Pages {
        self.table.entries.pages()
    }
}

impl<K, V> fmt::Debug for Writer<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("len", &self.len)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// Looks keys up, without ever waiting. Dropping it deregisters it.
pub struct Reader<K, V> {
    table: Arc<Table<K, V>>,
    participant: Participant,
}

impl<K, V> Reader<K, V>
where
    K: TableKey,
    V: Copy + Send + Sync + 'static,
{
    /// The value of a key, until the next [`quiescent`](Self::quiescent). An
    /// offline reader finds nothing.
    #[inline]
    pub fn lookup(&self, key: &K) -> Option<&V> {
        debug_assert!(self.participant.is_online(), "a look-up by an offline reader");
        if !self.participant.is_online() {
            return None;
        }
        self.table.find(&self.table.place(key), key).map(|found| &found.entry.value)
    }

    /// Whether the table may have a key with this [`TableKey::filtered`] address: no
    /// is certain. Always yes where the key type has no filter.
    #[inline(always)]
    pub fn may_have(&self, address: Ipv4Addr) -> bool {
        self.table.filter.may_have(K::FILTER, address)
    }

    /// Whether the table may have any such key: no is certain.
    #[inline(always)]
    pub fn may_have_any(&self) -> bool {
        self.table.filter.may_have_any(K::FILTER)
    }

    /// The table at hand, for look-ups in stages. `None` from an offline reader.
    #[inline(always)]
    pub fn at_hand(&self) -> Option<AtHand<'_, K, V>> {
        self.participant.is_online().then(|| AtHand { table: &self.table })
    }

    /// A number that changes when a value that was there is replaced or removed. What
    /// was looked up at a version is still so while the version is the same.
    #[inline]
    pub fn version(&self) -> u64 {
        self.participant.version()
    }

    /// Says that the references that look-ups gave are dead (as the `&mut` proves),
    /// so that what was replaced or removed can be reused. To be said at every
    /// burst boundary, also by an idle reader.
    #[inline]
    pub fn quiescent(&mut self) {
        self.participant.quiescent();
    }

    /// Says that no look-up follows before [`online`](Self::online): for a reader
    /// that goes to sleep, so that the writer need not reckon with it.
    pub fn offline(&mut self) {
        self.participant.offline();
    }

    /// Says that look-ups follow.
    pub fn online(&mut self) {
        self.participant.online();
    }
}

impl<K, V> fmt::Debug for Reader<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("participant", &self.participant).finish_non_exhaustive()
    }
}

/// What writer and readers share.
struct Table<K, V> {
    /// A power of two of them, at least two.
    buckets: Array<Bucket>,
    entries: Array<EntryCell<K, V>>,
    /// Keyed with the seed.
    hasher: KeyedHash,
    filter: Filter,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Entry<K, V> {
    key: K,
    value: V,
}

/// Room for an entry.
type EntryCell<K, V> = UnsafeCell<MaybeUninit<Entry<K, V>>>;

// SAFETY: any bytes will do for room, and it is never dropped; keys and values are
// `Copy`.
unsafe impl<K, V> Zeroable for EntryCell<K, V> {
    fn zero() -> Self {
        UnsafeCell::new(MaybeUninit::uninit())
    }
}

// SAFETY: buckets are atomic. Entries are shared as `&Entry` only while a slot
// names them or a reader may still hold them, and then nobody writes them
// (`fill`'s contract); so sharing a table shares keys and values, which are Sync,
// and dropping or overwriting them elsewhere sends them, which they are as well.
unsafe impl<K: Send + Sync, V: Send + Sync> Sync for Table<K, V> {}

/// Where a key may be.
struct Place {
    tag: u32,
    buckets: [usize; 2],
}

/// Where a key is.
struct Found<'a, K, V> {
    slot: &'a AtomicU64,
    index: u32,
    entry: &'a Entry<K, V>,
}

impl<K: TableKey, V: Copy> Table<K, V> {
    fn new(capacity: usize, entries: usize, seed: [u64; 2], filter: Filter) -> Self {
        // Half full at most.
        let buckets = (capacity * 2).div_ceil(SLOTS).next_power_of_two().max(2);
        Table {
            buckets: Array::zeroed(buckets),
            entries: Array::zeroed(entries),
            hasher: KeyedHash::new(seed),
            filter,
        }
    }

    #[inline(always)]
    fn place(&self, key: &K) -> Place {
        let hash = self.hasher.hash(key);
        // Never that of an empty slot.
        let tag = tag_of(hash) | 1;
        let first = hash as usize & (self.buckets.len() - 1);
        Place { tag, buckets: [first, self.second_bucket(first, tag)] }
    }

    /// The second bucket of a key with this first one.
    #[inline(always)]
    fn second_bucket(&self, first: usize, tag: u32) -> usize {
        // Odd: it is another one.
        first ^ ((tag.wrapping_mul(0x9e37_79b9) | 1) as usize & (self.buckets.len() - 1))
    }

    /// The slots of a bucket; `place` names none that does not exist.
    #[inline]
    fn slots(&self, bucket: usize) -> &[AtomicU64] {
        self.buckets.get(bucket).map_or(&[], |bucket| &bucket.slots)
    }

    /// Only for the writer, and for readers that are online: see `entry`.
    #[inline]
    fn find(&self, place: &Place, key: &K) -> Option<Found<'_, K, V>> {
        for bucket in place.buckets {
            let Some(bucket) = self.buckets.get(bucket) else { continue };
            let mut matching = bucket.matching(place.tag);
            while let Some(slot) = bucket.slot(matching) {
                matching = Bucket::without_lowest(matching);
                // Acquire: the entry that it names has been filled.
                let index = index_of(slot.load(Ordering::Acquire));
                // SAFETY: a slot named it just now, and the caller is the writer,
                // or a reader that is online and holds the result no longer than
                // its borrow of itself. (An empty slot names nothing.)
                if let Some(entry) = unsafe { self.entry(index) }
                    && entry.key == *key
                {
                    return Some(Found { slot, index, entry });
                }
            }
        }
        None
    }

    /// A slot for a new key: a free one of its first bucket or else of its second, or
    /// one whose key could move. It is the writer's question.
    fn vacancy(&self, place: &Place) -> Option<&AtomicU64> {
        let [first, second] = place.buckets;
        self.free_slot(first)
            .or_else(|| self.free_slot(second))
            .or_else(|| self.make_room(first))
            .or_else(|| self.make_room(second))
    }

    fn free_slot(&self, bucket: usize) -> Option<&AtomicU64> {
        // Relaxed: only the writer asks, and it stored them itself.
        self.slots(bucket).iter().find(|slot| slot.load(Ordering::Relaxed) == EMPTY)
    }

    /// Moves a key out of a bucket that is its first one into its second, and returns
    /// its slot, which still names it: it is to be stored over.
    fn make_room(&self, bucket: usize) -> Option<&AtomicU64> {
        self.slots(bucket).iter().find_map(|slot| {
            let word = slot.load(Ordering::Relaxed);
            // SAFETY: a slot names it, and the caller is the writer.
            let entry = unsafe { self.entry(index_of(word)) }?;
            let [first, second] = self.place(&entry.key).buckets;
            let free = self.free_slot(second).filter(|_| first == bucket)?;
            if planted(Mutant::MovedAfterwards) {
                slot.store(EMPTY, Ordering::Release);
            }
            // Release: who sees the number sees the entry. What is stored over the old
            // slot releases this store.
            free.store(word, Ordering::Release);
            Some(slot)
        })
    }

    /// # Safety
    ///
    /// A slot names `index`, or named it after the calling reader's last quiescent
    /// point; and the result is dead before the next, or before the writer's next
    /// change.
    #[inline]
    unsafe fn entry(&self, index: u32) -> Option<&Entry<K, V>> {
        let cell = self.entries.get(index as usize)?;
        // SAFETY: it was filled before a slot named it, and stays as it is until
        // all readers have passed a quiescent point (`fill`'s contract).
        Some(cell.with(|entry| unsafe { (*entry).assume_init_ref() }))
    }

    /// # Safety
    ///
    /// The caller is the writer, no slot names `index`, and no reader can hold it.
    unsafe fn fill(&self, index: u32, entry: Entry<K, V>) {
        if let Some(cell) = self.entries.get(index as usize) {
            // SAFETY: nobody else looks at it.
            cell.with_mut(|place| unsafe { (*place).write(entry) });
        }
    }
}

/// Which entries are free. Only the writer has it.
struct Slab {
    domain: Domain,
    /// Entries that were used and are free again.
    free: Vec<u32>,
    /// Entries from here on were never used, and their memory never touched.
    fresh: usize,
    entries: usize,
}

impl Slab {
    /// A free entry.
    fn take(&mut self) -> Option<u32> {
        let exhausted = self.fresh >= self.entries;
        if self.free.is_empty() && (exhausted || self.domain.retired() >= RECLAIM_BATCH) {
            self.reclaim();
        }
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        if exhausted {
            return None;
        }
        self.fresh += 1;
        u32::try_from(self.fresh - 1).ok()
    }

    /// Takes back what all readers have passed.
    fn reclaim(&mut self) {
        let free = &mut self.free;
        self.domain.reclaim(|index| free.push(index));
    }

    /// Gives back what no slot names any more.
    fn retire(&mut self, index: u32) {
        self.domain.retire(index);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

#[cfg(test)]
#[cfg(loom)]
mod loom_models;
