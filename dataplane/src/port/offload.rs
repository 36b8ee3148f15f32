//! What a network card would have done: unfinished checksums, and super-frames
//! that are cut into segments.
//!
//! A Linux sender on the same machine (veth, a bridge) leaves the checksum of TCP
//! and UDP to a card that never comes, and hands over up to 64 KiB of TCP or UDP
//! as one frame. The kernel says so in a `virtio_net_hdr` in front of the frame.
//! These are pure functions over bytes; the AF_PACKET port applies them.
//!
//! **Not done:** IPv6 super-frames, and UDP fragmentation offload, which Linux no
//! longer makes.

use homeport_wire::checksum::{self, Sum};
use homeport_wire::tcp::TcpHeader;
use homeport_wire::{EtherType, EthernetHeader, IpProtocol, Ipv4Header, UdpHeader};
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What the kernel says of a frame: `struct virtio_net_hdr` of
/// `linux/virtio_net.h`, in the machine's byte order.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VnetHeader {
    flags: u8,
    gso_type: u8,
    /// Bytes of all headers: a hint, and not used.
    header_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

impl VnetHeader {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();

    const NEEDS_CHECKSUM: u8 = 1;
    const GSO_NONE: u8 = 0;
    const GSO_TCP_V4: u8 = 1;
    const GSO_UDP_L4: u8 = 5;
    /// Says that CWR may be set; added to one of the types.
    const GSO_ECN: u8 = 0x80;

    /// Where the unfinished checksum's sum starts in the frame, and where its
    /// field is from there; `None` when the checksum is finished.
    pub fn unfinished_checksum(&self) -> Option<(usize, usize)> {
        let needed = self.flags & Self::NEEDS_CHECKSUM != 0;
        needed.then_some((self.csum_start.into(), self.csum_offset.into()))
    }

    /// How the frame is to be cut; `None` when it is an ordinary frame.
    ///
    /// # Errors
    /// [`OffloadError::Unsupported`] for a kind of super-frame that is not cut.
    pub fn segmentation(&self) -> Result<Option<(SegmentKind, u16)>, OffloadError> {
        match self.gso_type & !Self::GSO_ECN {
            Self::GSO_NONE => Ok(None),
            Self::GSO_TCP_V4 => Ok(Some((SegmentKind::Tcp, self.gso_size))),
            Self::GSO_UDP_L4 => Ok(Some((SegmentKind::Udp, self.gso_size))),
            _ => Err(OffloadError::Unsupported),
        }
    }
}

/// What a super-frame is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// One long TCP segment.
    Tcp,
    /// UDP datagrams of one flow behind one header, all of one length but the
    /// last.
    Udp,
}

/// Why a super-frame cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// Its headers are not what it claims to be.
    #[error("the headers of the super-frame are malformed")]
    Malformed,
    /// Of a kind that is not cut.
    #[error("super-frames of this kind are not cut")]
    Unsupported,
    /// Its segments would be longer than a packet buffer.
    #[error("the segments would be longer than a packet buffer")]
    TooLong,
}

/// Finishes a checksum over TCP or UDP: `start` is where the sum starts in the
/// frame, `offset` where the field is from there. The field holds the folded sum
/// of the pseudo-header, as the kernel leaves it.
///
/// `false`, and nothing changed, when the field is not inside the frame.
#[must_use]
pub fn finish_checksum(frame: &mut [u8], start: usize, offset: usize) -> bool {
    let Some(summed) = frame.get_mut(start..) else {
        return false;
    };
    let sum = checksum::checksum(summed);
    let Some(Ok((field, _))) = summed.get_mut(offset..).map(U16::mut_from_prefix) else {
        return false;
    };
    // All ones and zero are the same sum, but zero says "none" in UDP (RFC 768).
    field.set(if sum == 0 { 0xffff } else { sum });
    true
}

/// A super-frame that is being cut: positions only, the bytes are the caller's.
#[derive(Clone, Copy, Debug)]
pub struct SuperFrame {
    kind: SegmentKind,
    /// Payload of each segment but the last, in bytes.
    size: usize,
    /// Where the TCP or UDP header starts.
    transport: usize,
    /// Where the payload starts.
    payload: usize,
    /// Where the payload ends.
    end: usize,
    /// How many segments were cut.
    cut: u16,
}

impl SuperFrame {
    /// The super-frame in `frame`, Ethernet header first, to be cut into segments
    /// with `size` bytes of payload, none longer than `longest` bytes in all.
    ///
    /// # Errors
    /// The headers are malformed, of another protocol or of a fragment, or the
    /// segments would be longer than `longest`.
    pub fn new(
        frame: &[u8],
        kind: SegmentKind,
        size: u16,
        longest: usize,
    ) -> Result<SuperFrame, OffloadError> {
        use OffloadError::{Malformed, TooLong, Unsupported};
        let (ethernet, packet) = EthernetHeader::ref_from_prefix(frame).map_err(|_| Malformed)?;
        if ethernet.ether_type() != EtherType::IPV4 {
            return Err(Unsupported);
        }
        let (ip, _) = Ipv4Header::ref_from_prefix(packet).map_err(|_| Malformed)?;
        let protocol = match kind {
            SegmentKind::Tcp => IpProtocol::TCP,
            SegmentKind::Udp => IpProtocol::UDP,
        };
        if ip.is_fragment() || ip.protocol() != protocol {
            return Err(Unsupported);
        }
        let total_len = usize::from(ip.total_len());
        if ip.version() != 4 || ip.header_len() < Ipv4Header::LEN || total_len > packet.len() {
            return Err(Malformed);
        }
        let transport = EthernetHeader::LEN + ip.header_len();
        let end = EthernetHeader::LEN + total_len;
        let segment = frame.get(transport..end).ok_or(Malformed)?;
        let header_len = match kind {
            SegmentKind::Tcp => {
                let (tcp, _) = TcpHeader::ref_from_prefix(segment).map_err(|_| Malformed)?;
                Some(tcp.header_len()).filter(|len| *len >= TcpHeader::LEN).ok_or(Malformed)?
            }
            SegmentKind::Udp => UdpHeader::LEN,
        };
        if header_len >= segment.len() || size == 0 {
            return Err(Malformed);
        }
        let (size, payload) = (usize::from(size), transport + header_len);
        if payload + size.min(end - payload) > longest {
            return Err(TooLong);
        }
        Ok(SuperFrame { kind, size, transport, payload, end, cut: 0 })
    }

    /// How many segments it makes.
    pub fn segments(&self) -> usize {
        (self.end - self.payload).div_ceil(self.size)
    }

    /// Whether all segments were cut.
    pub fn is_done(&self) -> bool {
        self.next_payload() >= self.end
    }

    /// Cuts the next segment off: writes it, Ethernet header first, to `out`,
    /// which must have the `longest` bytes that were agreed on.
    ///
    /// Returns its length; zero when all were cut or `frame` or `out` is shorter
    /// than agreed, and then nothing more comes.
    pub fn cut(&mut self, frame: &[u8], out: &mut [u8]) -> usize {
        let written = self.try_cut(frame, out);
        match written {
            Some(_) => self.cut += 1,
            None => self.end = self.payload,
        }
        written.unwrap_or(0)
    }

    fn next_payload(&self) -> usize {
        self.payload + usize::from(self.cut) * self.size
    }

    fn try_cut(&self, frame: &[u8], out: &mut [u8]) -> Option<usize> {
        let start = self.next_payload();
        let end = (start + self.size).min(self.end);
        let data = frame.get(start..end).filter(|data| !data.is_empty())?;
        let len = self.payload + data.len();
        let out = out.get_mut(..len)?;
        let (head, room) = out.split_at_mut_checked(self.payload)?;
        head.copy_from_slice(frame.get(..self.payload)?);
        room.copy_from_slice(data);
        let (network, segment) = out.split_at_mut_checked(self.transport)?;
        let network = network.get_mut(EthernetHeader::LEN..)?;
        let (source, destination) = self.mend_ipv4(network, segment.len())?;
        match self.kind {
            SegmentKind::Tcp => {
                let sum = self.mend_tcp(segment, end == self.end)?.add_pseudo_header(
                    source,
                    destination,
                    IpProtocol::TCP.0,
                    u16::try_from(segment.len()).ok()?,
                );
                let (tcp, _) = TcpHeader::mut_from_prefix(segment).ok()?;
                tcp.checksum.set(sum.checksum());
            }
            SegmentKind::Udp => {
                let (old, payload) = UdpHeader::mut_from_prefix(segment).ok()?;
                let (from, to) = (old.source_port(), old.destination_port());
                *old = UdpHeader::new((source, from), (destination, to), payload)?;
            }
        }
        Some(len)
    }

    /// Length, identification and checksum; options are copied as they are. Each
    /// segment is a packet of its own, so each has its own identification, counted
    /// up as Linux does (RFC 6864 §4).
    fn mend_ipv4(
        &self,
        network: &mut [u8],
        segment_len: usize,
    ) -> Option<(std::net::Ipv4Addr, std::net::Ipv4Addr)> {
        let total_len = u16::try_from(network.len() + segment_len).ok()?;
        let (ip, _) = Ipv4Header::mut_from_prefix(network).ok()?;
        ip.set_total_len(total_len);
        ip.set_identification(ip.identification().wrapping_add(self.cut));
        ip.set_checksum(0);
        let ends = (ip.source(), ip.destination());
        let sum = checksum::checksum(network);
        let (ip, _) = Ipv4Header::mut_from_prefix(network).ok()?;
        ip.set_checksum(sum);
        Some(ends)
    }

    /// Sequence number and flags; the checksum field is left zero, and the sum of
    /// the segment is returned. FIN and PSH belong to the last byte (RFC 9293
    /// §3.5.1, §3.9.1), CWR to the first segment only (RFC 3168 §6.1.2).
    fn mend_tcp(&self, segment: &mut [u8], last: bool) -> Option<Sum> {
        let (tcp, _) = TcpHeader::mut_from_prefix(segment).ok()?;
        let offset = u32::try_from(self.next_payload() - self.payload).ok()?;
        tcp.sequence.set(tcp.sequence.get().wrapping_add(offset));
        if !last {
            tcp.flags &= !(TcpHeader::FIN | TcpHeader::PSH);
        }
        if self.cut > 0 {
            tcp.flags &= !TcpHeader::CWR;
        }
        tcp.checksum.set(0);
        Some(Sum::new().add_bytes(segment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeport_wire::{Ipv4Packet, MacAddress, UdpPacket};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const LONGEST: usize = 2048;

    /// A frame of `protocol` with IPv4 options, checksums not filled in.
    fn frame(protocol: IpProtocol, options: usize, id: u16, segment: &[u8]) -> Vec<u8> {
        let ethernet = EthernetHeader::new(
            MacAddress([2, 0, 0, 0, 0, 2]),
            MacAddress([2, 0, 0, 0, 0, 1]),
            EtherType::IPV4,
        );
        let total_len = u16::try_from(20 + options * 4 + segment.len()).unwrap();
        let mut ip = Ipv4Header::new(A, B, protocol, 64, total_len);
        ip.set_identification(id);
        ip.set_dont_fragment(true);
        let mut bytes = ethernet.as_bytes().to_vec();
        bytes.extend_from_slice(ip.as_bytes());
        bytes[14] = 0x45 + options as u8;
        bytes.extend(std::iter::repeat_n([1, 1, 1, 0], options).flatten());
        bytes.extend_from_slice(segment);
        bytes
    }

    fn tcp(options: usize, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes[0..4].copy_from_slice(&[0x04, 0x01, 0x00, 0x50]);
        bytes[4..8].copy_from_slice(&sequence.to_be_bytes());
        bytes[12] = (5 + options as u8) << 4;
        bytes[13] = flags;
        bytes.extend(std::iter::repeat_n([1, 1, 8, 10], options).flatten());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn cut_all(frame: &[u8], kind: SegmentKind, size: u16) -> Vec<Vec<u8>> {
        let mut whole = SuperFrame::new(frame, kind, size, LONGEST).unwrap();
        let mut segments = Vec::new();
        while !whole.is_done() {
            let mut out = vec![0xa5; LONGEST];
            let len = whole.cut(frame, &mut out);
            assert!(len > 0 && out[len..].iter().all(|b| *b == 0xa5));
            out.truncate(len);
            segments.push(out);
        }
        assert_eq!(whole.cut(frame, &mut [0; LONGEST]), 0);
        assert_eq!(segments.len(), whole_segments(frame, kind, size));
        segments
    }

    fn whole_segments(frame: &[u8], kind: SegmentKind, size: u16) -> usize {
        SuperFrame::new(frame, kind, size, LONGEST).unwrap().segments()
    }

    proptest! {
        #[test]
        fn tcp_segments_add_up_to_the_super_frame(
            payload in proptest::collection::vec(any::<u8>(), 1..20_000),
            size in 1u16..1900,
            sequence in any::<u32>(),
            id in any::<u16>(),
            flags in any::<u8>(),
            ip_options in 0usize..=3,
            tcp_options in 0usize..=5,
        ) {
            let size = size.max(200);
            let whole = frame(IpProtocol::TCP, ip_options, id, &tcp(tcp_options, sequence, flags, &payload));
            let segments = cut_all(&whole, SegmentKind::Tcp, size);
            let last = segments.len() - 1;
            let mut seen = Vec::new();
            for (number, segment) in segments.iter().enumerate() {
                prop_assert_eq!(&segment[..14], &whole[..14]);
                // Checks the length and the header checksum.
                let ip = Ipv4Packet::new_checked(&segment[14..]).unwrap();
                prop_assert_eq!(ip.bytes().len(), segment.len() - 14);
                prop_assert_eq!(ip.header().identification(), id.wrapping_add(number as u16));
                prop_assert!(ip.header().dont_fragment());
                let sum = Sum::new()
                    .add_pseudo_header(A, B, 6, ip.payload().len() as u16)
                    .add_bytes(ip.payload());
                prop_assert_eq!(sum.checksum(), 0);
                let (tcp, _) = TcpHeader::ref_from_prefix(ip.payload()).unwrap();
                prop_assert_eq!(tcp.sequence.get(), sequence.wrapping_add(seen.len() as u32));
                let mut expected = flags;
                if number < last { expected &= !(TcpHeader::FIN | TcpHeader::PSH); }
                if number > 0 { expected &= !TcpHeader::CWR; }
                prop_assert_eq!(tcp.flags, expected);
                let data = &ip.payload()[20 + tcp_options * 4..];
                prop_assert!(data.len() == usize::from(size) || number == last);
                seen.extend_from_slice(data);
            }
            prop_assert_eq!(seen, payload);
        }

        #[test]
        fn udp_segments_are_whole_datagrams(
            payload in proptest::collection::vec(any::<u8>(), 1..20_000),
            size in 200u16..1900,
            id in any::<u16>(),
        ) {
            let mut datagram = UdpHeader::new((A, 1025), (B, 434), &payload).unwrap().as_bytes().to_vec();
            datagram.extend_from_slice(&payload);
            let whole = frame(IpProtocol::UDP, 0, id, &datagram);
            let segments = cut_all(&whole, SegmentKind::Udp, size);
            let mut seen = Vec::new();
            for (number, segment) in segments.iter().enumerate() {
                let ip = Ipv4Packet::new_checked(&segment[14..]).unwrap();
                prop_assert_eq!(ip.header().identification(), id.wrapping_add(number as u16));
                let udp = UdpPacket::new_checked(ip.payload(), A, B).unwrap();
                prop_assert_ne!(udp.header().checksum(), 0);
                prop_assert_eq!((udp.header().source_port(), udp.header().destination_port()), (1025, 434));
                seen.extend_from_slice(udp.payload());
            }
            prop_assert_eq!(seen, payload);
        }

        #[test]
        fn noise_never_panics(
            noise in proptest::collection::vec(any::<u8>(), 0..200),
            head in 0u8..0xff,
            udp in any::<bool>(),
            size in any::<u16>(),
            start in any::<u16>(),
            offset in any::<u16>(),
        ) {
            let kind = if udp { SegmentKind::Udp } else { SegmentKind::Tcp };
            let protocol = if udp { 17 } else { 6 };
            let mut plausible = noise.clone();
            for (at, byte) in [(12, 8), (13, 0), (14, 0x40 | head & 0x0f), (16, 0), (20, 0), (21, 0), (23, protocol)] {
                if let Some(to) = plausible.get_mut(at) { *to = byte; }
            }
            for mut bytes in [noise, plausible] {
                if let Ok(mut whole) = SuperFrame::new(&bytes, kind, size, LONGEST) {
                    let mut out = [0; LONGEST];
                    while !whole.is_done() { whole.cut(&bytes, &mut out); }
                    whole.cut(&bytes[..bytes.len() / 2], &mut out[..10]);
                }
                let _ = finish_checksum(&mut bytes, start.into(), offset.into());
                let _ = finish_checksum(&mut bytes, usize::from(start % 200), usize::from(offset % 40));
            }
        }

        #[test]
        fn a_finished_checksum_verifies(payload in proptest::collection::vec(any::<u8>(), 0..1400)) {
            let mut datagram = UdpHeader::new((A, 1025), (B, 434), &payload).unwrap().as_bytes().to_vec();
            datagram.extend_from_slice(&payload);
            let right = u16::from_be_bytes([datagram[6], datagram[7]]);
            // As the kernel leaves it: the folded sum of the pseudo-header.
            let pseudo = Sum::new().add_pseudo_header(A, B, 17, datagram.len() as u16).fold();
            datagram[6..8].copy_from_slice(&pseudo.to_be_bytes());
            let mut bytes = frame(IpProtocol::UDP, 0, 1, &datagram);
            prop_assert!(finish_checksum(&mut bytes, 34, 6));
            prop_assert_eq!(u16::from_be_bytes([bytes[40], bytes[41]]), right);
            UdpPacket::new_checked(&bytes[34..], A, B).unwrap();
        }
    }

    #[test]
    fn a_sum_of_zero_is_sent_as_all_ones() {
        let mut bytes = [0xff, 0xff, 0x00, 0x00];
        assert!(finish_checksum(&mut bytes, 0, 2));
        assert_eq!(bytes, [0xff, 0xff, 0xff, 0xff]);
        assert!(!finish_checksum(&mut bytes, 0, 3));
        assert!(!finish_checksum(&mut bytes, 5, 0));
    }

    #[test]
    fn what_cannot_be_cut_is_refused_by_name() {
        use OffloadError::{Malformed, TooLong, Unsupported};
        let good = frame(IpProtocol::TCP, 0, 1, &tcp(0, 7, 0x10, &[1; 3000]));
        let refused = |bytes: &[u8], kind, size| SuperFrame::new(bytes, kind, size, LONGEST).err();
        assert_eq!(refused(&good, SegmentKind::Tcp, 1460), None);
        assert_eq!(refused(&good, SegmentKind::Udp, 1460), Some(Unsupported));
        assert_eq!(refused(&good, SegmentKind::Tcp, 0), Some(Malformed));
        assert_eq!(refused(&good, SegmentKind::Tcp, 1995), Some(TooLong));
        assert_eq!(refused(&good, SegmentKind::Tcp, 1994), None);
        for cut in [10, 30, 50, 2000] {
            assert_eq!(refused(&good[..cut], SegmentKind::Tcp, 1460), Some(Malformed), "{cut}");
        }
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            refused(&bytes, SegmentKind::Tcp, 1460)
        };
        assert_eq!(changed(12, 0x86), Some(Unsupported));
        assert_eq!(changed(20, 0x20), Some(Unsupported));
        assert_eq!(changed(14, 0x44), Some(Malformed));
        assert_eq!(changed(14, 0x65), Some(Malformed));
        assert_eq!(changed(46, 0x40), Some(Malformed));
    }

    #[test]
    fn kernel_header_says_what_is_left_to_do() {
        let plain = VnetHeader::default();
        assert_eq!((plain.unfinished_checksum(), plain.segmentation()), (None, Ok(None)));
        let read = |bytes: [u8; 2]| {
            let mut raw = [0; VnetHeader::LEN];
            raw[..2].copy_from_slice(&bytes);
            raw[4..6].copy_from_slice(&1460u16.to_ne_bytes());
            raw[6..8].copy_from_slice(&34u16.to_ne_bytes());
            raw[8..10].copy_from_slice(&16u16.to_ne_bytes());
            VnetHeader::read_from_bytes(&raw).unwrap()
        };
        assert_eq!(read([1, 0]).unfinished_checksum(), Some((34, 16)));
        assert_eq!(read([1, 1]).segmentation(), Ok(Some((SegmentKind::Tcp, 1460))));
        assert_eq!(read([1, 0x81]).segmentation(), Ok(Some((SegmentKind::Tcp, 1460))));
        assert_eq!(read([1, 5]).segmentation(), Ok(Some((SegmentKind::Udp, 1460))));
        assert_eq!(read([1, 4]).segmentation(), Err(OffloadError::Unsupported));
    }
}
