//! The state of a TCP connection as a NAPT between its ends sees it (RFC 7857 §2,
//! RFC 5382 REQ-2, REQ-5).
//!
//! A FIN or RST takes effect only when it lies inside the window that its receiver
//! has announced: what somebody off the path has guessed changes nothing. And even
//! then nothing ends at once: the session goes on for the transitory timeout, and
//! after a RST the next packet of data brings it back.

use homeport_wire::tcp::TcpHeader;

use super::clock::Lifetimes;

/// The highest window scale (RFC 7323 §2.3).
const MAX_SCALE: u8 = 14;

/// TCP options (RFC 9293 §3.1, RFC 7323 §2.2).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const WINDOW_SCALE: u8 = 3;

/// What a segment says that a connection's state depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpSegment {
    flags: u8,
    sequence: u32,
    acknowledgment: u32,
    window: u16,
    /// Shift of later windows, in a SYN.
    scale: Option<u8>,
}

impl TcpSegment {
    /// Reads a header and its options, which `rest` starts with.
    pub(super) fn read(tcp: &TcpHeader, rest: &[u8]) -> Self {
        let options = rest.get(..tcp.header_len().saturating_sub(TcpHeader::LEN));
        let options = options.filter(|_| tcp.flags & TcpHeader::SYN != 0);
        TcpSegment {
            flags: tcp.flags,
            sequence: tcp.sequence.get(),
            acknowledgment: tcp.acknowledgment.get(),
            window: tcp.window.get(),
            scale: options.and_then(window_scale),
        }
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it opens a connection.
    pub(super) const fn opens(&self) -> bool {
        self.has(TcpHeader::SYN) && !self.has(TcpHeader::RST) && !self.has(TcpHeader::FIN)
    }

    /// Whether it is the first of a connection that nobody has answered yet.
    pub(super) const fn is_first(&self) -> bool {
        self.opens() && !self.has(TcpHeader::ACK)
    }

    /// Whether it says that there is no connection.
    pub(super) const fn resets(&self) -> bool {
        self.has(TcpHeader::RST)
    }
}

/// The shift of the window scale option.
fn window_scale(mut options: &[u8]) -> Option<u8> {
    loop {
        match options {
            [] | [END_OF_OPTIONS, ..] => return None,
            [NO_OPERATION, rest @ ..] => options = rest,
            [WINDOW_SCALE, 3, scale, ..] => return Some((*scale).min(MAX_SCALE)),
            [_, len, ..] => options = options.get(usize::from(*len).max(2)..)?,
            [_] => return None,
        }
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A side has sent its SYN.
    Opening,
    /// Both have.
    Established,
    /// Both have sent their FIN.
    Closing,
    /// A side has reset it.
    Reset,
}

/// What one side has said, in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Side {
    /// What it has acknowledged and how much it takes beyond it, once it has.
    acknowledged: u32,
    window: u16,
    /// Shift of that window; [`NO_SCALE`] if it offered none.
    scale: u8,
    /// What it has sent so far, of [`SYN`], [`FIN`] and [`WINDOW`].
    sent: u8,
}

/// Of [`Side::scale`].
const NO_SCALE: u8 = u8::MAX;

/// Of [`Side::sent`].
const SYN: u8 = 1;
const FIN: u8 = 2;
const WINDOW: u8 = 4;

/// Which side sent a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Inside,
    Outside,
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    phase: Phase,
    inside: Side,
    outside: Side,
}

impl Connection {
    /// One that nobody has said anything about.
    pub(super) const fn new() -> Self {
        Connection { phase: Phase::Opening, inside: Side::SILENT, outside: Side::SILENT }
    }

    /// A segment was sent. Whether the session's timer starts anew.
    #[inline]
    pub(super) fn saw(&mut self, segment: &TcpSegment, from: From) -> bool {
        const TURNS: u8 = TcpHeader::SYN | TcpHeader::FIN | TcpHeader::RST;
        if self.phase == Phase::Established && segment.flags & TURNS == 0 {
            // Nearly all are of these, and change nothing but what is acknowledged.
            match from {
                From::Inside => self.inside.said(segment),
                From::Outside => self.outside.said(segment),
            }
            return true;
        }
        self.saw_any(segment, from)
    }

    /// The same, whatever the segment is and the connection's state.
    #[inline(never)]
    fn saw_any(&mut self, segment: &TcpSegment, from: From) -> bool {
        let over = matches!(self.phase, Phase::Closing | Phase::Reset);
        if over && segment.is_first() {
            // The ports are used again.
            *self = Connection::new();
        }
        let (sender, receiver) = match from {
            From::Inside => (&mut self.inside, &self.outside),
            From::Outside => (&mut self.outside, &self.inside),
        };
        let in_window = receiver.expects(segment, sender.scale != NO_SCALE);
        if segment.resets() {
            // RFC 7857 §2.2: it is checked to belong to the connection, and then
            // the session lasts for four minutes more.
            let counts = in_window && self.phase != Phase::Closing;
            let restart = counts && self.phase == Phase::Established;
            if counts {
                self.phase = Phase::Reset;
            }
            return restart;
        }
        sender.said(segment);
        if segment.has(TcpHeader::FIN) && in_window {
            sender.sent |= FIN;
        }
        let before = self.phase;
        let both = self.inside.sent & self.outside.sent;
        let both_open = both & SYN != 0;
        self.phase = match self.phase {
            _ if both & FIN != 0 => Phase::Closing,
            Phase::Opening if both_open => Phase::Established,
            Phase::Reset if both_open && in_window && !segment.opens() => Phase::Established,
            phase => phase,
        };
        // What follows the second FIN does not keep the session (RFC 6146
        // §3.5.2.2), nor does what is said to a connection that was reset.
        match self.phase {
            Phase::Closing => before != Phase::Closing,
            Phase::Reset => false,
            Phase::Opening | Phase::Established => true,
        }
    }

    /// How many ticks it lasts without a packet.
    pub(super) const fn lifetime(&self, lifetimes: &Lifetimes) -> u32 {
        match self.phase {
            Phase::Established => lifetimes.tcp_established,
            Phase::Opening | Phase::Closing | Phase::Reset => lifetimes.tcp_transitory,
        }
    }
}

impl Side {
    const SILENT: Side = Side { acknowledged: 0, window: 0, scale: NO_SCALE, sent: 0 };

    /// Whether a segment's sequence number is one that this side may take now: in
    /// its window (RFC 9293 §3.10.7.4), which is scaled if both sides offered it
    /// (RFC 7323 §2.2).
    fn expects(&self, segment: &TcpSegment, sender_scales: bool) -> bool {
        if self.sent & WINDOW == 0 {
            // It has acknowledged nothing yet: there is nothing to check against
            // but that its SYN is answered.
            return self.sent & SYN != 0 && segment.has(TcpHeader::ACK);
        }
        let scales = sender_scales && self.scale != NO_SCALE;
        let scale = if scales { self.scale.min(MAX_SCALE) } else { 0 };
        // The edge itself counts: a FIN or RST may follow a full window.
        segment.sequence.wrapping_sub(self.acknowledged) <= u32::from(self.window) << scale
    }

    fn said(&mut self, segment: &TcpSegment) {
        if segment.has(TcpHeader::SYN) {
            self.sent |= SYN;
            self.scale = segment.scale.unwrap_or(NO_SCALE);
        }
        if segment.has(TcpHeader::ACK) {
            let ahead = segment.acknowledgment.wrapping_sub(self.acknowledged);
            if self.sent & WINDOW == 0 || ahead < 1 << 31 {
                (self.acknowledged, self.window) = (segment.acknowledgment, segment.window);
                self.sent |= WINDOW;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What most segments do is told in two places, which say the same.
        #[test]
        fn a_plain_segment_does_what_any_would(
            steps in proptest::collection::vec(
                (
                    prop_oneof![
                        2 => Just(TcpHeader::SYN),
                        2 => Just(TcpHeader::SYN | TcpHeader::ACK),
                        6 => Just(TcpHeader::ACK),
                        2 => Just(TcpHeader::FIN | TcpHeader::ACK),
                        1 => Just(TcpHeader::RST),
                        1 => any::<u8>(),
                    ],
                    (0u32..400, 0u32..400, 0u16..300),
                    prop::option::of(0u8..15),
                    any::<bool>(),
                ),
                1..40,
            ),
        ) {
            let (mut one, mut other) = (Connection::new(), Connection::new());
            for (flags, (sequence, acknowledgment, window), scale, inside) in steps {
                let scale = scale.filter(|_| flags & TcpHeader::SYN != 0);
                let segment = TcpSegment { flags, sequence, acknowledgment, window, scale };
                let from = if inside { From::Inside } else { From::Outside };
                prop_assert_eq!(one.saw(&segment, from), other.saw_any(&segment, from));
                prop_assert_eq!(one, other);
            }
        }
    }
}
