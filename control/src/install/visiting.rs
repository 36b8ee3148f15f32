//! Visitors, and which way their packets go: the visitor table and the table of
//! source-restricted routes.
//!
//! Visitors with the same routes share a list. Lists are made anew with each
//! configuration and taken away after the last visitor has changed to a new one: a
//! visitor is never without its routes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use homeport_dataplane::table::source_route::{
    LocalWay, RouteList, SourceRouteEntry, SourceRouteWriter,
};
use homeport_dataplane::table::visitor::{ReverseTunnel, VisitorEntry, VisitorKey, VisitorWriter};
use homeport_proto::TenantId;
use homeport_proto::action::VisitorState;
use homeport_proto::config::{AgentConfig, Prefix, SourceRoute, Via};

use super::{Kept, encapsulation, entry_flags};

/// The cost of the tunnel to a visitor's home network: no local way is cheaper.
const HOME_COST: u16 = 0;

/// Keeps both tables as they are wanted.
pub(super) struct Visiting {
    pub(super) visitors: Kept<VisitorWriter>,
    pub(super) source_routes: Kept<SourceRouteWriter>,
    /// Of each foreign agent, by tenant and care-of address.
    policies: BTreeMap<(TenantId, Ipv4Addr), Policy>,
    states: BTreeMap<VisitorKey, VisitorState>,
    lists: BTreeMap<Routes, RouteList>,
    last_list: u32,
}

/// How a foreign agent treats its visitors' own packets.
#[derive(Clone, Default, PartialEq, Eq)]
struct Policy {
    napt: Option<u16>,
    source_routes: Vec<SourceRoute>,
}

/// The routes of one list.
type Routes = BTreeMap<Prefix, SourceRouteEntry>;

impl Visiting {
    pub(super) fn new(visitors: VisitorWriter, source_routes: SourceRouteWriter) -> Self {
        Visiting {
            visitors: Kept::new("visitors", visitors),
            source_routes: Kept::new("source-restricted routes", source_routes),
            policies: BTreeMap::new(),
            states: BTreeMap::new(),
            lists: BTreeMap::new(),
            last_list: 0,
        }
    }

    /// Returns the visitors whose ways changed, as [`Visiting::install`] does.
    pub(super) fn configure(&mut self, config: &AgentConfig) -> Vec<(VisitorKey, bool)> {
        let policy = |agent: &homeport_proto::config::ForeignAgentConfig| Policy {
            napt: agent.napt,
            source_routes: agent.source_routes.clone(),
        };
        let policies: BTreeMap<_, _> = config
            .foreign_agents
            .iter()
            .map(|agent| ((agent.tenant, agent.care_of_address), policy(agent)))
            .collect();
        if self.policies == policies {
            return Vec::new();
        }
        self.policies = policies;
        let before = std::mem::take(&mut self.lists);
        let mut changed = Vec::new();
        for (key, state) in self.states.clone() {
            let entry = self.entry(&state);
            self.visitors.install(key, entry);
            changed.push((key, entry.routes.is_some()));
        }
        for (routes, list) in before {
            for prefix in routes.into_keys() {
                self.source_routes.remove(&(list, prefix));
            }
        }
        changed
    }

    /// Returns the visitor, and whether it has source-restricted routes: then packets
    /// for it may be delivered without its tunnel.
    pub(super) fn install(&mut self, visitor: &VisitorState) -> (VisitorKey, bool) {
        let &VisitorState { tenant, home_address, home_agent, .. } = visitor;
        let key = VisitorKey { tenant, home_address, home_agent };
        let entry = self.entry(visitor);
        // A renewal is no change of state.
        if self.visitors.writer.get(&key) != Some(&entry) {
            tracing::debug!(%tenant, %home_address, %home_agent, "visitor installed");
        }
        self.states.insert(key, *visitor);
        self.visitors.install(key, entry);
        (key, entry.routes.is_some())
    }

    pub(super) fn remove(&mut self, key: VisitorKey) {
        let VisitorKey { tenant, home_address, home_agent } = key;
        tracing::debug!(%tenant, %home_address, %home_agent, "visitor removed");
        self.states.remove(&key);
        self.visitors.remove(&key);
    }

    fn entry(&mut self, visitor: &VisitorState) -> VisitorEntry {
        let policy = self.policies.get(&(visitor.tenant, visitor.care_of_address));
        let napt = policy.and_then(|policy| policy.napt);
        let routes = policy.map(|policy| routes_of(&policy.source_routes, visitor));
        VisitorEntry {
            mac: visitor.mac,
            port: visitor.port,
            home_agent: visitor.home_agent,
            care_of_address: visitor.care_of_address,
            encapsulation: encapsulation(visitor.encapsulation),
            reverse_tunnel: match visitor.reverse_tunnel {
                homeport_proto::ReverseTunnel::None => ReverseTunnel::None,
                homeport_proto::ReverseTunnel::Direct => ReverseTunnel::Direct,
                homeport_proto::ReverseTunnel::Encapsulating => ReverseTunnel::Encapsulating,
            },
            flags: entry_flags(visitor.set_df, visitor.clamp_mss),
            overlapping: visitor.overlapping,
            routes: routes.and_then(|routes| self.list(routes)),
            napt,
        }
    }

    /// The list with these routes.
    fn list(&mut self, routes: Routes) -> Option<RouteList> {
        if routes.is_empty() {
            return None;
        }
        if let Some(list) = self.lists.get(&routes) {
            return Some(*list);
        }
        self.last_list = self.last_list.wrapping_add(1).max(1);
        let list = NonZeroU32::new(self.last_list).map(RouteList)?;
        for (prefix, entry) in &routes {
            self.source_routes.install((list, *prefix), *entry);
        }
        self.lists.insert(routes, list);
        Some(list)
    }
}

/// The routes that are for a visitor.
fn routes_of(source_routes: &[SourceRoute], visitor: &VisitorState) -> Routes {
    let mut routes = Routes::new();
    for route in source_routes {
        let is_its_agent = route.home_agent.is_none_or(|agent| agent == visitor.home_agent);
        let lives_there = |prefix: Prefix| prefix.contains(visitor.home_address);
        if !is_its_agent || !route.home_prefix.is_none_or(lives_there) {
            continue;
        }
        // S3-12: home routes beat local ones.
        if let Some(home) = route.home_prefix {
            add(routes.entry(home).or_default(), Via::Tunnel, HOME_COST);
        }
        add(routes.entry(route.destination).or_default(), route.via, route.cost);
    }
    routes
}

/// Adds a way, unless there is a cheaper one of its kind.
fn add(entry: &mut SourceRouteEntry, via: Via, cost: u16) {
    match via {
        Via::Tunnel => {
            entry.tunnel = Some(entry.tunnel.map_or(cost, |before| before.min(cost)));
        }
        Via::Local { napt } => {
            if entry.local.is_none_or(|before| cost < before.cost) {
                entry.local = Some(LocalWay { cost, napt });
            }
        }
    }
}
