//! Running a programme on a box: the worker on its core, and beside it what the control
//! core does.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use homeport_dataplane::launch::Control;
use homeport_dataplane::packet::BURST;
use homeport_dataplane::stats::PortStats;
use homeport_dataplane::table::binding::EntryFlags;
use homeport_dataplane::verdict::DropReason;
use homeport_dataplane::worker::Worker;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::case::Family;
use crate::frames::Random;
use crate::generator::{Extent, Order, Phase, PhaseResult, Shared};
use crate::world::{self, Size, World};
use crate::{cycles, machine};

/// How the threads are laid out.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// Of the worker.
    pub worker: Option<usize>,
    /// Of what the control core does.
    pub control: Option<usize>,
}

impl Cores {
    /// Puts this thread on its core, and measures the clock, which is not to be done in
    /// a run.
    fn prepare(self) {
        pin(self.control);
        cycles::reading();
        cycles::per_second();
    }
}

/// What one programme gave.
#[derive(Debug)]
pub struct Measured {
    /// For each phase, in order.
    pub results: Vec<PhaseResult>,
    /// Table updates that were really made in each phase, a second.
    pub updates_per_second: Vec<f64>,
    /// How long it took to install the bindings.
    pub installed_in: Duration,
    /// Memory that the box took when its tables were filled.
    pub resident_bytes: u64,
}

/// What is told while it runs.
pub trait Progress {
    /// So many bindings are installed.
    fn installed(&self, count: u64);
    /// This phase runs.
    fn phase(&self, number: usize, phase: &Phase);
}

/// Says nothing.
#[derive(Debug)]
pub struct Quiet;

impl Progress for Quiet {
    fn installed(&self, _: u64) {}
    fn phase(&self, _: usize, _: &Phase) {}
}

/// Runs a programme on a box of its own.
///
/// # Errors
/// A frame left the box that was wrong, a packet was lost, or there is no such box.
pub fn run(
    family: Family,
    entries: u64,
    programme: Vec<Phase>,
    cores: Cores,
    progress: &dyn Progress,
) -> Result<Measured> {
    let flows = if family == Family::Flows { entries } else { 0 };
    let shared = [Shared::new(programme, flows)];
    let before = machine::resident_bytes();
    let size = Size { family, entries: room(&shared) };
    let world = World::new(&size, &shared, &[cores.worker], |count| progress.installed(count))?;
    let World { mut control, workers, installed_in } = world;
    let resident_bytes = machine::resident_bytes().saturating_sub(before);
    cores.prepare();
    let running = start(workers, &shared)?;
    let [shared] = &shared;
    let is_done = || running.iter().all(JoinHandle::is_finished);
    let updates_per_second = attend(&mut control, family, shared, progress, is_done)?;
    join(running)?;
    let results = shared.results().map_err(|error| error.context(drops(&control)))?;
    check_conservation(&control)?;
    Ok(Measured { results, updates_per_second, installed_in, resident_bytes })
}

/// The most that a programme has in its tables: packets that come one after the other
/// open a flow each.
fn room(shared: &[Arc<Shared>]) -> u64 {
    let phases = || shared.iter().flat_map(|shared| &shared.programme);
    let opened = |phase: &Phase| match (phase.order, phase.extent) {
        (Order::Next, Extent::Packets(packets)) => {
            let runs = phase.runs * (1 + phase.repeats) + 1;
            let of_runs = if phase.runs > 0 { runs as u64 * (packets + BURST as u64) } else { 0 };
            phase.warm_up + BURST as u64 + of_runs
        }
        _ => 0,
    };
    let known = phases().map(|phase| phase.entries).max().unwrap_or(1);
    known.max(phases().map(opened).sum())
}

/// What several workers gave, each by itself, at the same time.
///
/// # Errors
/// As [`run`].
pub fn run_together(
    family: Family,
    programmes: Vec<(Vec<Phase>, Option<usize>)>,
    control_core: Option<usize>,
) -> Result<Vec<Vec<PhaseResult>>> {
    let cores: Vec<Option<usize>> = programmes.iter().map(|(_, core)| *core).collect();
    let shared: Vec<Arc<Shared>> =
        programmes.into_iter().map(|(programme, _)| Shared::new(programme, 0)).collect();
    let size = Size { family, entries: room(&shared) };
    let World { control, workers, .. } = World::new(&size, &shared, &cores, |_| {})?;
    Cores { worker: None, control: control_core }.prepare();
    join(start(workers, &shared)?)?;
    check_conservation(&control)?;
    shared.iter().map(|shared| shared.results()).collect()
}

fn start(workers: Vec<Worker>, shared: &[Arc<Shared>]) -> Result<Vec<JoinHandle<()>>> {
    let start = |(number, (worker, shared)): (usize, (Worker, &Arc<Shared>))| {
        let shared = Arc::clone(shared);
        let name = format!("rx-{number}");
        Ok(thread::Builder::new().name(name).spawn(move || worker.run(&shared.stop))?)
    };
    workers.into_iter().zip(shared).enumerate().map(start).collect()
}

fn join(running: Vec<JoinHandle<()>>) -> Result<()> {
    running
        .into_iter()
        .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a worker panicked")))
}

/// What the control core does meanwhile: it reads what is punted, and replaces bindings.
fn attend(
    control: &mut Control,
    family: Family,
    shared: &Shared,
    progress: &dyn Progress,
    is_done: impl Fn() -> bool,
) -> Result<Vec<f64>> {
    let mut made = vec![0.0; shared.programme.len()];
    let mut buffer = Vec::new();
    let mut random = Random::new(99);
    let mut told = None;
    let (mut begin, mut count) = (cycles::now(), 0u64);
    while !is_done() {
        while control.punts.next(&mut buffer).is_some() {}
        let Some((at, phase)) = shared.running() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        if told != Some(at) {
            (told, begin, count) = (Some(at), cycles::now(), 0);
            progress.phase(at, phase);
        }
        let seconds = (cycles::now() - begin) as f64 / cycles::per_second();
        let due = (seconds * f64::from(phase.updates)) as u64;
        // Far behind, it does not run after what it missed with all its might.
        let due = due.min(count + 1000);
        while count < due {
            let node = random.below(phase.entries);
            // Every other update changes what an entry says.
            let flags = EntryFlags::default().with(EntryFlags::CLAMP_MSS, count & 1 == 0);
            let (key, entry) = world::binding(family, node, flags)?;
            // While the worker is put aside, what was replaced waits for it: as the control
            // core does, it is tried again later.
            if control.bindings.install(key, entry).is_err() {
                break;
            }
            count += 1;
        }
        if let Some(made) = made.get_mut(at) {
            *made = count as f64 / seconds.max(1e-3);
        }
        let pause = if phase.updates > 0 { 20 } else { 500 };
        thread::sleep(Duration::from_micros(pause));
    }
    Ok(made)
}

/// Keeps this thread on a core.
pub fn pin(core: Option<usize>) {
    let Some(core) = core.filter(|core| *core < CpuSet::MAX_CPU) else { return };
    let mut cores = CpuSet::new();
    cores.set(core);
    // Where it may not, the scheduler decides.
    let _ = sched_setaffinity(None, &cores);
}

/// Every packet has ended somewhere.
fn check_conservation(control: &Control) -> Result<()> {
    for port in control.ports.iter() {
        let (came, went) = (port.sum(PortStats::total_in), port.sum(PortStats::total_out));
        if came != went {
            bail!("{}: {came} packets came and {went} ended somewhere", port.name);
        }
    }
    Ok(())
}

/// Why packets were dropped, for a failure's message.
fn drops(control: &Control) -> String {
    let count = |reason: &DropReason| -> u64 {
        let of = |stats: &PortStats| stats.dropped(*reason).get();
        control.ports.iter().map(|port| port.sum(of)).sum()
    };
    let drops = DropReason::ALL.iter().map(|reason| (reason.counter(), count(reason)));
    let drops: Vec<String> = drops
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    format!(
        "dropped so far: {}",
        if drops.is_empty() { "nothing".into() } else { drops.join(", ") }
    )
}
