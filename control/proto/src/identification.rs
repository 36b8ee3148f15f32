//! Replay protection of registration requests (RFC 5944 §5.7): pure decisions on
//! what a home agent remembers of each node.
//!
//! A timestamp is fresh when it is close enough to the home agent's time and
//! later than all that were accepted before. A nonce is fresh when it is the one
//! that the home agent gave last.
//!
//! *A clock that steps back* leaves the last accepted timestamp (the mark) in
//! the future, where it would refuse the node until the clock is there again.
//! Such a mark cannot be right, because it could not be accepted now; it gives
//! way to the present second. What keeps replays out even then is the memory of
//! the last accepted identifications, one by one, and below the oldest of them
//! everything is refused.
//!
//! *A start* gives every node a mark at the time of the start, so that a request
//! captured before it is answered with 133.
//!
//! **Not done:** marks do not outlive the process, nor go to a standby.

use core::time::Duration;

use crate::NtpTime;
use crate::limits::REMEMBERED_IDENTIFICATIONS;
use crate::message::Identification;

/// What a request's identification says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Never seen: the request may be acted upon.
    Fresh,
    /// The request that was accepted last, once more: the same answer is due,
    /// and nothing else (RFC 5944 §3.8.2.2). Only with nonces, where a
    /// retransmission is the same message (RFC 5944 §3.6.3).
    Repeated,
    /// Stale, ahead of time or replayed: 133.
    Mismatch,
}

/// Why a timestamp is not fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staleness {
    /// It is further from the home agent's time than the tolerance.
    ClockOff,
    /// It was accepted before.
    Replayed,
    /// It is not later than one that was accepted before and is later than now by so
    /// many seconds: a clock was set back.
    MarkAhead(u32),
    /// It is not later than one that was accepted before.
    OutOfOrder,
    /// It is from before the home agent's start.
    BeforeStart,
}

/// The sender's clock less ours in whole seconds, as a timestamp says.
pub fn clock_offset(identification: Identification, now: NtpTime) -> i32 {
    let distance = NtpTime(identification.0).wrapping_distance(now);
    let rounded = distance.saturating_add(1 << 31) >> 32;
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

/// What a home agent remembers of one node's timestamps: 100 bytes, as there may be
/// millions of nodes.
///
/// The last accepted ones are kept by their second and a sum of their fraction, which
/// is all that they are compared by when a clock has stepped: a fresh timestamp that
/// looks like one of them, as one in 256 of the same second does, is refused, and no
/// accepted one is ever taken for fresh. While clocks only go forward nothing is
/// compared with them, as the mark is later than all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct TimestampHistory {
    /// The latest accepted timestamp, if `count` is not zero.
    mark: NtpTime,
    /// The latest of those that are no longer remembered one by one, to the end of
    /// its second, if `forgets`.
    forgotten: NtpTime,
    /// The seconds of the last accepted ones, a ring.
    seconds: [u32; REMEMBERED_IDENTIFICATIONS],
    /// The sums of their fractions.
    sums: [u8; REMEMBERED_IDENTIFICATIONS],
    /// How many are remembered.
    count: u8,
    /// The place of the next one.
    next: u8,
    forgets: bool,
    /// Whether one of those that are remembered may be later than the mark.
    stepped: bool,
}

impl TimestampHistory {
    /// Judges a timestamp at the home agent's time `now` and changes nothing.
    /// Nothing before `floor`, the time of the agent's start, is fresh.
    pub fn judge(
        &self,
        identification: Identification,
        now: NtpTime,
        tolerance: Duration,
        floor: NtpTime,
    ) -> Freshness {
        let timestamp = NtpTime(identification.0);
        let tolerance = fixed_point(tolerance);
        let within = timestamp.wrapping_distance(now).unsigned_abs() <= tolerance;
        let (mark, forgotten) = (self.mark, self.forgotten);
        let mark = (self.count > 0).then_some(mark);
        let credible = mark.map(|mark| plausible(mark, now, tolerance));
        // Else the mark is later than all that was accepted.
        let compares = self.stepped || credible != mark;
        let later = [credible, Some(plausible(floor, now, tolerance))]
            .into_iter()
            .flatten()
            .chain((compares && self.forgets).then_some(forgotten))
            .all(|mark| timestamp.wrapping_distance(mark) > 0);
        #[cfg(feature = "planted-bugs")]
        if within && self.planted(timestamp, later) {
            return Freshness::Fresh;
        }
        if within && later && !(compares && self.remembers(timestamp)) {
            Freshness::Fresh
        } else {
            Freshness::Mismatch
        }
    }

    /// Why [`judge`](Self::judge) has found a timestamp not fresh, by the same
    /// arguments.
    pub fn why_stale(
        &self,
        identification: Identification,
        now: NtpTime,
        tolerance: Duration,
        floor: NtpTime,
    ) -> Staleness {
        let timestamp = NtpTime(identification.0);
        let tolerance = fixed_point(tolerance);
        if timestamp.wrapping_distance(now).unsigned_abs() > tolerance {
            return Staleness::ClockOff;
        }
        let mark = self.mark;
        let marked = self.count > 0;
        if marked && timestamp == mark || self.remembers(timestamp) {
            return Staleness::Replayed;
        }
        if marked && timestamp.wrapping_distance(plausible(mark, now, tolerance)) <= 0 {
            let ahead = mark.wrapping_distance(now);
            return match u32::try_from(ahead.saturating_add(0xffff_ffff) >> 32) {
                Ok(seconds) if ahead > 0 => Staleness::MarkAhead(seconds),
                _ => Staleness::OutOfOrder,
            };
        }
        if timestamp.wrapping_distance(plausible(floor, now, tolerance)) <= 0 {
            return Staleness::BeforeStart;
        }
        Staleness::OutOfOrder
    }

    /// Remembers an identification that was found fresh and authentic.
    pub fn accept(&mut self, identification: Identification) {
        let timestamp = NtpTime(identification.0);
        let (full, mark) = (self.count == COUNT, self.mark);
        let goes_back = timestamp.wrapping_distance(mark) <= 0;
        let in_order = !self.stepped && !goes_back;
        let earliest = if full && !in_order { self.earliest() } else { usize::from(self.next) };
        let (Some(second), Some(sum)) =
            (self.seconds.get_mut(earliest), self.sums.get_mut(earliest))
        else {
            return;
        };
        // What is ahead of a clock that has stepped back stays remembered one by one:
        // to refuse all up to there would shut the node out until then.
        let before_all = full && identification.high().wrapping_sub(*second).cast_signed() < 0;
        let oldest = if before_all && !in_order {
            identification.high()
        } else {
            *sum = sum_of(identification.low());
            self.next = (self.next + 1) % COUNT;
            core::mem::replace(second, identification.high())
        };
        if full {
            let oldest = NtpTime(Identification::from_halves(oldest, u32::MAX).0);
            let forgotten = self.forgotten;
            if !self.forgets || oldest.wrapping_distance(forgotten) > 0 {
                self.forgotten = oldest;
            }
            self.forgets = true;
        } else {
            self.count += 1;
        }
        let mark = self.mark;
        if self.stepped || timestamp.wrapping_distance(mark) <= 0 {
            // All others are before the mark's second when the step is over.
            let later = self.remembered().filter(|(second, _)| {
                identification.high().wrapping_sub(*second).cast_signed() <= 0
            });
            self.stepped = later.count() > 1;
        }
        self.mark = timestamp;
    }

    #[cfg(feature = "planted-bugs")]
    fn planted(&self, timestamp: NtpTime, later: bool) -> bool {
        use crate::planted::{Bug, is};
        let mark = self.mark;
        let is_last = self.count > 0 && timestamp == mark;
        is(Bug::EqualIdentification) && is_last || is(Bug::SteppedMarkForgotten) && later
    }

    /// How many accepted ones are remembered one by one.
    pub(crate) const fn count(&self) -> u8 {
        self.count
    }

    /// Seconds and sums of those that are remembered, in no order.
    fn remembered(&self) -> impl Iterator<Item = (u32, u8)> {
        let all = self.seconds.iter().copied().zip(self.sums.iter().copied());
        all.take(usize::from(self.count))
    }

    /// The place of the earliest of those that are remembered.
    fn earliest(&self) -> usize {
        let seconds = self.seconds.iter().take(usize::from(self.count)).copied().enumerate();
        let earlier = |one: &(usize, u32), other: &(usize, u32)| {
            one.1.wrapping_sub(other.1).cast_signed().cmp(&0)
        };
        seconds.min_by(earlier).map_or(0, |(place, _)| place)
    }

    fn remembers(&self, timestamp: NtpTime) -> bool {
        let looked_for = Identification(timestamp.0);
        let looked_for = (looked_for.high(), sum_of(looked_for.low()));
        self.remembered().any(|one| one == looked_for)
    }
}

/// How many are remembered one by one.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const COUNT: u8 = REMEMBERED_IDENTIFICATIONS as u8;

/// A sum of a timestamp's fraction.
fn sum_of(fraction: u32) -> u8 {
    fraction.to_be_bytes().into_iter().fold(0, u8::wrapping_add)
}

/// The identification of a reply to a request that was or was not fresh
/// (RFC 5944 §5.7.1): the request's own, or the home agent's time over the
/// request's low half.
pub const fn timestamp_reply(
    request: Identification,
    now: NtpTime,
    freshness: Freshness,
) -> Identification {
    match freshness {
        Freshness::Fresh | Freshness::Repeated => request,
        Freshness::Mismatch => {
            Identification::from_halves(Identification(now.0).high(), request.low())
        }
    }
}

/// What a home agent remembers of one node's nonces (RFC 5944 §5.7.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonceHistory {
    /// The nonce that the next request must carry in its high half.
    outstanding: Option<u32>,
    /// The request that was accepted last.
    last: Option<Identification>,
}

impl NonceHistory {
    /// Judges a nonce and changes nothing.
    pub fn judge(&self, identification: Identification) -> Freshness {
        if self.last == Some(identification) {
            Freshness::Repeated
        } else if self.outstanding == Some(identification.high()) {
            Freshness::Fresh
        } else {
            Freshness::Mismatch
        }
    }

    /// Remembers an identification that was found fresh and authentic; `nonce`,
    /// unpredictable, is asked for next.
    pub fn accept(&mut self, identification: Identification, nonce: u32) {
        self.last = Some(identification);
        // "The high-order values SHOULD differ from their previous values."
        let differs = nonce != identification.high();
        self.outstanding = Some(if differs { nonce } else { nonce.wrapping_add(1) });
    }

    /// The identification of a reply: the nonce that the next request must carry
    /// over the request's low half. `nonce`, unpredictable, is used when none is
    /// outstanding. An outstanding one stays, or else a replayed request would
    /// take away the nonce that the node is about to use.
    pub fn reply(&mut self, request: Identification, nonce: u32) -> Identification {
        let high = *self.outstanding.get_or_insert(nonce);
        Identification::from_halves(high, request.low())
    }
}

/// A duration in units of 2^-32 s.
pub(crate) fn fixed_point(duration: Duration) -> u64 {
    let fraction = (u64::from(duration.subsec_nanos()) << 32) / 1_000_000_000;
    duration.as_secs().min(u64::from(u32::MAX >> 1)) << 32 | fraction
}

/// The mark, unless the clock has stepped back behind it: then the end of the
/// second before `now`, so that the second that a 133 names is fresh.
fn plausible(mark: NtpTime, now: NtpTime, tolerance: u64) -> NtpTime {
    let ahead = mark.wrapping_distance(now);
    if ahead > 0 && ahead.unsigned_abs() > tolerance {
        NtpTime((now.0 & !0xffff_ffff).wrapping_sub(1))
    } else {
        mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Duration = Duration::from_secs(7);
    const SECOND: u64 = 1 << 32;
    const NOW: NtpTime = NtpTime(3_900_000_000 * SECOND);
    const LONG_AGO: NtpTime = NtpTime(3_000_000_000 * SECOND);

    fn judge(history: &TimestampHistory, timestamp: u64, now: u64) -> Freshness {
        history.judge(Identification(timestamp), NtpTime(now), TOLERANCE, LONG_AGO)
    }

    // Shows 5944-5.7.1-f, attack-6.
    #[test]
    fn the_window_is_closed_at_seven_seconds_on_both_sides() {
        let history = TimestampHistory::default();
        for (timestamp, expected) in [
            (NOW.0, Freshness::Fresh),
            (NOW.0 + 7 * SECOND, Freshness::Fresh),
            (NOW.0 + 7 * SECOND + 1, Freshness::Mismatch),
            (NOW.0 - 7 * SECOND, Freshness::Fresh),
            (NOW.0 - 7 * SECOND - 1, Freshness::Mismatch),
            (0, Freshness::Mismatch),
            (u64::MAX, Freshness::Mismatch),
        ] {
            assert_eq!(judge(&history, timestamp, NOW.0), expected, "{timestamp:x}");
        }
    }

    // Shows 5944-5.7.1-f.
    #[test]
    fn a_timestamp_must_be_later_than_all_before() {
        let mut history = TimestampHistory::default();
        history.accept(Identification(NOW.0));
        assert_eq!(judge(&history, NOW.0, NOW.0), Freshness::Mismatch);
        assert_eq!(judge(&history, NOW.0 - 1, NOW.0), Freshness::Mismatch);
        assert_eq!(judge(&history, NOW.0 + 1, NOW.0), Freshness::Fresh);
    }

    #[test]
    fn a_stale_timestamp_has_a_reason() {
        let why = |history: &TimestampHistory, timestamp: u64| {
            assert_eq!(judge(history, timestamp, NOW.0), Freshness::Mismatch);
            history.why_stale(Identification(timestamp), NOW, TOLERANCE, LONG_AGO)
        };
        let mut history = TimestampHistory::default();
        assert_eq!(why(&history, NOW.0 + 60 * SECOND), Staleness::ClockOff);
        assert_eq!(why(&history, NOW.0 - 60 * SECOND), Staleness::ClockOff);
        history.accept(Identification(NOW.0 - 2 * SECOND));
        assert_eq!(why(&history, NOW.0 - 2 * SECOND), Staleness::Replayed);
        assert_eq!(why(&history, NOW.0 - 3 * SECOND), Staleness::OutOfOrder);
        history.accept(Identification(NOW.0 + 5 * SECOND));
        assert_eq!(why(&history, NOW.0 + SECOND), Staleness::MarkAhead(5));
        let fresh = TimestampHistory::default();
        let start = NtpTime(NOW.0 - SECOND);
        let before = Identification(NOW.0 - 2 * SECOND);
        assert_eq!(fresh.judge(before, NOW, TOLERANCE, start), Freshness::Mismatch);
        assert_eq!(fresh.why_stale(before, NOW, TOLERANCE, start), Staleness::BeforeStart);
    }

    #[test]
    fn an_offset_is_in_whole_seconds_with_its_sign() {
        let offset = |timestamp: u64| clock_offset(Identification(timestamp), NOW);
        assert_eq!(offset(NOW.0 + 60 * SECOND), 60);
        assert_eq!(offset(NOW.0 - 60 * SECOND - 5), -60);
        assert_eq!(offset(NOW.0 + SECOND / 3), 0);
        assert_eq!(offset(0), i32::try_from((NOW.0 as i64).wrapping_neg() >> 32).unwrap());
    }

    #[test]
    fn the_era_of_2036_wraps_inside_the_window() {
        let mut history = TimestampHistory::default();
        let (before, after) = (u64::MAX - SECOND, SECOND);
        let floor = NtpTime(before - SECOND);
        let judge = |history: &TimestampHistory, timestamp: u64, now: u64| {
            history.judge(Identification(timestamp), NtpTime(now), TOLERANCE, floor)
        };
        assert_eq!(judge(&history, before, after), Freshness::Fresh);
        assert_eq!(judge(&history, after, before), Freshness::Fresh);
        history.accept(Identification(before));
        assert_eq!(judge(&history, after, after), Freshness::Fresh);
        history.accept(Identification(after));
        assert_eq!(judge(&history, before + 1, after), Freshness::Mismatch);
    }

    // Shows attack-7.
    #[test]
    fn what_was_sent_before_the_start_is_refused() {
        let history = TimestampHistory::default();
        let judge = |timestamp: u64| {
            history.judge(Identification(timestamp), NtpTime(NOW.0 + SECOND), TOLERANCE, NOW)
        };
        assert_eq!(judge(NOW.0 - 1), Freshness::Mismatch);
        assert_eq!(judge(NOW.0), Freshness::Mismatch);
        assert_eq!(judge(NOW.0 + 1), Freshness::Fresh);
    }

    /// Reliability row 8.
    // Shows attack-8.
    #[test]
    fn a_mark_ahead_of_the_clock_gives_way_but_what_was_accepted_stays_refused() {
        let mut history = TimestampHistory::default();
        let hour = 3_600 * SECOND;
        let first = NOW.0 - SECOND;
        history.accept(Identification(first));
        history.accept(Identification(NOW.0 + hour));
        // The clock is back. The second that a 133 would name is fresh.
        assert_eq!(judge(&history, NOW.0, NOW.0), Freshness::Fresh);
        assert_eq!(judge(&history, first, NOW.0), Freshness::Mismatch);
        history.accept(Identification(NOW.0 + SECOND));
        assert_eq!(judge(&history, NOW.0 + SECOND, NOW.0), Freshness::Mismatch);
        // An hour on, the request of the wrong hour is still known.
        assert_eq!(judge(&history, NOW.0 + hour, NOW.0 + hour), Freshness::Mismatch);
        assert_eq!(judge(&history, NOW.0 + hour + 1, NOW.0 + hour), Freshness::Fresh);
    }

    /// A node that has registered in the wrong hour renews for as long as it likes in
    /// the right one.
    #[test]
    fn marks_ahead_of_the_clock_shut_nobody_out_later() {
        let mut history = TimestampHistory::default();
        let hour = NOW.0 + 3_600 * SECOND;
        for step in 0..REMEMBERED_IDENTIFICATIONS as u64 {
            history.accept(Identification(hour + step * SECOND));
        }
        for renewal in 0..100 {
            let now = NOW.0 + renewal * 24 * SECOND;
            assert_eq!(judge(&history, now, now), Freshness::Fresh, "{renewal}");
            history.accept(Identification(now));
            assert_eq!(judge(&history, now, now), Freshness::Mismatch);
        }
        for step in 0..REMEMBERED_IDENTIFICATIONS as u64 {
            let captured = hour + step * SECOND;
            assert_eq!(judge(&history, captured, captured), Freshness::Mismatch);
        }
    }

    #[test]
    fn below_the_oldest_remembered_everything_is_refused() {
        let mut history = TimestampHistory::default();
        for step in 0..40 {
            history.accept(Identification(NOW.0 + step * SECOND));
        }
        let remembered = REMEMBERED_IDENTIFICATIONS as u64;
        assert_eq!(history.remembered().count(), REMEMBERED_IDENTIFICATIONS);
        // Step back far behind all of them.
        let now = NOW.0 + 10 * SECOND;
        for step in 10..17 {
            let timestamp = NOW.0 + step * SECOND + 5;
            assert_eq!(judge(&history, timestamp, now), Freshness::Mismatch, "{step}");
        }
        let kept = NOW.0 + (40 - remembered) * SECOND;
        assert_eq!(judge(&history, kept, kept), Freshness::Mismatch);
        assert_eq!(judge(&history, kept + 5, kept), Freshness::Fresh);
    }

    /// While clocks go forward, no two timestamps are mistaken for each other.
    #[test]
    fn every_later_timestamp_of_one_second_is_fresh() {
        let mut history = TimestampHistory::default();
        for step in 0..2_000 {
            let timestamp = NOW.0 + step * 0x10_0001;
            assert_eq!(judge(&history, timestamp, NOW.0), Freshness::Fresh, "{step}");
            history.accept(Identification(timestamp));
            assert_eq!(judge(&history, timestamp, NOW.0), Freshness::Mismatch, "{step}");
        }
        assert_eq!(size_of::<TimestampHistory>(), 100);
    }

    /// What the compact memory may take for an accepted one is refused; what was
    /// accepted always is, whichever way the clock steps.
    // Shows attack-8.
    #[test]
    fn whatever_was_accepted_is_refused_however_the_clock_steps() {
        let mut history = TimestampHistory::default();
        let (mut now, mut random) = (NOW.0, 1u64);
        let mut accepted = alloc::vec::Vec::new();
        for _ in 0..3_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            now = match random >> 61 {
                0 => NOW.0 + (random >> 24 & 0xff) * SECOND,
                _ => now + (random >> 28 & 0x7fff_ffff),
            };
            if judge(&history, now, now) == Freshness::Fresh {
                history.accept(Identification(now));
                accepted.push(now);
            }
            for before in accepted.iter().rev().take(200) {
                assert_eq!(judge(&history, *before, now), Freshness::Mismatch);
                assert_eq!(judge(&history, *before, *before), Freshness::Mismatch);
            }
        }
        assert!(accepted.len() > 50, "{}", accepted.len());
    }

    // Shows 5944-5.7-c, 5944-3.8.2.1-m.
    #[test]
    fn a_reply_names_the_home_agents_time_only_when_it_denies() {
        let request = Identification::from_halves(1, 2);
        let now = NtpTime(9 * SECOND + 5);
        assert_eq!(timestamp_reply(request, now, Freshness::Fresh), request);
        let denied = timestamp_reply(request, now, Freshness::Mismatch);
        assert_eq!(denied, Identification::from_halves(9, 2));
    }

    #[test]
    fn nonces_bring_themselves_into_step_and_answer_a_repeated_request_again() {
        let mut history = NonceHistory::default();
        let first = Identification::from_halves(1, 2);
        assert_eq!(history.judge(first), Freshness::Mismatch);
        assert_eq!(history.reply(first, 77), Identification::from_halves(77, 2));
        // A replay does not take the outstanding nonce away.
        assert_eq!(history.reply(first, 78), Identification::from_halves(77, 2));
        let second = Identification::from_halves(77, 3);
        assert_eq!(history.judge(second), Freshness::Fresh);
        history.accept(second, 77);
        assert_eq!(history.judge(second), Freshness::Repeated);
        assert_eq!(history.judge(Identification::from_halves(77, 4)), Freshness::Mismatch);
        assert_eq!(history.reply(second, 99), Identification::from_halves(78, 3));
    }
}
