//! Bringing memory into the cache before it is needed.
#![allow(unsafe_code, reason = "the prefetch instruction is an intrinsic")]

/// Asks for the cache line in which `target` starts. It reads nothing, waits for
/// nothing, and changes nothing but how long the next access takes.
#[inline(always)]
pub(crate) fn prefetch<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and faults on nothing; SSE is baseline.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}
