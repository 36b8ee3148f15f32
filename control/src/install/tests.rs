use super::*;
use homeport_dataplane::table::source_route::{LocalWay, SourceRouteEntry};
use homeport_dataplane::table::visitor::ReverseTunnel;
use homeport_dataplane::table::{hash, lpm, source_route, visitor};
use homeport_proto::action::{CareOf, VisitorState};
use homeport_proto::config::{
    AdvertiserConfig, ForeignAgentConfig, HomeAgentConfig, SourceRoute, Via,
};
use homeport_proto::{Lifetime, MacAddress};

const SEED: [u64; 2] = [1, 2];
const TENANT: TenantId = TenantId(3);

fn installer(capacity: usize) -> Installer {
    let tables = Tables {
        bindings: hash::table(capacity, SEED),
        listeners: ListenerWriter::new(4, SEED),
        visitors: visitor::visitors(capacity, SEED),
        locals: hash::table(16, SEED),
        routes: lpm::routes(16),
        source_routes: source_route::source_routes(16),
        neighbors: hash::table(16, SEED),
    };
    Installer::new(tables, vec![UNDERLAY, TENANT, TenantId(9)], ClaimKeeper::default())
}

fn binding(last: u8, care_of_addresses: &[(u8, homeport_proto::Encapsulation)]) -> BindingState {
    let care_of = |(address, encapsulation): &(u8, homeport_proto::Encapsulation)| CareOf {
        address: Ipv4Addr::new(10, 0, 2, *address),
        registered: Ipv4Addr::new(10, 0, 2, *address),
        encapsulation: *encapsulation,
        reverse_tunnel: true,
        co_located: false,
        broadcast: false,
        unproven: false,
        lifetime: Lifetime(300),
    };
    BindingState {
        tenant: TENANT,
        home_address: Ipv4Addr::new(10, 1, 0, last),
        home_agent: Ipv4Addr::new(10, 0, 1, 2),
        care_of_addresses: care_of_addresses.iter().map(care_of).collect(),
        home_link: Some(PortId(1)),
        mobile_networks: Vec::new(),
        set_df: true,
        clamp_mss: false,
    }
}

fn home_agent() -> HomeAgentConfig {
    HomeAgentConfig {
        tenant: TENANT,
        address: Ipv4Addr::new(10, 0, 1, 2),
        home_networks: Vec::new(),
        profile: homeport_proto::config::Profile::Rfc5944,
        max_lifetime: Lifetime(600),
        max_bindings: 10,
        max_simultaneous: 1,
        reverse_tunnel: true,
        require_reverse_tunnel: false,
        administratively_prohibited: false,
        security: Default::default(),
        require_foreign_home_authentication: false,
        tunnels: homeport_proto::config::TunnelPolicy::default(),
        nat: homeport_proto::config::NatPolicy::default(),
        mobile_networks: Vec::new(),
        message_strings: false,
        revocation: false,
        assignment: homeport_proto::config::HomeAgentAssignment::default(),
        sessions: homeport_proto::config::SessionPolicy::default(),
    }
}

fn key(last: u8) -> BindingKey {
    BindingKey { tenant: TENANT, home_address: Ipv4Addr::new(10, 1, 0, last) }
}

use homeport_proto::Encapsulation::{Gre, IpInIp};

#[test]
fn a_binding_is_installed_replaced_and_removed() {
    let mut installer = installer(4);
    assert!(installer.apply(&Action::InstallBinding(binding(10, &[(2, IpInIp)]))));
    let entry = *installer.bindings.writer.get(&key(10)).unwrap();
    assert_eq!(entry.tunnels().len(), 1);
    assert_eq!(entry.tunnels()[0].care_of_address(), Ipv4Addr::new(10, 0, 2, 2));
    assert_eq!(entry.home_link(), Some(PortId(1)));
    assert!(entry.flags.contains(EntryFlags::SET_DF));
    // More than the dataplane copies to.
    let keyed = Gre { key: Some(7) };
    let many = [(3, IpInIp), (4, keyed), (5, IpInIp), (6, IpInIp), (7, IpInIp), (8, IpInIp)];
    installer.apply(&Action::InstallBinding(binding(10, &many)));
    let entry = installer.bindings.writer.get(&key(10)).unwrap();
    let ends: Vec<u8> =
        entry.tunnels().iter().map(|end| end.care_of_address().octets()[3]).collect();
    assert_eq!(ends, [3, 4, 5, 6]);
    assert_eq!(entry.tunnels()[1].encapsulation(), Encapsulation::Gre { key: Some(7) });
    let (tenant, home_address) = (TENANT, key(10).home_address);
    installer.apply(&Action::RemoveBinding { tenant, home_address });
    assert!(installer.bindings.writer.is_empty());
}

/// B-06.
#[test]
fn a_node_that_wants_broadcasts_is_listed_while_it_is_bound() {
    let mut installer = installer(4);
    let mut wanting = binding(10, &[(2, IpInIp)]);
    wanting.care_of_addresses[0].broadcast = true;
    let (tenant, home_address) = (TENANT, wanting.home_address);
    let steps = [
        (Action::InstallBinding(wanting.clone()), 1),
        (Action::RemoveBinding { tenant, home_address }, 0),
        (Action::InstallBinding(wanting), 1),
        (Action::InstallBinding(binding(10, &[(3, IpInIp)])), 0),
    ];
    for (action, listed) in steps {
        installer.apply(&action);
        assert_eq!(installer.listeners.len(PortId(1)), listed, "{action:?}");
    }
}

/// B-10.
#[test]
fn a_mobile_routers_networks_are_routed_to_it_while_it_is_bound() {
    let mut installer = installer(4);
    let config = AgentConfig { home_agents: vec![home_agent()], ..AgentConfig::default() };
    installer.configure(&config);
    let network = |third| Prefix::new(Ipv4Addr::new(10, 9, third, 0), 24).unwrap();
    let route = |installer: &Installer, prefix: Prefix| {
        let mut routes = installer.routes.writer.iter();
        routes
            .find(|(key, _)| {
                key.scope() == TENANT && Prefix::new(key.prefix(), key.prefix_len()) == Some(prefix)
            })
            .map(|(_, entry)| *entry)
    };
    // The kernel knows where the router's first network is when it is at home.
    let home = RouteEntry::Via { port: PortId(1), gateway: Some(Ipv4Addr::new(10, 1, 0, 10)) };
    installer.apply_change(Change::Route(network(0), Some(home)));
    let behind =
        |last| Some(RouteEntry::MobileRouter { home_address: Ipv4Addr::new(10, 1, 0, last) });
    let router = |networks: &[Prefix]| BindingState {
        mobile_networks: networks.to_vec(),
        ..binding(10, &[(2, IpInIp)])
    };
    for (networks, first, second) in [
        (&[network(0), network(1)][..], behind(10), behind(10)),
        (&[network(1)][..], Some(home), behind(10)),
        (&[network(0)][..], behind(10), None),
    ] {
        installer.apply(&Action::InstallBinding(router(networks)));
        assert_eq!(route(&installer, network(0)), first, "{networks:?}");
        assert_eq!(route(&installer, network(1)), second, "{networks:?}");
    }
    // Another tenant's routes know nothing of it.
    let elsewhere = |key: &lpm::RouteKey| key.scope() != TENANT;
    let entries = installer.routes.writer.iter();
    assert!(entries.filter(|(key, _)| elsewhere(key)).all(|(_, entry)| *entry == home));
    // A change in the kernel waits until the router is home again.
    installer.apply_change(Change::Route(network(0), Some(RouteEntry::Unreachable)));
    assert_eq!(route(&installer, network(0)), behind(10));
    let (tenant, home_address) = (TENANT, key(10).home_address);
    installer.apply(&Action::RemoveBinding { tenant, home_address });
    assert_eq!(route(&installer, network(0)), Some(RouteEntry::Unreachable));
    assert!(installer.mobile_networks.is_empty() && installer.mobile_routers.is_empty());
}

#[test]
fn a_binding_without_a_care_of_address_leaves_no_old_tunnel() {
    let mut installer = installer(4);
    installer.apply(&Action::InstallBinding(binding(10, &[(2, IpInIp)])));
    installer.apply(&Action::InstallBinding(binding(10, &[])));
    assert!(installer.bindings.writer.is_empty());
}

#[test]
fn what_finds_no_room_is_installed_when_there_is() {
    let mut installer = installer(1);
    installer.apply(&Action::InstallBinding(binding(10, &[(2, IpInIp)])));
    installer.apply(&Action::InstallBinding(binding(11, &[(2, IpInIp)])));
    installer.apply(&Action::InstallBinding(binding(12, &[(2, IpInIp)])));
    assert_eq!(installer.full_counts()[0], ("bindings", 2));
    assert!(installer.retry());
    let tenant = TENANT;
    installer.apply(&Action::RemoveBinding { tenant, home_address: key(10).home_address });
    // One that is no longer wanted is not brought back.
    installer.apply(&Action::RemoveBinding { tenant, home_address: key(11).home_address });
    assert!(!installer.retry());
    assert!(installer.bindings.writer.get(&key(12)).is_some());
    assert!(installer.bindings.writer.get(&key(11)).is_none());
}

#[test]
fn a_renewal_that_changes_nothing_takes_no_room() {
    let mut installer = installer(1);
    // It stands still: what is replaced cannot be used again.
    let _reader = installer.bindings.writer.reader();
    for _ in 0..1_000 {
        installer.apply(&Action::InstallBinding(binding(10, &[(2, IpInIp)])));
    }
    assert_eq!(installer.full_counts()[0], ("bindings", 0));
    assert!(!installer.is_late());
}

#[test]
fn what_is_in_the_table_already_takes_the_place_of_what_waits_for_room() {
    let mut installer = installer(1);
    let mut reader = installer.bindings.writer.reader();
    let mut last = 0;
    while !installer.is_late() {
        last += 1;
        installer.apply(&Action::InstallBinding(binding(10, &[(last, IpInIp)])));
    }
    let in_force = binding(10, &[(last - 1, IpInIp)]);
    let entry = binding_entry(&in_force).unwrap();
    assert_eq!(installer.bindings.writer.get(&key(10)), Some(&entry));
    installer.apply(&Action::InstallBinding(in_force));
    reader.quiescent();
    assert!(!installer.retry());
    assert_eq!(installer.bindings.writer.get(&key(10)), Some(&entry));
}

#[test]
fn a_visitor_is_installed_and_removed() {
    let mut installer = installer(4);
    let visitor = VisitorState {
        tenant: TENANT,
        home_address: Ipv4Addr::new(10, 1, 0, 10),
        mac: MacAddress([2, 0, 0, 0, 0, 9]),
        port: PortId(1),
        home_agent: Ipv4Addr::new(10, 0, 1, 2),
        care_of_address: Ipv4Addr::new(10, 0, 2, 2),
        encapsulation: IpInIp,
        reverse_tunnel: homeport_proto::ReverseTunnel::Encapsulating,
        overlapping: false,
        set_df: false,
        clamp_mss: true,
    };
    installer.apply(&Action::InstallVisitor(visitor));
    let VisitorState { tenant, home_address, home_agent, .. } = visitor;
    let key = VisitorKey { tenant, home_address, home_agent };
    let entry = installer.visiting.visitors.writer.get(&key).unwrap();
    assert_eq!(entry.reverse_tunnel, ReverseTunnel::Encapsulating);
    assert_eq!((entry.mac, entry.port), (visitor.mac, visitor.port));
    installer.apply(&Action::RemoveVisitor { tenant, home_address, home_agent });
    assert!(installer.visiting.visitors.writer.is_empty());
}

fn agents() -> AgentConfig {
    let tenant = TENANT;
    let home_agent = HomeAgentConfig { tenant, ..home_agent() };
    let foreign_agent = ForeignAgentConfig {
        tenant: TenantId(4),
        care_of_address: Ipv4Addr::new(10, 0, 1, 2),
        links: vec![(PortId(1), Ipv4Addr::new(10, 2, 0, 1))],
        profile: homeport_proto::config::Profile::Rfc5944,
        max_lifetime: Lifetime(600),
        max_visitors: 10,
        max_pending_per_node: 5,
        max_sessions_per_nai: 0,
        requests_per_minute_per_nai: 0,
        session_insertion: homeport_proto::config::SessionInsertion::default(),
        max_pending: 10,
        pending_timeout: std::time::Duration::from_secs(7),
        reverse_tunnel: true,
        require_reverse_tunnel: false,
        encapsulating_delivery: true,
        require_mobile_foreign_authentication: false,
        overlapping_addresses: false,
        napt: None,
        source_routes: Vec::new(),
        tunnels: homeport_proto::config::TunnelPolicy::default(),
        challenge: homeport_proto::config::ChallengePolicy::Off,
        challenge_window: 2,
        revocation: false,
        assigned_home_agent: None,
        udp_tunnel: homeport_proto::config::UdpTunnelling::Off,
        gre_keys: true,
        message_strings: false,
        administratively_prohibited: false,
        security: Default::default(),
    };
    let advertiser = AdvertiserConfig {
        tenant,
        port: PortId(2),
        address: Ipv4Addr::new(10, 3, 0, 1),
        prefix_len: 24,
        home_agent: true,
        care_of_addresses: Vec::new(),
        registration_required: false,
        encapsulations: homeport_proto::config::EncapsulationSet::ALL,
        udp_tunnel: false,
        revocation: false,
        reverse_tunnel: true,
        registration_lifetime: Lifetime(600),
        interval: std::time::Duration::from_secs(1),
        unsolicited: true,
    };
    AgentConfig {
        home_agents: vec![home_agent],
        foreign_agents: vec![foreign_agent],
        advertisers: vec![advertiser],
    }
}

#[test]
fn an_agents_address_stays_one_while_the_kernel_adds_and_removes_it() {
    let mut installer = installer(4);
    let local = |installer: &Installer, address: [u8; 4]| {
        installer.locals.writer.get(&LocalKey { address: address.into() }).copied()
    };
    let kernel = Some(KernelLocal { broadcast: false });
    installer.apply_change(Change::Local(Ipv4Addr::new(10, 2, 0, 1), kernel));
    let broadcast = Some(KernelLocal { broadcast: true });
    installer.apply_change(Change::Local(Ipv4Addr::new(10, 2, 0, 255), broadcast));
    assert_eq!(local(&installer, [10, 2, 0, 1]), Some(LocalEntry::default()));

    installer.configure(&agents());
    let agent = local(&installer, [10, 2, 0, 1]).unwrap();
    assert!(agent.agent && !agent.home_agent && !agent.broadcast);
    assert_eq!(agent.tenant, TenantId(4));
    let both = local(&installer, [10, 0, 1, 2]).unwrap();
    assert!(both.home_agent && both.care_of_address);
    assert!(local(&installer, [10, 3, 0, 1]).unwrap().agent);
    assert!(local(&installer, [10, 2, 0, 255]).unwrap().broadcast);

    installer.apply_change(Change::Local(Ipv4Addr::new(10, 0, 1, 2), None));
    assert!(local(&installer, [10, 0, 1, 2]).is_some());
    installer.configure(&AgentConfig::default());
    assert_eq!(local(&installer, [10, 0, 1, 2]), None);
    assert_eq!(local(&installer, [10, 2, 0, 1]), Some(LocalEntry::default()));
}

#[test]
fn a_tenant_gets_its_own_routes_and_the_underlays_but_no_other_tenants() {
    let mut installer = installer(4);
    let prefix = |second| Prefix::new(Ipv4Addr::new(10, second, 0, 0), 16).unwrap();
    let via = |port| RouteEntry::Via { port: PortId(port), gateway: None };
    for port in 0..3 {
        installer.apply_change(Change::Route(prefix(port as u8), Some(via(port))));
    }
    let seen = |installer: &Installer, tenant| -> Vec<bool> {
        let get =
            |second| installer.routes.writer.get(tenant, prefix(second).address(), 16).is_some();
        (0..3).map(get).collect()
    };
    assert_eq!(seen(&installer, TENANT), [false, false, false]);
    installer.configure(&agents());
    assert_eq!(seen(&installer, UNDERLAY), [true, true, true]);
    assert_eq!(seen(&installer, TENANT), [true, true, false]);
    assert_eq!(seen(&installer, TenantId(4)), [true, false, false]);
    installer.apply_change(Change::Route(prefix(0), None));
    assert_eq!(seen(&installer, TENANT), [false, true, false]);
    installer.configure(&AgentConfig::default());
    assert_eq!(seen(&installer, TENANT), [false, false, false]);
    assert_eq!(seen(&installer, UNDERLAY), [false, true, true]);
}

#[test]
fn routes_and_neighbours_come_and_go_with_the_kernels() {
    let mut installer = installer(4);
    let prefix = Prefix::new(Ipv4Addr::new(10, 9, 0, 0), 16).unwrap();
    let route = RouteEntry::Via { port: PortId(0), gateway: None };
    installer.apply_change(Change::Route(prefix, Some(route)));
    assert_eq!(installer.routes(), [(prefix, route)]);
    let key = NeighborKey { port: PortId(0), address: Ipv4Addr::new(10, 9, 0, 1) };
    let entry = NeighborEntry { mac: MacAddress([2, 0, 0, 0, 0, 9]) };
    installer.apply_change(Change::Neighbor(key, Some(entry)));
    assert_eq!(installer.neighbors(), [(key, entry)]);
    installer.apply_change(Change::Link(PortId(0), true));
    assert!(installer.is_link_up(PortId(0)) && !installer.is_link_up(PortId(1)));
    installer.apply_change(Change::Route(prefix, None));
    installer.apply_change(Change::Neighbor(key, None));
    assert!(installer.routes().is_empty() && installer.neighbors().is_empty());
}

/// S3-12, S3-16: each visitor gets the routes of its home network and home agent, and
/// its home network goes by the tunnel. A changed configuration changes the visitors
/// that are there, and leaves no old route.
#[test]
fn visitors_get_the_source_routes_that_are_theirs() {
    let mut installer = installer(4);
    let prefix = |a, b, len| Prefix::new(Ipv4Addr::new(a, b, 0, 0), len).unwrap();
    let route = |home_agent, home_prefix, destination, via, cost| SourceRoute {
        home_agent,
        home_prefix,
        destination,
        via,
        cost,
    };
    let home_agent = Ipv4Addr::new(10, 0, 1, 2);
    let local = Via::Local { napt: Some(3) };
    let mut config = agents();
    config.foreign_agents[0].napt = Some(3);
    config.foreign_agents[0].source_routes = vec![
        route(None, Some(prefix(10, 1, 16)), prefix(10, 0, 8), local, 10),
        route(None, None, prefix(192, 0, 16), local, 20),
        route(None, None, prefix(192, 0, 16), local, 10),
        route(None, None, prefix(192, 0, 16), Via::Tunnel, 30),
        route(Some(Ipv4Addr::LOCALHOST), None, prefix(172, 0, 8), Via::Tunnel, 1),
    ];
    installer.configure(&config);
    let visitor = |last, home| VisitorState {
        tenant: TenantId(4),
        home_address: Ipv4Addr::new(10, home, 0, last),
        mac: MacAddress([2, 0, 0, 0, 0, last]),
        port: PortId(1),
        home_agent,
        care_of_address: Ipv4Addr::new(10, 0, 1, 2),
        encapsulation: IpInIp,
        reverse_tunnel: homeport_proto::ReverseTunnel::Direct,
        overlapping: true,
        set_df: false,
        clamp_mss: false,
    };
    let entry = |installer: &Installer, state: VisitorState| {
        let VisitorState { tenant, home_address, home_agent, .. } = state;
        let key = VisitorKey { tenant, home_address, home_agent };
        *installer.visiting.visitors.writer.get(&key).unwrap()
    };
    for visitor in [visitor(10, 1), visitor(11, 1), visitor(12, 2)] {
        installer.apply(&Action::InstallVisitor(visitor));
        assert_eq!(entry(&installer, visitor).napt, Some(3));
    }
    let list = entry(&installer, visitor(10, 1)).routes.unwrap();
    assert_eq!(entry(&installer, visitor(11, 1)).routes, Some(list), "shared");
    let routes = |installer: &Installer, list, prefix: Prefix| {
        let writer = &installer.visiting.source_routes.writer;
        writer.get(list, prefix.address(), prefix.prefix_len()).copied()
    };
    let local = |cost| Some(LocalWay { cost, napt: Some(3) });
    let expected = |tunnel, local| Some(SourceRouteEntry { tunnel, local });
    assert_eq!(routes(&installer, list, prefix(10, 1, 16)), expected(Some(0), None));
    assert_eq!(routes(&installer, list, prefix(10, 0, 8)), expected(None, local(10)));
    assert_eq!(routes(&installer, list, prefix(192, 0, 16)), expected(Some(30), local(10)));
    assert_eq!(routes(&installer, list, prefix(172, 0, 8)), None);
    let other = entry(&installer, visitor(12, 2)).routes.unwrap();
    assert_eq!(routes(&installer, other, prefix(10, 0, 8)), None);

    config.foreign_agents[0].source_routes.truncate(1);
    installer.configure(&config);
    let changed = entry(&installer, visitor(10, 1)).routes.unwrap();
    assert_eq!(routes(&installer, changed, prefix(192, 0, 16)), None);
    assert_eq!(installer.visiting.source_routes.writer.len(), 2);
    assert_eq!(entry(&installer, visitor(12, 2)).routes, None);
    installer.configure(&AgentConfig::default());
    assert!(installer.visiting.source_routes.writer.is_empty());
}
