//! The node's own home address in the event loop, when the home agent gives it one: after
//! the first registration, and another when it will not let it have the old one.

use std::net::Ipv4Addr;

use super::Program;

impl Program {
    pub(super) fn use_home_address(&mut self, address: Option<Ipv4Addr>) {
        self.report.home_address(address);
        self.config.node.home_address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        self.tunnel.use_home_address(address);
        let forwarding = self.forwarding();
        if let Err(error) = self.host.use_home_address(address, &forwarding) {
            tracing::error!("{error}");
        }
    }
}
