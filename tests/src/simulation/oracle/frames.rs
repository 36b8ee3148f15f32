//! What boxes send, and what arrives.

use std::net::Ipv4Addr;

use homeport_wire::MacAddress;

use super::{Oracle, Rule, Verdict, broken};
use crate::simulation::layout::{
    care_of_address, correspondent_mac, home_address, home_agent_address, home_agent_at, node_mac,
    tag_of,
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
                let Some(node) = self.nodes.get(&(tag.home_agent(), tag.number())) else {
                    return Ok(());
                };
                if tag.is_forged() {
                    let what = format!("box {at} passes a stranger's packet on, to {to}");
                    return broken(Rule::Forgery, what);
                }
                match foreign_agent {
                    Some(one) => self.judge_visiting(one, port, to, node, tag, tunnel),
                    None => self.judge_home(at, port, to, node, tag, tunnel),
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

    fn judge_home(
        &self,
        at: usize,
        port: usize,
        to: MacAddress,
        node: &NodePlan,
        tag: Tag,
        tunnel: Option<(Ipv4Addr, Ipv4Addr)>,
    ) -> Verdict {
        let home_agent = tag.home_agent();
        let home = (home_agent, home_address(tag.number()));
        if port > 0 {
            let is_its_own = home_agent_at(&self.shape, at, port) == Some(home_agent);
            let right = match tag.is_from_node() {
                true => to == correspondent_mac(node.node),
                false => to == node_mac(node.node) && self.shape.home_agents[home_agent].home_link,
            };
            if !is_its_own || !right || tunnel.is_some() {
                let what = format!("box {at} sends {tag:x?} of {node:?} by port {port} to {to}");
                return broken(Rule::Isolation, what);
            }
            return Ok(());
        }
        let Some((from, end)) = tunnel.filter(|_| !tag.is_from_node()) else {
            let what = format!("box {at} sends {tag:x?} of {node:?} out of its tunnel, to {to}");
            return broken(Rule::Forwarding, what);
        };
        let bound = self.bindings.get(&home).map(|binding| binding.care_of_address);
        let is_right = bound == Some(end) || self.right.contains(&(home, end));
        if from != home_agent_address(home_agent) || !is_right {
            let what = format!("{tag:x?} for {node:?} goes from {from} to {end}, not to {bound:?}");
            return broken(Rule::Forwarding, what);
        }
        Ok(())
    }

    fn judge_visiting(
        &self,
        foreign_agent: usize,
        port: usize,
        to: MacAddress,
        node: &NodePlan,
        tag: Tag,
        tunnel: Option<(Ipv4Addr, Ipv4Addr)>,
    ) -> Verdict {
        let right = match port {
            0 => {
                let ends = (care_of_address(foreign_agent), home_agent_address(tag.home_agent()));
                tag.is_from_node() && tunnel == Some(ends)
            }
            _ => !tag.is_from_node() && tunnel.is_none() && to == node_mac(node.node),
        };
        if right {
            return Ok(());
        }
        let what = format!(
            "foreign agent {foreign_agent} sends {tag:x?} of {node:?} by port {port} to {to}, in \
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
        let whose = tag_of(node);
        let is_its_own = number >> 48 == whose >> 48 && tag.is_from_node() != at_node;
        if is_its_own && !tag.is_forged() {
            return Ok(());
        }
        let whom = if at_node { "" } else { "the correspondent of " };
        broken(Rule::Isolation, format!("{number:x} came to {whom}{node:?}"))
    }
}
