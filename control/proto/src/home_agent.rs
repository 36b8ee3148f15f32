//! The home agent (RFC 5944 §3.8, RFC 3024 §4.3; RFC 2002 §3.8 by profile).
//!
//! A request is judged in this order, and nothing is remembered of it before it
//! is authentic: extensions that must be known, foreign-home association (by
//! source address and SPI), mobile-home association (by home address and SPI),
//! authenticators, identification, foreign-home result, validity. Only then the
//! binding changes; the forwarding state is asked for before the reply.
//!
//! Codes given: 0, 1, 129 to 139. Code 128 ("reason unspecified") is given for
//! nothing: every denial here has a reason.
//!
//! Decisions where the text leaves a choice:
//! * Denial 131 is sent only where RFC 5944 §3.8.2.1 demands it, or where no
//!   foreign-home association exists and it is no longer than the request, and
//!   not to port 434 unless the source is the care-of address, that is, a
//!   foreign agent: so it can neither amplify nor start a loop between servers.
//!   With RFC 2002 a request without any authentication gets a (longer) 131.
//! * A fresh and authentic identification counts as accepted even when the
//!   request is then denied, so that a denied request cannot be replayed later.
//! * Without support for simultaneous bindings (at most one), every accepted
//!   registration gets code 1 (RFC 5944 §3.8.3.2).
//! * The foreign-home authentication is in every reply to a foreign agent that
//!   an association is shared with (§3.8.3.3).
//!
//! **Not done:** home addresses assigned by NAI (RFC 2794): a home address of
//! zero has no association. Generalized authentication (RFC 4721). Minimal and
//! GRE encapsulation are denied with 139. A reply to a foreign agent whose
//! care-of address another one deregistered (a MAY). A foreign agent of this
//! very process cannot be the care-of address (129).

mod judge;
mod reply;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use homeport_wire::{MacAddress, PortId};

use crate::action::CareOf;
use crate::agent::{AgentKey, Context, Datagram, Token};
use crate::binding::{BindingList, MobilityBinding, Registration};
use crate::config::{HomeAgentConfig, HomeNetwork};
use crate::event::{DiscardReason, Event};
use crate::identification::{Freshness, NonceHistory, TimestampHistory};
use crate::limits::{DENIALS_PER_SECOND, MAX_SIMULTANEOUS, TokenBucket};
use crate::message::extension::ExtensionError;
use crate::message::{Identification, Received, RegistrationRequest, ReplyCode, RequestFlags};
use crate::security::{MobilitySecurityAssociation, ReplayProtection, Spi};
use crate::{Action, Encapsulation, Instant, Lifetime, NtpTime};

type Association = Arc<MobilitySecurityAssociation>;

/// When a gratuitous ARP is sent, from the change on. Past one second, because
/// neighbours ignore a change to an entry that is younger than their locktime.
const ANNOUNCEMENT_SCHEDULE: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(1_100),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// One virtual home agent.
#[derive(Debug)]
pub struct HomeAgent {
    config: HomeAgentConfig,
    bindings: BindingList,
    /// What is remembered of nodes with an association; bounded by their number.
    nodes: BTreeMap<Ipv4Addr, Node>,
    announcements: BTreeMap<Ipv4Addr, Announcement>,
    /// No timestamp before it is fresh: when this agent started.
    started: NtpTime,
}

/// What is remembered of a node beside its binding.
#[derive(Debug)]
struct Node {
    timestamps: TimestampHistory,
    nonces: BTreeMap<Spi, NonceHistory>,
    /// The last request that was fresh, and its answer.
    answered: Option<(Identification, ReplyCode)>,
    last_failed_authentication: Option<Instant>,
    denials: TokenBucket,
}

/// A gratuitous ARP that is being repeated.
#[derive(Debug)]
struct Announcement {
    port: PortId,
    mac: Option<MacAddress>,
    begun: Instant,
    /// The next step of the schedule.
    step: usize,
}

/// The foreign-home authentication of a request, with the association for the
/// reply where one is shared with the request's source.
enum ForeignHome {
    NotShared,
    Missing(Association),
    Invalid(Association),
    Valid(Association),
}

impl ForeignHome {
    const fn association(&self) -> Option<&Association> {
        match self {
            ForeignHome::NotShared => None,
            ForeignHome::Missing(one) | ForeignHome::Invalid(one) | ForeignHome::Valid(one) => {
                Some(one)
            }
        }
    }
}

/// A request with what is needed to answer it.
struct Asked<'a, 'b> {
    datagram: &'a Datagram<'b>,
    received: &'a Received<'b, RegistrationRequest>,
    request: RegistrationRequest,
    association: Association,
    foreign_home: ForeignHome,
}

impl HomeAgent {
    pub(crate) const fn new(config: HomeAgentConfig, started: NtpTime) -> Self {
        HomeAgent {
            config,
            bindings: BindingList::new(),
            nodes: BTreeMap::new(),
            announcements: BTreeMap::new(),
            started,
        }
    }

    /// What it was told.
    pub const fn config(&self) -> &HomeAgentConfig {
        &self.config
    }

    /// Its mobility bindings, ordered by home address.
    pub fn bindings(&self) -> impl ExactSizeIterator<Item = &MobilityBinding> {
        self.bindings.values()
    }

    /// The binding of a home address.
    pub fn binding(&self, home_address: Ipv4Addr) -> Option<&MobilityBinding> {
        self.bindings.get(&home_address)
    }

    /// Whether a datagram to `destination` that came in on `port` may be a
    /// discovery of home agents (RFC 5944 §3.8.2.1).
    pub(crate) fn is_discovery(&self, port: PortId, destination: Ipv4Addr) -> bool {
        self.config.home_networks.iter().any(|network| {
            destination == network.prefix.broadcast()
                || destination.is_broadcast() && network.link == Some(port)
        })
    }

    pub(crate) fn handle_request(
        &mut self,
        datagram: &Datagram<'_>,
        received: &Received<'_, RegistrationRequest>,
        context: &mut Context<'_>,
    ) {
        if let Err(reason) = self.answer(datagram, received, context) {
            context.discard(datagram, reason);
        }
    }

    /// Answers a request, or says why it gets no answer.
    fn answer(
        &mut self,
        datagram: &Datagram<'_>,
        received: &Received<'_, RegistrationRequest>,
        context: &mut Context<'_>,
    ) -> Result<(), DiscardReason> {
        // RFC 5944 §1.8: an unknown extension below 128 silences the message.
        if let Some(ExtensionError::Unknown { .. }) = received.defect() {
            return Err(DiscardReason::UnknownExtension);
        }
        let foreign_home = self.foreign_home(datagram, received)?;
        let (association, authentic) = self.authenticate(received)?;
        let request = received.body;
        let asked = Asked { datagram, received, request, association, foreign_home };
        if !authentic {
            self.deny_failed_authentication(&asked, context);
            return Err(DiscardReason::BadMobileHomeAuthenticator);
        }
        let code = match self.judge_identification(&asked, context) {
            Freshness::Fresh => {
                // RFC 5944 §3.8.2.1 c. The identification is accepted only behind
                // it: else a forger between could burn a node's timestamp.
                if let Err(code) = self.check_foreign_home(&asked) {
                    self.deny(&asked, Freshness::Fresh, code, context);
                    return Ok(());
                }
                self.accept_identification(&asked, context);
                let verdict = self.validate(&asked, context);
                let code = verdict.err().unwrap_or_else(|| self.accepting_code(&request));
                let answered = Some((request.identification, code));
                self.node(request.home_address, context).answered = answered;
                if verdict.is_ok() {
                    let lifetime = self.apply(&asked, context);
                    self.reply(&asked, Freshness::Fresh, code, lifetime, context);
                    return Ok(());
                }
                code
            }
            Freshness::Repeated => match self.granted_before(&asked, context) {
                Ok((code, lifetime)) => {
                    self.reply(&asked, Freshness::Repeated, code, lifetime, context);
                    return Ok(());
                }
                Err(code) => code,
            },
            Freshness::Mismatch => ReplyCode::IDENTIFICATION_MISMATCH,
        };
        let freshness = if code == ReplyCode::IDENTIFICATION_MISMATCH {
            Freshness::Mismatch
        } else {
            Freshness::Fresh
        };
        self.deny(&asked, freshness, code, context);
        Ok(())
    }

    fn judge_identification(&mut self, asked: &Asked<'_, '_>, context: &Context<'_>) -> Freshness {
        let identification = asked.request.identification;
        let started = self.started;
        let ntp = context.now.ntp;
        let node = self.node(asked.request.home_address, context);
        match asked.association.replay {
            ReplayProtection::Timestamps { tolerance } => {
                node.timestamps.judge(identification, ntp, tolerance, started)
            }
            ReplayProtection::Nonces => node
                .nonces
                .get(&asked.association.spi)
                .map_or(Freshness::Mismatch, |nonces| nonces.judge(identification)),
        }
    }

    fn accept_identification(&mut self, asked: &Asked<'_, '_>, context: &mut Context<'_>) {
        let identification = asked.request.identification;
        let nonce = context.random();
        let node = self.node(asked.request.home_address, context);
        match asked.association.replay {
            ReplayProtection::Timestamps { .. } => node.timestamps.accept(identification),
            ReplayProtection::Nonces => {
                node.nonces.entry(asked.association.spi).or_default().accept(identification, nonce)
            }
        }
    }

    fn max_simultaneous(&self) -> u8 {
        self.config.max_simultaneous.min(MAX_SIMULTANEOUS)
    }

    /// Whether the node's other care-of addresses stay (§3.8.2.2).
    fn keeps_earlier(&self, request: &RegistrationRequest) -> bool {
        request.flags.contains(RequestFlags::SIMULTANEOUS) && self.max_simultaneous() > 1
    }

    fn accepting_code(&self, request: &RegistrationRequest) -> ReplyCode {
        if self.max_simultaneous() > 1 || request.lifetime.is_zero() {
            ReplyCode::ACCEPTED
        } else {
            ReplyCode::ACCEPTED_NO_SIMULTANEOUS
        }
    }

    /// The answer to the node's last request, which has come once more: the
    /// lifetime is what is left of it (RFC 5944 §3.8.2.2).
    fn granted_before(
        &mut self,
        asked: &Asked<'_, '_>,
        context: &Context<'_>,
    ) -> Result<(ReplyCode, Lifetime), ReplyCode> {
        let request = &asked.request;
        // Under another SPI a later request may have been answered since.
        let answered = self.node(request.home_address, context).answered;
        let code = answered
            .filter(|(identification, _)| *identification == request.identification)
            .map_or(ReplyCode::IDENTIFICATION_MISMATCH, |(_, code)| code);
        if !code.is_accepted() {
            return Err(code);
        }
        if request.lifetime.is_zero() {
            return Ok((code, Lifetime::ZERO));
        }
        self.bindings
            .get(&request.home_address)
            .and_then(|binding| binding.registration(request.care_of_address))
            .map(|registration| (code, registration.remaining(context.now.monotonic)))
            .ok_or(ReplyCode::IDENTIFICATION_MISMATCH)
    }

    /// Changes the binding as §3.8.2.2 says and gives the lifetime granted.
    fn apply(&mut self, asked: &Asked<'_, '_>, context: &mut Context<'_>) -> Lifetime {
        if asked.request.lifetime.is_zero() {
            self.deregister(asked, context);
            Lifetime::ZERO
        } else {
            self.register(asked, context)
        }
    }

    fn register(&mut self, asked: &Asked<'_, '_>, context: &mut Context<'_>) -> Lifetime {
        let request = &asked.request;
        let home_address = request.home_address;
        let now = context.now.monotonic;
        let granted = request.lifetime.min(self.config.max_lifetime);
        let has = |flag| request.flags.contains(flag);
        let registration = Registration {
            care_of: CareOf {
                address: request.care_of_address,
                registered: request.care_of_address,
                encapsulation: Encapsulation::IpInIp,
                reverse_tunnel: has(RequestFlags::REVERSE_TUNNEL),
                co_located: has(RequestFlags::CO_LOCATED),
                broadcast: has(RequestFlags::BROADCAST),
                unproven: false,
                lifetime: granted,
            },
            flags: request.flags,
            identification: request.identification,
            registered_at: now,
            expires: granted.duration().map(|duration| now + duration),
            foreign_agent: foreign_agent(asked.datagram, request),
        };
        let keeps_earlier = self.keeps_earlier(request);
        let home_link = self.home_network(home_address).and_then(|network| network.link);
        let was_home = !self.bindings.contains_key(&home_address);
        let (tenant, home_agent) = self.key();
        let binding = self.bindings.entry(home_address).or_insert_with(|| MobilityBinding {
            tenant,
            home_address,
            home_agent,
            home_link,
            registrations: Vec::new(),
        });
        if !keeps_earlier {
            binding.registrations.retain(|one| one.care_of.address == request.care_of_address);
        }
        binding.put(registration);
        let token = Token::Binding((tenant, home_agent), home_address);
        context.timers.set(token, binding.next_expiry());
        context.push(Action::InstallBinding(binding.state()));
        // RFC 5944 §4.6: a node that was at home until now.
        if let (true, Some(port)) = (was_home, home_link) {
            self.announce(home_address, port, None, context);
        }
        granted
    }

    fn deregister(&mut self, asked: &Asked<'_, '_>, context: &mut Context<'_>) {
        let request = &asked.request;
        let home_address = request.home_address;
        let all = request.care_of_address == home_address;
        self.retain_registrations(home_address, context, |registration| {
            !all && registration.care_of.address != request.care_of_address
        });
        // RFC 5944 §4.6: the node is home again.
        if let (true, Some((port, mac))) = (all, self.home_station(asked)) {
            self.announce(home_address, port, Some(mac), context);
        }
    }

    /// Keeps what `keep` wants of a node's registrations and brings forwarding
    /// state and timer in line. Whether something went.
    fn retain_registrations(
        &mut self,
        home_address: Ipv4Addr,
        context: &mut Context<'_>,
        keep: impl FnMut(&Registration) -> bool,
    ) -> bool {
        let key = self.key();
        let Some(binding) = self.bindings.get_mut(&home_address) else { return false };
        let before = binding.registrations.len();
        binding.registrations.retain(keep);
        let token = Token::Binding(key, home_address);
        context.timers.set(token, binding.next_expiry());
        if binding.registrations.is_empty() {
            self.bindings.remove(&home_address);
            self.stop_announcing(home_address, context);
            context.push(Action::RemoveBinding { tenant: key.0, home_address });
            return true;
        }
        if binding.registrations.len() == before {
            return false;
        }
        context.push(Action::InstallBinding(binding.state()));
        true
    }

    /// The node's station on its home link, when the request came from there
    /// under its home address: it is answered there, whatever its binding says
    /// (RFC 5944 §3.8.3.1).
    fn home_station(&self, asked: &Asked<'_, '_>) -> Option<(PortId, MacAddress)> {
        let datagram = asked.datagram;
        let home_address = asked.request.home_address;
        let home_link = self.home_network(home_address).and_then(|network| network.link);
        let is_home = datagram.source == home_address && home_link == Some(datagram.port);
        (is_home && datagram.source_mac.is_unicast())
            .then_some((datagram.port, datagram.source_mac))
    }

    fn announce(
        &mut self,
        address: Ipv4Addr,
        port: PortId,
        mac: Option<MacAddress>,
        context: &mut Context<'_>,
    ) {
        let begun = context.now.monotonic;
        self.announcements.insert(address, Announcement { port, mac, begun, step: 0 });
        self.handle_announcement(address, context);
    }

    fn stop_announcing(&mut self, home_address: Ipv4Addr, context: &mut Context<'_>) {
        self.announcements.remove(&home_address);
        context.timers.stop(Token::Announcement(self.key(), home_address));
    }

    /// The next gratuitous ARP of a node's schedule is due.
    pub(crate) fn handle_announcement(&mut self, address: Ipv4Addr, context: &mut Context<'_>) {
        let key = self.key();
        let Some(announcement) = self.announcements.get_mut(&address) else { return };
        let (port, mac) = (announcement.port, announcement.mac);
        context.push(Action::GratuitousArp { port, address, mac });
        announcement.step += 1;
        match ANNOUNCEMENT_SCHEDULE.get(announcement.step) {
            Some(after) => {
                let token = Token::Announcement(key, address);
                context.timers.arm(token, announcement.begun + *after);
            }
            None => {
                self.announcements.remove(&address);
            }
        }
    }

    /// A care-of address of the binding has reached its end.
    pub(crate) fn handle_expiry(&mut self, home_address: Ipv4Addr, context: &mut Context<'_>) {
        let now = context.now.monotonic;
        let tenant = self.config.tenant;
        let mut expired = Vec::new();
        self.retain_registrations(home_address, context, |registration| {
            let ended = registration.expires.is_some_and(|expires| expires <= now);
            if ended {
                expired.push(registration.care_of.address);
            }
            !ended
        });
        for care_of_address in expired {
            context.counters.bindings_expired += 1;
            let event = Event::BindingExpired { tenant, home_address, care_of_address };
            context.push(Action::Event(event));
        }
    }

    /// Forgets a node's binding, but not its identifications. Whether it had one.
    pub(crate) fn clear(&mut self, home_address: Ipv4Addr, context: &mut Context<'_>) -> bool {
        self.retain_registrations(home_address, context, |_| false)
    }

    /// Takes a new configuration for the same tenant and address. Bindings whose
    /// node and home network are still served stay.
    pub(crate) fn reconfigure(&mut self, config: HomeAgentConfig, context: &mut Context<'_>) {
        self.config = config;
        let home_addresses: Vec<Ipv4Addr> = self.bindings.keys().copied().collect();
        for home_address in home_addresses {
            let known = self.config.security.first_mobile_node(home_address).is_some();
            let Some(network) = self.home_network(home_address).filter(|_| known) else {
                self.clear(home_address, context);
                continue;
            };
            let home_link = network.link;
            let Some(binding) = self.bindings.get_mut(&home_address) else { continue };
            if binding.home_link != home_link {
                binding.home_link = home_link;
                context.push(Action::InstallBinding(binding.state()));
                self.stop_announcing(home_address, context);
                if let Some(port) = home_link {
                    self.announce(home_address, port, None, context);
                }
            }
        }
    }

    /// Leaves nothing behind.
    pub(crate) fn close(&mut self, context: &mut Context<'_>) {
        let home_addresses: Vec<Ipv4Addr> = self.bindings.keys().copied().collect();
        for home_address in home_addresses {
            self.clear(home_address, context);
        }
        let announced: Vec<Ipv4Addr> = self.announcements.keys().copied().collect();
        for home_address in announced {
            self.stop_announcing(home_address, context);
        }
    }

    const fn key(&self) -> AgentKey {
        (self.config.tenant, self.config.address)
    }

    fn home_network(&self, home_address: Ipv4Addr) -> Option<&HomeNetwork> {
        self.config.home_networks.iter().find(|network| network.prefix.contains(home_address))
    }

    /// Called for nodes with an association only: their number bounds the map.
    fn node(&mut self, home_address: Ipv4Addr, context: &Context<'_>) -> &mut Node {
        self.nodes.entry(home_address).or_insert_with(|| Node {
            timestamps: TimestampHistory::default(),
            nonces: BTreeMap::new(),
            answered: None,
            last_failed_authentication: None,
            denials: TokenBucket::full(DENIALS_PER_SECOND, context.now.monotonic),
        })
    }
}

/// The foreign agent that relayed a request: its source, unless that is the node
/// itself, at home or at its co-located care-of address.
fn foreign_agent(datagram: &Datagram<'_>, request: &RegistrationRequest) -> Option<Ipv4Addr> {
    let co_located = request.flags.contains(RequestFlags::CO_LOCATED)
        && datagram.source == request.care_of_address;
    let at_home = datagram.source == request.home_address;
    (!co_located && !at_home).then_some(datagram.source)
}
