//! How much may be sent to addresses that nobody has proven yet.
//!
//! Behind a NAT a tunnel leads where the request came from, and that is the one
//! thing which no authenticator covers (RFC 3519 §6.1.1): somebody on the way could
//! have put a victim's address there. Until the node has shown that it is there, the
//! address gets no more than [`FACTOR`] times what came from it, as RFC 9000 §8.1
//! has it.
//!
//! A worker owns its allowances. There are at most [`CAPACITY`]; at the bound those
//! in use stay, and who has none gets nothing.

use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use homeport_wire::TenantId;
use siphasher::sip::SipHasher13;

/// Bytes that may be sent for each byte received.
pub const FACTOR: u32 = 3;

/// Bytes that may be sent at once: what is left of [`FACTOR`] times the shortest
/// Registration Request with a UDP Tunnel Request (82 bytes) after the shortest reply
/// to it (78 bytes). It is enough for two echo requests through the tunnel.
pub const INITIAL: u32 = FACTOR * 82 - 78;

/// The most allowances of one worker.
pub const CAPACITY: usize = SETS * WAYS;

/// How long an allowance that nobody uses is kept: well beyond the time that control
/// leaves a node to prove its address.
pub const IDLE: Duration = Duration::from_secs(60);

/// Places for one hash.
const WAYS: usize = 8;
const SETS: usize = 512;

/// Whose allowance it is: of the node that is reached, and of the address that it is
/// reached at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AllowanceKey {
    /// The virtual home agent.
    pub tenant: TenantId,
    /// The node's home address.
    pub home_address: Ipv4Addr,
    /// The other end of the tunnel.
    pub care_of_address: Ipv4Addr,
    /// Its UDP port; zero without UDP.
    pub port: u16,
}

#[derive(Clone, Copy, Debug)]
struct Allowance {
    key: AllowanceKey,
    /// Bytes that may be sent now.
    left: u32,
    used_at: Instant,
}

/// The allowances of one worker. All memory is taken when it is made.
pub struct Allowances {
    sets: Box<[[Option<Allowance>; WAYS]]>,
    seed: [u64; 2],
}

impl Allowances {
    /// No allowance is used yet. `seed` keys the hash: an outsider chooses addresses.
    pub fn new(seed: [u64; 2]) -> Self {
        Allowances { sets: vec![[None; WAYS]; SETS].into_boxed_slice(), seed }
    }

    /// Counts `len` bytes that came from the address.
    pub fn receive(&mut self, key: AllowanceKey, len: u16, now: Instant) {
        if let Some(allowance) = self.find(key, now) {
            let more = u32::from(len).saturating_mul(FACTOR);
            allowance.left = allowance.left.saturating_add(more);
        }
    }

    /// Takes `len` bytes that are to be sent to the address; `false`, and nothing
    /// taken, when they are not allowed.
    #[must_use]
    pub fn spend(&mut self, key: AllowanceKey, len: u16, now: Instant) -> bool {
        let Some(allowance) = self.find(key, now) else { return false };
        match allowance.left.checked_sub(u32::from(len)) {
            Some(left) => {
                allowance.left = left;
                true
            }
            None => false,
        }
    }

    /// The allowance of `key`, made if there is room.
    fn find(&mut self, key: AllowanceKey, now: Instant) -> Option<&mut Allowance> {
        let [first, second] = self.seed;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        key.hash(&mut hasher);
        // The remainder is below the number of sets.
        let set = self.sets.get_mut((hasher.finish() % SETS as u64) as usize)?;
        let is_idle = |at: &Allowance| now.saturating_duration_since(at.used_at) >= IDLE;
        let known = set.iter().position(|slot| slot.is_some_and(|at| at.key == key));
        let free = set.iter().position(|slot| slot.as_ref().is_none_or(is_idle));
        let slot = set.get_mut(known.or(free)?)?;
        let fresh = Allowance { key, left: INITIAL, used_at: now };
        let allowance = slot.get_or_insert(fresh);
        if allowance.key != key || is_idle(allowance) {
            *allowance = fresh;
        }
        allowance.used_at = now;
        Some(allowance)
    }
}

impl std::fmt::Debug for Allowances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let used = self.sets.iter().flatten().flatten().count();
        write!(f, "Allowances({used} of {CAPACITY})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(number: u32) -> AllowanceKey {
        AllowanceKey {
            tenant: TenantId(0),
            home_address: Ipv4Addr::from_bits(0x0a01_0000 + number),
            care_of_address: Ipv4Addr::new(198, 51, 100, 1),
            port: 4711,
        }
    }

    proptest! {
        /// Reliability, row 25: whatever comes and goes, an address gets at most three
        /// times what it sent, the request that made the tunnel included.
        #[test]
        fn no_address_gets_more_than_three_times_what_it_sent(
            steps in proptest::collection::vec((0u32..3, any::<bool>(), 0u16..2000), 0..200),
        ) {
            let mut allowances = Allowances::new([1, 2]);
            let now = Instant::now();
            let (mut received, mut sent) = ([82u64; 3], [78u64; 3]);
            for (node, comes, len) in steps {
                let at = node as usize;
                if comes {
                    allowances.receive(key(node), len, now);
                    received[at] += u64::from(len);
                } else if allowances.spend(key(node), len, now) {
                    sent[at] += u64::from(len);
                } else {
                    prop_assert!(sent[at] + u64::from(len) > 3 * received[at], "too strict");
                }
                prop_assert!(sent[at] <= 3 * received[at]);
            }
        }
    }

    #[test]
    fn at_the_bound_those_in_use_stay_and_the_idle_make_room() {
        let mut allowances = Allowances::new([1, 2]);
        let start = Instant::now();
        let got: Vec<u32> =
            (0..20_000).filter(|n| allowances.spend(key(*n), INITIAL as u16, start)).collect();
        assert!(got.len() <= CAPACITY && got.len() > CAPACITY / 2, "{}", got.len());
        // Nobody was pushed out: each has spent what it had.
        for number in &got {
            assert!(!allowances.spend(key(*number), 1, start));
        }
        let later = start + IDLE;
        assert!((30_000..30_100).all(|n| allowances.spend(key(n), INITIAL as u16, later)));
    }
}
