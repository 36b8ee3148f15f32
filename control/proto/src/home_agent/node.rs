//! What a home agent remembers of its nodes: one record each, found by one look-up.
//!
//! There may be sixteen million nodes, so a record is small: the plain case, one
//! tunnel and timestamps, is in the record itself, 176 bytes with the memory of
//! identifications and the links of its timer. Whatever is rarer, several tunnels,
//! mobile networks, nonces, challenges, denials, is kept beside, and only while there
//! is something to keep.
//!
//! Records never move and are never given up: what was accepted of a node must be
//! refused later, bound or not. Only who was authentic, or failed to be under an
//! association that there is, gets one, and each session for its address, so associations
//! and pools bound their number.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::hint::black_box;
use core::net::Ipv4Addr;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use homeport_wire::TenantId;

use super::Answered;
use super::chunks::Chunks;
use super::foresight::touch;
use super::path::{Challenge, ProvenPath};
use super::plain_binding::{ABSENT, ELSEWHERE, PlainBinding};
use crate::Instant;
use crate::binding::MobilityBinding;
use crate::identification::{NonceHistory, TimestampHistory};
use crate::limits::{DENIALS_PER_SECOND, FAILED_AUTHENTICATION_SPACING, PROVEN_TIME, TokenBucket};
use crate::security::{Spi, Subscriber};

/// The number of no node.
pub(super) const NO_NODE: u32 = u32::MAX;

/// The number of no session.
const NO_SESSION: u32 = u32::MAX;

/// What is remembered of a node.
#[derive(Debug)]
pub(super) struct Node {
    more: Option<Box<More>>,
    pub(super) timestamps: TimestampHistory,
    plain: PlainBinding,
    home_address: Ipv4Addr,
    previous: u32,
    next: u32,
    /// Of the session that has the home address, or [`NO_SESSION`].
    session: u32,
    slot: u16,
    waits: Waits,
}

/// Whether a node waits for the end of its binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// It does not.
    No,
    /// In this slot of the wheel.
    InSlot(u16),
    /// Among those that are due soon.
    Soon,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    No,
    InSlot,
    Soon,
}

/// What is remembered of few nodes.
#[derive(Debug)]
pub(super) struct More {
    /// A binding that does not fit into the record.
    binding: Option<MobilityBinding>,
    pub(super) nonces: BTreeMap<Spi, NonceHistory>,
    /// The last request that was fresh, and its answer, when it can come once more.
    pub(super) answered: Option<Answered>,
    pub(super) challenge: Option<Challenge>,
    /// Where it was, the last place in front; at most `PROVEN_PATHS` places.
    pub(super) proven: VecDeque<ProvenPath>,
    pub(super) last_failed_authentication: Option<Instant>,
    pub(super) denials: TokenBucket,
}

impl More {
    fn new(now: Instant) -> Self {
        More {
            binding: None,
            nonces: BTreeMap::new(),
            answered: None,
            challenge: None,
            proven: VecDeque::new(),
            last_failed_authentication: None,
            denials: TokenBucket::full(DENIALS_PER_SECOND, now),
        }
    }

    /// Whether it says no more than its absence would.
    fn is_idle(&self, now: Instant) -> bool {
        let failed_lately = self
            .last_failed_authentication
            .is_some_and(|last| now.saturating_since(last) < FAILED_AUTHENTICATION_SPACING);
        self.binding.is_none()
            && self.nonces.is_empty()
            && self.answered.is_none()
            && self.challenge.is_none_or(|challenge| challenge.expires <= now)
            && self.proven.iter().all(|path| now.saturating_since(path.at) >= PROVEN_TIME)
            && !failed_lately
            && self.denials.is_full(DENIALS_PER_SECOND, now)
    }
}

impl Default for Node {
    fn default() -> Self {
        Node::new(Ipv4Addr::UNSPECIFIED)
    }
}

impl Node {
    fn new(home_address: Ipv4Addr) -> Self {
        Node {
            more: None,
            timestamps: TimestampHistory::default(),
            plain: PlainBinding::NONE,
            home_address,
            previous: NO_NODE,
            next: NO_NODE,
            session: NO_SESSION,
            slot: 0,
            waits: Waits::No,
        }
    }

    pub(super) const fn home_address(&self) -> Ipv4Addr {
        self.home_address
    }

    pub(super) const fn is_bound(&self) -> bool {
        self.plain.kind != ABSENT
    }

    /// The session that has the home address, if one does.
    pub(super) fn session(&self) -> Option<u32> {
        Some(self.session).filter(|number| *number != NO_SESSION)
    }

    pub(super) fn set_session(&mut self, session: Option<u32>) {
        self.session = session.unwrap_or(NO_SESSION);
    }

    /// When the next of its care-of addresses ends.
    pub(super) fn expires(&self) -> Option<Instant> {
        match self.plain.kind {
            ABSENT => None,
            ELSEWHERE => self.full().and_then(MobilityBinding::next_expiry),
            _ => self.plain.expires(),
        }
    }

    fn full(&self) -> Option<&MobilityBinding> {
        self.more.as_ref().and_then(|more| more.binding.as_ref())
    }

    /// Whether all of its binding is in the record; so it is of one tunnel, and not
    /// in question.
    pub(super) const fn is_plain(&self) -> bool {
        self.plain.kind != ELSEWHERE
    }

    /// The rare rest, if there is any.
    pub(super) fn more(&self) -> Option<&More> {
        self.more.as_deref()
    }

    /// The rare rest, if there is any.
    pub(super) fn more_mut(&mut self) -> Option<&mut More> {
        self.more.as_deref_mut()
    }

    /// The rare rest, made if there was none.
    pub(super) fn make_more(&mut self, now: Instant) -> &mut More {
        self.more.get_or_insert_with(|| Box::new(More::new(now)))
    }

    /// Gives the memory back that is needed no more.
    pub(super) fn tidy(&mut self, now: Instant) {
        if self.more.as_ref().is_some_and(|more| more.is_idle(now)) {
            self.more = None;
        }
    }

    pub(super) const fn wait(&self) -> Wait {
        match self.waits {
            Waits::No => Wait::No,
            Waits::InSlot => Wait::InSlot(self.slot),
            Waits::Soon => Wait::Soon,
        }
    }

    pub(super) const fn set_wait(&mut self, wait: Wait) {
        self.waits = match wait {
            Wait::No => Waits::No,
            Wait::InSlot(slot) => {
                self.slot = slot;
                Waits::InSlot
            }
            Wait::Soon => Waits::Soon,
        };
    }

    pub(super) const fn previous(&self) -> u32 {
        self.previous
    }

    pub(super) const fn set_previous(&mut self, number: u32) {
        self.previous = number;
    }

    pub(super) const fn next(&self) -> u32 {
        self.next
    }

    pub(super) const fn set_next(&mut self, number: u32) {
        self.next = number;
    }
}

/// A home agent's nodes, and how many of them are bound.
#[derive(Debug)]
pub(super) struct NodeList {
    nodes: Chunks<Node>,
    bound: usize,
    /// Those that are known by their home addresses.
    index: HashTable<u32>,
    /// What is remembered of NAIs themselves, by their places; or [`NO_NODE`].
    of_nais: Vec<u32>,
    /// Whom the request at hand is about: it is looked for again and again.
    at_hand: u32,
    /// Stands in for a record that could not be found, which cannot happen.
    spare: Node,
}

impl Default for NodeList {
    fn default() -> Self {
        NodeList {
            nodes: Chunks::default(),
            bound: 0,
            index: HashTable::new(),
            of_nais: Vec::new(),
            at_hand: NO_NODE,
            spare: Node::default(),
        }
    }
}

/// The operator chooses which nodes there may be, so the hash needs no secret.
fn hash(home_address: Ipv4Addr) -> u64 {
    FixedState::with_seed(0).hash_one(home_address.to_bits())
}

impl NodeList {
    /// Makes room for the index of this many nodes, so that it need not grow while
    /// they register.
    pub(super) fn reserve(&mut self, nodes: usize) {
        let (more, nodes) = (nodes.saturating_sub(self.index.len()), &self.nodes);
        self.index.reserve(more, |number| index_hash(nodes, *number));
    }

    pub(super) fn find(&self, home_address: Ipv4Addr) -> Option<u32> {
        if self.get(self.at_hand).is_some_and(|node| node.home_address == home_address) {
            return Some(self.at_hand);
        }
        if let Some(subscriber) = Subscriber::in_place_of(home_address) {
            return self.of_nai(subscriber);
        }
        let is_it =
            |number: &u32| self.get(*number).is_some_and(|node| node.home_address == home_address);
        self.index.find(hash(home_address), is_it).copied()
    }

    fn of_nai(&self, subscriber: Subscriber) -> Option<u32> {
        self.of_nais.get(subscriber.place()).copied().filter(|number| *number != NO_NODE)
    }

    pub(super) fn get(&self, number: u32) -> Option<&Node> {
        self.nodes.get(number)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Node> {
        self.nodes.get_mut(number)
    }

    pub(super) fn of(&self, home_address: Ipv4Addr) -> Option<&Node> {
        self.find(home_address).and_then(|number| self.get(number))
    }

    /// The number that the index has for a node, or for one that looks like it there:
    /// no record is looked at.
    pub(super) fn guess(&self, home_address: Ipv4Addr) -> Option<u32> {
        if let Some(subscriber) = Subscriber::in_place_of(home_address) {
            return self.of_nai(subscriber);
        }
        self.index.find(hash(home_address), |_| true).copied()
    }

    /// Brings the place in the index of a new node into the processor's cache.
    pub(super) fn prepare_new(&self, home_address: Ipv4Addr) {
        touch(&self.index, hash(home_address));
    }

    /// Brings a record into the processor's cache, as far as it is small.
    pub(super) fn prepare(&self, number: u32) {
        if let Some(node) = self.get(number) {
            // One word of each of its cache lines.
            black_box((node.more.is_some(), node.timestamps.count(), node.is_bound(), node.next));
        }
    }

    /// The node's number, and a record if it had none.
    pub(super) fn make(&mut self, home_address: Ipv4Addr) -> u32 {
        let number = match self.find(home_address) {
            Some(number) => number,
            None => self.add(home_address),
        };
        self.at_hand = number;
        number
    }

    /// The request at hand is about the node of this number.
    pub(super) const fn take_to_hand(&mut self, number: u32) {
        self.at_hand = number;
    }

    fn add(&mut self, home_address: Ipv4Addr) -> u32 {
        let number = self.nodes.push(Node::new(home_address));
        if let Some(subscriber) = Subscriber::in_place_of(home_address) {
            self.set_of_nai(subscriber, number);
            return number;
        }
        let (nodes, hash) = (&self.nodes, hash(home_address));
        self.index.insert_unique(hash, number, |number| index_hash(nodes, *number));
        number
    }

    fn set_of_nai(&mut self, subscriber: Subscriber, number: u32) {
        let place = subscriber.place();
        if self.of_nais.len() <= place {
            self.of_nais.resize(place + 1, NO_NODE);
        }
        if let Some(of_nai) = self.of_nais.get_mut(place) {
            *of_nai = number;
        }
    }

    /// Gives the NAIs other numbers: `renumbered` says which.
    pub(super) fn renumber(
        &mut self,
        renumbered: impl IntoIterator<Item = (Subscriber, Subscriber)>,
    ) {
        let before = core::mem::take(&mut self.of_nais);
        self.at_hand = NO_NODE;
        for (old, new) in renumbered {
            let number = before.get(old.place()).copied().unwrap_or(NO_NODE);
            if let Some(node) = self.nodes.get_mut(number) {
                node.home_address = new.stand_in();
                self.set_of_nai(new, number);
            }
        }
    }

    /// The session that an address belongs to.
    pub(super) fn session(&self, home_address: Ipv4Addr) -> Option<u32> {
        self.of(home_address).and_then(Node::session)
    }

    /// Says which session an address belongs to from now on.
    pub(super) fn set_session(&mut self, home_address: Ipv4Addr, session: Option<u32>) {
        self.make_node(home_address).set_session(session);
    }

    /// The node's record, made if it had none.
    pub(super) fn make_node(&mut self, home_address: Ipv4Addr) -> &mut Node {
        let number = self.make(home_address);
        self.nodes.get_mut(number).unwrap_or(&mut self.spare)
    }

    pub(super) const fn bound(&self) -> usize {
        self.bound
    }

    /// The nodes, in the order in which they came first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// The number of an address that nobody has yet, or is bound to: what it was to whoever
    /// had it before is forgotten.
    pub(super) fn make_new(&mut self, home_address: Ipv4Addr) -> u32 {
        let count = self.nodes.len();
        let number = self.make(home_address);
        if number != count
            && let Some(node) = self.get_mut(number)
        {
            node.more = None;
            node.timestamps = TimestampHistory::default();
        }
        number
    }

    /// A node's binding. `key` is the home agent's.
    pub(super) fn binding(
        &self,
        number: u32,
        key: (TenantId, Ipv4Addr),
    ) -> Option<MobilityBinding> {
        let node = self.get(number)?;
        match node.plain.kind {
            ABSENT => None,
            ELSEWHERE => node.full().cloned(),
            _ => Some(node.plain.binding(key, node.home_address)),
        }
    }

    /// Changes a node's binding; one without registrations is none.
    pub(super) fn set_binding(&mut self, number: u32, binding: MobilityBinding, now: Instant) {
        let Some(node) = self.get_mut(number) else { return };
        let was_bound = node.is_bound();
        if let Some(more) = &mut node.more {
            more.binding = None;
        }
        node.plain = if binding.registrations.is_empty() {
            PlainBinding::NONE
        } else if let Some(plain) = PlainBinding::of(&binding) {
            plain
        } else {
            node.make_more(now).binding = Some(binding);
            PlainBinding::KEPT_ELSEWHERE
        };
        match (was_bound, node.is_bound()) {
            (false, true) => self.bound += 1,
            (true, false) => self.bound -= 1,
            _ => {}
        }
    }
}

fn index_hash(nodes: &Chunks<Node>, number: u32) -> u64 {
    nodes.get(number).map_or(0, |node| hash(node.home_address))
}
