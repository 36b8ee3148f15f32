//! The last decisions on each of so many nodes, by what the nodes themselves have
//! signed.
//!
//! With a million nodes and room for some thousands, something must go. Stories of
//! refusals stand on a shelf of their own, a quarter of the room, so that those who are
//! merely well cannot push them out: there the oldest goes. On the other shelf a story
//! stays for [`MIN_KEPT`] at least; while all of it is younger than that, another
//! node's acceptance is not remembered, which costs next to nothing. What is so of a
//! node that is registered, its binding says anyway.

use std::hash::BuildHasher;
use std::net::Ipv4Addr;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use homeport_proto::decision::{Decision, SessionLabel, Standing};
use homeport_proto::{Instant, TenantId};

use super::Told;

/// Decisions of a story.
pub const STORY: usize = 8;
/// How many of them may be of copies: requests that the node made some time, and that
/// somebody may have kept and sent.
pub const STORY_COPIES: usize = 4;
/// How long a story of acceptances stays at least.
pub const MIN_KEPT: Duration = Duration::from_secs(60);
/// No config remembers more nodes than this.
pub const MAX_REMEMBERED_NODES: usize = 1 << 20;
/// Stories that are looked at for one that may go.
const LOOKED_AT: usize = 4;

type Key = (TenantId, Ipv4Addr);

#[derive(Debug)]
struct Story {
    /// `None`: the place is free.
    key: Option<Key>,
    opened: Instant,
    newest: usize,
    told: [Option<Told>; STORY],
}

/// Where a story stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Well(u32),
    Refused(u32),
}

#[derive(Debug)]
pub(super) struct Stories {
    index: HashTable<Place>,
    well: Shelf,
    refused: Shelf,
    pub(super) replaced: u64,
    pub(super) not_begun: u64,
}

#[derive(Debug)]
struct Shelf {
    stories: Vec<Story>,
    room: usize,
    free: Vec<u32>,
    hand: usize,
}

/// The operator chooses which nodes there are, so the hash needs no secret.
fn hash(key: Key) -> u64 {
    FixedState::with_seed(0).hash_one((key.0.0, key.1.to_bits()))
}

impl Stories {
    pub(super) fn new(room: usize) -> Self {
        let refused = room.div_ceil(4);
        Stories {
            index: HashTable::with_capacity(room),
            well: Shelf::new(room - refused),
            refused: Shelf::new(refused),
            replaced: 0,
            not_begun: 0,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.index.len() as u64
    }

    pub(super) fn record(&mut self, decision: &Decision, now: Instant) {
        let key = (decision.tenant, decision.request.home_address);
        let is_well = decision.ruling.cause.is_favourable();
        let place = match self.find(key) {
            Some(Place::Well(at)) if !is_well => self.move_to_refused(key, at, now),
            Some(place) => Some(place),
            None if is_well => self.begin_well(key, now),
            None => self.begin_refused(Story::new(key, now)),
        };
        if let Some(story) = place.and_then(|place| self.story_mut(place)) {
            story.take(decision, now);
        }
    }

    pub(super) fn of(
        &self,
        tenant: TenantId,
        home_address: Ipv4Addr,
    ) -> impl Iterator<Item = &Told> {
        let place = self.find((tenant, home_address));
        let story = place.and_then(|place| self.story(place));
        story.into_iter().flat_map(|story| story.told.iter().flatten())
    }

    fn find(&self, key: Key) -> Option<Place> {
        let is_of = |place: &Place| self.story(*place).is_some_and(|story| story.key == Some(key));
        self.index.find(hash(key), is_of).copied()
    }

    fn story(&self, place: Place) -> Option<&Story> {
        match place {
            Place::Well(at) => self.well.stories.get(at as usize),
            Place::Refused(at) => self.refused.stories.get(at as usize),
        }
    }

    fn story_mut(&mut self, place: Place) -> Option<&mut Story> {
        match place {
            Place::Well(at) => self.well.stories.get_mut(at as usize),
            Place::Refused(at) => self.refused.stories.get_mut(at as usize),
        }
    }

    /// A place for a node that is well, if there is one, or one that may go.
    fn begin_well(&mut self, key: Key, now: Instant) -> Option<Place> {
        let at = self.well.vacant().or_else(|| self.well.old(now));
        let Some(at) = at else {
            self.not_begun += u64::from(self.well.room > 0);
            return None;
        };
        self.put(Place::Well(at), Story::new(key, now))
    }

    /// A place for a story with a refusal: there always is one.
    fn begin_refused(&mut self, story: Story) -> Option<Place> {
        let at = self.refused.vacant().or_else(|| self.refused.next())?;
        self.put(Place::Refused(at), story)
    }

    fn move_to_refused(&mut self, key: Key, at: u32, now: Instant) -> Option<Place> {
        self.forget(key, Place::Well(at));
        let empty = Story { key: None, opened: now, newest: 0, told: [const { None }; STORY] };
        let story = std::mem::replace(self.well.stories.get_mut(at as usize)?, empty);
        self.well.free.push(at);
        self.begin_refused(story)
    }

    /// Puts a story onto its shelf, in the place of whatever stands there.
    fn put(&mut self, place: Place, story: Story) -> Option<Place> {
        let key = story.key?;
        let (shelf, at) = match place {
            Place::Well(at) => (&mut self.well, at),
            Place::Refused(at) => (&mut self.refused, at),
        };
        let before = match shelf.stories.get_mut(at as usize) {
            Some(before) => std::mem::replace(before, story).key,
            None => {
                shelf.stories.push(story);
                None
            }
        };
        if let Some(before) = before {
            self.replaced += 1;
            self.forget(before, place);
        }
        let Stories { index, well, refused, .. } = self;
        // There is room for all, but what was removed is cleared away now and then.
        index.insert_unique(hash(key), place, |place| {
            let (shelf, at) = match place {
                Place::Well(at) => (&*well, at),
                Place::Refused(at) => (&*refused, at),
            };
            shelf.stories.get(*at as usize).and_then(|story| story.key).map_or(0, hash)
        });
        Some(place)
    }

    fn forget(&mut self, key: Key, place: Place) {
        if let Ok(entry) = self.index.find_entry(hash(key), |other| *other == place) {
            entry.remove();
        }
    }
}

impl Shelf {
    fn new(room: usize) -> Self {
        Shelf { stories: Vec::with_capacity(room), room, free: Vec::with_capacity(room), hand: 0 }
    }

    /// A place without a story.
    fn vacant(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let at = self.stories.len();
            u32::try_from(at).ok().filter(|_| at < self.room)
        })
    }

    /// The place whose turn it is to be given up.
    fn next(&mut self) -> Option<u32> {
        let at = u32::try_from(self.hand).ok()?;
        self.hand = (self.hand + 1).checked_rem(self.room)?;
        Some(at)
    }

    /// The same, if what stands there is old enough.
    fn old(&mut self, now: Instant) -> Option<u32> {
        // A place that was vacated between is younger than those behind it.
        for step in 0..LOOKED_AT {
            let at = (self.hand + step).checked_rem(self.room)?;
            let story = self.stories.get(at)?;
            if now.saturating_since(story.opened) >= MIN_KEPT {
                self.hand = at;
                return self.next();
            }
        }
        None
    }
}

impl Story {
    const fn new(key: Key, now: Instant) -> Self {
        Story { key: Some(key), opened: now, newest: 0, told: [const { None }; STORY] }
    }

    fn take(&mut self, decision: &Decision, now: Instant) {
        if let Some(at) = self.last_of(decision.session)
            && let Some(told) = self.told.get_mut(at).and_then(Option::as_mut)
            && told.counts(decision, now)
        {
            self.newest = at;
            return;
        }
        let is_copy = |told: &Told| told.decision.ruling.standing == Standing::Copied;
        let copies = self.told.iter().flatten().filter(|told| is_copy(told)).count();
        let full = decision.ruling.standing == Standing::Copied && copies >= STORY_COPIES;
        let places = self.told.iter_mut().enumerate();
        // A free one, or the oldest: of the copies, when there are enough of them.
        let place = places
            .filter(|(_, told)| !full || told.as_ref().is_some_and(is_copy))
            .min_by_key(|(_, told)| told.as_ref().map(|told| told.last));
        if let Some((at, place)) = place {
            *place = Some(Told::once(decision, now));
            self.newest = at;
        }
    }

    /// Where the last decision on a session stands: several may take turns.
    fn last_of(&self, session: Option<SessionLabel>) -> Option<usize> {
        let told = self.told.iter().enumerate();
        let told = told.filter_map(|(at, one)| Some((at, one.as_ref()?)));
        told.filter(|(_, one)| one.decision.session == session)
            .max_by_key(|(at, one)| (one.last, *at == self.newest))
            .map(|(at, _)| at)
    }
}
