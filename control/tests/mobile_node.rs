//! `homeport-mn` as people run it: the real program in a namespace, dnsmasq as the
//! DHCP server, and hand-made agents whose bytes and frames are real. (B-01, B-03,
//! B-04)

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use homeport_control::mobile::frame::{self, Station};
use homeport_control::mobile::host::index_of;
use homeport_control::mobile::sockets::PacketSocket;
use homeport_control::mobile::tunnel_sockets::TunnelSocket;
use homeport_dataplane::port::interface;
use homeport_proto::message::advertisement::AgentFlags;
use homeport_proto::message::{
    AgentAdvertisement, AuthenticationKind, Message, MessageWriter, MobilityAgent,
    RegistrationReply, RegistrationRequest, ReplyCode, RequestFlags,
};
use homeport_proto::security::{
    Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, Spi,
};
use homeport_proto::{Lifetime, MacAddress};
use homeport_wire::{IpProtocol, Ipv4Header, Ipv4Packet, UdpHeader};
use serde_json::Value;
use zerocopy::IntoBytes;

use crate::daemon::{Daemon, Folder, HOMEPORT_MN};
use crate::namespace::{Namespace, join, unavailable, wait_for};

const LIMIT: Duration = Duration::from_secs(8);
const HOME: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const HOME_AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 2, 3, 1);
const CARE_OF: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const CORRESPONDENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A mobile node, and the box at the other end of its cable, which is router,
/// agent and correspondent in one.
struct Pair {
    node: Namespace,
    other: Namespace,
    folder: Folder,
    dnsmasq: Option<Child>,
}

impl Pair {
    fn new(name: &str, style: &str) -> Self {
        let [node, other] = ["mn", "gw"].map(|end| Namespace::new(&format!("{name}-{end}")));
        // Different indexes, or Linux may tell of the carrier a second late.
        other.ip("link add unused type bridge");
        join((&node, "eth0"), (&other, "visited"));
        other.ip(&format!("addr add {GATEWAY}/24 dev visited"));
        for address in [HOME_AGENT, CARE_OF, CORRESPONDENT] {
            other.ip(&format!("addr add {address}/32 dev lo"));
        }
        let loose =
            "for f in all default visited; do echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter; done";
        assert!(other.command("sh").args(["-c", loose]).status().unwrap().success());
        let folder = Folder::new(name);
        folder.write_key("mn.key", "000102030405060708090a0b0c0d0e0f");
        let socket = folder.path("mn.sock");
        folder.write(
            "mn.toml",
            &format!(
                "[daemon]\nadmin_socket = \"{}\"\nlog = \"debug\"\n\
                 [mobile_node]\ninterface = \"eth0\"\nhome_address = \"{HOME}\"\n\
                 home_prefix = \"10.1.0.0/24\"\nhome_agent = \"{HOME_AGENT}\"\n\
                 lifetime = \"60s\"\nreverse_tunnel = \"{style}\"\n\
                 [[mobile_node.security_association]]\nhome_agent = \"{HOME_AGENT}\"\n\
                 spi = 256\nkey_file = \"mn.key\"\n",
                socket.display()
            ),
        );
        Pair { node, other, folder, dnsmasq: None }
    }

    fn start(&self) -> Daemon {
        Daemon::start_program(HOMEPORT_MN, &self.node, &self.folder, "mn")
    }

    fn start_dhcp(&mut self, more: &str) {
        let leases = self.folder.path("leases");
        let child = self
            .other
            .command("dnsmasq")
            .args(
                "--keep-in-foreground --conf-file=/dev/null --port=0 --interface=visited"
                    .split(' '),
            )
            .args("--bind-interfaces --no-ping --dhcp-authoritative --user=root".split(' '))
            .args(["--dhcp-range=10.2.3.100,10.2.3.200,255.255.255.0,2m", "--pid-file="])
            .arg(format!("--dhcp-option=option:router,{GATEWAY}"))
            .arg(format!("--dhcp-leasefile={}", leases.display()))
            .args(more.split_whitespace())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.dnsmasq = Some(child);
        wait_for("dnsmasq", LIMIT, || leases.exists().then_some(()));
    }

    fn leases(&self) -> String {
        std::fs::read_to_string(self.folder.path("leases")).unwrap()
    }

    /// A socket of the other box, on the registration port of all its addresses.
    fn registration_port(&self) -> UdpSocket {
        let socket = self.other.inside(|| UdpSocket::bind(("0.0.0.0", 434)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        socket
    }

    /// Sends a reply from the home agent's address and port, its UDP checksum wrong.
    fn answer_with_a_wrong_checksum(&self, reply: &[u8], to: SocketAddr) {
        let SocketAddr::V4(to) = to else { panic!("{to}") };
        let ends = ((HOME_AGENT, 434), (*to.ip(), to.port()));
        let mut udp = UdpHeader::new(ends.0, ends.1, reply).unwrap().as_bytes().to_vec();
        udp[6] ^= 1;
        let len = (20 + udp.len() + reply.len()) as u16;
        let ip = Ipv4Header::new(HOME_AGENT, *to.ip(), IpProtocol::UDP, 64, len);
        let packet = [ip.as_bytes(), &udp, reply].concat();
        let socket =
            self.other.inside(|| TunnelSocket::open("visited", TunnelSocket::SENDER).unwrap());
        socket.send(&packet, *to.ip()).unwrap();
    }

    fn mac(&self) -> MacAddress {
        self.node.inside(|| interface::mac("eth0").unwrap())
    }

    /// What the node's kernel holds, without the tunnel and what differs by itself.
    fn host(&self) -> String {
        let look = "ip -4 -o addr | grep -v hp-mn | sed 's/ *valid_lft.*//'; ip route show table all; \
                    ip rule; cd /proc/sys/net/ipv4/conf; \
                    for f in eth0/rp_filter eth0/arp_ignore eth0/arp_announce eth0/accept_redirects \
                    all/rp_filter; do echo $f $(cat $f); done";
        let output = self.node.command("sh").args(["-c", look]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .filter(|line| !line.contains("fe80") && !line.contains("ff00"))
            .fold(String::new(), |text, line| text + line.trim_end() + "\n")
    }

    fn sees(&self, address: Ipv4Addr) -> bool {
        let ping = self.node.output("ping", &format!("-c1 -W1 -I {HOME} {address}"));
        ping.status.success()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(mut child) = self.dnsmasq.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn association() -> MobilitySecurityAssociation {
    MobilitySecurityAssociation {
        spi: Spi(256),
        algorithm: Algorithm::HmacMd5,
        key: Key::new((0..16).collect()),
        replay: ReplayProtection::default(),
    }
}

/// The next request, its authenticator found right; and who sent it.
fn next_request(socket: &UdpSocket) -> Option<(RegistrationRequest, SocketAddr)> {
    let mut bytes = [0; 1024];
    let (len, from) = socket.recv_from(&mut bytes).ok()?;
    let Message::Request(request) = Message::parse(&bytes[..len]).unwrap() else { panic!() };
    let authentication = request.mobile_home_authentication().unwrap();
    assert!(request.verify(authentication, &association()));
    Some((request.body, from))
}

fn accepting(request: &RegistrationRequest) -> Vec<u8> {
    let mut writer = MessageWriter::reply(&RegistrationReply {
        code: ReplyCode::ACCEPTED,
        lifetime: request.lifetime,
        home_address: request.home_address,
        home_agent: request.home_agent,
        identification: request.identification,
    });
    writer.authenticate(AuthenticationKind::MobileHome, &association());
    writer.finish()
}

/// Accepts requests until one of this lifetime and care-of address came.
fn accept(socket: &UdpSocket, lifetime: u16, care_of: Option<Ipv4Addr>) -> RegistrationRequest {
    accept_from(socket, lifetime, care_of).0
}

/// The same, with who sent it.
fn accept_from(
    socket: &UdpSocket,
    lifetime: u16,
    care_of: Option<Ipv4Addr>,
) -> (RegistrationRequest, SocketAddr) {
    wait_for("a request", LIMIT, || {
        let (request, from) = next_request(socket)?;
        socket.send_to(&accepting(&request), from).unwrap();
        let wanted = request.lifetime == Lifetime(lifetime)
            && care_of.is_none_or(|address| request.care_of_address == address);
        wanted.then_some((request, from))
    })
}

fn wait_for_state(mn: &Daemon, state: &str) -> Value {
    wait_for(state, LIMIT, || {
        let view = mn.get("mobile-node");
        (view["state"] == state).then_some(view)
    })
}

/// Answers tunnelled echo requests, as a home agent and a correspondent behind it
/// would, until `done`; gives the outer packets' ends.
fn echo_through_tunnel(
    tunnel: &TunnelSocket,
    mut done: impl FnMut() -> bool,
) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let mut seen = Vec::new();
    let end = Instant::now() + LIMIT;
    while !done() && Instant::now() < end {
        let mut bytes = [0; 2048];
        let Some(len) = tunnel.receive(&mut bytes).unwrap() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let outer = Ipv4Packet::new_checked(&bytes[..len]).unwrap();
        let inner = Ipv4Packet::new_checked(outer.payload()).unwrap();
        assert_eq!((inner.header().source(), inner.header().destination()), (HOME, CORRESPONDENT));
        let ends = (outer.header().source(), outer.header().destination());
        seen.push(ends);
        // An echo reply: type 0 for 8, and the checksum with it.
        let mut icmp = inner.payload().to_vec();
        icmp[0] = 0;
        icmp[2..4].copy_from_slice(&[0, 0]);
        let sum = homeport_wire::checksum::checksum(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let len = (20 + icmp.len()) as u16;
        let back = Ipv4Header::new(CORRESPONDENT, HOME, IpProtocol::ICMP, 64, len);
        let around = Ipv4Header::new(ends.1, ends.0, IpProtocol::IP_IN_IP, 64, len + 20);
        let packet = [around.as_bytes(), back.as_bytes(), &icmp].concat();
        tunnel.send(&packet, ends.0).unwrap();
    }
    seen
}

/// B-03, B-04: an address of a real dnsmasq, with a rapid commit and without; the
/// registration by it; the tunnel; and no word of the home address on the link.
// Shows 5944-1.7-d, 5944-3.6.2.1-a, 3519-4.4-e, 5944-4.6-m, 5944-4.6-o, 5944-4.6-p.
#[test]
fn where_there_is_only_dhcp_the_node_tunnels_by_an_address_of_its_own() {
    if unavailable("where_there_is_only_dhcp") {
        return;
    }
    for (name, option) in [("dhcp", ""), ("rapid", "--dhcp-rapid-commit")] {
        let mut pair = Pair::new(name, "direct");
        pair.start_dhcp(option);
        let agent = pair.registration_port();
        let mut mn = pair.start();
        // Believed, a reply with a wrong UDP checksum would end the requests.
        let (request, first) = wait_for("a request", LIMIT, || next_request(&agent));
        pair.answer_with_a_wrong_checksum(&accepting(&request), first);
        let (request, again) = accept_from(&agent, 60, None);
        assert_eq!(again, first);
        let address = request.care_of_address;
        assert!(pair.leases().contains(&address.to_string()));
        let flags = RequestFlags::CO_LOCATED.with(RequestFlags::REVERSE_TUNNEL);
        assert_eq!(request.flags, flags);
        let view = wait_for_state(&mn, "registered");
        assert_eq!(view["care_of_address"], address.to_string());
        assert_eq!(view["co_located"], true);

        let tunnel =
            pair.other.inside(|| TunnelSocket::open("visited", IpProtocol::IP_IN_IP).unwrap());
        let mut ping = pair
            .node
            .command("ping")
            .args(["-c3", "-i0.2", "-W3", &CORRESPONDENT.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ends = echo_through_tunnel(&tunnel, || ping.try_wait().unwrap().is_some());
        assert!(ping.wait().unwrap().success(), "no echo came back");
        assert!(ends.iter().all(|ends| *ends == (address, HOME_AGENT)) && !ends.is_empty());

        // RFC 5944 §4.6: nobody on the link is answered for the home address.
        pair.other.ip(&format!("route add {HOME}/32 dev visited"));
        for asked in [HOME, address] {
            pair.other.output("ping", &format!("-c1 -W1 {asked}"));
        }
        let neighbors = String::from_utf8(pair.other.output("ip", "neigh").stdout).unwrap();
        let of = |address: Ipv4Addr| {
            let line = neighbors.lines().find(|line| line.starts_with(&format!("{address} ")));
            line.unwrap_or_else(|| panic!("{neighbors}")).to_owned()
        };
        assert!(of(address).contains("lladdr"), "{neighbors}");
        assert!(!of(HOME).contains("lladdr"), "{neighbors}");

        // B-01: it deregisters and gives the address back.
        std::thread::scope(|scope| {
            let stop = scope.spawn(|| mn.stop());
            let (last, from) = accept_from(&agent, 0, Some(address));
            assert_eq!(from, first, "one port from the first to the last");
            assert_eq!(last.care_of_address, address);
            stop.join().unwrap();
        });
        wait_for("the release", LIMIT, || {
            (!pair.leases().contains(&address.to_string())).then_some(())
        });
    }
}

/// A hand-made foreign agent at the other end.
fn advertise(pair: &Pair) -> Vec<u8> {
    let advertisement = AgentAdvertisement {
        code: 0,
        lifetime: 30,
        routers: vec![(GATEWAY, 0)],
        mobility: Some(MobilityAgent {
            sequence: 0,
            registration_lifetime: Lifetime(60),
            flags: AgentFlags::FOREIGN_AGENT.with(AgentFlags::REVERSE_TUNNEL),
            care_of_addresses: vec![CARE_OF],
        }),
        prefix_lengths: vec![24],
        challenge: None,
    };
    let group = Ipv4Addr::new(224, 0, 0, 1);
    let from =
        Station { mac: pair.other.inside(|| interface::mac("visited").unwrap()), address: GATEWAY };
    let to = Station { mac: MacAddress::of_multicast(group), address: group };
    frame::icmp(from, to, 1, &advertisement.emit()).unwrap()
}

/// B-01, B-04: direct and encapsulating delivery, without an ARP request for
/// anybody.
// Shows 5944-1.7-c, 5944-2.2-a, 5944-3.6.2.2-a, 3024-5.1.1-a, 3024-5.2.2-a.
#[test]
fn through_a_foreign_agent_packets_flow_in_the_delivery_style_that_was_asked_for() {
    if unavailable("through_a_foreign_agent") {
        return;
    }
    for style in ["direct", "encapsulating"] {
        let pair = Pair::new(style, style);
        let agent = pair.registration_port();
        // The agent knows its visitor's link-layer address, and asks nobody; and
        // whoever asks for the agent gets no answer.
        let mac = pair.mac();
        pair.other.ip("link set visited arp off");
        pair.other.ip(&format!("route add {HOME}/32 dev visited"));
        pair.other.ip(&format!("neigh replace {HOME} lladdr {mac} dev visited nud permanent"));
        let frames =
            pair.other.inside(|| PacketSocket::open(index_of("visited").unwrap()).unwrap());
        let groups = pair.other.inside(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap());
        groups.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 2), &GATEWAY).unwrap();
        let icmp = pair.other.inside(|| TunnelSocket::open("visited", IpProtocol::ICMP).unwrap());
        let mn = pair.start();
        // RFC 5944 §2.2: what it asks the link for goes no further.
        let ttl = wait_for("a solicitation", LIMIT, || {
            let mut bytes = [0; 128];
            let len = icmp.receive(&mut bytes).unwrap()?;
            let packet = Ipv4Packet::new_checked(&bytes[..len]).unwrap();
            (packet.payload()[0] == 10).then_some(packet.header().ttl)
        });
        assert_eq!(ttl, 1);
        frames.send(&advertise(&pair)).unwrap();
        let request = accept(&agent, 60, Some(CARE_OF));
        assert_eq!(request.flags, RequestFlags::REVERSE_TUNNEL);
        let view = wait_for_state(&mn, "registered");
        assert_eq!(view["foreign_agent"], GATEWAY.to_string());
        if style == "direct" {
            // The node's MTU leaves room for the agent's tunnel.
            let route = pair.node.output("ip", &format!("route get {CORRESPONDENT}"));
            let route = String::from_utf8(route.stdout).unwrap();
            assert!(route.contains(&format!("via {GATEWAY} dev eth0")), "{route}");
            assert!(pair.sees(CORRESPONDENT));
        } else {
            let tunnel =
                pair.other.inside(|| TunnelSocket::open("visited", IpProtocol::IP_IN_IP).unwrap());
            let mut ping = pair
                .node
                .command("ping")
                .args(["-c1", "-W1", &CORRESPONDENT.to_string()])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let ends = echo_through_tunnel(&tunnel, || ping.try_wait().unwrap().is_some());
            assert!(ping.wait().unwrap().success());
            assert!(ends.iter().all(|ends| *ends == (HOME, GATEWAY)) && !ends.is_empty());
        }
    }
}

/// A host with something of everything that the program sets aside.
fn furnish(pair: &Pair) {
    for words in [
        "addr add 10.1.0.10/24 dev eth0",
        "addr add 10.1.0.11/24 dev eth0",
        "addr add 172.16.5.5/16 brd + dev eth0",
        "route add default via 10.1.0.1",
        "route add 198.51.100.0/24 via 10.1.0.1 src 10.1.0.11 metric 7",
        "route add 203.0.113.0/24 dev eth0 table 50",
        "rule add from 10.1.0.11 table 50",
        "link add other type bridge",
        "addr add 10.77.0.1/24 dev other",
    ] {
        pair.node.ip(words);
    }
    let set = "echo 1 >/proc/sys/net/ipv4/conf/eth0/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/eth0/arp_announce; \
               echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter";
    assert!(pair.node.command("sh").args(["-c", set]).status().unwrap().success());
}

// Shows 5944-3.6-g, 5944-4.2.1-d.
#[test]
fn stopped_it_leaves_the_host_as_it_found_it() {
    if unavailable("stopped_it_leaves_the_host") {
        return;
    }
    let mut pair = Pair::new("stop", "direct");
    furnish(&pair);
    pair.start_dhcp("");
    let before = pair.host();
    assert!(before.contains("203.0.113.0/24 dev eth0 table 50"), "{before}");
    let agent = pair.registration_port();
    let mut mn = pair.start();
    accept(&agent, 60, None);
    wait_for_state(&mn, "registered");
    // The file is read at the start only; a hang-up is no reason to end.
    mn.hang_up();
    let meanwhile = pair.host();
    assert!(!meanwhile.contains("172.16"), "{meanwhile}");
    // RFC 5944 §3.6, §4.2.1: redirects lead nowhere while it runs.
    assert!(before.contains("eth0/accept_redirects 1"), "{before}");
    assert!(meanwhile.contains("eth0/accept_redirects 0"), "{meanwhile}");
    assert!(meanwhile.contains("10.77.0.1/24"), "other interfaces are none of its business");
    mn.stop();
    assert_eq!(pair.host(), before);
    assert!(!pair.folder.path("mn.sock").exists());
    assert!(!pair.folder.path("mn.found").exists());
    assert!(!pair.node.output("ip", "link show hp-mn").status.success());
}

#[test]
fn killed_it_leaves_a_host_that_the_next_takes_over_and_gives_back() {
    if unavailable("killed_it_leaves_a_host") {
        return;
    }
    let mut pair = Pair::new("kill", "direct");
    furnish(&pair);
    pair.start_dhcp("");
    let before = pair.host();
    let agent = pair.registration_port();
    for _ in 0..2 {
        let mut mn = pair.start();
        accept(&agent, 60, None);
        wait_for_state(&mn, "registered");
        mn.kill();
        assert_ne!(pair.host(), before);
    }
    let mut mn = pair.start();
    accept(&agent, 60, None);
    wait_for_state(&mn, "registered");
    let rules = String::from_utf8(pair.node.output("ip", "rule").stdout).unwrap();
    assert_eq!(rules.matches("lookup 99").count(), 1, "{rules}");
    mn.stop();
    assert_eq!(pair.host(), before);
}

/// An interface that goes away, as a card that is pulled, and comes back another.
#[test]
fn an_interface_that_comes_back_as_another_is_used_again() {
    if unavailable("an_interface_that_comes_back") {
        return;
    }
    let mut pair = Pair::new("pulled", "direct");
    pair.start_dhcp("");
    let agent = pair.registration_port();
    let mn = pair.start();
    accept(&agent, 60, None);
    wait_for_state(&mn, "registered");
    // The other end stays, so that dnsmasq keeps its interface.
    pair.node.ip("link set eth0 down");
    wait_for_state(&mn, "disconnected");
    pair.node.ip("link set eth0 name eth9");
    pair.node.ip("link set eth9 name eth0");
    pair.node.ip("link set eth0 up");
    accept(&agent, 60, None);
    wait_for_state(&mn, "registered");
    pair.node.ip("link delete eth0");
    wait_for_state(&mn, "disconnected");
    mn.wait_for_log("the interface is gone");
    join((&pair.node, "eth0"), (&pair.other, "visited"));
    pair.other.ip(&format!("addr add {GATEWAY}/24 dev visited"));
    let frames = pair.other.inside(|| PacketSocket::open(index_of("visited").unwrap()).unwrap());
    let mac = pair.mac();
    pair.other.ip(&format!("route add {HOME}/32 dev visited"));
    pair.other.ip(&format!("neigh replace {HOME} lladdr {mac} dev visited nud permanent"));
    frames.send(&advertise(&pair)).unwrap();
    accept(&agent, 60, Some(CARE_OF));
    wait_for_state(&mn, "registered");
    assert!(pair.sees(CORRESPONDENT));
}
