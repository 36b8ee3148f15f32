//! A port in memory, for tests, simulation and benchmarks, and seeded faults.
//!
//! [`MemPort`] is the dataplane's side, [`MemLink`] the world's: a test pushes
//! frames in and takes frames out. Two bounded queues lie between them, their
//! slots made once, so that a burst allocates nothing. [`FaultyLink`] is a
//! [`MemLink`] that loses, repeats, swaps and damages frames, by a seed, so that
//! a failing run can be run again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use homeport_wire::{EthernetHeader, MacAddress};

use super::Port;
use crate::packet::{BURST, Burst, DATA_ROOM, PacketPool};

/// Frames that each direction of a link holds, unless told otherwise.
pub const QUEUE_FRAMES: usize = 16 * BURST;

/// The dataplane's side of a link in memory.
#[derive(Debug)]
pub struct MemPort {
    name: String,
    mac: MacAddress,
    mtu: u16,
    shared: Arc<Shared>,
}

/// The world's side of a link in memory. Clones are handles to the same link.
#[derive(Clone, Debug)]
pub struct MemLink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    to_port: Mutex<Queue>,
    from_port: Mutex<Queue>,
    up: AtomicBool,
    rx_overflow: AtomicU64,
    tx_overflow: AtomicU64,
    tx_oversize: AtomicU64,
}

impl MemPort {
    /// A port and the other end of its link, each direction holding
    /// [`QUEUE_FRAMES`] frames. `mtu` is the longest IPv4 packet in bytes.
    pub fn new(name: impl Into<String>, mac: MacAddress, mtu: u16) -> (MemPort, MemLink) {
        Self::with_queues(name, mac, mtu, QUEUE_FRAMES)
    }

    /// The same, each direction holding `frames` frames.
    pub fn with_queues(
        name: impl Into<String>,
        mac: MacAddress,
        mtu: u16,
        frames: usize,
    ) -> (MemPort, MemLink) {
        let shared = Arc::new(Shared {
            to_port: Mutex::new(Queue::new(frames)),
            from_port: Mutex::new(Queue::new(frames)),
            up: AtomicBool::new(true),
            rx_overflow: AtomicU64::new(0),
            tx_overflow: AtomicU64::new(0),
            tx_oversize: AtomicU64::new(0),
        });
        let port = MemPort { name: name.into(), mac, mtu, shared: Arc::clone(&shared) };
        (port, MemLink { shared })
    }
}

impl Port for MemPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::Acquire)
    }

    fn rx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) {
        if !self.is_up() {
            return;
        }
        let mut queue = lock(&self.shared.to_port);
        while !burst.is_full() && !queue.is_empty() {
            // Without a buffer the frame waits in the queue.
            let Some(mut packet) = pool.take() else {
                return;
            };
            let fits = queue.pop(|frame| packet.set_bytes(frame)).unwrap_or(false);
            if !fits || packet.len() == 0 {
                pool.give(packet);
                continue;
            }
            if let Err(packet) = burst.push(packet) {
                pool.give(packet);
            }
        }
    }

    fn tx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) -> usize {
        let longest = usize::from(self.mtu) + EthernetHeader::LEN;
        let up = self.is_up();
        let mut queue = lock(&self.shared.from_port);
        let mut sent = 0;
        for packet in burst.drain() {
            if !up {
                // A link without carrier takes nothing.
            } else if packet.len() > longest {
                self.shared.tx_oversize.fetch_add(1, Ordering::Relaxed);
            } else if queue.push(packet.bytes()) {
                sent += 1;
            } else {
                self.shared.tx_overflow.fetch_add(1, Ordering::Relaxed);
            }
            pool.give(packet);
        }
        sent
    }

    fn counters(&self, tell: &mut dyn FnMut(&'static str, u64)) {
        tell("rx-overflow", self.shared.rx_overflow.load(Ordering::Relaxed));
        tell("tx-overflow", self.shared.tx_overflow.load(Ordering::Relaxed));
        tell("tx-oversize", self.shared.tx_oversize.load(Ordering::Relaxed));
    }
}

impl MemLink {
    /// Puts a frame, Ethernet header first, before the port. `false`, and
    /// counted, when the queue is full or the frame is longer than
    /// [`DATA_ROOM`]; `false` too while the link is down.
    pub fn push(&self, frame: &[u8]) -> bool {
        if !self.shared.up.load(Ordering::Acquire) {
            return false;
        }
        let taken = lock(&self.shared.to_port).push(frame);
        if !taken {
            self.shared.rx_overflow.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// The oldest frame that the port sent.
    pub fn take(&self) -> Option<Vec<u8>> {
        lock(&self.shared.from_port).pop(<[u8]>::to_vec)
    }

    /// Every frame that the port sent and nobody took, oldest first.
    pub fn take_all(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.take()).collect()
    }

    /// Discards what the port sent, without looking at it and without allocating.
    ///
    /// Returns how many frames there were.
    pub fn discard(&self) -> usize {
        let mut queue = lock(&self.shared.from_port);
        std::iter::from_fn(|| queue.pop(|_| ())).count()
    }

    /// How many frames wait for the port.
    pub fn waiting(&self) -> usize {
        lock(&self.shared.to_port).len
    }

    /// Gives the link carrier or takes it away. While it is down, nothing enters
    /// and nothing leaves; what was queued waits.
    pub fn set_up(&self, up: bool) {
        self.shared.up.store(up, Ordering::Release);
    }
}

/// Chances in a thousand that something happens to a frame; the default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// It is lost.
    pub loss: u16,
    /// It arrives twice.
    pub duplication: u16,
    /// It arrives behind the frame that follows it.
    pub reordering: u16,
    /// One of its bits is flipped.
    pub corruption: u16,
}

/// What an injector did so far, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Lost.
    pub lost: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Delivered behind the next one.
    pub reordered: u64,
    /// Delivered with a bit flipped.
    pub corrupted: u64,
}

/// Applies [`Faults`] to a stream of frames. The same seed and the same frames
/// give the same result.
#[derive(Clone, Debug)]
pub struct FaultInjector {
    faults: Faults,
    counts: FaultCounts,
    state: u64,
    late: Option<Vec<u8>>,
}

impl FaultInjector {
    /// An injector of `faults`, its chances drawn from `seed`.
    pub fn new(faults: Faults, seed: u64) -> Self {
        FaultInjector { faults, counts: FaultCounts::default(), state: seed, late: None }
    }

    /// Changes the chances from the next frame on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// What it did so far.
    pub const fn counts(&self) -> FaultCounts {
        self.counts
    }

    /// Passes one frame on: none, one or two times, whole or damaged, now or
    /// behind the next one.
    pub fn pass(&mut self, mut frame: Vec<u8>, mut deliver: impl FnMut(Vec<u8>)) {
        if self.chance(self.faults.loss) {
            self.counts.lost += 1;
            return;
        }
        if self.chance(self.faults.corruption) {
            self.flip_a_bit(&mut frame);
        }
        let twice = self.chance(self.faults.duplication);
        let late = self.chance(self.faults.reordering);
        // One frame at most is late, so that each is late by one place only.
        if late && self.late.is_none() {
            self.late = Some(frame);
            return;
        }
        if twice {
            self.counts.duplicated += 1;
            deliver(frame.clone());
        }
        deliver(frame);
        self.counts.reordered += u64::from(self.late.is_some());
        self.flush(deliver);
    }

    /// Delivers the frame that waits for the next one, if any.
    pub fn flush(&mut self, mut deliver: impl FnMut(Vec<u8>)) {
        if let Some(frame) = self.late.take() {
            deliver(frame);
        }
    }

    fn flip_a_bit(&mut self, frame: &mut [u8]) {
        let Some(bits) = (frame.len() as u64).checked_mul(8).filter(|bits| *bits > 0) else {
            return;
        };
        let bit = self.draw() % bits;
        if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| frame.get_mut(at)) {
            *byte ^= 1 << (bit % 8);
            self.counts.corrupted += 1;
        }
    }

    fn chance(&mut self, per_mille: u16) -> bool {
        // Drawn even for a chance of zero: changing one chance leaves the others'
        // draws where they were.
        self.draw() % 1000 < u64::from(per_mille)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A [`MemLink`] with faults in both directions.
#[derive(Clone, Debug)]
pub struct FaultyLink {
    link: MemLink,
    to_port: FaultInjector,
    from_port: FaultInjector,
    taken: std::collections::VecDeque<Vec<u8>>,
}

impl FaultyLink {
    /// `link`, with `to_port` done to what is pushed and `from_port` to what is
    /// taken, each drawn from `seed` on its own.
    pub fn new(link: MemLink, to_port: Faults, from_port: Faults, seed: u64) -> Self {
        FaultyLink {
            link,
            to_port: FaultInjector::new(to_port, seed),
            from_port: FaultInjector::new(from_port, !seed),
            taken: std::collections::VecDeque::new(),
        }
    }

    /// Puts a frame before the port, if the faults let it.
    pub fn push(&mut self, frame: &[u8]) {
        let FaultyLink { link, to_port, .. } = self;
        to_port.pass(frame.to_vec(), |frame| {
            link.push(&frame);
        });
    }

    /// Puts a frame that waits for the next one before the port.
    pub fn flush(&mut self) {
        let FaultyLink { link, to_port, .. } = self;
        to_port.flush(|frame| {
            link.push(&frame);
        });
    }

    /// The next frame that the port sent and the faults let through. A frame that
    /// was to be late, with none behind it, comes last.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let FaultyLink { link, from_port, taken, .. } = self;
        while taken.is_empty() {
            match link.take() {
                Some(frame) => from_port.pass(frame, |frame| taken.push_back(frame)),
                None => {
                    from_port.flush(|frame| taken.push_back(frame));
                    break;
                }
            }
        }
        taken.pop_front()
    }

    /// The faults on the way to the port, to change or to read.
    pub fn to_port(&mut self) -> &mut FaultInjector {
        &mut self.to_port
    }

    /// The faults on the way from the port, to change or to read.
    pub fn from_port(&mut self) -> &mut FaultInjector {
        &mut self.from_port
    }

    /// The link without the faults.
    pub const fn link(&self) -> &MemLink {
        &self.link
    }
}

/// A ring of frames whose buffers are made once.
#[derive(Debug)]
struct Queue {
    slots: Box<[Vec<u8>]>,
    first: usize,
    len: usize,
}

impl Queue {
    fn new(frames: usize) -> Self {
        let slots = (0..frames).map(|_| Vec::with_capacity(DATA_ROOM)).collect();
        Queue { slots, first: 0, len: 0 }
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn push(&mut self, frame: &[u8]) -> bool {
        if self.len >= self.slots.len() || frame.len() > DATA_ROOM {
            return false;
        }
        let at = (self.first + self.len) % self.slots.len();
        let Some(slot) = self.slots.get_mut(at) else {
            return false;
        };
        slot.clear();
        slot.extend_from_slice(frame);
        self.len += 1;
        true
    }

    fn pop<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let slot = self.slots.get(self.first)?;
        self.first = (self.first + 1) % self.slots.len();
        self.len -= 1;
        Some(read(slot))
    }
}

/// A test that panicked while it held the lock leaves whole frames behind.
fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::counters_of;
    use proptest::prelude::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    fn send(port: &mut MemPort, pool: &mut PacketPool, frames: &[Vec<u8>]) -> usize {
        let mut sent = 0;
        for chunk in frames.chunks(BURST) {
            let mut burst = Burst::new();
            for frame in chunk {
                let mut packet = pool.take().unwrap();
                assert!(packet.set_bytes(frame));
                burst.push(packet).unwrap();
            }
            sent += port.tx_burst(pool, &mut burst);
            assert!(burst.is_empty());
        }
        sent
    }

    fn numbered(count: u16) -> Vec<Vec<u8>> {
        (0..count).map(|number| number.to_be_bytes().repeat(30)).collect()
    }

    #[test]
    fn frames_cross_in_order_and_bursts_have_every_tail_length() {
        for count in [1u16, 31, 32, 33, 63] {
            let (mut port, link) = MemPort::new("mem0", MAC, 1500);
            let mut pool = PacketPool::new(64);
            let frames = numbered(count);
            for frame in &frames {
                assert!(link.push(frame));
            }
            let mut seen = Vec::new();
            loop {
                let mut burst = Burst::new();
                port.rx_burst(&mut pool, &mut burst);
                if burst.is_empty() {
                    break;
                }
                seen.extend(burst.iter().map(|packet| packet.bytes().to_vec()));
                let len = burst.len();
                assert_eq!(port.tx_burst(&mut pool, &mut burst), len);
            }
            assert_eq!(seen, frames);
            assert_eq!(link.take_all(), frames);
            assert_eq!(pool.available(), 64);
        }
    }

    #[test]
    fn a_full_queue_refuses_and_counts() {
        let (mut port, link) = MemPort::with_queues("mem0", MAC, 1500, 2);
        let mut pool = PacketPool::new(8);
        assert_eq!(send(&mut port, &mut pool, &numbered(3)), 2);
        assert!(link.push(b"one") && link.push(b"two") && !link.push(b"three"));
        assert_eq!(counters_of(&port)[..2], [("rx-overflow", 1), ("tx-overflow", 1)]);
        assert_eq!(pool.available(), 8);
        assert_eq!(link.discard(), 2);
    }

    #[test]
    fn a_frame_longer_than_the_mtu_is_not_sent() {
        let (mut port, link) = MemPort::new("mem0", MAC, 100);
        let mut pool = PacketPool::new(2);
        assert_eq!(send(&mut port, &mut pool, &[vec![1; 114], vec![2; 115]]), 1);
        assert_eq!(link.take_all(), [vec![1; 114]]);
        assert!(counters_of(&port).contains(&("tx-oversize", 1)));
    }

    #[test]
    fn without_carrier_nothing_passes() {
        let (mut port, link) = MemPort::new("mem0", MAC, 1500);
        let mut pool = PacketPool::new(2);
        assert!(link.push(b"before"));
        link.set_up(false);
        assert!(!port.is_up());
        assert!(!link.push(b"while"));
        assert_eq!(send(&mut port, &mut pool, &numbered(1)), 0);
        let mut burst = Burst::new();
        port.rx_burst(&mut pool, &mut burst);
        assert!(burst.is_empty());
        link.set_up(true);
        port.rx_burst(&mut pool, &mut burst);
        assert_eq!(burst.len(), 1);
        assert_eq!(link.take(), None);
    }

    #[test]
    fn a_frame_waits_while_no_buffer_is_free() {
        let (mut port, link) = MemPort::new("mem0", MAC, 1500);
        let mut pool = PacketPool::new(1);
        assert!(link.push(b"one") && link.push(b"two"));
        let mut burst = Burst::new();
        port.rx_burst(&mut pool, &mut burst);
        assert_eq!((burst.len(), link.waiting()), (1, 1));
        port.tx_burst(&mut pool, &mut burst);
        port.rx_burst(&mut pool, &mut burst);
        assert_eq!(burst.iter().next().unwrap().bytes(), b"two");
    }

    fn run(faults: Faults, seed: u64, frames: &[Vec<u8>]) -> (Vec<Vec<u8>>, FaultCounts) {
        let mut injector = FaultInjector::new(faults, seed);
        let mut out = Vec::new();
        for frame in frames {
            injector.pass(frame.clone(), |frame| out.push(frame));
        }
        injector.flush(|frame| out.push(frame));
        (out, injector.counts())
    }

    #[test]
    fn each_fault_happens_as_often_as_it_was_asked_for() {
        let frames = numbered(10_000);
        let half = |name: &str, count: u64| {
            assert!((1800..2200).contains(&count), "{name}: {count} of 10000 at 200 per mille");
        };
        let (out, counts) = run(Faults { loss: 200, ..Faults::default() }, 1, &frames);
        half("loss", counts.lost);
        assert_eq!(out.len() as u64, 10_000 - counts.lost);
        let (out, counts) = run(Faults { duplication: 200, ..Faults::default() }, 1, &frames);
        half("duplication", counts.duplicated);
        assert_eq!(out.len() as u64, 10_000 + counts.duplicated);
        let (out, counts) = run(Faults { corruption: 200, ..Faults::default() }, 1, &frames);
        half("corruption", counts.corrupted);
        let bits = |a: &[u8], b: &[u8]| -> u32 {
            a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
        };
        let flipped: u32 = out.iter().zip(&frames).map(|(a, b)| bits(a, b)).sum();
        assert_eq!(u64::from(flipped), counts.corrupted);
        let (mut out, counts) = run(Faults { reordering: 200, ..Faults::default() }, 1, &frames);
        // A frame behind a late one is not late itself: 0.2 / 1.2 of all.
        assert!((1500..1850).contains(&counts.reordered), "{counts:?}");
        let swapped = out.windows(2).filter(|pair| pair[0] > pair[1]).count() as u64;
        assert_eq!(swapped, counts.reordered);
        out.sort_unstable();
        assert_eq!(out, frames);
    }

    #[test]
    fn both_directions_of_a_faulty_link_have_their_own_faults() {
        let (mut port, link) = MemPort::new("mem0", MAC, 1500);
        let all = Faults { loss: 1000, ..Faults::default() };
        let twice = Faults { duplication: 1000, ..Faults::default() };
        let mut link = FaultyLink::new(link, all, twice, 7);
        let mut pool = PacketPool::new(4);
        link.push(b"lost");
        let mut burst = Burst::new();
        port.rx_burst(&mut pool, &mut burst);
        assert!(burst.is_empty());
        link.to_port().set_faults(Faults { reordering: 1000, ..Faults::default() });
        link.push(b"late");
        link.push(b"next");
        port.rx_burst(&mut pool, &mut burst);
        let seen: Vec<&[u8]> = burst.iter().map(|packet| packet.bytes()).collect();
        assert_eq!(seen, [b"next", b"late"]);
        port.tx_burst(&mut pool, &mut burst);
        let out: Vec<Vec<u8>> = std::iter::from_fn(|| link.take()).collect();
        assert_eq!(out, [b"next", b"next", b"late", b"late"]);
        assert_eq!((link.to_port().counts().lost, link.from_port().counts().duplicated), (1, 2));
    }

    proptest! {
        #[test]
        fn the_same_seed_gives_the_same_faults(seed in any::<u64>(), rate in 0u16..=1000) {
            let faults = Faults { loss: rate / 4, duplication: rate, reordering: rate, corruption: rate };
            let frames = numbered(50);
            prop_assert_eq!(run(faults, seed, &frames), run(faults, seed, &frames));
        }

        #[test]
        fn no_fault_changes_nothing(seed in any::<u64>()) {
            let frames = numbered(50);
            prop_assert_eq!(run(Faults::default(), seed, &frames), (frames, FaultCounts::default()));
        }
    }
}
