//! Packets in their buffers, the pool that the buffers come from, and bursts.
//!
//! A buffer has [`HEADROOM`] bytes in front of the frame, so that an outer header
//! is put there without moving the packet. Buffers are made once, when a worker
//! starts; from then on they circulate between pool, burst and ports.

use std::hint::cold_path;

use homeport_wire::{MacAddress, PortId, TenantId};

/// Bytes kept free in front of a received frame: room for an outer IPv4 header,
/// UDP and tunnel headers, and a link header.
pub const HEADROOM: usize = 128;

/// Bytes of a buffer behind its headroom: the longest frame that a port hands over.
pub const DATA_ROOM: usize = 2048;

/// The same of a large buffer: the longest packet that is put together from
/// fragments. Ports never see one: it is cut before it leaves.
pub const LARGE_DATA_ROOM: usize = 16 * 1024;

/// The most packets in one burst.
pub const BURST: usize = 32;

type Buffer = [u8; HEADROOM + DATA_ROOM];
type LargeBuffer = [u8; HEADROOM + LARGE_DATA_ROOM];

/// Where a packet's bytes are.
enum Storage {
    /// In memory of a [`PacketPool`].
    Heap(Box<Buffer>),
    /// In one of its large buffers.
    Large(Box<LargeBuffer>),
    /// In an mbuf of DPDK, owned; dropping it frees it.
    #[cfg(feature = "dpdk")]
    Mbuf(homeport_dpdk_sys::Mbuf),
}

impl Storage {
    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        match self {
            Storage::Heap(buffer) => buffer.as_slice(),
            Storage::Large(buffer) => buffer.as_slice(),
            #[cfg(feature = "dpdk")]
            Storage::Mbuf(mbuf) => mbuf.buffer(),
        }
    }

    #[inline(always)]
    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Storage::Heap(buffer) => buffer.as_mut_slice(),
            Storage::Large(buffer) => buffer.as_mut_slice(),
            #[cfg(feature = "dpdk")]
            Storage::Mbuf(mbuf) => mbuf.buffer_mut(),
        }
    }

    /// The `N` bytes of the buffer from byte `at` on. Kind by kind: how long most
    /// buffers are is then known, and one comparison is enough.
    #[inline(always)]
    fn window<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        match self {
            Storage::Heap(buffer) => buffer.get(at..at + N)?.first_chunk(),
            Storage::Large(buffer) => {
                cold_path();
                buffer.get(at..at + N)?.first_chunk()
            }
            #[cfg(feature = "dpdk")]
            Storage::Mbuf(mbuf) => mbuf.buffer().get(at..at + N)?.first_chunk(),
        }
    }

    /// The same, to write.
    #[inline(always)]
    fn window_mut<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        match self {
            Storage::Heap(buffer) => buffer.get_mut(at..at + N)?.first_chunk_mut(),
            Storage::Large(buffer) => {
                cold_path();
                buffer.get_mut(at..at + N)?.first_chunk_mut()
            }
            #[cfg(feature = "dpdk")]
            Storage::Mbuf(mbuf) => mbuf.buffer_mut().get_mut(at..at + N)?.first_chunk_mut(),
        }
    }
}

/// A frame in its buffer, and what the pipeline knows about it.
///
/// The frame starts at the Ethernet header, or at the IPv4 header once a stage
/// has taken the link header off.
pub struct Packet {
    storage: Storage,
    head: u16,
    len: u16,
    /// The port that it came in on, or that it shall leave by.
    pub port: PortId,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// The station that sent it, if it came from a link. Of an ICMP error: the
    /// station that sent what it is about.
    pub station: MacAddress,
}

impl Packet {
    fn empty(storage: Storage) -> Self {
        let (port, tenant) = (PortId::default(), TenantId::default());
        let station = MacAddress::UNSPECIFIED;
        Packet { storage, head: HEADROOM as u16, len: 0, port, tenant, station }
    }

    /// Which buffer it is in: no two packets are in one.
    #[inline]
    pub(crate) fn buffer(&self) -> usize {
        self.storage.bytes().as_ptr().addr()
    }

    /// The frame's bytes.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        let head = usize::from(self.head);
        self.storage.bytes().get(head..head + usize::from(self.len)).unwrap_or_default()
    }

    /// The frame's bytes, to rewrite in place.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let head = usize::from(self.head);
        let end = head + usize::from(self.len);
        self.storage.bytes_mut().get_mut(head..end).unwrap_or_default()
    }

    /// The `N` bytes of the frame from its byte `at` on. `None` when it ends before.
    #[inline(always)]
    pub fn chunk<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        if at + N > usize::from(self.len) {
            return None;
        }
        self.storage.window(usize::from(self.head) + at)
    }

    /// Length of the frame in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a packet is never empty")]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Puts `bytes` in front of the frame. `false`, and nothing changed, when the
    /// headroom is too small.
    #[must_use]
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Ok(count) = u16::try_from(bytes.len()) else {
            return false;
        };
        let Some(head) = self.head.checked_sub(count) else {
            return false;
        };
        let Some(len) = self.len.checked_add(count) else {
            return false;
        };
        let (start, end) = (usize::from(head), usize::from(self.head));
        let Some(room) = self.storage.bytes_mut().get_mut(start..end) else {
            return false;
        };
        room.copy_from_slice(bytes);
        (self.head, self.len) = (head, len);
        true
    }

    /// Whether `count` bytes can be put in front of the frame.
    pub const fn has_headroom(&self, count: usize) -> bool {
        self.head as usize >= count
    }

    /// Makes the frame begin `front` bytes before what is now its byte `at`, and be
    /// `len` bytes long. Its first `N` bytes, to be written. `None`, and nothing changed,
    /// when the headroom is too small, or the frame would end behind its end.
    #[inline(always)]
    pub fn reframe<const N: usize>(
        &mut self,
        at: usize,
        front: usize,
        len: usize,
    ) -> Option<&mut [u8; N]> {
        let (head, old_len) = (usize::from(self.head), usize::from(self.len));
        let start = (head + at).checked_sub(front)?;
        if start + len > head + old_len {
            return None;
        }
        let window = self.storage.window_mut(start)?;
        // Places in a buffer of 16 bits.
        (self.head, self.len) = (start as u16, len as u16);
        Some(window)
    }

    /// Takes `count` bytes off the front. `false`, and nothing changed, when the
    /// frame is shorter.
    #[must_use]
    pub fn strip(&mut self, count: usize) -> bool {
        let Ok(count) = u16::try_from(count) else {
            return false;
        };
        let Some(len) = self.len.checked_sub(count) else {
            return false;
        };
        (self.head, self.len) = (self.head + count, len);
        true
    }

    /// Cuts the frame to `len` bytes, if it is longer (link-layer padding).
    pub fn truncate(&mut self, len: usize) {
        self.len = u16::try_from(len).unwrap_or(u16::MAX).min(self.len);
    }

    /// Puts `bytes` behind the frame. `false`, and nothing changed, when the buffer
    /// is too small.
    #[must_use]
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let end = usize::from(self.head) + usize::from(self.len);
        let Some(len) = u16::try_from(bytes.len()).ok().and_then(|n| self.len.checked_add(n))
        else {
            return false;
        };
        let Some(room) = self.storage.bytes_mut().get_mut(end..end + bytes.len()) else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.len = len;
        true
    }

    /// Makes the frame these bytes, with the usual headroom. `false`, and the
    /// frame empty, when they are longer than the buffer.
    #[must_use]
    pub fn set_bytes(&mut self, bytes: &[u8]) -> bool {
        self.fill(|room| {
            let Some(to) = room.get_mut(..bytes.len()) else {
                return 0;
            };
            to.copy_from_slice(bytes);
            bytes.len()
        });
        self.len() == bytes.len()
    }

    /// Lets `write` put a frame into the room behind the headroom; it returns how
    /// many bytes it wrote.
    pub fn fill(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        self.head = HEADROOM as u16;
        let room = self.storage.bytes_mut().get_mut(HEADROOM..).unwrap_or_default();
        let limit = room.len();
        let written = write(room).min(limit);
        self.len = u16::try_from(written).unwrap_or(u16::MAX);
    }

    /// A packet around an mbuf whose frame starts `head` bytes into its buffer.
    #[cfg(feature = "dpdk")]
    pub fn from_mbuf(mbuf: homeport_dpdk_sys::Mbuf, port: PortId) -> Self {
        let (head, len) = (mbuf.data_offset(), mbuf.data_len());
        Packet { head, len, port, ..Packet::empty(Storage::Mbuf(mbuf)) }
    }

    /// The mbuf inside, its data offset and length set to the frame's; or the
    /// packet back when its bytes are elsewhere.
    #[cfg(feature = "dpdk")]
    pub fn into_mbuf(self) -> Result<homeport_dpdk_sys::Mbuf, Packet> {
        match self.storage {
            Storage::Mbuf(mut mbuf) => {
                mbuf.set_data(self.head, self.len);
                Ok(mbuf)
            }
            storage @ (Storage::Heap(_) | Storage::Large(_)) => Err(Packet { storage, ..self }),
        }
    }
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packet({} bytes, port {})", self.len, self.port)
    }
}

/// The buffers of one worker.
pub struct PacketPool {
    #[expect(clippy::vec_box, reason = "a packet takes a buffer along without copying it")]
    free: Vec<Box<Buffer>>,
    capacity: usize,
    large: Vec<Box<LargeBuffer>>,
    large_capacity: usize,
}

impl PacketPool {
    /// A pool of `capacity` buffers, all made now, and no large one.
    pub fn new(capacity: usize) -> Self {
        PacketPool::with_large(capacity, 0)
    }

    /// A pool of `capacity` buffers and `large` large ones, all made now.
    pub fn with_large(capacity: usize, large: usize) -> Self {
        PacketPool {
            free: (0..capacity).map(|_| Box::new([0; HEADROOM + DATA_ROOM])).collect(),
            capacity,
            large: (0..large).map(|_| Box::new([0; HEADROOM + LARGE_DATA_ROOM])).collect(),
            large_capacity: large,
        }
    }

    /// An empty packet, or `None` when all buffers are in use.
    pub fn take(&mut self) -> Option<Packet> {
        self.free.pop().map(|buffer| Packet::empty(Storage::Heap(buffer)))
    }

    /// An empty packet that `len` bytes will fit into, in a large buffer when they
    /// must. `None` when all buffers of that size are in use, or none is of it.
    pub fn take_for(&mut self, len: usize) -> Option<Packet> {
        if len <= DATA_ROOM {
            return self.take();
        }
        let fits = len <= LARGE_DATA_ROOM;
        self.large.pop_if(|_| fits).map(|buffer| Packet::empty(Storage::Large(buffer)))
    }

    /// Takes a packet's buffer back.
    pub fn give(&mut self, packet: Packet) {
        match packet.storage {
            // A buffer of another pool beyond this one's size is let go, so that
            // the vector never grows.
            Storage::Heap(buffer) if self.free.len() < self.capacity => self.free.push(buffer),
            Storage::Large(buffer) if self.large.len() < self.large_capacity => {
                self.large.push(buffer);
            }
            _ => {}
        }
    }

    /// A second packet with the bytes and the marks of `packet`.
    pub fn copy(&mut self, packet: &Packet) -> Option<Packet> {
        let mut copy = self.take_for(packet.len())?;
        (copy.port, copy.tenant) = (packet.port, packet.tenant);
        if copy.set_bytes(packet.bytes()) {
            Some(copy)
        } else {
            self.give(copy);
            None
        }
    }

    /// How many buffers are free, large ones not counted.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// How many large buffers are free.
    pub fn available_large(&self) -> usize {
        self.large.len()
    }
}

/// Up to [`BURST`] packets, in order. It never allocates.
#[derive(Default)]
pub struct Burst {
    packets: [Option<Packet>; BURST],
    len: usize,
}

impl Burst {
    /// An empty burst.
    pub fn new() -> Self {
        Burst::default()
    }

    /// How many packets it holds.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it holds [`BURST`].
    pub const fn is_full(&self) -> bool {
        self.len == BURST
    }

    /// Puts a packet behind the others, or gives it back when the burst is full.
    ///
    /// # Errors
    /// The packet, when the burst is full.
    #[inline]
    pub fn push(&mut self, packet: Packet) -> Result<(), Packet> {
        match self.packets.get_mut(self.len) {
            Some(slot) => {
                *slot = Some(packet);
                self.len += 1;
                Ok(())
            }
            None => Err(packet),
        }
    }

    /// Shows each packet to `keep`, in order, which gives back those that stay.
    pub fn retain(&mut self, mut keep: impl FnMut(Packet) -> Option<Packet>) {
        let mut kept = 0;
        for place in 0..self.len {
            let packet = self.packets.get_mut(place).and_then(Option::take);
            let Some(packet) = packet.and_then(&mut keep) else { continue };
            if let Some(slot) = self.packets.get_mut(kept) {
                *slot = Some(packet);
                kept += 1;
            }
        }
        self.len = kept;
    }

    /// Takes all packets out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Packet> {
        let len = std::mem::take(&mut self.len);
        self.packets.iter_mut().take(len).filter_map(Option::take)
    }

    /// The places of its packets, in order; each is full until it is taken from.
    #[inline(always)]
    pub(crate) fn places(&mut self) -> &mut [Option<Packet>] {
        self.packets.get_mut(..self.len).unwrap_or_default()
    }

    /// Says that all packets were taken from their places.
    pub(crate) fn clear(&mut self) {
        debug_assert!(self.packets.iter().all(Option::is_none), "a packet would be lost");
        self.len = 0;
    }

    /// The packets, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Packet> {
        self.packets.iter().take(self.len).flatten()
    }

    /// The packets, in order, to rewrite.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Packet> {
        self.packets.iter_mut().take(self.len).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepend_and_strip_are_inverse_and_bounded() {
        let mut pool = PacketPool::new(1);
        let mut packet = pool.take().unwrap();
        assert!(pool.take().is_none());
        assert!(packet.set_bytes(b"payload"));
        assert!(packet.prepend(b"header"));
        assert_eq!(packet.bytes(), b"headerpayload");
        assert!(packet.strip(6));
        assert_eq!(packet.bytes(), b"payload");
        assert!(!packet.strip(8));
        assert!(packet.prepend(&[0xa5; HEADROOM]));
        assert!(!packet.prepend(&[0]));
        assert_eq!(packet.len(), HEADROOM + 7);
        assert!(packet.reframe::<4>(0, 1, 4).is_none(), "there is no room in front");
        assert!(packet.reframe::<4>(HEADROOM, 4, 12).is_none(), "it would end behind its end");
        assert_eq!(packet.len(), HEADROOM + 7);
        *packet.reframe::<4>(HEADROOM, 4, 11).unwrap() = *b"new ";
        assert_eq!(packet.bytes(), b"new payload");
        *packet.reframe::<2>(4, 2, 6).unwrap() = *b"a ";
        assert_eq!(packet.bytes(), b"a payl", "it ends where it was said to");
        pool.give(packet);
        assert_eq!(pool.available(), 1);
    }

    #[test]
    fn a_frame_longer_than_the_buffer_is_refused() {
        let mut pool = PacketPool::new(1);
        let mut packet = pool.take().unwrap();
        assert!(packet.set_bytes(&[1; DATA_ROOM]));
        assert!(!packet.set_bytes(&[1; DATA_ROOM + 1]));
        assert_eq!(packet.len(), 0);
    }

    #[test]
    fn what_is_longer_than_a_buffer_gets_a_large_one_and_gives_it_back() {
        let mut pool = PacketPool::with_large(2, 1);
        let mut packet = pool.take_for(DATA_ROOM + 1).unwrap();
        assert!(packet.set_bytes(&[1; DATA_ROOM]) && packet.append(&[2; 100]));
        assert!(packet.prepend(&[3; HEADROOM]));
        assert_eq!(packet.bytes()[HEADROOM + DATA_ROOM - 1..][..2], [1, 2]);
        assert!(!packet.append(&[4; LARGE_DATA_ROOM]));
        assert_eq!((pool.available(), pool.available_large()), (2, 0));
        assert!(pool.take_for(DATA_ROOM + 1).is_none() && pool.copy(&packet).is_none());
        pool.give(packet);
        let mut packet = pool.take_for(DATA_ROOM).unwrap();
        assert!(packet.append(&[1; DATA_ROOM]) && !packet.append(&[1]));
        pool.give(packet);
        assert!(pool.take_for(LARGE_DATA_ROOM + 1).is_none());
        assert_eq!((pool.available(), pool.available_large()), (2, 1));
    }

    #[test]
    fn what_a_burst_keeps_stays_in_order() {
        let mut pool = PacketPool::new(BURST);
        let mut burst = Burst::new();
        for index in 0..BURST {
            let mut packet = pool.take().unwrap();
            assert!(packet.set_bytes(&[index as u8]));
            burst.push(packet).unwrap();
        }
        burst.retain(|packet| match packet.bytes()[0] % 3 {
            0 => Some(packet),
            _ => {
                pool.give(packet);
                None
            }
        });
        let seen: Vec<u8> = burst.drain().map(|packet| packet.bytes()[0]).collect();
        assert_eq!(seen, (0..BURST as u8).step_by(3).collect::<Vec<_>>());
        assert_eq!(pool.available(), BURST - seen.len());
    }

    #[test]
    fn a_burst_takes_thirty_two_and_keeps_their_order() {
        let mut pool = PacketPool::new(BURST + 1);
        let mut burst = Burst::new();
        for index in 0..=BURST {
            let mut packet = pool.take().unwrap();
            assert!(packet.set_bytes(&[index as u8]));
            assert_eq!(burst.push(packet).is_err(), index == BURST);
        }
        let seen: Vec<u8> = burst.drain().map(|packet| packet.bytes()[0]).collect();
        assert_eq!(seen, (0..BURST as u8).collect::<Vec<_>>());
        assert!(burst.is_empty());
    }
}
