//! Tunnels: what leaves one here, and what enters one.

use std::net::Ipv4Addr;

use super::{Forwarder, Job, MAX_PASSES};
use crate::classify::{Origin, Tables, TunnelClass, classify_tunnelled};
use crate::encap::MAX_NESTING;
use crate::icmp_error::MIN_MTU;
use crate::table::binding::{BindingEntry, Encapsulation, TunnelEnd, TunnelFlags};
use crate::table::local::LocalEntry;
use crate::table::route::RouteEntry;
use crate::table::visitor::VisitorEntry;
use crate::verdict::{DropReason, Verdict};
use crate::{decap, encap, parse};
use homeport_wire::IpProtocol;

/// A tunnel to put a packet into.
#[derive(Clone, Copy)]
pub(super) struct Tunnel {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    encapsulation: Encapsulation,
}

impl Tunnel {
    pub(super) const fn to_node(binding: &BindingEntry, end: &TunnelEnd) -> Self {
        Tunnel {
            source: binding.home_agent,
            destination: end.care_of_address(),
            encapsulation: end.encapsulation(),
        }
    }

    pub(super) const fn to_home_agent(visitor: &VisitorEntry) -> Self {
        Tunnel {
            source: visitor.care_of_address,
            destination: visitor.home_agent,
            encapsulation: visitor.encapsulation,
        }
    }
}

impl Forwarder {
    /// The end of a tunnel.
    pub(super) fn decapsulate(&mut self, tables: &Tables, mut job: Job, local: &LocalEntry) {
        let payload = job.packet.bytes().get(usize::from(job.facts.header_len)..);
        let payload = payload.unwrap_or_default();
        let Ok(inner) = parse::ipv4(payload) else {
            return self.output.drop(job.packet, DropReason::MalformedInner);
        };
        let too_deep = inner.protocol == IpProtocol::IP_IN_IP
            && encap::nesting(job.packet.bytes()) > MAX_NESTING;
        if too_deep || job.passes >= MAX_PASSES {
            return self.output.drop(job.packet, DropReason::NestedTunnel);
        }
        let class = classify_tunnelled(&job.facts, &inner, &job.origin, local, tables);
        let class = match class {
            Ok(class) => class,
            Err(reason) => return self.output.drop(job.packet, reason),
        };
        if let Err(reason) = decap::decapsulate(&mut job.packet) {
            return self.output.drop(job.packet, reason);
        }
        if let Some(stats) = self.output.stats(job.packet.port) {
            stats.decapsulated.add(1);
        }
        job.packet.tenant = local.tenant;
        (job.facts, job.origin, job.route) = (inner, Origin::Tunnel, None);
        job.passes += 1;
        match class {
            TunnelClass::Visitor(visitor) => self.deliver(tables, job, visitor),
            TunnelClass::ReverseTunnel(visitor) => {
                // What is for a group is carried to the home network with its TTL
                // (RFC 3024 §5.4.2); the rest is forwarded.
                let to = inner.destination;
                let job =
                    if to.is_multicast() || to.is_broadcast() { Some(job) } else { self.hop(job) };
                if let Some(job) = job {
                    self.encapsulate(tables, job, Tunnel::to_home_agent(visitor));
                }
            }
            TunnelClass::Home => self.again(job),
        }
    }

    /// To a node that is away, by each of its tunnels.
    pub(super) fn tunnel_to_node(&mut self, tables: &Tables, job: Job, binding: &BindingEntry) {
        let Some(job) = self.hop(job) else { return };
        let Some((first, others)) = binding.tunnels().split_first() else {
            return self.output.drop(job.packet, DropReason::NoBinding);
        };
        for end in others {
            let Some(packet) = self.copy(&job.packet) else { continue };
            let copy = Job { packet, ..job };
            self.encapsulate(tables, copy, Tunnel::to_node(binding, end));
        }
        self.encapsulate(tables, job, Tunnel::to_node(binding, first));
    }

    /// To the kernel, and a copy to each node that is away and wants it. It is not
    /// forwarded, but as if the node were on its link: the TTL stays.
    pub(super) fn broadcast(&mut self, tables: &Tables, job: Job) {
        for (key, binding) in tables.listeners(job.packet.port) {
            let wants = |end: &&TunnelEnd| {
                end.is(TunnelFlags::BROADCAST) && end.care_of_address() != job.facts.source
            };
            for end in binding.tunnels().iter().filter(wants) {
                let Some(packet) = self.copy(&job.packet) else { continue };
                let copy = Job { packet, origin: Origin::Own, ..job };
                let tunnel = Tunnel::to_node(binding, end);
                // A foreign agent would not know whom a broadcast is for: it is put
                // into a packet for the node first (RFC 5944 §4.3).
                let copy = if end.is(TunnelFlags::CO_LOCATED) {
                    Some(copy)
                } else {
                    self.wrap(copy, Tunnel { destination: key.home_address, ..tunnel })
                };
                if let Some(copy) = copy {
                    self.encapsulate(tables, copy, tunnel);
                }
            }
        }
        self.local(job, Verdict::ToKernel);
    }

    /// Into a tunnel: whole, or in fragments that fit it.
    pub(super) fn encapsulate(&mut self, tables: &Tables, mut job: Job, tunnel: Tunnel) {
        let too_deep = job.facts.protocol == IpProtocol::IP_IN_IP
            && encap::nesting(job.packet.bytes()) >= MAX_NESTING;
        if too_deep || job.passes >= MAX_PASSES {
            return self.output.drop(job.packet, DropReason::NestedTunnel);
        }
        job.route = tables.routes.lookup(job.packet.tenant, tunnel.destination);
        let mtu = match job.route {
            Some(RouteEntry::Via { port, .. }) => self.output.outlet(port).map(|out| out.mtu),
            _ => None,
        };
        let overhead = encap::overhead(tunnel.encapsulation);
        let room = mtu.map_or(usize::from(u16::MAX), usize::from).saturating_sub(overhead);
        if usize::from(job.facts.total_len) <= room {
            return self.enter(job, tunnel);
        }
        // Fragments are cut before the tunnel: its end need not put them together.
        let room = u16::try_from(room).unwrap_or(u16::MAX).max(MIN_MTU);
        let Job { facts, origin, passes, route, .. } = job;
        let Some(mut pieces) = self.cut(job, room, Some(tunnel.source)) else { return };
        for packet in pieces.drain() {
            self.enter(Job { packet, facts, origin, passes, route }, tunnel);
        }
        self.pieces = pieces;
    }

    /// Puts the outer header on and lets the outer packet have its pass.
    fn enter(&mut self, job: Job, tunnel: Tunnel) {
        if let Some(job) = self.wrap(job, tunnel) {
            self.again(job);
        }
    }

    /// Puts the outer header on; `None` when the packet had to be dropped.
    fn wrap(&mut self, mut job: Job, tunnel: Tunnel) -> Option<Job> {
        let Tunnel { source, destination, encapsulation } = tunnel;
        let identification = &mut self.identification;
        let packet = &mut job.packet;
        let done = encap::encapsulate(packet, encapsulation, source, destination, identification)
            .and_then(|()| parse::ipv4(packet.bytes()));
        match done {
            Ok(facts) => {
                if let Some(stats) = self.output.stats(job.packet.port) {
                    stats.encapsulated.add(1);
                }
                Some(Job { facts, origin: Origin::Own, passes: job.passes + 1, ..job })
            }
            Err(reason) => {
                self.output.drop(job.packet, reason);
                None
            }
        }
    }
}
