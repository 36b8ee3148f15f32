//! The time-stamp counter, and what the operating system says of this thread.
//!
//! The counter ticks at a constant rate that is not the core's clock: a cycle here is
//! a tick, as in the figures of other dataplanes.
#![allow(unsafe_code, reason = "reading the counter and the usage of a thread is unsafe")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The counter, read when all that comes before is done, and before all that follows:
/// a look-up that is still on its way is charged to who began it.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn now() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: x86-64 has both instructions, and neither touches memory.
    unsafe {
        _mm_lfence();
        let ticks = _rdtsc();
        _mm_lfence();
        ticks
    }
}

/// Elsewhere a tick is a nanosecond.
#[cfg(not(target_arch = "x86_64"))]
pub fn now() -> u64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// What one reading costs, in ticks: the least of many.
pub fn reading() -> u64 {
    static COST: OnceLock<u64> = OnceLock::new();
    *COST.get_or_init(|| {
        let pair = |_| {
            let begin = now();
            now() - begin
        };
        (0..10_000).map(pair).min().unwrap_or_default()
    })
}

/// Ticks in a second.
pub fn per_second() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        // The middle of five, as a pause of this thread between the two clocks makes
        // one too long or too short.
        let mut rates: Vec<f64> = (0..5).map(|_| rate(Duration::from_millis(20))).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(1e9)
    })
}

fn rate(time: Duration) -> f64 {
    let (begin, ticks) = (Instant::now(), now());
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
    let (elapsed, ticks) = (begin.elapsed(), now() - ticks);
    ticks as f64 / elapsed.as_secs_f64()
}

/// So many ticks as a time.
pub fn duration(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / per_second())
}

/// A time in ticks.
pub fn ticks(time: Duration) -> u64 {
    (time.as_secs_f64() * per_second()) as u64
}

/// How often this thread was put aside for another one.
pub fn preemptions() -> u64 {
    usage().ru_nivcsw.unsigned_abs()
}

/// How long this thread has had a core.
pub fn cpu_time() -> Duration {
    let usage = usage();
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs())
            + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn usage() -> libc::rusage {
    // SAFETY: all zeros are a value of this plain struct, and the call writes into it
    // and nowhere else.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_go_forward_and_a_reading_costs_some() {
        let begin = now();
        assert!(now() > begin);
        assert!(reading() > 0 && per_second() > 1e8);
    }

    #[test]
    fn a_time_and_its_ticks_are_one() {
        let time = Duration::from_millis(250);
        let back = duration(ticks(time));
        assert!(back.abs_diff(time) < Duration::from_micros(1), "{back:?}");
    }
}
