//! Whether a node is where its request came from: path validation, challenges,
//! half-bound tunnels, lost mappings. Rows B-04 and S3-31; reliability rows 24 to
//! 26.

use core::net::Ipv4Addr;

use homeport_proto::config::{HomeAgentConfig, NatTraversal};
use homeport_proto::event::{DiscardReason, Event};
use homeport_proto::message::{Extension, RegistrationRequest, RequestFlags, UdpTunnelRequest};
use homeport_proto::{Action, Encapsulation, Lifetime, Transmit, TunnelledEcho};
use homeport_wire::icmpv4::{ECHO_REPLY, ECHO_REQUEST, Icmpv4Header, Icmpv4Packet};
use homeport_wire::{IpProtocol, Ipv4Packet, TunnelDataHeader};
use zerocopy::IntoBytes;

use super::support::*;
use super::tunnels::{NAT, PRIVATE, UDP, assent, co_located, from, reply, signed};

const PORT: u16 = 61_001;
const HEADERS: usize = 28;

/// A home agent without a home link, on which there would be something to announce.
fn home(change: impl FnOnce(&mut HomeAgentConfig)) -> World {
    World::home(|config| {
        config.home_networks[0].link = None;
        change(config);
    })
}

/// Registers from behind the NAT; the actions, and the bytes of the request.
fn register(world: &mut World, port: u16) -> (Vec<Action>, usize) {
    let asked = co_located(world, PRIVATE);
    let message = signed(&asked, &[Extension::UdpTunnelRequest(UDP)]);
    (world.send(&from(NAT, port, &message)), HEADERS + message.len())
}

/// The echo messages among the packets for `port` that go through a UDP tunnel:
/// type and data.
fn echoes(actions: &[Action], port: u16) -> Vec<(u8, Vec<u8>)> {
    let tunnelled = transmits(actions).into_iter().filter(|packet| udp(packet).2[0] != 3);
    tunnelled.map(|packet| echo_in(packet, port)).collect()
}

fn echo_in(packet: &Transmit, port: u16) -> (u8, Vec<u8>) {
    assert_eq!((packet.source, packet.destination), (HOME_AGENT, NAT));
    let (source_port, destination_port, data) = udp(packet);
    assert_eq!((source_port, destination_port), (434, port));
    let inner = if data[0] == TunnelDataHeader::TYPE {
        assert_eq!(data[..4], [4, 4, 0, 0]);
        &data[4..]
    } else {
        data
    };
    let inner = Ipv4Packet::new_checked(inner).unwrap();
    let header = inner.header();
    assert_eq!((header.source(), header.destination()), (HOME_AGENT, NODE));
    assert_eq!(header.protocol(), IpProtocol::ICMP);
    let icmp = Icmpv4Packet::new_checked(inner.payload()).unwrap();
    (icmp.header().message_type, icmp.body().to_vec())
}

fn icmp(message_type: u8, data: &[u8]) -> Vec<u8> {
    let header = Icmpv4Header::new(message_type, 0, [0, 1, 0, 1], data);
    [header.as_bytes(), data].concat()
}

fn echo(source: Ipv4Addr, source_port: u16, icmp: &[u8]) -> TunnelledEcho<'_> {
    TunnelledEcho {
        tenant: TENANT,
        source,
        source_port,
        destination: HOME_AGENT,
        inner_source: NODE,
        inner_destination: HOME_AGENT,
        plain: false,
        icmp,
    }
}

fn take(world: &mut World, echo: &TunnelledEcho<'_>) -> Vec<Action> {
    world.agent.handle_keepalive(echo, world.now());
    world.drain()
}

fn unproven(world: &World) -> bool {
    world.agent.bindings().next().expect("a binding").registrations[0].care_of.unproven
}

fn events(actions: &[(u64, Action)]) -> Vec<Event> {
    let events = actions.iter().filter_map(|(_, action)| match action {
        Action::Event(event) => Some(*event),
        _ => None,
    });
    events.collect()
}

/// Row 25: an outer address that no signature covers is asked, and believed when
/// it has answered. Then it need not answer again.
// Shows attack-25.
#[test]
fn an_outer_address_is_proven_by_the_answer_to_a_nonce_and_then_known() {
    let mut world = home(|_| {});
    let (actions, _) = register(&mut world, PORT);
    assert_eq!((reply(&actions).code, reply(&actions).node), (0, assent(false)));
    assert!(installed(&actions)[0].unproven);
    let questions = echoes(&actions, PORT);
    assert_eq!(questions.len(), 1);
    let (message_type, nonce) = &questions[0];
    assert_eq!((*message_type, nonce.len()), (ECHO_REQUEST, 8));
    let answer = icmp(ECHO_REPLY, nonce);
    let actions = take(&mut world, &echo(NAT, PORT, &answer));
    assert!(!installed(&actions)[0].unproven);
    assert_eq!(world.counters().paths_proven, 1);
    assert_eq!(world.pass(20_000), [], "nothing is asked or given up any more");
    // A renewal from there is not asked; one from another port is.
    let (actions, _) = register(&mut world, PORT);
    assert!(!installed(&actions)[0].unproven && echoes(&actions, PORT).is_empty());
    let (actions, _) = register(&mut world, PORT + 1);
    assert!(installed(&actions)[0].unproven);
    // And back again, as a node that wanders between two networks does.
    let (actions, _) = register(&mut world, PORT);
    assert!(!installed(&actions)[0].unproven);
    // But not for ever.
    world.pass(3_700_000);
    let (actions, _) = register(&mut world, PORT);
    assert!(installed(&actions)[0].unproven);
}

/// Row 25: a request whose source was rewritten to a victim's address.
// Shows attack-25.
#[test]
fn a_victim_gets_at_most_three_times_the_bytes_and_the_registration_goes() {
    let mut world = home(|_| {});
    let (actions, request_len) = register(&mut world, PORT);
    let count = |actions: &[Action]| -> usize {
        transmits(actions).iter().map(|packet| HEADERS + udp(packet).2.len()).sum()
    };
    let mut sent = count(&actions);
    let later = world.pass(9_000);
    sent += later.iter().map(|(_, action)| count(core::slice::from_ref(action))).sum::<usize>();
    assert!(sent <= 3 * request_len, "{sent} bytes for {request_len}");
    assert!(echoes(&actions, PORT).len() + later.len() >= 2, "one lost packet is no verdict");
    let gone = world.pass(1_000);
    assert!(gone.iter().any(|(_, action)| matches!(action, Action::RemoveBinding { .. })));
    let expected = Event::PathUnproven {
        tenant: TENANT,
        home_address: NODE,
        care_of_address: PRIVATE,
        address: NAT,
        port: PORT,
    };
    assert_eq!(events(&gone), [expected]);
    assert_eq!(world.counters().paths_unproven, 1);
    assert_eq!(world.pass(100_000), []);
}

/// A renewal from the same unproven address wins no time for itself.
// Shows attack-25.
#[test]
fn renewals_do_not_postpone_the_proof() {
    let mut world = home(|_| {});
    let (first, _) = register(&mut world, PORT);
    for _ in 0..3 {
        world.pass(3_000);
        let (actions, _) = register(&mut world, PORT);
        assert!(installed(&actions)[0].unproven);
        let nonces = echoes(&actions, PORT);
        assert!(nonces.iter().all(|one| *one == echoes(&first, PORT)[0]), "one nonce");
    }
    let gone = world.pass(1_000);
    assert!(gone.iter().any(|(_, action)| matches!(action, Action::RemoveBinding { .. })));
}

// Shows attack-25.
#[test]
fn a_wrong_nonce_proves_nothing_nor_does_the_right_one_from_elsewhere() {
    let mut world = home(|_| {});
    let (actions, _) = register(&mut world, PORT);
    let nonce = echoes(&actions, PORT).remove(0).1;
    let mut wrong = nonce.clone();
    wrong[7] ^= 1;
    let (right, wrong) = (icmp(ECHO_REPLY, &nonce), icmp(ECHO_REPLY, &wrong));
    let mut torn = right.clone();
    torn[2] ^= 1;
    let short = icmp(ECHO_REPLY, &nonce[..7]);
    let unreachable = icmp(3, &nonce);
    let good = echo(NAT, PORT, &right);
    for (bad, reason) in [
        (TunnelledEcho { icmp: &wrong, ..good }, DiscardReason::StrayKeepalive),
        (TunnelledEcho { icmp: &short, ..good }, DiscardReason::StrayKeepalive),
        (TunnelledEcho { icmp: &unreachable, ..good }, DiscardReason::StrayKeepalive),
        (TunnelledEcho { icmp: &torn, ..good }, DiscardReason::Malformed),
        (TunnelledEcho { icmp: &[], ..good }, DiscardReason::Malformed),
        (TunnelledEcho { source: STRANGER, ..good }, DiscardReason::StrayKeepalive),
        (TunnelledEcho { source_port: PORT + 1, ..good }, DiscardReason::StrayKeepalive),
        (TunnelledEcho { plain: true, ..good }, DiscardReason::StrayKeepalive),
        (TunnelledEcho { inner_source: OTHER_NODE, ..good }, DiscardReason::StrayKeepalive),
        (TunnelledEcho { inner_destination: FOREIGN, ..good }, DiscardReason::WrongHomeAgent),
        (TunnelledEcho { destination: FOREIGN, ..good }, DiscardReason::WrongDestination),
    ] {
        let before = (world.state(), world.discarded(reason));
        take(&mut world, &bad);
        assert_eq!((world.state(), world.discarded(reason)), (before.0, before.1 + 1), "{bad:?}");
    }
    take(&mut world, &good);
    assert!(!unproven(&world));
}

/// A node's own keepalives give it credit, and are answered.
// Shows 3519-4.9-d.
#[test]
fn an_unproven_nodes_keepalives_are_answered_and_count_for_it() {
    let mut world = home(|_| {});
    register(&mut world, PORT);
    world.pass(4_500);
    let keepalive = icmp(ECHO_REQUEST, b"are you there?");
    let answers = echoes(&take(&mut world, &echo(NAT, PORT, &keepalive)), PORT);
    assert_eq!(answers, [(ECHO_REPLY, b"are you there?".to_vec())]);
    assert_eq!(world.counters().keepalives_answered, 1);
    let asked = world.pass(1_000);
    assert_eq!(asked.len(), 1, "asked again, now that there is credit");
}

/// Where the answer could not come back through the tunnel there is no use asking.
#[test]
fn an_unproven_tunnel_needs_a_reverse_tunnel_for_its_proof() {
    for (path_validation, code) in [(true, 138), (false, 0)] {
        let mut world = home(|config| config.nat.path_validation = path_validation);
        let asked = RegistrationRequest {
            flags: RequestFlags::CO_LOCATED,
            ..co_located(&mut world, PRIVATE)
        };
        let message = signed(&asked, &[Extension::UdpTunnelRequest(UDP)]);
        assert_eq!(reply(&world.send(&from(NAT, PORT, &message))).code, code);
    }
}

/// Registers with flag R, through a foreign agent behind the same NAT.
fn register_through_agent(world: &mut World) -> Vec<Action> {
    let asked = co_located(world, PRIVATE);
    let udp = UdpTunnelRequest { registration_required: true, ..UDP };
    let message = signed(&asked, &[Extension::UdpTunnelRequest(udp)]);
    world.send(&from(NAT, 50_434, &message))
}

/// RFC 3519 §4.6, §4.11; row 26.
// Shows 3519-4.6-f, 3519-4.6-h, 3519-4.6-i, 3519-4.6-j, attack-26.
#[test]
fn a_half_bound_tunnel_takes_the_port_of_its_first_keepalive_and_of_no_other() {
    let mut world = home(|config| config.nat.path_validation = false);
    let actions = register_through_agent(&mut world);
    assert_eq!((reply(&actions).code, reply(&actions).to), (0, (NAT, 50_434)));
    assert_eq!(reply(&actions).node, assent(false));
    let half_bound = installed(&actions)[0];
    assert_eq!(half_bound.encapsulation, Encapsulation::Udp { peer_port: 0 });
    let binding = world.agent.bindings().next().unwrap();
    assert_eq!(binding.registrations[0].foreign_agent, Some(NAT));
    let keepalive = icmp(ECHO_REQUEST, b"first");
    let good = echo(NAT, PORT, &keepalive);
    let answer = icmp(ECHO_REPLY, b"first");
    for bad in [
        TunnelledEcho { source: STRANGER, ..good },
        TunnelledEcho { inner_source: OTHER_NODE, ..good },
        TunnelledEcho { inner_destination: FOREIGN, ..good },
        TunnelledEcho { plain: true, ..good },
        TunnelledEcho { icmp: &answer, ..good },
    ] {
        let before = world.state();
        let actions = take(&mut world, &bad);
        assert!(transmits(&actions).is_empty(), "{bad:?}");
        assert_eq!(world.state(), before, "{bad:?}");
    }
    let actions = take(&mut world, &good);
    assert_eq!(installed(&actions)[0].encapsulation, Encapsulation::Udp { peer_port: PORT });
    assert_eq!(echoes(&actions, PORT), [(ECHO_REPLY, b"first".to_vec())]);
    let bound = Event::TunnelBound {
        tenant: TENANT,
        home_address: NODE,
        care_of_address: PRIVATE,
        address: NAT,
        port: PORT,
    };
    assert!(actions.contains(&Action::Event(bound)));
    // Later another port moves nothing.
    let before = world.state();
    let actions = take(&mut world, &TunnelledEcho { source_port: PORT + 1, ..good });
    assert!(transmits(&actions).is_empty());
    assert_eq!(world.state(), before);
    assert_eq!(world.counters().tunnels_bound, 1);
}

#[test]
fn a_half_bound_tunnel_is_proven_after_it_is_bound() {
    let mut world = home(|_| {});
    let actions = register_through_agent(&mut world);
    assert!(installed(&actions)[0].unproven);
    assert_eq!(transmits(&actions).len(), 1, "there is no port to ask at yet");
    assert_eq!(world.pass(20_000), [], "nor a time to answer in");
    let keepalive = icmp(ECHO_REQUEST, b"");
    let actions = take(&mut world, &echo(NAT, PORT, &keepalive));
    let sent = echoes(&actions, PORT);
    assert_eq!(sent[0].0, ECHO_REPLY);
    let (ECHO_REQUEST, nonce) = &sent[1] else { panic!("a question") };
    assert!(unproven(&world));
    let answer = icmp(ECHO_REPLY, nonce);
    take(&mut world, &echo(NAT, PORT, &answer));
    assert!(!unproven(&world));
}

/// RFC 3519 §4.10, row 24: a NAT that forgot the mapping.
// Shows 3519-4.10-d, attack-24.
#[test]
fn a_lost_mapping_is_told_once_in_ten_seconds_and_moves_nothing() {
    let mut world = home(|config| config.nat.path_validation = false);
    register(&mut world, PORT);
    let before = world.state();
    let rebound = |world: &mut World, home_address, source, port| {
        world.agent.handle_rebound(TENANT, home_address, source, port, world.now());
        world.drain()
    };
    let told = rebound(&mut world, NODE, NAT, PORT + 1);
    let expected = Event::Rebound {
        tenant: TENANT,
        home_address: NODE,
        address: NAT,
        port: PORT,
        seen_port: PORT + 1,
    };
    assert_eq!(told, [Action::Event(expected)]);
    for _ in 0..1_000 {
        assert_eq!(rebound(&mut world, NODE, NAT, PORT + 2), []);
    }
    assert_eq!(world.counters().rebounds, 1_001);
    world.pass(10_000);
    assert_eq!(rebound(&mut world, NODE, NAT, PORT + 1).len(), 1);
    // What is no such thing is discarded: nothing that is punted is believed.
    for (node, source, port) in
        [(NODE, NAT, PORT), (NODE, STRANGER, PORT + 1), (OTHER_NODE, NAT, PORT + 1)]
    {
        rebound(&mut world, node, source, port);
    }
    assert_eq!(world.discarded(DiscardReason::StrayKeepalive), 3);
    assert_eq!(world.state(), before);
}

fn challenging(config: &mut HomeAgentConfig) {
    config.nat.traversal = NatTraversal::Challenge;
}

/// What a denial's challenge is, as the extension's bytes.
fn challenge_of(actions: &[Action]) -> [u8; 16] {
    let answer = reply(actions);
    assert_eq!((answer.code, &answer.node[..2]), (131, &[132, 16][..]));
    answer.node[2..].try_into().unwrap()
}

fn attempt(world: &mut World, port: u16, extensions: &[Extension<'_>]) -> Vec<Action> {
    let asked = co_located(world, PRIVATE);
    world.send(&from(NAT, port, &signed(&asked, extensions)))
}

/// Row S3-31, S3-32.
#[test]
fn a_node_behind_a_nat_answers_the_challenge_and_gets_plain_udp() {
    let mut world = home(challenging);
    let denied = attempt(&mut world, PORT, &[]);
    let challenge = challenge_of(&denied);
    assert_eq!(reply(&denied).to, (NAT, PORT));
    assert!(installed(&denied).is_empty());
    let actions = attempt(&mut world, PORT, &[Extension::Challenge(&challenge)]);
    let answer = reply(&actions);
    // The acceptance says that there is a NAT.
    assert_eq!((answer.code, &answer.node[..2]), (0, &[132, 16][..]));
    let care_of = installed(&actions)[0];
    assert_eq!((care_of.address, care_of.registered), (NAT, PRIVATE));
    assert_eq!(care_of.encapsulation, Encapsulation::PlainUdp { peer_port: PORT });
    assert!(!care_of.unproven);
    // From there it need not answer again; after a lost mapping it must.
    let answer = reply(&attempt(&mut world, PORT, &[]));
    assert_eq!((answer.code, &answer.node[..2]), (0, &[132, 16][..]));
    let again = challenge_of(&attempt(&mut world, PORT + 1, &[]));
    assert_ne!(again, challenge);
    let actions = attempt(&mut world, PORT + 1, &[Extension::Challenge(&again)]);
    assert_eq!(
        installed(&actions)[0].encapsulation,
        Encapsulation::PlainUdp { peer_port: PORT + 1 }
    );
    assert_eq!(world.counters().challenges_sent, 2);
}

/// A challenge is good once, in time, and from where it was sent to.
#[test]
fn a_challenge_that_is_wrong_late_used_or_from_elsewhere_is_no_answer() {
    let mut world = home(challenging);
    let first = challenge_of(&attempt(&mut world, PORT, &[]));
    let mut wrong = first;
    wrong[0] ^= 1;
    let second = challenge_of(&attempt(&mut world, PORT, &[Extension::Challenge(&wrong)]));
    assert_ne!(first, second);
    let third = challenge_of(&attempt(&mut world, PORT, &[Extension::Challenge(&first)]));
    let fourth = challenge_of(&attempt(&mut world, PORT + 1, &[Extension::Challenge(&third)]));
    world.pass(10_000);
    let fifth = challenge_of(&attempt(&mut world, PORT + 1, &[Extension::Challenge(&fourth)]));
    // Behind the signature it is nobody's word.
    let asked = co_located(&mut world, PRIVATE);
    let mut message = signed(&asked, &[]);
    Extension::Challenge(&fifth).emit(&mut message).unwrap();
    let sixth = challenge_of(&world.send(&from(NAT, PORT + 1, &message)));
    let actions = attempt(&mut world, PORT + 1, &[Extension::Challenge(&sixth)]);
    assert_eq!(reply(&actions).code, 0);
    // It was used: elsewhere it is worth nothing.
    challenge_of(&attempt(&mut world, PORT, &[Extension::Challenge(&sixth)]));
    assert_eq!(world.agent.bindings().count(), 1);
}

/// No challenge for who is where it says, or comes through a foreign agent that we
/// know, or wants what plain UDP cannot carry.
#[test]
fn a_challenge_is_for_nodes_behind_nats_alone() {
    let mut world = home(|config| {
        challenging(config);
        config.security.insert_agent(FOREIGN, foreign_home());
    });
    let asked = co_located(&mut world, CO_LOCATED);
    let udp = Extension::UdpTunnelRequest(UDP);
    let actions = world.send(&direct(CO_LOCATED, &signed(&asked, &[udp])));
    assert_eq!((reply(&actions).code, reply(&actions).node), (0, Vec::new()));
    assert_eq!(installed(&actions)[0].encapsulation, Encapsulation::IpInIp);
    // Through a foreign agent, whose own care-of address it is not: no
    // foreign-home authentication is added, and none missed at its end.
    let asked =
        RegistrationRequest { flags: RequestFlags::default(), ..request(world.timestamp()) };
    assert_eq!(reply(&world.relay(STRANGER, &signed(&asked, &[]))).code, 0);
    let mut asked = co_located(&mut world, PRIVATE);
    asked.flags = asked.flags.with(RequestFlags::GRE);
    assert_eq!(reply(&world.send(&from(NAT, PORT, &signed(&asked, &[])))).code, 142);
    // A deregistration needs none.
    let asked = RegistrationRequest { lifetime: Lifetime::ZERO, ..co_located(&mut world, PRIVATE) };
    assert_eq!(reply(&world.send(&from(NAT, PORT, &signed(&asked, &[])))).code, 0);
    assert_eq!(world.counters().challenges_sent, 0);
}
