//! Running captures: each frame is received at its time, and nothing happens that the
//! capture's clock does not say. So the same captures give the same frames, byte for
//! byte.
//!
//! One worker runs, whatever the config says: with several, their order would be that
//! of the machine.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant as StdInstant};

use homeport_dataplane::launch::{self, PortSetup};
use homeport_dataplane::port::mem::{MemLink, MemPort};
use homeport_dataplane::worker::Worker;
use homeport_proto::draws::Draws;
use homeport_proto::{Instant, MacAddress, Now, NtpTime, PortId};
use homeport_wire::EthernetHeader;
use zerocopy::FromBytes;

use super::kernel::Kernel;
use super::lead::port_mac;
use super::output::Outputs;
use super::report::{InputReport, Report};
use super::{Arguments, Outcome, Pace, Progress, ReplayError};
use crate::capture::{CaptureError, CaptureReader};
use crate::config::Config;
use crate::control_core::{ControlCore, Parts};
use crate::daemon::dataplane_config;
use crate::event_loop::messages_per_prefix;
use crate::install::ClaimKeeper;

/// Seeds everything that is drawn: the same in each run.
const SEED: [u8; 32] = *b"a replay is the same each time. ";

/// The same for the hashes of tables.
const HASH_SEED: [u64; 2] = [0x686f_6d65_706f_7274, 0x7265_706c_6179];

/// Frames that one port receives at a time.
const BURST: usize = homeport_dataplane::packet::BURST;

/// How long time goes on behind the last frame: what waits for a neighbour is given up
/// by then.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// The steps in which it does.
const STEP: Duration = Duration::from_millis(100);

/// A capture's port.
struct Input {
    port: PortId,
    mac: MacAddress,
    link: MemLink,
    reader: CaptureReader,
    /// The time of the next frame.
    next: Option<Duration>,
    latest: Duration,
    /// Why it ended before its end.
    error: Option<CaptureError>,
    received: u64,
    /// Frames that the box itself sent: a capture has both directions.
    own: u64,
    /// Frames whose time is before that of the frame in front of them.
    backwards: u64,
}

/// Runs the captures of the command line. Returns whether all was as expected.
pub(super) fn run(arguments: &Arguments, json: bool) -> Result<Outcome, ReplayError> {
    let path = arguments.config.as_deref().unwrap_or(Path::new(""));
    let config = Config::load(path)?;
    let captures = captures_of(arguments, &config)?;
    let find = |name: &str| port_of(&config, name);
    for (name, _) in &arguments.mac {
        find(name)?;
    }
    let outputs = Outputs::open(&arguments.out, &arguments.expect, find)?;
    let bytes = captures.iter().map(|(_, path)| fs::metadata(path).map_or(0, |data| data.len()));
    let progress = Progress::new(bytes.sum());
    let mut replay = Running::new(&config, arguments, &captures, outputs)?;
    let begun = StdInstant::now();
    let ran = replay.run(arguments.pace, &progress);
    progress.finish();
    ran?;
    let report = replay.finish(&config, begun.elapsed())?;
    Ok(Outcome { text: report.text(json), as_expected: report.is_as_expected() })
}

fn port_of(config: &Config, name: &str) -> Result<PortId, ReplayError> {
    let found = config.ports.iter().find(|port| port.name == name).map(|port| port.id);
    found.ok_or_else(|| {
        let names: Vec<&str> = config.ports.iter().map(|port| port.name.as_str()).collect();
        let names = names.join(", ");
        ReplayError::Usage(format!("the config has no port named {name}; it has {names}"))
    })
}

/// The capture of each port that has one.
fn captures_of(
    arguments: &Arguments,
    config: &Config,
) -> Result<Vec<(PortId, PathBuf)>, ReplayError> {
    let mut captures: Vec<(PortId, PathBuf)> = Vec::new();
    if let Some(capture) = &arguments.capture {
        let [port] = config.ports.as_slice() else {
            let count = config.ports.len();
            let text = format!("the config has {count} ports; give each its capture by --port");
            return Err(ReplayError::Usage(text));
        };
        captures.push((port.id, capture.clone()));
    }
    for (name, capture) in &arguments.port {
        let port = port_of(config, name)?;
        if captures.iter().any(|(other, _)| *other == port) {
            return Err(ReplayError::Usage(format!("--port names {name} twice")));
        }
        captures.push((port, capture.clone()));
    }
    captures.sort_by_key(|(port, _)| port.0);
    Ok(captures)
}

/// A box that runs on captures.
struct Running {
    core: ControlCore,
    worker: Worker,
    kernel: Kernel,
    links: Vec<MemLink>,
    twins: Vec<MemLink>,
    inputs: Vec<Input>,
    outputs: Outputs,
    /// The moment of the first frame, on the workers' clock and on the capture's.
    origin: StdInstant,
    first: Duration,
    now: Duration,
    left: u64,
}

impl Running {
    fn new(
        config: &Config,
        arguments: &Arguments,
        captures: &[(PortId, PathBuf)],
        outputs: Outputs,
    ) -> Result<Self, ReplayError> {
        let mut agents: BTreeSet<Ipv4Addr> =
            config.home_agents.iter().map(|agent| agent.config.address).collect();
        agents.extend(config.foreign_agents.iter().map(|agent| agent.config.care_of_address));
        let (mut links, mut twins, mut setups, mut inputs) = (vec![], vec![], vec![], vec![]);
        for port in &config.ports {
            let capture = captures.iter().find(|(id, _)| *id == port.id).map(|(_, path)| path);
            let given = arguments.mac.iter().find(|(name, _)| *name == port.name);
            let mac = match (given, capture) {
                (Some((_, mac)), _) => Some(*mac),
                (None, Some(capture)) => {
                    let own = port.addresses.iter().map(|address| address.address);
                    port_mac(capture, &agents.iter().copied().chain(own).collect())?
                }
                (None, None) => None,
            };
            let [high, low] = port.id.0.to_be_bytes();
            // Without a capture nobody is told another one.
            let mac = mac.unwrap_or(MacAddress([2, 0, 0, 0, high, low]));
            let (mem, link) = MemPort::new(&port.name, mac, port.mtu);
            let (twin, twin_link) = MemPort::new(&port.kernel_interface, mac, port.mtu);
            if let Some(capture) = capture {
                let reader = CaptureReader::open(capture)?;
                let mut input = Input {
                    port: port.id,
                    mac,
                    link: link.clone(),
                    reader,
                    next: None,
                    latest: Duration::ZERO,
                    error: None,
                    received: 0,
                    own: 0,
                    backwards: 0,
                };
                input.go_on();
                inputs.push(input);
            }
            setups.push(PortSetup {
                name: port.name.clone(),
                tenant: port.tenant,
                queues: vec![Box::new(mem)],
                twin: Some(Box::new(twin)),
            });
            links.push(link);
            twins.push(twin_link);
        }
        let system = |cause| ReplayError::System { what: "making the dataplane".into(), cause };
        let mut plan = dataplane_config(config, HASH_SEED);
        plan.cores = vec![None];
        let (control, mut workers) = launch::build(&plan, setups).map_err(system)?;
        for (shared, port) in control.ports.iter().zip(&config.ports) {
            shared.set_address(port.addresses.first().map(|at| at.address));
        }
        let Some(worker) = workers.pop() else {
            let cause = std::io::Error::other("it has no worker");
            return Err(system(cause));
        };
        let first = inputs.iter().filter_map(|input| input.next).min().unwrap_or_default();
        let origin = StdInstant::now();
        let parts = Parts {
            control,
            agents: config.agent_config(),
            messages_per_second: messages_per_prefix(config),
            claims: ClaimKeeper::default(),
            draws: Draws::live(SEED),
            recorder: None,
        };
        let start = now_at(Duration::ZERO, first);
        let mut core = ControlCore::new(parts, start);
        for change in Kernel::start(config) {
            core.installer().apply_change(change);
        }
        core.start(start.monotonic);
        let kernel = Kernel::new(config, &arguments.neighbor);
        Ok(Running {
            core,
            worker,
            kernel,
            links,
            twins,
            inputs,
            outputs,
            origin,
            first,
            now: first,
            left: 0,
        })
    }

    fn run(&mut self, pace: Pace, progress: &Progress) -> Result<(), ReplayError> {
        let begun = StdInstant::now();
        let mut told = 0;
        while let Some(next) = self.inputs.iter().filter_map(|input| input.next).min() {
            let next = next.max(self.now);
            self.pass_to(next)?;
            if pace == Pace::Real {
                let due = next.saturating_sub(self.first);
                thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            for index in 0..self.inputs.len() {
                self.receive(index, next);
            }
            self.work()?;
            let received: u64 = self.inputs.iter().map(|input| input.received).sum();
            if received - told >= 4_096 || pace == Pace::Real {
                told = received;
                progress.at(self.inputs.iter().map(|input| input.reader.position()).sum());
            }
        }
        let end = self.now + AFTERWARDS;
        while self.now < end {
            self.pass_to((self.now + STEP).min(end))?;
            self.work()?;
        }
        Ok(())
    }

    /// Lets time pass, timer by timer.
    fn pass_to(&mut self, end: Duration) -> Result<(), ReplayError> {
        while let Some(due) = self.core.poll_timeout() {
            let due = self.first + Duration::from_nanos(due.0.saturating_sub(START.0));
            if due > end {
                break;
            }
            self.now = self.now.max(due);
            self.work()?;
        }
        self.now = self.now.max(end);
        Ok(())
    }

    /// The frames of one port that are due, at most a burst.
    fn receive(&mut self, index: usize, due: Duration) {
        let Some(input) = self.inputs.get_mut(index) else { return };
        let mut count = 0;
        while count < BURST
            && let Some(time) = input.next
            && time <= due
        {
            let is_own = EthernetHeader::ref_from_prefix(input.reader.frame())
                .is_ok_and(|(header, _)| header.source == input.mac);
            if is_own {
                input.own += 1;
            } else {
                if let Some(change) = self.kernel.learn(input.port, input.reader.frame()) {
                    self.core.installer().apply_change(change);
                }
                input.link.push(input.reader.frame());
                input.received += 1;
                count += 1;
            }
            input.go_on();
        }
    }

    /// Does what is to be done at this moment, until nothing is.
    fn work(&mut self) -> Result<(), ReplayError> {
        let since = self.now.saturating_sub(self.first);
        let (now, instant) = (now_at(since, self.first), self.origin + since);
        self.core.do_timers(now);
        loop {
            let worked = self.worker.run_once(instant);
            let more = self.core.take_punts(now, instant);
            let mut resolved = false;
            while let Some((port, next_hop)) = self.core.next_hop() {
                if let Some(change) = self.kernel.resolve(port, next_hop) {
                    self.core.installer().apply_change(change);
                    resolved = true;
                }
            }
            self.send()?;
            if !worked && !more && !resolved {
                return Ok(());
            }
        }
    }

    /// What left goes where it was asked for; what is the kernel's is gone.
    fn send(&mut self) -> Result<(), ReplayError> {
        for (index, link) in self.links.iter().enumerate() {
            while let Some(frame) = link.take() {
                // Ports are numbered with 16 bits.
                self.outputs.frame(PortId(index as u16), self.now, &frame)?;
                self.left += 1;
            }
        }
        for twin in &self.twins {
            twin.discard();
        }
        Ok(())
    }

    fn finish(self, config: &Config, took: Duration) -> Result<Report, ReplayError> {
        let span = self.now.saturating_sub(self.first).saturating_sub(AFTERWARDS);
        let mut report = Report::new(config, &self.core, span, took);
        for input in self.inputs {
            let name = config.port(input.port).map_or("", |port| port.name.as_str());
            report.input(InputReport {
                port: name.to_owned(),
                mac: input.mac,
                received: input.received,
                own: input.own,
                backwards: input.backwards,
                left_out: input.reader.left_out(),
                error: input.error.map(|error| error.to_string()),
            });
        }
        for (port, address, count) in self.kernel.unknown() {
            let name = config.port(port).map_or("", |port| port.name.as_str());
            report.unknown(name, address, count);
        }
        report.left = self.left;
        report.differences = self.outputs.finish()?;
        Ok(report)
    }
}

impl Input {
    /// Goes to the next frame; where the capture is broken, it ends.
    fn go_on(&mut self) {
        let read = self.reader.next_frame();
        self.next = read.unwrap_or_else(|error| {
            self.error = Some(error);
            None
        });
        // Time never goes back, whatever the capture says.
        if let Some(next) = &mut self.next {
            self.backwards += u64::from(*next < self.latest);
            self.latest = self.latest.max(*next);
            *next = self.latest;
        }
    }
}

/// The monotonic clock at the first frame.
const START: Instant = Instant(1_000_000_000);

/// Both clocks, so long after the first frame.
fn now_at(since: Duration, first: Duration) -> Now {
    Now { monotonic: START + since, ntp: NtpTime::from_unix(first + since) }
}
