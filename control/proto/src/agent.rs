//! One process's home agents, foreign agents and advertisers behind one set of
//! inputs and outputs.

mod config;
mod context;
mod replies;
mod revocation;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::net::Ipv4Addr;
use homeport_wire::{MOBILE_IP_PORT, MacAddress, PortId, TenantId};
use smallvec::SmallVec;

use self::context::Shared;
pub(crate) use self::context::{AgentKey, Context, Token};
use self::replies::Replies;
use crate::action::StoredSession;
use crate::advertiser::{Advertiser, Tidings};
use crate::binding::MobilityBinding;
use crate::config::AgentConfig;
use crate::counters::Counters;
use crate::decision::{Cause, Decision, Judge};
use crate::draws::{Differing, Drawn, Draws};
use crate::event::DiscardReason;
use crate::foreign_agent::ForeignAgent;
use crate::home_agent::HomeAgent;
use crate::home_agent::assignment::requested;
use crate::home_agent::foresight::{Ahead, Hints};
use crate::keepalive::TunnelledEcho;
use crate::limits::{MESSAGES_PER_SECOND, SourceBudgets};
use crate::message::{Message, MessageError, Received, RegistrationRequest};
use crate::security::lanes::{WORTH_IT, Wanted};
use crate::timer::Timers;
use crate::visitor::Visitor;
use crate::{Action, Instant, Now};

/// A UDP datagram to port 434, its checksum found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The tenant of the port or address that it came to.
    pub tenant: TenantId,
    /// The port of the dataplane that it came in on.
    pub port: PortId,
    /// The station that it came from on that link.
    pub source_mac: MacAddress,
    /// The station that it was sent to.
    pub destination_mac: MacAddress,
    /// IPv4 source.
    pub source: Ipv4Addr,
    /// IPv4 destination.
    pub destination: Ipv4Addr,
    /// UDP source port.
    pub source_port: u16,
    /// UDP destination port.
    pub destination_port: u16,
    /// Time to live as it arrived.
    pub ttl: u8,
    /// The UDP payload.
    pub payload: &'a [u8],
}

/// Datagrams that are [looked at](Agent::foresee) together: more would push one another out
/// of the cache, and with fewer some of the memory would be waited for.
pub const TOGETHER: usize = 16;

/// The agents of one process.
///
/// * Inputs: [`handle_datagram`](Self::handle_datagram),
///   [`handle_solicitation`](Self::handle_solicitation),
///   [`handle_unreachable`](Self::handle_unreachable),
///   [`handle_keepalive`](Self::handle_keepalive),
///   [`handle_rebound`](Self::handle_rebound),
///   [`handle_config`](Self::handle_config),
///   [`clear_binding`](Self::clear_binding), [`clear_visitor`](Self::clear_visitor),
///   [`handle_timeout`](Self::handle_timeout).
/// * Outputs, after each input: [`poll_action`](Self::poll_action) until `None`,
///   then [`poll_timeout`](Self::poll_timeout).
///
/// The same inputs and seed give the same outputs.
#[derive(Debug)]
pub struct Agent {
    home_agents: BTreeMap<AgentKey, HomeAgent>,
    foreign_agents: BTreeMap<AgentKey, ForeignAgent>,
    advertisers: BTreeMap<(TenantId, PortId), Advertiser>,
    budgets: SourceBudgets,
    shared: Shared,
}

impl Agent {
    /// The agents of `config`. `seed` must be unpredictable: nonces come of it.
    pub fn new(config: AgentConfig, seed: [u8; 32], now: Now) -> Agent {
        Agent::with_draws(config, Draws::live(seed), now)
    }

    /// The same, drawing what keys and chance give from `draws`.
    pub fn with_draws(config: AgentConfig, mut draws: Draws, now: Now) -> Agent {
        let mut agent = Agent {
            home_agents: BTreeMap::new(),
            foreign_agents: BTreeMap::new(),
            advertisers: BTreeMap::new(),
            budgets: SourceBudgets::new(draws.long_number(), MESSAGES_PER_SECOND, now.monotonic),
            shared: Shared {
                actions: VecDeque::new(),
                timers: Timers::new(),
                counters: BTreeMap::new(),
                draws,
                replies: Replies::default(),
                hints: Hints::default(),
                local: BTreeSet::new(),
                #[cfg(feature = "planted-bugs")]
                last_ntp: now.ntp,
            },
        };
        agent.handle_config(config, now);
        agent
    }

    /// What was drawn since this was asked last, if it is [noted](Draws::noted).
    pub fn take_drawn(&mut self) -> Drawn {
        self.shared.draws.take()
    }

    /// Gives what the next input will draw, from now on instead of seed and keys.
    pub fn give(&mut self, drawn: Drawn) {
        self.shared.draws.give(drawn);
    }

    /// How far what was drawn since then differs from what was given: if at all, this
    /// is not the run that it was noted of.
    pub fn differing(&self) -> Differing {
        self.shared.draws.differing()
    }

    /// Lets each source prefix send so many messages in a second, instead of
    /// [`MESSAGES_PER_SECOND`]; every budget is full again.
    pub fn set_messages_per_second(&mut self, per_second: u32, now: Now) {
        let seed = self.shared.draws.long_number();
        self.budgets = SourceBudgets::new(seed, per_second, now.monotonic);
    }

    /// Looks ahead at a few datagrams, [`TOGETHER`] at most, before the first of them is
    /// handled: so what requests among them need is waited for together, and not by one
    /// after the other, which with millions of nodes is most of the time. `prepare` is
    /// told of each of these the tenant and the home address that it is likely to be
    /// about. Changes nothing that could be seen, but for when packets are sent: not before
    /// [`sign_replies`](Self::sign_replies) is called, behind the last of the datagrams.
    pub fn foresee<'b>(
        &mut self,
        datagrams: impl IntoIterator<Item = Datagram<'b>>,
        mut prepare: impl FnMut(TenantId, Ipv4Addr),
    ) {
        let mut requests: SmallVec<[(TenantId, Ahead<'_>); TOGETHER]> = SmallVec::new();
        for datagram in datagrams.into_iter().take(TOGETHER) {
            let Ok(request) = RegistrationRequest::parse(datagram.payload) else { continue };
            let tenant = datagram.tenant;
            let of = |address| self.home_agents.get(&(tenant, address));
            if let Some(agent) = of(datagram.destination).or_else(|| of(request.home_agent)) {
                let ahead = Ahead::new(agent, request.home_address, datagram.payload);
                requests.push((tenant, ahead));
            }
        }
        let mut newcomers = 0;
        requests.iter_mut().for_each(|(_, ahead)| ahead.find_session());
        requests.iter_mut().for_each(|(_, ahead)| ahead.find_subscriber(&mut newcomers));
        requests.iter_mut().for_each(|(_, ahead)| ahead.find_records());
        requests.iter().for_each(|(_, ahead)| ahead.find_place());
        self.shared.hints.clear();
        for (tenant, ahead) in &requests {
            self.shared.hints.add(ahead);
            ahead.prepare();
            prepare(*tenant, ahead.home_address);
        }
        let signatures = requests.iter().filter_map(|(_, ahead)| ahead.signature());
        let signatures: SmallVec<[Wanted<'_>; TOGETHER]> = signatures.collect();
        self.shared.draws.precompute(&signatures);
        if signatures.len() >= WORTH_IT && self.shared.draws.are_live() {
            self.shared.replies.hold_back();
        }
    }

    /// Signs the replies to what was [foreseen](Self::foresee), and sends them and all that
    /// was to be sent since then, in that order. Who forgets it has them sent
    /// by [`handle_timeout`](Self::handle_timeout), which is due at once as long as there
    /// are any.
    pub fn sign_replies(&mut self) {
        let Shared { actions, replies, .. } = &mut self.shared;
        actions.extend(replies.sign().map(Action::Transmit));
    }

    /// A datagram for one of the agents.
    pub fn handle_datagram(&mut self, datagram: &Datagram<'_>, now: Now) {
        let mut context = self.shared.context(datagram.tenant, now);
        context.counters.messages_received += 1;
        if let Some(cause) = insane(datagram, &context) {
            context.turn_away(datagram, cause);
            return;
        }
        if !self.budgets.take(datagram.source, now.monotonic) {
            context.turn_away(datagram, Cause::RateLimited);
            return;
        }
        match Message::parse(datagram.payload) {
            Ok(Message::Request(received)) => {
                context.counters.requests_received += 1;
                self.handle_request(datagram, &received, now);
            }
            Ok(Message::Reply(received)) => {
                context.counters.replies_received += 1;
                let key = (datagram.tenant, datagram.destination);
                match self.foreign_agents.get_mut(&key) {
                    Some(agent) => agent.handle_reply(datagram, &received, &mut context),
                    None => {
                        let cause = Cause::UnexpectedReply;
                        context.refuse(datagram, cause);
                        let decision = Decision::of_stray(datagram, &received, cause);
                        context.tell(Judge::Nobody, decision);
                    }
                }
            }
            Ok(Message::Revocation(received)) => self.handle_revocation(datagram, &received, now),
            Ok(Message::Acknowledgement(received)) => {
                self.handle_acknowledgement(datagram, &received, now);
            }
            Err(MessageError::UnknownType(_)) => {
                context.discard(datagram, DiscardReason::UnknownType);
            }
            Err(MessageError::Truncated | MessageError::TooLong) => {
                context.turn_away(datagram, Cause::Truncated);
            }
        }
    }

    /// Finds the agent that a request is for. A request to a foreign agent here
    /// that names a home agent here is the home agent's (RFC 5944 §3.7.2).
    fn handle_request<'b>(
        &mut self,
        datagram: &Datagram<'b>,
        received: &Received<'b, RegistrationRequest>,
        now: Now,
    ) {
        let Datagram { tenant, port, source, destination, .. } = *datagram;
        let mut context = self.shared.context(tenant, now);
        let foreign_agent = self
            .foreign_agents
            .values_mut()
            .filter(|agent| agent.config().tenant == tenant)
            .find(|agent| agent.serves(port, destination));
        let home_agent = if self.home_agents.contains_key(&(tenant, destination)) {
            Some((tenant, destination))
        } else if foreign_agent.is_some() {
            Some((tenant, requested(received).unwrap_or(received.body.home_agent)))
                .filter(|key| self.home_agents.contains_key(key))
        } else {
            self.home_agents
                .iter()
                .find(|((of, _), agent)| *of == tenant && agent.is_discovery(port, destination))
                .map(|(key, _)| *key)
        };
        if let Some(agent) = home_agent.and_then(|key| self.home_agents.get_mut(&key)) {
            // Nothing can be answered to nobody, but for a station of the home link.
            if source.is_unspecified() && !agent.is_from_home_link(datagram) {
                context.turn_away(datagram, Cause::BadSource);
            } else {
                agent.handle_request(datagram, received, &mut context);
            }
        } else if let Some(agent) = foreign_agent {
            agent.handle_request(datagram, received, &mut context);
        } else {
            context.turn_away(datagram, Cause::NoAgentHere);
        }
    }

    /// An agent solicitation: `icmp` is the message from its type to its end.
    #[expect(clippy::too_many_arguments, reason = "the fields of one packet")]
    pub fn handle_solicitation(
        &mut self,
        tenant: TenantId,
        port: PortId,
        source_mac: MacAddress,
        source: Ipv4Addr,
        ttl: u8,
        icmp: &[u8],
        now: Now,
    ) {
        let tidings = self.tidings(tenant, port, Some(source), now);
        let mut context = self.shared.context(tenant, now);
        let result = if context.is_local(source) {
            Err(DiscardReason::OwnAddress)
        } else {
            match self.advertisers.get_mut(&(tenant, port)) {
                Some(advertiser) => advertiser.handle_solicitation(
                    source_mac,
                    source,
                    ttl,
                    icmp,
                    tidings,
                    &mut context,
                ),
                None => Err(DiscardReason::NotServed),
            }
        };
        if let Err(reason) = result {
            context.discard_from(tenant, source, reason);
        }
    }

    /// An ICMP error from `source`, perhaps about a request that was relayed:
    /// `icmp` is the message from its type to its end.
    pub fn handle_unreachable(
        &mut self,
        tenant: TenantId,
        source: Ipv4Addr,
        icmp: &[u8],
        now: Now,
    ) {
        let mut context = self.shared.context(tenant, now);
        if !self.budgets.take(source, now.monotonic) {
            context.discard_from(tenant, source, DiscardReason::RateLimited);
            return;
        }
        let found = self
            .foreign_agents
            .values_mut()
            .filter(|agent| agent.config().tenant == tenant)
            .any(|agent| agent.handle_unreachable(icmp, &mut context));
        if !found {
            context.discard_from(tenant, source, DiscardReason::NotPending);
        }
    }

    /// An echo message came out of a UDP tunnel that is half-bound or unproven
    /// (RFC 3519 §4.6).
    pub fn handle_keepalive(&mut self, echo: &TunnelledEcho<'_>, now: Now) {
        let TunnelledEcho { tenant, source, destination, .. } = *echo;
        let mut context = self.shared.context(tenant, now);
        let result = if !self.budgets.take(source, now.monotonic) {
            Err(DiscardReason::RateLimited)
        } else {
            match self.home_agents.get_mut(&(tenant, destination)) {
                Some(agent) => agent.handle_keepalive(echo, &mut context),
                None => Err(DiscardReason::WrongDestination),
            }
        };
        if let Err(reason) = result {
            context.discard_from(tenant, source, reason);
        }
    }

    /// Data came out of a UDP tunnel from the right outer address and the wrong
    /// port; `inner_source` is the node, or behind it.
    pub fn handle_rebound(
        &mut self,
        tenant: TenantId,
        inner_source: Ipv4Addr,
        source: Ipv4Addr,
        source_port: u16,
        now: Now,
    ) {
        let mut context = self.shared.context(tenant, now);
        let result = if !self.budgets.take(source, now.monotonic) {
            Err(DiscardReason::RateLimited)
        } else {
            self.home_agents
                .values_mut()
                .filter(|agent| agent.config().tenant == tenant)
                .find_map(|agent| Some((agent.bound_address(inner_source)?, agent)))
                .ok_or(DiscardReason::StrayKeepalive)
                .and_then(|(home_address, agent)| {
                    agent.handle_rebound(home_address, source, source_port, &mut context)
                })
        };
        if let Err(reason) = result {
            context.discard_from(tenant, source, reason);
        }
    }

    /// Removes a node's binding at an operator's word; whether it had one. Its
    /// identifications stay accepted. Foreign agents that revocations were agreed on with
    /// free the visitor and tell it (RFC 3543); else nobody is told.
    pub fn clear_binding(&mut self, tenant: TenantId, home_address: Ipv4Addr, now: Now) -> bool {
        let mut context = self.shared.context(tenant, now);
        let mut cleared = false;
        for agent in self.home_agents.values_mut() {
            if agent.config().tenant == tenant {
                cleared |= agent.clear(home_address, &mut context);
            }
        }
        cleared
    }

    /// Gives a home agent back what it had [stored](Action::StoreSession) of a session
    /// before the process started. Whether it could take it: the NAI may be gone, or the
    /// address another's.
    pub fn restore_session(
        &mut self,
        tenant: TenantId,
        home_agent: Ipv4Addr,
        session: &StoredSession,
        now: Now,
    ) -> bool {
        let mut context = self.shared.context(tenant, now);
        let agent = self.home_agents.get_mut(&(tenant, home_agent));
        agent.is_some_and(|agent| agent.restore_session(session, &mut context))
    }

    /// Does what is due at `now`. However many bindings end at once, one call ends a
    /// bounded number of them; [`poll_timeout`](Self::poll_timeout) then gives a time
    /// that has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        #[cfg(feature = "planted-bugs")]
        self.shared.lose_a_timer(now);
        self.sign_replies();
        for (key, agent) in &mut self.home_agents {
            agent.handle_timeout(&mut self.shared.context(key.0, now));
        }
        while let Some(token) = self.shared.timers.pop_due(now.monotonic) {
            match token {
                Token::Proof(key, home_address) => {
                    if let Some(agent) = self.home_agents.get_mut(&key) {
                        agent.ask(home_address, &mut self.shared.context(key.0, now));
                    }
                }
                Token::Announcement(key, address) => {
                    if let Some(agent) = self.home_agents.get_mut(&key) {
                        agent.handle_announcement(address, &mut self.shared.context(key.0, now));
                    }
                }
                Token::Visitor(key, visitor) => {
                    if let Some(agent) = self.foreign_agents.get_mut(&key) {
                        agent.handle_expiry(visitor, &mut self.shared.context(key.0, now));
                    }
                }
                Token::Keepalive(key, visitor) => {
                    if let Some(agent) = self.foreign_agents.get_mut(&key) {
                        agent.keep_alive(visitor, &mut self.shared.context(key.0, now));
                    }
                }
                Token::HomeRevocation(key, revocation) => {
                    if let Some(agent) = self.home_agents.get_mut(&key) {
                        agent.repeat_revocation(revocation, &mut self.shared.context(key.0, now));
                    }
                }
                Token::ForeignRevocation(key, revocation) => {
                    if let Some(agent) = self.foreign_agents.get_mut(&key) {
                        agent.repeat_revocation(revocation, &mut self.shared.context(key.0, now));
                    }
                }
                Token::Pending(key, pending) => {
                    if let Some(agent) = self.foreign_agents.get_mut(&key) {
                        let context = &mut self.shared.context(key.0, now);
                        agent.handle_pending_timeout(pending, context);
                    }
                }
                Token::Advertiser(tenant, port) => {
                    let tidings = self.tidings(tenant, port, None, now);
                    if let Some(advertiser) = self.advertisers.get_mut(&(tenant, port)) {
                        advertiser.handle_timeout(tidings, &mut self.shared.context(tenant, now));
                    }
                }
            }
        }
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.shared.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiries = self.home_agents.values().filter_map(HomeAgent::poll_timeout);
        let held = (!self.shared.replies.is_empty()).then_some(Instant(0));
        expiries.chain(self.shared.timers.next()).chain(held).min()
    }

    /// The home agents, ordered by tenant and address.
    pub fn home_agents(&self) -> impl ExactSizeIterator<Item = &HomeAgent> {
        self.home_agents.values()
    }

    /// The foreign agents, ordered by tenant and care-of address.
    pub fn foreign_agents(&self) -> impl ExactSizeIterator<Item = &ForeignAgent> {
        self.foreign_agents.values()
    }

    /// Every mobility binding, ordered by tenant, home agent and home address.
    pub fn bindings(&self) -> impl Iterator<Item = MobilityBinding> {
        self.home_agents().flat_map(HomeAgent::bindings)
    }

    /// Every visitor, ordered by tenant, care-of address, home address and home agent.
    pub fn visitors(&self) -> impl Iterator<Item = &Visitor> {
        self.foreign_agents().flat_map(ForeignAgent::visitors)
    }

    /// The counters of every tenant that had anything to count, in their order.
    pub fn counters(&self) -> impl Iterator<Item = (TenantId, &Counters)> {
        self.shared.counters.iter().map(|(tenant, counters)| (*tenant, counters))
    }

    /// What is advertised on a link at this time, to all or to who asked.
    fn tidings(
        &mut self,
        tenant: TenantId,
        port: PortId,
        asked_by: Option<Ipv4Addr>,
        now: Now,
    ) -> Tidings {
        let busy = self.is_busy(tenant, port);
        let advertiser = self.advertisers.get(&(tenant, port));
        let first = advertiser.and_then(|one| one.config().care_of_addresses.first().copied());
        let agent = first.and_then(|first| self.foreign_agents.get_mut(&(tenant, first)));
        let mut context = self.shared.context(tenant, now);
        let challenge =
            agent.and_then(|agent| agent.advertised_challenge(port, asked_by, &mut context));
        Tidings { busy, challenge }
    }

    /// Whether a foreign agent that is advertised on a link takes no more nodes.
    fn is_busy(&self, tenant: TenantId, port: PortId) -> bool {
        self.advertisers.get(&(tenant, port)).is_some_and(|advertiser| {
            let addresses = &advertiser.config().care_of_addresses;
            !addresses.is_empty()
                && addresses.iter().all(|address| {
                    self.foreign_agents.get(&(tenant, *address)).is_some_and(ForeignAgent::is_busy)
                })
        })
    }
}

/// Whether an address can be that of one host.
pub(crate) fn is_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first < 224 && !address.is_loopback()
}

/// What is wrong with a datagram before its payload is looked at.
fn insane(datagram: &Datagram<'_>, context: &Context<'_>) -> Option<Cause> {
    let source = datagram.source;
    if datagram.destination_port != MOBILE_IP_PORT {
        Some(Cause::NoAgentHere)
    } else if context.is_local(source) {
        Some(Cause::OwnAddress)
    } else if datagram.source_port == 0 || !is_host(source) && !source.is_unspecified() {
        Some(Cause::BadSource)
    } else {
        None
    }
}
