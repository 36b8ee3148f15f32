//! Punted frames, taken apart for the agents. Whoever sent them is not trusted:
//! every length and checksum is verified, and what is wrong is named and counted.

use std::net::Ipv4Addr;

use homeport_dataplane::napt::log::NatLogRecord;
use homeport_dataplane::punt::PuntHeader;
use homeport_dataplane::verdict::PuntReason;
use homeport_proto::{TenantId, TunnelledEcho};
use homeport_wire::icmpv4::Icmpv4Header;
use homeport_wire::{
    EtherType, EthernetHeader, IpProtocol, Ipv4Header, Ipv4Packet, MacAddress, MobileIpPayload,
    TunnelDataPacket, UdpPacket, WireError,
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
    /// An ICMP message between a node and its home agent, out of a UDP tunnel that
    /// is half-bound or unproven.
    Keepalive {
        /// What the tunnel carried, and between whom.
        tunnelled: Tunnelled,
        /// The ICMP message from its type on; its checksum is the agent's to check.
        icmp: &'a [u8],
    },
    /// A packet out of a UDP tunnel, from another port than the tunnel's.
    Rebound(Tunnelled),
    /// A next hop to resolve.
    ResolveNeighbor(Ipv4Addr),
    /// A block of ports that a NAPT gave or took back.
    NatLog(NatLogRecord),
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

/// The headers of a packet in a UDP tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnelled {
    /// The outer IPv4 packet.
    pub outer: Envelope,
    /// The outer UDP source port.
    pub source_port: u16,
    /// Whether no tunnel data header stands between.
    pub plain: bool,
    /// Inner source.
    pub inner_source: Ipv4Addr,
    /// Inner destination.
    pub inner_destination: Ipv4Addr,
}

impl Tunnelled {
    /// The message `icmp` out of this packet, as the agents take it.
    pub const fn echo<'a>(&self, tenant: TenantId, icmp: &'a [u8]) -> TunnelledEcho<'a> {
        TunnelledEcho {
            tenant,
            source: self.outer.source,
            source_port: self.source_port,
            destination: self.outer.destination,
            inner_source: self.inner_source,
            inner_destination: self.inner_destination,
            plain: self.plain,
            icmp,
        }
    }
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
    /// What a UDP tunnel carried does not parse.
    MalformedTunnel,
}

impl BadPunt {
    /// Every reason, in the order of the counters.
    pub const ALL: [BadPunt; 7] = [
        BadPunt::UnknownHeader,
        BadPunt::WrongProtocol,
        BadPunt::MalformedIpv4,
        BadPunt::Fragment,
        BadPunt::MalformedUdp,
        BadPunt::BadUdpChecksum,
        BadPunt::MalformedTunnel,
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
            BadPunt::MalformedTunnel => "malformed-punted-tunnel",
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
            BadPunt::MalformedTunnel => "What a punted UDP tunnel packet carries does not parse.",
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
        PuntReason::Registration | PuntReason::Renewal => registration(frame),
        PuntReason::Solicitation => solicitation(frame),
        PuntReason::ResolveNeighbor => Ok(Punted::ResolveNeighbor(header.next_hop())),
        PuntReason::TunnelIcmp => icmp_error(frame),
        PuntReason::TunnelKeepalive => keepalive(frame),
        PuntReason::TunnelRebound => {
            tunnelled(frame).map(|(tunnelled, _)| Punted::Rebound(tunnelled))
        }
        PuntReason::NatLog => NatLogRecord::read_from_bytes(frame)
            .map(Punted::NatLog)
            .map_err(|_| BadPunt::UnknownHeader),
        reason @ PuntReason::Advertisement => Ok(Punted::Other(reason)),
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

fn keepalive(frame: &[u8]) -> Result<Punted<'_>, BadPunt> {
    let (tunnelled, inner) = tunnelled(frame)?;
    if inner.header().protocol() != IpProtocol::ICMP {
        return Err(BadPunt::WrongProtocol);
    }
    if inner.header().is_fragment() {
        return Err(BadPunt::Fragment);
    }
    Ok(Punted::Keepalive { tunnelled, icmp: inner.payload() })
}

/// A packet in a UDP tunnel, with or without a tunnel data header.
fn tunnelled(frame: &[u8]) -> Result<(Tunnelled, Ipv4Packet<'_>), BadPunt> {
    let (outer, udp) = udp(frame)?;
    let (plain, inner) = match MobileIpPayload::of(udp.payload()) {
        MobileIpPayload::TunnelData => {
            let data = TunnelDataPacket::new_checked(udp.payload());
            let data = data.map_err(|_| BadPunt::MalformedTunnel)?;
            if data.header().next_header() != IpProtocol::IP_IN_IP {
                return Err(BadPunt::WrongProtocol);
            }
            (false, data.payload())
        }
        MobileIpPayload::PlainTunnelData => (true, udp.payload()),
        MobileIpPayload::Signalling => return Err(BadPunt::WrongProtocol),
    };
    let inner = Ipv4Packet::new_checked(inner).map_err(|_| BadPunt::MalformedTunnel)?;
    let tunnelled = Tunnelled {
        outer,
        source_port: udp.header().source_port(),
        plain,
        inner_source: inner.header().source(),
        inner_destination: inner.header().destination(),
    };
    Ok((tunnelled, inner))
}

fn udp(frame: &[u8]) -> Result<(Envelope, UdpPacket<'_>), BadPunt> {
    let (packet, payload) = ipv4(frame, IpProtocol::UDP)?;
    let udp =
        UdpPacket::new_checked(payload, packet.source, packet.destination).map_err(|error| {
            match error {
                WireError::Checksum => BadPunt::BadUdpChecksum,
                _ => BadPunt::MalformedUdp,
            }
        })?;
    Ok((packet, udp))
}

fn registration(frame: &[u8]) -> Result<Punted<'_>, BadPunt> {
    let (packet, udp) = udp(frame)?;
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
    use homeport_proto::{Payload, PortId, Transmit};
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

    fn request() -> Vec<u8> {
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
        let bytes = request();
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
    // Shows 5944-3.1-e, 5944-3.1-f, 5944-3.7.2.1-a, 5944-3.7.3.1-a, 5944-3.8.2.1-a, attack-14.
    #[test]
    fn each_broken_rule_has_its_counter() {
        let good = request();
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
        let mut fragment = request();
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

    const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
    const HOME_AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

    /// A frame out of a UDP tunnel; `data` is what stands between UDP and the inner
    /// packet, which carries an ICMP message of `protocol`.
    fn tunnel(data: &[u8], protocol: IpProtocol) -> Vec<u8> {
        let mut payload = data.to_vec();
        let mut inner = Ipv4Header::new(NODE, HOME_AGENT, protocol, 64, 28);
        inner.fill_checksum();
        payload.extend_from_slice(inner.as_bytes());
        payload.extend_from_slice(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
        frame(Payload::Udp { source_port: 61_001, destination_port: 434, data: payload })
    }

    /// Row B-04.
    #[test]
    fn a_keepalive_comes_apart_with_and_without_a_tunnel_data_header() {
        for (data, plain) in [(&[4, 4, 0xa5, 0xa5][..], false), (&[][..], true)] {
            let bytes = tunnel(data, IpProtocol::ICMP);
            let expected = Tunnelled {
                outer: Envelope {
                    source_mac: OWN,
                    destination_mac: STATION,
                    source: Ipv4Addr::new(10, 0, 2, 9),
                    destination: Ipv4Addr::new(10, 0, 2, 2),
                    ttl: 1,
                },
                source_port: 61_001,
                plain,
                inner_source: NODE,
                inner_destination: HOME_AGENT,
            };
            let parsed = parse(&header(PuntReason::TunnelKeepalive, &bytes), &bytes).unwrap();
            let Punted::Keepalive { tunnelled, icmp } = parsed else { panic!("{parsed:?}") };
            assert_eq!((tunnelled, icmp), (expected, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0][..]));
            let parsed = parse(&header(PuntReason::TunnelRebound, &bytes), &bytes);
            assert_eq!(parsed, Ok(Punted::Rebound(expected)));
        }
    }

    #[test]
    fn what_a_tunnel_carried_is_not_trusted_either() {
        let header_data = [4, 4, 0, 0];
        let good = tunnel(&header_data, IpProtocol::ICMP);
        let at_inner = 14 + 20 + 8 + header_data.len();
        // The UDP checksum is optional: without it, what is behind can be broken.
        let change = |at: usize, value: u8| {
            let mut frame = good.clone();
            frame[40..42].fill(0);
            frame[at] = value;
            frame
        };
        for reason in [PuntReason::TunnelKeepalive, PuntReason::TunnelRebound] {
            assert_eq!(bad(reason, &change(at_inner, 0x46)), BadPunt::MalformedTunnel);
            assert_eq!(bad(reason, &change(at_inner + 3, 200)), BadPunt::MalformedTunnel);
            assert_eq!(bad(reason, &change(at_inner - 3, 47)), BadPunt::WrongProtocol);
            assert_eq!(bad(reason, &change(at_inner - 4, 1)), BadPunt::WrongProtocol);
            assert_eq!(bad(reason, &request()), BadPunt::WrongProtocol);
            let mut torn = good.clone();
            torn[at_inner + 24] ^= 1;
            assert_eq!(bad(reason, &torn), BadPunt::BadUdpChecksum);
        }
        let reason = PuntReason::TunnelKeepalive;
        assert_eq!(bad(reason, &tunnel(&[], IpProtocol::TCP)), BadPunt::WrongProtocol);
    }

    proptest! {
        // Shows attack-12, attack-34.
        #[test]
        fn noise_never_panics(reason in 0u8..10, bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let mut frame = request();
            let mut tunnelled = tunnel(&[4, 4, 0, 0], IpProtocol::ICMP);
            for frame in [&mut frame, &mut tunnelled] {
                frame.iter_mut().zip(&bytes).for_each(|(to, from)| *to ^= *from);
            }
            for frame in [&frame, &tunnelled, &bytes] {
                let mut header = header(PuntReason::Registration, frame).as_bytes().to_vec();
                header[8] = reason;
                let _ = parse(&PuntHeader::read_from_bytes(&header).unwrap(), frame);
            }
        }
    }
}
