//! The fast path: what nearly all packets need, done over the whole burst at once.
//!
//! A burst goes through three stages, so that the cache misses of its packets overlap:
//!
//! 1. *read* ([`lane`]): the frame's headers, the filters of the tables, the hash of
//!    the address to look up; its bucket is fetched;
//! 2. *locate*: the entry in the bucket; it is fetched;
//! 3. *act*: the entry is compared and obeyed, packet by packet in the order of
//!    arrival.
//!
//! The fast path is a short cut, not a second opinion. It takes a packet only when the
//! [general path](crate::forward) would do the very same with it: into the one tunnel
//! of a bound node, out of a reverse tunnel with the full check of its source
//! (RFC 3024 §4.3.2), or from link to link. Everything that is anything special
//! (options, fragments, errors, signalling, a tunnel in a tunnel, visitors, packets
//! that are too long or whose next hop is not known) it leaves as it was, and the
//! general path takes it, in its turn. So what a packet is need be told only once; a
//! property test sends the same packets through both and compares what comes out.
//!
//! What a burst counts is added once for the burst.
//!
//! **Not done:** simultaneous bindings, visitors of a foreign agent, and packets between
//! two bound nodes go the general way.

mod enter;
mod head;
mod lane;
mod next_hop;
mod translate;

use std::net::Ipv4Addr;
use std::ops::Range;

use homeport_wire::{IpProtocol, MacAddress, PortId, TenantId};

use self::enter::{Entering, restore};
use self::head::Head;
pub(crate) use self::lane::Lane;
use self::lane::{Kind, LINK, Reading, SPECIAL};
use self::next_hop::{LinkHeader, NextHops};
use self::translate::Flows;
use crate::classify::Tables;
use crate::forward::Forwarder;
use crate::napt::{Probe, Tick};
use crate::packet::{BURST, Burst, Packet};
use crate::parse;
use crate::table::binding::{BindingEntry, BindingKey, EntryFlags, TunnelEnd, TunnelFlags};
use crate::table::classes::{Class, ClassesAtHand};
use crate::table::hash::{AtHand, Candidate};
use crate::table::lpm::{Match, RoutesAtHand};
use crate::table::route::RouteEntry;
use crate::tunnel_mtu::MIN_TUNNEL_MTU;

/// What the fast path remembers from burst to burst.
pub(crate) struct FastPath {
    next_hops: NextHops,
    flows: Flows,
    enabled: bool,
    /// How many packets it took so far.
    pub(crate) taken: u64,
}

impl FastPath {
    pub(crate) fn new(enabled: bool) -> Self {
        FastPath { next_hops: NextHops::new(), flows: vec![None; BURST], enabled, taken: 0 }
    }
}

/// Where the second stage looks, and what it finds.
type Bindings<'t> = AtHand<'t, BindingKey, BindingEntry>;
type Found<'t> = Candidate<'t, BindingKey, BindingEntry>;

/// The link that a burst came in by.
pub(crate) struct Link {
    pub(crate) port: PortId,
    /// The port's address.
    pub(crate) mac: MacAddress,
    pub(crate) tenant: TenantId,
}

/// What a burst has done so far.
#[derive(Default)]
struct Counts {
    encapsulated: u64,
    decapsulated: u64,
    /// Packets that it left to the general path.
    general: u64,
}

/// Where a packet goes, and the link header that takes it there.
#[derive(Clone, Copy)]
struct Way {
    port: PortId,
    header: LinkHeader,
    /// The longest packet that the link takes.
    mtu: u16,
}

/// Bytes of a header that lie before its TTL, and the word that begins with it.
const TTL_AT: usize = 8;
const TTL_LEN: usize = 4;

/// Bytes of a header from its begin to its addresses.
const TO_ENDS: usize = TTL_AT + TTL_LEN;

impl Way {
    const NOWHERE: Way = Way { port: PortId(0), header: LinkHeader::NONE, mtu: 0 };

    /// Sends a packet this way, for one of its TTL: under the way's link header, which
    /// begins `at` bytes into the frame. The port that it leaves by.
    #[inline(always)]
    fn take(&self, packet: &mut Packet, at: usize, head: Head) -> Option<PortId> {
        const WINDOW: usize = LINK + TO_ENDS;
        let len = LINK + usize::from(head.total_len());
        let window = packet.reframe::<WINDOW>(at, 0, len)?;
        let (link, ip) = window.split_first_chunk_mut()?;
        self.header.put(link);
        *ip.last_chunk_mut()? = head.hopped();
        Some(self.port)
    }
}

/// Takes a burst that came in by a link to its end. How many bytes it had.
pub(crate) fn receive(
    forwarder: &mut Forwarder,
    tables: &Tables,
    (burst, lanes): (&mut Box<Burst>, &mut [Lane; BURST]),
    link: &Link,
) -> u64 {
    let at_hand = (tables.bindings.at_hand(), tables.routes.at_hand());
    let (true, false, (Some(bindings), Some(routes))) =
        (forwarder.fast.enabled, forwarder.output.trace.is_on(), at_hand)
    else {
        return receive_each(forwarder, tables, burst, link);
    };
    forwarder.fast.next_hops.refresh(tables);
    forwarder.fast.taken += burst.len() as u64;
    let mut reading = Reading::new(tables, bindings, link);
    let places = burst.places();
    for (place, lane) in places.iter_mut().zip(lanes.iter_mut()) {
        if let Some(packet) = place {
            reading.read(packet, lane);
        }
    }
    let bytes = reading.bytes;
    let lanes = lanes.get(..places.len()).unwrap_or_default();
    let mut candidates = [None; BURST];
    for (lane, candidate) in lanes.iter().zip(&mut candidates) {
        if matches!(lane.kind, Kind::Destination | Kind::Tunnelled) {
            *candidate = bindings.locate(&lane.probe);
        }
    }
    // The general path knows better where visitors are, who speak from every link.
    let visiting = tables.visitors.may_have_any();
    let flows = if forwarder.has_napts() && !visiting {
        let mut flows = std::mem::take(&mut forwarder.fast.flows);
        let now = translate::find(forwarder, burst, lanes, link.port, &mut flows);
        Some((flows, now))
    } else {
        None
    };
    let (counts, sampled, inward, last) = (Counts::default(), false, false, None);
    let (classes, way) = (tables.classes.at_hand(), Way::NOWHERE);
    let mut act = Act {
        forwarder,
        tables,
        bindings,
        routes,
        classes,
        counts,
        sampled,
        visiting,
        inward,
        last,
        way,
    };
    let looked_up = |at| {
        let lanes = lanes.get(at..).unwrap_or_default();
        lanes.iter().zip(candidates.get(at..).unwrap_or_default())
    };
    if let Some((flows, now)) = flows {
        let each = |at| looked_up(at).zip(flows.get(at..).unwrap_or_default());
        act.on_all(burst, each, |act, packet, ((lane, candidate), flow)| match flow {
            Some(flow) => act.translate(packet, lane, flow, now),
            None => act.on(packet, lane, candidate.as_ref()),
        });
        act.forwarder.fast.flows = flows;
    } else {
        act.on_all(burst, looked_up, |act, packet, (lane, candidate)| {
            act.on(packet, lane, candidate.as_ref())
        });
    }
    act.finish(link.port);
    bytes
}

/// The same, packet by packet the general way.
#[cold]
fn receive_each(forwarder: &mut Forwarder, tables: &Tables, burst: &mut Burst, link: &Link) -> u64 {
    let mut bytes = 0;
    for mut packet in burst.drain() {
        (packet.port, packet.tenant) = (link.port, link.tenant);
        bytes += packet.len() as u64;
        general(forwarder, tables, packet);
    }
    bytes
}

/// The last stage.
struct Act<'a, 't> {
    forwarder: &'a mut Forwarder,
    tables: &'t Tables,
    bindings: Bindings<'t>,
    routes: RoutesAtHand<'t>,
    classes: ClassesAtHand<'t>,
    counts: Counts,
    /// Whether this burst has told the soft state of a tunnel already.
    sampled: bool,
    /// Whether there may be visitors.
    visiting: bool,
    /// Whether the packet that is left to the general path was translated for a host
    /// inside, its tenant's, and only goes on there.
    inward: bool,
    /// The route by a gateway that was taken last, and its way: most packets of a burst
    /// go there.
    last: Option<Match<'t>>,
    way: Way,
}

impl<'t> Act<'_, 't> {
    /// Acts on each packet of a burst in its place, and then hands them over: in order,
    /// and no sooner than they must be, as what was just written to a packet is not yet
    /// to be read with its neighbours. What was looked up for each, from one on, is
    /// `looked_up`.
    #[inline(always)]
    fn on_all<T, I: Iterator<Item = T>>(
        &mut self,
        burst: &mut Box<Burst>,
        looked_up: impl Fn(usize) -> I,
        mut act: impl FnMut(&mut Self, &mut Packet, T) -> Option<PortId>,
    ) {
        let mut ports = [PortId(0); BURST];
        let mut taken = 0;
        // The places of the packets from the last on that was left to the general path.
        while let Some(places) = burst.places().get_mut(taken..)
            && !places.is_empty()
        {
            let by = ports.get_mut(taken..).unwrap_or_default();
            let mut done = 0;
            for ((place, by), lookups) in places.iter_mut().zip(by).zip(looked_up(taken)) {
                let Some(port) = place.as_mut().and_then(|packet| act(self, packet, lookups))
                else {
                    break;
                };
                *by = port;
                done += 1;
            }
            let left = taken + done;
            if taken == 0 && left == burst.len() {
                break;
            }
            self.hand_over(burst, taken..left, &ports);
            taken = left + 1;
            if let Some(packet) = burst.places().get_mut(left).and_then(Option::take) {
                self.leave(packet);
            }
        }
        if taken > 0 {
            return burst.clear();
        }
        let [first, ..] = ports;
        let in_use = ports.get(..burst.len()).unwrap_or_default();
        let differences = in_use.iter().fold(0, |all, port| all | (port.0 ^ first.0));
        if differences == 0 {
            return self.forwarder.output.transmit_all(burst, first);
        }
        self.hand_over(burst, 0..burst.len(), &ports);
        burst.clear();
    }

    /// Hands packets over to the ports that they leave by.
    #[inline(never)]
    fn hand_over(&mut self, burst: &mut Burst, which: Range<usize>, ports: &[PortId; BURST]) {
        let places = burst.places().get_mut(which.clone()).unwrap_or_default();
        for (place, port) in places.iter_mut().zip(ports.get(which).unwrap_or_default()) {
            if let Some(packet) = place.take() {
                self.forwarder.output.transmit(packet, *port);
            }
        }
    }

    /// Leaves a packet to the general path.
    #[inline(never)]
    fn leave(&mut self, packet: Packet) {
        if std::mem::take(&mut self.inward) {
            let tenant = packet.tenant;
            return self.forwarder.forward_inward(self.tables, packet, tenant);
        }
        self.counts.general += 1;
        general(self.forwarder, self.tables, packet);
    }

    /// Counts what the burst has done.
    fn finish(self, port: PortId) {
        self.forwarder.fast.taken -= self.counts.general;
        if let Some(stats) = self.forwarder.output.stats(port) {
            stats.encapsulated.add(self.counts.encapsulated);
            stats.decapsulated.add(self.counts.decapsulated);
        }
    }

    /// A packet that may be of a flow behind a NAPT.
    #[inline(always)]
    fn translate(
        &mut self,
        packet: &mut Packet,
        lane: &Lane,
        flow: &(usize, Probe),
        now: Tick,
    ) -> Option<PortId> {
        if lane.kind == Kind::Plain {
            let way = self.translate_out(packet, lane, flow, now);
            return way.or_else(|| self.on(packet, lane, None));
        }
        let frame = packet.bytes_mut();
        let (host, head) = translate::translate(self.forwarder, frame, lane, flow, now)?;
        let head = head.between(head.source(), host.address.to_bits());
        let inside = Lane { head, tenant: host.tenant, ..*lane };
        let left_by = self.forward(packet, &inside);
        packet.tenant = host.tenant;
        self.inward = left_by.is_none();
        left_by
    }

    /// From the inside of a NAPT to its outside.
    #[inline(always)]
    fn translate_out(
        &mut self,
        packet: &mut Packet,
        lane: &Lane,
        flow: &(usize, Probe),
        now: Tick,
    ) -> Option<PortId> {
        self.find_way(lane.tenant, Ipv4Addr::from_bits(lane.head.destination()))?;
        let (number, _) = flow;
        let is_outside = self.forwarder.napt(*number)?.config().outside == self.way.port;
        if !is_outside || lane.head.total_len() > self.way.mtu {
            return None;
        }
        let frame = packet.bytes_mut();
        let (_, head) = translate::translate(self.forwarder, frame, lane, flow, now)?;
        self.way.take(packet, 0, head)
    }

    /// `None`, and nothing changed: it goes the general way.
    #[inline(always)]
    fn on(
        &mut self,
        packet: &mut Packet,
        lane: &Lane,
        candidate: Option<&Found<'t>>,
    ) -> Option<PortId> {
        match lane.kind {
            Kind::Plain => self.forward(packet, lane),
            Kind::Destination => match self.bound(lane, candidate, lane.head.destination()) {
                Some(entry) => self.encapsulate(packet, lane, entry),
                None => self.forward(packet, lane),
            },
            Kind::Tunnelled => {
                let entry = self.bound(lane, candidate, lane.head.source())?;
                self.decapsulate(packet, lane, entry)
            }
            Kind::Local | Kind::General => None,
        }
    }

    /// The binding of an address that was probed for.
    #[inline(always)]
    fn bound(
        &self,
        lane: &Lane,
        candidate: Option<&Found<'t>>,
        address: u32,
    ) -> Option<&'t BindingEntry> {
        let home_address = Ipv4Addr::from_bits(address);
        let key = BindingKey { tenant: lane.tenant, home_address };
        self.bindings.confirm(candidate?, &key)
    }

    /// From link to link.
    #[inline(always)]
    fn forward(&mut self, packet: &mut Packet, lane: &Lane) -> Option<PortId> {
        self.find_way(lane.tenant, Ipv4Addr::from_bits(lane.head.destination()))?;
        let Act { forwarder, way, .. } = self;
        let translates = forwarder.has_napts() && forwarder.translates(packet.port, way.port);
        if lane.head.total_len() > way.mtu || translates {
            return None;
        }
        way.take(packet, 0, lane.head)
    }

    /// Into the tunnel of a node that is away.
    #[inline(always)]
    fn encapsulate(
        &mut self,
        packet: &mut Packet,
        lane: &Lane,
        entry: &BindingEntry,
    ) -> Option<PortId> {
        let end = only_tunnel(entry)?;
        let (home_agent, care_of_address) = (entry.home_agent, end.care_of_address());
        // RFC 2003 §3.2.
        let source = Ipv4Addr::from_bits(lane.head.source());
        if source == home_agent || source == care_of_address {
            return None;
        }
        if entry.flags.contains(EntryFlags::CLAMP_MSS) && is_tcp(lane.head) {
            return None;
        }
        // The outer packet must be nothing special either.
        let class = self.classes.of(care_of_address.to_bits());
        if class.has(SPECIAL.or(Class::BOUND)) && self.is_special(class, care_of_address)
            || self.visiting && self.tables.visitors.may_have(home_agent)
        {
            return None;
        }
        self.find_way(lane.tenant, care_of_address)?;
        Entering { act: self, packet, lane, entry, end }.enter()
    }

    /// Out of a reverse tunnel, and on by its destination. The whole of RFC 3024
    /// §4.3.2 is checked, whatever comes.
    #[inline(always)]
    fn decapsulate(
        &mut self,
        packet: &mut Packet,
        lane: &Lane,
        entry: &BindingEntry,
    ) -> Option<PortId> {
        let end = only_tunnel(entry)?;
        let [source, destination] = lane.outer;
        let is_right = source == end.care_of_address().octets()
            && destination == entry.home_agent.octets()
            && lane.carrier == end.carrier()
            && end.is(TunnelFlags::REVERSE);
        let is_offer = entry.flags.contains(EntryFlags::CLAMP_MSS) && is_tcp(lane.head);
        if !is_right || is_offer {
            return None;
        }
        self.find_way(lane.tenant, Ipv4Addr::from_bits(lane.head.destination()))?;
        let way = &self.way;
        if lane.head.total_len() > way.mtu {
            return None;
        }
        let left_by = if lane.carrier.is_minimal() {
            restore(packet, lane.head, way)
        } else {
            way.take(packet, usize::from(lane.link_at), lane.head)
        };
        if left_by.is_some() {
            packet.tenant = lane.tenant;
            self.counts.decapsulated += 1;
        }
        left_by
    }

    /// Whether an address that packets enter a tunnel to is more than that.
    #[cold]
    fn is_special(&self, class: Class, address: Ipv4Addr) -> bool {
        let Tables { locals, visitors, .. } = self.tables;
        class.has(Class::UNUSUAL.or(Class::BOUND))
            || class.has(Class::LOCAL) && locals.may_have(address)
            || class.has(Class::VISITOR) && visitors.may_have(address)
    }

    /// Where packets to an address go, if the general path would have nothing to ask:
    /// found in `way`.
    #[inline(always)]
    fn find_way(&mut self, tenant: TenantId, destination: Ipv4Addr) -> Option<()> {
        let route = self.routes.find(tenant, destination)?;
        if self.last == Some(route) { Some(()) } else { self.other_way(route, destination) }
    }

    /// The way by a route that is not the last one.
    #[inline(never)]
    fn other_way(&mut self, route: Match<'t>, destination: Ipv4Addr) -> Option<()> {
        let RouteEntry::Via { port, gateway } = self.routes.entry(&route)? else {
            return None;
        };
        let Forwarder { fast, output, .. } = &mut *self.forwarder;
        let outlet = output.outlet(port).filter(|outlet| outlet.up)?;
        let next_hop = gateway.unwrap_or(destination).to_bits();
        let header = fast.next_hops.header(port, next_hop, outlet, self.tables)?;
        self.way = Way { port, header, mtu: outlet.mtu };
        // On a link, each address is a next hop of its own.
        self.last = gateway.map(|_| route);
        Some(())
    }

    /// The longest outer packet to a tunnel's far end, as far as it matters to one that
    /// is `len` long. Short packets get through every tunnel; so it is asked for long
    /// ones, and once in a burst, so that the soft state knows which tunnels are in use.
    #[inline(always)]
    fn tunnel_takes(&mut self, tenant: TenantId, remote: Ipv4Addr, len: u16) -> bool {
        if len <= MIN_TUNNEL_MTU && self.sampled {
            return true;
        }
        self.sampled = true;
        let Forwarder { mtus, now, .. } = &*self.forwarder;
        len <= mtus.enter(tenant, remote, *now)
    }
}

/// The tunnel of a node that has one, and whose address is proven.
#[inline(always)]
fn only_tunnel(entry: &BindingEntry) -> Option<&TunnelEnd> {
    match entry.tunnels() {
        [end] if !end.is(TunnelFlags::UNPROVEN) => Some(end),
        _ => None,
    }
}

#[inline(always)]
fn is_tcp(head: Head) -> bool {
    IpProtocol(head.protocol()) == IpProtocol::TCP
}

/// One packet, the general way.
#[cold]
#[inline(never)]
fn general(forwarder: &mut Forwarder, tables: &Tables, packet: Packet) {
    forwarder.output.trace.begin(&packet, true, None);
    match parse::frame(packet.bytes()) {
        Ok((ethernet, frame)) => forwarder.receive(tables, packet, ethernet, frame),
        Err(reason) => forwarder.output.drop(packet, reason),
    }
}
