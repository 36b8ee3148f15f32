//! `homeport replay`: what a box received runs again, through the real dataplane and
//! the real agents, with its time taken from what was recorded.
//!
//! [`captures`]: frames of captures. [`journal`]: inputs of the agents.

mod captures;
mod expectation;
mod journal;
mod kernel;
mod lead;
mod output;
mod report;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use homeport_proto::MacAddress;
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::ConfigErrors;

/// What `homeport replay` is told.
#[derive(Args, Clone, Debug)]
#[command(after_help = "The frames of several ports are merged by their times. What is not in \
    the capture, the kernel's own frames among it, is not made up: neighbours are learnt from \
    ARP and from the frames of the capture, or given with --neighbor.")]
pub struct Arguments {
    /// The capture (pcap or pcapng) of a box with one port
    #[arg(value_name = "CAPTURE", conflicts_with = "port", required_unless_present_any = ["port", "journal"])]
    pub capture: Option<PathBuf>,
    /// The config of the box
    #[arg(long, value_name = "FILE", required_unless_present = "journal")]
    pub config: Option<PathBuf>,
    /// The capture of a port; once for each port that receives
    #[arg(long, value_name = "NAME=CAPTURE", value_parser = named_file)]
    pub port: Vec<(String, PathBuf)>,
    /// Where the frames that leave go, as pcap: of all ports, or of one
    #[arg(long, value_name = "[NAME=]FILE", value_parser = output_file)]
    pub out: Vec<(Option<String>, PathBuf)>,
    /// A capture that the frames that leave must equal: of all ports, or of one; the
    /// first difference is shown field by field
    #[arg(long, value_name = "[NAME=]CAPTURE", value_parser = output_file)]
    pub expect: Vec<(Option<String>, PathBuf)>,
    /// As fast as it goes, or as it was
    #[arg(long, value_enum, default_value_t = Pace::Full)]
    pub pace: Pace,
    /// The link-layer address of a port, where the capture does not show it
    #[arg(long, value_name = "NAME=MAC", value_parser = named_mac)]
    pub mac: Vec<(String, MacAddress)>,
    /// The link-layer address of a neighbour, where the capture does not show it
    #[arg(long, value_name = "ADDRESS=MAC", value_parser = neighbor)]
    pub neighbor: Vec<(std::net::Ipv4Addr, MacAddress)>,
    /// Run a journal of `homeportd --record` instead of captures
    #[arg(long, value_name = "DIR", conflicts_with_all = ["capture", "port", "config", "out",
        "expect", "pace", "mac", "neighbor"])]
    pub journal: Option<PathBuf>,
    /// Write the actions of now into the journal, in place of those that are there
    #[arg(long, requires = "journal")]
    pub regenerate: bool,
}

/// How fast a capture runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pace {
    /// As fast as it goes.
    Full,
    /// Each frame after as much time as there was between it and the first.
    Real,
}

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The config is wrong.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// A capture is wrong, or the output cannot be written.
    #[error(transparent)]
    Capture(#[from] crate::capture::CaptureError),
    /// A journal is wrong.
    #[error(transparent)]
    Journal(#[from] crate::journal::JournalError),
    /// What was asked for does not fit together.
    #[error("{0}")]
    Usage(String),
    /// The dataplane cannot be made, or a file cannot be written.
    #[error("{what}: {cause}")]
    System {
        /// What was tried.
        what: String,
        /// Why it failed.
        cause: io::Error,
    },
}

/// What came of a replay.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// For people, or as JSON.
    pub text: String,
    /// Whether all was as expected.
    pub as_expected: bool,
}

/// Runs it.
///
/// # Errors
/// [`ReplayError`].
pub fn run(arguments: &Arguments, json: bool) -> Result<Outcome, ReplayError> {
    match &arguments.journal {
        Some(folder) => journal::run(folder, arguments.regenerate, json),
        None => captures::run(arguments, json),
    }
}

/// Bytes that are read, on a terminal as a bar, elsewhere not at all.
struct Progress(ProgressBar);

impl Progress {
    fn new(bytes: u64) -> Progress {
        let bar = ProgressBar::new(bytes);
        let template = "{elapsed_precise} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress(bar)
    }

    fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// Prints a line beside it.
    fn tell(&self, line: &str) {
        self.0.suspend(|| {
            let _ = writeln!(io::stderr(), "{line}");
        });
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.to_owned(), file.into()))
        }
        _ => Err("a port's name, an equals sign and a file are expected, as core=core.pcap".into()),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the form of a parser")]
fn output_file(text: &str) -> Result<(Option<String>, PathBuf), String> {
    Ok(match named_file(text) {
        // A path with an equals sign in it is no name.
        Ok((name, file)) if !name.contains('/') => (Some(name), file),
        _ => (None, text.into()),
    })
}

fn named_mac(text: &str) -> Result<(String, MacAddress), String> {
    let expected = "a port's name, an equals sign and a link-layer address are expected, as \
                    core=02:00:00:00:00:01";
    let (name, mac) = text.split_once('=').ok_or(expected)?;
    Ok((name.to_owned(), mac.parse().map_err(|_| expected)?))
}

fn neighbor(text: &str) -> Result<(std::net::Ipv4Addr, MacAddress), String> {
    let expected = "an IPv4 address, an equals sign and a link-layer address are expected, as \
                    10.0.0.1=02:00:00:00:00:01";
    let (address, mac) = text.split_once('=').ok_or(expected)?;
    Ok((address.parse().map_err(|_| expected)?, mac.parse().map_err(|_| expected)?))
}
