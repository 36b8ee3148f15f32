//! The server against messages that `dhcproto` writes as clients do.

use super::*;
use crate::mobile::dhcp_answer::SHORTEST;
use dhcproto::v4::{DhcpOption, Flags, Message, OptionCode};
use dhcproto::{Decodable, Encodable};
use proptest::prelude::*;

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LEASE: Duration = Duration::from_secs(120);

const fn at(seconds: u64) -> Instant {
    Instant(seconds * 1_000_000_000)
}

fn mac(number: u16) -> MacAddress {
    let [high, low] = number.to_be_bytes();
    MacAddress([2, 0, 0, 0, high, low])
}

fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, number)
}

fn config() -> ServerConfig {
    ServerConfig {
        router: ROUTER,
        prefix: Prefix::new(ROUTER, 24).unwrap(),
        rule: SubNaiRule::ClientId,
        lease: LEASE,
        max_devices: 64,
        name_servers: vec![host(53)],
    }
}

fn server() -> DhcpServer {
    DhcpServer::new(config())
}

fn message(from: MacAddress, kind: MessageType, options: &[DhcpOption]) -> Message {
    let mut message = Message::new_with_id(7, NOBODY, NOBODY, NOBODY, NOBODY, &from.0);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    options.iter().for_each(|option| drop(message.opts_mut().insert(option.clone())));
    message
}

fn hear(server: &mut DhcpServer, from: MacAddress, message: &Message, now: Instant) {
    server.handle_message(&message.to_vec().unwrap(), from, now);
}

fn id(text: &str) -> DhcpOption {
    DhcpOption::ClientIdentifier([&[0], text.as_bytes()].concat())
}

fn discover(server: &mut DhcpServer, from: MacAddress, now: Instant) {
    hear(server, from, &message(from, MessageType::Discover, &[]), now);
}

/// A request as after an offer.
fn request(server: &mut DhcpServer, from: MacAddress, address: Ipv4Addr, now: Instant) {
    let options = [DhcpOption::RequestedIpAddress(address), DhcpOption::ServerIdentifier(ROUTER)];
    hear(server, from, &message(from, MessageType::Request, &options), now);
}

/// A request as after a boot.
fn reboot(server: &mut DhcpServer, from: MacAddress, address: Ipv4Addr, now: Instant) {
    let wanted = [DhcpOption::RequestedIpAddress(address)];
    hear(server, from, &message(from, MessageType::Request, &wanted), now);
}

fn renew(server: &mut DhcpServer, from: MacAddress, address: Ipv4Addr, now: Instant) {
    let mut message = message(from, MessageType::Request, &[]);
    message.set_ciaddr(address);
    hear(server, from, &message, now);
}

fn release(server: &mut DhcpServer, from: MacAddress, address: Ipv4Addr, now: Instant) {
    let mut message = message(from, MessageType::Release, &[DhcpOption::ServerIdentifier(ROUTER)]);
    message.set_ciaddr(address);
    hear(server, from, &message, now);
}

fn decline(server: &mut DhcpServer, from: MacAddress, address: Ipv4Addr, now: Instant) {
    let options = [DhcpOption::RequestedIpAddress(address), DhcpOption::ServerIdentifier(ROUTER)];
    hear(server, from, &message(from, MessageType::Decline, &options), now);
}

/// The session that begins now, and the address that it wants.
fn started(server: &mut DhcpServer) -> (Arc<[u8]>, Option<Ipv4Addr>) {
    match server.poll_output() {
        Some(Output::Session(SessionWish::Start { sub_nai, wanted })) => (sub_nai, wanted),
        other => panic!("{other:?}"),
    }
}

fn ended(server: &mut DhcpServer) -> Arc<[u8]> {
    match server.poll_output() {
        Some(Output::Session(SessionWish::End { sub_nai })) => sub_nai,
        other => panic!("{other:?}"),
    }
}

/// The message that is sent now, of this kind.
fn sent(server: &mut DhcpServer, kind: MessageType) -> (Message, Station) {
    match server.poll_output() {
        Some(Output::Send { to, payload }) => {
            assert!(payload.len() >= SHORTEST);
            let message = Message::from_bytes(&payload).unwrap();
            assert_eq!(message.opts().msg_type(), Some(kind), "{message:?}");
            (message, to)
        }
        other => panic!("{other:?}"),
    }
}

fn quiet(server: &mut DhcpServer) {
    assert_eq!(server.poll_output(), None);
}

/// A device with a lease of `address`, which it got at `now`.
fn bind(server: &mut DhcpServer, from: MacAddress, address: Ipv4Addr, now: Instant) -> Arc<[u8]> {
    discover(server, from, now);
    let (name, _) = started(server);
    assert!(server.handle_address(&name, address, now));
    sent(server, MessageType::Offer);
    request(server, from, address, now);
    sent(server, MessageType::Ack);
    name
}

// Shows S1-02, S1-13.
#[test]
fn a_device_that_asks_starts_a_session_and_gets_its_address() {
    let mut server = server();
    discover(&mut server, mac(1), at(0));
    let (name, wanted) = started(&mut server);
    assert_eq!((&*name, wanted), (&b"02:00:00:00:00:01"[..], None));
    quiet(&mut server);
    assert!(server.handle_address(&name, host(20), at(1)));
    let (offer, to) = sent(&mut server, MessageType::Offer);
    assert_eq!(offer.yiaddr(), host(20));
    assert_eq!(to, Station { mac: mac(1), address: host(20) });
    assert_eq!(offer.xid(), 7);
    request(&mut server, mac(1), host(20), at(1));
    let (ack, _) = sent(&mut server, MessageType::Ack);
    assert_eq!((ack.yiaddr(), ack.ciaddr()), (host(20), NOBODY));
    let options = [
        DhcpOption::ServerIdentifier(ROUTER),
        DhcpOption::AddressLeaseTime(120),
        DhcpOption::Renewal(60),
        DhcpOption::Rebinding(105),
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::Router(vec![ROUTER]),
        DhcpOption::DomainNameServer(vec![host(53)]),
    ];
    for option in options {
        assert!(ack.opts().iter().any(|(_, it)| *it == option), "{option:?}");
    }
    let lease = server.lease(&name).unwrap();
    assert_eq!(lease, Lease { mac: mac(1), expires_at: Some(at(121)) });
    renew(&mut server, mac(1), host(20), at(61));
    let (ack, to) = sent(&mut server, MessageType::Ack);
    assert_eq!((ack.ciaddr(), to), (host(20), Station { mac: mac(1), address: host(20) }));
    assert_eq!(server.lease(&name).unwrap().expires_at, Some(at(181)));
}

#[test]
fn who_hears_only_broadcasts_is_answered_by_broadcast() {
    let mut server = server();
    let mut deaf = message(mac(1), MessageType::Discover, &[id("deaf")]);
    deaf.set_flags(Flags::default().set_broadcast());
    hear(&mut server, mac(1), &deaf, at(0));
    let (name, _) = started(&mut server);
    server.handle_address(&name, host(20), at(0));
    let (offer, to) = sent(&mut server, MessageType::Offer);
    let all = Station { mac: MacAddress::BROADCAST, address: Ipv4Addr::BROADCAST };
    assert_eq!(to, all);
    assert!(offer.flags().broadcast());
    // RFC 6842: what it calls itself comes back.
    assert!(offer.opts().iter().any(|(_, option)| *option == id("deaf")));
}

// Shows S1-05.
#[test]
fn a_session_is_named_by_client_identifier_host_name_or_hardware_address() {
    let named = [id("\u{1f}x"), DhcpOption::Hostname("phone".into())];
    // Some send the zero at the end of a text of C.
    let ended = [DhcpOption::Hostname("phone\0".into())];
    let of_mac = [DhcpOption::ClientIdentifier([&[1], &mac(1).0[..]].concat())];
    let cases: [(SubNaiRule, &[DhcpOption], &[u8]); 9] = [
        (SubNaiRule::ClientId, &named, b"\0\x1fx"),
        (SubNaiRule::ClientId, &named[1..], b"02:00:00:00:00:01"),
        (SubNaiRule::ClientId, &of_mac, b"02:00:00:00:00:01"),
        (SubNaiRule::HostName, &named, b"phone"),
        (SubNaiRule::HostName, &ended, b"phone"),
        (SubNaiRule::HostName, &named[..1], b"\0\x1fx"),
        (SubNaiRule::HostName, &[], b"02:00:00:00:00:01"),
        (SubNaiRule::Mac, &named, b"02:00:00:00:00:01"),
        (SubNaiRule::Mac, &[], b"02:00:00:00:00:01"),
    ];
    for (rule, options, name) in cases {
        let mut server = DhcpServer::new(ServerConfig { rule, ..config() });
        hear(&mut server, mac(1), &message(mac(1), MessageType::Discover, options), at(0));
        assert_eq!(&*started(&mut server).0, name, "{rule:?} {options:?}");
    }
    let mut server = server();
    for (len, starts) in [(247, true), (248, false)] {
        let option = [DhcpOption::ClientIdentifier(vec![9; len])];
        let from = mac(u16::try_from(len).unwrap());
        hear(&mut server, from, &message(from, MessageType::Discover, &option), at(0));
        assert_eq!(server.poll_output().is_some(), starts, "{len}");
    }
    assert_eq!(server.counters().dhcp_name_too_long, 1);
}

// Shows S1-14.
#[test]
fn after_a_restart_a_device_keeps_its_address_if_the_home_agent_gives_it_again() {
    type Ask = fn(&mut DhcpServer, MacAddress, Ipv4Addr, Instant);
    let asks: [Ask; 3] = [reboot, renew, request];
    for ask in asks {
        for (given, kind) in [(host(20), MessageType::Ack), (host(21), MessageType::Nak)] {
            let mut server = server();
            ask(&mut server, mac(1), host(20), at(0));
            let (name, wanted) = started(&mut server);
            assert_eq!(wanted, Some(host(20)));
            quiet(&mut server);
            assert!(server.handle_address(&name, given, at(1)));
            let (answer, to) = sent(&mut server, kind);
            if kind == MessageType::Nak {
                assert_eq!(to.mac, MacAddress::BROADCAST);
                assert_eq!(answer.yiaddr(), NOBODY);
                // It begins anew, and is offered what the session has.
                discover(&mut server, mac(1), at(2));
                assert_eq!(sent(&mut server, MessageType::Offer).0.yiaddr(), given);
            } else {
                assert_eq!(answer.yiaddr(), given);
            }
            quiet(&mut server);
        }
    }
}

#[test]
fn an_address_of_elsewhere_is_refused_at_once_and_not_wished_for() {
    let mut server = server();
    let elsewhere = Ipv4Addr::new(192, 168, 1, 7);
    for address in [elsewhere, ROUTER, host(0), host(255)] {
        reboot(&mut server, mac(1), address, at(0));
        sent(&mut server, MessageType::Nak);
        quiet(&mut server);
    }
    let wish = [DhcpOption::RequestedIpAddress(elsewhere)];
    hear(&mut server, mac(1), &message(mac(1), MessageType::Discover, &wish), at(60));
    assert_eq!(started(&mut server).1, None);
}

#[test]
fn a_released_address_ends_the_session() {
    let mut server = server();
    let name = bind(&mut server, mac(1), host(20), at(0));
    // Not its own, and not by a stranger's word.
    release(&mut server, mac(1), host(21), at(1));
    release(&mut server, mac(2), host(20), at(1));
    quiet(&mut server);
    assert_eq!(server.counters().dhcp_not_theirs, 2);
    release(&mut server, mac(1), host(20), at(1));
    assert_eq!(ended(&mut server), name);
    release(&mut server, mac(1), host(20), at(1));
    quiet(&mut server);
    // The address is free for the next one.
    bind(&mut server, mac(2), host(20), at(2));
}

#[test]
fn a_declined_address_ends_the_session_and_the_device_waits() {
    let mut server = server();
    let name = bind(&mut server, mac(1), host(20), at(0));
    decline(&mut server, mac(1), host(21), at(1));
    quiet(&mut server);
    decline(&mut server, mac(1), host(20), at(1));
    assert_eq!(ended(&mut server), name);
    discover(&mut server, mac(1), at(10));
    quiet(&mut server);
    assert_eq!(server.counters().dhcp_held, 1);
    server.handle_timeout(at(11));
    discover(&mut server, mac(1), at(11));
    started(&mut server);
}

#[test]
fn a_lease_that_runs_out_ends_the_session() {
    let mut server = server();
    let name = bind(&mut server, mac(1), host(20), at(0));
    assert_eq!(server.poll_timeout(), Some(at(120)));
    server.handle_timeout(at(119));
    quiet(&mut server);
    server.handle_timeout(at(120));
    assert_eq!(ended(&mut server), name);
    assert_eq!(server.counters().dhcp_expired, 1);
    assert_eq!((server.poll_timeout(), server.lease(&name)), (None, None));
    // Who renews too late begins as after a restart.
    renew(&mut server, mac(1), host(20), at(121));
    assert_eq!(started(&mut server).1, Some(host(20)));
}

#[test]
fn who_asks_and_goes_away_is_forgotten() {
    let mut server = server();
    discover(&mut server, mac(1), at(0));
    let (name, _) = started(&mut server);
    discover(&mut server, mac(1), at(30));
    server.handle_timeout(at(60));
    quiet(&mut server);
    server.handle_timeout(at(90));
    assert_eq!(ended(&mut server), name);
    discover(&mut server, mac(1), at(100));
    let (name, _) = started(&mut server);
    server.handle_address(&name, host(20), at(101));
    sent(&mut server, MessageType::Offer);
    server.handle_timeout(at(121));
    assert_eq!(ended(&mut server), name);
    assert_eq!(server.counters().dhcp_expired, 0);
}

#[test]
fn another_servers_offer_ends_the_session() {
    let mut server = server();
    discover(&mut server, mac(1), at(0));
    let (name, _) = started(&mut server);
    let options = [
        DhcpOption::RequestedIpAddress(host(77)),
        DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 1, 0, 2)),
    ];
    hear(&mut server, mac(1), &message(mac(1), MessageType::Request, &options), at(1));
    assert_eq!(ended(&mut server), name);
    quiet(&mut server);
}

#[test]
fn a_device_with_an_address_of_its_own_is_told_the_rest_and_leased_nothing() {
    let mut server = server();
    let mut inform = message(mac(1), MessageType::Inform, &[]);
    inform.set_ciaddr(host(99));
    hear(&mut server, mac(1), &inform, at(0));
    let (ack, to) = sent(&mut server, MessageType::Ack);
    assert_eq!(to, Station { mac: mac(1), address: host(99) });
    assert_eq!((ack.yiaddr(), ack.opts().get(OptionCode::AddressLeaseTime)), (NOBODY, None));
    assert!(ack.opts().contains(OptionCode::Router));
    inform.set_ciaddr(Ipv4Addr::new(192, 168, 1, 7));
    hear(&mut server, mac(1), &inform, at(0));
    quiet(&mut server);
}

#[test]
fn a_name_belongs_to_its_first_device_while_its_lease_lives() {
    let mut server = server();
    let named = |from| message(from, MessageType::Discover, &[id("camera")]);
    hear(&mut server, mac(1), &named(mac(1)), at(0));
    let (name, _) = started(&mut server);
    server.handle_address(&name, host(20), at(0));
    sent(&mut server, MessageType::Offer);
    hear(&mut server, mac(2), &named(mac(2)), at(1));
    let forged = [id("camera"), DhcpOption::RequestedIpAddress(host(20))];
    hear(&mut server, mac(2), &message(mac(2), MessageType::Request, &forged), at(1));
    let fresh = [id("camera"), DhcpOption::RequestedIpAddress(host(21))];
    hear(&mut server, mac(3), &message(mac(3), MessageType::Request, &fresh), at(1));
    // The address is known to be another's: that one is told so, and gets none.
    sent(&mut server, MessageType::Nak);
    quiet(&mut server);
    assert_eq!(server.counters().dhcp_name_taken, 2);
    assert_eq!(server.lease(&name).unwrap().mac, mac(1));
    server.handle_timeout(at(20));
    assert_eq!(ended(&mut server), name);
    hear(&mut server, mac(2), &named(mac(2)), at(21));
    assert_eq!(started(&mut server).0, name);
}

#[test]
fn no_address_is_two_devices() {
    let mut server = server();
    bind(&mut server, mac(1), host(20), at(0));
    discover(&mut server, mac(2), at(0));
    let (name, _) = started(&mut server);
    for address in [host(20), ROUTER, host(255), Ipv4Addr::new(10, 9, 0, 20)] {
        assert!(!server.handle_address(&name, address, at(1)), "{address}");
        if address == host(20) {
            assert_eq!(ended(&mut server), name);
        }
        quiet(&mut server);
    }
    for address in [ROUTER, host(255), Ipv4Addr::new(10, 9, 0, 20)] {
        let from = mac(u16::from(address.octets()[3]) + 100);
        discover(&mut server, from, at(1));
        let (name, _) = started(&mut server);
        assert!(!server.handle_address(&name, address, at(1)), "{address}");
        assert_eq!(ended(&mut server), name);
    }
    assert_eq!(server.counters().dhcp_unusable, 4);
    reboot(&mut server, mac(3), host(20), at(1));
    sent(&mut server, MessageType::Nak);
    quiet(&mut server);
}

#[test]
fn a_session_that_changes_its_address_is_told_when_it_renews() {
    let mut server = server();
    let name = bind(&mut server, mac(1), host(20), at(0));
    assert!(server.handle_address(&name, host(20), at(1)));
    quiet(&mut server);
    assert!(server.handle_address(&name, host(21), at(2)));
    quiet(&mut server);
    renew(&mut server, mac(1), host(20), at(60));
    sent(&mut server, MessageType::Nak);
    discover(&mut server, mac(1), at(61));
    assert_eq!(sent(&mut server, MessageType::Offer).0.yiaddr(), host(21));
    // What it had is free.
    bind(&mut server, mac(2), host(20), at(62));
}

#[test]
fn another_name_is_another_session() {
    let mut server = server();
    let name = bind(&mut server, mac(1), host(20), at(0));
    let other = message(mac(1), MessageType::Discover, &[id("second system")]);
    hear(&mut server, mac(1), &other, at(1));
    assert_eq!(ended(&mut server), name);
    let (other, _) = started(&mut server);
    assert_ne!(other, name);
    server.handle_address(&other, host(21), at(1));
    sent(&mut server, MessageType::Offer);
    renew(&mut server, mac(1), host(21), at(2));
    sent(&mut server, MessageType::Nak);
}

#[test]
fn a_session_that_loses_its_address_is_offered_the_next_one() {
    let mut server = server();
    let name = bind(&mut server, mac(1), host(20), at(0));
    server.handle_loss(&name);
    quiet(&mut server);
    assert_eq!(server.lease(&name), Some(Lease { mac: mac(1), expires_at: None }));
    // What it had is free.
    bind(&mut server, mac(2), host(20), at(1));
    renew(&mut server, mac(1), host(20), at(60));
    quiet(&mut server);
    server.handle_address(&name, host(21), at(61));
    sent(&mut server, MessageType::Nak);
    discover(&mut server, mac(1), at(61));
    assert_eq!(sent(&mut server, MessageType::Offer).0.yiaddr(), host(21));

    server.handle_loss(&name);
    server.handle_address(&name, host(22), at(62));
    quiet(&mut server);
    request(&mut server, mac(1), host(21), at(63));
    sent(&mut server, MessageType::Nak);
}

#[test]
fn a_session_that_cannot_begin_is_begun_when_the_device_asks_again() {
    let mut server = server();
    discover(&mut server, mac(1), at(0));
    let (name, _) = started(&mut server);
    server.handle_refusal(&name, at(0));
    quiet(&mut server);
    assert_eq!((server.counters().dhcp_not_begun, server.lease(&name)), (1, None));
    discover(&mut server, mac(1), at(4));
    assert_eq!(started(&mut server).0, name);
}

#[test]
fn a_device_that_is_gone_and_a_lan_that_is_gone_end_sessions() {
    let mut server = server();
    let first = bind(&mut server, mac(1), host(20), at(0));
    let second = bind(&mut server, mac(2), host(21), at(0));
    let third = bind(&mut server, mac(3), host(22), at(0));
    server.handle_absence(host(21), at(1));
    server.handle_absence(host(99), at(1));
    assert_eq!(ended(&mut server), second);
    quiet(&mut server);
    server.end_all(at(2));
    assert_eq!([ended(&mut server), ended(&mut server)], [first, third]);
    quiet(&mut server);
}

#[test]
fn a_thousand_devices_get_an_address_each_and_no_more_come() {
    let prefix = Prefix::new(Ipv4Addr::new(10, 1, 0, 0), 16).unwrap();
    let mut server = DhcpServer::new(ServerConfig { max_devices: 1000, prefix, ..config() });
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..1000 {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 1, 0).to_bits() + u32::from(number));
        bind(&mut server, mac(number), address, at(0));
        seen.insert(address);
    }
    assert_eq!(seen.len(), 1000);
    discover(&mut server, mac(1000), at(1));
    quiet(&mut server);
    assert_eq!(server.counters().dhcp_full, 1);
    // One that has gone makes room.
    release(&mut server, mac(7), Ipv4Addr::new(10, 1, 1, 7), at(1));
    ended(&mut server);
    discover(&mut server, mac(1000), at(1));
    started(&mut server);
}

#[test]
fn a_flood_is_counted_and_leaves_the_others_their_addresses() {
    let mut server = server();
    let name = bind(&mut server, mac(1), host(20), at(0));
    // One device.
    for _ in 0..100 {
        discover(&mut server, mac(2), at(1));
    }
    let (mut starts, mut ends, mut sends) = (0, 0, 0);
    let mut drain = |server: &mut DhcpServer| {
        while let Some(output) = server.poll_output() {
            match output {
                Output::Session(SessionWish::Start { .. }) => starts += 1,
                Output::Session(SessionWish::End { .. }) => ends += 1,
                Output::Send { .. } => sends += 1,
            }
        }
    };
    drain(&mut server);
    assert_eq!(server.counters().dhcp_too_fast, 92);
    // Ten thousand that do not exist.
    for number in 100..10_100 {
        discover(&mut server, mac(number), at(2));
    }
    drain(&mut server);
    assert_eq!((starts, ends, sends), (63, 0, 0));
    let counters = *server.counters();
    assert_eq!(counters.dhcp_starts, 64);
    let dropped = counters.dhcp_full + counters.dhcp_flood + counters.dhcp_starts_too_fast;
    assert_eq!(dropped, 10_000 - 62);
    assert!(counters.dhcp_flood > 0 && counters.dhcp_full > 0);
    server.handle_timeout(at(60));
    renew(&mut server, mac(1), host(20), at(60));
    let (ack, _) = sent(&mut server, MessageType::Ack);
    assert_eq!((ack.yiaddr(), server.lease(&name).unwrap().mac), (host(20), mac(1)));
}

#[test]
fn a_device_that_begins_again_and_again_is_slowed_down() {
    let mut server = DhcpServer::new(ServerConfig { max_devices: 2, ..config() });
    let mut begun = 0;
    for second in 0..2 {
        for number in 0..60 {
            discover(&mut server, mac(number), at(second));
            while let Some(output) = server.poll_output() {
                if let Output::Session(SessionWish::Start { sub_nai, .. }) = output {
                    begun += 1;
                    server.handle_refusal(&sub_nai, at(second));
                }
            }
        }
    }
    assert_eq!(begun, 4);
    assert_eq!(server.counters().dhcp_starts_too_fast, 116);
}

#[test]
fn what_is_no_clients_message_is_dropped_and_counted() {
    let mut server = server();
    let good = message(mac(1), MessageType::Discover, &[]).to_vec().unwrap();
    for len in 0..=239 {
        server.handle_message(&good[..len], mac(1), at(0));
    }
    for (at_byte, byte) in [(0, 2), (1, 6), (2, 17), (2, 255), (236, 0)] {
        let mut bytes = good.clone();
        bytes[at_byte] = byte;
        server.handle_message(&bytes, mac(1), at(0));
    }
    for options in [&[53, 1][..], &[53, 1, 9], &[53, 2, 1, 1], &[53, 1, 3, 50, 3, 1, 2, 3], &[]] {
        server.handle_message(&[&good[..240], options].concat(), mac(1), at(0));
    }
    // Neither says what it has nor what it wants.
    hear(&mut server, mac(1), &message(mac(1), MessageType::Request, &[]), at(0));
    assert_eq!(server.counters().dhcp_malformed, 240 + 5 + 5 + 1);
    hear(&mut server, mac(2), &message(mac(1), MessageType::Discover, &[]), at(0));
    let group = MacAddress::BROADCAST;
    hear(&mut server, group, &message(group, MessageType::Discover, &[]), at(0));
    assert_eq!(server.counters().dhcp_forged, 2);
    let mut relayed = message(mac(1), MessageType::Discover, &[]);
    relayed.set_giaddr(host(9));
    hear(&mut server, mac(1), &relayed, at(0));
    assert_eq!(server.counters().dhcp_relayed, 1);
    quiet(&mut server);
}

proptest! {
    #[test]
    fn noise_in_a_message_never_panics(
        at_byte in 0usize..320,
        noise in proptest::collection::vec(any::<u8>(), 0..80),
        cut in 0usize..400,
        kind in 1u8..9,
    ) {
        let mut server = server();
        bind(&mut server, mac(1), host(20), at(0));
        let options = [id("x"), DhcpOption::RequestedIpAddress(host(20))];
        let mut bytes = message(mac(1), kind.into(), &options).to_vec().unwrap();
        for (to, from) in bytes.iter_mut().skip(at_byte).zip(&noise) {
            *to = *from;
        }
        bytes.truncate(cut);
        server.handle_message(&bytes, mac(1), at(1));
        server.handle_message(&noise, mac(1), at(1));
        server.handle_message(&[&bytes[..bytes.len().min(240)], &noise].concat(), mac(1), at(2));
        while let Some(output) = server.poll_output() {
            if let Output::Session(SessionWish::Start { sub_nai, .. }) = output {
                server.handle_address(&sub_nai, host(21), at(2));
            }
        }
    }

    /// Whatever devices and the home agent do, in whatever order.
    #[test]
    fn never_is_an_address_two_devices_or_a_session_begun_twice(
        steps in proptest::collection::vec((0u8..10, 0u16..4, 20u8..24), 0..200),
    ) {
        let mut server = server();
        let mut sessions = std::collections::BTreeSet::<Arc<[u8]>>::new();
        for (index, (step, number, last)) in steps.iter().enumerate() {
            let now = at(index as u64 * 3);
            let (from, address) = (mac(*number), host(*last));
            let name = from.to_string().into_bytes();
            match step {
                0 => discover(&mut server, from, now),
                1 => request(&mut server, from, address, now),
                2 => reboot(&mut server, from, address, now),
                3 => renew(&mut server, from, address, now),
                4 => release(&mut server, from, address, now),
                5 => decline(&mut server, from, address, now),
                6 => drop(server.handle_address(&name, address, now)),
                7 => server.handle_loss(&name),
                8 => {
                    server.handle_refusal(&name, now);
                    sessions.remove(&*name);
                }
                _ => server.handle_timeout(now),
            }
            while let Some(output) = server.poll_output() {
                match output {
                    Output::Session(SessionWish::Start { sub_nai, .. }) => prop_assert!(sessions.insert(sub_nai)),
                    Output::Session(SessionWish::End { sub_nai }) => prop_assert!(sessions.remove(&sub_nai)),
                    Output::Send { .. } => {}
                }
            }
            let with_address: Vec<Ipv4Addr> =
                server.devices.values().filter_map(Device::address).collect();
            let mut unique = with_address.clone();
            unique.sort();
            unique.dedup();
            prop_assert_eq!(unique.len(), with_address.len());
            prop_assert_eq!(server.addresses.len(), with_address.len());
            prop_assert_eq!(server.names.len(), sessions.len());
        }
    }
}
