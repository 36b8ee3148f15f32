//! The four rings that an AF_XDP socket shares with the kernel.
//!
//! Each has one producer and one consumer, one of them the kernel: fill (frames
//! that the kernel may receive into) and transmit are produced here, receive and
//! completion (frames that were sent) are consumed here. Positions count up and
//! wrap at 2³²; a ring's size is a power of two.
//!
//! A producer writes its slots before it stores its position with release, and the
//! other side loads that with acquire before it reads them; the consumer likewise
//! before a slot is written anew.

use std::ffi::c_int;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a slot holds: plain integers.
pub(super) trait Slot: Copy {}

/// The place of a frame in the memory that is shared.
impl Slot for u64 {}

/// A frame to send, or that came.
impl Slot for libc::xdp_desc {}

/// The mapping of one ring.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
    offsets: Offsets,
}

/// Where the parts of a ring are in its mapping, as the kernel says.
#[derive(Clone, Copy, Debug)]
struct Offsets {
    producer: usize,
    consumer: usize,
    flags: usize,
    slots: usize,
}

impl Mapping {
    fn new(
        socket: BorrowedFd<'_>,
        page: i64,
        offset: &libc::xdp_ring_offset,
        slots_len: usize,
    ) -> io::Result<Mapping> {
        let at = |offset: u64| usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidData);
        let offsets = Offsets {
            producer: at(offset.producer)?,
            consumer: at(offset.consumer)?,
            flags: at(offset.flags)?,
            slots: at(offset.desc)?,
        };
        let len = offsets.slots.checked_add(slots_len).ok_or(io::ErrorKind::InvalidData)?;
        // SAFETY: a new shared mapping, placed by the kernel, of a ring of this socket.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                socket.as_raw_fd(),
                page,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Mapping { base, len, offsets })
    }

    /// The word at an offset that the kernel gave: it is inside, aligned, and shared.
    fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: the kernel laid out the ring's header at these offsets of the
        // mapping, in front of the slots; they are aligned to cache lines or, the
        // flags, to four bytes. The mapping lives as long as self.
        unsafe { AtomicU32::from_ptr(self.base.add(offset).cast().as_ptr()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nothing borrows from it now.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// A ring, seen from one of its ends.
#[derive(Debug)]
pub(super) struct Ring<T, E> {
    mapping: Mapping,
    size: u32,
    /// This end's position, and the other end's when it was last looked at.
    own: u32,
    other: u32,
    kind: PhantomData<(T, E)>,
}

// SAFETY: the mapping belongs to this value alone and to no thread; the kernel does
// not care which thread uses it.
unsafe impl<T: Send, E: Send> Send for Ring<T, E> {}

/// The end that fills slots.
#[derive(Debug)]
pub(super) enum Producer {}

/// The end that empties slots.
#[derive(Debug)]
pub(super) enum Consumer {}

impl<T: Slot, E> Ring<T, E> {
    /// Maps the ring of `size` slots that the socket was told to have. `page` says
    /// which one.
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        page: i64,
        offset: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        let mapping = Mapping::new(socket, page, offset, size as usize * size_of::<T>())?;
        Ok(Ring { mapping, size, own: 0, other: 0, kind: PhantomData })
    }

    /// Whether the kernel waits for a system call before it goes on with this ring
    /// (`XDP_RING_NEED_WAKEUP`).
    pub(super) fn needs_wakeup(&self) -> bool {
        let flags = self.mapping.word(self.mapping.offsets.flags).load(Ordering::Relaxed);
        flags & libc::XDP_RING_NEED_WAKEUP != 0
    }

    fn slot(&self, position: u32) -> NonNull<T> {
        let index = (position & (self.size - 1)) as usize;
        // SAFETY: the size is a power of two, so the index is below it, and the
        // mapping has `size` slots of T from here on.
        unsafe { self.mapping.base.add(self.mapping.offsets.slots).cast::<T>().add(index) }
    }
}

impl<T: Slot> Ring<T, Producer> {
    /// How many slots are free.
    pub(super) fn free(&mut self) -> u32 {
        self.other = self.mapping.word(self.mapping.offsets.consumer).load(Ordering::Acquire);
        self.size - self.own.wrapping_sub(self.other)
    }

    /// Fills the next slot, to be handed over by [`Ring::submit`]. `false`, and
    /// nothing done, when none is free.
    #[must_use]
    pub(super) fn push(&mut self, value: T) -> bool {
        if self.own.wrapping_sub(self.other) == self.size && self.free() == 0 {
            return false;
        }
        let slot = self.slot(self.own);
        // SAFETY: the slot is inside the mapping and aligned, and free: the kernel
        // does not read it before `submit`.
        unsafe { slot.write(value) };
        self.own = self.own.wrapping_add(1);
        true
    }

    /// Hands over what was pushed.
    pub(super) fn submit(&mut self) {
        self.mapping.word(self.mapping.offsets.producer).store(self.own, Ordering::Release);
    }

    /// How many slots the kernel has not taken yet.
    pub(super) fn waiting(&mut self) -> u32 {
        self.size - self.free()
    }
}

impl<T: Slot> Ring<T, Consumer> {
    /// What the next slot holds, if it is filled; it stays there until
    /// [`Ring::release`].
    pub(super) fn peek(&mut self) -> Option<T> {
        if self.own == self.other {
            self.other = self.mapping.word(self.mapping.offsets.producer).load(Ordering::Acquire);
            if self.own == self.other {
                return None;
            }
        }
        // SAFETY: the slot is inside the mapping and aligned; the kernel filled it
        // before it stored the position that was just acquired, and leaves it alone
        // until it is released. Any bytes are a T.
        Some(unsafe { self.slot(self.own).read() })
    }

    /// Goes on to the next slot. The kernel gets it back by [`Ring::submit`].
    pub(super) fn advance(&mut self) {
        self.own = self.own.wrapping_add(1);
    }

    /// Gives the slots back that were advanced over.
    pub(super) fn release(&mut self) {
        self.mapping.word(self.mapping.offsets.consumer).store(self.own, Ordering::Release);
    }
}

/// Tells a socket how many slots one of its rings has.
pub(super) fn set_size(socket: BorrowedFd<'_>, ring: c_int, size: u32) -> io::Result<()> {
    super::socket::set_option(socket, ring, &size)
}
