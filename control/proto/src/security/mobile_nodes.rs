//! The associations of many nodes in few bytes each.
//!
//! What nodes have in common (algorithm, replay protection, the longest lifetime) is kept
//! once. An entry is 48 bytes, and for HMAC-MD5 holds all there is; other algorithms keep
//! their keys beside.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::hash::BuildHasher;
use core::net::Ipv4Addr;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use zeroize::Zeroize;

use super::nais::Subscriber;
use super::{Algorithm, Form, HmacMd5Key, Key, MobilitySecurityAssociation, ReplayProtection, Spi};
use crate::Lifetime;

/// No entry.
const NONE: u32 = u32::MAX;

/// One association with one node.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) home_address: Ipv4Addr,
    pub(super) spi: Spi,
    /// The same node's association under the next higher SPI, or [`NONE`].
    next: u32,
    /// What it has in common with others.
    pub(super) shared: u16,
    /// The states of HMAC-MD5, inner and outer; of other algorithms, the place of
    /// the key in the first word.
    secret: [u32; 8],
}

impl Entry {
    pub(super) const fn hmac_md5_key(&self) -> HmacMd5Key {
        let [a, b, c, d, e, f, g, h] = self.secret;
        HmacMd5Key { inner: [a, b, c, d], outer: [e, f, g, h] }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// What the associations of many nodes have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    pub(super) algorithm: Algorithm,
    replay: ReplayProtection,
    pub(super) max_lifetime: Lifetime,
}

/// The associations of many nodes.
#[derive(Clone, Default)]
pub(super) struct MobileNodes {
    pub(super) entries: Vec<Entry>,
    /// The first entry of each node that is known by its home address.
    index: HashTable<u32>,
    /// The first entry of each that is known by NAI, by its place; or [`NONE`].
    of_subscribers: Vec<u32>,
    pub(super) shared: Vec<Shared>,
    keys: Vec<Key>,
    /// Whether a node's lifetime is limited.
    pub(super) limited: bool,
}

impl fmt::Debug for MobileNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} associations with mobile nodes", self.entries.len())
    }
}

/// The operator chooses which nodes there are, so the hash needs no secret.
fn hash(home_address: Ipv4Addr) -> u64 {
    FixedState::with_seed(0).hash_one(home_address.to_bits())
}

impl MobileNodes {
    pub(super) fn reserve(&mut self, more: usize) {
        self.entries.reserve(more);
        let entries = &self.entries;
        self.index.reserve(more, |place| entry_hash(entries, *place));
    }

    pub(super) fn entry(&self, place: u32) -> Option<&Entry> {
        self.entries.get(place as usize)
    }

    fn first_of(&self, subscriber: Subscriber) -> Option<u32> {
        self.of_subscribers.get(subscriber.place()).copied().filter(|first| *first != NONE)
    }

    pub(super) fn first(&self, home_address: Ipv4Addr) -> Option<u32> {
        if let Some(subscriber) = Subscriber::in_place_of(home_address) {
            return self.first_of(subscriber);
        }
        let is_of = |place: &u32| {
            self.entry(*place).is_some_and(|entry| entry.home_address == home_address)
        };
        self.index.find(hash(home_address), is_of).copied()
    }

    /// The first entry of a node, or of one that looks like it in the index.
    pub(super) fn guess(&self, home_address: Ipv4Addr) -> Option<u32> {
        match Subscriber::in_place_of(home_address) {
            Some(subscriber) => self.first_of(subscriber),
            None => self.index.find(hash(home_address), |_| true).copied(),
        }
    }

    /// The associations of a node, by rising SPI.
    pub(super) fn of(&self, home_address: Ipv4Addr) -> impl Iterator<Item = &Entry> {
        let first = self.first(home_address).and_then(|place| self.entry(place));
        core::iter::successors(first, |entry| self.entry(entry.next))
    }

    pub(super) fn ordered(&self) -> impl Iterator<Item = &Entry> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|entry| (entry.home_address, entry.spi));
        entries.into_iter()
    }

    pub(super) fn association(&self, entry: &Entry) -> MobilitySecurityAssociation {
        let shared = self.shared.get(usize::from(entry.shared)).copied().unwrap_or(Shared {
            algorithm: Algorithm::default(),
            replay: ReplayProtection::default(),
            max_lifetime: Lifetime::ZERO,
        });
        let key = match shared.algorithm {
            Algorithm::HmacMd5 => Key(Form::HmacMd5(entry.hmac_md5_key())),
            _ => {
                let [place, ..] = entry.secret;
                self.keys.get(place as usize).cloned().unwrap_or_else(|| Key::new(Vec::new()))
            }
        };
        let Shared { algorithm, replay, .. } = shared;
        MobilitySecurityAssociation { spi: entry.spi, algorithm, key, replay }
    }

    pub(super) fn insert(
        &mut self,
        home_address: Ipv4Addr,
        association: MobilitySecurityAssociation,
        max_lifetime: Lifetime,
    ) {
        let MobilitySecurityAssociation { spi, algorithm, key, replay } = association;
        self.limited |= max_lifetime != Lifetime::INFINITE;
        let shared = self.share(Shared { algorithm, replay, max_lifetime });
        let secret = match key.ready_for(algorithm).0 {
            Form::HmacMd5(HmacMd5Key { inner: [a, b, c, d], outer: [e, f, g, h] }) => {
                [a, b, c, d, e, f, g, h]
            }
            Form::Plain(_) => {
                self.keys.push(key);
                [place_of(self.keys.len() - 1), 0, 0, 0, 0, 0, 0, 0]
            }
        };
        let mut entry = Entry { home_address, spi, next: NONE, shared, secret };
        let before = self.before(home_address, spi);
        let at = before.map_or_else(|| self.first(home_address), |before| self.next_of(before));
        if let Some(same) = at.and_then(|at| self.entries.get_mut(at as usize))
            && same.spi == spi
        {
            entry.next = same.next;
            *same = entry;
            return;
        }
        entry.next = at.unwrap_or(NONE);
        let place = place_of(self.entries.len());
        self.entries.push(entry);
        if let Some(before) = before.and_then(|before| self.entries.get_mut(before as usize)) {
            before.next = place;
            return;
        }
        // The node's first, of the lowest SPI.
        if let Some(subscriber) = Subscriber::in_place_of(home_address) {
            let at = subscriber.place();
            if self.of_subscribers.len() <= at {
                self.of_subscribers.resize(at + 1, NONE);
            }
            if let Some(first) = self.of_subscribers.get_mut(at) {
                *first = place;
            }
            return;
        }
        let (entries, hash) = (&self.entries, hash(home_address));
        let is_old = |other: &u32| at == Some(*other);
        match self.index.find_mut(hash, is_old) {
            Some(first) => *first = place,
            None => {
                self.index.insert_unique(hash, place, |place| entry_hash(entries, *place));
            }
        }
    }

    fn next_of(&self, place: u32) -> Option<u32> {
        self.entry(place).map(|entry| entry.next).filter(|next| *next != NONE)
    }

    /// The node's association with the highest SPI below `spi`.
    fn before(&self, home_address: Ipv4Addr, spi: Spi) -> Option<u32> {
        let places = core::iter::successors(self.first(home_address), |place| self.next_of(*place));
        places.take_while(|place| self.entry(*place).is_some_and(|entry| entry.spi < spi)).last()
    }

    /// The place of what is shared; the last one's first, as nodes of one kind come
    /// one after the other.
    fn share(&mut self, shared: Shared) -> u16 {
        let place = self.shared.iter().rposition(|one| *one == shared).unwrap_or_else(|| {
            self.shared.push(shared);
            self.shared.len() - 1
        });
        // A file has lines for less; the last ones then share what they must not
        // exceed, which cannot happen before 65,536 different sets of parameters.
        u16::try_from(place).unwrap_or(u16::MAX)
    }

    pub(super) fn is_alike(&self, entry: &Entry, other: &MobileNodes, of_other: &Entry) -> bool {
        let shared = |nodes: &MobileNodes, entry: &Entry| {
            nodes.shared.get(usize::from(entry.shared)).copied()
        };
        let (mine, theirs) = (shared(self, entry), shared(other, of_other));
        let is_plain = mine.is_some_and(|shared| shared.algorithm != Algorithm::HmacMd5);
        let key = |nodes: &MobileNodes, entry: &Entry| {
            let [place, ..] = entry.secret;
            match nodes.keys.get(place as usize) {
                Some(Key(Form::Plain(bytes))) => Some(Arc::clone(bytes)),
                _ => None,
            }
        };
        mine == theirs
            && if is_plain {
                key(self, entry) == key(other, of_other)
            } else {
                entry.secret == of_other.secret
            }
    }
}

fn entry_hash(entries: &[Entry], place: u32) -> u64 {
    entries.get(place as usize).map_or(0, |entry| hash(entry.home_address))
}

/// Addresses are 32 bits wide, and so are the numbers of their entries.
fn place_of(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NONE)
}
