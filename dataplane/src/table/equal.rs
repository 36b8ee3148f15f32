//! Comparing many words at once.
#![cfg_attr(target_arch = "x86_64", allow(unsafe_code, reason = "vectors are intrinsics"))]

/// A bit for each of eight words, from the lowest on, which is set if it is `word`. No
/// branch depends on where that is: it cannot be predicted.
#[inline(always)]
pub(crate) fn equal(words: [u32; 8], word: u32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: these compute with values and touch no memory; SSE2 is baseline.
    unsafe {
        use std::arch::x86_64::{
            _mm_cmpeq_epi32, _mm_movemask_epi8, _mm_packs_epi16, _mm_packs_epi32, _mm_set_epi32,
            _mm_set1_epi32,
        };
        let all = _mm_set1_epi32(word.cast_signed());
        let [a, b, c, d, e, f, g, h] = words.map(u32::cast_signed);
        let low = _mm_cmpeq_epi32(_mm_set_epi32(d, c, b, a), all);
        let high = _mm_cmpeq_epi32(_mm_set_epi32(h, g, f, e), all);
        let both = _mm_packs_epi32(low, high);
        // Each half has all eight.
        (_mm_movemask_epi8(_mm_packs_epi16(both, both)) & 0xff).cast_unsigned()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let bits = words.iter().enumerate().map(|(at, other)| u32::from(*other == word) << at);
        bits.sum()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_word_that_is_equal_has_its_bit(words: [u32; 8], which: u8, word: u32) {
            let mut words = words;
            for (at, other) in words.iter_mut().enumerate() {
                if which >> at & 1 == 1 {
                    *other = word;
                }
            }
            let expected =
                (0..8).filter(|at| words[*at] == word).fold(0, |bits, at| bits | 1 << at);
            prop_assert_eq!(equal(words, word), expected);
        }
    }
}
