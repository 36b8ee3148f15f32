//! Tests of the mirror's view, fed with messages as the kernel sends them.

use super::*;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::route::{RouteNextHop, RouteProtocol};

const TWIN: u32 = 7;
const LO: u32 = 1;
const PORT: PortId = PortId(3);

fn view() -> View {
    let mut view = View { twins: [("hp-core".to_string(), PORT)].into(), ..View::default() };
    let mut lo = LinkMessage::default();
    lo.header.index = LO;
    lo.header.flags = LinkFlags::Loopback | LinkFlags::Up;
    view.apply(&RouteNetlinkMessage::NewLink(lo), 0);
    assert_eq!(view.apply(&link(TWIN, "hp-core", true), 0), Effect::Resync);
    assert_eq!(view.apply(&link(8, "eth9", true), 0), Effect::Nothing);
    view
}

fn link(index: u32, name: &str, up: bool) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    if up {
        message.header.flags = LinkFlags::Up;
    }
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    RouteNetlinkMessage::NewLink(message)
}

fn prefix(text: &str) -> Prefix {
    let (address, len) = text.split_once('/').unwrap();
    Prefix::new(address.parse().unwrap(), len.parse().unwrap()).unwrap()
}

fn via(gateway: &str) -> RouteEntry {
    RouteEntry::Via { port: PORT, gateway: Some(gateway.parse().unwrap()) }
}

fn route(to: &str, gateway: Option<&str>, index: u32, metric: u32) -> RouteMessage {
    let to = prefix(to);
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = to.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    message.header.protocol = RouteProtocol::Static;
    if to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(to.address())));
    }
    if let Some(gateway) = gateway {
        let gateway = RouteAddress::Inet(gateway.parse().unwrap());
        message.attributes.push(RouteAttribute::Gateway(gateway));
    }
    message.attributes.push(RouteAttribute::Oif(index));
    if metric > 0 {
        message.attributes.push(RouteAttribute::Priority(metric));
    }
    message
}

#[test]
fn the_lowest_metric_wins_and_the_next_takes_over() {
    let mut view = view();
    let default = prefix("0.0.0.0/0");
    let low = RouteNetlinkMessage::NewRoute(route("0.0.0.0/0", Some("10.0.0.1"), TWIN, 10));
    let high = RouteNetlinkMessage::NewRoute(route("0.0.0.0/0", Some("10.0.0.2"), TWIN, 20));
    assert_eq!(view.apply(&high, 0), Effect::Route(default));
    assert_eq!(view.route(default), Some(via("10.0.0.2")));
    view.apply(&low, 0);
    assert_eq!(view.route(default), Some(via("10.0.0.1")));
    let gone = RouteNetlinkMessage::DelRoute(route("0.0.0.0/0", Some("10.0.0.1"), TWIN, 10));
    view.apply(&gone, 0);
    assert_eq!(view.route(default), Some(via("10.0.0.2")));
    let gone = RouteNetlinkMessage::DelRoute(route("0.0.0.0/0", Some("10.0.0.2"), TWIN, 20));
    view.apply(&gone, 0);
    assert_eq!(view.route(default), None);
    assert!(view.routes.is_empty());
}

#[test]
fn a_replaced_route_leaves_nothing_of_the_old_one() {
    let mut view = view();
    let to = prefix("10.9.0.0/16");
    let add = |gateway| RouteNetlinkMessage::NewRoute(route("10.9.0.0/16", Some(gateway), TWIN, 0));
    view.apply(&add("10.0.0.1"), 0);
    view.apply(&add("10.0.0.2"), NLM_F_REPLACE);
    assert_eq!(view.route(to), Some(via("10.0.0.2")));
    let gone = RouteNetlinkMessage::DelRoute(route("10.9.0.0/16", Some("10.0.0.2"), TWIN, 0));
    view.apply(&gone, 0);
    assert_eq!(view.route(to), None);
}

#[test]
fn an_appended_route_waits_behind_the_first() {
    let mut view = view();
    let to = prefix("10.9.0.0/16");
    let add = |gateway| RouteNetlinkMessage::NewRoute(route("10.9.0.0/16", Some(gateway), TWIN, 0));
    view.apply(&add("10.0.0.1"), 0);
    view.apply(&add("10.0.0.2"), NLM_F_APPEND);
    assert_eq!(view.route(to), Some(via("10.0.0.1")));
    view.apply(&add("10.0.0.3"), 0);
    assert_eq!(view.route(to), Some(via("10.0.0.3")));
}

#[test]
fn routes_of_other_links_and_tables_do_not_count() {
    let mut view = view();
    let other = RouteNetlinkMessage::NewRoute(route("10.9.0.0/16", Some("10.0.0.1"), 8, 0));
    assert_eq!(view.apply(&other, 0), Effect::Nothing);
    let mut table = route("10.9.0.0/16", Some("10.0.0.1"), TWIN, 0);
    table.attributes.push(RouteAttribute::Table(100));
    assert_eq!(view.apply(&RouteNetlinkMessage::NewRoute(table), 0), Effect::Nothing);
}

#[test]
fn a_blackhole_is_unreachable_and_a_multipath_route_goes_by_its_first_hop() {
    let mut view = view();
    let mut blackhole = route("10.8.0.0/16", None, TWIN, 0);
    blackhole.header.kind = RouteType::BlackHole;
    blackhole.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Oif(_)));
    view.apply(&RouteNetlinkMessage::NewRoute(blackhole), 0);
    assert_eq!(view.route(prefix("10.8.0.0/16")), Some(RouteEntry::Unreachable));

    let hop = |gateway: &str| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = TWIN;
        let gateway = RouteAddress::Inet(gateway.parse().unwrap());
        hop.attributes.push(RouteAttribute::Gateway(gateway));
        hop
    };
    let mut multipath = route("10.7.0.0/16", None, TWIN, 0);
    multipath.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Oif(_)));
    multipath.attributes.push(RouteAttribute::MultiPath(vec![hop("10.0.0.5"), hop("10.0.0.6")]));
    view.apply(&RouteNetlinkMessage::NewRoute(multipath), 0);
    assert_eq!(view.route(prefix("10.7.0.0/16")), Some(via("10.0.0.5")));
}

fn local(address: &str, index: u32, kind: RouteType) -> RouteMessage {
    let mut message = route(&format!("{address}/32"), None, index, 0);
    message.header.table = 255;
    message.header.kind = kind;
    message
}

#[test]
fn local_addresses_are_those_of_twins_and_of_lo_but_not_127() {
    let mut view = view();
    for (address, index, kind, expected) in [
        ("10.0.0.2", TWIN, RouteType::Local, Some(KernelLocal { broadcast: false })),
        ("10.0.0.255", TWIN, RouteType::Broadcast, Some(KernelLocal { broadcast: true })),
        ("192.0.2.1", LO, RouteType::Local, Some(KernelLocal { broadcast: false })),
        ("127.0.0.1", LO, RouteType::Local, None),
        ("10.5.0.1", 8, RouteType::Local, None),
    ] {
        view.apply(&RouteNetlinkMessage::NewRoute(local(address, index, kind)), 0);
        assert_eq!(view.local(address.parse().unwrap()), expected, "{address}");
    }
    view.apply(&RouteNetlinkMessage::DelRoute(local("10.0.0.2", TWIN, RouteType::Local)), 0);
    assert_eq!(view.local("10.0.0.2".parse().unwrap()), None);
}

fn neighbor(address: &str, state: NeighbourState, mac: Option<[u8; 6]>) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = TWIN;
    message.header.state = state;
    let address = NeighbourAddress::Inet(address.parse().unwrap());
    message.attributes.push(NeighbourAttribute::Destination(address));
    if let Some(mac) = mac {
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    }
    RouteNetlinkMessage::NewNeighbour(message)
}

#[test]
fn a_neighbour_counts_while_the_kernel_would_send_to_it() {
    let mut view = view();
    let key = (TWIN, Ipv4Addr::new(10, 0, 0, 9));
    let mac = [2, 0, 0, 0, 0, 9];
    use NeighbourState::*;
    for (state, usable) in [
        (Incomplete, false),
        (Reachable, true),
        (Stale, true),
        (Delay, true),
        (Probe, true),
        (Failed, false),
        (Permanent, true),
        (Noarp, true),
        (None, false),
    ] {
        view.apply(&neighbor("10.0.0.9", state, Some(mac)), 0);
        let (_, entry) = view.neighbor(key).unwrap();
        assert_eq!(entry.is_some(), usable, "{state:?}");
    }
    view.apply(&neighbor("10.0.0.9", Reachable, Option::None), 0);
    assert_eq!(view.neighbor(key).unwrap().1, Option::None);
    view.apply(&neighbor("10.0.0.9", Noarp, Some([0x01, 0, 0x5e, 0, 0, 1])), 0);
    assert_eq!(view.neighbor(key).unwrap().1, Option::None);
}

#[test]
fn what_silently_takes_routes_along_asks_for_a_dump() {
    let mut view = view();
    assert_eq!(view.apply(&link(TWIN, "hp-core", true), 0), Effect::Nothing);
    assert_eq!(view.apply(&link(TWIN, "hp-core", false), 0), Effect::Resync);
    let mut address = AddressMessage::default();
    address.header.index = TWIN;
    assert_eq!(view.apply(&RouteNetlinkMessage::DelAddress(address.clone()), 0), Effect::Resync);
    address.header.index = 8;
    assert_eq!(view.apply(&RouteNetlinkMessage::DelAddress(address), 0), Effect::Nothing);
    assert_eq!(view.apply(&link(TWIN, "renamed", true), 0), Effect::Resync);
    assert!(view.links.is_empty());
}

#[test]
fn a_dump_tells_only_what_differs() {
    let mut view = view();
    let mut told = Told::default();
    let mut changes = VecDeque::new();
    let kept = RouteNetlinkMessage::NewRoute(route("10.1.0.0/16", Some("10.0.0.1"), TWIN, 0));
    let gone = RouteNetlinkMessage::NewRoute(route("10.2.0.0/16", Some("10.0.0.1"), TWIN, 0));
    view.apply(&kept, 0);
    view.apply(&gone, 0);
    told.replace(&view, &mut changes);
    assert_eq!(changes.len(), 3);
    changes.clear();
    view.routes.remove(&(prefix("10.2.0.0/16"), 0, 0));
    let new = RouteNetlinkMessage::NewRoute(route("10.3.0.0/16", None, TWIN, 0));
    view.apply(&new, 0);
    told.replace(&view, &mut changes);
    let on_link = RouteEntry::Via { port: PORT, gateway: None };
    assert_eq!(
        changes,
        [
            Change::Route(prefix("10.2.0.0/16"), None),
            Change::Route(prefix("10.3.0.0/16"), Some(on_link)),
        ]
    );
}
