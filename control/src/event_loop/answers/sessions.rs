//! The sessions of the nodes that are known by NAI, and the pools of their addresses.

use std::net::Ipv4Addr;

use homeport_proto::home_agent::{HomeAgent, SessionState, SessionView as Session};
use homeport_proto::{Instant, TenantId};

use super::super::EventLoop;
use crate::admin::api::{
    MAX_SESSION_ROWS, PoolView, Refusal, SessionCounts, SessionView, SessionsArgs, SessionsView,
    lifetime_seconds,
};
use crate::admin::names::shown;

/// Every state of a session.
const STATES: [SessionState; 4] =
    [SessionState::Bound, SessionState::AtHome, SessionState::Sticky, SessionState::HeldDown];

impl EventLoop {
    pub(super) fn session_views(
        &self,
        asked: &SessionsArgs,
        now: Instant,
    ) -> Result<SessionsView, Refusal> {
        let nai = asked.nai.as_deref();
        let mut agents = self.named_home_agents();
        agents.retain(|(_, agent)| {
            let config = agent.config();
            asked.tenant.is_none_or(|tenant| config.tenant.0 == tenant)
                && nai.is_none_or(|nai| config.security.subscriber(nai).is_some())
        });
        if let Some(nai) = nai.filter(|_| agents.is_empty()) {
            return Err(unknown_nai(nai));
        }
        let mut answer = SessionsView::default();
        for (name, agent) in agents {
            let room = MAX_SESSION_ROWS - answer.sessions.len();
            if room == 0 && nai.is_none() {
                answer.more += session_count(agent);
                continue;
            }
            let sessions = agent.sessions(nai);
            answer.more += super::count(sessions.len().saturating_sub(room));
            let views = first_by_nai(&sessions, room);
            answer.sessions.extend(views.map(|one| session_view(name, agent, one, now)));
        }
        Ok(answer)
    }

    pub(super) fn pool_views(&self) -> Vec<PoolView> {
        let mut views = Vec::new();
        for (name, agent) in self.named_home_agents() {
            let config = agent.config();
            let mut counters = self.core.agent.counters();
            let counters = counters.find(|(tenant, _)| *tenant == config.tenant);
            views.extend(agent.pools().into_iter().map(|pool| {
                let (size, free) = (pool.pool.size(), pool.free());
                let used = size.saturating_sub(free);
                PoolView {
                    tenant: config.tenant.0,
                    agent: name.to_owned(),
                    home_agent: config.address,
                    name: pool.pool.name.clone(),
                    realm: pool.pool.realm.clone(),
                    size,
                    bound: pool.count(SessionState::Bound),
                    home: pool.count(SessionState::AtHome),
                    sticky: pool.count(SessionState::Sticky),
                    held_down: pool.count(SessionState::HeldDown),
                    free,
                    use_percent: used.saturating_mul(100).checked_div(size).unwrap_or(100),
                    exhausted: pool.exhausted,
                    exhausted_of_tenant: counters.map_or(0, |(_, one)| one.pools_exhausted),
                }
            }));
        }
        views
    }

    /// How many sessions a home agent has, by state.
    pub(super) fn session_counts(&self, tenant: TenantId, address: Ipv4Addr) -> SessionCounts {
        let mut agents = self.core.agent.home_agents();
        let it = agents
            .find(|agent| (agent.config().tenant, agent.config().address) == (tenant, address));
        let of = |state| it.map_or(0, |agent| super::count(agent.session_count(state)));
        SessionCounts {
            bound: of(SessionState::Bound),
            home: of(SessionState::AtHome),
            sticky: of(SessionState::Sticky),
            held_down: of(SessionState::HeldDown),
        }
    }

    /// The home agents with their names, by tenant and name.
    fn named_home_agents(&self) -> Vec<(&str, &HomeAgent)> {
        let name_of = |agent: &HomeAgent| {
            let (tenant, address) = (agent.config().tenant, agent.config().address);
            let mut named = self.config.home_agents.iter();
            let named =
                named.find(|one| (one.config.tenant, one.config.address) == (tenant, address));
            named.map_or("?", |one| &one.name)
        };
        let mut agents: Vec<(&str, &HomeAgent)> =
            self.core.agent.home_agents().map(|agent| (name_of(agent), agent)).collect();
        agents.sort_by_key(|(name, agent)| (agent.config().tenant, *name));
        agents
    }

    /// The NAI and the session that have a home address, if any have.
    pub(in crate::event_loop) fn names_of(
        &self,
        tenant: TenantId,
        home_agent: Ipv4Addr,
        home_address: Ipv4Addr,
    ) -> Option<(String, String)> {
        let agent = self.core.agent.home_agents().find(|agent| {
            (agent.config().tenant, agent.config().address) == (tenant, home_agent)
        })?;
        let session = agent.session_at(home_address)?;
        Some((shown(session.nai), shown(session.sub_nai)))
    }
}

/// One session, with where it is.
pub(in crate::event_loop) fn session_view(
    name: &str,
    agent: &HomeAgent,
    session: &Session<'_>,
    now: Instant,
) -> SessionView {
    let config = agent.config();
    let until = session.until.map(|until| until.saturating_since(now).as_secs());
    let view = SessionView::new((config.tenant.0, name, config.address), session, until);
    let bound = agent.binding(session.home_address);
    let latest = bound.iter().flat_map(|bound| &bound.registrations);
    let Some(latest) = latest.max_by_key(|one| one.registered_at) else { return view };
    SessionView {
        care_of_address: Some(latest.care_of.address),
        encapsulation: Some(latest.care_of.encapsulation.into()),
        remaining_seconds: lifetime_seconds(latest.remaining(now)),
        ..view
    }
}

/// Nobody here knows a NAI.
pub(in crate::event_loop) fn unknown_nai(nai: &[u8]) -> Refusal {
    Refusal::not_found(
        format!("No home agent here shares a key with the NAI {}.", shown(nai)),
        "See `homeport show security-associations`, and which of them it sends (`tshark -i IF -Y mip`); \
         what strangers asked for is told by `homeport explain 0.0.0.0`. If it is yours, add a \
         [[home_agent.security_association]] with nai = \"…\".",
    )
}

fn session_count(agent: &HomeAgent) -> u64 {
    STATES.map(|state| super::count(agent.session_count(state))).into_iter().sum()
}

/// The first of so many by NAI, those of a NAI in the order that they have. However many
/// there are, no more than the first are sorted.
fn first_by_nai<'a, 'b>(
    all: &'a [Session<'b>],
    most: usize,
) -> impl Iterator<Item = &'a Session<'b>> {
    let key = |place: &usize| (all.get(*place).map(|session| session.nai), *place);
    let mut places: Vec<usize> = (0..all.len()).collect();
    if most < places.len() {
        places.select_nth_unstable_by_key(most, key);
        places.truncate(most);
    }
    places.sort_unstable_by_key(key);
    places.into_iter().filter_map(|place| all.get(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_those_of_the_first_nais_and_the_oldest_of_each() {
        let session = |nai: &'static str, last: u8| Session {
            nai: nai.as_bytes(),
            sub_nai: b"",
            home_address: Ipv4Addr::new(10, 1, 0, last),
            state: SessionState::Sticky,
            until: None,
        };
        let all = [
            session("c@x", 1),
            session("a@x", 9),
            session("a@x", 2),
            session("b@x", 4),
            session("b@x", 3),
            session("a@x", 5),
        ];
        let sorted = [9, 2, 5, 4, 3, 1];
        for most in 0..=all.len() + 1 {
            let first = first_by_nai(&all, most).map(|one| one.home_address.octets()[3]);
            let expected = sorted.iter().copied().take(most);
            assert_eq!(first.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{most}");
        }
    }
}
