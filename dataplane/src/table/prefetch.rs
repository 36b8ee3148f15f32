//! Bringing memory into the cache before it is needed.
#![allow(unsafe_code, reason = "the instruction is an intrinsic")]

/// Asks for the cache line in which `target` begins.
#[inline(always)]
pub(crate) fn prefetch<T: ?Sized>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and faults on nothing; SSE is baseline.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}
