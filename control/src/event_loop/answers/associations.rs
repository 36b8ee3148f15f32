//! Which keys are shared with whom, without the keys.

use std::net::Ipv4Addr;

use homeport_proto::TenantId;
use homeport_proto::security::{
    MobilitySecurityAssociation, ReplayProtection, SecurityAssociations,
};

use super::super::EventLoop;
use crate::admin::api::{Role, SecurityAssociationView};
use crate::admin::names::shown;

impl EventLoop {
    pub(super) fn security_association_views(&self) -> Vec<SecurityAssociationView> {
        let mut views = Vec::new();
        for agent in &self.config.home_agents {
            let (tenant, security) = (agent.config.tenant, &agent.config.security);
            add_associations(&mut views, &agent.name, tenant, security, Role::ForeignAgent);
        }
        for agent in &self.config.foreign_agents {
            let (tenant, security) = (agent.config.tenant, &agent.config.security);
            add_associations(&mut views, &agent.name, tenant, security, Role::HomeAgent);
        }
        views
    }
}

/// The associations of one agent; those that are not with mobile nodes are with
/// agents of this role.
fn add_associations(
    views: &mut Vec<SecurityAssociationView>,
    agent: &str,
    tenant: TenantId,
    security: &SecurityAssociations,
    agents: Role,
) {
    let view = |role: Role, peer: Option<Ipv4Addr>, association: &MobilitySecurityAssociation| {
        let (replay, tolerance_seconds) = match association.replay {
            ReplayProtection::Timestamps { tolerance } => ("timestamps", Some(tolerance.as_secs())),
            ReplayProtection::Nonces => ("nonces", None),
        };
        SecurityAssociationView {
            tenant: tenant.0,
            agent: agent.to_owned(),
            peer_role: role,
            peer,
            nai: None,
            spi: association.spi.0,
            algorithm: association.algorithm.name().into(),
            replay: replay.into(),
            tolerance_seconds,
        }
    };
    let nodes = security.mobile_nodes();
    views.extend(nodes.map(|(peer, one)| view(Role::MobileNode, Some(peer), &one)));
    for subscriber in security.subscribers() {
        let nai = shown(security.nai(subscriber));
        let shared = security.of_mobile_node(subscriber.stand_in());
        views.extend(shared.map(|one| SecurityAssociationView {
            nai: Some(nai.clone()),
            ..view(Role::MobileNode, None, &one)
        }));
    }
    views.extend(security.agents().map(|(peer, one)| view(agents, Some(peer), one)));
}
