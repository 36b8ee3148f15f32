//! A port on any Linux Ethernet interface, by AF_PACKET.
//!
//! Frames come in through a ring that is mapped from the kernel (TPACKET_V2) and
//! leave by `sendmmsg`, a burst in one call. Buffers are the worker's pool's.
//!
//! # Why version 2 of the ring
//!
//! Version 3 hands over blocks of frames, a block when it is full or when its
//! timer ends, and the timer is at least 1 ms, or one timer tick on kernels
//! before 6.18. On a veth pair, from send to wake-up of the reader, 500 frames
//! 2 ms apart, on one machine in one run:
//!
//! | reader | median | 99 % |
//! |---|---|---|
//! | ring version 3, 1 ms | 0.60 ms | 1.3 ms |
//! | ring version 2 | 0.03 ms | 0.1 ms |
//! | `recv`, no ring | 0.03 ms | 0.1-0.3 ms |
//!
//! A registration crosses such ports four times and more, so version 2 it is.
//! Its frames have one size, and what is longer comes by `recv`, in order
//! (PACKET_COPY_THRESH).
//!
//! # Offload
//!
//! A sender on the same machine leaves checksums unfinished and sends
//! super-frames of up to 64 KiB. Both are put right here (see
//! [`offload`](super::offload)), so that no interface needs `ethtool -K`. A VLAN
//! tag that the kernel took off is put back, so that a tagged frame is not taken
//! for an untagged one.
//!
//! # The kernel beside it
//!
//! The port sees frames at the tap, and the kernel gets them too: an
//! [`IngressDrop`](super::shield::IngressDrop) keeps it from acting on them. The
//! interface is put into promiscuous mode, so that frames for other stations
//! arrive as well; the classifier knows which are the port's.
//!
//! # One queue
//!
//! With several workers the first one reads the ring and hands packets to the others.
//! A PACKET_FANOUT group would hash outer addresses, so that one foreign agent's
//! tunnel is one socket's all the same, and each packet of it would be handed over
//! then; and the kernel's own cost of a packet is far above that of a copy.
//!
//! **Not done:** several queues, where the first worker is too slow a reader. A
//! changed MAC or MTU is noticed only when the port is opened anew; so is an interface
//! that was deleted and made again.
#![allow(unsafe_code, reason = "packet sockets and their mapped ring have no safe wrapper")]

use std::cell::Cell;
use std::ffi::{c_int, c_uint};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use homeport_wire::{EthernetHeader, MacAddress};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use zerocopy::FromBytes;

use super::Port;
use super::interface::{self, Carrier, PortError};
use super::offload::{SuperFrame, VnetHeader, finish_checksum};
use super::twin::MAX_MTU;
use crate::packet::{BURST, Burst, DATA_ROOM, Packet, PacketPool};

/// Bytes of a ring slot: the kernel's header and the longest ordinary frame.
const SLOT: usize = DATA_ROOM + 256;
/// Bytes that the kernel allocates together; slots do not cross it.
const BLOCK: usize = 1 << 16;
/// Slots in a block.
const BLOCK_SLOTS: usize = BLOCK / SLOT;
/// Blocks of the ring: 4 MiB, 1792 frames.
const BLOCKS: usize = 64;
/// Bytes of super-frames that may wait beside the ring.
const SUPER_FRAME_ROOM: c_int = 16 << 20;
/// Bytes of sent frames that may wait for the interface.
const SEND_ROOM: c_int = 4 << 20;
/// The longest super-frame with its headers.
const SUPER_FRAME: usize = VnetHeader::LEN + EthernetHeader::LEN + 4 + (1 << 16);

/// An Ethernet interface of this machine.
#[derive(Debug)]
pub struct AfPacketPort {
    name: String,
    mac: MacAddress,
    mtu: u16,
    ring: Ring,
    /// Sends only: it is bound to no protocol, and takes frames as they are.
    sender: OwnedFd,
    carrier: Carrier,
    /// The super-frame that is being cut, behind its [`VnetHeader`].
    scratch: Box<[u8]>,
    cutting: Option<SuperFrame>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    /// What the kernel dropped because the ring was full. Reading it from the
    /// kernel sets it back there.
    rx_ring_full: Cell<u64>,
    /// Long frames for which there was no room beside the ring.
    rx_beside_ring_full: u64,
    rx_oversize: u64,
    rx_super_frames: u64,
    rx_segments: u64,
    rx_super_frame_refused: u64,
    rx_checksum_finished: u64,
    rx_vlan_restored: u64,
    tx_refused: u64,
}

impl AfPacketPort {
    /// Opens the interface of this name, in the network namespace of the calling
    /// thread. Its state (up, shielded) is left as it is.
    ///
    /// # Errors
    /// There is no such interface, it is not Ethernet, its MTU is beyond
    /// [`MAX_MTU`], or the process may not open packet sockets.
    pub fn open(interface: &str) -> Result<AfPacketPort, PortError> {
        let index = interface::index(interface)?;
        let mac = interface::mac(interface)?;
        let mtu = interface::mtu(interface)?;
        let mtu = u16::try_from(mtu)
            .ok()
            .filter(|mtu| *mtu <= MAX_MTU)
            .ok_or_else(|| PortError::Mtu { name: interface.to_owned(), mtu, most: MAX_MTU })?;
        let fail = |what| move |e: io::Error| PortError::system(interface, what, e);
        let sender = packet_socket().map_err(fail("open a packet socket"))?;
        // Without privilege the default size stays: a smaller queue, no failure.
        let _ = set_option(&sender, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_ROOM);
        bind(&sender, index, 0).map_err(fail("bind a packet socket"))?;
        Ok(AfPacketPort {
            name: interface.to_owned(),
            mac,
            mtu,
            ring: Ring::open(index).map_err(fail("map a packet ring"))?,
            sender,
            carrier: Carrier::new(interface)?,
            scratch: vec![0; SUPER_FRAME].into_boxed_slice(),
            cutting: None,
            counts: Counts::default(),
        })
    }

    /// Puts the next segment of the super-frame into `packet`.
    fn cut(&mut self, mut whole: SuperFrame, packet: &mut Packet) {
        let frame = self.scratch.get(VnetHeader::LEN..).unwrap_or_default();
        packet.fill(|room| whole.cut(frame, room));
        self.counts.rx_segments += 1;
        self.cutting = Some(whole).filter(|whole| !whole.is_done());
    }

    /// Begins to cut the super-frame in the first `len` bytes of the scratch.
    fn start_cutting(&mut self, len: usize) {
        let read = self.scratch.get(..len).map(VnetHeader::read_from_prefix);
        let Some(Ok((header, frame))) = read else {
            self.counts.rx_oversize += 1;
            return;
        };
        match header.segmentation() {
            Ok(Some((kind, size))) => match SuperFrame::new(frame, kind, size, DATA_ROOM) {
                Ok(whole) => {
                    self.counts.rx_super_frames += 1;
                    self.cutting = Some(whole);
                }
                Err(_) => self.counts.rx_super_frame_refused += 1,
            },
            Ok(None) => self.counts.rx_oversize += 1,
            Err(_) => self.counts.rx_super_frame_refused += 1,
        }
    }

    /// Takes the frame in the ring's next slot, which is not an ordinary one, out
    /// of the ring; cuts it if it is a super-frame.
    fn take_long_frame(&mut self) {
        let Some(slot) = self.ring.peek() else {
            return;
        };
        let tagged = slot.vlan.is_some();
        let len = if slot.status & libc::TP_STATUS_COPY != 0 {
            // The whole of it is the oldest frame in the socket's queue.
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            rustix::net::recv(&self.ring.socket, &mut *self.scratch, flags)
                .map_or(0, |(_, len)| len)
        } else {
            slot.copy_whole(&mut self.scratch)
        };
        self.ring.release();
        if len == 0 {
            self.counts.rx_beside_ring_full += 1;
        } else if tagged {
            // Cutting it would lose the tag.
            self.counts.rx_super_frame_refused += 1;
        } else {
            self.start_cutting(len);
        }
    }

    /// Clears what a link that went down left in the sockets, so that poll(2)
    /// does not report it for ever; at most once in [`Carrier::EVERY`].
    fn refresh(&self) {
        if self.carrier.ask_if_due() {
            for socket in [&self.ring.socket, &self.sender] {
                let _ = rustix::net::sockopt::socket_error(socket);
            }
        }
    }
}

impl Port for AfPacketPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn is_up(&self) -> bool {
        self.refresh();
        self.carrier.is_up()
    }

    fn rx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) {
        while !burst.is_full() {
            if self.cutting.is_none() {
                let Some(slot) = self.ring.peek() else {
                    self.refresh();
                    return;
                };
                if !slot.is_ordinary() {
                    self.take_long_frame();
                    continue;
                }
            }
            // Without a buffer the frame waits in the ring.
            let Some(mut packet) = pool.take() else {
                return;
            };
            if let Some(whole) = self.cutting {
                self.cut(whole, &mut packet);
            } else if let Some(slot) = self.ring.peek() {
                slot.copy_to(&mut packet, &mut self.counts);
                self.ring.release();
            }
            if packet.len() == 0 {
                pool.give(packet);
            } else if let Err(packet) = burst.push(packet) {
                pool.give(packet);
            }
        }
    }

    fn tx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) -> usize {
        let sent = send_all(&self.sender, burst);
        self.counts.tx_refused += (burst.len() - sent) as u64;
        burst.drain().for_each(|packet| pool.give(packet));
        sent
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring.socket.as_fd())
    }

    fn counters(&self, tell: &mut dyn FnMut(&'static str, u64)) {
        let counts = &self.counts;
        let lost = &counts.rx_ring_full;
        lost.set(lost.get() + self.ring.take_drops());
        tell("rx-ring-full", lost.get());
        tell("rx-beside-ring-full", counts.rx_beside_ring_full);
        tell("rx-oversize", counts.rx_oversize);
        tell("rx-super-frames", counts.rx_super_frames);
        tell("rx-segments", counts.rx_segments);
        tell("rx-super-frame-refused", counts.rx_super_frame_refused);
        tell("rx-checksum-finished", counts.rx_checksum_finished);
        tell("rx-vlan-restored", counts.rx_vlan_restored);
        tell("tx-refused", counts.tx_refused);
    }
}

/// The kernel's receive ring, mapped.
#[derive(Debug)]
struct Ring {
    socket: OwnedFd,
    base: NonNull<u8>,
    /// The slot that the kernel fills next, or filled first.
    next: usize,
}

// SAFETY: the mapping belongs to this value alone and to no thread; the kernel
// does not care which thread reads it.
unsafe impl Send for Ring {}

/// A frame in the ring, ours until it is released.
struct Slot<'a> {
    status: u32,
    /// Bytes of the frame on the wire.
    len: usize,
    vlan: Option<[u8; 4]>,
    vnet: [u8; VnetHeader::LEN],
    /// What of the frame is in the slot.
    bytes: &'a [u8],
}

impl Ring {
    const LEN: usize = BLOCK * BLOCKS;

    fn open(index: c_int) -> io::Result<Ring> {
        // Without a protocol until all is set up: so nothing of any other
        // interface, and nothing in another form, gets into the ring.
        let socket = packet_socket()?;
        let version: c_int = libc::tpacket_versions::TPACKET_V2 as c_int;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1)?;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_COPY_THRESH, &1)?;
        // Without privilege the default size stays: fewer super-frames wait.
        let _ = set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &SUPER_FRAME_ROOM);
        let request = libc::tpacket_req {
            tp_block_size: BLOCK as c_uint,
            tp_block_nr: BLOCKS as c_uint,
            tp_frame_size: SLOT as c_uint,
            tp_frame_nr: (BLOCKS * BLOCK_SLOTS) as c_uint,
        };
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        // SAFETY: a new shared mapping, placed by the kernel, of the ring that was
        // just made with LEN bytes.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::LEN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let ring = Ring { socket, base, next: 0 };
        let promiscuous = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set_option(&ring.socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &promiscuous)?;
        bind(&ring.socket, index, libc::ETH_P_ALL as u16)?;
        Ok(ring)
    }

    /// Start of the next slot.
    fn slot(&self) -> NonNull<u8> {
        let offset = self.next / BLOCK_SLOTS * BLOCK + self.next % BLOCK_SLOTS * SLOT;
        // SAFETY: `next` is below BLOCKS * BLOCK_SLOTS, so the slot's SLOT bytes
        // are inside the mapping of LEN bytes.
        unsafe { self.base.add(offset) }
    }

    /// The status word of the next slot, shared with the kernel.
    fn status(&self) -> &AtomicU32 {
        // SAFETY: `tp_status` is the first member of the slot's tpacket2_hdr, and
        // a slot is aligned to 16 (256 divides SLOT); the mapping outlives self.
        unsafe { AtomicU32::from_ptr(self.slot().cast().as_ptr()) }
    }

    /// The frame in the next slot, if the kernel has filled it.
    fn peek(&self) -> Option<Slot<'_>> {
        // Acquire: what the kernel wrote before the status is visible after it.
        let status = self.status().load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        let slot = self.slot();
        // SAFETY: the slot starts with a tpacket2_hdr, and is ours while its
        // status says so: the kernel writes nothing there.
        let header = unsafe { slot.cast::<libc::tpacket2_hdr>().as_ref() };
        // SAFETY: as above, for all bytes of the slot.
        let slot = unsafe { std::slice::from_raw_parts(slot.as_ptr(), SLOT) };
        let start = usize::from(header.tp_mac);
        let bytes = slot.get(start..start + header.tp_snaplen as usize).unwrap_or_default();
        // The kernel puts the virtio_net_hdr right in front of the frame.
        let vnet = slot.get(..start).and_then(<[u8]>::last_chunk).copied().unwrap_or_default();
        let tagged = status & libc::TP_STATUS_VLAN_VALID != 0;
        let vlan = tagged.then(|| {
            let tpid = match status & libc::TP_STATUS_VLAN_TPID_VALID {
                0 => libc::ETH_P_8021Q as u16,
                _ => header.tp_vlan_tpid,
            };
            let ([a, b], [c, d]) = (tpid.to_be_bytes(), header.tp_vlan_tci.to_be_bytes());
            [a, b, c, d]
        });
        Some(Slot { status, len: header.tp_len as usize, vlan, vnet, bytes })
    }

    /// Gives the next slot back to the kernel and goes on to the one behind it.
    fn release(&mut self) {
        // Release: our reads of the slot end before the kernel may write.
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % (BLOCKS * BLOCK_SLOTS);
    }

    /// How many frames the kernel dropped since it was last asked.
    fn take_drops(&self) -> u64 {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes, the size of `stats`.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &mut len,
            )
        };
        if result == 0 { u64::from(stats.tp_drops) } else { 0 }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nothing borrows from it now.
        unsafe { libc::munmap(self.base.as_ptr().cast(), Self::LEN) };
    }
}

impl Slot<'_> {
    /// Whether the slot holds all bytes of the frame.
    fn is_whole(&self) -> bool {
        self.status & libc::TP_STATUS_COPY == 0 && self.bytes.len() == self.len
    }

    fn vnet(&self) -> VnetHeader {
        VnetHeader::read_from_bytes(&self.vnet).unwrap_or_default()
    }

    /// Copies the frame, its virtio_net_hdr first, and returns how many bytes that
    /// is; zero when the slot has not all of it.
    fn copy_whole(&self, to: &mut [u8]) -> usize {
        let len = self.vnet.len() + self.bytes.len();
        let room = to.get_mut(..len).and_then(<[u8]>::split_first_chunk_mut);
        let Some((vnet, frame)) = room.filter(|_| self.is_whole()) else {
            return 0;
        };
        *vnet = self.vnet;
        frame.copy_from_slice(self.bytes);
        len
    }

    /// Whether it is one frame that fits a packet buffer.
    fn is_ordinary(&self) -> bool {
        let tag = self.vlan.map_or(0, |tag| tag.len());
        self.is_whole()
            && self.bytes.len() + tag <= DATA_ROOM
            && self.vnet().segmentation() == Ok(None)
    }

    /// Copies the frame, its checksum finished and its tag back in its place.
    fn copy_to(&self, packet: &mut Packet, counts: &mut Counts) {
        if !packet.set_bytes(self.bytes) {
            return;
        }
        if let Some((start, offset)) = self.vnet().unfinished_checksum()
            && finish_checksum(packet.bytes_mut(), start, offset)
        {
            counts.rx_checksum_finished += 1;
        }
        if let Some(tag) = self.vlan
            && let Some(addresses) = self.bytes.first_chunk::<{ 2 * size_of::<MacAddress>() }>()
            && packet.strip(addresses.len())
            && packet.prepend(&tag)
            && packet.prepend(addresses)
        {
            counts.rx_vlan_restored += 1;
        }
    }
}

/// Sends the burst's frames, in order, and returns how many the kernel took. One
/// that it does not take is left out; a full queue ends the burst.
fn send_all(socket: &OwnedFd, burst: &Burst) -> usize {
    // SAFETY: both are plain old data, for which all zeroes is a value.
    let mut vectors: [libc::iovec; BURST] = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut messages: [libc::mmsghdr; BURST] = unsafe { std::mem::zeroed() };
    for ((packet, vector), message) in burst.iter().zip(&mut vectors).zip(&mut messages) {
        let bytes = packet.bytes();
        vector.iov_base = bytes.as_ptr().cast_mut().cast();
        vector.iov_len = bytes.len();
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
    }
    let mut rest = messages.get_mut(..burst.len()).unwrap_or_default();
    let mut sent = 0;
    while !rest.is_empty() {
        // SAFETY: each message points to one vector, and each vector to the bytes
        // of a packet of `burst`, all of which live until after the call; the
        // kernel only reads the bytes.
        let result = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                rest.as_mut_ptr(),
                rest.len() as c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        let (took, left_out) = match usize::try_from(result) {
            Ok(took) => (took, 0),
            Err(_) => match io::Error::last_os_error().raw_os_error().map(Errno::from_raw_os_error)
            {
                Some(Errno::INTR) => (0, 0),
                Some(Errno::AGAIN | Errno::NOBUFS) => break,
                _ => (0, 1),
            },
        };
        sent += took;
        rest = rest.get_mut(took + left_out..).unwrap_or_default();
    }
    sent
}

/// A packet socket of no protocol: it receives nothing until it is bound to one.
fn packet_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bind(socket: &OwnedFd, index: c_int, protocol: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is a live sockaddr_ll of the length given.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets a socket option whose value is `T`, plain old data.
fn set_option<T: Copy>(socket: &OwnedFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads the bytes of `value`, which are all initialised in
    // the integers and padding-free structures that are passed here.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
#[path = "af_packet_tests.rs"]
mod tests;
