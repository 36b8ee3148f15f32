//! What a home agent answers: whose request it was, whether it is right, and what it makes
//! of the visitor list (RFC 5944 §3.7.3).

use core::net::Ipv4Addr;

use super::{ForeignAgent, authorized_len};
use crate::action::VisitorState;
use crate::agent::{Context, Datagram, Token};
use crate::decision::{Cause, Decision, SeenExtensions, Standing, Subject};
use crate::message::extension::ExtensionError;
use crate::message::{
    AuthenticationKind, MessageWriter, Received, RegistrationReply, RequestFlags, SessionName,
};
use crate::visitor::{PendingKey, PendingRegistration, Visitor};
use crate::{Action, ReverseTunnel};

impl ForeignAgent {
    /// A reply has come to the care-of address (RFC 5944 §3.7.3).
    pub(crate) fn handle_reply(
        &mut self,
        datagram: &Datagram<'_>,
        received: &Received<'_, RegistrationReply>,
        context: &mut Context<'_>,
    ) {
        let stray = match self.find_pending(datagram.source, received) {
            // RFC 5944 §1.8: as if it had never come.
            Ok(_) if matches!(received.defect(), Some(ExtensionError::Unknown { .. })) => {
                Cause::UnknownExtension
            }
            Ok(key) => {
                let Some(pending) = self.take_pending(key, context) else { return };
                if let Err(cause) = self.take_reply(&pending, received, context) {
                    context.refuse(datagram, cause);
                    self.deny((&pending.station, &pending.asker), cause, context);
                }
                return self.tell_of(&pending, SeenExtensions::of(received), context);
            }
            Err(cause) => cause,
        };
        if let Some(ExtensionError::Unknown { extension_type }) = received.defect() {
            context.ruling.detail = extension_type.into();
        }
        context.refuse(datagram, stray);
        let decision = Decision::of_stray(datagram, received, stray);
        context.tell(self.as_judge(), decision);
    }

    /// Judges the reply to a pending request, and relays it if it is right.
    fn take_reply(
        &mut self,
        pending: &PendingRegistration,
        received: &Received<'_, RegistrationReply>,
        context: &mut Context<'_>,
    ) -> Result<(), Cause> {
        context.ruling.standing = Standing::Claimed;
        self.judge_reply(pending, received, context)?;
        context.ruling.cause = Cause::HomeAgentDenied;
        if received.body.code.is_accepted() {
            // Only now is it known whose answer it was (RFC 4721 §3.2). No room to
            // remember it is no reason to undo what the home agent has done.
            if let Some(issued) = pending.challenge {
                let _ = self.spend_accepted(&pending.asker, issued, context);
            }
            self.accept(pending, received, context)?;
            context.ruling.standing = Standing::Authentic;
            let registers = !received.body.lifetime.is_zero();
            context.ruling.cause = if registers { Cause::Accepted } else { Cause::Deregistered };
        }
        self.relay_reply(pending, received, context);
        Ok(())
    }

    /// Tells what became of a pending request.
    pub(super) fn tell_of(
        &self,
        pending: &PendingRegistration,
        extensions: SeenExtensions,
        context: &mut Context<'_>,
    ) {
        let station = &pending.station;
        let decision = Decision {
            tenant: self.config.tenant,
            judge: self.as_judge(),
            subject: Subject::Reply,
            source: station.source,
            source_port: station.source_port,
            port: station.port,
            request: station.request,
            extensions,
            session: pending.asker.label,
            ruling: context.ruling,
        };
        context.tell(self.as_judge(), decision);
    }

    /// The pending request that a reply answers: of its home address, else of a
    /// node without one and with the same name (RFC 5944 §3.7.3.1, RFC 2794 §3), else of
    /// the same name alone: who is known by it has one address, whatever it asked for. It is the
    /// home agent's that was asked: both its source and what it says of itself, if it says
    /// anything.
    fn find_pending(
        &self,
        source: Ipv4Addr,
        received: &Received<'_, RegistrationReply>,
    ) -> Result<PendingKey, Cause> {
        let reply = &received.body;
        #[cfg(feature = "planted-bugs")]
        if crate::planted::is(crate::planted::Bug::ReplyToOtherPending) {
            use homeport_wire::MacAddress;
            let (first, last) = (MacAddress([0; 6]), MacAddress::BROADCAST);
            let all = crate::visitor::pending_range(reply.home_address, first, last);
            let first = self.pending.range(all).next();
            return first.map(|(key, _)| *key).ok_or(Cause::NotPending);
        }
        let mut cause = Cause::NotPending;
        for home_address in [reply.home_address, Ipv4Addr::UNSPECIFIED] {
            for (key, pending) in self.pending_of(home_address, reply.identification.low()) {
                let asked = pending.station.home_agent;
                // Of what RFC 2794 wants to be in a reply, the node is told.
                let missing = pending.asker.name.is_some() && reply.home_agent.is_unspecified();
                let says = reply.home_agent == asked || missing;
                if !Self::answers_name(pending, received) {
                    continue;
                }
                if source == asked && says {
                    return Ok(*key);
                }
                cause = Cause::ReplyOfAnother;
            }
        }
        self.find_named(source, received).ok_or(cause)
    }

    /// The only pending request to this home agent that a reply answers by its name and
    /// its identification. Of several, whose stations are not the same, it is nobody's.
    fn find_named(
        &self,
        source: Ipv4Addr,
        received: &Received<'_, RegistrationReply>,
    ) -> Option<PendingKey> {
        let reply = &received.body;
        if reply.home_agent != source || !matches!(SessionName::of(received), Ok(Some(_))) {
            return None;
        }
        let low = reply.identification.low();
        let mut found = self
            .pending
            .iter()
            .filter(|((_, _, of, home_agent), _)| (*of, *home_agent) == (low, source))
            .filter(|(_, pending)| {
                pending.asker.name.is_some() && Self::answers_name(pending, received)
            });
        let first = found.next().map(|(key, _)| *key);
        first.filter(|_| found.next().is_none())
    }

    /// RFC 5944 §3.7.3.1.
    fn judge_reply(
        &self,
        pending: &PendingRegistration,
        received: &Received<'_, RegistrationReply>,
        context: &mut Context<'_>,
    ) -> Result<(), Cause> {
        let security = &self.config.security;
        let home_agent = pending.station.home_agent;
        let mut extensions = received.authentications(AuthenticationKind::ForeignHome);
        if security.first_agent(home_agent).is_some() {
            let deregisters =
                pending.station.request.lifetime.is_zero() && received.body.lifetime.is_zero();
            let first = extensions.next();
            let valid = first.is_some_and(|extension| {
                extension
                    .extension
                    .spi()
                    .and_then(|spi| security.agent(home_agent, spi))
                    .is_some_and(|association| {
                        context.is_authentic(received, extension, association)
                    })
            });
            let missing_is_right = first.is_none() && deregisters;
            if !missing_is_right && (!valid || extensions.next().is_some()) {
                return Err(Cause::ReplyWrongKey);
            }
        }
        // §3.8.3.3: the mobile-home authentication is in every reply.
        if received.defect().is_some() || authorized_len(received).is_none() {
            return Err(Cause::ReplyMalformed);
        }
        Self::validate_reply(pending, received)
    }

    /// Brings the visitor list in line with an accepting reply (RFC 5944
    /// §3.7.3.2).
    ///
    /// # Errors
    /// What to deny it for, when there is no room for another visitor, or none
    /// with this address.
    fn accept(
        &mut self,
        pending: &PendingRegistration,
        received: &Received<'_, RegistrationReply>,
        context: &mut Context<'_>,
    ) -> Result<(), Cause> {
        let station = &pending.station;
        let asked = &station.request;
        let home_address = received.body.home_address;
        let key = (home_address, station.home_agent);
        let care_of_address = self.config.care_of_address;
        if received.body.lifetime.is_zero() || asked.lifetime.is_zero() {
            let concerns_us = asked.care_of_address == care_of_address
                || asked.care_of_address == asked.home_address;
            if concerns_us {
                if !self.is_of_another(key, &pending.asker) {
                    self.remove_visitor(key, context);
                }
                if let Some(name) =
                    pending.asker.name.as_ref().filter(|_| pending.asker.releases_all)
                {
                    self.remove_all_of(station, name, context);
                }
            }
            return Ok(());
        }
        if asked.flags.contains(RequestFlags::CO_LOCATED) {
            return Ok(());
        }
        // Another may have come while this was pending.
        if self.is_taken(home_address, station) {
            return Err(Cause::AddressTaken);
        }
        // The same node with another home agent.
        let replaced = self.visitors_of(home_address).find(|(of, visitor)| {
            let state = &visitor.state;
            let is_same = (state.mac, state.port) == (station.mac, station.port);
            #[cfg(feature = "planted-bugs")]
            let is_same = is_same || crate::planted::is(crate::planted::Bug::VisitorByAddressAlone);
            **of != key && is_same
        });
        if let Some(replaced) = replaced.map(|(key, _)| *key) {
            self.remove_visitor(replaced, context);
        }
        if let Some(name) = &pending.asker.name {
            self.remove_earlier(key, station, name, context);
        }
        let is_new = !self.visitors.contains_key(&key);
        if is_new && pending.asker.name.as_ref().is_some_and(|name| !self.has_room_for(name)) {
            return Err(Cause::SessionsOfNaiFull);
        }
        if is_new && self.visitors.len() >= self.config.max_visitors {
            return Err(Cause::VisitorsFull);
        }
        // Never longer than what was asked for: a home agent must not increase it.
        let lifetime = received.body.lifetime.min(asked.lifetime).min(self.config.max_lifetime);
        let reverse_tunnel = match asked.flags.contains(RequestFlags::REVERSE_TUNNEL) {
            true if pending.encapsulating_delivery => ReverseTunnel::Encapsulating,
            true => ReverseTunnel::Direct,
            false => ReverseTunnel::None,
        };
        let (encapsulation, keepalive) = self.granted(pending, received);
        let state = VisitorState {
            tenant: self.config.tenant,
            home_address,
            mac: station.mac,
            port: station.port,
            home_agent: station.home_agent,
            care_of_address,
            encapsulation,
            reverse_tunnel,
            overlapping: self.config.overlapping_addresses,
            set_df: self.config.tunnels.set_df,
            clamp_mss: self.config.tunnels.clamp_mss,
        };
        let now = context.now.monotonic;
        let expires = lifetime.duration().map(|duration| now + duration);
        let visitor = Visitor {
            name: pending.asker.name.clone(),
            state,
            lifetime,
            identification: asked.identification,
            registered_at: now,
            expires,
            keepalive,
            revocation: self.agreed(pending, received),
        };
        let before = self.visitors.insert(key, visitor);
        if let Some(name) = before.and_then(|before| before.name) {
            self.names.remove(&name, key);
        }
        if let Some(name) = &pending.asker.name {
            self.names.insert(name, key);
        }
        let next = keepalive.map(|interval| now + interval);
        context.timers.set(Token::Keepalive(self.key(), key), next);
        context.timers.set(Token::Visitor(self.key(), key), expires);
        context.push(Action::InstallVisitor(state));
        Ok(())
    }

    /// RFC 5944 §3.7.3.2: unchanged up to the mobile-home authentication.
    fn relay_reply(
        &mut self,
        pending: &PendingRegistration,
        received: &Received<'_, RegistrationReply>,
        context: &mut Context<'_>,
    ) {
        let authorized = authorized_len(received).and_then(|len| received.bytes().get(..len));
        let writer = MessageWriter::relay(authorized.unwrap_or_default());
        context.counters.replies_relayed += 1;
        self.send((&pending.station, &pending.asker), &received.body, writer, context);
    }
}
