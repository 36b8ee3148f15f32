//! A port on a Linux interface that stays the kernel's, by AF_XDP.
//!
//! A small program at the interface (`program`) takes the frames that the dataplane
//! claims ([`Claims`]) out of the driver's receive path, before the kernel has looked
//! at them; everything else is the kernel's as ever: its addresses, ARP, routes, ssh.
//! So the port needs no kernel twin, and what is claimed has been seen by nobody
//! else, so that it needs no shield either.
//!
//! # How a frame comes in and leaves
//!
//! Each queue of the interface has a socket, and memory that it shares with the
//! kernel (`umem`, `rings`). A received frame is copied from there into a buffer
//! of the worker's pool, a frame to send the other way.
//!
//! # Modes
//!
//! In *native* mode the program runs in the driver, in *generic* mode in the kernel's
//! common receive path, which any interface can do and which costs more. In native
//! mode the kernel copies each frame into the shared memory, unless the driver can do
//! *zero copy*. [`XdpMode::Auto`] takes the best that comes up; [`AfXdpPort::mode`]
//! says which it was.
//!
//! # Offload
//!
//! Senders on the same machine leave checksums unfinished, and XDP does not say
//! which: see `unfinished`. They also send super-frames; in native mode the kernel
//! cuts them before (a veth with a program tells its other end so), in generic mode
//! it does not, and what does not fit a frame is lost and counted as `rx-dropped`. A
//! network card makes none while a program is there.
//!
//! The program is attached by a link that goes with its descriptor: a process that is
//! killed leaves nothing behind.
//!
//! **Not done:** reading and writing packets in the shared memory itself, which would
//! spare both copies; super-frames in generic mode; a changed MAC, MTU or number of
//! queues is noticed only when the port is opened anew, and so is an interface that
//! was deleted and made again; kernels before 5.9, which attach without a link.
#![allow(
    unsafe_code,
    reason = "AF_XDP sockets, their shared memory and bpf(2) have no safe wrapper"
)]

mod bpf;
mod claims;
mod instruction;
mod program;
mod rings;
mod socket;
mod umem;
mod unfinished;

use std::ffi::{c_int, c_ulong};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use homeport_wire::{EthernetHeader, MacAddress, PortId, TenantId};
use rustix::event::epoll;
use rustix::io::Errno;

use self::bpf::{LoadedProgram, Map, MapKind};
pub use self::claims::{Claims, LocalClaim, NodeClaim};
pub use self::program::Scope;
use self::program::Site;
use self::socket::{Binding, Queue};
use super::Port;
use super::interface::{self, Carrier, PortError};
use super::twin::MAX_MTU;
use crate::packet::{BURST, Burst, DATA_ROOM, PacketPool};

/// Bytes that the kernel keeps free in front of a received frame
/// (`XDP_PACKET_HEADROOM`).
const RECEIVE_HEADROOM: usize = 256;
/// Bytes of a VLAN tag.
const VLAN_TAG: usize = 4;
/// The two sizes of frames in the shared memory, powers of two as AF_XDP wants them.
const SHORT_FRAME: usize = 2048;
const LONG_FRAME: usize = 4096;

/// Modes of attachment (`XDP_FLAGS_*` of `linux/if_link.h`).
const FLAG_GENERIC: u32 = 1 << 1;
const FLAG_NATIVE: u32 = 1 << 2;

/// Which mode a port shall have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// The best that comes up.
    #[default]
    Auto,
    /// In the driver; with or without zero copy.
    Native,
    /// In the kernel's common receive path.
    Generic,
    /// In the driver, with the card using the shared memory.
    ZeroCopy,
}

/// What a port is opened with.
#[derive(Clone, Copy, Debug)]
pub struct AfXdpOptions {
    /// The mode that it shall have.
    pub mode: XdpMode,
    /// How many of the interface's queues have a socket; `None`: all.
    pub queues: Option<u32>,
    /// Which frames it takes.
    pub scope: Scope,
    /// Whose link it is.
    pub tenant: TenantId,
    /// Its number, which claims of home links name.
    pub port: PortId,
    /// How many [`AfXdpPort`]s share the queues, one for each worker. At most one for
    /// each queue is made.
    pub workers: usize,
}

impl Default for AfXdpOptions {
    fn default() -> Self {
        AfXdpOptions {
            mode: XdpMode::Auto,
            queues: None,
            scope: Scope::Claimed,
            tenant: TenantId(0),
            port: PortId(0),
            workers: 1,
        }
    }
}

/// An interface's program, for as long as a port of it is open.
#[derive(Debug)]
struct Attachment {
    /// Closing it detaches the program.
    _link: OwnedFd,
    /// The sockets of the queues, and the program that redirects to them.
    _sockets: Map,
    mode: String,
}

/// One or more queues of an Ethernet interface of this machine.
#[derive(Debug)]
pub struct AfXdpPort {
    name: String,
    mac: MacAddress,
    mtu: u16,
    queues: Vec<Queue>,
    /// Which queue is read, and which is written, next.
    next: usize,
    /// Becomes readable when one of several queues is.
    any: Option<OwnedFd>,
    carrier: Carrier,
    counts: Counts,
    /// Dropped last: what comes for a closed queue meanwhile is the kernel's.
    attachment: Arc<Attachment>,
}

#[derive(Debug, Default)]
struct Counts {
    rx_oversize: u64,
    rx_checksum_finished: u64,
    tx_refused: u64,
}

impl AfXdpPort {
    /// Opens the interface of this name, in the network namespace of the calling
    /// thread, and attaches the program. Its state (up, addresses) is left as it is.
    ///
    /// Returns a port for each worker, with the queues dealt out among them.
    ///
    /// # Errors
    /// There is no such interface, it is not Ethernet, its MTU is beyond [`MAX_MTU`];
    /// another program is attached; the mode does not come up; queues are wrong or
    /// taken; the process lacks CAP_BPF, CAP_NET_ADMIN or CAP_NET_RAW, or memory that
    /// it may lock; the kernel has no AF_XDP. Each is named, with what to do.
    pub fn open(
        interface: &str,
        claims: &Claims,
        options: &AfXdpOptions,
    ) -> Result<Vec<AfXdpPort>, PortError> {
        let wrong = |message: String| PortError::Backend { name: interface.to_owned(), message };
        let index = interface::index(interface)?;
        let mac = interface::mac(interface)?;
        let mtu = interface::mtu(interface)?;
        let mtu = u16::try_from(mtu)
            .ok()
            .filter(|mtu| *mtu <= MAX_MTU)
            .ok_or_else(|| PortError::Mtu { name: interface.to_owned(), mtu, most: MAX_MTU })?;
        let count = queue_count(interface, options.queues).map_err(wrong)?;
        let frame_len = frame_len(mtu);
        let queues = (0..count).map(|_| Queue::new(frame_len)).collect::<io::Result<Vec<_>>>();
        let queues = queues.map_err(|error| wrong(socket_problem(&error)))?;

        let sockets = Map::new(MapKind::Sockets, 4, 4, count)
            .map_err(|error| wrong(program_problem("make the map of its sockets", &error)))?;
        let site = Site { mac, tenant: options.tenant, port: options.port, scope: options.scope };
        let program =
            program::program(&site, claims, &sockets).map_err(|error| wrong(error.to_string()))?;
        let program = LoadedProgram::load(&program)
            .map_err(|error| wrong(program_problem("load its program", &error)))?;
        let (link, native) = attach(&program, index, options.mode).map_err(wrong)?;
        let mut binding = Binding::Copy;
        for (number, queue) in (0..).zip(&queues) {
            binding = bind(queue, index, number, options.mode, native).map_err(wrong)?;
            sockets
                .set_socket(number, queue.socket.as_fd())
                .map_err(|error| wrong(format!("queue {number} is not redirected to: {error}")))?;
        }
        let mode = mode_text(native, binding, count);
        let attachment = Arc::new(Attachment { _link: link, _sockets: sockets, mode });
        deal(queues, options.workers)
            .into_iter()
            .map(|queues| {
                let any = any_of(&queues)
                    .map_err(|e| PortError::system(interface, "watch its queues", e))?;
                Ok(AfXdpPort {
                    name: interface.to_owned(),
                    mac,
                    mtu,
                    queues,
                    next: 0,
                    any,
                    carrier: Carrier::new(interface)?,
                    counts: Counts::default(),
                    attachment: Arc::clone(&attachment),
                })
            })
            .collect()
    }

    /// Which mode came up, for people: `native, copy, 1 queue`.
    pub fn mode(&self) -> &str {
        &self.attachment.mode
    }
}

impl Port for AfXdpPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn mode(&self) -> Option<&str> {
        Some(&self.attachment.mode)
    }

    fn is_up(&self) -> bool {
        self.carrier.ask_if_due();
        self.carrier.is_up()
    }

    fn rx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) {
        // The first one to be read is another each time, so that a busy queue leaves
        // the others their room in the burst.
        let count = self.queues.len();
        self.next = (self.next + 1) % count.max(1);
        let (behind, front) = self.queues.split_at_mut_checked(self.next).unwrap_or_default();
        for queue in front.iter_mut().chain(behind) {
            receive(queue, pool, burst, &mut self.counts);
        }
    }

    fn tx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) -> usize {
        // A worker's frames leave in order by one queue of its own.
        let Some(queue) = self.queues.first_mut() else { return 0 };
        let longest = usize::from(self.mtu) + EthernetHeader::LEN + VLAN_TAG;
        if queue.free.len() < BURST {
            queue.reap();
            if queue.free.len() < BURST {
                queue.kick();
                queue.reap();
            }
        }
        let (offered, mut sent) = (burst.len(), 0);
        for packet in burst.drain() {
            if packet.len() <= longest && put(queue, packet.bytes()) {
                sent += 1;
            }
            pool.give(packet);
        }
        self.counts.tx_refused += (offered - sent) as u64;
        queue.transmit.submit();
        queue.kick();
        sent
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        match (&self.any, self.queues.as_slice()) {
            (Some(any), _) => Some(any.as_fd()),
            (None, [queue]) => Some(queue.socket.as_fd()),
            (None, _) => None,
        }
    }

    fn counters(&self, tell: &mut dyn FnMut(&'static str, u64)) {
        let mut sums = [0u64; 5];
        for queue in &self.queues {
            let seen = queue.statistics();
            let counts = [
                seen.rx_dropped,
                seen.rx_ring_full,
                seen.rx_fill_ring_empty_descs,
                seen.rx_invalid_descs,
                seen.tx_invalid_descs,
            ];
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        let names = [
            "rx-dropped",
            "rx-ring-full",
            "rx-fill-ring-empty",
            "rx-invalid-descriptor",
            "tx-invalid-descriptor",
        ];
        for (name, sum) in names.into_iter().zip(sums) {
            tell(name, sum);
        }
        tell("rx-oversize", self.counts.rx_oversize);
        tell("rx-checksum-finished", self.counts.rx_checksum_finished);
        tell("tx-refused", self.counts.tx_refused);
    }
}

/// Copies what a queue received into buffers of the pool.
fn receive(queue: &mut Queue, pool: &mut PacketPool, burst: &mut Burst, counts: &mut Counts) {
    let mut took = false;
    while !burst.is_full() {
        let Some(frame) = queue.receive.peek() else { break };
        // Without a buffer the frame waits in the ring.
        let Some(mut packet) = pool.take() else { break };
        queue.receive.advance();
        took = true;
        let filled = packet.set_bytes(queue.umem.received(frame.addr, frame.len));
        // There are as many slots as frames.
        let _ = queue.fill.push(queue.umem.frame_of(frame.addr));
        if !filled || packet.len() == 0 {
            counts.rx_oversize += 1;
            pool.give(packet);
            continue;
        }
        if unfinished::finish(packet.bytes_mut()) {
            counts.rx_checksum_finished += 1;
        }
        if let Err(packet) = burst.push(packet) {
            pool.give(packet);
        }
    }
    if took {
        queue.receive.release();
        queue.fill.submit();
    }
    queue.wake_receiver();
    // What the kernel did not send at once.
    if !took && queue.free.len() < socket::TX_FRAMES as usize {
        queue.kick();
        queue.reap();
    }
}

/// Puts a frame into the transmit ring. `false`: there is no room.
fn put(queue: &mut Queue, bytes: &[u8]) -> bool {
    let Some(place) = queue.free.pop() else { return false };
    let frame = libc::xdp_desc { addr: place, len: bytes.len() as u32, options: 0 };
    if queue.umem.write(place, bytes) && queue.transmit.push(frame) {
        return true;
    }
    queue.free.push(place);
    false
}

/// Deals the queues out, at least one to each.
fn deal(queues: Vec<Queue>, workers: usize) -> Vec<Vec<Queue>> {
    let hands = workers.clamp(1, queues.len().max(1));
    let mut dealt: Vec<Vec<Queue>> = (0..hands).map(|_| Vec::new()).collect();
    for (number, queue) in queues.into_iter().enumerate() {
        if let Some(hand) = dealt.get_mut(number % hands) {
            hand.push(queue);
        }
    }
    dealt
}

/// What becomes readable when one of several queues is.
fn any_of(queues: &[Queue]) -> io::Result<Option<OwnedFd>> {
    if queues.len() < 2 {
        return Ok(None);
    }
    let any = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for queue in queues {
        let data = epoll::EventData::new_u64(0);
        epoll::add(&any, &queue.socket, data, epoll::EventFlags::IN)?;
    }
    Ok(Some(any))
}

/// Bytes of a frame in the shared memory, so that the longest frame fits.
fn frame_len(mtu: u16) -> usize {
    let longest = usize::from(mtu) + EthernetHeader::LEN + VLAN_TAG;
    if longest + RECEIVE_HEADROOM <= SHORT_FRAME { SHORT_FRAME } else { LONG_FRAME }
}

/// Attaches the program. Returns the link, and whether the mode is native.
fn attach(program: &LoadedProgram, index: c_int, mode: XdpMode) -> Result<(OwnedFd, bool), String> {
    let native = match mode {
        XdpMode::Generic => None,
        _ => Some(program.attach(index, FLAG_NATIVE)),
    };
    match native {
        Some(Ok(link)) => return Ok((link, true)),
        Some(Err(error)) if mode != XdpMode::Auto || is_taken(&error) => {
            return Err(attach_problem("native", &error));
        }
        Some(Err(error)) => {
            tracing::info!(%error, "no native XDP on interface {index}: generic mode is tried");
        }
        None => {}
    }
    match program.attach(index, FLAG_GENERIC) {
        Ok(link) => Ok((link, false)),
        Err(error) => Err(attach_problem("generic", &error)),
    }
}

/// Binds a queue in the best way that the mode allows.
fn bind(
    queue: &Queue,
    index: c_int,
    number: u32,
    mode: XdpMode,
    native: bool,
) -> Result<Binding, String> {
    let failed = |error: &io::Error| match errno(error) {
        Some(Errno::BUSY) => format!(
            "queue {number} has an AF_XDP socket of another program already: stop that program"
        ),
        Some(Errno::INVAL) => format!(
            "there is no receive and transmit queue {number}: lower `queues`, or give the \
             interface more with `ethtool -L`"
        ),
        _ => format!("queue {number} is not bound: {error}"),
    };
    if native && mode != XdpMode::Generic {
        match queue.bind(index, number, Binding::ZeroCopy) {
            Ok(()) => return Ok(Binding::ZeroCopy),
            Err(error) if mode == XdpMode::ZeroCopy => {
                return Err(format!(
                    "xdp_mode = \"zero-copy\": the driver does not do it ({error}); use \"auto\""
                ));
            }
            Err(error) if errno(&error) == Some(Errno::BUSY) => return Err(failed(&error)),
            Err(_) => {}
        }
    }
    queue.bind(index, number, Binding::Copy).map_err(|error| failed(&error))?;
    Ok(Binding::Copy)
}

fn mode_text(native: bool, binding: Binding, queues: u32) -> String {
    let mode = if native { "native" } else { "generic" };
    let copies = match binding {
        Binding::Copy => "copy",
        Binding::ZeroCopy => "zero-copy",
    };
    let s = if queues == 1 { "" } else { "s" };
    format!("{mode}, {copies}, {queues} queue{s}")
}

/// How many queues get a socket. Frames of a queue without one would be the kernel's,
/// claimed or not.
fn queue_count(interface: &str, wanted: Option<u32>) -> Result<u32, String> {
    let there = receive_queues(interface);
    match (wanted, there) {
        (Some(0), _) => Err("queues = 0: a port has at least one queue".to_owned()),
        (Some(wanted), Some(there)) if wanted < there => Err(format!(
            "queues = {wanted}: the interface receives on {there} queues, and what comes on the \
             others would pass the dataplane by; run `ethtool -L {interface} combined {wanted}`, \
             or leave `queues` away"
        )),
        (Some(wanted), Some(there)) if wanted > there => Err(format!(
            "queues = {wanted}: the interface has {there}; lower `queues`, or run \
             `ethtool -L {interface} combined {wanted}`"
        )),
        (wanted, there) => Ok(wanted.or(there).unwrap_or(1)),
    }
}

/// How many queues the interface receives on; `None` where its driver does not say.
fn receive_queues(interface: &str) -> Option<u32> {
    const ETHTOOL: c_ulong = 0x8946;
    const GET_CHANNELS: u32 = 0x3c;
    /// `struct ethtool_channels` of `linux/ethtool.h`.
    #[repr(C)]
    #[derive(Default)]
    struct Channels {
        command: u32,
        max: [u32; 4],
        receive: u32,
        transmit: u32,
        other: u32,
        combined: u32,
    }
    let mut channels = Channels { command: GET_CHANNELS, ..Channels::default() };
    let mut request = interface::request(interface).ok()?;
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
            .ok()?;
    // The kernel writes to `channels`, which lives and has the layout of its command.
    interface::ioctl(&socket, ETHTOOL, &mut request).ok()?;
    Some(channels.receive + channels.combined).filter(|count| *count > 0)
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

fn is_taken(error: &io::Error) -> bool {
    matches!(errno(error), Some(Errno::BUSY | Errno::EXIST | Errno::PERM))
}

fn attach_problem(mode: &str, error: &io::Error) -> String {
    match errno(error) {
        Some(Errno::BUSY | Errno::EXIST) => {
            "another XDP program is attached to the interface: stop what put it there, or detach \
             it with `ip link set IF xdp off`"
                .to_owned()
        }
        Some(Errno::PERM) => program_problem("attach its program", error),
        Some(Errno::OPNOTSUPP) => {
            format!("xdp_mode = \"{mode}\": the driver has no such mode; use \"generic\"")
        }
        Some(Errno::INVAL) => format!(
            "xdp_mode = \"{mode}\": the kernel refuses ({error}): it is older than 5.9, or the \
             MTU of the interface or its other end is too large for it"
        ),
        _ => format!("xdp_mode = \"{mode}\": the program is not attached: {error}"),
    }
}

fn program_problem(what: &str, error: &io::Error) -> String {
    match errno(error) {
        Some(Errno::PERM) => format!(
            "cannot {what}: the process needs CAP_BPF and CAP_NET_ADMIN (and on kernels before \
             5.11 a larger RLIMIT_MEMLOCK)"
        ),
        Some(Errno::NOSYS) => format!("cannot {what}: the kernel has no bpf(2)"),
        _ => format!("cannot {what}: {error}"),
    }
}

fn socket_problem(error: &io::Error) -> String {
    match errno(error) {
        Some(Errno::AFNOSUPPORT) => {
            "the kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS); use backend = \"af_packet\""
                .to_owned()
        }
        Some(Errno::PERM | Errno::ACCESS) => {
            "cannot open an AF_XDP socket: the process needs CAP_NET_RAW".to_owned()
        }
        Some(Errno::NOBUFS | Errno::NOMEM) => {
            "too little memory may be locked for the queues: raise RLIMIT_MEMLOCK (in a unit of \
             systemd LimitMEMLOCK=infinity), or give the process CAP_IPC_LOCK"
                .to_owned()
        }
        _ => format!("cannot open an AF_XDP socket: {error}"),
    }
}

const _: () = assert!(DATA_ROOM + RECEIVE_HEADROOM <= LONG_FRAME);

#[cfg(test)]
#[path = "port_tests.rs"]
mod tests;
