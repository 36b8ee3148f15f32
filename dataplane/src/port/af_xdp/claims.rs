//! What the dataplane claims of the frames that AF_XDP ports see: three maps in the
//! kernel that the control core writes and the program of each port reads.
//!
//! A claim is a promise that the dataplane knows what to do with the packet: what is
//! claimed, the kernel does not see.

use std::io;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use homeport_wire::{PortId, TenantId};

use super::bpf::{Map, MapKind, wire};

/// An agent answers here: registrations, and IP in IP.
pub(super) const IS_AGENT: u32 = 1;
/// GRE and minimal encapsulation end here.
pub(super) const IS_TUNNEL_END: u32 = 2;
/// The broadcast address of a link.
pub(super) const IS_BROADCAST: u32 = 4;
/// A range of ports is a NAPT's.
pub(super) const IS_TRANSLATED: u32 = 8;

/// Packets to it are taken.
pub(super) const IS_DESTINATION: u32 = 1;
/// Packets from it are taken.
pub(super) const IS_SOURCE: u32 = 2;
/// ARP requests for it are taken, on its home link.
pub(super) const PROXY_ARP: u32 = 4;

/// The most local addresses and prefixes.
const MAX_LOCALS: u32 = 1 << 16;
const MAX_PREFIXES: u32 = 1 << 20;

/// What an address of this box is. All that it does not claim is the kernel's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalClaim {
    /// An agent's address: registrations and IP in IP.
    pub agent: bool,
    /// A home agent's or a care-of address: GRE and minimal encapsulation too.
    pub tunnel_end: bool,
    /// The broadcast address of a link: registrations and solicitations.
    pub broadcast: bool,
    /// The ports and ICMP identifiers that are a NAPT's.
    pub translated: Option<RangeInclusive<u16>>,
}

/// What is claimed of a node, or of the addresses of a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeClaim {
    /// Packets to it.
    pub destination: bool,
    /// Packets from it.
    pub source: bool,
    /// ARP requests for it on this port.
    pub home_link: Option<PortId>,
}

impl NodeClaim {
    /// Whether nothing is claimed.
    pub fn is_empty(&self) -> bool {
        *self == NodeClaim::default()
    }

    fn value(&self) -> [u8; 8] {
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let flags = flag(self.destination, IS_DESTINATION)
            | flag(self.source, IS_SOURCE)
            | flag(self.home_link.is_some(), PROXY_ARP);
        let link = self.home_link.map_or(0, |port| u32::from(port.0));
        join(flags.to_ne_bytes(), link.to_ne_bytes())
    }

    fn from_value([a, b, c, d, link @ ..]: [u8; 8]) -> NodeClaim {
        let flags = u32::from_ne_bytes([a, b, c, d]);
        // Ports are numbered with 16 bits.
        let link = PortId(u32::from_ne_bytes(link) as u16);
        NodeClaim {
            destination: flags & IS_DESTINATION != 0,
            source: flags & IS_SOURCE != 0,
            home_link: (flags & PROXY_ARP != 0).then_some(link),
        }
    }
}

/// The claims of all AF_XDP ports of a process.
#[derive(Debug)]
pub struct Claims {
    locals: Map,
    nodes: Map,
    prefixes: Map,
}

impl Claims {
    /// Nothing is claimed, of at most so many nodes. Memory is taken as they come.
    ///
    /// # Errors
    /// The process may not make maps (CAP_BPF and CAP_NET_ADMIN).
    pub fn new(nodes: u32) -> io::Result<Claims> {
        Ok(Claims {
            locals: Map::new(MapKind::Hash, 4, 8, MAX_LOCALS)?,
            nodes: Map::new(MapKind::Hash, 8, 8, nodes.max(1))?,
            prefixes: Map::new(MapKind::Trie, 12, 8, MAX_PREFIXES)?,
        })
    }

    /// Says what an address of this box is; `None`: it is none of this box.
    ///
    /// # Errors
    /// There are too many.
    pub fn set_local(&self, address: Ipv4Addr, claim: Option<&LocalClaim>) -> io::Result<()> {
        let Some(claim) = claim else { return self.locals.remove(&wire(address)) };
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let flags = flag(claim.agent, IS_AGENT)
            | flag(claim.tunnel_end, IS_TUNNEL_END)
            | flag(claim.broadcast, IS_BROADCAST)
            | flag(claim.translated.is_some(), IS_TRANSLATED);
        let (first, last) = claim.translated.clone().map_or((0, 0), RangeInclusive::into_inner);
        let range: [u8; 4] = join(first.to_ne_bytes(), last.to_ne_bytes());
        self.locals.set(&wire(address), &join::<4, 8>(flags.to_ne_bytes(), range))
    }

    /// Says what is claimed of a node of a tenant; an empty claim takes it away.
    ///
    /// # Errors
    /// There are too many.
    pub fn set_node(
        &self,
        tenant: TenantId,
        address: Ipv4Addr,
        claim: NodeClaim,
    ) -> io::Result<()> {
        let key: [u8; 8] = join(tenant.0.to_ne_bytes(), wire(address));
        if claim.is_empty() {
            self.nodes.remove(&key)
        } else {
            self.nodes.set(&key, &claim.value())
        }
    }

    /// Says what is claimed of the destinations of a prefix; an empty claim takes it
    /// away.
    ///
    /// # Errors
    /// There are too many.
    pub fn set_prefix(
        &self,
        tenant: TenantId,
        prefix: (Ipv4Addr, u8),
        claim: NodeClaim,
    ) -> io::Result<()> {
        let (address, len) = prefix;
        let node: [u8; 8] = join(tenant.0.to_ne_bytes(), wire(address));
        let key: [u8; 12] = join((32 + u32::from(len)).to_ne_bytes(), node);
        if claim.is_empty() {
            self.prefixes.remove(&key)
        } else {
            self.prefixes.set(&key, &claim.value())
        }
    }

    /// What is claimed of a node, by itself or by the longest prefix that it is in.
    pub fn of_node(&self, tenant: TenantId, address: Ipv4Addr) -> NodeClaim {
        let node: [u8; 8] = join(tenant.0.to_ne_bytes(), wire(address));
        let key: [u8; 12] = join(64u32.to_ne_bytes(), node);
        let value = self.nodes.get(&node).or_else(|_| self.prefixes.get(&key));
        value.map(NodeClaim::from_value).unwrap_or_default()
    }

    /// What is claimed of an address of this box; `None`: it is none.
    pub fn of_local(&self, address: Ipv4Addr) -> Option<LocalClaim> {
        let [a, b, c, d, first @ .., e, f] = self.locals.get::<8>(&wire(address)).ok()?;
        let flags = u32::from_ne_bytes([a, b, c, d]);
        let range = u16::from_ne_bytes(first)..=u16::from_ne_bytes([e, f]);
        Some(LocalClaim {
            agent: flags & IS_AGENT != 0,
            tunnel_end: flags & IS_TUNNEL_END != 0,
            broadcast: flags & IS_BROADCAST != 0,
            translated: (flags & IS_TRANSLATED != 0).then_some(range),
        })
    }

    pub(super) fn locals(&self) -> &Map {
        &self.locals
    }

    pub(super) fn nodes(&self) -> &Map {
        &self.nodes
    }

    pub(super) fn prefixes(&self) -> &Map {
        &self.prefixes
    }
}

/// Two arrays as one, which has room for both.
fn join<const A: usize, const N: usize>(a: [u8; A], b: impl AsRef<[u8]>) -> [u8; N] {
    let mut all = [0; N];
    for (to, from) in all.iter_mut().zip(a.iter().chain(b.as_ref())) {
        *to = *from;
    }
    all
}
