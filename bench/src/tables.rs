//! The binding table by itself: what a look-up costs when the keys were chosen to
//! collide under a hash that everybody knows.

use anyhow::{Result, anyhow};
use homeport_dataplane::table::binding::{BindingEntry, BindingKey, EntryFlags};
use homeport_dataplane::table::hash::table;
use homeport_wire::TenantId;
use serde::Serialize;

use crate::case::{Family, Kind};
use crate::frames::Random;
use crate::{cycles, world};

/// One set of keys.
#[derive(Clone, Debug, Serialize)]
pub struct Collisions {
    /// The hash under which they collide; `random` for those that do under none.
    pub hash: &'static str,
    /// How many keys.
    pub keys: usize,
    /// How many of them the table refused.
    pub refused: usize,
    /// Ticks of a look-up by itself, 50 in 100.
    pub p50_cycles: u64,
    /// 99 in 100.
    pub p99_cycles: u64,
    /// The latter by that of random keys.
    pub p99_ratio: f64,
}

const LOOKUPS: usize = 200_000;
const PASSES: usize = 5;

/// Makes a key from its number: tenant and home address.
type MakeKey = fn(u32) -> (u32, u32);

/// Looks up `count` keys of each set.
///
/// # Errors
/// An entry cannot be made.
pub fn collisions(count: usize, progress: impl Fn(&str)) -> Result<Vec<Collisions>> {
    let mut measured: Vec<Collisions> = Vec::new();
    let sets: [(&str, MakeKey); 5] = [
        ("random", random),
        ("low bits", low_bits),
        ("CRC32c", crc32c),
        ("Toeplitz", toeplitz),
        ("FNV-1a", fnv),
    ];
    for (hash, key) in sets {
        progress(hash);
        let mut one = look_up(hash, count, key)?;
        let base = measured.first().map_or(one.p99_cycles, |random| random.p99_cycles);
        one.p99_ratio = one.p99_cycles as f64 / base.max(1) as f64;
        measured.push(one);
    }
    Ok(measured)
}

fn look_up(hash: &'static str, count: usize, key: MakeKey) -> Result<Collisions> {
    let (_, entry): (_, BindingEntry) =
        world::binding(Family::Bindings(Kind::IpIp), 0, EntryFlags::default())?;
    let key = |number: usize| {
        let (tenant, address) = key(number as u32);
        BindingKey { tenant: TenantId(tenant), home_address: address.into() }
    };
    let mut writer = table(count, [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321]);
    let refused = (0..count).filter(|number| writer.install(key(*number), entry).is_err()).count();
    let reader = writer.reader();
    let mut random = Random::new(3);
    let mut best: Option<(u64, u64)> = None;
    let mut times = vec![0u64; LOOKUPS];
    for _ in 0..PASSES {
        let mut missed = 0;
        for time in &mut times {
            let key = key(random.below(count as u64) as usize);
            let begin = cycles::now();
            let found = std::hint::black_box(reader.lookup(std::hint::black_box(&key))).is_some();
            *time = (cycles::now() - begin).saturating_sub(cycles::reading());
            missed += usize::from(!found);
        }
        if missed > 0 && refused == 0 {
            return Err(anyhow!("{missed} of {LOOKUPS} keys were not found ({hash})"));
        }
        times.sort_unstable();
        let at = |part: usize| times.get(LOOKUPS / 100 * part).copied().unwrap_or_default();
        let pass = (at(50), at(99));
        // The quietest pass: what others do on the machine is no property of a hash.
        best = Some(best.map_or(pass, |best| if pass.1 < best.1 { pass } else { best }));
    }
    let (p50_cycles, p99_cycles) = best.unwrap_or_default();
    Ok(Collisions { hash, keys: count, refused, p50_cycles, p99_cycles, p99_ratio: 1.0 })
}

/// Scattered without a pattern, and no two alike: a bijection.
fn random(number: u32) -> (u32, u32) {
    let mixed = number.wrapping_mul(0x9e37_79b1);
    (mixed ^ mixed >> 15, mixed.wrapping_mul(0x85eb_ca6b) ^ mixed >> 13)
}

/// All alike in the twelve low bits of the address.
fn low_bits(number: u32) -> (u32, u32) {
    (number >> 20, number << 12)
}

/// All with one CRC32c of tenant and address: what the tenant does to the register, the
/// address undoes.
fn crc32c(number: u32) -> (u32, u32) {
    let register = number.to_le_bytes().iter().fold(u32::MAX, |register, byte| {
        (0..8).fold(register ^ u32::from(*byte), |register, _| {
            register >> 1 ^ if register & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    });
    (number, register)
}

/// The key that every network card comes with.
const TOEPLITZ_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The 32 bits of the key that an input bit brings in.
fn window(bit: usize) -> u32 {
    let bits = TOEPLITZ_KEY.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1));
    bits.skip(bit).take(32).fold(0, |window, bit| window << 1 | u32::from(bit))
}

/// All with one Toeplitz hash, which is linear: the address that has the tenant's hash
/// is found by elimination.
fn toeplitz(number: u32) -> (u32, u32) {
    use std::sync::OnceLock;
    /// For each bit of a hash: the address bits that make it, once all are eliminated.
    static SOLVED: OnceLock<[(u32, u32); 32]> = OnceLock::new();
    static TENANT: OnceLock<[u32; 32]> = OnceLock::new();
    let solved = SOLVED.get_or_init(|| {
        let mut rows: Vec<(u32, u32)> =
            (0..32).map(|bit| (1 << (31 - bit), window(32 + bit as usize))).collect();
        let mut solved = [(0, 0); 32];
        for (bit, place) in solved.iter_mut().enumerate() {
            let Some(at) = rows.iter().position(|(_, hash)| hash << bit >> 31 == 1) else {
                continue;
            };
            let pivot = rows.swap_remove(at);
            for row in &mut rows {
                if row.1 << bit >> 31 == 1 {
                    *row = (row.0 ^ pivot.0, row.1 ^ pivot.1);
                }
            }
            *place = pivot;
        }
        solved
    });
    let tenant = TENANT.get_or_init(|| std::array::from_fn(window));
    let set = tenant.iter().enumerate().filter(|(bit, _)| number << bit >> 31 == 1);
    let mut wanted = set.fold(0, |hash, (_, window)| hash ^ window);
    let mut address = 0;
    for (bit, (bits, hash)) in solved.iter().enumerate() {
        if wanted << bit >> 31 == 1 {
            address ^= bits;
            wanted ^= hash;
        }
    }
    (number, address)
}

/// All alike in the sixteen low bits of FNV-1a, which depend on no higher bit: the last
/// two bytes are chosen for it.
fn fnv(number: u32) -> (u32, u32) {
    const PRIME: u16 = 0x01b3;
    const OFFSET: u16 = 0x2325;
    let step = |state: u16, byte: u8| (state ^ u16::from(byte)).wrapping_mul(PRIME);
    let first = number.to_le_bytes();
    // The address's first two bytes let a key be tried anew when no last one fits.
    for attempt in 0..=u16::MAX {
        let head = attempt.to_le_bytes();
        let state = first.iter().chain(&head).fold(OFFSET, |state, byte| step(state, *byte));
        for third in 0..=u8::MAX {
            let state = step(state, third);
            // What a multiplication by the prime makes zero is zero.
            if state >> 8 == 0 {
                let [a, b] = head;
                return (number, u32::from_le_bytes([a, b, third, state as u8]));
            }
        }
    }
    (number, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Toeplitz hash of 32 bits that begin at `first` of the input.
    fn toeplitz_of(value: u32, first: usize) -> u32 {
        let set = (0..32).filter(|bit| value << bit >> 31 == 1);
        set.fold(0, |hash, bit| hash ^ window(first + bit))
    }

    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |register, byte| {
            (0..8).fold(register ^ u32::from(*byte), |register, _| {
                register >> 1 ^ if register & 1 == 1 { 0x82f6_3b78 } else { 0 }
            })
        })
    }

    #[test]
    fn the_keys_do_collide_under_each_hash() {
        // The check value of CRC-32C.
        assert_eq!(crc(b"123456789"), 0xe306_9283);
        let bytes =
            |(tenant, address): (u32, u32)| [tenant.to_le_bytes(), address.to_le_bytes()].concat();
        let fnv1a = |bytes: &[u8]| {
            bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            })
        };
        for number in (0..1_000_000).step_by(4999) {
            assert_eq!(crc(&bytes(crc32c(number))), crc(&bytes(crc32c(0))), "{number}");
            assert_eq!(fnv1a(&bytes(fnv(number))) & 0xffff, 0, "{number}");
            let (tenant, address) = toeplitz(number);
            assert_eq!(toeplitz_of(tenant, 0), toeplitz_of(address, 32), "{number}");
            assert_eq!(low_bits(number).1 & 0xfff, 0);
        }
    }

    #[test]
    fn toeplitz_is_what_the_network_cards_specification_says() {
        // Its verification suite: 66.9.149.187 to 161.142.100.80, addresses only.
        let hash = toeplitz_of(0x4209_95bb, 0) ^ toeplitz_of(0xa18e_6450, 32);
        assert_eq!(hash, 0x323e_8fc2);
    }

    #[test]
    fn no_two_random_keys_are_one() {
        let keys: std::collections::BTreeSet<_> = (0..100_000).map(random).collect();
        assert_eq!(keys.len(), 100_000);
    }

    #[test]
    fn a_small_set_is_found_whatever_it_collides_under() {
        let measured = collisions(2000, |_| {}).unwrap();
        assert_eq!(measured.len(), 5);
        assert!(measured.iter().all(|one| one.refused == 0 && one.p99_cycles >= one.p50_cycles));
    }
}
