//! Making a port's kernel twin what the configuration says.
//!
//! A twin carries the port's MAC, MTU and addresses, so that the kernel speaks on
//! the port's link as on an interface of its own. It never forwards: plain IPv4
//! that crosses the box is the dataplane's.

use std::net::{IpAddr, Ipv4Addr};

use homeport_proto::MacAddress;
use homeport_proto::config::Prefix;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use rustix::net::{AddressFamily as SocketFamily, SocketType, netdevice, socket};

use super::KernelError;
use super::socket::Requests;

/// The protocol number of routes that Homeport adds: `ip route show proto 99`.
pub const ROUTE_PROTOCOL: u8 = 99;

/// What a kernel twin shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    /// Name of the TAP, which exists.
    pub name: String,
    /// The port's link-layer address.
    pub mac: MacAddress,
    /// The port's MTU in bytes.
    pub mtu: u16,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<(Ipv4Addr, u8)>,
}

/// Sysctls of a twin below `/proc/sys/net/ipv4/conf`.
///
/// * It does not forward, whatever the host does elsewhere, and sends and heeds no
///   redirects.
/// * It answers ARP for its own addresses only (`arp_ignore`) and asks in their
///   name only (`arp_announce`): one kernel has the twins of many links.
/// * No reverse path filter: what arrives may be answered through another twin.
const SYSCTLS: [(&str, &str); 6] = [
    ("forwarding", "0"),
    ("send_redirects", "0"),
    ("accept_redirects", "0"),
    ("rp_filter", "0"),
    ("arp_ignore", "1"),
    ("arp_announce", "2"),
];

/// Changes links, addresses and routes of the kernel.
pub struct Setup {
    pub(super) requests: Requests,
}

impl Setup {
    /// # Errors
    /// When no netlink socket is to be had.
    pub fn new() -> Result<Self, KernelError> {
        Ok(Setup { requests: Requests::new()? })
    }

    /// The index of an interface, or `None` when there is none of this name.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn index_of(&self, name: &str) -> Result<Option<u32>, KernelError> {
        let failed = |errno: Errno| KernelError::io(format!("looking up {name}"))(errno.into());
        let socket = socket(SocketFamily::INET, SocketType::DGRAM, None).map_err(failed)?;
        match netdevice::name_to_index(socket, name) {
            Ok(index) => Ok(Some(index)),
            Err(Errno::NODEV) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Gives a twin its sysctls, MAC, MTU and addresses, and sets it up. Returns
    /// its interface index.
    ///
    /// # Errors
    /// [`KernelError::NoInterface`] when there is no such TAP; else what the
    /// kernel refused.
    pub fn configure(&mut self, twin: &Twin) -> Result<u32, KernelError> {
        let name = &twin.name;
        let index = self.index_of(name)?.ok_or_else(|| KernelError::NoInterface(name.clone()))?;
        // A kernel without IPv6 has no such file and needs none.
        let ipv6 = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        if std::fs::exists(&ipv6).unwrap_or(false) {
            write_sysctl(&ipv6, "1")?;
        }
        for (key, value) in SYSCTLS {
            write_sysctl(&format!("/proc/sys/net/ipv4/conf/{name}/{key}"), value)?;
        }
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        let MacAddress(mac) = twin.mac;
        link.attributes.push(LinkAttribute::Address(mac.to_vec()));
        link.attributes.push(LinkAttribute::Mtu(u32::from(twin.mtu)));
        let what = format!("setting {name} up with MAC {} and MTU {}", twin.mac, twin.mtu);
        self.requests.request(&what, RouteNetlinkMessage::SetLink(link), 0)?;
        for (address, prefix_len) in &twin.addresses {
            self.add_address(index, *address, *prefix_len)?;
        }
        Ok(index)
    }

    /// Puts an address on a link.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn add_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix_len: u8,
    ) -> Result<(), KernelError> {
        let mut message = address_message(index, address, prefix_len);
        // RFC 3021: a /31 has no broadcast address; a /32 has nobody to hear one.
        if prefix_len < 31
            && let Some(prefix) = Prefix::new(address, prefix_len)
        {
            message.attributes.push(AddressAttribute::Broadcast(prefix.broadcast()));
        }
        let what = format!("adding the address {address}/{prefix_len}");
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.requests.request(&what, RouteNetlinkMessage::NewAddress(message), flags)
    }

    /// Takes an address off a link; one that is not there is as good as gone.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn remove_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix_len: u8,
    ) -> Result<(), KernelError> {
        let message = address_message(index, address, prefix_len);
        let what = format!("removing the address {address}/{prefix_len}");
        let removed = self.requests.request(&what, RouteNetlinkMessage::DelAddress(message), 0);
        unless(removed, Errno::ADDRNOTAVAIL)
    }

    /// Adds a route through a link. One that exists, whoever made it, is not
    /// replaced.
    ///
    /// # Errors
    /// What the kernel refused: the route exists, the gateway is on no link.
    pub fn add_route(
        &mut self,
        destination: Prefix,
        gateway: Option<Ipv4Addr>,
        index: u32,
    ) -> Result<(), KernelError> {
        let message = route_message(destination, gateway, index);
        let what = format!("adding the route to {destination}");
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.requests.request(&what, RouteNetlinkMessage::NewRoute(message), flags)
    }

    /// Gives a route that [`add_route`](Self::add_route) added another next hop, in
    /// one step.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn replace_route(
        &mut self,
        destination: Prefix,
        gateway: Option<Ipv4Addr>,
        index: u32,
    ) -> Result<(), KernelError> {
        let message = route_message(destination, gateway, index);
        let what = format!("replacing the route to {destination}");
        self.requests.request(&what, RouteNetlinkMessage::NewRoute(message), NLM_F_REPLACE)
    }

    /// Removes a route that [`add_route`](Self::add_route) added; one that is not
    /// there is as good as gone.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn remove_route(
        &mut self,
        destination: Prefix,
        gateway: Option<Ipv4Addr>,
        index: u32,
    ) -> Result<(), KernelError> {
        let message = route_message(destination, gateway, index);
        let what = format!("removing the route to {destination}");
        let removed = self.requests.request(&what, RouteNetlinkMessage::DelRoute(message), 0);
        unless(removed, Errno::SRCH)
    }
}

fn unless(result: Result<(), KernelError>, harmless: Errno) -> Result<(), KernelError> {
    match result {
        Err(error) if error.has_code(harmless) => Ok(()),
        result => result,
    }
}

fn address_message(index: u32, address: Ipv4Addr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = index;
    message.header.prefix_len = prefix_len;
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Address(IpAddr::V4(address)));
    message.attributes.push(AddressAttribute::Local(IpAddr::V4(address)));
    message
}

fn route_message(destination: Prefix, gateway: Option<Ipv4Addr>, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    message.header.scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(destination.address())));
    if let Some(gateway) = gateway {
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    }
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

pub(super) fn write_sysctl(path: &str, value: &str) -> Result<(), KernelError> {
    std::fs::write(path, value).map_err(KernelError::io(format!("writing {value} to {path}")))
}
