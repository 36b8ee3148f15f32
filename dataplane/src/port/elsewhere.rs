//! A port of which a worker has no queue: another worker has them all.

use homeport_wire::MacAddress;

use super::Port;
use crate::packet::{Burst, PacketPool};

/// The place of a port in a worker that has no queue of it. Nothing comes from it;
/// what shall leave by it is handed to a worker that has a queue.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    pub(crate) mac: MacAddress,
    pub(crate) mtu: u16,
}

impl Port for Elsewhere {
    fn name(&self) -> &str {
        "elsewhere"
    }

    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn is_up(&self) -> bool {
        false
    }

    fn rx_burst(&mut self, _: &mut PacketPool, _: &mut Burst) {}

    fn tx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) -> usize {
        burst.drain().for_each(|packet| pool.give(packet));
        0
    }
}
