//! `homeport trace` and `homeport explain --packet`: the asking side.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::{Begun, ProbeRequest, TraceRequest, WalkView, WalksView};
use crate::admin::client::{Client, ClientError};
use crate::admin::print;
use crate::capture::{CaptureError, CaptureWriter};

/// How long a client waits before it asks for more walks.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a client waits before it asks whether a packet has been followed.
const SHORT_PAUSE: Duration = Duration::from_millis(5);

/// How long it may take to follow a packet.
const PATIENCE: Duration = Duration::from_secs(2);

/// How traces are told.
#[derive(Args, Clone, Debug)]
pub struct Trace {
    /// Which packets: src=, dst= (an address or a prefix), proto=, sport=, dport=, port=,
    /// tenant=, verdict=, reason=, with spaces between; without it all
    #[arg(long, value_name = "WORDS", default_value = "")]
    pub filter: String,
    /// End after so many packets
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Write the frames into a pcap file: each that came in, and behind it the one that
    /// left
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
}

/// Why a trace was not told to its end.
#[derive(Debug, thiserror::Error)]
pub enum TraceFailure {
    /// The daemon refused, or does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The file cannot be written.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// What is printed finds no room.
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
    /// No RX core has answered.
    #[error("the dataplane has not answered within {} s", PATIENCE.as_secs())]
    Silent,
}

impl Trace {
    /// Prints walks as they come, as JSON a line each if wanted, and what was lost to
    /// `complaints`.
    ///
    /// # Errors
    /// [`TraceFailure`]. A reader that has read enough is none.
    pub fn run(
        &self,
        client: &Client,
        is_json: bool,
        out: &mut dyn Write,
        complaints: &mut dyn Write,
    ) -> Result<(), TraceFailure> {
        let mut pcap = self.pcap.as_deref().map(CaptureWriter::create).transpose()?;
        let request = TraceRequest { filter: self.filter.clone(), count: self.count };
        let begun: Begun = read(client.post("/v1/trace", &json!(request))?)?;
        let path = format!("/v1/trace/{}", begun.number);
        let end = self.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let told = follow(client, &path, end, |walk| {
            if let Some(pcap) = &mut pcap {
                capture(pcap, walk)?;
            }
            let text = if is_json { format!("{}\n", json!(walk)) } else { print::walk(walk) };
            out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(TraceFailure::Output)
        });
        if let Some(pcap) = pcap {
            pcap.finish()?;
        }
        match told {
            Ok(0) => Ok(()),
            Ok(lost) => {
                // Where nobody listens, there is nobody to tell.
                let _ = writeln!(complaints, "{}", print::lost(lost));
                Ok(())
            }
            Err(TraceFailure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Asks for walks until there are no more, or until `end`; how many were lost.
fn follow(
    client: &Client,
    path: &str,
    end: Option<Instant>,
    mut tell: impl FnMut(&WalkView) -> Result<(), TraceFailure>,
) -> Result<u64, TraceFailure> {
    loop {
        let is_over = end.is_some_and(|end| Instant::now() >= end);
        let answer = if is_over { client.delete(path)? } else { client.get(path)? };
        let WalksView { walks, lost, done } = read(answer)?;
        for walk in &walks {
            if let Err(error) = tell(walk) {
                // It would end by itself, a little later.
                let _ = client.delete(path);
                return Err(error);
            }
        }
        if done {
            return Ok(lost);
        }
        if walks.is_empty() {
            let left = end.map_or(PAUSE, |end| end.saturating_duration_since(Instant::now()));
            std::thread::sleep(PAUSE.min(left));
        }
    }
}

/// Asks what would become of a packet.
///
/// # Errors
/// [`TraceFailure`].
pub fn explain(client: &Client, packet: &str) -> Result<WalksView, TraceFailure> {
    let request = ProbeRequest { packet: packet.into() };
    let begun: Begun = read(client.post("/v1/probe", &json!(request))?)?;
    let path = format!("/v1/probe/{}", begun.number);
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let answer: WalksView = read(client.get(&path)?)?;
        if answer.done {
            return Ok(answer);
        }
        std::thread::sleep(SHORT_PAUSE);
    }
    Err(TraceFailure::Silent)
}

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, ClientError> {
    serde_json::from_value(answer).map_err(|error| ClientError::NotUnderstood(error.to_string()))
}

/// In front of a packet that came without a link header.
const NO_LINK_HEADER: [u8; 14] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0];

/// Writes the frame that came in, and right behind it, with the same time, the one that
/// left.
fn capture(pcap: &mut CaptureWriter, walk: &WalkView) -> Result<(), CaptureError> {
    let time = Duration::from_nanos(walk.time_nanoseconds);
    // What was made here came in as another packet, which has been written.
    if !walk.made_here {
        let link: &[u8] = if walk.link_header { &[] } else { &NO_LINK_HEADER };
        let frame = [link, &bytes(&walk.frame)].concat();
        pcap.write_cut(time, &frame, walk.frame_bytes + link.len() as u64)?;
    }
    match &walk.sent {
        Some(sent) => pcap.write_cut(time, &bytes(sent), walk.sent_bytes),
        None => Ok(()),
    }
}

/// The bytes that hexadecimal digits are; what is none is left out.
fn bytes(hex: &str) -> Vec<u8> {
    let (pairs, _) = hex.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|at| u8::try_from(at).ok());
    pairs.iter().filter_map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}
