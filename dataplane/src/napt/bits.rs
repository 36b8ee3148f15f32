//! Sets of small numbers as bits of words.

/// Bits of a word.
pub(super) const WORD: usize = u64::BITS as usize;

/// The even bits of a word.
const EVEN: u64 = 0x5555_5555_5555_5555;

/// Which numbers are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parity {
    Any,
    Even,
    Odd,
}

impl Parity {
    /// That of a number.
    pub(super) const fn of(number: u16) -> Self {
        if number & 1 == 0 { Parity::Even } else { Parity::Odd }
    }

    const fn mask(self) -> u64 {
        match self {
            Parity::Any => u64::MAX,
            Parity::Even => EVEN,
            Parity::Odd => !EVEN,
        }
    }
}

/// The first number in a set from `start` on, and then from its beginning.
pub(super) fn next(words: &[u64], parity: Parity, start: usize) -> Option<usize> {
    let (from, bit) = (start / WORD, start % WORD);
    let (upper, mask) = (u64::MAX << bit, parity.mask());
    let first = |at: usize, part: u64| {
        let found = words.get(at)? & mask & part;
        (found != 0).then(|| at * WORD + found.trailing_zeros() as usize)
    };
    let among = |mut words: std::ops::Range<usize>| words.find_map(|at| first(at, u64::MAX));
    // The word of `start` comes twice: first its upper part, in the end the rest.
    first(from, upper)
        .or_else(|| among(from + 1..words.len()))
        .or_else(|| among(0..from.min(words.len())))
        .or_else(|| first(from, !upper))
}

/// Puts a number into a set, or takes it out.
pub(super) fn set(words: &mut [u64], number: usize, is_in: bool) {
    if let Some(word) = words.get_mut(number / WORD) {
        let bit = 1 << (number % WORD);
        if is_in {
            *word |= bit;
        } else {
            *word &= !bit;
        }
    }
}

/// Whether a number is in a set.
pub(super) fn has(words: &[u64], number: usize) -> bool {
    words.get(number / WORD).is_some_and(|word| word >> (number % WORD) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// What a search from number to number would find.
        #[test]
        fn the_next_one_is_found(
            numbers in proptest::collection::btree_set(0usize..200, 0..40),
            start in 0usize..200,
            parity in prop_oneof![Just(Parity::Any), Just(Parity::Even), Just(Parity::Odd)],
        ) {
            let mut words = [0u64; 4];
            for number in &numbers {
                set(&mut words, *number, true);
            }
            let fits = |number: &usize| match parity {
                Parity::Any => true,
                parity => Parity::of(*number as u16) == parity,
            };
            let is_in = |number: &usize| numbers.contains(number);
            let model = (start..200).chain(0..start).find(|number| fits(number) && is_in(number));
            prop_assert_eq!(next(&words, parity, start), model);
            let seen: BTreeSet<usize> = (0..200).filter(|number| has(&words, *number)).collect();
            prop_assert_eq!(&seen, &numbers);
            for number in &numbers {
                set(&mut words, *number, false);
            }
            prop_assert_eq!(words, [0; 4]);
        }
    }
}
