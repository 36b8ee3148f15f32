//! The home agent (RFC 5944 §3.8, RFC 3024 §4.3; RFC 2002 §3.8 by profile).
//!
//! A request is judged in this order, and nothing is remembered of it before it
//! is authentic: extensions that must be known, foreign-home association (by
//! source address and SPI), mobile-home association (by home address and SPI),
//! authenticators, identification, foreign-home result, validity. Only then the
//! binding changes; the forwarding state is asked for before the reply.
//!
//! Codes given: 0, 1, 129 to 139, 142, 143, 147 and 148. Code 128 ("reason unspecified") is given for
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
//! A node is known by its home address, or by its NAI, and then has as many sessions as
//! it likes, each with a home address of its own (`placement`).
//!
//! **Not done:** Generalized authentication (RFC 4721). A foreign agent of this
//! very process cannot be the care-of address (129).

mod announce;
pub(crate) mod assignment;
mod bindings;
mod chunks;
mod expiry;
mod extra;
mod foreign_challenge;
pub(crate) mod foresight;
mod judge;
mod mobile_network;
mod node;
mod path;
pub(crate) mod placement;
mod plain_binding;
mod pool;
mod reply;
mod revocation;
pub(crate) mod session;
mod show;
mod tunnel;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use homeport_wire::{Ipv4Header, MacAddress, PortId, UdpHeader};

use self::announce::Announcement;
use self::expiry::{EXPIRED_PER_CALL, Expiries, MOVED_PER_CALL};
use self::extra::{Extra, Extras, Writer};
use self::node::{Node, NodeList};
use self::placement::{Naming, Owner, SetAside};
use self::pool::Pool;
use self::session::SessionList;
pub use self::session::SessionState;
pub use self::show::{PoolUse, SessionView};
use self::tunnel::{Tunnel, TunnelWish};
use crate::agent::{AgentKey, Context, Datagram, Token};
use crate::binding::MobilityBinding;
use crate::config::{AddressPool, HomeAgentConfig, HomeNetwork, Prefix, TunnelPolicy};
use crate::decision::{Cause, Decision, Judge, SeenExtensions, SessionLabel, Standing};
use crate::identification::{Freshness, Staleness, clock_offset};
use crate::limits::{MAX_SIMULTANEOUS, REBOUND_SPACING, Spacing};
use crate::message::extension::ExtensionError;
use crate::message::{
    Identification, Received, RegistrationRequest, ReplyCode, RequestFlags, SessionName,
};
use crate::revocation::{Agreement, RevocationKey, RevocationList};
use crate::security::{MobilitySecurityAssociation, ReplayProtection};
use crate::{Action, Encapsulation, Instant, Lifetime, NtpTime};

/// Bytes of IPv4 and UDP headers around a message.
const PACKET_HEADERS: usize = Ipv4Header::LEN + UdpHeader::LEN;

/// The association with a foreign agent.
type ForeignHomeAssociation = Arc<MobilitySecurityAssociation>;

/// One virtual home agent.
#[derive(Debug)]
pub struct HomeAgent {
    config: HomeAgentConfig,
    /// What is remembered of nodes, their bindings included.
    nodes: NodeList,
    expiries: Expiries,
    announcements: BTreeMap<Ipv4Addr, Announcement>,
    /// What was agreed on with foreign agents, by home address and care-of address.
    agreements: BTreeMap<RevocationKey, Agreement>,
    revocations: RevocationList,
    /// Which addresses are sessions'.
    sessions: SessionList,
    /// Which are set aside.
    set_aside: SetAside,
    /// Where they come from: one for each of the config's pools.
    pools: Vec<Pool>,
    /// Spaces the news that a NAT has forgotten a node's mapping.
    rebounds: Spacing<Ipv4Addr>,
    /// No timestamp before it is fresh: when this agent started.
    started: NtpTime,
}

/// The foreign-home authentication of a request, with the association for the
/// reply where one is shared with the request's source.
enum ForeignHome {
    NotShared,
    Missing(ForeignHomeAssociation),
    Invalid(ForeignHomeAssociation),
    Valid(ForeignHomeAssociation),
}

impl ForeignHome {
    const fn association(&self) -> Option<&ForeignHomeAssociation> {
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
    /// The request, its home address that which it is about.
    request: RegistrationRequest,
    owner: Owner,
    naming: Naming<'b>,
    /// The number of its session.
    session: Option<u32>,
    association: MobilitySecurityAssociation,
    foreign_home: ForeignHome,
    wish: TunnelWish,
}

/// What a registration gets.
#[derive(Clone, Debug)]
struct Grant {
    tunnel: Tunnel,
    mobile_networks: Vec<Prefix>,
}

/// How a request was answered, to answer it once more in the same way.
#[derive(Clone, Debug)]
struct Answered {
    identification: Identification,
    code: ReplyCode,
    /// Why it was denied, if it was.
    denied: Option<Cause>,
    extras: Extras,
}

impl HomeAgent {
    pub(crate) fn new(config: HomeAgentConfig, started: NtpTime) -> Self {
        let pools = config.sessions.pools.iter().map(|_| Pool::default()).collect();
        let set_aside = SetAside::new(&config.sessions.reservations);
        let mut agent = HomeAgent {
            config,
            nodes: NodeList::default(),
            expiries: Expiries::default(),
            announcements: BTreeMap::new(),
            agreements: BTreeMap::new(),
            revocations: RevocationList::default(),
            sessions: SessionList::default(),
            set_aside,
            pools,
            rebounds: Spacing::new(REBOUND_SPACING),
            started,
        };
        agent.reserve();
        agent
    }

    /// Makes room for all whom the config lets come.
    fn reserve(&mut self) {
        let pools = self.config.sessions.pools.iter();
        let pooled = usize::try_from(pools.map(AddressPool::size).sum::<u64>());
        let sessions = pooled.unwrap_or(usize::MAX).min(self.config.max_bindings);
        self.nodes.reserve(self.config.security.mobile_node_count() + sessions);
        self.sessions.reserve(sessions);
    }

    /// What it was told.
    pub const fn config(&self) -> &HomeAgentConfig {
        &self.config
    }

    /// Its mobility bindings, ordered by home address. All are put in order at the
    /// first one: of millions that takes a while.
    pub fn bindings(&self) -> impl Iterator<Item = MobilityBinding> {
        self.bound().into_iter().filter_map(|home_address| self.binding(home_address))
    }

    /// How many bindings it has.
    pub const fn binding_count(&self) -> usize {
        self.nodes.bound()
    }

    /// The binding of a home address.
    pub fn binding(&self, home_address: Ipv4Addr) -> Option<MobilityBinding> {
        self.nodes.binding(self.nodes.find(home_address)?, self.key())
    }

    fn is_bound(&self, home_address: Ipv4Addr) -> bool {
        self.nodes.of(home_address).is_some_and(Node::is_bound)
    }

    /// Changes a node's binding, if it has one, and gives what `change` gives.
    fn change_binding<R>(
        &mut self,
        home_address: Ipv4Addr,
        context: &Context<'_>,
        change: impl FnOnce(&mut MobilityBinding) -> R,
    ) -> Option<R> {
        let number = self.nodes.find(home_address)?;
        let mut binding = self.nodes.binding(number, self.key())?;
        let result = change(&mut binding);
        self.nodes.set_binding(number, binding, context.now.monotonic);
        Some(result)
    }

    /// Whether a datagram to `destination` that came in on `port` may be a
    /// discovery of home agents (RFC 5944 §3.8.2.1).
    pub(crate) fn is_discovery(&self, port: PortId, destination: Ipv4Addr) -> bool {
        self.config.home_networks.iter().any(|network| {
            destination == network.prefix.broadcast()
                || destination.is_broadcast() && network.link == Some(port)
        })
    }

    pub(crate) fn handle_request<'b>(
        &mut self,
        datagram: &Datagram<'b>,
        received: &Received<'b, RegistrationRequest>,
        context: &mut Context<'_>,
    ) {
        let naming = SessionName::of(received);
        let owner = self.owner(received, &naming, context.hints);
        let mut about = RegistrationRequest { home_address: owner.key, ..received.body };
        if owner.key.is_unspecified() {
            about.home_address = received.body.home_address;
        }
        if let Err(cause) = self.answer(datagram, received, (owner, naming), &mut about, context) {
            context.refuse(datagram, cause);
            if self.config.security.knows_mobile_node(owner.key) {
                context.ruling.standing = context.ruling.standing.max(Standing::Claimed);
            }
        }
        let seen = SeenExtensions::of(received);
        let session = SessionLabel::of(&naming);
        let decision = Decision { session, ..Decision::open(datagram, about, seen) };
        context.tell(Judge::HomeAgent(self.config.address), decision);
    }

    /// Answers a request, or says why it gets no answer. `about` becomes the request as
    /// it was understood.
    fn answer<'b>(
        &mut self,
        datagram: &Datagram<'b>,
        received: &Received<'b, RegistrationRequest>,
        (owner, naming): (Owner, Naming<'b>),
        about: &mut RegistrationRequest,
        context: &mut Context<'_>,
    ) -> Result<(), Cause> {
        // RFC 5944 §1.8: an unknown extension below 128 silences the message.
        if let Some(ExtensionError::Unknown { extension_type }) = received.defect() {
            context.ruling.detail = extension_type.into();
            return Err(Cause::UnknownExtension);
        }
        let foreign_home = self.foreign_home(datagram, received, context)?;
        let (association, flaw) = self.authenticate(received, owner.key, context)?;
        context.ruling.by(&association);
        let mut request = received.body;
        let session = self.locate(owner, &naming, &foreign_home, &mut request);
        *about = request;
        let wish = TunnelWish::of(received);
        let mut asked = Asked {
            datagram,
            received,
            request,
            owner,
            naming,
            session,
            association,
            foreign_home,
            wish,
        };
        if let Some(cause) = flaw {
            self.deny_failed_authentication(&asked, cause, context);
            return Err(cause);
        }
        context.ruling.standing = Standing::Copied;
        match self.judge_identification(&asked, context) {
            Freshness::Fresh => {
                self.answer_fresh(&mut asked, context);
                *about = asked.request;
            }
            Freshness::Repeated => match self.granted_before(&asked, context) {
                Ok((answered, lifetime)) => {
                    let Answered { code, extras, .. } = answered;
                    context.ruling.cause = Cause::Repeated;
                    self.reply(&asked, Freshness::Repeated, code, lifetime, &extras, context);
                }
                Err((cause, extras)) => self.deny(&asked, cause, &extras, context),
            },
            Freshness::Mismatch => {
                let cause = self.why_stale(&asked, context);
                self.deny(&asked, cause, &Extras::default(), context);
            }
        }
        Ok(())
    }

    /// Why an identification was found not to be fresh.
    #[cold]
    fn why_stale(&mut self, asked: &Asked<'_, '_>, context: &mut Context<'_>) -> Cause {
        let ReplayProtection::Timestamps { tolerance } = asked.association.replay else {
            return Cause::NonceMismatch;
        };
        let (identification, started) = (asked.request.identification, self.started);
        let timestamps = self.node(asked.request.home_address).timestamps;
        match timestamps.why_stale(identification, context.now.ntp, tolerance, started) {
            Staleness::ClockOff => Cause::ClockOff,
            Staleness::Replayed => Cause::Replayed,
            Staleness::OutOfOrder => Cause::OutOfOrder,
            Staleness::BeforeStart => Cause::BeforeStart,
            Staleness::MarkAhead(seconds) => {
                context.ruling.detail = seconds;
                Cause::MarkAhead
            }
        }
    }

    /// Judges and answers what has never been seen before.
    fn answer_fresh(&mut self, asked: &mut Asked<'_, '_>, context: &mut Context<'_>) {
        // RFC 5944 §3.8.2.1 c. The identification is accepted only behind it: else a
        // forger between could burn a node's timestamp.
        context.ruling.standing = Standing::Authentic;
        if let Err(cause) = self.check_foreign_home(asked) {
            self.deny(asked, cause, &Extras::default(), context);
            return;
        }
        let placed = self.place(asked, context);
        let asked = &*asked;
        self.accept_identification(asked, context);
        let mut extras = Extras::default();
        let verdict = match placed {
            Ok(()) => self.validate(asked, &mut extras, context),
            Err(cause) => Err(cause),
        };
        self.spend_challenge(asked);
        let plain_udp =
            |grant: &Grant| matches!(grant.tunnel.encapsulation, Encapsulation::PlainUdp { .. });
        let says_nat = match &verdict {
            Ok(grant) => grant.as_ref().is_some_and(plain_udp),
            Err(cause) => *cause == Cause::ChallengeGiven,
        };
        if says_nat {
            // In a denial it is to be answered. In an acceptance it says that there
            // is a NAT, to a node too that has forgotten, or answered long ago.
            let challenge = self.challenge(asked, context);
            extras.add(Writer::MobileNode, Extra::Challenge(challenge));
        }
        let agreed = match &verdict {
            Ok(Some(_)) => Some(self.agree(asked, &mut extras, context)),
            _ => None,
        };
        let denied = verdict.as_ref().err().copied();
        let code =
            denied.and_then(Cause::code).unwrap_or_else(|| self.accepting_code(&asked.request));
        let request = &asked.request;
        // With timestamps a request that comes once more is only stale.
        let answered = (asked.association.replay == ReplayProtection::Nonces).then(|| Answered {
            identification: request.identification,
            code,
            denied,
            extras: extras.clone(),
        });
        let now = context.now.monotonic;
        let node = self.node(request.home_address);
        if answered.is_some() {
            node.make_more(now).answered = answered;
        } else if let Some(more) = node.more_mut() {
            more.answered = None;
        }
        match verdict {
            Ok(grant) => {
                let registers = grant.is_some();
                context.ruling.cause =
                    if registers { Cause::Accepted } else { Cause::Deregistered };
                let lifetime = self.apply(asked, grant, context);
                self.note_session(asked, context);
                if let Some(agreed) = agreed {
                    self.note_agreement(asked, agreed);
                }
                let sent = self.reply(asked, Freshness::Fresh, code, lifetime, &extras, context);
                let bytes = (PACKET_HEADERS + asked.datagram.payload.len(), sent);
                self.question(request.home_address, request.care_of_address, bytes, context);
            }
            Err(cause) => {
                context.counters.challenges_sent += u64::from(says_nat);
                self.deny(asked, cause, &extras, context);
            }
        }
    }

    fn judge_identification(
        &mut self,
        asked: &Asked<'_, '_>,
        context: &mut Context<'_>,
    ) -> Freshness {
        let identification = asked.request.identification;
        let started = self.started;
        let ntp = context.now.ntp;
        let node = self.node(asked.request.home_address);
        match asked.association.replay {
            ReplayProtection::Timestamps { tolerance } => {
                context.ruling.clock_offset = Some(clock_offset(identification, ntp));
                node.timestamps.judge(identification, ntp, tolerance, started)
            }
            ReplayProtection::Nonces => node
                .more()
                .and_then(|more| more.nonces.get(&asked.association.spi))
                .map_or(Freshness::Mismatch, |nonces| nonces.judge(identification)),
        }
    }

    fn accept_identification(&mut self, asked: &Asked<'_, '_>, context: &mut Context<'_>) {
        let identification = asked.request.identification;
        let now = context.now.monotonic;
        let node = self.node(asked.request.home_address);
        match asked.association.replay {
            ReplayProtection::Timestamps { .. } => node.timestamps.accept(identification),
            ReplayProtection::Nonces => {
                let nonce = context.random();
                let nonces = &mut node.make_more(now).nonces;
                nonces.entry(asked.association.spi).or_default().accept(identification, nonce);
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
    ) -> Result<(Answered, Lifetime), (Cause, Extras)> {
        let request = &asked.request;
        let stale = || (Cause::NonceMismatch, Extras::default());
        // Under another SPI a later request may have been answered since.
        let node = self.node(request.home_address);
        let answered = node.more().and_then(|more| more.answered.clone());
        let answered = answered
            .filter(|answered| answered.identification == request.identification)
            .ok_or_else(stale)?;
        if let Some(cause) = answered.denied {
            return Err((cause, answered.extras));
        }
        if request.lifetime.is_zero() {
            return Ok((answered, Lifetime::ZERO));
        }
        self.binding(request.home_address)
            .and_then(|binding| binding.registration(request.care_of_address).copied())
            .map(|registration| (answered, registration.remaining(context.now.monotonic)))
            .ok_or_else(stale)
    }

    /// Whether a datagram comes from a station of a home link, which can be answered there
    /// whatever its address.
    pub(crate) fn is_from_home_link(&self, datagram: &Datagram<'_>) -> bool {
        let mut networks = self.config.home_networks.iter();
        datagram.source_mac.is_unicast()
            && networks.any(|network| network.link == Some(datagram.port))
    }

    /// The node's station on its home link, when the request came from there
    /// under its home address, or without any: it is answered there, whatever its
    /// binding says (RFC 5944 §3.8.3.1).
    fn home_station(&self, asked: &Asked<'_, '_>) -> Option<(PortId, MacAddress)> {
        let datagram = asked.datagram;
        let home_address = asked.request.home_address;
        let home_link = self.home_network(home_address).and_then(|network| network.link);
        let is_own = datagram.source == home_address && home_link == Some(datagram.port);
        // Who speaks for a session that is at home has an address of its own there, or none.
        let may_be_any = asked.comes_home() || datagram.source.is_unspecified();
        ((is_own || may_be_any) && self.is_from_home_link(datagram))
            .then_some((datagram.port, datagram.source_mac))
    }

    /// Takes a new configuration for the same tenant and address. Bindings whose
    /// node and home network are still served stay, with the encapsulation that
    /// they were granted, and without mobile networks that they may not have.
    pub(crate) fn reconfigure(&mut self, config: HomeAgentConfig, context: &mut Context<'_>) {
        self.keep_sessions(&config, context);
        self.config = config;
        self.reserve();
        for home_address in self.bound() {
            let known = self.config.security.knows_mobile_node(home_address)
                || self.nodes.session(home_address).is_some();
            let Some(network) = self.home_network(home_address).filter(|_| known) else {
                self.clear(home_address, context);
                continue;
            };
            let home_link = network.link;
            let allowed = self.prefix_table(home_address);
            let TunnelPolicy { set_df, clamp_mss, .. } = self.config.tunnels;
            let Some((before, after, moved)) =
                self.change_binding(home_address, context, |binding| {
                    let before = binding.state();
                    let moved = binding.home_link != home_link;
                    binding.home_link = home_link;
                    binding.mobile_networks.retain(|prefix| allowed.contains(prefix));
                    (binding.set_df, binding.clamp_mss) = (set_df, clamp_mss);
                    (before, binding.state(), moved)
                })
            else {
                continue;
            };
            if after != before {
                context.push(Action::InstallBinding(after));
            }
            if moved {
                self.stop_announcing(home_address, context);
                if let Some(port) = home_link {
                    self.announce(home_address, port, None, context);
                }
            }
        }
    }

    /// Leaves nothing behind.
    pub(crate) fn close(&mut self, context: &mut Context<'_>) {
        self.agreements.clear();
        for home_address in self.bound() {
            self.clear(home_address, context);
        }
        for key in self.revocations.keys() {
            context.timers.stop(Token::HomeRevocation(self.key(), key));
        }
        let announced: Vec<Ipv4Addr> = self.announcements.keys().copied().collect();
        for home_address in announced {
            self.stop_announcing(home_address, context);
        }
    }

    /// The home addresses that are bound, in order.
    fn bound(&self) -> Vec<Ipv4Addr> {
        let bound = self.nodes.iter().filter(|node| node.is_bound());
        let mut home_addresses: Vec<Ipv4Addr> = bound.map(Node::home_address).collect();
        home_addresses.sort_unstable();
        home_addresses
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.expiries.next(&self.nodes), self.sessions.next_end()].into_iter().flatten().min()
    }

    /// Ends what has reached its end, so much of it as one call may.
    pub(crate) fn handle_timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now.monotonic;
        let mut moves = MOVED_PER_CALL;
        for _ in 0..EXPIRED_PER_CALL {
            let Some(number) = self.expiries.pop_due(&mut self.nodes, now, &mut moves) else {
                break;
            };
            if let Some(home_address) = self.nodes.get(number).map(Node::home_address) {
                self.handle_expiry(home_address, context);
            }
        }
        self.end_sessions(EXPIRED_PER_CALL, context);
    }

    const fn key(&self) -> AgentKey {
        (self.config.tenant, self.config.address)
    }

    fn home_network(&self, home_address: Ipv4Addr) -> Option<&HomeNetwork> {
        self.config.home_networks.iter().find(|network| network.prefix.contains(home_address))
    }

    /// The node's record, made if there is none. Called for nodes with an association
    /// only: their number bounds that of the records.
    fn node(&mut self, home_address: Ipv4Addr) -> &mut Node {
        self.nodes.make_node(home_address)
    }
}
