//! The client against the messages of `dhcproto`, which read and wrote none of
//! ours.

use super::*;
use dhcproto::Decodable;
use dhcproto::v4::Opcode;
use proptest::prelude::*;

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const SERVER: Station =
    Station { mac: MacAddress([2, 0, 0, 0, 0, 9]), address: Ipv4Addr::new(10, 2, 3, 1) };
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 2, 3, 100);

const fn at(milliseconds: u64) -> Instant {
    Instant(milliseconds * 1_000_000)
}

fn client() -> DhcpClient {
    let mut client = DhcpClient::new(MAC, 7);
    client.start(at(0));
    client
}

/// The one message that the client sends now.
fn sent(client: &mut DhcpClient) -> (Message, Station) {
    match client.poll_output() {
        Some(Output::Send { to, payload, .. }) => (Message::from_bytes(&payload).unwrap(), to),
        other => panic!("{other:?}"),
    }
}

fn answer(to: &Message, kind: MessageType, seconds: u32, extra: &[DhcpOption]) -> Vec<u8> {
    let nobody = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(to.xid(), nobody, ADDRESS, nobody, nobody, to.chaddr());
    message.set_opcode(Opcode::BootReply);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(SERVER.address));
    options.insert(DhcpOption::AddressLeaseTime(seconds));
    options.insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
    options.insert(DhcpOption::Router(vec![SERVER.address]));
    extra.iter().for_each(|option| drop(options.insert(option.clone())));
    message.to_vec().unwrap()
}

fn bound(seconds: u32) -> DhcpClient {
    let mut client = client();
    let (discover, to) = sent(&mut client);
    assert_eq!(to.mac, MacAddress::BROADCAST);
    client.handle_message(&answer(&discover, MessageType::Offer, seconds, &[]), SERVER, at(1));
    let (request, _) = sent(&mut client);
    assert_eq!(request.opts().msg_type(), Some(MessageType::Request));
    client.handle_message(&answer(&request, MessageType::Ack, seconds, &[]), SERVER, at(2));
    let lease = Some(Duration::from_secs(u64::from(seconds)));
    let co_located =
        CoLocated { address: ADDRESS, prefix_len: 24, gateway: Some(SERVER.address), lease };
    assert_eq!(client.poll_output(), Some(Output::Bound(co_located)));
    client
}

#[test]
fn four_messages_give_an_address() {
    bound(3600);
}

#[test]
fn a_rapid_commit_gives_an_address_with_two_messages() {
    let mut client = client();
    let (discover, _) = sent(&mut client);
    assert!(discover.opts().contains(OptionCode::RapidCommit));
    client.handle_message(&answer(&discover, MessageType::Ack, 60, &[]), SERVER, at(1));
    assert_eq!(client.poll_output(), None, "an ACK without the option answers nothing");
    let rapid = answer(&discover, MessageType::Ack, 60, &[DhcpOption::RapidCommit]);
    client.handle_message(&rapid, SERVER, at(1));
    assert!(matches!(client.poll_output(), Some(Output::Bound(_))));
}

#[test]
fn it_asks_again_soon_then_ever_later() {
    let mut client = client();
    let mut last = 0;
    let mut waits = Vec::new();
    for _ in 0..14 {
        sent(&mut client);
        let next = client.poll_timeout().unwrap();
        waits.push((next.0 - last) / 1_000_000);
        last = next.0;
        client.handle_timeout(next);
    }
    assert!((50..60).contains(&waits[0]), "{waits:?}");
    assert!(waits.windows(2).all(|pair| pair[1] >= pair[0] || pair[1] >= 64_000), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait < 72_001), "{waits:?}");
}

#[test]
fn it_renews_at_half_time_with_the_server_and_rebinds_with_everybody() {
    let mut client = bound(80);
    assert_eq!(client.poll_timeout(), Some(at(2 + 40_000)));
    client.handle_timeout(at(2 + 40_000));
    let (renewal, to) = sent(&mut client);
    assert_eq!((renewal.ciaddr(), to), (ADDRESS, SERVER));
    client.handle_timeout(at(2 + 70_000));
    let (rebinding, to) = sent(&mut client);
    assert_eq!((rebinding.ciaddr(), to.mac), (ADDRESS, MacAddress::BROADCAST));
    client.handle_message(&answer(&rebinding, MessageType::Ack, 80, &[]), SERVER, at(71_000));
    assert!(matches!(client.poll_output(), Some(Output::Bound(_))));
    assert_eq!(client.poll_timeout(), Some(at(111_000)));
}

#[test]
fn a_lease_that_nobody_renews_is_lost_and_asked_for_anew() {
    let mut client = bound(80);
    while client.poll_timeout().unwrap() <= at(80_002) {
        let next = client.poll_timeout().unwrap();
        client.handle_timeout(next);
        if client.outputs.contains(&Output::Lost) {
            assert_eq!(next, at(80_002));
        }
    }
    let lost = client.outputs.iter().position(|output| *output == Output::Lost).unwrap();
    assert_eq!(client.outputs.len(), lost + 2, "and one discover");
}

#[test]
fn a_refusal_starts_it_over() {
    let mut client = bound(80);
    client.handle_timeout(at(40_002));
    let (renewal, _) = sent(&mut client);
    client.handle_message(&answer(&renewal, MessageType::Nak, 80, &[]), SERVER, at(40_003));
    assert_eq!(client.poll_output(), Some(Output::Lost));
    assert_eq!(client.poll_output(), None, "a little later");
    client.handle_timeout(client.poll_timeout().unwrap());
    assert_eq!(sent(&mut client).0.opts().msg_type(), Some(MessageType::Discover));
}

#[test]
fn answers_to_others_and_to_earlier_questions_are_nothing() {
    let mut client = client();
    let (discover, _) = sent(&mut client);
    let mut stranger = discover.clone();
    stranger.set_chaddr(&[2, 0, 0, 0, 0, 7]);
    client.handle_message(&answer(&stranger, MessageType::Offer, 60, &[]), SERVER, at(1));
    let mut earlier = discover.clone();
    earlier.set_xid(discover.xid() ^ 1);
    client.handle_message(&answer(&earlier, MessageType::Offer, 60, &[]), SERVER, at(1));
    client.handle_message(&discover.to_vec().unwrap(), SERVER, at(1));
    for len in 0..40 {
        client.handle_message(&vec![2; len], SERVER, at(1));
    }
    assert_eq!(client.poll_output(), None);
}

#[test]
fn a_stop_gives_the_address_back() {
    let mut client = bound(80);
    client.stop(true);
    let (release, to) = sent(&mut client);
    assert_eq!(release.opts().msg_type(), Some(MessageType::Release));
    assert_eq!((release.ciaddr(), to), (ADDRESS, SERVER));
    assert_eq!(client.poll_timeout(), None);
}

proptest! {
    /// B-09
    #[test]
    fn noise_in_an_answer_never_panics(
        at in 28usize..320,
        noise in proptest::collection::vec(any::<u8>(), 0..80),
        cut in 0usize..400,
    ) {
        let mut client = client();
        let (discover, _) = sent(&mut client);
        let mut bytes = answer(&discover, MessageType::Offer, 60, &[]);
        for (to, from) in bytes.iter_mut().skip(at).zip(&noise) {
            *to = *from;
        }
        bytes.truncate(cut);
        client.handle_message(&bytes, SERVER, at_once());
        client.handle_message(&noise, SERVER, at_once());
        let options = [&bytes[..bytes.len().min(240)], &noise].concat();
        client.handle_message(&options, SERVER, at_once());
    }
}

const fn at_once() -> Instant {
    at(1)
}

/// Each of these ends a client that trusts `dhcproto` to read it.
#[test]
fn a_hardware_address_too_long_and_an_impossible_route_end_nobody() {
    for (at, byte) in [(2, 17), (2, 255)] {
        let mut client = client();
        let (discover, _) = sent(&mut client);
        let mut bytes = answer(&discover, MessageType::Offer, 60, &[]);
        bytes[at] = byte;
        client.handle_message(&bytes, SERVER, at_once());
        assert_eq!(client.poll_output(), None);
    }
    let mut client = client();
    let (discover, _) = sent(&mut client);
    let mut bytes = answer(&discover, MessageType::Offer, 60, &[]);
    bytes.pop();
    bytes.extend([121, 5, 33, 1, 1, 1, 1, 255]);
    client.handle_message(&bytes, SERVER, at_once());
    let (request, _) = sent(&mut client);
    assert_eq!(request.opts().msg_type(), Some(MessageType::Request));
}

#[test]
fn a_mask_with_a_hole_is_none() {
    let mut client = client();
    let (discover, _) = sent(&mut client);
    let mask = DhcpOption::SubnetMask(Ipv4Addr::new(255, 0, 255, 0));
    let rapid = answer(&discover, MessageType::Ack, 60, &[DhcpOption::RapidCommit, mask]);
    client.handle_message(&rapid, SERVER, at(1));
    let Some(Output::Bound(co_located)) = client.poll_output() else { panic!() };
    assert_eq!(co_located.prefix_len, 32);
}

/// B-09
#[test]
fn a_server_that_refuses_for_ever_or_renews_at_once_is_not_asked_as_fast_as_it_answers() {
    let mut client = client();
    let (mut now, mut asked) = (0, 0);
    while now < 60_000 {
        while let Some(output) = client.poll_output() {
            let Output::Send { payload, .. } = output else { continue };
            asked += 1;
            let message = Message::from_bytes(&payload).unwrap();
            let kind = match message.opts().msg_type() {
                Some(MessageType::Discover) => MessageType::Offer,
                _ => MessageType::Nak,
            };
            client.handle_message(&answer(&message, kind, 60, &[]), SERVER, at(now));
        }
        now = client.poll_timeout().unwrap().0.div_ceil(1_000_000);
        client.handle_timeout(at(now));
    }
    assert!(asked < 30, "{asked}");

    let mut client = self::client();
    let (discover, _) = sent(&mut client);
    let at_once = [DhcpOption::RapidCommit, DhcpOption::Renewal(0), DhcpOption::Rebinding(0)];
    client.handle_message(&answer(&discover, MessageType::Ack, 60, &at_once), SERVER, at(0));
    assert!(client.poll_timeout() >= Some(at(1_000)));
}
