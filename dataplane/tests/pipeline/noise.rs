//! Noise: frames that nobody meant, into tables that are full of entries.

use homeport_dataplane::table::binding::{BindingKey, Encapsulation, TunnelFlags};
use homeport_dataplane::table::local::{LocalEntry, LocalKey};
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_dataplane::table::visitor::{ReverseTunnel, VisitorEntry, VisitorKey};
use homeport_dataplane::{MacAddress, PortId, TenantId};
use homeport_wire::IpProtocol;
use proptest::prelude::*;

use crate::harness::*;

/// Two tenants with the same home addresses, each with two ports of its own:
/// tenant 1 has ports 0 and 1, tenant 2 ports 2 and 3. Only their agents' addresses
/// differ: those are the underlay's, and an address there is one tenant's.
pub(crate) fn two_tenants(how: Encapsulation) -> Rig {
    let mut plan = Plan::ports(4);
    plan.tenants = vec![TenantId(1), TenantId(1), TenantId(2), TenantId(2)];
    let mut rig = plan.build();
    for number in [1u8, 2] {
        let tenant = TenantId(u32::from(number));
        let ports = [PortId(u16::from(number) * 2 - 2), PortId(u16::from(number) * 2 - 1)];
        let home_agent = format!("10.0.{number}.1");
        let care_of = format!("10.0.{number}.2");
        let entry = LocalEntry { tenant, ..LocalEntry::default() };
        for (address, entry) in [
            (&home_agent, LocalEntry { home_agent: true, ..entry }),
            (&care_of, LocalEntry { care_of_address: true, agent: true, ..entry }),
            (&format!("10.0.{number}.255"), LocalEntry { broadcast: true, ..entry }),
        ] {
            rig.control.locals.install(LocalKey { address: ip(address) }, entry).unwrap();
        }
        let route = RouteEntry::Via { port: ports[0], gateway: Some(ip("10.0.0.1")) };
        rig.control.routes.install(tenant, ip("0.0.0.0"), 0, route).unwrap();
        let route = RouteEntry::Via { port: ports[1], gateway: None };
        rig.control.routes.install(tenant, ip("10.1.0.0"), 24, route).unwrap();
        let route = RouteEntry::MobileRouter { home_address: ip("10.1.0.10") };
        rig.control.routes.install(tenant, ip("10.1.0.24"), 29, route).unwrap();
        for (port, address) in [(ports[0], "10.0.0.1"), (ports[1], "10.1.0.5")] {
            let key = NeighborKey { port, address: ip(address) };
            rig.control.neighbors.install(key, NeighborEntry { mac: station(1) }).unwrap();
        }
        for (node, ends) in [
            ("10.1.0.10", vec!["10.0.9.1"]),
            ("10.1.0.11", vec!["10.0.9.1", "10.0.9.2"]),
            ("10.1.0.12", vec![care_of.as_str()]),
            ("10.1.0.13", vec!["10.1.0.14"]),
            ("10.1.0.14", vec!["10.1.0.13"]),
        ] {
            let flags = TunnelFlags::REVERSE
                .with(TunnelFlags::BROADCAST, true)
                .with(TunnelFlags::CO_LOCATED, node.ends_with('1'))
                .with(TunnelFlags::UNPROVEN, node.ends_with('4'));
            let tunnels: Vec<_> = ends.iter().map(|end| (*end, how, flags)).collect();
            let entry = binding_of(&home_agent, Some(ports[1].0), &tunnels);
            let key = BindingKey { tenant, home_address: ip(node) };
            rig.control.bindings.install(key, entry).unwrap();
            rig.control.listeners.update(key, Some(&entry)).unwrap();
        }
        for (node, style) in [
            ("10.1.0.12", ReverseTunnel::Direct),
            ("10.1.0.20", ReverseTunnel::Direct),
            ("10.1.0.21", ReverseTunnel::Encapsulating),
            ("10.1.0.22", ReverseTunnel::None),
        ] {
            let port = ports[1].0;
            let entry = visitor(station(9), port, "10.0.9.1", &care_of, style);
            let home_agent = entry.home_agent;
            let key = VisitorKey { tenant, home_address: ip(node), home_agent };
            let entry = VisitorEntry { encapsulation: how, ..entry };
            rig.control.visitors.install(key, entry).unwrap();
        }
    }
    for port in rig.control.ports.iter() {
        port.set_address(Some(ip("10.0.0.9")));
    }
    rig
}

/// Addresses that mean something to the tables, and some that do not.
fn address() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (5u8..28).prop_map(|last| format!("10.1.0.{last}")),
        6 => (1u8..3, 1u8..3).prop_map(|(tenant, last)| format!("10.0.{tenant}.{last}")),
        4 => (1u8..3).prop_map(|last| format!("10.0.9.{last}")),
        1 => Just("10.0.1.255".to_string()),
        1 => Just("255.255.255.255".to_string()),
        1 => Just("224.0.0.11".to_string()),
        1 => Just("0.0.0.0".to_string()),
        3 => any::<u32>().prop_map(|bits| std::net::Ipv4Addr::from_bits(bits).to_string()),
    ]
}

/// A packet that could be meant, wrapped in up to six tunnels that could be meant.
fn packet(how: Encapsulation) -> impl Strategy<Value = Ip> {
    let plain = (
        (address(), address()),
        prop_oneof![Just(1u8), Just(6), Just(17), Just(4), Just(47), Just(55), any::<u8>()],
        any::<u8>(),
        any::<u8>(),
        any::<bool>(),
        prop_oneof![9 => Just((0u16, false)), 1 => (0u16..9).prop_map(|n| (n * 8, n % 2 == 0))],
        prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..64),
            1 => Just(vec![10, 0, 0xf5, 0xff, 0, 0, 0, 0]),
            1 => Just(vec![1, 178, 1, 178, 0, 8, 0, 0]),
            1 => Just(vec![0; 1480]),
        ],
    )
        .prop_map(|(ends, protocol, ttl, tos, dont_fragment, fragment, payload)| Ip {
            protocol: IpProtocol(protocol),
            ttl,
            tos,
            dont_fragment,
            fragment,
            payload,
            ..Ip::data(&ends.0, &ends.1)
        });
    let how = prop_oneof![3 => Just(how), 1 => proptest::sample::select(&EVERY[..])];
    let tunnels = proptest::collection::vec((how, address(), address(), any::<bool>()), 0..6);
    (plain, tunnels).prop_map(|(plain, tunnels)| {
        tunnels.iter().fold(plain, |inner, (how, source, destination, arriving)| match arriving {
            _ if inner.payload.len() > 1400 => inner,
            true => inner.arriving(*how, source, destination),
            false => inner.leaving(*how, source, destination),
        })
    })
}

pub(crate) fn frame(how: Encapsulation) -> impl Strategy<Value = Vec<u8>> {
    let to = prop_oneof![
        8 => Just(None),
        1 => Just(Some(MacAddress::BROADCAST)),
        1 => Just(Some(station(3))),
    ];
    let from = prop_oneof![Just(9u8), Just(1u8)];
    let meant = (packet(how), to, from, any::<(bool, u16, u8)>()).prop_map(
        |(packet, to, from, (flip, at, bit))| {
            let mut bytes = packet.frame(to.unwrap_or(MacAddress([0xee; 6])), station(from));
            let at = usize::from(at) % (bytes.len() * 4);
            if let Some(byte) = bytes.get_mut(at).filter(|_| flip) {
                *byte ^= 1 << (bit % 8);
            }
            bytes
        },
    );
    prop_oneof![9 => meant, 1 => proptest::collection::vec(any::<u8>(), 1..200)]
}

/// Where a frame goes in: from outside, from a kernel twin, from the control core.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    Link(usize),
    Twin(usize),
    Injected(u16, bool),
}

pub(crate) fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        6 => (0usize..4).prop_map(Way::Link),
        1 => (0usize..4).prop_map(Way::Twin),
        1 => (0u16..5, any::<bool>()).prop_map(|(port, routed)| Way::Injected(port, routed)),
    ]
}

pub(crate) fn enter(rig: &mut Rig, way: &Way, bytes: &[u8]) -> TenantId {
    use homeport_dataplane::punt::{InjectHeader, InjectKind};
    match way {
        Way::Link(port) | Way::Twin(port) => {
            let mut bytes = bytes.to_vec();
            // The placeholder is the port's own address.
            if bytes.starts_with(&[0xee; 6]) {
                bytes[..6].copy_from_slice(&port_mac(*port as u8).0);
            }
            let twin = rig.twins[*port].clone().unwrap();
            let link = if matches!(way, Way::Twin(_)) { &twin } else { &rig.links[*port] };
            assert!(link.push(&bytes));
            TenantId(*port as u32 / 2 + 1)
        }
        Way::Injected(port, routed) => {
            // Often a tenant that has no such port.
            let tenant = TenantId(u32::from(bytes.len().is_multiple_of(2)) + 1);
            let kind = if *routed { InjectKind::Routed } else { InjectKind::Frame };
            let bytes = if *routed { bytes.get(14..).unwrap_or_default() } else { bytes };
            let len = u16::try_from(bytes.len()).unwrap();
            let header = InjectHeader::new(tenant, PortId(*port), kind, len);
            assert!(rig.control.injects.send(header, bytes));
            tenant
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Reliability, attacks 12, 27, 32: no panic, every packet counted once,
    /// nothing grows without end, nothing leaves by another tenant's port.
    // Shows attack-12, attack-27, attack-32.
    #[test]
    fn noise_is_counted_and_stays_with_its_tenant(
        (how, frames) in proptest::sample::select(&EVERY[..]).prop_flat_map(|how| {
            (Just(how), proptest::collection::vec((way(), frame(how)), 1..40))
        }),
    ) {
        let mut rig = two_tenants(how);
        let baseline = rig.worker.free_buffers();
        for (way, bytes) in &frames {
            let tenant = enter(&mut rig, way, bytes);
            rig.run();
            let sent = rig.sent();
            prop_assert!(sent.len() <= 24, "{} frames of one", sent.len());
            for (port, _) in &sent {
                prop_assert_eq!(TenantId(*port as u32 / 2 + 1), tenant, "{:?}", way);
            }
            for (header, _) in rig.punts() {
                prop_assert_eq!(header.tenant(), tenant);
            }
            for (port, twin) in rig.twins.iter().enumerate() {
                let taken = twin.as_ref().unwrap().discard();
                prop_assert!(taken == 0 || TenantId(port as u32 / 2 + 1) == tenant);
            }
        }
        // What waited in vain may cause an error, which may wait in its turn.
        rig.advance(homeport_dataplane::reassembly::TIMEOUT);
        for _ in 0..2 {
            rig.advance(homeport_dataplane::hold::HOLD_TIME);
        }
        for stats in rig.control.ports.iter().flat_map(|port| port.workers()) {
            prop_assert_eq!(stats.held.get(), 0);
        }
        prop_assert_eq!(rig.worker.free_buffers(), baseline);
    }
}

/// The tables of the property are such that meant packets get through: else it
/// would show nothing.
#[test]
fn the_tenants_of_the_noise_do_carry_packets() {
    for (port, number) in [(0u8, 1u8), (2, 2)] {
        let mut rig = two_tenants(Encapsulation::IpInIp);
        let down = Ip::data("192.0.2.7", "10.1.0.10").frame(port_mac(port), station(1));
        let sent = rig.exchange(usize::from(port), &down);
        let outer = only(sent, usize::from(port), station(1));
        assert_eq!(outer.ends(), (format!("10.0.{number}.1"), "10.0.9.1".into()));
        let tunnelled = Ip::data("192.0.2.7", "10.1.0.20")
            .tunnelled("10.0.9.1", &format!("10.0.{number}.2"))
            .frame(port_mac(port), station(1));
        let sent = rig.exchange(usize::from(port), &tunnelled);
        only(sent, usize::from(port) + 1, station(9));
        // Another tenant's agent is no agent of ours: the packet is routed away.
        let other = format!("10.0.{}.2", 3 - number);
        let tunnelled = Ip::data("192.0.2.7", "10.1.0.20")
            .tunnelled("10.0.9.1", &other)
            .frame(port_mac(port), station(1));
        let sent = rig.exchange(usize::from(port), &tunnelled);
        assert_eq!(only(sent, usize::from(port), station(1)).ends().1, other);
    }
}

/// Two tenants behind one link of the underlay: the outer destination names the
/// tenant, and what comes out of the tunnel is that tenant's.
// Shows attack-32.
#[test]
fn a_tunnel_on_a_shared_link_belongs_to_its_agents_tenant() {
    let mut plan = Plan::ports(3);
    plan.tenants = vec![TENANT, TenantId(1), TenantId(2)];
    let mut rig = plan.build();
    for number in [1u8, 2] {
        let tenant = TenantId(u32::from(number));
        let home_agent = format!("10.0.{number}.1");
        let local = LocalEntry { tenant, home_agent: true, ..LocalEntry::default() };
        rig.control.locals.install(LocalKey { address: ip(&home_agent) }, local).unwrap();
        let port = PortId(u16::from(number));
        let route = RouteEntry::Via { port, gateway: None };
        rig.control.routes.install(tenant, ip("10.1.0.0"), 24, route).unwrap();
        let key = NeighborKey { port, address: ip("10.1.0.5") };
        rig.control.neighbors.install(key, NeighborEntry { mac: station(number) }).unwrap();
        let key = BindingKey { tenant, home_address: ip("10.1.0.10") };
        rig.control.bindings.install(key, binding(&home_agent, &["10.0.9.1"])).unwrap();
    }
    for number in [1u8, 2] {
        let frame = Ip::data("10.1.0.10", "10.1.0.5")
            .tunnelled("10.0.9.1", &format!("10.0.{number}.1"))
            .frame(port_mac(0), station(7));
        let sent = rig.exchange(0, &frame);
        only(sent, usize::from(number), station(number));
    }
}
