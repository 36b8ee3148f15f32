//! Sessions as an operator meets them, against the real thing. (S1-07 to S1-09, S1-14 to
//! S1-17, B-08)

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use homeport_control::admin::api::{PoolView, SessionStateView, SessionView, SessionsView};
use homeport_control::admin::explain::ExplanationView;
use homeport_control::clock;
use homeport_control::session_store::Line;
use homeport_proto::message::{
    AuthenticationKind, Extension, Identification, MessageWriter, RegistrationReply,
    RegistrationRequest, ReplyCode, RequestFlags,
};
use homeport_proto::security::MobilitySecurityAssociation;
use homeport_proto::{Lifetime, StoredSession, TenantId};
use serde_json::Value;

use super::harness::{Room, code, err, out};
use super::real::{AGENT, ELSEWHERE, Real, association, node};

const PHONE: &str = "phone@train.example";
const TABLET: &str = "tablet@train.example";
/// What a terminal would obey, and what is no text.
const EVIL: &[u8] = b"a\n\x1b[2J\x00\xff";
const EVIL_SHOWN: &str = "a\\n\\u{1b}[2J\\u{0}\\xff";

const NAIS: [&str; 2] = [
    "[[home_agent.security_association]]\nnai = \"phone@train.example\"\nspi = 300\n\
     key_file = \"mn.key\"\n",
    "[[home_agent.security_association]]\nnai = \"tablet@train.example\"\nspi = 301\n\
     key_file = \"mn.key\"\n",
];

/// A pool of three addresses for two NAIs, and one that is set aside.
const POOL: &str = "[[home_agent.pool]]\nname = \"train\"\nrealm = \"train.example\"\n\
                    ranges = [\"10.1.0.100-10.1.0.102\"]\n\
                    [[home_agent.reservation]]\nnai = \"phone@train.example\"\n\
                    session = \"printer\"\nhome_address = \"10.1.0.30\"\n";

/// Another home agent of the box, whose numbers for the NAIs are the other way round.
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 3);
const OTHER_AGENT: &str = "[[home_agent]]\nname = \"hb\"\naddress = \"10.0.1.3\"\n\
                           max_bindings = 1000\n\
                           [[home_agent.home_network]]\nprefix = \"10.2.0.0/24\"\n\
                           [[home_agent.pool]]\nname = \"other\"\n\
                           ranges = [\"10.2.0.100-10.2.0.101\"]\n";

fn start() -> Real {
    let room = Room::new();
    room.config(|text| text + &NAIS.concat() + POOL);
    Real::start(room, Some(Vec::new()))
}

/// The config with both home agents, the first of which has the NAIs in this order.
fn with_both(text: &str, nais: [&str; 2]) -> String {
    let text = text.replace("\"10.0.1.2/24\"", "\"10.0.1.2/24\", \"10.0.1.3/24\"");
    let [phone, tablet] = NAIS;
    text + &nais.concat() + POOL + OTHER_AGENT + tablet + phone
}

/// The key in the room's file, shared with a NAI.
fn key(nai: &str) -> MobilitySecurityAssociation {
    let spi = if nai == TABLET { 301 } else { 300 };
    association(spi, &std::array::from_fn::<u8, 16, _>(|at| at as u8))
}

/// A request of a session, for an address or to end what it has.
fn ask(
    real: &Real,
    (nai, sub_nai): (&str, &[u8]),
    (lifetime, home_address, care_of_address): (u16, Ipv4Addr, Ipv4Addr),
    releases: bool,
    key: &MobilitySecurityAssociation,
) {
    let request = RegistrationRequest {
        flags: RequestFlags::CO_LOCATED.with(RequestFlags::REVERSE_TUNNEL),
        lifetime: Lifetime(lifetime),
        home_address,
        home_agent: AGENT,
        care_of_address,
        identification: Identification(clock::now().ntp.0),
    };
    let mut extensions = vec![Extension::NetworkAccessIdentifier(nai.as_bytes())];
    extensions.extend((!sub_nai.is_empty()).then_some(Extension::SubNai(sub_nai)));
    extensions.extend(releases.then_some(Extension::SessionRelease));
    real.send_request(ELSEWHERE, &request, &extensions, key);
}

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn json<T: serde::de::DeserializeOwned>(real: &Real, words: &[&str], key: Option<&str>) -> T {
    let output = real.homeport(&[&["--json"], words].concat());
    assert_eq!(code(&output), 0, "{words:?}: {}", err(&output));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    serde_json::from_value(key.map_or(value.clone(), |key| value[key].clone())).unwrap()
}

fn shown(real: &Real, words: &[&str]) -> String {
    let output = real.homeport(words);
    assert_eq!((code(&output), err(&output).as_str()), (0, ""), "{words:?}");
    let text = out(&output);
    println!("$ homeport {}\n{text}", words.join(" "));
    // Nothing that a terminal obeys, and no address that is nobody's.
    assert!(!text.chars().any(|c| c != '\n' && c.is_control()), "{text:?}");
    assert!(!text.split_whitespace().any(|word| word.starts_with("0.0.0.")), "{text}");
    text
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1_000 {
        if let Some(seen) = look() {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("never: {what}");
}

/// The session of this name, as it is once it has this state.
fn session(real: &Real, name: &str, state: SessionStateView) -> SessionView {
    until(name, || {
        let view: SessionsView = json(real, &["show", "sessions"], None);
        view.sessions.into_iter().find(|one| one.session == name && one.state == state)
    })
}

/// What is remembered of requests of a NAI that were of no session: causes, the newest
/// first, once there are so many.
fn causes(real: &Real, nai: &str, count: usize) -> Vec<String> {
    until(nai, || {
        let story: ExplanationView = json(real, &["explain", nai], None);
        let causes = story.registrations.into_iter().map(|one| one.cause);
        Some(causes.collect::<Vec<_>>()).filter(|causes| causes.len() == count)
    })
}

#[test]
fn sessions_pools_and_nais_are_shown_and_explained() {
    let room = Room::new();
    room.config(|text| with_both(&text, NAIS));
    let real = Real::start(room, Some(Vec::new()));
    let away = (300, ANY, ELSEWHERE);
    let begin = |nai: &str, name: &[u8]| ask(&real, (nai, name), away, false, &key(nai));

    // Of whom nothing is known it is told what could have got lost.
    let output = real.homeport(&["--json", "explain", TABLET]);
    assert_eq!(code(&output), 1);
    let silent: ExplanationView = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!silent.swallowed.is_empty());

    // Three addresses and one that is set aside; then nobody gets any more.
    begin(PHONE, b"laptop");
    let laptop = session(&real, "laptop", SessionStateView::Bound);
    assert_eq!(laptop.home_address, node(100));
    assert_eq!((laptop.nai.as_str(), laptop.nai_hex), (PHONE, None));
    assert_eq!((laptop.agent.as_str(), laptop.home_agent), ("ha", AGENT));
    assert_eq!(laptop.care_of_address, Some(ELSEWHERE));
    assert!(laptop.remaining_seconds.is_some() && laptop.until_seconds.is_none());
    begin(PHONE, b"camera");
    session(&real, "camera", SessionStateView::Bound);
    begin(TABLET, EVIL);
    let evil = session(&real, EVIL_SHOWN, SessionStateView::Bound);
    assert_eq!(evil.session_hex.as_deref(), Some("610a1b5b324a00ff"));
    begin(PHONE, b"printer");
    session(&real, "printer", SessionStateView::Bound);
    begin(PHONE, b"extra");
    assert_eq!(causes(&real, PHONE, 1), ["pool-exhausted"]);
    let home = (0, ANY, ANY);
    ask(&real, (PHONE, b"late"), home, false, &key(PHONE));
    assert_eq!(causes(&real, PHONE, 2), ["pool-exhausted", "pool-exhausted"]);
    // Alike but for the session.
    begin(PHONE, b"spare");
    let refused = ["pool-exhausted", "pool-exhausted", "pool-exhausted"];
    assert_eq!(causes(&real, PHONE, 3), refused);
    ask(&real, (PHONE, b"stolen"), away, false, &association(300, b"another key, not"));
    assert_eq!(causes(&real, PHONE, 4)[0], "wrong-key");
    // At the other home agent, where it has the number that the tablet has at this one.
    let mut writer = MessageWriter::request(&RegistrationRequest {
        flags: RequestFlags::CO_LOCATED.with(RequestFlags::REVERSE_TUNNEL),
        lifetime: Lifetime(300),
        home_address: ANY,
        home_agent: OTHER,
        care_of_address: ELSEWHERE,
        identification: Identification(clock::now().ntp.0),
    });
    writer.extension(&Extension::NetworkAccessIdentifier(PHONE.as_bytes())).unwrap();
    writer.authenticate(AuthenticationKind::MobileHome, &association(300, b"another key, not"));
    real.send_to(OTHER, (ELSEWHERE, 40_000), &writer.finish());
    assert_eq!(causes(&real, PHONE, 5)[..2], ["wrong-key", "wrong-key"]);
    let story: ExplanationView = json(&real, &["explain", PHONE], None);
    assert!(story.swallowed.is_empty());
    let story: ExplanationView = json(&real, &["explain", PHONE, "--home-agent", "hb"], None);
    assert_eq!((story.registrations.len(), story.sessions.len()), (1, 0));
    assert!(story.swallowed.is_empty());

    // What strangers ask for is told too, if nowhere else.
    ask(&real, ("nobody@x", b"laptop"), away, false, &key(PHONE));
    until("a stranger", || {
        let output = real.homeport(&["--json", "explain", "0.0.0.0"]);
        let story: ExplanationView = serde_json::from_slice(&output.stdout).unwrap();
        story.registrations.into_iter().find(|one| one.cause == "unknown-nai")
    });

    // One leaves, one gives its address back.
    ask(&real, (PHONE, b"camera"), (0, node(101), ELSEWHERE), false, &key(PHONE));
    let camera = session(&real, "camera", SessionStateView::Sticky);
    assert!(camera.until_seconds.is_some() && camera.care_of_address.is_none());
    ask(&real, (PHONE, b"printer"), (0, node(30), ELSEWHERE), true, &key(PHONE));
    session(&real, "printer", SessionStateView::HeldDown);

    let all: SessionsView = json(&real, &["show", "sessions"], None);
    let names: Vec<(&str, &str)> =
        all.sessions.iter().map(|one| (one.nai.as_str(), one.session.as_str())).collect();
    let phones = [(PHONE, "laptop"), (PHONE, "camera"), (PHONE, "printer")];
    assert_eq!(names, [&phones[..], &[(TABLET, EVIL_SHOWN)]].concat());
    assert_eq!(all.more, 0);
    let text = shown(&real, &["show", "sessions"]);
    assert_eq!(text.lines().count(), 5, "{text}");
    let text = shown(&real, &["show", "sessions", "--nai", "phone@TRAIN.example"]);
    assert_eq!(text.lines().count(), 4, "{text}");
    for (words, told) in [
        (&["show", "sessions", "--nai", "nobody@x"][..], "shares a key with the NAI nobody@x."),
        (&["show", "sessions", "--nai", PHONE, "--tenant", "7"], "shares a key with the NAI"),
        (&["show", "sessions", "--nai", "a\\"], "begins no escape"),
    ] {
        let output = real.homeport(words);
        assert_eq!(code(&output), 1, "{words:?}");
        assert!(err(&output).contains(told), "{}", err(&output));
    }

    let pools: Vec<PoolView> = json(&real, &["show", "pools"], Some("pools"));
    let [pool, _] = &pools[..] else { panic!("{pools:?}") };
    assert_eq!((pool.name.as_str(), pool.realm.as_deref()), ("train", Some("train.example")));
    let used = (pool.size, pool.bound, pool.home, pool.sticky, pool.held_down, pool.free);
    assert_eq!(used, (3, 2, 0, 1, 0, 0));
    assert_eq!((pool.use_percent, pool.exhausted, pool.exhausted_of_tenant), (100, 3, 3));
    let text = shown(&real, &["show", "pools"]);
    assert!(text.contains("3 requests of tenant 0 found no free address"), "{text}");

    let metrics = samples(&real);
    let sessions =
        |state| format!("homeport_sessions{{agent=\"ha\",tenant=\"0\",state=\"{state}\"}}");
    let pool = |of| format!("homeport_pool_{of}{{agent=\"ha\",tenant=\"0\",pool=\"train\"}}");
    for (name, value) in [
        (sessions("bound"), "2"),
        (sessions("home"), "0"),
        (sessions("sticky"), "1"),
        (sessions("held-down"), "1"),
        (pool("addresses"), "3"),
        (pool("used"), "3"),
        (pool("held_down"), "0"),
        (pool("exhausted_total"), "3"),
    ] {
        let sample = (name, value.to_owned());
        assert!(metrics.contains(&sample), "{sample:?} is not in {metrics:?}");
    }

    let text = shown(&real, &["show", "bindings"]);
    assert!(text.lines().next().unwrap().ends_with("NAI                   SESSION"), "{text}");
    assert!(text.contains("phone@train.example   laptop") && text.contains(EVIL_SHOWN), "{text}");
    let text = shown(&real, &["show", "security-associations"]);
    assert!(text.contains("ha     phone@train.example   mobile node  300"), "{text}");
    let text = shown(&real, &["show", "counters"]);
    let flat: BTreeSet<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for counter in [
        "sessions_begun tenant 0 4",
        "sessions_released tenant 0 1",
        "sessions_ended tenant 0 0",
        "sessions_over_limit tenant 0 0",
        "pools_exhausted tenant 0 3",
        "sessions_not_stored 0",
        "sessions_not_synced 0",
    ] {
        assert!(flat.iter().any(|line| line.starts_with(counter)), "{counter} in {text}");
    }

    explained(&real);
}

/// The story of the NAI, and of the addresses of its sessions.
fn explained(real: &Real) {
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let story = flat(&shown(real, &["explain", PHONE]));
    for words in [
        "phone@train.example has 3 sessions:",
        "\"laptop\" has 10.1.0.100: bound to 10.4.0.77, for",
        "\"camera\" has 10.1.0.101: its binding has ended. The address is kept for it, and free in",
        "\"printer\" has 10.1.0.30: it gave the address back",
        "The home agent \"ha\" (10.0.1.2) knows it by SPI 300 (hmac-md5, clocks within 7 s).",
        "Its last requests that were of no session yet, the newest first:",
        "refused The session asked for a home address, and no pool for its realm has a free one.",
        "to do See who has the addresses (`homeport show pools`",
        "asked to be at home, by the home agent",
        "session \"extra\"",
        "session \"spare\"",
        "session \"stolen\"",
        "with phone@train.example (or its line",
    ] {
        assert!(story.contains(words), "{words} in {story}");
    }
    let told = shown(real, &["--json", "explain", PHONE]);
    assert!(!told.contains("\"0.0.0.1\"") && told.contains("\"home_address\": null"), "{told}");

    let story = flat(&shown(real, &["explain", "10.1.0.100"]));
    for words in [
        "10.1.0.100 is the session \"laptop\" of phone@train.example: bound to 10.4.0.77",
        "10.1.0.100 is registered: at 10.4.0.77, by itself, with \"ha\"",
        "knows it by SPI 300",
        "session \"laptop\"",
        "step assigned: The session asked for an address and got a free one of a pool.",
    ] {
        assert!(story.contains(words), "{words} in {story}");
    }
    let story = flat(&shown(real, &["explain", "10.1.0.30"]));
    for words in [
        "session \"printer\" of phone@train.example: it gave the address back",
        "The address is free in",
        "step known: The session was known, and kept its address.",
        "step reserved: The session asked for an address and got the one that is set aside",
    ] {
        assert!(story.contains(words), "{words} in {story}");
    }
    let story = flat(&shown(real, &["explain", "10.1.0.102"]));
    assert!(story.contains(&format!("the session \"{EVIL_SHOWN}\" of {TABLET}")), "{story}");
    let silent: ExplanationView = json(real, &["explain", TABLET], None);
    assert!(silent.swallowed.is_empty());
    let story = shown(real, &["explain", TABLET]);
    assert!(story.contains("tablet@train.example has one session:"), "{story}");
    assert!(story.contains("No request of it is remembered"), "{story}");

    // With other numbers for the NAIs, nobody is told another's story.
    let [phone, tablet] = NAIS;
    let file = real.room.config(|text| with_both(&text, [tablet, phone]));
    let output = real.homeport(&["config", "apply", file.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(causes(real, PHONE, 1), ["wrong-key"], "at the other, whose numbers stay");
    assert_eq!(causes(real, TABLET, 0), [""; 0]);
    session(real, "laptop", SessionStateView::Bound);
}

/// On a foreign agent's box, before the home agent has answered. (S1-10)
#[test]
fn a_visitor_is_found_by_its_nai_before_it_has_an_address() {
    let room = Room::new();
    room.config(|text| {
        let (ports, _) = text.split_once("[[home_agent]]").unwrap();
        format!(
            "{ports}[[foreign_agent]]\nname = \"fa\"\ncare_of_address = \"{AGENT}\"\n\
             ports = [\"core\"]\n"
        )
    });
    let real = Real::start(room, None);
    let home_agent = Ipv4Addr::new(10, 9, 0, 1);
    let visit = |nai: &str, sub_nai: &[u8]| {
        let request = RegistrationRequest {
            flags: RequestFlags::default(),
            lifetime: Lifetime(300),
            home_address: ANY,
            home_agent,
            care_of_address: AGENT,
            identification: Identification(clock::now().ntp.0),
        };
        let names =
            [Extension::NetworkAccessIdentifier(nai.as_bytes()), Extension::SubNai(sub_nai)];
        real.send_request(Ipv4Addr::new(10, 0, 1, 77), &request, &names, &key(nai));
        request
    };
    visit(PHONE, EVIL);
    until("a visitor", || {
        let output = real.homeport(&["explain", PHONE]);
        Some(()).filter(|()| code(&output) == 0)
    });
    let text = shown(&real, &["explain", PHONE]);
    for words in [
        "phone@train.example is here as a visitor:",
        &format!("\"{EVIL_SHOWN}\" (without an address yet) has asked \"fa\" on port \"core\""),
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    let text = out(&real.homeport(&["show", "visitors"]));
    assert!(text.lines().next().unwrap().contains("NAI                  SESSION"), "{text}");
    assert!(text.contains(&format!("{PHONE}  {EVIL_SHOWN}")), "{text}");

    // Another of its sessions has an address by now, and writes the realm in its own way;
    // and somebody else is here.
    let alike = "phone@Train.Example";
    visit(TABLET, b"theirs");
    let asked = visit(alike, b"laptop");
    let mut writer = MessageWriter::reply(&RegistrationReply {
        code: ReplyCode::ACCEPTED,
        lifetime: asked.lifetime,
        home_address: Ipv4Addr::new(10, 9, 0, 50),
        home_agent,
        identification: asked.identification,
    });
    writer.extension(&Extension::NetworkAccessIdentifier(alike.as_bytes())).unwrap();
    writer.extension(&Extension::SubNai(b"laptop")).unwrap();
    writer.authenticate(AuthenticationKind::MobileHome, &key(PHONE));
    let reply = writer.finish();
    let story: ExplanationView = until("the visitor", || {
        // Only what is pending by now is answered.
        real.send((home_agent, 434), &reply);
        let story: ExplanationView = json(&real, &["explain", "phone@TRAIN.example"], None);
        Some(story).filter(|story| story.visitors.iter().any(|one| one.visitor.home_address != ANY))
    });
    let sessions = story
        .visitors
        .iter()
        .map(|one| (one.visitor.home_address, one.visitor.session.as_deref().unwrap_or_default()));
    let sessions: Vec<_> = sessions.collect();
    assert!(story.swallowed.is_empty());
    assert_eq!(sessions, [(ANY, EVIL_SHOWN), (Ipv4Addr::new(10, 9, 0, 50), "laptop")]);
}

/// The samples of the metrics, each a name with its labels, and a value.
fn samples(real: &Real) -> Vec<(String, String)> {
    let mut stream = TcpStream::connect(real.metrics()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.filter_map(|line| line.rsplit_once(' '));
    samples.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn series(real: &Real) -> BTreeSet<String> {
    samples(real).into_iter().map(|(name, _)| name).collect()
}

const MANY: u32 = 100_000;

/// Reliability row 42, and S1-14 at its size.
#[test]
fn a_hundred_thousand_nais_are_a_bounded_answer_and_no_series_of_metrics() {
    let few = start();
    let room = Room::new();
    room.write("realm.key", "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", 0o600);
    let nai = |number: u32| format!("n{number}@many.example");
    let mut subscribers = "@realm many.example spi=300 key_file=realm.key\n".to_owned();
    (0..MANY).for_each(|number| subscribers.push_str(&format!("-,{}\n", nai(number))));
    room.write("subscribers.csv", &subscribers, 0o600);
    room.config(|text| {
        let network = "[[home_agent.home_network]]\nprefix = \"10.64.0.0/14\"\n\
                       [[home_agent.pool]]\nname = \"train\"\nranges = [\"10.64.0.1-10.65.255.255\"]\n";
        text.replace("max_lifetime", "subscribers = \"subscribers.csv\"\nmax_lifetime") + network
    });
    let first = Ipv4Addr::new(10, 64, 0, 1).to_bits();
    let line = |number: u32| Line {
        tenant: TenantId(0),
        home_agent: AGENT,
        session: StoredSession {
            nai: nai(number).as_bytes().into(),
            sub_nai: b"laptop".as_slice().into(),
            home_address: Ipv4Addr::from_bits(first + number),
            kept: true,
        },
    };
    let many = Real::start(room, Some((0..MANY).map(line).collect()));

    let view: SessionsView = json(&many, &["show", "sessions"], None);
    assert_eq!((view.sessions.len(), view.more), (10_000, u64::from(MANY) - 10_000));
    let mut sorted: Vec<String> = (0..MANY).map(nai).collect();
    sorted.sort_unstable();
    assert!(view.sessions.iter().zip(&sorted).all(|(one, nai)| one.nai == *nai));
    let text = out(&many.homeport(&["show", "sessions"]));
    assert_eq!(text.lines().last().unwrap(), "90000 more are not shown: choose with --nai NAI.");
    let last = nai(MANY - 1);
    let view: SessionsView = json(&many, &["show", "sessions", "--nai", &last], None);
    assert_eq!((view.sessions.len(), view.more), (1, 0));
    assert_eq!(view.sessions[0].home_address, Ipv4Addr::from_bits(first + MANY - 1));
    let pools: Vec<PoolView> = json(&many, &["show", "pools"], Some("pools"));
    assert_eq!((pools[0].size, pools[0].sticky), (131_071, u64::from(MANY)));

    // Strangers and friends ask; each is answered, or not, as one.
    for real in [&few, &many] {
        ask(
            real,
            (PHONE, b"x"),
            (300, ANY, ELSEWHERE),
            false,
            &association(300, b"no key at all..."),
        );
    }
    for number in 0..100 {
        ask(&many, (&nai(number), EVIL), (300, ANY, ELSEWHERE), false, &key(PHONE));
        ask(&many, (&format!("s\n{number}"), EVIL), (300, ANY, ELSEWHERE), false, &key(PHONE));
    }
    let of = |real: &Real| {
        until("a denial is counted", || {
            let series = series(real);
            Some(series).filter(|all| all.iter().any(|name| name.contains("code=\"131\"")))
        })
    };
    let (few, many) = (of(&few), of(&many));
    assert!(!many.iter().any(|name| name.contains("example")), "{many:?}");
    assert_eq!(few, many);
}
