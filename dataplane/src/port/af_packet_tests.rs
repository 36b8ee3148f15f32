//! Two and three hosts with real veth pairs between them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::*;
use crate::port::shield::IngressDrop;
use crate::port::testbed::{Host, counter, numbered, quiet_pair, receive, send};
use crate::port::twin::Twin;

/// Two hosts with a cable, and a port on each end.
fn pair() -> Option<(Host, Host, AfPacketPort, AfPacketPort)> {
    let (a, b) = quiet_pair()?;
    let left = a.run(|| AfPacketPort::open("eth0").unwrap());
    let right = b.run(|| AfPacketPort::open("eth0").unwrap());
    Some((a, b, left, right))
}

/// Carries frames between two ports until it is stopped, and returns them.
struct Wire<A, B> {
    stop: Arc<AtomicBool>,
    pump: JoinHandle<(A, B)>,
}

impl<A: Port + 'static, B: Port + 'static> Wire<A, B> {
    fn between(mut a: A, mut b: B) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let pump = std::thread::spawn(move || {
            let mut pool = PacketPool::new(4 * BURST);
            let mut burst = Burst::new();
            while !seen.load(Ordering::Relaxed) {
                a.rx_burst(&mut pool, &mut burst);
                let mut idle = burst.is_empty();
                b.tx_burst(&mut pool, &mut burst);
                b.rx_burst(&mut pool, &mut burst);
                idle &= burst.is_empty();
                a.tx_burst(&mut pool, &mut burst);
                if idle {
                    wait(&[a.readiness().unwrap(), b.readiness().unwrap()], 10);
                }
            }
            assert_eq!(pool.available(), 4 * BURST);
            (a, b)
        });
        Wire { stop, pump }
    }

    fn stop(self) -> (A, B) {
        self.stop.store(true, Ordering::Relaxed);
        self.pump.join().unwrap()
    }
}

/// Whether poll(2) reports any of them within `ms`.
fn wait(fds: &[BorrowedFd<'_>], ms: i64) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
    poll(&mut fds, Some(&timeout)).unwrap() > 0
}

#[test]
fn frames_arrive_whole_and_in_order_for_every_burst_length() {
    let Some((_a, _b, mut left, mut right)) = pair() else { return };
    let mut pool = PacketPool::new(2 * BURST);
    let mut number = 0;
    for burst in [1, 31, 32, 33, 63] {
        let frames: Vec<Vec<u8>> = (0..burst)
            .map(|_| {
                number += 1;
                numbered(number, 60 + number as usize * 7 % 1455)
            })
            .collect();
        assert!(!wait(&[right.readiness().unwrap()], 0));
        for chunk in frames.chunks(BURST) {
            assert_eq!(send(&mut left, &mut pool, chunk), chunk.len());
        }
        assert!(wait(&[right.readiness().unwrap()], 1000));
        assert_eq!(receive(&mut right, &mut pool, burst), frames);
    }
    assert_eq!(pool.available(), 2 * BURST);
    // What a port sends it does not receive.
    assert_eq!(receive(&mut left, &mut pool, 1), Vec::<Vec<u8>>::new());
}

#[test]
fn ring_wraps_and_counts_what_it_has_no_room_for() {
    let Some((_a, _b, mut left, mut right)) = pair() else { return };
    let mut pool = PacketPool::new(BURST);
    let room = (BLOCKS * BLOCK_SLOTS) as u32;
    for round in 0..3u32 {
        let total = room + 64 * round;
        for first in (0..total).step_by(BURST) {
            let frames: Vec<Vec<u8>> =
                (first..first + BURST as u32).map(|n| numbered(n, 60)).collect();
            assert_eq!(send(&mut left, &mut pool, &frames), BURST);
        }
        // The veth hands frames over on another thread: wait for the last.
        let start = Instant::now();
        let lost = u64::from(32 * round * (round + 1));
        while counter(&right, "rx-ring-full") < lost && start.elapsed().as_secs() < 5 {}
        let expected: Vec<Vec<u8>> = (0..room).map(|n| numbered(n, 60)).collect();
        assert!(receive(&mut right, &mut pool, room as usize) == expected);
        assert_eq!(counter(&right, "rx-ring-full"), lost);
    }
}

#[test]
fn tcp_crosses_two_ports_without_ethtool() {
    let (Some(a), Some(b), Some(between)) = (Host::new(), Host::new(), Host::new()) else {
        return;
    };
    between.cable("eth0", &a, "eth0");
    between.cable("eth1", &b, "eth0");
    a.sh("ip addr add 192.0.2.1/24 dev eth0");
    b.sh("ip addr add 192.0.2.2/24 dev eth0");
    let wire = between.run(|| {
        Wire::between(AfPacketPort::open("eth0").unwrap(), AfPacketPort::open("eth1").unwrap())
    });
    const TOTAL: usize = 20_000_000;
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

    // Datagrams that the kernel sends as one super-frame, and single ones.
    let receiver = b.run(|| UdpSocket::bind("192.0.2.2:5002").unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    a.run(|| {
        let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
        socket.connect("192.0.2.2:5002").unwrap();
        socket.send(&[7; 300]).unwrap();
        let fd = OwnedFd::from(socket);
        set_option(&fd, libc::SOL_UDP, libc::UDP_SEGMENT, &1000).unwrap();
        let all: Vec<u8> = (0..10_500u32).map(|n| (n / 1000) as u8).collect();
        assert_eq!(UdpSocket::from(fd).send(&all).unwrap(), 10_500);
    });
    let mut buffer = [0; 2000];
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 300);
    for number in 0..=10u8 {
        let len = receiver.recv(&mut buffer).unwrap();
        assert_eq!(len, if number == 10 { 500 } else { 1000 });
        assert!(buffer[..len].iter().all(|byte| *byte == number));
    }

    let (left, right) = wire.stop();
    let segments = counter(&left, "rx-segments");
    assert!(segments > 100 && segments > 2 * counter(&left, "rx-super-frames"), "{segments}");
    assert!(
        counter(&left, "rx-checksum-finished") > 0 && counter(&right, "rx-checksum-finished") > 0
    );
    for name in ["rx-oversize", "rx-super-frame-refused", "rx-beside-ring-full"] {
        assert_eq!((counter(&left, name), counter(&right, name)), (0, 0), "{name}");
    }
    // The receiver believed every checksum.
    let bad = b.sh("cat /proc/net/snmp | grep '^Tcp:' | tail -1 | awk '{print $14, $16}'");
    assert_eq!(bad.split_whitespace().next(), Some("0"), "InErrs: {bad}");
}

#[test]
fn kernel_is_reached_through_twin_and_shielded_port_only() {
    let (Some(host), Some(peer)) = (Host::new(), Host::new()) else { return };
    if !std::path::Path::new("/dev/net/tun").exists() {
        println!("skipped: no /dev/net/tun");
        return;
    }
    host.cable("eth0", &peer, "eth0");
    peer.sh("ip addr add 192.0.2.2/24 dev eth0");
    let (shield, wire) = host.run(|| {
        let shield = IngressDrop::install("eth0").unwrap();
        let port = AfPacketPort::open("eth0").unwrap();
        let twin = Twin::create("hp-core", port.mac(), port.mtu()).unwrap();
        (shield, Wire::between(port, twin))
    });
    host.sh("ip addr add 192.0.2.1/24 dev hp-core && ip link set hp-core up");
    assert!(peer.try_sh("ping -q -c5 -i0.01 -W5 192.0.2.1 >&2").1);
    // Each echo was answered once: a duplicate would say that eth0 answered too.
    let flood = peer.sh("ping -q -c20 -i0.01 -W5 192.0.2.1");
    assert!(flood.contains("20 received") && !flood.contains("duplicates"), "{flood}");
    assert!(host.try_sh("ping -q -c5 -i0.01 -W5 192.0.2.2 >&2").1);
    wire.stop();
    assert!(!peer.try_sh("ping -q -c2 -i0.01 -W0.3 192.0.2.1 >/dev/null").1);
    drop(shield);
}

#[test]
fn frames_beyond_the_buffer_are_dropped_and_counted_and_the_next_one_comes() {
    let Some((a, b, mut left, mut right)) = pair() else { return };
    for host in [&a, &b] {
        host.sh("ip link set eth0 mtu 9000");
    }
    // In the ring's slot but beyond the buffer; and beyond the slot.
    let sender = left.sender.try_clone().unwrap();
    for len in [DATA_ROOM + 1, 5000] {
        rustix::net::send(&sender, &numbered(1, len), rustix::net::SendFlags::empty()).unwrap();
    }
    let mut pool = PacketPool::new(BURST);
    let fits = [numbered(2, DATA_ROOM)];
    assert_eq!(send(&mut left, &mut pool, &fits), 1);
    assert_eq!(receive(&mut right, &mut pool, 1), fits);
    assert_eq!(counter(&right, "rx-oversize"), 2);
    let error = b.run(|| AfPacketPort::open("eth0").unwrap_err().to_string());
    assert_eq!(error, "interface eth0: MTU 9000 is beyond 2030, the most that packet buffers hold");
}

#[test]
fn a_frame_that_the_kernel_refuses_does_not_stop_the_burst() {
    let Some((a, _b, mut left, mut right)) = pair() else { return };
    let mut pool = PacketPool::new(BURST);
    let frames = [numbered(1, 100), numbered(2, 1600), numbered(3, 100)];
    assert_eq!(send(&mut left, &mut pool, &frames), 2);
    assert_eq!(receive(&mut right, &mut pool, 2), [numbered(1, 100), numbered(3, 100)]);
    assert_eq!(counter(&left, "tx-refused"), 1);
    a.sh("ip link set eth0 down");
    assert_eq!(send(&mut left, &mut pool, &[numbered(4, 100)]), 0);
    assert_eq!((counter(&left, "tx-refused"), pool.available()), (2, BURST));
}

#[test]
fn a_vlan_tag_is_back_in_its_place() {
    let Some((_a, _b, mut left, mut right)) = pair() else { return };
    let mut pool = PacketPool::new(BURST);
    let mut tagged = numbered(1, 100);
    tagged.splice(12..12, [0x81, 0x00, 0x60, 0x05]);
    assert_eq!(send(&mut left, &mut pool, &[tagged.clone()]), 1);
    assert_eq!(receive(&mut right, &mut pool, 1), [tagged]);
    assert_eq!(counter(&right, "rx-vlan-restored"), 1);
}

#[test]
fn a_frame_waits_in_the_ring_while_no_buffer_is_free() {
    let Some((_a, _b, mut left, mut right)) = pair() else { return };
    let mut pool = PacketPool::new(2);
    assert_eq!(send(&mut left, &mut pool, &[numbered(1, 60), numbered(2, 60)]), 2);
    assert!(wait(&[right.readiness().unwrap()], 1000));
    let mut none = PacketPool::new(0);
    let mut burst = Burst::new();
    right.rx_burst(&mut none, &mut burst);
    assert!(burst.is_empty());
    assert_eq!(receive(&mut right, &mut pool, 2), [numbered(1, 60), numbered(2, 60)]);
}

#[test]
fn a_link_that_went_down_and_up_again_carries_frames_and_does_not_keep_poll_awake() {
    let Some((_a, b, mut left, mut right)) = pair() else { return };
    let settle = |port: &AfPacketPort, up: bool| {
        let start = Instant::now();
        while port.is_up() != up {
            assert!(start.elapsed() < Duration::from_secs(5), "up should be {up}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    settle(&left, true);
    b.sh("ip link set eth0 down");
    settle(&right, false);
    settle(&left, false);
    std::thread::sleep(Carrier::EVERY);
    assert!(!right.is_up());
    assert!(!wait(&[right.readiness().unwrap()], 20), "the error of the socket stays");
    b.sh("ip link set eth0 up");
    settle(&right, true);
    settle(&left, true);
    let mut pool = PacketPool::new(2);
    assert_eq!(send(&mut left, &mut pool, &[numbered(1, 60)]), 1);
    assert_eq!(receive(&mut right, &mut pool, 1), [numbered(1, 60)]);
}

#[test]
fn what_cannot_be_opened_is_named() {
    let Some(host) = Host::new() else { return };
    let errors =
        host.run(|| ["eth7", "lo"].map(|n| AfPacketPort::open(n).unwrap_err().to_string()));
    assert!(
        errors[0].starts_with("interface eth7: cannot find it: No such device"),
        "{}",
        errors[0]
    );
    assert_eq!(errors[1], "interface lo is not Ethernet");
}
