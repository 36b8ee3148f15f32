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
//!
//! Who waits for an end waits in a queue, in the order of the ends: the first one whose
//! last ends no later. There need be no more queues than there are times to wait for,
//! which are three: sticky, held down, and sticky behind a restart, for as long as a
//! binding may last. Another config may have others.

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

/// How many queues there are.
const QUEUES: usize = 6;

/// The number of no queue.
const NO_QUEUE: u8 = u8::MAX;

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

    /// Whether it ends by itself.
    const fn ends(self) -> bool {
        !matches!(self, SessionState::Bound)
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
    /// In which queue it waits for its end, or [`NO_QUEUE`].
    queue: u8,
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
            queue: NO_QUEUE,
            state: SessionState::HeldDown,
        }
    }
}

impl Session {
    /// When it ends, if nothing is heard of it; `None`: with its binding.
    pub(super) fn until(&self) -> Option<Instant> {
        self.state.ends().then_some(self.until)
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

/// Sessions that end one behind the other.
#[derive(Clone, Copy, Debug)]
struct Queue {
    ends: Ends,
    /// Nobody in it ends later.
    latest: Instant,
}

const NOBODY: Queue = Queue { ends: EMPTY, latest: Instant(0) };

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
    queues: [Queue; QUEUES],
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
            queues: [NOBODY; QUEUES],
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
        self.enqueue(number);
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
        self.dequeue(number);
        if state.ends() {
            self.enqueue(number);
        }
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
        let first = |queue: &Queue| self.get(queue.ends.first).map(|session| session.until);
        self.queues.iter().filter_map(first).min()
    }

    /// A session that has come to its end by now.
    pub(super) fn due(&self, now: Instant) -> Option<u32> {
        let due = |number: &u32| self.get(*number).is_some_and(|session| session.until <= now);
        self.queues.iter().map(|queue| queue.ends.first).find(due)
    }

    /// Forgets a session. Its address is nobody's.
    pub(super) fn remove(&mut self, number: u32) -> Option<Session> {
        let session = self.get(number)?.clone();
        let Session { subscriber, state, pool, .. } = session;
        self.dequeue(number);
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

    fn enqueue(&mut self, number: u32) {
        let Some(session) = self.sessions.get_mut(number) else { return };
        let until = session.until;
        let fits = self.queues.iter().position(|queue| queue.latest <= until);
        // With none that fits, those behind a longer wait end with it: late, but they end.
        let place = fits.unwrap_or(QUEUES - 1);
        session.queue = u8::try_from(place).unwrap_or(NO_QUEUE);
        if let Some(queue) = self.queues.get_mut(place) {
            queue.latest = queue.latest.max(until);
            queue.ends = append(&mut self.sessions, queue.ends, number, |one| &mut one.queued);
        }
    }

    fn dequeue(&mut self, number: u32) {
        let Some(session) = self.sessions.get_mut(number) else { return };
        let place = core::mem::replace(&mut session.queue, NO_QUEUE);
        if let Some(queue) = self.queues.get_mut(usize::from(place)) {
            queue.ends = unlink(&mut self.sessions, queue.ends, number, |one| &mut one.queued);
            if queue.ends.first == NONE {
                *queue = NOBODY;
            }
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
mod tests;
