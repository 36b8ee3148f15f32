//! The route table against a naive search, and under a make-before-break writer.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use homeport_wire::PortId;
use proptest::prelude::*;

use super::*;

/// Scopes whose walks begin at three different nodes, and one that differs from
/// another in its uppermost byte only.
const SCOPES: [u32; 4] = [0, 255, 70_000, 0x0100_0000 + 70_000];

fn via(port: u16) -> RouteEntry {
    RouteEntry::Via { port: PortId(port), gateway: None }
}

/// All routes by (scope, length, prefix), searched one by one.
type Model = BTreeMap<(u32, u8, u32), RouteEntry>;

fn naive(model: &Model, tenant: u32, destination: u32, shortest: u8) -> Option<RouteEntry> {
    model
        .iter()
        .filter(|((owner, len, prefix), _)| {
            *owner == tenant
                && *len >= shortest
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

fn scope() -> impl Strategy<Value = u32> {
    prop::sample::select(&SCOPES[..])
}

proptest! {
    #[test]
    fn the_longest_prefix_wins_as_in_a_naive_search(
        steps in prop::collection::vec(
            (scope(), address(), 0..=32_u8, 0..6_u16, prop::bool::weighted(0.7)),
            1..80,
        ),
        probes in prop::collection::vec((scope(), address(), 0..=33_u8), 1..20),
    ) {
        let mut model = Model::new();
        let mut writer = routes(100);
        let mut reader = writer.reader();
        for (tenant, address, len, port, add) in steps {
            let prefix = (u64::from(address) >> (32 - len) << (32 - len)) as u32;
            let key = (tenant, len, prefix);
            let (tenant, address) = (TenantId(tenant), Ipv4Addr::from_bits(address));
            let epoch = reader.epoch();
            let changed = if add {
                let entry = if port == 0 { RouteEntry::Unreachable } else { via(port) };
                prop_assert_eq!(writer.install(tenant, address, len, entry), Ok(()));
                model.insert(key, entry) != Some(entry)
            } else {
                let was_there = model.remove(&key).is_some();
                prop_assert_eq!(writer.remove(tenant, address, len), was_there);
                was_there
            };
            prop_assert_eq!(reader.epoch() != epoch, changed);
            prop_assert_eq!(reader.is_empty(), model.is_empty());
            prop_assert_eq!(writer.get(tenant, address, len), model.get(&key));
            for &(tenant, destination, shortest) in &probes {
                prop_assert_eq!(
                    reader.lookup_from(shortest, TenantId(tenant), Ipv4Addr::from_bits(destination)),
                    naive(&model, tenant, destination, shortest.min(32))
                );
            }
            reader.quiescent();
        }
        prop_assert_eq!(writer.len(), model.len());
        let listed: Model = writer
            .iter()
            .map(|(key, entry)| {
                ((key.scope().0, key.prefix_len(), key.prefix().to_bits()), *entry)
            })
            .collect();
        prop_assert_eq!(&listed, &model);

        for (tenant, len, prefix) in model.into_keys() {
            prop_assert!(writer.remove(TenantId(tenant), Ipv4Addr::from_bits(prefix), len));
        }
        for (tenant, destination, _) in probes {
            let found = reader.lookup(TenantId(tenant), Ipv4Addr::from_bits(destination));
            prop_assert_eq!(found, None);
        }
        reader.quiescent();
        prop_assert_eq!(take_all(writer), take_all(routes(100)), "something was lost");
    }
}

/// How many nodes and values are free, when all readers are quiescent; it takes them.
fn take_all(mut writer: RouteWriter) -> (usize, usize) {
    let room = &mut writer.room;
    let nodes = std::iter::from_fn(|| room.take_node()).count();
    let values = std::iter::from_fn(|| room.take_value()).count();
    (nodes, values)
}

#[test]
fn tenants_see_their_own_routes_only() {
    let mut writer = routes(8);
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
    let mut writer = routes(8);
    let reader = writer.reader();
    let tenant = TenantId(0);
    writer.install(tenant, Ipv4Addr::UNSPECIFIED, 0, via(1)).unwrap();
    writer.install(tenant, Ipv4Addr::new(10, 0, 0, 0), 8, RouteEntry::Unreachable).unwrap();
    assert_eq!(reader.lookup(tenant, Ipv4Addr::new(10, 9, 8, 7)), Some(RouteEntry::Unreachable));
}

#[test]
fn bits_beyond_the_length_and_lengths_beyond_32_are_ignored() {
    let mut writer = routes(8);
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
    let mut writer = routes(1);
    let reader = writer.reader();
    let tenant = TenantId(0);
    let destination = Ipv4Addr::new(10, 0, 0, 1);
    writer.install(tenant, destination, 8, via(1)).unwrap();
    let epoch = reader.epoch();
    assert_eq!(writer.install(tenant, destination, 24, via(2)), Err(TableFull));
    assert_eq!(reader.lookup(tenant, destination), Some(via(1)));
    assert_eq!((writer.len(), reader.epoch()), (1, epoch));
    writer.install(tenant, destination, 8, via(3)).unwrap();
    assert_eq!(reader.lookup(tenant, destination), Some(via(3)));
}

/// Host routes that have no byte in common, in scopes that have none either.
#[test]
fn the_capacity_is_real_even_if_no_two_routes_share_a_node() {
    let mut writer = routes(200);
    let reader = writer.reader();
    let scope = |number: u32| TenantId(0x0101_0101 * (number + 1));
    let address = |number: u32| Ipv4Addr::from_bits(0x0101_0101 * number);
    for number in 0..200 {
        let port = via(number as u16);
        assert_eq!(writer.install(scope(number), address(number), 32, port), Ok(()));
    }
    for number in 0..200 {
        let found = reader.lookup(scope(number), address(number));
        assert_eq!(found, Some(via(number as u16)));
        assert_eq!(reader.lookup(scope(number), address(number + 1)), None);
    }
}

#[test]
fn a_reader_that_is_slow_holds_up_new_nodes_and_nothing_is_half_done() {
    let mut writer = routes(2);
    let mut reader = writer.reader();
    let tenant = TenantId(0);
    writer.install(tenant, Ipv4Addr::UNSPECIFIED, 0, via(1)).unwrap();
    let host = |number: u8| Ipv4Addr::new(10, 0, number, 1);
    let mut tried = 0..=255_u8;
    let refused = tried
        .find(|number| {
            let refused = writer.install(tenant, host(*number), 32, via(2)).is_err();
            refused || !writer.remove(tenant, host(*number), 32)
        })
        .unwrap();
    assert_eq!(reader.lookup(tenant, host(refused)), Some(via(1)));
    assert_eq!(writer.get(tenant, host(refused), 32), None);
    // What was taken for the one that was refused is there again.
    let short = Ipv4Addr::new(10, 0, 0, 0);
    assert_eq!(writer.install(tenant, short, 8, via(1)), Ok(()));
    assert!(writer.remove(tenant, short, 8));

    reader.quiescent();
    assert_eq!(writer.install(tenant, host(refused), 32, via(2)), Ok(()));
    assert_eq!(reader.lookup(tenant, host(refused)), Some(via(2)));
}

#[test]
fn routes_the_same_way_share_one_value() {
    let mut writer = routes(600);
    let reader = writer.reader();
    let tenant = TenantId(0);
    let host = |number: u16| Ipv4Addr::from_bits(0x0a00_0000 + u32::from(number));
    for number in 0..600 {
        writer.install(tenant, host(number), 32, via(number % 3)).unwrap();
    }
    assert_eq!(writer.numbers.len(), 3);
    for number in (0..600).filter(|number| number % 3 == 1) {
        assert!(writer.remove(tenant, host(number), 32));
    }
    assert_eq!(writer.numbers.len(), 2, "a value without a route");
    assert_eq!(reader.lookup(tenant, host(2)), Some(via(2)));
}

#[test]
fn a_route_that_changes_its_length_is_never_missed() {
    let mut writer = routes(8);
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
        }
    });
}
