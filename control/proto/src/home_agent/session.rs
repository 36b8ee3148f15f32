//! The sessions of the nodes that are known by NAI: which address is whose.
//!
//! A session is (NAI, sub-NAI). From its first accepted request until its address may be
//! another's it has a record; what it is bound to is in the node's record of that address,
//! beside those of nodes without NAI. An address belongs to one record at most.
//!
//! | state | ends | then |
//! |---|---|---|
//! | bound | with its binding | sticky |
//! | at home | when it is not heard of for as long as addresses are sticky | gone |
//! | sticky | after as long | gone |
//! | held down | after as long as addresses are | gone |
//!
//! Whoever comes again before a record is gone gets the same address.

use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::hint::black_box;
use core::net::Ipv4Addr;
use core::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::chunks::Chunks;
use super::foresight::touch;
use crate::Instant;
use crate::security::Subscriber;

/// The number of no session.
const NONE: u32 = u32::MAX;

/// The number of no pool.
const NO_POOL: u16 = u16::MAX;

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// It has a binding.
    Bound,
    /// It is at home, and needs none.
    AtHome,
    /// Its binding has ended; the address is kept for it.
    Sticky,
    /// It has given its address back, or was never accepted; nobody else has it yet.
    HeldDown,
}

impl SessionState {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            SessionState::Bound => "bound",
            SessionState::AtHome => "home",
            SessionState::Sticky => "sticky",
            SessionState::HeldDown => "held-down",
        }
    }

    /// Whether the address is in use.
    pub const fn is_live(self) -> bool {
        matches!(self, SessionState::Bound | SessionState::AtHome)
    }

    /// In which queue it waits for its end.
    const fn queue(self) -> Option<usize> {
        match self {
            SessionState::Bound => None,
            SessionState::AtHome | SessionState::Sticky => Some(0),
            SessionState::HeldDown => Some(1),
        }
    }
}

/// One session. Most names fit into the record, which is one line of the processor's cache.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Session {
    pub(super) sub_nai: SmallVec<[u8; 16]>,
    until: Instant,
    pub(super) subscriber: Subscriber,
    pub(super) address: Ipv4Addr,
    of_nai: Links,
    queued: Links,
    /// Of its NAI and its name.
    hash: u32,
    /// Whose address it has, or [`NO_POOL`].
    pool: u16,
    pub(super) state: SessionState,
}

impl Default for Session {
    fn default() -> Self {
        Session {
            sub_nai: SmallVec::new(),
            until: Instant(0),
            subscriber: Subscriber::default(),
            address: Ipv4Addr::UNSPECIFIED,
            of_nai: UNLINKED,
            queued: UNLINKED,
            hash: 0,
            pool: NO_POOL,
            state: SessionState::HeldDown,
        }
    }
}

impl Session {
    /// When it ends, if nothing is heard of it; `None`: with its binding.
    pub(super) fn until(&self) -> Option<Instant> {
        self.state.queue().map(|_| self.until)
    }
}

#[derive(Clone, Copy, Debug)]
struct Links {
    previous: u32,
    next: u32,
}

const UNLINKED: Links = Links { previous: NONE, next: NONE };

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
}

const EMPTY: Ends = Ends { first: NONE, last: NONE };

/// The sessions of one NAI.
#[derive(Clone, Copy, Debug)]
struct OfNai {
    sessions: Ends,
    live: u32,
    all: u32,
}

/// A session in the index by names: what a look-up ahead of a request needs is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Indexed {
    /// The session's number.
    pub(super) number: u32,
    /// The number of the node's record.
    pub(super) node: u32,
    pub(super) address: Ipv4Addr,
    pub(super) subscriber: Subscriber,
    /// That of the record.
    hash: u32,
}

/// The address of a session, and what else knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) address: Ipv4Addr,
    /// The number of the node's record.
    pub(super) node: u32,
    /// The number of the pool that it is of, if it is of one.
    pub(super) pool: Option<u16>,
}

/// A home agent's sessions.
#[derive(Debug)]
pub(super) struct SessionList {
    sessions: Chunks<Session>,
    /// Records that are nobody's.
    vacant: Vec<u32>,
    by_name: HashTable<Indexed>,
    /// By the place of the NAI.
    of_nai: Vec<OfNai>,
    queues: [Ends; 2],
    /// How many are in which state.
    counts: [usize; 4],
    /// The same of each pool.
    of_pools: Vec<[usize; 4]>,
}

impl Default for SessionList {
    fn default() -> Self {
        SessionList {
            sessions: Chunks::default(),
            vacant: Vec::new(),
            by_name: HashTable::new(),
            of_nai: Vec::new(),
            queues: [EMPTY; 2],
            counts: [0; 4],
            of_pools: Vec::new(),
        }
    }
}

/// A NAI has so few sessions that it can do little harm by choosing their names. The NAI's
/// number is not in it, which another config may change.
pub(super) fn name_hash(of_nai: u64, sub_nai: &[u8]) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "half of the hash is enough")]
    let hash = FixedState::with_seed(of_nai).hash_one(sub_nai) as u32;
    hash
}

/// Fills the bits by which a table tells its entries apart.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Which of the links of a session.
type Chain = fn(&mut Session) -> &mut Links;

impl SessionList {
    pub(super) fn count(&self, state: SessionState) -> usize {
        self.counts.get(state as usize).copied().unwrap_or(0)
    }

    /// How many addresses of a pool are sessions' in which state.
    pub(super) fn of_pool(&self, pool: usize) -> [usize; 4] {
        self.of_pools.get(pool).copied().unwrap_or_default()
    }

    pub(super) fn get(&self, number: u32) -> Option<&Session> {
        self.sessions.get(number)
    }

    /// Makes room for so many sessions, so that nothing need grow while they register.
    pub(super) fn reserve(&mut self, sessions: usize) {
        let more = sessions.saturating_sub(self.by_name.len());
        self.by_name.reserve(more, |one| spread(one.hash));
    }

    /// The session of this name: whose it is, the hash of that one's NAI, and the sub-NAI.
    pub(super) fn find(
        &self,
        (subscriber, of_nai): (Subscriber, u64),
        sub_nai: &[u8],
    ) -> Option<Indexed> {
        let hash = name_hash(of_nai, sub_nai);
        let is_it = |one: &Indexed| {
            (one.subscriber, one.hash) == (subscriber, hash)
                && self.is_named(one.number, subscriber, sub_nai)
        };
        self.by_name.find(spread(hash), is_it).copied()
    }

    /// Whether a session has this name.
    pub(super) fn is_named(&self, number: u32, subscriber: Subscriber, sub_nai: &[u8]) -> bool {
        self.get(number).is_some_and(|session| {
            session.subscriber == subscriber && session.sub_nai.as_slice() == sub_nai
        })
    }

    /// The session that has most likely a name of this hash: no record is looked at.
    pub(super) fn guess(&self, hash: u32) -> Option<Indexed> {
        self.by_name.find(spread(hash), |one| one.hash == hash).copied()
    }

    /// Brings the place in the index of a new session, whose name is of this hash, into the
    /// processor's cache.
    pub(super) fn prepare_new(&self, hash: u32) {
        touch(&self.by_name, spread(hash));
    }

    /// The youngest session of a NAI, which the next one is linked with.
    pub(super) fn last_of(&self, subscriber: Subscriber) -> Option<u32> {
        let last = self.of_nai.get(subscriber.place())?.sessions.last;
        Some(last).filter(|number| *number != NONE)
    }

    /// Brings a record into the processor's cache.
    pub(super) fn prepare(&self, number: u32) {
        black_box(self.get(number).map(|session| (session.sub_nai.len(), session.state)));
    }

    /// How many sessions of a NAI are live, and how many have an address.
    pub(super) fn of_nai(&self, subscriber: Subscriber) -> (u32, u32) {
        self.of_nai.get(subscriber.place()).map_or((0, 0), |of| (of.live, of.all))
    }

    /// The sessions of a NAI, the oldest first.
    pub(super) fn all_of(&self, subscriber: Subscriber) -> impl Iterator<Item = u32> {
        let first = self.of_nai.get(subscriber.place()).map_or(NONE, |of| of.sessions.first);
        let next = |number: &u32| self.get(*number).map(|session| session.of_nai.next);
        core::iter::successors(Some(first), next).take_while(|number| *number != NONE)
    }

    /// Every session, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.by_name.iter().filter_map(|entry| self.get(entry.number))
    }

    /// Adds a session, which has neither name nor address, nor the node's record of that, in
    /// common with another. It is held down until it is said how it stands.
    pub(super) fn add(
        &mut self,
        (subscriber, of_nai): (Subscriber, u64),
        sub_nai: &[u8],
        place: Place,
        until: Instant,
    ) -> u32 {
        self.add_hashed(subscriber, name_hash(of_nai, sub_nai), sub_nai, place, until)
    }

    fn add_hashed(
        &mut self,
        subscriber: Subscriber,
        hash: u32,
        sub_nai: &[u8],
        Place { address, node, pool }: Place,
        until: Instant,
    ) -> u32 {
        let pool = pool.unwrap_or(NO_POOL);
        let vacant = self.vacant.pop();
        let number = vacant.unwrap_or_else(|| self.sessions.push(Session::default()));
        if let Some(record) = self.sessions.get_mut(number) {
            // In its place: one that is put together elsewhere is read back to be put here,
            // and that waits for everything that was written before.
            record.sub_nai.extend_from_slice(sub_nai);
            (record.until, record.subscriber, record.address) = (until, subscriber, address);
            (record.hash, record.pool) = (hash, pool);
            record.state = SessionState::HeldDown;
        }
        let indexed = Indexed { number, node, address, subscriber, hash };
        self.by_name.insert_unique(spread(hash), indexed, |one| spread(one.hash));
        let place = subscriber.place();
        if self.of_nai.len() <= place {
            let none = OfNai { sessions: EMPTY, live: 0, all: 0 };
            self.of_nai.resize(place + 1, none);
        }
        if let Some(of) = self.of_nai.get_mut(place) {
            of.all += 1;
            let ends = append(&mut self.sessions, of.sessions, number, |one| &mut one.of_nai);
            of.sessions = ends;
        }
        self.enqueue(number, SessionState::HeldDown);
        self.recount(pool, None, Some(SessionState::HeldDown));
        number
    }

    /// Says how a session stands from now on; `lasts` from now until it ends.
    pub(super) fn set(&mut self, number: u32, state: SessionState, now: Instant, lasts: Duration) {
        let Some(session) = self.sessions.get_mut(number) else { return };
        if (session.state, state) == (SessionState::Bound, SessionState::Bound) {
            return;
        }
        let before = core::mem::replace(&mut session.state, state);
        session.until = now + lasts;
        let (subscriber, pool) = (session.subscriber, session.pool);
        self.dequeue(number, before);
        self.enqueue(number, state);
        self.recount(pool, Some(before), Some(state));
        if let Some(of) = self.of_nai.get_mut(subscriber.place()) {
            of.live += u32::from(state.is_live());
            of.live -= u32::from(before.is_live());
        }
    }

    /// Adds a session that was in another list before, in the order of their ends.
    pub(super) fn put_back(
        &mut self,
        subscriber: Subscriber,
        session: &Session,
        place: Place,
    ) -> u32 {
        let Session { until, state, hash, .. } = *session;
        let number = self.add_hashed(subscriber, hash, &session.sub_nai, place, until);
        self.set(number, state, until, Duration::ZERO);
        number
    }

    /// When the next session ends by itself.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let first = |ends: &Ends| self.get(ends.first).map(|session| session.until);
        self.queues.iter().filter_map(first).min()
    }

    /// A session that has come to its end by now.
    pub(super) fn due(&self, now: Instant) -> Option<u32> {
        let due = |number: &u32| self.get(*number).is_some_and(|session| session.until <= now);
        self.queues.iter().map(|ends| ends.first).find(due)
    }

    /// Forgets a session. Its address is nobody's.
    pub(super) fn remove(&mut self, number: u32) -> Option<Session> {
        let session = self.get(number)?.clone();
        let Session { subscriber, state, pool, .. } = session;
        self.dequeue(number, state);
        if let Some(of) = self.of_nai.get_mut(subscriber.place()) {
            of.all -= 1;
            of.live -= u32::from(state.is_live());
            of.sessions = unlink(&mut self.sessions, of.sessions, number, |one| &mut one.of_nai);
        }
        let is_it = |one: &Indexed| one.number == number;
        if let Ok(entry) = self.by_name.find_entry(spread(session.hash), is_it) {
            entry.remove();
        }
        self.recount(pool, Some(state), None);
        if let Some(record) = self.sessions.get_mut(number) {
            // It is nobody's.
            *record = Session::default();
        }
        self.vacant.push(number);
        Some(session)
    }

    fn enqueue(&mut self, number: u32, state: SessionState) {
        if let Some(ends) = state.queue().and_then(|queue| self.queues.get_mut(queue)) {
            *ends = append(&mut self.sessions, *ends, number, |one| &mut one.queued);
        }
    }

    fn dequeue(&mut self, number: u32, state: SessionState) {
        if let Some(ends) = state.queue().and_then(|queue| self.queues.get_mut(queue)) {
            *ends = unlink(&mut self.sessions, *ends, number, |one| &mut one.queued);
        }
    }

    fn recount(&mut self, pool: u16, before: Option<SessionState>, after: Option<SessionState>) {
        let place = usize::from(pool);
        if pool != NO_POOL && self.of_pools.len() <= place {
            self.of_pools.resize(place + 1, [0; 4]);
        }
        let of_pool = self.of_pools.get_mut(place);
        for counts in core::iter::once(&mut self.counts).chain(of_pool) {
            if let Some(count) = before.and_then(|state| counts.get_mut(state as usize)) {
                *count -= 1;
            }
            if let Some(count) = after.and_then(|state| counts.get_mut(state as usize)) {
                *count += 1;
            }
        }
    }
}

fn append(sessions: &mut Chunks<Session>, ends: Ends, number: u32, links: Chain) -> Ends {
    if let Some(session) = sessions.get_mut(number) {
        *links(session) = Links { previous: ends.last, next: NONE };
    }
    match sessions.get_mut(ends.last) {
        Some(last) => links(last).next = number,
        None => return Ends { first: number, last: number },
    }
    Ends { last: number, ..ends }
}

fn unlink(sessions: &mut Chunks<Session>, mut ends: Ends, number: u32, links: Chain) -> Ends {
    let Some(session) = sessions.get_mut(number) else { return ends };
    let Links { previous, next } = core::mem::replace(links(session), UNLINKED);
    match sessions.get_mut(previous) {
        Some(session) => links(session).next = next,
        None => ends.first = next,
    }
    match sessions.get_mut(next) {
        Some(session) => links(session).previous = previous,
        None => ends.last = previous,
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::SecurityAssociations;
    use crate::security::nais::hash_of;
    use crate::security::{Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, Spi};
    use alloc::collections::BTreeMap;
    use alloc::vec;
    use proptest::prelude::*;

    const NAIS: [&[u8]; 3] = [b"a", b"b", b"c"];

    #[test]
    fn a_record_is_one_line_of_the_cache() {
        assert_eq!(size_of::<Session>(), 64);
    }

    fn subscribers() -> Vec<Subscriber> {
        let mut security = SecurityAssociations::default();
        let association = MobilitySecurityAssociation {
            spi: Spi(256),
            algorithm: Algorithm::HmacMd5,
            key: Key::new(vec![7; 16]),
            replay: ReplayProtection::Nonces,
        };
        let mut add = |nai: &[u8]| {
            let forever = crate::Lifetime::INFINITE;
            security.insert_nai(nai, None, association.clone(), forever).unwrap()
        };
        NAIS.map(&mut add).to_vec()
    }

    #[derive(Clone, Debug)]
    enum Op {
        Add(usize, u8, u8),
        Set(usize, u8, SessionState),
        Elapse(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let states = [
            SessionState::Bound,
            SessionState::AtHome,
            SessionState::Sticky,
            SessionState::HeldDown,
        ];
        prop_oneof![
            (0..3usize, 0..6u8, any::<u8>()).prop_map(|(nai, name, at)| Op::Add(nai, name, at)),
            (0..3usize, 0..6u8, prop::sample::select(states.to_vec()))
                .prop_map(|(nai, name, state)| Op::Set(nai, name, state)),
            (0..40u64).prop_map(Op::Elapse),
        ]
    }

    const STICKY: Duration = Duration::from_secs(30);
    const HOLD_DOWN: Duration = Duration::from_secs(10);

    proptest! {
        /// Every look-up, count and queue against a map that is searched from end to end.
        #[test]
        fn the_list_is_a_map_with_ends(ops in prop::collection::vec(op(), 0..200)) {
            let subscribers = subscribers();
            let mut list = SessionList::default();
            let mut model: BTreeMap<(Subscriber, u8), (u8, SessionState, Instant)> = BTreeMap::new();
            let mut now = Instant(0);
            let address = |at: u8| Ipv4Addr::new(10, 9, 0, at);
            // Of three pools, or of none.
            let pool = |at: u8| Some(u16::from(at % 4)).filter(|pool| *pool < 3);
            let place = |at: u8| Place { address: address(at), node: u32::from(at), pool: pool(at) };
            for op in ops {
                match op {
                    Op::Add(nai, name, at) => {
                        let subscriber = subscribers[nai];
                        let taken = model.contains_key(&(subscriber, name))
                            || model.values().any(|(used, ..)| *used == at);
                        if !taken {
                            let known = (subscriber, hash_of(NAIS[nai]));
                            let place = place(at);
                            list.add(known, &[name], place, now + HOLD_DOWN);
                            let one = (at, SessionState::HeldDown, now + HOLD_DOWN);
                            model.insert((subscriber, name), one);
                        }
                    }
                    Op::Set(nai, name, state) => {
                        let subscriber = subscribers[nai];
                        let lasts =
                            if state == SessionState::HeldDown { HOLD_DOWN } else { STICKY };
                        let number = list.find((subscriber, hash_of(NAIS[nai])), &[name]);
                        let known = model.get_mut(&(subscriber, name));
                        prop_assert_eq!(number.is_some(), known.is_some());
                        if let (Some(number), Some(known)) = (number, known) {
                            list.set(number.number, state, now, lasts);
                            (known.1, known.2) = (state, now + lasts);
                        }
                    }
                    Op::Elapse(seconds) => {
                        now = now + Duration::from_secs(seconds);
                        while let Some(number) = list.due(now) {
                            let gone = list.remove(number).unwrap();
                            let (_, _, until) =
                                model.remove(&(gone.subscriber, gone.sub_nai[0])).unwrap();
                            prop_assert!(until <= now);
                        }
                    }
                }
                let waits = |(_, state, until): &(u8, SessionState, Instant)| {
                    (*state != SessionState::Bound).then_some(*until)
                };
                prop_assert_eq!(list.next_end(), model.values().filter_map(waits).min());
                for subscriber in &subscribers {
                    let of = || model.iter().filter(|((of, _), _)| of == subscriber);
                    let live = of().filter(|(_, (_, state, _))| state.is_live()).count();
                    let (of_nai, all) = list.of_nai(*subscriber);
                    prop_assert_eq!((of_nai as usize, all as usize), (live, of().count()));
                    prop_assert_eq!(list.all_of(*subscriber).count(), of().count());
                    prop_assert_eq!(list.last_of(*subscriber), list.all_of(*subscriber).last());
                }
                for ((subscriber, name), (at, state, _)) in &model {
                    let nai = subscribers.iter().position(|one| one == subscriber).unwrap();
                    let known = (*subscriber, hash_of(NAIS[nai]));
                    let found = list.find(known, &[*name]).unwrap();
                    prop_assert_eq!((found.address, found.node), (address(*at), u32::from(*at)));
                    let record = list.get(found.number).unwrap();
                    prop_assert_eq!((record.address, record.state), (address(*at), *state));
                    prop_assert_eq!(list.guess(name_hash(known.1, &[*name])), Some(found));
                    let alike = model.values().filter(|(_, other, _)| other == state).count();
                    prop_assert_eq!(list.count(*state), alike);
                }
                for one in 0..3 {
                    let of = model.values().filter(|(at, ..)| pool(*at) == Some(one));
                    let mut counts = [0; 4];
                    of.for_each(|(_, state, _)| counts[*state as usize] += 1);
                    prop_assert_eq!(list.of_pool(usize::from(one)), counts);
                }
                prop_assert_eq!(list.iter().count(), model.len());
            }
        }
    }
}
