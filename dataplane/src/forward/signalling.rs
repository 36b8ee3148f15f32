//! Registration messages on their way to the control core.

use super::{Forwarder, Job};
use crate::classify::Tables;
use crate::registration::Message;
use crate::verdict::{DropReason, PuntReason};

impl Forwarder {
    /// Whether registration messages are being shed, and nobody asks for each step.
    #[inline]
    pub(crate) fn sheds(&mut self) -> bool {
        self.surge.is_on(self.output.shed, self.now) && !self.output.trace.is_on()
    }

    /// What the gate says of a registration message.
    pub(super) fn pass_gate(
        &mut self,
        tables: &Tables,
        job: &Job,
    ) -> Result<PuntReason, DropReason> {
        let Job { packet, facts, origin, .. } = job;
        let datagram = packet.bytes().get(usize::from(facts.header_len)..).unwrap_or_default();
        let sender = (packet.tenant, packet.station);
        let message = Message::read(facts, datagram, sender, origin, tables);
        let binding = message.names().and_then(|key| tables.bindings.lookup(&key));
        let gate = &mut self.registrations;
        if self.output.trace.is_probe() {
            gate.foresee(&message, binding, tables, self.now)
        } else {
            gate.pass(&message, binding, tables, self.now)
        }
    }
}
