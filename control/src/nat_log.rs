//! Whose external ports are whose: the log of blocks that NAPTs give and take back
//! (RFC 6888 REQ-12), and the book of those that are given now.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use homeport_dataplane::napt::InsideHost;
use homeport_dataplane::napt::log::NatLogRecord;
use homeport_proto::Instant;

/// A block that an inside host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// Whose it is.
    pub host: InsideHost,
    /// Its last port.
    pub last_port: u16,
    /// Since when.
    pub since: Instant,
}

/// What a block is found by: the NAPT's number, the external address, the first port.
pub type BlockKey = (usize, Ipv4Addr, u16);

/// The blocks that are given now.
#[derive(Debug, Default)]
pub struct BlockBook(BTreeMap<BlockKey, Given>);

impl BlockBook {
    /// Takes a record into the book and logs it; `napt` is what people call the NAPT.
    /// Nobody whom the host talks to is named.
    pub fn take(&mut self, record: &NatLogRecord, napt: &str, now: Instant) {
        let host = record.host();
        let key = (record.napt(), record.external(), record.first_port());
        let (first_port, last_port) = (record.first_port(), record.last_port());
        let verb = if record.given() { "given" } else { "taken back" };
        tracing::info!(
            napt,
            tenant = host.tenant.0,
            inside = %host.address,
            mac = host.station.map(tracing::field::display),
            external = %record.external(),
            first_port,
            last_port,
            "a block of ports was {verb}"
        );
        if record.given() {
            self.0.insert(key, Given { host, last_port, since: now });
        } else {
            self.0.remove(&key);
        }
    }

    /// The blocks, by NAPT, external address and port.
    pub fn iter(&self) -> impl Iterator<Item = (&BlockKey, &Given)> {
        self.0.iter()
    }
}
