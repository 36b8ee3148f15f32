//! Revocations on their way to the agents, and to the nodes (RFC 3543).

use alloc::collections::BTreeMap;
use core::net::Ipv4Addr;
use homeport_wire::{PortId, TenantId};

use super::{Agent, AgentKey, Datagram};
use crate::Now;
use crate::event::DiscardReason;
use crate::foreign_agent::ForeignAgent;
use crate::message::{Received, RegistrationRevocation, RevocationAcknowledgement};
use crate::revocation::Notice;

impl Agent {
    /// Removes the visitors with a home address at an operator's word, and revokes their
    /// registrations where that was agreed on (RFC 3543); how many there were.
    pub fn clear_visitor(&mut self, tenant: TenantId, home_address: Ipv4Addr, now: Now) -> usize {
        let mut context = self.shared.context(tenant, now);
        let mut cleared = 0;
        for agent in self.foreign_agents.values_mut() {
            if agent.config().tenant == tenant {
                cleared += agent.clear_all(home_address, &mut context);
            }
        }
        self.inform(now);
        cleared
    }

    /// A home agent's revocation is for a foreign agent, and the other way round (RFC
    /// 3543 §3.5).
    pub(super) fn handle_revocation(
        &mut self,
        datagram: &Datagram<'_>,
        received: &Received<'_, RegistrationRevocation>,
        now: Now,
    ) {
        let key = (datagram.tenant, datagram.destination);
        let mut context = self.shared.context(datagram.tenant, now);
        let home_agent = self.home_agents.get_mut(&key);
        let foreign_agent = self.foreign_agents.get_mut(&key);
        let advertisers = &self.advertisers;
        let advertises = |port: PortId| advertisers.contains_key(&(datagram.tenant, port));
        let result = match (received.body.from_home_agent, home_agent, foreign_agent) {
            (true, _, Some(agent)) => {
                agent.handle_revocation(datagram, received, advertises, &mut context)
            }
            (false, Some(agent), _) => agent.handle_revocation(datagram, received, &mut context),
            (_, None, None) => Err(DiscardReason::WrongDestination),
            _ => Err(DiscardReason::Reflected),
        };
        if let Err(reason) = result {
            context.discard(datagram, reason);
        }
        self.inform(now);
    }

    pub(super) fn handle_acknowledgement(
        &mut self,
        datagram: &Datagram<'_>,
        received: &Received<'_, RevocationAcknowledgement>,
        now: Now,
    ) {
        let key = (datagram.tenant, datagram.destination);
        let mut context = self.shared.context(datagram.tenant, now);
        let (source, body) = (datagram.source, &received.body);
        let home_agent = self.home_agents.get_mut(&key);
        let foreign_agent = self.foreign_agents.get_mut(&key);
        let result = match (home_agent, foreign_agent) {
            (Some(agent), None) => agent.handle_acknowledgement(datagram, received, &mut context),
            (Some(agent), Some(other))
                if agent.awaits(source, body) || !other.awaits(source, body) =>
            {
                agent.handle_acknowledgement(datagram, received, &mut context)
            }
            (_, Some(agent)) => agent.handle_acknowledgement(datagram, received, &mut context),
            (None, None) => Err(DiscardReason::WrongDestination),
        };
        if let Err(reason) = result {
            context.discard(datagram, reason);
        }
        self.inform(now);
    }

    /// Tells the nodes whose foreign agent has lost them (RFC 3543 §4.1).
    pub(super) fn inform(&mut self, now: Now) {
        let next = |agents: &mut BTreeMap<AgentKey, ForeignAgent>| {
            agents.iter_mut().find_map(|(key, agent)| Some((key.0, agent.take_notice()?)))
        };
        while let Some((tenant, notice)) = next(&mut self.foreign_agents) {
            let Notice { port, home_address, .. } = notice;
            let tidings = self.tidings(tenant, port, Some(home_address), now);
            if let Some(advertiser) = self.advertisers.get(&(tenant, port)) {
                advertiser.inform(&notice, tidings, &mut self.shared.context(tenant, now));
            }
        }
    }
}
