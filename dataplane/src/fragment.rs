//! Cutting a packet that is too long for the next link into fragments (RFC 791
//! §3.2).
//!
//! **Not done:** packets with options; reassembly.

use homeport_wire::Ipv4Header;
use zerocopy::{FromBytes, IntoBytes};

use crate::packet::{Burst, Packet, PacketPool};
use crate::verdict::DropReason;

/// Cuts the IPv4 packet in `packet` into fragments of at most `mtu` bytes, in
/// order, in `fragments`. The buffer of `packet` goes back to the pool. A packet
/// that is a fragment already is cut further.
///
/// # Errors
/// The packet, unchanged, and [`DropReason::TooBig`] when it has options or would
/// be more than a burst of fragments, [`DropReason::NoBuffer`] when the buffers
/// do not suffice; then `fragments` is as it was.
pub fn fragment(
    packet: Packet,
    mtu: u16,
    pool: &mut PacketPool,
    fragments: &mut Burst,
) -> Result<(), (Packet, DropReason)> {
    let Ok((header, payload)) = Ipv4Header::read_from_prefix(packet.bytes()) else {
        return Err((packet, DropReason::TooBig));
    };
    let room = usize::from(mtu).saturating_sub(Ipv4Header::LEN) / 8 * 8;
    if header.header_len() != Ipv4Header::LEN || room == 0 {
        return Err((packet, DropReason::TooBig));
    }
    let count = payload.len().div_ceil(room);
    if count + fragments.len() > crate::packet::BURST {
        return Err((packet, DropReason::TooBig));
    }
    if pool.available() < count {
        return Err((packet, DropReason::NoBuffer));
    }
    for (index, piece) in payload.chunks(room).enumerate() {
        let Some(mut part) = pool.take() else { break };
        (part.port, part.tenant) = (packet.port, packet.tenant);
        let more = index + 1 < count || header.more_fragments();
        let offset = usize::from(header.fragment_offset()) + index * room;
        let mut header = header;
        // Both are within the packet's own length, which has 16 bits.
        header.set_fragment(offset as u16, more);
        header.set_total_len((Ipv4Header::LEN + piece.len()) as u16);
        header.fill_checksum();
        let written = part.set_bytes(piece) && part.prepend(header.as_bytes());
        debug_assert!(written, "a fragment is shorter than its packet");
        if let Err(part) = fragments.push(part) {
            pool.give(part);
        }
    }
    pool.give(packet);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeport_wire::{IpProtocol, Ipv4Packet};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn packet(pool: &mut PacketPool, offset: u16, more: bool, payload: &[u8]) -> Packet {
        let len = u16::try_from(20 + payload.len()).unwrap();
        let ends = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(10, 1, 0, 10));
        let mut header = Ipv4Header::unsummed(ends.0, ends.1, IpProtocol::UDP, 64, len);
        header.set_identification(77);
        header.set_fragment(offset, more);
        header.fill_checksum();
        let mut packet = pool.take().unwrap();
        assert!(packet.set_bytes(payload) && packet.prepend(header.as_bytes()));
        packet
    }

    proptest! {
        #[test]
        fn fragments_fit_and_together_are_the_packet(
            payload in proptest::collection::vec(any::<u8>(), 1..1900),
            mtu in 576u16..1500, offset in 0u16..100, more: bool,
        ) {
            let mut pool = PacketPool::new(40);
            let mut fragments = Burst::new();
            let whole = packet(&mut pool, offset * 8, more, &payload);
            fragment(whole, mtu, &mut pool, &mut fragments).unwrap();
            let mut joined = Vec::new();
            let last = fragments.len() - 1;
            for (index, part) in fragments.iter().enumerate() {
                prop_assert!(part.len() <= usize::from(mtu));
                let part = Ipv4Packet::new_checked(part.bytes()).unwrap();
                prop_assert_eq!(part.header().identification(), 77);
                let at = usize::from(part.header().fragment_offset());
                prop_assert_eq!(at, usize::from(offset * 8) + joined.len());
                prop_assert_eq!(part.header().more_fragments(), more || index < last);
                joined.extend_from_slice(part.payload());
            }
            prop_assert_eq!(joined, payload);
            for part in fragments.drain() {
                pool.give(part);
            }
            prop_assert_eq!(pool.available(), 40);
        }
    }

    #[test]
    fn what_cannot_be_cut_comes_back_whole() {
        let mut pool = PacketPool::new(4);
        let mut fragments = Burst::new();
        let whole = packet(&mut pool, 0, false, &[7; 1000]);
        // Three buffers are free; five fragments would be needed.
        let (whole, reason) = fragment(whole, 220, &mut pool, &mut fragments).unwrap_err();
        assert_eq!((reason, whole.len()), (DropReason::NoBuffer, 1020));
        let (mut whole, reason) = fragment(whole, 27, &mut pool, &mut fragments).unwrap_err();
        assert_eq!((reason, whole.len()), (DropReason::TooBig, 1020));
        // A header with an option (no-operation, four times).
        whole.bytes_mut()[0] = 0x46;
        let (_, reason) = fragment(whole, 576, &mut pool, &mut fragments).unwrap_err();
        assert_eq!(reason, DropReason::TooBig);
        assert!(fragments.is_empty());
        assert_eq!(pool.available(), 3);
    }
}
