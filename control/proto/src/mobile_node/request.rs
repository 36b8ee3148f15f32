//! One registration: making its requests, and telling whether a reply is its
//! answer (RFC 5944 §3.6).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use homeport_wire::MOBILE_IP_PORT;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use super::negotiate::Asked;
use crate::config::MobileNodeConfig;
use crate::event::DiscardReason;
use crate::identification::fixed_point;
use crate::message::extension::ExtensionError;
use crate::message::{
    AuthenticationKind, DynamicHomeAgent, DynamicHomeAgentKind, Extension, Identification,
    MessageWriter, Received, RegistrationReply, RegistrationRequest, ReplyCode, RequestFlags,
    SessionCarriage, SessionName,
};
use crate::security::{MobilitySecurityAssociation, ReplayProtection};
use crate::{Instant, Lifetime, Now, NtpTime, ReverseTunnel};

/// Whom a registration goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The home link, whose agent has this address: a deregistration.
    Home(Ipv4Addr),
    /// The foreign agent of this address.
    ForeignAgent(Ipv4Addr),
    /// Nobody: the co-located care-of address.
    CoLocated(Ipv4Addr),
}

/// Whom a registration is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The Home Address field: unspecified asks for one.
    pub(super) home_address: Ipv4Addr,
    /// Which session of the node's NAI; `None`: the node itself.
    pub(super) sub_nai: Option<Arc<[u8]>>,
    /// Whether the address is given back; without a sub-NAI, those of all sessions.
    pub(super) releases: bool,
    /// Whether the home agent says which address it has, be one named or not.
    pub(super) is_given: bool,
}

impl Identity {
    /// The node itself.
    pub(super) const fn node(home_address: Ipv4Addr, is_given: bool) -> Self {
        Identity { home_address, sub_nai: None, releases: false, is_given }
    }

    /// Whether foreign agents that know nodes by home address can share a key with it:
    /// such know no sessions.
    pub(super) fn is_known_by_address(&self) -> bool {
        self.sub_nai.is_none() && !self.releases && !self.home_address.is_unspecified()
    }

    /// Its name, if the node has a NAI.
    fn name<'a>(&'a self, config: &'a MobileNodeConfig) -> Option<SessionName<'a>> {
        let sub_nai = self.sub_nai.as_deref().unwrap_or_default();
        config.nai.as_deref().map(|nai| SessionName { nai, sub_nai })
    }
}

/// A request that awaits its reply.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) identity: Identity,
    pub(super) target: Target,
    pub(super) care_of_address: Ipv4Addr,
    /// The lifetime asked for; zero deregisters.
    pub(super) lifetime: Lifetime,
    pub(super) asked: Asked,
    pub(super) identification: Identification,
    /// Which setting of the clock that was made by.
    clock: u32,
    /// The identification of whom it is for before that.
    pub(super) before: Option<NtpTime>,
    /// When the request that the reply must answer was sent.
    pub(super) sent_at: Instant,
    pub(super) retransmit_at: Instant,
    pub(super) interval: Duration,
    pub(super) attempts: u32,
    /// How often it was changed after a denial and sent again at once.
    pub(super) corrections: u32,
    /// Whether it was left open whom it is for (RFC 4433).
    pub(super) open: bool,
    pub(super) bytes: Vec<u8>,
}

/// What is remembered of whom requests are for: the node itself, or a session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// The high half of the next identification, with nonces.
    nonce: u32,
    /// The last identification, with timestamps.
    last: Option<NtpTime>,
}

impl Memory {
    /// Takes the nonce out of a reply that verified (RFC 5944 §5.7.2).
    pub(super) fn learn_nonce(&mut self, reply: Identification) {
        self.nonce = reply.high();
    }

    /// A request was denied: with code 133 the home agent remembers nothing of it
    /// (RFC 5944 §5.7).
    pub(super) fn denied(&mut self, pending: &Pending, code: ReplyCode) {
        if code == ReplyCode::IDENTIFICATION_MISMATCH {
            self.last = pending.before;
        }
    }

    /// A request was sent.
    pub(super) fn sent(&mut self, pending: &Pending) {
        self.last = Some(NtpTime(pending.identification.0));
    }
}

/// What makes the identification of requests (RFC 5944 §5.7).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Identifications {
    /// The home agent's clock less ours, in units of 2^-32 s: whole seconds, as
    /// that is what a denial tells.
    offset: i64,
    last: Option<NtpTime>,
    /// The one before the last of whoever is denied: none later of its was accepted.
    before: Option<NtpTime>,
    /// How often the clock was set.
    settings: u32,
}

impl Identifications {
    /// A new one for whom `memory` is of.
    fn next(
        &mut self,
        style: ReplayProtection,
        memory: Memory,
        now: NtpTime,
        rng: &mut ChaCha8Rng,
    ) -> Identification {
        match style {
            ReplayProtection::Nonces => Identification::from_halves(memory.nonce, rng.next_u32()),
            ReplayProtection::Timestamps { tolerance } => {
                let time = NtpTime(now.0.wrapping_add_signed(self.offset));
                // A denial of somebody else may have brought us back behind our own last
                // one; it counts as long as the home agent would take later ones.
                let ahead = fixed_point(tolerance).cast_signed();
                let own = memory.last.filter(|own| own.wrapping_distance(time) <= ahead);
                let later = |one: &NtpTime, other: &NtpTime| one.wrapping_distance(*other).cmp(&0);
                let last = [self.last, own].into_iter().flatten().max_by(later);
                // Each must be greater than those before it, even when the clock
                // stands or steps back (RFC 5944 §5.7.1). And its low half, which
                // alone tells whose reply a denial is, must not be the last one's.
                let next = match last {
                    Some(last) if time.wrapping_distance(last) <= 0 => just_after(last),
                    Some(last) if Identification(last.0).low() == Identification(time.0).low() => {
                        just_after(time)
                    }
                    _ => time,
                };
                self.last = Some(next);
                Identification(next.0)
            }
        }
    }

    /// Goes back to when a request was made that is denied; `false`: the clock was set
    /// since, and the denial says nothing of how it is now.
    pub(super) fn recall(&mut self, pending: &Pending) -> bool {
        let is_now = pending.clock == self.settings;
        if is_now {
            self.before = pending.before;
            self.last = Some(NtpTime(pending.identification.0));
        }
        is_now
    }

    /// Sets the clock by a denial with code 133 that verified: its high half
    /// has the home agent's seconds (RFC 5944 §5.7.1), which our timestamps may be
    /// ahead of by `tolerance`. Gives the offset in seconds.
    pub(super) fn learn_clock(
        &mut self,
        reply: Identification,
        now: NtpTime,
        tolerance: Duration,
    ) -> i64 {
        self.settings = self.settings.wrapping_add(1);
        let own = Identification(now.0).high();
        let mut seconds = i64::from(reply.high().wrapping_sub(own).cast_signed());
        // The reply tells whole seconds. When ours are the same already, we are
        // behind by a part of one; a second ahead is within any tolerance.
        if seconds == self.offset_seconds() {
            seconds += 1;
        }
        self.offset = seconds << 32;
        // What it accepted last may be ahead of its clock, and then its own time is
        // not later, and is denied too. So we go on just after that one, unless it is
        // too far ahead by now, which a clock that was set back leaves it, or that is
        // what was denied.
        self.last = self.before.filter(|before| {
            let seconds = Identification(before.0).high().wrapping_sub(reply.high());
            let is_near = u64::try_from(seconds.cast_signed())
                .is_ok_and(|seconds| Duration::from_secs(seconds) <= tolerance);
            is_near && self.last != Some(just_after(*before))
        });
        seconds
    }

    /// After what the next goes on.
    pub(super) const fn last(&self) -> Option<NtpTime> {
        self.last
    }

    /// The home agent's clock less ours, in seconds.
    pub(super) const fn offset_seconds(&self) -> i64 {
        self.offset >> 32
    }
}

/// The first moment later than this.
const fn just_after(time: NtpTime) -> NtpTime {
    NtpTime(time.0.wrapping_add(1))
}

/// The request's bytes. `foreign_agent` is the association with it, if there
/// is one.
pub(super) fn emit(
    config: &MobileNodeConfig,
    pending: &Pending,
    foreign_agent: Option<&MobilitySecurityAssociation>,
) -> Vec<u8> {
    let mut flags = RequestFlags::default();
    let away = !matches!(pending.target, Target::Home(_));
    let through_agent = matches!(pending.target, Target::ForeignAgent(_));
    if matches!(pending.target, Target::CoLocated(_)) {
        flags = flags.with(RequestFlags::CO_LOCATED);
    }
    // Who asks for a UDP tunnel should ask for a reverse tunnel too (RFC 3519
    // §3.1.5).
    let udp = pending.asked.udp;
    if away && (config.reverse_tunnel != ReverseTunnel::None || udp.is_some()) {
        flags = flags.with(RequestFlags::REVERSE_TUNNEL);
    }
    let mut writer = MessageWriter::request(&RegistrationRequest {
        flags: flags.with(pending.asked.flags),
        lifetime: pending.lifetime,
        home_address: pending.identity.home_address,
        home_agent: pending.home_agent(config),
        care_of_address: pending.care_of_address,
        identification: pending.identification,
    });
    write_name(&mut writer, config, &pending.identity);
    // Both are the home agent's, so its authentication covers them (RFC 3519
    // §4.4). They always fit: a challenge is as long as it came.
    if let Some(udp) = udp {
        let _ = writer.extension(&Extension::UdpTunnelRequest(udp));
    }
    if let Some(challenge) = &pending.asked.challenge {
        let _ = writer.extension(&Extension::Challenge(challenge));
    }
    if let (true, Some(framing)) = (pending.open, config.dynamic_home_agent) {
        let (kind, address) = (DynamicHomeAgentKind::Requested, config.home_agent);
        let requested = DynamicHomeAgent { kind, address, framing };
        let _ = writer.extension(&Extension::DynamicHomeAgent(requested));
    }
    if let Some(association) = config.security.first_agent(config.home_agent) {
        writer.authenticate(AuthenticationKind::MobileHome, association);
    }
    if through_agent && config.reverse_tunnel == ReverseTunnel::Encapsulating {
        // Behind the mobile-home authentication: it is the foreign agent's to
        // consume (RFC 3024 §3.3). It is empty, so it always fits.
        let _ = writer.extension(&Extension::EncapsulatingDelivery);
    }
    // RFC 4721 §3.1: behind the mobile-home authentication, under the mobile-foreign one.
    if let Some(challenge) = &pending.asked.foreign_challenge {
        let _ = writer.extension(&Extension::Challenge(challenge));
    }
    if let Some(association) = foreign_agent.filter(|_| through_agent) {
        writer.authenticate(AuthenticationKind::MobileForeign, association);
    }
    writer.finish()
}

/// Who it is for stands in front of the mobile-home authentication (RFC 2794 §3). The
/// lengths were seen to when the session began, and a NAI that does not fit is none.
fn write_name(writer: &mut MessageWriter, config: &MobileNodeConfig, identity: &Identity) {
    let Some(SessionName { nai, sub_nai }) = identity.name(config) else { return };
    if sub_nai.is_empty() {
        let _ = writer.extension(&Extension::NetworkAccessIdentifier(nai));
    } else if config.session_carriage == SessionCarriage::Combined {
        let _ = writer.extension(&Extension::CombinedSession { nai, sub_nai });
    } else {
        let _ = writer.extension(&Extension::NetworkAccessIdentifier(nai));
        let _ = writer.extension(&Extension::SubNai(sub_nai));
    }
    if identity.releases {
        let _ = writer.extension(&Extension::SessionRelease);
    }
}

/// Whether `reply` is about whom `pending` is for, by name and home address.
fn is_about(
    config: &MobileNodeConfig,
    pending: &Pending,
    reply: &Received<'_, RegistrationReply>,
) -> bool {
    let identity = &pending.identity;
    let address = reply.body.home_address;
    let same_address = address == identity.home_address;
    let Some(name) = identity.name(config) else { return same_address };
    let session = identity.sub_nai.is_some();
    let accepts = reply.body.code.is_accepted();
    let gives = accepts && !identity.releases && identity.is_given;
    match SessionName::of(reply) {
        // What the home agent says of it is its address from then on.
        Ok(Some(named)) if named.name == name && gives => {
            super::is_host(address) && (!session || address != config.home_address)
                || session && pending.lifetime.is_zero() && address.is_unspecified()
        }
        Ok(Some(named)) => named.name == name && same_address,
        // A foreign agent's denial need not say whom it is for; nor, when the node has
        // an address to be known by, a home agent that knows nothing of NAIs.
        Ok(None) => {
            let asks = identity.home_address.is_unspecified() && !identity.releases;
            same_address && !(accepts && (session || asks))
        }
        Err(_) => false,
    }
}

/// Whether `reply` answers `pending`, and is authentic (RFC 5944 §3.6.2.1).
///
/// # Errors
/// Why it must be discarded in silence.
pub(super) fn verify(
    config: &MobileNodeConfig,
    pending: &Pending,
    foreign_agent: Option<&MobilitySecurityAssociation>,
    reply: &Received<'_, RegistrationReply>,
    (source, source_port): (Ipv4Addr, u16),
) -> Result<(), DiscardReason> {
    match reply.defect() {
        Some(ExtensionError::Unknown { .. }) => return Err(DiscardReason::UnknownExtension),
        Some(_) => return Err(DiscardReason::Malformed),
        None => {}
    }
    let body = &reply.body;
    if source_port != MOBILE_IP_PORT
        || body.identification.low() != pending.identification.low()
        || !is_about(config, pending, reply)
    {
        return Err(DiscardReason::NotPending);
    }
    // A foreign agent's own denial has the field as it was.
    let unsigned = reply.mobile_home_authentication().is_none();
    if body.home_agent != config.home_agent
        && !(unsigned && body.home_agent == pending.home_agent(config))
    {
        return Err(DiscardReason::WrongHomeAgent);
    }
    let agent = match pending.target {
        Target::ForeignAgent(agent) => Some(agent),
        Target::Home(_) | Target::CoLocated(_) => None,
    };
    if let (Some(_), Some(association)) = (agent, foreign_agent) {
        // Whoever shares an association with the agent must insist on it
        // (RFC 5944 §3.6.2.1).
        let mut found = reply.authentications(AuthenticationKind::MobileForeign);
        match (found.next(), found.next()) {
            (Some(one), None) if reply.verify(one, association) => {}
            _ => return Err(DiscardReason::BadMobileForeignAuthenticator),
        }
    }
    let mut found = reply.authentications(AuthenticationKind::MobileHome);
    match (found.next(), found.next()) {
        (Some(one), None) => {
            let Extension::Authentication { spi, .. } = one.extension else {
                return Err(DiscardReason::NoAuthentication);
            };
            let association = config.security.agent(config.home_agent, spi);
            match association {
                None => Err(DiscardReason::NoSecurityAssociation),
                Some(association) if reply.verify(one, association) => Ok(()),
                Some(_) => Err(DiscardReason::BadMobileHomeAuthenticator),
            }
        }
        (Some(_), Some(_)) => Err(DiscardReason::BadMobileHomeAuthenticator),
        // A foreign agent's own denial cannot carry it; it is believed from the
        // agent that was asked, about this one request.
        (None, _) => match agent {
            Some(address)
                if body.code.is_from_foreign_agent()
                    && (source == address || source == pending.care_of_address) =>
            {
                Ok(())
            }
            _ => Err(DiscardReason::NoAuthentication),
        },
    }
}

/// The times of a new request's (re)transmission.
impl Pending {
    /// The least time between two requests, and the longest wait for a reply
    /// (RFC 5944 §3.6.3).
    pub(super) const MIN_INTERVAL: Duration = Duration::from_secs(1);
    /// No wait is longer than this, nor than the lifetime asked for.
    pub(super) const MAX_INTERVAL: Duration = Duration::from_secs(16);

    /// A registration that is not sent yet.
    pub(super) fn new(
        identity: Identity,
        target: Target,
        care_of_address: Ipv4Addr,
        lifetime: Lifetime,
        asked: Asked,
    ) -> Self {
        Pending {
            identity,
            target,
            care_of_address,
            lifetime,
            asked,
            identification: Identification::default(),
            clock: 0,
            before: None,
            sent_at: Instant::default(),
            retransmit_at: Instant::default(),
            interval: Self::MIN_INTERVAL,
            attempts: 0,
            corrections: 0,
            open: false,
            bytes: Vec::new(),
        }
    }

    /// Makes the bytes to send now: new ones with timestamps, the same as before
    /// with nonces (RFC 5944 §3.6.3).
    pub(super) fn prepare(
        &mut self,
        config: &MobileNodeConfig,
        foreign_agent: Option<&MobilitySecurityAssociation>,
        identifications: &mut Identifications,
        memory: Memory,
        now: Now,
        rng: &mut ChaCha8Rng,
    ) {
        let style = config
            .security
            .first_agent(config.home_agent)
            .map_or_else(ReplayProtection::default, |association| association.replay);
        if self.bytes.is_empty() || style != ReplayProtection::Nonces {
            self.identification = identifications.next(style, memory, now.ntp, rng);
            self.before = memory.last;
            self.clock = identifications.settings;
            self.bytes = emit(config, self, foreign_agent);
        }
        self.sent_at = now.monotonic;
        self.retransmit_at = now.monotonic + self.interval;
        let longest = self.lifetime.duration().filter(|lifetime| !lifetime.is_zero());
        let longest = longest.map_or(Self::MAX_INTERVAL, |lifetime| {
            lifetime.clamp(Self::MIN_INTERVAL, Self::MAX_INTERVAL)
        });
        self.interval = (self.interval * 2).min(longest);
        self.attempts = self.attempts.saturating_add(1);
    }

    /// The Home Agent field.
    fn home_agent(&self, config: &MobileNodeConfig) -> Ipv4Addr {
        if self.open { Ipv4Addr::UNSPECIFIED } else { config.home_agent }
    }

    /// Forgets the bytes, so that the next are new.
    pub(super) fn renew(&mut self) {
        self.bytes.clear();
        self.interval = Self::MIN_INTERVAL;
    }

    /// Forgets the bytes, so that the next are new, and counts a correction.
    pub(super) fn correct(&mut self) {
        self.renew();
        self.corrections = self.corrections.saturating_add(1);
    }
}
