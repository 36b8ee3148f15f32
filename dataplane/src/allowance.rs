//! How much may be sent to addresses that nobody has proven yet.
//!
//! Behind a NAT a tunnel leads where the request came from, and that is the one
//! thing which no authenticator covers (RFC 3519 §6.1.1): somebody on the way could
//! have put a victim's address there. Until the node has shown that it is there, the
//! address gets no more than [`FACTOR`] times what came from it, as RFC 9000 §8.1
//! has it.
//!
//! What a Registration Request pays for is the control core's business: it sends the
//! reply, and asks for the proof. Here is what came out of the tunnel, and what goes in.
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

/// The most allowances of one worker.
pub const CAPACITY: usize = SETS * WAYS;

/// How long an allowance that nobody uses is kept: as long as the control core leaves a
/// node to prove its address.
pub const IDLE: Duration = Duration::from_secs(10);

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
    /// What a packet that is only asked about would let be sent, and where.
    foreseen: Option<(AllowanceKey, u32)>,
}

impl Allowances {
    /// No allowance is used yet. `seed` keys the hash: an outsider chooses addresses.
    pub fn new(seed: [u64; 2]) -> Self {
        Allowances { sets: vec![[None; WAYS]; SETS].into_boxed_slice(), seed, foreseen: None }
    }

    /// Counts `len` bytes that came from the address.
    pub fn receive(&mut self, key: AllowanceKey, len: u16, now: Instant) {
        let Some(slot) = self.place(&key, now) else { return };
        let left = slot.filter(|at| at.key == key && !at.is_idle(now)).map_or(0, |at| at.left);
        let left = left.saturating_add(u32::from(len).saturating_mul(FACTOR));
        *slot = Some(Allowance { key, left, used_at: now });
    }

    /// What [`Allowances::receive`] would let be sent, for [`Allowances::has`] alone.
    pub fn foresee(&mut self, key: AllowanceKey, len: u16, now: Instant) {
        let more = u32::from(len).saturating_mul(FACTOR);
        self.foreseen = self.place(&key, now).is_some().then_some((key, more));
    }

    /// What was foreseen is over.
    pub fn forget_foreseen(&mut self) {
        self.foreseen = None;
    }

    /// Where an allowance is, or would be.
    fn place(&mut self, key: &AllowanceKey, now: Instant) -> Option<&mut Option<Allowance>> {
        let set = self.set(key)?;
        let is_key = |slot: &Option<Allowance>| slot.is_some_and(|at| at.key == *key);
        let is_free = |slot: &Option<Allowance>| slot.is_none_or(|at| at.is_idle(now));
        let place = set.iter().position(is_key).or_else(|| set.iter().position(is_free))?;
        set.get_mut(place)
    }

    /// Takes `len` bytes that are to be sent to the address; `false`, and nothing
    /// taken, when they are not allowed.
    #[must_use]
    pub fn spend(&mut self, key: AllowanceKey, len: u16, now: Instant) -> bool {
        let known =
            self.set(&key).and_then(|set| set.iter_mut().flatten().find(|at| at.key == key));
        let Some(allowance) = known.filter(|at| !at.is_idle(now)) else { return false };
        match allowance.left.checked_sub(u32::from(len)) {
            Some(left) => {
                (allowance.left, allowance.used_at) = (left, now);
                true
            }
            None => false,
        }
    }

    /// Whether so many bytes are allowed, of which none are taken.
    pub fn has(&mut self, key: AllowanceKey, len: u16, now: Instant) -> bool {
        let foreseen = self.foreseen.filter(|(of, _)| *of == key).map_or(0, |(_, more)| more);
        let known = self.set(&key).and_then(|set| set.iter().flatten().find(|at| at.key == key));
        let left = known.filter(|at| !at.is_idle(now)).map_or(0, |at| at.left);
        left.saturating_add(foreseen) >= u32::from(len)
    }

    fn set(&mut self, key: &AllowanceKey) -> Option<&mut [Option<Allowance>; WAYS]> {
        let [first, second] = self.seed;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        key.hash(&mut hasher);
        // The remainder is below the number of sets.
        self.sets.get_mut((hasher.finish() % SETS as u64) as usize)
    }
}

impl Allowance {
    fn is_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used_at) >= IDLE
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
        /// times what it sent, and not a byte less.
        // Shows attack-25.
        #[test]
        fn no_address_gets_more_than_three_times_what_it_sent(
            steps in proptest::collection::vec((0u32..3, any::<bool>(), 0u16..2000), 0..200),
        ) {
            let mut allowances = Allowances::new([1, 2]);
            let now = Instant::now();
            let (mut received, mut sent) = ([0u64; 3], [0u64; 3]);
            for (node, comes, len) in steps {
                let at = node as usize;
                if comes {
                    allowances.receive(key(node), len, now);
                    received[at] += u64::from(len);
                } else if allowances.spend(key(node), len, now) {
                    sent[at] += u64::from(len);
                } else {
                    let asked = sent[at] + u64::from(len);
                    prop_assert!(asked > 3 * received[at] || received[at] == 0, "too strict");
                }
                prop_assert!(sent[at] <= 3 * received[at]);
            }
        }
    }

    #[test]
    fn at_the_bound_those_in_use_stay_and_the_idle_make_room() {
        let mut allowances = Allowances::new([1, 2]);
        let start = Instant::now();
        for number in 0..20_000 {
            allowances.receive(key(number), 1, start);
        }
        let got: Vec<u32> =
            (0..20_000).filter(|number| allowances.spend(key(*number), 1, start)).collect();
        assert!(got.len() <= CAPACITY && got.len() > CAPACITY / 2, "{}", got.len());
        // Nobody was pushed out, and nobody who came later has anything.
        for number in &got {
            assert!(allowances.spend(key(*number), 2, start));
            assert!(!allowances.spend(key(*number), 1, start));
        }
        let later = start + IDLE;
        for number in 30_000..30_100 {
            allowances.receive(key(number), 1, later);
            assert!(allowances.spend(key(number), 3, later));
        }
        // What was not used in time is gone.
        allowances.receive(key(30_000), 1, later);
        assert!(!allowances.spend(key(30_000), 1, later + IDLE));
    }
}
