//! What a home agent checks in a request. Nothing here changes anything.

use alloc::sync::Arc;
use core::net::Ipv4Addr;

use super::extra::Extras;
use super::tunnel::Tunnel;
use super::{Asked, ForeignHome, Grant, HomeAgent};
use crate::agent::{Context, Datagram, is_host};
use crate::config::Profile;
use crate::decision::Cause;
use crate::message::{AuthenticationKind, Extension, Received, RegistrationRequest, RequestFlags};
use crate::security::MobilitySecurityAssociation;

impl HomeAgent {
    /// RFC 5944 §3.8.2.1 d: an extension without association silences the
    /// message; else exactly one valid extension is right.
    pub(super) fn foreign_home(
        &self,
        datagram: &Datagram<'_>,
        received: &Received<'_, RegistrationRequest>,
        context: &mut Context<'_>,
    ) -> Result<ForeignHome, Cause> {
        let security = &self.config.security;
        let mut extensions = received.authentications(AuthenticationKind::ForeignHome);
        let Some(first) = extensions.next() else {
            return Ok(match security.first_agent(datagram.source) {
                Some(association) => ForeignHome::Missing(Arc::clone(association)),
                None => ForeignHome::NotShared,
            });
        };
        let association = first
            .extension
            .spi()
            .and_then(|spi| security.agent(datagram.source, spi))
            .ok_or(Cause::UnknownForeignAgentSpi)?;
        let association = Arc::clone(association);
        let valid =
            context.is_authentic(received, first, &association) && extensions.next().is_none();
        Ok(if valid { ForeignHome::Valid(association) } else { ForeignHome::Invalid(association) })
    }

    /// RFC 5944 §3.8.2.1 a: the association to answer with, one of `owner`'s, and what is
    /// wrong unless every mobile-home authenticator is right.
    pub(super) fn authenticate(
        &self,
        received: &Received<'_, RegistrationRequest>,
        owner: Ipv4Addr,
        context: &mut Context<'_>,
    ) -> Result<(MobilitySecurityAssociation, Option<Cause>), Cause> {
        let security = &self.config.security;
        // "All indicated authentications are carried out": this one cannot be.
        if received
            .extensions()
            .iter()
            .any(|one| matches!(one.extension, Extension::GeneralizedAuthentication { .. }))
        {
            return Err(Cause::UnsupportedAuthentication);
        }
        let unknown = || match security.knows_mobile_node(owner) {
            true => Cause::UnknownSpi,
            false if owner.is_unspecified() => Cause::UnknownNai,
            false => Cause::UnknownNode,
        };
        let mut chosen = None;
        let mut flaw = None;
        for extension in received.authentications(AuthenticationKind::MobileHome) {
            let association = extension
                .extension
                .spi()
                .and_then(|spi| security.mobile_node(owner, spi))
                .ok_or_else(unknown)?;
            if !context.is_authentic(received, extension, &association) {
                flaw = flaw.or(Some(Cause::WrongKey));
            }
            // RFC 2002 §3.8.2.1: more than one is a failure of authentication.
            if chosen.is_some() && self.config.profile == Profile::Rfc2002 {
                flaw = flaw.or(Some(Cause::TwoSignatures));
            }
            chosen.get_or_insert(association);
        }
        match (chosen, self.config.profile) {
            (Some(association), _) => Ok((association, flaw)),
            (None, _) if received.defect().is_some() => Err(Cause::Malformed),
            (None, Profile::Rfc5944 | Profile::Dmnr) => Err(Cause::Unsigned),
            // RFC 2002 §3.8.2.1: a request without is denied too.
            (None, Profile::Rfc2002) => {
                let association = security.first_mobile_node(owner);
                let association = association.ok_or_else(unknown)?;
                Ok((association, Some(Cause::UnsignedDenied)))
            }
        }
    }

    /// RFC 5944 §3.8.2.1 c.
    pub(super) fn check_foreign_home(&self, asked: &Asked<'_, '_>) -> Result<(), Cause> {
        let deregisters = asked.request.lifetime.is_zero();
        let (right, cause) = match asked.foreign_home {
            ForeignHome::Valid(_) => return Ok(()),
            ForeignHome::Invalid(_) => (false, Cause::WrongForeignAgentKey),
            // §3.5.4: a deregistration carries none, and none may be missed.
            ForeignHome::Missing(_) => (deregisters, Cause::ForeignAgentUnsigned),
            ForeignHome::NotShared => {
                let right = deregisters
                    || !self.config.require_foreign_home_authentication
                    || self.relaying_agent(asked).is_none();
                (right, Cause::ForeignAgentNotTrusted)
            }
        };
        if right { Ok(()) } else { Err(cause) }
    }

    /// What an authentic and fresh request gets, or what it is denied for. `None` is
    /// a deregistration.
    pub(super) fn validate(
        &self,
        asked: &Asked<'_, '_>,
        extras: &mut Extras,
        context: &mut Context<'_>,
    ) -> Result<Option<Grant>, Cause> {
        let request = &asked.request;
        let destination = asked.datagram.destination;
        // §3.8.2.1, §3.8.3.2: discovery, and a Home Agent field that is another's.
        if !self.is_asked(asked)
            || destination != self.config.address
                && !context.is_local(destination)
                && !destination.is_multicast()
        {
            let asked_us = destination == self.config.address;
            return Err(if asked_us { Cause::WrongHomeAgent } else { Cause::Discovery });
        }
        // §3.8.2.3. In RFC 2002 one of the two bits asks for header compression
        // on the foreign agent's link, which is not the home agent's business.
        let reserved = match self.config.profile {
            Profile::Rfc5944 | Profile::Dmnr => request.flags.has_reserved(),
            Profile::Rfc2002 => request.flags.contains(RequestFlags::RESERVED_X),
        };
        if reserved {
            return Err(Cause::ReservedFlags);
        }
        if let Some(defect) = asked.received.defect() {
            context.ruling.detail = defect.offset().unwrap_or(0);
            return Err(Cause::BrokenExtensions);
        }
        // A session that is not known has nothing to end; or it is all that are to end.
        if asked.owner.subscriber.is_some() && asked.session.is_none() {
            return Ok(None);
        }
        // §3.8.3.2: a home address that cannot be supported.
        if self.home_network(request.home_address).is_none() {
            return Err(Cause::OutsideHomeNetworks);
        }
        // RFC 5177 §6.7: whatever else it carries is ignored.
        if request.lifetime.is_zero() {
            return Ok(None);
        }
        if self.config.administratively_prohibited {
            return Err(Cause::Prohibited);
        }
        let tunnel = self.negotiate(asked, extras, context)?;
        self.validate_care_of_address(request, tunnel.address, context)?;
        self.validate_reverse_tunnel(asked, &tunnel)?;
        self.redirect(asked, extras, context)?;
        self.validate_capacity(request)?;
        let mobile_networks = self.mobile_networks(asked, extras)?;
        // Last, so that nobody answers a challenge to be denied for something else.
        if tunnel.challenged {
            return Err(Cause::ChallengeGiven);
        }
        Ok(Some(Grant { tunnel, mobile_networks }))
    }

    /// RFC 3024 §4.3.1. Beyond it: where the echo reply that proves a path would
    /// not come back through the tunnel, there is no proof to wait for.
    fn validate_reverse_tunnel(&self, asked: &Asked<'_, '_>, tunnel: &Tunnel) -> Result<(), Cause> {
        match asked.wants(RequestFlags::REVERSE_TUNNEL) {
            false if self.config.require_reverse_tunnel => Err(Cause::ReverseTunnelMandatory),
            false if tunnel.unproven => Err(Cause::ReverseTunnelForProof),
            true if !self.config.reverse_tunnel => Err(Cause::ReverseTunnelRefused),
            _ => Ok(()),
        }
    }

    /// Reliability row 15: no tunnel to where none can end, to ourselves, or to
    /// an address that may have a binding of its own. `effective` is where the
    /// tunnel goes; behind a NAT the registered address is nobody's business, as
    /// long as it is one, and any number of nodes may have the same.
    pub(super) fn validate_care_of_address(
        &self,
        request: &RegistrationRequest,
        effective: Ipv4Addr,
        context: &Context<'_>,
    ) -> Result<(), Cause> {
        let registered = request.care_of_address;
        if !is_host(registered) || !is_host(effective) {
            return Err(Cause::ImpossibleCareOfAddress);
        }
        // Only home addresses of the home networks are ever bound.
        let at_home = self.home_network(effective).is_some();
        if at_home || context.is_local(effective) || registered == request.home_address {
            return Err(Cause::CareOfAddressAtHome);
        }
        Ok(())
    }

    pub(super) fn validate_capacity(&self, request: &RegistrationRequest) -> Result<(), Cause> {
        if !self.is_bound(request.home_address) {
            let full = self.binding_count() >= self.config.max_bindings;
            return if full { Err(Cause::TableFull) } else { Ok(()) };
        }
        if !self.keeps_earlier(request) {
            return Ok(());
        }
        let Some(binding) = self.binding(request.home_address) else { return Ok(()) };
        let adds = binding.registration(request.care_of_address).is_none();
        if adds && binding.registrations.len() >= usize::from(self.max_simultaneous()) {
            return Err(Cause::TooManyCareOfAddresses);
        }
        Ok(())
    }
}
