//! Where the addresses of sessions come from.
//!
//! A pool hands its addresses out from the first to the last, each once, and then those
//! that were given back, the one that has been free for longest first. Whether an address
//! is free at all the caller says, who knows the sessions.

use alloc::collections::{BTreeSet, VecDeque};
use core::net::Ipv4Addr;

use crate::config::AddressPool;

/// What of a pool has been handed out.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// The range that is being handed out for the first time, and how many of its
    /// addresses have been.
    fresh: (usize, u64),
    /// Given back, in that order.
    free: VecDeque<Ipv4Addr>,
    /// What is in `free`: none is there twice.
    queued: BTreeSet<Ipv4Addr>,
    /// How often it had none to give.
    pub(super) exhausted: u64,
}

impl Pool {
    /// An address that `is_free`. It is not given again until it is
    /// [given back](Self::give_back).
    pub(super) fn take(
        &mut self,
        config: &AddressPool,
        mut is_free: impl FnMut(Ipv4Addr) -> bool,
    ) -> Option<Ipv4Addr> {
        let (place, given) = &mut self.fresh;
        while let Some(range) = config.ranges.get(*place) {
            if *given >= range.count() {
                (*place, *given) = (*place + 1, 0);
                continue;
            }
            #[expect(clippy::cast_possible_truncation, reason = "below the count of a range")]
            let address = Ipv4Addr::from_bits(range.first.to_bits() + *given as u32);
            *given += 1;
            if !is_excluded(config, address) && is_free(address) {
                return Some(address);
            }
        }
        while let Some(address) = self.free.pop_front() {
            self.queued.remove(&address);
            if is_free(address) {
                return Some(address);
            }
        }
        self.exhausted += 1;
        None
    }

    /// The address that will be given behind so many others, if they and it are free: what
    /// it needs can be looked at before it is asked for.
    pub(super) fn ahead(&self, config: &AddressPool, others: usize) -> Option<Ipv4Addr> {
        let (place, given) = self.fresh;
        let fresh = config.ranges.get(place).and_then(|range| {
            let offset = u32::try_from(given.checked_add(others as u64)?).ok()?;
            let address = range.first.to_bits().checked_add(offset)?;
            Some(Ipv4Addr::from_bits(address)).filter(|address| *address <= range.last)
        });
        fresh.or_else(|| self.free.get(others).copied())
    }

    /// The address is nobody's again.
    pub(super) fn give_back(&mut self, address: Ipv4Addr) {
        if self.queued.insert(address) {
            self.free.push_back(address);
        }
    }
}

fn is_excluded(config: &AddressPool, address: Ipv4Addr) -> bool {
    config.exclusions.iter().any(|range| range.contains(address))
}

impl AddressPool {
    /// Whether it has this address to give.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.ranges.iter().any(|range| range.contains(address)) && !is_excluded(self, address)
    }

    /// How many addresses it has to give.
    pub fn size(&self) -> u64 {
        let all: u64 = self.ranges.iter().map(|range| range.count()).sum();
        let within = |excluded: &crate::config::AddressRange| {
            let overlaps = self.ranges.iter().map(|range| {
                let first = range.first.max(excluded.first).to_bits();
                let last = range.last.min(excluded.last).to_bits();
                (u64::from(last) + 1).saturating_sub(u64::from(first))
            });
            overlaps.sum::<u64>()
        };
        all.saturating_sub(self.exclusions.iter().map(within).sum())
    }

    /// Whether NAIs of a realm get its addresses.
    pub fn serves(&self, realm: &[u8]) -> bool {
        self.realm.as_ref().is_none_or(|one| one.as_bytes() == realm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AddressRange;
    use alloc::collections::BTreeSet;
    use alloc::string::String;
    use alloc::vec;
    use alloc::vec::Vec;

    fn at(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, last)
    }

    fn range(first: u8, last: u8) -> AddressRange {
        AddressRange { first: at(first), last: at(last) }
    }

    fn config() -> AddressPool {
        AddressPool {
            name: String::from("all"),
            realm: None,
            ranges: vec![range(1, 3), range(10, 10)],
            exclusions: vec![range(2, 2)],
        }
    }

    #[test]
    fn each_address_is_given_once_and_then_the_one_that_was_free_for_longest() {
        let (config, mut pool) = (config(), Pool::default());
        let mut used = BTreeSet::from([at(3)]);
        let take = |pool: &mut Pool, used: &BTreeSet<Ipv4Addr>| {
            pool.take(&config, |address| !used.contains(&address))
        };
        for expected in [at(1), at(10)] {
            assert_eq!(take(&mut pool, &used), Some(expected));
            used.insert(expected);
        }
        assert_eq!((take(&mut pool, &used), pool.exhausted), (None, 1));
        for address in [10, 3, 1].map(at) {
            used.remove(&address);
            pool.give_back(address);
            pool.give_back(address);
        }
        // Somebody asked for it by name.
        used.insert(at(3));
        let rest: Vec<_> = core::iter::from_fn(|| take(&mut pool, &used)).collect();
        assert_eq!(rest, [at(10), at(1)]);
    }

    #[test]
    fn what_is_ahead_is_given_next_as_far_as_it_is_free() {
        let (config, mut pool) = (config(), Pool::default());
        let ahead = |pool: &Pool| [0, 1].map(|others| pool.ahead(&config, others));
        assert_eq!(ahead(&pool), [Some(at(1)), Some(at(2))]);
        let _: Vec<_> = core::iter::from_fn(|| pool.take(&config, |_| true)).collect();
        assert_eq!(ahead(&pool), [None, None]);
        for address in [3, 1].map(at) {
            pool.give_back(address);
        }
        assert_eq!(ahead(&pool), [Some(at(3)), Some(at(1))]);
        assert_eq!(pool.take(&config, |_| true), Some(at(3)));
        assert_eq!(ahead(&pool), [Some(at(1)), None]);
    }

    #[test]
    fn a_pool_knows_its_addresses_and_its_realm() {
        let config = config();
        assert_eq!(config.size(), 3);
        let inside: Vec<u8> = (0..=255).filter(|last| config.contains(at(*last))).collect();
        assert_eq!(inside, [1, 3, 10]);
        assert!(config.serves(b"a.example") && config.serves(b""));
        let one = AddressPool { realm: Some(String::from("a.example")), ..config };
        assert!(one.serves(b"a.example") && !one.serves(b"") && !one.serves(b"b.example"));
        let all = AddressRange { first: Ipv4Addr::UNSPECIFIED, last: Ipv4Addr::BROADCAST };
        assert_eq!(all.count(), 1 << 32);
    }
}
