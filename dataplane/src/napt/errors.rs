//! ICMP errors: translated with the packet that they quote, both ways (RFC 5508
//! §4). They change no mapping, no session and no timer (RFC 4787 REQ-12, RFC 5382
//! REQ-10, RFC 5508 REQ-6), and whom they come from is nothing to us (RFC 4787
//! REQ-12a): any router on the way may send them.

use std::net::Ipv4Addr;

use super::blocks::External;
use super::key::FlowKey;
use super::segment::{Endpoint, Segment, Side, Transport, replace_quoted};
use super::{InsideHost, Napt, Outcome};
use crate::verdict::DropReason;

impl Napt {
    /// An error about a packet that went out translated (RFC 5508 REQ-4): `about`
    /// has the external endpoint as its source.
    pub(super) fn inbound_error(
        &mut self,
        packet: &mut [u8],
        about: &Segment,
        to: Ipv4Addr,
    ) -> Outcome<InsideHost> {
        let (host, inside) = match self.inside_of(about, to) {
            Outcome::Translated(found) => found,
            Outcome::Unclaimed => return Outcome::Unclaimed,
            Outcome::Early(key) => return Outcome::Early(key),
            Outcome::Refused(reason) => return Outcome::Refused(reason),
        };
        let (outer, inner) = ((Side::Destination, host.address), (Side::Source, inside));
        replace_quoted(packet, outer, inner, about.transport);
        self.counters.errors_translated.add(1);
        Outcome::Translated(host)
    }

    /// The host that an error is for which came to `to`, and its endpoint that the error
    /// is about.
    pub(super) fn inside_of(
        &mut self,
        about: &Segment,
        to: Ipv4Addr,
    ) -> Outcome<(InsideHost, Endpoint)> {
        let external = Some(about.source).filter(|source| source.address == to);
        let external = external.and_then(|Endpoint { address, port }| {
            let place = self.blocks.place_of(address)?;
            self.blocks.contains(port).then_some(External { address, port, place })
        });
        let Some(external) = external else {
            // About a packet that the box itself sent.
            return Outcome::Unclaimed;
        };
        self.flows.settle();
        let mapping = self.blocks.mapping(about.transport, external);
        // It must be about a session that there is: who guesses a port only tells
        // nobody anything.
        let in_use = |id: &u32| self.flows.session(*id, about.destination).is_some();
        let Some(mapping) = mapping.filter(in_use).and_then(|id| self.flows.mappings.get(id))
        else {
            return if about.transport == Transport::IcmpQuery {
                Outcome::Unclaimed
            } else {
                Outcome::Refused(DropReason::NatNoMapping)
            };
        };
        let host = mapping.key.host();
        Outcome::Translated((host, Endpoint { address: host.address, port: mapping.key.port() }))
    }

    /// An error about a packet that came in translated (RFC 5508 REQ-5): `about` has
    /// the inside endpoint as its destination. `sender` is who tells: the host
    /// itself, or a router between.
    pub(super) fn outbound_error(
        &mut self,
        packet: &mut [u8],
        about: &Segment,
        sender: &InsideHost,
    ) -> Outcome<()> {
        let Some(external) = self.outside_of(about, sender) else {
            return Outcome::Refused(DropReason::NatNoMapping);
        };
        let outer = (Side::Source, external.address);
        replace_quoted(packet, outer, (Side::Destination, external), about.transport);
        self.counters.errors_translated.add(1);
        Outcome::Translated(())
    }

    /// The external endpoint of the one inside that an error is about, which `sender`
    /// tells.
    pub(super) fn outside_of(&mut self, about: &Segment, sender: &InsideHost) -> Option<Endpoint> {
        let Segment { transport, source: remote, destination: inside, .. } = *about;
        let station = sender.station.filter(|_| sender.address == inside.address);
        let host = InsideHost { tenant: sender.tenant, address: inside.address, station };
        let key = FlowKey::new(&host, transport, inside.port, remote);
        self.flows.settle();
        let id = self.flows.mapping(&self.flows.mapping_key(&key));
        let id = id.or_else(|| self.flows.mapping_of_any_station(&key));
        Some(self.flows.mappings.get(id?)?.external.endpoint())
    }

    /// Translates an ICMP error of this box about a packet that had come in
    /// translated and could not be delivered; anything else stays as it is. Whether
    /// it was translated.
    pub fn own_error(&mut self, packet: &mut [u8], own: &InsideHost) -> bool {
        match super::look(packet).map(|facts| facts.look) {
            Some(super::Look::Error(about)) => {
                self.outbound_error(packet, &about, own) == Outcome::Translated(())
            }
            _ => false,
        }
    }
}
