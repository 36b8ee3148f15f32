//! What boxes know, after each of their turns: the lists of the machines, and the tables of
//! the dataplane.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use homeport_dataplane::table::binding::BindingEntry;
use homeport_proto::Now;
use homeport_proto::message::RegistrationRequest;

use super::{Binding, Oracle, Rule, Verdict, broken};
use crate::boxes::AgentBox;
use crate::simulation::layout::{MAX_VISITORS, care_of_address, home_agent_address, node_mac};

impl Oracle {
    /// What the home agents of a box list is what they accepted, and the table is the lists.
    pub(super) fn judge_bindings(&self, at: usize, one: &AgentBox) -> Verdict {
        let tables: BTreeMap<_, &BindingEntry> = one
            .installer
            .bindings()
            .map(|(key, entry)| ((key.tenant, key.home_address), entry))
            .collect();
        let mut listed = 0;
        for home_agent in self.home_agents_of(at) {
            let agents = one.agent.home_agents();
            let mut agents =
                agents.filter(|agent| agent.config().address == home_agent_address(home_agent));
            let Some(agent) = agents.next() else { continue };
            if agent.binding_count() > agent.config().max_bindings {
                let what =
                    format!("home agent {home_agent} has {} bindings", agent.binding_count());
                return broken(Rule::Bounds, what);
            }
            let expected = self.bindings.iter().filter(|((of, _), _)| *of == home_agent);
            let mut expected: BTreeMap<Ipv4Addr, Binding> =
                expected.map(|((_, home), binding)| (*home, *binding)).collect();
            for binding in agent.bindings() {
                listed += 1;
                let home = binding.home_address;
                let right = expected.remove(&home);
                let [registration] = binding.registrations.as_slice() else {
                    let what = format!(
                        "home agent {home_agent} has several care-of addresses of {home}, which \
                         never asked for more than one: {:?}",
                        binding.registrations
                    );
                    return broken(Rule::Forwarding, what);
                };
                let is = Binding {
                    care_of_address: registration.care_of.address,
                    expires: registration.expires,
                    identification: registration.identification,
                };
                let Some(right) = right else {
                    let what = format!("home agent {home_agent} has {home} bound: {is:?}");
                    return broken(Rule::Lifetime, what);
                };
                if is.care_of_address != right.care_of_address {
                    let what = format!("home agent {home_agent} has {home}: {is:?}, not {right:?}");
                    return broken(Rule::Forwarding, what);
                }
                if is != right {
                    let what = format!("home agent {home_agent} has {home}: {is:?}, not {right:?}");
                    return broken(Rule::Lifetime, what);
                }
                let entry = tables.get(&(binding.tenant, home));
                let ends: Vec<Ipv4Addr> = entry.map_or(Vec::new(), |entry| {
                    entry.tunnels().iter().map(|end| end.care_of_address()).collect()
                });
                if ends != [is.care_of_address] {
                    let what = format!("the table has {home} at {ends:?}, the list {is:?}");
                    return broken(Rule::Tables, what);
                }
            }
            if let Some((home, binding)) = expected.first_key_value() {
                let what = format!("home agent {home_agent} has lost {home}: {binding:?}");
                return broken(Rule::Lifetime, what);
            }
        }
        if tables.len() != listed {
            let what = format!("the table has {} bindings, the lists {listed}", tables.len());
            return broken(Rule::Tables, what);
        }
        Ok(())
    }

    /// What a foreign agent lists is what its nodes asked for, and the table is the list.
    pub(super) fn judge_visitors(&self, foreign_agent: usize, one: &AgentBox, now: Now) -> Verdict {
        let Some(agent) = one.agent.foreign_agents().next() else { return Ok(()) };
        let config = agent.config();
        let mut pending: BTreeMap<_, usize> = BTreeMap::new();
        for one in agent.pending() {
            let station = &one.station;
            let home = station.request.home_address;
            // Without an address, a station's sessions are told apart by their names.
            let name = one.name().filter(|_| home.is_unspecified());
            *pending.entry((home, station.mac, name)).or_default() += 1;
        }
        if agent.pending().len() > config.max_pending
            || agent.visitors().len() > MAX_VISITORS
            || pending.values().any(|count| *count > config.max_pending_per_node)
        {
            let (pending, visitors) = (agent.pending().len(), agent.visitors().len());
            let what =
                format!("foreign agent {foreign_agent}: {pending} pending, {visitors} visit");
            return broken(Rule::Bounds, what);
        }
        let mut table = one.installer.visitors();
        for visitor in agent.visitors() {
            let state = &visitor.state;
            let home = state.home_address;
            let home_agent = self.home_agent_with(state.home_agent);
            let session = visitor.name.as_deref().filter(|name| !name.sub_nai.is_empty());
            let node = home_agent.and_then(|one| match session {
                Some(name) => self.named(one, &name.nai),
                None => self.node(one, home),
            });
            let Some(node) = node.filter(|node| node_mac(node.node) == state.mac) else {
                let what = format!("foreign agent {foreign_agent} has the visitor {state:?}");
                return broken(Rule::Isolation, what);
            };
            let sent = match session {
                Some(name) => self.sessions.sent(node.node, &name.sub_nai),
                None => self.sent.get(&node.node),
            };
            let asked = sent.and_then(|all| {
                all.iter().rfind(|request| request.identification == visitor.identification)
            });
            let is_its = |request: &&RegistrationRequest| {
                request.care_of_address == care_of_address(foreign_agent)
                    && visitor.lifetime <= request.lifetime
            };
            let lasts = visitor.lifetime.duration();
            let ends = lasts.map(|lasts| visitor.registered_at + lasts);
            if asked.filter(is_its).is_none()
                || ends != visitor.expires
                || visitor.expires.is_some_and(|expires| expires <= now.monotonic)
            {
                let what = format!("foreign agent {foreign_agent} has {visitor:?} for {asked:?}");
                return broken(Rule::Lifetime, what);
            }
            let entry = table.next();
            let alike = entry.is_some_and(|(key, entry)| {
                (key.home_address, key.home_agent) == (home, state.home_agent)
                    && (entry.mac, entry.port) == (state.mac, state.port)
                    && entry.care_of_address == state.care_of_address
            });
            if !alike {
                return broken(Rule::Tables, format!("the table has {entry:?} for {state:?}"));
            }
        }
        match table.next() {
            Some(entry) => broken(Rule::Tables, format!("the table has {entry:?} besides")),
            None => Ok(()),
        }
    }
}
