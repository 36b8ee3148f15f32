//! The foreign agent's side: visitors, and both delivery styles of RFC 3024.

use homeport_dataplane::MacAddress;
use homeport_dataplane::table::visitor::ReverseTunnel;
use homeport_dataplane::verdict::DropReason;

use crate::harness::*;
use crate::walk::{MOBILE, ROUTER, foreign_agent};

const NODE: &str = "10.1.0.10";
const CARE_OF: &str = "10.0.2.2";
const AGENT: &str = "10.0.1.2";
const FAR: &str = "192.0.2.7";

fn from_core(packet: &Ip) -> Vec<u8> {
    packet.frame(port_mac(0), station(ROUTER))
}

fn from_node(packet: &Ip) -> Vec<u8> {
    packet.frame(port_mac(1), station(MOBILE))
}

/// RFC 5944 §4.2.2: what is for no visitor is dropped in silence.
// Shows 5944-4.2.2-a, 5944-4.2.2-c, 5944-4.2.2-d, 5944-4.2.2-g, 5944-4.2.2-h, 2003-3.1-d.
#[test]
fn only_the_home_agents_tunnel_reaches_a_visitor() {
    let mut rig = foreign_agent(ReverseTunnel::None);
    let forged = Ip::data(FAR, NODE).tunnelled("10.0.1.3", CARE_OF);
    rig.assert_drops(0, &from_core(&forged), DropReason::OuterSourceMismatch);
    let stray = Ip::data(FAR, "10.1.0.11").tunnelled(AGENT, CARE_OF);
    rig.assert_drops(0, &from_core(&stray), DropReason::NoVisitor);
    for ttl in [0, 1] {
        let expired = Ip::data(FAR, NODE).ttl(ttl).tunnelled(AGENT, CARE_OF);
        rig.assert_drops(0, &from_core(&expired), DropReason::TtlExpired);
    }
    // The home agent itself speaks to its node: no loop.
    let packet = Ip::data(AGENT, NODE).tunnelled(AGENT, CARE_OF);
    let sent = rig.exchange(0, &from_core(&packet));
    assert_eq!(only(sent, 1, station(MOBILE)).ends(), (AGENT.into(), NODE.into()));
}

/// RFC 5944 §4.3: the home agent encapsulates a broadcast to the node once more,
/// and the foreign agent delivers the inner tunnel as it is.
// Shows 5944-3.6.1.2-e.
#[test]
fn a_broadcast_in_two_tunnels_reaches_the_node_in_one() {
    let mut rig = foreign_agent(ReverseTunnel::None);
    let broadcast = Ip::data("10.1.0.1", "10.1.0.255").ttl(1);
    let to_node = broadcast.tunnelled(AGENT, NODE);
    let sent = rig.exchange(0, &from_core(&to_node.tunnelled(AGENT, CARE_OF)));
    let delivered = only(sent, 1, station(MOBILE));
    assert_eq!(delivered.inner().bytes(), broadcast.bytes());
}

/// RFC 3024 §5.1.
// Shows 5944-4.2.2-i, 3024-4.2.2-c, 3024-5.1.1-b, 3024-5.1.2-a.
#[test]
fn direct_delivery_tunnels_all_but_what_is_for_the_link() {
    let mut rig = foreign_agent(ReverseTunnel::Direct);
    let sent = rig.exchange(1, &from_node(&Ip::data(NODE, FAR)));
    assert_eq!(only(sent, 0, station(ROUTER)).ends(), (CARE_OF.into(), AGENT.into()));
    for group in ["255.255.255.255", "224.0.0.1", "239.1.2.3"] {
        let mac = if group.starts_with("255") {
            MacAddress::BROADCAST
        } else {
            MacAddress::of_multicast(ip(group))
        };
        let frame = Ip::data(NODE, group).frame(mac, station(MOBILE));
        assert_eq!(rig.exchange(1, &frame), [], "{group}");
        assert_eq!(rig.to_kernel(1), [frame]);
    }
    rig.assert_drops(1, &from_node(&Ip::data(NODE, FAR).ttl(1)), DropReason::TtlExpired);
}

// Shows 5944-4.2.2-f, 3024-5.2.1-a.
#[test]
fn without_a_reverse_tunnel_plain_packets_are_routed() {
    for style in [ReverseTunnel::None, ReverseTunnel::Encapsulating] {
        let mut rig = foreign_agent(style);
        let sent = rig.exchange(1, &from_node(&Ip::data(NODE, FAR)));
        let packet = only(sent, 0, station(ROUTER));
        assert_eq!(packet.bytes(), Ip::data(NODE, FAR).ttl(63).bytes());
    }
}

// Shows 3024-5.1.1-b.
#[test]
fn a_visitors_address_is_believed_from_its_station_and_link_only() {
    let mut rig = foreign_agent(ReverseTunnel::Direct);
    let packet = Ip::data(NODE, FAR);
    let other_station = packet.frame(port_mac(1), station(77));
    rig.assert_drops(1, &other_station, DropReason::VisitorLinkMismatch);
    let other_link = packet.frame(port_mac(0), station(MOBILE));
    rig.assert_drops(0, &other_link, DropReason::VisitorLinkMismatch);
}

/// RFC 3024 §5.2: decapsulated and encapsulated anew; a broadcast keeps its TTL.
// Shows 3024-5.2.2-b, 3024-5.4-b.
#[test]
fn encapsulating_delivery_is_tunnelled_on_to_the_home_agent() {
    let mut rig = foreign_agent(ReverseTunnel::Encapsulating);
    for (destination, ttl) in [(FAR, 63), ("255.255.255.255", 64), ("224.0.0.5", 64)] {
        let packet = Ip::data(NODE, destination);
        let sent = rig.exchange(1, &from_node(&packet.tunnelled(NODE, CARE_OF)));
        let outer = only(sent, 0, station(ROUTER));
        assert_eq!(outer.ends(), (CARE_OF.into(), AGENT.into()));
        assert_eq!(outer.inner().bytes(), packet.ttl(ttl).bytes());
    }
}

/// B-09: every way in which encapsulating delivery can be forged.
// Shows attack-23.
#[test]
fn forged_encapsulating_delivery_has_a_counter_each() {
    let mut rig = foreign_agent(ReverseTunnel::Encapsulating);
    let tunnelled = Ip::data(NODE, FAR).tunnelled(NODE, CARE_OF);
    let frame = tunnelled.frame(port_mac(1), station(77));
    rig.assert_drops(1, &frame, DropReason::VisitorLinkMismatch);
    rig.assert_drops(0, &from_core(&tunnelled), DropReason::VisitorLinkMismatch);
    for inner in ["10.1.0.11", AGENT, CARE_OF, "127.0.0.1"] {
        let frame = from_node(&Ip::data(inner, FAR).tunnelled(NODE, CARE_OF));
        rig.assert_drops(1, &frame, DropReason::InnerSourceMismatch);
    }
    for style in [ReverseTunnel::None, ReverseTunnel::Direct] {
        let mut rig = foreign_agent(style);
        rig.assert_drops(1, &from_node(&tunnelled), DropReason::ReverseTunnelNotGranted);
    }
}

/// The agent's address on the visited link takes encapsulating delivery, and ends
/// no other tunnel.
#[test]
fn the_agents_address_on_the_link_ends_visitors_tunnels_only() {
    let mut rig = foreign_agent(ReverseTunnel::Encapsulating);
    let entry = homeport_dataplane::table::local::LocalEntry { agent: true, ..Default::default() };
    rig.local("10.2.0.1", entry);
    let sent = rig.exchange(1, &from_node(&Ip::data(NODE, FAR).tunnelled(NODE, "10.2.0.1")));
    assert_eq!(only(sent, 0, station(ROUTER)).ends(), (CARE_OF.into(), AGENT.into()));
    let forward = Ip::data(FAR, NODE).tunnelled(AGENT, "10.2.0.1");
    rig.assert_drops(0, &from_core(&forward), DropReason::NoVisitor);
}

/// The kernel's answers to a visitor find it on its link, whatever the kernel's
/// routes say.
// Shows 5944-1.7-c.
#[test]
fn the_kernel_reaches_a_visitor_on_its_link() {
    let mut rig = foreign_agent(ReverseTunnel::None);
    let pong = Ip::icmp(CARE_OF, NODE, 0, b"pong");
    let twin = rig.twins[0].clone().unwrap();
    assert!(twin.push(&pong.frame(station(ROUTER), port_mac(0))));
    rig.run();
    assert_eq!(only(rig.sent(), 1, station(MOBILE)).bytes(), pong.bytes());
}

/// What others on a link send to a visitor's home address goes by the routes: only
/// its home agent's tunnel reaches it.
#[test]
fn a_plain_packet_for_a_visitor_is_routed_home() {
    let mut rig = foreign_agent(ReverseTunnel::None);
    let packet = Ip::data("10.2.0.50", NODE);
    let sent = rig.exchange(1, &packet.frame(port_mac(1), station(50)));
    assert_eq!(only(sent, 0, station(ROUTER)).ends(), ("10.2.0.50".into(), NODE.into()));
}

/// A home agent and a foreign agent in one box: the care-of address is local.
#[test]
fn both_agents_in_one_box_hand_over_without_a_link() {
    let mut rig = foreign_agent(ReverseTunnel::Direct);
    rig.home_agent(AGENT);
    rig.bind(NODE, binding(AGENT, &[CARE_OF]));
    let sent = rig.exchange(0, &from_core(&Ip::data(FAR, NODE)));
    assert_eq!(only(sent, 1, station(MOBILE)).bytes(), Ip::data(FAR, NODE).ttl(62).bytes());
    let sent = rig.exchange(1, &from_node(&Ip::data(NODE, FAR)));
    assert_eq!(only(sent, 0, station(ROUTER)).bytes(), Ip::data(NODE, FAR).ttl(62).bytes());
}
