//! A NAPT between the visited link and the core, on the very address that is the
//! foreign agent's (B-07).

use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_dataplane::napt::Dependence;
use homeport_dataplane::napt::log::NatLogRecord;
use homeport_dataplane::table::local::LocalEntry;
use homeport_dataplane::table::visitor::{ReverseTunnel, VisitorEntry};
use homeport_dataplane::verdict::{DropReason, PuntReason};
use homeport_wire::{IpProtocol, Ipv4Header, UdpHeader};
use zerocopy::FromBytes;

use crate::gateway::*;
use crate::harness::*;
use crate::walk::{MOBILE, ROUTER};

fn from_node(packet: &Ip) -> Vec<u8> {
    packet.frame(port_mac(1), station(MOBILE))
}

fn from_host(packet: &Ip) -> Vec<u8> {
    packet.frame(port_mac(1), station(50))
}

fn from_core(packet: &Ip) -> Vec<u8> {
    packet.frame(port_mac(0), station(ROUTER))
}

fn ports(packet: &Ip) -> (u16, u16) {
    let (udp, _) = UdpHeader::read_from_prefix(&packet.payload).unwrap();
    (udp.source_port(), udp.destination_port())
}

/// Opens a mapping by a datagram from port 4000 to `FAR`:53; its external port.
fn open(rig: &mut Rig, from: &str) -> u16 {
    let packet = Ip::udp(from, FAR, (4000, 53));
    let frame = if from == NODE { from_node(&packet) } else { from_host(&packet) };
    let sent = rig.exchange(1, &frame);
    let sent = only(sent, 0, station(ROUTER));
    assert_eq!(sent.ends(), (EXTERNAL.into(), FAR.into()));
    assert_eq!(sent.ttl, 63);
    assert!((16_384..32_768).contains(&ports(&sent).0));
    ports(&sent).0
}

/// B-07: a visitor reaches the Internet locally, and the answer finds its station
/// without a route and without ARP.
#[test]
fn a_visitor_reaches_the_internet_by_the_agents_address() {
    let mut rig = gateway(ReverseTunnel::None);
    let port = open(&mut rig, NODE);
    let sent = rig.exchange(0, &from_core(&Ip::udp(FAR, EXTERNAL, (53, port))));
    let got = only(sent, 1, station(MOBILE));
    assert_eq!(got.bytes(), Ip::udp(FAR, NODE, (53, 4000)).ttl(63).bytes());
}

/// So does a host of the visited network, which is reached by its address.
#[test]
fn a_host_of_the_visited_network_reaches_the_internet_too() {
    let mut rig = gateway(ReverseTunnel::None);
    let port = open(&mut rig, HOST);
    let sent = rig.exchange(0, &from_core(&Ip::udp(FAR, EXTERNAL, (53, port))));
    let got = only(sent, 1, station(50));
    assert_eq!(got.bytes(), Ip::udp(FAR, HOST, (53, 4000)).ttl(63).bytes());
}

/// S3-15: no NAT on tunnel traffic, neither into the tunnel nor out of it.
#[test]
fn what_is_tunnelled_is_never_translated() {
    let mut rig = gateway(ReverseTunnel::Direct);
    let packet = Ip::udp(NODE, FAR, (4000, 53));
    let sent = rig.exchange(1, &from_node(&packet));
    let sent = only(sent, 0, station(ROUTER));
    assert_eq!(sent.inner().ends(), (NODE.into(), FAR.into()));
    let back = Ip::udp(FAR, NODE, (53, 4000)).tunnelled("10.0.1.2", EXTERNAL);
    let sent = rig.exchange(0, &from_core(&back));
    assert_eq!(only(sent, 1, station(MOBILE)).ends(), (FAR.into(), NODE.into()));
    assert_eq!(rig.control.napts[0].workers[0].opened.get(), 0);
}

/// Nor is what a mobile node's tunnel brings to an external endpoint: its answer would
/// go into the tunnel as it is.
#[test]
fn what_comes_out_of_a_tunnel_is_never_translated() {
    let mut rig = gateway(ReverseTunnel::None);
    let port = open(&mut rig, NODE);
    rig.home_agent("10.0.2.9");
    rig.bind(FAR, binding("10.0.2.9", &["10.0.9.2"]));
    let packet = Ip::udp(FAR, EXTERNAL, (53, port)).tunnelled("10.0.9.2", "10.0.2.9");
    assert_eq!(rig.exchange(0, &from_core(&packet)), []);
    assert_eq!(rig.to_kernel(0).len(), 1, "{}", rig.drops());
}

/// All else of the external address stays what it was: registrations, tunnels, pings
/// and the kernel's own sockets, from outside and from inside.
#[test]
fn what_is_for_the_box_itself_still_gets_there() {
    let mut rig = gateway(ReverseTunnel::None);
    open(&mut rig, NODE);
    type FromLink = fn(&Ip) -> Vec<u8>;
    let sides: [(usize, &str, FromLink); 2] = [(0, FAR, from_core), (1, HOST, from_host)];
    for (port, far, from) in sides {
        let registrations = rig.punted(PuntReason::Registration);
        rig.exchange(port, &from(&Ip::udp(far, EXTERNAL, (434, 434))));
        assert_eq!(rig.punted(PuntReason::Registration), registrations + 1);
        let mut tcp = Ip::data(far, EXTERNAL).payload(vec![0; 20]);
        tcp.payload[2..4].copy_from_slice(&22u16.to_be_bytes());
        for packet in [
            Ip::udp(far, EXTERNAL, (53, 40_000)),
            Ip::udp(far, EXTERNAL, (53, 53)),
            Ip::icmp(far, EXTERNAL, 8, b"ping"),
            tcp,
            Ip { protocol: IpProtocol(50), ..Ip::data(far, EXTERNAL) },
        ] {
            assert_eq!(rig.exchange(port, &from(&packet)), []);
            let taken = rig.to_kernel(port);
            assert_eq!(taken.len(), 1, "{packet:?}\n{}", rig.drops());
            assert_eq!(parse(&taken[0]).1.bytes(), packet.bytes());
        }
    }
    let tunnelled = Ip::udp(FAR, NODE, (53, 4000)).tunnelled("10.0.1.2", EXTERNAL);
    let sent = rig.exchange(0, &from_core(&tunnelled));
    assert_eq!(only(sent, 1, station(MOBILE)).ends(), (FAR.into(), NODE.into()));
}

/// RFC 4787 REQ-8, RFC 5382 REQ-4: strangers are kept out, in silence.
#[test]
fn what_nobody_asked_for_is_dropped_in_silence() {
    let mut rig = gateway(ReverseTunnel::None);
    let port = open(&mut rig, NODE);
    let stranger = Ip::udp("198.51.100.8", EXTERNAL, (53, port));
    rig.assert_drops(0, &from_core(&stranger), DropReason::NatFiltered);
    let free = Ip::udp(FAR, EXTERNAL, (53, port ^ 1));
    rig.assert_drops(0, &from_core(&free), DropReason::NatNoMapping);
    let esp = Ip { protocol: IpProtocol(50), ..Ip::data(NODE, FAR) };
    rig.assert_drops(1, &from_node(&esp), DropReason::NatUnsupported);
}

/// A host that is told why quotes its own packet: it knows nothing of the NAPT.
fn quoted(error: &Ip) -> Ip {
    let (header, _) = Ipv4Header::read_from_prefix(&error.payload[8..]).unwrap();
    let mut quote = error.payload[8..].to_vec();
    // It may end early; what is missing is not looked at.
    quote.resize(usize::from(header.total_len()), 0);
    Ip::read(&quote)
}

/// RFC 4787 REQ-13: with DF the sender is told, about the packet that it sent; and
/// without (REQ-13a) it goes out in fragments, in order.
#[test]
fn req_13_what_is_too_long_is_reported_or_cut() {
    for (from, mac) in [(NODE, MOBILE), (HOST, 50)] {
        let mut rig = gateway_with(ReverseTunnel::None, |plan| plan.mtus = vec![1280, 1500]);
        let long = long_udp(from, FAR, (4000, 53), 1400);
        let sent = rig.exchange(1, &long.frame(port_mac(1), station(mac)));
        let error = only(sent, 1, station(mac));
        assert_eq!(error.ends(), (GATEWAY.into(), from.into()));
        assert_eq!((error.payload[0], error.payload[1]), (3, 4));
        assert_eq!(error.payload[6..8], 1280u16.to_be_bytes());
        let quote = quoted(&error);
        assert_eq!(quote.ends(), (from.into(), FAR.into()));
        assert_eq!(ports(&quote), (4000, 53));
        let sent = rig.exchange(1, &long.fragmentable().frame(port_mac(1), station(mac)));
        let parts: Vec<Ip> = sent.iter().map(|(_, frame)| parse(frame).1).collect();
        assert_eq!(parts.len(), 2);
        assert_eq!((parts[0].fragment, parts[1].fragment), ((0, true), (1256, false)));
        assert!(parts.iter().all(|part| part.ends() == (EXTERNAL.into(), FAR.into())));
    }
}

/// The same inwards: the remote host is told in its own words.
#[test]
fn what_is_too_long_for_the_inside_is_reported_to_the_outside() {
    let mut rig = gateway_with(ReverseTunnel::None, |plan| plan.mtus = vec![1500, 1280]);
    for from in [NODE, HOST] {
        let port = open(&mut rig, from);
        let long = long_udp(FAR, EXTERNAL, (53, port), 1400);
        let sent = rig.exchange(0, &from_core(&long));
        let error = only(sent, 0, station(ROUTER));
        assert_eq!(error.ends(), (EXTERNAL.into(), FAR.into()));
        assert_eq!((error.payload[0], error.payload[1]), (3, 4));
        let quote = quoted(&error);
        assert_eq!(quote.ends(), (FAR.into(), EXTERNAL.into()));
        assert_eq!(ports(&quote), (53, port));
    }
}

/// A hop is a hop: traceroute sees this box from both sides, and each end is told
/// about the packet that it sent.
#[test]
fn the_ttl_ends_here_as_anywhere() {
    let mut rig = gateway(ReverseTunnel::None);
    let port = open(&mut rig, NODE);
    let sent = rig.exchange(1, &from_node(&Ip::udp(NODE, FAR, (4000, 53)).ttl(1)));
    let error = only(sent, 1, station(MOBILE));
    assert_eq!((error.payload[0], ports(&quoted(&error))), (11, (4000, 53)));
    let sent = rig.exchange(0, &from_core(&Ip::udp(FAR, EXTERNAL, (53, port)).ttl(1)));
    let error = only(sent, 0, station(ROUTER));
    assert_eq!((error.payload[0], ports(&quoted(&error))), (11, (53, port)));
    assert_eq!(rig.dropped(DropReason::TtlExpired), 2);
}

/// A next hop that does not answer: the sender inside is told about its own packet.
#[test]
fn a_dead_next_hop_is_reported_to_the_inside() {
    let mut rig = gateway(ReverseTunnel::None);
    rig.route("203.0.113.0/24", 0, Some("10.0.2.99"));
    let packet = Ip::udp(NODE, "203.0.113.5", (4000, 53));
    assert_eq!(rig.exchange(1, &from_node(&packet)), []);
    rig.advance(Duration::from_secs(10));
    let error = only(rig.sent(), 1, station(MOBILE));
    assert_eq!((error.payload[0], error.payload[1]), (3, 1));
    assert_eq!(quoted(&error).ends(), (NODE.into(), "203.0.113.5".into()));
    assert_eq!(ports(&quoted(&error)), (4000, 53));
}

/// RFC 5508: an error from a router outside finds the host, and one from the host
/// finds the remote end.
#[test]
fn errors_pass_in_both_directions() {
    let mut rig = gateway(ReverseTunnel::None);
    let port = open(&mut rig, NODE);
    let about = Ip::udp(EXTERNAL, FAR, (port, 53)).bytes();
    let error = Ip::icmp("192.0.2.1", EXTERNAL, 3, &about);
    let got = only(rig.exchange(0, &from_core(&error)), 1, station(MOBILE));
    assert_eq!(got.ends(), ("192.0.2.1".into(), NODE.into()));
    assert_eq!((quoted(&got).ends().0, ports(&quoted(&got))), (NODE.into(), (4000, 53)));
    let about = Ip::udp(FAR, NODE, (53, 4000)).bytes();
    let error = Ip::icmp(NODE, FAR, 3, &about);
    let sent = only(rig.exchange(1, &from_node(&error)), 0, station(ROUTER));
    assert_eq!(sent.ends(), (EXTERNAL.into(), FAR.into()));
    assert_eq!((quoted(&sent).ends().1, ports(&quoted(&sent))), (EXTERNAL.into(), (53, port)));
}

/// RFC 4787 REQ-9: a visitor and a host of the visited network meet by their external
/// endpoints.
#[test]
fn two_inside_hosts_meet_by_their_external_endpoints() {
    let change = |plan: &mut Plan| {
        plan.config.napts[0].filtering = Dependence::EndpointIndependent;
    };
    let mut rig = gateway_with(ReverseTunnel::None, change);
    let (node, host) = (open(&mut rig, NODE), open(&mut rig, HOST));
    let sent = rig.exchange(1, &from_node(&Ip::udp(NODE, EXTERNAL, (4000, host))));
    let got = only(sent, 1, station(50));
    assert_eq!((got.ends(), ports(&got)), ((EXTERNAL.into(), HOST.into()), (node, 4000)));
    assert_eq!(got.ttl, 63);
    let sent = rig.exchange(1, &from_host(&Ip::udp(HOST, EXTERNAL, (4000, node))));
    let got = only(sent, 1, station(MOBILE));
    assert_eq!((got.ends(), ports(&got)), ((EXTERNAL.into(), NODE.into()), (host, 4000)));
    // An error about it comes back to who sent.
    let about = Ip::icmp(HOST, EXTERNAL, 3, &Ip::udp(EXTERNAL, HOST, (node, 4000)).bytes());
    let got = only(rig.exchange(1, &from_host(&about)), 1, station(MOBILE));
    assert_eq!(got.ends(), (EXTERNAL.into(), NODE.into()));
    assert_eq!(quoted(&got).ends(), (NODE.into(), EXTERNAL.into()));
    assert_eq!(ports(&quoted(&got)), (4000, host));
}

/// RFC 4787 REQ-14 with buffers: fragments in any order, both ways; those whose
/// first never comes go after a while, and every buffer comes back.
#[test]
fn req_14_early_fragments_wait_and_nothing_leaks() {
    let mut rig = gateway(ReverseTunnel::None);
    // At an agent's address fragments are put together before anything else.
    rig.local(EXTERNAL, LocalEntry::default());
    let port = open(&mut rig, NODE);
    let baseline = rig.worker.free_buffers().0;
    let parts = |packet: &Ip| -> Vec<Ip> {
        let last = packet.payload.len().div_ceil(800) - 1;
        let pieces = packet.payload.chunks(800).enumerate();
        let part = |(at, piece): (usize, &[u8])| {
            packet.clone().payload(piece.to_vec()).fragment(at as u16 * 800, at < last)
        };
        pieces.map(part).collect()
    };
    let out = parts(&long_udp(NODE, FAR, (4000, 53), 2000));
    for early in [&out[2], &out[1]] {
        assert_eq!(rig.exchange(1, &from_node(early)), []);
    }
    assert_eq!(rig.stats(1).held.get(), 2);
    let sent = rig.exchange(1, &from_node(&out[0]));
    let sent: Vec<Ip> = sent.iter().map(|(_, frame)| parse(frame).1).collect();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|part| part.ends().0 == EXTERNAL && part.ttl == 63));
    assert_eq!(ports(&sent[0]).0, port);
    let back = parts(&long_udp(FAR, EXTERNAL, (53, port), 2000));
    assert_eq!(rig.exchange(0, &from_core(&back[1])), []);
    let sent = rig.exchange(0, &from_core(&back[0]));
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|(by, frame)| *by == 1 && parse(frame).1.ends().1 == NODE));
    // What the kernel shall put together reaches it, too.
    let own = parts(&long_udp("198.51.100.9", EXTERNAL, (53, 40_000), 2000));
    rig.exchange(0, &from_core(&own[1]));
    rig.exchange(0, &from_core(&own[0]));
    assert_eq!(rig.to_kernel(0).len(), 2);
    // A flood of orphans: bounded, and gone in the end.
    for number in 0..400u32 {
        let source = Ipv4Addr::from_bits(0x0b00_0000 + number / 4).to_string();
        let mut orphan = back[1].clone();
        orphan.source = ip(&source);
        rig.exchange(0, &from_core(&orphan));
    }
    assert_eq!(rig.dropped(DropReason::FragmentTooMany), 400 - 128);
    assert_eq!(rig.stats(0).held.get(), 128);
    assert_eq!(rig.worker.free_buffers().0, baseline - 128);
    rig.advance(Duration::from_secs(3));
    assert_eq!(rig.dropped(DropReason::FragmentTimeout), 128);
    assert_eq!(rig.worker.free_buffers().0, baseline);
}

/// At an agent's address a datagram in fragments is put together, translated, and
/// cut anew for the inside.
#[test]
fn fragments_to_an_agents_address_reach_the_inside_too() {
    let mut rig = gateway(ReverseTunnel::None);
    let port = open(&mut rig, NODE);
    let whole = long_udp(FAR, EXTERNAL, (53, port), 2000);
    let (head, tail) = whole.payload.split_at(1000);
    let part = |bytes: &[u8], at, more| whole.clone().payload(bytes.to_vec()).fragment(at, more);
    assert_eq!(rig.exchange(0, &from_core(&part(tail, 1000, false))), []);
    let sent = rig.exchange(0, &from_core(&part(head, 0, true)));
    let parts: Vec<Ip> = sent.iter().map(|(_, frame)| parse(frame).1).collect();
    assert!(parts.iter().all(|part| part.ends() == (FAR.into(), NODE.into())));
    let payload: Vec<u8> = parts.iter().flat_map(|part| part.payload.clone()).collect();
    assert_eq!(payload, long_udp(FAR, NODE, (53, 4000), 2000).payload);
}

/// RFC 6888 REQ-11b: a host that is at its limit is told; the others are not hindered.
#[test]
fn a_host_at_its_limit_is_told() {
    let mut rig = gateway_with(ReverseTunnel::None, |plan| {
        let napt = &mut plan.config.napts[0];
        (napt.block_size, napt.max_blocks_per_host) = (2, 1);
    });
    for port in [4000, 4001] {
        let sent = rig.exchange(1, &from_node(&Ip::udp(NODE, FAR, (port, 53))));
        only(sent, 0, station(ROUTER));
    }
    let sent = rig.exchange(1, &from_node(&Ip::udp(NODE, FAR, (4002, 53))));
    let error = only(sent, 1, station(MOBILE));
    assert_eq!((error.payload[0], error.payload[1]), (3, 1));
    assert_eq!(ports(&quoted(&error)), (4002, 53));
    assert_eq!(rig.dropped(DropReason::NatHostLimit), 1);
    open(&mut rig, HOST);
}

/// RFC 6888 REQ-12: the control core is told of each block, and of nothing else; what
/// it has no room for is told later.
#[test]
fn the_control_core_is_told_of_blocks() {
    let mut rig = gateway(ReverseTunnel::None);
    let port = open(&mut rig, NODE);
    rig.advance(Duration::from_millis(100));
    let punts = rig.punts();
    let [(header, record)] = &punts[..] else { panic!("{punts:?}") };
    assert_eq!(header.reason(), Some(PuntReason::NatLog));
    let record = NatLogRecord::read_from_bytes(record).unwrap();
    assert!(record.given() && (record.first_port()..=record.last_port()).contains(&port));
    let host = record.host();
    assert_eq!((host.address, host.station), (ip(NODE), Some(station(MOBILE))));
    for _ in 0..460 {
        rig.advance(Duration::from_secs(1));
    }
    let punts = rig.punts();
    let [(_, record)] = &punts[..] else { panic!("{punts:?}") };
    assert!(!NatLogRecord::read_from_bytes(record).unwrap().given());
    assert_eq!(rig.punted(PuntReason::NatLog), 2);
    assert_eq!(rig.control.napts[0].workers[0].hosts.get(), 0);
}

/// Any mixture, good and bad, in any order: every packet has its one verdict and
/// every buffer comes back.
#[test]
fn every_packet_has_one_verdict_and_every_buffer_comes_back() {
    let mut rig = gateway(ReverseTunnel::None);
    let port = open(&mut rig, NODE);
    let baseline = rig.worker.free_buffers().0;
    let mut number = 1u32;
    for _ in 0..4000 {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (what, some) = ((number >> 8) % 9, (number >> 16) as u16);
        let packet = match what {
            0 => Ip::udp(NODE, FAR, (some, 53)),
            1 => Ip::udp(FAR, EXTERNAL, (53, port)),
            2 => Ip::udp(FAR, EXTERNAL, (some, some)),
            3 => Ip::udp(NODE, FAR, (4000, some)).fragment(some & 0x1f8, some & 1 == 0),
            4 => Ip::udp(FAR, EXTERNAL, (53, port)).fragment(some & 0x1f8, some & 1 == 0),
            5 => Ip::icmp(FAR, EXTERNAL, 3, &Ip::udp(EXTERNAL, FAR, (some | 1, 53)).bytes()),
            6 => Ip::udp(NODE, EXTERNAL, (4000, some)),
            7 => Ip::udp(NODE, FAR, (some, 53)).ttl(1),
            _ => Ip::data(NODE, FAR).payload(vec![some as u8; usize::from(some % 40)]),
        };
        let inside = packet.source == ip(NODE);
        let frame = if inside { from_node(&packet) } else { from_core(&packet) };
        rig.exchange(usize::from(inside), &frame);
        rig.to_kernel(0);
        rig.to_kernel(1);
        rig.now += Duration::from_millis(5);
    }
    rig.advance(Duration::from_secs(60));
    assert_eq!(rig.worker.free_buffers().0, baseline);
    assert!(rig.control.napts[0].workers[0].translated_out.get() > 400);
    assert!(rig.control.napts[0].workers[0].translated_in.get() > 400);
}

fn long_udp(from: &str, to: &str, ports: (u16, u16), len: usize) -> Ip {
    let data = vec![7; len];
    let header = UdpHeader::new((ip(from), ports.0), (ip(to), ports.1), &data).unwrap();
    let payload = [zerocopy::IntoBytes::as_bytes(&header), &data[..]].concat();
    Ip { protocol: IpProtocol::UDP, payload, ..Ip::data(from, to) }
}

/// S3-13: a host of the visited network has the visitor's own address. The visitor
/// reaches it by a temporary one, and its answers find the visitor.
#[test]
fn a_visitor_reaches_a_host_with_its_own_address() {
    const TWIN: u8 = 77;
    let mut rig = gateway(ReverseTunnel::Direct);
    let entry = visitor(station(MOBILE), 1, "10.0.1.2", EXTERNAL, ReverseTunnel::Direct);
    rig.visit(NODE, VisitorEntry { overlapping: true, napt: Some(0), ..entry });
    rig.route("10.1.0.10/32", 1, None);
    rig.neighbor(1, NODE, station(TWIN));
    let from_twin = |packet: &Ip| packet.frame(port_mac(1), station(TWIN));
    let sent = rig.exchange(1, &from_node(&Ip::udp(NODE, NODE, (4000, 53))));
    let got = only(sent, 1, station(TWIN));
    assert_eq!((got.ends(), got.ttl), ((EXTERNAL.into(), NODE.into()), 63));
    let port = ports(&got).0;
    let sent = rig.exchange(1, &from_twin(&Ip::udp(NODE, EXTERNAL, (53, port))));
    let got = only(sent, 1, station(MOBILE));
    assert_eq!(got.bytes(), Ip::udp(NODE, NODE, (53, 4000)).ttl(63).bytes());
    let error = Ip::icmp(NODE, EXTERNAL, 3, &Ip::udp(EXTERNAL, NODE, (port, 53)).bytes());
    let got = only(rig.exchange(1, &from_twin(&error)), 1, station(MOBILE));
    assert_eq!((got.ends().1, ports(&quoted(&got))), (NODE.into(), (4000, 53)));
    // Everything else of the visitor goes home.
    let sent = rig.exchange(1, &from_node(&Ip::udp(NODE, FAR, (4000, 53))));
    assert_eq!(only(sent, 0, station(ROUTER)).inner().ends(), (NODE.into(), FAR.into()));
}
