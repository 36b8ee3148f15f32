//! A DHCP client (RFC 2131, RFC 4039) for a co-located care-of address, as a state
//! machine without sockets.
//!
//! It asks for an address at once and again very soon, because a move waits for
//! it, and takes a server's rapid commit. It renews at T1, rebinds at T2, starts
//! over when refused, and gives the address back when stopped.
//!
//! **Not done:** INIT-REBOOT, DHCPDECLINE (the address is not probed), options
//! other than mask, router and times.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::Encodable;
use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use homeport_proto::mobile_node::CoLocated;
use homeport_proto::{Instant, MacAddress};

use super::dhcp_reply::{Kind, Reply};
use super::frame::Station;

/// The client's port.
pub const CLIENT_PORT: u16 = 68;
/// The server's port.
pub const SERVER_PORT: u16 = 67;

/// The first wait for an answer; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest (RFC 2131 §4.1).
const LONGEST_WAIT: Duration = Duration::from_secs(64);
/// Requests for one offer, before it is given up.
const MAX_REQUESTS: u32 = 5;
/// The shortest wait while renewing and rebinding; RFC 2131 §4.4.5 has a minute,
/// which a lease of minutes does not have.
const SHORTEST_RENEWAL_WAIT: Duration = Duration::from_secs(1);

/// What the client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to the server's port, from the client's.
    Send {
        /// Our own address; unspecified until there is one.
        source: Ipv4Addr,
        /// The server; everybody when it is not known.
        to: Station,
        /// The datagram's data.
        payload: Vec<u8>,
    },
    /// There is an address, or it was renewed.
    Bound(CoLocated),
    /// The address may no longer be used.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    address: Ipv4Addr,
    prefix_len: u8,
    gateway: Option<Ipv4Addr>,
    server: Ipv4Addr,
    /// Where the server's frames come from: itself, or the router before it.
    server_mac: MacAddress,
    renew_at: Instant,
    rebind_at: Instant,
    expires_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Selecting,
    Requesting { address: Ipv4Addr, server: Ipv4Addr },
    Bound,
    Renewing,
    Rebinding,
}

/// A client for one interface.
#[derive(Debug)]
pub struct DhcpClient {
    mac: MacAddress,
    transaction: u32,
    state: State,
    started_at: Instant,
    attempt: u32,
    /// Refusals since the last lease.
    refusals: u32,
    next_at: Option<Instant>,
    lease: Option<Lease>,
    outputs: VecDeque<Output>,
}

impl DhcpClient {
    /// A client that does nothing yet. `transaction` is random.
    pub fn new(mac: MacAddress, transaction: u32) -> Self {
        DhcpClient {
            mac,
            transaction,
            state: State::Idle,
            started_at: Instant::default(),
            attempt: 0,
            refusals: 0,
            next_at: None,
            lease: None,
            outputs: VecDeque::new(),
        }
    }

    /// Asks for an address, unless it does already.
    pub fn start(&mut self, now: Instant) {
        if self.state == State::Idle {
            self.select(now);
        }
    }

    /// Stops; with `release`, the server is told (RFC 2131 §4.4.6).
    pub fn stop(&mut self, release: bool) {
        if let Some(lease) = self.lease.take()
            && release
        {
            let mut message = self.message(MessageType::Release);
            message.set_ciaddr(lease.address);
            message.opts_mut().insert(DhcpOption::ServerIdentifier(lease.server));
            let to = Station { mac: lease.server_mac, address: lease.server };
            self.send(&message, lease.address, to);
        }
        self.state = State::Idle;
        self.next_at = None;
    }

    /// A datagram for the client's port.
    pub fn handle_message(&mut self, payload: &[u8], from: Station, now: Instant) {
        let Some(reply) = Reply::parse(payload) else { return };
        let ours = reply.transaction == self.transaction
            && reply.client == self.mac
            && self.state != State::Idle;
        if !ours {
            return;
        }
        match (self.state, reply.kind) {
            (State::Selecting, Kind::Offer) => self.take_offer(&reply, now),
            // An answer without an offer is right only as a rapid commit (RFC 4039
            // §3.1).
            (State::Selecting, Kind::Ack) if reply.rapid_commit => {
                self.take_lease(&reply, from, now);
            }
            (State::Requesting { address, .. }, Kind::Ack) if reply.address == address => {
                self.take_lease(&reply, from, now);
            }
            (State::Renewing | State::Rebinding, Kind::Ack)
                if self.lease.is_some_and(|lease| lease.address == reply.address) =>
            {
                self.take_lease(&reply, from, now);
            }
            (State::Requesting { server, .. }, Kind::Nak) if reply.server == Some(server) => {
                self.refused(now);
            }
            (State::Renewing | State::Rebinding, Kind::Nak) => self.refused(now),
            _ => {}
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(lease) = self.lease {
            if lease.expires_at <= now {
                return self.start_over(now);
            }
            let next = match self.state {
                State::Bound if lease.renew_at <= now => Some(State::Renewing),
                State::Renewing if lease.rebind_at <= now => Some(State::Rebinding),
                _ => None,
            };
            if let Some(next) = next {
                self.state = next;
                self.attempt = 0;
                self.next_at = Some(now);
                self.started_at = now;
                self.transaction = self.transaction.wrapping_add(0x9e37_79b9);
            }
        }
        if self.next_at.is_some_and(|at| at <= now) {
            self.speak(now);
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let change = self.lease.map(|lease| match self.state {
            State::Bound => lease.renew_at,
            State::Renewing => lease.rebind_at,
            _ => lease.expires_at,
        });
        [self.next_at, change].into_iter().flatten().min()
    }

    /// Starts over, later and later: a server that refuses for ever must not be
    /// asked as fast as it answers.
    fn refused(&mut self, now: Instant) {
        self.lose_lease();
        self.begin(now);
        self.attempt = self.refusals;
        self.wait(now);
        self.attempt = 0;
        self.refusals = self.refusals.saturating_add(1);
    }

    fn start_over(&mut self, now: Instant) {
        self.lose_lease();
        self.select(now);
    }

    fn lose_lease(&mut self) {
        if self.lease.take().is_some() {
            self.outputs.push_back(Output::Lost);
        }
    }

    fn select(&mut self, now: Instant) {
        self.begin(now);
        self.speak(now);
    }

    fn begin(&mut self, now: Instant) {
        self.state = State::Selecting;
        self.started_at = now;
        self.attempt = 0;
        // Any other number will do; a late answer to the last one must not match.
        self.transaction = self.transaction.wrapping_add(0x9e37_79b9);
    }

    fn take_offer(&mut self, reply: &Reply, now: Instant) {
        if let (Some(server), address) = (reply.server.filter(|a| is_host(*a)), reply.address)
            && is_host(address)
        {
            self.state = State::Requesting { address, server };
            self.attempt = 0;
            self.speak(now);
        }
    }

    fn take_lease(&mut self, reply: &Reply, from: Station, now: Instant) {
        let address = reply.address;
        let server = reply.server.filter(|server| is_host(*server));
        let lifetime = reply.lease.filter(|lease| !lease.is_zero());
        let (Some(server), Some(lifetime), true) = (server, lifetime, is_host(address)) else {
            return;
        };
        // The defaults of RFC 2131 §4.4.5: half, and seven eighths; in order.
        let rebind = reply.rebinding.unwrap_or(lifetime * 7 / 8).min(lifetime);
        let renew = reply.renewal.unwrap_or(lifetime / 2).min(rebind).max(SHORTEST_RENEWAL_WAIT);
        let prefix_len = reply.prefix_len.unwrap_or(32);
        let gateway = reply.router.filter(|router| is_host(*router));
        self.lease = Some(Lease {
            address,
            prefix_len,
            gateway,
            server,
            server_mac: from.mac,
            renew_at: now + renew,
            rebind_at: now + rebind,
            expires_at: now + lifetime,
        });
        self.state = State::Bound;
        self.refusals = 0;
        self.next_at = None;
        // All ones is for ever (RFC 2131 §3.3).
        let forever = Duration::from_secs(u64::from(u32::MAX));
        let lease = (lifetime != forever).then_some(lifetime);
        self.outputs.push_back(Output::Bound(CoLocated { address, prefix_len, gateway, lease }));
    }

    /// Sends what the state asks for, and sets the next time.
    fn speak(&mut self, now: Instant) {
        match (self.state, self.lease) {
            (State::Selecting, _) => {
                let mut message = self.message(MessageType::Discover);
                message.opts_mut().insert(DhcpOption::RapidCommit);
                self.broadcast(message, now, Ipv4Addr::UNSPECIFIED);
                self.wait(now);
            }
            (State::Requesting { address, server }, _) => {
                if self.attempt >= MAX_REQUESTS {
                    return self.select(now);
                }
                let mut message = self.message(MessageType::Request);
                message.opts_mut().insert(DhcpOption::RequestedIpAddress(address));
                message.opts_mut().insert(DhcpOption::ServerIdentifier(server));
                self.broadcast(message, now, Ipv4Addr::UNSPECIFIED);
                self.wait(now);
            }
            (State::Renewing, Some(lease)) => {
                let mut message = self.message(MessageType::Request);
                message.set_ciaddr(lease.address);
                let to = Station { mac: lease.server_mac, address: lease.server };
                self.send(&message, lease.address, to);
                self.wait_for(lease.rebind_at, now);
            }
            (State::Rebinding, Some(lease)) => {
                let mut message = self.message(MessageType::Request);
                message.set_ciaddr(lease.address);
                self.broadcast(message, now, lease.address);
                self.wait_for(lease.expires_at, now);
            }
            _ => self.next_at = None,
        }
    }

    /// Twice as long each time, and a little more that differs by client.
    fn wait(&mut self, now: Instant) {
        let wait = (FIRST_WAIT * (1 << self.attempt.min(11))).min(LONGEST_WAIT);
        let jitter = wait * (self.transaction.rotate_left(self.attempt) % 64) / 512;
        self.attempt = self.attempt.saturating_add(1);
        self.next_at = Some(now + wait + jitter);
    }

    /// Half of what is left until `end` (RFC 2131 §4.4.5).
    fn wait_for(&mut self, end: Instant, now: Instant) {
        let half = end.saturating_since(now) / 2;
        self.attempt = self.attempt.saturating_add(1);
        self.next_at = Some(now + half.max(SHORTEST_RENEWAL_WAIT));
    }

    fn message(&self, kind: MessageType) -> Message {
        let nobody = Ipv4Addr::UNSPECIFIED;
        let mut message =
            Message::new_with_id(self.transaction, nobody, nobody, nobody, nobody, &self.mac.0);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        // Hardware type 1, then the address (RFC 2132 §9.14).
        options.insert(DhcpOption::ClientIdentifier([&[1], &self.mac.0[..]].concat()));
        if kind != MessageType::Release {
            options.insert(DhcpOption::ParameterRequestList(vec![
                OptionCode::SubnetMask,
                OptionCode::Router,
                OptionCode::AddressLeaseTime,
                OptionCode::ServerIdentifier,
                OptionCode::Renewal,
                OptionCode::Rebinding,
            ]));
        }
        message
    }

    fn broadcast(&mut self, mut message: Message, now: Instant, source: Ipv4Addr) {
        let since = now.saturating_since(self.started_at).as_secs();
        message.set_secs(u16::try_from(since).unwrap_or(u16::MAX));
        let all = Station { mac: MacAddress::BROADCAST, address: Ipv4Addr::BROADCAST };
        self.send(&message, source, all);
    }

    fn send(&mut self, message: &Message, source: Ipv4Addr, to: Station) {
        // Encoding fails only for options that are too long; ours are not.
        if let Ok(payload) = message.to_vec() {
            self.outputs.push_back(Output::Send { source, to, payload });
        }
    }
}

fn is_host(address: Ipv4Addr) -> bool {
    !address.is_unspecified()
        && !address.is_broadcast()
        && !address.is_multicast()
        && !address.is_loopback()
}

#[cfg(test)]
#[path = "dhcp_tests.rs"]
mod tests;
