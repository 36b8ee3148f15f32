//! Which home address a request of a NAI is about.
//!
//! In this order: a session that is known has its address; a new one that asks for an
//! address, with a home address of zero, gets the one that is set aside for it, or a free
//! one of its realm's pools; a new one that names an address gets that, if it may have it
//! and nobody else does. So a session that has outlived its home agent gets back what it
//! had.
//!
//! Until a session is placed, its request is judged by what is remembered of the NAI
//! itself, under the address that [stands in](Subscriber::stand_in) for it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use homeport_wire::reasons;
use smallvec::SmallVec;

use super::foresight::Hints;
use super::node::Node;
use super::pool::Pool;
use super::session::{Indexed, Place, Session, SessionState};
use super::{Asked, ForeignHome, HomeAgent};
use crate::action::StoredSession;
use crate::agent::{Context, is_host};
use crate::config::{HomeAgentConfig, Reservation};
use crate::decision::Cause;
use crate::message::{
    Extension, NameDefect, Named, Received, RegistrationRequest, SessionCarriage, SessionName,
};
use crate::security::nais::realm;
use crate::security::{ReplayProtection, Subscriber};
use crate::{Action, Instant};

reasons! {
    /// Where the home address of a session came from.
    PlacementStep {
        Known = "known", "The session was known, and kept its address.";
        Reserved = "reserved", "The session asked for an address and got the one that is set aside for it.";
        Assigned = "assigned", "The session asked for an address and got a free one of a pool.";
        Named = "named", "The session was not known, and got the address that it named.";
    }
}

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The home address that its associations are kept under, or what stands in for it;
    /// the unspecified address has none.
    pub(super) key: Ipv4Addr,
    /// Who it is, if it is known by NAI.
    pub(super) subscriber: Option<Subscriber>,
    /// The hash of the NAI, if it is known.
    of_nai: u64,
    /// The session that it is likely to be about.
    likely: Option<Indexed>,
}

/// The name in a request, as far as it has one.
pub(super) type Naming<'b> = Result<Option<Named<'b>>, NameDefect>;

impl HomeAgent {
    /// Whose request it says it is.
    pub(super) fn owner(
        &self,
        received: &Received<'_, RegistrationRequest>,
        naming: &Naming<'_>,
        hints: &mut Hints,
    ) -> Owner {
        let security = &self.config.security;
        let nai = match naming {
            Ok(named) => named.map(|named| named.name.nai),
            // Whoever writes names wrongly has a key all the same.
            Err(_) => SessionName::nai_of(received),
        };
        let known = nai.filter(|nai| !nai.is_empty()).and_then(|nai| {
            if let Some(hint) = hints.take(|hint| security.nai(hint.known.0) == nai) {
                return Some((hint.known, hint.session));
            }
            Some((security.subscriber_and_hash(nai)?, None))
        });
        if let Some(((subscriber, of_nai), likely)) = known {
            let key = subscriber.stand_in();
            return Owner { key, subscriber: Some(subscriber), of_nai, likely };
        }
        let home_address = received.body.home_address;
        let key = if is_host(home_address) { home_address } else { Ipv4Addr::UNSPECIFIED };
        Owner { key, subscriber: None, of_nai: 0, likely: None }
    }

    /// The number of the session that a request is about, if it is known; makes the home
    /// address of `request` the session's, or what stands in for the NAI's.
    pub(super) fn locate(
        &mut self,
        owner: Owner,
        naming: &Naming<'_>,
        foreign_home: &ForeignHome,
        request: &mut RegistrationRequest,
    ) -> Option<u32> {
        let subscriber = owner.subscriber?;
        let comes_home = request.care_of_address == request.home_address;
        let of_all = request.home_address.is_unspecified();
        let named = naming.as_ref().ok().and_then(Option::as_ref);
        let session = named
            .filter(|named| !named.inserted || matches!(foreign_home, ForeignHome::Valid(_)))
            .filter(|named| !(named.releases && named.name.sub_nai.is_empty() && of_all))
            .and_then(|named| {
                let sub_nai = named.name.sub_nai;
                let likely = owner.likely.filter(|one| self.is_session(one, subscriber, sub_nai));
                likely.or_else(|| self.sessions.find((subscriber, owner.of_nai), sub_nai))
            });
        request.home_address = session.map_or(subscriber.stand_in(), |one| one.address);
        if let Some(one) = session {
            self.nodes.take_to_hand(one.node);
        }
        if comes_home {
            request.care_of_address = request.home_address;
        }
        session.map(|one| one.number)
    }

    fn is_session(&self, one: &Indexed, subscriber: Subscriber, sub_nai: &[u8]) -> bool {
        let of_it =
            |node: &Node| node.session() == Some(one.number) && node.home_address() == one.address;
        self.nodes.get(one.node).is_some_and(of_it)
            && self.sessions.is_named(one.number, subscriber, sub_nai)
    }

    /// Finds a home address for a session that is not known yet, if the request needs
    /// one: it is the session's from then on, whatever becomes of the request, but held
    /// down unless it is accepted.
    ///
    /// # Errors
    /// Why it gets none; or [`Cause::TooManySessions`] where one that is known would be
    /// live again, beside as many as there may be.
    pub(super) fn place(
        &mut self,
        asked: &mut Asked<'_, '_>,
        context: &mut Context<'_>,
    ) -> Result<(), Cause> {
        let Some(subscriber) = asked.owner.subscriber else { return Ok(()) };
        let Ok(Some(named)) = asked.naming else { return Err(Cause::BadName) };
        if named.inserted && !matches!(asked.foreign_home, ForeignHome::Valid(_)) {
            return Err(Cause::SubNaiUnproven);
        }
        let known = asked.session.and_then(|number| self.sessions.get(number));
        if known.is_some() {
            context.ruling.step = Some(PlacementStep::Known);
        }
        let comes_home = asked.comes_home();
        let ends = asked.request.lifetime.is_zero() && !comes_home;
        // Who is live renews, whatever the limit is by now.
        if ends || known.is_some_and(|session| session.state.is_live()) {
            return Ok(());
        }
        let (live, all) = self.sessions.of_nai(subscriber);
        let most = self.config.sessions.max_sessions_per_nai;
        // What is held down or sticky counts too, if less: else one NAI could lay a pool
        // waste by names that it never uses again.
        if live >= most || known.is_none() && all >= most.saturating_mul(2) {
            context.counters.sessions_over_limit += 1;
            return Err(Cause::TooManySessions);
        }
        if known.is_some() {
            return Ok(());
        }
        let sub_nai = named.name.sub_nai;
        let (address, pool, step) = self.find_address(subscriber, sub_nai, asked, context)?;
        context.ruling.step = Some(step);
        self.store((subscriber, sub_nai), address, true, context);
        let until = context.now.monotonic + self.config.sessions.hold_down;
        let known = (subscriber, asked.owner.of_nai);
        asked.session = Some(self.admit(known, sub_nai, (address, pool), until));
        asked.request.home_address = address;
        if comes_home {
            asked.request.care_of_address = address;
        }
        if asked.association.replay == ReplayProtection::Nonces {
            // The nonce was the NAI's; the session begins with one of its own.
            let identification = asked.request.identification;
            let nonce = context.random();
            let node = self.node(subscriber.stand_in()).make_more(context.now.monotonic);
            let nonces = node.nonces.entry(asked.association.spi).or_default();
            nonces.accept(identification, nonce);
        }
        context.counters.sessions_begun += 1;
        Ok(())
    }

    /// Makes an address of a pool, if it is of one, a session's, held down until it is said
    /// how the session stands.
    fn admit(
        &mut self,
        known: (Subscriber, u64),
        sub_nai: &[u8],
        (address, pool): (Ipv4Addr, Option<u16>),
        until: Instant,
    ) -> u32 {
        // What was accepted of whoever had it before is too old to be accepted again.
        let node = self.nodes.make_new(address);
        let number = self.sessions.add(known, sub_nai, Place { address, node, pool }, until);
        if let Some(node) = self.nodes.get_mut(node) {
            node.set_session(Some(number));
        }
        number
    }

    /// An address for a session that has none, the pool that it is of, and how it was found.
    fn find_address(
        &mut self,
        subscriber: Subscriber,
        sub_nai: &[u8],
        asked: &Asked<'_, '_>,
        context: &mut Context<'_>,
    ) -> Result<(Ipv4Addr, Option<u16>, PlacementStep), Cause> {
        let reserved = self.reserved(subscriber, sub_nai);
        let named = asked.received.body.home_address;
        if !named.is_unspecified() {
            let pool = pool_of(&self.config, self.config.security.nai(subscriber), named);
            let may_have = reserved == Some(named) || pool.is_some() && !self.is_set_aside(named);
            if !may_have {
                return Err(Cause::AddressNotTheirs);
            }
            return match self.nodes.session(named) {
                #[cfg(feature = "planted-bugs")]
                Some(_) if crate::planted::is(crate::planted::Bug::AddressOfTwo) => {
                    Ok((named, pool, PlacementStep::Named))
                }
                None => Ok((named, pool, PlacementStep::Named)),
                Some(_) => Err(Cause::AddressHeld),
            };
        }
        if let Some(address) = reserved {
            return match self.nodes.session(address) {
                None => {
                    let pool = pool_of(&self.config, self.config.security.nai(subscriber), address);
                    Ok((address, pool, PlacementStep::Reserved))
                }
                Some(_) => Err(Cause::AddressHeld),
            };
        }
        let realm = realm(self.config.security.nai(subscriber));
        let (config, nodes, set_aside) = (&self.config, &self.nodes, &self.set_aside);
        let is_free = |address: Ipv4Addr| {
            nodes.of(address).is_none_or(|node| node.session().is_none() && !node.is_bound())
                && !config.security.knows_mobile_node(address)
                && !context.is_local(address)
                && !set_aside.has(address)
                && config.home_networks.iter().any(|network| {
                    let prefix = network.prefix;
                    prefix.contains(address)
                        && (prefix.prefix_len() > 30
                            || address != prefix.address() && address != prefix.broadcast())
                })
        };
        // Pools are numbered with 16 bits.
        let pools = (0..=u16::MAX).zip(config.sessions.pools.iter().zip(&mut self.pools));
        let found = pools
            .filter(|(_, (pool, _))| pool.serves(realm))
            .find_map(|(number, (config, pool))| Some((pool.take(config, is_free)?, number)));
        match found {
            Some((address, pool)) => Ok((address, Some(pool), PlacementStep::Assigned)),
            None => {
                context.counters.pools_exhausted += 1;
                Err(Cause::PoolExhausted)
            }
        }
    }

    /// The address that is set aside for a session, if one is.
    fn reserved(&self, subscriber: Subscriber, sub_nai: &[u8]) -> Option<Ipv4Addr> {
        let security = &self.config.security;
        let nai = security.nai(subscriber);
        let one = self.set_aside.of(nai, sub_nai);
        one.or_else(|| security.own_home_address(subscriber).filter(|_| sub_nai.is_empty()))
    }

    /// Whether an address is somebody's by the config.
    fn is_set_aside(&self, address: Ipv4Addr) -> bool {
        self.set_aside.has(address) || self.config.security.knows_mobile_node(address)
    }

    /// What an accepted request makes of its session.
    pub(super) fn note_session(&mut self, asked: &Asked<'_, '_>, context: &mut Context<'_>) {
        let Some(subscriber) = asked.owner.subscriber else { return };
        let now = context.now.monotonic;
        let (sticky, hold_down) = (self.config.sessions.sticky, self.config.sessions.hold_down);
        #[cfg(feature = "planted-bugs")]
        let hold_down = match crate::planted::is(crate::planted::Bug::HoldDownIgnored) {
            true => core::time::Duration::ZERO,
            false => hold_down,
        };
        if asked.releases_all() {
            let all: Vec<u32> = self.sessions.all_of(subscriber).collect();
            for number in all {
                // The node's own is no session's: whoever ends those goes on with it.
                let session = self.sessions.get(number).filter(|one| !one.sub_nai.is_empty());
                let Some(address) = session.map(|one| one.address) else { continue };
                self.revoke(address, false, context, |_| true);
                self.retain_registrations(address, context, |_| false);
                self.sessions.set(number, SessionState::HeldDown, now, hold_down);
                context.counters.sessions_released += 1;
            }
            return;
        }
        let Some(number) = asked.session else { return };
        #[cfg(feature = "planted-bugs")]
        if crate::planted::is(crate::planted::Bug::SessionLostAtMove)
            && self.sessions.get(number).is_some_and(|one| one.state == SessionState::Bound)
        {
            self.retain_registrations(asked.request.home_address, context, |_| false);
        }
        if !asked.request.lifetime.is_zero() {
            self.sessions.set(number, SessionState::Bound, now, sticky);
        } else if asked.releases() {
            self.retain_registrations(asked.request.home_address, context, |_| false);
            self.sessions.set(number, SessionState::HeldDown, now, hold_down);
            context.counters.sessions_released += 1;
        } else if asked.comes_home() {
            self.sessions.set(number, SessionState::AtHome, now, sticky);
        }
    }

    /// The binding of an address has ended. It stays its session's for a while.
    pub(super) fn session_unbound(&mut self, address: Ipv4Addr, context: &Context<'_>) {
        if let Some(number) = self.nodes.session(address) {
            let (now, sticky) = (context.now.monotonic, self.config.sessions.sticky);
            self.sessions.set(number, SessionState::Sticky, now, sticky);
        }
    }

    /// Forgets sessions that have come to their end, `most` of them.
    pub(super) fn end_sessions(&mut self, most: usize, context: &mut Context<'_>) {
        for _ in 0..most {
            let Some(number) = self.sessions.due(context.now.monotonic) else { return };
            let Some(session) = self.sessions.remove(number) else { return };
            let (address, subscriber) = (session.address, session.subscriber);
            self.nodes.set_session(address, None);
            let pools = self.config.sessions.pools.iter().zip(&mut self.pools);
            for (_, pool) in pools.filter(|(config, _)| config.contains(address)) {
                pool.give_back(address);
            }
            self.store((subscriber, &session.sub_nai), address, false, context);
            context.counters.sessions_ended += 1;
        }
    }

    /// Brings sessions and pools in line with a new configuration, in which NAIs may have
    /// other numbers, or be gone.
    pub(super) fn keep_sessions(&mut self, config: &HomeAgentConfig, context: &mut Context<'_>) {
        if self.config.sessions.pools != config.sessions.pools {
            self.pools = config.sessions.pools.iter().map(|_| Pool::default()).collect();
        }
        self.set_aside = SetAside::new(&config.sessions.reservations);
        let (old, new) = (&self.config.security, &config.security);
        let both = |subscriber| Some((subscriber, new.subscriber(old.nai(subscriber))?));
        self.nodes.renumber(old.subscribers().filter_map(both));
        let before = core::mem::take(&mut self.sessions);
        let mut all: Vec<&Session> = before.iter().collect();
        all.sort_unstable_by_key(|session| (session.until(), session.address));
        for session in all {
            let nai = self.config.security.nai(session.subscriber);
            match config.security.subscriber(nai) {
                Some(subscriber) => {
                    let address = session.address;
                    let pool = pool_of(config, nai, address);
                    let place = Place { address, node: self.nodes.make(address), pool };
                    let number = self.sessions.put_back(subscriber, session, place);
                    self.nodes.set_session(address, Some(number));
                }
                None => {
                    self.nodes.set_session(session.address, None);
                    self.clear(session.address, context);
                    let name = (session.subscriber, session.sub_nai.as_slice());
                    self.store(name, session.address, false, context);
                }
            }
        }
    }

    /// Has it written down whose an address is, or is no more.
    fn store(
        &self,
        (subscriber, sub_nai): (Subscriber, &[u8]),
        home_address: Ipv4Addr,
        kept: bool,
        context: &mut Context<'_>,
    ) {
        let (tenant, home_agent) = self.key();
        let session = StoredSession {
            nai: SmallVec::from_slice(self.config.security.nai(subscriber)),
            sub_nai: SmallVec::from_slice(sub_nai),
            home_address,
            kept,
        };
        context.push(Action::StoreSession { tenant, home_agent, session });
    }

    /// Takes back what was [stored](Action::StoreSession) of a session before a restart:
    /// it is sticky, for as long as it may still be bound somewhere. Whether it could be.
    pub(crate) fn restore_session(
        &mut self,
        session: &StoredSession,
        context: &mut Context<'_>,
    ) -> bool {
        let address = session.home_address;
        let Some(known) = self.config.security.subscriber_and_hash(&session.nai) else {
            return false;
        };
        if !session.kept
            || self.home_network(address).is_none()
            || self.nodes.session(address).is_some()
            || self.sessions.find(known, &session.sub_nai).is_some()
        {
            return false;
        }
        let now = context.now.monotonic;
        let lifetime = self.config.max_lifetime.duration().unwrap_or_default();
        let lasts = self.config.sessions.sticky.max(lifetime);
        let pool = pool_of(&self.config, &session.nai, address);
        let number = self.admit(known, &session.sub_nai, (address, pool), now + lasts);
        self.sessions.set(number, SessionState::Sticky, now, lasts);
        true
    }
}

/// The number of the pool that a NAI has an address of.
fn pool_of(config: &HomeAgentConfig, nai: &[u8], address: Ipv4Addr) -> Option<u16> {
    let (pools, realm) = (&config.sessions.pools, realm(nai));
    let at = pools.iter().position(|pool| pool.contains(address) && pool.serves(realm))?;
    u16::try_from(at).ok()
}

/// The reservations of a config, by name and by address.
#[derive(Debug, Default)]
pub(super) struct SetAside {
    by_name: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Ipv4Addr>>,
    addresses: BTreeSet<Ipv4Addr>,
}

impl SetAside {
    pub(super) fn new(reservations: &[Reservation]) -> Self {
        let mut set_aside = SetAside::default();
        for Reservation { nai, sub_nai, home_address } in reservations {
            let of_nai = set_aside.by_name.entry(nai.clone()).or_default();
            of_nai.insert(sub_nai.clone(), *home_address);
            set_aside.addresses.insert(*home_address);
        }
        set_aside
    }

    fn of(&self, nai: &[u8], sub_nai: &[u8]) -> Option<Ipv4Addr> {
        self.by_name.get(nai)?.get(sub_nai).copied()
    }

    fn has(&self, address: Ipv4Addr) -> bool {
        self.addresses.contains(&address)
    }
}

impl<'b> Asked<'_, 'b> {
    fn named(&self) -> Option<Named<'b>> {
        self.naming.ok().flatten().filter(|_| self.owner.subscriber.is_some())
    }

    /// Whether a session says that it is at home: its care-of address is its home address.
    pub(super) fn comes_home(&self) -> bool {
        let request = &self.received.body;
        self.owner.subscriber.is_some()
            && !self.releases()
            && request.lifetime.is_zero()
            && (request.care_of_address == request.home_address
                || request.care_of_address == self.request.home_address)
    }

    /// Whether it gives its address back.
    pub(super) fn releases(&self) -> bool {
        self.request.lifetime.is_zero() && self.named().is_some_and(|named| named.releases)
    }

    /// Whether it gives back the addresses of all sessions of its NAI, of whatever node.
    pub(super) fn releases_all(&self) -> bool {
        self.releases()
            && self.received.body.home_address.is_unspecified()
            && self.named().is_some_and(|named| named.name.sub_nai.is_empty())
    }

    /// The Home Address field of the answer: a session that is accepted is told its own.
    pub(super) fn told_address(&self, accepted: bool) -> Ipv4Addr {
        match self.session {
            Some(_) if accepted => self.request.home_address,
            _ => self.received.body.home_address,
        }
    }

    /// Bytes of NAI and sub-NAI in an answer.
    pub(super) fn echo_len(&self) -> usize {
        let (names, inserted) = self.echo();
        let mut bytes = Vec::new();
        for extension in names.into_iter().chain([inserted]).flatten() {
            let _ = extension.emit(&mut bytes);
        }
        bytes.len()
    }

    /// NAI and sub-NAI, as they came, for under the mobile-home authentication (RFC 2794
    /// §3) and for behind it.
    pub(super) fn echo(&self) -> ([Option<Extension<'b>>; 2], Option<Extension<'b>>) {
        let Some(named) = self.named() else { return ([None, None], None) };
        let SessionName { nai, sub_nai } = named.name;
        let sub_nai = (!sub_nai.is_empty()).then_some(sub_nai);
        match (named.carriage, sub_nai) {
            (SessionCarriage::Combined, Some(sub_nai)) => {
                ([Some(Extension::CombinedSession { nai, sub_nai }), None], None)
            }
            (_, sub_nai) => {
                let nai = Some(Extension::NetworkAccessIdentifier(nai));
                let sub_nai = sub_nai.map(Extension::SubNai);
                match named.inserted {
                    true => ([nai, None], sub_nai),
                    false => ([nai, sub_nai], None),
                }
            }
        }
    }
}
