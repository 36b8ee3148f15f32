//! Punted packets: taken from the ring, taken apart, and handed to whom they are for.

use std::time::Duration;

use homeport_dataplane::punt::{Millis, PuntHeader};
use homeport_dataplane::verdict::PuntReason;
use homeport_proto::Now;
use homeport_proto::agent::{Datagram, TOGETHER};

use super::{ControlCore, MAX_NEXT_HOPS};
use crate::journal::Input;
use crate::punted::{self, Punted, Tunnelled};

/// Punted packets in one turn.
pub const PUNTS_PER_TURN: usize = 256;

/// How long a punted packet may have waited. A node sends its request again after a
/// second (RFC 5944 §3.6.3), and an answer to the first would be in vain.
pub const MAX_WAIT: Duration = Duration::from_secs(1);

/// Packets that are looked at together.
pub(super) const BATCH: usize = TOGETHER;

impl ControlCore {
    /// Punted packets, at most so many. `instant` is the same moment as `now` on the
    /// clock of the workers. Returns whether more may wait.
    pub fn take_punts(&mut self, now: Now, instant: std::time::Instant) -> bool {
        let millis = self.punts.millis(instant);
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
        let received = waiting.iter().flatten();
        self.agent.foresee(
            received.filter_map(|(header, punted)| datagram(header, punted)),
            |tenant, home_address| self.installer.prepare(tenant, home_address),
        );
        for (header, punted) in waiting.iter().flatten() {
            self.take_punt(header, punted, now);
        }
        self.agent.sign_replies();
        self.do_actions(now.monotonic);
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
        let input = match *punted {
            Punted::Registration { .. } => match datagram(header, punted) {
                Some(datagram) => Input::Datagram(datagram),
                None => return,
            },
            Punted::Solicitation { packet, icmp } => {
                let (source_mac, source, ttl) = (packet.source_mac, packet.source, packet.ttl);
                Input::Solicitation { tenant, port, source_mac, source, ttl, icmp }
            }
            Punted::Unreachable { packet, icmp } => {
                Input::Unreachable { tenant, source: packet.source, icmp }
            }
            Punted::Keepalive { tunnelled, icmp } => Input::Keepalive(tunnelled.echo(tenant, icmp)),
            Punted::Rebound(Tunnelled { outer, source_port, inner_source, .. }) => {
                Input::Rebound { tenant, inner_source, source: outer.source, source_port }
            }
            Punted::ResolveNeighbor(next_hop) => {
                if self.next_hops.len() < MAX_NEXT_HOPS {
                    self.next_hops.push_back((port, next_hop));
                }
                return;
            }
            Punted::NatLog(record) => {
                let napt = self.napts.get(record.napt());
                let name = napt.map_or("", |napt| napt.config.name.as_str());
                self.blocks.take(&record, name, now.monotonic);
                return;
            }
            Punted::Other(reason) => {
                *self.counts.not_served.entry(reason).or_default() += 1;
                return;
            }
        };
        self.input(input, now);
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
