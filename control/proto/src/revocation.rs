//! What home agents and foreign agents have in common when they revoke a registration
//! (RFC 3543): what was agreed on, what waits for its acknowledgement, what was revoked
//! lately.
//!
//! Time is the sender's clock in seconds, which both the Revocation Support extension
//! and the Revocation Identifier tell. A revocation is good when it is later than the
//! registration that it ends, and than what ended the one before: so each is good once,
//! and none from before a renewal (§3.5). What is sent is later than what was sent
//! before, whatever the clock does: there is a second between (§3.3), or one is added.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use core::net::Ipv4Addr;
use core::time::Duration;
use homeport_wire::{MOBILE_IP_PORT, MacAddress, PortId, TenantId};

use crate::agent::{Context, Datagram};
use crate::decision::{Answer, Cause, Standing};
use crate::limits::{MAX_PENDING_REVOCATIONS, REMEMBERED_REVOCATIONS, REVOCATION_ATTEMPTS};
use crate::message::extension::ExtensionError;
use crate::message::{
    AuthenticationKind, Identification, MessageWriter, Received, RegistrationRevocation,
    RevocationAcknowledgement,
};
use crate::security::{MobilitySecurityAssociation, SecurityAssociations};
use crate::{Action, Instant, Payload, Transmit};

/// Time to live of what agents send each other.
const TTL: u8 = 64;
/// No two messages about one binding within less (§3.3).
const SPACING: Duration = Duration::from_secs(1);

/// Home address, and the other agent's end: of a home agent's the care-of address, of a
/// foreign agent's the home agent.
pub(crate) type RevocationKey = (Ipv4Addr, Ipv4Addr);

/// What two agents have agreed on about a registration (§4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// Whether the home agent decides if the node is told (flag I).
    pub(crate) inform: bool,
    /// The other agent's timestamp, or its last identifier.
    pub(crate) theirs: u32,
    /// Ours.
    pub(crate) ours: u32,
}

/// The station that is to be told that its registration is gone (§4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) port: PortId,
    pub(crate) mac: MacAddress,
    pub(crate) home_address: Ipv4Addr,
}

/// A revocation that waits for its acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingRevocation {
    message: RegistrationRevocation,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    /// When the registration would have ended: not sent from then on (§4.2.2.1).
    ends: Option<Instant>,
    attempts: u32,
    /// The other agent's timestamp: its own revocation may cross ours.
    theirs: u32,
    /// Whom to tell, when the acknowledgement says so.
    pub(crate) notice: Option<Notice>,
}

/// A revocation to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revoked {
    pub(crate) from_home_agent: bool,
    pub(crate) inform: bool,
    pub(crate) home_address: Ipv4Addr,
    pub(crate) home_agent: Ipv4Addr,
    pub(crate) care_of_address: Ipv4Addr,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) agreement: Agreement,
    pub(crate) registered_at: Instant,
    pub(crate) ends: Option<Instant>,
    pub(crate) notice: Option<Notice>,
}

/// What was revoked by the other agent.
#[derive(Clone, Copy, Debug)]
struct Ended {
    identifier: u32,
    /// Flag I of the acknowledgement.
    inform: bool,
}

/// An agent's revocations.
#[derive(Debug, Default)]
pub(crate) struct RevocationList {
    pending: BTreeMap<RevocationKey, PendingRevocation>,
    ended: BTreeMap<RevocationKey, Ended>,
    order: VecDeque<RevocationKey>,
}

/// Whether `later` is after `earlier`, over the end of the numbers.
pub(crate) const fn is_after(later: u32, earlier: u32) -> bool {
    later.wrapping_sub(earlier).cast_signed() > 0
}

const fn later_of(one: u32, other: u32) -> u32 {
    if is_after(one, other) { one } else { other }
}

/// Our clock, in seconds.
pub(crate) const fn clock(context: &Context<'_>) -> u32 {
    Identification(context.now.ntp.0).high()
}

impl RevocationList {
    /// A registration has begun anew, or may: no revocation may end it any more. Gives
    /// the timestamp to register with, which what is under way is not later than.
    pub(crate) fn cancel(&mut self, key: RevocationKey, context: &Context<'_>) -> u32 {
        let before = self.pending.remove(&key);
        before.map_or(clock(context), |before| later_of(clock(context), before.message.identifier))
    }

    /// The other agent's timestamp of a registration: what has ended the one before is
    /// not later.
    pub(crate) fn since(&self, key: RevocationKey, timestamp: u32) -> u32 {
        self.ended.get(&key).map_or(timestamp, |ended| later_of(timestamp, ended.identifier))
    }

    /// Takes a revocation to be sent: when to call [`RevocationList::send`]. When as many
    /// wait as may, it is sent now and once.
    pub(crate) fn begin(
        &mut self,
        key: RevocationKey,
        revoked: &Revoked,
        tenant: TenantId,
        security: &SecurityAssociations,
        context: &mut Context<'_>,
    ) -> Option<Instant> {
        let pending = PendingRevocation {
            message: RegistrationRevocation {
                from_home_agent: revoked.from_home_agent,
                inform: revoked.inform,
                home_address: revoked.home_address,
                home_agent: revoked.home_agent,
                care_of_address: revoked.care_of_address,
                identifier: revoked.agreement.ours,
            },
            source: revoked.source,
            destination: revoked.destination,
            ends: revoked.ends,
            attempts: 0,
            theirs: revoked.agreement.theirs,
            notice: revoked.notice,
        };
        if self.pending.len() >= MAX_PENDING_REVOCATIONS && !self.pending.contains_key(&key) {
            pending.transmitted(tenant, security, context);
            return None;
        }
        self.pending.insert(key, pending);
        let earliest = revoked.registered_at + SPACING;
        if earliest > context.now.monotonic {
            return Some(earliest);
        }
        self.send(key, tenant, security, context)
    }

    /// Sends a revocation, once more or for the first time: when to send it again.
    pub(crate) fn send(
        &mut self,
        key: RevocationKey,
        tenant: TenantId,
        security: &SecurityAssociations,
        context: &mut Context<'_>,
    ) -> Option<Instant> {
        let pending = *self.pending.get(&key)?;
        let now = context.now.monotonic;
        let over = pending.ends.is_some_and(|ends| ends <= now);
        if over || pending.attempts >= REVOCATION_ATTEMPTS {
            self.pending.remove(&key);
            context.counters.revocations_unanswered += 1;
            return None;
        }
        let Some(sent) = pending.transmitted(tenant, security, context) else {
            // The association is gone, and with it all that was agreed on.
            self.pending.remove(&key);
            return None;
        };
        self.pending.insert(key, sent);
        Some(now + SPACING * (1 << pending.attempts.min(5)))
    }

    /// Takes the acknowledgement of what waits for it.
    pub(crate) fn acknowledge(
        &mut self,
        source: Ipv4Addr,
        acknowledgement: &RevocationAcknowledgement,
    ) -> Option<(RevocationKey, PendingRevocation)> {
        let (key, pending) = self.waiting(source, acknowledgement)?;
        self.pending.remove(&key);
        Some((key, pending))
    }

    /// Whether an acknowledgement may be of what waits for it.
    pub(crate) fn awaits(&self, source: Ipv4Addr, of: &RevocationAcknowledgement) -> bool {
        self.waiting(source, of).is_some()
    }

    fn waiting(
        &self,
        source: Ipv4Addr,
        acknowledgement: &RevocationAcknowledgement,
    ) -> Option<(RevocationKey, PendingRevocation)> {
        let (first, last) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        let home_address = acknowledgement.home_address;
        self.pending
            .range((home_address, first)..=(home_address, last))
            .find(|(_, pending)| {
                pending.destination == source
                    && pending.message.identifier == acknowledgement.identifier
                    && pending.attempts > 0
            })
            .map(|(key, pending)| (*key, *pending))
    }

    /// Remembers what the other agent has revoked, to tell a repetition from a replay.
    pub(crate) fn remember(&mut self, key: RevocationKey, identifier: u32, inform: bool) {
        if self.ended.insert(key, Ended { identifier, inform }).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED_REVOCATIONS
            && let Some(oldest) = self.order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }

    /// What waits for its acknowledgement.
    pub(crate) fn keys(&self) -> impl Iterator<Item = RevocationKey> {
        self.pending.keys().copied()
    }

    /// Judges a revocation of what is not registered any more. One that is later than
    /// what ended it is sent once more because its acknowledgement was lost, and one of
    /// what we have revoked ourselves has crossed ours: gives flag I of the
    /// acknowledgement.
    ///
    /// # Errors
    /// Why it is met with silence.
    pub(crate) fn repeated(&mut self, key: RevocationKey, identifier: u32) -> Result<bool, Cause> {
        if let (None, Some(pending)) = (self.ended.get(&key), self.pending.get(&key))
            && is_after(identifier, pending.theirs)
        {
            self.remember(key, identifier, false);
            return Ok(false);
        }
        let ended = self.ended.get_mut(&key).ok_or(Cause::RevocationNotRegistered)?;
        if !is_after(identifier, ended.identifier) {
            return Err(Cause::RevocationReplayed);
        }
        ended.identifier = identifier;
        Ok(ended.inform)
    }
}

impl PendingRevocation {
    /// Sends it with a later identifier, and gives it as it then is; `None` when there
    /// is no association to sign it under.
    fn transmitted(
        mut self,
        tenant: TenantId,
        security: &SecurityAssociations,
        context: &mut Context<'_>,
    ) -> Option<Self> {
        let association = security.first_agent(self.destination)?;
        self.attempts += 1;
        self.message.identifier = later_of(clock(context), self.message.identifier.wrapping_add(1));
        let mut writer = MessageWriter::revocation(&self.message);
        context.authenticate(&mut writer, AuthenticationKind::ForeignHome, association);
        context.counters.revocations_sent += 1;
        let ports = (MOBILE_IP_PORT, MOBILE_IP_PORT);
        transmit(tenant, (self.source, self.destination), ports, writer, context);
        Some(self)
    }

    /// Whether an acknowledgement with this flag I wants the node to be told: only what
    /// was asked for counts (§3.4).
    pub(crate) const fn is_to_inform(&self, inform: bool) -> bool {
        self.message.inform && inform
    }
}

/// The association that a message between agents is signed under: with its source, by
/// the one authentication that there is, at its end (§3.3, §3.4).
///
/// # Errors
/// Why it is met with silence.
pub(crate) fn authenticate<T>(
    datagram: &Datagram<'_>,
    received: &Received<'_, T>,
    security: &SecurityAssociations,
    context: &mut Context<'_>,
) -> Result<Arc<MobilitySecurityAssociation>, Cause> {
    match received.defect() {
        Some(ExtensionError::Unknown { extension_type }) => {
            context.ruling.detail = extension_type.into();
            return Err(Cause::UnknownExtension);
        }
        Some(_) => return Err(Cause::RevocationMalformed),
        None => {}
    }
    let mut found = received.authentications(AuthenticationKind::ForeignHome);
    let first = found.next().ok_or(Cause::RevocationUnsigned)?;
    let spi = first.extension.spi().ok_or(Cause::RevocationUnsigned)?;
    let association = security.agent(datagram.source, spi).ok_or(Cause::RevocationUnknownSpi)?;
    let is_last = first.end == received.bytes().len();
    if !is_last || !context.is_authentic(received, first, association) {
        return Err(Cause::RevocationWrongKey);
    }
    context.ruling.by(association);
    // Of a node that is not known here nothing is remembered for good.
    if context.ruling.standing == Standing::Claimed {
        context.ruling.standing = Standing::Copied;
    }
    Ok(Arc::clone(association))
}

/// Acknowledges what `datagram` has revoked.
pub(crate) fn acknowledge(
    datagram: &Datagram<'_>,
    revocation: &RegistrationRevocation,
    inform: bool,
    association: &MobilitySecurityAssociation,
    context: &mut Context<'_>,
) {
    let acknowledgement = RevocationAcknowledgement {
        inform: inform && revocation.inform,
        home_address: revocation.home_address,
        identifier: revocation.identifier,
    };
    let mut writer = MessageWriter::acknowledgement(&acknowledgement);
    context.authenticate(&mut writer, AuthenticationKind::ForeignHome, association);
    let addresses = (datagram.destination, datagram.source);
    let ports = (datagram.destination_port, datagram.source_port);
    transmit(datagram.tenant, addresses, ports, writer, context);
    context.ruling.answer = Answer::Acknowledged;
}

fn transmit(
    tenant: TenantId,
    (source, destination): (Ipv4Addr, Ipv4Addr),
    (source_port, destination_port): (u16, u16),
    writer: MessageWriter,
    context: &mut Context<'_>,
) {
    let data = writer.finish();
    context.push(Action::Transmit(Transmit {
        tenant,
        link: None,
        source,
        destination,
        ttl: TTL,
        payload: Payload::Udp { source_port, destination_port, data },
    }));
}
