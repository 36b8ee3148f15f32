//! What came of running captures, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use homeport_dataplane::stats::PortStats;
use homeport_dataplane::verdict::{DropReason, PuntReason};
use homeport_proto::MacAddress;
use homeport_proto::counters::Counters;
use homeport_proto::event::DiscardReason;
use homeport_proto::message::ReplyCode;
use serde_json::{Value, json};

use crate::admin::print::clean;
use crate::capture::LeftOut;
use crate::config::Config;
use crate::control_core::ControlCore;

/// What came in by one port.
pub(super) struct InputReport {
    pub(super) port: String,
    pub(super) mac: MacAddress,
    pub(super) received: u64,
    /// Frames that the box itself had sent.
    pub(super) own: u64,
    /// Frames with a time before that of a frame in front of them.
    pub(super) backwards: u64,
    pub(super) left_out: LeftOut,
    /// Why the capture ended before its end.
    pub(super) error: Option<String>,
}

/// All of it.
pub(super) struct Report {
    span: Duration,
    took: Duration,
    inputs: Vec<InputReport>,
    pub(super) left: u64,
    to_kernel: u64,
    punted: Vec<(&'static str, &'static str, u64)>,
    dropped: Vec<(&'static str, &'static str, u64)>,
    /// Messages that the agents answered with each code, and those that they did not.
    denied: Vec<(u8, u64)>,
    accepted: u64,
    discarded: Vec<(&'static str, &'static str, u64)>,
    bindings: usize,
    visitors: usize,
    unknown: Vec<(String, Ipv4Addr, u64)>,
    /// The first difference of each comparison, how many there are, from what.
    pub(super) differences: Vec<(String, u64, PathBuf)>,
    /// Whether each packet had one verdict.
    conserved: bool,
}

impl Report {
    pub(super) fn new(
        config: &Config,
        core: &ControlCore,
        span: Duration,
        took: Duration,
    ) -> Report {
        let sum = |count: &dyn Fn(&PortStats) -> u64| -> u64 {
            core.ports.iter().map(|port| port.sum(count)).sum()
        };
        let punted = PuntReason::ALL.iter().map(|reason| {
            (reason.counter(), reason.text(), sum(&|stats| stats.punted(*reason).get()))
        });
        let dropped = DropReason::ALL.iter().map(|reason| {
            (reason.counter(), reason.text(), sum(&|stats| stats.dropped(*reason).get()))
        });
        let agents = || core.agent().counters().map(|(_, counters)| counters);
        let mut denied = BTreeMap::new();
        for (code, count) in agents().flat_map(|counters| counters.denied()) {
            *denied.entry(code.0).or_default() += count;
        }
        let discarded = DiscardReason::ALL.iter().map(|reason| {
            let count = agents().map(|counters| counters.discarded_for(*reason)).sum();
            (reason.counter(), reason.text(), count)
        });
        let unread = core.counts.bad_punts.iter();
        let unread = unread.map(|(reason, count)| (reason.counter(), reason.text(), *count));
        let accepted = |counters: &Counters| {
            counters.registrations_accepted + counters.deregistrations_accepted
        };
        debug_assert!(core.ports.len() == config.ports.len());
        Report {
            span,
            took,
            inputs: Vec::new(),
            left: 0,
            to_kernel: sum(&|stats| stats.to_kernel.get()),
            punted: punted.filter(|(.., count)| *count > 0).collect(),
            dropped: dropped.filter(|(.., count)| *count > 0).collect(),
            denied: denied.into_iter().filter(|(_, count)| *count > 0).collect(),
            accepted: agents().map(accepted).sum(),
            discarded: discarded.chain(unread).filter(|(.., count)| *count > 0).collect(),
            bindings: core.agent().bindings().count(),
            visitors: core.agent().visitors().count(),
            unknown: Vec::new(),
            differences: Vec::new(),
            conserved: sum(&PortStats::total_in) == sum(&PortStats::total_out),
        }
    }

    pub(super) fn input(&mut self, input: InputReport) {
        self.inputs.push(input);
    }

    pub(super) fn unknown(&mut self, port: &str, address: Ipv4Addr, count: u64) {
        self.unknown.push((port.to_owned(), address, count));
    }

    /// Whether the captures were whole and nothing differs.
    pub(super) fn is_as_expected(&self) -> bool {
        self.differences.is_empty()
            && self.conserved
            && self.inputs.iter().all(|input| input.error.is_none())
    }

    /// For people, or for programs.
    pub(super) fn text(&self, json: bool) -> String {
        if json { format!("{:#}\n", self.as_json()) } else { self.for_people() }
    }

    fn received(&self) -> u64 {
        self.inputs.iter().map(|input| input.received).sum()
    }

    fn for_people(&self) -> String {
        let mut out = String::new();
        // To a string, nothing is written in vain.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        let rate = self.received() as f64 / seconds.max(1e-9);
        writeln!(
            out,
            "received   {} frames over {:.3} s of capture, in {seconds:.2} s ({rate:.0} a second)",
            self.received(),
            self.span.as_secs_f64()
        )?;
        for input in &self.inputs {
            writeln!(out, "  {:9}{} frames as {}", clean(&input.port), input.received, input.mac)?;
            let notes = [
                (input.own, "that the box itself had sent are left out"),
                (input.backwards, "with a time before that of the frame in front of them"),
                (input.left_out.cut, "cut short by the capture are left out (tcpdump -s 0)"),
                (input.left_out.oversize, "longer than a packet buffer are left out"),
                (input.left_out.not_ethernet, "of other interfaces than Ethernet are left out"),
            ];
            for (count, text) in notes.into_iter().filter(|(count, _)| *count > 0) {
                writeln!(out, "           {count} {text}")?;
            }
            if let Some(error) = &input.error {
                writeln!(out, "           ended early: {}", clean(error))?;
            }
        }
        writeln!(out, "left       {} frames", self.left)?;
        writeln!(out, "to kernel  {}", self.to_kernel)?;
        for (title, counts) in [("punted", &self.punted), ("dropped", &self.dropped)] {
            writeln!(out, "{title:10} {}", counts.iter().map(|(.., count)| count).sum::<u64>())?;
            for (name, text, count) in counts {
                writeln!(out, "  {count:>8} {name}: {text}")?;
            }
        }
        writeln!(out, "accepted   {} registrations and deregistrations", self.accepted)?;
        for (code, count) in &self.denied {
            writeln!(out, "  {count:>8} denied with code {code}: {}", ReplyCode(*code).text())?;
        }
        for (name, text, count) in &self.discarded {
            writeln!(out, "  {count:>8} {name}: {text}")?;
        }
        writeln!(out, "at the end {} bindings, {} visitors", self.bindings, self.visitors)?;
        for (port, address, count) in &self.unknown {
            writeln!(
                out,
                "unknown    {address} on {}: {count} times a packet waited for its link-layer \
                 address; give it by --neighbor {address}=MAC",
                clean(port)
            )?;
        }
        if !self.conserved {
            writeln!(out, "error      not every packet had one verdict; please report this")?;
        }
        for (text, count, path) in &self.differences {
            for line in text.lines() {
                writeln!(out, "{}", clean(line))?;
            }
            writeln!(out, "differs    {count} frames from {}", path.display())?;
        }
        Ok(())
    }

    fn as_json(&self) -> Value {
        let counts = |counts: &[(&str, &str, u64)]| -> Value {
            let pairs = counts.iter().map(|(name, _, count)| ((*name).to_owned(), json!(count)));
            Value::Object(pairs.collect())
        };
        let inputs = self.inputs.iter().map(|input| {
            json!({
                "port": input.port,
                "mac": input.mac,
                "received": input.received,
                "own": input.own,
                "backwards": input.backwards,
                "cut": input.left_out.cut,
                "oversize": input.left_out.oversize,
                "not_ethernet": input.left_out.not_ethernet,
                "error": input.error,
            })
        });
        let unknown = self.unknown.iter().map(
            |(port, address, count)| json!({ "port": port, "address": address, "packets": count }),
        );
        let differences = self
            .differences
            .iter()
            .map(|(text, count, path)| json!({ "file": path, "frames": count, "first": text }));
        json!({
            "received": self.received(),
            "capture_seconds": self.span.as_secs_f64(),
            "seconds": self.took.as_secs_f64(),
            "ports": inputs.collect::<Vec<_>>(),
            "left": self.left,
            "to_kernel": self.to_kernel,
            "punted": counts(&self.punted),
            "dropped": counts(&self.dropped),
            "accepted": self.accepted,
            "denied": self.denied.iter().map(|(code, count)| (code.to_string(), json!(count))).collect::<serde_json::Map<_, _>>(),
            "discarded": counts(&self.discarded),
            "bindings": self.bindings,
            "visitors": self.visitors,
            "unknown_neighbors": unknown.collect::<Vec<_>>(),
            "differences": differences.collect::<Vec<_>>(),
            "conserved": self.conserved,
        })
    }
}
