//! `homeport explain` against the real thing. (B-08)

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_control::clock;
use homeport_proto::Lifetime;
use homeport_proto::message::{
    AuthenticationKind, Extension, Identification, MessageWriter, RegistrationRequest,
    RegistrationRevocation, RequestFlags, RevocationSupport, UdpTunnelRequest,
};

use super::harness::{Room, code, err, out};
use super::real::{AGENT, ELSEWHERE, Real, association, node, right};

/// A foreign agent that the home agent shares a key with.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const NAT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);

/// With room for one binding and for no NAT.
fn start() -> Real {
    let room = Room::new();
    room.config(|text| {
        let one = |last: u8| {
            format!(
                "[[home_agent.security_association]]\nmobile_node = \"10.1.0.{last}\"\n\
                 spi = 256\nkey_file = \"mn.key\"\n"
            )
        };
        let all: String = (11..=16).map(one).collect();
        let limits = "max_bindings = 1\nnat_traversal = \"off\"\n";
        let foreign = format!(
            "[[home_agent.security_association]]\nforeign_agent = \"{FOREIGN}\"\nspi = 300\n\
             key_file = \"mn.key\"\n"
        );
        text.replace("max_lifetime", &format!("{limits}max_lifetime")) + &all + &foreign
    });
    Real::start(room, None)
}

/// Who is refused for what: each has a cause and a remedy of its own, in plain words.
#[test]
fn each_refused_node_is_told_its_own_cause_and_what_to_do() {
    let real = start();
    let here = (ELSEWHERE, ELSEWHERE);
    let udp = [Extension::UdpTunnelRequest(UdpTunnelRequest::default())];
    real.request(node(10), here, 0, &[], &right());
    let story = real.story(node(10));
    assert_eq!(story.registrations[0].cause, "accepted");
    assert_eq!(story.bindings.len(), 1);
    let shown = out(&real.homeport(&["explain", "10.1.0.10"]));
    assert!(
        shown.starts_with("10.1.0.10 is registered: at 10.4.0.77, by itself, with \"ha\""),
        "{shown}"
    );

    real.request(node(11), here, 0, &[], &association(256, b"another key, not"));
    real.request(node(12), here, 0, &[], &association(300, b"a key of sixteen"));
    real.request(node(13), here, 60, &[], &right());
    real.request(node(99), here, 0, &[], &right());
    real.request(node(14), (NAT, PRIVATE), 0, &udp, &right());
    real.request(node(15), here, 0, &[], &right());
    let cases: [(u8, &str, &[&str]); 6] = [
        (
            11,
            "wrong-key",
            &["do not have the same key", "key_file", "SPI 256, which is hmac-md5 here"],
        ),
        (
            12,
            "unknown-spi",
            &["not under the SPI that it used", "SPI 300; \"ha\" knows it by SPI 256"],
        ),
        (13, "clock-off", &["clock is 60 s ahead of the home agent's", "tolerance", "Code 133"]),
        (99, "unknown-node", &["no security association", "mobile_node = \"10.1.0.99\""]),
        (
            14,
            "nat-not-traversed",
            &["there is a NAT between", "203.0.113.7", "nat_traversal = \"rfc3519\"", "Code 129"],
        ),
        (15, "table-full", &["as many bindings as it may hold", "max_bindings", "Code 130"]),
    ];
    let (mut sentences, mut remedies) = (BTreeSet::new(), BTreeSet::new());
    for (last, cause, words) in cases {
        let story = real.story(node(last));
        let [only] = story.registrations.as_slice() else { panic!("{story:?}") };
        assert_eq!((only.cause.as_str(), only.accepted), (cause, false));
        assert!(sentences.insert(only.sentence.clone()));
        assert!(remedies.insert(only.remedy.clone().unwrap()));
        let output = real.homeport(&["explain", &node(last).to_string()]);
        assert_eq!((code(&output), err(&output).as_str()), (0, ""));
        let shown = out(&output);
        println!("{shown}");
        let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(flat.contains(word), "{word} in {shown}");
        }
        // Nothing that only a program can read.
        assert!(!shown.contains("0x") && !shown.contains("Some("), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    }

    // It comes again and again: one entry, and its story ends well.
    for _ in 0..3 {
        real.request(node(11), here, 0, &[], &association(256, b"another key, not"));
    }
    let times = || real.story(node(11)).registrations[0].times;
    for _ in 0..1_000 {
        if times() == 4 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(times(), 4);
    let counters = out(&real.homeport(&["show", "counters"]));
    assert!(counters.contains("decisions_recorded"), "{counters}");
}

/// A foreign agent takes its visitor away: who asks at the home agent is told so, by whom
/// and what became of it. (B-11)
#[test]
fn a_revoked_node_is_told_as_revoked() {
    let real = start();
    let shared = association(300, &std::array::from_fn::<u8, 16, _>(|at| at as u8));
    let now = clock::now().ntp.0;
    let seconds = Identification(now).high();
    let mut writer = MessageWriter::request(&RegistrationRequest {
        flags: RequestFlags::default(),
        lifetime: Lifetime(300),
        home_address: node(10),
        home_agent: AGENT,
        care_of_address: FOREIGN,
        identification: Identification(now),
    });
    writer.authenticate(AuthenticationKind::MobileHome, &right());
    let support = RevocationSupport { inform: true, timestamp: seconds };
    writer.extension(&Extension::RevocationSupport(support)).unwrap();
    writer.authenticate(AuthenticationKind::ForeignHome, &shared);
    real.send((FOREIGN, 434), &writer.finish());
    assert_eq!(real.story(node(10)).registrations[0].cause, "accepted");

    let mut writer = MessageWriter::revocation(&RegistrationRevocation {
        from_home_agent: false,
        inform: false,
        home_address: node(10),
        home_agent: AGENT,
        care_of_address: FOREIGN,
        identifier: seconds + 2,
    });
    writer.authenticate(AuthenticationKind::ForeignHome, &shared);
    real.send((FOREIGN, 434), &writer.finish());
    for _ in 0..1_000 {
        if real.story(node(10)).bindings.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let story = real.story(node(10));
    let causes: Vec<&str> = story.registrations.iter().map(|one| one.cause.as_str()).collect();
    assert_eq!(causes, ["revoked", "accepted"]);
    assert_eq!(story.registrations[0].foreign_agent, Some(FOREIGN));
    let shown = out(&real.homeport(&["explain", "10.1.0.10"]));
    println!("{shown}");
    let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "10.1.0.10 is not registered here now.",
        "revoked The registration was revoked by the agent at its other end.",
        "from 10.0.2.2 port 434 on \"core\", which is its foreign agent",
        "to end the registration at 10.0.2.2, by the home agent 10.0.1.2",
        "by the agents with SPI 300",
        "reply It was acknowledged.",
        "on the box of 10.0.2.2",
    ] {
        assert!(flat.contains(words), "{words} in {shown}");
    }
}

#[test]
fn a_node_that_nothing_was_heard_of_is_told_where_to_look() {
    let real = start();
    let output = real.homeport(&["explain", "10.1.0.77"]);
    let shown = out(&output);
    println!("{shown}");
    assert_eq!(code(&output), 1, "{shown}");
    for word in ["Nothing has been heard", "`homeport show ports`", "punt-queue-full", "434"] {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    assert!(shown.contains("No agent here shares a key with it."), "{shown}");
    let known = out(&real.homeport(&["explain", "10.1.0.10"]));
    assert!(
        known.contains(
            "The home agent \"ha\" (10.0.1.2) knows it by SPI 256 (hmac-md5, clocks within 7 s)."
        ),
        "{known}"
    );

    let output = real.homeport(&["explain", "10.1.0.10", "--home-agent", "b\u{1b}[2J&x=1"]);
    assert_eq!(code(&output), 1);
    let told = err(&output);
    assert!(told.contains("There is no agent \"b\\u{1b}[2J&x=1\" here."), "{told}");
    assert!(told.contains("The agents here are: ha."), "{told}");
    let output = real.homeport(&["explain", "10.1.0.10", "--tenant", "7", "--home-agent", "ha"]);
    assert_eq!(code(&output), 1, "another tenant's");
    let output = real.homeport(&["explain", "nobody@x\u{1b}"]);
    assert_eq!(code(&output), 1);
    let told = err(&output);
    assert!(
        told.contains("No home agent here shares a key with the NAI nobody@x\\u{1b}."),
        "{told}"
    );
    for nobody in ["0.0.0.1", "a\\", ""] {
        assert_eq!(code(&real.homeport(&["explain", nobody])), 1, "{nobody}");
    }
}
