//! Requests that leave it to the network which home agent they are for (RFC 4433).
//!
//! The Home Agent field is 0.0.0.0 or 255.255.255.255, or the node names us in a Requested
//! HA extension beside. It is assigned to us; or denied with 143 and the name of another
//! home agent, always or when there is no room here. A node that is bound here is never
//! sent away, nor is a deregistration.
//!
//! **Not done:** home addresses assigned by NAI, which RFC 4433 wants from every node that
//! asks so: the node needs its home address and a key of ours.

use core::net::Ipv4Addr;

use super::extra::{Extra, Extras, Writer};
use super::{Asked, HomeAgent};
use crate::agent::Context;
use crate::config::Redirection;
use crate::decision::Cause;
use crate::message::{
    DynamicHomeAgent, DynamicHomeAgentKind, Extension, Received, RegistrationRequest,
};

/// Whether a Home Agent field leaves the choice to the network (RFC 4433 §2).
pub(crate) const fn is_any(home_agent: Ipv4Addr) -> bool {
    home_agent.is_unspecified() || home_agent.is_broadcast()
}

/// The home agent of a Requested HA extension, if there is one.
pub(crate) fn requested(received: &Received<'_, RegistrationRequest>) -> Option<Ipv4Addr> {
    received.extensions().iter().find_map(|one| match one.extension {
        Extension::DynamicHomeAgent(DynamicHomeAgent {
            kind: DynamicHomeAgentKind::Requested,
            address,
            ..
        }) => Some(address),
        _ => None,
    })
}

impl HomeAgent {
    /// Whether a request is for this home agent: by its Home Agent field, or because
    /// nothing in it says otherwise (RFC 4433 §5.3).
    pub(super) fn is_asked(&self, asked: &Asked<'_, '_>) -> bool {
        let own = self.config.address;
        if !self.config.assignment.assigns {
            return asked.request.home_agent == own;
        }
        let requested = requested(asked.received);
        let sent_here = asked.datagram.destination == own || requested == Some(own);
        requested.is_none_or(|one| one == own)
            && (asked.request.home_agent == own || is_any(asked.request.home_agent) && sent_here)
    }

    /// Sends a node elsewhere, if it lets itself be sent.
    pub(super) fn redirect(
        &self,
        asked: &Asked<'_, '_>,
        extras: &mut Extras,
        context: &mut Context<'_>,
    ) -> Result<(), Cause> {
        let assignment = &self.config.assignment;
        let Some(address) = assignment.redirect_to.filter(|_| assignment.assigns) else {
            return Ok(());
        };
        let is_open = is_any(asked.request.home_agent) || requested(asked.received).is_some();
        let wanted = match assignment.redirection {
            Redirection::Always => true,
            Redirection::WhenFull => self.binding_count() >= self.config.max_bindings,
        };
        if !is_open || !wanted || self.is_bound(asked.request.home_address) {
            return Ok(());
        }
        let kind = DynamicHomeAgentKind::Redirected;
        let framing = assignment.framing;
        // What was granted of a tunnel is not granted.
        *extras = Extras::default();
        let elsewhere = DynamicHomeAgent { kind, address, framing };
        extras.add(Writer::MobileNode, Extra::DynamicHomeAgent(elsewhere));
        context.ruling.detail = address.to_bits();
        Err(Cause::Redirected)
    }
}
