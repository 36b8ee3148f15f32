//! The addresses of this box, and what each one is.

use std::net::Ipv4Addr;

use homeport_wire::TenantId;

use super::classes::Class;
use super::filter::FilterShape;
use super::keyed::{TableKey, WORDS};

/// What an address of ours is found by. An underlay address belongs to one
/// tenant only, so the address alone is the key: it is what isolates tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalKey {
    /// The address, or a broadcast address of one of our links.
    pub address: Ipv4Addr,
}

impl TableKey for LocalKey {
    const CLASS: Class = Class::LOCAL;
    /// A box has some dozens of addresses: hardly any other shares a bit with one.
    const FILTER: FilterShape = FilterShape { log_bits: 16, ignored_bits: 0 };

    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        [u64::from(self.address.to_bits()), 0, 0]
    }

    #[inline(always)]
    fn filtered(&self) -> Option<Ipv4Addr> {
        Some(self.address)
    }
}

/// What an address of ours is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalEntry {
    /// Whose it is.
    pub tenant: TenantId,
    /// A virtual home agent: ends reverse tunnels, takes registrations.
    pub home_agent: bool,
    /// A care-of address: ends forward tunnels, takes registrations.
    pub care_of_address: bool,
    /// An agent's address on a link: takes registrations.
    pub agent: bool,
    /// The broadcast address of a link.
    pub broadcast: bool,
}
