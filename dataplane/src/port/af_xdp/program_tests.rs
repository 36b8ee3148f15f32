//! The program in the kernel, on frames that nobody sent.

use std::net::Ipv4Addr;

use homeport_wire::{ArpOperation, ArpPacket, EtherType, EthernetHeader};
use zerocopy::IntoBytes;

use super::*;
use crate::port::af_xdp::bpf::{LoadedProgram, MapKind};
use crate::port::af_xdp::claims::{LocalClaim, NodeClaim};
use crate::port::af_xdp::socket::Queue;

const PORT_MAC: MacAddress = MacAddress([2, 0, 0, 0xaa, 0xbb, 1]);
const STATION: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
const TENANT: TenantId = TenantId(7);
const HOME_LINK: PortId = PortId(3);

const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const VISITOR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 10);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const LINK_AGENT: Ipv4Addr = Ipv4Addr::new(10, 2, 1, 1);
const KERNELS: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 3);
const NAPT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const BROADCAST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 255);

/// A program, with everything claimed that there is a claim for.
struct Bench {
    program: LoadedProgram,
    claims: Claims,
    /// The program redirects to its socket.
    _sockets: (Map, Queue),
}

impl Bench {
    /// `None`, with the reason printed, where this process may not load programs.
    fn new(scope: Scope) -> Option<Bench> {
        let claims = match Claims::new(16) {
            Ok(claims) => claims,
            Err(error) => {
                println!("skipped: cannot make maps: {error}");
                return None;
            }
        };
        let queue = Queue::new(2048).unwrap();
        let sockets = Map::new(MapKind::Sockets, 4, 4, 1).unwrap();
        sockets.set_socket(0, std::os::fd::AsFd::as_fd(&queue.socket)).unwrap();
        let site = Site { mac: PORT_MAC, tenant: TENANT, port: HOME_LINK, scope };
        let program = program(&site, &claims, &sockets).unwrap();
        let program = LoadedProgram::load(&program).unwrap();
        Some(Bench { program, claims, _sockets: (sockets, queue) })
    }

    fn claimed() -> Option<Bench> {
        let bench = Bench::new(Scope::Claimed)?;
        let claims = &bench.claims;
        let node =
            NodeClaim { destination: true, home_link: Some(HOME_LINK), ..NodeClaim::default() };
        claims.set_node(TENANT, NODE, node).unwrap();
        let visitor = NodeClaim { source: true, ..NodeClaim::default() };
        claims.set_node(TENANT, VISITOR, visitor).unwrap();
        let behind = NodeClaim { destination: true, ..NodeClaim::default() };
        claims.set_prefix(TENANT, (Ipv4Addr::new(10, 77, 0, 0), 16), behind).unwrap();
        let local = |address, claim: LocalClaim| claims.set_local(address, Some(&claim)).unwrap();
        local(AGENT, LocalClaim { agent: true, tunnel_end: true, ..LocalClaim::default() });
        local(LINK_AGENT, LocalClaim { agent: true, ..LocalClaim::default() });
        local(KERNELS, LocalClaim::default());
        local(BROADCAST, LocalClaim { broadcast: true, ..LocalClaim::default() });
        local(NAPT, LocalClaim { translated: Some(16384..=32767), ..LocalClaim::default() });
        Some(bench)
    }

    fn takes(&self, frame: &[u8]) -> bool {
        match self.program.run(frame).unwrap() {
            REDIRECT => true,
            PASS => false,
            other => panic!("verdict {other}"),
        }
    }
}

fn frame(to: MacAddress, ether_type: EtherType, body: &[u8]) -> Vec<u8> {
    let mut frame = [EthernetHeader::new(to, STATION, ether_type).as_bytes(), body].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An IPv4 packet with so many words of options; its checksums do not matter here.
fn packet(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, options: u8, body: &[u8]) -> Vec<u8> {
    let len = 20 + 4 * usize::from(options) + body.len();
    let mut packet = vec![0x45 + options, 0];
    packet.extend((len as u16).to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.resize(20 + 4 * usize::from(options), 1);
    packet.extend(body);
    packet
}

fn ip(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    frame(PORT_MAC, EtherType::IPV4, &packet(from, to, protocol, 0, body))
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 12, 0, 0, 1, 2, 3, 4]].concat()
}

fn tcp(to: u16) -> Vec<u8> {
    let mut header = [&80u16.to_be_bytes()[..], &to.to_be_bytes()].concat();
    header.resize(20, 0);
    header
}

fn echo(kind: u8, identifier: u16) -> Vec<u8> {
    [&[kind, 0, 0, 0][..], &identifier.to_be_bytes(), &[0, 1]].concat()
}

/// An ICMP error that quotes a packet.
fn error(kind: u8, quoted: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], quoted].concat()
}

fn fragment(mut frame: Vec<u8>, offset: u16) -> Vec<u8> {
    frame[20..22].copy_from_slice(&offset.to_be_bytes());
    frame
}

fn arp(operation: ArpOperation, from: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let packet = ArpPacket::new(operation, STATION, from, MacAddress::UNSPECIFIED, target);
    frame(MacAddress::BROADCAST, EtherType::ARP, packet.as_bytes())
}

/// Has a program looked at these, and says which it judged wrongly.
#[track_caller]
fn judge(bench: &Bench, expected: bool, frames: &[(&str, Vec<u8>)]) {
    let wrong: Vec<&str> = frames
        .iter()
        .filter(|(_, frame)| bench.takes(frame) != expected)
        .map(|(what, _)| *what)
        .collect();
    assert_eq!(wrong, [] as [&str; 0], "taken should be {expected}");
}

#[test]
fn packets_of_bound_nodes_and_visitors_are_taken_and_others_passed() {
    let Some(bench) = Bench::claimed() else { return };
    let behind = Ipv4Addr::new(10, 77, 3, 4);
    judge(
        &bench,
        true,
        &[
            ("to a bound node", ip(OTHER, NODE, 6, &tcp(80))),
            ("of any protocol", ip(OTHER, NODE, 99, &[])),
            ("with options", frame(PORT_MAC, EtherType::IPV4, &packet(OTHER, NODE, 6, 10, &[]))),
            ("a fragment", fragment(ip(OTHER, NODE, 17, &[0; 40]), 0x2005)),
            ("to behind a mobile router", ip(OTHER, behind, 17, &udp(1, 2))),
            ("from a visitor", ip(VISITOR, OTHER, 17, &udp(1, 2))),
        ],
    );
    let mut version = ip(OTHER, NODE, 6, &tcp(80));
    version[14] = 0x65;
    judge(
        &bench,
        false,
        &[
            ("from a bound node", ip(NODE, OTHER, 6, &tcp(80))),
            ("to a visitor", ip(OTHER, VISITOR, 6, &tcp(80))),
            ("to nobody", ip(OTHER, Ipv4Addr::new(10, 1, 0, 11), 6, &tcp(80))),
            ("beside the prefix", ip(OTHER, Ipv4Addr::new(10, 78, 0, 1), 6, &tcp(80))),
            (
                "for another station",
                frame(STATION, EtherType::IPV4, &packet(OTHER, NODE, 6, 0, &[])),
            ),
            (
                "to all",
                frame(MacAddress::BROADCAST, EtherType::IPV4, &packet(OTHER, NODE, 6, 0, &[])),
            ),
            ("IPv6", frame(PORT_MAC, EtherType(0x86dd), &[0x60; 40])),
            ("tagged", frame(PORT_MAC, EtherType(0x8100), &[0; 40])),
            ("of version 6", version),
            ("cut off", ip(OTHER, NODE, 6, &tcp(80))[..33].to_vec()),
            ("a visitor to the kernel", ip(VISITOR, KERNELS, 1, &echo(8, 1))),
            ("a visitor pings its agent", ip(VISITOR, LINK_AGENT, 1, &echo(8, 1))),
            ("a visitor to a group", ip(VISITOR, Ipv4Addr::new(224, 0, 0, 251), 17, &udp(1, 434))),
        ],
    );
    // A claim goes when it is taken away, and another tenant's is not ours.
    bench.claims.set_node(TENANT, NODE, NodeClaim::default()).unwrap();
    bench
        .claims
        .set_node(TenantId(8), NODE, NodeClaim { destination: true, ..NodeClaim::default() })
        .unwrap();
    judge(&bench, false, &[("to a node no longer bound", ip(OTHER, NODE, 6, &tcp(80)))]);
}

#[test]
fn an_address_of_ours_gets_what_agents_want_and_the_kernel_the_rest() {
    let Some(bench) = Bench::claimed() else { return };
    let quoted = |from, protocol, body: &[u8]| packet(from, OTHER, protocol, 0, body);
    judge(
        &bench,
        true,
        &[
            ("a registration", ip(OTHER, AGENT, 17, &udp(5000, 434))),
            ("at a link's address", ip(OTHER, LINK_AGENT, 17, &udp(5000, 434))),
            (
                "with options",
                frame(PORT_MAC, EtherType::IPV4, &packet(OTHER, AGENT, 17, 3, &udp(1, 434))),
            ),
            ("IP in IP", ip(OTHER, AGENT, 4, &quoted(NODE, 6, &[]))),
            ("IP in IP on a link", ip(OTHER, LINK_AGENT, 4, &quoted(NODE, 6, &[]))),
            ("GRE", ip(OTHER, AGENT, 47, &[0; 8])),
            ("minimal", ip(OTHER, AGENT, 55, &[0; 8])),
            ("a fragment of UDP", fragment(ip(OTHER, AGENT, 17, &[0; 40]), 0x2000)),
            ("the last fragment of GRE", fragment(ip(OTHER, AGENT, 47, &[0; 40]), 5)),
            ("a solicitation", ip(OTHER, LINK_AGENT, 1, &echo(10, 0))),
            ("an error about IP in IP", ip(OTHER, AGENT, 1, &error(3, &quoted(AGENT, 4, &[0; 8])))),
            ("about GRE", ip(OTHER, AGENT, 1, &error(11, &quoted(AGENT, 47, &[0; 8])))),
            ("about minimal", ip(OTHER, AGENT, 1, &error(12, &quoted(AGENT, 55, &[0; 8])))),
            ("about a reply", ip(OTHER, AGENT, 1, &error(3, &quoted(AGENT, 17, &udp(434, 5000))))),
            (
                "about a request",
                ip(OTHER, AGENT, 1, &error(3, &quoted(AGENT, 17, &udp(5000, 434)))),
            ),
        ],
    );
    judge(
        &bench,
        false,
        &[
            ("ssh", ip(OTHER, AGENT, 6, &tcp(22))),
            ("another UDP port", ip(OTHER, AGENT, 17, &udp(434, 53))),
            ("a ping", ip(OTHER, AGENT, 1, &echo(8, 1))),
            ("an answer to one", ip(OTHER, AGENT, 1, &echo(0, 20000))),
            ("GRE on a link", ip(OTHER, LINK_AGENT, 47, &[0; 8])),
            ("an error about TCP", ip(OTHER, AGENT, 1, &error(3, &quoted(AGENT, 6, &tcp(22))))),
            ("about DNS", ip(OTHER, AGENT, 1, &error(3, &quoted(AGENT, 17, &udp(5000, 53))))),
            ("about another's tunnel", ip(OTHER, AGENT, 1, &error(3, &quoted(OTHER, 4, &[0; 8])))),
            (
                "a short error",
                ip(OTHER, AGENT, 1, &error(3, &quoted(AGENT, 4, &[])))[..60].to_vec(),
            ),
            ("the kernel's tunnel", ip(OTHER, KERNELS, 4, &quoted(NODE, 6, &[]))),
            ("the kernel's UDP", ip(OTHER, KERNELS, 17, &udp(5000, 434))),
            ("a fragment of TCP", fragment(ip(OTHER, AGENT, 6, &[0; 40]), 5)),
        ],
    );
}

#[test]
fn arp_for_a_node_that_is_away_is_taken_on_its_home_link_only() {
    let Some(bench) = Bench::claimed() else { return };
    let host = Ipv4Addr::new(10, 1, 0, 99);
    judge(&bench, true, &[("a request", arp(ArpOperation::REQUEST, host, NODE))]);
    judge(
        &bench,
        false,
        &[
            ("an answer", arp(ArpOperation::REPLY, host, NODE)),
            ("by the node itself", arp(ArpOperation::REQUEST, NODE, NODE)),
            ("a probe", arp(ArpOperation::REQUEST, Ipv4Addr::UNSPECIFIED, NODE)),
            ("for a visitor", arp(ArpOperation::REQUEST, host, VISITOR)),
            ("for the kernel", arp(ArpOperation::REQUEST, host, AGENT)),
            ("cut off", arp(ArpOperation::REQUEST, host, NODE)[..41].to_vec()),
        ],
    );
    let elsewhere = NodeClaim { home_link: Some(PortId(2)), ..NodeClaim::default() };
    bench.claims.set_node(TENANT, NODE, elsewhere).unwrap();
    judge(&bench, false, &[("on another link", arp(ArpOperation::REQUEST, host, NODE))]);
    let prefix = NodeClaim { home_link: Some(HOME_LINK), ..NodeClaim::default() };
    bench.claims.set_node(TENANT, NODE, NodeClaim::default()).unwrap();
    bench.claims.set_prefix(TENANT, (Ipv4Addr::new(10, 1, 0, 0), 24), prefix).unwrap();
    judge(&bench, true, &[("of a claimed prefix", arp(ArpOperation::REQUEST, host, NODE))]);
}

#[test]
fn agents_hear_registrations_and_solicitations_to_groups_and_nothing_else() {
    let Some(bench) = Bench::claimed() else { return };
    let group = |to: Ipv4Addr, protocol, body: &[u8]| {
        frame(MacAddress::BROADCAST, EtherType::IPV4, &packet(VISITOR, to, protocol, 0, body))
    };
    let (all, agents, routers) =
        (Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 11), Ipv4Addr::new(224, 0, 0, 2));
    judge(
        &bench,
        true,
        &[
            ("a registration to all", group(all, 17, &udp(5000, 434))),
            ("to all agents", group(agents, 17, &udp(5000, 434))),
            ("to the link's broadcast", group(BROADCAST, 17, &udp(5000, 434))),
            ("a solicitation to routers", group(routers, 1, &echo(10, 0))),
            ("to all", group(all, 1, &echo(10, 0))),
        ],
    );
    judge(
        &bench,
        false,
        &[
            ("DHCP", group(all, 17, &udp(68, 67))),
            ("an advertisement", group(all, 1, &echo(9, 0))),
            ("mDNS", group(Ipv4Addr::new(224, 0, 0, 251), 17, &udp(5353, 5353))),
            ("broadcast TCP", group(BROADCAST, 6, &tcp(434))),
            ("a fragment", fragment(group(all, 17, &udp(5000, 434)), 0x2000)),
        ],
    );
}

#[test]
fn a_translated_address_loses_its_port_range_only() {
    let Some(bench) = Bench::claimed() else { return };
    let quoted = |protocol, body: &[u8]| packet(NAPT, OTHER, protocol, 0, body);
    judge(
        &bench,
        true,
        &[
            ("TCP", ip(OTHER, NAPT, 6, &tcp(16384))),
            ("UDP", ip(OTHER, NAPT, 17, &udp(53, 32767))),
            ("an answer to a ping", ip(OTHER, NAPT, 1, &echo(0, 20000))),
            ("a fragment", fragment(ip(OTHER, NAPT, 6, &[0; 40]), 5)),
            ("a fragment of UDP", fragment(ip(OTHER, NAPT, 17, &[0; 40]), 5)),
            (
                "an error about TCP",
                ip(OTHER, NAPT, 1, &error(3, &quoted(6, &[0x4e, 0x20, 0, 80, 0, 0, 0, 0]))),
            ),
            ("about a ping", ip(OTHER, NAPT, 1, &error(11, &quoted(1, &echo(8, 20000))))),
        ],
    );
    judge(
        &bench,
        false,
        &[
            ("below", ip(OTHER, NAPT, 6, &tcp(16383))),
            ("above", ip(OTHER, NAPT, 17, &udp(20000, 32768))),
            ("a ping of ours answered", ip(OTHER, NAPT, 1, &echo(0, 1))),
            ("a ping", ip(OTHER, NAPT, 1, &echo(8, 20000))),
            ("an error about ours", ip(OTHER, NAPT, 1, &error(3, &quoted(6, &tcp(16384)[..8])))),
            ("about our ping", ip(OTHER, NAPT, 1, &error(3, &quoted(1, &echo(8, 5))))),
            ("a registration", ip(OTHER, NAPT, 17, &udp(20000, 434))),
        ],
    );
}

#[test]
fn inside_a_napt_all_that_is_to_be_forwarded_is_taken() {
    let Some(bench) = Bench::new(Scope::Transit) else { return };
    bench.claims.set_local(KERNELS, Some(&LocalClaim::default())).unwrap();
    judge(&bench, true, &[("transit", ip(NODE, OTHER, 6, &tcp(80)))]);
    judge(
        &bench,
        false,
        &[
            ("to the kernel", ip(NODE, KERNELS, 6, &tcp(80))),
            ("to a group", ip(NODE, Ipv4Addr::new(224, 0, 0, 251), 17, &udp(1, 2))),
            ("ARP", arp(ArpOperation::REQUEST, NODE, KERNELS)),
        ],
    );
}

#[test]
fn everything_is_everything() {
    let Some(bench) = Bench::new(Scope::Everything) else { return };
    judge(
        &bench,
        true,
        &[
            ("IPv6", frame(STATION, EtherType(0x86dd), &[0x60; 40])),
            ("ARP", arp(ArpOperation::REPLY, NODE, OTHER)),
            ("short", frame(PORT_MAC, EtherType::IPV4, &[])[..14].to_vec()),
        ],
    );
}

#[test]
fn a_full_map_says_so_and_a_missing_claim_is_taken_away_in_peace() {
    let Some(bench) = Bench::new(Scope::Claimed) else { return };
    let claim = NodeClaim { destination: true, ..NodeClaim::default() };
    let node = |number| Ipv4Addr::from_bits(NODE.to_bits() + number);
    for number in 0..16 {
        bench.claims.set_node(TENANT, node(number), claim).unwrap();
    }
    assert!(bench.claims.set_node(TENANT, node(16), claim).is_err());
    bench.claims.set_node(TENANT, node(16), NodeClaim::default()).unwrap();
    bench.claims.set_local(NODE, None).unwrap();
    bench.claims.set_prefix(TENANT, (NODE, 32), NodeClaim::default()).unwrap();
}
