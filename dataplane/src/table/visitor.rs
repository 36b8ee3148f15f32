//! The visitor table of foreign agents: home address to link and station.

use std::net::Ipv4Addr;

use homeport_wire::{MacAddress, PortId, TenantId};

use super::binding::{Encapsulation, EntryFlags};

/// What a visitor is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VisitorKey {
    /// The foreign agent's tenant.
    pub tenant: TenantId,
    /// The visitor's home address.
    pub home_address: Ipv4Addr,
}

/// How a visitor's own packets go back to its home agent (RFC 3024 §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReverseTunnel {
    /// Routed by their destination.
    #[default]
    None,
    /// All plain packets are encapsulated here.
    Direct,
    /// Packets that the visitor encapsulated to us are encapsulated anew; its
    /// plain packets are routed by their destination.
    Encapsulating,
}

/// Forwarding state of one visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisitorEntry {
    /// The station on the visited link.
    pub mac: MacAddress,
    /// The visited link.
    pub port: PortId,
    /// The only outer source of packets for it, and the reverse tunnel's end.
    pub home_agent: Ipv4Addr,
    /// Our address that it registered: outer source of the reverse tunnel.
    pub care_of_address: Ipv4Addr,
    /// How tunnels encapsulate.
    pub encapsulation: Encapsulation,
    /// How its packets go back.
    pub reverse_tunnel: ReverseTunnel,
    /// How its tunnel treats packets.
    pub flags: EntryFlags,
}
