//! What the mobile node's sockets have in common, and the one for frames on its
//! interface; [`tunnel_sockets`](super::tunnel_sockets) has those of the tunnel.
#![allow(unsafe_code, reason = "packet sockets and their options have no safe wrapper")]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::slice;

use rustix::net::{AddressFamily, Protocol, SendFlags, SocketFlags, SocketType};
use zerocopy::FromBytes;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;

/// Offsets are from the start of the frame: the Ethernet header has 14 bytes.
mod filter {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const LOAD_BYTE_AT_X: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_IND) as u16;
    const LOAD_HALF_AT_X: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16;
    const HEADER_LEN_TO_X: u16 = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const IF_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

    const fn op(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
        libc::sock_filter { code, jt, jf, k }
    }

    /// Agent advertisements (ICMP type 9), what comes for a DHCP client (UDP port 68), and
    /// registration replies (type 3, from UDP port 434), all not fragmented; the kernel
    /// keeps all else, as a download is, and one in a UDP tunnel.
    pub(super) const ROAMING: [libc::sock_filter; 16] = [
        op(LOAD_HALF, 20, 0, 0), // 0: fragment offset
        op(IF_SET, 0x1fff, 13, 0),
        op(HEADER_LEN_TO_X, 14, 0, 0),
        op(LOAD_BYTE, 23, 0, 0), // 3: protocol
        op(IF_EQUAL, 17, 3, 0),
        op(IF_EQUAL, 1, 0, 9),
        op(LOAD_BYTE_AT_X, 14, 0, 0), // 6: ICMP type
        op(IF_EQUAL, 9, 6, 7),
        op(LOAD_HALF_AT_X, 16, 0, 0), // 8: UDP destination port
        op(IF_EQUAL, 68, 4, 0),
        op(LOAD_HALF_AT_X, 14, 0, 0), // 10: UDP source port
        op(IF_EQUAL, 434, 0, 3),
        op(LOAD_BYTE_AT_X, 22, 0, 0), // 12: message type
        op(IF_EQUAL, 3, 0, 1),
        op(RETURN, 0xffff, 0, 0), // 14: take it
        op(RETURN, 0, 0, 0),      // 15: leave it
    ];

    /// What comes for a DHCP server (UDP port 67), not fragmented.
    pub(super) const DHCP_SERVER: [libc::sock_filter; 9] = [
        op(LOAD_HALF, 20, 0, 0), // 0: fragment offset
        op(IF_SET, 0x1fff, 6, 0),
        op(HEADER_LEN_TO_X, 14, 0, 0),
        op(LOAD_BYTE, 23, 0, 0), // 3: protocol
        op(IF_EQUAL, 17, 0, 3),
        op(LOAD_HALF_AT_X, 16, 0, 0), // 5: UDP destination port
        op(IF_EQUAL, 67, 0, 1),
        op(RETURN, 0xffff, 0, 0), // 7: take it
        op(RETURN, 0, 0, 0),      // 8: leave it
    ];

    /// Everything.
    pub(super) const ALL: [libc::sock_filter; 1] = [op(RETURN, 0xffff, 0, 0)];
}

/// A socket for frames on one interface.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

/// A frame that was received.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Bytes of the frame.
    pub len: usize,
    /// Whether its transport checksum is not computed yet: it comes from this
    /// same machine.
    pub unfinished_checksum: bool,
}

impl PacketSocket {
    /// Listens on the interface with this index to agent advertisements, what comes for a
    /// DHCP client, and registration replies.
    ///
    /// # Errors
    /// The kernel's: no such interface, or no right.
    pub fn open(index: u32) -> io::Result<Self> {
        Self::open_for(index, ETHERTYPE_IPV4, &filter::ROAMING)
    }

    /// Listens on the interface with this index to what comes for a DHCP server.
    ///
    /// # Errors
    /// The kernel's: no such interface, or no right.
    pub fn open_dhcp_server(index: u32) -> io::Result<Self> {
        Self::open_for(index, ETHERTYPE_IPV4, &filter::DHCP_SERVER)
    }

    /// Listens on the interface with this index to ARP.
    ///
    /// # Errors
    /// The kernel's: no such interface, or no right.
    pub fn open_arp(index: u32) -> io::Result<Self> {
        Self::open_for(index, ETHERTYPE_ARP, &filter::ALL)
    }

    fn open_for<const N: usize>(
        index: u32,
        ether_type: u16,
        filter: &[libc::sock_filter; N],
    ) -> io::Result<Self> {
        // Protocol 0 receives nothing until the socket is filtered and bound.
        let socket = rustix::net::socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let mut filter = *filter;
        let program = libc::sock_fprog { len: N as u16, filter: filter.as_mut_ptr() };
        set_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1i32)?;
        // SAFETY: sockaddr_ll is plain old data, for which all zeroes is a value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ether_type.to_be();
        address.sll_ifindex = index.cast_signed();
        let len = mem::size_of_val(&address) as libc::socklen_t;
        // SAFETY: the descriptor is open, and `address` is a sockaddr_ll of `len`
        // bytes that lives through the call.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(PacketSocket(socket)) }
    }

    /// Sends a frame, link-layer header included.
    ///
    /// # Errors
    /// The kernel's, such as that the interface is down.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.0, frame, SendFlags::empty())?;
        Ok(())
    }

    /// Receives a frame; `None` when none is waiting. A longer one is cut.
    ///
    /// # Errors
    /// The kernel's, such as that the interface went down.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut unfinished_checksum = false;
        let message = receive_message(self.as_fd(), buffer, 0, |level, kind, data| {
            // The status is the first word of a tpacket_auxdata (packet(7)).
            if (level, kind) == (libc::SOL_PACKET, libc::PACKET_AUXDATA)
                && let Ok((status, _)) = u32::read_from_prefix(data)
            {
                unfinished_checksum = status & libc::TP_STATUS_CSUMNOTREADY != 0;
            }
        })?;
        Ok(message.map(|(len, _)| Received { len, unfinished_checksum }))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A UDP socket on one interface. Port 0 is any.
///
/// # Errors
/// The kernel's: the port is taken, or there is no such interface.
pub fn udp(interface: &str, port: u16) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None::<Protocol>,
    )?;
    bind_to_device(&socket, interface)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    Ok(socket)
}

/// One recvmsg(2): the bytes' number, and the IPv4 address that it is told with,
/// if any. `control` gets each control message: level, type, data. `None` when
/// nothing is waiting.
///
/// # Errors
/// The kernel's.
pub(super) fn receive_message(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: c_int,
    mut control: impl FnMut(c_int, c_int, &[u8]),
) -> io::Result<Option<(usize, Option<SocketAddrV4>)>> {
    #[repr(C, align(8))]
    struct Control([u8; 256]);
    let mut room = Control([0; 256]);
    // SAFETY: sockaddr_in is plain old data, for which all zeroes is a value.
    let mut from: libc::sockaddr_in = unsafe { mem::zeroed() };
    let mut part =
        libc::iovec { iov_base: buffer.as_mut_ptr().cast::<c_void>(), iov_len: buffer.len() };
    // SAFETY: msghdr is plain old data, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut room).cast();
    message.msg_controllen = mem::size_of::<Control>() as _;
    // SAFETY: `message` points to one address, one buffer and one control block,
    // each of the length that it names and alive through the call.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let Ok(len) = usize::try_from(len) else {
        let error = io::Error::last_os_error();
        let again = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
        return if again.contains(&error.kind()) { Ok(None) } else { Err(error) };
    };
    // SAFETY: recvmsg filled `message` and its control block; the macros walk that
    // block within the length that the kernel set, and cmsg_len counts the header
    // of each message and its data, which lie in it.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            let len = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            let data = slice::from_raw_parts(libc::CMSG_DATA(header), len);
            control((*header).cmsg_level, (*header).cmsg_type, data);
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    let is_ipv4 = message.msg_namelen > 0 && from.sin_family == libc::AF_INET as u16;
    let from = is_ipv4.then(|| {
        let address = Ipv4Addr::from_bits(u32::from_be(from.sin_addr.s_addr));
        SocketAddrV4::new(address, u16::from_be(from.sin_port))
    });
    Ok(Some((len.min(buffer.len()), from)))
}

pub(super) fn bind_to_device(socket: &OwnedFd, interface: &str) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the name lives through the call and has
    // the length that is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            interface.as_ptr().cast(),
            interface.len() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One setsockopt(2) with a plain value.
pub(super) fn set_option<T>(
    socket: &OwnedFd,
    level: c_int,
    name: c_int,
    value: &T,
) -> io::Result<()> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and `value` lives through the call and has
    // the size that is told.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, ptr::from_ref(value).cast(), len)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
