//! What the kernel must hold so that the host forwards as an attachment says:
//! routes, neighbours and addresses, as values, and the tunnel in userspace.
//!
//! All routes are in a table of their own ([`TABLE`]), which two rules put before
//! the main table's default route. So nothing of the host's own routing is
//! touched, and what a killed process left behind is known by its table.

use std::net::Ipv4Addr;

use homeport_proto::config::{MobileNodeConfig, Prefix};
use homeport_proto::mobile_node::{Attachment, CoLocated};
use homeport_proto::{MacAddress, ReverseTunnel};

/// The routing table of the mobile node: `ip route show table 99`.
pub const TABLE: u8 = 99;

/// Bytes that IP in IP adds to a packet (RFC 2003 §3).
const OVERHEAD: u16 = 20;

/// The MTU of every attachment, in bytes: what fits the tunnel over Ethernet, at
/// home too, so that no connection is ever too wide for a later attachment.
pub const MTU: u16 = 1500 - OVERHEAD;

/// Which interface something is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The one that the node moves with.
    Interface,
    /// The tunnel.
    Tunnel,
}

/// A route of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: Prefix,
    /// The next hop, which is on the link; `None` when the destination is.
    pub gateway: Option<Ipv4Addr>,
    /// Out of which interface.
    pub device: Device,
    /// The source address of packets that have none yet.
    pub source: Ipv4Addr,
    /// The largest packet, where it is not the interface's.
    pub mtu: Option<u16>,
}

/// A neighbour on the interface whose link-layer address is known, not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its link-layer address.
    pub mac: MacAddress,
}

/// A tunnel in userspace: IP in IP between these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelEnds {
    /// Our end: the outer source.
    pub local: Ipv4Addr,
    /// The other end: the outer destination, and the only outer source whose
    /// packets are taken out.
    pub remote: Ipv4Addr,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Addresses on the interface with the lengths of their links' prefixes, to
    /// which there is no route by that. The home address is always on the tunnel,
    /// besides.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// Neighbours.
    pub neighbors: Vec<Neighbor>,
    /// Routes, in the order in which they can be added.
    pub routes: Vec<Route>,
    /// Where packets that the kernel routes into the tunnel go; `None`: nowhere.
    pub tunnel: Option<TunnelEnds>,
}

impl Forwarding {
    /// What `attachment` needs; and besides, while a co-located address is only
    /// about to be registered, what its requests need.
    pub fn new(
        config: &MobileNodeConfig,
        attachment: &Attachment,
        registering: Option<&CoLocated>,
    ) -> Self {
        let home = config.home_address;
        let mut forwarding = Forwarding::default();
        if let Some(co_located) = registering {
            forwarding.reach_home_agent(config, co_located);
        }
        let default = |gateway, device| Route {
            destination: Prefix::ALL,
            gateway,
            device,
            source: home,
            mtu: Some(MTU),
        };
        match *attachment {
            // Into the tunnel, which leads nowhere: applications see silence and
            // not an error.
            Attachment::None => forwarding.routes.push(default(None, Device::Tunnel)),
            Attachment::Home { gateway, mac } => {
                // The address on the interface makes the kernel answer ARP for it.
                forwarding.addresses.push((home, config.home_prefix.prefix_len()));
                forwarding.neighbors.push(Neighbor { address: gateway, mac });
                forwarding.routes.push(Route {
                    destination: config.home_prefix,
                    gateway: None,
                    device: Device::Interface,
                    source: home,
                    mtu: Some(MTU),
                });
                forwarding.routes.push(default(Some(gateway), Device::Interface));
            }
            Attachment::ForeignAgent { address, mac, style, .. } => {
                // The foreign agent's link-layer address is that of its
                // advertisements: nobody asks for it by ARP (RFC 5944 §4.6).
                forwarding.neighbors.push(Neighbor { address, mac });
                if style == ReverseTunnel::Encapsulating {
                    forwarding.routes.push(to_host(address, None, home));
                    forwarding.routes.push(default(None, Device::Tunnel));
                    forwarding.tunnel = Some(TunnelEnds { local: home, remote: address });
                } else {
                    forwarding.routes.push(default(Some(address), Device::Interface));
                }
            }
            Attachment::CoLocated { co_located, reverse_tunnel } => {
                forwarding.reach_home_agent(config, &co_located);
                let ends = TunnelEnds { local: co_located.address, remote: config.home_agent };
                forwarding.tunnel = Some(ends);
                match co_located.gateway.filter(|_| !reverse_tunnel) {
                    Some(gateway) => {
                        forwarding.routes.push(default(Some(gateway), Device::Interface));
                    }
                    None => forwarding.routes.push(default(None, Device::Tunnel)),
                }
            }
        }
        forwarding
    }

    /// A co-located address, and the home agent by it.
    fn reach_home_agent(&mut self, config: &MobileNodeConfig, co_located: &CoLocated) {
        let CoLocated { address, prefix_len, gateway, .. } = *co_located;
        if self.addresses.contains(&(address, prefix_len)) {
            return;
        }
        self.addresses.push((address, prefix_len));
        let agent = config.home_agent;
        let on_link = Prefix::new(address, prefix_len).is_some_and(|link| link.contains(agent));
        let gateway = gateway.filter(|_| !on_link);
        if let Some(gateway) = gateway {
            self.routes.push(to_host(gateway, None, address));
        }
        self.routes.push(to_host(agent, gateway, address));
    }
}

fn to_host(host: Ipv4Addr, gateway: Option<Ipv4Addr>, source: Ipv4Addr) -> Route {
    let destination = Prefix::host(host);
    Route { destination, gateway, device: Device::Interface, source, mtu: None }
}
