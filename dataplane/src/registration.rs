//! Which registration messages go first, and how many may come from where.
//!
//! Nothing of a registration message is proven before its authenticator has been
//! verified, which is the control core's work and costs it more than a flood costs
//! the sender. So an RX core sorts the messages by what the tables know of them,
//! and lets no network of 2⁸ addresses send more than its share:
//!
//! * **from where the node is** ([`Standing::Known`]): a request that names a bound
//!   home address and comes from that binding's care-of address (the node itself,
//!   its foreign agent, or the NAT in front of it) or, as the node's own, from its
//!   home link; a visitor's own request; a reply of a visitor's home agent. Who
//!   forges these must know both addresses, and spoof one. They are punted as
//!   [`PuntReason::Renewal`], and have budgets that nothing else draws on.
//! * **of a node that is known, from elsewhere** ([`Standing::Claimed`]): it has
//!   moved, or somebody says so; a reply for a node that is not visiting yet. They
//!   go first too, but only so many a second of all together, within the budget of
//!   where they come from; the rest waits with the new ones.
//! * **new** ([`Standing::New`]): [`PuntReason::Registration`], within the budget of
//!   where they come from.
//!
//! A network that messages of the first kind came from within the last
//! [`KNOWN_FOR`] is a busy peer's, a foreign agent's say, and its budget for the
//! other kinds is as large as for the first.
//!
//! Budgets are hashed onto a fixed number of buckets with a secret key: memory is
//! bounded whatever the sources, and who shares a bucket with whom an outsider
//! cannot know. Those of the first kind are apart from the others, so sharing harms
//! no node that stays where it is.
//!
//! **Not done:** a budget for all workers together (each worker has its own); an
//! authenticator that an RX core verifies (who is on the path, or may spoof and
//! guesses both addresses, competes with the nodes of that one network).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use homeport_wire::{MacAddress, PortId, TenantId, UdpHeader};

use crate::classify::{Origin, Tables};
use crate::config::RegistrationLimits;
use crate::parse::Ipv4Facts;
use crate::table::binding::{BindingEntry, BindingKey};
use crate::table::classes::Class;
use crate::table::keyed::KeyedHash;
use crate::table::prefetch::prefetch;
use crate::table::visitor::Found;
use crate::verdict::{DropReason, PuntReason};

/// Bits of a source address that share a budget.
const SOURCE_PREFIX_LEN: u32 = 24;

/// Budgets that networks are hashed onto.
const BUDGETS: usize = 4096;

/// How long a network is known after the last message from where a node is.
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// Types of messages (RFC 5944 §3.3, §3.4).
const REQUEST: u8 = 1;
const REPLY: u8 = 3;

/// What the tables know of a message's node, and of where the message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Known,
    Claimed,
    New,
}

/// A token bucket: so many a second, and a part or all of a second's at once.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Tokens in billionths, so that filling loses nothing.
    level: u64,
    /// When it was filled last, in nanoseconds of the gate's clock.
    filled: u64,
}

const TOKEN: u64 = 1_000_000_000;

impl Bucket {
    const fn full(rate: u32) -> Self {
        Bucket { level: rate as u64 * TOKEN, filled: 0 }
    }

    /// Takes a token, if there is one.
    fn take(&mut self, rate: u32, most: u32, now: u64) -> bool {
        #[cfg(feature = "planted-bugs")]
        if crate::planted::is(crate::planted::Bug::BudgetNeverRefills) {
            self.filled = self.filled.max(now);
        }
        let gained = now.saturating_sub(self.filled).saturating_mul(u64::from(rate));
        self.level = self.level.saturating_add(gained).min(u64::from(most) * TOKEN);
        self.filled = self.filled.max(now);
        let Some(left) = self.level.checked_sub(TOKEN) else { return false };
        self.level = left;
        true
    }
}

/// The budget of networks that nodes are at.
#[derive(Clone, Copy, Debug)]
struct Known {
    bucket: Bucket,
    /// The network that used it last.
    prefix: u32,
    /// Until when that one counts as known.
    until: u64,
}

/// Sorts and limits one worker's registration messages. All memory is taken when it
/// is made.
pub(crate) struct RegistrationGate {
    limits: RegistrationLimits,
    started: Instant,
    /// The time that was asked for last, and the same by the clock of the budgets.
    last: (Instant, u64),
    known: Box<[Known]>,
    others: Box<[Bucket]>,
    claimed: Bucket,
    hash: KeyedHash,
}

impl RegistrationGate {
    /// All budgets are full. `seed` keys the hash: an outsider chooses addresses.
    pub(crate) fn new(limits: RegistrationLimits, seed: [u64; 2], now: Instant) -> Self {
        let known = Known { bucket: Bucket::full(limits.per_known_prefix), prefix: 0, until: 0 };
        RegistrationGate {
            limits,
            started: now,
            last: (now, 0),
            known: vec![known; BUDGETS].into_boxed_slice(),
            others: vec![Bucket::full(limits.per_prefix); BUDGETS].into_boxed_slice(),
            claimed: Bucket::full(limits.moves_first.div_ceil(10)),
            hash: KeyedHash::new(seed),
        }
    }

    /// What to punt a message as, if the node that it [names](Message::names) has this
    /// binding.
    ///
    /// # Errors
    /// [`DropReason::RegistrationRate`]: its network's budget is used up.
    pub(crate) fn pass(
        &mut self,
        message: &Message,
        binding: Option<&BindingEntry>,
        tables: &Tables,
        now: Instant,
    ) -> Result<PuntReason, DropReason> {
        let RegistrationLimits { per_prefix, per_known_prefix, moves_first } = self.limits;
        let now = self.nanoseconds(now);
        let (prefix, at) = (message.prefix(), self.place(message));
        let (Some(known), Some(other)) = (self.known.get_mut(at), self.others.get_mut(at)) else {
            return Err(DropReason::RegistrationRate);
        };
        let standing = message.standing(binding, tables);
        if message.is_own {
            // Of an agent here for another one here: it came by this gate before.
            return Ok(match standing {
                Standing::Known | Standing::Claimed => PuntReason::Renewal,
                Standing::New => PuntReason::Registration,
            });
        }
        if standing == Standing::Known {
            known.prefix = prefix;
            known.until = now.saturating_add(KNOWN_FOR.as_nanos() as u64);
            let is_within = known.bucket.take(per_known_prefix, per_known_prefix, now);
            return is_within.then_some(PuntReason::Renewal).ok_or(DropReason::RegistrationRate);
        }
        let is_peer = known.prefix == prefix && now < known.until;
        let rate = if is_peer { per_known_prefix.max(per_prefix) } else { per_prefix };
        if !other.take(rate, rate, now) {
            return Err(DropReason::RegistrationRate);
        }
        // A tenth of a second's at once: the rest of the ring is for the known.
        if standing == Standing::Claimed
            && self.claimed.take(moves_first, moves_first.div_ceil(10), now)
        {
            return Ok(PuntReason::Renewal);
        }
        Ok(PuntReason::Registration)
    }

    /// What [`RegistrationGate::pass`] would say; nothing is taken of any budget.
    pub(crate) fn foresee(
        &mut self,
        message: &Message,
        binding: Option<&BindingEntry>,
        tables: &Tables,
        now: Instant,
    ) -> Result<PuntReason, DropReason> {
        let at = self.place(message);
        let before = (self.known.get(at).copied(), self.others.get(at).copied(), self.claimed);
        let said = self.pass(message, binding, tables, now);
        let (known, other, claimed) = before;
        if let (Some(place), Some(known)) = (self.known.get_mut(at), known) {
            *place = known;
        }
        if let (Some(place), Some(other)) = (self.others.get_mut(at), other) {
            *place = other;
        }
        self.claimed = claimed;
        said
    }

    /// Brings into the cache what [`RegistrationGate::pass`] will look at.
    #[inline]
    pub(crate) fn fetch(&self, message: &Message) {
        let at = self.place(message);
        if let (Some(known), Some(other)) = (self.known.get(at), self.others.get(at)) {
            prefetch(known);
            prefetch(other);
        }
    }

    /// A time by the clock of the budgets.
    #[inline]
    fn nanoseconds(&mut self, now: Instant) -> u64 {
        // A burst has one time.
        if self.last.0 != now {
            let elapsed = now.saturating_duration_since(self.started).as_nanos();
            self.last = (now, u64::try_from(elapsed).unwrap_or(u64::MAX));
        }
        self.last.1
    }

    /// Where the budgets of a message's source are.
    #[inline]
    fn place(&self, message: &Message) -> usize {
        // The remainder is below the number of budgets.
        (self.hash.hash(&message.prefix()) % BUDGETS as u64) as usize
    }
}

impl std::fmt::Debug for RegistrationGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistrationGate").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// A message as the gate sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    source: Ipv4Addr,
    /// Of the agent that it is for.
    tenant: TenantId,
    /// The station that sent it, if it came from a link.
    station: MacAddress,
    /// The link that it came from.
    link: Option<PortId>,
    /// Whether this box sent it.
    is_own: bool,
    subject: Subject,
}

/// What a message is about.
#[derive(Clone, Copy, Debug)]
enum Subject {
    /// A request of the node with this home address.
    Request(Ipv4Addr),
    /// A reply for it, to a foreign agent of ours.
    Reply(Ipv4Addr),
    /// Nobody that it tells.
    Nobody,
}

impl Message {
    /// Reads a datagram's payload. `tenant` is its agent's, `station` sent it.
    #[inline]
    pub(crate) fn read(
        facts: &Ipv4Facts,
        datagram: &[u8],
        (tenant, station): (TenantId, MacAddress),
        origin: &Origin,
        tables: &Tables,
    ) -> Self {
        let (link, is_own) = match origin {
            Origin::Link { port, .. } => (Some(*port), false),
            Origin::Tunnel => (None, false),
            Origin::Own => (None, true),
        };
        let subject = match kind_and_home_address(datagram) {
            Some((REQUEST, home_address)) => Subject::Request(home_address),
            Some((REPLY, home_address)) if is_foreign_agent(tenant, facts.destination, tables) => {
                Subject::Reply(home_address)
            }
            _ => Subject::Nobody,
        };
        Message { source: facts.source, tenant, station, link, is_own, subject }
    }

    /// Whose binding the gate wants to see.
    #[inline]
    pub(crate) fn names(&self) -> Option<BindingKey> {
        match self.subject {
            Subject::Request(home_address) => {
                Some(BindingKey { tenant: self.tenant, home_address })
            }
            Subject::Reply(_) | Subject::Nobody => None,
        }
    }

    /// The network that it is from.
    #[inline]
    fn prefix(&self) -> u32 {
        self.source.to_bits() >> (u32::BITS - SOURCE_PREFIX_LEN)
    }

    /// What the tables say, and this binding of the node that it names.
    fn standing(&self, binding: Option<&BindingEntry>, tables: &Tables) -> Standing {
        let Message { source, tenant, .. } = *self;
        match self.subject {
            Subject::Request(home_address) => {
                self.standing_of_request(home_address, binding, tables)
            }
            Subject::Reply(home_address) => {
                match tables.visitors.of_home_agent(tenant, home_address, source) {
                    Found::Visitor(_) => Standing::Known,
                    Found::Other(_) | Found::Nobody => Standing::Claimed,
                }
            }
            Subject::Nobody => Standing::New,
        }
    }

    fn standing_of_request(
        &self,
        home_address: Ipv4Addr,
        binding: Option<&BindingEntry>,
        tables: &Tables,
    ) -> Standing {
        let Message { source, tenant, station, link, .. } = *self;
        if let Some(entry) = binding {
            let is_there = entry.tunnels().iter().any(|end| end.care_of_address() == source);
            let is_home = source == home_address && link.is_some() && link == entry.home_link();
            return if is_there || is_home { Standing::Known } else { Standing::Claimed };
        }
        // The class of an address is a byte that stays in the inner cache.
        let class = tables.classes.of(home_address.to_bits());
        if !class.has(Class::VISITOR) || !tables.visitors.may_have(home_address) {
            return Standing::New;
        }
        match tables.visitors.at_station(tenant, home_address, station) {
            Found::Visitor(visitor) if link == Some(visitor.port) => Standing::Known,
            Found::Visitor(_) | Found::Other(_) => Standing::Claimed,
            Found::Nobody => Standing::New,
        }
    }
}

/// Type and home address of a message, which are at the same places in a request and
/// in a reply, behind its UDP header. `None` when it is too short for them.
#[inline]
fn kind_and_home_address(datagram: &[u8]) -> Option<(u8, Ipv4Addr)> {
    match datagram.get(UdpHeader::LEN..)?.first_chunk()? {
        [kind, _, _, _, a, b, c, d] => Some((*kind, Ipv4Addr::new(*a, *b, *c, *d))),
    }
}

fn is_foreign_agent(tenant: TenantId, address: Ipv4Addr, tables: &Tables) -> bool {
    tables.local(tenant, address).is_some_and(|local| local.care_of_address || local.agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate_and_loses_nothing() {
        let mut bucket = Bucket::full(10);
        let mut taken = |now: u64| (0..1000).filter(|_| bucket.take(1000, 10, now)).count();
        assert_eq!(taken(0), 10);
        assert_eq!(taken(999_999), 0);
        assert_eq!(taken(1_000_000), 1);
        assert_eq!(taken(4_500_000), 3);
        assert_eq!(taken(5_000_000), 1);
        // Time that went back gives nothing twice.
        assert_eq!(taken(0), 0);
        assert_eq!(taken(10_000_000_000), 10);
    }

    #[test]
    fn the_largest_rates_do_not_overflow() {
        let mut bucket = Bucket::full(u32::MAX);
        assert!(bucket.take(u32::MAX, u32::MAX, 0) && bucket.take(u32::MAX, u32::MAX, u64::MAX));
    }
}
