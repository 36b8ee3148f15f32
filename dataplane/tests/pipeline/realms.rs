//! Overlapping address realms at a foreign agent: rows S3-11 to S3-17.

use homeport_dataplane::MacAddress;
use homeport_dataplane::table::local::LocalEntry;
use homeport_dataplane::table::source_route::{LocalWay, RouteList, SourceRouteEntry};
use homeport_dataplane::table::visitor::{ReverseTunnel, VisitorEntry};
use homeport_dataplane::verdict::DropReason;
use homeport_wire::icmpv4::{Icmpv4Header, TIME_EXCEEDED};
use zerocopy::IntoBytes;

use crate::harness::*;
use crate::walk::ROUTER;

/// The home address of both visitors.
pub(crate) const NODE: &str = "10.1.0.10";
pub(crate) const CARE_OF: &str = "10.0.2.2";
const LINK: &str = "10.2.0.1";
const FAR: &str = "192.0.2.7";

/// A visitor with the address [`NODE`]: its station and its home agent.
pub(crate) struct Guest {
    pub(crate) station: MacAddress,
    pub(crate) agent: &'static str,
    pub(crate) tag: &'static [u8],
}

pub(crate) const GUESTS: [Guest; 3] = [
    Guest { station: station(20), agent: "10.0.1.2", tag: b"the first one's own bytes" },
    Guest { station: station(21), agent: "10.0.7.2", tag: b"another's, of another network" },
    Guest { station: station(22), agent: "10.0.8.2", tag: b"a third" },
];

impl Guest {
    pub(crate) fn entry(&self, style: ReverseTunnel) -> VisitorEntry {
        let entry = visitor(self.station, 1, self.agent, CARE_OF, style);
        VisitorEntry { overlapping: true, ..entry }
    }

    /// A packet with its tag.
    fn data(&self, source: &str, destination: &str) -> Ip {
        Ip::data(source, destination).payload(self.tag.to_vec())
    }

    /// A frame of it on the visited link.
    pub(crate) fn frame(&self, packet: &Ip) -> Vec<u8> {
        packet.frame(port_mac(1), self.station)
    }
}

/// A foreign agent whose visitors all have one address; port 0 is the core, port 1
/// the visited link.
fn foreign_agent(style: ReverseTunnel) -> Rig {
    let mut rig = Rig::new(2);
    rig.foreign_agent(CARE_OF);
    rig.local(LINK, LocalEntry { agent: true, ..LocalEntry::default() });
    rig.route("0.0.0.0/0", 0, Some("10.0.2.1"));
    rig.route("10.2.0.0/24", 1, None);
    rig.neighbor(0, "10.0.2.1", station(ROUTER));
    for guest in &GUESTS {
        rig.visit(NODE, guest.entry(style));
    }
    rig
}

/// S3-11: forward tunnels, each to its own station: what the home agent of one sends
/// reaches nobody else, in any order.
// Shows 3024-A.4-g.
#[test]
fn forward_tunnels_of_visitors_with_one_address_never_mix() {
    let mut rig = foreign_agent(ReverseTunnel::Direct);
    for (one, other) in GUESTS.iter().flat_map(|one| GUESTS.iter().map(move |other| (one, other))) {
        for guest in [one, other] {
            let packet = guest.data(FAR, NODE).tunnelled(guest.agent, CARE_OF);
            rig.push(0, &packet.frame(port_mac(0), station(ROUTER)));
        }
        rig.run();
        let sent = rig.sent();
        assert_eq!(sent.len(), 2);
        for (guest, frame) in [one, other].into_iter().zip(sent) {
            let packet = only(vec![frame], 1, guest.station);
            assert_eq!(packet.payload, guest.tag);
        }
    }
    let stray = Ip::data(FAR, NODE).tunnelled("10.0.9.9", CARE_OF);
    let frame = stray.frame(port_mac(0), station(ROUTER));
    rig.assert_drops(0, &frame, DropReason::OuterSourceMismatch);
}

/// S3-11: reverse tunnels, in both delivery styles, each to its own home agent.
// Shows 3024-A.4-g.
#[test]
fn reverse_tunnels_of_visitors_with_one_address_never_mix() {
    for style in [ReverseTunnel::Direct, ReverseTunnel::Encapsulating] {
        let mut rig = foreign_agent(style);
        let pairs = GUESTS.iter().flat_map(|one| GUESTS.iter().map(move |other| (one, other)));
        for (one, other) in pairs {
            for guest in [one, other] {
                let packet = guest.data(NODE, FAR);
                let packet = match style {
                    ReverseTunnel::Encapsulating => packet.tunnelled(NODE, LINK),
                    _ => packet,
                };
                rig.push(1, &guest.frame(&packet));
            }
            rig.run();
            let sent = rig.sent();
            assert_eq!(sent.len(), 2);
            for (guest, frame) in [one, other].into_iter().zip(sent) {
                let outer = only(vec![frame], 0, station(ROUTER));
                assert_eq!(outer.ends(), (CARE_OF.into(), guest.agent.into()));
                assert_eq!(outer.inner().payload, guest.tag);
            }
        }
    }
}

/// S3-11: a station that is not registered is a host of the visited network, though
/// it has a visitor's address: it is routed, and ends no tunnel.
#[test]
fn an_unknown_station_with_a_visitors_address_is_a_local_host() {
    let mut rig = foreign_agent(ReverseTunnel::Direct);
    let local = Ip::data(NODE, FAR).frame(port_mac(1), station(50));
    let packet = only(rig.exchange(1, &local), 0, station(ROUTER));
    assert_eq!(packet.ends(), (NODE.into(), FAR.into()));
    let tunnelled = Ip::data(NODE, FAR).tunnelled(NODE, LINK).frame(port_mac(1), station(50));
    rig.assert_drops(1, &tunnelled, DropReason::NoVisitor);
    // A visitor's link-layer address on another link is nobody's.
    let elsewhere = Ip::data(NODE, FAR).frame(port_mac(0), GUESTS[0].station);
    rig.assert_drops(0, &elsewhere, DropReason::VisitorLinkMismatch);
}

/// The kernel of this box knows an address and not a station: it hears no visitor
/// whose address may be another's, and what it sends there is for the local host.
#[test]
fn the_kernel_speaks_with_the_local_host_and_not_with_visitors() {
    let mut rig = foreign_agent(ReverseTunnel::Direct);
    let ping = Ip::icmp(NODE, LINK, 8, b"ping");
    rig.assert_drops(1, &GUESTS[0].frame(&ping), DropReason::OverlappingVisitor);
    let from_host = ping.frame(port_mac(1), station(50));
    assert_eq!(rig.exchange(1, &from_host), []);
    assert_eq!(rig.to_kernel(1), [from_host]);
    let pong = Ip::icmp(LINK, NODE, 0, b"pong").frame(station(50), port_mac(1));
    assert!(rig.twins[1].clone().unwrap().push(&pong));
    rig.run();
    assert_eq!(rig.sent(), [(1, pong)]);
    // Its registration reaches the agent.
    let registration = Ip::udp(NODE, LINK, (40_000, 434));
    assert_eq!(rig.exchange(1, &GUESTS[0].frame(&registration)), []);
    assert_eq!(rig.punts().len(), 1);
}

/// A route of list 1: the cost of the tunnel, and of the local way.
fn source_route(rig: &mut Rig, prefix: &str, tunnel: Option<u16>, local: Option<u16>) {
    let (prefix, len) = prefix.split_once('/').unwrap();
    let local = local.map(|cost| LocalWay { cost, napt: None });
    let entry = SourceRouteEntry { tunnel, local };
    rig.control.source_routes.install(LIST, ip(prefix), len.parse().unwrap(), entry).unwrap();
}

const LIST: RouteList = RouteList(std::num::NonZeroU32::MIN);

/// The one visitor of [`routed`].
const LONE: &str = "10.1.0.30";

/// A foreign agent with one visitor more, which has source-restricted routes; a host
/// of the visited network is at 10.2.0.77, and one with an address of the home
/// network at 10.1.0.7.
fn routed(style: ReverseTunnel) -> Rig {
    let mut rig = foreign_agent(style);
    let entry = visitor(station(30), 1, "10.0.1.2", CARE_OF, style);
    rig.visit(LONE, VisitorEntry { routes: Some(LIST), ..entry });
    rig.route("10.1.0.0/24", 1, None);
    for host in ["10.2.0.77", "10.1.0.7"] {
        rig.neighbor(1, host, station(77));
    }
    rig
}

/// The way of a packet to `destination`: the home agent, or the next hop's station.
fn way(rig: &mut Rig, destination: &str) -> Result<String, MacAddress> {
    let sent = rig.exchange(1, &Ip::data(LONE, destination).frame(port_mac(1), station(30)));
    assert_eq!(sent.len(), 1, "{destination}: {sent:?}\n{}", rig.drops());
    let (ethernet, packet) = parse(&sent[0].1);
    if packet.ends().0 == CARE_OF { Ok(packet.ends().1) } else { Err(ethernet.destination) }
}

/// S3-16, S3-17: the longest destination counts, then the cost, then the tunnel; and
/// a visitor without routes is served as it registered.
#[test]
fn source_restricted_routes_say_which_of_two_ways_a_visitors_packets_go() {
    let tunnel = || Ok("10.0.1.2".to_string());
    let (local, core) = (Err(station(77)), Err(station(ROUTER)));
    for style in [ReverseTunnel::Direct, ReverseTunnel::Encapsulating] {
        let mut rig = routed(style);
        let as_registered = if style == ReverseTunnel::Direct { tunnel() } else { core.clone() };
        source_route(&mut rig, "10.2.0.0/24", Some(20), Some(10));
        source_route(&mut rig, "10.2.0.64/28", Some(10), None);
        source_route(&mut rig, "192.0.2.0/24", None, Some(10));
        source_route(&mut rig, "198.51.100.0/24", Some(10), Some(10));
        source_route(&mut rig, "203.0.113.0/24", Some(20), Some(10));
        assert_eq!(way(&mut rig, "8.8.8.8"), as_registered, "{style:?}");
        assert_eq!(way(&mut rig, "10.2.0.77"), tunnel(), "{style:?}: a longer one");
        assert!(rig.control.source_routes.remove(LIST, ip("10.2.0.64"), 28));
        assert_eq!(way(&mut rig, "10.2.0.77"), local, "{style:?}: a cheaper one");
        assert_eq!(way(&mut rig, FAR), core, "{style:?}: the only one");
        assert_eq!(way(&mut rig, "198.51.100.1"), tunnel(), "{style:?}: the same cost");
        assert_eq!(way(&mut rig, "203.0.113.1"), core, "{style:?}: by the default route");
        // Nobody else has them.
        let other = Ip::data(NODE, FAR).frame(port_mac(1), GUESTS[0].station);
        let sent = rig.exchange(1, &other);
        let ends = only(sent, 0, station(ROUTER)).ends();
        assert_eq!(ends.1 == FAR, style == ReverseTunnel::Encapsulating);
        // A cheaper way that leads nowhere is none.
        rig.control.routes.remove(TENANT, ip("0.0.0.0"), 0);
        rig.route("10.0.1.2/32", 0, Some("10.0.2.1"));
        assert_eq!(way(&mut rig, "203.0.113.1"), tunnel(), "{style:?}: no local route");
    }
}

/// S3-12: the home network's prefix goes by the tunnel, and a host of the visited
/// network with one of its addresses is ignored, though the box knows it.
#[test]
fn a_home_route_beats_the_local_twin() {
    for style in [ReverseTunnel::Direct, ReverseTunnel::Encapsulating] {
        let mut rig = routed(style);
        source_route(&mut rig, "10.0.0.0/8", None, Some(10));
        assert_eq!(way(&mut rig, "10.1.0.7"), Err(station(77)));
        source_route(&mut rig, "10.1.0.0/24", Some(0), None);
        assert_eq!(way(&mut rig, "10.1.0.7"), Ok("10.0.1.2".into()), "{style:?}");
    }
    // Without a reverse tunnel there is no way home, and the twin is no way out.
    let mut rig = routed(ReverseTunnel::None);
    source_route(&mut rig, "10.1.0.0/24", Some(0), None);
    let packet = Ip::data(LONE, "10.1.0.7").frame(port_mac(1), station(30));
    rig.assert_drops(1, &packet, DropReason::ReverseTunnelNotGranted);
}

/// S3-17: towards a visitor its link is the way, whatever the ingress, for those that
/// it reaches locally; all others go by its home network.
#[test]
fn local_correspondents_reach_a_visitor_on_its_link() {
    let mut rig = routed(ReverseTunnel::Direct);
    source_route(&mut rig, "10.2.0.0/24", None, Some(10));
    rig.route("10.1.0.0/16", 0, Some("10.0.2.1"));
    rig.control.routes.remove(TENANT, ip("10.1.0.0"), 24);
    let packet = Ip::data("10.2.0.77", LONE);
    let sent = rig.exchange(1, &packet.frame(port_mac(1), station(77)));
    assert_eq!(only(sent, 1, station(30)).ends(), packet.ends());
    let sent = rig.exchange(0, &packet.frame(port_mac(0), station(ROUTER)));
    assert_eq!(only(sent, 1, station(30)).ends(), packet.ends());
    let packet = Ip::data(FAR, LONE);
    let sent = rig.exchange(0, &packet.frame(port_mac(0), station(ROUTER)));
    assert_eq!(only(sent, 0, station(ROUTER)).ends(), packet.ends(), "not local: home");
    // Of visitors with one address nobody knows which is meant.
    for guest in &GUESTS {
        rig.visit(NODE, VisitorEntry { routes: Some(LIST), ..guest.entry(ReverseTunnel::Direct) });
    }
    let packet = Ip::data("10.2.0.77", NODE);
    let sent = rig.exchange(1, &packet.frame(port_mac(1), station(77)));
    assert_eq!(only(sent, 0, station(ROUTER)).ends(), packet.ends());
}

/// An ICMP error about a visitor's packet goes to the station that sent it: our own,
/// and one from inside its tunnel that is relayed.
#[test]
fn an_error_about_a_packet_reaches_the_station_that_sent_it() {
    let mut rig = foreign_agent(ReverseTunnel::Direct);
    rig.control.ports[1].set_address(Some(ip(LINK)));
    // What the address alone would lead to: a host of the visited network.
    rig.route("10.1.0.0/24", 1, None);
    rig.neighbor(1, NODE, station(77));
    for guest in &GUESTS {
        let expired = guest.data(NODE, FAR).ttl(1);
        let told = only(rig.exchange(1, &guest.frame(&expired)), 1, guest.station);
        assert_eq!(told.payload[0], TIME_EXCEEDED);
        assert_eq!(told.payload[8..28], expired.bytes()[..20]);

        let long = guest.data(NODE, FAR).payload(vec![7; 1400]);
        let outer = only(rig.exchange(1, &guest.frame(&long)), 0, station(ROUTER)).bytes();
        let header = Icmpv4Header::new(3, 4, [0, 0, 5, 0x14], &outer[..128]);
        let payload = [header.as_bytes(), &outer[..128]].concat();
        let error = Ip { payload, ..Ip::icmp("10.0.9.9", CARE_OF, 3, &[]) };
        let sent = rig.exchange(0, &error.frame(port_mac(0), station(ROUTER)));
        let told = only(sent, 1, guest.station);
        assert_eq!((told.payload[0], told.payload[1]), (3, 4), "fragmentation needed");
        assert_eq!(told.ends().1, NODE);
    }
}
