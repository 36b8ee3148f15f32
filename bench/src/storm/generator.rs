//! The port that makes the storm: it sends frames that were signed before, and looks
//! at every reply and every tunnelled packet that leaves.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use homeport_dataplane::packet::{Burst, Packet, PacketPool};
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

/// What is not answered by then was shed: a full punt ring is through in half of it.
/// (A node waits for a second, RFC 5944 §3.6.3, but there would have to be as many nodes
/// as are sent in one.) A request that came once more while the first still waits would
/// be no new one, but a replay.
pub(super) const LOST_AFTER: Duration = Duration::from_millis(250);

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

/// What is to be sent now.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    data: u64,
    renewals: u64,
    requests: u64,
}

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

    /// How much of each kind is due in this burst.
    fn due(&self, elapsed: Duration) -> Due {
        let seconds = elapsed.as_secs_f64();
        let left = |rate: f64, sent: u64| ((rate * seconds) as u64).saturating_sub(sent);
        let Plan { pace, renewals_per_second, data_per_second, .. } = self.plan;
        match self.phase {
            Phase::Bind => Due { requests: u64::MAX, ..Due::default() },
            Phase::Run => Due {
                data: left(data_per_second, self.tally.data_sent),
                renewals: left(renewals_per_second, self.tally.renewals_sent),
                requests: match pace {
                    Pace::Window(_) => u64::MAX,
                    Pace::Rate(rate) => left(rate, self.tally.sent),
                },
            },
            Phase::Settle | Phase::Done => Due::default(),
        }
    }

    /// The next request of a phase, as its place in its list; `None` when it is not its
    /// time, or there is none.
    fn request(&mut self, now: Instant, elapsed: u32) -> Option<usize> {
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
            Pace::Window(_) | Pace::Rate(_) => {}
        }
        if self.left == 0 || (!retry && self.next >= list.len()) {
            self.tally.exhausted |= self.phase == Phase::Run;
            return None;
        }
        // The next that has not been accepted yet and does not wait; not so many steps
        // that it would show.
        for _ in 0..64 {
            if self.next >= list.len() {
                self.next = 0;
            }
            let at = self.next;
            self.next += 1;
            // Who is asked again and again is in the list once, in the order of numbers.
            let node = at + if self.phase == Phase::Run { self.plan.bind.len() } else { 0 };
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
            return Some(at);
        }
        None
    }

    /// Puts the next packet that is due into `packet`; whether there was one.
    fn fill(&mut self, packet: &mut Packet, due: &mut Due, now: Instant, elapsed: u32) -> bool {
        if due.data > 0 {
            due.data -= 1;
            self.tally.data_sent += 1;
            return packet.set_bytes(&self.plan.data);
        }
        let renewal = usize::try_from(self.tally.renewals_sent).unwrap_or(usize::MAX);
        let frame = if due.renewals > 0 && renewal < self.plan.renewals.len() {
            due.renewals -= 1;
            self.tally.renewals_sent += 1;
            self.plan.renewals.get(renewal)
        } else if due.requests > 0
            && let Some(at) = self.request(now, elapsed)
        {
            due.requests -= 1;
            let bind = self.phase == Phase::Bind;
            if bind { self.plan.bind.get(at) } else { self.plan.requests.get(at) }
        } else {
            None
        };
        let Some(frame) = frame else { return false };
        let node = frame.get(HOME_ADDRESS..).and_then(|bytes| self.node(bytes));
        let filled = packet.set_bytes(frame);
        if let Some(at) = node.and_then(|node| self.sent_at.get_mut(node)) {
            *at = elapsed;
        }
        filled
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
        // Once for the burst: the time is most of what a packet would cost here.
        let elapsed = self.elapsed(now);
        let (mut due, elapsed) = (self.due(elapsed), elapsed.as_micros() as u32);
        while !burst.is_full() {
            let Some(mut packet) = pool.take() else { return };
            if !self.fill(&mut packet, &mut due, now, elapsed) {
                return pool.give(packet);
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
