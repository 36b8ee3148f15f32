//! `homeport trace` and `homeport explain --packet` over the real socket, with a real
//! dataplane behind it. (B-08)

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use homeport_control::admin::api::{Refusal, RefusalKind};
use homeport_control::admin::client::ClientError;
use homeport_control::admin::trace::{Begun, WalksView};
use homeport_control::capture::CaptureReader;
use homeport_control::event_loop::trace::SILENCE;
use homeport_dataplane::trace::ProbePacket;
use homeport_wire::{EtherType, EthernetHeader, MacAddress};
use serde_json::{Value, json};
use zerocopy::IntoBytes;

use super::harness::*;

/// A frame with the packet that these words tell.
fn frame(words: &str) -> Vec<u8> {
    let packet = ProbePacket::parse(words).unwrap().bytes();
    let from = MacAddress([2, 0, 0, 0, 0, 9]);
    [EthernetHeader::new(CORE, from, EtherType::IPV4).as_bytes(), &packet].concat()
}

const TO_NODE: &str = "src=192.0.2.7 dst=10.1.0.10 proto=udp sport=4000 dport=53";

impl Daemon {
    fn begin(&self, words: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_homeport"))
            .args(["--socket", self.socket().to_str().unwrap()])
            .args(words)
            .env_remove("HOMEPORT_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Waits until a trace is on: one that could not begin anyway is refused for that
    /// reason then.
    fn wait_for_a_trace(&self) -> Refusal {
        loop {
            let begun = self.client().post("/v1/trace", &json!({"filter": "port=nowhere"}));
            match begun.unwrap_err() {
                ClientError::Refused(refusal) if refusal.kind == RefusalKind::Conflict => {
                    return *refusal;
                }
                ClientError::Refused(_) => {}
                error => panic!("{error}"),
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[test]
fn a_trace_prints_each_packet_with_its_steps_and_its_verdict_and_ends_after_its_count() {
    let daemon = Daemon::start();
    let child = daemon.begin(&["trace", "--filter", "dst=10.1.0.10", "--count", "2"]);
    daemon.wait_for_a_trace();
    assert!(daemon.core.push(&frame("src=192.0.2.7 dst=198.51.100.1 proto=udp")));
    assert!(daemon.core.push(&frame(TO_NODE)));
    assert!(daemon.core.push(&frame("src=192.0.2.7 dst=10.1.0.10 proto=tcp ttl=1")));
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), err(&output).as_str()), (0, ""));
    assert_eq!(
        out(&output),
        "core: 192.0.2.7:4000 -> 10.1.0.10:53 UDP, 28 bytes, ttl 64\n\
         \x20 classify: destination 10.1.0.10 has a binding\n\
         \x20 ttl: 64 -> 63\n\
         \x20 binding: 10.1.0.10 is bound: care-of address 10.0.2.2, IP in IP\n\
         \x20 encap: outer 10.0.1.2 -> 10.0.2.2, IP in IP, ttl 64\n\
         \x20 classify: 10.0.2.2 is no address of this box, no visitor's, not bound\n\
         \x20 route: 0.0.0.0/0 via core, gateway 10.0.1.1\n\
         \x20 neighbor: 10.0.1.1 on core is 02:00:00:00:00:09\n\
         \x20 verdict: transmitted by core\n\
         core: 192.0.2.7:0 -> 10.1.0.10:0 TCP, 40 bytes, ttl 1\n\
         \x20 classify: destination 10.1.0.10 has a binding\n\
         \x20 ttl: 1: it ends here\n\
         \x20 icmp: time exceeded, but nobody may be told\n\
         \x20 verdict: dropped (ttl-expired): The TTL ran out; the sender was told.\n"
    );
}

#[test]
fn a_trace_as_json_is_a_line_for_each_packet_and_ends_after_its_time() {
    let daemon = Daemon::start();
    let child = daemon.begin(&["--json", "trace", "--timeout", "1"]);
    daemon.wait_for_a_trace();
    for _ in 0..3 {
        assert!(daemon.core.push(&frame(TO_NODE)));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), err(&output).as_str()), (0, ""));
    let lines: Vec<Value> =
        out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    for walk in lines {
        assert_eq!((&walk["verdict"], &walk["port"]), (&json!("transmit"), &json!("core")));
        assert_eq!((&walk["reason"], &walk["sent_bytes"]), (&json!(null), &json!(62)));
        assert_eq!(walk["steps"][2]["table"], "binding");
        assert!(walk["time_nanoseconds"].as_u64().unwrap() > 1_600_000_000_000_000_000);
    }
}

#[test]
fn a_second_trace_is_refused_while_one_runs() {
    let daemon = Daemon::start();
    let mut child = daemon.begin(&["trace", "--filter", "dst=10.1.0.10"]);
    let refusal = daemon.wait_for_a_trace();
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert_eq!(refusal.error, "A trace of dst=10.1.0.10 is running.");
    let second = daemon.homeport(&["trace"]);
    assert_eq!(code(&second), 1);
    assert!(err(&second).contains("homeport: A trace of dst=10.1.0.10 is running."));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Its client is silent, not gone with a farewell.
#[test]
fn a_trace_whose_client_has_gone_ends_by_itself() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let begun: Begun =
        serde_json::from_value(client.post("/v1/trace", &json!({})).unwrap()).unwrap();
    let path = format!("/v1/trace/{}", begun.number);
    client.get(&path).unwrap();
    std::thread::sleep(SILENCE);
    while client.post("/v1/trace", &json!({"filter": "proto=99"})).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    match client.get(&path).unwrap_err() {
        ClientError::Refused(refusal) => assert_eq!(refusal.kind, RefusalKind::NotFound),
        error => panic!("{error}"),
    }
}

#[test]
fn a_reader_of_a_trace_that_has_read_enough_ends_it() {
    let daemon = Daemon::start();
    let mut child = daemon.begin(&["trace"]);
    daemon.wait_for_a_trace();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(daemon.core.push(&frame(TO_NODE)));
    assert!(lines.next().unwrap().unwrap().starts_with("core: "));
    drop(lines);
    assert!(daemon.core.push(&frame(TO_NODE)));
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), err(&output).as_str()), (0, ""));
    let mut words = vec!["trace", "--timeout", "0"];
    assert_eq!(code(&daemon.homeport(&words)), 0, "it has said that it goes");
    words[0] = "explain";
    assert_eq!(code(&daemon.homeport(&words)), 2);
}

#[test]
fn wrong_words_are_named_with_what_is_allowed() {
    let daemon = Daemon::start();
    for (words, error, hint) in [
        (
            ["trace", "--filter", "dport=http"],
            "In the filter, \"dport=http\": this is no number that fits.",
            "Allowed: a port, from 0 to 65535.",
        ),
        (["trace", "--filter", "port=nowhere"], "There is no port \"nowhere\".", "core, home."),
        (["explain", "--packet", "src=1.2.3.4"], "In the packet, \"dst=\"", "Allowed: an address"),
        (
            ["explain", "--packet", "src=1.2.3.4 dst=5.6.7.8 proto=udp port=x"],
            "There is no port \"x\".",
            "The ports are core, home.",
        ),
    ] {
        let refused = daemon.homeport(&words);
        assert_eq!(code(&refused), 1);
        assert!(err(&refused).contains(error), "{}", err(&refused));
        assert!(err(&refused).contains(hint), "{}", err(&refused));
    }
    let missing = daemon.homeport(&["trace", "--pcap", "/nonexistent/x.pcap"]);
    assert_eq!(code(&missing), 1);
    assert!(err(&missing).contains("/nonexistent/x.pcap: No such file"));
}

#[test]
fn a_capture_has_what_came_in_and_behind_it_what_left() {
    let daemon = Daemon::start();
    let file = daemon.room.path("trace.pcap");
    let path = file.to_str().unwrap();
    let child = daemon.begin(&["trace", "--count", "2", "--pcap", path]);
    daemon.wait_for_a_trace();
    let (through, gone) = (frame(TO_NODE), frame("src=192.0.2.7 dst=10.1.0.10 proto=tcp ttl=1"));
    assert!(daemon.core.push(&through) && daemon.core.push(&gone));
    assert_eq!(code(&child.wait_with_output().unwrap()), 0);
    let mut capture = CaptureReader::open(&file).unwrap();
    let mut frames = Vec::new();
    while let Some(time) = capture.next_frame().unwrap() {
        frames.push((time, capture.frame().to_vec()));
    }
    let sent = daemon.core.take_all();
    let bytes: Vec<_> = frames.iter().map(|(_, frame)| frame.clone()).collect();
    assert_eq!(bytes, [through, sent[0].clone(), gone]);
    assert_eq!(frames[0].0, frames[1].0, "at one time");
}

#[test]
fn explain_says_table_by_table_what_would_become_of_a_packet_and_nothing_happens() {
    let daemon = Daemon::start();
    let explained = daemon.homeport(&["explain", "--packet", TO_NODE]);
    assert_eq!((code(&explained), err(&explained).as_str()), (0, ""));
    let text = out(&explained);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "core: 192.0.2.7:4000 -> 10.1.0.10:53 UDP, 28 bytes, ttl 64");
    assert_eq!(lines[3], "  binding: 10.1.0.10 is bound: care-of address 10.0.2.2, IP in IP");
    assert_eq!(lines[8], "  verdict: transmitted by core");
    assert_eq!(lines.len(), 9);
    assert_eq!(daemon.core.take_all(), Vec::<Vec<u8>>::new());
    // While a trace runs, which tells nothing of it.
    let child = daemon.begin(&["trace", "--timeout", "1"]);
    daemon.wait_for_a_trace();
    let words = "src=192.0.2.7 dst=10.1.0.10 proto=udp ttl=1";
    let explained = daemon.homeport(&["--json", "explain", "--packet", words]);
    let view: WalksView = serde_json::from_str(&out(&explained)).unwrap();
    assert_eq!(view.walks.len(), 1);
    assert_eq!(view.walks[0].reason.as_deref(), Some("ttl-expired"));
    assert_eq!(out(&child.wait_with_output().unwrap()), "");
}
