//! The link-layer address of a port, found in the beginning of its capture.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;

use homeport_proto::MacAddress;
use homeport_wire::{ArpPacket, EtherType, EthernetHeader, Ipv4Header};
use zerocopy::FromBytes;

use crate::capture::{CaptureError, CaptureReader};

/// Frames that are looked at.
const FRAMES: u64 = 10_000;

/// Who the port is: the station that frames for its addresses are sent to, or that
/// says in ARP that it has one; else the one that most frames are sent to.
pub(super) fn port_mac(
    capture: &Path,
    addresses: &BTreeSet<Ipv4Addr>,
) -> Result<Option<MacAddress>, CaptureError> {
    let mut reader = CaptureReader::open(capture)?;
    let mut destinations: BTreeMap<MacAddress, u64> = BTreeMap::new();
    let mut count = 0;
    // Where the capture breaks is said when it runs.
    while count < FRAMES && matches!(reader.next_frame(), Ok(Some(_))) {
        count += 1;
        let Ok((ethernet, rest)) = EthernetHeader::ref_from_prefix(reader.frame()) else {
            continue;
        };
        if let Some(mac) = said(ethernet, rest, addresses) {
            return Ok(Some(mac));
        }
        if ethernet.destination.is_unicast() {
            *destinations.entry(ethernet.destination).or_default() += 1;
        }
    }
    // Of several alike, the lowest: the same in each run.
    let most = destinations.into_iter().rev().max_by_key(|(_, count)| *count);
    Ok(most.map(|(mac, _)| mac))
}

fn said(
    ethernet: &EthernetHeader,
    rest: &[u8],
    addresses: &BTreeSet<Ipv4Addr>,
) -> Option<MacAddress> {
    let mac = match ethernet.ether_type() {
        EtherType::IPV4 => {
            let (header, _) = Ipv4Header::ref_from_prefix(rest).ok()?;
            if addresses.contains(&header.destination()) {
                ethernet.destination
            } else if addresses.contains(&header.source()) {
                ethernet.source
            } else {
                return None;
            }
        }
        EtherType::ARP => {
            let arp = ArpPacket::new_checked(rest).ok()?;
            addresses.contains(&arp.sender_address()).then_some(arp.sender_mac)?
        }
        _ => return None,
    };
    mac.is_unicast().then_some(mac)
}
