//! Tunnel headers on and off, every encapsulation in turn: B-04, B-05, S3-32,
//! S3-42.

use super::*;
use homeport_wire::{UdpPacket, checksum};
use proptest::prelude::*;

const HOME: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);

fn is_home(address: Ipv4Addr) -> bool {
    address == HOME
}

const CORRESPONDENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const CARE_OF: Ipv4Addr = Ipv4Addr::new(10, 2, 3, 100);
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
/// Our UDP port.
const PORT: u16 = 40_000;

const KINDS: [Encapsulation; 6] = [
    Encapsulation::IpInIp,
    Encapsulation::Minimal,
    Encapsulation::Gre { key: None },
    Encapsulation::Gre { key: Some(0x0102_0304) },
    Encapsulation::Udp { peer_port: 434 },
    Encapsulation::PlainUdp { peer_port: 434 },
];

fn ends(encapsulation: Encapsulation) -> TunnelEnds {
    TunnelEnds { local: CARE_OF, remote: AGENT, encapsulation }
}

/// The same tunnel as the home agent sees it: the ports change places.
fn back(encapsulation: Encapsulation) -> TunnelEnds {
    let encapsulation = match encapsulation {
        Encapsulation::Udp { .. } => Encapsulation::Udp { peer_port: PORT },
        Encapsulation::PlainUdp { .. } => Encapsulation::PlainUdp { peer_port: PORT },
        other => other,
    };
    TunnelEnds { local: AGENT, remote: CARE_OF, encapsulation }
}

fn packet(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    change: impl FnOnce(&mut Ipv4Header),
) -> Vec<u8> {
    let mut header = Ipv4Header::unsummed(source, destination, IpProtocol::UDP, 9, 32);
    header.set_identification(77);
    header.set_dont_fragment(true);
    change(&mut header);
    header.fill_checksum();
    [header.as_bytes(), &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]].concat()
}

/// Who sends is who is inside, for a foreign agent that takes encapsulated packets: also
/// for a session's address.
#[test]
fn each_session_has_a_tunnel_of_its_own_to_a_foreign_agent() {
    const SESSION: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 102);
    let to_agent = TunnelEnds { local: HOME, remote: AGENT, encapsulation: Encapsulation::IpInIp };
    for source in [HOME, SESSION] {
        let ends = to_agent.of_sender(Some(HOME), source);
        assert_eq!(ends, TunnelEnds { local: source, ..to_agent });
        let outer = into_tunnel(&packet(source, CORRESPONDENT, |_| {}), ends, PORT).unwrap();
        let (outer, _) = Ipv4Header::ref_from_prefix(&outer).unwrap();
        assert_eq!((outer.source(), outer.destination()), (source, AGENT));
    }
    // A tunnel to the home agent ends at the care-of address, whoever sends.
    for home in [None, Some(HOME)] {
        let to_home = ends(Encapsulation::IpInIp);
        assert_eq!(to_home.of_sender(home, SESSION), to_home);
    }
}

fn into_tunnel(inner: &[u8], ends: TunnelEnds, port: u16) -> Option<Vec<u8>> {
    let mut buffer = [&[0xa5; ROOM], inner].concat();
    encapsulate(&mut buffer, ends, port, 7).map(<[u8]>::to_vec)
}

/// `inner` as the home agent sends it, by the same code.
fn from_agent(inner: &[u8], kind: Encapsulation) -> Vec<u8> {
    into_tunnel(inner, back(kind), 434).unwrap()
}

/// What comes out of an outer packet, as the sockets would hand it over: the
/// kernel takes the headers up to UDP off.
fn out_of_tunnel(outer: &mut [u8], ends: Option<TunnelEnds>) -> Result<Vec<u8>, Refused> {
    let (header, _) = Ipv4Header::read_from_prefix(outer).map_err(|_| Refused::Malformed)?;
    if header.protocol() != IpProtocol::UDP {
        return decapsulate(outer, is_home, ends).map(|inner| inner.to_vec());
    }
    let (udp, data) = outer[20..].split_at_mut(8);
    let (udp, _) = UdpHeader::read_from_prefix(udp).unwrap();
    let from = SocketAddrV4::new(header.source(), udp.source_port());
    decapsulate_datagram(data, from, header.destination(), header.tos, is_home, ends)
        .map(|inner| inner.to_vec())
}

/// Changes a byte of the outer IPv4 header, and puts its checksum right.
fn with_outer(outer: &[u8], change: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
    let mut outer = outer.to_vec();
    let (header, _) = Ipv4Header::mut_from_prefix(&mut outer).unwrap();
    change(header);
    header.fill_checksum();
    outer
}

/// B-04: the layouts of RFC 2003, 2004, 2784, 2890 and 3519, and that of S3-32.
// Shows 3519-4.1-a.
#[test]
fn each_encapsulation_has_the_headers_of_its_rfc() {
    let inner = packet(HOME, CORRESPONDENT, |header| header.tos = 0xb9);
    let shims: [(u8, &[u8]); 6] = [
        (4, &[]),
        (55, &[17, 0x80, 0x29, 0x3b, 192, 0, 2, 2, 10, 1, 0, 10]),
        (47, &[0, 0, 8, 0]),
        (47, &[0x20, 0, 8, 0, 1, 2, 3, 4]),
        (17, &[4, 4, 0, 0]),
        (17, &[]),
    ];
    for (kind, (protocol, shim)) in KINDS.into_iter().zip(shims) {
        let outer = into_tunnel(&inner, ends(kind), PORT).unwrap();
        let view = Ipv4Packet::new_checked(&outer).unwrap();
        let header = view.header();
        assert_eq!((header.source(), header.destination()), (CARE_OF, AGENT));
        assert_eq!((header.protocol().0, header.tos), (protocol, 0xb9));
        assert!(header.dont_fragment(), "DF is copied");
        assert_eq!(outer.len(), inner.len() + usize::from(overhead(kind)), "{kind:?}");
        let minimal = kind == Encapsulation::Minimal;
        let expected = if minimal { (9, 77) } else { (64, 7) };
        assert_eq!((header.ttl, header.identification()), expected);
        let behind = if protocol == 17 {
            let udp = UdpPacket::new_checked(view.payload(), CARE_OF, AGENT).unwrap();
            assert_eq!((udp.header().source_port(), udp.header().destination_port()), (PORT, 434));
            assert_ne!(udp.header().checksum(), 0);
            udp.payload()
        } else {
            view.payload()
        };
        let (head, rest) = behind.split_at(shim.len());
        if minimal {
            assert_eq!((&head[..2], &head[4..]), (&shim[..2], &shim[4..]));
            assert_eq!(checksum::checksum(head), 0);
        } else {
            assert_eq!(head, shim, "{kind:?}");
        }
        assert_eq!(rest, if minimal { &inner[20..] } else { &inner[..] });
    }
}

/// RFC 2004 §3.1, §3.2: a fragment, or a packet with options, goes as IP in IP.
// Shows 2004-3-a.
#[test]
fn what_minimal_encapsulation_cannot_carry_goes_as_ip_in_ip_and_is_taken_so() {
    let fragment = packet(HOME, CORRESPONDENT, |header| {
        header.set_dont_fragment(false);
        header.set_fragment(16, false);
    });
    let mut options = packet(HOME, CORRESPONDENT, |_| ());
    options[0] = 0x46;
    options[20..24].fill(1);
    let (header, _) = Ipv4Header::mut_from_prefix(&mut options).unwrap();
    header.set_checksum(0);
    let sum = checksum::checksum(&options[..24]);
    Ipv4Header::mut_from_prefix(&mut options).unwrap().0.set_checksum(sum);
    for inner in [fragment, options] {
        let outer = into_tunnel(&inner, ends(Encapsulation::Minimal), PORT).unwrap();
        assert_eq!(outer[9], 4);
        let len = inner.len() + usize::from(fragment_overhead(Encapsulation::Minimal));
        assert_eq!(outer.len(), len);
    }
    let fragment = packet(CORRESPONDENT, HOME, |header| header.set_fragment(0, true));
    let mut outer = from_agent(&fragment, Encapsulation::Minimal);
    let out = out_of_tunnel(&mut outer, Some(ends(Encapsulation::Minimal)));
    assert_eq!(out, Ok(fragment));
}

/// B-04: source checks on every decapsulation, the matrix of row 23: which tunnel,
/// which packet.
// Shows 5944-4.1-b, 2003-6.2-a, attack-23.
#[test]
fn only_the_tunnels_own_encapsulation_between_its_ends_comes_out() {
    let inner = packet(CORRESPONDENT, HOME, |_| ());
    for sent in KINDS {
        let outer = from_agent(&inner, sent);
        assert_eq!(out_of_tunnel(&mut outer.clone(), None), Err(Refused::Ends));
        for tunnel in KINDS {
            let out = out_of_tunnel(&mut outer.clone(), Some(ends(tunnel)));
            let fits =
                sent == tunnel || (sent, tunnel) == (Encapsulation::IpInIp, Encapsulation::Minimal);
            match out {
                Ok(out) => assert!(fits && out == inner, "{sent:?} {tunnel:?}"),
                Err(Refused::Encapsulation | Refused::Inner) => assert!(!fits),
                Err(other) => panic!("{sent:?} {tunnel:?}: {other:?}"),
            }
        }
        let tunnel = Some(ends(sent));
        for wrong in [
            TunnelEnds { local: CORRESPONDENT, ..back(sent) },
            TunnelEnds { remote: HOME, ..back(sent) },
        ] {
            let mut forged = into_tunnel(&inner, wrong, 434).unwrap();
            assert_eq!(out_of_tunnel(&mut forged, tunnel), Err(Refused::Ends), "{sent:?}");
        }
        let stray = packet(CORRESPONDENT, CARE_OF, |_| ());
        let mut stray = from_agent(&stray, sent);
        assert_eq!(out_of_tunnel(&mut stray, tunnel), Err(Refused::Inner));
    }
}

/// RFC 3519 §3.3, §4.3; row 24.
// Shows 3519-3.3-a, 3519-3.3-c, 3519-4.1-a, 3519-4.3-a, attack-24.
#[test]
fn a_udp_tunnel_wants_the_right_port_and_next_header_and_no_more() {
    let inner = packet(CORRESPONDENT, HOME, |_| ());
    let kind = Encapsulation::Udp { peer_port: 434 };
    let out = |outer: &mut [u8]| out_of_tunnel(outer, Some(ends(kind)));
    for kind in [kind, Encapsulation::PlainUdp { peer_port: 434 }] {
        let mut other_port = into_tunnel(&inner, back(kind), 435).unwrap();
        assert_eq!(out_of_tunnel(&mut other_port, Some(ends(kind))), Err(Refused::Ends));
    }
    let right = from_agent(&inner, kind);
    for (at, value, expected) in [
        (28, 5, Err(Refused::Encapsulation)),
        (29, 47, Err(Refused::Encapsulation)),
        (29, 55, Err(Refused::Encapsulation)),
        // Reserved bits are ignored.
        (30, 0xff, Ok(inner.clone())),
        (31, 0xff, Ok(inner.clone())),
    ] {
        let mut changed = right.clone();
        changed[at] = value;
        assert_eq!(out(&mut changed), expected, "byte {at}");
    }
}

/// RFC 2784 §2.3, RFC 2890 §2.1, RFC 2004 §3.1.
// Shows 2784-2.3-a, 2784-2.3.1-a, 2784-2.4-a.
#[test]
fn reserved_bits_keys_and_checksums_of_gre_and_minimal_are_looked_at() {
    let inner = packet(CORRESPONDENT, HOME, |_| ());
    let keyed = Encapsulation::Gre { key: Some(7) };
    let mut other_key = from_agent(&inner, Encapsulation::Gre { key: Some(8) });
    assert_eq!(out_of_tunnel(&mut other_key, Some(ends(keyed))), Err(Refused::Encapsulation));
    for (kind, at, value) in [
        // Routing present, version 1.
        (keyed, 20, 0x60),
        (keyed, 21, 0x01),
        // A bit under the small header's checksum.
        (Encapsulation::Minimal, 21, 0x81),
    ] {
        let mut outer = from_agent(&inner, kind);
        outer[at] = value;
        assert_eq!(
            out_of_tunnel(&mut outer, Some(ends(kind))),
            Err(Refused::Malformed),
            "{kind:?}"
        );
    }
    let mut arp = from_agent(&inner, keyed);
    arp[22..24].copy_from_slice(&[8, 6]);
    assert_eq!(out_of_tunnel(&mut arp, Some(ends(keyed))), Err(Refused::Encapsulation));
    // From the tunnel's entrance itself there is no source in the small header.
    let kind = Encapsulation::Minimal;
    let own = packet(AGENT, HOME, |_| ());
    let small = homeport_wire::minimal::MinimalHeader::new(IpProtocol::UDP, HOME);
    let len = 20 + 8 + 12;
    let mut header = Ipv4Header::unsummed(AGENT, CARE_OF, IpProtocol::MINIMAL, 9, len);
    header.set_identification(77);
    header.set_dont_fragment(true);
    header.fill_checksum();
    let mut outer = [header.as_bytes(), small.as_bytes(), &own[20..]].concat();
    assert_eq!(out_of_tunnel(&mut outer, Some(ends(kind))), Ok(own));
}

/// RFC 6040 §4.2.
#[test]
fn congestion_on_the_way_is_marked_inside_or_the_packet_is_dropped() {
    for kind in KINDS {
        let congested = |ecn: u8| {
            let inner = packet(CORRESPONDENT, HOME, |header| header.tos = ecn);
            let mut outer = with_outer(&from_agent(&inner, kind), |header| header.tos |= 0b11);
            out_of_tunnel(&mut outer, Some(ends(kind)))
        };
        let marked = congested(0b10).unwrap();
        let header = *Ipv4Packet::new_checked(&marked).expect("a right checksum").header();
        assert_eq!(header.tos, 0b11);
        if kind == Encapsulation::Minimal {
            // Its one header says both.
            assert_eq!(congested(0).map(|inner| inner[1]), Ok(0b11));
        } else {
            assert_eq!(congested(0), Err(Refused::Congestion), "{kind:?}");
        }
    }
}

/// B-05: an ICMP error's quote leads back to the application's packet.
#[test]
fn a_quote_leads_back_to_the_packet_that_was_sent() {
    let inner = packet(HOME, CORRESPONDENT, |_| ());
    for kind in KINDS {
        let outer = into_tunnel(&inner, ends(kind), PORT).unwrap();
        let is_udp = peer_port(kind).is_some();
        let quote = if is_udp { &outer[28..] } else { &outer[..] };
        assert_eq!(quoted_inner(quote, is_home, ends(kind)).as_ref(), Some(&inner), "{kind:?}");
        // A router quotes what it likes, but from the front.
        for len in 0..quote.len() {
            if let Some(start) = quoted_inner(&quote[..len], is_home, ends(kind)) {
                assert!(start.len() >= 20 && inner.starts_with(&start), "{kind:?} {len}");
            }
        }
        let other = packet(CORRESPONDENT, HOME, |_| ());
        let other = into_tunnel(&other, ends(kind), PORT).unwrap();
        let quote = if is_udp { &other[28..] } else { &other[..] };
        assert_eq!(quoted_inner(quote, is_home, ends(kind)), None, "not ours");
    }
    let outer = into_tunnel(&inner, ends(Encapsulation::IpInIp), PORT).unwrap();
    assert_eq!(quoted_inner(&outer, is_home, back(Encapsulation::IpInIp)), None);
}

#[test]
fn what_is_no_packet_does_not_go_in() {
    for kind in KINDS {
        assert_eq!(into_tunnel(&[0x60; 40], ends(kind), PORT), None);
        assert_eq!(into_tunnel(&[], ends(kind), PORT), None);
    }
}

proptest! {
    #[test]
    fn noise_in_a_tunnelled_packet_never_panics_and_nothing_strange_comes_out(
        sent in 0usize..6, tunnel in 0usize..6, at in 0usize..60, cut in 0usize..80,
        noise in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut outer = from_agent(&packet(CORRESPONDENT, HOME, |_| ()), KINDS[sent]);
        for (to, from) in outer.iter_mut().skip(at).zip(&noise) {
            *to = *from;
        }
        outer.truncate(cut);
        let quoted = quoted_inner(&outer, is_home, ends(KINDS[tunnel]));
        if let Some(quoted) = quoted {
            prop_assert!(quoted.len() >= 20);
        }
        let mut datagram = outer.clone();
        let from = SocketAddrV4::new(AGENT, 434);
        let tunnel = Some(ends(KINDS[tunnel]));
        let results = [
            decapsulate(&mut outer, is_home, tunnel).map(|inner| inner.to_vec()),
            decapsulate_datagram(&mut datagram, from, CARE_OF, 0, is_home, tunnel)
                .map(|inner| inner.to_vec()),
        ];
        for inner in results.into_iter().flatten() {
            let inner = Ipv4Packet::new_checked(&inner).unwrap();
            prop_assert_eq!(inner.header().destination(), HOME);
        }
    }
}
