//! The challenges of foreign agents: each is answered once by whoever answers it, and none
//! is taken for one that was never issued.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::{Oracle, Rule, Verdict, broken};
use crate::boxes::{AgentBox, Relayed};
use crate::simulation::sight::challenge;

/// Who answers: a NAI and a session of it, or else a home address.
type Respondent = (Option<(Vec<u8>, Vec<u8>)>, Ipv4Addr);

/// What is known of a foreign agent's challenges since it started.
#[derive(Debug, Default)]
pub(super) struct Challenges {
    issued: BTreeSet<Vec<u8>>,
    /// Who has answered which, in the requests with these identifications.
    answered: BTreeMap<(Respondent, Vec<u8>), Vec<u64>>,
    /// The identifications of the requests that are pending.
    pending: BTreeSet<u64>,
}

impl Challenges {
    /// A request that was relayed.
    ///
    /// # Errors
    /// Why it should not have been.
    fn relay(&mut self, relayed: &Relayed) -> Result<(), &'static str> {
        let Relayed { request, name, challenge } = relayed;
        let challenge = challenge.as_ref().ok_or("which answers no challenge")?;
        if !self.issued.contains(challenge) {
            return Err("which answers what was never asked");
        }
        let named = name.as_ref().map(|name| (name.nai.clone(), name.sub_nai.clone()));
        let own = if named.is_some() { Ipv4Addr::UNSPECIFIED } else { request.home_address };
        let answered = self.answered.entry(((named, own), challenge.clone())).or_default();
        // A request that is sent once more, while the first is pending, may answer the same
        // (RFC 4721 §3.2).
        if !answered.is_empty() && !answered.iter().any(|one| self.pending.contains(one)) {
            return Err("which answers a challenge once more");
        }
        answered.push(request.identification.0);
        self.pending.insert(request.identification.0);
        Ok(())
    }
}

impl Oracle {
    /// What a foreign agent relayed in a turn answers its challenges.
    pub(super) fn judge_challenges(&mut self, foreign_agent: usize, one: &mut AgentBox) -> Verdict {
        let relayed = one.relayed.drain(..);
        if !self.shape.has_challenges[foreign_agent] {
            return Ok(());
        }
        let challenges = &mut self.challenges[foreign_agent];
        for relayed in relayed {
            if let Err(why) = challenges.relay(&relayed) {
                let what = format!("foreign agent {foreign_agent} relays {relayed:?}, {why}");
                return broken(Rule::Replay, what);
            }
        }
        let agent = one.agent.foreign_agents().next();
        let pending = agent.into_iter().flat_map(|agent| agent.pending());
        challenges.pending =
            pending.map(|pending| pending.station.request.identification.0).collect();
        Ok(())
    }

    /// What a foreign agent sends to its link may have challenges in it.
    pub(super) fn note_challenges(&mut self, foreign_agent: usize, frames: &[(usize, Vec<u8>)]) {
        if self.shape.has_challenges[foreign_agent] {
            let seen = frames.iter().filter(|(port, _)| *port > 0);
            let seen = seen.filter_map(|(_, frame)| challenge(frame));
            self.challenges[foreign_agent].issued.extend(seen);
        }
    }
}
