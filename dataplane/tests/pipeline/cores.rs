//! Several workers: each packet ends on the one that its inner addresses name,
//! wherever it came in, and is counted once.

use std::collections::{BTreeMap, BTreeSet};

use homeport_dataplane::launch::SteeringMode;
use homeport_dataplane::stats::PortStats;
use homeport_dataplane::table::binding::Encapsulation;
use homeport_dataplane::table::visitor::ReverseTunnel;
use homeport_dataplane::verdict::DropReason;
use homeport_wire::icmpv4::{DESTINATION_UNREACHABLE, Icmpv4Header};
use homeport_wire::{IpProtocol, UdpHeader};
use zerocopy::{FromBytes, IntoBytes};

use crate::gateway::*;
use crate::harness::*;
use crate::walk::{MOBILE, ROUTER};

const AGENT: &str = "10.0.1.2";
const CARE_OF: &str = "10.0.2.2";

/// What each worker counts for a port.
fn by_worker(rig: &Rig, port: usize, count: fn(&PortStats) -> u64) -> Vec<u64> {
    rig.control.ports[port].workers().map(count).collect()
}

/// A home agent between the core (port 0) and the home network (port 1), with a node
/// for each of `0..nodes` away at one foreign agent.
fn home_agent(workers: usize, queues: usize, steering: SteeringMode, nodes: u8) -> Rig {
    let mut plan = Plan::ports(2);
    plan.workers(workers, steering);
    plan.queues = queues;
    let mut rig = plan.build();
    rig.home_agent(AGENT);
    rig.route("0.0.0.0/0", 0, Some("10.0.1.1"));
    rig.route("10.1.0.0/24", 1, None);
    rig.neighbor(0, "10.0.1.1", station(ROUTER));
    for node in 0..nodes {
        rig.bind(&address(node), binding(AGENT, &[CARE_OF]));
    }
    rig
}

fn address(node: u8) -> String {
    format!("10.1.0.{}", 10 + node)
}

/// What a node sends through its foreign agent's tunnel.
fn from_node(how: Encapsulation, node: u8, data: &[u8]) -> Vec<u8> {
    let packet = Ip { payload: data.to_vec(), ..Ip::data(&address(node), FAR) };
    packet.arriving(how, CARE_OF, AGENT).frame(port_mac(0), station(ROUTER))
}

/// The issue of RSS by outer addresses: one foreign agent's packets all come in by
/// one queue. They are spread, none is lost, and each node's stay in order.
#[test]
fn packets_of_one_tunnel_are_spread_and_each_nodes_stay_in_order() {
    for (queues, steering) in [(1, SteeringMode::Auto), (3, SteeringMode::Inner)] {
        let mut rig = home_agent(3, queues, steering, 24);
        for round in 0..10u8 {
            for node in 0..24 {
                rig.push(0, &from_node(Encapsulation::IpInIp, node, &[round; 9]));
            }
        }
        rig.run();
        let mut seen: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (port, frame) in rig.sent() {
            let (_, packet) = parse(&frame);
            assert_eq!((port, packet.ends().1.as_str()), (0, FAR));
            seen.entry(packet.ends().0).or_default().push(packet.payload[0]);
        }
        assert_eq!(seen.len(), 24, "{}", rig.drops());
        let all: Vec<u8> = (0..10).collect();
        assert!(seen.values().all(|rounds| *rounds == all), "{seen:?}");
        assert_eq!(by_worker(&rig, 0, |stats| stats.rx.get()), [240, 0, 0]);
        let decapsulated = by_worker(&rig, 0, |stats| stats.decapsulated.get());
        // Twenty-four nodes, and nobody without a share.
        assert!(decapsulated.iter().all(|count| *count >= 20), "{decapsulated:?}");
        let taken_over = by_worker(&rig, 0, |stats| stats.taken_over.get());
        assert!(taken_over[1] >= decapsulated[1] && taken_over[2] >= decapsulated[2]);
    }
}

/// Where the queues are as many as the workers, the device's choice stands.
#[test]
fn with_a_queue_for_each_worker_nothing_is_handed_over() {
    for steering in [SteeringMode::Auto, SteeringMode::Off] {
        let mut rig = home_agent(2, 2, steering, 8);
        for node in 0..8 {
            rig.push_to(0, usize::from(node % 2), &from_node(Encapsulation::IpInIp, node, &[7]));
        }
        rig.run();
        assert_eq!(rig.sent().len(), 8);
        assert_eq!(by_worker(&rig, 0, |stats| stats.transmitted.get()), [4, 4]);
        assert_eq!(by_worker(&rig, 0, |stats| stats.handed_over.get()), [0, 0]);
    }
}

/// Both directions, by every tunnel, name one worker: its caches have the node.
#[test]
fn both_directions_of_a_conversation_end_on_one_worker() {
    let mut workers = BTreeSet::new();
    for node in 0..8 {
        let mut who = BTreeSet::new();
        for how in EVERY {
            let mut rig = home_agent(3, 1, SteeringMode::Auto, 0);
            let end = (CARE_OF, how, homeport_dataplane::table::binding::TunnelFlags::REVERSE);
            rig.bind(&address(node), binding_of(AGENT, None, &[end]));
            rig.push(0, &from_node(how, node, &[1; 8]));
            let back = Ip::data(FAR, &address(node));
            rig.push(1, &back.frame(port_mac(1), station(50)));
            rig.run();
            assert_eq!(rig.sent().len(), 2, "{how:?} {}", rig.drops());
            let out = by_worker(&rig, 0, |stats| stats.decapsulated.get());
            let back = by_worker(&rig, 1, |stats| stats.encapsulated.get());
            assert_eq!(out, back, "{how:?}");
            who.insert(out.iter().position(|count| *count == 1).unwrap());
        }
        assert_eq!(who.len(), 1, "node {node}: {who:?}");
        workers.extend(who);
    }
    assert_eq!(workers.len(), 3);
}

/// The fragments of one packet meet on one worker, whoever received them.
#[test]
fn fragments_of_a_tunnelled_packet_are_put_together_by_one_worker() {
    let mut rig = home_agent(3, 1, SteeringMode::Auto, 4);
    for node in 0..4u8 {
        let packet = Ip { payload: vec![node; 1200], ..Ip::data(&address(node), FAR) };
        let whole = packet.tunnelled(CARE_OF, AGENT).fragmentable();
        let (first, rest) = whole.payload.split_at(800);
        for (offset, piece, more) in [(800, rest, false), (0, first, true)] {
            let piece = whole.clone().payload(piece.to_vec()).fragment(offset, more);
            rig.push(0, &piece.frame(port_mac(0), station(ROUTER)));
        }
        rig.run();
    }
    assert_eq!(rig.sent().len(), 4, "{}", rig.drops());
    assert_eq!(rig.control.ports[0].sum(|stats| stats.joined.get()), 4);
}

/// A worker that is behind costs those their packets who are his, and says so.
#[test]
fn a_full_ring_loses_packets_where_they_came_in_and_counts_them() {
    let mut plan = Plan::ports(2);
    plan.workers(2, SteeringMode::Auto);
    plan.config.handover_ring = 1 << 10;
    let mut rig = plan.build();
    rig.home_agent(AGENT);
    rig.route("0.0.0.0/0", 0, Some("10.0.1.1"));
    rig.neighbor(0, "10.0.1.1", station(ROUTER));
    for node in 0..40 {
        rig.bind(&address(node), binding(AGENT, &[CARE_OF]));
        rig.push(0, &from_node(Encapsulation::IpInIp, node, &[3; 100]));
    }
    // Worker 1 stands still.
    while rig.worker.run_once(rig.now) {}
    let lost = rig.dropped(DropReason::HandoverFull);
    assert!(lost > 0, "{}", rig.drops());
    assert_eq!(
        by_worker(&rig, 0, |stats| stats.dropped(DropReason::HandoverFull).get()),
        [lost, 0]
    );
    for stats in rig.control.ports[0].workers() {
        assert_eq!(stats.total_in(), stats.total_out());
    }
    rig.run();
    assert_eq!(rig.sent().len() as u64, 40 - lost);
}

/// What only one worker can reach, the others reach by it: the one queue of a port,
/// and the kernel.
#[test]
fn a_worker_without_a_queue_sends_and_delivers_by_another() {
    let mut rig = home_agent(3, 1, SteeringMode::Auto, 8);
    rig.local("10.0.1.9", homeport_dataplane::table::local::LocalEntry::default());
    for host in 0..16 {
        let packet = Ip::data(&format!("192.0.2.{host}"), "10.0.1.9");
        rig.push(0, &packet.frame(port_mac(0), station(ROUTER)));
    }
    for node in 0..8 {
        rig.push(1, &Ip::data(FAR, &address(node)).frame(port_mac(1), station(50)));
    }
    rig.run();
    assert_eq!(rig.to_kernel(0).len(), 16);
    assert_eq!(by_worker(&rig, 0, |stats| stats.to_kernel.get()), [16, 0, 0]);
    assert_eq!(rig.sent().len(), 8);
    assert_eq!(by_worker(&rig, 0, |stats| stats.tx.get()), [8, 0, 0]);
    let encapsulated = by_worker(&rig, 1, |stats| stats.encapsulated.get());
    assert!(encapsulated[1] + encapsulated[2] > 0, "{encapsulated:?}");
}

fn ports(packet: &Ip) -> (u16, u16) {
    let (udp, _) = UdpHeader::read_from_prefix(&packet.payload).unwrap();
    (udp.source_port(), udp.destination_port())
}

fn host(number: u8) -> String {
    format!("10.2.0.{}", 60 + number)
}

/// A gateway whose packets come in by any queue, with hosts inside.
fn gateways() -> impl Iterator<Item = (Rig, usize)> {
    [(1, SteeringMode::Auto), (3, SteeringMode::Off), (3, SteeringMode::Inner)].into_iter().map(
        |(queues, steering)| {
            let mut rig = gateway_with(ReverseTunnel::None, |plan| {
                plan.workers(3, steering);
                plan.queues = queues;
            });
            for number in 0..12 {
                rig.neighbor(1, &host(number), station(60 + number));
            }
            (rig, queues)
        },
    )
}

fn exchange(rig: &mut Rig, port: usize, queue: usize, frame: &[u8]) -> Vec<(usize, Vec<u8>)> {
    rig.push_to(port, queue, frame);
    rig.run();
    rig.sent()
}

/// A host has all its mappings on one worker, and what comes back finds them, by
/// whichever queues the packets come: TCP-like flows, and ICMP errors about them.
#[test]
fn translations_are_found_whichever_queue_a_packet_comes_by() {
    for (mut rig, queues) in gateways() {
        let mut at = 0;
        let mut next = || {
            at += 1;
            at % queues
        };
        for number in 0..12u8 {
            let inside = host(number);
            let from = station(60 + number);
            let mut externals = BTreeSet::new();
            for far_port in [53, 54, 55] {
                // One mapping for all destinations, by whichever queue it was asked for.
                let packet = Ip::udp(&inside, FAR, (4000, far_port)).frame(port_mac(1), from);
                let sent = only(exchange(&mut rig, 1, next(), &packet), 0, station(ROUTER));
                assert_eq!(sent.ends(), (EXTERNAL.into(), FAR.into()));
                externals.insert(ports(&sent).0);
            }
            assert_eq!(externals.len(), 1, "{externals:?}");
            let external = *externals.first().unwrap();
            let answer = Ip::udp(FAR, EXTERNAL, (53, external));
            let frame = answer.frame(port_mac(0), station(ROUTER));
            for _ in 0..queues {
                let got = only(exchange(&mut rig, 0, next(), &frame), 1, from);
                assert_eq!(got.bytes(), Ip::udp(FAR, &inside, (53, 4000)).ttl(63).bytes());
            }
            // An error about what left, and one about what came.
            let quote = Ip::udp(EXTERNAL, FAR, (external, 53)).bytes();
            let error = Ip::icmp("198.51.100.99", EXTERNAL, DESTINATION_UNREACHABLE, &quote);
            let frame = error.frame(port_mac(0), station(ROUTER));
            let got = only(exchange(&mut rig, 0, next(), &frame), 1, from);
            assert_eq!(got.ends(), ("198.51.100.99".into(), inside.clone()));
            let quote = Ip::udp(FAR, &inside, (53, 4000)).bytes();
            let error = Ip::icmp(&inside, FAR, DESTINATION_UNREACHABLE, &quote);
            let frame = error.frame(port_mac(1), from);
            let got = only(exchange(&mut rig, 1, next(), &frame), 0, station(ROUTER));
            assert_eq!(got.ends(), (EXTERNAL.into(), FAR.into()));
            let inner = Ip::read(&got.payload[Icmpv4Header::LEN..]);
            assert_eq!(ports(&inner).1, external);
        }
        let given = rig.control.napts[0].workers.iter().map(|at| at.given.get());
        assert!(given.clone().all(|blocks| blocks > 0), "{:?}", given.collect::<Vec<_>>());
    }
}

/// Only the first fragment tells the port, and so the worker; the others follow it,
/// and those that came before it too. Where the address ends tunnels, fragments are
/// put together first, and the whole follows.
#[test]
fn fragments_find_the_worker_of_their_first_one_in_any_order() {
    for is_agent in [true, false] {
        for (mut rig, queues) in gateways() {
            if !is_agent {
                let plain = homeport_dataplane::table::local::LocalEntry::default();
                rig.local(EXTERNAL, plain);
            }
            for number in 0..12u8 {
                let (inside, from) = (host(number), station(60 + number));
                for late in [false, true] {
                    // Every datagram has the same identification, and so another source.
                    let far = format!("198.51.100.{}", 2 * number + u8::from(late));
                    let packet = Ip::udp(&inside, &far, (4000, 53)).frame(port_mac(1), from);
                    let queue = usize::from(number) % queues;
                    let sent = exchange(&mut rig, 1, queue, &packet);
                    let external = ports(&only(sent, 0, station(ROUTER))).0;
                    let data = [number; 1200];
                    let ends = ((ip(&far), 53), (ip(EXTERNAL), external));
                    let header = UdpHeader::new(ends.0, ends.1, &data).unwrap();
                    let payload = [header.as_bytes(), &data].concat();
                    let protocol = IpProtocol::UDP;
                    let whole = Ip { protocol, payload, ..Ip::data(&far, EXTERNAL) };
                    let (first, rest) = whole.payload.split_at(800);
                    let mut pieces = [(0, first, true), (800, rest, false)];
                    if late {
                        pieces.reverse();
                    }
                    for (offset, piece, more) in pieces {
                        let piece = whole.clone().payload(piece.to_vec()).fragment(offset, more);
                        rig.push_to(0, queue, &piece.frame(port_mac(0), station(ROUTER)));
                    }
                    rig.run();
                    let sent = rig.sent();
                    let count = if is_agent { 1 } else { 2 };
                    assert_eq!(sent.len(), count, "late {late}: {}", rig.drops());
                    for (port, frame) in &sent {
                        let (ethernet, packet) = parse(frame);
                        assert_eq!((*port, ethernet.destination), (1, from));
                        assert_eq!(packet.ends(), (far.clone(), inside.clone()));
                    }
                    assert_eq!(parse(&sent[0].1).1.fragment.0, 0, "the first one goes first");
                }
            }
        }
    }
}

/// RFC 4787 REQ-9, with the two hosts' mappings on any two workers.
#[test]
fn hosts_inside_reach_each_other_by_external_endpoints_across_workers() {
    for (mut rig, queues) in gateways() {
        for (a, b) in [(0u8, 1u8), (1, 2), (3, 7), (5, 9), (8, 10), (11, 4)] {
            let open = |rig: &mut Rig, number: u8| {
                let packet = Ip::udp(&host(number), FAR, (4000, 53));
                let frame = packet.frame(port_mac(1), station(60 + number));
                let sent = exchange(rig, 1, usize::from(number) % queues, &frame);
                ports(&only(sent, 0, station(ROUTER))).0
            };
            let external = open(&mut rig, b);
            // Filtering is by address: b has spoken to the external address.
            let opens = Ip::udp(&host(b), EXTERNAL, (4000, 9)).frame(port_mac(1), station(60 + b));
            exchange(&mut rig, 1, usize::from(b) % queues, &opens);
            let packet = Ip::udp(&host(a), EXTERNAL, (4001, external));
            let frame = packet.frame(port_mac(1), station(60 + a));
            let sent = exchange(&mut rig, 1, usize::from(a) % queues, &frame);
            if sent.is_empty() {
                assert!(rig.dropped(DropReason::NatFiltered) > 0, "{}", rig.drops());
                continue;
            }
            let got = only(sent, 1, station(60 + b));
            assert_eq!(got.ends(), (EXTERNAL.into(), host(b)));
            let back = Ip::udp(&host(b), EXTERNAL, (4000, ports(&got).0));
            let frame = back.frame(port_mac(1), station(60 + b));
            let sent = exchange(&mut rig, 1, usize::from(b) % queues, &frame);
            let answer = only(sent, 1, station(60 + a));
            assert_eq!((answer.ends().1, ports(&answer)), (host(a), (external, 4001)));
        }
    }
}

/// A visitor's sessions are on one worker too, and it is found by its station.
#[test]
fn a_visitors_translations_are_found_across_workers() {
    for (mut rig, queues) in gateways() {
        for queue in 0..queues {
            let packet = Ip::udp(NODE, FAR, (4000, 53)).frame(port_mac(1), station(MOBILE));
            let sent = exchange(&mut rig, 1, queue, &packet);
            let external = ports(&only(sent, 0, station(ROUTER))).0;
            let answer = Ip::udp(FAR, EXTERNAL, (53, external)).frame(port_mac(0), station(ROUTER));
            let got = only(exchange(&mut rig, 0, queue, &answer), 1, station(MOBILE));
            assert_eq!(got.bytes(), Ip::udp(FAR, NODE, (53, 4000)).ttl(63).bytes());
        }
    }
}
