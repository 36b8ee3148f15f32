//! A worker on a thread of its own, with the real clock.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use homeport_dataplane::MacAddress;
use homeport_dataplane::launch::{
    Control, DataplaneConfig, PollMode, PortSetup, SteeringMode, build,
};
use homeport_dataplane::packet::{Burst, PacketPool};
use homeport_dataplane::port::Port;
use homeport_dataplane::port::mem::{MemLink, MemPort};
use homeport_dataplane::punt::{InjectHeader, InjectKind};
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::{PortId, TenantId};
use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{ClockId, clock_gettime};

use crate::harness::*;

/// A memory port that says when a frame is waiting, as AF_PACKET and TAP do.
struct WakingPort {
    port: MemPort,
    waiting: Arc<OwnedFd>,
}

impl Port for WakingPort {
    fn name(&self) -> &str {
        self.port.name()
    }

    fn mac(&self) -> MacAddress {
        self.port.mac()
    }

    fn mtu(&self) -> u16 {
        self.port.mtu()
    }

    fn rx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) {
        let _ = rustix::io::read(&self.waiting, &mut [0; 8]);
        self.port.rx_burst(pool, burst);
    }

    fn tx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) -> usize {
        self.port.tx_burst(pool, burst)
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.waiting.as_fd())
    }
}

/// A running worker with one port, whose packets come back to the router.
struct Running {
    control: Control,
    link: MemLink,
    waiting: Option<Arc<OwnedFd>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Usage>,
}

/// What a worker took of the machine.
#[derive(Debug)]
struct Usage {
    /// Processor time.
    time: Duration,
    /// How often it gave its core away by itself.
    rests: u64,
}

impl Usage {
    /// Of the thread that asks, so far.
    fn of_this_thread() -> Self {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let time = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        Usage { time, rests: line("voluntary_ctxt_switches:").trim().parse().unwrap() }
    }
}

impl Running {
    fn start(poll: PollMode, wakes: bool) -> Self {
        let (port, link) = MemPort::new("port0", port_mac(0), 1500);
        let waiting = wakes
            .then(|| Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()));
        let port: Box<dyn Port> = match &waiting {
            Some(waiting) => Box::new(WakingPort { port, waiting: Arc::clone(waiting) }),
            None => Box::new(port),
        };
        let setup =
            PortSetup { name: "port0".into(), tenant: TENANT, queues: vec![port], twin: None };
        let config = DataplaneConfig { poll, ..Plan::ports(1).config };
        let (mut control, mut workers) = build(&config, vec![setup]).unwrap();
        let worker = workers.remove(0);
        let via = homeport_dataplane::table::route::RouteEntry::Via {
            port: PortId(0),
            gateway: Some(ip("10.0.1.1")),
        };
        control.routes.install(TENANT, ip("0.0.0.0"), 0, via).unwrap();
        let key = NeighborKey { port: PortId(0), address: ip("10.0.1.1") };
        control.neighbors.install(key, NeighborEntry { mac: station(1) }).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                worker.run(&stop);
                Usage::of_this_thread()
            }
        });
        Running { control, link, waiting, stop, thread }
    }

    fn push(&self) {
        let frame = Ip::data("192.0.2.7", "198.51.100.1").frame(port_mac(0), station(1));
        assert!(self.link.push(&frame));
        if let Some(waiting) = &self.waiting {
            rustix::io::write(waiting, &1u64.to_ne_bytes()).unwrap();
        }
    }

    /// Waits for a frame; how long that took.
    fn await_frame(&self) -> Duration {
        let start = Instant::now();
        while self.link.take().is_none() {
            assert!(start.elapsed() < Duration::from_secs(10), "no frame came");
            std::thread::sleep(Duration::from_micros(20));
        }
        start.elapsed()
    }

    fn stop(self) -> Usage {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// At rest, a worker leaves the core to others, and yet a packet that comes then
/// does not wait for long. (The bound on latency is loose: the machine of a test
/// is shared. The median on an idle one is far below a millisecond.)
#[test]
fn an_idle_worker_rests_and_wakes_for_a_packet() {
    for wakes in [true, false] {
        let running = Running::start(PollMode::Adaptive, wakes);
        let mut latencies: Vec<Duration> = (0..20)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(50));
                running.push();
                running.await_frame()
            })
            .collect();
        latencies.sort();
        let median = latencies[latencies.len() / 2];
        println!("wakes {wakes}: median {median:?}, worst {:?}", latencies[19]);
        assert!(median < Duration::from_millis(10), "{latencies:?}");
        running.stop();
        let idle = Running::start(PollMode::Adaptive, wakes);
        std::thread::sleep(Duration::from_secs(1));
        let busy = idle.stop().time;
        println!("wakes {wakes}: {busy:?} of a second");
        // Without optimisation, a nap of a millisecond costs several times as much.
        let napping = if cfg!(debug_assertions) { 200 } else { 50 };
        let limit = Duration::from_millis(if wakes { 50 } else { napping });
        assert!(busy < limit, "{busy:?} of a second");
    }
}

#[test]
fn an_inject_wakes_a_worker_that_sleeps() {
    let mut running = Running::start(PollMode::Adaptive, true);
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(20));
        let packet = Ip::udp("10.0.1.2", "198.51.100.1", (434, 434)).bytes();
        let len = u16::try_from(packet.len()).unwrap();
        let header = InjectHeader::new(TenantId(0), PortId(0), InjectKind::Routed, len);
        assert!(running.control.injects.send(header, &packet));
        // Without being woken it would sleep for a tenth of a second.
        assert!(running.await_frame() < Duration::from_millis(80));
    }
    running.stop();
}

/// The writers go on while the worker sleeps: it holds no entry.
#[test]
fn tables_change_without_end_while_a_worker_sleeps() {
    let mut running = Running::start(PollMode::Adaptive, true);
    std::thread::sleep(Duration::from_millis(30));
    for round in 0..20_000u32 {
        let entry = binding("10.0.1.2", &["10.0.2.2"]);
        let home_address = std::net::Ipv4Addr::from_bits(0x0a01_0000 + round % 8);
        let key = homeport_dataplane::table::binding::BindingKey { tenant: TENANT, home_address };
        running.control.bindings.install(key, entry).unwrap();
    }
    running.stop();
}

/// A worker that rests gives its core away; one that is busy is only ever made to.
#[test]
fn a_busy_worker_never_rests() {
    for (poll, rests) in [(PollMode::Busy, false), (PollMode::Adaptive, true)] {
        let running = Running::start(poll, true);
        running.push();
        running.await_frame();
        std::thread::sleep(Duration::from_millis(300));
        let usage = running.stop();
        assert_eq!(usage.rests > 4, rests, "{poll:?}: {usage:?}");
    }
}

/// Several workers on threads of their own, asleep when the packets come, all of which
/// come in by one queue: each is woken for its share, and no packet is lost or counted
/// twice.
#[test]
fn workers_wake_each_other_and_lose_nothing_between_them() {
    let mut plan = Plan::ports(1);
    plan.workers(3, SteeringMode::Auto);
    let (port, link) = MemPort::new("port0", port_mac(0), 1500);
    let waiting = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
    let queues: Vec<Box<dyn Port>> =
        vec![Box::new(WakingPort { port, waiting: Arc::clone(&waiting) })];
    let setup = PortSetup { name: "port0".into(), tenant: TENANT, queues, twin: None };
    let (mut control, workers) = build(&plan.config, vec![setup]).unwrap();
    let gateway = ip("10.0.1.1");
    let via = homeport_dataplane::table::route::RouteEntry::Via {
        port: PortId(0),
        gateway: Some(gateway),
    };
    control.routes.install(TENANT, ip("0.0.0.0"), 0, via).unwrap();
    let key = NeighborKey { port: PortId(0), address: gateway };
    control.neighbors.install(key, NeighborEntry { mac: station(1) }).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = workers
        .into_iter()
        .map(|worker| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || worker.run(&stop))
        })
        .collect();
    let mut sent = 0;
    for round in 0..20u8 {
        std::thread::sleep(Duration::from_millis(5));
        for host in 0..32u8 {
            let (from, to) = (format!("192.0.2.{host}"), format!("198.51.100.{round}"));
            assert!(link.push(&Ip::data(&from, &to).frame(port_mac(0), station(1))));
        }
        rustix::io::write(&waiting, &1u64.to_ne_bytes()).unwrap();
        let start = Instant::now();
        while sent < 32 * (usize::from(round) + 1) {
            sent += link.discard();
            assert!(start.elapsed() < Duration::from_secs(10), "{sent}: {control:?}");
            std::thread::yield_now();
        }
    }
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let port = &control.ports[0];
    assert_eq!(port.sum(|stats| stats.rx.get()), 640);
    assert_eq!(port.sum(|stats| stats.transmitted.get()), 640);
    assert!(port.workers().skip(1).all(|stats| stats.taken_over.get() > 0), "{port:#?}");
    for stats in port.workers() {
        assert_eq!(stats.total_in(), stats.total_out());
    }
}
