//! Which worker a packet belongs to.
//!
//! A network card spreads packets over its queues by their outer addresses, and so
//! all that comes out of one tunnel, perhaps of ten thousand nodes, lands on one
//! queue; other devices have one queue only. So the worker that receives a packet
//! looks for the addresses *inside* the tunnel and hands the packet to the worker
//! that they name ([`handover`](crate::handover)). Both directions of a conversation
//! name the same worker, and packets of one conversation stay in order.
//!
//! * A packet names its worker by its two addresses, whichever comes first; a
//!   packet in a tunnel by those inside.
//! * The fragments of a tunnelled packet have no inner addresses but the first: they
//!   name it by the outer addresses and their identification, so that all of them
//!   come together on one worker.
//! * Where addresses are translated, the state of a host inside is on the worker that
//!   the host's address alone names ([`Steering::of_host`]), and an external port's on
//!   the one that its block names ([`Napt::owner`](crate::napt::Napt::owner)).
//!
//! **Not done:** a conversation some of whose tunnelled packets come in fragments and
//! some whole may be put out of order between the two. What an address that is not
//! proven yet has sent to one worker gives it no allowance on another.

use std::net::Ipv4Addr;

use homeport_wire::{
    EtherType, GrePacket, IpProtocol, Ipv4Header, MinimalPacket, MobileIpPayload, TunnelDataHeader,
    UdpHeader,
};
use zerocopy::FromBytes;

use crate::config::{DataplaneConfig, SteeringMode};
use crate::parse::Ipv4Facts;
use crate::table::keyed::KeyedHash;

/// How one worker finds the others.
#[derive(Debug)]
pub(crate) struct Steering {
    hash: KeyedHash,
    /// Its own number.
    pub(crate) worker: usize,
    workers: u64,
    /// By port: whether what comes in by it is steered.
    steers: Box<[bool]>,
    /// By port: whether it is inside of a NAPT.
    inside: Box<[bool]>,
}

impl Steering {
    /// For one of the workers of this config; `receiving` says of how many queues each
    /// port receives.
    pub(crate) fn new(worker: usize, config: &DataplaneConfig, receiving: &[usize]) -> Self {
        let workers = config.cores.len();
        let steers = |queues: &usize| match config.steering {
            _ if workers < 2 => false,
            SteeringMode::Off => false,
            SteeringMode::Inner => true,
            SteeringMode::Auto => *queues < workers,
        };
        let inside = |port: usize| {
            let mut ports = config.napts.iter().flat_map(|napt| &napt.inside);
            ports.any(|inside| usize::from(inside.0) == port)
        };
        // Another function than the tables': what one worker gets is no part of them.
        let [first, second] = config.hash_seed;
        Steering {
            hash: KeyedHash::new([!first, second]),
            worker,
            workers: workers.max(1) as u64,
            steers: receiving.iter().map(steers).collect(),
            inside: (0..receiving.len()).map(inside).collect(),
        }
    }

    /// Whether there is anybody to hand a packet to.
    pub(crate) const fn is_alone(&self) -> bool {
        self.workers < 2
    }

    /// Whether frames that come in by a port are to be looked at.
    pub(crate) fn steers(&self, port: usize) -> bool {
        self.steers.get(port).copied().unwrap_or(false)
    }

    /// The worker that has the state of a host inside a NAPT.
    pub(crate) fn of_host(&self, address: Ipv4Addr) -> usize {
        self.place(u64::from(address.to_bits()))
    }

    /// The worker of an IPv4 packet that came in by a port. What is for an external
    /// address of a NAPT is not asked here.
    pub(crate) fn of_packet(&self, port: usize, facts: &Ipv4Facts, packet: &[u8]) -> usize {
        let outer = (facts.source, facts.destination);
        if facts.fragment {
            return match facts.protocol {
                IpProtocol::IP_IN_IP | IpProtocol::MINIMAL | IpProtocol::GRE => {
                    let identification = Ipv4Header::ref_from_prefix(packet)
                        .map_or(0, |(header, _)| header.identification());
                    self.of_pair(outer, identification)
                }
                _ => self.of_plain(port, outer),
            };
        }
        if facts.may_be_tunnelled()
            && let Some(inner) = inner_of(facts, packet)
        {
            return self.of_pair(inner, 0);
        }
        self.of_plain(port, outer)
    }

    fn of_plain(&self, port: usize, addresses: (Ipv4Addr, Ipv4Addr)) -> usize {
        if self.inside.get(port).copied().unwrap_or(false) {
            return self.of_host(addresses.0);
        }
        self.of_pair(addresses, 0)
    }

    fn of_pair(&self, (a, b): (Ipv4Addr, Ipv4Addr), identification: u16) -> usize {
        let (low, high) = (a.min(b).to_bits(), a.max(b).to_bits());
        let pair = u64::from(high) << 32 | u64::from(low);
        self.place(pair.wrapping_add(u64::from(identification) << 40))
    }

    /// The upper bits of a uniform hash, scaled: no division.
    fn place(&self, word: u64) -> usize {
        ((u128::from(self.hash.hash(&word)) * u128::from(self.workers)) >> 64) as usize
    }
}

/// Where the packet inside a tunnelled one comes from and goes; `None` when it cannot
/// be seen. Whether it is right is not looked at: that is its worker's business.
fn inner_of(facts: &Ipv4Facts, packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let payload = packet.get(usize::from(facts.header_len)..usize::from(facts.total_len))?;
    let (protocol, payload) = match facts.mobile_ip {
        None => (facts.protocol, payload),
        Some(MobileIpPayload::PlainTunnelData) => {
            (IpProtocol::IP_IN_IP, payload.get(UdpHeader::LEN..)?)
        }
        Some(MobileIpPayload::TunnelData) => {
            let data = payload.get(UdpHeader::LEN..)?;
            let (header, rest) = TunnelDataHeader::ref_from_prefix(data).ok()?;
            (header.next_header(), rest)
        }
        Some(MobileIpPayload::Signalling) => return None,
    };
    let inner = |bytes: &[u8]| {
        let (header, _) = Ipv4Header::ref_from_prefix(bytes).ok()?;
        Some((header.source(), header.destination()))
    };
    match protocol {
        IpProtocol::IP_IN_IP => inner(payload),
        IpProtocol::MINIMAL => {
            let minimal = MinimalPacket::new_checked(payload).ok()?;
            Some((minimal.source().unwrap_or(facts.source), minimal.header().destination()))
        }
        IpProtocol::GRE => {
            let gre = GrePacket::new_checked(payload).ok()?;
            (gre.header().protocol_type() == EtherType::IPV4).then(|| inner(gre.payload()))?
        }
        _ => None,
    }
}
