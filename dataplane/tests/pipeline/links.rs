//! What arrives on a link and is no mobile node's: for us, for the kernel, for
//! nobody.

use homeport_dataplane::table::local::LocalEntry;
use homeport_dataplane::verdict::{DropReason, PuntReason};
use homeport_dataplane::{MacAddress, PortId};
use homeport_wire::{EtherType, EthernetHeader, IpProtocol};
use zerocopy::IntoBytes;

use crate::harness::*;
use crate::walk::{ROUTER, foreign_agent, home_agent};

const AGENT: &str = "10.0.1.2";
const FAR: &str = "192.0.2.7";

fn from_core(packet: &Ip) -> Vec<u8> {
    packet.frame(port_mac(0), station(ROUTER))
}

#[test]
fn frames_of_other_stations_are_not_for_us() {
    let mut rig = home_agent();
    let frame = Ip::data(FAR, AGENT).frame(station(7), station(ROUTER));
    rig.assert_drops(0, &frame, DropReason::NotForUs);
    let arp = homeport_wire::ArpPacket::gratuitous(ip("10.0.1.1"), station(ROUTER));
    rig.assert_drops(0, &arp_frame(station(7), &arp), DropReason::NotForUs);
}

#[test]
fn malformed_frames_have_a_reason_each() {
    let mut rig = home_agent();
    let good = from_core(&Ip::data(FAR, AGENT));
    for len in 1..EthernetHeader::LEN {
        rig.assert_drops(0, &good[..len], DropReason::MalformedEthernet);
    }
    for len in EthernetHeader::LEN..good.len() {
        rig.assert_drops(0, &good[..len], DropReason::MalformedIpv4);
    }
    let mut wrong = good.clone();
    wrong[EthernetHeader::LEN + 8] ^= 1;
    rig.assert_drops(0, &wrong, DropReason::BadIpv4Checksum);
    let arp = homeport_wire::ArpPacket::gratuitous(ip("10.0.1.1"), station(ROUTER));
    let mut frame = arp_frame(MacAddress::BROADCAST, &arp);
    frame[EthernetHeader::LEN] = 7;
    rig.assert_drops(0, &frame, DropReason::MalformedArp);
}

#[test]
fn other_protocols_and_local_packets_go_to_the_kernel_as_they_came() {
    let mut rig = home_agent();
    let ipv6 = EthernetHeader::new(port_mac(0), station(ROUTER), EtherType(0x86dd));
    let frames = [
        [ipv6.as_bytes(), b"version six"].concat(),
        from_core(&Ip::icmp(FAR, AGENT, 8, b"ping")),
        from_core(&Ip::data(FAR, AGENT)),
        from_core(&Ip::udp(FAR, AGENT, (434, 5000))),
        // A fragment's ports are not believed; what we do not speak, the kernel puts
        // together.
        from_core(&Ip::data(FAR, AGENT).fragment(0, true)),
        from_core(&Ip::data(FAR, "224.0.0.5")),
        from_core(&Ip::icmp(FAR, "224.0.0.1", 9, b"advertisement")),
    ];
    for frame in frames {
        assert_eq!(rig.exchange(0, &frame), []);
        assert_eq!(rig.to_kernel(0), [frame]);
    }
    assert_eq!(rig.stats(0).to_kernel.get(), 7);
}

#[test]
fn link_layer_padding_does_not_travel_on() {
    let mut rig = home_agent();
    let data = Ip::data(FAR, "10.1.0.10").payload(b"short".to_vec());
    let mut frame = from_core(&data);
    frame.resize(60, 0xa5);
    let sent = rig.exchange(0, &frame);
    assert_eq!(sent[0].1.len(), 14 + 20 + 20 + 5);
    assert_eq!(only(sent, 0, station(ROUTER)).inner().payload, b"short");
}

#[test]
fn without_a_twin_what_is_for_the_kernel_is_dropped() {
    let mut rig = Plan { twins: false, ..Plan::ports(1) }.build();
    let frame = Ip::data(FAR, "224.0.0.5").frame(MacAddress::BROADCAST, station(ROUTER));
    rig.assert_drops(0, &frame, DropReason::NoKernelTwin);
}

/// RFC 1812 §5.3.7.
// Shows 2003-3.2-a.
#[test]
fn sources_that_no_packet_may_have_are_dropped() {
    let mut rig = home_agent();
    rig.local("10.0.1.255", LocalEntry { broadcast: true, ..LocalEntry::default() });
    for source in ["224.0.0.1", "255.255.255.255", "127.0.0.1", AGENT, "10.0.1.255"] {
        for destination in [FAR, AGENT, "255.255.255.255", "10.1.0.10"] {
            let frame = from_core(&Ip::data(source, destination));
            rig.assert_drops(0, &frame, DropReason::MartianSource);
        }
    }
    // A station without an address may speak to its link, and no further.
    let frame = from_core(&Ip::udp("0.0.0.0", "255.255.255.255", (68, 67)));
    assert_eq!(rig.exchange(0, &frame), []);
    assert_eq!(rig.to_kernel(0), [frame]);
    let frame = from_core(&Ip::udp("0.0.0.0", FAR, (68, 67)));
    rig.assert_drops(0, &frame, DropReason::NotForwarded);
}

/// RFC 1812 §5.3.4, RFC 3927 §7.
#[test]
fn what_belongs_to_a_link_stays_on_it() {
    let mut rig = home_agent();
    for (source, destination) in
        [("169.254.1.1", FAR), (FAR, "169.254.1.1"), (FAR, "127.0.0.1"), (FAR, "0.0.0.0")]
    {
        let frame = from_core(&Ip::data(source, destination));
        rig.assert_drops(0, &frame, DropReason::NotForwarded);
    }
    for destination in [FAR, "10.1.0.10"] {
        let frame = Ip::data(FAR, destination).frame(MacAddress::BROADCAST, station(ROUTER));
        rig.assert_drops(0, &frame, DropReason::NotForwarded);
    }
    let tunnel = Ip::data("10.1.0.10", FAR).tunnelled("10.0.2.2", AGENT);
    let frame = tunnel.frame(MacAddress::BROADCAST, station(ROUTER));
    rig.assert_drops(0, &frame, DropReason::NotForwarded);
}

/// RFC 5944 §3.6.1.1: to an agent, to the link's broadcast address, or to all
/// mobility agents.
// Shows 5944-2.3-c.
#[test]
fn registrations_are_punted_whole_with_their_port() {
    let mut rig = foreign_agent(Default::default());
    rig.local("10.2.0.1", LocalEntry { agent: true, ..LocalEntry::default() });
    rig.local("10.2.0.255", LocalEntry { broadcast: true, ..LocalEntry::default() });
    for destination in ["10.0.2.2", "10.2.0.1", "10.2.0.255", "255.255.255.255", "224.0.0.11"] {
        for source in ["10.1.0.10", "0.0.0.0", "10.2.0.77"] {
            let packet = Ip::udp(source, destination, (1434, 434));
            let mac = match destination {
                "224.0.0.11" => MacAddress::of_multicast(ip(destination)),
                "255.255.255.255" | "10.2.0.255" => MacAddress::BROADCAST,
                _ => port_mac(1),
            };
            let frame = packet.frame(mac, station(77));
            assert_eq!(rig.exchange(1, &frame), []);
            let punts = rig.punts();
            assert_eq!(punts.len(), 1, "{source} {destination}");
            let (header, bytes) = &punts[0];
            assert_eq!(header.reason(), Some(PuntReason::Registration));
            assert_eq!((header.port(), header.tenant()), (PortId(1), TENANT));
            assert_eq!(header.frame_len(), frame.len());
            assert_eq!(*bytes, frame);
        }
    }
    // At an address that is no agent's, and to another group, they are not ours.
    rig.local("10.2.0.9", LocalEntry::default());
    for destination in ["10.2.0.9", "224.0.0.5"] {
        rig.exchange(
            1,
            &Ip::udp("10.1.0.10", destination, (1434, 434)).frame(port_mac(1), station(77)),
        );
        assert_eq!(rig.punts(), []);
        assert_eq!(rig.to_kernel(1).len(), 1);
    }
    assert_eq!(rig.punted(PuntReason::Registration), 15);
}

// Shows 5944-2.3-c.
#[test]
fn solicitations_are_punted_from_nodes_with_and_without_an_address() {
    let mut rig = foreign_agent(Default::default());
    for (source, destination) in [
        ("0.0.0.0", "255.255.255.255"),
        ("10.1.0.10", "224.0.0.2"),
        ("10.1.0.10", "10.0.2.2"),
        ("169.254.3.3", "224.0.0.11"),
    ] {
        let frame = Ip::icmp(source, destination, 10, b"").frame(port_mac(1), station(77));
        assert_eq!(rig.exchange(1, &frame), []);
        let punts = rig.punts();
        assert_eq!(punts[0].0.reason(), Some(PuntReason::Solicitation));
        assert_eq!(punts[0].1, frame);
    }
}

/// RFC 5944 §3.7.2.3: the foreign agent learns that a home agent cannot be reached.
// Shows 5944-3.7.3-a, 2003-4.2-a, 2003-4.3-a.
#[test]
fn icmp_errors_about_registrations_are_punted_and_those_about_others_are_the_kernels() {
    let mut rig = home_agent();
    let request = Ip::udp(AGENT, FAR, (434, 434)).bytes();
    for kind in [3, 11, 12] {
        let error = Ip::icmp("10.0.9.9", AGENT, kind, &request[..28]);
        assert_eq!(rig.exchange(0, &from_core(&error)), []);
        assert_eq!(rig.punts()[0].0.reason(), Some(PuntReason::TunnelIcmp));
    }
    let tunnelled = Ip::data(FAR, "10.1.0.10").tunnelled(AGENT, "10.0.2.2").bytes();
    let not_ours = Ip::data(FAR, "10.1.0.10").tunnelled("10.0.1.3", "10.0.2.2").bytes();
    let no_tunnel = Ip { protocol: IpProtocol::UDP, ..Ip::data(AGENT, FAR) }.bytes();
    let reply = Ip::udp(AGENT, FAR, (434, 1434)).bytes();
    for (kind, quote) in [
        (3, &not_ours[..28]),
        (3, &no_tunnel[..28]),
        (3, &tunnelled[..19]),
        (3, &reply[..28]),
        (4, &tunnelled[..28]),
        (5, &tunnelled[..28]),
    ] {
        let error = Ip::icmp("10.0.9.9", AGENT, kind, quote);
        assert_eq!(rig.exchange(0, &from_core(&error)), []);
        assert_eq!(rig.punts(), []);
        assert_eq!(rig.to_kernel(0).len(), 1);
    }
}
