//! When bindings end: a wheel of slots of a second, and the nodes that are due
//! within the present one in their exact order.
//!
//! A lifetime has 16 bits of seconds, so one wheel of 65,536 slots holds every end
//! and nothing is ever moved from a coarse wheel to a fine one. A node is in at most
//! one slot, by links in its own record. The wheel is *lazy*: a renewal leaves the
//! node where it is, and when that slot comes up the node goes to where its end is
//! then. So a renewal costs nothing, whatever the number of bindings.
//!
//! However many bindings end at one moment, the work of one call is bounded
//! ([`MOVED_PER_CALL`], [`EXPIRED_PER_CALL`]); what is left is due at once.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use super::node::{NO_NODE, NodeList, Wait};
use crate::Instant;

/// Nodes that one call takes out of slots.
pub(super) const MOVED_PER_CALL: usize = 4_096;
/// Bindings that one call ends.
pub(super) const EXPIRED_PER_CALL: usize = 512;

/// A slot is 2^30 nanoseconds: 1.07 s.
const SLOT_BITS: u32 = 30;
/// Slots of a part.
const PART: usize = 256;
/// Parts of the wheel: 65,536 slots are 19.5 hours, more than any lifetime.
const PARTS: usize = 256;
/// The farthest slot ahead that a node may wait in.
const HORIZON: u64 = (PART * PARTS - 1) as u64;
/// A slot that is as short as this is searched for its exact next end.
const SHORT: usize = 4;

/// Some neighbouring slots. A part without nodes is not kept.
#[derive(Debug)]
struct Part {
    /// The first node of each slot.
    heads: [u32; PART],
    /// Which slots have nodes.
    occupied: [u64; PART / 64],
}

/// The ends of a home agent's bindings.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    parts: Vec<Option<Box<Part>>>,
    /// Which parts are there.
    present: [u64; PARTS / 64],
    /// Nothing waits in a slot before this one, counted from the clock's origin.
    cursor: u64,
    /// The nodes of slots that have come up, by their ends as they were then.
    soon: BTreeSet<(Instant, Ipv4Addr)>,
}

const fn slot_of(at: Instant) -> u64 {
    at.0 >> SLOT_BITS
}

/// A slot's part, and its place in it.
#[expect(clippy::cast_possible_truncation, reason = "reduced to an index")]
const fn place_of(slot: u64) -> (usize, usize) {
    let slot = slot as usize % (PART * PARTS);
    (slot / PART, slot % PART)
}

impl Expiries {
    /// The node's binding ends at `at`, or never.
    pub(super) fn set(
        &mut self,
        nodes: &mut NodeList,
        number: u32,
        at: Option<Instant>,
        now: Instant,
    ) {
        let Some(node) = nodes.get(number) else { return };
        let Some(at) = at else {
            if let Wait::InSlot(_) = node.wait() {
                self.unlink(nodes, number);
            }
            return;
        };
        match node.wait() {
            // It is looked at before its end, whatever that is.
            Wait::Soon => return,
            Wait::InSlot(slot) => {
                #[cfg(feature = "planted-bugs")]
                if crate::planted::is(crate::planted::Bug::EarlierEndNotArmed) {
                    return;
                }
                let waits_for = self.absolute(slot);
                if waits_for <= slot_of(at) {
                    return;
                }
                self.unlink(nodes, number);
            }
            Wait::No => {}
        }
        if self.is_empty() {
            self.cursor = slot_of(now);
        }
        self.link(nodes, number, slot_of(at));
    }

    /// When something is to be done next: exactly, unless so many ends are near that
    /// looking at each would take long; then a little before.
    pub(super) fn next(&self, nodes: &NodeList) -> Option<Instant> {
        let soon = self.soon.first().map(|(at, _)| *at);
        let slot = self.first_slot().map(|slot| {
            let start = Instant(slot << SLOT_BITS);
            let mut first = Instant(u64::MAX);
            let mut number = self.head(slot);
            for _ in 0..SHORT {
                let Some(node) = nodes.get(number) else { return first.max(start) };
                // Who has renewed is to be moved at the start of the slot.
                let end = node.expires().filter(|end| slot_of(*end) == slot);
                first = first.min(end.unwrap_or(start));
                number = node.next();
            }
            if nodes.get(number).is_some() { start } else { first.max(start) }
        });
        match (soon, slot) {
            (Some(soon), Some(slot)) => Some(soon.min(slot)),
            (soon, slot) => soon.or(slot),
        }
    }

    /// A node whose binding has ended by `now`, the first one first; `budget` says how
    /// many nodes may still be moved.
    pub(super) fn pop_due(
        &mut self,
        nodes: &mut NodeList,
        now: Instant,
        budget: &mut usize,
    ) -> Option<u32> {
        self.come_up(nodes, now, budget);
        while let Some(&(at, home_address)) = self.soon.first() {
            if at > now {
                return None;
            }
            self.soon.pop_first();
            let Some(number) = nodes.find(home_address) else { continue };
            let Some(node) = nodes.get_mut(number) else { continue };
            node.set_wait(Wait::No);
            match node.expires() {
                Some(end) if end <= now => return Some(number),
                end => self.set(nodes, number, end, now),
            }
        }
        None
    }

    /// Empties the slots that begin up to `now`.
    fn come_up(&mut self, nodes: &mut NodeList, now: Instant, budget: &mut usize) {
        while let Some(slot) = self.first_slot().filter(|slot| *slot <= slot_of(now)) {
            loop {
                let number = self.head(slot);
                let Some(node) = nodes.get(number) else { break };
                let Some(left) = budget.checked_sub(1) else { return };
                *budget = left;
                let (end, home_address) = (node.expires(), node.home_address());
                self.unlink(nodes, number);
                match end {
                    Some(end) if slot_of(end) <= slot_of(now) => {
                        self.soon.insert((end, home_address));
                        if let Some(node) = nodes.get_mut(number) {
                            node.set_wait(Wait::Soon);
                        }
                    }
                    Some(end) => self.link(nodes, number, slot_of(end)),
                    None => {}
                }
            }
        }
        self.cursor = self.cursor.max(slot_of(now));
    }

    fn is_empty(&self) -> bool {
        self.present.iter().all(|word| *word == 0)
    }

    /// The number of a slot of the wheel, counted from the clock's origin.
    fn absolute(&self, slot: u16) -> u64 {
        let ahead = slot.wrapping_sub(
            #[expect(clippy::cast_possible_truncation, reason = "modulo the wheel")]
            {
                self.cursor as u16
            },
        );
        self.cursor + u64::from(ahead)
    }

    fn head(&self, slot: u64) -> u32 {
        let (part, place) = place_of(slot);
        let part = self.parts.get(part).and_then(Option::as_ref);
        part.and_then(|part| part.heads.get(place)).copied().unwrap_or(NO_NODE)
    }

    /// The first slot from the cursor on that has nodes.
    fn first_slot(&self) -> Option<u64> {
        let (first_part, first_place) = place_of(self.cursor);
        let base = self.cursor - first_place as u64;
        let occupied = |part: usize, from: usize| {
            let part = self.parts.get(part)?.as_ref()?;
            first_bit(&part.occupied, from)
        };
        if let Some(place) = occupied(first_part, first_place) {
            return Some(base + place as u64);
        }
        // The other parts around, and the beginning of the first one last.
        let mut ahead = 1;
        while ahead <= PARTS {
            let part = (first_part + ahead) % PARTS;
            let Some(present) = first_bit(&self.present, part) else {
                // None up to the end: on from the beginning.
                ahead += PARTS - part;
                continue;
            };
            ahead += present - part;
            if ahead > PARTS {
                return None;
            }
            if let Some(place) = occupied(present, 0) {
                return Some(base + (ahead * PART + place) as u64);
            }
            ahead += 1;
        }
        None
    }

    fn link(&mut self, nodes: &mut NodeList, number: u32, slot: u64) {
        let slot = slot.clamp(self.cursor, self.cursor + HORIZON);
        let (at, place) = place_of(slot);
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, || None);
        }
        let Some(part) = self.parts.get_mut(at) else { return };
        let part = part.get_or_insert_with(|| {
            Box::new(Part { heads: [NO_NODE; PART], occupied: [0; PART / 64] })
        });
        let Some(head) = part.heads.get_mut(place) else { return };
        let next = core::mem::replace(head, number);
        set_bit(&mut part.occupied, place, true);
        set_bit(&mut self.present, at, true);
        if let Some(node) = nodes.get_mut(next) {
            node.set_previous(number);
        }
        if let Some(node) = nodes.get_mut(number) {
            node.set_next(next);
            node.set_previous(NO_NODE);
            #[expect(clippy::cast_possible_truncation, reason = "modulo the wheel")]
            node.set_wait(Wait::InSlot(slot as u16));
        }
    }

    fn unlink(&mut self, nodes: &mut NodeList, number: u32) {
        let Some(node) = nodes.get_mut(number) else { return };
        let Wait::InSlot(slot) = node.wait() else { return };
        node.set_wait(Wait::No);
        let (previous, next) = (node.previous(), node.next());
        if let Some(node) = nodes.get_mut(next) {
            node.set_previous(previous);
        }
        if let Some(node) = nodes.get_mut(previous) {
            node.set_next(next);
            return;
        }
        let (at, place) = place_of(u64::from(slot));
        let Some(entry) = self.parts.get_mut(at) else { return };
        let Some(part) = entry else { return };
        if let Some(head) = part.heads.get_mut(place) {
            *head = next;
        }
        if next == NO_NODE {
            set_bit(&mut part.occupied, place, false);
            if part.occupied.iter().all(|word| *word == 0) {
                *entry = None;
                set_bit(&mut self.present, at, false);
            }
        }
    }
}

/// The first bit that is set, from `from` on.
fn first_bit(words: &[u64], from: usize) -> Option<usize> {
    let mut mask = u64::MAX << (from % 64);
    for (index, word) in words.iter().enumerate().skip(from / 64) {
        let masked = word & mask;
        if masked != 0 {
            return Some(index * 64 + masked.trailing_zeros() as usize);
        }
        mask = u64::MAX;
    }
    None
}

fn set_bit(words: &mut [u64], place: usize, set: bool) {
    if let Some(word) = words.get_mut(place / 64) {
        let bit = 1 << (place % 64);
        *word = if set { *word | bit } else { *word & !bit };
    }
}

#[cfg(test)]
mod tests;
