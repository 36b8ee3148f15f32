//! Fragments in any order, of any number of datagrams, honest and not.

use super::*;
use crate::fragment::fragment;
use crate::packet::Burst;
use homeport_wire::{EthernetHeader, IpProtocol, Ipv4Packet, TenantId};
use proptest::prelude::*;
use std::net::Ipv4Addr;
use zerocopy::IntoBytes;

const US: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const BUFFERS: usize = MAX_FRAGMENTS + MAX_RELEASED;
const LARGE: usize = 2;

/// A reassembly, the pool that its packets come from, and what it said.
struct Rig {
    reassembly: Reassembly,
    pool: PacketPool,
    now: Instant,
    dropped: Vec<DropReason>,
    joined: usize,
}

/// A fragment to be made.
#[derive(Clone, Copy)]
struct Part<'a> {
    source: Ipv4Addr,
    identification: u16,
    offset: usize,
    more: bool,
    tos: u8,
    payload: &'a [u8],
}

impl<'a> Part<'a> {
    fn new(identification: u16, offset: usize, more: bool, payload: &'a [u8]) -> Self {
        let source = Ipv4Addr::new(10, 0, 2, 2);
        Part { source, identification, offset, more, tos: 0, payload }
    }
}

impl Rig {
    fn new() -> Self {
        Rig {
            reassembly: Reassembly::new([3, 4]),
            pool: PacketPool::with_large(BUFFERS, LARGE),
            now: Instant::now(),
            dropped: Vec::new(),
            joined: 0,
        }
    }

    /// Takes a fragment; returns the datagram that it completes.
    fn push(&mut self, part: Part<'_>) -> Option<Vec<u8>> {
        let packet = self.packet(part);
        self.push_packet(packet, None)
    }

    fn packet(&mut self, part: Part<'_>) -> Packet {
        let len = (Ipv4Header::LEN + part.payload.len()) as u16;
        let mut header = Ipv4Header::unsummed(part.source, US, IpProtocol::IP_IN_IP, 64, len);
        header.set_identification(part.identification);
        header.set_fragment(part.offset as u16, part.more);
        header.tos = part.tos;
        header.fill_checksum();
        let mut packet = self.pool.take().unwrap();
        assert!(packet.set_bytes(part.payload) && packet.prepend(header.as_bytes()));
        packet
    }

    fn push_packet(
        &mut self,
        packet: Packet,
        station: Option<(PortId, MacAddress)>,
    ) -> Option<Vec<u8>> {
        let Rig { reassembly, pool, now, .. } = self;
        let whole = reassembly.push(packet, Origin::Own, station, *now, pool);
        let bytes = whole.map(|(packet, _)| {
            let bytes = packet.bytes().to_vec();
            pool.give(packet);
            bytes
        });
        self.collect();
        bytes
    }

    fn collect(&mut self) {
        while let Some((packet, release)) = self.reassembly.poll_released() {
            match release {
                Release::Joined => self.joined += 1,
                Release::Dropped(reason) => self.dropped.push(reason),
            }
            self.pool.give(packet);
        }
        assert!(self.reassembly.fragments() <= MAX_FRAGMENTS);
        assert!(self.reassembly.fragments() <= BUFFERS - self.pool.available());
    }

    /// Lets everything time out: the pool is as full as it was at first.
    fn time_out(&mut self) {
        self.now += TIMEOUT;
        while self.reassembly.expire(self.now) {
            self.collect();
        }
        assert!(self.reassembly.is_empty());
        assert_eq!((self.pool.available(), self.pool.available_large()), (BUFFERS, LARGE));
    }

    fn count(&self, reason: DropReason) -> usize {
        self.dropped.iter().filter(|dropped| **dropped == reason).count()
    }
}

/// The payload of a whole datagram.
fn payload_of(bytes: &[u8]) -> Vec<u8> {
    let packet = Ipv4Packet::new_checked(bytes).unwrap();
    assert!(!packet.header().is_fragment());
    packet.payload().to_vec()
}

/// A datagram's parts of `size` bytes each.
fn parts(identification: u16, payload: &[u8], size: usize) -> Vec<Part<'_>> {
    let count = payload.len().div_ceil(size);
    let part = |(index, piece)| Part::new(identification, index * size, index + 1 < count, piece);
    payload.chunks(size).enumerate().map(part).collect()
}

proptest! {
    /// Reliability row 28, B-05: cut by our own fragmentation, and perhaps cut
    /// again; in any order, some twice, with any subset missing: the exact datagram
    /// or nothing.
    #[test]
    fn fragments_in_any_order_make_the_exact_datagram_or_nothing(
        payload in proptest::collection::vec(any::<u8>(), 49..1900),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
        mtu in 68u16..600, second_mtu in 68u16..600,
    ) {
        let mut rig = Rig::new();
        let whole = rig.packet(Part::new(7, 0, false, &payload));
        let sent = whole.bytes().to_vec();
        let mut cut = Burst::new();
        prop_assume!(fragment(whole, mtu, &mut rig.pool, &mut cut).is_ok());
        let mut parts: Vec<Packet> = Vec::new();
        for part in cut.drain() {
            let mut again = Burst::new();
            match fragment(part, second_mtu, &mut rig.pool, &mut again) {
                Ok(()) => parts.extend(again.drain()),
                Err((part, _)) => parts.push(part),
            }
        }
        prop_assume!(parts.len() > 1 && parts.len() <= MAX_FRAGMENTS_PER_DATAGRAM);
        let frames: Vec<Vec<u8>> = parts.iter().map(|part| part.bytes().to_vec()).collect();
        for part in parts {
            rig.pool.give(part);
        }
        let mut missing: std::collections::BTreeSet<usize> = (0..frames.len()).collect();
        for index in order {
            let at = index.index(frames.len());
            let was_missing = missing.remove(&at);
            let mut packet = rig.pool.take().unwrap();
            prop_assert!(packet.set_bytes(&frames[at]));
            let result = rig.push_packet(packet, None);
            if missing.is_empty() {
                prop_assert!(was_missing);
                prop_assert_eq!(result, Some(sent));
                prop_assert_eq!(rig.joined, frames.len() - 1);
                prop_assert!(rig.reassembly.is_empty());
                break;
            }
            prop_assert_eq!(result, None);
            prop_assert_eq!(rig.count(DropReason::FragmentDuplicate), rig.dropped.len());
        }
        rig.time_out();
    }

    /// Whatever comes, bounds hold, nothing leaks, and what comes out was sent
    /// without a contradiction: each of its bytes is that of some fragment.
    #[test]
    fn noise_holds_no_more_than_the_bounds_and_leaks_nothing(
        noise in proptest::collection::vec(
            (0u16..3, 0usize..6, 0usize..80, any::<bool>(), 0u8..4, 0u8..3), 0..200),
    ) {
        let mut rig = Rig::new();
        for (identification, offset, len, more, tos, fill) in noise {
            let payload = vec![fill; len];
            let part = Part { tos, ..Part::new(identification, offset * 8, more, &payload) };
            if let Some(whole) = rig.push(part) {
                prop_assert!(payload_of(&whole).iter().all(|byte| *byte < 3));
            }
            rig.now += Duration::from_millis(300);
            while rig.reassembly.expire(rig.now) {
                rig.collect();
            }
        }
        rig.time_out();
    }
}

/// B-05: a datagram of 8,000 bytes, and the longest of all, in a large buffer.
#[test]
fn a_long_datagram_is_put_together_in_a_large_buffer() {
    for len in [2028, 2029, 8000, MAX_DATAGRAM] {
        let payload: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let mut rig = Rig::new();
        let mut whole = None;
        for part in parts(1, &payload, 1480).into_iter().rev() {
            assert_eq!(whole, None);
            whole = rig.push(part);
        }
        assert_eq!(payload_of(&whole.unwrap()), payload);
        assert_eq!((rig.joined, rig.dropped.len()), (len.div_ceil(1480) - 1, 0));
        rig.time_out();
    }
}

#[test]
fn options_of_the_first_fragment_are_those_of_the_whole() {
    let mut rig = Rig::new();
    let mut first = rig.packet(Part::new(1, 0, true, &[1; 64]));
    let mut header = first.bytes()[..20].to_vec();
    header.extend([7, 3, 4, 0]); // record route, without room
    header[0] = 0x46;
    header[2..4].copy_from_slice(&88u16.to_be_bytes());
    header[10..12].fill(0);
    let sum = checksum::checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    assert!(first.strip(20) && first.prepend(&header));
    assert_eq!(rig.push(Part::new(1, 64, false, &[2; 10])), None);
    let whole = rig.push_packet(first, None).unwrap();
    let packet = Ipv4Packet::new_checked(&whole).unwrap();
    assert_eq!(packet.header().header_len(), 24);
    assert_eq!(whole[20..24], [7, 3, 4, 0]);
    assert_eq!(packet.payload(), [[1; 64].as_slice(), &[2; 10]].concat());
}

/// Reliability row 28; RFC 5722 §3.
// Shows attack-28.
#[test]
fn fragments_that_overlap_end_the_whole_datagram() {
    let overlaps: [(usize, bool, &[u8]); 8] = [
        (0, true, &[9; 64]),   // the same place, other bytes
        (0, true, &[1; 72]),   // longer
        (0, false, &[1; 64]),  // the same bytes as the last fragment
        (56, true, &[1; 16]),  // one in two
        (120, true, &[1; 16]), // over the front of another
        (128, false, &[1; 8]), // another end
        (8, true, &[1; 8]),    // inside
        (64, false, &[1; 8]),  // an end in front of what is here
    ];
    for (offset, more, payload) in overlaps {
        let mut rig = Rig::new();
        rig.push(Part::new(1, 0, true, &[1; 64]));
        rig.push(Part::new(1, 128, true, &[1; 64]));
        assert_eq!(rig.push(Part::new(1, offset, more, payload)), None);
        assert_eq!(rig.count(DropReason::FragmentOverlap), 3, "{offset} {more}");
        assert!(rig.reassembly.is_empty());
    }
    // Behind the end, and a second end.
    for (offset, more) in [(64, true), (72, false)] {
        let mut rig = Rig::new();
        rig.push(Part::new(1, 32, false, &[1; 32]));
        rig.push(Part::new(1, offset, more, &[1; 8]));
        assert_eq!(rig.count(DropReason::FragmentOverlap), 2);
    }
}

#[test]
fn an_exact_repetition_costs_only_itself() {
    let mut rig = Rig::new();
    for _ in 0..3 {
        assert_eq!(rig.push(Part::new(1, 0, true, &[1; 64])), None);
        assert_eq!(rig.push(Part::new(1, 128, false, &[3; 9])), None);
    }
    let whole = rig.push(Part::new(1, 64, true, &[2; 64])).unwrap();
    assert_eq!(payload_of(&whole), [[1; 64].as_slice(), &[2; 64], &[3; 9]].concat());
    assert_eq!(rig.dropped, [DropReason::FragmentDuplicate; 4]);
}

/// Reliability row 28; RFC 791 §3.2, RFC 1858 §3.
#[test]
fn tiny_and_malformed_fragments_and_too_long_datagrams_are_refused_by_name() {
    let mut rig = Rig::new();
    rig.push(Part::new(1, 0, true, &[1; 40]));
    rig.push(Part::new(1, 0, true, &[]));
    rig.push(Part::new(1, 64, false, &[]));
    rig.push(Part::new(1, 64, true, &[1; 63]));
    let malformed = DropReason::FragmentMalformed;
    assert_eq!(rig.dropped, [DropReason::FragmentTiny, malformed, malformed, malformed]);
    assert!(rig.reassembly.is_empty());
    // The shortest that a link may cut, and short ones behind it.
    assert_eq!(rig.push(Part::new(1, 0, true, &[1; 48])), None);
    assert_eq!(rig.push(Part::new(1, 48, true, &[1; 8])), None);
    assert!(rig.push(Part::new(1, 56, false, &[1; 1])).is_some());
    // One byte too long, and the ping of death.
    for end in [MAX_DATAGRAM + 1, 65_528 + 8] {
        let mut rig = Rig::new();
        rig.push(Part::new(1, 0, true, &[1; 64]));
        let start = (end - 1) / 8 * 8;
        rig.push(Part::new(1, start, false, &vec![1; end - start]));
        assert_eq!(rig.dropped, [DropReason::FragmentTooLong; 2]);
    }
}

#[test]
fn more_fragments_than_one_datagram_may_have_end_it() {
    let mut rig = Rig::new();
    for index in 0..=MAX_FRAGMENTS_PER_DATAGRAM {
        rig.push(Part::new(1, index * 64, true, &[1; 64]));
    }
    let expected = MAX_FRAGMENTS_PER_DATAGRAM + 1;
    assert_eq!(rig.count(DropReason::FragmentTooMany), expected);
    rig.time_out();
}

/// RFC 3168 §5.3.
#[test]
fn congestion_of_one_fragment_is_that_of_the_whole() {
    for (first, second, expected) in [
        (0b00, 0b00, Some(0b00)),
        (0b10, 0b10, Some(0b10)),
        (0b10, 0b11, Some(0b11)),
        (0b11, 0b01, Some(0b11)),
        (0b11, 0b11, Some(0b11)),
        (0b00, 0b11, None),
        (0b11, 0b00, None),
    ] {
        let mut rig = Rig::new();
        rig.push(Part { tos: 0xb8 | first, ..Part::new(1, 0, true, &[1; 64]) });
        let whole = rig.push(Part { tos: 0xb8 | second, ..Part::new(1, 64, false, &[1; 64]) });
        let tos = whole.map(|bytes| Ipv4Packet::new_checked(&bytes).unwrap().header().tos);
        assert_eq!(tos, expected.map(|ecn| 0xb8 | ecn), "{first:02b} {second:02b}");
        assert_eq!(rig.count(DropReason::EcnMismatch), if tos.is_none() { 2 } else { 0 });
        rig.time_out();
    }
}

#[test]
fn what_belongs_to_different_datagrams_is_not_mixed() {
    let mut rig = Rig::new();
    let (mac, port) = (MacAddress([2; 6]), PortId(1));
    rig.push(Part::new(1, 0, true, &[1; 64]));
    let last = Part::new(1, 64, false, &[2; 8]);
    assert_eq!(rig.push(Part { identification: 2, ..last }), None);
    assert_eq!(rig.push(Part { source: Ipv4Addr::new(10, 0, 2, 3), ..last }), None);
    let mut other_tenant = rig.packet(last);
    other_tenant.tenant = TenantId(9);
    assert_eq!(rig.push_packet(other_tenant, None), None);
    let other_station = rig.packet(last);
    assert_eq!(rig.push_packet(other_station, Some((port, mac))), None);
    assert!(rig.push(last).is_some());
    assert_eq!(rig.reassembly.fragments(), 4);
    rig.time_out();
    assert_eq!(rig.count(DropReason::FragmentTimeout), 4);
}

#[test]
fn the_whole_has_the_origin_and_the_marks_of_its_first_fragment() {
    let mut rig = Rig::new();
    let ethernet =
        EthernetHeader::new(MacAddress([2; 6]), MacAddress([4; 6]), homeport_wire::EtherType::IPV4);
    let (mut first, mut last) =
        (rig.packet(Part::new(1, 0, true, &[1; 64])), rig.packet(Part::new(1, 64, false, &[1; 8])));
    (first.port, last.port) = (PortId(3), PortId(4));
    (first.tenant, last.tenant) = (TenantId(7), TenantId(7));
    let link = Origin::Link { port: PortId(3), ethernet };
    let Rig { reassembly, pool, now, .. } = &mut rig;
    assert!(reassembly.push(last, Origin::Tunnel, None, *now, pool).is_none());
    let (whole, origin) = reassembly.push(first, link, None, *now, pool).unwrap();
    assert_eq!((whole.port, whole.tenant), (PortId(3), TenantId(7)));
    assert!(matches!(origin, Origin::Link { port: PortId(3), .. }));
    let (joined, release) = reassembly.poll_released().unwrap();
    assert_eq!((joined.port, release), (PortId(4), Release::Joined));
}

#[test]
fn without_a_buffer_for_the_whole_all_its_fragments_are_given_up() {
    let mut rig = Rig::new();
    let taken: Vec<Packet> = (0..LARGE).map(|_| rig.pool.take_for(8000).unwrap()).collect();
    let payload = vec![1; 8000];
    assert!(parts(1, &payload, 1480).into_iter().all(|part| rig.push(part).is_none()));
    assert_eq!(rig.dropped, [DropReason::NoBuffer; 6]);
    for packet in taken {
        rig.pool.give(packet);
    }
    rig.time_out();
}

/// Each datagram has its full time, and no longer.
#[test]
fn an_unfinished_datagram_is_given_up_in_its_time() {
    let mut rig = Rig::new();
    rig.push(Part::new(1, 0, true, &[1; 64]));
    rig.now += TIMEOUT / 2;
    rig.push(Part::new(2, 0, true, &[1; 64]));
    rig.push(Part::new(1, 64, true, &[1; 64]));
    rig.now += TIMEOUT / 2 - Duration::from_nanos(1);
    assert!(!rig.reassembly.expire(rig.now));
    rig.now += Duration::from_nanos(1);
    assert!(rig.reassembly.expire(rig.now) && !rig.reassembly.expire(rig.now));
    rig.collect();
    assert_eq!(rig.dropped, [DropReason::FragmentTimeout; 2]);
    assert!(rig.push(Part::new(2, 64, false, &[1; 64])).is_some());
}

/// Reliability row 28: a million fragments that are never finished, from as many
/// forged sources, then from one; honest datagrams in between lose nothing.
#[test]
fn a_million_unfinished_fragments_cost_honest_datagrams_nothing() {
    let mut rig = Rig::new();
    let payload: Vec<u8> = (0..2900).map(|at| (at % 251) as u8).collect();
    let (mut honest, mut whole) = (0, 0);
    let mut flood = 0u32;
    let mut flood_with = |rig: &mut Rig, count: u32, one_source: bool| {
        for _ in 0..count {
            flood += 1;
            let source = if one_source { 0x0a63_0001 } else { 0x0b00_0000 + flood };
            let part = Part::new(flood as u16, 0, true, &[0; 48]);
            rig.push(Part { source: Ipv4Addr::from_bits(source), ..part });
        }
    };
    for round in 0..2000u32 {
        for part in parts(round as u16, &payload, 1456) {
            if let Some(bytes) = rig.push(part) {
                whole += 1;
                assert_eq!(payload_of(&bytes), payload);
            }
            // Half of the bound comes between two fragments of one datagram.
            flood_with(&mut rig, MAX_FRAGMENTS as u32 / 2, round % 2 == 1);
        }
        honest += 1;
        rig.dropped.clear();
        assert!(rig.reassembly.fragments() <= MAX_FRAGMENTS);
    }
    assert!(flood >= 1_000_000);
    assert_eq!((whole, honest), (2000, 2000));
    rig.time_out();
}

/// The bound of one source leaves the others theirs.
// Shows attack-28.
#[test]
fn one_source_has_no_more_than_its_share() {
    let mut rig = Rig::new();
    rig.push(Part { source: Ipv4Addr::new(10, 9, 9, 9), ..Part::new(1, 0, true, &[1; 64]) });
    for identification in 0..5000 {
        rig.push(Part::new(identification, 0, true, &[1; 64]));
    }
    assert_eq!(rig.reassembly.fragments(), MAX_FRAGMENTS_PER_SOURCE + 1);
    assert_eq!(rig.count(DropReason::FragmentEvicted), 5000 - MAX_FRAGMENTS_PER_SOURCE);
    let last = Part::new(1, 64, false, &[1; 8]);
    assert!(rig.push(Part { source: Ipv4Addr::new(10, 9, 9, 9), ..last }).is_some());
    rig.time_out();
}
