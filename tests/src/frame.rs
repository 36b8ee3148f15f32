//! Whole frames from the pieces that a test cares about.

use std::net::Ipv4Addr;

use homeport_wire::{EtherType, EthernetHeader, IpProtocol, Ipv4Header, MacAddress, UdpHeader};
use zerocopy::IntoBytes;

/// An Ethernet frame around an IPv4 packet.
pub fn ethernet(destination: MacAddress, source: MacAddress, packet: &[u8]) -> Vec<u8> {
    let mut frame = EthernetHeader::new(destination, source, EtherType::IPV4).as_bytes().to_vec();
    frame.extend_from_slice(packet);
    frame
}

/// An IPv4 packet around a payload.
pub fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: IpProtocol,
    ttl: u8,
    payload: &[u8],
) -> Vec<u8> {
    let len = u16::try_from(Ipv4Header::LEN + payload.len()).expect("a payload that fits");
    let mut packet = Ipv4Header::new(source, destination, protocol, ttl, len).as_bytes().to_vec();
    packet.extend_from_slice(payload);
    packet
}

/// An IPv4 packet around a UDP datagram.
pub fn udp(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), ttl: u8, data: &[u8]) -> Vec<u8> {
    let header = UdpHeader::new(source, destination, data).expect("data that fits");
    let mut datagram = header.as_bytes().to_vec();
    datagram.extend_from_slice(data);
    ipv4(source.0, destination.0, IpProtocol::UDP, ttl, &datagram)
}
