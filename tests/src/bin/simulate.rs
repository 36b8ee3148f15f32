//! `simulate`: runs seeds of the deterministic simulation on all cores, and says of
//! each that fails how to repeat it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use homeport_tests::simulation::oracle::{Rule, Violation};
use homeport_tests::simulation::plan::Plan;
use homeport_tests::simulation::planted;
use homeport_tests::simulation::run::{Report, Telling, run};
use homeport_tests::simulation::shrink::shrink;

const USAGE: &str = "\
Runs simulated networks of home agents, foreign agents and mobile nodes, each drawn from a seed,
with everything going wrong that can, and checks the rules that must hold all the time.

Usage: scripts/simulate [OPTION…]

  --seeds N      run N seeds (default 1000)
  --from SEED    the first of them (default 1)
  --seconds S    stop after S seconds, however many were run
  --jobs J       threads (default: as many as there are CPUs)
  --seed S       run this seed alone, and tell its story
  --keep N,N,…   with --seed: only these numbers of its plan
  --no-shrink    do not look for the least of a plan that still fails
  --plant NAME   with this planted bug in it
  --planted      each planted bug in turn, until it is found
  --plan         with --seed: print the plan and run nothing
  --decisions    tell also why each message was answered as it was
";

/// The last lines of a story that are shown.
const LINES: usize = 60;

#[derive(Default)]
struct Options {
    seeds: Option<u64>,
    from: Option<u64>,
    seconds: Option<u64>,
    jobs: Option<u64>,
    seed: Option<u64>,
    keep: Option<Vec<usize>>,
    no_shrink: bool,
    plant: Option<String>,
    planted: bool,
    plan: bool,
    decisions: bool,
}

impl Options {
    fn telling(&self) -> Telling {
        if self.decisions { Telling::Decisions } else { Telling::Events }
    }
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    if let Some(name) = &options.plant
        && let Err(text) = planted::plant(name)
    {
        eprintln!("simulate: {text}");
        return ExitCode::from(2);
    }
    let clean = match options.seed {
        _ if options.planted => find_planted(&options),
        Some(seed) => run_one(&options, seed),
        None => run_many(&options),
    };
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("simulate: {word} needs a value"));
        let number = |text: String| {
            text.parse().map_err(|_| format!("simulate: {word} takes a number, not `{text}`"))
        };
        match word.as_str() {
            "--seeds" => options.seeds = Some(number(value()?)?),
            "--from" => options.from = Some(number(value()?)?),
            "--seconds" => options.seconds = Some(number(value()?)?),
            "--jobs" => options.jobs = Some(number(value()?)?.max(1)),
            "--seed" => options.seed = Some(number(value()?)?),
            "--keep" => {
                let numbers = value()?;
                let numbers = numbers.split(',').filter(|word| !word.is_empty());
                let numbers: Result<Vec<usize>, _> = numbers.map(str::parse).collect();
                options.keep = Some(numbers.map_err(|_| "simulate: --keep takes numbers: 3,7,12")?);
            }
            "--no-shrink" => options.no_shrink = true,
            "--plant" => options.plant = Some(value()?),
            "--planted" => options.planted = true,
            "--plan" => options.plan = true,
            "--decisions" => options.decisions = true,
            "-h" | "--help" => return Err(USAGE.into()),
            _ => return Err(format!("simulate: unknown option `{word}`\n\n{USAGE}")),
        }
    }
    Ok(options)
}

fn run_one(options: &Options, seed: u64) -> bool {
    let mut plan = Plan::draw(seed);
    if let Some(keep) = &options.keep {
        plan = plan.keeping(keep);
    }
    if options.plan {
        print_plan(&plan);
        return true;
    }
    let begun = Instant::now();
    let report = run(&plan, options.telling());
    let Some(violation) = &report.violation else {
        println!(
            "seed {seed}: clean; {} s simulated, {} frames, digest {:016x}, in {:.0} ms",
            report.lasted.as_secs(),
            report.carried,
            report.digest,
            begun.elapsed().as_secs_f64() * 1e3
        );
        return true;
    };
    tell(options, &plan, violation);
    false
}

fn print_plan(plan: &Plan) {
    println!("{:#?}", plan.shape);
    for (number, item) in &plan.items {
        println!("#{number:<4}{item}");
    }
}

/// Tells what went wrong in a plan, and in the least of it that still fails.
fn tell(options: &Options, plan: &Plan, violation: &Violation) {
    let mut least = plan.clone();
    if !options.no_shrink {
        let most = plan.items.len();
        least = shrink(plan, violation.rule, |runs, left| {
            progress(&format!("shrinking: {left} of {most} left after {runs} runs"));
        });
        progress("");
    }
    let report = run(&least, options.telling());
    let violation = report.violation.as_ref().unwrap_or(violation);
    println!("\nseed {} breaks the rule: {violation}\n", plan.seed);
    println!("What happened, as far as it matters:");
    let skipped = report.story.len().saturating_sub(LINES);
    for (at, what) in report.story.iter().skip(skipped) {
        println!("  {:>9.3}  {what}", at.as_secs_f64());
    }
    println!("\nRepeat it with\n  {}\n", command(options, plan, &least));
}

fn command(options: &Options, plan: &Plan, least: &Plan) -> String {
    let mut command = format!("scripts/simulate --seed {}", plan.seed);
    if least.items.len() < Plan::draw(plan.seed).items.len() {
        let numbers: Vec<String> = least.numbers().iter().map(usize::to_string).collect();
        command += &format!(" --no-shrink --keep {}", numbers.join(","));
    }
    if let Some(name) = &options.plant {
        command += &format!(" --plant {name}");
    }
    command
}

/// What many seeds came to.
#[derive(Default)]
struct Sum {
    done: u64,
    lasted: Duration,
    carried: u64,
    failed: Vec<(u64, Violation)>,
}

fn run_many(options: &Options) -> bool {
    let begun = Instant::now();
    let sum = sweep(options, false);
    let took = begun.elapsed();
    let mut rules: BTreeMap<Rule, usize> = BTreeMap::new();
    for (_, violation) in &sum.failed {
        *rules.entry(violation.rule).or_default() += 1;
    }
    // Of each rule one is told in full.
    for rule in rules.keys() {
        if let Some((seed, violation)) = sum.failed.iter().find(|one| one.1.rule == *rule) {
            tell(options, &Plan::draw(*seed), violation);
        }
    }
    for (seed, violation) in &sum.failed {
        println!("seed {seed}: {violation}");
    }
    println!(
        "{} seeds, {:.1} h simulated, {} frames; {} failed; {:.1} s, {:.1} seeds/s",
        sum.done,
        sum.lasted.as_secs_f64() / 3_600.0,
        sum.carried,
        sum.failed.len(),
        took.as_secs_f64(),
        sum.done as f64 / took.as_secs_f64()
    );
    sum.failed.is_empty()
}

/// Runs seeds on all threads; up to the first that fails, if only that is wanted.
fn sweep(options: &Options, first_only: bool) -> Sum {
    let from = options.from.unwrap_or(1);
    let count = options.seeds.unwrap_or(if options.seconds.is_some() { u64::MAX } else { 1_000 });
    let jobs = options.jobs.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
    });
    let deadline = options.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                    if number >= count || is_over || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = from + number;
                    let Report { violation, lasted, carried, .. } =
                        run(&Plan::draw(seed), Telling::Nothing);
                    let Ok(mut sum) = sum.lock() else { return };
                    sum.done += 1;
                    sum.lasted += lasted;
                    sum.carried += carried;
                    if let Some(violation) = violation {
                        sum.failed.push((seed, violation));
                        stop.fetch_or(first_only, Ordering::Relaxed);
                    }
                    if sum.done % 16 == 0 {
                        say(&sum, count, begun);
                    }
                }
            });
        }
    });
    progress("");
    let mut sum = sum.into_inner().unwrap_or_default();
    sum.failed.sort_by_key(|(seed, _)| *seed);
    sum
}

fn say(sum: &Sum, count: u64, begun: Instant) {
    let rate = sum.done as f64 / begun.elapsed().as_secs_f64();
    let left = match count {
        u64::MAX => String::new(),
        count => format!(", {:.0} s left", (count - sum.done) as f64 / rate),
    };
    progress(&format!(
        "{} seeds, {:.1} h simulated, {rate:.0} seeds/s, {} failed{left}",
        sum.done,
        sum.lasted.as_secs_f64() / 3_600.0,
        sum.failed.len()
    ));
}

/// A line that the next one overwrites, where somebody looks.
fn progress(line: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{line}");
        let _ = std::io::stderr().flush();
    }
}

fn find_planted(options: &Options) -> bool {
    println!("{:<40} {:>6} {:>8}  rule", "planted bug", "seeds", "seconds");
    let mut all = true;
    for name in planted::names() {
        if let Err(text) = planted::plant(name) {
            eprintln!("simulate: {text}");
            return false;
        }
        let begun = Instant::now();
        let sum = sweep(options, true);
        let took = begun.elapsed().as_secs_f64();
        match sum.failed.first() {
            Some((seed, violation)) => {
                let Violation { rule, .. } = violation;
                println!("{name:<40} {:>6} {took:>8.1}  {rule:?} (seed {seed})", sum.done);
            }
            None => {
                all = false;
                println!("{name:<40} {:>6} {took:>8.1}  not found", sum.done);
            }
        }
    }
    if planted::names().is_empty() {
        eprintln!("simulate: built without the feature `planted-bugs`");
    }
    all && !planted::names().is_empty()
}
