//! Packet trace: what is told of each packet, and that telling changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use homeport_dataplane::launch::SteeringMode;
use homeport_dataplane::packet::BURST;
use homeport_dataplane::reassembly;
use homeport_dataplane::stats::PortStats;
use homeport_dataplane::table::binding::{Encapsulation, TunnelFlags};
use homeport_dataplane::table::visitor::ReverseTunnel;
use homeport_dataplane::trace::{Filter, KEPT, MAX_STEPS, TraceError, Walk};
use homeport_dataplane::verdict::{DropReason, PuntReason, Verdict};
use homeport_dataplane::{MacAddress, PortId};
use homeport_wire::{ArpOperation, ArpPacket};
use proptest::prelude::*;

use crate::fast;
use crate::harness::*;
use crate::noise::{self, enter, frame, two_tenants};
use crate::walk::{MOBILE, ROUTER, foreign_agent, home_agent};

const FAR: &str = "192.0.2.7";
const NODE: &str = "10.1.0.10";

fn walks(rig: &mut Rig) -> Vec<Walk> {
    assert_eq!(rig.control.traces.lost(), 0);
    std::iter::from_fn(|| rig.control.traces.next()).collect()
}

fn start(rig: &mut Rig, filter: &str) {
    rig.control.traces.start(&Filter::parse(filter).unwrap(), None).unwrap();
}

/// The walks that one frame makes, and what left.
fn traced(rig: &mut Rig, port: usize, frame: &[u8]) -> (Vec<Walk>, Vec<(usize, Vec<u8>)>) {
    let sent = rig.exchange(port, frame);
    (walks(rig), sent)
}

/// A walk's steps in words.
fn steps(rig: &Rig, walk: &Walk) -> Vec<String> {
    let ports = &rig.control.ports;
    walk.steps.iter().map(|step| format!("{}: {}", step.table(), step.named(ports))).collect()
}

/// How many walks ended in each way, beside what the ports counted.
#[derive(Default)]
struct Tally {
    told: BTreeMap<(&'static str, &'static str), u64>,
}

impl Tally {
    fn take(&mut self, walks: &[Walk]) {
        for Walk { verdict, .. } in walks {
            let key = (verdict.name(), verdict.reason().unwrap_or_default());
            *self.told.entry(key).or_default() += 1;
        }
    }

    /// Each term of the conservation law has as many walks as it counts. What is no
    /// packet has none, and what is held was told, and is told again.
    fn assert_counted(&self, rig: &Rig) {
        let sum = |count: &dyn Fn(&PortStats) -> u64| -> u64 {
            rig.control.ports.iter().map(|port| port.sum(count)).sum()
        };
        let told = |name, reason| self.told.get(&(name, reason)).copied().unwrap_or_default();
        assert_eq!(told("transmit", ""), sum(&|stats| stats.transmitted.get()));
        assert_eq!(told("to-kernel", ""), sum(&|stats| stats.to_kernel.get()));
        assert_eq!(told("hand-over", ""), sum(&|stats| stats.handed_over.get()));
        for reason in DropReason::ALL {
            let counted = sum(&|stats| stats.dropped(*reason).get());
            assert_eq!(told("drop", reason.counter()), counted, "{reason:?}");
        }
        for reason in PuntReason::ALL {
            if !matches!(reason, PuntReason::ResolveNeighbor | PuntReason::NatLog) {
                let counted = sum(&|stats| stats.punted(*reason).get());
                assert_eq!(told("punt", reason.counter()), counted, "{reason:?}");
            }
        }
        assert!(told("hold", "") >= sum(&|stats| stats.held.get()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The general way tells the story of what the fast path would have done.
    #[test]
    fn a_traced_packet_goes_where_it_goes_untraced_and_every_verdict_is_told(
        visitors: bool, napt: bool,
        bursts in prop::collection::vec(prop::collection::vec(fast::recipe(), 1..40), 1..6),
    ) {
        let (mut plain, mut traced) =
            (fast::rig(true, visitors, napt), fast::rig(true, visitors, napt));
        start(&mut traced, "");
        let mut tally = Tally::default();
        for burst in bursts {
            for rig in [&mut plain, &mut traced] {
                for recipe in &burst {
                    rig.push(recipe.port, &recipe.frame());
                }
                rig.run();
            }
            tally.take(&walks(&mut traced));
            let outcomes = (fast::outcome(&mut plain), fast::outcome(&mut traced));
            prop_assert_eq!(outcomes.0, outcomes.1, "{:#?}", burst);
        }
        tally.assert_counted(&traced);
    }

    /// The same of what nobody meant, from everywhere, with fragments and with next
    /// hops that do not answer.
    #[test]
    fn noise_is_traced_to_its_end_and_not_changed_by_it(
        (how, frames) in proptest::sample::select(&EVERY[..]).prop_flat_map(|how| {
            (Just(how), proptest::collection::vec((noise::way(), frame(how)), 1..40))
        }),
    ) {
        let (mut plain, mut traced) = (two_tenants(how), two_tenants(how));
        start(&mut traced, "");
        let mut tally = Tally::default();
        let everything = |rig: &mut Rig| {
            let twins: Vec<_> = (0..4).map(|port| rig.to_kernel(port)).collect();
            let stats: Vec<_> = (0..4).map(|port| format!("{:?}", rig.stats(port))).collect();
            let punts = rig.punts();
            let punts: Vec<_> =
                punts.iter().map(|(header, frame)| (header.reason(), frame)).collect();
            format!("{:02x?}\n{twins:02x?}\n{punts:02x?}\n{stats:#?}", rig.sent())
        };
        for (way, bytes) in &frames {
            for rig in [&mut plain, &mut traced] {
                enter(rig, way, bytes);
                rig.run();
            }
            tally.take(&walks(&mut traced));
            let outcomes = (everything(&mut plain), everything(&mut traced));
            prop_assert_eq!(outcomes.0, outcomes.1);
        }
        let hold = homeport_dataplane::hold::HOLD_TIME;
        for time in [reassembly::TIMEOUT, hold, hold] {
            plain.advance(time);
            traced.advance(time);
        }
        tally.take(&walks(&mut traced));
        prop_assert_eq!(everything(&mut plain), everything(&mut traced));
        tally.assert_counted(&traced);
    }
}

#[test]
fn a_packet_into_a_tunnel_tells_each_table_that_was_asked() {
    let mut rig = home_agent();
    start(&mut rig, "");
    let frame = Ip::data(FAR, NODE).frame(port_mac(0), station(ROUTER));
    let (walks, sent) = traced(&mut rig, 0, &frame);
    let [walk] = &walks[..] else { panic!("{walks:?}") };
    assert_eq!(
        steps(&rig, walk),
        [
            "classify: destination 10.1.0.10 has a binding",
            "ttl: 64 -> 63",
            "binding: 10.1.0.10 is bound: care-of address 10.0.2.2, IP in IP",
            "encap: outer 10.0.1.2 -> 10.0.2.2, IP in IP, ttl 64",
            "classify: 10.0.2.2 is no address of this box, no visitor's, not bound",
            "route: 0.0.0.0/0 via port0, gateway 10.0.1.1",
            "neighbor: 10.0.1.1 on port0 is 02:00:00:00:01:01",
        ]
    );
    assert_eq!(walk.verdict, Verdict::Transmit(PortId(0)));
    assert_eq!((walk.frame.as_slice(), walk.frame_len), (frame.as_slice(), frame.len()));
    assert_eq!(walk.sent.as_deref(), Some(sent[0].1.as_slice()));
    assert_eq!((walk.worker, walk.port, walk.tenant), (0, PortId(0), TENANT));
    let text = walk.named(&rig.control.ports).to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "port0: 192.0.2.7:29815 -> 10.1.0.10:25966 TCP, 40 bytes, ttl 64");
    assert_eq!(lines[8], "  verdict: transmitted by port0");
    assert_eq!(walk.entry().unwrap().table(), "binding");
}

#[test]
fn a_packet_out_of_a_tunnel_tells_whose_tunnel_it_was() {
    let mut rig = home_agent();
    start(&mut rig, "");
    let inner = Ip::data(NODE, FAR);
    let frame = inner.tunnelled("10.0.2.2", "10.0.1.2").frame(port_mac(0), station(ROUTER));
    let (told, _) = traced(&mut rig, 0, &frame);
    let text = told[0].named(&rig.control.ports).to_string();
    assert!(text.contains("; in it 10.1.0.10:29815 -> 192.0.2.7:25966 TCP"), "{text}");
    for line in [
        "  local: destination 10.0.1.2 is an address of this box, home agent",
        "  binding: 10.1.0.10 is bound: the tunnel from 10.0.2.2, IP in IP, is its own",
        "  decap: outer 10.0.2.2 -> 10.0.1.2, IP in IP, taken off",
    ] {
        assert!(text.lines().any(|at| at == line), "{line} is not in\n{text}");
    }
    // From elsewhere, the check fails, and the reason says which.
    let frame = inner.tunnelled("10.0.9.9", "10.0.1.2").frame(port_mac(0), station(ROUTER));
    let (told, _) = traced(&mut rig, 0, &frame);
    let text = told[0].named(&rig.control.ports).to_string();
    assert!(text.ends_with(
        "verdict: dropped (outer-source-mismatch): The outer source is not the care-of address \
         or home agent of the entry (RFC 3024 4.3.2)."
    ));
}

#[test]
fn what_a_packet_becomes_has_walks_of_its_own() {
    let mut rig = home_agent();
    rig.control.ports[0].set_address(Some(ip("10.0.1.9")));
    rig.bind(NODE, binding("10.0.1.2", &["10.0.2.2", "10.0.3.2"]));
    start(&mut rig, "dst=10.1.0.10");
    let verdicts =
        |walks: &[Walk]| -> Vec<_> { walks.iter().map(|at| at.verdict.name()).collect() };
    let from_core = |packet: Ip| packet.frame(port_mac(0), station(ROUTER));
    let (told, _) = traced(&mut rig, 0, &from_core(Ip::data(FAR, NODE)));
    assert_eq!(verdicts(&told), ["transmit", "transmit"]);
    let copies = told
        .iter()
        .filter(|walk| steps(&rig, walk).contains(&"came: a copy, for one more tunnel".to_owned()));
    assert_eq!(copies.count(), 1);
    rig.bind(NODE, binding("10.0.1.2", &["10.0.2.2"]));
    let long = Ip::data(FAR, NODE).payload(vec![0; 1480]);
    let (told, sent) = traced(&mut rig, 0, &from_core(long.clone().fragmentable()));
    assert_eq!(verdicts(&told), ["transmit", "transmit"]);
    for (walk, (_, frame)) in told.iter().zip(&sent) {
        let cut = "came: a fragment, cut here to fit 1480 bytes".to_owned();
        assert!(steps(&rig, walk).contains(&cut), "{:?}", steps(&rig, walk));
        assert_eq!((walk.frame.len(), walk.frame_len), (KEPT, 1514));
        let sent = walk.sent.as_deref().unwrap();
        assert_eq!((sent, walk.sent_len), (&frame[..sent.len()], frame.len()));
    }
    // The error is told of with the packet that it is about, although its own
    // destination is another.
    let (told, _) = traced(&mut rig, 0, &from_core(long));
    assert_eq!(verdicts(&told), ["drop", "transmit"]);
    let told_sender = "icmp: fragmentation needed, MTU 1480, to its sender, from 10.0.1.9";
    assert!(told.iter().all(|walk| steps(&rig, walk).contains(&told_sender.to_owned())));
    assert_eq!(told[1].steps.last().unwrap().table(), "neighbor");
}

#[test]
fn what_waits_is_told_twice() {
    let mut rig = home_agent();
    start(&mut rig, "");
    let frame = Ip::data(FAR, "10.1.0.77").frame(port_mac(0), station(ROUTER));
    let (told, _) = traced(&mut rig, 0, &frame);
    assert_eq!(told[0].verdict, Verdict::Hold);
    let last = steps(&rig, &told[0]).pop().unwrap();
    assert_eq!(last, "hold: held for its next hop 10.1.0.77 on port1");
    rig.neighbor(1, "10.1.0.77", station(77));
    rig.run();
    let told = walks(&mut rig);
    assert_eq!(told[0].verdict, Verdict::Transmit(PortId(1)));
    assert!(!told[0].has_link_header && told[0].frame[0] == 0x45);
    assert_eq!(
        steps(&rig, &told[0]),
        ["came: it waited here until now", "neighbor: 10.1.0.77 on port1 is 02:00:00:00:01:4d"]
    );
}

#[test]
fn fragments_are_told_of_as_one_when_they_are_whole() {
    let mut rig = home_agent();
    start(&mut rig, "");
    let inner = Ip::data(NODE, FAR).payload(vec![7; 1200]);
    let tunnelled = inner.tunnelled("10.0.2.2", "10.0.1.2").fragmentable();
    let (first, rest) = tunnelled.payload.split_at(800);
    let mut all = Vec::new();
    for (offset, piece, more) in [(0, first, true), (800, rest, false)] {
        let piece = tunnelled.clone().payload(piece.to_vec()).fragment(offset, more);
        all.extend(traced(&mut rig, 0, &piece.frame(port_mac(0), station(ROUTER))).0);
    }
    let [first, whole] = &all[..] else { panic!("{all:?}") };
    assert_eq!(first.verdict, Verdict::Hold);
    assert_eq!(whole.verdict, Verdict::Transmit(PortId(0)));
    let text = steps(&rig, whole).join("\n");
    assert!(text.contains("reassembly: the last fragment: 1240 bytes are put together"), "{text}");
}

/// A port says how many it took only after the whole burst.
#[test]
fn what_the_port_refuses_is_told_as_dropped() {
    let mut plan = Plan::ports(2);
    plan.queue_frames = 8;
    let mut rig = plan.build();
    rig.route("10.9.0.0/24", 1, Some("10.8.0.1"));
    rig.neighbor(1, "10.8.0.1", station(1));
    start(&mut rig, "");
    for _ in 0..2 {
        for _ in 0..8 {
            rig.push(0, &Ip::data(FAR, "10.9.0.1").frame(port_mac(0), station(ROUTER)));
        }
        rig.run();
    }
    let mut tally = Tally::default();
    tally.take(&walks(&mut rig));
    assert_eq!(tally.told[&("drop", "port-transmit-full")], 8);
    tally.assert_counted(&rig);
}

#[test]
fn a_filter_sees_the_packet_and_what_is_in_its_tunnels() {
    let outer = Ip::data(NODE, FAR).tunnelled("10.0.2.2", "10.0.1.2");
    let frame = outer.frame(port_mac(0), station(ROUTER));
    let udp = Ip::udp(NODE, FAR, (7, 53)).arriving(EVERY[4], "10.0.2.2", "10.0.1.2");
    let udp = udp.frame(port_mac(0), station(ROUTER));
    for (filter, frame, matches) in [
        ("", &frame, true),
        ("src=10.0.2.2", &frame, true),
        ("src=10.1.0.0/24 dst=192.0.2.7", &frame, true),
        ("src=10.1.0.0/24 dst=10.0.1.2", &frame, false),
        ("proto=ipip", &frame, true),
        ("proto=tcp", &frame, true),
        ("proto=udp", &frame, false),
        ("sport=7 dport=53", &udp, true),
        ("dport=434", &udp, true),
        ("sport=7 dport=434", &udp, false),
        ("port=port0 tenant=0", &frame, true),
        ("port=port1", &frame, false),
        ("tenant=1", &frame, false),
        ("verdict=transmit", &frame, true),
        ("verdict=drop", &frame, false),
        ("reason=no-binding", &frame, false),
    ] {
        let mut rig = home_agent();
        start(&mut rig, filter);
        rig.exchange(0, frame);
        assert_eq!(walks(&mut rig).len(), usize::from(matches), "{filter}");
    }
}

#[test]
fn a_count_ends_a_trace_and_there_is_one_at_a_time() {
    let mut rig = home_agent();
    let frame = Ip::data(FAR, NODE).frame(port_mac(0), station(ROUTER));
    rig.exchange(0, &frame);
    assert_eq!(walks(&mut rig), [], "nobody asked");
    rig.control.traces.start(&Filter::all(), Some(3)).unwrap();
    let error = rig.control.traces.start(&Filter::all(), None).unwrap_err();
    assert_eq!(error, TraceError::Running);
    for _ in 0..5 {
        rig.push(0, &frame);
    }
    rig.run();
    assert_eq!(walks(&mut rig).len(), 3);
    assert!(rig.control.traces.is_spent());
    rig.exchange(0, &frame);
    assert_eq!(walks(&mut rig), []);
    rig.control.traces.stop();
    let nowhere = Filter::parse("port=nowhere").unwrap();
    let error = rig.control.traces.start(&nowhere, None).unwrap_err();
    assert_eq!(error, TraceError::NoSuchPort("nowhere".into()));
    start(&mut rig, "");
    rig.exchange(0, &frame);
    rig.control.traces.stop();
    rig.exchange(0, &frame);
    assert_eq!(walks(&mut rig).len(), 1, "what was told before it ended");
    let fast = rig.worker.fast_packets();
    rig.exchange(0, &frame);
    assert_eq!(rig.worker.fast_packets(), fast + 1, "and the fast way is open again");
}

#[test]
fn walks_that_find_no_room_are_lost_and_counted_and_the_packets_are_not() {
    let mut plan = Plan::ports(2);
    plan.config.trace_ring = 4096;
    let mut rig = plan.build();
    rig.route("0.0.0.0/0", 0, Some("10.0.1.1"));
    rig.neighbor(0, "10.0.1.1", station(ROUTER));
    start(&mut rig, "");
    for _ in 0..BURST {
        rig.push(1, &Ip::data(FAR, "198.51.100.7").frame(port_mac(1), station(3)));
    }
    rig.run();
    assert_eq!(rig.sent().len(), BURST);
    let told = std::iter::from_fn(|| rig.control.traces.next()).count() as u64;
    assert_eq!(told + rig.control.traces.lost(), BURST as u64);
    assert!(told > 4 && rig.control.traces.lost() > 4, "{told}");
}

#[test]
fn a_story_too_long_is_cut_and_says_so() {
    let mut rig = home_agent();
    start(&mut rig, "");
    let tunnel =
        |care_of| binding_of("10.0.1.2", None, &[(care_of, EVERY[0], TunnelFlags::REVERSE)]);
    rig.bind("10.1.0.11", tunnel("10.1.0.12"));
    rig.bind("10.1.0.12", tunnel("10.1.0.13"));
    rig.bind("10.1.0.13", tunnel(NODE));
    let (told, _) =
        traced(&mut rig, 0, &Ip::data(FAR, "10.1.0.11").frame(port_mac(0), station(ROUTER)));
    let longest = told.iter().max_by_key(|walk| walk.steps.len() + walk.omitted).unwrap();
    assert_eq!(longest.steps.len(), MAX_STEPS.min(longest.steps.len() + longest.omitted));
    if longest.omitted > 0 {
        let text = longest.named(&rig.control.ports).to_string();
        assert!(text.contains(&format!("and {} more steps", longest.omitted)), "{text}");
    }
    assert!(longest.steps.len() > 10);
}

/// Each worker tells its part.
#[test]
fn a_packet_that_another_worker_has_is_told_of_by_both() {
    let mut plan = Plan::ports(2);
    plan.workers(2, SteeringMode::Inner);
    let mut rig = plan.build();
    rig.home_agent("10.0.1.2");
    rig.route("0.0.0.0/0", 0, Some("10.0.1.1"));
    rig.neighbor(0, "10.0.1.1", station(ROUTER));
    start(&mut rig, "");
    for last in 0..32 {
        let packet = Ip::data(FAR, &format!("198.51.100.{last}"));
        rig.push(1, &packet.frame(port_mac(1), station(3)));
    }
    rig.run();
    let told = walks(&mut rig);
    let handed = told.iter().filter(|walk| walk.verdict == Verdict::HandOver(1)).count();
    assert!(handed > 4 && handed < 28, "{handed}");
    let by_second = told.iter().filter(|walk| walk.worker == 1).count();
    assert!(by_second >= handed);
    let mut tally = Tally::default();
    tally.take(&told);
    tally.assert_counted(&rig);
}

#[test]
fn a_visitors_story_names_the_visitor_and_an_arp_answer_the_node() {
    let mut rig = foreign_agent(ReverseTunnel::Direct);
    start(&mut rig, "");
    let up = Ip::data(NODE, FAR).frame(port_mac(1), station(MOBILE));
    let (told, _) = traced(&mut rig, 1, &up);
    let text = steps(&rig, &told[0]).join("\n");
    let visitor = "from a visitor: 02:00:00:00:01:0a on port1, home agent 10.0.1.2";
    assert!(text.contains(visitor), "{text}");
    let down = Ip::data(FAR, NODE).tunnelled("10.0.1.2", "10.0.2.2");
    let (told, _) = traced(&mut rig, 0, &down.frame(port_mac(0), station(ROUTER)));
    let text = steps(&rig, &told[0]).join("\n");
    let visitor = "for a visitor: 02:00:00:00:01:0a on port1, home agent 10.0.1.2";
    assert!(text.contains(visitor), "{text}");
    let mut rig = home_agent();
    let entry = binding_of(
        "10.0.1.2",
        Some(1),
        &[("10.0.2.2", Encapsulation::IpInIp, TunnelFlags::REVERSE)],
    );
    rig.bind(NODE, entry);
    start(&mut rig, "");
    let (operation, nobody) = (ArpOperation::REQUEST, MacAddress::UNSPECIFIED);
    let arp = ArpPacket::new(operation, station(5), ip("10.1.0.5"), nobody, ip(NODE));
    let (told, _) = traced(&mut rig, 1, &arp_frame(MacAddress::BROADCAST, &arp));
    let text = steps(&rig, &told[0]).join("\n");
    assert_eq!(text, "arp: 10.1.0.10 is away, and its home link is port1: answered");
    assert_eq!(told[0].verdict, Verdict::Transmit(PortId(1)));
    rig.advance(Duration::from_secs(1));
}
