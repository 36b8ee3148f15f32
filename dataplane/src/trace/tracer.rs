//! The worker's side: walks that are under way, each known by its packet's buffer.
//!
//! A buffer belongs to one packet from the moment that it is taken out of its pool until
//! it is given back, wherever the packet is moved to meanwhile. So packets need no mark,
//! and where tracing is off nothing is different about them.

use std::sync::Arc;
use std::time::Instant;

use homeport_wire::{PortId, TenantId};
use zerocopy::{FromZeros, IntoBytes};

use super::filter::PlainFilter;
use super::shared::{Head, Record, Shared};
use super::step::{Code, Step};
use super::{KEPT, MAX_STEPS};
use crate::forward::MAX_JOBS;
use crate::packet::{BURST, Burst, Packet};
use crate::ring::Producer;
use crate::verdict::Verdict;

/// The walks of one worker. All memory is taken when it is made.
pub(crate) struct Tracer {
    /// Whether walks begin.
    is_on: bool,
    /// The number of the probe that is worked on.
    probe: Option<u8>,
    shared: Arc<Shared>,
    /// What was seen last.
    generation: u64,
    filter: PlainFilter,
    now: Instant,
    /// How many walks have begun.
    begun: u64,
    ring: Producer,
    records: Box<[Record]>,
    free: Vec<u16>,
    /// Each walk that is under way: its packet's buffer, and its record.
    open: Vec<(usize, u16)>,
}

/// A record that was taken out of the walks under way.
pub(crate) struct Ending(u16);

impl Tracer {
    /// For a worker with so many ports.
    pub(super) fn new(shared: Arc<Shared>, ring: Producer, ports: usize) -> Self {
        // As many packets as one can become, and what waits to be sent with a burst.
        let count = (MAX_JOBS + BURST + 2 * BURST * ports).min(usize::from(u16::MAX));
        Tracer {
            is_on: false,
            probe: None,
            shared,
            generation: 0,
            filter: PlainFilter::default(),
            now: Instant::now(),
            begun: 0,
            ring,
            records: vec![Record::new_zeroed(); count].into_boxed_slice(),
            // At most 2¹⁶.
            free: (0..count as u16).collect(),
            open: Vec::with_capacity(count),
        }
    }

    /// Looks at the beginning of a turn whether tracing was switched.
    #[inline(always)]
    pub(crate) fn turn(&mut self, now: Instant) {
        let generation = self.shared.generation();
        if generation != self.generation || self.is_on {
            self.look(now);
        }
    }

    #[cold]
    fn look(&mut self, now: Instant) {
        self.now = now;
        if self.shared.generation() != self.generation {
            self.close_all();
            let (generation, filter) = self.shared.filter();
            self.generation = generation;
            self.is_on = filter.is_some();
            self.filter = filter.unwrap_or_default();
        }
        if self.is_on && self.shared.is_spent() {
            self.is_on = false;
            self.close_all();
        }
    }

    fn close_all(&mut self) {
        while let Some((_, record)) = self.open.pop() {
            self.free.push(record);
        }
    }

    /// Whether steps are noted.
    #[inline(always)]
    pub(crate) const fn is_on(&self) -> bool {
        self.is_on || self.probe.is_some()
    }

    /// Whether what is worked on is a probe: nothing of it may have an effect.
    #[inline(always)]
    pub(crate) const fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// Whether any walk is under way.
    #[inline(always)]
    pub(crate) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// From here on all is a probe's, until [`Tracer::end_probe`].
    pub(crate) fn begin_probe(&mut self, number: u8, now: Instant) {
        self.now = now;
        self.probe = Some(number);
    }

    /// Says that the probe has been answered.
    pub(crate) fn end_probe(&mut self) {
        let head = Head::new(self.probe.take());
        // Without room for it the answer does not come, and who waits asks again.
        let _ = self.ring.push(head.as_bytes(), &[]);
    }

    /// Begins the walk of a packet as it came in, if the filter matches it.
    #[inline]
    pub(crate) fn begin(&mut self, packet: &Packet, has_link_header: bool, how: Option<Step>) {
        if self.is_on() {
            self.begin_walk(packet, has_link_header, how);
        }
    }

    #[cold]
    fn begin_walk(&mut self, packet: &Packet, has_link_header: bool, how: Option<Step>) {
        self.forget(packet.buffer());
        let (port, tenant) = (packet.port, packet.tenant);
        let is_meant = self.probe.is_some()
            || self.filter.matches((port, tenant), packet.bytes(), has_link_header);
        if !is_meant {
            return;
        }
        let mut head = Head::new(self.probe);
        head.at = self.shared.nanos(self.now);
        head.number = self.begun;
        head.has_link_header = u8::from(has_link_header);
        if let Some(record) = self.open(packet.buffer()) {
            record.head = head;
            record.came((port, tenant), packet);
            if let Some(how) = how {
                record.note(how);
            }
        }
    }

    /// Notes a step of a packet.
    #[inline]
    pub(crate) fn step(&mut self, packet: &Packet, step: impl FnOnce() -> Step) {
        if self.is_on()
            && let Some(record) = self.of(packet)
        {
            record.note(step());
        }
    }

    /// Begins the walk of a packet that was made of another one: with its steps so far.
    #[inline]
    pub(crate) fn fork(&mut self, from: &Packet, to: &Packet, how: Step) {
        if self.is_on() {
            self.fork_walk(from.buffer(), to, how);
        }
    }

    #[cold]
    fn fork_walk(&mut self, from: usize, to: &Packet, how: Step) {
        self.forget(to.buffer());
        let Some(mut source) = self.find(from).and_then(|at| self.records.get(at)).copied() else {
            return;
        };
        source.head.number = self.begun;
        if let Some(record) = self.open(to.buffer()) {
            *record = source;
            record.note(how);
        }
    }

    /// A packet goes on, or is given up, here: if it has no walk it waited, and begins
    /// one.
    #[inline]
    pub(crate) fn resume(&mut self, packet: &Packet) {
        if self.is_on() && self.find(packet.buffer()).is_none() {
            self.begin_walk(packet, false, Some(Step::of(Code::Waited)));
        }
    }

    /// Lets the walk of a packet go on as that of another one, which took its place.
    pub(crate) fn go_on_as(&mut self, from: usize, to: &Packet, how: Step) {
        if !self.is_on() || from == to.buffer() {
            return self.step(to, || how);
        }
        self.forget(to.buffer());
        if let Some(open) = self.open.iter_mut().find(|(buffer, _)| *buffer == from) {
            open.0 = to.buffer();
        }
        self.step(to, || how);
    }

    /// Ends the walk of a packet that has its verdict.
    #[inline]
    pub(crate) fn end(&mut self, packet: &Packet, verdict: Verdict) {
        if !self.is_on() {
            return;
        }
        if let Verdict::Transmit(_) = verdict {
            if let Some(ending) = self.ending(packet) {
                self.tell(ending, verdict);
            }
            return;
        }
        self.end_of(packet.buffer(), verdict);
    }

    fn end_of(&mut self, buffer: usize, verdict: Verdict) {
        if let Some(at) = self.take(buffer) {
            self.tell(Ending(at), verdict);
        }
    }

    /// Ends the walk of the packet whose buffer this is: it waits.
    #[inline]
    pub(crate) fn held(&mut self, buffer: usize, step: impl FnOnce() -> Step) {
        if !self.is_on() {
            return;
        }
        if let Some(record) = self.find(buffer).and_then(|at| self.records.get_mut(at)) {
            record.note(step());
        }
        self.end_of(buffer, Verdict::Hold);
    }

    /// Lets the pieces of a packet, whose buffer that was, have its walk each.
    #[inline]
    pub(crate) fn cut(&mut self, from: usize, pieces: &Burst, step: Step) {
        if !self.is_on() {
            return;
        }
        pieces.iter().for_each(|piece| self.fork_walk(from, piece, step));
        self.forget(from);
    }

    /// Takes the walk of a packet that is about to leave, as it is.
    #[cold]
    pub(crate) fn ending(&mut self, packet: &Packet) -> Option<Ending> {
        let at = self.take(packet.buffer())?;
        if let Some(record) = self.records.get_mut(usize::from(at)) {
            record.leaves(packet);
        }
        Some(Ending(at))
    }

    /// Tells a walk.
    pub(crate) fn tell(&mut self, Ending(at): Ending, verdict: Verdict) {
        let Tracer { shared, ring, records, filter, probe, .. } = self;
        if let Some(record) = records.get_mut(usize::from(at)) {
            record.head.set_verdict(verdict);
            if !matches!(verdict, Verdict::Transmit(_)) {
                record.head.sent_len = 0;
            }
            let (head, bytes) = record.parts();
            if probe.is_some() {
                // Its end does not come either, then.
                let _ = ring.push(head, bytes);
            } else if filter.matches_verdict(verdict)
                && shared.take()
                && !ring.push(head, bytes).is_stored()
            {
                shared.lose();
            }
        }
        self.free.push(at);
    }

    /// Lets go of a walk without a verdict.
    fn forget(&mut self, buffer: usize) {
        if let Some(at) = self.take(buffer) {
            self.free.push(at);
        }
    }

    fn of(&mut self, packet: &Packet) -> Option<&mut Record> {
        let at = self.find(packet.buffer())?;
        self.records.get_mut(at)
    }

    fn find(&self, buffer: usize) -> Option<usize> {
        // The latest is most likely meant.
        self.open.iter().rev().find(|(open, _)| *open == buffer).map(|(_, at)| usize::from(*at))
    }

    fn take(&mut self, buffer: usize) -> Option<u16> {
        let place = self.open.iter().rposition(|(open, _)| *open == buffer)?;
        Some(self.open.swap_remove(place).1)
    }

    fn open(&mut self, buffer: usize) -> Option<&mut Record> {
        let Some(at) = self.free.pop() else {
            if self.probe.is_none() {
                self.shared.lose_unasked();
            }
            return None;
        };
        self.open.push((buffer, at));
        self.begun += 1;
        self.records.get_mut(usize::from(at))
    }
}

impl Record {
    /// The packet as it came in.
    fn came(&mut self, (port, tenant): (PortId, TenantId), packet: &Packet) {
        let bytes = packet.bytes();
        let kept = bytes.get(..KEPT).unwrap_or(bytes);
        if let Some(room) = self.bytes.get_mut(..kept.len()) {
            room.copy_from_slice(kept);
        }
        // A frame's length has 16 bits.
        (self.head.frame, self.head.frame_len) = (kept.len() as u16, bytes.len() as u32);
        (self.head.port, self.head.tenant) = (port.0, tenant.0);
    }

    /// The frame as it leaves.
    fn leaves(&mut self, packet: &Packet) {
        let bytes = packet.bytes();
        let kept = bytes.get(..KEPT).unwrap_or(bytes);
        let start = usize::from(self.head.frame);
        if let Some(room) = self.bytes.get_mut(start..start + kept.len()) {
            room.copy_from_slice(kept);
        }
        self.head.sent_len = bytes.len() as u32;
    }

    fn note(&mut self, step: Step) {
        match self.steps.get_mut(usize::from(self.head.steps)) {
            Some(place) => {
                *place = step;
                self.head.steps += 1;
            }
            None => self.head.omitted = self.head.omitted.saturating_add(1),
        }
    }
}

const _: () = assert!(MAX_STEPS <= u8::MAX as usize);
