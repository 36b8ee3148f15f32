//! Measures what a packet costs a worker: `scripts/bench` runs it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use homeport_bench::alloc::Counting;
use homeport_bench::case::{Case, Family, FrameLen, entries_text, parse_entries};
use homeport_bench::cycles;
use homeport_bench::generator::{Extent, Order, Phase};
use homeport_bench::machine::Machine;
use homeport_bench::measure::{Cores, Measured, Quiet, run};
use homeport_bench::report::Point;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Cycles per packet of a whole worker, by case, table size, frame length and burst.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The cases.
    #[arg(long, value_delimiter = ',', default_value = "encap_ipip")]
    case: Vec<Case>,

    /// Bindings or flows.
    #[arg(long, value_delimiter = ',', value_parser = parse_entries, default_value = "1k")]
    entries: Vec<u64>,

    /// Frame lengths in bytes, or `imix`.
    #[arg(long, value_delimiter = ',', default_value = "64")]
    frame: Vec<FrameLen>,

    /// Packets in a turn.
    #[arg(long, value_delimiter = ',', default_value = "32")]
    burst: Vec<usize>,

    /// Table updates a second beside it.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    updates: Vec<u32>,

    /// Runs of each.
    #[arg(long, default_value_t = 9)]
    runs: usize,

    /// Milliseconds of a run.
    #[arg(long, default_value_t = 40)]
    run_ms: u64,

    /// Shorter runs.
    #[arg(long)]
    quick: bool,

    /// The worker's core.
    #[arg(long)]
    core: Option<usize>,

    /// The control core.
    #[arg(long)]
    control_core: Option<usize>,

    /// Where `bench.json` goes.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        arguments.run_ms = arguments.run_ms.min(10);
    }
    let machine = Machine::this();
    println!("{}", machine.describe());
    let mut points = Vec::new();
    for &entries in &arguments.entries {
        let mut families: Vec<Family> = arguments.case.iter().map(|case| case.family()).collect();
        families.sort();
        families.dedup();
        for family in families {
            points.extend(measure(&arguments, family, entries)?);
        }
    }
    fs::create_dir_all(&arguments.output)?;
    let path = arguments.output.join("points.json");
    fs::write(&path, serde_json::to_string_pretty(&points)?)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}

fn measure(arguments: &Arguments, family: Family, entries: u64) -> Result<Vec<Point>> {
    let extent = Extent::Ticks(cycles::ticks(Duration::from_millis(arguments.run_ms)));
    let mut programme = Vec::new();
    for &case in arguments.case.iter().filter(|case| case.family() == family) {
        for &len in &arguments.frame {
            for &burst in &arguments.burst {
                for &updates in &arguments.updates {
                    programme.push(Phase {
                        case,
                        len,
                        burst,
                        updates,
                        entries,
                        order: Order::Random,
                        warm_up: 200_000,
                        runs: arguments.runs,
                        extent,
                    });
                }
            }
        }
    }
    let cores = Cores { worker: arguments.core, control: arguments.control_core };
    let phases = programme.clone();
    let Measured { results, updates_per_second, .. } =
        run(family, entries, programme, cores, &Quiet)?;
    let points = phases.iter().zip(&results).zip(&updates_per_second);
    let points = points.map(|((phase, result), updates)| {
        let point = Point::new(phase, result, *updates);
        let cycles = point.cycles_per_packet;
        println!(
            "{:14} {:>6} {:>5} B burst {:>2} writer {:>6}/s: {:7.1} {:7.1} {:7.1} cycles (with I/O {:.1}), {} allocations, {} disturbed",
            point.case,
            entries_text(point.entries),
            phase.len.to_string(),
            point.burst,
            point.writer_updates_per_s_made,
            cycles.min,
            cycles.median,
            cycles.max,
            point.cycles_per_packet_with_io.median,
            point.allocs_per_packet,
            point.runs_disturbed + point.runs_thrown_away,
        );
        point
    });
    Ok(points.collect())
}
