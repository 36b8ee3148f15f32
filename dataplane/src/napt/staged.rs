//! Packets of established flows in stages, so that a burst waits for memory once and
//! not packet by packet: [`Napt::probe_outbound`] or [`Napt::probe_inbound`] for each
//! packet of the burst, then [`Napt::locate`] for each, then
//! [`Napt::translate_located`].
//!
//! Each stage reads what the one before has asked for, and asks for what the next
//! will read. The last does to packet, session and counters what [`Napt::outbound`]
//! and [`Napt::inbound`] do, or nothing at all: then those are for the packet.
//!
//! A host that is known and has a port left opens its further sessions here, too. Its
//! first packet, what takes a block more or is refused, and what comes from outside
//! uninvited goes the general way; so does, where several cores share a NAPT, the first
//! packet of a host whose state is on another one.

use std::time::Instant;

use homeport_wire::{MacAddress, TenantId};

use super::clock::Tick;
use super::flows::Hashed;
use super::key::{FlowKey, InboundKey};
use super::segment::{Side, Transport};
use super::slab::NONE;
use super::tcp::From;
use super::{InsideHost, Napt, plain};

/// What is known so far of a packet's flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    key: Key,
    hash: u64,
    flow: u32,
}

#[derive(Clone, Copy, Debug)]
enum Key {
    Outbound(FlowKey),
    Inbound(InboundKey),
}

impl Napt {
    /// Begins a burst: its time. What the one before has opened can be located from
    /// now on.
    pub(crate) fn tick(&mut self, now: Instant) -> Tick {
        self.flows.settle();
        self.clock.tick(now)
    }

    /// Looks at a packet of an inside host that goes to the outside, and not to an
    /// address of the box, as [`Napt::outbound`] would take it. `None`: it is none
    /// that can be translated in stages.
    #[inline]
    pub(crate) fn probe_outbound(
        &self,
        packet: &[u8],
        tenant: TenantId,
        station: Option<MacAddress>,
    ) -> Option<Probe> {
        let ends = plain::read(packet, Side::Source)?;
        if self.is_untranslated(ends.destination) {
            return None;
        }
        let key = FlowKey::of_plain(&ends, tenant, station);
        let hash = self.flows.hash(&key);
        self.flows.outbound.prefetch(hash);
        Some(Probe { key: Key::Outbound(key), hash, flow: NONE })
    }

    /// Looks at a packet to an external address that did not come from an inside
    /// host, as [`Napt::inbound`] would take it. `None`: it is none that can be
    /// translated in stages.
    #[inline]
    pub(crate) fn probe_inbound(&self, packet: &[u8]) -> Option<Probe> {
        let ends = plain::read(packet, Side::Destination)?;
        let key = InboundKey::of_plain(&ends);
        let hash = self.flows.hash(&key);
        self.flows.inbound.prefetch(hash);
        Some(Probe { key: Key::Inbound(key), hash, flow: NONE })
    }

    /// Finds the number of the packet's flow.
    #[inline]
    pub(crate) fn locate(&self, probe: &mut Probe) {
        let table = match probe.key {
            Key::Outbound(_) => &self.flows.outbound,
            Key::Inbound(_) => &self.flows.inbound,
        };
        match (table.find(probe.hash, |_| true), &probe.key) {
            (Some(flow), _) => {
                probe.flow = flow;
                self.flows.flows.prefetch(flow);
            }
            (None, Key::Outbound(key)) => self.flows.prefetch_opening(key),
            (None, Key::Inbound(_)) => {}
        }
    }

    /// Translates the packet that `probe` is about, unchanged since, at the time of
    /// [`Napt::tick`]: the inside host that it is from, or for, and the checksum of its
    /// header now, as [`plain::rewrite`] tells it. `None`, and nothing has changed: it
    /// takes [`Napt::outbound`] or [`Napt::inbound`].
    #[inline(always)]
    pub(crate) fn translate_located(
        &mut self,
        packet: &mut [u8],
        probe: &Probe,
        now: Tick,
    ) -> Option<(InsideHost, u16)> {
        match &probe.key {
            Key::Outbound(key) => {
                let number = match probe.flow {
                    NONE => self.open_located(packet, key, probe.hash, now)?,
                    number => number,
                };
                let flow = self.flows.flows.get_mut(number)?;
                // Another flow with this tag, or in this place by now.
                if flow.key != *key {
                    return None;
                }
                let transport = key.transport();
                let tcp = if transport == Transport::Tcp { plain::tcp(packet) } else { None };
                flow.refresh(tcp, From::Inside, &self.lifetimes, now);
                let external = flow.external;
                let next = self.identifications.get_mut(usize::from(external.place));
                let to = external.endpoint();
                let checksum = plain::rewrite(packet, Side::Source, to, transport, next)?;
                self.counters.translated_out.add(1);
                Some((key.host(), checksum))
            }
            Key::Inbound(key) => {
                let flow = self.flows.flows.get_mut(probe.flow)?;
                if flow.inbound_key() != *key {
                    return None;
                }
                let transport = flow.key.transport();
                let tcp = if transport == Transport::Tcp { plain::tcp(packet) } else { None };
                if tcp.is_some() || self.config.inbound_refresh {
                    flow.refresh(tcp, From::Outside, &self.lifetimes, now);
                }
                let (inside, host) = (flow.key.inside(), flow.key.host());
                let to = Side::Destination;
                let checksum = plain::rewrite(packet, to, inside, transport, None)?;
                self.counters.translated_in.add(1);
                Some((host, checksum))
            }
        }
    }

    /// The number of the flow that a packet opens which is of none.
    #[inline(never)]
    fn open_located(&mut self, packet: &[u8], key: &FlowKey, hash: u64, now: Tick) -> Option<u32> {
        let is_tcp = key.transport() == Transport::Tcp;
        let tcp = if is_tcp { Some(plain::tcp(packet)?) } else { None };
        self.open_at_hand(&Hashed { key: *key, hash }, tcp, now)
    }
}

#[cfg(test)]
mod tests;
