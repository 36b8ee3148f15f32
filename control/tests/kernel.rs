//! The kernel mirror and the set-up of twins against a real kernel.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant as Clock};

use homeport_control::kernel::setup::Twin;
use homeport_control::kernel::{Change, Mirror, Resolver, Setup, SharedLink};
use homeport_dataplane::table::route::RouteEntry;
use homeport_proto::config::Prefix;
use homeport_proto::{Instant, MacAddress, PortId};

use crate::namespace::{Namespace, join, unavailable};

const PORT: PortId = PortId(0);
const LIMIT: Duration = Duration::from_secs(5);

/// What a mirror told, put together as the tables would have it.
#[derive(Default)]
struct Tables {
    routes: BTreeMap<Prefix, RouteEntry>,
    locals: BTreeMap<Ipv4Addr, bool>,
    neighbors: BTreeMap<(PortId, Ipv4Addr), MacAddress>,
    links: BTreeMap<PortId, bool>,
}

impl Tables {
    fn take(&mut self, mirror: &mut Mirror) {
        while let Some(change) = mirror.next_change() {
            match change {
                Change::Route(prefix, entry) => put(&mut self.routes, prefix, entry),
                Change::Local(at, entry) => put(&mut self.locals, at, entry.map(|e| e.broadcast)),
                Change::Neighbor(key, entry) => {
                    put(&mut self.neighbors, (key.port, key.address), entry.map(|e| e.mac));
                }
                Change::Link(port, up) => put(&mut self.links, port, Some(up)),
            }
        }
    }

    /// Follows the mirror until `check` holds.
    fn until(&mut self, mirror: &mut Mirror, what: &str, check: impl Fn(&Tables) -> bool) {
        let end = Clock::now() + LIMIT;
        loop {
            mirror.poll(64).unwrap();
            self.take(mirror);
            if check(self) {
                return;
            }
            assert!(Clock::now() < end, "{what} did not happen; routes {:?}", self.routes);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

fn prefix(text: &str) -> Prefix {
    let (address, len) = text.split_once('/').unwrap();
    Prefix::new(address.parse().unwrap(), len.parse().unwrap()).unwrap()
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn via(gateway: &str) -> RouteEntry {
    RouteEntry::Via { port: PORT, gateway: Some(address(gateway)) }
}

const ON_LINK: RouteEntry = RouteEntry::Via { port: PORT, gateway: None };

fn mirror() -> Mirror {
    Mirror::new([("hp-core".to_string(), PORT)]).unwrap()
}

fn twin() -> Twin {
    Twin {
        name: "hp-core".to_string(),
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        mtu: 1400,
        addresses: vec![(address("10.0.1.2"), 24)],
    }
}

#[test]
fn a_configured_twin_and_its_route_are_mirrored_and_taken_back() {
    if unavailable("a_configured_twin_and_its_route_are_mirrored_and_taken_back") {
        return;
    }
    let ns = Namespace::new("twin");
    ns.ip("tuntap add mode tap name hp-core");
    ns.inside(|| {
        let mut mirror = mirror();
        let mut tables = Tables::default();
        tables.take(&mut mirror);
        assert_eq!(tables.links.get(&PORT), Some(&false));
        assert!(tables.routes.is_empty());

        let mut setup = Setup::new().unwrap();
        let index = setup.configure(&twin()).unwrap();
        let default = prefix("0.0.0.0/0");
        setup.add_route(default, Some(address("10.0.1.1")), index).unwrap();
        assert!(setup.add_route(default, Some(address("10.0.1.1")), index).is_err());
        tables.until(&mut mirror, "mirroring the twin", |tables| {
            tables.routes.get(&default) == Some(&via("10.0.1.1"))
        });
        assert_eq!(mirror.index_of(PORT), Some(index));
        assert_eq!(tables.links.get(&PORT), Some(&true));
        assert_eq!(tables.routes.get(&prefix("10.0.1.0/24")), Some(&ON_LINK));
        assert_eq!(tables.locals.get(&address("10.0.1.2")), Some(&false));
        assert_eq!(tables.locals.get(&address("10.0.1.255")), Some(&true));
        let sysctl = |key: &str| {
            std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/hp-core/{key}")).unwrap()
        };
        assert_eq!(sysctl("forwarding").trim(), "0");
        assert_eq!(sysctl("arp_ignore").trim(), "1");

        // Twice is as good as once, in both directions.
        assert_eq!(setup.configure(&twin()).unwrap(), index);
        for _ in 0..2 {
            setup.remove_route(default, Some(address("10.0.1.1")), index).unwrap();
            setup.remove_address(index, address("10.0.1.2"), 24).unwrap();
        }
        tables.until(&mut mirror, "forgetting the twin's addresses", |tables| {
            tables.routes.is_empty() && tables.locals.is_empty()
        });
    });
    let link = String::from_utf8(ns.output("ip", "link show hp-core").stdout).unwrap();
    assert!(link.contains("02:00:00:00:00:01") && link.contains("mtu 1400"), "{link}");
}

#[test]
fn what_ip_does_reaches_the_tables() {
    if unavailable("what_ip_does_reaches_the_tables") {
        return;
    }
    let ns = Namespace::new("deltas");
    ns.ip("tuntap add mode tap name hp-core");
    ns.ip("tuntap add mode tap name other");
    ns.ip("link set hp-core up");
    ns.ip("link set other up");
    ns.ip("addr add 10.0.1.2/24 brd + dev hp-core");
    ns.ip("addr add 10.0.9.2/24 brd + dev other");
    ns.ip("route add 10.5.0.0/16 via 10.0.1.7");
    ns.inside(|| {
        // What was there before.
        let mut mirror = mirror();
        let mut tables = Tables::default();
        tables.take(&mut mirror);
        assert_eq!(tables.routes.get(&prefix("10.5.0.0/16")), Some(&via("10.0.1.7")));
        assert_eq!(tables.locals.len(), 2, "{:?}", tables.locals);
        assert_eq!(mirror.resyncs(), 1);

        ns.ip("route add blackhole 10.6.0.0/16");
        ns.ip("route add 10.7.0.0/16 nexthop via 10.0.1.8 nexthop via 10.0.1.9");
        ns.ip("neigh add 10.0.1.7 lladdr 02:00:00:00:00:07 nud permanent dev hp-core");
        ns.ip("neigh add 10.0.9.7 lladdr 02:00:00:00:00:07 nud permanent dev other");
        tables.until(&mut mirror, "a neighbour", |tables| !tables.neighbors.is_empty());
        assert_eq!(tables.routes.get(&prefix("10.6.0.0/16")), Some(&RouteEntry::Unreachable));
        assert_eq!(tables.routes.get(&prefix("10.7.0.0/16")), Some(&via("10.0.1.8")));
        let mac = MacAddress([2, 0, 0, 0, 0, 7]);
        assert_eq!(tables.neighbors, [((PORT, address("10.0.1.7")), mac)].into());

        ns.ip("route replace 10.5.0.0/16 via 10.0.1.8");
        ns.ip("neigh del 10.0.1.7 dev hp-core");
        tables.until(&mut mirror, "a neighbour gone", |tables| tables.neighbors.is_empty());
        assert_eq!(tables.routes.get(&prefix("10.5.0.0/16")), Some(&via("10.0.1.8")));
        assert_eq!(mirror.resyncs(), 1, "deltas need no dump");

        // The kernel drops the routes of a link without a word.
        ns.ip("link set hp-core down");
        tables
            .until(&mut mirror, "the link down", |tables| tables.links.get(&PORT) == Some(&false));
        assert_eq!(tables.routes, [(prefix("10.6.0.0/16"), RouteEntry::Unreachable)].into());

        ns.ip("link set hp-core up");
        tables.until(&mut mirror, "the connected route", |tables| {
            tables.routes.get(&prefix("10.0.1.0/24")) == Some(&ON_LINK)
        });
        ns.ip("link delete hp-core");
        tables.until(&mut mirror, "the link gone", |tables| tables.locals.is_empty());
        assert_eq!(mirror.index_of(PORT), None);
    });
}

#[test]
fn more_changes_than_fit_are_dumped_anew() {
    if unavailable("more_changes_than_fit_are_dumped_anew") {
        return;
    }
    let ns = Namespace::new("overflow");
    ns.ip("tuntap add mode tap name hp-core");
    ns.ip("link set hp-core up");
    ns.ip("addr add 10.0.1.2/24 brd + dev hp-core");
    let batch = std::env::temp_dir().join(format!("{}.batch", ns.name()));
    let routes: String = (0..2000)
        .map(|n| format!("route add 10.{}.{}.0/24 via 10.0.1.1\n", 100 + n / 250, n % 250))
        .collect();
    std::fs::write(&batch, routes).unwrap();
    ns.inside(|| {
        let mut mirror =
            Mirror::with_receive_buffer([("hp-core".to_string(), PORT)], 4096).unwrap();
        let mut tables = Tables::default();
        tables.take(&mut mirror);
        ns.ip(&format!("-batch {}", batch.display()));
        tables.until(&mut mirror, "all routes", |tables| tables.routes.len() == 2001);
        assert!(mirror.resyncs() >= 2);
    });
    std::fs::remove_file(batch).unwrap();
}

#[test]
fn a_next_hop_is_resolved_by_the_kernel_and_refreshed() {
    if unavailable("a_next_hop_is_resolved_by_the_kernel_and_refreshed") {
        return;
    }
    let (ns, peer) = (Namespace::new("resolve"), Namespace::new("peer"));
    join((&ns, "hp-core"), (&peer, "eth0"));
    ns.ip("addr add 10.0.1.2/24 brd + dev hp-core");
    peer.ip("addr add 10.0.1.1/24 brd + dev eth0");
    peer.ip("link set eth0 address 02:00:00:00:00:11");
    ns.inside(|| {
        let mut mirror = mirror();
        let mut tables = Tables::default();
        let mut resolver = Resolver::new().unwrap();
        let index = mirror.index_of(PORT).unwrap();
        let next_hop = address("10.0.1.1");
        let key = (PORT, next_hop);
        let at = |milliseconds: u64| Instant(milliseconds * 1_000_000);
        resolver.resolve(index, next_hop, at(0)).unwrap();
        tables.until(&mut mirror, "the answer", |tables| tables.neighbors.contains_key(&key));
        assert_eq!(tables.neighbors[&key], MacAddress([2, 0, 0, 0, 0, 0x11]));

        // The station moves in silence. The stale entry is probed and found wrong.
        peer.ip("link set eth0 arp off");
        peer.ip("link set eth0 address 02:00:00:00:00:22");
        peer.ip("link set eth0 arp on");
        ns.ip("neigh change 10.0.1.1 dev hp-core nud stale");
        std::fs::write("/proc/sys/net/ipv4/neigh/hp-core/delay_first_probe_time", "0").unwrap();
        mirror.poll(64).unwrap();
        assert_eq!(mirror.stale_neighbors(), [(index, next_hop)]);
        resolver.refresh(|| mirror.stale_neighbors(), at(10_000)).unwrap();
        tables.until(&mut mirror, "the old entry gone", |tables| {
            tables.neighbors.get(&key) != Some(&MacAddress([2, 0, 0, 0, 0, 0x11]))
        });
        resolver.resolve(index, next_hop, at(20_000)).unwrap();
        tables.until(&mut mirror, "the new place", |tables| {
            tables.neighbors.get(&key) == Some(&MacAddress([2, 0, 0, 0, 0, 0x22]))
        });

        // Nobody there: asked, and never usable.
        let nobody = address("10.0.1.99");
        resolver.resolve(index, nobody, at(30_000)).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        mirror.poll(64).unwrap();
        tables.take(&mut mirror);
        assert!(!tables.neighbors.contains_key(&(PORT, nobody)));
        assert!(resolver.resolve(9999, nobody, at(30_000)).is_err());
    });
}

#[test]
fn a_shared_interface_is_put_back_as_it_was_found() {
    if unavailable("a_shared_interface_is_put_back_as_it_was_found") {
        return;
    }
    let (ns, peer) = (Namespace::new("shared"), Namespace::new("shared-peer"));
    join((&ns, "eth0"), (&peer, "eth0"));
    ns.ip("address add 10.0.1.2/24 dev eth0");
    // What a killed process left; and another's route.
    ns.ip("route add 10.7.0.0/16 via 10.0.1.1 proto 99");
    ns.ip("route add 10.8.0.0/16 via 10.0.1.1 proto 98");
    let text = |words: &str| String::from_utf8(ns.output("ip", words).stdout).unwrap();
    let filter = || ns.output("cat", "/proc/sys/net/ipv4/conf/eth0/rp_filter").stdout;
    ns.inside(|| std::fs::write("/proc/sys/net/ipv4/conf/eth0/rp_filter", "2").unwrap());
    let addresses = [(address("10.0.1.2"), 24), (address("10.5.0.1"), 16)];
    ns.inside(|| {
        let link = SharedLink::configure("eth0", &addresses).unwrap();
        assert_eq!(filter(), b"0\n");
        let shown = text("-4 -o address show dev eth0");
        assert!(shown.contains("10.0.1.2/24") && shown.contains("10.5.0.1/16"), "{shown}");
        assert!(!text("route").contains("10.7.0.0"), "{}", text("route"));
        let mut setup = Setup::new().unwrap();
        setup.add_route(prefix("10.6.0.0/16"), Some(address("10.0.1.1")), link.index()).unwrap();
    });
    let shown = text("-4 -o address show dev eth0");
    assert!(shown.contains("10.0.1.2/24") && !shown.contains("10.5.0.1"), "{shown}");
    let routes = text("route");
    assert!(routes.contains("10.8.0.0") && !routes.contains("10.6.0.0"), "{routes}");
    assert_eq!(filter(), b"2\n");
    let error = ns.inside(|| SharedLink::configure("eth7", &[]).err().unwrap().to_string());
    assert_eq!(error, "there is no interface eth7");
}
