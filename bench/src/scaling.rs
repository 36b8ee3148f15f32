//! What a second core brings.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::case::{Case, FrameLen};
use crate::cycles;
use crate::generator::{Extent, Order, Phase, PhaseResult, Sample};
use crate::measure::run_together;
use crate::report::Spread;

/// Two workers on two cores, over one set of tables, against one worker.
#[derive(Clone, Debug, Serialize)]
pub struct Scaling {
    /// The case.
    pub case: &'static str,
    /// Bindings.
    pub entries: u64,
    /// Million packets a second of one core, without port I/O.
    pub one_core_mpps: f64,
    /// Of both together.
    pub two_cores_mpps: f64,
    /// The latter by the former, over several pairs of runs.
    pub ratio: Spread,
    /// The same with the generator's cost in it.
    pub ratio_with_io: Spread,
    /// Ticks of each packet in the generator, one core and two.
    pub generator_cycles_per_packet: (f64, f64),
}

/// Measures a case `pairs` times with one and with two workers.
///
/// # Errors
/// A frame was wrong, or a box cannot be made.
pub fn scaling(case: Case, entries: u64, pairs: usize, run: Duration) -> Result<Scaling> {
    let phase = Phase {
        case,
        len: FrameLen::Fixed(64),
        burst: homeport_dataplane::packet::BURST,
        updates: 0,
        entries,
        order: Order::Random,
        warm_up: 100_000,
        runs: 15,
        repeats: 4,
        extent: Extent::Ticks(cycles::ticks(run)),
    };
    let (mut ratios, mut ratios_with_io) = (Vec::new(), Vec::new());
    let (mut ones, mut twos) = (Vec::new(), Vec::new());
    let mut generator = (0.0, 0.0);
    for _ in 0..pairs {
        let measure = |cores: &[usize]| {
            let programmes = cores.iter().map(|core| (vec![phase], Some(*core))).collect();
            run_together(case.family(), programmes, None)
        };
        let (one, two) = (measure(&[0])?, measure(&[0, 1])?);
        ratios.push(rate(&two, Sample::ticks_per_packet) / rate(&one, Sample::ticks_per_packet));
        let with_io = Sample::all_ticks_per_packet;
        ratios_with_io.push(rate(&two, with_io) / rate(&one, with_io));
        ones.push(rate(&one, Sample::ticks_per_packet));
        twos.push(rate(&two, Sample::ticks_per_packet));
        let inside = |sample: &Sample| sample.all_ticks_per_packet() - sample.ticks_per_packet();
        generator = (median(&one, inside), median(&two, inside));
    }
    let mpps = |rates: Vec<f64>| (Spread::of(rates).median / 1e4).round() / 100.0;
    Ok(Scaling {
        case: case.name(),
        entries,
        one_core_mpps: mpps(ones),
        two_cores_mpps: mpps(twos),
        ratio: Spread::of(ratios),
        ratio_with_io: Spread::of(ratios_with_io),
        generator_cycles_per_packet: generator,
    })
}

/// Packets a second of all workers together.
fn rate(workers: &[Vec<PhaseResult>], ticks: fn(&Sample) -> f64) -> f64 {
    let of = |results: &Vec<PhaseResult>| {
        let samples = results.iter().flat_map(|result| &result.samples);
        cycles::per_second() / Spread::of(samples.map(ticks)).median.max(1e-9)
    };
    workers.iter().map(of).sum()
}

fn median(workers: &[Vec<PhaseResult>], ticks: impl Fn(&Sample) -> f64) -> f64 {
    let samples = workers.iter().flatten().flat_map(|result| &result.samples);
    (Spread::of(samples.map(ticks)).median * 10.0).round() / 10.0
}
