//! The network access identifiers that keys are shared with, by number.
//!
//! Nodes that are known by their home addresses have an address each; so that those
//! that are known by NAI take no second set of tables, the number of a NAI goes where an
//! address would: as one of 0.0.0.0/8, which is nobody's (RFC 1122 §3.2.1.3). Who looks
//! something up by what a message says must keep such addresses out.
//!
//! A NAI is any 1 to 253 bytes. What stands behind its last `@` is the realm, whose
//! letters are alike in both cases (RFC 4282 §2.4).

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;
use core::hash::BuildHasher;
use core::hint::black_box;
use core::net::Ipv4Addr;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::message::session::MAX_NAI;

/// The most NAIs: what 0.0.0.0/8 has room for.
pub const MAX_NAIS: usize = 0xff_fffe;

/// The number of a NAI, in the place of a home address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber(Ipv4Addr);

/// Nobody: no NAI has this number.
impl Default for Subscriber {
    fn default() -> Self {
        Subscriber(Ipv4Addr::UNSPECIFIED)
    }
}

impl Subscriber {
    fn of(place: usize) -> Option<Self> {
        let number = u32::try_from(place + 1).ok().filter(|_| place < MAX_NAIS)?;
        Some(Subscriber(Ipv4Addr::from_bits(number)))
    }

    /// What stands where the home address of another node would.
    pub const fn stand_in(self) -> Ipv4Addr {
        self.0
    }

    /// The subscriber that stands in a home address's place, if one does.
    pub const fn in_place_of(home_address: Ipv4Addr) -> Option<Self> {
        let bits = home_address.to_bits();
        if bits != 0 && bits >> 24 == 0 { Some(Subscriber(home_address)) } else { None }
    }

    /// Its place among all.
    pub(crate) const fn place(self) -> usize {
        (self.0.to_bits() as usize).wrapping_sub(1)
    }
}

/// A NAI as it is compared: with its realm in lower case.
pub fn canonical(nai: &[u8]) -> Cow<'_, [u8]> {
    let mut canonical = Cow::Borrowed(nai);
    // Most are written so. All bytes are looked at, as that is done many at a time.
    if nai.iter().fold(false, |found, byte| found | byte.is_ascii_uppercase()) {
        let realm = nai.iter().rposition(|byte| *byte == b'@').unwrap_or(nai.len());
        canonical.to_mut().iter_mut().skip(realm).for_each(u8::make_ascii_lowercase);
    }
    canonical
}

/// What a canonical NAI is found by. The operator chooses which NAIs there are, so it
/// needs no secret.
pub(crate) fn hash_of(canonical: &[u8]) -> u64 {
    FixedState::with_seed(0).hash_one(canonical)
}

/// The realm of a canonical NAI; empty if it has none.
pub fn realm(nai: &[u8]) -> &[u8] {
    let at = nai.iter().rposition(|byte| *byte == b'@');
    at.and_then(|at| nai.get(at + 1..)).unwrap_or_default()
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    len: u8,
    /// The node's own home address, if one is set aside for it.
    home_address: Ipv4Addr,
}

/// The NAIs, in the order of their numbers.
#[derive(Clone, Default)]
pub(super) struct Nais {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    index: HashTable<u32>,
}

impl fmt::Debug for Nais {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} NAIs", self.len())
    }
}

fn bytes_of<'a>(bytes: &'a [u8], entries: &[Entry], place: usize) -> &'a [u8] {
    entries.get(place).map_or(&[], |entry| {
        let start = entry.start as usize;
        bytes.get(start..start + usize::from(entry.len)).unwrap_or_default()
    })
}

impl Nais {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of a NAI, a new one if it has none. `None`: it is no NAI, or there are
    /// [`MAX_NAIS`].
    pub(super) fn insert(
        &mut self,
        nai: &[u8],
        home_address: Option<Ipv4Addr>,
    ) -> Option<Subscriber> {
        let nai = canonical(nai);
        let hash = hash_of(&nai);
        if let Some(known) = self.find_hashed(&nai, hash) {
            if let (Some(entry), Some(address)) =
                (self.entries.get_mut(known.place()), home_address)
            {
                entry.home_address = address;
            }
            return Some(known);
        }
        let len = u8::try_from(nai.len()).ok().filter(|_| (1..=MAX_NAI).contains(&nai.len()))?;
        let subscriber = Subscriber::of(self.entries.len())?;
        let start = u32::try_from(self.bytes.len()).ok()?;
        self.bytes.extend_from_slice(&nai);
        let home_address = home_address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        self.entries.push(Entry { start, len, home_address });
        let (bytes, entries) = (&self.bytes, &self.entries);
        self.index.insert_unique(hash, number_of(subscriber), |place| {
            hash_of(bytes_of(bytes, entries, *place as usize))
        });
        Some(subscriber)
    }

    /// Whom a NAI belongs to, and its hash.
    pub(super) fn find(&self, nai: &[u8]) -> Option<(Subscriber, u64)> {
        if self.entries.is_empty() {
            return None;
        }
        let nai = canonical(nai);
        let hash = hash_of(&nai);
        Some((self.find_hashed(&nai, hash)?, hash))
    }

    /// The number that the index has for a NAI of this hash, or for one that looks like it
    /// there.
    pub(super) fn guess(&self, hash: u64) -> Option<Subscriber> {
        let place = self.index.find(hash, |_| true)?;
        Subscriber::of(*place as usize)
    }

    /// Brings a NAI into the processor's cache.
    pub(super) fn prepare(&self, subscriber: Subscriber) {
        // It may lie in two lines.
        let nai = self.of(subscriber);
        black_box((nai.first().copied(), nai.last().copied()));
    }

    fn find_hashed(&self, nai: &[u8], hash: u64) -> Option<Subscriber> {
        let is_it = |place: &u32| bytes_of(&self.bytes, &self.entries, *place as usize) == nai;
        self.index.find(hash, is_it).and_then(|place| Subscriber::of(*place as usize))
    }

    /// The NAI of a subscriber; empty if there is none.
    pub(super) fn of(&self, subscriber: Subscriber) -> &[u8] {
        bytes_of(&self.bytes, &self.entries, subscriber.place())
    }

    pub(super) fn home_address(&self, subscriber: Subscriber) -> Option<Ipv4Addr> {
        let entry = self.entries.get(subscriber.place())?;
        Some(entry.home_address).filter(|address| !address.is_unspecified())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Subscriber> {
        (0..self.entries.len()).filter_map(Subscriber::of)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "at most MAX_NAIS")]
const fn number_of(subscriber: Subscriber) -> u32 {
    subscriber.place() as u32
}

/// A NAI as it is kept in a journal.
#[derive(Serialize, Deserialize)]
struct Listed {
    #[serde(with = "crate::hex")]
    nai: Vec<u8>,
    home_address: Option<Ipv4Addr>,
}

impl Serialize for Nais {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(|subscriber| Listed {
            nai: self.of(subscriber).to_vec(),
            home_address: self.home_address(subscriber),
        }))
    }
}

impl<'de> Deserialize<'de> for Nais {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut nais = Nais::default();
        for Listed { nai, home_address } in Vec::<Listed>::deserialize(deserializer)? {
            nais.insert(&nai, home_address);
        }
        Ok(nais)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nai_is_found_by_its_bytes_and_its_realm_in_either_case() {
        let mut nais = Nais::default();
        let own = Ipv4Addr::new(10, 1, 0, 9);
        let first = nais.insert(b"Phone@Train.Example", Some(own)).unwrap();
        let second = nais.insert(b"\x00\xff", None).unwrap();
        assert_eq!(first.stand_in(), Ipv4Addr::new(0, 0, 0, 1));
        assert_eq!(nais.insert(b"Phone@TRAIN.example", None), Some(first));
        let found = |nai: &[u8]| nais.find(nai).map(|(subscriber, _)| subscriber);
        assert_eq!(found(b"Phone@train.example"), Some(first));
        assert_eq!(found(b"phone@train.example"), None);
        assert_eq!(found(b"\x00\xff"), Some(second));
        assert_eq!((nais.of(first), nais.len()), (&b"Phone@train.example"[..], 2));
        assert_eq!((nais.home_address(first), nais.home_address(second)), (Some(own), None));
        assert_eq!(realm(nais.of(first)), b"train.example");
        assert_eq!(realm(nais.of(second)), b"");
        let hash = |nai: &[u8]| nais.find(nai).map(|(_, hash)| hash);
        assert_eq!(hash(b"Phone@TRAIN.example"), Some(hash_of(b"Phone@train.example")));
        for none in [&b""[..], &[b'n'; MAX_NAI + 1]] {
            assert_eq!(nais.insert(none, None), None);
        }
    }

    #[test]
    fn only_addresses_of_nobody_stand_for_subscribers() {
        assert_eq!(Subscriber::in_place_of(Ipv4Addr::UNSPECIFIED), None);
        assert_eq!(Subscriber::in_place_of(Ipv4Addr::new(1, 0, 0, 0)), None);
        let last = Ipv4Addr::new(0, 255, 255, 255);
        assert_eq!(Subscriber::in_place_of(last).map(Subscriber::stand_in), Some(last));
        assert!(Subscriber::of(MAX_NAIS).is_none());
    }
}
