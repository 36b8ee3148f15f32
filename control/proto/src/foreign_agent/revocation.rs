//! How a foreign agent revokes registrations, and takes a home agent's revocations
//! (RFC 3543 §4.2).
//!
//! It asks every home agent that it shares an association with, and leaves the decision
//! whether a node is told to it (flag I). Where that was not agreed on, the node is
//! told. It revokes what an operator clears, or a new config has no place for any more.
//!
//! A node is told by an advertisement to its station alone, with sequence number 0: as
//! if the agent had started anew, whereupon it registers again (§4.1). Flag B is not
//! set: it may come back.
//!
//! **Not done:** a foreign agent that leaves the config revokes nothing; nor does one
//! that stops. A registration without support is not denied (a MAY of §4.2.1).

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use homeport_wire::PortId;

use super::ForeignAgent;
use crate::Action;
use crate::agent::{Context, Datagram, Token};
use crate::decision::{Cause, Standing};
use crate::event::Event;
use crate::message::{
    AuthenticationKind, Extension, Received, RegistrationReply, RegistrationRevocation,
    RevocationAcknowledgement, RevocationSupport,
};
use crate::revocation::{self, Agreement, Notice, RevocationKey, Revoked, is_after};
use crate::visitor::{PendingRegistration, Station, Visitor, VisitorKey};

impl ForeignAgent {
    /// What is added to a request that registers a visitor (§3.2). What was under way
    /// against it is void from now on: else the home agent might get it later.
    pub(super) fn revocation_support(
        &mut self,
        station: &Station,
        context: &mut Context<'_>,
    ) -> Option<RevocationSupport> {
        let key = (station.request.home_address, station.home_agent);
        let timestamp = self.revocations.cancel(key, context);
        context.timers.stop(Token::ForeignRevocation(self.key(), key));
        let known = self.config.security.first_agent(station.home_agent).is_some();
        (self.config.revocation && known).then_some(RevocationSupport { inform: true, timestamp })
    }

    /// What an accepting reply agrees to: what its home agent has signed (§4.2.1).
    pub(super) fn agreed(
        &self,
        pending: &PendingRegistration,
        received: &Received<'_, RegistrationReply>,
    ) -> Option<Agreement> {
        let asked = pending.revocation?;
        let start = received.mobile_home_authentication()?.offset;
        let end = received.authentications(AuthenticationKind::ForeignHome).next()?.offset;
        let support = received.extensions().iter().find_map(|one| match one.extension {
            Extension::RevocationSupport(support) if (start..end).contains(&one.offset) => {
                Some(support)
            }
            _ => None,
        })?;
        let key = (received.body.home_address, received.body.home_agent);
        Some(Agreement {
            inform: asked.inform && support.inform,
            theirs: self.revocations.since(key, support.timestamp),
            ours: asked.timestamp,
        })
    }

    /// Tells a visitor's home agent that it is gone, and the visitor if the home agent
    /// has no say in that.
    pub(super) fn revoke(&mut self, visitor: &Visitor, context: &mut Context<'_>) {
        let Some(agreement) = visitor.revocation else { return };
        let state = &visitor.state;
        let notice = notice_of(visitor);
        if !agreement.inform {
            self.notices.push(notice);
        }
        let key = (state.home_address, state.home_agent);
        let revoked = Revoked {
            from_home_agent: false,
            inform: agreement.inform,
            home_address: state.home_address,
            home_agent: state.home_agent,
            care_of_address: state.care_of_address,
            source: self.config.care_of_address,
            destination: state.home_agent,
            agreement,
            registered_at: visitor.registered_at,
            ends: visitor.expires,
            notice: agreement.inform.then_some(notice),
        };
        let (tenant, security) = (self.config.tenant, &self.config.security);
        let next = self.revocations.begin(key, &revoked, tenant, security, context);
        context.timers.set(Token::ForeignRevocation(self.key(), key), next);
    }

    /// Removes a visitor at an operator's word, and revokes its registration; whether
    /// there was one.
    pub(crate) fn clear(&mut self, key: VisitorKey, context: &mut Context<'_>) -> bool {
        let Some(visitor) = self.visitors.get(&key).cloned() else { return false };
        self.remove_visitor(key, context);
        self.revoke(&visitor, context);
        true
    }

    /// The same of every visitor with a home address; how many there were.
    pub(crate) fn clear_all(&mut self, home_address: Ipv4Addr, context: &mut Context<'_>) -> usize {
        let visitors: Vec<VisitorKey> =
            self.visitors_of(home_address).map(|(key, _)| *key).collect();
        visitors.into_iter().filter(|key| self.clear(*key, context)).count()
    }

    /// A revocation has not been acknowledged yet.
    pub(crate) fn repeat_revocation(&mut self, key: RevocationKey, context: &mut Context<'_>) {
        let (tenant, security) = (self.config.tenant, &self.config.security);
        let next = self.revocations.send(key, tenant, security, context);
        context.timers.set(Token::ForeignRevocation(self.key(), key), next);
    }

    /// A home agent says that a registration is no more (§4.2.2.2); flag A has been looked
    /// at. `advertises` says whether a link's nodes can be told.
    ///
    /// # Errors
    /// Why it is met with silence.
    pub(crate) fn handle_revocation(
        &mut self,
        datagram: &Datagram<'_>,
        received: &Received<'_, RegistrationRevocation>,
        advertises: impl Fn(PortId) -> bool,
        context: &mut Context<'_>,
    ) -> Result<(), Cause> {
        context.ruling.standing = self.standing_of_revoked(received.body.home_address);
        let association =
            revocation::authenticate(datagram, received, &self.config.security, context)?;
        let message = received.body;
        // Appendix B: the home domain address tells two nodes with one home address
        // apart, so nothing else will do.
        if message.home_agent != datagram.source {
            return Err(Cause::RevocationOfAnother);
        }
        if message.care_of_address != self.config.care_of_address {
            return Err(Cause::RevocationElsewhere);
        }
        let key = (message.home_address, message.home_agent);
        let inform = match self.visitors.get(&key).cloned() {
            Some(visitor) => {
                let agreement = visitor.revocation.ok_or(Cause::RevocationNotAgreed)?;
                if !is_after(message.identifier, agreement.theirs) {
                    return Err(Cause::RevocationReplayed);
                }
                // Without an agreement it is told anyway (§3.2).
                let wanted = message.inform || !agreement.inform;
                let inform = wanted && advertises(visitor.state.port);
                if inform {
                    self.notices.push(notice_of(&visitor));
                }
                self.remove_visitor(key, context);
                self.revocations.remember(key, message.identifier, inform);
                context.counters.revocations_accepted += 1;
                context.ruling.cause = Cause::Revoked;
                let (tenant, (home_address, home_agent)) = (self.config.tenant, key);
                let event = Event::VisitorRevoked { tenant, home_address, home_agent };
                context.push(Action::Event(event));
                inform
            }
            None => {
                context.ruling.cause = Cause::RevokedBefore;
                self.revocations.repeated(key, message.identifier)?
            }
        };
        context.ruling.standing = Standing::Authentic;
        revocation::acknowledge(datagram, &message, inform, &association, context);
        Ok(())
    }

    /// A home agent has ended what was revoked.
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
        let (key, pending) = acknowledged.ok_or(Cause::AcknowledgementNotAwaited)?;
        context.timers.stop(Token::ForeignRevocation(self.key(), key));
        context.counters.revocations_acknowledged += 1;
        context.ruling.standing = Standing::Authentic;
        context.ruling.cause = Cause::RevocationAcknowledged;
        if pending.is_to_inform(received.body.inform) {
            self.notices.extend(pending.notice);
        }
        Ok(())
    }

    /// What is known of who speaks of a node before that is authenticated.
    fn standing_of_revoked(&self, home_address: Ipv4Addr) -> Standing {
        let known = self.config.security.knows_mobile_node(home_address)
            || self.visitors_of(home_address).next().is_some();
        if known { Standing::Claimed } else { Standing::Unknown }
    }

    /// Whether the acknowledgement may be of one of its revocations.
    pub(crate) fn awaits(&self, source: Ipv4Addr, of: &RevocationAcknowledgement) -> bool {
        self.revocations.awaits(source, of)
    }

    /// One that is to be told. Who has come back has no need to be.
    pub(crate) fn take_notice(&mut self) -> Option<Notice> {
        self.notices.pop()
    }
}

const fn notice_of(visitor: &Visitor) -> Notice {
    let state = &visitor.state;
    Notice { port: state.port, mac: state.mac, home_address: state.home_address }
}
