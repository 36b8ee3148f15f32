//! A small answer to "is anything there at all?", so that most packets are spared a
//! look-up that would find nothing.
//!
//! A filter has a bit for each group of addresses; a bit is set while a table holds a
//! key of that group. A clear bit is certain, a set one says "look". A filter is small
//! enough for the inner caches: one load and a shift. Its bits are chosen by a secret
//! factor, so that nobody can find addresses that share a bit; if somebody did, their
//! packets would only cost the look-up.

use std::net::Ipv4Addr;

use crate::sync::{Arc, AtomicU64, Ordering};

/// Bits of a word.
const WORD: u32 = u64::BITS;

/// What a table's filter is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterShape {
    /// It has 2 to this power bits, from 6 to 32.
    pub log_bits: u32,
    /// So many low bits of an address are left out: who differs in them alone shares
    /// a bit.
    pub ignored_bits: u32,
}

/// The reading side.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    words: Arc<[AtomicU64]>,
    factor: u32,
    shape: FilterShape,
}

/// The writing side: it counts, so that it can clear.
#[derive(Debug)]
pub(crate) struct FilterWriter {
    filter: Filter,
    counts: Box<[u32]>,
}

impl Filter {
    /// Whether there may be something in the group of `address`.
    #[inline(always)]
    pub(crate) fn may_have(&self, address: Ipv4Addr) -> bool {
        let bit = self.bit(address);
        // Relaxed: a bit is set before its key is in the table. Who was told of the
        // key sees the bit; who was not may as well come a moment earlier.
        self.words
            .get((bit / WORD) as usize)
            .is_some_and(|word| word.load(Ordering::Relaxed) >> (bit % WORD) & 1 == 1)
    }

    #[inline(always)]
    fn bit(&self, address: Ipv4Addr) -> u32 {
        let group = address.to_bits() >> self.shape.ignored_bits;
        // Multiply-shift: two groups share a bit with twice the probability of chance
        // at most, if the odd factor is secret.
        group.wrapping_mul(self.factor) >> (32 - self.shape.log_bits)
    }
}

impl FilterWriter {
    /// Nothing is there. `seed` must be secret.
    pub(crate) fn new(shape: FilterShape, seed: u64) -> Self {
        let log_bits = shape.log_bits.clamp(6, 31);
        let shape = FilterShape { log_bits, ignored_bits: shape.ignored_bits.min(31) };
        let words = (0..1u32 << (log_bits - 6)).map(|_| AtomicU64::new(0)).collect();
        FilterWriter {
            filter: Filter { words, factor: (seed >> 32) as u32 | 1, shape },
            counts: vec![0; 1 << log_bits].into_boxed_slice(),
        }
    }

    pub(crate) fn reader(&self) -> Filter {
        self.filter.clone()
    }

    /// To be called before a new key of this group is in the table.
    pub(crate) fn add(&mut self, address: Ipv4Addr) {
        let bit = self.filter.bit(address);
        if let Some(count) = self.counts.get_mut(bit as usize) {
            *count += 1;
            if *count == 1 {
                self.flip(bit);
            }
        }
    }

    /// To be called after a key of this group has left the table.
    pub(crate) fn remove(&mut self, address: Ipv4Addr) {
        let bit = self.filter.bit(address);
        if let Some(count) = self.counts.get_mut(bit as usize).filter(|count| **count > 0) {
            *count -= 1;
            if *count == 0 {
                self.flip(bit);
            }
        }
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
            let mut writer = FilterWriter::new(FilterShape { log_bits, ignored_bits }, seed);
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
                    prop_assert!(*count == 0 || filter.may_have(address(number as u32)));
                }
            }
            for (number, count) in counts.iter().enumerate() {
                (0..*count).for_each(|_| writer.remove(address(number as u32)));
            }
            prop_assert!((0..40).all(|number| !filter.may_have(address(number))), "a bit stays set");
        }
    }

    #[test]
    fn most_of_what_is_not_there_is_not_looked_for() {
        let mut writer = FilterWriter::new(FilterShape { log_bits: 16, ignored_bits: 0 }, 7 << 32);
        (0..1000u32).for_each(|number| writer.add(Ipv4Addr::from_bits(0x0a00_0000 + number * 7)));
        let filter = writer.reader();
        let looked = (0..100_000u32)
            .filter(|number| filter.may_have(Ipv4Addr::from_bits(0xc000_0000 + number * 13)))
            .count();
        assert!(looked < 6_000, "{looked} of 100,000 were looked for in vain");
    }
}
