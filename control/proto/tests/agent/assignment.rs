//! Home agents that the network chooses (RFC 4433).

use core::net::Ipv4Addr;

use homeport_proto::config::{AgentConfig, HomeAgentAssignment, Redirection};
use homeport_proto::message::{
    AuthenticationKind, DynamicHomeAgent, DynamicHomeAgentFraming, DynamicHomeAgentKind, Extension,
    MessageWriter, RegistrationReply, RegistrationRequest, ReplyCode,
};
use homeport_proto::{Action, Datagram, Lifetime};

use crate::foreign_agent::{denied, relayed_bytes};
use crate::support::*;

pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 9);
pub(crate) const ANY: [Ipv4Addr; 2] = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST];
const FRAMINGS: [DynamicHomeAgentFraming; 2] =
    [DynamicHomeAgentFraming::Rfc4433, DynamicHomeAgentFraming::Short];

fn extension(
    kind: DynamicHomeAgentKind,
    address: Ipv4Addr,
    framing: DynamicHomeAgentFraming,
) -> Extension<'static> {
    Extension::DynamicHomeAgent(DynamicHomeAgent { kind, address, framing })
}

/// A signed request that asks for a home agent.
pub(crate) fn asking(
    asked: &RegistrationRequest,
    requested: Option<(Ipv4Addr, DynamicHomeAgentFraming)>,
) -> Vec<u8> {
    let mut writer = MessageWriter::request(asked);
    if let Some((address, framing)) = requested {
        writer.extension(&extension(DynamicHomeAgentKind::Requested, address, framing)).unwrap();
    }
    writer.authenticate(AuthenticationKind::MobileHome, &mobile_home());
    writer.finish()
}

pub(crate) fn open(world: &mut World, home_agent: Ipv4Addr) -> RegistrationRequest {
    RegistrationRequest { home_agent, ..request(world.timestamp()) }
}

pub(crate) fn assigning(redirect_to: Option<Ipv4Addr>, redirection: Redirection) -> World {
    World::home(|config| {
        config.max_bindings = 1;
        config.assignment = HomeAgentAssignment {
            assigns: true,
            redirect_to,
            redirection,
            framing: DynamicHomeAgentFraming::default(),
        };
    })
}

/// Where the only reply sends the node, under the mobile-home authentication.
fn sent_to(actions: &[Action]) -> Option<Ipv4Addr> {
    let reply = parse_reply(udp(transmits(actions)[0]).2);
    let signed = reply.mobile_home_authentication().unwrap();
    assert!(reply.verify(signed, &mobile_home()));
    reply.extensions().iter().find_map(|one| match one.extension {
        Extension::DynamicHomeAgent(said) if one.offset < signed.offset => {
            assert_eq!(said.kind, DynamicHomeAgentKind::Redirected);
            Some(said.address)
        }
        _ => None,
    })
}

/// RFC 4433 §5.3.1, table 1; §5.3 for the extension.
#[test]
fn a_request_that_names_nobody_is_assigned_to_who_gets_it() {
    for any in ANY {
        for requested in [None, Some(HOME_AGENT)] {
            for framing in FRAMINGS {
                let mut world = assigning(None, Redirection::WhenFull);
                let asked = open(&mut world, any);
                let message = asking(&asked, requested.map(|address| (address, framing)));
                let actions = world.relay(FOREIGN, &message);
                assert_eq!(the_code(&actions), 0);
                assert_eq!(the_reply(&actions).home_agent, HOME_AGENT);
                assert_eq!(installed(&actions), [care_of(FOREIGN, 60)]);
            }
        }
    }
}

#[test]
fn a_request_for_another_home_agent_is_denied_with_136() {
    for (home_agent, requested) in [
        (Ipv4Addr::UNSPECIFIED, Some(OTHER)),
        (HOME_AGENT, Some(OTHER)),
        (OTHER, None),
        (OTHER, Some(HOME_AGENT)),
    ] {
        let mut world = assigning(None, Redirection::WhenFull);
        let asked = open(&mut world, home_agent);
        let message = asking(&asked, requested.map(|one| (one, FRAMINGS[0])));
        assert_eq!(the_code(&world.relay(FOREIGN, &message)), 136, "{home_agent} {requested:?}");
    }
    // Where nodes are not assigned, the extension says nothing.
    let mut world = World::home(|_| {});
    for any in ANY {
        let asked = open(&mut world, any);
        assert_eq!(the_code(&world.relay(FOREIGN, &asking(&asked, None))), 136);
    }
    let asked = open(&mut world, HOME_AGENT);
    let message = asking(&asked, Some((OTHER, FRAMINGS[0])));
    assert_eq!(the_code(&world.relay(FOREIGN, &message)), 0);
    // A discovery stays one.
    let mut world = assigning(None, Redirection::WhenFull);
    let asked = open(&mut world, Ipv4Addr::BROADCAST);
    let message = asking(&asked, None);
    let broadcast =
        Datagram { destination: Ipv4Addr::new(10, 1, 0, 255), ..relayed(FOREIGN, &message) };
    assert_eq!(the_code(&world.send(&broadcast)), 136);
}

#[test]
fn a_full_home_agent_sends_who_is_open_elsewhere_with_143() {
    let mut world = assigning(Some(OTHER), Redirection::WhenFull);
    let asked = open(&mut world, ANY[0]);
    let actions = world.relay(FOREIGN, &asking(&asked, None));
    assert_eq!((the_code(&actions), sent_to(&actions)), (0, None), "there was room");
    let other = |world: &mut World, home_agent, requested| {
        let asked = RegistrationRequest { home_address: OTHER_NODE, ..open(world, home_agent) };
        let actions = world.relay(FOREIGN, &asking(&asked, requested));
        (the_code(&actions), sent_to(&actions), the_reply(&actions).home_agent)
    };
    assert_eq!(other(&mut world, ANY[1], None), (143, Some(OTHER), HOME_AGENT));
    // Who says that it is us, and lets itself be sent (§4.1, step 2); who does not.
    let requested = Some((HOME_AGENT, FRAMINGS[0]));
    assert_eq!(other(&mut world, HOME_AGENT, requested), (143, Some(OTHER), HOME_AGENT));
    assert_eq!(other(&mut world, HOME_AGENT, None), (130, None, HOME_AGENT));
    // Who is bound stays.
    let asked = open(&mut world, ANY[0]);
    assert_eq!(the_code(&world.relay(FOREIGN, &asking(&asked, None))), 0);
    assert_eq!(world.counters().denied_with(ReplyCode::REDIRECTED_HOME_AGENT), 2);
    assert_eq!(world.agent.bindings().count(), 1);
}

#[test]
fn a_home_agent_may_send_everybody_elsewhere_but_who_leaves() {
    let mut world = assigning(Some(OTHER), Redirection::Always);
    let asked = open(&mut world, ANY[0]);
    let actions = world.relay(FOREIGN, &asking(&asked, None));
    assert_eq!((the_code(&actions), sent_to(&actions)), (143, Some(OTHER)));
    let asked = RegistrationRequest { lifetime: Lifetime::ZERO, ..open(&mut world, ANY[0]) };
    assert_eq!(the_code(&world.relay(FOREIGN, &asking(&asked, None))), 0);
    // Nobody is sent away who is not who he says.
    let asked = open(&mut world, ANY[0]);
    let mut forged = asking(&asked, None);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(the_code(&world.relay(FOREIGN, &forged)), 131);
}

/// What the other framing, or a length that is none, makes of it.
#[test]
fn a_redirection_is_written_as_the_operator_wants_it() {
    for (framing, bytes) in
        [(FRAMINGS[0], &[139, 2, 0, 4, 10, 0, 1, 9][..]), (FRAMINGS[1], &[139, 5, 2, 10, 0, 1, 9])]
    {
        let mut world = World::home(|config| {
            config.assignment = HomeAgentAssignment {
                assigns: true,
                redirect_to: Some(OTHER),
                redirection: Redirection::Always,
                framing,
            };
        });
        let asked = open(&mut world, ANY[0]);
        let actions = world.relay(FOREIGN, &asking(&asked, None));
        let reply = udp(transmits(&actions)[0]).2;
        assert_eq!(reply[RegistrationReply::LEN..][..bytes.len()], *bytes);
    }
    // Of another subtype or length it is skipped like any other that is not known.
    for skipped in [&[139, 5, 3, 10, 0, 1, 9][..], &[139, 4, 1, 10, 0, 1], &[139, 0], &[139, 1, 1]]
    {
        let mut world = assigning(None, Redirection::WhenFull);
        let asked = open(&mut world, ANY[0]);
        let mut message = asked.emit().to_vec();
        message.extend(skipped);
        let message = append(&message, AuthenticationKind::MobileHome, &mobile_home());
        assert_eq!(the_code(&world.relay(FOREIGN, &message)), 0, "{skipped:?}");
    }
}

/// RFC 4433 §5.2: to whom the node asks for, else to whom the operator says.
#[test]
fn a_foreign_agent_relays_what_names_nobody_to_who_is_asked_for() {
    for any in ANY {
        let mut world = World::foreign(|config| {
            config.assigned_home_agent = Some(HOME_AGENT);
            config.security.insert_agent(HOME_AGENT, foreign_home());
        });
        for requested in [None, Some((HOME_AGENT, FRAMINGS[0])), Some((HOME_AGENT, FRAMINGS[1]))] {
            let asked = open(&mut world, any);
            let message = asking(&asked, requested);
            let relayed = relayed_bytes(&world.visit(&message));
            assert_eq!(relayed[..message.len()], message);
            // The reply says who it was; from another, it is none.
            let answered = RegistrationRequest { home_agent: HOME_AGENT, ..asked };
            let reply = reply_to(&answered, ReplyCode::ACCEPTED, 60);
            let reply = append(&reply, AuthenticationKind::ForeignHome, &foreign_home());
            let source_port = 434;
            let stranger =
                Datagram { destination: FOREIGN, source_port, ..relayed_from(OTHER, &reply) };
            assert!(transmits(&world.send(&stranger)).is_empty());
            let actions = world.answer(&reply);
            assert_eq!(the_reply(&actions).home_agent, HOME_AGENT);
            let visitor = world.agent.visitors().next().unwrap();
            assert_eq!(visitor.state.home_agent, HOME_AGENT);
        }
    }
    // The extension is the node's word; the operator's is for who says nothing.
    let mut world = World::foreign(|config| config.assigned_home_agent = Some(HOME_AGENT));
    let asked = open(&mut world, ANY[0]);
    let actions = world.visit(&asking(&asked, Some((OTHER, FRAMINGS[0]))));
    assert_eq!(transmits(&actions)[0].destination, OTHER);
}

fn relayed_from(source: Ipv4Addr, payload: &[u8]) -> Datagram<'_> {
    relayed(source, payload)
}

#[test]
fn a_request_for_nobody_that_one_can_find_is_denied_with_90() {
    let mut world = World::foreign(|_| {});
    for (home_agent, requested) in [
        (ANY[0], None),
        (ANY[1], None),
        (ANY[0], Some(Ipv4Addr::UNSPECIFIED)),
        (ANY[0], Some(Ipv4Addr::BROADCAST)),
        (ANY[0], Some(Ipv4Addr::new(224, 0, 0, 11))),
        (HOME_AGENT, Some(Ipv4Addr::LOCALHOST)),
    ] {
        world.millis += 1_000;
        let asked = open(&mut world, home_agent);
        let message = asking(&asked, requested.map(|one| (one, FRAMINGS[0])));
        assert_eq!(denied(&world.visit(&message)), 90, "{home_agent} {requested:?}");
    }
    // A home agent that one can find, but that is no host's address, as before.
    world.millis += 1_000;
    let asked = open(&mut world, Ipv4Addr::LOCALHOST);
    assert_eq!(denied(&world.visit(&asking(&asked, None))), 194);
}

/// A home agent of the same process takes what is asked of it on a visited link.
#[test]
fn a_home_agent_beside_the_foreign_agent_is_asked_directly() {
    let mut home = home_agent_config();
    home.assignment.assigns = true;
    let mut world = World::new(AgentConfig {
        home_agents: vec![home],
        foreign_agents: vec![foreign_agent_config()],
        ..AgentConfig::default()
    });
    let mut asked = open(&mut world, ANY[0]);
    asked.care_of_address = STRANGER;
    let actions = world.visit(&asking(&asked, Some((HOME_AGENT, FRAMINGS[0]))));
    assert_eq!(the_code(&actions), 0);
    assert_eq!(world.agent.bindings().count(), 1);
}
