//! What sessions ask for, where, and when.

use alloc::sync::Arc;
use core::net::Ipv4Addr;
use core::time::Duration;

use super::table::{Turn, Whereabouts};
use super::{MAX_NEW, RELEASE_ATTEMPTS, Session, Standing};
use crate::mobile_node::request::{Identity, Memory, Pending, Target};
use crate::mobile_node::{Attachment, MobileNode};
use crate::security::ReplayProtection;
use crate::{Instant, Lifetime, Now};

/// Unanswered requests after which a session lets others have its turn.
const PATIENCE: u32 = 3;

/// When to try again what could not even be sent.
const UNSENT_WAIT: Duration = Duration::from_secs(1);

impl MobileNode {
    /// Where sessions are to be registered.
    fn place(&self) -> Option<Target> {
        if !self.link_up {
            return None;
        }
        let registered = self.registration.map(|registration| registration.target);
        if self.stopping.is_some() {
            return registered;
        }
        let Some(pending) = &self.pending else { return registered };
        if registered == Some(pending.target) {
            return registered;
        }
        // A home agent that is still being looked for is not asked for others too.
        let follows = !pending.open && !pending.lifetime.is_zero();
        follows.then_some(pending.target)
    }

    /// Brings the sessions in line with where the node is.
    pub(in crate::mobile_node) fn settle_sessions(&mut self, now: Now) {
        let whereabouts = Whereabouts {
            place: self.place(),
            registered: self.registration.map(|registration| registration.target),
            home: matches!(self.attachment, Attachment::Home { .. }),
        };
        if whereabouts != self.sessions.whereabouts {
            self.move_sessions(whereabouts, now);
        }
        // What began meanwhile would be released too, should that request be late.
        if self.sessions.releases_all {
            return self.begin_farewell(now);
        }
        // A home agent has one nonce for all of a NAI that it does not know yet.
        let most_new = match self.style() {
            ReplayProtection::Timestamps { .. } => MAX_NEW,
            ReplayProtection::Nonces => usize::from(self.pending.is_none()),
        };
        while let Some(name) = self.sessions.next_turn(most_new) {
            self.ask_for(&name, now);
            self.sessions.schedule(&name);
        }
    }

    fn move_sessions(&mut self, whereabouts: Whereabouts, now: Now) {
        let before = core::mem::replace(&mut self.sessions.whereabouts, whereabouts);
        let Whereabouts { place, registered, home } = whereabouts;
        let moves = before.place != place;
        let farewell = self.sessions.farewell.take();
        self.sessions.farewell = farewell.filter(|one| Some(one.target) == place);
        for name in self.sessions.names() {
            let Some(session) = self.sessions.get_mut(&name) else { continue };
            let elsewhere =
                session.pending.as_ref().is_some_and(|pending| Some(pending.target) != place);
            if elsewhere {
                session.pending = None;
            }
            session.standing = session.standing.filter(|standing| {
                let target = Some(standing.target);
                target == place || target == registered
            });
            session.announcements = session.announcements.filter(|_| home);
            if moves {
                session.not_before = None;
                session.denials = 0;
                self.sessions.end_turn(&name);
            }
            self.tend(&name, now);
        }
    }

    /// Does for a session what is due, and sets its timer.
    pub(super) fn tend(&mut self, name: &Arc<[u8]>, now: Now) {
        let at = now.monotonic;
        self.sessions.announce(name, at, &mut self.actions);
        let place = self.sessions.whereabouts.place;
        let Some(session) = self.sessions.get_mut(name) else { return };
        session.standing =
            session.standing.filter(|standing| standing.expires_at.is_none_or(|end| end > at));
        session.not_before = session.not_before.filter(|until| *until > at);
        let turn = session.turn;
        let unanswered = session.pending.as_ref().filter(|pending| pending.retransmit_at <= at);
        let attempts = unanswered.map(|pending| pending.attempts);
        match (turn, attempts, place) {
            (Turn::Asking { .. }, Some(attempts), _) => {
                if session.leaving && attempts >= RELEASE_ATTEMPTS {
                    return self.sessions.forget(name);
                }
                if attempts >= PATIENCE && self.sessions.others_wait(turn) {
                    self.sessions.enqueue(name);
                } else {
                    self.send_of(name, now);
                }
            }
            (Turn::None, _, Some(place)) if session.wants(place, at) => {
                self.sessions.enqueue(name);
            }
            _ => {}
        }
        self.sessions.schedule(name);
    }

    /// Makes the request of a session whose turn it is, and sends it.
    fn ask_for(&mut self, name: &Arc<[u8]>, now: Now) {
        let at = now.monotonic;
        let Some(place) = self.sessions.whereabouts.place else {
            return self.sessions.end_turn(name);
        };
        let terms = self.terms(place, at);
        let asked = self.ask(place);
        let Some(session) = self.sessions.get_mut(name) else { return };
        if let Err(later) = session.pace.take(at) {
            session.not_before = Some(later);
            return self.sessions.end_turn(name);
        }
        // One that gave its turn to others goes on where it was.
        if session.pending.is_none()
            && let Some((care_of_address, lifetime)) = terms
        {
            let identity = Identity {
                home_address: session.asked_address(),
                sub_nai: Some(Arc::clone(name)),
                releases: session.leaving,
                is_given: true,
            };
            let care_of_address = match place {
                // At home the one is the other, known or not.
                Target::Home(_) => identity.home_address,
                Target::ForeignAgent(_) | Target::CoLocated(_) => care_of_address,
            };
            let lifetime = if session.leaving { Lifetime::ZERO } else { lifetime };
            let pending = Pending::new(identity, place, care_of_address, lifetime, asked);
            session.pending = Some(pending);
        }
        self.transmit_of(name, now);
    }

    /// Sends a session's request once more.
    pub(super) fn send_of(&mut self, name: &Arc<[u8]>, now: Now) {
        if let Some(session) = self.sessions.get_mut(name) {
            // It is a second or more after the one before, or meets a denial; it counts
            // for the pace of those that follow.
            let _ = session.pace.take(now.monotonic);
        }
        self.transmit_of(name, now);
    }

    fn transmit_of(&mut self, name: &Arc<[u8]>, now: Now) {
        let Some(session) = self.sessions.get_mut(name) else { return };
        let memory = session.memory;
        let pending = session.pending.take();
        let sent = pending
            .and_then(|mut pending| self.transmit(&mut pending, memory, now).then_some(pending));
        let Some(session) = self.sessions.get_mut(name) else { return };
        session.known |= sent.is_some();
        session.pending = sent;
        if let Some(pending) = &session.pending {
            session.memory.sent(pending);
        } else {
            session.not_before = Some(now.monotonic + UNSENT_WAIT);
            self.sessions.end_turn(name);
        }
    }

    /// What time does to sessions.
    pub(in crate::mobile_node) fn session_timeouts(&mut self, now: Now) {
        while let Some(name) = self.sessions.take_due(now.monotonic) {
            self.tend(&name, now);
        }
        let farewell = self.sessions.farewell.as_ref();
        if let Some(farewell) = farewell.filter(|one| one.retransmit_at <= now.monotonic) {
            if farewell.attempts >= RELEASE_ATTEMPTS {
                self.sessions.farewell = None;
                self.sessions.releases_all = false;
            } else {
                self.bid_farewell(now);
            }
        }
    }

    /// Whom they are registered through has forgotten them: all register anew.
    pub(in crate::mobile_node) fn renew_sessions(&mut self, now: Now) {
        for name in self.sessions.names() {
            if let Some(Session { standing: Some(standing), .. }) = self.sessions.get_mut(&name) {
                standing.renew_at = Some(now.monotonic);
                self.tend(&name, now);
            }
        }
    }

    /// Another home agent has another clock, and other nonces.
    pub(in crate::mobile_node) fn forget_memories(&mut self) {
        self.sessions.all_mut().for_each(|session| session.memory = Memory::default());
        self.sessions.farewell_memory = Memory::default();
    }

    /// The node has come home, and its sessions with it.
    pub(in crate::mobile_node) fn announce_sessions(&mut self, now: Instant) {
        for name in self.sessions.names() {
            if let Some(session) = self.sessions.get_mut(&name)
                && session.home_address.is_some()
            {
                session.announcements = Some((now, 0));
                self.sessions.announce(&name, now, &mut self.actions);
                self.sessions.schedule(&name);
            }
        }
    }

    /// The node stops: each of its sessions gives its address back.
    pub(in crate::mobile_node) fn stop_sessions(&mut self, now: Now) {
        for name in self.sessions.names() {
            self.end_session(&name);
            if let Some(session) = self.sessions.get_mut(&name) {
                session.not_before = None;
            }
            self.tend(&name, now);
        }
    }

    /// Whether sessions of a node that stops have something to be answered yet.
    pub(in crate::mobile_node) fn sessions_wait(&self) -> bool {
        self.place().is_some() && !self.sessions.is_done()
    }

    /// Gives the addresses of all sessions of the NAI back, once there is a way.
    fn begin_farewell(&mut self, now: Now) {
        let (None, Some(place)) = (&self.sessions.farewell, self.sessions.whereabouts.place) else {
            return;
        };
        let Some((care_of_address, _)) = self.terms(place, now.monotonic) else { return };
        let care_of_address = match place {
            Target::Home(_) => Ipv4Addr::UNSPECIFIED,
            Target::ForeignAgent(_) | Target::CoLocated(_) => care_of_address,
        };
        let whom = Identity { releases: true, ..Identity::node(Ipv4Addr::UNSPECIFIED, false) };
        let asked = self.ask(place);
        let farewell = Pending::new(whom, place, care_of_address, Lifetime::ZERO, asked);
        self.sessions.farewell = Some(farewell);
        self.bid_farewell(now);
    }

    pub(super) fn bid_farewell(&mut self, now: Now) {
        let Some(mut farewell) = self.sessions.farewell.take() else { return };
        if self.transmit(&mut farewell, self.sessions.farewell_memory, now) {
            self.sessions.farewell_memory.sent(&farewell);
            self.sessions.farewell = Some(farewell);
        }
    }
}

impl Standing {
    /// What an accepted request gives.
    pub(super) fn of(pending: &Pending, granted: Lifetime, home_address: Ipv4Addr) -> Self {
        let home = matches!(pending.target, Target::Home(_));
        let lifetime = granted.min(pending.lifetime);
        let expires_at = lifetime.duration().filter(|_| !home);
        Standing {
            target: pending.target,
            care_of_address: if home { home_address } else { pending.care_of_address },
            lifetime,
            expires_at: expires_at.map(|lifetime| pending.sent_at + lifetime),
            renew_at: None,
        }
    }
}
