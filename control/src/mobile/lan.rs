//! The LAN whose devices are sessions: its interface, what is open on it, the DHCP server,
//! and who is still there.
//!
//! When the interface goes away, its sessions end; when only its link does, they have
//! [`LINK_PATIENCE`] to come back.
//!
//! **Not done:** the interface is not set up; its own addresses are left as they are.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use homeport_proto::{Instant, MacAddress};

use super::config::LanConfig;
use super::counters::counters;
use super::dhcp::{CLIENT_PORT, SERVER_PORT};
use super::dhcp_server::{DhcpServer, Lease, Output, ServerConfig, SessionWish};
use super::frame::{self, Heard, Station};
use super::host::Place;
use super::link::{LinkState, LinkWatch};
use super::presence::{self, Presence};
use super::sockets::{self, PacketSocket};
use crate::kernel::KernelError;

/// How long the link may be gone before all devices are.
pub const LINK_PATIENCE: Duration = Duration::from_secs(10);

/// Frames taken at one go, before the loop looks at other things.
const BURST: usize = 64;

/// TTL of what is sent to devices.
const TTL: u8 = 64;

/// Longer than any DHCP message on Ethernet.
const BUFFER: usize = 2048;

counters! {
    /// What happened on the LAN since the start.
    Counters {
        lan_frames_malformed = "Frames of devices dropped because their lengths or checksums are wrong.",
        lan_frames_unsent = "Frames for devices that the kernel would not send.",
        lan_devices_gone = "Devices that answered no ARP any more.",
        lan_link_losses = "Times that the LAN's interface lost its link, or went away.",
    }
}

/// What is open on the interface while it exists.
#[derive(Debug)]
struct LanLink {
    state: LinkState,
    dhcp: PacketSocket,
    arp: PacketSocket,
    /// Holds the server's port, so that the kernel answers nobody that it is unreachable.
    /// `None` when another server holds it.
    _port: Option<OwnedFd>,
}

/// The LAN.
pub struct Lan {
    config: LanConfig,
    watch: LinkWatch,
    link: Option<LanLink>,
    /// When all devices are gone, unless the link comes back.
    patience: Option<Instant>,
    server: DhcpServer,
    presence: Presence,
    counters: Counters,
    buffer: Box<[u8]>,
}

impl Lan {
    /// A LAN of which nothing is known yet.
    ///
    /// # Errors
    /// When no netlink socket is to be had.
    pub fn new(config: LanConfig) -> Result<Self, KernelError> {
        let server = DhcpServer::new(ServerConfig {
            router: config.router,
            prefix: config.prefix,
            rule: config.sub_nai,
            lease: config.lease,
            max_devices: config.max_devices,
            name_servers: config.name_servers.clone(),
        });
        Ok(Lan {
            watch: LinkWatch::new(&config.interface)?,
            presence: Presence::new(config.probe),
            config,
            link: None,
            patience: None,
            server,
            counters: Counters::default(),
            buffer: vec![0; BUFFER].into_boxed_slice(),
        })
    }

    /// Its config.
    pub const fn config(&self) -> &LanConfig {
        &self.config
    }

    /// What happens to the interface: for poll(2).
    pub fn link_readiness(&self) -> BorrowedFd<'_> {
        self.watch.readiness()
    }

    /// What devices send: for poll(2).
    pub fn readiness(&self) -> Option<[BorrowedFd<'_>; 2]> {
        self.link.as_ref().map(|link| [link.dhcp.as_fd(), link.arp.as_fd()])
    }

    /// Looks at the interface for the first time; its index if it is up.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn look(&mut self, now: Instant) -> Result<Option<u32>, KernelError> {
        let state = self.watch.look()?;
        if state.is_none_or(|state| !state.up) {
            let interface = &self.config.interface;
            tracing::warn!(interface, "the devices' interface is not there, or down");
        }
        Ok(self.link_state(state, now))
    }

    /// Hears what has become of the interface; its index if it has come up, whereby all
    /// routes out of it have gone.
    ///
    /// # Errors
    /// The socket's.
    pub fn handle_link(&mut self, now: Instant) -> Result<Option<u32>, KernelError> {
        let mut came_up = None;
        for state in self.watch.changes()? {
            came_up = self.link_state(state, now).or(came_up);
        }
        Ok(came_up)
    }

    /// Takes what devices have sent.
    pub fn receive(&mut self, now: Instant) {
        let Some(link) = &self.link else { return };
        for _ in 0..BURST {
            let received = match link.dhcp.receive(&mut self.buffer) {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "receiving frames of devices");
                    break;
                }
            };
            let bytes = self.buffer.get(..received.len).unwrap_or_default();
            match frame::parse(bytes, received.unfinished_checksum) {
                Some(Heard::Datagram(datagram)) => {
                    self.server.handle_message(datagram.payload, datagram.from.mac, now);
                }
                _ => self.counters.lan_frames_malformed += 1,
            }
        }
        for _ in 0..BURST {
            let Ok(Some(received)) = link.arp.receive(&mut self.buffer) else { return };
            let bytes = self.buffer.get(..received.len).unwrap_or_default();
            match frame::arp_sender(bytes) {
                Some(station) => self.presence.heard(station, now),
                None => self.counters.lan_frames_malformed += 1,
            }
        }
    }

    /// A device's session has this address from now on: where its packets go. `None` when
    /// no device may use it.
    pub fn handle_address(
        &mut self,
        sub_nai: &[u8],
        address: Ipv4Addr,
        now: Instant,
    ) -> Option<Place> {
        if !self.server.handle_address(sub_nai, address, now) {
            tracing::warn!(%address, prefix = %self.config.prefix,
                "no device can use this address: it is in use, or not in the LAN's prefix");
            return None;
        }
        let Lease { mac, .. } = self.server.lease(sub_nai)?;
        let index = self.link.as_ref()?.state.index;
        self.presence.watch(Station { mac, address }, now);
        Some(Place::Station { index, mac })
    }

    /// A device's session has its address no longer.
    pub fn handle_loss(&mut self, sub_nai: &[u8]) {
        self.server.handle_loss(sub_nai);
    }

    /// Whoever has this address is not asked any more whether it is there.
    pub fn forget_address(&mut self, address: Ipv4Addr) {
        self.presence.forget(address);
    }

    /// A device's session could not begin.
    pub fn handle_refusal(&mut self, sub_nai: &[u8], now: Instant) {
        self.server.handle_refusal(sub_nai, now);
    }

    /// A device's session was ended by somebody else.
    pub fn handle_end(&mut self, sub_nai: &[u8], now: Instant) {
        self.server.handle_end(sub_nai, now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.patience.is_some_and(|until| until <= now) {
            self.patience = None;
            self.server.end_all(now);
        }
        self.server.handle_timeout(now);
        self.presence.handle_timeout(now);
        while let Some(output) = self.presence.poll_output() {
            match output {
                presence::Output::Ask(device) => {
                    let from = self.station();
                    self.send(Some(frame::arp_request(from, device)));
                }
                presence::Output::Gone(address) => {
                    self.counters.lan_devices_gone += 1;
                    tracing::info!(%address, "the device is gone");
                    self.server.handle_absence(address, now);
                }
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [self.patience, self.server.poll_timeout(), self.presence.poll_timeout()];
        deadlines.into_iter().flatten().min()
    }

    /// What to do next; what there is to send is sent.
    pub fn poll_output(&mut self) -> Option<SessionWish> {
        loop {
            match self.server.poll_output()? {
                Output::Session(wish) => return Some(wish),
                Output::Send { to, payload } => {
                    let (from, to) = ((self.station(), SERVER_PORT), (to, CLIENT_PORT));
                    self.send(frame::udp(from, to, TTL, &payload));
                }
            }
        }
    }

    /// Whose session of this name is, and until when.
    pub fn lease(&self, sub_nai: &[u8]) -> Option<Lease> {
        self.server.lease(sub_nai)
    }

    /// Each counter: name, text, count.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        self.server.counters().all().chain(self.counters.all())
    }

    /// The interface is this now; its index if it has come up.
    fn link_state(&mut self, state: Option<LinkState>, now: Instant) -> Option<u32> {
        let old = self.link.as_ref().map(|link| link.state);
        let was_up = old.is_some_and(|old| old.up);
        if let (Some(old), Some(new)) = (old, state)
            && old.index == new.index
        {
            if let Some(link) = &mut self.link {
                link.state = new;
            }
            // Down and up again between two messages is seen by the changes only.
            let moved = old.changes != new.changes || old.up != new.up;
            if was_up && moved {
                self.counters.lan_link_losses += 1;
            }
            if !new.up {
                self.patience = self.patience.or(Some(now + LINK_PATIENCE));
                return None;
            }
            self.patience = None;
            return moved.then_some(new.index);
        }
        if old.is_some() {
            self.counters.lan_link_losses += 1;
            tracing::warn!(interface = self.config.interface, "the devices' interface is gone");
            self.server.end_all(now);
        }
        self.patience = None;
        self.link = None;
        let state = state?;
        match LanLink::open(&self.config.interface, state) {
            Ok(link) => self.link = Some(link),
            Err(error) => tracing::error!("opening {}: {error:#}", self.config.interface),
        }
        Some(state.index)
    }

    /// Ourselves on the LAN.
    fn station(&self) -> Station {
        let mac = self.link.as_ref().map_or(MacAddress::UNSPECIFIED, |link| link.state.mac);
        Station { mac, address: self.config.router }
    }

    fn send(&mut self, frame: Option<Vec<u8>>) {
        let (Some(link), Some(frame)) = (&self.link, frame) else { return };
        if let Err(error) = link.dhcp.send(&frame) {
            self.counters.lan_frames_unsent += 1;
            tracing::debug!(%error, "sending a frame to a device");
        }
    }
}

impl LanLink {
    fn open(name: &str, state: LinkState) -> Result<Self> {
        let dhcp = PacketSocket::open_dhcp_server(state.index)
            .with_context(|| format!("opening a packet socket on {name}"))?;
        let arp = PacketSocket::open_arp(state.index)
            .with_context(|| format!("opening a packet socket on {name}"))?;
        let port = sockets::udp(name, SERVER_PORT);
        if let Err(error) = &port {
            tracing::warn!(%error, "another DHCP server seems to answer on {name}");
        }
        Ok(LanLink { state, dhcp, arp, _port: port.ok() })
    }
}
