//! The clocks and the randomness of the process: the only place where they are
//! read.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use homeport_proto::{Instant, Now, NtpTime};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Both clocks, now. The monotonic one counts through suspend (CLOCK_BOOTTIME),
/// so that a lifetime does not grow while the machine sleeps.
pub fn now() -> Now {
    Now {
        monotonic: Instant(nanoseconds(clock_gettime(ClockId::Boottime))),
        ntp: NtpTime::from_unix(since_epoch(clock_gettime(ClockId::Realtime))),
    }
}

/// A secret seed from the kernel's generator.
///
/// # Errors
/// When there is no `/dev/urandom`.
pub fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

/// How long poll(2) may wait for `deadline`: zero when it has passed, rounded up
/// so that a timer is due when the wait is over.
pub fn wait_until(deadline: Instant, now: Instant) -> Timespec {
    let wait = deadline.saturating_since(now);
    Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(wait.subsec_nanos()),
    }
}

fn nanoseconds(time: Timespec) -> u64 {
    let since = since_epoch(time);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A wall clock before 1970 counts as 1970.
fn since_epoch(time: Timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn now_agrees_with_the_system_and_goes_forward() {
        let system = NtpTime::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        let first = now();
        let second = now();
        let second_of_ntp = 1i64 << 32;
        assert!(first.ntp.wrapping_distance(system).abs() < second_of_ntp);
        assert!(second.monotonic >= first.monotonic);
        assert_ne!(first.monotonic, Instant(0));
    }

    #[test]
    fn two_seeds_differ() {
        assert_ne!(seed().unwrap(), seed().unwrap());
    }

    #[test]
    fn a_deadline_that_has_passed_does_not_wait() {
        let wait = wait_until(Instant(5), Instant(10));
        assert_eq!((wait.tv_sec, wait.tv_nsec), (0, 0));
        let wait = wait_until(Instant(3_500_000_000), Instant(1_000_000_000));
        assert_eq!((wait.tv_sec, wait.tv_nsec), (2, 500_000_000));
    }
}
