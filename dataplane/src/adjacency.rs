//! The last step before a port: the link header in front of the packet.

use std::net::Ipv4Addr;

use homeport_wire::{EtherType, EthernetHeader, MacAddress, PortId};
use zerocopy::IntoBytes;

use crate::packet::Packet;

/// Who gets a packet on its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Station {
    /// The next hop with this address: its link-layer address is looked up.
    NextHop(Ipv4Addr),
    /// The station with this link-layer address: no ARP (a visitor, RFC 5944
    /// §3.7.3.1).
    Known(MacAddress),
}

/// A next hop: the link, and the address on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The port that its packets leave by.
    pub port: PortId,
    /// Its address.
    pub address: Ipv4Addr,
}

/// Puts a link header in front of the IPv4 packet in `packet`. `false`, and
/// nothing changed, when there is no room.
#[must_use]
pub fn put_link_header(packet: &mut Packet, to: MacAddress, from: MacAddress) -> bool {
    packet.prepend(EthernetHeader::new(to, from, EtherType::IPV4).as_bytes())
}
