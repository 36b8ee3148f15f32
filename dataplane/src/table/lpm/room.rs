//! Which nodes and values of a route table are free. Only the writer has it.

use crate::table::qsbr::{Domain, Participant};

/// What is retired and worth a look at all readers.
const RECLAIM_BATCH: usize = if cfg!(loom) { 1 } else { 32 };

/// The free nodes and values, and those that wait for readers.
#[derive(Debug)]
pub(super) struct Room {
    /// Nodes have their own number in it, values theirs after the last node's.
    domain: Domain,
    nodes: Free,
    values: Free,
}

impl Room {
    /// All of `values` and of `nodes` but the first `kept`, which are never given.
    pub(super) fn new(kept: u32, nodes: u32, values: u32) -> Self {
        Room { domain: Domain::new(), nodes: Free::new(kept, nodes), values: Free::new(0, values) }
    }

    pub(super) fn reader(&self) -> Participant {
        self.domain.reader()
    }

    /// A free node.
    pub(super) fn take_node(&mut self) -> Option<u32> {
        if self.nodes.is_short(self.domain.retired()) {
            self.reclaim();
        }
        self.nodes.take()
    }

    /// A free value.
    pub(super) fn take_value(&mut self) -> Option<u32> {
        if self.values.is_short(self.domain.retired()) {
            self.reclaim();
        }
        self.values.take()
    }

    /// Takes back a node that no reader ever saw.
    pub(super) fn give_back_node(&mut self, node: u32) {
        self.nodes.free.push(node);
    }

    /// Takes a node that no slot names any more.
    pub(super) fn retire_node(&mut self, node: u32) {
        self.domain.retire(node);
    }

    /// Takes a value that no slot names any more.
    pub(super) fn retire_value(&mut self, value: u32) {
        self.domain.retire(self.nodes.end + value);
    }

    fn reclaim(&mut self) {
        let Room { domain, nodes, values } = self;
        domain.reclaim(|number| match number.checked_sub(nodes.end) {
            None => nodes.free.push(number),
            Some(value) => values.free.push(value),
        });
    }
}

/// Free numbers.
#[derive(Debug)]
struct Free {
    /// Those that were used before.
    free: Vec<u32>,
    /// Numbers from here on were never used, and their memory never touched.
    fresh: u32,
    end: u32,
}

impl Free {
    fn new(first: u32, end: u32) -> Self {
        Free { free: Vec::new(), fresh: first, end }
    }

    /// Whether to ask what waits for readers before one is taken.
    fn is_short(&self, retired: usize) -> bool {
        self.free.is_empty() && (self.fresh >= self.end || retired >= RECLAIM_BATCH)
    }

    fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let fresh = self.fresh;
            let left = fresh < self.end;
            self.fresh += u32::from(left);
            left.then_some(fresh)
        })
    }
}

/// How often each node or value is used, by its number.
#[derive(Debug, Default)]
pub(super) struct Users(Vec<u32>);

impl Users {
    /// It has one more user.
    pub(super) fn add(&mut self, number: u32) {
        let index = number as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, 0);
        }
        if let Some(users) = self.0.get_mut(index) {
            *users += 1;
        }
    }

    /// It has one user less; whether that was the last.
    pub(super) fn leave(&mut self, number: u32) -> bool {
        let users = self.0.get_mut(number as usize);
        users.is_some_and(|users| {
            *users = users.saturating_sub(1);
            *users == 0
        })
    }
}
