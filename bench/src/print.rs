//! The report for people.

use std::fmt::Write as _;

use crate::case::{Case, entries_text};
use crate::report::{Point, Report};
use crate::targets::Target;

/// The points, a table for each case.
pub fn points(report: &Report) -> String {
    let mut text = String::new();
    let header = "  entries   frame  burst  writer/s      min   median      max   ns    Mpps  with I/O  allocs  disturbed";
    for (name, _) in Case::ALL {
        let points: Vec<&Point> = report.points.iter().filter(|p| p.case == name).collect();
        if points.is_empty() {
            continue;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n{name}: cycles per packet without port I/O\n{header}");
        for point in points {
            let frame =
                if point.imix { "imix".to_owned() } else { point.frame_len.to_string() };
            let cycles = point.cycles_per_packet;
            let _ = writeln!(
                text,
                "{:>9} {frame:>7} {:>6} {:>9} {:>8.1} {:>8.1} {:>8.1} {:>5.0} {:>6.2} {:>9.1} {:>7} {:>4} of {}",
                entries_text(point.entries),
                point.burst,
                point.writer_updates_per_s_made,
                cycles.min,
                cycles.median,
                cycles.max,
                point.ns_per_packet.median,
                point.mpps,
                point.cycles_per_packet_with_io.median,
                point.allocs_per_packet,
                point.runs_disturbed + point.runs_thrown_away,
                point.runs + point.runs_thrown_away,
            );
        }
    }
    text
}

/// The targets, one a line.
pub fn targets(targets: &[Target]) -> String {
    let mut text = String::from("\nTarget                                                  bound      measured\n");
    for target in targets {
        let sign = if target.at_least { "≥" } else { "≤" };
        let measured = target.measured.map_or("not measured".to_owned(), |measured| {
            format!("{} {}", number(measured), target.unit)
        });
        let verdict = match target.is_met() {
            Some(true) => "ok",
            Some(false) => "missed",
            None => "-",
        };
        let bound = format!("{sign} {}", number(target.bound));
        let _ = writeln!(text, "{:<52} {bound:>9}  {measured:>16}  {verdict}", target.name);
    }
    text
}

/// What was not measured, and why.
pub fn missing(report: &Report) -> String {
    let mut text = String::new();
    for (name, why) in &report.missing {
        let _ = writeln!(text, "not measured: {name}: {why}");
    }
    text
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
