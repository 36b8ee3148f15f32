//! The kernel's routes, local addresses and neighbours, followed: a full dump,
//! then deltas.
//!
//! The order makes it right: first subscribe, then dump, then apply every delta
//! that was heard since the subscription. A delta that the dump already shows
//! changes nothing; the last delta for an object wins, whatever the dump saw.
//! Where the kernel drops routes without a word (a link that goes down, an address
//! that is removed), and where it lost count (ENOBUFS), everything is dumped anew
//! and the difference is told.
//!
//! Only links that are kernel twins, or interfaces that a port shares with the
//! kernel, count: both are called twins below. Local addresses are those of the
//! kernel's `local` table on a twin or on `lo`, broadcast addresses included: what
//! the kernel itself takes for its own.
//!
//! **Not done:** policy routing (other tables than `main`), routes by TOS, and
//! more than the first hop of a multipath route.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_proto::config::Prefix;
use homeport_proto::{MacAddress, PortId};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_REPLACE, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::KernelError;
use super::socket::{Heard, Listener, Requests};

/// `RTNLGRP_LINK`, `RTNLGRP_NEIGH`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_ROUTE`.
const GROUPS: [u32; 4] = [1, 3, 5, 7];

/// Bytes of deltas that may wait: some ten thousand route changes.
const RECEIVE_BUFFER: i32 = 8 << 20;

/// The kernel's table of its own addresses (`RT_TABLE_LOCAL`).
const TABLE_LOCAL: u32 = 255;

/// Something to change in the dataplane's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A route, or none any more.
    Route(Prefix, Option<RouteEntry>),
    /// A usable neighbour, or none any more.
    Neighbor(NeighborKey, Option<NeighborEntry>),
    /// An address of the kernel, or none any more.
    Local(Ipv4Addr, Option<KernelLocal>),
    /// A twin is up, or down.
    Link(PortId, bool),
}

/// An address that the kernel takes for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelLocal {
    /// The broadcast address of a link.
    pub broadcast: bool,
}

/// Follows the kernel.
pub struct Mirror {
    listener: Listener,
    requests: Requests,
    view: View,
    told: Told,
    changes: VecDeque<Change>,
    stale: bool,
    resyncs: u64,
}

impl Mirror {
    /// Follows what concerns these twins, named and with their ports. The first
    /// changes are everything that the kernel has.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn new(twins: impl IntoIterator<Item = (String, PortId)>) -> Result<Self, KernelError> {
        Self::with_receive_buffer(twins, RECEIVE_BUFFER)
    }

    /// The same with room for `bytes` of waiting deltas.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn with_receive_buffer(
        twins: impl IntoIterator<Item = (String, PortId)>,
        bytes: i32,
    ) -> Result<Self, KernelError> {
        let mut mirror = Mirror {
            listener: Listener::new(&GROUPS, bytes)?,
            requests: Requests::new()?,
            view: View { twins: twins.into_iter().collect(), ..View::default() },
            told: Told::default(),
            changes: VecDeque::new(),
            stale: true,
            resyncs: 0,
        };
        mirror.resync()?;
        Ok(mirror)
    }

    /// Readable when something changed.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.listener.readiness()
    }

    /// Hears at most `budget` datagrams. Returns whether more may be waiting.
    ///
    /// # Errors
    /// When the kernel cannot be asked; the next call tries anew.
    pub fn poll(&mut self, budget: usize) -> Result<bool, KernelError> {
        let mut more = true;
        for _ in 0..budget {
            match self.listener.next()? {
                Heard::Messages(messages) => {
                    for message in messages {
                        self.apply(message);
                    }
                }
                Heard::Overflow => {
                    tracing::warn!("the kernel's route changes came too fast; dumping all anew");
                    self.stale = true;
                }
                Heard::Nothing => {
                    more = false;
                    break;
                }
            }
        }
        self.resync()?;
        Ok(more)
    }

    /// The next change to make, in order.
    pub fn next_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// How often everything was dumped, the first time included.
    pub fn resyncs(&self) -> u64 {
        self.resyncs
    }

    /// The interface index of a port's twin.
    pub fn index_of(&self, port: PortId) -> Option<u32> {
        self.view.links.iter().find(|(_, link)| link.port == port).map(|(index, _)| *index)
    }

    /// The neighbours that the kernel has not verified for a while, by link and
    /// address.
    pub fn stale_neighbors(&self) -> Vec<(u32, Ipv4Addr)> {
        let stale = |(key, neighbor): (&(u32, Ipv4Addr), &Neighbor)| {
            (neighbor.state == NeighbourState::Stale).then_some(*key)
        };
        self.view.neighbors.iter().filter_map(stale).collect()
    }

    /// Dumps everything when that is due, and tells the difference.
    fn resync(&mut self) -> Result<(), KernelError> {
        if !self.stale {
            return Ok(());
        }
        let mut view = View { twins: self.view.twins.clone(), ..View::default() };
        let link = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        let mut neighbor = NeighbourMessage::default();
        neighbor.header.family = AddressFamily::Inet;
        for (what, message) in [
            ("listing links", link),
            ("listing routes", RouteNetlinkMessage::GetRoute(route)),
            ("listing neighbours", RouteNetlinkMessage::GetNeighbour(neighbor)),
        ] {
            for object in self.requests.dump(what, message)? {
                view.apply(&object, NLM_F_APPEND);
            }
        }
        self.view = view;
        self.stale = false;
        self.resyncs += 1;
        self.told.replace(&self.view, &mut self.changes);
        Ok(())
    }

    fn apply(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) {
        let NetlinkPayload::InnerMessage(object) = message.payload else {
            return;
        };
        match self.view.apply(&object, message.header.flags) {
            Effect::Nothing => {}
            Effect::Resync => self.stale = true,
            // What a due dump will tell need not be told now.
            _ if self.stale => {}
            Effect::Route(prefix) => {
                let entry = self.view.route(prefix);
                if tell(&mut self.told.routes, prefix, entry) {
                    self.changes.push_back(Change::Route(prefix, entry));
                }
            }
            Effect::Local(address) => {
                let entry = self.view.local(address);
                if tell(&mut self.told.locals, address, entry) {
                    self.changes.push_back(Change::Local(address, entry));
                }
            }
            Effect::Neighbor(key) => {
                if let Some((key, entry)) = self.view.neighbor(key)
                    && tell(&mut self.told.neighbors, (key.port, key.address), entry)
                {
                    self.changes.push_back(Change::Neighbor(key, entry));
                }
            }
        }
    }
}

/// What a message of the kernel touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Nothing,
    Resync,
    Route(Prefix),
    Local(Ipv4Addr),
    Neighbor((u32, Ipv4Addr)),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    port: PortId,
    up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Neighbor {
    state: NeighbourState,
    mac: Option<MacAddress>,
}

/// Routes of one prefix are told apart by TOS and metric; the lowest wins.
type RouteKey = (Prefix, u8, u32);

/// What the kernel has, as far as it concerns the twins.
#[derive(Default)]
struct View {
    twins: BTreeMap<String, PortId>,
    /// `lo`, whose addresses are the kernel's on every link.
    loopback: Option<u32>,
    links: BTreeMap<u32, Link>,
    routes: BTreeMap<RouteKey, Vec<RouteEntry>>,
    locals: BTreeMap<Ipv4Addr, Vec<(u32, KernelLocal)>>,
    neighbors: BTreeMap<(u32, Ipv4Addr), Neighbor>,
}

impl View {
    fn apply(&mut self, message: &RouteNetlinkMessage, flags: u16) -> Effect {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.new_link(link),
            RouteNetlinkMessage::DelLink(link) => {
                if self.links.remove(&link.header.index).is_some() {
                    Effect::Resync
                } else {
                    Effect::Nothing
                }
            }
            // With its address go the routes that prefer it as a source, without
            // a word.
            RouteNetlinkMessage::DelAddress(address) => {
                if self.links.contains_key(&address.header.index) {
                    Effect::Resync
                } else {
                    Effect::Nothing
                }
            }
            RouteNetlinkMessage::NewRoute(route) => self.change_route(route, flags, true),
            RouteNetlinkMessage::DelRoute(route) => self.change_route(route, flags, false),
            RouteNetlinkMessage::NewNeighbour(neighbor) => self.change_neighbor(neighbor, true),
            RouteNetlinkMessage::DelNeighbour(neighbor) => self.change_neighbor(neighbor, false),
            _ => Effect::Nothing,
        }
    }

    fn new_link(&mut self, message: &LinkMessage) -> Effect {
        let index = message.header.index;
        let name = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        if message.header.flags.contains(LinkFlags::Loopback) {
            self.loopback.get_or_insert(index);
            return Effect::Nothing;
        }
        let Some(port) = name.and_then(|name| self.twins.get(name)).copied() else {
            // Renamed away, or never ours.
            let was_ours = self.links.remove(&index).is_some();
            return if was_ours { Effect::Resync } else { Effect::Nothing };
        };
        let link = Link { port, up: message.header.flags.contains(LinkFlags::Up) };
        if self.links.insert(index, link) == Some(link) { Effect::Nothing } else { Effect::Resync }
    }

    fn change_route(&mut self, message: &RouteMessage, flags: u16, present: bool) -> Effect {
        if message.header.address_family != AddressFamily::Inet
            || message.header.flags.contains(RouteFlags::Cloned)
        {
            return Effect::Nothing;
        }
        let route = RouteAttributes::of(message);
        let Some(prefix) = Prefix::new(
            route.destination.unwrap_or(Ipv4Addr::UNSPECIFIED),
            message.header.destination_prefix_length,
        ) else {
            return Effect::Nothing;
        };
        match route.table {
            TABLE_LOCAL => self.change_local(prefix, message.header.kind, &route, present),
            table if table == u32::from(RouteHeader::RT_TABLE_MAIN) => {
                let Some(entry) = self.route_entry(message.header.kind, &route) else {
                    return Effect::Nothing;
                };
                let key = (prefix, message.header.tos, route.metric);
                change_list(&mut self.routes, key, entry, flags, present);
                Effect::Route(prefix)
            }
            _ => Effect::Nothing,
        }
    }

    fn route_entry(&self, kind: RouteType, route: &RouteAttributes) -> Option<RouteEntry> {
        match kind {
            RouteType::Unicast => {
                let link = self.links.get(&route.link?)?;
                Some(RouteEntry::Via { port: link.port, gateway: route.gateway })
            }
            RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => {
                Some(RouteEntry::Unreachable)
            }
            _ => None,
        }
    }

    fn change_local(
        &mut self,
        prefix: Prefix,
        kind: RouteType,
        route: &RouteAttributes,
        present: bool,
    ) -> Effect {
        let address = prefix.address();
        let link = route.link.unwrap_or_default();
        let on_loopback = self.loopback == Some(link);
        if prefix.prefix_len() != 32
            || address.is_loopback()
            || !(on_loopback || self.links.contains_key(&link))
        {
            return Effect::Nothing;
        }
        let broadcast = match kind {
            RouteType::Local => false,
            RouteType::Broadcast if !on_loopback => true,
            _ => return Effect::Nothing,
        };
        let entry = (link, KernelLocal { broadcast });
        change_list(&mut self.locals, address, entry, NLM_F_APPEND, present);
        Effect::Local(address)
    }

    fn change_neighbor(&mut self, message: &NeighbourMessage, present: bool) -> Effect {
        let index = message.header.ifindex;
        if message.header.family != AddressFamily::Inet || !self.links.contains_key(&index) {
            return Effect::Nothing;
        }
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
            _ => None,
        });
        let Some(address) = address else {
            return Effect::Nothing;
        };
        let mac = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                bytes.as_slice().try_into().ok().map(MacAddress)
            }
            _ => None,
        });
        let key = (index, address);
        if present {
            self.neighbors.insert(key, Neighbor { state: message.header.state, mac });
        } else {
            self.neighbors.remove(&key);
        }
        Effect::Neighbor(key)
    }

    /// The route in force for a prefix.
    fn route(&self, prefix: Prefix) -> Option<RouteEntry> {
        self.routes
            .range((prefix, 0, 0)..=(prefix, u8::MAX, u32::MAX))
            .find_map(|(_, entries)| entries.first())
            .copied()
    }

    /// What an address is. An address of one link that is the broadcast address
    /// of another is a station's.
    fn local(&self, address: Ipv4Addr) -> Option<KernelLocal> {
        let entries = self.locals.get(&address)?;
        let broadcast = entries.iter().all(|(_, local)| local.broadcast);
        (!entries.is_empty()).then_some(KernelLocal { broadcast })
    }

    fn neighbor(
        &self,
        (index, address): (u32, Ipv4Addr),
    ) -> Option<(NeighborKey, Option<NeighborEntry>)> {
        let link = self.links.get(&index)?;
        let key = NeighborKey { port: link.port, address };
        let usable = self.neighbors.get(&(index, address)).filter(|neighbor| {
            matches!(
                neighbor.state,
                NeighbourState::Reachable
                    | NeighbourState::Stale
                    | NeighbourState::Delay
                    | NeighbourState::Probe
                    | NeighbourState::Permanent
                    | NeighbourState::Noarp
            )
        });
        // Multicast next hops (224.0.0.22) have entries of their own in the
        // kernel; the dataplane forwards none.
        let mac = usable.and_then(|neighbor| neighbor.mac).filter(|mac| mac.is_unicast());
        Some((key, mac.map(|mac| NeighborEntry { mac })))
    }
}

/// The attributes of a route that count.
struct RouteAttributes {
    table: u32,
    destination: Option<Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
    link: Option<u32>,
    metric: u32,
}

impl RouteAttributes {
    fn of(message: &RouteMessage) -> Self {
        let mut route = RouteAttributes {
            table: u32::from(message.header.table),
            destination: None,
            gateway: None,
            link: None,
            metric: 0,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(table) => route.table = *table,
                RouteAttribute::Destination(RouteAddress::Inet(to)) => {
                    route.destination = Some(*to);
                }
                RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => {
                    route.gateway = Some(*gateway);
                }
                RouteAttribute::Oif(index) => route.link = Some(*index),
                RouteAttribute::Priority(metric) => route.metric = *metric,
                RouteAttribute::MultiPath(hops) => {
                    if let Some(first) = hops.first() {
                        route.link = Some(first.interface_index);
                        route.gateway = first.attributes.iter().find_map(|hop| match hop {
                            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some(*gateway),
                            _ => None,
                        });
                    }
                }
                _ => {}
            }
        }
        route
    }
}

/// Keeps the objects of one key in the kernel's order: a new one replaces the
/// first, goes behind the others, or in front of them. One that is there already
/// stays where it is.
fn change_list<K: Ord, T: PartialEq>(
    lists: &mut BTreeMap<K, Vec<T>>,
    key: K,
    entry: T,
    flags: u16,
    present: bool,
) {
    let mut list = lists.remove(&key).unwrap_or_default();
    if !present {
        list.retain(|other| *other != entry);
    } else if flags & NLM_F_REPLACE != 0 {
        list.retain(|other| *other != entry);
        match list.first_mut() {
            Some(first) => *first = entry,
            None => list.push(entry),
        }
    } else if !list.contains(&entry) {
        let at = if flags & NLM_F_APPEND != 0 { list.len() } else { 0 };
        list.insert(at, entry);
    }
    if !list.is_empty() {
        lists.insert(key, list);
    }
}

/// What the reader of the changes was told.
#[derive(Default)]
struct Told {
    routes: BTreeMap<Prefix, RouteEntry>,
    locals: BTreeMap<Ipv4Addr, KernelLocal>,
    neighbors: BTreeMap<(PortId, Ipv4Addr), NeighborEntry>,
    links: BTreeMap<PortId, bool>,
}

impl Told {
    /// Tells the difference to a view, addresses and neighbours before the routes
    /// that lead to them.
    fn replace(&mut self, view: &View, changes: &mut VecDeque<Change>) {
        let links = view.links.values().map(|link| (link.port, link.up)).collect();
        let locals = view.locals.keys().filter_map(|at| Some((*at, view.local(*at)?))).collect();
        let neighbors = view
            .neighbors
            .keys()
            .filter_map(|key| view.neighbor(*key))
            .filter_map(|(key, entry)| Some(((key.port, key.address), entry?)))
            .collect();
        let routes = view
            .routes
            .keys()
            .filter_map(|(prefix, ..)| Some((*prefix, view.route(*prefix)?)))
            .collect();
        difference(&mut self.links, links, |port, up| {
            // A twin that is gone is down.
            changes.push_back(Change::Link(port, up.unwrap_or(false)));
        });
        difference(&mut self.locals, locals, |address, entry| {
            changes.push_back(Change::Local(address, entry));
        });
        difference(&mut self.neighbors, neighbors, |(port, address), entry| {
            changes.push_back(Change::Neighbor(NeighborKey { port, address }, entry));
        });
        difference(&mut self.routes, routes, |prefix, entry| {
            changes.push_back(Change::Route(prefix, entry));
        });
    }
}

/// Makes `told` the same as `wanted` and calls `tell` for each key that differs.
fn difference<K: Ord + Copy, V: PartialEq + Copy>(
    told: &mut BTreeMap<K, V>,
    wanted: BTreeMap<K, V>,
    mut tell: impl FnMut(K, Option<V>),
) {
    for key in told.keys().filter(|key| !wanted.contains_key(key)) {
        tell(*key, None);
    }
    for (key, value) in &wanted {
        if told.get(key) != Some(value) {
            tell(*key, Some(*value));
        }
    }
    *told = wanted;
}

/// Notes what is told about one key. Returns whether it is new.
fn tell<K: Ord, V: PartialEq + Copy>(told: &mut BTreeMap<K, V>, key: K, entry: Option<V>) -> bool {
    match entry {
        Some(value) => told.insert(key, value) != Some(value),
        None => told.remove(&key).is_some(),
    }
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
