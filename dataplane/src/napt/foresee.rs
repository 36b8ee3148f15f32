//! What would become of a packet, if it came now: no mapping and no session is opened,
//! kept or refused for it, nothing is counted and nothing remembered.
//!
//! **Not done:** whether a host that needs one block more would get it.

use std::time::Instant;

use super::blocks::External;
use super::clock::Time;
use super::fragments::Decision;
use super::key::{FlowKey, InboundKey};
use super::segment::{
    Endpoint, Facts, Look, Segment, Side, Transport, look, replace, replace_quoted,
};
use super::{Dependence, FragmentKey, InsideHost, Napt, Outcome};
use crate::verdict::DropReason;

/// What would become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreseen<T> {
    /// It is translated in place, as it would be; but for its identification.
    Translated(T),
    /// It would open a session, with an endpoint that is not chosen yet; it is as it
    /// was.
    Opens,
    /// It is none of the NAPT's.
    Unclaimed,
    /// A fragment that would wait for the first one.
    Waits,
    /// It would not go on.
    Refused(DropReason),
}

impl Napt {
    /// As [`Napt::outbound`].
    pub fn foresee_outbound(
        &mut self,
        packet: &mut [u8],
        host: &InsideHost,
        now: Instant,
    ) -> Foreseen<()> {
        let now = self.clock.time(now);
        let Some(facts) = look(packet) else {
            return Foreseen::Refused(DropReason::MalformedIpv4);
        };
        if self.is_untranslated(facts.destination) {
            return Foreseen::Unclaimed;
        }
        let (source, transport) = match facts.look {
            Look::Error(about) => {
                return match self.outside_of(&about, host) {
                    Some(external) => {
                        let outer = (Side::Source, external.address);
                        let inner = (Side::Destination, external);
                        replace_quoted(packet, outer, inner, about.transport);
                        Foreseen::Translated(())
                    }
                    None => Foreseen::Refused(DropReason::NatNoMapping),
                };
            }
            Look::Unsupported => return Foreseen::Refused(DropReason::NatUnsupported),
            Look::Later => {
                let key = FragmentKey::new(&facts, Some(*host));
                match self.fragments.decided(&key, now.tick) {
                    Some(Decision::Outbound { source, .. }) => (source, None),
                    Some(Decision::Refused(reason)) => return Foreseen::Refused(reason),
                    Some(Decision::Inbound(_) | Decision::Unclaimed) => return Foreseen::Unclaimed,
                    None => return Foreseen::Waits,
                }
            }
            Look::Session(segment) => match self.foresee_session(&segment, host, now) {
                Ok(Some(source)) => (source, Some(segment.transport)),
                Ok(None) => return Foreseen::Opens,
                Err(reason) => return Foreseen::Refused(reason),
            },
        };
        replace(packet, Side::Source, source, transport);
        Foreseen::Translated(())
    }

    /// As [`Napt::inbound`].
    pub fn foresee_inbound(&mut self, packet: &mut [u8], now: Instant) -> Foreseen<InsideHost> {
        let now = self.clock.time(now);
        let Some(facts) = look(packet) else {
            return Foreseen::Refused(DropReason::MalformedIpv4);
        };
        let Some(place) = self.blocks.place_of(facts.destination) else {
            return Foreseen::Unclaimed;
        };
        let (decision, transport) = match facts.look {
            Look::Error(about) => {
                return match self.inside_of(&about, facts.destination) {
                    Outcome::Translated((host, inside)) => {
                        let outer = (Side::Destination, host.address);
                        replace_quoted(packet, outer, (Side::Source, inside), about.transport);
                        Foreseen::Translated(host)
                    }
                    Outcome::Unclaimed => Foreseen::Unclaimed,
                    Outcome::Early(_) => Foreseen::Waits,
                    Outcome::Refused(reason) => Foreseen::Refused(reason),
                };
            }
            Look::Unsupported => return Foreseen::Unclaimed,
            Look::Later => {
                match self.fragments.decided(&FragmentKey::new(&facts, None), now.tick) {
                    Some(decision) => (decision, None),
                    None => return Foreseen::Waits,
                }
            }
            Look::Session(segment) => {
                (self.foresee_guest(place, &segment, now), Some(segment.transport))
            }
        };
        match decision {
            Decision::Inbound((host, port)) => {
                let inside = Endpoint { address: host.address, port };
                replace(packet, Side::Destination, inside, transport);
                Foreseen::Translated(host)
            }
            Decision::Refused(reason) => Foreseen::Refused(reason),
            Decision::Outbound { .. } | Decision::Unclaimed => Foreseen::Unclaimed,
        }
    }

    /// As [`Napt::hairpin`].
    pub fn foresee_hairpin(
        &mut self,
        packet: &mut [u8],
        host: &InsideHost,
        now: Instant,
    ) -> Foreseen<InsideHost> {
        let Some(facts) = look(packet) else {
            return Foreseen::Refused(DropReason::MalformedIpv4);
        };
        if self.is_answer(&facts, now) {
            return self.foresee_inbound(packet, now);
        }
        match (self.claims_any(&facts, packet), self.config.hairpinning) {
            (false, _) => return Foreseen::Unclaimed,
            (true, false) if !matches!(facts.look, Look::Later) => {
                return Foreseen::Refused(DropReason::NatFiltered);
            }
            (true, _) => {}
        }
        match self.foresee_outbound(packet, host, now) {
            Foreseen::Translated(()) => self.foresee_inbound(packet, now),
            // Whom it is for lets in anybody, or nobody, or whoever has the endpoint that
            // is not chosen yet.
            Foreseen::Opens => match self.foresee_inbound(packet, now) {
                Foreseen::Refused(DropReason::NatFiltered) if self.asks_who_it_is() => {
                    Foreseen::Opens
                }
                other => other,
            },
            Foreseen::Unclaimed => Foreseen::Unclaimed,
            Foreseen::Waits => Foreseen::Waits,
            Foreseen::Refused(reason) => Foreseen::Refused(reason),
        }
    }

    /// Whether it depends on the sender whether a mapping lets it in.
    fn asks_who_it_is(&self) -> bool {
        self.config.filtering != Dependence::EndpointIndependent
    }

    fn claims_any(&self, facts: &Facts, packet: &[u8]) -> bool {
        matches!(facts.look, Look::Later) || self.claims(packet)
    }

    /// The external endpoint of an outbound packet; `None`: it has yet to be chosen.
    fn foresee_session(
        &mut self,
        segment: &Segment,
        host: &InsideHost,
        now: Time,
    ) -> Result<Option<Endpoint>, DropReason> {
        let Segment { transport, source, destination: remote, opens, .. } = *segment;
        let key = self.flows.hashed(FlowKey::new(host, transport, source.port, remote));
        let may_be_known = transport != Transport::IcmpQuery || opens;
        let known = self.flows.flow_out(&key).filter(|_| may_be_known);
        if let Some(flow) = known.and_then(|flow| self.flows.flows.get(flow)) {
            return Ok(Some(flow.external.endpoint()));
        }
        if !opens {
            return Err(DropReason::NatNoMapping);
        }
        let owner = self.flows.host(&key.key.host_key());
        self.foresee_admission(owner, now)?;
        let mapping = self.flows.mapping(&self.flows.mapping_key(&key.key));
        if let Some(mapping) = mapping.and_then(|id| self.flows.mappings.get(id)) {
            return Ok(Some(mapping.external.endpoint()));
        }
        if !self.has_places() || owner.is_none() && self.blocks.emptiest().is_none() {
            return Err(DropReason::NatExhausted);
        }
        Ok(None)
    }

    /// Whether a host may open one more session.
    fn foresee_admission(&self, host: Option<u32>, now: Time) -> Result<(), DropReason> {
        match host.and_then(|id| self.flows.hosts.get(id)) {
            None => Ok(()),
            Some(host)
                if host.sessions >= self.config.max_sessions_per_host
                    || !host.openings.has(&self.rate, now.nanos) =>
            {
                Err(DropReason::NatHostLimit)
            }
            Some(host) if !self.has_room_for(host.sessions) => Err(DropReason::NatExhausted),
            Some(_) => Ok(()),
        }
    }

    /// Who an inbound packet would be for.
    fn foresee_guest(&mut self, place: u16, segment: &Segment, now: Time) -> Decision {
        let Segment { transport, source: remote, destination: external, .. } = *segment;
        if !self.blocks.contains(external.port) {
            return Decision::Unclaimed;
        }
        self.flows.settle();
        let known = self.flows.flow_in(&InboundKey::new(external, remote, transport));
        if let Some(flow) = known.and_then(|flow| self.flows.flows.get(flow)) {
            return Decision::Inbound((flow.key.host(), flow.key.port()));
        }
        let Endpoint { address, port } = external;
        let found = self.blocks.mapping(transport, External { address, port, place });
        let found = found.and_then(|id| Some((id, self.flows.mappings.get(id)?)));
        let said = match found {
            Some((id, mapping)) => {
                let inside = (mapping.key.host(), mapping.key.port());
                self.foresee_uninvited(id, segment, now).map(|()| inside)
            }
            None => Err(DropReason::NatNoMapping),
        };
        match said {
            Ok(inside) => Decision::Inbound(inside),
            // The box's own queries have identifiers that it chose itself.
            Err(_) if transport == Transport::IcmpQuery => Decision::Unclaimed,
            Err(reason) => Decision::Refused(reason),
        }
    }

    fn foresee_uninvited(&self, id: u32, segment: &Segment, now: Time) -> Result<(), DropReason> {
        if !self.lets_in(id, segment) {
            return Err(DropReason::NatFiltered);
        }
        let mapping = self.flows.mappings.get(id).ok_or(DropReason::NatNoMapping)?;
        if segment.tcp.is_none() {
            return Ok(());
        }
        let host = self.flows.hosts.get(mapping.host).ok_or(DropReason::NatNoMapping)?;
        if host.sessions >= self.config.max_sessions_per_host / 2 {
            return Err(DropReason::NatHostLimit);
        }
        self.foresee_admission(Some(mapping.host), now)
    }

    /// Whether a mapping lets a packet in that belongs to no session.
    pub(super) fn lets_in(&self, id: u32, segment: &Segment) -> bool {
        let passes = match self.config.filtering {
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => self.flows.has_peer(id, segment.source.address),
            Dependence::AddressAndPortDependent => false,
        };
        // RFC 5382 REQ-4: what is not asked for is never answered.
        passes && segment.tcp.is_none_or(|tcp| tcp.is_first())
    }
}
