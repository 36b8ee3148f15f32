//! Measures what packets, registrations and tables cost: `scripts/bench` runs it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use homeport_bench::alloc::Counting;
use homeport_bench::case::{Case, FrameLen, parse_entries};
use homeport_bench::machine::Machine;
use homeport_bench::measure::Cores;
use homeport_bench::plan::Plan;
use homeport_bench::suite::{self, Suite};
use homeport_bench::{plot, ports, print, targets};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Measures a whole worker, case by case: cycles of a packet by table size, frame length
/// and burst; and beside it two cores, latencies, registrations, memory, DPDK's own
/// forwarder on the same devices.
///
/// With --case, --entries, --frame, --burst or --updates it measures just those points,
/// in every combination.
#[derive(Parser)]
#[command(version, name = "bench")]
struct Arguments {
    /// Cases: encap_ipip, decap_ipip, the same with _udp, _gre and _minimal; napt_out,
    /// napt_in, napt_new, forward, miss, mixed.
    #[arg(long, value_delimiter = ',')]
    case: Vec<Case>,

    /// Bindings or flows, as 1k, 100k, 1M, 16Mi.
    #[arg(long, value_delimiter = ',', value_parser = parse_entries)]
    entries: Vec<u64>,

    /// Frame lengths: bytes from 64 to 1400, or `imix`.
    #[arg(long, value_delimiter = ',')]
    frame: Vec<FrameLen>,

    /// Packets in a turn, 1 to 64; above 32 they are bursts of two ports.
    #[arg(long, value_delimiter = ',', value_parser = parse_burst)]
    burst: Vec<usize>,

    /// Table updates a second beside it.
    #[arg(long, value_delimiter = ',')]
    updates: Vec<u32>,

    /// Runs of each point, at least 5.
    #[arg(long, value_parser = clap::value_parser!(u16).range(5..=1000))]
    runs: Option<u16>,

    /// Milliseconds of a run.
    #[arg(long)]
    run_ms: Option<u64>,

    /// Fewer points and shorter runs.
    #[arg(long)]
    quick: bool,

    /// The worker's CPU; without it the last one, if there are several.
    #[arg(long)]
    core: Option<usize>,

    /// The control core's CPU; without it the first one, if there are several.
    #[arg(long)]
    control_core: Option<usize>,

    /// Where bench.json and the plots go.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,

    /// Measures what so many bindings take, prints it, and ends.
    #[arg(long, hide = true)]
    memory_of: Option<usize>,

    /// Compares the kinds of ports in this process's network namespace for so many
    /// milliseconds each, prints it, and ends.
    #[arg(long, hide = true)]
    ports_here: Option<u64>,
}

fn parse_burst(text: &str) -> Result<usize, String> {
    let burst = text.parse().ok().filter(|burst| (1..=64).contains(burst));
    burst.ok_or_else(|| format!("`{text}` is no burst: 1 to 64"))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(bindings) = arguments.memory_of {
        println!("{}", serde_json::to_string(&suite::memory_of(bindings)?)?);
        return Ok(());
    }
    if let Some(time) = arguments.ports_here {
        let found = ports::here(Duration::from_millis(time))?;
        println!("{}", serde_json::to_string(&found)?);
        return Ok(());
    }
    println!("{}", Machine::this().describe());
    let suite = suite(&arguments);
    let (report, latencies) = suite.measure()?;
    print!("{}", print::points(&report));
    print!("{}", print::more(&report));
    fs::create_dir_all(&arguments.output)
        .with_context(|| format!("making {}", arguments.output.display()))?;
    let drawn = plot::draw(&report, &latencies, &arguments.output)?;
    let path = arguments.output.join("bench.json");
    fs::write(&path, serde_json::to_string_pretty(&report)? + "\n")
        .with_context(|| format!("writing {}", path.display()))?;
    let mut targets = targets::targets(&report);
    if suite.points_only {
        targets.retain(|target| target.measured.is_some());
    }
    print!("{}", print::targets(&targets));
    print!("{}", print::missing(&report));
    let plots: Vec<String> =
        drawn.iter().map(|name| arguments.output.join(name).display().to_string()).collect();
    println!("\nwritten: {} {}", path.display(), plots.join(" "));
    Ok(())
}

fn suite(arguments: &Arguments) -> Suite {
    let mut plan = if arguments.quick { Plan::quick() } else { Plan::full() };
    let Arguments { case, entries, frame, burst, updates, .. } = arguments;
    let chosen = !case.is_empty()
        || !entries.is_empty()
        || !frame.is_empty()
        || !burst.is_empty()
        || !updates.is_empty();
    if chosen {
        // What is not named is the plain one.
        plan = Plan {
            frames: vec![FrameLen::Fixed(64)],
            bursts: vec![32],
            updates: vec![0],
            cross: true,
            ..plan
        };
        replace(&mut plan.cases, case);
        replace(&mut plan.entries, entries);
        replace(&mut plan.frames, frame);
        replace(&mut plan.bursts, burst);
        replace(&mut plan.updates, updates);
    }
    plan.runs = arguments.runs.map_or(plan.runs, usize::from);
    plan.run = arguments.run_ms.map_or(plan.run, Duration::from_millis);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = Cores {
        worker: arguments.core.or((cpus > 1).then_some(cpus - 1)),
        control: arguments.control_core.or((cpus > 1).then_some(0)),
    };
    Suite { plan, points_only: chosen, quick: arguments.quick, cores }
}

fn replace<T: Clone>(of: &mut Vec<T>, by: &[T]) {
    if !by.is_empty() {
        *of = by.to_vec();
    }
}
