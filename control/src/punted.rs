//! Punted frames, taken apart for the agents. Whoever sent them is not trusted:
//! every length and checksum is verified, and what is wrong is named and counted.

use std::net::Ipv4Addr;

use homeport_dataplane::punt::PuntHeader;
use homeport_dataplane::verdict::PuntReason;
use homeport_wire::icmpv4::Icmpv4Header;
use homeport_wire::{
    EtherType, EthernetHeader, IpProtocol, Ipv4Header, Ipv4Packet, MacAddress, UdpPacket, WireError,
};
use zerocopy::FromBytes;

/// What a punted frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Punted<'a> {
    /// A UDP datagram for an agent.
    Registration {
        /// The IPv4 packet around it.
        packet: Envelope,
        /// The sender's port.
        source_port: u16,
        /// The port that it is for.
        destination_port: u16,
        /// The datagram's data.
        payload: &'a [u8],
    },
    /// A router or agent solicitation.
    Solicitation {
        /// The IPv4 packet around it.
        packet: Envelope,
        /// The ICMP message from its type on; its checksum is the agent's to check.
        icmp: &'a [u8],
    },
    /// An ICMP error about a registration that an agent sent.
    Unreachable {
        /// The IPv4 packet around it.
        packet: Envelope,
        /// The ICMP message from its type on; its checksum is the agent's to check.
        icmp: &'a [u8],
    },
    /// A next hop to resolve.
    ResolveNeighbor(Ipv4Addr),
    /// Something that nothing here is interested in yet.
    Other(PuntReason),
}

/// Who sent a punted packet to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The station that sent it.
    pub source_mac: MacAddress,
    /// The station or group that it was sent to.
    pub destination_mac: MacAddress,
    /// IPv4 source.
    pub source: Ipv4Addr,
    /// IPv4 destination.
    pub destination: Ipv4Addr,
    /// Time to live.
    pub ttl: u8,
}

/// Why a punted frame goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BadPunt {
    /// The header is not one of the dataplane's.
    UnknownHeader,
    /// The frame is not what its reason says: another protocol.
    WrongProtocol,
    /// The IPv4 packet does not parse.
    MalformedIpv4,
    /// A fragment: registrations and solicitations fit one packet.
    Fragment,
    /// The UDP header does not parse.
    MalformedUdp,
    /// The UDP checksum is wrong (RFC 5944 §3.8.2.1: discarded in silence).
    BadUdpChecksum,
}

impl BadPunt {
    /// Every reason, in the order of the counters.
    pub const ALL: [BadPunt; 6] = [
        BadPunt::UnknownHeader,
        BadPunt::WrongProtocol,
        BadPunt::MalformedIpv4,
        BadPunt::Fragment,
        BadPunt::MalformedUdp,
        BadPunt::BadUdpChecksum,
    ];

    /// The name of the counter, in kebab-case.
    pub const fn counter(self) -> &'static str {
        match self {
            BadPunt::UnknownHeader => "unknown-punt-header",
            BadPunt::WrongProtocol => "wrong-punt-protocol",
            BadPunt::MalformedIpv4 => "malformed-punted-ipv4",
            BadPunt::Fragment => "punted-fragment",
            BadPunt::MalformedUdp => "malformed-udp",
            BadPunt::BadUdpChecksum => "bad-udp-checksum",
        }
    }

    /// The sentence for people.
    pub const fn text(self) -> &'static str {
        match self {
            BadPunt::UnknownHeader => {
                "A message of the dataplane that the control core does not know."
            }
            BadPunt::WrongProtocol => "A punted frame is not what the dataplane took it for.",
            BadPunt::MalformedIpv4 => "The IPv4 packet of a punted frame does not parse.",
            BadPunt::Fragment => "A registration or solicitation came in fragments.",
            BadPunt::MalformedUdp => "The UDP header of a registration does not parse.",
            BadPunt::BadUdpChecksum => "The UDP checksum of a registration is wrong.",
        }
    }
}

/// Takes a message of the punt ring apart: `header` and the frame behind it.
///
/// # Errors
/// [`BadPunt`].
pub fn parse<'a>(header: &PuntHeader, frame: &'a [u8]) -> Result<Punted<'a>, BadPunt> {
    let frame = frame.get(..header.frame_len()).ok_or(BadPunt::UnknownHeader)?;
    match header.reason().ok_or(BadPunt::UnknownHeader)? {
        PuntReason::Registration => registration(frame),
        PuntReason::Solicitation => solicitation(frame),
        PuntReason::ResolveNeighbor => Ok(Punted::ResolveNeighbor(header.next_hop())),
        PuntReason::TunnelIcmp => icmp_error(frame),
        reason @ (PuntReason::Advertisement
        | PuntReason::TunnelKeepalive
        | PuntReason::TunnelRebound
        | PuntReason::NatLog) => Ok(Punted::Other(reason)),
    }
}

fn icmp_error(frame: &[u8]) -> Result<Punted<'_>, BadPunt> {
    let (packet, icmp) = ipv4(frame, IpProtocol::ICMP)?;
    let quoted = icmp.get(Icmpv4Header::LEN..).unwrap_or_default();
    let is_registration = Ipv4Header::ref_from_prefix(quoted)
        .is_ok_and(|(quoted, _)| quoted.protocol() == IpProtocol::UDP);
    if is_registration {
        Ok(Punted::Unreachable { packet, icmp })
    } else {
        Ok(Punted::Other(PuntReason::TunnelIcmp))
    }
}

fn registration(frame: &[u8]) -> Result<Punted<'_>, BadPunt> {
    let (packet, payload) = ipv4(frame, IpProtocol::UDP)?;
    let udp =
        UdpPacket::new_checked(payload, packet.source, packet.destination).map_err(|error| {
            match error {
                WireError::Checksum => BadPunt::BadUdpChecksum,
                _ => BadPunt::MalformedUdp,
            }
        })?;
    Ok(Punted::Registration {
        packet,
        source_port: udp.header().source_port(),
        destination_port: udp.header().destination_port(),
        payload: udp.payload(),
    })
}

fn solicitation(frame: &[u8]) -> Result<Punted<'_>, BadPunt> {
    let (packet, icmp) = ipv4(frame, IpProtocol::ICMP)?;
    Ok(Punted::Solicitation { packet, icmp })
}

fn ipv4(frame: &[u8], protocol: IpProtocol) -> Result<(Envelope, &[u8]), BadPunt> {
    let (ethernet, rest) =
        EthernetHeader::ref_from_prefix(frame).map_err(|_| BadPunt::WrongProtocol)?;
    if ethernet.ether_type() != EtherType::IPV4 {
        return Err(BadPunt::WrongProtocol);
    }
    let packet = Ipv4Packet::new_checked(rest).map_err(|_| BadPunt::MalformedIpv4)?;
    if packet.header().is_fragment() {
        return Err(BadPunt::Fragment);
    }
    if packet.header().protocol() != protocol {
        return Err(BadPunt::WrongProtocol);
    }
    let envelope = Envelope {
        source_mac: ethernet.source,
        destination_mac: ethernet.destination,
        source: packet.header().source(),
        destination: packet.header().destination(),
        ttl: packet.header().ttl,
    };
    Ok((envelope, packet.payload()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject;
    use homeport_proto::{Payload, PortId, TenantId, Transmit};
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    const STATION: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    fn frame(payload: Payload) -> Vec<u8> {
        let packet = Transmit {
            tenant: TenantId(1),
            link: Some((PortId(2), STATION)),
            source: Ipv4Addr::new(10, 0, 2, 9),
            destination: Ipv4Addr::new(10, 0, 2, 2),
            ttl: 1,
            payload,
        };
        inject::transmit(&packet, |_| Some(OWN)).unwrap().bytes
    }

    fn udp() -> Vec<u8> {
        frame(Payload::Udp { source_port: 1025, destination_port: 434, data: b"request".to_vec() })
    }

    fn header(reason: PuntReason, frame: &[u8]) -> PuntHeader {
        PuntHeader::new(TenantId(1), PortId(2), reason, u16::try_from(frame.len()).unwrap())
    }

    fn bad(reason: PuntReason, frame: &[u8]) -> BadPunt {
        parse(&header(reason, frame), frame).unwrap_err()
    }

    #[test]
    fn a_registration_comes_apart() {
        let bytes = udp();
        let punted = parse(&header(PuntReason::Registration, &bytes), &bytes).unwrap();
        let packet = Envelope {
            source_mac: OWN,
            destination_mac: STATION,
            source: Ipv4Addr::new(10, 0, 2, 9),
            destination: Ipv4Addr::new(10, 0, 2, 2),
            ttl: 1,
        };
        let payload = &b"request"[..];
        let expected =
            Punted::Registration { packet, source_port: 1025, destination_port: 434, payload };
        assert_eq!(punted, expected);
    }

    /// Reliability, case 14: a wrong UDP checksum is dropped in silence, none at
    /// all is accepted.
    #[test]
    fn each_broken_rule_has_its_counter() {
        let good = udp();
        let reason = PuntReason::Registration;
        let change = |at: usize, value: u8| {
            let mut frame = good.clone();
            frame[at] = value;
            frame
        };
        let last = good.len() - 1;
        assert_eq!(bad(reason, &change(last, good[last] ^ 1)), BadPunt::BadUdpChecksum);
        assert_eq!(bad(reason, &change(38, 0xff)), BadPunt::MalformedUdp);
        assert_eq!(bad(reason, &change(14, 0x46)), BadPunt::MalformedIpv4);
        assert_eq!(bad(reason, &change(13, 0x06)), BadPunt::WrongProtocol);
        assert_eq!(bad(reason, &[]), BadPunt::WrongProtocol);
        let icmp = frame(Payload::Icmp(vec![10, 0, 0xf5, 0xff, 0, 0, 0, 0]));
        assert_eq!(bad(reason, &icmp), BadPunt::WrongProtocol);
        let mut unsummed = good.clone();
        unsummed[40..42].fill(0);
        assert!(parse(&header(reason, &unsummed), &unsummed).is_ok());

        let whole = header(reason, &good);
        assert_eq!(parse(&whole, &good[..last]).unwrap_err(), BadPunt::UnknownHeader);
        let mut unknown = whole.as_bytes().to_vec();
        unknown[8] = 99;
        let unknown = PuntHeader::read_from_bytes(&unknown).unwrap();
        assert_eq!(parse(&unknown, &good).unwrap_err(), BadPunt::UnknownHeader);
    }

    #[test]
    fn a_fragment_is_no_registration() {
        let mut fragment = udp();
        let (ip, _) = homeport_wire::Ipv4Header::mut_from_prefix(&mut fragment[14..]).unwrap();
        ip.set_fragment(0, true);
        ip.fill_checksum();
        assert_eq!(bad(PuntReason::Registration, &fragment), BadPunt::Fragment);
    }

    #[test]
    fn a_solicitation_and_a_next_hop_come_apart() {
        let message = vec![10, 0, 0xf5, 0xff, 0, 0, 0, 0];
        let bytes = frame(Payload::Icmp(message.clone()));
        let punted = parse(&header(PuntReason::Solicitation, &bytes), &bytes);
        let Ok(Punted::Solicitation { icmp, .. }) = punted else { panic!() };
        assert_eq!(icmp, message);
        let next_hop = Ipv4Addr::new(10, 0, 1, 1);
        let header = PuntHeader::new(TenantId(0), PortId(1), PuntReason::ResolveNeighbor, 0)
            .with_next_hop(next_hop);
        assert_eq!(parse(&header, &[]).unwrap(), Punted::ResolveNeighbor(next_hop));
    }

    #[test]
    fn an_icmp_error_is_for_the_agents_when_it_is_about_a_registration() {
        let quoting = |protocol| {
            let (ours, theirs) = (Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(10, 0, 1, 2));
            let mut icmp = vec![3, 1, 0, 0, 0, 0, 0, 0];
            icmp.extend_from_slice(Ipv4Header::new(ours, theirs, protocol, 64, 60).as_bytes());
            frame(Payload::Icmp(icmp))
        };
        let reason = PuntReason::TunnelIcmp;
        let bytes = quoting(IpProtocol::UDP);
        let punted = parse(&header(reason, &bytes), &bytes).unwrap();
        let Punted::Unreachable { packet, icmp } = punted else { panic!() };
        assert_eq!((packet.source_mac, &icmp[..2]), (OWN, &[3, 1][..]));
        let bytes = quoting(IpProtocol::IP_IN_IP);
        assert_eq!(parse(&header(reason, &bytes), &bytes), Ok(Punted::Other(reason)));
        let short = frame(Payload::Icmp(vec![3, 1, 0, 0]));
        assert_eq!(parse(&header(reason, &short), &short), Ok(Punted::Other(reason)));
    }

    proptest! {
        #[test]
        fn noise_never_panics(reason in 0u8..6, bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let mut frame = udp();
            for (to, from) in frame.iter_mut().zip(&bytes) {
                *to ^= *from;
            }
            for frame in [&frame, &bytes] {
                let mut header = header(PuntReason::Registration, frame).as_bytes().to_vec();
                header[8] = reason;
                let _ = parse(&PuntHeader::read_from_bytes(&header).unwrap(), frame);
            }
        }
    }
}
