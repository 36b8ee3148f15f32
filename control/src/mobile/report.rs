//! What the mobile node tells: its log, its counters, and its side of the admin
//! API.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_proto::event::DiscardReason;
use homeport_proto::message::{MessageString, TextOrigin};
use homeport_proto::mobile_node::{
    Attachment, MAX_SESSIONS, MobileNode, MobileNodeEvent, Phase, Session,
};
use homeport_proto::security::ReplayProtection;
use homeport_proto::{Instant, ReverseTunnel};

use super::config::Config;
use super::encapsulation::peer_port;
use super::forwarding::TunnelEnds;
use super::lan::Lan;
use super::tunnel::Tunnel;
use crate::admin::api::{
    AgentView, Answer, CounterView, DropView, MobileNodeView, Outcome, Plane, Query, Refusal, Role,
    SecurityAssociationView, Status, Totals, TunnelView,
};
use crate::admin::table::clean;
use crate::admin::view::{AgentTextView, TunnelEndsView, lifetime_seconds};

/// What was counted since the start.
#[derive(Debug)]
pub struct Report {
    started_at: Instant,
    /// When the link came up, until the first registration on it.
    link_up_at: Option<Instant>,
    /// When the attachment changed last.
    attached_at: Instant,
    last_code: Option<u8>,
    /// What the home agent gave the node last for its home address.
    given: Option<Ipv4Addr>,
    /// What an agent said of it.
    last_text: Option<AgentTextView>,
    counts: BTreeMap<&'static str, u64>,
    denials: BTreeMap<u8, u64>,
    discards: BTreeMap<DiscardReason, u64>,
}

/// Names and meanings of what is counted by name.
const COUNTERS: [(&str, &str); 23] = [
    ("links_up", "The link came up."),
    ("solicitations_sent", "Agent solicitations sent."),
    ("agents_heard", "Agents heard for the first time on a link."),
    ("agents_lost", "Agents that were heard no longer."),
    ("requests_sent", "Registration requests sent, again included."),
    ("registrations", "Registrations accepted."),
    ("deregistrations", "Deregistrations accepted."),
    ("unanswered", "Attachments given up because no reply came."),
    (
        "given_up",
        "Wishes for a tunnel that were denied and given up for as long as the link lasts.",
    ),
    (
        "nats_found",
        "Registrations with which the home agent saw a NAT for the first time on a link.",
    ),
    (
        "mappings_lost",
        "Times that nothing came through the NAT any more, and the node registered anew.",
    ),
    ("redirections", "Home agents that have sent the node to another one (RFC 4433)."),
    (
        "redirections_refused",
        "The same, but in a circle, too far, or to one that no key is shared with.",
    ),
    ("home_addresses_given", "Home addresses that the home agent gave the node itself."),
    ("home_addresses_changed", "The same, but another one than the time before."),
    (
        "home_addresses_lost",
        "Times that the home agent would not let the node have the home address that it had.",
    ),
    ("home_addresses_unsaved", "Home addresses that could not be written to state_dir."),
    ("expirations", "Registrations that ended without renewal."),
    ("sessions_used", "Home addresses that sessions got."),
    ("sessions_lost", "Sessions that ended, or lost their home address."),
    (
        "sessions_refused",
        "Sessions that could not begin: no NAI, a name twice or too long, too many.",
    ),
    ("commands_gone", "Commands whose program ended without ending their session."),
    ("frames_malformed", "Advertisements and DHCP messages whose lengths or checksums are wrong."),
];

impl Report {
    /// A report that begins at `now`.
    pub fn new(now: Instant) -> Self {
        Report {
            started_at: now,
            link_up_at: None,
            attached_at: now,
            last_code: None,
            given: None,
            last_text: None,
            counts: BTreeMap::new(),
            denials: BTreeMap::new(),
            discards: BTreeMap::new(),
        }
    }

    /// Counts one more of what `COUNTERS` lists.
    pub fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    /// Logs and counts an event.
    pub fn event(&mut self, event: &MobileNodeEvent, now: Instant) {
        let ms = |duration: Duration| (duration.as_secs_f64() * 1e5).round() / 1e2;
        match *event {
            MobileNodeEvent::Link { up: true } => {
                self.count("links_up");
                self.link_up_at = Some(now);
                tracing::info!("link up");
            }
            MobileNodeEvent::Link { up: false } => tracing::info!("link down"),
            MobileNodeEvent::AgentHeard { address, mac, home } => {
                self.count("agents_heard");
                tracing::info!(%address, %mac, home, "agent heard");
            }
            MobileNodeEvent::AgentLost { address } => {
                self.count("agents_lost");
                tracing::info!(%address, "agent lost");
            }
            MobileNodeEvent::AgentRestarted { address } => {
                tracing::info!(%address, "agent restarted, registering again");
            }
            MobileNodeEvent::Requested { care_of_address, lifetime, attempt } => {
                self.count("requests_sent");
                tracing::debug!(%care_of_address, %lifetime, attempt, "request sent");
            }
            MobileNodeEvent::Registered { care_of_address, lifetime, after } => {
                self.count("registrations");
                self.replied(0);
                let after_ms = ms(after);
                // A renewal changes nothing.
                if let Some(since) = self.link_up_at.take() {
                    let since_link_up_ms = ms(now.saturating_since(since));
                    tracing::info!(%care_of_address, %lifetime, after_ms, since_link_up_ms, "registered");
                } else {
                    tracing::debug!(%care_of_address, %lifetime, after_ms, "registered");
                }
            }
            MobileNodeEvent::Deregistered { after } => {
                self.count("deregistrations");
                self.replied(0);
                let since = self.link_up_at.take();
                let since_link_up_ms = since.map(|since| ms(now.saturating_since(since)));
                tracing::info!(after_ms = ms(after), since_link_up_ms, "deregistered");
            }
            MobileNodeEvent::Denied { code } => {
                *self.denials.entry(code.0).or_default() += 1;
                self.replied(code.0);
                tracing::warn!(code = code.0, "{}", code.text());
            }
            MobileNodeEvent::Unanswered { care_of_address } => {
                self.count("unanswered");
                tracing::warn!(%care_of_address, "no reply, trying elsewhere");
            }
            MobileNodeEvent::Expired { care_of_address } => {
                self.count("expirations");
                tracing::warn!(%care_of_address, "registration expired");
            }
            MobileNodeEvent::GaveWay { code } => {
                self.count("given_up");
                tracing::warn!(code = code.0, "asking without what was denied");
            }
            MobileNodeEvent::Redirected { from, to } => {
                self.count("redirections");
                tracing::info!(%from, %to, "sent to another home agent");
            }
            MobileNodeEvent::RedirectionRefused { from, to } => {
                self.count("redirections_refused");
                tracing::warn!(%from, ?to, "sent in a circle, too far, or to a home agent without a key");
            }
            MobileNodeEvent::NatFound { encapsulation } => {
                self.count("nats_found");
                tracing::info!(?encapsulation, "there is a NAT in the way");
            }
            MobileNodeEvent::MappingLost { interval } => {
                self.count("mappings_lost");
                let keepalive_seconds = interval.as_secs();
                tracing::warn!(
                    keepalive_seconds,
                    "nothing comes through the NAT, registering again"
                );
            }
            MobileNodeEvent::ClockSet { offset } => {
                tracing::warn!(offset_seconds = offset, "clock set by the home agent's");
            }
            MobileNodeEvent::Discarded { source, reason } => {
                *self.discards.entry(reason).or_default() += 1;
                tracing::debug!(%source, reason = reason.counter(), "discarded");
            }
        }
    }

    fn replied(&mut self, code: u8) {
        self.last_code = Some(code);
        self.last_text = None;
    }

    /// An agent said something for the node's user. Anybody may have written it where
    /// the foreign agent did: it is escaped, and nothing follows from it.
    pub fn told(&mut self, text: &MessageString) {
        let role = match text.origin {
            TextOrigin::HomeAgent => Role::HomeAgent,
            TextOrigin::ForeignAgent => Role::ForeignAgent,
        };
        let words = clean(&text.to_string());
        tracing::warn!("the {} says: {words}", role.text());
        self.last_text = Some(AgentTextView { role, text: words });
    }

    /// The home agent has given the node a home address, or will not let it have its own.
    pub fn home_address(&mut self, address: Option<Ipv4Addr>) {
        let Some(address) = address else {
            self.count("home_addresses_lost");
            return tracing::warn!("the home address is the node's no longer, asking for another");
        };
        self.count("home_addresses_given");
        match self.given.replace(address) {
            Some(before) if before != address => {
                self.count("home_addresses_changed");
                tracing::warn!(%before, %address, "the home agent has given another home address");
            }
            _ => tracing::info!(%address, "the home agent has given a home address"),
        }
    }

    /// The attachment changed.
    pub fn attached(&mut self, attachment: &Attachment, now: Instant) {
        self.attached_at = now;
        tracing::info!(attachment = attachment.name(), "attached");
    }

    /// Answers a query of the admin API.
    pub fn answer(
        &self,
        query: &Query,
        config: &Config,
        node: &MobileNode,
        tunnel: &Tunnel,
        lan: Option<&Lan>,
        now: Instant,
    ) -> Outcome {
        match query {
            Query::Status => Ok(Answer::Status(self.status(config, node, now))),
            Query::MobileNode => Ok(Answer::MobileNode(self.view(config, node, tunnel, now))),
            Query::Counters => Ok(Answer::Counters { counters: self.counters(tunnel, lan) }),
            Query::Drops => Ok(Answer::Drops { drops: self.drops() }),
            Query::Tunnels => Ok(Answer::Tunnels { tunnels: tunnels(config, tunnel) }),
            Query::SecurityAssociations => {
                Ok(Answer::SecurityAssociations { security_associations: associations(config) })
            }
            _ => Err(Refusal::not_found(
                "A mobile node has none of these.",
                "Ask it for status, mobile-node, sessions, tunnels, counters, drops or security-associations.",
            )),
        }
    }

    fn status(&self, config: &Config, node: &MobileNode, now: Instant) -> Status {
        let own = (node.phase() == Phase::Registered).then_some(Phase::Registered);
        let all = own.into_iter().chain(node.sessions().map(Session::phase));
        let registered = all.filter(|phase| *phase == Phase::Registered).count();
        let most = if config.node.nai.is_some() { 1 + MAX_SESSIONS } else { 1 };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: now.saturating_since(self.started_at).as_secs(),
            config_file: config.path.display().to_string(),
            config_generation: 1,
            poll: "adaptive".to_owned(),
            workers: 0,
            held_back_entries: 0,
            held_back_seconds: 0,
            ports: 0,
            ports_up: 0,
            bindings: 0,
            subscribers: 0,
            visitors: 0,
            agents: vec![AgentView {
                name: config.interface.clone(),
                role: Role::MobileNode,
                tenant: 0,
                address: config.node.home_address,
                registrations: u64::try_from(registered).unwrap_or(u64::MAX),
                limit: u64::try_from(most).unwrap_or(u64::MAX),
                sessions: None,
            }],
            totals: Totals::default(),
        }
    }

    fn view(
        &self,
        config: &Config,
        node: &MobileNode,
        tunnel: &Tunnel,
        now: Instant,
    ) -> MobileNodeView {
        let away = node.registration().filter(|registration| !registration.lifetime.is_zero());
        let lifetime = away.map(|registration| registration.lifetime);
        let remaining = away
            .and_then(|registration| registration.expires_at)
            .map(|at| at.saturating_since(now).as_secs());
        let foreign_agent = match node.attachment() {
            Attachment::ForeignAgent { address, .. } => Some(*address),
            _ => None,
        };
        let with_address =
            node.sessions().filter(|session| session.home_address().is_some()).count();
        MobileNodeView {
            interface: config.interface.clone(),
            state: node.phase().name().to_owned(),
            home_address: node.home_address(),
            home_address_given: node.is_given_its_address(),
            home_agent: config.node.home_agent,
            care_of_address: away.map(|registration| registration.care_of_address),
            foreign_agent,
            co_located: matches!(node.attachment(), Attachment::CoLocated { .. }),
            reverse_tunnel: config.node.reverse_tunnel.into(),
            encapsulation: away.map(|registration| registration.encapsulation.into()),
            nat: away.is_some_and(|registration| registration.nat),
            tunnel: tunnel.ends().map(|ends| TunnelEndsView {
                local: ends.local,
                local_port: peer_port(ends.encapsulation).map(|_| tunnel.port()),
                remote: ends.remote,
                remote_port: peer_port(ends.encapsulation),
            }),
            tunnel_mtu_bytes: tunnel.mtu(),
            keepalive_seconds: node.keepalive_interval().map(|interval| interval.as_secs()),
            lifetime_seconds: lifetime.and_then(lifetime_seconds),
            remaining_seconds: remaining,
            last_code: self.last_code,
            last_text: self.last_text.clone(),
            sessions: u64::try_from(node.sessions().count()).unwrap_or(u64::MAX),
            sessions_with_address: u64::try_from(with_address).unwrap_or(u64::MAX),
            age_seconds: now.saturating_since(self.attached_at).as_secs(),
        }
    }

    fn counters(&self, tunnel: &Tunnel, lan: Option<&Lan>) -> Vec<CounterView> {
        let counter = |name: &str, text: &str, value| CounterView {
            name: name.to_owned(),
            text: text.to_owned(),
            value,
            ..CounterView::default()
        };
        let named = COUNTERS
            .iter()
            .map(|(name, text)| counter(name, text, self.counts.get(name).copied().unwrap_or(0)));
        let denials = self.denials.iter().map(|(code, count)| CounterView {
            code: Some(*code),
            ..counter("registrations_denied", "Requests denied, by code.", *count)
        });
        let lan = lan.into_iter().flat_map(Lan::counters);
        let rest = tunnel.counters().all().chain(lan);
        let rest = rest.map(|(name, text, count)| counter(name, text, count));
        named.chain(denials).chain(rest).collect()
    }

    fn drops(&self) -> Vec<DropView> {
        let drop = |reason: &DiscardReason| DropView {
            plane: Plane::Control,
            port: None,
            tenant: None,
            reason: reason.counter().to_owned(),
            text: reason.text().to_owned(),
            count: self.discards.get(reason).copied().unwrap_or(0),
        };
        DiscardReason::ALL.iter().map(drop).collect()
    }
}

fn tunnels(config: &Config, tunnel: &Tunnel) -> Vec<TunnelView> {
    let reverse = u64::from(config.node.reverse_tunnel != ReverseTunnel::None);
    let view = |ends: TunnelEnds| TunnelView {
        tenant: 0,
        role: Role::MobileNode,
        local: ends.local,
        remote: ends.remote,
        encapsulation: ends.encapsulation.into(),
        udp_port: peer_port(ends.encapsulation),
        gre_key: match ends.encapsulation {
            homeport_proto::Encapsulation::Gre { key } => key,
            _ => None,
        },
        nodes: 1,
        reverse,
    };
    tunnel.ends().map(view).into_iter().collect()
}

fn associations(config: &Config) -> Vec<SecurityAssociationView> {
    let view =
        |(peer, association): (_, &homeport_proto::security::MobilitySecurityAssociation)| {
            let home_agent = peer == config.node.home_agent;
            let (replay, tolerance) = match association.replay {
                ReplayProtection::Nonces => ("nonces", None),
                ReplayProtection::Timestamps { tolerance } => {
                    ("timestamps", Some(tolerance.as_secs()))
                }
            };
            SecurityAssociationView {
                tenant: 0,
                agent: config.interface.clone(),
                peer_role: if home_agent { Role::HomeAgent } else { Role::ForeignAgent },
                peer: Some(peer),
                nai: None,
                spi: association.spi.0,
                algorithm: association.algorithm.name().to_owned(),
                replay: replay.to_owned(),
                tolerance_seconds: tolerance,
            }
        };
    config.node.security.agents().map(view).collect()
}

#[cfg(test)]
mod tests {
    use homeport_proto::message::{
        AuthenticationKind, Extension, Identification, Message, MessageWriter, RegistrationReply,
        ReplyCode,
    };
    use homeport_proto::security::{Algorithm, Key, MobilitySecurityAssociation, Spi};
    use homeport_proto::{Lifetime, NtpTime};

    use super::*;

    fn text(bytes: &[u8]) -> MessageString {
        let mut writer = MessageWriter::reply(&RegistrationReply {
            code: ReplyCode::HA_PROHIBITED,
            lifetime: Lifetime(0),
            home_address: Ipv4Addr::LOCALHOST,
            home_agent: Ipv4Addr::LOCALHOST,
            identification: Identification(NtpTime(0).0),
        });
        writer.extension(&Extension::MessageString { subtype: 1, text: bytes }).unwrap();
        let association = MobilitySecurityAssociation {
            spi: Spi(256),
            algorithm: Algorithm::HmacMd5,
            key: Key::new(vec![1; 16]),
            replay: ReplayProtection::default(),
        };
        writer.authenticate(AuthenticationKind::MobileHome, &association);
        let bytes = writer.finish();
        let Ok(Message::Reply(reply)) = Message::parse(&bytes) else { panic!("no reply") };
        MessageString::of(&reply).unwrap()
    }

    /// B-11.
    #[test]
    fn what_an_agent_says_is_in_the_view_until_the_next_reply() {
        let mut report = Report::new(Instant(0));
        let denied = MobileNodeEvent::Denied { code: ReplyCode::HA_PROHIBITED };
        report.event(&denied, Instant(1));
        assert_eq!((report.last_code, &report.last_text), (Some(129), &None));
        report.told(&text("not\u{1b}[2J here \u{202e}".as_bytes()));
        let said = report.last_text.clone().unwrap();
        assert_eq!(said.role, Role::HomeAgent);
        assert_eq!(said.text, "not\\u{1b}[2J here \\u{202e}");
        report.told(&text(b"\xff"));
        assert_eq!(report.last_text.clone().unwrap().text, "\\xff");
        let care_of_address = Ipv4Addr::LOCALHOST;
        let after = Duration::ZERO;
        let lifetime = Lifetime(60);
        let registered = MobileNodeEvent::Registered { care_of_address, lifetime, after };
        report.event(&registered, Instant(2));
        assert_eq!((report.last_code, report.last_text), (Some(0), None));
    }
}
