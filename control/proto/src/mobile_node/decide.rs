//! Deciding: what to be registered with, and what a reply means.

use core::net::Ipv4Addr;
use core::time::Duration;

use rand_core::RngCore;

use super::keepalive::Keepalive;
use super::negotiate::Granted;
use super::pace::jitter;
use super::request::{Identity, Pending, Target};
use super::{Attachment, MobileNode, MobileNodeAction, MobileNodeEvent, Registration, is_host};
use crate::message::{Received, RegistrationReply, ReplyCode};
use crate::security::ReplayProtection;
use crate::{Encapsulation, Instant, Lifetime, Now, ReverseTunnel};

/// Denials in a row that are met by a corrected request at once.
const MAX_CORRECTIONS: u32 = 2;

/// The wait after a denial by the home agent: doubled each time, up to the most.
const MIN_DENIAL_WAIT: Duration = Duration::from_secs(2);
const MAX_DENIAL_WAIT: Duration = Duration::from_secs(64);

impl MobileNode {
    /// What to be registered with, by all that is known now: home; then the
    /// foreign agent that we have, or ask already; then the best other; then the
    /// co-located address.
    pub(super) fn choose(&self, now: Instant) -> Option<Target> {
        if let Some(agent) = self.agents.home() {
            return Some(Target::Home(agent.address));
        }
        let registered = self.registration.map(|registration| registration.target);
        let asked = self.pending.as_ref().map(|pending| pending.target);
        for target in [registered, asked].into_iter().flatten() {
            if let Target::ForeignAgent(address) = target
                && self.agents.may_stay(address, &self.config, now)
            {
                return Some(target);
            }
        }
        let agent = self.agents.best(&self.config, None, now).map(Target::ForeignAgent);
        agent.or_else(|| self.co_located_target(now))
    }

    pub(super) fn co_located_target(&self, now: Instant) -> Option<Target> {
        let (co_located, _) = self.co_located?;
        let allowed = self.config.co_located
            && self.agent_deadline.is_none_or(|deadline| deadline <= now)
            && !self.agents.require_registration();
        allowed.then_some(Target::CoLocated(co_located.address))
    }

    /// Brings what is registered in line with what is known, then the sessions in line
    /// with that. A stop ends when nothing is left to be answered.
    pub(super) fn settle(&mut self, now: Now) {
        self.settle_node(now);
        self.settle_sessions(now);
        if self.stopping.is_some() && self.pending.is_none() && !self.sessions_wait() {
            self.finish_stop();
        }
    }

    /// Starts the registration that [`Self::choose`] asks for, unless it is
    /// under way or in force.
    fn settle_node(&mut self, now: Now) {
        if !self.link_up || self.stopping.is_some() {
            return;
        }
        let target = self.choose(now.monotonic);
        if matches!(target, Some(Target::Home(_) | Target::ForeignAgent(_))) {
            self.search.stop();
        } else {
            self.search.start(now.monotonic);
            self.solicit_if_due(now.monotonic);
        }
        let Some(target) = target else {
            return;
        };
        let registered = self.registration.map(|registration| registration.target);
        let asked = self.pending.as_ref().map(|pending| pending.target);
        if asked == Some(target) || (asked.is_none() && registered == Some(target)) {
            return;
        }
        if asked.is_some() && registered == Some(target) {
            self.pending = None;
            return;
        }
        self.begin(target, now);
    }

    pub(super) fn begin(&mut self, target: Target, now: Now) {
        let at = now.monotonic;
        if self.not_before.is_some_and(|until| until > at) {
            return;
        }
        if let Err(later) = self.registration_pace.take(at) {
            self.not_before = Some(later);
            return;
        }
        let Some((care_of_address, lifetime)) = self.terms(target, at) else {
            return;
        };
        if let Target::Home(gateway) = target {
            self.arrive_home(gateway, at);
        }
        let (whom, asked) = (self.identity(), self.ask(target));
        self.pending = Some(Pending::new(whom, target, care_of_address, lifetime, asked));
        self.send(now);
    }

    /// Whom the node's own requests are for.
    pub(super) fn identity(&self) -> Identity {
        Identity::node(self.asked_address(), self.is_given)
    }

    /// What they have in the Home Address field.
    fn asked_address(&self) -> Ipv4Addr {
        let wanted = self.wanted.unwrap_or(Ipv4Addr::UNSPECIFIED);
        self.home_address().unwrap_or(wanted)
    }

    /// The care-of address and the lifetime to ask for.
    pub(super) fn terms(&self, target: Target, now: Instant) -> Option<(Ipv4Addr, Lifetime)> {
        match target {
            // Lifetime zero and the home address as care-of address end every
            // binding (RFC 5944 §3.6.1.1).
            Target::Home(_) => Some((self.asked_address(), Lifetime::ZERO)),
            Target::ForeignAgent(address) => {
                let agent = self.agents.get(address)?;
                // No more than the agent advertises (RFC 5944 §3.6.1.1).
                let lifetime = self.config.lifetime.min(agent.mobility.registration_lifetime);
                Some((agent.care_of_address()?, lifetime))
            }
            Target::CoLocated(address) => {
                let (co_located, since) = self.co_located?;
                let left = co_located.lease.map(|lease| (since + lease).saturating_since(now));
                let left = left.map_or(Lifetime::INFINITE, |left| {
                    // One below infinity at most, one second at least.
                    Lifetime(u16::try_from(left.as_secs()).unwrap_or(u16::MAX).clamp(1, 0xfffe))
                });
                Some((address, self.config.lifetime.min(left)))
            }
        }
    }

    /// At home the host is configured first, then the link is told, then the
    /// home agent (RFC 5944 §4.6).
    pub(super) fn arrive_home(&mut self, gateway: Ipv4Addr, now: Instant) {
        let Some(agent) = self.agents.get(gateway) else { return };
        let attachment = Attachment::Home { gateway, mac: agent.mac };
        let at_home = |registration: &Registration| registration.target == Target::Home(gateway);
        self.registration = self.registration.filter(at_home);
        self.keepalive = None;
        self.set_dhcp(false);
        if self.attach(attachment) {
            self.announce_home(now);
            self.announce_sessions(now);
        }
    }

    /// Tells the home link of the home address, now and a few times more.
    fn announce_home(&mut self, now: Instant) {
        if !self.config.home_address.is_unspecified() {
            self.announcements = Some((now, 0));
            self.announce(now);
        }
    }

    /// A reply to the node's own request, which has been verified.
    pub(super) fn answered(&mut self, reply: &Received<'_, RegistrationReply>, now: Now) {
        let Some(pending) = self.pending.take() else { return };
        if reply.mobile_home_authentication().is_some() {
            self.memory.learn_nonce(reply.body.identification);
        }
        self.learn_challenge(&pending, reply);
        if reply.body.code.is_accepted() {
            self.accepted(&pending, reply, now);
        } else {
            self.denied(pending, reply, now);
        }
    }

    fn accepted(&mut self, pending: &Pending, reply: &Received<'_, RegistrationReply>, now: Now) {
        let at = now.monotonic;
        let after = at.saturating_since(pending.sent_at);
        self.denials = 0;
        self.not_before = None;
        if !pending.lifetime.is_zero() {
            self.assigned();
        }
        let is_new = pending.identity.is_given && self.take_address(reply.body.home_address, now);
        if pending.lifetime.is_zero() {
            self.event(MobileNodeEvent::Deregistered { after });
            if self.stopping.is_some() {
                return;
            }
            // Nothing ends at home; but an address that was given is kept for those only
            // that are heard of.
            let lasts = self.config.lifetime;
            let renew_at = self.renewal(lasts, pending.sent_at).filter(|_| self.is_given);
            self.registration = Some(Registration {
                target: pending.target,
                care_of_address: self.config.home_address,
                lifetime: Lifetime::ZERO,
                expires_at: None,
                encapsulation: Encapsulation::default(),
                nat: false,
                renew_at,
            });
            if is_new {
                self.announce_home(at);
            }
            return;
        }
        let granted = self.granted(pending, reply);
        self.keep(pending, &granted);
        // Never longer than was asked for (RFC 5944 §3.4), and counted from the
        // sending of the request (§3.6.2.2).
        let lifetime = reply.body.lifetime.min(pending.lifetime);
        let expires_at = lifetime.duration().map(|lifetime| pending.sent_at + lifetime);
        let renew_at = self.renewal(lifetime, pending.sent_at);
        self.registration = Some(Registration {
            target: pending.target,
            care_of_address: pending.care_of_address,
            lifetime,
            expires_at,
            encapsulation: granted.encapsulation,
            nat: granted.nat,
            renew_at,
        });
        if let Some(attachment) = self.attachment_of(pending, granted.encapsulation) {
            self.attach(attachment);
        }
        if let Target::ForeignAgent(address) = pending.target {
            self.agents.forgive(address);
            self.set_dhcp(false);
        }
        self.event(MobileNodeEvent::Registered {
            care_of_address: pending.care_of_address,
            lifetime,
            after,
        });
    }

    /// The home agent has said which home address the node has; whether it is another than
    /// before.
    fn take_address(&mut self, home_address: Ipv4Addr, now: Now) -> bool {
        if !is_host(home_address) || home_address == self.config.home_address {
            return false;
        }
        self.take_from_sessions(home_address, now);
        self.wanted = None;
        self.config.home_address = home_address;
        self.actions.push_back(MobileNodeAction::UseHomeAddress(Some(home_address)));
        true
    }

    /// The home agent will not let the node have the address that it gave it before: it
    /// asks for any, and is nowhere until then.
    fn lose_address_of_node(&mut self) {
        self.config.home_address = Ipv4Addr::UNSPECIFIED;
        self.drop_registration();
        self.actions.push_back(MobileNodeAction::UseHomeAddress(None));
    }

    /// When to renew what lasts `lifetime` from `sent_at` on: at two fifths and a little,
    /// before half, not all nodes at once.
    pub(super) fn renewal(&mut self, lifetime: Lifetime, sent_at: Instant) -> Option<Instant> {
        let lifetime = lifetime.duration()?;
        Some(sent_at + lifetime * 2 / 5 + jitter(lifetime / 2, &mut self.rng))
    }

    /// Keeps the tunnel alive from now on, if it has to be.
    fn keep(&mut self, pending: &Pending, granted: &Granted) {
        let stays = self.registration.is_some_and(|old| old.target == pending.target);
        if !stays {
            // Another place, another NAT (RFC 3519 §4.10).
            self.shortened = None;
        }
        if granted.nat && !self.registration.is_some_and(|old| stays && old.nat) {
            self.event(MobileNodeEvent::NatFound { encapsulation: granted.encapsulation });
        }
        self.keepalive = granted.keepalive.map(|assigned| {
            let interval = self.shortened.map_or(assigned, |shorter| shorter.min(assigned));
            let [a, b, ..] = self.rng.next_u32().to_be_bytes();
            Keepalive::new(interval, u16::from_be_bytes([a, b]), pending.sent_at)
        });
    }

    pub(super) fn attachment_of(
        &self,
        pending: &Pending,
        encapsulation: Encapsulation,
    ) -> Option<Attachment> {
        let style = self.config.reverse_tunnel;
        match pending.target {
            Target::Home(gateway) => {
                Some(Attachment::Home { gateway, mac: self.agents.get(gateway)?.mac })
            }
            Target::ForeignAgent(address) => Some(Attachment::ForeignAgent {
                address,
                mac: self.agents.get(address)?.mac,
                care_of_address: pending.care_of_address,
                style,
                encapsulation,
            }),
            Target::CoLocated(_) => Some(Attachment::CoLocated {
                co_located: self.co_located?.0,
                reverse_tunnel: style != ReverseTunnel::None,
                encapsulation,
            }),
        }
    }

    fn denied(&mut self, mut pending: Pending, reply: &Received<'_, RegistrationReply>, now: Now) {
        let code = reply.body.code;
        self.event(MobileNodeEvent::Denied { code });
        // What is sent elsewhere is no correction: it has a bound of its own.
        if code == ReplyCode::REDIRECTED_HOME_AGENT
            && self.follow(&mut pending, reply)
            && self.stopping.is_none()
        {
            self.pending = Some(pending);
            return self.send(now);
        }
        let corrects = self.correct(&mut pending, reply, now);
        self.memory.denied(&pending, code);
        if corrects {
            self.pending = Some(pending);
            return self.send(now);
        }
        if self.stopping.is_some() {
            return;
        }
        let at = now.monotonic;
        match pending.target {
            Target::ForeignAgent(address) if code.is_from_foreign_agent() => {
                self.agents.refuse(address, at);
                if self.registration.is_some_and(|old| old.target == pending.target) {
                    self.drop_registration();
                    self.set_dhcp(true);
                }
            }
            _ => {
                let Identity { is_given, home_address, .. } = pending.identity;
                let names_one = is_given && !home_address.is_unspecified();
                let refused = names_one && code == ReplyCode::HA_PROHIBITED;
                if refused && self.wanted.take().is_some() {
                    // Not this address, then any.
                    return;
                }
                if refused {
                    self.lose_address_of_node();
                }
                self.not_before = Some(at + self.denial_wait(self.denials));
            }
        }
        self.denials = self.denials.saturating_add(1);
    }

    /// How long to wait after a denial that `before` others came before.
    pub(super) fn denial_wait(&mut self, before: u32) -> Duration {
        let wait = (MIN_DENIAL_WAIT * (1 << before.min(5))).min(MAX_DENIAL_WAIT);
        wait + jitter(wait, &mut self.rng)
    }

    /// Changes a request so that the reason of its denial is met, and it can be sent
    /// again at once; `false` when it cannot, or has been often enough.
    pub(super) fn correct(
        &mut self,
        pending: &mut Pending,
        reply: &Received<'_, RegistrationReply>,
        now: Now,
    ) -> bool {
        let code = reply.body.code;
        let correctable = match code {
            ReplyCode::IDENTIFICATION_MISMATCH => {
                if let ReplayProtection::Timestamps { tolerance } = self.style()
                    && self.identifications.recall(pending)
                {
                    let theirs = reply.body.identification;
                    let offset = self.identifications.learn_clock(theirs, now.ntp, tolerance);
                    pending.before = self.identifications.last();
                    self.event(MobileNodeEvent::ClockSet { offset });
                }
                true
            }
            // The reply names the longest lifetime that the agent takes
            // (RFC 5944 §3.4).
            ReplyCode::LIFETIME_TOO_LONG => {
                let longest = reply.body.lifetime;
                let shorter = !longest.is_zero() && longest < pending.lifetime;
                if shorter {
                    pending.lifetime = longest;
                }
                shorter
            }
            _ => {
                let gives_way = self.give_way(pending, reply);
                if gives_way {
                    self.event(MobileNodeEvent::GaveWay { code });
                }
                gives_way
            }
        };
        // At the end, one more attempt is enough.
        let most = if self.stopping.is_some() { 1 } else { MAX_CORRECTIONS };
        let corrects = correctable && pending.corrections < most;
        if corrects {
            pending.correct();
        }
        corrects
    }

    pub(super) fn style(&self) -> ReplayProtection {
        let association = self.config.security.first_agent(self.config.home_agent);
        association.map_or_else(ReplayProtection::default, |association| association.replay)
    }
}
