//! What the writer and the readers of a route table share: the nodes of the trie and
//! the values that its leaves name, both in slabs that never move.
#![allow(unsafe_code, reason = "readers and the writer share values without a lock")]

use std::{
    mem::MaybeUninit,
    net::Ipv4Addr,
    num::NonZeroU32,
    ops::{Range, RangeInclusive},
};

use crate::sync::{AtomicU32, AtomicU64, Mutant, Ordering, Padded, UnsafeCell, planted};

/// How many bits of the key a node decides by. Fewer in models, which try every
/// order.
pub(super) const STRIDE: u32 = if cfg!(loom) { 2 } else { 8 };

/// Slots of a node.
pub(super) const FAN_OUT: usize = 1 << STRIDE;

/// Levels that the number of the scope takes.
const SCOPE_LEVELS: usize = if cfg!(loom) { 1 } else { 4 };

/// Levels that the address takes. In models only its first bits count.
const ADDRESS_LEVELS: usize = if cfg!(loom) { 2 } else { 4 };

/// All levels.
pub(super) const LEVELS: usize = SCOPE_LEVELS + ADDRESS_LEVELS;

const ADDRESS_BITS: u32 = STRIDE * ADDRESS_LEVELS as u32;

const KEY_BITS: u32 = STRIDE * LEVELS as u32;

/// The node at which every key begins.
pub(super) const TOP: u32 = 0;

/// The node of the scopes with small numbers: the last before their addresses.
const LOW: u32 = SCOPE_LEVELS as u32 - 1;

/// The node at which the addresses of scope 0 begin. The way from the top to here is
/// always there, so that look-ups can begin at its end.
pub(super) const HOME: u32 = SCOPE_LEVELS as u32;

/// How many values a leaf can number.
pub(super) const MAX_VALUES: usize = 1 << Word::VALUE_BITS;

/// What a slot holds: nothing, a leaf or a child.
///
/// A child has the uppermost bit. A leaf has the number of its value below and,
/// above it, one more than the length of the prefix that put it there: its *rank*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u32);

impl Word {
    /// No prefix covers the slot. Its rank is below that of every leaf.
    pub(super) const EMPTY: Word = Word(0);

    const CHILD: u32 = 1 << 31;
    const VALUE_BITS: u32 = 25;

    pub(super) const fn leaf(prefix_len: u8, value: u32) -> Self {
        Word((prefix_len as u32 + 1) << Self::VALUE_BITS | value)
    }

    pub(super) const fn child(node: u32) -> Self {
        Word(Self::CHILD | node)
    }

    /// The child, if it is one.
    #[inline(always)]
    pub(super) const fn as_child(self) -> Option<u32> {
        if self.0 & Self::CHILD != 0 { Some(self.0 & !Self::CHILD) } else { None }
    }

    /// The rank of a leaf: 1 for /0 to 33 for /32. 0 if empty.
    #[inline(always)]
    pub(super) const fn rank(self) -> u8 {
        (self.0 >> Self::VALUE_BITS) as u8
    }

    /// The value of a leaf.
    #[inline(always)]
    pub(super) const fn value(self) -> u32 {
        self.0 & ((1 << Self::VALUE_BITS) - 1)
    }
}

/// What a look-up finds: a word that is neither empty nor a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaf(NonZeroU32);

impl Leaf {
    /// As for a [`Word`].
    #[inline(always)]
    pub(super) const fn rank(self) -> u8 {
        Word(self.0.get()).rank()
    }

    /// As for a [`Word`].
    #[inline(always)]
    pub(super) const fn value(self) -> u32 {
        Word(self.0.get()).value()
    }
}

/// A scope's number and, below it, an address.
#[derive(Clone, Copy)]
pub(super) struct Key(u64);

impl Key {
    #[inline(always)]
    pub(super) const fn new(scope: u32, address: Ipv4Addr) -> Self {
        Key((scope as u64) << ADDRESS_BITS | address.to_bits() as u64 >> (32 - ADDRESS_BITS))
    }

    /// The slot that it takes in a node of this level.
    #[inline(always)]
    pub(super) const fn index(self, level: usize) -> usize {
        (self.0 >> (KEY_BITS - STRIDE * (level as u32 + 1))) as usize & (FAN_OUT - 1)
    }

    /// The level of the node in which a prefix of this length ends, and the slots
    /// there that it covers.
    pub(super) fn end(self, prefix_len: u8) -> (usize, Range<usize>) {
        let prefix_len = usize::from(prefix_len);
        let stride = STRIDE as usize;
        let above = prefix_len.saturating_sub(1) / stride;
        let level = SCOPE_LEVELS + above;
        let covered = FAN_OUT >> (prefix_len - above * stride);
        let first = self.index(level) & !(covered - 1);
        (level, first..first + covered)
    }
}

/// A node: zeroes are empty slots.
#[repr(transparent)]
pub(super) struct Node {
    slots: [AtomicU32; FAN_OUT],
}

/// Room for a value.
type ValueCell<V> = UnsafeCell<MaybeUninit<V>>;

/// What writer and readers share.
pub(super) struct Trie<V> {
    nodes: Box<[Node]>,
    values: Box<[ValueCell<V>]>,
    /// What readers ask before they look up.
    pub(super) published: Padded<Published>,
}

#[derive(Default)]
pub(super) struct Published {
    /// How many changes there were.
    pub(super) epoch: AtomicU64,
    /// How many routes there are.
    pub(super) routes: AtomicU64,
}

// SAFETY: slots are atomic. Values are shared as `&V` only while a slot names them or
// a reader may still hold them, and then nobody writes them (`fill`'s contract); so
// sharing a trie shares values, which are Sync, and overwriting them elsewhere sends
// them, which they are as well.
unsafe impl<V: Send + Sync> Sync for Trie<V> {}

impl<V: Copy> Trie<V> {
    /// A trie with the way to scope 0 and nothing else.
    pub(super) fn new(nodes: usize, values: usize) -> Self {
        let trie = Trie {
            nodes: empty_nodes(nodes),
            values: (0..values).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
            published: Padded::default(),
        };
        for node in TOP..HOME {
            if let Some(slot) = trie.slots(node).first() {
                // Relaxed: whoever shares the trie orders this.
                slot.store(Word::child(node + 1).0, Ordering::Relaxed);
            }
        }
        trie
    }

    /// The node that [`Trie::best`] begins scope 0 with.
    #[inline(always)]
    pub(super) fn home(&self) -> Option<&Node> {
        self.nodes.get(HOME as usize)
    }

    /// The leaf of the longest prefix that the key is in. `home` is [`Trie::home`].
    #[inline(always)]
    pub(super) fn best(&self, home: &Node, key: Key) -> Option<Leaf> {
        let scope = key.0 >> ADDRESS_BITS;
        let (mut node, mut level) = if scope == 0 {
            // Mostly a default route, and then this is all.
            let word = Word(home.slots.get(key.index(SCOPE_LEVELS))?.load(Ordering::Acquire));
            match word.as_child() {
                Some(child) => (child, SCOPE_LEVELS + 1),
                None => return NonZeroU32::new(word.0).map(Leaf),
            }
        } else if scope < FAN_OUT as u64 {
            (LOW, SCOPE_LEVELS - 1)
        } else {
            (TOP, 0)
        };
        while level < LEVELS
            && let Some(slot) = self.slot(node, key, level)
        {
            // Acquire: the node or the value that it names has been filled.
            let word = Word(slot.load(Ordering::Acquire));
            let Some(child) = word.as_child() else {
                return NonZeroU32::new(word.0).map(Leaf);
            };
            node = child;
            level += 1;
        }
        None
    }

    /// The slots of a node; no slot names a node that does not exist.
    #[inline(always)]
    pub(super) fn slots(&self, node: u32) -> &[AtomicU32] {
        self.nodes.get(node as usize).map_or(&[], |node| &node.slots)
    }

    /// The slot of a key in a node of this level.
    #[inline(always)]
    pub(super) fn slot(&self, node: u32, key: Key, level: usize) -> Option<&AtomicU32> {
        self.nodes.get(node as usize)?.slots.get(key.index(level))
    }

    /// A value, for a reader.
    ///
    /// # Safety
    ///
    /// A slot names `number`, or named it after the calling reader's last quiescent
    /// point.
    #[inline(always)]
    pub(super) unsafe fn copy(&self, number: u32) -> Option<V> {
        let cell = self.values.get(number as usize)?;
        // SAFETY: it was filled before a slot named it, and stays as it is until
        // all readers have passed a quiescent point (`fill`'s contract).
        Some(cell.with(|value| unsafe { (*value).assume_init() }))
    }

    /// A value, for the writer.
    ///
    /// # Safety
    ///
    /// The caller is the writer, it has filled `number`, and it does not fill it again
    /// while the result is held.
    pub(super) unsafe fn value(&self, number: u32) -> Option<&V> {
        let cell = self.values.get(number as usize)?;
        // SAFETY: it was filled, and nobody writes it meanwhile.
        Some(cell.with(|value| unsafe { (*value).assume_init_ref() }))
    }

    /// # Safety
    ///
    /// The caller is the writer, no slot names `number`, and no reader can hold it.
    pub(super) unsafe fn fill(&self, number: u32, value: V) {
        if let Some(cell) = self.values.get(number as usize) {
            // SAFETY: nobody else looks at it.
            cell.with_mut(|place| unsafe { (*place).write(value) });
        }
    }

    /// Stores a word in all of a node's slots within `range`, and below them, that
    /// hold nothing or a leaf with one of these ranks. Only for the writer.
    pub(super) fn overwrite(
        &self,
        node: u32,
        range: Range<usize>,
        ranks: RangeInclusive<u8>,
        word: Word,
    ) {
        for slot in self.slots(node).get(range).unwrap_or(&[]) {
            let now = read(slot);
            if let Some(child) = now.as_child() {
                self.overwrite(child, 0..FAN_OUT, ranks.clone(), word);
            } else if ranks.contains(&now.rank()) {
                if planted(Mutant::RouteInTwoSteps) {
                    publish(slot, Word::EMPTY);
                }
                if planted(Mutant::RouteRelaxed) {
                    prepare(slot, word);
                    continue;
                }
                publish(slot, word);
            }
        }
    }
}

/// What a slot holds, for the writer.
pub(super) fn read(slot: &AtomicU32) -> Word {
    // Relaxed: the writer stored it itself.
    Word(slot.load(Ordering::Relaxed))
}

/// Stores into a slot that readers see.
pub(super) fn publish(slot: &AtomicU32, word: Word) {
    // Release: who sees the word sees what it names.
    slot.store(word.0, Ordering::Release);
}

/// Stores into a slot that no reader sees yet.
pub(super) fn prepare(slot: &AtomicU32, word: Word) {
    // Relaxed: what makes the node known releases it.
    slot.store(word.0, Ordering::Relaxed);
}

/// Nodes whose memory is not touched before they are used.
#[cfg(not(loom))]
fn empty_nodes(count: usize) -> Box<[Node]> {
    // SAFETY: a node is atomic words, for which zero is a value.
    unsafe { Box::<[Node]>::new_zeroed_slice(count).assume_init() }
}

#[cfg(loom)]
fn empty_nodes(count: usize) -> Box<[Node]> {
    let node = || Node { slots: std::array::from_fn(|_| AtomicU32::new(0)) };
    (0..count).map(|_| node()).collect()
}
