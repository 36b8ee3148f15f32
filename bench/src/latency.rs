//! How fast packets may come without one being lost, and how long one takes at a part
//! of that rate.
//!
//! Packets arrive by the clock, at equal distances, in a queue as long as a network
//! card's. The worker empties it when it comes by: what it finds full is lost. The time
//! of a packet is from its arrival to its hand-over to the port that it leaves by. The
//! generator's work is done on the worker's core, so that the rate is that of worker
//! and generator together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use homeport_dataplane::packet::{BURST, Burst, PacketPool};
use homeport_dataplane::port::Port;
use homeport_wire::MacAddress;
use serde::Serialize;

use crate::case::{Case, FrameLen};
use crate::cycles;
use crate::frames::{Frames, Random, Work, port_mac};
use crate::generator::{INSIDE, MTU, OUTSIDE};
use crate::world::{Size, World};

/// Packets that wait for the worker at the most.
const QUEUE: u64 = 1024;

/// A rate at which packets are lost is tried so often: another thread on the core is no
/// property of the worker.
const ATTEMPTS: u32 = 3;

/// Halvings of the range that the rate is looked for in.
const HALVINGS: u32 = 9;

/// The outcome for one case.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// The case.
    pub case: &'static str,
    /// Bindings.
    pub entries: u64,
    /// Bytes of a frame.
    pub frame_len: u16,
    /// Packets a second without a loss, generator included.
    pub no_drop_pps: f64,
    /// At parts of that rate.
    pub at: Vec<Percentiles>,
}

/// Nanoseconds from arrival to hand-over.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    /// The part of the no-drop rate.
    pub load: f64,
    /// Packets a second.
    pub pps: f64,
    /// Packets.
    pub packets: u64,
    /// Packets lost.
    pub lost: u64,
    /// 50 in 100 took less.
    pub p50_ns: f64,
    /// 99 in 100.
    pub p99_ns: f64,
    /// 999 in 1,000.
    pub p999_ns: f64,
    /// The longest.
    pub max_ns: f64,
}

/// Times by their size: 32 classes for each power of two, so that a class is 3 % wide.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

const CLASSES: u64 = 32;

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; 64 * CLASSES as usize], count: 0, max: 0 }
    }
}

impl Histogram {
    /// Adds a time.
    pub fn add(&mut self, ticks: u64) {
        if let Some(count) = self.counts.get_mut(Histogram::class(ticks)) {
            *count += 1;
        }
        self.count += 1;
        self.max = self.max.max(ticks);
    }

    /// The time that this part of all is not longer than, to 3 %.
    pub fn at(&self, part: f64) -> u64 {
        let wanted = (self.count as f64 * part).ceil() as u64;
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        // The upper end of the class.
        place.map_or(0, |place| Histogram::begin(place as u64 + 1).saturating_sub(1).min(self.max))
    }

    fn class(ticks: u64) -> usize {
        if ticks < CLASSES {
            return ticks as usize;
        }
        let power = u64::from(ticks.ilog2()) - 5;
        ((power + 1) * CLASSES + (ticks >> power) - CLASSES) as usize
    }

    /// The least time of a class.
    fn begin(class: u64) -> u64 {
        match class / CLASSES {
            0 => class,
            row => (CLASSES + class % CLASSES) << (row - 1).min(58),
        }
    }

    fn clear(&mut self) {
        self.counts.fill(0);
        (self.count, self.max) = (0, 0);
    }
}

/// One try at a rate.
#[derive(Clone, Copy, Debug)]
struct Trial {
    /// Ticks between two packets, times 256.
    distance: u64,
    /// When it began, and how long it is.
    begin: u64,
    extent: u64,
    preemptions: u64,
    taken: u64,
    lost: u64,
    left: u64,
}

/// What happens next.
enum Step {
    /// The highest rate is looked for between these distances.
    Search { low: u64, high: u64, attempts: u32, halvings: u32 },
    /// The loads that are left.
    Load(usize),
}

/// What both ports and the starter share; only one thread uses it at a time.
struct State {
    trial: Trial,
    step: Step,
    best: u64,
    histogram: Histogram,
    at: Vec<Percentiles>,
    /// Arrival times of packets that are in the box, in order.
    arrivals: std::collections::VecDeque<u64>,
    attempts: u32,
    extents: (u64, u64),
    done: bool,
}

const LOADS: [f64; 2] = [0.5, 0.9];

impl State {
    fn begin(&mut self, distance: u64, extent: u64) {
        self.arrivals.clear();
        self.histogram.clear();
        self.trial = Trial {
            distance,
            begin: cycles::now(),
            extent,
            preemptions: cycles::preemptions(),
            taken: 0,
            lost: 0,
            left: 0,
        };
    }

    /// How many packets have come by now and are not lost, and loses what is too much.
    fn due(&mut self, now: u64) -> u64 {
        let trial = &mut self.trial;
        // Two cores' clocks may differ by a little.
        let come = now.saturating_sub(trial.begin).saturating_mul(256) / trial.distance.max(1);
        let waiting = come.saturating_sub(trial.taken + trial.lost);
        let lost = waiting.saturating_sub(QUEUE);
        trial.lost += lost;
        waiting - lost
    }

    fn arrival(&self) -> u64 {
        let number = self.trial.taken + self.trial.lost + 1;
        self.trial.begin + number.saturating_mul(self.trial.distance) / 256
    }

    /// Goes on when a trial's time is over.
    fn direct(&mut self, now: u64) {
        if self.done || now.saturating_sub(self.trial.begin) < self.trial.extent {
            return;
        }
        let trial = self.trial;
        let disturbed = cycles::preemptions() != trial.preemptions;
        match &mut self.step {
            Step::Search { low, high, attempts, halvings } => {
                let is_lossy = trial.lost > 0;
                if is_lossy && *attempts < ATTEMPTS {
                    *attempts += 1;
                } else {
                    *attempts = 1;
                    *halvings += 1;
                    if is_lossy {
                        *low = trial.distance;
                    } else {
                        *high = trial.distance;
                        self.best = trial.distance;
                    }
                }
                let (next, halvings) = (u64::midpoint(*low, *high), *halvings);
                if halvings <= HALVINGS {
                    self.begin(next, self.extents.0);
                } else {
                    self.attempts = 0;
                    self.step = Step::Load(0);
                    self.begin_load(0);
                }
            }
            Step::Load(place) => {
                let place = *place;
                self.attempts += 1;
                if disturbed && self.attempts < 2 * ATTEMPTS {
                    return self.begin_load(place);
                }
                let load = LOADS.get(place).copied().unwrap_or_default();
                let ns = |ticks: u64| (ticks as f64 * 1e9 / cycles::per_second()).round();
                self.at.push(Percentiles {
                    load,
                    pps: rate(trial.distance),
                    packets: self.histogram.count,
                    lost: trial.lost,
                    p50_ns: ns(self.histogram.at(0.5)),
                    p99_ns: ns(self.histogram.at(0.99)),
                    p999_ns: ns(self.histogram.at(0.999)),
                    max_ns: ns(self.histogram.max),
                });
                self.attempts = 0;
                self.step = Step::Load(place + 1);
                self.begin_load(place + 1);
            }
        }
    }

    fn begin_load(&mut self, place: usize) {
        match LOADS.get(place) {
            Some(load) => self.begin((self.best as f64 / load) as u64, self.extents.1),
            None => self.done = true,
        }
    }
}

/// Packets a second at a distance.
fn rate(distance: u64) -> f64 {
    (cycles::per_second() * 256.0 / distance.max(1) as f64).round()
}

struct PacedPort {
    number: u8,
    case: Case,
    entries: u64,
    frames: Frames,
    random: Random,
    state: Arc<Mutex<State>>,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl Port for PacedPort {
    fn name(&self) -> &str {
        "paced"
    }

    fn mac(&self) -> MacAddress {
        port_mac(self.number)
    }

    fn mtu(&self) -> u16 {
        MTU
    }

    fn rx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) {
        if self.number != INSIDE {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.direct(cycles::now());
        // A trial may have begun just now.
        let now = cycles::now();
        if state.done {
            self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
            return;
        }
        for _ in 0..state.due(now).min(BURST as u64) {
            let random = self.random.next();
            let work = Work::of(self.case, self.random.below(self.entries), random);
            let Some(mut packet) = pool.take() else { return };
            packet.fill(|room| self.frames.write(work, &work.ends(random), random, room));
            if let Err(packet) = burst.push(packet) {
                return pool.give(packet);
            }
            let arrival = state.arrival();
            state.arrivals.push_back(arrival);
            state.trial.taken += 1;
        }
    }

    fn tx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) -> usize {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = cycles::now();
        let mut sent = 0;
        for packet in burst.drain() {
            pool.give(packet);
            sent += 1;
            // Packets of one port leave in their order.
            if let Some(arrival) = state.arrivals.pop_front() {
                state.histogram.add(now.saturating_sub(arrival));
                state.trial.left += 1;
            }
        }
        sent
    }
}

/// Looks for the rate of a case, from which no packet is dropped, and measures at parts
/// of it. `guess` is about what a packet costs, in ticks.
///
/// # Errors
/// There is no such box, or the worker panicked.
pub fn latency(
    case: Case,
    entries: u64,
    core: Option<usize>,
    guess: f64,
    trial: Duration,
) -> Result<Latency> {
    let size = Size { family: case.family(), entries };
    let len = FrameLen::Fixed(64);
    // From a quarter of the guess to eight times as slow.
    let (low, high) = ((guess * 64.0) as u64, (guess * 256.0 * 8.0) as u64);
    let extents = (cycles::ticks(trial), cycles::ticks(trial * 5));
    let mut state = State {
        trial: Trial {
            distance: high,
            begin: 0,
            extent: 0,
            preemptions: 0,
            taken: 0,
            lost: 0,
            left: 0,
        },
        step: Step::Search { low, high, attempts: 1, halvings: 0 },
        best: high,
        histogram: Histogram::default(),
        at: Vec::with_capacity(LOADS.len()),
        arrivals: std::collections::VecDeque::with_capacity(4 * QUEUE as usize),
        attempts: 0,
        extents,
        done: false,
    };
    cycles::reading();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    state.begin(high, extents.0);
    let state = Arc::new(Mutex::new(state));
    let port = |number: u8| -> Vec<Box<dyn Port>> {
        vec![Box::new(PacedPort {
            number,
            case,
            entries,
            frames: Frames::new(case.family(), len, port_mac(number)),
            random: Random::new(7),
            state: Arc::clone(&state),
            stop: Arc::clone(&stop),
        })]
    };
    let ports = [INSIDE, OUTSIDE].map(port);
    let World { control, workers, .. } = World::with_ports(&size, ports, &[core], |_| {})?;
    {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.begin(high, extents.0);
    }
    for worker in workers {
        let stop = Arc::clone(&stop);
        let thread = std::thread::spawn(move || worker.run(&stop));
        thread.join().map_err(|_| anyhow!("the worker panicked"))?;
    }
    drop(control);
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Latency {
        case: case.name(),
        entries,
        frame_len: len.mean(),
        no_drop_pps: rate(state.best),
        at: state.at.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_right_to_three_per_cent() {
        let mut histogram = Histogram::default();
        for ticks in 1..=100_000 {
            histogram.add(ticks);
        }
        for (part, right) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0)] {
            let is = histogram.at(part) as f64;
            assert!((is / right - 1.0).abs() < 0.035, "{part}: {is}");
        }
        assert_eq!((histogram.at(1.0), histogram.max), (100_000, 100_000));
        histogram.add(u64::MAX);
        assert_eq!(histogram.max, u64::MAX);
    }

    #[test]
    fn packets_beyond_the_queue_are_lost_and_the_others_keep_their_times() {
        let mut state = State {
            trial: Trial {
                distance: 256 * 100,
                begin: 1000,
                extent: 0,
                preemptions: 0,
                taken: 0,
                lost: 0,
                left: 0,
            },
            step: Step::Load(0),
            best: 0,
            histogram: Histogram::default(),
            at: Vec::new(),
            arrivals: std::collections::VecDeque::new(),
            attempts: 0,
            extents: (0, 0),
            done: false,
        };
        assert_eq!((state.due(1000), state.due(1099), state.due(1100)), (0, 0, 1));
        assert_eq!(state.arrival(), 1100);
        state.trial.taken = 1;
        assert_eq!((state.due(1200), state.arrival()), (1, 1200));
        assert_eq!(state.due(1000 + 100 * (QUEUE + 11)), QUEUE);
        assert_eq!(state.trial.lost, 10);
    }

    #[test]
    fn a_rate_is_found_and_packets_take_longer_at_more_load() {
        let case = Case::Forward;
        let found = latency(case, 10, None, 2000.0, Duration::from_millis(5)).unwrap();
        assert!(found.no_drop_pps > 0.0 && found.at.len() == LOADS.len(), "{found:?}");
        assert!(found.at.iter().all(|at| at.packets > 100 && 0.0 < at.p50_ns), "{found:?}");
        assert!(found.at.iter().all(|at| at.p50_ns <= at.max_ns && at.max_ns < 1e10));
    }
}
