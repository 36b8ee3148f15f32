//! Revocations that are forged, replayed or reflected: reliability row 20.

use super::*;

/// Row 20: silence, and everything as it was.
// Shows 3543-3.3-h, 3543-3.5-c, 3543-3.5-d, 3543-4.2.3.2-b, 3543-4.2.3.2-c, 3543-A.2-c, attack-20.
#[test]
fn replayed_reflected_and_unauthentic_revocations_get_silence_and_the_binding_stays() {
    let mut world = home();
    bind(&mut world, FOREIGN);
    let now = seconds(&world);
    let before = world.state();
    let good = revocation(false, now + 2);
    let wrong_key = {
        let mut bytes = signed(&good);
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let behind = {
        let mut writer = MessageWriter::relay(&signed(&good));
        writer.extension(&Extension::EncapsulatingDelivery).unwrap();
        writer.finish()
    };
    let unknown = {
        let mut bytes = good.emit().to_vec();
        bytes.extend([120, 0]);
        bytes
    };
    let mobile = {
        let mut writer = MessageWriter::revocation(&good);
        writer.authenticate(AuthenticationKind::MobileHome, &mobile_home());
        writer.finish()
    };
    let twice = append(&signed(&good), AuthenticationKind::ForeignHome, &foreign_home());
    let elsewhere = RegistrationRevocation { home_agent: STRANGER, ..good };
    let nowhere = RegistrationRevocation { home_agent: Ipv4Addr::UNSPECIFIED, ..good };
    let not_ours = RegistrationRevocation { care_of_address: THIRD, ..good };
    let nobodys = RegistrationRevocation { home_address: OTHER_NODE, ..good };
    use DiscardReason::*;
    for (reason, payload) in [
        (NoAuthentication, good.emit().to_vec()),
        (NoAuthentication, mobile),
        (BadForeignHomeAuthenticator, wrong_key),
        (BadForeignHomeAuthenticator, behind),
        (BadForeignHomeAuthenticator, twice),
        (UnknownExtension, unknown),
        (Malformed, signed(&good)[..30].to_vec()),
        (Malformed, vec![7; 1_025]),
        // From before the registration, or as old as that.
        (Replay, signed(&revocation(false, now))),
        (Replay, signed(&revocation(false, now - 1_000))),
        (Replay, signed(&revocation(false, now.wrapping_add(1 << 31)))),
        (Reflected, signed(&revocation(true, now + 2))),
        (WrongHomeAgent, signed(&elsewhere)),
        (WrongHomeAgent, signed(&nowhere)),
        (NotRegistered, signed(&not_ours)),
        (NotRegistered, signed(&nobodys)),
    ] {
        let counted = world.discarded(reason);
        let actions = to_home(&mut world, &payload);
        assert!(transmits(&actions).is_empty(), "{reason:?}: {actions:?}");
        assert_eq!(world.discarded(reason), counted + 1, "{reason:?}");
        assert_eq!(world.state(), before, "{reason:?}");
    }
    // Another agent that has a key, about what it did not relay; one that has none.
    for (agent, reason) in [(THIRD, NotRegistered), (STRANGER, NoSecurityAssociation)] {
        let counted = world.discarded(reason);
        assert!(transmits(&world.relay(agent, &signed(&good))).is_empty());
        assert_eq!(world.discarded(reason), counted + 1, "{reason:?}");
    }
    assert_eq!(world.state(), before);
    // A registration that nothing was agreed on about.
    let asked = request(world.timestamp());
    let plain = append(&sign(&asked), AuthenticationKind::ForeignHome, &foreign_home());
    assert_eq!(the_code(&world.relay(FOREIGN, &plain)), 1);
    assert!(transmits(&to_home(&mut world, &signed(&good))).is_empty());
    assert_eq!(world.agent.bindings().count(), 1);
}

/// Row 20, the other side.
// Shows 3543-3.3-h, 3543-3.5-c, 3543-3.5-d, 3543-4.2.2.2-b, 3543-4.2.2.2-c, 3543-A.2-c, attack-20.
#[test]
fn replayed_reflected_and_unauthentic_revocations_get_silence_and_the_visitor_stays() {
    let mut world = foreign();
    visit(&mut world, true);
    let now = seconds(&world);
    let before = world.state();
    let good = revocation(true, now + 2);
    let mut wrong_key = signed(&good);
    *wrong_key.last_mut().unwrap() ^= 1;
    let nowhere = RegistrationRevocation { home_agent: Ipv4Addr::UNSPECIFIED, ..good };
    let elsewhere = RegistrationRevocation { care_of_address: STRANGER, ..good };
    let nobodys = RegistrationRevocation { home_address: OTHER_NODE, ..good };
    use DiscardReason::*;
    for (reason, payload) in [
        (NoAuthentication, good.emit().to_vec()),
        (BadForeignHomeAuthenticator, wrong_key),
        (Replay, signed(&revocation(true, now))),
        (Reflected, signed(&revocation(false, now + 2))),
        (WrongHomeAgent, signed(&nowhere)),
        (WrongDestination, signed(&elsewhere)),
        (NotRegistered, signed(&nobodys)),
    ] {
        let counted = world.discarded(reason);
        let actions = to_foreign(&mut world, &payload);
        assert!(transmits(&actions).is_empty(), "{reason:?}: {actions:?}");
        assert_eq!(world.discarded(reason), counted + 1, "{reason:?}");
        assert_eq!(world.state(), before, "{reason:?}");
    }
    let actions = to_foreign(&mut world, &signed(&good));
    assert_eq!(actions[0], the_visitor_is_removed());
    assert_eq!(acknowledgements(&actions).len(), 1);
    // A replay does not end what has begun since, though it was of the same second.
    let asked = request(world.timestamp());
    world.visit(&sign(&asked));
    world.answer(&agreeing(&asked, true, now));
    assert!(transmits(&to_foreign(&mut world, &signed(&good))).is_empty());
    assert_eq!(world.agent.visitors().count(), 1);
}
