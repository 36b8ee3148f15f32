//! Security associations of a config file: checked, with their keys read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use homeport_proto::config::HomeNetwork;
use homeport_proto::security::{
    MobilitySecurityAssociation, ReplayProtection, SecurityAssociations, Spi,
};

use super::file::SecurityAssociationSection;
use super::key_file::{self, Secret};
use super::problem::Problems;
use super::read::At;
use super::value::ReplayName;

/// Whose associations they are: it says who may be the peer.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// A home agent: mobile nodes of its networks, and foreign agents.
    HomeAgent {
        /// The networks that it serves.
        networks: &'a [HomeNetwork],
    },
    /// A foreign agent: mobile nodes, and home agents.
    ForeignAgent,
    /// A mobile node: its home agent, and foreign agents.
    MobileNode,
}

enum Peer {
    MobileNode(Ipv4Addr),
    Agent(Ipv4Addr),
}

/// The associations of `owner`. Keys come from files relative to `directory`, and
/// are put into `keys` under `path` and the peer.
pub fn security_associations(
    sections: &[SecurityAssociationSection],
    owner: Owner<'_>,
    directory: &Path,
    path: &str,
    keys: &mut BTreeMap<String, Secret>,
    problems: &mut Problems,
) -> SecurityAssociations {
    let mut associations = SecurityAssociations::default();
    let mut seen = BTreeSet::new();
    for section in sections {
        let peer = peer(section, owner, problems);
        let replay = replay(section, problems);
        let spi = Spi(*section.spi);
        if !spi.is_usable() {
            problems.add(
                section.spi.span(),
                format!("the SPI {spi} is reserved (RFC 5944 §1.6)"),
                "write a number of 256 or more, the same as the peer has",
            );
        }
        let secret = match key_file::read(&directory.join(&**section.key_file)) {
            Ok(secret) => secret,
            Err(error) => {
                problems.add(section.key_file.span(), error.message, error.help);
                continue;
            }
        };
        let Some(peer) = peer else { continue };
        let association = MobilitySecurityAssociation {
            spi,
            algorithm: (*section.algorithm).into(),
            key: secret.to_key(),
            replay,
        };
        let (Peer::MobileNode(address) | Peer::Agent(address)) = peer;
        if !seen.insert((address, spi.0)) {
            problems.add(
                section.spi.span(),
                format!("two associations with {address} have the SPI {spi}"),
                "give each its own SPI",
            );
        }
        keys.insert(format!("{path}[{address} {spi}]"), secret);
        match peer {
            Peer::MobileNode(address) => associations.insert_mobile_node(address, association),
            Peer::Agent(address) => associations.insert_agent(address, association),
        }
    }
    associations
}

fn peer(
    section: &SecurityAssociationSection,
    owner: Owner<'_>,
    problems: &mut Problems,
) -> Option<Peer> {
    let named = [
        ("mobile_node", section.mobile_node.as_ref()),
        ("foreign_agent", section.foreign_agent.as_ref()),
        ("home_agent", section.home_agent.as_ref()),
    ];
    let may: [&str; 2] = match owner {
        Owner::HomeAgent { .. } => ["mobile_node", "foreign_agent"],
        Owner::ForeignAgent => ["mobile_node", "home_agent"],
        Owner::MobileNode => ["home_agent", "foreign_agent"],
    };
    let [first, second] = may;
    let mut given = named.into_iter().filter_map(|(key, at)| Some((key, at?)));
    let Some((key, address)) = given.next() else {
        problems.add(
            section.spi.span(),
            "this association names no peer",
            format!("add {first} = \"…\" or {second} = \"…\""),
        );
        return None;
    };
    if let Some((other, at)) = given.next() {
        problems.add(
            at.span(),
            format!("this association has two peers, {key} and {other}"),
            "write a section for each",
        );
        return None;
    }
    if !may.contains(&key) {
        problems.add(
            address.span(),
            format!("this agent shares no key with a {}", key.replace('_', " ")),
            format!("name the peer with {first} or {second}"),
        );
        return None;
    }
    if key != "mobile_node" {
        return Some(Peer::Agent(**address));
    }
    at_home(address, owner, problems);
    Some(Peer::MobileNode(**address))
}

/// A home agent serves nodes of its own networks only.
fn at_home(address: &At<Ipv4Addr>, owner: Owner<'_>, problems: &mut Problems) {
    if let Owner::HomeAgent { networks } = owner
        && !networks.is_empty()
        && !networks.iter().any(|network| network.prefix.contains(**address))
    {
        let served: Vec<String> =
            networks.iter().map(|network| network.prefix.to_string()).collect();
        problems.add(
            address.span(),
            format!("the home address {} is in no network of this home agent", **address),
            format!("write an address of {}, or add its network", served.join(", ")),
        );
    }
}

fn replay(section: &SecurityAssociationSection, problems: &mut Problems) -> ReplayProtection {
    let tolerance = section.tolerance.as_ref();
    match *section.replay {
        ReplayName::Nonces => {
            if let Some(tolerance) = tolerance {
                problems.add(
                    tolerance.span(),
                    "nonces compare no clocks, so there is no tolerance",
                    "leave tolerance away, or write replay = \"timestamps\"",
                );
            }
            ReplayProtection::Nonces
        }
        ReplayName::Timestamps => {
            let Some(tolerance) = tolerance else {
                return ReplayProtection::default();
            };
            // RFC 5944 §5.7.1: "SHOULD be greater than 3 seconds".
            if tolerance.0 < Duration::from_secs(3) {
                problems.add(
                    tolerance.span(),
                    format!("a tolerance of {} refuses honest nodes", **tolerance),
                    "write at least \"3s\"; RFC 5944 §5.7.1 has \"7s\"",
                );
            }
            ReplayProtection::Timestamps { tolerance: tolerance.0 }
        }
    }
}
