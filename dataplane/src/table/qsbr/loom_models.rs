//! Reclamation under every interleaving: two cells, of which a word names one.
#![allow(unsafe_code, reason = "the cells stand for memory that is reused")]

use loom::thread;

use super::*;
use crate::sync::{
    UnsafeCell,
    models::{explore, explore_mutant},
};

/// Loom reports a cell that is written while it is read, or before what read it is
/// ordered; so a model needs no check of its own but the value.
struct Shared {
    named: AtomicU64,
    cells: [UnsafeCell<u32>; 2],
}

// SAFETY: the writer writes only cells that no reader can hold: that is what the
// models test, and loom reports it where it is not so.
unsafe impl Sync for Shared {}

impl Shared {
    fn new() -> Arc<Shared> {
        let cells = [UnsafeCell::new(10), UnsafeCell::new(0)];
        Arc::new(Shared { named: AtomicU64::new(0), cells })
    }

    /// Reads the named cell, in two steps.
    fn read(&self) -> u32 {
        let named = self.named.load(Ordering::Acquire);
        let cell = &self.cells[named as usize];
        // SAFETY: see above.
        cell.with(|value| unsafe { *value })
    }

    fn write(&self, index: u32, value: u32) {
        // SAFETY: see above.
        self.cells[index as usize].with_mut(|cell| unsafe { *cell = value });
    }
}

/// Publishes 11 in the other cell, retires the first, and tries to reuse it twice.
fn write(shared: &Shared, domain: &mut Domain) {
    shared.write(1, 11);
    shared.named.store(1, Ordering::Release);
    domain.retire(0);
    for _ in 0..2 {
        let mut freed = None;
        domain.reclaim(|index| freed = Some(index));
        if let Some(index) = freed {
            shared.write(index, 99);
        }
    }
}

/// A reader that says quiescent between its reads.
fn online() {
    let shared = Shared::new();
    let mut domain = Domain::new();
    let mut participant = domain.reader();
    let reading = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            let first = shared.read();
            participant.quiescent();
            let second = shared.read();
            participant.quiescent();
            let third = shared.read();
            for value in [first, second, third] {
                assert!(value == 10 || value == 11, "a reused cell was read");
            }
            assert!(first <= second && second <= third);
        })
    };
    write(&shared, &mut domain);
    reading.join().unwrap();
}

#[test]
fn loom_no_reader_sees_what_was_reused() {
    explore("qsbr online", 2_000, online);
}

#[test]
#[should_panic = "Causality violation"]
fn loom_finds_a_quiescent_that_releases_nothing() {
    explore_mutant(Mutant::QuiescentRelaxed, online);
}

#[test]
#[should_panic = "Causality violation"]
fn loom_finds_an_epoch_that_acquires_nothing() {
    explore_mutant(Mutant::EpochRelaxed, online);
}

#[test]
#[should_panic = "Causality violation"]
fn loom_finds_a_cell_that_is_freed_an_epoch_early() {
    explore_mutant(Mutant::FreedTooEarly, online);
}

/// A reader that sleeps, wakes, and in the end goes away.
fn sleeping() {
    let shared = Shared::new();
    let mut domain = Domain::new();
    let mut participant = domain.reader();
    participant.offline();
    let reading = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            participant.online();
            let first = shared.read();
            participant.offline();
            participant.online();
            let second = shared.read();
            drop(participant);
            for value in [first, second] {
                assert!(value == 10 || value == 11, "a reused cell was read");
            }
        })
    };
    write(&shared, &mut domain);
    // Forgets the reader if it is gone, and must not forget one that is not.
    drop(domain.reader());
    reading.join().unwrap();
    let mut freed = false;
    domain.reclaim(|_| freed = true);
    assert!(freed || domain.retired() == 0, "a reader that is gone holds things up");
}

#[test]
fn loom_a_reader_may_sleep_and_go() {
    explore("qsbr sleeping", 40_000, sleeping);
}

#[test]
#[should_panic = "Causality violation"]
fn loom_finds_a_reader_that_wakes_without_a_fence() {
    explore_mutant(Mutant::OnlineUnfenced, sleeping);
}

#[test]
#[should_panic = "Causality violation"]
fn loom_finds_a_reclaim_without_a_fence() {
    explore_mutant(Mutant::ReclaimUnfenced, sleeping);
}
