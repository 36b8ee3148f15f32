//! Where packets come from and go to.
//!
//! One trait, several backends: memory (tests, simulation, replay),
//! AF_PACKET (any Linux interface), AF_XDP (beside the kernel), DPDK, and the TAP of
//! a kernel twin.

pub mod af_packet;
pub mod af_xdp;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub(crate) mod elsewhere;
pub mod interface;
pub mod mem;
pub mod offload;
pub mod shield;
#[cfg(test)]
mod testbed;
pub mod twin;

use std::os::fd::BorrowedFd;

use homeport_wire::MacAddress;

use crate::packet::{Burst, PacketPool};

/// A source and sink of Ethernet frames: a port, or one of its queues. It belongs to
/// one worker.
pub trait Port: Send {
    /// Name for people: of the interface, the file or the vdev.
    fn name(&self) -> &str;

    /// The port's own link-layer address.
    fn mac(&self) -> MacAddress;

    /// The longest IPv4 packet that it carries, in bytes (the link's MTU).
    fn mtu(&self) -> u16;

    /// How it runs, for people, where there is a choice; it stays so.
    fn mode(&self) -> Option<&str> {
        None
    }

    /// Whether the link has carrier.
    fn is_up(&self) -> bool {
        true
    }

    /// Whether it ever receives: a queue may be there to send only.
    fn receives(&self) -> bool {
        true
    }

    /// Adds received frames to `burst` until it is full or none is waiting. Never
    /// blocks. Buffers come from `pool` where the port has none of its own.
    fn rx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst);

    /// Sends the frames of `burst`, in order, and leaves it empty. What the port
    /// does not take is dropped. Never blocks. Buffers go back to `pool`.
    ///
    /// Returns how many were sent.
    fn tx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) -> usize;

    /// What becomes readable when a frame is waiting, so that an idle worker can
    /// sleep in poll(2); `None` when the port can only be polled.
    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Tells what the port itself lost or mended, by counter name (kebab-case):
    /// always the same counters in the same order. Of the queues of one port each
    /// tells its own share: they are added up. Never allocates.
    fn counters(&self, _tell: &mut dyn FnMut(&'static str, u64)) {}
}

/// The counters of a port, in its order.
pub fn counters_of(port: &dyn Port) -> Vec<(&'static str, u64)> {
    let mut counters = Vec::new();
    port.counters(&mut |name, count| counters.push((name, count)));
    counters
}
