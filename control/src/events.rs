//! What happened to registrations, counted for programs and logged for people.
//!
//! The labels of the counters are bounded: tenant and reply code; never an address.
//! Each event is logged at DEBUG with its addresses. What changes a node's state is
//! logged at INFO where the tables change, once; what keeps a node from being
//! reached, and an outsider cannot cause at will, at WARN.

use std::collections::BTreeMap;

use homeport_proto::TenantId;
use homeport_proto::event::Event;

use crate::admin::api::CounterView;

/// Counts and logs events.
#[derive(Debug, Default)]
pub struct Events {
    home_replies: BTreeMap<(TenantId, u8), u64>,
    foreign_replies: BTreeMap<(TenantId, u8), u64>,
}

impl Events {
    /// Notes an event.
    pub fn record(&mut self, event: &Event) {
        tracing::debug!(?event);
        let counter = match *event {
            Event::HomeRegistration { tenant, code, .. } => {
                self.home_replies.entry((tenant, code)).or_default()
            }
            Event::ForeignRegistration { tenant, code, .. } => {
                self.foreign_replies.entry((tenant, code)).or_default()
            }
            // Rare, or rationed by the agents, and news for people.
            Event::TunnelBound { tenant, home_address, address, port, .. } => {
                tracing::info!(%tenant, %home_address, %address, port, "half-bound tunnel bound by its first keepalive");
                return;
            }
            Event::PathUnproven { tenant, home_address, address, port, .. } => {
                tracing::warn!(%tenant, %home_address, %address, port, "registration removed: nobody answers at the address that it came from");
                return;
            }
            Event::Rebound { tenant, home_address, address, port, seen_port } => {
                tracing::warn!(%tenant, %home_address, %address, port, seen_port, "a NAT has changed the port of a tunnel: nothing is forwarded until the node registers anew");
                return;
            }
            // Remembered, not logged: `homeport explain` tells them.
            Event::Decision(_) => return,
            Event::BindingRevoked { tenant, home_address, care_of_address } => {
                tracing::info!(%tenant, %home_address, %care_of_address, "registration revoked by its foreign agent");
                return;
            }
            Event::VisitorRevoked { tenant, home_address, home_agent } => {
                tracing::info!(%tenant, %home_address, %home_agent, "visitor revoked by its home agent");
                return;
            }
            // The agents count these themselves.
            Event::BindingExpired { .. }
            | Event::VisitorExpired { .. }
            | Event::Discarded { .. } => return,
        };
        *counter += 1;
    }

    /// The counters.
    pub fn counters(&self) -> Vec<CounterView> {
        let mut counters = Vec::new();
        let by_code = [
            (
                &self.home_replies,
                "home_agent_replies",
                "Registration Replies of our home agents, by code.",
            ),
            (
                &self.foreign_replies,
                "foreign_agent_replies",
                "Registration Replies that our foreign agents relayed or gave, by code.",
            ),
        ];
        for (map, name, text) in by_code {
            counters.extend(map.iter().map(|((tenant, code), value)| CounterView {
                name: name.into(),
                tenant: Some(tenant.0),
                code: Some(*code),
                value: *value,
                text: text.into(),
                ..CounterView::default()
            }));
        }
        counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeport_proto::Lifetime;
    use std::net::Ipv4Addr;

    #[test]
    fn answers_are_counted_by_tenant_and_code() {
        let mut events = Events::default();
        let home_address = Ipv4Addr::new(10, 1, 0, 10);
        let care_of_address = Ipv4Addr::new(10, 0, 2, 2);
        let answered = |tenant, code| Event::HomeRegistration {
            tenant: TenantId(tenant),
            home_address,
            care_of_address,
            code,
            lifetime: Lifetime(60),
        };
        let tenant = TenantId(1);
        for event in [
            answered(1, 0),
            answered(1, 0),
            answered(1, 133),
            answered(2, 0),
            Event::BindingExpired { tenant, home_address, care_of_address },
        ] {
            events.record(&event);
        }
        let counters: Vec<_> = events
            .counters()
            .into_iter()
            .map(|counter| (counter.name, counter.tenant.unwrap(), counter.code, counter.value))
            .collect();
        assert_eq!(
            counters,
            [
                ("home_agent_replies".to_string(), 1, Some(0), 2),
                ("home_agent_replies".to_string(), 1, Some(133), 1),
                ("home_agent_replies".to_string(), 2, Some(0), 1),
            ]
        );
    }
}
