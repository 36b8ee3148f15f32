//! Any sequence of requests, moves, expiries, restarts and releases, against what the
//! sessions themselves believe. (S1-08, S1-14, S1-15)

use std::collections::BTreeMap;

use homeport_proto::{Agent, Instant};
use proptest::prelude::*;

use super::*;

type Name = (usize, u8);

const NAIS: [&[u8]; 2] = [NAI, OTHER_NAI];

#[derive(Clone, Debug)]
enum Op {
    /// Asks for an address, names the one that it believes to have, or the `u8`th of the
    /// pool; from the foreign agent, or from a place of its own.
    Register(Name, Option<Option<u8>>, bool),
    /// Ends the care-of address.
    End(Name),
    Release(Name),
    ReleaseAll(usize),
    Home(Name),
    Elapse(u64),
    Restart,
    Reload(bool),
}

fn name() -> impl Strategy<Value = Name> {
    (0..2usize, 0..5u8)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (name(), prop::option::of(prop::option::of(101..106u8)), any::<bool>())
            .prop_map(|(name, wanted, moved)| Op::Register(name, wanted, moved)),
        1 => name().prop_map(Op::End),
        2 => name().prop_map(Op::Release),
        1 => (0..2usize).prop_map(Op::ReleaseAll),
        3 => name().prop_map(Op::Home),
        4 => prop_oneof![0..20_000u64, 50_000..4_000_000u64].prop_map(Op::Elapse),
        2 => Just(Op::Restart),
        1 => any::<bool>().prop_map(Op::Reload),
    ]
}

/// What a session believes.
#[derive(Clone, Copy, Debug)]
struct Belief {
    address: Ipv4Addr,
    /// Until then the address is in use.
    until: Instant,
}

struct Run {
    world: World,
    beliefs: BTreeMap<Name, Belief>,
    /// What the disk has.
    stored: BTreeMap<Ipv4Addr, StoredSession>,
    reversed: bool,
}

const STICKY: u64 = 3_000;

fn config_of(reversed: bool) -> AgentConfig {
    config(|config| {
        with_pool(config, 106);
        config.max_lifetime = Lifetime(100);
        if reversed {
            let mut security = homeport_proto::security::SecurityAssociations::default();
            let forever = Lifetime::INFINITE;
            let own = Some(pooled(50));
            security.insert_nai(OTHER_NAI, own, other_key(), forever).unwrap();
            security.insert_nai(NAI, None, mobile_home(), forever).unwrap();
            config.security = security;
        }
    })
}

impl Run {
    fn take(&mut self, actions: Vec<Action>) -> Option<RegistrationReply> {
        let mut reply = None;
        for action in actions {
            match action {
                Action::StoreSession { session, .. } => {
                    let before = match session.kept {
                        true => self.stored.insert(session.home_address, session),
                        false => {
                            assert!(self.stored.remove(&session.home_address).is_some());
                            None
                        }
                    };
                    assert!(before.is_none(), "stored twice");
                }
                Action::Transmit(transmit) => {
                    reply = Some(parse_reply(udp(&transmit).2).body);
                }
                _ => {}
            }
        }
        reply
    }

    /// Sends it; the address of an accepting reply.
    fn ask(&mut self, ask: Ask<'_>) -> Option<Ipv4Addr> {
        // The home agent denies no more than so often.
        self.world.millis += 1_500;
        let message = ask.message(&mut self.world);
        let actions = self.world.relay(ask.care_of_address, &message);
        let reply = self.take(actions)?;
        reply.code.is_accepted().then_some(reply.home_address)
    }

    fn now(&self) -> Instant {
        self.world.now().monotonic
    }

    /// A session was told that it has an address.
    fn told(&mut self, name: Name, address: Ipv4Addr, lasts: u64) {
        let now = self.now();
        if let Some(before) = self.beliefs.get(&name).filter(|before| before.until > now) {
            assert_eq!(before.address, address, "a live session's address changed: {name:?}");
        }
        for (other, belief) in &self.beliefs {
            let clash = *other != name && belief.address == address && belief.until > now;
            assert!(!clash, "{address} is {other:?}'s and {name:?}'s");
        }
        let until = now + Duration::from_secs(lasts);
        self.beliefs.insert(name, Belief { address, until });
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Register((nai, sub), wanted, moved) => {
                let sub_nai = [sub + b'a'];
                let known = self.beliefs.get(&(nai, sub)).map(|belief| belief.address);
                let home_address = match wanted {
                    None => NO_ADDRESS,
                    Some(None) => known.unwrap_or(NO_ADDRESS),
                    Some(Some(last)) => pooled(last),
                };
                let care_of_address = if moved { STRANGER } else { FOREIGN };
                let ask = Ask { care_of_address, ..Ask::new(&sub_nai) };
                let ask = ask.of(NAIS[nai]).at(home_address);
                if let Some(address) = self.ask(ask) {
                    self.told((nai, sub), address, 60);
                }
            }
            Op::End((nai, sub)) | Op::Release((nai, sub)) | Op::Home((nai, sub)) => {
                let sub_nai = [sub + b'a'];
                let known = self.beliefs.get(&(nai, sub)).copied();
                let address = known.map_or(NO_ADDRESS, |belief| belief.address);
                let ask = Ask::new(&sub_nai).of(NAIS[nai]).at(address);
                match op {
                    Op::End(_) => {
                        if self.ask(ask.ends()).is_some() {
                            self.beliefs.remove(&(nai, sub));
                        }
                    }
                    Op::Release(_) => {
                        if self.ask(ask.releases()).is_some() {
                            self.beliefs.remove(&(nai, sub));
                        }
                    }
                    _ => {
                        if let Some(address) = self.ask(ask.home()) {
                            self.told((nai, sub), address, STICKY);
                        }
                    }
                }
            }
            Op::ReleaseAll(nai) => {
                if self.ask(Ask::new(b"").of(NAIS[nai]).releases()).is_some() {
                    self.beliefs.retain(|(of, _), _| *of != nai);
                }
            }
            Op::Elapse(millis) => {
                let actions = self.world.pass(millis);
                self.take(actions.into_iter().map(|(_, action)| action).collect());
            }
            Op::Restart => {
                let now = self.world.now();
                self.world.agent = Agent::new(config_of(self.reversed), [9; 32], now);
                for session in self.stored.values() {
                    let restored =
                        self.world.agent.restore_session(TENANT, HOME_AGENT, session, now);
                    assert!(restored, "{session:?}");
                }
                // Nothing from before the start is fresh.
                self.world.millis += 1_000;
            }
            Op::Reload(reversed) => {
                self.reversed = reversed;
                self.world.agent.handle_config(config_of(reversed), self.world.now());
                let actions = self.world.drain();
                self.take(actions);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// No address is ever two sessions', and no live session's address changes.
    #[test]
    fn addresses_are_one_sessions_each_and_stay_its(ops in prop::collection::vec(op(), 0..80)) {
        let mut run = Run {
            world: World::new(config_of(false)),
            beliefs: BTreeMap::new(),
            stored: BTreeMap::new(),
            reversed: false,
        };
        for op in ops {
            run.apply(op);
            let home_agent = run.world.agent.home_agents().next().unwrap();
            let sessions = home_agent.sessions(None);
            prop_assert_eq!(sessions.len(), run.stored.len());
            for session in &sessions {
                let stored = &run.stored[&session.home_address];
                prop_assert_eq!((&stored.nai[..], &stored.sub_nai[..]), (session.nai, session.sub_nai));
                let bound = home_agent.binding(session.home_address).is_some();
                prop_assert_eq!(bound, session.state == SessionState::Bound);
            }
            for binding in home_agent.bindings() {
                prop_assert!(run.stored.contains_key(&binding.home_address));
            }
        }
    }
}
