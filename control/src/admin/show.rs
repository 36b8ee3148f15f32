//! The nouns of the CLI: where each is asked for, and how its answer is shown.

use std::borrow::Cow;

use clap::Subcommand;
use serde::de::{Deserialize, DeserializeOwned};
use serde_json::Value;

use super::names::in_url;
use super::{api, print, sessions};

/// What can be shown.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Noun {
    /// The process at a glance: agents, totals, whether every packet is accounted for
    Status,
    /// Ports, their kernel twins and counters
    Ports,
    /// Mobility bindings of the home agents
    Bindings,
    /// Visitors of the foreign agents
    Visitors,
    /// Sessions of the nodes that are known by NAI, and their addresses
    Sessions {
        /// Only those of this NAI, written as it is shown
        #[arg(long)]
        nai: Option<String>,
        /// Only those of this tenant
        #[arg(long)]
        tenant: Option<u32>,
    },
    /// Pools that sessions get their addresses from, and how full they are
    Pools,
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
    pub fn path(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Noun::Sessions { nai, tenant } => {
                let nai = nai.as_ref().map(|nai| format!("nai={}", in_url(nai)));
                let tenant = tenant.map(|tenant| format!("tenant={tenant}"));
                let wanted: Vec<String> = [nai, tenant].into_iter().flatten().collect();
                let mark = if wanted.is_empty() { "" } else { "?" };
                return format!("/v1/sessions{mark}{}", wanted.join("&")).into();
            }
            Noun::Pools => "/v1/pools",
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
        })
    }

    /// The key of the list in the answer; `None` when the answer is the thing.
    pub const fn key(&self) -> Option<&'static str> {
        match self {
            Noun::Status | Noun::Sessions { .. } | Noun::MobileNode => None,
            Noun::Pools => Some("pools"),
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
    pub fn render(&self, answer: &Value, all: bool) -> Result<String, serde_json::Error> {
        Ok(match self {
            Noun::Status => print::status(&self.read::<api::Status>(answer)?),
            Noun::Ports => print::ports(&self.read::<Vec<_>>(answer)?),
            Noun::Bindings => print::bindings(&self.read::<Vec<_>>(answer)?),
            Noun::Visitors => print::visitors(&self.read::<Vec<_>>(answer)?),
            Noun::Sessions { .. } => match self.read(answer) {
                Ok(view) => print::sessions(&view),
                // A mobile node has its own ones.
                Err(error) => match answer.get("sessions").map(Vec::deserialize) {
                    Some(Ok(own)) => sessions::print(&own),
                    _ => return Err(error),
                },
            },
            Noun::Pools => print::pools(&self.read::<Vec<_>>(answer)?),
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
    pub fn read<T: DeserializeOwned>(&self, answer: &Value) -> Result<T, serde_json::Error> {
        let value = self.key().map_or(answer, |key| answer.get(key).unwrap_or(&Value::Null));
        T::deserialize(value)
    }
}
