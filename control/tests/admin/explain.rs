//! `homeport explain` against the real thing: requests on a memory port, the real worker,
//! agents and event loop, the real socket and command. (B-08)

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use homeport_control::admin::api;
use homeport_control::admin::explain::ExplanationView;
use homeport_control::admin::server::AdminServer;
use homeport_control::clock;
use homeport_control::config::Config;
use homeport_control::event_loop::{EventLoop, Parts, Signals};
use homeport_control::install::ClaimKeeper;
use homeport_control::kernel::{Mirror, Resolver, Setup};
use homeport_dataplane::config::{DataplaneConfig, PortSetup};
use homeport_dataplane::launch;
use homeport_dataplane::port::mem::{MemLink, MemPort};
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_proto::message::{
    AuthenticationKind, Extension, Identification, MessageWriter, RegistrationRequest,
    RegistrationRevocation, RequestFlags, RevocationSupport, UdpTunnelRequest,
};
use homeport_proto::security::{Algorithm, Key, MobilitySecurityAssociation, Spi};
use homeport_proto::{Lifetime, MacAddress, PortId, TenantId};
use homeport_wire::{EtherType, EthernetHeader, IpProtocol, Ipv4Header, UdpHeader};
use zerocopy::IntoBytes;

use crate::harness::{Room, code, err, homeport, out};

const OURS: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const ROUTER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 77);
/// A foreign agent that the home agent shares a key with.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const NAT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);

const fn node(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, last)
}

/// A home agent with room for one binding and for no NAT, as an operator finds it.
struct Real {
    room: Room,
    link: MemLink,
    server: Option<AdminServer>,
    stop: UnixStream,
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

fn association(spi: u32, key: &[u8]) -> MobilitySecurityAssociation {
    MobilitySecurityAssociation {
        spi: Spi(spi),
        algorithm: Algorithm::HmacMd5,
        key: Key::new(key.to_vec()),
        replay: Default::default(),
    }
}

/// The key in the room's file.
fn right() -> MobilitySecurityAssociation {
    association(256, &std::array::from_fn::<u8, 16, _>(|at| at as u8))
}

impl Real {
    fn start() -> Self {
        let room = Room::new();
        let path = room.config(|text| {
            let one = |last: u8| {
                format!(
                    "[[home_agent.security_association]]\nmobile_node = \"10.1.0.{last}\"\n\
                     spi = 256\nkey_file = \"mn.key\"\n"
                )
            };
            let all: String = (11..=16).map(one).collect();
            let limits = "max_bindings = 1\nnat_traversal = \"off\"\n";
            let foreign = format!(
                "[[home_agent.security_association]]\nforeign_agent = \"{FOREIGN}\"\nspi = 300\n\
                 key_file = \"mn.key\"\n"
            );
            text.replace("max_lifetime", &format!("{limits}max_lifetime")) + &all + &foreign
        });
        let config = Config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
        let (sender, admin) = api::channel().unwrap();
        let (stop, stopping) = UnixStream::pair().unwrap();
        let (send, receive) = mpsc::channel();
        let control = std::thread::spawn(move || {
            let (port, link) = MemPort::with_queues("core", OURS, 1500, 256);
            let (home, _) = MemPort::with_queues("home", OURS, 1500, 256);
            let setup = |name: &str, port: MemPort| PortSetup {
                name: name.into(),
                tenant: TenantId(0),
                queues: vec![Box::new(port)],
                twin: None,
            };
            let ports = vec![setup("core", port), setup("home", home)];
            let (mut control, mut workers) =
                launch::build(&DataplaneConfig::default(), ports).unwrap();
            let route = RouteEntry::Via { port: PortId(0), gateway: Some(ROUTER) };
            control.routes.install(TenantId(0), Ipv4Addr::UNSPECIFIED, 0, route).unwrap();
            let router = NeighborKey { port: PortId(0), address: ROUTER };
            control.neighbors.install(router, NeighborEntry { mac: ROUTER_MAC }).unwrap();
            let (_reload, reload) = UnixStream::pair().unwrap();
            let (_worker, worker) = UnixStream::pair().unwrap();
            let mut event_loop = EventLoop::new(Parts {
                control,
                config: Arc::new(config),
                seed: [7; 32],
                recorder: None,
                sessions: None,
                mirror: Mirror::new([]).unwrap(),
                resolver: Resolver::new().unwrap(),
                setup: Setup::new().unwrap(),
                claims: ClaimKeeper::default(),
                admin,
                signals: Signals { stop: stopping, reload, worker, begin_reload: Box::new(|| {}) },
            });
            send.send((workers.remove(0), link)).unwrap();
            event_loop.run().unwrap();
        });
        let (mut worker, link) = receive.recv().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stopped);
        let dataplane = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if !worker.run_once(std::time::Instant::now()) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let server = AdminServer::start(sender, &room.path("ha.sock"), None).unwrap();
        let threads = vec![control, dataplane];
        Real { room, link, server: Some(server), stop, stopped, threads }
    }

    fn homeport(&self, words: &[&str]) -> Output {
        let socket: PathBuf = self.room.path("ha.sock");
        homeport(&[&["--socket", socket.to_str().unwrap()], words].concat())
    }

    /// Sends a co-located node's request from an address.
    fn request(
        &self,
        home_address: Ipv4Addr,
        (source, care_of_address): (Ipv4Addr, Ipv4Addr),
        seconds_ahead: i64,
        extensions: &[Extension<'_>],
        association: &MobilitySecurityAssociation,
    ) {
        let now = clock::now().ntp.0.wrapping_add_signed(seconds_ahead << 32);
        let mut writer = MessageWriter::request(&RegistrationRequest {
            flags: RequestFlags::CO_LOCATED.with(RequestFlags::REVERSE_TUNNEL),
            lifetime: Lifetime(300),
            home_address,
            home_agent: AGENT,
            care_of_address,
            identification: Identification(now),
        });
        for extension in extensions {
            writer.extension(extension).unwrap();
        }
        writer.authenticate(AuthenticationKind::MobileHome, association);
        self.send((source, 40_000), &writer.finish());
    }

    fn send(&self, (source, source_port): (Ipv4Addr, u16), message: &[u8]) {
        let udp = UdpHeader::new((source, source_port), (AGENT, 434), message).unwrap();
        let payload = [udp.as_bytes(), message].concat();
        let ethernet = EthernetHeader::new(OURS, ROUTER_MAC, EtherType::IPV4);
        let len = u16::try_from(Ipv4Header::LEN + payload.len()).unwrap();
        let mut ip = Ipv4Header::new(source, AGENT, IpProtocol::UDP, 64, len);
        ip.fill_checksum();
        assert!(self.link.push(&[ethernet.as_bytes(), ip.as_bytes(), &payload].concat()));
    }

    /// The story of a node, once something has been heard of it.
    fn story(&self, node: Ipv4Addr) -> ExplanationView {
        let node = node.to_string();
        for _ in 0..1_000 {
            let output = self.homeport(&["--json", "explain", &node]);
            let view: ExplanationView = serde_json::from_slice(&output.stdout).unwrap();
            if !view.is_silent() {
                assert_eq!(code(&output), 0);
                return view;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("nothing was heard of {node}");
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        drop(self.server.take());
        let _ = std::io::Write::write_all(&mut self.stop, b"X");
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Who is refused for what: each has a cause and a remedy of its own, in plain words.
#[test]
fn each_refused_node_is_told_its_own_cause_and_what_to_do() {
    let real = Real::start();
    let here = (ELSEWHERE, ELSEWHERE);
    let udp = [Extension::UdpTunnelRequest(UdpTunnelRequest::default())];
    real.request(node(10), here, 0, &[], &right());
    let story = real.story(node(10));
    assert_eq!(story.registrations[0].cause, "accepted");
    assert_eq!(story.bindings.len(), 1);
    let shown = out(&real.homeport(&["explain", "10.1.0.10"]));
    assert!(
        shown.starts_with("10.1.0.10 is registered: at 10.4.0.77, by itself, with \"ha\""),
        "{shown}"
    );

    real.request(node(11), here, 0, &[], &association(256, b"another key, not"));
    real.request(node(12), here, 0, &[], &association(300, b"a key of sixteen"));
    real.request(node(13), here, 60, &[], &right());
    real.request(node(99), here, 0, &[], &right());
    real.request(node(14), (NAT, PRIVATE), 0, &udp, &right());
    real.request(node(15), here, 0, &[], &right());
    let cases: [(u8, &str, &[&str]); 6] = [
        (
            11,
            "wrong-key",
            &["do not have the same key", "key_file", "SPI 256, which is hmac-md5 here"],
        ),
        (
            12,
            "unknown-spi",
            &["not under the SPI that it used", "SPI 300; \"ha\" knows it by SPI 256"],
        ),
        (13, "clock-off", &["clock is 60 s ahead of the home agent's", "tolerance", "Code 133"]),
        (99, "unknown-node", &["no security association", "mobile_node = \"10.1.0.99\""]),
        (
            14,
            "nat-not-traversed",
            &["there is a NAT between", "203.0.113.7", "nat_traversal = \"rfc3519\"", "Code 129"],
        ),
        (15, "table-full", &["as many bindings as it may hold", "max_bindings", "Code 130"]),
    ];
    let (mut sentences, mut remedies) = (BTreeSet::new(), BTreeSet::new());
    for (last, cause, words) in cases {
        let story = real.story(node(last));
        let [only] = story.registrations.as_slice() else { panic!("{story:?}") };
        assert_eq!((only.cause.as_str(), only.accepted), (cause, false));
        assert!(sentences.insert(only.sentence.clone()));
        assert!(remedies.insert(only.remedy.clone().unwrap()));
        let output = real.homeport(&["explain", &node(last).to_string()]);
        assert_eq!((code(&output), err(&output).as_str()), (0, ""));
        let shown = out(&output);
        println!("{shown}");
        let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(flat.contains(word), "{word} in {shown}");
        }
        // Nothing that only a program can read.
        assert!(!shown.contains("0x") && !shown.contains("Some("), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    }

    // It comes again and again: one entry, and its story ends well.
    for _ in 0..3 {
        real.request(node(11), here, 0, &[], &association(256, b"another key, not"));
    }
    let times = || real.story(node(11)).registrations[0].times;
    for _ in 0..1_000 {
        if times() == 4 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(times(), 4);
    let counters = out(&real.homeport(&["show", "counters"]));
    assert!(counters.contains("decisions_recorded"), "{counters}");
}

/// A foreign agent takes its visitor away: who asks at the home agent is told so, by whom
/// and what became of it. (B-11)
#[test]
fn a_revoked_node_is_told_as_revoked() {
    let real = Real::start();
    let shared = association(300, &std::array::from_fn::<u8, 16, _>(|at| at as u8));
    let now = clock::now().ntp.0;
    let seconds = Identification(now).high();
    let mut writer = MessageWriter::request(&RegistrationRequest {
        flags: RequestFlags::default(),
        lifetime: Lifetime(300),
        home_address: node(10),
        home_agent: AGENT,
        care_of_address: FOREIGN,
        identification: Identification(now),
    });
    writer.authenticate(AuthenticationKind::MobileHome, &right());
    let support = RevocationSupport { inform: true, timestamp: seconds };
    writer.extension(&Extension::RevocationSupport(support)).unwrap();
    writer.authenticate(AuthenticationKind::ForeignHome, &shared);
    real.send((FOREIGN, 434), &writer.finish());
    assert_eq!(real.story(node(10)).registrations[0].cause, "accepted");

    let mut writer = MessageWriter::revocation(&RegistrationRevocation {
        from_home_agent: false,
        inform: false,
        home_address: node(10),
        home_agent: AGENT,
        care_of_address: FOREIGN,
        identifier: seconds + 2,
    });
    writer.authenticate(AuthenticationKind::ForeignHome, &shared);
    real.send((FOREIGN, 434), &writer.finish());
    for _ in 0..1_000 {
        if real.story(node(10)).bindings.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let story = real.story(node(10));
    let causes: Vec<&str> = story.registrations.iter().map(|one| one.cause.as_str()).collect();
    assert_eq!(causes, ["revoked", "accepted"]);
    assert_eq!(story.registrations[0].foreign_agent, Some(FOREIGN));
    let shown = out(&real.homeport(&["explain", "10.1.0.10"]));
    println!("{shown}");
    let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "10.1.0.10 is not registered here now.",
        "revoked The registration was revoked by the agent at its other end.",
        "from 10.0.2.2 port 434 on \"core\", which is its foreign agent",
        "to end the registration at 10.0.2.2, by the home agent 10.0.1.2",
        "by the agents with SPI 300",
        "reply It was acknowledged.",
        "on the box of 10.0.2.2",
    ] {
        assert!(flat.contains(words), "{words} in {shown}");
    }
}

#[test]
fn a_node_that_nothing_was_heard_of_is_told_where_to_look() {
    let real = Real::start();
    let output = real.homeport(&["explain", "10.1.0.77"]);
    let shown = out(&output);
    println!("{shown}");
    assert_eq!(code(&output), 1, "{shown}");
    for word in ["Nothing has been heard", "`homeport show ports`", "punt-queue-full", "434"] {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    assert!(shown.contains("No agent here shares a key with it."), "{shown}");
    let known = out(&real.homeport(&["explain", "10.1.0.10"]));
    assert!(
        known.contains(
            "The home agent \"ha\" (10.0.1.2) knows it by SPI 256 (hmac-md5, clocks within 7 s)."
        ),
        "{known}"
    );

    let output = real.homeport(&["explain", "10.1.0.10", "--home-agent", "b\u{1b}[2J&x=1"]);
    assert_eq!(code(&output), 1);
    let told = err(&output);
    assert!(told.contains("There is no agent \"b\\u{1b}[2J&x=1\" here."), "{told}");
    assert!(told.contains("The agents here are: ha."), "{told}");
    let output = real.homeport(&["explain", "10.1.0.10", "--tenant", "7", "--home-agent", "ha"]);
    assert_eq!(code(&output), 1, "another tenant's");
    assert_eq!(code(&real.homeport(&["explain", "nowhere"])), 2);
}
