//! Who has answered a challenge, and which was the last: that one and all before it are
//! stale for it.
//!
//! There are so many places. Anybody who has a key can make up as many sessions of its NAI
//! as it likes, and anybody's home agent accepts what it likes; so one NAI has at most its
//! share of the places, and all whom no key is shared with have as much together. Whose
//! last challenge nobody could use any more makes room for a new one: of the same NAI where
//! that has its share, else whoever was not heard of for longest, who loses what was kept
//! for it alone.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::net::Ipv4Addr;

use super::challenge::Issued;

/// Who answers challenges.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Respondent {
    /// A node without a NAI, by its home address.
    Node(Ipv4Addr),
    /// A session, by NAI and sub-NAI; without that, the node itself.
    Session(Arc<[u8]>, Arc<[u8]>),
}

/// Whose share of the places somebody takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// That of a node without a NAI, by its home address.
    Node(Ipv4Addr),
    /// That of a NAI, with all its sessions.
    Nai(Arc<[u8]>),
    /// That of all whom no key is shared with.
    Strangers,
}

/// How many may be remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    /// Of all.
    pub(super) all: usize,
    /// Of one owner.
    pub(super) share: usize,
    /// The number of the oldest challenge that can be answered by everybody: whose last is
    /// older need not be remembered.
    pub(super) oldest: u64,
}

/// What is remembered of a node that has answered a challenge.
#[derive(Clone, Debug)]
pub(super) struct Answerer {
    pub(super) used: Issued,
    /// For it alone, and not used yet.
    pub(super) offered: Option<Issued>,
    owner: Owner,
}

/// By the number of the challenge that was used.
type ByAge = BTreeSet<(u64, Respondent)>;

/// Who has answered.
#[derive(Debug, Default)]
pub(super) struct Answerers {
    all: BTreeMap<Respondent, Answerer>,
    by_age: ByAge,
    owners: BTreeMap<Owner, ByAge>,
}

impl Answerers {
    pub(super) fn get(&self, respondent: &Respondent) -> Option<&Answerer> {
        self.all.get(respondent)
    }

    /// Keeps a challenge for one that is remembered.
    pub(super) fn offer(&mut self, respondent: &Respondent, issued: Issued) {
        if let Some(answerer) = self.all.get_mut(respondent) {
            answerer.offered = Some(issued);
        }
    }

    /// Remembers that a challenge was used. `false` when there is no place for that.
    pub(super) fn note(
        &mut self,
        respondent: Respondent,
        owner: Owner,
        issued: Issued,
        places: Places,
    ) -> bool {
        let Some(known) = self.all.get(&respondent) else {
            if !self.make_room(&owner, places) {
                return false;
            }
            self.insert(respondent, Answerer { used: issued, offered: None, owner });
            return true;
        };
        if known.used.number < issued.number
            && let Some(known) = self.remove(&respondent)
        {
            let offered = known.offered.filter(|offered| offered.number > issued.number);
            self.insert(respondent, Answerer { used: issued, offered, owner: known.owner });
        }
        true
    }

    /// Makes room for one more, by what need not be remembered; whether there is some now.
    fn make_room(&mut self, owner: &Owner, places: Places) -> bool {
        while self.owners.get(owner).is_some_and(|own| own.len() >= places.share) {
            let first = self.owners.get(owner).and_then(BTreeSet::first).cloned();
            if !self.forget_older(first, places.oldest) {
                return false;
            }
        }
        while self.all.len() >= places.all {
            let first = self.by_age.first().cloned();
            if !self.forget_older(first, places.oldest) {
                return false;
            }
        }
        true
    }

    fn forget_older(&mut self, first: Option<(u64, Respondent)>, oldest: u64) -> bool {
        let stale = first.filter(|(used, _)| *used < oldest);
        stale.is_some_and(|(_, respondent)| self.remove(&respondent).is_some())
    }

    fn insert(&mut self, respondent: Respondent, answerer: Answerer) {
        let age = (answerer.used.number, respondent.clone());
        self.owners.entry(answerer.owner.clone()).or_default().insert(age.clone());
        self.by_age.insert(age);
        self.all.insert(respondent, answerer);
    }

    fn remove(&mut self, respondent: &Respondent) -> Option<Answerer> {
        let (respondent, answerer) = self.all.remove_entry(respondent)?;
        let age = (answerer.used.number, respondent);
        self.by_age.remove(&age);
        if let Some(own) = self.owners.get_mut(&answerer.owner) {
            own.remove(&age);
            if own.is_empty() {
                self.owners.remove(&answerer.owner);
            }
        }
        Some(answerer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const ALL: usize = 6;
    const SHARE: usize = 3;

    fn issued(number: u64) -> Issued {
        Issued { number, challenge: [0; 16] }
    }

    fn session(nai: u8, name: u8) -> Respondent {
        Respondent::Session([nai].as_slice().into(), [name].as_slice().into())
    }

    #[test]
    fn whoever_was_not_heard_of_for_longest_makes_room_and_loses_its_offer() {
        let mut answerers = Answerers::default();
        let places = Places { all: 4, share: 2, oldest: 100 };
        let mut note = |nai: u8, number: u64| {
            let owner = Owner::Nai([nai].as_slice().into());
            assert!(answerers.note(session(nai, 0), owner, issued(number), places));
            answerers.offer(&session(nai, 0), issued(number + 1));
            let left = (0..6).filter(|nai| {
                answerers.get(&session(*nai, 0)).is_some_and(|one| one.offered.is_some())
            });
            left.collect::<Vec<_>>()
        };
        for (nai, number) in [(0, 20), (1, 10), (2, 40)] {
            note(nai, number);
        }
        // The oldest has come again.
        assert_eq!(note(1, 50), [0, 1, 2]);
        assert_eq!(note(3, 60), [0, 1, 2, 3]);
        assert_eq!(note(4, 70), [1, 2, 3, 4]);
        assert_eq!(note(5, 80), [1, 3, 4, 5]);
    }

    proptest! {
        /// Within all bounds, and nothing that could be used again is ever forgotten.
        #[test]
        fn what_is_taken_is_remembered_until_nobody_could_use_it(
            steps in prop::collection::vec((0..4u8, 0..6u8, 0..4u64, any::<bool>()), 0..200),
        ) {
            let mut answerers = Answerers::default();
            let mut model: BTreeMap<Respondent, u64> = BTreeMap::new();
            let (mut newest, window) = (10, 3);
            for (nai, name, back, moves) in steps {
                newest += u64::from(moves);
                let oldest = newest - window;
                let (who, number) = (session(nai, name), newest - back.min(window));
                let owner = Owner::Nai([nai].as_slice().into());
                let places = Places { all: ALL, share: SHARE, oldest };
                let live = |model: &BTreeMap<Respondent, u64>, of: Option<u8>| {
                    let of = |who: &Respondent| of.is_none_or(|nai| {
                        (0..6).any(|name| *who == session(nai, name))
                    });
                    model.iter().filter(|(who, used)| of(who) && **used >= oldest).count()
                };
                let room = live(&model, None) < ALL && live(&model, Some(nai)) < SHARE;
                let known = answerers.get(&who).is_some();
                let taken = answerers.note(who.clone(), owner, issued(number), places);
                prop_assert_eq!(taken, known || room);
                if taken {
                    let used = model.entry(who).or_default();
                    *used = (*used).max(number);
                }
                for (who, used) in model.iter().filter(|(_, used)| **used >= oldest) {
                    prop_assert_eq!(answerers.get(who).map(|one| one.used.number), Some(*used));
                }
                prop_assert!(answerers.all.len() <= ALL);
                let ages: Vec<_> = answerers.owners.values().flatten().cloned().collect();
                prop_assert_eq!(ages.into_iter().collect::<ByAge>(), answerers.by_age.clone());
                prop_assert_eq!(answerers.by_age.len(), answerers.all.len());
                prop_assert!(answerers.owners.values().all(|own| (1..=SHARE).contains(&own.len())));
            }
        }
    }
}
