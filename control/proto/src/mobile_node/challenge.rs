//! A foreign agent's challenge, and its answer (RFC 4721 §3.1, §3.5).
//!
//! The newest that the agent has given is answered, be it from an advertisement or a
//! reply; what a reply gives is for the session, or the node, that it answers, and for
//! nobody else. The answer is the challenge under the mobile-foreign authentication: to an
//! agent that we share no association with, there is none to give.
//!
//! **Not done:** the mobile-AAA authentication, which would be such an answer.

use alloc::vec::Vec;

use super::MobileNode;
use super::request::{Pending, Target};
use crate::message::{AuthenticationKind, Extension, Received, RegistrationReply, ReplyCode};

impl MobileNode {
    /// What a request to a foreign agent answers.
    pub(super) fn foreign_challenge(&self, pending: &Pending) -> Option<Vec<u8>> {
        let Target::ForeignAgent(address) = pending.target else { return None };
        self.foreign_association(pending)?;
        let sub_nai = pending.identity.sub_nai.as_deref().unwrap_or_default();
        self.agents.get(address)?.challenge_for(sub_nai).map(<[u8]>::to_vec)
    }

    /// Takes the challenge out of an agent's reply, which has been verified.
    pub(super) fn learn_challenge(
        &mut self,
        pending: &Pending,
        reply: &Received<'_, RegistrationReply>,
    ) {
        let Target::ForeignAgent(address) = pending.target else { return };
        // In front of the mobile-home authentication it would be the home agent's, and
        // behind the mobile-foreign one anybody's.
        let start = reply.mobile_home_authentication().map_or(0, |one| one.offset);
        let signed = reply.authentications(AuthenticationKind::MobileForeign).next();
        let end = signed.map_or(usize::MAX, |one| one.offset);
        let challenge = reply.extensions().iter().find_map(|one| match one.extension {
            Extension::Challenge(challenge) if (start..end).contains(&one.offset) => {
                Some(challenge)
            }
            _ => None,
        });
        if let Some(challenge) = challenge {
            let sub_nai = pending.identity.sub_nai.as_deref().unwrap_or_default();
            self.agents.challenge(address, sub_nai, challenge);
        }
    }

    /// Whether a denial because of the challenge can be met by a request with
    /// another one (§3.5).
    pub(super) fn may_answer_anew(&self, pending: &Pending, code: ReplyCode) -> bool {
        let about_it = matches!(
            code,
            ReplyCode::UNKNOWN_CHALLENGE
                | ReplyCode::MISSING_CHALLENGE
                | ReplyCode::STALE_CHALLENGE
        );
        let newest = self.foreign_challenge(pending);
        about_it && newest.is_some() && newest != pending.asked.foreign_challenge
    }
}
