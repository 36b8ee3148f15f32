//! The third stage: does to a packet what its class says, until it has a verdict.
//!
//! A packet is looked at again after it entered or left a tunnel: a care-of
//! address may be an address of this box, a decapsulated packet may be for another
//! node that is away. That is a queue of jobs, not a recursion, and each packet
//! has a bounded number of passes.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use homeport_wire::{EtherType, EthernetHeader, Ipv4Header, MacAddress, PortId, TenantId};
use zerocopy::{FromBytes, IntoBytes};

use crate::adjacency::{NextHop, Station, put_link_header};
use crate::allowance::Allowances;
use crate::broadcast::MAX_LISTENERS;
use crate::classify::{self, ArpClass, Bound, Class, Origin, Tables, classify, classify_arp};
use crate::config::DataplaneConfig;
use crate::fast::FastPath;
use crate::hold::Hold;
use crate::icmp_error::{IcmpError, TokenBucket};
use crate::napt::InsideHost;
use crate::output::Output;
use crate::packet::{Burst, Packet};
use crate::parse::{self, Frame, Ipv4Facts};
use crate::reassembly::Reassembly;
use crate::registration::RegistrationGate;
use crate::steering::Steering;
use crate::surge::Surge;
use crate::table::binding::MAX_TUNNELS;
use crate::table::route::RouteEntry;
use crate::table::visitor::{Found, VisitorEntry};
use crate::trace::{Code, Step};
use crate::tunnel_mtu::TunnelMtuCache;
use crate::verdict::{DropReason, PuntReason, Verdict};
use crate::{arp, fragment, icmp_error};

mod fragments;
mod nat;
mod probe;
mod signalling;
mod steer;
mod tunnel;
mod tunnel_error;

use nat::{Nat, inside_host};
use tunnel::Entrance;

/// How often one packet may enter or leave a tunnel here.
const MAX_PASSES: u8 = 8;

/// How many packets may wait for their next pass: as many as one packet makes (a
/// copy for each listener and each of its bindings, fragments, an ICMP error).
pub(crate) const MAX_JOBS: usize = MAX_LISTENERS as usize * MAX_TUNNELS;

/// How many packets with a changed port are shown to the control core in a second: an
/// event for people, which more of them would not make clearer.
const REBOUNDS_PER_SECOND: u32 = 10;

/// An IPv4 packet on its way, its link header taken off.
struct Job {
    packet: Packet,
    facts: Ipv4Facts,
    origin: Origin,
    passes: u8,
    /// The route of its destination, if it was asked for already.
    route: Option<RouteEntry>,
}

/// The stage and what it remembers.
pub(crate) struct Forwarder {
    pub(crate) output: Output,
    pub(crate) hold: Hold,
    pub(crate) reassembly: Reassembly,
    pub(crate) now: Instant,
    pub(crate) fast: FastPath,
    jobs: VecDeque<Job>,
    pieces: Burst,
    pub(crate) identification: u16,
    errors: TokenBucket,
    pub(crate) mtus: Arc<TunnelMtuCache>,
    /// How often the control core is told of a NAT that changed a port.
    rebounds: TokenBucket,
    allowances: Allowances,
    pub(crate) registrations: RegistrationGate,
    pub(crate) surge: Surge,
    nat: Nat,
    /// What belongs to which worker.
    pub(crate) steering: Arc<Steering>,
}

impl Forwarder {
    /// For the worker that steers so.
    pub(crate) fn new(
        output: Output,
        config: &DataplaneConfig,
        mtus: Arc<TunnelMtuCache>,
        steering: Steering,
    ) -> Self {
        // There are no more workers than CPUs.
        let (worker, steering) = (steering.worker as u32, Arc::new(steering));
        let workers = u32::try_from(config.cores.len()).unwrap_or(u32::MAX).max(1);
        let errors_per_second = config.icmp_errors_per_second.div_ceil(workers);
        let now = Instant::now();
        Forwarder {
            output,
            hold: Hold::new(),
            reassembly: Reassembly::new(config.hash_seed),
            now,
            fast: FastPath::new(config.fast_path),
            jobs: VecDeque::with_capacity(MAX_JOBS),
            pieces: Burst::new(),
            // Far from the other workers': one tunnel's fragments may come from all.
            identification: ((u64::from(worker) << 16) / u64::from(workers)) as u16,
            errors: TokenBucket::new(errors_per_second, (errors_per_second / 10).max(10)),
            mtus,
            rebounds: TokenBucket::new(REBOUNDS_PER_SECOND, REBOUNDS_PER_SECOND),
            allowances: Allowances::new(config.hash_seed),
            registrations: RegistrationGate::new(config.registrations, config.hash_seed, now),
            surge: Surge::new(config.fast_path),
            nat: Nat::new(workers, config, &steering),
            steering,
        }
    }

    /// A frame that a port received, as the first stage saw it. `packet.port` is
    /// the port, `packet.tenant` its tenant.
    pub(crate) fn receive(
        &mut self,
        tables: &Tables,
        mut packet: Packet,
        ethernet: EthernetHeader,
        frame: Frame,
    ) {
        let port = packet.port;
        let Some(mac) = self.output.outlet(port).map(|outlet| outlet.mac) else {
            return self.output.drop(packet, DropReason::PortDown);
        };
        // The port hears everything.
        if !ethernet.destination.is_multicast() && ethernet.destination != mac {
            let step = || Step::for_station(ethernet.destination, port);
            self.output.trace.step(&packet, step);
            return self.output.drop(packet, DropReason::NotForUs);
        }
        match frame {
            Frame::Arp(request) => {
                let verdict = match classify_arp(&request, port, packet.tenant, tables) {
                    ArpClass::Answer if arp::answer(&mut packet, &request, mac) => {
                        let target = request.target_address();
                        let step = || Step::next_hop(Code::ArpAnswered, target, port);
                        self.output.trace.step(&packet, step);
                        Verdict::Transmit(port)
                    }
                    _ => {
                        self.output.trace.step(&packet, || Step::of(Code::ArpToKernel));
                        Verdict::ToKernel
                    }
                };
                self.output.finish(packet, verdict);
            }
            Frame::Ipv4(facts) => {
                if !packet.strip(EthernetHeader::LEN) {
                    return self.output.drop(packet, DropReason::MalformedEthernet);
                }
                packet.truncate(usize::from(facts.total_len));
                packet.station = ethernet.source;
                let origin = Origin::Link { port, ethernet };
                self.run(tables, packet, facts, origin);
            }
            Frame::Other => {
                self.output.trace.step(&packet, || Step::of(Code::NotIpv4));
                self.output.finish(packet, Verdict::ToKernel);
            }
        }
    }

    /// A frame that the kernel sent by the twin of `packet.port`: it leaves as it
    /// is, unless it is for a node that only a tunnel reaches.
    pub(crate) fn receive_from_kernel(&mut self, tables: &Tables, mut packet: Packet) {
        let port = packet.port;
        self.output.trace.begin(&packet, true, Some(Step::of(Code::FromKernel)));
        match parse::frame(packet.bytes()) {
            // The kernel may believe that the node is on its home link.
            Ok((_, Frame::Arp(request)))
                if classify_arp(&request, port, packet.tenant, tables) == ArpClass::Answer =>
            {
                let mac = self.output.outlet(port).map(|outlet| outlet.mac);
                let answered = mac.is_some_and(|mac| arp::answer(&mut packet, &request, mac));
                let verdict = if answered { Verdict::ToKernel } else { Verdict::Transmit(port) };
                self.output.finish(packet, verdict);
            }
            Ok((_, Frame::Ipv4(facts)))
                if is_for_a_mobile_node(&facts, packet.tenant, tables)
                    && packet.strip(EthernetHeader::LEN) =>
            {
                packet.truncate(usize::from(facts.total_len));
                self.run(tables, packet, facts, Origin::Own);
            }
            // What the kernel builds is the kernel's business, whatever it is.
            _ => self.output.finish(packet, Verdict::Transmit(port)),
        }
    }

    /// An IPv4 packet of the control core.
    pub(crate) fn inject(&mut self, tables: &Tables, mut packet: Packet) {
        match parse::ipv4(packet.bytes()) {
            Ok(facts) => {
                packet.truncate(usize::from(facts.total_len));
                self.run(tables, packet, facts, Origin::Own);
            }
            Err(_) => self.output.drop(packet, DropReason::InjectMalformed),
        }
    }

    /// Packets whose next hop is known now, or that waited in vain.
    pub(crate) fn release_held(&mut self, tables: &Tables) {
        let now = self.now;
        let lookup = |hop: NextHop| tables.neighbor(hop.port, hop.address);
        while let Some(released) = self.hold.release(now, lookup) {
            if let Some(stats) = self.output.stats(released.packet.port) {
                stats.held.sub(1);
            }
            let (packet, NextHop { port, address }) = (released.packet, released.next_hop);
            self.output.trace.resume(&packet);
            match released.mac {
                Some(mac) => {
                    self.output.trace.step(&packet, || Step::neighbor(address, port, mac));
                    self.link(packet, port, mac);
                }
                None => {
                    let step = || Step::next_hop(Code::NoNeighbor, address, port);
                    self.output.trace.step(&packet, step);
                    if released.forwarded {
                        self.report(&packet, IcmpError::HostUnreachable, None);
                    }
                    self.output.drop(packet, DropReason::NoNeighbor);
                    self.work_off(tables);
                }
            }
        }
        let output = &mut self.output;
        self.hold.ask(now, |next_hop| output.ask(next_hop));
    }

    /// Takes one packet, and all that comes of it, to its end.
    fn run(&mut self, tables: &Tables, packet: Packet, facts: Ipv4Facts, origin: Origin) {
        self.step(tables, Job { packet, facts, origin, passes: 0, route: None });
        self.work_off(tables);
    }

    fn work_off(&mut self, tables: &Tables) {
        while let Some(job) = self.jobs.pop_front() {
            self.step(tables, job);
        }
    }

    /// Puts a packet back for another pass.
    fn again(&mut self, job: Job) {
        if self.jobs.len() < MAX_JOBS {
            self.jobs.push_back(job);
        } else {
            self.output.drop(job.packet, DropReason::NoBuffer);
        }
    }

    fn step(&mut self, tables: &Tables, mut job: Job) {
        let tenant = job.packet.tenant;
        if let Some(visitor) = told_of_its_packet(&job, tables) {
            self.output.trace.step(&job.packet, || Step::visitor(Code::ToVisitor, visitor));
            return self.deliver(tables, job, visitor);
        }
        let class = classify(&job.facts, job.packet.bytes(), &job.origin, tenant, tables);
        self.output.trace.step(&job.packet, || Step::class(&class, job.facts.destination));
        if may_be_translated(&class) {
            match self.translate_in(tables, job) {
                Some(untouched) => job = untouched,
                None => return,
            }
        }
        match class {
            Class::Drop(reason) => self.output.drop(job.packet, reason),
            Class::Punt(PuntReason::Registration, tenant) => {
                job.packet.tenant = tenant;
                match self.pass_gate(tables, &job) {
                    Ok(reason) => self.local(job, Verdict::Punt(reason)),
                    Err(reason) => self.output.drop(job.packet, reason),
                }
            }
            Class::Punt(reason, tenant) => {
                job.packet.tenant = tenant;
                self.local(job, Verdict::Punt(reason));
            }
            Class::ToKernel => self.local(job, Verdict::ToKernel),
            Class::Broadcast => self.broadcast(tables, job),
            Class::Decapsulate(local) => self.decapsulate(tables, job, local),
            Class::Reassemble(local) => self.reassemble(tables, job, local),
            Class::TunnelError(local) => self.tunnel_error(tables, job, local),
            Class::ReverseTunnel(visitor) => {
                if let Some(job) = self.hop(job) {
                    self.encapsulate(tables, job, Entrance::to_home_agent(visitor));
                }
            }
            Class::Tunnel(bound) => self.tunnel_to_node(tables, job, &bound),
            Class::Deliver(visitor) => self.deliver(tables, job, visitor),
            Class::Translate(visitor, napt) => {
                let host = inside_host(&job, Some(visitor));
                self.forward(tables, job, Some((napt, host)));
            }
            Class::Forward => self.forward(tables, job, None),
        }
    }

    /// Ends a packet on this box, under a link header.
    fn local(&mut self, mut job: Job, verdict: Verdict) {
        let header = match job.origin {
            Origin::Link { ethernet, .. } => ethernet,
            // Out of a tunnel or from ourselves: as if the port had sent it.
            Origin::Tunnel | Origin::Own => {
                let outlet = self.output.outlet(job.packet.port);
                let mac = outlet.map_or(MacAddress::UNSPECIFIED, |outlet| outlet.mac);
                EthernetHeader::new(mac, mac, EtherType::IPV4)
            }
        };
        let mtu = self.output.outlet(job.packet.port).map_or(u16::MAX, |outlet| outlet.mtu);
        if verdict == Verdict::ToKernel && job.facts.total_len > mtu {
            return self.local_pieces(job.packet, header, mtu);
        }
        if job.packet.prepend(header.as_bytes()) {
            self.output.finish(job.packet, verdict);
        } else {
            self.output.drop(job.packet, DropReason::NoHeadroom);
        }
    }

    /// To the kernel what was put together here and is too long for a twin: cut
    /// again, whatever its sender wants, as it is where it goes.
    fn local_pieces(&mut self, packet: Packet, header: EthernetHeader, mtu: u16) {
        let Some(mut pieces) = self.fragments(packet, mtu) else { return };
        for mut packet in pieces.drain() {
            if packet.prepend(header.as_bytes()) {
                self.output.finish(packet, Verdict::ToKernel);
            } else {
                self.output.drop(packet, DropReason::NoHeadroom);
            }
        }
        self.pieces = pieces;
    }

    /// A second packet, made here; `None` when there is no buffer: then it was
    /// never made.
    fn copy(&mut self, packet: &Packet) -> Option<Packet> {
        let copy = self.output.pool.copy(packet)?;
        if let Some(stats) = self.output.stats(copy.port) {
            stats.originated.add(1);
        }
        self.output.trace.fork(packet, &copy, Step::of(Code::Copied));
        Some(copy)
    }

    /// To a visitor, straight to its station: no ARP (RFC 5944 §3.7.3.1).
    fn deliver(&mut self, tables: &Tables, job: Job, visitor: &VisitorEntry) {
        if let Some(job) = self.hop(job) {
            self.emit(tables, job, visitor.port, Station::Known(visitor.mac));
        }
    }

    /// By its destination; `behind` the NAPT with this number as this host, or
    /// behind the one that is between its ports, if any is.
    fn forward(&mut self, tables: &Tables, job: Job, behind: Option<(u16, InsideHost)>) {
        let mut destination = job.facts.destination;
        let route = job.route.or_else(|| tables.routes.lookup(job.packet.tenant, destination));
        self.note_route(tables, &job.packet, destination, route);
        let route = match route {
            Some(RouteEntry::MobileRouter { home_address }) => {
                if let Some(entry) = tables.binding(job.packet.tenant, home_address) {
                    return self.tunnel_to_mobile_network(
                        tables,
                        job,
                        &Bound { home_address, entry },
                    );
                }
                // The router is at home: the next hop.
                destination = home_address;
                let route = tables.routes.lookup(job.packet.tenant, home_address);
                self.note_route(tables, &job.packet, home_address, route);
                route
            }
            route => route,
        };
        let Some(RouteEntry::Via { port, gateway }) = route else {
            if !job.origin.is_link_group() {
                self.report(&job.packet, IcmpError::HostUnreachable, None);
            }
            return self.output.drop(job.packet, DropReason::NoRoute);
        };
        let job = match behind {
            Some((napt, host)) => self.translate_by(usize::from(napt), &host, job),
            None => self.translate_out(tables, job, port),
        };
        let Some(job) = job else { return };
        if let Some(job) = self.hop(job) {
            self.emit(tables, job, port, Station::NextHop(gateway.unwrap_or(destination)));
        }
    }

    /// Notes what the routes said.
    fn note_route(
        &mut self,
        tables: &Tables,
        packet: &Packet,
        to: Ipv4Addr,
        route: Option<RouteEntry>,
    ) {
        self.output.trace.step(packet, || {
            let found = tables.routes.find(packet.tenant, to);
            Step::route(to, found.map(|found| tables.routes.prefix_len(&found)), route)
        });
    }

    /// To what is behind a mobile router that is away (RFC 5177 §7).
    fn tunnel_to_mobile_network(&mut self, tables: &Tables, job: Job, bound: &Bound<'_>) {
        let is_own = matches!(job.origin, Origin::Own);
        if classify::loops(&job.facts, job.packet.bytes(), is_own, bound.entry) {
            return self.output.drop(job.packet, DropReason::TunnelLoop);
        }
        self.tunnel_to_node(tables, job, bound);
    }

    /// Costs a forwarded packet one of its TTL (RFC 1812 §5.3.1); `None` when that
    /// was the last.
    fn hop(&mut self, mut job: Job) -> Option<Job> {
        if !job.origin.is_forwarded() {
            return Some(job);
        }
        let (mut ttl, mut alive) = (0, false);
        if let Ok((header, _)) = Ipv4Header::mut_from_prefix(job.packet.bytes_mut()) {
            ttl = header.ttl;
            alive = header.decrement_ttl().is_some();
        }
        self.output.trace.step(&job.packet, || Step::hop(ttl, alive));
        if alive {
            return Some(job);
        }
        self.report(&job.packet, IcmpError::TimeExceeded, None);
        self.output.drop(job.packet, DropReason::TtlExpired);
        None
    }

    /// Out of a port, cut if it is too long.
    fn emit(&mut self, tables: &Tables, job: Job, port: PortId, station: Station) {
        let Some(mtu) = self.output.outlet(port).map(|outlet| outlet.mtu) else {
            return self.output.drop(job.packet, DropReason::PortDown);
        };
        let forwarded = job.origin.is_forwarded();
        if job.facts.total_len <= mtu {
            return self.adjacent(tables, job.packet, port, station, forwarded);
        }
        let Some(mut pieces) = self.cut(job, mtu, None) else { return };
        for packet in pieces.drain() {
            self.adjacent(tables, packet, port, station, forwarded);
        }
        self.pieces = pieces;
    }

    /// Cuts a packet that is longer than `mtu`. `None`: it is dropped, and its
    /// sender told if it has DF (RFC 1191 §4). The burst is to be put back.
    fn cut(&mut self, job: Job, mtu: u16, tunnel_end: Option<Ipv4Addr>) -> Option<Burst> {
        let (len, may_be_cut) = (job.facts.total_len, !job.facts.dont_fragment);
        self.output.trace.step(&job.packet, || Step::too_long(len, mtu, may_be_cut));
        if job.facts.dont_fragment {
            self.report(&job.packet, IcmpError::FragmentationNeeded { mtu }, tunnel_end);
            self.output.drop(job.packet, DropReason::TooBig);
            return None;
        }
        self.fragments(job.packet, mtu)
    }

    /// Cuts a packet. `None`: it cannot be. The burst is to be put back.
    fn fragments(&mut self, packet: Packet, mtu: u16) -> Option<Burst> {
        let (port, buffer) = (packet.port, packet.buffer());
        let mut pieces = std::mem::take(&mut self.pieces);
        match fragment::fragment(packet, mtu, &mut self.output.pool, &mut pieces) {
            Ok(()) => {
                if let Some(stats) = self.output.stats(port) {
                    stats.originated.add(pieces.len().saturating_sub(1) as u64);
                }
                let step = Step::number(Code::Cut, u32::from(mtu));
                self.output.trace.cut(buffer, &pieces, step);
                Some(pieces)
            }
            Err((packet, reason)) => {
                self.output.drop(packet, reason);
                None
            }
        }
    }

    /// To a station on a link, at once or when its link-layer address is known.
    fn adjacent(
        &mut self,
        tables: &Tables,
        packet: Packet,
        port: PortId,
        station: Station,
        forwarded: bool,
    ) {
        let address = match station {
            Station::Known(mac) => return self.link(packet, port, mac),
            Station::NextHop(address) => address,
        };
        if let Some(mac) = tables.neighbor(port, address) {
            self.output.trace.step(&packet, || Step::neighbor(address, port, mac));
            return self.link(packet, port, mac);
        }
        self.output.trace.step(&packet, || Step::next_hop(Code::NoNeighbor, address, port));
        let (next_hop, counted_at) = (NextHop { port, address }, packet.port);
        if self.output.trace.is_probe() {
            return self.foresee_hold(packet, next_hop);
        }
        let buffer = packet.buffer();
        match self.hold.push(packet, next_hop, forwarded, self.now) {
            Ok(ask) => {
                if let Some(stats) = self.output.stats(counted_at) {
                    stats.held.add(1);
                }
                self.output.trace.held(buffer, || Step::next_hop(Code::Held, address, port));
                if ask {
                    self.output.ask(next_hop);
                }
            }
            Err(packet) => self.output.drop(packet, DropReason::NeighborQueueFull),
        }
    }

    fn link(&mut self, mut packet: Packet, port: PortId, to: MacAddress) {
        let Some(from) = self.output.outlet(port).map(|outlet| outlet.mac) else {
            return self.output.drop(packet, DropReason::PortDown);
        };
        if put_link_header(&mut packet, to, from) {
            self.output.finish(packet, Verdict::Transmit(port));
        } else {
            self.output.drop(packet, DropReason::NoHeadroom);
        }
    }

    /// Tells the sender of `culprit`, from the address of the link that it came in
    /// on, or else from our end of the tunnel that it would have entered.
    fn report(&mut self, culprit: &Packet, error: IcmpError, tunnel_end: Option<Ipv4Addr>) {
        let shared = self.output.shared.get(usize::from(culprit.port.0));
        let Some(source) = shared.and_then(|port| port.address()).or(tunnel_end) else {
            return self.output.trace.step(culprit, || Step::told(error, None));
        };
        let Some(mut packet) = self.output.pool.take() else { return };
        (packet.port, packet.tenant) = (culprit.port, culprit.tenant);
        packet.station = culprit.station;
        let written =
            icmp_error::write(&mut packet, culprit.bytes(), source, error) && self.may_tell();
        let from = Some(source).filter(|_| written);
        self.output.trace.step(culprit, || Step::told(error, from));
        match parse::ipv4(packet.bytes()) {
            // What becomes of it is another question.
            Ok(_) if self.output.trace.is_probe() => self.output.pool.give(packet),
            Ok(facts) if written => {
                self.output.trace.fork(culprit, &packet, Step::of(Code::MadeError));
                if let Some(stats) = self.output.stats(packet.port) {
                    stats.originated.add(1);
                }
                self.again(Job { packet, facts, origin: Origin::Own, passes: 0, route: None });
            }
            _ => self.output.pool.give(packet),
        }
    }
}

/// The visitor that an ICMP error of ours is for: where addresses overlap, only the
/// station that sent the packet tells.
fn told_of_its_packet<'t>(job: &Job, tables: &'t Tables) -> Option<&'t VisitorEntry> {
    let Job { packet, facts, origin, .. } = job;
    if !matches!(origin, Origin::Own) || facts.icmp_type.is_none() || !packet.station.is_unicast() {
        return None;
    }
    match tables.visitors.at_station(packet.tenant, facts.destination, packet.station) {
        Found::Visitor(visitor) => Some(visitor),
        Found::Other(_) | Found::Nobody => None,
    }
}

/// Whether a packet to an address of ours may be for an inside host of a NAPT: what
/// no agent claims.
const fn may_be_translated(class: &Class<'_>) -> bool {
    matches!(
        class,
        Class::ToKernel | Class::TunnelError(_) | Class::Drop(DropReason::OverlappingVisitor)
    )
}

/// Whether the kernel's packet is for a node that the kernel's routes do not lead
/// to: one that is away from home, or a visitor. Signalling is never tunnelled.
fn is_for_a_mobile_node(facts: &Ipv4Facts, tenant: TenantId, tables: &Tables) -> bool {
    !facts.is_signalling()
        && (tables.bound(tenant, facts.destination).is_some()
            || tables.visitors.alone_at(tenant, facts.destination).is_some())
}
