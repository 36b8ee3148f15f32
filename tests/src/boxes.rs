//! A box of a simulated world: the real agents, the real installer and the real
//! dataplane worker on memory ports.

use std::net::Ipv4Addr;

use homeport_control::inject;
use homeport_control::install::{ClaimKeeper, Installer, Tables};
use homeport_control::kernel::Change;
use homeport_control::punted::{self, Punted, Tunnelled};
use homeport_dataplane::launch::{
    Control, DataplaneConfig, InjectSender, PortSetup, PortShared, PuntReceiver, build,
};
use homeport_dataplane::port::mem::{MemLink, MemPort};
use homeport_dataplane::stats::PortStats;
use homeport_dataplane::verdict::DropReason;
use homeport_dataplane::worker::Worker;
use homeport_proto::agent::{Agent, Datagram};
use homeport_proto::config::AgentConfig;
use homeport_proto::decision::{Cause, Judge, Subject};
use homeport_proto::event::Event;
use homeport_proto::message::{Extension, Message, RegistrationRequest, SessionName};
use homeport_proto::{Action, Lifetime, MacAddress, Now, PortId, StoredSession, TenantId};

/// One box: a dataplane and its control core.
pub struct AgentBox {
    /// The protocol machines.
    pub agent: Agent,
    /// What they installed.
    pub installer: Installer,
    /// Every event that they told, in order.
    pub events: Vec<Event>,
    /// Every request that a home agent here accepted, in order.
    pub accepted: Vec<Accepted>,
    /// Every request that a foreign agent here relayed, in order.
    pub relayed: Vec<Relayed>,
    /// What it has to write down, in order.
    pub to_store: Vec<(TenantId, Ipv4Addr, StoredSession)>,
    /// How many inputs the machines had.
    pub inputs: u64,
    config: AgentConfig,
    worker: Worker,
    punts: PuntReceiver,
    injects: InjectSender,
    ports: std::sync::Arc<[PortShared]>,
    links: Vec<MemLink>,
}

/// What a box is made from.
pub struct BoxSetup {
    /// Its ports, numbered in their order.
    pub ports: Vec<BoxPort>,
    /// Its agents.
    pub config: AgentConfig,
    /// What its kernel tells it.
    pub kernel: Vec<Change>,
    /// Draws every chance.
    pub seed: [u64; 2],
    /// Sizes and habits of its dataplane; the seed is taken from above.
    pub dataplane: DataplaneConfig,
    /// Frames that each direction of a link holds.
    pub queue_frames: usize,
}

/// A port of a box.
#[derive(Clone, Debug)]
pub struct BoxPort {
    /// Its name.
    pub name: &'static str,
    /// Whose link it is.
    pub tenant: TenantId,
    /// Its link-layer address.
    pub mac: MacAddress,
    /// Its address.
    pub address: Ipv4Addr,
}

impl BoxPort {
    /// The two ports of most boxes, to the core and to an access link, both of
    /// tenant 0.
    pub fn core_and_access(macs: [MacAddress; 2], addresses: [Ipv4Addr; 2]) -> Vec<Self> {
        let names = ["core", "access"].into_iter();
        let places = names.zip(macs.into_iter().zip(addresses));
        let port = |(name, (mac, address))| BoxPort { name, tenant: TenantId(0), mac, address };
        places.map(port).collect()
    }
}

/// A small dataplane.
pub fn small_dataplane() -> DataplaneConfig {
    DataplaneConfig {
        bindings: 256,
        visitors: 64,
        locals: 64,
        routes: 64,
        source_routes: 64,
        neighbors: 64,
        buffers: 1024,
        ..DataplaneConfig::default()
    }
}

/// A request that a home agent here accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The virtual home agent.
    pub tenant: TenantId,
    /// The request.
    pub request: RegistrationRequest,
    /// The lifetime that its reply grants.
    pub lifetime: Lifetime,
    /// The home address that it is for, whatever it asked for.
    pub home_address: Ipv4Addr,
    /// Whom it names.
    pub name: Option<RequestName>,
}

/// A request that a foreign agent here relayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// The request.
    pub request: RegistrationRequest,
    /// Whom it names.
    pub name: Option<RequestName>,
    /// The challenge of the foreign agent that it answers (RFC 4721).
    pub challenge: Option<Vec<u8>>,
}

/// Whom a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestName {
    /// The NAI.
    pub nai: Vec<u8>,
    /// The session; empty: the node itself.
    pub sub_nai: Vec<u8>,
    /// Whether the address is given back; without a session, those of all.
    pub releases: bool,
}

impl RequestName {
    /// That of a message; `None`: it names nobody.
    pub fn of(message: &[u8]) -> Option<Self> {
        let Ok(Message::Request(request)) = Message::parse(message) else { return None };
        let named = SessionName::of(&request).ok()??;
        let (nai, sub_nai) = (named.name.nai.to_vec(), named.name.sub_nai.to_vec());
        Some(RequestName { nai, sub_nai, releases: named.releases })
    }

    /// Whether it is for a session, or all of them, and not for the node itself.
    pub const fn is_of_sessions(&self) -> bool {
        !self.sub_nai.is_empty() || self.releases
    }
}

impl AgentBox {
    /// The box of a setup.
    pub fn build(setup: BoxSetup, now: Now) -> Self {
        let BoxSetup { ports: places, config, kernel, seed: chances, dataplane, queue_frames } =
            setup;
        let (links, setups): (Vec<MemLink>, Vec<PortSetup>) = places
            .iter()
            .map(|place| {
                let (mem, link) = MemPort::with_queues(place.name, place.mac, 1500, queue_frames);
                let (name, tenant) = (place.name.into(), place.tenant);
                (link, PortSetup { name, tenant, queues: vec![Box::new(mem)], twin: None })
            })
            .unzip();
        let sizes = DataplaneConfig { hash_seed: chances, ..dataplane };
        let (control, mut workers) = build(&sizes, setups).expect("a dataplane");
        let worker = workers.remove(0);
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
            napts: _,
            traces: _,
        } = control;
        let tables =
            Tables { bindings, listeners, visitors, locals, routes, source_routes, neighbors };
        let tenants = places.iter().map(|place| place.tenant).collect();
        let mut installer = Installer::new(tables, tenants, ClaimKeeper::default());
        installer.configure(&config);
        for change in kernel {
            installer.apply_change(change);
        }
        for (port, place) in ports.iter().zip(&places) {
            port.set_address(Some(place.address));
        }
        let mut seed = [0; 32];
        let [first, second] = chances;
        seed[..8].copy_from_slice(&first.to_be_bytes());
        seed[8..16].copy_from_slice(&second.to_be_bytes());
        let agent = Agent::new(config.clone(), seed, now);
        AgentBox {
            agent,
            installer,
            events: Vec::new(),
            accepted: Vec::new(),
            relayed: Vec::new(),
            to_store: Vec::new(),
            inputs: 0,
            config,
            worker,
            punts,
            injects,
            ports,
            links,
        }
    }

    /// Gives a home agent back what it had written down of a session. What it does not take
    /// is written off.
    pub fn restore(
        &mut self,
        tenant: TenantId,
        home_agent: Ipv4Addr,
        session: &StoredSession,
        now: Now,
    ) {
        if !self.agent.restore_session(tenant, home_agent, session, now) {
            let gone = StoredSession { kept: false, ..session.clone() };
            self.to_store.push((tenant, home_agent, gone));
        }
    }

    /// What it was told.
    pub const fn config(&self) -> &AgentConfig {
        &self.config
    }

    /// How many packets it dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.ports.iter().map(|port| port.sum(|stats| stats.dropped(reason).get())).sum()
    }

    /// Checks that each packet got exactly one verdict.
    pub fn assert_conserved(&self) {
        if let Err(text) = self.conservation() {
            panic!("{text}");
        }
    }

    /// Whether each packet got exactly one verdict.
    ///
    /// # Errors
    /// What does not add up, in words.
    pub fn conservation(&self) -> Result<(), String> {
        for port in self.ports.iter() {
            let (put_in, out) = (port.sum(PortStats::total_in), port.sum(PortStats::total_out));
            if put_in != out {
                let (name, address) = (&port.name, port.address());
                return Err(format!(
                    "{put_in} packets came in at port {name} ({address:?}), {out} have a verdict"
                ));
            }
        }
        let sum = |count: fn(&PortStats) -> u64| -> u64 {
            self.ports.iter().map(|port| port.sum(count)).sum()
        };
        let (counted, sent) = (sum(|port| port.transmitted.get()), sum(|port| port.tx.get()));
        if counted != sent {
            return Err(format!("{counted} packets were counted as transmitted, {sent} were sent"));
        }
        Ok(())
    }

    /// How many packets wait in it for something.
    pub fn held(&self) -> u64 {
        self.ports.iter().map(|port| port.sum(|stats| stats.held.get())).sum()
    }

    /// How many packet buffers are free.
    pub fn free_buffers(&self) -> usize {
        self.worker.free_buffers().0
    }

    /// Its links, in the order of its ports.
    pub fn links(&self) -> &[MemLink] {
        &self.links
    }

    /// Does everything that is due now, until nothing is.
    pub fn run(&mut self, now: Now, instant: std::time::Instant) {
        if self.agent.poll_timeout().is_some_and(|due| due <= now.monotonic) {
            self.agent.handle_timeout(now);
            self.inputs += 1;
        }
        loop {
            self.do_actions();
            let worked = self.worker.run_once(instant);
            let punted = self.take_punts(now);
            if !worked && !punted {
                return;
            }
        }
    }

    fn take_punts(&mut self, now: Now) -> bool {
        let mut buffer = Vec::new();
        let mut any = false;
        while let Some((header, frame)) = self.punts.next(&mut buffer) {
            any = true;
            self.inputs += 1;
            let events = self.events.len();
            let mut request = None;
            let (tenant, port) = (header.tenant(), header.port());
            match punted::parse(&header, frame) {
                Ok(Punted::Registration { packet, source_port, destination_port, payload }) => {
                    let datagram = Datagram {
                        tenant,
                        port,
                        source_mac: packet.source_mac,
                        destination_mac: packet.destination_mac,
                        source: packet.source,
                        destination: packet.destination,
                        source_port,
                        destination_port,
                        ttl: packet.ttl,
                        payload,
                    };
                    self.agent.handle_datagram(&datagram, now);
                    let name = RequestName::of(payload);
                    let parsed = RegistrationRequest::parse(payload).ok();
                    request = parsed.map(|one| (one, name, payload));
                }
                Ok(Punted::Solicitation { packet, icmp }) => {
                    let (mac, source, ttl) = (packet.source_mac, packet.source, packet.ttl);
                    self.agent.handle_solicitation(tenant, port, mac, source, ttl, icmp, now);
                }
                Ok(Punted::Keepalive { tunnelled, icmp }) => {
                    self.agent.handle_keepalive(&tunnelled.echo(tenant, icmp), now);
                }
                Ok(Punted::Rebound(Tunnelled { outer, source_port, inner_source, .. })) => {
                    let (agent, source) = (&mut self.agent, outer.source);
                    agent.handle_rebound(tenant, inner_source, source, source_port, now);
                }
                _ => {}
            }
            self.do_actions();
            if let Some((request, name, payload)) = request {
                self.note_accepted(request, name.as_ref(), events);
                self.note_relayed(request, name, payload, events);
            }
        }
        any
    }

    /// Notes a request that was accepted, as the events behind the first so many tell.
    fn note_accepted(
        &mut self,
        request: RegistrationRequest,
        name: Option<&RequestName>,
        events: usize,
    ) {
        for event in &self.events[events..] {
            if let Event::HomeRegistration { tenant, home_address, code: 0 | 1, lifetime, .. } =
                *event
            {
                let name = name.cloned();
                self.accepted.push(Accepted { tenant, request, lifetime, home_address, name });
            }
        }
    }

    /// The same of one that was relayed.
    fn note_relayed(
        &mut self,
        request: RegistrationRequest,
        name: Option<RequestName>,
        payload: &[u8],
        events: usize,
    ) {
        let is_relayed = self.events[events..].iter().any(|event| {
            matches!(event, Event::Decision(decision)
                if matches!(decision.judge, Judge::ForeignAgent(_))
                    && decision.subject == Subject::Request
                    && decision.ruling.cause == Cause::Relayed)
        });
        if is_relayed {
            let challenge = challenge_of(payload);
            self.relayed.push(Relayed { request, name, challenge });
        }
    }

    fn do_actions(&mut self) {
        while let Some(action) = self.agent.poll_action() {
            if self.installer.apply(&action) {
                continue;
            }
            let mac_of = |port: PortId| self.ports.get(usize::from(port.0)).map(|port| port.mac);
            let injection = match action {
                Action::Transmit(packet) => inject::transmit(&packet, mac_of),
                Action::GratuitousArp { port, address, mac } => {
                    inject::gratuitous_arp(port, address, mac, mac_of)
                }
                Action::Event(event) => {
                    self.events.push(event);
                    continue;
                }
                Action::StoreSession { tenant, home_agent, session } => {
                    self.to_store.push((tenant, home_agent, session));
                    continue;
                }
                _ => continue,
            }
            .expect("a packet that can be sent");
            assert!(
                self.injects.send(injection.header, &injection.bytes),
                "the inject ring is full"
            );
        }
    }
}

/// The foreign agent's challenge in a message: behind the mobile-home authentication (RFC
/// 4721 §3.1, §3.3).
pub fn challenge_of(message: &[u8]) -> Option<Vec<u8>> {
    let message = Message::parse(message).ok()?;
    let (start, extensions) = match &message {
        Message::Request(request) => (request.mobile_home_authentication(), request.extensions()),
        Message::Reply(reply) => (reply.mobile_home_authentication(), reply.extensions()),
        _ => return None,
    };
    let start = start.map_or(0, |one| one.offset);
    extensions.iter().filter(|one| one.offset >= start).find_map(|one| match one.extension {
        Extension::Challenge(challenge) => Some(challenge.to_vec()),
        _ => None,
    })
}
