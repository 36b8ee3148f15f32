//! How often the node may speak: a bound on bursts, and the schedule of
//! solicitations.

use core::time::Duration;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use crate::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// Once per second on average (RFC 5944 §2.4, §3.6.3), with room for a burst of
/// [`Pace::BURST`]: several moves in a row are each answered at once, a link
/// that flaps is not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// When the average would be exactly one per second again.
    even_at: Instant,
}

impl Pace {
    /// How many may go out without a pause.
    const BURST: u32 = 4;

    /// Takes leave to speak at `now`, or says from when on it will be given.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let ahead = self.even_at.saturating_since(now);
        let slack = SECOND * (Self::BURST - 1);
        if ahead > slack {
            return Err(now + ahead.saturating_sub(slack));
        }
        self.even_at = self.even_at.max(now) + SECOND;
        Ok(())
    }
}

/// Agent solicitations while no agent is known: at once, twice more a second
/// apart, then at intervals that double up to a minute (RFC 5944 §2.4).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Search {
    next: Option<(Instant, u32)>,
}

impl Search {
    /// The longest interval (RFC 5944 §2.4: at least one minute).
    const MAX_INTERVAL: Duration = Duration::from_secs(60);

    /// Starts, unless it is under way.
    pub(super) fn start(&mut self, now: Instant) {
        if self.next.is_none() {
            self.next = Some((now, 0));
        }
    }

    /// Starts over, at the quickest.
    pub(super) fn restart(&mut self, now: Instant) {
        self.next = Some((now, 0));
    }

    /// An agent was found.
    pub(super) fn stop(&mut self) {
        self.next = None;
    }

    /// When the next solicitation is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    /// The one that was due is sent at `now`: sets the next.
    pub(super) fn sent(&mut self, now: Instant, rng: &mut ChaCha8Rng) {
        if let Some((_, count)) = self.next {
            let doublings = count.saturating_sub(1).min(6);
            let interval = (SECOND * (1 << doublings)).min(Self::MAX_INTERVAL);
            self.next = Some((now + interval + jitter(interval, rng), count.saturating_add(1)));
        }
    }

    /// Puts the next solicitation off until `at`.
    pub(super) fn put_off(&mut self, at: Instant) {
        if let Some((due, _)) = &mut self.next {
            *due = at;
        }
    }
}

/// Up to a tenth of `interval`, never negative: no interval gets shorter.
pub(super) fn jitter(interval: Duration, rng: &mut ChaCha8Rng) -> Duration {
    interval * (rng.next_u32() % 100) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(milliseconds: u64) -> Instant {
        Instant(milliseconds * 1_000_000)
    }

    // Shows 5944-2.4.2-b.
    #[test]
    fn a_burst_of_four_then_one_a_second() {
        let mut pace = Pace::default();
        for _ in 0..4 {
            assert_eq!(pace.take(at(5_000)), Ok(()));
        }
        assert_eq!(pace.take(at(5_000)), Err(at(6_000)));
        assert_eq!(pace.take(at(6_000)), Ok(()));
        assert_eq!(pace.take(at(6_500)), Err(at(7_000)));
    }
}
