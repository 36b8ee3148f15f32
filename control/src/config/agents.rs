//! The checks of the agents' sections: addresses on ports, home networks apart,
//! advertisers with somebody to advertise.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use homeport_dataplane::table::binding::MAX_TUNNELS;
use homeport_proto::config::{
    AdvertiserConfig, EncapsulationSet, ForeignAgentConfig, HomeAgentConfig, HomeNetwork, Prefix,
    UdpTunnelling,
};
use homeport_proto::security::SecurityAssociations;
use homeport_proto::{Lifetime, PortId, TenantId};

use super::check::Checker;
use super::file::{AdvertiserSection, File, ForeignAgentSection, HomeAgentSection};
use super::read::At;
use super::security::{Owner, security_associations};
use super::signalling::CHALLENGE_WINDOW;
use super::subscribers::{self, LineError, SubscriberError};
use super::value::{LifetimeText, ProfileName};
use super::{Named, Port};

/// Agents advertise at most once a second (RFC 5944 §2.3), and no more seldom than
/// routers (RFC 1256 §4.1).
const INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(1800);

/// A home network that was seen, to find overlaps.
pub(super) struct Seen {
    prefix: Prefix,
    tenant: u32,
    port: Option<PortId>,
    agent: String,
}

impl Checker<'_> {
    /// Agents are named once: advertisers, the CLI and metrics go by the name.
    pub(super) fn agent_names(&mut self, file: &File) {
        let home = file.home_agent.iter().map(|at| &at.name);
        let names = home.chain(file.foreign_agent.iter().map(|at| &at.name));
        self.complete &= self.distinct(names.map(|name| (&**name, name.span())), |name| {
            (format!("two agents have the name \"{name}\""), "give each its own".into())
        });
    }

    /// An underlay address belongs to one tenant only, and is one home agent at
    /// most and one care-of address at most.
    pub(super) fn agent_addresses(&mut self, file: &File) {
        let home = || file.home_agent.iter().map(|at| (&at.address, &at.tenant));
        let foreign = || file.foreign_agent.iter().map(|at| (&at.care_of_address, &at.tenant));
        let words = |address: &Ipv4Addr| {
            (format!("two agents have the address {address}"), "give each its own".to_owned())
        };
        self.distinct(home().map(|(at, _)| (**at, at.span())), words);
        self.distinct(foreign().map(|(at, _)| (**at, at.span())), words);
        for (address, tenant) in foreign() {
            if home().any(|(other, theirs)| **other == **address && **theirs != **tenant) {
                let message = format!("{} is a home agent of another tenant", **address);
                self.problems.add(address.span(), message, "give each tenant its own addresses");
            }
        }
    }

    pub(super) fn home_agent(
        &mut self,
        section: &HomeAgentSection,
        ports: &[Port],
        seen: &mut Vec<Seen>,
        behind: &mut HashSet<(u32, Prefix)>,
    ) -> Option<Named<HomeAgentConfig>> {
        let name = section.name.0.clone();
        self.on_a_port(&section.address, "the home agent's address", ports);
        self.within(&section.max_bindings, 1..=usize::MAX, "max_bindings");
        let most = u8::try_from(MAX_TUNNELS).unwrap_or(u8::MAX);
        self.within(&section.max_simultaneous, 0..=most, "max_simultaneous");
        self.reverse_tunnel(&section.require_reverse_tunnel, &section.reverse_tunnel);
        if section.home_network.is_empty() && self.complete {
            let message = format!("the home agent \"{name}\" serves no home network");
            let help = "add [[home_agent.home_network]] with prefix = \"10.1.0.0/24\"";
            self.problems.add(section.name.span(), message, help);
        }
        let mut home_networks = Vec::new();
        for network in &section.home_network {
            let link = network.port.as_ref().and_then(|port| self.find_port(port, ports));
            let prefix = network.prefix.0;
            self.apart(
                &network.prefix.span(),
                prefix,
                *section.tenant,
                link.map(|port| port.id),
                &name,
                seen,
            );
            home_networks.push(HomeNetwork { prefix, link: link.map(|port| port.id) });
        }
        let owner = Owner::HomeAgent { networks: &home_networks };
        let path = format!("home_agent[{name}].security_association");
        let mut security = security_associations(
            &section.security_association,
            owner,
            self.directory,
            &path,
            &mut self.keys,
            self.problems,
        );
        if let Some(file) = &section.subscribers {
            self.subscribers(file, &home_networks, &mut security);
        }
        let policy = (*section.tunnel_df, *section.mss_clamp);
        let tunnels = self.tunnels(&section.encapsulations, policy.0, policy.1);
        let nat = self.nat_policy(section, &tunnels);
        let mobile_networks = self.mobile_networks(section, &home_networks, &security, behind);
        let sessions = self.sessions(section, &home_networks, &security);
        let config = HomeAgentConfig {
            tenant: TenantId(*section.tenant),
            address: *section.address,
            home_networks,
            profile: (*section.profile).into(),
            max_lifetime: longest(section.max_lifetime.as_ref(), *section.profile),
            max_bindings: *section.max_bindings,
            max_simultaneous: *section.max_simultaneous,
            reverse_tunnel: *section.reverse_tunnel,
            require_reverse_tunnel: *section.require_reverse_tunnel,
            administratively_prohibited: *section.administratively_prohibited,
            security,
            require_foreign_home_authentication: *section.require_foreign_home_authentication,
            tunnels,
            nat,
            mobile_networks,
            message_strings: *section.message_strings,
            revocation: *section.revocation,
            assignment: self.assignment(section),
            sessions,
        };
        Some(Named { name, config })
    }

    /// The nodes of the subscriber file. Its errors are shown at the key that names it.
    fn subscribers(
        &mut self,
        file: &At<PathBuf>,
        networks: &[HomeNetwork],
        security: &mut SecurityAssociations,
    ) {
        let path = self.directory.join(&**file);
        match subscribers::read(&path, self.directory, networks, security) {
            Ok(_) => {}
            Err(SubscriberError::File(error)) => {
                self.problems.add(file.span(), error.message, error.help);
            }
            Err(SubscriberError::Lines(errors, count)) => {
                let name = file.display();
                let more = count - errors.len();
                for LineError { line, message, help } in errors {
                    self.problems.add(file.span(), format!("{name}:{line}: {message}"), help);
                }
                if more > 0 {
                    let message = format!("{name}: {more} more lines are wrong");
                    let help = "correct these first, and check again";
                    self.problems.add(file.span(), message, help);
                }
            }
        }
    }

    /// Home networks of one tenant, or on one link, may not overlap: an address
    /// has one home. Tenants' networks may, apart from that.
    fn apart(
        &mut self,
        span: &Range<usize>,
        prefix: Prefix,
        tenant: u32,
        port: Option<PortId>,
        agent: &str,
        seen: &mut Vec<Seen>,
    ) {
        let overlaps = |other: &&Seen| {
            (other.prefix.contains(prefix.address()) || prefix.contains(other.prefix.address()))
                && (other.tenant == tenant || (port.is_some() && port == other.port))
        };
        if let Some(other) = seen.iter().find(overlaps) {
            self.problems.add(
                span.clone(),
                format!(
                    "the home network {prefix} overlaps {} of the home agent \"{}\"",
                    other.prefix, other.agent
                ),
                "give each home agent networks of its own, or each its own tenant",
            );
        }
        seen.push(Seen { prefix, tenant, port, agent: agent.to_owned() });
    }

    pub(super) fn foreign_agent(
        &mut self,
        section: &ForeignAgentSection,
        ports: &[Port],
        napts: &[&str],
    ) -> Option<Named<ForeignAgentConfig>> {
        let name = section.name.0.clone();
        self.on_a_port(&section.care_of_address, "the care-of address", ports);
        self.within(&section.max_visitors, 1..=usize::MAX, "max_visitors");
        self.within(&section.max_pending_per_node, 1..=usize::MAX, "max_pending_per_node");
        self.within(&section.max_pending, 1..=usize::MAX, "max_pending");
        self.within(&section.challenge_window, CHALLENGE_WINDOW, "challenge_window");
        self.reverse_tunnel(&section.require_reverse_tunnel, &section.reverse_tunnel);
        if section.pending_timeout.0 < Duration::from_secs(1) {
            let help = "write at least \"1s\"; RFC 5944 §3.7.2.2 has \"7s\"";
            self.problems.add(section.pending_timeout.span(), "no reply comes that fast", help);
        }
        if section.ports.is_empty() {
            let help = "name the ports that visitors are on, as in [\"visited\"]";
            self.problems.add(section.ports.span(), "a foreign agent needs a port", help);
        }
        let mut links = Vec::new();
        for wanted in section.ports.iter() {
            if let Some(port) = self.find_port(wanted, ports)
                && let Some(address) = self.first_address(port, wanted.span())
            {
                links.push((port.id, address.address));
            }
        }
        self.distinct(section.ports.iter().map(|at| (&**at, at.span())), |port| {
            (format!("the port {port} stands here twice"), "name it once".into())
        });
        let napt = section.napt.as_ref().and_then(|name| self.napt_number(name, napts));
        let path = format!("foreign_agent[{name}].security_association");
        let security = security_associations(
            &section.security_association,
            Owner::ForeignAgent,
            self.directory,
            &path,
            &mut self.keys,
            self.problems,
        );
        let policy = (*section.tunnel_df, *section.mss_clamp);
        let tunnels = self.tunnels(&section.encapsulations, policy.0, policy.1);
        let udp_tunnel = self.udp_tunnelling(section, &tunnels);
        let session_insertion = self.insertion(section, &security);
        let config = ForeignAgentConfig {
            tenant: TenantId(*section.tenant),
            care_of_address: *section.care_of_address,
            links,
            profile: (*section.profile).into(),
            max_lifetime: longest(section.max_lifetime.as_ref(), *section.profile),
            max_visitors: *section.max_visitors,
            max_pending_per_node: *section.max_pending_per_node,
            max_pending: *section.max_pending,
            max_sessions_per_nai: *section.max_sessions_per_nai,
            requests_per_minute_per_nai: *section.requests_per_minute_per_nai,
            session_insertion,
            pending_timeout: section.pending_timeout.0,
            reverse_tunnel: *section.reverse_tunnel,
            require_reverse_tunnel: *section.require_reverse_tunnel,
            encapsulating_delivery: *section.encapsulating_delivery,
            require_mobile_foreign_authentication: *section.require_mobile_foreign_authentication,
            challenge: (*section.challenge).into(),
            challenge_window: *section.challenge_window,
            assigned_home_agent: section.assigned_home_agent.as_deref().copied(),
            revocation: *section.revocation,
            administratively_prohibited: *section.administratively_prohibited,
            overlapping_addresses: *section.overlapping_addresses,
            napt,
            source_routes: self.source_routes(&section.source_route, napt, napts),
            security,
            tunnels,
            udp_tunnel,
            gre_keys: *section.gre_keys,
            message_strings: *section.message_strings,
        };
        Some(Named { name, config })
    }

    pub(super) fn advertiser(
        &mut self,
        section: &AdvertiserSection,
        ports: &[Port],
        home_agents: &[Named<HomeAgentConfig>],
        foreign_agents: &[Named<ForeignAgentConfig>],
    ) -> Option<AdvertiserConfig> {
        let interval = section.interval.0;
        if !INTERVAL.contains(&interval) {
            self.problems.add(
                section.interval.span(),
                "agents advertise at most once a second and at least every 30 minutes",
                "write a time from \"1s\" to \"30m\"",
            );
        }
        let home = section.home_agent.as_ref();
        let foreign = section.foreign_agent.as_ref();
        if home.is_none() && foreign.is_none() {
            let help = "add home_agent = \"…\" or foreign_agent = \"…\", or both, by name";
            self.problems.add(section.port.span(), "this advertiser advertises no agent", help);
        }
        if *section.registration_required && foreign.is_none() {
            self.problems.add(
                section.registration_required.span(),
                "only a foreign agent can require registration through it",
                "add foreign_agent = \"…\", or write false",
            );
        }
        let home = home.and_then(|name| self.find_agent(name, home_agents, "home agent"));
        let foreign_name = foreign;
        let foreign =
            foreign.and_then(|name| self.find_agent(name, foreign_agents, "foreign agent"));
        let port = self.find_port(&section.port, ports)?;
        let address = self.first_address(port, section.port.span())?;
        if let (Some(name), Some(agent)) = (foreign_name, foreign)
            && !agent.links.is_empty()
            && !agent.links.iter().any(|(link, _)| *link == port.id)
            && self.complete
        {
            self.problems.add(
                section.port.span(),
                format!(
                    "the foreign agent \"{}\" does not serve the port \"{}\"",
                    **name, port.name
                ),
                format!("add \"{}\" to its ports, or advertise it on one of them", port.name),
            );
        }
        let tenant = match (home, foreign) {
            (Some(home), Some(foreign)) if home.tenant != foreign.tenant => {
                let help = "advertise each tenant's agents on a port of its own";
                self.problems.add(section.port.span(), "these agents belong to two tenants", help);
                return None;
            }
            (Some(home), _) => home.tenant,
            (None, Some(foreign)) => foreign.tenant,
            (None, None) => return None,
        };
        // RFC 5944 §2.1.1: the lifetime is what the foreign agent accepts; a home
        // agent alone advertises its own.
        let lifetime = foreign
            .map(|agent| agent.max_lifetime)
            .or(home.map(|agent| agent.max_lifetime))
            .unwrap_or(Lifetime::INFINITE);
        Some(AdvertiserConfig {
            tenant,
            port: port.id,
            address: address.address,
            prefix_len: address.prefix_len,
            home_agent: home.is_some(),
            care_of_addresses: foreign.iter().map(|agent| agent.care_of_address).collect(),
            registration_required: *section.registration_required,
            reverse_tunnel: foreign
                .map(|agent| agent.reverse_tunnel)
                .or(home.map(|agent| agent.reverse_tunnel))
                .unwrap_or(false),
            // RFC 5944 §2.1.1: what the foreign agent's end of a tunnel can be.
            encapsulations: foreign
                .map(|agent| agent.tunnels.encapsulations)
                .or(home.map(|agent| agent.tunnels.encapsulations))
                .unwrap_or(EncapsulationSet::IP_IN_IP),
            // RFC 3519 §3.4: only behind a NAT.
            udp_tunnel: foreign.is_some_and(|agent| agent.udp_tunnel != UdpTunnelling::Off),
            // RFC 3543 §4.2: of what the foreign agent's links are told.
            revocation: foreign
                .map(|agent| agent.revocation)
                .or(home.map(|agent| agent.revocation))
                .unwrap_or(false),
            registration_lifetime: section
                .registration_lifetime
                .as_ref()
                .map_or(lifetime, |lifetime| lifetime.0),
            interval,
            unsolicited: *section.unsolicited,
        })
    }
}

/// The longest lifetime: as it is written, or the profile's.
fn longest(written: Option<&At<LifetimeText>>, profile: ProfileName) -> Lifetime {
    written.map_or(profile.max_lifetime(), |written| written.0)
}
