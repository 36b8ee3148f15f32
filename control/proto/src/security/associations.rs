//! The associations of one agent or node, by peer and SPI: compact, as a home
//! agent may share keys with millions of nodes.
//!
//! What nodes have in common (algorithm, replay protection, the longest lifetime)
//! is kept once. An entry is 48 bytes, and for HMAC-MD5 holds all there is; other
//! algorithms keep their keys beside. The table is shared by all copies, so that
//! a config with a million nodes is copied at no cost; who changes one that others
//! have too gets a copy of it.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::hash::BuildHasher;
use core::hint::black_box;
use core::net::Ipv4Addr;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize;

use super::lanes::ReadyKey;
use super::nais::{Nais, Subscriber};
use super::{Algorithm, Form, HmacMd5Key, Key, MobilitySecurityAssociation, ReplayProtection, Spi};
use crate::Lifetime;

/// The associations of one agent or node, by peer and SPI.
#[derive(Clone, Debug, Default)]
pub struct SecurityAssociations {
    /// Nodes by home address; those that are known by NAI by its number.
    mobile_nodes: Arc<MobileNodes>,
    nais: Arc<Nais>,
    agents: BTreeMap<(Ipv4Addr, Spi), Arc<MobilitySecurityAssociation>>,
}

impl SecurityAssociations {
    /// Makes room for this many associations with mobile nodes.
    pub fn reserve(&mut self, more: usize) {
        Arc::make_mut(&mut self.mobile_nodes).reserve(more);
    }

    /// Adds or replaces an association with the mobile node of this home address.
    pub fn insert_mobile_node(
        &mut self,
        home_address: Ipv4Addr,
        association: MobilitySecurityAssociation,
    ) {
        self.insert_limited_mobile_node(home_address, association, Lifetime::INFINITE);
    }

    /// The same, of a node that is granted no longer lifetime than this.
    pub fn insert_limited_mobile_node(
        &mut self,
        home_address: Ipv4Addr,
        association: MobilitySecurityAssociation,
        max_lifetime: Lifetime,
    ) {
        Arc::make_mut(&mut self.mobile_nodes).insert(home_address, association, max_lifetime);
    }

    /// Adds or replaces an association with the node of this NAI, which all its sessions
    /// share. `home_address` is set aside for the node itself. `None`: it is no NAI, or
    /// there are [`MAX_NAIS`](super::nais::MAX_NAIS).
    pub fn insert_nai(
        &mut self,
        nai: &[u8],
        home_address: Option<Ipv4Addr>,
        association: MobilitySecurityAssociation,
        max_lifetime: Lifetime,
    ) -> Option<Subscriber> {
        let subscriber = Arc::make_mut(&mut self.nais).insert(nai, home_address)?;
        self.insert_limited_mobile_node(subscriber.stand_in(), association, max_lifetime);
        Some(subscriber)
    }

    /// Whom a NAI belongs to, if a key is shared with it.
    pub fn subscriber(&self, nai: &[u8]) -> Option<Subscriber> {
        self.nais.find(nai).map(|(subscriber, _)| subscriber)
    }

    /// The same, and what its NAI is [found by](super::nais::hash_of).
    pub(crate) fn subscriber_and_hash(&self, nai: &[u8]) -> Option<(Subscriber, u64)> {
        self.nais.find(nai)
    }

    /// The NAI of a subscriber, its realm in lower case; empty if there is none.
    pub fn nai(&self, subscriber: Subscriber) -> &[u8] {
        self.nais.of(subscriber)
    }

    /// The home address that is set aside for the node itself, without a session.
    pub fn own_home_address(&self, subscriber: Subscriber) -> Option<Ipv4Addr> {
        self.nais.home_address(subscriber)
    }

    /// Every subscriber that is known by NAI.
    pub fn subscribers(&self) -> impl Iterator<Item = Subscriber> {
        self.nais.iter()
    }

    /// How many subscribers are known by NAI.
    pub fn nai_count(&self) -> usize {
        self.nais.len()
    }

    /// Adds or replaces an association with the agent of this address.
    pub fn insert_agent(&mut self, address: Ipv4Addr, association: MobilitySecurityAssociation) {
        self.agents.insert((address, association.spi), Arc::new(association.ready()));
    }

    /// The association with a mobile node under an SPI.
    pub fn mobile_node(
        &self,
        home_address: Ipv4Addr,
        spi: Spi,
    ) -> Option<MobilitySecurityAssociation> {
        let nodes = &self.mobile_nodes;
        nodes.of(home_address).find(|entry| entry.spi == spi).map(|entry| nodes.association(entry))
    }

    /// Every association with a mobile node, by rising SPI.
    pub fn of_mobile_node(
        &self,
        home_address: Ipv4Addr,
    ) -> impl Iterator<Item = MobilitySecurityAssociation> {
        let nodes = &self.mobile_nodes;
        nodes.of(home_address).map(|entry| nodes.association(entry))
    }

    /// The place that the index has for a node's first association, or for one that
    /// looks like it there: no association is looked at.
    pub(crate) fn guess(&self, home_address: Ipv4Addr) -> Option<u32> {
        let nodes = &self.mobile_nodes;
        match Subscriber::in_place_of(home_address) {
            Some(subscriber) => nodes.first_of(subscriber),
            None => nodes.index.find(hash(home_address), |_| true).copied(),
        }
    }

    /// The subscriber that the index has for a NAI of this hash, or for one that looks like
    /// it there: no NAI is looked at.
    pub(crate) fn guess_subscriber(&self, hash: u64) -> Option<Subscriber> {
        self.nais.guess(hash)
    }

    /// Brings into the processor's cache where a NAI is kept.
    pub(crate) fn prepare_place_of_nai(&self, subscriber: Subscriber) {
        black_box(self.nais.home_address(subscriber));
    }

    /// Brings a NAI into the processor's cache.
    pub(crate) fn prepare_nai(&self, subscriber: Subscriber) {
        self.nais.prepare(subscriber);
    }

    /// Brings an association into the processor's cache.
    pub(crate) fn prepare(&self, place: u32) {
        black_box(self.mobile_nodes.entry(place).map(|entry| entry.spi));
    }

    /// The key in a place, if it is of this SPI and ready for HMAC-MD5.
    pub(crate) fn ready_key(&self, place: u32, spi: Spi) -> Option<ReadyKey> {
        let entry = self.mobile_nodes.entry(place).filter(|entry| entry.spi == spi)?;
        let shared = self.mobile_nodes.shared.get(usize::from(entry.shared))?;
        match shared.algorithm {
            Algorithm::HmacMd5 => Some(ReadyKey(entry.hmac_md5_key())),
            _ => None,
        }
    }

    /// The longest lifetime that the node may be granted under an SPI, beside what
    /// its home agent grants at all.
    pub fn max_lifetime(&self, home_address: Ipv4Addr, spi: Spi) -> Lifetime {
        let nodes = &self.mobile_nodes;
        if !nodes.limited {
            return Lifetime::INFINITE;
        }
        let entry = nodes.of(home_address).find(|entry| entry.spi == spi);
        let shared = entry.and_then(|entry| nodes.shared.get(usize::from(entry.shared)));
        shared.map_or(Lifetime::INFINITE, |shared| shared.max_lifetime)
    }

    /// The association with an agent under an SPI.
    pub fn agent(&self, address: Ipv4Addr, spi: Spi) -> Option<&Arc<MobilitySecurityAssociation>> {
        self.agents.get(&(address, spi))
    }

    /// Whether there is an association with a mobile node.
    pub fn knows_mobile_node(&self, home_address: Ipv4Addr) -> bool {
        self.mobile_nodes.first(home_address).is_some()
    }

    /// The association to send to a mobile node with: that of the lowest SPI.
    pub fn first_mobile_node(&self, home_address: Ipv4Addr) -> Option<MobilitySecurityAssociation> {
        let nodes = &self.mobile_nodes;
        nodes.of(home_address).next().map(|entry| nodes.association(entry))
    }

    /// The association to send to an agent with: that of the lowest SPI.
    pub fn first_agent(&self, address: Ipv4Addr) -> Option<&Arc<MobilitySecurityAssociation>> {
        let range = (address, Spi(0))..=(address, Spi(u32::MAX));
        self.agents.range(range).next().map(|(_, association)| association)
    }

    /// How many associations with mobile nodes there are.
    pub fn mobile_node_count(&self) -> usize {
        self.mobile_nodes.entries.len()
    }

    /// Every association with a mobile node that is known by its home address, ordered
    /// by that and SPI.
    pub fn mobile_nodes(&self) -> impl Iterator<Item = (Ipv4Addr, MobilitySecurityAssociation)> {
        let nodes = &self.mobile_nodes;
        let by_address = |entry: &&Entry| Subscriber::in_place_of(entry.home_address).is_none();
        nodes
            .ordered()
            .filter(by_address)
            .map(|entry| (entry.home_address, nodes.association(entry)))
    }

    /// Every association with an agent, ordered by address and SPI.
    pub fn agents(&self) -> impl Iterator<Item = (Ipv4Addr, &MobilitySecurityAssociation)> {
        self.agents.iter().map(|((address, _), association)| (*address, &**association))
    }

    /// How many associations with mobile nodes are here and not in `before`, there
    /// and not here, and in both but not alike.
    pub fn mobile_node_changes(&self, before: &Self) -> (usize, usize, usize) {
        let (new, old) = (&self.mobile_nodes, &before.mobile_nodes);
        if Arc::ptr_eq(new, old) {
            return (0, 0, 0);
        }
        let (mut added, mut changed) = (0, 0);
        for entry in &new.entries {
            // A NAI may have another number there.
            let there = match Subscriber::in_place_of(entry.home_address) {
                None => entry.home_address,
                Some(here) => before
                    .nais
                    .find(self.nais.of(here))
                    .map_or(Ipv4Addr::UNSPECIFIED, |(there, _)| there.stand_in()),
            };
            match old.of(there).find(|other| other.spi == entry.spi) {
                None => added += 1,
                Some(other) => changed += usize::from(!new.is_alike(entry, old, other)),
            }
        }
        let kept = new.entries.len() - added;
        (added, old.entries.len() - kept, changed)
    }
}

/// The associations as text: who there is, how and under which SPI, without the keys.
#[derive(Deserialize)]
struct Listed {
    mobile_nodes: Vec<(Ipv4Addr, MobilitySecurityAssociation, Lifetime)>,
    #[serde(default)]
    nais: Nais,
    agents: Vec<(Ipv4Addr, MobilitySecurityAssociation)>,
}

impl Serialize for SecurityAssociations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nodes = &self.mobile_nodes;
        let listed = nodes.ordered().map(|entry| {
            let limit = self.max_lifetime(entry.home_address, entry.spi);
            (entry.home_address, nodes.association(entry), limit)
        });
        let mut fields = serializer.serialize_struct("SecurityAssociations", 3)?;
        fields.serialize_field("mobile_nodes", &listed.collect::<Vec<_>>())?;
        fields.serialize_field("nais", &*self.nais)?;
        fields.serialize_field("agents", &self.agents().collect::<Vec<_>>())?;
        fields.end()
    }
}

impl<'de> Deserialize<'de> for SecurityAssociations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Listed { mobile_nodes, nais, agents } = Listed::deserialize(deserializer)?;
        let mut associations = SecurityAssociations::default();
        associations.reserve(mobile_nodes.len());
        associations.nais = Arc::new(nais);
        for (home_address, association, limit) in mobile_nodes {
            associations.insert_limited_mobile_node(home_address, association, limit);
        }
        for (address, association) in agents {
            associations.insert_agent(address, association);
        }
        Ok(associations)
    }
}

/// No entry.
const NONE: u32 = u32::MAX;

/// One association with one node.
#[derive(Clone)]
struct Entry {
    home_address: Ipv4Addr,
    spi: Spi,
    /// The same node's association under the next higher SPI, or [`NONE`].
    next: u32,
    /// What it has in common with others.
    shared: u16,
    /// The states of HMAC-MD5, inner and outer; of other algorithms, the place of
    /// the key in the first word.
    secret: [u32; 8],
}

impl Entry {
    const fn hmac_md5_key(&self) -> HmacMd5Key {
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
struct Shared {
    algorithm: Algorithm,
    replay: ReplayProtection,
    max_lifetime: Lifetime,
}

impl fmt::Debug for Nais {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} NAIs", self.len())
    }
}

#[derive(Clone, Default)]
struct MobileNodes {
    entries: Vec<Entry>,
    /// The first entry of each node that is known by its home address.
    index: HashTable<u32>,
    /// The first entry of each that is known by NAI, by its place; or [`NONE`].
    of_subscribers: Vec<u32>,
    shared: Vec<Shared>,
    keys: Vec<Key>,
    /// Whether a node's lifetime is limited.
    limited: bool,
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
    fn reserve(&mut self, more: usize) {
        self.entries.reserve(more);
        let entries = &self.entries;
        self.index.reserve(more, |place| entry_hash(entries, *place));
    }

    fn entry(&self, place: u32) -> Option<&Entry> {
        self.entries.get(place as usize)
    }

    fn first_of(&self, subscriber: Subscriber) -> Option<u32> {
        self.of_subscribers.get(subscriber.place()).copied().filter(|first| *first != NONE)
    }

    fn first(&self, home_address: Ipv4Addr) -> Option<u32> {
        if let Some(subscriber) = Subscriber::in_place_of(home_address) {
            return self.first_of(subscriber);
        }
        let is_of = |place: &u32| {
            self.entry(*place).is_some_and(|entry| entry.home_address == home_address)
        };
        self.index.find(hash(home_address), is_of).copied()
    }

    /// The associations of a node, by rising SPI.
    fn of(&self, home_address: Ipv4Addr) -> impl Iterator<Item = &Entry> {
        let first = self.first(home_address).and_then(|place| self.entry(place));
        core::iter::successors(first, |entry| self.entry(entry.next))
    }

    fn ordered(&self) -> impl Iterator<Item = &Entry> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|entry| (entry.home_address, entry.spi));
        entries.into_iter()
    }

    fn association(&self, entry: &Entry) -> MobilitySecurityAssociation {
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

    fn insert(
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

    fn is_alike(&self, entry: &Entry, other: &MobileNodes, of_other: &Entry) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    const ENTRY_LEN: usize = 48;

    fn association(spi: u32, algorithm: Algorithm, key: &[u8]) -> MobilitySecurityAssociation {
        MobilitySecurityAssociation {
            spi: Spi(spi),
            algorithm,
            key: Key::new(key.to_vec()),
            replay: ReplayProtection::Timestamps { tolerance: Duration::from_secs(7) },
        }
    }

    fn node(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, 0, last)
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), ENTRY_LEN);
    }

    // Shows 5944-3.2-a.
    #[test]
    fn associations_are_found_by_spi_and_listed_in_order_whatever_the_order_of_insertion() {
        let mut security = SecurityAssociations::default();
        for (last, spi) in [(9, 300), (3, 257), (9, 256), (9, 400), (3, 256), (9, 350)] {
            let key = [last, u8::try_from(spi & 0xff).unwrap(), 1];
            security.insert_mobile_node(node(last), association(spi, Algorithm::HmacMd5, &key));
        }
        let listed: Vec<(Ipv4Addr, u32)> =
            security.mobile_nodes().map(|(address, one)| (address, one.spi.0)).collect();
        let expected =
            [(3, 256), (3, 257), (9, 256), (9, 300), (9, 350), (9, 400)].map(|(a, b)| (node(a), b));
        assert_eq!(listed, expected);
        for (address, spi) in expected {
            let [_, _, _, last] = address.octets();
            let key = [last, u8::try_from(spi & 0xff).unwrap(), 1];
            let right = association(spi, Algorithm::HmacMd5, &key).authenticator(b"x");
            let found = security.mobile_node(address, Spi(spi)).unwrap();
            assert!(found.verify(b"x", right.as_bytes()));
        }
        assert_eq!(security.first_mobile_node(node(9)).unwrap().spi, Spi(256));
        assert!(security.mobile_node(node(9), Spi(257)).is_none());
        assert!(security.first_mobile_node(node(4)).is_none());
    }

    #[test]
    fn a_second_association_under_the_same_spi_takes_the_place_of_the_first() {
        for algorithm in [Algorithm::HmacMd5, Algorithm::HmacSha256] {
            let mut security = SecurityAssociations::default();
            security.insert_mobile_node(node(1), association(256, algorithm, b"old"));
            security.insert_mobile_node(node(1), association(257, algorithm, b"other"));
            security.insert_mobile_node(node(1), association(256, algorithm, b"new"));
            assert_eq!(security.mobile_node_count(), 2);
            let right = association(256, algorithm, b"new").authenticator(b"x");
            let found = security.mobile_node(node(1), Spi(256)).unwrap();
            assert!(found.verify(b"x", right.as_bytes()));
            assert!(security.mobile_node(node(1), Spi(257)).is_some());
        }
    }

    #[test]
    fn a_copy_does_not_see_what_is_added_to_the_other() {
        let mut security = SecurityAssociations::default();
        security.insert_mobile_node(node(1), association(256, Algorithm::HmacMd5, b"key"));
        let copy = security.clone();
        security.insert_mobile_node(node(2), association(256, Algorithm::HmacMd5, b"key"));
        assert!(!copy.knows_mobile_node(node(2)) && security.knows_mobile_node(node(2)));
    }

    #[test]
    fn changes_are_counted_by_key_and_by_what_is_shared() {
        for algorithm in [Algorithm::HmacMd5, Algorithm::HmacSha1] {
            let mut old = SecurityAssociations::default();
            for last in 1..=4 {
                old.insert_mobile_node(node(last), association(256, algorithm, b"key"));
            }
            assert_eq!(old.clone().mobile_node_changes(&old), (0, 0, 0));
            let mut new = SecurityAssociations::default();
            new.insert_mobile_node(node(9), association(256, algorithm, b"key"));
            new.insert_mobile_node(node(1), association(256, algorithm, b"key"));
            new.insert_mobile_node(node(2), association(256, algorithm, b"another"));
            let limit = Lifetime(300);
            new.insert_limited_mobile_node(node(3), association(256, algorithm, b"key"), limit);
            assert_eq!(new.mobile_node_changes(&old), (1, 1, 2));
        }
    }

    #[test]
    fn the_longest_lifetime_is_that_of_the_association() {
        let mut security = SecurityAssociations::default();
        security.insert_mobile_node(node(1), association(256, Algorithm::HmacMd5, b"key"));
        assert_eq!(security.max_lifetime(node(1), Spi(256)), Lifetime::INFINITE);
        let short = Lifetime(300);
        let association = association(256, Algorithm::HmacMd5, b"key");
        security.insert_limited_mobile_node(node(2), association, short);
        assert_eq!(security.max_lifetime(node(2), Spi(256)), short);
        assert_eq!(security.max_lifetime(node(1), Spi(256)), Lifetime::INFINITE);
    }
}
