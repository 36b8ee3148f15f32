//! Opening and keeping sessions: who may have one more, and which packet keeps it
//! alive.

use std::net::Ipv4Addr;

use super::blocks::External;
use super::clock::{Tick, Time};
use super::flows::{Hashed, Host, Mapping};
use super::fragments::Decision;
use super::key::{FlowKey, HostKey, InboundKey};
use super::openings::Openings;
use super::segment::{Endpoint, Facts, Segment, Transport};
use super::slab::NONE;
use super::tcp::{From, TcpSegment};
use super::{InsideHost, Napt};
use crate::verdict::DropReason;

impl Napt {
    /// Where an outbound packet of a session shall come from.
    pub(super) fn decide_outbound(
        &mut self,
        facts: &Facts,
        segment: &Segment,
        host: &InsideHost,
        now: Time,
    ) -> Decision {
        match self.outbound_session(segment, host, now) {
            Ok(external) => {
                let identification =
                    if facts.dont_fragment { None } else { self.identification(external) };
                Decision::Outbound { source: external.endpoint(), identification }
            }
            Err(reason) => Decision::Refused(reason),
        }
    }

    /// An identification that no other host behind the external address uses: what
    /// may be fragmented needs one (RFC 7857 §10, RFC 6864 §5.3.1).
    fn identification(&mut self, external: External) -> Option<u16> {
        let next = self.identifications.get_mut(usize::from(external.place))?;
        *next = next.wrapping_add(1);
        Some(*next)
    }

    /// The external endpoint of an outbound packet: of its session, or of a new one.
    fn outbound_session(
        &mut self,
        segment: &Segment,
        host: &InsideHost,
        now: Time,
    ) -> Result<External, DropReason> {
        let Segment { transport, source, destination: remote, opens, tcp } = *segment;
        if transport == Transport::IcmpQuery && !opens {
            // A reply to an ICMP query that no session brought in.
            return Err(DropReason::NatNoMapping);
        }
        let key = self.flows.hashed(FlowKey::new(host, transport, source.port, remote));
        let known = self.flows.flow_out(&key);
        if let Some(flow) = known.and_then(|flow| self.flows.flows.get_mut(flow)) {
            flow.refresh(tcp, From::Inside, &self.lifetimes, now.tick);
            return Ok(flow.external);
        }
        // A connection that is not known is opened by its first segment only.
        if !opens {
            return Err(DropReason::NatNoMapping);
        }
        let owner = self.flows.host(&key.key.host_key());
        self.admit(owner, now)?;
        let mapped = self.flows.mapping_key(&key.key);
        let mapping = match self.flows.mapping(&mapped) {
            Some(mapping) => mapping,
            None => self.open_mapping(&mapped, owner, now)?,
        };
        self.open_session((mapping, mapped.hash), &key, tcp, From::Inside, now.tick)
    }

    /// The number of the flow of an outbound packet of a host for which none had been
    /// located: one that the burst has opened meanwhile, or a new one, if that takes
    /// only what is at hand: a host that is known here, room for one more session, a port
    /// in its blocks. `None`, and nothing has changed that shows: [`Napt::outbound`]
    /// gives blocks, takes hosts in, and refuses.
    pub(super) fn open_at_hand(
        &mut self,
        key: &Hashed<FlowKey>,
        tcp: Option<TcpSegment>,
        tick: Tick,
    ) -> Option<u32> {
        if let Some(flow) = self.flows.flow_out(key) {
            return Some(flow);
        }
        let is_here = self.is_here.as_ref().is_some_and(|here| here(key.key.inside().address));
        if !is_here || tcp.is_some_and(|tcp| !tcp.opens()) {
            return None;
        }
        let nanos = self.clock.latest().nanos;
        let mapped = self.flows.mapping_key(&key.key);
        let known = self.flows.mapping(&mapped);
        let host = match known {
            Some(id) => self.flows.mappings.get(id)?.host,
            None => self.flows.host(&key.key.host_key())?,
        };
        let owner = self.flows.hosts.get(host)?;
        if owner.sessions >= self.config.max_sessions_per_host
            || !owner.openings.has(&self.rate, nanos)
            || !self.has_room_for(owner.sessions)
        {
            return None;
        }
        let mapping = match known {
            Some(id) => id,
            None => self.map_at_hand(&mapped, host, tick)?,
        };
        let flow = self.flows.insert_flow(mapping, key, mapped.hash, tick)?;
        if let Some(owner) = self.flows.hosts.get_mut(host) {
            owner.openings.take(&self.rate, nanos);
        }
        self.counters.opened.add(1);
        Some(flow)
    }

    /// A mapping to a port of the blocks that the host has.
    fn map_at_hand(&mut self, key: &Hashed<FlowKey>, host: u32, tick: Tick) -> Option<u32> {
        if !self.has_places() {
            return None;
        }
        let id = self.insert_unmapped(key, host, tick)?;
        if !self.map(host, &key.key, id, tick) {
            self.flows.remove_mapping(id);
            return None;
        }
        Some(id)
    }

    /// Whether a host may open one more session (RFC 6888 REQ-4, REQ-5). What is
    /// there stays whatever is asked for (REQ-11d).
    fn admit(&mut self, host: Option<u32>, now: Time) -> Result<(), DropReason> {
        let Some(host) = host.and_then(|id| self.flows.hosts.get_mut(id)) else {
            return Ok(());
        };
        if host.sessions >= self.config.max_sessions_per_host {
            self.counters.host_limit.add(1);
            return Err(DropReason::NatHostLimit);
        }
        if !host.openings.take(&self.rate, now.nanos) {
            self.counters.rate_limit.add(1);
            return Err(DropReason::NatHostLimit);
        }
        let sessions = host.sessions;
        if !self.has_room_for(sessions) {
            self.counters.exhausted.add(1);
            return Err(DropReason::NatExhausted);
        }
        Ok(())
    }

    /// Whether the table has room for one more session of a host with so many: the last
    /// quarter of it is for those who have little.
    pub(super) fn has_room_for(&self, sessions: u32) -> bool {
        let few = sessions < (self.config.max_sessions_per_host / 4).max(1);
        let flows = &self.flows.flows;
        few || flows.available() > flows.capacity() / 4
    }

    /// Whether there is a place for a mapping and its first session.
    pub(super) fn has_places(&self) -> bool {
        self.flows.mappings.available() > 0 && self.flows.flows.available() > 0
    }

    /// Maps an inside endpoint to a port of one of its host's blocks.
    fn open_mapping(
        &mut self,
        key: &Hashed<FlowKey>,
        owner: Option<u32>,
        now: Time,
    ) -> Result<u32, DropReason> {
        if !self.has_places() {
            self.counters.exhausted.add(1);
            return Err(DropReason::NatExhausted);
        }
        let host = match owner {
            Some(host) => host,
            None => self.open_host(key.key.host_key(), now)?,
        };
        let Some(id) = self.insert_unmapped(key, host, now.tick) else {
            self.counters.exhausted.add(1);
            return Err(DropReason::NatExhausted);
        };
        if self.map(host, &key.key, id, now.tick) {
            return Ok(id);
        }
        let given = self.give_block(host);
        if given.is_ok() && self.map(host, &key.key, id, now.tick) {
            return Ok(id);
        }
        self.flows.remove_mapping(id);
        given.and(Err(DropReason::NatExhausted))
    }

    /// A mapping that has no port yet.
    fn insert_unmapped(&mut self, key: &Hashed<FlowKey>, host: u32, tick: Tick) -> Option<u32> {
        let nowhere = External { address: Ipv4Addr::UNSPECIFIED, port: 0, place: 0 };
        let mapping =
            Mapping { key: key.key, host, external: nowhere, sessions: 0, kept_until: tick };
        self.flows.insert_mapping(mapping, key.hash)
    }

    /// Gives a mapping a free port of its host's blocks, if there is one.
    fn map(&mut self, host: u32, key: &FlowKey, id: u32, tick: Tick) -> bool {
        let Some(first) = self.flows.hosts.get(host).map(|host| host.first_block) else {
            return false;
        };
        let wanted = self.beside(key);
        let (transport, port) = (key.transport(), key.port());
        let external = self.blocks.map(first, transport, port, wanted, id, tick);
        match (external, self.flows.mappings.get_mut(id)) {
            (Some(external), Some(mapping)) => {
                mapping.external = external;
                true
            }
            _ => false,
        }
    }

    /// The external port behind the one that the inside port before this one has: a
    /// pair of RTP and RTCP stays one (RFC 4787 §4.2.3).
    fn beside(&self, key: &FlowKey) -> Option<External> {
        let before = key.before()?;
        let mapping = self.flows.mapping(&self.flows.hashed(before))?;
        let external = self.flows.mappings.get(mapping)?.external;
        Some(External { port: external.port.checked_add(1)?, ..external })
    }

    /// Takes a host in with its first block, at the address that has most left.
    fn open_host(&mut self, key: HostKey, now: Time) -> Result<u32, DropReason> {
        let mut openings = Openings::default();
        openings.take(&self.rate, now.nanos);
        let host = self.blocks.emptiest().and_then(|address| {
            self.flows.insert_host(Host {
                key,
                address,
                first_block: NONE,
                blocks: 0,
                sessions: 0,
                openings,
            })
        });
        let Some(host) = host else {
            self.counters.exhausted.add(1);
            return Err(DropReason::NatExhausted);
        };
        self.give_block(host).inspect_err(|_| self.flows.remove_host(host))?;
        Ok(host)
    }

    /// Gives a host one block more (RFC 6888 REQ-4). The first one is given while
    /// any is left; for further ones a quarter is kept for hosts that have none.
    fn give_block(&mut self, id: u32) -> Result<(), DropReason> {
        let host = self.flows.hosts.get_mut(id).ok_or(DropReason::NatExhausted)?;
        if host.blocks >= self.config.max_blocks_per_host.max(1) {
            self.counters.host_limit.add(1);
            return Err(DropReason::NatHostLimit);
        }
        let kept = if host.blocks == 0 { 0 } else { self.blocks.reserve() };
        let given = (self.blocks.free_at(host.address) > kept)
            .then(|| self.blocks.give(host.address, id, host.first_block))
            .flatten();
        let Some(block) = given else {
            // RFC 7857 §4: another address would break the pairing.
            self.counters.exhausted.add(1);
            return Err(DropReason::NatExhausted);
        };
        (host.first_block, host.blocks) = (block, host.blocks + 1);
        let key = host.key.host();
        self.counters.given.add(1);
        self.record(&key, block, true);
        Ok(())
    }

    /// Opens a session over a mapping with its first packet, and says where the
    /// mapping is.
    fn open_session(
        &mut self,
        (mapping, mapping_hash): (u32, u64),
        key: &Hashed<FlowKey>,
        tcp: Option<TcpSegment>,
        from: From,
        now: Tick,
    ) -> Result<External, DropReason> {
        let flow = self.flows.insert_flow(mapping, key, mapping_hash, now);
        let Some(flow) = flow.and_then(|flow| self.flows.flows.get_mut(flow)) else {
            self.counters.exhausted.add(1);
            return Err(DropReason::NatExhausted);
        };
        flow.refresh(tcp, from, &self.lifetimes, now);
        self.counters.opened.add(1);
        Ok(flow.external)
    }

    /// Who an inbound packet is for. `place` is that of the address that it came to.
    pub(super) fn decide_inbound(&mut self, place: u16, segment: &Segment, now: Time) -> Decision {
        let Segment { transport, source: remote, destination: external, tcp, .. } = *segment;
        if !self.blocks.contains(external.port) {
            return Decision::Unclaimed;
        }
        self.flows.settle();
        let known = self.flows.flow_in(&InboundKey::new(external, remote, transport));
        if let Some(flow) = known.and_then(|flow| self.flows.flows.get_mut(flow)) {
            // RFC 4787 REQ-6a; a connection's state hears both sides.
            if tcp.is_some() || self.config.inbound_refresh {
                flow.refresh(tcp, From::Outside, &self.lifetimes, now.tick);
            }
            return Decision::Inbound((flow.key.host(), flow.key.port()));
        }
        let is_query = transport == Transport::IcmpQuery;
        let Endpoint { address, port } = external;
        let found = self.blocks.mapping(transport, External { address, port, place });
        let Some((id, mapping)) = found.and_then(|id| Some((id, self.flows.mappings.get(id)?)))
        else {
            // The box's own queries have identifiers that it chose itself.
            return if is_query {
                Decision::Unclaimed
            } else {
                Decision::Refused(DropReason::NatNoMapping)
            };
        };
        let inside = (mapping.key.host(), mapping.key.port());
        match self.uninvited(id, segment, now) {
            Ok(()) => Decision::Inbound(inside),
            Err(_) if is_query => Decision::Unclaimed,
            Err(reason) => Decision::Refused(reason),
        }
    }

    /// Whether an inbound packet of no session may use a mapping (RFC 4787 §5, RFC
    /// 5382 REQ-3).
    fn uninvited(&mut self, id: u32, segment: &Segment, now: Time) -> Result<(), DropReason> {
        if !self.lets_in(id, segment) {
            return Err(DropReason::NatFiltered);
        }
        let mapping = self.flows.mappings.get_mut(id).ok_or(DropReason::NatNoMapping)?;
        if segment.tcp.is_none() {
            if self.config.inbound_refresh {
                mapping.kept_until = now.tick.plus(self.lifetimes.udp);
            }
            return Ok(());
        }
        // From outside a host's sessions can be filled up to the half.
        let (owner, key) = (mapping.host, mapping.key);
        let host = self.flows.hosts.get(owner).ok_or(DropReason::NatNoMapping)?;
        if host.sessions >= self.config.max_sessions_per_host / 2 {
            self.counters.host_limit.add(1);
            return Err(DropReason::NatHostLimit);
        }
        self.admit(Some(owner), now)?;
        let flow = FlowKey::new(&key.host(), key.transport(), key.port(), segment.source);
        let mapping = (id, self.flows.hash(&key));
        let flow = self.flows.hashed(flow);
        self.open_session(mapping, &flow, segment.tcp, From::Outside, now.tick).map(|_| ())
    }
}
