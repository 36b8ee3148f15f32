//! The route table against a naive search, and under a make-before-break writer.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use homeport_wire::PortId;
use proptest::prelude::*;

use super::*;

const SEED: [u64; 2] = [1, 2];

fn via(port: u16) -> RouteEntry {
    RouteEntry::Via { port: PortId(port), gateway: None }
}

/// All routes by (tenant, length, prefix), searched one by one.
type Model = BTreeMap<(u32, u8, u32), RouteEntry>;

fn naive(model: &Model, tenant: u32, destination: u32) -> Option<RouteEntry> {
    model
        .iter()
        .filter(|((owner, len, prefix), _)| {
            *owner == tenant
                && (0..*len).all(|bit| (destination ^ prefix) >> (31 - u32::from(bit)) & 1 == 0)
        })
        .max_by_key(|((_, len, _), _)| *len)
        .map(|(_, entry)| *entry)
}

/// Addresses that share long prefixes.
fn address() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => (0..32_u32, any::<bool>()).prop_map(|(bit, low)| 0x0a01_0203 ^ 1 << bit ^ u32::from(low)),
        1 => any::<u32>(),
    ]
}

proptest! {
    #[test]
    fn the_longest_prefix_wins_as_in_a_naive_search(
        steps in prop::collection::vec(
            (0..3_u32, address(), 0..=32_u8, any::<u16>(), prop::bool::weighted(0.7)),
            1..80,
        ),
        probes in prop::collection::vec((0..3_u32, address()), 1..20),
    ) {
        let mut model = Model::new();
        let mut writer = routes(100, SEED);
        let reader = writer.reader();
        for (tenant, address, len, port, add) in steps {
            let prefix = (u64::from(address) >> (32 - len) << (32 - len)) as u32;
            let key = (tenant, len, prefix);
            let (tenant, address) = (TenantId(tenant), Ipv4Addr::from_bits(address));
            if add {
                let entry = if port == 0 { RouteEntry::Unreachable } else { via(port) };
                model.insert(key, entry);
                prop_assert_eq!(writer.install(tenant, address, len, entry), Ok(()));
            } else {
                prop_assert_eq!(writer.remove(tenant, address, len), model.remove(&key).is_some());
            }
            prop_assert_eq!(writer.get(tenant, address, len), model.get(&key));
            for (tenant, destination) in &probes {
                prop_assert_eq!(
                    reader.lookup(TenantId(*tenant), Ipv4Addr::from_bits(*destination)),
                    naive(&model, *tenant, *destination)
                );
            }
        }
        prop_assert_eq!(writer.len(), model.len());
        let listed: Model = writer
            .iter()
            .map(|(key, entry)| {
                ((key.scope().0, key.prefix_len(), key.prefix().to_bits()), *entry)
            })
            .collect();
        prop_assert_eq!(listed, model);
    }
}

#[test]
fn tenants_see_their_own_routes_only() {
    let mut writer = routes(8, SEED);
    let reader = writer.reader();
    let destination = Ipv4Addr::new(10, 1, 2, 3);
    writer.install(TenantId(1), Ipv4Addr::UNSPECIFIED, 0, via(1)).unwrap();
    writer.install(TenantId(2), destination, 32, via(2)).unwrap();
    assert_eq!(reader.lookup(TenantId(1), destination), Some(via(1)));
    assert_eq!(reader.lookup(TenantId(2), destination), Some(via(2)));
    assert_eq!(reader.lookup(TenantId(3), destination), None);
}

#[test]
fn an_unreachable_route_hides_a_shorter_one() {
    let mut writer = routes(8, SEED);
    let reader = writer.reader();
    let tenant = TenantId(0);
    writer.install(tenant, Ipv4Addr::UNSPECIFIED, 0, via(1)).unwrap();
    writer.install(tenant, Ipv4Addr::new(10, 0, 0, 0), 8, RouteEntry::Unreachable).unwrap();
    assert_eq!(reader.lookup(tenant, Ipv4Addr::new(10, 9, 8, 7)), Some(RouteEntry::Unreachable));
}

#[test]
fn bits_beyond_the_length_and_lengths_beyond_32_are_ignored() {
    let mut writer = routes(8, SEED);
    let reader = writer.reader();
    let tenant = TenantId(0);
    writer.install(tenant, Ipv4Addr::new(10, 1, 2, 3), 16, via(1)).unwrap();
    assert_eq!(reader.lookup(tenant, Ipv4Addr::new(10, 1, 9, 9)), Some(via(1)));
    assert_eq!(writer.iter().next().unwrap().0.to_string(), "10.1.0.0/16");
    writer.install(tenant, Ipv4Addr::new(10, 1, 2, 3), 255, via(2)).unwrap();
    assert_eq!(reader.lookup(tenant, Ipv4Addr::new(10, 1, 2, 3)), Some(via(2)));
    assert!(writer.remove(tenant, Ipv4Addr::new(10, 1, 2, 3), 32));
    assert!(!writer.remove(tenant, Ipv4Addr::new(10, 1, 2, 3), 32));
}

#[test]
fn a_full_table_says_so_and_changes_nothing() {
    let mut writer = routes(1, SEED);
    let reader = writer.reader();
    let tenant = TenantId(0);
    let destination = Ipv4Addr::new(10, 0, 0, 1);
    writer.install(tenant, destination, 8, via(1)).unwrap();
    assert_eq!(writer.install(tenant, destination, 24, via(2)), Err(TableFull));
    assert_eq!(reader.lookup(tenant, destination), Some(via(1)));
    assert_eq!(reader.word.0.load(Ordering::Relaxed), 1 << 8, "a length without a route");
}

#[test]
fn a_route_that_changes_its_length_is_never_missed() {
    let mut writer = routes(8, SEED);
    let tenant = TenantId(0);
    let destination = Ipv4Addr::new(10, 1, 2, 3);
    writer.install(tenant, destination, 0, via(0)).unwrap();
    writer.install(tenant, destination, 16, via(16)).unwrap();
    let mut reader = writer.reader();
    thread::scope(|scope| {
        let looking = scope.spawn(move || {
            // How often the /16 and the /24 were found.
            let mut found = [0_u64; 2];
            while found.iter().any(|count| *count < 20_000) {
                match reader.lookup(tenant, destination) {
                    Some(entry) if entry == via(16) => found[0] += 1,
                    Some(entry) if entry == via(24) => found[1] += 1,
                    other => panic!("fell through to {other:?}"),
                }
                reader.quiescent();
            }
        });
        let end = Instant::now() + Duration::from_secs(60);
        let (mut old, mut new) = (16, 24);
        while !looking.is_finished() {
            assert!(Instant::now() < end, "the reader finds one of them only");
            if writer.install(tenant, destination, new, via(u16::from(new))).is_ok() {
                writer.remove(tenant, destination, old);
                (old, new) = (new, old);
            }
            // Seldom, as seen from a look-up: only `ATTEMPTS` removals in a row may
            // make it fall through.
            thread::sleep(Duration::from_micros(100));
        }
    });
}
