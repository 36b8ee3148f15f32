//! The home agent's side: tunnels to nodes that are away, and what comes back.

use homeport_dataplane::table::binding::{BindingEntry, Encapsulation, TunnelFlags};
use homeport_dataplane::verdict::DropReason;
use homeport_wire::{ArpOperation, ArpPacket, EtherType, EthernetHeader, MacAddress};
use zerocopy::FromBytes;

use crate::harness::*;
use crate::walk::{ROUTER, home_agent};

const NODE: &str = "10.1.0.10";
const CARE_OF: &str = "10.0.2.2";
const AGENT: &str = "10.0.1.2";
const FAR: &str = "192.0.2.7";

fn from_core(packet: &Ip) -> Vec<u8> {
    packet.frame(port_mac(0), station(ROUTER))
}

/// RFC 5944 §3.3, flag S: one copy for each binding, one packet more made here
/// for each but the first.
#[test]
fn simultaneous_bindings_get_a_copy_each() {
    let mut rig = home_agent();
    let ends = ["10.0.2.2", "10.0.3.2", "10.0.4.2", "10.0.5.2"];
    rig.bind(NODE, binding(AGENT, &ends));
    let sent = rig.exchange(0, &from_core(&Ip::data(FAR, NODE)));
    let mut reached: Vec<String> = sent.iter().map(|(_, frame)| parse(frame).1.ends().1).collect();
    reached.sort();
    assert_eq!(reached, ends);
    for (_, frame) in &sent {
        assert_eq!(parse(frame).1.inner().bytes(), Ip::data(FAR, NODE).ttl(63).bytes());
    }
    assert_eq!((rig.stats(0).rx.get(), rig.stats(0).originated.get()), (1, 3));
}

/// RFC 2003 §3.1: the TTL is decremented because the packet is forwarded; at the
/// last one the sender is told.
// Shows 2003-3.1-c.
#[test]
fn a_packet_with_its_last_ttl_is_not_tunnelled() {
    let mut rig = home_agent();
    rig.assert_drops(0, &from_core(&Ip::data(FAR, NODE).ttl(1)), DropReason::TtlExpired);
    rig.assert_drops(0, &from_core(&Ip::data(FAR, NODE).ttl(0)), DropReason::TtlExpired);
}

/// RFC 2003 §3.2 and RFC 5944 §4.2.3.
// Shows 5944-4.2.3-k, 5944-4.2.3-l, 2003-3.2-a, 2003-3.2-b, attack-27.
#[test]
fn what_comes_from_the_tunnels_own_end_is_not_tunnelled_again() {
    let mut rig = home_agent();
    rig.assert_drops(0, &from_core(&Ip::data(CARE_OF, NODE)), DropReason::TunnelLoop);
    // Already encapsulated, for the node itself, by its current care-of address.
    let looped = Ip::data(FAR, NODE).tunnelled(CARE_OF, NODE);
    rig.assert_drops(0, &from_core(&looped), DropReason::TunnelLoop);
    // By another address: forwarded to the node.
    let sent = rig.exchange(0, &from_core(&Ip::data(FAR, NODE).tunnelled("10.9.9.9", NODE)));
    assert_eq!(only(sent, 0, station(ROUTER)).inner().inner().ends(), (FAR.into(), NODE.into()));
    // The home agent is another tenant's here, so its address is no local one.
    rig.bind(NODE, binding("10.7.7.7", &[CARE_OF]));
    rig.assert_drops(0, &from_core(&Ip::data("10.7.7.7", NODE)), DropReason::TunnelLoop);
}

/// Two nodes, each bound to the other's home address: a packet does not grow
/// without end.
// Shows attack-27.
#[test]
fn care_of_addresses_that_point_at_each_other_end_in_a_drop() {
    let mut rig = home_agent();
    rig.bind("10.1.0.10", binding(AGENT, &["10.1.0.11"]));
    rig.bind("10.1.0.11", binding(AGENT, &["10.1.0.10"]));
    rig.assert_drops(0, &from_core(&Ip::data(FAR, NODE)), DropReason::NestedTunnel);
}

/// A node behind a node: its care-of address is a home address of ours.
// Shows 5944-4.2.3-m.
#[test]
fn a_care_of_address_that_is_itself_away_is_reached_by_two_tunnels() {
    let mut rig = home_agent();
    rig.bind("10.1.0.11", binding(AGENT, &[NODE]));
    let sent = rig.exchange(0, &from_core(&Ip::data(FAR, "10.1.0.11")));
    let outer = only(sent, 0, station(ROUTER));
    assert_eq!(outer.ends(), (AGENT.into(), CARE_OF.into()));
    assert_eq!(outer.inner().ends(), (AGENT.into(), NODE.into()));
    assert_eq!(outer.inner().inner().ends(), (FAR.into(), "10.1.0.11".into()));
}

/// Reliability, attack 23: outer and inner source in every combination; only what
/// is right in both is forwarded (RFC 3024 §4.3.2, B-09).
// Shows 3024-4.3.2-b, attack-23.
#[test]
fn only_the_bound_node_comes_out_of_its_reverse_tunnel() {
    let outers = [(CARE_OF, true), ("10.0.3.2", false)];
    let inners = [
        (NODE, None),
        ("10.1.0.11", Some(DropReason::OuterSourceMismatch)),
        ("10.1.0.99", Some(DropReason::NoBinding)),
        (AGENT, Some(DropReason::MartianSource)),
        ("224.0.0.1", Some(DropReason::MartianSource)),
        ("255.255.255.255", Some(DropReason::MartianSource)),
        ("127.0.0.1", Some(DropReason::MartianSource)),
        ("0.0.0.0", Some(DropReason::MartianSource)),
    ];
    for (outer, outer_right) in outers {
        for (inner, reason) in inners {
            let mut rig = home_agent();
            rig.bind("10.1.0.11", binding(AGENT, &["10.0.9.9"]));
            let frame = from_core(&Ip::data(inner, FAR).tunnelled(outer, AGENT));
            let mismatch = (!outer_right).then_some(DropReason::OuterSourceMismatch);
            match reason.or(mismatch) {
                Some(reason) => rig.assert_drops(0, &frame, reason),
                None => {
                    let packet = only(rig.exchange(0, &frame), 0, station(ROUTER));
                    assert_eq!(packet.ends(), (NODE.into(), FAR.into()));
                }
            }
        }
    }
}

// Shows 3024-4.3.2-c.
#[test]
fn a_reverse_tunnel_that_was_not_granted_is_closed() {
    let mut rig = home_agent();
    let tunnel = (CARE_OF, Encapsulation::IpInIp, TunnelFlags::default());
    rig.bind(NODE, binding_of(AGENT, None, &[tunnel]));
    let frame = from_core(&Ip::data(NODE, FAR).tunnelled(CARE_OF, AGENT));
    rig.assert_drops(0, &frame, DropReason::ReverseTunnelNotGranted);
}

// Shows 3024-4.3.2-c.
#[test]
fn a_tunnel_ends_only_at_an_agents_address_and_only_as_negotiated() {
    let mut rig = home_agent();
    rig.local("10.0.1.9", Default::default());
    let inner = Ip::data(NODE, FAR);
    let frame = from_core(&inner.tunnelled(CARE_OF, "10.0.1.9"));
    rig.assert_drops(0, &frame, DropReason::UnknownTunnel);
    for how in EVERY.into_iter().skip(1) {
        let frame = from_core(&inner.arriving(how, CARE_OF, AGENT));
        rig.assert_drops(0, &frame, DropReason::EncapsulationMismatch);
    }
    let broken = Ip { payload: b"no packet".to_vec(), ..inner.tunnelled(CARE_OF, AGENT) };
    rig.assert_drops(0, &from_core(&broken), DropReason::MalformedInner);
    // Congestion was marked for a packet that cannot tell (RFC 6040 §4.2).
    let marked = inner.tunnelled(CARE_OF, AGENT).tos(3);
    rig.assert_drops(0, &from_core(&marked), DropReason::EcnMismatch);
}

#[test]
fn tunnels_in_tunnels_come_out_up_to_the_limit() {
    let mut rig = home_agent();
    let mut packet = Ip::data(NODE, FAR);
    for depth in 1..=6 {
        packet = if depth == 1 {
            packet.tunnelled(CARE_OF, AGENT)
        } else {
            // Each outer packet claims to come from the node that the next one is
            // bound to.
            rig.bind(CARE_OF, binding(AGENT, &[CARE_OF]));
            packet.tunnelled(CARE_OF, AGENT)
        };
        let frame = from_core(&packet);
        if depth <= 4 {
            let sent = rig.exchange(0, &frame);
            assert_eq!(only(sent, 0, station(ROUTER)).ends(), (NODE.into(), FAR.into()));
        } else {
            rig.assert_drops(0, &frame, DropReason::NestedTunnel);
        }
    }
}

/// Both nodes are away: out of one tunnel and into the other.
// Shows 5944-4.2.3-d, 5944-4.2.3-f.
#[test]
fn nodes_of_one_home_agent_reach_each_other() {
    let mut rig = home_agent();
    rig.bind("10.1.0.11", binding(AGENT, &["10.0.3.2"]));
    let frame = from_core(&Ip::data(NODE, "10.1.0.11").tunnelled(CARE_OF, AGENT));
    let packet = only(rig.exchange(0, &frame), 0, station(ROUTER));
    assert_eq!(packet.ends(), (AGENT.into(), "10.0.3.2".into()));
    assert_eq!(packet.inner().bytes(), Ip::data(NODE, "10.1.0.11").ttl(63).bytes());
}

#[test]
fn what_a_node_sends_through_its_tunnel_to_the_agent_goes_to_the_kernel() {
    let mut rig = home_agent();
    let echo = Ip::icmp(NODE, AGENT, 8, b"ping");
    assert_eq!(rig.exchange(0, &from_core(&echo.tunnelled(CARE_OF, AGENT))), []);
    let frames = rig.to_kernel(0);
    let (ethernet, packet) = parse(&frames[0]);
    assert_eq!(ethernet.destination, port_mac(0));
    assert_eq!(packet.bytes(), echo.bytes());
    // What is for a group stays in the tunnel's end.
    for group in ["255.255.255.255", "224.0.0.1"] {
        let frame = from_core(&Ip::data(NODE, group).tunnelled(CARE_OF, AGENT));
        rig.assert_drops(0, &frame, DropReason::NotForwarded);
    }
}

fn with_home_link(port: u16) -> BindingEntry {
    let tunnel = (CARE_OF, Encapsulation::IpInIp, TunnelFlags::REVERSE);
    binding_of(AGENT, Some(port), &[tunnel])
}

fn who_has(sender: &str, target: &str) -> ArpPacket {
    let mac = station(99);
    ArpPacket::new(ArpOperation::REQUEST, mac, ip(sender), MacAddress::UNSPECIFIED, ip(target))
}

/// B-06.
// Shows 5944-4.6-c, 5944-4.6-d.
#[test]
fn arp_for_a_node_that_is_away_is_answered_on_its_home_link() {
    let mut rig = home_agent();
    rig.bind(NODE, with_home_link(1));
    let frame = arp_frame(MacAddress::BROADCAST, &who_has("10.1.0.99", NODE));
    let sent = rig.exchange(1, &frame);
    assert_eq!(sent.len(), 1);
    let (ethernet, rest) = EthernetHeader::ref_from_prefix(&sent[0].1).unwrap();
    assert_eq!((sent[0].0, ethernet.destination, ethernet.source), (1, station(99), port_mac(1)));
    let answer = ArpPacket::new_checked(rest).unwrap();
    assert_eq!(answer.operation(), ArpOperation::REPLY);
    assert_eq!((answer.sender_mac, answer.sender_address()), (port_mac(1), ip(NODE)));
    assert_eq!((answer.target_mac, answer.target_address()), (station(99), ip("10.1.0.99")));
    assert_eq!(rig.stats(1).transmitted.get(), 1);
}

/// B-06, RFC 5944 §4.6, RFC 5227 §2.1.1.
// Shows 5944-4.2.3-b.
#[test]
fn every_other_arp_packet_goes_to_the_kernel_as_it_is() {
    let mut rig = home_agent();
    rig.bind(NODE, with_home_link(1));
    let reply = |sender: &str| {
        let ends = ((station(99), ip(sender)), (port_mac(1), ip("10.1.0.1")));
        ArpPacket::new(ArpOperation::REPLY, ends.0.0, ends.0.1, ends.1.0, ends.1.1)
    };
    let group_sender = ArpPacket::new(
        ArpOperation::REQUEST,
        MacAddress::BROADCAST,
        ip("10.1.0.99"),
        MacAddress::UNSPECIFIED,
        ip(NODE),
    );
    for (port, arp) in [
        (1, who_has(NODE, NODE)),               // the node announces itself
        (1, who_has("0.0.0.0", NODE)),          // the node asks whether it is alone
        (1, who_has("10.1.0.99", "10.1.0.98")), // not bound
        (0, who_has("10.1.0.99", NODE)),        // not its home link
        (1, reply(NODE)),
        (1, group_sender),
    ] {
        let frame = arp_frame(MacAddress::BROADCAST, &arp);
        assert_eq!(rig.exchange(port, &frame), [], "{arp:?}");
        assert_eq!(rig.to_kernel(port), [frame]);
    }
    // On a virtual home network nobody asks.
    rig.bind(NODE, binding(AGENT, &[CARE_OF]));
    let frame = arp_frame(MacAddress::BROADCAST, &who_has("10.1.0.99", NODE));
    assert_eq!(rig.exchange(1, &frame), []);
}

/// The kernel may believe that a node is on its home link.
#[test]
fn the_kernel_reaches_a_node_that_is_away() {
    let mut rig = home_agent();
    rig.bind(NODE, with_home_link(1));
    let question = ArpPacket::new(
        ArpOperation::REQUEST,
        port_mac(1),
        ip("10.1.0.1"),
        MacAddress::UNSPECIFIED,
        ip(NODE),
    );
    let twin = rig.twins[1].clone().unwrap();
    assert!(twin.push(&arp_frame(MacAddress::BROADCAST, &question)));
    rig.run();
    assert_eq!(rig.sent(), []);
    let answers = rig.to_kernel(1);
    let (_, rest) = EthernetHeader::ref_from_prefix(&answers[0]).unwrap();
    assert_eq!(ArpPacket::new_checked(rest).unwrap().sender_address(), ip(NODE));
    // A ping from the agent's own address, which is the outer source as well.
    let ping = Ip::icmp(AGENT, NODE, 8, b"ping");
    assert!(twin.push(&ping.frame(port_mac(1), port_mac(1))));
    rig.run();
    let outer = only(rig.sent(), 0, station(ROUTER));
    assert_eq!(outer.ends(), (AGENT.into(), CARE_OF.into()));
    assert_eq!(outer.inner().bytes(), ping.bytes());
    assert_eq!(rig.stats(1).from_kernel.get(), 2);
    // Everything else leaves as the kernel made it, on the port of its twin.
    let ipv6 = EthernetHeader::new(station(3), port_mac(1), EtherType(0x86dd));
    let frames = [
        zerocopy::IntoBytes::as_bytes(&ipv6).to_vec(),
        Ip::data(AGENT, "10.1.0.5").frame(station(5), port_mac(1)),
        Ip::udp(AGENT, NODE, (434, 434)).frame(station(5), port_mac(1)),
        Ip::data(AGENT, "224.0.0.1").frame(MacAddress::of_multicast(ip("224.0.0.1")), port_mac(1)),
        b"short".to_vec(),
    ];
    for frame in frames {
        assert!(twin.push(&frame));
        rig.run();
        assert_eq!(rig.sent(), [(1, frame)]);
    }
}

/// B-06, RFC 5944 §4.3: a co-located node gets the broadcast in one tunnel, a node
/// behind a foreign agent in two; who did not ask gets none.
// Shows 5944-3.6.1.2-c, 5944-3.6.1.2-d, 5944-4.3-a, 5944-4.3-b, 5944-4.4-d.
#[test]
fn broadcasts_and_groups_of_the_home_link_reach_the_nodes_that_asked() {
    let mut rig = home_agent();
    rig.local(
        "10.1.0.255",
        homeport_dataplane::table::local::LocalEntry { broadcast: true, ..Default::default() },
    );
    let listening = |care_of: &str, co_located: bool| {
        let flags = TunnelFlags::BROADCAST.with(TunnelFlags::CO_LOCATED, co_located);
        binding_of(AGENT, Some(1), &[(care_of, Encapsulation::IpInIp, flags)])
    };
    rig.bind("10.1.0.10", listening("10.0.2.2", false));
    rig.bind("10.1.0.11", listening("10.0.3.3", true));
    rig.bind("10.1.0.12", with_home_link(1));
    for destination in ["255.255.255.255", "10.1.0.255", "239.1.2.3"] {
        let broadcast = Ip::udp("10.1.0.50", destination, (137, 137)).ttl(1);
        let frame = broadcast.frame(MacAddress::BROADCAST, station(50));
        let sent = rig.exchange(1, &frame);
        let outers: Vec<Ip> = sent.iter().map(|(_, frame)| parse(frame).1).collect();
        assert_eq!(outers.len(), 2);
        assert_eq!(outers[0].ends(), (AGENT.into(), "10.0.2.2".into()));
        assert_eq!(outers[0].inner().ends(), (AGENT.into(), "10.1.0.10".into()));
        assert_eq!(outers[0].inner().inner().bytes(), broadcast.bytes());
        assert_eq!(outers[1].ends(), (AGENT.into(), "10.0.3.3".into()));
        assert_eq!(outers[1].inner().bytes(), broadcast.bytes());
        assert_eq!(rig.to_kernel(1), std::slice::from_ref(&frame));
        // Not those of another link.
        assert_eq!(rig.exchange(0, &frame), []);
        rig.to_kernel(0);
    }
    // Signalling, and what has no address yet, stays on the link.
    for quiet in [
        Ip::udp("10.1.0.50", "255.255.255.255", (434, 434)),
        Ip::udp("0.0.0.0", "255.255.255.255", (68, 67)),
        Ip::icmp("10.1.0.50", "255.255.255.255", 10, b""),
        Ip::udp("10.1.0.50", "224.0.0.251", (5353, 5353)),
    ] {
        let sent = rig.exchange(1, &quiet.frame(MacAddress::BROADCAST, station(50)));
        assert_eq!(sent, []);
    }
    // Home again.
    let key = homeport_dataplane::table::binding::BindingKey {
        tenant: TENANT,
        home_address: ip("10.1.0.10"),
    };
    rig.control.bindings.remove(&key);
    rig.control.listeners.update(key, None).unwrap();
    let broadcast = Ip::udp("10.1.0.50", "255.255.255.255", (137, 137));
    let sent = rig.exchange(1, &broadcast.frame(MacAddress::BROADCAST, station(50)));
    assert_eq!(only(sent, 0, station(ROUTER)).ends().1, "10.0.3.3");
}
