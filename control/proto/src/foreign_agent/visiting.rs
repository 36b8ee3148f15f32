//! A foreign agent's visitors: who may be one, and how they go.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use homeport_wire::PortId;

use super::ForeignAgent;
use crate::Action;
use crate::agent::{Context, Token};
use crate::config::ForeignAgentConfig;
use crate::event::Event;
use crate::visitor::{PendingKey, Station, Visitor, VisitorKey};

impl ForeignAgent {
    /// The visitors of a home address: of one home agent each.
    pub fn visitors_of(
        &self,
        home_address: Ipv4Addr,
    ) -> impl Iterator<Item = (&VisitorKey, &Visitor)> {
        let (first, last) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        self.visitors.range((home_address, first)..=(home_address, last))
    }

    /// Whether a home address is a visitor's from which the station could not be
    /// told apart.
    pub(super) fn is_taken(&self, home_address: Ipv4Addr, station: &Station) -> bool {
        self.visitors_of(home_address).any(|((_, home_agent), visitor)| {
            let same_mac = visitor.state.mac == station.mac;
            *home_agent != station.home_agent
                && (same_mac || !self.config.overlapping_addresses)
                && !(same_mac && visitor.state.port == station.port)
        })
    }

    /// A visitor's lifetime has ended. Nobody is told (RFC 5944 §3.7).
    pub(crate) fn handle_expiry(&mut self, visitor: VisitorKey, context: &mut Context<'_>) {
        if self.remove_visitor(visitor, context) {
            context.counters.visitors_expired += 1;
            let (tenant, (home_address, home_agent)) = (self.config.tenant, visitor);
            let expired = Event::VisitorExpired { tenant, home_address, home_agent };
            context.push(Action::Event(expired));
        }
    }

    /// Takes a new configuration for the same tenant and care-of address. What
    /// came in by a link that is no longer served goes, and so do visitors that have
    /// one address where that is allowed no longer.
    pub(crate) fn reconfigure(&mut self, config: ForeignAgentConfig, context: &mut Context<'_>) {
        self.config = config;
        self.trim_challenges();
        self.drop_unless(context, |agent, port| agent.link_address(port).is_some());
        let overlapping = self.config.overlapping_addresses;
        let alike = |(home_address, _): &&VisitorKey| self.visitors_of(*home_address).count() > 1;
        let alike: Vec<VisitorKey> = match overlapping {
            true => Vec::new(),
            false => self.visitors.keys().filter(alike).copied().collect(),
        };
        for visitor in alike {
            self.clear(visitor, context);
        }
        for visitor in self.visitors.values_mut() {
            if visitor.state.overlapping != overlapping {
                visitor.state.overlapping = overlapping;
                context.push(Action::InstallVisitor(visitor.state));
            }
        }
    }

    /// Leaves nothing behind.
    pub(crate) fn close(&mut self, context: &mut Context<'_>) {
        for visitor in self.visitors.values_mut() {
            visitor.revocation = None;
        }
        self.drop_unless(context, |_, _| false);
        for key in self.revocations.keys() {
            context.timers.stop(Token::ForeignRevocation(self.key(), key));
        }
    }

    fn drop_unless(
        &mut self,
        context: &mut Context<'_>,
        keep: impl Fn(&ForeignAgent, PortId) -> bool,
    ) {
        let visitors: Vec<VisitorKey> = self
            .visitors
            .iter()
            .filter(|(_, visitor)| !keep(self, visitor.state.port))
            .map(|(key, _)| *key)
            .collect();
        for visitor in visitors {
            self.clear(visitor, context);
        }
        let pending: Vec<PendingKey> = self
            .pending
            .iter()
            .filter(|(_, pending)| !keep(self, pending.station.port))
            .map(|(key, _)| *key)
            .collect();
        for key in pending {
            self.take_pending(key, context);
        }
    }

    pub(super) fn remove_visitor(
        &mut self,
        visitor: VisitorKey,
        context: &mut Context<'_>,
    ) -> bool {
        let removed = self.visitors.remove(&visitor);
        if let Some(removed) = &removed {
            if let Some(name) = &removed.name {
                self.names.remove(name, visitor);
            }
            context.timers.stop(Token::Visitor(self.key(), visitor));
            context.timers.stop(Token::Keepalive(self.key(), visitor));
            let (tenant, (home_address, home_agent)) = (self.config.tenant, visitor);
            context.push(Action::RemoveVisitor { tenant, home_address, home_agent });
        }
        removed.is_some()
    }
}
