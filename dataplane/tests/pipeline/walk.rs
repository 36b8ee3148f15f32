//! Walk 1 of the design, both directions: correspondent node, home agent, foreign
//! agent, mobile node, and back.

use homeport_dataplane::table::binding::{Encapsulation, TunnelFlags};
use homeport_dataplane::table::visitor::{ReverseTunnel, VisitorEntry};

use crate::harness::*;

pub(crate) const ROUTER: u8 = 1;
pub(crate) const MOBILE: u8 = 10;

/// The agents as the walk has them: port 0 is the core, port 1 the agent's link.
pub(crate) fn home_agent() -> Rig {
    let mut rig = Rig::new(2);
    rig.home_agent("10.0.1.2");
    rig.route("10.1.0.0/24", 1, None);
    rig.route("0.0.0.0/0", 0, Some("10.0.1.1"));
    rig.neighbor(0, "10.0.1.1", station(ROUTER));
    rig.bind("10.1.0.10", binding("10.0.1.2", &["10.0.2.2"]));
    rig
}

pub(crate) fn foreign_agent(reverse_tunnel: ReverseTunnel) -> Rig {
    let mut rig = Rig::new(2);
    rig.foreign_agent("10.0.2.2");
    rig.route("0.0.0.0/0", 0, Some("10.0.2.1"));
    rig.neighbor(0, "10.0.2.1", station(ROUTER));
    let entry = visitor(station(MOBILE), 1, "10.0.1.2", "10.0.2.2", reverse_tunnel);
    rig.visit("10.1.0.10", entry);
    rig
}

/// B-04: in a tunnel of each kind the packet arrives at the node with its TTL three
/// links older: both agents forward it, and nothing else of it changes.
// Shows 5944-4.1-a.
#[test]
fn a_packet_goes_through_both_agents_to_the_node_and_its_answer_back() {
    for how in EVERY {
        // An agent's own port is 434, so each is the other's peer with it.
        let how = match how {
            Encapsulation::Udp { .. } => Encapsulation::Udp { peer_port: 434 },
            Encapsulation::PlainUdp { .. } => Encapsulation::PlainUdp { peer_port: 434 },
            other => other,
        };
        through_both_agents(how);
    }
}

fn through_both_agents(how: Encapsulation) {
    let (mut home, mut foreign) = (home_agent(), foreign_agent(ReverseTunnel::Direct));
    let tunnel = ("10.0.2.2", how, TunnelFlags::REVERSE);
    home.bind("10.1.0.10", binding_of("10.0.1.2", None, &[tunnel]));
    let entry = visitor(station(MOBILE), 1, "10.0.1.2", "10.0.2.2", ReverseTunnel::Direct);
    foreign.visit("10.1.0.10", VisitorEntry { encapsulation: how, ..entry });
    // The tunnel's links cost minimal encapsulation the packet's own TTL (RFC 2004 §3),
    // the others the outer one.
    let is_minimal = how == Encapsulation::Minimal;
    let older = |packet: Ip| {
        let ttl = packet.ttl - 4;
        packet.ttl(ttl)
    };

    let request = Ip::data("192.0.2.7", "10.1.0.10").tos(0xb8);
    let frame = request.frame(port_mac(0), station(ROUTER));
    let tunnelled = only(home.exchange(0, &frame), 0, station(ROUTER));
    let expected = request.clone().ttl(63).leaving(how, "10.0.1.2", "10.0.2.2").tos(0xb8);
    assert_eq!(tunnelled.bytes(), expected.bytes(), "{how:?}");

    let frame = older(tunnelled).frame(port_mac(0), station(ROUTER));
    let delivered = only(foreign.exchange(0, &frame), 1, station(MOBILE));
    assert_eq!(delivered.bytes(), request.ttl(if is_minimal { 58 } else { 62 }).bytes());

    let answer = Ip::data("10.1.0.10", "192.0.2.7");
    let frame = answer.frame(port_mac(1), station(MOBILE));
    let tunnelled = only(foreign.exchange(1, &frame), 0, station(ROUTER));
    let expected = answer.clone().ttl(63).leaving(how, "10.0.2.2", "10.0.1.2");
    assert_eq!(tunnelled.bytes(), expected.bytes(), "{how:?}");

    let frame = tunnelled.frame(port_mac(0), station(ROUTER));
    let delivered = only(home.exchange(0, &frame), 0, station(ROUTER));
    assert_eq!(delivered.bytes(), answer.ttl(62).bytes());

    for rig in [&home, &foreign] {
        assert_eq!(rig.stats(0).encapsulated.get() + rig.stats(1).encapsulated.get(), 1);
        assert_eq!(rig.stats(0).decapsulated.get() + rig.stats(1).decapsulated.get(), 1);
    }
    // Counted where it came in; sent where it left.
    assert_eq!((foreign.stats(0).transmitted.get(), foreign.stats(1).tx.get()), (1, 1));
    assert_eq!((foreign.stats(1).transmitted.get(), foreign.stats(0).tx.get()), (1, 1));
}

/// The loops over a burst have a head, a body and a tail.
#[test]
fn bursts_of_every_length_arrive_whole_and_in_order() {
    for count in [1u8, 31, 32, 33, 63] {
        let mut home = home_agent();
        for number in 0..count {
            let data = Ip::data("192.0.2.7", "10.1.0.10").payload(vec![number; 9]);
            home.push(0, &data.frame(port_mac(0), station(ROUTER)));
        }
        home.run();
        let order: Vec<u8> =
            home.sent().iter().map(|(_, frame)| parse(frame).1.inner().payload[0]).collect();
        assert_eq!(order, (0..count).collect::<Vec<_>>());
    }
}
