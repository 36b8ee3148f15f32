//! Sessions: devices and applications that know nothing of Mobile IP, and that the node
//! registers for (RFC 2794 names the node; the sub-NAI beside it names the session).
//!
//! Each has a home address of its own from the home agent, and keeps it while all roam.
//! The node's own registration decides where that is: sessions are registered where it
//! is, through the same agent or by the same co-located address. Away from home their
//! requests follow its first request at once, without waiting for the reply, so that a
//! move costs one round trip whatever their number. At home they wait until the home
//! agent knows that the node is there, as it would tunnel its replies away; then it is
//! told, again and again, that each session is at home and keeps its address.
//!
//! A session lives from [`MobileNode::add_session`] to [`MobileNode::remove_session`]
//! and is never given up in between. What is removed is forgotten when the home agent
//! has its address back, or has not answered [`RELEASE_ATTEMPTS`] times. A node that stops
//! removes its own sessions, each by a request: other nodes may have the same NAI. All
//! sessions of the NAI end by [`MobileNode::remove_all_sessions`] only.
//!
//! | bound | number |
//! |---|---|
//! | sessions, with those that are being given back | [`MAX_SESSIONS`] |
//! | requests on their way of sessions without address | [`MAX_NEW`]; with nonces one |
//! | of other sessions | [`MAX_KNOWN`] |
//! | requests of a session | as of the node: a burst of four, then one a second |
//!
//! **Not done:** a tunnel of its own for each session: all share the node's, so a home
//! agent that gives each a GRE key of its own (RFC 6245) is answered with the node's.

mod answers;
mod requests;
mod table;

use alloc::sync::Arc;
use core::fmt;
use core::net::Ipv4Addr;

pub(super) use answers::Whose;
pub(super) use table::Sessions;
use table::Turn;

use super::pace::Pace;
use super::request::{Memory, Pending, Target};
use super::{MobileNode, MobileNodeAction, Phase, is_host};
use crate::message::session::{MAX_NAI, MAX_SUB_NAI};
use crate::message::{ReplyCode, SessionCarriage};
use crate::{Instant, Lifetime, Now};

/// How many sessions a node has at most.
pub const MAX_SESSIONS: usize = 1024;

/// Requests on their way of sessions that have no address yet: foreign agents count
/// those of one station together.
pub const MAX_NEW: usize = 4;

/// Requests on their way of all other sessions.
pub const MAX_KNOWN: usize = 28;

/// How often an address is given back, should nobody answer.
pub const RELEASE_ATTEMPTS: u32 = 4;

/// Why a session cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// The node has no NAI, or one that is too long.
    NoNai,
    /// The name is empty, or too long for how it is carried.
    NameLength,
    /// There is one with this name.
    Duplicate,
    /// There are [`MAX_SESSIONS`].
    TooMany,
    /// The node is on the way out.
    Stopping,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionError::NoNai => write!(f, "the node has no NAI of 1 to {MAX_NAI} bytes"),
            SessionError::NameLength => write!(
                f,
                "the session's name is empty or longer than {MAX_SUB_NAI} bytes (with the NAI \
                 in one extension, both together)"
            ),
            SessionError::Duplicate => f.write_str("there is a session with this name"),
            SessionError::TooMany => write!(f, "there are {MAX_SESSIONS} sessions"),
            SessionError::Stopping => f.write_str("the node is stopping"),
        }
    }
}

impl core::error::Error for SessionError {}

/// A session's registration in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    target: Target,
    care_of_address: Ipv4Addr,
    lifetime: Lifetime,
    expires_at: Option<Instant>,
    renew_at: Option<Instant>,
}

/// A session of the node.
#[derive(Clone, Debug)]
pub struct Session {
    sub_nai: Arc<[u8]>,
    home_address: Option<Ipv4Addr>,
    /// The address to ask for, or to give back.
    wanted: Option<Ipv4Addr>,
    standing: Option<Standing>,
    pending: Option<Pending>,
    turn: Turn,
    /// No request is sent before.
    not_before: Option<Instant>,
    pace: Pace,
    denials: u32,
    last_denial: Option<ReplyCode>,
    memory: Memory,
    announcements: Option<(Instant, usize)>,
    /// Whether the home agent may know it.
    known: bool,
    /// Whether it is over, and its address only to be given back.
    leaving: bool,
    /// When it is in the list of timers.
    due: Option<Instant>,
}

impl Session {
    fn new(sub_nai: Arc<[u8]>, wanted: Option<Ipv4Addr>) -> Self {
        Session {
            sub_nai,
            home_address: None,
            wanted,
            standing: None,
            pending: None,
            turn: Turn::None,
            not_before: None,
            pace: Pace::default(),
            denials: 0,
            last_denial: None,
            memory: Memory::default(),
            announcements: None,
            known: false,
            leaving: false,
            due: None,
        }
    }

    /// Its name, unique in the node's NAI: bytes of any kind.
    pub fn sub_nai(&self) -> &[u8] {
        &self.sub_nai
    }

    /// The home address that the home agent has given it, registered now or not.
    pub const fn home_address(&self) -> Option<Ipv4Addr> {
        self.home_address
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        match (&self.standing, self.turn) {
            (Some(Standing { target: Target::Home(_), .. }), _) => Phase::AtHome,
            (Some(_), _) => Phase::Registered,
            (None, Turn::Queued { .. } | Turn::Asking { .. }) => Phase::Registering,
            (None, Turn::None) if self.denials > 0 => Phase::Denied,
            (None, Turn::None) => Phase::Searching,
        }
    }

    /// Where its tunnel ends; at home, its home address. `None`: it is not registered.
    pub fn care_of_address(&self) -> Option<Ipv4Addr> {
        self.standing.map(|standing| standing.care_of_address)
    }

    /// The lifetime granted; zero at home. `None`: it is not registered.
    pub fn lifetime(&self) -> Option<Lifetime> {
        self.standing.map(|standing| standing.lifetime)
    }

    /// When its registration ends unless it is renewed; `None`: never, or there is none.
    pub fn expires_at(&self) -> Option<Instant> {
        self.standing?.expires_at
    }

    /// Why its last request was denied, if it was.
    pub const fn last_denial(&self) -> Option<ReplyCode> {
        self.last_denial
    }

    /// What its next request has in the Home Address field.
    fn asked_address(&self) -> Ipv4Addr {
        self.home_address.or(self.wanted).unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// Whether it is time to ask for something at `place`.
    fn wants(&self, place: Target, now: Instant) -> bool {
        let stands = self.standing.is_some_and(|standing| {
            standing.target == place && standing.renew_at.is_none_or(|at| at > now)
        });
        self.not_before.is_none() && (self.leaving || !stands)
    }
}

impl MobileNode {
    /// Begins a session: asks for an address, or for `wanted` again, and keeps it
    /// registered wherever the node is.
    ///
    /// # Errors
    /// [`SessionError`]; nothing has changed.
    pub fn add_session(
        &mut self,
        sub_nai: &[u8],
        wanted: Option<Ipv4Addr>,
        now: Now,
    ) -> Result<(), SessionError> {
        let nai_len = self.may_have_sessions()?;
        let most = match self.config.session_carriage {
            SessionCarriage::Separate => MAX_SUB_NAI,
            SessionCarriage::Combined => (MAX_SUB_NAI - 1).saturating_sub(nai_len),
        };
        if !(1..=most).contains(&sub_nai.len()) {
            return Err(SessionError::NameLength);
        }
        let home_address = self.config.home_address;
        let wanted = wanted.filter(|wanted| is_host(*wanted) && *wanted != home_address);
        self.sessions.add(sub_nai, wanted)?;
        self.tend(&Arc::from(sub_nai), now);
        self.settle_sessions(now);
        Ok(())
    }

    /// Ends a session and gives its address back. Whether there was one.
    pub fn remove_session(&mut self, sub_nai: &[u8], now: Now) -> bool {
        let Some(sub_nai) = self.end_session(sub_nai) else { return false };
        self.tend(&sub_nai, now);
        self.settle_sessions(now);
        true
    }

    /// The host has it no longer; its name, if there was one.
    fn end_session(&mut self, sub_nai: &[u8]) -> Option<Arc<[u8]>> {
        let (sub_nai, home_address) = self.sessions.remove(sub_nai)?;
        let action = MobileNodeAction::LoseSession { sub_nai: Arc::clone(&sub_nai), home_address };
        self.actions.push_back(action);
        Some(sub_nai)
    }

    /// Ends all sessions of the node's NAI, those that other nodes have registered too, and
    /// gives their addresses back in one request, once there is a way. A session that begins
    /// meanwhile waits for that.
    ///
    /// # Errors
    /// [`SessionError`]; nothing has changed.
    pub fn remove_all_sessions(&mut self, now: Now) -> Result<(), SessionError> {
        self.may_have_sessions()?;
        for name in self.sessions.names() {
            self.end_session(&name);
            self.sessions.forget(&name);
        }
        self.sessions.releases_all = true;
        self.settle_sessions(now);
        Ok(())
    }

    /// The length of the node's NAI, if it is one and the node is not on the way out.
    fn may_have_sessions(&self) -> Result<usize, SessionError> {
        if self.stopping.is_some() {
            return Err(SessionError::Stopping);
        }
        let nai_len = self.config.nai.as_ref().map_or(0, |nai| nai.len());
        (1..=MAX_NAI).contains(&nai_len).then_some(nai_len).ok_or(SessionError::NoNai)
    }

    /// Its sessions, in order of their names.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.all().filter(|session| !session.leaving)
    }

    /// The session of this name.
    pub fn session(&self, sub_nai: &[u8]) -> Option<&Session> {
        self.sessions.get(sub_nai).filter(|session| !session.leaving)
    }
}
