//! A world of two home networks with the same private addresses, on a virtual clock:
//! two home agents, two foreign agents, and two nodes with one home address.
//!
//! ```text
//!  home agent A ─┬─ core ─┬─ foreign agent 1 ── visited link 1
//!  home agent B ─┘        └─ foreign agent 2 ── visited link 2
//! ```
//!
//! Behind each home agent is a host, again with one and the same address, that speaks
//! with its network's node. Every datagram has its network's number in its top byte.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_control::kernel::Change;
use homeport_dataplane::port::mem::QUEUE_FRAMES;
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_proto::config::{
    AdvertiserConfig, AgentConfig, EncapsulationSet, ForeignAgentConfig, HomeAgentConfig,
    HomeNetwork, NatPolicy, Prefix, Profile, TunnelPolicy, UdpTunnelling,
};
use homeport_proto::security::{ReplayProtection, SecurityAssociations};
use homeport_proto::{Lifetime, MacAddress, PortId, TenantId};
use homeport_wire::{EtherType, EthernetHeader, Ipv4Packet, UdpPacket};
use zerocopy::FromBytes;

use crate::boxes::{AgentBox, BoxPort, BoxSetup, small_dataplane};
use crate::frame;
use crate::host::{Identity, NodeHost};
use crate::world::{HOME_ADDRESS, Plan, box_mac, node_association, now_at};

/// The host of each home network.
pub const HOME_HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 50);
/// Its link-layer address.
pub const HOST_MAC: MacAddress = MacAddress([2, 0, 0, 3, 0, 9]);

/// The foreign agents' boxes, behind the home agents' 0 and 1.
pub const FOREIGN_AGENTS: [usize; 2] = [2, 3];

const BOXES: usize = 4;
const TENANT: TenantId = TenantId(0);
const CORE_PORT: PortId = PortId(0);
const ACCESS_PORT: PortId = PortId(1);
const APPLICATION: u16 = 5000;
const TICK: Duration = Duration::from_millis(1);

/// The link-layer address of a node.
pub const fn node_mac(network: usize) -> MacAddress {
    MacAddress([2, 0, 0, 2, 0, 0x10 + network as u8])
}

/// The number of a network's first datagram.
const fn first(network: usize) -> u64 {
    (network as u64 + 1) << 56
}

/// A node at its place, and the host at home that it speaks with.
pub struct Realm {
    /// The node.
    pub node: NodeHost,
    /// The foreign agent's box whose link it is on.
    pub at: Option<usize>,
    /// What its host at home got.
    pub at_home: Vec<u64>,
    sent: u64,
}

/// The world.
pub struct RealmWorld {
    /// Home agents A and B, foreign agents 1 and 2.
    pub boxes: Vec<AgentBox>,
    /// The home networks.
    pub realms: [Realm; 2],
    /// Every frame on an access link: the box, and the frame.
    pub on_links: Vec<(usize, Vec<u8>)>,
    origin: std::time::Instant,
    elapsed: Duration,
    /// What is on its way: the box whose link, or the core, and the frame.
    flying: VecDeque<(Option<usize>, Vec<u8>)>,
}

impl RealmWorld {
    /// A world in which no node is on a link yet.
    pub fn new(plan: &Plan) -> Self {
        let now = now_at(Duration::ZERO);
        let realm = |network: usize| {
            let identity = Identity {
                mac: node_mac(network),
                home_agent: core_address(network),
                correspondent: HOME_HOST,
                first: first(network),
                ..Identity::default()
            };
            let node = NodeHost::new(plan, identity);
            Realm { node, at: None, at_home: Vec::new(), sent: first(network) }
        };
        RealmWorld {
            boxes: (0..BOXES).map(|index| AgentBox::build(setup(index, plan), now)).collect(),
            realms: [realm(0), realm(1)],
            on_links: Vec::new(),
            origin: std::time::Instant::now(),
            elapsed: Duration::ZERO,
            flying: VecDeque::new(),
        }
    }

    /// Takes a node to the link of a foreign agent's box.
    pub fn move_node(&mut self, network: usize, to: usize) {
        let now = now_at(self.elapsed);
        let realm = &mut self.realms[network];
        realm.node.handle_link(false, now);
        realm.at = Some(to);
        realm.node.segment = to;
        realm.node.handle_link(true, now);
    }

    /// Lets time pass, a millisecond at a time; with `talk`, both sides of each
    /// network send a datagram in each.
    pub fn run_for(&mut self, duration: Duration, talk: bool) {
        for realm in &mut self.realms {
            realm.node.interval = talk.then_some(TICK);
        }
        let end = self.elapsed + duration;
        while self.elapsed < end {
            self.elapsed += TICK;
            if talk {
                self.hosts_speak();
            }
            self.settle();
        }
    }

    fn hosts_speak(&mut self) {
        for (network, realm) in self.realms.iter_mut().enumerate() {
            realm.sent += 1;
            let ends = ((HOME_HOST, APPLICATION), (HOME_ADDRESS, APPLICATION));
            let packet = frame::udp(ends.0, ends.1, 64, &realm.sent.to_be_bytes());
            let frame = frame::ethernet(box_mac(network, 1), HOST_MAC, &packet);
            self.flying.push_back((Some(network), frame));
        }
    }

    /// Does all that comes of what is on its way.
    fn settle(&mut self) {
        let now = now_at(self.elapsed);
        loop {
            for (index, one) in self.boxes.iter_mut().enumerate() {
                one.run(now, self.origin + self.elapsed);
                for (port, link) in one.links().iter().enumerate() {
                    let at = (port == 1).then_some(index);
                    self.flying.extend(link.take_all().into_iter().map(|frame| (at, frame)));
                }
            }
            for realm in &mut self.realms {
                realm.node.run(now);
                let at = realm.at;
                self.flying.extend(realm.node.outbox.drain(..).map(|frame| (at, frame)));
            }
            if self.flying.is_empty() {
                return;
            }
            while let Some((at, frame)) = self.flying.pop_front() {
                self.deliver(at, &frame);
            }
        }
    }

    fn deliver(&mut self, at: Option<usize>, frame: &[u8]) {
        let Ok((ethernet, packet)) = EthernetHeader::ref_from_prefix(frame) else { return };
        if let Some(index) = at {
            self.on_links.push((index, frame.to_vec()));
        }
        // A link carries a frame to all but who sent it.
        for (index, one) in self.boxes.iter().enumerate() {
            let port = usize::from(at.is_some());
            let is_here = at.is_none_or(|at| at == index);
            if is_here && ethernet.source != box_mac(index, port as u8) {
                one.links()[port].push(frame);
            }
        }
        let now = now_at(self.elapsed);
        for (network, realm) in self.realms.iter_mut().enumerate() {
            if at.is_some() && realm.at == at && ethernet.source != node_mac(network) {
                realm.node.receive(frame, now);
            }
            if at == Some(network) && ethernet.destination == HOST_MAC {
                realm.at_home.extend(number(ethernet, packet));
            }
        }
    }
}

/// The number of an application's datagram.
pub fn number(ethernet: &EthernetHeader, packet: &[u8]) -> Option<u64> {
    let packet = Some(packet).filter(|_| ethernet.ether_type() == EtherType::IPV4)?;
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    let (from, to) = (packet.header().source(), packet.header().destination());
    let udp = UdpPacket::new_checked(packet.payload(), from, to).ok()?;
    let is_ours = udp.header().destination_port() == APPLICATION;
    udp.payload().first_chunk().filter(|_| is_ours).map(|number| u64::from_be_bytes(*number))
}

/// The network that a datagram is of.
pub const fn network_of(number: u64) -> usize {
    (number >> 56) as usize - 1
}

const fn core_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 2 + index as u8)
}

/// Both home links have the same addresses.
fn access_address(index: usize) -> Ipv4Addr {
    match FOREIGN_AGENTS.contains(&index) {
        true => Ipv4Addr::new(10, 2, index as u8, 1),
        false => Ipv4Addr::new(10, 1, 0, 1),
    }
}

fn setup(index: usize, plan: &Plan) -> BoxSetup {
    let prefix = |address| Prefix::new(address, 24).expect("24 bits");
    let on_link =
        |prefix, port| Change::Route(prefix, Some(RouteEntry::Via { port, gateway: None }));
    let neighbor = |port, address, mac| {
        Change::Neighbor(NeighborKey { port, address }, Some(NeighborEntry { mac }))
    };
    let mut kernel = vec![
        on_link(prefix(core_address(0)), CORE_PORT),
        on_link(prefix(access_address(index)), ACCESS_PORT),
        neighbor(ACCESS_PORT, HOME_HOST, HOST_MAC),
    ];
    let others = (0..BOXES).filter(|other| *other != index);
    kernel.extend(others.map(|other| neighbor(CORE_PORT, core_address(other), box_mac(other, 0))));
    BoxSetup {
        ports: BoxPort::core_and_access(
            [box_mac(index, 0), box_mac(index, 1)],
            [core_address(index), access_address(index)],
        ),
        config: if FOREIGN_AGENTS.contains(&index) {
            foreign_agent(index)
        } else {
            home_agent(index, prefix(HOME_ADDRESS), plan.replay)
        },
        kernel,
        seed: [plan.seed, index as u64],
        dataplane: small_dataplane(),
        queue_frames: QUEUE_FRAMES,
    }
}

fn home_agent(index: usize, prefix: Prefix, replay: ReplayProtection) -> AgentConfig {
    let mut security = SecurityAssociations::default();
    security.insert_mobile_node(HOME_ADDRESS, node_association(replay));
    let agent = HomeAgentConfig {
        tenant: TENANT,
        address: core_address(index),
        home_networks: vec![HomeNetwork { prefix, link: Some(ACCESS_PORT) }],
        profile: Profile::Rfc5944,
        max_lifetime: Lifetime(600),
        max_bindings: 32,
        max_simultaneous: 1,
        reverse_tunnel: true,
        require_reverse_tunnel: false,
        administratively_prohibited: false,
        security,
        require_foreign_home_authentication: false,
        tunnels: TunnelPolicy::default(),
        nat: NatPolicy::default(),
        mobile_networks: Vec::new(),
        message_strings: false,
        revocation: false,
        assignment: homeport_proto::config::HomeAgentAssignment::default(),
        sessions: homeport_proto::config::SessionPolicy::default(),
    };
    AgentConfig { home_agents: vec![agent], ..AgentConfig::default() }
}

fn foreign_agent(index: usize) -> AgentConfig {
    let (address, care_of_address) = (access_address(index), core_address(index));
    let agent = ForeignAgentConfig {
        tenant: TENANT,
        care_of_address,
        links: vec![(ACCESS_PORT, address)],
        profile: Profile::Rfc5944,
        max_lifetime: Lifetime(300),
        max_visitors: 32,
        max_pending_per_node: 5,
        max_sessions_per_nai: 0,
        requests_per_minute_per_nai: 0,
        session_insertion: homeport_proto::config::SessionInsertion::default(),
        max_pending: 32,
        pending_timeout: Duration::from_secs(7),
        reverse_tunnel: true,
        require_reverse_tunnel: false,
        encapsulating_delivery: true,
        require_mobile_foreign_authentication: false,
        administratively_prohibited: false,
        overlapping_addresses: true,
        napt: None,
        source_routes: Vec::new(),
        security: SecurityAssociations::default(),
        tunnels: TunnelPolicy::default(),
        challenge: homeport_proto::config::ChallengePolicy::Off,
        challenge_window: 2,
        revocation: false,
        assigned_home_agent: None,
        udp_tunnel: UdpTunnelling::Off,
        gre_keys: true,
        message_strings: false,
    };
    let advertiser = AdvertiserConfig {
        tenant: TENANT,
        port: ACCESS_PORT,
        address,
        prefix_len: 24,
        home_agent: false,
        care_of_addresses: vec![care_of_address],
        registration_required: false,
        encapsulations: EncapsulationSet::ALL,
        udp_tunnel: false,
        revocation: false,
        reverse_tunnel: true,
        registration_lifetime: Lifetime(300),
        interval: Duration::from_secs(1),
        unsolicited: true,
    };
    AgentConfig {
        foreign_agents: vec![agent],
        advertisers: vec![advertiser],
        ..AgentConfig::default()
    }
}
