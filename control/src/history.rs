//! What was decided about nodes lately, for who asks why one is refused: a bounded
//! memory of [`Decision`]s.
//!
//! It is kept in three places, so that nobody's messages push out what is remembered
//! of others:
//!
//! | of | place | how much | what goes first |
//! |---|---|---|---|
//! | nodes, by what they have signed | `stories`: a node's last [`STORY`] | `daemon.remembered_nodes` | see there |
//! | nodes, by what merely names them | `claims` | [`CLAIMED`] decisions | the oldest from the same sources |
//! | nobody known | `claims` | [`UNKNOWN`] decisions | the oldest from the same sources |
//!
//! A decision that is like the one before it of the same node is counted there and
//! takes no place of its own: a node that asks every second with a wrong key, or renews
//! for days, is one entry. So is each session of a NAI, as far as its name is remembered.
//!
//! All memory is taken at the start, 1.1 KB for each remembered node.
//!
//! **Not done:** it does not outlive the process.

mod claims;
mod stories;

use std::net::Ipv4Addr;

use homeport_proto::decision::{Answer, Decision, Standing};
use homeport_proto::{Instant, TenantId};

use self::claims::Claims;
use self::stories::Stories;
use crate::admin::api::CounterView;

pub use self::stories::{MAX_REMEMBERED_NODES, MIN_KEPT, STORY, STORY_COPIES};

/// Decisions that are remembered of messages which name a known node and do not show
/// that they are from it.
pub const CLAIMED: usize = 4_096;
/// Decisions that are remembered of messages which name nobody known here.
pub const UNKNOWN: usize = 1_024;

/// A decision, and how often it was made in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The last of them.
    pub decision: Decision,
    /// When the first was made.
    pub first: Instant,
    /// When the last was made.
    pub last: Instant,
    /// How many.
    pub times: u32,
}

impl Told {
    const fn once(decision: &Decision, now: Instant) -> Self {
        Told { decision: *decision, first: now, last: now, times: 1 }
    }

    /// Counts `decision` here if it is the same as the last one for whoever reads it.
    fn counts(&mut self, decision: &Decision, now: Instant) -> bool {
        if !is_alike(&self.decision, decision) {
            return false;
        }
        self.decision = *decision;
        self.last = now;
        self.times = self.times.saturating_add(1);
        true
    }
}

/// Whether two decisions of one node differ in nothing but their time.
fn is_alike(a: &Decision, b: &Decision) -> bool {
    let asked = |one: &Decision| {
        let request = &one.request;
        (request.home_agent, request.care_of_address, request.lifetime, request.flags)
    };
    let said = |one: &Decision| match one.ruling.answer {
        Answer::Replied { code, lifetime } => Some((code, lifetime)),
        Answer::Relayed | Answer::Acknowledged | Answer::Silent(_) => None,
    };
    a.request.home_address == b.request.home_address
        && a.session == b.session
        && a.ruling.cause == b.ruling.cause
        && a.source == b.source
        && a.tenant == b.tenant
        && a.judge == b.judge
        && a.extensions == b.extensions
        && asked(a) == asked(b)
        // Whether a denial was held back is no news.
        && (!a.ruling.cause.is_favourable() || said(a) == said(b))
}

/// The memory.
#[derive(Debug)]
pub struct History {
    stories: Stories,
    claimed: Claims,
    unknown: Claims,
    recorded: u64,
}

impl History {
    /// A memory of so many nodes, at most [`MAX_REMEMBERED_NODES`]; of none, nothing is
    /// remembered at all.
    pub fn new(nodes: usize) -> Self {
        let on = nodes > 0;
        History {
            stories: Stories::new(nodes.min(MAX_REMEMBERED_NODES)),
            claimed: Claims::new(if on { CLAIMED } else { 0 }),
            unknown: Claims::new(if on { UNKNOWN } else { 0 }),
            recorded: 0,
        }
    }

    /// Remembers a decision.
    pub fn record(&mut self, decision: &Decision, now: Instant) {
        self.recorded += 1;
        match decision.ruling.standing {
            Standing::Authentic | Standing::Copied => self.stories.record(decision, now),
            Standing::Claimed => self.claimed.record(decision, now),
            Standing::Unknown => self.unknown.record(decision, now),
        }
    }

    /// What is remembered of a home address of a tenant, the newest first.
    pub fn of(&self, tenant: TenantId, home_address: Ipv4Addr) -> Vec<Told> {
        let claims = self.claimed.of(tenant, home_address);
        let claims = claims.chain(self.unknown.of(tenant, home_address));
        let mut told: Vec<Told> =
            self.stories.of(tenant, home_address).chain(claims).copied().collect();
        told.sort_by_key(|one| std::cmp::Reverse(one.last));
        told
    }

    /// What was counted, and how many nodes are remembered now.
    pub fn counters(&self) -> impl Iterator<Item = CounterView> {
        let counts = [
            ("decisions_recorded", self.recorded, "Registration messages decided upon."),
            ("stories", self.stories.len(), "Nodes whose last registrations are remembered, now."),
            (
                "stories_replaced",
                self.stories.replaced,
                "Nodes whose last registrations were forgotten for another's: raise daemon.remembered_nodes.",
            ),
            (
                "stories_not_begun",
                self.stories.not_begun,
                "Acceptances not remembered, because all that is remembered is newer than a minute.",
            ),
            (
                "claims_replaced",
                self.claimed.replaced,
                "Refusals forgotten of messages that named a known node and did not show to be from it.",
            ),
            (
                "unknown_replaced",
                self.unknown.replaced,
                "Refusals forgotten of messages that named nobody known here.",
            ),
        ];
        counts.into_iter().map(|(name, value, text)| CounterView {
            name: name.into(),
            value,
            text: text.into(),
            ..CounterView::default()
        })
    }
}

#[cfg(test)]
mod tests;
