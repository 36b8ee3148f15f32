//! A home agent that the network chooses (RFC 4433 §5.1).

use super::*;
use crate::message::{
    DynamicHomeAgent, DynamicHomeAgentFraming, DynamicHomeAgentKind, Extension, Message,
};

const fn other(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, 100 + number)
}

/// A node that shares keys with the home agents 0 to 5.
fn open() -> MobileNodeConfig {
    let mut config = config();
    config.dynamic_home_agent = Some(DynamicHomeAgentFraming::Rfc4433);
    (0..=5).for_each(|number| config.security.insert_agent(other(number), with_home_agent()));
    config
}

/// The Home Agent field, and who is asked for.
fn asked(sent: &Sent) -> (Ipv4Addr, Option<Ipv4Addr>) {
    let Ok(Message::Request(request)) = Message::parse(&sent.send.bytes) else { panic!() };
    let end = request.mobile_home_authentication().unwrap().offset;
    let requested = request.extensions().iter().find_map(|one| match one.extension {
        Extension::DynamicHomeAgent(said) if one.offset < end => Some(said.address),
        _ => None,
    });
    (request.body.home_agent, requested)
}

impl World {
    /// The home agent that was asked sends the node elsewhere.
    fn redirect(&mut self, from: Ipv4Addr, to: Option<Ipv4Addr>) {
        let mut reply = self.last().reply(ReplyCode::REDIRECTED_HOME_AGENT, 0);
        reply.home_agent = from;
        let mut writer = MessageWriter::reply(&reply);
        if let Some(address) = to {
            let kind = DynamicHomeAgentKind::Redirected;
            let framing = DynamicHomeAgentFraming::Short;
            let said = DynamicHomeAgent { kind, address, framing };
            writer.extension(&Extension::DynamicHomeAgent(said)).unwrap();
        }
        writer.authenticate(AuthenticationKind::MobileHome, &with_home_agent());
        self.receive(&writer.finish());
    }

    fn accept_as(&mut self, home_agent: Ipv4Addr) {
        let mut reply = self.last().reply(ReplyCode::ACCEPTED, 100);
        reply.home_agent = home_agent;
        self.receive(&signed(&reply));
    }

    fn by_itself(config: MobileNodeConfig) -> Self {
        let mut world = World::up(config);
        world.pass(100);
        world.co_located();
        world
    }
}

#[test]
fn a_node_follows_to_the_home_agent_that_takes_it_and_stays() {
    for through_agent in [true, false] {
        let mut world = match through_agent {
            true => World::up(open()),
            false => World::by_itself(open()),
        };
        if through_agent {
            world.hear(&Advertised::foreign(FIRST));
        }
        let nobody = Ipv4Addr::UNSPECIFIED;
        assert_eq!(asked(&world.last()), (nobody, Some(HOME_AGENT)));
        world.redirect(HOME_AGENT, Some(other(1)));
        assert_eq!(asked(&world.last()), (nobody, Some(other(1))));
        assert!(world.did(&MobileNodeAction::UseHomeAgent(other(1))));
        world.redirect(other(1), Some(other(2)));
        assert_eq!(asked(&world.last()), (nobody, Some(other(2))));
        let destination = if through_agent { FIRST } else { other(2) };
        assert_eq!(world.last().send.destination, destination);
        world.accept_as(other(2));
        assert_eq!(world.node.phase(), Phase::Registered);
        assert_eq!(world.node.config().home_agent, other(2));
        let followed =
            MobileNodeAction::Event(MobileNodeEvent::Redirected { from: other(1), to: other(2) });
        assert!(world.did(&followed));
        // From now on it is the node's home agent, by name (§5.1.2).
        world.pass_hearing(60, &mut [Advertised { sequence: 9, ..Advertised::foreign(FIRST) }]);
        assert!(world.requests().len() > 3);
        assert_eq!(asked(&world.last()), (other(2), None));
    }
}

/// §4.2: in a circle, too far, without a key, without a name: a denial like another, and
/// from the start after its wait.
#[test]
fn a_node_does_not_follow_for_ever() {
    let chains: [&[Option<Ipv4Addr>]; 5] = [
        &[Some(other(1)), Some(other(2)), Some(HOME_AGENT)],
        &[Some(HOME_AGENT)],
        &[Some(other(1)), Some(other(2)), Some(other(3)), Some(other(4)), Some(other(5))],
        &[Some(Ipv4Addr::new(10, 0, 9, 9))],
        &[None],
    ];
    for chain in chains {
        let mut world = World::by_itself(open());
        let mut from = HOME_AGENT;
        for to in chain {
            world.redirect(from, *to);
            from = to.unwrap_or(from);
        }
        assert_eq!(world.requests().len(), chain.len(), "{chain:?}");
        let refused = |event: &MobileNodeEvent| matches!(event, MobileNodeEvent::RedirectionRefused { to, .. } if to == chain.last().unwrap());
        assert!(world.events().iter().any(refused), "{chain:?}");
        world.pass(10_000);
        assert!(world.requests().len() > chain.len(), "it asks again");
        assert_eq!(asked(&world.requests()[chain.len()]).1, Some(HOME_AGENT));
    }
}

/// Only a home agent that is asked sends anybody anywhere, and only who lets itself be
/// sent.
#[test]
fn a_redirection_is_believed_of_the_home_agent_that_was_asked_alone() {
    let mut world = World::by_itself(open());
    world.redirect(other(1), Some(other(2)));
    assert_eq!(world.discards(), [DiscardReason::WrongHomeAgent]);
    let mut reply = world.last().reply(ReplyCode::REDIRECTED_HOME_AGENT, 0);
    reply.home_agent = HOME_AGENT;
    world.receive(&reply.emit());
    assert_eq!(world.discards().len(), 2);
    assert_eq!(world.requests().len(), 1);
    let mut fixed = open();
    fixed.dynamic_home_agent = None;
    let mut world = World::by_itself(fixed);
    assert_eq!(asked(&world.last()), (HOME_AGENT, None));
    world.redirect(HOME_AGENT, Some(other(1)));
    assert_eq!(world.requests().len(), 1);
    assert_eq!(world.node.config().home_agent, HOME_AGENT);
}

/// A foreign agent's own denial has the field as it was.
#[test]
fn a_foreign_agents_denial_of_an_open_request_is_heard() {
    let mut world = World::up(open());
    world.hear(&Advertised::foreign(FIRST));
    world.deny(ReplyCode::NONZERO_HOME_AGENT_REQUIRED);
    assert!(world.discards().is_empty());
    let code = ReplyCode::NONZERO_HOME_AGENT_REQUIRED;
    assert!(world.events().contains(&MobileNodeEvent::Denied { code }));
}

/// Who was sent to a home agent that is gone asks the one of the config again.
#[test]
fn a_home_agent_that_does_not_answer_is_not_kept() {
    let mut world = World::by_itself(open());
    world.redirect(HOME_AGENT, Some(other(1)));
    world.pass(30_000);
    assert_eq!(asked(&world.last()).1, Some(HOME_AGENT));
    assert_eq!(world.node.config().home_agent, HOME_AGENT);
}
