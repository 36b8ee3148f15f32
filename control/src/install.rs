//! What the agents and the kernel want forwarded, put into the dataplane's
//! tables. The only writer of the tables.
//!
//! A table that is full loses nothing: what did not fit is kept and tried again,
//! and the operator is told once. (A table is also full for a moment when a
//! sleeping RX core still holds on to what was replaced.)
//!
//! The table of local addresses has two sources, the configured agents and the
//! kernel. Where both know an address, it is the agent's.
//!
//! The kernel's routes are written once for the underlay and once for each tenant
//! that has agents here. A tenant gets those through ports of its own and of the
//! underlay, none through another tenant's. Beside them stand, in their tenant's
//! routes alone, the networks behind bound mobile routers; they come first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::Ipv4Addr;

use homeport_dataplane::broadcast::ListenerWriter;
use homeport_dataplane::classify::UNDERLAY;
use homeport_dataplane::table::binding::{
    BindingEntry, BindingKey, Encapsulation, EntryFlags, TunnelEnd, TunnelFlags,
};
use homeport_dataplane::table::hash::{TableFull, Writer};
use homeport_dataplane::table::keyed::TableKey;
use homeport_dataplane::table::local::{LocalEntry, LocalKey};
use homeport_dataplane::table::lpm::{RouteWriter, Scope};
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::qsbr::Held;
use homeport_dataplane::table::route::RouteEntry;
use homeport_dataplane::table::source_route::SourceRouteWriter;
use homeport_dataplane::table::visitor::{VisitorEntry, VisitorKey, VisitorWriter};
use homeport_proto::action::BindingState;
use homeport_proto::config::{AgentConfig, Prefix};
use homeport_proto::{Action, PortId, TenantId};

pub use self::claims::ClaimKeeper;
use self::visiting::Visiting;
use crate::kernel::{Change, KernelLocal};

mod claims;
mod visiting;

/// The writers of the dataplane's tables.
pub struct Tables {
    /// Bindings of home agents.
    pub bindings: Writer<BindingKey, BindingEntry>,
    /// Bound nodes that get their home link's broadcasts.
    pub listeners: ListenerWriter,
    /// Visitors of foreign agents.
    pub visitors: VisitorWriter,
    /// Addresses of this box.
    pub locals: Writer<LocalKey, LocalEntry>,
    /// Routes.
    pub routes: RouteWriter,
    /// Visitors' source-restricted routes.
    pub source_routes: SourceRouteWriter,
    /// Neighbours.
    pub neighbors: Writer<NeighborKey, NeighborEntry>,
}

/// A home address in its tenant.
type BoundAddress = (TenantId, Ipv4Addr);

/// Keeps the tables as they are wanted.
pub struct Installer {
    bindings: Kept<Writer<BindingKey, BindingEntry>>,
    listeners: ListenerWriter,
    visiting: Visiting,
    locals: Kept<Writer<LocalKey, LocalEntry>>,
    routes: Kept<RouteWriter>,
    neighbors: Kept<Writer<NeighborKey, NeighborEntry>>,
    claims: ClaimKeeper,
    port_tenants: Vec<TenantId>,
    tenants: BTreeSet<TenantId>,
    configured: BTreeMap<Ipv4Addr, LocalEntry>,
    kernel_locals: BTreeMap<Ipv4Addr, KernelLocal>,
    kernel_routes: BTreeMap<Prefix, RouteEntry>,
    /// The networks of each bound mobile router, and the same by network.
    mobile_routers: BTreeMap<BoundAddress, Vec<Prefix>>,
    mobile_networks: BTreeMap<(TenantId, Prefix), Ipv4Addr>,
    links: BTreeMap<PortId, bool>,
}

impl Installer {
    /// The writer of these tables, which are empty. `port_tenants` says whose each
    /// port is, by its number; `claims` are for those of AF_XDP.
    pub fn new(tables: Tables, port_tenants: Vec<TenantId>, claims: ClaimKeeper) -> Self {
        Installer {
            bindings: Kept::new("bindings", tables.bindings),
            listeners: tables.listeners,
            visiting: Visiting::new(tables.visitors, tables.source_routes),
            locals: Kept::new("local addresses", tables.locals),
            routes: Kept::new("routes", tables.routes),
            neighbors: Kept::new("neighbours", tables.neighbors),
            claims,
            port_tenants,
            tenants: BTreeSet::from([UNDERLAY]),
            configured: BTreeMap::new(),
            kernel_locals: BTreeMap::new(),
            kernel_routes: BTreeMap::new(),
            mobile_routers: BTreeMap::new(),
            mobile_networks: BTreeMap::new(),
            links: BTreeMap::new(),
        }
    }

    /// Does what an action says about the tables. Returns whether it did: the
    /// other actions are not for the tables.
    pub fn apply(&mut self, action: &Action) -> bool {
        match action {
            Action::InstallBinding(binding) => self.install_binding(binding),
            Action::RemoveBinding { tenant, home_address } => {
                tracing::debug!(%tenant, %home_address, "binding removed");
                let (tenant, home_address) = (*tenant, *home_address);
                let key = BindingKey { tenant, home_address };
                self.bindings.remove(&key);
                self.route_behind((tenant, home_address), &[]);
                self.listen(key, None);
                self.claims.unbind((tenant, home_address));
            }
            Action::InstallVisitor(visitor) => {
                let (key, reached) = self.visiting.install(visitor);
                self.claims.visit(key, reached);
            }
            Action::RemoveVisitor { tenant, home_address, home_agent } => {
                let (tenant, home_address, home_agent) = (*tenant, *home_address, *home_agent);
                let key = VisitorKey { tenant, home_address, home_agent };
                self.visiting.remove(key);
                self.claims.leave(key);
            }
            Action::GratuitousArp { .. }
            | Action::Transmit(_)
            | Action::StoreSession { .. }
            | Action::Event(_) => return false,
        }
        true
    }

    /// Brings a binding's place in the table into the processor's cache.
    pub fn prepare(&self, tenant: TenantId, home_address: Ipv4Addr) {
        std::hint::black_box(self.bindings.writer.get(&BindingKey { tenant, home_address }));
    }

    /// Makes the local addresses those of this config's agents and the kernel's,
    /// the routes those of this config's tenants, and visitors' ways those of their
    /// foreign agents.
    pub fn configure(&mut self, config: &AgentConfig) {
        self.configure_tenants(config);
        self.claims.configure(config);
        for (key, reached) in self.visiting.configure(config) {
            self.claims.visit(key, reached);
        }
        let wanted = configured_addresses(config);
        let before = std::mem::replace(&mut self.configured, wanted);
        let mut touched: Vec<Ipv4Addr> =
            before.keys().chain(self.configured.keys()).copied().collect();
        touched.sort_unstable();
        touched.dedup();
        for address in touched {
            self.update_local(address);
        }
    }

    /// Does what the kernel mirror tells.
    pub fn apply_change(&mut self, change: Change) {
        match change {
            Change::Route(prefix, entry) => {
                match entry {
                    Some(entry) => drop(self.kernel_routes.insert(prefix, entry)),
                    None => drop(self.kernel_routes.remove(&prefix)),
                }
                for tenant in self.tenants.clone() {
                    self.update_route(tenant, prefix);
                }
            }
            Change::Neighbor(key, Some(entry)) => self.neighbors.install(key, entry),
            Change::Neighbor(key, None) => self.neighbors.remove(&key),
            Change::Local(address, local) => {
                match local {
                    Some(local) => drop(self.kernel_locals.insert(address, local)),
                    None => drop(self.kernel_locals.remove(&address)),
                }
                self.update_local(address);
            }
            Change::Link(port, up) => {
                self.links.insert(port, up);
            }
        }
    }

    /// Tries again what did not fit. Returns whether something still waits.
    pub fn retry(&mut self) -> bool {
        self.bindings.retry();
        self.visiting.visitors.retry();
        self.visiting.source_routes.retry();
        self.locals.retry();
        self.routes.retry();
        self.neighbors.retry();
        self.is_late()
    }

    /// Whether something waits for room.
    pub fn is_late(&self) -> bool {
        !(self.bindings.late.is_empty()
            && self.visiting.visitors.late.is_empty()
            && self.visiting.source_routes.late.is_empty()
            && self.locals.late.is_empty()
            && self.routes.late.is_empty()
            && self.neighbors.late.is_empty())
    }

    /// How often each table was full, by its name.
    pub fn full_counts(&self) -> [(&'static str, u64); 6] {
        [
            (self.bindings.name, self.bindings.full),
            (self.visiting.visitors.name, self.visiting.visitors.full),
            (self.visiting.source_routes.name, self.visiting.source_routes.full),
            (self.locals.name, self.locals.full),
            (self.routes.name, self.routes.full),
            (self.neighbors.name, self.neighbors.full),
        ]
    }

    /// What the tables that change most hold back for the slowest RX core.
    pub fn held(&mut self) -> [Option<Held>; 3] {
        [
            self.bindings.writer.held(),
            self.visiting.visitors.writer.held(),
            self.neighbors.writer.held(),
        ]
    }

    /// Whether the kernel twin of a port is up, as far as the kernel told.
    pub fn is_link_up(&self, port: PortId) -> bool {
        self.links.get(&port).copied().unwrap_or(false)
    }

    /// The underlay's routes in force, ordered by prefix.
    pub fn routes(&self) -> Vec<(Prefix, RouteEntry)> {
        let mut routes: Vec<_> = self
            .routes
            .writer
            .iter()
            .filter(|(key, _)| key.scope() == UNDERLAY)
            .filter_map(|(key, entry)| Some((Prefix::new(key.prefix(), key.prefix_len())?, *entry)))
            .collect();
        routes.sort_unstable_by_key(|(prefix, _)| *prefix);
        routes
    }

    /// The bindings in force, in no order.
    pub fn bindings(&self) -> impl Iterator<Item = (&BindingKey, &BindingEntry)> {
        self.bindings.writer.iter()
    }

    /// The visitors in force, ordered by tenant, home address and home agent.
    pub fn visitors(&self) -> impl Iterator<Item = (&VisitorKey, &VisitorEntry)> {
        self.visiting.visitors.writer.iter()
    }

    /// How many bindings and how many visitors the tables take.
    pub fn capacities(&self) -> (usize, usize) {
        (self.bindings.writer.capacity(), self.visiting.visitors.writer.capacity())
    }

    /// The neighbours in force, ordered by port and address.
    pub fn neighbors(&self) -> Vec<(NeighborKey, NeighborEntry)> {
        let mut neighbors: Vec<_> =
            self.neighbors.writer.iter().map(|(key, entry)| (*key, *entry)).collect();
        neighbors.sort_unstable_by_key(|(key, _)| (key.port, key.address));
        neighbors
    }

    fn install_binding(&mut self, binding: &BindingState) {
        let key = BindingKey { tenant: binding.tenant, home_address: binding.home_address };
        let router = (binding.tenant, binding.home_address);
        let Some(entry) = binding_entry(binding) else {
            self.bindings.remove(&key);
            self.route_behind(router, &[]);
            self.claims.unbind(router);
            return self.listen(key, None);
        };
        self.claims.bind(router, entry.home_link());
        // A renewal is no change of state: most change nothing.
        if !self.bindings.has(&key, &entry) {
            let home_address = binding.home_address;
            let tunnels = entry.tunnels();
            tracing::debug!(tenant = %binding.tenant, %home_address, ?tunnels, "binding installed");
            self.bindings.install(key, entry);
        }
        self.route_behind(router, &binding.mobile_networks);
        self.listen(key, Some(&entry));
    }

    /// Routes these networks, and no others, to a bound mobile router (RFC 5177
    /// §6.3).
    fn route_behind(&mut self, router: BoundAddress, networks: &[Prefix]) {
        let (tenant, home_address) = router;
        let before = match networks {
            [] => self.mobile_routers.remove(&router),
            networks => self.mobile_routers.insert(router, networks.to_vec()),
        };
        for prefix in before.unwrap_or_default() {
            let key = (tenant, prefix);
            let is_its_own = self.mobile_networks.get(&key) == Some(&home_address);
            if is_its_own && !networks.contains(&prefix) {
                tracing::info!(%tenant, %prefix, %home_address, "mobile network removed");
                self.mobile_networks.remove(&key);
                self.update_route(tenant, prefix);
                self.claims.route(tenant, prefix, false);
            }
        }
        for prefix in networks {
            if self.mobile_networks.insert((tenant, *prefix), home_address) != Some(home_address) {
                tracing::info!(%tenant, %prefix, %home_address, "mobile network installed");
                self.claims.route(tenant, *prefix, true);
                self.update_route(tenant, *prefix);
            }
        }
    }

    /// Lists a node for its home link's broadcasts if its binding asks for them
    /// (RFC 5944 §3.3, flag B), or takes it off the list.
    fn listen(&mut self, key: BindingKey, entry: Option<&BindingEntry>) {
        if self.listeners.update(key, entry).is_err() {
            let home_address = key.home_address;
            tracing::warn!(tenant = %key.tenant, %home_address, "goes without broadcasts: its link has too many nodes that want them");
        }
    }

    fn configure_tenants(&mut self, config: &AgentConfig) {
        let mut wanted = BTreeSet::from([UNDERLAY]);
        wanted.extend(config.home_agents.iter().map(|agent| agent.tenant));
        wanted.extend(config.foreign_agents.iter().map(|agent| agent.tenant));
        wanted.extend(config.advertisers.iter().map(|advertiser| advertiser.tenant));
        let before = std::mem::replace(&mut self.tenants, wanted.clone());
        let prefixes: Vec<Prefix> = self.kernel_routes.keys().copied().collect();
        for tenant in before.symmetric_difference(&wanted) {
            for prefix in &prefixes {
                self.update_route(*tenant, *prefix);
            }
        }
    }

    /// A mobile network's route comes before the kernel's to the same prefix, which
    /// leads to the router when it is at home.
    fn update_route(&mut self, tenant: TenantId, prefix: Prefix) {
        let router = self.mobile_networks.get(&(tenant, prefix));
        let behind = router.map(|router| RouteEntry::MobileRouter { home_address: *router });
        let entry = self.kernel_routes.get(&prefix).copied().filter(|entry| match entry {
            RouteEntry::Via { port, .. } => {
                let owner = self.port_tenants.get(usize::from(port.0)).copied();
                let owner = owner.unwrap_or(UNDERLAY);
                tenant == UNDERLAY || owner == UNDERLAY || owner == tenant
            }
            RouteEntry::MobileRouter { .. } | RouteEntry::Unreachable => true,
        });
        match behind.or(entry).filter(|_| self.tenants.contains(&tenant)) {
            Some(entry) => self.routes.install((tenant, prefix), entry),
            None => self.routes.remove(&(tenant, prefix)),
        }
    }

    fn update_local(&mut self, address: Ipv4Addr) {
        let key = LocalKey { address };
        let entry = match (self.configured.get(&address), self.kernel_locals.get(&address)) {
            (Some(configured), _) => Some(*configured),
            (None, Some(local)) => Some(LocalEntry {
                tenant: UNDERLAY,
                broadcast: local.broadcast,
                ..LocalEntry::default()
            }),
            (None, None) => None,
        };
        self.claims.local(address, entry.as_ref());
        match entry {
            Some(entry) => self.locals.install(key, entry),
            None => self.locals.remove(&key),
        }
    }
}

/// The addresses that the agents of a config answer at, and what each one is.
fn configured_addresses(config: &AgentConfig) -> BTreeMap<Ipv4Addr, LocalEntry> {
    let mut addresses: BTreeMap<Ipv4Addr, LocalEntry> = BTreeMap::new();
    for agent in &config.home_agents {
        let entry = addresses.entry(agent.address).or_default();
        entry.tenant = agent.tenant;
        entry.home_agent = true;
    }
    for agent in &config.foreign_agents {
        let entry = addresses.entry(agent.care_of_address).or_default();
        entry.tenant = agent.tenant;
        entry.care_of_address = true;
        for (_, address) in &agent.links {
            let entry = addresses.entry(*address).or_default();
            entry.tenant = agent.tenant;
            entry.agent = true;
        }
    }
    for advertiser in &config.advertisers {
        let known = addresses.contains_key(&advertiser.address);
        let entry = addresses.entry(advertiser.address).or_default();
        entry.agent = true;
        if !known {
            entry.tenant = advertiser.tenant;
        }
    }
    addresses
}

const fn encapsulation(from: homeport_proto::Encapsulation) -> Encapsulation {
    match from {
        homeport_proto::Encapsulation::IpInIp => Encapsulation::IpInIp,
        homeport_proto::Encapsulation::Minimal => Encapsulation::Minimal,
        homeport_proto::Encapsulation::Gre { key } => Encapsulation::Gre { key },
        homeport_proto::Encapsulation::Udp { peer_port } => Encapsulation::Udp { peer_port },
        homeport_proto::Encapsulation::PlainUdp { peer_port } => {
            Encapsulation::PlainUdp { peer_port }
        }
    }
}

/// The table's entry of a binding; `None` without a care-of address. The
/// dataplane copies to as many care-of addresses as an entry holds: the first ones
/// count.
fn binding_entry(binding: &BindingState) -> Option<BindingEntry> {
    let ends = binding.care_of_addresses.iter().map(|care_of| {
        let flags = TunnelFlags::default()
            .with(TunnelFlags::REVERSE, care_of.reverse_tunnel)
            .with(TunnelFlags::CO_LOCATED, care_of.co_located)
            .with(TunnelFlags::BROADCAST, care_of.broadcast)
            .with(TunnelFlags::UNPROVEN, care_of.unproven);
        TunnelEnd::new(care_of.address, encapsulation(care_of.encapsulation), flags)
    });
    let flags = entry_flags(binding.set_df, binding.clamp_mss);
    BindingEntry::new(binding.home_agent, ends, binding.home_link, flags)
}

fn entry_flags(set_df: bool, clamp_mss: bool) -> EntryFlags {
    EntryFlags::default().with(EntryFlags::SET_DF, set_df).with(EntryFlags::CLAMP_MSS, clamp_mss)
}

/// A table that can be written.
trait Table {
    type Key: Copy + Eq + Hash;
    type Value: Copy;

    fn install(&mut self, key: Self::Key, value: Self::Value) -> Result<(), TableFull>;
    fn remove(&mut self, key: &Self::Key);
}

impl<K, V> Table for Writer<K, V>
where
    K: TableKey + Hash,
    V: Copy + Send + Sync + 'static,
{
    type Key = K;
    type Value = V;

    fn install(&mut self, key: K, value: V) -> Result<(), TableFull> {
        Writer::install(self, key, value)
    }

    fn remove(&mut self, key: &K) {
        Writer::remove(self, key);
    }
}

impl Table for VisitorWriter {
    type Key = VisitorKey;
    type Value = VisitorEntry;

    fn install(&mut self, key: VisitorKey, entry: VisitorEntry) -> Result<(), TableFull> {
        VisitorWriter::install(self, key, entry)
    }

    fn remove(&mut self, key: &VisitorKey) {
        VisitorWriter::remove(self, key);
    }
}

impl<S: Scope + Hash, V: Copy + Eq + Hash + Send + Sync + 'static> Table for RouteWriter<S, V> {
    type Key = (S, Prefix);
    type Value = V;

    fn install(&mut self, (scope, prefix): (S, Prefix), entry: V) -> Result<(), TableFull> {
        RouteWriter::install(self, scope, prefix.address(), prefix.prefix_len(), entry)
    }

    fn remove(&mut self, (scope, prefix): &(S, Prefix)) {
        RouteWriter::remove(self, *scope, prefix.address(), prefix.prefix_len());
    }
}

/// A table and what is wanted in it but had no room yet.
struct Kept<T: Table> {
    name: &'static str,
    writer: T,
    late: HashMap<T::Key, T::Value>,
    full: u64,
}

impl Kept<Writer<BindingKey, BindingEntry>> {
    /// Whether the table has this value of this key, and shall have no other.
    fn has(&self, key: &BindingKey, value: &BindingEntry) -> bool {
        self.writer.get(key) == Some(value)
            && (self.late.is_empty() || !self.late.contains_key(key))
    }
}

impl<T: Table> Kept<T> {
    fn new(name: &'static str, writer: T) -> Self {
        Kept { name, writer, late: HashMap::new(), full: 0 }
    }

    fn install(&mut self, key: T::Key, value: T::Value) {
        if self.writer.install(key, value).is_ok() {
            if !self.late.is_empty() {
                self.late.remove(&key);
            }
            return;
        }
        self.full += 1;
        if self.late.is_empty() {
            tracing::warn!(
                table = self.name,
                "the table is full; what does not fit is tried again"
            );
        }
        self.late.insert(key, value);
    }

    fn remove(&mut self, key: &T::Key) {
        self.late.remove(key);
        self.writer.remove(key);
    }

    fn retry(&mut self) {
        let writer = &mut self.writer;
        let mut room = true;
        self.late.retain(|key, value| {
            room = room && writer.install(*key, *value).is_ok();
            !room
        });
    }
}

#[cfg(test)]
mod tests;
