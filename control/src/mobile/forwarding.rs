//! What the kernel must hold so that the host forwards as an attachment says:
//! routes, neighbours and addresses, as values, and the tunnel in userspace.
//!
//! All routes are in a table of their own ([`TABLE`]), which two rules put before
//! the main table's default route. So nothing of the host's own routing is
//! touched, and what a killed process left behind is known by its table.

use std::net::Ipv4Addr;

use homeport_proto::config::{MobileNodeConfig, Prefix};
use homeport_proto::mobile_node::{Attachment, CoLocated};
use homeport_proto::{Encapsulation, MacAddress, ReverseTunnel};

use super::encapsulation;

/// The routing table of the mobile node: `ip route show table 99`.
pub const TABLE: u8 = 99;

/// The MTU, in bytes, of an attachment without a tunnel of ours on a link of
/// `link` bytes: what fits the widest tunnel header, at home too, so that no
/// connection is too wide for a later attachment on such a link.
pub const fn untunnelled_mtu(link: u16) -> u16 {
    link.saturating_sub(encapsulation::ROOM as u16)
}

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
    /// The source address of packets that have none yet; `None` while there is none.
    pub source: Option<Ipv4Addr>,
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

/// A tunnel in userspace: these ends, and how packets go between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelEnds {
    /// Our end: the outer source.
    pub local: Ipv4Addr,
    /// The other end: the outer destination, and the only outer source whose
    /// packets are taken out.
    pub remote: Ipv4Addr,
    /// How packets are encapsulated.
    pub encapsulation: Encapsulation,
}

impl TunnelEnds {
    /// The ends for what `source`, an address of ours, sends. A foreign agent that takes
    /// encapsulated packets takes them from whoever sent what is inside (RFC 3024 §5.2):
    /// from the node, whose home address `home` is then our end, and from each session.
    #[must_use]
    pub fn of_sender(self, home: Option<Ipv4Addr>, source: Ipv4Addr) -> Self {
        let local = if home == Some(self.local) { source } else { self.local };
        TunnelEnds { local, ..self }
    }
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
    /// What `attachment` needs on a link whose packets have at most `link_mtu`
    /// bytes; and besides, while a co-located address is only about to be
    /// registered, what its requests need. Without a home address nothing else is needed.
    pub fn new(
        config: &MobileNodeConfig,
        attachment: &Attachment,
        registering: Option<&CoLocated>,
        link_mtu: u16,
    ) -> Self {
        let mut forwarding = Forwarding::default();
        if let Some(co_located) = registering {
            forwarding.reach_home_agent(config, co_located);
        }
        let mtu = Some(untunnelled_mtu(link_mtu));
        let source = Some(config.home_address).filter(|home| !home.is_unspecified());
        let default =
            |gateway, device| Route { destination: Prefix::ALL, gateway, device, source, mtu };
        let Some(home) = source else {
            // Who has no address yet has nothing to send, wherever it is.
            forwarding.routes.push(default(None, Device::Tunnel));
            return forwarding;
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
                    source,
                    mtu,
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
                    // IP in IP, whatever the agent's own tunnel is (RFC 3024 §5.2).
                    let encapsulation = Encapsulation::IpInIp;
                    forwarding.tunnel =
                        Some(TunnelEnds { local: home, remote: address, encapsulation });
                } else {
                    forwarding.routes.push(default(Some(address), Device::Interface));
                }
            }
            Attachment::CoLocated { co_located, reverse_tunnel, encapsulation } => {
                forwarding.reach_home_agent(config, &co_located);
                forwarding.tunnel = Some(TunnelEnds {
                    local: co_located.address,
                    remote: config.home_agent,
                    encapsulation,
                });
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

    /// Lets no more than `mtu` bytes into the tunnel at once.
    pub fn set_tunnel_mtu(&mut self, mtu: u16) {
        for route in &mut self.routes {
            if route.device == Device::Tunnel {
                route.mtu = Some(mtu);
            }
        }
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
    Route { destination, gateway, device: Device::Interface, source: Some(source), mtu: None }
}
