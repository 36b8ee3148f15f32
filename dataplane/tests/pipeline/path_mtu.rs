//! The MTU of tunnels (B-05): who is told what, what is remembered, whom we believe.

use std::time::Duration;

use homeport_dataplane::table::binding::{
    BindingEntry, Encapsulation, EntryFlags, TunnelEnd, TunnelFlags,
};
use homeport_dataplane::table::route::RouteEntry;
use homeport_dataplane::table::visitor::{ReverseTunnel, VisitorEntry};
use homeport_dataplane::verdict::DropReason;
use homeport_wire::icmpv4::{Icmpv4Header, Icmpv4Packet};
use homeport_wire::{IpProtocol, Ipv4Header, checksum};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::harness::*;
use crate::walk::{MOBILE, ROUTER, foreign_agent, home_agent};

const NODE: &str = "10.1.0.10";
const CARE_OF: &str = "10.0.2.2";
const AGENT: &str = "10.0.1.2";
const FAR: &str = "192.0.2.7";
/// A router inside the tunnel.
const INSIDE: &str = "10.0.9.9";

fn from_core(packet: &Ip) -> Vec<u8> {
    packet.frame(port_mac(0), station(ROUTER))
}

/// Bytes that an encapsulation costs.
const fn overhead(how: Encapsulation) -> u16 {
    match how {
        Encapsulation::IpInIp => 20,
        Encapsulation::Minimal => 12,
        Encapsulation::Gre { key: None } => 24,
        Encapsulation::Gre { key: Some(_) } | Encapsulation::PlainUdp { .. } => 28,
        Encapsulation::Udp { .. } => 32,
    }
}

/// A home agent whose node is reached so.
fn home_agent_with(how: Encapsulation, flags: EntryFlags) -> Rig {
    let mut rig = home_agent();
    let end = TunnelEnd::new(ip(CARE_OF), how, TunnelFlags::REVERSE);
    rig.bind(NODE, BindingEntry::new(ip(AGENT), [end], None, flags).unwrap());
    rig
}

/// A foreign agent whose visitor sends everything back so.
fn foreign_agent_with(how: Encapsulation, flags: EntryFlags) -> Rig {
    let mut rig = foreign_agent(ReverseTunnel::Direct);
    let entry = visitor(station(MOBILE), 1, AGENT, CARE_OF, ReverseTunnel::Direct);
    rig.visit(NODE, VisitorEntry { encapsulation: how, flags, ..entry });
    rig
}

/// A packet that is `len` bytes long.
fn of_len(packet: Ip, len: u16) -> Ip {
    let payload = (0..len - 20).map(|at| at as u8).collect();
    packet.payload(payload)
}

/// An ICMP error from inside the tunnel, to our end of it.
fn error(kind: u8, code: u8, mtu: u16, to: &str, quote: &[u8]) -> Ip {
    let [high, low] = mtu.to_be_bytes();
    let header = Icmpv4Header::new(kind, code, [0, 0, high, low], quote);
    let payload = [header.as_bytes(), quote].concat();
    Ip { protocol: IpProtocol::ICMP, payload, ..Ip::data(INSIDE, to) }
}

/// Type, code and MTU of an error, and what it quotes.
fn read_error(packet: &Ip) -> (u8, u8, u16, Vec<u8>) {
    assert_eq!(packet.protocol, IpProtocol::ICMP);
    let icmp = Icmpv4Packet::new_checked(&packet.payload).unwrap();
    let header = icmp.header();
    let [_, _, high, low] = header.rest;
    let mtu = u16::from_be_bytes([high, low]);
    (header.message_type, header.code, mtu, icmp.body().to_vec())
}

/// That exactly one error left, to the far sender, with this MTU, about `culprit`.
fn assert_told(sent: Vec<(usize, Vec<u8>)>, mtu: u16, culprit: &Ip) {
    let told = only(sent, 0, station(ROUTER));
    assert_eq!(told.ends().1, FAR);
    let (kind, code, told_mtu, quote) = read_error(&told);
    assert_eq!((kind, code, told_mtu), (3, 4, mtu));
    let quoted = Ip::read_quote(&quote, culprit);
    assert_eq!((quoted.ends(), quoted.ttl), (culprit.ends(), culprit.ttl));
}

/// B-05, RFC 1191 §4: what is too long for the tunnel comes back with the number that
/// fits, and that number fits.
// Shows 2003-5.1-b.
#[test]
fn too_long_with_df_is_answered_with_what_the_tunnel_has_room_for() {
    for how in EVERY {
        let mut rig = home_agent_with(how, EntryFlags::default());
        let room = 1500 - overhead(how);
        let culprit = of_len(Ip::data(FAR, NODE), room + 1);
        assert_told(rig.exchange(0, &from_core(&culprit)), room, &culprit.clone().ttl(63));
        assert_eq!(rig.dropped(DropReason::TooBig), 1);
        let fits = of_len(Ip::data(FAR, NODE), room);
        let outer = only(rig.exchange(0, &from_core(&fits)), 0, station(ROUTER));
        assert_eq!(outer.bytes().len(), 1500, "{how:?}");
    }
}

/// B-05: out of a reverse tunnel and too long for the next link: the node is told,
/// through its tunnel; a visitor is told on its link.
#[test]
fn the_true_sender_is_told_also_through_a_tunnel_and_on_the_visited_link() {
    for how in EVERY {
        let mut plan = Plan::ports(2);
        plan.mtus[1] = 1280;
        let mut rig = plan.build();
        rig.home_agent(AGENT);
        rig.route("0.0.0.0/0", 0, Some("10.0.1.1"));
        rig.route("10.1.0.0/24", 1, None);
        rig.neighbor(0, "10.0.1.1", station(ROUTER));
        let tunnel = (CARE_OF, how, TunnelFlags::REVERSE);
        rig.bind(NODE, binding_of(AGENT, None, &[tunnel]));
        rig.control.ports[0].set_address(Some(ip("10.0.1.9")));
        let culprit = of_len(Ip::data(NODE, "10.1.0.50"), 1400);
        let sent = rig.exchange(0, &from_core(&culprit.arriving(how, CARE_OF, AGENT)));
        let outer = only(sent, 0, station(ROUTER));
        assert_eq!(outer.ends().1, CARE_OF);
        let told = Ip::icmp("10.0.1.9", NODE, 3, b"");
        let shim = overhead(how) - if how == Encapsulation::Minimal { 0 } else { 20 };
        let inner = if how == Encapsulation::Minimal {
            Ip { protocol: IpProtocol::ICMP, payload: outer.payload[12..].to_vec(), ..told }
        } else {
            Ip::read(&outer.payload[usize::from(shim)..])
        };
        let (kind, code, mtu, quote) = read_error(&inner);
        assert_eq!((kind, code, mtu), (3, 4, 1280), "{how:?}");
        assert_eq!(Ip::read_quote(&quote, &culprit).ends(), culprit.ends());

        let mut rig = foreign_agent_with(how, EntryFlags::default());
        let culprit = of_len(Ip::data(NODE, FAR), 1500);
        let sent = rig.exchange(1, &culprit.frame(port_mac(1), station(MOBILE)));
        let told = only(sent, 1, station(MOBILE));
        assert_eq!(told.ends().1, NODE);
        let (kind, code, mtu, _) = read_error(&told);
        assert_eq!((kind, code, mtu), (3, 4, 1500 - overhead(how)));
    }
}

/// B-05, RFC 2003 §4.1, §5.1: a router inside the tunnel takes only 1280 bytes. The
/// sender of that packet is told, the next too long packet is answered at once, what
/// may be cut is cut to fit; after ten minutes a longer one is tried again.
// Shows 5944-4.2.3-e, 2003-4.1-f, 2003-5.1-a.
#[test]
fn fragmentation_needed_from_inside_the_tunnel_is_relayed_and_remembered() {
    for how in EVERY {
        let mut rig = home_agent_with(how, EntryFlags::default());
        let room = 1280 - overhead(how);
        let culprit = of_len(Ip::data(FAR, NODE), 1400);
        let outer = only(rig.exchange(0, &from_core(&culprit)), 0, station(ROUTER));
        let quote = &outer.ttl(60).bytes()[..500];
        let sent = rig.exchange(0, &from_core(&error(3, 4, 1280, AGENT, quote)));
        let ttl = if how == Encapsulation::Minimal { 60 } else { 63 };
        assert_told(sent, room, &culprit.clone().ttl(ttl));
        assert_eq!(rig.drops(), "", "{how:?}");

        let next = of_len(Ip::data(FAR, NODE), room + 1);
        assert_told(rig.exchange(0, &from_core(&next)), room, &next.clone().ttl(63));
        let fits = of_len(Ip::data(FAR, NODE), room);
        let outer = only(rig.exchange(0, &from_core(&fits)), 0, station(ROUTER));
        assert_eq!(outer.bytes().len(), 1280);
        let sent = rig.exchange(0, &from_core(&culprit.clone().fragmentable()));
        assert_eq!(sent.len(), 2);
        for (_, frame) in sent {
            let outer = parse(&frame).1;
            assert!(outer.bytes().len() <= 1280 && outer.fragment == (0, false), "{how:?}");
        }

        rig.advance(Duration::from_secs(601));
        let outer = only(rig.exchange(0, &from_core(&culprit)), 0, station(ROUTER));
        assert_eq!(outer.bytes().len(), usize::from(1400 + overhead(how)));
    }
}

/// The same at the foreign agent, for what its visitor sends.
#[test]
fn a_visitor_is_told_of_a_narrow_link_in_its_reverse_tunnel() {
    for how in EVERY {
        let mut rig = foreign_agent_with(how, EntryFlags::default());
        let culprit = of_len(Ip::data(NODE, FAR), 1400);
        let sent = rig.exchange(1, &culprit.frame(port_mac(1), station(MOBILE)));
        let outer = only(sent, 0, station(ROUTER));
        assert_eq!(outer.ends(), (CARE_OF.into(), AGENT.into()));
        let narrow = error(3, 4, 1280, CARE_OF, &outer.bytes()[..100]);
        let told = only(rig.exchange(0, &from_core(&narrow)), 1, station(MOBILE));
        let (kind, code, mtu, quote) = read_error(&told);
        assert_eq!((kind, code, mtu), (3, 4, 1280 - overhead(how)), "{how:?}");
        assert_eq!(Ip::read_quote(&quote, &culprit).ends(), culprit.ends());
    }
}

/// S3-11: of two visitors with one address, the one that sent too much is told, at its
/// station: of what its own reverse tunnel takes, and of what a router inside said.
#[test]
fn of_two_visitors_with_one_address_the_right_one_is_told() {
    let mut rig = foreign_agent(ReverseTunnel::Direct);
    let guests = [(station(20), AGENT), (station(21), "10.0.7.2")];
    for (mac, agent) in guests {
        let entry = visitor(mac, 1, agent, CARE_OF, ReverseTunnel::Direct);
        rig.visit(NODE, VisitorEntry { overlapping: true, ..entry });
    }
    for (mac, agent) in guests {
        let culprit = of_len(Ip::data(NODE, FAR), 1490);
        let told = only(rig.exchange(1, &culprit.frame(port_mac(1), mac)), 1, mac);
        assert_eq!(read_error(&told).2, 1480);
        let fits = of_len(Ip::data(NODE, FAR), 1400);
        let outer = only(rig.exchange(1, &fits.frame(port_mac(1), mac)), 0, station(ROUTER));
        assert_eq!(outer.ends().1, agent);
        let narrow = error(3, 4, 1280, CARE_OF, &outer.bytes()[..100]);
        let told = only(rig.exchange(0, &from_core(&narrow)), 1, mac);
        assert_eq!(read_error(&told).2, 1260);
        let last = Ip::data(NODE, FAR).ttl(1).frame(port_mac(1), mac);
        rig.control.ports[1].set_address(Some(ip("10.2.0.1")));
        assert_eq!(read_error(&only(rig.exchange(1, &last), 1, mac)).0, 11);
        rig.control.ports[1].set_address(None);
    }
}

/// RFC 2003 §5: eight bytes of quote name no sender, but a tunnel that is in use.
#[test]
fn a_short_quote_is_believed_about_a_tunnel_in_use_and_the_next_sender_told() {
    for how in EVERY {
        let mut rig = home_agent_with(how, EntryFlags::default());
        let culprit = of_len(Ip::data(FAR, NODE), 1400);
        let outer = culprit.clone().ttl(63).leaving(how, AGENT, CARE_OF);
        let narrow = from_core(&error(3, 4, 1280, AGENT, &outer.bytes()[..28]));
        rig.assert_drops(0, &narrow, DropReason::TunnelIcmpUnmatched);
        only(rig.exchange(0, &from_core(&culprit)), 0, station(ROUTER));
        rig.assert_drops(0, &narrow, DropReason::TunnelIcmpNoted);
        let room = 1280 - overhead(how);
        assert_told(rig.exchange(0, &from_core(&culprit)), room, &culprit.clone().ttl(63));
    }
}

/// RFC 1191 §5: a router that does not tell the MTU.
#[test]
fn without_a_number_the_next_likely_one_is_taken() {
    let mut rig = home_agent();
    let culprit = of_len(Ip::data(FAR, NODE), 1400);
    let outer = only(rig.exchange(0, &from_core(&culprit)), 0, station(ROUTER));
    let narrow = error(3, 4, 0, AGENT, &outer.bytes()[..100]);
    assert_told(rig.exchange(0, &from_core(&narrow)), 1006 - 20, &culprit.ttl(63));
}

/// Reliability row 29: what quotes no live tunnel, or cannot be true, is counted and
/// changes nothing; less than 576 is not believed.
// Shows attack-29.
#[test]
fn forged_fragmentation_needed_changes_nothing() {
    let long = of_len(Ip::data(FAR, NODE), 1400);
    for how in EVERY {
        let mut rig = home_agent_with(how, EntryFlags::default());
        rig.bind("10.1.0.11", binding(AGENT, &["10.0.3.3"]));
        only(rig.exchange(0, &from_core(&long)), 0, station(ROUTER));
        let quote = |packet: &Ip, remote: &str, how| packet.leaving(how, AGENT, remote).bytes();
        let other_way = match how {
            Encapsulation::IpInIp => Encapsulation::Gre { key: None },
            Encapsulation::Minimal => Encapsulation::Gre { key: None },
            Encapsulation::Gre { key: None } => Encapsulation::Gre { key: Some(1) },
            Encapsulation::Gre { key: Some(_) } => Encapsulation::Gre { key: Some(1) },
            Encapsulation::Udp { .. } => Encapsulation::Udp { peer_port: 4712 },
            Encapsulation::PlainUdp { .. } => Encapsulation::PlainUdp { peer_port: 4712 },
        };
        let unbound = of_len(Ip::data(FAR, "10.1.0.99"), 1400);
        let another = of_len(Ip::data(FAR, "10.1.0.11"), 1400);
        let unmatched = [
            (quote(&long, "10.0.3.3", how), 1280), // another's care-of address
            (quote(&long, "10.0.9.1", how), 1280), // nobody's
            (quote(&long, CARE_OF, other_way), 1280),
            (quote(&unbound, CARE_OF, how), 1280),
            (quote(&another, CARE_OF, how), 1280),
            (quote(&long, CARE_OF, how), 1400 + overhead(how)), // it would have fitted
            (quote(&long, "10.0.9.1", how)[..28].to_vec(), 1280),
        ];
        for (quote, mtu) in unmatched {
            let forged = from_core(&error(3, 4, mtu, AGENT, &quote));
            rig.assert_drops(0, &forged, DropReason::TunnelIcmpUnmatched);
        }
        let mut may_be_cut = long.leaving(how, AGENT, CARE_OF);
        may_be_cut.dont_fragment = false;
        let forged = from_core(&error(3, 4, 1280, AGENT, &may_be_cut.bytes()));
        rig.assert_drops(0, &forged, DropReason::TunnelIcmpUnmatched);
        let mut broken = error(3, 4, 1280, AGENT, &quote(&long, CARE_OF, how));
        broken.payload[2] ^= 1;
        rig.assert_drops(0, &from_core(&broken), DropReason::TunnelIcmpUnmatched);
        for mtu in [1, 68, 575] {
            let tiny = from_core(&error(3, 4, mtu, AGENT, &quote(&long, CARE_OF, how)));
            rig.assert_drops(0, &tiny, DropReason::TunnelMtuTooSmall);
        }
        let outer = only(rig.exchange(0, &from_core(&long)), 0, station(ROUTER));
        assert_eq!(outer.bytes().len(), usize::from(1400 + overhead(how)), "{how:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Reliability row 29: a quote that is cut anywhere, with any bit of it wrong, is
    /// counted once, makes at most one packet, and if it is believed the tunnel is ours.
    // Shows attack-29.
    #[test]
    fn any_cut_or_broken_quote_is_counted_once(
        how in proptest::sample::select(EVERY.to_vec()), len in 0usize..120,
        bit in proptest::option::of(0usize..960), code in 0u8..6, used: bool,
    ) {
        let mut rig = home_agent_with(how, EntryFlags::default());
        let packet = of_len(Ip::data(FAR, NODE), 1400);
        if used {
            rig.exchange(0, &from_core(&packet));
        }
        let mut quote = packet.clone().ttl(63).leaving(how, AGENT, CARE_OF).bytes();
        quote.truncate(len);
        if let Some(byte) = bit.and_then(|bit| Some((quote.get_mut(bit / 8)?, bit % 8))) {
            *byte.0 ^= 1 << byte.1;
        }
        let sent = rig.exchange(0, &from_core(&error(3, code, 1280, AGENT, &quote)));
        let dropped = rig.dropped(DropReason::TunnelIcmpUnmatched)
            + rig.dropped(DropReason::TunnelIcmpNoted);
        let given = rig.punts().len() + rig.to_kernel(0).len();
        prop_assert_eq!(sent.len() + given + dropped as usize, 1, "{}", rig.drops());
        let learned = rig.exchange(0, &from_core(&packet));
        let was_told = learned.first().is_some_and(|(_, frame)| parse(frame).1.ends().1 == FAR);
        // A quote that is whole up to the packet inside, or about a tunnel in use.
        if was_told {
            prop_assert!(code == 4 && (used || len >= 32));
        }
        if code == 4 && bit.is_none() && len >= 60 {
            prop_assert!(was_told);
        }
    }
}

/// RFC 2003 §4.1, §4.4, §4.5: what an error from inside becomes.
// Shows 2003-4.1-a, 2003-4.1-b, 2003-4.1-c, 2003-4.1-d, 2003-4.1-e, 2003-4.1-g, 2003-4.1-h,
// 2003-4.4-a, 2003-4.5-a.
#[test]
fn unreachable_and_time_exceeded_from_inside_become_what_rfc_2003_says() {
    let host = Some((3, 1));
    let net = Some((3, 0));
    for how in EVERY {
        let is_udp = matches!(how, Encapsulation::Udp { .. } | Encapsulation::PlainUdp { .. });
        for (kind, code, home, beyond) in [
            (3, 0, host, net),
            (3, 1, host, host),
            (3, 2, host, net),
            (3, 3, host.filter(|_| is_udp), net.filter(|_| is_udp)),
            (3, 5, None, None),
            (3, 6, host, net),
            (3, 13, host, host),
            (11, 0, host, host),
            (11, 1, None, None),
            (12, 0, None, None),
        ] {
            let told = |sent: Vec<(usize, Vec<u8>)>| {
                let read = sent.first().map(|(_, frame)| read_error(&parse(frame).1));
                assert_eq!(sent.len(), usize::from(read.is_some()));
                read.map(|(kind, code, ..)| (kind, code))
            };
            let mut rig = home_agent_with(how, EntryFlags::default());
            let quote = Ip::data(FAR, NODE).leaving(how, AGENT, CARE_OF).bytes();
            let sent = rig.exchange(0, &from_core(&error(kind, code, 0, AGENT, &quote)));
            assert_eq!(told(sent), home, "{kind} {code} {how:?}");
            assert_eq!(rig.dropped(DropReason::TunnelIcmpNoted), u64::from(home.is_none()));
            let mut rig = foreign_agent_with(how, EntryFlags::default());
            let quote = Ip::data(NODE, FAR).leaving(how, CARE_OF, AGENT).bytes();
            let sent = rig.exchange(0, &from_core(&error(kind, code, 0, CARE_OF, &quote)));
            assert_eq!(told(sent), beyond, "{kind} {code} {how:?}");
        }
    }
}

/// RFC 1122 §3.2.2, RFC 1812 §4.3.2.8: no errors about errors, and not too many.
#[test]
fn relayed_errors_are_rate_limited_and_never_about_errors() {
    let mut rig = home_agent();
    let inner = Ip::icmp(FAR, NODE, 3, &[0; 28]);
    let quote = inner.tunnelled(AGENT, CARE_OF).bytes();
    let about_error = from_core(&error(3, 1, 0, AGENT, &quote));
    rig.assert_drops(0, &about_error, DropReason::TunnelIcmpNoted);
    let quote = Ip::data(FAR, NODE).tunnelled(AGENT, CARE_OF).bytes();
    let unreachable = from_core(&error(3, 1, 0, AGENT, &quote));
    let relayed: usize = (0..500).map(|_| rig.exchange(0, &unreachable).len()).sum();
    assert_eq!(relayed, 100, "a tenth of a second's errors");
    assert_eq!(rig.dropped(DropReason::TunnelIcmpNoted), 1 + 500 - 100);
}

/// RFC 2003 §5.1: with DF set on every outer header, the path is learned also from
/// packets whose senders did not ask; they are not told, their next one is cut.
// Shows 2003-5.1-c.
#[test]
fn with_df_set_always_the_senders_of_fragmentable_packets_are_not_bothered() {
    let mut rig = home_agent_with(Encapsulation::IpInIp, EntryFlags::SET_DF);
    let packet = of_len(Ip::data(FAR, NODE), 1400).fragmentable();
    let outer = only(rig.exchange(0, &from_core(&packet)), 0, station(ROUTER));
    assert!(outer.dont_fragment && !outer.inner().dont_fragment);
    let narrow = from_core(&error(3, 4, 1280, AGENT, &outer.bytes()[..100]));
    rig.assert_drops(0, &narrow, DropReason::TunnelIcmpNoted);
    let sent = rig.exchange(0, &from_core(&packet));
    assert_eq!(sent.len(), 2);
    let inners: Vec<Ip> = sent.iter().map(|(_, frame)| parse(frame).1.inner()).collect();
    assert_eq!((inners[0].fragment, inners[1].fragment), ((0, true), (1240, false)));
    let payload = [&inners[0].payload[..], &inners[1].payload].concat();
    assert_eq!(payload, packet.payload);
}

/// An error that comes through the tunnel, for the node, is a packet like any other.
#[test]
fn errors_for_the_node_itself_are_ordinary_traffic() {
    let mut rig = home_agent();
    let theirs = Ip::icmp(FAR, NODE, 3, &Ip::data(NODE, FAR).bytes());
    let outer = only(rig.exchange(0, &from_core(&theirs)), 0, station(ROUTER));
    assert_eq!(outer.inner().bytes(), theirs.ttl(63).bytes());
    let back = Ip::icmp(NODE, FAR, 3, &Ip::data(FAR, NODE).bytes());
    let sent = rig.exchange(0, &from_core(&back.tunnelled(CARE_OF, AGENT)));
    assert_eq!(only(sent, 0, station(ROUTER)).bytes(), back.ttl(63).bytes());
}

/// RFC 5177 §7: two tunnels to what is behind a router at a foreign agent; both
/// headers are counted, and an error about both finds the true sender.
// Shows 5177-7-b.
#[test]
fn behind_a_mobile_router_both_tunnels_are_reckoned_with() {
    let mut rig = home_agent();
    let behind = "10.9.0.7";
    let route = RouteEntry::MobileRouter { home_address: ip(NODE) };
    rig.control.routes.install(TENANT, ip("10.9.0.0"), 24, route).unwrap();
    let culprit = of_len(Ip::data(FAR, behind), 1461);
    assert_told(rig.exchange(0, &from_core(&culprit)), 1460, &culprit.clone().ttl(63));
    let fits = of_len(Ip::data(FAR, behind), 1460);
    let outer = only(rig.exchange(0, &from_core(&fits)), 0, station(ROUTER));
    assert_eq!(outer.bytes().len(), 1500);
    assert_eq!(outer.inner().inner().ends(), fits.ends());
    let narrow = error(3, 4, 1280, AGENT, &outer.bytes()[..100]);
    assert_told(rig.exchange(0, &from_core(&narrow)), 1240, &fits.clone().ttl(63));
    // A quote that ends before it names nobody whom to tell.
    let cut = from_core(&error(3, 4, 1279, AGENT, &outer.bytes()[..50]));
    rig.assert_drops(0, &cut, DropReason::TunnelIcmpNoted);
    assert_told(rig.exchange(0, &from_core(&fits)), 1239, &fits.ttl(63));
}

/// A tunnel in a tunnel of this very box: the inner one learns from the outer one's
/// refusal.
#[test]
fn a_care_of_address_that_is_itself_away_is_a_narrower_tunnel() {
    let mut rig = home_agent();
    rig.bind("10.1.0.11", binding(AGENT, &[NODE]));
    let culprit = of_len(Ip::data(FAR, "10.1.0.11"), 1480);
    assert_told(rig.exchange(0, &from_core(&culprit)), 1460, &culprit.clone().ttl(63));
    assert_told(rig.exchange(0, &from_core(&culprit)), 1460, &culprit.clone().ttl(63));
    assert_eq!(rig.dropped(DropReason::TooBig), 2);
}

/// A SYN or SYN-ACK that offers segments of `mss` bytes.
fn syn(packet: Ip, mss: u16, flags: u8) -> Ip {
    let [high, low] = mss.to_be_bytes();
    let mut tcp = [0; 24];
    tcp[12..14].copy_from_slice(&[0x60, flags]);
    tcp[20..24].copy_from_slice(&[2, 4, high, low]);
    packet.payload(tcp.to_vec())
}

fn mss_of(packet: &Ip) -> u16 {
    u16::from_be_bytes([packet.payload[22], packet.payload[23]])
}

/// B-05: the clamp, in both directions, at both agents, for every encapsulation, and
/// for what the path has become.
#[test]
fn segment_sizes_are_clamped_to_the_tunnel_in_both_directions() {
    for how in EVERY {
        for flags in [0x02, 0x12] {
            let room = 1500 - overhead(how) - 40;
            let leaving = |packet: &Ip, from: &str, to: &str, rig: &mut Rig| {
                let port = usize::from(from == NODE);
                let sender = if port == 1 { MOBILE } else { ROUTER };
                let frame = packet.frame(port_mac(port as u8), station(sender));
                let outer = only(rig.exchange(port, &frame), 0, station(ROUTER));
                let at = outer.payload.len() - 24;
                assert_eq!(Ip::data(from, to).ends(), packet.ends());
                mss_of(&Ip::data(from, to).payload(outer.payload[at..].to_vec()))
            };
            let mut home = home_agent_with(how, EntryFlags::CLAMP_MSS);
            let down = syn(Ip::data(FAR, NODE), 1460, flags);
            let up = syn(Ip::data(NODE, FAR), 1460, flags);
            assert_eq!(leaving(&down, FAR, NODE, &mut home), room, "{how:?}");
            let sent = home.exchange(0, &from_core(&up.arriving(how, CARE_OF, AGENT)));
            assert_eq!(mss_of(&only(sent, 0, station(ROUTER))), room);
            let small = syn(Ip::data(FAR, NODE), 500, flags);
            assert_eq!(leaving(&small, FAR, NODE, &mut home), 500);
            // The path has become narrower.
            let quote = of_len(Ip::data(FAR, NODE), 1400).leaving(how, AGENT, CARE_OF).bytes();
            home.exchange(0, &from_core(&error(3, 4, 1280, AGENT, &quote)));
            let narrow = 1280 - overhead(how) - 40;
            assert_eq!(leaving(&down, FAR, NODE, &mut home), narrow);
            let sent = home.exchange(0, &from_core(&up.arriving(how, CARE_OF, AGENT)));
            assert_eq!(mss_of(&only(sent, 0, station(ROUTER))), narrow);

            let mut foreign = foreign_agent_with(how, EntryFlags::CLAMP_MSS);
            assert_eq!(leaving(&up, NODE, FAR, &mut foreign), room);
            let sent = foreign.exchange(0, &from_core(&down.arriving(how, AGENT, CARE_OF)));
            assert_eq!(mss_of(&only(sent, 1, station(MOBILE))), room);
            // Without the flag nothing is touched.
            let mut plain = home_agent_with(how, EntryFlags::default());
            assert_eq!(leaving(&down, FAR, NODE, &mut plain), 1460);
        }
    }
}

/// RFC 791 §3.2: options of a packet that is cut before its tunnel.
#[test]
fn a_packet_with_options_is_cut_and_tunnelled() {
    let mut rig = home_agent();
    let plain = of_len(Ip::data(FAR, NODE), 1500).fragmentable();
    let mut bytes = plain.bytes();
    // A router alert, which is copied, and a timestamp, which is not.
    let options = [0x94, 4, 0, 0, 68, 4, 5, 0];
    bytes.splice(20..20, options);
    bytes.truncate(1500);
    let mut header = Ipv4Header::unsummed(ip(FAR), ip(NODE), IpProtocol::TCP, 64, 1500);
    header.set_header_len(28);
    header.set_checksum(checksum::checksum(&[header.as_bytes(), &options].concat()));
    bytes[..20].copy_from_slice(header.as_bytes());
    let ethernet = &from_core(&plain)[..14];
    let sent = rig.exchange(0, &[ethernet, &bytes].concat());
    let inners: Vec<Vec<u8>> = sent.iter().map(|(_, frame)| frame[34..].to_vec()).collect();
    assert_eq!(inners.len(), 2);
    assert_eq!((inners[0][0], &inners[0][20..28]), (0x47, &options[..]));
    assert_eq!((inners[1][0], &inners[1][20..24]), (0x46, &options[..4]));
    assert_eq!([&inners[0][28..], &inners[1][24..]].concat(), bytes[28..]);
}
