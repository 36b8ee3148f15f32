//! The host's kernel, driven by rtnetlink and `/proc`: taken over at the start,
//! made to forward as the attachment says, and left as it was found.
//!
//! What the interface had of its own (IPv4 addresses, routes, sysctls) is written
//! to a file before it is changed, so that a program that comes after a killed one
//! still knows what to put back.
//!
//! **Not done:** neighbours that were there before; settings that somebody else
//! changes while the program runs are overwritten at the end.

mod found;
mod sessions;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use homeport_proto::MacAddress;
use homeport_proto::config::Prefix;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

pub use sessions::Place;

use self::found::{Found, from_hex, hex};
use self::sessions::Placed;
use super::forwarding::{Device, Forwarding, Neighbor, Route, TABLE};
use crate::kernel::KernelError;
use crate::kernel::setup::ROUTE_PROTOCOL;
use crate::kernel::socket::Requests;

/// Preference of the rule that lets the main table decide, but for its default
/// route; the next is that of [`TABLE`].
const RULE_PREFERENCE: u32 = 98;

/// Preference of the rules that keep from being forwarded what is for this program.
const GUARD_PREFERENCE: u32 = RULE_PREFERENCE - 1;

/// The table of local and broadcast addresses (`RT_TABLE_LOCAL`).
const LOCAL_TABLE: u8 = 255;

/// Sysctls below `/proc/sys/net/ipv4/conf`, of the interface and of the tunnel.
///
/// * Packets for the home address come in by one interface, and the answers go
///   out by another: the reverse path filter must be loose.
/// * ARP is answered for addresses on the interface only, and asked in their name
///   only: never for the home address while away (RFC 5944 §4.6).
const INTERFACE_SYSCTLS: [(&str, &str); 4] =
    [("rp_filter", "2"), ("arp_ignore", "1"), ("arp_announce", "2"), ("accept_redirects", "0")];
const TUNNEL_SYSCTLS: [(&str, &str); 1] = [("rp_filter", "2")];

/// The bytes of a TCP segment's headers, which the MTU has and the MSS has not.
const TCP_HEADERS: u16 = 40;

/// The host's kernel, as far as a mobile node changes it.
pub struct Host {
    requests: Requests,
    interface: String,
    /// Index of the interface; `None` while there is none.
    index: Option<u32>,
    tunnel_name: String,
    tunnel: u32,
    /// The node's home address; `None` before there is one.
    home: Option<Ipv4Addr>,
    placed: Placed,
    found: Found,
    state_file: PathBuf,
    current: Forwarding,
}

impl Host {
    /// Looks at the host and writes down what it finds: removes what a killed
    /// program left behind, and puts `home`, if there is one yet, on the tunnel. Nothing
    /// that is the host's own is changed yet.
    ///
    /// # Errors
    /// What the kernel refused, or that the state file cannot be written.
    pub fn open(
        interface: &str,
        tunnel: &str,
        home: Option<Ipv4Addr>,
        state_file: &Path,
    ) -> Result<Self, KernelError> {
        let mut host = Host {
            requests: Requests::new()?,
            interface: interface.to_owned(),
            index: index_of(interface),
            tunnel_name: tunnel.to_owned(),
            tunnel: index_of(tunnel).ok_or_else(|| KernelError::NoInterface(tunnel.to_owned()))?,
            home,
            placed: Placed::default(),
            found: Found::default(),
            state_file: state_file.to_owned(),
            current: Forwarding::default(),
        };
        host.remove_leftovers()?;
        // The home address comes first: it may be the one that the interface has,
        // and sockets use it.
        for (key, value) in TUNNEL_SYSCTLS {
            write_sysctl(&sysctl(tunnel, key), value)?;
        }
        if let Some(home) = home {
            host.add_address(host.tunnel, (home, 32))?;
        }
        host.found = match host.saved() {
            Some(found) => found,
            None => host.look()?,
        };
        host.save()?;
        Ok(host)
    }

    /// Takes over: sets aside what the interface has of its own, makes the kernel
    /// forward as `first` says, and sends everything that way. Whatever comes of
    /// it, [`restore`](Self::restore) undoes it.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn take_over(&mut self, first: &Forwarding) -> Result<(), KernelError> {
        self.clear_interface()?;
        self.prepare_interface()?;
        // First where packets go, then the rules that send them there.
        self.apply(first)?;
        for rule in rules() {
            let message = RouteNetlinkMessage::NewRule(rule);
            let added = self.requests.request("adding a rule", message, NLM_F_CREATE);
            unless(added, Errno::EXIST)?;
        }
        Ok(())
    }

    /// Index of the interface.
    pub const fn index(&self) -> Option<u32> {
        self.index
    }

    /// The interface went away, or came (back) as another.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn set_index(&mut self, index: Option<u32>) -> Result<(), KernelError> {
        if self.index == index {
            return Ok(());
        }
        self.index = index;
        // All that was on it went with it.
        self.current.addresses.clear();
        self.current.neighbors.clear();
        self.current.routes.retain(|route| route.device == Device::Tunnel);
        if index.is_some() {
            self.clear_interface()?;
            self.prepare_interface()?;
        }
        Ok(())
    }

    /// Makes the kernel forward so. What stays the same is not touched; what
    /// changes is replaced in one step; what goes is removed last.
    ///
    /// # Errors
    /// The first refusal of the kernel; the rest was tried all the same.
    pub fn apply(&mut self, wanted: &Forwarding) -> Result<(), KernelError> {
        let mut result = Ok(());
        let mut note = |outcome: Result<(), KernelError>| {
            if let (Ok(()), Err(error)) = (&result, outcome) {
                result = Err(error);
            }
        };
        let old = std::mem::replace(&mut self.current, wanted.clone());
        let index = self.index;
        if let Some(index) = index {
            for address in missing(&wanted.addresses, &old.addresses) {
                note(self.add_address(index, *address));
            }
            for neighbor in missing(&wanted.neighbors, &old.neighbors) {
                note(self.add_neighbor(index, *neighbor));
            }
        }
        for route in missing(&wanted.routes, &old.routes) {
            note(self.replace_route(route));
        }
        let destinations = |routes: &[Route]| -> Vec<Prefix> {
            routes.iter().map(|route| route.destination).collect()
        };
        let kept = destinations(&wanted.routes);
        for route in old.routes.iter().rev().filter(|route| !kept.contains(&route.destination)) {
            note(self.remove_route(route));
        }
        if let Some(index) = index {
            let kept: Vec<Ipv4Addr> = wanted.neighbors.iter().map(|n| n.address).collect();
            for neighbor in old.neighbors.iter().filter(|n| !kept.contains(&n.address)) {
                note(self.remove_neighbor(index, *neighbor));
            }
            for address in missing(&old.addresses, &wanted.addresses) {
                note(self.remove_address(index, *address));
            }
        }
        result
    }

    /// The node's home address is `home` from now on, and the kernel forwards as `wanted`
    /// says. The old one goes last: routes go with their source.
    ///
    /// # Errors
    /// The first refusal of the kernel; the rest was tried all the same.
    pub fn use_home_address(
        &mut self,
        home: Option<Ipv4Addr>,
        wanted: &Forwarding,
    ) -> Result<(), KernelError> {
        let old = std::mem::replace(&mut self.home, home);
        let mut result = Ok(());
        if let Some(home) = home {
            result = self.add_address(self.tunnel, (home, 32));
        }
        result = result.and(self.route_sessions_again()).and(self.apply(wanted));
        match old.filter(|old| home != Some(*old)) {
            Some(old) => result.and(self.remove_address(self.tunnel, (old, 32))),
            None => result,
        }
    }

    /// What [`apply`](Self::apply) made of the kernel last.
    pub const fn current(&self) -> &Forwarding {
        &self.current
    }

    /// Leaves the host as it was found. The tunnel goes with its descriptor.
    ///
    /// # Errors
    /// The first refusal of the kernel; the rest was tried all the same.
    pub fn restore(mut self) -> Result<(), KernelError> {
        let mut result = self.disengage().and(self.displace_all());
        result = result.and(self.apply(&Forwarding::default())).and(self.clear_interface());
        for (path, value) in &self.found.sysctls {
            // An interface that has gone has taken them with it.
            if path.exists() {
                result = result.and(write_sysctl(path, value));
            }
        }
        for bytes in &self.found.addresses {
            let Some(address) = from_hex::<AddressMessage>(bytes) else {
                continue;
            };
            let message = RouteNetlinkMessage::NewAddress(address);
            let flags = NLM_F_CREATE | NLM_F_REPLACE;
            result = result.and(self.requests.request("putting an address back", message, flags));
        }
        for bytes in &self.found.routes {
            let Some(route) = from_hex::<RouteMessage>(bytes) else {
                continue;
            };
            let message = RouteNetlinkMessage::NewRoute(route);
            let added = self.requests.request("putting a route back", message, NLM_F_CREATE);
            // The kernel has put the routes of addresses back itself.
            result = result.and(unless(added, Errno::EXIST));
        }
        match fs::remove_file(&self.state_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let what = format!("removing {}", self.state_file.display());
                result.and(Err(KernelError::io(what)(error)))
            }
            _ => result,
        }
    }
}

/// Taking over.
impl Host {
    /// What a killed program left behind: its rules and its table. Its tunnel went
    /// with it, and what is on the interface is cleared with all else.
    fn remove_leftovers(&mut self) -> Result<(), KernelError> {
        self.disengage()?;
        let mut all = RouteMessage::default();
        all.header.address_family = AddressFamily::Inet;
        for object in self.requests.dump("listing routes", RouteNetlinkMessage::GetRoute(all))? {
            if let RouteNetlinkMessage::NewRoute(route) = object
                && route.header.table == TABLE
            {
                let message = RouteNetlinkMessage::DelRoute(route);
                let removed = self.requests.request("removing a stale route", message, 0);
                unless(removed, Errno::SRCH)?;
            }
        }
        self.remove_stale_neighbors()
    }

    fn disengage(&mut self) -> Result<(), KernelError> {
        let mut result = Ok(());
        for preference in GUARD_PREFERENCE..=RULE_PREFERENCE + 1 {
            // Several, also when two programs ran; none, at the first start.
            loop {
                let message = RouteNetlinkMessage::DelRule(rule(preference));
                match self.requests.request("removing a rule", message, 0) {
                    Ok(()) => {}
                    Err(error) if error.has_code(Errno::NOENT) => break,
                    Err(error) => {
                        result = result.and(Err(error));
                        break;
                    }
                }
            }
        }
        result
    }

    /// What the interface has of its own.
    fn look(&mut self) -> Result<Found, KernelError> {
        let mut found = self.identity();
        for (key, _) in INTERFACE_SYSCTLS {
            let path = sysctl(&self.interface, key);
            if let Ok(value) = fs::read_to_string(&path) {
                found.sysctls.push((path, value.trim().to_owned()));
            }
        }
        let Some(index) = self.index else { return Ok(found) };
        found.addresses = self.addresses_on(index)?.iter().map(hex).collect();
        let mut routes = self.routes_on(index)?;
        // A next hop can only be given back when the route to it is there.
        routes.sort_by_key(|route| u8::from(route.header.scope) != u8::from(RouteScope::Link));
        found.routes = routes.iter().map(hex).collect();
        Ok(found)
    }

    /// Takes every IPv4 address and route off the interface.
    fn clear_interface(&mut self) -> Result<(), KernelError> {
        let Some(index) = self.index else { return Ok(()) };
        for route in self.routes_on(index)? {
            let message = RouteNetlinkMessage::DelRoute(route);
            let removed = self.requests.request("setting a route aside", message, 0);
            unless(removed, Errno::SRCH)?;
        }
        for address in self.addresses_on(index)? {
            let message = RouteNetlinkMessage::DelAddress(address);
            let removed = self.requests.request("setting an address aside", message, 0);
            // Secondary addresses go with the first one of their prefix.
            unless(removed, Errno::ADDRNOTAVAIL)?;
        }
        for neighbor in self.neighbors_on(index)? {
            let message = RouteNetlinkMessage::DelNeighbour(neighbor);
            let removed = self.requests.request("removing a stale neighbour", message, 0);
            unless(removed, Errno::NOENT)?;
        }
        Ok(())
    }

    /// Sets the sysctls, and puts an address on the interface that stays there.
    /// Nobody uses it; but of an interface without any, Linux takes no packet
    /// under a reverse path filter, not even a loose one (`last_resort` in
    /// net/ipv4/fib_frontend.c). It is link-local (RFC 3927), by the MAC.
    fn prepare_interface(&mut self) -> Result<(), KernelError> {
        let Some(index) = self.index else { return Ok(()) };
        for (key, value) in INTERFACE_SYSCTLS {
            write_sysctl(&sysctl(&self.interface, key), value)?;
        }
        self.prepare_forwarding()?;
        let mac = homeport_dataplane::port::interface::mac(&self.interface).unwrap_or_default();
        let MacAddress([.., x, y]) = mac;
        // The first and the last 256 of 169.254/16 are reserved (RFC 3927 §2.1).
        let placeholder = Ipv4Addr::new(169, 254, x.clamp(1, 254), y);
        self.add_address(index, (placeholder, 32))
    }

    fn addresses_on(&mut self, index: u32) -> Result<Vec<AddressMessage>, KernelError> {
        let mut all = AddressMessage::default();
        all.header.family = AddressFamily::Inet;
        let objects =
            self.requests.dump("listing addresses", RouteNetlinkMessage::GetAddress(all))?;
        let of_interface = objects.into_iter().filter_map(|object| match object {
            RouteNetlinkMessage::NewAddress(address) if address.header.index == index => {
                Some(address)
            }
            _ => None,
        });
        Ok(of_interface.collect())
    }

    /// Unicast routes out of the interface, but for those of the local table,
    /// which the kernel makes of addresses.
    fn routes_on(&mut self, index: u32) -> Result<Vec<RouteMessage>, KernelError> {
        let mut all = RouteMessage::default();
        all.header.address_family = AddressFamily::Inet;
        let objects = self.requests.dump("listing routes", RouteNetlinkMessage::GetRoute(all))?;
        let of_interface = objects.into_iter().filter_map(|object| match object {
            RouteNetlinkMessage::NewRoute(route)
                if route.header.kind == RouteType::Unicast
                    && ![LOCAL_TABLE, TABLE].contains(&route.header.table)
                    && route.attributes.contains(&RouteAttribute::Oif(index)) =>
            {
                Some(route)
            }
            _ => None,
        });
        Ok(of_interface.collect())
    }

    /// Permanent neighbours, as only configuration makes them.
    fn neighbors_on(&mut self, index: u32) -> Result<Vec<NeighbourMessage>, KernelError> {
        let mut all = NeighbourMessage::default();
        all.header.family = AddressFamily::Inet;
        let objects =
            self.requests.dump("listing neighbours", RouteNetlinkMessage::GetNeighbour(all))?;
        let of_interface = objects.into_iter().filter_map(|object| match object {
            RouteNetlinkMessage::NewNeighbour(neighbor)
                if neighbor.header.ifindex == index
                    && neighbor.header.state == NeighbourState::Permanent =>
            {
                Some(neighbor)
            }
            _ => None,
        });
        Ok(of_interface.collect())
    }
}

/// One object at a time.
impl Host {
    fn add_address(&mut self, index: u32, address: (Ipv4Addr, u8)) -> Result<(), KernelError> {
        let message = RouteNetlinkMessage::NewAddress(address_message(index, address));
        let what = format!("adding the address {}", address.0);
        self.requests.request(&what, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn remove_address(&mut self, index: u32, address: (Ipv4Addr, u8)) -> Result<(), KernelError> {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, address));
        let removed =
            self.requests.request(&format!("removing the address {}", address.0), message, 0);
        unless(removed, Errno::ADDRNOTAVAIL)
    }

    fn add_neighbor(&mut self, index: u32, neighbor: Neighbor) -> Result<(), KernelError> {
        let message = RouteNetlinkMessage::NewNeighbour(neighbor_message(index, neighbor));
        let what = format!("adding the neighbour {}", neighbor.address);
        self.requests.request(&what, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn remove_neighbor(&mut self, index: u32, neighbor: Neighbor) -> Result<(), KernelError> {
        let message = RouteNetlinkMessage::DelNeighbour(neighbor_message(index, neighbor));
        let what = format!("removing the neighbour {}", neighbor.address);
        unless(self.requests.request(&what, message, 0), Errno::NOENT)
    }

    fn replace_route(&mut self, route: &Route) -> Result<(), KernelError> {
        let Some(message) = self.route_message(route) else { return Ok(()) };
        let what = format!("setting the route to {}", route.destination);
        let message = RouteNetlinkMessage::NewRoute(message);
        self.requests.request(&what, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn remove_route(&mut self, route: &Route) -> Result<(), KernelError> {
        let Some(message) = self.route_message(route) else { return Ok(()) };
        let what = format!("removing the route to {}", route.destination);
        // The kernel may have taken it with the interface, or with its source.
        unless(self.requests.request(&what, RouteNetlinkMessage::DelRoute(message), 0), Errno::SRCH)
    }

    fn route_message(&self, route: &Route) -> Option<RouteMessage> {
        let device = match route.device {
            Device::Interface => self.index?,
            Device::Tunnel => self.tunnel,
        };
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = route.destination.prefix_len();
        message.header.table = TABLE;
        message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
        message.header.kind = RouteType::Unicast;
        message.header.scope =
            if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
        let attributes = &mut message.attributes;
        if route.destination.prefix_len() > 0 {
            let destination = RouteAddress::Inet(route.destination.address());
            attributes.push(RouteAttribute::Destination(destination));
        }
        if let Some(gateway) = route.gateway {
            // Its address need be in no prefix of ours (RFC 5944 §4.2.1).
            message.header.flags = RouteFlags::Onlink;
            attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        }
        let source = route.source.map(RouteAddress::Inet);
        attributes.extend(source.map(RouteAttribute::PrefSource));
        attributes.push(RouteAttribute::Oif(device));
        if let Some(mtu) = route.mtu {
            attributes.push(RouteAttribute::Metrics(vec![
                RouteMetric::Mtu(u32::from(mtu)),
                RouteMetric::Advmss(u32::from(mtu.saturating_sub(TCP_HEADERS))),
            ]));
        }
        Some(message)
    }
}

/// Makes the tunnel ready: up, and without IPv6.
///
/// # Errors
/// What the kernel refused.
pub fn set_up_tunnel(name: &str) -> Result<(), homeport_dataplane::port::interface::PortError> {
    use homeport_dataplane::port::interface;
    interface::set_ipv6_disabled(name, true)?;
    interface::set_up(name, true)
}

/// Tells the kernel the tunnel's MTU in bytes; its routes say it too.
///
/// # Errors
/// What the kernel refused.
pub fn set_tunnel_mtu(
    name: &str,
    mtu: u16,
) -> Result<(), homeport_dataplane::port::interface::PortError> {
    homeport_dataplane::port::interface::set_mtu(name, mtu)
}

/// The kernel's number of an interface; `None` when there is none.
pub fn index_of(name: &str) -> Option<u32> {
    let index = homeport_dataplane::port::interface::index(name).ok()?;
    u32::try_from(index).ok()
}

fn rules() -> [RuleMessage; 2] {
    let to_table = |preference: u32, table: u8, more: Option<RuleAttribute>| {
        let mut rule = rule(preference);
        rule.header.table = table;
        rule.header.action = RuleAction::ToTable;
        rule.attributes.extend(more);
        rule
    };
    [
        // What the host routes elsewhere by more than a default route stays.
        to_table(
            RULE_PREFERENCE,
            RouteHeader::RT_TABLE_MAIN,
            Some(RuleAttribute::SuppressPrefixLen(0)),
        ),
        to_table(RULE_PREFERENCE + 1, TABLE, None),
    ]
}

/// Any rule of ours with this preference.
fn rule(preference: u32) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = AddressFamily::Inet;
    rule.attributes.push(RuleAttribute::Priority(preference));
    rule.attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL)));
    rule
}

fn address_message(index: u32, (address, prefix_len): (Ipv4Addr, u8)) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = index;
    message.header.prefix_len = prefix_len;
    if address.is_link_local() {
        message.header.scope = AddressScope::Link;
    }
    message.attributes.push(AddressAttribute::Address(IpAddr::V4(address)));
    message.attributes.push(AddressAttribute::Local(IpAddr::V4(address)));
    message.attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
    message
}

fn neighbor_message(index: u32, neighbor: Neighbor) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    let address = NeighbourAddress::Inet(neighbor.address);
    message.attributes.push(NeighbourAttribute::Destination(address));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbor.mac.0.to_vec()));
    message
}

fn missing<'a, T: PartialEq>(wanted: &'a [T], present: &'a [T]) -> impl Iterator<Item = &'a T> {
    wanted.iter().filter(move |item| !present.contains(item))
}

fn unless(result: Result<(), KernelError>, harmless: Errno) -> Result<(), KernelError> {
    match result {
        Err(error) if error.has_code(harmless) => Ok(()),
        result => result,
    }
}

fn sysctl(interface: &str, key: &str) -> PathBuf {
    // A point in a name is written as a slash in the names of sysctl(8), but the
    // file has the interface's name as it is.
    PathBuf::from(format!("/proc/sys/net/ipv4/conf/{interface}/{key}"))
}

fn write_sysctl(path: &Path, value: &str) -> Result<(), KernelError> {
    fs::write(path, value)
        .map_err(KernelError::io(format!("writing {value} to {}", path.display())))
}
