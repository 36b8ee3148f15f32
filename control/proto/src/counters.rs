//! What an agent has done, in numbers, for each tenant.

use alloc::collections::BTreeMap;

use crate::event::DiscardReason;
use crate::message::ReplyCode;

/// The counters of one tenant. They only ever grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages on UDP port 434, whatever became of them.
    pub messages_received: u64,
    /// Registration requests that could be parsed.
    pub requests_received: u64,
    /// Registration replies that could be parsed.
    pub replies_received: u64,
    /// Requests that a home agent accepted: registrations and renewals.
    pub registrations_accepted: u64,
    /// Requests that a home agent accepted: deregistrations.
    pub deregistrations_accepted: u64,
    /// Requests that a foreign agent relayed to a home agent.
    pub requests_relayed: u64,
    /// Replies that a foreign agent relayed to a node, accepting or not.
    pub replies_relayed: u64,
    /// Denials that were owed, but held back because their node had its share.
    pub denials_suppressed: u64,
    /// Bindings whose lifetime ended.
    pub bindings_expired: u64,
    /// Sessions of NAIs that a home agent gave an address.
    pub sessions_begun: u64,
    /// Sessions that gave their address back.
    pub sessions_released: u64,
    /// Sessions whose address has become free for others.
    pub sessions_ended: u64,
    /// Sessions denied because their NAI has as many as it may.
    pub sessions_over_limit: u64,
    /// Sessions denied because no pool of their realm has a free address.
    pub pools_exhausted: u64,
    /// Visitors that a foreign agent denied because their NAI has as many as it may.
    pub visitors_over_nai_limit: u64,
    /// Requests that a foreign agent denied because of too many with their NAI in a minute.
    pub requests_over_nai_rate: u64,
    /// Challenges given to nodes behind NATs.
    pub challenges_sent: u64,
    /// Requests to a foreign agent that answered one of its challenges and were relayed.
    pub foreign_challenges_answered: u64,
    /// Answers to challenges that a foreign agent could not remember: their NAI, those
    /// without a key, or all had as many as they may.
    pub answerers_refused: u64,
    /// Half-bound UDP tunnels whose first keepalive came.
    pub tunnels_bound: u64,
    /// Outer addresses of UDP tunnels that were shown to be their nodes'.
    pub paths_proven: u64,
    /// Registrations removed because nobody answered at their outer address.
    pub paths_unproven: u64,
    /// Packets of UDP tunnels from another port than the tunnel's, as far as the
    /// dataplane tells.
    pub rebounds: u64,
    /// Keepalives of UDP tunnels that were answered here; the dataplane answers
    /// the others.
    pub keepalives_answered: u64,
    /// Keepalives that a foreign agent sent for its visitors.
    pub keepalives_sent: u64,
    /// Visitors whose lifetime ended.
    pub visitors_expired: u64,
    /// Revocations sent, repetitions included.
    pub revocations_sent: u64,
    /// Our revocations that were acknowledged.
    pub revocations_acknowledged: u64,
    /// Our revocations that were given up.
    pub revocations_unanswered: u64,
    /// Revocations of other agents that ended a registration here.
    pub revocations_accepted: u64,
    /// Agent solicitations that could be parsed.
    pub solicitations_received: u64,
    /// Agent advertisements, unasked and solicited.
    pub advertisements_sent: u64,
    denied: BTreeMap<u8, u64>,
    discarded: [u64; DiscardReason::COUNT],
}

impl Counters {
    /// Denials of our own by code, sent or suppressed, in the order of the codes.
    pub fn denied(&self) -> impl Iterator<Item = (ReplyCode, u64)> {
        self.denied.iter().map(|(code, count)| (ReplyCode(*code), *count))
    }

    /// Denials of our own with this code.
    pub fn denied_with(&self, code: ReplyCode) -> u64 {
        self.denied.get(&code.0).copied().unwrap_or(0)
    }

    /// Discarded messages by reason, every reason in its order.
    pub fn discarded(&self) -> impl Iterator<Item = (DiscardReason, u64)> {
        DiscardReason::ALL.iter().copied().zip(self.discarded)
    }

    /// Messages discarded for this reason.
    pub fn discarded_for(&self, reason: DiscardReason) -> u64 {
        self.discarded.get(reason as usize).copied().unwrap_or(0)
    }

    pub(crate) fn count_denial(&mut self, code: ReplyCode) {
        *self.denied.entry(code.0).or_default() += 1;
    }

    pub(crate) fn count_discard(&mut self, reason: DiscardReason) {
        if let Some(count) = self.discarded.get_mut(reason as usize) {
            *count += 1;
        }
    }
}
