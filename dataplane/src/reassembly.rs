//! Putting fragments together where a tunnel ends (RFC 791 §3.2, RFC 1122 §3.3.2,
//! RFC 2003 §5.1): a worker's own, bounded in every direction, all memory taken
//! when it is made.
//!
//! # Bounds
//!
//! At most [`MAX_FRAGMENTS`] fragments wait, at most [`MAX_FRAGMENTS_PER_SOURCE`]
//! of them from one source (sources whose keyed hashes meet share a bound), at
//! most [`MAX_FRAGMENTS_PER_DATAGRAM`] of one datagram, which is at most
//! [`MAX_DATAGRAM`] bytes long, for at most [`TIMEOUT`]. At a bound the oldest
//! unfinished datagram goes: whoever floods with fragments that are never finished
//! loses his own, and those of others only when they take longer to arrive than the
//! flood takes to fill everything anew.
//!
//! # Rules
//!
//! What comes out is the datagram that was sent, or nothing. Fragments that overlap
//! end the whole datagram, as in IPv6 (RFC 5722 §3), but an exact repetition only
//! itself; a first fragment too short for the headers that decide about it is
//! refused (RFC 1858 §3); congestion marks of fragments are kept (RFC 3168 §5.3).

mod store;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use homeport_wire::{Ipv4Header, MacAddress, PortId, checksum};
use zerocopy::FromBytes;

use crate::classify::Origin;
use crate::packet::{LARGE_DATA_ROOM, Packet, PacketPool};
use crate::verdict::DropReason;
use store::{Key, Place, Store};

/// The most fragments that wait on one worker.
pub const MAX_FRAGMENTS: usize = 1024;

/// The most fragments that wait from one source.
pub const MAX_FRAGMENTS_PER_SOURCE: usize = 256;

/// The most fragments of one datagram.
pub const MAX_FRAGMENTS_PER_DATAGRAM: usize = 32;

/// The longest payload of a datagram that is put together, in bytes: with the
/// longest header it still fits a large buffer.
pub const MAX_DATAGRAM: usize = LARGE_DATA_ROOM - 60;

/// How long the rest of a datagram is waited for (RFC 791 §3.2). The sixty seconds
/// of RFC 1122 §3.3.2 are longer than a fast sender's identifications last
/// (RFC 4963 §3).
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// Any link carries a packet this long in one piece (RFC 791 §3.2), so nobody
/// honest cuts a shorter first fragment; it has room for every header that an
/// encapsulation puts in front.
const MIN_FIRST_FRAGMENT: u16 = 68;

/// How many packets one call can release: two datagrams that make room, one that
/// ends, and the fragment itself.
const MAX_RELEASED: usize = 3 * MAX_FRAGMENTS_PER_DATAGRAM + 1;

/// What became of a fragment that does not wait any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Its bytes are part of the datagram that was put together.
    Joined,
    /// It is of no use.
    Dropped(DropReason),
}

/// The datagrams that are not whole yet.
pub struct Reassembly {
    store: Store,
    released: VecDeque<(Packet, Release)>,
}

impl Reassembly {
    /// Nothing waits. `seed` keys the hashes: outsiders choose what is hashed.
    pub fn new(seed: [u64; 2]) -> Self {
        Reassembly { store: Store::new(seed), released: VecDeque::with_capacity(MAX_RELEASED) }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.store.fragments() == 0
    }

    /// How many fragments wait.
    pub fn fragments(&self) -> usize {
        self.store.fragments()
    }

    /// Takes a fragment, at its IPv4 header, cut to its length. When it was the
    /// last one missing, the datagram comes back, with the origin of its first
    /// fragment.
    ///
    /// Fragments are of one datagram when tenant, addresses, protocol and
    /// identification are equal (RFC 791 §2.3), and `station` is: the station that
    /// sent it, where addresses alone do not tell stations apart.
    ///
    /// What becomes of the fragments is to be asked of [`Reassembly::poll_released`]
    /// before the next call.
    pub fn push(
        &mut self,
        packet: Packet,
        origin: Origin,
        station: Option<(PortId, MacAddress)>,
        now: Instant,
        pool: &mut PacketPool,
    ) -> Option<(Packet, Origin)> {
        let Some(fragment) = Fragment::read(&packet, station) else {
            self.release(packet, DropReason::FragmentMalformed);
            return None;
        };
        if fragment.is_tiny {
            self.release(packet, DropReason::FragmentTiny);
            return None;
        }
        let known = self.store.find(&fragment.key);
        if fragment.end > MAX_DATAGRAM {
            self.end(known, packet, DropReason::FragmentTooLong);
            return None;
        }
        let place = known.map_or(Place::After(None), |at| self.store.place(at, &fragment, &packet));
        let after = match place {
            Place::After(piece) => piece,
            Place::Duplicate => {
                self.release(packet, DropReason::FragmentDuplicate);
                return None;
            }
            Place::Overlap => {
                self.end(known, packet, DropReason::FragmentOverlap);
                return None;
            }
            Place::Full => {
                self.end(known, packet, DropReason::FragmentTooMany);
                return None;
            }
        };
        self.make_room(&fragment.key);
        // Room may have been made of this very datagram: then this begins another,
        // which cannot be finished.
        let again = known.filter(|_| self.store.find(&fragment.key).is_some());
        let begun = match again {
            Some(at) => Some((at, after)),
            None => self.store.begin(fragment.key, origin, now + TIMEOUT).map(|at| (at, None)),
        };
        let Some((at, after)) = begun else {
            self.release(packet, DropReason::FragmentEvicted);
            return None;
        };
        self.store.insert(at, after, &fragment, packet, origin);
        self.store.is_whole(at).then(|| self.join(at, pool)).flatten()
    }

    /// Ends the oldest datagram if it has waited too long. To be called until it
    /// says no.
    pub fn expire(&mut self, now: Instant) -> bool {
        let Some((at, _)) = self.store.oldest().filter(|(_, until)| now >= *until) else {
            return false;
        };
        self.discard(at, DropReason::FragmentTimeout);
        true
    }

    /// The next fragment that does not wait any longer.
    pub fn poll_released(&mut self) -> Option<(Packet, Release)> {
        self.released.pop_front()
    }

    fn make_room(&mut self, key: &Key) {
        if self.store.fragments_of_source(key) >= MAX_FRAGMENTS_PER_SOURCE
            && let Some(at) = self.store.oldest_of_source(key)
        {
            self.discard(at, DropReason::FragmentEvicted);
        }
        if self.store.fragments() >= MAX_FRAGMENTS
            && let Some((at, _)) = self.store.oldest()
        {
            self.discard(at, DropReason::FragmentEvicted);
        }
    }

    /// Ends a datagram because of its fragment `packet`.
    fn end(&mut self, known: Option<u32>, packet: Packet, reason: DropReason) {
        if let Some(at) = known {
            self.discard(at, reason);
        }
        self.release(packet, reason);
    }

    fn discard(&mut self, at: u32, reason: DropReason) {
        let Reassembly { store, released } = self;
        store.remove(at, |packet| released.push_back((packet, Release::Dropped(reason))));
    }

    fn release(&mut self, packet: Packet, reason: DropReason) {
        self.released.push_back((packet, Release::Dropped(reason)));
    }

    /// Copies the fragments into one packet. The first fragment is replaced by it,
    /// the others are released.
    fn join(&mut self, at: u32, pool: &mut PacketPool) -> Option<(Packet, Origin)> {
        let mut congestion = Congestion::default();
        let mut head = None;
        for packet in self.store.packets(at) {
            let (header, _) = Ipv4Header::ref_from_prefix(packet.bytes()).ok()?;
            congestion.add(header.tos);
            head.get_or_insert((*header, packet.port, packet.tenant));
        }
        let (header, port, tenant) = head?;
        let Some(tos) = congestion.of_the_whole(header.tos) else {
            self.discard(at, DropReason::EcnMismatch);
            return None;
        };
        let len = header.header_len() + self.store.end_of(at)?;
        let Some(mut whole) = pool.take_for(len) else {
            self.discard(at, DropReason::NoBuffer);
            return None;
        };
        (whole.port, whole.tenant) = (port, tenant);
        let mut written = true;
        for packet in self.store.packets(at) {
            let skip = if whole.len() == 0 { 0 } else { header_len(packet) };
            written &= whole.append(packet.bytes().get(skip..).unwrap_or_default());
        }
        // The length has sixteen bits: it is below `MAX_DATAGRAM`.
        written &= finish_header(whole.bytes_mut(), tos, len as u16);
        debug_assert!(written, "the buffer is long enough");
        let origin = self.store.origin(at);
        let Reassembly { store, released } = self;
        let mut is_first = true;
        store.remove(at, |packet| {
            if std::mem::take(&mut is_first) {
                pool.give(packet);
            } else {
                released.push_back((packet, Release::Joined));
            }
        });
        origin.map(|origin| (whole, origin))
    }
}

impl std::fmt::Debug for Reassembly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reassembly({} fragments)", self.fragments())
    }
}

/// What the header of a fragment says.
struct Fragment {
    key: Key,
    /// Its place in the datagram's payload, in bytes.
    start: usize,
    end: usize,
    /// Whether others follow.
    more: bool,
    is_tiny: bool,
}

impl Fragment {
    /// `None` when its length or place is impossible: it carries nothing, or it is
    /// not the last one and no multiple of eight long (RFC 791 §3.1).
    fn read(packet: &Packet, station: Option<(PortId, MacAddress)>) -> Option<Self> {
        let (header, _) = Ipv4Header::ref_from_prefix(packet.bytes()).ok()?;
        let len = packet.len().checked_sub(header.header_len()).filter(|len| *len > 0)?;
        let (start, more) = (usize::from(header.fragment_offset()), header.more_fragments());
        if more && !len.is_multiple_of(8) {
            return None;
        }
        let key = Key {
            tenant: packet.tenant,
            source: header.source(),
            destination: header.destination(),
            protocol: header.protocol(),
            identification: header.identification(),
            station,
        };
        let is_tiny = start == 0 && header.total_len() < MIN_FIRST_FRAGMENT;
        Some(Fragment { key, start, end: start + len, more, is_tiny })
    }
}

/// The congestion marks of a datagram's fragments.
#[derive(Default)]
struct Congestion {
    experienced: bool,
    not_capable: bool,
}

impl Congestion {
    const ECN: u8 = 0b11;

    fn add(&mut self, tos: u8) {
        self.experienced |= tos & Self::ECN == Self::ECN;
        self.not_capable |= tos & Self::ECN == 0;
    }

    /// The type of service of the whole, whose first fragment has `tos`: congestion
    /// that one fragment experienced, all did. `None` when that would mark what
    /// cannot carry the mark (RFC 3168 §5.3).
    const fn of_the_whole(&self, tos: u8) -> Option<u8> {
        match (self.experienced, self.not_capable) {
            (true, true) => None,
            (true, false) => Some(tos | Self::ECN),
            (false, _) => Some(tos),
        }
    }
}

fn header_len(packet: &Packet) -> usize {
    Ipv4Header::ref_from_prefix(packet.bytes()).map_or(0, |(header, _)| header.header_len())
}

/// Makes the header of the first fragment, options and all, that of the whole.
fn finish_header(bytes: &mut [u8], tos: u8, len: u16) -> bool {
    let Ok((header, _)) = Ipv4Header::mut_from_prefix(bytes) else { return false };
    header.tos = tos;
    header.set_total_len(len);
    header.set_fragment(0, false);
    header.set_checksum(0);
    let header_len = header.header_len();
    let Some(sum) = bytes.get(..header_len).map(checksum::checksum) else { return false };
    let Ok((header, _)) = Ipv4Header::mut_from_prefix(bytes) else { return false };
    header.set_checksum(sum);
    true
}

#[cfg(test)]
mod tests;
