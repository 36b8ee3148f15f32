//! The log of port blocks given and taken back, as plain data for the control core
//! (RFC 6888 REQ-12: the host and its ports, never whom it talked to).

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use homeport_wire::{MacAddress, TenantId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::InsideHost;

/// How many records wait for the control core at most.
const WAITING: usize = 1024;

/// A block was given to a host or taken back from it. Native byte order: it never
/// leaves the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct NatLogRecord {
    tenant: u32,
    inside: [u8; 4],
    external: [u8; 4],
    napt: u16,
    first_port: u16,
    block_size: u16,
    station: [u8; 6],
    has_station: u16,
    given: u16,
}

impl NatLogRecord {
    pub(super) fn new(
        napt: u16,
        host: &InsideHost,
        (external, first_port): (Ipv4Addr, u16),
        block_size: u16,
        given: bool,
    ) -> Self {
        let station = host.station.unwrap_or_default();
        NatLogRecord {
            tenant: host.tenant.0,
            inside: host.address.octets(),
            external: external.octets(),
            napt,
            first_port,
            block_size,
            station: station.0,
            has_station: u16::from(host.station.is_some()),
            given: u16::from(given),
        }
    }

    /// Which NAPT: its place in the configuration.
    pub const fn napt(&self) -> usize {
        self.napt as usize
    }

    /// Whose block it is or was.
    pub const fn host(&self) -> InsideHost {
        let [a, b, c, d] = self.inside;
        let station = if self.has_station == 0 { None } else { Some(MacAddress(self.station)) };
        InsideHost { tenant: TenantId(self.tenant), address: Ipv4Addr::new(a, b, c, d), station }
    }

    /// The external address.
    pub const fn external(&self) -> Ipv4Addr {
        let [a, b, c, d] = self.external;
        Ipv4Addr::new(a, b, c, d)
    }

    /// The first port of the block.
    pub const fn first_port(&self) -> u16 {
        self.first_port
    }

    /// The last port of the block.
    pub const fn last_port(&self) -> u16 {
        self.first_port.saturating_add(self.block_size.saturating_sub(1))
    }

    /// Whether it was given; else it was taken back.
    pub const fn given(&self) -> bool {
        self.given != 0
    }
}

/// Records that the control core has not got yet.
pub(super) struct LogQueue {
    waiting: VecDeque<NatLogRecord>,
}

impl LogQueue {
    pub(super) fn new() -> Self {
        LogQueue { waiting: VecDeque::with_capacity(WAITING) }
    }

    /// Keeps a record; `false` when it is lost.
    pub(super) fn push(&mut self, record: NatLogRecord) -> bool {
        let room = self.waiting.len() < WAITING;
        if room {
            self.waiting.push_back(record);
        }
        room
    }

    /// Hands records over until `send` takes no more.
    pub(super) fn drain(&mut self, mut send: impl FnMut(&NatLogRecord) -> bool) {
        while self.waiting.front().is_some_and(&mut send) {
            self.waiting.pop_front();
        }
    }
}
