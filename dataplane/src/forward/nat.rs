//! Network address translation on the way between an inside and an outside port
//! (B-07). What enters or leaves a tunnel is never translated (S3-15): only what is
//! forwarded plainly from link to link.

use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::Arc;

use homeport_wire::{EthernetHeader, IpProtocol, Ipv4Header, PortId, TenantId};
use siphasher::sip::SipHasher13;
use zerocopy::{FromBytes, IntoBytes};

use super::{Forwarder, Job};
use crate::classify::{Origin, Tables, sender};
use crate::config::DataplaneConfig;
use crate::icmp_error::IcmpError;
use crate::napt::{
    Early, Endpoint, FragmentKey, InsideHost, Napt, NaptShared, Outcome, Owner, Tick,
};
use crate::packet::Packet;
use crate::parse::{self, Frame};
use crate::steering::Steering;
use crate::table::visitor::{Found, VisitorEntry};
use crate::trace::{Code, Step};
use crate::verdict::{DropReason, PuntReason};

/// The NAPTs of a worker, and the fragments that wait for them.
pub(super) struct Nat {
    pub(super) napts: Vec<Napt>,
    early: Early<Job>,
    owners: FragmentOwners,
}

impl Nat {
    /// For one of so many workers, which steers so.
    pub(super) fn new(workers: u32, config: &DataplaneConfig, steering: &Arc<Steering>) -> Self {
        // There are no more workers than CPUs.
        let worker = steering.worker as u32;
        let napt = |(number, napt): (usize, &crate::napt::NaptConfig)| {
            let max_sessions = napt.max_sessions.div_ceil(workers.max(1) as usize);
            let share = crate::napt::NaptConfig { max_sessions, ..napt.clone() };
            let napt = Napt::new(share, number as u16, config.hash_seed, (worker, workers));
            if steering.is_alone() {
                return napt;
            }
            let steering = Arc::clone(steering);
            napt.of_hosts(move |address| steering.of_host(address) == steering.worker)
        };
        Nat {
            napts: config.napts.iter().enumerate().map(napt).collect(),
            early: Early::new(),
            owners: FragmentOwners::new(config.hash_seed, workers),
        }
    }
}

/// To which other worker the fragments of a datagram go, by what they have in common:
/// what its first fragment said. A later datagram may take an entry's place.
struct FragmentOwners {
    seed: [u64; 2],
    /// None where there is one worker.
    places: Box<[Option<(FragmentKey, usize)>]>,
}

impl FragmentOwners {
    const PLACES: usize = 4096;

    fn new(seed: [u64; 2], workers: u32) -> Self {
        let places = if workers > 1 { Self::PLACES } else { 0 };
        FragmentOwners { seed, places: vec![None; places].into_boxed_slice() }
    }

    fn get(&self, key: &FragmentKey) -> Option<usize> {
        let (of, owner) = self.places.get(self.place(key)).copied().flatten()?;
        (of == *key).then_some(owner)
    }

    fn note(&mut self, key: FragmentKey, owner: usize) {
        let place = self.place(&key);
        if let Some(slot) = self.places.get_mut(place) {
            *slot = Some((key, owner));
        }
    }

    /// Keyed: an outsider chooses addresses and identifications.
    fn place(&self, key: &FragmentKey) -> usize {
        let [first, second] = self.seed;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        key.hash(&mut hasher);
        (hasher.finish() % Self::PLACES as u64) as usize
    }
}

impl Forwarder {
    /// What the control core may know of each NAPT.
    pub(crate) fn napts(&self) -> Vec<NaptShared> {
        self.nat.napts.iter().map(Napt::shared).collect()
    }

    /// Whether there is any NAPT.
    #[inline(always)]
    pub(crate) fn has_napts(&self) -> bool {
        !self.nat.napts.is_empty()
    }

    /// The NAPTs at the beginning of a burst, and the time.
    pub(crate) fn napts_now(&mut self) -> (&[Napt], Tick) {
        let mut tick = Tick::default();
        for napt in &mut self.nat.napts {
            tick = napt.tick(self.now);
        }
        (&self.nat.napts, tick)
    }

    /// The NAPT with this number.
    #[inline(always)]
    pub(crate) fn napt(&mut self, number: usize) -> Option<&mut Napt> {
        self.nat.napts.get_mut(number)
    }

    /// Sends a frame on that was translated for a host inside.
    pub(crate) fn forward_inward(&mut self, tables: &Tables, mut packet: Packet, tenant: TenantId) {
        let port = packet.port;
        match parse::frame(packet.bytes()) {
            Ok((ethernet, Frame::Ipv4(facts))) if packet.strip(EthernetHeader::LEN) => {
                packet.truncate(usize::from(facts.total_len));
                (packet.tenant, packet.station) = (tenant, ethernet.source);
                let origin = Origin::Link { port, ethernet };
                self.forward(tables, Job { packet, facts, origin, passes: 0, route: None }, None);
                self.work_off(tables);
            }
            _ => self.output.drop(packet, DropReason::MalformedIpv4),
        }
    }

    /// Whether what comes in by `inside` and leaves by `outside` is translated.
    #[inline(always)]
    pub(crate) fn translates(&self, inside: PortId, outside: PortId) -> bool {
        self.nat.napts.iter().any(|napt| {
            let config = napt.config();
            config.outside == outside && config.inside.contains(&inside)
        })
    }

    /// What a NAPT does from time to time, whether packets come or not.
    pub(crate) fn tend_napts(&mut self) {
        let Forwarder { nat, output, now, .. } = self;
        for napt in &mut nat.napts {
            napt.sweep(*now);
            let outside = napt.config().outside;
            napt.drain_log(|record| {
                let tenant = record.host().tenant;
                output.tell(outside, tenant, PuntReason::NatLog, record.as_bytes())
            });
        }
        while let Some(job) = self.nat.early.take_expired(self.now) {
            self.unhold(&job);
            self.output.trace.resume(&job.packet);
            self.output.drop(job.packet, DropReason::FragmentTimeout);
        }
    }

    /// A packet that is about to leave by `port`, translated if it came from the
    /// inside of a NAPT of which that is the outside. `None`: it goes no further.
    pub(super) fn translate_out(&mut self, tables: &Tables, job: Job, port: PortId) -> Option<Job> {
        match job.origin {
            Origin::Link { port: inside, .. } => {
                let number = self.nat.napts.iter().position(|napt| {
                    let config = napt.config();
                    config.outside == port && config.inside.contains(&inside)
                });
                let Some(number) = number else { return Some(job) };
                let host = inside_host(&job, visitor(tables, &job));
                self.translate_by(number, &host, job)
            }
            Origin::Own => Some(self.own_error(job, port)),
            Origin::Tunnel => Some(job),
        }
    }

    /// A packet of an inside host, translated by a NAPT, whatever the port that it
    /// will leave by. `None`: it goes no further.
    pub(super) fn translate_by(
        &mut self,
        number: usize,
        host: &InsideHost,
        mut job: Job,
    ) -> Option<Job> {
        let now = self.now;
        let Some(napt) = self.nat.napts.get_mut(number) else {
            // Never out with an address that must be hidden.
            self.output.drop(job.packet, DropReason::NatExhausted);
            return None;
        };
        if !self.steering.is_alone() {
            let address = Napt::inside_address(job.packet.bytes(), host);
            let owner = self.steering.of_host(address);
            if owner != self.steering.worker {
                self.hand_on(job, owner);
                return None;
            }
        }
        if expires_here(&job) {
            // Its sender is told about the packet that it sent.
            return self.hop(job);
        }
        if self.output.trace.is_probe() {
            return self.foresee_out(number, host, job);
        }
        let fragment = job.facts.fragment;
        let key = fragment.then(|| napt.first_fragment(job.packet.bytes(), Some(host))).flatten();
        let before = endpoint(&job.packet, Side::Source);
        let outcome = napt.outbound(job.packet.bytes_mut(), host, now);
        self.release_early(key);
        match outcome {
            Outcome::Translated(()) => {
                self.note_napt(number, &job.packet, Side::Source, before);
                Some(renamed(job))
            }
            Outcome::Unclaimed => Some(job),
            Outcome::Early(key) => {
                self.wait(number, key, job);
                None
            }
            Outcome::Refused(reason) => {
                self.refuse(job, reason);
                None
            }
        }
    }

    /// A packet to an address of ours: back to the inside, if a NAPT maps it.
    /// `Some`: it is for the box itself.
    pub(super) fn translate_in(&mut self, tables: &Tables, mut job: Job) -> Option<Job> {
        let destination = job.facts.destination;
        let number = self.nat.napts.iter().position(|napt| napt.is_external(destination));
        let Some(number) = number else { return Some(job) };
        let from = match job.origin {
            Origin::Link { port, .. } => Some(port),
            Origin::Own => None,
            Origin::Tunnel => return Some(job),
        };
        if !self.steering.is_alone() {
            job = self.lead_to_port_owner(number, job)?;
        }
        let now = self.now;
        let host = inside_host(&job, visitor(tables, &job));
        let napt = self.nat.napts.get_mut(number)?;
        // A visitor is inside, whatever its link is.
        let hairpin =
            host.station.is_some() || from.is_some_and(|port| napt.config().inside.contains(&port));
        if self.output.trace.is_probe() {
            return self.foresee_in(tables, number, Some(&host).filter(|_| hairpin), job);
        }
        let sender = Some(&host).filter(|_| hairpin);
        let fragment = job.facts.fragment;
        let key = fragment.then(|| napt.first_fragment(job.packet.bytes(), sender)).flatten();
        if expires_here(&job) && napt.claims(job.packet.bytes()) {
            self.release_early(key);
            return self.hop(job);
        }
        let before = endpoint(&job.packet, Side::Destination);
        let outcome = if hairpin {
            napt.hairpin(job.packet.bytes_mut(), &host, now)
        } else {
            if from.is_none() {
                napt.own_error(job.packet.bytes_mut(), &host);
            }
            napt.inbound(job.packet.bytes_mut(), now)
        };
        self.release_early(key);
        match outcome {
            Outcome::Translated(host) => {
                self.note_napt(number, &job.packet, Side::Destination, before);
                self.inward(tables, job, &host);
                None
            }
            Outcome::Unclaimed => Some(job),
            Outcome::Early(key) => {
                self.wait(number, key, job);
                None
            }
            Outcome::Refused(reason) => {
                if hairpin {
                    self.refuse(job, reason);
                } else {
                    self.output.drop(job.packet, reason);
                }
                None
            }
        }
    }

    /// To the host inside that a packet was translated for.
    pub(super) fn inward(&mut self, tables: &Tables, job: Job, host: &InsideHost) {
        let mut job = renamed(job);
        job.packet.tenant = host.tenant;
        let visitor = |mac| tables.visitors.at_station(host.tenant, host.address, mac);
        match host.station.map(visitor) {
            // S3-11: the session may have outlived the registration, and the visitor may
            // be on another link by now.
            Some(Found::Visitor(visitor)) => {
                self.output.trace.step(&job.packet, || Step::visitor(Code::ToVisitor, visitor));
                self.deliver(tables, job, visitor);
            }
            Some(_) => self.output.drop(job.packet, DropReason::NoVisitor),
            None => self.forward(tables, Job { route: None, ..job }, None),
        }
    }

    /// Hands a packet to an external endpoint to the worker that owns it. `Some`: it
    /// stays here.
    fn lead_to_port_owner(&mut self, number: usize, job: Job) -> Option<Job> {
        let Some(napt) = self.nat.napts.get(number) else { return Some(job) };
        let (owner, first) = match napt.owner_of_inbound(job.packet.bytes()) {
            Owner::Core(core, key) => (core as usize, key),
            // Before the first one has come it waits here.
            Owner::OfFirst(key) => match self.nat.owners.get(&key) {
                Some(owner) => (owner, None),
                None => return Some(job),
            },
            Owner::Nobody => return Some(job),
        };
        if owner == self.steering.worker {
            return Some(job);
        }
        self.hand_on(job, owner);
        if let Some(key) = first.filter(|_| !self.output.trace.is_probe()) {
            self.nat.owners.note(key, owner);
            self.release_early(Some(key));
        }
        None
    }

    /// An ICMP error that we send out by `port`: what it quotes may have come in
    /// translated.
    fn own_error(&mut self, mut job: Job, port: PortId) -> Job {
        let host =
            InsideHost { tenant: job.packet.tenant, address: job.facts.source, station: None };
        let mut napts = self.nat.napts.iter_mut();
        if job.facts.icmp_type.is_some()
            && let Some(napt) = napts.find(|napt| napt.config().outside == port)
            && napt.own_error(job.packet.bytes_mut(), &host)
        {
            return renamed(job);
        }
        job
    }

    /// Drops what an inside host may not send; if it is for want of room, it is told
    /// (RFC 6888 REQ-11).
    pub(super) fn refuse(&mut self, job: Job, reason: DropReason) {
        if matches!(reason, DropReason::NatHostLimit | DropReason::NatExhausted) {
            self.report(&job.packet, IcmpError::HostUnreachable, None);
        }
        self.output.drop(job.packet, reason);
    }

    /// Keeps a fragment until the first of its packet comes.
    fn wait(&mut self, number: usize, key: FragmentKey, job: Job) {
        let (counted_at, buffer) = (job.packet.port, job.packet.buffer());
        match self.nat.early.push(key, job, self.now) {
            Ok(()) => {
                if let Some(stats) = self.output.stats(counted_at) {
                    stats.held.add(1);
                }
                self.output.trace.held(buffer, || Step::of_napt(Code::NaptWaits, number));
            }
            Err(job) => self.output.drop(job.packet, DropReason::FragmentTooMany),
        }
    }

    /// Lets the fragments go on that waited for the first one, which has come.
    fn release_early(&mut self, key: Option<FragmentKey>) {
        let Some(key) = key else { return };
        while let Some(job) = self.nat.early.take(&key) {
            self.unhold(&job);
            self.output.trace.resume(&job.packet);
            self.again(job);
        }
    }

    /// Notes what a NAPT made of one end of a packet.
    pub(super) fn note_napt(
        &mut self,
        number: usize,
        packet: &Packet,
        side: Side,
        before: Endpoint,
    ) {
        let code = match side {
            Side::Source => Code::NaptSource,
            Side::Destination => Code::NaptDestination,
        };
        let step = || Step::napt(code, number, before, endpoint(packet, side));
        self.output.trace.step(packet, step);
    }

    fn unhold(&self, job: &Job) {
        if let Some(stats) = self.output.stats(job.packet.port) {
            stats.held.sub(1);
        }
    }
}

/// The visitor that sent a packet.
fn visitor<'t>(tables: &'t Tables, job: &Job) -> Option<&'t VisitorEntry> {
    sender(job.facts.source, &job.origin, job.packet.tenant, tables).ok().flatten()
}

/// Who sent a packet: a visitor is told by its station.
pub(super) fn inside_host(job: &Job, visitor: Option<&VisitorEntry>) -> InsideHost {
    let station = visitor.map(|visitor| visitor.mac);
    InsideHost { tenant: job.packet.tenant, address: job.facts.source, station }
}

/// One end of a packet.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Source,
    Destination,
}

/// The address and the port of one end of a packet, as far as it has a port.
pub(super) fn endpoint(packet: &Packet, side: Side) -> Endpoint {
    let nowhere = Endpoint { address: Ipv4Addr::UNSPECIFIED, port: 0 };
    let Ok((header, rest)) = Ipv4Header::ref_from_prefix(packet.bytes()) else { return nowhere };
    let skip = header.header_len().saturating_sub(Ipv4Header::LEN);
    let has_ports = matches!(header.protocol(), IpProtocol::TCP | IpProtocol::UDP)
        && header.fragment_offset() == 0;
    let ports = rest.get(skip..).and_then(|rest| rest.first_chunk()).filter(|_| has_ports);
    let [a, b, c, d] = ports.copied().unwrap_or_default();
    match side {
        Side::Source => Endpoint { address: header.source(), port: u16::from_be_bytes([a, b]) },
        Side::Destination => {
            Endpoint { address: header.destination(), port: u16::from_be_bytes([c, d]) }
        }
    }
}

/// Whether the packet's TTL ends here.
pub(super) fn expires_here(job: &Job) -> bool {
    job.origin.is_forwarded()
        && Ipv4Header::ref_from_prefix(job.packet.bytes()).is_ok_and(|(header, _)| header.ttl <= 1)
}

/// The job, with the addresses that its packet has by now.
pub(super) fn renamed(mut job: Job) -> Job {
    if let Ok((header, _)) = Ipv4Header::ref_from_prefix(job.packet.bytes()) {
        (job.facts.source, job.facts.destination) = (header.source(), header.destination());
    }
    job
}
