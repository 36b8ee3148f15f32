//! `homeport explain HOME-ADDRESS|NAI`: the story of one node, as the API tells it.
//!
//! The daemon makes the sentences, so that programs and people read the same: what
//! became of each registration, by which rule, and what may be done about it
//! ([`remedy`]).

pub mod remedy;

use std::fmt::Write;
use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{in_url, read};
use super::view::{CareOfView, Role, SessionView, VisitorView};

/// Who is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Whoever has this home address.
    HomeAddress(Ipv4Addr),
    /// Whoever is known by this NAI.
    Nai(Vec<u8>),
}

impl Asked {
    /// As it is written: an IPv4 address, or else a NAI as it is shown. `None`: it is
    /// neither.
    pub fn of(text: &str) -> Option<Self> {
        match text.parse() {
            Ok(home_address) => Some(Asked::HomeAddress(home_address)),
            Err(_) => read(text).filter(|nai| !nai.is_empty()).map(Asked::Nai),
        }
    }
}

/// Which node is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainArgs {
    /// The node.
    pub node: Asked,
    /// The tenant, where several have a node of this address.
    pub tenant: Option<u32>,
    /// The home agent or foreign agent to ask, by its name in the config.
    pub home_agent: Option<String>,
}

/// The path of the API that tells the story of a node, written as it was asked for.
pub fn path(node: &str, tenant: Option<u32>, home_agent: Option<&str>) -> String {
    let mut path = format!("/v1/explain/{}", in_url(node));
    let mut separator = '?';
    if let Some(tenant) = tenant {
        let _ = write!(path, "{separator}tenant={tenant}");
        separator = '&';
    }
    if let Some(name) = home_agent {
        let _ = write!(path, "{separator}agent={}", in_url(name));
    }
    path
}

/// The story of a node: what is so now, and its last registrations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExplanationView {
    /// The home address that was asked about; `null`: a NAI was.
    pub home_address: Option<Ipv4Addr>,
    /// The NAI that was asked about, or that has the home address; escaped.
    #[serde(default)]
    pub nai: Option<String>,
    /// Whose it is.
    pub tenant: u32,
    /// The agents here that share a key with it.
    pub known_to: Vec<KnownView>,
    /// The session that has the home address; of a NAI, all its sessions.
    #[serde(default)]
    pub sessions: Vec<SessionView>,
    /// Where it is registered, now: one for each care-of address.
    pub bindings: Vec<BoundView>,
    /// Where it visits, or wants to, now.
    pub visitors: Vec<VisitingView>,
    /// Its last registrations, the newest first; those that came alike in a row are one.
    /// Of a NAI, those that were not of a session that has an address.
    pub registrations: Vec<RegistrationView>,
    /// What could have swallowed its messages: filled in when there are none.
    pub swallowed: Vec<SwallowedView>,
    /// How long this process runs: nothing older is remembered.
    pub uptime_seconds: u64,
    /// Whether anything is remembered at all (`daemon.remembered_nodes`).
    pub remembers: bool,
}

impl ExplanationView {
    /// Whether nothing has been heard of the node at all.
    pub fn is_silent(&self) -> bool {
        self.bindings.is_empty()
            && self.visitors.is_empty()
            && self.sessions.is_empty()
            && self.registrations.is_empty()
    }
}

/// An agent that shares keys with the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KnownView {
    /// The agent, by name.
    pub agent: String,
    /// What it is.
    pub role: Role,
    /// Its address, or care-of address.
    pub address: Ipv4Addr,
    /// What is shared.
    pub associations: Vec<AssociationView>,
}

/// A security association, without its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AssociationView {
    /// The security parameter index.
    pub spi: u32,
    /// `hmac-md5`, `keyed-md5`, `hmac-sha1`, `hmac-sha256`.
    pub algorithm: String,
    /// `timestamps` or `nonces`; `null` of one that is only known by a message.
    pub replay: Option<String>,
    /// How far clocks may differ, with timestamps.
    pub tolerance_seconds: Option<u64>,
}

/// One tunnel to the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BoundView {
    /// The home agent, by name.
    pub agent: String,
    /// The tunnel, and for how long.
    pub care_of: CareOfView,
    /// The foreign agent that it was registered through.
    pub foreign_agent: Option<Ipv4Addr>,
    /// Whether there is a NAT in the way.
    pub nat: bool,
    /// Since it was registered last.
    pub registered_seconds: u64,
}

/// A visit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VisitingView {
    /// The foreign agent, by name.
    pub agent: String,
    /// The visit.
    pub visitor: VisitorView,
}

/// A registration, or several alike in a row, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegistrationView {
    /// Who decided, by name; `null` when no agent got to see it.
    pub agent: Option<String>,
    /// What that is.
    pub role: Option<Role>,
    /// When the last was decided, in seconds since 1970.
    pub at_unix_seconds: u64,
    /// Since then.
    pub age_seconds: u64,
    /// How many came alike in a row.
    pub times: u32,
    /// Since the first of them.
    pub first_age_seconds: u64,
    /// Whether it was accepted.
    pub accepted: bool,
    /// The rule that decided, in kebab-case.
    pub cause: String,
    /// The rule in a sentence.
    pub sentence: String,
    /// Where the request came from; of a reply that nobody waits for, the reply.
    pub source: Ipv4Addr,
    /// Its UDP port.
    pub source_port: u16,
    /// The port that it came in on.
    pub port: String,
    /// The foreign agent that it came through, as far as can be told.
    pub foreign_agent: Option<Ipv4Addr>,
    /// Whether the node has the care-of address itself.
    pub co_located: bool,
    /// Whether the outer source differs from the care-of address: a NAT.
    pub nat: bool,
    /// The Home Agent field.
    pub home_agent: Ipv4Addr,
    /// Where the tunnel shall end.
    pub care_of_address: Ipv4Addr,
    /// The lifetime asked for; `null` is for ever, zero deregisters.
    pub lifetime_asked_seconds: Option<u64>,
    /// What else was asked for, by flags.
    pub wishes: Vec<String>,
    /// Which session of its NAI the request named, escaped and cut to 22 bytes.
    #[serde(default)]
    pub session: Option<String>,
    /// Where the session's home address came from: `known`, `reserved`, `assigned`,
    /// `named`.
    #[serde(default)]
    pub step: Option<String>,
    /// The same in a sentence.
    #[serde(default)]
    pub step_sentence: Option<String>,
    /// The extensions seen.
    pub extensions: Vec<String>,
    /// The Identification field.
    pub identification: u64,
    /// The SPI that the node signed with.
    pub spi_used: Option<u32>,
    /// The SPI that the foreign agent signed with.
    pub foreign_agent_spi_used: Option<u32>,
    /// The association that it was judged by.
    pub association: Option<AssociationView>,
    /// The node's clock less ours, where its request said so.
    pub clock_offset_seconds: Option<i32>,
    /// What was said.
    pub answer: AnswerView,
    /// What it means though it was accepted, if that is not well.
    pub warning: Option<String>,
    /// What may be done about it; `null` when there is nothing to do.
    pub remedy: Option<String>,
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AnswerView {
    /// The code of the reply; `null` when there was none, or not yet.
    pub code: Option<u8>,
    /// The lifetime granted, of an acceptance; `null` is for ever.
    pub lifetime_seconds: Option<u64>,
    /// Why there was none, in kebab-case.
    pub silence: Option<String>,
    /// All that in a sentence.
    pub sentence: String,
}

/// A counter that tells of lost messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SwallowedView {
    /// Its name, as in `homeport show drops`.
    pub reason: String,
    /// What it means.
    pub text: String,
    /// How many, of all nodes.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_write_another_path() {
        assert_eq!(path("10.1.0.10", None, None), "/v1/explain/10.1.0.10");
        let evil = path("10.1.0.10", None, Some("a b&c=\r\n%"));
        assert_eq!(evil, "/v1/explain/10.1.0.10?agent=a%20b%26c%3D%0D%0A%25");
        let evil = path("../a?b\\n@x", Some(7), Some("ha-1"));
        assert_eq!(evil, "/v1/explain/..%2Fa%3Fb%5Cn%40x?tenant=7&agent=ha-1");
    }

    #[test]
    fn what_is_no_address_is_a_nai() {
        let address = Ipv4Addr::new(10, 1, 0, 10);
        assert_eq!(Asked::of("10.1.0.10"), Some(Asked::HomeAddress(address)));
        assert_eq!(Asked::of("10.1.0.256"), Some(Asked::Nai(b"10.1.0.256".to_vec())));
        assert_eq!(Asked::of("a\\xff@x"), Some(Asked::Nai(b"a\xff@x".to_vec())));
        assert_eq!((Asked::of(""), Asked::of("a\\")), (None, None));
    }
}
