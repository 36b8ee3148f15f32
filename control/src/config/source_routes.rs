//! The checks of `[[foreign_agent.source_route]]`.

use homeport_proto::config::{SourceRoute, Via};

use super::check::Checker;
use super::file::SourceRouteSection;
use super::read::At;
use super::value::{Name, ViaName};

impl Checker<'_> {
    /// The routes of one foreign agent. Two that say which way the same packets go
    /// at the same cost, and not the same way, contradict each other. `napt` is the
    /// agent's, `napts` are all there are.
    pub(super) fn source_routes(
        &mut self,
        sections: &[SourceRouteSection],
        napt: Option<u16>,
        napts: &[&str],
    ) -> Vec<SourceRoute> {
        let mut routes: Vec<SourceRoute> = Vec::new();
        for section in sections {
            let own = section.napt.as_ref();
            if let Some(name) = own.filter(|_| *section.via == ViaName::Tunnel) {
                let help = "leave napt away, or write via = \"local\"";
                self.problems.add(name.span(), "what goes by a tunnel is never translated", help);
            }
            let napt = own.map_or(napt, |name| self.napt_number(name, napts));
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

    /// The number of a NAPT.
    pub(super) fn napt_number(&mut self, name: &At<Name>, napts: &[&str]) -> Option<u16> {
        let place = napts.iter().position(|napt| *napt == name.0);
        if place.is_none() && self.complete {
            self.unknown_name(name, "[[napt]]", napts);
        }
        place.and_then(|place| u16::try_from(place).ok())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use homeport_proto::config::{Prefix, SourceRoute, Via};

    use crate::config::tests::{GOOD, Room, says};

    const FOREIGN: &str = "encapsulating_delivery = false";

    /// Two NAPTs; nothing is inside of the first but visitors.
    const NAPTS: &str = "[[napt]]\nname = \"other\"\noutside = \"core\"\n\
         [[napt]]\nname = \"site\"\noutside = \"visited\"\ninside = [\"home\"]\n[[route]]";

    fn good(agent: &str) -> String {
        GOOD.replace("[[route]]", NAPTS).replace(FOREIGN, &format!("{FOREIGN}\n{agent}"))
    }

    /// S3-14, S3-16: a route's NAPT is its own, or else its agent's; the tunnel has
    /// none (S3-15).
    #[test]
    fn source_routes_and_their_napts_are_read_as_they_were_meant() {
        let text = good(
            r#"overlapping_addresses = true
napt = "site"
[[foreign_agent.source_route]]
destination = "192.0.2.0/24"
via = "local"
napt = "other"
cost = 3
[[foreign_agent.source_route]]
home_agent = "10.0.9.9"
home_prefix = "10.1.0.0/24"
destination = "10.0.0.0/8"
via = "local"
[[foreign_agent.source_route]]
destination = "192.0.2.0/24"
via = "tunnel"
"#,
        );
        let config = Room::new().parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
        let agent = &config.foreign_agents[0].config;
        assert_eq!((agent.overlapping_addresses, agent.napt), (true, Some(1)));
        let prefix = |a, b, c, len| Prefix::new(Ipv4Addr::new(a, b, c, 0), len).unwrap();
        let plain = |via, cost| SourceRoute {
            home_agent: None,
            home_prefix: None,
            destination: prefix(192, 0, 2, 24),
            via,
            cost,
        };
        let routes = [
            plain(Via::Local { napt: Some(0) }, 3),
            SourceRoute {
                home_agent: Some(Ipv4Addr::new(10, 0, 9, 9)),
                home_prefix: Some(prefix(10, 1, 0, 24)),
                destination: prefix(10, 0, 0, 8),
                ..plain(Via::Local { napt: Some(1) }, 10)
            },
            plain(Via::Tunnel, 10),
        ];
        assert_eq!(agent.source_routes, routes);
        let config = Room::new().parse(GOOD).unwrap();
        let agent = &config.foreign_agents[0].config;
        assert_eq!((agent.overlapping_addresses, agent.napt), (false, None));
        assert_eq!(agent.source_routes, []);
    }

    #[test]
    fn what_source_routes_cannot_mean_is_refused_where_it_stands() {
        let route = |rest: &str| {
            format!(
                "napt = \"site\"\n[[foreign_agent.source_route]]\n\
                 destination = \"192.0.2.0/24\"\nvia = \"local\"\nnapt = \"other\"\n{rest}"
            )
        };
        let problem = |agent: &str| {
            let errors = Room::new().parse(&good(agent)).unwrap_err();
            assert_eq!(errors.problems.len(), 1, "{errors}");
            errors.problems[0].clone()
        };
        let twice = route(
            "[[foreign_agent.source_route]]\ndestination = \"192.0.2.0/24\"\nvia = \"tunnel\"\n",
        );
        says(
            &problem(&twice),
            "two source routes to 192.0.2.0/24 cost the same",
            "give them different costs: the cheaper one is taken",
        );
        says(
            &problem(&route("").replace("\"local\"", "\"tunnel\"")),
            "what goes by a tunnel is never translated",
            "leave napt away, or write via = \"local\"",
        );
        says(
            &problem(&route("").replace("napt = \"site\"", "napt = \"sitt\"")),
            "there is no [[napt]] \"sitt\"",
            "did you mean \"site\"?",
        );
    }
}
