//! What a seed decides: who is there, and all that happens to them. A plan is data,
//! so that parts of it can be left out and the rest run again.

use std::fmt;
use std::time::Duration;

use homeport_proto::config::PreferredEncapsulation;
use homeport_proto::security::ReplayProtection;
use homeport_proto::{Lifetime, ReverseTunnel};

use super::random::Random;

/// When a world begins. It is not zero: what is made from the real clock when a box
/// is built lies before it.
pub const BEGIN: Duration = Duration::from_secs(10);

/// A plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was drawn from, and all chances within the run.
    pub seed: u64,
    /// What there is.
    pub shape: Shape,
    /// Nodes and events, each with its number.
    pub items: Vec<(usize, Item)>,
}

/// The boxes of a world, and how they are.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The home agents, in the order of their boxes.
    pub home_agents: Vec<HomeAgentPlace>,
    /// How many foreign agents there are, each in a box of its own.
    pub foreign_agents: usize,
    /// Time between advertisements.
    pub interval: Duration,
    /// Pending requests that a foreign agent takes, of all nodes and of one.
    pub max_pending: (usize, usize),
    /// Time between the datagrams of a correspondent.
    pub speak: Duration,
    /// When faults and attacks end.
    pub quiet_at: Duration,
    /// Of each foreign agent, whether its challenges must be answered.
    pub has_challenges: Vec<bool>,
    /// Of each box of home agents, whether it has a folder for what outlives it.
    pub has_state: Vec<bool>,
}

/// Where a home agent is.
#[derive(Clone, Copy, Debug)]
pub struct HomeAgentPlace {
    /// Its box.
    pub at: usize,
    /// Its tenant.
    pub tenant: u32,
    /// Whether its home network has a link; else its correspondents are on another
    /// link of the tenant.
    pub home_link: bool,
}

/// What a plan is made of.
#[derive(Clone, Debug)]
pub enum Item {
    /// A node that there is.
    Node(NodePlan),
    /// Something that happens.
    Event(Event),
}

/// A node.
#[derive(Clone, Copy, Debug)]
pub struct NodePlan {
    /// Its number among all nodes.
    pub node: usize,
    /// Its home agent.
    pub home_agent: usize,
    /// Its number at home: others have the same elsewhere.
    pub number: usize,
    /// How its registrations are kept from being replayed.
    pub replay: ReplayProtection,
    /// The lifetime that it asks for.
    pub lifetime: Lifetime,
    /// How it wants its own packets carried.
    pub reverse_tunnel: ReverseTunnel,
    /// How it wants its packets encapsulated.
    pub encapsulation: PreferredEncapsulation,
    /// How many devices it has: with any, it has a NAI, and each is a session of it.
    pub devices: usize,
}

/// Something that happens at a time.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// When, after the world's begin.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// Where a node can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On its home link.
    Home,
    /// On a foreign agent's link.
    Visited(usize),
    /// On the core network, with an address of its own.
    CoLocated,
    /// Nowhere.
    Away,
}

/// Who can be cut off, or have a wrong clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// A box.
    Box(usize),
    /// A node.
    Node(usize),
}

/// What is wrong with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Frames are lost.
    Loss,
    /// Frames arrive twice.
    Duplication,
    /// Frames arrive behind the next one.
    Reordering,
    /// A bit is flipped.
    Corruption,
    /// Frames take up to so many milliseconds longer.
    Delay,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the variants say what their fields are")]
pub enum What {
    /// The node leaves its link and comes up on another.
    Move { node: usize, place: Place },
    /// A segment is bad for some time: per mille, or milliseconds of delay.
    Fault { segment: usize, kind: FaultKind, amount: u16, lasts: Duration },
    /// Nothing of the one reaches the other for some time.
    Cut { from: Party, to: Party, lasts: Duration },
    /// A box loses all that it knows, and is back after some time.
    CrashBox { at: usize, down: Duration },
    /// The same of a node; it then asks for another lifetime.
    CrashNode { node: usize, down: Duration, lifetime: Lifetime },
    /// The NTP clock jumps by milliseconds.
    Step { of: Party, millis: i64 },
    /// The NTP clock runs so many millionths too fast from now on.
    Drift { of: Party, ppm: i64 },
    /// Registration frames are sent again: `count` of them, from the one that was
    /// captured as the `back`th last on.
    Replay { back: usize, count: usize },
    /// Registration frames of two seconds are sent again, so long after: when a clock
    /// that was set back shows their time once more.
    ReplayOld { age: Duration },
    /// A request for a node that its key did not sign: made up, or a genuine one with
    /// the stranger's care-of address.
    ForgeRequest { node: usize, made_up: bool },
    /// A tunnelled packet of a stranger, of a kind by its number, to the foreign agent
    /// or, with none, to the home agent.
    ForgeTunnel { node: usize, foreign_agent: Option<usize>, kind: u8 },
    /// Requests of nodes that nobody knows, on a foreign agent's link.
    Flood { foreign_agent: usize, count: usize },
    /// Many datagrams to a node at once.
    Burst { node: usize, count: usize },
    /// The node ends its program in good order.
    Stop { node: usize },
    /// An operator clears the node's binding.
    Clear { node: usize },
    /// A device comes to a node, and wants an address.
    Attach { node: usize, device: usize },
    /// A device leaves its node, and its address is given back.
    Detach { node: usize, device: usize },
}

impl Plan {
    /// The whole plan of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed, 1);
        let mut shape = draw_shape(&mut random);
        let mut items: Vec<Item> = Vec::new();
        let mut nodes = 0;
        for home_agent in 0..shape.home_agents.len() {
            for number in 0..random.between(1, 2) as usize {
                items.push(Item::Node(draw_node(&mut random, nodes, home_agent, number)));
                nodes += 1;
            }
        }
        draw_devices(&mut Random::new(seed, DEVICES), &mut shape, &mut items);
        let mut states = Random::new(seed, DEVICES + 2);
        shape.has_state = (0..shape.home_boxes()).map(|_| states.percent(60)).collect();
        let mut challenges = Random::new(seed, CHALLENGES);
        let foreign_agents = 0..shape.foreign_agents;
        shape.has_challenges = foreign_agents.map(|_| challenges.percent(35)).collect();
        let mut draft = Draft { random, shape: &shape, nodes: &items.clone(), events: Vec::new() };
        draft.draw();
        draft.random = Random::new(seed, DEVICES + 1);
        draft.devices();
        let mut events = draft.events;
        events.sort_by_key(|event| event.at);
        items.extend(events.into_iter().map(Item::Event));
        let items = items.into_iter().enumerate().collect();
        Plan { seed, shape, items }
    }

    /// The same without what is not in `kept`.
    #[must_use]
    pub fn keeping(&self, kept: &[usize]) -> Self {
        let mut plan = self.clone();
        plan.items.retain(|(number, _)| kept.contains(number));
        plan
    }

    /// The numbers of what is in it.
    pub fn numbers(&self) -> Vec<usize> {
        self.items.iter().map(|(number, _)| *number).collect()
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &NodePlan> {
        self.items.iter().filter_map(|(_, item)| match item {
            Item::Node(node) => Some(node),
            Item::Event(_) => None,
        })
    }

    /// The events, in order, with their numbers.
    pub fn events(&self) -> impl Iterator<Item = (usize, Event)> {
        self.items.iter().filter_map(|(number, item)| match item {
            Item::Node(_) => None,
            Item::Event(event) => Some((*number, *event)),
        })
    }
}

impl Shape {
    /// How many boxes home agents are in.
    pub fn home_boxes(&self) -> usize {
        self.home_agents.last().map_or(0, |last| last.at + 1)
    }

    /// How many boxes there are.
    pub fn boxes(&self) -> usize {
        self.home_boxes() + self.foreign_agents
    }

    /// The segment of a foreign agent's link; zero is the core.
    pub const fn visited_segment(&self, foreign_agent: usize) -> usize {
        1 + foreign_agent
    }

    /// The segment of a home agent's own link.
    pub const fn home_segment(&self, home_agent: usize) -> usize {
        1 + self.foreign_agents + home_agent
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        1 + self.foreign_agents + self.home_agents.len()
    }
}

fn draw_shape(random: &mut Random) -> Shape {
    // Two tenants on one box; then, most times, one with a home link on another.
    let place = |at, tenant, home_link| HomeAgentPlace { at, tenant, home_link };
    let mut home_agents = vec![place(0, 1, false), place(0, 2, false)];
    let others = random.pick(&[0, 1, 1, 1, 2]);
    home_agents.extend((0..others).map(|other| place(1 + other, 1, true)));
    Shape {
        home_agents,
        foreign_agents: random.between(1, 3) as usize,
        interval: Duration::from_secs(random.between(1, 4)),
        max_pending: random.pick(&[(4, 2), (8, 4), (32, 5)]),
        speak: Duration::from_millis(random.pick(&[300, 700, 1_500])),
        quiet_at: Duration::from_secs(random.between(40, 100)),
        has_challenges: Vec::new(),
        has_state: Vec::new(),
    }
}

fn draw_node(random: &mut Random, node: usize, home_agent: usize, number: usize) -> NodePlan {
    NodePlan {
        node,
        home_agent,
        number,
        replay: match random.percent(30) {
            true => ReplayProtection::Nonces,
            false => ReplayProtection::default(),
        },
        lifetime: draw_lifetime(random),
        reverse_tunnel: random.pick(&[ReverseTunnel::Direct, ReverseTunnel::Encapsulating]),
        encapsulation: random.pick(&[
            PreferredEncapsulation::IpInIp,
            PreferredEncapsulation::Minimal,
            PreferredEncapsulation::Gre,
        ]),
        devices: 0,
    }
}

/// What the chances of devices are drawn for: whatever else there is stays as it is.
const DEVICES: u64 = 1 << 48;
/// The same of challenges.
const CHALLENGES: u64 = 1 << 49;

/// Most times, two nodes at most have devices: more of them than their home agents have
/// addresses for, if they are of the same.
fn draw_devices(random: &mut Random, shape: &mut Shape, items: &mut [Item]) {
    if random.percent(40) {
        return;
    }
    let first = random.index(items.len());
    let other = random.index(items.len());
    let second = random.pick(&[first, (first + 1) % items.len(), other]);
    for (at, item) in items.iter_mut().enumerate() {
        if let Item::Node(node) = item
            && (at == first || at == second)
        {
            node.devices = random.between(2, 3) as usize;
        }
    }
    // All of a node ask at once.
    shape.max_pending.0 = shape.max_pending.0.max(16);
}

/// The longest lifetime that a node asks for.
pub const MAX_LIFETIME: Duration = Duration::from_secs(40);

fn draw_lifetime(random: &mut Random) -> Lifetime {
    Lifetime(random.pick(&[6, 12, 20, 40]))
}

/// A plan's events in the making.
struct Draft<'a> {
    random: Random,
    shape: &'a Shape,
    nodes: &'a [Item],
    events: Vec<Event>,
}

impl Draft<'_> {
    fn draw(&mut self) {
        for node in 0..self.nodes.len() {
            let at = Duration::from_millis(self.random.between(0, 3_000));
            let place = self.place(node);
            self.add(at, What::Move { node, place });
        }
        // Clocks that were never set quite right, and do not run quite right.
        for of in self.parties() {
            if self.random.percent(40) {
                let millis = self.random.pick(&[-1_000, -400, 300, 1_000, 4_000]);
                self.add(Duration::ZERO, What::Step { of, millis });
            }
            if self.random.percent(40) {
                let ppm = self.random.pick(&[-500, 500]);
                self.add(Duration::ZERO, What::Drift { of, ppm });
            }
        }
        let end = self.shape.quiet_at;
        let mut begin = Duration::from_secs(4);
        while begin < end {
            let lasts = Duration::from_secs(self.random.between(6, 25)).min(end - begin);
            self.phase(begin, lasts);
            begin += lasts;
        }
        for node in 0..self.nodes.len() {
            if self.random.percent(70) {
                let ahead = Duration::from_millis(self.random.between(0, 8_000));
                let place = self.place(node);
                let place = if self.random.percent(90) { place } else { Place::Away };
                self.add(end.saturating_sub(ahead), What::Move { node, place });
            }
        }
    }

    /// Devices come, go and come again; most are there in the end.
    fn devices(&mut self) {
        let end = self.shape.quiet_at.as_millis() as u64;
        for item in self.nodes {
            let Item::Node(NodePlan { node, devices, .. }) = *item else { continue };
            for device in 0..devices {
                let mut at = self.random.between(0, 8_000);
                for turn in 0..self.random.between(1, 8) {
                    let what = match turn % 2 {
                        0 => What::Attach { node, device },
                        _ => What::Detach { node, device },
                    };
                    self.add(Duration::from_millis(at), what);
                    at += self.random.pick(&[20, 900, 5_000, 12_000, 17_000, 40_000]);
                    if at > end {
                        break;
                    }
                }
                if self.random.percent(80) {
                    self.add(Duration::from_millis(end), What::Attach { node, device });
                }
            }
        }
    }

    /// Some time in which the same faults last, and things happen.
    fn phase(&mut self, begin: Duration, lasts: Duration) {
        for kind in [
            FaultKind::Loss,
            FaultKind::Duplication,
            FaultKind::Reordering,
            FaultKind::Corruption,
            FaultKind::Delay,
        ] {
            for segment in 0..self.shape.segments() {
                if !self.random.percent(25) {
                    continue;
                }
                let amount = match kind {
                    FaultKind::Loss => self.random.between(10, 300),
                    FaultKind::Duplication | FaultKind::Reordering => self.random.between(50, 500),
                    FaultKind::Corruption => self.random.between(1, 30),
                    FaultKind::Delay => self.random.pick(&[5, 50, 400, 2_500]),
                } as u16;
                self.add(begin, What::Fault { segment, kind, amount, lasts });
            }
        }
        let count = self.random.between(2, 3 + lasts.as_secs() / 2);
        for _ in 0..count {
            let at = begin + Duration::from_millis(self.random.draw() % lasts.as_millis() as u64);
            self.happening(at);
        }
    }

    fn happening(&mut self, at: Duration) {
        let node = self.random.index(self.nodes.len());
        let millis =
            |random: &mut Random, first, last| Duration::from_millis(random.between(first, last));
        let what = match self.random.between(0, 99) {
            0..=27 => What::Move { node, place: self.place(node) },
            28..=35 => {
                let (from, to) = (self.party(), self.party());
                What::Cut { from, to, lasts: millis(&mut self.random, 200, 15_000) }
            }
            36..=40 => {
                let at = self.random.index(self.shape.boxes());
                What::CrashBox { at, down: millis(&mut self.random, 1, 6_000) }
            }
            41..=45 => {
                let lifetime = draw_lifetime(&mut self.random);
                let down = millis(&mut self.random, 1, 4_000);
                What::CrashNode { node, down, lifetime }
            }
            46..=53 => {
                let amounts = [-1_000_i64, 1_000, -8_000, 8_000, -3_600_000, 3_600_000];
                let (of, millis) = (self.party(), self.random.pick(&amounts));
                if let (Party::Box(_), -8_000..=-1_000) = (of, millis) {
                    let age = Duration::from_millis(millis.unsigned_abs());
                    for quarter in 1..=4 {
                        self.add(at + age * quarter / 4, What::ReplayOld { age });
                    }
                }
                What::Step { of, millis }
            }
            54..=55 => What::Drift { of: self.party(), ppm: self.random.pick(&[-500, 0, 500]) },
            56..=73 => {
                let back = self.random.pick(&[0, 1, 2, 3, 5, 8, 13, 21, 34]);
                What::Replay { back, count: self.random.pick(&[1, 1, 2, 4, 8]) }
            }
            74..=79 => What::ForgeRequest { node, made_up: self.random.percent(50) },
            80..=88 => {
                let foreign_agent = self.random.percent(60);
                let foreign_agent =
                    foreign_agent.then(|| self.random.index(self.shape.foreign_agents));
                let kind = self.random.between(0, 4) as u8;
                What::ForgeTunnel { node, foreign_agent, kind }
            }
            89..=91 => What::Flood {
                foreign_agent: self.random.index(self.shape.foreign_agents),
                count: self.random.pick(&[3, 12, 60]),
            },
            92..=95 => What::Burst { node, count: self.random.pick(&[5, 40, 150]) },
            96..=97 => What::Stop { node },
            _ => What::Clear { node },
        };
        self.add(at, what);
    }

    fn add(&mut self, at: Duration, what: What) {
        self.events.push(Event { at, what });
    }

    fn place(&mut self, node: usize) -> Place {
        let has_home = matches!(self.nodes[node], Item::Node(NodePlan { home_agent, .. })
            if self.shape.home_agents[home_agent].home_link);
        match self.random.between(0, 9) {
            0..=1 if has_home => Place::Home,
            0..=6 => Place::Visited(self.random.index(self.shape.foreign_agents)),
            7..=8 => Place::CoLocated,
            _ => Place::Away,
        }
    }

    fn parties(&self) -> Vec<Party> {
        let boxes = (0..self.shape.boxes()).map(Party::Box);
        boxes.chain((0..self.nodes.len()).map(Party::Node)).collect()
    }

    fn party(&mut self) -> Party {
        let parties = self.parties();
        self.random.pick(&parties)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Node(node) => write!(f, "{node:?}"),
            Item::Event(event) => write!(f, "{:>9.3} s  {:?}", event.at.as_secs_f64(), event.what),
        }
    }
}
