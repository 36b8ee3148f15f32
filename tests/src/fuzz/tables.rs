//! Tables, operation by operation, against something simple that must be right.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use arbitrary::{Result, Unstructured};
use homeport_dataplane::table::binding::{Encapsulation, EntryFlags};
use homeport_dataplane::table::hash;
use homeport_dataplane::table::lpm;
use homeport_dataplane::table::visitor::{
    Found, ReverseTunnel, VisitorEntry, VisitorKey, visitors,
};
use homeport_dataplane::{MacAddress, PortId, TenantId};

/// Runs a target that ends when the bytes do.
fn until_the_end(data: &[u8], target: fn(&mut Unstructured<'_>) -> Result<()>) {
    let _ = target(&mut Unstructured::new(data));
}

/// Keys that collide often, in a table that is soon full.
pub(super) fn hash_table(data: &[u8]) {
    until_the_end(data, |bytes| {
        let seed = [u64::from(bytes.arbitrary::<u8>()?), 7];
        let capacity = 1 + usize::from(bytes.arbitrary::<u8>()? % 64);
        let mut table = hash::table::<u64, u64>(capacity, seed);
        let mut reader = table.reader();
        let mut model: BTreeMap<u64, u64> = BTreeMap::new();
        while !bytes.is_empty() {
            let key = u64::from(bytes.arbitrary::<u8>()? % 96);
            match bytes.arbitrary::<u8>()? % 6 {
                0..=2 => {
                    let value = bytes.arbitrary::<u16>()?.into();
                    if table.install(key, value).is_ok() {
                        model.insert(key, value);
                    } else {
                        // Full, or what was replaced is still held.
                        assert!(model.len() >= capacity || table.held().is_some());
                    }
                }
                3 => assert_eq!(table.remove(&key), model.remove(&key).is_some()),
                4 => reader.quiescent(),
                _ => {
                    assert_eq!(table.get(&key), model.get(&key));
                }
            }
            assert_eq!(reader.lookup(&key), model.get(&key));
            assert_eq!(table.len(), model.len());
        }
        let mut all: Vec<(u64, u64)> = table.iter().map(|(key, value)| (*key, *value)).collect();
        all.sort_unstable();
        assert_eq!(all, model.into_iter().collect::<Vec<_>>());
        Ok(())
    });
}

/// Prefixes that nest, in two scopes.
pub(super) fn route_table(data: &[u8]) {
    until_the_end(data, |bytes| {
        let mut table = lpm::routes::<TenantId, u32>(64);
        let mut reader = table.reader();
        let mut model: BTreeMap<(u32, u8, u32), u32> = BTreeMap::new();
        while !bytes.is_empty() {
            let scope = bytes.arbitrary::<u32>()? % 2;
            let len = bytes.arbitrary::<u8>()? % 33;
            // Few addresses, so that they meet.
            let address = bytes.arbitrary::<u32>()? & 0x8181_8187;
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            let (tenant, prefix) = (TenantId(scope), Ipv4Addr::from_bits(address));
            match bytes.arbitrary::<u8>()? % 4 {
                0 | 1 => {
                    let value = bytes.arbitrary::<u8>()?.into();
                    if table.install(tenant, prefix, len, value).is_ok() {
                        model.insert((scope, len, address & mask), value);
                    }
                }
                2 => {
                    let removed = model.remove(&(scope, len, address & mask)).is_some();
                    assert_eq!(table.remove(tenant, prefix, len), removed);
                }
                _ => reader.quiescent(),
            }
            let longest = (0..=32u8).rev().find_map(|len| {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                model.get(&(scope, len, address & mask))
            });
            assert_eq!(reader.lookup(tenant, prefix), longest.copied());
            assert_eq!(table.len(), model.len());
        }
        Ok(())
    });
}

/// Visitors that share addresses.
pub(super) fn visitor_table(data: &[u8]) {
    until_the_end(data, |bytes| {
        let mut table = visitors(16, [3, 5]);
        let mut reader = table.reader();
        let mut model: BTreeMap<VisitorKey, VisitorEntry> = BTreeMap::new();
        let address = |last: u8| Ipv4Addr::new(10, 0, 0, last);
        while !bytes.is_empty() {
            let [tenant, node, agent, station, what] = bytes.arbitrary::<[u8; 5]>()?;
            let (tenant, home_address) = (TenantId(u32::from(tenant % 2)), address(node % 4));
            let home_agent = address(100 + agent % 3);
            let mac = MacAddress([2, 0, 0, 0, 0, station % 3]);
            let key = VisitorKey { tenant, home_address, home_agent };
            let entry = VisitorEntry {
                mac,
                port: PortId(0),
                home_agent,
                care_of_address: address(200),
                encapsulation: Encapsulation::IpInIp,
                reverse_tunnel: ReverseTunnel::Direct,
                flags: EntryFlags::default(),
                overlapping: true,
                routes: None,
                napt: None,
            };
            match what % 4 {
                0 | 1 => {
                    if table.install(key, entry).is_ok() {
                        model.insert(key, entry);
                    }
                }
                2 => assert_eq!(table.remove(&key), model.remove(&key).is_some()),
                _ => reader.quiescent(),
            }
            let with_address = || {
                model
                    .iter()
                    .filter(|(key, _)| key.tenant == tenant && key.home_address == home_address)
            };
            match reader.of_home_agent(tenant, home_address, home_agent) {
                Found::Visitor(found) => assert_eq!(Some(found), model.get(&key)),
                Found::Other(_) => assert!(!model.contains_key(&key) && with_address().count() > 0),
                Found::Nobody => assert_eq!(with_address().count(), 0),
            }
            if let Some(alone) = reader.alone_at(tenant, home_address) {
                let mut all = with_address();
                assert_eq!((all.next().map(|(_, entry)| entry), all.next()), (Some(alone), None));
            }
            assert_eq!((table.len(), table.get(&key)), (model.len(), model.get(&key)));
        }
        Ok(())
    });
}
