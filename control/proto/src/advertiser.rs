//! Agent advertisements on one link (RFC 5944 §2.1, §2.3; RFC 1256).
//!
//! Unasked ones go to all systems, at once when the agent starts and then at the
//! interval less a jitter of up to a quarter (RFC 1256 §4.2 spreads them between
//! three quarters and the whole of the maximum). A solicitation is answered at
//! once, to the station that asked alone, because a node that has just arrived
//! must not wait.
//!
//! **Not done:** a last advertisement with a lifetime of
//! zero when the agent stops.

use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use homeport_wire::MacAddress;

use crate::agent::{Context, Token, is_host};
use crate::config::{AdvertiserConfig, EncapsulationSet};
use crate::event::DiscardReason;
use crate::foreign_agent::challenge::Challenge;
use crate::limits::{SOLICITED_PER_SECOND, SOLICITED_SPACING, Spacing, TokenBucket};
use crate::message::advertisement::AgentFlags;
use crate::message::{AgentAdvertisement, AgentSolicitation, MobilityAgent};
use crate::revocation::Notice;
use crate::{Action, Instant, Payload, Transmit};

/// All systems on a link.
const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);

/// The shortest interval that is obeyed.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// What the foreign agent says of itself at the time of an advertisement.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tidings {
    /// Whether it takes no more nodes (flag B).
    pub(crate) busy: bool,
    /// Its challenge (RFC 4721 §2).
    pub(crate) challenge: Option<Challenge>,
}

/// Tells one link what agents are here.
#[derive(Debug)]
pub struct Advertiser {
    config: AdvertiserConfig,
    sequence: u16,
    solicitors: Spacing<MacAddress>,
    answers: TokenBucket,
}

impl Advertiser {
    pub(crate) const fn new(config: AdvertiserConfig, now: Instant) -> Self {
        Advertiser {
            config,
            sequence: 0,
            solicitors: Spacing::new(SOLICITED_SPACING),
            answers: TokenBucket::full(SOLICITED_PER_SECOND, now),
        }
    }

    /// What it was told.
    pub const fn config(&self) -> &AdvertiserConfig {
        &self.config
    }

    /// Takes a new configuration for the same tenant and link; the sequence goes
    /// on, because the agent has not been initialized anew.
    pub(crate) fn reconfigure(&mut self, config: AdvertiserConfig, context: &mut Context<'_>) {
        self.config = config;
        self.start(context);
    }

    /// Sends the first advertisement as soon as timers are looked at.
    pub(crate) fn start(&self, context: &mut Context<'_>) {
        let at = self.is_agent() && self.config.unsolicited;
        context.timers.set(self.token(), at.then_some(context.now.monotonic));
    }

    pub(crate) fn stop(&self, context: &mut Context<'_>) {
        context.timers.stop(self.token());
    }

    /// The interval is over: advertise, and wait for the next.
    pub(crate) fn handle_timeout(&mut self, tidings: Tidings, context: &mut Context<'_>) {
        let everyone = MacAddress::of_multicast(ALL_SYSTEMS);
        let sequence = self.next_sequence();
        self.advertise(ALL_SYSTEMS, everyone, sequence, tidings, context);
        let interval = self.config.interval.max(MIN_INTERVAL);
        // A quarter of the interval times a random number in 0..1.
        let jitter = ((interval / 4).as_nanos() * u128::from(context.random())) >> 32;
        let jitter = Duration::from_nanos(u64::try_from(jitter).unwrap_or(0));
        context.timers.arm(self.token(), context.now.monotonic + interval.saturating_sub(jitter));
    }

    /// Answers a solicitation.
    ///
    /// # Errors
    /// Why it gets no answer.
    pub(crate) fn handle_solicitation(
        &mut self,
        source_mac: MacAddress,
        source: Ipv4Addr,
        ttl: u8,
        icmp: &[u8],
        tidings: Tidings,
        context: &mut Context<'_>,
    ) -> Result<(), DiscardReason> {
        AgentSolicitation::parse(icmp).map_err(|_| DiscardReason::Malformed)?;
        context.counters.solicitations_received += 1;
        // RFC 5944 §2.2: the TTL of a solicitation is 1.
        if ttl != 1 {
            return Err(DiscardReason::BadTtl);
        }
        if !source_mac.is_unicast() {
            return Err(DiscardReason::Malformed);
        }
        if !self.is_agent() {
            return Err(DiscardReason::NotServed);
        }
        let now = context.now.monotonic;
        if !self.solicitors.allow(source_mac, now) || !self.answers.take(SOLICITED_PER_SECOND, now)
        {
            return Err(DiscardReason::RateLimited);
        }
        // RFC 5944 §2.3: the source need not be a neighbour's address.
        let destination = if is_host(source) { source } else { Ipv4Addr::BROADCAST };
        let sequence = self.next_sequence();
        self.advertise(destination, source_mac, sequence, tidings, context);
        Ok(())
    }

    /// Tells one station that its registration is gone: as if the agent had started
    /// anew (RFC 3543 §4.1).
    pub(crate) fn inform(&self, notice: &Notice, tidings: Tidings, context: &mut Context<'_>) {
        if self.is_agent() {
            self.advertise(notice.home_address, notice.mac, 0, tidings, context);
        }
    }

    /// RFC 5944 §2.3.2: a rollover must not look like a restart.
    fn next_sequence(&mut self) -> u16 {
        let sequence = self.sequence;
        self.sequence = sequence.checked_add(1).unwrap_or(256);
        sequence
    }

    fn advertise(
        &self,
        destination: Ipv4Addr,
        mac: MacAddress,
        sequence: u16,
        tidings: Tidings,
        context: &mut Context<'_>,
    ) {
        let config = &self.config;
        let advertisement = AgentAdvertisement {
            code: 0,
            lifetime: advertisement_lifetime(config.interval),
            routers: vec![(config.address, 0)],
            mobility: Some(MobilityAgent {
                sequence,
                registration_lifetime: config.registration_lifetime,
                flags: self.flags(tidings.busy),
                care_of_addresses: config.care_of_addresses.clone(),
            }),
            prefix_lengths: vec![config.prefix_len],
            challenge: tidings.challenge.map(Vec::from),
        };
        context.counters.advertisements_sent += 1;
        context.push(Action::Transmit(Transmit {
            tenant: config.tenant,
            link: Some((config.port, mac)),
            source: config.address,
            destination,
            ttl: 1,
            payload: Payload::Icmp(advertisement.emit()),
        }));
    }

    /// RFC 5944 §2.1.1: B and R are a foreign agent's only.
    fn flags(&self, busy: bool) -> AgentFlags {
        let config = &self.config;
        let foreign = self.is_foreign_agent();
        [
            (AgentFlags::HOME_AGENT, config.home_agent),
            (AgentFlags::FOREIGN_AGENT, foreign),
            (AgentFlags::BUSY, foreign && busy),
            (AgentFlags::REGISTRATION_REQUIRED, foreign && config.registration_required),
            (AgentFlags::REVERSE_TUNNEL, config.reverse_tunnel),
            (AgentFlags::MINIMAL, config.encapsulations.contains(EncapsulationSet::MINIMAL)),
            (AgentFlags::GRE, config.encapsulations.contains(EncapsulationSet::GRE)),
            (AgentFlags::UDP_TUNNEL, foreign && config.udp_tunnel),
            (AgentFlags::REVOCATION, config.revocation),
        ]
        .into_iter()
        .filter(|(_, set)| *set)
        .fold(AgentFlags::default(), |flags, (flag, _)| flags.with(flag))
    }

    const fn is_foreign_agent(&self) -> bool {
        !self.config.care_of_addresses.is_empty()
    }

    /// RFC 5944 §2.1.1: at least one of F and H, or there is nothing to say.
    const fn is_agent(&self) -> bool {
        self.config.home_agent || self.is_foreign_agent()
    }

    const fn token(&self) -> Token {
        Token::Advertiser(self.config.tenant, self.config.port)
    }
}

/// Three intervals in whole seconds, rounded up (RFC 5944 §2.3, RFC 1256 §4.1).
fn advertisement_lifetime(interval: Duration) -> u16 {
    let three = interval.max(MIN_INTERVAL).saturating_mul(3);
    let seconds = three.as_secs() + u64::from(three.subsec_nanos() > 0);
    u16::try_from(seconds).unwrap_or(u16::MAX)
}
