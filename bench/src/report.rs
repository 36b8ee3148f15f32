//! The report: what `bench.json` holds.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::cycles;
use crate::generator::{Phase, PhaseResult, Sample};
use crate::machine::Machine;

/// Everything that was measured in one run of the program. What was not is null, and
/// [`Report::missing`] says why.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it ran on.
    pub machine: Machine,
    /// What others do on the same machine in the same run.
    pub yardstick: Yardstick,
    /// The packet core, case by case.
    pub points: Vec<Point>,
    /// The control core.
    pub registrations: Registrations,
    /// What tables take.
    pub memory: Memory,
    /// Further measurements, by name.
    #[serde(flatten)]
    pub more: BTreeMap<&'static str, Value>,
    /// Why a figure is null, by its name.
    pub missing: BTreeMap<String, String>,
}

/// What others do.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Yardstick {
    /// Million packets a second of `dpdk-testpmd` in mode `mac`.
    pub testpmd_mac_mpps: Option<f64>,
    /// The same in mode `macswap`.
    pub testpmd_macswap_mpps: Option<f64>,
}

/// One case at one size, one frame length, one burst, one rate of updates.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// The case's name.
    pub case: &'static str,
    /// Bindings or flows.
    pub entries: u64,
    /// Bytes of the plain frame: of IMIX the mean.
    pub frame_len: u16,
    /// Whether it is the IMIX.
    pub imix: bool,
    /// Packets in one turn of the worker.
    pub burst: usize,
    /// Table updates a second beside it, as asked for.
    pub writer_updates_per_s: u32,
    /// And as they were made.
    pub writer_updates_per_s_made: f64,
    /// Ticks of the time-stamp counter without port I/O.
    pub cycles_per_packet: Spread,
    /// With it.
    pub cycles_per_packet_with_io: Spread,
    /// Nanoseconds without port I/O.
    pub ns_per_packet: Spread,
    /// Million packets a second of one core without port I/O, from the median.
    pub mpps: f64,
    /// Allocations of the packet core.
    pub allocs_per_packet: f64,
    /// Runs that count.
    pub runs: usize,
    /// Runs that were thrown away because the core was given to another thread.
    pub runs_thrown_away: usize,
    /// Runs among those that count in which the core was.
    pub runs_disturbed: usize,
}

/// Least, middle and most of some runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle.
    pub median: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of these values; zeros of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        let (half, last) = (values.len() / 2, values.len().saturating_sub(1));
        let median = if values.len().is_multiple_of(2) {
            (at(half.saturating_sub(1)) + at(half)) / 2.0
        } else {
            at(half)
        };
        Spread { min: at(0), median, max: at(last) }
    }

    /// Each of the three by a factor.
    #[must_use]
    pub fn scaled(self, by: f64) -> Spread {
        Spread { min: self.min * by, median: self.median * by, max: self.max * by }
    }

    fn rounded(self) -> Spread {
        let round = |value: f64| (value * 10.0).round() / 10.0;
        Spread { min: round(self.min), median: round(self.median), max: round(self.max) }
    }
}

impl Point {
    /// What a phase and its runs come to.
    pub fn new(phase: &Phase, result: &PhaseResult, updates: f64) -> Point {
        let samples = &result.samples;
        let spread = |of: fn(&Sample) -> f64| Spread::of(samples.iter().map(of));
        let cycles = spread(Sample::ticks_per_packet);
        let packets: u64 = samples.iter().map(|sample| sample.packets).sum();
        let allocations: u64 = samples.iter().map(|sample| sample.allocations).sum();
        Point {
            case: phase.case.name(),
            entries: phase.entries,
            frame_len: phase.len.mean(),
            imix: phase.len == crate::case::FrameLen::Imix,
            burst: phase.burst,
            writer_updates_per_s: phase.updates,
            writer_updates_per_s_made: updates.round(),
            cycles_per_packet: cycles.rounded(),
            cycles_per_packet_with_io: spread(Sample::all_ticks_per_packet).rounded(),
            ns_per_packet: cycles.scaled(1e9 / cycles::per_second()).rounded(),
            mpps: (cycles::per_second() / cycles.median.max(1e-9) / 1e4).round() / 100.0,
            allocs_per_packet: allocations as f64 / packets.max(1) as f64,
            runs: samples.len(),
            runs_thrown_away: result.thrown_away,
            runs_disturbed: samples.iter().filter(|sample| sample.disturbed).count(),
        }
    }
}

/// Registrations a second of one control core.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Registrations {
    /// By calls, without rings.
    pub in_process_per_s: Option<f64>,
    /// Through punt and inject rings of a running daemon.
    pub end_to_end_per_s: Option<f64>,
}

/// What so many bindings take.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Memory {
    /// How many.
    pub bindings: Option<u64>,
    /// In the tables of the packet cores, in bytes.
    pub dataplane_bytes: Option<u64>,
    /// In the control core, in bytes.
    pub control_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread, Spread { min: 1.0, median: 2.5, max: 4.0 });
        assert_eq!(Spread::of([7.0]).median, 7.0);
        assert_eq!(Spread::of([]), Spread::default());
    }
}
