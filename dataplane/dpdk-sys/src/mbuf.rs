//! Buffers of DPDK.

use std::ffi::CString;
use std::fmt;
use std::ptr::NonNull;

use crate::{DpdkError, Eal, ffi};

/// Bytes in front of the frame in a new or received mbuf.
pub const HEADROOM: u16 = ffi::HP_HEADROOM as u16;

/// A pool of buffers. It lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct Mempool(NonNull<ffi::rte_mempool>);

// SAFETY: DPDK's pools may be used by any number of threads at once.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// The pool of this name, made if there is none yet, with `mbufs` buffers of
    /// [`HEADROOM`] and `room` bytes.
    ///
    /// # Errors
    /// The name is longer than 25 bytes, or there is no memory.
    pub fn new(_: Eal, name: &str, mbufs: u32, room: u16) -> Result<Mempool, DpdkError> {
        let what = || format!("make a pool of {mbufs} buffers");
        let text = CString::new(name).map_err(|e| DpdkError::new(what(), e.to_string()))?;
        let room = room.checked_add(HEADROOM);
        let room = room.ok_or_else(|| DpdkError::new(what(), "the buffers are too large"))?;
        let mut error = 0;
        // SAFETY: DPDK runs; the name is a C string, copied by the callee; `error`
        // is written when null is returned.
        let pool = unsafe { ffi::hp_pool(text.as_ptr(), mbufs, room, &mut error) };
        match NonNull::new(pool) {
            Some(pool) => Ok(Mempool(pool)),
            None => Err(DpdkError::check(error, what)
                .err()
                .unwrap_or_else(|| DpdkError::new(what(), "no reason given"))),
        }
    }

    /// An empty mbuf, or `None` when all are in use.
    pub fn alloc(self) -> Option<Mbuf> {
        // SAFETY: the pool is never freed; a fresh mbuf is the caller's alone.
        NonNull::new(unsafe { ffi::hp_mbuf_alloc(self.0.as_ptr()) }).map(Mbuf)
    }

    /// How many mbufs are free, those in the caches of threads included.
    pub fn available(self) -> u32 {
        // SAFETY: the pool is never freed.
        unsafe { ffi::hp_pool_available(self.0.as_ptr()) }
    }

    pub(crate) const fn as_ptr(self) -> *mut ffi::rte_mempool {
        self.0.as_ptr()
    }
}

/// A buffer of a [`Mempool`], of one segment and owned: nobody else has it.
/// Dropping it gives it back.
pub struct Mbuf(NonNull<ffi::rte_mbuf>);

// SAFETY: an mbuf may be freed by any thread, and this is its only owner.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// The whole buffer, headroom included.
    pub fn buffer(&self) -> &[u8] {
        let mbuf = self.fields();
        // SAFETY: buf_addr points to buf_len bytes, which belong to the mbuf as
        // long as it is owned, and were zeroed when the pool was mapped.
        unsafe { std::slice::from_raw_parts(mbuf.buf_addr.cast(), mbuf.buf_len.into()) }
    }

    /// The whole buffer, headroom included, to write.
    pub fn buffer_mut(&mut self) -> &mut [u8] {
        let mbuf = self.fields();
        // SAFETY: as in `buffer`; nobody else has the mbuf, so nobody else has its
        // bytes.
        unsafe { std::slice::from_raw_parts_mut(mbuf.buf_addr.cast(), mbuf.buf_len.into()) }
    }

    /// Where the frame starts in the buffer.
    pub fn data_offset(&self) -> u16 {
        self.fields().data_off
    }

    /// Bytes of the frame.
    pub fn data_len(&self) -> u16 {
        self.fields().data_len
    }

    /// The frame.
    pub fn data(&self) -> &[u8] {
        let start = usize::from(self.data_offset());
        let end = start + usize::from(self.data_len());
        self.buffer().get(start..end).unwrap_or_default()
    }

    /// Says where the frame starts in the buffer and how many bytes it has; both
    /// are cut to the buffer's end.
    pub fn set_data(&mut self, offset: u16, len: u16) {
        // SAFETY: the pointer is to an mbuf that this owns.
        let mbuf = unsafe { self.0.as_mut() };
        mbuf.data_off = offset.min(mbuf.buf_len);
        let len = len.min(mbuf.buf_len - mbuf.data_off);
        mbuf.data_len = len;
        mbuf.pkt_len = len.into();
    }

    /// Makes the frame these bytes, behind the usual headroom. `false`, and the
    /// frame as it was, when they do not fit.
    #[must_use]
    pub fn set_bytes(&mut self, bytes: &[u8]) -> bool {
        let start = usize::from(HEADROOM);
        let (Some(room), Ok(len)) =
            (self.buffer_mut().get_mut(start..start + bytes.len()), u16::try_from(bytes.len()))
        else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.set_data(HEADROOM, len);
        true
    }

    /// Takes over an mbuf that DPDK handed over. One of several segments is made
    /// one; `None`, and the mbuf freed, when it does not fit.
    ///
    /// # Safety
    /// `mbuf` must be a live mbuf, with one reference, that nobody else uses.
    pub(crate) unsafe fn from_received(mbuf: NonNull<ffi::rte_mbuf>) -> Option<Mbuf> {
        let owned = Mbuf(mbuf);
        if owned.fields().nb_segs > 1 {
            // SAFETY: the mbuf is owned.
            let failed = unsafe { ffi::hp_mbuf_linearize(mbuf.as_ptr()) } != 0;
            if failed {
                return None;
            }
        }
        Some(owned)
    }

    /// Gives the mbuf away.
    pub(crate) fn into_raw(self) -> *mut ffi::rte_mbuf {
        let pointer = self.0.as_ptr();
        std::mem::forget(self);
        pointer
    }

    /// Puts a VLAN tag that the driver took off back behind the addresses.
    ///
    /// Returns whether there was one.
    pub(crate) fn restore_vlan_tag(&mut self) -> bool {
        const ADDRESSES: usize = 12;
        const TAG: u16 = 4;
        if self.fields().ol_flags & ffi::HP_RX_VLAN_STRIPPED == 0 {
            return false;
        }
        let [a, b] = self.fields().vlan_tci.to_be_bytes();
        let (offset, len) = (self.data_offset(), self.data_len());
        let Some(start) = offset.checked_sub(TAG) else {
            return false;
        };
        let end = usize::from(offset) + ADDRESSES;
        let Some(head) = self.buffer_mut().get_mut(start.into()..end) else {
            return false;
        };
        head.copy_within(usize::from(TAG).., 0);
        if let Some(tag) = head.get_mut(ADDRESSES..) {
            tag.copy_from_slice(&[0x81, 0x00, a, b]);
        }
        self.set_data(start, len + TAG);
        // SAFETY: the pointer is to an mbuf that this owns.
        unsafe { self.0.as_mut() }.ol_flags &= !ffi::HP_RX_VLAN_STRIPPED;
        true
    }

    fn fields(&self) -> &ffi::rte_mbuf {
        // SAFETY: the pointer is to an mbuf that this owns.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: the mbuf is owned, and this is the end of it.
        unsafe { ffi::hp_mbuf_free(self.0.as_ptr()) }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mbuf({} bytes at {})", self.data_len(), self.data_offset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EalOptions;

    fn pool(name: &str) -> Mempool {
        let eal = Eal::init(&EalOptions { memory: 128, pci_devices: Vec::new() }).unwrap();
        Mempool::new(eal, name, 63, 2048).unwrap()
    }

    #[test]
    fn an_mbuf_has_headroom_and_room_and_goes_back_to_its_pool() {
        let pool = pool("test-mbuf");
        let mut mbuf = pool.alloc().unwrap();
        assert_eq!((mbuf.data_offset(), mbuf.data_len()), (HEADROOM, 0));
        assert_eq!(mbuf.buffer().len(), usize::from(HEADROOM) + 2048);
        assert!(mbuf.set_bytes(&[7; 2048]) && !mbuf.set_bytes(&[7; 2049]));
        assert_eq!(mbuf.data(), [7; 2048]);
        mbuf.set_data(2000, 1000);
        assert_eq!((mbuf.data_offset(), mbuf.data_len(), mbuf.data().len()), (2000, 176, 176));
        mbuf.set_data(60_000, 1);
        assert_eq!((mbuf.data_offset(), mbuf.data_len()), (2176, 0));
        assert_eq!(pool.available(), 62);
        let all: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc()).collect();
        assert_eq!((all.len(), pool.available()), (62, 0));
        std::thread::spawn(move || drop((all, mbuf))).join().unwrap();
        assert_eq!(pool.available(), 63);
        // The same name is the same pool.
        assert_eq!(super::tests::pool("test-mbuf").as_ptr(), pool.as_ptr());
    }

    /// A chain of two mbufs with these lengths.
    fn chain(pool: Mempool, first: u16, second: u16) -> NonNull<ffi::rte_mbuf> {
        let (mut head, mut tail) = (pool.alloc().unwrap(), pool.alloc().unwrap());
        assert!(head.set_bytes(&vec![1; first.into()]) && tail.set_bytes(&vec![2; second.into()]));
        let head = NonNull::new(head.into_raw()).unwrap();
        // SAFETY: the head is owned here; it takes the tail over.
        unsafe {
            (*head.as_ptr()).next = tail.into_raw();
            (*head.as_ptr()).nb_segs = 2;
            (*head.as_ptr()).pkt_len = u32::from(first) + u32::from(second);
        }
        head
    }

    #[test]
    fn a_chain_is_made_one_buffer_or_dropped() {
        let pool = pool("test-chain");
        // SAFETY: the chain is nobody else's.
        let whole = unsafe { Mbuf::from_received(chain(pool, 1000, 1048)) }.unwrap();
        assert_eq!(whole.data(), [vec![1; 1000], vec![2; 1048]].concat());
        // SAFETY: as above.
        assert!(unsafe { Mbuf::from_received(chain(pool, 1000, 1049)) }.is_none());
        drop(whole);
        assert_eq!(pool.available(), 63);
    }

    #[test]
    fn a_stripped_tag_is_put_back() {
        let pool = pool("test-vlan");
        let mut mbuf = pool.alloc().unwrap();
        assert!(mbuf.set_bytes(b"destinsource\x08\x00data"));
        assert!(!mbuf.restore_vlan_tag());
        // SAFETY: the mbuf is owned.
        let fields = unsafe { mbuf.0.as_mut() };
        (fields.ol_flags, fields.vlan_tci) = (ffi::HP_RX_VLAN_STRIPPED, 0x6005);
        assert!(mbuf.restore_vlan_tag() && !mbuf.restore_vlan_tag());
        assert_eq!(mbuf.data(), b"destinsource\x81\x00\x60\x05\x08\x00data");
    }

    #[test]
    fn a_pool_beyond_the_memory_is_refused_with_a_reason() {
        let eal = Eal::init(&EalOptions { memory: 128, pci_devices: Vec::new() }).unwrap();
        let error = Mempool::new(eal, "test-huge", 1 << 22, 2048).unwrap_err().to_string();
        assert_eq!(error, "DPDK cannot make a pool of 4194304 buffers: Cannot allocate memory");
    }
}
