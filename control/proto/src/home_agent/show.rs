//! A home agent's sessions and pools, for people.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use super::HomeAgent;
use super::session::{Session, SessionState};
use crate::Instant;
use crate::config::AddressPool;
use crate::security::Subscriber;

/// One session, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView<'a> {
    /// The NAI, its realm in lower case.
    pub nai: &'a [u8],
    /// The session; empty: the node itself.
    pub sub_nai: &'a [u8],
    /// Its home address.
    pub home_address: Ipv4Addr,
    /// How it stands.
    pub state: SessionState,
    /// When its address becomes free for others unless it is heard of; `None`: not before
    /// its binding ends.
    pub until: Option<Instant>,
}

/// A pool and its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse<'a> {
    /// The pool.
    pub pool: &'a AddressPool,
    /// How many of its addresses are bound, at home, sticky and held down.
    pub used: [u64; 4],
    /// How often it had no address to give, since the pools are what they are; the
    /// session may have got one of the next pool.
    pub exhausted: u64,
}

impl PoolUse<'_> {
    /// How many of its addresses are in a state.
    pub fn count(&self, state: SessionState) -> u64 {
        self.used.get(state as usize).copied().unwrap_or(0)
    }

    /// How many are free.
    pub fn free(&self) -> u64 {
        self.pool.size().saturating_sub(self.used.iter().sum())
    }
}

impl HomeAgent {
    /// Its sessions, by NAI in the order of the config and by age; `of`: of this NAI only.
    pub fn sessions(&self, of: Option<&[u8]>) -> Vec<SessionView<'_>> {
        let security = &self.config.security;
        let subscribers: Vec<Subscriber> = match of {
            Some(nai) => security.subscriber(nai).into_iter().collect(),
            None => security.subscribers().collect(),
        };
        let numbers = subscribers.into_iter().flat_map(|one| self.sessions.all_of(one));
        numbers.filter_map(|number| self.sessions.get(number)).map(|one| self.view(one)).collect()
    }

    /// The session that a home address belongs to.
    pub fn session_at(&self, home_address: Ipv4Addr) -> Option<SessionView<'_>> {
        let session = self.sessions.get(self.nodes.session(home_address)?)?;
        Some(self.view(session))
    }

    /// How many sessions are in a state.
    pub fn session_count(&self, state: SessionState) -> usize {
        self.sessions.count(state)
    }

    /// Its pools, each with its use.
    pub fn pools(&self) -> Vec<PoolUse<'_>> {
        let pools = self.config.sessions.pools.iter().zip(&self.pools).enumerate();
        let of = |at| self.sessions.of_pool(at).map(|count| count as u64);
        pools
            .map(|(at, (pool, given))| PoolUse { pool, used: of(at), exhausted: given.exhausted })
            .collect()
    }

    fn view<'a>(&'a self, session: &'a Session) -> SessionView<'a> {
        SessionView {
            nai: self.config.security.nai(session.subscriber),
            sub_nai: &session.sub_nai,
            home_address: session.address,
            state: session.state,
            until: session.until(),
        }
    }
}
