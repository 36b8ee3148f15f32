//! The admin API and the `homeport` command as an operator meets them: a real
//! server on a real socket, the real binary, and a thread in the place of the
//! event loop that answers with real types. (B-08)
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use homeport_control::admin::api::*;
use homeport_control::admin::client::{Client, ClientError};
use homeport_control::admin::server::AdminServer;
use homeport_control::config::Config;
use homeport_dataplane::verdict::DropReason;
use homeport_proto::event::DiscardReason;
use serde_json::Value;

/// `clear` knows this address only.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);

const CONFIG: &str = r#"[daemon]
admin_socket = "SOCKET"

[[port]]
name = "core"
backend = "af_packet"
interface = "eth0"
addresses = ["10.0.1.2/24"]

[[port]]
name = "home"
backend = "af_packet"
interface = "eth1"
addresses = ["10.1.0.1/24"]

[[home_agent]]
name = "ha"
address = "10.0.1.2"
max_lifetime = "600s"
[[home_agent.home_network]]
prefix = "10.1.0.0/24"
port = "home"
[[home_agent.security_association]]
mobile_node = "10.1.0.10"
spi = 256
key_file = "mn.key"
"#;

/// A directory of its own, gone when dropped.
struct Room(PathBuf);

impl Room {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("homeport-admin-{}-{number}", std::process::id());
        let room = Room(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&room.0).unwrap();
        room.write("mn.key", "000102030405060708090a0b0c0d0e0f", 0o600);
        room.config(|text| text);
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Writes `ha.toml`: the good one, changed.
    fn config(&self, change: impl FnOnce(String) -> String) -> PathBuf {
        let socket = self.path("ha.sock").display().to_string();
        self.write("ha.toml", &change(CONFIG.replace("SOCKET", &socket)), 0o644);
        self.path("ha.toml")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server with a thread behind it that plays the event loop.
struct Daemon {
    room: Room,
    server: Option<AdminServer>,
    event_loop: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Daemon {
    fn start() -> Self {
        Daemon::with_loop(true)
    }

    /// With `answers` false, the loop takes calls and keeps them.
    fn with_loop(answers: bool) -> Self {
        let room = Room::new();
        let config =
            Config::load(&room.path("ha.toml")).unwrap_or_else(|errors| panic!("{errors}"));
        let (sender, handle) = channel().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let event_loop =
            std::thread::spawn(move || event_loop(&handle, Arc::new(config), answers, &stopping));
        let metrics = Some("127.0.0.1:0".parse().unwrap());
        let server = AdminServer::start(sender, &room.path("ha.sock"), metrics).unwrap();
        Daemon { room, server: Some(server), event_loop: Some(event_loop), stop }
    }

    fn socket(&self) -> PathBuf {
        self.room.path("ha.sock")
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }

    fn metrics(&self) -> SocketAddr {
        self.server.as_ref().unwrap().metrics_address().unwrap()
    }

    fn homeport(&self, words: &[&str]) -> Output {
        homeport(&[&["--socket", self.socket().to_str().unwrap()], words].concat())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.server.take());
        self.stop.store(true, Ordering::Relaxed);
        self.event_loop.take().unwrap().join().unwrap();
    }
}

fn event_loop(handle: &AdminHandle, mut config: Arc<Config>, answers: bool, stop: &AtomicBool) {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut kept = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let mut fds = [PollFd::from_borrowed_fd(handle.readiness(), PollFlags::IN)];
        poll(&mut fds, Some(&wait)).unwrap();
        while let Some(call) = handle.try_next() {
            if answers {
                let outcome = answer(call.query(), &mut config);
                call.answer(outcome);
            } else {
                kept.push(call);
            }
        }
    }
}

fn answer(query: &Query, config: &mut Arc<Config>) -> Outcome {
    let drop = |plane, port: Option<&str>, tenant, reason: &str, text: &str, count| DropView {
        plane,
        port: port.map(Into::into),
        tenant,
        reason: reason.into(),
        text: text.into(),
        count,
    };
    Ok(match query {
        Query::Status => Answer::Status(status()),
        Query::Ports => Answer::Ports { ports: vec![port()] },
        Query::Bindings => Answer::Bindings { bindings: vec![binding()] },
        Query::Visitors => Answer::Visitors { visitors: vec![visitor()] },
        Query::Tunnels => Answer::Tunnels {
            tunnels: vec![TunnelView {
                tenant: 0,
                role: Role::HomeAgent,
                local: Ipv4Addr::new(10, 0, 1, 2),
                remote: Ipv4Addr::new(10, 0, 2, 2),
                encapsulation: Encapsulation::IpInIp,
                udp_port: None,
                gre_key: None,
                nodes: 1,
                reverse: 1,
            }],
        },
        Query::Routes => Answer::Routes {
            routes: vec![RouteView {
                destination: "0.0.0.0/0".into(),
                port: Some("core".into()),
                gateway: Some(Ipv4Addr::new(10, 0, 1, 1)),
                mobile_router: None,
                unreachable: false,
            }],
        },
        Query::Neighbors => Answer::Neighbors {
            neighbors: vec![NeighborView {
                port: "core".into(),
                address: Ipv4Addr::new(10, 0, 1, 1),
                mac: "02:00:00:00:00:09".into(),
            }],
        },
        Query::Napt => Answer::Napt {
            napt: vec![NaptView {
                name: "internet".into(),
                inside: vec!["home".into()],
                outside: "core".into(),
                addresses: vec![Ipv4Addr::new(10, 0, 1, 2)],
                port_range: "16384-32767".into(),
                mapping: "endpoint-independent".into(),
                filtering: "address-dependent".into(),
                max_sessions: 65_536,
                counters: BTreeMap::from([("sessions".into(), 5), ("host-limit".into(), 2)]),
                blocks: vec![NaptBlockView {
                    tenant: 0,
                    inside: NODE,
                    mac: Some("02:00:00:00:00:0a".into()),
                    external: Ipv4Addr::new(10, 0, 1, 2),
                    first_port: 16_384,
                    last_port: 16_511,
                    age_seconds: 60,
                }],
            }],
        },
        Query::Drops => {
            let dropped = DropReason::ALL.iter().map(|reason| {
                let count = u64::from(*reason == DropReason::NoRoute) * 7;
                drop(Plane::Dataplane, Some("core"), None, reason.counter(), reason.text(), count)
            });
            let discarded = DiscardReason::ALL.iter().map(|reason| {
                drop(Plane::Control, None, Some(0), reason.counter(), reason.text(), 0)
            });
            Answer::Drops { drops: dropped.chain(discarded).collect() }
        }
        Query::Counters => Answer::Counters {
            counters: vec![CounterView {
                name: "registration_replies_sent".into(),
                tenant: Some(0),
                code: Some(133),
                value: 3,
                text: "Replies sent, by code.".into(),
                ..CounterView::default()
            }],
        },
        Query::SecurityAssociations => Answer::SecurityAssociations {
            security_associations: vec![SecurityAssociationView {
                tenant: 0,
                agent: "ha".into(),
                peer_role: Role::MobileNode,
                peer: NODE,
                spi: 256,
                algorithm: "hmac-md5".into(),
                replay: "timestamps".into(),
                tolerance_seconds: Some(7),
            }],
        },
        Query::MobileNode => {
            return Err(Refusal::not_found("This is no mobile node.", "Ask its own socket."));
        }
        Query::ConfigShow => Answer::Config(Arc::clone(config)),
        Query::ConfigApply(new) => {
            let diff = config.live_diff(new)?;
            *config = Arc::clone(new);
            Answer::ConfigApplied(diff)
        }
        Query::ClearBinding { tenant, home_address } if *home_address == NODE => {
            Answer::Cleared(Cleared { tenant: tenant.0, home_address: NODE, care_of_addresses: 1 })
        }
        Query::ClearBinding { home_address, .. } => {
            let hint = "See `homeport show bindings`.";
            return Err(Refusal::not_found(format!("{home_address} has no binding."), hint));
        }
    })
}

fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        pid: 7,
        uptime_seconds: 192,
        config_file: "/etc/homeport/ha.toml".into(),
        config_generation: 1,
        poll: "adaptive".into(),
        workers: 1,
        ports: 2,
        ports_up: 2,
        bindings: 1,
        visitors: 1,
        agents: vec![AgentView {
            name: "ha".into(),
            role: Role::HomeAgent,
            tenant: 0,
            address: Ipv4Addr::new(10, 0, 1, 2),
            registrations: 1,
            limit: 1000,
        }],
        totals: Totals { rx: 15, tx: 5, punted: 4, to_kernel: 3, dropped: 2, held: 1 },
    }
}

fn port() -> PortView {
    PortView {
        name: "core".into(),
        backend: "af_packet".into(),
        // A name that would clear the screen.
        device: "eth0\u{1b}[2J".into(),
        mac: "02:00:00:00:00:01".into(),
        mtu: 1500,
        up: true,
        kernel_twin: Some("hp-core".into()),
        addresses: vec!["10.0.1.2/24".into()],
        rx: 10,
        rx_bytes: 1000,
        tx: 5,
        tx_bytes: 500,
        from_kernel: 3,
        to_kernel: 3,
        injected: 1,
        originated: 1,
        punted: 4,
        dropped: 2,
        held: 1,
        encapsulated: 2,
        decapsulated: 2,
        keepalives: 3,
        reserved_bits: 4,
        device_counters: BTreeMap::from([("kernel-drops".into(), 9)]),
    }
}

fn binding() -> BindingView {
    BindingView {
        tenant: 0,
        home_address: NODE,
        home_agent: Ipv4Addr::new(10, 0, 1, 2),
        care_of_addresses: vec![CareOfView {
            address: Ipv4Addr::new(10, 0, 2, 2),
            registered: Ipv4Addr::new(10, 0, 2, 2),
            encapsulation: Encapsulation::IpInIp,
            udp_port: None,
            half_bound: false,
            unproven: false,
            keepalive_seconds: None,
            gre_key: None,
            reverse_tunnel: true,
            co_located: false,
            broadcast: false,
            lifetime_seconds: Some(600),
            remaining_seconds: Some(500),
        }],
        home_link: Some("home".into()),
        mobile_networks: vec!["10.9.0.0/24".into()],
        age_seconds: 100,
    }
}

fn visitor() -> VisitorView {
    VisitorView {
        tenant: 0,
        home_address: NODE,
        home_agent: Ipv4Addr::new(10, 0, 1, 2),
        care_of_address: Ipv4Addr::new(10, 0, 2, 2),
        mac: "02:00:00:00:00:10".into(),
        port: "visited".into(),
        state: VisitorState::Registered,
        encapsulation: Encapsulation::IpInIp,
        keepalive_seconds: None,
        gre_key: None,
        reverse_tunnel: ReverseTunnel::Direct,
        lifetime_seconds: None,
        remaining_seconds: None,
        age_seconds: 100,
    }
}

fn homeport(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_homeport"))
        .args(words)
        .env_remove("HOMEPORT_SOCKET")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const NOUNS: [&str; 11] = [
    "status",
    "ports",
    "bindings",
    "visitors",
    "tunnels",
    "routes",
    "neighbors",
    "napt",
    "drops",
    "counters",
    "security-associations",
];

#[test]
fn each_noun_is_shown_for_people_and_as_the_json_that_the_api_answers() {
    let daemon = Daemon::start();
    for noun in NOUNS {
        let answer = daemon.client().get(&format!("/v1/{noun}")).unwrap();
        let json = daemon.homeport(&["--json", "show", noun]);
        assert_eq!(code(&json), 0, "{}", err(&json));
        assert_eq!(serde_json::from_str::<Value>(&out(&json)).unwrap(), answer);
        let people = daemon.homeport(&["show", noun]);
        assert_eq!(code(&people), 0, "{}", err(&people));
        assert!(!out(&people).contains('\u{1b}'), "{noun} speaks to the terminal");
        assert!(out(&people).lines().count() >= 2, "{noun}: {}", out(&people));
    }
    assert!(out(&daemon.homeport(&["show", "ports"])).contains("eth0\\u{1b}[2J"));
    let drops = out(&daemon.homeport(&["show", "drops"]));
    assert!(drops.contains(DropReason::NoRoute.text()), "{drops}");
    assert_eq!(drops.lines().count(), 2, "{drops}");
    let all = out(&daemon.homeport(&["show", "drops", "--all"]));
    assert_eq!(all.lines().count(), 1 + DropReason::COUNT + DiscardReason::COUNT, "{all}");
}

#[test]
fn the_keys_of_the_json_are_stable() {
    fn keys(value: &Value, path: &str, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let dot = if path.is_empty() { "" } else { "." };
                    keys(value, &format!("{path}{dot}{key}"), into);
                }
            }
            Value::Array(items) => {
                assert!(!items.is_empty(), "{path} is empty: its keys are not seen");
                items.iter().for_each(|item| keys(item, path, into));
            }
            _ => {
                into.insert(path.to_owned());
            }
        }
    }
    let daemon = Daemon::start();
    let mut seen = String::new();
    for noun in NOUNS {
        let mut paths = BTreeSet::new();
        keys(&daemon.client().get(&format!("/v1/{noun}")).unwrap(), "", &mut paths);
        seen.push_str(&format!("{noun}:\n"));
        paths.iter().for_each(|path| seen.push_str(&format!("  {path}\n")));
    }
    let kept = include_str!("admin_keys.txt");
    assert_eq!(seen, kept, "keys may be added to tests/admin_keys.txt, never renamed or removed");
}

#[test]
fn the_exit_code_tells_refused_from_misused_from_unreachable() {
    let daemon = Daemon::start();
    assert_eq!(code(&daemon.homeport(&["clear", "binding", "10.1.0.10"])), 0);
    let refused = daemon.homeport(&["clear", "binding", "10.1.0.11", "--tenant", "3"]);
    assert_eq!(code(&refused), 1);
    assert_eq!(
        err(&refused),
        "homeport: 10.1.0.11 has no binding.\n  help: See `homeport show bindings`.\n"
    );
    for misused in [&["show"][..], &["show", "nothing"], &["clear", "binding", "x"], &[]] {
        assert_eq!(code(&daemon.homeport(misused)), 2, "{misused:?}");
    }
    let socket = daemon.room.path("none.sock");
    let unreachable = homeport(&["--socket", socket.to_str().unwrap(), "show", "status"]);
    assert_eq!(code(&unreachable), 3);
    let said = err(&unreachable);
    assert!(said.contains(&format!("no daemon answers on {}", socket.display())), "{said}");
    assert!(said.contains("start homeportd, or name its daemon.admin_socket"), "{said}");
    assert_eq!(out(&unreachable), "");
    let help = out(&daemon.homeport(&["--help"]));
    assert!(help.contains("3  no daemon answers on the socket"), "{help}");
}

#[test]
fn a_refusal_is_json_with_error_and_hint_and_the_right_status() {
    let daemon = Daemon::start();
    let refused = |method: &str, path: &str, body: &str| {
        let text = raw(&daemon.socket(), method, path, body);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let refusal: Refusal = serde_json::from_str(body).unwrap();
        assert!(!refusal.error.is_empty() && !refusal.hint.is_empty());
        (status, refusal.kind)
    };
    assert_eq!(refused("GET", "/v1/nothing", ""), (404, RefusalKind::NotFound));
    assert_eq!(refused("GET", "/v2/status", ""), (404, RefusalKind::NotFound));
    assert_eq!(refused("GET", "/v1/mobile-node", ""), (404, RefusalKind::NotFound));
    assert_eq!(refused("POST", "/v1/status", ""), (405, RefusalKind::BadRequest));
    assert_eq!(refused("DELETE", "/v1/bindings/home", ""), (400, RefusalKind::BadRequest));
    assert_eq!(refused("DELETE", "/v1/bindings/10.1.0.10?x=1", ""), (400, RefusalKind::BadRequest));
    assert_eq!(refused("DELETE", "/v1/bindings/10.1.0.11", ""), (404, RefusalKind::NotFound));
    for body in ["", "{", "[]", r#"{"text": ""}"#, r#"{"text": "", "path": "/x", "more": 1}"#] {
        assert_eq!(refused("POST", "/v1/config/apply", body), (400, RefusalKind::BadRequest));
    }
    let bad = r#"{"text": "colour = 1", "path": "/etc/x.toml"}"#;
    assert_eq!(refused("POST", "/v1/config/check", bad), (422, RefusalKind::InvalidConfig));
}

fn raw(socket: &Path, method: &str, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_loop_that_does_not_answer_is_unavailable_after_two_seconds() {
    let daemon = Daemon::with_loop(false);
    let begun = Instant::now();
    let error = daemon.client().get("/v1/status").unwrap_err();
    let waited = begun.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
    match error {
        ClientError::Refused(refusal) => assert_eq!(refusal.kind, RefusalKind::Unavailable),
        other => panic!("{other}"),
    }
    assert!(raw(&daemon.socket(), "GET", "/v1/ports", "").starts_with("HTTP/1.1 503 "));
}

#[test]
fn the_socket_is_private_replaces_a_stale_one_and_goes_with_the_server() {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (sender, _handle) = channel().unwrap();
    let error = AdminServer::start(sender.clone(), &socket, None).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    drop(daemon);

    let room = Room::new();
    // A socket that a killed daemon left: bound once, nobody listens.
    let stale = room.path("deep/er/ha.sock");
    std::fs::create_dir_all(stale.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    let server = AdminServer::start(sender.clone(), &stale, None).unwrap();
    assert!(UnixStream::connect(&stale).is_ok());
    drop(server);
    assert!(!stale.exists());
    // A directory that is not there is made; what is no socket is left alone.
    let made = room.path("made/ha.sock");
    drop(AdminServer::start(sender.clone(), &made, None).unwrap());
    assert!(made.parent().unwrap().is_dir());
    let error = AdminServer::start(sender, &room.path("mn.key"), None).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    assert!(room.path("mn.key").exists());
}

#[test]
fn whoever_is_neither_root_nor_the_daemon_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    let daemon = Daemon::start();
    let program = daemon.room.path("homeport");
    std::fs::copy(env!("CARGO_BIN_EXE_homeport"), &program).unwrap();
    let ask = || {
        Command::new(&program)
            .args(["--socket", daemon.socket().to_str().unwrap(), "show", "status"])
            .uid(65_534)
            .gid(65_534)
            .output()
            .unwrap()
    };
    let kept_out = ask();
    assert_eq!(code(&kept_out), 3);
    assert!(
        err(&kept_out).contains("only root and the daemon's user may ask"),
        "{}",
        err(&kept_out)
    );
    // Even if somebody opens the socket to all, the kernel says who asks.
    std::fs::set_permissions(daemon.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
    let refused = ask();
    assert_eq!((code(&refused), out(&refused)), (1, String::new()));
    assert!(err(&refused).contains("You are neither root nor the daemon's user."));
}

#[test]
fn config_check_needs_no_daemon_and_shows_each_error_where_it_stands() {
    let room = Room::new();
    let check = |file: &Path| homeport(&["config", "check", file.to_str().unwrap()]);
    let good = check(&room.config(|text| text));
    assert_eq!(code(&good), 0, "{}", err(&good));
    assert!(out(&good).contains("no errors. (No daemon answers on"), "{}", out(&good));

    room.write("open.key", "000102030405060708090a0b0c0d0e0f", 0o644);
    let second = "[[home_agent]]\nname = \"two\"\naddress = \"10.1.0.1\"\n\
                  [[home_agent.home_network]]\nprefix = \"10.1.0.0/25\"\n";
    for (from, to, place, said, help) in [
        (
            "max_lifetime",
            "max_lifetme",
            "19:1",
            "unknown key `max_lifetme`",
            "did you mean `max_lifetime`?",
        ),
        (
            "\"600s\"",
            "\"60 minutes\"",
            "19:16",
            "the unit \" minutes\" is not known",
            "write \"60m\"",
        ),
        (
            "[[home_agent.security",
            &format!("{second}[[home_agent.security"),
            "27:10",
            "overlaps 10.1.0.0/24",
            "networks of its own",
        ),
        ("mn.key", "no.key", "26:12", "there is no key file", "make one:"),
        ("mn.key", "open.key", "26:12", "has mode 0644", "run: chmod 600"),
    ] {
        let file = room.config(|text| text.replacen(from, to, 1));
        let refused = check(&file);
        assert_eq!((code(&refused), out(&refused)), (1, String::new()));
        let shown = err(&refused);
        assert!(shown.contains(&format!("ha.toml:{place}]")), "{place}\n{shown}");
        let joined: String = shown.lines().map(|line| format!("{} ", line.trim())).collect();
        assert!(joined.contains(said), "{shown}");
        assert!(joined.contains(help), "{shown}");

        let json = homeport(&["--json", "config", "check", file.to_str().unwrap()]);
        assert_eq!(code(&json), 1);
        let problems: Value = serde_json::from_str(&out(&json)).unwrap();
        let first = &problems["problems"][0];
        let at = format!("{}:{}", first["line"], first["column"]);
        assert_eq!(at, place);
    }
    assert_eq!(code(&check(&room.path("absent.toml"))), 1);
}

#[test]
fn config_check_knows_a_mobile_nodes_file() {
    let room = Room::new();
    let text = "[mobile_node]\ninterface = \"eth0\"\nhome_address = \"10.1.0.10\"\n\
                home_prefix = \"10.1.0.0/24\"\nhome_agent = \"10.0.1.2\"\n\
                [[mobile_node.security_association]]\nhome_agent = \"10.0.1.2\"\nspi = 256\n\
                key_file = \"mn.key\"\n";
    room.write("mn.toml", text, 0o644);
    let file = room.path("mn.toml");
    let good = homeport(&["config", "check", file.to_str().unwrap()]);
    assert_eq!(code(&good), 0, "{}", err(&good));
    let applied = homeport(&["config", "apply", file.to_str().unwrap()]);
    assert_eq!(code(&applied), 1);
    assert!(err(&applied).contains("reads its config at the start only"));
    room.write("mn.toml", &text.replace("256", "25"), 0o644);
    let refused = homeport(&["config", "check", file.to_str().unwrap()]);
    assert_eq!(code(&refused), 1);
    assert!(err(&refused).contains("mn.toml:8:7]"), "{}", err(&refused));
}

#[test]
fn a_file_cannot_speak_to_the_terminal_through_its_errors() {
    let room = Room::new();
    // TOML forbids the character: the excerpt must not show it raw.
    let file = room.config(|text| text.replace("\"ha\"", "\"ha\u{1b}[2J\u{9b}2J\""));
    let refused = homeport(&["config", "check", file.to_str().unwrap()]);
    assert_eq!(code(&refused), 1);
    assert!(!err(&refused).contains(['\u{1b}', '\u{9b}']), "{:?}", err(&refused));
    assert!(err(&refused).contains("\"ha?[2J??2J\""), "{}", err(&refused));
}

#[test]
fn config_apply_swaps_what_can_change_live_and_refuses_the_rest_whole() {
    let daemon = Daemon::start();
    let shown = daemon.homeport(&["config", "show"]);
    assert_eq!(code(&shown), 0, "{}", err(&shown));
    // What is shown is a config file again, with every default; and no key.
    let again: toml::Table = out(&shown).parse().unwrap();
    assert_eq!(again["home_agent"][0]["max_lifetime"].as_str(), Some("10m"));
    assert_eq!(again["home_agent"][0]["max_bindings"].as_integer(), Some(100_000));
    assert!(!out(&shown).contains("0001020304"));
    daemon.room.write("shown.toml", &out(&shown), 0o644);
    let same =
        daemon.homeport(&["config", "check", daemon.room.path("shown.toml").to_str().unwrap()]);
    assert!(out(&same).ends_with("Nothing changes.\n"), "{}{}", out(&same), err(&same));

    let file = daemon.room.config(|text| text.replace("\"600s\"", "\"601s\""));
    let file = file.to_str().unwrap();
    let line = "home_agent[ha].max_lifetime  10m  601s  at once";
    let dry = daemon.homeport(&["config", "check", file]);
    assert_eq!(code(&dry), 0, "{}", err(&dry));
    assert!(out(&dry).contains(line), "{}", out(&dry));
    let applied = daemon.homeport(&["config", "apply", file]);
    assert_eq!(code(&applied), 0, "{}", err(&applied));
    assert!(out(&applied).contains(line), "{}", out(&applied));
    let again = daemon.homeport(&["--json", "config", "apply", file]);
    assert_eq!(
        serde_json::from_str::<Value>(&out(&again)).unwrap(),
        serde_json::json!({"changes": []})
    );

    let file =
        daemon.room.config(|text| text.replace("\"eth1\"", "\"eth2\"").replace("600s", "5h"));
    let file = file.to_str().unwrap();
    let dry = daemon.homeport(&["config", "check", file]);
    assert!(
        out(&dry).contains("port[home].interface         eth1  eth2  after a restart"),
        "{}",
        out(&dry)
    );
    let refused = daemon.homeport(&["config", "apply", file]);
    assert_eq!((code(&refused), out(&refused)), (1, String::new()));
    assert!(err(&refused).contains("Nothing was changed: port[home].interface can only change"));
    let kept = daemon.client().get("/v1/config").unwrap();
    assert_eq!(kept["home_agent"][0]["max_lifetime"], "601s");
    let invalid = daemon.room.config(|text| text.replace("600s", "0s"));
    assert_eq!(code(&daemon.homeport(&["config", "apply", invalid.to_str().unwrap()])), 1);
}

#[test]
fn metrics_are_prometheus_text_with_every_drop_reason() {
    let daemon = Daemon::start();
    let mut stream = TcpStream::connect(daemon.metrics()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    let mut declared = BTreeSet::new();
    for line in body.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ") {
            assert!(declared.insert(name.split(' ').next().unwrap()), "{name} twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            value.parse::<u64>().unwrap();
            assert!(declared.contains(name.split('{').next().unwrap()), "{line}");
        }
    }
    for expected in [
        "homeport_bindings 1",
        "homeport_port_rx_frames_total{port=\"core\"} 10",
        "homeport_dropped_total{port=\"core\",reason=\"no-route\"} 7",
        "homeport_registration_replies_sent_total{tenant=\"0\",code=\"133\"} 3",
        "homeport_agent_registrations{agent=\"ha\",role=\"home_agent\",tenant=\"0\"} 1",
        "homeport_port_device_total{port=\"core\",counter=\"kernel-drops\"} 9",
    ] {
        assert!(body.lines().any(|line| line == expected), "{expected} is not in\n{body}");
    }
    for reason in DropReason::ALL {
        assert!(body.contains(&format!("reason=\"{}\"", reason.counter())));
    }
    // Nothing else is to be had where metrics are.
    let mut stream = TcpStream::connect(daemon.metrics()).unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 404 "), "{text}");
}

#[test]
fn a_reader_that_has_read_enough_is_no_panic() {
    let daemon = Daemon::start();
    for words in [&["config", "schema"][..], &["show", "drops", "--all"], &["--help"], &["man"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_homeport"))
            .args(["--socket", daemon.socket().to_str().unwrap()])
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((code(&output), err(&output).as_str()), (0, ""), "{words:?}");
    }
}

#[test]
fn top_refuses_what_is_no_terminal() {
    let daemon = Daemon::start();
    let refused = daemon.homeport(&["top"]);
    assert_eq!((code(&refused), out(&refused)), (1, String::new()));
    assert!(err(&refused).contains("top draws on a terminal, and this is none"));
}

/// `script` gives the command a terminal of its own, and its input.
#[test]
fn top_draws_what_moves_until_q_and_leaves_the_terminal_as_it_was() {
    let daemon = Daemon::start();
    let program = env!("CARGO_BIN_EXE_homeport");
    let command =
        format!("stty rows 40 cols 140; {program} --socket {} top", daemon.socket().display());
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Two samples, so that rates are drawn too.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(child.try_wait().unwrap(), None, "it ended before q");
    child.stdin.take().unwrap().write_all(b"q").unwrap();
    let output = child.wait_with_output().unwrap();
    let drawn = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{drawn}");
    for expected in ["Ports", "RX/s", "Mobile", "10.1.0.10", "10.0.2.2", "nothing"] {
        assert!(drawn.contains(expected), "{expected} is not in {drawn:?}");
    }
    // The alternate screen was entered, and left.
    let (entered, left) = (drawn.find("\u{1b}[?1049h"), drawn.rfind("\u{1b}[?1049l"));
    assert!(entered.is_some() && entered < left, "{drawn:?}");
}

#[test]
fn completions_man_pages_and_the_schema_are_made() {
    let room = Room::new();
    for (shell, sign) in
        [("bash", "complete -F"), ("zsh", "#compdef homeport"), ("fish", "complete -c homeport")]
    {
        let made = homeport(&["completions", shell]);
        assert_eq!(code(&made), 0);
        assert!(
            out(&made).contains(sign) && out(&made).contains("security-associations"),
            "{shell}"
        );
    }
    let pages = room.path("man");
    assert_eq!(code(&homeport(&["man", pages.to_str().unwrap()])), 0);
    for page in ["homeport.1", "homeport-show-bindings.1", "homeport-config-apply.1"] {
        let text = std::fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
    assert!(out(&homeport(&["man"])).contains("Exit codes"));
    let schema: Value = serde_json::from_str(&out(&homeport(&["config", "schema"]))).unwrap();
    assert_eq!(schema["properties"]["port"]["type"], "array");
}
