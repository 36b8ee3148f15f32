//! An interface that a port shares with the kernel, made what the configuration says
//! and put back as it was found.
//!
//! Its addresses are the kernel's own, and so are ARP, ICMP and whatever else is not
//! claimed. What is there already stays, also afterwards; what is added goes again.
//! Routes of Homeport's (`proto 99`) by the interface are removed at both ends, so
//! that those that a killed process left do no harm.
//!
//! **Not done:** addresses that a killed process left are taken for the operator's by
//! the next one.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};

use super::KernelError;
use super::setup::{ROUTE_PROTOCOL, Setup, write_sysctl};

/// Sysctls of such an interface below `/proc/sys/net/ipv4/conf`.
///
/// * No reverse path filter: a visitor's source address belongs to no network here,
///   and the kernel must still answer its ARP requests and pings.
/// * No redirects: a node that visits shall not be told of other routers.
const SYSCTLS: [(&str, &str); 2] = [("rp_filter", "0"), ("send_redirects", "0")];

/// An interface that is put back as it was when this is dropped.
pub struct SharedLink {
    setup: Setup,
    name: String,
    index: u32,
    added: Vec<(Ipv4Addr, u8)>,
    sysctls: Vec<(&'static str, String)>,
}

impl SharedLink {
    /// Sets an interface up, with these addresses beside those that it has.
    ///
    /// # Errors
    /// There is no such interface, or what the kernel refused; then it is as before,
    /// but for being up.
    pub fn configure(name: &str, addresses: &[(Ipv4Addr, u8)]) -> Result<SharedLink, KernelError> {
        let setup = Setup::new()?;
        let index =
            setup.index_of(name)?.ok_or_else(|| KernelError::NoInterface(name.to_owned()))?;
        let mut link = SharedLink {
            setup,
            name: name.to_owned(),
            index,
            added: Vec::new(),
            sysctls: Vec::new(),
        };
        for (key, value) in SYSCTLS {
            link.set_sysctl(key, value)?;
        }
        let mut up = LinkMessage::default();
        up.header.index = index;
        up.header.flags = LinkFlags::Up;
        up.header.change_mask = LinkFlags::Up;
        let message = RouteNetlinkMessage::SetLink(up);
        link.setup.requests.request(&format!("setting {name} up"), message, 0)?;
        link.remove_routes()?;
        let there = link.addresses()?;
        for (address, prefix_len) in addresses {
            if !there.contains(&(*address, *prefix_len)) {
                link.setup.add_address(index, *address, *prefix_len)?;
                link.added.push((*address, *prefix_len));
            }
        }
        Ok(link)
    }

    /// The index of the interface.
    pub fn index(&self) -> u32 {
        self.index
    }

    fn set_sysctl(&mut self, key: &'static str, value: &str) -> Result<(), KernelError> {
        let path = sysctl(&self.name, key);
        let before =
            std::fs::read_to_string(&path).map_err(KernelError::io(format!("reading {path}")))?;
        if before.trim() != value {
            write_sysctl(&path, value)?;
            self.sysctls.push((key, before.trim().to_owned()));
        }
        Ok(())
    }

    fn addresses(&mut self) -> Result<Vec<(Ipv4Addr, u8)>, KernelError> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let message = RouteNetlinkMessage::GetAddress(message);
        let objects = self.setup.requests.dump("listing addresses", message)?;
        let addresses = objects.iter().filter_map(|object| match object {
            RouteNetlinkMessage::NewAddress(address) if address.header.index == self.index => {
                let local = address.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(IpAddr::V4(local)) => Some(*local),
                    _ => None,
                });
                Some((local?, address.header.prefix_len))
            }
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// Removes Homeport's routes by this interface.
    fn remove_routes(&mut self) -> Result<(), KernelError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let message = RouteNetlinkMessage::GetRoute(message);
        let index = self.index;
        for object in self.setup.requests.dump("listing routes", message)? {
            if let RouteNetlinkMessage::NewRoute(route) = object
                && route.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL)
                && route.attributes.contains(&RouteAttribute::Oif(index))
            {
                let what = "removing a route of an earlier run";
                let message = RouteNetlinkMessage::DelRoute(route);
                self.setup.requests.request(what, message, 0)?;
            }
        }
        Ok(())
    }
}

impl Drop for SharedLink {
    fn drop(&mut self) {
        let mut results = vec![self.remove_routes()];
        for (address, prefix_len) in std::mem::take(&mut self.added) {
            results.push(self.setup.remove_address(self.index, address, prefix_len));
        }
        for (key, value) in &self.sysctls {
            results.push(write_sysctl(&sysctl(&self.name, key), value));
        }
        for error in results.into_iter().filter_map(Result::err) {
            tracing::warn!(interface = self.name, %error, "the interface is not as it was");
        }
    }
}

/// What of the kernel's settings keeps it from forwarding what is not claimed, for
/// people.
pub fn forwarding_problems(name: &str) -> io::Result<Vec<String>> {
    let read = |path: String| std::fs::read_to_string(path).map(|text| text.trim().to_owned());
    let mut problems = Vec::new();
    if read(sysctl(name, "forwarding"))? == "0" {
        problems.push(format!(
            "the kernel does not forward what comes in by {name} and is not claimed, such as the \
             packets of nodes at home: sysctl -w net.ipv4.conf.{name}.forwarding=1"
        ));
    }
    if read(sysctl("all", "rp_filter"))? == "1" {
        problems.push(format!(
            "a strict reverse path filter keeps the kernel from answering visitors on {name}: \
             sysctl -w net.ipv4.conf.all.rp_filter=0"
        ));
    }
    Ok(problems)
}

fn sysctl(interface: &str, key: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{interface}/{key}")
}
