//! The visitor table of foreign agents: home address to link and station.
//!
//! Two visitors may have one home address, if they are of different home agents:
//! private networks are numbered alike everywhere. So a visitor is found by its
//! home address *and* a second thing, whichever a packet tells: the home agent
//! whose tunnel the packet came out of, or the link-layer address that sent it.
//!
//! # How it works
//!
//! One [hash table](super::hash) holds three keys for each visitor: its address,
//! its address and home agent, its address and station. The first leads to the
//! visitor itself while it alone has the address, so that a look-up costs no more
//! than without any of this; where several have it, the address says only that,
//! and the second look-up decides.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use homeport_wire::{MacAddress, PortId, TenantId};

use super::binding::{Encapsulation, EntryFlags};
use super::classes::{AddressClasses, Class};
use super::filter::FilterShape;
use super::hash::{self, MAX_CAPACITY, Reader, TableFull, Writer};
use super::keyed::{TableKey, WORDS, tenant_address};
use super::qsbr::Held;
use super::source_route::RouteList;

/// Who a visitor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VisitorKey {
    /// The foreign agent's tenant.
    pub tenant: TenantId,
    /// The visitor's home address.
    pub home_address: Ipv4Addr,
    /// Its home agent: the only outer source of packets for it, and the reverse
    /// tunnel's end.
    pub home_agent: Ipv4Addr,
}

/// How a visitor's own packets go back to its home agent (RFC 3024 §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReverseTunnel {
    /// Routed by their destination.
    #[default]
    None,
    /// All plain packets are encapsulated here.
    Direct,
    /// Packets that the visitor encapsulated to us are encapsulated anew; its
    /// plain packets are routed by their destination.
    Encapsulating,
}

/// Forwarding state of one visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisitorEntry {
    /// The station on the visited link.
    pub mac: MacAddress,
    /// The visited link.
    pub port: PortId,
    /// Its home agent, as in the key.
    pub home_agent: Ipv4Addr,
    /// Our address that it registered: outer source of the reverse tunnel.
    pub care_of_address: Ipv4Addr,
    /// How tunnels encapsulate.
    pub encapsulation: Encapsulation,
    /// How its packets go back.
    pub reverse_tunnel: ReverseTunnel,
    /// How its tunnel treats packets.
    pub flags: EntryFlags,
    /// Whether its home address may be another's as well, visitor or host of the
    /// visited network.
    pub overlapping: bool,
    /// Its source-restricted routes, if it has any.
    pub routes: Option<RouteList>,
    /// The number of the NAPT that it is hidden behind where its packets go by the
    /// routes of this box. What goes by a tunnel is never translated.
    pub napt: Option<u16>,
}

/// What a home address and a second thing lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'t> {
    /// The visitor.
    Visitor(&'t VisitorEntry),
    /// A visitor with that address, one of perhaps several, but none with that home
    /// agent or station.
    Other(&'t VisitorEntry),
    /// No visitor has that address.
    Nobody,
}

/// Makes a table for at most `capacity` visitors; `seed` as in [`hash::table`].
pub fn visitors(capacity: usize, seed: [u64; 2]) -> VisitorWriter {
    make(capacity, |capacity| hash::table(capacity, seed))
}

/// The same, with their networks marked in `classes`, which other tables mark as well.
pub fn visitors_with(capacity: usize, seed: [u64; 2], classes: &AddressClasses) -> VisitorWriter {
    make(capacity, |capacity| hash::table_with(capacity, seed, classes))
}

fn make(capacity: usize, table: impl FnOnce(usize) -> Writer<Index, Slot>) -> VisitorWriter {
    let capacity = capacity.clamp(1, MAX_CAPACITY / KEYS);
    VisitorWriter { index: table(capacity * KEYS), visitors: BTreeMap::new(), capacity }
}

/// Keys of one visitor.
const KEYS: usize = 3;

/// What the hash table is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Index {
    Address(TenantId, Ipv4Addr),
    HomeAgent(TenantId, Ipv4Addr, Ipv4Addr),
    Station(TenantId, Ipv4Addr, MacAddress),
}

impl TableKey for Index {
    const CLASS: Class = Class::VISITOR;
    /// Sixteen bits for each of 65,536 visitors.
    const FILTER: FilterShape = FilterShape { log_bits: 20, ignored_bits: 0 };

    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        match *self {
            Index::Address(tenant, address) => [tenant_address(tenant, address), 0, 0],
            Index::HomeAgent(tenant, address, home_agent) => {
                [tenant_address(tenant, address), u64::from(home_agent.to_bits()), 1]
            }
            Index::Station(tenant, address, MacAddress([a, b, c, d, e, f])) => {
                let station = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
                [tenant_address(tenant, address), station, 2]
            }
        }
    }

    /// Whoever asks begins with the address alone.
    #[inline(always)]
    fn filtered(&self) -> Option<Ipv4Addr> {
        match *self {
            Index::Address(_, address) => Some(address),
            Index::HomeAgent(..) | Index::Station(..) => None,
        }
    }
}

#[derive(Clone, Copy)]
struct Slot {
    entry: VisitorEntry,
    /// Whether others have the address too: then `entry` is just one of them. Of
    /// meaning with an address only.
    crowded: bool,
}

/// The only one who changes the visitors.
#[derive(Debug)]
pub struct VisitorWriter {
    index: Writer<Index, Slot>,
    visitors: BTreeMap<VisitorKey, VisitorEntry>,
    capacity: usize,
}

impl VisitorWriter {
    /// A new reader, online. It must say `quiescent` or `offline` like any reader.
    pub fn reader(&self) -> VisitorReader {
        VisitorReader { index: self.index.reader() }
    }

    /// Adds a visitor, or replaces it. A station that sends from one address is one
    /// visitor: what it was found as before is not found by it any more.
    ///
    /// # Errors
    ///
    /// [`TableFull`], and then the visitor is not in the table, even if it was.
    pub fn install(&mut self, key: VisitorKey, entry: VisitorEntry) -> Result<(), TableFull> {
        let before = self.visitors.get(&key).copied();
        if before.is_none() && self.visitors.len() >= self.capacity {
            return Err(TableFull);
        }
        self.visitors.insert(key, entry);
        let slot = Slot { entry, crowded: false };
        let done = self
            .index
            .install(station_of(&key, &entry), slot)
            .and_then(|()| self.index.install(home_agent_of(&key), slot))
            .and_then(|()| self.lead(&key));
        if let Some(before) = before.filter(|before| before.mac != entry.mac) {
            self.forget_station(&key, &before);
        }
        if done.is_err() {
            self.remove(&key);
        }
        done
    }

    /// Removes a visitor; whether it was there.
    pub fn remove(&mut self, key: &VisitorKey) -> bool {
        let Some(entry) = self.visitors.remove(key) else { return false };
        // Without room it still leads to all who have the address: see `Slot`.
        if self.lead(key).is_err() {
            tracing::debug!(home_address = %key.home_address, "a look-up by address stays slow");
        }
        self.index.remove(&home_agent_of(key));
        self.forget_station(key, &entry);
        true
    }

    /// The visitor.
    pub fn get(&self, key: &VisitorKey) -> Option<&VisitorEntry> {
        self.visitors.get(key)
    }

    /// All visitors, ordered by tenant, home address and home agent.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&VisitorKey, &VisitorEntry)> {
        self.visitors.iter()
    }

    /// What was replaced or removed and waits for the slowest reader.
    pub fn held(&mut self) -> Option<Held> {
        self.index.held()
    }

    /// How many visitors there are.
    pub fn len(&self) -> usize {
        self.visitors.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.visitors.is_empty()
    }

    /// How many visitors there may be.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Lets the address of `key` lead to those who have it.
    fn lead(&mut self, key: &VisitorKey) -> Result<(), TableFull> {
        let all = |home_agent| VisitorKey { home_agent, ..*key };
        let all = all(Ipv4Addr::UNSPECIFIED)..=all(Ipv4Addr::BROADCAST);
        let mut having = self.visitors.range(all);
        let address = Index::Address(key.tenant, key.home_address);
        match having.next() {
            Some((_, entry)) => {
                let slot = Slot { entry: *entry, crowded: having.next().is_some() };
                self.index.install(address, slot)
            }
            None => {
                self.index.remove(&address);
                Ok(())
            }
        }
    }

    /// Takes a station off the index unless it is another visitor's by now.
    fn forget_station(&mut self, key: &VisitorKey, entry: &VisitorEntry) {
        let station = station_of(key, entry);
        let owner = self.index.get(&station).map(|slot| slot.entry.home_agent);
        if owner == Some(key.home_agent) {
            self.index.remove(&station);
        }
    }
}

const fn home_agent_of(key: &VisitorKey) -> Index {
    Index::HomeAgent(key.tenant, key.home_address, key.home_agent)
}

const fn station_of(key: &VisitorKey, entry: &VisitorEntry) -> Index {
    Index::Station(key.tenant, key.home_address, entry.mac)
}

/// Finds visitors, without ever waiting. Dropping it deregisters it.
#[derive(Debug)]
pub struct VisitorReader {
    index: Reader<Index, Slot>,
}

impl VisitorReader {
    /// Whether there may be any visitor: no is certain.
    #[inline(always)]
    pub fn may_have_any(&self) -> bool {
        self.index.may_have_any()
    }

    /// Whether there may be a visitor with this home address, in whichever tenant: no
    /// is certain.
    #[inline(always)]
    pub fn may_have(&self, home_address: Ipv4Addr) -> bool {
        self.index.may_have(home_address)
    }

    /// The visitor that a tunnel of `home_agent` carries packets to.
    #[inline]
    pub fn of_home_agent(
        &self,
        tenant: TenantId,
        home_address: Ipv4Addr,
        home_agent: Ipv4Addr,
    ) -> Found<'_> {
        let exact = Index::HomeAgent(tenant, home_address, home_agent);
        self.find(tenant, home_address, exact, |entry| entry.home_agent == home_agent)
    }

    /// The visitor that the station with this link-layer address is. Its link is to
    /// be compared yet.
    #[inline]
    pub fn at_station(
        &self,
        tenant: TenantId,
        home_address: Ipv4Addr,
        mac: MacAddress,
    ) -> Found<'_> {
        let exact = Index::Station(tenant, home_address, mac);
        self.find(tenant, home_address, exact, |entry| entry.mac == mac)
    }

    /// The visitor of a home address that is nobody else's.
    #[inline]
    pub fn alone_at(&self, tenant: TenantId, home_address: Ipv4Addr) -> Option<&VisitorEntry> {
        let slot = self.index.lookup(&Index::Address(tenant, home_address))?;
        (!slot.crowded && !slot.entry.overlapping).then_some(&slot.entry)
    }

    #[inline]
    fn find(
        &self,
        tenant: TenantId,
        home_address: Ipv4Addr,
        exact: Index,
        is_it: impl Fn(&VisitorEntry) -> bool,
    ) -> Found<'_> {
        let Some(one) = self.index.lookup(&Index::Address(tenant, home_address)) else {
            return Found::Nobody;
        };
        let found = if one.crowded { self.index.lookup(&exact) } else { Some(one) };
        match found {
            // A key may be a moment behind or ahead of its entry.
            Some(found) if is_it(&found.entry) => Found::Visitor(&found.entry),
            #[cfg(feature = "planted-bugs")]
            _ if crate::planted::is(crate::planted::Bug::VisitorOfAnyHomeAgent)
                && matches!(exact, Index::HomeAgent(..)) =>
            {
                Found::Visitor(&one.entry)
            }
            _ => Found::Other(&one.entry),
        }
    }

    /// Says that no entry found before is still used: see [`Reader::quiescent`].
    #[inline]
    pub fn quiescent(&mut self) {
        self.index.quiescent();
    }

    /// Says that nothing is looked up until [`VisitorReader::online`].
    pub fn offline(&mut self) {
        self.index.offline();
    }

    /// Ends [`VisitorReader::offline`].
    pub fn online(&mut self) {
        self.index.online();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TENANT: TenantId = TenantId(3);
    const HOME: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);

    fn key(address: u8, agent: u8) -> VisitorKey {
        VisitorKey {
            tenant: TENANT,
            home_address: Ipv4Addr::new(10, 1, 0, address),
            home_agent: Ipv4Addr::new(10, 0, 9, agent),
        }
    }

    fn entry(agent: u8, mac: u8) -> VisitorEntry {
        VisitorEntry {
            mac: station(mac),
            port: PortId(1),
            home_agent: key(0, agent).home_agent,
            care_of_address: Ipv4Addr::new(10, 0, 2, 2),
            encapsulation: Encapsulation::IpInIp,
            reverse_tunnel: ReverseTunnel::Direct,
            flags: EntryFlags::default(),
            overlapping: true,
            routes: None,
            napt: None,
        }
    }

    const fn station(last: u8) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, last])
    }

    /// S3-11.
    #[test]
    fn two_visitors_with_one_address_are_told_apart_by_home_agent_and_station() {
        let mut writer = visitors(4, [1, 2]);
        let reader = writer.reader();
        let (first, second) = (entry(1, 1), entry(2, 2));
        writer.install(key(10, 1), first).unwrap();
        assert_eq!(
            reader.at_station(TENANT, HOME, station(2)),
            Found::Other(&first),
            "not registered yet"
        );
        writer.install(key(10, 2), second).unwrap();
        for (one, agent, mac) in [(first, 1, 1), (second, 2, 2)] {
            let home_agent = key(10, agent).home_agent;
            let found = reader.of_home_agent(TENANT, HOME, home_agent);
            assert_eq!(found, Found::Visitor(&one));
            assert_eq!(reader.at_station(TENANT, HOME, station(mac)), Found::Visitor(&one));
        }
        let stranger = Ipv4Addr::new(10, 0, 9, 3);
        assert!(matches!(reader.of_home_agent(TENANT, HOME, stranger), Found::Other(_)));
        assert!(matches!(reader.at_station(TENANT, HOME, station(3)), Found::Other(_)));
        assert_eq!(reader.at_station(TenantId(4), HOME, station(1)), Found::Nobody);
        assert!(writer.remove(&key(10, 1)) && !writer.remove(&key(10, 1)));
        assert_eq!(reader.at_station(TENANT, HOME, station(1)), Found::Other(&second));
        assert_eq!(reader.at_station(TENANT, HOME, station(2)), Found::Visitor(&second));
        assert!(writer.remove(&key(10, 2)));
        assert_eq!(reader.at_station(TENANT, HOME, station(2)), Found::Nobody);
        assert!(writer.is_empty() && writer.index.is_empty());
    }

    #[test]
    fn an_address_is_a_visitors_alone_only_where_it_can_be_nobody_elses() {
        let mut writer = visitors(4, [1, 2]);
        let reader = writer.reader();
        writer.install(key(10, 1), VisitorEntry { overlapping: false, ..entry(1, 1) }).unwrap();
        assert!(reader.alone_at(TENANT, HOME).is_some());
        writer.install(key(10, 2), VisitorEntry { overlapping: false, ..entry(2, 2) }).unwrap();
        assert!(reader.alone_at(TENANT, HOME).is_none(), "two have it");
        writer.remove(&key(10, 2));
        assert!(reader.alone_at(TENANT, HOME).is_some());
        writer.install(key(10, 1), entry(1, 1)).unwrap();
        assert!(reader.alone_at(TENANT, HOME).is_none(), "a local host may have it");
    }

    #[test]
    fn a_full_table_takes_nobody_new_and_replaces_whom_it_has() {
        let mut writer = visitors(2, [1, 2]);
        let mut reader = writer.reader();
        writer.install(key(10, 1), entry(1, 1)).unwrap();
        writer.install(key(11, 1), entry(1, 2)).unwrap();
        assert_eq!(writer.install(key(12, 1), entry(1, 3)), Err(TableFull));
        // A sleeping reader holds on to what was replaced: then there is no room.
        while writer.install(key(10, 1), entry(1, 4)).is_ok() {}
        assert!(writer.get(&key(10, 1)).is_none());
        assert_eq!(reader.at_station(TENANT, HOME, station(4)), Found::Nobody);
        reader.quiescent();
        writer.install(key(10, 1), entry(1, 5)).unwrap();
        assert!(matches!(reader.at_station(TENANT, HOME, station(5)), Found::Visitor(_)));
        assert!(matches!(reader.at_station(TENANT, HOME, station(4)), Found::Other(_)));
    }

    proptest! {
        /// After any changes, each index finds what the list has, and nothing else.
        #[test]
        fn the_indices_agree_with_the_list(
            changes in proptest::collection::vec((any::<bool>(), 10u8..12, 1u8..4, 1u8..4), 0..60),
        ) {
            let mut writer = visitors(16, [1, 2]);
            let mut reader = writer.reader();
            // Whose the station is: the last to come.
            let mut stations = BTreeMap::new();
            for (install, address, agent, mac) in changes {
                let key = key(address, agent);
                if let Some(before) = writer.get(&key) {
                    let station = (address, before.mac);
                    if stations.get(&station) == Some(&agent) {
                        stations.remove(&station);
                    }
                }
                if install {
                    writer.install(key, entry(agent, mac)).unwrap();
                    stations.insert((address, station(mac)), agent);
                } else {
                    writer.remove(&key);
                }
                reader.quiescent();
                for (address, agent, mac) in
                    (10u8..12).flat_map(|a| (1u8..4).flat_map(move |h| (1u8..4).map(move |m| (a, h, m))))
                {
                    let key = self::tests::key(address, agent);
                    let to = reader.of_home_agent(TENANT, key.home_address, key.home_agent);
                    match writer.get(&key) {
                        Some(entry) => prop_assert_eq!(to, Found::Visitor(entry)),
                        None => prop_assert!(!matches!(to, Found::Visitor(_))),
                    }
                    let at = reader.at_station(TENANT, key.home_address, station(mac));
                    match (at, stations.get(&(address, station(mac)))) {
                        (Found::Visitor(entry), Some(owner)) => {
                            prop_assert_eq!(entry.home_agent, self::tests::key(0, *owner).home_agent);
                        }
                        (Found::Visitor(entry), None) => {
                            // A visitor that is alone is found by its own station,
                            // though that was another's for a while.
                            prop_assert_eq!(entry.mac, station(mac));
                        }
                        (_, owner) => prop_assert_eq!(owner, None),
                    }
                }
            }
        }
    }
}
