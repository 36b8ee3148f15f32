//! Whatever comes, in whatever order: no panic, no spinning, no belief (B-09).

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Input {
    Link(bool),
    Advertisement {
        host: u8,
        flags: u16,
        sequence: u16,
        lifetime: u16,
        prefix_len: u8,
    },
    NoiseAdvertisement(Vec<u8>),
    CoLocated(u8),
    CoLocatedLost,
    Reply {
        code: u8,
        lifetime: u16,
        authentic: bool,
        flip: u32,
    },
    NoiseDatagram(Vec<u8>),
    Pass(u64),
    Stop,
    AddSession {
        name: u8,
        wanted: Option<u8>,
    },
    RemoveSession(u8),
    RemoveAllSessions,
    /// A reply to one of the last requests, with its name.
    SessionReply {
        back: usize,
        code: u8,
        host: u8,
        lifetime: u16,
    },
}

fn input() -> impl Strategy<Value = Input> {
    let noise = || proptest::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        2 => any::<bool>().prop_map(Input::Link),
        6 => (1u8..6, any::<u16>(), any::<u16>(), 0u16..10, 0u8..40).prop_map(
            |(host, flags, sequence, lifetime, prefix_len)| Input::Advertisement {
                host, flags, sequence, lifetime, prefix_len
            }
        ),
        1 => noise().prop_map(Input::NoiseAdvertisement),
        2 => (0u8..4).prop_map(Input::CoLocated),
        1 => Just(Input::CoLocatedLost),
        6 => (prop_oneof![Just(0), Just(1), any::<u8>()], any::<u16>(), any::<bool>(), prop_oneof![4 => Just(0), 1 => any::<u32>()]).prop_map(
            |(code, lifetime, authentic, flip)| Input::Reply { code, lifetime, authentic, flip }
        ),
        1 => noise().prop_map(Input::NoiseDatagram),
        6 => (0u64..20_000).prop_map(Input::Pass),
        1 => Just(Input::Stop),
        4 => (0u8..8, proptest::option::of(95u8..105)).prop_map(|(name, wanted)| {
            Input::AddSession { name, wanted }
        }),
        2 => (0u8..8).prop_map(Input::RemoveSession),
        1 => Just(Input::RemoveAllSessions),
        12 => (0usize..8, prop_oneof![4 => Just(0), 1 => Just(133), 2 => any::<u8>()], 0u8..16, 0u16..200).prop_map(
            |(back, code, host, lifetime)| Input::SessionReply { back, code, host, lifetime }
        ),
    ]
}

fn apply(world: &mut World, input: &Input) {
    match input {
        Input::Link(up) => world.link(*up),
        Input::Advertisement { host, flags, sequence, lifetime, prefix_len } => {
            let [a, b, c, _] = if *host < 3 { FIRST.octets() } else { HOME_GATEWAY.octets() };
            world.hear(&Advertised {
                address: Ipv4Addr::new(a, b, c, *host),
                flags: AgentFlags(*flags),
                sequence: *sequence,
                lifetime: *lifetime,
                registration_lifetime: Lifetime(*sequence),
                prefix_len: Some(*prefix_len),
            });
        }
        Input::NoiseAdvertisement(bytes) => {
            world.input(|node, now| {
                node.handle_advertisement(FIRST, mac_of(FIRST), bytes, 1, now);
            });
        }
        Input::CoLocated(host) => {
            let address = Ipv4Addr::new(10, 2, 3, 100 + host);
            let lease = (*host > 1).then_some(Duration::from_secs(u64::from(*host)));
            let co_located = CoLocated { address, lease, ..CO_LOCATED };
            world.input(|node, now| node.handle_co_located(co_located, now));
        }
        Input::CoLocatedLost => world.input(|node, now| node.handle_co_located_lost(now)),
        Input::Reply { code, lifetime, authentic, flip } => {
            if let Some(sent) = world.requests().pop() {
                let mut reply = sent.reply(ReplyCode(*code), *lifetime);
                reply.identification.0 ^= u64::from(*flip) << 32;
                let bytes = if *authentic { signed(&reply) } else { reply.emit().to_vec() };
                world.receive(&bytes);
            }
        }
        Input::NoiseDatagram(bytes) => {
            world.input(|node, now| node.handle_datagram(FIRST, 434, bytes, now));
        }
        Input::Pass(milliseconds) => world.pass(*milliseconds),
        Input::Stop => world.input(|node, now| node.handle_stop(now)),
        Input::AddSession { name, wanted } => {
            let wanted = wanted.map(|host| Ipv4Addr::new(10, 1, 0, host));
            world.input(|node, now| {
                let _ = node.add_session(&[*name], wanted, now);
            });
        }
        Input::RemoveSession(name) => {
            world.input(|node, now| {
                node.remove_session(&[*name], now);
            });
        }
        Input::RemoveAllSessions => {
            world.input(|node, now| {
                let _ = node.remove_all_sessions(now);
            });
        }
        Input::SessionReply { .. } if world.node.config().nai.is_none() => {}
        Input::SessionReply { back, code, host, lifetime } => {
            let sent = world.requests();
            if let Some(sent) = sent.len().checked_sub(1 + back).and_then(|at| sent.get(at)) {
                let address = match host {
                    0 => Ipv4Addr::UNSPECIFIED,
                    1 => sent.body.home_address,
                    host => Ipv4Addr::new(10, 1, 0, *host),
                };
                let bytes = super::sessions::reply_for(sent, ReplyCode(*code), address, *lifetime);
                let from = sent.send.destination;
                world.input(|node, now| node.handle_datagram(from, 434, &bytes, now));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// `World` asserts after each timer that the next is in the future, so a node
    /// that spins fails here. No more than one request and one solicitation a
    /// second leave on average, whatever happens.
    // Shows 5944-2.4-c.
    #[test]
    fn no_order_of_inputs_panics_spins_or_floods(
        inputs in proptest::collection::vec(input(), 1..60),
    ) {
        let mut world = World::new(config());
        for input in &inputs {
            apply(&mut world, input);
        }
        let seconds = usize::try_from((world.now - 1_000) / 1_000).unwrap();
        prop_assert!(world.solicitations().len() <= seconds + 4);
    }

    /// Only an authentic reply, or home's advertisement, attaches.
    #[test]
    fn nothing_unauthenticated_attaches_the_node_away_from_home(
        inputs in proptest::collection::vec(input(), 1..60),
    ) {
        let mut world = World::new(config());
        for input in &inputs {
            let unauthentic = match input {
                Input::Reply { code, lifetime, flip, .. } => {
                    Input::Reply { code: *code, lifetime: *lifetime, flip: *flip, authentic: false }
                }
                other => other.clone(),
            };
            apply(&mut world, &unauthentic);
        }
        for attachment in world.attachments() {
            let harmless = matches!(attachment, Attachment::None | Attachment::Home { .. });
            prop_assert!(harmless, "{:?}", attachment);
        }
    }

    /// Whatever happens, the table of sessions is right, and what the host was told of
    /// addresses is what the sessions and the node have, each its own.
    #[test]
    fn sessions_and_what_the_host_is_told_of_them_agree(
        inputs in proptest::collection::vec(input(), 1..80),
        nonces in any::<bool>(),
        given in any::<bool>(),
    ) {
        let mut config = super::sessions::named();
        if given {
            config.home_address = Ipv4Addr::UNSPECIFIED;
        }
        if nonces {
            let with_nonces = association(256, ReplayProtection::Nonces);
            config.security = SecurityAssociations::default();
            config.security.insert_agent(HOME_AGENT, with_nonces);
        }
        let mut world = World::new(config);
        for input in &inputs {
            apply(&mut world, input);
            world.node.sessions.check();
        }
        let mut told = alloc::collections::BTreeMap::new();
        let mut own = (!given).then_some(HOME);
        for (_, action) in &world.log {
            match action {
                MobileNodeAction::UseSession { sub_nai, home_address } => {
                    prop_assert_eq!(told.insert(sub_nai.clone(), *home_address), None);
                }
                MobileNodeAction::LoseSession { sub_nai, home_address } => {
                    prop_assert_eq!(told.remove(sub_nai), *home_address);
                }
                MobileNodeAction::UseHomeAddress(address) => {
                    prop_assert!(given && own != *address);
                    own = *address;
                }
                _ => {}
            }
        }
        prop_assert_eq!(own, world.node.home_address());
        prop_assert!(!told.values().any(|address| Some(*address) == own));
        let has = world.node.sessions.all().filter_map(|one| Some((one.sub_nai(), one.home_address()?)));
        let told = told.iter().map(|(name, address)| (&name[..], *address));
        prop_assert!(has.eq(told));
    }

    /// Randomness comes from the seed only.
    #[test]
    fn the_same_inputs_give_the_same_actions(
        inputs in proptest::collection::vec(input(), 1..40),
    ) {
        let run = || {
            let mut world = World::new(config());
            inputs.iter().for_each(|input| apply(&mut world, input));
            world.log
        };
        prop_assert_eq!(run(), run());
    }
}
