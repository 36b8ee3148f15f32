//! ICMP errors to the sender of a packet that cannot go on (RFC 792, RFC 1122
//! §3.2.2, RFC 1812 §4.3.2).
//!
//! **Not done:** Redirect.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use homeport_wire::icmpv4::{
    DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED, HOST_UNREACHABLE, Icmpv4Header, NET_UNREACHABLE,
    REASSEMBLY_TIME_EXCEEDED, TIME_EXCEEDED,
};
use homeport_wire::{IpProtocol, Ipv4Header, Ipv4Packet};
use zerocopy::{FromBytes, IntoBytes};

use crate::packet::Packet;

/// The longest error, IPv4 header included (RFC 1812 §4.3.2.3).
const MAX_LEN: usize = 576;

/// TTL of an error.
const TTL: u8 = 64;

/// Type of service of an error: precedence 6 (RFC 1812 §4.3.2.5).
const TOS: u8 = 0xc0;

/// What the sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// The TTL ran out on the way.
    TimeExceeded,
    /// The packet has DF and the next link or tunnel carries only `mtu` bytes
    /// (RFC 1191 §4).
    FragmentationNeeded {
        /// The longest packet that gets through.
        mtu: u16,
    },
    /// There is no way to the destination.
    HostUnreachable,
    /// There is no way to the destination's network.
    NetUnreachable,
    /// The other fragments did not come in time (RFC 1122 §3.3.2).
    ReassemblyTimeExceeded,
}

/// Writes the error about the IPv4 packet `culprit` into `packet`, from `source`.
///
/// `false`, and `packet` undefined, when no error may be sent about it: it is an
/// ICMP error itself, a fragment but the first, for a group, or from what is no
/// single station (RFC 1122 §3.2.2).
#[must_use]
pub fn write(packet: &mut Packet, culprit: &[u8], source: Ipv4Addr, error: IcmpError) -> bool {
    let Ok(about) = Ipv4Packet::new_checked(culprit) else {
        return false;
    };
    let (head, payload) = about.bytes().split_at(about.header().header_len());
    write_about(packet, head, payload, source, error)
}

/// The same about a packet of which the header is known, options and all, and its
/// payload as far as it goes.
#[must_use]
pub fn write_about(
    packet: &mut Packet,
    head: &[u8],
    payload: &[u8],
    source: Ipv4Addr,
    error: IcmpError,
) -> bool {
    let Ok((about, _)) = Ipv4Header::ref_from_prefix(head) else {
        return false;
    };
    if !may_be_reported(about, payload) {
        return false;
    }
    let (kind, code, rest) = match error {
        IcmpError::TimeExceeded => (TIME_EXCEEDED, 0, [0; 4]),
        IcmpError::ReassemblyTimeExceeded => (TIME_EXCEEDED, REASSEMBLY_TIME_EXCEEDED, [0; 4]),
        IcmpError::HostUnreachable => (DESTINATION_UNREACHABLE, HOST_UNREACHABLE, [0; 4]),
        IcmpError::NetUnreachable => (DESTINATION_UNREACHABLE, NET_UNREACHABLE, [0; 4]),
        IcmpError::FragmentationNeeded { mtu } => {
            let [high, low] = mtu.to_be_bytes();
            (DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED, [0, 0, high, low])
        }
    };
    let room = (MAX_LEN - Ipv4Header::LEN - Icmpv4Header::LEN).saturating_sub(head.len());
    if !packet.set_bytes(head) || !packet.append(payload.get(..room).unwrap_or(payload)) {
        return false;
    }
    let icmp = Icmpv4Header::new(kind, code, rest, packet.bytes());
    // At most `MAX_LEN`.
    let total_len = (Ipv4Header::LEN + Icmpv4Header::LEN + packet.len()) as u16;
    let mut header = Ipv4Header::unsummed(source, about.source(), IpProtocol::ICMP, TTL, total_len);
    header.tos = TOS;
    header.fill_checksum();
    packet.prepend(icmp.as_bytes()) && packet.prepend(header.as_bytes())
}

/// RFC 1122 §3.2.2, RFC 1812 §4.3.2.7.
fn may_be_reported(header: &Ipv4Header, payload: &[u8]) -> bool {
    let (source, destination) = (header.source(), header.destination());
    let [first, ..] = source.octets();
    // Classes D and E, and "this network", are nobody's own address.
    let from_a_station = first != 0 && first < 224 && !source.is_loopback();
    let to_a_group = destination.is_multicast() || destination.is_broadcast();
    // Of the ICMP types, the queries and their answers; what is unknown might be
    // an error.
    let is_icmp_error =
        header.protocol() == IpProtocol::ICMP && !matches!(payload.first(), Some(0 | 8 | 13..=18));
    from_a_station && !to_a_group && header.fragment_offset() == 0 && !is_icmp_error
}

/// The longest packet that any link must carry (RFC 791): no smaller MTU is told.
pub const MIN_MTU: u16 = 68;

/// A budget that fills with time (RFC 1812 §4.3.2.8).
#[derive(Clone, Debug)]
pub struct TokenBucket {
    tokens: u32,
    burst: u32,
    interval: Duration,
    filled_at: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens that fills with `per_second` of them.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        TokenBucket { tokens: burst, burst, interval, filled_at: None }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    /// Whether there is a token, which stays.
    pub fn has(&self, now: Instant) -> bool {
        self.clone().take(now)
    }

    fn fill(&mut self, now: Instant) {
        let since = *self.filled_at.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        let count = elapsed.as_nanos() / self.interval.as_nanos().max(1);
        let Some(count) = u32::try_from(count).ok().filter(|count| *count < self.burst) else {
            (self.tokens, self.filled_at) = (self.burst, Some(now));
            return;
        };
        self.tokens = self.tokens.saturating_add(count).min(self.burst);
        // The rest of an interval is not lost.
        self.filled_at = since.checked_add(self.interval * count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::PacketPool;
    use homeport_wire::icmpv4::Icmpv4Packet;
    use proptest::prelude::*;

    const SENDER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const TARGET: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);

    fn culprit(header: impl FnOnce(&mut Ipv4Header), payload: &[u8]) -> Vec<u8> {
        with(SENDER, TARGET, IpProtocol::UDP, header, payload)
    }

    fn with(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: IpProtocol,
        change: impl FnOnce(&mut Ipv4Header),
        payload: &[u8],
    ) -> Vec<u8> {
        let len = u16::try_from(20 + payload.len()).unwrap();
        let mut header = Ipv4Header::unsummed(source, destination, protocol, 1, len);
        change(&mut header);
        header.fill_checksum();
        [header.as_bytes(), payload].concat()
    }

    fn report(culprit: &[u8], error: IcmpError) -> Option<Vec<u8>> {
        let mut pool = PacketPool::new(1);
        let mut packet = pool.take().unwrap();
        write(&mut packet, culprit, ROUTER, error).then(|| packet.bytes().to_vec())
    }

    #[test]
    fn the_error_quotes_the_packet_and_goes_to_its_sender() {
        for len in [0, 1, 8, 600, 1400] {
            let culprit = culprit(|_| (), &vec![0x5a; len]);
            for (error, kind, code, rest) in [
                (IcmpError::TimeExceeded, 11, 0, [0; 4]),
                (IcmpError::HostUnreachable, 3, 1, [0; 4]),
                (IcmpError::NetUnreachable, 3, 0, [0; 4]),
                (IcmpError::ReassemblyTimeExceeded, 11, 1, [0; 4]),
                (IcmpError::FragmentationNeeded { mtu: 1480 }, 3, 4, [0, 0, 5, 200]),
            ] {
                let bytes = report(&culprit, error).unwrap();
                assert!(bytes.len() <= MAX_LEN);
                let packet = Ipv4Packet::new_checked(&bytes).unwrap();
                assert_eq!(packet.header().source(), ROUTER);
                assert_eq!(packet.header().destination(), SENDER);
                let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
                let header = icmp.header();
                assert_eq!((header.message_type, header.code, header.rest), (kind, code, rest));
                assert_eq!(icmp.body(), &culprit[..culprit.len().min(548)]);
            }
        }
    }

    #[test]
    fn nothing_is_reported_about_errors_fragments_and_groups() {
        let error = IcmpError::TimeExceeded;
        let icmp = |kind: u8| with(SENDER, TARGET, IpProtocol::ICMP, |_| (), &[kind, 0, 0, 0]);
        for kind in [3, 4, 5, 9, 11, 12, 40] {
            assert_eq!(report(&icmp(kind), error), None, "ICMP type {kind}");
        }
        for kind in [0, 8, 13, 14, 17] {
            assert!(report(&icmp(kind), error).is_some(), "ICMP type {kind}");
        }
        assert_eq!(report(&culprit(|header| header.set_fragment(8, false), b"x"), error), None);
        assert!(report(&culprit(|header| header.set_fragment(0, true), b"x"), error).is_some());
        let between = |source: [u8; 4], destination: [u8; 4]| {
            with(source.into(), destination.into(), IpProtocol::UDP, |_| (), b"x")
        };
        for group in [[224, 0, 0, 5], [255, 255, 255, 255]] {
            assert_eq!(report(&between(SENDER.octets(), group), error), None);
            assert_eq!(report(&between(group, TARGET.octets()), error), None);
        }
        for nobody in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [240, 0, 0, 1]] {
            assert_eq!(report(&between(nobody, TARGET.octets()), error), None);
        }
        assert_eq!(report(b"no packet", error), None);
    }

    #[test]
    fn the_bucket_lets_a_burst_through_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(100, 5);
        let taken = |bucket: &mut TokenBucket, at: u64| {
            let now = start + Duration::from_millis(at);
            (0..1000).take_while(|_| bucket.take(now)).count()
        };
        assert_eq!(taken(&mut bucket, 0), 5);
        assert_eq!(taken(&mut bucket, 9), 0);
        assert_eq!(taken(&mut bucket, 19), 1);
        assert_eq!(taken(&mut bucket, 20), 1);
        assert_eq!(taken(&mut bucket, 10_000), 5);
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = report(&bytes, IcmpError::TimeExceeded);
        }
    }
}
