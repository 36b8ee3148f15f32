//! HMAC-MD5 of several messages at once.
//!
//! Each step of MD5 needs the one before, so most of a processor waits for a message's
//! authenticator. It computes those of several messages in little more time, a message in
//! each lane of its vectors. So who has several requests has their authenticators computed
//! before it asks for the first: whether one is right is judged later, and by one rule.

use alloc::vec::Vec;
use core::fmt;

use smallvec::SmallVec;
use wide::u32x8;

use super::{Algorithm, Authenticator, Form, HmacMd5Key, MD5_BLOCK, MobilitySecurityAssociation};

/// Messages at once.
const LANES: usize = 8;

/// With fewer messages, one after the other takes no longer.
const WORTH_IT: usize = 3;

/// A word of each lane.
type Words = u32x8;

/// Messages whose authenticators are wanted under keys that are ready.
pub(crate) type Wanted<'a> = (ReadyKey, &'a [u8]);

/// A key that is ready for HMAC-MD5.
#[derive(Clone)]
pub(crate) struct ReadyKey(pub(super) HmacMd5Key);

impl fmt::Debug for ReadyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadyKey(hidden)")
    }
}

/// Authenticators that were computed before they are asked for.
#[derive(Default)]
pub(crate) struct Precomputed {
    known: Vec<Known>,
    /// The one behind that which was asked for last: they are asked for in their order.
    next: usize,
}

struct Known {
    key: HmacMd5Key,
    covered: SmallVec<[u8; 96]>,
    authenticator: [u8; 16],
}

impl fmt::Debug for Precomputed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} authenticators", self.known.len())
    }
}

impl Precomputed {
    /// Computes these, and forgets all others.
    pub(crate) fn compute(&mut self, wanted: &[Wanted<'_>]) {
        self.known.clear();
        self.next = 0;
        if wanted.len() < WORTH_IT {
            return;
        }
        for lanes in wanted.chunks(LANES) {
            let authenticators = authenticators(lanes);
            for ((ReadyKey(key), covered), authenticator) in lanes.iter().zip(authenticators) {
                let (key, covered) = (key.clone(), SmallVec::from_slice(covered));
                self.known.push(Known { key, covered, authenticator });
            }
        }
    }

    /// The authenticator over `covered` under an association, if it was computed.
    pub(crate) fn get(
        &mut self,
        association: &MobilitySecurityAssociation,
        covered: &[u8],
    ) -> Option<Authenticator> {
        let (Form::HmacMd5(key), Algorithm::HmacMd5) = (&association.key.0, association.algorithm)
        else {
            return None;
        };
        let is_it = |known: &Known| {
            (known.key.inner, known.key.outer) == (key.inner, key.outer)
                && known.covered.as_slice() == covered
        };
        let next = self.known.get(self.next).filter(|known| is_it(known)).map(|_| self.next);
        let place = next.or_else(|| self.known.iter().position(is_it))?;
        self.next = place + 1;
        Some(Authenticator::from_slice(&self.known.get(place)?.authenticator))
    }
}

/// The authenticators of [`LANES`] messages at most (RFC 2104 §2).
fn authenticators(wanted: &[Wanted<'_>]) -> [[u8; 16]; LANES] {
    let lane = |lane: usize| wanted.get(lane);
    let state = |of: fn(&HmacMd5Key) -> [u32; 4]| {
        let states: [[u32; 4]; LANES] =
            core::array::from_fn(|at| lane(at).map_or([0; 4], |(ReadyKey(key), _)| of(key)));
        transposed(&states)
    };
    let blocks: [usize; LANES] = core::array::from_fn(|at| {
        // RFC 1321 §3.1, §3.2: a one bit and the length, of eight bytes, go behind it.
        lane(at).map_or(0, |(_, covered)| (covered.len() + 1 + 8).div_ceil(MD5_BLOCK))
    });
    let mut inner = state(|key| key.inner);
    for block in 0..blocks.iter().copied().max().unwrap_or(0) {
        let padded: [[u32; 16]; LANES] = core::array::from_fn(|at| {
            lane(at).map_or([0; 16], |(_, covered)| padded_block(covered, block))
        });
        let next = compressed(&inner, &transposed(&padded));
        // Whose message is shorter keeps what it has.
        let goes_on = Words::new(blocks.map(|all| if block < all { u32::MAX } else { 0 }));
        for (old, new) in inner.iter_mut().zip(next) {
            *old = (new & goes_on) | (*old & !goes_on);
        }
    }
    let mut digest = [Words::splat(0); 16];
    digest.iter_mut().zip(inner).for_each(|(to, word)| *to = word);
    digest[4] = Words::splat(0x80);
    // Bits, of the block of the key and the digest.
    digest[14] = Words::splat((64 + 16) * 8);
    let outer = compressed(&state(|key| key.outer), &digest).map(Words::to_array);
    core::array::from_fn(|at| {
        let mut authenticator = [0; 16];
        for (to, words) in authenticator.as_chunks_mut::<4>().0.iter_mut().zip(&outer) {
            *to = words.get(at).copied().unwrap_or(0).to_le_bytes();
        }
        authenticator
    })
}

/// A word of every lane, for each of the words of a lane.
fn transposed<const N: usize>(lanes: &[[u32; N]; LANES]) -> [Words; N] {
    let word_of = |words: &[u32; N], word: usize| words.get(word).copied().unwrap_or(0);
    core::array::from_fn(|word| Words::new(lanes.each_ref().map(|words| word_of(words, word))))
}

/// One of the blocks of a message that is padded as RFC 1321 §3.1 and §3.2 want it; the
/// block of a key is in front of it.
fn padded_block(covered: &[u8], block: usize) -> [u32; 16] {
    let mut bytes = [0; MD5_BLOCK];
    let rest = covered.get(block * MD5_BLOCK..).unwrap_or_default();
    let is_begun = block * MD5_BLOCK <= covered.len();
    let part = rest.get(..MD5_BLOCK).unwrap_or(rest);
    if let Some((to, behind)) = bytes.split_at_mut_checked(part.len()) {
        to.copy_from_slice(part);
        if let Some(one) = behind.first_mut().filter(|_| is_begun) {
            *one = 0x80;
        }
    }
    if rest.len() + 1 + 8 <= MD5_BLOCK
        && let Some(length) = bytes.last_chunk_mut::<8>()
    {
        *length = (((MD5_BLOCK + covered.len()) as u64).wrapping_mul(8)).to_le_bytes();
    }
    let (words, _) = bytes.as_chunks::<4>();
    core::array::from_fn(|word| words.get(word).map_or(0, |bytes| u32::from_le_bytes(*bytes)))
}

/// The sines of RFC 1321 §3.4: the whole part of 2^32 times |sin(step + 1)|.
const SINES: [u32; 64] = [
    0xd76a_a478,
    0xe8c7_b756,
    0x2420_70db,
    0xc1bd_ceee,
    0xf57c_0faf,
    0x4787_c62a,
    0xa830_4613,
    0xfd46_9501,
    0x6980_98d8,
    0x8b44_f7af,
    0xffff_5bb1,
    0x895c_d7be,
    0x6b90_1122,
    0xfd98_7193,
    0xa679_438e,
    0x49b4_0821,
    0xf61e_2562,
    0xc040_b340,
    0x265e_5a51,
    0xe9b6_c7aa,
    0xd62f_105d,
    0x0244_1453,
    0xd8a1_e681,
    0xe7d3_fbc8,
    0x21e1_cde6,
    0xc337_07d6,
    0xf4d5_0d87,
    0x455a_14ed,
    0xa9e3_e905,
    0xfcef_a3f8,
    0x676f_02d9,
    0x8d2a_4c8a,
    0xfffa_3942,
    0x8771_f681,
    0x6d9d_6122,
    0xfde5_380c,
    0xa4be_ea44,
    0x4bde_cfa9,
    0xf6bb_4b60,
    0xbebf_bc70,
    0x289b_7ec6,
    0xeaa1_27fa,
    0xd4ef_3085,
    0x0488_1d05,
    0xd9d4_d039,
    0xe6db_99e5,
    0x1fa2_7cf8,
    0xc4ac_5665,
    0xf429_2244,
    0x432a_ff97,
    0xab94_23a7,
    0xfc93_a039,
    0x655b_59c3,
    0x8f0c_cc92,
    0xffef_f47d,
    0x8584_5dd1,
    0x6fa8_7e4f,
    0xfe2c_e6e0,
    0xa301_4314,
    0x4e08_11a1,
    0xf753_7e82,
    0xbd3a_f235,
    0x2ad7_d2bb,
    0xeb86_d391,
];

/// The states of MD5 behind another block of each lane (RFC 1321 §3.4).
fn compressed(state: &[Words; 4], block: &[Words; 16]) -> [Words; 4] {
    let [mut a, mut b, mut c, mut d] = *state;
    macro_rules! step {
        ($a:ident, $mixed:expr, $b:ident, $at:expr, $word:expr, $left:literal, $right:literal) => {
            let sum = $a + $mixed + block[$word & 15] + Words::splat(SINES[$at]);
            $a = $b + ((sum << $left) | (sum >> $right));
        };
    }
    // Four steps; the words of the block go on by $by from $word.
    macro_rules! steps {
        ($mix:ident, $at:expr, $word:expr, $by:literal,
         $l0:literal $r0:literal, $l1:literal $r1:literal, $l2:literal $r2:literal, $l3:literal $r3:literal) => {
            step!(a, $mix(b, c, d), b, $at, $word, $l0, $r0);
            step!(d, $mix(a, b, c), a, $at + 1, $word + $by, $l1, $r1);
            step!(c, $mix(d, a, b), d, $at + 2, $word + 2 * $by, $l2, $r2);
            step!(b, $mix(c, d, a), c, $at + 3, $word + 3 * $by, $l3, $r3);
        };
    }
    steps!(f, 0, 0, 1, 7 25, 12 20, 17 15, 22 10);
    steps!(f, 4, 4, 1, 7 25, 12 20, 17 15, 22 10);
    steps!(f, 8, 8, 1, 7 25, 12 20, 17 15, 22 10);
    steps!(f, 12, 12, 1, 7 25, 12 20, 17 15, 22 10);
    steps!(g, 16, 1, 5, 5 27, 9 23, 14 18, 20 12);
    steps!(g, 20, 21, 5, 5 27, 9 23, 14 18, 20 12);
    steps!(g, 24, 41, 5, 5 27, 9 23, 14 18, 20 12);
    steps!(g, 28, 61, 5, 5 27, 9 23, 14 18, 20 12);
    steps!(h, 32, 5, 3, 4 28, 11 21, 16 16, 23 9);
    steps!(h, 36, 17, 3, 4 28, 11 21, 16 16, 23 9);
    steps!(h, 40, 29, 3, 4 28, 11 21, 16 16, 23 9);
    steps!(h, 44, 41, 3, 4 28, 11 21, 16 16, 23 9);
    steps!(i, 48, 0, 7, 6 26, 10 22, 15 17, 21 11);
    steps!(i, 52, 28, 7, 6 26, 10 22, 15 17, 21 11);
    steps!(i, 56, 56, 7, 6 26, 10 22, 15 17, 21 11);
    steps!(i, 60, 84, 7, 6 26, 10 22, 15 17, 21 11);
    let [start_a, start_b, start_c, start_d] = *state;
    [start_a + a, start_b + b, start_c + c, start_d + d]
}

fn f(b: Words, c: Words, d: Words) -> Words {
    d ^ (b & (c ^ d))
}

fn g(b: Words, c: Words, d: Words) -> Words {
    c ^ (d & (b ^ c))
}

fn h(b: Words, c: Words, d: Words) -> Words {
    b ^ c ^ d
}

fn i(b: Words, c: Words, d: Words) -> Words {
    c ^ (b | !d)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::{Key, ReplayProtection, Spi};

    fn association(key: &[u8]) -> MobilitySecurityAssociation {
        let association = MobilitySecurityAssociation {
            spi: Spi(256),
            algorithm: Algorithm::HmacMd5,
            key: Key::new(key.to_vec()),
            replay: ReplayProtection::default(),
        };
        association.ready()
    }

    fn ready(association: &MobilitySecurityAssociation) -> ReadyKey {
        let Form::HmacMd5(key) = &association.key.0 else { panic!() };
        ReadyKey(key.clone())
    }

    /// Lengths on both sides of the ends of blocks, beside one another in any lanes.
    // Shows 5944-5.1-b.
    #[test]
    fn lanes_give_what_one_after_the_other_gives() {
        let bytes: Vec<u8> = (0..=255).cycle().take(400).collect();
        let associations: Vec<_> = (0..11).map(|n| association(&bytes[n..2 * n + 5])).collect();
        for len in 0..200 {
            let covered: Vec<_> = (0..11).map(|n| &bytes[n..n + (len + 37 * n) % 200]).collect();
            let wanted: Vec<Wanted<'_>> =
                associations.iter().map(ready).zip(covered.iter().copied()).collect();
            let mut precomputed = Precomputed::default();
            precomputed.compute(&wanted);
            for (association, covered) in associations.iter().zip(&covered) {
                let found = precomputed.get(association, covered).unwrap();
                assert_eq!(found.as_bytes(), association.authenticator(covered).as_bytes());
            }
        }
    }

    #[test]
    fn only_what_was_computed_under_the_same_key_over_the_same_bytes_is_given() {
        let (ours, other) = (association(b"ours"), association(b"other"));
        let mut precomputed = Precomputed::default();
        let covered = [&b"one"[..], b"two", b"three", b"four"];
        let wanted: Vec<Wanted<'_>> = covered.iter().map(|one| (ready(&ours), *one)).collect();
        precomputed.compute(&wanted);
        assert!(precomputed.get(&ours, b"five").is_none());
        assert!(precomputed.get(&other, b"one").is_none());
        let mut keyed = ours.clone();
        keyed.algorithm = Algorithm::KeyedMd5;
        assert!(precomputed.get(&keyed, b"one").is_none());
        // In any order, and more than once.
        for one in [&b"three"[..], b"one", b"two", b"two", b"four"] {
            let found = precomputed.get(&ours, one).unwrap();
            assert_eq!(found.as_bytes(), ours.authenticator(one).as_bytes());
        }
        precomputed.compute(&wanted[..WORTH_IT - 1]);
        assert!(precomputed.get(&ours, b"one").is_none());
    }
}
