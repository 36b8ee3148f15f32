//! Time as flows keep it: tenths of a second since the NAPT was made.

use std::time::{Duration, Instant};

use super::config::Timeouts;

/// A point in time, in tenths of a second since the clock's start. It lasts for
/// thirteen years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(pub(super) u32);

impl Tick {
    pub(super) const PER_SECOND: u32 = 10;

    /// No time comes after it.
    pub(super) const NEVER: Tick = Tick(u32::MAX);

    /// So many ticks later.
    pub(super) const fn plus(self, ticks: u32) -> Tick {
        Tick(self.0.saturating_add(ticks))
    }

    /// How many ticks have passed since `earlier`.
    pub(super) const fn since(self, earlier: Tick) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Time {
    pub(super) tick: Tick,
    /// Nanoseconds since the clock's start.
    pub(super) nanos: u64,
}

/// Turns instants into ticks. It starts at the first instant that it sees.
#[derive(Debug, Default)]
pub(super) struct Clock {
    start: Option<Instant>,
    /// What it told last: a burst asks for one instant many times.
    last: Option<(Instant, Time)>,
}

impl Clock {
    #[inline]
    pub(super) fn time(&mut self, now: Instant) -> Time {
        match self.last {
            Some((at, time)) if at == now => time,
            _ => self.read(now),
        }
    }

    #[inline]
    pub(super) fn tick(&mut self, now: Instant) -> Tick {
        self.time(now).tick
    }

    /// What it told last.
    pub(super) fn latest(&self) -> Time {
        self.last.map_or_else(Time::default, |(_, time)| time)
    }

    fn read(&mut self, now: Instant) -> Time {
        let start = *self.start.get_or_insert(now);
        let elapsed = now.saturating_duration_since(start);
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let tenths = u32::try_from(nanos / 100_000_000).unwrap_or(u32::MAX);
        let time = Time { tick: Tick(tenths), nanos };
        self.last = Some((now, time));
        time
    }
}

/// How many ticks a time takes: never fewer, as the tick that has begun counts as
/// none.
pub(super) fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(100)).unwrap_or(u32::MAX).saturating_add(1)
}

/// [`Timeouts`] in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes {
    pub(super) udp: u32,
    pub(super) tcp_established: u32,
    pub(super) tcp_transitory: u32,
    pub(super) icmp: u32,
}

impl Lifetimes {
    pub(super) fn new(timeouts: &Timeouts) -> Self {
        Lifetimes {
            udp: ticks(timeouts.udp),
            tcp_established: ticks(timeouts.tcp_established),
            tcp_transitory: ticks(timeouts.tcp_transitory),
            icmp: ticks(timeouts.icmp),
        }
    }
}
