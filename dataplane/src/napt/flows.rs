//! The flow table of one core: inside hosts, their mappings, and the sessions over
//! each mapping (RFC 2663 §2.3, RFC 4787 §4).
//!
//! A *mapping* ties an inside endpoint to an external one. A *session* is a mapping
//! in use with one remote endpoint: a [`Flow`] is all that its packets need, in one
//! cache line, found by what an outbound and by what an inbound packet says. Hosts,
//! mappings and peers are only for what opens and ends sessions. A *peer* is a remote
//! address that a mapping has sessions with: what address-dependent filtering asks
//! for. All are found by a keyed hash, in tables of fixed size.

use std::net::Ipv4Addr;

use super::InsideHost;
use super::blocks::External;
use super::buckets::Buckets;
use super::clock::{Lifetimes, Tick};
use super::config::{Dependence, NaptConfig};
use super::key::{FlowKey, HostKey, InboundKey, PeerKey};
use super::openings::Openings;
use super::segment::{Endpoint, Transport};
use super::slab::{Chains, NONE, Slab};
use super::tcp::{Connection, From, TcpSegment};
use crate::table::keyed::{KeyedHash, TableKey, tenant_address};

/// An inside host with at least one block.
pub(super) struct Host {
    pub(super) key: HostKey,
    /// The place of its external address: all its blocks are there (RFC 4787 REQ-2).
    pub(super) address: u16,
    /// The first block of its list.
    pub(super) first_block: u32,
    pub(super) blocks: u16,
    pub(super) sessions: u32,
    /// New sessions that it may open now.
    pub(super) openings: Openings,
}

/// An inside endpoint tied to an external one.
pub(super) struct Mapping {
    pub(super) key: FlowKey,
    pub(super) host: u32,
    pub(super) external: External,
    /// How many sessions use it.
    pub(super) sessions: u32,
    /// Until when inbound packets that opened no session keep it.
    pub(super) kept_until: Tick,
}

/// A mapping in use with one remote endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Flow {
    pub(super) key: FlowKey,
    pub(super) external: External,
    pub(super) expires: Tick,
    mapping: u32,
    /// The peer that it counts for; [`NONE`] if peers are not kept.
    peer: u32,
    /// Of TCP.
    tcp: Connection,
}

impl Flow {
    #[inline(always)]
    pub(super) fn inbound_key(&self) -> InboundKey {
        InboundKey::new(self.external.endpoint(), self.key.remote(), self.key.transport())
    }

    /// Starts the session's timer anew, if the packet does (RFC 4787 REQ-6, RFC 7857
    /// §2).
    #[inline(always)]
    pub(super) fn refresh(
        &mut self,
        tcp: Option<TcpSegment>,
        from: From,
        lifetimes: &Lifetimes,
        now: Tick,
    ) {
        let lifetime = match (self.key.transport(), tcp) {
            (Transport::Tcp, Some(segment)) => {
                if !self.tcp.saw(&segment, from) {
                    return;
                }
                self.tcp.lifetime(lifetimes)
            }
            (Transport::IcmpQuery, _) => lifetimes.icmp,
            _ => lifetimes.udp,
        };
        self.expires = now.plus(lifetime);
    }
}

/// A remote address that a mapping has sessions with.
struct Peer {
    mapping: u32,
    address: Ipv4Addr,
    sessions: u32,
}

/// A key with its hash, which is computed once.
#[derive(Clone, Copy)]
pub(super) struct Hashed<K> {
    pub(super) key: K,
    pub(super) hash: u64,
}

/// How many sessions wait to be found from outside.
const WAITING: usize = 32;

/// All of it.
pub(super) struct FlowTable {
    hash: KeyedHash,
    /// What a mapping depends on.
    dependence: Dependence,
    /// Whether it is ever asked who a mapping's peers are.
    keeps_peers: bool,
    pub(super) hosts: Slab<Host>,
    hosts_by_key: Buckets,
    /// Without the station, which an ICMP error does not name.
    hosts_by_address: Chains,
    pub(super) mappings: Slab<Mapping>,
    mappings_by_key: Buckets,
    pub(super) flows: Slab<Flow>,
    pub(super) outbound: Buckets,
    pub(super) inbound: Buckets,
    peers: Slab<Peer>,
    peers_by_key: Buckets,
    /// Sessions that are not in `inbound` yet, with their hashes: their buckets are on
    /// the way into the cache.
    waiting: [(u64, u32); WAITING],
    waiting_count: usize,
    /// Sessions that ended as soon as they had been opened, for want of a place.
    pub(super) unplaced: u64,
}

impl FlowTable {
    pub(super) fn new(config: &NaptConfig, hosts: usize, seed: [u64; 2]) -> Self {
        let sessions = config.max_sessions;
        let keeps_peers = config.filtering == Dependence::AddressDependent;
        let peers = if keeps_peers { sessions } else { 0 };
        FlowTable {
            hash: KeyedHash::new(seed),
            dependence: config.mapping,
            keeps_peers,
            hosts: Slab::new(hosts),
            hosts_by_key: Buckets::new(hosts),
            hosts_by_address: Chains::new(hosts),
            mappings: Slab::new(sessions),
            mappings_by_key: Buckets::new(sessions),
            flows: Slab::new(sessions),
            outbound: Buckets::new(sessions),
            inbound: Buckets::new(sessions),
            peers: Slab::new(peers),
            peers_by_key: Buckets::new(peers),
            waiting: [(0, NONE); WAITING],
            waiting_count: 0,
            unplaced: 0,
        }
    }

    #[inline(always)]
    pub(super) fn hash(&self, key: &impl TableKey) -> u64 {
        self.hash.hash(key)
    }

    #[inline(always)]
    pub(super) fn hashed<K: TableKey>(&self, key: K) -> Hashed<K> {
        Hashed { key, hash: self.hash(&key) }
    }

    /// The key of the mapping that a flow has or would have.
    #[inline(always)]
    pub(super) fn mapping_key(&self, flow: &FlowKey) -> Hashed<FlowKey> {
        self.hashed(flow.mapping(self.dependence))
    }

    fn hash_of_address(&self, host: &InsideHost) -> u64 {
        self.hash(&tenant_address(host.tenant, host.address))
    }

    pub(super) fn host(&self, key: &HostKey) -> Option<u32> {
        let is_it = |id| self.hosts.get(id).is_some_and(|host| host.key == *key);
        self.hosts_by_key.find(self.hash(key), is_it)
    }

    /// A place for a host that has no block yet.
    pub(super) fn insert_host(&mut self, host: Host) -> Option<u32> {
        let key = host.key;
        let id = self.hosts.insert(host)?;
        if !self.hosts_by_key.insert(self.hash(&key), id) {
            self.hosts.remove(id);
            return None;
        }
        self.hosts_by_address.insert(self.hash_of_address(&key.host()), id);
        Some(id)
    }

    pub(super) fn remove_host(&mut self, id: u32) {
        if let Some(host) = self.hosts.remove(id) {
            self.hosts_by_key.remove(self.hash(&host.key), id);
            self.hosts_by_address.remove(self.hash_of_address(&host.key.host()), id);
        }
    }

    /// The mapping with a key of [`FlowTable::mapping_key`].
    pub(super) fn mapping(&self, key: &Hashed<FlowKey>) -> Option<u32> {
        let is_it = |id| self.mappings.get(id).is_some_and(|mapping| mapping.key == key.key);
        self.mappings_by_key.find(key.hash, is_it)
    }

    /// The same whatever the station: one that is in use with the remote endpoint, or
    /// else any.
    pub(super) fn mapping_of_any_station(&self, key: &FlowKey) -> Option<u32> {
        let owner = key.host();
        let same = |host: &InsideHost| (host.tenant, host.address) == (owner.tenant, owner.address);
        let mappings = || {
            let ids = self.hosts_by_address.of(self.hash_of_address(&owner));
            let hosts = ids.filter_map(|id| Some(self.hosts.get(id)?.key.host())).filter(same);
            let of_host = |host: InsideHost| self.mapping_key(&key.with_station(host.station));
            hosts.filter_map(move |host| self.mapping(&of_host(host)))
        };
        let in_use = mappings().find(|id| self.session(*id, key.remote()).is_some());
        in_use.or_else(|| mappings().next())
    }

    pub(super) fn insert_mapping(&mut self, mapping: Mapping, hash: u64) -> Option<u32> {
        let id = self.mappings.insert(mapping)?;
        if !self.mappings_by_key.insert(hash, id) {
            self.mappings.remove(id);
            return None;
        }
        Some(id)
    }

    pub(super) fn remove_mapping(&mut self, id: u32) -> Option<Mapping> {
        let mapping = self.mappings.remove(id)?;
        self.mappings_by_key.remove(self.hash(&mapping.key), id);
        Some(mapping)
    }

    /// The flow of an outbound packet.
    #[inline]
    pub(super) fn flow_out(&self, key: &Hashed<FlowKey>) -> Option<u32> {
        let is_it = |id| self.flows.get(id).is_some_and(|flow| flow.key == key.key);
        self.outbound.find(key.hash, is_it)
    }

    /// The flow of an inbound packet. To be asked after [`FlowTable::settle`].
    #[inline]
    pub(super) fn flow_in(&self, key: &InboundKey) -> Option<u32> {
        let is_it = |id| self.flows.get(id).is_some_and(|flow| flow.inbound_key() == *key);
        self.inbound.find(self.hash(key), is_it)
    }

    /// Brings into the cache what opening this flow will touch.
    pub(super) fn prefetch_opening(&self, key: &FlowKey) {
        let mapping = self.hash(&key.mapping(self.dependence));
        self.mappings_by_key.prefetch(mapping);
        if let Some(before) = key.before() {
            self.mappings_by_key.prefetch(self.hash(&before.mapping(self.dependence)));
        }
        self.hosts_by_key.prefetch(self.hash(&key.host_key()));
        if self.keeps_peers {
            let peer = PeerKey { mapping, address: key.remote().address };
            self.peers_by_key.prefetch(self.hash(&peer));
        }
    }

    /// The flow of a mapping and a remote endpoint.
    pub(super) fn session(&self, mapping: u32, remote: Endpoint) -> Option<u32> {
        let mapping = self.mappings.get(mapping)?;
        let external = mapping.external.endpoint();
        self.flow_in(&InboundKey::new(external, remote, mapping.key.transport()))
    }

    /// Whether a mapping has a session with a remote address.
    pub(super) fn has_peer(&self, mapping: u32, address: Ipv4Addr) -> bool {
        let Some(known) = self.mappings.get(mapping) else { return false };
        let hash = self.hash_of_peer(self.hash(&known.key), address);
        self.peer(mapping, hash, address).is_some()
    }

    /// Of the mapping with this hash.
    fn hash_of_peer(&self, mapping: u64, address: Ipv4Addr) -> u64 {
        self.hash(&PeerKey { mapping, address })
    }

    fn peer(&self, mapping: u32, hash: u64, address: Ipv4Addr) -> Option<u32> {
        let is_it = |id| {
            let peer = self.peers.get(id);
            peer.is_some_and(|peer| peer.mapping == mapping && peer.address == address)
        };
        self.peers_by_key.find(hash, is_it)
    }

    /// Opens a session over a mapping, the key of which has this hash; `None`, and
    /// nothing has changed, when a table is full.
    pub(super) fn insert_flow(
        &mut self,
        id: u32,
        key: &Hashed<FlowKey>,
        mapping_hash: u64,
        now: Tick,
    ) -> Option<u32> {
        if self.waiting_count == WAITING {
            self.settle();
        }
        let mapping = self.mappings.get(id)?;
        let (host, external) = (mapping.host, mapping.external);
        let address = key.key.remote().address;
        let peer = if self.keeps_peers { self.join_peer(id, mapping_hash, address)? } else { NONE };
        let tcp = Connection::new();
        let flow = Flow { key: key.key, external, expires: now, mapping: id, peer, tcp };
        let inbound = self.hash(&flow.inbound_key());
        self.inbound.prefetch(inbound);
        let number = match self.flows.insert(flow) {
            Some(number) if self.link(number, key) => number,
            number => {
                number.map(|number| self.flows.remove(number));
                self.leave_peer(peer, mapping_hash);
                return None;
            }
        };
        if let Some(place) = self.waiting.get_mut(self.waiting_count) {
            *place = (inbound, number);
            self.waiting_count += 1;
        }
        if let Some(mapping) = self.mappings.get_mut(id) {
            mapping.sessions += 1;
        }
        if let Some(host) = self.hosts.get_mut(host) {
            host.sessions += 1;
        }
        Some(number)
    }

    /// Makes a flow findable from inside.
    fn link(&mut self, number: u32, key: &Hashed<FlowKey>) -> bool {
        // Where mappings depend on the remote endpoint, one that was opened from
        // outside may be another's that the inside already speaks to.
        let known =
            self.dependence != Dependence::EndpointIndependent && self.flow_out(key).is_some();
        known || self.outbound.insert(key.hash, number)
    }

    /// Makes the flows that were opened last findable from outside, too; to be said
    /// before anything asks for one. A session for which there is no room (its buckets
    /// are full, and so are those of all that is in them) ends.
    #[inline]
    pub(super) fn settle(&mut self) {
        if self.waiting_count > 0 {
            self.settle_waiting();
        }
    }

    fn settle_waiting(&mut self) {
        let count = std::mem::take(&mut self.waiting_count);
        let waiting = self.waiting;
        for (hash, number) in waiting.into_iter().take(count) {
            if !self.inbound.insert(hash, number) {
                self.remove_flow(number);
                self.unplaced += 1;
            }
        }
    }

    /// Ends a session; its mapping stays. The number of the mapping.
    pub(super) fn remove_flow(&mut self, number: u32) -> Option<u32> {
        self.settle();
        let flow = self.flows.remove(number)?;
        self.outbound.remove(self.hash(&flow.key), number);
        self.inbound.remove(self.hash(&flow.inbound_key()), number);
        let Some(mapping) = self.mappings.get_mut(flow.mapping) else { return Some(flow.mapping) };
        mapping.sessions = mapping.sessions.saturating_sub(1);
        let (known, host) = (mapping.key, mapping.host);
        self.leave_peer(flow.peer, self.hash(&known));
        if let Some(host) = self.hosts.get_mut(host) {
            host.sessions = host.sessions.saturating_sub(1);
        }
        Some(flow.mapping)
    }

    /// Asks for what [`FlowTable::remove_flow`] will touch if a flow is over.
    pub(super) fn prefetch_ending(&self, number: u32, now: Tick) {
        if let Some(flow) = self.flows.get(number)
            && now >= flow.expires
        {
            self.outbound.prefetch(self.hash(&flow.key));
            self.inbound.prefetch(self.hash(&flow.inbound_key()));
            self.mappings.prefetch(flow.mapping);
            self.peers.prefetch(flow.peer);
        }
    }

    /// Counts one session more of a mapping with a remote address.
    fn join_peer(&mut self, mapping: u32, mapping_hash: u64, address: Ipv4Addr) -> Option<u32> {
        let hash = self.hash_of_peer(mapping_hash, address);
        if let Some(id) = self.peer(mapping, hash, address) {
            self.peers.get_mut(id)?.sessions += 1;
            return Some(id);
        }
        let id = self.peers.insert(Peer { mapping, address, sessions: 1 })?;
        if !self.peers_by_key.insert(hash, id) {
            self.peers.remove(id);
            return None;
        }
        Some(id)
    }

    /// Counts one less, of the mapping with this hash.
    fn leave_peer(&mut self, id: u32, mapping_hash: u64) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.sessions = peer.sessions.saturating_sub(1);
        if peer.sessions == 0 {
            let address = peer.address;
            let hash = self.hash_of_peer(mapping_hash, address);
            self.peers.remove(id);
            self.peers_by_key.remove(hash, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_a_cache_line() {
        assert_eq!((size_of::<Option<Flow>>(), align_of::<Flow>()), (64, 64));
    }
}
