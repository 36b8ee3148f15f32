//! Link headers that were put together lately: next hops are few, packets are many.

use std::net::Ipv4Addr;

use homeport_wire::{EtherType, EthernetHeader, MacAddress, PortId};
use zerocopy::IntoBytes;

use crate::classify::Tables;
use crate::output::Outlet;

/// How many are kept: 24 bytes each, so that they stay in the innermost cache.
const KEPT: usize = 256;

/// No next hop has this key: ports are numbered with 16 bits.
const NOBODY: u64 = u64::MAX;

/// A link header as it is put before a packet: its first and its last eight bytes, of
/// which two are the same.
#[derive(Clone, Copy)]
pub(super) struct LinkHeader([u64; 2]);

impl LinkHeader {
    pub(super) const NONE: LinkHeader = LinkHeader([0; 2]);

    fn new(to: MacAddress, from: MacAddress) -> Self {
        let header = EthernetHeader::new(to, from, EtherType::IPV4);
        let bytes = header.as_bytes();
        let words = [bytes.first_chunk(), bytes.last_chunk()];
        LinkHeader(words.map(|word| word.copied().map_or(0, u64::from_ne_bytes)))
    }

    /// Writes it.
    #[inline(always)]
    pub(super) fn put(&self, to: &mut [u8; EthernetHeader::LEN]) {
        let [first, last] = self.0.map(u64::to_ne_bytes);
        // Both are there: fourteen bytes are.
        if let Some(to) = to.first_chunk_mut() {
            *to = first;
        }
        if let Some(to) = to.last_chunk_mut() {
            *to = last;
        }
    }
}

#[derive(Clone, Copy)]
struct Known {
    key: u64,
    header: LinkHeader,
}

/// What is kept, and of which version of the neighbour table.
pub(super) struct NextHops {
    known: Box<[Known; KEPT]>,
    version: u64,
}

impl NextHops {
    pub(super) fn new() -> Self {
        let nobody = Known { key: NOBODY, header: LinkHeader::NONE };
        NextHops { known: Box::new([nobody; KEPT]), version: 0 }
    }

    /// Forgets everything if a neighbour was replaced or removed since.
    #[inline(always)]
    pub(super) fn refresh(&mut self, tables: &Tables) {
        let version = tables.neighbors.version();
        if version != self.version {
            self.version = version;
            self.known.iter_mut().for_each(|known| known.key = NOBODY);
        }
    }

    /// The link header of packets to `address` by `port`, whose outlet this is.
    /// `None`: no such neighbour is known.
    #[inline(always)]
    pub(super) fn header(
        &mut self,
        port: PortId,
        address: u32,
        outlet: &Outlet,
        tables: &Tables,
    ) -> Option<LinkHeader> {
        let key = u64::from(port.0) << 32 | u64::from(address);
        // Fibonacci hashing; who makes two next hops share a place gains a look-up.
        let place = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize;
        let known = self.known.get_mut(place)?;
        if known.key != key {
            let mac = tables.neighbor(port, Ipv4Addr::from_bits(address))?;
            *known = Known { key, header: LinkHeader::new(mac, outlet.mac) };
        }
        Some(known.header)
    }
}
