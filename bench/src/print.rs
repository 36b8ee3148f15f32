//! The report for people.

use std::fmt::Write as _;

use serde_json::Value;

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
            let frame = if point.imix { "imix".to_owned() } else { point.frame_len.to_string() };
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

/// What else was measured.
pub fn more(report: &Report) -> String {
    let mut text = String::new();
    let yardstick = &report.yardstick;
    let rate = |name: &str, mpps: Option<f64>| {
        mpps.map(|mpps| format!("dpdk-testpmd {name} over net_null: {mpps:.2} Mpps\n"))
    };
    text.extend(rate("mac", yardstick.testpmd_mac_mpps));
    text.extend(rate("macswap", yardstick.testpmd_macswap_mpps));
    let rate = |name: &str, rate: Option<f64>| {
        rate.map(|rate| format!("registrations {name}: {rate:.0} a second\n"))
    };
    text.extend(rate("in-process", report.registrations.in_process_per_s));
    text.extend(rate("end to end", report.registrations.end_to_end_per_s));
    for (name, value) in report.more.iter().filter(|(name, _)| **name != "targets") {
        let _ = writeln!(text, "\n{name}:");
        tree(&mut text, value, 1);
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// A value, a line for each record of it.
fn tree(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Array(items) => items.iter().for_each(|item| tree(text, item, depth)),
        Value::Object(fields) => {
            let (nested, plain): (Vec<_>, Vec<_>) =
                fields.iter().partition(|(_, value)| value.is_array());
            let plain: Vec<String> =
                plain.iter().map(|(name, value)| format!("{name} {}", scalar(value))).collect();
            if !plain.is_empty() {
                let _ = writeln!(text, "{indent}{}", plain.join(", "));
            }
            nested.iter().for_each(|(_, value)| tree(text, value, depth + 1));
        }
        value => {
            let _ = writeln!(text, "{indent}{}", scalar(value));
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(value) => value.as_f64().map(number).unwrap_or_default(),
        Value::Object(fields) => {
            let fields: Vec<String> = fields.values().map(scalar).collect();
            format!("({})", fields.join(" | "))
        }
        value => value.to_string(),
    }
}

/// The targets, one a line.
pub fn targets(targets: &[Target]) -> String {
    let mut text = String::from(
        "\nTarget                                                  bound      measured\n",
    );
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
