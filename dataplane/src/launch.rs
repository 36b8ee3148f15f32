//! Making a dataplane: its tables, rings and ports, split into what the control
//! core holds and what the worker runs.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use homeport_wire::{MacAddress, TenantId};
use rustix::event::{EventfdFlags, eventfd};
use zerocopy::{FromBytes, IntoBytes};

use crate::broadcast::ListenerWriter;
use crate::classify::Tables;
pub use crate::config::{DataplaneConfig, PollMode, PortSetup};
use crate::napt::NaptShared;
use crate::output::{Outlet, Output};
use crate::packet::PacketPool;
use crate::port::{Port, counters_of};
use crate::punt::{InjectHeader, PuntHeader};
use crate::ring::{Consumer, Producer, PushResult, ring};
use crate::stats::{Counter, PortStats};
use crate::table::binding::{BindingEntry, BindingKey};
use crate::table::hash::{Writer, table};
use crate::table::local::{LocalEntry, LocalKey};
use crate::table::lpm::{RouteWriter, routes};
use crate::table::neighbor::{NeighborEntry, NeighborKey};
use crate::table::source_route::{SourceRouteWriter, source_routes};
use crate::table::visitor::{VisitorWriter, visitors};
use crate::tunnel_mtu::TunnelMtuCache;
use crate::verdict::PuntReason;
use crate::worker::Worker;

/// How many packets that were put together from fragments may be on their way at
/// once: each is cut again, or copied, before the next one is made.
const LARGE_BUFFERS: usize = 16;

/// The control core's side of a dataplane.
pub struct Control {
    /// Home agents' bindings.
    pub bindings: Writer<BindingKey, BindingEntry>,
    /// Which bound nodes get their home link's broadcasts: to be told of each
    /// binding that is installed or removed.
    pub listeners: ListenerWriter,
    /// Foreign agents' visitors.
    pub visitors: VisitorWriter,
    /// The addresses of this box. An underlay address that is not here is not ours.
    pub locals: Writer<LocalKey, LocalEntry>,
    /// The kernel's routes.
    pub routes: RouteWriter,
    /// Visitors' source-restricted routes.
    pub source_routes: SourceRouteWriter,
    /// The kernel's neighbours.
    pub neighbors: Writer<NeighborKey, NeighborEntry>,
    /// Packets for the control core.
    pub punts: PuntReceiver,
    /// Packets of the control core.
    pub injects: InjectSender,
    /// What both sides know of each port, by its number.
    pub ports: Arc<[PortShared]>,
    /// The NAPTs, by their numbers.
    pub napts: Vec<NaptShared>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("ports", &self.ports).finish_non_exhaustive()
    }
}

/// A port as the control core sees it.
#[derive(Debug)]
pub struct PortShared {
    /// Its name in the configuration.
    pub name: String,
    /// Whose link it is.
    pub tenant: TenantId,
    /// Its link-layer address.
    pub mac: MacAddress,
    /// The longest IPv4 packet that it carries, in bytes.
    pub mtu: u16,
    /// What is counted for it. Only the worker adds.
    pub stats: PortStats,
    up: AtomicBool,
    address: AtomicU32,
    counters: Box<[(&'static str, Counter)]>,
}

impl PortShared {
    /// Whether its link had carrier when the worker last looked (ten times a
    /// second).
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// The address that ICMP errors about packets which came in here are sent
    /// from.
    pub fn address(&self) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from_bits(self.address.load(Ordering::Relaxed));
        (!address.is_unspecified()).then_some(address)
    }

    /// Sets the address that ICMP errors are sent from: an address of ours on this
    /// link. Without one, only errors of tunnels are sent.
    pub fn set_address(&self, address: Option<Ipv4Addr>) {
        let bits = address.unwrap_or(Ipv4Addr::UNSPECIFIED).to_bits();
        self.address.store(bits, Ordering::Relaxed);
    }

    /// The port's own counters, at most a tenth of a second old.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counters.iter().map(|(name, count)| (*name, count.get()))
    }

    /// The worker's side: how the port is.
    pub(crate) fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }

    /// The worker's side: tells the port's own counters.
    pub(crate) fn publish(&self, port: &dyn Port) {
        let mut places = self.counters.iter();
        port.counters(&mut |_, count| {
            if let Some((_, place)) = places.next() {
                place.set(count);
            }
        });
    }
}

/// Makes a dataplane of `ports`, numbered in their order.
///
/// # Errors
/// When the system has no file descriptor left.
pub fn build(
    config: &DataplaneConfig,
    ports: Vec<PortSetup>,
) -> std::io::Result<(Control, Worker)> {
    let shared: Arc<[PortShared]> = ports.iter().map(port_shared).collect();
    let outlets: Vec<Outlet> =
        ports.into_iter().map(|setup| Outlet::new(setup.port, setup.twin, setup.tenant)).collect();
    let seed = config.hash_seed;
    let (punt_sender, punts) = punt_rings(config.punt_ring)?;
    let (injects, inject_receiver) = inject_ring(config.inject_ring)?;
    let mut control = Control {
        bindings: table(config.bindings, seed),
        listeners: ListenerWriter::new(outlets.len(), seed),
        visitors: visitors(config.visitors, seed),
        locals: table(config.locals, seed),
        routes: routes(config.routes, seed),
        source_routes: source_routes(config.source_routes, seed),
        neighbors: table(config.neighbors, seed),
        punts,
        injects,
        ports: Arc::clone(&shared),
        napts: Vec::new(),
    };
    let tables = Tables {
        bindings: control.bindings.reader(),
        listeners: control.listeners.reader(),
        visitors: control.visitors.reader(),
        locals: control.locals.reader(),
        routes: control.routes.reader(),
        source_routes: control.source_routes.reader(),
        neighbors: control.neighbors.reader(),
    };
    let needed = Worker::buffers_needed(outlets.len());
    let output = Output {
        outlets,
        shared,
        pool: PacketPool::with_large(config.buffers.max(needed), LARGE_BUFFERS),
        punts: punt_sender,
    };
    let mtus = Arc::new(TunnelMtuCache::new(seed));
    let worker = Worker::new(config, output, tables, inject_receiver, mtus);
    control.napts = worker.napts();
    Ok((control, worker))
}

fn port_shared(setup: &PortSetup) -> PortShared {
    PortShared {
        name: setup.name.clone(),
        tenant: setup.tenant,
        mac: setup.port.mac(),
        mtu: setup.port.mtu(),
        stats: PortStats::default(),
        up: AtomicBool::new(setup.port.is_up()),
        address: AtomicU32::new(0),
        counters: counters_of(&*setup.port)
            .into_iter()
            .map(|(name, _)| (name, Counter::default()))
            .collect(),
    }
}

/// The worker's end of the punt rings: one for each reason, so that a flood of one
/// leaves the others their room.
pub(crate) struct PuntSender {
    rings: Vec<Producer>,
    wake: Arc<OwnedFd>,
}

impl PuntSender {
    /// Hands a frame over. `false` when this reason's ring is full.
    pub(crate) fn push(&mut self, header: &PuntHeader, reason: PuntReason, frame: &[u8]) -> bool {
        let Some(ring) = self.rings.get_mut(usize::from(reason as u8)) else {
            return false;
        };
        push(ring, header.as_bytes(), frame, &self.wake)
    }
}

/// The control core's end of the punt rings.
pub struct PuntReceiver {
    rings: Vec<Consumer>,
    next: usize,
    wake: Arc<OwnedFd>,
}

impl PuntReceiver {
    /// Becomes readable when a packet is waiting, once [`PuntReceiver::next`] has
    /// said that none is.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The next packet, in `buffer`, from each reason's ring in turn: its header,
    /// and its frame from the Ethernet header on. `None`: none is waiting, and the
    /// next one makes [`PuntReceiver::readiness`] readable.
    pub fn next<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Option<(PuntHeader, &'b [u8])> {
        if !self.take(buffer) {
            clear(&self.wake);
            // Each ring must know that its next packet wakes; one that has a packet
            // by now is no reason to leave the others out.
            let waiting =
                self.rings.iter_mut().filter_map(|ring| (!ring.prepare_sleep()).then_some(()));
            if waiting.count() == 0 || !self.take(buffer) {
                return None;
            }
        }
        PuntHeader::read_from_prefix(buffer).ok()
    }

    fn take(&mut self, buffer: &mut Vec<u8>) -> bool {
        let count = self.rings.len();
        for _ in 0..count {
            let at = self.next;
            self.next = (at + 1) % count;
            if self.rings.get_mut(at).is_some_and(|ring| ring.pop(buffer)) {
                return true;
            }
        }
        false
    }
}

impl std::fmt::Debug for PuntReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PuntReceiver").field("rings", &self.rings.len()).finish_non_exhaustive()
    }
}

/// The control core's end of the inject ring.
pub struct InjectSender {
    ring: Producer,
    wake: Arc<OwnedFd>,
}

impl InjectSender {
    /// Hands a packet to the worker and wakes it. `false`, and nothing handed over,
    /// when the ring is full.
    #[must_use]
    pub fn send(&mut self, header: InjectHeader, bytes: &[u8]) -> bool {
        push(&mut self.ring, header.as_bytes(), bytes, &self.wake)
    }
}

impl std::fmt::Debug for InjectSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InjectSender").finish_non_exhaustive()
    }
}

/// The worker's end of the inject ring.
pub(crate) struct InjectReceiver {
    ring: Consumer,
    wake: Arc<OwnedFd>,
}

impl InjectReceiver {
    /// Shows the next packet to `take`.
    pub(crate) fn next<R>(
        &mut self,
        take: impl FnOnce(Option<InjectHeader>, &[u8]) -> R,
    ) -> Option<R> {
        self.ring.consume(|message| match InjectHeader::read_from_prefix(message) {
            Ok((header, bytes)) => take(Some(header), bytes),
            Err(_) => take(None, &[]),
        })
    }

    /// Says that the worker goes to sleep; `false` when a packet is waiting.
    pub(crate) fn prepare_sleep(&mut self) -> bool {
        clear(&self.wake);
        self.ring.prepare_sleep()
    }

    /// Becomes readable when a packet is waiting, after a `prepare_sleep`.
    pub(crate) fn readiness(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

fn punt_rings(bytes: usize) -> std::io::Result<(PuntSender, PuntReceiver)> {
    let wake = wake_up()?;
    let (senders, receivers) = PuntReason::ALL.iter().map(|_| ring(bytes)).unzip();
    let sender = PuntSender { rings: senders, wake: Arc::clone(&wake) };
    Ok((sender, PuntReceiver { rings: receivers, next: 0, wake }))
}

fn inject_ring(bytes: usize) -> std::io::Result<(InjectSender, InjectReceiver)> {
    let wake = wake_up()?;
    let (sender, receiver) = ring(bytes);
    let injects = InjectSender { ring: sender, wake: Arc::clone(&wake) };
    Ok((injects, InjectReceiver { ring: receiver, wake }))
}

fn wake_up() -> std::io::Result<Arc<OwnedFd>> {
    Ok(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
}

fn push(ring: &mut Producer, header: &[u8], body: &[u8], wake: &OwnedFd) -> bool {
    let result = ring.push(header, body);
    if result == PushResult::StoredWake {
        // It fails only when the counter is at its limit, and then it is readable.
        let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
    }
    result.is_stored()
}

fn clear(wake: &OwnedFd) {
    // It fails when nobody woke anybody.
    let _ = rustix::io::read(wake, &mut [0; 8]);
}
