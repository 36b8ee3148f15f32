//! Every bound that keeps an outsider from growing or exhausting an agent, with
//! its number and the counter that tells when it was hit.
//!
//! | bound | number | when hit | counter |
//! |---|---|---|---|
//! | message length | [`MAX_MESSAGE_LEN`] | discarded | `malformed` |
//! | extensions of a message | [`MAX_EXTENSIONS`] | 134 or 70 | `denied` by code |
//! | messages of a source prefix | [`MESSAGES_PER_SECOND`] | discarded | `rate-limited` |
//! | denials 131 of a node | one in [`FAILED_AUTHENTICATION_SPACING`] | no reply | `denials_suppressed` |
//! | other home agent denials of a node | [`DENIALS_PER_SECOND`] | no reply | `denials_suppressed` |
//! | foreign agent denials of a node | one in [`FOREIGN_DENIAL_SPACING`] | no reply | `denials_suppressed` |
//! | nodes whose denials are spaced | [`SPACED_NODES`] | no reply | `denials_suppressed` |
//! | bindings | `HomeAgentConfig::max_bindings` | 130 | `denied` by code |
//! | live sessions of a NAI; those that keep an address, with them | `SessionPolicy::max_sessions_per_nai`; twice that | 130 | `sessions_over_limit` |
//! | bindings of a node | `HomeAgentConfig::max_simultaneous`, at most [`MAX_SIMULTANEOUS`] | 135 | `denied` by code |
//! | visitors | `ForeignAgentConfig::max_visitors` | 66, flag B | `denied` by code |
//! | pending requests | `ForeignAgentConfig::max_pending` | 66 | `denied` by code |
//! | pending requests of a node | `ForeignAgentConfig::max_pending_per_node` | 66 | `denied` by code |
//! | visitors of a NAI | `ForeignAgentConfig::max_sessions_per_nai` | 66 | `denied` by code |
//! | requests of a station with a NAI | `ForeignAgentConfig::requests_per_minute_per_nai` | 66 | `denied` by code |
//! | stations and NAIs whose requests are counted | [`SPACED_NODES`] | 66 | `denied` by code |
//! | challenges of a link | `ForeignAgentConfig::challenge_window` | 104 | `denied` by code |
//! | nodes whose last challenge is remembered | `max_visitors` and `max_pending` together | 66 | `answerers_refused` |
//! | of one NAI; of all without a key | half of those, or twice `ForeignAgentConfig::max_sessions_per_nai` | 66 | `answerers_refused` |
//! | revocations of an agent that wait | [`MAX_PENDING_REVOCATIONS`] | sent once | |
//! | times that a revocation is sent | [`REVOCATION_ATTEMPTS`] | given up | `revocations_unanswered` |
//! | revocations remembered | [`REMEMBERED_REVOCATIONS`] | repetitions get silence | `not-registered` |
//! | accepted identifications remembered | [`REMEMBERED_IDENTIFICATIONS`] | older ones by order alone | |
//! | challenges of a node | one, for [`CHALLENGE_LIFETIME`] | the one before is void | `challenges_sent` |
//! | places of a node that are remembered | [`PROVEN_PATHS`], for [`PROVEN_TIME`] | proven again | |
//! | bytes to an unproven address | three times those from there, in [`PROOF_TIME`] | not sent; removed | `paths_unproven` |
//! | networks of a mobile router | [`MAX_MOBILE_NETWORKS`], by the config's check | | |
//! | news that a NAT forgot a node | one in [`REBOUND_SPACING`] | counted alone | `rebounds` |
//! | answers to one solicitor | one in [`SOLICITED_SPACING`] | no answer | `rate-limited` |
//! | answers of an advertiser | [`SOLICITED_PER_SECOND`] | no answer | `rate-limited` |
//!
//! At a bound the old work is protected and the new is refused.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use core::hash::{BuildHasher, Hasher};
use core::net::Ipv4Addr;
use core::time::Duration;

use foldhash::quality::FixedState;

use crate::Instant;
pub use crate::message::{MAX_EXTENSIONS, MAX_MESSAGE_LEN};

/// Messages that one source prefix of [`SOURCE_PREFIX_LEN`] bits may send in a
/// second; as many again may come at once. A busy foreign agent is one prefix:
/// [`Agent::set_messages_per_second`](crate::agent::Agent::set_messages_per_second)
/// makes it more where somebody in front tells such from others.
pub const MESSAGES_PER_SECOND: u32 = 2_000;
/// Bits of a source address that share a budget.
pub const SOURCE_PREFIX_LEN: u32 = 24;
/// Budgets that prefixes are hashed onto: memory is fixed whatever the sources.
pub const SOURCE_BUDGETS: usize = 4_096;
/// A node gets one denial 131 in this time: it may be sent to a forged address.
pub const FAILED_AUTHENTICATION_SPACING: Duration = Duration::from_secs(1);
/// Denials of an authenticated request that a node gets in a second.
pub const DENIALS_PER_SECOND: u32 = 10;
/// A node gets one foreign agent denial in this time (RFC 5944 §3.7.2).
pub const FOREIGN_DENIAL_SPACING: Duration = Duration::from_secs(1);
/// Nodes that denials are spaced for at one time.
pub const SPACED_NODES: usize = 4_096;
/// Simultaneous bindings that any configuration may grant a node.
pub const MAX_SIMULTANEOUS: u8 = 4;
/// Accepted identifications that are remembered one by one for each node.
pub const REMEMBERED_IDENTIFICATIONS: usize = 16;
/// Revocations of one agent that wait for their acknowledgement at one time.
pub const MAX_PENDING_REVOCATIONS: usize = 4_096;
/// How often a revocation is sent, each time after twice the wait, from one second on.
pub const REVOCATION_ATTEMPTS: u32 = 6;
/// Registrations that were revoked lately, remembered by each agent to acknowledge a
/// repetition.
pub const REMEMBERED_REVOCATIONS: usize = 4_096;
/// How long a challenge may be answered.
pub const CHALLENGE_LIFETIME: Duration = Duration::from_secs(10);
/// How long a node may take to show that it is where its request came from.
pub const PROOF_TIME: Duration = Duration::from_secs(10);
/// Outer addresses and ports of a node that need not be proven once more.
pub const PROVEN_PATHS: usize = 4;
/// For how long, from the last registration on.
pub const PROVEN_TIME: Duration = Duration::from_secs(3_600);
/// Networks behind one mobile router: all of them stand in a reply.
pub const MAX_MOBILE_NETWORKS: usize = 32;
/// A node's forgotten mapping is told once in this time.
pub const REBOUND_SPACING: Duration = Duration::from_secs(10);
/// A solicitor is answered once in this time (it asks once a second at most,
/// RFC 5944 §2.4).
pub const SOLICITED_SPACING: Duration = Duration::from_millis(500);
/// Solicitations that an advertiser answers in a second, of all nodes.
pub const SOLICITED_PER_SECOND: u32 = 50;

/// A token bucket: so many a second, and as many at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    /// Tokens in billionths, so that refilling loses nothing.
    level: u64,
    refilled: Instant,
}

const TOKEN: u64 = 1_000_000_000;

impl TokenBucket {
    pub(crate) const fn full(per_second: u32, now: Instant) -> Self {
        TokenBucket { level: per_second as u64 * TOKEN, refilled: now }
    }

    /// Whether nothing was taken lately.
    pub(crate) fn is_full(&self, per_second: u32, now: Instant) -> bool {
        let mut later = *self;
        let capacity = u64::from(per_second) * TOKEN;
        later.take(per_second, now) && later.level + TOKEN >= capacity
    }

    /// Takes a token, if one is there.
    pub(crate) fn take(&mut self, per_second: u32, now: Instant) -> bool {
        let elapsed = u64::try_from(now.saturating_since(self.refilled).as_nanos());
        let gained = elapsed.unwrap_or(u64::MAX).saturating_mul(u64::from(per_second));
        let capacity = u64::from(per_second) * TOKEN;
        self.level = self.level.saturating_add(gained).min(capacity);
        self.refilled = self.refilled.max(now);
        let Some(left) = self.level.checked_sub(TOKEN) else { return false };
        self.level = left;
        true
    }
}

/// A budget for each source prefix, in constant memory. Two prefixes may share
/// one; which do, an outsider cannot know.
#[derive(Debug)]
pub(crate) struct SourceBudgets {
    buckets: Box<[TokenBucket]>,
    per_second: u32,
    hash: FixedState,
}

impl SourceBudgets {
    pub(crate) fn new(seed: u64, per_second: u32, now: Instant) -> Self {
        let full = TokenBucket::full(per_second, now);
        SourceBudgets {
            buckets: vec![full; SOURCE_BUDGETS].into_boxed_slice(),
            per_second,
            hash: FixedState::with_seed(seed),
        }
    }

    /// Whether a message of `source` is within its prefix's budget.
    pub(crate) fn take(&mut self, source: Ipv4Addr, now: Instant) -> bool {
        let mut hasher = self.hash.build_hasher();
        hasher.write_u32(source.to_bits() >> (32 - SOURCE_PREFIX_LEN));
        #[expect(clippy::cast_possible_truncation, reason = "reduced to an index just after")]
        let index = hasher.finish() as usize % SOURCE_BUDGETS;
        self.buckets.get_mut(index).is_some_and(|bucket| bucket.take(self.per_second, now))
    }
}

/// Lets one event of each key through in a given time, for a bounded number of
/// keys; beyond that number, none.
#[derive(Debug)]
pub(crate) struct Spacing<K> {
    spacing: Duration,
    last: BTreeMap<K, Instant>,
    order: VecDeque<(Instant, K)>,
}

impl<K: Ord + Copy> Spacing<K> {
    pub(crate) const fn new(spacing: Duration) -> Self {
        Spacing { spacing, last: BTreeMap::new(), order: VecDeque::new() }
    }

    pub(crate) fn allow(&mut self, key: K, now: Instant) -> bool {
        while let Some(&(at, oldest)) = self.order.front() {
            if now.saturating_since(at) < self.spacing {
                break;
            }
            self.order.pop_front();
            self.last.remove(&oldest);
        }
        if self.last.contains_key(&key) || self.last.len() >= SPACED_NODES {
            return false;
        }
        self.last.insert(key, now);
        self.order.push_back((now, key));
        true
    }
}

/// A budget for each key that was heard of in the last minute, for a bounded number of
/// keys; beyond that number, none.
#[derive(Debug)]
pub(crate) struct MinuteBudgets<K> {
    buckets: BTreeMap<K, TokenBucket>,
    order: VecDeque<(Instant, K)>,
}

impl<K: Ord + Clone> MinuteBudgets<K> {
    const MINUTE: Duration = Duration::from_secs(60);

    pub(crate) const fn new() -> Self {
        MinuteBudgets { buckets: BTreeMap::new(), order: VecDeque::new() }
    }

    /// Whether one more of `key` is within what it may have in a minute.
    pub(crate) fn take(&mut self, key: K, per_minute: u32, now: Instant) -> bool {
        // A bucket of seconds, by a clock on which a minute is one.
        let minutes = Instant(now.0 / Self::MINUTE.as_secs());
        while let Some((since, _)) = self.order.front()
            && now.saturating_since(*since) >= Self::MINUTE
            && let Some((_, oldest)) = self.order.pop_front()
        {
            match self.buckets.get(&oldest).is_some_and(|one| one.is_full(per_minute, minutes)) {
                true => drop(self.buckets.remove(&oldest)),
                false => self.order.push_back((now, oldest)),
            }
        }
        if let Some(bucket) = self.buckets.get_mut(&key) {
            return bucket.take(per_minute, minutes);
        }
        if self.buckets.len() >= SPACED_NODES {
            return false;
        }
        let mut bucket = TokenBucket::full(per_minute, minutes);
        let taken = bucket.take(per_minute, minutes);
        self.buckets.insert(key.clone(), bucket);
        self.order.push_back((now, key));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_budget_is_per_key_refilled_evenly_and_bounded() {
        let mut budgets = MinuteBudgets::new();
        let taken = |budgets: &mut MinuteBudgets<usize>, key, millis| {
            (0..100).filter(|_| budgets.take(key, 6, at(millis))).count()
        };
        assert_eq!(taken(&mut budgets, 1, 0), 6);
        assert_eq!(taken(&mut budgets, 2, 0), 6);
        assert_eq!(taken(&mut budgets, 1, 9_900), 0);
        assert_eq!(taken(&mut budgets, 1, 10_001), 1);
        assert_eq!(taken(&mut budgets, 1, 30_001), 2);
        // Whoever still has not all is remembered, and the others make room.
        assert_eq!(taken(&mut budgets, 1, 60_001), 3);
        let keys = (10..10_000).filter(|key| budgets.take(*key, 6, at(60_002))).count();
        assert_eq!(keys, SPACED_NODES - 1);
        assert_eq!(taken(&mut budgets, 1, 60_003), 0);
        assert_eq!(taken(&mut budgets, 20_000, 120_100), 6);
    }

    fn at(millis: u64) -> Instant {
        Instant(millis * 1_000_000)
    }

    // Shows attack-33.
    #[test]
    fn a_prefix_gets_its_burst_and_then_its_rate() {
        let mut budgets = SourceBudgets::new(7, MESSAGES_PER_SECOND, at(0));
        let source = Ipv4Addr::new(192, 0, 2, 1);
        let neighbour = Ipv4Addr::new(192, 0, 2, 200);
        let taken = (0..5_000).filter(|_| budgets.take(source, at(0))).count();
        assert_eq!(taken, 2_000);
        assert!(!budgets.take(neighbour, at(0)), "the same prefix shares the budget");
        let taken = (0..5_000).filter(|_| budgets.take(source, at(100))).count();
        assert_eq!(taken, 200);
    }

    #[test]
    fn spacing_is_per_key_and_bounded() {
        let mut spacing = Spacing::new(Duration::from_secs(1));
        assert!(spacing.allow(1usize, at(0)));
        assert!(!spacing.allow(1, at(999)));
        assert!(spacing.allow(2, at(999)));
        assert!(spacing.allow(1, at(1_000)));
        let allowed = (10..10_000).filter(|key| spacing.allow(*key, at(1_001))).count();
        assert_eq!(allowed, SPACED_NODES - 2);
        assert!(spacing.allow(20_000, at(2_100)));
    }
}
