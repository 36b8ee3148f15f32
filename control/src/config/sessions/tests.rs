//! What the file says of sessions is what the home agent is told, or is refused where it
//! stands. (S1-07, S1-08, S1-17, B-08)

use super::*;
use crate::config::tests::{GOOD, Room, says};
use crate::config::{Config, Problem, diff};
use std::path::Path;

/// What is put in front of it belongs to the home agent of the good file.
const BEHIND: &str = "[[foreign_agent]]";
const DAEMON: &str = "log = \"info\"";
const HOME: &str = "max_bindings = 1000";

/// Sessions as they are meant.
const RIGHT: &str = r#"[[home_agent.security_association]]
nai = "phone@Train.Example"
spi = 300
key_file = "keys/mn1.key"
[[home_agent.security_association]]
nai = "tablet@train.example"
mobile_node = "10.1.0.20"
spi = 300
algorithm = "hmac-sha1"
key_file = "keys/mn1.key"
replay = "nonces"
[[home_agent.pool]]
name = "train"
realm = "Train.Example"
ranges = ["10.1.0.100-10.1.0.199", "10.1.0.50"]
exclusions = ["10.1.0.110"]
[[home_agent.pool]]
name = "others"
ranges = ["10.1.0.200-10.1.0.209"]
[[home_agent.reservation]]
nai = "phone@TRAIN.example"
session = "printer"
home_address = "10.1.0.30"
[[home_agent.reservation]]
nai = "phone@train.example"
home_address = "10.1.0.31"

"#;

fn with(sessions: &str) -> String {
    GOOD.replace(BEHIND, &format!("{sessions}{BEHIND}"))
}

/// The one problem of [`RIGHT`] with `from` replaced by `to`, which stands where `to` has
/// its part `wrong`.
fn slip(from: &str, to: &str, wrong: &str) -> Problem {
    assert_eq!(RIGHT.matches(from).count(), 1, "{from} must stand once");
    let sessions = RIGHT.replace(from, to);
    let text = with(&sessions);
    let errors = Room::new().parse(&text).unwrap_err();
    assert_eq!(errors.problems.len(), 1, "{from} -> {to}: {errors}");
    let problem = errors.problems[0].clone();
    let at = text.find(to).unwrap() + to.find(wrong).unwrap();
    let line = text[..at].matches('\n').count() + 1;
    let column = at - text[..at].rfind('\n').map_or(0, |newline| newline + 1) + 1;
    assert_eq!((problem.line, problem.column), (line, column), "{problem}");
    problem
}

#[test]
fn sessions_are_read_as_they_were_meant() {
    let keys = "max_sessions_per_nai = 8\nsession_sticky = \"2h\"\nsession_hold_down = \"30s\"";
    let text = with(RIGHT)
        .replace(HOME, &format!("{HOME}\n{keys}"))
        .replace(DAEMON, &format!("{DAEMON}\nstate_dir = \"/var/lib/homeport\""));
    let config = Room::new().parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.daemon.state_dir.as_deref(), Some(Path::new("/var/lib/homeport")));
    let agent = &config.home_agents[0].config;
    let at = |last| Ipv4Addr::new(10, 1, 0, last);
    let range = |first, last| AddressRange { first: at(first), last: at(last) };
    let set_aside = |sub_nai: &[u8], last| Reservation {
        nai: b"phone@train.example".to_vec(),
        sub_nai: sub_nai.to_vec(),
        home_address: at(last),
    };
    let policy = SessionPolicy {
        pools: vec![
            AddressPool {
                name: "train".into(),
                realm: Some("train.example".into()),
                ranges: vec![range(100, 199), range(50, 50)],
                exclusions: vec![range(110, 110)],
            },
            AddressPool {
                name: "others".into(),
                realm: None,
                ranges: vec![range(200, 209)],
                exclusions: Vec::new(),
            },
        ],
        reservations: vec![set_aside(b"printer", 30), set_aside(b"", 31)],
        max_sessions_per_nai: 8,
        sticky: Duration::from_secs(7_200),
        hold_down: Duration::from_secs(30),
    };
    assert_eq!(agent.sessions, policy);

    let security = &agent.security;
    assert_eq!(security.nai_count(), 2);
    let phone = security.subscriber(b"phone@train.EXAMPLE").unwrap();
    let tablet = security.subscriber(b"tablet@train.example").unwrap();
    assert_eq!(security.own_home_address(phone), None);
    assert_eq!(security.own_home_address(tablet), Some(at(20)));
    let of = |node| security.of_mobile_node(node).collect::<Vec<_>>();
    let [only] = &of(phone.stand_in())[..] else { panic!("one key of the phone") };
    assert_eq!((only.spi.0, only.replay), (300, ReplayProtection::default()));
    for known_by in [tablet.stand_in(), at(20)] {
        let [only] = &of(known_by)[..] else { panic!("one key of the tablet") };
        assert_eq!((only.spi.0, only.replay), (300, ReplayProtection::Nonces));
    }
}

#[test]
fn without_sessions_nothing_is_kept_for_them() {
    let config = Room::new().parse(GOOD).unwrap();
    let policy = &config.home_agents[0].config.sessions;
    assert!(policy.pools.is_empty() && policy.reservations.is_empty());
    assert_eq!((policy.max_sessions_per_nai, policy.sticky.as_secs()), (64, 3_600));
    assert_eq!((policy.hold_down.as_secs(), config.daemon.state_dir), (60, None));
}

#[test]
fn each_slip_is_refused_where_it_stands_with_what_to_write() {
    const RANGES: &str = "[\"10.1.0.100-10.1.0.199\", \"10.1.0.50\"]";
    const OTHERS: &str = "[\"10.1.0.200-10.1.0.209\"]";
    let long_nai = format!("\"{}@train.example\"", "n".repeat(240));
    let long_session = format!("\"{}\"", "s".repeat(248));
    let one_range = "let each address be in one range only";
    let network = "write addresses of one home network, or add [[home_agent.home_network]]";
    let as_in = "write it as in \"phone@train.example\"";
    let slips: &[(&str, &str, &str, &str, &str)] = &[
        (
            RANGES,
            "[\"10.1.0.100-10.1.0.199\", \"10.1.0.150-10.1.0.160\"]",
            "\"10.1.0.150",
            "ranges: 10.1.0.150-10.1.0.160 overlaps 10.1.0.100-10.1.0.199 of the pool \"train\"",
            one_range,
        ),
        (
            OTHERS,
            "[\"10.1.0.50-10.1.0.60\"]",
            "\"10.1.0.50",
            "ranges: 10.1.0.50-10.1.0.60 overlaps 10.1.0.50 of the pool \"train\"",
            one_range,
        ),
        (
            OTHERS,
            "[\"10.7.0.1-10.7.0.9\"]",
            "\"10.7.0.1",
            "ranges: 10.7.0.1-10.7.0.9 lies in no home network of this home agent",
            network,
        ),
        (
            OTHERS,
            "[\"10.1.0.250-10.1.1.9\"]",
            "\"10.1.0.250",
            "ranges: 10.1.0.250-10.1.1.9 lies in no home network of this home agent",
            network,
        ),
        (
            OTHERS,
            "[\"10.1.0.209-10.1.0.200\"]",
            "\"10.1.0.209",
            "10.1.0.209 is above 10.1.0.200",
            "write the lower one first: \"10.1.0.200-10.1.0.209\"",
        ),
        (
            OTHERS,
            "[\"10.1.0.0/24\"]",
            "\"10.1.0.0/24",
            "\"10.1.0.0/24\" is neither an IPv4 address nor two",
            "write it as in \"10.1.0.100-10.1.0.199\"",
        ),
        (
            "name = \"others\"\nranges = [\"10.1.0.200-10.1.0.209\"]",
            "name = \"others\"",
            "\"others\"",
            "the pool \"others\" has no ranges",
            "write ranges = [\"10.1.0.100-10.1.0.199\"]",
        ),
        (
            "name = \"others\"\nranges",
            "name = \"train\"\nranges",
            "\"train\"",
            "two pools have the name \"train\"",
            "give each its own",
        ),
        (
            "nai = \"tablet@train.example\"\nmobile_node = \"10.1.0.20\"",
            "nai = \"tablet@train.example\"\nforeign_agent = \"10.0.2.9\"",
            "\"tablet",
            "nai: this association has two peers, and an agent has no NAI",
            "write nai, or nai and mobile_node",
        ),
        (
            "home_address = \"10.1.0.31\"\n",
            "home_address = \"10.1.0.31\"\n[[home_agent.reservation]]\nnai = \"stranger@x\"\nhome_address = \"10.1.0.32\"\n",
            "\"stranger@x\"",
            "nai: no key is shared with stranger@x",
            "add a [[home_agent.security_association]] with nai = \"stranger@x\", or a line of the subscriber file",
        ),
        (
            "\"10.1.0.31\"",
            "\"10.1.0.30\"\n#",
            "\"10.1.0.30\"",
            "home_address: 10.1.0.30 is set aside twice",
            "give each session its own",
        ),
        (
            "nai = \"phone@train.example\"\nhome",
            "nai = \"phone@train.EXAMPLE\"\nsession = \"printer\"\nhome",
            "\"phone@",
            "the session \"printer\" of phone@train.example has two addresses set aside",
            "write one [[home_agent.reservation]] for it",
        ),
        (
            "\"10.1.0.31\"",
            "\"10.2.0.31\"",
            "\"10.2",
            "home_address: 10.2.0.31 is in no home network of this home agent",
            "write an address that it serves, or add a [[home_agent.home_network]]",
        ),
        (
            "\"10.1.0.31\"",
            "\"10.1.0.10\"\n#",
            "\"10.1",
            "home_address: 10.1.0.10 is that of a node with its own security_association",
            "set another one aside",
        ),
        (
            "\"tablet@train.example\"",
            &long_nai,
            "\"",
            "nai: a NAI has 1 to 253 bytes, and this has 254",
            as_in,
        ),
        (
            "\"tablet@train.example\"",
            "\"\"",
            "\"\"",
            "nai: a NAI has 1 to 253 bytes, and this has 0",
            as_in,
        ),
        (
            "\"phone@train.example\"",
            "\"\"",
            "\"\"",
            "nai: a NAI has 1 to 253 bytes, and this has 0",
            as_in,
        ),
        (
            "\"printer\"",
            &long_session,
            "\"",
            "session: a session's name has at most 247 bytes, and this has 248",
            "write a shorter one: a message has no room for more",
        ),
    ];
    for (from, to, wrong, message, help) in slips {
        says(&slip(from, to, wrong), message, help);
    }
}

#[test]
fn keys_of_the_agent_and_of_the_process_are_refused_where_they_stand() {
    let room = Room::new();
    let in_agent =
        |key: &str, wrong: &str| room.only_problem(HOME, &format!("{HOME}\n{key}"), wrong);
    let times = "write a time from \"14s\" to \"720h\"";
    let replayed =
        "within twice the tolerance of the clocks an old request could take the address back";
    let never = "the addresses of those who never come again would hardly become free";
    for (name, value, why) in [
        ("session_hold_down", "13s", replayed),
        ("session_sticky", "500ms", replayed),
        ("session_sticky", "721h", never),
    ] {
        says(
            &in_agent(&format!("{name} = \"{value}\""), &format!("\"{value}\"")),
            &format!("{name} cannot be {value}: {why}"),
            times,
        );
    }
    says(
        &in_agent("max_sessions_per_nai = 4294967295", "4294967295"),
        "max_sessions_per_nai cannot be 4294967295",
        "write a number from 1 to 2147483647",
    );
    says(
        &room.only_problem(DAEMON, &format!("{DAEMON}\nstate_dir = \"state\""), "\"state\""),
        "state_dir: \"state\" does not begin with /",
        "write it from the root on, as in \"/var/lib/homeport\"",
    );
    // Nodes without an address need some; the agent stands there with its name.
    let text = format!(
        "[[home_agent.security_association]]\nnai = \"phone@train.example\"\nspi = 300\n\
         key_file = \"keys/mn1.key\"\n{BEHIND}"
    );
    let errors = room.parse(&GOOD.replace(BEHIND, &text)).unwrap_err();
    let [problem] = &errors.problems[..] else { panic!("{errors}") };
    let line = GOOD[..GOOD.find("name = \"ha\"").unwrap()].matches('\n').count() + 1;
    assert_eq!((problem.line, problem.column), (line, 8), "{problem}");
    says(
        problem,
        "there are nodes that are known by NAI, and no addresses for them",
        "add a [[home_agent.pool]] with name = \"all\" and ranges = [\"10.1.0.100-10.1.0.199\"]",
    );
    // With one of its own, a node needs no pool.
    let text = text.replace("spi", "mobile_node = \"10.1.0.20\"\nspi");
    room.parse(&GOOD.replace(BEHIND, &text)).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn a_foreign_agent_knows_nodes_by_nai_or_by_address_or_by_both() {
    let room = Room::new();
    let section = |peer: &str| {
        format!(
            "encapsulating_delivery = false\n[[foreign_agent.security_association]]\n\
             {peer}\nspi = 300\nkey_file = \"keys/mn1.key\""
        )
    };
    let by_nai = "nai = \"phone@Train.Example\"";
    for (peer, by_address) in
        [(by_nai, false), (&format!("{by_nai}\nmobile_node = \"10.1.0.20\""), true)]
    {
        let text = GOOD.replace("encapsulating_delivery = false", &section(peer));
        let config = room.parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
        let security = &config.foreign_agents[0].config.security;
        let phone = security.subscriber(b"phone@train.example").unwrap();
        assert!(security.knows_mobile_node(phone.stand_in()));
        assert_eq!(security.knows_mobile_node("10.1.0.20".parse().unwrap()), by_address);
    }
    let two = section(&format!("{by_nai}\nhome_agent = \"10.0.9.9\""));
    says(
        &room.only_problem("encapsulating_delivery = false", &two, "\"phone"),
        "nai: this association has two peers, and an agent has no NAI",
        "write nai, or nai and mobile_node",
    );
}

/// A node with a slow clock makes the shortest time longer.
#[test]
fn an_address_is_held_down_for_twice_the_longest_tolerance_of_a_nai() {
    let sessions = RIGHT.replacen("spi = 300\n", "spi = 300\ntolerance = \"40s\"\n", 1);
    let errors = Room::new().parse(&with(&sessions)).unwrap_err();
    let [problem] = &errors.problems[..] else { panic!("{errors}") };
    assert!(problem.message.starts_with("session_hold_down cannot be 1m: "), "{problem}");
    assert_eq!(problem.help, "write a time from \"80s\" to \"720h\"");
    let text = with(&sessions).replace(HOME, &format!("{HOME}\nsession_hold_down = \"80s\""));
    assert!(Room::new().parse(&text).is_ok());
}

#[test]
fn a_difference_names_the_nai_the_pool_and_the_address_set_aside() {
    let room = Room::new();
    let parse = |sessions: &str| -> Config { room.parse(&with(sessions)).unwrap() };
    let old = parse(RIGHT);
    assert!(diff(&old, &parse(RIGHT)).is_empty());
    let new = RIGHT
        .replace("algorithm = \"hmac-sha1\"", "algorithm = \"hmac-sha256\"")
        .replace("\"10.1.0.200-10.1.0.209\"", "\"10.1.0.200-10.1.0.219\"")
        .replace("session = \"printer\"", "session = \"scanner\"");
    let changes = diff(&old, &parse(&new)).changes;
    let told: Vec<(&str, String)> =
        changes.iter().map(|change| (change.path.as_str(), change.new.to_string())).collect();
    let expected = [
        ("home_agent[ha].pool[others].ranges", "[\"10.1.0.200-10.1.0.219\"]"),
        ("home_agent[ha].reservation[10.1.0.30].session", "\"scanner\""),
        (
            "home_agent[ha].security_association[tablet@train.example 300].algorithm",
            "\"hmac-sha256\"",
        ),
    ];
    assert_eq!(told, expected.map(|(path, new)| (path, new.to_owned())));
    assert!(changes.iter().all(|change| change.effect == crate::config::Effect::Live));
}
