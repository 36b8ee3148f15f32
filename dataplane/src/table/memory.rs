//! The memory of big tables: taken once, zero, and on huge pages where there are any.
//!
//! A random access to a table of gigabytes misses the TLB as well as the caches; on
//! pages of 2 MiB it misses the caches alone, which saves a fifth to almost a half of
//! it. Reserved huge pages (`vm.nr_hugepages`) are used first, then transparent ones
//! are asked for. Nothing is touched before it is used, so that a table costs what is
//! in it and not what it may hold.
#![allow(unsafe_code, reason = "memory is mapped, and handed out as a slice")]

use std::ops::Deref;

/// What pages a table lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pages {
    /// Of the usual size: the table is smaller than a huge page, or there are none.
    Small,
    /// Transparent huge pages were asked for, and the kernel gives them when it can.
    Transparent,
    /// Reserved huge pages (`vm.nr_hugepages`).
    Reserved,
}

impl Pages {
    /// What people call them.
    pub const fn name(self) -> &'static str {
        match self {
            Pages::Small => "small",
            Pages::Transparent => "transparent-huge",
            Pages::Reserved => "reserved-huge",
        }
    }
}

/// Bytes of a huge page.
pub const HUGE_PAGE: usize = 2 << 20;

/// A type that all-zero bytes are a value of, and that needs no drop.
///
/// # Safety
///
/// Whoever implements it promises that.
pub(crate) unsafe trait Zeroable {
    /// The value that is all zeros, where it cannot be had from zeroed memory (models).
    fn zero() -> Self;
}

/// Asks for huge pages under memory of the heap that is not yet filled: of those
/// pages of it that are whole huge ones. It changes none of its contents.
pub(crate) fn advise<T>(memory: &mut [std::mem::MaybeUninit<T>]) {
    #[cfg(not(loom))]
    mapped::advise(memory.as_mut_ptr_range());
    #[cfg(loom)]
    let _ = memory;
}

/// A slice of a fixed length that never moves.
pub(crate) struct Array<T> {
    #[cfg(not(loom))]
    elements: mapped::Elements<T>,
    #[cfg(loom)]
    elements: Box<[T]>,
    pages: Pages,
}

impl<T: Zeroable> Array<T> {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        #[cfg(not(loom))]
        if let Some((elements, pages)) = mapped::Elements::mapped(len) {
            return Array { elements, pages };
        }
        let heap: Box<[T]> = (0..len).map(|_| T::zero()).collect();
        Array { elements: heap.into(), pages: Pages::Small }
    }

    /// What pages it lies on.
    pub(crate) fn pages(&self) -> Pages {
        self.pages
    }
}

impl<T> Deref for Array<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        &self.elements
    }
}

#[cfg(not(loom))]
mod mapped {
    use std::marker::PhantomData;
    use std::ops::Deref;
    use std::ptr::{self, NonNull};
    use std::sync::OnceLock;

    use super::{HUGE_PAGE, Pages, Zeroable};

    /// A slice and the memory that it owns. Wherever that is from, the slice is found
    /// without asking.
    pub(super) struct Elements<T> {
        slice: NonNull<[T]>,
        /// What is to be unmapped; `None`: the slice is a box.
        mapping: Option<(NonNull<libc::c_void>, usize)>,
        _owns: PhantomData<T>,
    }

    // SAFETY: it owns its elements, like a box.
    unsafe impl<T: Send> Send for Elements<T> {}
    // SAFETY: sharing it shares its elements, and nothing else.
    unsafe impl<T: Sync> Sync for Elements<T> {}

    impl<T> From<Box<[T]>> for Elements<T> {
        fn from(heap: Box<[T]>) -> Self {
            Elements { slice: NonNull::from(Box::leak(heap)), mapping: None, _owns: PhantomData }
        }
    }

    impl<T: Zeroable> Elements<T> {
        /// `None` when it is too small to be worth it, or when there is no memory.
        pub(super) fn mapped(len: usize) -> Option<(Self, Pages)> {
            let bytes = len.checked_mul(size_of::<T>())?;
            if bytes < HUGE_PAGE || align_of::<T>() > HUGE_PAGE {
                return None;
            }
            let rounded = bytes.checked_next_multiple_of(HUGE_PAGE)?;
            // Without MAP_NORESERVE, so that it fails now and not when it is touched.
            if let Some(start) = map(rounded, libc::MAP_HUGETLB) {
                let whole = (start, rounded);
                return Some((Elements::at(start.cast(), len, whole), Pages::Reserved));
            }
            // One page more, so that a boundary of huge pages is in it.
            let size = rounded.checked_add(HUGE_PAGE)?;
            let start = map(size, libc::MAP_NORESERVE)?;
            let skip = start.as_ptr().align_offset(HUGE_PAGE);
            if skip > HUGE_PAGE {
                return None;
            }
            // SAFETY: `skip` is at most the one page that was mapped in addition.
            let aligned = unsafe { start.byte_add(skip) };
            // SAFETY: the range was mapped just now and is nobody else's; the advice
            // changes none of its contents.
            let advised = unsafe { libc::madvise(aligned.as_ptr(), rounded, libc::MADV_HUGEPAGE) };
            let huge = advised == 0 && transparent_pages();
            let pages = if huge { Pages::Transparent } else { Pages::Small };
            Some((Elements::at(aligned.cast(), len, (start, size)), pages))
        }

        fn at(first: NonNull<T>, len: usize, whole: (NonNull<libc::c_void>, usize)) -> Self {
            let slice = NonNull::slice_from_raw_parts(first, len);
            Elements { slice, mapping: Some(whole), _owns: PhantomData }
        }
    }

    impl<T> Deref for Elements<T> {
        type Target = [T];

        #[inline(always)]
        fn deref(&self) -> &[T] {
            // SAFETY: it was a box, or `mapped` put so many elements there, aligned to a
            // page, and zero is a value of the type (`Zeroable`).
            unsafe { self.slice.as_ref() }
        }
    }

    impl<T> Drop for Elements<T> {
        fn drop(&mut self) {
            match self.mapping {
                // SAFETY: it was mapped by `mapped`, and nothing borrows from it any
                // more. The elements need no drop (`Zeroable`).
                Some((start, size)) => unsafe {
                    libc::munmap(start.as_ptr(), size);
                },
                // SAFETY: it was a box, and nothing borrows from it any more.
                None => drop(unsafe { Box::from_raw(self.slice.as_ptr()) }),
            }
        }
    }

    /// The memory in this range must be the caller's.
    pub(super) fn advise<T>(memory: std::ops::Range<*mut T>) {
        let skip = memory.start.cast::<u8>().align_offset(HUGE_PAGE);
        let bytes = memory.end.addr().saturating_sub(memory.start.addr());
        let Some(left) = bytes.checked_sub(skip).map(|left| left / HUGE_PAGE * HUGE_PAGE) else {
            return;
        };
        if left > 0 {
            let start = memory.start.wrapping_byte_add(skip);
            // SAFETY: whole pages, inside of memory that is borrowed mutably; the
            // advice changes none of its contents. That it is not taken does no harm.
            unsafe { libc::madvise(start.cast(), left, libc::MADV_HUGEPAGE) };
        }
    }

    fn map(size: usize, flags: libc::c_int) -> Option<NonNull<libc::c_void>> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), size, access, flags, -1, 0) };
        if start == libc::MAP_FAILED { None } else { NonNull::new(start) }
    }

    /// Whether the kernel gives transparent huge pages to who asks for them.
    fn transparent_pages() -> bool {
        static KNOWN: OnceLock<bool> = OnceLock::new();
        *KNOWN.get_or_init(|| {
            std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
                .is_ok_and(|choice| !choice.contains("[never]"))
        })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    // SAFETY: integers.
    unsafe impl Zeroable for u64 {
        fn zero() -> Self {
            0
        }
    }

    #[test]
    fn advice_is_for_memory_of_any_length() {
        for len in [0, 1, HUGE_PAGE / 8 + 1, HUGE_PAGE] {
            let mut numbers = Vec::<u64>::with_capacity(len);
            advise(numbers.spare_capacity_mut());
            numbers.extend(0..len as u64);
            assert!(numbers.iter().zip(0..).all(|(number, expected)| *number == expected));
        }
    }

    #[test]
    fn big_and_small_arrays_are_zero_from_end_to_end() {
        for len in [0, 1, 100, HUGE_PAGE / 8 - 1, HUGE_PAGE / 8, HUGE_PAGE / 4 + 1] {
            let array = Array::<u64>::zeroed(len);
            assert_eq!(array.len(), len);
            assert!(array.iter().all(|word| *word == 0));
            if len * 8 < HUGE_PAGE {
                assert_eq!(array.pages(), Pages::Small);
            } else {
                assert_eq!(array.as_ptr().addr() % HUGE_PAGE, 0);
            }
        }
    }
}
