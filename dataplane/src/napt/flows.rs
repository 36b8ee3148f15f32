//! The flow table of one core: inside hosts, their mappings, and the sessions over
//! each mapping (RFC 2663 §2.3, RFC 4787 §4).
//!
//! A *mapping* ties an inside endpoint to an external one. A *session* is a mapping
//! in use with one remote endpoint. A *peer* is a remote address that a mapping has
//! sessions with: what address-dependent filtering asks for. Each is found by a
//! keyed hash, in a table of fixed size.

use std::net::Ipv4Addr;

use super::InsideHost;
use super::blocks::External;
use super::clock::Tick;
use super::config::Dependence;
use super::segment::{Endpoint, Transport};
use super::slab::{Chains, NONE, Slab, hash};
use super::tcp::Connection;
use crate::icmp_error::TokenBucket;

/// An inside host with at least one block.
pub(super) struct Host {
    pub(super) key: InsideHost,
    /// Its external address: all its blocks are there (RFC 4787 REQ-2).
    pub(super) address: u16,
    /// The first block of its list.
    pub(super) first_block: u32,
    pub(super) blocks: u16,
    pub(super) sessions: u32,
    /// New sessions that it may open now.
    pub(super) openings: TokenBucket,
}

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MappingKey {
    pub(super) host: InsideHost,
    pub(super) transport: Transport,
    pub(super) port: u16,
    /// The remote endpoint, as far as the mapping depends on it.
    pub(super) remote: Option<(Ipv4Addr, Option<u16>)>,
}

impl MappingKey {
    pub(super) fn new(
        host: InsideHost,
        transport: Transport,
        port: u16,
        remote: Endpoint,
        mapping: Dependence,
    ) -> Self {
        let remote = match mapping {
            Dependence::EndpointIndependent => None,
            Dependence::AddressDependent => Some((remote.address, None)),
            Dependence::AddressAndPortDependent => Some((remote.address, Some(remote.port))),
        };
        MappingKey { host, transport, port, remote }
    }

    /// The hash leaves the station out: an ICMP error does not name it.
    fn hash(&self, seed: [u64; 2]) -> u64 {
        let InsideHost { tenant, address, .. } = self.host;
        hash(seed, &(tenant, address, self.transport, self.port, self.remote))
    }
}

/// An inside endpoint tied to an external one.
pub(super) struct Mapping {
    pub(super) key: MappingKey,
    pub(super) host: u32,
    pub(super) external: External,
    /// How many sessions use it.
    pub(super) sessions: u32,
    /// Until when inbound packets that opened no session keep it.
    pub(super) kept_until: Tick,
}

/// A mapping in use with one remote endpoint.
pub(super) struct Session {
    pub(super) mapping: u32,
    pub(super) remote: Endpoint,
    pub(super) expires: Tick,
    pub(super) tcp: Option<Connection>,
}

/// A remote address that a mapping has sessions with.
struct Peer {
    mapping: u32,
    address: Ipv4Addr,
    sessions: u32,
}

/// All of it.
pub(super) struct FlowTable {
    seed: [u64; 2],
    pub(super) hosts: Slab<Host>,
    hosts_by_key: Chains,
    pub(super) mappings: Slab<Mapping>,
    mappings_by_key: Chains,
    pub(super) sessions: Slab<Session>,
    sessions_by_remote: Chains,
    peers: Slab<Peer>,
    peers_by_address: Chains,
}

impl FlowTable {
    pub(super) fn new(hosts: usize, sessions: usize, seed: [u64; 2]) -> Self {
        FlowTable {
            seed,
            hosts: Slab::new(hosts),
            hosts_by_key: Chains::new(hosts),
            mappings: Slab::new(sessions),
            mappings_by_key: Chains::new(sessions),
            sessions: Slab::new(sessions),
            sessions_by_remote: Chains::new(sessions),
            peers: Slab::new(sessions),
            peers_by_address: Chains::new(sessions),
        }
    }

    pub(super) fn host(&self, key: &InsideHost) -> Option<u32> {
        let is_it = |id: &u32| self.hosts.get(*id).is_some_and(|host| host.key == *key);
        self.hosts_by_key.of(hash(self.seed, key)).find(is_it)
    }

    /// A place for a host that has no block yet.
    pub(super) fn insert_host(&mut self, host: Host) -> Option<u32> {
        let hash = hash(self.seed, &host.key);
        let id = self.hosts.insert(host)?;
        self.hosts_by_key.insert(hash, id);
        Some(id)
    }

    pub(super) fn remove_host(&mut self, id: u32) {
        if let Some(host) = self.hosts.remove(id) {
            self.hosts_by_key.remove(hash(self.seed, &host.key), id);
        }
    }

    pub(super) fn mapping(&self, key: &MappingKey) -> Option<u32> {
        let is_it = |id: &u32| self.mappings.get(*id).is_some_and(|mapping| mapping.key == *key);
        self.mappings_by_key.of(key.hash(self.seed)).find(is_it)
    }

    /// The mapping of an inside endpoint whatever the station: one that is in use
    /// with the remote endpoint, or else any.
    pub(super) fn mapping_of_any_station(&self, key: &MappingKey, remote: Endpoint) -> Option<u32> {
        let same = |id: &u32| {
            self.mappings.get(*id).is_some_and(|mapping| {
                let host = InsideHost { station: key.host.station, ..mapping.key.host };
                MappingKey { host, ..mapping.key } == *key
            })
        };
        let hash = key.hash(self.seed);
        let mut found = self.mappings_by_key.of(hash).filter(same);
        let in_use = found.find(|id| self.session(*id, remote).is_some());
        in_use.or_else(|| self.mappings_by_key.of(hash).find(same))
    }

    pub(super) fn insert_mapping(&mut self, mapping: Mapping) -> Option<u32> {
        let hash = mapping.key.hash(self.seed);
        let id = self.mappings.insert(mapping)?;
        self.mappings_by_key.insert(hash, id);
        Some(id)
    }

    pub(super) fn remove_mapping(&mut self, id: u32) -> Option<Mapping> {
        let mapping = self.mappings.remove(id)?;
        self.mappings_by_key.remove(mapping.key.hash(self.seed), id);
        Some(mapping)
    }

    pub(super) fn session(&self, mapping: u32, remote: Endpoint) -> Option<u32> {
        let is_it = |id: &u32| {
            let session = self.sessions.get(*id);
            session.is_some_and(|session| session.mapping == mapping && session.remote == remote)
        };
        self.sessions_by_remote.of(hash(self.seed, &(mapping, remote))).find(is_it)
    }

    /// Whether a mapping has a session with a remote address.
    pub(super) fn has_peer(&self, mapping: u32, address: Ipv4Addr) -> bool {
        self.peer(mapping, address).is_some()
    }

    /// Opens a session over a mapping; `None` when the table is full.
    pub(super) fn insert_session(&mut self, session: Session) -> Option<u32> {
        let Session { mapping, remote, .. } = session;
        if self.sessions.available() == 0 {
            return None;
        }
        match self.peer(mapping, remote.address) {
            Some(peer) => {
                if let Some(peer) = self.peers.get_mut(peer) {
                    peer.sessions += 1;
                }
            }
            None => {
                let peer = Peer { mapping, address: remote.address, sessions: 1 };
                let id = self.peers.insert(peer)?;
                self.peers_by_address.insert(hash(self.seed, &(mapping, remote.address)), id);
            }
        }
        let id = self.sessions.insert(session)?;
        self.sessions_by_remote.insert(hash(self.seed, &(mapping, remote)), id);
        let mapping = self.mappings.get_mut(mapping);
        let host = mapping.map_or(NONE, |mapping| {
            mapping.sessions += 1;
            mapping.host
        });
        if let Some(host) = self.hosts.get_mut(host) {
            host.sessions += 1;
        }
        Some(id)
    }

    /// Ends a session; its mapping stays. The number of the mapping.
    pub(super) fn remove_session(&mut self, id: u32) -> Option<u32> {
        let Session { mapping, remote, .. } = self.sessions.remove(id)?;
        self.sessions_by_remote.remove(hash(self.seed, &(mapping, remote)), id);
        if let Some(at) = self.peer(mapping, remote.address)
            && let Some(peer) = self.peers.get_mut(at)
        {
            peer.sessions = peer.sessions.saturating_sub(1);
            if peer.sessions == 0 {
                self.peers.remove(at);
                self.peers_by_address.remove(hash(self.seed, &(mapping, remote.address)), at);
            }
        }
        let host = self.mappings.get_mut(mapping).map_or(NONE, |mapping| {
            mapping.sessions = mapping.sessions.saturating_sub(1);
            mapping.host
        });
        if let Some(host) = self.hosts.get_mut(host) {
            host.sessions = host.sessions.saturating_sub(1);
        }
        Some(mapping)
    }

    fn peer(&self, mapping: u32, address: Ipv4Addr) -> Option<u32> {
        let is_it = |id: &u32| {
            let peer = self.peers.get(*id);
            peer.is_some_and(|peer| peer.mapping == mapping && peer.address == address)
        };
        self.peers_by_address.of(hash(self.seed, &(mapping, address))).find(is_it)
    }
}
