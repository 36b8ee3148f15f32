//! Buckets: cache lines of slots, and the search for a tag in one.

use crate::sync::AtomicU64;
use crate::table::memory::Zeroable;

/// Slots of a bucket: a cache line. Fewer in models, which try every order.
pub(super) const SLOTS: usize = if cfg!(loom) { 2 } else { 8 };

/// A slot without a key.
pub(super) const EMPTY: u64 = 0;

/// A cache line of slots. Each is the word of an entry, or [`EMPTY`].
#[repr(align(64))]
pub(super) struct Bucket {
    pub(super) slots: [AtomicU64; SLOTS],
}

// SAFETY: atomic integers, for which zero is a value: `EMPTY`.
unsafe impl Zeroable for Bucket {
    fn zero() -> Self {
        Bucket { slots: std::array::from_fn(|_| AtomicU64::new(EMPTY)) }
    }
}

impl Bucket {
    /// Two bits for each slot, which are set if its tag is this one. No branch depends on
    /// where that is: it cannot be predicted.
    #[inline(always)]
    pub(super) fn matching(&self, tag: u32) -> u32 {
        #[cfg(all(target_arch = "x86_64", not(loom)))]
        {
            let mask: u32;
            // SAFETY: it reads the 64 bytes of the slots, which are aligned to a cache
            // line, and nothing else. Other threads may store to them: what is read of
            // each slot is one of its values, as slots are aligned words, and only says
            // where to look. The slot itself is then loaded as the atomic that it is.
            unsafe {
                std::arch::asm!(
                    "movd {tags}, {tag:e}",
                    "pshufd {tags}, {tags}, 0",
                    "movdqa {a}, [{slots}]",
                    "movdqa {b}, [{slots} + 32]",
                    // The tag is a slot's upper half: those of four slots at once.
                    "shufps {a}, [{slots} + 16], 0xdd",
                    "shufps {b}, [{slots} + 48], 0xdd",
                    "pcmpeqd {a}, {tags}",
                    "pcmpeqd {b}, {tags}",
                    "packssdw {a}, {b}",
                    "pmovmskb {mask:e}, {a}",
                    slots = in(reg) self.slots.as_ptr(),
                    tag = in(reg) tag,
                    mask = lateout(reg) mask,
                    tags = out(xmm_reg) _,
                    a = out(xmm_reg) _,
                    b = out(xmm_reg) _,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
            mask
        }
        #[cfg(not(all(target_arch = "x86_64", not(loom))))]
        {
            use crate::sync::Ordering;
            // Acquire: as the slot itself will be loaded.
            let tags = self.slots.iter().map(|slot| tag_of(slot.load(Ordering::Acquire)));
            tags.enumerate().map(|(at, other)| u32::from(other == tag) * 3 << (2 * at)).sum()
        }
    }

    /// The slot of the lowest bits of `matching`.
    #[inline(always)]
    pub(super) fn slot(&self, matching: u32) -> Option<&AtomicU64> {
        self.slots.get(matching.trailing_zeros() as usize / 2)
    }

    /// What is left of `matching` without its lowest slot.
    #[inline(always)]
    pub(super) const fn without_lowest(matching: u32) -> u32 {
        let other = matching & matching.wrapping_sub(1);
        other & other.wrapping_sub(1)
    }
}

/// The word of a slot: the entry's number counts from 1, so that no word is
/// [`EMPTY`].
pub(super) const fn word(tag: u32, index: u32) -> u64 {
    (tag as u64) << 32 | (index as u64 + 1)
}

pub(super) const fn tag_of(word: u64) -> u32 {
    (word >> 32) as u32
}

pub(super) const fn index_of(word: u64) -> u32 {
    (word as u32).wrapping_sub(1)
}
