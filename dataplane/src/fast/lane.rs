//! The first stage: what a frame is, by its bytes and the tables' filters alone.

use std::net::Ipv4Addr;

use homeport_wire::{IpProtocol, MOBILE_IP_PORT, PortId, TenantId};

use super::head::{self, Head};
use super::{Bindings, Link};
use crate::classify::{Tables, may_reach};
use crate::packet::Packet;
use crate::table::binding::{BindingKey, Carrier, Encapsulation};
use crate::table::classes::{Class, ClassesAtHand};
use crate::table::hash::Probe;
use crate::table::local::{LocalEntry, LocalKey};

/// Bytes of a link header and an IPv4 header without options.
pub(super) const LINK: usize = 14;

/// What is looked up for a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Its destination, which may be bound.
    Destination,
    /// The source of the packet inside, which must be bound.
    Tunnelled,
    /// Nothing: no binding is anywhere near its destination.
    Plain,
    /// No binding: it is to an address of ours that no agent has, perhaps a NAPT's.
    Local,
    /// Nothing here: it goes the general way.
    #[default]
    General,
}

/// A packet on its way through the stages. What its kind does not need is an earlier
/// packet's. A cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Lane {
    pub(super) kind: Kind,
    /// The header of the packet, or of the one inside.
    pub(super) head: Head,
    /// Of a tunnelled packet: from where to where, how, and where in the frame the link
    /// header of the one inside is to begin.
    pub(super) outer: [[u8; 4]; 2],
    pub(super) carrier: Carrier,
    pub(super) link_at: u16,
    pub(super) tenant: TenantId,
    pub(super) probe: Probe,
}

const _: () = assert!(size_of::<Lane>() == 64);

impl Lane {
    /// Of a packet that goes the general way.
    pub(crate) const GENERAL: Lane = Lane {
        kind: Kind::General,
        head: Head::NONE,
        outer: [[0; 4]; 2],
        carrier: Carrier::of(Encapsulation::IpInIp),
        link_at: 0,
        tenant: TenantId(0),
        probe: Probe::NONE,
    };
}

/// What the lanes of one burst share.
pub(super) struct Reading<'t> {
    tables: &'t Tables,
    bindings: Bindings<'t>,
    classes: ClassesAtHand<'t>,
    port: PortId,
    tenant: TenantId,
    /// The first eight bytes of frames for us: the port's address, as the machine reads
    /// a word, of which [`MAC`] counts.
    mac: u64,
    /// The address of ours that the burst asked for last.
    local: Option<(u32, &'t LocalEntry)>,
    /// Bytes of the frames read so far.
    pub(super) bytes: u64,
}

/// The link-layer address in the first word of a frame.
const MAC: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);

/// What makes an address worth a second look.
pub(super) const SPECIAL: Class = Class::UNUSUAL.or(Class::LOCAL).or(Class::VISITOR);

/// Bytes of a frame that are read at once: its headers and the ports behind them. No
/// frame is so short on a link.
const START: usize = LINK + INNER;

/// The same of a packet inside another.
const INNER: usize = head::LEN + size_of::<Ports>();

/// The ports of a UDP or TCP packet, or what else is where they are.
type Ports = [u8; 4];

impl<'t> Reading<'t> {
    pub(super) fn new(tables: &'t Tables, bindings: Bindings<'t>, link: &Link) -> Self {
        let [a, b, c, d, e, f] = link.mac.0;
        Reading {
            tables,
            bindings,
            classes: tables.classes.at_hand(),
            port: link.port,
            tenant: link.tenant,
            mac: u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]),
            local: None,
            bytes: 0,
        }
    }

    /// Reads a frame, and begins to look up what it needs.
    #[inline(always)]
    pub(super) fn read(&mut self, packet: &mut Packet, lane: &mut Lane) {
        (packet.port, packet.tenant) = (self.port, self.tenant);
        self.bytes += packet.len() as u64;
        // Field by field in its place: a lane that was put together elsewhere would be
        // read whole before its parts have arrived in the cache.
        lane.kind = self.kind(packet, lane).unwrap_or(Kind::General);
    }

    #[inline(always)]
    fn kind(&mut self, packet: &Packet, lane: &mut Lane) -> Option<Kind> {
        let start = packet.chunk::<START>(0)?;
        let (link, rest) = start.split_first_chunk::<LINK>()?;
        let is_for_us = (u64::from_ne_bytes(*link.first_chunk()?) ^ self.mac) & MAC == 0;
        if !is_for_us || *link.last_chunk()? != [0x08, 0x00] {
            return None;
        }
        let (header, ports) = rest.split_first_chunk::<{ head::LEN }>()?;
        let (head, is_plain) = Head::read(header, packet.len() - LINK);
        if !is_plain {
            return None;
        }
        (lane.head, lane.tenant) = (head, self.tenant);
        let (source, destination) = (head.source(), head.destination());
        let (from, to) = (self.classes.of(source), self.classes.of(destination));
        if from.or(to).has(SPECIAL) {
            if from.or(to).has(Class::UNUSUAL) || self.is_local(from, source) {
                return None;
            }
            if let Some(local) = self.local(to, destination) {
                return self.tunnelled(packet, from, local, lane);
            }
            if self.visits(from, source) || self.visits(to, destination) {
                return None;
            }
        }
        if is_tunnel(head.protocol(), ports.first_chunk()?) {
            return None;
        }
        if !to.has(Class::BOUND) {
            return Some(Kind::Plain);
        }
        lane.probe = self.probe(self.tenant, destination);
        Some(Kind::Destination)
    }

    #[inline(always)]
    fn probe(&self, tenant: TenantId, home_address: u32) -> Probe {
        let home_address = Ipv4Addr::from_bits(home_address);
        self.bindings.probe(&BindingKey { tenant, home_address })
    }

    /// A packet to an address of ours, from one of class `from`: one that comes out of a
    /// tunnel here. A function of its own, so that the registers are the others'.
    #[inline(never)]
    fn tunnelled(
        &self,
        packet: &Packet,
        from: Class,
        local: &LocalEntry,
        lane: &mut Lane,
    ) -> Option<Kind> {
        let outer = lane.head;
        if !may_reach(self.tenant, local.tenant) || self.visits(from, outer.source()) {
            return None;
        }
        if !local.home_agent {
            let is_agent = local.care_of_address || local.agent || local.broadcast;
            return (!is_agent).then_some(Kind::Local);
        }
        let (carrier, shim_len) = open(packet, outer)?;
        let inner_at = LINK + head::LEN + shim_len;
        // Link-layer padding is no part of it.
        let available = usize::from(outer.total_len()).checked_sub(head::LEN + shim_len)?;
        let (head, ports) = if carrier.is_minimal() {
            open_minimal(packet, outer, available)?
        } else {
            if available < INNER {
                return None;
            }
            let (header, ports) = packet.chunk::<INNER>(inner_at)?.split_first_chunk()?;
            let (head, is_plain) = Head::read(header, available);
            // A mark of congestion is carried inward by the general path (RFC 6040).
            if !is_plain || (head.tos() ^ outer.tos()) & 0b11 != 0 {
                return None;
            }
            (head, ports.first_chunk()?)
        };
        if is_tunnel(head.protocol(), ports) {
            return None;
        }
        let (from, to) = (self.classes.of(head.source()), self.classes.of(head.destination()));
        if from.or(to).has(SPECIAL)
            && (from.or(to).has(Class::UNUSUAL)
                || self.is_local(from, head.source())
                || self.is_local(to, head.destination())
                || self.visits(to, head.destination()))
        {
            return None;
        }
        // RFC 2784 §3.1: not back to the encapsulator.
        if to.has(Class::BOUND) || head.destination() == outer.source() {
            return None;
        }
        (lane.head, lane.tenant) = (head, local.tenant);
        lane.outer = outer.ends();
        lane.carrier = carrier;
        // A few dozen.
        lane.link_at = (head::LEN + shim_len) as u16;
        lane.probe = self.probe(local.tenant, head.source());
        Some(Kind::Tunnelled)
    }

    /// What an address of this class is, if it is ours.
    #[inline(always)]
    fn local(&mut self, class: Class, address: u32) -> Option<&'t LocalEntry> {
        match self.local {
            _ if !class.has(Class::LOCAL) => None,
            Some((known, entry)) if known == address => Some(entry),
            _ => self.other_local(address),
        }
    }

    /// What an address is that is not the last one.
    #[inline(never)]
    fn other_local(&mut self, address: u32) -> Option<&'t LocalEntry> {
        let locals = &self.tables.locals;
        let key = LocalKey { address: Ipv4Addr::from_bits(address) };
        let entry = if locals.may_have(key.address) { locals.lookup(&key) } else { None }?;
        self.local = Some((address, entry));
        Some(entry)
    }

    /// Whether an address of this class may be ours.
    #[inline(always)]
    fn is_local(&self, class: Class, address: u32) -> bool {
        class.has(Class::LOCAL) && self.tables.locals.may_have(Ipv4Addr::from_bits(address))
    }

    /// Whether an address of this class may be a visitor's.
    #[inline(always)]
    fn visits(&self, class: Class, address: u32) -> bool {
        class.has(Class::VISITOR) && self.tables.visitors.may_have(Ipv4Addr::from_bits(address))
    }
}

/// A bit for each protocol other than UDP that carries a tunnelled packet.
const CARRIERS: u64 =
    1 << IpProtocol::IP_IN_IP.0 | 1 << IpProtocol::MINIMAL.0 | 1 << IpProtocol::GRE.0;

/// Whether a packet may be a tunnelled one or signalling, which loop and nest.
#[inline(always)]
fn is_tunnel(protocol: u8, ports: &Ports) -> bool {
    const OURS: [u8; 2] = MOBILE_IP_PORT.to_be_bytes();
    if protocol == IpProtocol::UDP.0 {
        return ports.first_chunk() == Some(&OURS) || ports.last_chunk() == Some(&OURS);
    }
    CARRIERS.checked_shr(u32::from(protocol)).unwrap_or(0) & 1 == 1
}

/// How a packet with this header is tunnelled, and how long the header between is. `None`
/// for what the general path has to look at: checksums, sequence numbers, reserved bits.
#[inline(always)]
fn open(packet: &Packet, outer: Head) -> Option<(Carrier, usize)> {
    const AT: usize = LINK + head::LEN;
    let (encapsulation, shim_len) = match IpProtocol(outer.protocol()) {
        IpProtocol::IP_IN_IP => (Encapsulation::IpInIp, 0),
        IpProtocol::MINIMAL => (Encapsulation::Minimal, MINIMAL),
        IpProtocol::GRE => {
            let [flags, version, high, low, key @ ..] = *packet.chunk::<8>(AT)?;
            match [flags, version, high, low] {
                [0x00, 0, 0x08, 0x00] => (Encapsulation::Gre { key: None }, 4),
                [0x20, 0, 0x08, 0x00] => {
                    (Encapsulation::Gre { key: Some(u32::from_be_bytes(key)) }, 8)
                }
                _ => return None,
            }
        }
        IpProtocol::UDP => {
            let [a, b, c, d, len_high, len_low, e, f, kind, next, g, h] =
                *packet.chunk::<12>(AT)?;
            let len = u16::from_be_bytes([len_high, len_low]);
            let is_ours = u16::from_be_bytes([c, d]) == MOBILE_IP_PORT;
            let is_whole = usize::from(len) + head::LEN == usize::from(outer.total_len());
            if !is_ours || !is_whole || [e, f] != [0, 0] {
                return None;
            }
            let peer_port = u16::from_be_bytes([a, b]);
            match [kind, next, g, h] {
                [4, 4, 0, 0] => (Encapsulation::Udp { peer_port }, 12),
                [0x45, ..] => (Encapsulation::PlainUdp { peer_port }, 8),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some((Carrier::of(encapsulation), shim_len))
}

/// Bytes of a minimal forwarding header with the original source. Without it, the
/// source is the tunnel's other end, which is no home address.
pub(super) const MINIMAL: usize = 12;

/// The packet in minimal encapsulation (RFC 2004 §3), whose header is the outer one but
/// for what its forwarding header says. Behind that, `available` bytes are in it.
#[inline(always)]
fn open_minimal(packet: &Packet, outer: Head, available: usize) -> Option<(Head, &Ports)> {
    const WHOLE: usize = MINIMAL + size_of::<Ports>();
    if available < size_of::<Ports>() {
        return None;
    }
    let (shim, ports) = packet.chunk::<WHOLE>(LINK + head::LEN)?.split_first_chunk()?;
    let (protocol, source, destination) = head::read_forwarding(shim)?;
    let total_len = outer.total_len().checked_sub(MINIMAL as u16)?;
    let head = outer.carrying(protocol, total_len).between(source, destination);
    Some((head, ports.first_chunk()?))
}
