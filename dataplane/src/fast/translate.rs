//! Translation of established flows, in the stages of the burst around it.

use std::net::Ipv4Addr;

use homeport_wire::PortId;

use super::lane::{Kind, LINK, Lane};
use crate::forward::Forwarder;
use crate::napt::{InsideHost, Probe, Tick};
use crate::packet::{BURST, Burst};

/// The flow that a packet may belong to, and the number of its NAPT.
pub(super) type Flow = Option<(usize, Probe)>;

/// Looks for the flows of a burst that came in by `port`: of what goes from the inside
/// of a NAPT to the outside, and of what comes back. The general path knows better
/// where visitors are, who speak from every link.
pub(super) fn find(
    forwarder: &mut Forwarder,
    burst: &Burst,
    lanes: &[Lane],
    port: PortId,
) -> ([Flow; BURST], Tick) {
    let mut flows = [const { None }; BURST];
    let (napts, now) = forwarder.napts_now();
    let inside = napts.iter().position(|napt| napt.config().inside.contains(&port));
    for ((packet, lane), flow) in burst.iter().zip(lanes).zip(&mut flows) {
        let bytes = packet.bytes().get(LINK..).unwrap_or_default();
        let bytes = bytes.get(..usize::from(lane.head.total_len)).unwrap_or_default();
        *flow = match lane.kind {
            Kind::Plain => inside.and_then(|number| {
                let probe = napts.get(number)?.probe_outbound(bytes, lane.tenant, None)?;
                Some((number, probe))
            }),
            Kind::Local => {
                let to = Ipv4Addr::from_bits(lane.head.destination);
                let number = napts.iter().position(|napt| napt.is_external(to));
                // From inside, it is a hairpin.
                number.filter(|_| inside.is_none()).and_then(|number| {
                    let probe = napts.get(number)?.probe_inbound(bytes)?;
                    Some((number, probe))
                })
            }
            Kind::Destination | Kind::Tunnelled | Kind::General => None,
        };
    }
    for (number, probe) in flows.iter_mut().flatten() {
        if let Some(napt) = napts.get(*number) {
            napt.locate(probe);
        }
    }
    (flows, now)
}

/// Translates a packet of a flow that was found; `None`, and nothing changed, when it
/// is not that flow's, or the flow not the burst's to go on with.
#[inline(always)]
pub(super) fn translate(
    forwarder: &mut Forwarder,
    frame: &mut [u8],
    lane: &Lane,
    (number, probe): &(usize, Probe),
    now: Tick,
) -> Option<InsideHost> {
    let end = LINK + usize::from(lane.head.total_len);
    forwarder.napt(*number)?.translate_located(frame.get_mut(LINK..end)?, probe, now)
}
