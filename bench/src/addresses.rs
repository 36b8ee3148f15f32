//! Who has which address in the world that is measured. Every address follows from
//! the number of its node, so that a generator of packets reads no table of its own,
//! which would take the cache from the tables that are measured.
//!
//! Nodes are scattered over their network by a multiplication with an odd number, which
//! is a bijection of 24 bits: neighbours in number are no neighbours in address.

use std::net::Ipv4Addr;

/// The most nodes that have an address each: a whole /8.
pub const MAX_NODES: u64 = 1 << 24;

/// The home agent: the outer source of tunnels.
pub const HOME_AGENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The next hop of all that goes to the outside.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

const MASK: u32 = 0x00ff_ffff;
const HOME: u32 = 10 << 24;
const CARE_OF: u32 = 40 << 24;
const CORRESPONDENT: u32 = 50 << 24;
const PLAIN: u32 = 60 << 24;
const NOWHERE: u32 = 20 << 24;
const INSIDE: u32 = 100 << 24 | 64 << 16;
const EXTERNAL: u32 = 198 << 24 | 18 << 16;
const SCATTER: u32 = 0x9e_3779;
const SCATTER_CARE_OF: u32 = 0x5b_d1e9;

/// The inverse of an odd number modulo 2³²: Newton's iteration doubles the right bits.
const fn inverse(odd: u32) -> u32 {
    let mut inverse = odd;
    let mut step = 0;
    while step < 5 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

const fn scattered(base: u32, number: u64, by: u32) -> Ipv4Addr {
    // A node's number has 24 bits.
    Ipv4Addr::from_bits(base | (number as u32).wrapping_mul(by) & MASK)
}

/// The home address of a node, in 10.0.0.0/8.
pub const fn home(node: u64) -> Ipv4Addr {
    scattered(HOME, node, SCATTER)
}

/// Whose home address it is.
pub const fn node(home: Ipv4Addr) -> u64 {
    ((home.to_bits() & MASK).wrapping_mul(inverse(SCATTER)) & MASK) as u64
}

/// The care-of address of a node, in 40.0.0.0/8; no two are alike.
pub const fn care_of(node: u64) -> Ipv4Addr {
    scattered(CARE_OF, node, SCATTER_CARE_OF)
}

/// The UDP port of a node's NAT.
pub const fn peer_port(node: u64) -> u16 {
    // Fourteen bits fit.
    4096 + (node & 0x3fff) as u16
}

/// A correspondent, in 50.0.0.0/8.
pub const fn correspondent(random: u64) -> Ipv4Addr {
    scattered(CORRESPONDENT, random, 1)
}

/// A host that plain packets go to, in 60.0.0.0/8.
pub const fn plain(random: u64) -> Ipv4Addr {
    scattered(PLAIN, random, 1)
}

/// An address that nothing leads to, in 20.0.0.0/8.
pub const fn nowhere(random: u64) -> Ipv4Addr {
    scattered(NOWHERE, random, 1)
}

/// The network of [`nowhere`].
pub const NOWHERE_NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::from_bits(NOWHERE), 8);

/// The home network.
pub const HOME_NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::from_bits(HOME), 8);

/// How many flows one host inside has.
pub const FLOWS_PER_HOST: u64 = 64;

/// The inside end of a flow: hosts from 100.64.0.0 on, [`FLOWS_PER_HOST`] ports each.
pub const fn inside(flow: u64) -> (Ipv4Addr, u16) {
    let host = (flow / FLOWS_PER_HOST) as u32;
    (Ipv4Addr::from_bits(INSIDE + host), 10_000 + (flow % FLOWS_PER_HOST) as u16)
}

/// The remote end of a flow: an address of its own.
pub const fn remote(flow: u64) -> (Ipv4Addr, u16) {
    (scattered(CORRESPONDENT, flow, SCATTER), 443)
}

/// Whose remote address it is.
pub const fn flow(remote: Ipv4Addr) -> u64 {
    node(remote)
}

/// An external address of the NAPT, from 198.18.0.0 on.
pub const fn external(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(EXTERNAL + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_by_its_home_address_and_a_flow_by_its_remote_one() {
        for number in (0..MAX_NODES).step_by(977).chain([MAX_NODES - 1]) {
            assert_eq!(node(home(number)), number);
            assert_eq!(flow(remote(number).0), number);
        }
    }

    #[test]
    fn no_two_nodes_share_a_care_of_address() {
        let mut seen = vec![false; MAX_NODES as usize];
        for number in 0..MAX_NODES {
            let place = &mut seen[(care_of(number).to_bits() & MASK) as usize];
            assert!(!*place, "{number}");
            *place = true;
        }
    }
}
