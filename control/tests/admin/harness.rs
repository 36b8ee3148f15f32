//! A daemon that answers with real types, and the real command.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;

use homeport_control::admin::api::*;
use homeport_control::admin::client::Client;
use homeport_control::admin::server::AdminServer;
use homeport_control::clock;
use homeport_control::config::Config;
use homeport_control::event_loop::trace::Traces;
use homeport_dataplane::launch::{self, Control, DataplaneConfig, InjectSender, PortSetup};
use homeport_dataplane::port::Port;
use homeport_dataplane::port::mem::{MemLink, MemPort};
use homeport_dataplane::table::binding::Encapsulation::IpInIp;
use homeport_dataplane::table::binding::{
    BindingEntry, BindingKey, EntryFlags, TunnelEnd, TunnelFlags,
};
use homeport_dataplane::table::hash::Writer;
use homeport_dataplane::table::lpm::RouteWriter;
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_dataplane::verdict::DropReason;
use homeport_dataplane::worker::Worker;
use homeport_dataplane::{MacAddress, PortId, TenantId};
use homeport_proto::event::DiscardReason;

/// `clear` knows this address only.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);

pub(crate) const CONFIG: &str = r#"[daemon]
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
pub(crate) struct Room(pub(crate) PathBuf);

impl Room {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("homeport-admin-{}-{number}", std::process::id());
        let room = Room(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&room.0).unwrap();
        room.write("mn.key", "000102030405060708090a0b0c0d0e0f", 0o600);
        room.config(|text| text);
        room
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) {
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Writes `ha.toml`: the good one, changed.
    pub(crate) fn config(&self, change: impl FnOnce(String) -> String) -> PathBuf {
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
pub(crate) struct Daemon {
    pub(crate) room: Room,
    server: Option<AdminServer>,
    event_loop: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// The link of the dataplane's first port.
    pub(crate) core: MemLink,
}

/// A dataplane with two ports in memory, and the control core's way to trace it.
pub(crate) struct Dataplane {
    traces: Traces,
    injects: InjectSender,
    worker: Worker,
    /// What the tables are written with.
    _tables: (Writer<BindingKey, BindingEntry>, RouteWriter, Writer<NeighborKey, NeighborEntry>),
}

/// The MAC of the dataplane's first port.
pub(crate) const CORE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

impl Dataplane {
    /// A home agent that has [`NODE`] bound to 10.0.2.2, and a router on its first link.
    pub(crate) fn new() -> (Self, MemLink) {
        let mut links = Vec::new();
        let setups = [("core", CORE), ("home", MacAddress([2, 0, 0, 0, 0, 2]))]
            .map(|(name, mac)| {
                let (port, link) = MemPort::with_queues(name, mac, 1500, 4096);
                links.push(link);
                let queues: Vec<Box<dyn Port>> = vec![Box::new(port)];
                PortSetup { name: name.into(), tenant: TenantId(0), queues, twin: None }
            })
            .into();
        let sizes = DataplaneConfig {
            bindings: 64,
            visitors: 64,
            routes: 64,
            neighbors: 64,
            buffers: 1024,
            ..DataplaneConfig::default()
        };
        let (mut control, mut workers) = launch::build(&sizes, setups).unwrap();
        let (router, agent) = (Ipv4Addr::new(10, 0, 1, 1), Ipv4Addr::new(10, 0, 1, 2));
        let route = RouteEntry::Via { port: PortId(0), gateway: Some(router) };
        control.routes.install(TenantId(0), Ipv4Addr::UNSPECIFIED, 0, route).unwrap();
        let key = NeighborKey { port: PortId(0), address: router };
        let mac = MacAddress([2, 0, 0, 0, 0, 9]);
        control.neighbors.install(key, NeighborEntry { mac }).unwrap();
        let end = TunnelEnd::new(Ipv4Addr::new(10, 0, 2, 2), IpInIp, TunnelFlags::REVERSE);
        let entry = BindingEntry::new(agent, [end], None, EntryFlags::default()).unwrap();
        let key = BindingKey { tenant: TenantId(0), home_address: NODE };
        control.bindings.install(key, entry).unwrap();
        let Control { bindings, routes, neighbors, injects, ports, traces, .. } = control;
        let dataplane = Dataplane {
            traces: Traces::new(traces, ports),
            injects,
            worker: workers.remove(0),
            _tables: (bindings, routes, neighbors),
        };
        (dataplane, links.remove(0))
    }

    /// Lets the worker do what is waiting, and traces end that nobody asks for.
    fn turn(&mut self) {
        while self.worker.run_once(std::time::Instant::now()) {}
        self.traces.handle_timeout(clock::now().monotonic);
    }
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Daemon::with_loop(true)
    }

    /// With `answers` false, the loop takes calls and keeps them.
    pub(crate) fn with_loop(answers: bool) -> Self {
        let room = Room::new();
        let config =
            Config::load(&room.path("ha.toml")).unwrap_or_else(|errors| panic!("{errors}"));
        let (sender, handle) = channel().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let (dataplane, core) = Dataplane::new();
        let event_loop = std::thread::spawn(move || {
            event_loop(&handle, Arc::new(config), dataplane, answers, &stopping);
        });
        let metrics = Some("127.0.0.1:0".parse().unwrap());
        let server = AdminServer::start(sender, &room.path("ha.sock"), metrics).unwrap();
        Daemon { room, server: Some(server), event_loop: Some(event_loop), stop, core }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.room.path("ha.sock")
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.socket())
    }

    pub(crate) fn metrics(&self) -> SocketAddr {
        self.server.as_ref().unwrap().metrics_address().unwrap()
    }

    pub(crate) fn homeport(&self, words: &[&str]) -> Output {
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

pub(crate) fn event_loop(
    handle: &AdminHandle,
    mut config: Arc<Config>,
    mut dataplane: Dataplane,
    answers: bool,
    stop: &AtomicBool,
) {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut kept = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let mut fds = [PollFd::from_borrowed_fd(handle.readiness(), PollFlags::IN)];
        poll(&mut fds, Some(&wait)).unwrap();
        dataplane.turn();
        while let Some(call) = handle.try_next() {
            if answers {
                let outcome = match call.query().clone() {
                    Query::Trace(query) => {
                        let Dataplane { traces, injects, .. } = &mut dataplane;
                        traces.answer(query, injects, clock::now().monotonic)
                    }
                    query => answer(&query, &mut config),
                };
                call.answer(outcome);
            } else {
                kept.push(call);
            }
        }
    }
}

pub(crate) fn answer(query: &Query, config: &mut Arc<Config>) -> Outcome {
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
        Query::Sessions(_) => Answer::Sessions(SessionsView { sessions: vec![session()], more: 3 }),
        Query::Pools => Answer::Pools { pools: vec![pool()] },
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
                peer: Some(NODE),
                nai: Some("phone@train.example".into()),
                spi: 256,
                algorithm: "hmac-md5".into(),
                replay: "timestamps".into(),
                tolerance_seconds: Some(7),
            }],
        },
        Query::MobileNode
        | Query::AddSession(_)
        | Query::RemoveSession(_)
        | Query::RemoveAllSessions => {
            return Err(Refusal::not_found("This is no mobile node.", "Ask its own socket."));
        }
        Query::Explain(_) => {
            return Err(Refusal::not_found("Nothing is remembered here.", "Ask a real daemon."));
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
        Query::ClearVisitor { tenant, home_address } if *home_address == NODE => {
            let visitors = 1;
            Answer::VisitorsCleared(VisitorsCleared {
                tenant: tenant.0,
                home_address: NODE,
                visitors,
            })
        }
        Query::ClearVisitor { home_address, .. } => {
            let hint = "See `homeport show visitors`.";
            return Err(Refusal::not_found(format!("{home_address} is no visitor."), hint));
        }
        Query::ClearBinding { home_address, .. } => {
            let hint = "See `homeport show bindings`.";
            return Err(Refusal::not_found(format!("{home_address} has no binding."), hint));
        }
        Query::Trace(_) => unreachable!("the dataplane answers it"),
    })
}

pub(crate) fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        pid: 7,
        uptime_seconds: 192,
        config_file: "/etc/homeport/ha.toml".into(),
        config_generation: 1,
        poll: "adaptive".into(),
        workers: 1,
        held_back_entries: 0,
        held_back_seconds: 0,
        ports: 2,
        ports_up: 2,
        bindings: 1,
        subscribers: 1,
        visitors: 1,
        agents: vec![AgentView {
            name: "ha".into(),
            role: Role::HomeAgent,
            tenant: 0,
            address: Ipv4Addr::new(10, 0, 1, 2),
            registrations: 1,
            limit: 1000,
            sessions: Some(SessionCounts { bound: 1, home: 2, sticky: 3, held_down: 4 }),
        }],
        totals: Totals { rx: 15, tx: 5, punted: 4, to_kernel: 3, dropped: 2, held: 1 },
    }
}

pub(crate) fn port() -> PortView {
    PortView {
        name: "core".into(),
        backend: "af_packet".into(),
        mode: None,
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
        cores: (0..2)
            .map(|core| CoreView {
                core,
                rx: 5,
                tx: 2,
                punted: 2,
                dropped: 1,
                handed_over: 3,
                taken_over: 3,
            })
            .collect(),
    }
}

pub(crate) fn binding() -> BindingView {
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
        nai: Some("phone@train.example".into()),
        session: Some("laptop".into()),
        age_seconds: 100,
    }
}

pub(crate) fn session() -> SessionView {
    SessionView {
        tenant: 0,
        agent: "ha".into(),
        home_agent: Ipv4Addr::new(10, 0, 1, 2),
        nai: "phone@train.example".into(),
        nai_hex: None,
        session: "a\\xff".into(),
        session_hex: Some("61ff".into()),
        home_address: NODE,
        state: SessionStateView::Bound,
        care_of_address: Some(Ipv4Addr::new(10, 0, 2, 2)),
        encapsulation: Some(Encapsulation::IpInIp),
        remaining_seconds: Some(500),
        until_seconds: None,
    }
}

pub(crate) fn pool() -> PoolView {
    PoolView {
        tenant: 0,
        agent: "ha".into(),
        home_agent: Ipv4Addr::new(10, 0, 1, 2),
        name: "train".into(),
        realm: Some("train.example".into()),
        size: 100,
        bound: 1,
        home: 2,
        sticky: 3,
        held_down: 4,
        free: 90,
        use_percent: 10,
        exhausted: 6,
        exhausted_of_tenant: 5,
    }
}

pub(crate) fn visitor() -> VisitorView {
    VisitorView {
        tenant: 0,
        home_address: NODE,
        home_agent: Ipv4Addr::new(10, 0, 1, 2),
        nai: Some("phone@train.example".into()),
        session: Some("laptop".into()),
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

pub(crate) fn homeport(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_homeport"))
        .args(words)
        .env_remove("HOMEPORT_SOCKET")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
