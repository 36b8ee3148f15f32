//! A binding in few bytes, as most are: a home agent may have sixteen million.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use homeport_wire::{PortId, TenantId};

use crate::action::CareOf;
use crate::binding::{MobilityBinding, Registration, Registrations};
use crate::message::{Identification, RequestFlags};
use crate::{Encapsulation, Instant, Lifetime};

/// A binding of one tunnel, without mobile networks, and not in question. 45 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed)]
pub(super) struct PlainBinding {
    identification: Identification,
    registered_at: Instant,
    /// Seconds of the monotonic clock.
    since: u32,
    address: Ipv4Addr,
    registered: Ipv4Addr,
    /// A GRE key or a UDP port.
    parameter: u32,
    /// Zero: none.
    foreign_agent: Ipv4Addr,
    lifetime: Lifetime,
    /// [`NO_LINK`]: none.
    home_link: PortId,
    /// Seconds; zero: none.
    keepalive: u16,
    /// [`ABSENT`], or what kind of tunnel it is.
    pub(super) kind: u8,
    flags: RequestFlags,
    is: u8,
}

const NO_LINK: PortId = PortId(u16::MAX);

/// There is no binding.
pub(super) const ABSENT: u8 = 0;
/// The binding is kept beside the node's record.
pub(super) const ELSEWHERE: u8 = 1;
const IP_IN_IP: u8 = 2;
const MINIMAL: u8 = 3;
const GRE: u8 = 4;
const KEYED_GRE: u8 = 5;
const UDP: u8 = 6;
const PLAIN_UDP: u8 = 7;

// What is so of a plain binding, a bit each.
const REVERSE: u8 = 1;
const CO_LOCATED: u8 = 2;
const BROADCAST: u8 = 4;
const UNPROVEN: u8 = 8;
const SET_DF: u8 = 16;
const CLAMP_MSS: u8 = 32;

impl PlainBinding {
    pub(super) const NONE: PlainBinding = PlainBinding {
        identification: Identification(0),
        registered_at: Instant(0),
        since: 0,
        address: Ipv4Addr::UNSPECIFIED,
        registered: Ipv4Addr::UNSPECIFIED,
        parameter: 0,
        foreign_agent: Ipv4Addr::UNSPECIFIED,
        lifetime: Lifetime::ZERO,
        home_link: NO_LINK,
        keepalive: 0,
        kind: ABSENT,
        flags: RequestFlags(0),
        is: 0,
    };

    /// The binding is kept beside the node's record.
    pub(super) const KEPT_ELSEWHERE: PlainBinding =
        PlainBinding { kind: ELSEWHERE, ..PlainBinding::NONE };

    /// `None`: it is not plain.
    pub(super) fn of(binding: &MobilityBinding) -> Option<Self> {
        let [registration] = binding.registrations.as_slice() else { return None };
        let Registration { care_of, .. } = *registration;
        let expires = care_of.lifetime.duration().map(|lasts| registration.registered_at + lasts);
        let keepalive = registration.keepalive.unwrap_or_default();
        let seconds = u16::try_from(keepalive.as_secs()).ok()?;
        let is_plain = registration.proof.is_none()
            && binding.mobile_networks.is_empty()
            && registration.expires == expires
            && registration.foreign_agent.is_none_or(|agent| !agent.is_unspecified())
            && registration.keepalive.is_none_or(|interval| !interval.is_zero())
            && keepalive == Duration::from_secs(u64::from(seconds))
            && binding.home_link != Some(NO_LINK);
        if !is_plain {
            return None;
        }
        let (kind, parameter) = match care_of.encapsulation {
            Encapsulation::IpInIp => (IP_IN_IP, 0),
            Encapsulation::Minimal => (MINIMAL, 0),
            Encapsulation::Gre { key: None } => (GRE, 0),
            Encapsulation::Gre { key: Some(key) } => (KEYED_GRE, key),
            Encapsulation::Udp { peer_port } => (UDP, u32::from(peer_port)),
            Encapsulation::PlainUdp { peer_port } => (PLAIN_UDP, u32::from(peer_port)),
        };
        let is = [
            (care_of.reverse_tunnel, REVERSE),
            (care_of.co_located, CO_LOCATED),
            (care_of.broadcast, BROADCAST),
            (care_of.unproven, UNPROVEN),
            (binding.set_df, SET_DF),
            (binding.clamp_mss, CLAMP_MSS),
        ];
        let is = is.into_iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit);
        Some(PlainBinding {
            identification: registration.identification,
            registered_at: registration.registered_at,
            since: seconds_of(binding.since),
            address: care_of.address,
            registered: care_of.registered,
            parameter,
            foreign_agent: registration.foreign_agent.unwrap_or(Ipv4Addr::UNSPECIFIED),
            lifetime: care_of.lifetime,
            home_link: binding.home_link.unwrap_or(NO_LINK),
            keepalive: seconds,
            kind,
            flags: registration.flags,
            is,
        })
    }

    const fn encapsulation(self) -> Encapsulation {
        #[expect(clippy::cast_possible_truncation, reason = "a port was widened")]
        let peer_port = self.parameter as u16;
        match self.kind {
            MINIMAL => Encapsulation::Minimal,
            GRE => Encapsulation::Gre { key: None },
            KEYED_GRE => Encapsulation::Gre { key: Some(self.parameter) },
            UDP => Encapsulation::Udp { peer_port },
            PLAIN_UDP => Encapsulation::PlainUdp { peer_port },
            _ => Encapsulation::IpInIp,
        }
    }

    pub(super) fn expires(self) -> Option<Instant> {
        let registered_at = self.registered_at;
        self.lifetime.duration().map(|lasts| registered_at + lasts)
    }

    pub(super) fn binding(
        self,
        (tenant, home_agent): (TenantId, Ipv4Addr),
        home_address: Ipv4Addr,
    ) -> MobilityBinding {
        let is = |bit: u8| self.is & bit != 0;
        let care_of = CareOf {
            address: self.address,
            registered: self.registered,
            encapsulation: self.encapsulation(),
            reverse_tunnel: is(REVERSE),
            co_located: is(CO_LOCATED),
            broadcast: is(BROADCAST),
            unproven: is(UNPROVEN),
            lifetime: self.lifetime,
        };
        let keepalive = Duration::from_secs(u64::from(self.keepalive));
        let registration = Registration {
            care_of,
            flags: self.flags,
            identification: self.identification,
            registered_at: self.registered_at,
            expires: self.expires(),
            foreign_agent: Some(self.foreign_agent).filter(|agent| !agent.is_unspecified()),
            keepalive: Some(keepalive).filter(|interval| !interval.is_zero()),
            proof: None,
        };
        MobilityBinding {
            tenant,
            home_address,
            home_agent,
            home_link: Some(self.home_link).filter(|port| *port != NO_LINK),
            mobile_networks: Vec::new(),
            set_df: is(SET_DF),
            clamp_mss: is(CLAMP_MSS),
            since: Instant(u64::from(self.since) * NANOS),
            registrations: Registrations::from_buf([registration]),
        }
    }
}

const NANOS: u64 = 1_000_000_000;

fn seconds_of(at: Instant) -> u32 {
    u32::try_from(at.0 / NANOS).unwrap_or(u32::MAX)
}
