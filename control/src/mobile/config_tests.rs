use super::*;
use homeport_proto::ReverseTunnel;
use homeport_proto::config::PreferredEncapsulation;
use std::os::unix::fs::PermissionsExt;

const RIGHT: &str = r#"
[mobile_node]
interface = "eth0"
home_address = "10.1.0.10"
home_prefix = "10.1.0.0/24"
home_agent = "10.0.1.2"
lifetime = "60s"
reverse_tunnel = "encapsulating"
[[mobile_node.security_association]]
home_agent = "10.0.1.2"
spi = 256
key_file = "mn.key"
"#;

const LAN: &str = r#"
[mobile_node]
interface = "eth0"
home_address = "10.1.0.10"
home_prefix = "10.1.0.0/24"
home_agent = "10.0.1.2"
nai = "phone@train.example"
[mobile_node.lan]
interface = "lan0"
[[mobile_node.security_association]]
home_agent = "10.0.1.2"
spi = 256
key_file = "mn.key"
"#;

/// Checks `text` beside a key file of this mode.
fn parse_beside(text: &str, mode: u32) -> Result<Config, ConfigErrors> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("homeport-mn-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let key = folder.join("mn.key");
    std::fs::write(&key, "000102030405060708090a0b0c0d0e0f").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    let result = Config::parse(text, &folder.join("mn.toml"));
    std::fs::remove_dir_all(&folder).unwrap();
    result
}

/// The one error of the file, as `line:column: message; help`.
fn error(text: &str) -> String {
    let errors = parse_beside(text, 0o600).unwrap_err();
    let [problem] = &errors.problems[..] else { panic!("{errors}") };
    format!("{}:{}: {}; {}", problem.line, problem.column, problem.message, problem.help)
}

#[test]
fn the_state_dir_is_named_from_the_root_on() {
    let with = |folder: &str| format!("[daemon]\nstate_dir = \"{folder}\"{RIGHT}");
    let config = parse_beside(&with("/var/lib/homeport-mn"), 0o600).unwrap();
    assert_eq!(config.state_dir.as_deref(), Some(Path::new("/var/lib/homeport-mn")));
    let said = error(&with("state"));
    assert!(said.contains("state_dir: \"state\" does not begin with /"), "{said}");
}

#[test]
fn what_is_written_is_what_the_node_is_told_and_the_rest_has_defaults() {
    let config = parse_beside(RIGHT, 0o600).unwrap();
    assert_eq!(config.interface, "eth0");
    assert_eq!(config.tunnel, "hp-mn");
    assert_eq!(config.admin_socket, Path::new("/run/homeport/mn.sock"));
    assert_eq!(config.node.lifetime, Lifetime(60));
    assert_eq!(config.node.reverse_tunnel, ReverseTunnel::Encapsulating);
    assert!(config.node.co_located);
    assert_eq!(config.node.encapsulation, PreferredEncapsulation::IpInIp);
    assert!(config.node.nat_traversal && !config.mss_clamp);
    assert_eq!(config.node.security.agents().count(), 1);
    assert_eq!((config.node.nai, config.state_dir), (None, None));
    assert_eq!(config.node.session_carriage, SessionCarriage::Separate);
}

// Shows 5944-1.6-b, 5944-3.6-a.
#[test]
fn each_slip_is_named_with_its_place_and_what_to_write() {
    let slips = [
        ("lifetime = \"60s\"", "lifetme = \"60s\"", "7:1:", "`lifetime`"),
        ("\"60s\"", "\"0s\"", "7:12:", "10m"),
        ("\"60s\"", "60", "7:12:", "\""),
        ("\"10.1.0.10\"", "\"10.9.0.10\"", "4:16:", "home agent serves"),
        ("\"10.1.0.10\"", "\"10.1.0.255\"", "4:16:", "home agent serves"),
        ("\"10.1.0.0/24\"", "\"10.1.0.1/24\"", "5:15:", "10.1.0.0/24"),
        ("\"eth0\"", "\"a/b\"", "3:13:", "15 characters"),
        ("\"eth0\"", "\"hp-mn\"", "2:1:", "another"),
        ("\"encapsulating\"", "\"encapsulated\"", "8:18:", "did you mean"),
        ("lifetime = \"60s\"", "encapsulation = \"gra\"", "7:17:", "did you mean \"gre\""),
        ("lifetime = \"60s\"", "encapsulation = \"plain-udp\"", "7:17:", "write one of"),
        (
            "lifetime = \"60s\"",
            "encapsulation = \"udp\"\nco_located = false",
            "7:17:",
            "co_located",
        ),
        ("lifetime = \"60s\"", "nat_traversal = \"on\"", "7:17:", "true"),
        ("spi = 256", "spi = 255", "11:7:", "256 or more"),
        ("\"mn.key\"", "\"no.key\"", "12:12:", "make one"),
        (
            "[[mobile_node.security_association]]\nhome_agent = \"10.0.1.2\"",
            "[[mobile_node.security_association]]\nhome_agent = \"10.0.1.3\"",
            "6:14:",
            "add [[mobile_node.security_association]]",
        ),
    ];
    for (right, wrong, place, help) in slips {
        let text = RIGHT.replacen(right, wrong, 1);
        assert_ne!(text, RIGHT, "{right}");
        let error = error(&text);
        assert!(error.starts_with(place) && error.contains(help), "{wrong}: {error}");
    }
}

#[test]
fn tunnels_are_asked_for_as_written() {
    let text = RIGHT.replacen(
        "lifetime = \"60s\"",
        "encapsulation = \"udp\"\nnat_traversal = false\nmss_clamp = true",
        1,
    );
    let config = parse_beside(&text, 0o600).unwrap();
    assert_eq!(config.node.encapsulation, PreferredEncapsulation::Udp);
    assert!(!config.node.nat_traversal && config.mss_clamp);
}

#[test]
fn a_lan_has_defaults_and_a_router_in_its_prefix() {
    let config = parse_beside(LAN, 0o600).unwrap();
    assert_eq!(config.node.nai.as_deref(), Some(&b"phone@train.example"[..]));
    let lan = config.lan.unwrap();
    let expected = LanConfig {
        interface: "lan0".into(),
        prefix: Prefix::new(Ipv4Addr::new(10, 1, 0, 0), 24).unwrap(),
        router: Ipv4Addr::new(10, 1, 0, 10),
        sub_nai: SubNaiRule::ClientId,
        lease: Duration::from_secs(120),
        max_devices: 64,
        probe: Duration::from_secs(30),
        name_servers: vec![],
    };
    assert_eq!(lan, expected);
    let more = "interface = \"lan0\"\nprefix = \"10.7.0.0/16\"\nsub_nai = \"host-name\"\n\
                name_servers = [\"192.0.2.53\"]";
    let lan = parse_beside(&LAN.replacen("interface = \"lan0\"", more, 1), 0o600).unwrap();
    let lan = lan.lan.unwrap();
    assert_eq!((lan.router, lan.sub_nai), (Ipv4Addr::new(10, 7, 0, 1), SubNaiRule::HostName));
    assert_eq!(lan.name_servers, [Ipv4Addr::new(192, 0, 2, 53)]);
    assert_eq!(parse_beside(RIGHT, 0o600).unwrap().lan, None);
}

const KNOWS_THE_NAI: &str = "[[mobile_node.security_association]]\n\
    foreign_agent = \"10.0.2.2\"\nnai = \"phone@Train.EXAMPLE\"\nspi = 257\nkey_file = \"mn.key\"\n";

#[test]
fn a_foreign_agent_may_know_the_node_by_its_nai() {
    let agent = Ipv4Addr::new(10, 0, 2, 2);
    for (section, by_nai) in [
        (KNOWS_THE_NAI.to_owned(), true),
        (KNOWS_THE_NAI.replace("nai = \"phone@Train.EXAMPLE\"\n", ""), false),
    ] {
        let config = parse_beside(&format!("{LAN}{section}"), 0o600).unwrap();
        assert!(config.node.security.first_agent(agent).is_some());
        assert_eq!(config.node.agents_by_nai.contains(&agent), by_nai);
    }
    let own = "nai = \"phone@train.example\"\n";
    for (text, place, help) in [
        (
            format!("{LAN}{}", KNOWS_THE_NAI.replace("phone@", "tablet@")),
            "16:7: nai: this node is phone@train.example;",
            "write nai = \"phone@train.example\", or leave it away",
        ),
        (
            LAN.replace("spi = 256", &format!("{own}spi = 256")),
            "12:7: nai: it says of a foreign agent that",
            "beside foreign_agent",
        ),
        (
            format!("{RIGHT}{KNOWS_THE_NAI}"),
            "15:7: nai: this node has none",
            "add nai = \"phone@Train.EXAMPLE\" to [mobile_node]",
        ),
    ] {
        let error = error(&text);
        assert!(error.starts_with(place) && error.contains(help), "{error}");
    }
}

#[test]
fn each_slip_about_sessions_is_named_with_its_place_and_what_to_write() {
    let long = format!("\"{}\"", "n".repeat(254));
    let below = |line: &str| format!("interface = \"lan0\"\n{line}");
    let slips = [
        ("\"phone@train.example\"", "\"\"".to_owned(), "7:7:", "write a word"),
        ("\"phone@train.example\"", long, "7:7:", "shorter"),
        ("nai = \"phone@train.example\"", String::new(), "9:13:", "add nai"),
        ("\"lan0\"", "\"eth0\"".to_owned(), "9:13:", "devices are on"),
        ("\"lan0\"", "\"hp-mn\"".to_owned(), "9:13:", "devices are on"),
        ("\"lan0\"", "\"l n\"".to_owned(), "9:13:", "15 characters"),
        ("interface = \"lan0\"", below("prefix = \"10.1.0.0/31\""), "10:10:", "8 to 30"),
        ("interface = \"lan0\"", below("lease = \"19s\""), "10:9:", "20s"),
        ("interface = \"lan0\"", below("probe = \"999ms\""), "10:9:", "1s"),
        ("interface = \"lan0\"", below("max_devices = 0"), "10:15:", "1024"),
        ("interface = \"lan0\"", below("max_devices = 1025"), "10:15:", "1024"),
        ("interface = \"lan0\"", below("sub_nai = \"hostname\""), "10:11:", "host-name"),
        ("interface = \"lan0\"", below("leese = \"2m\""), "10:1:", "`lease`"),
        ("nai = ", "session_carriage = \"both\"\nnai = ".to_owned(), "7:20:", "combined"),
    ];
    for (right, wrong, place, help) in slips {
        let text = LAN.replacen(right, &wrong, 1);
        assert_ne!(text, LAN, "{right}");
        let error = error(&text);
        assert!(error.starts_with(place) && error.contains(help), "{wrong}: {error}");
    }
}

#[test]
fn a_node_with_a_nai_needs_no_home_address_and_zero_is_none() {
    let without = LAN.replacen("home_address = \"10.1.0.10\"\n", "", 1);
    let config = parse_beside(&without, 0o600).unwrap();
    assert_eq!(config.node.home_address, Ipv4Addr::UNSPECIFIED);
    assert_eq!(config.lan.unwrap().router, Ipv4Addr::new(10, 1, 0, 1));
    let neither = RIGHT.replacen("home_address = \"10.1.0.10\"\n", "", 1);
    let said = error(&neither);
    assert!(said.starts_with("3:13:"), "{said}");
    assert!(said.contains("neither a home_address nor a nai") && said.contains("add"), "{said}");
    for text in [RIGHT, LAN] {
        let said = error(&text.replacen("\"10.1.0.10\"", "\"0.0.0.0\"", 1));
        assert!(said.starts_with("4:16:") && said.contains("leave home_address away"), "{said}");
    }
}

#[test]
fn a_key_file_that_others_may_read_is_refused() {
    let errors = parse_beside(RIGHT, 0o640).unwrap_err();
    assert!(errors.problems[0].help.contains("chmod 600"), "{errors}");
}
