//! Where everything is, and how it is configured.
//!
//! ```text
//!  home agents 0, 1 (tenants 1, 2) ─┐
//!               home agent 2 (1) ───┼─ core ─┬─ foreign agent 0 ── visited link
//!                        …         ─┘        ├─ …
//!                                            └─ nodes with an address of their own
//! ```
//!
//! All home networks are 10.1.0.0/24, and their nodes are numbered alike. Behind each
//! home agent is a link with a correspondent for each of its nodes: the home link, or
//! another one of the tenant.

use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_control::kernel::Change;
use homeport_dataplane::config::RegistrationLimits;
use homeport_dataplane::launch::DataplaneConfig;
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_proto::config::{
    AddressPool, AddressRange, AdvertiserConfig, AgentConfig, ChallengePolicy, EncapsulationSet,
    ForeignAgentConfig, HomeAgentConfig, HomeNetwork, MobileNodeConfig, NatPolicy, Prefix, Profile,
    SessionPolicy, TunnelPolicy, UdpTunnelling,
};
use homeport_proto::security::{
    Algorithm, MobilitySecurityAssociation, ReplayProtection, SecurityAssociations,
};
use homeport_proto::{Lifetime, MacAddress, PortId, TenantId};

use super::plan::{NodePlan, Plan, Shape};
use crate::boxes::{BoxPort, BoxSetup};
use crate::host::{CoLocatedPlace, Identity};
use crate::world::{association, box_mac};

/// The core network's segment.
pub const CORE: usize = 0;
/// A stranger on the core.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 66);
/// The stranger's station.
pub const STRANGER_MAC: MacAddress = MacAddress([2, 0, 0, 0x66, 0x66, 0x66]);
/// Visitors that a foreign agent takes.
pub const MAX_VISITORS: usize = 16;

const UNDERLAY: TenantId = TenantId(0);
const CORE_PORT: PortId = PortId(0);
const ACCESS_PORT: PortId = PortId(1);

/// The addresses that each home agent has for devices: fewer than there may be of them.
pub const POOL: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 1, 0, 200), Ipv4Addr::new(10, 1, 0, 203));
/// How many they are.
const POOL_SIZE: usize = 4;
/// The number at home of the first, as if it were a node's own.
pub const FIRST_POOLED: usize = 190;
/// How long an address stays a session's when its binding has ended.
pub const STICKY: Duration = Duration::from_secs(25);
/// How long an address that was given back is given to nobody else.
pub const HOLD_DOWN: Duration = Duration::from_secs(15);

/// The NAI of a node with devices.
pub fn nai(node: &NodePlan) -> Vec<u8> {
    format!("n{}@ha{}.example", node.number, node.home_agent).into_bytes()
}

/// The name of a device's session. Each is the name of a device of every node.
pub fn sub_nai(device: usize) -> Vec<u8> {
    vec![0xff, device as u8, b'\n']
}

/// A home agent's address.
pub const fn home_agent_address(home_agent: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 10 + home_agent as u8)
}

/// A foreign agent's care-of address.
pub const fn care_of_address(foreign_agent: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 40 + foreign_agent as u8)
}

/// A foreign agent's address on its link.
pub const fn link_address(foreign_agent: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, foreign_agent as u8, 1)
}

/// The home address of a home agent's node.
pub const fn home_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, 10 + number as u8)
}

/// The care-of address that a node itself has on the core.
pub const fn co_located_address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 100 + node as u8)
}

/// A node's station. No two are a flipped bit apart.
pub const fn node_mac(node: usize) -> MacAddress {
    let code = 0x11 + 0x11 * node as u8;
    MacAddress([2, 0, 0x20, code, code, code])
}

/// The station of a node's correspondent.
pub const fn correspondent_mac(node: usize) -> MacAddress {
    let code = 0x11 + 0x11 * node as u8;
    MacAddress([2, 0, 0x3f, code, code, code])
}

/// The numbers at home of all addresses for devices.
pub const fn pooled() -> std::ops::Range<usize> {
    FIRST_POOLED..FIRST_POOLED + POOL_SIZE
}

/// The station of the correspondent of a device's address.
pub const fn peer_mac(home_agent: usize, number: usize) -> MacAddress {
    MacAddress([2, 0, PEER, home_agent as u8, number as u8, 0x45])
}

/// What the stations of correspondents of devices' addresses have in common.
pub const PEER: u8 = 0x45;

/// The address of the correspondent of a device's address.
pub fn peer_address(shape: &Shape, home_agent: usize, number: usize) -> Ipv4Addr {
    let [a, b, c, _] = own_link_address(shape, home_agent).octets();
    Ipv4Addr::new(a, b, c, (number - 40) as u8)
}

/// A home agent's address on its own link.
pub fn own_link_address(shape: &Shape, home_agent: usize) -> Ipv4Addr {
    match shape.home_agents[home_agent].home_link {
        true => Ipv4Addr::new(10, 1, 0, 1),
        false => Ipv4Addr::new(172, 16, home_agent as u8, 1),
    }
}

/// The address of a node's correspondent.
pub fn correspondent_address(shape: &Shape, node: &NodePlan) -> Ipv4Addr {
    let [a, b, c, _] = own_link_address(shape, node.home_agent).octets();
    Ipv4Addr::new(a, b, c, 100 + node.number as u8)
}

/// The port of its box that a home agent's own link is on.
pub fn own_port(shape: &Shape, home_agent: usize) -> usize {
    let at = shape.home_agents[home_agent].at;
    1 + shape.home_agents.iter().take(home_agent).filter(|one| one.at == at).count()
}

/// The home agent whose own link a port of a box is on; `None`: another port.
pub fn home_agent_at(shape: &Shape, at: usize, port: usize) -> Option<usize> {
    (0..shape.home_agents.len())
        .find(|one| shape.home_agents[*one].at == at && own_port(shape, *one) == port)
}

/// The segment that a port of a box is on.
pub fn segment_of(shape: &Shape, at: usize, port: usize) -> usize {
    match (at.checked_sub(shape.home_boxes()), port) {
        (_, 0) => CORE,
        (Some(foreign_agent), _) => shape.visited_segment(foreign_agent),
        (None, _) => home_agent_at(shape, at, port).map_or(CORE, |one| shape.home_segment(one)),
    }
}

/// The tag of a node's datagrams.
pub const fn tag_of(node: &NodePlan) -> u64 {
    tag_at(node.home_agent, node.number)
}

/// The tag of the datagrams of a node or of a device's address: home agent and number at
/// home, from one on.
pub const fn tag_at(home_agent: usize, number: usize) -> u64 {
    (home_agent as u64 + 1) << 56 | (number as u64 + 1) << 48
}

/// What a node sends a datagram's number back as.
pub const fn echoed(number: u64) -> u64 {
    number | ECHO
}

/// Set in what comes from a node.
pub const ECHO: u64 = 1 << 40;
/// Set in what a stranger made.
pub const FORGED: u64 = 1 << 41;

fn node_association(node: &NodePlan) -> MobilitySecurityAssociation {
    let key = format!("node {} of home agent {}", node.number, node.home_agent);
    association(256, Algorithm::HmacMd5, key.as_bytes(), node.replay)
}

fn foreign_home(foreign_agent: usize, home_agent: usize) -> MobilitySecurityAssociation {
    let key = format!("foreign agent {foreign_agent} and home agent {home_agent}");
    association(300, Algorithm::HmacSha1, key.as_bytes(), ReplayProtection::default())
}

/// What a node shares with a foreign agent that challenges. One without a NAI is known by
/// its home address, which others have elsewhere: all of these share one key.
fn mobile_foreign(foreign_agent: usize, node: &NodePlan) -> MobilitySecurityAssociation {
    let who = match node.devices {
        0 => format!("number {}", node.number),
        _ => format!("node {}", node.node),
    };
    let key = format!("foreign agent {foreign_agent} and {who}");
    association(400, Algorithm::HmacMd5, key.as_bytes(), ReplayProtection::default())
}

/// The foreign agents that challenge.
fn challengers(shape: &Shape) -> impl Iterator<Item = usize> {
    (0..shape.foreign_agents).filter(|one| shape.has_challenges[*one])
}

/// Who a node is.
pub fn identity(shape: &Shape, node: &NodePlan) -> Identity {
    Identity {
        mac: node_mac(node.node),
        home_address: home_address(node.number),
        home_agent: home_agent_address(node.home_agent),
        co_located: CoLocatedPlace {
            segment: CORE,
            address: co_located_address(node.node),
            gateway: None,
            next_hop: box_mac(shape.home_agents[node.home_agent].at, 0),
        },
        correspondent: correspondent_address(shape, node),
        first: tag_of(node) | ECHO,
    }
}

/// What a node is told about itself.
pub fn node_config(shape: &Shape, node: &NodePlan, lifetime: Lifetime) -> MobileNodeConfig {
    let mut security = SecurityAssociations::default();
    security.insert_agent(home_agent_address(node.home_agent), node_association(node));
    for one in challengers(shape) {
        security.insert_agent(link_address(one), mobile_foreign(one, node));
    }
    let named = challengers(shape).filter(|_| node.devices > 0);
    MobileNodeConfig {
        nai: (node.devices > 0).then(|| nai(node)),
        session_carriage: homeport_proto::message::SessionCarriage::Separate,
        agents_by_nai: named.map(link_address).collect(),
        home_address: home_address(node.number),
        home_prefix: prefix(home_address(node.number)),
        home_agent: home_agent_address(node.home_agent),
        lifetime,
        reverse_tunnel: node.reverse_tunnel,
        co_located: true,
        agent_wait: Duration::from_millis(50),
        encapsulation: node.encapsulation,
        nat_traversal: false,
        dynamic_home_agent: None,
        security,
    }
}

fn prefix(address: Ipv4Addr) -> Prefix {
    Prefix::new(address, 24).expect("24 bits")
}

fn on_link(address: Ipv4Addr, port: PortId) -> Change {
    Change::Route(prefix(address), Some(RouteEntry::Via { port, gateway: None }))
}

fn neighbor(port: PortId, address: Ipv4Addr, mac: MacAddress) -> Change {
    Change::Neighbor(NeighborKey { port, address }, Some(NeighborEntry { mac }))
}

/// What the kernel of a home agent's box learns when a device's address answers on the
/// home link.
pub fn answers_at_home(shape: &Shape, home_agent: usize, at: (Ipv4Addr, MacAddress)) -> Change {
    neighbor(PortId(own_port(shape, home_agent) as u16), at.0, at.1)
}

/// A box, for the so-manyth time.
pub fn setup(plan: &Plan, at: usize, incarnation: u64) -> BoxSetup {
    let shape = &plan.shape;
    let mut setup = match at.checked_sub(shape.home_boxes()) {
        None => home_box(plan, at),
        Some(foreign_agent) => foreign_box(plan, foreign_agent),
    };
    setup.kernel.extend(core_neighbors(plan, at));
    setup.seed = [plan.seed, (incarnation << 8) + at as u64];
    setup
}

fn core_neighbors(plan: &Plan, at: usize) -> Vec<Change> {
    let shape = &plan.shape;
    let home_agents = (0..shape.home_agents.len())
        .map(|one| (shape.home_agents[one].at, home_agent_address(one)));
    let foreign_agents =
        (0..shape.foreign_agents).map(|one| (shape.home_boxes() + one, care_of_address(one)));
    let others = home_agents.chain(foreign_agents).filter(|(of, _)| *of != at);
    let boxes = others.map(|(of, address)| neighbor(CORE_PORT, address, box_mac(of, 0)));
    let nodes = plan
        .nodes()
        .map(|node| neighbor(CORE_PORT, co_located_address(node.node), node_mac(node.node)));
    let stranger = neighbor(CORE_PORT, STRANGER, STRANGER_MAC);
    boxes.chain(nodes).chain([on_link(STRANGER, CORE_PORT), stranger]).collect()
}

fn unnumbered(ports: Vec<BoxPort>, config: AgentConfig, kernel: Vec<Change>) -> BoxSetup {
    BoxSetup {
        ports,
        config,
        kernel,
        seed: [0; 2],
        dataplane: DataplaneConfig {
            bindings: 32,
            visitors: 32,
            locals: 32,
            routes: 32,
            source_routes: 8,
            neighbors: 64,
            buffers: 512,
            punt_ring: 1 << 13,
            registration_ring: 1 << 12,
            inject_ring: 1 << 16,
            handover_ring: 1 << 12,
            registrations: RegistrationLimits {
                per_prefix: 60,
                per_known_prefix: 120,
                moves_first: 60,
            },
            ..DataplaneConfig::default()
        },
        queue_frames: 96,
    }
}

fn home_box(plan: &Plan, at: usize) -> BoxSetup {
    let shape = &plan.shape;
    let mut config = AgentConfig::default();
    let mut kernel = Vec::new();
    let mut ports = Vec::new();
    for (number, place) in shape.home_agents.iter().enumerate().filter(|(_, one)| one.at == at) {
        let tenant = TenantId(place.tenant);
        let port_number = own_port(shape, number);
        let port = PortId(port_number as u16);
        let address = own_link_address(shape, number);
        if ports.is_empty() {
            let (name, mac) = ("core", box_mac(at, 0));
            ports.push(BoxPort {
                name,
                tenant: UNDERLAY,
                mac,
                address: home_agent_address(number),
            });
        }
        let mac = box_mac(at, port_number as u8);
        ports.push(BoxPort { name: "own", tenant, mac, address });
        kernel.push(on_link(address, port));
        let mut security = SecurityAssociations::default();
        for agent in 0..shape.foreign_agents {
            security.insert_agent(care_of_address(agent), foreign_home(agent, number));
        }
        for node in plan.nodes().filter(|node| node.home_agent == number) {
            let home = home_address(node.number);
            if node.devices > 0 {
                let association = node_association(node);
                security
                    .insert_nai(&nai(node), Some(home), association, Lifetime::INFINITE)
                    .expect("a NAI");
            } else {
                security.insert_mobile_node(home, node_association(node));
            }
            let correspondent = correspondent_address(shape, node);
            kernel.push(neighbor(port, correspondent, correspondent_mac(node.node)));
            if place.home_link {
                kernel.push(neighbor(port, home, node_mac(node.node)));
            }
        }
        let nodes = || plan.nodes().filter(|node| node.home_agent == number);
        let has_devices = nodes().any(|node| node.devices > 0);
        if has_devices {
            kernel.extend(pooled().map(|one| {
                neighbor(port, peer_address(shape, number, one), peer_mac(number, one))
            }));
        }
        let max_bindings = nodes().count() + if has_devices { POOL_SIZE } else { 0 };
        let link = place.home_link.then_some(port);
        config.home_agents.push(home_agent(number, tenant, link, security, max_bindings));
        if place.home_link {
            let home = AdvertiserConfig { tenant, port, address, ..advertiser(shape) };
            config.advertisers.push(AdvertiserConfig { home_agent: true, ..home });
        }
    }
    unnumbered(ports, config, kernel)
}

fn home_agent(
    number: usize,
    tenant: TenantId,
    link: Option<PortId>,
    security: SecurityAssociations,
    max_bindings: usize,
) -> HomeAgentConfig {
    HomeAgentConfig {
        tenant,
        address: home_agent_address(number),
        home_networks: vec![HomeNetwork { prefix: prefix(home_address(0)), link }],
        profile: Profile::Rfc5944,
        max_lifetime: Lifetime(600),
        max_bindings,
        max_simultaneous: if number.is_multiple_of(2) { 1 } else { 4 },
        reverse_tunnel: true,
        require_reverse_tunnel: false,
        administratively_prohibited: false,
        security,
        require_foreign_home_authentication: true,
        tunnels: TunnelPolicy::default(),
        nat: NatPolicy::default(),
        mobile_networks: Vec::new(),
        message_strings: false,
        revocation: false,
        assignment: homeport_proto::config::HomeAgentAssignment::default(),
        sessions: SessionPolicy {
            pools: vec![AddressPool {
                name: "devices".into(),
                realm: None,
                ranges: vec![AddressRange { first: POOL.0, last: POOL.1 }],
                exclusions: Vec::new(),
            }],
            sticky: STICKY,
            hold_down: HOLD_DOWN,
            ..SessionPolicy::default()
        },
    }
}

fn foreign_box(plan: &Plan, number: usize) -> BoxSetup {
    let shape = &plan.shape;
    let at = shape.home_boxes() + number;
    let (core, address) = (care_of_address(number), link_address(number));
    let mut security = SecurityAssociations::default();
    for one in 0..shape.home_agents.len() {
        security.insert_agent(home_agent_address(one), foreign_home(number, one));
    }
    for node in plan.nodes().filter(|_| shape.has_challenges[number]) {
        let association = mobile_foreign(number, node);
        if node.devices > 0 {
            let forever = Lifetime::INFINITE;
            security.insert_nai(&nai(node), None, association, forever).expect("a NAI");
        } else {
            security.insert_mobile_node(home_address(node.number), association);
        }
    }
    let (max_pending, max_pending_per_node) = shape.max_pending;
    let agent = ForeignAgentConfig {
        tenant: UNDERLAY,
        care_of_address: core,
        links: vec![(ACCESS_PORT, address)],
        profile: Profile::Rfc5944,
        max_lifetime: Lifetime(300),
        max_visitors: MAX_VISITORS,
        max_pending_per_node,
        max_sessions_per_nai: 0,
        requests_per_minute_per_nai: 0,
        session_insertion: homeport_proto::config::SessionInsertion::default(),
        max_pending,
        pending_timeout: Duration::from_secs(7),
        reverse_tunnel: true,
        require_reverse_tunnel: false,
        encapsulating_delivery: true,
        require_mobile_foreign_authentication: false,
        administratively_prohibited: false,
        overlapping_addresses: true,
        napt: None,
        source_routes: Vec::new(),
        security,
        tunnels: TunnelPolicy::default(),
        udp_tunnel: UdpTunnelling::Off,
        gre_keys: true,
        message_strings: false,
        challenge: match shape.has_challenges[number] {
            true => ChallengePolicy::Required,
            false => ChallengePolicy::Off,
        },
        challenge_window: 2,
        assigned_home_agent: None,
        revocation: false,
    };
    let care_of_addresses = vec![core];
    let config = AgentConfig {
        foreign_agents: vec![agent],
        advertisers: vec![AdvertiserConfig { address, care_of_addresses, ..advertiser(shape) }],
        ..AgentConfig::default()
    };
    let macs = [box_mac(at, 0), box_mac(at, 1)];
    let ports = BoxPort::core_and_access(macs, [core, address]);
    unnumbered(ports, config, vec![on_link(address, ACCESS_PORT)])
}

fn advertiser(shape: &Shape) -> AdvertiserConfig {
    AdvertiserConfig {
        tenant: UNDERLAY,
        port: ACCESS_PORT,
        address: Ipv4Addr::UNSPECIFIED,
        prefix_len: 24,
        home_agent: false,
        care_of_addresses: Vec::new(),
        registration_required: false,
        encapsulations: EncapsulationSet::ALL,
        udp_tunnel: false,
        reverse_tunnel: true,
        registration_lifetime: Lifetime(300),
        interval: shape.interval,
        unsolicited: true,
        revocation: false,
    }
}
