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
//! **Not done:** simultaneous bindings, minimal encapsulation, visitors of a foreign
//! agent, and packets between two bound nodes go the general way.

mod head;
mod lane;
mod next_hop;
mod translate;

use std::net::Ipv4Addr;
use std::ops::Range;

use homeport_wire::{EthernetHeader, IpProtocol, MOBILE_IP_PORT, MacAddress, PortId, TenantId};

use self::head::Head;
pub(crate) use self::lane::Lane;
use self::lane::{Kind, LINK, Reading};
use self::next_hop::NextHops;
use crate::classify::Tables;
use crate::forward::Forwarder;
use crate::napt::{Probe, Tick};
use crate::packet::{BURST, Burst, Packet};
use crate::parse;
use crate::table::binding::{
    BindingEntry, BindingKey, Encapsulation, EntryFlags, TunnelEnd, TunnelFlags,
};
use crate::table::hash::Candidate;
use crate::table::route::RouteEntry;
use crate::tunnel_mtu::MIN_TUNNEL_MTU;

/// What the fast path remembers from burst to burst.
pub(crate) struct FastPath {
    next_hops: NextHops,
    enabled: bool,
    /// How many packets it took so far.
    pub(crate) taken: u64,
}

impl FastPath {
    pub(crate) fn new(enabled: bool) -> Self {
        FastPath { next_hops: NextHops::new(), enabled, taken: 0 }
    }
}

/// What the second stage finds.
type Found<'t> = Candidate<'t, BindingKey, BindingEntry>;

/// What a burst has done so far.
#[derive(Default)]
struct Counts {
    encapsulated: u64,
    decapsulated: u64,
    /// Packets that it left to the general path.
    general: u64,
}

/// Where a packet goes, and the link header that takes it there.
struct Way {
    port: PortId,
    header: [u8; EthernetHeader::LEN],
    /// The longest packet that the link takes.
    mtu: u16,
}

impl Way {
    /// Sends a packet this way that lies `LINK` bytes into its frame: under the way's
    /// link header, for one of its TTL. The port that it leaves by.
    #[inline(always)]
    fn take(&self, packet: &mut Packet, head: &Head) -> Option<PortId> {
        packet.truncate(LINK + usize::from(head.total_len));
        let frame = packet.bytes_mut();
        *frame.first_chunk_mut()? = self.header;
        head::hop(frame.get_mut(LINK..)?);
        Some(self.port)
    }
}

/// Takes a burst that came in on `port`, whose address is `mac`, to its end.
pub(crate) fn receive(
    forwarder: &mut Forwarder,
    tables: &Tables,
    (burst, lanes): (&mut Burst, &mut [Lane; BURST]),
    (port, mac): (PortId, MacAddress),
) {
    if !forwarder.fast.enabled {
        return burst.drain().for_each(|packet| general(forwarder, tables, packet));
    }
    forwarder.fast.next_hops.refresh(tables);
    forwarder.fast.taken += burst.len() as u64;
    let mut reading = Reading::new(tables, mac.0);
    for (packet, lane) in burst.iter().zip(lanes.iter_mut()) {
        reading.read(packet, lane);
    }
    let lanes = lanes.get(..burst.len()).unwrap_or_default();
    let mut candidates = [None; BURST];
    for (lane, candidate) in lanes.iter().zip(&mut candidates) {
        if matches!(lane.kind, Kind::Destination | Kind::Tunnelled) {
            *candidate = tables.bindings.locate(&lane.probe);
        }
    }
    let visiting = reading.visiting;
    if forwarder.has_napts() && !visiting {
        let (flows, now) = translate::find(forwarder, burst, lanes, port);
        let mut act = Act::new(forwarder, tables, visiting);
        act.on_all(burst, |act, at, packet| {
            let (lane, candidate) = (lanes.get(at)?, candidates.get(at)?);
            match flows.get(at)? {
                Some(flow) => act.translate(packet, lane, flow, now),
                None => act.on(packet, lane, candidate.as_ref()),
            }
        });
        return act.finish(port);
    }
    let mut act = Act::new(forwarder, tables, visiting);
    act.on_all(burst, |act, at, packet| {
        act.on(packet, lanes.get(at)?, candidates.get(at)?.as_ref())
    });
    act.finish(port);
}

/// The last stage.
struct Act<'a, 't> {
    forwarder: &'a mut Forwarder,
    tables: &'t Tables,
    counts: Counts,
    /// Whether this burst has told the soft state of a tunnel already.
    sampled: bool,
    /// Whether there may be visitors.
    visiting: bool,
    /// Of a packet that was translated for a host inside and goes on the general way:
    /// the host's tenant.
    inward: Option<TenantId>,
}

impl<'a, 't> Act<'a, 't> {
    fn new(forwarder: &'a mut Forwarder, tables: &'t Tables, visiting: bool) -> Self {
        Act { forwarder, tables, counts: Counts::default(), sampled: false, visiting, inward: None }
    }

    /// Acts on each packet of a burst in its place, and then hands them over: in order,
    /// and no sooner than they must be, as what was just written to a packet is not yet
    /// to be read with its neighbours.
    #[inline(always)]
    fn on_all(
        &mut self,
        burst: &mut Burst,
        mut act: impl FnMut(&mut Self, usize, &mut Packet) -> Option<PortId>,
    ) {
        let mut ways = [PortId(0); BURST];
        let mut handed_over = 0;
        for at in 0..burst.len() {
            let Some(packet) = burst.get_mut(at) else { break };
            match (act(self, at, packet), ways.get_mut(at)) {
                (Some(port), Some(way)) => *way = port,
                _ => {
                    self.hand_over(burst, handed_over..at, &ways);
                    handed_over = at + 1;
                    // Translated for a host inside that is reached the general way.
                    let inward = self.inward.take();
                    if let Some(packet) = burst.take(at) {
                        match inward {
                            Some(tenant) => {
                                self.forwarder.forward_inward(self.tables, packet, tenant);
                            }
                            None => self.general(packet),
                        }
                    }
                }
            }
        }
        self.hand_over(burst, handed_over..burst.len(), &ways);
        burst.clear();
    }

    /// Hands packets over to the ports that they leave by.
    #[inline(always)]
    fn hand_over(&mut self, burst: &mut Burst, which: Range<usize>, ways: &[PortId; BURST]) {
        for at in which {
            if let (Some(packet), Some(port)) = (burst.take(at), ways.get(at)) {
                self.forwarder.output.transmit(packet, *port);
            }
        }
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
        let host = translate::translate(self.forwarder, frame, lane, flow, now)?;
        let destination = host.address.to_bits();
        let inside = Lane { head: Head { destination, ..lane.head }, tenant: host.tenant, ..*lane };
        let way = self.forward(packet, &inside);
        match way {
            Some(_) => packet.tenant = host.tenant,
            None => self.inward = Some(host.tenant),
        }
        way
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
        let way = self.way(lane.tenant, lane.head.destination)?;
        let (number, _) = flow;
        let is_outside = self.forwarder.napt(*number)?.config().outside == way.port;
        if !is_outside || lane.head.total_len > way.mtu {
            return None;
        }
        let frame = packet.bytes_mut();
        translate::translate(self.forwarder, frame, lane, flow, now)?;
        way.take(packet, &lane.head)
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
            Kind::General | Kind::Local => None,
            Kind::Plain => self.forward(packet, lane),
            Kind::Destination => match self.bound(lane, candidate, lane.head.destination) {
                Some(entry) => self.encapsulate(packet, lane, entry),
                None => self.forward(packet, lane),
            },
            Kind::Tunnelled => {
                let entry = self.bound(lane, candidate, lane.head.source)?;
                self.decapsulate(packet, lane, entry)
            }
        }
    }

    /// One packet, the general way.
    fn general(&mut self, packet: Packet) {
        self.counts.general += 1;
        general(self.forwarder, self.tables, packet);
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
        self.tables.bindings.confirm(candidate?, &key)
    }

    /// From link to link.
    #[inline(always)]
    fn forward(&mut self, packet: &mut Packet, lane: &Lane) -> Option<PortId> {
        let way = self.way(lane.tenant, lane.head.destination)?;
        if lane.head.total_len > way.mtu || self.forwarder.translates(packet.port, way.port) {
            return None;
        }
        way.take(packet, &lane.head)
    }

    /// Into the tunnel of a node that is away.
    #[inline(always)]
    fn encapsulate(
        &mut self,
        packet: &mut Packet,
        lane: &Lane,
        entry: &BindingEntry,
    ) -> Option<PortId> {
        let head = &lane.head;
        let end = only_tunnel(entry)?;
        let (home_agent, care_of_address) =
            (entry.home_agent.to_bits(), end.care_of_address().to_bits());
        // RFC 2003 §3.2.
        if head.source == home_agent || head.source == care_of_address {
            return None;
        }
        if entry.flags.contains(EntryFlags::CLAMP_MSS) && is_tcp(head) {
            return None;
        }
        // The outer packet must be nothing special either.
        let care_of = end.care_of_address();
        let Tables { locals, visitors, bindings, .. } = self.tables;
        if head::is_unusual(care_of_address)
            || locals.may_have(care_of)
            || bindings.may_have(care_of)
            || self.visiting && (visitors.may_have(care_of) || visitors.may_have(entry.home_agent))
        {
            return None;
        }
        let way = self.way(lane.tenant, care_of_address)?;
        let set_df = entry.flags.contains(EntryFlags::SET_DF);
        let ends = (home_agent, care_of_address);
        let mut tunnel = Entering { act: self, packet, lane, way, set_df, ends };
        match end.encapsulation() {
            Encapsulation::IpInIp => tunnel.enter::<34, 0>(IpProtocol::IP_IN_IP, |_| []),
            Encapsulation::Gre { key: None } => {
                tunnel.enter::<38, 4>(IpProtocol::GRE, |_| [0, 0, 0x08, 0x00])
            }
            Encapsulation::Gre { key: Some(key) } => tunnel.enter::<42, 8>(IpProtocol::GRE, |_| {
                let [a, b, c, d] = key.to_be_bytes();
                [0x20, 0, 0x08, 0x00, a, b, c, d]
            }),
            // Half-bound: the general path knows what to say.
            Encapsulation::Udp { peer_port: 0 } | Encapsulation::PlainUdp { peer_port: 0 } => None,
            Encapsulation::Udp { peer_port } => tunnel.enter::<46, 12>(IpProtocol::UDP, |len| {
                let [a, b, c, d, e, f, g, h] = udp_header(peer_port, len);
                [a, b, c, d, e, f, g, h, 4, 4, 0, 0]
            }),
            Encapsulation::PlainUdp { peer_port } => {
                tunnel.enter::<42, 8>(IpProtocol::UDP, |len| udp_header(peer_port, len))
            }
            Encapsulation::Minimal => None,
        }
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
        let (outer_source, outer_destination) = lane.outer;
        let is_right = outer_source == end.care_of_address().to_bits()
            && outer_destination == entry.home_agent.to_bits()
            // RFC 2784 §3.1: not back to the encapsulator.
            && lane.head.destination != outer_source
            && lane.encapsulation == end.encapsulation()
            && end.is(TunnelFlags::REVERSE);
        let is_offer = entry.flags.contains(EntryFlags::CLAMP_MSS) && is_tcp(&lane.head);
        if !is_right || is_offer {
            return None;
        }
        let way = self.way(lane.tenant, lane.head.destination)?;
        if lane.head.total_len > way.mtu {
            return None;
        }
        // The new link header ends where the packet inside begins.
        if !packet.strip(lane.inner_at.checked_sub(LINK)?) {
            return None;
        }
        packet.tenant = lane.tenant;
        self.counts.decapsulated += 1;
        way.take(packet, &lane.head)
    }

    /// Where packets to an address go, if the general path would have nothing to ask.
    #[inline(always)]
    fn way(&mut self, tenant: TenantId, destination: u32) -> Option<Way> {
        let route = self.tables.routes.lookup(tenant, Ipv4Addr::from_bits(destination))?;
        let RouteEntry::Via { port, gateway } = route else { return None };
        let Forwarder { fast, output, .. } = &mut *self.forwarder;
        let outlet = output.outlet(port).filter(|outlet| outlet.up)?;
        let address = gateway.map_or(destination, Ipv4Addr::to_bits);
        let header = fast.next_hops.header(port, address, outlet, self.tables)?;
        Some(Way { port, header, mtu: outlet.mtu })
    }

    /// The longest outer packet to a tunnel's far end, as far as it matters to one that
    /// is `len` long. Short packets get through every tunnel; so it is asked for long
    /// ones, and once in a burst, so that the soft state knows which tunnels are in use.
    #[inline(always)]
    fn tunnel_takes(&mut self, tenant: TenantId, remote: u32, len: u16) -> bool {
        if len <= MIN_TUNNEL_MTU && self.sampled {
            return true;
        }
        self.sampled = true;
        let Forwarder { mtus, now, .. } = &*self.forwarder;
        len <= mtus.enter(tenant, Ipv4Addr::from_bits(remote), *now)
    }
}

/// A packet that is about to enter a tunnel.
struct Entering<'i, 'a, 't> {
    act: &'i mut Act<'a, 't>,
    packet: &'i mut Packet,
    lane: &'i Lane,
    way: Way,
    set_df: bool,
    /// The outer source and destination.
    ends: (u32, u32),
}

impl Entering<'_, '_, '_> {
    /// Puts `FRONT` bytes in front of the packet: link header, outer header and the
    /// `SHIM` bytes of what lies between, which are made from the outer payload's length.
    #[inline(always)]
    fn enter<const FRONT: usize, const SHIM: usize>(
        &mut self,
        protocol: IpProtocol,
        shim: impl FnOnce(u16) -> [u8; SHIM],
    ) -> Option<PortId> {
        const { assert!(FRONT == LINK + head::LEN + SHIM) };
        let Entering { act, packet, lane, way, set_df, ends } = self;
        let head = &lane.head;
        let overhead = (FRONT - LINK) as u16;
        let outer_len = head.total_len.checked_add(overhead)?;
        let fits = outer_len <= way.mtu && packet.has_headroom(FRONT - LINK);
        if !fits || !act.tunnel_takes(lane.tenant, ends.1, outer_len) {
            return None;
        }
        packet.truncate(LINK + usize::from(head.total_len));
        head::hop(packet.bytes_mut().get_mut(LINK..)?);
        let front = packet.replace_front::<FRONT>(LINK)?;
        let identification = &mut act.forwarder.identification;
        let outer = head::outer(head, *ends, (protocol.0, overhead), *set_df, identification);
        let (link, rest) = front.split_first_chunk_mut::<LINK>()?;
        *link = way.header;
        let (ip, between) = rest.split_first_chunk_mut::<{ head::LEN }>()?;
        *ip = outer;
        *between.first_chunk_mut::<SHIM>()? = shim(outer_len - head::LEN as u16);
        act.counts.encapsulated += 1;
        Some(way.port)
    }
}

/// A UDP header for a datagram of this length, without a checksum: see
/// [`encap`](crate::encap).
#[inline(always)]
fn udp_header(peer_port: u16, len: u16) -> [u8; 8] {
    let [a, b] = MOBILE_IP_PORT.to_be_bytes();
    let [c, d] = peer_port.to_be_bytes();
    let [e, f] = len.to_be_bytes();
    [a, b, c, d, e, f, 0, 0]
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
fn is_tcp(head: &Head) -> bool {
    IpProtocol(head.protocol) == IpProtocol::TCP
}

/// One packet, the general way.
#[cold]
#[inline(never)]
fn general(forwarder: &mut Forwarder, tables: &Tables, packet: Packet) {
    match parse::frame(packet.bytes()) {
        Ok((ethernet, frame)) => forwarder.receive(tables, packet, ethernet, frame),
        Err(reason) => forwarder.output.drop(packet, reason),
    }
}
