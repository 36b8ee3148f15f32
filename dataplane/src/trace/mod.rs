//! Packet trace: every step that a packet takes through the pipeline, recorded while
//! tracing is on.
//!
//! A *walk* is the story of one packet: how it came in, each table and rule that was
//! consulted and the entry that was used, its [`Verdict`], and the frame that left.
//! What becomes of a packet's making (a copy for one more tunnel, a fragment, an ICMP
//! error back) is a packet of its own, as it is for the counters: it has a walk of its
//! own, which begins with the steps of the packet that it was made from. A packet that
//! waits, for its next hop or for other fragments, has a walk that ends
//! [held](Verdict::Hold); when it goes on, another walk begins with it. So of each term
//! of the conservation law ([`stats`](crate::stats)) there are as many walks as it
//! counts, except for questions and records that are no packets
//! ([`ResolveNeighbor`](crate::verdict::PuntReason::ResolveNeighbor),
//! [`NatLog`](crate::verdict::PuntReason::NatLog)).
//!
//! # How it works
//!
//! The control core publishes a filter and a count in a few atomic words; a worker
//! looks at one of them once a turn. While a trace is on, bursts take the general way,
//! and what that does is noted in the `tracer` by the packet's buffer. At the verdict
//! the record goes into a ring, one for each worker; when that is full the walk is lost,
//! and counted. Records are plain data: [`Step`]s are codes with operands, and their
//! text is made by whoever reads them ([`Step::named`], [`Walk::named`]).
//!
//! A packet is compared with the filter when it comes in: it, and what is in its
//! tunnels. What it becomes is traced with it.
//!
//! * `step` the steps · `text` in words · `filter` which packets · `shared` what
//!   crosses between the cores · `tracer` the worker's side · `probe` packets that are
//!   only asked about.
//!
//! **Not done:** a fragment that waits for the first one of its datagram at a NAPT, or
//! for the others at a tunnel's end, has the steps from before it waited in the walk
//! that ended so, not in the one that follows.

mod filter;
mod probe;
mod shared;
mod step;
mod text;
mod tracer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use homeport_wire::{PortId, TenantId};
use zerocopy::FromBytes;

pub use self::filter::{Filter, Kind, VerdictFilter, WordError};
pub(crate) use self::probe::BY_ROUTE;
pub use self::probe::ProbePacket;
use self::shared::{Head, Shared};
pub use self::step::{Code, Step};
pub use self::text::{Named, Summary};
pub(crate) use self::tracer::{Ending, Tracer};
use crate::launch::{InjectSender, PortShared};
use crate::punt::{InjectHeader, InjectKind};
use crate::ring::{Consumer, Producer, ring};
use crate::verdict::Verdict;

/// How many bytes of a frame are kept.
pub const KEPT: usize = 256;

/// How many steps of a walk are kept.
pub const MAX_STEPS: usize = 16;

/// How many walks wait on the control side, at most, while it looks for others.
const MAX_WAITING: usize = 4096;

/// The story of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// When its worker's turn began.
    pub at: Instant,
    /// The worker.
    pub worker: u16,
    /// Counts the walks of its worker in the order in which they began; they are told in
    /// the order in which they end.
    pub number: u64,
    /// The port that it is counted at.
    pub port: PortId,
    /// Whose it was when it came in.
    pub tenant: TenantId,
    /// Whether `frame` begins with a link header. Else it begins with the IPv4 header:
    /// a packet that was injected, or that waited here.
    pub has_link_header: bool,
    /// How long it was when it came in, in bytes.
    pub frame_len: usize,
    /// Its first [`KEPT`] bytes when it came in.
    pub frame: Vec<u8>,
    /// The first [`MAX_STEPS`] steps, in order.
    pub steps: Vec<Step>,
    /// How many more steps there were.
    pub omitted: usize,
    /// What became of it.
    pub verdict: Verdict,
    /// If it was transmitted, the first [`KEPT`] bytes of the frame that left.
    pub sent: Option<Vec<u8>>,
    /// How long that frame was, in bytes.
    pub sent_len: usize,
}

impl Walk {
    /// The entry of a table that decided: the last one that names a binding, a visitor,
    /// a NAPT's endpoint or an address of this box, or else the route.
    pub fn entry(&self) -> Option<&Step> {
        let decides = |step: &&Step| {
            matches!(step.table(), "binding" | "visitor" | "napt" | "local" | "classify")
        };
        let routes = |step: &&Step| step.table() == "route";
        let plain = |step: &&Step| step.code() != Code::Plain;
        let mut steps = self.steps.iter().rev();
        steps
            .find(|step| decides(step) && plain(step))
            .or_else(|| self.steps.iter().rev().find(routes).or_else(|| self.steps.last()))
    }

    fn read(at: Instant, worker: usize, head: &Head, rest: &[u8]) -> Option<Self> {
        let steps_len = usize::from(head.steps) * size_of::<Step>();
        let (steps, bytes) = rest.split_at_checked(steps_len)?;
        let (frame, sent) = bytes.split_at_checked(usize::from(head.frame))?;
        let steps = steps.chunks_exact(size_of::<Step>());
        let verdict = head.verdict()?;
        let is_sent = matches!(verdict, Verdict::Transmit(_)) && head.sent_len > 0;
        Some(Walk {
            at,
            // There are no more workers than CPUs.
            worker: worker as u16,
            number: head.number,
            port: PortId(head.port),
            tenant: TenantId(head.tenant),
            has_link_header: head.has_link_header != 0,
            frame_len: head.frame_len as usize,
            frame: frame.to_vec(),
            steps: steps.filter_map(|step| Step::read_from_bytes(step).ok()).collect(),
            omitted: usize::from(head.omitted),
            verdict,
            sent: is_sent.then(|| sent.to_vec()),
            sent_len: head.sent_len as usize,
        })
    }
}

/// Why a trace did not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// There is one already.
    #[error("a trace is running already")]
    Running,
    /// No port has the name of the filter.
    #[error("there is no port {0:?}")]
    NoSuchPort(String),
}

/// What a probe has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probed {
    /// What would become of it: a walk for each packet that it would be, the first of
    /// all its own.
    Walks(Vec<Walk>),
    /// Its worker has not answered yet.
    Waits,
}

/// The control core's side of tracing.
pub struct TraceControl {
    shared: Arc<Shared>,
    ports: Arc<[PortShared]>,
    /// By worker.
    rings: Vec<Consumer>,
    /// Whose ring a walk came from last.
    worker: usize,
    buffer: Vec<u8>,
    is_running: bool,
    /// Walks that came while a probe's were looked for.
    waiting: VecDeque<Walk>,
    /// Walks that found no room in there.
    lost: u64,
    probe: Option<Probe>,
    /// The number of the next probe.
    next_probe: u8,
}

/// A probe under way.
struct Probe {
    number: u8,
    walks: Vec<Walk>,
    is_done: bool,
}

impl std::fmt::Debug for TraceControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceControl").field("running", &self.is_running).finish_non_exhaustive()
    }
}

impl TraceControl {
    /// For so many workers with rings of so many bytes; and what each worker gets.
    pub(crate) fn new(
        workers: usize,
        bytes: usize,
        ports: &Arc<[PortShared]>,
    ) -> (Self, Vec<Tracer>) {
        let shared = Arc::new(Shared::new(Instant::now()));
        let rings: Vec<(Producer, Consumer)> = (0..workers).map(|_| ring(bytes)).collect();
        let (senders, rings): (Vec<_>, Vec<_>) = rings.into_iter().unzip();
        let tracer = |ring| Tracer::new(Arc::clone(&shared), ring, ports.len());
        let tracers = senders.into_iter().map(tracer).collect();
        let control = TraceControl {
            shared,
            ports: Arc::clone(ports),
            rings,
            worker: 0,
            buffer: Vec::new(),
            is_running: false,
            waiting: VecDeque::new(),
            lost: 0,
            probe: None,
            next_probe: 0,
        };
        (control, tracers)
    }

    /// Begins a trace of the packets that `filter` matches: it ends after `count` walks,
    /// or when it is stopped. What was left of an earlier one is gone.
    ///
    /// # Errors
    /// [`TraceError`], and then nothing has changed.
    pub fn start(&mut self, filter: &Filter, count: Option<u64>) -> Result<(), TraceError> {
        if self.is_running {
            return Err(TraceError::Running);
        }
        let plain = filter
            .plain(&self.ports)
            .ok_or_else(|| TraceError::NoSuchPort(filter.port.clone().unwrap_or_default()))?;
        while self.next().is_some() {}
        self.lost = 0;
        self.is_running = true;
        self.shared.start(&plain, count.unwrap_or(u64::MAX));
        Ok(())
    }

    /// Ends the trace. What it told already can still be taken.
    pub fn stop(&mut self) {
        self.is_running = false;
        self.shared.stop();
    }

    /// Whether a trace is on: also one whose count is used up, until it is stopped.
    pub const fn is_running(&self) -> bool {
        self.is_running
    }

    /// Whether its count is used up.
    pub fn is_spent(&self) -> bool {
        self.shared.is_spent()
    }

    /// The next walk, in the order in which they ended at their worker.
    #[expect(clippy::should_implement_trait, reason = "more may come after none")]
    pub fn next(&mut self) -> Option<Walk> {
        self.waiting.pop_front().or_else(|| {
            loop {
                if let Some(walk) = self.take()? {
                    return Some(walk);
                }
            }
        })
    }

    /// How many walks of the trace found no room and are lost.
    pub fn lost(&self) -> u64 {
        self.shared.lost().saturating_add(self.lost)
    }

    /// Asks a worker what would become of a packet now. An earlier question is
    /// forgotten. `false`: its ring is full, or there is no such worker.
    ///
    /// With several workers the answer may be that it [goes on](Verdict::HandOver) at
    /// another one: that one is to be asked then.
    pub fn probe(
        &mut self,
        injects: &mut InjectSender,
        worker: usize,
        packet: &ProbePacket,
    ) -> bool {
        // Ports are numbered with 16 bits.
        let port = match &packet.port {
            Some(name) => self.ports.iter().position(|port| port.name == *name).map(|at| at as u16),
            None => Some(BY_ROUTE),
        };
        port.is_some_and(|port| {
            let from = (PortId(port), packet.tenant);
            self.probe_bytes(injects, worker, from, &packet.bytes())
        })
    }

    /// As [`TraceControl::probe`], of any IPv4 packet that comes in by a port.
    pub fn probe_bytes(
        &mut self,
        injects: &mut InjectSender,
        worker: usize,
        (port, tenant): (PortId, TenantId),
        packet: &[u8],
    ) -> bool {
        let Ok(len) = u16::try_from(packet.len()) else { return false };
        let number = self.next_probe;
        self.next_probe = number.wrapping_add(1);
        self.probe = Some(Probe { number, walks: Vec::new(), is_done: false });
        let header = InjectHeader::new(tenant, port, InjectKind::Probe, len);
        injects.send_to(worker, header.with_number(number), packet)
    }

    /// What the last probe has told.
    pub fn probed(&mut self) -> Probed {
        while self.probe.as_ref().is_some_and(|probe| !probe.is_done) {
            match self.take() {
                Some(Some(walk)) if self.waiting.len() < MAX_WAITING => {
                    self.waiting.push_back(walk);
                }
                Some(Some(_)) => self.lost = self.lost.saturating_add(1),
                Some(None) => {}
                None => return Probed::Waits,
            }
        }
        Probed::Walks(self.probe.take().map(|probe| probe.walks).unwrap_or_default())
    }

    /// The next message: a walk of the trace, or (`Some(None)`) one of the probe.
    fn take(&mut self) -> Option<Option<Walk>> {
        let workers = self.rings.len();
        let found = (0..workers).any(|_| {
            self.worker = (self.worker + 1) % workers.max(1);
            self.rings.get_mut(self.worker).is_some_and(|ring| ring.pop(&mut self.buffer))
        });
        if !found {
            return None;
        }
        let Ok((head, rest)) = Head::read_from_prefix(&self.buffer) else { return Some(None) };
        let at = self.shared.instant(head.at);
        let Some(number) = head.probe() else {
            return Some(Walk::read(at, self.worker, &head, rest));
        };
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.number == number) {
            match head.verdict() {
                Some(_) => probe.walks.extend(Walk::read(at, self.worker, &head, rest)),
                None => probe.is_done = true,
            }
        }
        Some(None)
    }
}
