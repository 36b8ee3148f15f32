//! Who visits by name (RFC 2794): a node that sends its NAI, or one of several sessions
//! that it registers for, told apart by their sub-NAIs.
//!
//! Of each NAI it is known who visits, so that one user can be kept from taking all
//! places; only who was accepted counts, so that nobody can use up another's share. What
//! somebody may ask in a minute is counted for a NAI and a station together, for the same
//! reason.
//!
//! A node that knows nothing of sessions can be made one: its link-layer address is put
//! behind what it has signed, as the sub-NAI. Nobody would believe that of a foreign agent
//! that does not sign it, so it is only done where that happens: towards home agents that
//! an association is shared with, and in registrations alone, as deregistrations are not
//! signed (RFC 5944 §3.5.4).
//!
//! Keys are shared with nodes by NAI or by home address. Who says a NAI that is known is
//! who has its key, with all its sessions, whatever its home address is; who does not is
//! told by the home address.
//!
//! Decisions where the text leaves a choice:
//! * A request with neither home address nor NAI gets MISSING_NAI (97) too, not only a
//!   reply without it.
//! * A reply without NAI is denied only when it gives a home address: where the node has
//!   one, the home agent may know nothing of NAIs.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use super::ForeignAgent;
use super::answerers::{Owner, Respondent};
use crate::Instant;
use crate::agent::Context;
use crate::config::SessionInsertion;
use crate::decision::{Cause, SessionLabel};
use crate::limits::MinuteBudgets;
use crate::message::{Received, RegistrationReply, RegistrationRequest, RequestFlags, SessionName};
use crate::security::SecurityAssociations;
use crate::security::nais::{Subscriber, canonical};
use crate::visitor::{PendingRegistration, Station, VisitorKey, VisitorName};
use homeport_wire::MacAddress;

/// Who visits by which NAI, and what was asked lately.
#[derive(Debug)]
pub(super) struct Names {
    visitors: BTreeMap<Arc<[u8]>, BTreeSet<VisitorKey>>,
    asked: MinuteBudgets<(Arc<[u8]>, MacAddress)>,
}

impl Default for Names {
    fn default() -> Self {
        Names { visitors: BTreeMap::new(), asked: MinuteBudgets::new() }
    }
}

impl Names {
    pub(super) fn insert(&mut self, name: &VisitorName, visitor: VisitorKey) {
        self.visitors.entry(Arc::clone(&name.nai)).or_default().insert(visitor);
    }

    pub(super) fn remove(&mut self, name: &VisitorName, visitor: VisitorKey) {
        if let Some(visitors) = self.visitors.get_mut(&name.nai) {
            visitors.remove(&visitor);
            if visitors.is_empty() {
                self.visitors.remove(&name.nai);
            }
        }
    }

    /// The visitors of a NAI, by home address.
    fn of(&self, nai: &[u8]) -> impl ExactSizeIterator<Item = &VisitorKey> {
        const NONE: &BTreeSet<VisitorKey> = &BTreeSet::new();
        self.visitors.get(nai).unwrap_or(NONE).iter()
    }
}

/// Who a request is for, as it says itself: read once, where it comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    home_address: Ipv4Addr,
    /// The first NAI that it says, whatever else is wrong with its names.
    nai: Option<Arc<[u8]>>,
    /// As the home agent is told; `None`: it has no NAI, or none that could be meant.
    pub(crate) name: Option<Arc<VisitorName>>,
    /// The session, for who asks what became of it.
    pub(super) label: Option<SessionLabel>,
    /// Whether the sub-NAI in that is what the node itself has signed.
    is_own: bool,
    /// The sub-NAI in that, where it is put in here.
    pub(super) inserted: Option<[u8; 6]>,
    /// Whether all sessions of the NAI are given back.
    pub(super) releases_all: bool,
    /// What is wrong with how the node is named: 70, or 97 when it is by neither address
    /// nor NAI.
    pub(super) flaw: Option<Cause>,
}

impl Asker {
    /// Reads the names of a request.
    pub(super) fn read(
        agent: &ForeignAgent,
        station: &Station,
        received: &Received<'_, RegistrationRequest>,
    ) -> Self {
        let request = &station.request;
        let nobody = Asker {
            home_address: request.home_address,
            nai: None,
            name: None,
            label: None,
            is_own: true,
            inserted: None,
            releases_all: false,
            flaw: None,
        };
        let naming = SessionName::of(received);
        let named = match naming {
            Err(_) => {
                let nai = SessionName::nai_of(received).map(Arc::from);
                return Asker { nai, flaw: Some(Cause::VisitorBadName), ..nobody };
            }
            Ok(None) if request.home_address.is_unspecified() => {
                return Asker { flaw: Some(Cause::MissingNai), ..nobody };
            }
            Ok(None) => return nobody,
            Ok(Some(named)) => named,
        };
        let name = named.name;
        let inserts = agent.config.session_insertion == SessionInsertion::Mac
            && name.sub_nai.is_empty()
            && !request.lifetime.is_zero()
            && !request.flags.contains(RequestFlags::CO_LOCATED)
            && agent.config.security.first_agent(station.home_agent).is_some();
        let inserted = inserts.then_some(station.mac.0);
        let sub_nai = inserted.as_ref().map_or(name.sub_nai, |mac| mac);
        let nai: Arc<[u8]> = name.nai.into();
        Asker {
            nai: Some(Arc::clone(&nai)),
            name: Some(Arc::new(VisitorName { nai, sub_nai: sub_nai.into() })),
            label: SessionLabel::of(&naming),
            is_own: inserted.is_none() && !named.inserted,
            inserted,
            releases_all: named.releases && name.sub_nai.is_empty(),
            ..nobody
        }
    }

    /// Where associations with it are found: the number of its NAI, if a key is shared
    /// with that, else its home address.
    pub(super) fn peer(&self, security: &SecurityAssociations) -> Ipv4Addr {
        let subscriber = self.nai.as_deref().and_then(|nai| security.subscriber(nai));
        let stranger = Subscriber::in_place_of(self.home_address).is_some();
        match subscriber {
            Some(subscriber) => subscriber.stand_in(),
            None if stranger => Ipv4Addr::UNSPECIFIED,
            None => self.home_address,
        }
    }

    /// Whose share of what is remembered of answers it takes: who has a key takes its own.
    pub(super) fn owner(&self, security: &SecurityAssociations) -> Owner {
        match &self.nai {
            _ if !security.knows_mobile_node(self.peer(security)) => Owner::Strangers,
            Some(nai) if security.subscriber(nai).is_some() => Owner::Nai((*canonical(nai)).into()),
            _ => Owner::Node(self.home_address),
        }
    }

    /// Who answers challenges. What an agent says of it tells no two apart: whoever
    /// repeats a request could say something else.
    pub(super) fn respondent(&self) -> Respondent {
        let Some(name) = &self.name else { return Respondent::Node(self.home_address) };
        let sub_nai = if self.is_own { Arc::clone(&name.sub_nai) } else { Arc::default() };
        Respondent::Session((*canonical(&name.nai)).into(), sub_nai)
    }
}

impl ForeignAgent {
    /// Whether a request's name has room for another visitor; it has, where it is one.
    pub(super) fn validate_sessions(&self, station: &Station, asker: &Asker) -> Result<(), Cause> {
        let request = &station.request;
        let Some(name) = asker.name.as_ref().filter(|_| !request.lifetime.is_zero()) else {
            return Ok(());
        };
        if request.flags.contains(RequestFlags::CO_LOCATED) {
            return Ok(());
        }
        let key = (request.home_address, station.home_agent);
        let known = self.names.of(&name.nai).any(|visitor| {
            *visitor == key
                || self.visitors.get(visitor).is_some_and(|one| one.name.as_ref() == Some(name))
        });
        if known || self.has_room_for(name) { Ok(()) } else { Err(Cause::SessionsOfNaiFull) }
    }

    /// Whether the NAI may have one more visitor.
    pub(super) fn has_room_for(&self, name: &VisitorName) -> bool {
        let most = self.config.max_sessions_per_nai;
        most == 0 || self.names.of(&name.nai).len() < most
    }

    /// Counts a request that passes every check.
    ///
    /// # Errors
    /// [`Cause::NaiRateLimited`]: its station has asked for the NAI often enough.
    pub(super) fn count_request(
        &mut self,
        station: &Station,
        asker: &Asker,
        now: Instant,
    ) -> Result<(), Cause> {
        let most = self.config.requests_per_minute_per_nai;
        let Some(name) = asker.name.as_ref().filter(|_| most != 0) else { return Ok(()) };
        match self.names.asked.take((Arc::clone(&name.nai), station.mac), most, now) {
            true => Ok(()),
            false => Err(Cause::NaiRateLimited),
        }
    }

    /// Whether a reply names whom a pending request names, as far as it names anybody.
    pub(super) fn answers_name(
        pending: &PendingRegistration,
        received: &Received<'_, RegistrationReply>,
    ) -> bool {
        match (&pending.asker.name, SessionName::of(received)) {
            (Some(asked), Ok(Some(answered))) => {
                let SessionName { nai, sub_nai } = answered.name;
                // What we have put in, only we need.
                let left_out = pending.asker.inserted.is_some() && sub_nai.is_empty();
                *asked.nai == *nai && (*asked.sub_nai == *sub_nai || left_out)
            }
            _ => true,
        }
    }

    /// RFC 2794 §3: what must be in a reply that gives a registration.
    pub(super) fn validate_reply(
        pending: &PendingRegistration,
        received: &Received<'_, RegistrationReply>,
    ) -> Result<(), Cause> {
        let (asked, reply) = (&pending.station.request, &received.body);
        let Ok(named) = SessionName::of(received) else { return Err(Cause::ReplyMalformed) };
        if reply.home_agent.is_unspecified() {
            return Err(Cause::ReplyWithoutHomeAgent);
        }
        let registers = !asked.lifetime.is_zero() && !reply.lifetime.is_zero();
        if !reply.code.is_accepted() || !registers {
            return Ok(());
        }
        if reply.home_address.is_unspecified() {
            return Err(Cause::ReplyWithoutHomeAddress);
        }
        if asked.home_address.is_unspecified() && named.is_none() {
            return Err(Cause::ReplyWithoutNai);
        }
        Ok(())
    }

    /// All sessions of a NAI are given back: those that this station has here go. The node
    /// itself stays.
    pub(super) fn remove_all_of(
        &mut self,
        station: &Station,
        name: &VisitorName,
        context: &mut Context<'_>,
    ) {
        let here =
            self.names.of(&name.nai).filter(|(_, home_agent)| *home_agent == station.home_agent);
        let is_session = |key: &&VisitorKey| {
            let named = self.visitors.get(*key).and_then(|one| one.name.as_deref());
            named.is_some_and(|named| !named.sub_nai.is_empty())
        };
        let here = here.filter(is_session).filter(|key| self.is_at(key, station));
        let here: Vec<VisitorKey> = here.copied().collect();
        for visitor in here {
            self.remove_visitor(visitor, context);
        }
    }

    /// Whether a visitor has another name: a session may give an address back that is
    /// another's by now, and its home agent need not mind. Deregistrations say no name
    /// that was put in here.
    pub(super) fn is_of_another(&self, visitor: VisitorKey, asker: &Asker) -> bool {
        let visitor = self.visitors.get(&visitor).and_then(|visitor| visitor.name.as_deref());
        visitor.zip(asker.name.as_deref()).is_some_and(|(visitor, asker)| {
            visitor.nai != asker.nai
                || !asker.sub_nai.is_empty() && visitor.sub_nai != asker.sub_nai
        })
    }

    /// A session was given another address than it had: what it had goes.
    pub(super) fn remove_earlier(
        &mut self,
        key: VisitorKey,
        station: &Station,
        name: &VisitorName,
        context: &mut Context<'_>,
    ) {
        let is_same = |one: &VisitorName| one == name;
        #[cfg(feature = "planted-bugs")]
        let is_same = |one: &VisitorName| {
            let both_are_sessions = !one.sub_nai.is_empty() && !name.sub_nai.is_empty();
            let planted = crate::planted::is(crate::planted::Bug::OneSessionPerStation);
            is_same(one) || planted && both_are_sessions
        };
        let is_it = |earlier: &&VisitorKey| {
            let visitor = self.visitors.get(*earlier);
            **earlier != key
                && self.is_at(earlier, station)
                && visitor.and_then(|one| one.name.as_deref()).is_some_and(is_same)
        };
        let earlier = self.names.of(&name.nai).find(is_it).copied();
        if let Some(earlier) = earlier {
            self.remove_visitor(earlier, context);
        }
    }

    fn is_at(&self, visitor: &VisitorKey, station: &Station) -> bool {
        self.visitors.get(visitor).is_some_and(|visitor| {
            (visitor.state.mac, visitor.state.port) == (station.mac, station.port)
        })
    }
}
