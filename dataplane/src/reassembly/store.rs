//! Where unfinished datagrams are kept: two slabs of fixed size, and lists that are
//! threaded through them by number. Every step but the walk along one datagram's
//! fragments takes constant time.

use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;
use std::time::Instant;

use homeport_wire::{IpProtocol, MacAddress, PortId, TenantId};
use siphasher::sip::SipHasher13;

use super::{Fragment, MAX_FRAGMENTS, MAX_FRAGMENTS_PER_DATAGRAM};
use crate::classify::Origin;
use crate::packet::Packet;

/// Lists that datagrams are found in, by key and by source: as many as there may be
/// datagrams.
const BUCKETS: usize = MAX_FRAGMENTS;

/// What fragments of one datagram have in common (RFC 791 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) tenant: TenantId,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: IpProtocol,
    pub(super) identification: u16,
    pub(super) station: Option<(PortId, MacAddress)>,
}

/// Where a fragment belongs among those of its datagram that are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind this one; `None`: in front of all.
    After(Option<u32>),
    /// It is here already, byte for byte.
    Duplicate,
    /// It has bytes in common with another, or contradicts what is known of the
    /// datagram's end.
    Overlap,
    /// There is no room for another one.
    Full,
}

struct Datagram {
    key: Key,
    until: Instant,
    origin: Origin,
    /// Its fragments, in the order of their offsets.
    first: Option<u32>,
    count: usize,
    /// Bytes of payload that are here.
    received: usize,
    /// Bytes of the whole payload, once the last fragment is here.
    end: Option<usize>,
    by_key: Links,
    by_source: Links,
    by_age: Links,
}

struct Piece {
    packet: Packet,
    start: usize,
    end: usize,
    next: Option<u32>,
}

/// The neighbours of a datagram in one list.
#[derive(Clone, Copy, Default)]
struct Links {
    before: Option<u32>,
    after: Option<u32>,
}

/// A list of datagrams, the oldest first.
#[derive(Clone, Copy, Default)]
struct List {
    first: Option<u32>,
    last: Option<u32>,
}

/// The sources with one hash.
#[derive(Clone, Copy, Default)]
struct Source {
    datagrams: List,
    fragments: usize,
}

/// A place of each kind for every fragment that may wait: a datagram has at least
/// one.
pub(super) struct Store {
    seed: [u64; 2],
    datagrams: Slab<Datagram>,
    pieces: Slab<Piece>,
    keys: Vec<List>,
    sources: Vec<Source>,
    ages: List,
}

impl Store {
    pub(super) fn new(seed: [u64; 2]) -> Self {
        Store {
            seed,
            datagrams: Slab::new(MAX_FRAGMENTS),
            pieces: Slab::new(MAX_FRAGMENTS),
            keys: vec![List::default(); BUCKETS],
            sources: vec![Source::default(); BUCKETS],
            ages: List::default(),
        }
    }

    /// How many fragments there are.
    pub(super) fn fragments(&self) -> usize {
        self.pieces.len()
    }

    /// How many fragments there are of the sources that share this one's bound.
    pub(super) fn fragments_of_source(&self, key: &Key) -> usize {
        self.sources.get(self.source_bucket(key)).map_or(0, |source| source.fragments)
    }

    pub(super) fn oldest_of_source(&self, key: &Key) -> Option<u32> {
        self.sources.get(self.source_bucket(key))?.datagrams.first
    }

    /// The oldest datagram, and when it has waited too long.
    pub(super) fn oldest(&self) -> Option<(u32, Instant)> {
        let at = self.ages.first?;
        Some((at, self.datagrams.get(at)?.until))
    }

    pub(super) fn find(&self, key: &Key) -> Option<u32> {
        let mut at = self.keys.get(self.key_bucket(key))?.first;
        while let Some(datagram) = at.and_then(|at| self.datagrams.get(at)) {
            if datagram.key == *key {
                return at;
            }
            at = datagram.by_key.after;
        }
        None
    }

    /// A new datagram without fragments; `None` when there is no place.
    pub(super) fn begin(&mut self, key: Key, origin: Origin, until: Instant) -> Option<u32> {
        let (key_bucket, source_bucket) = (self.key_bucket(&key), self.source_bucket(&key));
        let links = Links::default();
        let datagram = Datagram {
            key,
            until,
            origin,
            first: None,
            count: 0,
            received: 0,
            end: None,
            by_key: links,
            by_source: links,
            by_age: links,
        };
        let at = self.datagrams.insert(datagram)?;
        let datagrams = &mut self.datagrams;
        if let Some(list) = self.keys.get_mut(key_bucket) {
            list.append(datagrams, at, |datagram| &mut datagram.by_key);
        }
        if let Some(source) = self.sources.get_mut(source_bucket) {
            source.datagrams.append(datagrams, at, |datagram| &mut datagram.by_source);
        }
        self.ages.append(datagrams, at, |datagram| &mut datagram.by_age);
        Some(at)
    }

    /// Where `fragment`, the bytes of `packet`, belongs in datagram `at`.
    pub(super) fn place(&self, at: u32, fragment: &Fragment, packet: &Packet) -> Place {
        let Some(datagram) = self.datagrams.get(at) else { return Place::After(None) };
        let (mut after, mut next) = (None, datagram.first);
        let mut before_end = 0;
        while let Some((id, piece)) = next.and_then(|id| Some((id, self.pieces.get(id)?))) {
            if piece.start >= fragment.end {
                break;
            }
            if piece.end > fragment.start {
                let is_last = datagram.end == Some(piece.end);
                let same = (piece.start, piece.end, !is_last)
                    == (fragment.start, fragment.end, fragment.more)
                    && payload(&piece.packet) == payload(packet);
                return if same { Place::Duplicate } else { Place::Overlap };
            }
            (before_end, after, next) = (piece.end, Some(id), piece.next);
        }
        debug_assert!(before_end <= fragment.start);
        // The last fragment is behind all others, and nothing is behind it.
        let contradicts = match datagram.end {
            Some(end) => !fragment.more || fragment.end > end,
            None => !fragment.more && next.is_some(),
        };
        match contradicts {
            true => Place::Overlap,
            false if datagram.count >= MAX_FRAGMENTS_PER_DATAGRAM => Place::Full,
            false => Place::After(after),
        }
    }

    /// Puts a fragment behind `after` into datagram `at`, for which there is room.
    pub(super) fn insert(
        &mut self,
        at: u32,
        after: Option<u32>,
        fragment: &Fragment,
        packet: Packet,
        origin: Origin,
    ) {
        let Some(datagram) = self.datagrams.get_mut(at) else { return };
        let next = match after {
            None => datagram.first,
            Some(before) => self.pieces.get(before).and_then(|piece| piece.next),
        };
        let piece = Piece { packet, start: fragment.start, end: fragment.end, next };
        let Some(id) = self.pieces.insert(piece) else {
            debug_assert!(false, "room was made");
            return;
        };
        match after {
            None => datagram.first = Some(id),
            Some(before) => {
                if let Some(before) = self.pieces.get_mut(before) {
                    before.next = Some(id);
                }
            }
        }
        datagram.count += 1;
        datagram.received += fragment.end - fragment.start;
        if fragment.start == 0 {
            datagram.origin = origin;
        }
        if !fragment.more {
            datagram.end = Some(fragment.end);
        }
        let bucket = self.source_bucket(&fragment.key);
        if let Some(source) = self.sources.get_mut(bucket) {
            source.fragments += 1;
        }
    }

    /// Whether nothing of datagram `at` is missing: no two fragments overlap and
    /// none is beyond the end, so counting is enough.
    pub(super) fn is_whole(&self, at: u32) -> bool {
        self.datagrams.get(at).is_some_and(|datagram| datagram.end == Some(datagram.received))
    }

    /// Bytes of the payload of datagram `at`, if its last fragment is here.
    pub(super) fn end_of(&self, at: u32) -> Option<usize> {
        self.datagrams.get(at)?.end
    }

    /// Where the first fragment of datagram `at` came from.
    pub(super) fn origin(&self, at: u32) -> Option<Origin> {
        self.datagrams.get(at).map(|datagram| datagram.origin)
    }

    /// The fragments of datagram `at`, by their offsets.
    pub(super) fn packets(&self, at: u32) -> impl Iterator<Item = &Packet> {
        let mut next = self.datagrams.get(at).and_then(|datagram| datagram.first);
        std::iter::from_fn(move || {
            let piece = self.pieces.get(next?)?;
            next = piece.next;
            Some(&piece.packet)
        })
    }

    /// Takes datagram `at` out and its fragments, by their offsets, to `take`.
    pub(super) fn remove(&mut self, at: u32, mut take: impl FnMut(Packet)) {
        let Some(datagram) = self.datagrams.get(at) else { return };
        let (key, count) = (datagram.key, datagram.count);
        let (key_bucket, source_bucket) = (self.key_bucket(&key), self.source_bucket(&key));
        let datagrams = &mut self.datagrams;
        if let Some(list) = self.keys.get_mut(key_bucket) {
            list.unlink(datagrams, at, |datagram| &mut datagram.by_key);
        }
        if let Some(source) = self.sources.get_mut(source_bucket) {
            source.datagrams.unlink(datagrams, at, |datagram| &mut datagram.by_source);
            source.fragments = source.fragments.saturating_sub(count);
        }
        self.ages.unlink(datagrams, at, |datagram| &mut datagram.by_age);
        let mut next = self.datagrams.remove(at).and_then(|datagram| datagram.first);
        while let Some(piece) = next.and_then(|id| self.pieces.remove(id)) {
            next = piece.next;
            take(piece.packet);
        }
    }

    fn key_bucket(&self, key: &Key) -> usize {
        self.bucket(key)
    }

    fn source_bucket(&self, key: &Key) -> usize {
        self.bucket(&(key.tenant, key.source))
    }

    fn bucket(&self, value: &impl Hash) -> usize {
        let [first, second] = self.seed;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        value.hash(&mut hasher);
        // The remainder is smaller than the number of buckets.
        (hasher.finish() % BUCKETS as u64) as usize
    }
}

fn payload(packet: &Packet) -> &[u8] {
    packet.bytes().get(super::header_len(packet)..).unwrap_or_default()
}

/// Which of a datagram's links a list uses.
type Thread = fn(&mut Datagram) -> &mut Links;

impl List {
    fn append(&mut self, datagrams: &mut Slab<Datagram>, at: u32, thread: Thread) {
        let before = self.last.replace(at);
        match before.and_then(|before| datagrams.get_mut(before)) {
            Some(before) => thread(before).after = Some(at),
            None => self.first = Some(at),
        }
        if let Some(datagram) = datagrams.get_mut(at) {
            *thread(datagram) = Links { before, after: None };
        }
    }

    fn unlink(&mut self, datagrams: &mut Slab<Datagram>, at: u32, thread: Thread) {
        let Some(Links { before, after }) = datagrams.get_mut(at).map(|d| *thread(d)) else {
            return;
        };
        match before.and_then(|before| datagrams.get_mut(before)) {
            Some(before) => thread(before).after = after,
            None => self.first = after,
        }
        match after.and_then(|after| datagrams.get_mut(after)) {
            Some(after) => thread(after).before = before,
            None => self.last = before,
        }
    }
}

/// Numbered places for a fixed number of things.
struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    fn new(capacity: usize) -> Self {
        let places = (0..capacity).map(|_| None).collect();
        // A slab has far fewer places than 2³².
        Slab { places, free: (0..capacity as u32).rev().collect() }
    }

    fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    fn get(&self, at: u32) -> Option<&T> {
        self.places.get(at as usize)?.as_ref()
    }

    fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.places.get_mut(at as usize)?.as_mut()
    }

    fn insert(&mut self, thing: T) -> Option<u32> {
        let at = self.free.pop()?;
        *self.places.get_mut(at as usize)? = Some(thing);
        Some(at)
    }

    fn remove(&mut self, at: u32) -> Option<T> {
        let thing = self.places.get_mut(at as usize)?.take()?;
        self.free.push(at);
        Some(thing)
    }
}
