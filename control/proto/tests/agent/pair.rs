//! A foreign agent and a home agent that talk to each other: what the one sends
//! is what the other takes.

use homeport_proto::message::{AuthenticationKind, RegistrationRequest, RequestFlags};
use homeport_proto::{Action, Datagram, Lifetime, ReverseTunnel, Transmit};

use crate::support::*;

struct Pair {
    foreign: World,
    home: World,
}

/// All three kinds of authentication in use.
fn pair() -> Pair {
    Pair {
        foreign: World::foreign(|config| {
            config.revocation = true;
            config.security.insert_agent(HOME_AGENT, foreign_home());
            config.security.insert_mobile_node(NODE, mobile_foreign());
        }),
        home: World::home(|config| {
            config.revocation = true;
            config.security.insert_agent(FOREIGN, foreign_home());
        }),
    }
}

/// What is sent routed, as its destination receives it.
fn carry(transmit: &Transmit) -> Datagram<'_> {
    assert_eq!(transmit.link, None);
    let (source_port, destination_port, payload) = udp(transmit);
    Datagram {
        tenant: TENANT,
        port: CORE,
        source_mac: ROUTER_MAC,
        destination_mac: OUR_MAC,
        source: transmit.source,
        destination: transmit.destination,
        source_port,
        destination_port,
        ttl: transmit.ttl - 2,
        payload,
    }
}

impl Pair {
    /// Sends a request by way of both agents: their actions, the foreign agent's
    /// second ones last.
    fn register(&mut self, asked: &RegistrationRequest) -> (Vec<Action>, Vec<Action>) {
        let message = append(&sign(asked), AuthenticationKind::MobileForeign, &mobile_foreign());
        let relayed = self.foreign.visit(&message);
        let at_home = self.home.send(&carry(transmits(&relayed)[0]));
        let reply = transmits(&at_home)[0].clone();
        let back = self.foreign.send(&carry(&reply));
        (at_home, back)
    }

    fn request(&mut self) -> RegistrationRequest {
        let asked = request(self.foreign.timestamp());
        self.home.millis = self.foreign.millis;
        asked
    }
}

/// B-01, B-02: registration, renewal and deregistration through both agents.
#[test]
fn a_node_registers_renews_and_deregisters_through_both_agents() {
    let mut pair = pair();
    for _ in 0..2 {
        let mut asked = pair.request();
        asked.flags = RequestFlags::REVERSE_TUNNEL;
        asked.lifetime = Lifetime(200);
        let (at_home, back) = pair.register(&asked);
        assert_eq!(installed(&at_home)[0].address, FOREIGN);
        assert!(installed(&at_home)[0].reverse_tunnel);
        assert_eq!(back[0], Action::InstallVisitor(visitor(ReverseTunnel::Direct)));
        assert_eq!(the_code(&back), 0);
        let reply = parse_reply(udp(transmits(&back)[0]).2);
        assert_eq!(reply.extensions().len(), 2, "the foreign-home one was consumed");
        let last = *reply.extensions().last().unwrap();
        assert!(reply.verify(&last, &mobile_foreign()));
    }
    let mut away = pair.request();
    away.lifetime = Lifetime::ZERO;
    let (at_home, back) = pair.register(&away);
    assert_eq!(at_home[0], Action::RemoveBinding { tenant: TENANT, home_address: NODE });
    assert_eq!(back[0], the_visitor_is_removed());
    assert_eq!(the_code(&back), 0);
}

/// The foreign agent does not outlive the home agent's patience: both ends forget
/// a silent node at the lifetime that the home agent granted.
#[test]
fn both_agents_forget_a_silent_node() {
    let mut pair = pair();
    let mut asked = pair.request();
    asked.lifetime = Lifetime(300);
    assert_eq!(the_code(&pair.register(&asked).1), 0);
    pair.foreign.pass(300_000);
    pair.home.pass(300_000);
    assert_eq!(pair.foreign.agent.visitors().count(), 0);
    assert_eq!(pair.home.agent.bindings().count(), 0);
}

/// A denial on its way back, and the node's second try with the time it was told.
#[test]
fn a_133_comes_back_through_the_foreign_agent_and_brings_the_clock() {
    let mut pair = pair();
    let mut asked = pair.request();
    asked.identification.0 -= 100 << 32;
    let (_, back) = pair.register(&asked);
    assert_eq!(the_code(&back), 133);
    assert_eq!(pair.foreign.agent.visitors().count(), 0);
    let told = the_reply(&back).identification;
    assert_eq!(told.low(), asked.identification.low());
    asked.identification = told;
    asked.identification.0 |= 0xffff_ffff;
    assert_eq!(the_code(&pair.register(&asked).1), 0);
}

/// B-11: what the operator of either end takes away is gone at the other end too, and
/// each hears of it.
// Shows 3543-4.2.2.2-f.
#[test]
fn a_node_that_is_cleared_at_either_end_is_gone_at_both() {
    for at_home in [true, false] {
        let mut pair = pair();
        let asked = pair.request();
        assert_eq!(the_code(&pair.register(&asked).1), 0);
        pair.home.millis += 2_000;
        pair.foreign.millis += 2_000;
        let (cleared, other) = match at_home {
            true => (&mut pair.home, &mut pair.foreign),
            false => (&mut pair.foreign, &mut pair.home),
        };
        let now = cleared.now();
        cleared.agent.clear_binding(TENANT, NODE, now);
        cleared.agent.clear_visitor(TENANT, NODE, now);
        let actions = cleared.drain();
        let answers = other.send(&carry(transmits(&actions)[0]));
        assert_eq!(other.agent.bindings().count() + other.agent.visitors().count(), 0);
        cleared.send(&carry(transmits(&answers)[0]));
        assert_eq!(cleared.counters().revocations_acknowledged, 1);
        assert!(transmits(&cleared.drain()).is_empty());
        assert_eq!(cleared.counters().revocations_sent, 1);
    }
}
