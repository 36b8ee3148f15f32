//! Nodes behind a NAT, with the real home agent and the real dataplane. Rows B-04,
//! S3-31, S3-32; reliability rows 24 to 26.

use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_dataplane::verdict::DropReason;
use homeport_proto::Encapsulation;
use homeport_proto::config::NatTraversal;
use homeport_proto::event::Event;
use homeport_tests::frame;
use homeport_tests::nat::{NODES, NatWorld, OUTSIDE, PRIVATE, word};
use homeport_tests::world::{CORRESPONDENT, HOME_AGENT};

const TRAVERSALS: [NatTraversal; 2] = [NatTraversal::Rfc3519, NatTraversal::Challenge];

/// Every node has got these rounds, each its own words alone, and the correspondent
/// all of their answers.
fn assert_rounds(world: &NatWorld, rounds: &[u8]) {
    for (index, node) in world.nodes.iter().enumerate() {
        let expected: Vec<Vec<u8>> = rounds.iter().map(|round| word(*round, index)).collect();
        assert_eq!(node.got, expected, "node {index}");
        let answers = world.correspondent.iter().filter(|(from, _)| *from == node.home_address);
        let answers: Vec<Vec<u8>> = answers.map(|(_, data)| data.clone()).collect();
        assert_eq!(answers, expected, "from node {index}");
    }
    assert_eq!(world.correspondent.len(), NODES * rounds.len());
}

fn bound(world: &NatWorld) -> Vec<(Ipv4Addr, Ipv4Addr, u16, bool)> {
    let tunnel = |encapsulation| match encapsulation {
        Encapsulation::Udp { peer_port } | Encapsulation::PlainUdp { peer_port } => peer_port,
        other => panic!("{other:?}"),
    };
    let bindings = world.agent.agent.bindings();
    bindings
        .map(|binding| {
            let care_of = binding.registrations[0].care_of;
            let port = tunnel(care_of.encapsulation);
            (care_of.address, care_of.registered, port, care_of.unproven)
        })
        .collect()
}

#[test]
fn a_hundred_nodes_with_one_private_address_behind_one_nat_get_their_own_packets_alone() {
    for traversal in TRAVERSALS {
        let mut world = NatWorld::new(traversal);
        world.register();
        let codes: &[u8] = if traversal == NatTraversal::Rfc3519 { &[0] } else { &[131, 0] };
        assert!(world.nodes.iter().all(|node| node.codes == codes));
        let tunnels = bound(&world);
        assert_eq!(tunnels.len(), NODES);
        let all_alike = tunnels.iter().all(|tunnel| (tunnel.0, tunnel.1) == (OUTSIDE, PRIVATE));
        assert!(all_alike && tunnels.iter().all(|tunnel| !tunnel.3), "proven");
        let mut ports: Vec<u16> = tunnels.iter().map(|tunnel| tunnel.2).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), NODES);
        for round in 0..3 {
            world.speak(round);
        }
        assert_rounds(&world, &[0, 1, 2]);
        assert_eq!(world.nat.refused, 0);
        world.agent.assert_conserved();
    }
}

/// RFC 3519 §4.3, §4.10: a NAT that forgot moves nothing; a registration does.
#[test]
fn a_nat_that_forgets_stops_the_data_until_the_nodes_register_anew() {
    for traversal in TRAVERSALS {
        let mut world = NatWorld::new(traversal);
        world.register();
        world.speak(0);
        let before = bound(&world);
        world.nat.forget();
        for index in 0..NODES {
            let node = &mut world.nodes[index];
            let data = b"from a port that nobody knows";
            let packet = frame::udp((node.home_address, 5000), (CORRESPONDENT, 5000), 64, data);
            let mut packet = packet;
            let (header, _) = zerocopy::FromBytes::mut_from_prefix(&mut packet).expect("a header");
            let header: &mut homeport_wire::Ipv4Header = header;
            header.fill_checksum();
            node.tunnel(&packet);
        }
        world.run_for(Duration::from_millis(20));
        assert_rounds(&world, &[0]);
        assert_eq!(bound(&world), before, "nothing has moved");
        // The operator is told, as often as the dataplane tells the agent.
        let rebounds: Vec<&Event> = world
            .agent
            .events
            .iter()
            .filter(|event| matches!(event, Event::Rebound { address: OUTSIDE, .. }))
            .collect();
        let dropped = world.agent.dropped(DropReason::TunnelPortMismatch);
        assert!(!rebounds.is_empty());
        assert_eq!(rebounds.len() as u64 + dropped, NODES as u64);
        // What the home agent sends meanwhile, the NAT does not let in.
        world.speak(1);
        assert_rounds(&world, &[0]);
        assert!(world.nat.refused > 0);
        world.register();
        world.speak(2);
        assert_rounds(&world, &[0, 2]);
        let after = bound(&world);
        assert!(before.iter().zip(&after).all(|(before, after)| before.2 != after.2));
        world.agent.assert_conserved();
    }
}

/// Row 25, with the dataplane: who does not answer gets three times what came from
/// there, and then nothing.
// Shows attack-25.
#[test]
fn an_address_that_answers_nothing_gets_no_flood_and_loses_its_registrations() {
    let mut world = NatWorld::new(NatTraversal::Rfc3519);
    world.nodes.iter_mut().for_each(|node| node.answers = false);
    world.register();
    assert_eq!(world.agent.agent.bindings().count(), NODES);
    assert!(bound(&world).iter().all(|tunnel| tunnel.3), "unproven");
    // Requests have 82 bytes.
    for round in 0..50 {
        world.speak(round);
    }
    let limit = 3 * 82 * NODES;
    assert!(world.sent_to_nat <= limit, "{} bytes, {limit} allowed", world.sent_to_nat);
    assert!(world.nodes.iter().all(|node| node.got.is_empty()));
    let unproven = world.agent.dropped(DropReason::UnprovenAddress);
    assert_eq!(unproven, 50 * NODES as u64);
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.agent.agent.bindings().count(), 0);
    let told = world.agent.events.iter();
    let told = told.filter(|event| matches!(event, Event::PathUnproven { address: OUTSIDE, .. }));
    assert_eq!(told.count(), NODES);
    assert!(world.sent_to_nat <= limit);
    world.agent.assert_conserved();
}

/// Row 24: from another address, or with another's inner source, there is nothing.
// Shows attack-24.
#[test]
fn tunnelled_data_from_elsewhere_is_dropped_by_name() {
    let mut world = NatWorld::new(NatTraversal::Rfc3519);
    world.register();
    let before = bound(&world);
    let (victim, port) = (world.nodes[0].home_address, before[0].2);
    let stranger = Ipv4Addr::new(203, 0, 113, 66);
    let inner = frame::udp((victim, 5000), (CORRESPONDENT, 5000), 64, b"forged");
    let data = [&[4, 4, 0, 0][..], &inner].concat();
    for (source, reason) in [
        ((stranger, port), DropReason::OuterSourceMismatch),
        ((OUTSIDE, before[1].2), DropReason::TunnelPortMismatch),
    ] {
        let dropped = world.agent.dropped(reason);
        // The first one with another port is told to the agent, the rest dropped.
        for _ in 0..200 {
            world.inject(&frame::udp(source, (HOME_AGENT, 434), 64, &data));
        }
        world.run_for(Duration::from_millis(5));
        assert!(world.agent.dropped(reason) > dropped, "{reason:?}");
    }
    assert!(world.correspondent.is_empty());
    assert_eq!(bound(&world), before);
    world.agent.assert_conserved();
}
