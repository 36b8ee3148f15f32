//! Sessions in a config file: pools of addresses, what is set aside, and how long it lasts.
//!
//! **Not done:** NAIs and names of sessions that are no text.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_proto::config::{AddressPool, AddressRange, HomeNetwork, Reservation, SessionPolicy};
use homeport_proto::message::session::{MAX_NAI, MAX_SUB_NAI};
use homeport_proto::security::nais::canonical;
use homeport_proto::security::{ReplayProtection, SecurityAssociations};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use toml::Spanned;
use toml::de::DeValue;

use super::check::Checker;
use super::file::{HomeAgentSection, PoolSection};
use super::problem::Problems;
use super::read::{At, FromToml};
use super::value::{text, text_value};

/// The most addresses of a pool: what one home agent can have nodes.
const MAX_POOL: u64 = 1 << 24;

/// The longest that an address is kept.
const MAX_STICKY: Duration = Duration::from_secs(30 * 86_400);

/// Addresses, as they are written: one, or the first and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeText(pub AddressRange);

text_value!(
    RangeText,
    "AddressRange",
    "^[0-9.]+(-[0-9.]+)?$",
    "An IPv4 address, or the first and the last of several, as in 10.1.0.100-10.1.0.199."
);

impl fmt::Display for RangeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AddressRange { first, last } = self.0;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

impl FromToml for RangeText {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        let written = text(value, "10.1.0.100-10.1.0.199", problems)?;
        let (first, last) = written.split_once('-').unwrap_or((written, written));
        let address = |text: &str| text.trim().parse::<Ipv4Addr>().ok();
        match (address(first), address(last)) {
            (Some(first), Some(last)) if first <= last => {
                Some(RangeText(AddressRange { first, last }))
            }
            (Some(first), Some(last)) => {
                problems.add(
                    value.span(),
                    format!("{first} is above {last}"),
                    format!("write the lower one first: \"{last}-{first}\""),
                );
                None
            }
            _ => {
                problems.add(
                    value.span(),
                    format!("\"{}\" is neither an IPv4 address nor two", written.escape_debug()),
                    "write it as in \"10.1.0.100-10.1.0.199\"",
                );
                None
            }
        }
    }
}

/// A network access identifier, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NaiText(pub String);

text_value!(
    NaiText,
    "Nai",
    "^.+$",
    "A network access identifier of at most 253 bytes, as in phone@train.example."
);

impl fmt::Display for NaiText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromToml for NaiText {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        text(value, "phone@train.example", problems).map(|written| NaiText(written.into()))
    }
}

impl At<NaiText> {
    /// Whether it has a NAI's length; notes it if it has not.
    pub fn is_nai(&self, problems: &mut Problems) -> bool {
        let len = self.0.len();
        let is_nai = (1..=MAX_NAI).contains(&len);
        if !is_nai {
            let message = format!("nai: a NAI has 1 to {MAX_NAI} bytes, and this has {len}");
            problems.add(self.span(), message, "write it as in \"phone@train.example\"");
        }
        is_nai
    }
}

/// The name of a session, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionText(pub String);

text_value!(SessionText, "Session", "^.*$", "A session's name of at most 247 bytes.");

impl fmt::Display for SessionText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromToml for SessionText {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        let written = text(value, "laptop", problems)?;
        if written.len() <= MAX_SUB_NAI {
            return Some(SessionText(written.into()));
        }
        let len = written.len();
        let message = format!(
            "session: a session's name has at most {MAX_SUB_NAI} bytes, and this has {len}"
        );
        problems.add(value.span(), message, "write a shorter one: a message has no room for more");
        None
    }
}

impl Checker<'_> {
    /// How a home agent gives addresses to sessions.
    pub(super) fn sessions(
        &mut self,
        section: &HomeAgentSection,
        networks: &[HomeNetwork],
        security: &SecurityAssociations,
    ) -> SessionPolicy {
        self.within(&section.max_sessions_per_nai, 1..=u32::MAX / 2, "max_sessions_per_nai");
        self.hold_down(&section.session_hold_down, &section.session_sticky, security);
        self.distinct(section.pool.iter().map(|pool| (&*pool.name.0, pool.name.span())), |name| {
            (format!("two pools have the name \"{name}\""), "give each its own".into())
        });
        let mut seen: Vec<(RangeText, &str)> = Vec::new();
        for pool in &section.pool {
            for range in &pool.ranges {
                let overlaps = |(other, _): &&(RangeText, &str)| {
                    other.0.first <= range.0.last && range.0.first <= other.0.last
                };
                if let Some((other, of)) = seen.iter().find(overlaps) {
                    let message =
                        format!("ranges: {} overlaps {other} of the pool \"{of}\"", **range);
                    let help = "let each address be in one range only";
                    self.problems.add(range.span(), message, help);
                }
                seen.push((**range, &pool.name.0));
            }
        }
        let pools: Vec<AddressPool> =
            section.pool.iter().map(|pool| self.pool(pool, networks)).collect();
        let reservations = self.reservations(section, networks, security);
        if security.nai_count() > 0 && pools.is_empty() && reservations.is_empty() {
            let own = |one| security.own_home_address(one).is_some();
            if !security.subscribers().all(own) && self.complete {
                self.problems.add(
                    section.name.span(),
                    "there are nodes that are known by NAI, and no addresses for them",
                    "add a [[home_agent.pool]] with name = \"all\" and ranges = [\"10.1.0.100-10.1.0.199\"]",
                );
            }
        }
        SessionPolicy {
            pools,
            reservations,
            max_sessions_per_nai: *section.max_sessions_per_nai,
            sticky: section.session_sticky.0,
            hold_down: section.session_hold_down.0,
        }
    }

    /// Until an old request is too old to be replayed, its address is nobody else's.
    fn hold_down(
        &mut self,
        hold_down: &At<super::value::Span>,
        sticky: &At<super::value::Span>,
        security: &SecurityAssociations,
    ) {
        let tolerance = |one| {
            let all = security.of_mobile_node(homeport_proto::security::Subscriber::stand_in(one));
            all.filter_map(|association| match association.replay {
                ReplayProtection::Timestamps { tolerance } => Some(tolerance),
                ReplayProtection::Nonces => None,
            })
            .max()
        };
        let most = security.subscribers().filter_map(tolerance).max();
        let least = most.unwrap_or(Duration::from_secs(7)) * 2;
        for (span, name) in [(hold_down, "session_hold_down"), (sticky, "session_sticky")] {
            let message = if span.0 < least {
                "within twice the tolerance of the clocks an old request could take the address back"
            } else if span.0 > MAX_STICKY {
                "the addresses of those who never come again would hardly become free"
            } else {
                continue;
            };
            self.problems.add(
                span.span(),
                format!("{name} cannot be {}: {message}", **span),
                format!(
                    "write a time from \"{}s\" to \"{}h\"",
                    least.as_secs(),
                    MAX_STICKY.as_secs() / 3_600
                ),
            );
        }
    }

    fn pool(&mut self, section: &PoolSection, networks: &[HomeNetwork]) -> AddressPool {
        if section.ranges.is_empty() && self.complete {
            let help = "write ranges = [\"10.1.0.100-10.1.0.199\"]";
            let message = format!("the pool \"{}\" has no ranges", section.name.0);
            self.problems.add(section.name.span(), message, help);
        }
        for range in section.ranges.iter() {
            let AddressRange { first, last } = range.0;
            let served = networks
                .iter()
                .any(|network| network.prefix.contains(first) && network.prefix.contains(last));
            if !served && self.complete {
                self.problems.add(
                    range.span(),
                    format!("ranges: {} lies in no home network of this home agent", **range),
                    "write addresses of one home network, or add [[home_agent.home_network]]",
                );
            }
            if range.0.count() > MAX_POOL {
                let message = format!("ranges: {} are more than {MAX_POOL} addresses", **range);
                self.problems.add(range.span(), message, "write a shorter range");
            }
        }
        AddressPool {
            name: section.name.0.clone(),
            realm: section.realm.as_ref().map(|realm| realm.to_ascii_lowercase()),
            ranges: section.ranges.iter().map(|range| range.0).collect(),
            exclusions: section.exclusions.iter().map(|range| range.0).collect(),
        }
    }

    fn reservations(
        &mut self,
        section: &HomeAgentSection,
        networks: &[HomeNetwork],
        security: &SecurityAssociations,
    ) -> Vec<Reservation> {
        let addresses = section.reservation.iter().map(|one| &one.home_address);
        self.distinct(addresses.map(|at| (**at, at.span())), |address| {
            let message = format!("home_address: {address} is set aside twice");
            (message, "give each session its own".into())
        });
        let names = section.reservation.iter();
        let names = names.map(|one| ((nai_text(&one.nai), &*one.session.0), one.nai.span()));
        self.distinct(names, |(nai, session)| {
            let message = format!(
                "the session \"{}\" of {} has two addresses set aside",
                session.escape_debug(),
                nai.escape_debug()
            );
            (message, "write one [[home_agent.reservation]] for it".into())
        });
        let mut reservations = Vec::new();
        for one in &section.reservation {
            let address = *one.home_address;
            if !networks.iter().any(|network| network.prefix.contains(address)) && self.complete {
                self.problems.add(
                    one.home_address.span(),
                    format!("home_address: {address} is in no home network of this home agent"),
                    "write an address that it serves, or add a [[home_agent.home_network]]",
                );
            }
            if security.knows_mobile_node(address) {
                self.problems.add(
                    one.home_address.span(),
                    format!("home_address: {address} is that of a node with its own security_association"),
                    "set another one aside",
                );
            }
            let nai = one.nai.0.escape_debug();
            if one.nai.is_nai(self.problems)
                && security.subscriber(one.nai.0.as_bytes()).is_none()
                && self.complete
            {
                self.problems.add(
                    one.nai.span(),
                    format!("nai: no key is shared with {nai}"),
                    format!("add a [[home_agent.security_association]] with nai = \"{nai}\", or a line of the subscriber file"),
                );
            }
            reservations.push(Reservation {
                nai: canonical(one.nai.0.as_bytes()).to_vec(),
                sub_nai: one.session.0.clone().into_bytes(),
                home_address: address,
            });
        }
        reservations
    }
}

/// A NAI as it is compared.
fn nai_text(nai: &NaiText) -> String {
    String::from_utf8_lossy(&canonical(nai.0.as_bytes())).into_owned()
}

#[cfg(test)]
mod tests;
