//! ICMP errors from inside a tunnel (RFC 2003 §4): which tunnel one is about, what
//! it says of it, and what the sender of the packet inside is to be told.
//!
//! An error quotes a packet of ours as far as the router that sent it cared to. It
//! is believed when the quoted packet is one that we would tunnel now: outer
//! addresses, encapsulation and the packet inside fit a binding or a visitor. A
//! quote that ends before the packet inside (RFC 792 asks for eight bytes) is
//! believed when a tunnel led to its destination lately; then nobody can be told,
//! but the next packet's sender will be (RFC 2003 §5).
//!
//! **Not done:** the path length of a tunnel and its far end's reachability as soft
//! state (RFC 2003 §5): each error is relayed as it comes.

use std::net::Ipv4Addr;

use homeport_wire::icmpv4::{
    DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED, Icmpv4Header, Icmpv4Packet, NET_UNREACHABLE,
    PORT_UNREACHABLE, PROTOCOL_UNREACHABLE, SOURCE_ROUTE_FAILED, TIME_EXCEEDED, TTL_EXCEEDED,
};
use homeport_wire::{
    GrePacket, IpProtocol, Ipv4Header, MOBILE_IP_PORT, MinimalPacket, MobileIpPayload, TenantId,
    TunnelDataPacket, UdpHeader, checksum,
};
use zerocopy::FromBytes;

use crate::classify::Tables;
use crate::encap;
use crate::icmp_error::IcmpError;
use crate::table::binding::Encapsulation;
use crate::table::visitor::Found;

/// The longest IPv4 header, in bytes.
const MAX_HEADER: usize = 60;

/// Codes of an unreachable network beside [`NET_UNREACHABLE`]: unknown, prohibited,
/// not for this type of service (RFC 1122 §3.2.2.1).
const NET_CODES: [u8; 3] = [6, 9, 11];

/// What links there are, from the longest MTU down (RFC 1191 §7.1).
const PLATEAUS: [u16; 11] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/// What an ICMP error at an address of ours is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement<'a> {
    /// Nothing that the dataplane sent.
    Foreign,
    /// A registration.
    Registration,
    /// A tunnel that does not exist, or in a way that cannot be true.
    Unmatched,
    /// A tunnel of ours.
    Tunnel(TunnelError<'a>),
}

/// What an error says of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelError<'a> {
    /// The tunnel's far end.
    pub remote: Ipv4Addr,
    /// The longest outer packet that gets through, if it says so.
    pub mtu: Option<u16>,
    /// Whom to tell what, if anybody.
    pub relay: Option<Relay<'a>>,
}

/// What the sender of a tunnelled packet is to be told, and that packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay<'a> {
    /// The error.
    pub error: IcmpError,
    inner: Inner<'a>,
}

impl Relay<'_> {
    /// The header of the packet that the error is about, options and all.
    pub fn head(&self) -> &[u8] {
        self.inner.head.get(..self.inner.head_len).unwrap_or_default()
    }

    /// The payload of that packet, as far as it is known.
    pub const fn payload(&self) -> &[u8] {
        self.inner.payload
    }
}

/// Whether the ICMP error in `payload` quotes a packet that `address` could have sent
/// as an agent: a tunnelled one, or a registration (RFC 5944 §3.7.2.3).
pub fn quotes_an_agent(payload: &[u8], address: Ipv4Addr) -> bool {
    let quote = payload.get(Icmpv4Header::LEN..).unwrap_or_default();
    let Ok((quoted, _)) = Ipv4Header::ref_from_prefix(quote) else { return false };
    let udp = || {
        let rest = quote.get(quoted.header_len()..).unwrap_or_default();
        UdpHeader::ref_from_prefix(rest).is_ok_and(|(udp, _)| {
            udp.source_port() == MOBILE_IP_PORT || udp.destination_port() == MOBILE_IP_PORT
        })
    };
    quoted.source() == address
        && match quoted.protocol() {
            IpProtocol::IP_IN_IP | IpProtocol::MINIMAL | IpProtocol::GRE => true,
            IpProtocol::UDP => udp(),
            _ => false,
        }
}

/// Judges the ICMP error in `payload` that came to an agent's address of `tenant` and
/// [`quotes_an_agent`]. `is_live` says whether a tunnel led to an address lately.
pub fn judge<'a>(
    payload: &'a [u8],
    tenant: TenantId,
    tables: &Tables,
    is_live: impl Fn(Ipv4Addr) -> bool,
) -> Judgement<'a> {
    let Ok(icmp) = Icmpv4Packet::new_checked(payload) else { return Judgement::Unmatched };
    let Some(quoted) = Quoted::read(icmp.header(), icmp.body()) else {
        return Judgement::Unmatched;
    };
    let outer = quoted.outer;
    let header = icmp.header();
    let is_too_big =
        (header.message_type, header.code) == (DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED);
    // A registration is too short for that.
    if quoted.is_signalling && !(is_too_big && quoted.is_cut) {
        return match quoted.ports {
            Some((_, MOBILE_IP_PORT)) => Judgement::Registration,
            _ => Judgement::Foreign,
        };
    }
    let mtu = is_too_big.then(|| next_hop_mtu(header, outer));
    // What was too long for a link was longer than what the link takes (RFC 1191
    // §3), and was not to be fragmented.
    if mtu.is_some_and(|mtu| mtu >= outer.total_len() || !outer.dont_fragment()) {
        return Judgement::Unmatched;
    }
    let remote = outer.destination();
    let relay = match &quoted.inner {
        Some(inner) => match tunnel_of(&quoted, inner, tenant, tables) {
            Some(reach) => relay(header, &quoted, inner, mtu, reach),
            None => return Judgement::Unmatched,
        },
        None if is_live(remote) => None,
        None => return Judgement::Unmatched,
    };
    Judgement::Tunnel(TunnelError { remote, mtu, relay })
}

/// A packet that an error quotes.
struct Quoted<'a> {
    outer: &'a Ipv4Header,
    /// How it is encapsulated, if the quote is long enough to tell.
    encapsulation: Option<Encapsulation>,
    /// The packet inside, if its header is there.
    inner: Option<Inner<'a>>,
    ports: Option<(u16, u16)>,
    /// UDP that is no tunnelled data, as far as can be seen.
    is_signalling: bool,
    /// Whether the quote ends before that can be seen.
    is_cut: bool,
}

/// A packet in a tunnel, as far as it is quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner<'a> {
    header: Ipv4Header,
    /// The header with its options.
    head: [u8; MAX_HEADER],
    head_len: usize,
    payload: &'a [u8],
}

impl<'a> Quoted<'a> {
    /// `None` when not even a header is quoted.
    fn read(icmp: &Icmpv4Header, quote: &'a [u8]) -> Option<Self> {
        // What a router adds behind the quote is announced by the quote's length in
        // words (RFC 4884 §4); zero: everything is quote.
        let [_, words, ..] = icmp.rest;
        let quote = match usize::from(words) * 4 {
            0 => quote,
            len => quote.get(..len).unwrap_or(quote),
        };
        let (outer, _) = Ipv4Header::ref_from_prefix(quote).ok()?;
        let quote = quote.get(..usize::from(outer.total_len())).unwrap_or(quote);
        let (head, rest) = quote.split_at_checked(outer.header_len())?;
        let mut quoted = Quoted {
            outer,
            encapsulation: None,
            inner: None,
            ports: None,
            is_signalling: false,
            is_cut: false,
        };
        if outer.fragment_offset() == 0 {
            quoted.open(head, rest);
        }
        Some(quoted)
    }

    /// Reads what follows the outer header, as far as it is there.
    fn open(&mut self, head: &[u8], rest: &'a [u8]) {
        let (encapsulation, inner) = match self.outer.protocol() {
            IpProtocol::IP_IN_IP => (Some(Encapsulation::IpInIp), Inner::read(rest)),
            IpProtocol::GRE => match GrePacket::new_checked(rest) {
                Ok(gre) => {
                    (Some(Encapsulation::Gre { key: gre.key() }), Inner::read(gre.payload()))
                }
                Err(_) => (None, None),
            },
            IpProtocol::MINIMAL => {
                let minimal = MinimalPacket::new_checked(rest).ok();
                let inner = minimal.and_then(|minimal| Inner::restore(head, rest, &minimal));
                (Some(Encapsulation::Minimal), inner)
            }
            IpProtocol::UDP => self.open_udp(rest),
            _ => (None, None),
        };
        (self.encapsulation, self.inner) = (encapsulation, inner);
    }

    fn open_udp(&mut self, rest: &'a [u8]) -> (Option<Encapsulation>, Option<Inner<'a>>) {
        let Ok((udp, data)) = UdpHeader::ref_from_prefix(rest) else { return (None, None) };
        let peer_port = udp.destination_port();
        self.ports = Some((udp.source_port(), peer_port));
        match MobileIpPayload::of(data) {
            MobileIpPayload::TunnelData => {
                let packet = TunnelDataPacket::new_checked(data).ok();
                let inner = packet.and_then(|packet| Inner::read(packet.payload()));
                (Some(Encapsulation::Udp { peer_port }), inner)
            }
            MobileIpPayload::PlainTunnelData => {
                (Some(Encapsulation::PlainUdp { peer_port }), Inner::read(data))
            }
            MobileIpPayload::Signalling => {
                self.is_signalling = true;
                self.is_cut = data.len() < Ipv4Header::LEN;
                (None, None)
            }
        }
    }

    /// Bytes that the tunnel put in front of the packet inside.
    fn overhead(&self, inner: &Inner<'_>) -> u16 {
        self.outer.total_len().saturating_sub(inner.header.total_len())
    }
}

impl<'a> Inner<'a> {
    /// `None` when the whole header is not there, or is none.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (header, _) = Ipv4Header::ref_from_prefix(bytes).ok()?;
        let (head, payload) = bytes.split_at_checked(header.header_len())?;
        Self::new(head, payload).filter(|_| checksum::checksum(head) == 0)
    }

    /// The packet in minimal encapsulation: the outer header, with what the minimal
    /// header kept put back (RFC 2004 §3).
    fn restore(head: &[u8], rest: &[u8], minimal: &MinimalPacket<'a>) -> Option<Self> {
        let mut inner = Self::new(head, minimal.payload())?;
        let shim_len = rest.len().checked_sub(minimal.payload().len())?;
        let header = &mut inner.header;
        // A minimal header is at most twelve bytes long.
        header.set_total_len(header.total_len().checked_sub(shim_len as u16)?);
        header.set_protocol(minimal.header().protocol());
        header.set_destination(minimal.header().destination());
        header.set_source(minimal.source().unwrap_or(header.source()));
        header.set_checksum(0);
        let header = *header;
        let (fixed, _) = Ipv4Header::mut_from_prefix(&mut inner.head).ok()?;
        *fixed = header;
        let sum = checksum::checksum(inner.head.get(..inner.head_len)?);
        let (fixed, _) = Ipv4Header::mut_from_prefix(&mut inner.head).ok()?;
        fixed.set_checksum(sum);
        inner.header.set_checksum(sum);
        Some(inner)
    }

    fn new(bytes: &[u8], payload: &'a [u8]) -> Option<Self> {
        let (header, _) = Ipv4Header::read_from_prefix(bytes).ok()?;
        let mut head = [0; MAX_HEADER];
        head.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let is_ipv4 = header.version() == 4 && header.header_len() == bytes.len();
        is_ipv4.then_some(Inner { header, head, head_len: bytes.len(), payload })
    }
}

/// Where a tunnel leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// To the home network: the packet was for an address of it.
    Home,
    /// Beyond.
    Beyond,
}

/// The tunnel that we would send `inner` through as `quoted` shows it.
fn tunnel_of(
    quoted: &Quoted<'_>,
    inner: &Inner<'_>,
    tenant: TenantId,
    tables: &Tables,
) -> Option<Reach> {
    let outer = quoted.outer;
    let is_so = |encapsulation| {
        quoted.encapsulation == Some(encap::carrier(encapsulation, inner.header.is_fragment()))
    };
    let bound = tables.bound(tenant, inner.header.destination());
    if let Some(bound) = bound.filter(|bound| bound.entry.home_agent == outer.source())
        && bound
            .entry
            .tunnels()
            .iter()
            .any(|end| end.care_of_address() == outer.destination() && is_so(end.encapsulation()))
    {
        let is_home = bound.home_address == inner.header.destination();
        return Some(if is_home { Reach::Home } else { Reach::Beyond });
    }
    let (source, home_agent) = (inner.header.source(), outer.destination());
    match tables.visitors.of_home_agent(tenant, source, home_agent) {
        Found::Visitor(visitor) => {
            let is_its = visitor.care_of_address == outer.source() && is_so(visitor.encapsulation);
            is_its.then_some(Reach::Beyond)
        }
        Found::Other(_) | Found::Nobody => None,
    }
}

/// What the sender of `inner` is told (RFC 2003 §4.1, §4.4); `None`: nothing.
fn relay<'a>(
    icmp: &Icmpv4Header,
    quoted: &Quoted<'a>,
    inner: &Inner<'a>,
    mtu: Option<u16>,
    reach: Reach,
) -> Option<Relay<'a>> {
    let mut overhead = quoted.overhead(inner);
    let mut inner = inner.clone();
    // What we had put into a tunnel to the node itself before.
    if inner.header.protocol() == IpProtocol::IP_IN_IP
        && inner.header.source() == quoted.outer.source()
    {
        inner = Inner::read(inner.payload)?;
        overhead = quoted.overhead(&inner);
    }
    let unreachable = match reach {
        // A node's home network is the encapsulator's, or appears to be.
        Reach::Home => IcmpError::HostUnreachable,
        Reach::Beyond => IcmpError::NetUnreachable,
    };
    let is_udp = quoted.outer.protocol() == IpProtocol::UDP;
    let error = match (icmp.message_type, icmp.code) {
        (DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED) => {
            // Who did not set DF cannot shorten anything: his next packet is cut.
            let mtu = mtu.filter(|_| inner.header.dont_fragment())?;
            IcmpError::FragmentationNeeded { mtu: mtu.checked_sub(overhead)? }
        }
        (DESTINATION_UNREACHABLE, NET_UNREACHABLE | PROTOCOL_UNREACHABLE) => unreachable,
        // To the sender it is the same whether the far end knows no tunnels or no
        // longer this one. Without a port in the outer header it cannot be.
        (DESTINATION_UNREACHABLE, PORT_UNREACHABLE) if is_udp => unreachable,
        (DESTINATION_UNREACHABLE, PORT_UNREACHABLE | SOURCE_ROUTE_FAILED) => return None,
        (DESTINATION_UNREACHABLE, code) if NET_CODES.contains(&code) => unreachable,
        (DESTINATION_UNREACHABLE, _) => IcmpError::HostUnreachable,
        // A loop within the tunnel.
        (TIME_EXCEEDED, TTL_EXCEEDED) => IcmpError::HostUnreachable,
        _ => return None,
    };
    Some(Relay { error, inner })
}

/// The MTU that a router tells, or the next likely one when it does not know that it
/// should tell (RFC 1191 §5).
fn next_hop_mtu(icmp: &Icmpv4Header, outer: &Ipv4Header) -> u16 {
    let [_, _, high, low] = icmp.rest;
    match u16::from_be_bytes([high, low]) {
        0 => PLATEAUS.into_iter().find(|mtu| *mtu < outer.total_len()).unwrap_or(0),
        mtu => mtu,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
    const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
    const CARE_OF: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

    /// A header with these options, its checksum right.
    fn header(
        ends: (Ipv4Addr, Ipv4Addr),
        protocol: IpProtocol,
        options: &[u8],
        payload: usize,
    ) -> Vec<u8> {
        let len = 20 + options.len();
        let mut header = Ipv4Header::unsummed(ends.0, ends.1, protocol, 60, (len + payload) as u16);
        header.set_identification(77);
        header.set_dont_fragment(true);
        header.set_header_len(len);
        header.set_checksum(checksum::checksum(&[header.as_bytes(), options].concat()));
        [header.as_bytes(), options].concat()
    }

    fn read(icmp: [u8; 4], quote: &[u8]) -> Option<Quoted<'_>> {
        Quoted::read(&Icmpv4Header::new(DESTINATION_UNREACHABLE, 4, icmp, quote), quote)
    }

    /// RFC 2004 §3: the packet that went into minimal encapsulation, options and all.
    #[test]
    fn a_packet_in_minimal_encapsulation_is_restored_to_the_byte() {
        for options in [&[][..], &[0x94, 4, 0, 0]] {
            let inner = [header((FAR, NODE), IpProtocol::UDP, options, 40), vec![7; 40]].concat();
            let shim = homeport_wire::SourcedMinimalHeader::new(IpProtocol::UDP, FAR, NODE);
            let outer = header((AGENT, CARE_OF), IpProtocol::MINIMAL, options, 52);
            let quote = [&outer[..], shim.as_bytes(), &[7; 40]].concat();
            let quoted = read([0; 4], &quote).unwrap();
            assert_eq!(quoted.encapsulation, Some(Encapsulation::Minimal));
            let restored = quoted.inner.as_ref().unwrap();
            assert_eq!(restored.head[..restored.head_len], inner[..20 + options.len()]);
            assert_eq!((restored.payload, quoted.overhead(restored)), (&[7; 40][..], 12));
        }
    }

    /// RFC 4884 §4, and padding: what is no quote is not relayed.
    #[test]
    fn what_a_router_adds_behind_the_quote_is_left_out() {
        let inner = [header((FAR, NODE), IpProtocol::UDP, &[], 200), vec![7; 200]].concat();
        let outer = header((AGENT, CARE_OF), IpProtocol::IP_IN_IP, &[], 220);
        let whole = [outer, inner].concat();
        let padded = [&whole[..], &[0; 9]].concat();
        let payload = |words: u8, quote: &[u8]| {
            read([0, words, 5, 0], quote).unwrap().inner.unwrap().payload.len()
        };
        assert_eq!(payload(0, &padded), 200);
        let extended = [&whole[..128], &[0xee; 20]].concat();
        assert_eq!(payload(32, &extended), 128 - 40);
        assert_eq!(payload(255, &whole), 200);
    }

    /// RFC 1191 §5, §7.1.
    #[test]
    fn the_next_plateau_is_below_the_packet() {
        let mtu = |told: u16, len: usize| {
            let [high, low] = told.to_be_bytes();
            let bytes = header((AGENT, CARE_OF), IpProtocol::IP_IN_IP, &[], len - 20);
            let outer = Ipv4Header::ref_from_prefix(&bytes).unwrap().0;
            next_hop_mtu(&Icmpv4Header::new(3, 4, [0, 0, high, low], &[]), outer)
        };
        assert_eq!([mtu(1280, 1500), mtu(0, 1500), mtu(0, 1492)], [1280, 1492, 1006]);
        assert_eq!([mtu(0, 1006), mtu(0, 68), mtu(0, 60)], [508, 0, 0]);
    }

    proptest! {
        #[test]
        fn noise_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..120), icmp: [u8; 4],
            protocol in proptest::sample::select(vec![4u8, 17, 47, 55]),
            ports in proptest::sample::select(vec![434u16, 4711]),
        ) {
            let _ = read(icmp, &bytes);
            let _ = quotes_an_agent(&bytes, AGENT);
            // Behind an outer header that is right.
            let mut bytes = bytes;
            if let Some(port) = bytes.get_mut(2..4) {
                port.copy_from_slice(&ports.to_be_bytes());
            }
            let outer = header((AGENT, CARE_OF), IpProtocol(protocol), &[], bytes.len());
            let quote = [outer, bytes].concat();
            let quoted = read([0; 4], &quote).unwrap();
            if let Some(inner) = &quoted.inner {
                let _ = relay(
                    &Icmpv4Header::new(3, 4, [0; 4], &[]), &quoted, inner, Some(1280), Reach::Home,
                );
            }
        }
    }
}
