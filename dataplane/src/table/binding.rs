//! The binding table of home agents: home address to tunnel.

use std::net::Ipv4Addr;

use homeport_wire::{PortId, TenantId};

/// The most simultaneous bindings of one node that the dataplane copies to.
pub const MAX_TUNNELS: usize = 4;

/// What a binding is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BindingKey {
    /// The virtual home agent.
    pub tenant: TenantId,
    /// The node's home address.
    pub home_address: Ipv4Addr,
}

/// Encapsulations that the dataplane knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encapsulation {
    /// IP in IP (RFC 2003).
    #[default]
    IpInIp,
}

/// One tunnel of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelEnd {
    /// Where the tunnel ends: outer destination, and the only outer source that
    /// its reverse tunnel may have.
    pub care_of_address: Ipv4Addr,
    /// How it encapsulates.
    pub encapsulation: Encapsulation,
    /// Whether packets from it are accepted (reverse tunnel, RFC 3024).
    pub reverse: bool,
    /// Whether the node itself decapsulates.
    pub co_located: bool,
    /// Whether it wants the home network's broadcasts.
    pub broadcast: bool,
}

/// Forwarding state of one home address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingEntry {
    /// Outer source of everything tunnelled.
    pub home_agent: Ipv4Addr,
    /// The tunnels; the first `tunnel_count` count. Never zero of them.
    pub tunnels: [TunnelEnd; MAX_TUNNELS],
    /// How many of `tunnels` count.
    pub tunnel_count: u8,
    /// The home link on which ARP for the home address is answered.
    pub home_link: Option<PortId>,
}

impl BindingEntry {
    /// The tunnels that count.
    pub fn tunnels(&self) -> &[TunnelEnd] {
        self.tunnels.get(..usize::from(self.tunnel_count)).unwrap_or(&self.tunnels)
    }
}
