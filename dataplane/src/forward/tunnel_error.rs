//! ICMP errors from inside our tunnels: remembered, and relayed to those whose
//! packets they are about.

use super::{Forwarder, Job};
use crate::classify::{Origin, Tables};
use crate::icmp_error;
use crate::parse;
use crate::table::local::LocalEntry;
use crate::table::visitor::Found;
use crate::trace::{Code, Step};
use crate::tunnel_icmp::{Judgement, TunnelError, judge};
use crate::verdict::{DropReason, PuntReason, Verdict};

impl Forwarder {
    /// An ICMP error that quotes a packet of the agent at `local`.
    pub(super) fn tunnel_error(&mut self, tables: &Tables, mut job: Job, local: &LocalEntry) {
        let tenant = local.tenant;
        let payload = job.packet.bytes().get(usize::from(job.facts.header_len)..);
        let is_live = |remote| self.mtus.is_live(tenant, remote, self.now);
        let error = match judge(payload.unwrap_or_default(), tenant, tables, is_live) {
            Judgement::Tunnel(error) => error,
            Judgement::Registration => {
                job.packet.tenant = tenant;
                return self.local(job, Verdict::Punt(PuntReason::TunnelIcmp));
            }
            Judgement::Foreign => return self.local(job, Verdict::ToKernel),
            Judgement::Unmatched => {
                return self.output.drop(job.packet, DropReason::TunnelIcmpUnmatched);
            }
        };
        let TunnelError { remote, mtu, relay } = error;
        let step = || Step::tunnel_error(remote, mtu);
        self.output.trace.step(&job.packet, step);
        if let Some(mtu) = mtu
            && !self.learns(tenant, remote, mtu)
        {
            return self.output.drop(job.packet, DropReason::TunnelMtuTooSmall);
        }
        // The relayed error takes the received one's place.
        let relayed = relay.and_then(|relay| {
            let mut packet = self.output.pool.take()?;
            (packet.port, packet.tenant) = (job.packet.port, tenant);
            let (head, payload, us) = (relay.head(), relay.payload(), job.facts.destination);
            let written = icmp_error::write_about(&mut packet, head, payload, us, relay.error)
                && self.may_tell();
            match parse::ipv4(packet.bytes()) {
                Ok(facts) if written => {
                    // A visitor's packet: the tunnel says which of those with one
                    // address.
                    let sender = facts.destination;
                    if let Found::Visitor(visitor) =
                        tables.visitors.of_home_agent(tenant, sender, remote)
                    {
                        packet.station = visitor.mac;
                    }
                    Some((packet, facts))
                }
                _ => {
                    self.output.pool.give(packet);
                    None
                }
            }
        });
        match relayed {
            Some((packet, facts)) => {
                let step = Step::of(Code::MadeError);
                self.output.trace.go_on_as(job.packet.buffer(), &packet, step);
                self.output.pool.give(job.packet);
                let (origin, passes) = (Origin::Own, job.passes);
                self.again(Job { packet, facts, origin, passes, route: None });
            }
            None => self.output.drop(job.packet, DropReason::TunnelIcmpNoted),
        }
    }
}
