//! How a foreign agent's visitors are tunnelled: what it lets them ask for, what
//! it asks for itself because it is behind a NAT (RFC 3519 §4.5) or has GRE keys
//! (RFC 6245 §4.1), what it is granted, and the keepalives of that.

use alloc::vec::Vec;
use core::time::Duration;
use homeport_wire::icmpv4::ECHO_REQUEST;
use homeport_wire::{IpProtocol, MOBILE_IP_PORT};

use super::ForeignAgent;
use crate::agent::{Context, Token};
use crate::config::{EncapsulationSet, UdpTunnelling};
use crate::decision::Cause;
use crate::keepalive::TunnelPath;
use crate::message::{
    AuthenticationKind, Extension, Received, RegistrationReply, RegistrationRequest, RequestFlags,
    UdpTunnelReply, UdpTunnelRequest,
};
use crate::visitor::{PendingRegistration, VisitorKey};
use crate::{Action, Encapsulation};

/// The keepalive interval when the home agent leaves it to us (RFC 3519 §4.9).
const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(110);
/// The shortest one that is obeyed (§4.10).
const MIN_KEEPALIVE: Duration = Duration::from_secs(10);

impl ForeignAgent {
    /// RFC 5944 §3.7.2.1: what we cannot decapsulate gets 72. With a co-located
    /// care-of address it is not we who do.
    pub(super) fn validate_encapsulation(
        &self,
        request: &RegistrationRequest,
    ) -> Result<(), Cause> {
        let allowed = self.config.tunnels.encapsulations;
        let lacks =
            |flag, encapsulation| request.flags.contains(flag) && !allowed.contains(encapsulation);
        let is_ours = !request.flags.contains(RequestFlags::CO_LOCATED);
        let lacking = lacks(RequestFlags::MINIMAL, EncapsulationSet::MINIMAL)
            || lacks(RequestFlags::GRE, EncapsulationSet::GRE);
        if lacking && is_ours && !request.lifetime.is_zero() {
            return Err(Cause::VisitorEncapsulationRefused);
        }
        Ok(())
    }

    /// Whether visitors must have reverse tunnels. Behind a NAT they must: nothing
    /// is known of it but that it translates (RFC 3519 §4.5).
    pub(super) fn demands_reverse_tunnel(&self, request: &RegistrationRequest) -> bool {
        let is_ours = !request.flags.contains(RequestFlags::CO_LOCATED);
        self.config.require_reverse_tunnel
            || is_ours && self.config.udp_tunnel != UdpTunnelling::Off
    }

    /// What we add to a request, behind what its node has signed.
    pub(super) fn own_extensions(&self, request: &RegistrationRequest) -> Vec<Extension<'static>> {
        let mut extensions = Vec::new();
        // RFC 3519 §4.5: for a co-located care-of address the tunnel would end here.
        if request.flags.contains(RequestFlags::CO_LOCATED) {
            return extensions;
        }
        // RFC 6245 §4.1: in every request, for a key of the home agent's in both
        // directions.
        if request.flags.contains(RequestFlags::GRE) && self.config.gre_keys {
            extensions.push(Extension::GreKey(0));
        }
        if self.config.udp_tunnel != UdpTunnelling::Off && !request.lifetime.is_zero() {
            extensions.push(Extension::UdpTunnelRequest(UdpTunnelRequest {
                forced: self.config.udp_tunnel == UdpTunnelling::Forced,
                registration_required: false,
                // Whatever M and G say is for where there is no NAT.
                encapsulation: Some(IpProtocol::IP_IN_IP),
                reserved: 0,
            }));
        }
        extensions
    }

    /// How an accepted visitor is tunnelled, and how often its tunnel must be kept
    /// alive.
    pub(super) fn granted(
        &self,
        pending: &PendingRegistration,
        received: &Received<'_, RegistrationReply>,
    ) -> (Encapsulation, Option<Duration>) {
        let flags = pending.station.request.flags;
        // What is behind the foreign-home authentication, nobody has signed.
        let signed = received.authentications(AuthenticationKind::ForeignHome).next();
        let end = signed.map_or(usize::MAX, |one| one.offset);
        let answers = received.extensions().iter().take_while(|one| one.offset < end);
        let (mut udp, mut key) = (None, None);
        for answer in answers {
            match answer.extension {
                Extension::UdpTunnelReply(reply) if pending.asked_udp_tunnel => udp = Some(reply),
                Extension::GreKey(granted) => key = Some(granted),
                _ => {}
            }
        }
        if let Some(reply) = udp.filter(UdpTunnelReply::assents) {
            let keepalive = match reply.keepalive {
                0 => DEFAULT_KEEPALIVE,
                seconds => Duration::from_secs(seconds.into()).max(MIN_KEEPALIVE),
            };
            return (Encapsulation::Udp { peer_port: MOBILE_IP_PORT }, Some(keepalive));
        }
        let encapsulation = if flags.contains(RequestFlags::GRE) {
            Encapsulation::Gre { key }
        } else if flags.contains(RequestFlags::MINIMAL) {
            Encapsulation::Minimal
        } else {
            Encapsulation::IpInIp
        };
        (encapsulation, None)
    }

    /// A visitor's keepalive is due: an echo request of its home address to its home
    /// agent, through its tunnel (RFC 3519 §4.9). What it sends itself is not known
    /// here, so there may be more of them than needed. The answer goes to the
    /// visitor, which does not miss it.
    pub(crate) fn keep_alive(&mut self, visitor: VisitorKey, context: &mut Context<'_>) {
        let (home_address, home_agent) = visitor;
        let token = Token::Keepalive(self.key(), visitor);
        let Some(visitor) = self.visitors.get(&visitor) else { return };
        let Some(interval) = visitor.keepalive else { return };
        let path = TunnelPath {
            tenant: self.config.tenant,
            outer: (self.config.care_of_address, home_agent),
            encapsulation: visitor.state.encapsulation,
            inner: (home_address, home_agent),
        };
        let identifier = context.random().to_be_bytes();
        if let Some((packet, _)) = path.echo(ECHO_REQUEST, identifier, &[]) {
            context.counters.keepalives_sent += 1;
            context.push(Action::Transmit(packet));
        }
        context.timers.arm(token, context.now.monotonic + interval);
    }
}
