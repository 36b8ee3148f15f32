//! A bounded ring of messages from one producer to one consumer, neither of which
//! ever waits for the other.
//!
//! # How it works
//!
//! The ring is a power of two of 64-bit words. A message is a record of whole
//! words: one that says how long the two parts are, then the header's bytes, then
//! the body's, each part padded to eight bytes. `head` counts the words that were
//! ever written, `tail` those ever given back; a position's place in the ring is
//! its low bits, and a record may wrap around the end.
//!
//! All of it is plain words, without a pointer, so that the same layout can live in
//! memory that two processes share. A consumer believes no length that it reads
//! there: what cannot be is dropped, with everything behind it.
//!
//! To sleep, a consumer first announces it ([`Consumer::prepare_sleep`]); the push
//! that finds the announcement takes it down and says [`PushResult::StoredWake`].
//! Waking the consumer (an eventfd, say) is up to the caller.
//!
//! # Why it is right
//!
//! * *Messages are whole.* The producer writes a record's words and then stores
//!   `head` with `Release`; the consumer loads `head` with `Acquire` before it reads
//!   them.
//! * *Messages are not overwritten.* The consumer reads a record's words and then
//!   stores `tail` with `Release`; the producer loads `tail` with `Acquire` before
//!   it reuses the room.
//! * *Words* are `Relaxed` atomics: the two above order them, and a process that
//!   misbehaves in shared memory can cause wrong bytes, but nothing undefined.
//! * *No wake-up is lost.* The consumer stores `sleeping`, has a `SeqCst` fence,
//!   and then looks at `head`; the producer stores `head`, has a `SeqCst` fence, and
//!   then looks at `sleeping`. One fence comes first: if the consumer's does, the
//!   producer sees that it sleeps; if the producer's does, the consumer sees the
//!   message.
//!
//! **Not done:** placing the words in shared memory.

use std::fmt;

use crate::sync::{Arc, AtomicU32, AtomicU64, Mutant, Ordering, Padded, Word, fence, planted};

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a message may not have been stored, or its consumer may sleep"]
pub enum PushResult {
    /// It is in the ring.
    Stored,
    /// It is in the ring, and the consumer must be woken: it announced that it
    /// sleeps. Said once for each announcement.
    StoredWake,
    /// It is not in the ring: there is no room for it now, or never if it is longer
    /// than [`Producer::max_len`].
    Full,
}

impl PushResult {
    /// Whether the message is in the ring.
    pub const fn is_stored(self) -> bool {
        !matches!(self, PushResult::Full)
    }
}

/// Makes a ring of at least `capacity` bytes. Each message takes its header and its
/// body, each rounded up to eight bytes, and eight more.
pub fn ring(capacity: usize) -> (Producer, Consumer) {
    let words = capacity.div_ceil(WORD).clamp(2, 1 << 31).next_power_of_two();
    let ring = Arc::new(Ring {
        head: Padded(AtomicU64::new(0)),
        tail: Padded(AtomicU64::new(0)),
        sleeping: Padded(AtomicU32::new(0)),
        words: (0..words).map(|_| Word::new(0)).collect(),
    });
    let producer = Producer { ring: Arc::clone(&ring), head: 0, tail: 0 };
    let scratch = Vec::with_capacity(words * WORD);
    (producer, Consumer { ring, head: 0, tail: 0, announced: false, scratch })
}

/// Puts messages in.
pub struct Producer {
    ring: Arc<Ring>,
    /// `ring.head`: only the producer stores to it.
    head: u64,
    /// The newest `ring.tail` that was needed.
    tail: u64,
}

impl Producer {
    /// Stores a message: `header` and then `body`. Never waits and never allocates.
    pub fn push(&mut self, header: &[u8], body: &[u8]) -> PushResult {
        let Some(lengths) = lengths(header.len(), body.len()) else {
            return PushResult::Full;
        };
        let header_at = self.head + 1;
        let body_at = header_at + words_of(header.len());
        let end = body_at + words_of(body.len());
        if !self.has_room(end) {
            return PushResult::Full;
        }
        if planted(Mutant::HeadEarly) {
            self.ring.head.0.store(end, Ordering::Release);
        }
        self.ring.write(self.head, &lengths.to_ne_bytes());
        self.ring.write(header_at, header);
        self.ring.write(body_at, body);
        self.head = end;
        // Release: who sees the head sees the words before it.
        let order =
            if planted(Mutant::HeadRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        self.ring.head.0.store(end, order);
        if !planted(Mutant::WakeUnfenced) {
            // Pairs with the fence of `prepare_sleep`.
            fence(Ordering::SeqCst);
        }
        // Relaxed: the fence orders it. Most times a load is enough; the exchange
        // says it to one push only.
        let sleeping = &self.ring.sleeping.0;
        if sleeping.load(Ordering::Relaxed) != 0 && sleeping.swap(0, Ordering::Relaxed) != 0 {
            PushResult::StoredWake
        } else {
            PushResult::Stored
        }
    }

    /// The longest header and body together that can ever be stored, if both are
    /// whole words long.
    pub fn max_len(&self) -> usize {
        (self.ring.words.len() - 1) * WORD
    }

    /// Whether the words up to `end` may be written.
    fn has_room(&mut self, end: u64) -> bool {
        let len = self.ring.len();
        // Wrapping: in shared memory a tail may be anything.
        if end.wrapping_sub(self.tail) > len {
            // Acquire: the consumer has read what it gives back.
            self.tail = self.ring.tail.0.load(Ordering::Acquire);
        }
        end.wrapping_sub(self.tail) <= len
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("head", &self.head).finish_non_exhaustive()
    }
}

/// Takes messages out, in order.
pub struct Consumer {
    ring: Arc<Ring>,
    /// The newest `ring.head` that was needed.
    head: u64,
    /// `ring.tail`: only the consumer stores to it.
    tail: u64,
    /// Whether the last `prepare_sleep` may still stand in `ring.sleeping`.
    announced: bool,
    /// Room for the longest message, for `consume`.
    scratch: Vec<u8>,
}

impl Consumer {
    /// Takes the next message into `buffer` (cleared first): its header and its
    /// body, one behind the other. False when there is none. Never waits, and
    /// allocates only if the buffer's capacity is too small.
    pub fn pop(&mut self, buffer: &mut Vec<u8>) -> bool {
        if self.announced {
            // Awake: no push need say so any more. Relaxed: a push that sees the
            // announcement all the same wakes one who is awake.
            self.ring.sleeping.0.store(0, Ordering::Relaxed);
            self.announced = false;
        }
        buffer.clear();
        if self.tail == self.head {
            self.look();
        }
        if self.tail == self.head {
            return false;
        }
        let lengths = self.ring.word(self.tail);
        let (header_len, body_len) = split_lengths(lengths);
        let header_at = self.tail + 1;
        let body_at = header_at + words_of(header_len);
        let end = body_at + words_of(body_len);
        let whole = end <= self.head;
        if whole {
            self.ring.read(header_at, header_len, buffer);
            self.ring.read(body_at, body_len, buffer);
            self.tail = end;
        } else {
            // Only a broken producer in shared memory can write this.
            self.tail = self.head;
        }
        // Release: what was read was read before the room is reused.
        let order =
            if planted(Mutant::TailRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        self.ring.tail.0.store(self.tail, order);
        whole
    }

    /// Shows the next message to `take`; `None` when there is none. Never waits and
    /// never allocates.
    pub fn consume<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = self.pop(&mut scratch).then(|| take(&scratch));
        self.scratch = scratch;
        result
    }

    /// Announces that the consumer goes to sleep: the next push says
    /// [`PushResult::StoredWake`]. False, and nothing is announced, when a message is
    /// waiting already. The next `pop` or `consume` takes the announcement down.
    #[must_use = "a consumer must not sleep when a message is waiting"]
    pub fn prepare_sleep(&mut self) -> bool {
        // Relaxed: the fence orders it.
        self.ring.sleeping.0.store(1, Ordering::Relaxed);
        self.announced = true;
        if !planted(Mutant::SleepUnfenced) {
            // Pairs with the fence of `push`.
            fence(Ordering::SeqCst);
        }
        self.look();
        if self.head == self.tail {
            return true;
        }
        self.ring.sleeping.0.store(0, Ordering::Relaxed);
        self.announced = false;
        false
    }

    /// Sees how far the producer is.
    fn look(&mut self) {
        // Acquire: the words before the head have been written.
        let head = self.ring.head.0.load(Ordering::Acquire);
        // More than the ring holds: only a broken producer in shared memory.
        if head.wrapping_sub(self.tail) <= self.ring.len() {
            self.head = head;
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("tail", &self.tail).finish_non_exhaustive()
    }
}

/// What both ends share.
struct Ring {
    /// Words ever written; the producer's.
    head: Padded<AtomicU64>,
    /// Words ever given back; the consumer's.
    tail: Padded<AtomicU64>,
    /// 1 when the consumer announced that it sleeps.
    sleeping: Padded<AtomicU32>,
    /// A power of two of them.
    words: Box<[Word]>,
}

impl Ring {
    /// How many words there are.
    fn len(&self) -> u64 {
        self.words.len() as u64
    }

    /// The words from a position on, once around.
    fn from(&self, position: u64) -> impl Iterator<Item = &Word> {
        let start = (position & (self.len() - 1)) as usize;
        let (front, back) = self.words.split_at_checked(start).unwrap_or_default();
        back.iter().chain(front)
    }

    fn word(&self, position: u64) -> u64 {
        self.from(position).next().map_or(0, Word::load)
    }

    fn write(&self, position: u64, bytes: &[u8]) {
        let (whole, rest) = bytes.as_chunks::<WORD>();
        let mut words = self.from(position);
        for (bytes, word) in whole.iter().zip(words.by_ref()) {
            word.store(u64::from_ne_bytes(*bytes));
        }
        if !rest.is_empty()
            && let Some(word) = words.next()
        {
            let mut padded = [0; WORD];
            padded.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            word.store(u64::from_ne_bytes(padded));
        }
    }

    fn read(&self, position: u64, len: usize, buffer: &mut Vec<u8>) {
        let end = buffer.len() + len;
        for word in self.from(position).take(len.div_ceil(WORD)) {
            buffer.extend_from_slice(&word.load().to_ne_bytes());
        }
        buffer.truncate(end);
    }
}

/// The first word of a record: the header's length above the body's.
fn lengths(header: usize, body: usize) -> Option<u64> {
    Some(u64::from(u32::try_from(header).ok()?) << 32 | u64::from(u32::try_from(body).ok()?))
}

fn split_lengths(lengths: u64) -> (usize, usize) {
    ((lengths >> 32) as u32 as usize, lengths as u32 as usize)
}

fn words_of(bytes: usize) -> u64 {
    bytes.div_ceil(WORD) as u64
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

#[cfg(test)]
#[cfg(loom)]
mod loom_models;
