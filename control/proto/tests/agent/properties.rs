//! What holds for every sequence of inputs (B-09).

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use homeport_proto::config::AgentConfig;
use homeport_proto::message::{
    AuthenticationKind, Identification, RegistrationReply, RegistrationRequest, ReplyCode,
    RequestFlags,
};
use homeport_proto::{Action, Datagram, Lifetime, MacAddress, Payload, Transmit};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::support::*;

/// One thing that happens to the agents.
#[derive(Clone, Debug)]
enum Input {
    Request { node: u8, care_of: u8, flags: u8, lifetime: u16, skew: i8, spoil: bool, at: u8 },
    Reply { index: u8, code: u8, lifetime: u16 },
    Replay { index: u8 },
    Noise { bytes: Vec<u8>, at: u8 },
    Pass { millis: u32 },
    Clear { node: u8 },
    Reload { full: bool },
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        8 => (0..3u8, 0..5u8, any::<u8>(), 0..700u16, -10..10i8, any::<bool>(), 0..3u8).prop_map(
            |(node, care_of, flags, lifetime, skew, spoil, at)| Input::Request {
                node,
                care_of,
                // S, B, D and T; seldom M, G and reserved bits.
                flags: if skew == 9 { flags } else { flags & 0xe2 },
                lifetime,
                skew,
                spoil: spoil && skew > 5,
                at,
            }
        ),
        6 => (any::<u8>(), prop_oneof![Just(0), Just(1), 128..140u8], 0..400u16)
            .prop_map(|(index, code, lifetime)| Input::Reply { index, code, lifetime }),
        1 => any::<u8>().prop_map(|index| Input::Replay { index }),
        1 => (proptest::collection::vec(any::<u8>(), 0..80), 0..3u8)
            .prop_map(|(bytes, at)| Input::Noise { bytes, at }),
        1 => (0..400_000u32).prop_map(|millis| Input::Pass { millis }),
        1 => (0..3u8).prop_map(|node| Input::Clear { node }),
        1 => proptest::bool::weighted(0.8).prop_map(|full| Input::Reload { full }),
    ]
}

const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const NODES: [Ipv4Addr; 3] = [NODE, OTHER_NODE, STRAY_NODE];
/// Two of another agent's, ours, the home address, a co-located one.
const CARE_OF: [Ipv4Addr; 5] = [FOREIGN, CO_LOCATED, STRANGER, NODE, Ipv4Addr::new(10, 6, 0, 1)];

fn configuration(full: bool) -> AgentConfig {
    let mut foreign_agent = foreign_agent_config();
    foreign_agent.care_of_address = STRANGER;
    foreign_agent.security.insert_agent(ELSEWHERE, foreign_home());
    let mut home_agent = home_agent_config();
    if !full {
        home_agent.max_simultaneous = 1;
        foreign_agent.links.clear();
    }
    let mut advertiser = advertiser_config();
    advertiser.unsolicited = false;
    AgentConfig {
        home_agents: vec![home_agent],
        foreign_agents: vec![foreign_agent],
        advertisers: vec![advertiser],
    }
}

/// What the dataplane would hold, if it did as the actions say.
#[derive(Default)]
struct Tables {
    bindings: BTreeMap<Ipv4Addr, Vec<Ipv4Addr>>,
    visitors: BTreeMap<(Ipv4Addr, Ipv4Addr), MacAddress>,
}

impl Tables {
    /// Takes an action, and checks an accepting reply to `asked` against what is
    /// installed by now.
    fn take(&mut self, action: &Action, asked: Option<&RegistrationRequest>) {
        match action {
            Action::InstallBinding(state) => {
                assert!(!state.care_of_addresses.is_empty());
                let addresses = state.care_of_addresses.iter().map(|one| one.address).collect();
                self.bindings.insert(state.home_address, addresses);
            }
            Action::RemoveBinding { home_address, .. } => {
                assert!(self.bindings.remove(home_address).is_some(), "removed but not there");
            }
            Action::InstallVisitor(state) => {
                self.visitors.insert((state.home_address, state.home_agent), state.mac);
            }
            Action::RemoveVisitor { home_address, home_agent, .. } => {
                let key = (*home_address, *home_agent);
                assert!(self.visitors.remove(&key).is_some(), "removed but not there");
            }
            Action::Transmit(transmit) => {
                if let Payload::Udp { data, .. } = &transmit.payload
                    && data[0] == 3
                {
                    self.check_reply(transmit, parse_reply(data).body, asked);
                }
            }
            Action::GratuitousArp { .. } | Action::Event(_) | Action::StoreSession { .. } => {}
        }
    }

    fn check_reply(
        &self,
        transmit: &Transmit,
        reply: RegistrationReply,
        asked: Option<&RegistrationRequest>,
    ) {
        if !reply.code.is_accepted() {
            return;
        }
        let asked = asked.expect("an accepting reply answers a request");
        if reply.home_agent == ELSEWHERE {
            let (_, mac) = transmit.link.expect("a station");
            let forwarded = !asked.flags.contains(RequestFlags::CO_LOCATED);
            if forwarded && !reply.lifetime.is_zero() && !asked.lifetime.is_zero() {
                let key = (reply.home_address, reply.home_agent);
                assert_eq!(self.visitors.get(&key), Some(&mac));
            }
        } else {
            let bound = self.bindings.get(&reply.home_address);
            let bound = bound.is_some_and(|all| all.contains(&asked.care_of_address));
            assert_eq!(bound, !reply.lifetime.is_zero());
            assert!(reply.lifetime <= asked.lifetime);
        }
    }
}

struct Run {
    world: World,
    tables: Tables,
    asked: Vec<(RegistrationRequest, Vec<u8>)>,
    /// All that came out, for comparison.
    log: Vec<Action>,
    /// Replies that accepted something.
    accepted: usize,
}

impl Run {
    fn new() -> Run {
        Run {
            world: World::new(configuration(true)),
            tables: Tables::default(),
            asked: vec![],
            log: vec![],
            accepted: 0,
        }
    }

    fn take(&mut self, actions: Vec<Action>, asked: Option<&RegistrationRequest>) {
        for action in &actions {
            self.tables.take(action, asked);
            if let Action::Transmit(Transmit { payload: Payload::Udp { data, .. }, .. }) = action
                && data[0] == 3
            {
                self.accepted += usize::from(data[1] <= 1);
            }
        }
        self.log.extend(actions);
    }

    fn step(&mut self, input: &Input) {
        match input {
            Input::Request { node, care_of, flags, lifetime, skew, spoil, at } => {
                let now = self.world.timestamp();
                // Most requests to the foreign agent are for its care-of address.
                let plain = *at == 2 && *care_of < 3;
                let (care_of, flags) =
                    if plain { (2, flags & 0xdf) } else { (usize::from(*care_of), *flags) };
                let skew = u64::from_ne_bytes((i64::from(*skew) << 32).to_ne_bytes());
                let asked = RegistrationRequest {
                    flags: RequestFlags(flags),
                    lifetime: Lifetime(*lifetime),
                    home_address: NODES[usize::from(*node)],
                    home_agent: if *at == 2 { ELSEWHERE } else { HOME_AGENT },
                    care_of_address: CARE_OF[care_of],
                    identification: Identification(now.0.wrapping_add(skew)),
                };
                let mut message = sign(&asked);
                if *spoil {
                    *message.last_mut().unwrap() ^= 1;
                    self.send(&message, *at, None);
                } else {
                    self.asked.push((asked, message.clone()));
                    self.send(&message, *at, Some(&asked));
                }
            }
            Input::Reply { index, code, lifetime } => {
                let Some((asked, _)) = self.pick(*index) else { return };
                let reply = reply_to(&asked, ReplyCode(*code), *lifetime);
                let reply = append(&reply, AuthenticationKind::ForeignHome, &foreign_home());
                let datagram =
                    Datagram { destination: STRANGER, ..relayed(asked.home_agent, &reply) };
                let actions = self.world.send(&datagram);
                self.take(actions, Some(&asked));
            }
            Input::Replay { index } => {
                let Some((asked, message)) = self.pick(*index) else { return };
                self.send(&message, 0, Some(&asked));
            }
            Input::Noise { bytes, at } => self.send(bytes, *at, None),
            Input::Pass { millis } => {
                let actions = self.world.pass(u64::from(*millis));
                self.take(actions.into_iter().map(|(_, action)| action).collect(), None);
            }
            Input::Clear { node } => {
                let now = self.world.now();
                self.world.agent.clear_binding(TENANT, NODES[usize::from(*node)], now);
                let actions = self.world.drain();
                self.take(actions, None);
            }
            Input::Reload { full } => {
                let now = self.world.now();
                self.world.agent.handle_config(configuration(*full), now);
                let actions = self.world.drain();
                self.take(actions, None);
            }
        }
        self.check();
    }

    fn send(&mut self, message: &[u8], at: u8, asked: Option<&RegistrationRequest>) {
        let actions = match at {
            0 => self.world.relay(FOREIGN, message),
            1 => self.world.send(&direct(NODE, message)),
            _ => self.world.visit(message),
        };
        self.take(actions, asked);
    }

    fn pick(&self, index: u8) -> Option<(RegistrationRequest, Vec<u8>)> {
        // The last few are the ones that may be pending.
        let last = self.asked.len().checked_sub(1 + usize::from(index % 2))?;
        self.asked.get(last).cloned()
    }

    /// The lists and the tables derived from them agree after every input.
    fn check(&self) {
        let bindings: BTreeMap<_, Vec<_>> = self
            .world
            .agent
            .bindings()
            .map(|binding| {
                let addresses = binding.registrations.iter().map(|one| one.care_of.address);
                (binding.home_address, addresses.collect())
            })
            .collect();
        assert_eq!(bindings, self.tables.bindings);
        let visitors: BTreeMap<_, _> = self
            .world
            .agent
            .visitors()
            .map(|visitor| {
                let state = &visitor.state;
                ((state.home_address, state.home_agent), state.mac)
            })
            .collect();
        assert_eq!(visitors, self.tables.visitors);
        assert!(bindings.values().all(|addresses| addresses.len() <= 4));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    /// Install before reply, and lists that agree with the tables, for every
    /// sequence of inputs.
    #[test]
    fn an_accepting_reply_never_leaves_before_its_binding_or_visitor(
        inputs in proptest::collection::vec(input(), 1..40),
    ) {
        let mut run = Run::new();
        for input in &inputs {
            run.step(input);
        }
    }

    /// The same inputs and seed give the same outputs.
    #[test]
    fn a_recorded_list_of_inputs_replays_to_the_same_actions(
        inputs in proptest::collection::vec(input(), 1..30),
    ) {
        let [first, second] = [(), ()].map(|()| {
            let mut run = Run::new();
            inputs.iter().for_each(|input| run.step(input));
            run.log
        });
        prop_assert_eq!(first, second);
    }

    /// Noise behind a header that looks right: no panic, no state.
    #[test]
    fn noise_is_discarded_or_denied_and_changes_nothing(
        message_type in prop_oneof![Just(1u8), Just(3), any::<u8>()],
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        known in any::<bool>(),
        at in 0..3u8,
    ) {
        let mut message = noise;
        if let Some(first) = message.first_mut() {
            *first = message_type;
        }
        if known && message.len() >= 12 {
            message[4..8].copy_from_slice(&NODE.octets());
            message[8..12].copy_from_slice(&HOME_AGENT.octets());
        }
        let mut run = Run::new();
        run.send(&message, at, None);
        prop_assert_eq!(run.world.agent.bindings().count(), 0);
        prop_assert_eq!(run.world.agent.visitors().count(), 0);
    }
}

/// The property above is worth something only where requests get accepted.
#[test]
fn random_inputs_do_get_accepted() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut run = Run::new();
    for _ in 0..4_000 {
        let input = input().new_tree(&mut runner).unwrap().current();
        run.step(&input);
    }
    assert!(run.accepted > 100, "{}", run.accepted);
    let visitors = run.log.iter().filter(|one| matches!(one, Action::InstallVisitor(_))).count();
    assert!(visitors > 10, "{visitors}");
}
