//! How tunnels are made, as it is written in a config file, and the checks of it.

use std::collections::HashSet;

use homeport_proto::config::{
    EncapsulationSet, HomeNetwork, MobileNetwork, NatPolicy, NatTraversal, Prefix, TunnelPolicy,
    UdpTunnelling,
};
use homeport_proto::limits::MAX_MOBILE_NETWORKS;
use homeport_proto::security::SecurityAssociations;
use schemars::JsonSchema;
use serde::Serialize;
use toml::Spanned;
use toml::de::DeValue;

use super::check::Checker;
use super::file::{ForeignAgentSection, HomeAgentSection};
use super::problem::Problems;
use super::read::{At, FromToml, nearest};
use super::value::{Span, text, words};

words! {
    /// An encapsulation.
    EncapsulationName {
        /// IP in IP (RFC 2003).
        IpInIp = "ip-in-ip",
        /// Minimal encapsulation (RFC 2004).
        Minimal = "minimal",
        /// Generic routing encapsulation (RFC 2784).
        Gre = "gre",
        /// UDP (RFC 3519).
        Udp = "udp",
    }
}

words! {
    /// What is done about NATs.
    NatTraversalName {
        /// UDP tunnels for those who ask for them (RFC 3519).
        Rfc3519 = "rfc3519",
        /// Plain UDP for those who answer a challenge.
        Challenge = "challenge",
        /// Nothing.
        Off = "off",
    }
}

words! {
    /// Whether outer headers may be fragmented.
    TunnelDfName {
        /// As the packet inside says.
        Copy = "copy",
        /// Never.
        Set = "set",
    }
}

words! {
    /// Whether a foreign agent asks for UDP tunnels.
    UdpTunnelName {
        /// It does not.
        Off = "off",
        /// It does, in case there is a NAT.
        On = "on",
        /// It insists.
        Forced = "forced",
    }
}

/// The shortest keepalive interval that a node may use (RFC 3519 §4.10), and the
/// longest that the protocol can say, in seconds.
const KEEPALIVE: std::ops::RangeInclusive<u64> = 10..=65_535;

/// Every encapsulation: the default.
pub(super) fn all_encapsulations() -> Vec<At<EncapsulationName>> {
    use EncapsulationName::{Gre, IpInIp, Minimal, Udp};
    [IpInIp, Minimal, Gre, Udp].map(|name| At::new(name, 0..0)).into()
}

impl Checker<'_> {
    pub(super) fn tunnels(
        &mut self,
        names: &At<Vec<At<EncapsulationName>>>,
        df: TunnelDfName,
        clamp_mss: bool,
    ) -> TunnelPolicy {
        self.distinct(names.iter().map(|name| (name.word(), name.span())), |word| {
            (format!("\"{word}\" stands here twice"), "name it once".into())
        });
        if !names.iter().any(|name| **name == EncapsulationName::IpInIp) {
            self.problems.add(
                names.span(),
                "every agent must support IP in IP (RFC 5944 §1)",
                "add \"ip-in-ip\"",
            );
        }
        let one = |name: &At<EncapsulationName>| match **name {
            EncapsulationName::IpInIp => EncapsulationSet::IP_IN_IP,
            EncapsulationName::Minimal => EncapsulationSet::MINIMAL,
            EncapsulationName::Gre => EncapsulationSet::GRE,
            EncapsulationName::Udp => EncapsulationSet::UDP,
        };
        let none = EncapsulationSet::IP_IN_IP;
        let encapsulations = names.iter().fold(none, |set, name| set.with(one(name)));
        TunnelPolicy { encapsulations, set_df: df == TunnelDfName::Set, clamp_mss }
    }

    /// Nodes behind NATs.
    pub(super) fn nat_policy(
        &mut self,
        section: &HomeAgentSection,
        tunnels: &TunnelPolicy,
    ) -> NatPolicy {
        let traversal = match *section.nat_traversal {
            NatTraversalName::Rfc3519 => NatTraversal::Rfc3519,
            NatTraversalName::Challenge => NatTraversal::Challenge,
            NatTraversalName::Off => NatTraversal::Off,
        };
        let has_udp = tunnels.encapsulations.contains(EncapsulationSet::UDP);
        let help = "add \"udp\" to encapsulations";
        if traversal == NatTraversal::Challenge && !has_udp {
            let message = "who answers the challenge gets a UDP tunnel, and there is none";
            self.problems.add(section.nat_traversal.span(), message, help);
        }
        if *section.forced_udp && !has_udp {
            self.problems.add(section.forced_udp.span(), "there is no UDP to be forced", help);
        }
        if *section.forced_udp && traversal != NatTraversal::Rfc3519 {
            self.problems.add(
                section.forced_udp.span(),
                "only RFC 3519 knows how to force UDP",
                "write nat_traversal = \"rfc3519\", or forced_udp = false",
            );
        }
        let Span(keepalive) = *section.keepalive;
        if !KEEPALIVE.contains(&keepalive.as_secs()) || keepalive.subsec_nanos() > 0 {
            self.problems.add(
                section.keepalive.span(),
                "a keepalive interval is 10 to 65535 whole seconds (RFC 3519 §3.2, §4.10)",
                "write \"110s\", or less for NATs that forget sooner",
            );
        }
        NatPolicy {
            traversal,
            forced_udp: *section.forced_udp,
            keepalive,
            path_validation: *section.path_validation,
        }
    }

    /// The networks behind a home agent's mobile routers. Within a tenant each is
    /// behind one router; `seen` are those of the agents before.
    pub(super) fn mobile_networks(
        &mut self,
        section: &HomeAgentSection,
        home_networks: &[HomeNetwork],
        security: &SecurityAssociations,
        seen: &mut HashSet<(u32, Prefix)>,
    ) -> Vec<MobileNetwork> {
        let mut networks: Vec<MobileNetwork> = Vec::new();
        for one in &section.mobile_network {
            let (mobile_router, prefix) = (*one.mobile_router, one.prefix.0);
            if !home_networks.iter().any(|network| network.prefix.contains(mobile_router)) {
                self.problems.add(
                    one.mobile_router.span(),
                    format!("{mobile_router} is in no home network of this home agent"),
                    "write the mobile router's home address",
                );
            } else if security.first_mobile_node(mobile_router).is_none() && self.complete {
                self.problems.add(
                    one.mobile_router.span(),
                    format!("{mobile_router} has no security association, so it cannot register"),
                    format!("add a security_association with mobile_node = \"{mobile_router}\""),
                );
            }
            let is_home = home_networks.iter().any(|home| prefix.contains(home.prefix.address()));
            let message = if prefix.prefix_len() == 0 {
                Some(format!("{prefix} is no network: it is all of them"))
            } else if prefix.contains(mobile_router) || is_home && self.complete {
                Some(format!("{prefix} has home addresses in it, which have bindings of their own"))
            } else if !seen.insert((*section.tenant, prefix)) {
                Some(format!("{prefix} is behind two mobile routers"))
            } else {
                None
            };
            if let Some(message) = message {
                let help = "write the network that is behind this mobile router alone";
                self.problems.add(one.prefix.span(), message, help);
            }
            let of_router = |network: &&MobileNetwork| network.mobile_router == mobile_router;
            if networks.iter().filter(of_router).count() == MAX_MOBILE_NETWORKS {
                self.problems.add(
                    one.mobile_router.span(),
                    format!("{mobile_router} has more than {MAX_MOBILE_NETWORKS} networks"),
                    "put several of them together into a larger one",
                );
            }
            networks.push(MobileNetwork { mobile_router, prefix });
        }
        networks
    }

    /// Whether a foreign agent is behind a NAT.
    pub(super) fn udp_tunnelling(
        &mut self,
        section: &ForeignAgentSection,
        tunnels: &TunnelPolicy,
    ) -> UdpTunnelling {
        let wish = match *section.udp_tunnel {
            UdpTunnelName::Off => return UdpTunnelling::Off,
            UdpTunnelName::On => UdpTunnelling::On,
            UdpTunnelName::Forced => UdpTunnelling::Forced,
        };
        if !tunnels.encapsulations.contains(EncapsulationSet::UDP) {
            let message = "this foreign agent has no UDP tunnels to ask for";
            self.problems.add(section.udp_tunnel.span(), message, "add \"udp\" to encapsulations");
        }
        if !*section.reverse_tunnel {
            self.problems.add(
                section.udp_tunnel.span(),
                "behind a NAT visitors need reverse tunnels (RFC 3519 §4.5)",
                "write reverse_tunnel = true",
            );
        }
        wish
    }
}

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;
