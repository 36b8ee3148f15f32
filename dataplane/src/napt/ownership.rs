//! Which core's state a packet is a matter of, where several cores share a NAPT.
//!
//! A host inside has its mappings on one core, which its caller chooses by the host's
//! address; the external ports that this core gives it are of blocks that name the
//! core. So what comes back names its core by its port.

use std::net::Ipv4Addr;

use super::segment::{Look, look};
use super::{FragmentKey, InsideHost, Napt};

/// Whose an inbound packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This core's. If the packet is the first fragment of a datagram, the others are
    /// known by this.
    Core(u32, Option<FragmentKey>),
    /// The core's of the first fragment, as this one has no ports.
    OfFirst(FragmentKey),
    /// Nobody's: it is for the box itself.
    Nobody,
}

impl Napt {
    /// The core that owns the external endpoint that a packet is for, or that an ICMP
    /// error is about.
    pub fn owner_of_inbound(&self, packet: &[u8]) -> Owner {
        let Some(facts) = look(packet) else { return Owner::Nobody };
        let key = FragmentKey::new(&facts, None);
        let port = match facts.look {
            Look::Session(segment) => segment.destination.port,
            Look::Error(about) => about.source.port,
            Look::Later => return Owner::OfFirst(key),
            Look::Unsupported => return Owner::Nobody,
        };
        match self.owner(port) {
            Some(core) => Owner::Core(core, facts.fragment.then_some(key)),
            None => Owner::Nobody,
        }
    }

    /// The address inside that names the core of an outbound packet of `host`. An ICMP
    /// error is about somebody's packet, and a router between may have sent it.
    pub fn inside_address(packet: &[u8], host: &InsideHost) -> Ipv4Addr {
        match look(packet).map(|facts| facts.look) {
            Some(Look::Error(about)) => about.destination.address,
            _ => host.address,
        }
    }
}
