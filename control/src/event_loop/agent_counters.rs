//! The counters of the agents, with their names and sentences.

use homeport_proto::TenantId;
use homeport_proto::counters::Counters;

use crate::admin::api::CounterView;

/// The counters of a tenant's agents, as they are shown.
pub(super) fn agent_counters(
    tenant: TenantId,
    counters: &Counters,
) -> impl Iterator<Item = CounterView> {
    let denied = counters.denied().map(move |(code, value)| CounterView {
        name: "registrations_denied".into(),
        tenant: Some(tenant.0),
        code: Some(code.0),
        value,
        text: "Denials of our own agents, sent or held back, by code.".into(),
        ..CounterView::default()
    });
    let named = agent_counter_table(counters);
    let named = named.into_iter().map(move |(name, value, text)| CounterView {
        name: name.into(),
        tenant: Some(tenant.0),
        value,
        text: text.into(),
        ..CounterView::default()
    });
    named.chain(denied)
}

/// An agent's counters with their names and sentences.
const fn agent_counter_table(counters: &Counters) -> [(&'static str, u64, &'static str); 32] {
    [
        (
            "messages_received",
            counters.messages_received,
            "Messages on UDP port 434, whatever became of them.",
        ),
        (
            "requests_received",
            counters.requests_received,
            "Registration Requests that could be parsed.",
        ),
        (
            "replies_received",
            counters.replies_received,
            "Registration Replies that could be parsed.",
        ),
        (
            "registrations_accepted",
            counters.registrations_accepted,
            "Registrations and renewals that a home agent accepted.",
        ),
        (
            "deregistrations_accepted",
            counters.deregistrations_accepted,
            "Deregistrations that a home agent accepted.",
        ),
        (
            "requests_relayed",
            counters.requests_relayed,
            "Requests that a foreign agent relayed to a home agent.",
        ),
        (
            "replies_relayed",
            counters.replies_relayed,
            "Replies that a foreign agent relayed to a node.",
        ),
        (
            "denials_suppressed",
            counters.denials_suppressed,
            "Denials held back, because their node had its share.",
        ),
        ("bindings_expired", counters.bindings_expired, "Bindings that ended without renewal."),
        ("visitors_expired", counters.visitors_expired, "Visitors that ended without renewal."),
        (
            "sessions_begun",
            counters.sessions_begun,
            "Sessions of NAIs that a home agent gave an address.",
        ),
        ("sessions_released", counters.sessions_released, "Sessions that gave their address back."),
        (
            "sessions_ended",
            counters.sessions_ended,
            "Sessions whose address has become free for others.",
        ),
        (
            "sessions_over_limit",
            counters.sessions_over_limit,
            "Requests of sessions, new ones or ones that would be live again, denied because their NAI has as many as it may (max_sessions_per_nai).",
        ),
        (
            "pools_exhausted",
            counters.pools_exhausted,
            "Sessions denied because no pool of their realm has a free address.",
        ),
        (
            "visitors_over_nai_limit",
            counters.visitors_over_nai_limit,
            "Visitors denied because their NAI has as many as it may (max_sessions_per_nai).",
        ),
        (
            "requests_over_nai_rate",
            counters.requests_over_nai_rate,
            "Requests denied because of too many with their NAI (requests_per_minute_per_nai).",
        ),
        ("challenges_sent", counters.challenges_sent, "Challenges given to nodes behind NATs."),
        (
            "foreign_challenges_answered",
            counters.foreign_challenges_answered,
            "Requests to a foreign agent that answered its challenge.",
        ),
        (
            "answerers_refused",
            counters.answerers_refused,
            "Answers to a foreign agent's challenges that could not be remembered, for too many of one NAI, of nodes without a key, or of all.",
        ),
        (
            "tunnels_bound",
            counters.tunnels_bound,
            "Half-bound UDP tunnels whose first keepalive came.",
        ),
        (
            "paths_proven",
            counters.paths_proven,
            "Outer addresses of UDP tunnels that were shown to be their nodes'.",
        ),
        (
            "paths_unproven",
            counters.paths_unproven,
            "Registrations removed because nobody answered at their outer address.",
        ),
        (
            "rebounds",
            counters.rebounds,
            "Packets told of from another port than their UDP tunnel's: a NAT forgot it.",
        ),
        (
            "keepalives_answered",
            counters.keepalives_answered,
            "Keepalives answered for tunnels that were half-bound or unproven.",
        ),
        (
            "keepalives_sent",
            counters.keepalives_sent,
            "Keepalives that a foreign agent sent for its visitors.",
        ),
        (
            "revocations_sent",
            counters.revocations_sent,
            "Registration Revocations sent, repetitions included.",
        ),
        (
            "revocations_acknowledged",
            counters.revocations_acknowledged,
            "Our revocations that the other agent acknowledged.",
        ),
        (
            "revocations_unanswered",
            counters.revocations_unanswered,
            "Our revocations that were given up.",
        ),
        (
            "revocations_accepted",
            counters.revocations_accepted,
            "Registrations that another agent revoked.",
        ),
        (
            "solicitations_received",
            counters.solicitations_received,
            "Agent Solicitations that could be parsed.",
        ),
        (
            "advertisements_sent",
            counters.advertisements_sent,
            "Agent Advertisements, unasked and solicited.",
        ),
    ]
}
