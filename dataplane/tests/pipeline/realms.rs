//! Overlapping address realms at a foreign agent: rows S3-11 to S3-17.

use homeport_dataplane::MacAddress;
use homeport_dataplane::table::local::LocalEntry;
use homeport_dataplane::table::visitor::{ReverseTunnel, VisitorEntry};
use homeport_dataplane::verdict::DropReason;

use crate::harness::*;
use crate::walk::ROUTER;

/// The home address of both visitors.
const NODE: &str = "10.1.0.10";
const CARE_OF: &str = "10.0.2.2";
const LINK: &str = "10.2.0.1";
const FAR: &str = "192.0.2.7";

/// A visitor with the address [`NODE`]: its station and its home agent.
struct Guest {
    station: MacAddress,
    agent: &'static str,
    tag: &'static [u8],
}

const GUESTS: [Guest; 3] = [
    Guest { station: station(20), agent: "10.0.1.2", tag: b"the first one's own bytes" },
    Guest { station: station(21), agent: "10.0.7.2", tag: b"another's, of another network" },
    Guest { station: station(22), agent: "10.0.8.2", tag: b"a third" },
];

impl Guest {
    fn entry(&self, style: ReverseTunnel) -> VisitorEntry {
        let entry = visitor(self.station, 1, self.agent, CARE_OF, style);
        VisitorEntry { overlapping: true, ..entry }
    }

    /// A packet with its tag.
    fn data(&self, source: &str, destination: &str) -> Ip {
        Ip::data(source, destination).payload(self.tag.to_vec())
    }

    /// A frame of it on the visited link.
    fn frame(&self, packet: &Ip) -> Vec<u8> {
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
