//! A node that the home agent gives its home address. (RFC 2794, RFC 5944 §3.6.1.2)

use super::*;

fn without() -> MobileNodeConfig {
    MobileNodeConfig { home_address: Ipv4Addr::UNSPECIFIED, ..named() }
}

/// A node at the first agent that was given [`HOME`], and its sessions.
fn given(names: &[&[u8]]) -> World {
    let mut world = World::up(without());
    world.hear(&Advertised::foreign(FIRST));
    let own = last_for(&world, b"");
    receive(&mut world, &own, &reply_to(&own, ReplyCode::ACCEPTED, HOME));
    let mut giver = Giver { answered: world.requests().len(), ..Giver::default() };
    for name in names {
        add(&mut world, name);
    }
    giver.accept_all(&mut world);
    world
}

fn own_addresses(world: &World) -> Vec<Option<Ipv4Addr>> {
    let used = world.log.iter().filter_map(|(_, action)| match action {
        MobileNodeAction::UseHomeAddress(address) => Some(*address),
        _ => None,
    });
    used.collect()
}

fn announced_home(world: &World) -> Vec<u64> {
    let told = world.log.iter().filter(|(_, action)| *action == MobileNodeAction::AnnounceHome);
    told.map(|(at, _)| *at).collect()
}

/// The renewal of a node that was given its address.
fn renewal(world: &mut World) -> Sent {
    world.forget();
    world.pass_hearing(46, &mut [Advertised::foreign(FIRST)]);
    requests_for(world, b"").pop().unwrap()
}

// Shows 2794-2-a, 5944-3.6-b, 5944-3.6.1.1-b, 5944-3.6.1.2-j.
#[test]
fn a_node_without_home_address_takes_the_one_that_it_is_given() {
    let mut world = World::up(without());
    world.hear(&Advertised::foreign(FIRST));
    let sent = world.last();
    assert_eq!((sent.send.source, sent.send.destination), (Ipv4Addr::UNSPECIFIED, FIRST));
    assert_eq!(sent.body.home_address, Ipv4Addr::UNSPECIFIED);
    let [nai, signature] = request_of(&sent).extensions()[..] else { panic!() };
    assert_eq!(nai.extension, Extension::NetworkAccessIdentifier(NAI));
    assert!(request_of(&sent).verify(&signature, &with_home_agent()));
    // Who does not say whose address it is gives none.
    let given = RegistrationReply { home_address: HOME, ..sent.reply(ReplyCode::ACCEPTED, 100) };
    receive(&mut world, &sent, &signed(&given));
    receive(&mut world, &sent, &reply_to(&sent, ReplyCode::ACCEPTED, Ipv4Addr::UNSPECIFIED));
    assert_eq!(world.discards(), [DiscardReason::NotPending; 2]);
    assert_eq!(world.attachments(), []);
    receive(&mut world, &sent, &reply_to(&sent, ReplyCode::ACCEPTED, HOME));
    let place = |wanted: &MobileNodeAction| {
        world.log.iter().position(|(_, action)| action == wanted).unwrap()
    };
    let used = place(&MobileNodeAction::UseHomeAddress(Some(HOME)));
    assert!(used < place(&MobileNodeAction::UseAttachment(through(FIRST))));
    assert_eq!(world.node.config().home_address, HOME);
    world.forget();
    world.pass_hearing(46, &mut [Advertised::foreign(FIRST)]);
    let renewal = requests_for(&world, b"").pop().unwrap();
    assert_eq!((renewal.send.source, renewal.body.home_address), (HOME, HOME));
    assert!(!world.did(&MobileNodeAction::UseHomeAddress(Some(HOME))), "it is told once");
}

#[test]
fn at_home_a_node_without_address_is_silent_until_it_has_one_and_is_heard_of_again_and_again() {
    let mut world = World::up(without());
    world.hear(&Advertised::home());
    let sent = world.last();
    let nobody = Ipv4Addr::UNSPECIFIED;
    assert_eq!((sent.send.source, sent.send.destination), (nobody, HOME_AGENT));
    assert_eq!((sent.body.home_address, sent.body.care_of_address), (nobody, nobody));
    assert_eq!(sent.body.lifetime, Lifetime::ZERO);
    assert_eq!(world.attachments(), [AT_HOME]);
    receive(&mut world, &sent, &reply_to(&sent, ReplyCode::ACCEPTED, nobody));
    assert_eq!(world.discards(), [DiscardReason::NotPending]);
    assert_eq!((announced_home(&world), world.node.home_address()), (vec![], None));
    world.pass(10);
    receive(&mut world, &sent, &reply_to(&sent, ReplyCode::ACCEPTED, HOME));
    assert_eq!(own_addresses(&world), [Some(HOME)]);
    assert_eq!(announced_home(&world), [world.now]);
    assert_eq!(world.node.phase(), Phase::AtHome);
    assert_eq!(world.node.registration().unwrap().care_of_address, HOME);
    let mut home = [Advertised::home()];
    for _ in 0..2 {
        let before = world.last().at;
        world.forget();
        world.pass_hearing(39, &mut home);
        assert_eq!(world.requests().len(), 0);
        while world.requests().is_empty() && world.now < before + 60_000 {
            world.pass_hearing(1, &mut home);
        }
        assert_eq!(world.node.phase(), Phase::AtHome);
        let again = world.last();
        assert_eq!((again.body.home_address, again.body.care_of_address), (HOME, HOME));
        receive(&mut world, &again, &reply_to(&again, ReplyCode::ACCEPTED, HOME));
    }
    assert_eq!((own_addresses(&world), world.attachments()), (vec![], vec![]));
    // One that has its address by its config has nothing to repeat.
    let mut fixed = World::up(named());
    fixed.hear(&home[0]);
    accept_own(&mut fixed);
    fixed.forget();
    fixed.pass_hearing(100, &mut home);
    assert_eq!(fixed.requests().len(), 0);
}

#[test]
fn what_the_home_agent_says_is_the_nodes_address_and_no_sessions_any_more() {
    let mut world = given(&[b"a", b"b"]);
    let sent = renewal(&mut world);
    assert_eq!(sent.body.home_address, HOME);
    let other = Ipv4Addr::new(10, 1, 0, 100);
    assert_eq!(session(&world, b"a").home_address(), Some(other));
    receive(&mut world, &sent, &reply_to(&sent, ReplyCode::ACCEPTED, other));
    assert_eq!(own_addresses(&world), [Some(other)]);
    assert_eq!(losses(&world), [(b"a".to_vec(), Some(other))]);
    assert_eq!(world.node.home_address(), Some(other));
    assert_eq!(world.node.phase(), Phase::Registered);
    // A node that has its address by its config takes no other.
    let mut fixed = World::at(FIRST, named());
    let sent = renewal(&mut fixed);
    receive(&mut fixed, &sent, &reply_to(&sent, ReplyCode::ACCEPTED, other));
    assert_eq!(fixed.discards(), [DiscardReason::NotPending]);
}

#[test]
fn an_address_that_is_not_the_nodes_any_more_is_given_up_and_any_asked_for() {
    let mut agent = [Advertised::foreign(FIRST)];
    for (code, lost) in [(ReplyCode::HA_PROHIBITED, true), (ReplyCode(130), false)] {
        let mut world = given(&[]);
        let sent = renewal(&mut world);
        receive(&mut world, &sent, &reply_to(&sent, code, HOME));
        let (told, attached) = match lost {
            true => (vec![None], vec![Attachment::None]),
            false => (vec![], vec![]),
        };
        assert_eq!((own_addresses(&world), world.attachments()), (told, attached), "{code:?}");
        world.pass_hearing(3, &mut agent);
        let asked = last_for(&world, b"").body.home_address;
        assert_eq!(asked, if lost { Ipv4Addr::UNSPECIFIED } else { HOME });
    }
    // Not because of whoever cannot sign.
    let mut world = given(&[]);
    let sent = renewal(&mut world);
    receive(&mut world, &sent, &sent.reply(ReplyCode(65), 0).emit());
    let mut fixed = World::at(FIRST, named());
    let sent = renewal(&mut fixed);
    receive(&mut fixed, &sent, &reply_to(&sent, ReplyCode::HA_PROHIBITED, HOME));
    assert_eq!((own_addresses(&world), own_addresses(&fixed)), (vec![], vec![]));
}
