//! Our NAPT between real hosts, and beside the kernel's own (nftables masquerade): the
//! same frames go through both, and what comes out is compared byte by byte but for the
//! external port, which each chooses, and its checksums, which are verified (B-07).
//!
//! Left out is what only one of them promises: nftables answers strangers for the box
//! where we are silent, changes no identification, passes other protocols, and has no
//! hairpinning without a rule for each mapping.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use homeport_dataplane::launch::{DataplaneConfig, PortSetup, build};
use homeport_dataplane::napt::NaptConfig;
use homeport_dataplane::packet::{Burst, PacketPool};
use homeport_dataplane::port::Port;
use homeport_dataplane::port::af_packet::AfPacketPort;
use homeport_dataplane::port::mem::{MemLink, MemPort};
use homeport_dataplane::table::local::{LocalEntry, LocalKey};
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_dataplane::worker::Worker;
use homeport_proto::{MacAddress, PortId, TenantId};
use homeport_wire::checksum::Sum;
use homeport_wire::icmpv4::Icmpv4Header;
use homeport_wire::tcp::TcpHeader;
use homeport_wire::{EtherType, EthernetHeader, IpProtocol, Ipv4Header, Ipv4Packet, UdpHeader};
use zerocopy::{FromBytes, IntoBytes};

use crate::daemon::{Daemon, Folder};
use crate::namespace::{Namespace, join, run, unavailable, wait_for};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 8);

/// The stations of the test, and the NAT's own addresses, by side.
const STATIONS: [MacAddress; 2] = [MacAddress([2, 0, 0, 0, 9, 0]), MacAddress([2, 0, 0, 0, 9, 1])];
const ROUTERS: [MacAddress; 2] = [MacAddress([2, 0, 0, 0, 8, 0]), MacAddress([2, 0, 0, 0, 8, 1])];

const OUTSIDE: usize = 0;
const INSIDE: usize = 1;

/// A box between two links that translates.
trait Nat {
    /// Sends a packet in by a side and gives what comes out, by side.
    fn pass(&mut self, side: usize, packet: &[u8]) -> Vec<(usize, Vec<u8>)>;
}

fn frame(side: usize, packet: &[u8]) -> Vec<u8> {
    let header = EthernetHeader::new(ROUTERS[side], STATIONS[side], EtherType::IPV4);
    [header.as_bytes(), packet].concat()
}

/// The IPv4 packet of a frame for the station of a side.
fn packet(side: usize, frame: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = EthernetHeader::ref_from_prefix(frame).ok()?;
    let for_us = header.ether_type() == EtherType::IPV4 && header.destination == STATIONS[side];
    for_us.then(|| Ipv4Packet::new_checked(rest).unwrap().bytes().to_vec())
}

/// The kernel in a namespace, with nftables.
struct Kernel {
    _router: Namespace,
    _stations: Namespace,
    ports: [AfPacketPort; 2],
    pool: PacketPool,
}

impl Kernel {
    fn new() -> Self {
        let (router, stations) = (Namespace::new("napt-router"), Namespace::new("napt-hosts"));
        for namespace in [&router, &stations] {
            sysctl(namespace, "net.ipv6.conf.all.disable_ipv6=1");
            sysctl(namespace, "net.ipv6.conf.default.disable_ipv6=1");
        }
        for (side, name, address) in [(OUTSIDE, "out", EXTERNAL), (INSIDE, "in", GATEWAY)] {
            join((&router, name), (&stations, name));
            router.ip(&format!("link set {name} address {}", ROUTERS[side]));
            stations.ip(&format!("link set {name} address {}", STATIONS[side]));
            router.ip(&format!("address add {address}/24 dev {name}"));
            sysctl(&router, &format!("net.ipv4.conf.{name}.rp_filter=0"));
        }
        for (host, side, name) in
            [(SERVER, OUTSIDE, "out"), (OTHER, OUTSIDE, "out"), (HOST, INSIDE, "in")]
        {
            router.ip(&format!("neigh add {host} lladdr {} dev {name}", STATIONS[side]));
        }
        sysctl(&router, "net.ipv4.ip_forward=1");
        sysctl(&router, "net.ipv4.icmp_ratelimit=0");
        let rules = "add table ip nat; \
             add chain ip nat post { type nat hook postrouting priority 100; }; \
             add rule ip nat post oifname out ip protocol { tcp, udp } masquerade to :16384-32767; \
             add rule ip nat post oifname out masquerade";
        run("ip", &["netns", "exec", router.name(), "nft", rules]);
        let open = |name: &str| stations.inside(|| AfPacketPort::open(name).unwrap());
        let ports = [open("out"), open("in")];
        Kernel { _router: router, _stations: stations, ports, pool: PacketPool::new(512) }
    }
}

fn sysctl(namespace: &Namespace, setting: &str) {
    run("ip", &["netns", "exec", namespace.name(), "sysctl", "-qw", setting]);
}

impl Nat for Kernel {
    fn pass(&mut self, side: usize, bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let mut burst = Burst::new();
        let mut sent = self.pool.take().unwrap();
        assert!(sent.set_bytes(&frame(side, bytes)));
        burst.push(sent).unwrap();
        assert_eq!(self.ports[side].tx_burst(&mut self.pool, &mut burst), 1);
        let (mut seen, mut quiet_at) = (Vec::new(), Instant::now() + Duration::from_millis(150));
        while Instant::now() < quiet_at {
            for (side, port) in self.ports.iter_mut().enumerate() {
                port.rx_burst(&mut self.pool, &mut burst);
                for received in burst.drain() {
                    if let Some(bytes) = packet(side, received.bytes()) {
                        seen.push((side, bytes));
                        quiet_at = quiet_at.min(Instant::now() + Duration::from_millis(50));
                    }
                    self.pool.give(received);
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        seen
    }
}

/// Ours, on memory ports.
struct Ours {
    worker: Worker,
    links: [MemLink; 2],
    now: Instant,
}

impl Ours {
    fn new() -> Self {
        let mut napt = NaptConfig::new("test", vec![PortId(1)], PortId(0), vec![EXTERNAL]);
        napt.max_sessions = 1024;
        let config = DataplaneConfig {
            hash_seed: [3, 4],
            buffers: 512,
            napts: vec![napt],
            ..DataplaneConfig::default()
        };
        let port = |side: usize| MemPort::new("port", ROUTERS[side], 1500);
        let ((out_port, out_link), (in_port, in_link)) = (port(OUTSIDE), port(INSIDE));
        let setup = |port: MemPort| PortSetup {
            name: "port".into(),
            tenant: TenantId(0),
            queues: vec![Box::new(port)],
            twin: None,
        };
        let (mut control, mut workers) =
            build(&config, vec![setup(out_port), setup(in_port)]).unwrap();
        let worker = workers.remove(0);
        for (number, address) in [(0, EXTERNAL), (1, GATEWAY)] {
            control.locals.install(LocalKey { address }, LocalEntry::default()).unwrap();
            control.ports[usize::from(number)].set_address(Some(address));
            let route = RouteEntry::Via { port: PortId(number), gateway: None };
            let network = Ipv4Addr::from_bits(address.to_bits() & !255);
            control.routes.install(TenantId(0), network, 24, route).unwrap();
        }
        for (host, side) in [(SERVER, OUTSIDE), (OTHER, OUTSIDE), (HOST, INSIDE)] {
            let key = NeighborKey { port: PortId(side as u16), address: host };
            control.neighbors.install(key, NeighborEntry { mac: STATIONS[side] }).unwrap();
        }
        Ours { worker, links: [out_link, in_link], now: Instant::now() }
    }
}

impl Nat for Ours {
    fn pass(&mut self, side: usize, bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
        assert!(self.links[side].push(&frame(side, bytes)));
        while self.worker.run_once(self.now) {}
        self.now += Duration::from_millis(10);
        let links = self.links.iter().enumerate();
        let seen = links.flat_map(|(side, link)| {
            link.take_all().into_iter().filter_map(move |frame| Some((side, packet(side, &frame)?)))
        });
        seen.collect()
    }
}

/// A packet with DF: its identification is nobody's business, so both leave it.
fn ip(from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap();
    let mut header = Ipv4Header::unsummed(from, to, protocol, 64, len);
    header.set_dont_fragment(true);
    header.fill_checksum();
    [header.as_bytes(), payload].concat()
}

fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    let header = UdpHeader::new(from, to, data).unwrap();
    ip(from.0, to.0, IpProtocol::UDP, &[header.as_bytes(), data].concat())
}

fn tcp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8, numbers: (u32, u32)) -> Vec<u8> {
    let mut bytes = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    bytes.extend(numbers.0.to_be_bytes());
    bytes.extend(numbers.1.to_be_bytes());
    bytes.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    let sum = Sum::new().add_pseudo_header(from.0, to.0, 6, 20).add_bytes(&bytes).checksum();
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(from.0, to.0, IpProtocol::TCP, &bytes)
}

fn icmp(from: Ipv4Addr, to: Ipv4Addr, kind: (u8, u8), rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let header = Icmpv4Header::new(kind.0, kind.1, rest, body);
    ip(from, to, IpProtocol::ICMP, &[header.as_bytes(), body].concat())
}

fn error(from: Ipv4Addr, to: Ipv4Addr, kind: (u8, u8), about: &[u8]) -> Vec<u8> {
    icmp(from, to, kind, [0, 0, 5, 0], &about[..about.len().min(548)])
}

/// The port (or identifier) that a whole packet comes from.
fn port_of(packet: &[u8]) -> u16 {
    let at = if packet[9] == 1 { 24 } else { 20 };
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// A packet with its checksums verified and left out, and `external` called 1.
fn shape(bytes: &[u8], external: Option<u16>, whole: bool) -> Vec<u8> {
    let (header, payload) = Ipv4Header::read_from_prefix(bytes).unwrap();
    assert_eq!(homeport_wire::checksum::checksum(&bytes[..20]), 0, "{bytes:02x?}");
    let mut shape = bytes.to_vec();
    shape[10..12].fill(0);
    let mut rename = |at: usize| {
        if shape.get(at..at + 2) == external.map(u16::to_be_bytes).as_ref().map(|port| &port[..]) {
            shape[at..at + 2].copy_from_slice(&[0, 1]);
        }
    };
    let is_error = header.protocol() == IpProtocol::ICMP && matches!(payload[0], 3 | 11 | 12);
    let sum_at = match header.protocol() {
        IpProtocol::ICMP if is_error => 22,
        IpProtocol::ICMP => {
            rename(24);
            22
        }
        IpProtocol::UDP => {
            [20, 22].into_iter().for_each(&mut rename);
            26
        }
        _ => {
            [20, 22].into_iter().for_each(&mut rename);
            36
        }
    };
    let sum = if header.protocol() == IpProtocol::ICMP {
        Sum::new()
    } else {
        let len = u16::try_from(payload.len()).unwrap();
        Sum::new().add_pseudo_header(
            header.source(),
            header.destination(),
            header.protocol().0,
            len,
        )
    };
    let none = header.protocol() == IpProtocol::UDP && payload.get(6..8) == Some(&[0, 0]);
    if whole && !none {
        assert_eq!(sum.add_bytes(payload).checksum(), 0, "{bytes:02x?}");
    }
    if !none && let Some(sum) = shape.get_mut(sum_at..sum_at + 2) {
        sum.copy_from_slice(b"ok");
    }
    if is_error {
        let quote = shape.split_off(28);
        let complete = usize::from(u16::from_be_bytes([quote[2], quote[3]])) == quote.len();
        shape.extend(self::shape(&quote, external, complete));
    }
    shape
}

/// What came out, in a form that two NATs can be compared in.
type Story = Vec<(&'static str, Vec<(usize, Vec<u8>)>)>;

/// The same frames for any NAT.
fn story(nat: &mut dyn Nat) -> Story {
    let mut story = Story::new();
    let host = (HOST, 4000);
    let web = (SERVER, 80);
    let dns = (SERVER, 53);

    // UDP: a mapping and its answer.
    let sent = nat.pass(INSIDE, &udp(host, dns, b"question"));
    assert_eq!(sent.len(), 1);
    let port = port_of(&sent[0].1);
    assert!((16_384..32_768).contains(&port));
    let external = (EXTERNAL, port);
    let mut tell = |what, seen: Vec<(usize, Vec<u8>)>, port| {
        // The inside never sees the external port.
        let name = |side| Some(port).filter(|_| side == OUTSIDE);
        let shapes = seen.iter().map(|(side, bytes)| (*side, shape(bytes, name(*side), true)));
        story.push((what, shapes.collect::<Vec<_>>()));
    };
    tell("a question", sent.clone(), port);
    tell("its answer", nat.pass(OUTSIDE, &udp(dns, external, b"answer")), port);
    let again = nat.pass(INSIDE, &udp(host, (OTHER, 9), b"to another"));
    tell("the same port to another host", again, port);
    tell("its answer", nat.pass(OUTSIDE, &udp((OTHER, 9), external, b"answer")), port);
    let mut unsummed = udp(host, dns, b"no checksum");
    unsummed[26..28].fill(0);
    tell("a checksum of zero", nat.pass(INSIDE, &unsummed), port);
    let mut tired = udp(host, dns, b"late");
    Ipv4Header::mut_from_prefix(&mut tired).unwrap().0.ttl = 1;
    Ipv4Header::mut_from_prefix(&mut tired).unwrap().0.fill_checksum();
    let mut told = nat.pass(INSIDE, &tired);
    // The box's own identification, and whether it may be fragmented.
    told.iter_mut().for_each(|(_, bytes)| forget_identification(bytes));
    tell("the TTL's end", told, port);

    // Strangers: what the inside sees of them. The outside may be told.
    for stranger in
        [udp((OTHER, 1), (EXTERNAL, port ^ 1), b"?"), tcp((OTHER, 1), external, 2, (1, 0))]
    {
        let mut seen = nat.pass(OUTSIDE, &stranger);
        seen.retain(|(side, _)| *side == INSIDE);
        tell("a stranger", seen, port);
    }

    // ICMP errors about it, from the server and from a router; and from the host.
    for kind in [(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)] {
        for len in [28, sent[0].1.len()] {
            let about = &sent[0].1[..len];
            tell("an error", nat.pass(OUTSIDE, &error(OTHER, EXTERNAL, kind, about)), port);
        }
    }
    let answer = udp(dns, host, b"answer");
    tell("the host's error", nat.pass(INSIDE, &error(HOST, SERVER, (3, 3), &answer)), port);
    tell("still there", nat.pass(OUTSIDE, &udp(dns, external, b"answer")), port);

    // Queries.
    let sent = nat.pass(INSIDE, &icmp(HOST, SERVER, (8, 0), [0x12, 0x34, 0, 1], b"ping"));
    let identifier = port_of(&sent[0].1);
    tell("a ping", sent.clone(), identifier);
    let [high, low] = identifier.to_be_bytes();
    let pong = icmp(SERVER, EXTERNAL, (0, 0), [high, low, 0, 1], b"pong");
    tell("its answer", nat.pass(OUTSIDE, &pong), identifier);
    let lost = error(OTHER, EXTERNAL, (3, 1), &sent[0].1);
    tell("an error about it", nat.pass(OUTSIDE, &lost), identifier);

    // TCP: it opens, carries, survives a RST that was guessed, and closes.
    const SYN: u8 = TcpHeader::SYN;
    const ACK: u8 = TcpHeader::ACK;
    let sent = nat.pass(INSIDE, &tcp(host, web, SYN, (100, 0)));
    let port = port_of(&sent[0].1);
    let external = (EXTERNAL, port);
    tell("a SYN", sent, port);
    tell("its answer", nat.pass(OUTSIDE, &tcp(web, external, SYN | ACK, (500, 101))), port);
    tell("an ACK", nat.pass(INSIDE, &tcp(host, web, ACK, (101, 501))), port);
    nat.pass(OUTSIDE, &tcp(web, external, TcpHeader::RST, (1 << 30, 0)));
    tell("after a guessed RST", nat.pass(OUTSIDE, &tcp(web, external, ACK, (501, 101))), port);
    tell("and back", nat.pass(INSIDE, &tcp(host, web, ACK, (101, 501))), port);
    let fin = TcpHeader::FIN | ACK;
    tell("a FIN", nat.pass(INSIDE, &tcp(host, web, fin, (101, 501))), port);
    tell("its answer", nat.pass(OUTSIDE, &tcp(web, external, fin, (501, 102))), port);
    tell("the last ACK", nat.pass(INSIDE, &tcp(host, web, ACK, (102, 502))), port);
    story
}

fn forget_identification(bytes: &mut [u8]) {
    let (header, _) = Ipv4Header::mut_from_prefix(bytes).unwrap();
    header.set_identification(0);
    header.set_dont_fragment(false);
    header.fill_checksum();
}

#[test]
fn we_do_what_nftables_does_with_the_same_frames() {
    if unavailable("we_do_what_nftables_does_with_the_same_frames") {
        return;
    }
    let (theirs, ours) = (story(&mut Kernel::new()), story(&mut Ours::new()));
    assert_eq!(theirs.len(), ours.len());
    for (step, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
        assert_eq!(theirs, ours, "step {step}: {}\n{:02x?}\n{:02x?}", ours.0, theirs.1, ours.1);
    }
    let passed = ours.iter().filter(|(_, seen)| !seen.is_empty()).count();
    assert_eq!(ours.len() - passed, 2, "all but the strangers' packets came out");
}

/// `homeportd` with a `[[napt]]`, and hosts of the kernel on both sides: a download, a
/// large ping, what is for the box itself, and what the operator sees.
#[test]
fn hosts_reach_the_outside_by_the_daemons_address() {
    if unavailable("hosts_reach_the_outside_by_the_daemons_address") {
        return;
    }
    let [inside, outside, router] =
        ["in", "out", "box"].map(|end| Namespace::new(&format!("napt-{end}")));
    join((&inside, "eth0"), (&router, "in"));
    join((&outside, "eth0"), (&router, "out"));
    inside.ip("addr add 10.1.0.10/24 dev eth0");
    inside.ip("route add default via 10.1.0.1");
    // The outside has no way to the inside but by the answer to its own address.
    outside.ip("addr add 203.0.113.7/24 dev eth0");
    let folder = Folder::new("napt");
    let port = |name: &str, address: &str| {
        format!(
            "[[port]]\nname = \"{name}\"\nbackend = \"af_packet\"\ninterface = \"{name}\"\n\
             addresses = [\"{address}\"]\n"
        )
    };
    let socket = folder.path("n.sock");
    let ports = port("in", "10.1.0.1/24") + &port("out", "203.0.113.1/24");
    let napt = "[[napt]]\nname = \"internet\"\ninside = [\"in\"]\noutside = \"out\"\n";
    let text = format!("[daemon]\nadmin_socket = \"{}\"\n{ports}{napt}", socket.display());
    folder.write("n.toml", &text);
    let mut daemon = Daemon::start(&router, &folder, "n");

    let (peer, received) = download(&inside, &outside);
    assert_eq!(peer.ip(), EXTERNAL);
    assert!((16_384..32_768).contains(&peer.port()));
    assert_eq!(received, 10_000_000);
    for words in ["-c 2 -i 0.2 -W 2 203.0.113.7", "-c 2 -i 0.2 -W 2 -s 8000 203.0.113.7"] {
        let output = inside.output("ping", words);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    // An error of the outside host finds its way, and so does what is for the box.
    let refused = inside.inside(|| TcpStream::connect("203.0.113.7:9"));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    for (from, to) in [(&outside, "203.0.113.1"), (&inside, "203.0.113.1"), (&inside, "10.1.0.1")] {
        let output = from.output("ping", &format!("-c 1 -W 2 {to}"));
        assert!(output.status.success(), "{to} does not answer");
    }

    let shown = wait_for("the block in `show napt`", Duration::from_secs(5), || {
        let shown = daemon.get("napt")["napt"][0].clone();
        shown["blocks"][0].is_object().then_some(shown)
    });
    let block = &shown["blocks"][0];
    assert_eq!((&shown["name"], &block["inside"]), (&"internet".into(), &"10.1.0.10".into()));
    let (first, last) = (&block["first_port"], &block["last_port"]);
    let ports = first.as_u64().unwrap()..=last.as_u64().unwrap();
    assert!(ports.contains(&u64::from(peer.port())));
    assert!(shown["counters"]["translated-out"].as_u64().unwrap() > 100, "{shown}");
    daemon.wait_for_log("a block of ports was given");
    daemon.assert_conserved();
    daemon.stop();
}

/// Fetches ten megabytes by TCP: from whom the server saw the connection come, and how
/// much arrived whole.
fn download(from: &Namespace, to: &Namespace) -> (SocketAddr, usize) {
    let listener = to.inside(|| TcpListener::bind("0.0.0.0:5000").unwrap());
    let block: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let sent = block.clone();
    let server = thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        for _ in 0..100 {
            stream.write_all(&sent).unwrap();
        }
        peer
    });
    let mut stream = from.inside(|| TcpStream::connect("203.0.113.7:5000").unwrap());
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert!(received.chunks(block.len()).all(|chunk| chunk == block));
    (server.join().unwrap(), received.len())
}
