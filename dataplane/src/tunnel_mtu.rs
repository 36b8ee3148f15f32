//! What is known of the path inside a tunnel (RFC 2003 §5.1, RFC 1191 §6.3): soft
//! state that all workers share, written by whoever learns something.
//!
//! # How it works
//!
//! A fixed number of words in sets of four; the keyed hash of (tenant, far end)
//! names the set and the tag. A word is one atomic, read and written relaxed: tag,
//! second of expiry, and the longest outer packet that gets through. It tells two
//! things: that a tunnel of ours led there lately (*live*), and its MTU if that is
//! less than the first link's. Everything may be lost at any time, and is then
//! learned again: a full set takes a word without an MTU first, and the one that
//! ends first otherwise.
//!
//! An MTU is only ever lowered, and forgotten after [`LIFETIME`], when a longer
//! packet is tried again (RFC 1191 §6.3).

use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use homeport_wire::TenantId;
use siphasher::sip::SipHasher13;

/// How long anything is remembered (RFC 1191 §6.3).
pub const LIFETIME: Duration = Duration::from_secs(600);

/// The smallest MTU that is believed: every host takes packets this long
/// (RFC 791 §3.1), and a forged smaller one would only make us slow.
pub const MIN_TUNNEL_MTU: u16 = 576;

const WAYS: usize = 4;
const SETS: usize = 4096;

/// The MTU of a word that only says "live".
const UNLIMITED: u16 = u16::MAX;

/// The soft state of all tunnels.
pub struct TunnelMtuCache {
    words: Box<[AtomicU64]>,
    seed: [u64; 2],
    start: Instant,
}

impl TunnelMtuCache {
    /// Nothing is known. `seed` keys the hash: outsiders choose addresses.
    pub fn new(seed: [u64; 2]) -> Self {
        let words = (0..SETS * WAYS).map(|_| AtomicU64::new(0)).collect();
        TunnelMtuCache { words, seed, start: Instant::now() }
    }

    /// The longest outer packet that gets to `remote`, `u16::MAX` when no limit is
    /// known; and remembers that we send there.
    pub fn enter(&self, tenant: TenantId, remote: Ipv4Addr, now: Instant) -> u16 {
        let (set, tag) = self.place(tenant, remote);
        let now = self.seconds(now);
        let mut free = None;
        for slot in set {
            let word = Word::load(slot);
            let left = word.left(now);
            if left > 0 && word.tag() == tag {
                if word.mtu() == UNLIMITED && left <= LIFETIME_SECONDS / 2 {
                    Word::new(tag, now, UNLIMITED).store(slot);
                }
                return word.mtu();
            }
            if left == 0 {
                free = Some(slot);
            }
        }
        // In a full set nothing is displaced for this, so that many tunnels do not
        // make every packet write.
        if let Some(slot) = free {
            Word::new(tag, now, UNLIMITED).store(slot);
        }
        UNLIMITED
    }

    /// Whether a tunnel of ours led to `remote` lately, as far as it is remembered.
    pub fn is_live(&self, tenant: TenantId, remote: Ipv4Addr, now: Instant) -> bool {
        self.find(tenant, remote, now).is_some()
    }

    /// The longest outer packet that gets to `remote`, if a limit is known.
    pub fn limit(&self, tenant: TenantId, remote: Ipv4Addr, now: Instant) -> Option<u16> {
        let word = self.find(tenant, remote, now)?;
        Some(word.mtu()).filter(|mtu| *mtu != UNLIMITED)
    }

    /// Learns that outer packets to `remote` must not be longer than `mtu`. `false`,
    /// and nothing learned, when that is less than [`MIN_TUNNEL_MTU`]. A limit that
    /// is known already is not raised (RFC 1191 §3).
    pub fn learn(&self, tenant: TenantId, remote: Ipv4Addr, mtu: u16, now: Instant) -> bool {
        if mtu < MIN_TUNNEL_MTU {
            return false;
        }
        let (set, tag) = self.place(tenant, remote);
        let now = self.seconds(now);
        // The best place: its own, then an empty one, then one without an MTU, then
        // the one that ends first.
        let cost = |slot: &&AtomicU64| {
            let word = Word::load(slot);
            match word.left(now) {
                0 => (1, 0),
                _ if word.tag() == tag => (0, 0),
                left if word.mtu() == UNLIMITED => (2, left),
                left => (3, left),
            }
        };
        if let Some(slot) = set.iter().min_by_key(cost) {
            let word = Word::load(slot);
            let is_own = word.left(now) > 0 && word.tag() == tag;
            if !is_own || mtu <= word.mtu() {
                Word::new(tag, now, mtu).store(slot);
            }
        }
        true
    }

    fn find(&self, tenant: TenantId, remote: Ipv4Addr, now: Instant) -> Option<Word> {
        let (set, tag) = self.place(tenant, remote);
        let now = self.seconds(now);
        set.iter().map(Word::load).find(|word| word.left(now) > 0 && word.tag() == tag)
    }

    fn place(&self, tenant: TenantId, remote: Ipv4Addr) -> (&[AtomicU64], u32) {
        let [first, second] = self.seed;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        (tenant, remote).hash(&mut hasher);
        let hash = hasher.finish();
        // The remainder is smaller than the number of sets.
        let set = (hash % SETS as u64) as usize * WAYS;
        let set = self.words.get(set..set + WAYS).unwrap_or_default();
        // The upper bits, which the number of the set leaves.
        (set, (hash >> 40) as u32)
    }

    fn seconds(&self, now: Instant) -> u32 {
        // Seconds count around: see `Word::left`.
        now.saturating_duration_since(self.start).as_secs() as u32 & SECONDS
    }
}

impl std::fmt::Debug for TunnelMtuCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelMtuCache").field("words", &self.words.len()).finish_non_exhaustive()
    }
}

/// The seconds that a word has bits for.
const SECONDS: u32 = 0xff_ffff;

const LIFETIME_SECONDS: u32 = LIFETIME.as_secs() as u32;

/// Tag (24 bits), second of expiry (24), MTU (16). Zero is empty: an MTU is never
/// zero.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    const fn new(tag: u32, now: u32, mtu: u16) -> Self {
        let expiry = (now + LIFETIME_SECONDS) & SECONDS;
        Word((tag as u64) << 40 | (expiry as u64) << 16 | mtu as u64)
    }

    fn load(slot: &AtomicU64) -> Self {
        Word(slot.load(Ordering::Relaxed))
    }

    fn store(self, slot: &AtomicU64) {
        slot.store(self.0, Ordering::Relaxed);
    }

    const fn tag(self) -> u32 {
        (self.0 >> 40) as u32
    }

    const fn mtu(self) -> u16 {
        self.0 as u16
    }

    /// Seconds that it is still good for; zero: it is empty or expired. Seconds
    /// count around twice a year: then an old word may be believed for ten minutes
    /// more.
    const fn left(self, now: u32) -> u32 {
        let left = ((self.0 >> 16) as u32 & SECONDS).wrapping_sub(now) & SECONDS;
        if self.mtu() == 0 || left > LIFETIME_SECONDS { 0 } else { left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const TENANT: TenantId = TenantId(1);
    const FAR: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

    fn cache() -> (TunnelMtuCache, Instant) {
        (TunnelMtuCache::new([1, 2]), Instant::now())
    }

    /// B-05, RFC 1191 §3 and §6.3.
    // Shows 2003-5.1-a.
    #[test]
    fn a_limit_is_lowered_never_raised_and_forgotten_after_ten_minutes() {
        let (cache, now) = cache();
        assert_eq!(cache.enter(TENANT, FAR, now), u16::MAX);
        assert!(cache.learn(TENANT, FAR, 1400, now));
        assert!(cache.learn(TENANT, FAR, 1300, now));
        assert!(cache.learn(TENANT, FAR, 1400, now));
        assert_eq!(cache.enter(TENANT, FAR, now), 1300);
        assert_eq!(cache.enter(TenantId(2), FAR, now), u16::MAX);
        assert_eq!(cache.enter(TENANT, Ipv4Addr::new(10, 0, 2, 3), now), u16::MAX);
        // To use it does not prolong it.
        for minute in 1..10 {
            assert_eq!(cache.enter(TENANT, FAR, now + Duration::from_secs(60 * minute)), 1300);
        }
        let later = now + LIFETIME + Duration::from_secs(1);
        assert_eq!(
            (cache.limit(TENANT, FAR, later), cache.is_live(TENANT, FAR, later)),
            (None, false)
        );
        assert_eq!(cache.enter(TENANT, FAR, later), u16::MAX);
        assert!(cache.learn(TENANT, FAR, 1400, later));
        assert_eq!(cache.limit(TENANT, FAR, later), Some(1400));
    }

    /// Reliability row 29.
    // Shows attack-29.
    #[test]
    fn less_than_576_is_not_believed() {
        let (cache, now) = cache();
        for mtu in [0, 68, 575] {
            assert!(!cache.learn(TENANT, FAR, mtu, now));
        }
        assert_eq!(cache.limit(TENANT, FAR, now), None);
        assert!(cache.learn(TENANT, FAR, 576, now));
        assert_eq!(cache.limit(TENANT, FAR, now), Some(576));
    }

    #[test]
    fn a_tunnel_is_live_while_it_is_used_and_five_minutes_longer() {
        let (cache, now) = cache();
        assert!(!cache.is_live(TENANT, FAR, now));
        let mut at = now;
        for _ in 0..20 {
            cache.enter(TENANT, FAR, at);
            assert!(cache.is_live(TENANT, FAR, at));
            at += LIFETIME / 2;
        }
        assert!(cache.is_live(TENANT, FAR, at));
        assert!(!cache.is_live(TENANT, FAR, at + LIFETIME));
        assert!(!cache.is_live(TenantId(9), FAR, at));
    }

    /// Half a year and more: the seconds of a word have counted around.
    #[test]
    fn time_counts_around_without_harm() {
        let (cache, now) = cache();
        let around = now + Duration::from_secs(u64::from(SECONDS));
        for after in [0, 1, 300, 600] {
            let at = around + Duration::from_secs(after);
            assert!(cache.learn(TENANT, FAR, 1400, at));
            assert_eq!(cache.limit(TENANT, FAR, at + Duration::from_secs(599)), Some(1400));
            assert_eq!(cache.limit(TENANT, FAR, at + Duration::from_secs(601)), None);
        }
    }

    #[test]
    fn many_tunnels_displace_marks_before_limits() {
        let (cache, now) = cache();
        let far = |index: u32| Ipv4Addr::from_bits(0x0a00_0000 + index);
        for index in 0..100_000 {
            cache.enter(TENANT, far(index), now);
        }
        // The sets are full of marks: every limit still finds a place, and far
        // fewer limits than places are mostly kept.
        for index in 0..4000 {
            assert!(cache.learn(TENANT, far(index), 1400, now));
            assert_eq!(cache.limit(TENANT, far(index), now), Some(1400));
        }
        let kept = (0..4000).filter(|index| cache.limit(TENANT, far(*index), now).is_some());
        assert!(kept.count() > 3900);
    }

    proptest! {
        /// Against a map that forgets nothing: what is told is never above what was
        /// learned, and never below.
        #[test]
        fn what_is_told_was_learned(
            steps in proptest::collection::vec((0u32..50, 0u16..2000, 0u64..200), 1..200),
        ) {
            let (cache, mut now) = cache();
            let mut model: HashMap<u32, (u16, Instant)> = HashMap::new();
            for (index, mtu, pause) in steps {
                now += Duration::from_secs(pause);
                let far = Ipv4Addr::from_bits(0x0a00_0000 + index);
                let known = model.get(&index).copied().filter(|(_, until)| now < *until);
                prop_assert_eq!(cache.limit(TENANT, far, now), known.map(|(mtu, _)| mtu));
                if cache.learn(TENANT, far, mtu, now) && known.is_none_or(|(old, _)| mtu <= old) {
                    model.insert(index, (mtu, now + LIFETIME));
                }
            }
        }
    }
}
