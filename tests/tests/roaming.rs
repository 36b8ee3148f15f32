//! A node roams, and what it may rely on holds: on the virtual clock, with real
//! frames through the real dataplane and the real agents.

use std::time::Duration;

use homeport_dataplane::port::mem::Faults;
use homeport_dataplane::verdict::DropReason;
use homeport_proto::event::Event;
use homeport_proto::message::{Message, ReplyCode};
use homeport_proto::mobile_node::{Attachment, MobileNodeEvent, Phase};
use homeport_proto::security::ReplayProtection;
use homeport_proto::{Lifetime, ReverseTunnel};
use homeport_tests::frame;
use homeport_tests::host::longest_gap;
use homeport_tests::world::{
    BOXES, CORE, CORRESPONDENT, CORRESPONDENT_MAC, HOME, HOME_ADDRESS, HOME_AGENT, Plan, VISITED_1,
    VISITED_2, VISITED_3, World, box_mac,
};
use homeport_wire::{EtherType, EthernetHeader, IpProtocol, Ipv4Packet, UdpPacket};
use zerocopy::FromBytes;

const SECOND: Duration = Duration::from_secs(1);
const PROBE: Duration = Duration::from_millis(2);

/// A world in which the node is at home and probes run both ways.
fn at_home(plan: Plan) -> World {
    let mut world = World::new(plan);
    world.run_for(SECOND);
    world.move_node(HOME);
    world.run_for(SECOND);
    assert_eq!(world.node.machine.phase(), Phase::AtHome);
    world.node.interval = Some(PROBE);
    world.correspondent.interval = Some(PROBE);
    world.run_for(SECOND);
    world
}

/// Every registration message that a link carried, in order: when, on which
/// segment, and the UDP payload.
fn messages(world: &World) -> Vec<(Duration, usize, Vec<u8>)> {
    let payload = |frame: &[u8]| {
        let (_, packet) = EthernetHeader::ref_from_prefix(frame).ok()?;
        let packet = Ipv4Packet::new_checked(packet).ok()?;
        let (from, to) = (packet.header().source(), packet.header().destination());
        let udp = (packet.header().protocol() == IpProtocol::UDP)
            .then(|| UdpPacket::new_checked(packet.payload(), from, to))?
            .ok()?;
        [udp.header().source_port(), udp.header().destination_port()]
            .contains(&434)
            .then(|| udp.payload().to_vec())
    };
    world
        .carried
        .iter()
        .filter_map(|(at, segment, frame)| Some((*at, *segment, payload(frame)?)))
        .collect()
}

/// Rows B-01, B-03, B-04, B-06: home, foreign agent 1, foreign agent 2,
/// co-located, home; neither side's address changes and no outage is long.
// Shows 5944-1.7-b, 5944-3.6-c.
#[test]
fn a_node_keeps_its_address_through_four_moves() {
    for style in [ReverseTunnel::Direct, ReverseTunnel::Encapsulating] {
        let mut world = at_home(Plan { reverse_tunnel: style, ..Plan::default() });
        for segment in [VISITED_1, VISITED_2, VISITED_3, HOME] {
            let begun = world.elapsed();
            world.move_node(segment);
            world.run_for(3 * SECOND);
            let name = world.node.machine.attachment().name();
            let expected = ["home", "foreign-agent", "foreign-agent", "co-located"][segment - 1];
            assert_eq!(name, expected, "{style:?}, segment {segment}");
            // 50 ms pass by rule before an agent is given up for the co-located
            // address.
            let bound = Duration::from_millis(if segment == VISITED_3 { 60 } else { 10 });
            for arrivals in [&world.node.arrivals, &world.correspondent.arrivals] {
                let gap = longest_gap(arrivals, begun, world.elapsed());
                assert!(gap <= bound, "{gap:?} to segment {segment}, {style:?}");
            }
            world.assert_conserved();
        }
        assert!(world.boxes[0].agent.bindings().next().is_none(), "the node came home");
        let expired = |event: &MobileNodeEvent| {
            matches!(event, MobileNodeEvent::Expired { .. } | MobileNodeEvent::Denied { .. })
        };
        assert!(!world.node.events.iter().any(expired), "{:?}", world.node.events);
    }
}

/// Row B-01: a registration is renewed before it ends, for an hour.
#[test]
fn a_visit_of_an_hour_is_one_binding() {
    let mut world = at_home(Plan { lifetime: Lifetime(30), ..Plan::default() });
    world.node.interval = Some(SECOND);
    world.correspondent.interval = Some(SECOND);
    world.move_node(VISITED_1);
    let begun = world.elapsed();
    world.run_for(3600 * SECOND);
    let gap = longest_gap(&world.node.arrivals, begun, world.elapsed());
    assert!(gap <= SECOND + Duration::from_millis(10), "{gap:?}");
    let expired = |event: &Event| {
        matches!(event, Event::BindingExpired { .. } | Event::VisitorExpired { .. })
    };
    assert!(world.boxes.iter().all(|one| !one.events.iter().any(expired)));
    let renewals = world.boxes[0]
        .events
        .iter()
        .filter(|event| matches!(event, Event::HomeRegistration { code: 0, .. }));
    assert!((3600 / 30..=3600 / 5).contains(&renewals.count()));
}

/// Row B-06: where the home network has no link, a binding is all there is: no ARP
/// is told or answered, and packets find the node all the same.
#[test]
fn a_virtual_home_network_needs_no_link() {
    let mut world = World::new(Plan { virtual_home: true, ..Plan::default() });
    world.node.interval = Some(PROBE);
    world.correspondent.interval = Some(PROBE);
    world.move_node(VISITED_1);
    world.run_for(SECOND);
    let begun = world.elapsed();
    world.move_node(VISITED_3);
    world.run_for(SECOND);
    for arrivals in [&world.node.arrivals, &world.correspondent.arrivals] {
        let gap = longest_gap(arrivals, begun, world.elapsed());
        assert!(gap <= Duration::from_millis(60), "{gap:?}");
    }
    let is_arp = |frame: &[u8]| {
        EthernetHeader::ref_from_prefix(frame)
            .is_ok_and(|(header, _)| header.ether_type() == EtherType::ARP)
    };
    assert!(!world.carried.iter().any(|(_, _, frame)| is_arp(frame)));
    world.assert_conserved();
}

/// A node that vanishes leaves nothing behind but until its lifetime ends.
#[test]
fn a_binding_ends_with_its_lifetime_and_packets_find_no_tunnel() {
    let mut world = at_home(Plan { lifetime: Lifetime(20), ..Plan::default() });
    world.move_node(VISITED_1);
    world.run_for(SECOND);
    assert_eq!(world.boxes[0].agent.bindings().count(), 1);
    world.node.machine.handle_link(false, world.now());
    world.run_for(25 * SECOND);
    assert_eq!(world.boxes[0].agent.bindings().count(), 0);
    assert_eq!(world.boxes[1].agent.visitors().count(), 0);
    assert_eq!(world.boxes[0].installer.bindings().count(), 0);
    assert!(
        world.boxes[0].events.iter().any(|event| matches!(event, Event::BindingExpired { .. }))
    );
    world.assert_conserved();
}

/// Rows B-02, B-09; attack 5: what was captured on any link is worth nothing a
/// second time. The home agent says 133 to it, and nothing moves.
// Shows attack-5.
#[test]
fn a_captured_accepted_request_replayed_gets_133() {
    for replay in [ReplayProtection::default(), ReplayProtection::Nonces] {
        let mut world = at_home(Plan { replay, ..Plan::default() });
        world.move_node(VISITED_1);
        world.run_for(SECOND);
        world.move_node(VISITED_2);
        world.run_for(SECOND);
        let care_of = |world: &World| {
            world.boxes[0]
                .agent
                .bindings()
                .map(|one| one.registrations[0].care_of.address)
                .collect::<Vec<_>>()
        };
        let before = care_of(&world);
        let captured: Vec<Vec<u8>> = world
            .carried
            .iter()
            .map(|(_, _, frame)| frame.clone())
            .filter(|frame| is_request(frame))
            .collect();
        assert!(captured.len() >= 2, "each agent relayed one");
        let mark = world.carried.len();
        for frame in &captured {
            world.inject_frame(CORE, frame);
            world.run_for(SECOND);
        }
        assert_eq!(care_of(&world), before, "{replay:?}");
        let codes: Vec<ReplyCode> = messages(&world)
            .into_iter()
            .filter(|(at, segment, _)| *segment == CORE && *at >= world.carried[mark].0)
            .filter_map(|(_, _, bytes)| match Message::parse(&bytes) {
                Ok(Message::Reply(reply)) => Some(reply.body.code),
                _ => None,
            })
            .filter(|code| !code.is_accepted())
            .collect();
        assert!(!codes.is_empty(), "{replay:?}");
        assert!(codes.iter().all(|code| *code == ReplyCode::IDENTIFICATION_MISMATCH), "{codes:?}");
    }
}

fn is_request(frame: &[u8]) -> bool {
    let Some(packet) =
        frame.get(EthernetHeader::LEN..).and_then(|bytes| Ipv4Packet::new_checked(bytes).ok())
    else {
        return false;
    };
    let ports = UdpPacket::new_checked(
        packet.payload(),
        packet.header().source(),
        packet.header().destination(),
    );
    packet.header().protocol() == IpProtocol::UDP
        && packet.header().destination() == HOME_AGENT
        && ports.is_ok_and(|udp| udp.payload().first() == Some(&1))
}

/// Attack 7: a home agent that starts anew has lost its bindings, not its guard.
// Shows attack-7.
#[test]
fn a_request_captured_before_a_restart_gets_133_after_it_and_the_node_registers_anew() {
    let mut world = at_home(Plan { lifetime: Lifetime(20), ..Plan::default() });
    world.move_node(VISITED_1);
    world.run_for(SECOND);
    let captured = world
        .carried
        .iter()
        .rev()
        .map(|(_, _, frame)| frame.clone())
        .find(|frame| is_request(frame))
        .expect("a request");
    world.node.machine.handle_link(false, world.now());
    world.restart(0);
    world.inject_frame(CORE, &captured);
    world.run_for(SECOND);
    assert_eq!(world.boxes[0].agent.bindings().count(), 0, "the replay bound nothing");
    assert!(
        world.boxes[0]
            .events
            .iter()
            .any(|event| matches!(event, Event::HomeRegistration { code: 133, .. }))
    );
    world.move_node(VISITED_2);
    world.run_for(3 * SECOND);
    assert_eq!(world.boxes[0].agent.bindings().count(), 1);
}

/// Row B-03: a foreign agent that starts anew has forgotten its visitors; its
/// sequence numbers tell, and the node registers again at once.
#[test]
fn a_restarted_foreign_agent_is_noticed_by_its_sequence_numbers() {
    let mut world = at_home(Plan::default());
    world.move_node(VISITED_1);
    world.run_for(20 * SECOND);
    world.restart(1);
    let begun = world.elapsed();
    world.run_for(5 * SECOND);
    assert!(
        world
            .node
            .events
            .iter()
            .any(|event| matches!(event, MobileNodeEvent::AgentRestarted { .. }))
    );
    let gap = longest_gap(&world.node.arrivals, begun, world.elapsed());
    assert!(gap <= Duration::from_millis(2500), "{gap:?}");
    assert_eq!(world.boxes[1].agent.visitors().count(), 1);
}

/// Row B-09: links that lose, repeat, swap and damage frames delay a
/// registration and never corrupt it; when they are well again, all is well.
#[test]
fn faulty_links_delay_registration_and_nothing_else() {
    for seed in 1..=12 {
        let faults = Faults { loss: 200, duplication: 300, reordering: 200, corruption: 100 };
        let mut world = World::new(Plan { seed, faults, ..Plan::default() });
        world.node.interval = Some(Duration::from_millis(20));
        world.correspondent.interval = Some(Duration::from_millis(20));
        for segment in [HOME, VISITED_1, VISITED_3, VISITED_2] {
            world.move_node(segment);
            world.run_for(40 * SECOND);
            world.assert_conserved();
            let known = [10, 0, 0, 3].into();
            for binding in world.boxes[0].agent.bindings() {
                assert_eq!(binding.home_address, HOME_ADDRESS, "seed {seed}");
                let address = binding.registrations[0].care_of.address;
                let genuine: [std::net::Ipv4Addr; 3] =
                    [known, [10, 0, 0, 4].into(), [10, 3, 0, 50].into()];
                assert!(genuine.contains(&address), "seed {seed}: {address}");
            }
        }
        world.set_faults(Faults::default());
        world.run_for(60 * SECOND);
        let begun = world.elapsed();
        world.run_for(SECOND);
        let gap = longest_gap(&world.node.arrivals, begun, world.elapsed());
        assert!(gap <= Duration::from_millis(50), "seed {seed}: {gap:?}");
        assert!(
            matches!(world.node.machine.attachment(), Attachment::ForeignAgent { .. }),
            "seed {seed}"
        );
    }
}

/// Row B-04, attack 23: tunnels carry only what they were made for.
// Shows attack-23.
#[test]
fn forged_tunnel_packets_are_dropped_by_name_and_change_nothing() {
    let mut world = at_home(Plan::default());
    world.move_node(VISITED_1);
    world.run_for(SECOND);
    let foreign_agent = std::net::Ipv4Addr::new(10, 0, 0, 3);
    let stranger = std::net::Ipv4Addr::new(10, 0, 0, 77);
    let inner = |from, to| frame::udp((from, 5000), (to, 5000), 64, &[0xa5; 16]);
    let tunnel = |to_box: usize, from, to, packet: &[u8]| {
        frame::ethernet(
            box_mac(to_box, 0),
            CORRESPONDENT_MAC,
            &frame::ipv4(from, to, IpProtocol::IP_IN_IP, 64, packet),
        )
    };
    let cases = [
        (
            0,
            DropReason::OuterSourceMismatch,
            tunnel(0, stranger, HOME_AGENT, &inner(HOME_ADDRESS, CORRESPONDENT)),
        ),
        (
            0,
            DropReason::NoBinding,
            tunnel(0, foreign_agent, HOME_AGENT, &inner(stranger, CORRESPONDENT)),
        ),
        (0, DropReason::MalformedInner, tunnel(0, foreign_agent, HOME_AGENT, &[0x45; 10])),
        (
            1,
            DropReason::OuterSourceMismatch,
            tunnel(1, stranger, foreign_agent, &inner(CORRESPONDENT, HOME_ADDRESS)),
        ),
        (
            1,
            DropReason::NoVisitor,
            tunnel(1, HOME_AGENT, foreign_agent, &inner(CORRESPONDENT, stranger)),
        ),
        (
            2,
            DropReason::NoVisitor,
            tunnel(2, HOME_AGENT, [10, 0, 0, 4].into(), &inner(CORRESPONDENT, HOME_ADDRESS)),
        ),
    ];
    for (index, reason, forged) in cases {
        let before = world.boxes[index].dropped(reason);
        world.inject_frame(CORE, &forged);
        world.run_for(Duration::from_millis(20));
        assert_eq!(world.boxes[index].dropped(reason), before + 1, "{reason:?} at box {index}");
    }
    let own = [0xa5; 16];
    let seen = |frame: &[u8]| frame.windows(own.len()).filter(|window| *window == own).count();
    let leaked =
        world.carried.iter().filter(|(_, segment, frame)| *segment != CORE && seen(frame) > 0);
    assert_eq!(leaked.count(), 0, "nothing forged reached an access link");
    world.assert_conserved();
    assert_eq!(world.boxes.len(), BOXES);
}
