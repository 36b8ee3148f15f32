//! Packet trace for the admin API: one trace at a time, for a client that keeps asking;
//! and packets that are only asked about.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use homeport_dataplane::launch::{InjectSender, PortShared};
use homeport_dataplane::trace::{
    Code, Filter, ProbePacket, Probed, TraceControl, TraceError, Walk,
};
use homeport_dataplane::verdict::Verdict;
use homeport_proto::Instant;

use crate::admin::api::{Answer, Outcome, Refusal, RefusalKind};
use crate::admin::trace::{Begun, StepView, TraceAnswer, TraceQuery, WalkView, WalksView};

/// How long the client of a trace may be silent: then it has gone.
pub const SILENCE: Duration = Duration::from_secs(5);

/// The most walks of one answer.
const WALKS_PER_ANSWER: usize = 256;

/// At how many workers a packet may be asked about in turn.
const MAX_WORKERS: usize = 8;

/// The dataplane's traces, and who has asked for them.
pub struct Traces {
    control: TraceControl,
    ports: Arc<[PortShared]>,
    running: Option<Running>,
    probing: Option<Probing>,
    /// The number of the next one.
    next: u64,
}

struct Running {
    number: u64,
    filter: Filter,
    /// When its client asked last.
    heard: Instant,
}

struct Probing {
    number: u64,
    packet: ProbePacket,
    /// What other workers have told.
    walks: Vec<Walk>,
    /// At how many workers it was asked.
    asked: usize,
}

impl Traces {
    /// Nothing is traced yet.
    pub fn new(control: TraceControl, ports: Arc<[PortShared]>) -> Self {
        Traces { control, ports, running: None, probing: None, next: 1 }
    }

    /// The dataplane's side.
    pub const fn control(&mut self) -> &mut TraceControl {
        &mut self.control
    }

    /// Answers a query.
    ///
    /// # Errors
    /// A refusal: another trace is on, there is none, or the dataplane cannot be asked.
    pub fn answer(
        &mut self,
        query: TraceQuery,
        injects: &mut InjectSender,
        now: Instant,
    ) -> Outcome {
        let answer = match query {
            TraceQuery::Start { filter, count } => self.start(filter, count, now)?,
            TraceQuery::Next(number) => self.next(number, now)?,
            TraceQuery::Stop(number) => self.stop(number)?,
            TraceQuery::Probe(packet) => self.probe(packet, injects)?,
            TraceQuery::Probed(number) => self.probed(number, injects)?,
        };
        Ok(Answer::Trace(answer))
    }

    /// When [`Traces::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.running.as_ref().map(|running| running.heard + SILENCE)
    }

    /// Ends a trace whose client has gone.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            tracing::info!("a trace ended: its client has gone");
            self.end();
        }
    }

    fn start(
        &mut self,
        filter: Filter,
        count: Option<u64>,
        now: Instant,
    ) -> Result<TraceAnswer, Refusal> {
        self.handle_timeout(now);
        if let Some(running) = &self.running {
            let error = match running.filter.to_string() {
                words if words.is_empty() => "A trace of all packets is running.".into(),
                words => format!("A trace of {words} is running."),
            };
            let hint = "End it where it was started; without its client it ends by itself.";
            return Err(Refusal::conflict(error, hint));
        }
        match self.control.start(&filter, count) {
            Ok(()) => {}
            Err(TraceError::Running) => {
                return Err(Refusal::conflict("A trace is running.", "Try again."));
            }
            Err(TraceError::NoSuchPort(name)) => return Err(self.no_such_port(&name)),
        }
        let number = self.take_number();
        tracing::info!(%filter, "a trace began");
        self.running = Some(Running { number, filter, heard: now });
        Ok(TraceAnswer::Begun(Begun { number }))
    }

    fn next(&mut self, number: u64, now: Instant) -> Result<TraceAnswer, Refusal> {
        self.of(number)?.heard = now;
        // What was told before the count was used up is in the rings by then.
        let is_spent = self.control.is_spent();
        let walks = self.take_walks();
        let done = is_spent && walks.walks.len() < WALKS_PER_ANSWER;
        if done {
            self.end();
        }
        Ok(TraceAnswer::Walks(WalksView { done, ..walks }))
    }

    fn stop(&mut self, number: u64) -> Result<TraceAnswer, Refusal> {
        self.of(number)?;
        let walks = self.take_walks();
        self.end();
        Ok(TraceAnswer::Walks(WalksView { done: true, ..walks }))
    }

    fn end(&mut self) {
        self.control.stop();
        self.running = None;
    }

    fn of(&mut self, number: u64) -> Result<&mut Running, Refusal> {
        self.running.as_mut().filter(|running| running.number == number).ok_or_else(|| {
            Refusal::not_found("There is no such trace any more.", "Start another one.")
        })
    }

    fn take_walks(&mut self) -> WalksView {
        let mut walks: Vec<Walk> =
            std::iter::from_fn(|| self.control.next()).take(WALKS_PER_ANSWER).collect();
        // A packet that leaves waits for the rest of its burst; one that is dropped does
        // not. People think of them in the order in which they came.
        walks.sort_by_key(|walk| (walk.at, walk.worker, walk.number));
        WalksView { walks: self.views(&walks), lost: self.control.lost(), done: false }
    }

    fn probe(
        &mut self,
        packet: ProbePacket,
        injects: &mut InjectSender,
    ) -> Result<TraceAnswer, Refusal> {
        if let Some(name) = &packet.port
            && !self.ports.iter().any(|port| port.name == *name)
        {
            return Err(self.no_such_port(name));
        }
        self.ask(&packet, 0, injects)?;
        let number = self.take_number();
        self.probing = Some(Probing { number, packet, walks: Vec::new(), asked: 1 });
        Ok(TraceAnswer::Begun(Begun { number }))
    }

    fn probed(&mut self, number: u64, injects: &mut InjectSender) -> Result<TraceAnswer, Refusal> {
        let mine = self.probing.take_if(|probing| probing.number == number);
        let Some(mut probing) = mine else {
            return Err(Refusal::not_found("There is no such question any more.", "Ask again."));
        };
        let walks = match self.control.probed() {
            Probed::Walks(walks) => walks,
            Probed::Waits => {
                self.probing = Some(probing);
                return Ok(TraceAnswer::Walks(WalksView::default()));
            }
        };
        let other = match walks.as_slice() {
            [Walk { verdict: Verdict::HandOver(worker), .. }] => Some(usize::from(*worker)),
            _ => None,
        };
        probing.walks.extend(walks);
        if let Some(worker) = other.filter(|_| probing.asked < MAX_WORKERS) {
            self.ask(&probing.packet, worker, injects)?;
            probing.asked += 1;
            self.probing = Some(probing);
            return Ok(TraceAnswer::Walks(WalksView::default()));
        }
        let walks = self.views(&probing.walks);
        Ok(TraceAnswer::Walks(WalksView { walks, lost: 0, done: true }))
    }

    fn ask(
        &mut self,
        packet: &ProbePacket,
        worker: usize,
        injects: &mut InjectSender,
    ) -> Result<(), Refusal> {
        if self.control.probe(injects, worker, packet) {
            return Ok(());
        }
        Err(Refusal::unavailable("The dataplane takes no question now: its ring is full."))
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    fn no_such_port(&self, name: &str) -> Refusal {
        let names: Vec<&str> = self.ports.iter().map(|port| port.name.as_str()).collect();
        let hint = format!("The ports are {}.", names.join(", "));
        Refusal::new(RefusalKind::BadRequest, format!("There is no port {name:?}."), hint)
    }

    fn views(&self, walks: &[Walk]) -> Vec<WalkView> {
        let now = (std::time::Instant::now(), SystemTime::now());
        walks.iter().map(|walk| view(walk, &self.ports, now)).collect()
    }
}

/// The walk as it is shown; `now` by both clocks.
fn view(
    walk: &Walk,
    ports: &[PortShared],
    (now, time): (std::time::Instant, SystemTime),
) -> WalkView {
    let at = time.checked_sub(now.saturating_duration_since(walk.at)).unwrap_or(time);
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = ports.get(usize::from(walk.port.0)).map(|port| port.name.clone());
    let is_made = |code| matches!(code, Code::Copied | Code::Cut | Code::MadeError);
    let step = |step: &homeport_dataplane::trace::Step| StepView {
        table: step.table().into(),
        text: step.named(ports).to_string(),
    };
    WalkView {
        time_nanoseconds: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        worker: walk.worker,
        port: name.unwrap_or_else(|| walk.port.to_string()),
        tenant: walk.tenant.0,
        packet: walk.summary().to_string(),
        frame: hex(&walk.frame),
        frame_bytes: walk.frame_len as u64,
        link_header: walk.has_link_header,
        made_here: walk.steps.iter().any(|step| is_made(step.code())),
        steps: walk.steps.iter().map(step).collect(),
        steps_omitted: walk.omitted as u64,
        verdict: walk.verdict.name().into(),
        reason: walk.verdict.reason().map(Into::into),
        text: walk.verdict.named(ports).to_string(),
        sent: walk.sent.as_deref().map(hex),
        sent_bytes: walk.sent_len as u64,
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
