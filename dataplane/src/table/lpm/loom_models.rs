//! The route table under every interleaving.

use homeport_wire::PortId;
use loom::thread;

use super::*;
use crate::sync::models::{explore, explore_mutant};

/// The /32 is installed and then the /31 removed: one of them is always there.
fn longer() {
    let tenant = TenantId(1);
    let destination = Ipv4Addr::new(10, 1, 2, 3);
    let via = |port| RouteEntry::Via { port: PortId(port), gateway: None };
    let mut writer = routes(2, [1, 2]);
    writer.install(tenant, destination, 31, via(31)).unwrap();
    let reader = writer.reader();
    let reading = thread::spawn(move || {
        let found = reader.lookup(tenant, destination);
        assert!(found == Some(via(31)) || found == Some(via(32)), "fell into a gap: {found:?}");
    });
    writer.install(tenant, destination, 32, via(32)).unwrap();
    assert!(writer.remove(tenant, destination, 31));
    reading.join().unwrap();
}

#[test]
fn loom_a_route_that_gets_longer_is_never_missed() {
    explore("lpm longer", 400, longer);
}

#[test]
#[should_panic = "fell into a gap"]
fn loom_finds_a_look_up_that_is_not_checked() {
    explore_mutant(Mutant::RouteUnchecked, longer);
}

#[test]
#[should_panic = "fell into a gap"]
fn loom_finds_a_removal_that_is_announced_late() {
    explore_mutant(Mutant::RemovalLate, longer);
}

#[test]
#[should_panic = "fell into a gap"]
fn loom_finds_a_removal_that_releases_nothing() {
    explore_mutant(Mutant::RemovalRelaxed, longer);
}
