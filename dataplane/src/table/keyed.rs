//! The keyed hash of tables whose keys an outsider may choose.
//!
//! Keys are a few words long and the same length each, so the hash is *multilinear*:
//! each word is multiplied by 128 secret bits, the products are summed with 128 more,
//! and the upper half of the sum is taken. For whoever does not know the secret, any
//! two different keys have independent, uniform hashes (Dietzfelbinger 1996 for one
//! word, Lemire and Kaser 2014 for several): a million keys that were chosen to
//! collide under any public function collide as random ones do, and this is a
//! theorem, not a hope. A secret bijection comes last, so that differences between
//! keys do not show as differences between hashes; being a bijection, it takes
//! nothing from the independence.
//!
//! It costs two multiplications a word and is free of branches, where SipHash-1-3
//! takes five rounds: a look-up that is made for every packet is worth the proof.
//!
//! **Not done:** who could measure single look-ups for long might learn differences
//! of keys that share a bucket. A packet's look-up cannot be timed from outside so
//! finely; where one could, SipHash would be the choice.

use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;

use homeport_wire::TenantId;
use siphasher::sip::SipHasher24;

use super::classes::Class;
use super::filter::FilterShape;

/// The most words of a key.
pub const WORDS: usize = 3;

/// What a table finds its values by.
pub trait TableKey: Copy + Eq + Send + Sync + 'static {
    /// All that tells the key from others, as words; unused ones are zero (and cost
    /// nothing, as the compiler sees them).
    fn words(&self) -> [u64; WORDS];

    /// The filter of tables with such keys, if they have one.
    const FILTER: FilterShape = FilterShape::NONE;

    /// What the networks of such keys are marked with in the
    /// [classes of addresses](super::classes).
    const CLASS: Class = Class::NONE;

    /// The address that filter and classes know the key by; `None`: they do not know it.
    fn filtered(&self) -> Option<Ipv4Addr> {
        None
    }
}

impl TableKey for u32 {
    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        [u64::from(*self), 0, 0]
    }
}

impl TableKey for u16 {
    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        [u64::from(*self), 0, 0]
    }
}

impl TableKey for u64 {
    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        [*self, 0, 0]
    }
}

/// A tenant and an address in one word: what most keys begin with.
#[inline(always)]
pub const fn tenant_address(tenant: TenantId, address: Ipv4Addr) -> u64 {
    (tenant.0 as u64) << 32 | address.to_bits() as u64
}

/// A hash function, drawn at random from the family by its seed.
#[derive(Clone, Copy)]
pub struct KeyedHash {
    factors: [u128; WORDS],
    offset: u128,
    mix: [u64; 2],
}

impl KeyedHash {
    /// The function that `seed` draws. It must be secret where outsiders choose keys.
    pub fn new(seed: [u64; 2]) -> Self {
        let [k0, k1] = seed;
        let word = |number: u64| {
            let mut hasher = SipHasher24::new_with_keys(k0, k1);
            number.hash(&mut hasher);
            hasher.finish()
        };
        let wide =
            |number: u64| u128::from(word(2 * number)) << 64 | u128::from(word(2 * number + 1));
        KeyedHash {
            factors: [wide(0), wide(1), wide(2)],
            offset: wide(3),
            // Odd, so that multiplying can be undone.
            mix: [word(8) | 1, word(9) | 1],
        }
    }

    /// The hash of a key.
    #[inline(always)]
    pub fn hash(&self, key: &impl TableKey) -> u64 {
        let mut sum = self.offset;
        for (factor, word) in self.factors.iter().zip(key.words()) {
            sum = sum.wrapping_add(factor.wrapping_mul(u128::from(word)));
        }
        let [first, second] = self.mix;
        let mut hash = (sum >> 64) as u64;
        hash = (hash ^ hash >> 32).wrapping_mul(first);
        hash = (hash ^ hash >> 29).wrapping_mul(second);
        hash ^ hash >> 32
    }
}

impl std::fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedHash(secret)")
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Three(u64, u64, u64);

    impl TableKey for Three {
        fn words(&self) -> [u64; WORDS] {
            [self.0, self.1, self.2]
        }
    }

    #[test]
    fn every_bit_of_every_word_counts_and_so_does_the_seed() {
        let keyed = KeyedHash::new([1, 2]);
        let mut seen = HashSet::from([keyed.hash(&Three(0, 0, 0))]);
        for bit in 0..64 {
            let word = 1u64 << bit;
            for key in [Three(word, 0, 0), Three(0, word, 0), Three(0, 0, word)] {
                assert!(seen.insert(keyed.hash(&key)), "bit {bit} is lost");
                assert_ne!(keyed.hash(&key), KeyedHash::new([1, 3]).hash(&key));
            }
        }
    }

    /// Keys in arithmetic progressions, which a linear hash would lay out in a
    /// pattern, fill buckets like random ones: the fullest of 2¹⁶ with four keys each
    /// on average has 17 or 18 with random ones.
    // Shows attack-30.
    #[test]
    fn patterns_of_keys_leave_no_pattern_of_hashes() {
        for (seed, step) in [(3, 1u64), (4, 1 << 16), (5, 0x1_0000_0001), (6, 12_345)] {
            let keyed = KeyedHash::new([seed, seed]);
            for shift in [0, 24, 48] {
                let mut buckets = vec![0u32; 1 << 16];
                for number in 0..4u64 << 16 {
                    let hash = keyed.hash(&number.wrapping_mul(step));
                    buckets[(hash >> shift) as usize & 0xffff] += 1;
                }
                let fullest = buckets.iter().max().unwrap();
                assert!(*fullest < 24, "step {step}, shift {shift}: {fullest}");
            }
        }
    }
    /// CRC-32C without its last inversion, as a processor's instruction steps it.
    fn crc32c(bytes: [u8; 4], mut sum: u32) -> u32 {
        for byte in bytes {
            sum ^= u32::from(byte);
            for _ in 0..8 {
                sum = if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
            }
        }
        sum
    }

    /// Reliability, row 30: keys that were chosen so that a network card's or a
    /// processor's hash gives all of them one value are laid out like random ones.
    // Shows attack-30.
    #[test]
    fn keys_that_collide_under_crc32c_fill_buckets_like_random_ones() {
        let keyed = KeyedHash::new([7, 8]);
        let mut buckets = vec![0u32; 1 << 16];
        for number in 0..4u32 << 16 {
            let first = crc32c(number.to_le_bytes(), u32::MAX);
            // What brings every sum to the same end.
            let second = first ^ 0xa5a5_a5a5;
            assert_eq!(crc32c(second.to_le_bytes(), first), crc32c([0xa5; 4], 0));
            let hash = keyed.hash(&(u64::from(second) << 32 | u64::from(number)));
            buckets[hash as usize & 0xffff] += 1;
        }
        let fullest = buckets.iter().max().unwrap();
        assert!(*fullest < 24, "{fullest}");
    }
}
