//! What the admin API shows: one struct for each noun of the CLI.
//!
//! The field names are the JSON keys and part of the API's version: they are
//! added to, never renamed. Units are in the names: `_seconds`, `_bytes`;
//! everything else that counts is in packets or frames. A lifetime of `null`
//! never ends.

mod counts;
mod sessions;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use homeport_dataplane::stats::PortStats;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use homeport_proto::Lifetime;

pub use self::counts::{CounterView, DropView, Plane, Totals};
pub use self::sessions::{
    MAX_SESSION_ROWS, PoolView, SessionCounts, SessionStateView, SessionView, SessionsArgs,
    SessionsView,
};

/// How a tunnel encapsulates.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Encapsulation {
    /// IP in IP, protocol 4 (RFC 2003).
    IpInIp,
    /// Minimal encapsulation, protocol 55 (RFC 2004).
    Minimal,
    /// GRE, protocol 47 (RFC 2784).
    Gre,
    /// IP in UDP with a tunnel data header (RFC 3519).
    Udp,
    /// IP in UDP without a header between.
    PlainUdp,
}

impl From<homeport_dataplane::table::binding::Encapsulation> for Encapsulation {
    fn from(from: homeport_dataplane::table::binding::Encapsulation) -> Self {
        use homeport_dataplane::table::binding::Encapsulation as Table;
        match from {
            Table::IpInIp => Encapsulation::IpInIp,
            Table::Minimal => Encapsulation::Minimal,
            Table::Gre { .. } => Encapsulation::Gre,
            Table::Udp { .. } => Encapsulation::Udp,
            Table::PlainUdp { .. } => Encapsulation::PlainUdp,
        }
    }
}

impl From<homeport_proto::Encapsulation> for Encapsulation {
    fn from(from: homeport_proto::Encapsulation) -> Self {
        match from {
            homeport_proto::Encapsulation::IpInIp => Encapsulation::IpInIp,
            homeport_proto::Encapsulation::Minimal => Encapsulation::Minimal,
            homeport_proto::Encapsulation::Gre { .. } => Encapsulation::Gre,
            homeport_proto::Encapsulation::Udp { .. } => Encapsulation::Udp,
            homeport_proto::Encapsulation::PlainUdp { .. } => Encapsulation::PlainUdp,
        }
    }
}

/// How a node's own packets go back to its home agent (RFC 3024).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReverseTunnel {
    /// Routed by their destination.
    None,
    /// Direct delivery: all of them are tunnelled by the foreign agent.
    Direct,
    /// Encapsulating delivery: the node chooses.
    Encapsulating,
}

impl From<homeport_proto::ReverseTunnel> for ReverseTunnel {
    fn from(from: homeport_proto::ReverseTunnel) -> Self {
        match from {
            homeport_proto::ReverseTunnel::None => ReverseTunnel::None,
            homeport_proto::ReverseTunnel::Direct => ReverseTunnel::Direct,
            homeport_proto::ReverseTunnel::Encapsulating => ReverseTunnel::Encapsulating,
        }
    }
}

/// A lifetime as the API shows it: seconds, `None` when it never ends.
pub fn lifetime_seconds(lifetime: Lifetime) -> Option<u64> {
    lifetime.duration().map(|duration| duration.as_secs())
}

/// What an agent of this process is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A (virtual) home agent.
    HomeAgent,
    /// A foreign agent.
    ForeignAgent,
    /// A mobile node.
    MobileNode,
}

impl Role {
    /// For programs: the word in JSON and in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Role::HomeAgent => "home_agent",
            Role::ForeignAgent => "foreign_agent",
            Role::MobileNode => "mobile_node",
        }
    }

    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Role::HomeAgent => "home agent",
            Role::ForeignAgent => "foreign agent",
            Role::MobileNode => "mobile node",
        }
    }
}

/// One agent of this process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentView {
    /// Its name in the config.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its tenant.
    pub tenant: u32,
    /// A home agent's address, a foreign agent's care-of address, a mobile
    /// node's home address, 0.0.0.0 while it has none.
    pub address: Ipv4Addr,
    /// Bindings of a home agent, visitors of a foreign agent, now; of a mobile
    /// node, 1 while it is registered away from home.
    pub registrations: u64,
    /// How many there may be.
    pub limit: u64,
    /// Sessions of a home agent, by state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<SessionCounts>,
}

/// `show status`: the process at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Homeport's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// Since it started.
    pub uptime_seconds: u64,
    /// Where its config came from.
    pub config_file: String,
    /// How many configs have been in force: 1 at the start, one more with each
    /// that was applied.
    pub config_generation: u64,
    /// `adaptive` or `busy`.
    pub poll: String,
    /// RX cores.
    pub workers: u32,
    /// Table entries that cannot be reused, as an RX core may still see them.
    pub held_back_entries: u64,
    /// For how long an RX core has held one back: more than a second or two, and it is
    /// stopped, or it hangs.
    pub held_back_seconds: u64,
    /// Ports in the config.
    pub ports: u32,
    /// Those of them that are up.
    pub ports_up: u32,
    /// Home addresses with a binding.
    pub bindings: u64,
    /// Associations of the home agents with mobile nodes.
    #[serde(default)]
    pub subscribers: u64,
    /// Visitors registered.
    pub visitors: u64,
    /// The agents.
    pub agents: Vec<AgentView>,
    /// The dataplane's counters, summed over ports and RX cores.
    pub totals: Totals,
}

/// `show ports`: one port, its counters summed over RX cores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortView {
    /// Its name in the config.
    pub name: String,
    /// `af_packet`, `af_xdp`, `dpdk`, `memory`, `pcap`.
    pub backend: String,
    /// How it runs, where there is a choice: `native, copy, 1 queue`.
    #[serde(default)]
    pub mode: Option<String>,
    /// The interface, PCI address, vdev or file behind it.
    pub device: String,
    /// Its link-layer address.
    pub mac: String,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Whether the link has carrier.
    pub up: bool,
    /// Its kernel twin, where it has one.
    pub kernel_twin: Option<String>,
    /// The addresses on the twin, or on the interface itself, with prefix length.
    pub addresses: Vec<String>,
    /// Frames that the port received.
    pub rx: u64,
    /// Bytes of them.
    pub rx_bytes: u64,
    /// Frames that the port sent.
    pub tx: u64,
    /// Bytes of them.
    pub tx_bytes: u64,
    /// Frames from the kernel twin.
    pub from_kernel: u64,
    /// Frames to the kernel twin.
    pub to_kernel: u64,
    /// Packets from the control core.
    pub injected: u64,
    /// Packets made by the dataplane: ICMP errors, copies.
    pub originated: u64,
    /// Packets to the control core.
    pub punted: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets waiting for a next hop's address.
    pub held: u64,
    /// Packets put into a tunnel.
    pub encapsulated: u64,
    /// Packets taken out of a tunnel.
    pub decapsulated: u64,
    /// Keepalives of UDP tunnels that were answered.
    #[serde(default)]
    pub keepalives: u64,
    /// Packets out of UDP tunnels with reserved bits set, which are ignored.
    #[serde(default)]
    pub reserved_bits: u64,
    /// What the port itself lost or mended, by counter name.
    pub device_counters: BTreeMap<String, u64>,
    /// What each RX core did of it.
    #[serde(default)]
    pub cores: Vec<CoreView>,
}

/// `show ports`: what one RX core counts for a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CoreView {
    /// The number of its worker: its place in the config's `cores`.
    pub core: u32,
    /// Frames that it received by the port.
    pub rx: u64,
    /// Frames that it sent by the port.
    pub tx: u64,
    /// Packets to the control core.
    pub punted: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets handed to another RX core.
    pub handed_over: u64,
    /// Packets taken over from another RX core.
    pub taken_over: u64,
}

impl CoreView {
    /// What a worker counts.
    pub fn new(core: u32, stats: &PortStats) -> Self {
        CoreView {
            core,
            rx: stats.rx.get(),
            tx: stats.tx.get(),
            punted: stats.total_punted(),
            dropped: stats.total_dropped(),
            handed_over: stats.handed_over.get(),
            taken_over: stats.taken_over.get(),
        }
    }
}

/// One tunnel of a binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CareOfView {
    /// Where the tunnel goes: the care-of address, or a NAT's outside.
    pub address: Ipv4Addr,
    /// The care-of address as it was registered: what the node itself calls it.
    pub registered: Ipv4Addr,
    /// How the tunnel encapsulates.
    pub encapsulation: Encapsulation,
    /// The UDP port that the tunnel goes to; `null` for other tunnels, and while it
    /// is half-bound.
    pub udp_port: Option<u16>,
    /// Whether the tunnel waits for the first keepalive to know its port.
    pub half_bound: bool,
    /// Whether nobody has answered at `address` yet.
    pub unproven: bool,
    /// The keepalive interval told to the other end of a UDP tunnel.
    pub keepalive_seconds: Option<u64>,
    /// The key of a GRE tunnel.
    pub gre_key: Option<u32>,
    /// Whether reverse tunnelling was granted.
    pub reverse_tunnel: bool,
    /// Whether the node itself decapsulates.
    pub co_located: bool,
    /// Whether the home network's broadcasts are tunnelled to it.
    pub broadcast: bool,
    /// The lifetime granted.
    pub lifetime_seconds: Option<u64>,
    /// What is left of it.
    pub remaining_seconds: Option<u64>,
}

/// `show bindings`: a home agent's mobility binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BindingView {
    /// The virtual home agent's tenant.
    pub tenant: u32,
    /// The node.
    pub home_address: Ipv4Addr,
    /// Its home agent.
    pub home_agent: Ipv4Addr,
    /// Where it is; more than one with simultaneous bindings.
    pub care_of_addresses: Vec<CareOfView>,
    /// The port of its home link; `null` on a virtual home network.
    pub home_link: Option<String>,
    /// The networks behind it, if it is a mobile router.
    pub mobile_networks: Vec<String>,
    /// The NAI that it is known by, escaped; `null`: it is known by its home address.
    #[serde(default)]
    pub nai: Option<String>,
    /// Which session of the NAI has the home address, escaped; empty: the node itself.
    #[serde(default)]
    pub session: Option<String>,
    /// Since its first registration away from home.
    pub age_seconds: u64,
}

/// How far a visitor has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VisitorState {
    /// Its request was relayed; the home agent has not answered.
    Pending,
    /// Registered.
    Registered,
}

/// `show visitors`: a node at a foreign agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VisitorView {
    /// The foreign agent's tenant.
    pub tenant: u32,
    /// The node.
    pub home_address: Ipv4Addr,
    /// Its home agent.
    pub home_agent: Ipv4Addr,
    /// Its NAI, escaped; `null`: it gave none.
    #[serde(default)]
    pub nai: Option<String>,
    /// Which session of the NAI it is, escaped; empty: the node itself.
    #[serde(default)]
    pub session: Option<String>,
    /// The care-of address that it registered.
    pub care_of_address: Ipv4Addr,
    /// Its link-layer address.
    pub mac: String,
    /// The port of the visited link.
    pub port: String,
    /// Pending or registered.
    pub state: VisitorState,
    /// How the tunnel encapsulates; while pending, what was asked for.
    pub encapsulation: Encapsulation,
    /// How often its UDP tunnel is kept alive.
    pub keepalive_seconds: Option<u64>,
    /// The key of a GRE tunnel.
    pub gre_key: Option<u32>,
    /// How its own packets go back.
    pub reverse_tunnel: ReverseTunnel,
    /// The lifetime granted; while pending, the one asked for.
    pub lifetime_seconds: Option<u64>,
    /// What is left of it.
    pub remaining_seconds: Option<u64>,
    /// Since its first registration here.
    pub age_seconds: u64,
}

/// `show tunnels`: one pair of tunnel ends, whoever it carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TunnelView {
    /// Whose it is.
    pub tenant: u32,
    /// Which of our agents ends it.
    pub role: Role,
    /// Our end: outer source.
    pub local: Ipv4Addr,
    /// The other end: outer destination.
    pub remote: Ipv4Addr,
    /// How it encapsulates.
    pub encapsulation: Encapsulation,
    /// The other end's port of a UDP tunnel; `null` for others, and while it is
    /// half-bound.
    pub udp_port: Option<u16>,
    /// The key of a GRE tunnel.
    pub gre_key: Option<u32>,
    /// Home addresses that it carries.
    pub nodes: u64,
    /// Those of them with a reverse tunnel.
    pub reverse: u64,
}

/// `show routes`: a route that the dataplane forwards by, mirrored from the
/// kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteView {
    /// The prefix.
    pub destination: String,
    /// The port that it leaves by; `null` when unreachable or behind a mobile router.
    pub port: Option<String>,
    /// The next hop; `null` on the link itself.
    pub gateway: Option<Ipv4Addr>,
    /// The mobile router that it is behind.
    pub mobile_router: Option<Ipv4Addr>,
    /// Whether its packets are dropped (blackhole, unreachable, prohibit).
    pub unreachable: bool,
}

/// `show neighbors`: a next hop's link-layer address, mirrored from the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NeighborView {
    /// The port.
    pub port: String,
    /// The next hop.
    pub address: Ipv4Addr,
    /// Its link-layer address.
    pub mac: String,
}

/// `show napt`: one NAPT, what it holds now and has counted since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NaptView {
    /// Its name in the config.
    pub name: String,
    /// The ports whose hosts are hidden.
    pub inside: Vec<String>,
    /// The port to the outside.
    pub outside: String,
    /// Its external addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// The ports of each external address that are the NAPT's, as in `16384-32767`.
    pub port_range: String,
    /// What a mapping depends on.
    pub mapping: String,
    /// What inbound packets are filtered by.
    pub filtering: String,
    /// How many sessions it may hold.
    pub max_sessions: u64,
    /// The gauges and counters of the NAPT by name, at most a tenth of a second old.
    pub counters: BTreeMap<String, u64>,
    /// The blocks that are given now, by external address and port.
    pub blocks: Vec<NaptBlockView>,
}

/// A block of external ports and the inside host that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NaptBlockView {
    /// The host's tenant.
    pub tenant: u32,
    /// The inside host's address.
    pub inside: Ipv4Addr,
    /// A visitor's link-layer address; `null` for a host that is reached by its address.
    pub mac: Option<String>,
    /// The external address.
    pub external: Ipv4Addr,
    /// The first port of the block.
    pub first_port: u16,
    /// The last port of the block.
    pub last_port: u16,
    /// For how long it has been given.
    pub age_seconds: u64,
}

/// `show security-associations`: what two nodes share, but never the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecurityAssociationView {
    /// The agent's tenant.
    pub tenant: u32,
    /// The agent that holds it, by name.
    pub agent: String,
    /// What the peer is.
    pub peer_role: Role,
    /// The peer's address; a mobile node's home address. `null`: the node is known by
    /// its NAI.
    pub peer: Option<Ipv4Addr>,
    /// The peer's NAI, escaped, if it is known by that.
    #[serde(default)]
    pub nai: Option<String>,
    /// The security parameter index.
    pub spi: u32,
    /// `hmac-md5`, `keyed-md5`, `hmac-sha1`, `hmac-sha256`.
    pub algorithm: String,
    /// `timestamps` or `nonces`.
    pub replay: String,
    /// How far clocks may differ, with timestamps.
    pub tolerance_seconds: Option<u64>,
}

/// `show mobile-node`: where a mobile node is, as it sees itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MobileNodeView {
    /// The interface that it moves with.
    pub interface: String,
    /// Its state in a word: `searching`, `home`, `registering`, `registered`.
    pub state: String,
    /// Its home address; `null` until its home agent has given it one.
    pub home_address: Option<Ipv4Addr>,
    /// Whether its home agent gives it, and not its config.
    #[serde(default)]
    pub home_address_given: bool,
    /// Its home agent.
    pub home_agent: Ipv4Addr,
    /// The care-of address, away from home.
    pub care_of_address: Option<Ipv4Addr>,
    /// The foreign agent that it registered through.
    pub foreign_agent: Option<Ipv4Addr>,
    /// Whether it decapsulates itself.
    pub co_located: bool,
    /// How its packets go back.
    pub reverse_tunnel: ReverseTunnel,
    /// How the tunnel to the home agent encapsulates, be it the node's own or, as the
    /// node asked for it, the foreign agent's; `null` at home and while there is none.
    /// A UDP tunnel that a foreign agent arranged for itself is not seen here: the
    /// home agent shows it.
    pub encapsulation: Option<Encapsulation>,
    /// Whether the home agent saw a NAT in the way.
    pub nat: bool,
    /// The node's own tunnel; `null` where a foreign agent has it.
    pub tunnel: Option<TunnelEndsView>,
    /// The longest packet of applications that goes out in one piece.
    pub tunnel_mtu_bytes: u16,
    /// After how long without traffic the tunnel is kept alive; `null` where that
    /// need not be.
    pub keepalive_seconds: Option<u64>,
    /// The lifetime granted; `null` also while nothing is.
    pub lifetime_seconds: Option<u64>,
    /// What is left of it.
    pub remaining_seconds: Option<u64>,
    /// The code of the last reply.
    pub last_code: Option<u8>,
    /// What an agent said of it in words (RFC 4917).
    #[serde(default)]
    pub last_text: Option<AgentTextView>,
    /// How many sessions it registers for, beside itself.
    #[serde(default)]
    pub sessions: u64,
    /// How many of them have a home address.
    #[serde(default)]
    pub sessions_with_address: u64,
    /// Since it came here.
    pub age_seconds: u64,
}

/// What an agent said for the node's user, escaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentTextView {
    /// Which agent: the home agent signs what it says, of the foreign agent anybody may
    /// have said it.
    pub role: Role,
    /// The text.
    pub text: String,
}

/// The outer ends of a mobile node's own tunnel, as it sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TunnelEndsView {
    /// Its own end.
    pub local: Ipv4Addr,
    /// Its own UDP port, in a UDP tunnel.
    pub local_port: Option<u16>,
    /// The other end.
    pub remote: Ipv4Addr,
    /// The other end's UDP port, in a UDP tunnel.
    pub remote_port: Option<u16>,
}

/// What `clear visitor` took away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VisitorsCleared {
    /// The foreign agents' tenant.
    pub tenant: u32,
    /// The node.
    pub home_address: Ipv4Addr,
    /// How many visitors had this home address.
    pub visitors: u64,
}

/// What `clear binding` took away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cleared {
    /// The virtual home agent's tenant.
    pub tenant: u32,
    /// The node.
    pub home_address: Ipv4Addr,
    /// How many care-of addresses it had.
    pub care_of_addresses: u64,
}
