//! Packets that are only asked about (`explain --packet`): they are followed through the
//! very same code, and what has an effect there asks here first.

use std::net::Ipv4Addr;

use homeport_wire::{EtherType, EthernetHeader, MacAddress, PortId, TenantId};
use zerocopy::IntoBytes;

use super::nat::{Side, endpoint, expires_here, renamed};
use super::steer::owner;
use super::{Forwarder, Job, NextHop};
use crate::allowance::AllowanceKey;
use crate::classify::Tables;
use crate::napt::{Foreseen, InsideHost};
use crate::packet::Packet;
use crate::parse::{self, Ipv4Facts};
use crate::punt::InjectHeader;
use crate::table::route::RouteEntry;
use crate::trace::{BY_ROUTE, Code, Step};
use crate::tunnel_mtu::MIN_TUNNEL_MTU;
use crate::verdict::{DropReason, Verdict};

impl Forwarder {
    /// Follows a packet that begins with its IPv4 header.
    pub(crate) fn probe(&mut self, tables: &Tables, packet: Packet, header: &InjectHeader) {
        self.output.trace.begin_probe(header.number(), self.now);
        self.allowances.forget_foreseen();
        self.follow(tables, packet, header);
        self.output.trace.end_probe();
    }

    fn follow(&mut self, tables: &Tables, mut packet: Packet, header: &InjectHeader) {
        let facts = parse::ipv4(packet.bytes());
        let entered = facts.ok().and_then(|facts| self.enter_by(tables, &facts, header));
        let Some((port, tenant, ethernet)) =
            entered.filter(|(_, _, ethernet)| packet.prepend(ethernet.as_bytes()))
        else {
            self.output.trace.begin(&packet, false, Some(Step::of(Code::Injected)));
            return self.output.drop(packet, DropReason::InjectMalformed);
        };
        (packet.port, packet.tenant) = (port, tenant);
        self.output.trace.begin(&packet, true, None);
        let index = usize::from(port.0);
        if self.steering.steers(index)
            && let Some(owner) = owner(&self.steering, &self.nat, index, packet.bytes())
            && owner != self.steering.worker
        {
            // There are no more workers than CPUs.
            return self.output.finish(packet, Verdict::HandOver(owner as u16));
        }
        match parse::frame(packet.bytes()) {
            Ok((_, frame)) => self.receive(tables, packet, ethernet, frame),
            Err(reason) => self.output.drop(packet, reason),
        }
    }

    /// Where a packet comes in: the port, its tenant, and the link header that its sender
    /// would put in front. `None`: there is no such port.
    fn enter_by(
        &self,
        tables: &Tables,
        facts: &Ipv4Facts,
        header: &InjectHeader,
    ) -> Option<(PortId, TenantId, EthernetHeader)> {
        let by_route = |tenant| match tables.routes.lookup(tenant, facts.source) {
            Some(RouteEntry::Via { port, .. }) => port,
            _ => PortId(0),
        };
        let port = match header.port() {
            PortId(BY_ROUTE) => match tables.visitors.alone_at(header.tenant(), facts.source) {
                Some(visitor) => visitor.port,
                None => by_route(header.tenant()),
            },
            port => port,
        };
        let outlet = self.output.outlet(port)?;
        let tenant = outlet.tenant;
        let to = match facts.destination {
            group if group.is_multicast() => MacAddress::of_multicast(group),
            all if all.is_broadcast() => MacAddress::BROADCAST,
            address if tables.local(tenant, address).is_some_and(|local| local.broadcast) => {
                MacAddress::BROADCAST
            }
            _ => outlet.mac,
        };
        let from = sender(tables, tenant, port, facts.source);
        Some((port, tenant, EthernetHeader::new(to, from, EtherType::IPV4)))
    }

    /// Ends a probe that would wait for its next hop.
    pub(super) fn foresee_hold(&mut self, packet: Packet, next_hop: NextHop) {
        let verdict = if self.hold.has_room(next_hop) {
            let NextHop { port, address } = next_hop;
            self.output.trace.step(&packet, || Step::next_hop(Code::Held, address, port));
            Verdict::Hold
        } else {
            Verdict::Drop(DropReason::NeighborQueueFull)
        };
        self.output.finish(packet, verdict);
    }

    /// What a NAPT would do with a packet of an inside host; one that would open a session
    /// goes on as it is. `None`: it goes no further.
    pub(super) fn foresee_out(
        &mut self,
        number: usize,
        host: &InsideHost,
        mut job: Job,
    ) -> Option<Job> {
        let before = endpoint(&job.packet, Side::Source);
        let now = self.now;
        let napt = self.nat.napts.get_mut(number)?;
        match napt.foresee_outbound(job.packet.bytes_mut(), host, now) {
            Foreseen::Translated(()) => {
                self.note_napt(number, &job.packet, Side::Source, before);
                Some(renamed(job))
            }
            Foreseen::Opens => {
                self.output.trace.step(&job.packet, || Step::of_napt(Code::NaptOpens, number));
                Some(job)
            }
            Foreseen::Unclaimed => Some(job),
            Foreseen::Waits => {
                self.foresee_wait(number, job.packet);
                None
            }
            Foreseen::Refused(reason) => {
                self.refuse(job, reason);
                None
            }
        }
    }

    /// What a NAPT would do with a packet to an external endpoint, of the inside host
    /// `sender` if it is one's. `Some`: it is for the box itself.
    pub(super) fn foresee_in(
        &mut self,
        tables: &Tables,
        number: usize,
        sender: Option<&InsideHost>,
        mut job: Job,
    ) -> Option<Job> {
        let before = endpoint(&job.packet, Side::Destination);
        let now = self.now;
        let napt = self.nat.napts.get_mut(number)?;
        if expires_here(&job) && napt.claims(job.packet.bytes()) {
            return self.hop(job);
        }
        let foreseen = match sender {
            Some(host) => napt.foresee_hairpin(job.packet.bytes_mut(), host, now),
            None => napt.foresee_inbound(job.packet.bytes_mut(), now),
        };
        match foreseen {
            Foreseen::Translated(host) => {
                self.note_napt(number, &job.packet, Side::Destination, before);
                self.inward(tables, job, &host);
                None
            }
            // Where it would go then depends on the endpoint that it would get.
            Foreseen::Opens => {
                self.output.trace.step(&job.packet, || Step::of_napt(Code::NaptOpens, number));
                self.output.finish(job.packet, Verdict::Hold);
                None
            }
            Foreseen::Unclaimed => Some(job),
            Foreseen::Waits => {
                self.foresee_wait(number, job.packet);
                None
            }
            Foreseen::Refused(reason) if sender.is_some() => {
                self.refuse(job, reason);
                None
            }
            Foreseen::Refused(reason) => {
                self.output.drop(job.packet, reason);
                None
            }
        }
    }

    fn foresee_wait(&mut self, number: usize, packet: Packet) {
        self.output.trace.step(&packet, || Step::of_napt(Code::NaptWaits, number));
        self.output.finish(packet, Verdict::Hold);
    }

    /// Whether an ICMP error may be sent.
    pub(super) fn may_tell(&mut self) -> bool {
        let now = self.now;
        if self.output.trace.is_probe() { self.errors.has(now) } else { self.errors.take(now) }
    }

    /// Whether the control core may be told of a NAT that changed a port.
    pub(super) fn may_tell_of_rebound(&mut self) -> bool {
        let now = self.now;
        if self.output.trace.is_probe() { self.rebounds.has(now) } else { self.rebounds.take(now) }
    }

    /// So many bytes came from an address that is not proven.
    pub(super) fn may_send_more(&mut self, key: AllowanceKey, len: u16) {
        if self.output.trace.is_probe() {
            self.allowances.foresee(key, len, self.now);
        } else {
            self.allowances.receive(key, len, self.now);
        }
    }

    /// Whether so many bytes may be sent to an address that is not proven.
    pub(super) fn may_send(&mut self, key: AllowanceKey, len: u16) -> bool {
        if self.output.trace.is_probe() {
            self.allowances.has(key, len, self.now)
        } else {
            self.allowances.spend(key, len, self.now)
        }
    }

    /// Learns a tunnel's MTU, if it can be believed.
    pub(super) fn learns(&mut self, tenant: TenantId, remote: Ipv4Addr, mtu: u16) -> bool {
        if self.output.trace.is_probe() {
            mtu >= MIN_TUNNEL_MTU
        } else {
            self.mtus.learn(tenant, remote, mtu, self.now)
        }
    }
}

/// The station that a packet from `source` would come from: a visitor's own, its
/// neighbour's, or the gateway's to it.
fn sender(tables: &Tables, tenant: TenantId, port: PortId, source: Ipv4Addr) -> MacAddress {
    if let Some(visitor) = tables.visitors.alone_at(tenant, source) {
        return visitor.mac;
    }
    let next_hop = match tables.routes.lookup(tenant, source) {
        Some(RouteEntry::Via { gateway: Some(gateway), .. }) => gateway,
        _ => source,
    };
    tables.neighbor(port, next_hop).unwrap_or(MacAddress::UNSPECIFIED)
}
