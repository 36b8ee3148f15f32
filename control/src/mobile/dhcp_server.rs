//! A DHCP server (RFC 2131) for devices that know nothing of Mobile IP, as a state
//! machine without clock and sockets: every device that asks for an address is a
//! session, and the address is the session's.
//!
//! A device that looks for a server starts a session, and is offered the address that
//! the home agent gives it. One that wants to keep an address which we do not know, as
//! after a restart of ours, starts a session that asks for that address; it is confirmed
//! if that is what comes, and refused otherwise. The session ends when the device gives
//! the address back, declines it, or lets the lease run out.
//!
//! Devices are told apart by their link-layer addresses, sessions by their names. A name
//! belongs to the device that had it first for as long as its session lives: another one
//! with the same client identifier gets no answer.
//!
//! **Not done:** relays; a device that forges the link-layer address of another is that
//! other one; leases are not written down: after a restart of ours a device is known
//! again when it renews.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use dhcproto::v4::MessageType;
use homeport_proto::config::Prefix;
use homeport_proto::message::session::MAX_SUB_NAI;
use homeport_proto::{Instant, MacAddress};

use super::bucket::Bucket;
use super::config::SubNaiRule;
use super::counters::counters;
use super::deadlines::Deadlines;
use super::dhcp_answer;
use super::dhcp_request::{Kind, Request};
use super::frame::Station;

/// How long the home agent is waited for after a device has asked last.
const START_WAIT: Duration = Duration::from_secs(60);
/// How long an offer stands.
const OFFER_WAIT: Duration = Duration::from_secs(20);
/// How long a device that declined its address gets no other (RFC 2131 §3.1).
const HOLD: Duration = Duration::from_secs(10);
/// How long a device whose session has ended is remembered, for its pace.
const MEMORY: Duration = Duration::from_secs(60);

/// Messages of one device: at once, and a second.
const DEVICE_PACE: (u64, u64) = (8, 1);
/// New sessions a second, when as many as there can be devices have begun at once.
const STARTS_PER_SECOND: u64 = 10;
/// Messages of all devices: at once, for each that there can be; and a second.
const ALL_PACE: (u64, u64) = (8, 200);
/// Smaller numbers of devices count as this for what all may send.
const FEWEST: u64 = 64;

/// What the server gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The server's address, and the devices' router.
    pub router: Ipv4Addr,
    /// The prefix that devices take for their link.
    pub prefix: Prefix,
    /// What a session is named by.
    pub rule: SubNaiRule,
    /// How long a lease lasts.
    pub lease: Duration,
    /// How many devices there may be.
    pub max_devices: usize,
    /// The name servers that devices are told; none: they are told nothing.
    pub name_servers: Vec<Ipv4Addr>,
}

/// A device's session that is to begin or to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionWish {
    /// Begin this session, with this address if that is to be had.
    Start {
        /// Its name.
        sub_nai: Arc<[u8]>,
        /// The address that the device had before.
        wanted: Option<Ipv4Addr>,
    },
    /// End this session.
    End {
        /// Its name.
        sub_nai: Arc<[u8]>,
    },
}

/// What the server asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Begin or end a session.
    Session(SessionWish),
    /// Send this to the client's port, from the server's.
    Send {
        /// The device, or everybody.
        to: Station,
        /// The datagram's data.
        payload: Vec<u8>,
    },
}

counters! {
    /// What devices asked for, and what became of it, since the start.
    Counters {
        dhcp_offered = "Addresses offered to devices.",
        dhcp_confirmed = "Addresses given to devices, or confirmed.",
        dhcp_refused = "Addresses that devices wanted and may not use, refused.",
        dhcp_released = "Addresses that devices gave back.",
        dhcp_declined = "Addresses that devices declined because somebody else uses them.",
        dhcp_expired = "Leases that ran out.",
        dhcp_informed = "Devices with an address of their own that were told the rest.",
        dhcp_starts = "Sessions that devices began.",
        dhcp_malformed = "DHCP messages dropped because they are no client's, or cut short.",
        dhcp_relayed = "DHCP messages dropped because a relay has sent them.",
        dhcp_forged = "DHCP messages dropped because they name another link-layer address than their frame.",
        dhcp_flood = "DHCP messages dropped because all devices together send too many.",
        dhcp_too_fast = "DHCP messages dropped because their device sends too many.",
        dhcp_starts_too_fast = "Sessions not begun because devices begin too many.",
        dhcp_held = "DHCP messages dropped because their device has declined an address just now.",
        dhcp_full = "Devices turned away because there are as many as there may be.",
        dhcp_name_taken = "DHCP messages dropped because another device has a session of this name.",
        dhcp_name_too_long = "DHCP messages dropped because their client identifier or host name is too long for a sub-NAI.",
        dhcp_other_server = "Devices that took another server's offer.",
        dhcp_not_theirs = "Addresses not given back or declined because their device does not have them.",
        dhcp_unusable = "Addresses of the home agent not given to a device: outside the LAN's prefix, or in use.",
        dhcp_not_begun = "Sessions of devices that could not begin.",
    }
}

/// What a device's session has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// There is no address yet.
    Starting { asked: Option<Request> },
    /// It may have this address.
    Offered(Ipv4Addr),
    /// It has this address.
    Bound(Ipv4Addr),
    /// There is no session, and none is begun yet.
    Held,
    /// There is no session any more.
    Ended,
}

#[derive(Clone, Debug)]
struct Device {
    sub_nai: Arc<[u8]>,
    state: State,
    pace: Bucket,
}

impl Device {
    const fn has_session(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Offered(_) | State::Bound(_))
    }

    const fn address(&self) -> Option<Ipv4Addr> {
        match self.state {
            State::Offered(address) | State::Bound(address) => Some(address),
            State::Starting { .. } | State::Held | State::Ended => None,
        }
    }
}

/// What is known of a device for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its link-layer address.
    pub mac: MacAddress,
    /// When its lease ends; `None` when it has none yet.
    pub expires_at: Option<Instant>,
}

/// A server for one LAN.
#[derive(Debug)]
pub struct DhcpServer {
    config: ServerConfig,
    devices: BTreeMap<MacAddress, Device>,
    /// Whose session has this name.
    names: BTreeMap<Arc<[u8]>, MacAddress>,
    /// Who may use this address.
    addresses: BTreeMap<Ipv4Addr, MacAddress>,
    deadlines: Deadlines<MacAddress>,
    all: Bucket,
    starts: Bucket,
    counters: Counters,
    outputs: VecDeque<Output>,
}

impl DhcpServer {
    /// A server without devices.
    pub fn new(config: ServerConfig) -> Self {
        let most = u64::try_from(config.max_devices).unwrap_or(u64::MAX);
        DhcpServer {
            all: Bucket::new(most.max(FEWEST).saturating_mul(ALL_PACE.0), ALL_PACE.1),
            starts: Bucket::new(most, STARTS_PER_SECOND),
            config,
            devices: BTreeMap::new(),
            names: BTreeMap::new(),
            addresses: BTreeMap::new(),
            deadlines: Deadlines::default(),
            counters: Counters::default(),
            outputs: VecDeque::new(),
        }
    }

    /// What it did.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whose session of this name is, and until when.
    pub fn lease(&self, sub_nai: &[u8]) -> Option<Lease> {
        let mac = *self.names.get(sub_nai)?;
        let bound = matches!(self.devices.get(&mac)?.state, State::Bound(_));
        Some(Lease { mac, expires_at: self.deadlines.get(&mac).filter(|_| bound) })
    }

    /// A datagram for the server's port, in a frame of `from`.
    pub fn handle_message(&mut self, payload: &[u8], from: MacAddress, now: Instant) {
        let Some(request) = Request::parse(payload) else {
            return self.counters.dhcp_malformed += 1;
        };
        if !request.relay.is_unspecified() {
            return self.counters.dhcp_relayed += 1;
        }
        if request.client != from || !from.is_unicast() {
            return self.counters.dhcp_forged += 1;
        }
        if !self.all.take(now) {
            return self.counters.dhcp_flood += 1;
        }
        match request.kind {
            // They end something, and so come once.
            Kind::Release => return self.release(&request, now),
            Kind::Decline => return self.decline(&request, now),
            Kind::Discover | Kind::Request | Kind::Inform => {}
        }
        if let Some(device) = self.devices.get_mut(&from) {
            if !device.pace.take(now) {
                return self.counters.dhcp_too_fast += 1;
            }
            if device.state == State::Held {
                return self.counters.dhcp_held += 1;
            }
        }
        match request.kind {
            Kind::Discover => self.discover(request, now),
            Kind::Request => self.request(request, now),
            Kind::Inform => self.inform(&request),
            Kind::Release | Kind::Decline => {}
        }
    }

    /// The session of this name has this address from now on. Whether a device may use
    /// it: else the session is to end, which an output says too.
    pub fn handle_address(&mut self, sub_nai: &[u8], address: Ipv4Addr, now: Instant) -> bool {
        let Some((mac, device)) = self.device_of(sub_nai) else { return false };
        let state = device.state.clone();
        if device.address() == Some(address) {
            return true;
        }
        if !self.is_usable(address) || self.addresses.get(&address).is_some_and(|it| *it != mac) {
            self.counters.dhcp_unusable += 1;
            self.end(mac, State::Held, now + HOLD);
            return false;
        }
        self.forget_address(mac);
        self.addresses.insert(address, mac);
        self.set_state(mac, State::Offered(address));
        match state {
            State::Starting { asked: Some(asked) } => {
                self.deadlines.set(mac, now + OFFER_WAIT);
                if asked.kind == Kind::Discover {
                    self.offer(&asked, address);
                } else {
                    self.decide(&asked, address, now);
                }
            }
            // What it was given is not its own any more; it is told when it renews.
            State::Starting { asked: None }
            | State::Offered(_)
            | State::Bound(_)
            | State::Held
            | State::Ended => {}
        }
        true
    }

    /// The session of this name has its address no longer, and waits for another. The
    /// device is told when it asks.
    pub fn handle_loss(&mut self, sub_nai: &[u8]) {
        let Some((mac, device)) = self.device_of(sub_nai) else { return };
        if device.address().is_some() {
            self.forget_address(mac);
            self.set_state(mac, State::Starting { asked: None });
        }
    }

    /// The session of this name could not begin.
    pub fn handle_refusal(&mut self, sub_nai: &[u8], now: Instant) {
        self.counters.dhcp_not_begun += 1;
        self.handle_end(sub_nai, now);
    }

    /// The session of this name was ended by somebody else.
    pub fn handle_end(&mut self, sub_nai: &[u8], now: Instant) {
        let Some((mac, _)) = self.device_of(sub_nai) else { return };
        self.forget_session(mac);
        self.set_state(mac, State::Ended);
        self.deadlines.set(mac, now + MEMORY);
    }

    /// The device with this address is gone.
    pub fn handle_absence(&mut self, address: Ipv4Addr, now: Instant) {
        if let Some(mac) = self.addresses.get(&address).copied() {
            self.end(mac, State::Ended, now + MEMORY);
        }
    }

    /// All devices are gone.
    pub fn end_all(&mut self, now: Instant) {
        let all: Vec<MacAddress> = self.names.values().copied().collect();
        for mac in all {
            self.end(mac, State::Ended, now + MEMORY);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(mac) = self.deadlines.take_due(now) {
            if let Some(device) = self.devices.get(&mac) {
                if matches!(device.state, State::Bound(_)) {
                    self.counters.dhcp_expired += 1;
                }
                self.end(mac, State::Ended, now);
            }
            self.deadlines.remove(&mac);
            self.devices.remove(&mac);
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }
}

/// What a device says.
impl DhcpServer {
    fn discover(&mut self, request: Request, now: Instant) {
        let mac = request.client;
        let Some(sub_nai) = self.name_of(&request) else {
            return self.counters.dhcp_name_too_long += 1;
        };
        if let Some(device) = self.devices.get_mut(&mac)
            && device.has_session()
            && device.sub_nai == sub_nai
        {
            match &mut device.state {
                State::Starting { asked } => {
                    *asked = Some(request);
                    self.deadlines.set(mac, now + START_WAIT);
                }
                State::Offered(address) => {
                    let address = *address;
                    self.deadlines.set(mac, now + OFFER_WAIT);
                    self.offer(&request, address);
                }
                State::Bound(address) => {
                    let address = *address;
                    self.offer(&request, address);
                }
                State::Held | State::Ended => {}
            }
            return;
        }
        // What a stranger had elsewhere is of no use here.
        let wanted = request.requested.filter(|address| self.is_free(*address, mac));
        self.start(sub_nai, request, wanted, now);
    }

    fn request(&mut self, request: Request, now: Instant) {
        let mac = request.client;
        // RFC 2131 §4.3.2: one that renews says what it has, others what they want.
        let has = request.client_address;
        let address = if has.is_unspecified() { request.requested } else { Some(has) };
        let Some(address) = address else { return self.counters.dhcp_malformed += 1 };
        if has.is_unspecified() && request.server.is_some_and(|it| it != self.config.router) {
            self.counters.dhcp_other_server += 1;
            if self.devices.get(&mac).is_some_and(Device::has_session) {
                self.end(mac, State::Ended, now + MEMORY);
            }
            return;
        }
        let Some(sub_nai) = self.name_of(&request) else {
            return self.counters.dhcp_name_too_long += 1;
        };
        let is_free = self.is_free(address, mac);
        match self.devices.get_mut(&mac).filter(|device| device.has_session()) {
            // Under another name it is another session, which has this address not.
            Some(device) if device.sub_nai != sub_nai => self.refuse(&request),
            Some(device) => match &mut device.state {
                State::Starting { asked } => {
                    *asked = Some(request);
                    self.deadlines.set(mac, now + START_WAIT);
                }
                State::Offered(its) | State::Bound(its) => {
                    let its = *its;
                    self.decide(&request, its, now);
                }
                State::Held | State::Ended => {}
            },
            None if is_free => {
                self.start(sub_nai, request, Some(address), now);
            }
            None => self.refuse(&request),
        }
    }

    fn release(&mut self, request: &Request, now: Instant) {
        let has = self.devices.get(&request.client).and_then(Device::address);
        let means_us = request.server.is_none_or(|server| server == self.config.router);
        if has != Some(request.client_address) || !means_us {
            return self.counters.dhcp_not_theirs += 1;
        }
        self.counters.dhcp_released += 1;
        self.end(request.client, State::Ended, now + MEMORY);
    }

    fn decline(&mut self, request: &Request, now: Instant) {
        let has = self.devices.get(&request.client).and_then(Device::address);
        if has.is_none() || has != request.requested {
            return self.counters.dhcp_not_theirs += 1;
        }
        self.counters.dhcp_declined += 1;
        self.end(request.client, State::Held, now + HOLD);
    }

    fn inform(&mut self, request: &Request) {
        if !self.config.prefix.contains(request.client_address) {
            return self.counters.dhcp_malformed += 1;
        }
        self.counters.dhcp_informed += 1;
        let nothing = Ipv4Addr::UNSPECIFIED;
        self.outputs.extend(dhcp_answer::giving(&self.config, request, MessageType::Ack, nothing));
    }
}

/// What becomes of it.
impl DhcpServer {
    fn start(
        &mut self,
        sub_nai: Arc<[u8]>,
        request: Request,
        wanted: Option<Ipv4Addr>,
        now: Instant,
    ) {
        let mac = request.client;
        if self.names.get(&sub_nai).is_some_and(|owner| *owner != mac) {
            return self.counters.dhcp_name_taken += 1;
        }
        if !self.devices.contains_key(&mac) && !self.make_room() {
            return self.counters.dhcp_full += 1;
        }
        if !self.starts.take(now) {
            return self.counters.dhcp_starts_too_fast += 1;
        }
        // It has another name than before.
        if self.devices.get(&mac).is_some_and(Device::has_session) {
            self.end(mac, State::Ended, now);
        }
        self.counters.dhcp_starts += 1;
        let new = || {
            let mut pace = Bucket::new(DEVICE_PACE.0, DEVICE_PACE.1);
            pace.take(now);
            Device { sub_nai: Arc::clone(&sub_nai), state: State::Ended, pace }
        };
        let device = self.devices.entry(mac).or_insert_with(new);
        device.sub_nai = Arc::clone(&sub_nai);
        device.state = State::Starting { asked: Some(request) };
        self.names.insert(Arc::clone(&sub_nai), mac);
        self.deadlines.set(mac, now + START_WAIT);
        self.outputs.push_back(Output::Session(SessionWish::Start { sub_nai, wanted }));
    }

    /// Whether one more device may come; for it, one without a session is forgotten.
    fn make_room(&mut self) -> bool {
        if self.devices.len() < self.config.max_devices {
            return true;
        }
        let idle = self.devices.iter().find(|(_, device)| device.state == State::Ended);
        let Some((mac, _)) = idle else { return false };
        let mac = *mac;
        self.deadlines.remove(&mac);
        self.devices.remove(&mac).is_some()
    }

    /// Ends the session of a device, which is `state` until `until`.
    fn end(&mut self, mac: MacAddress, state: State, until: Instant) {
        if let Some(sub_nai) = self.forget_session(mac) {
            self.outputs.push_back(Output::Session(SessionWish::End { sub_nai }));
        }
        self.set_state(mac, state);
        self.deadlines.set(mac, until);
    }

    /// Name and address are free; gives the name if there was a session.
    fn forget_session(&mut self, mac: MacAddress) -> Option<Arc<[u8]>> {
        self.forget_address(mac);
        let device = self.devices.get(&mac).filter(|device| device.has_session())?;
        let sub_nai = Arc::clone(&device.sub_nai);
        self.names.remove(&sub_nai);
        Some(sub_nai)
    }

    fn forget_address(&mut self, mac: MacAddress) {
        if let Some(address) = self.devices.get(&mac).and_then(Device::address) {
            self.addresses.remove(&address);
        }
    }

    fn set_state(&mut self, mac: MacAddress, state: State) {
        if let Some(device) = self.devices.get_mut(&mac) {
            device.state = state;
        }
    }

    fn device_of(&self, sub_nai: &[u8]) -> Option<(MacAddress, &Device)> {
        let mac = *self.names.get(sub_nai)?;
        Some((mac, self.devices.get(&mac)?))
    }

    /// Whether a device can use this address as a host of the LAN's prefix.
    fn is_usable(&self, address: Ipv4Addr) -> bool {
        let ServerConfig { prefix, router, .. } = self.config;
        let ends = [prefix.address(), prefix.broadcast()];
        let of_network = prefix.prefix_len() < 31 && ends.contains(&address);
        prefix.contains(address) && address != router && !of_network
    }

    /// Whether this device may ask for this address.
    fn is_free(&self, address: Ipv4Addr, mac: MacAddress) -> bool {
        self.is_usable(address) && self.addresses.get(&address).is_none_or(|it| *it == mac)
    }

    /// What the session of a device is named by; `None` when that is too long.
    fn name_of(&self, request: &Request) -> Option<Arc<[u8]>> {
        let MacAddress(mac) = request.client;
        let by_mac = || request.client.to_string().into_bytes();
        // The usual identifier is the link-layer address behind its type (RFC 2132 §9.14):
        // the same device as one without.
        let plain = [&[1], &mac[..]].concat();
        let is_named = !request.client_id.is_empty() && request.client_id != plain;
        let name = match self.config.rule {
            SubNaiRule::HostName if !request.host_name.is_empty() => request.host_name.clone(),
            SubNaiRule::HostName | SubNaiRule::ClientId if is_named => request.client_id.clone(),
            SubNaiRule::HostName | SubNaiRule::ClientId | SubNaiRule::Mac => by_mac(),
        };
        (name.len() <= MAX_SUB_NAI).then(|| name.into())
    }
}

/// What is said.
impl DhcpServer {
    /// Confirms the address that a device wants, if it is its own.
    fn decide(&mut self, request: &Request, its: Ipv4Addr, now: Instant) {
        let has = request.client_address;
        let wanted = if has.is_unspecified() { request.requested } else { Some(has) };
        if wanted != Some(its) {
            return self.refuse(request);
        }
        self.set_state(request.client, State::Bound(its));
        self.deadlines.set(request.client, now + self.config.lease);
        self.counters.dhcp_confirmed += 1;
        self.outputs.extend(dhcp_answer::giving(&self.config, request, MessageType::Ack, its));
    }

    fn offer(&mut self, request: &Request, address: Ipv4Addr) {
        self.counters.dhcp_offered += 1;
        let offer = dhcp_answer::giving(&self.config, request, MessageType::Offer, address);
        self.outputs.extend(offer);
    }

    fn refuse(&mut self, request: &Request) {
        self.counters.dhcp_refused += 1;
        self.outputs.extend(dhcp_answer::refusing(&self.config, request));
    }
}

#[cfg(test)]
#[path = "dhcp_server_tests.rs"]
mod tests;
