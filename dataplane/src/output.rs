//! Where every packet ends: each function here gives one packet its verdict,
//! counts it at the port that it is counted at, and lets go of it; or hands it to
//! another worker that does.

use std::sync::Arc;

use homeport_wire::{MacAddress, PortId, TenantId};

use crate::adjacency::NextHop;
use crate::handover::{Errand, HandoverSender};
use crate::launch::{PortShared, PuntSender};
use crate::packet::{BURST, Burst, Packet, PacketPool};
use crate::port::Port;
use crate::punt::PuntHeader;
use crate::stats::PortStats;
use crate::trace::{Code, Ending, Step, Tracer};
use crate::verdict::{DropReason, PuntReason, Verdict};

/// A port as its worker has it.
pub(crate) struct Outlet {
    pub(crate) port: Box<dyn Port>,
    pub(crate) twin: Option<Box<dyn Port>>,
    pub(crate) mac: MacAddress,
    pub(crate) mtu: u16,
    pub(crate) tenant: TenantId,
    pub(crate) up: bool,
    /// The worker that sends for this one, if it has no queue of the port.
    pub(crate) sender: Option<usize>,
    /// The worker that has the twin, if it is another one.
    pub(crate) twin_at: Option<usize>,
    /// Frames that will leave by the port.
    tx: Box<Burst>,
    /// Frames that will go to the twin.
    to_kernel: Burst,
}

impl Outlet {
    pub(crate) fn new(port: Box<dyn Port>, twin: Option<Box<dyn Port>>, tenant: TenantId) -> Self {
        let (mac, mtu, up) = (port.mac(), port.mtu(), port.is_up());
        Outlet {
            port,
            twin,
            mac,
            mtu,
            tenant,
            up,
            sender: None,
            twin_at: None,
            tx: Box::default(),
            to_kernel: Burst::new(),
        }
    }
}

/// All the ways out of a worker.
pub(crate) struct Output {
    pub(crate) outlets: Vec<Outlet>,
    pub(crate) shared: Arc<[PortShared]>,
    /// What this worker counts, by port.
    pub(crate) stats: Arc<[PortStats]>,
    pub(crate) pool: PacketPool,
    pub(crate) punts: PuntSender,
    pub(crate) handover: HandoverSender,
    pub(crate) trace: Tracer,
    /// How many packets were dropped as there were too many for the control core.
    pub(crate) shed: u64,
}

impl Output {
    /// The port with this number.
    pub(crate) fn outlet(&self, port: PortId) -> Option<&Outlet> {
        self.outlets.get(usize::from(port.0))
    }

    /// The counters of a port; none for a probe, which is no packet.
    pub(crate) fn stats(&self, port: PortId) -> Option<&PortStats> {
        if self.trace.is_probe() {
            return None;
        }
        stats(&self.stats, port)
    }

    /// Ends a packet with `verdict`; it has its link header unless it is dropped.
    /// To be held is no end: see `Hold`.
    pub(crate) fn finish(&mut self, packet: Packet, verdict: Verdict) {
        if self.trace.is_probe() {
            return self.foresee(packet, verdict);
        }
        match verdict {
            Verdict::Transmit(port) => self.transmit(packet, port),
            Verdict::Punt(reason) => self.punt(packet, reason),
            Verdict::ToKernel => self.deliver_to_kernel(packet),
            Verdict::Drop(reason) => self.drop(packet, reason),
            Verdict::Hold | Verdict::HandOver(_) => {
                debug_assert!(false, "a packet that goes on is not finished");
            }
        }
    }

    /// What [`Output::finish`] would do, of a probe.
    fn foresee(&mut self, packet: Packet, verdict: Verdict) {
        let (verdict, other) = match verdict {
            Verdict::Transmit(port) => match self.outlet(port).filter(|outlet| outlet.up) {
                Some(outlet) => (verdict, outlet.sender),
                None => (Verdict::Drop(DropReason::PortDown), None),
            },
            Verdict::ToKernel => match self.outlet(packet.port) {
                Some(outlet) if outlet.twin.is_some() || outlet.twin_at.is_some() => {
                    (verdict, outlet.twin_at)
                }
                _ => (Verdict::Drop(DropReason::NoKernelTwin), None),
            },
            other => (other, None),
        };
        if let Some(worker) = other {
            // There are no more workers than CPUs.
            let step = || Step::number(Code::HandedOver, worker as u32);
            self.trace.step(&packet, step);
        }
        self.trace.end(&packet, verdict);
        self.pool.give(packet);
    }

    /// Counts a packet that is gone.
    pub(crate) fn drop(&mut self, packet: Packet, reason: DropReason) {
        self.trace.end(&packet, Verdict::Drop(reason));
        if let Some(stats) = self.stats(packet.port) {
            stats.dropped(reason).add(1);
        }
        let is_shed = matches!(reason, DropReason::RegistrationRate | DropReason::PuntQueueFull);
        self.shed += u64::from(is_shed);
        #[cfg(feature = "planted-bugs")]
        if reason == DropReason::OuterSourceMismatch
            && crate::planted::is(crate::planted::Bug::RefusedBufferLeaks)
        {
            return;
        }
        self.pool.give(packet);
    }

    /// Sends a frame by `port`, with the next burst.
    #[inline]
    pub(crate) fn transmit(&mut self, packet: Packet, port: PortId) {
        let Some(outlet) = self.outlets.get_mut(usize::from(port.0)).filter(|outlet| outlet.up)
        else {
            return self.drop(packet, DropReason::PortDown);
        };
        if let Some(sender) = outlet.sender {
            return self.hand_over(packet, sender, Errand::Transmit(port));
        }
        if outlet.tx.is_full() {
            let Output { pool, stats, trace, .. } = self;
            send(outlet, pool, stats, trace, Way::Out(port));
        }
        if let Err(packet) = outlet.tx.push(packet) {
            self.drop(packet, DropReason::PortTransmitFull);
        }
    }

    /// Sends all frames of a burst by `port`, in order, and leaves it empty. A whole
    /// burst changes places with the port's empty one: no packet is moved.
    #[inline]
    pub(crate) fn transmit_all(&mut self, burst: &mut Box<Burst>, port: PortId) {
        let outlet = self.outlets.get_mut(usize::from(port.0));
        let Some(outlet) = outlet.filter(|outlet| outlet.up && outlet.sender.is_none()) else {
            return burst.drain().for_each(|packet| self.transmit(packet, port));
        };
        if outlet.tx.len() + burst.len() > BURST {
            let Output { pool, stats, trace, .. } = self;
            send(outlet, pool, stats, trace, Way::Out(port));
        }
        if outlet.tx.is_empty() {
            std::mem::swap(&mut outlet.tx, burst);
        } else {
            burst.drain().for_each(|packet| self.transmit(packet, port));
        }
    }

    /// Delivers a frame to the twin of the port that it is counted at, with the
    /// next burst.
    pub(crate) fn deliver_to_kernel(&mut self, packet: Packet) {
        let outlet = self.outlets.get_mut(usize::from(packet.port.0));
        if let Some(Outlet { twin_at: Some(worker), .. }) = outlet {
            let worker = *worker;
            return self.hand_over(packet, worker, Errand::DeliverToKernel);
        }
        let Some(outlet) = outlet.filter(|outlet| outlet.twin.is_some()) else {
            return self.drop(packet, DropReason::NoKernelTwin);
        };
        if outlet.to_kernel.is_full() {
            let Output { pool, stats, trace, .. } = self;
            send(outlet, pool, stats, trace, Way::ToKernel);
        }
        if let Err(packet) = outlet.to_kernel.push(packet) {
            self.drop(packet, DropReason::PortTransmitFull);
        }
    }

    /// Hands a packet to another worker, where it goes on.
    pub(crate) fn hand_over(&mut self, packet: Packet, to: usize, errand: Errand) {
        // There are no more workers than CPUs.
        let verdict = Verdict::HandOver(to as u16);
        if self.trace.is_probe() {
            return self.foresee(packet, verdict);
        }
        if !self.handover.push(to, &packet, errand) {
            return self.drop(packet, DropReason::HandoverFull);
        }
        if let Some(stats) = self.stats(packet.port) {
            stats.handed_over.add(1);
        }
        self.trace.end(&packet, verdict);
        self.pool.give(packet);
    }

    /// Hands a frame to the control core.
    fn punt(&mut self, packet: Packet, reason: PuntReason) {
        // A frame is at most DATA_ROOM long.
        let len = packet.len() as u16;
        let header = PuntHeader::new(packet.tenant, packet.port, reason, len);
        if !self.punts.push(&header, reason, packet.bytes()) {
            #[cfg(feature = "planted-bugs")]
            if crate::planted::is(crate::planted::Bug::FullQueueNotCounted) {
                return self.pool.give(packet);
            }
            return self.drop(packet, DropReason::PuntQueueFull);
        }
        if let Some(stats) = self.stats(packet.port) {
            stats.punted(reason).add(1);
        }
        self.trace.end(&packet, Verdict::Punt(reason));
        self.pool.give(packet);
    }

    /// Asks the control core for the link-layer address of a next hop. The
    /// question is a packet made here, counted at the port that it is about; when
    /// the control core is behind, there is none.
    pub(crate) fn ask(&mut self, next_hop: NextHop) {
        if self.trace.is_probe() {
            return;
        }
        let reason = PuntReason::ResolveNeighbor;
        let Some(outlet) = self.outlet(next_hop.port) else { return };
        let header = PuntHeader::new(outlet.tenant, next_hop.port, reason, 0)
            .with_next_hop(next_hop.address);
        if self.punts.push(&header, reason, &[])
            && let Some(stats) = self.stats(next_hop.port)
        {
            stats.originated.add(1);
            stats.punted(reason).add(1);
        }
    }

    /// Hands the control core a record, which is a packet made here, counted at
    /// `port`. `false`, and nothing happened, when the control core is behind.
    pub(crate) fn tell(
        &mut self,
        port: PortId,
        tenant: TenantId,
        reason: PuntReason,
        record: &[u8],
    ) -> bool {
        let header = PuntHeader::new(tenant, port, reason, record.len() as u16);
        let told = self.punts.push(&header, reason, record);
        if told && let Some(stats) = self.stats(port) {
            stats.originated.add(1);
            stats.punted(reason).add(1);
        }
        told
    }

    /// Sends what waits for its burst.
    pub(crate) fn flush(&mut self) {
        let Output { outlets, stats, pool, trace, .. } = self;
        for (index, outlet) in outlets.iter_mut().enumerate() {
            // Ports are numbered with 16 bits.
            send(outlet, pool, stats, trace, Way::Out(PortId(index as u16)));
            send(outlet, pool, stats, trace, Way::ToKernel);
        }
    }
}

/// Which way a burst goes.
#[derive(Clone, Copy)]
enum Way {
    /// By this port.
    Out(PortId),
    /// To a kernel twin.
    ToKernel,
}

fn stats(all: &[PortStats], port: PortId) -> Option<&PortStats> {
    all.get(usize::from(port.0))
}

/// What is counted of a packet that leaves, in one word: as it lies in the packet.
#[derive(Clone, Copy)]
struct Mark(u32);

impl Mark {
    #[inline(always)]
    fn of(packet: &Packet) -> Self {
        // A frame's length has 16 bits.
        Mark(u32::from(packet.len() as u16) | u32::from(packet.port.0) << 16)
    }

    /// The port that the packet is counted at.
    #[inline(always)]
    const fn counted_at(self) -> PortId {
        PortId((self.0 >> 16) as u16)
    }

    #[inline(always)]
    const fn len(self) -> u64 {
        (self.0 & 0xffff) as u64
    }
}

/// Sends a burst and counts each of its packets at the port that it is counted
/// at. A port says how many it took, not which: those that it did not take are
/// reckoned to be the last.
fn send(
    outlet: &mut Outlet,
    pool: &mut PacketPool,
    all: &[PortStats],
    trace: &mut Tracer,
    way: Way,
) {
    let Outlet { port, twin, tx, to_kernel, .. } = outlet;
    let (port, burst) = match (way, twin) {
        (Way::Out(_), _) => (port, &mut **tx),
        (Way::ToKernel, Some(twin)) => (twin, to_kernel),
        (Way::ToKernel, None) => return,
    };
    if burst.is_empty() {
        return;
    }
    let first = burst.iter().next().map_or(Mark(0), Mark::of);
    let mut marks = [Mark(0); BURST];
    let (mut bytes, mut differences) = (0, 0);
    for (place, mark) in burst.places().iter().zip(&mut marks) {
        if let Some(packet) = place {
            *mark = Mark::of(packet);
            differences |= mark.0 ^ first.0;
            bytes += mark.len();
        }
    }
    let count = burst.len();
    let endings = trace.has_open().then(|| endings(burst, trace));
    let sent = port.tx_burst(pool, burst).min(count);
    if let Some(endings) = endings {
        tell(endings, trace, sent, way);
    }
    let (taken, refused) = marks.get(..count).unwrap_or_default().split_at(sent);
    let count_taken = |port: PortId, count: usize| {
        let Some(counters) = stats(all, port) else { return };
        match way {
            Way::ToKernel => counters.to_kernel.add(count as u64),
            Way::Out(_) => counters.transmitted.add(count as u64),
        }
    };
    if Mark(differences).counted_at() == PortId(0) {
        // All at the same.
        count_taken(first.counted_at(), sent);
    } else {
        // Once for each run of packets that are counted at one port.
        for run in taken.chunk_by(|one, next| one.counted_at() == next.counted_at()) {
            run.iter().take(1).for_each(|mark| count_taken(mark.counted_at(), run.len()));
        }
    }
    for mark in refused {
        if let Some(counters) = stats(all, mark.counted_at()) {
            counters.dropped(DropReason::PortTransmitFull).add(1);
        }
    }
    if let Way::Out(egress) = way
        && let Some(egress) = stats(all, egress)
    {
        egress.tx.add(sent as u64);
        egress.tx_bytes.add(bytes - refused.iter().map(|mark| mark.len()).sum::<u64>());
    }
}

/// The walks of packets that are about to leave.
#[cold]
fn endings(burst: &mut Burst, trace: &mut Tracer) -> [Option<Ending>; BURST] {
    let mut endings = [const { None }; BURST];
    for (ending, packet) in endings.iter_mut().zip(burst.places().iter().flatten()) {
        *ending = trace.ending(packet);
    }
    endings
}

/// Tells the walks of packets of which the first `sent` have left.
#[cold]
fn tell(endings: [Option<Ending>; BURST], trace: &mut Tracer, sent: usize, way: Way) {
    for (place, ending) in endings.into_iter().enumerate() {
        let verdict = match way {
            _ if place >= sent => Verdict::Drop(DropReason::PortTransmitFull),
            Way::Out(port) => Verdict::Transmit(port),
            Way::ToKernel => Verdict::ToKernel,
        };
        if let Some(ending) = ending {
            trace.tell(ending, verdict);
        }
    }
}
