//! homeportd's config: one TOML file, read whole, checked whole, and refused
//! with every error in it or accepted as a [`Config`] that holds.
//!
//! `file` is the shape of the file, `value` what its values are written as,
//! `read` how sections are read, `security` their security associations, `check`,
//! `cores`, `agents`, `tunnel` and `source_routes` what must hold between them, `key_file` the
//! files with keys, `problem` how errors are shown, `diff` what changes from
//! one config to the next.
//!
//! A `Config` is never half right: whoever has one may rely on every name being
//! resolved, every address being on a port and every key being there.

mod agents;
mod check;
mod cores;
mod diff;
pub mod file;
pub mod key_file;
mod napt;
pub mod problem;
pub mod read;
pub mod security;
pub mod sessions;
pub mod signalling;
mod source_routes;
pub mod subscribers;
#[cfg(test)]
mod tests;
pub mod tunnel;
pub mod value;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use homeport_dataplane::config::RegistrationLimits;
use homeport_dataplane::napt::NaptConfig;
use homeport_dataplane::port::af_xdp::XdpMode;
use homeport_proto::config::{
    AdvertiserConfig, AgentConfig, ForeignAgentConfig, HomeAgentConfig, Prefix,
};
use homeport_proto::{PortId, TenantId};
use serde::{Serialize, Serializer};

use crate::admin::api::Refusal;
pub use diff::{Change, ConfigDiff, Effect, diff};
pub use problem::{ConfigErrors, Problem};
pub use value::{InterfaceAddress, PollMode, SteeringName};

/// A config that was found right.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it came from.
    pub path: PathBuf,
    /// The process.
    pub daemon: Daemon,
    /// The RX cores.
    pub dataplane: Dataplane,
    /// The ports; the index is the [`PortId`].
    pub ports: Vec<Port>,
    /// Routes to put into the kernel.
    pub routes: Vec<Route>,
    /// Home agents.
    pub home_agents: Vec<Named<HomeAgentConfig>>,
    /// Foreign agents.
    pub foreign_agents: Vec<Named<ForeignAgentConfig>>,
    /// Advertisers.
    pub advertisers: Vec<AdvertiserConfig>,
    /// NAPTs; the index is their number.
    pub napts: Vec<NaptConfig>,
    /// What was written, with its defaults: for people and for differences.
    file: file::File,
    /// The keys by the path of their association, only to tell whether one
    /// changed.
    keys: BTreeMap<String, key_file::Secret>,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// The unix socket of the admin API.
    pub admin_socket: PathBuf,
    /// Where Prometheus finds /metrics.
    pub metrics: Option<SocketAddr>,
    /// A filter for `tracing`, found right.
    pub log: String,
    /// How many nodes' last registrations are remembered.
    pub remembered_nodes: usize,
    /// Where it is written down which address is whose session's.
    pub state_dir: Option<PathBuf>,
}

/// The RX cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataplane {
    /// Whether RX cores sleep at rest.
    pub poll: PollMode,
    /// The CPUs that RX cores are pinned to, one worker each; empty: one worker
    /// that is not pinned.
    pub cores: Vec<usize>,
    /// The CPUs that the control core may run on; empty: any.
    pub control_cores: Vec<usize>,
    /// When packets are handed to the worker that their addresses name.
    pub steering: SteeringName,
    /// Packet buffers of each worker.
    pub buffers: usize,
    /// How many nodes are claimed one by one on af_xdp ports.
    pub exact_claims: u32,
    /// How many registration messages each worker lets through from where.
    pub registrations: RegistrationLimits,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number: its place in the file.
    pub id: PortId,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub tenant: TenantId,
    /// What is behind it.
    pub backend: Backend,
    /// The longest IPv4 packet that it carries, in bytes.
    pub mtu: u16,
    /// The interface that the kernel has of it: its kernel twin, or the port's own
    /// where that stays the kernel's.
    pub kernel_interface: String,
    /// The addresses on that interface; the first is the agents' on this link.
    pub addresses: Vec<InterfaceAddress>,
}

/// What is behind a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A Linux interface, through AF_PACKET.
    AfPacket {
        /// The interface.
        interface: String,
    },
    /// A Linux interface that stays the kernel's, through AF_XDP.
    AfXdp {
        /// The interface.
        interface: String,
        /// How many of its queues; `None`: all.
        queues: Option<u32>,
        /// Where the program runs.
        mode: XdpMode,
    },
    /// A DPDK device.
    Dpdk {
        /// Its PCI address, or a vdev with its arguments.
        device: String,
    },
}

impl Backend {
    /// The word for it in the file and in the API.
    pub const fn word(&self) -> &'static str {
        match self {
            Backend::AfPacket { .. } => "af_packet",
            Backend::AfXdp { .. } => "af_xdp",
            Backend::Dpdk { .. } => "dpdk",
        }
    }

    /// The interface, or the device.
    pub fn device(&self) -> &str {
        match self {
            Backend::AfPacket { interface } | Backend::AfXdp { interface, .. } => interface,
            Backend::Dpdk { device } => device,
        }
    }

    /// Whether the kernel keeps the interface, and there is no kernel twin.
    pub const fn is_shared(&self) -> bool {
        matches!(self, Backend::AfXdp { .. })
    }
}

/// A route to put into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The prefix.
    pub destination: Prefix,
    /// The next hop.
    pub gateway: Ipv4Addr,
    /// The port on whose link the next hop is.
    pub port: PortId,
}

/// An agent's config with the name that people know it by.
#[derive(Clone, Debug)]
pub struct Named<T> {
    /// The name.
    pub name: String,
    /// What the machines are told.
    pub config: T,
}

impl Config {
    /// What the protocol machines are told.
    pub fn agent_config(&self) -> AgentConfig {
        AgentConfig {
            home_agents: self.home_agents.iter().map(|agent| agent.config.clone()).collect(),
            foreign_agents: self.foreign_agents.iter().map(|agent| agent.config.clone()).collect(),
            advertisers: self.advertisers.clone(),
        }
    }

    /// The port with this number.
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(usize::from(id.0))
    }

    /// What was written, with every default, and never a key.
    pub fn to_json(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(&self.file).unwrap_or_default();
        strip_nulls(&mut value);
        value
    }

    /// What changes if `new` is put into force now.
    ///
    /// # Errors
    /// When something of it needs a restart: then nothing is to be changed.
    pub fn live_diff(&self, new: &Config) -> Result<ConfigDiff, Refusal> {
        let diff = diff(self, new);
        let fixed: Vec<&str> = diff.needing_restart().map(|change| change.path.as_str()).collect();
        if fixed.is_empty() {
            return Ok(diff);
        }
        Err(Refusal::conflict(
            format!("Nothing was changed: {} can only change at a start.", fixed.join(", ")),
            "Restart the daemon with the new file, or leave these keys as they are.",
        ))
    }
}

/// The JSON schema of the file, for editors and other programs.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(file::File)
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

/// TOML has no null: a key that is not set is not there.
fn strip_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}
