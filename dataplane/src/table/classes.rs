//! What an address may be, by its upper half: one load of one byte.
//!
//! Most packets are between addresses of which nothing is known here, or to one that
//! may be bound. All tables that could know better mark the /16 in which they have an
//! address, each with a bit of its own, in one array of 64 KiB that stays in the inner
//! caches. A clear bit is certain; a set one says "look into that table" (or ask its
//! [filter](super::filter), which is exact but costs a multiplication).
//!
//! The array is indexed by the address itself and not by a hash: nobody can find
//! addresses that collide, and an attacker who sends to a marked network costs us no
//! more than the look-up that is due there.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// One for each /16.
const NETWORKS: usize = 1 << 16;

/// What may be known of an address: a set of what its network is marked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(u8);

impl Class {
    /// Nothing.
    pub const NONE: Class = Class(0);
    /// It is none that packets are forwarded between: this network, loopback, link
    /// local, multicast and above (RFC 1812 §5.3.7, RFC 6890).
    pub const UNUSUAL: Class = Class(1);
    /// An address of ours.
    pub const LOCAL: Class = Class(2);
    /// A visitor's.
    pub const VISITOR: Class = Class(4);
    /// A home address that is bound.
    pub const BOUND: Class = Class(8);

    /// What is in this or in that.
    #[inline(always)]
    #[must_use]
    pub const fn or(self, other: Class) -> Class {
        Class(self.0 | other.0)
    }

    /// Whether anything of `other` is in it.
    #[inline(always)]
    pub const fn has(self, other: Class) -> bool {
        self.0 & other.0 != 0
    }
}

/// The classes of all addresses, which the writers of several tables mark.
#[derive(Clone, Debug)]
pub struct AddressClasses(Arc<[AtomicU8; NETWORKS]>);

impl Default for AddressClasses {
    /// No table has an address.
    fn default() -> Self {
        AddressClasses(Arc::new(std::array::from_fn(|network| {
            // Networks are numbered with 16 bits.
            let [octet, second] = (network as u16).to_be_bytes();
            let unusual = matches!(octet, 0 | 127 | 224..) || (octet, second) == (169, 254);
            AtomicU8::new(if unusual { Class::UNUSUAL.0 } else { Class::NONE.0 })
        })))
    }
}

impl AddressClasses {
    /// The classes at hand, for who asks for many addresses.
    #[inline(always)]
    pub(crate) fn at_hand(&self) -> ClassesAtHand<'_> {
        ClassesAtHand(&self.0)
    }

    /// What may be known of an address.
    #[inline(always)]
    pub fn of(&self, address: u32) -> Class {
        self.at_hand().of(address)
    }
}

/// [`AddressClasses`] without the way to them.
#[derive(Clone, Copy)]
pub(crate) struct ClassesAtHand<'t>(&'t [AtomicU8; NETWORKS]);

impl ClassesAtHand<'_> {
    /// As [`AddressClasses::of`].
    #[inline(always)]
    pub(crate) fn of(self, address: u32) -> Class {
        let network = usize::from((address >> 16) as u16);
        // Relaxed: a network is marked before its address is in the table. Who was told
        // of the address sees the mark; who was not may as well come a moment earlier.
        self.0.get(network).map_or(Class::UNUSUAL, |class| Class(class.load(Ordering::Relaxed)))
    }
}

/// What marks the networks of one table: it counts, so that it can unmark.
#[derive(Debug)]
pub(crate) struct ClassWriter {
    /// `None`: the table marks nothing.
    classes: Option<AddressClasses>,
    class: Class,
    counts: Box<[u32]>,
}

impl ClassWriter {
    /// For a table that marks nothing.
    pub(crate) fn none() -> Self {
        ClassWriter { classes: None, class: Class::NONE, counts: Box::default() }
    }

    /// For a table with no address yet. Other tables mark with other classes.
    pub(crate) fn new(classes: &AddressClasses, class: Class) -> Self {
        let counts = vec![0; NETWORKS].into_boxed_slice();
        ClassWriter { classes: Some(classes.clone()), class, counts }
    }

    /// To be called before an address is in the table.
    pub(crate) fn add(&mut self, address: Ipv4Addr) {
        let network = network_of(address);
        let Some(count) = self.counts.get_mut(network) else { return };
        *count += 1;
        if let Some(classes) = self.classes.as_ref().filter(|_| *count == 1)
            && let Some(class) = classes.0.get(network)
        {
            // Atomic: the writers of other tables mark the same byte. Release: see `of`.
            class.fetch_or(self.class.0, Ordering::Release);
        }
    }

    /// To be called after an address has left the table.
    pub(crate) fn remove(&mut self, address: Ipv4Addr) {
        let network = network_of(address);
        let Some(count) = self.counts.get_mut(network).filter(|count| **count > 0) else { return };
        *count -= 1;
        if let Some(classes) = self.classes.as_ref().filter(|_| *count == 0)
            && let Some(class) = classes.0.get(network)
        {
            // Release: a cleared mark is seen with the removal before it.
            class.fetch_and(!self.class.0, Ordering::Release);
        }
    }
}

const fn network_of(address: Ipv4Addr) -> usize {
    (address.to_bits() >> 16) as usize
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Two tables mark the same networks, and neither unmarks for the other.
        #[test]
        fn what_a_table_has_is_marked_and_nothing_else(
            steps in proptest::collection::vec((0..2usize, any::<bool>(), 0u32..6), 0..60),
        ) {
            let classes = AddressClasses::default();
            let marks = [Class::LOCAL, Class::BOUND];
            let mut writers = marks.map(|class| ClassWriter::new(&classes, class));
            let mut held = [const { Vec::<u32>::new() }; 2];
            let address = |number: u32| 0x0a00_0000 + number * 0x8001;
            for (table, add, number) in steps {
                let at = held[table].iter().position(|other| *other == number);
                match (add, at) {
                    (true, _) => {
                        writers[table].add(address(number).into());
                        held[table].push(number);
                    }
                    (false, Some(at)) => {
                        writers[table].remove(address(number).into());
                        held[table].swap_remove(at);
                    }
                    (false, None) => {}
                }
                for number in 0..6 {
                    for (mark, held) in marks.iter().zip(&held) {
                        let network = |number: u32| address(number) >> 16;
                        let marked = held.iter().any(|at| network(*at) == network(number));
                        prop_assert_eq!(classes.of(address(number)).has(*mark), marked);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_never_forwarded_is_unusual_from_the_beginning() {
        let classes = AddressClasses::default();
        let unusual =
            ["0.0.0.0", "127.255.0.1", "169.254.255.255", "224.0.0.11", "255.255.255.255"];
        let usual = ["1.0.0.0", "126.255.255.255", "128.0.0.0", "169.253.0.1", "223.255.255.255"];
        for (addresses, expected) in [(unusual, true), (usual, false)] {
            for address in addresses {
                let bits = address.parse::<Ipv4Addr>().unwrap().to_bits();
                assert_eq!(classes.of(bits).has(Class::UNUSUAL), expected, "{address}");
            }
        }
    }
}
