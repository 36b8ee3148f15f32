//! Asking the kernel for a next hop's link-layer address.
//!
//! The kernel resolves what *it* sends to. Packets that the dataplane forwards it
//! never sees, so it is asked in their stead: a neighbour request with `NTF_USE`
//! does what sending a packet would (`ip neigh replace … use`). The answer comes
//! by the [mirror](super::mirror).

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_proto::Instant;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::KernelError;
use super::socket::Requests;

/// The same next hop is asked for at most this often: the kernel's own
/// retransmission timer is a second.
pub const REPEAT: Duration = Duration::from_millis(900);

/// At most this many next hops are remembered as asked for. Beyond it the kernel
/// is not asked, so that a scan of a connected network costs nothing.
pub const MAX_ASKED: usize = 1024;

/// How often the neighbours are gone through for stale ones.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(3);

/// At most this many neighbours are refreshed at one go.
pub const MAX_REFRESH: usize = 64;

/// Asks the kernel to resolve next hops, at a bounded rate.
pub struct Resolver {
    requests: Requests,
    asked: BTreeMap<(u32, Ipv4Addr), Instant>,
    refreshes: VecDeque<(u32, Ipv4Addr)>,
    next_refresh: Instant,
    suppressed: u64,
}

impl Resolver {
    /// A resolver with a socket of its own.
    ///
    /// # Errors
    /// When no netlink socket is to be had.
    pub fn new() -> Result<Self, KernelError> {
        Ok(Resolver {
            requests: Requests::new()?,
            asked: BTreeMap::new(),
            refreshes: VecDeque::new(),
            next_refresh: Instant::default(),
            suppressed: 0,
        })
    }

    /// Asks for `address` on the link `index`, unless that was done just now.
    ///
    /// # Errors
    /// When the kernel refuses: no such link, or it is down.
    pub fn resolve(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        now: Instant,
    ) -> Result<(), KernelError> {
        let key = (index, address);
        if self.asked.get(&key).is_some_and(|asked| now.saturating_since(*asked) < REPEAT) {
            return Ok(());
        }
        if self.asked.len() >= MAX_ASKED {
            self.asked.retain(|_, asked| now.saturating_since(*asked) < REPEAT);
        }
        if self.asked.len() >= MAX_ASKED {
            self.suppressed += 1;
            return Ok(());
        }
        self.asked.insert(key, now);
        self.use_neighbor(index, address)
    }

    /// How many requests were left out because too many next hops were asked for.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// When [`refresh`](Self::refresh) is due.
    pub fn poll_timeout(&self) -> Instant {
        self.next_refresh
    }

    /// Lets the kernel verify stale neighbours: it probes them, and the mirror
    /// tells when one has moved or gone. `stale` is asked for at the start of each
    /// round; what one go does not manage is done at the next.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn refresh(
        &mut self,
        stale: impl FnOnce() -> Vec<(u32, Ipv4Addr)>,
        now: Instant,
    ) -> Result<(), KernelError> {
        if now < self.next_refresh {
            return Ok(());
        }
        self.next_refresh = now + REFRESH_INTERVAL;
        if self.refreshes.is_empty() {
            self.refreshes.extend(stale());
        }
        for _ in 0..MAX_REFRESH {
            let Some((index, address)) = self.refreshes.pop_front() else {
                break;
            };
            self.use_neighbor(index, address)?;
        }
        Ok(())
    }

    fn use_neighbor(&mut self, index: u32, address: Ipv4Addr) -> Result<(), KernelError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = index;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
        let what = format!("asking for the neighbour {address}");
        self.requests.request(&what, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
    }
}
