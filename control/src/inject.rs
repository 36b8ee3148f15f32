//! From what an agent wants sent to the bytes that the dataplane sends.
//!
//! A packet for a station on a link leaves as a whole frame, with no ARP asked:
//! a mobile node's address is on another network, and nobody may be asked for it
//! (RFC 5944 §3.7.3.1, §4.6). Everything else is routed like a packet that was
//! received.

use homeport_dataplane::punt::{InjectHeader, InjectKind};
use homeport_proto::{MacAddress, Payload, PortId, TenantId, Transmit};
use homeport_wire::{ArpPacket, EtherType, EthernetHeader, IpProtocol, Ipv4Header, UdpHeader};
use std::net::Ipv4Addr;
use zerocopy::IntoBytes;

/// A message for the dataplane: its header and the bytes that follow.
#[derive(Clone, Debug)]
pub struct Injection {
    /// What follows.
    pub header: InjectHeader,
    /// A frame or an IPv4 packet.
    pub bytes: Vec<u8>,
}

/// Why something cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// An agent named a port that does not exist.
    #[error("there is no port {0}")]
    NoPort(PortId),
    /// Longer than an IPv4 packet can be.
    #[error("a packet of {0} bytes of payload is too long")]
    TooLong(usize),
}

/// An agent's packet. `mac_of` gives a port's own address.
///
/// # Errors
/// [`InjectError`].
pub fn transmit(
    transmit: &Transmit,
    mac_of: impl Fn(PortId) -> Option<MacAddress>,
) -> Result<Injection, InjectError> {
    let Some((port, station)) = transmit.link else {
        let bytes = packet(transmit, Vec::new())?;
        return injection(transmit.tenant, PortId::default(), InjectKind::Routed, bytes);
    };
    let own = mac_of(port).ok_or(InjectError::NoPort(port))?;
    // RFC 1112 §6.4: a group's packets go to the group's address on the link.
    let station = if station.is_broadcast() && transmit.destination.is_multicast() {
        MacAddress::of_multicast(transmit.destination)
    } else {
        station
    };
    let frame = EthernetHeader::new(station, own, EtherType::IPV4).as_bytes().to_vec();
    let bytes = packet(transmit, frame)?;
    injection(transmit.tenant, port, InjectKind::Frame, bytes)
}

/// A gratuitous ARP request to all stations of a link: `address` is at `mac`, or
/// at the port's own address (RFC 5944 §4.6).
///
/// The frame comes from the port's own address also when it speaks of another
/// station: bridges learn from the frame, hosts from the ARP packet.
///
/// # Errors
/// [`InjectError::NoPort`].
pub fn gratuitous_arp(
    port: PortId,
    address: Ipv4Addr,
    mac: Option<MacAddress>,
    mac_of: impl Fn(PortId) -> Option<MacAddress>,
) -> Result<Injection, InjectError> {
    let own = mac_of(port).ok_or(InjectError::NoPort(port))?;
    let mut bytes =
        EthernetHeader::new(MacAddress::BROADCAST, own, EtherType::ARP).as_bytes().to_vec();
    bytes.extend_from_slice(ArpPacket::gratuitous(address, mac.unwrap_or(own)).as_bytes());
    injection(TenantId::default(), port, InjectKind::Frame, bytes)
}

fn injection(
    tenant: TenantId,
    port: PortId,
    kind: InjectKind,
    bytes: Vec<u8>,
) -> Result<Injection, InjectError> {
    let len = u16::try_from(bytes.len()).map_err(|_| InjectError::TooLong(bytes.len()))?;
    Ok(Injection { header: InjectHeader::new(tenant, port, kind, len), bytes })
}

/// The IPv4 packet, behind what `bytes` holds already. It is never fragmented
/// and so needs no identification (RFC 6864 §4.1).
fn packet(transmit: &Transmit, mut bytes: Vec<u8>) -> Result<Vec<u8>, InjectError> {
    let (source, destination) = (transmit.source, transmit.destination);
    let udp;
    let (protocol, head, data) = match &transmit.payload {
        Payload::Udp { source_port, destination_port, data } => {
            udp = UdpHeader::new((source, *source_port), (destination, *destination_port), data)
                .ok_or(InjectError::TooLong(data.len()))?;
            (IpProtocol::UDP, udp.as_bytes(), data)
        }
        Payload::Icmp(message) => (IpProtocol::ICMP, &[][..], message),
    };
    let len = Ipv4Header::LEN + head.len() + data.len();
    let total = u16::try_from(len).map_err(|_| InjectError::TooLong(data.len()))?;
    bytes.reserve_exact(len);
    let mut header = Ipv4Header::new(source, destination, protocol, transmit.ttl, total);
    header.set_dont_fragment(true);
    header.fill_checksum();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(data);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeport_wire::{Ipv4Packet, UdpPacket};
    use zerocopy::FromBytes;

    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const STATION: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
    const PORT: PortId = PortId(3);

    fn mac_of(port: PortId) -> Option<MacAddress> {
        (port == PORT).then_some(OWN)
    }

    fn reply(link: Option<(PortId, MacAddress)>) -> Transmit {
        Transmit {
            tenant: TenantId(7),
            link,
            source: Ipv4Addr::new(10, 0, 1, 2),
            destination: Ipv4Addr::new(10, 1, 0, 10),
            ttl: 64,
            payload: Payload::Udp {
                source_port: 434,
                destination_port: 1025,
                data: b"reply".to_vec(),
            },
        }
    }

    // Shows 5944-3.1-e.
    #[test]
    fn a_reply_on_a_link_is_a_frame_that_its_receiver_accepts() {
        let sent = transmit(&reply(Some((PORT, STATION))), mac_of).unwrap();
        assert_eq!(sent.header.kind(), Some(InjectKind::Frame));
        assert_eq!((sent.header.port(), sent.header.tenant()), (PORT, TenantId(7)));
        assert_eq!(sent.header.len(), sent.bytes.len());
        let (ethernet, rest) = EthernetHeader::ref_from_prefix(&sent.bytes).unwrap();
        assert_eq!((ethernet.destination, ethernet.source), (STATION, OWN));
        assert_eq!(ethernet.ether_type(), EtherType::IPV4);
        let ip = Ipv4Packet::new_checked(rest).unwrap();
        assert_eq!(ip.header().ttl, 64);
        assert!(ip.header().dont_fragment());
        let (source, destination) = (ip.header().source(), ip.header().destination());
        let udp = UdpPacket::new_checked(ip.payload(), source, destination).unwrap();
        assert_eq!(udp.payload(), b"reply");
        assert_eq!((udp.header().source_port(), udp.header().destination_port()), (434, 1025));
    }

    #[test]
    fn without_a_link_it_is_a_packet_to_be_routed() {
        let sent = transmit(&reply(None), mac_of).unwrap();
        assert_eq!(sent.header.kind(), Some(InjectKind::Routed));
        assert_eq!(Ipv4Packet::new_checked(&sent.bytes).unwrap().bytes().len(), sent.bytes.len());
    }

    #[test]
    fn an_advertisement_to_all_stations_goes_to_the_group_of_its_destination() {
        let mut advertisement = reply(Some((PORT, MacAddress::BROADCAST)));
        advertisement.payload = Payload::Icmp(vec![9, 0, 0xf6, 0xff, 0, 0, 0, 0]);
        advertisement.destination = Ipv4Addr::new(224, 0, 0, 1);
        let sent = transmit(&advertisement, mac_of).unwrap();
        let (ethernet, rest) = EthernetHeader::ref_from_prefix(&sent.bytes).unwrap();
        assert_eq!(ethernet.destination.to_string(), "01:00:5e:00:00:01");
        assert_eq!(Ipv4Packet::new_checked(rest).unwrap().header().protocol(), IpProtocol::ICMP);
        advertisement.destination = Ipv4Addr::BROADCAST;
        let sent = transmit(&advertisement, mac_of).unwrap();
        let (ethernet, _) = EthernetHeader::ref_from_prefix(&sent.bytes).unwrap();
        assert!(ethernet.destination.is_broadcast());
    }

    // Shows 5944-4.6-a.
    #[test]
    fn gratuitous_arp_speaks_of_a_station_in_the_ports_own_name() {
        let address = Ipv4Addr::new(10, 1, 0, 10);
        for (mac, said) in [(None, OWN), (Some(STATION), STATION)] {
            let sent = gratuitous_arp(PORT, address, mac, mac_of).unwrap();
            let (ethernet, rest) = EthernetHeader::ref_from_prefix(&sent.bytes).unwrap();
            assert_eq!((ethernet.destination, ethernet.source), (MacAddress::BROADCAST, OWN));
            let arp = ArpPacket::new_checked(rest).unwrap();
            assert_eq!((arp.sender_mac, arp.sender_address()), (said, address));
            assert_eq!(arp.target_address(), address);
        }
    }

    #[test]
    fn a_port_that_is_not_there_and_a_packet_too_long_are_errors() {
        let nowhere = reply(Some((PortId(9), STATION)));
        assert_eq!(transmit(&nowhere, mac_of).unwrap_err(), InjectError::NoPort(PortId(9)));
        let mut long = reply(None);
        long.payload = Payload::Icmp(vec![0; 65_516]);
        assert_eq!(transmit(&long, mac_of).unwrap_err(), InjectError::TooLong(65_516));
    }
}
