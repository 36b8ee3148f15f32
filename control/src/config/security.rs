//! Security associations of a config file: checked, with their keys read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use homeport_proto::Lifetime;
use homeport_proto::config::HomeNetwork;
use homeport_proto::security::nais::{MAX_NAIS, canonical};
use homeport_proto::security::{
    MobilitySecurityAssociation, ReplayProtection, SecurityAssociations, Spi,
};

use super::file::SecurityAssociationSection;
use super::key_file::{self, Secret};
use super::problem::Problems;
use super::read::At;
use super::sessions::NaiText;
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
    MobileNode {
        /// Its NAI.
        nai: Option<&'a str>,
    },
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
        let nai = nai(section, owner, problems);
        let addresses = [&section.mobile_node, &section.foreign_agent, &section.home_agent];
        let has_address = addresses.into_iter().any(Option::is_some);
        let peer = match &section.nai {
            Some(_) if !has_address && !matches!(owner, Owner::MobileNode { .. }) => None,
            _ => peer(section, owner, problems),
        };
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
        if peer.is_none() && nai.is_none() {
            continue;
        }
        let association = MobilitySecurityAssociation {
            spi,
            algorithm: (*section.algorithm).into(),
            key: secret.to_key(),
            replay,
        };
        let named = nai.map(|nai| nai.0.clone());
        let address = peer.as_ref().map(|(Peer::MobileNode(one) | Peer::Agent(one))| *one);
        for name in named.iter().cloned().chain(address.map(|address| address.to_string())) {
            if !seen.insert((name.clone(), spi.0)) {
                problems.add(
                    section.spi.span(),
                    format!("two associations with {name} have the SPI {spi}"),
                    "give each its own SPI",
                );
            }
            keys.insert(format!("{path}[{name} {spi}]"), secret.clone());
        }
        if let Some(nai) = named {
            let forever = Lifetime::INFINITE;
            if associations
                .insert_nai(nai.as_bytes(), address, association.clone(), forever)
                .is_none()
            {
                let message = format!("there are more than {MAX_NAIS} NAIs");
                problems.add(section.spi.span(), message, "give them to several home agents");
            }
        }
        match peer {
            Some(Peer::MobileNode(address)) => {
                associations.insert_mobile_node(address, association)
            }
            Some(Peer::Agent(address)) => associations.insert_agent(address, association),
            None => {}
        }
    }
    associations
}

/// The NAI that an agent knows the peer by; that of a mobile node, by which foreign
/// agents know it, names no peer.
fn nai<'a>(
    section: &'a SecurityAssociationSection,
    owner: Owner<'_>,
    problems: &mut Problems,
) -> Option<&'a NaiText> {
    let nai = section.nai.as_ref()?;
    if let Owner::MobileNode { nai: own } = owner {
        known_by(section, nai, own, problems);
        return None;
    }
    let others = [section.foreign_agent.as_ref(), section.home_agent.as_ref()];
    if others.into_iter().any(|other| other.is_some()) {
        problems.add(
            nai.span(),
            "nai: this association has two peers, and an agent has no NAI",
            "write nai, or nai and mobile_node",
        );
        return None;
    }
    nai.is_nai(problems).then_some(&**nai)
}

/// A mobile node says of a foreign agent that it is known there by its NAI.
fn known_by(
    section: &SecurityAssociationSection,
    nai: &At<NaiText>,
    own: Option<&str>,
    problems: &mut Problems,
) {
    let is_own = |own: &str| canonical(own.as_bytes()) == canonical(nai.0.as_bytes());
    let (message, help) = match own {
        _ if section.foreign_agent.is_none() => (
            "nai: it says of a foreign agent that it knows the node by its NAI".to_owned(),
            "write it beside foreign_agent, or leave it away".to_owned(),
        ),
        None => (
            "nai: this node has none to be known by".to_owned(),
            format!("add nai = \"{}\" to [mobile_node], or leave it away", nai.0),
        ),
        Some(own) if !is_own(own) => (
            format!("nai: this node is {own}"),
            format!(
                "write nai = \"{own}\", or leave it away: then the foreign agent knows the node by its home address"
            ),
        ),
        Some(_) => return,
    };
    problems.add(nai.span(), message, help);
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
        Owner::MobileNode { .. } => ["home_agent", "foreign_agent"],
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
