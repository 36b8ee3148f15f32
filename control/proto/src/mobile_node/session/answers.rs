//! What replies mean to sessions.

use alloc::sync::Arc;
use core::net::Ipv4Addr;

use super::Standing;
use crate::Now;
use crate::event::DiscardReason;
use crate::message::{Received, RegistrationReply, ReplyCode};
use crate::mobile_node::request::{self, Pending, Target};
use crate::mobile_node::session::RELEASE_ATTEMPTS;
use crate::mobile_node::{MobileNode, MobileNodeAction};

/// Whose request a reply answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::mobile_node) enum Whose {
    /// The node's own.
    Node,
    /// This session's.
    Session(Arc<[u8]>),
    /// The one that gives the addresses of all sessions back.
    Farewell,
}

impl MobileNode {
    /// Whose request a reply answers.
    ///
    /// # Errors
    /// Why it must be discarded in silence.
    pub(in crate::mobile_node) fn whose(
        &self,
        reply: &Received<'_, RegistrationReply>,
        from: (Ipv4Addr, u16),
    ) -> Result<Whose, DiscardReason> {
        let mut reason = DiscardReason::NotPending;
        let mut answers = |pending: &Pending| {
            let foreign_agent = self.foreign_association(pending).map(|one| &**one);
            let verified = request::verify(&self.config, pending, foreign_agent, reply, from);
            if let Err(why) = verified
                && why != DiscardReason::NotPending
            {
                reason = why;
            }
            verified.is_ok()
        };
        if self.pending.as_ref().is_some_and(&mut answers) {
            return Ok(Whose::Node);
        }
        if self.sessions.farewell.as_ref().is_some_and(&mut answers) {
            return Ok(Whose::Farewell);
        }
        let mut asking = self.sessions.asking();
        let found = asking.find(|session| session.pending.as_ref().is_some_and(&mut answers));
        found.map(|session| Whose::Session(Arc::clone(&session.sub_nai))).ok_or(reason)
    }

    /// A reply to a session's request, which has been verified.
    pub(in crate::mobile_node) fn session_answered(
        &mut self,
        name: &Arc<[u8]>,
        reply: &Received<'_, RegistrationReply>,
        now: Now,
    ) {
        let Some(session) = self.sessions.get_mut(name) else { return };
        let Some(pending) = session.pending.take() else { return };
        if reply.mobile_home_authentication().is_some() {
            session.memory.learn_nonce(reply.body.identification);
        }
        self.learn_challenge(&pending, reply);
        if reply.body.code.is_accepted() {
            self.session_accepted(name, &pending, reply, now);
        } else {
            self.session_denied(name, pending, reply, now);
        }
        self.tend(name, now);
    }

    fn session_accepted(
        &mut self,
        name: &Arc<[u8]>,
        pending: &Pending,
        reply: &Received<'_, RegistrationReply>,
        now: Now,
    ) {
        self.sessions.end_turn(name);
        if pending.identity.releases {
            return self.sessions.forget(name);
        }
        let home_address = reply.body.home_address;
        if !home_address.is_unspecified() {
            self.use_address(name, home_address, now);
        }
        let home = matches!(pending.target, Target::Home(_));
        let standing = Standing::of(pending, reply.body.lifetime, home_address);
        // At home nothing ends, but the home agent is to hear that the address is in use.
        let lasts = if home { self.config.lifetime } else { standing.lifetime };
        let standing = Standing { renew_at: self.renewal(lasts, pending.sent_at), ..standing };
        let Some(session) = self.sessions.get_mut(name) else { return };
        let before = session.standing.replace(standing);
        let came_home = before.is_none_or(|before| {
            (before.target, before.care_of_address) != (standing.target, home_address)
        });
        // Until now the home agent has answered for it.
        if home && came_home {
            session.announcements = Some((now.monotonic, 0));
        }
        session.denials = 0;
        session.last_denial = None;
        session.not_before = None;
    }

    /// The home agent has said which address a session has.
    fn use_address(&mut self, name: &Arc<[u8]>, home_address: Ipv4Addr, now: Now) {
        if self.sessions.get(name).is_some_and(|one| one.home_address == Some(home_address)) {
            return;
        }
        self.take_from_sessions(home_address, now);
        self.lose_address(name);
        let Some(session) = self.sessions.get_mut(name) else { return };
        session.home_address = Some(home_address);
        let sub_nai = Arc::clone(name);
        self.actions.push_back(MobileNodeAction::UseSession { sub_nai, home_address });
    }

    /// What one has, another has no longer.
    pub(in crate::mobile_node) fn take_from_sessions(&mut self, home_address: Ipv4Addr, now: Now) {
        let holder = self.sessions.all().find(|one| one.home_address == Some(home_address));
        if let Some(holder) = holder.map(|one| Arc::clone(&one.sub_nai)) {
            self.lose_address(&holder);
            self.sessions.end_turn(&holder);
            self.tend(&holder, now);
        }
    }

    /// A session has its address no longer, if it had one.
    fn lose_address(&mut self, name: &Arc<[u8]>) {
        let Some(session) = self.sessions.get_mut(name) else { return };
        session.wanted = None;
        let home_address = session.home_address.take();
        if home_address.is_some() {
            session.standing = None;
            session.pending = None;
            session.announcements = None;
            let sub_nai = Arc::clone(name);
            self.actions.push_back(MobileNodeAction::LoseSession { sub_nai, home_address });
        }
    }

    fn session_denied(
        &mut self,
        name: &Arc<[u8]>,
        mut pending: Pending,
        reply: &Received<'_, RegistrationReply>,
        now: Now,
    ) {
        let code = reply.body.code;
        let corrects = self.correct(&mut pending, reply, now);
        let Some(session) = self.sessions.get_mut(name) else { return };
        session.last_denial = Some(code);
        session.memory.denied(&pending, code);
        if corrects {
            session.pending = Some(pending);
            return self.send_of(name, now);
        }
        let signed = reply.mobile_home_authentication().is_some();
        if session.leaving && (signed || session.denials >= RELEASE_ATTEMPTS) {
            // There is nothing that it could give back.
            return self.sessions.forget(name);
        }
        let denials = session.denials;
        session.denials = denials.saturating_add(1);
        let only_wished = session.home_address.is_none() && session.wanted.is_some();
        if signed && only_wished && !session.leaving {
            // Not this address, then any.
            session.wanted = None;
        } else {
            let wait = self.denial_wait(denials);
            if signed && code == ReplyCode::HA_PROHIBITED {
                self.lose_address(name);
            }
            if let Some(session) = self.sessions.get_mut(name) {
                session.not_before = Some(now.monotonic + wait);
            }
        }
        self.sessions.end_turn(name);
    }

    /// A reply to the release of all sessions: whatever it says, it is the end.
    pub(in crate::mobile_node) fn farewell_answered(
        &mut self,
        reply: &Received<'_, RegistrationReply>,
        now: Now,
    ) {
        let Some(mut farewell) = self.sessions.farewell.take() else { return };
        if reply.mobile_home_authentication().is_some() {
            self.sessions.farewell_memory.learn_nonce(reply.body.identification);
        }
        self.learn_challenge(&farewell, reply);
        let accepted = reply.body.code.is_accepted();
        if !accepted && self.correct(&mut farewell, reply, now) {
            self.sessions.farewell = Some(farewell);
            return self.bid_farewell(now);
        }
        self.sessions.releases_all = false;
        // An agent may have taken the node itself for one of them.
        let away = self.registration.as_mut().filter(|one| !one.lifetime.is_zero());
        if let Some(registration) = away.filter(|_| accepted && self.stopping.is_none()) {
            registration.renew_at = Some(now.monotonic);
            self.renew(now);
        }
    }
}
