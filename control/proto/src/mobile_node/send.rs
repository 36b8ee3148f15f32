//! Saying it: requests, attachments and events.

use alloc::sync::Arc;
use core::net::Ipv4Addr;

use super::request::{Memory, Pending, Target};
use super::{
    Attachment, MobileNode, MobileNodeAction, MobileNodeEvent, RegistrationPath, SendRegistration,
};
use crate::Now;
use crate::event::DiscardReason;
use crate::security::{MobilitySecurityAssociation, ReplayProtection};

impl MobileNode {
    pub(super) fn send(&mut self, now: Now) {
        let Some(mut pending) = self.pending.take() else { return };
        if !self.transmit(&mut pending, self.memory, now) {
            return;
        }
        self.memory.sent(&pending);
        self.event(MobileNodeEvent::Requested {
            care_of_address: pending.care_of_address,
            lifetime: pending.lifetime,
            attempt: pending.attempts,
        });
        self.pending = Some(pending);
    }

    /// Sends a request, the node's own or a session's; `false`: there is no way to whom
    /// it goes through. `memory` is that of whom it is for.
    pub(super) fn transmit(&mut self, pending: &mut Pending, memory: Memory, now: Now) -> bool {
        let Some(path) = self.path(pending) else { return false };
        let association = self.foreign_association(pending).cloned();
        // What is sent once more with nonces is sent as it was.
        if pending.bytes.is_empty() || self.style() != ReplayProtection::Nonces {
            pending.open = self.is_open() && !matches!(pending.target, Target::Home(_));
            pending.asked.foreign_challenge = self.foreign_challenge(pending);
        }
        pending.prepare(
            &self.config,
            association.as_deref(),
            &mut self.identifications,
            memory,
            now,
            &mut self.rng,
        );
        let home = self.config.home_address;
        let (source, destination, ttl) = match pending.target {
            Target::Home(_) => (home, self.config.home_agent, 64),
            // From the home address to the source of the advertisement
            // (RFC 5944 §3.6.1.1), with the TTL that proves that no router is
            // between (RFC 3024 §4.1).
            Target::ForeignAgent(address) => (home, address, 255),
            Target::CoLocated(address) => (address, self.config.home_agent, 64),
        };
        self.actions.push_back(MobileNodeAction::SendRegistration(SendRegistration {
            path,
            source,
            destination,
            ttl,
            bytes: pending.bytes.clone(),
        }));
        true
    }

    pub(super) fn path(&self, pending: &Pending) -> Option<RegistrationPath> {
        match pending.target {
            Target::Home(agent) | Target::ForeignAgent(agent) => {
                self.agents.get(agent).map(|agent| RegistrationPath::Link(agent.mac))
            }
            Target::CoLocated(_) => {
                self.co_located.map(|(co_located, _)| RegistrationPath::CoLocated(co_located))
            }
        }
    }

    /// The association of who asks with the foreign agent, by the agent's address on the
    /// link or by its care-of address. Sessions have one where it is the NAI's.
    pub(super) fn foreign_association(
        &self,
        pending: &Pending,
    ) -> Option<&Arc<MobilitySecurityAssociation>> {
        let Target::ForeignAgent(agent) = pending.target else { return None };
        [agent, pending.care_of_address].into_iter().find_map(|address| {
            let is_known = pending.identity.is_known_by_address()
                || self.config.agents_by_nai.contains(&address);
            self.config.security.first_agent(address).filter(|_| is_known)
        })
    }

    /// Whether the attachment changed.
    pub(super) fn attach(&mut self, attachment: Attachment) -> bool {
        let changed = self.attachment != attachment;
        if changed {
            self.attachment = attachment;
            self.actions.push_back(MobileNodeAction::UseAttachment(attachment));
        }
        changed
    }

    pub(super) fn set_dhcp(&mut self, on: bool) {
        let on = on && self.config.co_located;
        if self.dhcp != on {
            self.dhcp = on;
            let action = if on { MobileNodeAction::StartDhcp } else { MobileNodeAction::StopDhcp };
            self.actions.push_back(action);
        }
        if !on {
            self.co_located = None;
        }
    }

    pub(super) fn event(&mut self, event: MobileNodeEvent) {
        self.actions.push_back(MobileNodeAction::Event(event));
    }

    pub(super) fn discard(&mut self, source: Ipv4Addr, reason: DiscardReason) {
        self.event(MobileNodeEvent::Discarded { source, reason });
    }
}
