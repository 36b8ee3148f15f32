//! What the NAPT reads in a packet and what it writes into it: endpoints, and the
//! checksums over them (RFC 1624).

use std::net::Ipv4Addr;

use homeport_wire::icmpv4::{
    ADDRESS_MASK_REPLY, ADDRESS_MASK_REQUEST, DESTINATION_UNREACHABLE, ECHO_REPLY, ECHO_REQUEST,
    Icmpv4Header, Icmpv4Packet, PARAMETER_PROBLEM, TIME_EXCEEDED, TIMESTAMP, TIMESTAMP_REPLY,
};
use homeport_wire::tcp::TcpHeader;
use homeport_wire::{IpProtocol, Ipv4Header, UdpHeader, checksum};
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::tcp::TcpSegment;

/// What is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transport {
    /// TCP, by port.
    Tcp,
    /// UDP, by port.
    Udp,
    /// ICMP queries and their replies, by identifier.
    IcmpQuery,
}

impl Transport {
    pub(super) const COUNT: usize = 3;
}

/// An address with a port. With ICMP queries the port of the side that asks is
/// the identifier, and the other's is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Ipv4Addr,
    /// The port or the identifier.
    pub port: u16,
}

/// From where to where, and by what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) transport: Transport,
    pub(super) source: Endpoint,
    pub(super) destination: Endpoint,
    /// Whether it may open a session: all but replies to ICMP queries, and TCP
    /// segments without a SYN.
    pub(super) opens: bool,
    /// What the state of a TCP connection depends on.
    pub(super) tcp: Option<TcpSegment>,
}

/// What a packet is to the NAPT.
#[derive(Clone, Copy, Debug)]
pub(super) enum Look {
    /// A packet of a session, or its first fragment.
    Session(Segment),
    /// A fragment without ports.
    Later,
    /// An ICMP error about a packet from and to these endpoints.
    Error(Segment),
    /// Nothing that can be translated.
    Unsupported,
}

/// What the IPv4 header says, and the look behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: IpProtocol,
    pub(super) identification: u16,
    pub(super) fragment: bool,
    pub(super) dont_fragment: bool,
    pub(super) look: Look,
}

/// Looks at an IPv4 packet whose header was found right; `None` when it was not.
pub(super) fn look(packet: &[u8]) -> Option<Facts> {
    let (header, _) = Ipv4Header::ref_from_prefix(packet).ok()?;
    let payload = packet.get(header.header_len()..)?;
    let look = if header.fragment_offset() > 0 {
        Look::Later
    } else if header.protocol() == IpProtocol::ICMP && !header.is_fragment() {
        icmp(header, payload)
    } else {
        segment(header, payload).map_or(Look::Unsupported, Look::Session)
    };
    Some(Facts {
        source: header.source(),
        destination: header.destination(),
        protocol: header.protocol(),
        identification: header.identification(),
        fragment: header.is_fragment(),
        dont_fragment: header.dont_fragment(),
        look,
    })
}

fn icmp(header: &Ipv4Header, payload: &[u8]) -> Look {
    match payload.first() {
        Some(&(DESTINATION_UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)) => {
            quoted(payload).map_or(Look::Unsupported, Look::Error)
        }
        _ => segment(header, payload).map_or(Look::Unsupported, Look::Session),
    }
}

/// The endpoints of the packet that an ICMP error quotes. `None` when a checksum is
/// wrong (RFC 5508 REQ-3, REQ-3a) or when the quote has no ports. The transport's
/// own checksum is not looked at (REQ-3c).
fn quoted(message: &[u8]) -> Option<Segment> {
    let quote = Icmpv4Packet::new_checked(message).ok()?.body();
    let (header, _) = Ipv4Header::ref_from_prefix(quote).ok()?;
    // Behind the options, if there are any (REQ-3b).
    let (head, rest) = quote.split_at_checked(header.header_len())?;
    let is_whole = header.version() == 4
        && head.len() >= Ipv4Header::LEN
        && checksum::checksum(head) == 0
        && header.fragment_offset() == 0;
    let ports = Ports::read_from_prefix(rest).ok()?.0;
    let transport = match header.protocol() {
        IpProtocol::TCP => Transport::Tcp,
        IpProtocol::UDP => Transport::Udp,
        IpProtocol::ICMP => return is_whole.then(|| segment(header, rest)).flatten(),
        _ => return None,
    };
    is_whole.then(|| ports.between(header, transport, None))
}

/// The endpoints of a packet with this header and payload.
fn segment(header: &Ipv4Header, payload: &[u8]) -> Option<Segment> {
    match header.protocol() {
        IpProtocol::TCP => {
            // Flags and all (RFC 1858 §3: a first fragment without them hides them).
            let (tcp, options) = TcpHeader::ref_from_prefix(payload).ok()?;
            let tcp_facts = TcpSegment::read(tcp, options);
            let ports = Ports { source: tcp.source_port, destination: tcp.destination_port };
            Some(ports.between(header, Transport::Tcp, Some(tcp_facts)))
        }
        IpProtocol::UDP => {
            let (udp, _) = UdpHeader::ref_from_prefix(payload).ok()?;
            let (source, destination) = (udp.source_port(), udp.destination_port());
            let ports = Ports { source: source.into(), destination: destination.into() };
            Some(ports.between(header, Transport::Udp, None))
        }
        IpProtocol::ICMP => {
            let (icmp, _) = Icmpv4Header::ref_from_prefix(payload).ok()?;
            let (asks, identifier) = (is_request(icmp.message_type)?, U16::new(icmp.identifier()));
            let none = U16::new(0);
            let ports = if asks {
                Ports { source: identifier, destination: none }
            } else {
                Ports { source: none, destination: identifier }
            };
            let segment = ports.between(header, Transport::IcmpQuery, None);
            Some(Segment { opens: asks, ..segment })
        }
        _ => None,
    }
}

/// Whether an ICMP message asks or answers; `None` when it does neither (RFC 5508
/// REQ-10: information requests are not supported).
const fn is_request(message_type: u8) -> Option<bool> {
    match message_type {
        ECHO_REQUEST | TIMESTAMP | ADDRESS_MASK_REQUEST => Some(true),
        ECHO_REPLY | TIMESTAMP_REPLY | ADDRESS_MASK_REPLY => Some(false),
        _ => None,
    }
}

/// What TCP and UDP start with.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Ports {
    source: U16,
    destination: U16,
}

impl Ports {
    fn between(
        self,
        header: &Ipv4Header,
        transport: Transport,
        tcp: Option<TcpSegment>,
    ) -> Segment {
        let source = Endpoint { address: header.source(), port: self.source.get() };
        let destination = Endpoint { address: header.destination(), port: self.destination.get() };
        let opens = tcp.is_none_or(|tcp| tcp.opens());
        Segment { transport, source, destination, opens, tcp }
    }
}

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

/// Puts another endpoint into a packet, or into as much of one as an ICMP error
/// quotes. `transport` is `None` for a fragment without ports.
pub(super) fn replace(packet: &mut [u8], side: Side, to: Endpoint, transport: Option<Transport>) {
    let Some((old, payload)) = replace_address(packet, side, to.address) else { return };
    match transport {
        Some(Transport::Tcp) => {
            let Some(port) = replace_port(payload, side, to.port) else { return };
            // A quote may end before the checksum.
            if let Ok((tcp, _)) = TcpHeader::mut_from_prefix(payload) {
                let sum = checksum::update_address(tcp.checksum.get(), old, to.address);
                tcp.checksum.set(checksum::update(sum, port, to.port));
            }
        }
        Some(Transport::Udp) => {
            let Some(port) = replace_port(payload, side, to.port) else { return };
            if let Ok((udp, _)) = UdpHeader::mut_from_prefix(payload)
                // Zero: the sender computed none, and so it stays (RFC 768).
                && udp.checksum() != 0
            {
                let sum = checksum::update_address(udp.checksum(), old, to.address);
                let sum = checksum::update(sum, port, to.port);
                udp.set_checksum(if sum == 0 { 0xffff } else { sum });
            }
        }
        Some(Transport::IcmpQuery) => {
            if let Ok((icmp, _)) = Icmpv4Header::mut_from_prefix(payload) {
                icmp.replace_identifier(to.port);
            }
        }
        None => {}
    }
}

/// Puts another endpoint into the packet that an ICMP error quotes, and another
/// address into the error (RFC 5508 REQ-4, REQ-5).
pub(super) fn replace_quoted(
    packet: &mut [u8],
    (outer, address): (Side, Ipv4Addr),
    (inner, endpoint): (Side, Endpoint),
    transport: Transport,
) {
    let Some((_, message)) = replace_address(packet, outer, address) else { return };
    let Ok((icmp, quote)) = Icmpv4Header::mut_from_prefix(message) else { return };
    replace(quote, inner, endpoint, Some(transport));
    icmp.fill_checksum(quote);
}

/// Gives the packet another identification.
pub(super) fn replace_identification(packet: &mut [u8], identification: u16) {
    if let Ok((header, _)) = Ipv4Header::mut_from_prefix(packet) {
        header.replace_identification(identification);
    }
}

/// The address that was there, and what follows header and options.
fn replace_address(packet: &mut [u8], side: Side, to: Ipv4Addr) -> Option<(Ipv4Addr, &mut [u8])> {
    let (header, _) = Ipv4Header::mut_from_prefix(packet).ok()?;
    let old = match side {
        Side::Source => header.source(),
        Side::Destination => header.destination(),
    };
    match side {
        Side::Source => header.replace_source(to),
        Side::Destination => header.replace_destination(to),
    }
    let header_len = header.header_len();
    Some((old, packet.get_mut(header_len..)?))
}

/// The port that was there.
fn replace_port(payload: &mut [u8], side: Side, to: u16) -> Option<u16> {
    let (ports, _) = Ports::mut_from_prefix(payload).ok()?;
    let port = match side {
        Side::Source => &mut ports.source,
        Side::Destination => &mut ports.destination,
    };
    Some(std::mem::replace(port, U16::new(to)).get())
}
