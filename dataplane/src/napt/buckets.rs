//! Record numbers by the hashes of their keys: a table of one core in memory that is
//! taken once.
//!
//! A bucket is one cache line of seven slots. A number is in the first bucket of its
//! hash or in the second; who is where follows from the tag and either bucket, so
//! that what is in the way can be moved without its key. As long as there is room
//! the first is taken, and a bucket counts what had to go from it to the second: a
//! look-up, of what is there or of what is not, is nearly always one line.

use super::slab::array;
use crate::table::equal::equal;
use crate::table::prefetch::prefetch;

/// Slots of a bucket.
const SLOTS: usize = 7;

/// Set in the number of what is in its second bucket.
const SECOND: u32 = 1 << 31;

/// No tag is this.
const EMPTY: u32 = 0;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u32; SLOTS],
    /// How many have this as their first bucket and are in their second.
    spilled: u32,
    numbers: [u32; SLOTS],
    unused: u32,
}

const VACANT: Bucket = Bucket { tags: [EMPTY; SLOTS], spilled: 0, numbers: [0; SLOTS], unused: 0 };

/// Numbers below 2³¹ by 64-bit hashes, which may be those of several.
pub(super) struct Buckets {
    buckets: Box<[Bucket]>,
}

impl Buckets {
    /// A table for `capacity` numbers, half full with them.
    pub(super) fn new(capacity: usize) -> Self {
        let count = (2 * capacity).div_ceil(SLOTS).max(2);
        Buckets { buckets: array(count, || VACANT) }
    }

    /// Brings the first bucket of a hash into the cache.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.buckets.get(self.first(hash)) {
            prefetch(bucket);
        }
    }

    /// The number of this hash that `is_it`.
    #[inline(always)]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let first = self.first(hash);
        let bucket = self.buckets.get(first)?;
        let found = bucket.find(tag, 0, &mut is_it);
        if found.is_some() || bucket.spilled == 0 {
            return found;
        }
        self.buckets.get(self.other(first, tag))?.find(tag, SECOND, &mut is_it)
    }

    /// Keeps a number. `false`: both buckets are full, and so are those that what is
    /// in them could go to; nothing has changed.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, number: u32) -> bool {
        let tag = tag(hash);
        let first = self.first(hash);
        self.put(first, tag, number) || self.insert_elsewhere(first, tag, number)
    }

    /// The same where the first bucket is full.
    #[cold]
    fn insert_elsewhere(&mut self, first: usize, tag: u32, number: u32) -> bool {
        let second = self.other(first, tag);
        if self.put(second, tag, number | home(second, first)) {
            self.count_spill(first, home(second, first), 1);
            return true;
        }
        // Who is in the way may have room in its other bucket.
        for at in [first, second] {
            for slot in 0..SLOTS {
                if self.displace(at, slot) && self.put(at, tag, number | home(at, first)) {
                    self.count_spill(first, home(at, first), 1);
                    return true;
                }
            }
        }
        false
    }

    /// Forgets a number that was kept under this hash; whether it was.
    pub(super) fn remove(&mut self, hash: u64, number: u32) -> bool {
        let tag = tag(hash);
        let first = self.first(hash);
        for (at, home) in [(first, 0), (self.other(first, tag), SECOND)] {
            let Some(bucket) = self.buckets.get_mut(at) else { continue };
            let mut slots = bucket.tags.iter_mut().zip(&bucket.numbers);
            if let Some((place, _)) =
                slots.find(|(other, kept)| **other == tag && **kept == number | home)
            {
                *place = EMPTY;
                self.count_spill(first, home, -1);
                return true;
            }
        }
        false
    }

    /// Puts a number into a bucket if it has room.
    #[inline]
    fn put(&mut self, at: usize, tag: u32, word: u32) -> bool {
        let Some(bucket) = self.buckets.get_mut(at) else { return false };
        let slot = bucket.equal(EMPTY).trailing_zeros() as usize;
        let (Some(place), Some(number)) = (bucket.tags.get_mut(slot), bucket.numbers.get_mut(slot))
        else {
            return false;
        };
        (*place, *number) = (tag, word);
        true
    }

    /// Moves what is in a slot to its other bucket, if that has room.
    fn displace(&mut self, at: usize, slot: usize) -> bool {
        let Some(bucket) = self.buckets.get(at) else { return false };
        let (Some(tag), Some(word)) =
            (bucket.tags.get(slot).copied(), bucket.numbers.get(slot).copied())
        else {
            return false;
        };
        let to = self.other(at, tag);
        if to == at || !self.put(to, tag, word ^ SECOND) {
            return false;
        }
        if let Some(place) = self.buckets.get_mut(at).and_then(|bucket| bucket.tags.get_mut(slot)) {
            *place = EMPTY;
        }
        // It goes to its second bucket, or comes home from there.
        if word & SECOND == 0 {
            self.count_spill(at, SECOND, 1);
        } else {
            self.count_spill(to, SECOND, -1);
        }
        true
    }

    fn count_spill(&mut self, first: usize, home: u32, change: i32) {
        if home == SECOND
            && let Some(bucket) = self.buckets.get_mut(first)
        {
            bucket.spilled = bucket.spilled.saturating_add_signed(change);
        }
    }

    #[inline(always)]
    fn first(&self, hash: u64) -> usize {
        scale(hash >> 32, self.buckets.len())
    }

    /// The other bucket of what is in bucket `at` with this tag: `at` is the other's
    /// other.
    #[inline(always)]
    fn other(&self, at: usize, tag: u32) -> usize {
        let count = self.buckets.len();
        let sum = scale(u64::from(tag.wrapping_mul(0x9e37_79b9)), count);
        if sum >= at { sum - at } else { sum + count - at }
    }
}

impl Bucket {
    /// The slots with a tag, as bits: all are compared at once, without a branch.
    #[inline(always)]
    fn equal(&self, tag: u32) -> u32 {
        let [a, b, c, d, e, f, g] = self.tags;
        // What lies behind the tags makes a whole load of them, and does not count.
        equal([a, b, c, d, e, f, g, self.spilled], tag) & ((1 << SLOTS) - 1)
    }

    #[inline(always)]
    fn find(&self, tag: u32, home: u32, is_it: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let mut equal = self.equal(tag);
        while equal != 0 {
            let slot = equal.trailing_zeros() as usize;
            equal &= equal - 1;
            let word = *self.numbers.get(slot)?;
            if word & SECOND == home && is_it(word & !SECOND) {
                return Some(word & !SECOND);
            }
        }
        None
    }
}

/// Whether a bucket is the first one of what is in it.
const fn home(at: usize, first: usize) -> u32 {
    if at == first { 0 } else { SECOND }
}

/// What tells those apart that share a bucket.
#[inline(always)]
const fn tag(hash: u64) -> u32 {
    let tag = hash as u32;
    if tag == EMPTY { 1 } else { tag }
}

/// A number below `count` from 32 bits.
#[inline(always)]
const fn scale(bits: u64, count: usize) -> usize {
    ((bits * count as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::sync::LazyLock;

    use crate::table::keyed::KeyedHash;

    /// How many the buckets say have spilled, and how many there are.
    fn count(table: &Buckets) -> (u32, usize, usize) {
        let spilled = table.buckets.iter().map(|bucket| bucket.spilled).sum();
        let slots =
            || table.buckets.iter().flat_map(|bucket| bucket.tags.iter().zip(&bucket.numbers));
        let all = slots().filter(|(tag, _)| **tag != EMPTY);
        let second = all.clone().filter(|(_, number)| **number & SECOND != 0).count();
        (spilled, second, all.count())
    }

    fn mix(key: u64) -> u64 {
        static KEYED: LazyLock<KeyedHash> = LazyLock::new(|| KeyedHash::new([5, 6]));
        KEYED.hash(&key)
    }

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    proptest! {
        /// The table is a map from numbers to hashes, whatever comes and goes; what is
        /// refused is refused without a trace.
        #[test]
        fn numbers_are_found_until_they_are_removed(
            steps in proptest::collection::vec((0u8..5, 0u32..64), 1..400),
            capacity in 1usize..24,
            shared in any::<bool>(),
        ) {
            let mut table = Buckets::new(capacity);
            let mut model: HashMap<u32, u64> = HashMap::new();
            // Many of one hash, or each its own.
            let hash = |number: u32| mix(u64::from(if shared { number % 3 } else { number }));
            for (step, number) in steps {
                if step < 3 && !model.contains_key(&number) {
                    if table.insert(hash(number), number) {
                        model.insert(number, hash(number));
                    } else {
                        // Both buckets are full.
                        prop_assert!(model.len() >= SLOTS);
                    }
                } else {
                    let was = model.remove(&number).is_some();
                    prop_assert_eq!(table.remove(hash(number), number), was);
                }
                for number in 0..64 {
                    let found = table.find(hash(number), |found| found == number);
                    prop_assert_eq!(found.is_some(), model.contains_key(&number));
                }
                let (spilled, second, all) = count(&table);
                prop_assert_eq!((spilled as usize, all), (second, model.len()));
            }
            for (number, hash) in model {
                prop_assert!(table.remove(hash, number));
            }
            prop_assert_eq!(count(&table), (0, 0, 0));
        }
    }

    /// Random keys up to the capacity, and coming and going at it, always fit, and
    /// few need their second bucket.
    #[test]
    fn what_was_asked_for_fits() {
        let capacity = 100_000;
        let mut table = Buckets::new(capacity as usize);
        for number in 0..capacity {
            assert!(table.insert(mix(u64::from(number)), number));
        }
        let (spilled, _, all) = count(&table);
        assert_eq!(all, capacity as usize);
        assert!(spilled < capacity / 10, "{spilled}");
        for number in 0..2 * capacity {
            let name = number % capacity;
            let age = u64::from(number / capacity) << 32;
            assert!(table.remove(mix(age | u64::from(name)), name));
            assert!(table.insert(mix((age + (1 << 32)) | u64::from(name)), name));
        }
        let (spilled, _, all) = count(&table);
        assert_eq!(all, capacity as usize);
        assert!(spilled < capacity / 8, "{spilled}");
    }

    /// Far more than the capacity fits before anything is refused, and then nothing
    /// that is there suffers.
    #[test]
    fn a_full_table_refuses_and_keeps_what_it_has() {
        let mut table = Buckets::new(1000);
        let mut kept = Vec::new();
        for number in 0..4000 {
            if table.insert(mix(u64::from(number)), number) {
                kept.push(number);
            }
        }
        assert!((1500..=table.buckets.len() * SLOTS).contains(&kept.len()), "{}", kept.len());
        for number in kept {
            assert_eq!(table.find(mix(u64::from(number)), |found| found == number), Some(number));
            assert!(table.remove(mix(u64::from(number)), number));
        }
        assert_eq!(count(&table), (0, 0, 0));
    }
}
