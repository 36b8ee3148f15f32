//! Registration messages in a storm: those of a whole burst together, before any other
//! stage.
//!
//! In a storm most packets are registration messages, and nearly all of these are dropped
//! where the general path ends: their network's budget is used up, or the ring to the
//! control core is full. So a flood costs whatever such a packet costs up to there. While
//! messages are being shed ([`Surge::is_on`]), each burst is first looked through for them,
//! and they take three steps of their own, so that their cache misses overlap:
//!
//! 1. *read*: the frame; the budgets of its network and the buckets of the binding that it
//!    names are fetched, both of them, as most nodes of a storm have none;
//! 2. *locate*: the entry in a bucket; it is fetched;
//! 3. *judge*: what the [gate](crate::registration) says of it is done, message by message
//!    in the order of arrival.
//!
//! Like the fast path it is a short cut, not a second opinion: the same parser reads the
//! frame, the same gate judges the message, the same counters count it. It takes what the
//! [general path](crate::forward) would have handed to the gate at once, and leaves
//! everything else in its place. The messages of a burst overtake its other packets, which
//! leave by other ways.
//!
//! When nothing is shed it is off, and costs the burst one comparison.
//!
//! **Not done:** messages with IPv4 options, out of tunnels, or to groups and broadcast
//! addresses take the general way to the same gate.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use homeport_wire::{EthernetHeader, IpProtocol, MOBILE_IP_PORT, TenantId};

use crate::classify::{Origin, Tables, martian, may_reach};
use crate::fast::Link;
use crate::forward::Forwarder;
use crate::packet::{BURST, Burst, Packet};
use crate::parse::{self, Frame};
use crate::registration::Message;
use crate::table::binding::{BindingEntry, BindingKey};
use crate::table::classes::Class;
use crate::table::hash::{AtHand, Probe};
use crate::table::local::{LocalEntry, LocalKey};
use crate::verdict::Verdict;

/// How long after the last message that was shed.
const LASTS: Duration = Duration::from_millis(100);

/// Whether there is a storm, as one worker knows it.
pub(crate) struct Surge {
    enabled: bool,
    /// When it was asked last, and how many messages had been shed by then.
    asked: Option<Instant>,
    shed: u64,
    /// When it is over, unless more are shed.
    until: Option<Instant>,
    /// How many messages took the short cut so far.
    pub(crate) taken: u64,
}

impl Surge {
    /// There is none.
    pub(crate) fn new(enabled: bool) -> Self {
        Surge { enabled, asked: None, shed: 0, until: None, taken: 0 }
    }

    /// Whether messages are being shed; `shed` is how many have been so far.
    #[inline]
    pub(crate) fn is_on(&mut self, shed: u64, now: Instant) -> bool {
        if shed != self.shed {
            // Since it was asked: of the burst before this.
            (self.shed, self.until) = (shed, self.asked.map(|asked| asked + LASTS));
        }
        self.asked = Some(now);
        self.enabled && self.until.is_some_and(|until| now < until)
    }
}

/// A message that was read.
struct Seen {
    message: Message,
    /// The tenant of the agent that it is for.
    tenant: TenantId,
    /// Bytes of the frame without padding.
    len: usize,
    /// Where the binding may be that it names, if it names any.
    probe: Option<(BindingKey, Probe)>,
}

/// Takes the registration messages of a burst that came in by a link to their end, and
/// leaves its other packets where they are, in order. How many bytes the messages had.
pub(crate) fn receive(
    forwarder: &mut Forwarder,
    tables: &Tables,
    burst: &mut Burst,
    link: &Link,
) -> u64 {
    let Some(bindings) = tables.bindings.at_hand() else { return 0 };
    let mut seen = [const { None }; BURST];
    let mut reading = Reading { forwarder, tables, bindings, link, local: None };
    let (mut count, mut bytes) = (0, 0);
    for (seen, packet) in seen.iter_mut().zip(burst.iter_mut()) {
        (packet.port, packet.tenant) = (link.port, link.tenant);
        *seen = reading.read(packet);
        if seen.is_some() {
            count += 1;
            bytes += packet.len() as u64;
        }
    }
    if count == 0 {
        return 0;
    }
    forwarder.surge.taken += count;
    let mut candidates = [None; BURST];
    for (seen, candidate) in seen.iter().zip(&mut candidates) {
        if let Some(Seen { probe: Some((_, probe)), .. }) = seen {
            *candidate = bindings.locate(probe);
        }
    }
    let mut each = seen.iter().zip(&candidates);
    burst.retain(|packet| match each.next() {
        Some((Some(seen), candidate)) => {
            let key = seen.probe.as_ref().map(|(key, _)| key);
            let found = candidate.as_ref().zip(key);
            let binding = found.and_then(|(candidate, key)| bindings.confirm(candidate, key));
            judge(forwarder, tables, packet, seen, binding);
            None
        }
        _ => Some(packet),
    });
    bytes
}

/// Does with a message what the gate says, if the node that it names has this binding.
fn judge(
    forwarder: &mut Forwarder,
    tables: &Tables,
    mut packet: Packet,
    seen: &Seen,
    binding: Option<&BindingEntry>,
) {
    match forwarder.registrations.pass(&seen.message, binding, tables, forwarder.now) {
        Ok(reason) => {
            packet.tenant = seen.tenant;
            packet.truncate(seen.len);
            forwarder.output.finish(packet, Verdict::Punt(reason));
        }
        Err(reason) => forwarder.output.drop(packet, reason),
    }
}

/// What the messages of one burst share.
struct Reading<'f, 't> {
    forwarder: &'f Forwarder,
    tables: &'t Tables,
    bindings: AtHand<'t, BindingKey, BindingEntry>,
    link: &'f Link,
    /// The address of ours that was asked for last.
    local: Option<(Ipv4Addr, &'t LocalEntry)>,
}

/// Bytes of a frame up to the ports of UDP behind an IPv4 header without options.
const START: usize = EthernetHeader::LEN + 20 + 4;

impl<'t> Reading<'_, 't> {
    /// Reads a message that the general path would hand to the gate at once, and begins to
    /// look up what the gate will ask for. `None`: it is none, or is anything special.
    #[inline]
    fn read(&mut self, packet: &Packet) -> Option<Seen> {
        let frame = packet.bytes();
        if !may_be_message(frame.first_chunk()?) {
            return None;
        }
        let Ok((ethernet, Frame::Ipv4(facts))) = parse::frame(frame) else { return None };
        let is_message = ethernet.destination == self.link.mac && facts.is_signalling();
        if !is_message || facts.udp_ports?.1 != MOBILE_IP_PORT {
            return None;
        }
        let (classes, bindings) = (&self.tables.classes, self.bindings);
        let origin = Origin::Link { port: self.link.port, ethernet };
        if martian(&facts, &origin, packet.tenant, self.tables).is_some() {
            return None;
        }
        let local = self.local(facts.destination)?;
        let serves = local.home_agent || local.care_of_address || local.agent;
        if !serves || local.broadcast || !may_reach(packet.tenant, local.tenant) {
            return None;
        }
        let header_len = EthernetHeader::LEN + usize::from(facts.header_len);
        let sender = (local.tenant, ethernet.source);
        // Link-layer padding is no part of it.
        let len = EthernetHeader::LEN + usize::from(facts.total_len);
        let datagram = frame.get(header_len..len)?;
        let message = Message::read(&facts, datagram, sender, &origin, self.tables);
        self.forwarder.registrations.fetch(&message);
        let probe = message
            .names()
            .filter(|key| classes.of(key.home_address.to_bits()).has(Class::BOUND))
            .map(|key| (key, bindings.probe_both(&key)));
        Some(Seen { message, tenant: local.tenant, len, probe })
    }

    fn local(&mut self, address: Ipv4Addr) -> Option<&'t LocalEntry> {
        match self.local {
            Some((known, entry)) if known == address => Some(entry),
            _ => {
                let class = self.tables.classes.of(address.to_bits());
                if class.has(Class::UNUSUAL) || !class.has(Class::LOCAL) {
                    return None;
                }
                let entry = self.tables.locals.lookup(&LocalKey { address })?;
                self.local = Some((address, entry));
                Some(entry)
            }
        }
    }
}

/// Whether a frame may be a datagram to the port of Mobile IP, without options.
#[inline(always)]
fn may_be_message(start: &[u8; START]) -> bool {
    let port = MOBILE_IP_PORT.to_be_bytes();
    start[12..15] == [0x08, 0x00, 0x45] && start[23] == IpProtocol::UDP.0 && start[36..] == port
}
