//! The box that is measured, with all that its tables hold.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use homeport_dataplane::launch::{Control, DataplaneConfig, PollMode, PortSetup, build};
use homeport_dataplane::napt::NaptConfig;
use homeport_dataplane::port::Port;
use homeport_dataplane::table::binding::{
    BindingEntry, BindingKey, EntryFlags, TunnelEnd, TunnelFlags,
};
use homeport_dataplane::table::local::{LocalEntry, LocalKey};
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_dataplane::worker::Worker;
use homeport_wire::{PortId, TenantId};

use crate::addresses;
use crate::case::Family;
use crate::frames::STATION;
use crate::generator::{GeneratorPort, INSIDE, OUTSIDE, Shared};

/// The one tenant: the links are its own.
pub const TENANT: TenantId = TenantId(0);

/// A box with two ports of the generator.
pub struct World {
    /// What the control core has of it.
    pub control: Control,
    /// What the packet cores run.
    pub workers: Vec<Worker>,
    /// How long its bindings took to install.
    pub installed_in: Duration,
}

/// How much a box holds.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Which cases it is for.
    pub family: Family,
    /// Its bindings, or the flows that it will be led to open.
    pub entries: u64,
}

impl World {
    /// Makes one whose ports are the generator's, with a worker and a queue of each port
    /// for each of `shared`, on these cores. `progress` is told how many bindings are
    /// installed, now and then.
    ///
    /// # Errors
    /// A table is full, or the system has no descriptor left.
    pub fn new(
        size: &Size,
        shared: &[Arc<Shared>],
        cores: &[Option<usize>],
        progress: impl Fn(u64),
    ) -> Result<World> {
        let port = |number: u8| {
            let queue = |(worker, shared): (usize, &Arc<Shared>)| -> Box<dyn Port> {
                Box::new(GeneratorPort::new(number, worker, Arc::clone(shared)))
            };
            shared.iter().enumerate().map(queue).collect()
        };
        World::with_ports(size, [INSIDE, OUTSIDE].map(port), cores, progress)
    }

    /// The same with these queues of its two ports.
    ///
    /// # Errors
    /// As [`World::new`].
    pub fn with_ports(
        size: &Size,
        ports: [Vec<Box<dyn Port>>; 2],
        cores: &[Option<usize>],
        progress: impl Fn(u64),
    ) -> Result<World> {
        let setup = |(number, queues): (usize, Vec<Box<dyn Port>>)| PortSetup {
            name: format!("port{number}"),
            tenant: TENANT,
            queues,
            twin: None,
        };
        let ports = ports.into_iter().enumerate().map(setup).collect();
        let config = DataplaneConfig { cores: cores.to_vec(), ..config(size) };
        let (mut control, workers) = build(&config, ports).context("making the dataplane")?;
        furnish(&mut control)?;
        let begin = Instant::now();
        match size.family {
            Family::Flows => {
                for address in external_addresses(size.entries) {
                    local(&mut control, address, LocalEntry::default())?;
                }
            }
            family => bind(&mut control, family, size.entries, progress)?,
        }
        Ok(World { control, workers, installed_in: begin.elapsed() })
    }
}

fn config(size: &Size) -> DataplaneConfig {
    let flows = size.family == Family::Flows;
    let entries = usize::try_from(size.entries).unwrap_or(usize::MAX);
    DataplaneConfig {
        poll: PollMode::Busy,
        // As an operator would have it: no more than the worker needs.
        buffers: 0,
        hash_seed: [0x5eed_0000_0000_0001, 0x5eed_0000_0000_0002],
        bindings: if flows { 1 } else { entries },
        punt_ring: if flows { 1 << 24 } else { 1 << 18 },
        napts: if flows { vec![napt(size.entries)] } else { Vec::new() },
        ..DataplaneConfig::default()
    }
}

/// A NAPT with room for this many flows and the ports that their hosts are given.
fn napt(flows: u64) -> NaptConfig {
    let (inside, outside) = (PortId(u16::from(INSIDE)), PortId(u16::from(OUTSIDE)));
    let addresses = external_addresses(flows).collect();
    let flows = usize::try_from(flows).unwrap_or(usize::MAX);
    NaptConfig {
        ports: PORTS,
        block_size: BLOCK,
        // Nobody is near a limit: what is measured is the opening, not the refusal.
        max_sessions: flows + flows / 2,
        sessions_per_second_per_host: 1_000_000,
        ..NaptConfig::new("bench", vec![inside], outside, addresses)
    }
}

const PORTS: std::ops::RangeInclusive<u16> = 1024..=65_535;
const BLOCK: u16 = 128;

/// As many as have a block of ports for each host.
fn external_addresses(flows: u64) -> impl Iterator<Item = Ipv4Addr> {
    let hosts = flows.div_ceil(addresses::FLOWS_PER_HOST);
    let blocks = u64::from((PORTS.end() - PORTS.start()) / BLOCK);
    // A quarter more, so that a block is found as on a box that is not all used up.
    let count = (hosts + hosts / 4).div_ceil(blocks).max(1);
    (0..count).map(|number| addresses::external(number as u32))
}

/// Addresses, routes and neighbours.
fn furnish(control: &mut Control) -> Result<()> {
    let agent = LocalEntry { home_agent: true, ..LocalEntry::default() };
    local(control, addresses::HOME_AGENT, agent)?;
    let via = |port: u8, gateway: Option<Ipv4Addr>| RouteEntry::Via {
        port: PortId(u16::from(port)),
        gateway,
    };
    let gateway = Some(addresses::GATEWAY);
    let mut routes = vec![
        ((Ipv4Addr::UNSPECIFIED, 0), via(OUTSIDE, gateway)),
        ((Ipv4Addr::new(100, 64, 0, 0), 10), via(INSIDE, gateway)),
        (addresses::HOME_NETWORK, via(INSIDE, None)),
        (addresses::NOWHERE_NETWORK, RouteEntry::Unreachable),
        ((Ipv4Addr::new(192, 0, 2, 0), 24), via(OUTSIDE, None)),
    ];
    // Links of the box and what its router told, of several lengths.
    routes.extend((0..16).map(|n| ((Ipv4Addr::new(172, 16, n, 0), 24), via(n % 2, None))));
    routes.extend((0..16).map(|n| ((Ipv4Addr::new(172, 32 + n, 0, 0), 16), via(n % 2, gateway))));
    for ((prefix, len), entry) in routes {
        control.routes.install(TENANT, prefix, len, entry).map_err(|e| anyhow!("routes: {e}"))?;
    }
    for port in [INSIDE, OUTSIDE] {
        let key = NeighborKey { port: PortId(u16::from(port)), address: addresses::GATEWAY };
        let entry = NeighborEntry { mac: STATION };
        control.neighbors.install(key, entry).map_err(|e| anyhow!("neighbours: {e}"))?;
    }
    Ok(())
}

fn local(control: &mut Control, address: Ipv4Addr, entry: LocalEntry) -> Result<()> {
    control.locals.install(LocalKey { address }, entry).map_err(|e| anyhow!("addresses: {e}"))
}

fn bind(control: &mut Control, family: Family, count: u64, progress: impl Fn(u64)) -> Result<()> {
    for node in 0..count {
        let (key, entry) = binding(family, node, EntryFlags::default())?;
        control.bindings.install(key, entry).map_err(|e| anyhow!("binding {node}: {e}"))?;
        if node & 0xffff == 0 {
            progress(node);
        }
    }
    Ok(())
}

/// The binding of a node.
///
/// # Errors
/// Never: a binding with a tunnel can be made.
pub fn binding(family: Family, node: u64, flags: EntryFlags) -> Result<(BindingKey, BindingEntry)> {
    let key = BindingKey { tenant: TENANT, home_address: addresses::home(node) };
    let encapsulation = family.kind(node).encapsulation(node);
    let end = TunnelEnd::new(addresses::care_of(node), encapsulation, TunnelFlags::REVERSE);
    let entry = BindingEntry::new(addresses::HOME_AGENT, [end], None, flags);
    Ok((key, entry.context("a binding without a tunnel")?))
}
