//! What a few requests will need, looked for together.
//!
//! With millions of nodes nothing of theirs is in the processor's cache, and to wait for
//! it takes longer than to answer. So before the first of a few requests is handled, each
//! step of the look-up is done for all of them: as short as it is, the processor waits for
//! the memory of many at once. Everything here is a guess that changes nothing.

use alloc::borrow::Cow;
use core::hint::black_box;
use core::net::Ipv4Addr;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::HomeAgent;
use super::session::{Indexed, name_hash};
use crate::agent::TOGETHER;
use crate::message::{SessionName, glimpse_signature};
use crate::security::Subscriber;
use crate::security::lanes::Wanted;
use crate::security::nais::{canonical, hash_of, realm};

/// A request to a home agent, and where what it needs is likely to be.
#[derive(Debug)]
pub(crate) struct Ahead<'a> {
    agent: &'a HomeAgent,
    request: &'a [u8],
    /// The node that it is about.
    pub(crate) home_address: Ipv4Addr,
    name: Option<Name<'a>>,
    /// The number of the association.
    association: Option<u32>,
    /// That of the node's record.
    node: Option<u32>,
    /// That of what is remembered of the NAI itself, by which a new session is judged.
    of_nai: Option<u32>,
    /// That of the session, or of the one that it will be linked with.
    session: Option<u32>,
    subscriber: Option<Subscriber>,
    /// What the index has for the session's name.
    indexed: Option<Indexed>,
}

/// Whom requests with names are likely to be from, in their order. Whoever takes that for
/// true has looked at who it is.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    of: SmallVec<[Hint; TOGETHER]>,
    /// The one behind that which was right last.
    next: usize,
}

/// A NAI, and a session of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hint {
    /// Whose NAI it is, and its hash.
    pub(super) known: (Subscriber, u64),
    pub(super) session: Option<Indexed>,
}

impl Hints {
    /// Forgets those of other requests.
    pub(crate) fn clear(&mut self) {
        self.of.clear();
        self.next = 0;
    }

    /// Adds that of the next request, if it has names.
    pub(crate) fn add(&mut self, ahead: &Ahead<'_>) {
        if let (Some(subscriber), Some(Name { of_nai, .. })) = (ahead.subscriber, &ahead.name) {
            self.of.push(Hint { known: (subscriber, *of_nai), session: ahead.indexed });
        }
    }

    /// The next that `is_it`.
    pub(super) fn take(&mut self, is_it: impl Fn(&Hint) -> bool) -> Option<Hint> {
        let (place, hint) =
            self.of.iter().enumerate().skip(self.next).find(|(_, hint)| is_it(hint))?;
        self.next = place + 1;
        Some(*hint)
    }
}

#[derive(Debug)]
struct Name<'a> {
    nai: Cow<'a, [u8]>,
    of_nai: u64,
    hash: u32,
}

impl<'a> Ahead<'a> {
    /// The first step: only the request is looked at.
    pub(crate) fn new(agent: &'a HomeAgent, home_address: Ipv4Addr, request: &'a [u8]) -> Self {
        let has_nais = agent.config.security.nai_count() > 0;
        let name = if has_nais { SessionName::glimpse(request) } else { None };
        let name = name.map(|name| {
            let nai = canonical(name.nai);
            let of_nai = hash_of(&nai);
            Name { nai, of_nai, hash: name_hash(of_nai, name.sub_nai) }
        });
        Ahead {
            agent,
            request,
            home_address,
            name,
            association: None,
            node: None,
            of_nai: None,
            session: None,
            subscriber: None,
            indexed: None,
        }
    }

    /// The second: whom the names belong to. `newcomers` counts those of the requests that
    /// are likely to be given a new address.
    pub(crate) fn find_names(&mut self, newcomers: &mut usize) {
        let (agent, Some(Name { nai, of_nai, hash })) = (self.agent, &self.name) else { return };
        self.subscriber = agent.config.security.guess_subscriber(*of_nai);
        self.indexed = agent.sessions.guess(*hash);
        match self.indexed {
            Some(Indexed { number, node, address }) => {
                (self.session, self.node) = (Some(number), Some(node));
                self.home_address = address;
            }
            None if self.home_address.is_unspecified() => {
                self.home_address = agent.next_address(realm(nai), *newcomers);
                *newcomers += 1;
            }
            None => {}
        }
    }

    /// The third: the numbers of records.
    pub(crate) fn find_records(&mut self) {
        let (security, sessions) = (&self.agent.config.security, &self.agent.sessions);
        let Some(subscriber) = self.subscriber else {
            self.node = self.agent.nodes.guess(self.home_address);
            self.association = security.guess(self.home_address);
            return;
        };
        self.association = security.guess(subscriber.stand_in());
        security.prepare_place_of_nai(subscriber);
        if self.session.is_none() {
            self.node = self.agent.nodes.guess(self.home_address);
            if let Some(Name { hash, .. }) = &self.name {
                sessions.prepare_new(*hash);
            }
            self.session = sessions.last_of(subscriber);
            self.of_nai = self.agent.nodes.guess(subscriber.stand_in());
            // Nobody must have the address yet: whoever finds that out looks there.
            black_box(security.guess(self.home_address));
        }
    }

    /// The last: the records themselves.
    pub(crate) fn prepare(&self) {
        let agent = self.agent;
        if let Some(place) = self.association {
            agent.config.security.prepare(place);
        }
        for number in self.node.into_iter().chain(self.of_nai) {
            agent.nodes.prepare(number);
        }
        if self.node.is_none() {
            agent.nodes.prepare_new(self.home_address);
        }
        if let Some(subscriber) = self.subscriber {
            agent.config.security.prepare_nai(subscriber);
        }
        if let Some(number) = self.session {
            agent.sessions.prepare(number);
        }
    }
}

/// Brings the place where an entry of this hash would be put into the processor's cache,
/// by one that is beside it. Which one that is, is read before: whoever calls this has
/// looked for the entry in a step before, or else each look-up would wait for the last.
pub(super) fn touch<T: Copy>(table: &HashTable<T>, hash: u64) {
    let Some(last) = table.num_buckets().checked_sub(1) else { return };
    #[expect(clippy::cast_possible_truncation, reason = "its low bits choose the place")]
    let place = hash as usize;
    let beside = (0..8).find_map(|step| table.get_bucket(place.wrapping_add(step) & last));
    black_box(beside.copied());
}

impl<'a> Ahead<'a> {
    /// What its node has signed, and the key for that, if it is there and of the usual kind.
    pub(crate) fn signature(&self) -> Option<Wanted<'a>> {
        let (spi, covered) = glimpse_signature(self.request)?;
        let key = self.agent.config.security.ready_key(self.association?, spi)?;
        Some((key, covered))
    }
}

impl HomeAgent {
    /// The address that a new session is likely to get behind so many others.
    fn next_address(&self, realm: &[u8], others: usize) -> Ipv4Addr {
        let pools = self.config.sessions.pools.iter().zip(&self.pools);
        let mut serving = pools.filter(|(config, _)| config.serves(realm));
        let next = serving.find_map(|(config, pool)| pool.ahead(config, others));
        next.unwrap_or(Ipv4Addr::UNSPECIFIED)
    }
}
