//! `homeport-mn` and `homeportd` as people run them, with every encapsulation,
//! through a masquerade of nftables and over a link of 1,280 bytes. (B-04, B-05,
//! S3-31, S3-32, S3-42)

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Daemon, Folder, HOMEPORT_MN, HOMEPORTD};
use crate::namespace::{Namespace, join, unavailable, wait_for};

const LIMIT: Duration = Duration::from_secs(10);
/// Within which a lost mapping must be found: ten seconds of silence, three echoes,
/// and some.
const LOSS: Duration = Duration::from_secs(18);
const HOME: &str = "10.1.0.10";
const HOME_AGENT: &str = "203.0.113.2";
const CORRESPONDENT: &str = "192.0.2.2";
const OUTSIDE: &str = "198.51.100.2";

/// mn ── nat ── near ──1280── far ── ha ── cn: the node behind a box that may
/// masquerade, two routers with a narrow link between, the home agent, and a
/// correspondent at its other side.
struct Path {
    mn: Namespace,
    nat: Namespace,
    cn: Namespace,
    ha: Namespace,
    routers: [Namespace; 2],
    folder: Folder,
    dnsmasq: Child,
}

impl Path {
    /// `home_agent` and `mobile_node` are more lines of their configs.
    fn new(name: &str, nat: bool, home_agent: &str, mobile_node: &str) -> Self {
        let [mn, box_, near, far, ha, cn] = ["mn", "nat", "near", "far", "ha", "cn"]
            .map(|end| Namespace::new(&format!("{name}-{end}")));
        // Different indexes, or Linux may tell of the carrier a second late.
        box_.ip("link add unused type bridge");
        join((&mn, "eth0"), (&box_, "visited"));
        join((&box_, "outside"), (&near, "in"));
        join((&near, "narrow"), (&far, "narrow"));
        join((&far, "out"), (&ha, "core"));
        join((&ha, "lan"), (&cn, "eth0"));
        for (node, words) in [
            (&box_, "addr add 10.2.3.1/24 dev visited"),
            (&box_, "addr add 198.51.100.2/24 dev outside"),
            (&box_, "route add default via 198.51.100.1"),
            (&near, "addr add 198.51.100.1/24 dev in"),
            (&near, "link set narrow mtu 1280"),
            (&near, "addr add 100.64.0.1/30 dev narrow"),
            (&near, "route add 10.2.3.0/24 via 198.51.100.2"),
            (&near, "route add default via 100.64.0.2"),
            (&far, "link set narrow mtu 1280"),
            (&far, "addr add 100.64.0.2/30 dev narrow"),
            (&far, "addr add 203.0.113.1/24 dev out"),
            (&far, "route add default via 100.64.0.1"),
            (&cn, "addr add 192.0.2.2/24 dev eth0"),
            (&cn, "route add default via 192.0.2.1"),
        ] {
            node.ip(words);
        }
        for router in [&box_, &near, &far] {
            let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward";
            assert!(router.command("sh").args(["-c", forward]).status().unwrap().success());
        }
        let folder = Folder::new(name);
        folder.write_key("mn.key", "000102030405060708090a0b0c0d0e0f");
        let daemon = |name: &str| {
            let socket = folder.path(&format!("{name}.sock"));
            format!("[daemon]\nadmin_socket = \"{}\"\nlog = \"debug\"\n", socket.display())
        };
        let port = |name: &str, address: &str| {
            format!(
                "[[port]]\nname = \"{name}\"\nbackend = \"af_packet\"\ninterface = \"{name}\"\n\
                 addresses = [\"{address}\"]\n"
            )
        };
        let ports = port("core", "203.0.113.2/24") + &port("lan", "192.0.2.1/24");
        let route = "[[route]]\ndestination = \"0.0.0.0/0\"\ngateway = \"203.0.113.1\"\n";
        let agent = format!(
            "[[home_agent]]\nname = \"ha\"\naddress = \"{HOME_AGENT}\"\nreverse_tunnel = true\n\
             {home_agent}\n[[home_agent.home_network]]\nprefix = \"10.1.0.0/24\"\n\
             [[home_agent.security_association]]\nmobile_node = \"{HOME}\"\nspi = 256\n\
             key_file = \"mn.key\"\n"
        );
        folder.write("ha.toml", &(daemon("ha") + &ports + route + &agent));
        let node = format!(
            "[mobile_node]\ninterface = \"eth0\"\nhome_address = \"{HOME}\"\n\
             home_prefix = \"10.1.0.0/24\"\nhome_agent = \"{HOME_AGENT}\"\nlifetime = \"10m\"\n\
             {mobile_node}\n[[mobile_node.security_association]]\n\
             home_agent = \"{HOME_AGENT}\"\nspi = 256\nkey_file = \"mn.key\"\n"
        );
        folder.write("mn.toml", &(daemon("mn") + &node));
        let dnsmasq = start_dnsmasq(&box_, &folder);
        let path = Path { mn, nat: box_, cn, ha, routers: [near, far], folder, dnsmasq };
        if nat {
            path.masquerade("20000-29999");
        }
        path
    }

    /// Masquerades with these UDP ports from now on, and forgets all mappings: a
    /// NAT that restarts, or whose provider moves it.
    fn masquerade(&self, ports: &str) {
        let rules = format!(
            "add table ip nat; flush table ip nat; \
             add chain ip nat out {{ type nat hook postrouting priority 100; }}; \
             add rule ip nat out oifname outside ip protocol udp masquerade to :{ports}; \
             add rule ip nat out oifname outside masquerade"
        );
        assert!(self.nat.command("nft").arg(rules).status().unwrap().success());
        // The mappings of a masquerade go with its interface.
        self.nat.ip("link set outside down");
        self.nat.ip("link set outside up");
        self.nat.ip("route replace default via 198.51.100.1");
    }

    fn start(&self) -> (Daemon, Daemon) {
        let agent = Daemon::start_program(HOMEPORTD, &self.ha, &self.folder, "ha");
        let node = Daemon::start_program(HOMEPORT_MN, &self.mn, &self.folder, "mn");
        (agent, node)
    }

    fn ping(&self, words: &str) -> (bool, String) {
        let output = self.mn.output("ping", &format!("{words} {CORRESPONDENT}"));
        let text =
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.success(), text)
    }

    /// The tunnel works both ways, carries `mtu` bytes and no more, and what is
    /// longer in pieces.
    fn assert_carries(&self, mn: &Daemon, mtu: u64) {
        let (ok, text) = self.ping("-c 3 -i 0.2 -W 2");
        assert!(ok, "{text}");
        let answer = self.cn.output("ping", &format!("-c 2 -i 0.2 -W 2 {HOME}"));
        assert!(answer.status.success(), "the correspondent reaches the home address");
        // Longer than the narrow link takes: its router tells, and then the
        // sender is told.
        let (ok, text) = self.ping("-M do -s 1440 -c 3 -i 0.3 -W 1");
        assert!(
            !ok && text.contains(&format!("mtu = {mtu}")) || text.contains(&format!("mtu={mtu}")),
            "{text}"
        );
        wait_for("the path's MTU", LIMIT, || {
            (mn.get("mobile-node")["tunnel_mtu_bytes"] == mtu).then_some(())
        });
        let fits = mtu - 28;
        let (ok, text) = self.ping(&format!("-M do -s {fits} -c 2 -i 0.2 -W 2"));
        assert!(ok, "{text}");
        assert!(!self.ping(&format!("-M do -s {} -c 1 -W 1", fits + 1)).0);
        let (ok, text) = self.ping("-s 8000 -c 3 -i 0.2 -W 2");
        assert!(ok, "{text}");
        // The home agent has not met the narrow link yet: its router cut outer
        // packets (FragOKs), and the node's kernel put them together.
        let cut = self.routers[1].output("awk", "/^Ip:/{n=$18}END{print(n)} /proc/net/snmp").stdout;
        assert_ne!(String::from_utf8(cut).unwrap().trim(), "0");
        let route = self.mn.output("ip", &format!("route get {CORRESPONDENT}")).stdout;
        let route = String::from_utf8(route).unwrap();
        assert!(route.contains("dev hp-mn ") && route.contains("src 10.1.0.10"), "{route}");
        self.transfer(4);
    }

    /// A TCP transfer to the node over the tunnel, so that the home agent's side
    /// meets the narrow link too.
    fn transfer(&self, megabytes: usize) {
        let listener = self.mn.inside(|| TcpListener::bind((HOME, 5000)).unwrap());
        let receiver = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let block: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut stream = self.cn.inside(|| TcpStream::connect((HOME, 5000)).unwrap());
        for _ in 0..megabytes {
            stream.write_all(&block).unwrap();
        }
        drop(stream);
        let received = receiver.join().unwrap();
        assert!(received.chunks(block.len()).all(|chunk| chunk == block));
        assert_eq!(received.len(), megabytes * block.len());
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = self.dnsmasq.kill();
        let _ = self.dnsmasq.wait();
    }
}

fn start_dnsmasq(namespace: &Namespace, folder: &Folder) -> Child {
    let leases = folder.path("leases");
    let child = namespace
        .command("dnsmasq")
        .args("--keep-in-foreground --conf-file=/dev/null --port=0 --interface=visited".split(' '))
        .args("--bind-interfaces --no-ping --dhcp-authoritative --user=root".split(' '))
        .args("--dhcp-range=10.2.3.100,10.2.3.200,255.255.255.0,10m --pid-file=".split(' '))
        .args(["--dhcp-option=option:router,10.2.3.1", "--dhcp-rapid-commit"])
        .arg(format!("--dhcp-leasefile={}", leases.display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("dnsmasq", LIMIT, || leases.exists().then_some(()));
    child
}

fn registered(mn: &Daemon) -> Value {
    wait_for("the registration", LIMIT, || {
        let view = mn.get("mobile-node");
        (view["state"] == "registered").then_some(view)
    })
}

fn count(mn: &Daemon, name: &str) -> u64 {
    let counters = mn.get("counters");
    let counters = counters["counters"].as_array().unwrap();
    counters.iter().find(|counter| counter["name"] == name).unwrap()["value"].as_u64().unwrap()
}

/// B-04, B-05: each encapsulation with a home agent that sees no NAT, its MTU over
/// the narrow link, and pieces of what is longer.
#[test]
fn every_encapsulation_finds_the_narrow_links_mtu() {
    if unavailable("every_encapsulation_finds_the_narrow_links_mtu") {
        return;
    }
    for (name, mtu) in [("ip-in-ip", 1260), ("minimal", 1268), ("gre", 1256), ("udp", 1248)] {
        let agent = "forced_udp = true";
        let path = Path::new(name, false, agent, &format!("encapsulation = \"{name}\""));
        let (agent, mn) = path.start();
        let view = registered(&mn);
        assert_eq!((&view["encapsulation"], &view["nat"]), (&name.into(), &false.into()));
        assert_eq!(view["tunnel"]["remote"], HOME_AGENT);
        path.assert_carries(&mn, mtu);
        assert_eq!(count(&mn, "tunnel_mtu_learnt"), 1);
        agent.assert_conserved();
    }
}

/// S3-31, S3-32, S3-42, RFC 3519: through a masquerade in both ways; and after the
/// NAT has forgotten the node, and gives it another port.
// Shows 3519-4.4-d.
#[test]
fn behind_a_masquerade_the_tunnel_is_udp_and_survives_the_nats_amnesia() {
    if unavailable("behind_a_masquerade_the_tunnel_is_udp_and_survives_the_nats_amnesia") {
        return;
    }
    for (mode, encapsulation, mtu) in [("rfc3519", "udp", 1248), ("challenge", "plain-udp", 1252)] {
        let agent = format!("nat_traversal = \"{mode}\"\nkeepalive = \"10s\"");
        let path = Path::new(mode, true, &agent, "");
        let (agent, mn) = path.start();
        let view = registered(&mn);
        assert_eq!((&view["encapsulation"], &view["nat"]), (&encapsulation.into(), &true.into()));
        assert!(view["care_of_address"].as_str().unwrap().starts_with("10.2.3."));
        assert_eq!(view["tunnel"]["remote_port"], 434);
        path.assert_carries(&mn, mtu);
        let seen = |agent: &Daemon| {
            let tunnels = agent.get("tunnels");
            tunnels["tunnels"].as_array().unwrap().iter().any(|row| row["remote"] == OUTSIDE)
        };
        assert!(seen(&agent), "{}", agent.get("tunnels"));

        // While packets go out and nothing comes back, the loss is found.
        path.masquerade("30000-39999");
        let mut traffic = path.mn.command("ping");
        let traffic = traffic.args(["-i", "0.2", "-w", "30", CORRESPONDENT]);
        let mut traffic = traffic.stdout(Stdio::null()).spawn().unwrap();
        wait_for("the loss", LOSS, || (count(&mn, "mappings_lost") == 1).then_some(()));
        wait_for("the other port", LIMIT, || path.ping("-c 1 -W 1").0.then_some(()));
        let _ = traffic.kill();
        let _ = traffic.wait();
        let (ok, text) = path.ping("-c 3 -i 0.2 -W 2");
        assert!(ok, "{text}");
        assert_eq!(registered(&mn)["encapsulation"], encapsulation);
        agent.assert_conserved();
    }
}

/// RFC 3519 §4.9: without traffic the mapping is kept alive by echoes that the
/// home agent answers, at its interval.
// Shows 3519-4.9-c.
#[test]
fn without_traffic_keepalives_hold_the_mapping_and_find_its_loss() {
    if unavailable("without_traffic_keepalives_hold_the_mapping_and_find_its_loss") {
        return;
    }
    let path = Path::new("idle", true, "keepalive = \"10s\"", "");
    let (_agent, mn) = path.start();
    assert_eq!(registered(&mn)["keepalive_seconds"], 10);
    wait_for("a keepalive and its answer", LOSS, || {
        (count(&mn, "tunnel_keepalives_answered") > 0).then_some(())
    });
    assert_eq!(count(&mn, "mappings_lost"), 0);
    path.masquerade("30000-39999");
    let requests = count(&mn, "registrations");
    wait_for("the loss", LOSS, || (count(&mn, "mappings_lost") == 1).then_some(()));
    wait_for("the registration", LIMIT, || (count(&mn, "registrations") > requests).then_some(()));
    let answer = path.cn.output("ping", &format!("-c 2 -i 0.2 -W 2 {HOME}"));
    assert!(answer.status.success(), "the correspondent reaches the home address again");
}
