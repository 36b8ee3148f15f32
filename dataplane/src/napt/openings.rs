//! How many sessions a host may open in a second (RFC 6888 REQ-4).

/// How often something may happen: so many times in a second, and so many at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Nanoseconds from one to the next.
    interval: u64,
    /// For how many nanoseconds ahead of their time they may come.
    ahead: u64,
}

impl Rate {
    pub(super) fn new(per_second: u32) -> Self {
        let burst = u64::from(per_second.max(1));
        let interval = 1_000_000_000 / burst;
        Rate { interval, ahead: interval * (burst - 1) }
    }
}

/// A budget that fills with time, as the one number that it takes: when it will be
/// full again, in nanoseconds since the clock's start. Neither a look nor a use
/// divides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Openings {
    full_at: u64,
}

impl Openings {
    /// Whether there is one.
    pub(super) fn has(&self, rate: &Rate, now: u64) -> bool {
        self.full_at.saturating_sub(now) <= rate.ahead
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, rate: &Rate, now: u64) -> bool {
        let has = self.has(rate, now);
        if has {
            self.full_at = self.full_at.max(now).saturating_add(rate.interval);
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// In any stretch of time: never more than the burst and what the time has
        /// brought; and who waits for one gets it.
        #[test]
        fn never_more_than_the_rate_and_the_burst(
            per_second in 0u32..2000,
            steps in proptest::collection::vec((0u64..2_000_000, 1usize..40), 1..60),
        ) {
            let rate = Rate::new(per_second);
            let burst = u64::from(per_second.max(1));
            let mut openings = Openings::default();
            let (mut now, mut taken) = (0u64, 0u64);
            for (pause, tries) in steps {
                now += pause;
                for _ in 0..tries {
                    taken += u64::from(openings.take(&rate, now));
                }
                prop_assert!(taken <= burst + now / rate.interval);
            }
            let mut rested = openings;
            prop_assert!(rested.take(&rate, now + rate.interval));
            now += 2 * 1_000_000_000;
            let at_once = (0..burst + 5).filter(|_| openings.take(&rate, now)).count() as u64;
            prop_assert_eq!(at_once, burst);
        }
    }
}
