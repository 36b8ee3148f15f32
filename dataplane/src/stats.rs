//! Per-port counters: written by one RX core with plain stores, read by anybody.
//!
//! The conservation law: what was received, handed over by the kernel twin,
//! injected by the control core or made here ends transmitted, punted, delivered
//! to the kernel, dropped by reason, or is still held. What is cut here becomes several
//! packets, and fragments that are put together here become one.
//!
//! A packet's whole life is counted at one port: the one that it came in on, or
//! that its maker is counted at (a copy, a fragment, an ICMP error). So the law
//! holds for each port, and for each RX core by itself: `total_in == transmitted +
//! punted + to_kernel + dropped + handed over + held`, where a core that takes a packet
//! over from another counts it as coming in. In sum over the cores, what was handed
//! over and not yet taken over is in the rings between them. Only `tx` and `tx_bytes` are counted where the frame leaves; in sum over
//! the ports, `tx` equals `transmitted`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::verdict::{DropReason, PuntReason};

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the counter. Only the owning RX core may call it: the sum is a
    /// load and a store, not an atomic addition.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes from a gauge. Only the owning RX core may call it.
    pub fn sub(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(count), Ordering::Relaxed);
    }

    /// Makes it this value. Only the owning RX core may call it.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter for each reason.
#[derive(Debug)]
struct PerReason<const COUNT: usize>([Counter; COUNT]);

impl<const COUNT: usize> Default for PerReason<COUNT> {
    fn default() -> Self {
        PerReason(std::array::from_fn(|_| Counter::default()))
    }
}

/// Everything that is counted for one port on one RX core. On cache lines of its own
/// (two, as adjacent lines are fetched in pairs): no two cores write to one.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PortStats {
    /// Frames that the port received.
    pub rx: Counter,
    /// Frames that came from the kernel twin.
    pub from_kernel: Counter,
    /// Packets that the control core injected.
    pub injected: Counter,
    /// Packets made here: ICMP errors, further copies for simultaneous bindings,
    /// fragments, questions for a next hop's address.
    pub originated: Counter,
    /// Packets counted as coming in here that left, by whichever port.
    pub transmitted: Counter,
    /// Frames that the port sent, wherever they came in.
    pub tx: Counter,
    /// Frames delivered to the kernel twin.
    pub to_kernel: Counter,
    /// Packets handed to another RX core, which counts them as taken over.
    pub handed_over: Counter,
    /// Packets taken over from another RX core.
    pub taken_over: Counter,
    /// Packets that wait for their next hop's address or, fragments, for the rest of
    /// their datagram, now.
    pub held: Counter,
    /// Fragments that became part of a packet put together here: all but one of
    /// each, which is the packet from then on.
    pub joined: Counter,
    /// Bytes of the frames in `rx`.
    pub rx_bytes: Counter,
    /// Bytes of the frames in `tx`.
    pub tx_bytes: Counter,
    /// Packets put into a tunnel.
    pub encapsulated: Counter,
    /// Packets taken out of a tunnel.
    pub decapsulated: Counter,
    /// Keepalives of UDP tunnels that were answered.
    pub keepalives: Counter,
    /// Packets out of UDP tunnels whose header had reserved bits set, which a receiver
    /// ignores (RFC 3519 §3.3).
    pub reserved_bits: Counter,
    punted: PerReason<{ PuntReason::COUNT }>,
    dropped: PerReason<{ DropReason::COUNT }>,
}

impl PortStats {
    #[expect(clippy::indexing_slicing, reason = "the array has a place for every reason")]
    /// The counter of packets punted for `reason`.
    pub fn punted(&self, reason: PuntReason) -> &Counter {
        &self.punted.0[reason as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "the array has a place for every reason")]
    /// The counter of packets dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> &Counter {
        &self.dropped.0[reason as usize]
    }

    /// All that came to this RX core at this port; fragments that were put
    /// together are one packet.
    pub fn total_in(&self) -> u64 {
        let all =
            self.rx.get() + self.from_kernel.get() + self.injected.get() + self.originated.get();
        let all = all + self.taken_over.get();
        // A reader that is not the worker may see the two at different times.
        all.saturating_sub(self.joined.get())
    }

    /// All that is settled or still held: equal to [`PortStats::total_in`]
    /// whenever the worker is between two bursts.
    pub fn total_out(&self) -> u64 {
        self.transmitted.get()
            + self.to_kernel.get()
            + self.total_punted()
            + self.total_dropped()
            + self.handed_over.get()
            + self.held.get()
    }

    /// Punted for any reason.
    pub fn total_punted(&self) -> u64 {
        self.punted.0.iter().map(Counter::get).sum()
    }

    /// Dropped for any reason.
    pub fn total_dropped(&self) -> u64 {
        self.dropped.0.iter().map(Counter::get).sum()
    }
}
