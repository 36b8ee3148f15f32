//! The rules that hold at every moment, and what they are judged by: what each node
//! really sent, and what each home agent said that it accepted.

mod sessions;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_dataplane::table::binding::BindingEntry;
use homeport_proto::limits::REMEMBERED_IDENTIFICATIONS;
use homeport_proto::message::{Identification, RegistrationRequest};
use homeport_proto::security::ReplayProtection;
use homeport_proto::{Instant, Lifetime, Now, NtpTime};
use homeport_wire::MacAddress;

use super::layout::{
    MAX_VISITORS, care_of_address, correspondent_mac, home_address, home_agent_address,
    home_agent_at, node_mac,
};
use super::plan::{NodePlan, Plan, Shape};
use super::sight::{Sight, Tag, look};
use crate::boxes::{Accepted, AgentBox, RequestName};
use sessions::Sessions;

/// A rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A binding forwards to its care-of address and to no other.
    Forwarding,
    /// No packet reaches another tenant or another node.
    Isolation,
    /// Nothing that a stranger made is believed or passed on.
    Forgery,
    /// No request is accepted twice, nor after a later one.
    Replay,
    /// A binding ends when its last request says, and not later.
    Lifetime,
    /// Each packet has one verdict, and each buffer comes back.
    Conservation,
    /// The tables of the dataplane are what the machines list.
    Tables,
    /// Nothing grows beyond its bound.
    Bounds,
    /// An address is one session's, which keeps it, and whoever asks gets one in the end if
    /// there is one.
    Addresses,
    /// When nothing is wrong any more, every node is reached in time.
    Reachability,
    /// And then nothing is lost.
    Loss,
    /// Nobody works without end.
    Busy,
    /// Nothing panics.
    Panic,
}

/// What was broken, when and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at: Duration,
    /// The rule.
    pub rule: Rule,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:.3} s: {}", self.rule, self.at.as_secs_f64(), self.what)
    }
}

/// The last word that a home agent accepted of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Binding {
    care_of_address: Ipv4Addr,
    expires: Option<Instant>,
    identification: Identification,
}

/// A home agent and one of its home addresses.
type Home = (usize, Ipv4Addr);

/// A home agent as it has been since it started.
#[derive(Clone, Copy, Debug)]
struct Life {
    number: u64,
    /// What its clock showed when it started.
    started: NtpTime,
    /// Whether its clock has gone back since.
    stepped_back: bool,
}

/// The judge.
pub struct Oracle {
    shape: Shape,
    nodes: BTreeMap<(usize, usize), NodePlan>,
    /// What each node really sent.
    sent: BTreeMap<usize, Vec<RegistrationRequest>>,
    bindings: BTreeMap<Home, Binding>,
    /// Every identification that was accepted, and in which life of its home agent.
    accepted: BTreeMap<(Home, u64), u64>,
    /// The same of this life alone, in order.
    in_order: BTreeMap<Home, Vec<Identification>>,
    lives: Vec<Life>,
    /// Care-of addresses that were right at some time in the present turn of a box.
    right: Vec<(Home, Ipv4Addr)>,
    inputs: Vec<u64>,
    sessions: Sessions,
}

type Verdict = Result<(), (Rule, String)>;

fn broken<T>(rule: Rule, what: String) -> Result<T, (Rule, String)> {
    Err((rule, what))
}

impl Oracle {
    /// The judge of a plan.
    pub fn new(plan: &Plan) -> Self {
        let shape = plan.shape.clone();
        let life = Life { number: 0, started: NtpTime(0), stepped_back: false };
        Oracle {
            nodes: plan.nodes().map(|node| ((node.home_agent, node.number), *node)).collect(),
            sent: BTreeMap::new(),
            bindings: BTreeMap::new(),
            accepted: BTreeMap::new(),
            in_order: BTreeMap::new(),
            lives: vec![life; shape.home_agents.len()],
            right: Vec::new(),
            inputs: vec![0; shape.boxes()],
            sessions: Sessions::default(),
            shape,
        }
    }

    /// A node sent this.
    pub fn sent(&mut self, node: usize, requests: impl Iterator<Item = RegistrationRequest>) {
        self.sent.entry(node).or_default().extend(requests);
    }

    /// A box starts.
    pub fn started(&mut self, at: usize, now: Now) {
        self.inputs[at] = 0;
        for one in self.home_agents_of(at) {
            let life = &mut self.lives[one];
            *life = Life { number: life.number + 1, started: now.ntp, stepped_back: false };
        }
    }

    /// A box is down: its home agents have forgotten all.
    pub fn stopped(&mut self, at: usize) {
        for one in self.home_agents_of(at) {
            self.bindings.retain(|(of, _), _| *of != one);
            self.in_order.retain(|(of, _), _| *of != one);
            self.sessions.forget(one);
        }
    }

    /// A box's clock jumped.
    pub fn stepped(&mut self, at: usize, millis: i64) {
        for one in self.home_agents_of(at) {
            self.lives[one].stepped_back |= millis < 0;
        }
    }

    /// Whether a home agent refuses whatever a node may send, because its clock has
    /// gone back behind requests that it no longer remembers one by one
    /// ([`REMEMBERED_IDENTIFICATIONS`]): it rather refuses all up to the last of
    /// those than to accept one twice. `now` is by its clock.
    pub fn is_locked_out(&self, node: &NodePlan, now: Now) -> bool {
        let home = (node.home_agent, home_address(node.number));
        let life = self.lives[node.home_agent];
        let in_order = self.in_order.get(&home).map_or(&[][..], Vec::as_slice);
        let ahead = in_order.iter().filter(|one| NtpTime(one.0).wrapping_distance(now.ntp) > 0);
        node.replay != ReplayProtection::Nonces
            && life.stepped_back
            && ahead.count() > REMEMBERED_IDENTIFICATIONS
    }

    /// An operator cleared a binding.
    pub fn cleared(&mut self, home_agent: usize, home_address: Ipv4Addr) {
        self.bindings.remove(&(home_agent, home_address));
    }

    fn home_agents_of(&self, at: usize) -> Vec<usize> {
        let all = self.shape.home_agents.iter().enumerate();
        all.filter(|(_, place)| place.at == at).map(|(one, _)| one).collect()
    }

    fn node(&self, home_agent: usize, home: Ipv4Addr) -> Option<&NodePlan> {
        let number = usize::from(home.octets()[3]).checked_sub(10)?;
        self.nodes.get(&(home_agent, number)).filter(|node| home_address(node.number) == home)
    }

    /// Before a box has its turn.
    pub fn before(&mut self, at: usize) {
        self.right.clear();
        if at < self.shape.home_boxes() {
            let right = self.bindings.iter().map(|(home, one)| (*home, one.care_of_address));
            self.right.extend(right);
        }
    }

    /// Behind a turn of a box, in which it sent `frames` by port.
    ///
    /// # Errors
    /// The rule that was broken, and how.
    pub fn judge(
        &mut self,
        at: usize,
        one: &mut AgentBox,
        frames: &[(usize, Vec<u8>)],
        now: Now,
    ) -> Verdict {
        one.conservation().or_else(|what| broken(Rule::Conservation, what))?;
        if one.inputs != self.inputs[at] {
            self.inputs[at] = one.inputs;
            let accepted: Vec<Accepted> = one.accepted.drain(..).collect();
            self.bindings.retain(|_, binding| binding.expires.is_none_or(|at| at > now.monotonic));
            for accepted in accepted {
                match accepted.name.clone().filter(RequestName::is_of_sessions) {
                    Some(name) => self.accept_session(at, &accepted, &name, now)?,
                    None => self.accept(at, &accepted, now)?,
                }
            }
            match at.checked_sub(self.shape.home_boxes()) {
                None => self.judge_bindings(at, one)?,
                Some(foreign_agent) => self.judge_visitors(foreign_agent, one, now)?,
            }
        }
        frames.iter().try_for_each(|(port, frame)| self.judge_frame(at, *port, frame))
    }

    /// Nothing is bound any more whose time is over, whoever had a turn.
    ///
    /// # Errors
    /// The rule that was broken, and how.
    pub fn judge_time(&self, now: Now) -> Verdict {
        let is_over =
            |binding: &Binding| binding.expires.is_some_and(|expires| expires < now.monotonic);
        match self.bindings.iter().find(|(_, binding)| is_over(binding)) {
            Some(((of, home), binding)) => broken(
                Rule::Lifetime,
                format!("home agent {of} still binds {home}, though it ended at {binding:?}"),
            ),
            None => Ok(()),
        }
    }

    fn accept(&mut self, at: usize, accepted: &Accepted, now: Now) -> Verdict {
        let Accepted { tenant, request, lifetime, .. } = *accepted;
        let home_agent = self.accepting(at, accepted);
        let found = home_agent.and_then(|one| Some((one, *self.node(one, request.home_address)?)));
        let Some((home_agent, node)) = found else {
            return broken(Rule::Forgery, format!("tenant {tenant} accepted {request:?}"));
        };
        let sent = self.sent.get(&node.node).is_some_and(|all| all.contains(&request));
        if !sent {
            let what =
                format!("home agent {home_agent} accepted {request:?}, which was never sent");
            return broken(Rule::Forgery, what);
        }
        let home = (home_agent, request.home_address);
        if self.is_repeated(home, &node, &request)? {
            return Ok(());
        }
        if lifetime != request.lifetime {
            let what = format!("home agent {home_agent} granted {lifetime} for {request:?}");
            return broken(Rule::Lifetime, what);
        }
        let care_of_address = request.care_of_address;
        if request.lifetime == Lifetime::ZERO {
            let ends = care_of_address == request.home_address
                || self.bindings.get(&home).is_some_and(|b| b.care_of_address == care_of_address);
            if ends {
                self.bindings.remove(&home);
            }
            return Ok(());
        }
        self.bind(home, &request, now);
        Ok(())
    }

    fn bind(&mut self, home: Home, request: &RegistrationRequest, now: Now) {
        let RegistrationRequest { care_of_address, lifetime, identification, .. } = *request;
        let expires = lifetime.duration().map(|duration| now.monotonic + duration);
        self.bindings.insert(home, Binding { care_of_address, expires, identification });
        self.right.push((home, care_of_address));
    }

    /// Which home agent of a box has accepted.
    fn accepting(&self, at: usize, accepted: &Accepted) -> Option<usize> {
        let is_it = |one: &usize| {
            self.shape.home_agents[*one].tenant == accepted.tenant.0
                && home_agent_address(*one) == accepted.request.home_agent
        };
        self.home_agents_of(at).into_iter().find(is_it)
    }

    /// Whether an accepted request was only answered once more, as it may be with
    /// nonces, and nothing changed. The bindings are compared behind this.
    fn is_repeated(
        &mut self,
        home: Home,
        node: &NodePlan,
        request: &RegistrationRequest,
    ) -> Result<bool, (Rule, String)> {
        let identification = request.identification;
        let life = self.lives[home.0];
        let before = self.accepted.insert((home, identification.0), life.number);
        let with_nonces = node.replay == ReplayProtection::Nonces;
        match before {
            Some(number) if number == life.number && with_nonces => return Ok(true),
            Some(number) if number == life.number || !is_in_the_gap(identification, life) => {
                let what = format!("home agent {} accepted {request:?} twice", home.0);
                return broken(Rule::Replay, what);
            }
            _ => {}
        }
        let in_order = self.in_order.entry(home).or_default();
        let later = in_order.last().copied();
        in_order.push(identification);
        let distance =
            |last: Identification| NtpTime(identification.0).wrapping_distance(NtpTime(last.0));
        if let Some(last) = later.filter(|last| !with_nonces && distance(*last) <= 0)
            && !life.stepped_back
        {
            let what = format!("home agent {} accepted {request:?} after {last:?}", home.0);
            return broken(Rule::Replay, what);
        }
        Ok(false)
    }

    fn judge_bindings(&self, at: usize, one: &AgentBox) -> Verdict {
        let tables: BTreeMap<_, &BindingEntry> = one
            .installer
            .bindings()
            .map(|(key, entry)| ((key.tenant, key.home_address), entry))
            .collect();
        let mut listed = 0;
        for home_agent in self.home_agents_of(at) {
            let agents = one.agent.home_agents();
            let mut agents =
                agents.filter(|agent| agent.config().address == home_agent_address(home_agent));
            let Some(agent) = agents.next() else { continue };
            if agent.binding_count() > agent.config().max_bindings {
                let what =
                    format!("home agent {home_agent} has {} bindings", agent.binding_count());
                return broken(Rule::Bounds, what);
            }
            let expected = self.bindings.iter().filter(|((of, _), _)| *of == home_agent);
            let mut expected: BTreeMap<Ipv4Addr, Binding> =
                expected.map(|((_, home), binding)| (*home, *binding)).collect();
            for binding in agent.bindings() {
                listed += 1;
                let home = binding.home_address;
                let right = expected.remove(&home);
                let [registration] = binding.registrations.as_slice() else {
                    let what = format!(
                        "home agent {home_agent} has several care-of addresses of {home}, which \
                         never asked for more than one: {:?}",
                        binding.registrations
                    );
                    return broken(Rule::Forwarding, what);
                };
                let is = Binding {
                    care_of_address: registration.care_of.address,
                    expires: registration.expires,
                    identification: registration.identification,
                };
                let Some(right) = right else {
                    let what = format!("home agent {home_agent} has {home} bound: {is:?}");
                    return broken(Rule::Lifetime, what);
                };
                if is.care_of_address != right.care_of_address {
                    let what = format!("home agent {home_agent} has {home}: {is:?}, not {right:?}");
                    return broken(Rule::Forwarding, what);
                }
                if is != right {
                    let what = format!("home agent {home_agent} has {home}: {is:?}, not {right:?}");
                    return broken(Rule::Lifetime, what);
                }
                let entry = tables.get(&(binding.tenant, home));
                let ends: Vec<Ipv4Addr> = entry.map_or(Vec::new(), |entry| {
                    entry.tunnels().iter().map(|end| end.care_of_address()).collect()
                });
                if ends != [is.care_of_address] {
                    let what = format!("the table has {home} at {ends:?}, the list {is:?}");
                    return broken(Rule::Tables, what);
                }
            }
            if let Some((home, binding)) = expected.first_key_value() {
                let what = format!("home agent {home_agent} has lost {home}: {binding:?}");
                return broken(Rule::Lifetime, what);
            }
        }
        if tables.len() != listed {
            let what = format!("the table has {} bindings, the lists {listed}", tables.len());
            return broken(Rule::Tables, what);
        }
        Ok(())
    }

    fn judge_visitors(&self, foreign_agent: usize, one: &AgentBox, now: Now) -> Verdict {
        let Some(agent) = one.agent.foreign_agents().next() else { return Ok(()) };
        let config = agent.config();
        let mut pending: BTreeMap<_, usize> = BTreeMap::new();
        for one in agent.pending() {
            let station = &one.station;
            let home = station.request.home_address;
            // Without an address, a station's sessions are told apart by their names.
            let name = one.name().filter(|_| home.is_unspecified());
            *pending.entry((home, station.mac, name)).or_default() += 1;
        }
        if agent.pending().len() > config.max_pending
            || agent.visitors().len() > MAX_VISITORS
            || pending.values().any(|count| *count > config.max_pending_per_node)
        {
            let (pending, visitors) = (agent.pending().len(), agent.visitors().len());
            let what =
                format!("foreign agent {foreign_agent}: {pending} pending, {visitors} visit");
            return broken(Rule::Bounds, what);
        }
        let mut table = one.installer.visitors();
        for visitor in agent.visitors() {
            let state = &visitor.state;
            let home = state.home_address;
            let home_agent = self.home_agent_with(state.home_agent);
            let session = visitor.name.as_deref().filter(|name| !name.sub_nai.is_empty());
            let node = home_agent.and_then(|one| match session {
                Some(name) => self.named(one, &name.nai),
                None => self.node(one, home),
            });
            let Some(node) = node.filter(|node| node_mac(node.node) == state.mac) else {
                let what = format!("foreign agent {foreign_agent} has the visitor {state:?}");
                return broken(Rule::Isolation, what);
            };
            let sent = match session {
                Some(name) => self.sessions.sent(node.node, &name.sub_nai),
                None => self.sent.get(&node.node),
            };
            let asked = sent.and_then(|all| {
                all.iter().rfind(|request| request.identification == visitor.identification)
            });
            let is_its = |request: &&RegistrationRequest| {
                request.care_of_address == care_of_address(foreign_agent)
                    && visitor.lifetime <= request.lifetime
            };
            let lasts = visitor.lifetime.duration();
            let ends = lasts.map(|lasts| visitor.registered_at + lasts);
            if asked.filter(is_its).is_none()
                || ends != visitor.expires
                || visitor.expires.is_some_and(|expires| expires <= now.monotonic)
            {
                let what = format!("foreign agent {foreign_agent} has {visitor:?} for {asked:?}");
                return broken(Rule::Lifetime, what);
            }
            let entry = table.next();
            let alike = entry.is_some_and(|(key, entry)| {
                (key.home_address, key.home_agent) == (home, state.home_agent)
                    && (entry.mac, entry.port) == (state.mac, state.port)
                    && entry.care_of_address == state.care_of_address
            });
            if !alike {
                return broken(Rule::Tables, format!("the table has {entry:?} for {state:?}"));
            }
        }
        match table.next() {
            Some(entry) => broken(Rule::Tables, format!("the table has {entry:?} besides")),
            None => Ok(()),
        }
    }

    fn home_agent_with(&self, address: Ipv4Addr) -> Option<usize> {
        (0..self.shape.home_agents.len()).find(|one| home_agent_address(*one) == address)
    }

    /// What a box may send, and to whom.
    fn judge_frame(&self, at: usize, port: usize, frame: &[u8]) -> Verdict {
        let Some((to, sight)) = look(frame) else { return Ok(()) };
        let foreign_agent = at.checked_sub(self.shape.home_boxes());
        match sight {
            Sight::Datagram { tag, tunnel } => {
                let Some(node) = self.nodes.get(&(tag.home_agent(), tag.number())) else {
                    return Ok(());
                };
                if tag.is_forged() {
                    let what = format!("box {at} passes a stranger's packet on, to {to}");
                    return broken(Rule::Forgery, what);
                }
                match foreign_agent {
                    Some(one) => self.judge_visiting(one, port, to, node, tag, tunnel),
                    None => self.judge_home(at, port, to, node, tag, tunnel),
                }
            }
            Sight::Reply(reply) if foreign_agent.is_some() && port > 0 => {
                let home_agent = self.home_agent_with(reply.home_agent);
                let home = home_agent.map(|one| (one, reply.home_address));
                // That all addresses are given back is said of none.
                if home.is_some_and(|home| self.sessions.had(home, to))
                    || reply.home_address.is_unspecified()
                {
                    return Ok(());
                }
                let node = home_agent.and_then(|one| self.node(one, reply.home_address));
                let right = node.map(|node| node_mac(node.node));
                if reply.code.is_accepted() && right != Some(to) {
                    let what = format!("box {at} relays {reply:?} to {to}, not {right:?}");
                    return broken(Rule::Isolation, what);
                }
                Ok(())
            }
            Sight::Reply(_) => Ok(()),
        }
    }

    fn judge_home(
        &self,
        at: usize,
        port: usize,
        to: MacAddress,
        node: &NodePlan,
        tag: Tag,
        tunnel: Option<(Ipv4Addr, Ipv4Addr)>,
    ) -> Verdict {
        let home_agent = tag.home_agent();
        let home = (home_agent, home_address(tag.number()));
        if port > 0 {
            let is_its_own = home_agent_at(&self.shape, at, port) == Some(home_agent);
            let right = match tag.is_from_node() {
                true => to == correspondent_mac(node.node),
                false => to == node_mac(node.node) && self.shape.home_agents[home_agent].home_link,
            };
            if !is_its_own || !right || tunnel.is_some() {
                let what = format!("box {at} sends {tag:x?} of {node:?} by port {port} to {to}");
                return broken(Rule::Isolation, what);
            }
            return Ok(());
        }
        let Some((from, end)) = tunnel.filter(|_| !tag.is_from_node()) else {
            let what = format!("box {at} sends {tag:x?} of {node:?} out of its tunnel, to {to}");
            return broken(Rule::Forwarding, what);
        };
        let bound = self.bindings.get(&home).map(|binding| binding.care_of_address);
        let is_right = bound == Some(end) || self.right.contains(&(home, end));
        if from != home_agent_address(home_agent) || !is_right {
            let what = format!("{tag:x?} for {node:?} goes from {from} to {end}, not to {bound:?}");
            return broken(Rule::Forwarding, what);
        }
        Ok(())
    }

    fn judge_visiting(
        &self,
        foreign_agent: usize,
        port: usize,
        to: MacAddress,
        node: &NodePlan,
        tag: Tag,
        tunnel: Option<(Ipv4Addr, Ipv4Addr)>,
    ) -> Verdict {
        let right = match port {
            0 => {
                let ends = (care_of_address(foreign_agent), home_agent_address(tag.home_agent()));
                tag.is_from_node() && tunnel == Some(ends)
            }
            _ => !tag.is_from_node() && tunnel.is_none() && to == node_mac(node.node),
        };
        if right {
            return Ok(());
        }
        let what = format!(
            "foreign agent {foreign_agent} sends {tag:x?} of {node:?} by port {port} to {to}, in \
             {tunnel:?}"
        );
        broken(Rule::Isolation, what)
    }

    /// What came to a node or its correspondent.
    ///
    /// # Errors
    /// The rule that was broken, and how.
    pub fn judge_arrival(&self, node: &NodePlan, number: u64, at_node: bool) -> Verdict {
        let tag = Tag(number);
        let whose = super::layout::tag_of(node);
        let is_its_own = number >> 48 == whose >> 48 && tag.is_from_node() != at_node;
        if is_its_own && !tag.is_forged() {
            return Ok(());
        }
        let whom = if at_node { "" } else { "the correspondent of " };
        broken(Rule::Isolation, format!("{number:x} came to {whom}{node:?}"))
    }
}

/// Whether a home agent that has started anew cannot know this identification any
/// more: it is later than its start by its clock, because the node's clock, or its own
/// before, was ahead. Marks do not outlive a home agent yet.
fn is_in_the_gap(identification: Identification, life: Life) -> bool {
    life.number > 1 && NtpTime(identification.0).wrapping_distance(life.started) > 0
}
