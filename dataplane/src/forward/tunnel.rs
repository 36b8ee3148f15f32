//! Tunnels: what leaves one here, and what enters one.

use std::net::Ipv4Addr;

use homeport_wire::TenantId;

use super::{Forwarder, Job, MAX_PASSES};
use crate::allowance::AllowanceKey;
use crate::classify::{Bound, Origin, ReverseEnd, Tables, TunnelClass, classify_tunnelled};
use crate::encap::{MAX_NESTING, Tunnel};
use crate::icmp_error::MIN_MTU;
use crate::table::binding::{Encapsulation, EntryFlags, TunnelEnd, TunnelFlags};
use crate::table::local::LocalEntry;
use crate::table::route::RouteEntry;
use crate::table::visitor::VisitorEntry;
use crate::trace::{Code, Step};
use crate::verdict::{DropReason, PuntReason, Verdict};
use crate::{decap, encap, keepalive, mss, parse};

/// How a packet is put into a tunnel to a node inside the tunnel to its foreign
/// agent: every node can undo it.
const INNERMOST: Encapsulation = Encapsulation::IpInIp;

/// How a packet enters a tunnel of ours.
#[derive(Clone, Copy)]
pub(super) struct Entrance {
    tunnel: Tunnel,
    /// The node to whose home address a packet is put into a tunnel first: its
    /// foreign agent could not deliver it otherwise.
    through: Option<Ipv4Addr>,
    /// Whether TCP connections are told of the tunnel's MTU.
    clamp_mss: bool,
    /// For an address that is not proven: the node that is reached there.
    unproven: Option<Ipv4Addr>,
}

impl Entrance {
    fn to_node(bound: &Bound<'_>, end: &TunnelEnd) -> Self {
        let tunnel = Tunnel {
            source: bound.entry.home_agent,
            destination: end.care_of_address(),
            encapsulation: end.encapsulation(),
            set_dont_fragment: bound.entry.flags.contains(EntryFlags::SET_DF),
        };
        let unproven = end.is(TunnelFlags::UNPROVEN).then_some(bound.home_address);
        let clamp_mss = bound.entry.flags.contains(EntryFlags::CLAMP_MSS);
        Entrance { tunnel, through: None, clamp_mss, unproven }
    }

    pub(super) const fn to_home_agent(visitor: &VisitorEntry) -> Self {
        let tunnel = Tunnel {
            source: visitor.care_of_address,
            destination: visitor.home_agent,
            encapsulation: visitor.encapsulation,
            set_dont_fragment: visitor.flags.contains(EntryFlags::SET_DF),
        };
        let clamp_mss = visitor.flags.contains(EntryFlags::CLAMP_MSS);
        Entrance { tunnel, through: None, clamp_mss, unproven: None }
    }

    /// The tunnel in which a mobile router or a listening node gets what its foreign
    /// agent could not deliver: to its home address, inside the tunnel `self`.
    fn inside(&self) -> Option<Self> {
        let destination = self.through?;
        let tunnel = Tunnel { destination, encapsulation: INNERMOST, ..self.tunnel };
        Some(Entrance { tunnel, through: None, unproven: None, ..*self })
    }

    /// Bytes that all its headers add to a packet.
    fn overhead(&self, is_fragment: bool) -> u16 {
        let encapsulation = self.tunnel.encapsulation;
        let len = match self.through {
            Some(_) => encap::overhead(encapsulation) + encap::overhead(INNERMOST),
            None => encap::overhead(encap::carrier(encapsulation, is_fragment)),
        };
        // Two headers at most.
        len as u16
    }

    /// Whose allowance pays for what enters here.
    fn allowance(&self, tenant: TenantId) -> Option<AllowanceKey> {
        let Tunnel { destination, encapsulation, .. } = self.tunnel;
        let home_address = self.unproven?;
        Some(allowance_key(tenant, home_address, destination, encapsulation))
    }
}

/// Bytes of an IPv4 header in front of its TTL.
const TTL_AT: usize = 8;

/// What is noted of a packet that may come out of its tunnel.
fn step_of(class: &TunnelClass<'_>, job: &Job) -> Step {
    match class {
        TunnelClass::Visitor(visitor) => Step::visitor(Code::ToVisitor, visitor),
        TunnelClass::ReverseTunnel(visitor) => Step::visitor(Code::FromVisitor, visitor),
        TunnelClass::Home(Some(from)) | TunnelClass::Keepalive(from) | TunnelClass::Proof(from) => {
            Step::bound(Code::FromBinding, &from.bound, from.end)
        }
        TunnelClass::Home(None) | TunnelClass::FirstKeepalive | TunnelClass::Rebound => {
            Step::address(Code::FromTunnel, job.facts.source)
        }
    }
}

fn allowance_key(
    tenant: TenantId,
    home_address: Ipv4Addr,
    care_of_address: Ipv4Addr,
    encapsulation: Encapsulation,
) -> AllowanceKey {
    let port = match encapsulation {
        Encapsulation::Udp { peer_port } | Encapsulation::PlainUdp { peer_port } => peer_port,
        Encapsulation::IpInIp | Encapsulation::Minimal | Encapsulation::Gre { .. } => 0,
    };
    AllowanceKey { tenant, home_address, care_of_address, port }
}

impl Forwarder {
    /// The end of a tunnel.
    pub(super) fn decapsulate(&mut self, tables: &Tables, mut job: Job, local: &LocalEntry) {
        let payload = job.packet.bytes().get(usize::from(job.facts.header_len)..);
        let opened = match decap::open(&job.facts, payload.unwrap_or_default()) {
            Ok((opened, _)) => opened,
            Err(reason) => return self.output.drop(job.packet, reason),
        };
        let too_deep =
            opened.inner.may_be_tunnelled() && encap::nesting(job.packet.bytes()) > MAX_NESTING;
        if too_deep || job.passes >= MAX_PASSES {
            return self.output.drop(job.packet, DropReason::NestedTunnel);
        }
        let class = match classify_tunnelled(&job.facts, &opened, &job.origin, local, tables) {
            Ok(class) => class,
            Err(reason) => return self.output.drop(job.packet, reason),
        };
        job.packet.tenant = local.tenant;
        self.output.trace.step(&job.packet, || step_of(&class, &job));
        match class {
            TunnelClass::Home(Some(from))
            | TunnelClass::Keepalive(from)
            | TunnelClass::Proof(from) => self.credit(&job, &from),
            _ => {}
        }
        match class {
            TunnelClass::FirstKeepalive | TunnelClass::Proof(_) => {
                return self.local(job, Verdict::Punt(PuntReason::TunnelKeepalive));
            }
            TunnelClass::Rebound if self.may_tell_of_rebound() => {
                return self.local(job, Verdict::Punt(PuntReason::TunnelRebound));
            }
            TunnelClass::Rebound => {
                return self.output.drop(job.packet, DropReason::TunnelPortMismatch);
            }
            _ => {}
        }
        if let Err(reason) = decap::decapsulate(&mut job.packet, &job.facts, &opened) {
            return self.output.drop(job.packet, reason);
        }
        if let Some(stats) = self.output.stats(job.packet.port) {
            stats.decapsulated.add(1);
            stats.reserved_bits.add(u64::from(opened.reserved_bits));
        }
        let ends = (job.facts.source, job.facts.destination);
        let step = || Step::tunnel(Code::Decapsulated, ends, opened.encapsulation, 0);
        self.output.trace.step(&job.packet, step);
        (job.facts, job.origin, job.route) = (opened.inner, Origin::Tunnel, None);
        job.passes += 1;
        match class {
            TunnelClass::Visitor(visitor) => {
                self.clamp_leaving(tables, &mut job, Entrance::to_home_agent(visitor));
                self.deliver(tables, job, visitor);
            }
            TunnelClass::ReverseTunnel(visitor) => {
                // What is for a group is carried to the home network with its TTL
                // (RFC 3024 §5.4.2); the rest is forwarded.
                let to = job.facts.destination;
                let job =
                    if to.is_multicast() || to.is_broadcast() { Some(job) } else { self.hop(job) };
                if let Some(job) = job {
                    self.encapsulate(tables, job, Entrance::to_home_agent(visitor));
                }
            }
            TunnelClass::Keepalive(from) => self.answer(tables, job, &from),
            TunnelClass::Home(Some(from)) => {
                let back = Entrance::to_node(&from.bound, from.end);
                self.clamp_leaving(tables, &mut job, back);
                self.again(job);
            }
            _ => self.again(job),
        }
    }

    /// What came from an address that is not proven lets more be sent to it.
    fn credit(&mut self, job: &Job, from: &ReverseEnd<'_>) {
        if from.end.is(TunnelFlags::UNPROVEN) {
            let ReverseEnd { bound, end } = from;
            let key = allowance_key(
                job.packet.tenant,
                bound.home_address,
                end.care_of_address(),
                end.encapsulation(),
            );
            self.may_send_more(key, job.facts.total_len);
        }
    }

    /// A keepalive, back through the tunnel that it came out of (RFC 3519 §4.9).
    fn answer(&mut self, tables: &Tables, mut job: Job, from: &ReverseEnd<'_>) {
        let answered =
            keepalive::answer(&mut job.packet).and_then(|()| parse::ipv4(job.packet.bytes()));
        match answered {
            Ok(facts) => {
                if let Some(stats) = self.output.stats(job.packet.port) {
                    stats.keepalives.add(1);
                }
                self.output.trace.step(&job.packet, || Step::of(Code::Keepalive));
                let job = Job { facts, origin: Origin::Own, ..job };
                self.encapsulate(tables, job, Entrance::to_node(&from.bound, from.end));
            }
            Err(reason) => self.output.drop(job.packet, reason),
        }
    }

    /// To a node that is away, by each of its tunnels.
    pub(super) fn tunnel_to_node(&mut self, tables: &Tables, job: Job, bound: &Bound<'_>) {
        let Some(job) = self.hop(job) else { return };
        let Some((first, others)) = bound.entry.tunnels().split_first() else {
            return self.output.drop(job.packet, DropReason::NoBinding);
        };
        for end in others {
            let Some(packet) = self.copy(&job.packet) else { continue };
            self.tunnel_by(tables, Job { packet, ..job }, bound, end);
        }
        self.tunnel_by(tables, job, bound, first);
    }

    /// By one tunnel of a node, or of the router that the destination is behind.
    fn tunnel_by(&mut self, tables: &Tables, job: Job, bound: &Bound<'_>, end: &TunnelEnd) {
        self.output.trace.step(&job.packet, || Step::bound(Code::Binding, bound, end));
        let entrance = Entrance::to_node(bound, end);
        let is_behind = job.facts.destination != bound.home_address;
        // A foreign agent would not know whom it is for: it is put into a packet for
        // the router first (RFC 5177 §7).
        let through = is_behind && !end.is(TunnelFlags::CO_LOCATED);
        let through = through.then_some(bound.home_address);
        self.encapsulate(tables, job, Entrance { through, ..entrance });
    }

    /// To the kernel, and a copy to each node that is away and wants it. It is not
    /// forwarded, but as if the node were on its link: the TTL stays.
    pub(super) fn broadcast(&mut self, tables: &Tables, job: Job) {
        for (key, entry) in tables.listeners(job.packet.port) {
            let bound = Bound { home_address: key.home_address, entry };
            let wants = |end: &&TunnelEnd| {
                end.is(TunnelFlags::BROADCAST) && end.care_of_address() != job.facts.source
            };
            for end in entry.tunnels().iter().filter(wants) {
                let Some(packet) = self.copy(&job.packet) else { continue };
                let copy = Job { packet, origin: Origin::Own, ..job };
                self.output.trace.step(&copy.packet, || Step::bound(Code::Binding, &bound, end));
                let entrance = Entrance::to_node(&bound, end);
                // A foreign agent would not know whom a broadcast is for either
                // (RFC 5944 §4.3).
                let through = !end.is(TunnelFlags::CO_LOCATED);
                let through = through.then_some(key.home_address);
                self.encapsulate(tables, copy, Entrance { through, ..entrance });
            }
        }
        self.local(job, Verdict::ToKernel);
    }

    /// Into a tunnel: whole, or in fragments that fit it.
    pub(super) fn encapsulate(&mut self, tables: &Tables, mut job: Job, entrance: Entrance) {
        let too_deep = job.facts.may_be_tunnelled()
            && encap::nesting(job.packet.bytes()) + u8::from(entrance.through.is_some())
                >= MAX_NESTING;
        if too_deep || job.passes >= MAX_PASSES {
            return self.output.drop(job.packet, DropReason::NestedTunnel);
        }
        let tenant = job.packet.tenant;
        let (route, mtu) = self.tunnel_mtu(tables, tenant, entrance.tunnel.destination);
        job.route = route;
        let room = |is_fragment| mtu.saturating_sub(entrance.overhead(is_fragment));
        if entrance.clamp_mss && mss::is_offer(job.packet.bytes(), &job.facts) {
            mss::clamp(job.packet.bytes_mut(), &job.facts, room(false));
            let step = || Step::number(Code::MssClamped, u32::from(room(false)));
            self.output.trace.step(&job.packet, step);
        }
        if job.facts.total_len <= room(job.facts.fragment) {
            return self.enter(job, entrance);
        }
        let remote = entrance.tunnel.destination;
        self.output.trace.step(&job.packet, || Step::tunnel_mtu(remote, mtu));
        // Fragments are cut before the tunnel: its end need not put them together,
        // and a NAT on the way could not tell whose they are (RFC 3519 §4.8).
        let room = room(job.facts.fragment || !job.facts.dont_fragment).max(MIN_MTU);
        let Job { facts, origin, passes, route, .. } = job;
        let source = Some(entrance.tunnel.source);
        let Some(mut pieces) = self.cut(job, room, source) else { return };
        for packet in pieces.drain() {
            self.enter(Job { packet, facts, origin, passes, route }, entrance);
        }
        self.pieces = pieces;
    }

    /// The route to a tunnel's far end, and the longest outer packet that gets there:
    /// what the first link takes, or what a router behind it said (RFC 2003 §5.1).
    fn tunnel_mtu(
        &self,
        tables: &Tables,
        tenant: TenantId,
        remote: Ipv4Addr,
    ) -> (Option<RouteEntry>, u16) {
        let route = tables.routes.lookup(tenant, remote);
        let link = match route {
            Some(RouteEntry::Via { port, .. }) => self.output.outlet(port).map(|out| out.mtu),
            _ => None,
        };
        let known = if self.output.trace.is_probe() {
            self.mtus.limit(tenant, remote, self.now).unwrap_or(u16::MAX)
        } else {
            self.mtus.enter(tenant, remote, self.now)
        };
        (route, known.min(link.unwrap_or(u16::MAX)))
    }

    /// Lets the other side of a TCP connection know what the tunnel back has room
    /// for, when its offer leaves a tunnel.
    fn clamp_leaving(&mut self, tables: &Tables, job: &mut Job, back: Entrance) {
        if back.clamp_mss && mss::is_offer(job.packet.bytes(), &job.facts) {
            let (_, mtu) = self.tunnel_mtu(tables, job.packet.tenant, back.tunnel.destination);
            let room = mtu.saturating_sub(back.overhead(false));
            mss::clamp(job.packet.bytes_mut(), &job.facts, room);
            let step = || Step::number(Code::MssClamped, u32::from(room));
            self.output.trace.step(&job.packet, step);
        }
    }

    /// Puts the outer headers on and lets the outer packet have its pass.
    fn enter(&mut self, job: Job, entrance: Entrance) {
        let inside = match entrance.inside() {
            Some(inside) => self.wrap(job, inside),
            None => Some(job),
        };
        if let Some(job) = inside.and_then(|job| self.wrap(job, entrance)) {
            self.again(job);
        }
    }

    /// Puts the outer header on; `None` when the packet had to be dropped.
    fn wrap(&mut self, mut job: Job, entrance: Entrance) -> Option<Job> {
        let packet = &mut job.packet;
        let mut identification = self.identification;
        let done = encap::encapsulate(packet, &entrance.tunnel, &mut identification)
            .and_then(|()| parse::ipv4(packet.bytes()))
            .and_then(|facts| match entrance.allowance(packet.tenant) {
                Some(key) if !self.may_send(key, facts.total_len) => {
                    Err(DropReason::UnprovenAddress)
                }
                _ => Ok(facts),
            });
        if !self.output.trace.is_probe() {
            self.identification = identification;
        }
        match done {
            Ok(facts) => {
                if let Some(stats) = self.output.stats(job.packet.port) {
                    stats.encapsulated.add(1);
                }
                let Tunnel { source, destination, encapsulation, .. } = entrance.tunnel;
                self.output.trace.step(&job.packet, || {
                    let ttl = job.packet.bytes().get(TTL_AT).copied().unwrap_or_default();
                    let how = encap::carrier(encapsulation, job.facts.fragment);
                    Step::tunnel(Code::Encapsulated, (source, destination), how, ttl)
                });
                Some(Job { facts, origin: Origin::Own, passes: job.passes + 1, ..job })
            }
            Err(reason) => {
                self.output.drop(job.packet, reason);
                None
            }
        }
    }
}
