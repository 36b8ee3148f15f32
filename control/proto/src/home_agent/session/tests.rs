use super::*;
use crate::security::SecurityAssociations;
use crate::security::nais::hash_of;
use crate::security::{Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, Spi};
use alloc::collections::BTreeMap;
use alloc::vec;
use proptest::prelude::*;

const NAIS: [&[u8]; 3] = [b"a", b"b", b"c"];

#[test]
fn a_record_is_one_line_of_the_cache() {
    assert_eq!(size_of::<Session>(), 64);
}

fn subscribers() -> Vec<Subscriber> {
    let mut security = SecurityAssociations::default();
    let association = MobilitySecurityAssociation {
        spi: Spi(256),
        algorithm: Algorithm::HmacMd5,
        key: Key::new(vec![7; 16]),
        replay: ReplayProtection::Nonces,
    };
    let mut add = |nai: &[u8]| {
        let forever = crate::Lifetime::INFINITE;
        security.insert_nai(nai, None, association.clone(), forever).unwrap()
    };
    NAIS.map(&mut add).to_vec()
}

#[derive(Clone, Debug)]
enum Op {
    Add(usize, u8, u8),
    Set(usize, u8, SessionState),
    Restore(usize, u8),
    Elapse(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let states =
        [SessionState::Bound, SessionState::AtHome, SessionState::Sticky, SessionState::HeldDown];
    prop_oneof![
        (0..3usize, 0..6u8, any::<u8>()).prop_map(|(nai, name, at)| Op::Add(nai, name, at)),
        (0..3usize, 0..6u8, prop::sample::select(states.to_vec()))
            .prop_map(|(nai, name, state)| Op::Set(nai, name, state)),
        (0..3usize, 0..6u8).prop_map(|(nai, name)| Op::Restore(nai, name)),
        (0..40u64).prop_map(Op::Elapse),
    ]
}

const STICKY: Duration = Duration::from_secs(30);
const HOLD_DOWN: Duration = Duration::from_secs(10);
const RESTORED: Duration = Duration::from_secs(100);

proptest! {
    /// Every look-up, count and queue against a map that is searched from end to end.
    #[test]
    fn the_list_is_a_map_with_ends(ops in prop::collection::vec(op(), 0..200)) {
        let subscribers = subscribers();
        let mut list = SessionList::default();
        let mut model: BTreeMap<(Subscriber, u8), (u8, SessionState, Instant)> = BTreeMap::new();
        let mut now = Instant(0);
        let address = |at: u8| Ipv4Addr::new(10, 9, 0, at);
        // Of three pools, or of none.
        let pool = |at: u8| Some(u16::from(at % 4)).filter(|pool| *pool < 3);
        let place = |at: u8| Place { address: address(at), node: u32::from(at), pool: pool(at) };
        for op in ops {
            match op {
                Op::Add(nai, name, at) => {
                    let subscriber = subscribers[nai];
                    let taken = model.contains_key(&(subscriber, name))
                        || model.values().any(|(used, ..)| *used == at);
                    if !taken {
                        let known = (subscriber, hash_of(NAIS[nai]));
                        let place = place(at);
                        list.add(known, &[name], place, now + HOLD_DOWN);
                        let one = (at, SessionState::HeldDown, now + HOLD_DOWN);
                        model.insert((subscriber, name), one);
                    }
                }
                Op::Set(nai, name, _) | Op::Restore(nai, name) => {
                    let subscriber = subscribers[nai];
                    let (state, lasts) = match op {
                        Op::Set(.., SessionState::HeldDown) => {
                            (SessionState::HeldDown, HOLD_DOWN)
                        }
                        Op::Set(.., state) => (state, STICKY),
                        _ => (SessionState::Sticky, RESTORED),
                    };
                    let number = list.find((subscriber, hash_of(NAIS[nai])), &[name]);
                    let known = model.get_mut(&(subscriber, name));
                    prop_assert_eq!(number.is_some(), known.is_some());
                    if let (Some(number), Some(known)) = (number, known) {
                        list.set(number.number, state, now, lasts);
                        (known.1, known.2) = (state, now + lasts);
                    }
                }
                Op::Elapse(seconds) => {
                    now = now + Duration::from_secs(seconds);
                    while let Some(number) = list.due(now) {
                        let gone = list.remove(number).unwrap();
                        let (_, _, until) =
                            model.remove(&(gone.subscriber, gone.sub_nai[0])).unwrap();
                        prop_assert!(until <= now);
                    }
                }
            }
            let waits = |(_, state, until): &(u8, SessionState, Instant)| {
                (*state != SessionState::Bound).then_some(*until)
            };
            prop_assert_eq!(list.next_end(), model.values().filter_map(waits).min());
            for subscriber in &subscribers {
                let of = || model.iter().filter(|((of, _), _)| of == subscriber);
                let live = of().filter(|(_, (_, state, _))| state.is_live()).count();
                let (of_nai, all) = list.of_nai(*subscriber);
                prop_assert_eq!((of_nai as usize, all as usize), (live, of().count()));
                prop_assert_eq!(list.all_of(*subscriber).count(), of().count());
                prop_assert_eq!(list.last_of(*subscriber), list.all_of(*subscriber).last());
            }
            for ((subscriber, name), (at, state, _)) in &model {
                let nai = subscribers.iter().position(|one| one == subscriber).unwrap();
                let known = (*subscriber, hash_of(NAIS[nai]));
                let found = list.find(known, &[*name]).unwrap();
                prop_assert_eq!((found.address, found.node), (address(*at), u32::from(*at)));
                let record = list.get(found.number).unwrap();
                prop_assert_eq!((record.address, record.state), (address(*at), *state));
                prop_assert_eq!(list.guess(name_hash(known.1, &[*name])), Some(found));
                let alike = model.values().filter(|(_, other, _)| other == state).count();
                prop_assert_eq!(list.count(*state), alike);
            }
            for one in 0..3 {
                let of = model.values().filter(|(at, ..)| pool(*at) == Some(one));
                let mut counts = [0; 4];
                of.for_each(|(_, state, _)| counts[*state as usize] += 1);
                prop_assert_eq!(list.of_pool(usize::from(one)), counts);
            }
            prop_assert_eq!(list.iter().count(), model.len());
        }
    }
}
