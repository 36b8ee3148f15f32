//! The event loop of homeport-mn: poll(2) over the kernel's link messages, the
//! interface, the tunnel and the admin API.
//!
//! `wait` is what it waits for; `sessions` what it does about sessions: their addresses, the
//! devices on the LAN, and commands; `home_address` what it does when the home agent gives
//! the node its own.
//!
//! Between two waits everything that is known is acted upon, in this order: what
//! became of the link; what was heard on it; replies; packets in the tunnel;
//! timers; people's questions. Nothing else waits, and nothing blocks.

mod home_address;
mod sessions;
mod wait;

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::{Context, Result};
use homeport_dataplane::port::twin::Tun;
use homeport_proto::mobile_node::{
    Attachment, CoLocated, MobileNode, MobileNodeAction, RegistrationPath, SendRegistration,
};
use homeport_proto::{MacAddress, Now};
use homeport_wire::MOBILE_IP_PORT;
use homeport_wire::mip_udp::MobileIpPayload;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::config::Config;
use super::dhcp::{self, Output};
use super::forwarding::Forwarding;
use super::frame::{self, ALL_ROUTERS, Heard, Station};
use super::host::{self, Host};
use super::lan::Lan;
use super::link::{DEFAULT_MTU, Link, LinkState, LinkWatch};
use super::memory::AddressMemory;
use super::report::Report;
use super::sessions::Sessions;
use super::tunnel::{Tunnel, TunnelSockets};
use crate::admin::api::AdminHandle;
use crate::admin::server::AdminServer;
use crate::clock;

/// Larger than any frame, super-frames of the same machine included.
const BUFFER: usize = 1 << 16;

/// Frames and datagrams taken at one go, before the loop looks at other things.
const BURST: usize = 64;

/// A TTL that says: not forwarded (RFC 5944 §2.2, RFC 1256 §5.1).
const LINK_LOCAL_TTL: u8 = 1;

/// TTL of what is sent to a DHCP server.
const DHCP_TTL: u8 = 64;

/// Runs the mobile node until SIGTERM or SIGINT, then leaves the host as it was
/// found. `ready` is called when it does its work.
///
/// # Errors
/// What kept it from starting, or ended it.
pub fn run(config: Config, ready: impl FnOnce()) -> Result<()> {
    let signals = signals().context("listening to signals")?;
    let (sender, admin) = crate::admin::api::channel().context("opening the admin channel")?;
    // It also keeps a second program from starting with the same config.
    let server = AdminServer::start(sender, &config.admin_socket, None)
        .context("opening the admin socket")?;
    let watch = LinkWatch::new(&config.interface)?;
    let tun = Tun::create(&config.tunnel)?;
    host::set_up_tunnel(&config.tunnel)?;
    let seed = clock::seed().context("drawing a random seed")?;
    let mut node = MobileNode::new(config.node.clone(), seed);
    let memory = home_address::memory(&config)?;
    if let Some(before) = memory.as_ref().and_then(AddressMemory::recall) {
        tracing::info!(address = %before, "asking for the home address that the node had");
        node.ask_for_home_address(before);
    }
    let (home, home_agent) = (node.home_address(), config.node.home_agent);
    let state_file = config.admin_socket.with_extension("found");
    let host = Host::open(&config.interface, &config.tunnel, home, &state_file)?;
    let lan = config.lan.clone().map(Lan::new).transpose()?;
    let now = clock::now();
    let mut program = Program {
        node,
        tunnel: Tunnel::new(tun, home, home_agent, config.mss_clamp),
        report: Report::new(now.monotonic),
        config,
        host,
        watch,
        link: None,
        lan,
        sessions: Sessions::default(),
        memory,
        port: 0,
        mtu: 0,
        attachment: Attachment::None,
        registering: None,
        admin,
        signals,
        buffer: vec![0; BUFFER].into_boxed_slice(),
        done: false,
    };
    let result = program.start(ready).and_then(|()| program.serve());
    let restored = program.host.restore().context("leaving the host as it was found");
    drop(server);
    result.and(restored)
}

struct Program {
    config: Config,
    node: MobileNode,
    host: Host,
    watch: LinkWatch,
    link: Option<Link>,
    /// The LAN whose devices are sessions.
    lan: Option<Lan>,
    /// Whose the sessions are.
    sessions: Sessions,
    /// What home address it was given, if that is to be written down.
    memory: Option<AddressMemory>,
    /// The UDP port that requests leave from: chosen once, so that replies to
    /// what an earlier link saw find it too.
    port: u16,
    tunnel: Tunnel,
    /// The tunnel's MTU as the kernel knows it.
    mtu: u16,
    attachment: Attachment,
    /// The co-located address that is asked to be registered.
    registering: Option<CoLocated>,
    report: Report,
    admin: AdminHandle,
    signals: UnixStream,
    buffer: Box<[u8]>,
    done: bool,
}

impl Program {
    fn start(&mut self, ready: impl FnOnce()) -> Result<()> {
        let nowhere = self.forwarding();
        self.host.take_over(&nowhere)?;
        if let Some(state) = self.watch.look()? {
            self.link_state(Some(state), clock::now());
        } else {
            tracing::warn!(interface = self.config.interface, "there is no such interface yet");
        }
        self.open_lan(clock::now().monotonic)?;
        ready();
        Ok(())
    }

    fn serve(&mut self) -> Result<()> {
        loop {
            self.act();
            if self.done {
                return Ok(());
            }
            let ready = self.wait()?;
            let now = clock::now();
            if ready.watch {
                for state in self.watch.changes()? {
                    self.link_state(state, now);
                }
            }
            if ready.lan_link {
                self.lan_link(now.monotonic)?;
            }
            if ready.packets {
                self.hear_frames(now);
            }
            if ready.registration {
                self.hear_datagrams(now);
            }
            if ready.lan
                && let Some(lan) = &mut self.lan
            {
                lan.receive(now.monotonic);
            }
            if ready.command {
                self.end_commands(now);
            }
            // What was heard may have to be acted upon before packets flow again.
            self.act();
            if ready.tun {
                self.tunnel.send_waiting().context("reading the tunnel")?;
            }
            if ready.tunnel {
                self.tunnel.receive_waiting(&self.node, now.monotonic);
            }
            self.tell_activity(now);
            self.timeouts(clock::now());
            if ready.admin {
                self.answer_people();
            }
            if ready.signals && self.signalled(now) {
                return Ok(());
            }
        }
    }

    /// Whether to end at once: at the second signal, or when there is nothing to
    /// wait for.
    fn signalled(&mut self, now: Now) -> bool {
        let mut byte = [0; 8];
        let count = self.signals.read(&mut byte).unwrap_or(0);
        let stopping = self.node.phase() == homeport_proto::mobile_node::Phase::Stopping;
        if stopping || count > 1 {
            return true;
        }
        tracing::info!("stopping");
        self.node.handle_stop(now);
        false
    }
}

/// What happens.
impl Program {
    fn link_state(&mut self, state: Option<LinkState>, now: Now) {
        let old = self.link.as_ref().map(|link| link.state);
        let same = |old: LinkState, new: LinkState| (old.index, old.mac) == (new.index, new.mac);
        match (old, state) {
            (Some(old), Some(new)) if same(old, new) => {
                if let Some(link) = &mut self.link {
                    link.state = new;
                }
                if old.mtu != new.mtu {
                    self.forward();
                }
                // Down and up again between two messages.
                if old.up && new.up && old.changes != new.changes {
                    self.set_link(false, now);
                }
                if old.up != new.up || old.changes != new.changes {
                    self.set_link(new.up, now);
                }
            }
            (None, None) => {}
            _ => {
                self.set_link(false, now);
                self.open_link(state);
                self.set_link(self.link.as_ref().is_some_and(|link| link.state.up), now);
            }
        }
    }

    fn set_link(&mut self, up: bool, now: Now) {
        self.node.handle_link(up, now);
        self.act();
    }

    /// The interface is another than before, or gone.
    fn open_link(&mut self, state: Option<LinkState>) {
        self.link = None;
        self.tunnel.set_sockets(None, self.port);
        if let Err(error) = self.host.set_index(state.map(|state| state.index)) {
            tracing::error!("taking over {}: {error}", self.config.interface);
        }
        let Some(state) = state else {
            tracing::warn!(interface = self.config.interface, "the interface is gone");
            return;
        };
        let name = &self.config.interface;
        let transaction = clock::seed().map(|[a, b, c, d, ..]| u32::from_be_bytes([a, b, c, d]));
        let opened = Link::open(name, state, self.port, transaction.unwrap_or(1))
            .and_then(|link| Ok((link.registration.port()?, link, TunnelSockets::open(name)?)));
        match opened {
            Ok((port, link, sockets)) => {
                self.port = port;
                self.link = Some(link);
                self.tunnel.set_sockets(Some(sockets), port);
                self.keep_replies();
            }
            Err(error) => tracing::error!("opening {name}: {error:#}"),
        }
    }

    fn hear_frames(&mut self, now: Now) {
        let Some(link) = &mut self.link else { return };
        for _ in 0..BURST {
            let received = match link.packets.receive(&mut self.buffer) {
                Ok(Some(received)) => received,
                Ok(None) => return,
                Err(error) => return tracing::debug!(%error, "receiving frames"),
            };
            let frame = self.buffer.get(..received.len).unwrap_or_default();
            match frame::parse(frame, received.unfinished_checksum) {
                Some(Heard::Icmp { from, ttl, message }) => {
                    self.node.handle_advertisement(from.address, from.mac, message, ttl, now);
                }
                Some(Heard::Dhcp { from, payload }) => {
                    link.dhcp.handle_message(payload, from, now.monotonic);
                }
                // A reply for an address that the host does not have is for a session, or
                // says which address one gets (RFC 5944 §3.7.2.3); all others come to the
                // registration port.
                Some(Heard::Datagram(reply)) => {
                    let ours = reply.to.mac == link.state.mac && reply.to_port == self.port;
                    if ours && !self.host.receives(reply.to.address) {
                        let (source, port) = (reply.from.address, reply.from_port);
                        self.node.handle_datagram(source, port, reply.payload, now);
                    }
                }
                None => self.report.count("frames_malformed"),
            }
        }
    }

    /// What comes to the registration port: replies, and with a UDP tunnel its
    /// packets; and ICMP errors about what left it.
    fn hear_datagrams(&mut self, now: Now) {
        let Some(link) = &self.link else { return };
        while let Some(error) = link.registration.next_error(&mut self.buffer) {
            self.tunnel.handle_error(&error, &self.buffer, now.monotonic);
        }
        for _ in 0..BURST {
            // An error is about a datagram that was sent before.
            let Ok(Some(datagram)) = link.registration.receive(&mut self.buffer) else { return };
            let payload = self.buffer.get_mut(..datagram.len).unwrap_or_default();
            match MobileIpPayload::of(payload) {
                MobileIpPayload::Signalling => {
                    let from = datagram.from;
                    self.node.handle_datagram(*from.ip(), from.port(), payload, now);
                }
                MobileIpPayload::TunnelData | MobileIpPayload::PlainTunnelData => {
                    self.tunnel.receive_datagram(payload, &datagram, &self.node);
                }
            }
        }
    }

    /// Tells the state machine what went through the tunnel, and the kernel what
    /// the tunnel has learnt.
    fn tell_activity(&mut self, now: Now) {
        let activity = self.tunnel.take_activity();
        if activity.sent {
            self.node.handle_tunnel_sent(now);
        }
        if activity.received {
            self.node.handle_tunnel_received();
        }
        if self.tunnel.mtu() != self.mtu {
            self.forward();
        }
    }

    fn timeouts(&mut self, now: Now) {
        let at = now.monotonic;
        if let Some(link) = &mut self.link
            && link.dhcp.poll_timeout().is_some_and(|deadline| deadline <= at)
        {
            link.dhcp.handle_timeout(at);
        }
        if self.tunnel.poll_timeout().is_some_and(|deadline| deadline <= at) {
            self.tunnel.handle_timeout(at);
        }
        if let Some(lan) = &mut self.lan
            && lan.poll_timeout().is_some_and(|deadline| deadline <= at)
        {
            lan.handle_timeout(at);
        }
        if self.node.poll_timeout().is_some_and(|deadline| deadline <= at) {
            self.node.handle_timeout(now);
        }
    }

    fn answer_people(&mut self) {
        let now = clock::now();
        while let Some(call) = self.admin.try_next() {
            let outcome = self.answer_about_sessions(call.query(), now).unwrap_or_else(|| {
                let Program { config, node, tunnel, lan, .. } = &*self;
                self.report.answer(call.query(), config, node, tunnel, lan.as_ref(), now.monotonic)
            });
            call.answer(outcome);
        }
    }
}

/// What is done about it.
impl Program {
    /// Does all that the state machines ask for.
    fn act(&mut self) {
        loop {
            if let Some(action) = self.node.poll_action() {
                self.do_action(action);
            } else if let Some(output) = self.link.as_mut().and_then(|link| link.dhcp.poll_output())
            {
                self.do_dhcp(output);
            } else if let Some(output) = self.lan.as_mut().and_then(Lan::poll_output) {
                self.do_lan(output);
            } else {
                return;
            }
        }
    }

    fn do_action(&mut self, action: MobileNodeAction) {
        match action {
            MobileNodeAction::SendSolicitation { icmp } => {
                self.report.count("solicitations_sent");
                let to =
                    Station { mac: MacAddress::of_multicast(ALL_ROUTERS), address: ALL_ROUTERS };
                let from = self.station(Ipv4Addr::UNSPECIFIED);
                self.send_frame(frame::icmp(from, to, LINK_LOCAL_TTL, &icmp));
            }
            MobileNodeAction::SendRegistration(request) => self.send_registration(&request),
            MobileNodeAction::StartDhcp => {
                let now = clock::now().monotonic;
                if let Some(link) = &mut self.link {
                    link.dhcp.start(now);
                }
            }
            MobileNodeAction::StopDhcp => {
                if let Some(link) = &mut self.link {
                    link.dhcp.stop(link.state.up);
                }
                while let Some(output) = self.link.as_mut().and_then(|l| l.dhcp.poll_output()) {
                    self.do_dhcp(output);
                }
                if self.registering.take().is_some() {
                    self.forward();
                }
            }
            MobileNodeAction::UseAttachment(attachment) => {
                self.attachment = attachment;
                if matches!(attachment, Attachment::CoLocated { .. }) {
                    self.registering = None;
                }
                self.forward();
                self.answer_for_sessions();
                self.report.attached(&attachment, clock::now().monotonic);
            }
            MobileNodeAction::UseHomeAgent(address) => {
                self.config.node.home_agent = address;
                self.tunnel.use_home_agent(address);
                self.forward();
            }
            MobileNodeAction::SendKeepalive { icmp } => self.tunnel.send_keepalive(&icmp),
            MobileNodeAction::AnnounceHome => {
                let home = self.station(self.config.node.home_address);
                self.send_frame(Some(frame::gratuitous_arp(home)));
            }
            MobileNodeAction::UseSession { sub_nai, home_address } => {
                self.use_session(&sub_nai, home_address);
            }
            MobileNodeAction::LoseSession { sub_nai, home_address } => {
                self.lose_session(&sub_nai, home_address);
            }
            MobileNodeAction::UseHomeAddress(address) => self.use_home_address(address),
            MobileNodeAction::AnnounceSession(address) => {
                let session = self.station(address);
                self.send_frame(Some(frame::gratuitous_arp(session)));
            }
            MobileNodeAction::ShowText(text) => self.report.told(&text),
            MobileNodeAction::Event(event) => {
                self.report.event(&event, clock::now().monotonic);
            }
            MobileNodeAction::Stopped => self.done = true,
        }
    }

    fn do_dhcp(&mut self, output: Output) {
        match output {
            Output::Send { source, to, payload } => {
                let from = self.station(source);
                let from = (from, dhcp::CLIENT_PORT);
                let to = (to, dhcp::SERVER_PORT);
                self.send_frame(frame::udp(from, to, DHCP_TTL, &payload));
            }
            Output::Bound(co_located) => {
                tracing::debug!(address = %co_located.address, "DHCP gave an address");
                self.node.handle_co_located(co_located, clock::now());
            }
            Output::Lost => {
                tracing::info!("the DHCP lease ended");
                self.node.handle_co_located_lost(clock::now());
            }
        }
    }

    fn send_registration(&mut self, request: &SendRegistration) {
        match request.path {
            RegistrationPath::Link(mac) => {
                let from = (self.station(request.source), self.port);
                let to = (Station { mac, address: request.destination }, MOBILE_IP_PORT);
                self.send_frame(frame::udp(from, to, request.ttl, &request.bytes));
            }
            RegistrationPath::CoLocated(co_located) => {
                if !matches!(self.attachment, Attachment::CoLocated { .. }) {
                    self.registering = Some(co_located);
                    self.forward();
                }
                let Some(link) = &self.link else { return };
                let to = SocketAddrV4::new(request.destination, MOBILE_IP_PORT);
                if let Err(error) = link.registration.send(&request.bytes, to) {
                    tracing::warn!(%error, "sending a request");
                }
            }
        }
    }

    fn send_frame(&self, frame: Option<Vec<u8>>) {
        let (Some(link), Some(frame)) = (&self.link, frame) else { return };
        if let Err(error) = link.packets.send(&frame) {
            tracing::debug!(%error, "sending a frame");
        }
    }

    /// Makes the kernel forward as the attachment says.
    fn forward(&mut self) {
        let forwarding = self.forwarding();
        if let Err(error) = self.host.apply(&forwarding) {
            tracing::error!("{error}");
        }
    }

    /// What the kernel must hold, and what the tunnel is told of it.
    fn forwarding(&mut self) -> Forwarding {
        let link_mtu = self.link.as_ref().map_or(DEFAULT_MTU, |link| link.state.mtu);
        let (node, registering) = (&self.config.node, self.registering.as_ref());
        let mut forwarding = Forwarding::new(node, &self.attachment, registering, link_mtu);
        if matches!(self.attachment, Attachment::Home { .. }) {
            // As with the home address: so the kernel answers ARP for them.
            forwarding.addresses.extend(self.host.local_sessions().map(|address| (address, 32)));
        }
        self.tunnel.set_ends(forwarding.tunnel, link_mtu);
        let mtu = self.tunnel.mtu();
        forwarding.set_tunnel_mtu(mtu);
        if mtu != self.mtu {
            self.mtu = mtu;
            if let Err(error) = host::set_tunnel_mtu(&self.config.tunnel, mtu) {
                tracing::error!("{error}");
            }
        }
        forwarding
    }

    /// Ourselves on the link, with this address.
    fn station(&self, address: Ipv4Addr) -> Station {
        let mac = self.link.as_ref().map_or(MacAddress::UNSPECIFIED, |link| link.state.mac);
        Station { mac, address }
    }
}

/// Readable after SIGTERM or SIGINT, a byte for each.
fn signals() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGTERM, write.try_clone()?)?;
    signal_hook::low_level::pipe::register(SIGINT, write)?;
    // The config is read at the start only; by default this signal would kill.
    signal_hook::flag::register(SIGHUP, Arc::default())?;
    Ok(read)
}
