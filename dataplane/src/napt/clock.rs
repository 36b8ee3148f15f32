//! Time as flows keep it: tenths of a second since the NAPT was made.

use std::time::{Duration, Instant};

/// A point in time, in tenths of a second since the clock's start. It lasts for
/// thirteen years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(pub(super) u32);

impl Tick {
    pub(super) const PER_SECOND: u32 = 10;

    /// So many ticks later.
    pub(super) const fn plus(self, ticks: u32) -> Tick {
        Tick(self.0.saturating_add(ticks))
    }

    /// How many ticks have passed since `earlier`.
    pub(super) const fn since(self, earlier: Tick) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Turns instants into ticks. It starts at the first instant that it sees.
#[derive(Debug, Default)]
pub(super) struct Clock {
    start: Option<Instant>,
}

impl Clock {
    pub(super) fn tick(&mut self, now: Instant) -> Tick {
        let start = *self.start.get_or_insert(now);
        let tenths = now.saturating_duration_since(start).as_millis() / 100;
        Tick(u32::try_from(tenths).unwrap_or(u32::MAX))
    }
}

/// How many ticks a time takes: never fewer, as the tick that has begun counts as
/// none.
pub(super) fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(100)).unwrap_or(u32::MAX).saturating_add(1)
}
