//! A small answer to "is anything there at all?", so that most packets are spared a
//! look-up that would find nothing.
//!
//! A filter has a bit for each group of addresses; a bit is set while a table holds a
//! key of that group. A clear bit is certain, a set one says "look". A filter is small
//! enough for the inner caches: one load and a shift. Its bits are chosen by a secret
//! factor, so that nobody can find addresses that share a bit; if somebody did, their
//! packets would only cost the look-up.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering};

/// Bits of a word.
const WORD: u32 = u64::BITS;

/// What a table's filter is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterShape {
    /// It has 2 to this power bits, from 6 to 31.
    pub log_bits: u32,
    /// So many low bits of an address are left out: who differs in them alone shares
    /// a bit.
    pub ignored_bits: u32,
}

impl FilterShape {
    /// No filter at all: what a key type without one has.
    pub const NONE: FilterShape = FilterShape { log_bits: 0, ignored_bits: 0 };

    const fn is_none(self) -> bool {
        self.log_bits == 0
    }

    #[inline(always)]
    const fn bit(self, factor: u32, address: Ipv4Addr) -> u32 {
        let group = address.to_bits() >> self.ignored_bits;
        // Multiply-shift: two groups share a bit with twice the probability of chance
        // at most, if the odd factor is secret.
        group.wrapping_mul(factor) >> (32 - self.log_bits)
    }
}

/// The reading side. Its shape is the caller's to know: as a constant, it costs nothing.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    words: Arc<[AtomicU64]>,
    factor: u32,
    /// How many keys there are.
    keys: Arc<AtomicU64>,
}

/// The writing side: it counts, so that it can clear.
#[derive(Debug)]
pub(crate) struct FilterWriter {
    filter: Filter,
    shape: FilterShape,
    counts: Box<[u32]>,
}

impl Filter {
    /// Whether there may be something in the group of `address`.
    #[inline(always)]
    pub(crate) fn may_have(&self, shape: FilterShape, address: Ipv4Addr) -> bool {
        if shape.is_none() {
            return true;
        }
        let bit = shape.bit(self.factor, address);
        // Relaxed: a bit is set before its key is in the table. Who was told of the
        // key sees the bit; who was not may as well come a moment earlier.
        self.words
            .get((bit / WORD) as usize)
            .is_some_and(|word| word.load(Ordering::Relaxed) >> (bit % WORD) & 1 == 1)
    }

    /// Whether there may be anything anywhere.
    #[inline(always)]
    pub(crate) fn may_have_any(&self, shape: FilterShape) -> bool {
        // Relaxed: as for the bits.
        shape.is_none() || self.keys.load(Ordering::Relaxed) > 0
    }
}

impl FilterWriter {
    /// Nothing is there. `seed` must be secret.
    pub(crate) fn new(shape: FilterShape, seed: u64) -> Self {
        let bits = if shape.is_none() { 0 } else { 1usize << shape.log_bits };
        let words = (0..bits.div_ceil(WORD as usize)).map(|_| AtomicU64::new(0)).collect();
        let factor = (seed >> 32) as u32 | 1;
        FilterWriter {
            filter: Filter { words, factor, keys: Arc::new(AtomicU64::new(0)) },
            shape,
            counts: vec![0; bits].into_boxed_slice(),
        }
    }

    pub(crate) fn reader(&self) -> Filter {
        self.filter.clone()
    }

    /// To be called before a new key of this group is in the table.
    pub(crate) fn add(&mut self, address: Ipv4Addr) {
        if self.shape.is_none() {
            return;
        }
        self.count(1);
        let bit = self.shape.bit(self.filter.factor, address);
        if let Some(count) = self.counts.get_mut(bit as usize) {
            *count += 1;
            if *count == 1 {
                self.flip(bit);
            }
        }
    }

    /// To be called after a key of this group has left the table.
    pub(crate) fn remove(&mut self, address: Ipv4Addr) {
        if self.shape.is_none() {
            return;
        }
        self.count(u64::MAX);
        let bit = self.shape.bit(self.filter.factor, address);
        if let Some(count) = self.counts.get_mut(bit as usize).filter(|count| **count > 0) {
            *count -= 1;
            if *count == 0 {
                self.flip(bit);
            }
        }
    }

    fn count(&mut self, change: u64) {
        let keys = &self.filter.keys;
        keys.store(keys.load(Ordering::Relaxed).wrapping_add(change), Ordering::Release);
    }

    fn flip(&mut self, bit: u32) {
        if let Some(word) = self.filter.words.get((bit / WORD) as usize) {
            let bits = word.load(Ordering::Relaxed) ^ 1 << (bit % WORD);
            // Release: a cleared bit is seen with the removal before it.
            word.store(bits, Ordering::Release);
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_added_more_often_than_removed_may_be_there(
            seed: u64, log_bits in 6u32..12, ignored_bits in 0u32..20,
            steps in proptest::collection::vec((any::<bool>(), 0u32..40), 0..200),
        ) {
            let shape = FilterShape { log_bits, ignored_bits };
            let mut writer = FilterWriter::new(shape, seed);
            let filter = writer.reader();
            let address = |number: u32| Ipv4Addr::from_bits(number.wrapping_mul(0x0101_0301));
            let mut counts = [0u32; 40];
            for (add, number) in steps {
                let count = &mut counts[number as usize];
                if add {
                    writer.add(address(number));
                    *count += 1;
                } else if *count > 0 {
                    writer.remove(address(number));
                    *count -= 1;
                }
                for (number, count) in counts.iter().enumerate() {
                    prop_assert!(*count == 0 || filter.may_have(shape, address(number as u32)));
                }
            }
            for (number, count) in counts.iter().enumerate() {
                (0..*count).for_each(|_| writer.remove(address(number as u32)));
            }
            let stays = (0..40).any(|number| filter.may_have(shape, address(number)));
            prop_assert!(!stays && !filter.may_have_any(shape), "a bit stays set");
        }
    }

    #[test]
    fn most_of_what_is_not_there_is_not_looked_for() {
        let shape = FilterShape { log_bits: 16, ignored_bits: 0 };
        let mut writer = FilterWriter::new(shape, 7 << 32);
        (0..1000u32).for_each(|number| writer.add(Ipv4Addr::from_bits(0x0a00_0000 + number * 7)));
        let filter = writer.reader();
        let looked = (0..100_000u32)
            .filter(|number| filter.may_have(shape, Ipv4Addr::from_bits(0xc000_0000 + number * 13)))
            .count();
        assert!(looked < 6_000, "{looked} of 100,000 were looked for in vain");
    }
}
