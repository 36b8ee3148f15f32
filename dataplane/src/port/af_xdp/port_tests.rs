//! Two and three hosts with real veth pairs between them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::port::testbed::{Host, counter, numbered, quiet_pair, receive, send};

fn open(interface: &str, mode: XdpMode) -> Result<AfXdpPort, PortError> {
    let claims = Claims::new(16).unwrap();
    let options = AfXdpOptions { mode, scope: Scope::Everything, ..AfXdpOptions::default() };
    AfXdpPort::open(interface, &claims, &options).map(|mut ports| ports.remove(0))
}

/// Two hosts with a cable, and a port on each end.
fn pair(mode: XdpMode) -> Option<(Host, Host, AfXdpPort, AfXdpPort)> {
    let (a, b) = quiet_pair()?;
    let left = a.run(move || open("eth0", mode).unwrap());
    let right = b.run(move || open("eth0", mode).unwrap());
    Some((a, b, left, right))
}

fn readable(port: &AfXdpPort, milliseconds: u64) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(port.readiness().unwrap(), PollFlags::IN)];
    let limit = Timespec::try_from(Duration::from_millis(milliseconds)).unwrap();
    poll(&mut fds, Some(&limit)).unwrap() > 0
}

const MODES: [XdpMode; 2] = [XdpMode::Native, XdpMode::Generic];

#[test]
fn frames_of_all_lengths_arrive_in_order_and_unchanged() {
    for mode in MODES {
        let Some((_a, _b, mut left, mut right)) = pair(mode) else { return };
        let mut pool = PacketPool::new(2 * BURST);
        let lengths = (60..90).chain([127, 128, 129, 511, 1023, 1500, 1513, 1514]);
        let frames: Vec<_> = lengths.zip(1..).map(|(len, n)| numbered(n, len)).collect();
        for burst in [1, 31, 32] {
            for some in frames.chunks(burst) {
                assert_eq!(send(&mut left, &mut pool, some), some.len());
                assert!(receive(&mut right, &mut pool, some.len()) == some, "{mode:?} {burst}");
            }
        }
        assert_eq!(pool.available(), 2 * BURST);
    }
}

/// More frames than the rings have slots, so that every position wraps.
#[test]
fn the_rings_go_round_and_round() {
    for mode in MODES {
        let Some((_a, _b, mut left, mut right)) = pair(mode) else { return };
        let mut pool = PacketPool::new(BURST);
        for round in 0..3 * socket::RX_FRAMES / 32 + 1 {
            let frames: Vec<_> =
                (0..32).map(|n| numbered(round * 32 + n, 60 + n as usize)).collect();
            assert_eq!(send(&mut left, &mut pool, &frames), 32);
            assert!(receive(&mut right, &mut pool, 32) == frames, "{mode:?} round {round}");
        }
        for name in ["rx-dropped", "rx-ring-full", "rx-invalid-descriptor"] {
            assert_eq!(counter(&right, name), 0, "{name}");
        }
        for name in ["tx-refused", "tx-invalid-descriptor"] {
            assert_eq!(counter(&left, name), 0, "{name}");
        }
    }
}

#[test]
fn a_full_ring_drops_what_comes_and_counts_it() {
    let Some((_a, _b, mut left, mut right)) = pair(XdpMode::Native) else { return };
    let mut pool = PacketPool::new(BURST);
    let room = socket::RX_FRAMES;
    for burst in 0..room / 32 + 2 {
        let frames: Vec<_> = (0..32).map(|n| numbered(burst * 32 + n, 60)).collect();
        assert_eq!(send(&mut left, &mut pool, &frames), 32);
    }
    let lost = |port: &AfXdpPort| {
        ["rx-dropped", "rx-ring-full", "rx-fill-ring-empty"].map(|name| counter(port, name))
    };
    let start = Instant::now();
    while lost(&right).iter().sum::<u64>() < 64 && start.elapsed() < Duration::from_secs(5) {}
    assert!(lost(&right).iter().sum::<u64>() >= 64, "{:?}", lost(&right));
    let expected: Vec<_> = (0..room).map(|n| numbered(n, 60)).collect();
    assert!(receive(&mut right, &mut pool, room as usize) == expected);
    // And then it goes on.
    assert_eq!(send(&mut left, &mut pool, &[numbered(7, 60)]), 1);
    assert_eq!(receive(&mut right, &mut pool, 1), [numbered(7, 60)]);
}

#[test]
fn what_does_not_leave_is_refused_and_counted() {
    let Some((a, _b, mut left, mut right)) = pair(XdpMode::Native) else { return };
    let mut pool = PacketPool::new(BURST);
    // Too long for the link.
    let frames = [numbered(1, 100), numbered(2, 1600), numbered(3, 100)];
    assert_eq!(send(&mut left, &mut pool, &frames), 2);
    assert_eq!(receive(&mut right, &mut pool, 2), [numbered(1, 100), numbered(3, 100)]);
    assert_eq!(counter(&left, "tx-refused"), 1);
    // A link that is down takes nothing: the ring fills up.
    a.sh("ip link set eth0 down");
    let mut sent = 0;
    for _ in 0..socket::TX_FRAMES / 32 + 1 {
        let frames: Vec<_> = (0..32).map(|n| numbered(n, 60)).collect();
        sent += send(&mut left, &mut pool, &frames);
    }
    assert_eq!(sent, socket::TX_FRAMES as usize);
    assert_eq!((counter(&left, "tx-refused"), pool.available()), (33, BURST));
}

#[test]
fn a_frame_waits_in_the_ring_while_no_buffer_is_free() {
    let Some((_a, _b, mut left, mut right)) = pair(XdpMode::Native) else { return };
    let mut pool = PacketPool::new(2);
    assert!(!readable(&right, 10));
    assert_eq!(send(&mut left, &mut pool, &[numbered(1, 60), numbered(2, 60)]), 2);
    assert!(readable(&right, 1000));
    let mut none = PacketPool::new(0);
    let mut burst = Burst::new();
    right.rx_burst(&mut none, &mut burst);
    assert!(burst.is_empty());
    assert_eq!(receive(&mut right, &mut pool, 2), [numbered(1, 60), numbered(2, 60)]);
    assert!(!readable(&right, 10));
}

#[test]
fn several_queues_are_read_in_turn_and_wake_their_worker() {
    let (Some(a), Some(b)) = (Host::new(), Host::new()) else { return };
    for host in [&a, &b] {
        host.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    }
    a.cable_with_queues("eth0", &b, "eth0", 2);
    let mut left = a.run(|| open("eth0", XdpMode::Native).unwrap());
    let (right, one) = b.run(|| {
        let claims = Claims::new(16).unwrap();
        let scope = Scope::Everything;
        let one = AfXdpOptions { scope, queues: Some(1), ..AfXdpOptions::default() };
        let refused = AfXdpPort::open("eth0", &claims, &one).unwrap_err().to_string();
        let two = AfXdpOptions { scope, workers: 3, ..AfXdpOptions::default() };
        (AfXdpPort::open("eth0", &claims, &two).unwrap(), refused)
    });
    assert!(one.contains("queues = 1: the interface receives on 2 queues"), "{one}");
    // A port for each queue, and no more.
    assert_eq!(right.len(), 2);
    assert_eq!(right[0].mode(), "native, copy, 2 queues");
    drop(right);
    let mut right = b.run(|| open("eth0", XdpMode::Native).unwrap());
    let mut pool = PacketPool::new(2 * BURST);
    for queue in 0..2 {
        left.queues.rotate_left(1);
        assert!(!readable(&right, 10));
        assert_eq!(send(&mut left, &mut pool, &[numbered(queue, 60)]), 1);
        assert!(readable(&right, 1000), "queue {queue}");
        assert_eq!(receive(&mut right, &mut pool, 1), [numbered(queue, 60)]);
    }
}

/// A host between two others carries their frames by ports, and their stack leaves
/// checksums and segments to a card that is none.
#[test]
fn tcp_and_udp_cross_two_ports_with_right_checksums() {
    let (Some(a), Some(b), Some(between)) = (Host::new(), Host::new(), Host::new()) else {
        return;
    };
    between.cable("eth0", &a, "eth0");
    between.cable("eth1", &b, "eth0");
    a.sh("ip addr add 192.0.2.1/24 dev eth0");
    b.sh("ip addr add 192.0.2.2/24 dev eth0");
    let ports = between.run(|| ["eth0", "eth1"].map(|name| open(name, XdpMode::Native).unwrap()));
    let stop = Arc::new(AtomicBool::new(false));
    let pump = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let [mut left, mut right] = ports;
            let (mut pool, mut burst) = (PacketPool::new(4 * BURST), Burst::new());
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..2 {
                    left.rx_burst(&mut pool, &mut burst);
                    if !burst.is_empty() {
                        right.tx_burst(&mut pool, &mut burst);
                    }
                    std::mem::swap(&mut left, &mut right);
                }
                std::thread::yield_now();
            }
            [left, right]
        }
    });
    const TOTAL: usize = 8_000_000;
    let data: Vec<u8> =
        (0..TOTAL as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let listener = b.run(|| TcpListener::bind("192.0.2.2:5001").unwrap());
    let reader = std::thread::spawn(move || {
        let mut seen = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut seen).unwrap();
        seen
    });
    let sent = data.clone();
    a.run(move || TcpStream::connect("192.0.2.2:5001").unwrap().write_all(&sent).unwrap());
    assert!(reader.join().unwrap() == data);
    let receiver = b.run(|| UdpSocket::bind("192.0.2.2:5002").unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    a.run(|| UdpSocket::bind("192.0.2.1:0").unwrap().send_to(&[7; 301], "192.0.2.2:5002").unwrap());
    assert_eq!(receiver.recv(&mut [0; 2000]).unwrap(), 301);
    stop.store(true, Ordering::Relaxed);
    for port in pump.join().unwrap() {
        assert!(counter(&port, "rx-checksum-finished") > 0);
    }
    // The receiver believed every checksum.
    let bad = b.sh("cat /proc/net/snmp | grep '^Tcp:' | tail -1 | awk '{print $14}'");
    assert_eq!(bad.trim(), "0");
}

#[test]
fn what_is_not_claimed_is_the_kernels() {
    let Some((a, b)) = quiet_pair() else { return };
    a.sh("ip addr add 192.0.2.1/24 dev eth0");
    b.sh("ip addr add 192.0.2.2/24 dev eth0; ip route add 10.1.0.0/24 via 192.0.2.1");
    let node = std::net::Ipv4Addr::new(10, 1, 0, 10);
    let (mut port, claims) = a.run(|| {
        let claims = Claims::new(16).unwrap();
        let ports = AfXdpPort::open("eth0", &claims, &AfXdpOptions::default());
        (ports.unwrap().remove(0), claims)
    });
    let claim = NodeClaim { destination: true, ..NodeClaim::default() };
    claims.set_node(TenantId(0), node, claim).unwrap();
    // The kernel answers ARP and pings beside the program, both ways.
    assert!(b.try_sh("ping -q -c3 -i0.01 -W5 192.0.2.1 >&2").1);
    assert!(a.try_sh("ping -q -c3 -i0.01 -W5 192.0.2.2 >&2").1);
    assert!(!b.try_sh("ping -q -c2 -i0.01 -W0.2 10.1.0.10 >/dev/null").1);
    let mut pool = PacketPool::new(BURST);
    let frames = receive(&mut port, &mut pool, 3);
    let to: Vec<_> = frames.iter().map(|frame| frame[30..34].to_vec()).collect();
    assert_eq!(to, vec![node.octets().to_vec(); 2]);
}

#[test]
fn the_program_goes_with_the_port_and_is_not_put_over_another() {
    let Some((a, _b)) = quiet_pair() else { return };
    let taken = a.run(|| {
        let port = open("eth0", XdpMode::Auto).unwrap();
        let taken = open("eth0", XdpMode::Auto).unwrap_err().to_string();
        drop(port);
        taken
    });
    assert!(taken.contains("another XDP program is attached"), "{taken}");
    assert!(!a.sh("ip -o link show eth0").contains("xdp"));
    let port = a.run(|| open("eth0", XdpMode::Generic).unwrap());
    assert_eq!(port.mode(), "generic, copy, 1 queue");
    assert!(a.sh("ip -o link show eth0").contains("xdpgeneric"));
}

#[test]
fn what_cannot_be_opened_is_named() {
    let Some((a, _b)) = quiet_pair() else { return };
    let errors = a.run(|| {
        let claims = Claims::new(16).unwrap();
        let with = |options: AfXdpOptions| {
            AfXdpPort::open("eth0", &claims, &options).unwrap_err().to_string()
        };
        [
            open("eth7", XdpMode::Auto).unwrap_err().to_string(),
            open("lo", XdpMode::Auto).unwrap_err().to_string(),
            open("eth0", XdpMode::ZeroCopy).unwrap_err().to_string(),
            with(AfXdpOptions { queues: Some(0), ..AfXdpOptions::default() }),
            with(AfXdpOptions { queues: Some(4), ..AfXdpOptions::default() }),
        ]
    });
    let expected = [
        "interface eth7: cannot find it: No such device",
        "interface lo is not Ethernet",
        "port eth0: xdp_mode = \"zero-copy\": the driver does not do it",
        "port eth0: queues = 0: a port has at least one queue",
        "port eth0: queues = 4: the interface has 1; lower `queues`",
    ];
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.starts_with(expected), "{error}");
    }
    // Nothing is left attached by those that failed.
    assert!(!a.sh("ip -o link show eth0").contains("xdp"));
}
