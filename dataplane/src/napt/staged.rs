//! Packets of established flows in stages, so that a burst waits for memory once and
//! not packet by packet: [`Napt::probe_outbound`] or [`Napt::probe_inbound`] for each
//! packet of the burst, then [`Napt::locate`] for each, then
//! [`Napt::translate_located`].
//!
//! Each stage reads what the one before has asked for, and asks for what the next
//! will read. The last does to packet, session and counters what [`Napt::outbound`]
//! and [`Napt::inbound`] do, or nothing at all: then those are for the packet, and
//! find in the cache what they need to open a session.

use std::time::Instant;

use homeport_wire::{MacAddress, TenantId};

use super::clock::Tick;
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
    /// [`Napt::tick`]: the inside host that it is from, or for. `None`, and nothing
    /// has changed: it takes [`Napt::outbound`] or [`Napt::inbound`].
    #[inline]
    pub(crate) fn translate_located(
        &mut self,
        packet: &mut [u8],
        probe: &Probe,
        now: Tick,
    ) -> Option<InsideHost> {
        let flow = self.flows.flows.get_mut(probe.flow)?;
        match &probe.key {
            Key::Outbound(key) => {
                // Another flow with this tag, or in this place by now.
                if flow.key != *key {
                    return None;
                }
                let transport = key.transport();
                let tcp = if transport == Transport::Tcp { plain::tcp(packet) } else { None };
                flow.refresh(tcp, From::Inside, &self.lifetimes, now);
                let external = flow.external;
                let next = self.identifications.get_mut(usize::from(external.place));
                plain::rewrite(packet, Side::Source, external.endpoint(), transport, next);
                self.counters.translated_out.add(1);
                Some(key.host())
            }
            Key::Inbound(key) => {
                if flow.inbound_key() != *key {
                    return None;
                }
                let transport = flow.key.transport();
                let tcp = if transport == Transport::Tcp { plain::tcp(packet) } else { None };
                if tcp.is_some() || self.config.inbound_refresh {
                    flow.refresh(tcp, From::Outside, &self.lifetimes, now);
                }
                let (inside, host) = (flow.key.inside(), flow.key.host());
                plain::rewrite(packet, Side::Destination, inside, transport, None);
                self.counters.translated_in.add(1);
                Some(host)
            }
        }
    }
}

#[cfg(test)]
mod tests;
