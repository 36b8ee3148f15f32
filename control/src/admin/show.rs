//! The nouns of the CLI: where each is asked for, and how its answer is shown.

use clap::Subcommand;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{api, print};

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Noun {
    /// The process at a glance: agents, totals, whether every packet is accounted for
    Status,
    /// Ports, their kernel twins and counters
    Ports,
    /// Mobility bindings of the home agents
    Bindings,
    /// Visitors of the foreign agents
    Visitors,
    /// Tunnels, and how many nodes each carries
    Tunnels,
    /// Routes that the dataplane forwards by
    Routes,
    /// Next hops and their link-layer addresses
    Neighbors,
    /// Address translation: hosts, port blocks, sessions, limits hit
    Napt,
    /// What was dropped or discarded, where and why
    Drops,
    /// Every other counter
    Counters,
    /// Security associations, never a key
    SecurityAssociations,
    /// Where a mobile node is, as it sees itself
    MobileNode,
}

impl Noun {
    /// The path of the API that answers it.
    pub const fn path(self) -> &'static str {
        match self {
            Noun::Status => "/v1/status",
            Noun::Ports => "/v1/ports",
            Noun::Bindings => "/v1/bindings",
            Noun::Visitors => "/v1/visitors",
            Noun::Tunnels => "/v1/tunnels",
            Noun::Routes => "/v1/routes",
            Noun::Neighbors => "/v1/neighbors",
            Noun::Napt => "/v1/napt",
            Noun::Drops => "/v1/drops",
            Noun::Counters => "/v1/counters",
            Noun::SecurityAssociations => "/v1/security-associations",
            Noun::MobileNode => "/v1/mobile-node",
        }
    }

    /// The key of the list in the answer; `None` when the answer is the thing.
    pub const fn key(self) -> Option<&'static str> {
        match self {
            Noun::Status | Noun::MobileNode => None,
            Noun::Ports => Some("ports"),
            Noun::Bindings => Some("bindings"),
            Noun::Visitors => Some("visitors"),
            Noun::Tunnels => Some("tunnels"),
            Noun::Routes => Some("routes"),
            Noun::Neighbors => Some("neighbors"),
            Noun::Napt => Some("napt"),
            Noun::Drops => Some("drops"),
            Noun::Counters => Some("counters"),
            Noun::SecurityAssociations => Some("security_associations"),
        }
    }

    /// The answer for people; `all` shows what is left out as uninteresting.
    ///
    /// # Errors
    /// When the answer is not what this noun is answered with: the daemon speaks
    /// another version.
    pub fn render(self, answer: &Value, all: bool) -> Result<String, serde_json::Error> {
        Ok(match self {
            Noun::Status => print::status(&self.read::<api::Status>(answer)?),
            Noun::Ports => print::ports(&self.read::<Vec<_>>(answer)?),
            Noun::Bindings => print::bindings(&self.read::<Vec<_>>(answer)?),
            Noun::Visitors => print::visitors(&self.read::<Vec<_>>(answer)?),
            Noun::Tunnels => print::tunnels(&self.read::<Vec<_>>(answer)?),
            Noun::Routes => print::routes(&self.read::<Vec<_>>(answer)?),
            Noun::Neighbors => print::neighbors(&self.read::<Vec<_>>(answer)?),
            Noun::Napt => print::napt(&self.read::<Vec<_>>(answer)?),
            Noun::Drops => print::drops(&self.read::<Vec<_>>(answer)?, all),
            Noun::Counters => print::counters(&self.read::<Vec<_>>(answer)?),
            Noun::SecurityAssociations => {
                print::security_associations(&self.read::<Vec<_>>(answer)?)
            }
            Noun::MobileNode => print::mobile_node(&self.read::<api::MobileNodeView>(answer)?),
        })
    }

    /// The views in an answer.
    ///
    /// # Errors
    /// When they are not there.
    pub fn read<T: DeserializeOwned>(self, answer: &Value) -> Result<T, serde_json::Error> {
        let value = self.key().map_or(answer, |key| answer.get(key).unwrap_or(&Value::Null));
        T::deserialize(value)
    }
}
