//! `homeport config check` and `config apply`.

use std::path::Path;

use serde_json::Value;

use super::harness::*;

#[test]
fn config_check_needs_no_daemon_and_shows_each_error_where_it_stands() {
    let room = Room::new();
    let check = |file: &Path| homeport(&["config", "check", file.to_str().unwrap()]);
    let good = check(&room.config(|text| text));
    assert_eq!(code(&good), 0, "{}", err(&good));
    assert!(out(&good).contains("no errors. (No daemon answers on"), "{}", out(&good));

    room.write("open.key", "000102030405060708090a0b0c0d0e0f", 0o644);
    let second = "[[home_agent]]\nname = \"two\"\naddress = \"10.1.0.1\"\n\
                  [[home_agent.home_network]]\nprefix = \"10.1.0.0/25\"\n";
    for (from, to, place, said, help) in [
        (
            "max_lifetime",
            "max_lifetme",
            "19:1",
            "unknown key `max_lifetme`",
            "did you mean `max_lifetime`?",
        ),
        (
            "\"600s\"",
            "\"60 minutes\"",
            "19:16",
            "the unit \" minutes\" is not known",
            "write \"60m\"",
        ),
        (
            "[[home_agent.security",
            &format!("{second}[[home_agent.security"),
            "27:10",
            "overlaps 10.1.0.0/24",
            "networks of its own",
        ),
        ("mn.key", "no.key", "26:12", "there is no key file", "make one:"),
        ("mn.key", "open.key", "26:12", "has mode 0644", "run: chmod 600"),
    ] {
        let file = room.config(|text| text.replacen(from, to, 1));
        let refused = check(&file);
        assert_eq!((code(&refused), out(&refused)), (1, String::new()));
        let shown = err(&refused);
        assert!(shown.contains(&format!("ha.toml:{place}]")), "{place}\n{shown}");
        let joined: String = shown.lines().map(|line| format!("{} ", line.trim())).collect();
        assert!(joined.contains(said), "{shown}");
        assert!(joined.contains(help), "{shown}");

        let json = homeport(&["--json", "config", "check", file.to_str().unwrap()]);
        assert_eq!(code(&json), 1);
        let problems: Value = serde_json::from_str(&out(&json)).unwrap();
        let first = &problems["problems"][0];
        let at = format!("{}:{}", first["line"], first["column"]);
        assert_eq!(at, place);
    }
    assert_eq!(code(&check(&room.path("absent.toml"))), 1);
}

#[test]
fn config_check_knows_a_mobile_nodes_file() {
    let room = Room::new();
    let text = "[mobile_node]\ninterface = \"eth0\"\nhome_address = \"10.1.0.10\"\n\
                home_prefix = \"10.1.0.0/24\"\nhome_agent = \"10.0.1.2\"\n\
                [[mobile_node.security_association]]\nhome_agent = \"10.0.1.2\"\nspi = 256\n\
                key_file = \"mn.key\"\n";
    room.write("mn.toml", text, 0o644);
    let file = room.path("mn.toml");
    let good = homeport(&["config", "check", file.to_str().unwrap()]);
    assert_eq!(code(&good), 0, "{}", err(&good));
    let applied = homeport(&["config", "apply", file.to_str().unwrap()]);
    assert_eq!(code(&applied), 1);
    assert!(err(&applied).contains("reads its config at the start only"));
    room.write("mn.toml", &text.replace("256", "25"), 0o644);
    let refused = homeport(&["config", "check", file.to_str().unwrap()]);
    assert_eq!(code(&refused), 1);
    assert!(err(&refused).contains("mn.toml:8:7]"), "{}", err(&refused));
}

#[test]
fn a_file_cannot_speak_to_the_terminal_through_its_errors() {
    let room = Room::new();
    // TOML forbids the character: the excerpt must not show it raw.
    let file = room.config(|text| text.replace("\"ha\"", "\"ha\u{1b}[2J\u{9b}2J\""));
    let refused = homeport(&["config", "check", file.to_str().unwrap()]);
    assert_eq!(code(&refused), 1);
    assert!(!err(&refused).contains(['\u{1b}', '\u{9b}']), "{:?}", err(&refused));
    assert!(err(&refused).contains("\"ha?[2J??2J\""), "{}", err(&refused));
}

#[test]
fn config_apply_swaps_what_can_change_live_and_refuses_the_rest_whole() {
    let daemon = Daemon::start();
    let shown = daemon.homeport(&["config", "show"]);
    assert_eq!(code(&shown), 0, "{}", err(&shown));
    // What is shown is a config file again, with every default; and no key.
    let again: toml::Table = out(&shown).parse().unwrap();
    assert_eq!(again["home_agent"][0]["max_lifetime"].as_str(), Some("10m"));
    assert_eq!(again["home_agent"][0]["max_bindings"].as_integer(), Some(100_000));
    assert!(!out(&shown).contains("0001020304"));
    daemon.room.write("shown.toml", &out(&shown), 0o644);
    let same =
        daemon.homeport(&["config", "check", daemon.room.path("shown.toml").to_str().unwrap()]);
    assert!(out(&same).ends_with("Nothing changes.\n"), "{}{}", out(&same), err(&same));

    let file = daemon.room.config(|text| text.replace("\"600s\"", "\"601s\""));
    let file = file.to_str().unwrap();
    let line = "home_agent[ha].max_lifetime  10m  601s  at once";
    let dry = daemon.homeport(&["config", "check", file]);
    assert_eq!(code(&dry), 0, "{}", err(&dry));
    assert!(out(&dry).contains(line), "{}", out(&dry));
    let applied = daemon.homeport(&["config", "apply", file]);
    assert_eq!(code(&applied), 0, "{}", err(&applied));
    assert!(out(&applied).contains(line), "{}", out(&applied));
    let again = daemon.homeport(&["--json", "config", "apply", file]);
    assert_eq!(
        serde_json::from_str::<Value>(&out(&again)).unwrap(),
        serde_json::json!({"changes": []})
    );

    let file =
        daemon.room.config(|text| text.replace("\"eth1\"", "\"eth2\"").replace("600s", "5h"));
    let file = file.to_str().unwrap();
    let dry = daemon.homeport(&["config", "check", file]);
    assert!(
        out(&dry).contains("port[home].interface         eth1  eth2  after a restart"),
        "{}",
        out(&dry)
    );
    let refused = daemon.homeport(&["config", "apply", file]);
    assert_eq!((code(&refused), out(&refused)), (1, String::new()));
    assert!(err(&refused).contains("Nothing was changed: port[home].interface can only change"));
    let kept = daemon.client().get("/v1/config").unwrap();
    assert_eq!(kept["home_agent"][0]["max_lifetime"], "601s");
    let invalid = daemon.room.config(|text| text.replace("600s", "0s"));
    assert_eq!(code(&daemon.homeport(&["config", "apply", invalid.to_str().unwrap()])), 1);
}

#[test]
fn a_port_of_dpdk_is_refused_where_the_program_has_none() {
    let room = Room::new();
    let file = room.config(|text| {
        text.replacen("backend = \"af_packet\"", "backend = \"dpdk\"", 1).replacen(
            "interface = \"",
            "device = \"net_af_packet0,iface=",
            1,
        )
    });
    let checked = homeport(&["config", "check", file.to_str().unwrap()]);
    if cfg!(feature = "dpdk") {
        assert_eq!(code(&checked), 0, "{}", err(&checked));
    } else {
        assert_eq!(code(&checked), 1, "{}", out(&checked));
        let shown = err(&checked);
        assert!(shown.contains("this build of Homeport has no DPDK"), "{shown}");
    }
}
