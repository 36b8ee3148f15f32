//! UDP tunnels through NATs: whose packets are let out, who is told of what, and how much
//! an address gets that nobody has proven (S3-32, S3-42, RFC 3519).

use homeport_dataplane::allowance::FACTOR;
use homeport_dataplane::punt::InjectKind;
use homeport_dataplane::table::binding::{Encapsulation, TunnelFlags};
use homeport_dataplane::table::route::RouteEntry;
use homeport_dataplane::table::visitor::ReverseTunnel;
use homeport_dataplane::verdict::{DropReason, PuntReason};
use homeport_wire::UdpHeader;
use homeport_wire::icmpv4::Icmpv4Packet;
use std::time::Duration;
use zerocopy::IntoBytes;

use crate::harness::*;
use crate::tunnels::{foreign_agent_by, home_agent_by};
use crate::walk::{MOBILE, ROUTER, home_agent};

const NODE: &str = "10.1.0.10";
const OTHER: &str = "10.1.0.11";
const CARE_OF: &str = "10.0.2.2";
const AGENT: &str = "10.0.1.2";
const FAR: &str = "192.0.2.7";
const NAT: &str = "198.51.100.9";

const RFC_3519: Encapsulation = Encapsulation::Udp { peer_port: 4711 };
const PLAIN: Encapsulation = Encapsulation::PlainUdp { peer_port: 4711 };

/// The kind, with another port.
const fn at(how: Encapsulation, peer_port: u16) -> Encapsulation {
    match how {
        Encapsulation::PlainUdp { .. } => Encapsulation::PlainUdp { peer_port },
        _ => Encapsulation::Udp { peer_port },
    }
}

fn from_core(packet: &Ip) -> Vec<u8> {
    packet.frame(port_mac(0), station(ROUTER))
}

fn echo(kind: u8, source: &str, destination: &str) -> Ip {
    Ip::icmp(source, destination, kind, b"keepalive")
}

/// The home agent, its node behind a NAT with these flags besides.
fn behind_a_nat(how: Encapsulation, flags: TunnelFlags) -> Rig {
    let mut rig = home_agent();
    let flags = flags.with(TunnelFlags::REVERSE, true);
    rig.bind(NODE, binding_of(AGENT, None, &[(NAT, how, flags)]));
    rig
}

/// S3-32: two nodes behind one NAT that both registered one private address. Each is
/// reached at its own port, and neither gets, nor speaks as, the other.
// Shows 3519-4.7-b.
#[test]
fn nodes_behind_one_nat_with_one_registered_address_are_told_apart_by_their_ports() {
    for how in [RFC_3519, PLAIN] {
        let mut rig = home_agent();
        for (node, port) in [(NODE, 4001), (OTHER, 4002)] {
            let tunnel = (NAT, at(how, port), TunnelFlags::REVERSE);
            rig.bind(node, binding_of(AGENT, None, &[tunnel]));
        }
        for (node, port, others) in [(NODE, 4001, 4002), (OTHER, 4002, 4001)] {
            let down = Ip::data(FAR, node).payload(node.as_bytes().to_vec());
            let sent = rig.exchange(0, &from_core(&down));
            let expected = down.ttl(63).leaving(at(how, port), AGENT, NAT);
            assert_eq!(only(sent, 0, station(ROUTER)).bytes(), expected.bytes());
            let up = Ip::data(node, FAR);
            let sent = rig.exchange(0, &from_core(&up.arriving(at(how, port), NAT, AGENT)));
            assert_eq!(only(sent, 0, station(ROUTER)).bytes(), up.clone().ttl(63).bytes());
            let as_other = from_core(&up.arriving(at(how, others), NAT, AGENT));
            assert_eq!(rig.exchange(0, &as_other), []);
            assert_eq!(rig.punts().len(), 1, "the control core is told of the port");
        }
        // They reach each other, and a host behind the same NAT reaches them: its source
        // is the tunnels' end in all but the port.
        let across = Ip::data(NODE, OTHER).arriving(at(how, 4001), NAT, AGENT);
        let sent = rig.exchange(0, &from_core(&across));
        let expected = Ip::data(NODE, OTHER).ttl(63).leaving(at(how, 4002), AGENT, NAT);
        assert_eq!(only(sent, 0, station(ROUTER)).bytes(), expected.bytes());
        let neighbour = Ip::udp(NAT, NODE, (5000, 53));
        let sent = rig.exchange(0, &from_core(&neighbour));
        assert_eq!(only(sent, 0, station(ROUTER)).opened(at(how, 4001)).ends().0, NAT);
    }
}

/// S3-32: one private address, and even one port, behind two NATs.
#[test]
fn one_private_address_behind_two_nats_is_two_tunnels() {
    for how in [RFC_3519, PLAIN] {
        let mut rig = home_agent();
        let nats = [(NODE, NAT), (OTHER, "203.0.113.9")];
        for (node, nat) in nats {
            rig.bind(node, binding_of(AGENT, None, &[(nat, how, TunnelFlags::REVERSE)]));
        }
        for (node, nat) in nats {
            let sent = rig.exchange(0, &from_core(&Ip::data(FAR, node)));
            assert_eq!(only(sent, 0, station(ROUTER)).ends(), (AGENT.into(), nat.into()));
            for (from, right) in nats.map(|(_, from)| (from, from == nat)) {
                let frame = from_core(&Ip::data(node, FAR).arriving(how, from, AGENT));
                if right {
                    only(rig.exchange(0, &frame), 0, station(ROUTER));
                } else {
                    rig.assert_drops(0, &frame, DropReason::OuterSourceMismatch);
                }
            }
        }
    }
}

/// Reliability, row 24 (RFC 3519 §4.3): outer addresses and ports must all be the
/// tunnel's.
// Shows 3519-4.3-a, attack-24.
#[test]
fn a_udp_tunnel_is_one_exact_four_tuple() {
    for how in [RFC_3519, PLAIN] {
        let mut rig = behind_a_nat(how, TunnelFlags::default());
        rig.home_agent("10.0.1.9");
        let up = Ip::data(NODE, FAR);
        let right = up.arriving(how, NAT, AGENT);
        only(rig.exchange(0, &from_core(&right)), 0, station(ROUTER));
        let frame = from_core(&up.arriving(how, "198.51.100.8", AGENT));
        rig.assert_drops(0, &frame, DropReason::OuterSourceMismatch);
        let frame = from_core(&up.arriving(how, NAT, "10.0.1.9"));
        rig.assert_drops(0, &frame, DropReason::OuterDestinationMismatch);
        // Another port of ours is not an agent's: the kernel's business.
        let mut elsewhere = right.clone();
        elsewhere.payload[3] += 1;
        assert_eq!(rig.exchange(0, &from_core(&elsewhere)), []);
        assert_eq!(rig.to_kernel(0).len(), 1);
    }
}

/// RFC 3519 §4.10, §5.2: a NAT that changed the port is an event for people; the data is
/// dropped until the node has registered again. The control core sees ten a second.
// Shows attack-24.
#[test]
fn a_nat_that_changes_the_port_is_shown_ten_times_a_second_and_lets_nothing_through() {
    for how in [RFC_3519, PLAIN] {
        let mut rig = behind_a_nat(how, TunnelFlags::default());
        let moved = Ip::data(NODE, FAR).arriving(at(how, 4712), NAT, AGENT);
        for _ in 0..30 {
            assert_eq!(rig.exchange(0, &from_core(&moved)), []);
        }
        let punts = rig.punts();
        assert_eq!(punts.len(), 10);
        for (header, frame) in punts {
            assert_eq!(header.reason(), Some(PuntReason::TunnelRebound));
            assert_eq!(frame, from_core(&moved), "the whole outer frame");
        }
        assert_eq!(rig.dropped(DropReason::TunnelPortMismatch), 20);
        rig.advance(Duration::from_secs(1));
        for _ in 0..30 {
            rig.exchange(0, &from_core(&moved));
        }
        assert_eq!(rig.punted(PuntReason::TunnelRebound), 20);
        // The old port is still the tunnel's.
        let sent = rig.exchange(0, &from_core(&Ip::data(FAR, NODE)));
        only(sent, 0, station(ROUTER)).opened(how);
    }
}

/// RFC 3519 §4.9: the answer goes back through the tunnel, without the kernel, even where
/// no reverse tunnel was granted.
// Shows 3519-4.9-d.
#[test]
fn a_keepalive_is_answered_through_its_tunnel() {
    for how in [RFC_3519, PLAIN] {
        for granted in [true, false] {
            let mut rig = home_agent();
            let flags = TunnelFlags::default().with(TunnelFlags::REVERSE, granted);
            // A second tunnel gets no copy of the answer.
            let ends = [(NAT, how, flags), ("203.0.113.9", how, flags)];
            rig.bind(NODE, binding_of(AGENT, None, &ends));
            let keepalive = echo(8, NODE, AGENT).arriving(how, NAT, AGENT);
            let sent = rig.exchange(0, &from_core(&keepalive));
            let answer = only(sent, 0, station(ROUTER));
            assert_eq!(answer.bytes(), echo(0, AGENT, NODE).leaving(how, AGENT, NAT).bytes());
            assert_eq!(rig.to_kernel(0), Vec::<Vec<u8>>::new());
            assert_eq!(rig.stats(0).keepalives.get(), 1);
            // Neither the node's other pings nor what is broken are.
            let ping = echo(8, NODE, FAR).arriving(how, NAT, AGENT);
            let expected = if granted { 1 } else { 0 };
            assert_eq!(rig.exchange(0, &from_core(&ping)).len(), expected);
            // Nor are pings of a host behind it, were it a mobile router: those are the
            // kernel's.
            let route = RouteEntry::MobileRouter { home_address: ip(NODE) };
            rig.control.routes.install(TENANT, ip("10.9.0.0"), 24, route).unwrap();
            let ping = echo(8, "10.9.0.5", AGENT).arriving(how, NAT, AGENT);
            assert_eq!(rig.exchange(0, &from_core(&ping)), []);
            assert_eq!(rig.to_kernel(0).len(), expected);
            let mut broken = echo(8, NODE, AGENT);
            broken.payload[9] ^= 1;
            let frame = from_core(&broken.arriving(how, NAT, AGENT));
            rig.assert_drops(0, &frame, DropReason::MalformedInner);
            assert_eq!(rig.stats(0).keepalives.get(), 1);
        }
    }
}

/// Reliability, row 26 (RFC 3519 §4.6, §4.11, §6.1.2): nothing is sent to a half-bound
/// tunnel; its first keepalive is the control core's, from the right address only.
// Shows 3519-4.6-g, 3519-4.6-h, 3519-4.6-i, attack-26.
#[test]
fn a_half_bound_tunnel_takes_nothing_and_shows_its_first_keepalive() {
    let half = at(RFC_3519, 0);
    let mut rig = behind_a_nat(half, TunnelFlags::default());
    rig.assert_drops(0, &from_core(&Ip::data(FAR, NODE)), DropReason::HalfBoundTunnel);
    let from = |nat: &str, inner: &Ip| from_core(&inner.arriving(RFC_3519, nat, AGENT));
    let keepalive = echo(8, NODE, AGENT);
    // From another address; data; an answer; a ping elsewhere; in another's name.
    let refused = [
        (from("198.51.100.8", &keepalive), DropReason::OuterSourceMismatch),
        (from(NAT, &Ip::data(NODE, FAR)), DropReason::HalfBoundTunnel),
        (from(NAT, &echo(0, NODE, AGENT)), DropReason::HalfBoundTunnel),
        (from(NAT, &echo(8, NODE, FAR)), DropReason::HalfBoundTunnel),
        (from(NAT, &echo(8, OTHER, AGENT)), DropReason::NoBinding),
    ];
    for (frame, reason) in refused {
        rig.assert_drops(0, &frame, reason);
    }
    assert_eq!(rig.punts(), []);
    let frame = from(NAT, &keepalive);
    assert_eq!(rig.exchange(0, &frame), []);
    let punts = rig.punts();
    assert_eq!(punts.len(), 1);
    assert_eq!(punts[0].0.reason(), Some(PuntReason::TunnelKeepalive));
    assert_eq!(punts[0].1, frame, "the whole outer frame");
    // The control core bound the port: from now on it does not move.
    let tunnel = (NAT, RFC_3519, TunnelFlags::REVERSE);
    rig.bind(NODE, binding_of(AGENT, None, &[tunnel]));
    let moved = from_core(&keepalive.arriving(at(RFC_3519, 4712), NAT, AGENT));
    assert_eq!(rig.exchange(0, &moved), []);
    assert_eq!(rig.punts()[0].0.reason(), Some(PuntReason::TunnelRebound));
    let sent = rig.exchange(0, &from_core(&Ip::data(FAR, NODE)));
    only(sent, 0, station(ROUTER)).opened(RFC_3519);
}

/// Reliability, row 25: an address that is not proven gets at most three times what it
/// sent; the control core asks for the proof, and gets the answer.
// Shows attack-25.
#[test]
fn an_unproven_address_gets_three_times_what_it_sent_until_it_has_answered() {
    for how in [RFC_3519, PLAIN] {
        let mut rig = behind_a_nat(how, TunnelFlags::UNPROVEN);
        let received = |rig: &Rig| -> usize { rig.sent().iter().map(|(_, f)| f.len() - 14).sum() };
        // A flood from outside finds nothing to spend.
        for _ in 0..50 {
            rig.push(0, &from_core(&Ip::data(FAR, NODE)));
        }
        rig.run();
        assert_eq!(received(&rig), 0);
        assert_eq!(rig.dropped(DropReason::UnprovenAddress), 50);
        // The control core's question is a tunnelled packet of its own, within what the
        // request paid for.
        let question = Ip::icmp(AGENT, NODE, 8, &[0x5a; 8]).leaving(how, AGENT, NAT);
        rig.inject(0, InjectKind::Routed, &question.bytes());
        rig.run();
        assert_eq!(only(rig.sent(), 0, station(ROUTER)).bytes(), question.bytes());
        // What comes from there pays three times.
        let up = Ip::data(NODE, FAR).payload(vec![7; 400]).arriving(how, NAT, AGENT);
        only(rig.exchange(0, &from_core(&up)), 0, station(ROUTER));
        for _ in 0..50 {
            rig.push(0, &from_core(&Ip::data(FAR, NODE).payload(vec![1; 100])));
        }
        rig.run();
        let got = received(&rig);
        let limit = up.bytes().len() * FACTOR as usize;
        assert!(got <= limit && got > limit - 160, "less than a packet is left: {got} of {limit}");
        // A keepalive pays for its answer.
        let keepalive = echo(8, NODE, AGENT).arriving(how, NAT, AGENT);
        only(rig.exchange(0, &from_core(&keepalive)), 0, station(ROUTER));
        // The proof: the whole outer frame goes to the control core.
        let proof = from_core(&Ip::icmp(NODE, AGENT, 0, &[0x5a; 16]).arriving(how, NAT, AGENT));
        assert_eq!(rig.exchange(0, &proof), []);
        let punts = rig.punts();
        assert_eq!(punts.len(), 1);
        assert_eq!(punts[0].0.reason(), Some(PuntReason::TunnelKeepalive));
        assert_eq!(punts[0].1, proof);
        // Proven, it gets everything, and its echo replies are the kernel's.
        rig.bind(NODE, binding_of(AGENT, None, &[(NAT, how, TunnelFlags::REVERSE)]));
        for _ in 0..50 {
            rig.push(0, &from_core(&Ip::data(FAR, NODE).payload(vec![1; 1000])));
        }
        rig.run();
        assert_eq!(rig.sent().len(), 50);
        rig.exchange(0, &proof);
        assert_eq!((rig.punts().len(), rig.to_kernel(0).len()), (0, 1));
    }
}

/// A tunnel whose node is unknown lets nobody be credited: the inner source must be right.
// Shows attack-25.
#[test]
fn what_is_refused_pays_for_nothing() {
    let mut rig = behind_a_nat(RFC_3519, TunnelFlags::UNPROVEN);
    for inner in [OTHER, AGENT] {
        let frame = from_core(&Ip::data(inner, FAR).arriving(RFC_3519, NAT, AGENT));
        assert_eq!(rig.exchange(0, &frame), []);
    }
    let moved = Ip::data(NODE, FAR).arriving(at(RFC_3519, 4712), NAT, AGENT);
    rig.exchange(0, &from_core(&moved));
    rig.assert_drops(0, &from_core(&Ip::data(FAR, NODE)), DropReason::UnprovenAddress);
}

/// What came on port 434 is data or signalling by its first byte, at home agents and at
/// foreign agents; data is never shown to the protocol machines.
// Shows 3519-3.3-c, 3519-3.3-d.
#[test]
fn data_on_port_434_is_no_registration_and_a_registration_no_data() {
    let datagram = |payload: &[u8], to: &str| {
        let header = UdpHeader::new((ip(FAR), 4711), (ip(to), 434), payload).unwrap();
        let payload = [header.as_bytes(), payload].concat();
        Ip { protocol: homeport_wire::IpProtocol::UDP, payload, ..Ip::data(FAR, to) }
    };
    for (mut rig, agent) in [
        (home_agent_by(RFC_3519), AGENT),
        (foreign_agent_by(RFC_3519, ReverseTunnel::Direct), CARE_OF),
    ] {
        for kind in [1u8, 3, 7, 15, 0x44, 0x50] {
            rig.exchange(0, &from_core(&datagram(&[kind; 28], agent)));
            // A reply to a foreign agent goes first: it ends what has begun.
            let goes_first = kind == 3 && agent == CARE_OF;
            let reason = if goes_first { PuntReason::Renewal } else { PuntReason::Registration };
            assert_eq!(rig.punts()[0].0.reason(), Some(reason), "{kind}");
        }
        // Too short to be a packet.
        rig.exchange(0, &from_core(&datagram(&[0x45; 19], agent)));
        assert_eq!(rig.punts().len(), 1);
        let malformed = [
            (&[4u8][..], DropReason::MalformedTunnel),
            (&[4, 4, 0], DropReason::MalformedTunnel),
            (&[4, 4, 0, 0], DropReason::MalformedInner),
            (&[4, 47, 0, 0, 0, 0, 8, 0], DropReason::TunnelNextHeader),
            (&[0x45; 20], DropReason::MalformedInner),
        ];
        for (payload, reason) in malformed {
            rig.assert_drops(0, &from_core(&datagram(payload, agent)), reason);
        }
        assert_eq!(rig.punts(), []);
        // To the agents' group and to a broadcast it is nobody's.
        let frame = datagram(&[4, 4, 0, 0], "255.255.255.255")
            .frame(homeport_wire::MacAddress::BROADCAST, station(9));
        rig.assert_drops(1, &frame, DropReason::NotForwarded);
    }
}

/// RFC 3519 §3.3: reserved bits are ignored on reception; an operator can see them.
// Shows 3519-3.3-a.
#[test]
fn reserved_bits_of_tunnel_data_are_ignored_and_counted() {
    let mut rig = behind_a_nat(RFC_3519, TunnelFlags::default());
    let mut packet = Ip::data(NODE, FAR).arriving(RFC_3519, NAT, AGENT);
    packet.payload[10..12].fill(0xff);
    only(rig.exchange(0, &from_core(&packet)), 0, station(ROUTER));
    assert_eq!(rig.stats(0).reserved_bits.get(), 1);
}

/// RFC 3519 §4.7: our own tunnelled data to a peer's port 434 is no signalling: where that
/// peer is itself away, it goes on in a second tunnel. A registration reply does not.
// Shows 3519-4.2-a.
#[test]
fn our_own_data_to_port_434_is_tunnelled_on_and_our_signalling_is_not() {
    for how in [at(RFC_3519, 434), at(PLAIN, 434)] {
        let mut rig = home_agent();
        rig.bind(NODE, binding_of(AGENT, None, &[(OTHER, how, TunnelFlags::REVERSE)]));
        rig.bind(OTHER, binding_of(AGENT, None, &[(CARE_OF, how, TunnelFlags::REVERSE)]));
        let sent = rig.exchange(0, &from_core(&Ip::data(FAR, NODE)));
        let inside = Ip::data(FAR, NODE).ttl(63).leaving(how, AGENT, OTHER);
        let expected = inside.leaving(how, AGENT, CARE_OF);
        assert_eq!(only(sent, 0, station(ROUTER)).bytes(), expected.bytes());
        rig.neighbor(1, OTHER, station(MOBILE));
        let reply = Ip::udp(AGENT, OTHER, (434, 434));
        rig.inject(0, InjectKind::Routed, &reply.bytes());
        rig.run();
        assert_eq!(only(rig.sent(), 1, station(MOBILE)).bytes(), reply.bytes());
    }
}

/// RFC 3519 §4.9: a foreign agent keeps its visitor's tunnel alive; the answer is
/// delivered like any packet.
// Shows 3519-4.9-a.
#[test]
fn a_foreign_agent_sends_keepalives_in_its_visitors_name() {
    for how in [at(RFC_3519, 434), at(PLAIN, 434)] {
        for style in [ReverseTunnel::None, ReverseTunnel::Direct, ReverseTunnel::Encapsulating] {
            let mut rig = foreign_agent_by(how, style);
            let keepalive = echo(8, NODE, AGENT);
            rig.inject(0, InjectKind::Routed, &keepalive.bytes());
            rig.run();
            let outer = only(rig.sent(), 0, station(ROUTER));
            assert_eq!(outer.bytes(), keepalive.leaving(how, CARE_OF, AGENT).bytes());
            // The home agent answers it.
            let mut home = home_agent_by(how);
            let sent = home.exchange(0, &from_core(&outer));
            let answer = only(sent, 0, station(ROUTER));
            let sent = rig.exchange(0, &from_core(&answer));
            let delivered = only(sent, 1, station(MOBILE));
            let icmp = Icmpv4Packet::new_checked(&delivered.payload).unwrap();
            assert_eq!((icmp.header().message_type, icmp.body()), (0, &b"keepalive"[..]));
            // Its packets to others are not the foreign agent's to tunnel.
            rig.inject(0, InjectKind::Routed, &echo(8, NODE, FAR).bytes());
            rig.run();
            assert_eq!(only(rig.sent(), 0, station(ROUTER)).ends(), (NODE.into(), FAR.into()));
            // From another port of the home agent's it is not the tunnel.
            let wrong = Ip::data(FAR, NODE).arriving(at(how, 435), AGENT, CARE_OF);
            rig.assert_drops(0, &from_core(&wrong), DropReason::TunnelPortMismatch);
        }
    }
}
