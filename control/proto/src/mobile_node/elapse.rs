//! What time does, and what is lost with a link, an agent or an address.

use core::net::Ipv4Addr;

use super::keepalive::Due;
use super::negotiate::Wishes;
use super::redirect::SILENT_ATTEMPTS;
use super::request::{Pending, Target};
use super::{ANNOUNCEMENTS, Attachment, MobileNode, MobileNodeAction, MobileNodeEvent, SUSPICION};
use crate::message::AgentSolicitation;
use crate::{Instant, Now};

/// Unanswered requests after which another attachment is tried, if there is one.
const GIVE_UP_ATTEMPTS: u32 = 2;

impl MobileNode {
    pub(super) fn expire(&mut self, now: Instant) {
        if let Some(registration) = self.registration
            && registration.expires_at.is_some_and(|at| at <= now)
        {
            let care_of_address = registration.care_of_address;
            self.event(MobileNodeEvent::Expired { care_of_address });
            self.drop_registration();
        }
    }

    pub(super) fn retransmit(&mut self, now: Now) {
        let at = now.monotonic;
        let Some(pending) = self.pending.as_ref().filter(|p| p.retransmit_at <= at) else {
            return;
        };
        let (target, care_of_address) = (pending.target, pending.care_of_address);
        if let Target::ForeignAgent(address) = target
            && pending.attempts >= GIVE_UP_ATTEMPTS
            && self.stopping.is_none()
            && (self.agents.best(&self.config, Some(address), at).is_some()
                || self.co_located_target(at).is_some())
        {
            self.event(MobileNodeEvent::Unanswered { care_of_address });
            self.doubt_redirection();
            self.agents.refuse(address, at);
            self.pending = None;
            if self.registration.is_some_and(|old| old.target == target) {
                self.drop_registration();
            }
            return;
        }
        if pending.attempts.is_multiple_of(SILENT_ATTEMPTS) && self.doubt_redirection() {
            self.pending.iter_mut().for_each(Pending::renew);
        }
        // What goes out here is a second or more after the one before, and
        // counts for the pace of those that follow.
        let _ = self.registration_pace.take(at);
        self.send(now);
    }

    pub(super) fn renew(&mut self, now: Now) {
        let due = self
            .registration
            .filter(|registration| registration.renew_at.is_some_and(|at| at <= now.monotonic));
        if let (Some(registration), None, None) = (due, &self.pending, self.not_before) {
            self.begin(registration.target, now);
            // Its agent may have no care-of address to give any more.
            if self.pending.is_none()
                && self.not_before.is_none()
                && let Some(registration) = &mut self.registration
            {
                registration.renew_at = Some(now.monotonic + Pending::MIN_INTERVAL);
            }
        }
    }

    /// Asks for an echo through the tunnel, or registers anew when none came.
    pub(super) fn keep_alive(&mut self, now: Now) {
        let Some(keepalive) = &mut self.keepalive else { return };
        match keepalive.handle_timeout(now.monotonic) {
            None => {}
            Some(Due::Send(icmp)) => {
                self.actions.push_back(MobileNodeAction::SendKeepalive { icmp });
            }
            Some(Due::Lost { idle }) => {
                // Traffic did not keep it either, then its time was not too long.
                let interval = if idle { keepalive.shorter() } else { keepalive.interval };
                self.shortened = Some(interval);
                self.event(MobileNodeEvent::MappingLost { interval });
                // The renewal is due; it takes its turn like any other.
                if let Some(registration) = &mut self.registration {
                    registration.renew_at = Some(now.monotonic);
                }
                self.renew_sessions(now);
            }
        }
    }

    pub(super) fn announce(&mut self, now: Instant) {
        while let Some((since, next)) = self.announcements {
            match ANNOUNCEMENTS.get(next) {
                Some(after) if since + *after <= now => {
                    self.actions.push_back(MobileNodeAction::AnnounceHome);
                    self.announcements = Some((since, next + 1));
                }
                Some(_) => return,
                None => self.announcements = None,
            }
        }
    }

    pub(super) fn solicit_if_due(&mut self, now: Instant) {
        if self.search.due().is_some_and(|due| due <= now) {
            match self.solicitation_pace.take(now) {
                Ok(()) => {
                    self.solicitation();
                    self.search.sent(now, &mut self.rng);
                }
                Err(later) => self.search.put_off(later),
            }
        }
    }

    /// Asks for the agent that we have, outside of a search.
    pub(super) fn solicit_once(&mut self, now: Instant) {
        if self.solicitation_pace.take(now).is_ok() {
            self.solicitation();
        }
    }

    pub(super) fn solicitation(&mut self) {
        let icmp = AgentSolicitation.emit();
        self.actions.push_back(MobileNodeAction::SendSolicitation { icmp });
    }
}

impl MobileNode {
    pub(super) fn leave_link(&mut self) {
        self.agents.clear();
        self.search.stop();
        self.pending = None;
        self.agent_deadline = None;
        self.not_before = None;
        self.denials = 0;
        self.suspicion = None;
        self.trust_until = None;
        self.wishes = Wishes::new(&self.config);
        self.set_dhcp(false);
        self.drop_registration();
        if self.stopping.is_some() {
            self.finish_stop();
        }
    }

    pub(super) fn drop_registration(&mut self) {
        self.registration = None;
        self.keepalive = None;
        self.announcements = None;
        self.attach(Attachment::None);
    }

    /// The agent is out of the list: what stood on it falls.
    pub(super) fn lose_agent(&mut self, address: Ipv4Addr, now: Instant) {
        let stands_on = |target: Target| match target {
            Target::Home(agent) | Target::ForeignAgent(agent) => agent == address,
            Target::CoLocated(_) => false,
        };
        if self.pending.as_ref().is_some_and(|pending| stands_on(pending.target)) {
            self.pending = None;
        }
        let attached = match self.attachment {
            Attachment::Home { gateway, .. } => gateway == address,
            _ => false,
        };
        if attached || self.registration.is_some_and(|old| stands_on(old.target)) {
            self.drop_registration();
            self.suspicion = None;
            if self.stopping.is_none() {
                self.agent_deadline = Some(now + self.config.agent_wait);
                self.set_dhcp(true);
            }
        }
    }

    /// What stands on a co-located address other than `kept` falls.
    pub(super) fn lose_co_located(&mut self, kept: Option<Ipv4Addr>) {
        let lost = |target: Target| match target {
            Target::CoLocated(address) => Some(address) != kept,
            Target::Home(_) | Target::ForeignAgent(_) => false,
        };
        if self.pending.as_ref().is_some_and(|pending| lost(pending.target)) {
            self.pending = None;
        }
        if self.registration.is_some_and(|old| lost(old.target)) {
            self.drop_registration();
        }
    }

    /// The agent that the registration stands on.
    pub(super) fn current_agent(&self) -> Option<Ipv4Addr> {
        match self.registration?.target {
            Target::Home(address) | Target::ForeignAgent(address) => Some(address),
            Target::CoLocated(_) => None,
        }
    }

    /// `newcomer` was heard: if it tells of another prefix than our agent, we
    /// may have moved (RFC 5944 §2.4.2.2), so our agent is asked.
    pub(super) fn suspect(&mut self, newcomer: Ipv4Addr, now: Instant) {
        let Some(current) = self.current_agent().and_then(|address| self.agents.get(address))
        else {
            return;
        };
        let Some(other) = self.agents.get(newcomer) else { return };
        // Only when both tell their prefixes may they be compared.
        let differ = current.prefix.zip(other.prefix).is_some_and(|(a, b)| a != b);
        let trusted = self.trust_until.is_some_and(|until| until > now);
        if differ && !trusted && self.suspicion.is_none() {
            self.suspicion = Some(now + SUSPICION);
            self.solicit_once(now);
        }
    }

    pub(super) fn hear_again(&mut self, address: Ipv4Addr, restarted: bool, moved: bool, now: Now) {
        if self.current_agent() != Some(address) {
            return self.suspect(address, now.monotonic);
        }
        if self.suspicion.take().is_some() {
            // Both are here, so the other's prefix says nothing for as long as
            // ours need not be heard.
            self.trust_until = self.agents.get(address).map(|agent| agent.expires_at);
        }
        let Some(registration) = self.registration else { return };
        if moved && let Some(mac) = self.agents.get(address).map(|agent| agent.mac) {
            let attachment = match self.attachment {
                Attachment::ForeignAgent {
                    address, care_of_address, style, encapsulation, ..
                } => {
                    Attachment::ForeignAgent { address, mac, care_of_address, style, encapsulation }
                }
                Attachment::Home { gateway, .. } => Attachment::Home { gateway, mac },
                other => other,
            };
            self.attach(attachment);
        }
        if restarted && matches!(registration.target, Target::ForeignAgent(_)) {
            self.event(MobileNodeEvent::AgentRestarted { address });
            if self.pending.is_none() {
                self.begin(registration.target, now);
            }
            self.renew_sessions(now);
        }
    }

    pub(super) fn finish_stop(&mut self) {
        self.pending = None;
        self.sessions.stop();
        self.stopping = None;
        self.link_up = false;
        self.agent_deadline = None;
        self.not_before = None;
        self.search.stop();
        self.agents.clear();
        self.set_dhcp(false);
        self.drop_registration();
        self.actions.push_back(MobileNodeAction::Stopped);
    }
}
