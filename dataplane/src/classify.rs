//! The second stage: names each packet. Pure functions from bytes and table
//! readers to a class; nothing here changes a packet or a counter.

use std::net::Ipv4Addr;

use homeport_wire::icmpv4::{DESTINATION_UNREACHABLE, ROUTER_SOLICITATION, TIME_EXCEEDED};
use homeport_wire::{
    ArpOperation, ArpPacket, EthernetHeader, IpProtocol, MOBILE_IP_PORT, MacAddress, PortId,
    TenantId,
};

use crate::broadcast::{ListenerKey, MAX_LISTENERS};
use crate::decap;
use crate::parse::Ipv4Facts;
use crate::table::binding::{BindingEntry, BindingKey, Encapsulation, TunnelEnd};
use crate::table::classes::AddressClasses;
use crate::table::hash::Reader;
use crate::table::local::{LocalEntry, LocalKey};
use crate::table::lpm::RouteReader;
use crate::table::neighbor::{NeighborEntry, NeighborKey};
use crate::table::route::RouteEntry;
use crate::table::source_route::SourceRouteReader;
use crate::table::visitor::{Found, VisitorEntry, VisitorReader};
use crate::tunnel_icmp::quotes_an_agent;
use crate::verdict::{DropReason, PuntReason};

mod tunnelled;
mod visitor;

pub(crate) use visitor::sender;
use visitor::{Way, may_be_anothers, reached_directly, way};

pub use tunnelled::{ReverseEnd, TunnelClass, classify_tunnelled};

/// ICMP parameter problem (RFC 792).
const PARAMETER_PROBLEM: u8 = 12;

/// All mobility agents (RFC 5944 §3.6.1.1).
const ALL_MOBILITY_AGENTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 11);

/// The tenant of the underlay: links that all tenants share.
pub const UNDERLAY: TenantId = TenantId(0);

/// Whether one tenant's packets may use what is another's: its own is always its,
/// and the underlay is everybody's.
pub const fn may_reach(tenant: TenantId, owner: TenantId) -> bool {
    tenant.0 == owner.0 || tenant.0 == UNDERLAY.0 || owner.0 == UNDERLAY.0
}

/// The tables as one worker reads them.
pub struct Tables {
    /// What an address may be: bound, a visitor's, ours, or nothing that is known here.
    pub classes: AddressClasses,
    /// Home agents' bindings.
    pub bindings: Reader<BindingKey, BindingEntry>,
    /// Bound nodes that get their home link's broadcasts.
    pub listeners: Reader<ListenerKey, BindingKey>,
    /// Foreign agents' visitors.
    pub visitors: VisitorReader,
    /// Addresses of this box.
    pub locals: Reader<LocalKey, LocalEntry>,
    /// Routes.
    pub routes: RouteReader,
    /// Visitors' source-restricted routes.
    pub source_routes: SourceRouteReader,
    /// Next hops' link-layer addresses.
    pub neighbors: Reader<NeighborKey, NeighborEntry>,
}

impl Tables {
    /// The binding of a home address.
    pub fn binding(&self, tenant: TenantId, home_address: Ipv4Addr) -> Option<&BindingEntry> {
        self.bindings.lookup(&BindingKey { tenant, home_address })
    }

    /// The binding that an address is reached by: its own, or that of the mobile
    /// router which it is behind (RFC 5177).
    pub fn bound(&self, tenant: TenantId, address: Ipv4Addr) -> Option<Bound<'_>> {
        if let Some(entry) = self.binding(tenant, address) {
            return Some(Bound { home_address: address, entry });
        }
        match self.routes.lookup(tenant, address)? {
            RouteEntry::MobileRouter { home_address } => {
                let entry = self.binding(tenant, home_address)?;
                Some(Bound { home_address, entry })
            }
            RouteEntry::Via { .. } | RouteEntry::Unreachable => None,
        }
    }

    /// The bindings that get the broadcasts of a link, with their home addresses.
    pub fn listeners(&self, port: PortId) -> impl Iterator<Item = (&BindingKey, &BindingEntry)> {
        (0..MAX_LISTENERS)
            .map_while(move |slot| self.listeners.lookup(&ListenerKey { port, slot }))
            .filter_map(|key| Some((key, self.bindings.lookup(key)?)))
    }

    /// The address of ours, if packets of `tenant` may reach it: its own tenant's
    /// and those of the shared underlay may, another tenant's may not.
    pub fn local(&self, tenant: TenantId, address: Ipv4Addr) -> Option<&LocalEntry> {
        let entry = self.locals.lookup(&LocalKey { address })?;
        may_reach(tenant, entry.tenant).then_some(entry)
    }

    /// The link-layer address of a next hop.
    pub fn neighbor(&self, port: PortId, address: Ipv4Addr) -> Option<MacAddress> {
        self.neighbors.lookup(&NeighborKey { port, address }).map(|entry| entry.mac)
    }

    /// Says that no entry found before is still used: the burst is done.
    pub fn quiescent(&mut self) {
        self.bindings.quiescent();
        self.listeners.quiescent();
        self.visitors.quiescent();
        self.locals.quiescent();
        self.routes.quiescent();
        self.source_routes.quiescent();
        self.neighbors.quiescent();
    }

    /// Says that nothing is looked up until [`Tables::online`]: the worker sleeps.
    pub fn offline(&mut self) {
        self.bindings.offline();
        self.listeners.offline();
        self.visitors.offline();
        self.locals.offline();
        self.routes.offline();
        self.source_routes.offline();
        self.neighbors.offline();
    }

    /// Ends [`Tables::offline`].
    pub fn online(&mut self) {
        self.bindings.online();
        self.listeners.online();
        self.visitors.online();
        self.locals.online();
        self.routes.online();
        self.source_routes.online();
        self.neighbors.online();
    }
}

/// A binding, and the home address that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound<'t> {
    /// The node's home address: what the packet is for, or the mobile router's that
    /// this is behind.
    pub home_address: Ipv4Addr,
    /// The binding.
    pub entry: &'t BindingEntry,
}

/// How a packet came to be where it is.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// Received on a link.
    Link {
        /// The port.
        port: PortId,
        /// The link header that it came with.
        ethernet: EthernetHeader,
    },
    /// Taken out of a tunnel.
    Tunnel,
    /// Ours: made here, injected, or sent by the kernel of this box.
    Own,
}

impl Origin {
    /// Whether sending it on is forwarding, which costs it one of its TTL
    /// (RFC 1812 §5.3.1).
    pub const fn is_forwarded(&self) -> bool {
        !matches!(self, Origin::Own)
    }

    /// Whether it came to a group of stations.
    pub const fn is_link_group(&self) -> bool {
        matches!(self, Origin::Link { ethernet, .. } if ethernet.destination.is_multicast())
    }
}

/// What an ARP packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpClass {
    /// A question for the home address of a node that is away: answered here.
    Answer,
    /// The kernel's business.
    ToKernel,
}

/// What an IPv4 packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class<'t> {
    /// Nothing that may go on.
    Drop(DropReason),
    /// For the protocol machines.
    Punt(PuntReason, TenantId),
    /// For this box, but not for us.
    ToKernel,
    /// For every station of its link: the kernel, and nodes that are away and
    /// asked for it.
    Broadcast,
    /// A tunnel of ours ends here.
    Decapsulate(&'t LocalEntry),
    /// A fragment of what may be tunnelled to this address.
    Reassemble(&'t LocalEntry),
    /// An ICMP error about a packet that the agent at this address sent, or seems to
    /// have sent.
    TunnelError(&'t LocalEntry),
    /// From a visitor whose packets go back to its home agent.
    ReverseTunnel(&'t VisitorEntry),
    /// For a node that is away from home.
    Tunnel(Bound<'t>),
    /// For a visitor: no route is asked, and no ARP.
    Deliver(&'t VisitorEntry),
    /// From a visitor, to be routed by its destination behind the NAPT with this
    /// number.
    Translate(&'t VisitorEntry, u16),
    /// To be routed by its destination.
    Forward,
}

/// What an ARP packet that came in on `port`, or from its kernel twin, is (B-06).
pub fn classify_arp(arp: &ArpPacket, port: PortId, tenant: TenantId, tables: &Tables) -> ArpClass {
    let (sender, target) = (arp.sender_address(), arp.target_address());
    // The node itself asks for or announces its own address when it comes home;
    // an answer would make it believe that another station has it (RFC 5944 §4.6,
    // RFC 5227 §2.1.1: a probe's sender is zero).
    let by_the_node = sender == target || sender.is_unspecified();
    let has_an_address = arp.sender_mac.is_unicast();
    let home_link = || tables.binding(tenant, target).and_then(|binding| binding.home_link());
    if arp.operation() == ArpOperation::REQUEST
        && !by_the_node
        && has_an_address
        && home_link() == Some(port)
    {
        ArpClass::Answer
    } else {
        ArpClass::ToKernel
    }
}

/// What the IPv4 packet in `bytes` is. `tenant` is the tenant of the link that it
/// came from, or of the tunnel that it was taken out of.
pub fn classify<'t>(
    facts: &Ipv4Facts,
    bytes: &[u8],
    origin: &Origin,
    tenant: TenantId,
    tables: &'t Tables,
) -> Class<'t> {
    if let Some(reason) = martian(facts, origin, tenant, tables) {
        return Class::Drop(reason);
    }
    let local = tables.local(tenant, facts.destination);
    let is_broadcast = facts.destination.is_broadcast() || local.is_some_and(|to| to.broadcast);
    if is_broadcast || facts.destination.is_multicast() {
        return classify_group(facts, origin, tenant);
    }
    if let Some(local) = local {
        return match classify_local(facts, bytes, origin, local) {
            // The kernel answers to an address, and that is another's too.
            Class::ToKernel if may_be_anothers(facts.source, origin, tenant, tables) => {
                Class::Drop(DropReason::OverlappingVisitor)
            }
            class => class,
        };
    }
    // What was sent to a group of stations is not forwarded (RFC 1812 §5.3.4),
    // nor is what has no meaning beyond a link.
    let link_only = |address: Ipv4Addr| {
        address.is_link_local() || address.is_loopback() || address.is_unspecified()
    };
    if origin.is_link_group() || link_only(facts.destination) || link_only(facts.source) {
        return Class::Drop(DropReason::NotForwarded);
    }
    match sender(facts.source, origin, tenant, tables) {
        Err(reason) => return Class::Drop(reason),
        Ok(Some(visitor)) => match way(visitor, facts, tenant, tables) {
            Way::Tunnel => return Class::ReverseTunnel(visitor),
            Way::Closed => return Class::Drop(DropReason::ReverseTunnelNotGranted),
            // A node whose home agent is here is no local correspondent.
            Way::Local(Some(napt))
                if facts.destination == facts.source
                    || tables.binding(tenant, facts.destination).is_none() =>
            {
                return Class::Translate(visitor, napt);
            }
            Way::Local(_) => {}
        },
        Ok(None) => {
            if let Some(visitor) = reached_directly(facts, origin, tenant, tables) {
                return Class::Deliver(visitor);
            }
        }
    }
    // Our own signalling is never tunnelled (RFC 3519 §4.7): it goes to where the
    // node's request came from.
    let is_own = matches!(origin, Origin::Own);
    if is_own && facts.is_signalling() {
        return Class::Forward;
    }
    // The foreign agent keeps a visitor's UDP tunnel alive on its behalf (RFC 3519
    // §4.9: the end of the tunnel that is not the home agent sends keepalives).
    if is_own
        && let Found::Visitor(visitor) =
            tables.visitors.of_home_agent(tenant, facts.source, facts.destination)
    {
        return Class::ReverseTunnel(visitor);
    }
    // A visitor is reached directly by what was decapsulated or made here. What
    // others send to its home address on a link goes the road to its home network.
    // So does all that is for an address which another may have too: only the home
    // agent's tunnel says which of them is meant.
    if !matches!(origin, Origin::Link { .. })
        && let Some(visitor) = tables.visitors.alone_at(tenant, facts.destination)
    {
        return Class::Deliver(visitor);
    }
    match tables.binding(tenant, facts.destination) {
        Some(entry) if loops(facts, bytes, is_own, entry) => Class::Drop(DropReason::TunnelLoop),
        Some(entry) => Class::Tunnel(Bound { home_address: facts.destination, entry }),
        None => Class::Forward,
    }
}

/// Whether the source is one that no packet may have (RFC 1812 §5.3.7).
pub(crate) fn martian(
    facts: &Ipv4Facts,
    origin: &Origin,
    tenant: TenantId,
    tables: &Tables,
) -> Option<DropReason> {
    let source = facts.source;
    if matches!(origin, Origin::Own) {
        return None;
    }
    if source.is_multicast() || source.is_broadcast() || source.is_loopback() {
        return Some(DropReason::MartianSource);
    }
    // Zero is the source of a station that has no address yet: it may speak to its
    // link, and out of a tunnel it has no meaning.
    if source.is_unspecified() {
        return matches!(origin, Origin::Tunnel).then_some(DropReason::MartianSource);
    }
    // Most sources are none of ours for certain.
    let is_ours = tables.locals.may_have(source) && tables.local(tenant, source).is_some();
    is_ours.then_some(DropReason::MartianSource)
}

/// A broadcast or multicast packet: for the agents, or for the kernel.
fn classify_group<'t>(facts: &Ipv4Facts, origin: &Origin, tenant: TenantId) -> Class<'t> {
    if !matches!(origin, Origin::Link { .. }) {
        return Class::Drop(DropReason::NotForwarded);
    }
    let to_agents = !facts.destination.is_multicast() || facts.destination == ALL_MOBILITY_AGENTS;
    match (facts.udp_ports, facts.icmp_type) {
        (Some((_, MOBILE_IP_PORT)), _) if to_agents && facts.is_tunnel_data() => {
            Class::Drop(DropReason::NotForwarded)
        }
        (Some((_, MOBILE_IP_PORT)), _) if to_agents => {
            Class::Punt(PuntReason::Registration, tenant)
        }
        (_, Some(ROUTER_SOLICITATION)) => Class::Punt(PuntReason::Solicitation, tenant),
        // A station without an address has nothing to say beyond its link, and
        // neither have groups of the link itself.
        _ if is_link_group(facts.destination) || facts.source.is_unspecified() => Class::ToKernel,
        _ => Class::Broadcast,
    }
}

/// Whether a group is one of the local network control block, 224.0.0.0/24, which
/// never leaves its link (RFC 5771 §4).
const fn is_link_group(destination: Ipv4Addr) -> bool {
    matches!(destination.octets(), [224, 0, 0, _])
}

/// A packet to an address of ours.
fn classify_local<'t>(
    facts: &Ipv4Facts,
    bytes: &[u8],
    origin: &Origin,
    local: &'t LocalEntry,
) -> Class<'t> {
    let ends_tunnels = local.home_agent || local.care_of_address;
    let serves = ends_tunnels || local.agent;
    let to_our_port = facts.udp_ports.is_some_and(|(_, to)| to == MOBILE_IP_PORT);
    let may_end_here = match facts.protocol {
        IpProtocol::IP_IN_IP | IpProtocol::UDP => serves,
        IpProtocol::MINIMAL | IpProtocol::GRE => ends_tunnels,
        _ => false,
    };
    // Only the whole says what it is.
    if facts.fragment && may_end_here && !origin.is_link_group() {
        return Class::Reassemble(local);
    }
    let is_tunnelled = match facts.protocol {
        IpProtocol::IP_IN_IP => true,
        // Where no agent is, they may be the kernel's.
        IpProtocol::MINIMAL | IpProtocol::GRE => ends_tunnels,
        _ => serves && to_our_port && facts.is_tunnel_data(),
    };
    if is_tunnelled {
        // The agent's address on the visited link ends the tunnels of encapsulating
        // delivery (RFC 3024 §5.2), which are IP in IP.
        let ends_here = ends_tunnels || (local.agent && facts.protocol == IpProtocol::IP_IN_IP);
        return match () {
            () if !ends_here => Class::Drop(DropReason::UnknownTunnel),
            () if origin.is_link_group() => Class::Drop(DropReason::NotForwarded),
            () => Class::Decapsulate(local),
        };
    }
    let payload = || bytes.get(usize::from(facts.header_len)..).unwrap_or_default();
    match (facts.udp_ports, facts.icmp_type) {
        (Some((_, MOBILE_IP_PORT)), _) if serves => {
            Class::Punt(PuntReason::Registration, local.tenant)
        }
        (_, Some(ROUTER_SOLICITATION)) => Class::Punt(PuntReason::Solicitation, local.tenant),
        (_, Some(DESTINATION_UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM))
            if ends_tunnels && quotes_an_agent(payload(), facts.destination) =>
        {
            Class::TunnelError(local)
        }
        _ => Class::ToKernel,
    }
}

/// Whether a packet that `entry` would lead away comes from the very end of the tunnel
/// that would carry it.
pub(crate) fn loops(facts: &Ipv4Facts, bytes: &[u8], is_own: bool, entry: &BindingEntry) -> bool {
    let from_its_end = || entry.tunnels().iter().any(|end| is_end(facts, end));
    // RFC 2003 §3.2: the source must be neither the tunnel's exit nor ourselves.
    // What this box itself sends has its address rightly.
    if !is_own && (from_its_end() || facts.source == entry.home_agent) {
        return true;
    }
    // RFC 5944 §4.2.3: already encapsulated, for the node itself, by its current
    // care-of address: it was there and came back.
    facts.may_be_tunnelled()
        && from_its_end()
        && bytes
            .get(usize::from(facts.header_len)..)
            .and_then(|payload| decap::open(facts, payload).ok())
            .is_some_and(|(opened, _)| opened.inner.destination == facts.destination)
}

/// Whether a packet was sent by the other end of a tunnel. The address of a NAT is
/// that of many: only with the port it is one.
fn is_end(facts: &Ipv4Facts, end: &TunnelEnd) -> bool {
    let same_port = match end.encapsulation() {
        Encapsulation::Udp { peer_port } | Encapsulation::PlainUdp { peer_port } => {
            facts.udp_ports.is_some_and(|(from, _)| from == peer_port)
        }
        Encapsulation::IpInIp | Encapsulation::Minimal | Encapsulation::Gre { .. } => true,
    };
    end.care_of_address() == facts.source && same_port
}
