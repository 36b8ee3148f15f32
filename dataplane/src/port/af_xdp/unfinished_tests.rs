//! Packets as a sender leaves them to its card, and finished ones.

use homeport_wire::MacAddress;
use homeport_wire::checksum::checksum as sum_of;
use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;

const FROM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TO: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);

fn ipv4(protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + body.len() as u16).to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    packet.extend(FROM.octets());
    packet.extend(TO.octets());
    let sum = sum_of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(body);
    packet
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let (to, from) = (MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2]));
    [EthernetHeader::new(to, from, EtherType::IPV4).as_bytes(), packet].concat()
}

/// A TCP or UDP packet with this payload, and where its checksum is: with the sum of
/// the pseudo-header there, as the kernel leaves it.
fn unfinished(protocol: u8, payload: &[u8]) -> (Vec<u8>, usize) {
    let (header_len, offset) = if protocol == 6 { (20, 16) } else { (8, 6) };
    let mut body = vec![0; header_len];
    body[..4].copy_from_slice(&[0, 80, 0x30, 0x39]);
    if protocol == 6 {
        body[12] = 0x50;
    } else {
        body[4..6].copy_from_slice(&(8 + payload.len() as u16).to_be_bytes());
    }
    body.extend(payload);
    let len = body.len() as u16;
    let pseudo = Sum::new().add_pseudo_header(FROM, TO, protocol, len).fold();
    body[offset..offset + 2].copy_from_slice(&pseudo.to_be_bytes());
    (ipv4(protocol, &body), offset)
}

fn is_right(packet: &[u8]) -> bool {
    let body = &packet[20..];
    let pseudo = Sum::new().add_pseudo_header(FROM, TO, packet[9], body.len() as u16);
    pseudo.add_bytes(body).checksum() == 0
}

proptest! {
    #[test]
    fn an_unfinished_checksum_is_finished_and_then_left_alone(
        tcp: bool,
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        padding in 0usize..20,
    ) {
        let (packet, _) = unfinished(if tcp { 6 } else { 17 }, &payload);
        let mut bytes = frame(&packet);
        bytes.resize(bytes.len() + padding, 0);
        prop_assert!(finish(&mut bytes) || is_right(&packet));
        prop_assert!(is_right(&bytes[14..14 + packet.len()]));
        let before = bytes.clone();
        prop_assert!(!finish(&mut bytes));
        prop_assert_eq!(bytes, before);
    }

    /// Whatever else a frame holds, it is not touched: a wrong checksum stays wrong.
    #[test]
    fn a_checksum_without_the_mark_stays_as_it_is(
        tcp: bool,
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        other in 1u16..,
    ) {
        let (mut packet, offset) = unfinished(if tcp { 6 } else { 17 }, &payload);
        let field = &mut packet[20 + offset..][..2];
        let wrong = u16::from_be_bytes([field[0], field[1]]).wrapping_add(other);
        field.copy_from_slice(&wrong.to_be_bytes());
        let mut bytes = frame(&packet);
        let before = bytes.clone();
        prop_assert!(!finish(&mut bytes));
        prop_assert_eq!(bytes, before);
    }

    #[test]
    fn no_frame_is_too_odd(mut bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        if let Some([first, second]) = bytes.get_mut(12..14) {
            (*first, *second) = (8, 0);
        }
        finish(&mut bytes);
    }
}

#[test]
fn inside_a_tunnel_it_is_finished_too() {
    let (inner, _) = unfinished(6, b"through a tunnel");
    let mut bytes = frame(&ipv4(4, &inner));
    assert!(finish(&mut bytes));
    assert!(is_right(&bytes[34..]));
    let mut bytes = frame(&ipv4(47, &[&[0x20, 0, 8, 0, 0, 0, 0, 9], &inner[..]].concat()));
    assert!(finish(&mut bytes));
    assert!(is_right(&bytes[42..]));
}

#[test]
fn a_fragment_is_left_alone() {
    let (mut packet, _) = unfinished(17, &[7; 64]);
    packet[6] = 0x20;
    let mut bytes = frame(&packet);
    assert!(!finish(&mut bytes));
}
