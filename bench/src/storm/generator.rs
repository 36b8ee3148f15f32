//! The port that makes the storm: it sends frames that were signed before, and looks
//! at every reply and every tunnelled packet that leaves.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use homeport_dataplane::packet::{Burst, PacketPool};
use homeport_dataplane::port::Port;
use homeport_proto::MacAddress;
use homeport_wire::{EthernetHeader, IpProtocol, Ipv4Header, MOBILE_IP_PORT, UdpHeader};
use zerocopy::FromBytes;

/// Bytes of a signed request's frame: Ethernet, IPv4, UDP, the request, and the
/// mobile-home authentication with its 16 bytes.
pub(super) const FRAME_LEN: usize =
    EthernetHeader::LEN + Ipv4Header::LEN + UdpHeader::LEN + 24 + 22;

/// A signed request.
pub(super) type Frame = [u8; FRAME_LEN];

/// What is not answered by then was shed.
const LOST_AFTER: Duration = Duration::from_millis(100);

/// What is on its way when the time is over has come back, or was shed, by then.
const SETTLED_AFTER: Duration = Duration::from_millis(1_200);

/// How the other requests come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// So many are on their way at any time.
    Window(usize),
    /// So many a second, whatever becomes of them.
    Rate(f64),
}

/// What the generator sends.
pub(super) struct Plan {
    /// The first home address; nodes are numbered from it.
    pub(super) first: Ipv4Addr,
    /// Requests that bind the nodes which are there when the measurement begins.
    pub(super) bind: Vec<Frame>,
    /// Their renewals in order, and how many a second.
    pub(super) renewals: Vec<Frame>,
    pub(super) renewals_per_second: f64,
    /// The requests that are measured.
    pub(super) requests: Vec<Frame>,
    pub(super) pace: Pace,
    /// Whether nodes send them again and again until they are accepted; else each is
    /// sent once.
    pub(super) retry: bool,
    /// A packet for a bound node, and how many a second.
    pub(super) data: Vec<u8>,
    pub(super) data_per_second: f64,
    pub(super) time: Duration,
}

/// What was sent and what came back.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) seconds: f64,
    pub(super) sent: u64,
    pub(super) accepted: u64,
    pub(super) renewals_sent: u64,
    pub(super) renewals_accepted: u64,
    pub(super) denied: u64,
    pub(super) data_sent: u64,
    pub(super) data_forwarded: u64,
    /// How long each accepted request took, and each renewal.
    pub(super) took: Vec<u32>,
    pub(super) renewals_took: Vec<u32>,
    /// Whether there was nobody left to register.
    pub(super) exhausted: bool,
}

/// Where the tally is when the generator is done.
pub(super) type Result = Arc<Mutex<Option<Tally>>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Bind,
    Run,
    /// What is on its way comes back.
    Settle,
    Done,
}

/// The port.
pub(super) struct Generator {
    plan: Plan,
    phase: Phase,
    /// When the phase began.
    since: Option<Instant>,
    tally: Tally,
    result: Result,
    /// The next of `bind` or `requests`, of the renewals, and of the data.
    next: usize,
    outstanding: usize,
    answered_at: Option<Instant>,
    /// By node: when it sent last, in microseconds of the phase, and whether it has
    /// been accepted in it.
    sent_at: Vec<u32>,
    accepted: Vec<bool>,
    left: usize,
}

impl Generator {
    pub(super) fn new(plan: Plan, nodes: usize) -> (Self, Result) {
        let result = Result::default();
        let left = plan.bind.len();
        let generator = Generator {
            plan,
            phase: Phase::Bind,
            since: None,
            tally: Tally::default(),
            result: Arc::clone(&result),
            next: 0,
            outstanding: 0,
            answered_at: None,
            sent_at: vec![0; nodes],
            accepted: vec![false; nodes],
            left,
        };
        (generator, result)
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        (self.phase, self.since, self.next, self.outstanding) = (phase, Some(now), 0, 0);
        self.answered_at = None;
    }

    fn elapsed(&self, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Ends the phase when it is over.
    fn step(&mut self, now: Instant) {
        let elapsed = self.elapsed(now);
        match self.phase {
            Phase::Bind if self.left == 0 => {
                self.tally = Tally::default();
                self.left = self.plan.requests.len();
                self.accepted.fill(false);
                self.sent_at.fill(0);
                self.enter(Phase::Run, now);
            }
            Phase::Run if elapsed >= self.plan.time || self.tally.exhausted => {
                self.tally.seconds = elapsed.as_secs_f64();
                self.phase = Phase::Settle;
            }
            Phase::Settle if elapsed >= self.plan.time + SETTLED_AFTER => {
                self.phase = Phase::Done;
                let tally = std::mem::take(&mut self.tally);
                *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(tally);
            }
            _ => {}
        }
    }

    /// The next request of a phase; `None` when it is not its time, or there is none.
    fn request(&mut self, now: Instant) -> Option<Frame> {
        let (list, pace, retry) = match self.phase {
            Phase::Bind => (&self.plan.bind, Pace::Window(1024), true),
            Phase::Run => (&self.plan.requests, self.plan.pace, self.plan.retry),
            Phase::Settle | Phase::Done => return None,
        };
        match pace {
            Pace::Window(window) if self.outstanding >= window => {
                let heard = self.answered_at.or(self.since)?;
                if now.saturating_duration_since(heard) < LOST_AFTER {
                    return None;
                }
                (self.outstanding, self.answered_at) = (0, Some(now));
            }
            Pace::Rate(rate)
                if self.tally.sent as f64 >= rate * self.elapsed(now).as_secs_f64() =>
            {
                return None;
            }
            Pace::Window(_) | Pace::Rate(_) => {}
        }
        if self.left == 0 || (!retry && self.next >= list.len()) {
            self.tally.exhausted |= self.phase == Phase::Run;
            return None;
        }
        // The next that has not been accepted yet and does not wait; not so many steps
        // that it would show.
        let elapsed = self.elapsed(now).as_micros() as u32;
        for _ in 0..64 {
            let at = self.next % list.len().max(1);
            let frame = list.get(at)?;
            self.next += 1;
            let node = self.node(frame.get(HOME_ADDRESS..)?)?;
            let waits =
                |at: &u32| *at > 0 && elapsed.saturating_sub(*at) < LOST_AFTER.as_micros() as u32;
            if retry
                && (self.accepted.get(node).copied().unwrap_or(true)
                    || self.sent_at.get(node).is_some_and(waits))
            {
                continue;
            }
            self.outstanding += 1;
            self.tally.sent += 1;
            return Some(*frame);
        }
        None
    }

    fn renewal(&mut self, now: Instant) -> Option<Frame> {
        let due = self.plan.renewals_per_second * self.elapsed(now).as_secs_f64();
        let sent = self.tally.renewals_sent;
        let frame = *self.plan.renewals.get(usize::try_from(sent).ok()?)?;
        if self.phase != Phase::Run || sent as f64 >= due {
            return None;
        }
        self.tally.renewals_sent += 1;
        Some(frame)
    }

    fn is_data_due(&mut self, now: Instant) -> bool {
        let due = self.plan.data_per_second * self.elapsed(now).as_secs_f64();
        let is_due = self.phase == Phase::Run && (self.tally.data_sent as f64) < due;
        self.tally.data_sent += u64::from(is_due);
        is_due
    }

    /// The number of the node whose home address stands here.
    fn node(&self, bytes: &[u8]) -> Option<usize> {
        let address = u32::from_be_bytes(*bytes.first_chunk()?);
        usize::try_from(address.checked_sub(self.plan.first.to_bits())?).ok()
    }

    /// A frame that leaves.
    fn see(&mut self, frame: &[u8], now: Instant) -> Option<()> {
        let (ip, rest) = Ipv4Header::ref_from_prefix(frame.get(EthernetHeader::LEN..)?).ok()?;
        if ip.protocol() == IpProtocol::IP_IN_IP {
            self.tally.data_forwarded += 1;
            return Some(());
        }
        let (udp, reply) = UdpHeader::ref_from_prefix(rest).ok()?;
        if udp.source_port() != MOBILE_IP_PORT {
            return None;
        }
        let (code, node) = (*reply.get(1)?, self.node(reply.get(4..)?)?);
        let elapsed = self.elapsed(now).as_micros() as u32;
        let took = elapsed.saturating_sub(*self.sent_at.get(node)?);
        let is_renewal = !self.plan.renewals.is_empty() && node < self.plan.bind.len();
        if is_renewal && self.phase != Phase::Bind {
            self.tally.renewals_accepted += u64::from(code <= 1);
            self.tally.renewals_took.push(took);
        } else {
            self.answered_at = Some(now);
            self.outstanding = self.outstanding.saturating_sub(1);
            if code <= 1 {
                self.tally.accepted += u64::from(self.phase != Phase::Settle);
                self.tally.took.push(took);
                let accepted = self.accepted.get_mut(node)?;
                self.left -= usize::from(!std::mem::replace(accepted, true));
            }
        }
        self.tally.denied += u64::from(code > 1);
        Some(())
    }
}

/// Where a frame's request names its node.
const HOME_ADDRESS: usize = EthernetHeader::LEN + Ipv4Header::LEN + UdpHeader::LEN + 4;

impl Port for Generator {
    fn name(&self) -> &str {
        "storm"
    }

    fn mac(&self) -> MacAddress {
        super::OUR_MAC
    }

    fn mtu(&self) -> u16 {
        1500
    }

    fn rx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) {
        let now = Instant::now();
        self.since.get_or_insert(now);
        self.step(now);
        while !burst.is_full() {
            let Some(mut packet) = pool.take() else { return };
            let frame = if self.is_data_due(now) {
                let _ = packet.set_bytes(&self.plan.data);
                None
            } else {
                match self.renewal(now).or_else(|| self.request(now)) {
                    None => return pool.give(packet),
                    frame => frame,
                }
            };
            if let Some(frame) = frame {
                let _ = packet.set_bytes(&frame);
                let node = frame.get(HOME_ADDRESS..).and_then(|bytes| self.node(bytes));
                let elapsed = self.elapsed(now).as_micros() as u32;
                if let Some(at) = node.and_then(|node| self.sent_at.get_mut(node)) {
                    *at = elapsed;
                }
            }
            if let Err(packet) = burst.push(packet) {
                pool.give(packet);
            }
        }
    }

    fn tx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) -> usize {
        let now = Instant::now();
        let count = burst.len();
        for packet in burst.drain() {
            self.see(packet.bytes(), now);
            pool.give(packet);
        }
        count
    }
}
