//! What the machines are told about themselves. Values only: where they come
//! from and whether a person wrote them right is the caller's business.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use homeport_wire::{PortId, TenantId};

use crate::Lifetime;
use crate::security::SecurityAssociations;

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

impl core::fmt::Display for Prefix {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// Which text decides where RFC 2002 and RFC 5944 differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// RFC 5944: a request without valid authorization is discarded in silence.
    #[default]
    Rfc5944,
    /// RFC 2002: it is denied with code 131, and keyed MD5 is the default.
    Rfc2002,
}

/// A network whose addresses a home agent serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeNetwork {
    /// The addresses.
    pub prefix: Prefix,
    /// The link that they live on; `None` for a virtual home network.
    pub link: Option<PortId>,
}

/// One virtual home agent.
#[derive(Clone, Debug)]
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
}

/// One foreign agent.
#[derive(Clone, Debug)]
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
    /// How many requests may be pending for one node; beyond it, 66.
    pub max_pending_per_node: usize,
    /// How many may be pending in all; beyond it, 66.
    pub max_pending: usize,
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
    /// Whether nodes are refused with 65: the off switch.
    pub administratively_prohibited: bool,
    /// Mobile nodes by (home address, SPI), home agents by (address, SPI).
    pub security: SecurityAssociations,
}

/// Agent advertisements on one link (RFC 5944 §2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The longest registration lifetime that is accepted.
    pub registration_lifetime: Lifetime,
    /// Time between unsolicited advertisements; the lifetime of an advertisement
    /// is three times this (RFC 5944 §2.3).
    pub interval: Duration,
    /// Whether to advertise unasked, or only on solicitation.
    pub unsolicited: bool,
}

/// All that one process's agents are told.
#[derive(Clone, Debug, Default)]
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
    /// Its home address.
    pub home_address: Ipv4Addr,
    /// The prefix of its home network, to know home by.
    pub home_prefix: Prefix,
    /// Its home agent.
    pub home_agent: Ipv4Addr,
    /// The lifetime it asks for.
    pub lifetime: Lifetime,
    /// How it wants its own packets carried.
    pub reverse_tunnel: crate::ReverseTunnel,
    /// Whether a co-located care-of address is used where no agent answers.
    pub co_located: bool,
    /// How long after the first solicitation a co-located care-of address is
    /// preferred over waiting for an agent.
    pub agent_wait: Duration,
    /// Its home agent by (home agent address, SPI), foreign agents by (address,
    /// SPI).
    pub security: SecurityAssociations,
}
