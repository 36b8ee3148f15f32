//! What was set out to be reached, and whether it was.

use serde::Serialize;
use serde_json::Value;

use crate::case::{Case, Kind, entries_text};
use crate::registrations::UNUSABLE;
use crate::report::{Point, Report};

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// What it is.
    pub name: String,
    /// The bound.
    pub bound: f64,
    /// Whether the figure is to be at least the bound; else at most.
    pub at_least: bool,
    /// The figure; `None` when it was not measured.
    pub measured: Option<f64>,
    /// The unit.
    pub unit: &'static str,
}

impl Target {
    fn at_most(name: String, bound: f64, measured: Option<f64>, unit: &'static str) -> Target {
        Target { name, bound, at_least: false, measured, unit }
    }

    fn at_least(name: &str, bound: f64, measured: Option<f64>, unit: &'static str) -> Target {
        Target { name: name.to_owned(), bound, at_least: true, measured, unit }
    }

    /// Whether it is reached; `None` when it was not measured.
    pub fn is_met(&self) -> Option<bool> {
        let measured = self.measured?;
        Some(if self.at_least { measured >= self.bound } else { measured <= self.bound })
    }
}

const K: u64 = 1000;
const M: u64 = 1_000_000;
const MI16: u64 = 1 << 24;

/// The bound on a case's median at a size, in ticks: 64-byte frames, full bursts, no
/// port I/O.
pub const fn bound(case: Case, entries: u64) -> Option<f64> {
    match (case, entries) {
        (Case::Encap(_), K) => Some(60.0),
        (Case::Encap(_), M) => Some(110.0),
        (Case::Encap(_), MI16) => Some(160.0),
        (Case::Decap(_), K) => Some(70.0),
        (Case::Decap(_), M) => Some(120.0),
        (Case::Decap(_), MI16) => Some(170.0),
        (Case::NaptOut | Case::NaptIn, M) => Some(160.0),
        (Case::NaptNew, M) => Some(600.0),
        _ => None,
    }
}

/// Whether a point is one that is compared: a plain run of 64-byte frames.
pub fn is_plain(point: &Point) -> bool {
    point.frame_len == 64 && !point.imix && point.burst == 32 && point.writer_updates_per_s == 0
}

/// Every target, with what the report has of it.
pub fn targets(report: &Report) -> Vec<Target> {
    let mut targets = Vec::new();
    let at = |case: Case, entries: u64, updates: u32| {
        let mut points = report.points.iter();
        points.find(|point| {
            point.case == case.name()
                && point.entries == entries
                && is_plain(&Point { writer_updates_per_s: 0, ..(*point).clone() })
                && point.writer_updates_per_s == updates
        })
    };
    for (name, case) in Case::ALL {
        for entries in [K, M, MI16] {
            let Some(bound) = bound(case, entries) else { continue };
            let measured = at(case, entries, 0).map(|point| point.cycles_per_packet.median);
            let name = format!("{name}, {}", entries_text(entries));
            targets.push(Target::at_most(name, bound, measured, "cycles"));
        }
    }
    for case in [Case::Encap(Kind::IpIp), Case::Decap(Kind::IpIp)] {
        for entries in [M, MI16] {
            let median =
                |updates| at(case, entries, updates).map(|point| point.cycles_per_packet.median);
            let more = median(0)
                .zip(median(100_000))
                .map(|(plain, written)| ((written / plain - 1.0) * 1000.0).round() / 10.0);
            let name =
                format!("{case}, {}: more with 100,000 updates a second", entries_text(entries));
            targets.push(Target::at_most(name, 20.0, more, "%"));
        }
    }
    let allocations = report.points.iter().map(|point| point.allocs_per_packet);
    let most = allocations
        .fold(None, |most: Option<f64>, one| Some(most.map_or(one, |most| most.max(one))));
    targets.push(Target::at_most("allocations of a packet, any point".into(), 0.0, most, ""));
    let more = |key: &str, path: &[&str]| {
        let mut value: Option<&Value> = report.more.get(key);
        for step in path {
            value = value.and_then(|value| match step.parse::<usize>() {
                Ok(place) => value.get(place),
                Err(_) => value.get(step),
            });
        }
        value.and_then(Value::as_f64)
    };
    let install = more("install", &["seconds", "median"]);
    targets.push(Target::at_most("a million bindings installed".into(), 1.0, install, "s"));
    let collisions = report.more.get("collisions").and_then(Value::as_array);
    let worst = collisions.and_then(|sets| {
        sets.iter().filter_map(|set| set.get("p99_ratio")?.as_f64()).reduce(f64::max)
    });
    let name = "look-up of colliding keys, p99 by that of random ones".into();
    targets.push(Target::at_most(name, 1.5, worst, "times"));
    let scaling = more("scaling", &["0", "ratio", "median"]);
    targets.push(Target::at_least("two cores by one", 1.8, scaling, "times"));
    let registrations = &report.registrations;
    let (inside, outside) = (registrations.in_process_per_s, registrations.end_to_end_per_s);
    targets.push(Target::at_least("registrations in-process", 500_000.0, inside, "/s"));
    targets.push(Target::at_least("registrations end to end", 150_000.0, outside, "/s"));
    let loaded = more("subscribers", &["seconds", "median"]);
    targets.push(Target::at_most("a million subscribers loaded".into(), 3.0, loaded, "s"));
    let storm = |key: &str| more("storm", &[key]);
    let kept = storm("accepted_per_s").zip(storm("peak_per_s")).map(|(is, peak)| is / peak);
    let offered = storm("offered_per_s").zip(storm("peak_per_s")).map(|(is, peak)| is / peak);
    targets.push(Target::at_least("storm: offered by the peak", 10.0, offered, "times"));
    targets.push(Target::at_least("storm: accepted by the peak", 0.9, kept, "times"));
    targets.push(Target::at_most("storm: bindings expired".into(), 0.0, storm("expired"), ""));
    let lost = storm("data_sent").zip(storm("data_forwarded")).map(|(sent, out)| sent - out);
    targets.push(Target::at_most("storm: data packets lost".into(), 0.0, lost, ""));
    let gib = |bytes: Option<u64>| {
        bytes
            .filter(|_| report.memory.bindings == Some(MI16))
            .map(|bytes| (bytes as f64 / f64::from(1 << 30) * 100.0).round() / 100.0)
    };
    let dataplane = gib(report.memory.dataplane_bytes);
    // In a process of its own, whatever the sizes of the points are.
    let of_control = |key: &str| more("memory_by_registrations", &[key]);
    let control = of_control("control_bytes")
        .filter(|_| of_control("bindings") >= Some((MI16 - UNUSABLE as u64) as f64))
        .map(|bytes| (bytes / f64::from(1 << 30) * 100.0).round() / 100.0);
    targets.push(Target::at_most(
        "dataplane memory of 16 Mi bindings".into(),
        2.0,
        dataplane,
        "GiB",
    ));
    targets.push(Target::at_most("control memory of 16 Mi bindings".into(), 4.0, control, "GiB"));
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_on_its_side_of_the_bound_and_unknown_without_a_figure() {
        let most = |measured| Target::at_most("m".into(), 60.0, measured, "cycles").is_met();
        assert_eq!(
            [most(Some(60.0)), most(Some(60.1)), most(None)],
            [Some(true), Some(false), None]
        );
        let least = |measured| Target::at_least("l", 1.8, measured, "times").is_met();
        assert_eq!([least(Some(1.8)), least(Some(1.79))], [Some(true), Some(false)]);
    }
}
