//! The first stage: what a frame is, by its bytes and the tables' filters alone.

use std::net::Ipv4Addr;

use homeport_wire::{IpProtocol, MOBILE_IP_PORT, TenantId};

use super::head::{self, Head};
use crate::classify::{Tables, may_reach};
use crate::packet::Packet;
use crate::table::binding::{BindingKey, Encapsulation};
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
/// packet's.
#[derive(Clone, Copy)]
pub(crate) struct Lane {
    pub(super) kind: Kind,
    /// The header of the packet, or of the one inside.
    pub(super) head: Head,
    /// Of a tunnelled packet: from where to where, how, and where the one inside
    /// begins, from the link header on.
    pub(super) outer: (u32, u32),
    pub(super) encapsulation: Encapsulation,
    pub(super) inner_at: usize,
    pub(super) tenant: TenantId,
    pub(super) probe: Probe,
}

impl Lane {
    /// Of a packet that goes the general way.
    pub(crate) const GENERAL: Lane = Lane {
        kind: Kind::General,
        head: Head {
            source: 0,
            destination: 0,
            total_len: 0,
            tos: 0,
            protocol: 0,
            dont_fragment: false,
        },
        outer: (0, 0),
        encapsulation: Encapsulation::IpInIp,
        inner_at: 0,
        tenant: TenantId(0),
        probe: Probe::NONE,
    };
}

/// What the lanes of one burst share.
pub(super) struct Reading<'t> {
    tables: &'t Tables,
    /// The first eight bytes of frames for us: the port's address, as a word whose
    /// lower 16 bits do not count.
    mac: u64,
    /// Whether there may be visitors.
    pub(super) visiting: bool,
    /// The address of ours that the burst asked for last.
    local: Option<(u32, &'t LocalEntry)>,
}

impl<'t> Reading<'t> {
    pub(super) fn new(tables: &'t Tables, mac: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = mac;
        let mac = u64::from_be_bytes([a, b, c, d, e, f, 0, 0]);
        Reading { tables, mac, visiting: tables.visitors.may_have_any(), local: None }
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
        let to = u64::from_be_bytes(*frame.first_chunk::<8>()?);
        let is_for_us = (to ^ self.mac) >> 16 == 0;
        let is_ipv4 = frame.get(12..14)? == [0x08, 0x00];
        if !is_for_us || !is_ipv4 {
            return None;
        }
        let bytes = frame.get(LINK..)?;
        let head = Head::read(bytes)?;
        let (source, destination) = (head.source, head.destination);
        if self.may_be_local(source) {
            return None;
        }
        if self.may_be_local(destination) {
            return self.tunnelled(packet.tenant, bytes, &head, lane);
        }
        if self.may_visit(source) || self.may_visit(destination) || is_tunnel(&head, bytes) {
            return None;
        }
        (lane.head, lane.tenant) = (head, packet.tenant);
        if !self.may_be_bound(destination) {
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
    #[inline(always)]
    fn tunnelled(
        &mut self,
        tenant: TenantId,
        bytes: &[u8],
        outer: &Head,
        lane: &mut Lane,
    ) -> Option<Kind> {
        let local = self.local(outer.destination)?;
        if !may_reach(tenant, local.tenant) || self.may_visit(outer.source) {
            return None;
        }
        if !(local.home_agent || local.care_of_address || local.agent || local.broadcast) {
            (lane.head, lane.tenant) = (*outer, tenant);
            return Some(Kind::Local);
        }
        if !local.home_agent {
            return None;
        }
        // Link-layer padding is no part of it.
        let payload = bytes.get(head::LEN..usize::from(outer.total_len))?;
        let (encapsulation, shim_len) = open(outer.protocol, payload)?;
        let inner = payload.get(shim_len..)?;
        let head = Head::read(inner)?;
        // A mark of congestion is carried inward by the general path (RFC 6040).
        if (head.tos ^ outer.tos) & 0b11 != 0 || is_tunnel(&head, inner) {
            return None;
        }
        let (source, destination) = (head.source, head.destination);
        if self.may_be_local(source)
            || self.may_be_local(destination)
            || self.may_visit(destination)
            || self.may_be_bound(destination)
        {
            return None;
        }
        (lane.head, lane.tenant) = (head, local.tenant);
        lane.outer = (outer.source, outer.destination);
        (lane.encapsulation, lane.inner_at) = (encapsulation, LINK + head::LEN + shim_len);
        lane.probe = self.probe(local.tenant, source);
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

    #[inline(always)]
    fn may_be_local(&self, address: u32) -> bool {
        self.tables.locals.may_have(Ipv4Addr::from_bits(address))
    }

    #[inline(always)]
    fn may_visit(&self, address: u32) -> bool {
        self.visiting && self.tables.visitors.may_have(Ipv4Addr::from_bits(address))
    }

    #[inline(always)]
    fn may_be_bound(&self, address: u32) -> bool {
        self.tables.bindings.may_have(Ipv4Addr::from_bits(address))
    }
}

/// Whether a packet may be a tunnelled one or signalling, which loop and nest.
#[inline(always)]
fn is_tunnel(head: &Head, bytes: &[u8]) -> bool {
    match IpProtocol(head.protocol) {
        IpProtocol::TCP => false,
        IpProtocol::UDP => {
            let ports = bytes.get(head::LEN..).and_then(|udp| udp.first_chunk::<4>());
            ports.is_none_or(|[a, b, c, d]| {
                [u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])]
                    .contains(&MOBILE_IP_PORT)
            })
        }
        IpProtocol::IP_IN_IP | IpProtocol::MINIMAL | IpProtocol::GRE => true,
        _ => false,
    }
}

/// How a packet with this protocol and payload is tunnelled, and how long the header
/// between is. `None` for what the general path has to look at: minimal encapsulation,
/// which has no second header to read; checksums, sequence numbers, reserved bits.
#[inline(always)]
fn open(protocol: u8, payload: &[u8]) -> Option<(Encapsulation, usize)> {
    match IpProtocol(protocol) {
        IpProtocol::IP_IN_IP => Some((Encapsulation::IpInIp, 0)),
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
