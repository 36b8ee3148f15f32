//! The whole measurement, part by part, into one report.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::case::{Case, Family, Kind, entries_text};
use crate::generator::Phase;
use crate::latency::Latency;
use crate::machine::Machine;
use crate::measure::{Cores, Measured, run};
use crate::plan::Plan;
use crate::progress::{OfBox, Steps};
use crate::report::{Memory, Point, Registrations, Report, Spread, Yardstick};
use crate::{latency, ports, registrations, scaling, storm, subscribers, tables, yardstick};

/// On a machine that is busy with other things, a quick measurement begins no further
/// part after so long.
const QUICK: Duration = Duration::from_secs(42);

const IPIP: [Case; 2] = [Case::Encap(Kind::IpIp), Case::Decap(Kind::IpIp)];

/// How much there is to do, and where.
pub struct Suite {
    /// The points.
    pub plan: Plan,
    /// Whether only points are measured.
    pub points_only: bool,
    /// Whether time is short.
    pub quick: bool,
    /// Of worker and control.
    pub cores: Cores,
}

/// What a child of this program tells: it measures memory in a process of its own.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct MemoryFigures {
    /// Bindings held.
    pub bindings: u64,
    /// Bytes of the control plane with them.
    pub control_bytes: u64,
    /// Bytes of the dataplane's tables.
    pub table_bytes: u64,
}

/// Measures what so many bindings take, in this process, which has done nothing else.
///
/// # Errors
/// A registration was not answered as it must be.
pub fn memory_of(bindings: usize) -> Result<MemoryFigures> {
    let found = registrations::memory(registrations::Population::plain(bindings), 0)?;
    Ok(MemoryFigures {
        bindings: found.bindings as u64,
        control_bytes: found.control_bytes as u64,
        table_bytes: found.table_bytes as u64,
    })
}

impl Suite {
    /// Measures everything. A part that fails is missing from the report, which says
    /// why; a packet core that does wrong fails it all.
    ///
    /// # Errors
    /// A wrong or lost packet, or a box that cannot be made.
    pub fn measure(&self) -> Result<(Report, Vec<Latency>)> {
        let begun = Instant::now();
        let boxes = self.plan.boxes();
        let programmes: Vec<Vec<Phase>> =
            boxes.iter().map(|(entries, family)| self.plan.programme(*family, *entries)).collect();
        let phases: usize = programmes.iter().map(Vec::len).sum();
        let further = if self.points_only { 0 } else { 11 };
        let steps = Steps::new(phases as u64 + further);
        let mut report = Report {
            machine: Machine::this(),
            yardstick: Yardstick::default(),
            points: Vec::new(),
            registrations: Registrations::default(),
            memory: Memory::default(),
            more: BTreeMap::new(),
            missing: BTreeMap::new(),
        };
        let mut installed = Vec::new();
        for ((entries, family), programme) in boxes.into_iter().zip(programmes) {
            steps.begin(&format!("{} at {}", names(&programme), entries_text(entries)));
            let of_box = OfBox { steps: &steps, entries };
            let phases = programme.clone();
            let measured = run(family, entries, programme, self.cores, &of_box)?;
            steps.done(1);
            if entries == 1_000_000 && family != Family::Flows {
                installed.push(measured.installed_in.as_secs_f64());
            }
            if family == Family::Bindings(Kind::IpIp) {
                report.memory.bindings = Some(entries);
                report.memory.dataplane_bytes = Some(measured.resident_bytes);
            }
            report.points.extend(points(&phases, &measured));
        }
        if !installed.is_empty() {
            let seconds = Spread::of(installed);
            report.more.insert("install", json!({ "bindings": 1_000_000, "seconds": seconds }));
        }
        let mut latencies = Vec::new();
        if !self.points_only {
            self.further(&steps, begun, &mut report, &mut latencies);
        }
        steps.finish();
        let targets = crate::targets::targets(&report);
        report.more.insert("targets", json!(targets));
        Ok((report, latencies))
    }

    fn further(
        &self,
        steps: &Steps,
        begun: Instant,
        report: &mut Report,
        latencies: &mut Vec<Latency>,
    ) {
        let part = |name: &'static str,
                    what: &str,
                    report: &mut Report,
                    measure: &mut dyn FnMut(&mut Report) -> Result<()>| {
            if self.quick && begun.elapsed() > QUICK {
                let why = "left out, as a minute is nearly over; scripts/bench measures it";
                report.missing.insert(name.to_owned(), why.to_owned());
                return;
            }
            steps.begin(what);
            if let Err(error) = measure(report) {
                report.missing.insert(name.to_owned(), format!("{error:#}"));
            }
            steps.done(1);
        };
        let time = |quick, full| Duration::from_millis(if self.quick { quick } else { full });
        part("scaling", "two cores against one", report, &mut |report| {
            if report.machine.cores < 2 {
                bail!("this machine has one core");
            }
            let (pairs, run) = (if self.quick { 3 } else { 7 }, time(3, 5));
            let of = |case| scaling::scaling(case, 1_000_000, pairs, run);
            let cases = if self.quick { IPIP.get(..1) } else { IPIP.get(..) };
            let all = cases.unwrap_or_default().iter().map(|case| of(*case));
            report.more.insert("scaling", json!(all.collect::<Result<Vec<_>>>()?));
            Ok(())
        });
        part("collisions", "keys that collide", report, &mut |report| {
            let found = tables::collisions(1_000_000, |hash| {
                steps.part(format!("keys that collide: {hash}"))
            })?;
            report.more.insert("collisions", json!(found));
            Ok(())
        });
        part("latency", "no-drop rate and latency", report, &mut |report| {
            let sizes: &[u64] = if self.quick { &[1_000_000] } else { &[1000, 1_000_000, 1 << 24] };
            for (&entries, case) in
                sizes.iter().flat_map(|entries| IPIP.map(|case| (entries, case)))
            {
                if self.quick && case != Case::Encap(Kind::IpIp) {
                    continue;
                }
                let guess = report.points.iter().find(|point| {
                    point.case == case.name() && point.entries == entries && point.burst == 32
                });
                let guess = guess.map_or(500.0, |point| point.cycles_per_packet_with_io.median);
                latencies.push(latency::latency(
                    case,
                    entries,
                    self.cores.worker,
                    guess,
                    time(20, 60),
                )?);
            }
            report.more.insert("latency", json!(latencies));
            Ok(())
        });
        part("registrations.in_process_per_s", "registrations in-process", report, &mut |report| {
            let (nodes, seconds) = if self.quick { (100_000, 1.5) } else { (1_000_000, 8.0) };
            let found =
                registrations::in_process(registrations::Population::plain(nodes), seconds)?;
            report.registrations.in_process_per_s = Some(found.per_second.round());
            report.more.insert(
                "registrations_in_process",
                json!({
                    "nodes": found.nodes,
                    "new_per_s": found.new_per_second.round(),
                    "renewals_per_s": found.renewals_per_second.round(),
                    "slowest_batch_per_s": found.slowest_batch_per_second.round(),
                    "per_cpu_second": found.per_cpu_second.round(),
                    "registrations": found.registrations,
                }),
            );
            Ok(())
        });
        part(
            "registrations.end_to_end_per_s",
            "registrations through a daemon",
            report,
            &mut |report| {
                let (nodes, seconds) = if self.quick { (20_000, 1.0) } else { (100_000, 8.0) };
                let found = storm::end_to_end(nodes, seconds, self.cores)?;
                if found.denied > 0 {
                    bail!("{} registrations were denied", found.denied);
                }
                report.registrations.end_to_end_per_s = Some(found.accepted_per_s.round());
                report.more.insert(
                    "registrations_end_to_end",
                    json!({ "nodes": nodes, "p50_us": found.p50_us, "p99_us": found.p99_us }),
                );
                Ok(())
            },
        );
        part("storm", "a storm of registrations", report, &mut |report| {
            let (nodes, seconds) = if self.quick { (10_000, 1.0) } else { (50_000, 4.0) };
            // The peak behind the storm may be the higher one; it is to be ten times that.
            let found = storm::storm(nodes, 12.0, seconds, self.cores)?;
            report.more.insert(
                "storm",
                json!({
                    "peak_per_s": found.peak_per_s.round(),
                    "offered_per_s": found.offered_per_s.round(),
                    "accepted_per_s": found.accepted_per_s.round(),
                    "renewals_sent": found.renewals.0,
                    "renewals_accepted": found.renewals.1,
                    "renewal_p50_us": found.renewal_us.0,
                    "renewal_p99_us": found.renewal_us.1,
                    "expired": found.expired,
                    "data_sent": found.data.0,
                    "data_forwarded": found.data.1,
                    "shed_by_a_full_ring": found.shed.0,
                    "shed_by_a_networks_budget": found.shed.1,
                    "shed_by_age": found.shed.2,
                }),
            );
            Ok(())
        });
        part("subscribers", "a million subscribers", report, &mut |report| {
            let runs = if self.quick { 1 } else { 5 };
            let seconds = (0..runs).map(|_| subscribers::load(1_000_000));
            let seconds = Spread::of(seconds.collect::<Result<Vec<_>>>()?);
            report.more.insert("subscribers", json!({ "nodes": 1_000_000, "seconds": seconds }));
            Ok(())
        });
        part("yardstick", "dpdk-testpmd over net_null", report, &mut |report| {
            let seconds = if self.quick { 2 } else { 5 };
            report.yardstick.testpmd_mac_mpps = Some(yardstick::testpmd("mac", 64, seconds)?);
            if self.quick {
                let why = "left out for want of time; scripts/bench measures it";
                report.missing.insert("yardstick.testpmd_macswap_mpps".to_owned(), why.to_owned());
                return Ok(());
            }
            report.yardstick.testpmd_macswap_mpps =
                Some(yardstick::testpmd("macswap", 64, seconds)?);
            Ok(())
        });
        part("null_path", "the whole path over net_null", report, &mut |report| {
            self.null_path(report, time(300, 1000))
        });
        part("memory.control_bytes", "memory of the control core", report, &mut |report| {
            let bindings = if self.quick { 1_000_000 } else { 1 << 24 };
            let found = child(bindings)?;
            report.more.insert("memory_by_registrations", json!(found));
            // All addresses of a /8 are as many as are wanted, but for these.
            let is_same = |wanted: u64| wanted - found.bindings <= registrations::UNUSABLE as u64;
            if report.memory.bindings.filter(|it| *it >= found.bindings).is_some_and(is_same) {
                report.memory.control_bytes = Some(found.control_bytes);
            } else {
                bail!("measured for {} bindings, see memory_by_registrations", found.bindings);
            }
            Ok(())
        });
        part("ports", "the kinds of ports on a veth", report, &mut |report| {
            report.more.insert("ports", json!(ports::compare(time(800, 4000))?));
            Ok(())
        });
    }

    #[cfg(feature = "dpdk")]
    fn null_path(&self, report: &mut Report, run: Duration) -> Result<()> {
        use crate::null_path;

        let mut paths = Vec::new();
        let cases = [(IPIP[0], 1000), (IPIP[0], 1_000_000), (IPIP[1], 1_000_000)];
        let cases = if self.quick { cases.get(1..2) } else { cases.get(..) };
        let cases = cases.unwrap_or_default();
        let eal = null_path::start(2 * cases.len())?;
        for (number, &(case, entries)) in cases.iter().enumerate() {
            let device = |side: usize| format!("net_null{},size=64", number * 2 + side);
            let (inside, outside) = (device(0), device(1));
            let devices = [inside.as_str(), outside.as_str()];
            paths.push(null_path::measure(eal, case, entries, devices, self.cores.worker, run)?);
        }
        let yardstick = report.yardstick.testpmd_mac_mpps;
        let ratios = paths.iter().map(|path| {
            json!({
                "case": path.case,
                "entries": path.entries,
                "to_testpmd_mac": yardstick.map(|mac| path.mpps.median / mac),
                "to_testpmd_mac_without_frames":
                    yardstick.map(|mac| path.mpps_without_frames.median / mac),
            })
        });
        let ratios: Vec<_> = ratios.collect();
        report.more.insert("null_path", json!({ "paths": paths, "ratios": ratios }));
        Ok(())
    }

    #[cfg(not(feature = "dpdk"))]
    fn null_path(&self, _: &mut Report, _: Duration) -> Result<()> {
        bail!("this program was built without the feature `dpdk`")
    }
}

/// Memory in a process of its own.
fn child(bindings: u64) -> Result<MemoryFigures> {
    let program = std::env::current_exe()?;
    let output = Command::new(program).arg("--memory-of").arg(bindings.to_string()).output()?;
    if !output.status.success() {
        bail!("the child failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("reading what the child measured")
}

fn points(phases: &[Phase], measured: &Measured) -> Vec<Point> {
    let runs = phases.iter().zip(&measured.results).zip(&measured.updates_per_second);
    runs.filter(|((phase, _), _)| phase.runs > 0)
        .map(|((phase, result), updates)| Point::new(phase, result, *updates))
        .collect()
}

fn names(programme: &[Phase]) -> String {
    let mut names: Vec<&str> =
        programme.iter().filter(|phase| phase.runs > 0).map(|phase| phase.case.name()).collect();
    names.dedup();
    names.join(", ")
}
