//! Attacks on UDP port 434 (B-09), each by its row of the threat model: what is
//! refused leaves the state as it was, and has a counter.

use core::net::Ipv4Addr;

use homeport_proto::config::AgentConfig;
use homeport_proto::event::DiscardReason;
use homeport_proto::message::{
    AuthenticationKind, Extension, Identification, MessageWriter, RegistrationRequest, ReplyCode,
    RequestFlags,
};
use homeport_proto::security::{Key, MobilitySecurityAssociation, SecurityAssociations, Spi};
use homeport_proto::{Datagram, Lifetime, MacAddress, NtpTime};

use crate::support::*;

fn home_with_a_binding() -> World {
    let mut world = World::home(|_| {});
    let message = sign(&request(world.timestamp()));
    assert_eq!(the_code(&world.relay(FOREIGN, &message)), 0);
    world
}

/// Row 1: ten thousand requests of unknown nodes or SPIs, from everywhere.
// Shows 5944-3.8.2.1-e, attack-1.
#[test]
fn row_1_unknown_associations_get_no_reply_and_leave_no_state() {
    let mut world = home_with_a_binding();
    let before = world.state();
    for index in 0..10_000u32 {
        let mut asked = request(world.timestamp());
        let mut association = mobile_home();
        if index % 2 == 0 {
            asked.home_address = Ipv4Addr::from_bits(0x0a01_0100 + index);
        } else {
            association.spi = Spi(1_000 + index);
        }
        let message = sign_with(&asked, &association);
        let source = Ipv4Addr::from_bits(0x1400_0000 + (index << 8));
        assert!(transmits(&world.relay(source, &message)).is_empty());
    }
    assert_eq!(world.discarded(DiscardReason::NoSecurityAssociation), 10_000);
    assert_eq!(world.state(), before);
}

/// Row 2: the right SPI and a wrong authenticator.
// Shows 5944-3.8.2.1-g, 5944-3.8.2.1-i, 5944-3.8.2.1-k, attack-2.
#[test]
fn row_2_forged_authenticators_get_at_most_one_131_a_second() {
    let mut world = home_with_a_binding();
    let before = world.state();
    let mut replies = 0;
    // Ten thousand in five seconds.
    for index in 0..10_000u32 {
        if index % 2 == 0 {
            world.millis += 1;
        }
        let mut message = sign(&request(Identification(world.now().ntp.0)));
        *message.last_mut().unwrap() ^= 1;
        let source = Ipv4Addr::from_bits(0x1400_0000 + (index << 8));
        let datagram = Datagram { source_port: 1_000, ..relayed(source, &message) };
        let actions = world.send(&datagram);
        if !transmits(&actions).is_empty() {
            assert_eq!(the_code(&actions), 131);
            replies += 1;
        }
    }
    assert_eq!(replies, 5);
    assert_eq!(world.discarded(DiscardReason::BadMobileHomeAuthenticator), 10_000);
    assert_eq!(world.counters().denials_suppressed, 9_995);
    assert_eq!(world.state(), before);
}

/// Row 2: what a foreign agent vouches for is answered (a MUST); what a foreign
/// agent with an association does not vouch for is not.
// Shows 5944-3.8.2.1-h, attack-2.
#[test]
fn row_2_a_valid_foreign_home_authentication_earns_a_131() {
    let mut world = World::home(|config| config.security.insert_agent(FOREIGN, foreign_home()));
    for (vouched, replies) in [(true, 1), (false, 0), (true, 1)] {
        let mut message = sign(&request(world.timestamp()));
        *message.last_mut().unwrap() ^= 1;
        if vouched {
            message = append(&message, AuthenticationKind::ForeignHome, &foreign_home());
        }
        let actions = world.relay(FOREIGN, &message);
        assert_eq!(transmits(&actions).len(), replies);
        world.pass(1_000);
    }
    assert_eq!(world.agent.bindings().count(), 0);
}

/// Row 4, as far as the extensions of today go: what stands behind the
/// mobile-home authentication does not change what the home agent does.
// Shows attack-4.
#[test]
fn row_4_an_unauthenticated_tail_is_not_believed() {
    let mut world = World::home(|_| {});
    let asked = request(world.timestamp());
    let mut writer = MessageWriter::relay(&sign(&asked));
    writer.extension(&Extension::NetworkAccessIdentifier(b"root@example.org")).unwrap();
    writer.extension(&Extension::Unknown { extension_type: 200, data: &[1] }).unwrap();
    assert_eq!(installed(&world.relay(FOREIGN, &writer.finish())), [care_of(FOREIGN, 60)]);
    // A second authenticator of someone else's making is checked.
    let mut message = sign(&request(world.timestamp()));
    let mut other = mobile_home();
    other.spi = Spi(999);
    message = append(&message, AuthenticationKind::MobileHome, &other);
    assert!(transmits(&world.relay(FOREIGN, &message)).is_empty());
}

/// Row 5, B-02: an accepted request replayed.
// Shows 5944-3.8.2.1-m, 5944-3.8.2.1-n, 5944-3.8.2.2-h, 5944-5.7-c, 5944-5.7.1-f, attack-5.
#[test]
fn row_5_stale_identification_is_denied_with_133() {
    let mut world = World::home(|_| {});
    let first = request(world.timestamp());
    let mut second = request(world.timestamp());
    second.care_of_address = STRANGER;
    assert_eq!(the_code(&world.relay(STRANGER, &sign(&second))), 0);
    let before = world.state();
    for message in [sign(&second), sign(&first)] {
        let actions = world.relay(FOREIGN, &message);
        assert_eq!(the_code(&actions), 133);
        let told = the_reply(&actions).identification;
        assert_eq!(told.high(), Identification(world.now().ntp.0).high(), "our time");
        let low = u32::from_be_bytes(message[20..24].try_into().unwrap());
        assert_eq!(told.low(), low, "the request's low half");
        assert_eq!(world.state(), before);
    }
    // Not by the end of the binding either: the lifetime is not extended.
    world.pass(59_999);
    assert_eq!(world.agent.bindings().count(), 1);
    world.pass(1);
    assert_eq!(world.agent.bindings().count(), 0);
}

/// Row 5: what was fresh but denied cannot be replayed when there is room.
// Shows attack-5.
#[test]
fn row_5_a_denied_request_cannot_be_replayed_into_acceptance() {
    let mut world = World::home(|config| config.max_bindings = 1);
    let mut other = request(world.timestamp());
    other.home_address = OTHER_NODE;
    assert_eq!(the_code(&world.relay(FOREIGN, &sign(&other))), 0);
    let denied = sign(&request(world.timestamp()));
    assert_eq!(the_code(&world.relay(FOREIGN, &denied)), 130);
    let now = world.now();
    world.agent.clear_binding(TENANT, OTHER_NODE, now);
    world.drain();
    assert_eq!(the_code(&world.relay(FOREIGN, &denied)), 133);
    assert_eq!(world.agent.bindings().count(), 0);
}

/// Row 6.
// Shows 5944-5.7.1-a, 5944-5.7.1-f, attack-6.
#[test]
fn row_6_timestamps_are_good_for_seven_seconds_around() {
    let tenth = (1u64 << 32) / 10;
    for (tenths, code) in [(-80, 133), (80, 133), (-69, 0), (69, 0), (-71, 133), (71, 133)] {
        let mut world = World::home(|_| {});
        world.millis += 20_000;
        let offset = u64::from_ne_bytes((tenths * i64::try_from(tenth).unwrap()).to_ne_bytes());
        let asked = request(Identification(world.now().ntp.0.wrapping_add(offset)));
        assert_eq!(the_code(&world.relay(FOREIGN, &sign(&asked))), code, "{tenths}");
    }
}

/// Row 7, for one process: after a restart the marks are gone, and still no
/// request from before it is accepted, by timestamp or by nonce.
// Shows attack-7.
#[test]
fn row_7_a_request_from_before_a_restart_is_denied_with_133() {
    let mut world = World::home(|_| {});
    let accepted = sign(&request(world.timestamp()));
    assert_eq!(the_code(&world.relay(FOREIGN, &accepted)), 0);
    let nonces = mobile_home_nonces();
    let mut asked = request(Identification(1));
    asked.home_address = NONCE_NODE;
    let told = the_reply(&world.relay(FOREIGN, &sign_with(&asked, &nonces))).identification;
    asked.identification = Identification::from_halves(told.high(), 2);
    let nonce_accepted = sign_with(&asked, &nonces);
    assert_eq!(the_code_under(&world.relay(FOREIGN, &nonce_accepted), &nonces), 0);

    world.millis += 1;
    let config = AgentConfig { home_agents: vec![home_agent_config()], ..AgentConfig::default() };
    world.agent = homeport_proto::Agent::new(config, [8; 32], world.now());
    assert_eq!(the_code(&world.relay(FOREIGN, &accepted)), 133);
    assert_eq!(the_code_under(&world.relay(FOREIGN, &nonce_accepted), &nonces), 133);
    assert_eq!(world.agent.bindings().count(), 0);
    let fresh = sign(&request(world.timestamp()));
    assert_eq!(the_code(&world.relay(FOREIGN, &fresh)), 0);
}

/// Row 8: an hour ahead and back. Nothing expires, and one 133 at most brings
/// the node back.
// Shows attack-8.
#[test]
fn row_8_a_clock_step_neither_expires_nor_poisons() {
    let mut world = World::home(|_| {});
    let first = sign(&request(world.timestamp()));
    assert_eq!(the_code(&world.relay(FOREIGN, &first)), 0);
    world.step = 3_600;
    assert_eq!(world.pass(1_000).len(), 2, "claims of the address only");
    let ahead = sign(&request(world.timestamp()));
    assert_eq!(the_code(&world.relay(FOREIGN, &ahead)), 0);
    world.step = 0;
    world.pass(1_000);
    assert_eq!(the_code(&world.relay(FOREIGN, &ahead)), 133);
    // The node takes the second it was told, as RFC 5944 §3.6.2.1 has it.
    let told = the_reply(&world.relay(FOREIGN, &ahead)).identification;
    let mut asked = request(Identification::from_halves(told.high(), 0));
    asked.flags = RequestFlags::BROADCAST;
    assert_eq!(the_code(&world.relay(FOREIGN, &sign(&asked))), 0);
    assert_eq!(the_code(&world.relay(FOREIGN, &first)), 133);
    // An hour later, the request of the wrong hour is still known.
    world.pass(3_599_000);
    let hour = NtpTime(u64::from_be_bytes(ahead[16..24].try_into().unwrap()));
    assert!(world.now().ntp.wrapping_distance(hour).unsigned_abs() < 7 << 32);
    assert_eq!(the_code(&world.relay(FOREIGN, &ahead)), 133);
    assert_eq!(world.counters().bindings_expired, 1, "by its lifetime alone");
}

/// Row 8, the other way: a clock set back past the start of the agent.
// Shows attack-8.
#[test]
fn row_8_a_clock_set_back_does_not_lock_nodes_out() {
    let mut world = World::home(|_| {});
    let first = sign(&request(world.timestamp()));
    assert_eq!(the_code(&world.relay(FOREIGN, &first)), 0);
    world.step = -3_600;
    let asked = sign(&request(world.timestamp()));
    assert_eq!(the_code(&world.relay(FOREIGN, &asked)), 0);
    assert_eq!(the_code(&world.relay(FOREIGN, &asked)), 133);
    world.step = 0;
    assert_eq!(the_code(&world.relay(FOREIGN, &first)), 133);
}

/// Row 9: a flood of broadcasts gets no flood of 136.
// Shows attack-9.
#[test]
fn row_9_broadcast_requests_are_not_reflected() {
    let mut world = World::home(|_| {});
    let destination = Ipv4Addr::new(10, 1, 0, 255);
    let mut replies = 0;
    for _ in 0..1_000 {
        let message = sign(&request(Identification(world.now().ntp.0)));
        let actions = world.send(&Datagram { destination, ..relayed(FOREIGN, &message) });
        replies += transmits(&actions).len();
    }
    assert!(replies <= 10, "{replies}");
    // Unauthenticated ones get nothing at all.
    let message = MessageWriter::request(&request(world.timestamp())).finish();
    world.pass(10_000);
    let actions = world.send(&Datagram { destination, ..relayed(FOREIGN, &message) });
    assert!(transmits(&actions).is_empty());
}

/// Row 10: nothing unauthenticated is answered with more bytes than it has.
// Shows attack-10.
#[test]
fn row_10_replies_to_forgeries_are_never_longer() {
    let mut world = World::home(|_| {});
    let (mut bytes_in, mut bytes_out) = (0, 0);
    for len in 0..=16u8 {
        for index in 0..50u32 {
            world.pass(1_000);
            let mut message = MessageWriter::request(&request(world.timestamp())).finish();
            message.extend_from_slice(&[32, 4 + len, 0, 0, 1, 0]);
            message.extend(vec![0xaa; usize::from(len)]);
            let source = Ipv4Addr::from_bits(0x1400_0000 + (index << 8));
            let datagram = Datagram { source_port: 9, ..relayed(source, &message) };
            let actions = world.send(&datagram);
            let replied: usize =
                transmits(&actions).iter().map(|transmit| udp(transmit).2.len()).sum();
            assert!(replied <= message.len(), "{replied} for {}", message.len());
            bytes_in += message.len();
            bytes_out += replied;
        }
    }
    assert!(bytes_out > 0 && bytes_out <= bytes_in, "{bytes_out} {bytes_in}");
}

/// Row 11: replies and unknown types from a peer's port, and a forged 131 that
/// would start a loop.
// Shows 5944-3.7-b, 5944-3.7-c, 5944-3.8-a, attack-11.
#[test]
fn row_11_replies_and_unknown_types_are_never_answered() {
    let mut world = World::new(AgentConfig {
        home_agents: vec![home_agent_config()],
        foreign_agents: vec![foreign_agent_config()],
        advertisers: vec![],
    });
    let before = world.state();
    let reply = reply_to(&request(world.timestamp()), ReplyCode::ACCEPTED, 60);
    for destination in [HOME_AGENT, FOREIGN, FOREIGN_LINK] {
        for message_type in (0..=255u8).filter(|number| *number != 1) {
            let mut message = reply.clone();
            message[0] = message_type;
            let datagram = Datagram { destination, ..relayed(STRANGER, &message) };
            assert!(transmits(&world.send(&datagram)).is_empty(), "{message_type}");
        }
    }
    assert_eq!(world.discarded(DiscardReason::ReplyToReply), 2);
    assert_eq!(world.discarded(DiscardReason::NotPending), 1);
    // All but requests, replies, revocations and their acknowledgements.
    assert_eq!(world.discarded(DiscardReason::UnknownType), 3 * 252);
    assert_eq!(world.discarded(DiscardReason::Reflected), 1);
    // A wrong authenticator, "from" another server's port 434.
    let mut forged = sign(&request(world.timestamp()));
    *forged.last_mut().unwrap() ^= 1;
    assert!(transmits(&world.relay(STRANGER, &forged)).is_empty());
    assert_eq!(world.discarded(DiscardReason::BadMobileHomeAuthenticator), 1);
    assert_eq!(world.state(), before);
}

/// Row 12: a right request cut at every byte, with every length wrong, and with
/// too many extensions. Each is counted exactly once; no state.
// Shows attack-12.
#[test]
fn row_12_malformed_messages_are_counted_and_change_nothing() {
    let build = |world: &mut World| {
        let mut writer = MessageWriter::request(&request(world.timestamp()));
        writer.extension(&Extension::NetworkAccessIdentifier(b"me@example.org")).unwrap();
        writer.authenticate(AuthenticationKind::MobileHome, &mobile_home());
        writer.extension(&Extension::Unknown { extension_type: 200, data: &[1, 2, 3] }).unwrap();
        writer.authenticate(AuthenticationKind::MobileForeign, &mobile_foreign());
        writer.finish()
    };
    let worlds: [fn() -> World; 2] = [|| World::home(|_| {}), || World::foreign(|_| {})];
    for (new, port_in) in worlds.into_iter().zip([CORE, VISITED]) {
        let mut world = new();
        let before = world.state();
        let whole = build(&mut world);
        let mut messages: Vec<Vec<u8>> =
            (0..whole.len()).map(|cut| whole[..cut].to_vec()).collect();
        for (offset, header) in [(24, 131), (40, 32), (62, 200), (67, 33)] {
            assert_eq!(whole[offset], header, "the layout that this test knows");
            for len in [0, 1, 3, 254, 255] {
                let mut message = whole.clone();
                message[offset + 1] = len;
                messages.push(message);
            }
        }
        let mut many = whole.clone();
        many.extend([200, 0].repeat(400));
        messages.push(many);
        messages.push(vec![1; 1_025]);
        messages.push([&whole[..24], &[38, 0, 0xff, 0xff]].concat());
        messages.push([&whole[..24], &[36, 1, 0, 0]].concat());
        for message in &messages {
            world.pass(1_000);
            world.drain();
            let counted = total(&world);
            let datagram = match port_in {
                VISITED => visiting(message),
                _ => relayed(FOREIGN, message),
            };
            let accepted = world.send(&datagram);
            assert_eq!(total(&world), counted + 1, "{message:?}");
            // Some cuts take away nothing that matters: those are good requests.
            if transmits(&accepted).iter().any(|one| one.link.is_none() && port_in == VISITED)
                || !installed(&accepted).is_empty()
            {
                assert!(message.len() >= 62, "{message:?}");
                world = new();
            } else {
                assert_eq!(world.state(), before, "{message:?}");
            }
        }
    }
}

/// Every way that a message on port 434 can end.
fn total(world: &World) -> u64 {
    let counters = world.counters();
    let discarded: u64 = counters.discarded().map(|(_, count)| count).sum();
    // A wrong authenticator is discarded and may be denied too.
    let denied: u64 = counters
        .denied()
        .filter(|(code, _)| !matches!(code.0, 67 | 68 | 71 | 78 | 131))
        .map(|(_, count)| count)
        .sum();
    discarded
        + denied
        + counters.registrations_accepted
        + counters.deregistrations_accepted
        + counters.requests_relayed
        + counters.replies_relayed
}

/// B-09: an authentic request whose tail is broken is denied with 134.
// Shows attack-12.
#[test]
fn row_12_an_authentic_request_with_a_broken_tail_is_denied_with_134() {
    for tail in [&[200, 9][..], &[200], &[33, 1, 0], &[200, 0].repeat(40)] {
        let mut world = World::home(|_| {});
        let mut message = sign(&request(world.timestamp()));
        message.extend_from_slice(tail);
        assert_eq!(the_code(&world.relay(FOREIGN, &message)), 134, "{tail:?}");
        assert_eq!(world.agent.bindings().count(), 0);
    }
}

/// Row 13.
// Shows 5944-1.8-a, 5944-1.8-b, attack-13.
#[test]
fn row_13_unknown_extensions_silence_below_128_and_are_skipped_above() {
    for (extension_type, code) in [(120, None), (127, None), (128, Some(0)), (200, Some(0))] {
        let mut world = World::home(|_| {});
        let mut bytes = MessageWriter::request(&request(world.timestamp())).finish();
        bytes.extend_from_slice(&[extension_type, 2, 0, 0]);
        let message = append(&bytes, AuthenticationKind::MobileHome, &mobile_home());
        let actions = world.relay(FOREIGN, &message);
        match code {
            Some(code) => assert_eq!(the_code(&actions), code),
            None => {
                assert!(transmits(&actions).is_empty());
                assert_eq!(world.discarded(DiscardReason::UnknownExtension), 1);
            }
        }
        // And at a foreign agent.
        let mut world = World::foreign(|_| {});
        let actions = world.visit(&message);
        assert_eq!(transmits(&actions).len(), usize::from(code.is_some()));
        assert_eq!(world.discarded(DiscardReason::UnknownExtension), u64::from(code.is_none()));
    }
}

/// Row 15: see also `every_denial_of_a_valid_request_has_its_code`. The address
/// of another tenant's agent is no care-of address.
// Shows attack-15.
#[test]
fn row_15_another_tenants_address_is_no_care_of_address() {
    let mut other = home_agent_config();
    other.tenant = homeport_proto::TenantId(2);
    other.address = STRANGER;
    let mut world = World::new(AgentConfig {
        home_agents: vec![home_agent_config(), other],
        ..AgentConfig::default()
    });
    let mut asked = request(world.timestamp());
    asked.care_of_address = STRANGER;
    assert_eq!(the_code(&world.relay(FOREIGN, &sign(&asked))), 129);
    assert_eq!(world.agent.bindings().count(), 0);
}

/// Row 17: a silent home agent and a flood of nodes.
// Shows 5944-3.7.1-e, 5944-3.7.1-f, attack-17.
#[test]
fn row_17_pending_requests_are_bounded_and_time_out() {
    let mut world = World::foreign(|config| {
        config.max_pending = 50;
        config.max_pending_per_node = 2;
    });
    let mut relayed = 0;
    for index in 0..10_000u32 {
        let mut asked = request(world.timestamp());
        asked.home_address = Ipv4Addr::from_bits(0x0a01_0000 + index % 5_000 + 1);
        let message = sign(&asked);
        let [_, _, high, low] = index.to_be_bytes();
        let source_mac = MacAddress([2, 0, 0, 1, high, low]);
        let actions = world.send(&Datagram { source_mac, ..visiting(&message) });
        relayed += transmits(&actions).iter().filter(|one| one.link.is_none()).count();
        assert!(world.agent.foreign_agents().next().unwrap().pending().len() <= 50);
        world.millis -= 1;
    }
    assert_eq!(relayed, 50);
    // The prefix's own budget held most of them; the rest were told 66.
    let refused = world.counters().denied_with(ReplyCode::FA_INSUFFICIENT_RESOURCES);
    assert_eq!(refused + 50 + world.discarded(DiscardReason::RateLimited), 10_000);
    assert!(refused > 1_000, "{refused}");
    let timed_out = world.pass(7_001);
    let told = timed_out
        .iter()
        .filter(|(_, action)| transmits(std::slice::from_ref(action)).len() == 1)
        .count();
    assert_eq!(told, 50);
    assert_eq!(world.agent.foreign_agents().next().unwrap().pending().len(), 0);
}

/// Row 17: one node cannot take the places of the others.
// Shows 5944-3.7.1-e, attack-17.
#[test]
fn row_17_the_third_pending_request_of_a_node_is_denied_with_66() {
    let mut world = World::foreign(|config| config.max_pending_per_node = 2);
    for expected in [true, true, false] {
        let message = sign(&request(world.timestamp()));
        let actions = world.visit(&message);
        assert_eq!(transmits(&actions)[0].link.is_none(), expected);
    }
    let mut other = request(world.timestamp());
    other.home_address = OTHER_NODE;
    assert!(transmits(&world.visit(&sign(&other)))[0].link.is_none());
}

/// "Requests from our own addresses", and from where nobody is.
#[test]
fn requests_from_impossible_sources_are_discarded() {
    let mut world = home_with_a_binding();
    let before = world.state();
    let message = sign(&request(world.timestamp()));
    assert!(transmits(&world.relay(HOME_AGENT, &message)).is_empty());
    assert_eq!(world.discarded(DiscardReason::OwnAddress), 1);
    for source in [
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::new(0, 1, 2, 3),
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(224, 0, 0, 11),
        Ipv4Addr::BROADCAST,
    ] {
        assert!(transmits(&world.relay(source, &message)).is_empty());
    }
    let no_port = Datagram { source_port: 0, ..relayed(FOREIGN, &message) };
    assert!(transmits(&world.send(&no_port)).is_empty());
    assert_eq!(world.discarded(DiscardReason::BadSource), 6);
    let other_port = Datagram { destination_port: 435, ..relayed(FOREIGN, &message) };
    assert!(transmits(&world.send(&other_port)).is_empty());
    let elsewhere = Datagram { destination: STRANGER, ..relayed(FOREIGN, &message) };
    assert!(transmits(&world.send(&elsewhere)).is_empty());
    let other_tenant =
        Datagram { tenant: homeport_proto::TenantId(9), ..relayed(FOREIGN, &message) };
    assert!(transmits(&world.send(&other_tenant)).is_empty());
    assert_eq!(world.discarded(DiscardReason::WrongDestination), 2);
    assert_eq!(world.state(), before);
    assert_eq!(the_code(&world.relay(FOREIGN, &message)), 0, "and it was good all the time");
}

/// Row 32: a home address, an SPI and a care-of address mean nothing without their
/// tenant.
// Shows attack-32.
#[test]
fn row_32_another_tenants_key_is_no_association() {
    const OTHER: homeport_proto::TenantId = homeport_proto::TenantId(2);
    let theirs = MobilitySecurityAssociation { spi: Spi(999), ..mobile_home() };
    let same_spi = MobilitySecurityAssociation { key: Key::new(vec![9; 16]), ..mobile_home() };
    let mut other = home_agent_config();
    (other.tenant, other.address) = (OTHER, STRANGER);
    other.security = SecurityAssociations::default();
    other.security.insert_mobile_node(NODE, theirs.clone());
    let home_agents = vec![home_agent_config(), other];
    let mut world = World::new(AgentConfig { home_agents, ..AgentConfig::default() });
    for (tenant, home_agent, association, code) in [
        (TENANT, HOME_AGENT, &theirs, None),
        (OTHER, STRANGER, &mobile_home(), None),
        (TENANT, STRANGER, &theirs, None),
        (OTHER, HOME_AGENT, &mobile_home(), None),
        (TENANT, HOME_AGENT, &same_spi, Some(131)),
        (TENANT, HOME_AGENT, &mobile_home(), Some(0)),
        (OTHER, STRANGER, &theirs, Some(0)),
    ] {
        let asked = RegistrationRequest { home_agent, ..request(world.timestamp()) };
        let message = sign_with(&asked, association);
        let datagram = Datagram { tenant, destination: home_agent, ..relayed(FOREIGN, &message) };
        let actions = world.send(&datagram);
        let replied = transmits(&actions).first().map(|one| parse_reply(udp(one).2).body.code.0);
        assert_eq!(replied, code, "{tenant:?} {home_agent}");
    }
    let discarded = |tenant| {
        let mut all = world.agent.counters();
        let (_, counters) = all.find(|(of, _)| *of == tenant).unwrap();
        counters.discarded_for(DiscardReason::NoSecurityAssociation)
    };
    assert_eq!((discarded(TENANT), discarded(OTHER)), (1, 1));
    assert_eq!(world.discarded(DiscardReason::BadMobileHomeAuthenticator), 1);
    let bound: Vec<_> = world.agent.bindings().map(|one| (one.tenant, one.home_address)).collect();
    assert_eq!(bound, [(TENANT, NODE), (OTHER, NODE)]);
}

/// Row 33, as far as it concerns one prefix: its flood does not touch another.
// Shows attack-33.
#[test]
fn a_flooding_prefix_is_cut_off_and_another_is_served() {
    let mut world = World::home(|_| {});
    let junk = MessageWriter::request(&request(Identification(0))).finish();
    for _ in 0..5_000 {
        world.relay(Ipv4Addr::new(203, 0, 113, 9), &junk);
    }
    assert_eq!(world.discarded(DiscardReason::RateLimited), 3_000);
    let message = sign(&request(world.timestamp()));
    assert_eq!(the_code(&world.relay(FOREIGN, &message)), 0);
}

/// RFC 5944 §3.7.2: a foreign agent that is the node's home agent answers as
/// home agent. Its own care-of address cannot be tunnelled to.
// Shows 5944-3.7.2-c, attack-18.
#[test]
fn a_request_to_a_foreign_agent_that_is_the_home_agent_is_the_home_agents() {
    let mut world = World::new(AgentConfig {
        home_agents: vec![home_agent_config()],
        foreign_agents: vec![foreign_agent_config()],
        advertisers: vec![],
    });
    let asked: RegistrationRequest = request(world.timestamp());
    let actions = world.visit(&sign(&asked));
    assert_eq!(the_code(&actions), 129);
    assert_eq!(transmits(&actions)[0].source, FOREIGN_LINK);
    let mut home = request(world.timestamp());
    home.lifetime = Lifetime::ZERO;
    home.care_of_address = NODE;
    assert_eq!(the_code(&world.visit(&sign(&home))), 0);
    assert_eq!(world.counters().requests_relayed, 0);
}
