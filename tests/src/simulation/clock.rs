//! Clocks that are wrong: each party has an NTP clock of its own, which steps and
//! drifts. The monotonic clock is everybody's, and never goes back.

use std::time::Duration;

use homeport_proto::{Instant, Now, NtpTime};

/// A party's NTP clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Nanoseconds ahead of the right time, at `since`.
    ahead: i64,
    since: Duration,
    ppm: i64,
}

impl Clock {
    fn ahead(&self, elapsed: Duration) -> i64 {
        let running = i64::try_from(elapsed.saturating_sub(self.since).as_nanos()).expect("years");
        self.ahead + running / 1_000_000 * self.ppm
    }

    /// Jumps by so many milliseconds.
    pub fn step(&mut self, millis: i64, elapsed: Duration) {
        *self = Clock { ahead: self.ahead(elapsed) + millis * 1_000_000, since: elapsed, ..*self };
    }

    /// Runs so many millionths too fast from now on.
    pub fn drift(&mut self, ppm: i64, elapsed: Duration) {
        *self = Clock { ahead: self.ahead(elapsed), since: elapsed, ppm };
    }

    /// Both clocks of the party.
    pub fn now(&self, elapsed: Duration) -> Now {
        let right = Duration::from_secs(1_800_000_000) + elapsed;
        let ahead = self.ahead(elapsed);
        let off = Duration::from_nanos(ahead.unsigned_abs());
        let unix = if ahead < 0 { right - off } else { right + off };
        Now {
            monotonic: Instant(u64::try_from(elapsed.as_nanos()).expect("years")),
            ntp: NtpTime::from_unix(unix),
        }
    }
}
