//! The sessions of the nodes that are known by NAI, and where their addresses come from.
//!
//! NAIs and names of sessions are any bytes: they are shown escaped, in one line
//! ([`names`]), and what is no plain text in hex too.

use std::net::Ipv4Addr;

use homeport_proto::home_agent::SessionState;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Encapsulation;
use crate::admin::names;

/// The most sessions in one answer.
pub const MAX_SESSION_ROWS: usize = 10_000;

/// Which sessions are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionsArgs {
    /// Those of this NAI; `None`: of all.
    pub nai: Option<Vec<u8>>,
    /// Those of this tenant; `None`: of all.
    pub tenant: Option<u32>,
}

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SessionStateView {
    /// It has a binding.
    Bound,
    /// It is at home, and needs none.
    Home,
    /// Its binding has ended; the address is kept for it.
    Sticky,
    /// It has given its address back, or was never accepted; nobody else has it yet.
    HeldDown,
}

impl SessionStateView {
    /// The word for people, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            SessionStateView::Bound => SessionState::Bound.name(),
            SessionStateView::Home => SessionState::AtHome.name(),
            SessionStateView::Sticky => SessionState::Sticky.name(),
            SessionStateView::HeldDown => SessionState::HeldDown.name(),
        }
    }
}

impl From<SessionState> for SessionStateView {
    fn from(from: SessionState) -> Self {
        match from {
            SessionState::Bound => SessionStateView::Bound,
            SessionState::AtHome => SessionStateView::Home,
            SessionState::Sticky => SessionStateView::Sticky,
            SessionState::HeldDown => SessionStateView::HeldDown,
        }
    }
}

/// `show sessions`: a session and its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    /// The virtual home agent's tenant.
    pub tenant: u32,
    /// The home agent, by name.
    pub agent: String,
    /// Its address.
    pub home_agent: Ipv4Addr,
    /// The NAI, escaped.
    pub nai: String,
    /// Its bytes in hex, where they are no plain text.
    #[serde(default)]
    pub nai_hex: Option<String>,
    /// Which session of the NAI, escaped; empty: the node itself.
    pub session: String,
    /// Its bytes in hex, where they are no plain text.
    #[serde(default)]
    pub session_hex: Option<String>,
    /// The address that it has.
    pub home_address: Ipv4Addr,
    /// How it stands.
    pub state: SessionStateView,
    /// Where it is, while it is bound; the latest, with simultaneous bindings.
    pub care_of_address: Option<Ipv4Addr>,
    /// How the tunnel there encapsulates.
    pub encapsulation: Option<Encapsulation>,
    /// What is left of its lifetime, while it is bound; `null` is for ever.
    pub remaining_seconds: Option<u64>,
    /// How long the address is still kept for it; `null` while it is bound: it is kept
    /// longer than that.
    pub until_seconds: Option<u64>,
}

impl SessionView {
    /// A session of a home agent, without what its binding says.
    pub fn new(
        (tenant, agent, home_agent): (u32, &str, Ipv4Addr),
        session: &homeport_proto::home_agent::SessionView<'_>,
        until_seconds: Option<u64>,
    ) -> Self {
        SessionView {
            tenant,
            agent: agent.to_owned(),
            home_agent,
            nai: names::shown(session.nai),
            nai_hex: names::hex(session.nai),
            session: names::shown(session.sub_nai),
            session_hex: names::hex(session.sub_nai),
            home_address: session.home_address,
            state: session.state.into(),
            care_of_address: None,
            encapsulation: None,
            remaining_seconds: None,
            until_seconds,
        }
    }
}

/// `show sessions`: as many as an answer may hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionsView {
    /// The first [`MAX_SESSION_ROWS`], ordered by tenant, home agent, NAI and age.
    pub sessions: Vec<SessionView>,
    /// How many there are beyond them.
    pub more: u64,
}

/// How many sessions a home agent has, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionCounts {
    /// With a binding.
    pub bound: u64,
    /// At home.
    pub home: u64,
    /// Whose binding has ended.
    pub sticky: u64,
    /// That are over, their address nobody's yet.
    pub held_down: u64,
}

/// `show pools`: a pool of a home agent, and who has its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolView {
    /// The virtual home agent's tenant.
    pub tenant: u32,
    /// The home agent, by name.
    pub agent: String,
    /// Its address.
    pub home_agent: Ipv4Addr,
    /// The pool's name in the config.
    pub name: String,
    /// The realm whose NAIs get its addresses; `null`: any.
    pub realm: Option<String>,
    /// How many addresses it has to give.
    pub size: u64,
    /// Those of sessions with a binding.
    pub bound: u64,
    /// Those of sessions at home.
    pub home: u64,
    /// Those that are kept for sessions whose binding has ended.
    pub sticky: u64,
    /// Those that are nobody's, but were a session's a moment ago.
    pub held_down: u64,
    /// All others.
    pub free: u64,
    /// Those that are not free, in hundredths of its size, rounded down.
    pub use_percent: u64,
    /// How often it had no address to give since the pools are what they are; the session
    /// may have got one of the next pool.
    pub exhausted: u64,
    /// Sessions of the tenant, of all its pools, that were denied since the start
    /// because no address was free.
    pub exhausted_of_tenant: u64,
}
