//! What the control core knows of the workers' ports and NAPTs.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use homeport_wire::{MacAddress, TenantId};

use super::PortSetup;
use crate::napt::{NaptConfig, NaptCounters, NaptShared};
use crate::port::{Port, counters_of};
use crate::stats::{Counter, PortStats};
use crate::worker::Worker;

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
    /// How it runs, for people, where there is a choice.
    pub mode: Option<String>,
    /// Its place among the ports.
    number: usize,
    /// By worker and port: each worker adds to its own only.
    stats: Arc<[Arc<[PortStats]>]>,
    up: AtomicBool,
    address: AtomicU32,
    /// By queue: each worker tells its own queue's only.
    counters: Box<[QueueCounters]>,
}

/// A queue's own counters, by name.
type QueueCounters = Box<[(&'static str, Counter)]>;

impl PortShared {
    /// The port with this number; `stats` is by worker and port.
    pub(super) fn new(setup: &PortSetup, number: usize, stats: Arc<[Arc<[PortStats]>]>) -> Self {
        let first = setup.queues.first();
        let counters = |queue: &dyn Port| -> QueueCounters {
            counters_of(queue).into_iter().map(|(name, _)| (name, Counter::default())).collect()
        };
        PortShared {
            name: setup.name.clone(),
            tenant: setup.tenant,
            mac: first.map_or(MacAddress::UNSPECIFIED, |queue| queue.mac()),
            mtu: first.map_or(0, |queue| queue.mtu()),
            mode: first.and_then(|queue| queue.mode()).map(str::to_owned),
            number,
            stats,
            up: AtomicBool::new(first.is_some_and(|queue| queue.is_up())),
            address: AtomicU32::new(0),
            counters: setup.queues.iter().map(|queue| counters(&**queue)).collect(),
        }
    }

    /// What each worker counts for it, in the workers' order.
    pub fn workers(&self) -> impl Iterator<Item = &PortStats> {
        self.stats.iter().filter_map(|ports| ports.get(self.number))
    }

    /// The sum over all workers of something that each of them counts.
    ///
    /// ```
    /// # use homeport_dataplane::launch::PortShared;
    /// fn received(port: &PortShared) -> u64 {
    ///     port.sum(|stats| stats.rx.get())
    /// }
    /// ```
    pub fn sum(&self, count: impl Fn(&PortStats) -> u64) -> u64 {
        self.workers().map(count).sum()
    }

    /// Whether its link had carrier when a worker last looked (ten times a
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

    /// The port's own counters, summed over its queues, at most a tenth of a second
    /// old.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let first = self.counters.first().into_iter().flatten();
        first.enumerate().map(|(place, (name, _))| {
            let queues = self.counters.iter().filter_map(|queue| queue.get(place));
            (*name, queues.map(|(_, count)| count.get()).sum())
        })
    }

    /// The worker's side: how the port is. Queue 0's worker says so.
    pub(crate) fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }

    /// The worker's side: tells the own counters of one of its queues.
    pub(crate) fn publish(&self, queue: usize, port: &dyn Port) {
        let mut places = self.counters.get(queue).into_iter().flatten();
        port.counters(&mut |_, count| {
            if let Some((_, place)) = places.next() {
                place.set(count);
            }
        });
    }
}

/// A NAPT as the control core sees it.
#[derive(Clone, Debug)]
pub struct NaptControl {
    /// What it was made from.
    pub config: NaptConfig,
    /// What each worker counts for it, in the workers' order.
    pub workers: Vec<Arc<NaptCounters>>,
}

impl NaptControl {
    /// The NAPTs of this config on these workers.
    pub(super) fn of(configs: &[NaptConfig], workers: &[Worker]) -> Vec<NaptControl> {
        let napt = |config: &NaptConfig| NaptControl { config: config.clone(), workers: vec![] };
        let mut all: Vec<NaptControl> = configs.iter().map(napt).collect();
        for worker in workers {
            for (napt, NaptShared { counters, .. }) in all.iter_mut().zip(worker.napts()) {
                napt.workers.push(counters);
            }
        }
        all
    }

    /// Each counter by its name, in kebab-case, summed over the workers.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let first = self.workers.first().into_iter().flat_map(|counters| counters.all());
        first.enumerate().map(|(place, (name, _))| {
            let workers = self.workers.iter().filter_map(|counters| counters.all().nth(place));
            (name, workers.map(|(_, count)| count).sum())
        })
    }
}
