//! The table under every interleaving. Loom's cells report an entry that is written
//! while a reader holds it.

use loom::thread;

use super::*;
use crate::sync::models::{explore, explore_mutant};

const SEED: [u64; 2] = [1, 2];

impl Reader<u32, u32> {
    /// Looks up and holds the entry while another thread may run.
    fn hold(&self, key: u32) -> Option<u32> {
        let found = self.table.find(&self.table.place(&key), &key)?;
        let cell = self.table.entries.get(found.index as usize)?;
        cell.with(|entry| {
            // An access that loom can switch at.
            found.slot.load(Ordering::Relaxed);
            // SAFETY: the reader is online, and quiescent only after this.
            let entry = unsafe { (*entry).assume_init_ref() };
            assert_eq!(entry.key, key, "the entry of another key");
            Some(entry.value)
        })
    }
}

/// A key that is replaced again and again, through all spare entries, is always
/// there, and never goes back.
fn replace() {
    let mut writer = table(1, SEED);
    writer.install(7, 0).unwrap();
    let mut reader = writer.reader();
    let reading = thread::spawn(move || {
        let mut newest = 0;
        for _ in 0..2 {
            let value = reader.hold(7).expect("neither the old value nor the new one");
            assert!(value >= newest && value <= 3, "{value} after {newest}");
            newest = value;
            reader.quiescent();
        }
    });
    for value in 1..=3 {
        // Full while the reader holds up the only spare entry.
        let _ = writer.install(7, value);
    }
    reading.join().unwrap();
}

#[test]
fn loom_a_replaced_key_has_its_old_or_its_new_value() {
    explore("hash replace", 12_000, replace);
}

#[test]
#[should_panic = "neither the old value nor the new one"]
fn loom_finds_a_replacement_in_two_steps() {
    explore_mutant(Mutant::ReplaceInTwoSteps, replace);
}

#[test]
#[should_panic = "Causality violation"]
fn loom_finds_an_entry_that_is_not_released() {
    explore_mutant(Mutant::PublishRelaxed, replace);
}

#[test]
#[should_panic = "Causality violation"]
fn loom_finds_an_entry_that_is_reused_early() {
    explore_mutant(Mutant::FreedTooEarly, replace);
}

/// Keys come and go, and their entries with them: a reader finds each with its own
/// value or not at all.
fn remove() {
    let mut writer = table(1, SEED);
    writer.install(7, 70).unwrap();
    let mut reader = writer.reader();
    let reading = thread::spawn(move || {
        assert!(reader.hold(7).is_none_or(|value| value / 10 == 7));
        reader.quiescent();
        assert!(reader.hold(8).is_none_or(|value| value / 10 == 8));
    });
    assert!(writer.remove(&7));
    writer.install(8, 80).unwrap();
    assert!(writer.remove(&8));
    // Full while the reader holds up both entries.
    let _ = writer.install(7, 71);
    reading.join().unwrap();
}

#[test]
fn loom_a_removed_key_is_never_confused_with_another() {
    explore("hash remove", 60_000, remove);
}

#[test]
#[should_panic = "Causality violation"]
fn loom_finds_a_removed_entry_that_is_reused_early() {
    explore_mutant(Mutant::FreedTooEarly, remove);
}

/// Keys of bucket 0: one whose second bucket is free, and two whose second is bucket 1.
fn keys_of_one_bucket(writer: &Writer<u32, u32>) -> [u32; 3] {
    let home = |key: &u32| writer.table.place(key).buckets;
    let spreads = |key: &u32| home(key)[0] == 0 && home(key)[1] == 1;
    let mut keys = (0..).filter(spreads);
    let moves = (0..).find(|key| home(key) == [0, 3]).unwrap();
    [moves, keys.next().unwrap(), keys.next().unwrap()]
}

/// A key that makes room for another is found all the while.
fn make_room() {
    let mut writer = table(4, SEED);
    let [moves, stays, comes] = keys_of_one_bucket(&writer);
    writer.install(moves, 1).unwrap();
    writer.install(stays, 2).unwrap();
    // The newcomer's second bucket is full, too.
    let [_, second] = writer.table.place(&comes).buckets;
    let full = |key: &u32| writer.table.place(key).buckets == [second, 0];
    let full: Vec<u32> = (0..).filter(full).take(2).collect();
    for key in full {
        writer.install(key, 3).unwrap();
    }
    writer.capacity = 5;
    let reader = writer.reader();
    let reading = thread::spawn(move || {
        assert_eq!(reader.hold(moves), Some(1), "lost on its way");
    });
    writer.install(comes, 4).unwrap();
    assert_eq!(writer.get(&moves), Some(&1));
    assert_eq!(writer.table.place(&moves).buckets[0], 0);
    reading.join().unwrap();
}

#[test]
fn loom_a_key_that_makes_room_is_never_missed() {
    explore("hash make room", 10, make_room);
}

#[test]
#[should_panic = "lost on its way"]
fn loom_finds_a_key_that_leaves_before_it_arrives() {
    explore_mutant(Mutant::MovedAfterwards, make_room);
}
