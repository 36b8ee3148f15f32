//! Revocations on their way to the agents, and to the nodes (RFC 3543).

use alloc::collections::BTreeMap;
use core::net::Ipv4Addr;
use homeport_wire::{PortId, TenantId};

use super::{Agent, AgentKey, Datagram};
use crate::Now;
use crate::decision::{Cause, Decision, Judge, SeenExtensions, Subject};
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
        let (at_home, at_foreign) =
            (Judge::HomeAgent(datagram.destination), Judge::ForeignAgent(datagram.destination));
        let (judge, result) = match (received.body.from_home_agent, home_agent, foreign_agent) {
            (true, _, Some(agent)) => {
                let result = agent.handle_revocation(datagram, received, advertises, &mut context);
                (at_foreign, result)
            }
            (false, Some(agent), _) => {
                (at_home, agent.handle_revocation(datagram, received, &mut context))
            }
            (_, None, None) => (Judge::Nobody, Err(Cause::NoAgentHere)),
            (true, ..) => (at_home, Err(Cause::RevocationReflected)),
            (false, ..) => (at_foreign, Err(Cause::RevocationReflected)),
        };
        if let Err(cause) = result {
            context.refuse(datagram, cause);
        }
        let (body, seen) = (&received.body, SeenExtensions::of(received));
        let decision = Decision::of_revocation(datagram, Subject::Revocation, body, seen);
        context.tell(judge, decision);
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
        let is_home_agents = match (&home_agent, &foreign_agent) {
            (Some(agent), Some(other)) => agent.awaits(source, body) || !other.awaits(source, body),
            (home_agent, _) => home_agent.is_some(),
        };
        let destination = datagram.destination;
        let (judge, result) = match (home_agent, foreign_agent) {
            (Some(agent), _) if is_home_agents => (
                Judge::HomeAgent(destination),
                agent.handle_acknowledgement(datagram, received, &mut context),
            ),
            (_, Some(agent)) => (
                Judge::ForeignAgent(destination),
                agent.handle_acknowledgement(datagram, received, &mut context),
            ),
            _ => (Judge::Nobody, Err(Cause::NoAgentHere)),
        };
        if let Err(cause) = result {
            context.refuse(datagram, cause);
        }
        // It names the node alone; the rest is who speaks with whom.
        let from_home_agent = !matches!(judge, Judge::HomeAgent(_));
        let (home_agent, care_of_address) =
            if from_home_agent { (source, destination) } else { (destination, source) };
        let revoked = RegistrationRevocation {
            from_home_agent,
            inform: body.inform,
            home_address: body.home_address,
            home_agent,
            care_of_address,
            identifier: body.identifier,
        };
        let seen = SeenExtensions::of(received);
        let decision = Decision::of_revocation(datagram, Subject::Acknowledgement, &revoked, seen);
        context.tell(judge, decision);
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
