//! The memory that a queue shares with the kernel: frames of one size, in one piece.
//!
//! The first frames are for receiving, the others for sending. Which frame is whose
//! is told by the rings alone: a frame that was put into the fill or the transmit
//! ring is the kernel's until it comes back by the receive or the completion ring.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use super::socket::set_option;

/// The shared memory of one queue.
#[derive(Debug)]
pub(super) struct Umem {
    base: NonNull<u8>,
    len: usize,
    frame_len: usize,
}

// SAFETY: the mapping belongs to this value alone and to no thread.
unsafe impl Send for Umem {}

impl Umem {
    /// So many frames of a power of two of bytes, registered with a socket.
    ///
    /// # Errors
    /// There is no memory, or no more may be locked (RLIMIT_MEMLOCK).
    pub(super) fn new(socket: BorrowedFd<'_>, frames: usize, frame_len: usize) -> io::Result<Umem> {
        let len = frames * frame_len;
        // SAFETY: a new private mapping of no file, placed by the kernel.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let umem = Umem { base, len, frame_len };
        let registration = libc::xdp_umem_reg {
            addr: base.as_ptr().expose_provenance() as u64,
            len: len as u64,
            chunk_size: frame_len as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set_option(socket, libc::XDP_UMEM_REG, &registration)?;
        Ok(umem)
    }

    /// The start of the frame that a place is in.
    pub(super) fn frame_of(&self, place: u64) -> u64 {
        place & !(self.frame_len as u64 - 1)
    }

    /// The bytes of a frame that was received; none when the kernel names a place
    /// that is not inside one frame.
    pub(super) fn received(&self, place: u64, len: u32) -> &[u8] {
        match self.inside(place, len as usize) {
            // SAFETY: the bytes are inside the mapping, which lives as long as self;
            // the frame came by the receive ring, so the kernel does not write to it
            // until it is in the fill ring again, for which self is borrowed anew.
            Some(start) => unsafe { std::slice::from_raw_parts(start.as_ptr(), len as usize) },
            None => &[],
        }
    }

    /// Puts bytes into a frame that is not the kernel's. `false`, and nothing
    /// written, when they do not fit.
    #[must_use]
    pub(super) fn write(&mut self, place: u64, bytes: &[u8]) -> bool {
        let Some(start) = self.inside(place, bytes.len()) else { return false };
        // SAFETY: as many bytes are inside the mapping from there on; the frame is in
        // no ring, so that nobody else reads or writes it; `bytes` is elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.as_ptr(), bytes.len()) };
        true
    }

    fn inside(&self, place: u64, len: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(place).ok()?;
        let end = offset.checked_add(len)?;
        let frame_end = usize::try_from(self.frame_of(place)).ok()?.checked_add(self.frame_len)?;
        // SAFETY: the offset is below the length of the mapping.
        (end <= frame_end && frame_end <= self.len).then(|| unsafe { self.base.add(offset) })
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nothing borrows from it now. The
        // kernel holds its pages as long as the socket uses them.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
