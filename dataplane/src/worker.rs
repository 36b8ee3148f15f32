//! One RX core: polls its queues of the ports, runs the stages over each burst,
//! sleeps when nothing is waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use homeport_wire::{EthernetHeader, PortId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::classify::{Tables, may_reach};
use crate::config::{DataplaneConfig, PollMode};
use crate::fast::{self, Lane, Link};
use crate::forward::{Forwarder, MAX_JOBS};
use crate::handover::{Errand, HandoverReceiver};
use crate::hold::MAX_HELD;
use crate::launch::InjectReceiver;
use crate::napt::{MAX_EARLY, NaptShared};
use crate::output::{Outlet, Output};
use crate::packet::{BURST, Burst};
use crate::punt::{InjectHeader, InjectKind};
use crate::reassembly::MAX_FRAGMENTS;
use crate::steering::Steering;
use crate::surge;
use crate::trace::{Code, Step};
use crate::tunnel_mtu::TunnelMtuCache;
use crate::verdict::{DropReason, Verdict};

/// Idle turns that spin.
const SPINS: u32 = 200;

/// Idle turns, behind those, that take a short nap.
const SHORT_NAPS: u32 = 20;

const SHORT_NAP: Duration = Duration::from_micros(50);
const LONG_NAP: Duration = Duration::from_millis(1);

/// How often carrier is looked at and counters are told; also the longest sleep.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// The most file descriptors that a worker sleeps on; beyond it, it naps.
const MAX_FDS: usize = 64;

/// A worker, to be run by a thread of its own.
pub struct Worker {
    poll: PollMode,
    number: usize,
    core: Option<usize>,
    forwarder: Forwarder,
    tables: Tables,
    injects: InjectReceiver,
    handovers: HandoverReceiver,
    received: Box<Burst>,
    lanes: Box<[Lane; BURST]>,
    housekeeping_at: Option<Instant>,
}

/// How a burst came to a worker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By its queue of the port.
    Port,
    /// From the worker that received it.
    Handover,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ports = self.forwarder.output.outlets.len();
        f.debug_struct("Worker").field("poll", &self.poll).field("ports", &ports).finish()
    }
}

impl Worker {
    /// One of the workers of a config: what it steers says which.
    pub(crate) fn new(
        config: &DataplaneConfig,
        output: Output,
        mut tables: Tables,
        (injects, handovers): (InjectReceiver, HandoverReceiver),
        mtus: Arc<TunnelMtuCache>,
        steering: Steering,
    ) -> Self {
        let number = steering.worker;
        // Until it runs, the writers need not reckon with it.
        tables.offline();
        Worker {
            poll: config.poll,
            number,
            core: config.cores.get(number).copied().flatten(),
            forwarder: Forwarder::new(output, config, mtus, steering),
            tables,
            injects,
            handovers,
            received: Box::default(),
            lanes: Box::new([Lane::GENERAL; BURST]),
            housekeeping_at: None,
        }
    }

    /// Buffers that it takes to fill every burst and queue of a worker with so many
    /// ports.
    pub(crate) const fn buffers_needed(ports: usize) -> usize {
        MAX_HELD + MAX_FRAGMENTS + MAX_EARLY + MAX_JOBS + BURST * (2 + 4 * ports)
    }

    /// What others may know of each NAPT on this core.
    pub(crate) fn napts(&self) -> Vec<NaptShared> {
        self.forwarder.napts()
    }

    /// Runs until `stop` is set, which is seen within a tenth of a second.
    pub fn run(mut self, stop: &AtomicBool) {
        if let Some(core) = self.core {
            self.pin(core);
        }
        self.tables.online();
        let mut idle = 0;
        while !stop.load(Ordering::Relaxed) {
            if self.turn(Instant::now()) {
                idle = 0;
            } else if self.poll == PollMode::Adaptive {
                idle += 1;
                self.rest(idle);
            } else {
                std::hint::spin_loop();
            }
        }
        self.tables.offline();
    }

    /// Does what is waiting at `now`, for tests and simulation: at most one burst
    /// of each port. Returns whether there was anything to do.
    ///
    /// `now` never goes back.
    pub fn run_once(&mut self, now: Instant) -> bool {
        self.tables.online();
        let busy = self.turn(now);
        self.tables.offline();
        busy
    }

    /// How many packets took the short cut (`fast`) so far.
    pub fn fast_packets(&self) -> u64 {
        self.forwarder.fast.taken
    }

    /// How many registration messages took the short cut of a storm (`surge`) so far.
    pub fn surge_packets(&self) -> u64 {
        self.forwarder.surge.taken
    }

    /// How many packet buffers are free, and how many large ones.
    pub fn free_buffers(&self) -> (usize, usize) {
        let pool = &self.forwarder.output.pool;
        (pool.available(), pool.available_large())
    }

    fn turn(&mut self, now: Instant) -> bool {
        self.forwarder.now = now;
        self.forwarder.output.punts.set_now(now);
        self.forwarder.output.trace.turn(now);
        if self.housekeeping_at.is_none_or(|at| now >= at) {
            self.housekeeping_at = Some(now + HOUSEKEEPING);
            self.keep_house();
        }
        if !self.forwarder.hold.is_empty() {
            self.forwarder.release_held(&self.tables);
        }
        // The longest sleep is short enough for them too.
        if !self.forwarder.reassembly.is_empty() {
            self.forwarder.expire_fragments(&self.tables);
        }
        self.forwarder.tend_napts();
        let mut busy = false;
        for index in 0..self.forwarder.output.outlets.len() {
            busy |= self.receive(index);
            busy |= self.receive_from_kernel(index);
        }
        busy |= self.take_handovers();
        busy |= self.take_injects();
        self.forwarder.output.flush();
        self.tables.quiescent();
        busy
    }

    /// A burst of a port, stage by stage.
    fn receive(&mut self, index: usize) -> bool {
        let Worker { forwarder, received, .. } = self;
        let Output { outlets, pool, .. } = &mut forwarder.output;
        let Some(outlet) = outlets.get_mut(index) else { return false };
        outlet.port.rx_burst(pool, received);
        if received.is_empty() {
            return false;
        }
        if forwarder.steering.steers(index) {
            let tenant = outlet.tenant;
            // Ports are numbered with 16 bits.
            let port = PortId(index as u16);
            received.iter_mut().for_each(|at| (at.port, at.tenant) = (port, tenant));
            forwarder.steer(received, index);
        }
        self.work_on(index, Way::Port);
        true
    }

    /// The stages of a burst that came in by a port, here or to another worker.
    fn work_on(&mut self, index: usize, way: Way) {
        let Worker { forwarder, tables, received, lanes, .. } = self;
        let Some(outlet) = forwarder.output.outlets.get(index) else { return };
        // Ports are numbered with 16 bits.
        let port = PortId(index as u16);
        let link = Link { port, mac: outlet.mac, tenant: outlet.tenant };
        let count = received.len() as u64;
        let mut bytes = 0;
        if forwarder.sheds() {
            bytes = surge::receive(forwarder, tables, received, &link);
        }
        if !received.is_empty() {
            bytes += fast::receive(forwarder, tables, (received, lanes), &link);
        }
        let stats = forwarder.output.stats(port);
        if let Some(stats) = stats.filter(|_| way == Way::Port) {
            stats.rx.add(count);
            stats.rx_bytes.add(bytes);
        }
    }

    /// A burst of a kernel twin.
    fn receive_from_kernel(&mut self, index: usize) -> bool {
        let Worker { forwarder, tables, received, .. } = self;
        let Output { outlets, pool, stats, .. } = &mut forwarder.output;
        let Some(Outlet { twin: Some(twin), tenant, .. }) = outlets.get_mut(index) else {
            return false;
        };
        twin.rx_burst(pool, received);
        if received.is_empty() {
            return false;
        }
        let tenant = *tenant;
        if let Some(port) = stats.get(index) {
            port.from_kernel.add(received.len() as u64);
        }
        for mut packet in received.drain() {
            (packet.port, packet.tenant) = (PortId(index as u16), tenant);
            forwarder.receive_from_kernel(tables, packet);
        }
        true
    }

    /// Up to a burst of each other worker's packets.
    fn take_handovers(&mut self) -> bool {
        let mut busy = false;
        for ring in 0..self.handovers.len() {
            // What came in by one port goes through the stages together.
            let mut burst_of = None;
            for _ in 0..BURST {
                let Worker { forwarder, tables, handovers, .. } = self;
                let pool = &mut forwarder.output.pool;
                if pool.available() == 0 || pool.available_large() == 0 {
                    break;
                }
                let Some((packet, errand)) = handovers.next(ring, |len| pool.take_for(len)) else {
                    break;
                };
                busy = true;
                if let Some(stats) = forwarder.output.stats(packet.port) {
                    stats.taken_over.add(1);
                }
                if errand != Errand::Receive {
                    forwarder.take_over(tables, packet, errand);
                    continue;
                }
                let index = usize::from(packet.port.0);
                if burst_of.is_some_and(|of| of != index) {
                    self.work_on(burst_of.unwrap_or_default(), Way::Handover);
                }
                burst_of = Some(index);
                if let Err(packet) = self.received.push(packet) {
                    self.forwarder.output.drop(packet, DropReason::NoBuffer);
                }
            }
            if let Some(index) = burst_of {
                self.work_on(index, Way::Handover);
            }
        }
        busy
    }

    /// Up to a burst of the control core's packets.
    fn take_injects(&mut self) -> bool {
        let Worker { forwarder, tables, injects, .. } = self;
        let mut busy = false;
        for _ in 0..BURST {
            if forwarder.output.pool.available() == 0 {
                break;
            }
            let done = injects.next(|header, bytes| inject(forwarder, tables, header, bytes));
            if done.is_none() {
                break;
            }
            busy = true;
        }
        busy
    }

    /// Looks at what changes seldom.
    fn keep_house(&mut self) {
        let Output { outlets, shared, .. } = &mut self.forwarder.output;
        for (outlet, shared) in outlets.iter_mut().zip(shared.iter()) {
            if outlet.sender.is_some() {
                outlet.up = shared.is_up();
                continue;
            }
            outlet.up = outlet.port.is_up();
            if self.number == 0 {
                shared.set_up(outlet.up);
            }
            shared.publish(self.number, &*outlet.port);
        }
    }

    /// Rests, the longer the longer there was nothing to do.
    fn rest(&mut self, idle: u32) {
        if idle <= SPINS {
            return std::hint::spin_loop();
        }
        if idle <= SPINS + SHORT_NAPS {
            return self.nap(SHORT_NAP);
        }
        // What holds packets waits for a table, and a table wakes nobody.
        if !self.forwarder.hold.is_empty() || !self.sleep() {
            self.nap(LONG_NAP);
        }
    }

    fn nap(&mut self, time: Duration) {
        self.tables.offline();
        std::thread::sleep(time);
        self.tables.online();
    }

    /// Sleeps until a port or the control core has something. `false` when a port
    /// cannot say so, or when sleep failed.
    fn sleep(&mut self) -> bool {
        let Worker { forwarder, tables, injects, handovers, .. } = self;
        // What came meanwhile is taken by the next turn. One wake-up is for both.
        if !injects.prepare_sleep() || !handovers.prepare_sleep() {
            return true;
        }
        let mut fds: [PollFd<'_>; MAX_FDS] =
            std::array::from_fn(|_| PollFd::from_borrowed_fd(injects.readiness(), PollFlags::IN));
        let mut count = 1;
        for outlet in &forwarder.output.outlets {
            let own = outlet.sender.is_none().then_some(&outlet.port);
            for port in own.into_iter().filter(|port| port.receives()).chain(&outlet.twin) {
                let (Some(fd), Some(slot)) = (port.readiness(), fds.get_mut(count)) else {
                    return false;
                };
                *slot = PollFd::from_borrowed_fd(fd, PollFlags::IN);
                count += 1;
            }
        }
        tables.offline();
        let limit = Timespec::try_from(HOUSEKEEPING).ok();
        let woken = fds.get_mut(..count).map(|fds| poll(fds, limit.as_ref()));
        tables.online();
        // Interrupted by a signal is as good as woken.
        matches!(woken, Some(Ok(_) | Err(rustix::io::Errno::INTR)))
    }

    fn pin(&self, core: usize) {
        let mut cores = CpuSet::new();
        if core < CpuSet::MAX_CPU {
            cores.set(core);
        }
        if let Err(error) = sched_setaffinity(None, &cores) {
            tracing::warn!(core, %error, "the worker is not pinned");
        }
    }
}

/// One packet of the control core.
fn inject(forwarder: &mut Forwarder, tables: &Tables, header: Option<InjectHeader>, bytes: &[u8]) {
    let output = &mut forwarder.output;
    let Some(mut packet) = output.pool.take() else { return };
    if let Some(header) = header.filter(|header| header.kind() == Some(InjectKind::Probe)) {
        // What is no packet is answered as such.
        let _ = packet.set_bytes(bytes);
        return forwarder.probe(tables, packet, &header);
    }
    let tenant = header.map(|header| header.tenant()).unwrap_or_default();
    // A tenant's packets are counted at, and leave by, a link that it may use.
    let is_open =
        |port: PortId| output.outlet(port).is_some_and(|outlet| may_reach(tenant, outlet.tenant));
    let named = header.map(|header| header.port()).filter(|port| is_open(*port));
    // Ports are numbered with 16 bits.
    let counted_at =
        named.or_else(|| (0..output.outlets.len() as u16).map(PortId).find(|port| is_open(*port)));
    (packet.port, packet.tenant) = (counted_at.unwrap_or_default(), tenant);
    if let Some(stats) = output.stats(packet.port) {
        stats.injected.add(1);
    }
    let whole = header.is_some_and(|header| header.len() == bytes.len())
        && counted_at.is_some()
        && !bytes.is_empty()
        && packet.set_bytes(bytes);
    let kind = header.and_then(|header| header.kind()).filter(|_| whole);
    let how = Some(Step::of(Code::Injected));
    output.trace.begin(&packet, kind == Some(InjectKind::Frame), how);
    match (kind, named) {
        (Some(InjectKind::Frame), Some(port)) if bytes.len() >= EthernetHeader::LEN => {
            output.finish(packet, Verdict::Transmit(port));
        }
        (Some(InjectKind::Routed), _) => forwarder.inject(tables, packet),
        _ => output.drop(packet, DropReason::InjectMalformed),
    }
}
