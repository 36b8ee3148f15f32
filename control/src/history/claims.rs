//! Decisions on messages that anybody could have sent.
//!
//! Buckets by the network that a message came from, each a small ring: who floods from
//! one network, with whatever home addresses, pushes out only what came from there and
//! from the few networks that share its bucket. Which do, an outsider cannot know.

use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;

use homeport_proto::decision::Decision;
use homeport_proto::limits::SOURCE_PREFIX_LEN;
use homeport_proto::{Instant, TenantId};

use super::Told;

/// Decisions of a bucket.
pub(super) const DEPTH: usize = 16;

#[derive(Debug)]
pub(super) struct Claims {
    buckets: Vec<Bucket>,
    hash: RandomState,
    pub(super) replaced: u64,
}

#[derive(Debug, Clone)]
struct Bucket {
    told: [Option<Told>; DEPTH],
    next: usize,
}

impl Claims {
    /// Room for so many decisions.
    pub(super) fn new(room: usize) -> Self {
        let empty = Bucket { told: [const { None }; DEPTH], next: 0 };
        Claims { buckets: vec![empty; room / DEPTH], hash: RandomState::new(), replaced: 0 }
    }

    pub(super) fn record(&mut self, decision: &Decision, now: Instant) {
        let network = decision.source.to_bits() >> (32 - SOURCE_PREFIX_LEN);
        let hash = self.hash.hash_one(network);
        let Some(index) = hash.checked_rem(self.buckets.len() as u64) else { return };
        let index = usize::try_from(index).unwrap_or(0);
        let Some(Bucket { told, next }) = self.buckets.get_mut(index) else { return };
        if told.iter_mut().flatten().any(|one| one.counts(decision, now)) {
            return;
        }
        if let Some(place) = told.get_mut(*next) {
            self.replaced += u64::from(place.replace(Told::once(decision, now)).is_some());
        }
        *next = (*next + 1) % DEPTH;
    }

    pub(super) fn of(
        &self,
        tenant: TenantId,
        home_address: Ipv4Addr,
    ) -> impl Iterator<Item = &Told> {
        self.buckets.iter().flat_map(|bucket| bucket.told.iter().flatten()).filter(move |told| {
            let decision = &told.decision;
            (decision.tenant, decision.request.home_address) == (tenant, home_address)
        })
    }
}
