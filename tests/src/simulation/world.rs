//! The run of a plan.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use homeport_proto::event::Event as AgentEvent;
use homeport_proto::mobile_node::Phase;
use homeport_proto::{Lifetime, TenantId};
use homeport_wire::{EthernetHeader, MacAddress};
use zerocopy::FromBytes;

use super::attacks;
use super::clock::Clock;
use super::layout::{
    CORE, correspondent_address, correspondent_mac, echoed, home_address, home_agent_address,
    identity, node_config, node_mac, own_port, segment_of, setup, tag_of,
};
use super::network::{Flight, Member, Network};
use super::oracle::{Oracle, Rule, Violation};
use super::plan::{BEGIN, Event, FaultKind, NodePlan, Party, Place, Plan, What};
use super::run::Telling;
use crate::boxes::AgentBox;
use crate::host::{Correspondent, NodeHost};
use crate::world::box_mac;

/// Turns at one moment that are too many.
const TOO_BUSY: u32 = 20_000;

/// How much of what was seen is sent again at once.
const OLD: Duration = Duration::from_secs(2);

/// A box at its place.
struct Site {
    /// `None`: it is down.
    one: Option<AgentBox>,
    clock: Clock,
    incarnation: u64,
    due: Option<Duration>,
    buffers: usize,
    events: usize,
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
        sites.chain(mobiles).chain(others).min().map(|at| at.max(self.elapsed))
    }

    /// Whatever the plan has for now.
    fn happen(&mut self) -> Outcome {
        while let Some(entry) = self.later.first_entry().filter(|at| at.key().0 <= self.elapsed) {
            match entry.remove() {
                Later::EndFault(segment, kind) => self.network.set_fault(segment, kind, 0),
                Later::EndCut(from, to) => self.network.set_cut(from, to, false),
                Later::BoxBack(at) => self.start_box(at),
                Later::NodeBack(node) => self.start_node(node),
            }
        }
        while let Some((number, event)) = self
            .events
            .get(self.next)
            .copied()
            .filter(|(_, event)| BEGIN + event.at <= self.elapsed)
        {
            self.next += 1;
            self.tell(|| format!("#{number} {:?}", event.what));
            self.do_event(number, event.what);
        }
        Ok(())
    }

    fn do_event(&mut self, number: usize, what: What) {
        let elapsed = self.elapsed;
        let mut later = |lasts: Duration, what| {
            self.later.insert((elapsed + lasts, number), what);
        };
        match what {
            What::Move { node, place } => self.move_node(node, place),
            What::Fault { segment, kind, amount, lasts } => {
                later(lasts, Later::EndFault(segment, kind));
                self.network.set_fault(segment, kind, amount);
            }
            What::Cut { from, to, lasts } => {
                later(lasts, Later::EndCut(from, to));
                self.network.set_cut(from, to, true);
            }
            What::CrashBox { at, down } => {
                later(down, Later::BoxBack(at));
                let site = &mut self.sites[at];
                (site.one, site.due) = (None, None);
                self.oracle.stopped(at);
            }
            What::CrashNode { node, down, lifetime } => {
                let Some(mobile) = self.mobiles.get_mut(&node) else { return };
                (mobile.host, mobile.due, mobile.lifetime) = (None, None, lifetime);
                self.later.insert((elapsed + down, number), Later::NodeBack(node));
                self.wake_node(node);
            }
            What::Step { of, millis } => {
                if let Some(clock) = self.clock(of) {
                    clock.step(millis, elapsed);
                }
                if let Party::Box(at) = of {
                    self.oracle.stepped(at, millis);
                }
            }
            What::Drift { of, ppm } => {
                if let Some(clock) = self.clock(of) {
                    clock.drift(ppm, elapsed);
                }
            }
            What::Replay { back, count } => {
                for (segment, frame) in self.network.captured(back, count) {
                    self.network.send(elapsed, segment, Member::Stranger, frame);
                }
            }
            What::ReplayOld { age } => {
                let then = elapsed.saturating_sub(age);
                for (segment, frame) in self.network.captured_within(then, then + OLD) {
                    self.network.send(elapsed, segment, Member::Stranger, frame);
                }
            }
            What::ForgeRequest { node, made_up } => self.forge_request(node, made_up),
            What::ForgeTunnel { node, foreign_agent, kind } => {
                let Some(mobile) = self.mobiles.get(&node) else { return };
                self.forged += 1;
                let shape = &self.plan.shape;
                let frame =
                    attacks::tunnelled(shape, &mobile.plan, foreign_agent, kind, self.forged);
                self.network.send(elapsed, CORE, Member::Stranger, frame);
            }
            What::Flood { foreign_agent, count } => {
                let segment = self.plan.shape.visited_segment(foreign_agent);
                let now = Clock::default().now(elapsed);
                for one in 0..count {
                    let frame = attacks::unknown_request(&self.plan.shape, foreign_agent, one, now);
                    self.network.send(elapsed, segment, Member::Stranger, frame);
                }
            }
            What::Burst { node, count } => {
                let Some(mobile) = self.mobiles.get_mut(&node) else { return };
                for _ in 0..count {
                    mobile.correspondent.send_at = Some(elapsed);
                    mobile.correspondent.run(elapsed);
                }
                self.wake_node(node);
            }
            What::Stop { node } => {
                let Some(mobile) = self.mobiles.get_mut(&node) else { return };
                let now = mobile.clock.now(elapsed);
                if let Some(host) = &mut mobile.host {
                    host.machine.handle_stop(now);
                }
                self.wake_node(node);
            }
            What::Clear { node } => self.clear(node),
        }
    }

    fn clock(&mut self, of: Party) -> Option<&mut Clock> {
        match of {
            Party::Box(at) => self.sites.get_mut(at).map(|site| &mut site.clock),
            Party::Node(node) => self.mobiles.get_mut(&node).map(|mobile| &mut mobile.clock),
        }
    }

    fn clear(&mut self, node: usize) {
        let Some(mobile) = self.mobiles.get(&node) else { return };
        let (home_agent, home) = (mobile.plan.home_agent, home_address(mobile.plan.number));
        let place = self.plan.shape.home_agents[home_agent];
        let site = &mut self.sites[place.at];
        let now = site.clock.now(self.elapsed);
        let Some(one) = &mut site.one else { return };
        one.agent.clear_binding(TenantId(place.tenant), home, now);
        one.inputs += 1;
        self.oracle.cleared(home_agent, home);
        site.due = Some(self.elapsed);
    }

    fn forge_request(&mut self, node: usize, made_up: bool) {
        let Some(mobile) = self.mobiles.get(&node) else { return };
        let plan = mobile.plan;
        let frame = if made_up {
            let now = self.sites[self.plan.shape.home_agents[plan.home_agent].at].clock;
            let now = now.now(self.elapsed);
            Some(attacks::made_up_request(&self.plan.shape, &plan, now))
        } else {
            let to = home_agent_address(plan.home_agent);
            let genuine = self.network.last_captured(|frame| attacks::is_request_to(frame, to));
            genuine.and_then(attacks::diverted)
        };
        if let Some(frame) = frame {
            self.network.send(self.elapsed, CORE, Member::Stranger, frame);
        }
    }

    fn move_node(&mut self, node: usize, place: Place) {
        let shape = &self.plan.shape;
        let Some(mobile) = self.mobiles.get_mut(&node) else { return };
        mobile.segment = match place {
            Place::Home => Some(shape.home_segment(mobile.plan.home_agent)),
            Place::Visited(one) => Some(shape.visited_segment(one)),
            Place::CoLocated => Some(CORE),
            Place::Away => None,
        };
        let now = mobile.clock.now(self.elapsed);
        if let Some(host) = &mut mobile.host {
            host.handle_link(false, now);
            if let Some(segment) = mobile.segment {
                host.segment = segment;
                host.handle_link(true, now);
            }
        }
        self.wake_node(node);
    }

    fn start_box(&mut self, at: usize) {
        let site = &mut self.sites[at];
        if site.one.is_some() {
            return;
        }
        let now = site.clock.now(self.elapsed);
        let one = AgentBox::build(setup(&self.plan, at, site.incarnation), now);
        site.incarnation += 1;
        (site.buffers, site.events, site.due) = (one.free_buffers(), 0, Some(self.elapsed));
        site.one = Some(one);
        self.oracle.started(at, now);
        self.tell(|| format!("box {at} starts"));
    }

    fn start_node(&mut self, node: usize) {
        let Some(mobile) = self.mobiles.get_mut(&node) else { return };
        if mobile.host.is_some() {
            return;
        }
        mobile.incarnation += 1;
        let mut seed = [mobile.incarnation; 32];
        seed[..8].copy_from_slice(&self.plan.seed.to_be_bytes());
        seed[8] = node as u8;
        let config = node_config(&mobile.plan, mobile.lifetime);
        let who = identity(&self.plan.shape, &mobile.plan);
        let mut host = NodeHost::with_config(config, seed, who);
        host.echo = Some(echoed);
        if let Some(segment) = mobile.segment {
            host.segment = segment;
            host.handle_link(true, mobile.clock.now(self.elapsed));
        }
        mobile.events = 0;
        mobile.host = Some(host);
        self.wake_node(node);
        self.tell(|| format!("node {node} starts"));
    }

    fn wake_node(&mut self, node: usize) {
        if let Some(mobile) = self.mobiles.get_mut(&node) {
            mobile.due = Some(self.elapsed);
        }
    }

    /// Hands over the frames that have arrived.
    fn arrive(&mut self) -> Outcome {
        while let Some(flight) = self.network.arrive(self.elapsed) {
            let Ok((header, _)) = EthernetHeader::ref_from_prefix(&flight.frame) else { continue };
            let to = header.destination;
            for index in 0..self.ports[flight.segment].len() {
                let (at, port) = self.ports[flight.segment][index];
                let member = Member::Box(at, port);
                let heard = member != flight.from && self.network.reaches(flight.from, member);
                // A switch: who is not meant does not hear it, unless nobody is known.
                let is_meant = to.is_multicast() || to == box_mac(at, port as u8);
                let site = &mut self.sites[at];
                if let Some(one) = site.one.as_ref().filter(|_| heard && is_meant) {
                    one.links()[port].push(&flight.frame);
                    site.due = Some(self.elapsed);
                }
            }
            self.arrive_at_hosts(&flight, to)?;
        }
        Ok(())
    }

    fn arrive_at_hosts(&mut self, flight: &Flight, to: MacAddress) -> Outcome {
        let World { mobiles, network, elapsed, oracle, plan, .. } = self;
        let mut judged = Ok(());
        for (node, mobile) in mobiles {
            let own_segment = plan.shape.home_segment(mobile.plan.home_agent);
            if flight.segment == own_segment && to == mobile.correspondent.mac {
                mobile.correspondent.receive(&flight.frame, *elapsed);
            }
            let member = Member::Node(*node);
            let hears = mobile.segment == Some(flight.segment)
                && member != flight.from
                && (to.is_multicast() || to == node_mac(*node))
                && network.reaches(flight.from, member);
            let Some(host) = mobile.host.as_mut().filter(|_| hears) else { continue };
            host.receive(&flight.frame, mobile.clock.now(*elapsed));
            mobile.due = Some(*elapsed);
            for (_, number) in host.arrivals.drain(..) {
                judged = judged.and(oracle.judge_arrival(&mobile.plan, number, true));
            }
        }
        self.lawful(judged)
    }

    /// Lets everybody do what is due.
    fn take_turns(&mut self) -> Outcome {
        for at in 0..self.sites.len() {
            if self.sites[at].due.is_some_and(|due| due <= self.elapsed) {
                self.box_turn(at)?;
            }
        }
        let due: Vec<usize> = self
            .mobiles
            .iter()
            .filter(|(_, mobile)| mobile.due.is_some_and(|due| due <= self.elapsed))
            .map(|(node, _)| *node)
            .collect();
        for node in due {
            self.node_turn(node)?;
        }
        Ok(())
    }

    fn box_turn(&mut self, at: usize) -> Outcome {
        let World { sites, oracle, elapsed, origin, .. } = self;
        let site = &mut sites[at];
        let now = site.clock.now(*elapsed);
        let Some(one) = &mut site.one else {
            site.due = None;
            return Ok(());
        };
        oracle.before(at);
        one.run(now, *origin + *elapsed);
        let mut frames = Vec::new();
        for (port, link) in one.links().iter().enumerate() {
            while let Some(frame) = link.take() {
                frames.push((port, frame));
            }
        }
        site.due = one.agent.poll_timeout().map(|at| Duration::from_nanos(at.0));
        let mut judged = oracle.judge(at, one, &frames, now);
        let waiting = one.held() as usize;
        if judged.is_ok() && one.free_buffers() + waiting != site.buffers {
            let free = one.free_buffers();
            let what = format!("{free} buffers are free and {waiting} wait, of {}", site.buffers);
            judged = Err((Rule::Conservation, what));
        }
        self.tell_of_box(at);
        self.lawful(judged)?;
        for (port, frame) in frames {
            let segment = segment_of(&self.plan.shape, at, port);
            self.network.send(self.elapsed, segment, Member::Box(at, port), frame);
        }
        Ok(())
    }

    fn tell_of_box(&mut self, at: usize) {
        let site = &mut self.sites[at];
        let Some(one) = &mut site.one else { return };
        if self.telling == Telling::Nothing {
            one.events.clear();
            return;
        }
        for event in &one.events[site.events..] {
            let is_told = match event {
                AgentEvent::Discarded { .. } => false,
                AgentEvent::Decision(_) => self.telling == Telling::Decisions,
                _ => true,
            };
            if is_told {
                self.story.push((self.elapsed, format!("  box {at}: {event:?}")));
            }
        }
        site.events = one.events.len();
    }

    fn node_turn(&mut self, node: usize) -> Outcome {
        let World { mobiles, network, elapsed, oracle, plan, telling, .. } = self;
        let Some(mobile) = mobiles.get_mut(&node) else { return Ok(()) };
        let own_segment = plan.shape.home_segment(mobile.plan.home_agent);
        mobile.correspondent.run(*elapsed);
        for frame in mobile.correspondent.outbox.drain(..) {
            network.send(*elapsed, own_segment, Member::Correspondent(node), frame);
        }
        let mut due = mobile.correspondent.send_at;
        let mut told = Vec::new();
        if let Some(host) = &mut mobile.host {
            host.run(mobile.clock.now(*elapsed));
            oracle.sent(node, host.requests.drain(..));
            for frame in host.outbox.drain(..) {
                if let Some(segment) = mobile.segment {
                    network.send(*elapsed, segment, Member::Node(node), frame);
                }
            }
            due = [due, host.next_event()].into_iter().flatten().min();
            if *telling > Telling::Nothing {
                told.extend(host.events.iter().map(|event| format!("  node {node}: {event:?}")));
            }
            host.events.clear();
        }
        mobile.due = due;
        for what in told {
            self.tell(|| what);
        }
        Ok(())
    }

    /// Ends all that is wrong.
    pub fn heal(&mut self) {
        self.tell(|| "all is well from here on".into());
        self.network.heal();
        self.later.clear();
        (0..self.sites.len()).for_each(|at| self.start_box(at));
        let nodes: Vec<usize> = self.mobiles.keys().copied().collect();
        for node in nodes {
            self.start_node(node);
            self.plug_in(node);
        }
    }

    /// Starts the program of a node that ended in good order.
    fn plug_in(&mut self, node: usize) {
        let Some(mobile) = self.mobiles.get_mut(&node) else { return };
        let now = mobile.clock.now(self.elapsed);
        if let Some(host) = &mut mobile.host
            && mobile.segment.is_some()
            && matches!(host.machine.phase(), Phase::Disconnected | Phase::Stopping)
        {
            host.handle_link(false, now);
            host.handle_link(true, now);
        }
        self.wake_node(node);
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
