//! Frames on their way: segments that lose, repeat, swap, damage and delay them, and
//! parties that do not reach each other.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use homeport_dataplane::port::mem::{FaultInjector, Faults};
use homeport_wire::{EthernetHeader, IpProtocol, Ipv4Packet};
use zerocopy::FromBytes;

use super::plan::{FaultKind, Party};
use super::random::Random;

/// How long a frame takes at least.
const DELAY: Duration = Duration::from_micros(300);

/// Registration frames that strangers remember.
const CAPTURED: usize = 512;

/// Who is on a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// A port of a box.
    Box(usize, usize),
    /// A node.
    Node(usize),
    /// A node's correspondent.
    Correspondent(usize),
    /// The correspondent of a device's address: its home agent and number at home.
    Peer(usize, usize),
    /// Whoever attacks.
    Stranger,
}

impl Member {
    /// Who can be cut off.
    pub const fn party(self) -> Option<Party> {
        match self {
            Member::Box(at, _) => Some(Party::Box(at)),
            Member::Node(node) => Some(Party::Node(node)),
            Member::Correspondent(_) | Member::Peer(..) | Member::Stranger => None,
        }
    }
}

/// A frame on its way.
#[derive(Clone, Debug)]
pub struct Flight {
    /// The segment.
    pub segment: usize,
    /// Who sent it.
    pub from: Member,
    /// The frame.
    pub frame: Vec<u8>,
}

/// What is wrong with a segment.
#[derive(Clone, Copy, Debug, Default)]
struct Wrong {
    faults: Faults,
    /// Chances in a thousand that a bit of a packet is flipped.
    corruption: u16,
    /// How much longer frames take at most.
    delay: Duration,
}

/// All segments.
pub struct Network {
    seed: u64,
    flying: BTreeMap<(Duration, u64), Flight>,
    flown: u64,
    injectors: BTreeMap<(usize, Member), (FaultInjector, Random)>,
    /// What is wrong with each segment.
    wrong: Vec<Wrong>,
    cuts: BTreeSet<(Party, Party)>,
    captured: Vec<(Duration, usize, Vec<u8>)>,
    digest: DefaultHasher,
}

impl Network {
    /// So many segments, and nothing wrong with them.
    pub fn new(seed: u64, segments: usize) -> Self {
        Network {
            seed,
            flying: BTreeMap::new(),
            flown: 0,
            injectors: BTreeMap::new(),
            wrong: vec![Wrong::default(); segments],
            cuts: BTreeSet::new(),
            captured: Vec::new(),
            digest: DefaultHasher::new(),
        }
    }

    /// A digest of every frame sent so far: when, where, what.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// How many frames have been sent and were not lost.
    pub const fn flown(&self) -> u64 {
        self.flown
    }

    /// Sets how bad a segment is in one way.
    pub fn set_fault(&mut self, segment: usize, kind: FaultKind, amount: u16) {
        let Wrong { faults, corruption, delay } = &mut self.wrong[segment];
        match kind {
            FaultKind::Loss => faults.loss = amount,
            FaultKind::Duplication => faults.duplication = amount,
            FaultKind::Reordering => faults.reordering = amount,
            FaultKind::Corruption => *corruption = amount,
            FaultKind::Delay => *delay = Duration::from_millis(amount.into()),
        }
        let faults = *faults;
        let here = self.injectors.iter_mut().filter(|((at, _), _)| *at == segment);
        here.for_each(|(_, (injector, _))| injector.set_faults(faults));
    }

    /// Cuts a party off from another in one direction, or joins them again.
    pub fn set_cut(&mut self, from: Party, to: Party, cut: bool) {
        match cut {
            true => self.cuts.insert((from, to)),
            false => self.cuts.remove(&(from, to)),
        };
    }

    /// Makes everything well.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.wrong.fill(Wrong::default());
        for (injector, _) in self.injectors.values_mut() {
            injector.set_faults(Faults::default());
        }
    }

    /// Whether what the one sends reaches the other.
    pub fn reaches(&self, from: Member, to: Member) -> bool {
        match (from.party(), to.party()) {
            (Some(from), Some(to)) => !self.cuts.contains(&(from, to)),
            _ => true,
        }
    }

    /// Sends a frame.
    pub fn send(&mut self, elapsed: Duration, segment: usize, from: Member, mut frame: Vec<u8>) {
        (elapsed, segment, &frame).hash(&mut self.digest);
        if is_registration(&frame) && from != Member::Stranger {
            if self.captured.len() >= CAPTURED {
                self.captured.drain(..CAPTURED / 2);
            }
            self.captured.push((elapsed, segment, frame.clone()));
        }
        let Network { flying, flown, injectors, wrong, seed, .. } = self;
        let Wrong { faults, corruption, delay } = wrong[segment];
        let mut fly = |frame, random: Option<&mut Random>| {
            *flown += 1;
            let most = delay.as_micros() as u64;
            let more = random.map_or(0, |random| random.draw() % (most + 1));
            let at = elapsed + DELAY + Duration::from_micros(more);
            flying.insert((at, *flown), Flight { segment, from, frame });
        };
        if from == Member::Stranger {
            return fly(frame, None);
        }
        let (injector, random) = injectors.entry((segment, from)).or_insert_with(|| {
            let mut random = Random::new(*seed, purpose(segment, from));
            (FaultInjector::new(faults, random.draw()), random)
        });
        if random.draw() % 1_000 < u64::from(corruption) {
            damage(&mut frame, random);
        }
        injector.pass(frame, |frame| fly(frame, Some(random)));
    }

    /// When the next frame arrives.
    pub fn next_arrival(&self) -> Option<Duration> {
        self.flying.keys().next().map(|(at, _)| *at)
    }

    /// A frame that has arrived.
    pub fn arrive(&mut self, elapsed: Duration) -> Option<Flight> {
        let entry = self.flying.first_entry().filter(|entry| entry.key().0 <= elapsed)?;
        Some(entry.remove())
    }

    /// Frames that strangers have seen, from the `back`th last on.
    pub fn captured(&self, back: usize, count: usize) -> Vec<(usize, Vec<u8>)> {
        let begin = self.captured.len().saturating_sub(back + 1);
        let frames = self.captured.iter().skip(begin).take(count);
        frames.map(|(_, segment, frame)| (*segment, frame.clone())).collect()
    }

    /// Frames that strangers have seen within these times.
    pub fn captured_within(&self, from: Duration, to: Duration) -> Vec<(usize, Vec<u8>)> {
        let frames = self.captured.iter().filter(|(at, _, _)| (from..to).contains(at));
        frames.map(|(_, segment, frame)| (*segment, frame.clone())).collect()
    }

    /// The registration frame that was seen last and `is` so.
    pub fn last_captured(&self, is: impl Fn(&[u8]) -> bool) -> Option<&[u8]> {
        self.captured.iter().rev().map(|(_, _, frame)| frame.as_slice()).find(|frame| is(frame))
    }
}

/// What a member's chances on a segment are drawn for: its own, whoever else there is.
fn purpose(segment: usize, from: Member) -> u64 {
    let member = match from {
        Member::Box(at, port) => at * 8 + port,
        Member::Node(node) => 1_000 + node,
        Member::Correspondent(node) => 2_000 + node,
        Member::Stranger => 3_000,
        Member::Peer(home_agent, number) => 4_000 + home_agent * 256 + number,
    };
    (segment as u64) << 32 | member as u64
}

/// Flips a bit behind the link header: what a link itself damages, its frame check
/// tells. A packet is damaged unnoticed in somebody's memory on the way.
fn damage(frame: &mut [u8], random: &mut Random) {
    let packet = frame.get_mut(EthernetHeader::LEN..).unwrap_or_default();
    if !packet.is_empty() {
        packet[random.index(packet.len())] ^= 1 << random.index(8);
    }
}

fn is_registration(frame: &[u8]) -> bool {
    let Ok((_, packet)) = EthernetHeader::ref_from_prefix(frame) else { return false };
    let Ok(packet) = Ipv4Packet::new_checked(packet) else { return false };
    let ports = packet.payload().get(..4).unwrap_or_default();
    packet.header().protocol() == IpProtocol::UDP
        && ports.chunks(2).any(|port| port == 434u16.to_be_bytes())
}
