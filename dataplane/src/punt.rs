//! What crosses between RX cores and the control core, as plain data: a header
//! of fixed layout and a packet's bytes. The same messages cross a ring inside
//! one process and a shared-memory ring between two.

use std::time::{Duration, Instant};

use homeport_wire::{PortId, TenantId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::verdict::PuntReason;

/// A time of the dataplane's own clock, which both ends of a punt ring read: the
/// milliseconds since it was made, modulo 2³².
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Millis(pub u32);

impl Millis {
    /// The time at `now`, for a dataplane that was made at `start`.
    pub fn at(start: Instant, now: Instant) -> Self {
        // Modulo 2³² is meant.
        Millis(now.saturating_duration_since(start).as_millis() as u32)
    }

    /// How much later it is than `earlier`; nothing when it is before that, as it can
    /// be by a little where two cores read their clocks.
    pub const fn since(self, earlier: Millis) -> Duration {
        let difference = self.0.wrapping_sub(earlier.0);
        Duration::from_millis(if difference > u32::MAX / 2 { 0 } else { difference as u64 })
    }
}

/// In front of a punted frame. Native byte order: it never leaves the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PuntHeader {
    /// Whose packet it is.
    tenant: u32,
    /// Bytes of the frame that follows.
    len: u16,
    /// The port that it came in on.
    port: u16,
    /// A [`PuntReason`] by number.
    reason: u8,
    zero: [u8; 3],
    /// [`PuntReason::ResolveNeighbor`]: the next hop; else zero.
    next_hop: [u8; 4],
    /// When it was punted, in milliseconds of the dataplane's clock; it wraps around.
    punted_at: u32,
}

impl PuntHeader {
    /// A header with these fields.
    pub const fn new(tenant: TenantId, port: PortId, reason: PuntReason, len: u16) -> Self {
        PuntHeader {
            tenant: tenant.0,
            len,
            port: port.0,
            reason: reason as u8,
            zero: [0; 3],
            next_hop: [0; 4],
            punted_at: 0,
        }
    }

    /// The same header, naming the next hop to resolve.
    #[must_use]
    pub const fn with_next_hop(mut self, next_hop: std::net::Ipv4Addr) -> Self {
        self.next_hop = next_hop.octets();
        self
    }

    /// The same header, saying when it was punted.
    #[must_use]
    pub const fn with_time(mut self, now: Millis) -> Self {
        self.punted_at = now.0;
        self
    }

    /// How long it has waited, to the millisecond.
    pub const fn waited(&self, now: Millis) -> Duration {
        now.since(Millis(self.punted_at))
    }

    /// Whose packet it is.
    pub const fn tenant(&self) -> TenantId {
        TenantId(self.tenant)
    }

    /// The port that it came in on; for [`PuntReason::ResolveNeighbor`] the port
    /// that it shall leave by.
    pub const fn port(&self) -> PortId {
        PortId(self.port)
    }

    /// Why it was punted; `None` when the number is unknown.
    pub fn reason(&self) -> Option<PuntReason> {
        PuntReason::from_u8(self.reason)
    }

    /// Bytes of the frame that follows: from the Ethernet header on.
    pub const fn frame_len(&self) -> usize {
        self.len as usize
    }

    /// The next hop to resolve.
    pub const fn next_hop(&self) -> std::net::Ipv4Addr {
        let [a, b, c, d] = self.next_hop;
        std::net::Ipv4Addr::new(a, b, c, d)
    }
}

/// In which order reasons are served, and how many packets of each before it is the
/// next one's turn. What has none waiting is passed over, so this is what each gets
/// where all have more than the control core can take: renewals first and most, and
/// the others never nothing.
const SHARES: [(PuntReason, u32); PuntReason::COUNT] = [
    (PuntReason::Renewal, 24),
    (PuntReason::Registration, 6),
    (PuntReason::TunnelKeepalive, 2),
    (PuntReason::ResolveNeighbor, 2),
    (PuntReason::TunnelIcmp, 1),
    (PuntReason::TunnelRebound, 1),
    (PuntReason::Solicitation, 1),
    (PuntReason::Advertisement, 1),
    (PuntReason::NatLog, 1),
];

/// Whose turn it is, in rounds of [`SHARES`].
#[derive(Debug, Default)]
pub(crate) struct Turns {
    at: usize,
    /// How many of its share it has had.
    taken: u32,
}

impl Turns {
    /// Lets `take` try one reason after another, in turn, until it has a packet.
    pub(crate) fn next(&mut self, mut take: impl FnMut(PuntReason) -> bool) -> bool {
        // The one whose turn it is comes once more at the end: with a share anew.
        for _ in 0..=SHARES.len() {
            if let Some((reason, share)) = SHARES.get(self.at)
                && self.taken < *share
                && take(*reason)
            {
                self.taken += 1;
                return true;
            }
            (self.at, self.taken) = ((self.at + 1) % SHARES.len(), 0);
        }
        false
    }
}

/// What the control core hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum InjectKind {
    /// A whole Ethernet frame, to leave by the named port as it is.
    Frame,
    /// An IPv4 packet, to be routed (and tunnelled, if its destination has a
    /// binding) like a packet of the tenant.
    Routed,
    /// An IPv4 packet that is only asked about: a worker follows it as if it had come
    /// in by the named port, and nothing of it happens
    /// ([`TraceControl::probe`](crate::trace::TraceControl::probe)).
    Probe,
}

/// In front of injected bytes. Native byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct InjectHeader {
    tenant: u32,
    len: u16,
    port: u16,
    kind: u8,
    number: u8,
    zero: [u8; 2],
}

impl InjectHeader {
    /// A header with these fields; `port` is ignored for [`InjectKind::Routed`].
    pub const fn new(tenant: TenantId, port: PortId, kind: InjectKind, len: u16) -> Self {
        InjectHeader {
            tenant: tenant.0,
            len,
            port: port.0,
            kind: kind as u8,
            number: 0,
            zero: [0; 2],
        }
    }

    /// The same header of a [`InjectKind::Probe`] with this number.
    #[must_use]
    pub const fn with_number(mut self, number: u8) -> Self {
        self.number = number;
        self
    }

    /// The number of a [`InjectKind::Probe`].
    pub const fn number(&self) -> u8 {
        self.number
    }

    /// On whose behalf.
    pub const fn tenant(&self) -> TenantId {
        TenantId(self.tenant)
    }

    /// The port to leave by.
    pub const fn port(&self) -> PortId {
        PortId(self.port)
    }

    /// What follows; `None` when the number is unknown.
    pub const fn kind(&self) -> Option<InjectKind> {
        match self.kind {
            0 => Some(InjectKind::Frame),
            1 => Some(InjectKind::Routed),
            2 => Some(InjectKind::Probe),
            _ => None,
        }
    }

    /// Bytes that follow.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether none follow.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of each reason `count` packets are, where these wait without end.
    fn served(waiting: &[PuntReason], count: usize) -> Vec<usize> {
        let mut turns = Turns::default();
        let mut served = vec![0; PuntReason::COUNT];
        for _ in 0..count {
            assert!(turns.next(|reason| {
                let waits = waiting.contains(&reason);
                served[reason as usize] += usize::from(waits);
                waits
            }));
        }
        served
    }

    #[test]
    fn renewals_get_most_and_no_reason_nothing() {
        let every = served(PuntReason::ALL, 390);
        assert_eq!(every[PuntReason::Renewal as usize], 240);
        assert!(every.iter().all(|count| *count >= 10), "{every:?}");
        let two = served(&[PuntReason::Registration, PuntReason::Renewal], 300);
        assert_eq!(two[PuntReason::Renewal as usize], 240);
        assert_eq!(two[PuntReason::Registration as usize], 60);
        for alone in PuntReason::ALL {
            assert_eq!(served(&[*alone], 100)[*alone as usize], 100);
        }
        assert!(!Turns::default().next(|_| false));
    }

    #[test]
    fn a_wait_is_told_also_where_the_clock_wraps_and_where_two_cores_differ() {
        for (from, to, waited) in [(5, 1_005, 1_000), (u32::MAX - 9, 990, 1_000), (7, 5, 0)] {
            let header = PuntHeader::new(TenantId(0), PortId(0), PuntReason::Renewal, 0)
                .with_time(Millis(from));
            assert_eq!(header.waited(Millis(to)), Duration::from_millis(waited));
        }
        let start = Instant::now();
        let days = Duration::from_secs(50 * 86_400);
        assert_eq!(Millis::at(start, start + days).0, (50u64 * 86_400_000 % (1 << 32)) as u32);
    }
}
