//! Packets from one worker to another, over a bounded ring for each pair of them.
//!
//! A packet's bytes are copied into the ring and out of it, so that every buffer
//! stays with the worker whose pool it is from. A worker never waits for another:
//! when a ring is full the packet is dropped as
//! [`DropReason::HandoverFull`](crate::verdict::DropReason::HandoverFull), where it
//! came in. What one worker hands to another arrives in order.
//!
//! The worker that hands a packet over counts it as handed over, the one that gets it
//! as taken over, and where it ends its verdict is counted as ever, all at one port:
//! so the conservation law ([`stats`](crate::stats)) holds for each worker by itself.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use homeport_wire::{MacAddress, PortId, TenantId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::launch::push;
use crate::packet::Packet;
use crate::ring::{Consumer, Producer, ring};

/// What another worker shall do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Treat this frame as if it had received it itself, by the packet's port.
    Receive,
    /// Treat this IPv4 packet as one that this box made.
    Own,
    /// Send this frame by the port.
    Transmit(PortId),
    /// Deliver this frame to the kernel twin of the packet's port.
    DeliverToKernel,
}

/// In front of a packet's bytes. Native byte order: it never leaves the machine.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    tenant: u32,
    /// Where it is counted.
    port: u16,
    /// [`Errand::Transmit`]: where it leaves.
    egress: u16,
    station: [u8; 6],
    errand: u8,
    zero: u8,
}

impl Header {
    fn new(packet: &Packet, errand: Errand) -> Self {
        let (errand, egress) = match errand {
            Errand::Receive => (0, 0),
            Errand::Own => (1, 0),
            Errand::Transmit(port) => (2, port.0),
            Errand::DeliverToKernel => (3, 0),
        };
        let (tenant, port, station) = (packet.tenant.0, packet.port.0, packet.station.0);
        Header { tenant, port, egress, station, errand, zero: 0 }
    }

    fn errand(&self) -> Errand {
        match self.errand {
            1 => Errand::Own,
            2 => Errand::Transmit(PortId(self.egress)),
            3 => Errand::DeliverToKernel,
            _ => Errand::Receive,
        }
    }
}

/// A worker's ends of the rings to the others.
#[derive(Default)]
pub(crate) struct HandoverSender {
    /// By worker; a worker has no ring to itself.
    rings: Vec<Option<(Producer, Arc<OwnedFd>)>>,
}

impl HandoverSender {
    /// Hands a packet to a worker and wakes it. `false`, and nothing handed over, when
    /// the ring is full or there is no such worker.
    #[must_use]
    pub(crate) fn push(&mut self, to: usize, packet: &Packet, errand: Errand) -> bool {
        let Some(Some((ring, wake))) = self.rings.get_mut(to) else { return false };
        push(ring, Header::new(packet, errand).as_bytes(), packet.bytes(), wake)
    }
}

/// A worker's ends of the rings from the others.
#[derive(Default)]
pub(crate) struct HandoverReceiver {
    rings: Vec<Consumer>,
}

impl HandoverReceiver {
    /// How many rings there are.
    pub(crate) fn len(&self) -> usize {
        self.rings.len()
    }

    /// The next packet of a ring, in a packet that `make` gives for its length; `None`
    /// when there is none. Without a packet to put it into it is lost: the caller sees
    /// to it that there is one.
    pub(crate) fn next(
        &mut self,
        ring: usize,
        make: impl FnOnce(usize) -> Option<Packet>,
    ) -> Option<(Packet, Errand)> {
        let taken = self.rings.get_mut(ring)?.consume(|message| {
            let (header, bytes) = Header::read_from_prefix(message).ok()?;
            let mut packet = make(bytes.len())?;
            (packet.port, packet.tenant) = (PortId(header.port), TenantId(header.tenant));
            packet.station = MacAddress(header.station);
            packet.set_bytes(bytes).then_some((packet, header.errand()))
        });
        taken.flatten()
    }

    /// Announces that the worker goes to sleep; `false` when a packet is waiting.
    pub(crate) fn prepare_sleep(&mut self) -> bool {
        self.rings.iter_mut().all(Consumer::prepare_sleep)
    }
}

/// The rings between all pairs of workers, of so many bytes each; `wakes` has what
/// wakes each worker.
pub(crate) fn handovers(
    wakes: &[Arc<OwnedFd>],
    bytes: usize,
) -> Vec<(HandoverSender, HandoverReceiver)> {
    let mut all: Vec<(HandoverSender, HandoverReceiver)> =
        wakes.iter().map(|_| Default::default()).collect();
    for from in 0..wakes.len() {
        for (to, wake) in wakes.iter().enumerate() {
            let sender = (from != to).then(|| {
                let (sender, receiver) = ring(bytes);
                if let Some((_, receivers)) = all.get_mut(to) {
                    receivers.rings.push(receiver);
                }
                (sender, Arc::clone(wake))
            });
            if let Some((senders, _)) = all.get_mut(from) {
                senders.rings.push(sender);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::PacketPool;
    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn what_is_handed_over_arrives_whole_at_the_worker_that_it_is_for() {
        let wake = || Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let mut workers = handovers(&[wake(), wake(), wake()], 1 << 12);
        let mut pool = PacketPool::new(8);
        let errands =
            [Errand::Receive, Errand::Own, Errand::Transmit(PortId(7)), Errand::DeliverToKernel];
        for (number, errand) in errands.into_iter().enumerate() {
            let mut packet = pool.take().unwrap();
            assert!(packet.set_bytes(&[number as u8; 61]));
            (packet.port, packet.tenant) = (PortId(number as u16), TenantId(5));
            packet.station = MacAddress([9; 6]);
            assert!(workers[0].0.push(2, &packet, errand));
            assert!(!workers[0].0.push(0, &packet, errand), "to itself");
            assert!(!workers[0].0.push(3, &packet, errand), "to nobody");
        }
        assert!(!workers[2].1.prepare_sleep() && workers[1].1.prepare_sleep());
        assert!(workers[2].1.next(1, |_| pool.take()).is_none(), "worker 1 sent nothing");
        for (number, errand) in errands.into_iter().enumerate() {
            let (packet, got) = workers[2].1.next(0, |_| pool.take()).unwrap();
            assert_eq!((packet.bytes(), got), (&[number as u8; 61][..], errand));
            assert_eq!((packet.port, packet.tenant), (PortId(number as u16), TenantId(5)));
            assert_eq!(packet.station, MacAddress([9; 6]));
        }
        assert!(workers[2].1.next(0, |_| pool.take()).is_none());
    }
}
