//! Network address and port translation (RFC 2663, RFC 4787, RFC 5382, RFC 5508,
//! RFC 6888, RFC 7857).
//!
//! A [`Napt`] is the state of one NAPT on one RX core: which inside endpoints are
//! tied to which external ones, and the sessions over them. It translates IPv4
//! packets in place and knows no ports of the box, no routes and no links: where a
//! packet goes is its caller's business. All its memory is taken when it is made,
//! and everything in it is bounded.
//!
//! * [`config`] what it is made from, `blocks` whose external ports are whose,
//!   `flows` mappings and sessions, `tcp` how far a connection is, `segment` what is
//!   read and written in packets, `errors` ICMP errors, `fragments` fragments,
//!   [`log`] the records of blocks, [`counters`] what it counts, `foresee` what would
//!   become of a packet.
//!
//! A packet that could be translated but must not be has a
//! [`DropReason`]. Nothing that comes from outside ends
//! a mapping or a session before its time, and no ICMP message does.
//!
//! **Not done:** application-level gateways, on purpose (RFC 4787 REQ-10); port
//! control (RFC 6888 REQ-9); transports other than TCP, UDP and ICMP queries. Where
//! several cores share a NAPT, a host that speaks to another inside host's external
//! endpoint has, on the core of that endpoint, a mapping beside its own.

mod bits;
mod blocks;
mod buckets;
mod clock;
pub mod config;
pub mod counters;
mod emptiest;
mod errors;
mod flows;
mod foresee;
mod fragments;
mod key;
pub mod log;
mod openings;
mod ownership;
mod plain;
mod segment;
mod session;
mod slab;
mod staged;
mod sweep;
mod tcp;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use homeport_wire::{MacAddress, TenantId};

use self::blocks::PortBlocks;
pub(crate) use self::clock::Tick;
use self::clock::{Clock, Lifetimes};
pub use self::config::{Dependence, NaptConfig, Timeouts};
pub use self::counters::NaptCounters;
use self::flows::FlowTable;
pub use self::foresee::Foreseen;
use self::fragments::{Decision, Fragments};
pub use self::fragments::{Early, FragmentKey, MAX_EARLY};
use self::key::InboundKey;
use self::log::{LogQueue, NatLogRecord};
use self::openings::Rate;
pub use self::ownership::Owner;
pub use self::segment::{Endpoint, Transport};
use self::segment::{Facts, Look, Segment, Side, look, replace, replace_identification};
pub(crate) use self::staged::Probe;
use self::sweep::Sweep;
use crate::verdict::DropReason;

/// Who an inside endpoint belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InsideHost {
    /// Whose packets they are.
    pub tenant: TenantId,
    /// The host's address.
    pub address: Ipv4Addr,
    /// The station, if it is a visitor: what tells two with one home address apart,
    /// and goes with them to another link of this box. `None` for a host that is
    /// reached by its address.
    pub station: Option<MacAddress>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was translated in place.
    Translated(T),
    /// It is none of the NAPT's; it is as it was.
    Unclaimed,
    /// A fragment that came before the one that has its ports; it is as it was.
    Early(FragmentKey),
    /// It must not go on.
    Refused(DropReason),
}

/// A NAPT as the control core sees it.
#[derive(Clone, Debug)]
pub struct NaptShared {
    /// What it was made from.
    pub config: NaptConfig,
    /// What it counts. Only the worker adds.
    pub counters: Arc<NaptCounters>,
}

/// Says whether the state of an inside address is on this core.
type IsHere = Box<dyn Fn(Ipv4Addr) -> bool + Send>;

/// One NAPT on one core.
pub struct Napt {
    config: NaptConfig,
    number: u16,
    /// Whether an inside address's state is on this core; `None`: nobody has said.
    is_here: Option<IsHere>,
    blocks: PortBlocks,
    flows: FlowTable,
    fragments: Fragments,
    log: LogQueue,
    counters: Arc<NaptCounters>,
    clock: Clock,
    lifetimes: Lifetimes,
    rate: Rate,
    /// The next identification of what an external address sends (RFC 6864 §5.3.1).
    identifications: Box<[u16]>,
    sweep: Sweep,
}

impl std::fmt::Debug for Napt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Napt").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Napt {
    /// The state on `core`, one of `cores`, of the NAPT with this place in the
    /// configuration. `seed` is secret: what outsiders choose is hashed with it.
    pub fn new(config: NaptConfig, number: u16, seed: [u64; 2], (core, cores): (u32, u32)) -> Self {
        let [k0, k1] = seed;
        let random = k0.rotate_left(32) ^ k1 ^ (u64::from(number) << 8);
        let blocks = PortBlocks::new(&config, core, cores, random);
        Napt {
            number,
            is_here: (cores < 2).then(|| -> IsHere { Box::new(|_| true) }),
            flows: FlowTable::new(&config, blocks.capacity(), seed),
            fragments: Fragments::new(seed),
            log: LogQueue::new(),
            counters: Arc::default(),
            clock: Clock::default(),
            lifetimes: Lifetimes::new(&config.timeouts),
            rate: Rate::new(config.sessions_per_second_per_host),
            identifications: vec![random as u16; config.addresses.len()].into_boxed_slice(),
            sweep: Sweep::default(),
            blocks,
            config,
        }
    }

    /// The same, told whose state is on this core of several: only such hosts' sessions
    /// are opened in stages, as all others' packets go to another core.
    pub(crate) fn of_hosts(self, is_here: impl Fn(Ipv4Addr) -> bool + Send + 'static) -> Self {
        Napt { is_here: Some(Box::new(is_here)), ..self }
    }

    /// What it was made from.
    pub const fn config(&self) -> &NaptConfig {
        &self.config
    }

    /// What others may know of it.
    pub fn shared(&self) -> NaptShared {
        NaptShared { config: self.config.clone(), counters: Arc::clone(&self.counters) }
    }

    /// Whether an address is one of its external ones.
    pub fn is_external(&self, address: Ipv4Addr) -> bool {
        self.blocks.place_of(address).is_some()
    }

    /// The core that owns a port of its external addresses: the number of the
    /// port's block modulo the number of cores. `None`: no port of the NAPT.
    pub fn owner(&self, port: u16) -> Option<u32> {
        self.blocks.owner(port)
    }

    /// Whether an inbound packet's port is one of the NAPT's, or would be if its
    /// fragments told it.
    pub fn claims(&self, packet: &[u8]) -> bool {
        match look(packet).map(|facts| facts.look) {
            Some(Look::Session(segment)) => self.blocks.contains(segment.destination.port),
            Some(Look::Error(about)) => self.blocks.contains(about.source.port),
            Some(Look::Later | Look::Unsupported) | None => false,
        }
    }

    /// What the fragments are known by of which this packet is the first, if it is
    /// one: those that came before it go on when it has been translated.
    pub fn first_fragment(&self, packet: &[u8], host: Option<&InsideHost>) -> Option<FragmentKey> {
        let facts = look(packet).filter(|facts| facts.fragment && facts.look.has_ports())?;
        Some(FragmentKey::new(&facts, host.copied()))
    }

    /// Translates a packet of an inside host that goes to the outside: its source
    /// becomes the host's external endpoint. `packet` is an IPv4 packet whose
    /// header was found right, and nothing behind it.
    ///
    /// The caller says who sent it and that it goes outside: by which port is
    /// nothing to the NAPT. So a host may be given a temporary endpoint towards
    /// any link.
    pub fn outbound(&mut self, packet: &mut [u8], host: &InsideHost, now: Instant) -> Outcome<()> {
        let now = self.clock.time(now);
        let Some(facts) = look(packet) else {
            return Outcome::Refused(DropReason::MalformedIpv4);
        };
        if self.is_untranslated(facts.destination) {
            return Outcome::Unclaimed;
        }
        let key = || FragmentKey::new(&facts, Some(*host));
        let decision = match facts.look {
            Look::Error(about) => return self.outbound_error(packet, &about, host),
            Look::Unsupported => Decision::Refused(DropReason::NatUnsupported),
            Look::Later => match self.fragments.decided(&key(), now.tick) {
                Some(decision) => decision,
                None => return Outcome::Early(key()),
            },
            Look::Session(segment) => self.decide_outbound(&facts, &segment, host, now),
        };
        if facts.fragment && facts.look.has_ports() {
            self.fragments.decide(key(), decision, now.tick);
        }
        let (source, identification) = match decision {
            Decision::Outbound { source, identification } => (source, identification),
            Decision::Refused(reason) => return Outcome::Refused(reason),
            Decision::Inbound(_) | Decision::Unclaimed => return Outcome::Unclaimed,
        };
        let transport = match facts.look {
            Look::Session(segment) => Some(segment.transport),
            _ => None,
        };
        replace(packet, Side::Source, source, transport);
        if let Some(identification) = identification {
            replace_identification(packet, identification);
        }
        self.counters.translated_out.add(1);
        Outcome::Translated(())
    }

    /// Translates a packet that came to an external endpoint: its destination
    /// becomes the inside one. The host that it is for, if there is one.
    ///
    /// What is for no port of the NAPT is unclaimed: it is for the box itself.
    pub fn inbound(&mut self, packet: &mut [u8], now: Instant) -> Outcome<InsideHost> {
        let now = self.clock.time(now);
        let Some(facts) = look(packet) else {
            return Outcome::Refused(DropReason::MalformedIpv4);
        };
        let Some(place) = self.blocks.place_of(facts.destination) else {
            return Outcome::Unclaimed;
        };
        let key = || FragmentKey::new(&facts, None);
        let decision = match facts.look {
            Look::Error(about) => return self.inbound_error(packet, &about, facts.destination),
            // Another protocol is for the box itself: a tunnel, say.
            Look::Unsupported => Decision::Unclaimed,
            Look::Later => match self.fragments.decided(&key(), now.tick) {
                Some(decision) => decision,
                None => return Outcome::Early(key()),
            },
            Look::Session(segment) => self.decide_inbound(place, &segment, now),
        };
        if facts.fragment && facts.look.has_ports() {
            self.fragments.decide(key(), decision, now.tick);
        }
        let (host, port) = match decision {
            Decision::Inbound((host, port)) => (host, port),
            Decision::Refused(reason) => return Outcome::Refused(reason),
            Decision::Outbound { .. } | Decision::Unclaimed => return Outcome::Unclaimed,
        };
        let transport = match facts.look {
            Look::Session(segment) => Some(segment.transport),
            _ => None,
        };
        let inside = Endpoint { address: host.address, port };
        replace(packet, Side::Destination, inside, transport);
        self.counters.translated_in.add(1);
        Outcome::Translated(host)
    }

    /// Translates a packet between two inside hosts that know each other by their
    /// external endpoints (RFC 4787 REQ-9): both its ends. The host that it is for.
    pub fn hairpin(
        &mut self,
        packet: &mut [u8],
        host: &InsideHost,
        now: Instant,
    ) -> Outcome<InsideHost> {
        let Some(facts) = look(packet) else {
            return Outcome::Refused(DropReason::MalformedIpv4);
        };
        if self.is_answer(&facts, now) {
            // Of a host on an inside link that was spoken to by its own address.
            return self.inbound(packet, now);
        }
        let claimed = matches!(facts.look, Look::Later) || self.claims(packet);
        let decision = match (claimed, facts.look) {
            // It is for the box itself.
            (false, _) => Some(Decision::Unclaimed),
            (true, Look::Later) => None,
            (true, _) if self.config.hairpinning => None,
            (true, _) => Some(Decision::Refused(DropReason::NatFiltered)),
        };
        if let Some(decision) = decision {
            if facts.fragment {
                let tick = self.clock.tick(now);
                self.fragments.decide(FragmentKey::new(&facts, Some(*host)), decision, tick);
            }
            return match decision {
                Decision::Refused(reason) => Outcome::Refused(reason),
                _ => Outcome::Unclaimed,
            };
        }
        match self.outbound(packet, host, now) {
            Outcome::Translated(()) => self.inbound(packet, now),
            Outcome::Unclaimed => Outcome::Unclaimed,
            Outcome::Early(key) => Outcome::Early(key),
            Outcome::Refused(reason) => Outcome::Refused(reason),
        }
    }

    /// Whether a packet belongs to a session with its very source.
    fn is_answer(&mut self, facts: &Facts, now: Instant) -> bool {
        let (transport, port, remote) = match facts.look {
            Look::Session(Segment { transport, source, destination, .. }) => {
                (transport, destination.port, source)
            }
            Look::Error(Segment { transport, source, destination, .. }) => {
                (transport, source.port, destination)
            }
            Look::Later => {
                let decided =
                    self.fragments.decided(&FragmentKey::new(facts, None), self.clock.tick(now));
                return matches!(decided, Some(Decision::Inbound(_)));
            }
            Look::Unsupported => return false,
        };
        let external = Endpoint { address: facts.destination, port };
        self.flows.settle();
        self.flows.flow_in(&InboundKey::new(external, remote, transport)).is_some()
    }

    /// Hands the records of blocks to `send`, until it takes no more.
    pub fn drain_log(&mut self, send: impl FnMut(&NatLogRecord) -> bool) {
        self.log.drain(send);
    }

    /// RFC 6888 REQ-6.
    #[inline]
    fn is_untranslated(&self, destination: Ipv4Addr) -> bool {
        self.config.untranslated.iter().any(|(prefix, len)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(*len).min(32)).unwrap_or(0);
            (prefix.to_bits() ^ destination.to_bits()) & mask == 0
        })
    }
}

impl Look {
    const fn has_ports(&self) -> bool {
        matches!(self, Look::Session(_) | Look::Unsupported)
    }
}
