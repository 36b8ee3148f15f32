//! The foreign agent's challenges (RFC 4721): what it has issued, who has answered
//! what, and what makes an answer one.
//!
//! Every challenge has a number, in the order of issue. A link has a window of the
//! last ones that were advertised on it. Of a node that has answered one, its last is
//! remembered: that one and all before it are stale for the node. A challenge is
//! answered when the request passes every check, and not before, so that a forger
//! uses up nobody's challenge. A node with a NAI is its sessions: each is remembered by
//! itself (`answerers`), so that many of them can answer what was advertised once.
//!
//! A reply carries a challenge that its node has not used: the newest of the window,
//! else one for the node alone. Only a node that has answered one already has a place
//! to keep that in: who is not authentic makes nothing grow, and voids nothing
//! (RFC 4721 §12).
//!
//! Decisions where the text leaves a choice:
//! * The challenge is the extension behind the mobile-home authentication; in front of
//!   it, one is the home agent's.
//! * Where challenges are required, an answer counts under a mobile-foreign
//!   authentication that we share, or a mobile-AAA authentication, which the home
//!   agent has to accept before the challenge counts as used. Else it is 67.
//! * A solicited advertisement is for the node that its solicitation comes from: from
//!   no address, the newest of the window. So it is for a node with a NAI, whose sessions
//!   hear it too.
//!
//! **Not done:** asking an AAA server about a mobile-AAA authentication (108, RFC 4721
//! §3.2); the Foreign Agent Error extension when a home agent gives back another
//! challenge than was relayed (109, RFC 4636): what it gives back is taken away.

use alloc::collections::{BTreeMap, VecDeque};
use core::net::Ipv4Addr;
use homeport_wire::PortId;

use super::answerers::{Answerers, Places, Respondent};
use super::{Asker, ForeignAgent};
use crate::agent::Context;
use crate::config::ChallengePolicy;
use crate::decision::Cause;
use crate::message::{AuthenticationKind, Extension, Received, RegistrationRequest};
use crate::visitor::{Station, pending_range};

/// Bytes of a challenge of ours; at least four (RFC 4721 §2).
pub(crate) const CHALLENGE_LEN: usize = 16;

/// Type and length in front of it.
const EXTENSION_HEADER_LEN: usize = 2;

/// A challenge of ours.
pub(crate) type Challenge = [u8; CHALLENGE_LEN];

/// A challenge and its number in the order of issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    pub(super) number: u64,
    pub(super) challenge: Challenge,
}

/// What was issued, and who has answered it.
#[derive(Debug, Default)]
pub(super) struct Challenges {
    issued: u64,
    windows: BTreeMap<PortId, VecDeque<Issued>>,
    answerers: Answerers,
}

/// An answer that is right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) issued: Issued,
    /// Whether the node has signed it for us; else only its home agent can tell.
    is_signed: bool,
}

impl Challenges {
    fn issue(&mut self, context: &mut Context<'_>) -> Issued {
        let mut challenge = [0; CHALLENGE_LEN];
        for word in challenge.as_chunks_mut::<4>().0 {
            *word = context.random().to_be_bytes();
        }
        self.issued += 1;
        Issued { number: self.issued, challenge }
    }

    /// A new challenge at the end of a link's window.
    fn advance(&mut self, port: PortId, len: usize, context: &mut Context<'_>) -> Issued {
        let issued = self.issue(context);
        let window = self.windows.entry(port).or_default();
        window.push_back(issued);
        while window.len() > len.max(1) {
            window.pop_front();
        }
        issued
    }

    /// A challenge that the node has not used.
    fn unused(
        &mut self,
        node: &Respondent,
        port: PortId,
        len: usize,
        context: &mut Context<'_>,
    ) -> Issued {
        let newest = self.windows.get(&port).and_then(VecDeque::back).copied();
        let newest = newest.unwrap_or_else(|| self.advance(port, len, context));
        match self.answerers.get(node) {
            Some(one) if one.used.number >= newest.number => {
                let offered = one.offered;
                let offered = offered.unwrap_or_else(|| self.issue(context));
                self.answerers.offer(node, offered);
                offered
            }
            _ => newest,
        }
    }

    /// The challenge that a node answers on a link (RFC 4721 §3.2).
    fn judge(&self, node: &Respondent, port: PortId, answer: &[u8]) -> Result<Issued, Cause> {
        let answerer = self.answerers.get(node);
        let window = self.windows.get(&port).into_iter().flatten();
        let offered = answerer.and_then(|answerer| answerer.offered.as_ref());
        let issued = window.chain(offered).find(|issued| issued.challenge == answer);
        match (issued, answerer.map(|answerer| answerer.used)) {
            #[cfg(feature = "planted-bugs")]
            (Some(issued), Some(used))
                if issued.number == used.number
                    && crate::planted::is(crate::planted::Bug::ChallengeAnsweredTwice) =>
            {
                Ok(*issued)
            }
            (Some(issued), Some(used)) if used.number >= issued.number => {
                Err(Cause::StaleChallenge)
            }
            (Some(issued), _) => Ok(*issued),
            (None, Some(used)) if used.challenge == answer => Err(Cause::StaleChallenge),
            (None, _) => Err(Cause::UnknownChallenge),
        }
    }

    /// The number of the oldest challenge that everybody on its link can answer.
    fn oldest(&self) -> u64 {
        let oldest = self.windows.values().filter_map(VecDeque::front);
        oldest.map(|issued| issued.number).min().unwrap_or(u64::MAX)
    }
}

impl ForeignAgent {
    fn challenges(&self) -> bool {
        self.config.challenge != ChallengePolicy::Off
    }

    /// The challenge of an advertisement. Unasked ones each have a new one (RFC 4721
    /// §2); a solicited one what the node, `asked_by`, has not used (§2.1).
    pub(crate) fn advertised_challenge(
        &mut self,
        port: PortId,
        asked_by: Option<Ipv4Addr>,
        context: &mut Context<'_>,
    ) -> Option<Challenge> {
        if !self.challenges() || self.link_address(port).is_none() {
            return None;
        }
        let len = self.config.challenge_window;
        let issued = match asked_by {
            Some(node) => self.challenges.unused(&Respondent::Node(node), port, len, context),
            None => self.challenges.advance(port, len, context),
        };
        Some(issued.challenge)
    }

    /// The challenge of a reply (RFC 4721 §3.3).
    pub(super) fn replied_challenge(
        &mut self,
        (station, asker): (&Station, &Asker),
        context: &mut Context<'_>,
    ) -> Option<Challenge> {
        if !self.challenges() {
            return None;
        }
        let (node, len) = (asker.respondent(), self.config.challenge_window);
        Some(self.challenges.unused(&node, station.port, len, context).challenge)
    }

    /// Bytes of the extension in which a reply carries it; none where there are none.
    pub(super) fn challenge_extension_len(&self) -> usize {
        if self.challenges() { EXTENSION_HEADER_LEN + CHALLENGE_LEN } else { 0 }
    }

    /// What a request answers, `None` where it need not (RFC 4721 §3.2).
    pub(super) fn answer(
        &self,
        (station, asker): (&Station, &Asker),
        received: &Received<'_, RegistrationRequest>,
    ) -> Result<Option<Answer>, Cause> {
        let required = self.config.challenge == ChallengePolicy::Required;
        let Some(authorized) = received.mobile_home_authentication() else { return Ok(None) };
        if !self.challenges() {
            return Ok(None);
        }
        let behind = received.extensions().iter().filter(|one| one.offset > authorized.offset);
        let mut found = behind.filter_map(|one| match one.extension {
            Extension::Challenge(challenge) => Some((one.offset, challenge)),
            _ => None,
        });
        let Some((offset, challenge)) = found.next() else {
            return match required {
                true => Err(Cause::MissingChallenge),
                false => Ok(None),
            };
        };
        if found.next().is_some() {
            return Err(Cause::TwoChallenges);
        }
        let signed = received
            .authentications(AuthenticationKind::MobileForeign)
            .any(|one| one.offset > offset);
        let to_be_proven = received.extensions().iter().any(|one| {
            one.offset > offset
                && matches!(one.extension, Extension::GeneralizedAuthentication { .. })
        });
        if !signed && !to_be_proven {
            return Err(Cause::ChallengeUnsigned);
        }
        let issued = match self.challenges.judge(&asker.respondent(), station.port, challenge) {
            Ok(issued) => issued,
            Err(Cause::StaleChallenge) => {
                self.retransmitted((station, asker), challenge).ok_or(Cause::StaleChallenge)?
            }
            Err(cause) => return Err(cause),
        };
        // Where an association is shared, the authenticator has been found right.
        let security = &self.config.security;
        let is_signed = signed && security.knows_mobile_node(asker.peer(security));
        if !is_signed && !to_be_proven {
            return match required {
                true => Err(Cause::ChallengeUnproven),
                false => Ok(None),
            };
        }
        Ok(Some(Answer { issued, is_signed }))
    }

    /// The challenge of a pending request that is sent once more: the same but for its
    /// lifetime and identification, and of the same name (RFC 4721 §3.2).
    fn retransmitted(
        &self,
        (station, asker): (&Station, &Asker),
        challenge: &[u8],
    ) -> Option<Issued> {
        let request = |of: &Station| RegistrationRequest {
            lifetime: station.request.lifetime,
            identification: station.request.identification,
            ..of.request
        };
        self.pending
            .range(pending_range(station.request.home_address, station.mac, station.mac))
            .filter(|(_, pending)| request(&pending.station) == station.request)
            .filter(|(_, pending)| pending.asker.name == asker.name)
            .filter_map(|(_, pending)| pending.challenge)
            .find(|issued| issued.challenge == challenge)
    }

    /// A request has passed every check: what it answers is used, if the node has
    /// signed it for us.
    ///
    /// # Errors
    /// [`Cause::AnswerersFull`] when it cannot be remembered.
    pub(super) fn spend(
        &mut self,
        asker: &Asker,
        answer: Answer,
        context: &mut Context<'_>,
    ) -> Result<(), Cause> {
        context.counters.foreign_challenges_answered += 1;
        match answer.is_signed {
            true => self.spend_accepted(asker, answer.issued, context),
            false => Ok(()),
        }
    }

    /// A node's home agent has accepted what answers a challenge.
    ///
    /// # Errors
    /// [`Cause::AnswerersFull`] when it cannot be remembered.
    pub(super) fn spend_accepted(
        &mut self,
        asker: &Asker,
        issued: Issued,
        context: &mut Context<'_>,
    ) -> Result<(), Cause> {
        let config = &self.config;
        let all = config.max_visitors.saturating_add(config.max_pending);
        // As many may come where as many have gone.
        let share = match config.max_sessions_per_nai {
            0 => all / 2,
            most => most.saturating_mul(2).min(all / 2),
        };
        let places = Places { all, share: share.max(1), oldest: self.challenges.oldest() };
        let owner = asker.owner(&config.security);
        match self.challenges.answerers.note(asker.respondent(), owner, issued, places) {
            true => Ok(()),
            false => {
                context.counters.answerers_refused += 1;
                Err(Cause::AnswerersFull)
            }
        }
    }

    /// Forgets the windows of links that are served no longer, and everything where
    /// there are no challenges any more.
    pub(super) fn trim_challenges(&mut self) {
        if !self.challenges() {
            let issued = self.challenges.issued;
            self.challenges = Challenges { issued, ..Challenges::default() };
        }
        let links = &self.config.links;
        self.challenges.windows.retain(|port, _| links.iter().any(|(link, _)| link == port));
    }
}
