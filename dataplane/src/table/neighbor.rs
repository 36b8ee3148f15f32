//! Neighbours: next hop to link-layer address. They mirror the kernel's.

use std::net::Ipv4Addr;

use homeport_wire::{MacAddress, PortId};

use super::keyed::{TableKey, WORDS};

/// What a neighbour is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NeighborKey {
    /// The link.
    pub port: PortId,
    /// The next hop.
    pub address: Ipv4Addr,
}

impl TableKey for NeighborKey {
    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        [u64::from(self.port.0) << 32 | u64::from(self.address.to_bits()), 0, 0]
    }
}

/// A neighbour that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborEntry {
    /// Its link-layer address.
    pub mac: MacAddress,
}
