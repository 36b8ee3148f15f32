//! Packets that are only asked about: the answer is what would become of them, and
//! nothing else is.

use std::collections::BTreeSet;

use homeport_dataplane::PortId;
use homeport_dataplane::launch::SteeringMode;
use homeport_dataplane::parse::{self, Frame};
use homeport_dataplane::table::binding::{Encapsulation, TunnelFlags};
use homeport_dataplane::table::visitor::ReverseTunnel;
use homeport_dataplane::trace::{Filter, ProbePacket, Probed, Walk};
use homeport_dataplane::verdict::{DropReason, PuntReason, Verdict};
use homeport_wire::EthernetHeader;
use proptest::prelude::*;

use crate::fast;
use crate::harness::*;
use crate::noise::{self, Way, enter, frame, two_tenants};
use crate::walk::{MOBILE, ROUTER, foreign_agent, home_agent};

const FAR: &str = "192.0.2.7";
const NODE: &str = "10.1.0.10";

/// What becomes of the packet that follows a link header, if it comes in by a port.
fn ask(rig: &mut Rig, port: usize, frame: &[u8]) -> Vec<Walk> {
    let packet = &frame[EthernetHeader::LEN.min(frame.len())..];
    let from = (PortId(port as u16), TENANT);
    let control = &mut rig.control;
    assert!(control.traces.probe_bytes(&mut control.injects, 0, from, packet));
    answer(rig)
}

fn answer(rig: &mut Rig) -> Vec<Walk> {
    rig.turn();
    match rig.control.traces.probed() {
        Probed::Walks(walks) => walks,
        Probed::Waits => panic!("there is no answer"),
    }
}

/// What becomes of the packet that these words tell.
fn ask_in_words(rig: &mut Rig, worker: usize, words: &str) -> Vec<Walk> {
    let packet = ProbePacket::parse(words).unwrap();
    let control = &mut rig.control;
    assert!(control.traces.probe(&mut control.injects, worker, &packet));
    answer(rig)
}

fn text(rig: &Rig, walks: &[Walk]) -> String {
    walks.iter().map(|walk| format!("{}\n", walk.named(&rig.control.ports))).collect()
}

fn has(walk: &Walk, table: &str) -> bool {
    walk.steps.iter().any(|step| step.table() == table)
}

/// The verdicts of a packet's walks and of its copies and fragments; not those of the
/// errors about it.
fn verdicts(walks: &[Walk]) -> Vec<String> {
    let is_error =
        |walk: &&Walk| walk.steps.iter().any(|step| step.to_string() == "an ICMP error, made here");
    let own = walks.iter().filter(|walk| !is_error(walk));
    let mut all: Vec<_> = own.map(|walk| format!("{:?}", walk.verdict)).collect();
    all.sort();
    all
}

/// Whether a real frame is all that a probe's packet says: from the station that would
/// send it, to us, and an IPv4 packet.
fn is_plain(frame: &[u8], port: usize) -> bool {
    match parse::frame(frame) {
        Ok((ethernet, Frame::Ipv4(facts))) => {
            let is_group = facts.destination.is_multicast() || facts.destination.is_broadcast();
            ethernet.destination == port_mac(port as u8) && !is_group
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Two boxes get the same packets, and of one each is asked about before it comes:
    /// counters, tokens, sessions, identifications, all that shows, stay the same. And
    /// what was foretold happens.
    #[test]
    fn a_packet_that_is_asked_about_leaves_no_trace_and_then_goes_where_was_foretold(
        visitors: bool, napt: bool,
        recipes in prop::collection::vec(fast::recipe(), 1..60),
    ) {
        let (mut asked, mut plain) =
            (fast::rig(true, visitors, napt), fast::rig(true, visitors, napt));
        asked.control.traces.start(&Filter::all(), None).unwrap();
        for recipe in recipes {
            let frame = recipe.frame();
            let foretold = ask(&mut asked, recipe.port, &frame);
            for rig in [&mut asked, &mut plain] {
                rig.push(recipe.port, &frame);
                rig.run();
            }
            let walks: Vec<_> = std::iter::from_fn(|| asked.control.traces.next()).collect();
            prop_assert_eq!(fast::outcome(&mut asked), fast::outcome(&mut plain), "{:?}", recipe);
            prop_assert_eq!(asked.worker.free_buffers(), plain.worker.free_buffers());
            // Which of several fragments is the last nobody knows before it comes.
            let stops = foretold.iter().any(|walk| has(walk, "reassembly"));
            if is_plain(&frame, recipe.port) && !stops {
                let foretold = (verdicts(&foretold), text(&asked, &foretold));
                let came = (verdicts(&walks), text(&asked, &walks));
                prop_assert_eq!(&foretold.0, &came.0, "{:?}\n{}\n{}", recipe, foretold.1, came.1);
            }
        }
    }

    /// The same of noise, as far as nothing changes.
    #[test]
    fn noise_that_is_asked_about_changes_nothing(
        (how, frames) in proptest::sample::select(&EVERY[..]).prop_flat_map(|how| {
            (Just(how), proptest::collection::vec((noise::way(), frame(how)), 1..30))
        }),
    ) {
        let (mut asked, mut plain) = (two_tenants(how), two_tenants(how));
        let all = |rig: &mut Rig| {
            let twins: Vec<_> = (0..4).map(|port| rig.to_kernel(port)).collect();
            let stats: Vec<_> = (0..4).map(|port| format!("{:?}", rig.stats(port))).collect();
            let punts = rig.punts();
            let punts: Vec<_> = punts.iter().map(|(at, frame)| (at.reason(), frame)).collect();
            let free = rig.worker.free_buffers();
            format!("{:02x?} {twins:02x?} {punts:02x?} {stats:#?} {free:?}", rig.sent())
        };
        for (way, bytes) in &frames {
            let port = match way {
                Way::Link(port) | Way::Twin(port) => *port,
                Way::Injected(port, _) => usize::from(*port),
            };
            ask(&mut asked, port, bytes);
            for rig in [&mut asked, &mut plain] {
                enter(rig, way, bytes);
                rig.run();
            }
            prop_assert_eq!(all(&mut asked), all(&mut plain));
        }
        let hold = homeport_dataplane::hold::HOLD_TIME;
        for time in [homeport_dataplane::reassembly::TIMEOUT, hold, hold] {
            asked.advance(time);
            plain.advance(time);
        }
        prop_assert_eq!(all(&mut asked), all(&mut plain));
    }
}

/// The properties above compare something: what is asked about reaches every verdict.
#[test]
fn every_kind_of_verdict_is_foretold() {
    let mut seen = BTreeSet::new();
    let mut home = home_agent();
    for words in [
        "src=192.0.2.7 dst=10.1.0.10 proto=udp dport=53",
        "src=192.0.2.7 dst=10.0.1.2 proto=udp dport=434",
        "src=192.0.2.7 dst=10.0.1.2 proto=icmp",
        "src=192.0.2.7 dst=10.1.0.77 proto=tcp",
        "src=192.0.2.7 dst=10.1.0.10 proto=tcp ttl=1",
    ] {
        let before = format!("{:?}", (home.stats(0), home.stats(1)));
        let walks = ask_in_words(&mut home, 0, words);
        assert_eq!(format!("{:?}", (home.stats(0), home.stats(1))), before);
        assert_eq!(walks.len(), 1, "{}", text(&home, &walks));
        seen.insert(format!("{:?}", walks[0].verdict));
    }
    let expected = [
        Verdict::Transmit(PortId(0)),
        Verdict::Punt(PuntReason::Registration),
        Verdict::ToKernel,
        Verdict::Hold,
        Verdict::Drop(DropReason::TtlExpired),
    ];
    assert_eq!(seen, expected.iter().map(|verdict| format!("{verdict:?}")).collect());
    assert_eq!((home.sent(), home.punts().len(), home.to_kernel(0).len()), (vec![], 0, 0));
}

#[test]
fn what_would_leave_is_shown_as_it_would_leave() {
    let mut rig = home_agent();
    let words = "src=192.0.2.7 dst=10.1.0.10 proto=udp sport=4000 dport=53 len=60";
    let walks = ask_in_words(&mut rig, 0, words);
    let would = walks[0].sent.clone().unwrap();
    let packet = ProbePacket::parse(words).unwrap().bytes();
    let frame = Ip::read(&packet).frame(port_mac(0), station(ROUTER));
    let sent = rig.exchange(0, &frame);
    assert_eq!(would, sent[0].1);
    assert_eq!(walks[0].port, PortId(0), "where the route to its source leads");
}

/// The station is taken to be the visitor's, or nobody would know it.
#[test]
fn a_visitors_packet_is_asked_about_as_the_visitors() {
    let mut rig = foreign_agent(ReverseTunnel::Direct);
    let walks = ask_in_words(&mut rig, 0, "src=10.1.0.10 dst=192.0.2.7 proto=udp dport=53");
    let text = text(&rig, &walks);
    assert!(text.contains("visitor: from a visitor: 02:00:00:00:01:0a on port1"), "{text}");
    assert!(text.contains("encap: outer 10.0.2.2 -> 10.0.1.2"), "{text}");
    assert_eq!(walks[0].verdict, Verdict::Transmit(PortId(0)));
    let real = Ip::data(NODE, FAR).frame(port_mac(1), station(MOBILE));
    only(rig.exchange(1, &real), 0, station(ROUTER));
}

/// An allowance, a token, a place in a queue: asked for, and not taken.
#[test]
fn what_is_asked_about_a_thousand_times_is_still_there() {
    let mut rig = home_agent();
    rig.control.ports[0].set_address(Some(ip("10.0.1.9")));
    let flags = TunnelFlags::REVERSE.with(TunnelFlags::UNPROVEN, true);
    rig.bind(
        "10.1.0.11",
        binding_of("10.0.1.2", None, &[("10.0.2.9", Encapsulation::IpInIp, flags)]),
    );
    let echo = Ip::icmp("10.1.0.11", "10.0.1.2", 8, b"ping").tunnelled("10.0.2.9", "10.0.1.2");
    rig.exchange(0, &echo.frame(port_mac(0), station(ROUTER)));
    for _ in 0..1000 {
        ask_in_words(&mut rig, 0, "src=192.0.2.7 dst=10.1.0.11 proto=udp dport=53");
        ask_in_words(&mut rig, 0, "src=192.0.2.7 dst=10.1.0.10 proto=udp ttl=1");
        ask_in_words(&mut rig, 0, "src=192.0.2.7 dst=10.1.0.77 proto=udp");
        ask_in_words(&mut rig, 0, "src=10.0.9.9 dst=10.0.1.2 proto=udp dport=434");
    }
    let down = Ip::udp(FAR, "10.1.0.11", (53, 53)).frame(port_mac(0), station(ROUTER));
    only(rig.exchange(0, &down), 0, station(ROUTER));
    let late = Ip::data(FAR, NODE).ttl(1).frame(port_mac(0), station(ROUTER));
    only(rig.exchange(0, &late), 0, station(ROUTER));
    assert_eq!(rig.stats(0).held.get(), 0);
    assert_eq!(rig.punts().len(), 0, "nothing was asked of the kernel");
}

#[test]
fn what_belongs_to_another_worker_is_to_be_asked_there() {
    let mut plan = Plan::ports(2);
    plan.workers(2, SteeringMode::Inner);
    let mut rig = plan.build();
    rig.route("0.0.0.0/0", 0, Some("10.0.1.1"));
    rig.neighbor(0, "10.0.1.1", station(ROUTER));
    let mut asked_again = 0;
    for last in 0..16 {
        let words = format!("src=192.0.2.7 dst=198.51.100.{last} proto=udp port=port1");
        let walks = ask_in_words(&mut rig, 0, &words);
        let worker = match walks[0].verdict {
            Verdict::HandOver(worker) => usize::from(worker),
            _ => continue,
        };
        asked_again += 1;
        let walks = ask_in_words(&mut rig, worker, &words);
        assert_eq!((walks[0].verdict, walks[0].worker), (Verdict::Transmit(PortId(0)), 1));
    }
    assert!(asked_again > 2 && asked_again < 14, "{asked_again}");
    rig.check();
}

#[test]
fn what_is_no_packet_and_what_has_no_port_is_told_as_such() {
    let mut rig = home_agent();
    let control = &mut rig.control;
    let from = (PortId(7), TENANT);
    assert!(control.traces.probe_bytes(&mut control.injects, 0, from, &[0x45; 20]));
    assert_eq!(answer(&mut rig)[0].verdict, Verdict::Drop(DropReason::InjectMalformed));
    let nowhere = ProbePacket::parse("src=1.2.3.4 dst=5.6.7.8 proto=udp port=nowhere").unwrap();
    let control = &mut rig.control;
    assert!(!control.traces.probe(&mut control.injects, 0, &nowhere));
    let packet = ProbePacket::parse("src=1.2.3.4 dst=5.6.7.8 proto=udp").unwrap();
    assert!(!control.traces.probe(&mut control.injects, 9, &packet), "there is no such worker");
}
