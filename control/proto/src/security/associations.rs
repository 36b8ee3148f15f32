//! The associations of one agent or node, by peer and SPI: compact, as a home
//! agent may share keys with millions of nodes.
//!
//! The table of nodes is shared by all copies, so that a config with a million nodes is
//! copied at no cost; who changes one that others have too gets a copy of it.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hint::black_box;
use core::net::Ipv4Addr;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::lanes::ReadyKey;
use super::mobile_nodes::{Entry, MobileNodes};
use super::nais::{Nais, Subscriber};
use super::{Algorithm, MobilitySecurityAssociation, Spi};
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
        self.mobile_nodes.guess(home_address)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::{Key, ReplayProtection};
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
