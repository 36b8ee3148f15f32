//! Plain packets: whole, without IP options, and of UDP, TCP or an ICMP echo. They
//! are read and rewritten in one pass each; what comes out is what [`segment`] would
//! make of them, bit for bit.
//!
//! [`segment`]: super::segment

use std::net::Ipv4Addr;

use homeport_wire::icmpv4::{ECHO_REPLY, ECHO_REQUEST, Icmpv4Header};
use homeport_wire::tcp::TcpHeader;
use homeport_wire::{IpProtocol, Ipv4Header, UdpHeader};
use zerocopy::FromBytes;
use zerocopy::byteorder::network_endian::U16;

use super::segment::{Endpoint, Side, Transport};
use super::tcp::TcpSegment;

/// The protocol field of what a flow may consist of.
const TCP: u8 = IpProtocol::TCP.0;
const UDP: u8 = IpProtocol::UDP.0;
const ICMP: u8 = IpProtocol::ICMP.0;

/// The ends of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) transport: Transport,
    pub(super) source: Endpoint,
    pub(super) destination: Endpoint,
}

/// Reads a packet that goes out, if `side` is its source, or comes in. `None`: it is
/// not plain, or an echo that goes the other way.
#[inline(always)]
pub(super) fn read(packet: &[u8], side: Side) -> Option<Ends> {
    let (header, payload) = Ipv4Header::ref_from_prefix(packet).ok()?;
    if packet.first() != Some(&0x45) || header.is_fragment() {
        return None;
    }
    let ports = payload.first_chunk::<4>()?;
    let [a, b, c, d] = *ports;
    let (mut source, mut destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let transport = match header.protocol().0 {
        UDP if payload.len() >= UdpHeader::LEN => Transport::Udp,
        TCP if payload.len() >= TcpHeader::LEN => Transport::Tcp,
        ICMP => {
            let (icmp, _) = Icmpv4Header::ref_from_prefix(payload).ok()?;
            (source, destination) = match (icmp.message_type, side) {
                (ECHO_REQUEST, Side::Source) => (icmp.identifier(), 0),
                (ECHO_REPLY, Side::Destination) => (0, icmp.identifier()),
                _ => return None,
            };
            Transport::IcmpQuery
        }
        _ => return None,
    };
    Some(Ends {
        transport,
        source: Endpoint { address: header.source(), port: source },
        destination: Endpoint { address: header.destination(), port: destination },
    })
}

/// What the state of a connection depends on, of a plain packet of TCP.
#[inline(always)]
pub(super) fn tcp(packet: &[u8]) -> Option<TcpSegment> {
    let payload = packet.get(Ipv4Header::LEN..)?;
    let (tcp, options) = TcpHeader::ref_from_prefix(payload).ok()?;
    Some(TcpSegment::read(tcp, options))
}

/// Whether a plain packet must not be cut (DF).
#[inline(always)]
pub(super) fn keeps_whole(packet: &[u8]) -> bool {
    Ipv4Header::ref_from_prefix(packet).is_ok_and(|(header, _)| header.dont_fragment())
}

/// Puts another endpoint, and if given another identification, into a plain packet.
#[inline(always)]
pub(super) fn rewrite(
    packet: &mut [u8],
    side: Side,
    to: Endpoint,
    transport: Transport,
    identification: Option<u16>,
) {
    let Ok((header, payload)) = Ipv4Header::mut_from_prefix(packet) else { return };
    let old = match side {
        Side::Source => header.source(),
        Side::Destination => header.destination(),
    };
    match side {
        Side::Source => header.set_source(to.address),
        Side::Destination => header.set_destination(to.address),
    }
    let address = Change::NONE.address(old, to.address);
    let mut change = address;
    if let Some(identification) = identification {
        change = change.word(header.identification(), identification);
        header.set_identification(identification);
    }
    header.set_checksum(change.apply(header.checksum()));
    match transport {
        Transport::Udp => {
            let Ok((udp, _)) = UdpHeader::mut_from_prefix(payload) else { return };
            let port = match side {
                Side::Source => udp.source_port(),
                Side::Destination => udp.destination_port(),
            };
            match side {
                Side::Source => udp.set_source_port(to.port),
                Side::Destination => udp.set_destination_port(to.port),
            }
            let sum = udp.checksum();
            let new = address.word(port, to.port).apply(sum);
            // Zero: the sender computed none, and so it stays (RFC 768).
            let new = if new == 0 { 0xffff } else { new };
            udp.set_checksum(if sum == 0 { 0 } else { new });
        }
        Transport::Tcp => {
            let Ok((tcp, _)) = TcpHeader::mut_from_prefix(payload) else { return };
            let port = match side {
                Side::Source => &mut tcp.source_port,
                Side::Destination => &mut tcp.destination_port,
            };
            let old = std::mem::replace(port, U16::new(to.port)).get();
            tcp.checksum = U16::new(address.word(old, to.port).apply(tcp.checksum.get()));
        }
        Transport::IcmpQuery => {
            if let Ok((icmp, _)) = Icmpv4Header::mut_from_prefix(payload) {
                icmp.replace_identifier(to.port);
            }
        }
    }
}

/// How words under a checksum have changed (RFC 1624 §3, eqn. 3): several at once, as
/// their order is nothing to the sum. Few words, so that it has carries of 16 bits at
/// most.
#[derive(Clone, Copy)]
struct Change(u32);

impl Change {
    const NONE: Change = Change(0);

    #[inline(always)]
    fn word(self, old: u16, new: u16) -> Self {
        Change(self.0 + u32::from(!old) + u32::from(new))
    }

    #[inline(always)]
    fn address(self, old: Ipv4Addr, new: Ipv4Addr) -> Self {
        let (old, new) = (!old.to_bits(), new.to_bits());
        Change(self.0 + (old >> 16) + (old & 0xffff) + (new >> 16) + (new & 0xffff))
    }

    /// The checksum after the change.
    #[inline(always)]
    fn apply(self, checksum: u16) -> u16 {
        let sum = self.0 + u32::from(!checksum);
        // Twice: the first time may carry.
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }
}
