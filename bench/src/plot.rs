//! Pictures of a report, as SVG.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::case::{Case, entries_text};
use crate::latency::Latency;
use crate::report::{Point, Report};
use crate::targets::{bound, is_plain};

const SIZE: (u32, u32) = (1000, 640);
const COLORS: [RGBColor; 14] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(90, 90, 90),
    RGBColor(188, 189, 34),
    RGBColor(23, 190, 207),
    RGBColor(0, 70, 130),
    RGBColor(160, 60, 0),
    RGBColor(0, 100, 40),
    RGBColor(120, 0, 60),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One line: its points, in the order of x, and which colour it has.
struct Line {
    name: String,
    color: usize,
    points: Vec<(f64, f64)>,
}

/// Draws what the report has figures for, into `directory`; the names of the files.
///
/// # Errors
/// A file cannot be written.
pub fn draw(report: &Report, latencies: &[Latency], directory: &Path) -> Result<Vec<String>> {
    let mut drawn = Vec::new();
    let sizes = by_size(&report.points);
    if !sizes.is_empty() {
        let name = "cycles.svg";
        let path = directory.join(name);
        let area = SVGBackend::new(&path, SIZE).into_drawing_area();
        chart(
            &area,
            &Labels {
                title: "Cycles per packet without port I/O, 64-byte frames, random keys (median); × targets",
                x: "bindings or flows",
                y: "cycles of the time-stamp counter",
                tens: true,
            },
            &sizes,
            &marks(&report.points),
            Some(size_text),
        )?;
        drawn.push(name.to_owned());
    }
    let lens = by_len(&report.points);
    if !lens.is_empty() {
        let name = "throughput.svg";
        let path = directory.join(name);
        let area = SVGBackend::new(&path, SIZE).into_drawing_area();
        let labels = Labels {
            title: "Packets a second of one core without port I/O, by frame length (median)",
            x: "bytes of the plain frame",
            y: "million packets a second",
            tens: false,
        };
        chart(&area, &labels, &lens, &[], None)?;
        drawn.push(name.to_owned());
    }
    if !latencies.is_empty() {
        let name = "latency.svg";
        let path = directory.join(name);
        let area = SVGBackend::new(&path, SIZE).into_drawing_area();
        let labels = Labels {
            title: "Time of one packet from arrival to hand-over, at parts of the no-drop rate",
            x: "percentile",
            y: "nanoseconds",
            tens: true,
        };
        let label = |x: f64| {
            ["50 %", "99 %", "99.9 %", "longest"]
                .get(x.round() as usize)
                .map_or_else(String::new, |s| (*s).to_owned())
        };
        chart(&area, &labels, &by_percentile(latencies), &[], Some(label))?;
        drawn.push(name.to_owned());
    }
    Ok(drawn)
}

struct Labels {
    title: &'static str,
    x: &'static str,
    y: &'static str,
    /// Whether heights are powers of ten.
    tens: bool,
}

/// A number of entries by its logarithm.
fn size_text(x: f64) -> String {
    let entries = 10f64.powf(x).round() as u64;
    // Beyond the largest table there is no size to name.
    if entries > crate::addresses::MAX_NODES { String::new() } else { entries_text(entries) }
}

/// Where a value is on a scale of tens.
fn height(value: f64) -> f64 {
    value.max(1.0).log10()
}

fn color_of(case: &str) -> usize {
    Case::ALL.iter().position(|(name, _)| *name == case).unwrap_or_default()
}

/// A line for each case with more than one size.
fn by_size(points: &[Point]) -> Vec<Line> {
    lines(points.iter().filter(|point| is_plain(point)), |point| {
        (
            point.case.to_owned(),
            (point.entries as f64).log10(),
            height(point.cycles_per_packet.median),
        )
    })
}

/// A line for each case and size with more than one length; the IMIX is no length.
fn by_len(points: &[Point]) -> Vec<Line> {
    let plain =
        points.iter().filter(|point| is_plain(&Point { frame_len: 64, ..(*point).clone() }));
    lines(plain, |point| {
        let name = format!("{}, {}", point.case, entries_text(point.entries));
        (name, f64::from(point.frame_len), point.mpps)
    })
}

fn lines<'p>(
    points: impl Iterator<Item = &'p Point>,
    place: impl Fn(&Point) -> (String, f64, f64),
) -> Vec<Line> {
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    for point in points {
        let (name, x, y) = place(point);
        let color = color_of(point.case);
        let new = || Line { name: name.clone(), color, points: Vec::new() };
        lines.entry(name.clone()).or_insert_with(new).points.push((x, y));
    }
    let mut lines: Vec<Line> = lines.into_values().filter(|line| line.points.len() > 1).collect();
    for line in &mut lines {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    lines
}

fn by_percentile(latencies: &[Latency]) -> Vec<Line> {
    let lines = latencies.iter().enumerate().flat_map(|(number, latency)| {
        latency.at.iter().enumerate().map(move |(load, at)| {
            let ns = [at.p50_ns, at.p99_ns, at.p999_ns, at.max_ns];
            let points = ns.iter().enumerate().map(|(x, ns)| (x as f64, height(*ns)));
            Line {
                name: format!(
                    "{}, {}, {:.0} % load",
                    latency.case,
                    entries_text(latency.entries),
                    at.load * 100.0
                ),
                color: number * 2 + load,
                points: points.collect(),
            }
        })
    });
    lines.collect()
}

/// Where the targets of what was measured are.
fn marks(points: &[Point]) -> Vec<(f64, f64, usize)> {
    let marks = points.iter().filter(|point| is_plain(point)).filter_map(|point| {
        let case: Case = point.case.parse().ok()?;
        let bound = bound(case, point.entries)?;
        Some(((point.entries as f64).log10(), height(bound), color_of(point.case)))
    });
    marks.collect()
}

fn chart(
    area: &Area<'_>,
    labels: &Labels,
    lines: &[Line],
    marks: &[(f64, f64, usize)],
    x_label: Option<fn(f64) -> String>,
) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| anyhow!("drawing {}: {error}", labels.title);
    area.fill(&WHITE).map_err(|e| failed(&e))?;
    let all = || lines.iter().flat_map(|line| &line.points);
    let least = all().map(|(x, _)| *x).fold(f64::MAX, f64::min);
    let most = all().map(|(x, _)| *x).fold(f64::MIN, f64::max);
    let margin = (most - least).max(0.1) * 0.03;
    // Beside the lines is the legend.
    let legend = (most - least).max(0.1) * 0.3;
    let lowest =
        all().map(|(_, y)| *y).chain(marks.iter().map(|mark| mark.1)).fold(f64::MAX, f64::min);
    let bottom = if labels.tens { (lowest - 0.1).max(0.0) } else { 0.0 };
    let highest = all().map(|(_, y)| *y).chain(marks.iter().map(|mark| mark.1)).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(labels.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(
            least - margin..most + legend,
            bottom..highest + (highest - bottom) * 0.06,
        )
        .map_err(|e| failed(&e))?;
    let plain = |x: f64| format!("{x:.0}");
    let x_label = |x: &f64| x_label.map_or_else(|| plain(*x), |label| label(*x));
    let places = if labels.x == "percentile" { 4 } else { 8 };
    chart
        .configure_mesh()
        .x_desc(labels.x)
        .y_desc(labels.y)
        .x_labels(places)
        .x_label_formatter(&|x: &f64| {
            // Under the legend there is nothing.
            if *x > most + margin { String::new() } else { x_label(x) }
        })
        .y_label_formatter(&|y: &f64| match labels.tens {
            true => format!("{:.0}", 10f64.powf(*y)),
            false => format!("{y:.0}"),
        })
        .y_labels(if labels.tens { 16 } else { 10 })
        .light_line_style(WHITE)
        .draw()
        .map_err(|e| failed(&e))?;
    for line in lines {
        let color = COLORS.get(line.color % COLORS.len()).copied().unwrap_or(BLACK);
        let style = color.stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style).point_size(3))
            .map_err(|e| failed(&e))?
            .label(line.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    for (x, y, color) in marks {
        let color = COLORS.get(color % COLORS.len()).copied().unwrap_or(BLACK);
        chart
            .draw_series([Cross::new((*x, *y), 5, color.stroke_width(2))])
            .map_err(|e| failed(&e))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 13))
        .draw()
        .map_err(|e| failed(&e))?;
    area.present().map_err(|e| failed(&e))
}
