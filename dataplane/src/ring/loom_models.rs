//! The ring under every interleaving.

use loom::thread;

use super::*;
use crate::sync::models::{explore, explore_mutant};

/// How often either side tries.
const ATTEMPTS: usize = 4;

/// What message `number` says, on either side of the ring.
fn check(bytes: &[u8], number: u64) {
    assert_eq!(bytes, [number.to_ne_bytes(), (!number).to_ne_bytes()].concat(), "torn");
}

/// Messages of three words through a ring of four: they wrap around, and each reuses
/// what the one before it gave back.
fn messages() {
    let (mut producer, mut consumer) = ring(4 * WORD);
    let producing = thread::spawn(move || {
        let mut stored = 0_u64;
        for _ in 0..ATTEMPTS {
            let (header, body) = ((stored + 1).to_ne_bytes(), (!(stored + 1)).to_ne_bytes());
            stored += u64::from(producer.push(&header, &body).is_stored());
        }
        stored
    });
    let mut taken = 0;
    for _ in 0..ATTEMPTS {
        if consumer.consume(|bytes| check(bytes, taken + 1)).is_some() {
            taken += 1;
        }
    }
    let stored = producing.join().unwrap();
    while consumer.consume(|bytes| check(bytes, taken + 1)).is_some() {
        taken += 1;
    }
    assert_eq!(taken, stored, "messages were lost");
}

#[test]
fn loom_messages_are_whole_and_none_is_lost() {
    explore("ring messages", 2_500, messages);
}

#[test]
#[should_panic = "Causality violation"]
fn loom_finds_a_head_that_releases_nothing() {
    explore_mutant(Mutant::HeadRelaxed, messages);
}

#[test]
#[should_panic = "Causality violation"]
fn loom_finds_a_head_before_its_words() {
    explore_mutant(Mutant::HeadEarly, messages);
}

#[test]
#[should_panic = "Causality violation"]
fn loom_finds_a_tail_that_releases_nothing() {
    explore_mutant(Mutant::TailRelaxed, messages);
}

/// A consumer that goes to sleep while two messages come: it must not sleep over
/// a message without a wake-up.
fn sleep() {
    let (mut producer, mut consumer) = ring(8 * WORD);
    let producing = thread::spawn(move || {
        let mut woken = 0;
        for number in [1_u64, 2] {
            let result = producer.push(&number.to_ne_bytes(), &(!number).to_ne_bytes());
            assert!(result.is_stored());
            woken += u32::from(result == PushResult::StoredWake);
        }
        woken
    });
    let mut taken = 0;
    while taken < 2 && consumer.consume(|bytes| check(bytes, taken + 1)).is_some() {
        taken += 1;
    }
    let asleep = taken < 2 && consumer.prepare_sleep();
    let woken = producing.join().unwrap();
    // The producer is through: what it has not said now, it never will.
    if asleep {
        assert_eq!(woken, 1, "a wake-up was lost");
    }
    while consumer.consume(|bytes| check(bytes, taken + 1)).is_some() {
        taken += 1;
    }
    assert_eq!(taken, 2);
}

#[test]
fn loom_no_wake_up_is_lost() {
    explore("ring sleep", 500, sleep);
}

#[test]
#[should_panic = "a wake-up was lost"]
fn loom_finds_a_sleeper_without_a_fence() {
    explore_mutant(Mutant::SleepUnfenced, sleep);
}

#[test]
#[should_panic = "a wake-up was lost"]
fn loom_finds_a_push_without_a_fence() {
    explore_mutant(Mutant::WakeUnfenced, sleep);
}
