//! HMAC-MD5 of several messages at once.
//!
//! Each step of MD5 needs the one before, so most of a processor waits for a message's
//! authenticator. It computes those of several messages in little more time, a message in
//! each lane of its vectors, if it has AVX2. So who has several requests has their
//! authenticators computed before it asks for the first: whether one is right is judged
//! later, and by one rule.

#[cfg(target_arch = "x86_64")]
mod md5;

use alloc::vec::Vec;
use core::fmt;

use smallvec::SmallVec;

use self::md5::{LANES, Vectors, Words};
use super::{Algorithm, Authenticator, Form, HmacMd5Key, MD5_BLOCK, MobilitySecurityAssociation};

/// Processors for which nobody has written it.
#[cfg(not(target_arch = "x86_64"))]
mod md5 {
    pub(super) const LANES: usize = 16;

    pub(super) type Words = [u32; LANES];

    /// There is none.
    #[derive(Clone, Copy, Debug)]
    pub(super) enum Vectors {}

    impl Vectors {
        pub(super) const fn detect() -> Option<Self> {
            None
        }

        pub(super) fn compress(self, _: &[Words; 4], _: &[Words; 16]) -> [Words; 4] {
            match self {}
        }
    }
}

/// With fewer messages, one after the other takes no longer.
pub(crate) const WORTH_IT: usize = 3;

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
    /// Computes those of these that share vectors, and forgets all others. One after the
    /// other, each is computed when it is needed, if it is: a budget may be in front.
    pub(crate) fn compute(&mut self, wanted: &[Wanted<'_>]) {
        self.compute_by(Vectors::detect(), wanted);
    }

    fn compute_by(&mut self, vectors: Option<Vectors>, wanted: &[Wanted<'_>]) {
        self.known.clear();
        self.next = 0;
        let Some(vectors) = vectors else { return };
        for lanes in wanted.chunks(LANES).filter(|lanes| lanes.len() >= WORTH_IT) {
            let authenticators = authenticators(vectors, lanes);
            self.known.extend(lanes.iter().zip(authenticators).map(|(one, authenticator)| {
                let (ReadyKey(key), covered) = one;
                Known { key: key.clone(), covered: SmallVec::from_slice(covered), authenticator }
            }));
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

/// Gives `take` each of the messages, in their order, with its authenticator.
pub(crate) fn each<'a>(wanted: &[Wanted<'a>], take: impl FnMut(&Wanted<'a>, [u8; 16])) {
    each_by(Vectors::detect(), wanted, take);
}

fn each_by<'a>(
    vectors: Option<Vectors>,
    wanted: &[Wanted<'a>],
    mut take: impl FnMut(&Wanted<'a>, [u8; 16]),
) {
    for lanes in wanted.chunks(LANES) {
        match vectors.filter(|_| lanes.len() >= WORTH_IT) {
            Some(vectors) => {
                let authenticators = authenticators(vectors, lanes);
                lanes.iter().zip(&authenticators).for_each(|(one, found)| take(one, *found));
            }
            None => lanes.iter().for_each(|one| take(one, one.0.0.authenticator(one.1))),
        }
    }
}

/// The authenticators of [`LANES`] messages at most (RFC 2104 §2).
fn authenticators(vectors: Vectors, wanted: &[Wanted<'_>]) -> [[u8; 16]; LANES] {
    let mut blocks = [0; LANES];
    for (blocks, (_, covered)) in blocks.iter_mut().zip(wanted) {
        // RFC 1321 §3.1, §3.2: a one bit and the length, of eight bytes, go behind it.
        *blocks = (covered.len() + 1 + 8).div_ceil(MD5_BLOCK);
    }
    let mut inner = states(wanted, |key| &key.inner);
    for block in 0..blocks.iter().copied().max().unwrap_or(0) {
        let next = vectors.compress(&inner, &words(wanted, block));
        for (old, new) in inner.iter_mut().zip(&next) {
            // Whose message is shorter keeps what it has.
            for ((old, new), all) in old.iter_mut().zip(new).zip(blocks) {
                *old = if block < all { *new } else { *old };
            }
        }
    }
    let mut digests = [[0; LANES]; 16];
    digests.iter_mut().zip(inner).for_each(|(to, words)| *to = words);
    digests[4] = [0x80; LANES];
    // Bits, of the block of the key and the digest.
    digests[14] = [(64 + 16) * 8; LANES];
    let outer = vectors.compress(&states(wanted, |key| &key.outer), &digests);
    let mut authenticators = [[0; 16]; LANES];
    for (nth, words) in outer.iter().enumerate() {
        for (authenticator, word) in authenticators.iter_mut().zip(words) {
            if let Some(to) = authenticator.as_chunks_mut::<4>().0.get_mut(nth) {
                *to = word.to_le_bytes();
            }
        }
    }
    authenticators
}

/// A state of each lane's key.
fn states(wanted: &[Wanted<'_>], of: fn(&HmacMd5Key) -> &[u32; 4]) -> [Words; 4] {
    let mut states = [[0; LANES]; 4];
    for (lane, (ReadyKey(key), _)) in (0..LANES).zip(wanted) {
        spread(&mut states, lane, of(key).iter().copied());
    }
    states
}

/// A block of each lane's message.
fn words(wanted: &[Wanted<'_>], block: usize) -> [Words; 16] {
    let mut words = [[0; LANES]; 16];
    for (lane, (_, covered)) in (0..LANES).zip(wanted) {
        let rest = covered.get(block * MD5_BLOCK..).unwrap_or_default();
        let padded;
        let bytes = match rest.first_chunk() {
            Some(whole) => whole,
            None => {
                padded = padded_block(covered, block);
                &padded
            }
        };
        let le_words = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        spread(&mut words, lane, le_words);
    }
    words
}

/// Puts the words of a lane where they belong.
fn spread(to: &mut [Words], lane: usize, words: impl Iterator<Item = u32>) {
    for (to, word) in to.iter_mut().zip(words) {
        if let Some(to) = to.get_mut(lane) {
            *to = word;
        }
    }
}

/// One of the blocks of a message that is padded as RFC 1321 §3.1 and §3.2 want it; the
/// block of a key is in front of it.
fn padded_block(covered: &[u8], block: usize) -> [u8; MD5_BLOCK] {
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
    bytes
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

    /// With vectors, if this processor has them, and without.
    fn ways() -> impl Iterator<Item = Option<Vectors>> {
        Vectors::detect().map(Some).into_iter().chain([None])
    }

    /// Lengths on both sides of the ends of blocks, beside one another in any lanes.
    // Shows 5944-5.1-b.
    #[test]
    fn lanes_give_what_one_after_the_other_gives() {
        let bytes: Vec<u8> = (0..=255).cycle().take(400).collect();
        let associations: Vec<_> = (0..21).map(|n| association(&bytes[n..2 * n + 5])).collect();
        for (len, vectors) in (0..200).flat_map(|len| ways().map(move |way| (len, way))) {
            let covered: Vec<_> = (0..21).map(|n| &bytes[n..n + (len + 37 * n) % 200]).collect();
            let wanted: Vec<Wanted<'_>> =
                associations.iter().map(ready).zip(covered.iter().copied()).collect();
            let mut precomputed = Precomputed::default();
            precomputed.compute_by(vectors, &wanted);
            let mut given = Vec::new();
            each_by(vectors, &wanted, |_, authenticator| given.push(authenticator));
            assert_eq!(given.len(), wanted.len());
            for ((association, covered), given) in associations.iter().zip(&covered).zip(&given) {
                let one = association.authenticator(covered);
                assert_eq!(one.as_bytes(), given);
                let found = precomputed.get(association, covered);
                assert_eq!(
                    found.as_ref().map(Authenticator::as_bytes),
                    vectors.map(|_| one.as_bytes())
                );
            }
        }
    }

    /// A budget may shed the request before its authenticator is asked for.
    #[test]
    fn what_shares_no_vectors_is_not_computed_before_it_is_asked_for() {
        let ours = association(b"ours");
        let bytes: Vec<u8> = (0..=255).collect();
        let wanted: Vec<Wanted<'_>> = bytes.chunks(4).map(|one| (ready(&ours), one)).collect();
        let mut precomputed = Precomputed::default();
        let mut known = |vectors, count: usize| {
            precomputed.compute_by(vectors, &wanted[..count]);
            precomputed.known.len()
        };
        assert_eq!(known(None, wanted.len()), 0);
        if let Some(vectors) = Vectors::detect() {
            assert_eq!(known(Some(vectors), LANES + WORTH_IT), LANES + WORTH_IT);
            assert_eq!(known(Some(vectors), LANES + WORTH_IT - 1), LANES);
            assert_eq!(known(Some(vectors), WORTH_IT - 1), 0);
        }
    }

    #[test]
    fn only_what_was_computed_under_the_same_key_over_the_same_bytes_is_given() {
        let (ours, other) = (association(b"ours"), association(b"other"));
        let covered = [&b"one"[..], b"two", b"three", b"four"];
        let wanted: Vec<Wanted<'_>> = covered.iter().map(|one| (ready(&ours), *one)).collect();
        let known = wanted.iter().map(|(ReadyKey(key), covered)| Known {
            key: key.clone(),
            covered: SmallVec::from_slice(covered),
            authenticator: key.authenticator(covered),
        });
        let mut precomputed = Precomputed { known: known.collect(), next: 0 };
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
