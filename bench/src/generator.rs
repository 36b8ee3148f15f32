//! The ports of a box that is measured: one brings frames in as a network card would,
//! the other takes what leaves and looks at a sample of it.
//!
//! The time-stamp counter is read when a worker enters a port and when it leaves it.
//! What lies between is the generator's; the rest, less what the readings themselves
//! cost, is the worker's. A *programme* of phases is run through without the box being
//! built anew: tables with millions of entries are filled once.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use homeport_dataplane::packet::{BURST, Burst, PacketPool};
use homeport_dataplane::port::Port;
use homeport_wire::{EthernetHeader, MacAddress};

use crate::case::{Case, FrameLen};
use crate::frames::{Ends, Frames, Random, Work, port_mac};
use crate::{addresses, alloc, check, cycles};

/// The port to the inside: all frames come in here, but those of [`Case::NaptIn`].
pub const INSIDE: u8 = 0;
/// The port to the outside.
pub const OUTSIDE: u8 = 1;

/// The MTU of both.
pub const MTU: u16 = 1500;

/// One frame in so many is looked at.
const SAMPLE: u64 = 16;

/// One thing to measure on a box.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// What the packets are.
    pub case: Case,
    /// How long they are.
    pub len: FrameLen,
    /// How many come in one turn: above [`BURST`], as bursts of both ports.
    pub burst: usize,
    /// Table updates a second beside it.
    pub updates: u32,
    /// Nodes or flows that packets are of.
    pub entries: u64,
    /// In which order.
    pub order: Order,
    /// Packets before the first run.
    pub warm_up: u64,
    /// How many runs.
    pub runs: usize,
    /// How often each run may be made again because the thread was put aside in it.
    pub repeats: usize,
    /// How long one is: short beside the time that a scheduler gives to a thread, so that
    /// on a busy machine, too, most runs are not cut in two.
    pub extent: Extent,
}

/// In which order nodes or flows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// At random.
    Random,
    /// One after the other, from the one behind the last that came so; the first is 0.
    Next,
}

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// So many ticks.
    Ticks(u64),
    /// So many packets.
    Packets(u64),
}

/// One run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Ticks from its begin to its end.
    pub ticks: u64,
    /// Of these, inside the ports, and what reading the counter costs.
    pub port_ticks: u64,
    /// Packets received.
    pub packets: u64,
    /// Allocations of the worker's thread.
    pub allocations: u64,
    /// Whether the thread was put aside meanwhile.
    pub disturbed: bool,
}

impl Sample {
    /// Ticks for each packet without those in the ports.
    pub fn ticks_per_packet(&self) -> f64 {
        self.ticks.saturating_sub(self.port_ticks) as f64 / self.packets.max(1) as f64
    }

    /// Ticks for each packet, all of them.
    pub fn all_ticks_per_packet(&self) -> f64 {
        self.ticks as f64 / self.packets.max(1) as f64
    }
}

/// The runs of one phase.
#[derive(Clone, Debug, Default)]
pub struct PhaseResult {
    /// Those that count.
    pub samples: Vec<Sample>,
    /// How many more were thrown away because the thread was put aside.
    pub thrown_away: usize,
}

/// What ports, worker thread and control thread of a box share.
pub struct Shared {
    /// What is measured.
    pub programme: Box<[Phase]>,
    /// Ends the worker when the programme is through.
    pub stop: AtomicBool,
    phase: AtomicUsize,
    received: AtomicU64,
    sent: AtomicU64,
    port_ticks: AtomicU64,
    port_calls: AtomicU64,
    /// The external end of each flow: the address above the port.
    external: Box<[AtomicU64]>,
    results: Mutex<Vec<PhaseResult>>,
    failure: Mutex<Option<String>>,
}

/// Adds to what only the worker's thread writes.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

impl Shared {
    /// For this programme and as many flows.
    pub fn new(programme: Vec<Phase>, flows: u64) -> Arc<Self> {
        let count = programme.len();
        Arc::new(Shared {
            programme: programme.into(),
            stop: AtomicBool::new(count == 0),
            phase: AtomicUsize::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            port_ticks: AtomicU64::new(0),
            port_calls: AtomicU64::new(0),
            external: (0..flows).map(|_| AtomicU64::new(0)).collect(),
            results: Mutex::new(Vec::with_capacity(count)),
            failure: Mutex::new(None),
        })
    }

    /// The number of the phase that is running, and the phase.
    pub fn running(&self) -> Option<(usize, &Phase)> {
        let at = self.phase.load(Ordering::Relaxed);
        self.programme.get(at).map(|phase| (at, phase))
    }

    /// What was measured, or what was wrong with what left the box.
    ///
    /// # Errors
    /// The first wrong frame or lost packet, and the phase.
    pub fn results(&self) -> anyhow::Result<Vec<PhaseResult>> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match failure.as_ref() {
            Some(failure) => Err(anyhow::anyhow!("{failure}")),
            None => Ok(self.results.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        }
    }

    /// Ends it all: a figure of a box that does wrong is none.
    fn fail(&self, phase: &Phase, what: &str) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| format!("{}: {what}", phase.case));
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A port of the box.
pub struct GeneratorPort {
    number: u8,
    name: String,
    shared: Arc<Shared>,
    random: Random,
    frames: Option<(usize, Frames)>,
    next: u64,
    stage: Stage,
}

/// Where the port that directs it all is in its phase.
#[derive(Clone, Copy)]
enum Stage {
    /// Before the phase.
    Begin,
    /// Warming up since this many packets.
    WarmUp(u64),
    /// In a run.
    Run(Mark),
}

/// What the counters were when a run began.
#[derive(Clone, Copy)]
struct Mark {
    ticks: u64,
    received: u64,
    sent: u64,
    port_ticks: u64,
    port_calls: u64,
    allocations: u64,
    preemptions: u64,
}

impl GeneratorPort {
    /// The queue of a worker at the port with this number, [`INSIDE`] or [`OUTSIDE`].
    pub fn new(number: u8, worker: usize, shared: Arc<Shared>) -> Self {
        GeneratorPort {
            number,
            name: format!("generator{number}"),
            shared,
            random: Random::new(u64::from(number) + 2 * worker as u64 + 1),
            frames: None,
            next: 0,
            stage: Stage::Begin,
        }
    }

    /// What is to be done at the begin of a turn, when the last one is all done.
    fn direct(&mut self, ticks: u64) {
        let shared = Arc::clone(&self.shared);
        let Some((at, phase)) = shared.running() else { return };
        let received = shared.received.load(Ordering::Relaxed);
        match self.stage {
            Stage::Begin => self.stage = Stage::WarmUp(received),
            Stage::WarmUp(begin) if received - begin < phase.warm_up => {}
            Stage::WarmUp(_) if phase.runs == 0 => self.end_phase(at, PhaseResult::default()),
            Stage::WarmUp(_) => {
                let samples = Vec::with_capacity(phase.runs);
                lock(&shared.results).push(PhaseResult { samples, thrown_away: 0 });
                self.begin_run(ticks);
            }
            Stage::Run(mark) => {
                let is_done = match phase.extent {
                    Extent::Ticks(extent) => ticks.saturating_sub(mark.ticks) >= extent,
                    Extent::Packets(extent) => received - mark.received >= extent,
                };
                if is_done {
                    self.end_run(at, phase, &mark, ticks);
                }
            }
        }
    }

    fn begin_run(&mut self, ticks: u64) {
        let shared = &self.shared;
        self.stage = Stage::Run(Mark {
            ticks,
            received: shared.received.load(Ordering::Relaxed),
            sent: shared.sent.load(Ordering::Relaxed),
            port_ticks: shared.port_ticks.load(Ordering::Relaxed),
            port_calls: shared.port_calls.load(Ordering::Relaxed),
            allocations: alloc::allocations(),
            preemptions: cycles::preemptions(),
        });
    }

    fn end_run(&mut self, at: usize, phase: &Phase, mark: &Mark, ticks: u64) {
        let shared = Arc::clone(&self.shared);
        let calls = shared.port_calls.load(Ordering::Relaxed) - mark.port_calls;
        let inside = shared.port_ticks.load(Ordering::Relaxed) - mark.port_ticks;
        let packets = shared.received.load(Ordering::Relaxed) - mark.received;
        let sent = shared.sent.load(Ordering::Relaxed) - mark.sent;
        let sample = Sample {
            ticks: ticks - mark.ticks,
            port_ticks: inside + calls * cycles::reading(),
            packets,
            allocations: alloc::allocations() - mark.allocations,
            disturbed: cycles::preemptions() != mark.preemptions,
        };
        let share = check::dropped_share(phase.case);
        let should = packets as f64 * (1.0 - share);
        // What is dropped at random is so within a few per cent of the packets.
        let tolerance = if share > 0.0 && share < 1.0 { packets as f64 * 0.02 } else { 0.0 };
        if (sent as f64 - should).abs() > tolerance {
            shared.fail(phase, &format!("{sent} of {packets} packets left the box"));
        }
        let mut results = lock(&shared.results);
        let Some(result) = results.last_mut() else { return };
        if sample.disturbed && result.thrown_away < phase.repeats * phase.runs {
            result.thrown_away += 1;
        } else {
            result.samples.push(sample);
        }
        if result.samples.len() < phase.runs {
            drop(results);
            return self.begin_run(cycles::now());
        }
        drop(results);
        self.next_phase(at);
    }

    fn end_phase(&mut self, at: usize, result: PhaseResult) {
        lock(&self.shared.results).push(result);
        self.next_phase(at);
    }

    fn next_phase(&mut self, at: usize) {
        self.stage = Stage::Begin;
        self.shared.phase.store(at + 1, Ordering::Relaxed);
        if at + 1 >= self.shared.programme.len() {
            self.shared.stop.store(true, Ordering::Relaxed);
        }
    }

    /// How many frames this port brings in a turn.
    fn share(&self, phase: &Phase) -> usize {
        let comes_in = if phase.case == Case::NaptIn { OUTSIDE } else { INSIDE };
        if self.number == comes_in {
            phase.burst.min(BURST)
        } else {
            phase.burst.saturating_sub(BURST).min(BURST)
        }
    }

    fn feed(&mut self, pool: &mut PacketPool, burst: &mut Burst) {
        let shared = Arc::clone(&self.shared);
        let Some((at, phase)) = shared.running() else { return };
        let count = self.share(phase);
        if count == 0 {
            return;
        }
        if self.frames.as_ref().is_none_or(|(of, _)| *of != at) {
            let frames = Frames::new(phase.case.family(), phase.len, port_mac(self.number));
            self.frames = Some((at, frames));
        }
        let Some((_, frames)) = &self.frames else { return };
        let mut came = 0;
        for _ in 0..count {
            let number = match phase.order {
                Order::Random => self.random.below(phase.entries),
                Order::Next => self.next,
            };
            let random = self.random.next();
            let work = Work::of(phase.case, number, random);
            let mut ends = work.ends(random);
            if let Work::In(flow) = work {
                external_end(&shared, flow, &mut ends);
            }
            let Some(mut packet) = pool.take() else { break };
            packet.fill(|room| frames.write(work, &ends, random, room));
            if let Err(packet) = burst.push(packet) {
                pool.give(packet);
                break;
            }
            self.next += u64::from(phase.order == Order::Next);
            came += 1;
        }
        add(&shared.received, came);
        if came == 0 {
            shared.fail(phase, "no packet buffer is free: the worker keeps them");
        }
    }

    /// Takes note of the external end that a flow was given, and looks at a sample.
    fn look(&self, at: u64, phase: &Phase, frame: &[u8]) {
        let wrong = match phase.order {
            Order::Next if phase.case == Case::NaptNew => {
                self.note(frame);
                check::check(phase.case, phase.len, frame)
            }
            _ if at.is_multiple_of(SAMPLE) => check::check(phase.case, phase.len, frame),
            _ => Ok(()),
        };
        if let Err(wrong) = wrong {
            self.shared.fail(phase, &wrong);
        }
    }

    fn note(&self, frame: &[u8]) {
        const SOURCE: usize = EthernetHeader::LEN + 12;
        let Some(&[a, b, c, d, e, f, g, h, i, j, ..]) = frame.get(SOURCE..) else { return };
        let flow = addresses::flow([e, f, g, h].into());
        let external = u64::from(u32::from_be_bytes([a, b, c, d])) << 16;
        let external = external | u64::from(u16::from_be_bytes([i, j]));
        if let Some(place) = usize::try_from(flow).ok().and_then(|at| self.shared.external.get(at))
        {
            place.store(external, Ordering::Relaxed);
        }
    }
}

fn external_end(shared: &Shared, flow: u64, ends: &mut Ends) {
    let place = usize::try_from(flow).ok().and_then(|at| shared.external.get(at));
    let external = place.map_or(0, |place| place.load(Ordering::Relaxed));
    // The address is above the 16 bits of the port.
    ends.destination = (((external >> 16) as u32).into(), external as u16);
}

fn lock(results: &Mutex<Vec<PhaseResult>>) -> std::sync::MutexGuard<'_, Vec<PhaseResult>> {
    results.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Port for GeneratorPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn mac(&self) -> MacAddress {
        port_mac(self.number)
    }

    fn mtu(&self) -> u16 {
        MTU
    }

    fn rx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) {
        let begin = cycles::now();
        if self.number == INSIDE {
            self.direct(begin);
        }
        if !self.shared.stop.load(Ordering::Relaxed) {
            self.feed(pool, burst);
        }
        add(&self.shared.port_calls, 1);
        add(&self.shared.port_ticks, cycles::now() - begin);
    }

    fn tx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) -> usize {
        let begin = cycles::now();
        let shared = Arc::clone(&self.shared);
        let before = shared.sent.load(Ordering::Relaxed);
        let mut sent = 0;
        for packet in burst.drain() {
            if let Some((_, phase)) = shared.running() {
                self.look(before + sent, phase, packet.bytes());
            }
            pool.give(packet);
            sent += 1;
        }
        add(&shared.sent, sent);
        add(&shared.port_calls, 1);
        add(&shared.port_ticks, cycles::now() - begin);
        // A burst is at most `BURST` long.
        sent as usize
    }
}
