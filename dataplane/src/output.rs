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
}

impl Output {
    /// The port with this number.
    pub(crate) fn outlet(&self, port: PortId) -> Option<&Outlet> {
        self.outlets.get(usize::from(port.0))
    }

    /// The counters of a port.
    pub(crate) fn stats(&self, port: PortId) -> Option<&PortStats> {
        stats(&self.stats, port)
    }

    /// Ends a packet with `verdict`; it has its link header unless it is dropped.
    /// To be held is no end: see `Hold`.
    pub(crate) fn finish(&mut self, packet: Packet, verdict: Verdict) {
        match verdict {
            Verdict::Transmit(port) => self.transmit(packet, port),
            Verdict::Punt(reason) => self.punt(packet, reason),
            Verdict::ToKernel => self.deliver_to_kernel(packet),
            Verdict::Drop(reason) => self.drop(packet, reason),
            Verdict::Hold => debug_assert!(false, "a held packet is not finished"),
        }
    }

    /// Counts a packet that is gone.
    pub(crate) fn drop(&mut self, packet: Packet, reason: DropReason) {
        if let Some(stats) = self.stats(packet.port) {
            stats.dropped(reason).add(1);
        }
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
            send(outlet.port.as_mut(), &mut outlet.tx, &mut self.pool, &self.stats, Way::Out(port));
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
            send(outlet.port.as_mut(), &mut outlet.tx, &mut self.pool, &self.stats, Way::Out(port));
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
        let Some((outlet, twin)) = outlet.and_then(|outlet| {
            let Outlet { twin, to_kernel, .. } = outlet;
            twin.as_deref_mut().map(|twin| (to_kernel, twin))
        }) else {
            return self.drop(packet, DropReason::NoKernelTwin);
        };
        if outlet.is_full() {
            send(twin, outlet, &mut self.pool, &self.stats, Way::ToKernel);
        }
        if let Err(packet) = outlet.push(packet) {
            self.drop(packet, DropReason::PortTransmitFull);
        }
    }

    /// Hands a packet to another worker, where it goes on.
    pub(crate) fn hand_over(&mut self, packet: Packet, to: usize, errand: Errand) {
        if !self.handover.push(to, &packet, errand) {
            return self.drop(packet, DropReason::HandoverFull);
        }
        if let Some(stats) = self.stats(packet.port) {
            stats.handed_over.add(1);
        }
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
        self.pool.give(packet);
    }

    /// Asks the control core for the link-layer address of a next hop. The
    /// question is a packet made here, counted at the port that it is about; when
    /// the control core is behind, there is none.
    pub(crate) fn ask(&mut self, next_hop: NextHop) {
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
        let Output { outlets, stats, pool, .. } = self;
        for (index, outlet) in outlets.iter_mut().enumerate() {
            let Outlet { port, twin, tx, to_kernel, .. } = outlet;
            // Ports are numbered with 16 bits.
            send(port.as_mut(), tx, pool, stats, Way::Out(PortId(index as u16)));
            if let Some(twin) = twin {
                send(twin.as_mut(), to_kernel, pool, stats, Way::ToKernel);
            }
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

/// Sends a burst and counts each of its packets at the port that it is counted
/// at. A port says how many it took, not which: those that it did not take are
/// reckoned to be the last.
fn send(
    port: &mut dyn Port,
    burst: &mut Burst,
    pool: &mut PacketPool,
    all: &[PortStats],
    way: Way,
) {
    if burst.is_empty() {
        return;
    }
    let (mut counted_at, mut lens) = ([PortId::default(); BURST], [0u16; BURST]);
    let places = burst.places().iter().flatten();
    for ((port, len), packet) in counted_at.iter_mut().zip(&mut lens).zip(places) {
        // A frame's length has 16 bits.
        (*port, *len) = (packet.port, packet.len() as u16);
    }
    let count = burst.len();
    let sent = port.tx_burst(pool, burst).min(count);
    let (taken, refused) = counted_at.get(..count).unwrap_or_default().split_at(sent);
    // Most bursts were counted at one port: once for each run of them.
    for run in taken.chunk_by(PortId::eq) {
        let Some(counters) = run.first().and_then(|port| stats(all, *port)) else { continue };
        match way {
            Way::ToKernel => counters.to_kernel.add(run.len() as u64),
            Way::Out(_) => counters.transmitted.add(run.len() as u64),
        }
    }
    for port in refused {
        if let Some(counters) = stats(all, *port) {
            counters.dropped(DropReason::PortTransmitFull).add(1);
        }
    }
    if let Way::Out(egress) = way
        && let Some(egress) = stats(all, egress)
    {
        egress.tx.add(sent as u64);
        egress.tx_bytes.add(lens.iter().take(sent).map(|len| u64::from(*len)).sum());
    }
}
