//! A home agent that the network chooses (RFC 4433 §5.1).
//!
//! Until one has accepted, requests leave the Home Agent field open and name, in a
//! Requested HA extension, the home agent that is asked: the one of the config first,
//! then where each has sent us. The one that accepts is ours for as long as we run.
//!
//! We follow [`MAX_REDIRECTIONS`] times in a row, to home agents that we share a key
//! with, and never to one that has sent us away before. Else it is a denial like
//! another: after its wait everything begins anew with the home agent of the config. So
//! it does when one that we were sent to does not answer.
//!
//! **Not done:** the older form of requests that foreign agents without RFC 4433 need
//! (§10): such an agent denies, or is silent, and another attachment is tried.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use super::request::{Identifications, Memory, Pending};
use super::{MobileNode, MobileNodeAction, MobileNodeEvent};
use crate::message::{
    DynamicHomeAgent, DynamicHomeAgentKind, Extension, Received, RegistrationReply,
};

/// How often in a row we let ourselves be sent elsewhere.
pub const MAX_REDIRECTIONS: usize = 4;

/// Requests that a home agent we were sent to may leave unanswered.
pub(super) const SILENT_ATTEMPTS: u32 = 3;

/// How far the choice has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// Whether a home agent has accepted us.
    assigned: bool,
    /// Who has sent us elsewhere, in order.
    left: Vec<Ipv4Addr>,
}

impl MobileNode {
    /// Whether the next request leaves it open whom it is for.
    pub(super) fn is_open(&self) -> bool {
        self.config.dynamic_home_agent.is_some() && !self.choice.assigned
    }

    /// A home agent has accepted: it is ours.
    pub(super) fn assigned(&mut self) {
        self.choice = Choice { assigned: true, left: Vec::new() };
    }

    /// Asks the home agent that a denial names, from now on; `false` when it may not be
    /// followed.
    pub(super) fn follow(
        &mut self,
        pending: &mut Pending,
        reply: &Received<'_, RegistrationReply>,
    ) -> bool {
        let from = self.config.home_agent;
        let end = reply.mobile_home_authentication().map_or(0, |one| one.offset);
        let signed = reply.extensions().iter().take_while(|one| one.offset < end);
        let mut named = signed.filter_map(|one| match one.extension {
            Extension::DynamicHomeAgent(DynamicHomeAgent { kind, address, .. }) => {
                (kind == DynamicHomeAgentKind::Redirected).then_some(address)
            }
            _ => None,
        });
        let named = named.next();
        let to = named.filter(|to| {
            *to != from
                && !self.choice.left.contains(to)
                && self.choice.left.len() < MAX_REDIRECTIONS
                && self.config.security.first_agent(*to).is_some()
        });
        let to = to.filter(|_| pending.open);
        self.choice.left.push(from);
        let Some(to) = to else {
            self.event(MobileNodeEvent::RedirectionRefused { from, to: named });
            self.begin_anew();
            return false;
        };
        self.event(MobileNodeEvent::Redirected { from, to });
        self.use_home_agent(to);
        pending.renew();
        true
    }

    /// Whom we were sent to does not answer: everything begins anew. Whether anything
    /// does.
    pub(super) fn doubt_redirection(&mut self) -> bool {
        let sent = !self.choice.left.is_empty();
        self.begin_anew();
        sent
    }

    /// The home agent of the config, after a redirection that led nowhere.
    fn begin_anew(&mut self) {
        let first = self.choice.left.first().copied();
        self.choice.left.clear();
        if let Some(first) = first.filter(|first| *first != self.config.home_agent) {
            self.use_home_agent(first);
        }
    }

    fn use_home_agent(&mut self, address: Ipv4Addr) {
        self.config.home_agent = address;
        // Another home agent, another clock, other nonces.
        self.identifications = Identifications::default();
        self.memory = Memory::default();
        self.forget_memories();
        self.actions.push_back(MobileNodeAction::UseHomeAgent(address));
    }
}
