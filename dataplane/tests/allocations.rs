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
mod tests {
    use super::ALLOCATIONS;
    use crate::harness::*;
    use crate::walk::{MOBILE, ROUTER, foreign_agent, home_agent};
    use homeport_dataplane::table::visitor::ReverseTunnel;
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
        let mut rig = home_agent();
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
        assert!(rig.stats(0).encapsulated.get() > 40);
        assert!(rig.stats(0).decapsulated.get() > 10);
        rig.check();
    }

    #[test]
    fn no_burst_of_a_visitor_allocates() {
        let mut rig = foreign_agent(ReverseTunnel::Direct);
        let up = Ip::data("10.1.0.10", "192.0.2.7").frame(port_mac(1), station(MOBILE));
        let down = Ip::data("192.0.2.7", "10.1.0.10")
            .tunnelled("10.0.1.2", "10.0.2.2")
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
        assert_eq!(allocations(|| work(&mut rig)), 0);
        rig.check();
    }
}
