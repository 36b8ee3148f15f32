//! What is known of the path to the tunnel's other end: how long a packet it
//! carries, by the routers that could not forward a longer one (RFC 1191).

use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_proto::Instant;
use homeport_wire::icmpv4::{
    DESTINATION_UNREACHABLE, ECHO_REPLY, ECHO_REQUEST, FRAGMENTATION_NEEDED, Icmpv4Header,
};
use homeport_wire::{IpProtocol, Ipv4Header};
use zerocopy::{FromBytes, IntoBytes};

/// No path is believed to be narrower, in bytes: every host takes packets of this
/// length (RFC 791 §3.1), and who says less may want to slow us down.
pub const FLOOR: u16 = 576;

/// How long a path's MTU is kept (RFC 1191 §6.3).
pub const KEPT: Duration = Duration::from_secs(600);

/// The longest ICMP error, IPv4 header included (RFC 1812 §4.3.2.3).
const MAX_ERROR_LEN: usize = 576;

/// TTL of an ICMP error.
const TTL: u8 = 64;

/// The MTU of one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathMtu {
    learnt: Option<(u16, Instant)>,
}

impl PathMtu {
    /// Takes what an ICMP Fragmentation Needed says, zero for a router that says
    /// nothing (RFC 1191 §3). `false` when it is no news: not less than `known`.
    pub fn learn(&mut self, mtu: u32, known: u16, now: Instant) -> bool {
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX).max(FLOOR);
        let is_news = mtu < known;
        if is_news {
            self.learnt = Some((mtu, now));
        }
        is_news
    }

    /// The MTU of a path that begins with a link of `link` bytes.
    pub fn limit(&self, link: u16) -> u16 {
        self.learnt.map_or(link, |(mtu, _)| mtu.min(link))
    }

    /// When it is to be forgotten.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.learnt.map(|(_, at)| at + KEPT)
    }

    /// Forgets what is too old.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.learnt = self.learnt.filter(|(_, at)| *at + KEPT > now);
    }
}

/// The ICMP Fragmentation Needed about the packet that begins with `quote`, from
/// `source` to its sender, saying `mtu`. `None` when none may be sent about it: it
/// is an ICMP error itself, or a fragment but the first (RFC 1122 §3.2.2).
pub fn fragmentation_needed(quote: &[u8], source: Ipv4Addr, mtu: u16) -> Option<Vec<u8>> {
    let (about, _) = Ipv4Header::ref_from_prefix(quote).ok()?;
    let payload = quote.get(about.header_len()..)?;
    let is_icmp_error = about.protocol() == IpProtocol::ICMP
        && !matches!(payload.first(), Some(&(ECHO_REQUEST | ECHO_REPLY | 13..=18)));
    if about.version() != 4 || about.fragment_offset() != 0 || is_icmp_error || payload.len() < 8 {
        return None;
    }
    let quote = quote.get(..MAX_ERROR_LEN - Ipv4Header::LEN - Icmpv4Header::LEN).unwrap_or(quote);
    let [high, low] = mtu.to_be_bytes();
    let icmp =
        Icmpv4Header::new(DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED, [0, 0, high, low], quote);
    let len = u16::try_from(Ipv4Header::LEN + Icmpv4Header::LEN + quote.len()).ok()?;
    let header = Ipv4Header::new(source, about.source(), IpProtocol::ICMP, TTL, len);
    Some([header.as_bytes(), icmp.as_bytes(), quote].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeport_wire::Ipv4Packet;
    use homeport_wire::icmpv4::Icmpv4Packet;

    const NOW: Instant = Instant(1_000_000_000);
    const HOME: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
    const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);

    /// B-05: learnt, used, and forgotten after ten minutes.
    #[test]
    fn a_narrower_path_is_believed_for_ten_minutes() {
        let mut path = PathMtu::default();
        assert_eq!((path.limit(1500), path.poll_timeout()), (1500, None));
        assert!(path.learn(1280, 1500, NOW));
        assert_eq!((path.limit(1500), path.limit(1000)), (1280, 1000));
        path.handle_timeout(NOW + KEPT / 2);
        assert_eq!(path.limit(1500), 1280);
        assert_eq!(path.poll_timeout(), Some(NOW + KEPT));
        path.handle_timeout(NOW + KEPT);
        assert_eq!((path.limit(1500), path.poll_timeout()), (1500, None));
    }

    /// Row 29 of the threats: MTU 68, MTU 0, no news.
    // Shows attack-29.
    #[test]
    fn nobody_is_believed_to_have_a_path_below_the_floor_or_a_wider_one() {
        for told in [0, 68, 575] {
            let mut path = PathMtu::default();
            assert!(path.learn(told, 1500, NOW));
            assert_eq!(path.limit(1500), FLOOR);
            assert!(!path.learn(0, path.limit(1500), NOW), "a second time it is no news");
        }
        let mut path = PathMtu::default();
        for told in [1500, 9000, u32::MAX] {
            assert!(!path.learn(told, 1500, NOW));
        }
        assert_eq!(path, PathMtu::default());
    }

    #[test]
    fn the_sender_is_told_about_its_own_packet_with_the_right_number() {
        let header = Ipv4Header::new(HOME, Ipv4Addr::new(192, 0, 2, 2), IpProtocol::TCP, 64, 1480);
        let packet = [header.as_bytes(), &[7; 1460]].concat();
        for quoted in [28, 700, 1480] {
            let error = fragmentation_needed(&packet[..quoted], AGENT, 1260).unwrap();
            let outer = Ipv4Packet::new_checked(&error).unwrap();
            assert_eq!((outer.header().source(), outer.header().destination()), (AGENT, HOME));
            assert!(outer.bytes().len() <= MAX_ERROR_LEN);
            let icmp = Icmpv4Packet::new_checked(outer.payload()).unwrap();
            let kind = (icmp.header().message_type, icmp.header().code);
            assert_eq!(kind, (DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED));
            assert_eq!(icmp.header().rest, [0, 0, 0x04, 0xec]);
            assert_eq!(icmp.body(), &packet[..quoted.min(548)]);
        }
        assert_eq!(fragmentation_needed(&packet[..27], AGENT, 1260), None);
    }

    #[test]
    fn nobody_is_told_about_an_error_or_a_later_fragment() {
        let packet = |protocol, offset, kind: u8| {
            let mut header = Ipv4Header::unsummed(HOME, AGENT, protocol, 64, 1480);
            header.set_fragment(offset, false);
            [header.as_bytes(), &[kind; 1460]].concat()
        };
        let told = |packet: &[u8]| fragmentation_needed(packet, AGENT, 1260).is_some();
        assert!(told(&packet(IpProtocol::ICMP, 0, ECHO_REQUEST)));
        assert!(!told(&packet(IpProtocol::ICMP, 0, DESTINATION_UNREACHABLE)));
        assert!(!told(&packet(IpProtocol::UDP, 1480, 0)));
        assert!(!told(&[0; 60]));
    }
}
