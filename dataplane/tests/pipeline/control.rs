//! The rings to and from the control core.

use homeport_dataplane::PortId;
use homeport_dataplane::punt::{InjectHeader, InjectKind};
use homeport_dataplane::table::visitor::ReverseTunnel;
use homeport_dataplane::verdict::{DropReason, PuntReason};

use crate::harness::*;
use crate::walk::{MOBILE, ROUTER, foreign_agent, home_agent};

const NODE: &str = "10.1.0.10";
const AGENT: &str = "10.0.1.2";
const FAR: &str = "192.0.2.7";

#[test]
fn an_injected_frame_leaves_as_it_is() {
    let mut rig = home_agent();
    let arp = homeport_wire::ArpPacket::gratuitous(ip(NODE), port_mac(1));
    let frame = arp_frame(homeport_dataplane::MacAddress::BROADCAST, &arp);
    rig.inject(1, InjectKind::Frame, &frame);
    rig.run();
    assert_eq!(rig.sent(), [(1, frame)]);
    assert_eq!((rig.stats(1).injected.get(), rig.stats(1).tx.get()), (1, 1));
}

/// Ours: no TTL is taken, signalling is never tunnelled (RFC 3519 §4.6), the rest
/// is.
// Shows 3519-4.2-a.
#[test]
fn an_injected_packet_is_routed_like_our_own() {
    let mut rig = home_agent();
    rig.route("10.1.0.0/24", 1, None);
    rig.neighbor(1, NODE, station(MOBILE));
    let reply = Ip::udp(AGENT, NODE, (434, 1434)).ttl(1);
    rig.inject(0, InjectKind::Routed, &reply.bytes());
    rig.run();
    assert_eq!(only(rig.sent(), 1, station(MOBILE)).bytes(), reply.bytes());
    let data = Ip::data(AGENT, NODE);
    rig.inject(0, InjectKind::Routed, &data.bytes());
    rig.run();
    let outer = only(rig.sent(), 0, station(ROUTER));
    assert_eq!(outer.ends(), (AGENT.into(), "10.0.2.2".into()));
    assert_eq!(outer.inner().bytes(), data.bytes());
    // To ourselves: the other agent in this box, or the kernel.
    let request = Ip::udp(AGENT, AGENT, (434, 434));
    rig.inject(1, InjectKind::Routed, &request.bytes());
    rig.run();
    let punts = rig.punts();
    assert_eq!(parse(&punts[0].1).1.bytes(), request.bytes());
    assert_eq!(punts[0].0.port(), PortId(1));
    rig.inject(1, InjectKind::Routed, &Ip::data(AGENT, AGENT).bytes());
    rig.run();
    assert_eq!(rig.to_kernel(1).len(), 1);
    rig.inject(0, InjectKind::Routed, &Ip::data(AGENT, "224.0.0.1").bytes());
    rig.run();
    assert_eq!(rig.dropped(DropReason::NotForwarded), 1);
}

// Shows 5944-4.2.2-g.
#[test]
fn an_injected_packet_for_a_visitor_goes_to_its_station() {
    let mut rig = foreign_agent(ReverseTunnel::None);
    let packet = Ip::data("10.0.2.2", NODE);
    rig.inject(0, InjectKind::Routed, &packet.bytes());
    rig.run();
    assert_eq!(only(rig.sent(), 1, station(MOBILE)).bytes(), packet.bytes());
}

#[test]
fn what_is_no_packet_is_counted_as_such() {
    let mut rig = home_agent();
    rig.inject(0, InjectKind::Frame, b"short");
    rig.inject(9, InjectKind::Frame, &[0; 64]);
    rig.inject(0, InjectKind::Routed, b"no packet");
    rig.inject(0, InjectKind::Routed, b"");
    rig.inject(0, InjectKind::Frame, &[0; 3000]);
    // A header that disagrees with what follows it.
    let header = InjectHeader::new(TENANT, PortId(0), InjectKind::Frame, 99);
    assert!(rig.control.injects.send(header, &[0; 64]));
    rig.run();
    assert_eq!(rig.dropped(DropReason::InjectMalformed), 6);
    assert_eq!(rig.sent(), []);
}

/// B-09, reliability, attack 33: what floods one reason leaves the others theirs.
// Shows attack-33.
#[test]
fn a_flood_of_one_reason_leaves_the_others_their_room() {
    let mut plan = Plan::ports(2);
    plan.config.punt_ring = 4096;
    let mut rig = plan.build();
    rig.foreign_agent("10.0.2.2");
    let solicitation = Ip::icmp("10.1.0.10", "224.0.0.2", 10, b"").frame(port_mac(0), station(77));
    for _ in 0..200 {
        rig.push(0, &solicitation);
    }
    rig.run();
    let full = rig.dropped(DropReason::PuntQueueFull);
    assert!(full > 100);
    assert_eq!(rig.punted(PuntReason::Solicitation), 200 - full);
    let registration = Ip::udp("10.1.0.10", "10.0.2.2", (434, 434)).frame(port_mac(0), station(77));
    for _ in 0..10 {
        rig.push(0, &registration);
    }
    rig.run();
    assert_eq!(rig.punted(PuntReason::Registration), 10);
    assert_eq!(rig.dropped(DropReason::PuntQueueFull), full);
    // And they are heard in turn: not behind the whole flood.
    let order: Vec<_> = rig.punts().iter().map(|(header, _)| header.reason().unwrap()).collect();
    let last = order.iter().rposition(|reason| *reason == PuntReason::Registration).unwrap();
    assert!(last < 20, "{order:?}");
    assert_eq!(order.len() as u64, 210 - full);
}

#[test]
fn the_control_core_can_sleep_until_something_is_punted() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut rig = foreign_agent(ReverseTunnel::None);
    let is_readable = |rig: &Rig| {
        let fd = rig.control.punts.readiness();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&now)).unwrap() == 1
    };
    assert_eq!(rig.punts(), []);
    assert!(!is_readable(&rig));
    for _ in 0..3 {
        for reason in [10, 10] {
            let frame = Ip::icmp(NODE, "224.0.0.2", reason, b"").frame(port_mac(1), station(77));
            rig.exchange(1, &frame);
        }
        assert!(is_readable(&rig));
        assert_eq!(rig.punts().len(), 2);
        assert!(!is_readable(&rig));
    }
}

#[test]
fn counters_of_a_port_are_told_ten_times_a_second() {
    let mut rig = home_agent();
    let find = |rig: &Rig, name: &str| {
        let mut counters = rig.control.ports[0].counters();
        counters.find(|(counter, _)| *counter == name).map(|(_, count)| count)
    };
    assert_eq!(find(&rig, "tx-overflow"), Some(0));
    let frame = Ip::data(FAR, NODE).frame(port_mac(0), station(ROUTER));
    for _ in 0..520 {
        rig.push(0, &frame);
        rig.run();
    }
    rig.advance(std::time::Duration::from_millis(100));
    assert_eq!(find(&rig, "tx-overflow"), Some(8));
    assert_eq!(rig.dropped(DropReason::PortTransmitFull), 8);
}
