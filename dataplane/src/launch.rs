//! Making a dataplane: its tables, rings and ports, split into what the control
//! core holds and what each worker runs.

mod shared;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};
use zerocopy::{FromBytes, IntoBytes};

use crate::broadcast::ListenerWriter;
use crate::classify::Tables;
pub use crate::config::{DataplaneConfig, PollMode, PortSetup, SteeringMode};
use crate::handover::handovers;
use crate::output::{Outlet, Output};
use crate::packet::PacketPool;
use crate::port::elsewhere::Elsewhere;
use crate::punt::{InjectHeader, Millis, PuntHeader, Turns};
use crate::ring::{Consumer, Producer, PushResult, ring};
use crate::stats::PortStats;
use crate::steering::Steering;
use crate::table::binding::{BindingEntry, BindingKey};
use crate::table::classes::AddressClasses;
use crate::table::hash::{Writer, table, table_with};
use crate::table::local::{LocalEntry, LocalKey};
use crate::table::lpm::{RouteWriter, routes};
use crate::table::neighbor::{NeighborEntry, NeighborKey};
use crate::table::source_route::{SourceRouteWriter, source_routes};
use crate::table::visitor::{VisitorWriter, visitors_with};
use crate::trace::TraceControl;
use crate::tunnel_mtu::TunnelMtuCache;
use crate::verdict::PuntReason;
use crate::worker::Worker;
pub use shared::{NaptControl, PortShared};

/// How many packets that were put together from fragments may be on their way at
/// once: each is cut again, or copied, before the next one is made.
const LARGE_BUFFERS: usize = 16;

/// The control core's side of a dataplane.
pub struct Control {
    /// Home agents' bindings.
    pub bindings: Writer<BindingKey, BindingEntry>,
    /// Which bound nodes get their home link's broadcasts: to be told of each
    /// binding that is installed or removed.
    pub listeners: ListenerWriter,
    /// Foreign agents' visitors.
    pub visitors: VisitorWriter,
    /// The addresses of this box. An underlay address that is not here is not ours.
    pub locals: Writer<LocalKey, LocalEntry>,
    /// The kernel's routes.
    pub routes: RouteWriter,
    /// Visitors' source-restricted routes.
    pub source_routes: SourceRouteWriter,
    /// The kernel's neighbours.
    pub neighbors: Writer<NeighborKey, NeighborEntry>,
    /// Packets for the control core.
    pub punts: PuntReceiver,
    /// Packets of the control core.
    pub injects: InjectSender,
    /// What all sides know of each port, by its number.
    pub ports: Arc<[PortShared]>,
    /// The NAPTs, by their numbers.
    pub napts: Vec<NaptControl>,
    /// What packets are followed.
    pub traces: TraceControl,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("ports", &self.ports).finish_non_exhaustive()
    }
}

/// Makes a dataplane of `ports`, numbered in their order, and its workers: one for
/// each of [`DataplaneConfig::cores`], each to be run by a thread of its own.
///
/// # Errors
/// When a port has no queue or more than there are workers, when there is no worker,
/// or when the system has no file descriptor left.
pub fn build(
    config: &DataplaneConfig,
    ports: Vec<PortSetup>,
) -> io::Result<(Control, Vec<Worker>)> {
    check(config, &ports)?;
    let workers = config.cores.len();
    let stats: Arc<[Arc<[PortStats]>]> =
        (0..workers).map(|_| ports.iter().map(|_| PortStats::default()).collect()).collect();
    let shared: Arc<[PortShared]> = ports
        .iter()
        .enumerate()
        .map(|(number, setup)| PortShared::new(setup, number, Arc::clone(&stats)))
        .collect();
    let seed = config.hash_seed;
    let classes = AddressClasses::default();
    let (punt_senders, punts) = punt_rings(workers, config)?;
    let (injects, inject_receivers) = inject_rings(workers, config.inject_ring)?;
    let (traces, tracers) = TraceControl::new(workers, config.trace_ring, &shared);
    let mut control = Control {
        bindings: table_with(config.bindings, seed, &classes),
        listeners: ListenerWriter::new(ports.len(), seed),
        visitors: visitors_with(config.visitors, seed, &classes),
        locals: table_with(config.locals, seed, &classes),
        routes: routes(config.routes),
        source_routes: source_routes(config.source_routes),
        neighbors: table(config.neighbors, seed),
        punts,
        injects,
        ports: Arc::clone(&shared),
        napts: Vec::new(),
        traces,
    };
    let mtus = Arc::new(TunnelMtuCache::new(seed));
    let needed = Worker::buffers_needed(ports.len());
    let receiving = |setup: &PortSetup| setup.queues.iter().filter(|at| at.receives()).count();
    let receiving: Vec<usize> = ports.iter().map(receiving).collect();
    let mut outlets = outlets(ports, workers).into_iter();
    let wakes: Vec<_> = inject_receivers.iter().map(|at| Arc::clone(&at.wake)).collect();
    let mut handovers = handovers(&wakes, config.handover_ring).into_iter();
    let mut made = Vec::with_capacity(workers);
    let inputs = punt_senders.into_iter().zip(inject_receivers).zip(tracers);
    for (number, ((punts, injects), trace)) in inputs.enumerate() {
        let (handover_sender, handover_receiver) = handovers.next().unwrap_or_default();
        let output = Output {
            outlets: outlets.next().unwrap_or_default(),
            shared: Arc::clone(&shared),
            stats: stats.get(number).map(Arc::clone).unwrap_or_default(),
            pool: PacketPool::with_large(config.buffers.max(needed), LARGE_BUFFERS),
            punts,
            handover: handover_sender,
            trace,
            shed: 0,
        };
        let tables = readers(&control, &classes);
        let steering = Steering::new(number, config, &receiving);
        let inputs = (injects, handover_receiver);
        made.push(Worker::new(config, output, tables, inputs, Arc::clone(&mtus), steering));
    }
    control.napts = NaptControl::of(&config.napts, &made);
    Ok((control, made))
}

fn check(config: &DataplaneConfig, ports: &[PortSetup]) -> io::Result<()> {
    let workers = config.cores.len();
    let invalid = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if workers == 0 {
        return invalid("a dataplane needs at least one worker".into());
    }
    match ports.iter().find(|setup| !(1..=workers).contains(&setup.queues.len())) {
        Some(PortSetup { name, queues, .. }) => invalid(format!(
            "the port {name} has {} queues, and there are {workers} workers to serve them",
            queues.len()
        )),
        None => Ok(()),
    }
}

/// Every table, for one more worker.
fn readers(control: &Control, classes: &AddressClasses) -> Tables {
    Tables {
        classes: classes.clone(),
        bindings: control.bindings.reader(),
        listeners: control.listeners.reader(),
        visitors: control.visitors.reader(),
        locals: control.locals.reader(),
        routes: control.routes.reader(),
        source_routes: control.source_routes.reader(),
        neighbors: control.neighbors.reader(),
    }
}

/// The ports as each worker has them: worker *i* has queue *i* of each, where there is
/// one, and worker 0 the kernel twins.
fn outlets(ports: Vec<PortSetup>, workers: usize) -> Vec<Vec<Outlet>> {
    let mut outlets: Vec<Vec<Outlet>> =
        (0..workers).map(|_| Vec::with_capacity(ports.len())).collect();
    for PortSetup { queues, mut twin, tenant, .. } in ports {
        let (mac, mtu) = queues.first().map_or_else(Default::default, |at| (at.mac(), at.mtu()));
        let (count, up) = (queues.len(), queues.first().is_some_and(|at| at.is_up()));
        let has_twin = twin.is_some();
        let mut queues = queues.into_iter();
        for (worker, outlets) in outlets.iter_mut().enumerate() {
            let queue = queues.next().unwrap_or_else(|| Box::new(Elsewhere { mac, mtu }));
            let mut outlet = Outlet::new(queue, twin.take(), tenant);
            if worker >= count {
                (outlet.sender, outlet.up) = (Some(worker % count.max(1)), up);
            }
            outlet.twin_at = (has_twin && worker > 0).then_some(0);
            outlets.push(outlet);
        }
    }
    outlets
}

/// A worker's end of its punt rings: one for each reason, so that a flood of one
/// leaves the others their room.
pub(crate) struct PuntSender {
    rings: Vec<Producer>,
    wake: Arc<OwnedFd>,
    start: Instant,
    now: Millis,
    /// Of each reason, bytes of the shortest frame that found no room in this turn. What
    /// is no shorter need not ask: to ask means to fetch a cache line that the control
    /// core writes to with each packet that it takes, and in a storm nearly all would.
    refused: [usize; PuntReason::COUNT],
}

/// Nothing found no room.
const NONE_REFUSED: [usize; PuntReason::COUNT] = [usize::MAX; PuntReason::COUNT];

impl PuntSender {
    /// Begins a turn: says what time it is for what is handed over from here on.
    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = Millis::at(self.start, now);
        self.refused = NONE_REFUSED;
    }

    /// Hands a frame over. `false` when this reason's ring is full, or was in this turn.
    pub(crate) fn push(&mut self, header: &PuntHeader, reason: PuntReason, frame: &[u8]) -> bool {
        let number = usize::from(reason as u8);
        let (Some(ring), Some(refused)) =
            (self.rings.get_mut(number), self.refused.get_mut(number))
        else {
            return false;
        };
        if frame.len() >= *refused {
            return false;
        }
        let header = header.with_time(self.now);
        let is_stored = push(ring, header.as_bytes(), frame, &self.wake);
        if !is_stored {
            *refused = frame.len();
        }
        is_stored
    }
}

/// The control core's end of the punt rings.
pub struct PuntReceiver {
    /// Reason by reason, each worker's.
    rings: Vec<Consumer>,
    turns: Turns,
    /// Whose ring a packet came from last.
    worker: usize,
    wake: Arc<OwnedFd>,
    start: Instant,
}

impl PuntReceiver {
    /// Becomes readable when a packet is waiting, once [`PuntReceiver::next`] has
    /// said that none is.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The time that tells how long a packet [has waited](PuntHeader::waited).
    pub fn millis(&self, now: Instant) -> Millis {
        Millis::at(self.start, now)
    }

    /// The next packet, in `buffer`, renewals first, but the other reasons never
    /// without a share ([`punt`](crate::punt)): its header, and its frame from the Ethernet header on. `None`: none is waiting, and the
    /// next one makes [`PuntReceiver::readiness`] readable.
    pub fn next<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Option<(PuntHeader, &'b [u8])> {
        if !self.take(buffer) {
            clear(&self.wake);
            // Each ring must know that its next packet wakes; one that has a packet
            // by now is no reason to leave the others out.
            let waiting =
                self.rings.iter_mut().filter_map(|ring| (!ring.prepare_sleep()).then_some(()));
            if waiting.count() == 0 || !self.take(buffer) {
                return None;
            }
        }
        PuntHeader::read_from_prefix(buffer).ok()
    }

    fn take(&mut self, buffer: &mut Vec<u8>) -> bool {
        let PuntReceiver { rings, turns, worker, .. } = self;
        let workers = (rings.len() / PuntReason::COUNT).max(1);
        turns.next(|reason| {
            let Some(rings) = rings.chunks_mut(workers).nth(usize::from(reason as u8)) else {
                return false;
            };
            (0..workers).any(|_| {
                *worker = (*worker + 1) % workers;
                rings.get_mut(*worker).is_some_and(|ring| ring.pop(buffer))
            })
        })
    }
}

impl std::fmt::Debug for PuntReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PuntReceiver").field("rings", &self.rings.len()).finish_non_exhaustive()
    }
}

/// The control core's end of the inject rings, one for each worker.
pub struct InjectSender {
    rings: Vec<(Producer, Arc<OwnedFd>)>,
}

impl InjectSender {
    /// Hands a packet to a worker and wakes it. `false`, and nothing handed over,
    /// when its ring is full.
    ///
    /// All go by worker 0, which has a queue of each port: so they leave in the order
    /// in which they were handed over.
    #[must_use]
    pub fn send(&mut self, header: InjectHeader, bytes: &[u8]) -> bool {
        self.send_to(0, header, bytes)
    }

    /// As [`InjectSender::send`], by this worker.
    pub(crate) fn send_to(&mut self, worker: usize, header: InjectHeader, bytes: &[u8]) -> bool {
        self.rings
            .get_mut(worker)
            .is_some_and(|(ring, wake)| push(ring, header.as_bytes(), bytes, wake))
    }
}

impl std::fmt::Debug for InjectSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InjectSender").field("workers", &self.rings.len()).finish()
    }
}

/// A worker's end of its inject ring.
pub(crate) struct InjectReceiver {
    ring: Consumer,
    wake: Arc<OwnedFd>,
}

impl InjectReceiver {
    /// Shows the next packet to `take`.
    pub(crate) fn next<R>(
        &mut self,
        take: impl FnOnce(Option<InjectHeader>, &[u8]) -> R,
    ) -> Option<R> {
        self.ring.consume(|message| match InjectHeader::read_from_prefix(message) {
            Ok((header, bytes)) => take(Some(header), bytes),
            Err(_) => take(None, &[]),
        })
    }

    /// Says that the worker goes to sleep; `false` when a packet is waiting.
    pub(crate) fn prepare_sleep(&mut self) -> bool {
        clear(&self.wake);
        self.ring.prepare_sleep()
    }

    /// Becomes readable when a packet is waiting, after a `prepare_sleep`.
    pub(crate) fn readiness(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

fn punt_rings(
    workers: usize,
    config: &DataplaneConfig,
) -> io::Result<(Vec<PuntSender>, PuntReceiver)> {
    let wake = wake_up()?;
    let (start, now) = (Instant::now(), Millis::default());
    let mut senders: Vec<PuntSender> = (0..workers)
        .map(|_| PuntSender {
            rings: Vec::new(),
            wake: Arc::clone(&wake),
            start,
            now,
            refused: NONE_REFUSED,
        })
        .collect();
    let mut rings = Vec::new();
    for reason in PuntReason::ALL {
        let bytes = match reason {
            PuntReason::Registration | PuntReason::Renewal => config.registration_ring,
            _ => config.punt_ring,
        };
        for worker in &mut senders {
            let (sender, receiver) = ring(bytes);
            worker.rings.push(sender);
            rings.push(receiver);
        }
    }
    Ok((senders, PuntReceiver { rings, turns: Turns::default(), worker: 0, wake, start }))
}

fn inject_rings(workers: usize, bytes: usize) -> io::Result<(InjectSender, Vec<InjectReceiver>)> {
    let mut receivers = Vec::with_capacity(workers);
    let mut senders = Vec::with_capacity(workers);
    for _ in 0..workers {
        let wake = wake_up()?;
        let (sender, receiver) = ring(bytes);
        senders.push((sender, Arc::clone(&wake)));
        receivers.push(InjectReceiver { ring: receiver, wake });
    }
    Ok((InjectSender { rings: senders }, receivers))
}

fn wake_up() -> io::Result<Arc<OwnedFd>> {
    Ok(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
}

/// Puts a message into a ring, and wakes its consumer if it sleeps.
pub(crate) fn push(ring: &mut Producer, header: &[u8], body: &[u8], wake: &OwnedFd) -> bool {
    let result = ring.push(header, body);
    if result == PushResult::StoredWake {
        // It fails only when the counter is at its limit, and then it is readable.
        let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
    }
    result.is_stored()
}

fn clear(wake: &OwnedFd) {
    // It fails when nobody woke anybody.
    let _ = rustix::io::read(wake, &mut [0; 8]);
}

#[cfg(test)]
mod tests {
    use homeport_wire::{PortId, TenantId};

    use super::*;

    #[test]
    fn a_ring_that_was_full_is_asked_again_in_the_next_turn_or_for_less() {
        let config = DataplaneConfig { registration_ring: 1 << 10, ..DataplaneConfig::default() };
        let (mut senders, mut receiver) = punt_rings(1, &config).unwrap();
        let reason = PuntReason::Registration;
        let mut push = |reason, len: u16, turn: bool| {
            if turn {
                senders[0].set_now(Instant::now());
            }
            let header = PuntHeader::new(TenantId(0), PortId(0), reason, len);
            senders[0].push(&header, reason, &vec![0; usize::from(len)])
        };
        while push(reason, 200, false) {}
        assert!(receiver.next(&mut Vec::new()).is_some());
        assert!(!push(reason, 200, false) && !push(reason, 300, false));
        assert!(push(PuntReason::Renewal, 200, false), "each reason has a ring of its own");
        assert!(push(reason, 199, false), "there is room by now");
        assert!(!push(reason, 200, true), "and it was used");
        assert!(
            receiver.next(&mut Vec::new()).is_some() && receiver.next(&mut Vec::new()).is_some()
        );
        assert!(push(reason, 200, true));
    }
}
