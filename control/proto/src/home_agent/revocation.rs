//! How a home agent revokes registrations, and takes a foreign agent's revocations
//! (RFC 3543 §4.2).
//!
//! It revokes what an operator clears, and what a node has left for another foreign
//! agent, or for home, without a word to the one before: that one frees the visitor at
//! once. The node is to be told of the first only: of the others it knows.
//!
//! **Not done:** revocations to a node with a co-located care-of address (a MAY of
//! §4.2.1): its support is not answered. A home agent that leaves the config revokes
//! nothing; nor does one that stops.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use super::extra::{Extra, Extras, Writer};
use super::{Asked, ForeignHome, HomeAgent};
use crate::Action;
use crate::agent::{Context, Datagram, Token};
use crate::binding::Registration;
use crate::decision::{Cause, Standing};
use crate::event::Event;
use crate::message::{
    AuthenticationKind, Extension, Received, RegistrationRevocation, RequestFlags,
    RevocationAcknowledgement, RevocationSupport,
};
use crate::revocation::{self, Agreement, RevocationKey, Revoked, is_after};

impl HomeAgent {
    /// Agrees on revocations with the foreign agent of a registration that is accepted,
    /// if both want it, and says so in the reply (§4.2.1). What was under way against
    /// the registration is void.
    pub(super) fn agree(
        &mut self,
        asked: &Asked<'_, '_>,
        extras: &mut Extras,
        context: &mut Context<'_>,
    ) -> Option<Agreement> {
        let key = (asked.request.home_address, asked.request.care_of_address);
        let ours = self.revocations.cancel(key, context);
        context.timers.stop(Token::HomeRevocation(self.key(), key));
        let co_located = asked.wants(RequestFlags::CO_LOCATED);
        let known = matches!(asked.foreign_home, ForeignHome::Valid(_));
        let support = asked.revocation_support().filter(|_| self.config.revocation);
        let support = support.filter(|_| known && !co_located)?;
        self.relaying_agent(asked)?;
        let inform = support.inform;
        extras.add(
            Writer::ForeignAgent,
            Extra::RevocationSupport(RevocationSupport { inform, timestamp: ours }),
        );
        let theirs = self.revocations.since(key, support.timestamp);
        Some(Agreement { inform, theirs, ours })
    }

    /// Remembers what was agreed on, or that nothing was.
    pub(super) fn note_agreement(&mut self, asked: &Asked<'_, '_>, agreed: Option<Agreement>) {
        let key = (asked.request.home_address, asked.request.care_of_address);
        match agreed {
            Some(agreement) => {
                self.agreements.insert(key, agreement);
            }
            None => {
                self.agreements.remove(&key);
            }
        }
    }

    /// Forgets what was agreed on about registrations that are gone.
    pub(super) fn tidy_agreements(&mut self, home_address: Ipv4Addr) {
        if self.agreements.is_empty() {
            return;
        }
        let gone: Vec<RevocationKey> = {
            let binding = self.binding(home_address);
            let all = (home_address, Ipv4Addr::UNSPECIFIED)..=(home_address, Ipv4Addr::BROADCAST);
            let is_gone = |(_, care_of): &RevocationKey| {
                binding.as_ref().is_none_or(|binding| binding.registration(*care_of).is_none())
            };
            self.agreements.range(all).map(|(key, _)| *key).filter(is_gone).collect()
        };
        for key in gone {
            self.agreements.remove(&key);
        }
    }

    /// Tells the foreign agents of those registrations of a node that `ends` says that
    /// they end; `inform`: whether the node shall be told.
    pub(super) fn revoke(
        &mut self,
        home_address: Ipv4Addr,
        inform: bool,
        context: &mut Context<'_>,
        ends: impl Fn(&Registration) -> bool,
    ) {
        if self.agreements.is_empty() {
            return;
        }
        let Some(binding) = self.binding(home_address) else { return };
        for registration in binding.registrations.iter().filter(|one| ends(one)) {
            let key = (home_address, registration.care_of.registered);
            let (Some(agreement), Some(agent)) =
                (self.agreements.get(&key).copied(), registration.foreign_agent)
            else {
                continue;
            };
            let revoked = Revoked {
                from_home_agent: true,
                inform: inform && agreement.inform,
                home_address,
                home_agent: self.config.address,
                care_of_address: registration.care_of.registered,
                source: self.config.address,
                destination: agent,
                agreement,
                registered_at: registration.registered_at,
                ends: registration.expires,
                notice: None,
            };
            let (tenant, security) = (self.config.tenant, &self.config.security);
            let next = self.revocations.begin(key, &revoked, tenant, security, context);
            context.timers.set(Token::HomeRevocation(self.key(), key), next);
        }
    }

    /// A revocation has not been acknowledged yet.
    pub(crate) fn repeat_revocation(&mut self, key: RevocationKey, context: &mut Context<'_>) {
        let (tenant, security) = (self.config.tenant, &self.config.security);
        let next = self.revocations.send(key, tenant, security, context);
        context.timers.set(Token::HomeRevocation(self.key(), key), next);
    }

    /// A foreign agent says that a registration is no more (§4.2.3.2); flag A has been
    /// looked at.
    ///
    /// # Errors
    /// Why it is met with silence.
    pub(crate) fn handle_revocation(
        &mut self,
        datagram: &Datagram<'_>,
        received: &Received<'_, RegistrationRevocation>,
        context: &mut Context<'_>,
    ) -> Result<(), Cause> {
        context.ruling.standing = self.standing_of_revoked(received.body.home_address);
        let association =
            revocation::authenticate(datagram, received, &self.config.security, context)?;
        let RegistrationRevocation {
            inform,
            home_address,
            home_agent,
            care_of_address,
            identifier,
            ..
        } = received.body;
        if home_agent != self.config.address {
            return Err(Cause::RevocationOfAnother);
        }
        let key = (home_address, care_of_address);
        let registration = self
            .binding(home_address)
            .and_then(|binding| binding.registration(care_of_address).copied());
        // Nobody revokes what another agent relayed.
        if registration.is_some_and(|one| one.foreign_agent != Some(datagram.source)) {
            return Err(Cause::RevocationNotAgreed);
        }
        let agreement = self.agreements.get(&key).copied();
        let inform = match (registration, agreement) {
            (Some(_), Some(agreement)) => {
                if !is_after(identifier, agreement.theirs) {
                    return Err(Cause::RevocationReplayed);
                }
                let inform = inform && agreement.inform;
                self.retain_registrations(home_address, context, |one| {
                    one.care_of.registered != care_of_address
                });
                self.revocations.remember(key, identifier, inform);
                context.counters.revocations_accepted += 1;
                context.ruling.cause = Cause::Revoked;
                let tenant = self.config.tenant;
                let event = Event::BindingRevoked { tenant, home_address, care_of_address };
                context.push(Action::Event(event));
                inform
            }
            (Some(_), None) => return Err(Cause::RevocationNotAgreed),
            (None, _) => {
                context.ruling.cause = Cause::RevokedBefore;
                self.revocations.repeated(key, identifier)?
            }
        };
        context.ruling.standing = Standing::Authentic;
        revocation::acknowledge(datagram, &received.body, inform, &association, context);
        Ok(())
    }

    /// A foreign agent has freed what was revoked.
    ///
    /// # Errors
    /// Why it is met with silence.
    pub(crate) fn handle_acknowledgement(
        &mut self,
        datagram: &Datagram<'_>,
        received: &Received<'_, RevocationAcknowledgement>,
        context: &mut Context<'_>,
    ) -> Result<(), Cause> {
        context.ruling.standing = self.standing_of_revoked(received.body.home_address);
        revocation::authenticate(datagram, received, &self.config.security, context)?;
        let acknowledged = self.revocations.acknowledge(datagram.source, &received.body);
        let (key, _) = acknowledged.ok_or(Cause::AcknowledgementNotAwaited)?;
        context.timers.stop(Token::HomeRevocation(self.key(), key));
        context.counters.revocations_acknowledged += 1;
        context.ruling.standing = Standing::Authentic;
        context.ruling.cause = Cause::RevocationAcknowledged;
        Ok(())
    }

    /// What is known of who speaks of a node before that is authenticated.
    fn standing_of_revoked(&self, home_address: Ipv4Addr) -> Standing {
        let known = self.config.security.knows_mobile_node(home_address)
            || self.nodes.session(home_address).is_some();
        if known { Standing::Claimed } else { Standing::Unknown }
    }

    /// Whether the acknowledgement may be of one of its revocations.
    pub(crate) fn awaits(&self, source: Ipv4Addr, of: &RevocationAcknowledgement) -> bool {
        self.revocations.awaits(source, of)
    }
}

impl Asked<'_, '_> {
    /// What the foreign agent says of revocations: behind the mobile-home
    /// authentication, and under the foreign-home one (§3.2).
    fn revocation_support(&self) -> Option<RevocationSupport> {
        let start = self.received.mobile_home_authentication()?.offset;
        let end = self.received.authentications(AuthenticationKind::ForeignHome).next()?.offset;
        self.received.extensions().iter().find_map(|one| match one.extension {
            Extension::RevocationSupport(support) if (start..end).contains(&one.offset) => {
                Some(support)
            }
            _ => None,
        })
    }
}
