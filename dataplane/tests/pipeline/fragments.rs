//! Fragments where tunnels end (B-05): put together, bounded, given up in time.

use homeport_dataplane::reassembly::{
    MAX_FRAGMENTS, MAX_FRAGMENTS_PER_DATAGRAM, MAX_FRAGMENTS_PER_SOURCE, TIMEOUT,
};
use homeport_dataplane::table::binding::{Encapsulation, TunnelFlags};
use homeport_dataplane::table::visitor::{ReverseTunnel, VisitorEntry};
use homeport_dataplane::verdict::{DropReason, PuntReason};
use homeport_wire::icmpv4::{Icmpv4Header, Icmpv4Packet};
use homeport_wire::{IpProtocol, UdpHeader};
use zerocopy::IntoBytes;

use crate::harness::*;
use crate::walk::{MOBILE, ROUTER, foreign_agent, home_agent};

const NODE: &str = "10.1.0.10";
const CARE_OF: &str = "10.0.2.2";
const AGENT: &str = "10.0.1.2";
const FAR: &str = "192.0.2.7";

fn from_core(packet: &Ip) -> Vec<u8> {
    packet.frame(port_mac(0), station(ROUTER))
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// The fragments of a packet for a link with this MTU.
fn cut(packet: &Ip, mtu: usize) -> Vec<Ip> {
    let room = (mtu - 20) / 8 * 8;
    let count = packet.payload.len().div_ceil(room);
    let fragment = |(index, piece): (usize, &[u8])| {
        let offset = u16::try_from(index * room).unwrap();
        packet.clone().payload(piece.to_vec()).fragment(offset, index + 1 < count)
    };
    packet.payload.chunks(room).enumerate().map(fragment).collect()
}

/// The payload of the packet whose fragments these are.
fn join(mut fragments: Vec<Ip>) -> Vec<u8> {
    fragments.sort_by_key(|part| part.fragment.0);
    let mut payload = Vec::new();
    for part in &fragments {
        assert_eq!(usize::from(part.fragment.0), payload.len());
        payload.extend_from_slice(&part.payload);
    }
    assert!(!fragments.last().unwrap().fragment.1);
    payload
}

fn packets(sent: &[(usize, Vec<u8>)]) -> Vec<Ip> {
    sent.iter().map(|(_, frame)| parse(frame).1).collect()
}

fn joined(rig: &Rig) -> u64 {
    rig.control.ports.iter().map(|port| port.sum(|stats| stats.joined.get())).sum()
}

/// B-05: a router in the tunnel cut the outer packet; in whatever order the parts
/// come, the node's packet is what comes out.
#[test]
fn a_tunnelled_packet_in_fragments_comes_out_whole() {
    for how in EVERY {
        let mut rig = home_agent();
        rig.bind(NODE, binding_of(AGENT, None, &[(CARE_OF, how, TunnelFlags::REVERSE)]));
        let baseline = rig.worker.free_buffers();
        let inner = Ip::data(NODE, FAR).payload(bytes(1400)).fragmentable();
        let parts = cut(&inner.arriving(how, CARE_OF, AGENT), 576);
        assert_eq!(parts.len(), 3);
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let mut sent = Vec::new();
            for index in order {
                assert_eq!(sent, []);
                sent = rig.exchange(0, &from_core(&parts[index]));
            }
            let packet = only(sent, 0, station(ROUTER));
            assert_eq!(packet.bytes(), inner.clone().ttl(63).bytes(), "{how:?}");
        }
        assert_eq!((joined(&rig), rig.drops().as_str()), (8, ""));
        assert_eq!(rig.worker.free_buffers(), baseline);
    }
}

/// Checks are made on the whole: fragments open no way around them.
// Shows attack-23.
#[test]
fn what_may_not_come_out_of_a_tunnel_does_not_in_fragments_either() {
    let mut rig = home_agent();
    let inner = Ip::data("10.1.0.99", FAR).payload(bytes(1400));
    let parts = cut(&inner.tunnelled(CARE_OF, AGENT), 800);
    assert_eq!(rig.exchange(0, &from_core(&parts[0])), []);
    rig.assert_drops(0, &from_core(&parts[1]), DropReason::NoBinding);
    // An address that ends no tunnel puts nothing together.
    rig.local("10.0.1.9", Default::default());
    let parts = cut(&inner.tunnelled(CARE_OF, "10.0.1.9"), 800);
    rig.assert_drops(0, &from_core(&parts[0]), DropReason::UnknownTunnel);
}

/// B-05: 8,000 bytes in fragments of 1,500 from the correspondent, over a path of
/// 1,280 bytes, whole at the node; the foreign agent puts nothing together.
#[test]
fn a_long_datagram_crosses_a_narrow_tunnel() {
    for how in EVERY {
        // Between agents both ports are 434.
        let how = match how {
            Encapsulation::Udp { .. } => Encapsulation::Udp { peer_port: 434 },
            Encapsulation::PlainUdp { .. } => Encapsulation::PlainUdp { peer_port: 434 },
            other => other,
        };
        let (mut home, mut foreign) = (home_agent(), foreign_agent(ReverseTunnel::Direct));
        home.bind(NODE, binding_of(AGENT, None, &[(CARE_OF, how, TunnelFlags::REVERSE)]));
        let entry = visitor(station(MOBILE), 1, AGENT, CARE_OF, ReverseTunnel::Direct);
        foreign.visit(NODE, VisitorEntry { encapsulation: how, ..entry });
        let quote = Ip::data(FAR, NODE).payload(bytes(1400)).leaving(how, AGENT, CARE_OF);
        let header = Icmpv4Header::new(3, 4, [0, 0, 5, 0], &quote.bytes());
        let payload = [header.as_bytes(), &quote.bytes()].concat();
        let narrow = Ip { protocol: IpProtocol::ICMP, payload, ..Ip::data("10.0.9.9", AGENT) };
        home.exchange(0, &from_core(&narrow));

        let datagram = Ip::data(FAR, NODE).payload(bytes(8000));
        for part in cut(&datagram, 1500) {
            home.push(0, &from_core(&part));
        }
        home.run();
        let outers = packets(&home.sent());
        assert!(outers.iter().all(|outer| outer.bytes().len() <= 1280), "{how:?}");
        for outer in &outers {
            foreign.push(0, &from_core(outer));
        }
        foreign.run();
        let arrived = packets(&foreign.sent());
        assert_eq!(join(arrived), bytes(8000));
        assert_eq!((joined(&foreign), foreign.drops().as_str()), (0, ""));
    }
}

/// B-05: a stranger tunnels first and cuts then, 8,000 bytes: put together, taken
/// out, and cut again for the visited link.
#[test]
fn a_long_packet_cut_inside_its_tunnel_reaches_the_visitor() {
    for how in EVERY {
        let how = match how {
            Encapsulation::Udp { .. } => Encapsulation::Udp { peer_port: 434 },
            Encapsulation::PlainUdp { .. } => Encapsulation::PlainUdp { peer_port: 434 },
            other => other,
        };
        let mut rig = foreign_agent(ReverseTunnel::Direct);
        let entry = visitor(station(MOBILE), 1, AGENT, CARE_OF, ReverseTunnel::Direct);
        rig.visit(NODE, VisitorEntry { encapsulation: how, ..entry });
        let baseline = rig.worker.free_buffers();
        let inner = Ip::data(FAR, NODE).payload(bytes(8000)).fragmentable();
        for part in cut(&inner.arriving(how, AGENT, CARE_OF), 1280).iter().rev() {
            rig.push(0, &from_core(part));
        }
        rig.run();
        let sent = rig.sent();
        assert_eq!(sent.len(), 6, "{how:?} {}", rig.drops());
        assert!(sent.iter().all(|(port, _)| *port == 1));
        assert_eq!(join(packets(&sent)), bytes(8000));
        assert_eq!(rig.worker.free_buffers(), baseline);
        if how == Encapsulation::Minimal {
            // The outer header is the packet's own: with DF nobody cuts it.
            continue;
        }
        // With DF inside, its sender is told what the visited link takes.
        let inner = Ip::data(FAR, NODE).payload(bytes(8000));
        for part in cut(&inner.arriving(how, AGENT, CARE_OF), 1280) {
            rig.push(0, &from_core(&part));
        }
        rig.control.ports[0].set_address(Some(ip("10.0.2.9")));
        rig.run();
        let told = only(rig.sent(), 0, station(ROUTER));
        let icmp = Icmpv4Packet::new_checked(&told.payload).unwrap();
        assert_eq!((told.ends().1.as_str(), icmp.header().rest), (FAR, [0, 0, 5, 220]));
        assert_eq!(rig.worker.free_buffers(), baseline);
    }
}

/// UDP to an agent's address is put together too: a registration is punted whole,
/// the rest goes to the kernel, cut if it is longer than its link.
#[test]
fn datagrams_for_the_control_core_and_the_kernel_arrive_whole() {
    let mut rig = home_agent();
    let udp = |port: u16, len: usize| {
        let data = bytes(len);
        let ends = ((ip(FAR), 4711), (ip(AGENT), port));
        let header = UdpHeader::new(ends.0, ends.1, &data).unwrap();
        Ip::udp(FAR, AGENT, (4711, port)).payload([header.as_bytes(), &data].concat())
    };
    let registration = udp(434, 900);
    for part in cut(&registration, 576) {
        assert_eq!(rig.exchange(0, &from_core(&part)), []);
    }
    let punts = rig.punts();
    assert_eq!(punts.len(), 1);
    assert_eq!(punts[0].0.reason(), Some(PuntReason::Registration));
    assert_eq!(parse(&punts[0].1).1.payload, registration.payload);
    for (len, frames) in [(1400, 1), (8000, 6)] {
        let datagram = udp(5000, len);
        for part in cut(&datagram, 1280) {
            assert_eq!(rig.exchange(0, &from_core(&part)), []);
        }
        let kernel = rig.to_kernel(0);
        assert_eq!(kernel.len(), frames);
        let parts = kernel.iter().map(|frame| parse(frame).1).collect();
        assert_eq!(join(parts), datagram.payload);
    }
}

/// Reliability row 28: each refusal has its counter, and ends what it must.
// Shows attack-28.
#[test]
fn every_refused_fragment_is_counted_by_its_reason() {
    let mut rig = home_agent();
    let baseline = rig.worker.free_buffers();
    let whole = Ip::data(NODE, FAR).payload(bytes(1000)).tunnelled(CARE_OF, AGENT);
    let part = |offset: u16, more: bool, len: usize| {
        from_core(&whole.clone().payload(bytes(len)).fragment(offset, more))
    };
    rig.assert_drops(0, &part(0, true, 40), DropReason::FragmentTiny);
    rig.assert_drops(0, &part(64, true, 63), DropReason::FragmentMalformed);
    rig.assert_drops(0, &part(65_528, false, 9), DropReason::FragmentTooLong);
    assert_eq!(rig.exchange(0, &part(0, true, 64)), []);
    rig.assert_drops(0, &part(0, true, 64), DropReason::FragmentDuplicate);
    assert_eq!(rig.exchange(0, &part(56, true, 64)), []);
    assert_eq!(rig.dropped(DropReason::FragmentOverlap), 2);
    for index in 0..=MAX_FRAGMENTS_PER_DATAGRAM as u16 {
        assert_eq!(rig.exchange(0, &part(index * 64, true, 64)), []);
    }
    let too_many = rig.dropped(DropReason::FragmentTooMany);
    assert_eq!(too_many, MAX_FRAGMENTS_PER_DATAGRAM as u64 + 1);
    assert_eq!(rig.worker.free_buffers(), baseline);
    assert_eq!(rig.stats(0).held.get(), 0);
}

/// RFC 1122 §3.3.2: after the time, with nothing else happening, the buffers are
/// back, and who sent a first fragment is told.
// Shows attack-28.
#[test]
fn unfinished_datagrams_time_out_and_their_senders_are_told() {
    let mut rig = home_agent();
    let baseline = rig.worker.free_buffers();
    let whole = Ip::data(NODE, FAR).payload(bytes(1400)).tunnelled(CARE_OF, AGENT);
    let parts = cut(&whole, 576);
    assert_eq!(rig.exchange(0, &from_core(&parts[0])), []);
    let other = Ip { source: ip("10.0.2.3"), ..parts[1].clone() };
    assert_eq!(rig.exchange(0, &from_core(&other)), []);
    assert_eq!(rig.stats(0).held.get(), 2);
    assert_eq!(rig.worker.free_buffers().0, baseline.0 - 2);
    rig.advance(TIMEOUT);
    let told = only(rig.sent(), 0, station(ROUTER));
    assert_eq!(told.ends(), (AGENT.into(), CARE_OF.into()));
    let icmp = Icmpv4Packet::new_checked(&told.payload).unwrap();
    assert_eq!((icmp.header().message_type, icmp.header().code), (11, 1));
    assert_eq!(rig.dropped(DropReason::FragmentTimeout), 2);
    assert_eq!((rig.stats(0).held.get(), rig.worker.free_buffers()), (0, baseline));
}

/// Reliability rows 28 and 43: a million fragments that are never finished, from as
/// many forged sources and from one, with honest packets in between, in one piece
/// and in several: not one is lost, the bounds hold, and at the end every buffer is
/// back.
// Shows attack-28.
#[test]
fn a_million_unfinished_fragments_cost_legitimate_traffic_nothing() {
    let mut rig = home_agent();
    let baseline = rig.worker.free_buffers();
    let forged = Ip::data(NODE, FAR).payload(bytes(48)).tunnelled(CARE_OF, AGENT);
    let mut forged = from_core(&forged.payload(bytes(48)).fragment(0, true));
    let inner = Ip::data(NODE, FAR).payload(bytes(1400));
    let parts = cut(&inner.tunnelled(CARE_OF, AGENT), 800);
    let mut flood = 0u32;
    let mut arrived = 0;
    let mut flood_with = |rig: &mut Rig, one_source: bool| {
        for _ in 0..400 {
            flood += 1;
            let source = if one_source { 0x0b00_0001 } else { 0x0b00_0000 + flood };
            let identification = (flood as u16).to_be_bytes();
            forged[26..30].copy_from_slice(&source.to_be_bytes());
            forged[18..20].copy_from_slice(&identification);
            forged[24..26].fill(0);
            let sum = homeport_wire::checksum::checksum(&forged[14..34]);
            forged[24..26].copy_from_slice(&sum.to_be_bytes());
            rig.push(0, &forged);
        }
        while rig.worker.run_once(rig.now) {}
        assert_eq!(rig.links[0].discard(), 0);
        flood
    };
    for round in 0.. {
        let one_source = round % 2 == 1;
        rig.push(0, &from_core(&parts[0]));
        flood_with(&mut rig, one_source);
        let held = rig.stats(0).held.get();
        assert!(held <= MAX_FRAGMENTS as u64);
        rig.push(0, &from_core(&parts[1]));
        rig.push(0, &from_core(&inner.tunnelled(CARE_OF, AGENT)));
        while rig.worker.run_once(rig.now) {}
        arrived += rig.links[0].discard();
        assert_eq!(arrived, 2 * (round + 1));
        if flood_with(&mut rig, one_source) >= 1_000_000 {
            break;
        }
    }
    assert!(arrived >= 2500);
    rig.check();
    let evicted = rig.dropped(DropReason::FragmentEvicted);
    assert!(evicted >= 1_000_000 - MAX_FRAGMENTS as u64, "{}", rig.drops());
    rig.advance(TIMEOUT);
    rig.links[0].discard();
    assert_eq!(rig.stats(0).held.get(), 0);
    assert_eq!(rig.worker.free_buffers(), baseline);
    const { assert!(MAX_FRAGMENTS_PER_SOURCE < MAX_FRAGMENTS) };
}

/// S3-11: two visitors with one home address, both in encapsulating delivery, send
/// fragments with one identification: their stations keep them apart.
#[test]
fn fragments_of_two_stations_with_one_address_are_not_mixed() {
    let mut rig = foreign_agent(ReverseTunnel::Encapsulating);
    let (agents, stations) = (["10.0.1.2", "10.0.7.2"], [station(20), station(21)]);
    for (agent, mac) in agents.into_iter().zip(stations) {
        let entry = visitor(mac, 1, agent, CARE_OF, ReverseTunnel::Encapsulating);
        rig.visit(NODE, VisitorEntry { overlapping: true, ..entry });
    }
    let parts = [0x11, 0x22].map(|tag| {
        let inner = Ip::data(NODE, FAR).payload(vec![tag; 1400]);
        cut(&inner.tunnelled(NODE, CARE_OF), 800)
    });
    let frame = |one: usize, part: usize| parts[one][part].frame(port_mac(1), stations[one]);
    for (one, part) in [(0, 0), (1, 1)] {
        assert_eq!(rig.exchange(1, &frame(one, part)), []);
    }
    for (one, part, tag) in [(0, 1, 0x11), (1, 0, 0x22)] {
        let outer = only(rig.exchange(1, &frame(one, part)), 0, station(ROUTER));
        assert_eq!(outer.ends(), (CARE_OF.into(), agents[one].into()));
        assert!(outer.inner().payload.iter().all(|byte| *byte == tag));
    }
    assert_eq!(rig.drops(), "");
}
