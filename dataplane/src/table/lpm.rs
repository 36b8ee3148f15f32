//! A route table: longest prefix match in any number of scopes, with one writer and
//! any number of readers that never wait. The scopes of the kernel's routes are
//! tenants; those of [source-restricted routes](super::source_route) are lists.
//!
//! # How it works
//!
//! The table is a *trie* with a stride of eight bits: a node has 256 slots, and the
//! scope's number and the address, a byte for each level, lead from node to node.
//! A slot is one atomic word. It names a *child*, or it is a *leaf*: the number of a
//! value and the length of the prefix that put it there; or it is empty. A prefix is
//! expanded: it has all slots that it covers, but those that a longer one has, in
//! its own node and in the nodes below. So the slot at which a walk ends holds the
//! longest match, and a look-up never turns back.
//!
//! The walk of scope 0 begins at the node of its addresses, as that never goes away:
//! it costs one load when there are no prefixes but the default route's, and three
//! for a /24. Other scopes have the nodes of their numbers before it: one for those
//! below 256, else four.
//!
//! Equal values are kept once: a million routes by a handful of gateways take a
//! handful of cache lines of values.
//!
//! Nodes and values lie in slabs that are as large as they may ever become and never
//! move; memory that is not used is not touched. The writer also keeps the routes in
//! an ordered map, to know what a removed route hid.
//!
//! # Why it is right
//!
//! * A slot goes from one leaf to another in one store, and each is the best match of
//!   what is installed: a reader sees the old state or the new one, never a gap, and
//!   needs not look twice. A change that covers many slots is seen by one address
//!   earlier than by another.
//! * What a word names (a child's slots, a value) is filled before the word is stored
//!   with `Release`, and loaded with `Acquire`. New nodes are all filled before the
//!   uppermost is named: they become known in one step.
//! * A node goes when the last prefix that ends in it or below it has gone. All its
//!   slots then hold the same word, and its place in the parent takes that. Nodes
//!   and values are reused when all readers have passed a quiescent point
//!   ([`qsbr`](super::qsbr)). A reader that is in such a node still reads what was
//!   right after it began.
//! * Only the writer stores, and it is `&mut` when it does, so what it lends from
//!   `get` and `iter` cannot change.
//!
//! **Not done:** a prefix shorter than /8 that comes or goes costs a walk over all
//! that is below it, the default route one over the whole scope; huge pages.
#![allow(unsafe_code, reason = "readers and the writer share values without a lock")]

mod room;
mod trie;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::Hash,
    marker::PhantomData,
    net::Ipv4Addr,
};

use homeport_wire::TenantId;

use self::{
    room::{Room, Users},
    trie::{HOME, Key, LEVELS, Leaf, MAX_VALUES, Node, TOP, Trie, Word, prepare, publish, read},
};
use super::{hash::TableFull, qsbr::Participant, route::RouteEntry};
use crate::sync::{Arc, Mutant, Ordering, planted};

/// The longest prefix of IPv4.
const LONGEST: u8 = 32;

/// The most routes of a table.
pub const MAX_CAPACITY: usize = MAX_VALUES / 2;

/// Nodes and values beyond those that the routes need, for those that wait for
/// readers.
const SPARE: std::ops::RangeInclusive<usize> = if cfg!(loom) { 1..=1 } else { 64..=65_536 };

/// How many routes may each have a way of nodes of its own. More routes than this
/// share the upper ones, unless they are in very many scopes.
const SCATTERED: usize = 1 << 16;

/// What a route is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey<S = TenantId> {
    /// Whose route it is.
    scope: S,
    /// The prefix; bits beyond its length are zero.
    prefix: Ipv4Addr,
    /// How many bits of it count, 0 to 32.
    prefix_len: u8,
}

impl<S: Copy> RouteKey<S> {
    /// The key of the prefix that `address` is in. A length above 32 counts as 32.
    pub fn new(scope: S, address: Ipv4Addr, prefix_len: u8) -> Self {
        let prefix_len = prefix_len.min(LONGEST);
        let mask = u32::MAX.checked_shl(u32::from(LONGEST - prefix_len)).unwrap_or(0);
        let prefix = Ipv4Addr::from_bits(address.to_bits() & mask);
        RouteKey { scope, prefix, prefix_len }
    }

    /// Whose route it is.
    pub const fn scope(&self) -> S {
        self.scope
    }

    /// The prefix; bits beyond its length are zero.
    pub const fn prefix(&self) -> Ipv4Addr {
        self.prefix
    }

    /// How many bits of the prefix count, 0 to 32.
    pub const fn prefix_len(&self) -> u8 {
        self.prefix_len
    }
}

impl<S> fmt::Display for RouteKey<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.prefix, self.prefix_len)
    }
}

/// Makes a route table for at most `capacity` routes (from 1 to [`MAX_CAPACITY`]; what
/// is outside is taken as the nearest). It reserves address space, about seven
/// kilobytes a route up to 65,536 routes and one for each further, and uses memory as
/// routes come.
pub fn routes<S, V>(capacity: usize) -> RouteWriter<S, V>
where
    S: Scope,
    V: Copy + Eq + Hash + Send + Sync + 'static,
{
    let capacity = capacity.clamp(1, MAX_CAPACITY);
    let spare = (capacity / 8).clamp(*SPARE.start(), *SPARE.end());
    let kept = HOME as usize + 1;
    // A way has a node on each level, but all have the top.
    let nodes = kept + capacity + (LEVELS - 2) * capacity.min(SCATTERED) + spare;
    let values = capacity + spare;
    RouteWriter {
        trie: Arc::new(Trie::new(nodes, values)),
        room: Room::new(kept as u32, nodes as u32, values as u32),
        routes: BTreeMap::new(),
        used: [0; LONGEST as usize + 1],
        numbers: HashMap::new(),
        value_users: Users::default(),
        node_users: Users::default(),
        epoch: 0,
        capacity,
    }
}

/// What routes are kept apart by.
pub trait Scope: Copy + Ord + Send + Sync + 'static {
    /// Its number, by which it differs from every other. Those below 256 are found
    /// faster, and 0 the fastest.
    fn number(self) -> u32;
}

impl Scope for TenantId {
    #[inline(always)]
    fn number(self) -> u32 {
        self.0
    }
}

/// The only one who changes the routes.
pub struct RouteWriter<S = TenantId, V = RouteEntry> {
    trie: Arc<Trie<V>>,
    room: Room,
    /// All routes, with the numbers of their values.
    routes: BTreeMap<RouteKey<S>, u32>,
    /// How many routes each prefix length has.
    used: [usize; LONGEST as usize + 1],
    /// The number of each value in use.
    numbers: HashMap<V, u32>,
    /// How many routes have a value, by its number.
    value_users: Users,
    /// How many prefixes end in a node and how many children it has, by its number.
    /// Whether it has any is not asked of those that never go.
    node_users: Users,
    /// As published.
    epoch: u64,
    capacity: usize,
}

impl<S: Scope, V: Copy + Eq + Hash + Send + Sync + 'static> RouteWriter<S, V> {
    /// A new reader, online. It must say `quiescent` or `offline` like any reader.
    pub fn reader(&self) -> RouteReader<S, V> {
        RouteReader {
            trie: Arc::clone(&self.trie),
            participant: self.room.reader(),
            scope: PhantomData,
        }
    }

    /// Adds a route, or replaces the one of this prefix in one step. Bits of
    /// `prefix` beyond `prefix_len` are ignored; a length above 32 counts as 32.
    ///
    /// # Errors
    ///
    /// [`TableFull`], and then nothing has changed.
    pub fn install(
        &mut self,
        scope: S,
        prefix: Ipv4Addr,
        prefix_len: u8,
        entry: V,
    ) -> Result<(), TableFull> {
        let key = RouteKey::new(scope, prefix, prefix_len);
        let old = self.routes.get(&key).copied();
        if old.is_none() && self.routes.len() >= self.capacity {
            return Err(TableFull);
        }
        let value = self.take_value(entry).ok_or(TableFull)?;
        if old == Some(value) {
            self.release_value(value);
            return Ok(());
        }
        if planted(Mutant::RouteEpochEarly) {
            self.publish();
        }
        if self.expand(&key, Word::leaf(key.prefix_len, value), old.is_none()).is_none() {
            self.release_value(value);
            return Err(TableFull);
        }
        self.routes.insert(key, value);
        match old {
            Some(old) => self.release_value(old),
            None => self.count(key.prefix_len, 1),
        }
        if !planted(Mutant::RouteEpochEarly) {
            self.publish();
        }
        Ok(())
    }

    /// Removes a route; whether it was there.
    pub fn remove(&mut self, scope: S, prefix: Ipv4Addr, prefix_len: u8) -> bool {
        let key = RouteKey::new(scope, prefix, prefix_len);
        let Some(value) = self.routes.remove(&key) else {
            return false;
        };
        self.count(key.prefix_len, -1);
        let uncovered = self.shorter(&key);
        self.contract(&key, Word::leaf(key.prefix_len, value), uncovered);
        self.release_value(value);
        self.publish();
        true
    }

    /// The route of exactly this prefix.
    pub fn get(&self, scope: S, prefix: Ipv4Addr, prefix_len: u8) -> Option<&V> {
        let value = self.routes.get(&RouteKey::new(scope, prefix, prefix_len))?;
        self.value(*value)
    }

    /// All routes, ordered by scope and prefix.
    pub fn iter(&self) -> impl Iterator<Item = (&RouteKey<S>, &V)> {
        self.routes.iter().filter_map(|(key, value)| Some((key, self.value(*value)?)))
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// How many routes there may be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Gives a prefix its slots, with the nodes that lead there; `None` if there are
    /// not enough, and then nothing has changed.
    fn expand(&mut self, route: &RouteKey<S>, leaf: Word, is_new: bool) -> Option<()> {
        let trie = Arc::clone(&self.trie);
        let key = route.key();
        let (last, covered) = key.end(route.prefix_len);
        let mut node = TOP;
        for level in 0..last {
            let slot = trie.slot(node, key, level)?;
            let word = read(slot);
            if let Some(child) = word.as_child() {
                node = child;
                continue;
            }
            let child = Word::child(self.branch(route, leaf, word, level + 1)?);
            if planted(Mutant::ChildPublishedRelaxed) {
                prepare(slot, child);
            } else {
                publish(slot, child);
            }
            self.node_users.add(node);
            return Some(());
        }
        trie.overwrite(node, covered, 0..=leaf.rank(), leaf);
        if is_new {
            self.node_users.add(node);
        }
        Some(())
    }

    /// A new node of `level`, and below it all to the end of a prefix. What `leaf`
    /// does not cover holds `above`.
    fn branch(
        &mut self,
        route: &RouteKey<S>,
        leaf: Word,
        above: Word,
        level: usize,
    ) -> Option<u32> {
        let key = route.key();
        let (last, covered) = key.end(route.prefix_len);
        let node = self.room.take_node()?;
        let below = if level == last {
            None
        } else if let Some(below) = self.branch(route, leaf, above, level + 1) {
            Some(Word::child(below))
        } else {
            self.room.give_back_node(node);
            return None;
        };
        for (index, slot) in self.trie.slots(node).iter().enumerate() {
            let word = match below {
                None if covered.contains(&index) => leaf,
                Some(below) if index == key.index(level) => below,
                _ => above,
            };
            prepare(slot, word);
        }
        self.node_users.add(node);
        Some(node)
    }

    /// Gives the slots of a prefix to `uncovered`, and lets nodes go in which no
    /// prefix is left.
    fn contract(&mut self, route: &RouteKey<S>, leaf: Word, uncovered: Word) {
        let trie = Arc::clone(&self.trie);
        let key = route.key();
        let (last, covered) = key.end(route.prefix_len);
        let mut way = [TOP; LEVELS];
        let mut node = TOP;
        for (level, place) in way.iter_mut().enumerate().take(last + 1) {
            *place = node;
            if level == last {
                break;
            }
            match trie.slot(node, key, level).and_then(|slot| read(slot).as_child()) {
                Some(child) => node = child,
                None => return,
            }
        }
        trie.overwrite(node, covered, leaf.rank()..=leaf.rank(), uncovered);
        let parents = way.iter().enumerate().take(last).rev();
        for (level, parent) in parents {
            if !self.node_users.leave(node) || node <= HOME {
                return;
            }
            if planted(Mutant::NodeRetiredEarly) {
                self.room.retire_node(node);
            }
            // All slots of the node hold the same.
            if let Some(slot) = trie.slot(*parent, key, level) {
                publish(slot, uncovered);
            }
            if !planted(Mutant::NodeRetiredEarly) {
                self.room.retire_node(node);
            }
            node = *parent;
        }
    }

    /// The leaf of the longest installed prefix that covers a route's and is shorter,
    /// or an empty word.
    fn shorter(&self, route: &RouteKey<S>) -> Word {
        let lengths = self.used.iter().zip(0..route.prefix_len).rev();
        lengths
            .filter(|(used, _)| **used > 0)
            .find_map(|(_, len)| {
                let value = self.routes.get(&RouteKey::new(route.scope, route.prefix, len))?;
                Some(Word::leaf(len, *value))
            })
            .unwrap_or(Word::EMPTY)
    }

    fn count(&mut self, prefix_len: u8, change: isize) {
        if let Some(used) = self.used.get_mut(usize::from(prefix_len)) {
            *used = used.saturating_add_signed(change);
        }
    }

    /// The number of a value, which it keeps until it was released as often as taken.
    fn take_value(&mut self, entry: V) -> Option<u32> {
        if let Some(number) = self.numbers.get(&entry) {
            self.value_users.add(*number);
            return Some(*number);
        }
        let number = self.room.take_value()?;
        // SAFETY: it was free: no slot names it, and every reader that could have
        // found it in a slot has passed a quiescent point since.
        unsafe { self.trie.fill(number, entry) };
        self.numbers.insert(entry, number);
        self.value_users.add(number);
        Some(number)
    }

    /// To be called when no slot holds it any more for this user.
    fn release_value(&mut self, number: u32) {
        if self.value_users.leave(number) {
            if let Some(value) = self.value(number).copied() {
                self.numbers.remove(&value);
            }
            self.room.retire_value(number);
        }
    }

    fn value(&self, number: u32) -> Option<&V> {
        // SAFETY: this is the writer, the value is not retired, and only `&mut self`
        // could change that.
        unsafe { self.trie.value(number) }
    }

    /// Tells readers that there was a change.
    fn publish(&mut self) {
        self.epoch += 1;
        let published = &self.trie.published.0;
        // Relaxed: a look-up that follows reads the trie itself.
        published.routes.store(self.routes.len() as u64, Ordering::Relaxed);
        // Release: who sees the epoch sees the change.
        let order =
            if planted(Mutant::RouteEpochRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        published.epoch.store(self.epoch, order);
    }
}

impl<S: Scope> RouteKey<S> {
    fn key(&self) -> Key {
        Key::new(self.scope.number(), self.prefix)
    }
}

impl<S, V> fmt::Debug for RouteWriter<S, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteWriter")
            .field("len", &self.routes.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// What a look-up found, until the reader's next quiescent point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match<'t> {
    leaf: Leaf,
    _reader: PhantomData<&'t ()>,
}

/// The routes of a reader that is online, and stays so as long as this borrows it: to go
/// offline, or to be quiescent, it must be borrowed alone.
#[derive(Clone, Copy)]
pub struct RoutesAtHand<'t, S = TenantId, V = RouteEntry> {
    trie: &'t Trie<V>,
    /// Where look-ups in scope 0 begin.
    home: &'t Node,
    scope: PhantomData<fn(S)>,
}

impl<'t, S: Scope, V: Copy + Send + Sync + 'static> RoutesAtHand<'t, S, V> {
    /// As [`RouteReader::find`].
    #[inline(always)]
    pub fn find(&self, scope: S, destination: Ipv4Addr) -> Option<Match<'t>> {
        let leaf = self.trie.best(self.home, Key::new(scope.number(), destination))?;
        Some(Match { leaf, _reader: PhantomData })
    }

    /// As [`RouteReader::entry`].
    #[inline(always)]
    pub fn entry(&self, found: &Match<'t>) -> Option<V> {
        // SAFETY: a slot named it, and the reader was online; and it has said neither
        // `quiescent` nor `offline` since, as the match borrows it.
        unsafe { self.trie.copy(found.leaf.value()) }
    }
}

/// Finds routes, without ever waiting. Dropping it deregisters it.
pub struct RouteReader<S = TenantId, V = RouteEntry> {
    trie: Arc<Trie<V>>,
    participant: Participant,
    scope: PhantomData<fn(S)>,
}

impl<S: Scope, V: Copy + Send + Sync + 'static> RouteReader<S, V> {
    /// The scope's route with the longest prefix that `destination` is in. An
    /// offline reader finds none.
    #[inline(always)]
    pub fn lookup(&self, scope: S, destination: Ipv4Addr) -> Option<V> {
        self.lookup_from(0, scope, destination)
    }

    /// As [`RouteReader::lookup`], but no prefix shorter than `shortest` counts.
    #[inline(always)]
    pub fn lookup_from(&self, shortest: u8, scope: S, destination: Ipv4Addr) -> Option<V> {
        let found = self.find(scope, destination)?;
        if found.leaf.rank() <= shortest.min(LONGEST) { None } else { self.entry(&found) }
    }

    /// The table at hand, for many look-ups. `None` from an offline reader.
    #[inline(always)]
    pub fn at_hand(&self) -> Option<RoutesAtHand<'_, S, V>> {
        debug_assert!(self.participant.is_online(), "a look-up by an offline reader");
        if !self.participant.is_online() {
            return None;
        }
        Some(RoutesAtHand { trie: &self.trie, home: self.trie.home()?, scope: PhantomData })
    }

    /// Which route [`RouteReader::lookup`] finds, for who wants to know whether it is
    /// the same as before: equal matches have equal entries.
    #[inline(always)]
    pub fn find(&self, scope: S, destination: Ipv4Addr) -> Option<Match<'_>> {
        self.at_hand()?.find(scope, destination)
    }

    /// The entry of a match.
    #[inline(always)]
    pub fn entry(&self, found: &Match<'_>) -> Option<V> {
        self.at_hand()?.entry(found)
    }

    /// The length of the prefix of a match.
    pub fn prefix_len(&self, found: &Match<'_>) -> u8 {
        found.leaf.rank().saturating_sub(1)
    }

    /// A number that changes with every route that is installed, replaced or removed,
    /// after the change is made.
    ///
    /// Who reads the epoch, then looks up, and later reads the same epoch again may
    /// use the result again: no change that was complete when the epoch was read first
    /// is missing from it, and none has been completed since. A look-up that came
    /// before the first reading may be older.
    #[inline]
    pub fn epoch(&self) -> u64 {
        // Acquire: later look-ups see every change before this epoch.
        self.trie.published.0.epoch.load(Ordering::Acquire)
    }

    /// Whether no scope has any route.
    #[inline]
    pub fn is_empty(&self) -> bool {
        // Relaxed: a look-up that follows reads the trie itself.
        self.trie.published.0.routes.load(Ordering::Relaxed) == 0
    }

    /// As for [`Reader::quiescent`](super::hash::Reader::quiescent).
    #[inline]
    pub fn quiescent(&mut self) {
        self.participant.quiescent();
    }

    /// As for [`Reader::offline`](super::hash::Reader::offline).
    pub fn offline(&mut self) {
        self.participant.offline();
    }

    /// As for [`Reader::online`](super::hash::Reader::online).
    pub fn online(&mut self) {
        self.participant.online();
    }
}

impl<S, V> fmt::Debug for RouteReader<S, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteReader")
            .field("participant", &self.participant)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

#[cfg(test)]
#[cfg(loom)]
mod loom_models;
