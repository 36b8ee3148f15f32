//! Unfinished checksums where nobody says which they are.
//!
//! A Linux sender on the same machine (veth, a bridge) leaves the checksum of TCP and
//! UDP to a card that never comes. AF_PACKET says so of each frame; XDP does not. But
//! the sender leaves a mark: the field holds the sum of the pseudo-header, which a
//! finished checksum holds by chance once in 65,536 packets. So only where the field
//! is that sum the packet is looked at whole: when its checksum is right it is
//! finished, and else it is finished here.
//!
//! A packet that was damaged on its way *and* bears the mark by chance would be made
//! a good one; the checksum itself misses as many.
//!
//! **Not done:** checksums inside minimal encapsulation and inside UDP tunnels, which
//! the kernel does not make.

use std::net::Ipv4Addr;

use homeport_wire::checksum::{Sum, checksum};
use homeport_wire::{EtherType, EthernetHeader, IpProtocol, Ipv4Header};
use zerocopy::FromBytes;

use crate::port::offload::finish_checksum;

/// IP in IP in IP, and so on: as deep as it is looked into.
const MAX_DEPTH: usize = 3;

/// Finishes the checksum of the TCP or UDP packet in a frame, also of one inside IP
/// in IP or GRE, if its sender left that to the card.
///
/// Returns whether it did.
pub(super) fn finish(frame: &mut [u8]) -> bool {
    let Some((start, offset)) = find(frame) else { return false };
    finish_checksum(frame, start, offset)
}

/// Where the unfinished sum starts in the frame, and where its field is from there.
fn find(frame: &[u8]) -> Option<(usize, usize)> {
    let (ethernet, _) = EthernetHeader::ref_from_prefix(frame).ok()?;
    if ethernet.ether_type() != EtherType::IPV4 {
        return None;
    }
    let mut start = EthernetHeader::LEN;
    for _ in 0..MAX_DEPTH {
        let (ip, _) = Ipv4Header::ref_from_prefix(frame.get(start..)?).ok()?;
        let header_len = ip.header_len();
        if ip.version() != 4 || header_len < Ipv4Header::LEN || ip.is_fragment() {
            return None;
        }
        let end = start.checked_add(usize::from(ip.total_len()))?;
        start += header_len;
        let payload = frame.get(start..end)?;
        let offset = match ip.protocol() {
            IpProtocol::TCP => 16,
            IpProtocol::UDP => 6,
            IpProtocol::IP_IN_IP => continue,
            IpProtocol::GRE => {
                start += gre_len(payload)?;
                continue;
            }
            _ => return None,
        };
        // What is behind the packet in the frame would be summed with it.
        let is_marked = end == frame.len() || padding_is_zero(frame, end);
        let ends = (ip.source(), ip.destination());
        return (is_marked && is_unfinished(payload, ends, ip.protocol(), offset))
            .then_some((start, offset));
    }
    None
}

/// Whether the field at `offset` is the sum of the pseudo-header, and the packet's
/// checksum wrong.
fn is_unfinished(
    packet: &[u8],
    (source, destination): (Ipv4Addr, Ipv4Addr),
    protocol: IpProtocol,
    offset: usize,
) -> bool {
    let field = packet.get(offset..).and_then(<[u8]>::first_chunk).copied();
    let (Some(field), Ok(len)) = (field, u16::try_from(packet.len())) else { return false };
    let pseudo = Sum::new().add_pseudo_header(source, destination, protocol.0, len);
    u16::from_be_bytes(field) == pseudo.fold()
        && pseudo.add_u16(checksum_sum(packet)).checksum() != 0
}

/// The folded sum of bytes.
fn checksum_sum(bytes: &[u8]) -> u16 {
    !checksum(bytes)
}

/// Zeroes change no sum, wherever they begin.
fn padding_is_zero(frame: &[u8], end: usize) -> bool {
    frame.get(end..).is_some_and(|padding| padding.iter().all(|byte| *byte == 0))
}

/// Bytes of a GRE header in front of an IPv4 packet (RFC 2784, RFC 2890).
fn gre_len(packet: &[u8]) -> Option<usize> {
    let [flags, version, kind @ ..] = packet.first_chunk::<4>()?;
    if u16::from_be_bytes(*kind) != EtherType::IPV4.0 || version & 7 != 0 {
        return None;
    }
    // A checksum of GRE's own would cover the unfinished one: nobody sends that.
    let options = [0x80, 0x20, 0x10].map(|bit| if flags & bit != 0 { 4 } else { 0 });
    Some(4 + options.iter().sum::<usize>())
}

#[cfg(test)]
#[path = "unfinished_tests.rs"]
mod tests;
