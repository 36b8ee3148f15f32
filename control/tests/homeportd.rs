//! `homeportd` as people run it: the real program in namespaces, real packets of
//! the kernel's hosts around it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use homeport_proto::message::{
    AuthenticationKind, Identification, Message, MessageWriter, RegistrationRequest, RequestFlags,
};
use homeport_proto::security::{
    Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, Spi,
};
use homeport_proto::{Lifetime, NtpTime};

use crate::daemon::{Daemon, Folder};
use crate::namespace::{Namespace, join, unavailable, wait_for};

const LIMIT: Duration = Duration::from_secs(5);

/// Two hosts with a router between them.
struct Routed {
    left: Namespace,
    right: Namespace,
    router: Namespace,
    folder: Folder,
}

impl Routed {
    fn new(name: &str) -> Self {
        let [left, right, router] =
            ["l", "r", "x"].map(|end| Namespace::new(&format!("{name}-{end}")));
        join((&left, "eth0"), (&router, "left"));
        join((&right, "eth0"), (&router, "right"));
        left.ip("addr add 10.0.1.10/24 dev eth0");
        left.ip("route add default via 10.0.1.1");
        right.ip("addr add 10.0.2.10/24 dev eth0");
        right.ip("route add default via 10.0.2.1");
        Routed { left, right, router, folder: Folder::new(name) }
    }

    fn config(&self) -> String {
        let port = |name: &str, address: &str| {
            format!(
                "[[port]]\nname = \"{name}\"\nbackend = \"af_packet\"\ninterface = \"{name}\"\n\
                 addresses = [\"{address}\"]\n"
            )
        };
        let socket = self.folder.path("r.sock");
        let ports = port("left", "10.0.1.1/24") + &port("right", "10.0.2.1/24");
        format!("[daemon]\nadmin_socket = \"{}\"\nlog = \"debug\"\n{ports}", socket.display())
    }
}

/// Sends this many bytes over TCP and checks that they arrive.
fn transfer(from: &Namespace, to: &Namespace, address: &str, megabytes: usize) {
    let listener = to.inside(|| TcpListener::bind(("0.0.0.0", 5000)).unwrap());
    let receiver = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let block: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut stream = from.inside(|| TcpStream::connect((address, 5000)).unwrap());
    for _ in 0..megabytes {
        stream.write_all(&block).unwrap();
    }
    drop(stream);
    let received = receiver.join().unwrap();
    assert_eq!(received.len(), megabytes * block.len());
    assert!(received.chunks(block.len()).all(|chunk| chunk == block));
}

fn ping(from: &Namespace, to: &str, words: &str) -> String {
    let output = from.output("ping", &format!("{words} {to}"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

/// B-03, B-08: plain forwarding by the mirrored routes, without the kernel.
#[test]
fn two_hosts_talk_through_the_dataplane_and_nothing_stays_behind() {
    if unavailable("two_hosts_talk_through_the_dataplane_and_nothing_stays_behind") {
        return;
    }
    let routed = Routed::new("route");
    let Routed { left, right, router, folder } = &routed;
    folder.write("r.toml", &routed.config());
    let mut daemon = Daemon::start(router, folder, "r");

    // The kernel behind the twin answers for the router, the dataplane forwards.
    ping(left, "10.0.1.1", "-c 2 -i 0.2 -W 2");
    let text = ping(left, "10.0.2.10", "-c 3 -i 0.2 -W 2");
    assert!(text.contains("ttl=63"), "{text}");
    assert!(text.contains(" 0% packet loss"), "{text}");
    transfer(left, right, "10.0.2.10", 20);
    let forwarding = router.output("cat", "/proc/sys/net/ipv4/ip_forward").stdout;
    assert_eq!(forwarding, b"0\n");
    daemon.assert_conserved();

    // A TTL that runs out, and a destination without a route, are told.
    let output = left.output("ping", "-c 1 -W 2 -t 1 10.0.2.10");
    assert!(String::from_utf8(output.stdout).unwrap().contains("Time to live exceeded"));
    let output = left.output("ping", "-c 1 -W 2 192.0.2.1");
    assert!(String::from_utf8(output.stdout).unwrap().contains("Unreachable"));

    daemon.stop();
    let links = String::from_utf8(router.output("ip", "-br link").stdout).unwrap();
    assert!(!links.contains("hp-"), "{links}");
    assert!(router.output("nft", "list ruleset").stdout.is_empty());
    assert!(!folder.path("r.sock").exists());
}

/// B-08: a new config is put into force whole or not at all.
#[test]
fn sighup_swaps_what_can_be_swapped_and_refuses_the_rest() {
    if unavailable("sighup_swaps_what_can_be_swapped_and_refuses_the_rest") {
        return;
    }
    let routed = Routed::new("hup");
    let Routed { router, folder, .. } = &routed;
    let base = routed.config();
    let route = |gateway: &str| {
        format!("[[route]]\ndestination = \"10.9.0.0/16\"\ngateway = \"{gateway}\"\n")
    };
    folder.write("r.toml", &base);
    let mut daemon = Daemon::start(router, folder, "r");
    let gateway = |daemon: &Daemon| {
        let routes = daemon.get("routes");
        let routes = routes["routes"].as_array().unwrap().clone();
        let route = routes.iter().find(|route| route["destination"] == "10.9.0.0/16")?;
        Some(route["gateway"].as_str().unwrap().to_owned())
    };
    let wait_until = |daemon: &Daemon, what: &str, wanted: Option<&str>| {
        wait_for(what, LIMIT, || (gateway(daemon).as_deref() == wanted).then_some(()));
    };

    folder.write("r.toml", &format!("{base}{}", route("10.0.2.10")));
    daemon.hang_up();
    wait_until(&daemon, "the new route", Some("10.0.2.10"));
    folder.write("r.toml", &format!("{base}{}", route("10.0.1.10")));
    daemon.hang_up();
    wait_until(&daemon, "the other next hop", Some("10.0.1.10"));

    // Wrong, or not to be changed while it runs: all stays, and the log says why.
    folder.write("r.toml", &format!("{base}nonsense"));
    daemon.hang_up();
    daemon.wait_for_log("the config stays as it is");
    let smaller = base.replace("interface = \"left\"\n", "interface = \"left\"\nmtu = 1400\n");
    folder.write("r.toml", &smaller);
    daemon.hang_up();
    daemon.wait_for_log("can only change at a start");
    // A next hop that is on no link is refused by the check; one that the kernel
    // has already by the kernel.
    router.ip("route add 10.8.0.0/16 via 10.0.1.9");
    let taken = route("10.0.2.10").replace("10.9", "10.8");
    folder.write("r.toml", &format!("{base}{taken}"));
    daemon.hang_up();
    daemon.wait_for_log("File exists");
    assert_eq!(gateway(&daemon).as_deref(), Some("10.0.1.10"));
    assert_eq!(daemon.get("status")["config_generation"], 3);

    folder.write("r.toml", &base);
    daemon.hang_up();
    wait_until(&daemon, "the route gone", None);
    daemon.stop();
}

#[test]
fn what_keeps_it_from_starting_is_named_by_its_key() {
    if unavailable("what_keeps_it_from_starting_is_named_by_its_key") {
        return;
    }
    let routed = Routed::new("start");
    let Routed { router, folder, .. } = &routed;
    let base = routed.config();
    folder.write("r.toml", &base.replace("interface = \"left\"", "interface = \"nowhere\""));
    let error = Daemon::fail(router, folder, "r");
    assert!(error.contains("[[port]] \"left\" interface = \"nowhere\""), "{error}");

    router.ip("tuntap add mode tap name hp-right");
    folder.write("r.toml", &base);
    let error = Daemon::fail(router, folder, "r");
    assert!(error.contains("kernel_twin = \"hp-right\""), "{error}");
    router.ip("link delete hp-right");
    assert!(router.output("nft", "list ruleset").stdout.is_empty());

    let mut killed = Daemon::start(router, folder, "r");
    killed.kill();
    // What a killed process left is taken over.
    assert!(!router.output("nft", "list ruleset").stdout.is_empty());
    Daemon::start(router, folder, "r").stop();
    assert!(router.output("nft", "list ruleset").stdout.is_empty());
}

/// A correspondent node and a home agent and a foreign agent on one core network;
/// a mobile node on the foreign agent's link, a neighbour on the home link.
struct Roaming {
    cn: Namespace,
    ha: Namespace,
    fa: Namespace,
    mn: Namespace,
    home: Namespace,
    _core: Namespace,
    folder: Folder,
}

const HOME_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const HOME_AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CARE_OF_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const FOREIGN_AGENT: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
const KEY: &str = "000102030405060708090a0b0c0d0e0f";

impl Roaming {
    fn new(name: &str) -> Self {
        let [cn, ha, fa, mn, home, core] = ["cn", "ha", "fa", "mn", "home", "core"]
            .map(|node| Namespace::new(&format!("{name}-{node}")));
        core.ip("link add br0 type bridge");
        core.ip("link set br0 up");
        for (node, end, interface) in
            [(&cn, "cn", "eth0"), (&ha, "ha", "core"), (&fa, "fa", "core")]
        {
            join((node, interface), (&core, end));
            core.ip(&format!("link set {end} master br0"));
        }
        join((&mn, "eth0"), (&fa, "visited"));
        join((&home, "eth0"), (&ha, "home"));
        cn.ip("addr add 10.0.0.9/24 dev eth0");
        cn.ip("route add 10.1.0.0/24 via 10.0.0.2");
        home.ip("addr add 10.1.0.20/24 dev eth0");
        home.ip("route add default via 10.1.0.1");
        // The node keeps its home address and sends all to the foreign agent.
        mn.ip("addr add 10.1.0.10/32 dev eth0");
        mn.ip("route add 10.2.0.1/32 dev eth0");
        mn.ip("route add default via 10.2.0.1");
        Roaming { cn, ha, fa, mn, home, _core: core, folder: Folder::new(name) }
    }

    fn write_configs(&self, max_lifetime: &str) {
        let daemon = |name: &str| {
            let socket = self.folder.path(&format!("{name}.sock"));
            format!("[daemon]\nadmin_socket = \"{}\"\nlog = \"debug\"\n", socket.display())
        };
        let port = |name: &str, address: &str| {
            format!(
                "[[port]]\nname = \"{name}\"\nbackend = \"af_packet\"\ninterface = \"{name}\"\n\
                 kernel_twin = \"hp-{name}\"\naddresses = [\"{address}\"]\n"
            )
        };
        self.folder.write_key("mn.key", KEY);
        let home_agent = format!(
            "[[home_agent]]\nname = \"ha\"\naddress = \"10.0.0.2\"\n\
             max_lifetime = \"{max_lifetime}\"\nreverse_tunnel = true\n\
             [[home_agent.home_network]]\nprefix = \"10.1.0.0/24\"\nport = \"home\"\n\
             [[home_agent.security_association]]\nmobile_node = \"10.1.0.10\"\nspi = 256\n\
             algorithm = \"hmac-md5\"\nkey_file = \"mn.key\"\nreplay = \"timestamps\"\n\
             [[advertiser]]\nport = \"home\"\nhome_agent = \"ha\"\ninterval = \"1s\"\n"
        );
        let ports = port("core", "10.0.0.2/24") + &port("home", "10.1.0.1/24");
        self.folder.write("ha.toml", &(daemon("ha") + &ports + &home_agent));
        let foreign_agent = "[[foreign_agent]]\nname = \"fa\"\ncare_of_address = \"10.0.0.3\"\n\
             ports = [\"visited\"]\nmax_lifetime = \"600s\"\nreverse_tunnel = true\n\
             [[advertiser]]\nport = \"visited\"\nforeign_agent = \"fa\"\ninterval = \"1s\"\n";
        let ports = port("core", "10.0.0.3/24") + &port("visited", "10.2.0.1/24");
        self.folder.write("fa.toml", &(daemon("fa") + &ports + foreign_agent));
    }

    /// Sends a registration request as a mobile node does, and gives the code and
    /// lifetime of the reply, whose authenticator is right.
    fn register(&self, lifetime: Lifetime) -> (u8, Lifetime) {
        let bytes = request(lifetime);
        let reply = self.mn.inside(|| {
            let socket = UdpSocket::bind((HOME_ADDRESS, 0)).unwrap();
            // RFC 3024 §6.1: a request for a reverse tunnel has a TTL of 255.
            socket.set_ttl(255).unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket.send_to(&bytes, (FOREIGN_AGENT, 434)).unwrap();
            let mut buffer = [0; 1500];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(from.port(), 434);
            buffer[..length].to_vec()
        });
        let Message::Reply(reply) = Message::parse(&reply).unwrap() else {
            panic!("not a reply");
        };
        assert_eq!(reply.body.home_address, HOME_ADDRESS);
        assert_eq!(reply.body.home_agent, HOME_AGENT);
        let authentication = reply.mobile_home_authentication().unwrap();
        assert!(reply.verify(authentication, &association()));
        (reply.body.code.0, reply.body.lifetime)
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

fn request(lifetime: Lifetime) -> Vec<u8> {
    let now = NtpTime::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
    let mut writer = MessageWriter::request(&RegistrationRequest {
        flags: RequestFlags::REVERSE_TUNNEL,
        lifetime,
        home_address: HOME_ADDRESS,
        home_agent: HOME_AGENT,
        care_of_address: CARE_OF_ADDRESS,
        identification: Identification(now.0),
    });
    writer.authenticate(AuthenticationKind::MobileHome, &association());
    writer.finish()
}

/// B-01, B-02, B-03, B-04: registration through a foreign agent, the tunnel there
/// and back, proxy ARP on the home link, a config swapped meanwhile, and the end.
#[test]
fn a_node_registers_through_a_foreign_agent_and_is_reached_at_its_home_address() {
    if unavailable("a_node_registers_through_a_foreign_agent_and_is_reached_at_its_home_address") {
        return;
    }
    let roaming = Roaming::new("roam");
    let Roaming { cn, ha, fa, mn, home, folder, .. } = &roaming;
    roaming.write_configs("300s");
    let mut home_agent = Daemon::start(ha, folder, "ha");
    let mut foreign_agent = Daemon::start(fa, folder, "fa");
    let nobody = cn.output("ping", "-c 1 -W 1 10.1.0.10");
    assert!(!nobody.status.success(), "the node is not there yet");

    assert_eq!(roaming.register(Lifetime(200)), (0, Lifetime(200)));
    // Install before reply: the very first packet after the reply gets through.
    let text = ping(cn, "10.1.0.10", "-c 10 -i 0.05 -W 2");
    assert!(text.contains(" 0% packet loss"), "{text}");
    // On the home link the home agent answers for the node.
    ping(home, "10.1.0.10", "-c 2 -i 0.2 -W 2");
    transfer(cn, mn, "10.1.0.10", 20);
    transfer(mn, cn, "10.0.0.9", 5);

    let bindings = home_agent.get("bindings");
    let binding = &bindings["bindings"][0];
    assert_eq!(binding["home_address"], "10.1.0.10");
    assert_eq!(binding["home_link"], "home");
    let care_of = &binding["care_of_addresses"][0];
    assert_eq!(care_of["address"], "10.0.0.3");
    assert_eq!(care_of["lifetime_seconds"], 200);
    assert!((150..=200).contains(&care_of["remaining_seconds"].as_u64().unwrap()));
    let visitors = foreign_agent.get("visitors");
    let visitor = &visitors["visitors"][0];
    assert_eq!((&visitor["state"], &visitor["port"]), (&"registered".into(), &"visited".into()));
    assert_eq!(visitor["reverse_tunnel"], "direct");
    let tunnels = home_agent.get("tunnels");
    assert_eq!(tunnels["tunnels"][0]["remote"], "10.0.0.3");
    assert_eq!(tunnels["tunnels"][0]["reverse"], 1);

    // Another config keeps the binding and every packet.
    let mut pinging = cn.command("ping");
    pinging.args(["-c", "100", "-i", "0.01", "-W", "2", "10.1.0.10"]);
    let pinging = pinging.stdout(std::process::Stdio::piped()).spawn().unwrap();
    roaming.write_configs("100s");
    home_agent.hang_up();
    wait_for("the new config", LIMIT, || {
        (home_agent.get("status")["config_generation"] == 2).then_some(())
    });
    let output = pinging.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(" 0% packet loss"), "{text}");
    assert_eq!(roaming.register(Lifetime(200)), (0, Lifetime(100)));

    home_agent.assert_conserved();
    foreign_agent.assert_conserved();
    assert_eq!(roaming.register(Lifetime::ZERO), (0, Lifetime::ZERO));
    let gone = cn.output("ping", "-c 1 -W 1 10.1.0.10");
    assert!(!gone.status.success(), "the node deregistered");
    assert_eq!(home_agent.get("bindings")["bindings"].as_array().unwrap().len(), 0);
    assert_eq!(foreign_agent.get("visitors")["visitors"].as_array().unwrap().len(), 0);
    home_agent.stop();
    foreign_agent.stop();
}
