//! ICMP echo inside UDP tunnels. It keeps a NAT's mapping (RFC 3519 §4.9), binds a
//! half-bound tunnel (§4.11), and here also shows that a node is where the outer
//! header of its request says.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use homeport_wire::icmpv4::Icmpv4Header;
use homeport_wire::{
    IpProtocol, Ipv4Header, MOBILE_IP_PORT, TenantId, TunnelDataHeader, UdpHeader,
};
use zerocopy::IntoBytes;

use crate::{Encapsulation, Payload, Transmit};

/// An ICMP echo message that came out of a UDP tunnel, lengths and checksums of
/// the headers around it found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelledEcho<'a> {
    /// The tenant of the address that the tunnel ends at.
    pub tenant: TenantId,
    /// Outer source.
    pub source: Ipv4Addr,
    /// Outer UDP source port.
    pub source_port: u16,
    /// Outer destination.
    pub destination: Ipv4Addr,
    /// Inner source: the node's home address, if it is a node's.
    pub inner_source: Ipv4Addr,
    /// Inner destination.
    pub inner_destination: Ipv4Addr,
    /// Whether the inner packet follows the UDP header at once, without a tunnel
    /// data header.
    pub plain: bool,
    /// The ICMP message, from its type to its end; its checksum is not looked at.
    pub icmp: &'a [u8],
}

impl TunnelledEcho<'_> {
    /// Bytes of the outer packet.
    pub(crate) const fn packet_len(&self) -> usize {
        packet_len(self.plain, self.icmp.len())
    }
}

/// Bytes of an outer packet with an ICMP message of this length.
const fn packet_len(plain: bool, icmp_len: usize) -> usize {
    let tunnel_data = if plain { 0 } else { TunnelDataHeader::LEN };
    Ipv4Header::LEN + UdpHeader::LEN + tunnel_data + Ipv4Header::LEN + icmp_len
}

/// Time to live of both headers.
const TTL: u8 = 64;

/// The two ends of a UDP tunnel, ours first, and the two of a packet in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TunnelPath {
    pub(crate) tenant: TenantId,
    pub(crate) outer: (Ipv4Addr, Ipv4Addr),
    pub(crate) encapsulation: Encapsulation,
    pub(crate) inner: (Ipv4Addr, Ipv4Addr),
}

impl TunnelPath {
    /// An echo message in the tunnel: what to send, and how many bytes it has on
    /// the wire. `None` when it is no UDP tunnel, or one whose port is not known.
    ///
    /// It is made here and not left to the forwarding tables, which would copy it
    /// to every tunnel of the node.
    pub(crate) fn echo(
        &self,
        message_type: u8,
        identifier: [u8; 4],
        data: &[u8],
    ) -> Option<(Transmit, usize)> {
        let (plain, port) = match self.encapsulation {
            Encapsulation::Udp { peer_port } => (false, peer_port),
            Encapsulation::PlainUdp { peer_port } => (true, peer_port),
            _ => return None,
        };
        if port == 0 {
            return None;
        }
        let icmp_len = Icmpv4Header::LEN + data.len();
        let inner_len = u16::try_from(Ipv4Header::LEN + icmp_len).ok()?;
        let (source, destination) = self.inner;
        let mut inner = Ipv4Header::new(source, destination, IpProtocol::ICMP, TTL, inner_len);
        inner.fill_checksum();
        let mut payload = Vec::with_capacity(TunnelDataHeader::LEN + usize::from(inner_len));
        if !plain {
            payload.extend_from_slice(TunnelDataHeader::new(IpProtocol::IP_IN_IP).as_bytes());
        }
        payload.extend_from_slice(inner.as_bytes());
        let icmp = Icmpv4Header::new(message_type, 0, identifier, data);
        payload.extend_from_slice(icmp.as_bytes());
        payload.extend_from_slice(data);
        let packet = Transmit {
            tenant: self.tenant,
            link: None,
            source: self.outer.0,
            destination: self.outer.1,
            ttl: TTL,
            payload: Payload::Udp {
                source_port: MOBILE_IP_PORT,
                destination_port: port,
                data: payload,
            },
        };
        Some((packet, packet_len(plain, icmp_len)))
    }
}
