//! The first stage: what a frame is, by its bytes and the tables' filters alone.

use std::net::Ipv4Addr;

use homeport_wire::{IpProtocol, MOBILE_IP_PORT, TenantId};

use super::head::{self, Head};
use crate::classify::{Tables, may_reach};
use crate::packet::Packet;
use crate::table::binding::{BindingKey, Carrier, Encapsulation};
use crate::table::classes::Class;
use crate::table::hash::Probe;
use crate::table::local::{LocalEntry, LocalKey};

/// Bytes of a link header and an IPv4 header without options.
pub(super) const LINK: usize = 14;

/// What is looked up for a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing here: it goes the general way.
    #[default]
    General,
    /// Its destination, which may be bound.
    Destination,
    /// Nothing: no binding is anywhere near its destination.
    Plain,
    /// The source of the packet inside, which must be bound.
    Tunnelled,
    /// No binding: it is to an address of ours that no agent has, perhaps a NAPT's.
    Local,
}

/// A packet on its way through the stages. What its kind does not need is an earlier
/// packet's. A cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Lane {
    pub(super) kind: Kind,
    /// The header of the packet, or of the one inside.
    pub(super) head: Head,
    /// Of a tunnelled packet: from where to where, how, and where the one inside
    /// begins, from the link header on.
    pub(super) outer: (u32, u32),
    pub(super) carrier: Carrier,
    pub(super) inner_at: usize,
    pub(super) tenant: TenantId,
    pub(super) probe: Probe,
}

impl Lane {
    /// Of a packet that goes the general way.
    pub(crate) const GENERAL: Lane = Lane {
        kind: Kind::General,
        head: Head::NONE,
        outer: (0, 0),
        carrier: Carrier::of(Encapsulation::IpInIp),
        inner_at: 0,
        tenant: TenantId(0),
        probe: Probe::NONE,
    };
}

/// What the lanes of one burst share.
pub(super) struct Reading<'t> {
    tables: &'t Tables,
    /// The first eight bytes of frames for us: the port's address, as the machine reads
    /// a word, of which [`MAC`] counts.
    mac: u64,
    /// The address of ours that the burst asked for last.
    local: Option<(u32, &'t LocalEntry)>,
}

/// The link-layer address in the first word of a frame.
const MAC: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);

/// What makes an address worth a second look.
pub(super) const SPECIAL: Class = Class::UNUSUAL.or(Class::LOCAL).or(Class::VISITOR);

/// Bytes of a frame that are read at once: its headers and the ports behind them. No
/// frame is so short on a link.
const START: usize = LINK + head::LEN + size_of::<Ports>();

/// The ports of a UDP or TCP packet, or what else is where they are.
type Ports = [u8; 4];

impl<'t> Reading<'t> {
    pub(super) fn new(tables: &'t Tables, mac: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = mac;
        Reading { tables, mac: u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]), local: None }
    }

    /// Reads a frame, and begins to look up what it needs.
    #[inline(always)]
    pub(super) fn read(&mut self, packet: &Packet, lane: &mut Lane) {
        // Field by field in its place: a lane that was put together elsewhere would be
        // read whole before its parts have arrived in the cache.
        lane.kind = self.kind(packet, lane).unwrap_or(Kind::General);
    }

    #[inline(always)]
    fn kind(&mut self, packet: &Packet, lane: &mut Lane) -> Option<Kind> {
        let frame = packet.bytes();
        let start = frame.first_chunk::<START>()?;
        let (link, rest) = start.split_first_chunk::<LINK>()?;
        let is_for_us = (u64::from_ne_bytes(*link.first_chunk()?) ^ self.mac) & MAC == 0;
        if !is_for_us || *link.last_chunk()? != [0x08, 0x00] {
            return None;
        }
        let (header, ports) = rest.split_first_chunk::<{ head::LEN }>()?;
        let (head, is_plain) = Head::read(header, frame.len() - LINK);
        if !is_plain {
            return None;
        }
        let (source, destination) = (head.source(), head.destination());
        let classes = &self.tables.classes;
        let (from, to) = (classes.of(source), classes.of(destination));
        if from.or(to).has(SPECIAL) {
            if from.or(to).has(Class::UNUSUAL) || self.is_local(from, source) {
                return None;
            }
            if self.is_local(to, destination) {
                return self.tunnelled(packet.tenant, frame.get(LINK..)?, head, lane);
            }
            if self.visits(from, source) || self.visits(to, destination) {
                return None;
            }
        }
        if is_tunnel(head.protocol(), *ports.first_chunk()?) {
            return None;
        }
        (lane.head, lane.tenant) = (head, packet.tenant);
        if !to.has(Class::BOUND) {
            return Some(Kind::Plain);
        }
        lane.probe = self.probe(packet.tenant, destination);
        Some(Kind::Destination)
    }

    #[inline(always)]
    fn probe(&self, tenant: TenantId, home_address: u32) -> Probe {
        let home_address = Ipv4Addr::from_bits(home_address);
        self.tables.bindings.probe(&BindingKey { tenant, home_address })
    }

    /// A packet to an address of ours: one that comes out of a tunnel here.
    #[inline(never)]
    fn tunnelled(
        &mut self,
        tenant: TenantId,
        bytes: &[u8],
        outer: Head,
        lane: &mut Lane,
    ) -> Option<Kind> {
        let local = self.local(outer.destination())?;
        let classes = &self.tables.classes;
        if !may_reach(tenant, local.tenant)
            || self.visits(classes.of(outer.source()), outer.source())
        {
            return None;
        }
        if !(local.home_agent || local.care_of_address || local.agent || local.broadcast) {
            (lane.head, lane.tenant) = (outer, tenant);
            return Some(Kind::Local);
        }
        if !local.home_agent {
            return None;
        }
        // Link-layer padding is no part of it.
        let payload = bytes.get(head::LEN..usize::from(outer.total_len()))?;
        let (encapsulation, shim_len) = open(IpProtocol(outer.protocol()), payload)?;
        let (head, ports) = match encapsulation {
            Encapsulation::Minimal => open_minimal(outer, payload)?,
            _ => {
                let inner = payload.get(shim_len..)?;
                let (header, rest) = inner.split_first_chunk()?;
                let (head, is_plain) = Head::read(header, inner.len());
                // A mark of congestion is carried inward by the general path (RFC 6040).
                if !is_plain || (head.tos() ^ outer.tos()) & 0b11 != 0 {
                    return None;
                }
                (head, *rest.first_chunk()?)
            }
        };
        if is_tunnel(head.protocol(), ports) {
            return None;
        }
        let (from, to) = (classes.of(head.source()), classes.of(head.destination()));
        if from.or(to).has(SPECIAL)
            && (from.or(to).has(Class::UNUSUAL)
                || self.is_local(from, head.source())
                || self.is_local(to, head.destination())
                || self.visits(to, head.destination()))
        {
            return None;
        }
        if to.has(Class::BOUND) {
            return None;
        }
        (lane.head, lane.tenant) = (head, local.tenant);
        lane.outer = (outer.source(), outer.destination());
        lane.carrier = Carrier::of(encapsulation);
        lane.inner_at = LINK + head::LEN + shim_len;
        lane.probe = self.probe(local.tenant, head.source());
        Some(Kind::Tunnelled)
    }

    #[inline(always)]
    fn local(&mut self, address: u32) -> Option<&'t LocalEntry> {
        match self.local {
            Some((known, entry)) if known == address => Some(entry),
            _ => {
                let key = LocalKey { address: Ipv4Addr::from_bits(address) };
                let entry = self.tables.locals.lookup(&key)?;
                self.local = Some((address, entry));
                Some(entry)
            }
        }
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

/// A bit for each protocol that may carry a tunnelled packet or signalling.
const CARRIERS: u64 = 1 << IpProtocol::UDP.0
    | 1 << IpProtocol::IP_IN_IP.0
    | 1 << IpProtocol::MINIMAL.0
    | 1 << IpProtocol::GRE.0;

/// Whether a packet may be a tunnelled one or signalling, which loop and nest.
#[inline(always)]
fn is_tunnel(protocol: u8, ports: Ports) -> bool {
    const OURS: u32 = MOBILE_IP_PORT as u32;
    let may_carry = CARRIERS.checked_shr(u32::from(protocol)).unwrap_or(0) & 1 == 1;
    let ports = u32::from_be_bytes(ports);
    may_carry && (protocol != IpProtocol::UDP.0 || ports >> 16 == OURS || ports & 0xffff == OURS)
}

/// How a packet with this protocol and payload is tunnelled, and how long the header
/// between is. `None` for what the general path has to look at: checksums, sequence
/// numbers, reserved bits.
#[inline(always)]
fn open(protocol: IpProtocol, payload: &[u8]) -> Option<(Encapsulation, usize)> {
    match protocol {
        IpProtocol::IP_IN_IP => Some((Encapsulation::IpInIp, 0)),
        IpProtocol::MINIMAL => Some((Encapsulation::Minimal, MINIMAL)),
        IpProtocol::GRE => {
            let [flags, version, high, low, key @ ..] = *payload.first_chunk::<8>()?;
            match [flags, version, high, low] {
                [0x00, 0, 0x08, 0x00] => Some((Encapsulation::Gre { key: None }, 4)),
                [0x20, 0, 0x08, 0x00] => {
                    Some((Encapsulation::Gre { key: Some(u32::from_be_bytes(key)) }, 8))
                }
                _ => None,
            }
        }
        IpProtocol::UDP => {
            let [a, b, c, d, len_high, len_low, e, f, kind, next, g, h] =
                *payload.first_chunk::<12>()?;
            let is_ours = u16::from_be_bytes([c, d]) == MOBILE_IP_PORT;
            let is_whole = usize::from(u16::from_be_bytes([len_high, len_low])) == payload.len();
            if !is_ours || !is_whole || [e, f] != [0, 0] {
                return None;
            }
            let peer_port = u16::from_be_bytes([a, b]);
            match [kind, next, g, h] {
                [4, 4, 0, 0] => Some((Encapsulation::Udp { peer_port }, 12)),
                [0x45, ..] => Some((Encapsulation::PlainUdp { peer_port }, 8)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Bytes of a minimal forwarding header with the original source. Without it, the
/// source is the tunnel's other end, which is no home address.
pub(super) const MINIMAL: usize = 12;

/// The packet in minimal encapsulation (RFC 2004 §3), whose header is the outer one but
/// for what its forwarding header says.
#[inline(always)]
fn open_minimal(outer: Head, payload: &[u8]) -> Option<(Head, Ports)> {
    let (shim, rest) = payload.split_first_chunk::<MINIMAL>()?;
    let words: [u32; 3] = head::words(shim);
    let [protocol, flags, ..] = *shim;
    // The bits below are reserved and ignored.
    if flags & 0x80 == 0 || !head::is_summed(words) {
        return None;
    }
    let [_, destination, source] = words.map(u32::from_be);
    let total_len = outer.total_len().checked_sub(MINIMAL as u16)?;
    let head = outer.carrying(protocol, total_len).between(source, destination);
    Some((head, *rest.first_chunk()?))
}
