//! Routes: longest prefix to port and next hop. They mirror the kernel's.

use std::net::Ipv4Addr;

use homeport_wire::PortId;

/// Where packets of a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteEntry {
    /// Out of a port: to the gateway, or to the destination itself on the link.
    Via {
        /// The port.
        port: PortId,
        /// The gateway; `None` when the destination is on the link.
        gateway: Option<Ipv4Addr>,
    },
    /// Behind a mobile router (RFC 5177): where that router's binding leads, home
    /// when it has none.
    MobileRouter {
        /// The router's home address.
        home_address: Ipv4Addr,
    },
    /// Nowhere: dropped as `NoRoute` (blackhole, unreachable, prohibit).
    Unreachable,
}
