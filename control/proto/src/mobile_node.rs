//! The mobile node (RFC 5944 §2.4, §3.6): finds out where it is, registers
//! there, stays registered, and says how its host must forward.
//!
//! # Life of a move
//!
//! 1. `handle_link(true)`: it solicits at once, and asks for a co-located
//!    address in parallel ([`MobileNodeAction::StartDhcp`]).
//! 2. The first agent that is heard and serves gets a request. If none is heard
//!    within [`MobileNodeConfig::agent_wait`], the request goes to the home agent
//!    directly, from the co-located address.
//! 3. An accepting reply gives [`MobileNodeAction::UseAttachment`]. Until then
//!    the earlier attachment is kept, so that a better one is tried without
//!    losing what works.
//! 4. The home link is known by its agent's advertisements. There the attachment
//!    comes first, then the deregistration (RFC 5944 §4.6).
//!
//! What the node is attached to is derived from what it hears, in one place:
//! `MobileNode::choose`. Every input ends in `MobileNode::settle`, which
//! starts a registration when the choice is not the one that is under way or in
//! force.
//!
//! # Move detection
//!
//! By lifetime (RFC 5944 §2.4.2.1): an agent that is silent for as long as it
//! said is gone; at two thirds of that time it is asked. By prefix (§2.4.2.2):
//! an agent of another prefix makes the node ask for its own; when that does not
//! answer within [`SUSPICION`], the node has moved. By sequence number (§2.3.2):
//! an agent that counts from the start again has forgotten its visitors.
//!
//! # Tunnels and NATs
//!
//! An encapsulation is asked for by flag, of agents that advertise it. With a
//! co-located address every request says that a UDP tunnel would do (RFC 3519),
//! so that the home agent can grant one when it sees a NAT; or the home agent
//! denies with a challenge, and gets it answered (`negotiate`). What is denied
//! is given up for as long as the link lasts, never asked for again and again.
//! Through a NAT the tunnel is kept alive and watched (`keepalive`); a mapping
//! that is lost makes the node register anew.
//!
//! # A home address that is given
//!
//! A node with a NAI (RFC 2794) and no home address asks for one with its first request
//! (RFC 5944 §3.6.1.2), be it away or at home, and names it from then on. The home agent's
//! word counts: what an accepting reply says is the address
//! ([`MobileNodeAction::UseHomeAddress`]); one that it will not let us have any more is given
//! up, and any is asked for. At home it is told again and again that the address is in use.
//!
//! # Sessions
//!
//! A node with a NAI registers for others too, each with a home address of
//! its own: `session`. They go where the node goes.
//!
//! **Not done:** simultaneous bindings, broadcasts, a co-located address
//! registered through a foreign agent (flag R of RFC 3519), GRE and minimal
//! encapsulation in UDP, the discovery of home agents by broadcast. At home a node without
//! home address is answered by home agents only that are on the home link, and of one NAI
//! only one node can be without: the home agent would take them for the same.

mod action;
mod agent_list;
mod challenge;
mod decide;
mod elapse;
mod keepalive;
mod negotiate;
mod pace;
mod redirect;
mod request;
mod send;
mod session;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::net::Ipv4Addr;
use core::time::Duration;
use homeport_wire::MacAddress;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::config::MobileNodeConfig;
use crate::event::DiscardReason;
use crate::message::advertisement::DiscoveryError;
use crate::message::{AgentAdvertisement, Message, MessageError, MessageString};
use crate::{Encapsulation, Instant, Lifetime, Now};

pub use action::{
    Attachment, CoLocated, MobileNodeAction, MobileNodeEvent, Phase, RegistrationPath,
    SendRegistration,
};
pub use agent_list::{HeardAgent, MAX_AGENTS};
pub use keepalive::{DEFAULT_KEEPALIVE, MIN_KEEPALIVE, SILENCE};

use agent_list::{AgentList, Heard};
use keepalive::Keepalive;
use negotiate::Wishes;
use pace::{Pace, Search};
use redirect::Choice;
pub use redirect::MAX_REDIRECTIONS;
use request::{Identifications, Memory, Pending, Target};
pub use session::{MAX_KNOWN, MAX_NEW, MAX_SESSIONS, RELEASE_ATTEMPTS, Session, SessionError};
use session::{Sessions, Whose};

/// How long the agent of the registration has to answer when one of another
/// prefix was heard.
pub const SUSPICION: Duration = Duration::from_millis(250);

/// When the gratuitous ARP of a homecoming is sent. It is repeated past one
/// second, because Linux ignores changes to an entry younger than that.
pub const ANNOUNCEMENTS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(1100),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// How long a stop waits for its requests to be answered.
pub const STOP_WAIT: Duration = Duration::from_secs(2);

/// A registration in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    target: Target,
    /// Where the tunnel ends; the home address when deregistered at home.
    pub care_of_address: Ipv4Addr,
    /// The lifetime granted; zero at home.
    pub lifetime: Lifetime,
    /// When it ends, counted from the sending of its request (RFC 5944
    /// §3.6.2.2); `None` is never.
    pub expires_at: Option<Instant>,
    /// How the tunnel to the home agent encapsulates, be it ours or the foreign
    /// agent's; without meaning at home.
    pub encapsulation: Encapsulation,
    /// Whether the home agent saw a NAT between us.
    pub nat: bool,
    renew_at: Option<Instant>,
}

/// A mobile node on one interface.
///
/// `handle_*` takes an input; then [`poll_action`](Self::poll_action) is drained;
/// then [`poll_timeout`](Self::poll_timeout) says when to call
/// [`handle_timeout`](Self::handle_timeout) at the latest.
#[derive(Debug)]
pub struct MobileNode {
    config: MobileNodeConfig,
    /// Whether the home agent says which home address it has.
    is_given: bool,
    /// The address to ask for while it has none: what it had before.
    wanted: Option<Ipv4Addr>,
    rng: ChaCha8Rng,
    link_up: bool,
    agents: AgentList,
    search: Search,
    solicitation_pace: Pace,
    /// Until then an agent is waited for before the co-located address is used.
    agent_deadline: Option<Instant>,
    dhcp: bool,
    co_located: Option<(CoLocated, Instant)>,
    identifications: Identifications,
    memory: Memory,
    choice: Choice,
    registration_pace: Pace,
    pending: Option<Pending>,
    registration: Option<Registration>,
    attachment: Attachment,
    wishes: Wishes,
    keepalive: Option<Keepalive>,
    /// The keepalive interval that this place has shown to be short enough.
    shortened: Option<Duration>,
    /// No registration starts before.
    not_before: Option<Instant>,
    denials: u32,
    /// The agent of the registration must be heard until then.
    suspicion: Option<Instant>,
    /// No suspicion rises before: the link simply has agents of two prefixes.
    trust_until: Option<Instant>,
    announcements: Option<(Instant, usize)>,
    stopping: Option<Instant>,
    sessions: Sessions,
    actions: VecDeque<MobileNodeAction>,
}

impl MobileNode {
    /// A node whose link is down. All its randomness comes from `seed`.
    pub fn new(config: MobileNodeConfig, seed: [u8; 32]) -> Self {
        let wishes = Wishes::new(&config);
        MobileNode {
            is_given: config.home_address.is_unspecified(),
            wanted: None,
            config,
            wishes,
            keepalive: None,
            shortened: None,
            rng: ChaCha8Rng::from_seed(seed),
            link_up: false,
            agents: AgentList::default(),
            search: Search::default(),
            solicitation_pace: Pace::default(),
            agent_deadline: None,
            dhcp: false,
            co_located: None,
            identifications: Identifications::default(),
            memory: Memory::default(),
            choice: Choice::default(),
            registration_pace: Pace::default(),
            pending: None,
            registration: None,
            attachment: Attachment::None,
            not_before: None,
            denials: 0,
            suspicion: None,
            trust_until: None,
            announcements: None,
            stopping: None,
            sessions: Sessions::default(),
            actions: VecDeque::new(),
        }
    }

    /// Asks for `wanted` and not for any address, where a home agent gives it one: what it
    /// had before it was started anew. It is not the node's before the home agent has said
    /// so; if it refuses, the node asks for any.
    pub fn ask_for_home_address(&mut self, wanted: Ipv4Addr) {
        self.wanted = Some(wanted).filter(|wanted| self.is_given && is_host(*wanted));
    }

    /// The interface's link came up or went down. With a link that went down
    /// everything that was heard on it is stale.
    pub fn handle_link(&mut self, up: bool, now: Now) {
        if up == self.link_up {
            return;
        }
        self.link_up = up;
        self.event(MobileNodeEvent::Link { up });
        if up && self.stopping.is_none() {
            self.agent_deadline = Some(now.monotonic + self.config.agent_wait);
            self.search.restart(now.monotonic);
            self.solicit_if_due(now.monotonic);
            self.set_dhcp(true);
        } else {
            self.leave_link();
        }
        self.settle(now);
    }

    /// An ICMP message from the link: its IPv4 source and TTL, and the station
    /// that sent the frame.
    pub fn handle_advertisement(
        &mut self,
        source: Ipv4Addr,
        source_mac: MacAddress,
        icmp: &[u8],
        ttl: u8,
        now: Now,
    ) {
        if !self.link_up {
            return;
        }
        // Agents must send them with a TTL of 1 (RFC 5944 §2.1), so any other
        // has come from afar, perhaps through our own tunnel.
        if ttl != 1 {
            return self.discard(source, DiscardReason::BadTtl);
        }
        if !source_mac.is_unicast() || !is_host(source) || source == self.config.home_address {
            return self.discard(source, DiscardReason::Malformed);
        }
        let advertisement = match AgentAdvertisement::parse(icmp) {
            Ok(advertisement) => advertisement,
            // What is no advertisement at all is none of our business.
            Err(DiscoveryError::Type) => return,
            Err(DiscoveryError::UnknownExtension(_)) => {
                return self.discard(source, DiscardReason::UnknownExtension);
            }
            Err(_) => return self.discard(source, DiscardReason::Malformed),
        };
        let now_at = now.monotonic;
        match self.agents.hear(source, source_mac, advertisement, &self.config, now_at) {
            Heard::Ignored => return,
            Heard::Gone => {
                self.event(MobileNodeEvent::AgentLost { address: source });
                self.lose_agent(source, now_at);
            }
            Heard::New => {
                let home = self.agents.get(source).is_some_and(|agent| agent.is_home);
                self.event(MobileNodeEvent::AgentHeard { address: source, mac: source_mac, home });
                self.suspect(source, now_at);
            }
            Heard::Known { restarted, moved } => {
                self.hear_again(source, restarted, moved, now);
            }
        }
        self.settle(now);
    }

    /// DHCP gave a co-located address, or renewed it.
    pub fn handle_co_located(&mut self, co_located: CoLocated, now: Now) {
        if !self.link_up || !self.dhcp {
            return;
        }
        let changed = self.co_located.is_none_or(|(known, _)| known.address != co_located.address);
        self.co_located = Some((co_located, now.monotonic));
        if changed {
            self.lose_co_located(Some(co_located.address));
        }
        if let Attachment::CoLocated { co_located: used, reverse_tunnel, encapsulation } =
            self.attachment
            && (used.gateway, used.prefix_len) != (co_located.gateway, co_located.prefix_len)
        {
            self.attach(Attachment::CoLocated { co_located, reverse_tunnel, encapsulation });
        }
        self.settle(now);
    }

    /// The co-located address may no longer be used.
    pub fn handle_co_located_lost(&mut self, now: Now) {
        self.co_located = None;
        self.lose_co_located(None);
        self.settle(now);
    }

    /// A UDP datagram came to the port that requests leave from.
    pub fn handle_datagram(
        &mut self,
        source: Ipv4Addr,
        source_port: u16,
        payload: &[u8],
        now: Now,
    ) {
        let reply = match Message::parse(payload) {
            Ok(Message::Reply(reply)) => reply,
            Ok(_) | Err(MessageError::UnknownType(_)) => {
                return self.discard(source, DiscardReason::UnknownType);
            }
            Err(_) => return self.discard(source, DiscardReason::Malformed),
        };
        let whose = match self.whose(&reply, (source, source_port)) {
            Ok(whose) => whose,
            Err(reason) => return self.discard(source, reason),
        };
        match whose {
            Whose::Node => self.answered(&reply, now),
            Whose::Session(name) => self.session_answered(&name, &reply, now),
            Whose::Farewell => self.farewell_answered(&reply, now),
        }
        if let Some(text) = MessageString::of(&reply) {
            self.actions.push_back(MobileNodeAction::ShowText(Box::new(text)));
        }
        self.settle(now);
    }

    /// A packet was sent through the tunnel.
    pub fn handle_tunnel_sent(&mut self, now: Now) {
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.sent(now.monotonic);
        }
    }

    /// A packet came out of the tunnel.
    pub fn handle_tunnel_received(&mut self) {
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.received();
        }
    }

    /// Whether an ICMP message of the home agent that came out of the tunnel
    /// answers a keepalive; else it is for the host.
    pub fn is_keepalive_answer(&self, icmp: &[u8]) -> bool {
        self.keepalive.is_some_and(|keepalive| keepalive.is_answer(icmp))
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let at = now.monotonic;
        if self.stopping.is_some_and(|until| until <= at) {
            return self.finish_stop();
        }
        while let Some(address) = self.agents.take_expired(at) {
            self.event(MobileNodeEvent::AgentLost { address });
            self.lose_agent(address, at);
        }
        self.agents.end_refusals(at);
        if self.suspicion.is_some_and(|until| until <= at) {
            self.suspicion = None;
            if let Some(address) = self.current_agent() {
                self.agents.remove(address);
                self.event(MobileNodeEvent::AgentLost { address });
                self.lose_agent(address, at);
            }
        }
        self.not_before = self.not_before.filter(|until| *until > at);
        self.agent_deadline = self.agent_deadline.filter(|deadline| *deadline > at);
        self.expire(at);
        self.retransmit(now);
        self.session_timeouts(now);
        self.keep_alive(now);
        self.renew(now);
        self.announce(at);
        if let Some(address) = self.current_agent()
            && self.agents.probe(address, at)
        {
            self.solicit_once(at);
        }
        self.settle(now);
        self.solicit_if_due(at);
    }

    /// The program ends: deregisters what is away from home and gives the addresses of its
    /// sessions back, for at most [`STOP_WAIT`]. [`MobileNodeAction::Stopped`] says when it
    /// is done.
    pub fn handle_stop(&mut self, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now.monotonic + STOP_WAIT);
        self.search.stop();
        self.agent_deadline = None;
        self.announcements = None;
        self.suspicion = None;
        self.pending = None;
        let registration = self.registration.filter(|_| self.link_up);
        let away =
            registration.filter(|registration| !matches!(registration.target, Target::Home(_)));
        if let Some(Registration { target, care_of_address, .. }) = away {
            let (whom, asked) = (self.identity(), self.ask(target));
            let pending = Pending::new(whom, target, care_of_address, Lifetime::ZERO, asked);
            self.pending = Some(pending);
            self.send(now);
        }
        self.stop_sessions(now);
        self.settle(now);
    }

    /// What to do next; `None` when all is done.
    pub fn poll_action(&mut self) -> Option<MobileNodeAction> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called at the
    /// latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let pending = self.pending.as_ref().map(|pending| pending.retransmit_at);
        if self.stopping.is_some() {
            let times = [self.stopping, pending, self.sessions.poll_timeout()];
            return times.into_iter().flatten().min();
        }
        let announcement = self
            .announcements
            .and_then(|(since, next)| ANNOUNCEMENTS.get(next).map(|after| since + *after));
        [
            pending,
            self.search.due(),
            self.agents.timeout(),
            self.suspicion,
            self.not_before,
            self.registration.and_then(|registration| registration.expires_at),
            self.registration
                .and_then(|registration| registration.renew_at)
                .filter(|_| self.pending.is_none() && self.not_before.is_none()),
            self.agent_deadline,
            self.keepalive.and_then(|keepalive| keepalive.poll_timeout()),
            announcement,
            self.sessions.poll_timeout(),
            self.current_agent().and_then(|address| self.agents.probe_at(address)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What it was told about itself, by its home agent too.
    pub const fn config(&self) -> &MobileNodeConfig {
        &self.config
    }

    /// Whether a home agent says which home address it has, and no config.
    pub const fn is_given_its_address(&self) -> bool {
        self.is_given
    }

    /// Its home address; `None` before a home agent has given it one.
    pub fn home_address(&self) -> Option<Ipv4Addr> {
        Some(self.config.home_address).filter(|address| !address.is_unspecified())
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        match (&self.registration, &self.pending) {
            _ if self.stopping.is_some() => Phase::Stopping,
            _ if !self.link_up => Phase::Disconnected,
            (Some(Registration { target: Target::Home(_), .. }), _) => Phase::AtHome,
            (Some(_), _) => Phase::Registered,
            (None, Some(_)) => Phase::Registering,
            (None, None) if self.denials > 0 => Phase::Denied,
            (None, None) => Phase::Searching,
        }
    }

    /// How the host shall forward now.
    pub const fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// The registration in force.
    pub const fn registration(&self) -> Option<&Registration> {
        self.registration.as_ref()
    }

    /// After how long without traffic the tunnel is kept alive; `None` when there
    /// is no need.
    pub fn keepalive_interval(&self) -> Option<Duration> {
        self.keepalive.map(|keepalive| keepalive.interval)
    }

    /// The agents that are heard on the link.
    pub fn agents(&self) -> &[HeardAgent] {
        self.agents.as_slice()
    }

    /// The home agent's clock less ours, in seconds, as a denial told.
    pub const fn clock_offset(&self) -> i64 {
        self.identifications.offset_seconds()
    }
}

/// Whether an address can be that of one host on the link.
fn is_host(address: Ipv4Addr) -> bool {
    !address.is_unspecified()
        && !address.is_multicast()
        && !address.is_broadcast()
        && !address.is_loopback()
}
