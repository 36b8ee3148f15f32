//! The real thing as an operator finds it: requests on a memory port, the real worker,
//! agents and event loop, the real socket and command.

use std::net::{Ipv4Addr, SocketAddr};
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
use homeport_control::session_store::{Line, SessionStore};
use homeport_dataplane::config::{DataplaneConfig, PortSetup};
use homeport_dataplane::launch;
use homeport_dataplane::port::mem::{MemLink, MemPort};
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_proto::message::{
    AuthenticationKind, Extension, Identification, MessageWriter, RegistrationRequest, RequestFlags,
};
use homeport_proto::security::{Algorithm, Key, MobilitySecurityAssociation, Spi};
use homeport_proto::{Lifetime, MacAddress, PortId, TenantId};
use homeport_wire::{EtherType, EthernetHeader, IpProtocol, Ipv4Header, UdpHeader};
use zerocopy::IntoBytes;

use super::harness::{Room, code, homeport};

const OURS: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const ROUTER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
pub(crate) const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
pub(crate) const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 77);

pub(crate) const fn node(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, last)
}

/// A home agent.
pub(crate) struct Real {
    pub(crate) room: Room,
    link: MemLink,
    server: Option<AdminServer>,
    stop: UnixStream,
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

pub(crate) fn association(spi: u32, key: &[u8]) -> MobilitySecurityAssociation {
    MobilitySecurityAssociation {
        spi: Spi(spi),
        algorithm: Algorithm::HmacMd5,
        key: Key::new(key.to_vec()),
        replay: Default::default(),
    }
}

/// The key in the room's file.
pub(crate) fn right() -> MobilitySecurityAssociation {
    association(256, &std::array::from_fn::<u8, 16, _>(|at| at as u8))
}

impl Real {
    /// With the config in the room, and sessions that it had before a restart.
    pub(crate) fn start(room: Room, lines: Option<Vec<Line>>) -> Self {
        let config =
            Config::load(&room.path("ha.toml")).unwrap_or_else(|errors| panic!("{errors}"));
        let sessions =
            lines.map(|lines| (SessionStore::open(&room.path("state")).unwrap().0, lines));
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
                sessions,
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
        let metrics = Some("127.0.0.1:0".parse().unwrap());
        let server = AdminServer::start(sender, &room.path("ha.sock"), metrics).unwrap();
        let threads = vec![control, dataplane];
        Real { room, link, server: Some(server), stop, stopped, threads }
    }

    pub(crate) fn homeport(&self, words: &[&str]) -> Output {
        let socket: PathBuf = self.room.path("ha.sock");
        homeport(&[&["--socket", socket.to_str().unwrap()], words].concat())
    }

    pub(crate) fn metrics(&self) -> SocketAddr {
        self.server.as_ref().unwrap().metrics_address().unwrap()
    }

    /// Sends a co-located node's request from an address.
    pub(crate) fn request(
        &self,
        home_address: Ipv4Addr,
        (source, care_of_address): (Ipv4Addr, Ipv4Addr),
        seconds_ahead: i64,
        extensions: &[Extension<'_>],
        association: &MobilitySecurityAssociation,
    ) {
        let now = clock::now().ntp.0.wrapping_add_signed(seconds_ahead << 32);
        let request = RegistrationRequest {
            flags: RequestFlags::CO_LOCATED.with(RequestFlags::REVERSE_TUNNEL),
            lifetime: Lifetime(300),
            home_address,
            home_agent: AGENT,
            care_of_address,
            identification: Identification(now),
        };
        self.send_request(source, &request, extensions, association);
    }

    pub(crate) fn send_request(
        &self,
        source: Ipv4Addr,
        request: &RegistrationRequest,
        extensions: &[Extension<'_>],
        association: &MobilitySecurityAssociation,
    ) {
        let mut writer = MessageWriter::request(request);
        for extension in extensions {
            writer.extension(extension).unwrap();
        }
        writer.authenticate(AuthenticationKind::MobileHome, association);
        self.send((source, 40_000), &writer.finish());
    }

    pub(crate) fn send(&self, from: (Ipv4Addr, u16), message: &[u8]) {
        self.send_to(AGENT, from, message);
    }

    /// To another address of the box.
    pub(crate) fn send_to(
        &self,
        to: Ipv4Addr,
        (source, source_port): (Ipv4Addr, u16),
        message: &[u8],
    ) {
        let udp = UdpHeader::new((source, source_port), (to, 434), message).unwrap();
        let payload = [udp.as_bytes(), message].concat();
        let ethernet = EthernetHeader::new(OURS, ROUTER_MAC, EtherType::IPV4);
        let len = u16::try_from(Ipv4Header::LEN + payload.len()).unwrap();
        let mut ip = Ipv4Header::new(source, to, IpProtocol::UDP, 64, len);
        ip.fill_checksum();
        assert!(self.link.push(&[ethernet.as_bytes(), ip.as_bytes(), &payload].concat()));
    }

    /// The story of a node, once something has been heard of it.
    pub(crate) fn story(&self, node: Ipv4Addr) -> ExplanationView {
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
