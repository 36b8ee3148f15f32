//! The first stage: what one look at a frame tells, without any table.

use std::net::Ipv4Addr;

use homeport_wire::{
    ArpPacket, EtherType, EthernetHeader, IpProtocol, Ipv4Packet, MOBILE_IP_PORT, MobileIpPayload,
    UdpHeader, WireError,
};
use zerocopy::FromBytes;

use crate::verdict::DropReason;

/// A frame as the first stage sees it.
#[derive(Clone, Copy, Debug)]
pub enum Frame {
    /// ARP for IPv4 over Ethernet.
    Arp(ArpPacket),
    /// IPv4.
    Ipv4(Ipv4Facts),
    /// Anything else: the kernel's business.
    Other,
}

/// What classification needs of an IPv4 packet whose lengths and header checksum
/// are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Facts {
    /// Where it comes from.
    pub source: Ipv4Addr,
    /// Where it goes.
    pub destination: Ipv4Addr,
    /// What it carries.
    pub protocol: IpProtocol,
    /// Bytes of the header with its options.
    pub header_len: u16,
    /// Bytes of header and payload.
    pub total_len: u16,
    /// Whether it must not be fragmented.
    pub dont_fragment: bool,
    /// Whether it is a fragment, the first one included.
    pub fragment: bool,
    /// Source and destination port, if it is UDP and no fragment.
    pub udp_ports: Option<(u16, u16)>,
    /// What it carries, if it is UDP from or to the port of Mobile IP and no
    /// fragment.
    pub mobile_ip: Option<MobileIpPayload>,
    /// Type, if it is ICMP and no fragment.
    pub icmp_type: Option<u8>,
}

impl Ipv4Facts {
    /// Whether it is signalling of Mobile IP, which no tunnel carries
    /// (RFC 5944 §3.8.3, RFC 3519 §4.7). Tunnelled data on the same port is none.
    pub fn is_signalling(&self) -> bool {
        self.mobile_ip == Some(MobileIpPayload::Signalling)
    }

    /// Whether it may be a packet in a tunnel, of whatever kind.
    pub const fn may_be_tunnelled(&self) -> bool {
        match self.protocol {
            IpProtocol::IP_IN_IP | IpProtocol::MINIMAL | IpProtocol::GRE => true,
            _ => self.is_tunnel_data(),
        }
    }

    /// Whether it is tunnelled data in UDP.
    pub const fn is_tunnel_data(&self) -> bool {
        matches!(
            self.mobile_ip,
            Some(MobileIpPayload::TunnelData | MobileIpPayload::PlainTunnelData)
        )
    }

    /// The same, of a packet with this protocol and payload.
    pub(crate) fn with_payload(self, protocol: IpProtocol, payload: &[u8]) -> Self {
        let facts =
            Ipv4Facts { protocol, udp_ports: None, mobile_ip: None, icmp_type: None, ..self };
        if self.fragment {
            return facts;
        }
        match protocol {
            IpProtocol::UDP => {
                let Ok((udp, rest)) = UdpHeader::ref_from_prefix(payload) else { return facts };
                let ports = (udp.source_port(), udp.destination_port());
                let mobile_ip = (ports.0 == MOBILE_IP_PORT || ports.1 == MOBILE_IP_PORT)
                    .then(|| MobileIpPayload::of(rest));
                Ipv4Facts { udp_ports: Some(ports), mobile_ip, ..facts }
            }
            IpProtocol::ICMP => Ipv4Facts { icmp_type: payload.first().copied(), ..facts },
            _ => facts,
        }
    }
}

/// Reads the Ethernet header and what lies behind it.
///
/// # Errors
/// The reason to drop the frame.
pub fn frame(bytes: &[u8]) -> Result<(EthernetHeader, Frame), DropReason> {
    let (ethernet, rest) =
        EthernetHeader::ref_from_prefix(bytes).map_err(|_| DropReason::MalformedEthernet)?;
    let frame = match ethernet.ether_type() {
        EtherType::ARP => {
            Frame::Arp(*ArpPacket::new_checked(rest).map_err(|_| DropReason::MalformedArp)?)
        }
        EtherType::IPV4 => Frame::Ipv4(ipv4(rest)?),
        _ => Frame::Other,
    };
    Ok((*ethernet, frame))
}

/// Reads an IPv4 packet.
///
/// # Errors
/// [`DropReason::BadIpv4Checksum`] or [`DropReason::MalformedIpv4`].
pub fn ipv4(bytes: &[u8]) -> Result<Ipv4Facts, DropReason> {
    let packet = Ipv4Packet::new_checked(bytes).map_err(|error| match error {
        WireError::Checksum => DropReason::BadIpv4Checksum,
        _ => DropReason::MalformedIpv4,
    })?;
    let header = packet.header();
    let facts = Ipv4Facts {
        source: header.source(),
        destination: header.destination(),
        protocol: header.protocol(),
        // At most 60: the field has four bits.
        header_len: header.header_len() as u16,
        total_len: header.total_len(),
        dont_fragment: header.dont_fragment(),
        fragment: header.is_fragment(),
        udp_ports: None,
        mobile_ip: None,
        icmp_type: None,
    };
    Ok(facts.with_payload(header.protocol(), packet.payload()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeport_wire::{Ipv4Header, MacAddress};
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    fn ethernet(ether_type: EtherType) -> Vec<u8> {
        EthernetHeader::new(MacAddress([2; 6]), MacAddress([4; 6]), ether_type).as_bytes().to_vec()
    }

    #[test]
    fn each_malformation_has_its_reason() {
        for len in 0..EthernetHeader::LEN {
            let reason = frame(&ethernet(EtherType::IPV4)[..len]).unwrap_err();
            assert_eq!(reason, DropReason::MalformedEthernet);
        }
        assert_eq!(frame(&ethernet(EtherType::IPV4)).unwrap_err(), DropReason::MalformedIpv4);
        assert_eq!(frame(&ethernet(EtherType::ARP)).unwrap_err(), DropReason::MalformedArp);
        assert!(matches!(frame(&ethernet(EtherType(0x86dd))), Ok((_, Frame::Other))));
        let mut bytes = ethernet(EtherType::IPV4);
        let addresses = (Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(5, 6, 7, 8));
        let mut header = Ipv4Header::new(addresses.0, addresses.1, IpProtocol::TCP, 64, 20);
        header.ttl = 63;
        bytes.extend_from_slice(header.as_bytes());
        assert_eq!(frame(&bytes).unwrap_err(), DropReason::BadIpv4Checksum);
    }

    #[test]
    fn ports_of_a_fragment_are_not_believed() {
        for offset in [0, 8] {
            let addresses = (Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(5, 6, 7, 8));
            let mut header = Ipv4Header::new(addresses.0, addresses.1, IpProtocol::UDP, 64, 28);
            header.set_fragment(offset, true);
            header.fill_checksum();
            let bytes = [header.as_bytes(), &[1, 178, 1, 178, 0, 8, 0, 0]].concat();
            let facts = ipv4(&bytes).unwrap();
            assert!(facts.fragment && !facts.is_signalling());
        }
    }

    /// Our own tunnelled data to a peer's port 434 is no signalling.
    #[test]
    fn data_and_signalling_on_one_port_are_told_apart() {
        let ends = (Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(5, 6, 7, 8));
        let facts = |ports: (u16, u16), payload: &[u8]| {
            let udp = UdpHeader::unsummed(ports.0, ports.1, payload.len()).unwrap();
            let len = 28 + payload.len() as u16;
            let header = Ipv4Header::new(ends.0, ends.1, IpProtocol::UDP, 64, len);
            ipv4(&[header.as_bytes(), udp.as_bytes(), payload].concat()).unwrap()
        };
        let plain = [&[0x45][..], &[0; 19]].concat();
        for ports in [(434, 434), (434, 4711), (4711, 434)] {
            assert!(facts(ports, &[1; 28]).is_signalling());
            assert!(facts(ports, &[3; 28]).is_signalling());
            assert!(facts(ports, &[]).is_signalling());
            assert!(facts(ports, &plain[..19]).is_signalling());
            for data in [&[4, 4, 0, 0][..], &plain] {
                let facts = facts(ports, data);
                assert!(facts.is_tunnel_data() && facts.may_be_tunnelled());
                assert!(!facts.is_signalling());
            }
        }
        let elsewhere = facts((4711, 435), &[4, 4, 0, 0]);
        assert!(!elsewhere.is_tunnel_data() && !elsewhere.is_signalling());
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), is_arp: bool) {
            let ether_type = if is_arp { EtherType::ARP } else { EtherType::IPV4 };
            let _ = frame(&[ethernet(ether_type), bytes.clone()].concat());
            let _ = frame(&bytes);
        }
    }
}
