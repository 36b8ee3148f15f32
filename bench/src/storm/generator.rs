//! The port that makes the storm: it sends frames that were signed before, and looks
//! at every reply and every tunnelled packet that leaves.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use homeport_dataplane::packet::{BURST, Burst, PacketPool};
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

/// Bytes of a data packet's frame.
pub(super) const DATA_LEN: usize = 64;

/// A data packet.
pub(super) type Data = [u8; DATA_LEN];

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
    pub(super) data: Data,
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
    data: usize,
    renewals: usize,
    requests: usize,
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
    /// By node: when it sent last, in microseconds of the phase and never zero, or
    /// [`ACCEPTED`]. Requests are chosen in this order, so that it is read and written from
    /// end to end, as their frames are.
    sent_at: Vec<u32>,
    /// Which requests are sent with this burst, as their places in their list.
    chosen: [usize; BURST],
    left: usize,
}

/// Instead of the time when it sent: a node that was accepted, and sends no more.
const ACCEPTED: u32 = u32::MAX;

/// How many nodes are looked at for one burst, so that it does not show where most have
/// been accepted or wait.
const MOST_STEPS: usize = 8 * BURST;

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
            chosen: [0; BURST],
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
        let left = |rate: f64, sent: u64| ((rate * seconds) as u64).saturating_sub(sent) as usize;
        let Plan { pace, renewals_per_second, data_per_second, .. } = self.plan;
        match self.phase {
            Phase::Bind => Due { requests: usize::MAX, ..Due::default() },
            Phase::Run => Due {
                data: left(data_per_second, self.tally.data_sent),
                renewals: left(renewals_per_second, self.tally.renewals_sent),
                requests: match pace {
                    Pace::Window(_) => usize::MAX,
                    Pace::Rate(rate) => left(rate, self.tally.sent),
                },
            },
            Phase::Settle | Phase::Done => Due::default(),
        }
    }

    /// Chooses the next requests of a phase, `most` of them, that are sent now; how many
    /// there are.
    fn choose(&mut self, most: usize, now: Instant, elapsed: u32) -> usize {
        let (list, pace, retry) = match self.phase {
            Phase::Bind => (&self.plan.bind, Pace::Window(1024), true),
            Phase::Run => (&self.plan.requests, self.plan.pace, self.plan.retry),
            Phase::Settle | Phase::Done => return 0,
        };
        let len = list.len();
        let most = match pace {
            Pace::Window(window) => {
                if self.outstanding >= window {
                    let Some(heard) = self.answered_at.or(self.since) else { return 0 };
                    if now.saturating_duration_since(heard) < LOST_AFTER {
                        return 0;
                    }
                    (self.outstanding, self.answered_at) = (0, Some(now));
                }
                most.min(window - self.outstanding)
            }
            Pace::Rate(_) => most,
        };
        if self.left == 0 || (!retry && self.next >= len) {
            self.tally.exhausted |= self.phase == Phase::Run;
            return 0;
        }
        let chosen = if retry {
            self.choose_waiting(len, most, elapsed)
        } else {
            let chosen = self.chosen.iter_mut().take(most).zip(self.next..len);
            chosen.map(|(to, at)| *to = at).count()
        };
        if !retry {
            self.next += chosen;
        }
        self.outstanding += chosen;
        self.tally.sent += chosen as u64;
        chosen
    }

    /// The same where each node asks again and again: those whose turn it is, that have not
    /// been accepted and do not wait for an answer. They are in the list once, in the order
    /// of their numbers.
    fn choose_waiting(&mut self, len: usize, most: usize, elapsed: u32) -> usize {
        let first = if self.phase == Phase::Run { self.plan.bind.len() } else { 0 };
        let lost_after = LOST_AFTER.as_micros() as u32;
        let (mut steps, mut count) = (MOST_STEPS, 0);
        while count < most && steps > 0 {
            if self.next >= len {
                self.next = 0;
            }
            let nodes = first + self.next..(first + len).min(first + self.next + steps);
            let (mut looked_at, places) = (0, self.next..);
            let nodes = self.sent_at.get_mut(nodes).unwrap_or_default();
            for (at, place) in nodes.iter_mut().zip(places) {
                looked_at += 1;
                let waits = *at > 0 && elapsed.saturating_sub(*at) < lost_after;
                if *at == ACCEPTED || waits {
                    continue;
                }
                // At once: the list may be so short that it is its turn again.
                *at = elapsed;
                if let Some(to) = self.chosen.get_mut(count) {
                    *to = place;
                }
                count += 1;
                if count == most {
                    break;
                }
            }
            if looked_at == 0 {
                break;
            }
            self.next += looked_at;
            steps -= looked_at;
        }
        count
    }

    /// Notes that the node of a request sends it now.
    fn note(&mut self, frame: &Frame, elapsed: u32) {
        let node = frame.get(HOME_ADDRESS..).and_then(|bytes| self.node(bytes));
        if let Some(at) = node.and_then(|node| self.sent_at.get_mut(node)) {
            *at = elapsed;
        }
    }

    /// Fills a burst with what is due: the data, then the renewals, then the requests.
    fn fill(&mut self, pool: &mut PacketPool, burst: &mut Burst, now: Instant) {
        // Once for the burst: the time is most of what a packet would cost here.
        let elapsed = self.elapsed(now);
        let (due, elapsed) = (self.due(elapsed), (elapsed.as_micros() as u32).max(1));
        let room = |burst: &Burst| BURST - burst.len();
        for _ in 0..due.data.min(room(burst)) {
            if !put(&self.plan.data, pool, burst) {
                return;
            }
            self.tally.data_sent += 1;
        }
        for _ in 0..due.renewals.min(room(burst)) {
            let next = usize::try_from(self.tally.renewals_sent).unwrap_or(usize::MAX);
            let Some(frame) = self.plan.renewals.get(next) else { break };
            if !put(frame, pool, burst) {
                return;
            }
            let frame = *frame;
            self.tally.renewals_sent += 1;
            self.note(&frame, elapsed);
        }
        // There are buffers for whatever was chosen.
        let most = due.requests.min(room(burst)).min(pool.available());
        let chosen = self.choose(most, now, elapsed);
        let (list, retry) = match self.phase {
            Phase::Bind => (&self.plan.bind, true),
            _ => (&self.plan.requests, self.plan.retry),
        };
        for at in self.chosen.iter().take(chosen) {
            let Some(frame) = list.get(*at) else { break };
            put(frame, pool, burst);
        }
        if !retry {
            for at in self.chosen.into_iter().take(chosen) {
                let Some(frame) = self.plan.requests.get(at).copied() else { break };
                self.note(&frame, elapsed);
            }
        }
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
        let sent_at = self.sent_at.get_mut(node)?;
        // Nobody knows how long a second answer took.
        let took = (*sent_at != ACCEPTED).then(|| elapsed.saturating_sub(*sent_at));
        let is_renewal = !self.plan.renewals.is_empty() && node < self.plan.bind.len();
        if is_renewal && self.phase != Phase::Bind {
            self.tally.renewals_accepted += u64::from(code <= 1);
            self.tally.renewals_took.extend(took);
        } else {
            self.answered_at = Some(now);
            self.outstanding = self.outstanding.saturating_sub(1);
            if code <= 1 {
                self.tally.accepted += u64::from(self.phase != Phase::Settle);
                self.tally.took.extend(took);
                if self.phase == Phase::Bind || self.plan.retry {
                    *sent_at = ACCEPTED;
                    self.left = self.left.saturating_sub(took.iter().len());
                }
            }
        }
        self.tally.denied += u64::from(code > 1);
        Some(())
    }
}

/// Puts a frame behind those of a burst; `false` when there was no buffer or no room.
#[inline]
fn put<const LEN: usize>(frame: &[u8; LEN], pool: &mut PacketPool, burst: &mut Burst) -> bool {
    let Some(mut packet) = pool.take() else { return false };
    packet.fill(|room| {
        let Some(to) = room.first_chunk_mut() else { return 0 };
        *to = *frame;
        LEN
    });
    burst.push(packet).map_err(|packet| pool.give(packet)).is_ok()
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
        self.fill(pool, burst, now);
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

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    const NODES: usize = 100;

    /// A storm of so many nodes that has begun now.
    fn storm(now: Instant) -> Generator {
        let frame = |node: usize| {
            let mut frame = [0; FRAME_LEN];
            let address = Ipv4Addr::from_bits(1 + node as u32).octets();
            frame.iter_mut().skip(HOME_ADDRESS).zip(address).for_each(|(to, from)| *to = from);
            frame
        };
        let plan = Plan {
            first: Ipv4Addr::from_bits(1),
            bind: Vec::new(),
            renewals: Vec::new(),
            renewals_per_second: 0.0,
            requests: (0..NODES).map(frame).collect(),
            pace: Pace::Rate(1e6),
            retry: true,
            data: [0; DATA_LEN],
            data_per_second: 0.0,
            time: Duration::from_secs(10),
        };
        let (mut generator, _) = Generator::new(plan, NODES);
        generator.step(now);
        generator
    }

    /// How many requests of each node come at `now`.
    fn requests(generator: &mut Generator, now: Instant) -> Vec<usize> {
        let (mut pool, mut burst) = (PacketPool::new(BURST), Burst::new());
        let mut counts = vec![0; NODES];
        for _ in 0..20 {
            generator.fill(&mut pool, &mut burst, now);
            for packet in burst.drain() {
                let node = packet.bytes().get(HOME_ADDRESS..).and_then(|at| generator.node(at));
                counts[node.unwrap()] += 1;
                pool.give(packet);
            }
        }
        counts
    }

    #[test]
    fn a_node_that_waits_is_not_asked_again_before_its_request_is_lost() {
        let start = Instant::now();
        let mut generator = storm(start);
        let soon = start + Duration::from_millis(1);
        assert_eq!(requests(&mut generator, soon), [1; NODES]);
        let early = soon + LOST_AFTER - Duration::from_millis(1);
        assert_eq!(requests(&mut generator, early), [0; NODES]);
        assert_eq!(requests(&mut generator, soon + LOST_AFTER), [1; NODES]);
        assert_eq!(generator.tally.sent, 2 * NODES as u64);
    }

    #[test]
    fn a_node_that_was_accepted_sends_no_more_and_one_that_was_denied_does() {
        let start = Instant::now();
        let mut generator = storm(start);
        requests(&mut generator, start + Duration::from_millis(1));
        let mut reply = |node: usize, code: u8| {
            let ends = (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST);
            let mut message = [3, code, 0, 60, 0, 0, 0, 0];
            let address = Ipv4Addr::from_bits(1 + node as u32).octets();
            message.iter_mut().skip(4).zip(address).for_each(|(to, from)| *to = from);
            let udp = UdpHeader::new((ends.0, 434), (ends.1, 1434), &message).unwrap();
            let payload = [udp.as_bytes(), &message].concat();
            let frame: [u8; 50] = super::super::ethernet(ends.0, ends.1, IpProtocol::UDP, &payload);
            generator.see(&frame, start + Duration::from_millis(3)).unwrap();
        };
        reply(7, 0);
        reply(8, 133);
        assert_eq!((generator.tally.accepted, generator.tally.denied), (1, 1));
        assert_eq!(generator.tally.took, [2_000]);
        let later = requests(&mut generator, start + 2 * LOST_AFTER);
        assert_eq!((later[7], later[8]), (0, 1));
        assert_eq!(generator.left, NODES - 1);
    }
}
