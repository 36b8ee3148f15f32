//! What crosses between the control core and the workers: which packets are traced, in
//! atomic words, and records of walks, as plain data.
//!
//! # Why the filter is read whole
//!
//! The *generation* is odd while a trace is on. The control core makes it even, then
//! (behind a `Release` fence) writes the words, and makes it odd with a `Release` store.
//! A worker that loads an odd generation with `Acquire` sees the words that came before
//! it; and if, behind an `Acquire` fence, it still loads the same one, none of the words
//! that it read was of a later filter. Otherwise it looks again in its next turn.

use std::time::{Duration, Instant};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::filter::{FILTER_WORDS, PlainFilter};
use super::step::Step;
use super::{KEPT, MAX_STEPS};
use crate::sync::{AtomicU64, Ordering, Padded, Word, fence};
use crate::verdict::{DropReason, PuntReason, Verdict};
use homeport_wire::PortId;

/// What is published.
pub(super) struct Shared {
    /// Read by each worker once a turn, and written when a trace begins or ends.
    generation: Padded<AtomicU64>,
    filter: [Word; FILTER_WORDS],
    /// Walks that may still be told.
    left: Padded<AtomicU64>,
    lost: AtomicU64,
    start: Instant,
}

impl Shared {
    pub(super) fn new(start: Instant) -> Self {
        Shared {
            generation: Padded(AtomicU64::new(0)),
            filter: std::array::from_fn(|_| Word::new(0)),
            left: Padded(AtomicU64::new(0)),
            lost: AtomicU64::new(0),
            start,
        }
    }

    /// Publishes a filter. No trace is on.
    pub(super) fn start(&self, filter: &PlainFilter, count: u64) {
        // Relaxed: only the control core changes it.
        let generation = self.generation.0.load(Ordering::Relaxed);
        // Pairs with the fence of `filter`: see above.
        fence(Ordering::Release);
        for (to, word) in self.filter.iter().zip(filter.to_words()) {
            to.store(word);
        }
        self.left.0.store(count, Ordering::Relaxed);
        self.lost.store(0, Ordering::Relaxed);
        self.generation.0.store(generation | 1, Ordering::Release);
    }

    pub(super) fn stop(&self) {
        let generation = self.generation.0.load(Ordering::Relaxed);
        if generation & 1 == 1 {
            self.generation.0.store(generation + 1, Ordering::Release);
        }
    }

    /// The generation, with no promise about anything else.
    #[inline(always)]
    pub(super) fn generation(&self) -> u64 {
        self.generation.0.load(Ordering::Relaxed)
    }

    /// The generation and the filter of the trace that is on, if one is.
    pub(super) fn filter(&self) -> (u64, Option<PlainFilter>) {
        let generation = self.generation.0.load(Ordering::Acquire);
        if generation & 1 == 0 {
            return (generation, None);
        }
        let mut words = [0; FILTER_WORDS];
        for (word, from) in words.iter_mut().zip(&self.filter) {
            *word = from.load();
        }
        fence(Ordering::Acquire);
        if self.generation.0.load(Ordering::Relaxed) == generation {
            (generation, Some(PlainFilter::of_words(words)))
        } else {
            (generation - 1, None)
        }
    }

    /// Takes leave to tell a walk; `false` when the count is used up.
    pub(super) fn take(&self) -> bool {
        let one_less = |left: u64| match left {
            u64::MAX => Some(left),
            _ => left.checked_sub(1),
        };
        self.left.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// Says that a walk for which leave was taken is lost.
    pub(super) fn lose(&self) {
        let one_more = |left: u64| if left == u64::MAX { None } else { Some(left + 1) };
        // An error says that the count has no end.
        let _ = self.left.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Says that a walk is lost.
    pub(super) fn lose_unasked(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left.0.load(Ordering::Relaxed) == 0
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// A time as records have it: nanoseconds since the tracer was made.
    pub(super) fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn instant(&self, nanos: u64) -> Instant {
        self.start.checked_add(Duration::from_nanos(nanos)).unwrap_or(self.start)
    }
}

/// In front of a record. Native byte order: it never leaves the machine.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Head {
    pub(super) at: u64,
    pub(super) number: u64,
    pub(super) tenant: u32,
    /// Of the whole frames.
    pub(super) frame_len: u32,
    pub(super) sent_len: u32,
    pub(super) port: u16,
    /// Bytes that are kept of the frame that came in; the rest is of the one that left.
    pub(super) frame: u16,
    /// The port that it left by, or the worker that it goes on at.
    to: u16,
    /// A probe's number, and [`NO_PROBE`] without one.
    probe: u16,
    kind: u8,
    reason: u8,
    pub(super) steps: u8,
    pub(super) omitted: u8,
    pub(super) has_link_header: u8,
    zero: [u8; 7],
}

const NO_PROBE: u16 = u16::MAX;

/// A [`Head::kind`] that is no verdict.
const END_OF_PROBE: u8 = 255;

impl Head {
    pub(super) const fn new(probe: Option<u8>) -> Self {
        let probe = if let Some(probe) = probe { probe as u16 } else { NO_PROBE };
        Head {
            at: 0,
            number: 0,
            tenant: 0,
            frame_len: 0,
            sent_len: 0,
            port: 0,
            frame: 0,
            to: 0,
            probe,
            kind: END_OF_PROBE,
            reason: 0,
            steps: 0,
            omitted: 0,
            has_link_header: 0,
            zero: [0; 7],
        }
    }

    pub(super) fn probe(&self) -> Option<u8> {
        u8::try_from(self.probe).ok()
    }

    pub(super) fn set_verdict(&mut self, verdict: Verdict) {
        (self.kind, self.reason, self.to) = match verdict {
            Verdict::Transmit(port) => (0, 0, port.0),
            Verdict::Punt(reason) => (1, reason as u8, 0),
            Verdict::ToKernel => (2, 0, 0),
            Verdict::Hold => (3, 0, 0),
            Verdict::HandOver(worker) => (4, 0, worker),
            Verdict::Drop(reason) => (5, reason as u8, 0),
        };
    }

    /// `None`: the end of a probe, or nothing of this version.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        Some(match self.kind {
            0 => Verdict::Transmit(PortId(self.to)),
            1 => Verdict::Punt(PuntReason::from_u8(self.reason)?),
            2 => Verdict::ToKernel,
            3 => Verdict::Hold,
            4 => Verdict::HandOver(self.to),
            5 => Verdict::Drop(DropReason::from_u8(self.reason)?),
            _ => return None,
        })
    }
}

/// A record while it is written: what is in use of it is contiguous but for the steps
/// and bytes that are not there.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Record {
    pub(super) head: Head,
    pub(super) steps: [Step; MAX_STEPS],
    /// What is kept of the frame that came in, and behind it of the one that left.
    pub(super) bytes: [u8; 2 * KEPT],
}

impl Record {
    /// Head and steps, and the bytes.
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        let steps_len = usize::from(self.head.steps) * size_of::<Step>();
        let len = usize::from(self.head.frame) + (self.head.sent_len as usize).min(KEPT);
        let head = self.as_bytes().get(..size_of::<Head>() + steps_len).unwrap_or_default();
        (head, self.bytes.get(..len).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Filter;

    #[test]
    fn a_filter_is_seen_whole_or_not_at_all() {
        let shared = Shared::new(Instant::now());
        assert_eq!(shared.filter(), (0, None));
        let filters = ["src=10.0.0.1 dst=10.0.0.1 sport=1", "src=10.0.0.2 dst=10.0.0.2 sport=2"]
            .map(|text| Filter::parse(text).unwrap().plain(&[]).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 0..20_000 {
                    shared.start(&filters[turn % 2], 1);
                    shared.stop();
                }
            });
            for _ in 0..20_000 {
                if let (generation, Some(filter)) = shared.filter() {
                    assert!(filters.contains(&filter), "{generation}: {filter:?}");
                }
            }
        });
        assert_eq!(shared.filter(), (40_000, None));
    }

    #[test]
    fn a_count_is_used_up_once_and_what_is_lost_does_not_count() {
        let shared = Shared::new(Instant::now());
        shared.start(&PlainFilter::default(), 2);
        assert!(shared.take() && shared.take() && !shared.take() && shared.is_spent());
        shared.lose();
        assert!(shared.take() && !shared.take());
        assert_eq!(shared.lost(), 1);
        shared.stop();
        shared.start(&PlainFilter::default(), u64::MAX);
        assert!((0..100).all(|_| shared.take()) && !shared.is_spent());
        assert_eq!(shared.lost(), 0);
    }

    #[test]
    fn every_verdict_crosses_as_it_is() {
        let every = [
            Verdict::Transmit(PortId(7)),
            Verdict::Punt(PuntReason::NatLog),
            Verdict::ToKernel,
            Verdict::Hold,
            Verdict::HandOver(3),
            Verdict::Drop(DropReason::InjectMalformed),
        ];
        for verdict in every {
            let mut head = Head::new(None);
            assert_eq!(head.verdict(), None);
            head.set_verdict(verdict);
            assert_eq!((head.verdict(), head.probe()), (Some(verdict), None));
        }
        assert_eq!(Head::new(Some(255)).probe(), Some(255));
    }
}
