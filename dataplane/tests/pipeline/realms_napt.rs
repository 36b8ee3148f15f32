//! Overlapping address realms at a foreign agent, the part that is translated: rows
//! S3-11, S3-13, S3-14 and S3-15.

use homeport_dataplane::napt::NaptConfig;
use homeport_dataplane::table::local::LocalEntry;
use homeport_dataplane::table::visitor::{ReverseTunnel, VisitorEntry, VisitorKey};
use homeport_dataplane::verdict::DropReason;
use homeport_dataplane::{MacAddress, PortId};
use homeport_wire::icmpv4::TIME_EXCEEDED;
use homeport_wire::{IpProtocol, UdpHeader};
use zerocopy::{FromBytes, IntoBytes};

use crate::harness::*;
use crate::realms::{CARE_OF, GUESTS, Guest, NODE};
use crate::walk::ROUTER;

/// The agent's address on the visited link, which visitors have towards the site.
const TEMPORARY: &str = "10.2.0.1";
/// Correspondents of the visited network; the second is behind port 2.
const LOCAL: &str = "10.2.0.77";
const SITE: &str = "10.3.0.88";

/// The station of each host of the visited network.
fn host(address: &str) -> (usize, MacAddress) {
    match address {
        LOCAL => (1, station(77)),
        SITE => (2, station(88)),
        // The one with the visitors' own address.
        _ => (1, station(99)),
    }
}

/// A foreign agent with the visited link as port 1 and more of the visited network
/// behind port 2.
fn foreign_agent(style: ReverseTunnel) -> Rig {
    let mut plan = Plan::ports(3);
    let napt = NaptConfig::new("site", Vec::new(), PortId(1), vec![ip(TEMPORARY)]);
    plan.config.napts = vec![napt];
    let mut rig = plan.build();
    rig.foreign_agent(CARE_OF);
    rig.local(TEMPORARY, LocalEntry { agent: true, ..LocalEntry::default() });
    rig.route("0.0.0.0/0", 0, Some("10.0.2.1"));
    rig.route("10.2.0.0/24", 1, None);
    rig.route("10.3.0.0/24", 2, None);
    rig.neighbor(0, "10.0.2.1", station(ROUTER));
    rig.neighbor(1, LOCAL, host(LOCAL).1);
    rig.neighbor(2, SITE, host(SITE).1);
    for guest in &GUESTS {
        rig.visit(NODE, entry(guest, style));
    }
    for port in rig.control.ports.iter() {
        port.set_address(Some(ip(TEMPORARY)));
    }
    rig
}

/// The visited network has a host with the visitors' own address.
fn with_twin(style: ReverseTunnel) -> Rig {
    let mut rig = foreign_agent(style);
    rig.route("10.1.0.0/24", 1, None);
    rig.neighbor(1, NODE, host(NODE).1);
    rig
}

fn entry(guest: &Guest, style: ReverseTunnel) -> VisitorEntry {
    VisitorEntry { napt: Some(0), ..guest.entry(style) }
}

fn key(guest: &Guest) -> VisitorKey {
    VisitorKey { tenant: TENANT, home_address: ip(NODE), home_agent: ip(guest.agent) }
}

fn datagram(from: (&str, u16), to: (&str, u16), data: &[u8]) -> Ip {
    let header = UdpHeader::new((ip(from.0), from.1), (ip(to.0), to.1), data).unwrap();
    let payload = [header.as_bytes(), data].concat();
    Ip { protocol: IpProtocol::UDP, payload, ..Ip::data(from.0, to.0) }
}

/// Source and destination port, and the data.
fn read(packet: &Ip) -> (u16, u16, Vec<u8>) {
    let (udp, data) = UdpHeader::read_from_prefix(&packet.payload).unwrap();
    (udp.source_port(), udp.destination_port(), data.to_vec())
}

/// A guest's datagram from port 5000 to a host: the external port that the host sees.
fn speak(rig: &mut Rig, guest: &Guest, at: usize, to: &str) -> u16 {
    let packet = datagram((NODE, 5000), (to, 53), guest.tag);
    let sent = rig.exchange(at, &packet.frame(port_mac(at as u8), guest.station));
    let (port, mac) = host(to);
    let got = only(sent, port, mac);
    assert_eq!(got.ends(), (TEMPORARY.into(), to.into()), "hidden");
    let (external, remote, data) = read(&got);
    assert_eq!((remote, &data[..]), (53, guest.tag));
    external
}

/// A host's answer to an external port.
fn answer(rig: &mut Rig, from: &str, external: u16, data: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let (port, mac) = host(from);
    let packet = datagram((from, 53), (TEMPORARY, external), data);
    rig.exchange(port, &packet.frame(port_mac(port as u8), mac))
}

/// That what a host answers reaches this guest on this port, and nobody else.
fn assert_answered(rig: &mut Rig, guest: &Guest, at: usize, from: &str, external: u16) {
    let got = only(answer(rig, from, external, guest.tag), at, guest.station);
    assert_eq!(got.ends(), (from.into(), NODE.into()));
    assert_eq!(read(&got), (53, 5000, guest.tag.to_vec()));
}

/// S3-11: sessions of visitors with one address, and even one port, are told apart by
/// station: each answer goes to the one that began.
#[test]
fn local_sessions_of_visitors_with_one_address_are_told_apart_by_station() {
    for style in [ReverseTunnel::None, ReverseTunnel::Encapsulating] {
        for to in [LOCAL, SITE] {
            let mut rig = foreign_agent(style);
            let ports = GUESTS.each_ref().map(|guest| speak(&mut rig, guest, 1, to));
            for (one, other) in (0..9).map(|pair| (pair / 3, pair % 3)) {
                assert!(one == other || ports[one] != ports[other]);
                for number in [one, other, one] {
                    assert_answered(&mut rig, &GUESTS[number], 1, to, ports[number]);
                    assert_eq!(speak(&mut rig, &GUESTS[number], 1, to), ports[number]);
                }
            }
            // A stranger's answer is nobody's.
            let forged = datagram(("10.2.0.66", 53), (TEMPORARY, ports[0]), b"forged");
            let frame = forged.frame(port_mac(1), station(66));
            rig.assert_drops(1, &frame, DropReason::NatFiltered);
        }
    }
}

/// S3-11: who is no registered visitor gets no state, with a visitor's address or not.
#[test]
fn an_unknown_station_gets_no_state() {
    let mut rig = foreign_agent(ReverseTunnel::None);
    let counters = rig.control.napts[0].workers[0].clone();
    for source in [NODE, "10.1.0.11", "10.2.0.66"] {
        let packet = datagram((source, 5000), (SITE, 53), b"local");
        let sent = rig.exchange(1, &packet.frame(port_mac(1), station(50)));
        assert_eq!(only(sent, 2, host(SITE).1).ends(), (source.into(), SITE.into()));
    }
    let elsewhere = datagram((NODE, 5000), (LOCAL, 53), b"a visitor's station, another link");
    let frame = elsewhere.frame(port_mac(2), GUESTS[0].station);
    rig.assert_drops(2, &frame, DropReason::VisitorLinkMismatch);
    assert_eq!((counters.translated_out.get(), counters.opened.get()), (0, 0));
    speak(&mut rig, &GUESTS[0], 1, SITE);
    assert_eq!((counters.translated_out.get(), counters.opened.get()), (1, 1));
}

/// S3-11: a session outlives its visitor's registration. While the visitor is away
/// nobody gets what is for it; when it is back, on this link or on another link of
/// this box, it goes on with the same external port.
#[test]
fn a_session_survives_a_registration_that_ends_and_a_new_one() {
    let mut rig = foreign_agent(ReverseTunnel::None);
    let [guest, other, _] = &GUESTS;
    let (external, others) = (speak(&mut rig, guest, 1, SITE), speak(&mut rig, other, 1, SITE));
    assert!(rig.control.visitors.remove(&key(guest)));
    let late = datagram((SITE, 53), (TEMPORARY, external), guest.tag);
    let frame = late.frame(port_mac(2), host(SITE).1);
    rig.assert_drops(2, &frame, DropReason::NoVisitor);
    assert_answered(&mut rig, other, 1, SITE, others);
    for at in [1, 2, 0, 1] {
        let port = PortId(at as u16);
        rig.visit(NODE, VisitorEntry { port, ..entry(guest, ReverseTunnel::None) });
        assert_answered(&mut rig, guest, at, SITE, external);
        assert_eq!(speak(&mut rig, guest, at, SITE), external, "port {at}");
    }
    assert_answered(&mut rig, other, 1, SITE, others);
}

/// S3-13, S3-17: a visitor reaches a host with its own address, behind a temporary
/// one, and is answered; each of several does.
#[test]
fn a_local_host_with_the_visitors_own_address_is_reached_and_answers() {
    for style in [ReverseTunnel::Direct, ReverseTunnel::Encapsulating, ReverseTunnel::None] {
        let mut rig = with_twin(style);
        let ports = GUESTS.each_ref().map(|guest| speak(&mut rig, guest, 1, NODE));
        for (guest, external) in GUESTS.iter().zip(ports) {
            assert_answered(&mut rig, guest, 1, NODE, external);
        }
        // The host itself is no visitor: what it sends is routed, and hidden nowhere.
        let packet = datagram((NODE, 53), (SITE, 53), b"from the host");
        let sent = rig.exchange(1, &packet.frame(port_mac(1), host(NODE).1));
        assert_eq!(only(sent, 2, host(SITE).1).ends(), (NODE.into(), SITE.into()));
        // With the visitor goes the temporary address.
        assert!(rig.control.visitors.remove(&key(&GUESTS[0])));
        let late = datagram((NODE, 53), (TEMPORARY, ports[0]), b"late");
        let frame = late.frame(port_mac(1), host(NODE).1);
        rig.assert_drops(1, &frame, DropReason::NoVisitor);
    }
}

/// S3-17: where no other host has the address, or only the visitor itself answers for
/// it, there is nobody else to prefer.
#[test]
fn without_such_a_host_the_own_address_goes_as_all_else() {
    let mut rig = foreign_agent(ReverseTunnel::Direct);
    let [guest, other, _] = &GUESTS;
    let packet = datagram((NODE, 5000), (NODE, 53), guest.tag);
    let goes_home = |rig: &mut Rig| {
        let sent = rig.exchange(1, &guest.frame(&packet));
        let outer = only(sent, 0, station(ROUTER));
        assert_eq!(outer.ends(), (CARE_OF.into(), guest.agent.into()));
        assert_eq!(outer.inner().ends(), (NODE.into(), NODE.into()));
    };
    goes_home(&mut rig);
    rig.route("10.1.0.0/24", 1, None);
    for visitor in [guest, other] {
        rig.neighbor(1, NODE, visitor.station);
        goes_home(&mut rig);
    }
}

/// S3-15: what goes by a tunnel is never translated, though a NAPT is named.
#[test]
fn tunnel_traffic_of_visitors_has_no_napt() {
    let mut rig = foreign_agent(ReverseTunnel::Direct);
    for guest in &GUESTS {
        let packet = datagram((NODE, 5000), (SITE, 53), guest.tag);
        let sent = rig.exchange(1, &guest.frame(&packet));
        assert_eq!(only(sent, 0, station(ROUTER)).inner().bytes(), packet.ttl(63).bytes());
        let back = datagram((SITE, 53), (NODE, 5000), guest.tag).tunnelled(guest.agent, CARE_OF);
        let sent = rig.exchange(0, &back.frame(port_mac(0), station(ROUTER)));
        assert_eq!(only(sent, 1, guest.station).ends(), (SITE.into(), NODE.into()));
    }
    assert_eq!(rig.control.napts[0].workers[0].opened.get(), 0);
}

/// An ICMP error of ours about a visitor's packet goes to the station that sent it,
/// whether the packet was to be tunnelled or translated.
#[test]
fn an_error_about_a_visitors_packet_reaches_its_station() {
    for style in [ReverseTunnel::Direct, ReverseTunnel::None] {
        let mut rig = with_twin(style);
        for guest in &GUESTS {
            let packet = datagram((NODE, 5000), (SITE, 53), guest.tag).ttl(1);
            let sent = rig.exchange(1, &guest.frame(&packet));
            let error = only(sent, 1, guest.station);
            assert_eq!(error.payload[0], TIME_EXCEEDED);
            assert_eq!(error.payload[8..28], packet.bytes()[..20]);
        }
    }
}
