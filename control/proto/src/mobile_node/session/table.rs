//! The table of sessions: whose turn it is to ask, and whose time has come.
//!
//! Two kinds wait apart, so that neither keeps the other waiting: those that have an
//! address to ask for, and those that have none.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use super::{MAX_KNOWN, MAX_SESSIONS, Session, SessionError};
use crate::Instant;
use crate::mobile_node::request::{Memory, Pending, Target};
use crate::mobile_node::{ANNOUNCEMENTS, MobileNodeAction};

/// Where the node is, as far as it concerns sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Whereabouts {
    /// Where they are to be registered.
    pub(super) place: Option<Target>,
    /// Where the node is registered.
    pub(super) registered: Option<Target>,
    /// Whether the host is one of the home link's.
    pub(super) home: bool,
}

/// Whether a session's request is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It asks for nothing.
    None,
    /// It waits, since this number was given out.
    Queued { has_address: bool, ticket: u64 },
    /// It awaits its reply.
    Asking { has_address: bool },
}

/// Those of one kind.
#[derive(Debug, Default)]
struct Lane {
    /// By the number that they have drawn.
    queue: BTreeMap<u64, Arc<[u8]>>,
    asking: BTreeSet<Arc<[u8]>>,
}

/// All sessions of a node.
#[derive(Debug, Default)]
pub(in crate::mobile_node) struct Sessions {
    by_name: BTreeMap<Arc<[u8]>, Session>,
    /// When each has something to do next.
    timers: BTreeSet<(Instant, Arc<[u8]>)>,
    /// Those with an address to ask for.
    known: Lane,
    /// Those without.
    new: Lane,
    tickets: u64,
    pub(super) whereabouts: Whereabouts,
    /// Whether the addresses of all sessions of the NAI are to be given back; until they
    /// are, nobody asks for one.
    pub(super) releases_all: bool,
    /// The request for that.
    pub(super) farewell: Option<Pending>,
    pub(super) farewell_memory: Memory,
}

impl Sessions {
    pub(in crate::mobile_node) fn all(&self) -> impl Iterator<Item = &Session> {
        self.by_name.values()
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.by_name.values_mut()
    }

    pub(super) fn names(&self) -> Vec<Arc<[u8]>> {
        self.by_name.keys().cloned().collect()
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Session> {
        self.by_name.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &[u8]) -> Option<&mut Session> {
        self.by_name.get_mut(name)
    }

    /// Those whose requests are on their way.
    pub(super) fn asking(&self) -> impl Iterator<Item = &Session> {
        let names = self.known.asking.iter().chain(&self.new.asking);
        names.filter_map(|name| self.by_name.get(name))
    }

    pub(super) fn add(
        &mut self,
        name: &[u8],
        wanted: Option<Ipv4Addr>,
    ) -> Result<(), SessionError> {
        let Some(old) = self.by_name.get(name) else {
            self.make_room()?;
            let name: Arc<[u8]> = Arc::from(name);
            self.by_name.insert(Arc::clone(&name), Session::new(name, wanted));
            return Ok(());
        };
        if !old.leaving {
            return Err(SessionError::Duplicate);
        }
        // Its address was to be given back, and is wanted after all.
        let wanted = wanted.or(old.wanted);
        let (sub_nai, memory, pace) = (Arc::clone(&old.sub_nai), old.memory, old.pace);
        self.forget(name);
        let session = Session { memory, pace, known: true, ..Session::new(sub_nai, wanted) };
        self.by_name.insert(Arc::clone(&session.sub_nai), session);
        Ok(())
    }

    /// Those that are over give way to those that are not.
    fn make_room(&mut self) -> Result<(), SessionError> {
        if self.by_name.len() < MAX_SESSIONS {
            return Ok(());
        }
        let over = self.all().find(|session| session.leaving);
        let over = over.map(|session| Arc::clone(&session.sub_nai));
        self.forget(&over.ok_or(SessionError::TooMany)?);
        Ok(())
    }

    /// Ends a session, which then gives its address back if the home agent may know it.
    /// Its name and its address, if there was one.
    pub(super) fn remove(&mut self, name: &[u8]) -> Option<(Arc<[u8]>, Option<Ipv4Addr>)> {
        let known = self.by_name.get(name).filter(|session| !session.leaving)?.known;
        self.end_turn(name);
        let session = self.by_name.get_mut(name)?;
        let home_address = session.home_address.take();
        let sub_nai = Arc::clone(&session.sub_nai);
        session.wanted = home_address.or(session.wanted);
        session.pending = None;
        session.standing = None;
        session.announcements = None;
        session.not_before = None;
        session.denials = 0;
        session.leaving = true;
        if !known {
            self.forget(name);
        }
        Some((sub_nai, home_address))
    }

    /// Forgets a session, and that it was.
    pub(super) fn forget(&mut self, name: &[u8]) {
        self.end_turn(name);
        if let Some(session) = self.by_name.remove(name)
            && let Some(due) = session.due
        {
            self.timers.remove(&(due, session.sub_nai));
        }
    }

    fn lane(&mut self, has_address: bool) -> &mut Lane {
        if has_address { &mut self.known } else { &mut self.new }
    }

    /// A session wants to ask for something, and waits for its turn.
    pub(super) fn enqueue(&mut self, name: &[u8]) {
        self.end_turn(name);
        let ticket = self.tickets;
        let Some(session) = self.by_name.get_mut(name) else { return };
        let has_address = !session.asked_address().is_unspecified();
        session.turn = Turn::Queued { has_address, ticket };
        let name = Arc::clone(&session.sub_nai);
        self.tickets = ticket.wrapping_add(1);
        self.lane(has_address).queue.insert(ticket, name);
    }

    /// Whose turn it is, if there is room for another request on its way: `most_new` of
    /// those without address may be.
    pub(super) fn next_turn(&mut self, most_new: usize) -> Option<Arc<[u8]>> {
        for (has_address, most) in [(true, MAX_KNOWN), (false, most_new)] {
            let lane = self.lane(has_address);
            if lane.asking.len() < most
                && let Some((_, name)) = lane.queue.pop_first()
            {
                lane.asking.insert(Arc::clone(&name));
                if let Some(session) = self.by_name.get_mut(&name) {
                    session.turn = Turn::Asking { has_address };
                }
                return Some(name);
            }
        }
        None
    }

    /// Whether others of its kind wait for the turn that a session has.
    pub(super) fn others_wait(&mut self, turn: Turn) -> bool {
        match turn {
            Turn::Asking { has_address } => !self.lane(has_address).queue.is_empty(),
            Turn::None | Turn::Queued { .. } => false,
        }
    }

    /// A session waits and asks no longer.
    pub(super) fn end_turn(&mut self, name: &[u8]) {
        let Some(session) = self.by_name.get_mut(name) else { return };
        match core::mem::replace(&mut session.turn, Turn::None) {
            Turn::None => {}
            Turn::Queued { has_address, ticket } => {
                self.lane(has_address).queue.remove(&ticket);
            }
            Turn::Asking { has_address } => {
                self.lane(has_address).asking.remove(name);
            }
        }
    }

    /// Tells the home link of a session's address when it is due.
    pub(super) fn announce(
        &mut self,
        name: &[u8],
        now: Instant,
        actions: &mut VecDeque<MobileNodeAction>,
    ) {
        let Some(session) = self.by_name.get_mut(name) else { return };
        while let Some((since, next)) = session.announcements {
            match (ANNOUNCEMENTS.get(next), session.home_address) {
                (Some(after), Some(address)) if since + *after <= now => {
                    actions.push_back(MobileNodeAction::AnnounceSession(address));
                    session.announcements = Some((since, next + 1));
                }
                (Some(_), Some(_)) => return,
                _ => session.announcements = None,
            }
        }
    }

    /// Sets a session's timer by what it waits for.
    pub(super) fn schedule(&mut self, name: &[u8]) {
        let place = self.whereabouts.place;
        let Some(session) = self.by_name.get_mut(name) else { return };
        let announcement = session
            .announcements
            .and_then(|(since, next)| ANNOUNCEMENTS.get(next).map(|after| since + *after));
        let expiry = session.standing.and_then(|standing| standing.expires_at);
        let request = match session.turn {
            Turn::Asking { .. } => session.pending.as_ref().map(|pending| pending.retransmit_at),
            Turn::Queued { .. } => None,
            Turn::None => place.and_then(|_| {
                let renewal = session.standing.and_then(|standing| standing.renew_at);
                session.not_before.or(renewal)
            }),
        };
        let due = [announcement, expiry, request].into_iter().flatten().min();
        if due == session.due {
            return;
        }
        let before = core::mem::replace(&mut session.due, due);
        let name = Arc::clone(&session.sub_nai);
        if let Some(before) = before {
            self.timers.remove(&(before, Arc::clone(&name)));
        }
        if let Some(due) = due {
            self.timers.insert((due, name));
        }
    }

    /// Whose time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Arc<[u8]>> {
        self.timers.first().filter(|(due, _)| *due <= now)?;
        let (_, name) = self.timers.pop_first()?;
        if let Some(session) = self.by_name.get_mut(&name) {
            session.due = None;
        }
        Some(name)
    }

    pub(in crate::mobile_node) fn poll_timeout(&self) -> Option<Instant> {
        let farewell = self.farewell.as_ref().map(|farewell| farewell.retransmit_at);
        let session = self.timers.first().map(|(due, _)| *due);
        [farewell, session].into_iter().flatten().min()
    }

    /// Whether there is none, and nothing to be given back.
    pub(super) fn is_done(&self) -> bool {
        self.by_name.is_empty() && !self.releases_all
    }

    /// Nothing is asked for, and nothing waited for.
    pub(in crate::mobile_node) fn stop(&mut self) {
        self.farewell = None;
        self.releases_all = false;
        self.timers.clear();
        self.known = Lane::default();
        self.new = Lane::default();
        self.whereabouts = Whereabouts::default();
        self.by_name.retain(|_, session| !session.leaving);
        for session in self.by_name.values_mut() {
            session.pending = None;
            session.standing = None;
            session.announcements = None;
            session.turn = Turn::None;
            session.due = None;
        }
    }
}

#[cfg(test)]
impl Sessions {
    /// Panics where the table contradicts itself.
    pub(in crate::mobile_node) fn check(&self) {
        let mut addresses = BTreeSet::new();
        let mut counts = [[0; 2]; 2];
        for (name, session) in &self.by_name {
            assert_eq!(*name, session.sub_nai);
            let timer = session.due.map(|due| (due, Arc::clone(name)));
            assert!(timer.is_none_or(|timer| self.timers.contains(&timer)), "{session:?}");
            let of = |has_address: bool| if has_address { &self.known } else { &self.new };
            match session.turn {
                Turn::None => {}
                Turn::Queued { has_address, ticket } => {
                    assert_eq!(of(has_address).queue.get(&ticket), Some(name));
                    counts[usize::from(has_address)][0] += 1;
                }
                Turn::Asking { has_address } => {
                    assert!(of(has_address).asking.contains(name));
                    assert!(session.pending.is_some() && session.due.is_some(), "{session:?}");
                    counts[usize::from(has_address)][1] += 1;
                }
            }
            let address = session.home_address;
            assert!(address.is_none_or(|address| addresses.insert(address)), "{session:?}");
        }
        let lanes = [&self.new, &self.known].map(|lane| [lane.queue.len(), lane.asking.len()]);
        assert_eq!(lanes, counts);
        assert!(lanes[0][1] <= super::MAX_NEW && lanes[1][1] <= MAX_KNOWN);
        let due = self.by_name.values().filter(|session| session.due.is_some());
        assert_eq!(self.timers.len(), due.count());
        assert!(self.by_name.len() <= MAX_SESSIONS);
    }
}
