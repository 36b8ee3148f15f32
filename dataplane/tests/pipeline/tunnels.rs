//! Every encapsulation at the ends of its tunnels: what is let out, what is refused and
//! why, and that nothing grows.

use homeport_dataplane::TenantId;
use homeport_dataplane::table::binding::{
    BindingEntry, BindingKey, Encapsulation, EntryFlags, TunnelEnd, TunnelFlags,
};
use homeport_dataplane::table::local::{LocalEntry, LocalKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_dataplane::table::visitor::{ReverseTunnel, VisitorEntry, VisitorKey};
use homeport_dataplane::verdict::DropReason;
use homeport_dataplane::{MacAddress, PortId};
use homeport_wire::IpProtocol;
use homeport_wire::icmpv4::Icmpv4Packet;

use crate::harness::*;
use crate::walk::{MOBILE, ROUTER, foreign_agent, home_agent};

const NODE: &str = "10.1.0.10";
const OTHER: &str = "10.1.0.11";
const CARE_OF: &str = "10.0.2.2";
const AGENT: &str = "10.0.1.2";
const FAR: &str = "192.0.2.7";

fn from_core(packet: &Ip) -> Vec<u8> {
    packet.frame(port_mac(0), station(ROUTER))
}

fn bound(how: Encapsulation) -> BindingEntry {
    binding_of(AGENT, None, &[(CARE_OF, how, TunnelFlags::REVERSE)])
}

/// The home agent of the walk, its node bound by this encapsulation.
pub(crate) fn home_agent_by(how: Encapsulation) -> Rig {
    let mut rig = home_agent();
    rig.bind(NODE, bound(how));
    rig
}

/// The foreign agent of the walk, its visitor reached by this encapsulation.
pub(crate) fn foreign_agent_by(how: Encapsulation, style: ReverseTunnel) -> Rig {
    let mut rig = foreign_agent(style);
    let entry = visitor(station(MOBILE), 1, AGENT, CARE_OF, style);
    rig.visit(NODE, VisitorEntry { encapsulation: how, ..entry });
    rig
}

/// Two tenants behind one link of the underlay, each with the same home addresses: the
/// node of the first is bound at `CARE_OF`, that of the second elsewhere.
fn two_tenants(how: Encapsulation) -> Rig {
    let mut plan = Plan::ports(3);
    plan.tenants = vec![TENANT, TenantId(1), TenantId(2)];
    let mut rig = plan.build();
    for (number, agent, care_of) in [(1u8, AGENT, CARE_OF), (2, "10.0.7.2", "10.0.8.2")] {
        let tenant = TenantId(u32::from(number));
        let local = LocalEntry { tenant, home_agent: true, ..LocalEntry::default() };
        rig.control.locals.install(LocalKey { address: ip(agent) }, local).unwrap();
        let port = PortId(u16::from(number));
        let route = RouteEntry::Via { port, gateway: None };
        rig.control.routes.install(tenant, ip("0.0.0.0"), 0, route).unwrap();
        rig.neighbor(port.0, FAR, station(number));
        for (node, care_of) in [(NODE, care_of), (OTHER, "10.0.9.9")] {
            let key = BindingKey { tenant, home_address: ip(node) };
            let entry = binding_of(agent, None, &[(care_of, how, TunnelFlags::REVERSE)]);
            rig.control.bindings.install(key, entry).unwrap();
        }
        if number == 1 {
            let key = BindingKey { tenant, home_address: ip("10.1.0.12") };
            rig.control.bindings.install(key, bound(how)).unwrap();
        }
    }
    rig
}

/// Why what arrived by `arrived` is not what was negotiated.
fn mismatch(negotiated: Encapsulation, arrived: Encapsulation) -> Option<DropReason> {
    match (negotiated, arrived) {
        (Encapsulation::Gre { key: a }, Encapsulation::Gre { key: b }) if a != b => {
            Some(DropReason::GreKeyMismatch)
        }
        // Fragments cannot be minimal (RFC 2004 §3).
        (Encapsulation::Minimal, Encapsulation::IpInIp) => None,
        (a, b) => (a != b).then_some(DropReason::EncapsulationMismatch),
    }
}

/// Reliability, row 23 (B-04, RFC 3024 §4.3.2): outer and inner source, encapsulation
/// and tenant in every combination. Only what is right in all is forwarded; the rest is
/// silence and the right counter.
// Shows 2784-3.1-a, 3024-4.3.2-b, 3024-4.3.2-c, 3024-4.3.2-d, 5177-10-j, attack-23, attack-32.
#[test]
fn only_what_is_right_in_all_leaves_a_reverse_tunnel() {
    let mut forwarded = 0;
    for negotiated in EVERY {
        let mut rig = two_tenants(negotiated);
        for arrived in EVERY {
            for (outer, outer_is_right) in [(CARE_OF, true), ("10.0.3.2", false)] {
                for inner in [NODE, OTHER, "10.1.0.12", "10.1.0.99", AGENT, "224.0.0.1"] {
                    for agent in [AGENT, "10.0.7.2"] {
                        let first = agent == AGENT;
                        let outer_mismatch = Some(DropReason::OuterSourceMismatch);
                        let expected = match inner {
                            AGENT | "224.0.0.1" => Some(DropReason::MartianSource),
                            "10.1.0.99" => Some(DropReason::NoBinding),
                            "10.1.0.12" if !first => Some(DropReason::NoBinding),
                            OTHER => outer_mismatch,
                            _ if !first || !outer_is_right => outer_mismatch,
                            _ => mismatch(negotiated, arrived),
                        };
                        let packet = Ip::data(inner, FAR).arriving(arrived, outer, agent);
                        let frame = from_core(&packet);
                        match expected {
                            Some(reason) => rig.assert_drops(0, &frame, reason),
                            None => {
                                let out = only(rig.exchange(0, &frame), 1, station(1));
                                let ttl = if arrived == Encapsulation::Minimal { 62 } else { 63 };
                                assert!(out.ttl == 63 || out.ttl == ttl);
                                assert_eq!(out.ends(), (inner.into(), FAR.into()));
                                forwarded += 1;
                            }
                        }
                        assert_eq!(rig.punts(), []);
                    }
                }
            }
        }
        // The other tenant's own node does come out, at the other tenant's port.
        let own = Ip::data(NODE, FAR).arriving(negotiated, "10.0.8.2", "10.0.7.2");
        only(rig.exchange(0, &from_core(&own)), 2, station(2));
    }
    // Six kinds as negotiated, and IP in IP where minimal encapsulation was; two nodes.
    assert_eq!(forwarded, 7 * 2);
}

/// Reliability, row 23, at the foreign agent: outer source, inner destination,
/// encapsulation, tenant.
// Shows attack-23, attack-32.
#[test]
fn only_what_is_right_in_all_reaches_a_visitor() {
    let mut forwarded = 0;
    for negotiated in EVERY {
        let mut rig = foreign_agent_by(negotiated, ReverseTunnel::Direct);
        // Another tenant's agent, with the same visitor from another home agent.
        let tenant = TenantId(7);
        let local = LocalEntry { tenant, care_of_address: true, ..LocalEntry::default() };
        rig.local("10.0.7.2", local);
        let entry = visitor(station(77), 1, "10.0.8.8", "10.0.7.2", ReverseTunnel::Direct);
        let home_agent = entry.home_agent;
        let key = VisitorKey { tenant, home_address: ip(NODE), home_agent };
        let entry = VisitorEntry { encapsulation: negotiated, ..entry };
        rig.control.visitors.install(key, entry).unwrap();
        // A second care-of address of ours, which the visitor did not register.
        rig.foreign_agent("10.0.2.3");
        for arrived in EVERY {
            for (outer, outer_is_right) in [(AGENT, true), ("10.0.3.2", false)] {
                for (inner, visits) in [(NODE, true), (OTHER, false), (CARE_OF, false)] {
                    for care_of in [CARE_OF, "10.0.2.3", "10.0.7.2"] {
                        let expected = match care_of {
                            _ if !visits => Some(DropReason::NoVisitor),
                            "10.0.7.2" => Some(DropReason::OuterSourceMismatch),
                            _ if !outer_is_right => Some(DropReason::OuterSourceMismatch),
                            "10.0.2.3" => Some(DropReason::OuterDestinationMismatch),
                            _ => mismatch(negotiated, arrived),
                        };
                        let packet = Ip::data(FAR, inner).arriving(arrived, outer, care_of);
                        let frame = from_core(&packet);
                        match expected {
                            Some(reason) => rig.assert_drops(0, &frame, reason),
                            None => {
                                let out = only(rig.exchange(0, &frame), 1, station(MOBILE));
                                assert_eq!(out.ends(), (FAR.into(), NODE.into()));
                                forwarded += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(forwarded, 7);
}

/// B-04, B-09: a wrong key, an address of ours that the tunnel does not end at, a
/// reverse tunnel that was not granted, in each kind of tunnel.
// Shows 2784-3.1-b.
#[test]
fn a_tunnel_of_any_kind_is_open_only_as_it_was_granted() {
    for how in EVERY {
        let mut rig = home_agent_by(how);
        rig.home_agent("10.0.1.9");
        let elsewhere = Ip::data(NODE, FAR).arriving(how, CARE_OF, "10.0.1.9");
        rig.assert_drops(0, &from_core(&elsewhere), DropReason::OuterDestinationMismatch);
        rig.bind(NODE, binding_of(AGENT, None, &[(CARE_OF, how, TunnelFlags::default())]));
        let frame = from_core(&Ip::data(NODE, FAR).arriving(how, CARE_OF, AGENT));
        rig.assert_drops(0, &frame, DropReason::ReverseTunnelNotGranted);
        // To a group of stations it is nobody's tunnel.
        let frame = Ip::data(NODE, FAR)
            .arriving(how, CARE_OF, AGENT)
            .frame(MacAddress::BROADCAST, station(ROUTER));
        rig.assert_drops(0, &frame, DropReason::NotForwarded);
    }
    let mut rig = home_agent_by(Encapsulation::Gre { key: Some(7) });
    for key in [None, Some(0), Some(8)] {
        let wrong = Ip::data(NODE, FAR).arriving(Encapsulation::Gre { key }, CARE_OF, AGENT);
        rig.assert_drops(0, &from_core(&wrong), DropReason::GreKeyMismatch);
    }
    // RFC 2784 §3.1: a payload for the encapsulator itself.
    let back =
        Ip::data(NODE, CARE_OF).arriving(Encapsulation::Gre { key: Some(7) }, CARE_OF, AGENT);
    rig.assert_drops(0, &from_core(&back), DropReason::TunnelLoop);
}

/// Encapsulating delivery stays IP in IP (RFC 3024 §5.2), and the agent's address on the
/// link ends no other tunnel.
// Shows 3024-5.2.2-b.
#[test]
fn a_visitor_delivers_by_ip_in_ip_whatever_its_tunnel_is() {
    for how in EVERY {
        let mut rig = foreign_agent_by(how, ReverseTunnel::Encapsulating);
        rig.local("10.2.0.1", LocalEntry { agent: true, ..LocalEntry::default() });
        for agent in [CARE_OF, "10.2.0.1"] {
            let own = Ip::data(NODE, FAR).tunnelled(NODE, agent);
            let sent = rig.exchange(1, &own.frame(port_mac(1), station(MOBILE)));
            let expected = Ip::data(NODE, FAR).ttl(63).leaving(how, CARE_OF, AGENT);
            assert_eq!(only(sent, 0, station(ROUTER)).bytes(), expected.bytes());
        }
        if how != Encapsulation::IpInIp {
            let own = Ip::data(NODE, FAR).arriving(how, NODE, CARE_OF);
            let frame = own.frame(port_mac(1), station(MOBILE));
            rig.assert_drops(1, &frame, DropReason::EncapsulationMismatch);
        }
    }
    let mut rig = foreign_agent_by(Encapsulation::IpInIp, ReverseTunnel::Encapsulating);
    rig.local("10.2.0.1", LocalEntry { agent: true, ..LocalEntry::default() });
    let udp = Encapsulation::Udp { peer_port: 434 };
    let data = Ip::data(FAR, NODE).arriving(udp, AGENT, "10.2.0.1");
    rig.assert_drops(0, &from_core(&data), DropReason::UnknownTunnel);
    // GRE there may be the kernel's own.
    let gre = Ip::data(FAR, NODE).arriving(Encapsulation::Gre { key: None }, AGENT, "10.2.0.1");
    assert_eq!(rig.exchange(0, &from_core(&gre)), []);
    assert_eq!(rig.to_kernel(0).len(), 1);
}

/// B-05, RFC 3519 §4.8, RFC 2004 §3: what is too long is cut before it enters, into
/// pieces that fit with their headers; with DF the sender is told what fits.
// Shows 3519-4.8-a, 3519-4.8-b.
#[test]
fn what_is_too_long_is_cut_before_it_enters_a_tunnel_of_any_kind() {
    let overheads = [20, 12, 24, 28, 32, 28];
    for (how, overhead) in EVERY.into_iter().zip(overheads) {
        let mut rig = home_agent_by(how);
        rig.control.ports[0].set_address(Some(ip("10.0.1.9")));
        let whole = Ip { protocol: IpProtocol::UDP, ..Ip::data(FAR, NODE) };
        let whole = whole.payload((0..1480).map(|at| at as u8).collect()).fragmentable();
        let sent = rig.exchange(0, &from_core(&whole));
        let mut joined = vec![0; 1480];
        for (_, frame) in &sent {
            let outer = parse(frame).1;
            assert!(outer.bytes().len() <= 1500);
            assert_eq!(outer.fragment, (0, false), "the outer packet is whole");
            // A fragment has no place in a minimal forwarding header.
            let carrier = if how == Encapsulation::Minimal { Encapsulation::IpInIp } else { how };
            let inner = outer.opened(carrier);
            let at = usize::from(inner.fragment.0);
            joined[at..at + inner.payload.len()].copy_from_slice(&inner.payload);
        }
        assert_eq!((sent.len(), joined), (2, whole.payload.clone()));
        // The longest that fits goes whole, the next one is told of.
        let fits = |len: usize| Ip::data(FAR, NODE).payload(vec![7; len - 20]);
        let sent = rig.exchange(0, &from_core(&fits(1500 - overhead)));
        assert_eq!(only(sent, 0, station(ROUTER)).bytes().len(), 1500);
        let sent = rig.exchange(0, &from_core(&fits(1501 - overhead)));
        let error = only(sent, 0, station(ROUTER));
        let icmp = Icmpv4Packet::new_checked(&error.payload).unwrap();
        assert_eq!((icmp.header().message_type, icmp.header().code), (3, 4));
        let mtu = u16::from_be_bytes([icmp.header().rest[2], icmp.header().rest[3]]);
        assert_eq!(usize::from(mtu), 1500 - overhead, "{how:?}");
    }
}

/// RFC 2003 §3.1, RFC 6040 §4.1, RFC 2004 §3: DSCP and ECN are copied, DF is copied or
/// set as the entry says; a minimal header has none of its own.
// Shows 2003-3.1-a.
#[test]
fn the_outer_header_of_each_kind_has_the_fields_of_its_rfc() {
    for how in EVERY {
        for set in [false, true] {
            let mut rig = home_agent();
            let end = TunnelEnd::new(ip(CARE_OF), how, TunnelFlags::REVERSE);
            let flags = EntryFlags::default().with(EntryFlags::SET_DF, set);
            rig.bind(NODE, BindingEntry::new(ip(AGENT), [end], None, flags).unwrap());
            for (tos, dont_fragment) in [(0xb9, false), (0x02, true)] {
                let packet = Ip { dont_fragment, ..Ip::data(FAR, NODE).tos(tos) };
                let sent = rig.exchange(0, &from_core(&packet));
                let outer = only(sent, 0, station(ROUTER));
                let is_minimal = how == Encapsulation::Minimal;
                assert_eq!(outer.tos, tos);
                assert_eq!(outer.dont_fragment, dont_fragment || set && !is_minimal);
                assert_eq!(outer.ttl, if is_minimal { 63 } else { 64 });
                assert_eq!(outer.opened(how).bytes(), packet.ttl(63).bytes());
            }
        }
    }
}

/// Reliability, row 27: two nodes, each bound to the other's home address; a packet that
/// comes from its tunnel's own end; one that was there and came back.
// Shows 5944-4.2.3-k, 5944-4.2.3-l, attack-27.
#[test]
fn no_kind_of_tunnel_loops_or_grows() {
    for how in EVERY {
        let mut rig = home_agent();
        let towards = |end: &str| binding_of(AGENT, None, &[(end, how, TunnelFlags::REVERSE)]);
        rig.bind(NODE, towards(OTHER));
        rig.bind(OTHER, towards(NODE));
        rig.assert_drops(0, &from_core(&Ip::data(FAR, NODE)), DropReason::NestedTunnel);
        assert!((1..=4).contains(&rig.stats(0).encapsulated.get()), "{how:?}");

        let mut rig = home_agent_by(how);
        let is_udp = matches!(how, Encapsulation::Udp { .. } | Encapsulation::PlainUdp { .. });
        // The address of a NAT is that of many: only with the port it is the end.
        let from_the_end =
            if is_udp { Ip::udp(CARE_OF, NODE, (4711, 9)) } else { Ip::data(CARE_OF, NODE) };
        rig.assert_drops(0, &from_core(&from_the_end), DropReason::TunnelLoop);
        let came_back = Ip::data(FAR, NODE).arriving(how, CARE_OF, NODE);
        rig.assert_drops(0, &from_core(&came_back), DropReason::TunnelLoop);
        // Encapsulated by somebody else, it is nested.
        let other = Ip::data(FAR, NODE).arriving(how, "10.9.9.9", NODE);
        let sent = rig.exchange(0, &from_core(&other));
        let ttl = other.ttl - 1;
        let expected = other.ttl(ttl).leaving(how, AGENT, CARE_OF);
        assert_eq!(only(sent, 0, station(ROUTER)).bytes(), expected.bytes());
    }
}

/// Reliability, row 27: tunnels in tunnels of every kind come out up to the limit.
// Shows attack-27.
#[test]
fn tunnels_of_every_kind_in_one_another_come_out_up_to_the_limit() {
    let mut rig = home_agent();
    let mut packet = Ip::data(NODE, FAR);
    // Each node's care-of address is the next one's home address.
    let nodes = [NODE, "10.1.0.11", "10.1.0.12", "10.1.0.13", "10.1.0.14"];
    for (depth, how) in EVERY.into_iter().take(5).enumerate() {
        let end = nodes.get(depth + 1).copied().unwrap_or(CARE_OF);
        rig.bind(nodes[depth], binding_of(AGENT, None, &[(end, how, TunnelFlags::REVERSE)]));
        packet = packet.arriving(how, end, AGENT);
        if depth < 4 {
            let sent = rig.exchange(0, &from_core(&packet));
            assert_eq!(only(sent, 0, station(ROUTER)).ends(), (NODE.into(), FAR.into()));
        } else {
            rig.assert_drops(0, &from_core(&packet), DropReason::NestedTunnel);
        }
    }
    assert_eq!(rig.stats(0).decapsulated.get(), 1 + 2 + 3 + 4);
}

/// Reliability, row 43: a hundred thousand malformed tunnel data messages. Each is
/// counted, none is answered or shown to the control core, and every buffer is back.
#[test]
fn a_hundred_thousand_malformed_tunnel_data_messages_leave_nothing_behind() {
    let mut rig = home_agent_by(Encapsulation::Udp { peer_port: 4711 });
    let good = Ip::data(NODE, FAR).arriving(Encapsulation::Udp { peer_port: 4711 }, CARE_OF, AGENT);
    // A good one goes through first: all that grows once has grown.
    only(rig.exchange(0, &from_core(&good)), 0, station(ROUTER));
    let baseline = rig.worker.free_buffers();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let total = 100_000;
    for number in 0..total {
        let mut bad = good.clone();
        let payload = &mut bad.payload;
        match number % 5 {
            // A wrong next header; cut off; a wrong UDP length; noise behind the type; a
            // broken packet inside.
            0 => payload[9] = [0, 6, 17, 47, 55, 255][random(6)],
            1 => payload.truncate(8 + 1 + random(22)),
            2 => payload[4] = 1 + random(255) as u8,
            3 => {
                payload.truncate(9);
                payload.extend((0..random(60)).map(|at| (at * 31) as u8));
            }
            _ => payload[12 + random(20)] ^= 1 + random(255) as u8,
        }
        if number % 5 != 2 {
            let len = payload.len() as u16;
            payload[4..6].copy_from_slice(&len.to_be_bytes());
        }
        rig.push(0, &from_core(&bad));
        if number % 64 == 63 {
            rig.run();
        }
    }
    rig.run();
    assert_eq!(rig.sent(), []);
    assert_eq!(rig.punts(), []);
    assert_eq!(rig.to_kernel(0), Vec::<Vec<u8>>::new());
    assert_eq!(rig.stats(0).total_dropped(), total, "{}", rig.drops());
    assert_eq!(rig.worker.free_buffers(), baseline);
    only(rig.exchange(0, &from_core(&good)), 0, station(ROUTER));
}

/// B-10, RFC 5177 §7: what is for a mobile network goes through its router's binding, in
/// two tunnels when a foreign agent must tell whose it is; nobody answers ARP for it.
// Shows 5177-6.5-a, 5177-6.5-b, 5177-7-a, 5177-7-b, 5177-7-c, 5177-7-d, 5177-7-f.
#[test]
fn a_mobile_network_is_reached_through_its_routers_binding() {
    const FIXED: &str = "10.9.0.5";
    for how in EVERY {
        for co_located in [false, true] {
            let mut rig = home_agent();
            let flags = TunnelFlags::REVERSE.with(TunnelFlags::CO_LOCATED, co_located);
            rig.bind(NODE, binding_of(AGENT, Some(1), &[(CARE_OF, how, flags)]));
            let route = RouteEntry::MobileRouter { home_address: ip(NODE) };
            rig.control.routes.install(TENANT, ip("10.9.0.0"), 24, route).unwrap();

            let down = Ip::data(FAR, FIXED);
            let sent = rig.exchange(0, &from_core(&down));
            let inside = down.ttl(63);
            let inside = if co_located {
                inside
            } else {
                inside.leaving(Encapsulation::IpInIp, AGENT, NODE)
            };
            let expected = inside.leaving(how, AGENT, CARE_OF);
            assert_eq!(only(sent, 0, station(ROUTER)).bytes(), expected.bytes(), "{how:?}");

            // Back: in one tunnel, or in the router's own inside it.
            let up = Ip::data(FIXED, FAR);
            for packet in [up.clone(), up.tunnelled(NODE, AGENT)] {
                let sent = rig.exchange(0, &from_core(&packet.arriving(how, CARE_OF, AGENT)));
                assert_eq!(only(sent, 0, station(ROUTER)).ends(), (FIXED.into(), FAR.into()));
            }
            // From elsewhere it must not come, be it in the router's name.
            for outer in ["10.0.3.2", NODE] {
                let frame = from_core(&up.arriving(how, outer, AGENT));
                rig.assert_drops(0, &frame, DropReason::OuterSourceMismatch);
            }
            // A loop: from the tunnel's own end.
            let looped =
                if matches!(how, Encapsulation::Udp { .. } | Encapsulation::PlainUdp { .. }) {
                    Ip::udp(CARE_OF, FIXED, (4711, 9))
                } else {
                    Ip::data(CARE_OF, FIXED)
                };
            rig.assert_drops(0, &from_core(&looped), DropReason::TunnelLoop);
            assert_no_arp_answer(&mut rig, FIXED);
        }
    }
}

fn assert_no_arp_answer(rig: &mut Rig, target: &str) {
    use homeport_wire::{ArpOperation, ArpPacket};
    let ends = (ip("10.1.0.99"), ip(target));
    let nobody = MacAddress::UNSPECIFIED;
    let question = ArpPacket::new(ArpOperation::REQUEST, station(99), ends.0, nobody, ends.1);
    assert_eq!(rig.exchange(1, &arp_frame(MacAddress::BROADCAST, &question)), []);
    assert_eq!(rig.to_kernel(1).len(), 1);
}

/// B-10: at home the router is the next hop, and without a way to it there is none.
#[test]
fn a_mobile_network_whose_router_is_at_home_is_behind_it_on_the_link() {
    let mut rig = Rig::new(2);
    rig.home_agent(AGENT);
    rig.route("10.1.0.0/24", 1, None);
    let route = RouteEntry::MobileRouter { home_address: ip(NODE) };
    rig.control.routes.install(TENANT, ip("10.9.0.0"), 24, route).unwrap();
    rig.neighbor(1, NODE, station(MOBILE));
    let sent = rig.exchange(0, &from_core(&Ip::data(FAR, "10.9.0.5")));
    assert_eq!(only(sent, 1, station(MOBILE)).bytes(), Ip::data(FAR, "10.9.0.5").ttl(63).bytes());
    let frame = from_core(&Ip::data("10.9.0.5", FAR).tunnelled(CARE_OF, AGENT));
    rig.assert_drops(0, &frame, DropReason::NoBinding);
    rig.control.routes.remove(TENANT, ip("10.1.0.0"), 24);
    rig.assert_drops(0, &from_core(&Ip::data(FAR, "10.9.0.5")), DropReason::NoRoute);
}

/// RFC 5944 §4.3: a listener's broadcast goes in IP in IP inside the tunnel that was
/// agreed on, whatever that is.
// Shows 5944-3.6.1.2-d, 5944-4.4-d.
#[test]
fn a_broadcast_enters_a_tunnel_of_any_kind_in_a_packet_for_the_node() {
    for how in EVERY {
        let mut rig = home_agent();
        rig.bind(NODE, binding_of(AGENT, Some(1), &[(CARE_OF, how, TunnelFlags::BROADCAST)]));
        let broadcast = Ip::udp("10.1.0.50", "255.255.255.255", (137, 137)).ttl(1);
        let sent = rig.exchange(1, &broadcast.frame(MacAddress::BROADCAST, station(50)));
        let inside = broadcast.leaving(Encapsulation::IpInIp, AGENT, NODE);
        let expected = inside.leaving(how, AGENT, CARE_OF);
        assert_eq!(only(sent, 0, station(ROUTER)).bytes(), expected.bytes());
    }
}
