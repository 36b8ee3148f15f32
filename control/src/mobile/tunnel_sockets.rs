//! The sockets of the tunnel: one for whole packets of each encapsulation's
//! protocol, and the UDP socket of registrations, which UDP tunnels share with
//! them (RFC 3519 §4.4).
//!
//! Both tell the ICMP errors that came back about what was sent: `next_error`.
//! Fragments were put together by the kernel before anything comes out here.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use homeport_wire::IpProtocol;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::sockets::{bind_to_device, receive_message, set_option, udp};

/// Room for what arrives while the loop does other things.
const RECEIVE_BUFFER: usize = 4 << 20;

/// An ICMP error about a packet that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendError {
    /// The ICMP type.
    pub message_type: u8,
    /// Its code.
    pub code: u8,
    /// The next hop's MTU, with Fragmentation Needed; zero when it was not told
    /// (RFC 1191 §3).
    pub mtu: u32,
    /// Where the packet was going.
    pub destination: Ipv4Addr,
    /// How much of the packet came back and is in the buffer: from its outer IPv4
    /// header on a raw socket, from behind its UDP header on a UDP socket.
    pub quoted: usize,
}

/// `sock_extended_err` of linux/errqueue.h.
#[derive(Clone, Copy, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct ExtendedError {
    errno: u32,
    origin: u8,
    message_type: u8,
    code: u8,
    _pad: u8,
    info: u32,
    _data: u32,
}

/// `in_pktinfo` of ip(7): the addresses in network byte order.
#[derive(Clone, Copy, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct PacketInfo {
    _interface: i32,
    _local: [u8; 4],
    destination: [u8; 4],
}

/// A socket for whole packets of one protocol on one interface. That it is there
/// keeps the kernel from answering them with Protocol Unreachable.
#[derive(Debug)]
pub struct TunnelSocket(OwnedFd);

impl TunnelSocket {
    /// Opens it on the interface of this name. One of [`TunnelSocket::SENDER`]
    /// receives nothing.
    ///
    /// # Errors
    /// The kernel's: no such interface, or no right.
    pub fn open(interface: &str, protocol: IpProtocol) -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            core::num::NonZeroU32::new(u32::from(protocol.0)).map(Protocol::from_raw),
        )?;
        set_option(&socket, libc::IPPROTO_IP, libc::IP_HDRINCL, &1i32)?;
        // DF is as our header says, and what the kernel has learnt about the path
        // is left aside: the tunnel learns for itself.
        set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_PROBE)?;
        if protocol != Self::SENDER {
            // On the sender, an error about one packet would be the result of
            // sending the next.
            set_option(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, &1i32)?;
        }
        bind_to_device(&socket, interface)?;
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
        Ok(TunnelSocket(socket))
    }

    /// The protocol of a socket that only sends packets, of any protocol
    /// (`IPPROTO_RAW` of raw(7)).
    pub const SENDER: IpProtocol = IpProtocol(255);

    /// Sends a packet with its IPv4 header; the kernel routes it.
    ///
    /// # Errors
    /// The kernel's; `EMSGSIZE` when it is larger than the interface's MTU.
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

    /// The next ICMP error; what it quotes is put into `buffer`.
    pub fn next_error(&self, buffer: &mut [u8]) -> Option<SendError> {
        next_error(self.as_fd(), buffer)
    }
}

impl AsFd for TunnelSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The UDP socket that registrations leave from.
#[derive(Debug)]
pub struct RegistrationSocket(OwnedFd);

/// A datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Bytes of its data.
    pub len: usize,
    /// Who sent it.
    pub from: SocketAddrV4,
    /// The address that it was sent to.
    pub to: Ipv4Addr,
    /// The type of service of its IPv4 header.
    pub tos: u8,
}

impl RegistrationSocket {
    /// Opens it on the interface of this name. Port 0 is any.
    ///
    /// # Errors
    /// The kernel's: the port is taken, or there is no such interface.
    pub fn open(interface: &str, port: u16) -> io::Result<Self> {
        let socket = udp(interface, port)?;
        for option in [libc::IP_PKTINFO, libc::IP_RECVTOS, libc::IP_RECVERR] {
            set_option(&socket, libc::IPPROTO_IP, option, &1i32)?;
        }
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
        Ok(RegistrationSocket(socket))
    }

    /// Its port.
    ///
    /// # Errors
    /// The kernel's.
    pub fn port(&self) -> io::Result<u16> {
        let address = rustix::net::getsockname(&self.0)?;
        Ok(SocketAddrV4::try_from(address)?.port())
    }

    /// Sends a datagram; the kernel routes it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, data: &[u8], to: SocketAddrV4) -> io::Result<()> {
        let send = || rustix::net::sendto(&self.0, data, SendFlags::empty(), &to);
        // The first may fail for an ICMP error about an earlier datagram.
        send().or_else(|_| send())?;
        Ok(())
    }

    /// Receives a datagram; `None` when none is waiting.
    ///
    /// # Errors
    /// The kernel's.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Datagram>> {
        let mut to = Ipv4Addr::UNSPECIFIED;
        let mut tos = 0;
        let message =
            receive_message(self.as_fd(), buffer, 0, |level, kind, data| match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    if let Ok((info, _)) = PacketInfo::read_from_prefix(data) {
                        to = info.destination.into();
                    }
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => tos = data.first().copied().unwrap_or(0),
                _ => {}
            })?;
        let datagram = |(len, from): (_, Option<_>)| Some(Datagram { len, from: from?, to, tos });
        Ok(message.and_then(datagram))
    }

    /// The next ICMP error; what it quotes is put into `buffer`.
    pub fn next_error(&self, buffer: &mut [u8]) -> Option<SendError> {
        next_error(self.as_fd(), buffer)
    }
}

impl AsFd for RegistrationSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes entries off the socket's queue of errors (ip(7), `IP_RECVERR`) up to the
/// first that came by ICMP.
fn next_error(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Option<SendError> {
    loop {
        let mut found = None;
        let message = receive_message(socket, buffer, libc::MSG_ERRQUEUE, |level, kind, data| {
            if (level, kind) == (libc::IPPROTO_IP, libc::IP_RECVERR) {
                found = ExtendedError::read_from_prefix(data).ok().map(|(error, _)| error);
            }
        });
        let (quoted, destination) = message.ok().flatten()?;
        if let (Some(error), Some(destination)) = (found, destination)
            && error.origin == libc::SO_EE_ORIGIN_ICMP
        {
            return Some(SendError {
                message_type: error.message_type,
                code: error.code,
                mtu: error.info,
                destination: *destination.ip(),
                quoted,
            });
        }
    }
}
