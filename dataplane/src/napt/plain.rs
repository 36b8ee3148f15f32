//! Plain packets: whole, without IP options, and of UDP, TCP or an ICMP echo. They
//! are read and rewritten in one pass each; what comes out is what [`segment`] would
//! make of them, bit for bit.
//!
//! [`segment`]: super::segment

use std::net::Ipv4Addr;

use homeport_wire::icmpv4::{ECHO_REPLY, ECHO_REQUEST};
use homeport_wire::tcp::TcpHeader;
use homeport_wire::{IpProtocol, Ipv4Header};
use zerocopy::byteorder::native_endian as raw;
use zerocopy::byteorder::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::segment::{Endpoint, Side, Transport};
use super::tcp::TcpSegment;

/// The protocol field of what a flow may consist of.
const TCP: u8 = IpProtocol::TCP.0;
const UDP: u8 = IpProtocol::UDP.0;
const ICMP: u8 = IpProtocol::ICMP.0;

/// What all plain packets start with, in words: the length is asked for once, and a
/// word is a load.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Start {
    /// Version, header length, type of service, total length.
    first: U32,
    /// Identification, flags, fragment offset.
    second: U32,
    /// TTL, protocol, checksum.
    third: U32,
    source: U32,
    destination: U32,
    /// Of ICMP: type, code, checksum.
    ports: U32,
    /// Of UDP: length, checksum. Of ICMP: identifier, sequence number.
    last: U32,
}

/// Of [`Start::second`]: more fragments, and the offset.
const FRAGMENT: u32 = 0x3fff;

/// Of [`RawStart::flags`]: DF.
const KEEP_WHOLE: u16 = 0x4000;

/// The ends of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) transport: Transport,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    /// The port of the source above that of the destination. Of ICMP queries: see
    /// [`Endpoint`].
    pub(super) ports: u32,
}

/// Reads a packet that goes out, if `side` is its source, or comes in. `None`: it is
/// not plain, or an echo that goes the other way.
#[inline(always)]
pub(super) fn read(packet: &[u8], side: Side) -> Option<Ends> {
    let (start, rest) = Start::ref_from_prefix(packet).ok()?;
    if start.first.get() >> 24 != 0x45 || start.second.get() & FRAGMENT != 0 {
        return None;
    }
    let mut ports = start.ports.get();
    let transport = match (start.third.get() >> 16) as u8 {
        UDP => Transport::Udp,
        TCP if rest.len() >= TcpHeader::LEN - BEHIND => Transport::Tcp,
        ICMP => {
            let identifier = start.last.get() >> 16;
            ports = match ((ports >> 24) as u8, side) {
                (ECHO_REQUEST, Side::Source) => identifier << 16,
                (ECHO_REPLY, Side::Destination) => identifier,
                _ => return None,
            };
            Transport::IcmpQuery
        }
        _ => return None,
    };
    let address = |word: &U32| Ipv4Addr::from_bits(word.get());
    let (source, destination) = (address(&start.source), address(&start.destination));
    Some(Ends { transport, source, destination, ports })
}

/// How much of a [`Start`] is behind the IPv4 header.
const BEHIND: usize = size_of::<Start>() - Ipv4Header::LEN;

/// What the state of a connection depends on, of a plain packet of TCP.
#[inline(always)]
pub(super) fn tcp(packet: &[u8]) -> Option<TcpSegment> {
    let payload = packet.get(Ipv4Header::LEN..)?;
    let (tcp, options) = TcpHeader::ref_from_prefix(payload).ok()?;
    Some(TcpSegment::read(tcp, options))
}

/// The same start as it lies in memory: sums of 16-bit words are right in either byte
/// order (RFC 1071 §2), so that what is only mended need not be turned round.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawStart {
    first: [u8; 4],
    identification: raw::U16,
    flags: raw::U16,
    ttl: [u8; 2],
    checksum: raw::U16,
    source: raw::U32,
    destination: raw::U32,
    source_port: raw::U16,
    /// Of ICMP: the checksum.
    destination_port: raw::U16,
    /// Of ICMP: the identifier.
    fifth: raw::U16,
    /// Of UDP: the checksum.
    sixth: raw::U16,
}

/// Puts another endpoint into a plain packet, and another identification if one is
/// given and the packet may be cut: the one behind `identification` (RFC 7857 §10,
/// RFC 6864 §4.1). The header's checksum then, its lower byte in the packet's order first:
/// who read it from the packet so soon would wait for it. `None`: it is no such packet.
#[inline(always)]
pub(super) fn rewrite(
    packet: &mut [u8],
    side: Side,
    to: Endpoint,
    transport: Transport,
    identification: Option<&mut u16>,
) -> Option<u16> {
    let (start, rest) = RawStart::mut_from_prefix(packet).ok()?;
    let (address, port) = (to.address.to_bits().to_be(), to.port.to_be());
    let place = match side {
        Side::Source => &mut start.source,
        Side::Destination => &mut start.destination,
    };
    let old = std::mem::replace(place, raw::U32::new(address)).get();
    let ends = Change::NONE.address(old, address);
    let mut change = ends;
    if let Some(identification) = identification
        && start.flags.get() & KEEP_WHOLE.to_be() == 0
    {
        *identification = identification.wrapping_add(1);
        let new = identification.to_be();
        change = change.word(start.identification.get(), new);
        start.identification.set(new);
    }
    let checksum = change.apply(start.checksum.get());
    start.checksum.set(checksum);
    let place = match (transport, side) {
        (Transport::IcmpQuery, _) => &mut start.fifth,
        (_, Side::Source) => &mut start.source_port,
        (_, Side::Destination) => &mut start.destination_port,
    };
    let old = std::mem::replace(place, raw::U16::new(port)).get();
    match transport {
        Transport::Udp => {
            let sum = start.sixth.get();
            // Zero: the sender computed none, and so it stays (RFC 768).
            if sum != 0 {
                let new = ends.word(old, port).apply(sum);
                start.sixth.set(if new == 0 { 0xffff } else { new });
            }
        }
        Transport::Tcp => {
            if let Some([_, _, _, _, _, _, _, _, first, second, _, _]) =
                rest.first_chunk_mut::<{ TcpHeader::LEN - BEHIND }>()
            {
                let sum = ends.word(old, port).apply(u16::from_ne_bytes([*first, *second]));
                [*first, *second] = sum.to_ne_bytes();
            }
        }
        Transport::IcmpQuery => {
            // No pseudo-header: the addresses are nothing to its checksum.
            let sum = start.destination_port.get();
            start.destination_port.set(Change::NONE.word(old, port).apply(sum));
        }
    }
    Some(u16::from_le(checksum))
}

/// How words under a checksum have changed (RFC 1624 §3, eqn. 3): several at once, as
/// their order is nothing to the sum. Few words, so that the sum has 32 bits.
#[derive(Clone, Copy)]
struct Change(u32);

impl Change {
    const NONE: Change = Change(0);

    #[inline(always)]
    fn word(self, old: u16, new: u16) -> Self {
        Change(self.0 + u32::from(!old) + u32::from(new))
    }

    #[inline(always)]
    fn address(self, old: u32, new: u32) -> Self {
        let (sum, carry) = (!old).overflowing_add(new);
        // With a carry the sum is not the highest.
        let sum = sum.wrapping_add(u32::from(carry));
        Change(self.0 + (sum >> 16) + (sum & 0xffff))
    }

    /// The checksum after the change.
    #[inline(always)]
    fn apply(self, checksum: u16) -> u16 {
        let sum = self.0 + u32::from(!checksum);
        // Both halves are added in the upper one, the carry of the lower one with them.
        !((sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16)
    }
}
