//! Packets that belong to other workers: handed to them, and taken from them.

use homeport_wire::EthernetHeader;
use zerocopy::IntoBytes;

use super::nat::Nat;
use super::{Forwarder, Job};
use crate::classify::{Origin, Tables};
use crate::handover::Errand;
use crate::napt::Owner;
use crate::packet::{Burst, Packet};
use crate::parse::{self, Frame};
use crate::steering::Steering;
use crate::trace::{Code, Step};
use crate::verdict::DropReason;

impl Forwarder {
    /// Takes what belongs to other workers out of a burst that a port received.
    pub(crate) fn steer(&mut self, received: &mut Burst, port: usize) {
        let Forwarder { output, steering, nat, .. } = self;
        received.retain(|packet| match owner(steering, nat, port, packet.bytes()) {
            Some(owner) if owner != steering.worker => {
                if let Some(stats) = output.stats(packet.port) {
                    stats.rx.add(1);
                    stats.rx_bytes.add(packet.len() as u64);
                }
                output.trace.begin(&packet, true, None);
                output.hand_over(packet, owner, Errand::Receive);
                None
            }
            _ => Some(packet),
        });
    }

    /// Hands a packet that has not been changed yet to the worker that owns it, which
    /// begins with it anew.
    pub(super) fn hand_on(&mut self, mut job: Job, owner: usize) {
        let errand = match job.origin {
            Origin::Link { ethernet, .. } if job.packet.prepend(ethernet.as_bytes()) => {
                Errand::Receive
            }
            Origin::Link { .. } => return self.output.drop(job.packet, DropReason::NoHeadroom),
            Origin::Tunnel | Origin::Own => Errand::Own,
        };
        self.output.hand_over(job.packet, owner, errand);
    }

    /// Does what another worker wants done with a packet, except to receive it.
    pub(crate) fn take_over(&mut self, tables: &Tables, packet: Packet, errand: Errand) {
        let how = Some(Step::of(Code::TakenOver));
        self.output.trace.begin(&packet, errand != Errand::Own, how);
        match errand {
            Errand::Transmit(port) => self.output.transmit(packet, port),
            Errand::DeliverToKernel => self.output.deliver_to_kernel(packet),
            Errand::Own => self.inject(tables, packet),
            Errand::Receive => match parse::frame(packet.bytes()) {
                Ok((ethernet, frame)) => self.receive(tables, packet, ethernet, frame),
                Err(reason) => self.output.drop(packet, reason),
            },
        }
    }
}

/// The worker of a frame that came in by `port`; `None`: whoever received it.
pub(super) fn owner(steering: &Steering, nat: &Nat, port: usize, frame: &[u8]) -> Option<usize> {
    let Ok((_, Frame::Ipv4(facts))) = parse::frame(frame) else { return None };
    let packet = frame.get(EthernetHeader::LEN..)?;
    let napt = nat.napts.iter().find(|napt| napt.is_external(facts.destination));
    match napt.map(|napt| napt.owner_of_inbound(packet)) {
        // A fragment goes where its first one goes, which that one has yet to say.
        Some(Owner::Core(core, None)) => Some(core as usize),
        _ => Some(steering.of_packet(port, &facts, packet)),
    }
}
