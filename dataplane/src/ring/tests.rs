//! The ring against a queue, at its limits, with broken shared memory, and under
//! threads.

use std::{
    collections::VecDeque,
    sync::{atomic::AtomicBool, mpsc},
    thread,
    time::Duration,
};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Push(Vec<u8>, Vec<u8>),
    Pop,
    Consume,
    Sleep,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = |longest| prop::collection::vec(any::<u8>(), 0..longest);
    prop_oneof![
        4 => (bytes(20), bytes(100)).prop_map(|(header, body)| Step::Push(header, body)),
        2 => Just(Step::Pop),
        2 => Just(Step::Consume),
        1 => Just(Step::Sleep),
    ]
}

proptest! {
    #[test]
    fn ring_holds_what_a_queue_holds(
        capacity in 0..600_usize,
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let words = capacity.div_ceil(8).max(2).next_power_of_two();
        let size = |header: &[u8], body: &[u8]| {
            1 + header.len().div_ceil(8) + body.len().div_ceil(8)
        };
        let (mut producer, mut consumer) = ring(capacity);
        let mut queue: VecDeque<(usize, Vec<u8>)> = VecDeque::new();
        let mut asleep = false;
        let mut buffer = Vec::new();
        for step in steps {
            let used: usize = queue.iter().map(|(size, _)| size).sum();
            match step {
                Step::Push(header, body) => {
                    let size = size(&header, &body);
                    let result = producer.push(&header, &body);
                    if used + size > words {
                        prop_assert_eq!(result, PushResult::Full);
                        continue;
                    }
                    let wanted = if asleep { PushResult::StoredWake } else { PushResult::Stored };
                    prop_assert_eq!(result, wanted);
                    prop_assert!(header.len() + body.len() <= producer.max_len());
                    asleep = false;
                    queue.push_back((size, [header, body].concat()));
                }
                Step::Pop => {
                    asleep = false;
                    let popped = consumer.pop(&mut buffer).then_some(&buffer);
                    let wanted = queue.pop_front().map(|(_, bytes)| bytes);
                    prop_assert_eq!(popped, wanted.as_ref());
                }
                Step::Consume => {
                    asleep = false;
                    let taken = consumer.consume(<[u8]>::to_vec);
                    prop_assert_eq!(taken, queue.pop_front().map(|(_, bytes)| bytes));
                }
                Step::Sleep => {
                    asleep = consumer.prepare_sleep();
                    prop_assert_eq!(asleep, queue.is_empty());
                }
            }
        }
    }
}

#[test]
fn the_longest_message_fits_at_every_position() {
    let (mut producer, mut consumer) = ring(256);
    let longest = vec![7; producer.max_len()];
    for _ in 0..100 {
        assert!(producer.push(&longest, &[]).is_stored());
        assert_eq!(producer.push(&[], &[]), PushResult::Full);
        assert_eq!(consumer.consume(|bytes| bytes == longest), Some(true));
        // One word further on, each time.
        assert!(producer.push(&[], &[]).is_stored());
        assert_eq!(consumer.consume(<[u8]>::len), Some(0));
    }
    assert_eq!(producer.push(&longest, &[1]), PushResult::Full);
}

#[test]
fn consuming_allocates_nothing() {
    let (mut producer, mut consumer) = ring(1 << 12);
    let room = consumer.scratch.as_ptr();
    for len in 0..=producer.max_len() {
        assert!(producer.push(&[], &vec![0; len]).is_stored());
        assert_eq!(consumer.consume(<[u8]>::len), Some(len));
    }
    assert_eq!(consumer.scratch.as_ptr(), room);
}

#[test]
fn lengths_and_heads_that_cannot_be_are_dropped() {
    for broken in [u64::MAX, 0xffff_ffff, 1 << 32 | 0xffff_ffff, 9 << 32, 9, 0x7fff_ffff << 32] {
        let (mut producer, mut consumer) = ring(64);
        assert!(producer.push(&[1; 8], &[]).is_stored());
        consumer.ring.words[0].store(broken);
        assert_eq!(consumer.consume(<[u8]>::to_vec), None, "{broken:x}");
        // What comes behind is read again.
        assert!(producer.push(&[2; 8], &[]).is_stored());
        assert_eq!(consumer.consume(<[u8]>::to_vec), Some(vec![2; 8]));
    }
    for broken in [u64::MAX, 1 << 40, 9] {
        let (mut producer, mut consumer) = ring(64);
        consumer.ring.head.0.store(broken, Ordering::Relaxed);
        assert_eq!(consumer.consume(<[u8]>::to_vec), None, "{broken:x}");
        assert!(consumer.prepare_sleep());
        assert_eq!(producer.push(&[1; 8], &[]), PushResult::StoredWake);
        assert_eq!(consumer.consume(<[u8]>::to_vec), Some(vec![1; 8]));
        // A consumer that lies about what it read loses messages, and no more.
        producer.ring.tail.0.store(broken, Ordering::Relaxed);
        for _ in 0..10 {
            let _ = producer.push(&[1; 40], &[]);
        }
    }
}

#[test]
fn messages_cross_threads_whole_and_in_order() {
    const MESSAGES: u32 = 50_000;
    let (mut producer, mut consumer) = ring(1_000);
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..MESSAGES {
                let body = vec![number as u8; (number % 300) as usize];
                while !producer.push(&number.to_be_bytes(), &body).is_stored() {
                    thread::yield_now();
                }
            }
        });
        let mut buffer = Vec::new();
        for number in 0..MESSAGES {
            while !consumer.pop(&mut buffer) {
                thread::yield_now();
            }
            let (header, body) = buffer.split_at(4);
            assert_eq!(header, number.to_be_bytes());
            assert_eq!(body.len(), (number % 300) as usize);
            assert!(body.iter().all(|byte| *byte == number as u8));
        }
        assert!(!consumer.pop(&mut buffer));
    });
}

#[test]
fn a_sleeping_consumer_is_woken_for_every_message() {
    const MESSAGES: u32 = 20_000;
    let (mut producer, mut consumer) = ring(256);
    let (wake, woken) = mpsc::sync_channel::<()>(MESSAGES as usize);
    let slept = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..MESSAGES {
                loop {
                    match producer.push(&number.to_be_bytes(), &[]) {
                        PushResult::Full => thread::yield_now(),
                        PushResult::Stored => break,
                        PushResult::StoredWake => {
                            wake.send(()).unwrap();
                            break;
                        }
                    }
                }
                if number % 64 == 0 {
                    thread::yield_now();
                }
            }
            // So that a lost wake-up is a time-out, not an end of the channel.
            thread::sleep(Duration::from_millis(10));
        });
        let mut next = 0;
        while next < MESSAGES {
            if let Some(number) =
                consumer.consume(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()))
            {
                assert_eq!(number, next);
                next += 1;
            } else if consumer.prepare_sleep() {
                slept.store(true, Ordering::Relaxed);
                woken.recv_timeout(Duration::from_secs(10)).expect("a wake-up was lost");
            }
        }
    });
    assert!(slept.into_inner());
}

#[test]
fn both_ends_can_move_to_other_threads() {
    fn assert_send<T: Send>() {}
    assert_send::<Producer>();
    assert_send::<Consumer>();
}
