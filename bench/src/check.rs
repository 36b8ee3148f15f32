//! Whether what leaves the box is right. A measurement of a wrong result is none.

use homeport_dataplane::table::binding::Encapsulation;
use homeport_dataplane::{decap, parse};
use homeport_wire::{EthernetHeader, IpProtocol, Ipv4Packet, checksum};
use zerocopy::FromBytes;

use crate::addresses;
use crate::case::{Case, FrameLen};
use crate::frames::{STATION, TTL};

/// Looks at a frame that left the box while `case` was measured.
///
/// # Errors
/// What is wrong with it.
pub fn check(case: Case, len: FrameLen, frame: &[u8]) -> Result<(), String> {
    let (ethernet, packet) =
        EthernetHeader::read_from_prefix(frame).map_err(|_| "no link header".to_owned())?;
    expect("link-layer destination", ethernet.destination, STATION)?;
    let whole = Ipv4Packet::new_checked(packet).map_err(|e| format!("outer packet: {e:?}"))?;
    expect("length of the packet", whole.bytes().len(), packet.len())?;
    let facts = parse::ipv4(packet).map_err(|e| format!("outer packet: {}", e.counter()))?;
    let (source, destination) = (facts.source, facts.destination);
    let is_tunnelled = source == addresses::HOME_AGENT;
    match case {
        Case::Encap(_) | Case::Mixed if is_tunnelled => {
            let (opened, _) = decap::open(&facts, whole.payload())
                .map_err(|e| format!("the tunnel: {}", e.counter()))?;
            let inside = whole.payload().get(usize::from(opened.shim_len)..).unwrap_or_default();
            let node = addresses::node(opened.inner.destination);
            expect("home address", opened.inner.destination, addresses::home(node))?;
            expect("outer destination", destination, addresses::care_of(node))?;
            let kind = case.family().kind(node);
            let sent = kind.encapsulation(node);
            match (opened.encapsulation, sent) {
                // Read from the outside, the other end's port is ours.
                (Encapsulation::Udp { peer_port: 434 }, Encapsulation::Udp { peer_port }) => {
                    let ports = facts.udp_ports.unwrap_or_default();
                    expect("UDP ports", ports, (434, peer_port))?;
                }
                (is, sent) => expect("encapsulation", is, sent)?,
            }
            // Minimal encapsulation has no second header: the packet's own TTL is outside.
            let ttl = if opened.encapsulation == Encapsulation::Minimal {
                whole.header().ttl
            } else {
                inside.get(8).copied().unwrap_or_default()
            };
            if opened.encapsulation != Encapsulation::Minimal {
                parse::ipv4(inside).map_err(|e| format!("inner packet: {}", e.counter()))?;
            }
            expect("TTL", ttl, TTL - 1)?;
            expect_len(len, frame.len(), kind.overhead())
        }
        Case::Decap(_) | Case::Mixed | Case::Forward => {
            let home = addresses::home(addresses::node(source));
            let plain = addresses::plain(u64::from(destination.to_bits()));
            if source != home && destination != plain {
                return Err(format!("{source} to {destination} was never sent"));
            }
            expect("TTL", whole.header().ttl, TTL - 1)?;
            expect_len(len, frame.len(), 0)
        }
        Case::NaptOut | Case::NaptNew => {
            let flow = addresses::flow(destination);
            expect("remote address", destination, addresses::remote(flow).0)?;
            let block = addresses::external(0).octets();
            expect("external network", source.octets().first_chunk::<2>(), block.first_chunk())?;
            expect_sum(&whole)?;
            expect_len(len, frame.len(), 0)
        }
        Case::NaptIn => {
            let flow = addresses::flow(source);
            let ports = facts.udp_ports.unwrap_or_default();
            expect("inside end", (destination, ports.1), addresses::inside(flow))?;
            expect_sum(&whole)?;
            expect_len(len, frame.len(), 0)
        }
        Case::Encap(_) | Case::Miss => Err(format!("{source} to {destination} should not leave")),
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should: T) -> Result<(), String> {
    if is == should { Ok(()) } else { Err(format!("{what}: {is:?} instead of {should:?}")) }
}

fn expect_len(len: FrameLen, is: usize, overhead: usize) -> Result<(), String> {
    let is_right = |len: u16| usize::from(len) + overhead == is;
    let right = match len {
        FrameLen::Fixed(len) => is_right(len),
        FrameLen::Imix => FrameLen::IMIX.iter().any(|(len, _)| is_right(*len)),
    };
    if right { Ok(()) } else { Err(format!("a frame of {is} bytes from frames of {len}")) }
}

/// The UDP checksum, which must be there.
fn expect_sum(packet: &Ipv4Packet<'_>) -> Result<(), String> {
    let (header, datagram) = (packet.header(), packet.payload());
    // A packet's length has 16 bits.
    let sum = checksum::Sum::new()
        .add_pseudo_header(
            header.source(),
            header.destination(),
            IpProtocol::UDP.0,
            datagram.len() as u16,
        )
        .add_bytes(datagram)
        .checksum();
    let field = datagram.get(6..8).unwrap_or_default();
    expect("UDP checksum", sum, 0)?;
    if field == [0, 0] { Err("the UDP checksum is gone".into()) } else { Ok(()) }
}

/// The part of a case's packets that is dropped, and rightly.
pub const fn dropped_share(case: Case) -> f64 {
    match case {
        Case::Miss => 1.0,
        Case::Mixed => 0.01,
        _ => 0.0,
    }
}
