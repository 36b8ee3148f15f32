//! Quiescent-state reclamation: when may the writer reuse what it unlinked?
//!
//! # How it works
//!
//! The writer counts epochs. When it has unlinked something, it *retires* it with
//! the current epoch, and then publishes the next one. Each reader has a word of
//! its own, in which it posts the newest epoch that it had seen at its last
//! *quiescent point*, a moment when it holds no reference; a reader that sleeps
//! posts *offline* instead. What was retired in epoch *n* is free once every
//! reader's word is above *n*.
//!
//! Nobody waits: a reader posts one word, and the writer looks at all words when
//! it needs room. If a reader is slow, the room is just not there yet.
//!
//! # Why it is right
//!
//! Two things must hold when something is freed: that each reader's accesses up
//! to its quiescent point are over, and that its later ones cannot find the thing.
//!
//! * *Over:* the reader posts its word with `Release` after its accesses, the
//!   writer reads it with `Acquire` before it reuses the memory.
//! * *Not found, reader online:* the reader has read an epoch above *n* with
//!   `Acquire`; the writer stored that with `Release` after the unlink. So the
//!   reader's later loads see the unlink.
//! * *Not found, reader was offline:* nothing that it read tells it of the unlink.
//!   The reader posts its word, then has a `SeqCst` fence, then looks up; the
//!   writer unlinks, then has a `SeqCst` fence, then looks at the words. One fence
//!   comes first: if the reader's does, the writer sees that it is online; if the
//!   writer's does, the reader sees the unlink.
//!
//! A reader registers on the writer's thread, so that the writer knows of it
//! before it can look anything up.

use std::{cell::RefCell, collections::VecDeque};

use crate::sync::{Arc, AtomicU64, Mutant, Ordering, Padded, fence, planted};

/// A reader's word while it sleeps: above every epoch.
const OFFLINE: u64 = u64::MAX - 1;

/// A reader's word after it was dropped.
const GONE: u64 = u64::MAX;

/// The first epoch.
const FIRST: u64 = 1;

/// What a writer has unlinked and may not reuse, as a reader may still see it.
///
/// The same epoch twice means that some reader has passed no quiescent point in
/// between, and is not offline: an RX core was stopped, or hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// When the oldest of it was unlinked: the number of things unlinked before it,
    /// and one.
    pub epoch: u64,
    /// How many entries.
    pub entries: usize,
}

/// The writer's side: what it has unlinked and may not yet reuse.
#[derive(Debug)]
pub(crate) struct Domain {
    /// The published epoch; only the writer stores to it.
    published: Arc<Padded<AtomicU64>>,
    /// The published epoch again.
    epoch: u64,
    /// The words of all readers. Only the writer's thread touches the list.
    readers: RefCell<Vec<Arc<Padded<AtomicU64>>>>,
    /// What was unlinked, and in which epoch; oldest first.
    retired: VecDeque<(u64, u32)>,
}

impl Domain {
    pub(crate) fn new() -> Self {
        Domain {
            published: Arc::new(Padded(AtomicU64::new(FIRST))),
            epoch: FIRST,
            readers: RefCell::new(Vec::new()),
            retired: VecDeque::new(),
        }
    }

    /// Registers a reader, online.
    pub(crate) fn reader(&self) -> Participant {
        let word = Arc::new(Padded(AtomicU64::new(self.epoch)));
        let mut readers = self.readers.borrow_mut();
        // Acquire: what a dropped reader did is over (its Drop releases). `GONE`
        // is the last value of a word, so no later scan needs it.
        readers.retain(|reader| reader.0.load(Ordering::Acquire) != GONE);
        readers.push(Arc::clone(&word));
        Participant { published: Arc::clone(&self.published), word, posted: self.epoch }
    }

    /// Takes what no look-up that begins now can find any more, as the writer has
    /// just unlinked it.
    pub(crate) fn retire(&mut self, index: u32) {
        self.retired.push_back((self.epoch, index));
        self.epoch += 1;
        // Release: whoever sees this epoch sees the unlink.
        self.published.0.store(self.epoch, Ordering::Release);
    }

    /// How much waits for readers.
    pub(crate) fn retired(&self) -> usize {
        self.retired.len()
    }

    /// What waits for the slowest reader; `None` when nothing does. To be asked after
    /// [`Domain::reclaim`].
    pub(crate) fn held(&self) -> Option<Held> {
        let (epoch, _) = self.retired.front()?;
        Some(Held { epoch: *epoch, entries: self.retired.len() })
    }

    /// Gives back everything that all readers have passed.
    pub(crate) fn reclaim(&mut self, mut free: impl FnMut(u32)) {
        if self.retired.is_empty() {
            return;
        }
        if !planted(Mutant::ReclaimUnfenced) {
            // Pairs with the fence of `Participant::online`.
            fence(Ordering::SeqCst);
        }
        // Acquire: what the readers did before they posted is over.
        let passed = self
            .readers
            .get_mut()
            .iter()
            .map(|reader| reader.0.load(Ordering::Acquire))
            .min()
            .unwrap_or(OFFLINE);
        let passed = if planted(Mutant::FreedTooEarly) { passed.saturating_add(1) } else { passed };
        while let Some((_, index)) = self.retired.pop_front_if(|(epoch, _)| *epoch < passed) {
            free(index);
        }
    }
}

/// A reader's side: it posts what it has passed.
#[derive(Debug)]
pub(crate) struct Participant {
    published: Arc<Padded<AtomicU64>>,
    word: Arc<Padded<AtomicU64>>,
    /// What `word` holds: only this reader stores to it.
    posted: u64,
}

impl Participant {
    /// Whether it may look things up.
    #[inline]
    pub(crate) fn is_online(&self) -> bool {
        self.posted != OFFLINE
    }

    /// The newest epoch: it changes with everything that is retired.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        // Acquire: what was unlinked before it is not found any more.
        self.published.0.load(Ordering::Acquire)
    }

    /// Says that no reference is held. Does nothing while offline.
    #[inline]
    pub(crate) fn quiescent(&mut self) {
        // Acquire: later look-ups see every unlink before this epoch.
        let order =
            if planted(Mutant::EpochRelaxed) { Ordering::Relaxed } else { Ordering::Acquire };
        let epoch = self.published.0.load(order);
        // The same epoch again would free nothing more: nothing was retired since.
        if self.is_online() && epoch != self.posted {
            self.post(epoch);
        }
    }

    /// Says that no reference is held, and none will be taken before `online`.
    pub(crate) fn offline(&mut self) {
        self.post(OFFLINE);
    }

    /// Says that references may be held from now on.
    pub(crate) fn online(&mut self) {
        if self.is_online() {
            return;
        }
        let epoch = self.published.0.load(Ordering::Acquire);
        self.post(epoch);
        if !planted(Mutant::OnlineUnfenced) {
            // Pairs with the fence of `Domain::reclaim`.
            fence(Ordering::SeqCst);
        }
    }

    fn post(&mut self, epoch: u64) {
        // Release: every access up to here is before what the writer does once it
        // has read this.
        let order =
            if planted(Mutant::QuiescentRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        self.word.0.store(epoch, order);
        self.posted = epoch;
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        // Release: as in `post`.
        self.word.0.store(GONE, Ordering::Release);
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_models;
