//! The host's kernel, as far as sessions change it.
//!
//! A device's or a command's address is a host route to its interface and a neighbour
//! there, whose link-layer address is known; a local one is on the tunnel, beside the home
//! address. Devices believe that their home prefix is on their link, so ARP is answered on
//! it for everybody else. At home the kernel answers ARP for them on the interface.
//!
//! Registration replies and DHCP messages for addresses that are not the host's own are
//! read off the link by packet sockets; two rules keep the kernel from forwarding them.
//!
//! Neighbours are known as ours by their protocol number, so that those which a killed
//! program has left behind are removed.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use homeport_proto::MacAddress;
use homeport_wire::MOBILE_IP_PORT;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};
use rustix::io::Errno;

use super::{GUARD_PREFERENCE, Host, neighbor_message, rule, sysctl, unless, write_sysctl};
use crate::kernel::KernelError;
use crate::kernel::setup::ROUTE_PROTOCOL;
use crate::mobile::dhcp::SERVER_PORT;
use crate::mobile::forwarding::{Neighbor, TABLE};

/// Sysctls of an interface with sessions on it, below `/proc/sys/net/ipv4/conf`.
///
/// * What comes in is forwarded, if it comes from an address that packets are sent to here:
///   a strict reverse path filter keeps devices to their own addresses.
/// * Devices take the home prefix for their link: ARP is answered for all that is not on
///   it, the host's own addresses on other interfaces included. Nobody is told of a
///   shorter way.
const SESSION_SYSCTLS: [(&str, &str); 5] = [
    ("forwarding", "1"),
    ("rp_filter", "1"),
    ("proxy_arp", "1"),
    ("arp_ignore", "0"),
    ("send_redirects", "0"),
];

/// The same of the interface that the node moves with.
pub(super) const ROAMING_SYSCTLS: [(&str, &str); 2] =
    [("forwarding", "1"), ("send_redirects", "0")];

/// Where the packets of a session go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To a station on another interface.
    Station {
        /// The interface's index.
        index: u32,
        /// The station's link-layer address.
        mac: MacAddress,
    },
    /// To this host.
    Here,
}

/// What sessions have made of the kernel.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// Whether interface and tunnel forward.
    pub(super) forwarding: bool,
    /// Whether ARP is answered for sessions on the interface.
    at_home: bool,
    places: BTreeMap<Ipv4Addr, Place>,
}

impl Host {
    /// Packets from and to sessions that are not on this host are forwarded from now on.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn forward_sessions(&mut self) -> Result<(), KernelError> {
        if self.placed.forwarding {
            return Ok(());
        }
        self.placed.forwarding = true;
        write_sysctl(&sysctl(&self.tunnel_name, "forwarding"), "1")?;
        // Redirects are sent if either says so: the interface's own, or this.
        self.change_sysctl(sysctl("all", "send_redirects"), "0")?;
        for path in self.roaming_sysctls() {
            self.remember(&path)?;
        }
        self.save()?;
        self.prepare_interface()
    }

    /// Makes a command's interface ready, which goes away with the command.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn serve_command_on(&self, interface: &str) -> Result<(), KernelError> {
        for (key, value) in SESSION_SYSCTLS {
            write_sysctl(&sysctl(interface, key), value)?;
        }
        write_sysctl(&proxy_delay(interface), "0")
    }

    /// Makes a LAN's interface ready; what it was like is written down before.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn serve_devices_on(&mut self, interface: &str) -> Result<(), KernelError> {
        for (key, value) in SESSION_SYSCTLS {
            self.change_sysctl(sysctl(interface, key), value)?;
        }
        self.change_sysctl(proxy_delay(interface), "0")
    }

    /// Keeps the kernel from forwarding registration replies for this port, which come for
    /// addresses that it does not have.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn keep_replies(&mut self, port: u16) -> Result<(), KernelError> {
        let ports = [
            RuleAttribute::SourcePortRange(only(MOBILE_IP_PORT)),
            RuleAttribute::DestinationPortRange(only(port)),
        ];
        self.add_guard(&self.interface.clone(), &ports)
    }

    /// The same for what a LAN's devices send to their DHCP server.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn keep_dhcp(&mut self, interface: &str) -> Result<(), KernelError> {
        self.add_guard(interface, &[RuleAttribute::DestinationPortRange(only(SERVER_PORT))])
    }

    /// Packets for a session's address go there from now on.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn place(&mut self, address: Ipv4Addr, place: Place) -> Result<(), KernelError> {
        match self.placed.places.insert(address, place) {
            Some(old) if old != place => self.take_away(address, old)?,
            _ => {}
        }
        self.put(address, place)
    }

    /// They go nowhere any more.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn displace(&mut self, address: Ipv4Addr) -> Result<(), KernelError> {
        match self.placed.places.remove(&address) {
            Some(place) => self.take_away(address, place),
            None => Ok(()),
        }
    }

    /// An interface was down, and all routes out of it have gone.
    ///
    /// # Errors
    /// The first refusal of the kernel; the rest was tried all the same.
    pub fn place_again(&mut self, interface: u32) -> Result<(), KernelError> {
        self.put_again(|index| index == interface)
    }

    /// The source of routes to sessions is another.
    pub(super) fn route_sessions_again(&mut self) -> Result<(), KernelError> {
        self.put_again(|_| true)
    }

    fn put_again(&mut self, on: impl Fn(u32) -> bool) -> Result<(), KernelError> {
        let mut result = Ok(());
        for (address, place) in self.placed.places.clone() {
            if matches!(place, Place::Station { index, .. } if on(index)) {
                result = result.and(self.put(address, place));
            }
        }
        result
    }

    /// Whether the interface is on the home link: there ARP is answered for sessions.
    ///
    /// # Errors
    /// The first refusal of the kernel; the rest was tried all the same.
    pub fn set_at_home(&mut self, at_home: bool) -> Result<(), KernelError> {
        if self.placed.at_home == at_home && !at_home {
            return Ok(());
        }
        self.placed.at_home = at_home;
        let mut result = Ok(());
        for (address, place) in self.placed.places.clone() {
            if matches!(place, Place::Station { .. }) {
                result = result.and(self.set_proxy(address, at_home));
            }
        }
        result
    }

    /// Whether the kernel hands datagrams for this address to sockets of this host.
    pub fn receives(&self, address: Ipv4Addr) -> bool {
        self.home == Some(address)
            || address.is_broadcast()
            || address.is_multicast()
            || self.current.addresses.iter().any(|(ours, _)| *ours == address)
            || self.placed.places.get(&address) == Some(&Place::Here)
    }

    /// The addresses of sessions on this host.
    pub fn local_sessions(&self) -> impl Iterator<Item = Ipv4Addr> {
        let places = self.placed.places.iter();
        places.filter(|(_, place)| **place == Place::Here).map(|(address, _)| *address)
    }

    /// Removes an interface that its owner has left behind.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn remove_link(&mut self, index: u32) -> Result<(), KernelError> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let message = RouteNetlinkMessage::DelLink(link);
        gone(self.requests.request("removing a command's interface", message, 0))
    }

    /// All of it.
    pub(super) fn displace_all(&mut self) -> Result<(), KernelError> {
        let mut result = Ok(());
        for (address, place) in std::mem::take(&mut self.placed.places) {
            result = result.and(self.take_away(address, place));
        }
        result
    }

    /// Neighbours of a killed program.
    pub(super) fn remove_stale_neighbors(&mut self) -> Result<(), KernelError> {
        for flags in [NeighbourFlags::empty(), NeighbourFlags::Proxy] {
            let mut all = NeighbourMessage::default();
            all.header.family = AddressFamily::Inet;
            all.header.flags = flags;
            let what = "listing neighbours";
            for object in self.requests.dump(what, RouteNetlinkMessage::GetNeighbour(all))? {
                if let RouteNetlinkMessage::NewNeighbour(neighbor) = object
                    && neighbor.attributes.contains(&ours())
                {
                    let message = RouteNetlinkMessage::DelNeighbour(neighbor);
                    gone(self.requests.request("removing a stale neighbour", message, 0))?;
                }
            }
        }
        Ok(())
    }

    /// What [`ROAMING_SYSCTLS`] and the delay of answers are called.
    fn roaming_sysctls(&self) -> Vec<PathBuf> {
        let names = ROAMING_SYSCTLS.iter().map(|(key, _)| sysctl(&self.interface, key));
        names.chain([proxy_delay(&self.interface)]).collect()
    }

    /// Makes the interface forward, if there are sessions.
    pub(super) fn prepare_forwarding(&self) -> Result<(), KernelError> {
        if !self.placed.forwarding {
            return Ok(());
        }
        for (key, value) in ROAMING_SYSCTLS {
            write_sysctl(&sysctl(&self.interface, key), value)?;
        }
        write_sysctl(&proxy_delay(&self.interface), "0")
    }

    fn change_sysctl(&mut self, path: PathBuf, value: &str) -> Result<(), KernelError> {
        if self.remember(&path)? {
            self.save()?;
        }
        write_sysctl(&path, value)
    }

    /// Notes a sysctl as it is; whether that is news.
    fn remember(&mut self, path: &PathBuf) -> Result<bool, KernelError> {
        if self.found.sysctls.iter().any(|(known, _)| known == path) {
            return Ok(false);
        }
        // An interface that is not there yet has none.
        let Ok(value) = fs::read_to_string(path) else { return Ok(false) };
        self.found.sysctls.push((path.clone(), value.trim().to_owned()));
        Ok(true)
    }

    fn put(&mut self, address: Ipv4Addr, place: Place) -> Result<(), KernelError> {
        let Place::Station { index, mac } = place else {
            return self.add_address(self.tunnel, (address, 32));
        };
        let mut neighbor = neighbor_message(index, Neighbor { address, mac });
        neighbor.attributes.push(ours());
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        let message = RouteNetlinkMessage::NewNeighbour(neighbor);
        self.requests.request(&format!("adding the neighbour {address}"), message, flags)?;
        let message = RouteNetlinkMessage::NewRoute(self.session_route(address, index));
        self.requests.request(&format!("setting the route to {address}"), message, flags)?;
        if self.placed.at_home { self.set_proxy(address, true) } else { Ok(()) }
    }

    fn take_away(&mut self, address: Ipv4Addr, place: Place) -> Result<(), KernelError> {
        let Place::Station { index, mac } = place else {
            return self.remove_address(self.tunnel, (address, 32));
        };
        let mut result = Ok(());
        if self.placed.at_home {
            result = self.set_proxy(address, false);
        }
        let message = RouteNetlinkMessage::DelRoute(self.session_route(address, index));
        let what = format!("removing the route to {address}");
        result = result.and(gone(self.requests.request(&what, message, 0)));
        let neighbor = neighbor_message(index, Neighbor { address, mac });
        let message = RouteNetlinkMessage::DelNeighbour(neighbor);
        let what = format!("removing the neighbour {address}");
        result.and(gone(self.requests.request(&what, message, 0)))
    }

    /// Whether the kernel answers ARP for this address on the interface.
    fn set_proxy(&mut self, address: Ipv4Addr, answer: bool) -> Result<(), KernelError> {
        let Some(index) = self.index else { return Ok(()) };
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = index;
        message.header.flags = NeighbourFlags::Proxy;
        message.header.kind = RouteType::Unicast;
        let destination = NeighbourAddress::Inet(address);
        message.attributes.push(NeighbourAttribute::Destination(destination));
        let what = format!("answering ARP for {address}");
        if answer {
            message.attributes.push(ours());
            let flags = NLM_F_CREATE | NLM_F_REPLACE;
            self.requests.request(&what, RouteNetlinkMessage::NewNeighbour(message), flags)
        } else {
            gone(self.requests.request(&what, RouteNetlinkMessage::DelNeighbour(message), 0))
        }
    }

    fn session_route(&self, address: Ipv4Addr, index: u32) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message.header.table = TABLE;
        message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
        message.header.kind = RouteType::Unicast;
        message.header.scope = RouteScope::Link;
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet(address)),
            RouteAttribute::Oif(index),
        ];
        let source = self.home.map(RouteAddress::Inet);
        message.attributes.extend(source.map(RouteAttribute::PrefSource));
        message
    }

    fn add_guard(&mut self, interface: &str, ports: &[RuleAttribute]) -> Result<(), KernelError> {
        let mut rule = rule(GUARD_PREFERENCE);
        rule.header.action = RuleAction::Blackhole;
        rule.attributes.push(RuleAttribute::Iifname(interface.to_owned()));
        rule.attributes.push(RuleAttribute::IpProtocol(IpProtocol::Udp));
        rule.attributes.extend_from_slice(ports);
        let message = RouteNetlinkMessage::NewRule(rule);
        unless(self.requests.request("adding a rule", message, NLM_F_CREATE), Errno::EXIST)
    }
}

/// How neighbours are known as ours.
const fn ours() -> NeighbourAttribute {
    NeighbourAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
}

const fn only(port: u16) -> RulePortRange {
    RulePortRange { start: port, end: port }
}

/// How long the answers to ARP for others are put off.
fn proxy_delay(interface: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/net/ipv4/neigh/{interface}/proxy_delay"))
}

/// It may have gone already, with its interface.
fn gone(result: Result<(), KernelError>) -> Result<(), KernelError> {
    [Errno::NOENT, Errno::SRCH, Errno::NODEV, Errno::NETDOWN].into_iter().fold(result, unless)
}
