//! Opening and keeping sessions: who may have one more, and which packet keeps it
//! alive.

use std::net::Ipv4Addr;
use std::time::Instant;

use super::blocks::External;
use super::clock::{Tick, ticks};
use super::flows::{Host, Mapping, MappingKey, Session};
use super::fragments::Decision;
use super::segment::{Endpoint, Facts, Segment, Transport};
use super::slab::NONE;
use super::tcp::{Connection, From};
use super::{Dependence, InsideHost, Napt};
use crate::icmp_error::TokenBucket;
use crate::verdict::DropReason;

impl Napt {
    /// Where an outbound packet of a session shall come from.
    pub(super) fn decide_outbound(
        &mut self,
        facts: &Facts,
        segment: &Segment,
        host: &InsideHost,
        now: (Instant, Tick),
    ) -> Decision {
        match self.outbound_session(segment, host, now) {
            Ok(external) => {
                let place = usize::from(external.address);
                let address = self.blocks.address(external.address);
                // What may be fragmented needs an identification that no other
                // host behind this address uses (RFC 7857 §10, RFC 6864 §5.3.1).
                let next = self.identifications.get_mut(place).filter(|_| !facts.dont_fragment);
                let identification = next.map(|next| {
                    *next = next.wrapping_add(1);
                    *next
                });
                let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
                let source = Endpoint { address, port: external.port };
                Decision::Outbound { source, identification }
            }
            Err(reason) => Decision::Refused(reason),
        }
    }

    /// The external endpoint of an outbound packet: of its session, or of a new one.
    fn outbound_session(
        &mut self,
        segment: &Segment,
        host: &InsideHost,
        (now, tick): (Instant, Tick),
    ) -> Result<External, DropReason> {
        let Segment { transport, source, destination: remote, opens, tcp } = *segment;
        if transport == Transport::IcmpQuery && !opens {
            // A reply to an ICMP query that no session brought in.
            return Err(DropReason::NatNoMapping);
        }
        let key = MappingKey::new(*host, transport, source.port, remote, self.config.mapping);
        let mapping = self.flows.mapping(&key);
        let session = mapping.and_then(|mapping| self.flows.session(mapping, remote));
        if let Some((mapping, session)) = mapping.zip(session) {
            self.refresh(session, segment, From::Inside, tick);
            let mapping = self.flows.mappings.get(mapping);
            return mapping.map(|mapping| mapping.external).ok_or(DropReason::NatExhausted);
        }
        // A connection that is not known is opened by its first segment only.
        if !opens {
            return Err(DropReason::NatNoMapping);
        }
        self.admit(host, now)?;
        let mapping = match mapping {
            Some(mapping) => mapping,
            None => self.open_mapping(key, now, tick)?,
        };
        let session = self.open_session(mapping, remote, tcp.is_some(), tick);
        if let Some(session) = session {
            self.refresh(session, segment, From::Inside, tick);
        }
        let mapping = self.flows.mappings.get(mapping).filter(|_| session.is_some());
        mapping.map(|mapping| mapping.external).ok_or(DropReason::NatExhausted)
    }

    /// Whether a host may open one more session (RFC 6888 REQ-4, REQ-5). What is
    /// there stays whatever is asked for (REQ-11d).
    fn admit(&mut self, key: &InsideHost, now: Instant) -> Result<(), DropReason> {
        let Some(host) = self.flows.host(key).and_then(|id| self.flows.hosts.get_mut(id)) else {
            return Ok(());
        };
        let limit = self.config.max_sessions_per_host;
        if host.sessions >= limit {
            self.counters.host_limit.add(1);
            return Err(DropReason::NatHostLimit);
        }
        if !host.openings.take(now) {
            self.counters.rate_limit.add(1);
            return Err(DropReason::NatHostLimit);
        }
        // The last quarter of the table is for those who have little.
        let few = host.sessions < (limit / 4).max(1);
        let sessions = &self.flows.sessions;
        if !few && sessions.available() <= sessions.capacity() / 4 {
            self.counters.exhausted.add(1);
            return Err(DropReason::NatExhausted);
        }
        Ok(())
    }

    /// Maps an inside endpoint to a port of one of its host's blocks.
    fn open_mapping(
        &mut self,
        key: MappingKey,
        now: Instant,
        tick: Tick,
    ) -> Result<u32, DropReason> {
        if self.flows.mappings.available() == 0 || self.flows.sessions.available() == 0 {
            self.counters.exhausted.add(1);
            return Err(DropReason::NatExhausted);
        }
        let host = match self.flows.host(&key.host) {
            Some(host) => host,
            None => self.open_host(&key.host, now)?,
        };
        let mapping = Mapping {
            key,
            host,
            external: External { address: 0, port: 0 },
            sessions: 0,
            kept_until: tick,
        };
        // There is room: it was looked for.
        let id = self.flows.insert_mapping(mapping).ok_or(DropReason::NatExhausted)?;
        let wanted = self.beside(&key);
        let external = match self.map(host, &key, wanted, id, tick) {
            Some(external) => Ok(external),
            None => self.give_block(host).and_then(|()| {
                self.map(host, &key, wanted, id, tick).ok_or(DropReason::NatExhausted)
            }),
        };
        match (external, self.flows.mappings.get_mut(id)) {
            (Ok(external), Some(mapping)) => {
                mapping.external = external;
                Ok(id)
            }
            (external, _) => {
                self.flows.remove_mapping(id);
                external.and(Err(DropReason::NatExhausted))
            }
        }
    }

    fn map(
        &mut self,
        host: u32,
        key: &MappingKey,
        wanted: Option<External>,
        id: u32,
        tick: Tick,
    ) -> Option<External> {
        let first = self.flows.hosts.get(host)?.first_block;
        self.blocks.map(first, key.transport, key.port, wanted, id, tick)
    }

    /// The external port behind the one that the inside port before this one has: a
    /// pair of RTP and RTCP stays one (RFC 4787 §4.2.3).
    fn beside(&self, key: &MappingKey) -> Option<External> {
        let odd = key.transport == Transport::Udp && key.port & 1 == 1;
        let before = MappingKey { port: key.port.checked_sub(1)?, ..*key };
        let mapping = self.flows.mapping(&before).filter(|_| odd)?;
        let External { address, port } = self.flows.mappings.get(mapping)?.external;
        Some(External { address, port: port.checked_add(1)? })
    }

    /// Takes a host in with its first block, at the address that has most left.
    fn open_host(&mut self, key: &InsideHost, now: Instant) -> Result<u32, DropReason> {
        let rate = self.config.sessions_per_second_per_host;
        let mut openings = TokenBucket::new(rate, rate.max(1));
        openings.take(now);
        let host = self.blocks.emptiest().and_then(|address| {
            self.flows.insert_host(Host {
                key: *key,
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
        let Some((block, _)) = given else {
            // RFC 7857 §4: another address would break the pairing.
            self.counters.exhausted.add(1);
            return Err(DropReason::NatExhausted);
        };
        (host.first_block, host.blocks) = (block, host.blocks + 1);
        let key = host.key;
        self.counters.given.add(1);
        self.record(&key, block, true);
        Ok(())
    }

    /// Opens a session over a mapping.
    fn open_session(
        &mut self,
        mapping: u32,
        remote: Endpoint,
        is_tcp: bool,
        tick: Tick,
    ) -> Option<u32> {
        let tcp = is_tcp.then(Connection::new);
        let session = self.flows.insert_session(Session { mapping, remote, expires: tick, tcp });
        match session {
            Some(_) => self.counters.opened.add(1),
            None => self.counters.exhausted.add(1),
        }
        session
    }

    /// Who an inbound packet is for.
    pub(super) fn decide_inbound(
        &mut self,
        address: u16,
        segment: &Segment,
        now: (Instant, Tick),
    ) -> Decision {
        let external = External { address, port: segment.destination.port };
        if !self.blocks.contains(external.port) {
            return Decision::Unclaimed;
        }
        let is_query = segment.transport == Transport::IcmpQuery;
        let found = self.blocks.mapping(segment.transport, external);
        let Some((id, mapping)) = found.and_then(|id| Some((id, self.flows.mappings.get(id)?)))
        else {
            // The box's own queries have identifiers that it chose itself.
            return if is_query {
                Decision::Unclaimed
            } else {
                Decision::Refused(DropReason::NatNoMapping)
            };
        };
        let inside = (mapping.key.host, mapping.key.port);
        match self.inbound_session(id, segment, now) {
            Ok(()) => Decision::Inbound(inside),
            Err(_) if is_query => Decision::Unclaimed,
            Err(reason) => Decision::Refused(reason),
        }
    }

    /// Whether an inbound packet may use a mapping (RFC 4787 §5, RFC 5382 REQ-3).
    fn inbound_session(
        &mut self,
        mapping: u32,
        segment: &Segment,
        (now, tick): (Instant, Tick),
    ) -> Result<(), DropReason> {
        let remote = segment.source;
        if let Some(session) = self.flows.session(mapping, remote) {
            // RFC 4787 REQ-6a; a connection's state hears both sides.
            if segment.tcp.is_some() || self.config.inbound_refresh {
                self.refresh(session, segment, From::Outside, tick);
            }
            return Ok(());
        }
        let passes = match self.config.filtering {
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => self.flows.has_peer(mapping, remote.address),
            Dependence::AddressAndPortDependent => false,
        };
        // RFC 5382 REQ-4: what is not asked for is never answered.
        let passes = passes && segment.tcp.is_none_or(|tcp| tcp.is_first());
        if !passes {
            return Err(DropReason::NatFiltered);
        }
        if segment.tcp.is_none() {
            if self.config.inbound_refresh
                && let Some(mapping) = self.flows.mappings.get_mut(mapping)
            {
                mapping.kept_until = tick.plus(ticks(self.config.timeouts.udp));
            }
            return Ok(());
        }
        // From outside a host's sessions can be filled up to the half.
        let host = self.flows.mappings.get(mapping).map_or(NONE, |mapping| mapping.host);
        let host = self.flows.hosts.get(host).ok_or(DropReason::NatNoMapping)?;
        if host.sessions >= self.config.max_sessions_per_host / 2 {
            self.counters.host_limit.add(1);
            return Err(DropReason::NatHostLimit);
        }
        let key = host.key;
        self.admit(&key, now)?;
        let session = self.open_session(mapping, remote, true, tick);
        let session = session.ok_or(DropReason::NatExhausted)?;
        self.refresh(session, segment, From::Outside, tick);
        Ok(())
    }

    /// Starts a session's timer anew, if the packet does (RFC 4787 REQ-6, RFC 7857
    /// §2).
    fn refresh(&mut self, session: u32, segment: &Segment, from: From, now: Tick) {
        let Some(session) = self.flows.sessions.get_mut(session) else { return };
        let timeouts = &self.config.timeouts;
        let timeout = match (&mut session.tcp, segment.tcp) {
            (Some(connection), Some(tcp)) => {
                if !connection.saw(&tcp, from) {
                    return;
                }
                connection.timeout(timeouts)
            }
            _ if segment.transport == Transport::IcmpQuery => timeouts.icmp,
            _ => timeouts.udp,
        };
        session.expires = now.plus(ticks(timeout));
    }
}
