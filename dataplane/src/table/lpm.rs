//! A route table: longest prefix match in any number of scopes, with one writer and
//! any number of readers that never wait. The scopes of the kernel's routes are
//! tenants; those of [source-restricted routes](super::source_route) are lists.
//!
//! # How it works
//!
//! One [hash table](super::hash) holds every route under (scope, prefix, prefix
//! length). Beside it, one atomic word has a bit for each prefix length that any
//! route has. A look-up tries the lengths in use, from the longest to the shortest:
//! the first hit is the longest match.
//!
//! # Why it is right
//!
//! Single routes are installed, replaced and removed atomically, as the hash table
//! does it. A look-up reads several keys, though, and the writer may change routes
//! between two of them: a look-up that tried the new /24 before it was there and
//! the old /16 after it was removed would find nothing, though one of them was
//! there at any time. So the word also counts removals:
//!
//! * The writer sets a length's bit after its first route is in (`Release`), and
//!   raises the count (`Release`) *before* it removes a route.
//! * A look-up reads the word (`Acquire`), looks up, and reads it again. If it saw
//!   a slot that a removal emptied (an `Acquire` load of a `Release` store), it also
//!   sees the count raised before it. So if the count is unchanged, every removal
//!   that the look-up saw was announced before it began; then the first read of
//!   the word made visible all that was installed before those removals.
//! * If the count did change, the look-up is made again, at most [`ATTEMPTS`] times
//!   in all: it never waits for the writer. Only a removal during each attempt
//!   leaves a result that may be a gap's.
//!
//! **Not done:** a look-up costs as many hash look-ups as there are prefix lengths
//! in use; a trie or per-scope lengths would make fewer.

use std::{fmt, net::Ipv4Addr};

use homeport_wire::TenantId;

use super::{
    hash::{self, Reader, TableFull, Writer},
    keyed::{TableKey, WORDS},
    route::RouteEntry,
};
use crate::sync::{Arc, AtomicU64, Mutant, Ordering, Padded, planted};

/// The longest prefix of IPv4.
const LONGEST: u8 = 32;

/// Bits of the word that name lengths in use: bit n for /n. Above them is the
/// count of removals.
const LENGTHS: u64 = (1 << (LONGEST + 1)) - 1;

/// One removal, in the word.
const REMOVAL: u64 = LENGTHS + 1;

/// How often a look-up is made when routes are removed meanwhile.
pub const ATTEMPTS: usize = 8;

/// What a route is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Makes a route table for at most `capacity` routes; `seed` as in
/// [`hash::table`].
pub fn routes<S, V>(capacity: usize, seed: [u64; 2]) -> RouteWriter<S, V>
where
    S: Scope,
    V: Copy + Send + Sync + 'static,
{
    RouteWriter {
        routes: hash::table(capacity, seed),
        word: Arc::new(Padded(AtomicU64::new(0))),
        used: [0; LONGEST as usize + 1],
    }
}

/// What routes are kept apart by.
pub trait Scope: TableKey {}

impl<S: TableKey> Scope for S {}

impl<S: Scope> TableKey for RouteKey<S> {
    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        let [scope, ..] = self.scope.words();
        [scope, u64::from(self.prefix.to_bits()) << 8 | u64::from(self.prefix_len), 0]
    }
}

/// The only one who changes the routes.
pub struct RouteWriter<S = TenantId, V = RouteEntry> {
    routes: Writer<RouteKey<S>, V>,
    /// The lengths in use and the count of removals; only the writer stores to it.
    word: Arc<Padded<AtomicU64>>,
    /// How many routes each prefix length has.
    used: [usize; LONGEST as usize + 1],
}

impl<S: Scope, V: Copy + Send + Sync + 'static> RouteWriter<S, V> {
    /// A new reader, online. It must say `quiescent` or `offline` like any reader.
    pub fn reader(&self) -> RouteReader<S, V> {
        RouteReader { routes: self.routes.reader(), word: Arc::clone(&self.word) }
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
        let before = self.routes.len();
        self.routes.install(key, entry)?;
        if self.routes.len() > before
            && let Some(used) = self.used.get_mut(usize::from(key.prefix_len))
        {
            *used += 1;
            // Relaxed: the writer stored it itself. Release: who sees the bit sees
            // the route.
            let word = self.word.0.load(Ordering::Relaxed);
            self.word.0.store(word | 1 << key.prefix_len, Ordering::Release);
        }
        Ok(())
    }

    /// Removes a route; whether it was there.
    pub fn remove(&mut self, scope: S, prefix: Ipv4Addr, prefix_len: u8) -> bool {
        let key = RouteKey::new(scope, prefix, prefix_len);
        if self.routes.get(&key).is_none() {
            return false;
        }
        // Relaxed: the writer stored it itself. Release: who knows of the removal
        // sees all routes that were installed before it.
        let word = self.word.0.load(Ordering::Relaxed).wrapping_add(REMOVAL);
        let order =
            if planted(Mutant::RemovalRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        if planted(Mutant::RemovalLate) {
            self.routes.remove(&key);
        }
        self.word.0.store(word, order);
        self.routes.remove(&key);
        if let Some(used) = self.used.get_mut(usize::from(key.prefix_len)) {
            *used -= 1;
            if *used == 0 {
                // Relaxed would do: a look-up for a length without routes is only
                // slower.
                self.word.0.store(word & !(1 << key.prefix_len), Ordering::Release);
            }
        }
        true
    }

    /// The route of exactly this prefix.
    pub fn get(&self, scope: S, prefix: Ipv4Addr, prefix_len: u8) -> Option<&V> {
        self.routes.get(&RouteKey::new(scope, prefix, prefix_len))
    }

    /// All routes, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&RouteKey<S>, &V)> {
        self.routes.iter()
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
        self.routes.capacity()
    }
}

impl<S, V> fmt::Debug for RouteWriter<S, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteWriter").field("routes", &self.routes).finish_non_exhaustive()
    }
}

/// Finds routes, without ever waiting. Dropping it deregisters it.
pub struct RouteReader<S = TenantId, V = RouteEntry> {
    routes: Reader<RouteKey<S>, V>,
    word: Arc<Padded<AtomicU64>>,
}

impl<S: Scope, V: Copy + Send + Sync + 'static> RouteReader<S, V> {
    /// The scope's route with the longest prefix that `destination` is in. An
    /// offline reader finds none.
    pub fn lookup(&self, scope: S, destination: Ipv4Addr) -> Option<V> {
        self.lookup_from(0, scope, destination)
    }

    /// As [`RouteReader::lookup`], but no prefix shorter than `shortest` counts.
    pub fn lookup_from(&self, shortest: u8, scope: S, destination: Ipv4Addr) -> Option<V> {
        let counting = LENGTHS & (u64::MAX << shortest.min(LONGEST));
        // Acquire: all routes whose bits it has, and all that were installed before
        // the removals that it counts.
        let mut word = self.word.0.load(Ordering::Acquire);
        let mut found = None;
        for _ in 0..ATTEMPTS {
            found = self.longest(word & counting, scope, destination);
            // The look-up's loads are Acquire: this one cannot be made before them.
            let after = self.word.0.load(Ordering::Acquire);
            if after & !LENGTHS == word & !LENGTHS || planted(Mutant::RouteUnchecked) {
                break;
            }
            word = after;
        }
        found
    }

    /// Whether no scope has any route.
    #[inline]
    pub fn is_empty(&self) -> bool {
        // Relaxed: a look-up that follows reads the word itself.
        self.word.0.load(Ordering::Relaxed) & LENGTHS == 0
    }

    /// As for [`Reader::quiescent`].
    #[inline]
    pub fn quiescent(&mut self) {
        self.routes.quiescent();
    }

    /// As for [`Reader::offline`].
    pub fn offline(&mut self) {
        self.routes.offline();
    }

    /// As for [`Reader::online`].
    pub fn online(&mut self) {
        self.routes.online();
    }

    /// Tries `lengths` (a bit for each), the longest first.
    fn longest(&self, mut lengths: u64, scope: S, destination: Ipv4Addr) -> Option<V> {
        while let Some(length) = lengths.checked_ilog2() {
            lengths &= !(1 << length);
            // At most 32: `LENGTHS` has no bit above.
            let key = RouteKey::new(scope, destination, length as u8);
            if let Some(entry) = self.routes.lookup(&key) {
                return Some(*entry);
            }
        }
        None
    }
}

impl<S, V> fmt::Debug for RouteReader<S, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteReader").field("routes", &self.routes).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

#[cfg(test)]
#[cfg(loom)]
mod loom_models;
