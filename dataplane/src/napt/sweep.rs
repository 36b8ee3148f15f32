//! What ends: sessions by their timers, mappings with their last session, blocks
//! that nothing uses, and hosts with their last block. A cursor goes over the
//! records, a bounded part of them at a time, so that no turn of the worker takes
//! long and no record has a timer of its own.

use std::time::Instant;

use super::clock::Tick;
use super::slab::NONE;
use super::{InsideHost, Napt, NatLogRecord};

/// In how many ticks everything is looked at once for being over.
const SWEEP: u32 = 4 * Tick::PER_SECOND;

/// The most records that one turn looks at.
const MAX_SWEPT: usize = 4096;

impl Napt {
    /// Ends what is over, a bounded part of it at a time: everything is looked at
    /// once in four seconds. To be called at every turn of the worker.
    pub fn sweep(&mut self, now: Instant) {
        let tick = self.clock.tick(now);
        let elapsed = tick.since(self.swept_at);
        if elapsed == 0 {
            return;
        }
        self.swept_at = tick;
        let (sessions, mappings) = (self.flows.flows.capacity(), self.flows.mappings.capacity());
        let total = sessions + mappings + self.blocks.numbers();
        let share = total.saturating_mul(elapsed as usize) / SWEEP as usize + 1;
        for _ in 0..share.min(MAX_SWEPT).min(total) {
            let at = self.cursor;
            self.cursor = (at + 1) % total;
            // All three are numbered with 32 bits.
            if at < sessions {
                self.end_session(at as u32, tick);
            } else if at < sessions + mappings {
                self.end_mapping((at - sessions) as u32, tick);
            } else {
                self.end_block((at - sessions - mappings) as u32, tick);
            }
        }
        self.publish();
    }

    fn end_session(&mut self, id: u32, now: Tick) {
        let is_over = self.flows.flows.get(id).is_some_and(|flow| now >= flow.expires);
        if is_over && let Some(mapping) = self.flows.remove_flow(id) {
            self.end_mapping(mapping, now);
        }
    }

    /// Ends a mapping that nothing uses (RFC 7857 §11).
    fn end_mapping(&mut self, id: u32, now: Tick) {
        let mapping = self.flows.mappings.get(id);
        if mapping.is_some_and(|mapping| mapping.sessions == 0 && now >= mapping.kept_until)
            && let Some(mapping) = self.flows.remove_mapping(id)
        {
            self.blocks.unmap(mapping.key.transport(), mapping.external, now);
        }
    }

    /// Takes a block back that nothing has used for long, and lets its host go with
    /// the last one.
    fn end_block(&mut self, block: u32, now: Tick) {
        let next = self.blocks.next(block);
        let Some(id) = self.blocks.take_back(block, now) else { return };
        let Some(host) = self.flows.hosts.get_mut(id) else { return };
        host.blocks = host.blocks.saturating_sub(1);
        if host.first_block == block {
            host.first_block = next;
        } else {
            let mut before = host.first_block;
            while before != NONE && self.blocks.next(before) != block {
                before = self.blocks.next(before);
            }
            self.blocks.set_next(before, next);
        }
        let (key, left) = (host.key, host.blocks);
        self.counters.taken_back.add(1);
        self.record(&key, block, false);
        if left == 0 {
            self.flows.remove_host(id);
        }
    }

    pub(super) fn record(&mut self, host: &InsideHost, block: u32, given: bool) {
        let name = self.blocks.name(block);
        let size = self.blocks.block_size();
        if !self.log.push(NatLogRecord::new(self.number, host, name, size, given)) {
            self.counters.log_lost.add(1);
        }
    }

    /// Tells the gauges.
    fn publish(&self) {
        let counters = &self.counters;
        counters.hosts.set(self.flows.hosts.len() as u64);
        counters.blocks.set(counters.given.get() - counters.taken_back.get());
        counters.mappings.set(self.flows.mappings.len() as u64);
        counters.sessions.set(self.flows.flows.len() as u64);
    }
}
