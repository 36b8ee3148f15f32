//! Noticing an RX core that stands still: it passes no quiescent point, so what was
//! replaced or removed in the tables cannot be reused.
//!
//! Nothing waits for it: a table goes on with its spare entries, and when they are
//! used up what is wanted is kept and tried again. But who runs the box must know.

use std::time::Duration;

use homeport_dataplane::table::qsbr::Held;
use homeport_proto::Instant;

/// An RX core passes a quiescent point many times a second, also at rest.
const NOTICED_AFTER: Duration = Duration::from_secs(2);

/// What the tables hold back, and since when.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    /// The oldest of each table, and since when it has been that.
    oldest: Vec<Option<(Held, Instant)>>,
    told: bool,
}

impl HeldBack {
    /// Looks at what each table holds. To be called every now and then.
    pub(super) fn look(&mut self, held: impl IntoIterator<Item = Option<Held>>, now: Instant) {
        let before = std::mem::take(&mut self.oldest);
        let mut before = before.into_iter();
        self.oldest = held
            .into_iter()
            .map(|held| {
                let before = before.next().flatten();
                let since = match (held, before) {
                    (Some(held), Some((before, since))) if held.epoch == before.epoch => since,
                    _ => now,
                };
                held.map(|held| (held, since))
            })
            .collect();
        let (entries, time) = self.totals(now);
        let seconds = time.as_secs();
        if time < NOTICED_AFTER {
            if std::mem::take(&mut self.told) {
                tracing::info!("all RX cores pass quiescent points again");
            }
        } else if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                "an RX core has not passed a quiescent point for {seconds} s; {entries} entries \
                 wait: it is stopped, or it hangs"
            );
        }
    }

    /// How many entries wait, and the longest that one has.
    pub(super) fn totals(&self, now: Instant) -> (usize, Duration) {
        let held = || self.oldest.iter().flatten();
        let longest = held().map(|(_, since)| now.saturating_since(*since)).max();
        (held().map(|(held, _)| held.entries).sum(), longest.unwrap_or_default())
    }

    /// Whether it has been told that a core stands still.
    #[cfg(test)]
    pub(super) const fn is_told(&self) -> bool {
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_stands_still_is_told_of_once_and_one_that_goes_on_never() {
        let at = |seconds: u64| Instant(seconds * 1_000_000_000);
        let held = |epoch| Some(Held { epoch, entries: 3 });
        let mut back = HeldBack::default();
        // Always something that waits, never the same.
        for second in 0..10 {
            back.look([held(second), None], at(second));
            assert!(!back.is_told());
        }
        for (second, told) in [(10, false), (11, false), (12, true), (13, true)] {
            back.look([held(10), None], at(second));
            assert_eq!(back.is_told(), told, "{second}");
        }
        assert_eq!(back.totals(at(13)), (3, Duration::from_secs(3)));
        back.look([None, None], at(14));
        assert!(!back.is_told());
        assert_eq!(back.totals(at(14)), (0, Duration::ZERO));
    }
}
