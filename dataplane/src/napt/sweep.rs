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

/// The most looks of a turn that has packets behind it: some microseconds.
const BUSY: usize = 256;

/// The same of a worker that has so little to do that a tick has one turn.
const IDLE: usize = 32_768;

/// How many looks the end of a session counts for.
const ENDING: usize = 16;

/// How many records ahead it is asked for what the end of a session touches.
const AHEAD: usize = 8;

/// How far the sweep is.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    cursor: usize,
    /// Records that should have been looked at by now.
    owed: usize,
    /// The tick of the last turn, and how many turns it has had.
    tick: Tick,
    turns: u32,
}

impl Napt {
    /// Ends what is over, a bounded part of it at a time: everything is looked at
    /// once in four seconds. To be called at every turn of the worker.
    pub fn sweep(&mut self, now: Instant) {
        let tick = self.clock.tick(now);
        let elapsed = tick.since(self.sweep.tick);
        let (sessions, mappings) = (self.flows.flows.capacity(), self.flows.mappings.capacity());
        let total = sessions + mappings + self.blocks.numbers();
        let mut looks = BUSY;
        if elapsed > 0 {
            if self.sweep.turns <= 1 {
                looks = IDLE;
            }
            let share = total.saturating_mul(elapsed as usize) / SWEEP as usize + 1;
            self.sweep.owed = self.sweep.owed.saturating_add(share).min(total);
            (self.sweep.tick, self.sweep.turns) = (tick, 0);
        }
        self.sweep.turns = self.sweep.turns.saturating_add(1);
        if self.sweep.owed == 0 {
            return;
        }
        self.flows.settle();
        while looks > 0 && self.sweep.owed > 0 {
            let at = self.sweep.cursor;
            self.sweep.cursor = if at + 1 >= total { 0 } else { at + 1 };
            self.sweep.owed -= 1;
            // All three are numbered with 32 bits.
            let ended = if at < sessions {
                self.flows.prefetch_ending((at + AHEAD) as u32, tick);
                self.end_session(at as u32, tick)
            } else if at < sessions + mappings {
                self.end_mapping((at - sessions) as u32, tick)
            } else {
                self.end_block((at - sessions - mappings) as u32, tick);
                false
            };
            looks = looks.saturating_sub(if ended { ENDING } else { 1 });
        }
        self.publish();
    }

    fn end_session(&mut self, id: u32, now: Tick) -> bool {
        let is_over = self.flows.flows.get(id).is_some_and(|flow| now >= flow.expires);
        if is_over && let Some(mapping) = self.flows.remove_flow(id) {
            self.end_mapping(mapping, now);
        }
        is_over
    }

    /// Ends a mapping that nothing uses (RFC 7857 §11).
    fn end_mapping(&mut self, id: u32, now: Tick) -> bool {
        let mapping = self.flows.mappings.get(id);
        let is_over =
            mapping.is_some_and(|mapping| mapping.sessions == 0 && now >= mapping.kept_until);
        if is_over && let Some(mapping) = self.flows.remove_mapping(id) {
            self.blocks.unmap(mapping.key.transport(), mapping.external, now);
        }
        is_over
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
        let (key, left) = (host.key.host(), host.blocks);
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
    fn publish(&mut self) {
        let counters = &self.counters;
        counters.exhausted.add(std::mem::take(&mut self.flows.unplaced));
        counters.hosts.set(self.flows.hosts.len() as u64);
        counters.blocks.set(counters.given.get() - counters.taken_back.get());
        counters.mappings.set(self.flows.mappings.len() as u64);
        counters.sessions.set(self.flows.flows.len() as u64);
    }
}
