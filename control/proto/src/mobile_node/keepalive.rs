//! Keeping a NAT's mapping alive, and finding out that it is lost (RFC 3519 §4.9,
//! §4.10).
//!
//! After K seconds in which nothing was sent, and after [`SILENCE`] in which what
//! was sent brought nothing back, the home agent is asked for an echo through the
//! tunnel. Whatever comes through the tunnel shows that it works. When nothing
//! does, the mapping counts as lost, and the node registers anew.

use alloc::vec::Vec;
use core::time::Duration;
use homeport_wire::icmpv4::{ECHO_REPLY, ECHO_REQUEST, Icmpv4Header, Icmpv4Packet};
use zerocopy::IntoBytes;

use crate::Instant;

/// K, where the home agent names none (RFC 3519 §4.9).
pub const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(110);

/// No keepalive interval is shorter (RFC 3519 §4.10).
pub const MIN_KEEPALIVE: Duration = Duration::from_secs(10);

/// How long packets may go out with nothing coming back before the tunnel is
/// probed. A NAT that gave the node another port is found thus while there is
/// traffic, as no idle time would find it.
pub const SILENCE: Duration = Duration::from_secs(10);

/// How long an echo is waited for, and how many are asked for.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
const ATTEMPTS: u8 = 3;

/// The keepalives of one registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keepalive {
    /// K.
    pub(super) interval: Duration,
    identifier: u16,
    sequence: u16,
    last_sent: Instant,
    /// Since when what was sent has brought nothing back.
    unanswered_since: Option<Instant>,
    probe: Option<Probe>,
    /// Nothing more is to be found out until the next registration.
    lost: bool,
}

/// An echo that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Probe {
    retry_at: Instant,
    attempts: u8,
    /// Whether it was asked for because nothing was sent for so long.
    idle: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Send this ICMP message through the tunnel, from the home address to the
    /// home agent.
    Send(Vec<u8>),
    /// The mapping is lost.
    Lost {
        /// Whether it was for want of traffic: then K was too long.
        idle: bool,
    },
}

impl Keepalive {
    /// Those of a registration whose request was sent at `sent_at`; the node's
    /// own echoes are known by `identifier`.
    pub(super) fn new(interval: Duration, identifier: u16, sent_at: Instant) -> Self {
        Keepalive {
            interval: interval.max(MIN_KEEPALIVE),
            identifier,
            sequence: 0,
            last_sent: sent_at,
            unanswered_since: None,
            probe: None,
            lost: false,
        }
    }

    /// The interval to try after this one was too long.
    pub(super) fn shorter(&self) -> Duration {
        (self.interval / 2).max(MIN_KEEPALIVE)
    }

    /// Something was sent to the home agent from the tunnel's port: a packet, or a
    /// registration request.
    pub(super) fn sent(&mut self, now: Instant) {
        self.last_sent = now;
        self.unanswered_since.get_or_insert(now);
    }

    /// Something came out of the tunnel.
    pub(super) fn received(&mut self) {
        self.unanswered_since = None;
        self.probe = None;
    }

    /// Whether an ICMP message of the home agent answers one of ours.
    pub(super) fn is_answer(&self, icmp: &[u8]) -> bool {
        Icmpv4Packet::new_checked(icmp).is_ok_and(|packet| {
            let header = packet.header();
            let [high, low, ..] = header.rest;
            header.message_type == ECHO_REPLY && u16::from_be_bytes([high, low]) == self.identifier
        })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = match self.probe {
            Some(probe) => probe.retry_at,
            None => self.idle_at().min(self.silent_at().unwrap_or(Instant(u64::MAX))),
        };
        (!self.lost).then_some(due)
    }

    fn idle_at(&self) -> Instant {
        self.last_sent + self.interval
    }

    fn silent_at(&self) -> Option<Instant> {
        self.unanswered_since.map(|since| since + SILENCE)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return None;
        }
        let idle_now = self.idle_at() <= now;
        let probe = self.probe.unwrap_or(Probe { retry_at: now, attempts: 0, idle: idle_now });
        if probe.attempts >= ATTEMPTS {
            self.lost = true;
            return Some(Due::Lost { idle: probe.idle });
        }
        let attempts = probe.attempts.saturating_add(1);
        self.probe = Some(Probe { retry_at: now + ANSWER_WAIT, attempts, ..probe });
        self.sequence = self.sequence.wrapping_add(1);
        self.sent(now);
        let ([a, b], [c, d]) = (self.identifier.to_be_bytes(), self.sequence.to_be_bytes());
        let header = Icmpv4Header::new(ECHO_REQUEST, 0, [a, b, c, d], &[]);
        Some(Due::Send(header.as_bytes().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(5_000_000_000);

    fn at(seconds: u64) -> Instant {
        START + Duration::from_secs(seconds)
    }

    fn keepalive(seconds: u64) -> Keepalive {
        Keepalive::new(Duration::from_secs(seconds), 7, START)
    }

    /// The home agent's answer to an echo request.
    fn answer(request: &Due) -> Vec<u8> {
        let Due::Send(request) = request else { panic!("{request:?}") };
        let rest = *request[4..].first_chunk().unwrap();
        Icmpv4Header::new(ECHO_REPLY, 0, rest, &[]).as_bytes().to_vec()
    }

    /// RFC 3519 §4.9: when nothing else was sent for K seconds.
    // Shows 3519-3.2-b, 3519-4.9-b.
    #[test]
    fn an_echo_is_asked_for_after_k_seconds_without_traffic() {
        let mut keepalive = keepalive(110);
        assert_eq!(keepalive.handle_timeout(at(109)), None);
        keepalive.sent(at(100));
        keepalive.received();
        assert_eq!(keepalive.poll_timeout(), Some(at(210)));
        assert_eq!(keepalive.handle_timeout(at(110)), None);
        let due = keepalive.handle_timeout(at(210)).unwrap();
        assert!(keepalive.is_answer(&answer(&due)));
        keepalive.received();
        assert_eq!(keepalive.poll_timeout(), Some(at(320)));
    }

    /// RFC 3519 §4.10: lost after a number of retransmissions, not before.
    #[test]
    fn three_echoes_without_answer_are_a_lost_mapping_and_then_it_is_quiet() {
        let mut keepalive = keepalive(30);
        for second in [30, 31, 32] {
            assert!(matches!(keepalive.handle_timeout(at(second)), Some(Due::Send(_))));
            assert_eq!(keepalive.poll_timeout(), Some(at(second + 1)));
        }
        assert_eq!(keepalive.handle_timeout(at(33)), Some(Due::Lost { idle: true }));
        assert_eq!(keepalive.poll_timeout(), None);
        assert_eq!(keepalive.handle_timeout(at(99)), None);
        assert_eq!(keepalive.shorter(), Duration::from_secs(15));
    }

    #[test]
    fn packets_that_bring_nothing_back_make_it_ask_and_that_is_not_for_want_of_traffic() {
        let mut keepalive = keepalive(110);
        for second in 1..=10 {
            keepalive.sent(at(second));
        }
        assert_eq!(keepalive.poll_timeout(), Some(at(11)));
        let due = keepalive.handle_timeout(at(11)).unwrap();
        // What comes out of the tunnel is as good as the answer.
        let mut works = keepalive;
        works.received();
        works.sent(at(12));
        assert_eq!(works.poll_timeout(), Some(at(22)));
        assert!(matches!(due, Due::Send(_)));
        keepalive.handle_timeout(at(12));
        keepalive.handle_timeout(at(13));
        assert_eq!(keepalive.handle_timeout(at(14)), Some(Due::Lost { idle: false }));
    }

    // Shows 3519-4.10-b.
    #[test]
    fn no_interval_is_below_ten_seconds() {
        assert_eq!(keepalive(1).interval, MIN_KEEPALIVE);
        assert_eq!(keepalive(12).shorter(), MIN_KEEPALIVE);
    }

    #[test]
    fn only_an_echo_reply_with_our_identifier_is_an_answer() {
        let keepalive = keepalive(110);
        let message = |kind, rest| Icmpv4Header::new(kind, 0, rest, &[]).as_bytes().to_vec();
        assert!(keepalive.is_answer(&message(ECHO_REPLY, [0, 7, 0, 1])));
        assert!(!keepalive.is_answer(&message(ECHO_REPLY, [0, 8, 0, 1])));
        assert!(!keepalive.is_answer(&message(ECHO_REQUEST, [0, 7, 0, 1])));
        let mut broken = message(ECHO_REPLY, [0, 7, 0, 1]);
        broken[6] ^= 1;
        assert!(!keepalive.is_answer(&broken));
        assert!(!keepalive.is_answer(&[]));
    }
}
