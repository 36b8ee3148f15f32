//! What `homeport show` and its like print, and how they end.

use std::collections::BTreeSet;

use homeport_dataplane::verdict::DropReason;
use homeport_proto::event::DiscardReason;
use serde_json::Value;

use super::harness::*;

const NOUNS: [&str; 13] = [
    "status",
    "ports",
    "bindings",
    "visitors",
    "sessions",
    "pools",
    "tunnels",
    "routes",
    "neighbors",
    "napt",
    "drops",
    "counters",
    "security-associations",
];

#[test]
fn each_noun_is_shown_for_people_and_as_the_json_that_the_api_answers() {
    let daemon = Daemon::start();
    for noun in NOUNS {
        let answer = daemon.client().get(&format!("/v1/{noun}")).unwrap();
        let json = daemon.homeport(&["--json", "show", noun]);
        assert_eq!(code(&json), 0, "{}", err(&json));
        assert_eq!(serde_json::from_str::<Value>(&out(&json)).unwrap(), answer);
        let people = daemon.homeport(&["show", noun]);
        assert_eq!(code(&people), 0, "{}", err(&people));
        assert!(!out(&people).contains('\u{1b}'), "{noun} speaks to the terminal");
        assert!(out(&people).lines().count() >= 2, "{noun}: {}", out(&people));
    }
    assert!(out(&daemon.homeport(&["show", "ports"])).contains("eth0\\u{1b}[2J"));
    let drops = out(&daemon.homeport(&["show", "drops"]));
    assert!(drops.contains(DropReason::NoRoute.text()), "{drops}");
    assert_eq!(drops.lines().count(), 2, "{drops}");
    let all = out(&daemon.homeport(&["show", "drops", "--all"]));
    assert_eq!(all.lines().count(), 1 + DropReason::COUNT + DiscardReason::COUNT, "{all}");
}

#[test]
fn the_keys_of_the_json_are_stable() {
    fn keys(value: &Value, path: &str, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let dot = if path.is_empty() { "" } else { "." };
                    keys(value, &format!("{path}{dot}{key}"), into);
                }
            }
            Value::Array(items) => {
                assert!(!items.is_empty(), "{path} is empty: its keys are not seen");
                items.iter().for_each(|item| keys(item, path, into));
            }
            _ => {
                into.insert(path.to_owned());
            }
        }
    }
    let daemon = Daemon::start();
    let mut seen = String::new();
    for noun in NOUNS {
        let mut paths = BTreeSet::new();
        keys(&daemon.client().get(&format!("/v1/{noun}")).unwrap(), "", &mut paths);
        seen.push_str(&format!("{noun}:\n"));
        paths.iter().for_each(|path| seen.push_str(&format!("  {path}\n")));
    }
    let kept = include_str!("keys.txt");
    assert_eq!(seen, kept, "keys may be added to tests/admin/keys.txt, never renamed or removed");
}

#[test]
fn the_exit_code_tells_refused_from_misused_from_unreachable() {
    let daemon = Daemon::start();
    assert_eq!(code(&daemon.homeport(&["clear", "binding", "10.1.0.10"])), 0);
    assert_eq!(code(&daemon.homeport(&["clear", "visitor", "10.1.0.10"])), 0);
    assert_eq!(code(&daemon.homeport(&["clear", "visitor", "10.1.0.11"])), 1);
    let refused = daemon.homeport(&["clear", "binding", "10.1.0.11", "--tenant", "3"]);
    assert_eq!(code(&refused), 1);
    assert_eq!(
        err(&refused),
        "homeport: 10.1.0.11 has no binding.\n  help: See `homeport show bindings`.\n"
    );
    for misused in [&["show"][..], &["show", "nothing"], &["clear", "binding", "x"], &[]] {
        assert_eq!(code(&daemon.homeport(misused)), 2, "{misused:?}");
    }
    let socket = daemon.room.path("none.sock");
    let unreachable = homeport(&["--socket", socket.to_str().unwrap(), "show", "status"]);
    assert_eq!(code(&unreachable), 3);
    let said = err(&unreachable);
    assert!(said.contains(&format!("no daemon answers on {}", socket.display())), "{said}");
    assert!(said.contains("start homeportd, or name its daemon.admin_socket"), "{said}");
    assert_eq!(out(&unreachable), "");
    let help = out(&daemon.homeport(&["--help"]));
    assert!(help.contains("3  no daemon answers on the socket"), "{help}");
}
