//! Packets that wait for their next hop's link-layer address.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use homeport_wire::MacAddress;

use crate::adjacency::NextHop;
use crate::packet::Packet;

/// The most packets that wait on one worker.
pub const MAX_HELD: usize = 256;

/// The most packets that wait for one next hop.
pub const MAX_HELD_PER_NEXT_HOP: usize = 16;

/// The most next hops that are waited for.
pub const MAX_NEXT_HOPS: usize = 64;

/// How long a packet waits.
pub const HOLD_TIME: Duration = Duration::from_secs(1);

/// How often a next hop is asked for.
pub const ASK_INTERVAL: Duration = Duration::from_millis(100);

struct Waiting {
    packet: Packet,
    next_hop: NextHop,
    until: Instant,
    /// Whether its sender is told when it waits in vain.
    forwarded: bool,
}

struct Question {
    next_hop: NextHop,
    waiting: usize,
    ask_again: Instant,
}

impl Question {
    /// Whether to ask now; if so, not again for a while.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.ask_again;
        if due {
            self.ask_again = now + ASK_INTERVAL;
        }
        due
    }
}

/// The packets that wait, in order of arrival, and what they wait for. All memory
/// is taken when it is made.
pub struct Hold {
    waiting: VecDeque<Waiting>,
    questions: Vec<Question>,
}

/// A packet whose wait is over.
pub struct Released {
    /// The packet, at its IPv4 header.
    pub packet: Packet,
    /// What it waited for.
    pub next_hop: NextHop,
    /// The answer; `None` when none came in time.
    pub mac: Option<MacAddress>,
    /// Whether it was forwarded, so that its sender is told.
    pub forwarded: bool,
}

impl Hold {
    /// Nothing waits.
    pub fn new() -> Self {
        Hold {
            waiting: VecDeque::with_capacity(MAX_HELD),
            questions: Vec::with_capacity(MAX_NEXT_HOPS),
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets `packet`, at its IPv4 header, wait for `next_hop`. The answer says
    /// whether it is time to ask for the next hop.
    ///
    /// # Errors
    /// The packet, when too many wait.
    pub fn push(
        &mut self,
        packet: Packet,
        next_hop: NextHop,
        forwarded: bool,
        now: Instant,
    ) -> Result<bool, Packet> {
        if self.waiting.len() >= MAX_HELD {
            return Err(packet);
        }
        let found = self.questions.iter().position(|question| question.next_hop == next_hop);
        let question_count = self.questions.len();
        let ask = match found.and_then(|at| self.questions.get_mut(at)) {
            Some(question) if question.waiting >= MAX_HELD_PER_NEXT_HOP => return Err(packet),
            Some(question) => {
                question.waiting += 1;
                question.is_due(now)
            }
            None if question_count >= MAX_NEXT_HOPS => return Err(packet),
            None => {
                let ask_again = now + ASK_INTERVAL;
                self.questions.push(Question { next_hop, waiting: 1, ask_again });
                true
            }
        };
        self.waiting.push_back(Waiting { packet, next_hop, until: now + HOLD_TIME, forwarded });
        Ok(ask)
    }

    /// Whether one more packet may wait for `next_hop`.
    pub fn has_room(&self, next_hop: NextHop) -> bool {
        let known = self.questions.iter().find(|question| question.next_hop == next_hop);
        let has_room = match known {
            Some(question) => question.waiting < MAX_HELD_PER_NEXT_HOP,
            None => self.questions.len() < MAX_NEXT_HOPS,
        };
        has_room && self.waiting.len() < MAX_HELD
    }

    /// Calls `ask` for each next hop that is due to be asked for again.
    pub fn ask(&mut self, now: Instant, mut ask: impl FnMut(NextHop)) {
        // A next hop is remembered until it may be asked for again, so that a
        // stream to a dead one asks no more often.
        self.questions.retain(|question| question.waiting > 0 || now < question.ask_again);
        for question in &mut self.questions {
            if question.waiting > 0 && question.is_due(now) {
                ask(question.next_hop);
            }
        }
    }

    /// Takes out a packet whose next hop is known to `lookup`, in order of arrival
    /// for each next hop, or the oldest one when it has waited too long.
    pub fn release(
        &mut self,
        now: Instant,
        lookup: impl Fn(NextHop) -> Option<MacAddress>,
    ) -> Option<Released> {
        let answered = self.questions.iter().filter(|question| question.waiting > 0);
        let answered =
            answered.map(|question| question.next_hop).find(|hop| lookup(*hop).is_some());
        let at = match answered {
            Some(next_hop) => self.waiting.iter().position(|at| at.next_hop == next_hop)?,
            // All wait equally long: the first is the oldest.
            None => self.waiting.front().is_some_and(|oldest| now >= oldest.until).then_some(0)?,
        };
        let Waiting { packet, next_hop, forwarded, .. } = self.waiting.remove(at)?;
        if let Some(question) = self.questions.iter_mut().find(|q| q.next_hop == next_hop) {
            question.waiting = question.waiting.saturating_sub(1);
        }
        Some(Released { packet, next_hop, mac: lookup(next_hop), forwarded })
    }
}

impl Default for Hold {
    fn default() -> Self {
        Hold::new()
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hold({} packets)", self.waiting.len())
    }
}
