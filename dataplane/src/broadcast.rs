//! Nodes that are away and asked for the broadcasts of their home link (RFC 5944
//! §3.3, flag B; §4.3), and with them for its multicast packets (§4.4).
//!
//! The binding table finds a node by its address; a broadcast must find the nodes
//! of a link. So each link has a short list, written by the control core beside
//! the bindings.
//!
//! **Not done:** membership: a node that listens gets all groups but those of the
//! link itself; groups that are not sent on the home link; what this box itself
//! sends to a home link.

use std::collections::HashMap;

use homeport_wire::PortId;

use crate::table::binding::{BindingEntry, BindingKey, TunnelFlags};
use crate::table::hash::{Reader, TableFull, Writer, table};
use crate::table::keyed::{TableKey, WORDS};

/// The most nodes of one link that get its broadcasts: what one frame may cost.
pub const MAX_LISTENERS: u16 = 64;

/// A place in a link's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// The home link.
    pub port: PortId,
    /// The place: they are taken from 0 up, without gaps.
    pub slot: u16,
}

impl TableKey for ListenerKey {
    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        [u64::from(self.port.0) << 16 | u64::from(self.slot), 0, 0]
    }
}

/// The only one who changes the lists.
pub struct ListenerWriter {
    table: Writer<ListenerKey, BindingKey>,
    links: HashMap<PortId, Vec<BindingKey>>,
    places: HashMap<BindingKey, PortId>,
}

impl ListenerWriter {
    /// Empty lists for this many ports; `seed` as in [`table`].
    pub fn new(ports: usize, seed: [u64; 2]) -> Self {
        let table = table(ports * usize::from(MAX_LISTENERS), seed);
        ListenerWriter { table, links: HashMap::new(), places: HashMap::new() }
    }

    /// A new reader, online. It must say `quiescent` or `offline` like any reader.
    pub fn reader(&self) -> Reader<ListenerKey, BindingKey> {
        self.table.reader()
    }

    /// Says that a binding was installed, replaced or (`None`) removed: to be
    /// called after each of them. It listens when it has a home link and a tunnel
    /// that wants broadcasts.
    ///
    /// # Errors
    /// [`TableFull`] when the link has [`MAX_LISTENERS`] already: the node goes
    /// without its broadcasts.
    pub fn update(
        &mut self,
        key: BindingKey,
        entry: Option<&BindingEntry>,
    ) -> Result<(), TableFull> {
        let wants = |entry: &&BindingEntry| {
            entry.tunnels().iter().any(|tunnel| tunnel.is(TunnelFlags::BROADCAST))
        };
        let link = entry.filter(wants).and_then(BindingEntry::home_link);
        let listed = self.places.get(&key).copied();
        if listed == link {
            return Ok(());
        }
        if let Some(port) = listed {
            self.unlist(port, key)?;
        }
        match link {
            Some(port) => self.list(port, key),
            None => Ok(()),
        }
    }

    /// How many nodes of a link get its broadcasts.
    pub fn len(&self, port: PortId) -> usize {
        self.links.get(&port).map_or(0, Vec::len)
    }

    fn list(&mut self, port: PortId, key: BindingKey) -> Result<(), TableFull> {
        let list = self.links.entry(port).or_default();
        let slot = u16::try_from(list.len()).ok().filter(|slot| *slot < MAX_LISTENERS);
        self.table.install(ListenerKey { port, slot: slot.ok_or(TableFull)? }, key)?;
        list.push(key);
        self.places.insert(key, port);
        Ok(())
    }

    /// The last one takes the place, so that no gap is left.
    fn unlist(&mut self, port: PortId, key: BindingKey) -> Result<(), TableFull> {
        let Some(list) = self.links.get_mut(&port) else { return Ok(()) };
        let Some(at) = list.iter().position(|listed| *listed == key) else { return Ok(()) };
        let last_at = list.len() - 1;
        // A list is at most MAX_LISTENERS long.
        let slot = |at: usize| ListenerKey { port, slot: at as u16 };
        if let Some(last) = list.last().filter(|_| at < last_at) {
            self.table.install(slot(at), *last)?;
        }
        self.table.remove(&slot(last_at));
        list.swap_remove(at);
        self.places.remove(&key);
        Ok(())
    }
}

impl std::fmt::Debug for ListenerWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ListenerWriter({} nodes)", self.places.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::binding::{Encapsulation, EntryFlags, TunnelEnd};
    use homeport_wire::TenantId;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    fn entry(home_link: Option<u16>, broadcast: bool) -> BindingEntry {
        let flags = TunnelFlags::REVERSE.with(TunnelFlags::BROADCAST, broadcast);
        let tunnel = TunnelEnd::new(Ipv4Addr::new(10, 0, 2, 2), Encapsulation::IpInIp, flags);
        let home_agent = Ipv4Addr::new(10, 0, 1, 2);
        let link = home_link.map(PortId);
        BindingEntry::new(home_agent, [tunnel], link, EntryFlags::default()).unwrap()
    }

    fn key(node: u8) -> BindingKey {
        BindingKey { tenant: TenantId(0), home_address: Ipv4Addr::new(10, 1, 0, node) }
    }

    proptest! {
        /// Whatever was installed and removed, a reader that walks a list from its
        /// first place to the first gap finds the link's listeners, each once.
        #[test]
        fn a_link_lists_its_listeners_without_gaps(
            steps in proptest::collection::vec((0u8..12, 0u16..4, any::<bool>(), any::<bool>()), 0..80),
        ) {
            let mut writer = ListenerWriter::new(4, [1, 2]);
            let mut reader = writer.reader();
            let mut model: HashMap<u8, u16> = HashMap::new();
            for (node, port, broadcast, present) in steps {
                let home_link = (port < 3).then_some(port);
                let entry = entry(home_link, broadcast);
                writer.update(key(node), present.then_some(&entry)).unwrap();
                model.remove(&node);
                if let Some(port) = home_link.filter(|_| broadcast && present) {
                    model.insert(node, port);
                }
                for port in 0..3u16 {
                    let slots = (0..).map(|slot| ListenerKey { port: PortId(port), slot });
                    let listed: Vec<BindingKey> =
                        slots.map_while(|slot| reader.lookup(&slot).copied()).collect();
                    let expected: HashSet<BindingKey> =
                        model.iter().filter(|(_, at)| **at == port).map(|(node, _)| key(*node)).collect();
                    prop_assert_eq!(listed.len(), expected.len());
                    prop_assert_eq!(listed.len(), writer.len(PortId(port)));
                    prop_assert_eq!(listed.into_iter().collect::<HashSet<_>>(), expected);
                }
                reader.quiescent();
            }
        }
    }

    #[test]
    fn a_link_has_a_bounded_number_of_listeners() {
        let mut writer = ListenerWriter::new(1, [1, 2]);
        let listening = entry(Some(0), true);
        for node in 0..64 {
            writer.update(key(node), Some(&listening)).unwrap();
        }
        assert_eq!(writer.update(key(64), Some(&listening)), Err(TableFull));
        writer.update(key(3), None).unwrap();
        assert_eq!(writer.update(key(64), Some(&listening)), Ok(()));
    }
}
