//! Time as an input: monotonic instants for timers, NTP time for identifications,
//! and the lifetime field of registration.

use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// A moment of the monotonic clock: nanoseconds since an arbitrary origin.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Instant(pub u64);

impl Instant {
    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_since(earlier)
    }
}

/// NTP time (RFC 5905 §6): seconds since 1900 in the high 32 bits, modulo the
/// era, and the binary fraction in the low 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// Seconds from the NTP epoch (1900) to the Unix epoch (1970).
    const UNIX_EPOCH: u64 = 2_208_988_800;

    /// NTP time of a time since the Unix epoch.
    pub const fn from_unix(since_epoch: Duration) -> Self {
        let seconds = since_epoch.as_secs().wrapping_add(Self::UNIX_EPOCH);
        let fraction = ((since_epoch.subsec_nanos() as u64) << 32) / 1_000_000_000;
        NtpTime(seconds << 32 | fraction)
    }

    /// The signed distance `self - other` in units of 2^-32 s, right across the
    /// wrap of an era (2036).
    pub const fn wrapping_distance(self, other: NtpTime) -> i64 {
        self.0.wrapping_sub(other.0).cast_signed()
    }
}

/// Both clocks at the moment of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// For timers and lifetimes: never steps.
    pub monotonic: Instant,
    /// For identifications: the wall clock, which may step.
    pub ntp: NtpTime,
}

/// The lifetime field of a registration: seconds; 0 deregisters, 0xffff is
/// infinity (RFC 5944 §3.3).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Lifetime(pub u16);

impl Lifetime {
    /// Deregistration.
    pub const ZERO: Lifetime = Lifetime(0);
    /// Never expires.
    pub const INFINITE: Lifetime = Lifetime(0xffff);

    /// How long it lasts; `None` is for ever.
    pub const fn duration(self) -> Option<Duration> {
        match self {
            Lifetime::INFINITE => None,
            Lifetime(seconds) => Some(Duration::from_secs(seconds as u64)),
        }
    }

    /// Whether it asks for deregistration.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Lifetime::INFINITE => f.write_str("infinite"),
            Lifetime(seconds) => write!(f, "{seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_time_starts_in_1900_and_compares_across_the_era() {
        let unix_half_second = NtpTime::from_unix(Duration::from_millis(500));
        assert_eq!(unix_half_second, NtpTime(2_208_988_800 << 32 | 0x8000_0000));
        let last_of_era = NtpTime(u64::MAX);
        let first_of_next = NtpTime(1);
        assert_eq!(first_of_next.wrapping_distance(last_of_era), 2);
        assert_eq!(last_of_era.wrapping_distance(first_of_next), -2);
    }

    #[test]
    fn lifetime_0xffff_never_ends() {
        assert_eq!(Lifetime::INFINITE.duration(), None);
        assert_eq!(Lifetime(65_534).duration(), Some(Duration::from_secs(65_534)));
    }
}
