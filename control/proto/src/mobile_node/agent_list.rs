//! The agents that were heard on the link, and which of them to register with
//! (RFC 5944 §2.4).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use homeport_wire::MacAddress;

use super::session::MAX_SESSIONS;
use crate::config::{MobileNodeConfig, Prefix};
use crate::message::advertisement::{AgentAdvertisement, AgentFlags, MobilityAgent};
use crate::{Instant, ReverseTunnel};

/// How many agents of one link are kept; beyond it, newcomers are not.
pub const MAX_AGENTS: usize = 16;

/// How long an agent that denied or did not answer is passed over, at first;
/// doubled each time, up to [`MAX_REFUSAL`].
const MIN_REFUSAL: Duration = Duration::from_secs(10);
const MAX_REFUSAL: Duration = Duration::from_secs(320);

/// An agent on the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardAgent {
    /// Its address on the link: the source of its advertisements.
    pub address: Ipv4Addr,
    /// Its link-layer address.
    pub mac: MacAddress,
    /// What it said of itself last.
    pub mobility: MobilityAgent,
    /// The link's prefix, when it told a prefix length.
    pub prefix: Option<Prefix>,
    /// Whether it is an agent of the home link.
    pub is_home: bool,
    /// When it was heard last.
    pub heard_at: Instant,
    /// When it counts as gone if it is not heard again.
    pub expires_at: Instant,
    /// Its newest advertised challenge (RFC 4721).
    challenge: Option<Vec<u8>>,
    /// What its replies have given since, by the sub-NAI of whom they were for; without
    /// one, the node itself. To others that may be unknown.
    given: BTreeMap<Vec<u8>, Vec<u8>>,
    preference: i32,
    probed: bool,
    refused_until: Option<Instant>,
    refusals: u32,
}

impl HeardAgent {
    /// The care-of address to use with it.
    pub fn care_of_address(&self) -> Option<Ipv4Addr> {
        self.mobility.care_of_addresses.first().copied()
    }

    /// The newest challenge that a session, or the node itself, has to answer.
    pub(super) fn challenge_for(&self, sub_nai: &[u8]) -> Option<&[u8]> {
        self.given.get(sub_nai).or(self.challenge.as_ref()).map(Vec::as_slice)
    }

    /// Whether it serves visitors the way that `config` wants to be served.
    fn serves(&self, config: &MobileNodeConfig) -> bool {
        let flags = self.mobility.flags;
        let carries = config.reverse_tunnel == ReverseTunnel::None
            || flags.contains(AgentFlags::REVERSE_TUNNEL);
        flags.contains(AgentFlags::FOREIGN_AGENT)
            && !self.is_home
            && carries
            && self.care_of_address().is_some()
            && !self.mobility.registration_lifetime.is_zero()
    }

    /// When to ask whether it is still there: at two thirds of its lifetime, so
    /// that one lost advertisement costs nothing.
    fn probe_at(&self) -> Option<Instant> {
        let lifetime = self.expires_at.saturating_since(self.heard_at);
        (!self.probed).then(|| self.heard_at + lifetime * 2 / 3)
    }
}

/// What an advertisement changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// An agent that was not known.
    New,
    /// One that was.
    Known {
        /// It started anew, and so forgot its visitors (RFC 5944 §2.3.2).
        restarted: bool,
        /// It has another link-layer address now.
        moved: bool,
    },
    /// It says that it is none any more (RFC 1256 §4.1: lifetime 0).
    Gone,
    /// Not one to keep: no mobility agent, or more than [`MAX_AGENTS`].
    Ignored,
}

/// The agents of the link, in the order in which they were first heard.
#[derive(Clone, Debug, Default)]
pub(super) struct AgentList {
    agents: Vec<HeardAgent>,
}

impl AgentList {
    pub(super) fn as_slice(&self) -> &[HeardAgent] {
        &self.agents
    }

    pub(super) fn get(&self, address: Ipv4Addr) -> Option<&HeardAgent> {
        self.agents.iter().find(|agent| agent.address == address)
    }

    fn get_mut(&mut self, address: Ipv4Addr) -> Option<&mut HeardAgent> {
        self.agents.iter_mut().find(|agent| agent.address == address)
    }

    pub(super) fn clear(&mut self) {
        self.agents.clear();
    }

    pub(super) fn remove(&mut self, address: Ipv4Addr) {
        self.agents.retain(|agent| agent.address != address);
    }

    /// Takes in an advertisement.
    pub(super) fn hear(
        &mut self,
        address: Ipv4Addr,
        mac: MacAddress,
        advertisement: AgentAdvertisement,
        config: &MobileNodeConfig,
        now: Instant,
    ) -> Heard {
        let AgentAdvertisement { lifetime, routers, mobility, prefix_lengths, challenge, .. } =
            advertisement;
        let Some(mobility) = mobility else {
            return Heard::Ignored;
        };
        if lifetime == 0 {
            let known = self.get(address).is_some();
            self.remove(address);
            return if known { Heard::Gone } else { Heard::Ignored };
        }
        let own = routers.iter().position(|(router, _)| *router == address);
        let preference =
            own.and_then(|at| routers.get(at)).or(routers.first()).map_or(0, |(_, p)| *p);
        // The n-th prefix length is that of the n-th router address (RFC 5944
        // §2.1.2).
        let prefix = prefix_lengths
            .get(own.unwrap_or(0))
            .and_then(|len| Prefix::new(routers.get(own.unwrap_or(0))?.0, *len));
        let at_home =
            |router: Ipv4Addr| router == config.home_agent || config.home_prefix.contains(router);
        let is_home = mobility.flags.contains(AgentFlags::HOME_AGENT)
            && (at_home(address) || routers.iter().any(|(router, _)| at_home(*router)));
        let expires_at = now + Duration::from_secs(u64::from(lifetime));
        if let Some(known) = self.get_mut(address) {
            // Numbers start at 0 after a start, and go on from 256 after the
            // highest (RFC 5944 §2.3.2).
            let restarted = mobility.sequence < known.mobility.sequence && mobility.sequence < 256;
            let moved = known.mac != mac;
            known.mac = mac;
            known.mobility = mobility;
            known.prefix = prefix;
            known.is_home = is_home;
            known.preference = preference;
            if challenge.is_some() && challenge != known.challenge {
                known.challenge = challenge;
                known.given.clear();
            }
            known.heard_at = now;
            known.expires_at = expires_at;
            known.probed = false;
            return Heard::Known { restarted, moved };
        }
        if self.agents.len() >= MAX_AGENTS {
            return Heard::Ignored;
        }
        self.agents.push(HeardAgent {
            address,
            mac,
            mobility,
            prefix,
            is_home,
            heard_at: now,
            expires_at,
            challenge,
            given: BTreeMap::new(),
            preference,
            probed: false,
            refused_until: None,
            refusals: 0,
        });
        Heard::New
    }

    /// Takes out one agent whose lifetime is over.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<Ipv4Addr> {
        let address = self.agents.iter().find(|agent| agent.expires_at <= now)?.address;
        self.remove(address);
        Some(address)
    }

    /// An agent of the home link, if one is heard.
    pub(super) fn home(&self) -> Option<&HeardAgent> {
        self.agents.iter().find(|agent| agent.is_home)
    }

    /// Whether a node that registered with the agent may stay with it. That it
    /// is busy concerns newcomers only (RFC 5944 §2.1.1).
    pub(super) fn may_stay(
        &self,
        address: Ipv4Addr,
        config: &MobileNodeConfig,
        now: Instant,
    ) -> bool {
        self.get(address).is_some_and(|agent| agent.serves(config) && !refused(agent, now))
    }

    /// The best agent to register with: highest preference, then the one that
    /// was heard last.
    pub(super) fn best(
        &self,
        config: &MobileNodeConfig,
        except: Option<Ipv4Addr>,
        now: Instant,
    ) -> Option<Ipv4Addr> {
        self.agents
            .iter()
            .filter(|agent| agent.serves(config) && !refused(agent, now))
            .filter(|agent| !agent.mobility.flags.contains(AgentFlags::BUSY))
            .filter(|agent| Some(agent.address) != except)
            .max_by_key(|agent| (agent.preference, agent.heard_at))
            .map(|agent| agent.address)
    }

    /// Whether the link's agents demand registration through one of them, also
    /// of nodes with an address of their own (flag R, RFC 5944 §2.1.1).
    pub(super) fn require_registration(&self) -> bool {
        let flags = AgentFlags::FOREIGN_AGENT.with(AgentFlags::REGISTRATION_REQUIRED);
        self.agents.iter().any(|agent| agent.mobility.flags.contains(flags))
    }

    /// The agent denied, or did not answer: passes it over for a while.
    pub(super) fn refuse(&mut self, address: Ipv4Addr, now: Instant) {
        if let Some(agent) = self.get_mut(address) {
            let pause = (MIN_REFUSAL * (1 << agent.refusals.min(5))).min(MAX_REFUSAL);
            agent.refused_until = Some(now + pause);
            agent.refusals = agent.refusals.saturating_add(1);
        }
    }

    /// The agent has given a challenge in a reply to a session, or to the node itself.
    pub(super) fn challenge(&mut self, address: Ipv4Addr, sub_nai: &[u8], challenge: &[u8]) {
        if let Some(agent) = self.get_mut(address) {
            if agent.given.len() > MAX_SESSIONS {
                agent.given.clear();
            }
            agent.given.insert(sub_nai.to_vec(), challenge.to_vec());
        }
    }

    /// The agent accepted.
    pub(super) fn forgive(&mut self, address: Ipv4Addr) {
        if let Some(agent) = self.get_mut(address) {
            agent.refused_until = None;
            agent.refusals = 0;
        }
    }

    /// Notes that the agent is asked for now; `false` when it is not yet time,
    /// or was done.
    pub(super) fn probe(&mut self, address: Ipv4Addr, now: Instant) -> bool {
        let Some(agent) = self.get_mut(address) else { return false };
        let due = agent.probe_at().is_some_and(|at| at <= now);
        agent.probed |= due;
        due
    }

    /// When to ask for the agent.
    pub(super) fn probe_at(&self, address: Ipv4Addr) -> Option<Instant> {
        self.get(address)?.probe_at()
    }

    /// When the next agent expires or may be tried again.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let times = self.agents.iter();
        times.flat_map(|agent| agent.refused_until.into_iter().chain([agent.expires_at])).min()
    }

    /// Forgets refusals whose time is over, so that they no longer count in
    /// [`Self::timeout`].
    pub(super) fn end_refusals(&mut self, now: Instant) {
        for agent in &mut self.agents {
            agent.refused_until = agent.refused_until.filter(|until| *until > now);
        }
    }
}

fn refused(agent: &HeardAgent, now: Instant) -> bool {
    agent.refused_until.is_some_and(|until| until > now)
}
