//! `homeport explain HOME-ADDRESS`: the story of one node, as the API tells it.
//!
//! The daemon makes the sentences, so that programs and people read the same: what
//! became of each registration, by which rule, and what may be done about it
//! ([`remedy`]).

pub mod remedy;

use std::fmt::Write;
use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::view::{CareOfView, Role, VisitorView};

/// Which node is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainArgs {
    /// The node's home address.
    pub home_address: Ipv4Addr,
    /// The tenant, where several have a node of this address.
    pub tenant: Option<u32>,
    /// The home agent or foreign agent to ask, by its name in the config.
    pub home_agent: Option<String>,
}

impl ExplainArgs {
    /// The path of the API that answers it.
    pub fn path(&self) -> String {
        let mut path = format!("/v1/explain/{}", self.home_address);
        let mut separator = '?';
        if let Some(tenant) = self.tenant {
            let _ = write!(path, "{separator}tenant={tenant}");
            separator = '&';
        }
        if let Some(name) = &self.home_agent {
            let _ = write!(path, "{separator}agent=");
            for byte in name.bytes() {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-') {
                    path.push(char::from(byte));
                } else {
                    let _ = write!(path, "%{byte:02X}");
                }
            }
        }
        path
    }
}

/// The story of a node: what is so now, and its last registrations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExplanationView {
    /// The node.
    pub home_address: Ipv4Addr,
    /// Whose it is.
    pub tenant: u32,
    /// The agents here that share a key with it.
    pub known_to: Vec<KnownView>,
    /// Where it is registered, now: one for each care-of address.
    pub bindings: Vec<BoundView>,
    /// Where it visits, or wants to, now.
    pub visitors: Vec<VisitingView>,
    /// Its last registrations, the newest first; those that came alike in a row are one.
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
        self.bindings.is_empty() && self.visitors.is_empty() && self.registrations.is_empty()
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
        let mut args = ExplainArgs {
            home_address: Ipv4Addr::new(10, 1, 0, 10),
            tenant: None,
            home_agent: None,
        };
        assert_eq!(args.path(), "/v1/explain/10.1.0.10");
        args.home_agent = Some("a b&c=\r\n%".into());
        assert_eq!(args.path(), "/v1/explain/10.1.0.10?agent=a%20b%26c%3D%0D%0A%25");
        args.tenant = Some(7);
        args.home_agent = Some("ha-1".into());
        assert_eq!(args.path(), "/v1/explain/10.1.0.10?tenant=7&agent=ha-1");
    }
}
