//! IP in IP in userspace, between the TUN and a raw socket (RFC 2003).
//!
//! The host's packets for the tunnel are read from the TUN, get an outer header
//! and go out; packets from the other end of the tunnel are checked, lose their
//! outer header and are given to the kernel by the TUN.
//!
//! **Not done:** ICMP errors from inside the tunnel are not relayed to
//! applications (RFC 2003 §4); the tunnel's MTU leaves room for its header over
//! Ethernet, and a narrower path is not found out.

use std::io;
use std::net::Ipv4Addr;

use homeport_dataplane::port::twin::Tun;
use homeport_wire::{IpProtocol, Ipv4Header, Ipv4Packet};
use zerocopy::{FromBytes, IntoBytes};

use super::forwarding::TunnelEnds;
use super::sockets::TunnelSocket;

/// Packets carried each way at one go, before the loop looks at other things.
const BURST: usize = 64;

/// TTL of the outer header: the length of the tunnel does not depend on that of
/// the inner path (RFC 2003 §3.1).
const OUTER_TTL: u8 = 64;

/// The two bits of the type of service that are ECN's, and their values.
const ECN: u8 = 0b11;
const CONGESTION_EXPERIENCED: u8 = 0b11;

/// Defines the counters, their names and the text for people in one table.
macro_rules! counters {
    ($($field:ident = $text:literal,)*) => {
        /// What the tunnel did, in packets since the start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $(#[doc = $text] pub $field: u64,)* }

        impl Counters {
            /// Each counter: name, text, count.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($field), $text, self.$field),)*].into_iter()
            }
        }
    };
}

counters! {
    tunnel_sent = "Packets put into the tunnel.",
    tunnel_received = "Packets taken out of the tunnel.",
    tunnel_none = "Packets of applications dropped because the node is nowhere.",
    tunnel_foreign_source = "Packets of applications dropped because their source is not the home address.",
    tunnel_send_failed = "Packets that the kernel would not send.",
    tunnel_bad_outer = "Tunnelled packets dropped because they are not between the tunnel's ends.",
    tunnel_bad_inner = "Tunnelled packets dropped because what is inside is no packet for the home address.",
    tunnel_congestion = "Tunnelled packets dropped because they met congestion and could not be marked (RFC 6040 4.2).",
}

/// The tunnel.
pub struct Tunnel {
    tun: Tun,
    home: Ipv4Addr,
    socket: Option<TunnelSocket>,
    ends: Option<TunnelEnds>,
    identification: u16,
    counters: Counters,
    buffer: Box<[u8; Ipv4Header::LEN + u16::MAX as usize]>,
}

impl Tunnel {
    /// A tunnel that leads nowhere yet.
    pub fn new(tun: Tun, home: Ipv4Addr) -> Self {
        Tunnel {
            tun,
            home,
            socket: None,
            ends: None,
            identification: 0,
            counters: Counters::default(),
            buffer: Box::new([0; Ipv4Header::LEN + u16::MAX as usize]),
        }
    }

    /// Uses this socket; `None` while there is no interface.
    pub fn set_socket(&mut self, socket: Option<TunnelSocket>) {
        self.socket = socket;
    }

    /// Leads between these ends from now on.
    pub fn set_ends(&mut self, ends: Option<TunnelEnds>) {
        self.ends = ends;
    }

    /// The TUN, to be polled.
    pub const fn tun(&self) -> &Tun {
        &self.tun
    }

    /// The raw socket, to be polled.
    pub const fn socket(&self) -> Option<&TunnelSocket> {
        self.socket.as_ref()
    }

    /// What it did.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Puts waiting packets of the host into the tunnel.
    ///
    /// # Errors
    /// The TUN's, such as that somebody deleted it.
    pub fn send_waiting(&mut self) -> io::Result<()> {
        for _ in 0..BURST {
            let (room, space) = self.buffer.split_at_mut(Ipv4Header::LEN);
            let Some(len) = self.tun.read(space)? else { break };
            let (Some(ends), Some(socket)) = (self.ends, &self.socket) else {
                self.counters.tunnel_none += 1;
                continue;
            };
            let inner = space.get(..len).unwrap_or_default();
            let Some(outer) = encapsulate(inner, self.home, ends, self.identification) else {
                self.counters.tunnel_foreign_source += 1;
                continue;
            };
            self.identification = self.identification.wrapping_add(1);
            room.copy_from_slice(outer.as_bytes());
            let packet = self.buffer.get(..Ipv4Header::LEN + len).unwrap_or_default();
            match socket.send(packet, ends.remote) {
                Ok(()) => self.counters.tunnel_sent += 1,
                Err(_) => self.counters.tunnel_send_failed += 1,
            }
        }
        Ok(())
    }

    /// Takes waiting packets out of the tunnel.
    ///
    /// # Errors
    /// The raw socket's, such as that the interface is gone.
    pub fn receive_waiting(&mut self) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        for _ in 0..BURST {
            let Some(len) = socket.receive(&mut self.buffer[..])? else { break };
            let packet = self.buffer.get_mut(..len).unwrap_or_default();
            match decapsulate(packet, self.home, self.ends) {
                Ok(inner) => match self.tun.write(inner) {
                    Ok(()) => self.counters.tunnel_received += 1,
                    Err(_) => self.counters.tunnel_bad_inner += 1,
                },
                Err(Refused::Outer) => self.counters.tunnel_bad_outer += 1,
                Err(Refused::Inner) => self.counters.tunnel_bad_inner += 1,
                Err(Refused::Congestion) => self.counters.tunnel_congestion += 1,
            }
        }
        Ok(())
    }
}

/// The outer header for `inner`; `None` when it is no packet of the home address
/// (RFC 3024 §4.3.2 would have it refused at the other end).
fn encapsulate(
    inner: &[u8],
    home: Ipv4Addr,
    ends: TunnelEnds,
    identification: u16,
) -> Option<Ipv4Header> {
    let packet = Ipv4Packet::new_checked(inner).ok()?;
    if packet.header().source() != home {
        return None;
    }
    let len = u16::try_from(Ipv4Header::LEN + inner.len()).ok()?;
    let mut outer = Ipv4Header::new(ends.local, ends.remote, IpProtocol::IP_IN_IP, OUTER_TTL, len);
    // The type of service with ECN is copied (RFC 2003 §3.1, RFC 6040 §4.1), and
    // so is DF (RFC 2003 §3.1).
    outer.tos = packet.header().tos;
    outer.set_dont_fragment(packet.header().dont_fragment());
    outer.set_identification(identification);
    outer.fill_checksum();
    Some(outer)
}

/// Why a tunnelled packet was not taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Outer,
    Inner,
    Congestion,
}

/// The inner packet, if the outer one is from the other end of the tunnel
/// (RFC 5944 §4.2.1, RFC 2003 §3.2).
fn decapsulate(
    packet: &mut [u8],
    home: Ipv4Addr,
    ends: Option<TunnelEnds>,
) -> Result<&[u8], Refused> {
    let ends = ends.ok_or(Refused::Outer)?;
    let outer = Ipv4Packet::new_checked(packet).map_err(|_| Refused::Outer)?;
    let header = outer.header();
    let between = (header.source(), header.destination()) == (ends.remote, ends.local);
    if !between || header.protocol() != IpProtocol::IP_IN_IP || header.is_fragment() {
        return Err(Refused::Outer);
    }
    let congestion = header.tos & ECN == CONGESTION_EXPERIENCED;
    let start = header.header_len();
    let inner = Ipv4Packet::new_checked(outer.payload()).map_err(|_| Refused::Inner)?;
    if inner.header().destination() != home {
        return Err(Refused::Inner);
    }
    let end = start + inner.bytes().len();
    let inner_ecn = inner.header().tos & ECN;
    if congestion && inner_ecn == 0 {
        return Err(Refused::Congestion);
    }
    let bytes = packet.get_mut(start..end).ok_or(Refused::Inner)?;
    if congestion && inner_ecn != CONGESTION_EXPERIENCED {
        // A mark of congestion on the way must not be lost (RFC 6040 §4.2).
        let (inner, _) = Ipv4Header::mut_from_prefix(bytes).map_err(|_| Refused::Inner)?;
        let version_and_length = (inner.version() << 4 | (inner.header_len() / 4) as u8) as u16;
        let old = version_and_length << 8 | u16::from(inner.tos);
        inner.tos |= CONGESTION_EXPERIENCED;
        let new = version_and_length << 8 | u16::from(inner.tos);
        inner.set_checksum(homeport_wire::checksum::update(inner.checksum(), old, new));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeport_wire::checksum;
    use proptest::prelude::*;

    const HOME: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
    const CORRESPONDENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const ENDS: TunnelEnds =
        TunnelEnds { local: Ipv4Addr::new(10, 2, 3, 100), remote: Ipv4Addr::new(10, 0, 1, 2) };
    const BACK: TunnelEnds = TunnelEnds { local: ENDS.remote, remote: ENDS.local };

    fn packet(source: Ipv4Addr, destination: Ipv4Addr, tos: u8) -> Vec<u8> {
        let mut header = Ipv4Header::new(source, destination, IpProtocol::UDP, 9, 24);
        header.tos = tos;
        header.set_dont_fragment(true);
        header.fill_checksum();
        [header.as_bytes(), &[1, 2, 3, 4]].concat()
    }

    /// `inner` as the home agent would send it, by the same code.
    fn tunnelled(inner: &[u8], ends: TunnelEnds) -> Vec<u8> {
        let source = Ipv4Packet::new_checked(inner).unwrap().header().source();
        let outer = encapsulate(inner, source, ends, 7).unwrap();
        [outer.as_bytes(), inner].concat()
    }

    #[test]
    fn the_outer_header_has_the_ends_the_type_of_service_and_df() {
        let inner = packet(HOME, CORRESPONDENT, 0xb9);
        let outer = encapsulate(&inner, HOME, ENDS, 7).unwrap();
        assert_eq!((outer.source(), outer.destination()), (ENDS.local, ENDS.remote));
        assert_eq!((outer.protocol(), outer.ttl, outer.tos), (IpProtocol::IP_IN_IP, 64, 0xb9));
        assert_eq!((outer.total_len(), outer.identification()), (44, 7));
        assert!(outer.dont_fragment());
        assert_eq!(checksum::checksum(outer.as_bytes()), 0);
    }

    #[test]
    fn only_packets_of_the_home_address_go_into_the_tunnel() {
        let inner = packet(Ipv4Addr::new(10, 2, 3, 100), CORRESPONDENT, 0);
        assert_eq!(encapsulate(&inner, HOME, ENDS, 0), None);
        assert_eq!(encapsulate(&[0x60; 40], HOME, ENDS, 0), None);
    }

    /// B-04: source checks on every decapsulation.
    #[test]
    fn only_packets_of_the_other_end_for_the_home_address_come_out() {
        let inner = packet(CORRESPONDENT, HOME, 0);
        let mut right = tunnelled(&inner, BACK);
        assert_eq!(decapsulate(&mut right, HOME, Some(ENDS)), Ok(&inner[..]));
        assert_eq!(decapsulate(&mut right, HOME, None), Err(Refused::Outer));
        let forged = TunnelEnds { local: Ipv4Addr::new(203, 0, 113, 1), ..BACK };
        let mut forged = tunnelled(&inner, forged);
        assert_eq!(decapsulate(&mut forged, HOME, Some(ENDS)), Err(Refused::Outer));
        let mut stray = tunnelled(&packet(CORRESPONDENT, ENDS.local, 0), BACK);
        assert_eq!(decapsulate(&mut stray, HOME, Some(ENDS)), Err(Refused::Inner));
        for len in 0..right.len() {
            let mut cut = right[..len].to_vec();
            assert!(decapsulate(&mut cut, HOME, Some(ENDS)).is_err(), "{len}");
        }
    }

    #[test]
    fn congestion_on_the_way_is_marked_inside_or_the_packet_is_dropped() {
        let congested = |inner: &[u8]| {
            let mut packet = tunnelled(inner, BACK);
            let (outer, _) = Ipv4Header::mut_from_prefix(&mut packet).unwrap();
            outer.tos |= CONGESTION_EXPERIENCED;
            outer.fill_checksum();
            packet
        };
        let mut capable = congested(&packet(CORRESPONDENT, HOME, 0b10));
        let out = decapsulate(&mut capable, HOME, Some(ENDS)).unwrap();
        let header = *Ipv4Packet::new_checked(out).expect("a right checksum").header();
        assert_eq!(header.tos, CONGESTION_EXPERIENCED);
        let mut incapable = congested(&packet(CORRESPONDENT, HOME, 0));
        assert_eq!(decapsulate(&mut incapable, HOME, Some(ENDS)), Err(Refused::Congestion));
    }

    proptest! {
        #[test]
        fn noise_in_a_tunnelled_packet_never_panics_and_nothing_strange_comes_out(
            at in 0usize..50,
            noise in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut packet = tunnelled(&packet(CORRESPONDENT, HOME, 0), BACK);
            for (to, from) in packet.iter_mut().skip(at).zip(&noise) {
                *to = *from;
            }
            if let Ok(inner) = decapsulate(&mut packet, HOME, Some(ENDS)) {
                let inner = Ipv4Packet::new_checked(inner).unwrap();
                prop_assert_eq!(inner.header().destination(), HOME);
            }
            let _ = encapsulate(&noise, HOME, ENDS, 0);
        }
    }
}
