//! The run of a plan: `happenings` are what it does, `devices` what
//! comes and goes behind nodes, `peers` who speaks with them, `starts` who begins and ends,
//! `turns` what everybody makes of it.

mod devices;
mod happenings;
mod peers;
mod starts;
mod turns;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use homeport_proto::mobile_node::Phase;
use homeport_proto::{Lifetime, MacAddress, StoredSession, TenantId};

use super::clock::Clock;
use super::layout::{
    correspondent_address, correspondent_mac, home_address, own_port, segment_of, tag_of,
};
use super::network::Network;
use super::oracle::{Oracle, Rule, Violation};
use super::plan::{BEGIN, Event, FaultKind, NodePlan, Party, Plan};
use super::run::Telling;
use crate::boxes::AgentBox;
use crate::host::{Correspondent, NodeHost};
use crate::world::box_mac;

/// Turns at one moment that are too many.
const TOO_BUSY: u32 = 20_000;

/// A box at its place.
struct Site {
    /// `None`: it is down.
    one: Option<AgentBox>,
    clock: Clock,
    incarnation: u64,
    due: Option<Duration>,
    buffers: usize,
    events: usize,
    /// Its folder, if it has one: which address is whose, by home agent.
    folder: Option<BTreeMap<(TenantId, Ipv4Addr, Ipv4Addr), StoredSession>>,
    /// What its kernel knows of devices that are at home.
    neighbors: BTreeMap<Ipv4Addr, MacAddress>,
}

/// A node with its surroundings.
struct Mobile {
    plan: NodePlan,
    /// `None`: it is down.
    host: Option<NodeHost>,
    clock: Clock,
    segment: Option<usize>,
    lifetime: Lifetime,
    incarnation: u8,
    due: Option<Duration>,
    correspondent: Correspondent,
    events: usize,
    /// The devices that are there, each with the last address that it had.
    devices: BTreeMap<usize, Option<Ipv4Addr>>,
}

/// What is over later.
#[derive(Clone, Copy, Debug)]
enum Later {
    EndFault(usize, FaultKind),
    EndCut(Party, Party),
    BoxBack(usize),
    NodeBack(usize),
}

/// A world.
pub struct World {
    plan: Plan,
    /// Where the plan goes on.
    next: usize,
    events: Vec<(usize, Event)>,
    origin: Instant,
    elapsed: Duration,
    busy: u32,
    sites: Vec<Site>,
    mobiles: BTreeMap<usize, Mobile>,
    /// The correspondents of devices.
    peers: BTreeMap<peers::Peer, Correspondent>,
    network: Network,
    later: BTreeMap<(Duration, usize), Later>,
    oracle: Oracle,
    /// Ports of boxes, by segment.
    ports: Vec<Vec<(usize, usize)>>,
    forged: u64,
    telling: Telling,
    /// What happened, in words.
    story: Vec<(Duration, String)>,
}

type Outcome = Result<(), Violation>;

impl World {
    /// The world of a plan, at its begin.
    pub fn new(plan: &Plan, telling: Telling) -> Self {
        let shape = &plan.shape;
        let mut ports = vec![Vec::new(); shape.segments()];
        for at in 0..shape.boxes() {
            let own = (0..shape.home_agents.len())
                .filter(|one| shape.home_agents[*one].at == at)
                .map(|one| own_port(shape, one));
            let is_foreign = at >= shape.home_boxes();
            for port in own.chain(is_foreign.then_some(1)).chain([0]) {
                ports[segment_of(shape, at, port)].push((at, port));
            }
        }
        let mut world = World {
            next: 0,
            events: plan.events().collect(),
            origin: Instant::now(),
            elapsed: BEGIN,
            busy: 0,
            sites: Vec::new(),
            mobiles: BTreeMap::new(),
            peers: peers::all(plan),
            network: Network::new(plan.seed, shape.segments()),
            later: BTreeMap::new(),
            oracle: Oracle::new(plan),
            ports,
            forged: 0,
            telling,
            story: Vec::new(),
            plan: plan.clone(),
        };
        for at in 0..shape.boxes() {
            let clock = Clock::default();
            world.sites.push(Site {
                one: None,
                clock,
                incarnation: 0,
                due: None,
                buffers: 0,
                events: 0,
                folder: shape.has_state.get(at).is_some_and(|has| *has).then(BTreeMap::new),
                neighbors: BTreeMap::new(),
            });
            world.start_box(at);
        }
        for node in plan.nodes() {
            let mobile = Mobile {
                plan: *node,
                host: None,
                clock: Clock::default(),
                segment: None,
                lifetime: node.lifetime,
                incarnation: 0,
                due: None,
                correspondent: Correspondent {
                    mac: correspondent_mac(node.node),
                    address: correspondent_address(shape, node),
                    next_hop: box_mac(
                        shape.home_agents[node.home_agent].at,
                        own_port(shape, node.home_agent) as u8,
                    ),
                    home_address: home_address(node.number),
                    interval: Some(shape.speak),
                    sent: tag_of(node),
                    ..Correspondent::default()
                },
                events: 0,
                devices: BTreeMap::new(),
            };
            world.mobiles.insert(node.node, mobile);
            world.start_node(node.node);
        }
        world
    }

    /// The virtual time since the world began.
    pub fn lasted(&self) -> Duration {
        self.elapsed - BEGIN
    }

    /// A digest of every frame that any link carried.
    pub fn digest(&self) -> u64 {
        self.network.digest()
    }

    /// How many frames links carried.
    pub const fn carried(&self) -> u64 {
        self.network.flown()
    }

    /// What happened, if it was to be told.
    pub fn story(&self) -> &[(Duration, String)] {
        &self.story
    }

    /// Lets time pass up to a moment.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn run_until(&mut self, end: Duration) -> Outcome {
        loop {
            let next = self.next_event().filter(|at| *at <= end);
            let Some(next) = next else {
                self.elapsed = self.elapsed.max(end);
                return Ok(());
            };
            if next > self.elapsed {
                self.elapsed = next;
                self.busy = 0;
            }
            self.busy += 1;
            if self.busy > TOO_BUSY {
                return self.broken(Rule::Busy, "somebody has always something to do".into());
            }
            self.happen()?;
            self.arrive()?;
            self.take_turns()?;
            let judged = self.oracle.judge_time(Clock::default().now(self.elapsed));
            self.lawful(judged)?;
        }
    }

    fn broken<T>(&self, rule: Rule, what: String) -> Result<T, Violation> {
        Err(Violation { at: self.elapsed, rule, what })
    }

    fn lawful(&self, judged: Result<(), (Rule, String)>) -> Outcome {
        judged.or_else(|(rule, what)| self.broken(rule, what))
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.telling > Telling::Nothing {
            self.story.push((self.elapsed, what()));
        }
    }

    fn next_event(&self) -> Option<Duration> {
        let planned = self.events.get(self.next).map(|(_, event)| BEGIN + event.at);
        let later = self.later.keys().next().map(|(at, _)| *at);
        let sites = self.sites.iter().filter_map(|site| site.due);
        let mobiles = self.mobiles.values().filter_map(|mobile| mobile.due);
        let others = [planned, later, self.network.next_arrival()].into_iter().flatten();
        let peers = self.peers.values().filter_map(|peer| peer.send_at);
        sites.chain(mobiles).chain(peers).chain(others).min().map(|at| at.max(self.elapsed))
    }

    /// Lets the time of the plan's faults pass.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn run_plan(&mut self) -> Outcome {
        self.run_until(BEGIN + self.plan.shape.quiet_at)
    }

    /// Now.
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The nodes that are on a link, and that their home agents can hear.
    pub fn present(&self) -> Vec<usize> {
        let can_be_heard = |mobile: &&Mobile| {
            let at = self.plan.shape.home_agents[mobile.plan.home_agent].at;
            let now = self.sites[at].clock.now(self.elapsed);
            mobile.segment.is_some() && !self.oracle.is_locked_out(&mobile.plan, now)
        };
        let present = self.mobiles.values().filter(can_be_heard);
        present.map(|mobile| mobile.plan.node).collect()
    }

    /// Whether a home agent binds a node that is at home: having started anew, it has
    /// accepted late what the node had sent before. That ends with its lifetime.
    pub fn is_misled(&self) -> bool {
        self.mobiles.values().any(|mobile| {
            let phase = mobile.host.as_ref().map(|host| host.machine.phase());
            phase == Some(Phase::AtHome) && self.oracle.is_bound(&mobile.plan)
        })
    }

    /// Forgets what came back from a node, and gives the number of the next datagram
    /// to it.
    pub fn listen(&mut self, node: usize) -> u64 {
        self.mobiles.get_mut(&node).map_or(0, |mobile| {
            mobile.correspondent.arrivals.clear();
            mobile.correspondent.sent + 1
        })
    }

    /// Whether everything to a node up to now, from this number on, came back.
    ///
    /// # Errors
    /// What came to the wrong one.
    pub fn answered(&self, node: usize, first: u64) -> Result<Vec<u64>, Violation> {
        let Some(mobile) = self.mobiles.get(&node) else { return Ok(Vec::new()) };
        let mut numbers = Vec::new();
        for (_, number) in &mobile.correspondent.arrivals {
            self.lawful(self.oracle.judge_arrival(&mobile.plan, *number, false))?;
            numbers.push(number & !super::layout::ECHO);
        }
        numbers.retain(|number| *number >= first);
        Ok(numbers)
    }

    /// Lets a node's correspondent say no more, and gives the number of its last
    /// datagram.
    pub fn hush(&mut self, node: usize) -> u64 {
        self.mobiles.get_mut(&node).map_or(0, |mobile| {
            mobile.correspondent.interval = None;
            mobile.correspondent.sent
        })
    }

    /// What a node is doing, in words.
    pub fn describe(&self, node: usize) -> String {
        let Some(mobile) = self.mobiles.get(&node) else { return String::new() };
        let home: Ipv4Addr = home_address(mobile.plan.number);
        let state =
            mobile.host.as_ref().map(|host| (host.machine.phase(), *host.machine.attachment()));
        format!("{:?} ({home}), {state:?}, segment {:?}", mobile.plan, mobile.segment)
    }
}
