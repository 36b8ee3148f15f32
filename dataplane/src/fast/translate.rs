//! Translation of established flows, in the stages of the burst around it.

use std::net::Ipv4Addr;

use homeport_wire::PortId;

use super::head::Head;
use super::lane::{Kind, LINK, Lane};
use crate::forward::Forwarder;
use crate::napt::{InsideHost, Probe, Tick};
use crate::packet::{BURST, Burst};

/// The flow that a packet may belong to, and the number of its NAPT.
pub(super) type Flow = Option<(usize, Probe)>;

/// The flows of a burst, kept from burst to burst so that their memory is.
pub(super) type Flows = Vec<Flow>;

/// Looks for the flows of a burst that came in by `port`: of what goes from the inside
/// of a NAPT to the outside, and of what comes back. The general path knows better
/// where visitors are, who speak from every link.
pub(super) fn find(
    forwarder: &mut Forwarder,
    burst: &mut Burst,
    lanes: &[Lane],
    port: PortId,
    flows: &mut Flows,
) -> Tick {
    let (napts, now) = forwarder.napts_now();
    let inside = napts.iter().position(|napt| napt.config().inside.contains(&port));
    flows.resize(BURST, None);
    for ((place, lane), flow) in burst.places().iter().zip(lanes).zip(flows.iter_mut()) {
        *flow = None;
        let Some(packet) = place else { continue };
        let end = LINK + usize::from(lane.head.total_len());
        let Some(bytes) = packet.bytes().get(LINK..end) else { continue };
        match lane.kind {
            Kind::Plain => {
                let Some(number) = inside else { continue };
                let Some(napt) = napts.get(number) else { continue };
                let probe = napt.probe_outbound(bytes, lane.tenant, None);
                *flow = probe.map(|probe| (number, probe));
            }
            // From inside, it is a hairpin.
            Kind::Local if inside.is_none() => {
                let to = Ipv4Addr::from_bits(lane.head.destination());
                let mut numbered = napts.iter().enumerate();
                let Some((number, napt)) = numbered.find(|(_, napt)| napt.is_external(to)) else {
                    continue;
                };
                *flow = napt.probe_inbound(bytes).map(|probe| (number, probe));
            }
            Kind::Local | Kind::Destination | Kind::Tunnelled | Kind::General => {}
        }
    }
    for (number, probe) in flows.iter_mut().flatten() {
        if let Some(napt) = napts.get(*number) {
            napt.locate(probe);
        }
    }
    now
}

/// Translates a packet of a flow that was found: the host inside, and the packet's header
/// now, but for its addresses. `None`, and nothing changed, when it is not that flow's, or
/// the flow not the burst's to go on with.
#[inline(always)]
pub(super) fn translate(
    forwarder: &mut Forwarder,
    frame: &mut [u8],
    lane: &Lane,
    (number, probe): &(usize, Probe),
    now: Tick,
) -> Option<(InsideHost, Head)> {
    let bytes = frame.get_mut(LINK..LINK + usize::from(lane.head.total_len()))?;
    let (host, checksum) = forwarder.napt(*number)?.translate_located(bytes, probe, now)?;
    Some((host, lane.head.with_checksum(checksum)))
}
