//! An agent is run again without its seed and its keys, from what it has drawn.

use homeport_proto::config::AgentConfig;
use homeport_proto::draws::{Differing, Drawn, Draws};
use homeport_proto::message::AuthenticationKind;
use homeport_proto::{Action, Agent, Lifetime, Now};

use crate::support::*;

/// A home agent and a foreign agent that share keys with all that there is.
fn config() -> AgentConfig {
    let mut home = home_agent_config();
    home.security.insert_agent(STRANGER, foreign_home());
    let mut foreign = foreign_agent_config();
    foreign.security.insert_agent(STRANGER, foreign_home());
    foreign.security.insert_mobile_node(NODE, mobile_foreign());
    AgentConfig {
        home_agents: vec![home],
        foreign_agents: vec![foreign],
        advertisers: vec![advertiser_config()],
    }
}

/// The config as it is kept: without keys.
fn without_keys(config: &AgentConfig) -> AgentConfig {
    let text = serde_json::to_string(config).unwrap();
    assert!(!text.contains("key\":"), "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Something that happens: whose datagram and where, or a timeout.
type Step = (Now, Option<(bool, Vec<u8>)>);

fn steps() -> Vec<Step> {
    let mut clock = World::home(|_| {});
    let mut steps = Vec::new();
    for round in 0..4 {
        let mut asked = request(clock.timestamp());
        let relayed = append(&sign(&asked), AuthenticationKind::ForeignHome, &foreign_home());
        steps.push((clock.now(), Some((true, relayed.clone()))));
        // The same again, and one under another's key.
        steps.push((clock.now(), Some((true, relayed))));
        let mut wrong = mobile_home();
        wrong.key = mobile_foreign().key;
        let forged =
            append(&sign_with(&asked, &wrong), AuthenticationKind::ForeignHome, &foreign_home());
        steps.push((clock.now(), Some((true, forged))));
        asked.home_address = NONCE_NODE;
        let nonces = sign_with(&asked, &mobile_home_nonces());
        let nonces = append(&nonces, AuthenticationKind::ForeignHome, &foreign_home());
        steps.push((clock.now(), Some((true, nonces))));
        // To the foreign agent, for a home agent elsewhere.
        let mut asked = request(clock.timestamp());
        (asked.home_agent, asked.lifetime) = (STRANGER, Lifetime(30 + round));
        let visiting = append(&sign(&asked), AuthenticationKind::MobileForeign, &mobile_foreign());
        steps.push((clock.now(), Some((false, visiting))));
        clock.millis += 700;
        steps.push((clock.now(), None));
    }
    steps
}

fn take(agent: &mut Agent, (now, what): &Step) -> Vec<Action> {
    match what {
        Some((true, payload)) => agent.handle_datagram(&relayed(STRANGER, payload), *now),
        Some((false, payload)) => agent.handle_datagram(&visiting(payload), *now),
        None => agent.handle_timeout(*now),
    }
    core::iter::from_fn(|| agent.poll_action()).collect()
}

#[test]
fn without_seed_and_keys_what_was_drawn_gives_the_same_actions() {
    let (config, start) = (config(), now_at(1_000, 0));
    let mut agent = Agent::with_draws(config.clone(), Draws::noted([9; 32]), start);
    let first = agent.take_drawn();
    let mut again = Agent::with_draws(without_keys(&config), Draws::given(first), start);
    let mut all = Drawn::default();
    for (number, step) in steps().iter().enumerate() {
        let actions = take(&mut agent, step);
        let drawn = agent.take_drawn();
        all.numbers.extend(&drawn.numbers);
        all.authentic.extend(&drawn.authentic);
        all.authenticators.extend(drawn.authenticators.clone());
        // As it is kept, and read again.
        let text = serde_json::to_string(&(&drawn, &actions)).unwrap();
        let (drawn, expected): (Drawn, Vec<Action>) = serde_json::from_str(&text).unwrap();
        assert_eq!(expected, actions);
        again.give(drawn);
        assert_eq!(take(&mut again, step), expected, "step {number}");
        assert_eq!(again.differing(), Differing::default(), "step {number}");
    }
    // All kinds were drawn, and both answers.
    assert!(all.numbers.len() > 4 && all.authenticators.len() > 8, "{all:?}");
    assert!(all.authentic.contains(&true) && all.authentic.contains(&false));
}

#[test]
fn a_run_that_draws_something_else_says_so() {
    let (config, start) = (config(), now_at(1_000, 0));
    let mut again = Agent::with_draws(without_keys(&config), Draws::given(Drawn::default()), start);
    assert!(again.differing().missing > 0);
    let unused = Drawn { authentic: vec![true; 3], ..Drawn::default() };
    again.give(unused);
    // Nothing is authentic without keys, and nothing is said of it.
    let stranger = relayed(STRANGER, b"noise");
    again.handle_datagram(&stranger, now_at(2_000, 0));
    assert_eq!(again.differing(), Differing { missing: 0, left: 3 });
}
