//! Into a tunnel, and the header that minimal encapsulation leaves when a packet comes out.

use homeport_wire::{IpProtocol, MOBILE_IP_PORT, PortId};

use super::head::{self, Head};
use super::lane::{LINK, Lane, MINIMAL};
use super::{Act, TO_ENDS, Way};
use crate::packet::Packet;
use crate::table::binding::{BindingEntry, Encapsulation, EntryFlags, TunnelEnd};

/// A packet that is about to enter a tunnel.
pub(super) struct Entering<'i, 'a, 't> {
    pub(super) act: &'i mut Act<'a, 't>,
    pub(super) packet: &'i mut Packet,
    pub(super) lane: &'i Lane,
    pub(super) entry: &'i BindingEntry,
    pub(super) end: &'i TunnelEnd,
}

impl Entering<'_, '_, '_> {
    /// Puts it into its tunnel. The port that it leaves by; `None`, and nothing changed:
    /// it goes the general way.
    #[inline(always)]
    pub(super) fn enter(self) -> Option<PortId> {
        match self.end.encapsulation() {
            Encapsulation::IpInIp => self.put::<0, 46>(IpProtocol::IP_IN_IP, |_| []),
            Encapsulation::Gre { key: None } => {
                self.put::<4, 50>(IpProtocol::GRE, |_| [0, 0, 0x08, 0x00])
            }
            Encapsulation::Gre { key: Some(key) } => self.put::<8, 54>(IpProtocol::GRE, |_| {
                let [a, b, c, d] = key.to_be_bytes();
                [0x20, 0, 0x08, 0x00, a, b, c, d]
            }),
            // Half-bound: the general path knows what to say.
            Encapsulation::Udp { peer_port: 0 } | Encapsulation::PlainUdp { peer_port: 0 } => None,
            Encapsulation::Udp { peer_port } => self.put::<12, 58>(IpProtocol::UDP, |len| {
                let [a, b, c, d, e, f, g, h] = udp_header(peer_port, len);
                [a, b, c, d, e, f, g, h, 4, 4, 0, 0]
            }),
            Encapsulation::PlainUdp { peer_port } => {
                self.put::<8, 54>(IpProtocol::UDP, |len| udp_header(peer_port, len))
            }
            Encapsulation::Minimal => self.put_minimal(),
        }
    }

    /// The length of the outer packet, if the tunnel takes one of this length.
    #[inline(always)]
    fn outer_len(&mut self, overhead: usize) -> Option<u16> {
        let Entering { act, lane, end, .. } = self;
        // A header has some bytes.
        let outer_len = u32::from(lane.head.total_len()) + overhead as u32;
        if outer_len > u32::from(act.way.mtu) {
            return None;
        }
        // No longer than an MTU.
        let outer_len = outer_len as u16;
        let fits = act.tunnel_takes(lane.tenant, end.care_of_address(), outer_len);
        fits.then_some(outer_len)
    }

    /// Puts link header, outer header and the `SHIM` bytes of what lies between in front
    /// of the packet; the shim is made from the outer payload's length. `WINDOW` is what
    /// is written: all that and the packet's own header up to its addresses.
    #[inline(always)]
    fn put<const SHIM: usize, const WINDOW: usize>(
        mut self,
        protocol: IpProtocol,
        shim: impl FnOnce(u16) -> [u8; SHIM],
    ) -> Option<PortId> {
        const { assert!(WINDOW == LINK + head::LEN + SHIM + TO_ENDS) };
        let overhead = head::LEN + SHIM;
        let outer_len = self.outer_len(overhead)?;
        let Entering { act, packet, lane, entry, end } = self;
        let len = LINK + usize::from(outer_len);
        // What is added to the frame is in front of it: behind it, it ends as before.
        let window = packet.reframe::<WINDOW>(0, overhead, len)?;
        let (link, rest) = window.split_first_chunk_mut()?;
        act.way.header.put(link);
        let (start, rest) = rest.split_first_chunk_mut()?;
        let (third, rest) = rest.split_first_chunk_mut()?;
        let set_df = entry.flags.contains(EntryFlags::SET_DF);
        let identification = &mut act.forwarder.identification;
        let carrying = (protocol.0, outer_len);
        let outer = head::outer(lane.head, end.sum(), carrying, set_df, identification);
        (*start, *third) = (outer.0.to_le_bytes(), outer.1.to_le_bytes());
        let (source, rest) = rest.split_first_chunk_mut()?;
        *source = entry.home_agent.octets();
        let (destination, rest) = rest.split_first_chunk_mut()?;
        *destination = end.care_of_address().octets();
        let (between, inner) = rest.split_first_chunk_mut::<SHIM>()?;
        *between = shim(outer_len - head::LEN as u16);
        *inner.last_chunk_mut()? = lane.head.hopped();
        act.counts.encapsulated += 1;
        Some(act.way.port)
    }

    /// Puts a minimal forwarding header behind the packet's own, which becomes the outer
    /// one (RFC 2004 §3).
    #[inline(always)]
    fn put_minimal(mut self) -> Option<PortId> {
        const WINDOW: usize = LINK + head::LEN + MINIMAL;
        let outer_len = self.outer_len(MINIMAL)?;
        let Entering { act, packet, lane, entry, end } = self;
        let (source, destination) = (entry.home_agent.to_bits(), end.care_of_address().to_bits());
        let outer = lane.head.carrying(IpProtocol::MINIMAL.0, outer_len);
        let outer = outer.between(source, destination).rewritten();
        let len = LINK + usize::from(outer_len);
        let window = packet.reframe::<WINDOW>(0, MINIMAL, len)?;
        let (link, rest) = window.split_first_chunk_mut()?;
        act.way.header.put(link);
        let (ip, shim) = rest.split_first_chunk_mut()?;
        *ip = outer;
        // The original source is not the tunnel's end, as was asked.
        *shim.first_chunk_mut()? = head::forwarding(lane.head);
        act.counts.encapsulated += 1;
        Some(act.way.port)
    }
}

/// Makes the outer header of minimal encapsulation the packet's own again, which is to
/// be `head` (RFC 2004 §3), and sends the packet this way for one of its TTL.
#[inline(always)]
pub(super) fn restore(packet: &mut Packet, head: Head, way: &Way) -> Option<PortId> {
    const WINDOW: usize = LINK + head::LEN;
    let len = LINK + usize::from(head.total_len());
    let window = packet.reframe::<WINDOW>(MINIMAL, 0, len)?;
    let (link, ip) = window.split_first_chunk_mut()?;
    way.header.put(link);
    *ip.first_chunk_mut()? = head.rewritten();
    Some(way.port)
}

/// A UDP header for a datagram of this length, without a checksum: see
/// [`encap`](crate::encap).
#[inline(always)]
fn udp_header(peer_port: u16, len: u16) -> [u8; 8] {
    let [a, b] = MOBILE_IP_PORT.to_be_bytes();
    let [c, d] = peer_port.to_be_bytes();
    let [e, f] = len.to_be_bytes();
    [a, b, c, d, e, f, 0, 0]
}
