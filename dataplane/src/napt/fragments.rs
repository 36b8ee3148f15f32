//! Fragments (RFC 4787 REQ-14): what was decided for the one with the ports holds
//! for the others, and those that came before it wait, a few and not for long.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use homeport_wire::IpProtocol;

use super::InsideHost;
use super::clock::Tick;
use super::segment::{Endpoint, Facts};
use super::slab::{Chains, Slab, hash};
use crate::verdict::DropReason;

/// How many datagrams in fragments are remembered in each direction; the oldest
/// makes room.
const REMEMBERED: usize = 4096;

/// How long a decision holds (RFC 1122 §3.3.2: fragments take no longer to come
/// together than a minute).
const HOLDS: u32 = 30 * Tick::PER_SECOND;

/// What the fragments of one datagram have in common (RFC 791 §3.2), and the inside
/// host that sent it, if one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: IpProtocol,
    identification: u16,
    host: Option<InsideHost>,
}

impl FragmentKey {
    pub(super) const fn new(facts: &Facts, host: Option<InsideHost>) -> Self {
        let Facts { source, destination, protocol, identification, .. } = *facts;
        FragmentKey { source, destination, protocol, identification, host }
    }
}

/// What shall be done with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It gets this source, and another identification.
    Outbound { source: Endpoint, identification: Option<u16> },
    /// It goes to this host, at this port.
    Inbound((InsideHost, u16)),
    /// It is none of the NAPT's.
    Unclaimed,
    /// It must not go on.
    Refused(DropReason),
}

struct Datagram {
    key: FragmentKey,
    decision: Decision,
    holds_until: Tick,
}

/// The decisions for datagrams in fragments.
pub(super) struct Fragments {
    seed: [u64; 2],
    /// What came from inside and what from outside: neither makes the other go.
    sides: [Decided; 2],
}

struct Decided {
    datagrams: Slab<Datagram>,
    by_key: Chains,
    oldest: u32,
}

impl Fragments {
    pub(super) fn new(seed: [u64; 2]) -> Self {
        let side = || Decided {
            datagrams: Slab::new(REMEMBERED),
            by_key: Chains::new(REMEMBERED),
            oldest: 0,
        };
        Fragments { seed, sides: [side(), side()] }
    }

    /// What was decided for the datagram.
    pub(super) fn decided(&self, key: &FragmentKey, now: Tick) -> Option<Decision> {
        let side = self.sides.get(usize::from(key.host.is_some()))?;
        let found = side.find(key, hash(self.seed, key))?;
        let datagram = side.datagrams.get(found)?;
        (now < datagram.holds_until).then_some(datagram.decision)
    }

    /// Remembers a decision.
    pub(super) fn decide(&mut self, key: FragmentKey, decision: Decision, now: Tick) {
        let hash_of = |key: &FragmentKey| hash(self.seed, key);
        let Some(side) = self.sides.get_mut(usize::from(key.host.is_some())) else { return };
        let datagram = Datagram { key, decision, holds_until: now.plus(HOLDS) };
        let at = hash_of(&key);
        if let Some(known) = side.find(&key, at)
            && let Some(known) = side.datagrams.get_mut(known)
        {
            *known = datagram;
            return;
        }
        if side.datagrams.available() == 0 {
            // Places are filled in turn: the next one has been taken for longest.
            if let Some(gone) = side.datagrams.remove(side.oldest) {
                side.by_key.remove(hash_of(&gone.key), side.oldest);
            }
            side.oldest = (side.oldest + 1) % REMEMBERED as u32;
        }
        if let Some(id) = side.datagrams.insert(datagram) {
            side.by_key.insert(at, id);
        }
    }
}

impl Decided {
    fn find(&self, key: &FragmentKey, hash: u64) -> Option<u32> {
        let is_it = |id: &u32| self.datagrams.get(*id).is_some_and(|known| known.key == *key);
        self.by_key.of(hash).find(is_it)
    }
}

/// How many fragments may wait for the first of their datagram.
pub const MAX_EARLY: usize = 128;

/// How many of one source may.
const MAX_PER_SOURCE: usize = 48;

/// How long they wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// Fragments that came before the one with the ports of their datagram, and
/// whatever their keeper needs to go on with them.
#[derive(Debug)]
pub struct Early<J> {
    waiting: Box<[Option<(FragmentKey, Instant, J)>]>,
    count: usize,
}

impl<J> Early<J> {
    /// Room for [`MAX_EARLY`].
    #[expect(clippy::new_without_default, reason = "it takes memory")]
    pub fn new() -> Self {
        Early { waiting: (0..MAX_EARLY).map(|_| None).collect(), count: 0 }
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Keeps a fragment.
    ///
    /// # Errors
    /// The fragment, when too many wait, of all or of its source.
    pub fn push(&mut self, key: FragmentKey, job: J, now: Instant) -> Result<(), J> {
        let of_source = |(other, _, _): &&(FragmentKey, Instant, J)| other.source == key.source;
        if self.waiting.iter().flatten().filter(of_source).count() >= MAX_PER_SOURCE {
            return Err(job);
        }
        match self.waiting.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => {
                *slot = Some((key, now, job));
                self.count += 1;
                Ok(())
            }
            None => Err(job),
        }
    }

    /// One of those that waited for this datagram's first fragment.
    pub fn take(&mut self, key: &FragmentKey) -> Option<J> {
        self.take_where(|(other, _, _)| other == key)
    }

    /// One that has waited in vain.
    pub fn take_expired(&mut self, now: Instant) -> Option<J> {
        self.take_where(|(_, since, _)| now.saturating_duration_since(*since) >= PATIENCE)
    }

    fn take_where(&mut self, is_it: impl Fn(&(FragmentKey, Instant, J)) -> bool) -> Option<J> {
        if self.count == 0 {
            return None;
        }
        let slot = self.waiting.iter_mut().find(|slot| slot.as_ref().is_some_and(&is_it))?;
        self.count -= 1;
        slot.take().map(|(_, _, job)| job)
    }
}
