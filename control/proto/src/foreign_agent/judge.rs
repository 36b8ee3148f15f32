//! What a foreign agent checks in a request. Nothing here changes anything.

use super::challenge::Answer;
use super::{Asker, ForeignAgent, asks_encapsulating_delivery, authorized_len};
use crate::agent::{Context, Datagram, is_host};
use crate::config::Profile;
use crate::decision::{Cause, Standing};
use crate::home_agent::assignment::is_any;
use crate::message::extension::ExtensionError;
use crate::message::{
    AuthenticationKind, Extension, Located, Received, RegistrationRequest, RequestFlags,
};
use crate::visitor::{Station, pending_range};

impl ForeignAgent {
    /// The checks of RFC 5944 §3.7.2 and RFC 3024 §4.2.1, authentication first; gives
    /// the challenge that is answered.
    pub(super) fn judge(
        &self,
        datagram: &Datagram<'_>,
        station: &Station,
        received: &Received<'_, RegistrationRequest>,
        asker: &Asker,
        context: &mut Context<'_>,
    ) -> Result<Option<Answer>, Cause> {
        let request = &station.request;
        if let Some(ExtensionError::Unknown { .. }) = received.defect() {
            return Err(Cause::UnknownExtension);
        }
        // RFC 3543 §3.2, §4.2.1: only an agent, or a node that is its own, says it.
        let co_located = request.flags.contains(RequestFlags::CO_LOCATED);
        let revocable =
            |one: &Located<'_>| matches!(one.extension, Extension::RevocationSupport(_));
        if !co_located && received.extensions().iter().any(revocable) {
            return Err(Cause::VisitorSaysRevocable);
        }
        if !station.mac.is_unicast() {
            return Err(Cause::StationUnknown);
        }
        self.authenticate(received, asker, context)?;
        if self.is_pending(station, asker) {
            return Err(Cause::Duplicate);
        }
        self.validate_form(received)?;
        asker.flaw.map_or(Ok(()), Err)?;
        let answer = self.answer((station, asker), received)?;
        let deregisters = request.lifetime.is_zero();
        if self.config.administratively_prohibited && !deregisters {
            return Err(Cause::VisitorProhibited);
        }
        // §3.7.2: never relayed to ourselves. (Where we are the home agent, the
        // request has gone to it before it came here.)
        // RFC 4433 §5.2: nobody, or nobody that one can route to.
        let open = is_any(request.home_agent) || station.home_agent != request.home_agent;
        if open && !is_host(station.home_agent) {
            return Err(Cause::NoHomeAgent);
        }
        if context.is_local(station.home_agent) || !is_host(station.home_agent) {
            return Err(Cause::InvalidHomeAgent);
        }
        // §3.7.2.1. Nor can our care-of address be a node's own.
        let is_ours = request.care_of_address == self.config.care_of_address;
        if co_located == is_ours && !deregisters {
            return Err(Cause::InvalidCareOfAddress);
        }
        if request.lifetime > self.config.max_lifetime {
            return Err(Cause::LifetimeTooLong);
        }
        self.validate_encapsulation(request)?;
        self.validate_reverse_tunnel(datagram.ttl, received)?;
        if !deregisters && !co_located && self.is_taken(request.home_address, station) {
            return Err(Cause::AddressTaken);
        }
        self.validate_sessions(station, asker)?;
        self.validate_capacity(station, asker)?;
        Ok(answer)
    }

    /// Whether the request is pending already. From another station, the same home
    /// address, name, home agent and low half would steal the reply of the one that asked;
    /// from the same, with another name, there is one place for both.
    fn is_pending(&self, station: &Station, asker: &Asker) -> bool {
        let low = station.request.identification.low();
        self.pending_of(station.request.home_address, low).any(|(key, pending)| {
            pending.station == *station
                || key.3 == station.home_agent
                    && (pending.station.mac != station.mac) == (pending.asker.name == asker.name)
        })
    }

    /// RFC 5944 §3.7.2.1: where an association is shared, exactly one valid
    /// mobile-foreign authentication.
    pub(super) fn authenticate(
        &self,
        received: &Received<'_, RegistrationRequest>,
        asker: &Asker,
        context: &mut Context<'_>,
    ) -> Result<(), Cause> {
        let security = &self.config.security;
        let peer = asker.peer(security);
        if !security.knows_mobile_node(peer) {
            return if self.config.require_mobile_foreign_authentication {
                Err(Cause::VisitorNotTrusted)
            } else {
                Ok(())
            };
        }
        let mut extensions = received.authentications(AuthenticationKind::MobileForeign);
        let first = extensions.next().ok_or(Cause::VisitorUnsigned)?;
        let valid = first
            .extension
            .spi()
            .and_then(|spi| security.mobile_node(peer, spi))
            .is_some_and(|association| context.is_authentic(received, first, &association));
        if !valid || extensions.next().is_some() {
            return Err(Cause::VisitorWrongKey);
        }
        context.ruling.standing = Standing::Copied;
        Ok(())
    }

    /// What makes a request poorly formed: 70.
    pub(super) fn validate_form(
        &self,
        received: &Received<'_, RegistrationRequest>,
    ) -> Result<(), Cause> {
        let request = &received.body;
        let reserved = match self.config.profile {
            Profile::Rfc5944 | Profile::Dmnr => request.flags.has_reserved(),
            // RFC 2002 §3.3: the bit was V, Van Jacobson header compression.
            Profile::Rfc2002 if request.flags.contains(RequestFlags::RESERVED_R) => {
                return Err(Cause::HeaderCompression);
            }
            Profile::Rfc2002 => request.flags.contains(RequestFlags::RESERVED_X),
        };
        let bad_home = !request.home_address.is_unspecified() && !is_host(request.home_address);
        let unauthorized = authorized_len(received).is_none();
        if reserved {
            Err(Cause::VisitorReservedFlags)
        } else if bad_home {
            Err(Cause::NoHomeAddress)
        } else if received.defect().is_some() {
            Err(Cause::VisitorBrokenExtensions)
        } else if unauthorized {
            Err(Cause::VisitorUnsignedForHome)
        } else {
            Ok(())
        }
    }

    /// RFC 3024 §3.3 and §4.2.1, in its order.
    pub(super) fn validate_reverse_tunnel(
        &self,
        ttl: u8,
        received: &Received<'_, RegistrationRequest>,
    ) -> Result<(), Cause> {
        let request = &received.body;
        let encapsulating = asks_encapsulating_delivery(received);
        if !request.flags.contains(RequestFlags::REVERSE_TUNNEL) {
            // "MUST NOT be included if the T bit is not set."
            if encapsulating {
                return Err(Cause::DeliveryWithoutReverseTunnel);
            }
            let mandatory = self.demands_reverse_tunnel(request) && !request.lifetime.is_zero();
            return if mandatory { Err(Cause::VisitorReverseTunnelMandatory) } else { Ok(()) };
        }
        if encapsulating && !self.config.encapsulating_delivery {
            return Err(Cause::DeliveryStyleRefused);
        }
        if ttl != 255 {
            return Err(Cause::TooDistant);
        }
        if !self.config.reverse_tunnel && !request.lifetime.is_zero() {
            return Err(Cause::VisitorReverseTunnelRefused);
        }
        Ok(())
    }

    fn validate_capacity(&self, station: &Station, asker: &Asker) -> Result<(), Cause> {
        let request = &station.request;
        let node = pending_range(request.home_address, station.mac, station.mac);
        // Several sessions of one station may be without address.
        let of_node = self.pending.range(node).filter(|(_, pending)| {
            !request.home_address.is_unspecified() || pending.asker.name == asker.name
        });
        let is_visitor = self.visitor(request.home_address, station.home_agent).is_some();
        let full = self.visitors.len() >= self.config.max_visitors
            && !is_visitor
            && !request.lifetime.is_zero();
        if full {
            Err(Cause::VisitorsFull)
        } else if self.pending.len() >= self.config.max_pending {
            Err(Cause::PendingFull)
        } else if of_node.count() >= self.config.max_pending_per_node {
            Err(Cause::PendingOfNodeFull)
        } else {
            Ok(())
        }
    }
}
