//! Whether a node is where the outer header of its request says. No signature
//! covers that header, so whoever stands between may write what he likes into it
//! (RFC 3519 §6.1.1), and would have a home agent flood whom he likes.
//!
//! *Path validation* goes beyond RFC 3519, in the manner of RFC 9000 §8: until an
//! echo request with a nonce has been answered from there, an outer address that
//! is not the signed care-of address gets at most three times the bytes that came
//! from it, of us and of what is forwarded. Who cannot answer in [`PROOF_TIME`]
//! loses the registration.
//!
//! *Challenge* is the other way to prove it, before there is any tunnel: the
//! request is denied, and the answer to the denial's challenge must come from
//! where the denial went.
//!
//! *Half-bound tunnels* (RFC 3519 §4.11) learn their port from the first
//! keepalive; then, like any other, they are asked for a proof.

use core::net::Ipv4Addr;
use core::time::Duration;
use homeport_wire::MOBILE_IP_PORT;
use homeport_wire::icmpv4::{ECHO_REPLY, ECHO_REQUEST, Icmpv4Packet};

use super::extra::CHALLENGE_LEN;
use super::node::Node;
use super::{Asked, HomeAgent};
use crate::agent::{Context, Token};
use crate::binding::{PathProof, Registration};
use crate::event::{DiscardReason, Event};
use crate::keepalive::{TunnelPath, TunnelledEcho};
use crate::limits::{CHALLENGE_LIFETIME, PROOF_TIME, PROVEN_PATHS, PROVEN_TIME};
use crate::message::Extension;
use crate::{Action, Encapsulation, Instant};

/// How long after the first question the next one is asked: soon once, because
/// one lost packet must not cost a second, and then every second.
fn question_after(asked: usize) -> Duration {
    match asked {
        0 => Duration::ZERO,
        1 => Duration::from_millis(100),
        more => Duration::from_secs(more as u64 - 1),
    }
}

/// An outer address and port that was shown to be a node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProvenPath {
    address: Ipv4Addr,
    port: u16,
    pub(super) at: Instant,
}

/// A challenge that a node was given and has not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    value: [u8; CHALLENGE_LEN],
    /// Where it was sent to: only there it is known.
    address: Ipv4Addr,
    port: u16,
    pub(super) expires: Instant,
}

impl HomeAgent {
    /// Whether a request comes from an address and port that were shown to be the
    /// node's before.
    pub(super) fn is_known_path(&self, asked: &Asked<'_, '_>, context: &Context<'_>) -> bool {
        let (address, port) = (asked.datagram.source, asked.datagram.source_port);
        self.knows_path(asked.request.home_address, address, port, context.now.monotonic)
    }

    fn knows_path(
        &self,
        home_address: Ipv4Addr,
        address: Ipv4Addr,
        port: u16,
        now: Instant,
    ) -> bool {
        self.nodes.of(home_address).and_then(Node::more).is_some_and(|more| {
            more.proven.iter().any(|path| {
                (path.address, path.port) == (address, port)
                    && now.saturating_since(path.at) < PROVEN_TIME
            })
        })
    }

    /// Remembers where a node was, in front of the places before.
    pub(super) fn remember_path(
        &mut self,
        home_address: Ipv4Addr,
        address: Ipv4Addr,
        port: u16,
        context: &Context<'_>,
    ) {
        let at = context.now.monotonic;
        let proven = &mut self.node(home_address).make_more(at).proven;
        proven.retain(|path| (path.address, path.port) != (address, port));
        proven.push_front(ProvenPath { address, port, at });
        proven.truncate(PROVEN_PATHS);
    }

    /// A new challenge for the node, known only to who gets the denial. The one
    /// before, if there was one, is void.
    pub(super) fn challenge(
        &mut self,
        asked: &Asked<'_, '_>,
        context: &mut Context<'_>,
    ) -> [u8; CHALLENGE_LEN] {
        let mut value = [0; CHALLENGE_LEN];
        for chunk in value.as_chunks_mut::<4>().0 {
            *chunk = context.random().to_be_bytes();
        }
        let challenge = Challenge {
            value,
            address: asked.datagram.source,
            port: asked.datagram.source_port,
            expires: context.now.monotonic + CHALLENGE_LIFETIME,
        };
        let node = self.node(asked.request.home_address);
        node.make_more(context.now.monotonic).challenge = Some(challenge);
        value
    }

    /// Whether a request answers the challenge, from where it was sent to and in
    /// time.
    pub(super) fn answers_challenge(&self, asked: &Asked<'_, '_>, context: &Context<'_>) -> bool {
        let node = self.nodes.of(asked.request.home_address).and_then(Node::more);
        node.and_then(|more| more.challenge).is_some_and(|challenge| {
            let datagram = asked.datagram;
            (challenge.address, challenge.port) == (datagram.source, datagram.source_port)
                && context.now.monotonic < challenge.expires
                && asked
                    .signed_extensions()
                    .any(|extension| extension == Extension::Challenge(&challenge.value))
        })
    }

    /// A challenge is good for one answer, right or wrong.
    pub(super) fn spend_challenge(&mut self, asked: &Asked<'_, '_>) {
        let answered =
            asked.signed_extensions().any(|extension| matches!(extension, Extension::Challenge(_)));
        if answered && let Some(more) = self.node(asked.request.home_address).more_mut() {
            more.challenge = None;
        }
    }

    /// A registration was answered: asks for the proof that it lacks, if it lacks
    /// one. `received` and `sent` are the bytes of request and reply.
    pub(super) fn question(
        &mut self,
        home_address: Ipv4Addr,
        care_of_address: Ipv4Addr,
        (received, sent): (usize, usize),
        context: &mut Context<'_>,
    ) {
        // Most tunnels lack none.
        if !self.is_questioned(home_address) {
            return;
        }
        let questioned = self.change_binding(home_address, context, |binding| {
            let mut registrations = binding.registrations.iter_mut();
            let registration = registrations.find(|one| one.care_of.registered == care_of_address);
            let proof = registration.and_then(|registration| registration.proof.as_mut());
            proof.map(|proof| {
                proof.allowance = (proof.allowance + 3 * received).saturating_sub(sent);
            })
        });
        if questioned.flatten().is_some() {
            self.ask(home_address, context);
        }
    }

    /// Asks again for what is due, and gives up what was not answered in time.
    pub(crate) fn ask(&mut self, home_address: Ipv4Addr, context: &mut Context<'_>) {
        let now = context.now.monotonic;
        let key = self.key();
        let Some(mut binding) = self.binding(home_address) else { return };
        let mut next = None;
        for registration in &mut binding.registrations {
            let path = TunnelPath {
                tenant: key.0,
                outer: (key.1, registration.care_of.address),
                encapsulation: registration.care_of.encapsulation,
                inner: (key.1, home_address),
            };
            let Some(proof) = &mut registration.proof else { continue };
            let end = proof.begun + PROOF_TIME;
            let begun = proof.begun;
            let at = |asked| begun + question_after(asked);
            while at(proof.asked) <= now && at(proof.asked) < end {
                let [_, identifier @ .., _, _, _] = proof.nonce.to_be_bytes();
                let nonce = proof.nonce.to_be_bytes();
                if let Some((packet, len)) = path.echo(ECHO_REQUEST, identifier, &nonce)
                    // One question is everybody's due: else nobody could answer.
                    && (len <= proof.allowance || proof.asked == 0)
                {
                    proof.allowance = proof.allowance.saturating_sub(len);
                    context.push(Action::Transmit(packet));
                }
                proof.asked += 1;
            }
            let due = end.min(at(proof.asked));
            next = Some(next.map_or(due, |before: Instant| before.min(due)));
        }
        self.change_binding(home_address, context, |kept| *kept = binding);
        context.timers.set(Token::Proof(key, home_address), next);
        self.give_up(home_address, context);
    }

    fn give_up(&mut self, home_address: Ipv4Addr, context: &mut Context<'_>) {
        let now = context.now.monotonic;
        let tenant = self.config.tenant;
        let mut failed = alloc::vec::Vec::new();
        self.retain_registrations(home_address, context, |registration| {
            let late = registration.proof.is_some_and(|proof| proof.begun + PROOF_TIME <= now);
            if late {
                failed.push(registration.care_of);
            }
            !late
        });
        for care_of in failed {
            context.counters.paths_unproven += 1;
            context.push(Action::Event(Event::PathUnproven {
                tenant,
                home_address,
                care_of_address: care_of.registered,
                address: care_of.address,
                port: port_of(care_of.encapsulation).unwrap_or(0),
            }));
        }
    }

    /// An echo message came out of a UDP tunnel of a node that has not proven its
    /// path, or whose port is not known yet.
    ///
    /// # Errors
    /// Why it is discarded.
    pub(crate) fn handle_keepalive(
        &mut self,
        echo: &TunnelledEcho<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), DiscardReason> {
        let home_address = echo.inner_source;
        if echo.inner_destination != self.config.address {
            return Err(DiscardReason::WrongHomeAgent);
        }
        let icmp = Icmpv4Packet::new_checked(echo.icmp).map_err(|_| DiscardReason::Malformed)?;
        let (icmp, data) = (icmp.header(), icmp.body());
        let index = self.tunnel_of(echo).ok_or(DiscardReason::StrayKeepalive)?;
        match (icmp.message_type, icmp.code) {
            (ECHO_REQUEST, 0) => {
                self.bind(echo, index, context);
                self.answer_keepalive(echo, index, icmp.rest, data, context);
                self.ask(home_address, context);
                Ok(())
            }
            (ECHO_REPLY, 0) => self.prove(echo, index, data, context),
            _ => Err(DiscardReason::StrayKeepalive),
        }
    }

    /// The tunnel that a message came out of, by its place among the binding's:
    /// right are address, kind and port, or the port is not known (RFC 3519 §4.6).
    fn tunnel_of(&self, echo: &TunnelledEcho<'_>) -> Option<usize> {
        let binding = self.binding(echo.inner_source)?;
        let place = |wanted: u16| {
            binding.registrations.iter().position(|registration| {
                let care_of = &registration.care_of;
                let (plain, port) = match care_of.encapsulation {
                    Encapsulation::Udp { peer_port } => (false, peer_port),
                    Encapsulation::PlainUdp { peer_port } => (true, peer_port),
                    _ => return false,
                };
                care_of.address == echo.source && plain == echo.plain && port == wanted
            })
        };
        place(echo.source_port).or_else(|| place(0))
    }

    fn registration_at(&self, home_address: Ipv4Addr, index: usize) -> Option<Registration> {
        self.binding(home_address)?.registrations.get(index).copied()
    }

    fn set_registration(
        &mut self,
        home_address: Ipv4Addr,
        index: usize,
        registration: Registration,
        context: &Context<'_>,
    ) {
        self.change_binding(home_address, context, |binding| {
            if let Some(before) = binding.registrations.get_mut(index) {
                *before = registration;
            }
        });
    }

    /// Whether a tunnel of the node is asked for a proof.
    fn is_questioned(&self, home_address: Ipv4Addr) -> bool {
        self.nodes.of(home_address).is_some_and(|node| !node.is_plain())
    }

    /// RFC 3519 §4.6: the first keepalive says which port a half-bound tunnel has.
    fn bind(&mut self, echo: &TunnelledEcho<'_>, index: usize, context: &mut Context<'_>) {
        let (home_address, port) = (echo.inner_source, echo.source_port);
        let known = self.knows_path(home_address, echo.source, port, context.now.monotonic);
        let Some(mut registration) = self.registration_at(home_address, index) else { return };
        if registration.care_of.encapsulation != (Encapsulation::Udp { peer_port: 0 }) {
            return;
        }
        registration.care_of.encapsulation = Encapsulation::Udp { peer_port: port };
        let wants_proof = registration.care_of.unproven && !known;
        registration.care_of.unproven = wants_proof;
        registration.proof = wants_proof.then(|| new_proof(context));
        let care_of_address = registration.care_of.registered;
        self.set_registration(home_address, index, registration, context);
        self.reinstall(home_address, context);
        context.counters.tunnels_bound += 1;
        context.push(Action::Event(Event::TunnelBound {
            tenant: self.config.tenant,
            home_address,
            care_of_address,
            address: echo.source,
            port,
        }));
    }

    /// RFC 3519 §4.9: two-way keepalives. The dataplane answers those of tunnels
    /// that nothing is asked of any more.
    fn answer_keepalive(
        &mut self,
        echo: &TunnelledEcho<'_>,
        index: usize,
        identifier: [u8; 4],
        data: &[u8],
        context: &mut Context<'_>,
    ) {
        let (tenant, home_agent) = self.key();
        let home_address = echo.inner_source;
        let Some(mut registration) = self.registration_at(home_address, index) else { return };
        let path = TunnelPath {
            tenant,
            outer: (home_agent, registration.care_of.address),
            encapsulation: registration.care_of.encapsulation,
            inner: (home_agent, home_address),
        };
        let Some((packet, len)) = path.echo(ECHO_REPLY, identifier, data) else { return };
        if let Some(proof) = &mut registration.proof {
            proof.allowance = (proof.allowance + 3 * echo.packet_len()).saturating_sub(len);
            self.set_registration(home_address, index, registration, context);
        }
        context.counters.keepalives_answered += 1;
        context.push(Action::Transmit(packet));
    }

    fn prove(
        &mut self,
        echo: &TunnelledEcho<'_>,
        index: usize,
        data: &[u8],
        context: &mut Context<'_>,
    ) -> Result<(), DiscardReason> {
        let home_address = echo.inner_source;
        let mut registration =
            self.registration_at(home_address, index).ok_or(DiscardReason::StrayKeepalive)?;
        match registration.proof {
            Some(proof) if proof.nonce.to_be_bytes() == data => {}
            _ => return Err(DiscardReason::StrayKeepalive),
        }
        registration.proof = None;
        registration.care_of.unproven = false;
        self.set_registration(home_address, index, registration, context);
        context.counters.paths_proven += 1;
        self.remember_path(home_address, echo.source, echo.source_port, context);
        self.reinstall(home_address, context);
        self.ask(home_address, context);
        Ok(())
    }

    fn reinstall(&mut self, home_address: Ipv4Addr, context: &mut Context<'_>) {
        if let Some(binding) = self.binding(home_address) {
            context.push(Action::InstallBinding(binding.state()));
        }
    }

    /// The home address that an address is reached by: itself, or that of the
    /// mobile router which has it behind it.
    pub(crate) fn bound_address(&self, address: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.is_bound(address) {
            return Some(address);
        }
        let behind = self.config.mobile_networks.iter();
        let router = behind.filter(|network| network.prefix.contains(address));
        let router = router.max_by_key(|network| network.prefix.prefix_len())?.mobile_router;
        self.is_bound(router).then_some(router)
    }

    /// Data came out of a node's UDP tunnel from another port: a NAT on the way has
    /// forgotten its mapping. Nothing is forwarded until the node registers anew
    /// (RFC 3519 §4.3); the operator is told, but no oftener than he can read.
    ///
    /// # Errors
    /// Why it is discarded: there is no such tunnel.
    pub(crate) fn handle_rebound(
        &mut self,
        home_address: Ipv4Addr,
        source: Ipv4Addr,
        source_port: u16,
        context: &mut Context<'_>,
    ) -> Result<(), DiscardReason> {
        let binding = self.binding(home_address).ok_or(DiscardReason::StrayKeepalive)?;
        let care_of = binding
            .registrations
            .iter()
            .map(|registration| registration.care_of)
            .find(|care_of| {
                let port = port_of(care_of.encapsulation).filter(|port| *port != 0);
                care_of.address == source && port.is_some_and(|port| port != source_port)
            })
            .ok_or(DiscardReason::StrayKeepalive)?;
        context.counters.rebounds += 1;
        if self.rebounds.allow(home_address, context.now.monotonic) {
            context.push(Action::Event(Event::Rebound {
                tenant: self.config.tenant,
                home_address,
                address: source,
                port: port_of(care_of.encapsulation).unwrap_or(MOBILE_IP_PORT),
                seen_port: source_port,
            }));
        }
        Ok(())
    }
}

/// The other end's port of a UDP tunnel; zero while it is not known.
pub(super) const fn port_of(encapsulation: Encapsulation) -> Option<u16> {
    match encapsulation {
        Encapsulation::Udp { peer_port } | Encapsulation::PlainUdp { peer_port } => Some(peer_port),
        _ => None,
    }
}

/// A question that nobody has been asked yet.
pub(super) fn new_proof(context: &mut Context<'_>) -> PathProof {
    let (high, low) = (context.random(), context.random());
    PathProof {
        nonce: u64::from(high) << 32 | u64::from(low),
        begun: context.now.monotonic,
        asked: 0,
        allowance: 0,
    }
}
