use std::time::Duration;

use homeport_proto::decision::{Cause, Judge, Ruling, SeenExtensions, SessionLabel, Subject};
use homeport_proto::message::{
    Identification, Named, RegistrationRequest, ReplyCode, RequestFlags, SessionCarriage,
    SessionName,
};
use homeport_proto::{Lifetime, PortId};

use super::*;

const TENANT: TenantId = TenantId(1);
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);

fn at(seconds: u64) -> Instant {
    Instant(seconds * 1_000_000_000)
}

fn node(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + number)
}

fn decision(home_address: Ipv4Addr, cause: Cause, standing: Standing) -> Decision {
    let lifetime = Lifetime(60);
    let code = cause.code().unwrap_or(ReplyCode::ACCEPTED);
    Decision {
        tenant: TENANT,
        judge: Judge::HomeAgent(AGENT),
        subject: Subject::Request,
        source: Ipv4Addr::new(192, 0, 2, 1),
        source_port: 434,
        port: PortId(0),
        request: RegistrationRequest {
            flags: RequestFlags::default(),
            lifetime,
            home_address,
            home_agent: AGENT,
            care_of_address: Ipv4Addr::new(192, 0, 2, 1),
            identification: Identification(7),
        },
        extensions: SeenExtensions::default(),
        session: None,
        ruling: Ruling {
            cause,
            standing,
            answer: Answer::Replied { code, lifetime },
            ..Ruling::default()
        },
    }
}

fn accepted(home_address: Ipv4Addr) -> Decision {
    decision(home_address, Cause::Accepted, Standing::Authentic)
}

fn refused(home_address: Ipv4Addr) -> Decision {
    decision(home_address, Cause::TableFull, Standing::Authentic)
}

fn causes(history: &History, home_address: Ipv4Addr) -> Vec<(Cause, u32)> {
    let told = history.of(TENANT, home_address);
    told.iter().map(|one| (one.decision.ruling.cause, one.times)).collect()
}

fn counter(history: &History, name: &str) -> u64 {
    history.counters().find(|counter| counter.name == name).unwrap().value
}

#[test]
fn a_story_is_the_last_eight_and_what_comes_again_is_counted() {
    let mut history = History::new(16);
    for second in 0..100 {
        history.record(&accepted(node(1)), at(second));
    }
    assert_eq!(causes(&history, node(1)), [(Cause::Accepted, 100)]);
    let [told] = history.of(TENANT, node(1)).try_into().unwrap();
    assert_eq!((told.first, told.last), (at(0), at(99)));
    for second in 100..120 {
        let cause = Cause::ALL[second as usize - 100];
        history.record(&decision(node(1), cause, Standing::Authentic), at(second));
    }
    let expected: Vec<_> = Cause::ALL[12..20].iter().rev().map(|cause| (*cause, 1)).collect();
    assert_eq!(causes(&history, node(1)), expected);
    // Another tenant's node of the same address has a story of its own.
    assert!(history.of(TenantId(2), node(1)).is_empty());
}

/// All that have no address yet are told of by their NAI.
#[test]
fn sessions_of_a_nai_that_take_turns_are_an_entry_each() {
    let mut history = History::new(16);
    let named = |sub_nai: &[u8], cause| {
        let name = SessionName { nai: b"phone@x", sub_nai };
        let carriage = SessionCarriage::Separate;
        let named = Named { name, carriage, inserted: false, releases: false };
        let session = SessionLabel::of(&Ok(Some(named)));
        Decision { session, ..decision(node(1), cause, Standing::Authentic) }
    };
    for second in 0..30 {
        let name = [b'a' + u8::try_from(second % 3).unwrap()];
        history.record(&named(&name, Cause::PoolExhausted), at(second));
    }
    let seen = |history: &History| {
        let told = history.of(TENANT, node(1)).into_iter();
        told.map(|one| (one.decision.session.unwrap().to_string(), one.times)).collect::<Vec<_>>()
    };
    let turns = |names: [&str; 3]| names.map(|name| (name.to_owned(), 10)).to_vec();
    assert_eq!(seen(&history), turns(["c", "b", "a"]));
    // What came between is what a session's next is compared with.
    history.record(&named(b"a", Cause::TableFull), at(30));
    history.record(&named(b"a", Cause::PoolExhausted), at(31));
    assert_eq!(seen(&history)[..2], [("a".into(), 1), ("a".into(), 1)]);
    // However many there are, a story is the last eight.
    for second in 40..90 {
        let name = [u8::try_from(second).unwrap()];
        history.record(&named(&name, Cause::PoolExhausted), at(second));
    }
    assert_eq!(seen(&history).len(), STORY);
    // Nor are they told apart by less among what anybody could have sent.
    for name in [b"a", b"b"] {
        let claim = named(name, Cause::WrongKey);
        let ruling = Ruling { standing: Standing::Claimed, ..claim.ruling };
        let mut claim = Decision { ruling, ..claim };
        claim.request.home_address = node(2);
        history.record(&claim, at(100));
        history.record(&claim, at(101));
    }
    let told = history.of(TENANT, node(2));
    assert_eq!(told.iter().map(|one| one.times).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn copies_of_old_requests_take_half_of_a_story_at_most() {
    let mut history = History::new(16);
    let care_of = |last: u8, mut one: Decision| {
        one.request.care_of_address = Ipv4Addr::new(192, 0, 2, last);
        one
    };
    for last in 0..8 {
        history.record(&care_of(last, accepted(node(1))), at(u64::from(last)));
    }
    for last in 0..200 {
        let copy = decision(node(1), Cause::Replayed, Standing::Copied);
        history.record(&care_of(last, copy), at(100 + u64::from(last)));
    }
    let told = causes(&history, node(1));
    assert_eq!(told.iter().filter(|(cause, _)| *cause == Cause::Replayed).count(), STORY_COPIES);
    assert_eq!(told.iter().filter(|(cause, _)| *cause == Cause::Accepted).count(), 4);
}

/// A flood of forged home addresses, of as many forged messages of real nodes, and of
/// as many nodes that are well, leave the story of one that was refused.
#[test]
fn no_flood_pushes_out_the_story_of_a_refused_node() {
    let mut history = History::new(64);
    history.record(&refused(node(1)), at(0));
    history.record(&accepted(node(2)), at(0));
    for number in 0..100_000 {
        let now = at(1 + u64::from(number) / 10_000);
        for (cause, standing) in
            [(Cause::UnknownNode, Standing::Unknown), (Cause::WrongKey, Standing::Claimed)]
        {
            let mut forged = decision(node(1_000 + number), cause, standing);
            forged.source = Ipv4Addr::from_bits(0x2000_0000 + (number << 6));
            history.record(&forged, now);
        }
        history.record(&accepted(node(1_000 + number)), now);
    }
    assert_eq!(causes(&history, node(1)), [(Cause::TableFull, 1)]);
    assert_eq!(causes(&history, node(2)), [(Cause::Accepted, 1)], "not a minute old");
    // What is remembered is bounded, and what was not is counted.
    assert_eq!(counter(&history, "stories"), 49);
    assert_eq!(counter(&history, "stories_not_begun"), 100_000 - 47);
    let replaced = counter(&history, "unknown_replaced");
    assert!((100_000 - UNKNOWN as u64..100_000).contains(&replaced), "{replaced}");
    let replaced = counter(&history, "claims_replaced");
    assert!((100_000 - CLAIMED as u64..100_000).contains(&replaced), "{replaced}");
}

#[test]
fn a_flood_from_one_network_leaves_what_came_from_others() {
    let mut history = History::new(64);
    let mut unknown = decision(node(1), Cause::UnknownNode, Standing::Unknown);
    // Of 64 networks, one at most shares the flood's bucket, or a few by bad luck.
    for network in 0..64u32 {
        unknown.request.home_address = node(network);
        unknown.source = Ipv4Addr::from_bits(0x0b00_0001 + (network << 8));
        history.record(&unknown, at(0));
    }
    unknown.source = Ipv4Addr::new(203, 0, 113, 9);
    for number in 0..100_000 {
        unknown.request.home_address = node(1_000 + number);
        history.record(&unknown, at(1));
    }
    let left = (0..64).filter(|network| causes(&history, node(*network)).len() == 1).count();
    assert!(left >= 48, "{left}");
}

#[test]
fn well_nodes_take_turns_after_a_minute_and_refused_ones_the_oldest_first() {
    let mut history = History::new(16);
    for number in 0..12 {
        history.record(&accepted(node(number)), at(0));
    }
    history.record(&accepted(node(100)), at(59));
    assert!(causes(&history, node(100)).is_empty());
    history.record(&accepted(node(100)), at(MIN_KEPT.as_secs()));
    assert_eq!(causes(&history, node(100)).len(), 1);
    assert!(causes(&history, node(0)).is_empty(), "the oldest went");
    assert_eq!(causes(&history, node(1)).len(), 1);
    // A refusal moves a story to the shelf of the refused; its place is free again.
    history.record(&refused(node(1)), at(61));
    assert_eq!(causes(&history, node(1)), [(Cause::TableFull, 1), (Cause::Accepted, 1)]);
    history.record(&accepted(node(101)), at(61));
    assert_eq!(causes(&history, node(101)).len(), 1);
    for number in 200..204 {
        history.record(&refused(node(number)), at(62));
    }
    assert!(causes(&history, node(1)).is_empty(), "the oldest of the refused went");
    assert_eq!(counter(&history, "stories"), 16);
    assert!(MIN_KEPT > Duration::from_secs(1));
}

/// Stories come and go for long without the index losing one.
#[test]
fn every_story_is_found_as_long_as_it_is_there() {
    let mut history = History::new(40);
    for number in 0..5_000 {
        history.record(&refused(node(number)), at(u64::from(number)));
        for back in 0..10u32.min(number + 1) {
            assert_eq!(causes(&history, node(number - back)).len(), 1, "{number} {back}");
        }
        if number >= 10 {
            assert!(causes(&history, node(number - 10)).is_empty());
        }
    }
    assert_eq!(counter(&history, "stories"), 10);
}

#[test]
fn of_no_nodes_nothing_is_remembered() {
    let mut history = History::new(0);
    for standing in [Standing::Unknown, Standing::Claimed, Standing::Copied, Standing::Authentic] {
        history.record(&decision(node(1), Cause::WrongKey, standing), at(0));
        history.record(&decision(node(1), Cause::Accepted, standing), at(0));
    }
    assert!(history.of(TENANT, node(1)).is_empty());
    assert_eq!(counter(&history, "decisions_recorded"), 8);
}

/// The bound on memory that the documents state.
#[test]
fn a_remembered_node_takes_little_more_than_a_kilobyte() {
    assert!(size_of::<Decision>() <= 112, "{}", size_of::<Decision>());
    assert!(size_of::<[Option<Told>; STORY]>() <= 1_100, "{}", size_of::<[Option<Told>; STORY]>());
}
