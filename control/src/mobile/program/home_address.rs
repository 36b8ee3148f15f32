//! The node's own home address in the event loop, when the home agent gives it one: after
//! the first registration, and another when it will not let it have the old one. It is
//! written down, so that the next program asks for it.

use std::net::Ipv4Addr;

use super::Program;
use crate::mobile::config::Config;
use crate::mobile::memory::{AddressMemory, MemoryError};

/// Where a home address that is given is written down, if the config says where.
///
/// # Errors
/// [`MemoryError`].
pub(super) fn memory(config: &Config) -> Result<Option<AddressMemory>, MemoryError> {
    let is_given = config.node.home_address.is_unspecified();
    let folder = config.state_dir.as_deref().filter(|_| is_given);
    folder.map(|folder| AddressMemory::open(folder, &config.node)).transpose()
}

impl Program {
    pub(super) fn use_home_address(&mut self, address: Option<Ipv4Addr>) {
        self.report.home_address(address);
        if let (Some(memory), Some(address)) = (&self.memory, address)
            && let Err(error) = memory.remember(address)
        {
            self.report.count("home_addresses_unsaved");
            tracing::error!(%error, "the home address is not written down: started anew, the node may get another");
        }
        self.config.node.home_address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        self.tunnel.use_home_address(address);
        let forwarding = self.forwarding();
        if let Err(error) = self.host.use_home_address(address, &forwarding) {
            tracing::error!("{error}");
        }
    }
}
