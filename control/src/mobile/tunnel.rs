//! The tunnel in userspace, between the TUN and the sockets.
//!
//! The host's packets for the tunnel are read from the TUN, get their outer
//! headers and go out; packets from the other end of the tunnel are checked, lose
//! their outer headers and are given to the kernel by the TUN. With UDP they leave
//! from the registration's own port and come back to it (RFC 3519 §4.4); they are
//! sent by a raw socket all the same, so that DF, the type of service and the
//! checksum are ours for every encapsulation.
//!
//! A packet that does not fit is cut before it is encapsulated (RFC 3519 §4.8), or
//! its sender is told; a narrower path is learnt from ICMP and forgotten after ten
//! minutes or a move. The home agent's echo requests to the home address, and to those of
//! sessions, are answered here, through the tunnel: they ask about the path, and the kernel
//! would answer past it. What goes through is counted for each session; what the kernel
//! forwards by itself, at home and through a foreign agent without encapsulating delivery, is
//! not seen here.
//!
//! **Not done:** ICMP errors from inside the tunnel other than Fragmentation
//! Needed are not relayed to applications (RFC 2003 §4).

use std::collections::HashMap;
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};

use homeport_dataplane::fragment::fragment;
use homeport_dataplane::packet::{BURST as POOL_BURST, Burst, PacketPool};
use homeport_dataplane::port::twin::Tun;
use homeport_dataplane::{mss, parse};
use homeport_proto::Instant;
use homeport_proto::mobile_node::MobileNode;
use homeport_wire::icmpv4::{
    DESTINATION_UNREACHABLE, ECHO_REPLY, ECHO_REQUEST, FRAGMENTATION_NEEDED, Icmpv4Header,
    Icmpv4Packet,
};
use homeport_wire::{IpProtocol, Ipv4Header, Ipv4Packet};
use zerocopy::{FromBytes, IntoBytes};

use super::counters::counters;
use super::encapsulation::{self, ROOM, Refused};
use super::forwarding::{TunnelEnds, untunnelled_mtu};
use super::path_mtu::{PathMtu, fragmentation_needed};
use super::tunnel_sockets::{Datagram, SendError, TunnelSocket};

/// Packets carried each way at one go, before the loop looks at other things.
const BURST: usize = 64;

/// Larger than any packet.
const BUFFER: usize = ROOM + u16::MAX as usize;

/// TTL of our own packets inside the tunnel.
const INNER_TTL: u8 = 64;

/// Buffers for fragments: the packet and its pieces.
const FRAGMENTS: usize = POOL_BURST + 1;

counters! {
    /// What the tunnel did, in packets since the start.
    Counters {
        tunnel_sent = "Packets put into the tunnel.",
        tunnel_received = "Packets taken out of the tunnel.",
        tunnel_none = "Packets of applications dropped because the node is nowhere.",
        tunnel_foreign_source = "Packets of applications dropped because their source is neither the home address nor a session's.",
        tunnel_too_big = "Packets of applications that have DF and do not fit the tunnel; their senders were told.",
        tunnel_cut = "Packets cut into fragments before they were put into the tunnel.",
        tunnel_uncut = "Packets dropped because they do not fit the tunnel and cannot be cut.",
        tunnel_mss_clamped = "TCP connections told of the tunnel's MTU by their segment size.",
        tunnel_send_failed = "Packets that the kernel would not send.",
        tunnel_bad_outer = "Tunnelled packets dropped because they are not between the tunnel's ends, UDP ports included.",
        tunnel_bad_encapsulation = "Tunnelled packets dropped because their encapsulation, next header or key is not the tunnel's.",
        tunnel_malformed = "Tunnelled packets dropped because a header of the encapsulation is wrong.",
        tunnel_bad_inner = "Tunnelled packets dropped because what is inside is no packet for the home address or a session's.",
        tunnel_congestion = "Tunnelled packets dropped because they met congestion and could not be marked (RFC 6040 4.2).",
        tunnel_keepalives_sent = "Keepalives sent through the tunnel (RFC 3519 4.9).",
        tunnel_keepalives_answered = "Keepalives that the home agent answered.",
        tunnel_echoes_answered = "Echo requests of the home agent answered through the tunnel.",
        tunnel_mtu_learnt = "Times that the path to the other end was found to be narrower.",
        tunnel_icmp_ignored = "ICMP errors about the tunnel that tell no MTU, no news, or are about none of its packets.",
    }
}

/// The sockets of the tunnel on one interface.
#[derive(Debug)]
pub struct TunnelSockets {
    sender: TunnelSocket,
    receivers: [TunnelSocket; 3],
}

impl TunnelSockets {
    /// Opens them on the interface of this name. Those of the encapsulations that
    /// are not used are there so that strays are counted, and answered by nobody.
    ///
    /// # Errors
    /// The kernel's: no such interface, or no right.
    pub fn open(interface: &str) -> io::Result<Self> {
        let open = |protocol| TunnelSocket::open(interface, protocol);
        let [ip_in_ip, minimal, gre] = [IpProtocol::IP_IN_IP, IpProtocol::MINIMAL, IpProtocol::GRE];
        Ok(TunnelSockets {
            sender: open(TunnelSocket::SENDER)?,
            receivers: [open(ip_in_ip)?, open(minimal)?, open(gre)?],
        })
    }

    /// To be polled.
    pub fn readiness(&self) -> [BorrowedFd<'_>; 3] {
        self.receivers.each_ref().map(AsFd::as_fd)
    }
}

/// What went through the tunnel since it was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Whether something was sent.
    pub sent: bool,
    /// Whether something was received.
    pub received: bool,
}

/// What went through the tunnel for one session: whole packets, without the tunnel's own
/// headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets that the session has sent.
    pub sent_packets: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets that came for it.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
}

/// The tunnel.
pub struct Tunnel {
    tun: Tun,
    /// The node's home address; `None` before there is one.
    home: Option<Ipv4Addr>,
    /// The home addresses of sessions, and what went through for each.
    sessions: HashMap<Ipv4Addr, Traffic>,
    home_agent: Ipv4Addr,
    clamp_mss: bool,
    sockets: Option<TunnelSockets>,
    /// Our UDP port: that of registrations.
    port: u16,
    ends: Option<TunnelEnds>,
    link_mtu: u16,
    path: PathMtu,
    identification: u16,
    activity: Activity,
    counters: Counters,
    pool: PacketPool,
    buffer: Box<[u8]>,
}

impl Tunnel {
    /// Its other end is this home agent's from now on.
    pub const fn use_home_agent(&mut self, address: Ipv4Addr) {
        self.home_agent = address;
    }

    /// The node's own home address is this from now on.
    pub const fn use_home_address(&mut self, home: Option<Ipv4Addr>) {
        self.home = home;
    }

    /// A tunnel that leads nowhere yet.
    pub fn new(tun: Tun, home: Option<Ipv4Addr>, home_agent: Ipv4Addr, clamp_mss: bool) -> Self {
        Tunnel {
            tun,
            home,
            sessions: HashMap::default(),
            home_agent,
            clamp_mss,
            sockets: None,
            port: 0,
            ends: None,
            link_mtu: 0,
            path: PathMtu::default(),
            identification: 0,
            activity: Activity::default(),
            counters: Counters::default(),
            pool: PacketPool::with_large(FRAGMENTS, 1),
            buffer: vec![0; BUFFER].into_boxed_slice(),
        }
    }

    /// Carries packets of a session's home address too.
    pub fn add_session(&mut self, home_address: Ipv4Addr) {
        self.sessions.insert(home_address, Traffic::default());
    }

    /// What went through for a session since it has this home address.
    pub fn traffic(&self, home_address: Ipv4Addr) -> Traffic {
        self.sessions.get(&home_address).copied().unwrap_or_default()
    }

    /// Carries them no longer.
    pub fn remove_session(&mut self, home_address: Ipv4Addr) {
        self.sessions.remove(&home_address);
    }

    /// Uses these sockets, and this UDP port; `None` while there is no interface.
    pub fn set_sockets(&mut self, sockets: Option<TunnelSockets>, port: u16) {
        self.sockets = sockets;
        self.port = port;
    }

    /// Leads between these ends from now on, out of a link of `link_mtu` bytes.
    pub fn set_ends(&mut self, ends: Option<TunnelEnds>, link_mtu: u16) {
        let addresses = |ends: TunnelEnds| (ends.local, ends.remote);
        if self.ends.map(addresses) != ends.map(addresses) {
            // Another path.
            self.path = PathMtu::default();
        }
        self.ends = ends;
        self.link_mtu = link_mtu;
    }

    /// The longest packet that goes into the tunnel in one piece, in bytes.
    pub fn mtu(&self) -> u16 {
        match self.ends {
            Some(ends) => {
                let overhead = encapsulation::overhead(ends.encapsulation);
                self.path.limit(self.link_mtu).saturating_sub(overhead)
            }
            None => untunnelled_mtu(self.link_mtu),
        }
    }

    /// Its ends; `None` while it leads nowhere.
    pub const fn ends(&self) -> Option<TunnelEnds> {
        self.ends
    }

    /// Our UDP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The TUN, to be polled.
    pub const fn tun(&self) -> &Tun {
        &self.tun
    }

    /// The sockets, to be polled.
    pub const fn sockets(&self) -> Option<&TunnelSockets> {
        self.sockets.as_ref()
    }

    /// What it did.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether something went through since the last call.
    pub fn take_activity(&mut self) -> Activity {
        mem::take(&mut self.activity)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.path.poll_timeout()
    }

    /// Forgets what is too old; the MTU may have changed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.path.handle_timeout(now);
    }

    /// Puts waiting packets of the host into the tunnel.
    ///
    /// # Errors
    /// The TUN's, such as that somebody deleted it.
    pub fn send_waiting(&mut self) -> io::Result<()> {
        self.with_buffer(|tunnel, buffer| {
            for _ in 0..BURST {
                let Some(space) = buffer.get_mut(ROOM..) else { break };
                let Some(len) = tunnel.tun.read(space)? else { break };
                let packet = buffer.get_mut(..ROOM + len).unwrap_or_default();
                // Its headers may not be the same behind the tunnel's.
                let header = packet.get(ROOM..).and_then(|it| Ipv4Header::ref_from_prefix(it).ok());
                let source = header.map(|(header, _)| header.source());
                if tunnel.put_in(packet)
                    && let Some(traffic) = source.and_then(|it| tunnel.sessions.get_mut(&it))
                {
                    traffic.sent_packets += 1;
                    traffic.sent_bytes += len as u64;
                }
            }
            Ok(())
        })
    }

    /// Sends an ICMP message from the home address to the home agent through the
    /// tunnel.
    pub fn send_keepalive(&mut self, icmp: &[u8]) {
        if let Some(home) = self.home {
            self.counters.tunnel_keepalives_sent += 1;
            self.send_icmp(home, icmp);
        }
    }

    /// Takes waiting packets out of the tunnel. `node` knows the answers to its
    /// keepalives.
    pub fn receive_waiting(&mut self, node: &MobileNode, now: Instant) {
        self.with_buffer(|tunnel, buffer| {
            for index in 0..3 {
                while let Some(error) = tunnel.receiver(index).and_then(|s| s.next_error(buffer)) {
                    tunnel.handle_error(&error, buffer, now);
                }
                for _ in 0..BURST {
                    let Some(socket) = tunnel.receiver(index) else { return };
                    // An error is about a packet that was sent before.
                    let Ok(Some(len)) = socket.receive(buffer) else { break };
                    let packet = buffer.get_mut(..len).unwrap_or_default();
                    let is_ours = |address| tunnel.is_ours(address);
                    let inner = encapsulation::decapsulate(packet, is_ours, tunnel.ends);
                    tunnel.take_out(inner, node);
                }
            }
        });
    }

    /// Takes a datagram of the registration port out of the tunnel.
    pub fn receive_datagram(&mut self, data: &mut [u8], datagram: &Datagram, node: &MobileNode) {
        let Datagram { from, to, tos, .. } = *datagram;
        let is_ours = |address| self.is_ours(address);
        let inner = encapsulation::decapsulate_datagram(data, from, to, tos, is_ours, self.ends);
        self.take_out(inner, node);
    }

    /// An ICMP error came back about what was sent, and quotes the start of
    /// `quote`: a narrower path is learnt from it, and the application told.
    pub fn handle_error(&mut self, error: &SendError, quote: &[u8], now: Instant) {
        let kind = (error.message_type, error.code);
        let quote = quote.get(..error.quoted).unwrap_or_default();
        // Only what is about a packet of the live tunnel is believed (RFC 2003 §4).
        let sender = Ipv4Header::ref_from_prefix(quote).ok().map(|(outer, _)| outer.source());
        let sender = sender.filter(|sender| self.is_ours(*sender));
        let about = self
            .ends
            .filter(|ends| error.destination == ends.remote)
            .map(|ends| sender.map_or(ends, |sender| ends.of_sender(self.home, sender)))
            .and_then(|ends| encapsulation::quoted_inner(quote, |it| self.is_ours(it), ends));
        let (Some(inner), (DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED)) = (about, kind) else {
            self.counters.tunnel_icmp_ignored += 1;
            return;
        };
        if !self.path.learn(error.mtu, self.path.limit(self.link_mtu), now) {
            self.counters.tunnel_icmp_ignored += 1;
            return;
        }
        self.counters.tunnel_mtu_learnt += 1;
        tracing::info!(mtu = self.mtu(), "the path of the tunnel is narrower");
        self.tell_too_big(&inner);
    }
}

/// One packet.
impl Tunnel {
    /// Lends the buffer to `body`, which needs the rest of the tunnel besides.
    fn with_buffer<T>(&mut self, body: impl FnOnce(&mut Self, &mut [u8]) -> T) -> T {
        let mut buffer = mem::take(&mut self.buffer);
        let result = body(self, &mut buffer);
        self.buffer = buffer;
        result
    }

    /// Whether packets of this address go through the tunnel.
    fn is_ours(&self, address: Ipv4Addr) -> bool {
        self.home == Some(address) || self.sessions.contains_key(&address)
    }

    fn receiver(&self, index: usize) -> Option<&TunnelSocket> {
        self.sockets.as_ref()?.receivers.get(index)
    }

    /// Puts the packet that lies behind [`ROOM`] into the tunnel, whole or in
    /// pieces; whether all of it is on its way.
    fn put_in(&mut self, packet: &mut [u8]) -> bool {
        let Some(ends) = self.ends else {
            self.counters.tunnel_none += 1;
            return false;
        };
        let Some(inner) = packet.get_mut(ROOM..) else { return false };
        // The other end would refuse it (RFC 3024 §4.3.2).
        let facts = match parse::ipv4(inner) {
            Ok(facts) if self.is_ours(facts.source) => facts,
            _ => {
                self.counters.tunnel_foreign_source += 1;
                return false;
            }
        };
        let ends = ends.of_sender(self.home, facts.source);
        if self.clamp_mss && mss::clamp(inner, &facts, self.mtu()) {
            self.counters.tunnel_mss_clamped += 1;
        }
        let link = self.path.limit(self.link_mtu);
        let overhead = if facts.fragment {
            encapsulation::fragment_overhead(ends.encapsulation)
        } else {
            encapsulation::overhead(ends.encapsulation)
        };
        if facts.total_len <= link.saturating_sub(overhead) {
            self.emit(packet, ends)
        } else if facts.dont_fragment {
            self.counters.tunnel_too_big += 1;
            self.tell_too_big(inner);
            false
        } else {
            let room = link.saturating_sub(encapsulation::fragment_overhead(ends.encapsulation));
            self.emit_in_pieces(inner, room, ends)
        }
    }

    fn emit(&mut self, packet: &mut [u8], ends: TunnelEnds) -> bool {
        let sent = self.sockets.as_ref().is_some_and(|sockets| {
            encapsulation::encapsulate(packet, ends, self.port, self.identification)
                .is_some_and(|outer| sockets.sender.send(outer, ends.remote).is_ok())
        });
        self.identification = self.identification.wrapping_add(1);
        if sent {
            self.counters.tunnel_sent += 1;
            self.activity.sent = true;
        } else {
            self.counters.tunnel_send_failed += 1;
        }
        sent
    }

    /// Fragmentation comes before encapsulation (RFC 3519 §4.8).
    fn emit_in_pieces(&mut self, inner: &[u8], room: u16, ends: TunnelEnds) -> bool {
        let mut pieces = Burst::new();
        let whole = self.pool.take_for(inner.len()).and_then(|mut whole| {
            if whole.set_bytes(inner) {
                return Some(whole);
            }
            self.pool.give(whole);
            None
        });
        match whole.map(|whole| fragment(whole, room, &mut self.pool, &mut pieces)) {
            Some(Ok(())) => self.counters.tunnel_cut += 1,
            Some(Err((whole, _))) => {
                self.pool.give(whole);
                self.counters.tunnel_uncut += 1;
            }
            None => self.counters.tunnel_uncut += 1,
        }
        let mut sent = !pieces.is_empty();
        for piece in pieces.drain() {
            let mut packet = [&[0; ROOM], piece.bytes()].concat();
            sent &= self.emit(&mut packet, ends);
            self.pool.give(piece);
        }
        sent
    }

    /// Tells an application that the packet which starts with `inner` does not
    /// fit, if it may be told.
    fn tell_too_big(&mut self, inner: &[u8]) {
        let Some(ends) = self.ends else { return };
        let df = Ipv4Header::ref_from_prefix(inner).is_ok_and(|(inner, _)| inner.dont_fragment());
        let error = df.then(|| fragmentation_needed(inner, ends.remote, self.mtu())).flatten();
        if let Some(error) = error
            && let Err(error) = self.tun.write(&error)
        {
            tracing::debug!(%error, "telling an application of the MTU");
        }
    }

    fn take_out(&mut self, inner: Result<&mut [u8], Refused>, node: &MobileNode) {
        let counters = &mut self.counters;
        let inner = match inner {
            Ok(inner) => inner,
            Err(Refused::Ends) => return counters.tunnel_bad_outer += 1,
            Err(Refused::Encapsulation) => return counters.tunnel_bad_encapsulation += 1,
            Err(Refused::Malformed) => return counters.tunnel_malformed += 1,
            Err(Refused::Inner) => return counters.tunnel_bad_inner += 1,
            Err(Refused::Congestion) => return counters.tunnel_congestion += 1,
        };
        self.activity.received = true;
        self.counters.tunnel_received += 1;
        if let Some((to, icmp)) = icmp_of(inner, self.home_agent) {
            if self.home == Some(to) && node.is_keepalive_answer(icmp) {
                self.counters.tunnel_keepalives_answered += 1;
                return;
            }
            if let Some(reply) = echo_reply(icmp) {
                self.counters.tunnel_echoes_answered += 1;
                return self.send_icmp(to, &reply);
            }
        }
        if self.clamp_mss
            && let Ok(facts) = parse::ipv4(inner)
            && mss::clamp(inner, &facts, self.mtu())
        {
            self.counters.tunnel_mss_clamped += 1;
        }
        if let Err(error) = self.tun.write(inner) {
            return tracing::debug!(%error, "giving a packet to the host");
        }
        let header = Ipv4Header::ref_from_prefix(inner).ok();
        let to = header.map(|(header, _)| header.destination());
        if let Some(traffic) = to.and_then(|to| self.sessions.get_mut(&to)) {
            traffic.received_packets += 1;
            traffic.received_bytes += inner.len() as u64;
        }
    }

    /// Sends an ICMP message from an address of ours to the home agent through the
    /// tunnel.
    fn send_icmp(&mut self, from: Ipv4Addr, icmp: &[u8]) {
        let Ok(len) = u16::try_from(Ipv4Header::LEN + icmp.len()) else { return };
        let to = self.home_agent;
        let header = Ipv4Header::new(from, to, IpProtocol::ICMP, INNER_TTL, len);
        self.put_in(&mut [&[0; ROOM], header.as_bytes(), icmp].concat());
    }
}

/// The ICMP message of a whole packet from `source`, and whom it is for.
fn icmp_of(packet: &[u8], source: Ipv4Addr) -> Option<(Ipv4Addr, &[u8])> {
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    let header = packet.header();
    let ours =
        header.source() == source && header.protocol() == IpProtocol::ICMP && !header.is_fragment();
    ours.then_some((header.destination(), packet.payload()))
}

/// The answer to an echo request (RFC 792).
fn echo_reply(icmp: &[u8]) -> Option<Vec<u8>> {
    let request = Icmpv4Packet::new_checked(icmp).ok()?;
    if request.header().message_type != ECHO_REQUEST || request.header().code != 0 {
        return None;
    }
    let body = request.body();
    let header = Icmpv4Header::new(ECHO_REPLY, 0, request.header().rest, body);
    Some([header.as_bytes(), body].concat())
}
