//! What the kernel would tell the dataplane, where there is none: addresses and routes
//! of the config, neighbours that the capture shows.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_proto::config::Prefix;
use homeport_proto::{MacAddress, PortId};
use homeport_wire::{ArpPacket, EtherType, EthernetHeader, Ipv4Header};
use zerocopy::FromBytes;

use crate::config::Config;
use crate::kernel::{Change, KernelLocal};

/// Neighbours that are learnt from one capture; beyond it, none.
const MAX_NEIGHBORS: usize = 8_192;

/// The kernel of a replay.
pub(super) struct Kernel {
    /// The prefixes on each port's link.
    links: Vec<Vec<Prefix>>,
    neighbors: BTreeMap<(PortId, Ipv4Addr), MacAddress>,
    /// Neighbours that were told of on the command line.
    given: BTreeMap<Ipv4Addr, MacAddress>,
    /// Next hops that packets waited for in vain.
    unknown: BTreeMap<(PortId, Ipv4Addr), u64>,
}

impl Kernel {
    pub(super) fn new(config: &Config, given: &[(Ipv4Addr, MacAddress)]) -> Kernel {
        let links = config
            .ports
            .iter()
            .map(|port| port.addresses.iter().filter_map(|address| address.prefix()).collect())
            .collect();
        Kernel {
            links,
            neighbors: BTreeMap::new(),
            given: given.iter().copied().collect(),
            unknown: BTreeMap::new(),
        }
    }

    /// Everything that it knows from the config.
    pub(super) fn start(config: &Config) -> Vec<Change> {
        let mut changes = Vec::new();
        for port in &config.ports {
            changes.push(Change::Link(port.id, true));
            for address in &port.addresses {
                let local = |broadcast| Some(KernelLocal { broadcast });
                changes.push(Change::Local(address.address, local(false)));
                let Some(prefix) = address.prefix() else { continue };
                let on_link = RouteEntry::Via { port: port.id, gateway: None };
                changes.push(Change::Route(prefix, Some(on_link)));
                if prefix.prefix_len() < 31 {
                    changes.push(Change::Local(prefix.broadcast(), local(true)));
                }
            }
        }
        for route in &config.routes {
            let via = RouteEntry::Via { port: route.port, gateway: Some(route.gateway) };
            changes.push(Change::Route(route.destination, Some(via)));
        }
        changes
    }

    /// Learns from a frame that a port received: who sends from an address of the link
    /// is there.
    pub(super) fn learn(&mut self, port: PortId, frame: &[u8]) -> Option<Change> {
        let (ethernet, rest) = EthernetHeader::ref_from_prefix(frame).ok()?;
        let (address, mac) = match ethernet.ether_type() {
            EtherType::IPV4 => {
                let (header, _) = Ipv4Header::ref_from_prefix(rest).ok()?;
                (header.source(), ethernet.source)
            }
            EtherType::ARP => {
                let arp = ArpPacket::new_checked(rest).ok()?;
                (arp.sender_address(), arp.sender_mac)
            }
            _ => return None,
        };
        let links = self.links.get(usize::from(port.0))?;
        if !mac.is_unicast() || !links.iter().any(|link| link.contains(address)) {
            return None;
        }
        let arp = ethernet.ether_type() == EtherType::ARP;
        self.note(port, address, mac, arp)
    }

    /// A next hop that a packet waits for.
    pub(super) fn resolve(&mut self, port: PortId, address: Ipv4Addr) -> Option<Change> {
        if let Some(mac) = self.given.get(&address) {
            return self.note(port, address, *mac, false);
        }
        if self.unknown.len() < MAX_NEIGHBORS || self.unknown.contains_key(&(port, address)) {
            *self.unknown.entry((port, address)).or_default() += 1;
        }
        None
    }

    /// A neighbour, which only ARP moves to another station.
    fn note(
        &mut self,
        port: PortId,
        address: Ipv4Addr,
        mac: MacAddress,
        moves: bool,
    ) -> Option<Change> {
        let known = self.neighbors.get(&(port, address));
        if known == Some(&mac)
            || known.is_some() && !moves
            || known.is_none() && self.neighbors.len() >= MAX_NEIGHBORS
        {
            return None;
        }
        self.neighbors.insert((port, address), mac);
        self.unknown.remove(&(port, address));
        Some(Change::Neighbor(NeighborKey { port, address }, Some(NeighborEntry { mac })))
    }

    /// Next hops that packets waited for in vain: the port, the address, how often.
    pub(super) fn unknown(&self) -> impl Iterator<Item = (PortId, Ipv4Addr, u64)> {
        self.unknown.iter().map(|((port, address), count)| (*port, *address, *count))
    }
}
