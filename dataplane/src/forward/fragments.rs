//! Fragments of what ends here: put together, counted, and given up in time.

use homeport_wire::Ipv4Header;
use zerocopy::FromBytes;

use super::{Forwarder, Job};
use crate::classify::{Origin, Tables};
use crate::icmp_error::IcmpError;
use crate::parse;
use crate::reassembly::Release;
use crate::table::local::LocalEntry;
use crate::table::visitor::Found;
use crate::trace::{Code, Step};
use crate::verdict::{DropReason, Verdict};

impl Forwarder {
    /// A fragment of a packet for this box. When it was the last one missing, the
    /// whole has another pass.
    pub(super) fn reassemble(&mut self, tables: &Tables, job: Job, local: &LocalEntry) {
        if self.output.trace.is_probe() {
            self.output.trace.step(&job.packet, || Step::of(Code::WaitsForFragments));
            return self.output.finish(job.packet, Verdict::Hold);
        }
        // Two visitors may have one home address: their stations tell them apart.
        let station = match job.origin {
            Origin::Link { port, ethernet } => {
                let (source, mac) = (job.facts.source, ethernet.source);
                let found = tables.visitors.at_station(local.tenant, source, mac);
                (found != Found::Nobody).then_some((port, mac))
            }
            Origin::Tunnel | Origin::Own => None,
        };
        if let Some(stats) = self.output.stats(job.packet.port) {
            stats.held.add(1);
        }
        let buffer = job.packet.buffer();
        let pool = &mut self.output.pool;
        let whole = self.reassembly.push(job.packet, job.origin, station, self.now, pool);
        if let Some((packet, _)) = &whole {
            let step = Step::number(Code::Whole, packet.len() as u32);
            self.output.trace.go_on_as(buffer, packet, step);
        }
        self.settle_fragments();
        let Some((packet, origin)) = whole else {
            return self.output.trace.held(buffer, || Step::of(Code::WaitsForFragments));
        };
        if let Some(stats) = self.output.stats(packet.port) {
            stats.held.sub(1);
        }
        match parse::ipv4(packet.bytes()) {
            Ok(facts) => self.again(Job { packet, facts, origin, passes: job.passes, route: None }),
            Err(reason) => self.output.drop(packet, reason),
        }
    }

    /// Gives up what has waited too long.
    pub(crate) fn expire_fragments(&mut self, tables: &Tables) {
        while self.reassembly.expire(self.now) {
            self.settle_fragments();
            self.work_off(tables);
        }
    }

    /// Counts the fragments that do not wait any longer and lets go of them.
    fn settle_fragments(&mut self) {
        while let Some((packet, release)) = self.reassembly.poll_released() {
            if let Some(stats) = self.output.stats(packet.port) {
                stats.held.sub(1);
            }
            match release {
                Release::Joined => {
                    if let Some(stats) = self.output.stats(packet.port) {
                        stats.joined.add(1);
                    }
                    self.output.pool.give(packet);
                }
                Release::Dropped(reason) => {
                    self.output.trace.resume(&packet);
                    // RFC 1122 §3.3.2: the sender is told, if the first fragment was
                    // here; `report` says nothing about others.
                    if reason == DropReason::FragmentTimeout {
                        let us = Ipv4Header::ref_from_prefix(packet.bytes())
                            .map(|(header, _)| header.destination());
                        self.report(&packet, IcmpError::ReassemblyTimeExceeded, us.ok());
                    }
                    self.output.drop(packet, reason);
                }
            }
        }
    }
}
