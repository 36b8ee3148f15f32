//! What the machines are told about themselves. Values only: where they come
//! from and whether a person wrote them right is the caller's business.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use homeport_wire::{PortId, TenantId};

use crate::Lifetime;
use crate::message::{DynamicHomeAgentFraming, SessionCarriage};
use crate::security::SecurityAssociations;
use homeport_wire::text;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An IPv4 prefix; host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: Ipv4Addr,
    len: u8,
}

impl Prefix {
    /// Every address.
    pub const ALL: Prefix = Prefix { address: Ipv4Addr::UNSPECIFIED, len: 0 };

    /// The prefix of one address.
    pub const fn host(address: Ipv4Addr) -> Self {
        Prefix { address, len: 32 }
    }

    /// The prefix of `len` bits that `address` lies in; `None` above 32 bits.
    pub fn new(address: Ipv4Addr, len: u8) -> Option<Self> {
        let mask = Self::mask(len)?;
        Some(Prefix { address: Ipv4Addr::from_bits(address.to_bits() & mask), len })
    }

    fn mask(len: u8) -> Option<u32> {
        let host_bits = 32u32.checked_sub(u32::from(len))?;
        Some(u32::MAX.checked_shl(host_bits).unwrap_or(0))
    }

    /// The network address.
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Length in bits, 0 to 32.
    pub const fn prefix_len(self) -> u8 {
        self.len
    }

    /// Whether `address` lies in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        Self::mask(self.len).is_some_and(|mask| address.to_bits() & mask == self.address.to_bits())
    }

    /// The all-ones address of the prefix.
    pub fn broadcast(self) -> Ipv4Addr {
        let host = Self::mask(self.len).map_or(0, |mask| !mask);
        Ipv4Addr::from_bits(self.address.to_bits() | host)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::deserialize(deserializer, "a prefix, as 10.1.0.0/24", |text| {
            let (address, len) = text.split_once('/')?;
            Prefix::new(address.parse().ok()?, len.parse().ok()?)
        })
    }
}

impl core::fmt::Display for Prefix {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// A set of encapsulations. IP in IP is always in it: every agent must support
/// it (RFC 5944 §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncapsulationSet(u8);

impl EncapsulationSet {
    /// IP in IP alone.
    pub const IP_IN_IP: EncapsulationSet = EncapsulationSet(0);
    /// Minimal encapsulation (RFC 2004).
    pub const MINIMAL: EncapsulationSet = EncapsulationSet(1);
    /// Generic routing encapsulation (RFC 2784).
    pub const GRE: EncapsulationSet = EncapsulationSet(2);
    /// UDP (RFC 3519).
    pub const UDP: EncapsulationSet = EncapsulationSet(4);
    /// Every one.
    pub const ALL: EncapsulationSet = EncapsulationSet(7);

    /// These and those.
    #[must_use]
    pub const fn with(self, others: EncapsulationSet) -> Self {
        EncapsulationSet(self.0 | others.0)
    }

    /// Whether all of `others` are in it.
    pub const fn contains(self, others: EncapsulationSet) -> bool {
        self.0 & others.0 == others.0
    }
}

/// How an agent's tunnels are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelPolicy {
    /// What may be asked for.
    pub encapsulations: EncapsulationSet,
    /// Whether outer headers always have DF; else it is copied (RFC 2003 §3.1).
    pub set_df: bool,
    /// Whether TCP is told of a tunnel's MTU by its segment size.
    pub clamp_mss: bool,
}

impl Default for TunnelPolicy {
    fn default() -> Self {
        let encapsulations = EncapsulationSet::ALL;
        TunnelPolicy { encapsulations, set_df: false, clamp_mss: false }
    }
}

/// What a home agent does when a request comes from another address than its
/// care-of address: through a NAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NatTraversal {
    /// It is no reason for anything.
    Off,
    /// UDP tunnelling, for those who ask for it (RFC 3519).
    #[default]
    Rfc3519,
    /// The request is denied with 131 and a challenge; who answers it gets a
    /// tunnel of plain UDP.
    Challenge,
}

/// A home agent's dealings with nodes behind NATs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatPolicy {
    /// How NATs are traversed.
    pub traversal: NatTraversal,
    /// Whether a node may have a UDP tunnel where there is no NAT (flag F of
    /// RFC 3519 §3.1); else 129.
    pub forced_udp: bool,
    /// The keepalive interval told to nodes (RFC 3519 §3.2), whole seconds.
    pub keepalive: Duration,
    /// Whether an outer address that no signature covers must be shown to be the
    /// node's before it gets more than three times what came from it.
    pub path_validation: bool,
}

impl Default for NatPolicy {
    fn default() -> Self {
        NatPolicy {
            traversal: NatTraversal::Rfc3519,
            forced_udp: false,
            // RFC 3519 §4.9.
            keepalive: Duration::from_secs(110),
            path_validation: true,
        }
    }
}

/// When a home agent sends a node to another one (RFC 4433).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Redirection {
    /// When it holds as many bindings as it may.
    #[default]
    WhenFull,
    /// Whenever the node lets itself be sent.
    Always,
}

/// A home agent's dealings with nodes that leave it to the network which home agent they
/// get (RFC 4433).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeAgentAssignment {
    /// Whether there are any; else they get 136.
    pub assigns: bool,
    /// Where they are sent, with 143; `None`: nowhere.
    pub redirect_to: Option<Ipv4Addr>,
    /// When they are.
    pub redirection: Redirection,
    /// How that is written.
    pub framing: DynamicHomeAgentFraming,
}

/// Addresses from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange {
    /// The lowest.
    pub first: Ipv4Addr,
    /// The highest, not below it.
    pub last: Ipv4Addr,
}

impl AddressRange {
    /// Whether `address` lies in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// How many addresses there are.
    pub fn count(self) -> u64 {
        u64::from(self.last.to_bits()) + 1 - u64::from(self.first.to_bits())
    }
}

/// Addresses that sessions are given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPool {
    /// Its name, for people.
    pub name: String,
    /// The realm, in lower case, whose NAIs get them; `None`: any.
    pub realm: Option<String>,
    /// The addresses.
    pub ranges: Vec<AddressRange>,
    /// What of the ranges is given to nobody.
    pub exclusions: Vec<AddressRange>,
}

/// An address that one session gets and no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The NAI.
    #[serde(with = "crate::hex")]
    pub nai: Vec<u8>,
    /// The session; empty: the node itself.
    #[serde(with = "crate::hex")]
    pub sub_nai: Vec<u8>,
    /// The address.
    pub home_address: Ipv4Addr,
}

/// How a home agent gives addresses to the sessions of NAIs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPolicy {
    /// Where addresses come from; of those for a realm, the first that has one.
    pub pools: Vec<AddressPool>,
    /// What is set aside.
    pub reservations: Vec<Reservation>,
    /// How many sessions a NAI may have at once; beyond it, 130.
    pub max_sessions_per_nai: u32,
    /// How long an address stays a session's when its binding has ended, or when it was
    /// heard of last at home.
    pub sticky: Duration,
    /// How long an address that was given back is given to nobody else. At least twice
    /// the tolerance of timestamps: until then an old request could be replayed.
    pub hold_down: Duration,
}

impl Default for SessionPolicy {
    fn default() -> Self {
        SessionPolicy {
            pools: Vec::new(),
            reservations: Vec::new(),
            max_sessions_per_nai: 64,
            sticky: Duration::from_secs(3600),
            hold_down: Duration::from_secs(60),
        }
    }
}

/// A network behind a mobile router (RFC 5177).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MobileNetwork {
    /// The router's home address.
    pub mobile_router: Ipv4Addr,
    /// The network.
    pub prefix: Prefix,
}

/// Whether a foreign agent asks home agents for UDP tunnels (RFC 3519 §4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UdpTunnelling {
    /// It does not.
    #[default]
    Off,
    /// It does: there may be a NAT.
    On,
    /// It insists, NAT or not (flag F).
    Forced,
}

/// Whether a foreign agent challenges its visitors (RFC 4721).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChallengePolicy {
    /// It does not.
    #[default]
    Off,
    /// Who answers a challenge must answer it right.
    Offered,
    /// Who answers none gets 105.
    Required,
}

/// Whether a foreign agent makes sessions of nodes that name none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionInsertion {
    /// It does not.
    #[default]
    None,
    /// A node with a NAI and without sub-NAI has its link-layer address as sub-NAI.
    Mac,
}

/// What a mobile node asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PreferredEncapsulation {
    /// IP in IP.
    #[default]
    IpInIp,
    /// Minimal encapsulation (flag M).
    Minimal,
    /// Generic routing encapsulation (flag G).
    Gre,
    /// UDP, NAT or not (flag F of RFC 3519 §3.1).
    Udp,
}

/// Which text decides where RFC 2002 and RFC 5944 differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// RFC 5944: a request without valid authorization is discarded in silence.
    #[default]
    Rfc5944,
    /// RFC 2002: it is denied with code 131, and keyed MD5 is the default.
    Rfc2002,
    /// RFC 5944 as today's mobile routers speak it: lifetimes up to 65,534 s.
    Dmnr,
}

/// A network whose addresses a home agent serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeNetwork {
    /// The addresses.
    pub prefix: Prefix,
    /// The link that they live on; `None` for a virtual home network.
    pub link: Option<PortId>,
}

/// One virtual home agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HomeAgentConfig {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its address: the Home Agent field, and the outer source of its tunnels.
    pub address: Ipv4Addr,
    /// The networks that it serves.
    pub home_networks: Vec<HomeNetwork>,
    /// RFC 5944 or RFC 2002.
    pub profile: Profile,
    /// No lifetime above this is granted.
    pub max_lifetime: Lifetime,
    /// How many bindings it holds; beyond it, 130.
    pub max_bindings: usize,
    /// How many simultaneous bindings a node may have, at most four. Beyond it,
    /// 135; where it is one, a request replaces what was there and gets code 1.
    pub max_simultaneous: u8,
    /// Whether reverse tunnels are granted; else 137.
    pub reverse_tunnel: bool,
    /// Whether every request must ask for a reverse tunnel; else 138.
    pub require_reverse_tunnel: bool,
    /// Whether requests refused by policy get 129: the off switch of a tenant.
    pub administratively_prohibited: bool,
    /// Mobile nodes by (home address, SPI), foreign agents by (address, SPI). A
    /// node is known when it has an association here.
    pub security: SecurityAssociations,
    /// Whether a request through a foreign agent must carry a valid foreign-home
    /// authentication; else 132.
    pub require_foreign_home_authentication: bool,
    /// How its tunnels are made; what it does not have gets 139 or 142.
    pub tunnels: TunnelPolicy,
    /// Nodes behind NATs.
    pub nat: NatPolicy,
    /// The networks behind mobile routers.
    pub mobile_networks: Vec<MobileNetwork>,
    /// Whether denials say in words why (RFC 4917).
    #[serde(default)]
    pub message_strings: bool,
    /// Whether it takes part in revocations, with foreign agents that it shares an
    /// association with (RFC 3543).
    #[serde(default)]
    pub revocation: bool,
    /// Nodes that name no home agent.
    #[serde(default)]
    pub assignment: HomeAgentAssignment,
    /// The sessions of nodes that are known by NAI.
    #[serde(default)]
    pub sessions: SessionPolicy,
}

/// Which way a visitor's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Via {
    /// By the reverse tunnel, to its home agent.
    Tunnel,
    /// By the routes of the foreign agent's box.
    Local {
        /// The number of the NAPT that the visitor is hidden behind.
        napt: Option<u16>,
    },
}

/// A route for the packets of some visitors only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRoute {
    /// Visitors of this home agent; `None`: of any.
    pub home_agent: Option<Ipv4Addr>,
    /// Visitors with a home address in here; `None`: with any. It is their home
    /// network, and goes by the tunnel.
    pub home_prefix: Option<Prefix>,
    /// Their packets to here.
    pub destination: Prefix,
    /// Go this way.
    pub via: Via,
    /// At this cost: of the routes with the longest destination that a packet is
    /// for, the cheapest that can be gone; of two that cost the same, the tunnel.
    pub cost: u16,
}

/// One foreign agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForeignAgentConfig {
    /// Its tenant.
    pub tenant: TenantId,
    /// The address that it offers as care-of address and relays from.
    pub care_of_address: Ipv4Addr,
    /// The links that its visitors are on, each with the agent's address there.
    pub links: Vec<(PortId, Ipv4Addr)>,
    /// RFC 5944 or RFC 2002.
    pub profile: Profile,
    /// No lifetime above this is relayed; a longer request gets 69.
    pub max_lifetime: Lifetime,
    /// How many visitors it holds; beyond it, 66 and the B flag.
    pub max_visitors: usize,
    /// How many requests may be pending for one node, or one session that has no home
    /// address yet; beyond it, 66.
    pub max_pending_per_node: usize,
    /// How many may be pending in all; beyond it, 66.
    pub max_pending: usize,
    /// How many visitors may have one NAI, their sessions among them; beyond it, 66. Zero
    /// is no limit.
    #[serde(default)]
    pub max_sessions_per_nai: usize,
    /// How many requests with one NAI a station may send in a minute, and at once; beyond
    /// it, 66. Zero is no limit.
    #[serde(default)]
    pub requests_per_minute_per_nai: u32,
    /// Whether it makes sessions of nodes that name none.
    #[serde(default)]
    pub session_insertion: SessionInsertion,
    /// When a pending request is given up with 78 (RFC 5944 §3.7.2.2: 7 s).
    pub pending_timeout: Duration,
    /// Whether reverse tunnels are offered; else 74.
    pub reverse_tunnel: bool,
    /// Whether every request must ask for a reverse tunnel; else 75.
    pub require_reverse_tunnel: bool,
    /// Whether the encapsulating delivery style is offered; else 79.
    pub encapsulating_delivery: bool,
    /// Whether a request must carry mobile-foreign authentication; else 67.
    pub require_mobile_foreign_authentication: bool,
    /// Whether it challenges its visitors (RFC 4721).
    #[serde(default)]
    pub challenge: ChallengePolicy,
    /// How many of the last challenges that were advertised on a link may be answered
    /// there (RFC 4721 §9: CHALLENGE_WINDOW, at least 2).
    #[serde(default)]
    pub challenge_window: usize,
    /// The home agent of nodes that name none (RFC 4433 §5.2); `None`: they get 90.
    #[serde(default)]
    pub assigned_home_agent: Option<Ipv4Addr>,
    /// Whether it takes part in revocations, with home agents that it shares an
    /// association with (RFC 3543).
    #[serde(default)]
    pub revocation: bool,
    /// Whether nodes are refused with 65: the off switch.
    pub administratively_prohibited: bool,
    /// Whether two nodes of different home agents may visit with one home address,
    /// told apart by their link-layer addresses, and a host of the visited network
    /// may have it too. Else the second gets 65.
    pub overlapping_addresses: bool,
    /// The number of the NAPT that visitors are hidden behind where their packets
    /// go by the routes of the box, not by a tunnel.
    pub napt: Option<u16>,
    /// Source-restricted routes.
    pub source_routes: Vec<SourceRoute>,
    /// Mobile nodes by (home address, SPI), home agents by (address, SPI).
    pub security: SecurityAssociations,
    /// How its tunnels are made; what it does not have gets 72.
    pub tunnels: TunnelPolicy,
    /// Whether it is behind a NAT.
    pub udp_tunnel: UdpTunnelling,
    /// Whether home agents are asked for the keys of GRE tunnels (RFC 6245). One
    /// that does not know how to answer discards such a request in silence.
    pub gre_keys: bool,
    /// Whether its own denials say in words why (RFC 4917).
    #[serde(default)]
    pub message_strings: bool,
}

/// Agent advertisements on one link (RFC 5944 §2.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvertiserConfig {
    /// Its tenant.
    pub tenant: TenantId,
    /// The link.
    pub port: PortId,
    /// The agent's address on the link: source and router address.
    pub address: Ipv4Addr,
    /// Prefix length of the link, for the prefix-lengths extension.
    pub prefix_len: u8,
    /// Whether it serves as home agent here (flag H).
    pub home_agent: bool,
    /// Whether it serves as foreign agent here (flag F), with these addresses.
    pub care_of_addresses: Vec<Ipv4Addr>,
    /// Whether nodes must register through the foreign agent even with an address
    /// of their own (flag R).
    pub registration_required: bool,
    /// Whether reverse tunnels are offered (flag T).
    pub reverse_tunnel: bool,
    /// Which encapsulations are offered (flags M and G).
    pub encapsulations: EncapsulationSet,
    /// Whether it is behind a NAT and has UDP tunnels (flag U, RFC 3519 §3.4).
    pub udp_tunnel: bool,
    /// Whether it takes part in revocations (flag X, RFC 3543 §3.1).
    #[serde(default)]
    pub revocation: bool,
    /// The longest registration lifetime that is accepted.
    pub registration_lifetime: Lifetime,
    /// Time between unsolicited advertisements; the lifetime of an advertisement
    /// is three times this (RFC 5944 §2.3).
    pub interval: Duration,
    /// Whether to advertise unasked, or only on solicitation.
    pub unsolicited: bool,
}

/// All that one process's agents are told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AgentConfig {
    /// Virtual home agents.
    pub home_agents: Vec<HomeAgentConfig>,
    /// Foreign agents.
    pub foreign_agents: Vec<ForeignAgentConfig>,
    /// Advertisers.
    pub advertisers: Vec<AdvertiserConfig>,
}

/// How a mobile node wants its packets carried, and what it knows.
#[derive(Clone, Debug)]
pub struct MobileNodeConfig {
    /// Its home address; the unspecified address, with a NAI: the first home agent that
    /// accepts it gives it one.
    pub home_address: Ipv4Addr,
    /// The prefix of its home network, to know home by.
    pub home_prefix: Prefix,
    /// Its home agent; with a choice left to the network, the one that is asked first.
    pub home_agent: Ipv4Addr,
    /// Whether the network may choose another (RFC 4433), and how that is written.
    pub dynamic_home_agent: Option<DynamicHomeAgentFraming>,
    /// The lifetime it asks for.
    pub lifetime: Lifetime,
    /// How it wants its own packets carried.
    pub reverse_tunnel: crate::ReverseTunnel,
    /// Whether a co-located care-of address is used where no agent answers.
    pub co_located: bool,
    /// How long after the first solicitation a co-located care-of address is
    /// preferred over waiting for an agent.
    pub agent_wait: Duration,
    /// How it wants its packets encapsulated.
    pub encapsulation: PreferredEncapsulation,
    /// Whether it asks for a UDP tunnel should a NAT be in the way (RFC 3519).
    pub nat_traversal: bool,
    /// Its NAI, 1 to 253 bytes (RFC 2794); without one it has no sessions.
    pub nai: Option<Vec<u8>>,
    /// How its requests carry the names of sessions.
    pub session_carriage: SessionCarriage,
    /// The foreign agents in `security` that know the node by its NAI, and so its sessions
    /// too. All others know it by its home address.
    pub agents_by_nai: BTreeSet<Ipv4Addr>,
    /// Its home agent by (home agent address, SPI), foreign agents by (address,
    /// SPI).
    pub security: SecurityAssociations,
}
