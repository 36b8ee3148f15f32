//! The story of a node that is known by NAI: its sessions, and its requests that were of
//! none.

use std::net::Ipv4Addr;

use homeport_proto::decision::Judge;
use homeport_proto::home_agent::{HomeAgent, SessionView as Session};
use homeport_proto::security::nais::canonical;
use homeport_proto::visitor::VisitorName;
use homeport_proto::{Instant, Now, TenantId};

use super::super::EventLoop;
use super::super::answers::{session_view, unknown_nai};
use super::{Agent, known, only_one, tenants};
use crate::admin::api::{Answer, MAX_SESSION_ROWS, Outcome, SessionView};
use crate::admin::explain::{
    ExplainArgs, ExplanationView, KnownView, RegistrationView, VisitingView,
};
use crate::admin::names::shown;
use crate::config::Config;
use crate::history::Told;

impl EventLoop {
    /// Tells the story of a NAI.
    pub(super) fn explain_nai(
        &self,
        nai: &[u8],
        asked: &ExplainArgs,
        agents: &[Agent<'_>],
        now: Now,
    ) -> Outcome {
        let knows = |agent: &Agent<'_>| agent.security().and_then(|all| all.subscriber(nai));
        let mut known_in = tenants(agents, asked);
        let mut visitors = self.visiting_named(agents, nai, now);
        known_in.retain(|tenant| {
            agents.iter().any(|agent| agent.tenant() == *tenant && knows(agent).is_some())
                || visitors.iter().any(|one| one.visitor.tenant == tenant.0)
        });
        let name = shown(nai);
        let tenant = only_one(&known_in, &name)?.ok_or_else(|| unknown_nai(nai))?;
        visitors.retain(|one| one.visitor.tenant == tenant.0);
        let (mut known_to, mut told): (Vec<KnownView>, Vec<Told>) = Default::default();
        let mut sessions: Vec<SessionView> = Vec::new();
        for asked in agents.iter().filter(|agent| agent.tenant() == tenant) {
            let Some(subscriber) = knows(asked) else { continue };
            known_to.extend(known(asked, subscriber.stand_in()));
            let Some(agent) = self.home_agent(asked) else { continue };
            // Another home agent of the tenant may have the number for another NAI, and so
            // may this one have had, with another config.
            let judge = Judge::HomeAgent(agent.config().address);
            let since = self.numbered_since.get(&(tenant, agent.config().address));
            told.extend(self.core.history.of(tenant, subscriber.stand_in()).into_iter().filter(
                |one| one.decision.judge == judge && since.is_none_or(|since| one.last >= *since),
            ));
            let room = MAX_SESSION_ROWS - sessions.len();
            let own = agent.sessions(Some(nai));
            let own = own.iter().take(room);
            sessions.extend(own.map(|one| session_view(asked.name(), agent, one, now.monotonic)));
        }
        told.sort_by_key(|one| std::cmp::Reverse(one.last));
        let registrations: Vec<RegistrationView> =
            told.iter().map(|one| self.registration(one, &known_to, Some(&name), now)).collect();
        let is_silent = registrations.is_empty() && sessions.is_empty() && visitors.is_empty();
        Ok(Answer::Explanation(Box::new(ExplanationView {
            home_address: None,
            nai: Some(name),
            tenant: tenant.0,
            known_to,
            sessions,
            bindings: Vec::new(),
            visitors,
            registrations,
            swallowed: if is_silent { self.swallowed(tenant) } else { Vec::new() },
            uptime_seconds: now.monotonic.saturating_since(self.started).as_secs(),
            remembers: self.config.daemon.remembered_nodes > 0,
        })))
    }

    /// The visitors that go by a NAI, at the foreign agents.
    fn visiting_named(&self, agents: &[Agent<'_>], nai: &[u8], now: Now) -> Vec<VisitingView> {
        let nai = canonical(nai);
        let is_it =
            |name: Option<&VisitorName>| name.is_some_and(|name| canonical(&name.nai) == nai);
        let mut views = Vec::new();
        for agent in self.core.agent.foreign_agents() {
            let config = agent.config();
            let judge = Judge::ForeignAgent(config.care_of_address);
            let asked =
                agents.iter().find(|asked| asked.is(judge) && asked.tenant() == config.tenant);
            let Some(asked) = asked else { continue };
            let visitors = agent.visitors().filter(|one| is_it(one.name.as_deref()));
            let visitors = visitors.map(|visitor| self.visitor_view(visitor, now.monotonic));
            let pending = agent.pending().filter(|one| is_it(one.name()));
            let pending = pending.map(|pending| self.pending_view(config, pending));
            let agent = asked.name();
            let view = |visitor| VisitingView { agent: agent.to_owned(), visitor };
            views.extend(visitors.chain(pending).map(view));
        }
        views.sort_by_key(|view| view.visitor.home_address);
        views
    }

    /// The session that has a home address, with its home agent and that one's name.
    pub(super) fn session_of<'a>(
        &'a self,
        agents: &[Agent<'a>],
        tenant: TenantId,
        home_address: Ipv4Addr,
    ) -> Option<(&'a str, &'a HomeAgent, Session<'a>)> {
        let mut of_tenant = agents.iter().filter(|agent| agent.tenant() == tenant);
        of_tenant.find_map(|asked| {
            let agent = self.home_agent(asked)?;
            Some((asked.name(), agent, agent.session_at(home_address)?))
        })
    }

    /// The running home agent that a config is about.
    fn home_agent(&self, asked: &Agent<'_>) -> Option<&HomeAgent> {
        self.core.agent.home_agents().find(|agent| {
            let config = agent.config();
            config.tenant == asked.tenant() && asked.is(Judge::HomeAgent(config.address))
        })
    }

    /// Notes which home agents will have other numbers for NAIs: what is remembered under
    /// the old ones is another's then.
    pub(in crate::event_loop) fn note_numbers(&mut self, new: &Config, now: Instant) {
        for before in &self.config.home_agents {
            let key = (before.config.tenant, before.config.address);
            let mut after = new.home_agents.iter();
            let after = after.find(|one| (one.config.tenant, one.config.address) == key);
            let is_kept = after.is_some_and(|after| {
                let (old, new) = (&before.config.security, &after.config.security);
                old.subscribers().all(|one| old.nai(one) == new.nai(one))
            });
            if !is_kept {
                self.numbered_since.insert(key, now);
            }
        }
    }
}
