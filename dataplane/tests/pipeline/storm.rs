//! Registration messages under overload: which go first, and what no flood takes
//! from them. The control core is the test: it takes so many a millisecond.

use std::collections::BTreeMap;
use std::time::Duration;

use homeport_dataplane::config::RegistrationLimits;
use homeport_dataplane::table::binding::{Encapsulation, TunnelFlags};
use homeport_dataplane::table::visitor::ReverseTunnel;
use homeport_dataplane::verdict::{DropReason, PuntReason};
use homeport_wire::UdpHeader;
use zerocopy::IntoBytes;

use crate::harness::*;

const HOME_AGENT: &str = "10.0.1.2";
const FOREIGN_AGENT: &str = "10.0.2.2";
const REQUEST: u8 = 1;
const REPLY: u8 = 3;

/// A Registration Request or Reply (RFC 5944 §3.3, §3.4) that names this node.
fn message(kind: u8, source: &str, destination: &str, node: &str) -> Ip {
    let mut data = vec![kind, 0, 0, 60];
    data.extend(ip(node).octets());
    data.resize(24, 0);
    let ends = ((ip(source), 434), (ip(destination), 434));
    let udp = UdpHeader::new(ends.0, ends.1, &data).unwrap();
    Ip::udp(source, destination, (434, 434)).payload([udp.as_bytes(), &data].concat())
}

fn node(number: usize) -> String {
    format!("10.1.0.{number}")
}

/// A home agent with so many bound nodes, each at an address of its own, the home
/// link behind port 1.
fn home_agent(nodes: usize, limits: RegistrationLimits, ring: usize) -> Rig {
    let mut plan = Plan::ports(2);
    plan.config.registrations = limits;
    plan.config.registration_ring = ring;
    let mut rig = plan.build();
    rig.home_agent(HOME_AGENT);
    for number in 0..nodes {
        let care_of = format!("172.16.{number}.9");
        let tunnels = [(care_of.as_str(), Encapsulation::IpInIp, TunnelFlags::REVERSE)];
        rig.bind(&node(number), binding_of(HOME_AGENT, Some(1), &tunnels));
    }
    rig
}

fn limits() -> RegistrationLimits {
    RegistrationLimits { per_prefix: 20, per_known_prefix: 50, moves_first: 1000 }
}

impl Rig {
    /// What a packet is punted as.
    fn reason(&mut self, port: u8, packet: &Ip, from: u8) -> Option<PuntReason> {
        self.push(port.into(), &packet.frame(port_mac(port), station(from)));
        self.run();
        let mut punts = self.punts();
        assert!(punts.len() <= 1);
        punts.pop().map(|(header, _)| header.reason().unwrap())
    }

    /// Takes so many messages as the control core does, and counts from where they are.
    fn serve(&mut self, count: usize, served: &mut BTreeMap<String, u64>) {
        let mut buffer = Vec::new();
        for _ in 0..count {
            let Some((_, frame)) = self.control.punts.next(&mut buffer) else { return };
            *served.entry(parse(frame).1.ends().0).or_default() += 1;
        }
    }
}

#[test]
fn what_the_tables_say_of_a_node_decides_whether_its_message_goes_first() {
    let mut rig = home_agent(4, limits(), 1 << 16);
    let first = Some(PuntReason::Renewal);
    let request = |source: &str, node: &str| message(REQUEST, source, HOME_AGENT, node);
    // From its care-of address; come home; moved; new.
    assert_eq!(rig.reason(0, &request("172.16.3.9", &node(3)), 7), first);
    assert_eq!(rig.reason(1, &request(&node(3), &node(3)), 7), first);
    assert_eq!(rig.reason(0, &request("192.0.2.1", &node(3)), 7), first);
    let new = Some(PuntReason::Registration);
    assert_eq!(rig.reason(0, &request("192.0.2.1", "10.1.0.200"), 7), new);
    // A home agent is sent no replies, and what is cut off names nobody.
    assert_eq!(rig.reason(0, &message(REPLY, "172.16.3.9", HOME_AGENT, &node(3)), 7), new);
    let short = request("172.16.3.9", &node(3));
    let short = Ip::udp("172.16.3.9", HOME_AGENT, (434, 434))
        .payload([&[1, 178, 1, 178, 0, 15, 0, 0], &short.payload[8..15]].concat());
    assert_eq!(rig.reason(0, &short, 7), new);

    let mut rig = Plan::ports(2).build();
    rig.foreign_agent(FOREIGN_AGENT);
    let visiting = visitor(station(7), 1, HOME_AGENT, FOREIGN_AGENT, ReverseTunnel::Direct);
    rig.visit(&node(3), visiting);
    let request = |node: &str| message(REQUEST, node, FOREIGN_AGENT, node);
    assert_eq!(rig.reason(1, &request(&node(3)), 7), first);
    assert_eq!(rig.reason(1, &request(&node(3)), 8), first);
    assert_eq!(rig.reason(1, &request(&node(4)), 7), new);
    for (from, node) in [(HOME_AGENT, node(3)), ("192.0.2.1", node(3)), (HOME_AGENT, node(4))] {
        assert_eq!(rig.reason(0, &message(REPLY, from, FOREIGN_AGENT, &node), 9), first);
    }
}

/// Reliability, rules 2 and 12.
#[test]
fn a_network_has_a_budget_and_one_where_nodes_are_a_larger_one() {
    let mut rig = home_agent(2, limits(), 1 << 16);
    let request = |source: &str, node: &str| message(REQUEST, source, HOME_AGENT, node);
    let passed = |rig: &mut Rig, packet: &Ip| {
        (0..200).filter(|_| rig.reason(0, packet, 7).is_some()).count()
    };
    assert_eq!(passed(&mut rig, &request("192.0.2.1", "10.1.0.200")), 20);
    assert_eq!(passed(&mut rig, &request("192.0.2.77", "10.1.0.201")), 0, "the same network");
    assert_eq!(rig.dropped(DropReason::RegistrationRate), 380);
    rig.advance(Duration::from_millis(500));
    assert_eq!(passed(&mut rig, &request("192.0.2.1", "10.1.0.200")), 10);
    // Before and after it is known that a node is there.
    assert_eq!(passed(&mut rig, &request("172.16.1.200", "10.1.0.200")), 20);
    assert_eq!(passed(&mut rig, &request("172.16.1.9", &node(1))), 50);
    rig.advance(Duration::from_secs(1));
    assert_eq!(passed(&mut rig, &request("172.16.1.200", "10.1.0.200")), 50);
    assert_eq!(passed(&mut rig, &request("172.16.1.9", &node(1))), 50, "not of its budget");
    // Nobody has been there for long.
    rig.advance(Duration::from_secs(601));
    assert_eq!(passed(&mut rig, &request("172.16.1.200", "10.1.0.200")), 20);
}

/// Reliability, rows 17 and 33, figure 8: ten times what the control core can do.
/// Its capacity is 10 a millisecond; 5 are renewals of bound nodes.
fn flood(forged: impl Fn(usize) -> Ip) -> (Rig, u64, u64) {
    const NODES: usize = 50;
    let limits = RegistrationLimits { per_prefix: 2_000, per_known_prefix: 2_000, ..limits() };
    let mut rig = home_agent(NODES, limits, 1 << 14);
    let mut served = BTreeMap::new();
    let (mut sent, mut forgeries) = (0, 0);
    for tick in 0..1_000 {
        for _ in 0..95 {
            rig.push(0, &forged(forgeries).frame(port_mac(0), station(9)));
            forgeries += 1;
        }
        for number in (0..5).map(|n| (tick * 5 + n) % NODES) {
            let source = format!("172.16.{number}.9");
            let renewal = message(REQUEST, &source, HOME_AGENT, &node(number));
            rig.push(0, &renewal.frame(port_mac(0), station(9)));
            sent += 1;
        }
        rig.advance(Duration::from_millis(1));
        rig.serve(10, &mut served);
    }
    let renewals = |source: &String| source.starts_with("172.16.") && source.ends_with(".9");
    let legitimate = served.iter().filter(|(source, _)| renewals(source)).map(|(_, n)| n).sum();
    let others: u64 = served.iter().filter(|(source, _)| !renewals(source)).map(|(_, n)| n).sum();
    assert!(others > 1_000, "the others starve: {others}");
    assert!(rig.dropped(DropReason::PuntQueueFull) > 10_000);
    (rig, sent, legitimate)
}

// Shows attack-33.
#[test]
fn new_nodes_in_their_thousands_delay_no_renewal() {
    let (_, sent, served) = flood(|number| {
        let source = format!("10.{}.{}.7", 64 + number / 256 % 64, number % 256);
        message(REQUEST, &source, HOME_AGENT, &format!("10.9.{}.{}", number % 250, number % 199))
    });
    assert_eq!(served, sent);
}

// Shows attack-33.
#[test]
fn forged_renewals_from_other_networks_cost_the_true_ones_nothing() {
    let (rig, sent, served) = flood(|number| {
        let source = format!("10.{}.{}.7", 64 + number / 256 % 64, number % 256);
        message(REQUEST, &source, HOME_AGENT, &node(number % 50))
    });
    assert_eq!(served, sent);
    // Some of them did go first: they may be nodes that have moved.
    let first = rig.punted(PuntReason::Renewal) - sent;
    assert!((900..=1_200).contains(&first), "{first}");
}

#[test]
fn what_is_punted_says_how_long_it_has_waited() {
    let mut rig = home_agent(1, limits(), 1 << 16);
    let request = message(REQUEST, "172.16.0.9", HOME_AGENT, &node(0));
    rig.push(0, &request.frame(port_mac(0), station(9)));
    rig.run();
    let header = rig.punts()[0].0;
    let at = |later| rig.control.punts.millis(rig.now + Duration::from_millis(later));
    assert_eq!(header.waited(at(0)), Duration::ZERO);
    assert_eq!(header.waited(at(1_234)), Duration::from_millis(1_234));
}
