//! The route table under every interleaving. In models a node has four slots and an
//! address two levels of them: a prefix up to /2 ends in the first node.

use homeport_wire::PortId;
use loom::thread;

use super::*;
use crate::sync::models::{explore, explore_mutant};

const TENANT: TenantId = TenantId(0);

fn via(port: u16) -> RouteEntry {
    RouteEntry::Via { port: PortId(port), gateway: None }
}

/// An address by its first four bits.
fn address(bits: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(bits << 28)
}

/// The /2 is installed and then the /1 removed, in one node: one of them is always
/// there.
fn longer() {
    let mut writer = routes(2);
    writer.install(TENANT, address(0), 1, via(1)).unwrap();
    let mut reader = writer.reader();
    let reading = thread::spawn(move || {
        for _ in 0..2 {
            let found = reader.lookup(TENANT, address(0));
            assert!(found == Some(via(1)) || found == Some(via(2)), "fell into a gap: {found:?}");
            reader.quiescent();
        }
    });
    writer.install(TENANT, address(0), 2, via(2)).unwrap();
    assert!(writer.remove(TENANT, address(0), 1));
    // Full while the reader holds up the only spare value.
    let _ = writer.install(TENANT, address(0), 2, via(1));
    reading.join().unwrap();
}

#[test]
fn loom_a_route_that_gets_longer_is_never_missed() {
    explore("lpm longer", 9_000, longer);
}

#[test]
#[should_panic = "fell into a gap"]
fn loom_finds_a_route_that_changes_in_two_steps() {
    explore_mutant(Mutant::RouteInTwoSteps, longer);
}

#[test]
#[should_panic = "Causality violation"]
fn loom_finds_a_route_that_is_not_released() {
    explore_mutant(Mutant::RouteRelaxed, longer);
}

#[test]
#[should_panic = "Causality violation"]
fn loom_finds_a_value_that_is_reused_early() {
    explore_mutant(Mutant::FreedTooEarly, longer);
}

/// A /3 comes and goes below a /1, and with it a node: one of them is always there.
/// The tenant's number takes a level of its own.
fn child() {
    let tenant = TenantId(1);
    let mut writer = routes(2);
    writer.install(tenant, address(0), 1, via(1)).unwrap();
    let reader = writer.reader();
    let reading = thread::spawn(move || {
        for destination in [0, 2] {
            let found = reader.lookup(tenant, address(destination));
            let longer = destination == 0 && found == Some(via(3));
            assert!(longer || found == Some(via(1)), "fell into a gap: {found:?}");
        }
    });
    writer.install(tenant, address(0), 3, via(3)).unwrap();
    assert!(writer.remove(tenant, address(0), 3));
    reading.join().unwrap();
}

#[test]
fn loom_a_new_node_is_known_with_all_its_slots() {
    explore("lpm child", 400, child);
}

#[test]
#[should_panic = "fell into a gap"]
fn loom_finds_a_node_that_is_not_released() {
    explore_mutant(Mutant::ChildPublishedRelaxed, child);
}

/// A node goes and comes back elsewhere while a reader may be in it: the reader finds
/// nobody else's route. Others have the same values, so that only the node is reused.
fn reclaim() {
    let mut writer = routes(3);
    writer.install(TENANT, address(8), 2, via(1)).unwrap();
    writer.install(TENANT, address(12), 2, via(2)).unwrap();
    writer.install(TENANT, address(0), 4, via(1)).unwrap();
    let mut reader = writer.reader();
    let reading = thread::spawn(move || {
        for _ in 0..2 {
            let found = reader.lookup(TENANT, address(0));
            assert!(found.is_none_or(|found| found == via(1)), "another's route: {found:?}");
            reader.quiescent();
        }
    });
    assert!(writer.remove(TENANT, address(0), 4));
    // The same slot of another node, which is the old one if the reader has left it.
    writer.install(TENANT, address(4), 4, via(2)).unwrap();
    reading.join().unwrap();
}

#[test]
fn loom_a_node_is_not_reused_while_a_reader_is_in_it() {
    explore("lpm reclaim", 16_000, reclaim);
}

#[test]
#[should_panic = "another's route"]
fn loom_finds_a_node_that_is_retired_early() {
    explore_mutant(Mutant::NodeRetiredEarly, reclaim);
}

#[test]
#[should_panic = "another's route"]
fn loom_finds_a_node_that_is_reused_early() {
    explore_mutant(Mutant::FreedTooEarly, reclaim);
}

/// A result that was taken at an epoch is right while the epoch is the same.
fn epoch() {
    let mut writer = routes(2);
    writer.install(TENANT, address(0), 1, via(1)).unwrap();
    let first = writer.reader().epoch();
    let reader = writer.reader();
    let reading = thread::spawn(move || {
        let epoch = reader.epoch();
        let found = reader.lookup(TENANT, address(0));
        if epoch != first {
            assert_eq!(found, Some(via(3)), "an old route at the new epoch");
        }
        epoch
    });
    writer.install(TENANT, address(0), 3, via(3)).unwrap();
    assert_ne!(reading.join().unwrap(), first + 2);
    assert_eq!(writer.reader().epoch(), first + 1);
}

#[test]
fn loom_an_epoch_has_its_changes() {
    explore("lpm epoch", 40, epoch);
}

#[test]
#[should_panic = "an old route at the new epoch"]
fn loom_finds_an_epoch_before_its_change() {
    explore_mutant(Mutant::RouteEpochEarly, epoch);
}

#[test]
#[should_panic = "an old route at the new epoch"]
fn loom_finds_an_epoch_that_releases_nothing() {
    explore_mutant(Mutant::RouteEpochRelaxed, epoch);
}
