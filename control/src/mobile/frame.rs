//! Frames that the mobile node makes and hears itself.

use std::net::Ipv4Addr;

use homeport_proto::MacAddress;
use homeport_wire::{
    ArpOperation, ArpPacket, EtherType, EthernetHeader, IpProtocol, Ipv4Header, Ipv4Packet,
    UdpHeader, UdpPacket,
};
use zerocopy::{FromBytes, IntoBytes};

/// All routers of the link (RFC 1256 §5.1).
pub const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);

/// A station on the link, by both addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its link-layer address.
    pub mac: MacAddress,
    /// Its IPv4 address.
    pub address: Ipv4Addr,
}

/// What a frame brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// An ICMP message, from its type to its end.
    Icmp {
        /// Who sent it.
        from: Station,
        /// Its time to live.
        ttl: u8,
        /// The message.
        message: &'a [u8],
    },
    /// A UDP datagram for the DHCP client.
    Dhcp {
        /// Who sent it.
        from: Station,
        /// The datagram's data.
        payload: &'a [u8],
    },
    /// Any other UDP datagram.
    Datagram(Datagram<'a>),
}

/// A UDP datagram, and whom its frame was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub from: Station,
    /// From which port.
    pub from_port: u16,
    /// Whom it is for.
    pub to: Station,
    /// For which port.
    pub to_port: u16,
    /// The datagram's data.
    pub payload: &'a [u8],
}

/// The port of a DHCP client.
const DHCP_CLIENT_PORT: u16 = 68;

/// What `frame` brought; `None` when it is neither, or wrong. A transport checksum
/// that is not computed yet is not looked at.
pub fn parse(frame: &[u8], unfinished_checksum: bool) -> Option<Heard<'_>> {
    let (ethernet, rest) = EthernetHeader::ref_from_prefix(frame).ok()?;
    if ethernet.ether_type() != EtherType::IPV4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(rest).ok()?;
    let header = packet.header();
    if header.is_fragment() {
        return None;
    }
    let from = Station { mac: ethernet.source, address: header.source() };
    match header.protocol() {
        IpProtocol::ICMP => Some(Heard::Icmp { from, ttl: header.ttl, message: packet.payload() }),
        IpProtocol::UDP => {
            let (udp, data) = UdpHeader::ref_from_prefix(packet.payload()).ok()?;
            let payload = if unfinished_checksum {
                data.get(..usize::from(udp.udp_len()).checked_sub(UdpHeader::LEN)?)?
            } else {
                let source = header.source();
                UdpPacket::new_checked(packet.payload(), source, header.destination())
                    .ok()?
                    .payload()
            };
            let (from_port, to_port) = (udp.source_port(), udp.destination_port());
            let to = Station { mac: ethernet.destination, address: header.destination() };
            Some(match to_port {
                DHCP_CLIENT_PORT => Heard::Dhcp { from, payload },
                _ => Heard::Datagram(Datagram { from, from_port, to, to_port, payload }),
            })
        }
        _ => None,
    }
}

/// A frame with an ICMP message.
pub fn icmp(from: Station, to: Station, ttl: u8, message: &[u8]) -> Option<Vec<u8>> {
    ipv4(from, to, IpProtocol::ICMP, ttl, &[message])
}

/// A frame with a UDP datagram. `None` when it is too long for IPv4.
pub fn udp(
    (from, source_port): (Station, u16),
    (to, destination_port): (Station, u16),
    ttl: u8,
    data: &[u8],
) -> Option<Vec<u8>> {
    let source = (from.address, source_port);
    let header = UdpHeader::new(source, (to.address, destination_port), data)?;
    ipv4(from, to, IpProtocol::UDP, ttl, &[header.as_bytes(), data])
}

/// A gratuitous ARP: `station` is here (RFC 5944 §4.6).
pub fn gratuitous_arp(station: Station) -> Vec<u8> {
    let ethernet = EthernetHeader::new(MacAddress::BROADCAST, station.mac, EtherType::ARP);
    let arp = ArpPacket::gratuitous(station.address, station.mac);
    [ethernet.as_bytes(), arp.as_bytes()].concat()
}

/// An ARP request for `to`, for it alone.
pub fn arp_request(from: Station, to: Station) -> Vec<u8> {
    let ethernet = EthernetHeader::new(to.mac, from.mac, EtherType::ARP);
    let operation = ArpOperation::REQUEST;
    let (nobody, asked) = (MacAddress::UNSPECIFIED, to.address);
    let arp = ArpPacket::new(operation, from.mac, from.address, nobody, asked);
    [ethernet.as_bytes(), arp.as_bytes()].concat()
}

/// Who speaks in an ARP packet, whatever it says; `None` when it is wrong, or its frame is
/// somebody else's.
pub fn arp_sender(frame: &[u8]) -> Option<Station> {
    let (ethernet, rest) = EthernetHeader::ref_from_prefix(frame).ok()?;
    let arp = ArpPacket::new_checked(rest).ok()?;
    let ours = ethernet.ether_type() == EtherType::ARP && ethernet.source == arp.sender_mac;
    ours.then(|| Station { mac: arp.sender_mac, address: arp.sender_address() })
}

fn ipv4(
    from: Station,
    to: Station,
    protocol: IpProtocol,
    ttl: u8,
    parts: &[&[u8]],
) -> Option<Vec<u8>> {
    let payload_len: usize = parts.iter().map(|part| part.len()).sum();
    let total_len = u16::try_from(Ipv4Header::LEN + payload_len).ok()?;
    let ethernet = EthernetHeader::new(to.mac, from.mac, EtherType::IPV4);
    let header = Ipv4Header::new(from.address, to.address, protocol, ttl, total_len);
    let mut frame = Vec::with_capacity(EthernetHeader::LEN + usize::from(total_len));
    frame.extend_from_slice(ethernet.as_bytes());
    frame.extend_from_slice(header.as_bytes());
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const US: Station =
        Station { mac: MacAddress([2, 0, 0, 0, 0, 1]), address: Ipv4Addr::new(10, 1, 0, 10) };
    const THEM: Station =
        Station { mac: MacAddress([2, 0, 0, 0, 0, 2]), address: Ipv4Addr::new(10, 2, 1, 1) };

    #[test]
    fn what_is_made_is_heard() {
        let frame = udp((THEM, 67), (US, 68), 64, b"offer").unwrap();
        assert_eq!(parse(&frame, false), Some(Heard::Dhcp { from: THEM, payload: b"offer" }));
        let message = [10, 0, 0xf5, 0xff, 0, 0, 0, 0];
        let frame = icmp(US, THEM, 1, &message).unwrap();
        assert_eq!(parse(&frame, false), Some(Heard::Icmp { from: US, ttl: 1, message: &message }));
    }

    #[test]
    fn a_datagram_for_another_port_is_heard_with_both_ends() {
        let frame = udp((THEM, 434), (US, 5000), 64, b"reply").unwrap();
        let heard =
            Datagram { from: THEM, from_port: 434, to: US, to_port: 5000, payload: b"reply" };
        assert_eq!(parse(&frame, false), Some(Heard::Datagram(heard)));
    }

    #[test]
    fn who_speaks_in_arp_speaks_for_itself() {
        let asked = arp_request(US, THEM);
        assert_eq!(arp_sender(&asked), Some(US));
        assert_eq!((&asked[..6], &asked[38..42]), (&THEM.mac.0[..], &THEM.address.octets()[..]));
        assert_eq!(arp_sender(&gratuitous_arp(THEM)), Some(THEM));
        for len in 0..asked.len() {
            assert_eq!(arp_sender(&asked[..len]), None, "{len}");
        }
        // The frame's source, the kind of frame, and what is in it.
        for at in [11, 13, 15, 19] {
            let mut wrong = asked.clone();
            wrong[at] ^= 1;
            assert_eq!(arp_sender(&wrong), None, "{at}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_refused_unless_it_is_unfinished() {
        let mut frame = udp((THEM, 67), (US, 68), 64, b"offer").unwrap();
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(parse(&frame, false), None);
        assert!(parse(&frame, true).is_some());
    }

    #[test]
    fn a_frame_cut_anywhere_is_refused() {
        let frame = udp((THEM, 67), (US, 68), 64, b"offer").unwrap();
        for len in 0..frame.len() {
            assert_eq!(parse(&frame[..len], false), None, "{len}");
            assert_eq!(parse(&frame[..len], true), None, "{len}");
        }
    }

    proptest! {
        #[test]
        fn noise_in_a_frame_never_panics(
            at in 0usize..60,
            noise in proptest::collection::vec(any::<u8>(), 0..60),
            unfinished: bool,
        ) {
            let mut frame = udp((THEM, 67), (US, 68), 64, b"offer of an address").unwrap();
            for (to, from) in frame.iter_mut().skip(at).zip(&noise) {
                *to = *from;
            }
            let _ = parse(&frame, unfinished);
            let _ = parse(&noise, unfinished);
        }
    }
}
