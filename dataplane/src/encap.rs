//! Putting a packet into a tunnel.
//!
//! One body for every encapsulation, specialised by the header that it puts beside
//! the outer IPv4 header:
//!
//! | Encapsulation | In front of the packet | Bytes |
//! |---|---|---|
//! | IP in IP (RFC 2003) | IPv4 | 20 |
//! | GRE (RFC 2784, 2890) | IPv4, GRE, key if there is one | 24, 28 |
//! | UDP (RFC 3519) | IPv4, UDP, tunnel data header | 32 |
//! | plain UDP | IPv4, UDP | 28 |
//! | minimal (RFC 2004) | nothing; behind the packet's own header, which is changed | 8, 12 |
//!
//! A packet that is too long is cut before it enters: the caller's business, and
//! what RFC 3519 §4.8 asks for.

use std::net::Ipv4Addr;

use homeport_wire::{
    EtherType, GreHeader, IpProtocol, Ipv4Header, KeyedGreHeader, MOBILE_IP_PORT, MinimalHeader,
    SourcedMinimalHeader, TunnelDataHeader, UdpHeader, checksum,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

use crate::packet::Packet;
use crate::table::binding::Encapsulation;
use crate::verdict::DropReason;
use crate::{decap, parse};

/// TTL of an outer header: the tunnel's own, so that the inner TTL says nothing
/// about the tunnel's length (RFC 2003 §3.1).
pub const OUTER_TTL: u8 = 64;

/// How deep tunnels may lie in tunnels before a packet is refused. A loop of
/// home agents, each encapsulating what the other sent, ends here.
pub const MAX_NESTING: u8 = 4;

/// A tunnel to put a packet into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Our end: the outer source.
    pub source: Ipv4Addr,
    /// The other end: the outer destination.
    pub destination: Ipv4Addr,
    /// How it encapsulates.
    pub encapsulation: Encapsulation,
    /// Whether the outer header has DF even when the packet has not. Minimal
    /// encapsulation has no outer header of its own, and leaves DF as it is.
    pub set_dont_fragment: bool,
}

/// How a packet goes through a tunnel: a fragment has no room to be one in a
/// minimal forwarding header (RFC 2004 §3), so it goes as IP in IP.
pub const fn carrier(encapsulation: Encapsulation, is_fragment: bool) -> Encapsulation {
    match encapsulation {
        Encapsulation::Minimal if is_fragment => Encapsulation::IpInIp,
        other => other,
    }
}

/// Bytes that an encapsulation adds to a packet. Minimal encapsulation adds four
/// less to what the tunnel's own end sends.
pub const fn overhead(encapsulation: Encapsulation) -> usize {
    match encapsulation {
        Encapsulation::IpInIp => overhead_of::<()>(),
        Encapsulation::Minimal => overhead_of::<SourcedMinimalHeader>(),
        Encapsulation::Gre { key: None } => overhead_of::<GreHeader>(),
        Encapsulation::Gre { key: Some(_) } => overhead_of::<KeyedGreHeader>(),
        Encapsulation::Udp { .. } => overhead_of::<UdpTunnelHeader>(),
        Encapsulation::PlainUdp { .. } => overhead_of::<UdpHeader>(),
    }
}

/// The most that an encapsulation adds to a packet.
pub const MAX_OVERHEAD: usize = overhead_of::<UdpTunnelHeader>();

/// Puts the IPv4 packet in `packet` into `tunnel`. The TTL of the packet is the
/// caller's business: it is decremented only when it is forwarded (RFC 2003 §3.1,
/// RFC 2004 §3).
///
/// `identification` counts the outer headers of one worker; it moves on only when
/// the outer packet may be fragmented (RFC 6864 §4).
///
/// # Errors
/// [`DropReason::MalformedInner`] when `packet` holds no IPv4 header,
/// [`DropReason::HalfBoundTunnel`] when the other end's UDP port is not known,
/// [`DropReason::NoHeadroom`] when there is no room for what is added; then the
/// packet is as it was.
pub fn encapsulate(
    packet: &mut Packet,
    tunnel: &Tunnel,
    identification: &mut u16,
) -> Result<(), DropReason> {
    let (inner, _) =
        Ipv4Header::read_from_prefix(packet.bytes()).map_err(|_| DropReason::MalformedInner)?;
    let inner_len = usize::from(inner.total_len());
    let udp = |peer_port: u16, payload_len: usize| {
        if peer_port == 0 {
            return Err(DropReason::HalfBoundTunnel);
        }
        // No checksum, as other tunnels over IPv4 do it (RFC 3948 §2.1, RFC 7348
        // §5): the packet inside has its own, the outer header has IPv4's, and a
        // second pass over every payload would buy nothing.
        UdpHeader::unsummed(MOBILE_IP_PORT, peer_port, payload_len).ok_or(DropReason::NoHeadroom)
    };
    let mut way = Way { packet, tunnel, inner: &inner, identification };
    match carrier(tunnel.encapsulation, inner.is_fragment()) {
        Encapsulation::IpInIp => way.enter(()),
        Encapsulation::Gre { key: None } => way.enter(GreHeader::new(EtherType::IPV4)),
        Encapsulation::Gre { key: Some(key) } => {
            way.enter(KeyedGreHeader::new(EtherType::IPV4, key))
        }
        Encapsulation::Udp { peer_port } => {
            let udp = udp(peer_port, TunnelDataHeader::LEN + inner_len)?;
            way.enter(UdpTunnelHeader { udp, data: TunnelDataHeader::new(IpProtocol::IP_IN_IP) })
        }
        Encapsulation::PlainUdp { peer_port } => way.enter(udp(peer_port, inner_len)?),
        // S: the original source is there unless it is the outer one (RFC 2004 §3).
        Encapsulation::Minimal if inner.source() == tunnel.source => {
            way.enter(MinimalHeader::new(inner.protocol(), inner.destination()))
        }
        Encapsulation::Minimal => way.enter(SourcedMinimalHeader::new(
            inner.protocol(),
            inner.source(),
            inner.destination(),
        )),
    }
}

/// How many tunnels the packet in `bytes` is in, counted up to one more than
/// [`MAX_NESTING`].
pub fn nesting(bytes: &[u8]) -> u8 {
    let Ok(mut facts) = parse::ipv4(bytes) else { return 0 };
    let mut payload = bytes.get(usize::from(facts.header_len)..).unwrap_or_default();
    let mut depth = 0;
    while depth <= MAX_NESTING && !facts.fragment {
        let Ok((opened, inside)) = decap::open(&facts, payload) else { break };
        (facts, payload) = (opened.inner, inside);
        depth += 1;
    }
    depth
}

/// What one encapsulation puts beside the outer IPv4 header.
trait Shim: IntoBytes + Immutable + Unaligned {
    /// What the outer header says that it carries.
    const PROTOCOL: IpProtocol;
    /// Whether the packet's own header becomes the outer one, with the shim behind
    /// it.
    const BEHIND_OWN_HEADER: bool = false;
}

impl Shim for () {
    const PROTOCOL: IpProtocol = IpProtocol::IP_IN_IP;
}

impl Shim for GreHeader {
    const PROTOCOL: IpProtocol = IpProtocol::GRE;
}

impl Shim for KeyedGreHeader {
    const PROTOCOL: IpProtocol = IpProtocol::GRE;
}

impl Shim for UdpHeader {
    const PROTOCOL: IpProtocol = IpProtocol::UDP;
}

/// What RFC 3519 puts between the two IPv4 headers.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct UdpTunnelHeader {
    udp: UdpHeader,
    data: TunnelDataHeader,
}

impl Shim for UdpTunnelHeader {
    const PROTOCOL: IpProtocol = IpProtocol::UDP;
}

impl Shim for MinimalHeader {
    const PROTOCOL: IpProtocol = IpProtocol::MINIMAL;
    const BEHIND_OWN_HEADER: bool = true;
}

impl Shim for SourcedMinimalHeader {
    const PROTOCOL: IpProtocol = IpProtocol::MINIMAL;
    const BEHIND_OWN_HEADER: bool = true;
}

const fn overhead_of<S: Shim>() -> usize {
    size_of::<S>() + if S::BEHIND_OWN_HEADER { 0 } else { Ipv4Header::LEN }
}

/// A packet on its way into a tunnel.
struct Way<'a> {
    packet: &'a mut Packet,
    tunnel: &'a Tunnel,
    inner: &'a Ipv4Header,
    identification: &'a mut u16,
}

impl Way<'_> {
    /// The body of every encapsulation.
    fn enter<S: Shim>(&mut self, shim: S) -> Result<(), DropReason> {
        let Way { packet, tunnel, inner, identification } = self;
        let total_len = usize::from(inner.total_len()) + overhead_of::<S>();
        let total_len = u16::try_from(total_len).map_err(|_| DropReason::NoHeadroom)?;
        // Options are the packet's own: they stay with its header.
        let header_len = if S::BEHIND_OWN_HEADER { inner.header_len() } else { Ipv4Header::LEN };
        if packet.len() < inner.header_len() {
            return Err(DropReason::MalformedInner);
        }
        if !packet.prepend(shim.as_bytes()) {
            return Err(DropReason::NoHeadroom);
        }
        if S::BEHIND_OWN_HEADER {
            let head = packet.bytes_mut().get_mut(..size_of::<S>() + header_len);
            head.ok_or(DropReason::MalformedInner)?.rotate_left(size_of::<S>());
        } else if !packet.prepend(&[0; Ipv4Header::LEN]) {
            let restored = packet.strip(size_of::<S>());
            debug_assert!(restored, "what was put in front is there");
            return Err(DropReason::NoHeadroom);
        }
        let mut outer = if S::BEHIND_OWN_HEADER {
            let mut outer = **inner;
            outer.set_protocol(S::PROTOCOL);
            outer.set_source(tunnel.source);
            outer.set_destination(tunnel.destination);
            outer.set_total_len(total_len);
            outer
        } else {
            tunnel.outer_header(inner, S::PROTOCOL, total_len, identification)
        };
        outer.set_checksum(0);
        let head = packet.bytes_mut().get_mut(..header_len).ok_or(DropReason::MalformedInner)?;
        let (header, options) =
            Ipv4Header::mut_from_prefix(head).map_err(|_| DropReason::MalformedInner)?;
        let sum = checksum::Sum::new().add_bytes(outer.as_bytes()).add_bytes(options);
        outer.set_checksum(sum.checksum());
        *header = outer;
        Ok(())
    }
}

impl Tunnel {
    /// The outer header of RFC 2003 §3.1, which the other encapsulations share; its
    /// checksum is left.
    fn outer_header(
        &self,
        inner: &Ipv4Header,
        protocol: IpProtocol,
        total_len: u16,
        identification: &mut u16,
    ) -> Ipv4Header {
        let (source, destination) = (self.source, self.destination);
        let mut outer = Ipv4Header::unsummed(source, destination, protocol, OUTER_TTL, total_len);
        // DSCP and ECN are copied (RFC 2003 §3.1, RFC 6040 §4.1 normal mode).
        outer.tos = inner.tos;
        // Must be set when the inner one is, and may be otherwise (RFC 2003 §3.1).
        if inner.dont_fragment() || self.set_dont_fragment {
            outer.set_dont_fragment(true);
        } else {
            *identification = identification.wrapping_add(1);
            outer.set_identification(*identification);
        }
        outer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{HEADROOM, PacketPool};
    use proptest::prelude::*;

    use homeport_wire::{Ipv4Packet, MinimalPacket, TunnelDataPacket};

    const INNER_SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const HOME: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
    const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
    const CARE_OF: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

    const EVERY: [Encapsulation; 6] = [
        Encapsulation::IpInIp,
        Encapsulation::Minimal,
        Encapsulation::Gre { key: None },
        Encapsulation::Gre { key: Some(0xdead_beef) },
        Encapsulation::Udp { peer_port: 4711 },
        Encapsulation::PlainUdp { peer_port: 4711 },
    ];

    const fn tunnel(encapsulation: Encapsulation) -> Tunnel {
        Tunnel { source: AGENT, destination: CARE_OF, encapsulation, set_dont_fragment: false }
    }

    fn inner(tos: u8, dont_fragment: bool, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(Ipv4Header::LEN + payload.len()).unwrap();
        let mut header = Ipv4Header::unsummed(INNER_SOURCE, HOME, IpProtocol::TCP, 17, len);
        header.tos = tos;
        header.set_dont_fragment(dont_fragment);
        header.fill_checksum();
        [header.as_bytes(), payload].concat()
    }

    fn packet(pool: &mut PacketPool, bytes: &[u8]) -> Packet {
        let mut packet = pool.take().unwrap();
        assert!(packet.set_bytes(bytes));
        packet
    }

    /// B-04: what lies between the outer header and the packet, byte by byte.
    fn shim(encapsulation: Encapsulation, inner_len: usize) -> (u8, Vec<u8>) {
        let udp =
            |len: usize| [&[1, 178, 0x12, 0x67][..], &(len as u16).to_be_bytes(), &[0, 0]].concat();
        match encapsulation {
            Encapsulation::IpInIp => (4, vec![]),
            Encapsulation::Gre { key: None } => (47, vec![0, 0, 8, 0]),
            Encapsulation::Gre { key: Some(_) } => {
                (47, vec![0x20, 0, 8, 0, 0xde, 0xad, 0xbe, 0xef])
            }
            Encapsulation::Udp { .. } => (17, [udp(inner_len + 12), vec![4, 4, 0, 0]].concat()),
            Encapsulation::PlainUdp { .. } => (17, udp(inner_len + 8)),
            Encapsulation::Minimal => panic!("it has no outer header"),
        }
    }

    proptest! {
        // Shows 2003-3.1-a, 2784-2.3-b, 2784-2.3.1-a, 2784-3-a, 3519-3.3-a.
        #[test]
        fn the_outer_header_is_rfc_2003s_and_the_inner_packet_untouched(
            tos: u8, dont_fragment: bool, set_dont_fragment: bool,
            payload in proptest::collection::vec(any::<u8>(), 0..1400),
        ) {
            for encapsulation in EVERY.into_iter().filter(|e| *e != Encapsulation::Minimal) {
                let mut pool = PacketPool::new(1);
                let bytes = inner(tos, dont_fragment, &payload);
                let mut packet = packet(&mut pool, &bytes);
                let mut identification = 41;
                let tunnel = Tunnel { set_dont_fragment, ..tunnel(encapsulation) };
                encapsulate(&mut packet, &tunnel, &mut identification).unwrap();
                let outer = Ipv4Packet::new_checked(packet.bytes()).unwrap();
                let (protocol, shim) = shim(encapsulation, bytes.len());
                prop_assert_eq!(outer.payload(), [shim, bytes.clone()].concat());
                prop_assert_eq!(packet.len(), bytes.len() + overhead(encapsulation));
                prop_assert!(overhead(encapsulation) <= MAX_OVERHEAD);
                let header = outer.header();
                prop_assert_eq!((header.source(), header.destination()), (AGENT, CARE_OF));
                prop_assert_eq!(header.protocol(), IpProtocol(protocol));
                prop_assert_eq!(header.ttl, OUTER_TTL);
                prop_assert_eq!(header.tos, tos);
                let atomic = dont_fragment || set_dont_fragment;
                prop_assert_eq!(header.dont_fragment(), atomic);
                prop_assert_eq!(header.identification(), if atomic { 0 } else { 42 });
                prop_assert_eq!(nesting(packet.bytes()), 1);
            }
        }

        /// RFC 2004 §3: the packet's own header goes in front, with its TTL, its type
        /// of service and its options; S is set unless the tunnel's entrance sent it.
        #[test]
        fn minimal_encapsulation_changes_protocol_addresses_and_length_alone(
            tos: u8, own: bool, options in 0u8..11,
            payload in proptest::collection::vec(any::<u8>(), 0..1400),
        ) {
            let source = if own { AGENT } else { INNER_SOURCE };
            let len = 20 + u16::from(options) * 4 + payload.len() as u16;
            let mut header = Ipv4Header::unsummed(source, HOME, IpProtocol::TCP, 17, len);
            header.tos = tos;
            header.set_identification(99);
            let mut bytes = header.as_bytes().to_vec();
            bytes[0] += options;
            bytes.resize(20 + usize::from(options) * 4, 1);
            let sum = checksum::checksum(&bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            bytes.extend_from_slice(&payload);
            let mut pool = PacketPool::new(1);
            let mut packet = packet(&mut pool, &bytes);
            encapsulate(&mut packet, &tunnel(Encapsulation::Minimal), &mut 0).unwrap();
            let outer = Ipv4Packet::new_checked(packet.bytes()).unwrap();
            let mut expected = bytes[..20].to_vec();
            expected[2..4].copy_from_slice(&(len + if own { 8 } else { 12 }).to_be_bytes());
            expected[9] = 55;
            expected[12..16].copy_from_slice(&AGENT.octets());
            expected[16..20].copy_from_slice(&CARE_OF.octets());
            expected[10..12].copy_from_slice(&packet.bytes()[10..12]);
            prop_assert_eq!(&packet.bytes()[..20], &expected[..]);
            prop_assert_eq!(&packet.bytes()[20..outer.header().header_len()], &bytes[20..20 + usize::from(options) * 4]);
            let minimal = MinimalPacket::new_checked(outer.payload()).unwrap();
            prop_assert_eq!(minimal.header().protocol(), IpProtocol::TCP);
            prop_assert_eq!(minimal.header().destination(), HOME);
            prop_assert_eq!(minimal.source(), (!own).then_some(INNER_SOURCE));
            prop_assert_eq!(minimal.payload(), &payload[..]);
            prop_assert_eq!(nesting(packet.bytes()), 1);
        }

        // Shows attack-34.
        #[test]
        fn noise_is_counted_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for encapsulation in EVERY {
                let mut pool = PacketPool::new(1);
                let mut packet = packet(&mut pool, &bytes);
                let _ = encapsulate(&mut packet, &tunnel(encapsulation), &mut 0);
                prop_assert!(nesting(&bytes) <= MAX_NESTING + 1);
            }
        }
    }

    /// RFC 2004 §3.
    // Shows 2004-3-a.
    #[test]
    fn a_fragment_goes_as_ip_in_ip_where_minimal_encapsulation_was_agreed_on() {
        for (offset, more) in [(0, true), (8, true), (8, false)] {
            let mut header = Ipv4Header::unsummed(INNER_SOURCE, HOME, IpProtocol::UDP, 9, 28);
            header.set_fragment(offset, more);
            header.fill_checksum();
            let bytes = [header.as_bytes(), &[7; 8]].concat();
            let mut pool = PacketPool::new(1);
            let mut packet = packet(&mut pool, &bytes);
            encapsulate(&mut packet, &tunnel(Encapsulation::Minimal), &mut 0).unwrap();
            let outer = Ipv4Packet::new_checked(packet.bytes()).unwrap();
            assert_eq!(outer.header().protocol(), IpProtocol::IP_IN_IP);
            assert_eq!(outer.payload(), bytes);
        }
    }

    // Shows 3519-4.6-g.
    #[test]
    fn a_udp_tunnel_whose_port_is_unknown_takes_nothing() {
        for encapsulation in
            [Encapsulation::Udp { peer_port: 0 }, Encapsulation::PlainUdp { peer_port: 0 }]
        {
            let mut pool = PacketPool::new(1);
            let mut packet = packet(&mut pool, &inner(0, true, b"data"));
            let result = encapsulate(&mut packet, &tunnel(encapsulation), &mut 0);
            assert_eq!(result, Err(DropReason::HalfBoundTunnel));
        }
    }

    /// RFC 3519 §3.3: the header says what it carries, and nothing in the reserved bits.
    #[test]
    fn the_tunnel_data_header_reads_back() {
        let mut pool = PacketPool::new(1);
        let mut packet = packet(&mut pool, &inner(0, true, b"data"));
        encapsulate(&mut packet, &tunnel(EVERY[4]), &mut 0).unwrap();
        let data = TunnelDataPacket::new_checked(&packet.bytes()[28..]).unwrap();
        assert_eq!(data.header().next_header(), IpProtocol::IP_IN_IP);
        assert_eq!(data.header().reserved(), 0);
    }

    #[test]
    fn tunnels_in_tunnels_are_counted_up_to_one_past_the_limit() {
        for encapsulation in EVERY {
            let mut pool = PacketPool::new(1);
            let mut packet = packet(&mut pool, &inner(0, true, b"data"));
            for depth in 0..10u8 {
                assert_eq!(nesting(packet.bytes()), depth.min(MAX_NESTING + 1));
                if encapsulate(&mut packet, &tunnel(encapsulation), &mut 0).is_err() {
                    break;
                }
            }
        }
        // Of every kind, in one another.
        let mut pool = PacketPool::new(1);
        let mut packet = packet(&mut pool, &inner(0, true, b"data"));
        for (depth, encapsulation) in (1..=5).zip(EVERY) {
            encapsulate(&mut packet, &tunnel(encapsulation), &mut 0).unwrap();
            assert_eq!(nesting(packet.bytes()), depth);
        }
    }

    #[test]
    fn without_headroom_the_packet_stays_as_it_was() {
        for encapsulation in EVERY {
            let mut pool = PacketPool::new(1);
            let bytes = inner(0, true, b"data");
            let mut packet = packet(&mut pool, &[]);
            packet.fill(|_| 0);
            // All headroom but what is added, less one byte, is used up.
            assert!(packet.prepend(&bytes));
            while packet.prepend(&[0]) {}
            assert!(packet.strip(overhead(encapsulation) - 1));
            packet.truncate(bytes.len());
            let short = packet.len();
            packet.bytes_mut().copy_from_slice(&bytes[..short]);
            let result = encapsulate(&mut packet, &tunnel(encapsulation), &mut 0);
            assert_eq!(result, Err(DropReason::NoHeadroom));
            assert_eq!(packet.bytes(), &bytes[..short]);
        }
        // A received frame has its link header's room besides.
        const { assert!(HEADROOM >= MAX_OVERHEAD * MAX_NESTING as usize) };
    }
}
