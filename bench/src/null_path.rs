//! The whole path over DPDK's `net_null`: a worker between two devices that take and
//! give packets as fast as they are asked.
//!
//! `net_null` gives buffers of zeros. A port of ours writes a frame into each, as a
//! card's DMA would, and hands it on; what that costs is in the rate, and is told by
//! itself too, so that both comparisons with `dpdk-testpmd` can be made: the rate as it
//! is, and the rate without the writing of frames, which `dpdk-testpmd` has no need of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use homeport_dataplane::packet::{BURST, Burst, PacketPool};
use homeport_dataplane::port::Port;
use homeport_dataplane::port::dpdk::{self, DpdkPort, Eal};
use homeport_wire::MacAddress;
use serde::Serialize;

use crate::case::{Case, FrameLen};
use crate::cycles;
use crate::frames::{Frames, Random, Work};
use crate::generator::{INSIDE, MTU, OUTSIDE};
use crate::report::Spread;
use crate::world::{Size, World};

const BUFFERS: u32 = 4096;

const RUNS: usize = 5;

/// A case over `net_null`.
#[derive(Clone, Debug, Serialize)]
pub struct NullPath {
    /// The case.
    pub case: &'static str,
    /// Bindings.
    pub entries: u64,
    /// Bytes of the plain frame.
    pub frame_len: u16,
    /// Million packets a second, all in it.
    pub mpps: Spread,
    /// Ticks of a packet in all: drivers, worker, and writing its frame.
    pub cycles_per_packet: Spread,
    /// Ticks of these that write its frame.
    pub frame_cycles_per_packet: Spread,
    /// Million packets a second without them.
    pub mpps_without_frames: Spread,
}

/// DPDK, started for so many `net_null` devices.
///
/// # Errors
/// DPDK's own.
pub fn start(devices: usize) -> Result<Eal> {
    dpdk::start(vec!["net_null0"; devices], BUFFERS).context("starting DPDK")
}

/// What the two ports count.
#[derive(Default)]
struct Counts {
    received: AtomicU64,
    sent: AtomicU64,
    frame_ticks: AtomicU64,
}

struct NullPort {
    inner: DpdkPort,
    case: Case,
    entries: u64,
    frames: Frames,
    random: Random,
    feeds: bool,
    counts: Arc<Counts>,
}

impl Port for NullPort {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn mac(&self) -> MacAddress {
        self.inner.mac()
    }

    fn mtu(&self) -> u16 {
        self.inner.mtu()
    }

    fn rx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) {
        if !self.feeds {
            return;
        }
        self.inner.rx_burst(pool, burst);
        let begin = cycles::now();
        for packet in burst.iter_mut() {
            let random = self.random.next();
            let work = Work::of(self.case, self.random.below(self.entries), random);
            let frames = &self.frames;
            packet.fill(|room| frames.write(work, &work.ends(random), random, room));
        }
        let ticks = (cycles::now() - begin).saturating_sub(cycles::reading());
        self.counts.received.fetch_add(burst.len() as u64, Ordering::Relaxed);
        self.counts.frame_ticks.fetch_add(ticks, Ordering::Relaxed);
    }

    fn tx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) -> usize {
        let sent = self.inner.tx_burst(pool, burst);
        self.counts.sent.fetch_add(sent as u64, Ordering::Relaxed);
        sent
    }
}

/// Measures a case; each device can be opened once in a program.
///
/// # Errors
/// A device does not open, or not all packets went through.
pub fn measure(
    eal: Eal,
    case: Case,
    entries: u64,
    devices: [&str; 2],
    core: Option<usize>,
    run: Duration,
) -> Result<NullPath> {
    let counts = Arc::new(Counts::default());
    let port = |device: &str, feeds: bool| -> Result<Vec<Box<dyn Port>>> {
        let inner = DpdkPort::open(eal, device, MTU, BUFFERS)
            .with_context(|| format!("opening {device}"))?;
        let frames = Frames::new(case.family(), FrameLen::Fixed(64), inner.mac());
        let random = Random::new(11);
        let counts = Arc::clone(&counts);
        Ok(vec![Box::new(NullPort { inner, case, entries, frames, random, feeds, counts })])
    };
    // In the order of their numbers.
    const { assert!(INSIDE == 0 && OUTSIDE == 1) };
    let [inside, outside] = devices;
    let ports = [port(inside, true)?, port(outside, false)?];
    let size = Size { family: case.family(), entries };
    let World { control, workers, .. } = World::with_ports(&size, ports, &[core], |_| {})?;
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = workers
        .into_iter()
        .map(|worker| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                eal.register_thread();
                worker.run(&stop);
            })
        })
        .collect();
    std::thread::sleep(run);
    let (mut all, mut writing) = (Vec::new(), Vec::new());
    let read = || {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        (cycles::now() as f64, count(&counts.received), count(&counts.frame_ticks))
    };
    for _ in 0..RUNS {
        let before = read();
        std::thread::sleep(run);
        let after = read();
        let packets = (after.1 - before.1).max(1.0);
        all.push((after.0 - before.0) / packets);
        writing.push((after.2 - before.2) / packets);
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| anyhow!("the worker panicked"))?;
    }
    drop(control);
    let (received, sent) =
        (counts.received.load(Ordering::Relaxed), counts.sent.load(Ordering::Relaxed));
    if sent + (BURST as u64) < received {
        return Err(anyhow!("{case}: {sent} of {received} packets left by net_null"));
    }
    let mpps = |ticks: f64| cycles::per_second() / ticks / 1e6;
    let bare = all.iter().zip(&writing).map(|(all, writing)| mpps(all - writing));
    Ok(NullPath {
        case: case.name(),
        entries,
        frame_len: 64,
        mpps: Spread::of(all.iter().map(|ticks| mpps(*ticks))),
        mpps_without_frames: Spread::of(bare),
        frame_cycles_per_packet: Spread::of(writing),
        cycles_per_packet: Spread::of(all),
    })
}
