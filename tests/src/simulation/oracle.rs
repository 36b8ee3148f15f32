//! The rules that hold at every moment, and what they are judged by: what each node
//! really sent, and what each home agent said that it accepted. `lists` judges what boxes
//! know, `frames` what they send, `sessions` whose an address is, `challenges` who has answered
//! which.

mod challenges;
mod frames;
mod lists;
mod sessions;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_proto::limits::REMEMBERED_IDENTIFICATIONS;
use homeport_proto::message::{Identification, RegistrationRequest};
use homeport_proto::security::ReplayProtection;
use homeport_proto::{Instant, Lifetime, Now, NtpTime};

use super::layout::{home_address, home_agent_address};
use super::plan::{NodePlan, Plan, Shape};
use crate::boxes::{Accepted, AgentBox, RequestName};
use challenges::Challenges;
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
    /// No request is accepted twice, nor after a later one, and no challenge answered twice.
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
    /// Of each foreign agent.
    challenges: Vec<Challenges>,
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
            challenges: (0..shape.foreign_agents).map(|_| Challenges::default()).collect(),
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
        if let Some(foreign_agent) = at.checked_sub(self.shape.home_boxes()) {
            self.challenges[foreign_agent] = Challenges::default();
        }
        for one in self.home_agents_of(at) {
            let life = &mut self.lives[one];
            *life = Life { number: life.number + 1, started: now.ntp, stepped_back: false };
        }
    }

    /// A box is down: its home agents have forgotten all, but what they have written down.
    pub fn stopped(&mut self, at: usize) {
        for one in self.home_agents_of(at) {
            self.bindings.retain(|(of, _), _| *of != one);
            self.in_order.retain(|(of, _), _| *of != one);
            if !self.shape.has_state[at] {
                self.sessions.forget(one);
            }
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

    /// Whether a node's own home address is bound.
    pub fn is_bound(&self, node: &NodePlan) -> bool {
        self.bindings.contains_key(&(node.home_agent, home_address(node.number)))
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
                None => {
                    self.judge_bindings(at, one)?;
                    self.judge_sessions(at, one, now)?;
                }
                Some(foreign_agent) => {
                    self.judge_visitors(foreign_agent, one, now)?;
                    self.judge_challenges(foreign_agent, one)?;
                }
            }
        }
        if let Some(foreign_agent) = at.checked_sub(self.shape.home_boxes()) {
            self.note_challenges(foreign_agent, frames);
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

    fn home_agent_with(&self, address: Ipv4Addr) -> Option<usize> {
        (0..self.shape.home_agents.len()).find(|one| home_agent_address(*one) == address)
    }
}

/// Whether a home agent that has started anew cannot know this identification any
/// more: it is later than its start by its clock, because the node's clock, or its own
/// before, was ahead. Marks do not outlive a home agent yet.
fn is_in_the_gap(identification: Identification, life: Life) -> bool {
    life.number > 1 && NtpTime(identification.0).wrapping_distance(life.started) > 0
}
