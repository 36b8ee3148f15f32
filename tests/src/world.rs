//! A world on a virtual clock: the real agents and the real dataplane workers on
//! memory ports, a mobile node, a correspondent, and links between them that may
//! lose, repeat, swap and damage frames by a seed.
//!
//! ```text
//!  correspondent ─┐
//!       home agent ┼─ core        home agent      ── home link
//! foreign agent 1 ┤              foreign agent n ── visited link n
//! foreign agent 2 ┤              router          ── visited link 3 (no agent)
//!           router ┘
//! ```
//!
//! The mobile node is on one of the last four links at a time. Nothing here reads
//! a clock: a minute passes in milliseconds, and a seed repeats a run.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_control::kernel::Change;
use homeport_dataplane::port::mem::{FaultInjector, Faults, QUEUE_FRAMES};
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_proto::config::{
    AdvertiserConfig, AgentConfig, ForeignAgentConfig, HomeAgentConfig, HomeNetwork, Prefix,
    Profile,
};
use homeport_proto::security::{
    Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, SecurityAssociations, Spi,
};
use homeport_proto::{Instant, Lifetime, MacAddress, Now, NtpTime, PortId, TenantId};

use crate::boxes::{AgentBox, BoxPort, BoxSetup, small_dataplane};
use crate::host::{Correspondent, Identity, NodeHost};

/// The node's home address.
pub const HOME_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
/// The home agent.
pub const HOME_AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The correspondent.
pub const CORRESPONDENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
/// The co-located address on visited link 3.
pub const CO_LOCATED: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 50);

/// The core network's segment; then the home link and visited links 1, 2 and 3.
pub const CORE: usize = 0;
/// The home link.
pub const HOME: usize = 1;
/// Foreign agent 1's visited link.
pub const VISITED_1: usize = 2;
/// Foreign agent 2's visited link.
pub const VISITED_2: usize = 3;
/// The visited link without an agent.
pub const VISITED_3: usize = 4;

/// The boxes in the order of their core addresses 10.0.0.2 to 10.0.0.5.
pub const BOXES: usize = 4;

const TENANT: TenantId = TenantId(0);
const CORE_PORT: PortId = PortId(0);
const ACCESS_PORT: PortId = PortId(1);

/// How long a frame takes over a link.
const DELAY: Duration = Duration::from_micros(300);

/// A box's link-layer address on a port.
pub const fn box_mac(index: usize, port: u8) -> MacAddress {
    MacAddress([2, 0, 0, 1, index as u8, port])
}

/// The mobile node's link-layer address.
pub const NODE_MAC: MacAddress = MacAddress([2, 0, 0, 2, 0, 1]);
/// The correspondent's link-layer address.
pub const CORRESPONDENT_MAC: MacAddress = MacAddress([2, 0, 0, 3, 0, 1]);

/// The association between node and home agent.
pub fn node_association(replay: ReplayProtection) -> MobilitySecurityAssociation {
    association(256, Algorithm::HmacMd5, b"mobile node and home agent", replay)
}

/// A security association without surprises.
pub fn association(
    spi: u32,
    algorithm: Algorithm,
    key: &[u8],
    replay: ReplayProtection,
) -> MobilitySecurityAssociation {
    MobilitySecurityAssociation { spi: Spi(spi), algorithm, key: Key::new(key.to_vec()), replay }
}

/// Who is on a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Member {
    Box(usize, usize),
    Node,
    Correspondent,
}

/// How a world shall be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Draws every chance.
    pub seed: u64,
    /// Faults of every link.
    pub faults: Faults,
    /// The node's replay protection.
    pub replay: ReplayProtection,
    /// How the node wants its packets carried.
    pub reverse_tunnel: homeport_proto::ReverseTunnel,
    /// The lifetime that the node asks for.
    pub lifetime: Lifetime,
    /// Whether the home network has no link.
    pub virtual_home: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            seed: 1,
            faults: Faults::default(),
            replay: ReplayProtection::default(),
            reverse_tunnel: homeport_proto::ReverseTunnel::Direct,
            lifetime: Lifetime(60),
            virtual_home: false,
        }
    }
}

/// The world.
pub struct World {
    /// Home agent, foreign agents 1 and 2, router.
    pub boxes: Vec<AgentBox>,
    /// The mobile node.
    pub node: NodeHost,
    /// The correspondent.
    pub correspondent: Correspondent,
    /// Every frame that any link carried: when, on which segment, what.
    pub carried: Vec<(Duration, usize, Vec<u8>)>,
    origin: std::time::Instant,
    elapsed: Duration,
    flying: BTreeMap<(Duration, u64), (usize, Member, Vec<u8>)>,
    flown: u64,
    /// One for each sender on each segment.
    faults: BTreeMap<(usize, Member), FaultInjector>,
    node_segment: Option<usize>,
    plan: Plan,
}

impl World {
    /// A world in which the node is on no link yet.
    pub fn new(plan: Plan) -> Self {
        let boxes = (0..BOXES).map(|index| new_box(index, &plan, now_at(Duration::ZERO))).collect();
        World {
            boxes,
            node: NodeHost::new(&plan, Identity::default()),
            correspondent: Correspondent::default(),
            carried: Vec::new(),
            origin: std::time::Instant::now(),
            elapsed: Duration::ZERO,
            flying: BTreeMap::new(),
            flown: 0,
            faults: BTreeMap::new(),
            node_segment: None,
            plan,
        }
    }

    /// What time it is.
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        now_at(self.elapsed)
    }

    /// Changes the faults of every link from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.plan.faults = faults;
        self.faults.values_mut().for_each(|injector| injector.set_faults(faults));
    }

    /// Takes the node off its link and puts it on `segment`.
    pub fn move_node(&mut self, segment: usize) {
        self.node.handle_link(false, self.now());
        self.node_segment = Some(segment);
        self.node.segment = segment;
        self.node.handle_link(true, self.now());
    }

    /// Starts a box's control core anew, as after a crash: the dataplane's tables
    /// go with it.
    pub fn restart(&mut self, index: usize) {
        self.boxes[index] = new_box(index, &self.plan, self.now());
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.elapsed + duration;
        loop {
            self.settle();
            let next = self.next_event().filter(|at| *at <= end);
            self.elapsed = next.unwrap_or(end).max(self.elapsed);
            if next.is_none() {
                return;
            }
            self.deliver();
        }
    }

    /// Puts a frame on a segment as if a station there had sent it.
    pub fn inject_frame(&mut self, segment: usize, frame: &[u8]) {
        self.fly(segment, Member::Correspondent, frame.to_vec());
    }

    /// Checks in every box that each packet got exactly one verdict.
    pub fn assert_conserved(&self) {
        self.boxes.iter().for_each(AgentBox::assert_conserved);
    }

    fn next_event(&self) -> Option<Duration> {
        let timers = self.boxes.iter().filter_map(|one| one.agent.poll_timeout());
        let timers =
            timers.chain(self.node.machine.poll_timeout()).map(|at| Duration::from_nanos(at.0));
        let apps = [self.node.send_at, self.node.lease_at, self.correspondent.send_at];
        let flying = self.flying.keys().next().map(|(at, _)| *at);
        timers.chain(apps.into_iter().flatten()).chain(flying).min().map(|at| at.max(self.elapsed))
    }

    /// Does everything that is due now, until nothing is.
    fn settle(&mut self) {
        let now = self.now();
        loop {
            let mut frames = Vec::new();
            for (index, one) in self.boxes.iter_mut().enumerate() {
                one.run(now, self.origin + self.elapsed);
                for (port, link) in one.links().iter().enumerate() {
                    let segment = if port == 0 { CORE } else { index + 1 };
                    let sent = link.take_all();
                    frames.extend(
                        sent.into_iter().map(|frame| (segment, Member::Box(index, port), frame)),
                    );
                }
            }
            self.node.run(now);
            if let Some(segment) = self.node_segment {
                frames
                    .extend(self.node.outbox.drain(..).map(|frame| (segment, Member::Node, frame)));
            }
            self.correspondent.run(self.elapsed);
            let sent = self.correspondent.outbox.drain(..);
            frames.extend(sent.map(|frame| (CORE, Member::Correspondent, frame)));
            if frames.is_empty() {
                return;
            }
            for (segment, from, frame) in frames {
                self.fly(segment, from, frame);
            }
        }
    }

    fn fly(&mut self, segment: usize, from: Member, frame: Vec<u8>) {
        self.carried.push((self.elapsed, segment, frame.clone()));
        let (flying, flown, at) = (&mut self.flying, &mut self.flown, self.elapsed + DELAY);
        let (faults, seed) = (self.plan.faults, self.plan.seed + self.faults.len() as u64);
        let injector =
            self.faults.entry((segment, from)).or_insert_with(|| FaultInjector::new(faults, seed));
        injector.pass(frame, |frame| {
            *flown += 1;
            flying.insert((at, *flown), (segment, from, frame));
        });
    }

    /// Hands over the frames that have arrived.
    fn deliver(&mut self) {
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= self.elapsed
        {
            let (segment, from, frame) = entry.remove();
            for (index, one) in self.boxes.iter().enumerate() {
                for (port, link) in one.links().iter().enumerate() {
                    let here = if port == 0 { CORE } else { index + 1 };
                    if here == segment && from != Member::Box(index, port) {
                        link.push(&frame);
                    }
                }
            }
            let now = now_at(self.elapsed);
            if self.node_segment == Some(segment) && from != Member::Node {
                self.node.receive(&frame, now);
            }
            if segment == CORE && from != Member::Correspondent {
                self.correspondent.receive(&frame, self.elapsed);
            }
        }
    }
}

fn new_box(index: usize, plan: &Plan, now: Now) -> AgentBox {
    let setup = BoxSetup {
        ports: BoxPort::core_and_access(
            [box_mac(index, 0), box_mac(index, 1)],
            [core_address(index), access_address(index)],
        ),
        config: agent_config(index, plan),
        kernel: kernel_changes(index),
        seed: [plan.seed, index as u64],
        dataplane: small_dataplane(),
        queue_frames: QUEUE_FRAMES,
    };
    AgentBox::build(setup, now)
}

/// Both clocks, so long after a world began.
pub fn now_at(elapsed: Duration) -> Now {
    let unix = Duration::from_secs(1_800_000_000) + elapsed;
    Now {
        monotonic: Instant(u64::try_from(elapsed.as_nanos()).expect("years")),
        ntp: NtpTime::from_unix(unix),
    }
}

const fn core_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 2 + index as u8)
}

/// A box's address on its access link: 10.1.0.1, 10.2.1.1, 10.2.2.1, 10.3.0.1.
pub const fn access_address(index: usize) -> Ipv4Addr {
    match index {
        0 => Ipv4Addr::new(10, 1, 0, 1),
        3 => Ipv4Addr::new(10, 3, 0, 1),
        agent => Ipv4Addr::new(10, 2, agent as u8, 1),
    }
}

fn prefix_of(index: usize) -> Prefix {
    Prefix::new(access_address(index), 24).expect("24 bits")
}

/// What a kernel would tell a box: routes and neighbours.
fn kernel_changes(index: usize) -> Vec<Change> {
    let neighbor = |port, address, mac| {
        Change::Neighbor(NeighborKey { port, address }, Some(NeighborEntry { mac }))
    };
    let on_link =
        |prefix, port| Change::Route(prefix, Some(RouteEntry::Via { port, gateway: None }));
    let core = Prefix::new(core_address(0), 24).expect("24 bits");
    let mut changes = vec![
        on_link(core, CORE_PORT),
        on_link(prefix_of(index), ACCESS_PORT),
        neighbor(CORE_PORT, CORRESPONDENT, CORRESPONDENT_MAC),
    ];
    for other in (0..BOXES).filter(|other| *other != index) {
        let gateway = Some(core_address(other));
        changes.push(Change::Route(
            prefix_of(other),
            Some(RouteEntry::Via { port: CORE_PORT, gateway }),
        ));
        changes.push(neighbor(CORE_PORT, core_address(other), box_mac(other, 0)));
    }
    match index {
        0 => changes.push(neighbor(ACCESS_PORT, HOME_ADDRESS, NODE_MAC)),
        3 => changes.push(neighbor(ACCESS_PORT, CO_LOCATED, NODE_MAC)),
        _ => {}
    }
    changes
}

fn agent_config(index: usize, plan: &Plan) -> AgentConfig {
    let foreign_home = |agent: usize| {
        association(
            300 + agent as u32,
            Algorithm::HmacSha1,
            b"foreign agent and home agent",
            ReplayProtection::default(),
        )
    };
    let advertiser = AdvertiserConfig {
        tenant: TENANT,
        port: ACCESS_PORT,
        address: access_address(index),
        prefix_len: 24,
        home_agent: index == 0,
        care_of_addresses: if index == 0 { Vec::new() } else { vec![core_address(index)] },
        registration_required: false,
        encapsulations: homeport_proto::config::EncapsulationSet::ALL,
        udp_tunnel: false,
        revocation: false,
        reverse_tunnel: true,
        registration_lifetime: Lifetime(300),
        interval: Duration::from_secs(1),
        unsolicited: true,
    };
    let mut security = SecurityAssociations::default();
    match index {
        0 => {
            security.insert_mobile_node(HOME_ADDRESS, node_association(plan.replay));
            (1..=2)
                .for_each(|agent| security.insert_agent(core_address(agent), foreign_home(agent)));
            let home_agent = HomeAgentConfig {
                tenant: TENANT,
                address: HOME_AGENT,
                home_networks: vec![HomeNetwork {
                    prefix: prefix_of(0),
                    link: (!plan.virtual_home).then_some(ACCESS_PORT),
                }],
                profile: Profile::Rfc5944,
                max_lifetime: Lifetime(600),
                max_bindings: 32,
                max_simultaneous: 4,
                reverse_tunnel: true,
                require_reverse_tunnel: false,
                administratively_prohibited: false,
                security,
                require_foreign_home_authentication: false,
                tunnels: homeport_proto::config::TunnelPolicy::default(),
                nat: homeport_proto::config::NatPolicy::default(),
                mobile_networks: Vec::new(),
                message_strings: false,
                revocation: false,
                assignment: homeport_proto::config::HomeAgentAssignment::default(),
                sessions: homeport_proto::config::SessionPolicy::default(),
            };
            AgentConfig {
                home_agents: vec![home_agent],
                advertisers: vec![advertiser],
                ..AgentConfig::default()
            }
        }
        1 | 2 => {
            security.insert_agent(HOME_AGENT, foreign_home(index));
            let foreign_agent = ForeignAgentConfig {
                tenant: TENANT,
                care_of_address: core_address(index),
                links: vec![(ACCESS_PORT, access_address(index))],
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
                security,
            };
            AgentConfig {
                foreign_agents: vec![foreign_agent],
                advertisers: vec![advertiser],
                ..AgentConfig::default()
            }
        }
        _ => AgentConfig::default(),
    }
}
