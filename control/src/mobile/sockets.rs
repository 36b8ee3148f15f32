//! The raw sockets of the mobile node: frames on its interface, and tunnelled
//! packets.
#![allow(unsafe_code, reason = "packet sockets and their options have no safe wrapper")]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto,
};

const ETHERTYPE_IPV4: u16 = 0x0800;

/// Agent advertisements (ICMP type 9) and what comes for a DHCP client (UDP port
/// 68), both not fragmented; the kernel keeps all else, as a download is.
///
/// Offsets are from the start of the frame: the Ethernet header has 14 bytes.
const FILTER: [libc::sock_filter; 12] = {
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
    [
        op(LOAD_HALF, 20, 0, 0), // 0: fragment offset
        op(IF_SET, 0x1fff, 9, 0),
        op(HEADER_LEN_TO_X, 14, 0, 0),
        op(LOAD_BYTE, 23, 0, 0), // 3: protocol
        op(IF_EQUAL, 17, 3, 0),
        op(IF_EQUAL, 1, 0, 5),
        op(LOAD_BYTE_AT_X, 14, 0, 0), // 6: ICMP type
        op(IF_EQUAL, 9, 2, 3),
        op(LOAD_HALF_AT_X, 16, 0, 0), // 8: UDP destination port
        op(IF_EQUAL, 68, 0, 1),
        op(RETURN, 0xffff, 0, 0), // 10: take it
        op(RETURN, 0, 0, 0),      // 11: leave it
    ]
};

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
    /// Listens on the interface with this index to agent advertisements and DHCP.
    ///
    /// # Errors
    /// The kernel's: no such interface, or no right.
    pub fn open(index: u32) -> io::Result<Self> {
        // Protocol 0 receives nothing until the socket is filtered and bound.
        let socket = rustix::net::socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let mut filter = FILTER;
        let program = libc::sock_fprog { len: FILTER.len() as u16, filter: filter.as_mut_ptr() };
        set_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1i32)?;
        // SAFETY: sockaddr_ll is plain old data, for which all zeroes is a value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ETHERTYPE_IPV4.to_be();
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
        #[repr(C, align(8))]
        struct Control([u8; 64]);
        let mut control = Control([0; 64]);
        let mut part =
            libc::iovec { iov_base: buffer.as_mut_ptr().cast::<c_void>(), iov_len: buffer.len() };
        // SAFETY: msghdr is plain old data, for which all zeroes is a value.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = mem::size_of::<Control>() as _;
        // SAFETY: `message` points to one buffer and one control block, both of
        // the lengths that it names and alive through the call.
        let len = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, 0) };
        let Ok(len) = usize::try_from(len) else {
            let error = io::Error::last_os_error();
            let again = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
            return if again.contains(&error.kind()) { Ok(None) } else { Err(error) };
        };
        let mut unfinished_checksum = false;
        // SAFETY: recvmsg filled `message` and its control block; the macros walk
        // that block within the length that the kernel set, and tpacket_auxdata
        // is read unaligned from a message whose level and type say that it is one.
        unsafe {
            let mut header = libc::CMSG_FIRSTHDR(&raw const message);
            while !header.is_null() {
                if (*header).cmsg_level == libc::SOL_PACKET
                    && (*header).cmsg_type == libc::PACKET_AUXDATA
                {
                    let data = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>();
                    let status = data.read_unaligned().tp_status;
                    unfinished_checksum = status & libc::TP_STATUS_CSUMNOTREADY != 0;
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
        }
        Ok(Some(Received { len, unfinished_checksum }))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A socket for whole IP-in-IP packets on one interface (RFC 2003). That it is
/// there keeps the kernel from answering them with Protocol Unreachable.
#[derive(Debug)]
pub struct TunnelSocket(OwnedFd);

impl TunnelSocket {
    /// Opens it on the interface of this name.
    ///
    /// # Errors
    /// The kernel's: no such interface, or no right.
    pub fn open(interface: &str) -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(ipproto::IPIP),
        )?;
        set_option(&socket, libc::IPPROTO_IP, libc::IP_HDRINCL, &1i32)?;
        bind_to_device(&socket, interface)?;
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4 << 20);
        Ok(TunnelSocket(socket))
    }

    /// Sends a packet with its IPv4 header; the kernel routes it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, packet: &[u8], destination: Ipv4Addr) -> io::Result<()> {
        let to = SocketAddrV4::new(destination, 0);
        rustix::net::sendto(&self.0, packet, SendFlags::empty(), &to)?;
        Ok(())
    }

    /// Receives a packet with its IPv4 header; `None` when none is waiting.
    ///
    /// # Errors
    /// The kernel's.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::net::recv(&self.0, buffer, RecvFlags::empty()) {
            Ok((len, _)) => Ok(Some(len)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for TunnelSocket {
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

fn bind_to_device(socket: &OwnedFd, interface: &str) -> io::Result<()> {
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

fn set_option<T>(socket: &OwnedFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and `value` lives through the call and has
    // the size that is told.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
