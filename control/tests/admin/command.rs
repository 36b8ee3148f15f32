//! Metrics, `homeport top`, and what is made for shells and manuals.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use homeport_dataplane::verdict::DropReason;
use serde_json::Value;

use super::harness::*;

#[test]
fn metrics_are_prometheus_text_with_every_drop_reason() {
    let daemon = Daemon::start();
    let mut stream = TcpStream::connect(daemon.metrics()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    let mut declared = BTreeSet::new();
    for line in body.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ") {
            assert!(declared.insert(name.split(' ').next().unwrap()), "{name} twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            value.parse::<u64>().unwrap();
            assert!(declared.contains(name.split('{').next().unwrap()), "{line}");
        }
    }
    for expected in [
        "homeport_bindings 1",
        "homeport_port_rx_frames_total{port=\"core\"} 10",
        "homeport_dropped_total{port=\"core\",reason=\"no-route\"} 7",
        "homeport_registration_replies_sent_total{tenant=\"0\",code=\"133\"} 3",
        "homeport_agent_registrations{agent=\"ha\",role=\"home_agent\",tenant=\"0\"} 1",
        "homeport_sessions{agent=\"ha\",tenant=\"0\",state=\"bound\"} 1",
        "homeport_sessions{agent=\"ha\",tenant=\"0\",state=\"home\"} 2",
        "homeport_sessions{agent=\"ha\",tenant=\"0\",state=\"sticky\"} 3",
        "homeport_sessions{agent=\"ha\",tenant=\"0\",state=\"held-down\"} 4",
        "homeport_pool_addresses{agent=\"ha\",tenant=\"0\",pool=\"train\"} 100",
        "homeport_pool_used{agent=\"ha\",tenant=\"0\",pool=\"train\"} 6",
        "homeport_pool_held_down{agent=\"ha\",tenant=\"0\",pool=\"train\"} 4",
        "homeport_pool_exhausted_total{agent=\"ha\",tenant=\"0\",pool=\"train\"} 6",
        "homeport_port_device_total{port=\"core\",counter=\"kernel-drops\"} 9",
    ] {
        assert!(body.lines().any(|line| line == expected), "{expected} is not in\n{body}");
    }
    for reason in DropReason::ALL {
        assert!(body.contains(&format!("reason=\"{}\"", reason.counter())));
    }
    // Nothing else is to be had where metrics are.
    let mut stream = TcpStream::connect(daemon.metrics()).unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 404 "), "{text}");
}

#[test]
fn a_reader_that_has_read_enough_is_no_panic() {
    let daemon = Daemon::start();
    for words in [&["config", "schema"][..], &["show", "drops", "--all"], &["--help"], &["man"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_homeport"))
            .args(["--socket", daemon.socket().to_str().unwrap()])
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((code(&output), err(&output).as_str()), (0, ""), "{words:?}");
    }
}

#[test]
fn top_refuses_what_is_no_terminal() {
    let daemon = Daemon::start();
    let refused = daemon.homeport(&["top"]);
    assert_eq!((code(&refused), out(&refused)), (1, String::new()));
    assert!(err(&refused).contains("top draws on a terminal, and this is none"));
}

/// `script` gives the command a terminal of its own, and its input.
#[test]
fn top_draws_what_moves_until_q_and_leaves_the_terminal_as_it_was() {
    let daemon = Daemon::start();
    let program = env!("CARGO_BIN_EXE_homeport");
    let command =
        format!("stty rows 40 cols 140; {program} --socket {} top", daemon.socket().display());
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Two samples, so that rates are drawn too.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(child.try_wait().unwrap(), None, "it ended before q");
    child.stdin.take().unwrap().write_all(b"q").unwrap();
    let output = child.wait_with_output().unwrap();
    let drawn = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{drawn}");
    for expected in ["Ports", "RX/s", "Mobile", "10.1.0.10", "10.0.2.2", "nothing"] {
        assert!(drawn.contains(expected), "{expected} is not in {drawn:?}");
    }
    // The alternate screen was entered, and left.
    let (entered, left) = (drawn.find("\u{1b}[?1049h"), drawn.rfind("\u{1b}[?1049l"));
    assert!(entered.is_some() && entered < left, "{drawn:?}");
}

#[test]
fn completions_man_pages_and_the_schema_are_made() {
    let room = Room::new();
    for (shell, sign) in
        [("bash", "complete -F"), ("zsh", "#compdef homeport"), ("fish", "complete -c homeport")]
    {
        let made = homeport(&["completions", shell]);
        assert_eq!(code(&made), 0);
        assert!(
            out(&made).contains(sign) && out(&made).contains("security-associations"),
            "{shell}"
        );
    }
    let pages = room.path("man");
    assert_eq!(code(&homeport(&["man", pages.to_str().unwrap()])), 0);
    for page in ["homeport.1", "homeport-show-bindings.1", "homeport-config-apply.1"] {
        let text = std::fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
    assert!(out(&homeport(&["man"])).contains("Exit codes"));
    let schema: Value = serde_json::from_str(&out(&homeport(&["config", "schema"]))).unwrap();
    assert_eq!(schema["properties"]["port"]["type"], "array");
}
