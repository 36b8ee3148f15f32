//! Packets into a tunnel and out of it, in userspace: one body each way,
//! specialised by the encapsulation.
//!
//! A packet that goes in lies in a buffer behind [`ROOM`] free bytes, where its
//! headers are written. A packet that comes out is a part of what was received.

use std::net::{Ipv4Addr, SocketAddrV4};

use homeport_dataplane::decap::ecn_out_of_tunnel;
use homeport_proto::Encapsulation;
use homeport_wire::gre::{GreHeader, GrePacket, KeyedGreHeader};
use homeport_wire::minimal::{MinimalPacket, SourcedMinimalHeader};
use homeport_wire::mip_udp::{TunnelDataHeader, TunnelDataPacket};
use homeport_wire::{EtherType, IpProtocol, Ipv4Header, Ipv4Packet, UdpHeader, checksum};
use zerocopy::{FromBytes, IntoBytes};

use super::forwarding::TunnelEnds;

/// Bytes in front of a packet that are enough for every encapsulation.
pub const ROOM: usize = Ipv4Header::LEN + UdpHeader::LEN + TunnelDataHeader::LEN;

/// TTL of the outer header: the length of the tunnel does not depend on that of
/// the inner path (RFC 2003 §3.1).
const OUTER_TTL: u8 = 64;

/// Bytes that `encapsulation` adds to a whole packet; those that it adds to a
/// fragment may be more: [`fragment_overhead`].
pub const fn overhead(encapsulation: Encapsulation) -> u16 {
    let bytes = match encapsulation {
        // The home address is never the tunnel's end, so it is always there.
        Encapsulation::Minimal => SourcedMinimalHeader::LEN,
        Encapsulation::IpInIp => Ipv4Header::LEN,
        Encapsulation::Gre { key: None } => Ipv4Header::LEN + GreHeader::LEN,
        Encapsulation::Gre { key: Some(_) } => Ipv4Header::LEN + KeyedGreHeader::LEN,
        Encapsulation::Udp { .. } => ROOM,
        Encapsulation::PlainUdp { .. } => Ipv4Header::LEN + UdpHeader::LEN,
    };
    bytes as u16
}

/// Bytes that `encapsulation` adds to a fragment, which minimal encapsulation
/// cannot carry: it goes as IP in IP (RFC 2004 §3.1).
pub const fn fragment_overhead(encapsulation: Encapsulation) -> u16 {
    match encapsulation {
        Encapsulation::Minimal => Ipv4Header::LEN as u16,
        other => overhead(other),
    }
}

/// The other end's UDP port, if there is UDP in it.
pub const fn peer_port(encapsulation: Encapsulation) -> Option<u16> {
    match encapsulation {
        Encapsulation::Udp { peer_port } | Encapsulation::PlainUdp { peer_port } => Some(peer_port),
        Encapsulation::IpInIp | Encapsulation::Minimal | Encapsulation::Gre { .. } => None,
    }
}

/// Puts the packet that lies in `buffer` behind [`ROOM`] into the tunnel, from
/// our UDP port `port` if there is UDP in it, and gives the outer packet. `None`
/// when it is no packet or would be too long.
pub fn encapsulate(
    buffer: &mut [u8],
    ends: TunnelEnds,
    port: u16,
    identification: u16,
) -> Option<&[u8]> {
    let inner = Ipv4Packet::new_checked(buffer.get(ROOM..)?).ok()?;
    let header = *inner.header();
    let end = ROOM + inner.bytes().len();
    let has_options = header.header_len() > Ipv4Header::LEN;
    let encapsulation = match ends.encapsulation {
        // What it cannot carry goes as IP in IP (RFC 2004 §3.1).
        Encapsulation::Minimal if header.is_fragment() || has_options => Encapsulation::IpInIp,
        other => other,
    };
    let is_minimal = encapsulation == Encapsulation::Minimal;
    // In minimal encapsulation the outer header is the packet's own, changed.
    let payload_at = if is_minimal { ROOM + Ipv4Header::LEN } else { ROOM };
    let mut front = Front { buffer: buffer.get_mut(..end)?, at: payload_at };
    let protocol = match encapsulation {
        Encapsulation::IpInIp => IpProtocol::IP_IN_IP,
        Encapsulation::Minimal => {
            let (from, to) = (header.source(), header.destination());
            front.put(SourcedMinimalHeader::new(header.protocol(), from, to).as_bytes())?;
            IpProtocol::MINIMAL
        }
        Encapsulation::Gre { key } => {
            match key {
                None => front.put(GreHeader::new(EtherType::IPV4).as_bytes())?,
                Some(key) => front.put(KeyedGreHeader::new(EtherType::IPV4, key).as_bytes())?,
            }
            IpProtocol::GRE
        }
        Encapsulation::Udp { peer_port } | Encapsulation::PlainUdp { peer_port } => {
            if matches!(encapsulation, Encapsulation::Udp { .. }) {
                front.put(TunnelDataHeader::new(IpProtocol::IP_IN_IP).as_bytes())?;
            }
            let (from, to) = ((ends.local, port), (ends.remote, peer_port));
            front.put(UdpHeader::new(from, to, front.behind())?.as_bytes())?;
            IpProtocol::UDP
        }
    };
    let total_len = u16::try_from(Ipv4Header::LEN + front.behind().len()).ok()?;
    let ttl = if is_minimal { header.ttl } else { OUTER_TTL };
    let mut outer = Ipv4Header::unsummed(ends.local, ends.remote, protocol, ttl, total_len);
    // The type of service with ECN is copied (RFC 2003 §3.1, RFC 6040 §4.1), and
    // so is DF (RFC 2003 §3.1).
    outer.tos = header.tos;
    outer.set_dont_fragment(header.dont_fragment());
    outer.set_identification(if is_minimal { header.identification() } else { identification });
    outer.fill_checksum();
    front.put(outer.as_bytes())?;
    let Front { buffer, at } = front;
    buffer.get(at..)
}

/// Headers before a payload, each written in front of those that are there.
struct Front<'a> {
    buffer: &'a mut [u8],
    at: usize,
}

impl Front<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let start = self.at.checked_sub(bytes.len())?;
        self.buffer.get_mut(start..self.at)?.copy_from_slice(bytes);
        self.at = start;
        Some(())
    }

    fn behind(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }
}

/// The start of the packet that we put into the tunnel, from an address that `is_ours`,
/// out of the start of the outer packet, as an ICMP error quotes it. On a UDP socket the
/// kernel has taken the headers up to UDP off. `None` when it cannot be ours, or is too short.
pub fn quoted_inner(
    quote: &[u8],
    is_ours: impl Fn(Ipv4Addr) -> bool,
    ends: TunnelEnds,
) -> Option<Vec<u8>> {
    let inner = match ends.encapsulation {
        Encapsulation::PlainUdp { .. } => quote.to_vec(),
        Encapsulation::Udp { .. } => quote.get(TunnelDataHeader::LEN..)?.to_vec(),
        Encapsulation::IpInIp | Encapsulation::Minimal | Encapsulation::Gre { .. } => {
            let (outer, rest) = Ipv4Header::ref_from_prefix(quote).ok()?;
            if (outer.source(), outer.destination()) != (ends.local, ends.remote) {
                return None;
            }
            match (outer.protocol(), ends.encapsulation) {
                (IpProtocol::IP_IN_IP, _) => rest.to_vec(),
                (IpProtocol::GRE, Encapsulation::Gre { key }) => {
                    let len = key.map_or(GreHeader::LEN, |_| KeyedGreHeader::LEN);
                    rest.get(len..)?.to_vec()
                }
                (IpProtocol::MINIMAL, Encapsulation::Minimal) => {
                    let minimal = MinimalPacket::new_checked(rest).ok()?;
                    let saved = usize::from(overhead(ends.encapsulation));
                    let len = usize::from(outer.total_len()).checked_sub(saved)?;
                    let header = minimal.header();
                    let ends = (minimal.source()?, header.destination());
                    let inner = restored(outer, ends, header.protocol(), len)?;
                    [inner.as_bytes(), minimal.payload()].concat()
                }
                _ => return None,
            }
        }
    };
    let (header, _) = Ipv4Header::ref_from_prefix(&inner).ok()?;
    (header.version() == 4 && is_ours(header.source())).then_some(inner)
}

/// Why a tunnelled packet was not taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not between the tunnel's ends, their UDP ports included.
    Ends,
    /// It has another encapsulation, next header or key than the tunnel.
    Encapsulation,
    /// A header of the encapsulation is cut short, reserved bits are set that may
    /// not be, or a checksum is wrong.
    Malformed,
    /// What is inside is no packet for an address of ours.
    Inner,
    /// It met congestion and cannot be marked (RFC 6040 §4.2).
    Congestion,
}

/// The inner packet of a whole packet of a raw socket, if it is from the other
/// end of the tunnel, for an address that `is_ours` (RFC 5944 §4.2.1, RFC 2003 §3.2). It
/// lies in `packet`.
///
/// # Errors
/// Why it must be dropped.
pub fn decapsulate(
    packet: &mut [u8],
    is_ours: impl Fn(Ipv4Addr) -> bool,
    ends: Option<TunnelEnds>,
) -> Result<&mut [u8], Refused> {
    let ends = ends.ok_or(Refused::Ends)?;
    let outer = Ipv4Packet::new_checked(packet).map_err(|_| Refused::Malformed)?;
    let header = *outer.header();
    if (header.source(), header.destination()) != (ends.remote, ends.local) || header.is_fragment()
    {
        return Err(Refused::Ends);
    }
    let header_len = header.header_len();
    let end = outer.bytes().len();
    let start = match (header.protocol(), ends.encapsulation) {
        // Fragments come so through a tunnel of minimal encapsulation.
        (IpProtocol::IP_IN_IP, Encapsulation::IpInIp | Encapsulation::Minimal) => header_len,
        (IpProtocol::GRE, Encapsulation::Gre { key }) => {
            let gre = GrePacket::new_checked(outer.payload()).map_err(|_| Refused::Malformed)?;
            if gre.key() != key || gre.header().protocol_type() != EtherType::IPV4 {
                return Err(Refused::Encapsulation);
            }
            end - gre.payload().len()
        }
        (IpProtocol::MINIMAL, Encapsulation::Minimal) => {
            // Options would be the inner packet's (RFC 2004 §3.1); who has any is
            // to send it as IP in IP, as we do.
            if header_len > Ipv4Header::LEN {
                return Err(Refused::Malformed);
            }
            let minimal =
                MinimalPacket::new_checked(outer.payload()).map_err(|_| Refused::Malformed)?;
            let source = minimal.source().unwrap_or(header.source());
            let kept = minimal.header();
            let (ends, protocol) = ((source, kept.destination()), kept.protocol());
            let payload_at = end - minimal.payload().len();
            let start = payload_at.checked_sub(Ipv4Header::LEN).ok_or(Refused::Malformed)?;
            let inner = restored(&header, ends, protocol, end - start).ok_or(Refused::Malformed)?;
            let place = packet.get_mut(start..payload_at).ok_or(Refused::Malformed)?;
            place.copy_from_slice(inner.as_bytes());
            start
        }
        _ => return Err(Refused::Encapsulation),
    };
    let inner = packet.get_mut(start..end).ok_or(Refused::Malformed)?;
    finish(inner, is_ours, header.tos)
}

/// The inner packet of a UDP datagram of the registration port, if it is from the
/// other end of the tunnel, ports included (RFC 3519 §4.3). `from` is its source,
/// `to` the address that it was sent to. It lies in `data`.
///
/// # Errors
/// Why it must be dropped.
pub fn decapsulate_datagram(
    data: &mut [u8],
    from: SocketAddrV4,
    to: Ipv4Addr,
    tos: u8,
    is_ours: impl Fn(Ipv4Addr) -> bool,
    ends: Option<TunnelEnds>,
) -> Result<&mut [u8], Refused> {
    let ends = ends.ok_or(Refused::Ends)?;
    let peer_port = peer_port(ends.encapsulation).ok_or(Refused::Encapsulation)?;
    if from != SocketAddrV4::new(ends.remote, peer_port) || to != ends.local {
        return Err(Refused::Ends);
    }
    let start = match ends.encapsulation {
        Encapsulation::Udp { .. } => {
            // Its reserved bits are ignored, the next header is not (RFC 3519 §3.3).
            let message =
                TunnelDataPacket::new_checked(data).map_err(|_| Refused::Encapsulation)?;
            if message.header().next_header() != IpProtocol::IP_IN_IP {
                return Err(Refused::Encapsulation);
            }
            TunnelDataHeader::LEN
        }
        _ => 0,
    };
    finish(data.get_mut(start..).ok_or(Refused::Malformed)?, is_ours, tos)
}

/// The header of a minimally encapsulated packet of `len` bytes, from the outer
/// one and what its small header kept (RFC 2004 §3.1).
fn restored(
    outer: &Ipv4Header,
    (source, destination): (Ipv4Addr, Ipv4Addr),
    protocol: IpProtocol,
    len: usize,
) -> Option<Ipv4Header> {
    let len = u16::try_from(len).ok()?;
    let mut inner = Ipv4Header::unsummed(source, destination, protocol, outer.ttl, len);
    inner.tos = outer.tos;
    inner.set_identification(outer.identification());
    inner.set_dont_fragment(outer.dont_fragment());
    inner.fill_checksum();
    Some(inner)
}

/// Looks at what was inside, and carries congestion marks inward.
fn finish(
    bytes: &mut [u8],
    is_ours: impl Fn(Ipv4Addr) -> bool,
    outer_tos: u8,
) -> Result<&mut [u8], Refused> {
    let inner = Ipv4Packet::new_checked(bytes).map_err(|_| Refused::Inner)?;
    if !is_ours(inner.header().destination()) {
        return Err(Refused::Inner);
    }
    let len = inner.bytes().len();
    let tos = ecn_out_of_tunnel(outer_tos, inner.header().tos).ok_or(Refused::Congestion)?;
    let (header, _) = Ipv4Header::mut_from_prefix(bytes).map_err(|_| Refused::Inner)?;
    if tos != header.tos {
        let word = |tos| u16::from_be_bytes([0, tos]);
        header.set_checksum(checksum::update(header.checksum(), word(header.tos), word(tos)));
        header.tos = tos;
    }
    bytes.get_mut(..len).ok_or(Refused::Inner)
}

#[cfg(test)]
#[path = "encapsulation_tests.rs"]
mod tests;
