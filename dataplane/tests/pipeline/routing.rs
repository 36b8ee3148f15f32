//! Plain forwarding, MTU, ICMP errors, and next hops that must be asked for.

use std::time::Duration;

use homeport_dataplane::hold::{MAX_HELD, MAX_HELD_PER_NEXT_HOP, MAX_NEXT_HOPS};
use homeport_dataplane::punt::PuntHeader;
use homeport_dataplane::table::neighbor::NeighborKey;
use homeport_dataplane::table::route::RouteEntry;
use homeport_dataplane::table::visitor::ReverseTunnel;
use homeport_dataplane::verdict::{DropReason, PuntReason};
use homeport_dataplane::{MacAddress, PortId};
use homeport_wire::IpProtocol;
use homeport_wire::icmpv4::Icmpv4Packet;

use crate::harness::*;
use crate::walk::{MOBILE, ROUTER, foreign_agent, home_agent};

const NODE: &str = "10.1.0.10";
const FAR: &str = "192.0.2.7";
const HOST: &str = "10.1.0.50";

fn from_core(packet: &Ip) -> Vec<u8> {
    packet.frame(port_mac(0), station(ROUTER))
}

/// Type, code and MTU of an error, and what it quotes.
fn error(packet: &Ip) -> (u8, u8, u16, Vec<u8>) {
    assert_eq!(packet.protocol, IpProtocol::ICMP);
    let icmp = Icmpv4Packet::new_checked(&packet.payload).unwrap();
    let [_, _, high, low] = icmp.header().rest;
    let header = icmp.header();
    (header.message_type, header.code, u16::from_be_bytes([high, low]), icmp.body().to_vec())
}

// Shows 5944-4.2.3-c.
#[test]
fn plain_packets_cross_the_box_by_its_routes() {
    let mut rig = home_agent();
    rig.neighbor(1, HOST, station(50));
    let packet = Ip::data(FAR, HOST);
    let sent = rig.exchange(0, &from_core(&packet));
    assert_eq!(only(sent, 1, station(50)).bytes(), packet.ttl(63).bytes());
    let packet = Ip::data(HOST, FAR);
    let sent = rig.exchange(1, &packet.frame(port_mac(1), station(50)));
    assert_eq!(only(sent, 0, station(ROUTER)).bytes(), packet.ttl(63).bytes());
    assert_eq!(rig.stats(0).encapsulated.get(), 0);
}

// Shows 2003-3.1-b.
#[test]
fn what_cannot_go_on_is_told_to_its_sender_from_the_links_address() {
    let mut rig = home_agent();
    rig.control.ports[0].set_address(Some(ip("10.0.1.9")));
    let unreachable = RouteEntry::Unreachable;
    rig.control.routes.install(TENANT, ip("203.0.113.0"), 24, unreachable).unwrap();
    let big = || Ip::data(FAR, NODE).payload(vec![1; 1461]);
    for (packet, reason, expected) in [
        (Ip::data(FAR, HOST).ttl(1), DropReason::TtlExpired, (11, 0, 0)),
        (Ip::data(FAR, NODE).ttl(1), DropReason::TtlExpired, (11, 0, 0)),
        (Ip::data(FAR, "203.0.113.1"), DropReason::NoRoute, (3, 1, 0)),
        // One byte more than the tunnel takes.
        (big(), DropReason::TooBig, (3, 4, 1480)),
    ] {
        let sent = rig.exchange(0, &from_core(&packet));
        let told = only(sent, 0, station(ROUTER));
        assert_eq!(rig.dropped(reason), 1, "{}", rig.drops());
        assert_eq!(told.ends(), ("10.0.1.9".into(), FAR.into()));
        let (kind, code, mtu, quote) = error(&told);
        assert_eq!((kind, code, mtu), expected);
        let asked = Ip { ttl: packet.ttl, ..Ip::read_quote(&quote, &packet) };
        assert_eq!(asked.bytes()[..20], packet.bytes()[..20]);
        rig = home_agent();
        rig.control.ports[0].set_address(Some(ip("10.0.1.9")));
        rig.control.routes.install(TENANT, ip("203.0.113.0"), 24, unreachable).unwrap();
    }
    // It fits.
    let sent = rig.exchange(0, &from_core(&Ip::data(FAR, NODE).payload(vec![1; 1460])));
    assert_eq!(only(sent, 0, station(ROUTER)).bytes().len(), 1500);
}

/// The error about a packet of a node that is away goes through its tunnel.
#[test]
fn an_error_to_a_node_that_is_away_is_tunnelled() {
    let mut rig = home_agent();
    rig.control.ports[0].set_address(Some(ip("10.0.1.2")));
    let packet = Ip::data(NODE, FAR).ttl(1).tunnelled("10.0.2.2", "10.0.1.2");
    let outer = only(rig.exchange(0, &from_core(&packet)), 0, station(ROUTER));
    assert_eq!(outer.ends(), ("10.0.1.2".into(), "10.0.2.2".into()));
    assert_eq!(outer.inner().ends(), ("10.0.1.2".into(), NODE.into()));
    assert_eq!(error(&outer.inner()).0, 11);
}

/// RFC 1191 §4 at the foreign agent: the visitor is told on its link, from the
/// tunnel's end when the link has no address of ours.
#[test]
fn a_visitor_is_told_how_much_its_reverse_tunnel_takes() {
    let mut rig = foreign_agent(ReverseTunnel::Direct);
    let packet = Ip::data(NODE, FAR).payload(vec![0; 1470]);
    let told =
        only(rig.exchange(1, &packet.frame(port_mac(1), station(MOBILE))), 1, station(MOBILE));
    assert_eq!(told.ends(), ("10.0.2.2".into(), NODE.into()));
    assert_eq!(error(&told).2, 1480);
    assert_eq!(rig.dropped(DropReason::TooBig), 1);
}

/// The kernel of the box learns the tunnel's MTU like any sender.
#[test]
fn the_kernel_is_told_as_well() {
    let mut rig = home_agent();
    let twin = rig.twins[0].clone().unwrap();
    let packet = Ip::data("10.0.1.2", NODE).payload(vec![0; 1470]);
    assert!(twin.push(&packet.frame(station(ROUTER), port_mac(0))));
    rig.run();
    assert_eq!(rig.sent(), []);
    let (_, told) = parse(&rig.to_kernel(0)[0]);
    assert_eq!(error(&told).2, 1480);
}

/// RFC 1122 §3.2.2.
#[test]
fn nothing_is_told_about_errors_groups_and_later_fragments() {
    let mut rig = home_agent();
    rig.control.ports[0].set_address(Some(ip("10.0.1.9")));
    for packet in [
        Ip::icmp(FAR, HOST, 3, b"an error").ttl(1),
        Ip::data(FAR, HOST).ttl(1).fragment(8, false),
        Ip::data("240.0.0.1", HOST).ttl(1),
        Ip::data("0.0.0.1", HOST).ttl(1),
    ] {
        rig.assert_drops(0, &from_core(&packet), DropReason::TtlExpired);
    }
    let frame = Ip::data(FAR, HOST).ttl(1).frame(MacAddress::BROADCAST, station(ROUTER));
    rig.assert_drops(0, &frame, DropReason::NotForwarded);
}

/// RFC 1812 §4.3.2.8.
#[test]
fn errors_are_rate_limited_and_the_drops_still_counted() {
    let mut plan = Plan::ports(2);
    plan.config.icmp_errors_per_second = 100;
    let mut rig = plan.build();
    rig.route("0.0.0.0/0", 0, Some("10.0.1.1"));
    rig.neighbor(0, "10.0.1.1", station(ROUTER));
    rig.control.ports[0].set_address(Some(ip("10.0.1.9")));
    let frame = from_core(&Ip::data(FAR, "198.51.100.1").ttl(1));
    for _ in 0..100 {
        rig.push(0, &frame);
    }
    rig.run();
    assert_eq!(rig.sent().len(), 10);
    assert_eq!(rig.dropped(DropReason::TtlExpired), 100);
    rig.advance(Duration::from_millis(20));
    for _ in 0..100 {
        rig.push(0, &frame);
    }
    rig.run();
    assert_eq!(rig.sent().len(), 2);
}

/// B-05: fragmentation before encapsulation, so that the tunnel's end has nothing
/// to put together.
#[test]
fn what_may_be_fragmented_is_cut_before_its_tunnel() {
    let mut rig = home_agent();
    let payload: Vec<u8> = (0..1480).map(|n| n as u8).collect();
    let packet = Ip::data(FAR, NODE).payload(payload.clone()).fragmentable();
    let sent = rig.exchange(0, &from_core(&packet));
    let mut joined = Vec::new();
    for (port, frame) in &sent {
        assert!(*port == 0 && frame.len() <= 1514);
        let (_, outer) = parse(frame);
        assert_eq!(outer.fragment, (0, false));
        let inner = outer.inner();
        assert_eq!(usize::from(inner.fragment.0), joined.len());
        assert_eq!(inner.ttl, 63);
        joined.extend(inner.payload);
    }
    assert_eq!((sent.len(), joined), (2, payload));
    assert_eq!(rig.stats(0).originated.get(), 1);
}

#[test]
fn what_may_be_fragmented_is_cut_for_a_narrower_link() {
    let mut plan = Plan::ports(2);
    plan.mtus[1] = 576;
    let mut rig = plan.build();
    rig.route("10.1.0.0/24", 1, None);
    rig.neighbor(1, HOST, station(50));
    let packet = Ip::data(FAR, HOST).payload(vec![9; 1480]).fragmentable();
    let sent = rig.exchange(0, &from_core(&packet));
    assert_eq!(sent.len(), 3);
    let bytes: usize = sent.iter().map(|(_, frame)| parse(frame).1.payload.len()).sum();
    assert_eq!(bytes, 1480);
    rig.assert_drops(0, &from_core(&Ip::data(FAR, HOST).payload(vec![9; 557])), DropReason::TooBig);
}

fn questions(punts: &[(PuntHeader, Vec<u8>)]) -> Vec<(PortId, String)> {
    punts
        .iter()
        .inspect(|(header, frame)| {
            assert_eq!(header.reason(), Some(PuntReason::ResolveNeighbor));
            assert!(frame.is_empty());
        })
        .map(|(header, _)| (header.port(), header.next_hop().to_string()))
        .collect()
}

#[test]
fn a_packet_waits_for_its_next_hop_and_leaves_when_it_answers() {
    let mut rig = home_agent();
    for number in 0..3u8 {
        let packet = Ip::data(FAR, HOST).payload(vec![number]);
        assert_eq!(rig.exchange(0, &from_core(&packet)), []);
    }
    assert_eq!(rig.stats(0).held.get(), 3);
    assert_eq!(questions(&rig.punts()), [(PortId(1), HOST.into())]);
    rig.advance(Duration::from_millis(99));
    assert_eq!(rig.punts(), []);
    rig.advance(Duration::from_millis(1));
    assert_eq!(questions(&rig.punts()), [(PortId(1), HOST.into())]);
    rig.neighbor(1, HOST, station(50));
    rig.run();
    let sent = rig.sent();
    let order: Vec<u8> = sent.iter().map(|(_, frame)| parse(frame).1.payload[0]).collect();
    assert_eq!(order, [0, 1, 2]);
    assert_eq!(rig.stats(0).held.get(), 0);
    rig.advance(Duration::from_millis(200));
    assert_eq!(rig.punts(), []);
}

/// The sender is told when the wait was in vain (RFC 1812 §4.3.3.1).
#[test]
fn a_next_hop_that_does_not_answer_in_a_second_is_given_up() {
    let mut rig = home_agent();
    rig.control.ports[0].set_address(Some(ip("10.0.1.9")));
    rig.exchange(0, &from_core(&Ip::data(FAR, HOST)));
    rig.advance(Duration::from_millis(999));
    assert_eq!(rig.stats(0).held.get(), 1);
    rig.advance(Duration::from_millis(1));
    assert_eq!((rig.stats(0).held.get(), rig.dropped(DropReason::NoNeighbor)), (0, 1));
    let told = only(rig.sent(), 0, station(ROUTER));
    assert_eq!((error(&told).0, error(&told).1), (3, 1));
}

/// A stream to a dead next hop asks ten times a second, however often it is given
/// up.
#[test]
fn a_dead_next_hop_is_asked_for_ten_times_a_second() {
    let mut rig = home_agent();
    let mut asked = 0;
    for _ in 0..300 {
        rig.push(0, &from_core(&Ip::data(FAR, HOST)));
        rig.advance(Duration::from_millis(10));
        asked += rig.punts().len();
    }
    assert!((29..=31).contains(&asked), "{asked}");
}

/// A next hop that comes and goes is asked for no more often than a dead one.
#[test]
fn a_next_hop_that_was_just_asked_for_is_not_asked_for_again() {
    let mut rig = home_agent();
    let key = NeighborKey { port: PortId(1), address: ip(HOST) };
    rig.exchange(0, &from_core(&Ip::data(FAR, HOST)));
    assert_eq!(rig.punts().len(), 1);
    rig.neighbor(1, HOST, station(50));
    rig.advance(Duration::from_millis(10));
    assert_eq!(rig.sent().len(), 1);
    rig.control.neighbors.remove(&key);
    rig.advance(Duration::from_millis(10));
    rig.exchange(0, &from_core(&Ip::data(FAR, HOST)));
    assert_eq!(rig.punts(), []);
    rig.advance(Duration::from_millis(80));
    assert_eq!(rig.punts().len(), 1);
}

#[test]
fn the_waiting_room_is_bounded_for_each_next_hop_and_in_all() {
    let mut rig = home_agent();
    for _ in 0..MAX_HELD_PER_NEXT_HOP {
        rig.push(0, &from_core(&Ip::data(FAR, HOST)));
    }
    rig.run();
    rig.assert_drops(0, &from_core(&Ip::data(FAR, HOST)), DropReason::NeighborQueueFull);
    // A scan of the link finds no more room than there is.
    for number in 51..=250 {
        rig.push(0, &from_core(&Ip::data(FAR, &format!("10.1.0.{number}"))));
        rig.run();
    }
    let held = |rig: &Rig| usize::try_from(rig.stats(0).held.get()).unwrap();
    assert_eq!(held(&rig), MAX_HELD_PER_NEXT_HOP + MAX_NEXT_HOPS - 1);
    for number in 51..=250 {
        for _ in 0..MAX_HELD_PER_NEXT_HOP {
            rig.push(0, &from_core(&Ip::data(FAR, &format!("10.1.0.{number}"))));
            rig.run();
        }
    }
    assert_eq!(held(&rig), MAX_HELD);
    rig.advance(Duration::from_secs(1));
    assert_eq!(held(&rig), 0);
    // And there is room again.
    rig.exchange(0, &from_core(&Ip::data(FAR, HOST)));
    assert_eq!(rig.stats(0).held.get(), 1);
}

#[test]
fn a_tunnel_waits_for_its_next_hop_like_any_packet() {
    let mut rig = home_agent();
    let router = NeighborKey { port: PortId(0), address: ip("10.0.1.1") };
    assert!(rig.control.neighbors.remove(&router));
    assert_eq!(rig.exchange(0, &from_core(&Ip::data(FAR, NODE))), []);
    assert_eq!(questions(&rig.punts()), [(PortId(0), "10.0.1.1".into())]);
    rig.neighbor(0, "10.0.1.1", station(ROUTER));
    rig.run();
    assert_eq!(only(rig.sent(), 0, station(ROUTER)).ends().1, "10.0.2.2");
}

#[test]
fn a_port_that_is_down_or_full_drops_by_name() {
    let mut plan = Plan::ports(2);
    plan.queue_frames = 8;
    let mut rig = plan.build();
    rig.route("10.1.0.0/24", 1, None);
    rig.neighbor(1, HOST, station(50));
    let frame = from_core(&Ip::data(FAR, HOST));
    for _ in 0..2 {
        for _ in 0..8 {
            rig.push(0, &frame);
        }
        rig.run();
    }
    assert_eq!(rig.dropped(DropReason::PortTransmitFull), 8);
    assert_eq!((rig.stats(0).transmitted.get(), rig.stats(1).tx.get()), (8, 8));
    rig.sent();
    rig.links[1].set_up(false);
    rig.advance(Duration::from_millis(100));
    assert!(!rig.control.ports[1].is_up());
    rig.assert_drops(0, &frame, DropReason::PortDown);
    rig.links[1].set_up(true);
    rig.advance(Duration::from_millis(100));
    assert_eq!(rig.exchange(0, &frame).len(), 1);
}

#[test]
fn a_full_twin_drops_by_name() {
    let mut plan = Plan::ports(1);
    plan.queue_frames = 8;
    let mut rig = plan.build();
    let frame = from_core(&Ip::data(FAR, "224.0.0.5"));
    for _ in 0..2 {
        for _ in 0..8 {
            rig.push(0, &frame);
        }
        rig.run();
    }
    assert_eq!(rig.dropped(DropReason::PortTransmitFull), 8);
    assert_eq!(rig.stats(0).to_kernel.get(), 8);
}
