//! What is counted, as the API shows it.

use homeport_dataplane::launch::PortShared;
use homeport_dataplane::stats::PortStats;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The conservation law in six numbers, in packets since the start:
/// `rx == tx + punted + to_kernel + dropped + held`.
///
/// The counters are read one after the other while RX cores count on, so under
/// load the two sides may differ by the packets in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// All that was handed to the dataplane: received by ports, sent by kernel
    /// twins, injected by the control core, made by the dataplane itself.
    pub rx: u64,
    /// Sent by ports.
    pub tx: u64,
    /// Handed to the control core.
    pub punted: u64,
    /// Delivered to kernel twins.
    pub to_kernel: u64,
    /// Dropped, for any reason.
    pub dropped: u64,
    /// Waiting for their next hop's link-layer address, now.
    pub held: u64,
}

impl Totals {
    /// Whether both sides of the law are equal.
    pub const fn is_conserved(&self) -> bool {
        self.rx == self.tx + self.punted + self.to_kernel + self.dropped + self.held
    }
}

impl From<&PortShared> for Totals {
    /// Of one port, summed over RX cores. What is on its way between two of them is
    /// held.
    fn from(port: &PortShared) -> Self {
        let taken_over = port.sum(|stats| stats.taken_over.get());
        let handed_over = port.sum(|stats| stats.handed_over.get());
        let held = port.sum(|stats| stats.held.get());
        Totals {
            rx: port.sum(PortStats::total_in).saturating_sub(taken_over),
            tx: port.sum(|stats| stats.tx.get()),
            punted: port.sum(PortStats::total_punted),
            to_kernel: port.sum(|stats| stats.to_kernel.get()),
            dropped: port.sum(PortStats::total_dropped),
            held: held + handed_over.saturating_sub(taken_over),
        }
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.rx += other.rx;
        self.tx += other.tx;
        self.punted += other.punted;
        self.to_kernel += other.to_kernel;
        self.dropped += other.dropped;
        self.held += other.held;
    }
}

impl std::iter::Sum for Totals {
    fn sum<I: Iterator<Item = Totals>>(totals: I) -> Totals {
        totals.fold(Totals::default(), |mut sum, totals| {
            sum += totals;
            sum
        })
    }
}

/// Which plane dropped something.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Plane {
    /// A packet, by an RX core.
    Dataplane,
    /// A message of Mobile IP, by an agent, without a reply.
    Control,
}

/// `show drops`: how much was dropped at one place for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DropView {
    /// Where.
    pub plane: Plane,
    /// The port, for packets.
    pub port: Option<String>,
    /// The tenant, for messages.
    pub tenant: Option<u32>,
    /// The counter's name: that of a
    /// [`DropReason`](homeport_dataplane::verdict::DropReason) or a
    /// [`DiscardReason`](homeport_proto::event::DiscardReason).
    pub reason: String,
    /// What it means.
    pub text: String,
    /// How many.
    pub count: u64,
}

/// `show counters`: any other counter. `name` is snake_case and says what is
/// counted; the labels are bounded, never an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CounterView {
    /// Its name, as in `registration_replies_sent`.
    pub name: String,
    /// The tenant that it belongs to.
    pub tenant: Option<u32>,
    /// The port that it belongs to.
    pub port: Option<String>,
    /// The reason that it counts, in kebab-case.
    pub reason: Option<String>,
    /// The reply code that it counts (RFC 5944 §3.4).
    pub code: Option<u8>,
    /// The count.
    pub value: u64,
    /// What it means.
    pub text: String,
}
