//! Punted packets: taken from the ring, taken apart, and handed to whom they are for.

use homeport_dataplane::punt::{Millis, PuntHeader};
use homeport_dataplane::verdict::PuntReason;
use homeport_proto::Now;
use homeport_proto::agent::Datagram;

use super::{EventLoop, MAX_WAIT, PUNTS_PER_TURN};
use crate::punted::{self, Punted, Tunnelled};

/// Packets that are looked at together: more would push one another out of the
/// cache, and with fewer some of the memory would be waited for.
pub(super) const BATCH: usize = 16;

impl EventLoop {
    /// Punted packets, at most so many. Returns whether more may wait.
    pub(super) fn take_punts(&mut self, now: Now) -> bool {
        let millis = self.punts.millis(std::time::Instant::now());
        self.take_punts_at(now, millis)
    }

    pub(super) fn take_punts_at(&mut self, now: Now, millis: Millis) -> bool {
        let mut buffers = std::mem::take(&mut self.buffers);
        let mut more = true;
        for _ in 0..PUNTS_PER_TURN / BATCH {
            if !self.take_batch(&mut buffers, now, millis) {
                more = false;
                break;
            }
        }
        self.buffers = buffers;
        more
    }

    /// The next packets: all are looked at before the first is decided, so that the
    /// memory for them is waited for together. Returns whether more may wait.
    fn take_batch(&mut self, buffers: &mut [Vec<u8>; BATCH], now: Now, millis: Millis) -> bool {
        let mut waiting = [const { None }; BATCH];
        let mut more = true;
        for (buffer, place) in buffers.iter_mut().zip(&mut waiting) {
            let Some((header, frame)) = self.punts.next(buffer) else {
                more = false;
                break;
            };
            if is_too_old(&header, millis) {
                self.shed(&header);
                continue;
            }
            match punted::parse(&header, frame) {
                Ok(punted) => *place = Some((header, punted)),
                Err(reason) => *self.counts.bad_punts.entry(reason).or_default() += 1,
            }
        }
        let mut foreseen = [None; BATCH];
        for ((header, punted), place) in waiting.iter().flatten().zip(&mut foreseen) {
            *place = datagram(header, punted).and_then(|one| self.agent.foresee(&one));
        }
        for foreseen in foreseen.iter().flatten() {
            self.agent.prepare(foreseen);
            self.installer.prepare(foreseen.tenant(), foreseen.home_address());
        }
        for (header, punted) in waiting.iter().flatten() {
            self.take_punt(header, punted, now);
            self.do_actions(now.monotonic);
        }
        more
    }

    #[cold]
    fn shed(&mut self, header: &PuntHeader) {
        if let Some(reason) = header.reason() {
            *self.counts.too_old.entry(reason).or_default() += 1;
        }
    }

    fn take_punt(&mut self, header: &PuntHeader, punted: &Punted<'_>, now: Now) {
        let (tenant, port) = (header.tenant(), header.port());
        if let Some(datagram) = datagram(header, punted) {
            return self.agent.handle_datagram(&datagram, now);
        }
        match *punted {
            Punted::Registration { .. } => {}
            Punted::Solicitation { packet, icmp } => {
                let (mac, source, ttl) = (packet.source_mac, packet.source, packet.ttl);
                self.agent.handle_solicitation(tenant, port, mac, source, ttl, icmp, now);
            }
            Punted::Unreachable { packet, icmp } => {
                self.agent.handle_unreachable(tenant, packet.source, icmp, now);
            }
            Punted::Keepalive { tunnelled, icmp } => {
                self.agent.handle_keepalive(&tunnelled.echo(tenant, icmp), now);
            }
            Punted::Rebound(Tunnelled { outer, source_port, inner_source, .. }) => {
                self.agent.handle_rebound(tenant, inner_source, outer.source, source_port, now);
            }
            Punted::ResolveNeighbor(next_hop) => {
                let Some(index) = self.mirror.index_of(port) else {
                    self.counts.no_twin += 1;
                    return;
                };
                if let Err(error) = self.resolver.resolve(index, next_hop, now.monotonic) {
                    self.counts.kernel_errors += 1;
                    tracing::debug!(%error, %next_hop, "next hop not asked for");
                }
            }
            Punted::NatLog(record) => {
                let napt = self.napts.get(record.napt());
                let name = napt.map_or("", |napt| napt.config.name.as_str());
                self.blocks.take(&record, name, now.monotonic);
            }
            Punted::Other(reason) => *self.counts.not_served.entry(reason).or_default() += 1,
        }
    }
}

/// A registration message, as the agents take it.
fn datagram<'a>(header: &PuntHeader, punted: &Punted<'a>) -> Option<Datagram<'a>> {
    let Punted::Registration { packet, source_port, destination_port, payload } = *punted else {
        return None;
    };
    Some(Datagram {
        tenant: header.tenant(),
        port: header.port(),
        source_mac: packet.source_mac,
        destination_mac: packet.destination_mac,
        source: packet.source,
        destination: packet.destination,
        source_port,
        destination_port,
        ttl: packet.ttl,
        payload,
    })
}

/// Whether a packet waited so long that it is in vain. A record is never.
fn is_too_old(header: &PuntHeader, now: Millis) -> bool {
    header.waited(now) > MAX_WAIT && header.reason() != Some(PuntReason::NatLog)
}
