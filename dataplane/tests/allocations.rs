//! An RX core takes no memory: every allocation of this program is counted.
#![allow(unsafe_code, reason = "a counting allocator is a GlobalAlloc, whose methods are unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // A thread that is going away is none that is measured.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is the system allocator's, with the same arguments; counting
// allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc`'s contract, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; `pointer` came from the system allocator.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[cfg(test)]
#[path = "pipeline/harness.rs"]
#[allow(dead_code, reason = "this program needs less of it than the other")]
mod harness;
#[cfg(test)]
#[path = "pipeline/walk.rs"]
mod walk;

#[cfg(test)]
#[path = "pipeline/gateway.rs"]
#[allow(dead_code, reason = "this program needs less of it than the other")]
mod gateway;

#[cfg(test)]
mod tests {
    use super::ALLOCATIONS;
    use crate::gateway::FAR;
    use crate::harness::*;
    use crate::walk::{MOBILE, ROUTER, foreign_agent, home_agent};
    use homeport_dataplane::reassembly::TIMEOUT;
    use homeport_dataplane::table::binding::{Encapsulation, EntryFlags, TunnelFlags};
    use homeport_dataplane::table::route::RouteEntry;
    use homeport_dataplane::table::visitor::{ReverseTunnel, VisitorEntry};
    use homeport_dataplane::verdict::{DropReason, PuntReason};
    use std::time::Duration;

    fn allocations(work: impl FnOnce()) -> u64 {
        let before = ALLOCATIONS.get();
        work();
        ALLOCATIONS.get() - before
    }

    #[test]
    fn the_count_counts() {
        assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(7)))), 1);
    }

    /// Bursts of every kind of packet, good and bad: not one allocation.
    #[test]
    fn no_burst_allocates() {
        bursts_of_every_kind(false);
    }

    /// Nor does a trace of all of them, nor one that finds no room for its walks.
    #[test]
    fn no_burst_that_is_traced_allocates() {
        bursts_of_every_kind(true);
    }

    fn bursts_of_every_kind(traced: bool) {
        let mut rig = home_agent();
        if traced {
            rig.control.traces.start(&homeport_dataplane::trace::Filter::all(), None).unwrap();
        }
        rig.bind("10.1.0.11", binding("10.0.1.2", &["10.0.3.2", "10.0.4.2", "10.0.5.2"]));
        rig.control.ports[0].set_address(Some(ip("10.0.1.9")));
        let far = "192.0.2.7";
        let frames: Vec<Vec<u8>> = [
            Ip::data(far, "10.1.0.10"),
            Ip::data(far, "10.1.0.11"),
            Ip::data(far, "10.1.0.11").payload(vec![0; 1480]).fragmentable(),
            Ip::data(far, "10.1.0.10").payload(vec![0; 1480]),
            Ip::data(far, "10.1.0.10").ttl(1),
            Ip::data(far, "10.1.0.77"),
            Ip::data("10.1.0.10", far).tunnelled("10.0.2.2", "10.0.1.2"),
            Ip::data("10.1.0.10", "10.1.0.11").tunnelled("10.0.2.2", "10.0.1.2"),
            Ip::data("10.1.0.99", far).tunnelled("10.0.2.2", "10.0.1.2"),
            Ip::data(far, "10.0.1.2"),
            Ip::udp(far, "10.0.1.2", (434, 434)),
            Ip::data(far, "198.51.100.7"),
        ]
        .iter()
        .map(|packet| packet.frame(port_mac(0), station(ROUTER)))
        .collect();
        let work = |rig: &mut Rig| {
            for _ in 0..4 {
                for frame in &frames {
                    rig.push(0, frame);
                }
                while rig.worker.run_once(rig.now) {}
                rig.now += Duration::from_millis(600);
                while rig.worker.run_once(rig.now) {}
            }
            rig.links[0].discard();
        };
        // The memory port and the rings grow to their size once.
        work(&mut rig);
        assert_eq!(allocations(|| work(&mut rig)), 0);
        assert_eq!(rig.control.traces.next().is_some(), traced);
        assert!(rig.stats(0).encapsulated.get() > 40);
        assert!(rig.stats(0).decapsulated.get() > 10);
        rig.check();
    }

    /// Nor does one of a storm, where registration messages are shed.
    #[test]
    fn no_burst_of_a_storm_allocates() {
        let mut rig = home_agent();
        let frames: Vec<Vec<u8>> = (0..200)
            .map(|number| Ip::udp(&format!("192.0.2.{number}"), "10.0.1.2", (434, 434)))
            .map(|packet| packet.frame(port_mac(0), station(ROUTER)))
            .collect();
        let work = |rig: &mut Rig| {
            for _ in 0..100 {
                frames.iter().for_each(|frame| rig.push(0, frame));
                while rig.worker.run_once(rig.now) {}
            }
        };
        // The memory port grows to its size once.
        work(&mut rig);
        let before = rig.worker.surge_packets();
        assert_eq!(allocations(|| work(&mut rig)), 0);
        assert_eq!(rig.worker.surge_packets() - before, 20_000);
        assert!(rig.dropped(DropReason::RegistrationRate) > 30_000);
        rig.check();
    }

    /// B-04: into and out of a tunnel of every kind, whole, in pieces and from behind a
    /// mobile router; and all that is refused, answered or shown to the control core.
    #[test]
    fn no_burst_of_any_encapsulation_allocates() {
        for how in EVERY {
            let mut rig = home_agent();
            let reverse = TunnelFlags::REVERSE;
            let bind = |rig: &mut Rig, node: &str, how: Encapsulation, flags: TunnelFlags| {
                rig.bind(node, binding_of("10.0.1.2", None, &[("10.0.2.2", how, flags)]));
            };
            bind(&mut rig, "10.1.0.10", how, reverse);
            bind(&mut rig, "10.1.0.11", how, reverse.with(TunnelFlags::UNPROVEN, true));
            bind(&mut rig, "10.1.0.12", Encapsulation::Udp { peer_port: 0 }, reverse);
            let route = RouteEntry::MobileRouter { home_address: ip("10.1.0.10") };
            rig.control.routes.install(TENANT, ip("10.9.0.0"), 24, route).unwrap();
            let (far, node) = ("192.0.2.7", "10.1.0.10");
            let arriving = |packet: Ip, how| packet.arriving(how, "10.0.2.2", "10.0.1.2");
            let echo = |node: &str| Ip::icmp(node, "10.0.1.2", 8, b"keepalive");
            let udp = |peer_port| Encapsulation::Udp { peer_port };
            let mut malformed = arriving(Ip::data(node, far), how);
            malformed.payload.truncate(3);
            let frames: Vec<Vec<u8>> = [
                Ip::data(far, node),
                Ip::data(far, node).payload(vec![0; 1480]).fragmentable(),
                Ip::data(far, "10.9.0.5"),
                Ip::data(far, "10.1.0.11"),
                Ip::data(far, "10.1.0.12"),
                arriving(Ip::data(node, far), how),
                arriving(Ip::data("10.9.0.5", far), how),
                arriving(Ip::data("10.1.0.11", far), how),
                arriving(echo(node), how),
                arriving(echo("10.1.0.12"), udp(4711)),
                arriving(Ip::data(node, far), udp(4712)),
                arriving(Ip::data(node, far), Encapsulation::Gre { key: Some(1) }),
                malformed,
            ]
            .iter()
            .map(|packet| packet.frame(port_mac(0), station(ROUTER)))
            .collect();
            let work = |rig: &mut Rig| {
                for _ in 0..4 {
                    for frame in &frames {
                        rig.push(0, frame);
                    }
                    while rig.worker.run_once(rig.now) {}
                    rig.now += Duration::from_millis(600);
                    while rig.worker.run_once(rig.now) {}
                }
                rig.links[0].discard();
                rig.twins[0].as_ref().unwrap().discard();
            };
            work(&mut rig);
            let free = rig.worker.free_buffers();
            assert_eq!(allocations(|| work(&mut rig)), 0, "{how:?}");
            assert_eq!(rig.worker.free_buffers(), free);
            assert!(rig.stats(0).encapsulated.get() >= 8 * 4, "{how:?}");
            assert!(rig.stats(0).decapsulated.get() >= 8 * 3, "{how:?}");
            assert_eq!(rig.punted(PuntReason::TunnelKeepalive), 8);
            rig.check();
        }
    }

    /// B-05: fragments that become whole, small and large, that are refused and that
    /// time out; errors from inside the tunnel; clamped segment sizes; cut options.
    #[test]
    fn no_burst_of_fragments_and_errors_allocates() {
        let mut rig = home_agent();
        let end = ("10.0.2.2", Encapsulation::IpInIp, TunnelFlags::REVERSE);
        let mut entry = binding_of("10.0.1.2", None, &[end]);
        entry.flags = EntryFlags::CLAMP_MSS;
        rig.bind("10.1.0.10", entry);
        let (node, far) = ("10.1.0.10", "192.0.2.7");
        let up = |len: usize| Ip::data(node, far).payload(vec![0; len]).fragmentable();
        let cut = |packet: Ip| -> Vec<Ip> {
            let count = packet.payload.len().div_ceil(1200);
            let part = |(at, piece): (usize, &[u8])| {
                let whole = packet.clone().payload(piece.to_vec());
                whole.fragment(at as u16 * 1200, at + 1 < count)
            };
            packet.payload.chunks(1200).enumerate().map(part).collect()
        };
        let mut syn = vec![0; 24];
        syn[12..14].copy_from_slice(&[0x60, 2]);
        syn[20..24].copy_from_slice(&[2, 4, 0xff, 0xff]);
        let quote = Ip::data(far, node).payload(vec![0; 1400]).tunnelled("10.0.1.2", "10.0.2.2");
        let unfinished = |source: &str, offset: u16| {
            let packet = up(1000).tunnelled(source, "10.0.1.2").payload(vec![0; 64]);
            packet.fragment(offset, true)
        };
        let mut packets = cut(up(1400).tunnelled("10.0.2.2", "10.0.1.2"));
        packets.extend(cut(up(8000).tunnelled("10.0.2.2", "10.0.1.2")));
        packets.extend((1..40).map(|at| unfinished("10.0.3.1", at * 64)));
        packets.extend((1..9).map(|at| unfinished("10.0.3.2", at * 56)));
        packets.push(unfinished("10.0.3.3", 0));
        packets.push(Ip::data(far, node).payload(syn));
        packets.push(Ip::icmp("10.0.9.9", "10.0.1.2", 3, &quote.bytes()));
        packets.push(Ip::icmp("10.0.9.9", "10.0.1.2", 11, &quote.bytes()[..28]));
        packets.extend(cut(Ip::udp(far, "10.0.1.2", (1, 2)).payload(vec![0; 8000])));
        let frames: Vec<Vec<u8>> =
            packets.iter().map(|packet| packet.frame(port_mac(0), station(ROUTER))).collect();
        let work = |rig: &mut Rig| {
            for _ in 0..4 {
                for frame in &frames {
                    rig.push(0, frame);
                }
                while rig.worker.run_once(rig.now) {}
                rig.now += TIMEOUT;
                while rig.worker.run_once(rig.now) {}
            }
            rig.links[0].discard();
            rig.twins[0].as_ref().unwrap().discard();
        };
        work(&mut rig);
        assert_eq!(allocations(|| work(&mut rig)), 0);
        for reason in [
            DropReason::FragmentTimeout,
            DropReason::FragmentTooMany,
            DropReason::FragmentOverlap,
            DropReason::TunnelIcmpNoted,
        ] {
            assert!(rig.dropped(reason) >= 8, "{}", rig.drops());
        }
        assert!(rig.stats(0).decapsulated.get() >= 16 && rig.stats(0).joined.get() >= 100);
        rig.check();
    }

    #[test]
    fn no_burst_of_a_visitor_allocates() {
        for how in EVERY {
            let mut rig = foreign_agent(ReverseTunnel::Direct);
            let style = ReverseTunnel::Direct;
            let entry = visitor(station(MOBILE), 1, "10.0.1.2", "10.0.2.2", style);
            rig.visit("10.1.0.10", VisitorEntry { encapsulation: how, ..entry });
            let up = Ip::data("10.1.0.10", "192.0.2.7").frame(port_mac(1), station(MOBILE));
            let down = Ip::data("192.0.2.7", "10.1.0.10")
                .arriving(how, "10.0.1.2", "10.0.2.2")
                .frame(port_mac(0), station(ROUTER));
            let work = |rig: &mut Rig| {
                for _ in 0..63 {
                    rig.push(0, &down);
                    rig.push(1, &up);
                }
                while rig.worker.run_once(rig.now) {}
                rig.links[0].discard();
                rig.links[1].discard();
            };
            work(&mut rig);
            assert_eq!(allocations(|| work(&mut rig)), 0, "{how:?}");
            assert_eq!(rig.stats(0).transmitted.get() + rig.stats(1).transmitted.get(), 252);
            rig.check();
        }
    }

    /// Flows that open, go on, are refused and end, fragments in and out of order,
    /// errors and blocks told to the control core (B-07): nothing is taken.
    #[test]
    fn no_burst_through_a_napt_allocates() {
        let mut rig = crate::gateway::gateway(ReverseTunnel::None);
        let (node, far, external) = (crate::gateway::NODE, FAR, crate::gateway::EXTERNAL);
        let inside = |packet: &Ip| packet.frame(port_mac(1), station(MOBILE));
        let outside = |packet: &Ip| packet.frame(port_mac(0), station(ROUTER));
        let mut frames: Vec<(usize, Vec<u8>)> = Vec::new();
        for number in 0..300 {
            let out = Ip::udp(node, far, (4000 + number, 53));
            frames.push((1, inside(&out)));
            frames.push((1, inside(&out.clone().fragment(8 * number, true))));
            frames.push((1, inside(&Ip::icmp(node, far, 8, b"ping").ttl(1 + number as u8 % 3))));
            let back = Ip::udp(far, external, (53, 16_384 + 50 * number));
            frames.push((0, outside(&back)));
            frames.push((0, outside(&back.clone().fragment(8 * number, false))));
            frames.push((0, outside(&Ip::icmp(far, external, 3, &back.bytes()))));
        }
        let work = |rig: &mut Rig| {
            for burst in frames.chunks(48) {
                for (port, frame) in burst {
                    rig.push(*port, frame);
                }
                while rig.worker.run_once(rig.now) {}
                rig.now += Duration::from_millis(50);
                for link in &rig.links {
                    link.discard();
                }
            }
            // Everything ends: sessions, blocks, hosts.
            for _ in 0..250 {
                rig.now += Duration::from_secs(2);
                rig.worker.run_once(rig.now);
            }
            for link in rig.links.iter().chain(rig.twins.iter().flatten()) {
                link.discard();
            }
        };
        work(&mut rig);
        let mut buffer = Vec::with_capacity(4096);
        while rig.control.punts.next(&mut buffer).is_some() {}
        assert_eq!(allocations(|| work(&mut rig)), 0);
        let counters = &rig.control.napts[0].workers[0];
        assert!(counters.opened.get() > 500 && counters.taken_back.get() > 2, "{counters:?}");
        assert_eq!(counters.sessions.get(), 0);
        rig.check();
    }
}
