//! Timers in the order in which they are due.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::Instant;

/// One timer for each token: arming it again moves it, so that nothing stale
/// ever fires. The next one is found without looking at the others.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    queue: BTreeSet<(Instant, T)>,
    armed: BTreeMap<T, Instant>,
}

impl<T: Ord + Copy> Timers<T> {
    pub(crate) const fn new() -> Self {
        Timers { queue: BTreeSet::new(), armed: BTreeMap::new() }
    }

    /// Arms the token's timer for `at`, or moves it there.
    pub(crate) fn arm(&mut self, token: T, at: Instant) {
        if let Some(before) = self.armed.insert(token, at) {
            self.queue.remove(&(before, token));
        }
        self.queue.insert((at, token));
    }

    /// Arms the token's timer, or stops it when there is no time.
    pub(crate) fn set(&mut self, token: T, at: Option<Instant>) {
        match at {
            Some(at) => self.arm(token, at),
            None => self.stop(token),
        }
    }

    /// Stops the token's timer, if it runs.
    pub(crate) fn stop(&mut self, token: T) {
        if let Some(before) = self.armed.remove(&token) {
            self.queue.remove(&(before, token));
        }
    }

    /// When the next timer is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the first timer that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<T> {
        let (at, token) = self.queue.first().copied()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        self.armed.remove(&token);
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_a_moved_one_fires_once() {
        let mut timers = Timers::new();
        timers.arm('b', Instant(20));
        timers.arm('a', Instant(10));
        timers.arm('c', Instant(30));
        timers.arm('a', Instant(25));
        timers.stop('c');
        assert_eq!(timers.next(), Some(Instant(20)));
        assert_eq!(timers.pop_due(Instant(19)), None);
        assert_eq!(timers.pop_due(Instant(40)), Some('b'));
        assert_eq!(timers.pop_due(Instant(40)), Some('a'));
        assert_eq!(timers.pop_due(Instant(40)), None);
        assert_eq!(timers.next(), None);
    }
}
