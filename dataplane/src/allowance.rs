//! How much may be sent to addresses that nobody has proven yet.
//!
//! Behind a NAT a tunnel leads where the request came from, and that is the one
//! thing which no authenticator covers (RFC 3519 §6.1.1): somebody on the way could
//! have put a victim's address there. Until the node has shown that it is there, the
//! address gets no more than [`FACTOR`] times what came from it, as RFC 9000 §8.1
//! has it.
//!
//! What the home agent itself sends there, to ask for the proof, has a small allowance
//! of its own from the start: else packets of others could use up what the proof needs.
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

/// Bytes that the home agent may send at once: what is left of [`FACTOR`] times the
/// shortest Registration Request with a UDP Tunnel Request (82 bytes) after the shortest
/// reply to it (78 bytes). It is enough for two echo requests through the tunnel.
pub const INITIAL: u32 = FACTOR * 82 - 78;

/// The most allowances of one worker.
pub const CAPACITY: usize = SETS * WAYS;

/// How long an allowance that nobody uses is kept: as long as the control core leaves a
/// node to prove its address. Who registers anew after that has sent a new request.
pub const IDLE: Duration = Duration::from_secs(10);

/// Who sends something to an address that is not proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The home agent itself.
    HomeAgent,
    /// Somebody else, to the node.
    Other,
}

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
            allowance.used_at = now;
        }
    }

    /// Takes `len` bytes that `sender` wants to send to the address; `false`, and
    /// nothing taken, when they are not allowed.
    #[must_use]
    pub fn spend(&mut self, key: AllowanceKey, len: u16, sender: Sender, now: Instant) -> bool {
        let Some(allowance) = self.find(key, now) else { return false };
        let kept_back = match sender {
            Sender::HomeAgent => 0,
            Sender::Other => INITIAL,
        };
        match allowance.left.checked_sub(u32::from(len)) {
            Some(left) if left >= kept_back => {
                (allowance.left, allowance.used_at) = (left, now);
                true
            }
            _ => false,
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
            steps in proptest::collection::vec((0u32..3, 0u8..3, 0u16..2000), 0..200),
        ) {
            let mut allowances = Allowances::new([1, 2]);
            let now = Instant::now();
            let (mut received, mut sent) = ([82u64; 3], [78u64; 3]);
            for (node, what, len) in steps {
                let at = node as usize;
                let sender = if what == 1 { Sender::HomeAgent } else { Sender::Other };
                let kept_back = if what == 1 { 0 } else { u64::from(INITIAL) };
                if what == 0 {
                    allowances.receive(key(node), len, now);
                    received[at] += u64::from(len);
                } else if allowances.spend(key(node), len, sender, now) {
                    sent[at] += u64::from(len);
                } else {
                    let asked = sent[at] + u64::from(len) + kept_back;
                    prop_assert!(asked > 3 * received[at], "too strict");
                }
                prop_assert!(sent[at] <= 3 * received[at]);
            }
        }
    }

    #[test]
    fn at_the_bound_those_in_use_stay_and_the_idle_make_room() {
        let mut allowances = Allowances::new([1, 2]);
        let start = Instant::now();
        let all = INITIAL as u16;
        let mut spend = |number: u32, len: u16, now: Instant| {
            allowances.spend(key(number), len, Sender::HomeAgent, now)
        };
        let got: Vec<u32> = (0..20_000).filter(|number| spend(*number, all, start)).collect();
        assert!(got.len() <= CAPACITY && got.len() > CAPACITY / 2, "{}", got.len());
        // Nobody was pushed out: each has spent what it had.
        for number in &got {
            assert!(!spend(*number, 1, start));
        }
        let later = start + IDLE;
        assert!((30_000..30_100).all(|number| spend(number, all, later)));
        // Who is asked for again and again in vain is idle as well.
        let last = 30_000;
        assert!(!spend(last, 1, later + IDLE / 2));
        assert!(spend(last, 1, later + IDLE));
    }

    #[test]
    fn what_others_send_leaves_the_home_agent_its_part() {
        let mut allowances = Allowances::new([1, 2]);
        let now = Instant::now();
        assert!(!allowances.spend(key(1), 1, Sender::Other, now));
        allowances.receive(key(1), 100, now);
        assert!(allowances.spend(key(1), 300, Sender::Other, now));
        assert!(!allowances.spend(key(1), 1, Sender::Other, now));
        assert!(allowances.spend(key(1), INITIAL as u16, Sender::HomeAgent, now));
    }
}
