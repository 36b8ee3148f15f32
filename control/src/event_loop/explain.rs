//! The story of a node, put together out of the bindings, the visitors, the sessions, the
//! config and what is remembered. It reads a few records, however many nodes there are.

mod sessions;

use std::net::Ipv4Addr;

use homeport_dataplane::verdict::DropReason;
use homeport_proto::decision::{Answer as Said, Cause, Decision, Judge};
use homeport_proto::event::DiscardReason;
use homeport_proto::message::{AuthenticationKind, RequestFlags};
use homeport_proto::security::{
    MobilitySecurityAssociation, ReplayProtection, SecurityAssociations, Subscriber,
};
use homeport_proto::{Now, TenantId};

use super::EventLoop;
use super::answers::session_view;
use crate::admin::api::{
    Answer, Outcome, Refusal, RefusalKind, Role, SessionView, lifetime_seconds,
};
use crate::admin::explain::remedy::{Agent, remedy, warning};
use crate::admin::explain::{
    AnswerView, Asked, AssociationView, BoundView, ExplainArgs, ExplanationView, KnownView,
    RegistrationView, SwallowedView, VisitingView,
};
use crate::history::Told;

/// Packets lost before an agent could see them, of those that may have been messages.
const SWALLOWED: [DropReason; 6] = [
    DropReason::RegistrationRate,
    DropReason::PuntQueueFull,
    DropReason::HandoverFull,
    DropReason::MartianSource,
    DropReason::BadIpv4Checksum,
    DropReason::NoBuffer,
];

/// Messages that were discarded before it was seen whom they are about.
const DISCARDED: [DiscardReason; 2] = [DiscardReason::Malformed, DiscardReason::UnknownType];

/// The flags of a request, for people; that of a co-located care-of address is told
/// elsewhere.
const WISHES: [(RequestFlags, &str); 5] = [
    (RequestFlags::SIMULTANEOUS, "keep the earlier bindings"),
    (RequestFlags::BROADCAST, "the home network's broadcasts"),
    (RequestFlags::MINIMAL, "minimal encapsulation"),
    (RequestFlags::GRE, "GRE"),
    (RequestFlags::REVERSE_TUNNEL, "a reverse tunnel"),
];

impl EventLoop {
    /// Tells the story of a node.
    pub(super) fn explain(&self, asked: &ExplainArgs, now: Now) -> Outcome {
        let agents = self.agents_asked(asked)?;
        let home_address = match &asked.node {
            Asked::Nai(nai) => return self.explain_nai(nai, asked, &agents, now),
            Asked::HomeAddress(home_address) => *home_address,
        };
        if Subscriber::in_place_of(home_address).is_some() {
            return Err(Refusal::not_found(
                format!("{home_address} is no host's address."),
                "Ask for a node's home address or its NAI: see `homeport show sessions`.",
            ));
        }
        let mut known = tenants(&agents, asked);
        known.retain(|tenant| self.knows(&agents, *tenant, home_address, now));
        let tenant = only_one(&known, &home_address.to_string())?;
        let tenant = tenant.or_else(|| agents.first().map(Agent::tenant)).unwrap_or(TenantId(0));
        let tenant = asked.tenant.map_or(tenant, TenantId);
        let story = self.explanation(home_address, asked, &agents, tenant, now);
        Ok(Answer::Explanation(Box::new(story)))
    }

    /// The agents that the question is about.
    fn agents_asked(&self, asked: &ExplainArgs) -> Result<Vec<Agent<'_>>, Refusal> {
        let config = &self.config;
        let home = config.home_agents.iter().map(|one| Agent::Home(&one.name, &one.config));
        let foreign = config.foreign_agents.iter();
        let foreign = foreign.map(|one| Agent::Foreign(&one.name, &one.config));
        let mut agents: Vec<Agent<'_>> = home.chain(foreign).collect();
        let Some(wanted) = &asked.home_agent else { return Ok(agents) };
        let names: Vec<&str> = agents.iter().map(Agent::name).collect();
        let hint = format!("The agents here are: {}.", names.join(", "));
        agents.retain(|agent| agent.name() == wanted);
        if agents.is_empty() {
            return Err(Refusal::not_found(format!("There is no agent \"{wanted}\" here."), hint));
        }
        Ok(agents)
    }

    /// Whether anything is known of a tenant's node.
    fn knows(
        &self,
        agents: &[Agent<'_>],
        tenant: TenantId,
        home_address: Ipv4Addr,
        now: Now,
    ) -> bool {
        let of_tenant = agents.iter().filter(|agent| agent.tenant() == tenant);
        of_tenant
            .clone()
            .any(|agent| agent.security().is_some_and(|all| all.knows_mobile_node(home_address)))
            || !self.bound(agents, tenant, home_address, now).is_empty()
            || !self.visiting(agents, tenant, home_address, now).is_empty()
            || self.session_of(agents, tenant, home_address).is_some()
            || !self.core.history.of(tenant, home_address).is_empty()
    }

    fn explanation(
        &self,
        home_address: Ipv4Addr,
        asked: &ExplainArgs,
        agents: &[Agent<'_>],
        tenant: TenantId,
        now: Now,
    ) -> ExplanationView {
        let session = self.session_of(agents, tenant, home_address);
        // A session's key is its NAI's.
        let key_of = |agent: &Agent<'_>| {
            let session = session.as_ref().filter(|(name, ..)| *name == agent.name());
            let subscriber = session.and_then(|(.., one)| agent.security()?.subscriber(one.nai));
            subscriber.map_or(home_address, Subscriber::stand_in)
        };
        let known_to: Vec<KnownView> = agents
            .iter()
            .filter(|agent| agent.tenant() == tenant)
            .filter_map(|agent| known(agent, key_of(agent)))
            .collect();
        let sessions: Vec<SessionView> = session
            .iter()
            .map(|(name, agent, one)| session_view(name, agent, one, now.monotonic))
            .collect();
        let nai = sessions.first().map(|session| session.nai.clone());
        let mut told = self.core.history.of(tenant, home_address);
        if asked.home_agent.is_some() {
            told.retain(|one| agents.iter().any(|agent| agent.is(one.decision.judge)));
        }
        drop_answered(&mut told);
        let registrations: Vec<RegistrationView> =
            told.iter().map(|one| self.registration(one, &known_to, nai.as_deref(), now)).collect();
        let swallowed = match registrations.is_empty() {
            true => self.swallowed(tenant),
            false => Vec::new(),
        };
        ExplanationView {
            home_address: Some(home_address),
            nai,
            tenant: tenant.0,
            sessions,
            bindings: self.bound(agents, tenant, home_address, now),
            visitors: self.visiting(agents, tenant, home_address, now),
            known_to,
            registrations,
            swallowed,
            uptime_seconds: now.monotonic.saturating_since(self.started).as_secs(),
            remembers: self.config.daemon.remembered_nodes > 0,
        }
    }

    fn bound(
        &self,
        agents: &[Agent<'_>],
        tenant: TenantId,
        home_address: Ipv4Addr,
        now: Now,
    ) -> Vec<BoundView> {
        let now = now.monotonic;
        let home_agents = self.core.agent.home_agents();
        let of_tenant = home_agents.filter(|agent| agent.config().tenant == tenant);
        let mut views = Vec::new();
        for agent in of_tenant {
            let judge = Judge::HomeAgent(agent.config().address);
            let Some(asked) = agents.iter().find(|asked| asked.is(judge)) else { continue };
            let Some(binding) = agent.binding(home_address) else { continue };
            let ages: Vec<_> = binding
                .registrations
                .iter()
                .map(|one| (one.foreign_agent, now.saturating_since(one.registered_at).as_secs()))
                .collect();
            let view = self.binding_view(binding, now);
            views.extend(view.care_of_addresses.into_iter().zip(ages).map(
                |(care_of, (foreign_agent, registered_seconds))| BoundView {
                    agent: asked.name().to_owned(),
                    nat: care_of.address != care_of.registered,
                    care_of,
                    foreign_agent,
                    registered_seconds,
                },
            ));
        }
        views
    }

    fn visiting(
        &self,
        agents: &[Agent<'_>],
        tenant: TenantId,
        home_address: Ipv4Addr,
        now: Now,
    ) -> Vec<VisitingView> {
        let mut views = Vec::new();
        for agent in self.core.agent.foreign_agents() {
            let judge = Judge::ForeignAgent(agent.config().care_of_address);
            let asked = agents.iter().find(|asked| asked.is(judge));
            let Some(asked) = asked.filter(|_| agent.config().tenant == tenant) else { continue };
            let visitors = agent.visitors_of(home_address);
            let pending =
                agent.pending().filter(|one| one.station.request.home_address == home_address);
            let visitors = visitors.map(|(_, visitor)| self.visitor_view(visitor, now.monotonic));
            let pending = pending.map(|pending| self.pending_view(agent.config(), pending));
            views.extend(
                visitors
                    .chain(pending)
                    .map(|visitor| VisitingView { agent: asked.name().to_owned(), visitor }),
            );
        }
        views
    }

    /// The agent that decided, as it is configured now.
    fn judge(&self, tenant: TenantId, judge: Judge) -> Agent<'_> {
        let config = &self.config;
        let home = config.home_agents.iter().map(|one| Agent::Home(&one.name, &one.config));
        let foreign = config.foreign_agents.iter();
        let foreign = foreign.map(|one| Agent::Foreign(&one.name, &one.config));
        home.chain(foreign)
            .find(|agent| agent.tenant() == tenant && agent.is(judge))
            .unwrap_or(Agent::None)
    }

    fn registration(
        &self,
        told: &Told,
        known_to: &[KnownView],
        nai: Option<&str>,
        now: Now,
    ) -> RegistrationView {
        let decision = &told.decision;
        let (request, ruling) = (&decision.request, &decision.ruling);
        let agent = self.judge(decision.tenant, decision.judge);
        let name = agent.named();
        let associations = known_to.iter().find(|known| Some(known.agent.as_str()) == name);
        let associations = associations.map_or(&[][..], |known| &known.associations);
        let age = now.monotonic.saturating_since(told.last).as_secs();
        // Nobody knows its address yet: the message had zero there.
        let care_of_address = match Subscriber::in_place_of(request.care_of_address) {
            Some(_) => Ipv4Addr::UNSPECIFIED,
            None => request.care_of_address,
        };
        let wishes = WISHES.iter().filter(|(flag, _)| request.flags.contains(*flag));
        let is_direct = decision.is_co_located() && decision.source == request.care_of_address;
        let through = decision.source != request.home_address && !is_direct;
        let foreign_agent = match decision.judge {
            Judge::ForeignAgent(_) if decision.is_of_revocation() => None,
            Judge::ForeignAgent(care_of_address) => Some(care_of_address),
            Judge::HomeAgent(_) if through && !decision.is_co_located() => Some(decision.source),
            Judge::HomeAgent(_) | Judge::Nobody => None,
        };
        let spi = |kind| decision.extensions.spi(kind).map(|spi| spi.0);
        RegistrationView {
            agent: name.map(ToOwned::to_owned),
            role: agent.role(),
            at_unix_seconds: unix_seconds(now).saturating_sub(age),
            age_seconds: age,
            times: told.times,
            first_age_seconds: now.monotonic.saturating_since(told.first).as_secs(),
            accepted: ruling.cause.is_favourable() && ruling.cause != Cause::Relayed,
            cause: ruling.cause.counter().into(),
            sentence: ruling.sentence().to_string(),
            source: decision.source,
            source_port: decision.source_port,
            port: self.port_name(decision.port),
            foreign_agent,
            co_located: decision.is_co_located(),
            nat: decision.is_through_nat(),
            home_agent: request.home_agent,
            care_of_address,
            lifetime_asked_seconds: lifetime_seconds(request.lifetime),
            wishes: wishes.map(|(_, text)| (*text).to_owned()).collect(),
            session: decision.session.map(|session| session.to_string()),
            step: ruling.step.map(|step| step.counter().into()),
            step_sentence: ruling.step.map(|step| step.text().into()),
            extensions: decision.extensions.names().map(ToOwned::to_owned).collect(),
            identification: request.identification.0,
            spi_used: spi(AuthenticationKind::MobileHome),
            foreign_agent_spi_used: spi(AuthenticationKind::ForeignHome),
            association: ruling.association.map(|(spi, algorithm)| AssociationView {
                spi: spi.0,
                algorithm: algorithm.name().into(),
                replay: None,
                tolerance_seconds: None,
            }),
            clock_offset_seconds: ruling.clock_offset,
            answer: answer(decision),
            warning: warning(decision, &agent),
            remedy: remedy(decision, &agent, associations, nai),
        }
    }

    /// The counters that may have a node's messages among what they count.
    fn swallowed(&self, tenant: TenantId) -> Vec<SwallowedView> {
        let packets = SWALLOWED.iter().map(|reason| SwallowedView {
            reason: reason.counter().into(),
            text: reason.text().into(),
            count: self
                .core
                .ports
                .iter()
                .map(|port| port.sum(|stats| stats.dropped(*reason).get()))
                .sum(),
        });
        let counters = self.core.agent.counters().find(|(of, _)| *of == tenant);
        let messages = DISCARDED.iter().map(|reason| SwallowedView {
            reason: reason.counter().into(),
            text: reason.text().into(),
            count: counters.map_or(0, |(_, counters)| counters.discarded_for(*reason)),
        });
        let too_old = SwallowedView {
            reason: "punts_too_old".into(),
            text: "Messages shed because they had waited longer than a second.".into(),
            count: self.core.counts.too_old.values().sum(),
        };
        packets.chain(messages).chain([too_old]).collect()
    }
}

/// The tenants that the question may be about.
fn tenants(agents: &[Agent<'_>], asked: &ExplainArgs) -> Vec<TenantId> {
    let mut tenants: Vec<TenantId> = agents.iter().map(Agent::tenant).collect();
    tenants.sort_unstable();
    tenants.dedup();
    tenants.retain(|tenant| asked.tenant.is_none_or(|wanted| wanted == tenant.0));
    tenants
}

/// The only one of the tenants that have a node; `None`: none has.
fn only_one(tenants: &[TenantId], node: &str) -> Result<Option<TenantId>, Refusal> {
    match tenants {
        [] => Ok(None),
        [only] => Ok(Some(*only)),
        several => {
            let numbers: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(Refusal::new(
                RefusalKind::BadRequest,
                format!("Several tenants have a node {node}."),
                format!("Choose one with --tenant: {}.", numbers.join(", ")),
            ))
        }
    }
}

/// Takes away what says that a request was relayed, when its answer is there.
fn drop_answered(told: &mut Vec<Told>) {
    let answered: Vec<_> = told
        .iter()
        .filter(|one| one.decision.ruling.cause != Cause::Relayed)
        .map(|one| (one.decision.judge, one.decision.request.identification))
        .collect();
    told.retain(|one| {
        one.decision.ruling.cause != Cause::Relayed
            || !answered.contains(&(one.decision.judge, one.decision.request.identification))
    });
}

fn known(agent: &Agent<'_>, home_address: Ipv4Addr) -> Option<KnownView> {
    let associations: Vec<AssociationView> =
        agent.security()?.of_mobile_node(home_address).map(|one| association(&one)).collect();
    if associations.is_empty() {
        return None;
    }
    let (role, address) = match agent {
        Agent::Home(_, config) => (Role::HomeAgent, config.address),
        Agent::Foreign(_, config) => (Role::ForeignAgent, config.care_of_address),
        Agent::None => return None,
    };
    Some(KnownView { agent: agent.name().to_owned(), role, address, associations })
}

fn association(association: &MobilitySecurityAssociation) -> AssociationView {
    let (replay, tolerance_seconds) = match association.replay {
        ReplayProtection::Timestamps { tolerance } => ("timestamps", Some(tolerance.as_secs())),
        ReplayProtection::Nonces => ("nonces", None),
    };
    AssociationView {
        spi: association.spi.0,
        algorithm: association.algorithm.name().into(),
        replay: Some(replay.into()),
        tolerance_seconds,
    }
}

fn answer(decision: &Decision) -> AnswerView {
    let mut view = AnswerView {
        code: None,
        lifetime_seconds: None,
        silence: None,
        sentence: "None yet.".into(),
    };
    match decision.ruling.answer {
        Said::Replied { code, lifetime } => {
            view.code = Some(code.0);
            view.sentence = format!("Code {}: {}", code.0, code.text());
            if code.is_accepted() {
                view.lifetime_seconds = lifetime_seconds(lifetime);
            }
        }
        Said::Relayed => {}
        Said::Acknowledged => view.sentence = "It was acknowledged.".into(),
        Said::Silent(why) => {
            view.silence = Some(why.counter().into());
            view.sentence = format!("None. {}", why.text());
        }
    }
    view
}

/// Seconds since 1970, by the clock that Identification fields are in (RFC 5944 §5.7.1:
/// it counts from 1900).
fn unix_seconds(now: Now) -> u64 {
    const FROM_1900_TO_1970: u32 = 2_208_988_800;
    let [a, b, c, d, ..] = now.ntp.0.to_be_bytes();
    u32::from_be_bytes([a, b, c, d]).wrapping_sub(FROM_1900_TO_1970).into()
}

impl<'a> Agent<'a> {
    fn tenant(&self) -> TenantId {
        match self {
            Agent::Home(_, config) => config.tenant,
            Agent::Foreign(_, config) => config.tenant,
            Agent::None => TenantId(0),
        }
    }

    fn security(&self) -> Option<&'a SecurityAssociations> {
        match self {
            Agent::Home(_, config) => Some(&config.security),
            Agent::Foreign(_, config) => Some(&config.security),
            Agent::None => None,
        }
    }

    fn named(&self) -> Option<&'a str> {
        match self {
            Agent::Home(name, _) | Agent::Foreign(name, _) => Some(name),
            Agent::None => None,
        }
    }

    const fn role(&self) -> Option<Role> {
        match self {
            Agent::Home(..) => Some(Role::HomeAgent),
            Agent::Foreign(..) => Some(Role::ForeignAgent),
            Agent::None => None,
        }
    }

    fn is(&self, judge: Judge) -> bool {
        match self {
            Agent::Home(_, config) => judge == Judge::HomeAgent(config.address),
            Agent::Foreign(_, config) => judge == Judge::ForeignAgent(config.care_of_address),
            Agent::None => false,
        }
    }
}
