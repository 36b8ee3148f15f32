//! The values and the checks of `[[napt]]`: ports that there are, external addresses on the
//! outside port, timeouts that the RFCs allow.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_dataplane::napt::{Dependence, NaptConfig, Timeouts};
use homeport_proto::PortId;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use toml::Spanned;
use toml::de::DeValue;

use super::Port;
use super::check::Checker;
use super::file::NaptSection;
use super::problem::Problems;
use super::read::{At, FromToml, nearest};
use super::value::{Span, text, text_value, words};

words! {
    /// What a NAPT's mapping or filter depends on.
    DependenceName {
        /// On nothing.
        EndpointIndependent = "endpoint-independent",
        /// On the remote address.
        AddressDependent = "address-dependent",
        /// On the remote address and port.
        AddressAndPortDependent = "address-and-port-dependent",
    }
}

impl From<DependenceName> for Dependence {
    fn from(name: DependenceName) -> Dependence {
        match name {
            DependenceName::EndpointIndependent => Dependence::EndpointIndependent,
            DependenceName::AddressDependent => Dependence::AddressDependent,
            DependenceName::AddressAndPortDependent => Dependence::AddressAndPortDependent,
        }
    }
}

/// Ports from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange(pub u16, pub u16);

text_value!(PortRange, "PortRange", "^[0-9]+-[0-9]+$", "Ports, as in 16384-32767.");

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl FromToml for PortRange {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        let written = text(value, "16384-32767", problems)?;
        let ends = written.split_once('-').and_then(|(first, last)| {
            Some(PortRange(first.trim().parse().ok()?, last.trim().parse().ok()?))
        });
        let range = ends.filter(|PortRange(first, last)| first <= last);
        if range.is_none() {
            let message = format!("\"{}\" is no range of ports", written.escape_debug());
            problems.add(
                value.span(),
                message,
                "write the first and the last, as in \"16384-32767\"",
            );
        }
        range
    }
}

/// Ports below are well known: agents and others listen there.
const LOWEST_PORT: u16 = 1024;

/// The most sessions of one NAPT: their memory is taken at the start.
const MAX_SESSIONS: usize = 1 << 22;

/// The most external addresses of one NAPT.
const MAX_ADDRESSES: usize = 64;

impl Checker<'_> {
    pub(super) fn napts(
        &mut self,
        sections: &[NaptSection],
        ports: &[Port],
        named: &HashSet<&str>,
    ) -> Vec<NaptConfig> {
        self.distinct(sections.iter().map(|at| (&*at.name, at.name.span())), |name| {
            (format!("two NAPTs have the name \"{name}\""), "give each its own".into())
        });
        let napts: Vec<NaptConfig> =
            sections.iter().filter_map(|section| self.napt(section, ports, named)).collect();
        let ways = sections.iter().flat_map(|section| {
            let inside = section.inside.iter();
            inside.map(|port| ((port.0.clone(), section.outside.0.clone()), port.span()))
        });
        self.distinct(ways, |(inside, outside)| {
            (
                format!("two NAPTs are between the ports \"{inside}\" and \"{outside}\""),
                "leave the port in one of them".into(),
            )
        });
        let mut taken: HashSet<Ipv4Addr> = HashSet::new();
        for (napt, section) in napts.iter().zip(sections) {
            for address in &napt.addresses {
                if !taken.insert(*address) {
                    self.problems.add(
                        section.name.span(),
                        format!("two NAPTs have the external address {address}"),
                        "give each its own with addresses = […]",
                    );
                }
            }
        }
        napts
    }

    fn napt(
        &mut self,
        section: &NaptSection,
        ports: &[Port],
        named: &HashSet<&str>,
    ) -> Option<NaptConfig> {
        let outside = self.find_port(&section.outside, ports);
        let inside: Vec<PortId> = section
            .inside
            .iter()
            .filter_map(|name| Some(self.find_port(name, ports)?.id))
            .collect();
        if section.inside.is_empty() && !named.contains(section.name.0.as_str()) {
            let help = "name the ports whose hosts are hidden, as in inside = [\"visited\"], or the NAPT in a [[foreign_agent]]";
            self.problems.add(section.name.span(), "nothing is inside this NAPT", help);
        }
        if let Some(both) = section.inside.iter().find(|name| name.0 == section.outside.0) {
            let message = format!("the port \"{}\" is inside and outside", **both);
            self.problems.add(both.span(), message, "leave it on one side");
        }
        let outside = outside?;
        let addresses = self.external_addresses(section, outside);
        self.port_blocks(section);
        self.within(&section.max_blocks_per_host, 1..=u16::MAX, "max_blocks_per_host");
        self.within(&section.max_sessions, 1..=MAX_SESSIONS, "max_sessions");
        let most = u32::try_from(*section.max_sessions).unwrap_or(u32::MAX).max(1);
        self.within(&section.max_sessions_per_host, 1..=most, "max_sessions_per_host");
        self.within(&section.max_sessions_per_second, 1..=1_000_000, "max_sessions_per_second");
        let timeouts = self.timeouts(section);
        let PortRange(first, last) = *section.port_range;
        Some(NaptConfig {
            name: section.name.0.clone(),
            inside,
            outside: outside.id,
            addresses,
            ports: first..=last,
            block_size: *section.block_size,
            max_blocks_per_host: *section.max_blocks_per_host,
            max_sessions_per_host: *section.max_sessions_per_host,
            max_sessions: *section.max_sessions,
            sessions_per_second_per_host: *section.max_sessions_per_second,
            mapping: (*section.mapping).into(),
            filtering: (*section.filtering).into(),
            hairpinning: *section.hairpinning,
            inbound_refresh: *section.inbound_refresh,
            untranslated: section
                .untranslated
                .iter()
                .map(|network| (network.0.address(), network.0.prefix_len()))
                .collect(),
            timeouts,
        })
    }

    fn external_addresses(&mut self, section: &NaptSection, outside: &Port) -> Vec<Ipv4Addr> {
        if section.addresses.is_empty() {
            let first = self.first_address(outside, section.outside.span());
            return first.map(|at| at.address).into_iter().collect();
        }
        if let Some(beyond) = section.addresses.get(MAX_ADDRESSES) {
            let message = format!("more than {MAX_ADDRESSES} external addresses");
            self.problems.add(beyond.span(), message, "make another [[napt]] of the rest");
        }
        for address in &section.addresses {
            if outside.addresses.iter().all(|at| at.address != **address) && self.complete {
                let message =
                    format!("{} is no address of the port \"{}\"", **address, outside.name);
                let len = outside.addresses.first().map_or(24, |at| at.prefix_len);
                let help = format!("add \"{}/{len}\" to that port's addresses", **address);
                self.problems.add(address.span(), message, help);
            }
        }
        self.distinct(section.addresses.iter().map(|at| (**at, at.span())), |address| {
            (format!("{address} stands here twice"), "write it once".into())
        });
        section.addresses.iter().map(|address| **address).collect()
    }

    /// Blocks begin at an even port and have an even number of them, so that pairs of
    /// ports stay together (RFC 4787 REQ-4).
    fn port_blocks(&mut self, section: &NaptSection) {
        let PortRange(first, last) = *section.port_range;
        if first < LOWEST_PORT || !first.is_multiple_of(2) {
            let message = format!("the NAPT's ports cannot begin at {first}");
            let help = format!("begin at an even port from {LOWEST_PORT} on");
            self.problems.add(section.port_range.span(), message, help);
        }
        let size = *section.block_size;
        if size < 2 || !size.is_multiple_of(2) {
            let message = format!("a block cannot have {size} ports");
            self.problems.add(section.block_size.span(), message, "write an even number");
        } else if u32::from(last) + 1 - u32::from(first.min(last)) < u32::from(size) {
            let message = format!("no block of {size} ports fits into {first}-{last}");
            self.problems.add(section.block_size.span(), message, "write a smaller number");
        }
    }

    fn timeouts(&mut self, section: &NaptSection) -> Timeouts {
        let least = Timeouts::LEAST;
        let mut at_least = |value: &At<Span>, least: Duration, key: &str, rfc: &str| {
            if value.0 < least {
                let least = Span(least);
                self.problems.add(
                    value.span(),
                    format!("{key} cannot be {}: {rfc} allows no less than {least}", **value),
                    format!("write \"{least}\" or more"),
                );
            }
            value.0
        };
        Timeouts {
            udp: at_least(&section.udp_timeout, least.udp, "udp_timeout", "RFC 4787"),
            tcp_established: at_least(
                &section.tcp_established_timeout,
                least.tcp_established,
                "tcp_established_timeout",
                "RFC 5382",
            ),
            tcp_transitory: at_least(
                &section.tcp_transitory_timeout,
                least.tcp_transitory,
                "tcp_transitory_timeout",
                "RFC 5382",
            ),
            icmp: at_least(&section.icmp_timeout, least.icmp, "icmp_timeout", "RFC 5508"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Effect;
    use super::super::tests::{GOOD, Room};
    use super::*;
    use crate::config::diff;

    const NAPT: &str = r#"
[[napt]]
name = "internet"
inside = ["visited", "home"]
outside = "core"
"#;

    fn with(napt: &str) -> String {
        format!("{GOOD}{napt}")
    }

    /// The message and the help of the one problem of a file with this NAPT, which
    /// stands where `wrong` does.
    fn problem(napt: &str, wrong: &str) -> (String, String) {
        let text = with(napt);
        let errors = Room::new().parse(&text).unwrap_err();
        assert_eq!(errors.problems.len(), 1, "{errors}");
        let problem = &errors.problems[0];
        assert_eq!(problem.offset, text.rfind(wrong).unwrap(), "{problem}");
        (problem.message.clone(), problem.help.clone())
    }

    #[test]
    fn a_napt_is_read_as_it_was_meant_and_the_rest_is_the_default() {
        let room = Room::new();
        let config = room.parse(&with(NAPT)).unwrap_or_else(|errors| panic!("{errors}"));
        let [napt] = config.napts.as_slice() else { panic!() };
        let address = Ipv4Addr::new(10, 0, 1, 2);
        let inside = vec![PortId(2), PortId(1)];
        let default = NaptConfig::new("internet", inside, PortId(0), vec![address]);
        assert_eq!(format!("{napt:?}"), format!("{default:?}"));
        let all = format!(
            "{NAPT}addresses = [\"10.0.1.2\"]\nport_range = \"2000-9999\"\nblock_size = 64\n\
             max_blocks_per_host = 2\nmax_sessions_per_host = 100\nmax_sessions = 1000\n\
             max_sessions_per_second = 50\nmapping = \"address-dependent\"\n\
             filtering = \"address-and-port-dependent\"\nhairpinning = false\n\
             inbound_refresh = true\nuntranslated = [\"10.9.0.0/16\"]\nudp_timeout = \"2m\"\n\
             tcp_established_timeout = \"3h\"\ntcp_transitory_timeout = \"5m\"\n\
             icmp_timeout = \"90s\"\n"
        );
        let config = room.parse(&with(&all)).unwrap_or_else(|errors| panic!("{errors}"));
        let napt = &config.napts[0];
        assert_eq!((napt.ports.clone(), napt.block_size), (2000..=9999, 64));
        assert_eq!((napt.max_blocks_per_host, napt.max_sessions_per_host), (2, 100));
        assert_eq!((napt.max_sessions, napt.sessions_per_second_per_host), (1000, 50));
        assert_eq!(napt.mapping, Dependence::AddressDependent);
        assert_eq!(napt.filtering, Dependence::AddressAndPortDependent);
        assert!(!napt.hairpinning && napt.inbound_refresh);
        assert_eq!(napt.untranslated, [(Ipv4Addr::new(10, 9, 0, 0), 16)]);
        let seconds = |time: Duration| time.as_secs();
        let Timeouts { udp, tcp_established, tcp_transitory, icmp } = napt.timeouts;
        assert_eq!((seconds(udp), seconds(tcp_established)), (120, 10_800));
        assert_eq!((seconds(tcp_transitory), seconds(icmp)), (300, 90));
    }

    #[test]
    fn what_is_wrong_with_a_napt_is_named_with_its_place_and_a_way_out() {
        let with = |line: &str| format!("{NAPT}{line}\n");
        for (line, wrong, message, help) in [
            (
                "port_range = \"1-9999\"",
                "\"1-9999\"",
                "the NAPT's ports cannot begin at 1",
                "from 1024",
            ),
            ("port_range = \"9-1\"", "\"9-1\"", "is no range of ports", "\"16384-32767\""),
            ("block_size = 7", "7", "a block cannot have 7 ports", "an even number"),
            ("block_size = 40000", "40000", "no block of 40000 ports fits", "a smaller"),
            ("addresses = [\"10.0.1.9\"]", "\"10.0.1.9\"", "no address of the port", "/24\" to"),
            ("udp_timeout = \"1m\"", "\"1m\"", "RFC 4787 allows no less than 2m", "\"2m\" or"),
            ("icmp_timeout = \"9s\"", "\"9s\"", "RFC 5508 allows no less than 1m", "\"1m\" or"),
            ("max_sessions_per_host = 0", "0", "max_sessions_per_host cannot be 0", "from 1"),
            ("filtering = \"adress-dependent\"", "\"adress", "is not known", "address-dependent"),
            ("hairpining = true", "hairpining", "unknown key", "`hairpinning`"),
        ] {
            let (said, way_out) = problem(&with(line), wrong);
            assert!(said.contains(message), "{said}");
            assert!(way_out.contains(help), "{way_out}");
        }
        let both = NAPT.replace("\"home\"]", "\"core\"]");
        assert!(problem(&both, "\"core\"]").0.contains("inside and outside"));
        let nobody = NAPT.replace("\"home\"]", "\"hom\"]");
        assert!(problem(&nobody, "\"hom\"]").1.contains("did you mean \"home\"?"));
    }

    #[test]
    fn two_napts_share_neither_addresses_nor_ways() {
        let second = NAPT.replace("internet", "second");
        let errors = Room::new().parse(&with(&format!("{NAPT}{second}"))).unwrap_err();
        let said: Vec<&str> = errors.problems.iter().map(|one| one.message.as_str()).collect();
        assert!(said.iter().any(|said| said.contains("two NAPTs are between")), "{said:?}");
        assert!(said.iter().any(|said| said.contains("external address 10.0.1.2")), "{said:?}");
    }

    /// Their memory is taken at the start.
    #[test]
    fn a_napt_changes_at_a_restart_only() {
        let room = Room::new();
        let (old, new) = (room.parse(GOOD).unwrap(), room.parse(&with(NAPT)).unwrap());
        let changes = diff(&old, &new).changes;
        assert!(!changes.is_empty());
        assert!(changes.iter().all(|change| change.effect == Effect::Restart));
    }
}
