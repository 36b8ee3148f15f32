//! What boxes send, and what arrives: at nodes and their devices, and at correspondents.

use std::net::Ipv4Addr;

use homeport_wire::MacAddress;

use super::{Home, Oracle, Rule, Verdict, broken};
use crate::simulation::layout::{
    care_of_address, correspondent_mac, home_address, home_agent_address, home_agent_at, node_mac,
    peer_mac, pooled, tag_at, tag_of,
};
use crate::simulation::plan::NodePlan;
use crate::simulation::sight::{Sight, Tag, look};

impl Oracle {
    /// What a box may send, and to whom.
    pub(super) fn judge_frame(&self, at: usize, port: usize, frame: &[u8]) -> Verdict {
        let Some((to, sight)) = look(frame) else { return Ok(()) };
        let foreign_agent = at.checked_sub(self.shape.home_boxes());
        match sight {
            Sight::Datagram { tag, tunnel } => {
                let Some(correspondent) = self.correspondent_of(tag) else { return Ok(()) };
                if tag.is_forged() {
                    let what = format!("box {at} passes a stranger's packet on, to {to}");
                    return broken(Rule::Forgery, what);
                }
                match foreign_agent {
                    Some(one) => self.judge_visiting(one, port, to, tag, tunnel),
                    None => self.judge_home(at, port, (to, correspondent), tag, tunnel),
                }
            }
            Sight::Reply(reply) if foreign_agent.is_some() && port > 0 => {
                let home_agent = self.home_agent_with(reply.home_agent);
                let home = home_agent.map(|one| (one, reply.home_address));
                // That all addresses are given back is said of none.
                if home.is_some_and(|home| self.sessions.had(home, to))
                    || reply.home_address.is_unspecified()
                {
                    return Ok(());
                }
                let node = home_agent.and_then(|one| self.node(one, reply.home_address));
                let right = node.map(|node| node_mac(node.node));
                if reply.code.is_accepted() && right != Some(to) {
                    let what = format!("box {at} relays {reply:?} to {to}, not {right:?}");
                    return broken(Rule::Isolation, what);
                }
                Ok(())
            }
            Sight::Reply(_) => Ok(()),
        }
    }

    /// The station of the correspondent that a datagram is of or for, if there is one.
    fn correspondent_of(&self, tag: Tag) -> Option<MacAddress> {
        let (home_agent, number) = (tag.home_agent(), tag.number());
        if pooled().contains(&number) {
            let is_there = home_agent < self.shape.home_agents.len();
            return is_there.then(|| peer_mac(home_agent, number));
        }
        self.nodes.get(&(home_agent, number)).map(|node| correspondent_mac(node.node))
    }

    /// Whether an address is one of the node with this station, or was a session's there.
    fn is_station_of(&self, home: Home, station: MacAddress) -> bool {
        let own = self.node(home.0, home.1).map(|node| node_mac(node.node));
        own == Some(station) || self.sessions.had(home, station)
    }

    fn judge_home(
        &self,
        at: usize,
        port: usize,
        (to, correspondent): (MacAddress, MacAddress),
        tag: Tag,
        tunnel: Option<(Ipv4Addr, Ipv4Addr)>,
    ) -> Verdict {
        let home_agent = tag.home_agent();
        let home = (home_agent, home_address(tag.number()));
        if port > 0 {
            let is_its_own = home_agent_at(&self.shape, at, port) == Some(home_agent);
            let right = match tag.is_from_node() {
                true => to == correspondent,
                false => {
                    self.is_station_of(home, to) && self.shape.home_agents[home_agent].home_link
                }
            };
            if !is_its_own || !right || tunnel.is_some() {
                let what = format!("box {at} sends {tag:x?} of {home:?} by port {port} to {to}");
                return broken(Rule::Isolation, what);
            }
            return Ok(());
        }
        let Some((from, end)) = tunnel.filter(|_| !tag.is_from_node()) else {
            let what = format!("box {at} sends {tag:x?} of {home:?} out of its tunnel, to {to}");
            return broken(Rule::Forwarding, what);
        };
        let bound = self.bindings.get(&home).map(|binding| binding.care_of_address);
        let is_right = bound == Some(end) || self.right.contains(&(home, end));
        if from != home_agent_address(home_agent) || !is_right {
            let what = format!("{tag:x?} for {home:?} goes from {from} to {end}, not to {bound:?}");
            return broken(Rule::Forwarding, what);
        }
        Ok(())
    }

    fn judge_visiting(
        &self,
        foreign_agent: usize,
        port: usize,
        to: MacAddress,
        tag: Tag,
        tunnel: Option<(Ipv4Addr, Ipv4Addr)>,
    ) -> Verdict {
        let home = (tag.home_agent(), home_address(tag.number()));
        let right = match port {
            0 => {
                let ends = (care_of_address(foreign_agent), home_agent_address(home.0));
                tag.is_from_node() && tunnel == Some(ends)
            }
            _ => !tag.is_from_node() && tunnel.is_none() && self.is_station_of(home, to),
        };
        if right {
            return Ok(());
        }
        let what = format!(
            "foreign agent {foreign_agent} sends {tag:x?} of {home:?} by port {port} to {to}, in \
             {tunnel:?}"
        );
        broken(Rule::Isolation, what)
    }

    /// What came to a node or its correspondent.
    ///
    /// # Errors
    /// The rule that was broken, and how.
    pub fn judge_arrival(&self, node: &NodePlan, number: u64, at_node: bool) -> Verdict {
        let tag = Tag(number);
        let home = (tag.home_agent(), home_address(tag.number()));
        let is_its_own = number >> 48 == tag_of(node) >> 48
            || at_node && self.sessions.had(home, node_mac(node.node));
        if is_its_own && tag.is_from_node() != at_node && !tag.is_forged() {
            return Ok(());
        }
        let whom = if at_node { "" } else { "the correspondent of " };
        broken(Rule::Isolation, format!("{number:x} came to {whom}{node:?}"))
    }

    /// What came to the correspondent of a device's address: a home agent's, by its number.
    ///
    /// # Errors
    /// The rule that was broken, and how.
    pub fn judge_answer(&self, (home_agent, pooled): (usize, usize), number: u64) -> Verdict {
        let tag = Tag(number);
        if number >> 48 == tag_at(home_agent, pooled) >> 48
            && tag.is_from_node()
            && !tag.is_forged()
        {
            return Ok(());
        }
        let home = home_address(pooled);
        let what = format!("{number:x} came to the correspondent of {home} at {home_agent}");
        broken(Rule::Isolation, what)
    }
}
