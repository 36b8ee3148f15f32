//! The table against a plain map, at its limits, and under threads.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;

const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

#[derive(Clone, Copy, Debug)]
enum Step {
    Install(u16, u32),
    Remove(u16),
    Lookup(u16),
    Quiescent,
    Sleep,
}

fn step() -> impl Strategy<Value = Step> {
    // Few keys, so that they meet; more keys than the table has room for.
    let key = 0..24_u16;
    prop_oneof![
        4 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Step::Install(key, value)),
        2 => key.clone().prop_map(Step::Remove),
        2 => key.prop_map(Step::Lookup),
        1 => Just(Step::Quiescent),
        1 => Just(Step::Sleep),
    ]
}

proptest! {
    #[test]
    fn table_holds_what_a_plain_map_holds(
        capacity in 1..20_usize,
        seed in any::<[u64; 2]>(),
        steps in prop::collection::vec(step(), 0..400),
    ) {
        let mut map = HashMap::new();
        let mut writer = table(capacity, seed);
        let mut reader = writer.reader();
        // Replacements since the reader's last word.
        let mut waiting = 0;
        for step in steps {
            match step {
                Step::Install(key, value) => {
                    let known = map.contains_key(&key);
                    let result = writer.install(key, value);
                    if known || map.len() < capacity {
                        if result == Ok(()) {
                            waiting += usize::from(known);
                            map.insert(key, value);
                        } else {
                            // Only entries that wait for the reader may be in the way.
                            prop_assert!(waiting >= *SPARE.start());
                        }
                    } else {
                        prop_assert_eq!(result, Err(TableFull));
                    }
                }
                Step::Remove(key) => {
                    let known = map.remove(&key).is_some();
                    waiting += usize::from(known);
                    prop_assert_eq!(writer.remove(&key), known);
                }
                Step::Lookup(key) => {
                    prop_assert_eq!(reader.lookup(&key), map.get(&key));
                    let table = reader.at_hand().unwrap();
                    let found = table.locate(&table.probe(&key));
                    let found = found.and_then(|found| table.confirm(&found, &key));
                    prop_assert_eq!(found, map.get(&key), "in stages");
                    prop_assert_eq!(writer.get(&key), map.get(&key));
                }
                Step::Quiescent => {
                    reader.quiescent();
                    waiting = 0;
                }
                Step::Sleep => {
                    reader.offline();
                    reader.online();
                    waiting = 0;
                }
            }
            prop_assert_eq!(writer.len(), map.len());
            prop_assert_eq!(writer.is_empty(), map.is_empty());
        }
        let all: HashMap<u16, u32> = writer.iter().map(|(key, value)| (*key, *value)).collect();
        prop_assert_eq!(writer.iter().count(), map.len());
        prop_assert_eq!(all, map);
    }
}

#[test]
fn every_capacity_is_reached() {
    for round in 0..50_u64 {
        for capacity in [1, 2, 3, 7, 8, 63, 64, 1_000, 4_096] {
            let mut writer = table(capacity, [round, !round]);
            for key in 0..capacity as u64 {
                assert_eq!(writer.install(key, ()), Ok(()), "key {key} of {capacity}");
            }
            assert_eq!(writer.len(), capacity);
            assert_eq!(writer.capacity(), capacity);
            assert_eq!(writer.install(capacity as u64, ()), Err(TableFull));
            assert!((0..capacity as u64).all(|key| writer.get(&key).is_some()));
        }
    }
}

#[test]
fn a_full_table_survives_churn() {
    const CAPACITY: u64 = 4_096;
    let mut writer = table(CAPACITY as usize, SEED);
    for key in 0..CAPACITY {
        writer.install(key, key).unwrap();
    }
    for key in CAPACITY..CAPACITY * 30 {
        assert!(writer.remove(&(key - CAPACITY)));
        assert_eq!(writer.install(key, key), Ok(()), "after {key} keys");
    }
    assert_eq!(writer.len() as u64, CAPACITY);
}

#[test]
fn a_full_table_still_replaces() {
    let mut writer = table(8, SEED);
    for key in 0..8_u64 {
        writer.install(key, 0).unwrap();
    }
    for value in 1..1_000 {
        writer.install(3, value).unwrap();
    }
    assert_eq!(writer.get(&3), Some(&999));
    assert_eq!(writer.len(), 8);
}

#[test]
fn a_silent_reader_keeps_its_entries_and_the_writer_is_told() {
    let mut writer = table(4, SEED);
    writer.install(1_u64, 0).unwrap();
    let mut reader = writer.reader();
    let held = reader.lookup(&1_u64).unwrap();
    let mut value = 0;
    while writer.install(1_u64, value + 1).is_ok() {
        value += 1;
        assert!(value < 1_000, "entries that a reader may hold were reused");
    }
    assert_eq!(*held, 0);
    assert_eq!(reader.lookup(&1_u64), Some(&value));
    reader.quiescent();
    assert_eq!(writer.install(1_u64, value + 1), Ok(()));
    assert_eq!(reader.lookup(&1_u64), Some(&(value + 1)));
}

#[test]
fn readers_that_sleep_or_are_gone_hold_nothing_up() {
    let mut writer = table(4, SEED);
    let mut asleep = writer.reader();
    asleep.offline();
    asleep.quiescent();
    drop(writer.reader());
    for value in 0..1_000 {
        assert_eq!(writer.install(7_u32, value), Ok(()));
    }
    asleep.online();
    assert_eq!(asleep.lookup(&7), Some(&999));
    // Awake, it counts again.
    assert!((0..1_000).any(|value| writer.install(7, value) == Err(TableFull)));
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "offline reader"))]
fn an_offline_reader_finds_nothing() {
    let mut writer = table(4, SEED);
    writer.install(1_u32, 1).unwrap();
    let mut reader = writer.reader();
    reader.offline();
    assert_eq!(reader.lookup(&1), None);
}

#[test]
fn a_reader_outlives_its_writer() {
    let mut writer = table(4, SEED);
    writer.install(1_u32, 2).unwrap();
    let reader = writer.reader();
    drop(writer);
    assert_eq!(reader.lookup(&1), Some(&2));
}

// Shows attack-30.
#[test]
fn the_seed_decides_where_keys_are() {
    let buckets = |seed| {
        let writer: Writer<u32, ()> = table(1_000, seed);
        (0..64).map(|key| writer.table.place(&key).buckets).collect::<Vec<_>>()
    };
    assert_eq!(buckets([1, 2]), buckets([1, 2]));
    assert_ne!(buckets([1, 2]), buckets([1, 3]));
    assert_ne!(buckets([1, 2]), buckets([2, 2]));
}

#[test]
fn a_key_has_two_buckets() {
    let writer: Writer<u32, ()> = table(1_000, SEED);
    for key in 0..1_000 {
        let [first, second] = writer.table.place(&key).buckets;
        assert_ne!(first, second);
    }
}

/// Keys of one bucket fill it, then spill into their second ones, then make room for
/// each other; what moved and what is gone is told apart all the while.
#[test]
fn a_full_bucket_spills_and_its_keys_make_room() {
    let mut writer = table(1_000, SEED);
    let crowd: Vec<u64> =
        (0..).filter(|key| writer.table.place(key).buckets[0] == 3).take(300).collect();
    let mut there = Vec::new();
    for key in &crowd {
        if writer.install(*key, *key).is_ok() {
            there.push(*key);
        }
        assert!(there.iter().all(|key| writer.get(key) == Some(key)), "after {key}");
    }
    // Each of its 256 buckets could be a second one: most find room.
    assert!(there.len() > 250, "only {} found room", there.len());
    for key in &there {
        assert!(writer.remove(key));
        assert_eq!(writer.get(key), None);
    }
    assert!(writer.is_empty());
}

#[test]
fn buckets_and_small_entries_are_a_cache_line() {
    assert_eq!(size_of::<Bucket>(), 64);
    assert_eq!(align_of::<Bucket>(), 64);
    type Binding = Entry<crate::table::binding::BindingKey, crate::table::binding::BindingEntry>;
    assert_eq!(size_of::<Binding>(), 64);
}

#[test]
fn both_ends_can_move_to_other_threads() {
    fn assert_send<T: Send>() {}
    assert_send::<Writer<u32, u64>>();
    assert_send::<Reader<u32, u64>>();
}

/// Keys that are only replaced.
const STEADY: u64 = 64;

/// Keys that come and go.
const FLEETING: u64 = 64;

/// A value that shows when it is torn or was reused.
#[derive(Clone, Copy)]
struct Signed {
    key: u64,
    version: u64,
    check: [u64; 4],
}

impl Signed {
    fn new(key: u64, version: u64) -> Self {
        let mix = (key << 32 ^ version).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Signed { key, version, check: [mix, !mix, mix.rotate_left(7), mix ^ version] }
    }

    fn is_whole(&self) -> bool {
        self.check == Signed::new(self.key, self.version).check
    }
}

#[test]
fn readers_see_whole_values_that_never_go_back_while_the_writer_writes() {
    let mut writer = table(128, SEED);
    for key in 0..STEADY {
        writer.install(key, Signed::new(key, 0)).unwrap();
    }
    let reads = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..3 {
            let reader = writer.reader();
            let (reads, stop) = (&reads, &stop);
            scope.spawn(move || {
                // Whatever ends this reader ends the writer too.
                let _stop = SetOnDrop(stop);
                read_bursts(reader, number == 0, reads, stop);
            });
        }
        // However this ends, the readers end.
        let _stop = SetOnDrop(&stop);
        let end = Instant::now() + Duration::from_secs(60);
        let mut writes = 0_u64;
        while writes < 20_000 || reads.load(Ordering::Relaxed) < 20_000 {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            assert!(Instant::now() < end, "{writes} writes, {reads:?} reads");
            let key = writes % (STEADY + FLEETING);
            let removed = key >= STEADY && writer.remove(&key);
            if removed || writer.install(key, Signed::new(key, writes)).is_ok() {
                writes += 1;
            } else {
                thread::yield_now();
            }
        }
    });
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn read_bursts(
    mut reader: Reader<u64, Signed>,
    sleeps: bool,
    reads: &AtomicU64,
    stop: &AtomicBool,
) {
    let mut newest = [0; STEADY as usize];
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let burst: Vec<_> = (0..32)
            .filter_map(|_| {
                count += 1;
                let key = count.wrapping_mul(0x9e37_79b9) % (STEADY + FLEETING);
                let value = reader.lookup(&key);
                assert!(value.is_some() || key >= STEADY, "key {key} was lost");
                value.map(|value| (key, value))
            })
            .collect();
        for (key, value) in burst {
            assert!(value.is_whole() && value.key == key);
            if let Some(newest) = newest.get_mut(key as usize) {
                assert!(value.version >= *newest, "key {key} went back");
                *newest = value.version;
            }
        }
        reads.fetch_add(32, Ordering::Relaxed);
        if sleeps && count.is_multiple_of(1_024) {
            reader.offline();
            thread::sleep(Duration::from_micros(50));
            reader.online();
        } else {
            reader.quiescent();
        }
    }
}
