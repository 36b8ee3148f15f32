//! The agents between the dataplane's rings and its tables: what is punted goes in,
//! what they ask for is installed and injected.
//!
//! It has no kernel, no clock and no people: the event loop gives it those, a replay
//! gives it those of a capture.
//!
//! # Install before reply
//!
//! After every input to the agents their actions are done in order, before anything
//! else: an accepting reply goes into the inject ring only after its binding is in the
//! table, and the RX core that sends the one sees the other.

mod punts;

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use homeport_dataplane::launch::{Control, InjectSender, NaptControl, PortShared, PuntReceiver};
use homeport_dataplane::trace::TraceControl;
use homeport_dataplane::verdict::PuntReason;
use homeport_proto::agent::Agent;
use homeport_proto::config::AgentConfig;
use homeport_proto::draws::Draws;
use homeport_proto::event::Event;
use homeport_proto::{Action, Instant, Now, PortId, StoredSession, TenantId};

use self::punts::BATCH;
pub use self::punts::{MAX_WAIT, PUNTS_PER_TURN};
use crate::admin::api::Outcome;
use crate::admin::trace::TraceQuery;
use crate::event_loop::trace::Traces;
use crate::events::Events;
use crate::history::History;
use crate::inject::{self, InjectError, Injection};
use crate::install::{ClaimKeeper, Installer, Tables};
use crate::journal::{Input, Recorder, Stored};
use crate::nat_log::BlockBook;
use crate::punted::BadPunt;
use crate::session_store::{Line, SessionStore};

/// The most next hops that wait to be asked for: each is punted again while a packet
/// waits for it.
const MAX_NEXT_HOPS: usize = 1_024;

/// What a control core is made from.
pub struct Parts {
    /// The dataplane.
    pub control: Control,
    /// The agents.
    pub agents: AgentConfig,
    /// How many messages of one source prefix they take in a second.
    pub messages_per_second: u32,
    /// What AF_XDP ports take from the kernel.
    pub claims: ClaimKeeper,
    /// What the agents draw at random, and what they compute with keys.
    pub draws: Draws,
    /// How many nodes' last registrations are remembered.
    pub remembered_nodes: usize,
    /// Where every input of the agents is kept, if anywhere.
    pub recorder: Option<Recorder>,
}

/// The agents, the writers of the tables, and the rings.
pub struct ControlCore {
    pub(crate) agent: Agent,
    /// The only writer of the tables.
    pub(crate) installer: Installer,
    pub(crate) events: Events,
    pub(crate) history: History,
    pub(crate) ports: Arc<[PortShared]>,
    pub(crate) napts: Vec<NaptControl>,
    pub(crate) blocks: BlockBook,
    pub(crate) counts: Counts,
    pub(crate) visiting_since: BTreeMap<(TenantId, Ipv4Addr, Ipv4Addr), Instant>,
    pub(crate) punts: PuntReceiver,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) traces: Traces,
    /// Where it is written down which address is whose session's, if anywhere.
    pub(crate) sessions: Option<SessionStore>,
    injects: InjectSender,
    buffers: [Vec<u8>; BATCH],
    next_hops: VecDeque<(PortId, Ipv4Addr)>,
}

/// What it counts itself.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) bad_punts: BTreeMap<BadPunt, u64>,
    pub(crate) not_served: BTreeMap<PuntReason, u64>,
    pub(crate) too_old: BTreeMap<PuntReason, u64>,
    pub(crate) inject_errors: u64,
    pub(crate) injects_refused: u64,
}

impl ControlCore {
    /// Makes the agents. Nothing is in the tables yet: what the kernel knows comes
    /// first, then [`start`](Self::start).
    pub fn new(parts: Parts, now: Now) -> Self {
        let Parts {
            control,
            agents,
            messages_per_second,
            claims,
            draws,
            remembered_nodes,
            mut recorder,
        } = parts;
        let Control {
            bindings,
            listeners,
            visitors,
            locals,
            routes,
            source_routes,
            neighbors,
            punts,
            injects,
            ports,
            napts,
            traces,
        } = control;
        let tables =
            Tables { bindings, listeners, visitors, locals, routes, source_routes, neighbors };
        let tenants = ports.iter().map(|port| port.tenant).collect();
        let mut installer = Installer::new(tables, tenants, claims);
        installer.configure(&agents);
        let start = recorder.as_ref().map(|_| agents.clone());
        let mut agent = Agent::with_draws(agents, draws, now);
        agent.set_messages_per_second(messages_per_second, now);
        if let (Some(recorder), Some(config)) = (&mut recorder, start) {
            recorder.start(config, messages_per_second, now, agent.take_drawn());
        }
        ControlCore {
            agent,
            installer,
            events: Events::default(),
            traces: Traces::new(traces, Arc::clone(&ports)),
            history: History::new(remembered_nodes),
            ports,
            napts,
            blocks: BlockBook::default(),
            counts: Counts::default(),
            visiting_since: BTreeMap::new(),
            punts,
            recorder,
            sessions: None,
            injects,
            buffers: Default::default(),
            next_hops: VecDeque::new(),
        }
    }

    /// Does what the agents ask for at their start. The dataplane may forward from
    /// then on.
    pub fn start(&mut self, now: Instant) {
        let actions = self.do_actions(now);
        if let Some(recorder) = &mut self.recorder {
            recorder.started(actions);
        }
    }

    /// Takes back which address was whose session's, and writes down what becomes of it
    /// from now on.
    pub fn keep_sessions(&mut self, store: SessionStore, lines: Vec<Line>, now: Now) {
        let (mut restored, mut refused) = (0u64, 0u64);
        let mut store = store;
        for Line { tenant, home_agent, session } in lines {
            let restore = Input::RestoreSession { tenant, home_agent, session: session.clone() };
            if self.input(restore, now) {
                restored += 1;
            } else {
                // The NAI or the home agent is gone from the config.
                refused += 1;
                let session = StoredSession { kept: false, ..session };
                store.write(&Line { tenant, home_agent, session });
            }
        }
        if restored + refused > 0 {
            tracing::info!(restored, refused, "sessions have their addresses back");
        }
        self.sessions = Some(store);
    }

    /// The writer of the tables, for what the kernel knows.
    pub const fn installer(&mut self) -> &mut Installer {
        &mut self.installer
    }

    /// The agents.
    pub const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Follows packets, for a client of the admin API.
    pub(crate) fn answer_trace(&mut self, query: TraceQuery, now: Instant) -> Outcome {
        self.traces.answer(query, &mut self.injects, now)
    }

    /// The walks of packets, for who runs the dataplane without an admin API.
    pub const fn traces(&mut self) -> &mut TraceControl {
        self.traces.control()
    }

    /// A next hop that a packet waits for, and the port that it is on: whoever knows
    /// the link is to be asked.
    pub fn next_hop(&mut self) -> Option<(PortId, Ipv4Addr)> {
        self.next_hops.pop_front()
    }

    /// What the agents have to do at `now`, if they do.
    pub fn do_timers(&mut self, now: Now) {
        if self.agent.poll_timeout().is_some_and(|due| due <= now.monotonic) {
            self.input(Input::Timeout, now);
        }
    }

    /// When the agents have something to do, if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.agent.poll_timeout()
    }

    /// Hands the agents an input and does what they ask for. Returns whether an input
    /// that may find nothing found something.
    pub fn input(&mut self, input: Input<'_>, now: Now) -> bool {
        let stored = self.recorder.as_ref().map(|_| Stored::from(&input));
        let found = input.apply(&mut self.agent, now);
        let actions = self.do_actions(now.monotonic);
        if let (Some(recorder), Some(stored)) = (&mut self.recorder, stored) {
            recorder.note(now, stored, self.agent.take_drawn(), actions);
        }
        found
    }

    /// Does what the agents ask for, in their order; gives it back if it is recorded.
    fn do_actions(&mut self, now: Instant) -> Vec<Action> {
        let mut done = Vec::new();
        while let Some(action) = self.agent.poll_action() {
            if let Action::Event(Event::Decision(decision)) = action {
                self.history.record(&decision, now);
                continue;
            }
            if self.recorder.is_some() {
                done.push(action.clone());
            }
            self.note_since(&action, now);
            if self.installer.apply(&action) {
                continue;
            }
            let ports = &self.ports;
            let mac_of = |port: PortId| ports.get(usize::from(port.0)).map(|port| port.mac);
            match action {
                Action::Transmit(packet) => {
                    let injection = inject::transmit(&packet, mac_of);
                    self.send(injection);
                }
                Action::GratuitousArp { port, address, mac } => {
                    let injection = inject::gratuitous_arp(port, address, mac, mac_of);
                    self.send(injection);
                }
                Action::StoreSession { tenant, home_agent, session } => {
                    if let Some(store) = &mut self.sessions {
                        store.write(&Line { tenant, home_agent, session });
                    }
                }
                Action::Event(event) => self.events.record(&event),
                _ => {}
            }
        }
        done
    }

    /// Since when there is a visitor, renewals not counted.
    fn note_since(&mut self, action: &Action, now: Instant) {
        match *action {
            Action::InstallVisitor(ref visitor) => {
                let key = (visitor.tenant, visitor.home_address, visitor.home_agent);
                self.visiting_since.entry(key).or_insert(now);
            }
            Action::RemoveVisitor { tenant, home_address, home_agent } => {
                self.visiting_since.remove(&(tenant, home_address, home_agent));
            }
            _ => {}
        }
    }

    fn send(&mut self, injection: Result<Injection, InjectError>) {
        match injection {
            Ok(injection) => {
                if !self.injects.send(injection.header, &injection.bytes) {
                    self.counts.injects_refused += 1;
                }
            }
            Err(error) => {
                self.counts.inject_errors += 1;
                tracing::warn!(%error, "an agent's packet was not sent");
            }
        }
    }
}
