//! The laws of sessions: whose address is whose, and for how long.
//!
//! What a home agent says that it accepted tells when each address becomes free for others:
//! [`STICKY`] after a binding has ended or its session was heard of at home, [`HOLD_DOWN`]
//! after it was given back. Until then nobody else may have it, nor its session another,
//! while the home agent lives, or what it has written down does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use homeport_proto::message::RegistrationRequest;
use homeport_proto::security::ReplayProtection;
use homeport_proto::{Instant, Lifetime, Now, NtpTime};
use homeport_wire::MacAddress;

use super::{Home, Oracle, Rule, Verdict, broken};
use crate::boxes::{Accepted, AgentBox, RequestName};
use crate::simulation::layout::{
    HOLD_DOWN, POOL, STICKY, home_address, home_agent_address, nai, node_mac,
};
use crate::simulation::plan::NodePlan;

/// A node, and the name of one of its sessions.
type Holder = (usize, Vec<u8>);

/// Whose an address is.
#[derive(Clone, Debug)]
struct Held {
    holder: Holder,
    free_at: Instant,
}

/// What is known of all sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// What was really sent for each; without a name, that all are given back.
    sent: BTreeMap<Holder, Vec<RegistrationRequest>>,
    held: BTreeMap<Home, Held>,
    /// The stations that have had each address.
    had: BTreeSet<(Home, MacAddress)>,
    /// A number for each, in the order of their first requests.
    numbers: BTreeMap<Holder, u8>,
}

impl Sessions {
    /// A home agent has forgotten all.
    pub(super) fn forget(&mut self, home_agent: usize) {
        self.held.retain(|(of, _), _| *of != home_agent);
    }

    pub(super) fn sent(&self, node: usize, sub_nai: &[u8]) -> Option<&Vec<RegistrationRequest>> {
        self.sent.get(&(node, sub_nai.to_vec()))
    }

    /// Whether a station has had an address.
    pub(super) fn had(&self, home: Home, station: MacAddress) -> bool {
        self.had.contains(&(home, station))
    }

    /// What stands in a home address's place where identifications are remembered.
    fn stand_in(&mut self, holder: &Holder) -> Ipv4Addr {
        let next = self.numbers.len() as u8 + 1;
        let number = *self.numbers.entry(holder.clone()).or_insert(next);
        Ipv4Addr::new(0, 0, 0, number)
    }

    /// A session was given an address, or keeps it.
    fn hold(&mut self, home: Home, holder: &Holder, free_at: Instant, now: Instant) -> Verdict {
        if let Some(held) = self.held.get(&home).filter(|held| held.holder != *holder)
            && held.free_at > now
        {
            let what = format!("home agent {} gave {} to {holder:?}: {held:?}", home.0, home.1);
            return broken(Rule::Addresses, what);
        }
        let other = self.held.iter().find(|((of, address), held)| {
            *of == home.0 && *address != home.1 && held.holder == *holder && held.free_at > now
        });
        if let Some(((_, address), held)) = other {
            let (agent, now) = home;
            let what = format!("home agent {agent} gave {now} to who has {address}: {held:?}");
            return broken(Rule::Addresses, what);
        }
        self.held.insert(home, Held { holder: holder.clone(), free_at });
        self.had.insert((home, node_mac(holder.0)));
        Ok(())
    }
}

impl Oracle {
    /// A node sent this for its sessions.
    pub fn sent_for_sessions(
        &mut self,
        node: usize,
        requests: impl Iterator<Item = (RequestName, RegistrationRequest)>,
    ) {
        for (name, request) in requests {
            let holder = (node, if name.sub_nai.is_empty() { vec![] } else { name.sub_nai });
            self.sessions.sent.entry(holder).or_default().push(request);
        }
    }

    /// The node of a NAI.
    pub(super) fn named(&self, home_agent: usize, named: &[u8]) -> Option<&NodePlan> {
        let of_agent = self.nodes.values().filter(|node| node.home_agent == home_agent);
        of_agent.into_iter().find(|node| node.devices > 0 && nai(node) == named)
    }

    /// Whether a home agent refuses what a node may send for some of its sessions: as
    /// [`is_locked_out`](Self::is_locked_out), but of any that it has or had.
    pub fn is_locked_out_somewhere(&self, node: &NodePlan, now: Now) -> bool {
        let life = self.lives[node.home_agent];
        let of_agent = self.in_order.iter().filter(|((of, _), _)| *of == node.home_agent);
        let mut all = of_agent.flat_map(|(_, identifications)| identifications);
        node.replay != ReplayProtection::Nonces
            && life.stepped_back
            && all.any(|one| NtpTime(one.0).wrapping_distance(now.ntp) > 0)
    }

    /// A request for a session was accepted, or to give all back.
    pub(super) fn accept_session(
        &mut self,
        at: usize,
        accepted: &Accepted,
        name: &RequestName,
        now: Now,
    ) -> Verdict {
        let Accepted { tenant, request, lifetime, home_address, .. } = *accepted;
        let home_agent = self.accepting(at, accepted);
        let found = home_agent.and_then(|one| Some((one, *self.named(one, &name.nai)?)));
        let Some((home_agent, node)) = found else {
            return broken(Rule::Forgery, format!("tenant {tenant} accepted {request:?}"));
        };
        let holder = (node.node, name.sub_nai.clone());
        let sent = self.sessions.sent.get(&holder).is_some_and(|all| all.contains(&request));
        if !sent {
            let what = format!(
                "home agent {home_agent} accepted {request:?} of {name:?}, which was never sent"
            );
            return broken(Rule::Forgery, what);
        }
        let whose = (home_agent, self.sessions.stand_in(&holder));
        if self.is_repeated(whose, &node, &request)? {
            return Ok(());
        }
        if lifetime != request.lifetime {
            let what = format!("home agent {home_agent} granted {lifetime} for {request:?}");
            return broken(Rule::Lifetime, what);
        }
        if name.sub_nai.is_empty() {
            self.release_all(home_agent, &node, now.monotonic);
            return Ok(());
        }
        let home = (home_agent, home_address);
        if request.lifetime != Lifetime::ZERO {
            self.in_the_pool(home)?;
            let lasts = lifetime.duration().unwrap_or_default();
            let free_at = now.monotonic + lasts + STICKY;
            self.sessions.hold(home, &holder, free_at, now.monotonic)?;
            self.bind(home, &request, now);
            return Ok(());
        }
        let care_of_address = request.care_of_address;
        let at_home = care_of_address == request.home_address;
        let live = self.sessions.held.get(&home).filter(|held| held.free_at > now.monotonic);
        let is_held = live.is_some_and(|held| held.holder == holder);
        let ends = at_home
            || name.releases
            || self.bindings.get(&home).is_some_and(|b| b.care_of_address == care_of_address);
        // Who gives back what was forgotten, and is another's by now, changes nothing.
        if ends && is_held {
            self.bindings.remove(&home);
        }
        if name.releases && is_held {
            self.sessions.hold(home, &holder, now.monotonic + HOLD_DOWN, now.monotonic)?;
        } else if !name.releases && at_home && !home_address.is_unspecified() {
            self.in_the_pool(home)?;
            self.sessions.hold(home, &holder, now.monotonic + STICKY, now.monotonic)?;
        } else if ends && is_held {
            self.sessions.hold(home, &holder, now.monotonic + STICKY, now.monotonic)?;
        }
        Ok(())
    }

    /// What is somebody's is in the lists of the home agents of a box, and nothing stays
    /// there for longer than they say.
    pub(super) fn judge_sessions(&self, at: usize, one: &AgentBox, now: Now) -> Verdict {
        for home_agent in self.home_agents_of(at) {
            let address = home_agent_address(home_agent);
            let mut agents = one.agent.home_agents();
            let Some(agent) = agents.find(|agent| agent.config().address == address) else {
                continue;
            };
            let over = agent
                .sessions(None)
                .into_iter()
                .find(|session| session.until.is_some_and(|until| until < now.monotonic));
            if let Some(over) = over {
                let what = format!("home agent {home_agent} still has {over:?}, at {now:?}");
                return broken(Rule::Addresses, what);
            }
            let of_agent = self.sessions.held.iter().filter(|((of, _), _)| *of == home_agent);
            for ((_, address), held) in of_agent.filter(|(_, held)| held.free_at > now.monotonic) {
                let session = agent.session_at(*address);
                let has = session.is_some_and(|session| {
                    let node = self.named(home_agent, session.nai).map(|node| node.node);
                    (node, session.sub_nai) == (Some(held.holder.0), held.holder.1.as_slice())
                });
                if !has {
                    let what = format!(
                        "home agent {home_agent} has {address} as {session:?}, not {held:?}"
                    );
                    return broken(Rule::Addresses, what);
                }
            }
        }
        Ok(())
    }

    fn in_the_pool(&self, (home_agent, address): Home) -> Verdict {
        match (POOL.0..=POOL.1).contains(&address) {
            true => Ok(()),
            false => broken(Rule::Addresses, format!("home agent {home_agent} gave {address}")),
        }
    }

    /// All addresses of a node's sessions are given back, and its own with them.
    fn release_all(&mut self, home_agent: usize, node: &NodePlan, now: Instant) {
        let Oracle { bindings, sessions, .. } = self;
        bindings.remove(&(home_agent, home_address(node.number)));
        for ((of, address), held) in &mut sessions.held {
            if *of == home_agent && held.holder.0 == node.node {
                held.free_at = held.free_at.min(now + HOLD_DOWN);
                bindings.remove(&(home_agent, *address));
            }
        }
    }
}
