//! The checks of `[[foreign_agent.source_route]]`.

use homeport_proto::config::{SourceRoute, Via};

use super::check::Checker;
use super::file::SourceRouteSection;
use super::value::ViaName;

impl Checker<'_> {
    /// The routes of one foreign agent. Two that say which way the same packets go
    /// at the same cost, and not the same way, contradict each other.
    pub(super) fn source_routes(
        &mut self,
        sections: &[SourceRouteSection],
        napt: Option<u16>,
    ) -> Vec<SourceRoute> {
        let mut routes: Vec<SourceRoute> = Vec::new();
        for section in sections {
            let route = SourceRoute {
                home_agent: section.home_agent.as_deref().copied(),
                home_prefix: section.home_prefix.as_ref().map(|prefix| prefix.0),
                destination: section.destination.0,
                via: match *section.via {
                    ViaName::Tunnel => Via::Tunnel,
                    ViaName::Local => Via::Local { napt },
                },
                cost: *section.cost,
            };
            let same = |other: &SourceRoute| SourceRoute { via: route.via, ..*other } == route;
            if routes.iter().any(same) {
                self.problems.add(
                    section.destination.span(),
                    format!("two source routes to {} cost the same", route.destination),
                    "give them different costs: the cheaper one is taken",
                );
            }
            routes.push(route);
        }
        routes
    }
}
