//! What a dataplane is made from. Values only: where they come from is the
//! caller's business.

use homeport_wire::TenantId;

use crate::napt::NaptConfig;
use crate::port::Port;

/// What a worker does when nothing is waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PollMode {
    /// It spins a little, naps, and then sleeps until a port has something.
    #[default]
    Adaptive,
    /// It never sleeps.
    Busy,
}

/// When a packet is handed to the worker that its addresses name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SteeringMode {
    /// Where a port receives by fewer queues than there are workers.
    #[default]
    Auto,
    /// Never: each worker keeps what its queues bring, but for what is another's
    /// because of address translation.
    Off,
    /// Always, as the queues may be chosen by outer addresses.
    Inner,
}

/// Sizes and habits of a dataplane.
#[derive(Clone, Debug)]
pub struct DataplaneConfig {
    /// What the worker does when nothing is waiting.
    pub poll: PollMode,
    /// One for each worker, at least one: the CPU that it is pinned to; `None`:
    /// where the scheduler likes.
    pub cores: Vec<Option<usize>>,
    /// When packets are handed to other workers.
    pub steering: SteeringMode,
    /// How many packet buffers each worker has. Fewer than it needs to hold packets
    /// and to fill its bursts are made that many.
    pub buffers: usize,
    /// Keys the hash of tables whose keys an outsider can choose: secret, and new
    /// at each start.
    pub hash_seed: [u64; 2],
    /// How many bindings the table takes.
    pub bindings: usize,
    /// How many visitors the table takes.
    pub visitors: usize,
    /// How many addresses of this box the table takes.
    pub locals: usize,
    /// How many routes the table takes.
    pub routes: usize,
    /// How many source-restricted routes of visitors the table takes.
    pub source_routes: usize,
    /// How many neighbours the table takes.
    pub neighbors: usize,
    /// Bytes of the ring of punted packets, for each reason its own.
    pub punt_ring: usize,
    /// Bytes of the rings of registration messages: one for those that go first, one
    /// for the others.
    pub registration_ring: usize,
    /// How many registration messages may come from where.
    pub registrations: RegistrationLimits,
    /// Bytes of the ring of injected packets.
    pub inject_ring: usize,
    /// Bytes of the ring of packets from one worker to another, for each pair.
    pub handover_ring: usize,
    /// Bytes of the ring of walks that are traced, for each worker.
    pub trace_ring: usize,
    /// How many ICMP errors are sent in a second, by all workers together.
    pub icmp_errors_per_second: u32,
    /// Whether packets may take the short cut. Without it each goes the general way, to
    /// the same end.
    pub fast_path: bool,
    /// The NAPTs, numbered in their order.
    pub napts: Vec<NaptConfig>,
}

impl Default for DataplaneConfig {
    fn default() -> Self {
        DataplaneConfig {
            poll: PollMode::default(),
            cores: vec![None],
            steering: SteeringMode::default(),
            buffers: 8192,
            hash_seed: [0; 2],
            bindings: 1 << 17,
            visitors: 1 << 16,
            locals: 1 << 12,
            routes: 1 << 16,
            source_routes: 1 << 12,
            neighbors: 1 << 14,
            punt_ring: 1 << 18,
            // Ten thousand requests of some 160 bytes, with all that is around them.
            registration_ring: 1 << 21,
            registrations: RegistrationLimits::default(),
            inject_ring: 1 << 20,
            handover_ring: 1 << 19,
            // Some thousand walks of short packets.
            trace_ring: 1 << 19,
            icmp_errors_per_second: 1000,
            fast_path: true,
            napts: Vec::new(),
        }
    }
}

/// How many registration messages a worker lets through in a second. A network is
/// all addresses that have their first 24 bits in common; as many again as in a
/// second may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrationLimits {
    /// From a network that no node is known to be at.
    pub per_prefix: u32,
    /// From a network that a node registered from and sent a message from within the
    /// last ten minutes: a foreign agent's, say.
    pub per_known_prefix: u32,
    /// Of nodes that are known, from where they are not known to be, of all networks
    /// together: those beyond it wait with the new ones.
    pub moves_first: u32,
}

impl Default for RegistrationLimits {
    fn default() -> Self {
        RegistrationLimits { per_prefix: 2_000, per_known_prefix: 50_000, moves_first: 10_000 }
    }
}

/// One port and its kernel twin.
pub struct PortSetup {
    /// Its name in the configuration.
    pub name: String,
    /// Whose link it is; [`UNDERLAY`](crate::classify::UNDERLAY) for a link that
    /// tenants share.
    pub tenant: TenantId,
    /// Its queues, at least one and no more than there are workers: worker *i*
    /// receives and sends by queue *i*, if there is one, and else sends by the queue
    /// of another worker. Each is an object of its
    /// own, used by its worker only, and all have one MAC and MTU.
    pub queues: Vec<Box<dyn Port>>,
    /// Its kernel twin; `None` when there is no kernel behind it (tests, replay).
    pub twin: Option<Box<dyn Port>>,
}

impl std::fmt::Debug for PortSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let queues = self.queues.len();
        write!(f, "PortSetup({}, tenant {}, {queues} queues)", self.name, self.tenant)
    }
}
