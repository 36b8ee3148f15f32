//! What the admin API is told. Reading only: RX cores notice nothing, and keys
//! stay where they are.

mod associations;
mod counters;
mod sessions;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use homeport_dataplane::launch::NaptControl;
use homeport_dataplane::stats::{Counter, PortStats};
use homeport_dataplane::table::binding::TunnelFlags;
use homeport_dataplane::table::route::RouteEntry;
use homeport_dataplane::table::visitor::ReverseTunnel;
use homeport_proto::binding::MobilityBinding;
use homeport_proto::config::ForeignAgentConfig;
use homeport_proto::home_agent::HomeAgent;
use homeport_proto::message::RequestFlags;
use homeport_proto::visitor::{PendingRegistration, Visitor, VisitorName};
use homeport_proto::{Instant, Now, PortId, TenantId};

pub(super) use self::sessions::{session_view, unknown_nai};
use super::EventLoop;
use crate::admin::api::ReverseTunnel as ReverseTunnelView;
use crate::admin::api::{
    AgentView, Answer, BindingView, CareOfView, Cleared, CoreView, Encapsulation, NaptBlockView,
    NaptView, NeighborView, Outcome, PortView, Query, Refusal, Role, RouteView, Status, Totals,
    TunnelView, VisitorState, VisitorView, VisitorsCleared, lifetime_seconds,
};
use crate::admin::names::shown;
use crate::journal::Input;

impl EventLoop {
    pub(super) fn answer(&mut self, query: Query, now: Now) -> Outcome {
        let now_monotonic = now.monotonic;
        Ok(match query {
            Query::Status => Answer::Status(self.status(now_monotonic)),
            Query::Ports => Answer::Ports { ports: self.port_views() },
            Query::Bindings => Answer::Bindings { bindings: self.binding_views(now_monotonic) },
            Query::Visitors => Answer::Visitors { visitors: self.visitor_views(now_monotonic) },
            Query::Sessions(asked) => Answer::Sessions(self.session_views(&asked, now_monotonic)?),
            Query::Pools => Answer::Pools { pools: self.pool_views() },
            Query::Tunnels => Answer::Tunnels { tunnels: self.tunnel_views() },
            Query::Routes => Answer::Routes { routes: self.route_views() },
            Query::Neighbors => Answer::Neighbors { neighbors: self.neighbor_views() },
            Query::Napt => Answer::Napt { napt: self.napt_views(now_monotonic) },
            Query::Drops => Answer::Drops { drops: self.drop_views() },
            Query::Counters => Answer::Counters { counters: self.counter_views() },
            Query::SecurityAssociations => Answer::SecurityAssociations {
                security_associations: self.security_association_views(),
            },
            Query::MobileNode
            | Query::AddSession(_)
            | Query::RemoveSession(_)
            | Query::RemoveAllSessions => {
                return Err(Refusal::not_found(
                    "This process is no mobile node.",
                    "Ask the socket of homeport-mn.",
                ));
            }
            Query::Explain(asked) => self.explain(&asked, now)?,
            Query::ConfigShow => Answer::Config(self.config.clone()),
            Query::ConfigApply(config) => Answer::ConfigApplied(self.apply_config(config, now)?),
            Query::ClearBinding { tenant, home_address } => {
                Answer::Cleared(self.clear_binding(tenant, home_address, now)?)
            }
            Query::ClearVisitor { tenant, home_address } => {
                Answer::VisitorsCleared(self.clear_visitor(tenant, home_address, now)?)
            }
            Query::Trace(query) => {
                return self.core.answer_trace(query, now_monotonic);
            }
        })
    }

    fn status(&self, now: Instant) -> Status {
        let config = &self.config;
        let bindings_of = |tenant: TenantId| -> usize {
            let agents = self.core.agent.home_agents();
            let of_tenant = agents.filter(|agent| agent.config().tenant == tenant);
            of_tenant.map(HomeAgent::binding_count).sum()
        };
        let bindings: usize = self.core.agent.home_agents().map(HomeAgent::binding_count).sum();
        let visitors: Vec<Ipv4Addr> =
            self.core.agent.visitors().map(|visitor| visitor.state.care_of_address).collect();
        let home_agents = config.home_agents.iter().map(|agent| AgentView {
            name: agent.name.clone(),
            role: Role::HomeAgent,
            tenant: agent.config.tenant.0,
            address: agent.config.address,
            registrations: count(bindings_of(agent.config.tenant)),
            limit: count(agent.config.max_bindings),
            sessions: Some(self.session_counts(agent.config.tenant, agent.config.address)),
        });
        let foreign_agents = config.foreign_agents.iter().map(|agent| {
            let of_agent = |address: &&Ipv4Addr| **address == agent.config.care_of_address;
            AgentView {
                name: agent.name.clone(),
                role: Role::ForeignAgent,
                tenant: agent.config.tenant.0,
                address: agent.config.care_of_address,
                registrations: count(visitors.iter().filter(of_agent).count()),
                limit: count(agent.config.max_visitors),
                sessions: None,
            }
        });
        let (held, held_for) = self.held_back.totals(now);
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_seconds: now.saturating_since(self.started).as_secs(),
            config_file: config.path.display().to_string(),
            config_generation: self.generation,
            poll: config.dataplane.poll.word().into(),
            workers: u32::try_from(config.dataplane.cores.len()).unwrap_or(u32::MAX).max(1),
            held_back_entries: count(held),
            held_back_seconds: held_for.as_secs(),
            ports: u32::try_from(self.core.ports.len()).unwrap_or(u32::MAX),
            ports_up: u32::try_from(self.core.ports.iter().filter(|port| port.is_up()).count())
                .unwrap_or(u32::MAX),
            bindings: count(bindings),
            subscribers: count(
                config
                    .home_agents
                    .iter()
                    .map(|agent| agent.config.security.mobile_node_count())
                    .sum(),
            ),
            visitors: count(visitors.len()),
            agents: home_agents.chain(foreign_agents).collect(),
            totals: self.core.ports.iter().map(Totals::from).sum(),
        }
    }

    fn port_views(&self) -> Vec<PortView> {
        let both = self.config.ports.iter().zip(self.core.ports.iter());
        let view =
            |(port, shared): (&crate::config::Port, &homeport_dataplane::launch::PortShared)| {
                let sum =
                    |count: fn(&PortStats) -> &Counter| shared.sum(|stats| count(stats).get());
                let totals = Totals::from(shared);
                PortView {
                    name: port.name.clone(),
                    backend: port.backend.word().into(),
                    device: port.backend.device().into(),
                    mac: shared.mac.to_string(),
                    mtu: shared.mtu,
                    up: shared.is_up(),
                    kernel_twin: (!port.backend.is_shared()).then(|| port.kernel_interface.clone()),
                    mode: shared.mode.clone(),
                    addresses: port.addresses.iter().map(ToString::to_string).collect(),
                    rx: sum(|stats| &stats.rx),
                    rx_bytes: sum(|stats| &stats.rx_bytes),
                    tx: sum(|stats| &stats.tx),
                    tx_bytes: sum(|stats| &stats.tx_bytes),
                    from_kernel: sum(|stats| &stats.from_kernel),
                    to_kernel: sum(|stats| &stats.to_kernel),
                    injected: sum(|stats| &stats.injected),
                    originated: sum(|stats| &stats.originated),
                    punted: totals.punted,
                    dropped: totals.dropped,
                    held: totals.held,
                    encapsulated: sum(|stats| &stats.encapsulated),
                    decapsulated: sum(|stats| &stats.decapsulated),
                    keepalives: sum(|stats| &stats.keepalives),
                    reserved_bits: sum(|stats| &stats.reserved_bits),
                    device_counters: shared
                        .counters()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                    cores: (0..)
                        .zip(shared.workers())
                        .map(|(core, stats)| CoreView::new(core, stats))
                        .collect(),
                }
            };
        both.map(view).collect()
    }

    fn binding_views(&self, now: Instant) -> Vec<BindingView> {
        let view = |binding| self.binding_view(binding, now);
        let mut views: Vec<BindingView> = self.core.agent.bindings().map(view).collect();
        views.sort_by_key(|view| (view.tenant, view.home_address));
        views
    }

    pub(super) fn binding_view(&self, binding: MobilityBinding, now: Instant) -> BindingView {
        let care_of_addresses = binding.registrations.iter().map(|registration| {
            let care_of = registration.care_of;
            let (udp_port, gre_key) = details(care_of.encapsulation);
            CareOfView {
                address: care_of.address,
                registered: care_of.registered,
                encapsulation: care_of.encapsulation.into(),
                udp_port: udp_port.filter(|port| *port != 0),
                half_bound: udp_port == Some(0),
                unproven: care_of.unproven,
                keepalive_seconds: registration.keepalive.map(|interval| interval.as_secs()),
                gre_key,
                reverse_tunnel: care_of.reverse_tunnel,
                co_located: care_of.co_located,
                broadcast: care_of.broadcast,
                lifetime_seconds: lifetime_seconds(care_of.lifetime),
                remaining_seconds: lifetime_seconds(registration.remaining(now)),
            }
        });
        let (nai, session) =
            self.names_of(binding.tenant, binding.home_agent, binding.home_address).unzip();
        BindingView {
            tenant: binding.tenant.0,
            home_address: binding.home_address,
            home_agent: binding.home_agent,
            care_of_addresses: care_of_addresses.collect(),
            home_link: binding.home_link.map(|port| self.port_name(port)),
            mobile_networks: binding.mobile_networks.iter().map(ToString::to_string).collect(),
            nai,
            session,
            age_seconds: now.saturating_since(binding.since).as_secs(),
        }
    }

    fn visitor_views(&self, now: Instant) -> Vec<VisitorView> {
        let registered = self.core.agent.visitors().map(|visitor| self.visitor_view(visitor, now));
        let pending = self.core.agent.foreign_agents().flat_map(|agent| {
            agent.pending().map(|pending| self.pending_view(agent.config(), pending))
        });
        let mut views: Vec<VisitorView> = registered.chain(pending).collect();
        views.sort_by_key(|view| (view.tenant, view.home_address, view.home_agent));
        views
    }

    pub(super) fn visitor_view(&self, visitor: &Visitor, now: Instant) -> VisitorView {
        let state = &visitor.state;
        let key = (state.tenant, state.home_address, state.home_agent);
        let since = self.core.visiting_since.get(&key);
        let remaining = visitor.expires.map(|expires| expires.saturating_since(now).as_secs());
        VisitorView {
            tenant: state.tenant.0,
            home_address: state.home_address,
            home_agent: state.home_agent,
            nai: nai(visitor.name.as_deref()),
            session: session(visitor.name.as_deref()),
            care_of_address: state.care_of_address,
            mac: state.mac.to_string(),
            port: self.port_name(state.port),
            state: VisitorState::Registered,
            encapsulation: state.encapsulation.into(),
            keepalive_seconds: visitor.keepalive.map(|interval| interval.as_secs()),
            gre_key: details(state.encapsulation).1,
            reverse_tunnel: state.reverse_tunnel.into(),
            lifetime_seconds: lifetime_seconds(visitor.lifetime),
            remaining_seconds: remaining,
            age_seconds: since.map_or(0, |since| now.saturating_since(*since).as_secs()),
        }
    }

    /// A request on its way to the home agent, with what it asked for.
    pub(super) fn pending_view(
        &self,
        agent: &ForeignAgentConfig,
        pending: &PendingRegistration,
    ) -> VisitorView {
        let (station, request) = (&pending.station, &pending.station.request);
        let asked = lifetime_seconds(request.lifetime);
        VisitorView {
            tenant: agent.tenant.0,
            home_address: request.home_address,
            home_agent: request.home_agent,
            nai: nai(pending.name()),
            session: session(pending.name()),
            care_of_address: request.care_of_address,
            mac: station.mac.to_string(),
            port: self.port_name(station.port),
            state: VisitorState::Pending,
            encapsulation: if request.flags.contains(RequestFlags::GRE) {
                Encapsulation::Gre
            } else if request.flags.contains(RequestFlags::MINIMAL) {
                Encapsulation::Minimal
            } else {
                Encapsulation::IpInIp
            },
            keepalive_seconds: None,
            gre_key: None,
            reverse_tunnel: match (
                request.flags.contains(RequestFlags::REVERSE_TUNNEL),
                pending.encapsulating_delivery,
            ) {
                (false, _) => ReverseTunnelView::None,
                (true, false) => ReverseTunnelView::Direct,
                (true, true) => ReverseTunnelView::Encapsulating,
            },
            lifetime_seconds: asked,
            remaining_seconds: None,
            age_seconds: 0,
        }
    }

    fn clear_binding(
        &mut self,
        tenant: TenantId,
        home_address: Ipv4Addr,
        now: Now,
    ) -> Result<Cleared, Refusal> {
        let bound = self
            .core
            .agent
            .home_agents()
            .filter(|agent| agent.config().tenant == tenant)
            .find_map(|agent| agent.binding(home_address));
        let care_of_addresses = bound.map(|bound| count(bound.registrations.len()));
        let care_of_addresses = care_of_addresses.ok_or_else(|| {
            Refusal::not_found(
                format!("There is no binding of {home_address} in tenant {tenant}."),
                "See `homeport show bindings`.",
            )
        })?;
        self.core.input(Input::ClearBinding { tenant, home_address }, now);
        Ok(Cleared { tenant: tenant.0, home_address, care_of_addresses })
    }

    fn clear_visitor(
        &mut self,
        tenant: TenantId,
        home_address: Ipv4Addr,
        now: Now,
    ) -> Result<VisitorsCleared, Refusal> {
        let is_it = |visitor: &&Visitor| {
            visitor.state.tenant == tenant && visitor.state.home_address == home_address
        };
        let visitors = self.core.agent.visitors().filter(is_it).count();
        if visitors == 0 {
            return Err(Refusal::not_found(
                format!("There is no visitor {home_address} in tenant {tenant}."),
                "See `homeport show visitors`.",
            ));
        }
        self.core.input(Input::ClearVisitor { tenant, home_address }, now);
        Ok(VisitorsCleared { tenant: tenant.0, home_address, visitors: count(visitors) })
    }

    fn tunnel_views(&self) -> Vec<TunnelView> {
        type How = (Encapsulation, Option<u16>, Option<u32>);
        type Ends = (TenantId, Role, Ipv4Addr, Ipv4Addr, How);
        let how = |from: homeport_dataplane::table::binding::Encapsulation| -> How {
            use homeport_dataplane::table::binding::Encapsulation as Table;
            match from {
                Table::Udp { peer_port } | Table::PlainUdp { peer_port } => {
                    (from.into(), Some(peer_port).filter(|port| *port != 0), None)
                }
                Table::Gre { key } => (from.into(), None, key),
                Table::IpInIp | Table::Minimal => (from.into(), None, None),
            }
        };
        let mut tunnels: BTreeMap<Ends, (u64, u64)> = BTreeMap::new();
        let mut add = |ends: Ends, reverse: bool| {
            let (nodes, reversed) = tunnels.entry(ends).or_default();
            *nodes += 1;
            *reversed += u64::from(reverse);
        };
        for (key, entry) in self.core.installer.bindings() {
            for end in entry.tunnels() {
                let (local, remote) = (entry.home_agent, end.care_of_address());
                let how = how(end.encapsulation());
                let ends = (key.tenant, Role::HomeAgent, local, remote, how);
                add(ends, end.is(TunnelFlags::REVERSE));
            }
        }
        for (key, entry) in self.core.installer.visitors() {
            let (local, remote) = (entry.care_of_address, entry.home_agent);
            let how = how(entry.encapsulation);
            let ends = (key.tenant, Role::ForeignAgent, local, remote, how);
            add(ends, entry.reverse_tunnel != ReverseTunnel::None);
        }
        let view = |(ends, (nodes, reverse)): (Ends, (u64, u64))| {
            let (tenant, role, local, remote, (encapsulation, udp_port, gre_key)) = ends;
            let tenant = tenant.0;
            TunnelView {
                tenant,
                role,
                local,
                remote,
                encapsulation,
                udp_port,
                gre_key,
                nodes,
                reverse,
            }
        };
        tunnels.into_iter().map(view).collect()
    }

    fn route_views(&self) -> Vec<RouteView> {
        let view = |(prefix, entry): (homeport_proto::config::Prefix, RouteEntry)| {
            let destination = prefix.to_string();
            match entry {
                RouteEntry::Via { port, gateway } => RouteView {
                    destination,
                    port: Some(self.port_name(port)),
                    gateway,
                    mobile_router: None,
                    unreachable: false,
                },
                RouteEntry::MobileRouter { home_address } => RouteView {
                    destination,
                    port: None,
                    gateway: None,
                    mobile_router: Some(home_address),
                    unreachable: false,
                },
                RouteEntry::Unreachable => RouteView {
                    destination,
                    port: None,
                    gateway: None,
                    mobile_router: None,
                    unreachable: true,
                },
            }
        };
        self.core.installer.routes().into_iter().map(view).collect()
    }

    fn neighbor_views(&self) -> Vec<NeighborView> {
        self.core
            .installer
            .neighbors()
            .into_iter()
            .map(|(key, entry)| NeighborView {
                port: self.port_name(key.port),
                address: key.address,
                mac: entry.mac.to_string(),
            })
            .collect()
    }

    fn napt_views(&self, now: Instant) -> Vec<NaptView> {
        let blocks = |number: usize| {
            let own = self.core.blocks.iter().filter(move |((napt, ..), _)| *napt == number);
            own.map(|((_, external, first_port), given)| NaptBlockView {
                tenant: given.host.tenant.0,
                inside: given.host.address,
                mac: given.host.station.map(|mac| mac.to_string()),
                external: *external,
                first_port: *first_port,
                last_port: given.last_port,
                age_seconds: now.saturating_since(given.since).as_secs(),
            })
        };
        let view = |(number, napt): (usize, &NaptControl)| NaptView {
            name: napt.config.name.clone(),
            inside: napt.config.inside.iter().map(|port| self.port_name(*port)).collect(),
            outside: self.port_name(napt.config.outside),
            addresses: napt.config.addresses.clone(),
            port_range: format!("{}-{}", napt.config.ports.start(), napt.config.ports.end()),
            mapping: napt.config.mapping.name().into(),
            filtering: napt.config.filtering.name().into(),
            max_sessions: count(napt.config.max_sessions),
            counters: napt.counters().map(|(name, value)| (name.to_owned(), value)).collect(),
            blocks: blocks(number).collect(),
        };
        self.core.napts.iter().enumerate().map(view).collect()
    }

    pub(super) fn port_name(&self, port: PortId) -> String {
        let port_of = self.config.port(port);
        port_of.map_or_else(|| port.to_string(), |port| port.name.clone())
    }
}

/// The other end's port of a UDP tunnel, zero while it is not known, and the key of
/// a GRE tunnel.
const fn details(from: homeport_proto::Encapsulation) -> (Option<u16>, Option<u32>) {
    use homeport_proto::Encapsulation::{Gre, IpInIp, Minimal, PlainUdp, Udp};
    match from {
        Udp { peer_port } | PlainUdp { peer_port } => (Some(peer_port), None),
        Gre { key } => (None, key),
        IpInIp | Minimal => (None, None),
    }
}

fn nai(name: Option<&VisitorName>) -> Option<String> {
    name.map(|name| shown(&name.nai))
}

fn session(name: Option<&VisitorName>) -> Option<String> {
    name.map(|name| shown(&name.sub_nai))
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
