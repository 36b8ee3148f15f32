//! The foreign agent (RFC 5944 §3.7, RFC 3024 §4.2; RFC 2002 §3.7 by profile).
//!
//! A request from a visited link is judged, remembered as pending and relayed
//! from the care-of address, unchanged up to the mobile-home authentication. The
//! home agent's reply is matched to it by home address, home agent and the low half
//! of the identification, by its name while there is no home address (`names`), and
//! relayed to the station that asked. A visitor appears, or moves to another station,
//! only with an accepting reply.
//!
//! Codes given: 65 to 82 without 73, 88, 90, 97 to 99, 104 to 106 and 194; 73 with RFC 2002 only (it was
//! header compression). Code 64 ("reason unspecified") is given for nothing.
//!
//! Decisions where the text leaves a choice:
//! * Pending requests and denials are counted for a home address *and* station:
//!   another station's forgeries cannot use up a node's share.
//! * An accepted deregistration of a care-of address that is another agent's
//!   leaves the visitor as it is.
//! * A visitor is its home address and its home agent. While one visits, a request
//!   for its address with another home agent, from another station, is denied with
//!   65: nothing would tell the two apart. With overlapping addresses the station
//!   does, and only one that has the visitor's link-layer address on another link is
//!   denied. From the visitor's own station it is the same node, with a new home
//!   agent: it replaces what was there.
//! * A node with a co-located care-of address is relayed for, but is no visitor:
//!   nothing is forwarded for it here.
//! * Foreign-home authentication of a reply may be missing only where request
//!   and reply have a lifetime of zero; RFC 5944 §3.7.1 looks at the reply alone,
//!   which a forger could choose.
//! * With RFC 2002 deregistrations carry foreign-home authentication too.
//!
//! **Not done:** the reply 136 to a discovery that was relayed to a subnet broadcast comes from
//! another address than was asked, and is discarded.

mod answerers;
pub(crate) mod challenge;
mod judge;
mod names;
mod reply;
mod revocation;
mod tunnel;
mod visiting;

use self::challenge::Challenges;
pub(crate) use self::names::Asker;
use self::names::Names;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use homeport_wire::icmpv4::{DESTINATION_UNREACHABLE, Icmpv4Packet, TIME_EXCEEDED};
use homeport_wire::{IpProtocol, Ipv4Header, MOBILE_IP_PORT, MacAddress, PortId, UdpHeader};
use zerocopy::FromBytes;

use crate::agent::{AgentKey, Context, Datagram, Token};
use crate::config::{ForeignAgentConfig, Profile};
use crate::decision::{
    Answer, Cause, Decision, Judge, MAX_WORDS, SeenExtensions, Silence, Standing, Words,
};
use crate::event::Event;
use crate::home_agent::assignment::{is_any, requested};
use crate::limits::{FOREIGN_DENIAL_SPACING, Spacing};
use crate::message::extension::ExtensionError;
use crate::message::{
    AuthenticationKind, Extension, Located, MessageString, MessageWriter, Received,
    RegistrationReply, RegistrationRequest, ReplyCode,
};
use crate::revocation::{Notice, RevocationList};
use crate::security::MobilitySecurityAssociation;
use crate::visitor::{
    PendingKey, PendingList, PendingRegistration, Station, Visitor, VisitorList, pending_range,
};
use crate::{Action, Payload, Transmit};

/// All mobility agents on a link (RFC 5944 §2.3).
pub(crate) const MOBILITY_AGENTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 11);

const RELAY_TTL: u8 = 64;

/// One foreign agent.
#[derive(Debug)]
pub struct ForeignAgent {
    config: ForeignAgentConfig,
    visitors: VisitorList,
    pending: PendingList,
    denials: Spacing<(Ipv4Addr, MacAddress)>,
    challenges: Challenges,
    names: Names,
    revocations: RevocationList,
    /// Who is to be told that its registration is gone.
    notices: Vec<Notice>,
}

impl ForeignAgent {
    pub(crate) fn new(config: ForeignAgentConfig) -> Self {
        ForeignAgent {
            config,
            visitors: VisitorList::new(),
            pending: BTreeMap::new(),
            denials: Spacing::new(FOREIGN_DENIAL_SPACING),
            challenges: Challenges::default(),
            names: Names::default(),
            revocations: RevocationList::default(),
            notices: Vec::new(),
        }
    }

    /// What it was told.
    pub const fn config(&self) -> &ForeignAgentConfig {
        &self.config
    }

    /// Its visitors, ordered by home address and home agent.
    pub fn visitors(&self) -> impl ExactSizeIterator<Item = &Visitor> {
        self.visitors.values()
    }

    /// The visitor of a home address and home agent.
    pub fn visitor(&self, home_address: Ipv4Addr, home_agent: Ipv4Addr) -> Option<&Visitor> {
        self.visitors.get(&(home_address, home_agent))
    }

    /// Requests that were relayed and not answered yet, ordered by home address.
    pub fn pending(&self) -> impl ExactSizeIterator<Item = &PendingRegistration> {
        self.pending.values()
    }

    /// Whether it takes no more nodes (flag B, RFC 5944 §2.1.1).
    pub fn is_busy(&self) -> bool {
        self.config.administratively_prohibited || self.visitors.len() >= self.config.max_visitors
    }

    /// Our address on a visited link.
    pub(crate) fn link_address(&self, port: PortId) -> Option<Ipv4Addr> {
        self.config.links.iter().find(|(link, _)| *link == port).map(|(_, address)| *address)
    }

    /// Whether a node's datagram to `destination` is for this agent.
    pub(crate) fn serves(&self, port: PortId, destination: Ipv4Addr) -> bool {
        self.link_address(port).is_some_and(|address| {
            destination == address
                || destination == self.config.care_of_address
                || destination == MOBILITY_AGENTS
        })
    }

    pub(crate) fn handle_request(
        &mut self,
        datagram: &Datagram<'_>,
        received: &Received<'_, RegistrationRequest>,
        context: &mut Context<'_>,
    ) {
        let seen = SeenExtensions::of(received);
        let mut decision = Decision::open(datagram, received.body, seen);
        let Some(link_address) = self.link_address(datagram.port) else {
            context.refuse(datagram, Cause::LinkNotServed);
            return context.tell(self.as_judge(), decision);
        };
        let is_ours = context.is_local(datagram.destination);
        let station = Station {
            port: datagram.port,
            mac: datagram.source_mac,
            source: datagram.source,
            destination: if is_ours { datagram.destination } else { link_address },
            source_port: datagram.source_port,
            request: received.body,
            request_len: datagram.payload.len(),
            home_agent: self.home_agent_of(received),
        };
        let asker = Asker::read(self, &station, received);
        decision.session = asker.label;
        context.ruling.standing = self.standing(&station, &asker);
        let judged = self.judge(datagram, &station, received, &asker, context);
        let judged = judged.and_then(|answer| {
            self.count_request(&station, &asker, context.now.monotonic)?;
            if let Some(answer) = answer {
                self.spend(&asker, answer, context)?;
            }
            Ok(answer.map(|answer| answer.issued))
        });
        match judged {
            Ok(challenge) => {
                context.ruling.cause = Cause::Relayed;
                context.ruling.answer = Answer::Relayed;
                self.relay_request(&station, received, asker, challenge, context);
            }
            Err(cause) => {
                context.ruling.detail = match received.defect() {
                    Some(ExtensionError::Unknown { extension_type }) => extension_type.into(),
                    defect => defect.and_then(ExtensionError::offset).unwrap_or(0),
                };
                context.refuse(datagram, cause);
                self.deny((&station, &asker), cause, context);
            }
        }
        context.tell(self.as_judge(), decision);
    }

    /// What is known of who sent a request before it is authenticated.
    fn standing(&self, station: &Station, asker: &Asker) -> Standing {
        let security = &self.config.security;
        let home_address = station.request.home_address;
        let is_visitor = self.visitor(home_address, station.home_agent).is_some();
        match is_visitor || security.knows_mobile_node(asker.peer(security)) {
            true => Standing::Claimed,
            false => Standing::Unknown,
        }
    }

    const fn as_judge(&self) -> Judge {
        Judge::ForeignAgent(self.config.care_of_address)
    }

    /// Whom a request is for (RFC 4433 §5.2); the unspecified address: nobody knows.
    fn home_agent_of(&self, received: &Received<'_, RegistrationRequest>) -> Ipv4Addr {
        let named = received.body.home_agent;
        let assigned = self.config.assigned_home_agent;
        match requested(received) {
            Some(requested) => requested,
            None if is_any(named) => assigned.unwrap_or(Ipv4Addr::UNSPECIFIED),
            None => named,
        }
    }

    /// Pending requests for a home address with this low half.
    fn pending_of(
        &self,
        home_address: Ipv4Addr,
        low: u32,
    ) -> impl Iterator<Item = (&PendingKey, &PendingRegistration)> {
        self.pending
            .range(pending_range(home_address, MacAddress([0; 6]), MacAddress::BROADCAST))
            .filter(move |((_, _, of, _), _)| *of == low)
    }

    /// RFC 5944 §3.7.2.2.
    fn relay_request(
        &mut self,
        station: &Station,
        received: &Received<'_, RegistrationRequest>,
        asker: Asker,
        challenge: Option<challenge::Issued>,
        context: &mut Context<'_>,
    ) {
        let request = &station.request;
        let authorized = authorized_len(received).and_then(|len| received.bytes().get(..len));
        let mut writer = MessageWriter::relay(authorized.unwrap_or_default());
        let is_ours = request.care_of_address == self.config.care_of_address;
        let registers = is_ours && !request.lifetime.is_zero();
        let mut own: Vec<Extension<'_>> = self.own_extensions(request);
        own.extend(asker.inserted.as_ref().map(|mac| Extension::SubNai(mac)));
        let revocation = registers.then(|| self.revocation_support(station, context)).flatten();
        own.extend(revocation.map(Extension::RevocationSupport));
        for extension in &own {
            // None of them is longer than its length can say.
            let _ = writer.extension(extension);
        }
        // §3.5.4: not to a deregistration, nor for a care-of address of another's.
        if (registers || self.config.profile == Profile::Rfc2002)
            && let Some(association) = self.config.security.first_agent(station.home_agent)
        {
            context.authenticate(&mut writer, AuthenticationKind::ForeignHome, association);
        }
        let data = writer.finish();
        let care_of_address = self.config.care_of_address;
        let udp = UdpHeader::new(
            (care_of_address, MOBILE_IP_PORT),
            (station.home_agent, MOBILE_IP_PORT),
            &data,
        );
        let pending = PendingRegistration {
            station: *station,
            encapsulating_delivery: asks_encapsulating_delivery(received),
            asked_udp_tunnel: own.iter().any(|one| matches!(one, Extension::UdpTunnelRequest(_))),
            asker,
            challenge,
            revocation,
            relayed: udp.map_or((0, 0), |udp| (udp.udp_len(), udp.checksum())),
        };
        // A request that is not answered within its own lifetime is over too.
        let lifetime = request.lifetime.duration().filter(|lifetime| !lifetime.is_zero());
        let timeout = self.config.pending_timeout;
        let timeout = lifetime.map_or(timeout, |lifetime| timeout.min(lifetime));
        let key = key_of(station);
        context.timers.arm(Token::Pending(self.key(), key), context.now.monotonic + timeout);
        self.pending.insert(key, pending);
        context.counters.requests_relayed += 1;
        context.push(Action::Transmit(Transmit {
            tenant: self.config.tenant,
            link: None,
            source: care_of_address,
            destination: station.home_agent,
            ttl: RELAY_TTL,
            payload: Payload::Udp {
                source_port: MOBILE_IP_PORT,
                destination_port: MOBILE_IP_PORT,
                data,
            },
        }));
    }

    /// RFC 5944 §3.7.2.3: our own answer, at most one a second to a node; none to what
    /// is discarded in silence.
    fn deny(
        &mut self,
        (station, asker): (&Station, &Asker),
        cause: Cause,
        context: &mut Context<'_>,
    ) {
        context.ruling.cause = cause;
        let Some(code) = cause.code() else { return };
        context.counters.count_denial(code);
        match cause {
            Cause::SessionsOfNaiFull => context.counters.visitors_over_nai_limit += 1,
            Cause::NaiRateLimited => context.counters.requests_over_nai_rate += 1,
            _ => {}
        }
        let request = &station.request;
        if !self.denials.allow((request.home_address, station.mac), context.now.monotonic) {
            context.counters.denials_suppressed += 1;
            context.ruling.answer = Answer::Silent(Silence::Rationed);
            return;
        }
        let lifetime = match code {
            ReplyCode::LIFETIME_TOO_LONG => self.config.max_lifetime,
            _ => request.lifetime,
        };
        let reply = RegistrationReply {
            code,
            lifetime,
            home_address: request.home_address,
            home_agent: request.home_agent,
            identification: request.identification,
        };
        let mut writer = MessageWriter::reply(&reply);
        if let Some(words) = self.words((station, asker), writer.len(), context) {
            let (subtype, text) = (MessageString::FOREIGN_AGENT, words.as_bytes());
            // It is never longer than its length can say.
            let _ = writer.extension(&Extension::MessageString { subtype, text });
        }
        self.send((station, asker), &reply, writer, context);
    }

    /// What our denial tells the node's user (RFC 4917): in a reply that is no longer
    /// than its request, unless the node has shown that it sent it.
    fn words(
        &self,
        (station, asker): (&Station, &Asker),
        so_far: usize,
        context: &Context<'_>,
    ) -> Option<Words> {
        if !self.config.message_strings {
            return None;
        }
        let ruling = &context.ruling;
        let association = self.mobile_node(asker);
        if association.is_some() && ruling.standing >= Standing::Copied {
            return Words::fitting(ruling, MAX_WORDS);
        }
        let signature = association.map_or(0, |one| one.extension_len());
        let challenge = self.challenge_extension_len();
        let len = so_far + MessageString::HEADER_LEN + challenge + signature;
        Words::fitting(ruling, station.request_len.checked_sub(len)?)
    }

    /// Sends a reply to the station that asked, without asking ARP for it.
    fn send(
        &mut self,
        (station, asker): (&Station, &Asker),
        reply: &RegistrationReply,
        mut writer: MessageWriter,
        context: &mut Context<'_>,
    ) {
        if let Some(challenge) = self.replied_challenge((station, asker), context) {
            // It always fits.
            let _ = writer.extension(&Extension::Challenge(&challenge));
        }
        // §3.7.3.2: appended where an association is shared.
        if let Some(association) = self.mobile_node(asker) {
            context.authenticate(&mut writer, AuthenticationKind::MobileForeign, &association);
        }
        // §3.7.2.3: the home address, or everybody where there is none yet.
        let destination = match reply.home_address {
            Ipv4Addr::UNSPECIFIED => Ipv4Addr::BROADCAST,
            home_address => home_address,
        };
        context.push(Action::Transmit(Transmit {
            tenant: self.config.tenant,
            link: Some((station.port, station.mac)),
            source: station.destination,
            destination,
            ttl: RELAY_TTL,
            payload: Payload::Udp {
                source_port: MOBILE_IP_PORT,
                destination_port: station.source_port,
                data: writer.finish(),
            },
        }));
        context.ruling.answer = Answer::Replied { code: reply.code, lifetime: reply.lifetime };
        context.push(Action::Event(Event::ForeignRegistration {
            tenant: self.config.tenant,
            home_address: reply.home_address,
            home_agent: reply.home_agent,
            code: reply.code.0,
            lifetime: reply.lifetime,
        }));
    }

    fn mobile_node(&self, asker: &Asker) -> Option<MobilitySecurityAssociation> {
        let security = &self.config.security;
        security.first_mobile_node(asker.peer(security))
    }

    /// An ICMP error about a datagram from the care-of address. Denies the
    /// request that it quotes; whether there was one.
    pub(crate) fn handle_unreachable(&mut self, icmp: &[u8], context: &mut Context<'_>) -> bool {
        let Some((cause, key)) = self.quoted(icmp) else { return false };
        let Some(pending) = self.take_pending(key, context) else { return false };
        self.give_up(&pending, cause, context);
        true
    }

    /// Denies a request that the home agent has not answered.
    fn give_up(&mut self, pending: &PendingRegistration, cause: Cause, context: &mut Context<'_>) {
        self.deny((&pending.station, &pending.asker), cause, context);
        self.tell_of(pending, SeenExtensions::default(), context);
    }

    fn quoted(&self, icmp: &[u8]) -> Option<(Cause, PendingKey)> {
        let packet = Icmpv4Packet::new_checked(icmp).ok()?;
        // RFC 792, RFC 1122 §3.2.2.1.
        let cause = match (packet.header().message_type, packet.header().code) {
            (DESTINATION_UNREACHABLE, 0 | 6 | 9 | 11) => Cause::HomeNetworkUnreachable,
            (DESTINATION_UNREACHABLE, 1 | 7 | 10 | 12) => Cause::HomeAgentHostUnreachable,
            (DESTINATION_UNREACHABLE, 3) => Cause::HomeAgentPortUnreachable,
            // Fragmentation needed is no verdict on the home agent.
            (DESTINATION_UNREACHABLE, 4) => return None,
            (DESTINATION_UNREACHABLE | TIME_EXCEEDED, _) => Cause::HomeAgentUnreachable,
            _ => return None,
        };
        let (ip, _) = Ipv4Header::ref_from_prefix(packet.body()).ok()?;
        let is_relayed = ip.version() == 4
            && ip.protocol() == IpProtocol::UDP
            && ip.fragment_offset() == 0
            && ip.source() == self.config.care_of_address;
        let udp = packet.body().get(ip.header_len().max(Ipv4Header::LEN)..)?;
        let (udp, payload) = UdpHeader::ref_from_prefix(udp).ok()?;
        if !is_relayed || udp.destination_port() != MOBILE_IP_PORT {
            return None;
        }
        // The quotation may end behind the UDP header: then its length and
        // checksum say which request it was.
        let quoted = RegistrationRequest::parse(payload).ok();
        let mut matching = self.pending.iter().filter(|(_, pending)| {
            let asked = &pending.station.request;
            pending.station.home_agent == ip.destination()
                && match quoted {
                    Some(quoted) => quoted == *asked,
                    None => pending.relayed == (udp.udp_len(), udp.checksum()),
                }
        });
        matching.next().map(|(key, _)| (cause, *key))
    }

    /// A pending request has had its time (RFC 5944 §3.7.1).
    pub(crate) fn handle_pending_timeout(&mut self, key: PendingKey, context: &mut Context<'_>) {
        if let Some(pending) = self.take_pending(key, context) {
            self.give_up(&pending, Cause::HomeAgentSilent, context);
        }
    }

    fn take_pending(
        &mut self,
        key: PendingKey,
        context: &mut Context<'_>,
    ) -> Option<PendingRegistration> {
        context.timers.stop(Token::Pending(self.key(), key));
        self.pending.remove(&key)
    }

    const fn key(&self) -> AgentKey {
        (self.config.tenant, self.config.care_of_address)
    }
}

const fn key_of(station: &Station) -> PendingKey {
    let request = &station.request;
    (request.home_address, station.mac, request.identification.low(), station.home_agent)
}

/// Bytes of a message up to the end of its last authorization-enabling extension:
/// what a foreign agent may not touch.
fn authorized_len<T>(received: &Received<'_, T>) -> Option<usize> {
    received.mobile_home_authentication()?;
    let authorizes = |one: &&Located<'_>| {
        one.extension.authentication_kind() == Some(AuthenticationKind::MobileHome)
            || matches!(one.extension, Extension::GeneralizedAuthentication { .. })
    };
    received.extensions().iter().rfind(authorizes).map(|one| one.end)
}

/// Whether the extension stands where a foreign agent may consume it: behind the
/// mobile-home authentication (RFC 3024 §3.3).
fn asks_encapsulating_delivery(received: &Received<'_, RegistrationRequest>) -> bool {
    let authorized = authorized_len(received).unwrap_or(0);
    received
        .extensions()
        .iter()
        .any(|one| one.offset >= authorized && one.extension == Extension::EncapsulatingDelivery)
}
