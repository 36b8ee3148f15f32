//! The correspondents of devices: one for each address that home agents have for them, on
//! the home agent's own link. It speaks while the address is somebody's.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use homeport_proto::MacAddress;
use homeport_proto::mobile_node::{Attachment, Phase};

use super::{Mobile, Outcome, World};
use crate::boxes::AgentBox;
use crate::host::{Correspondent, NodeHost};
use crate::simulation::layout::{
    ECHO, answers_at_home, home_address, node_mac, own_port, peer_address, peer_mac, pooled, tag_at,
};
use crate::simulation::network::{Flight, Member};
use crate::simulation::plan::{Plan, Shape};
use crate::world::box_mac;

/// A home agent, and the number of one of its addresses.
pub(super) type Peer = (usize, usize);

/// All of a plan.
pub(super) fn all(plan: &Plan) -> BTreeMap<Peer, Correspondent> {
    let shape = &plan.shape;
    let with_devices =
        |one: &usize| plan.nodes().any(|node| node.home_agent == *one && node.devices > 0);
    let home_agents = (0..shape.home_agents.len()).filter(with_devices);
    home_agents
        .flat_map(|one| pooled().map(move |number| (one, number)))
        .map(|peer| (peer, correspondent(shape, peer)))
        .collect()
}

fn correspondent(shape: &Shape, (home_agent, number): Peer) -> Correspondent {
    let at = shape.home_agents[home_agent].at;
    Correspondent {
        mac: peer_mac(home_agent, number),
        address: peer_address(shape, home_agent, number),
        next_hop: box_mac(at, own_port(shape, home_agent) as u8),
        home_address: home_address(number),
        // Half as often as those of nodes: there are more of them.
        interval: Some(shape.speak * 2),
        sent: tag_at(home_agent, number),
        ..Correspondent::default()
    }
}

impl Mobile {
    /// Whether one of its devices has an address, by what it knows.
    fn uses(&self, (home_agent, number): Peer) -> bool {
        let address = home_address(number);
        let has = |host: &NodeHost| host.session_addresses().any(|one| one == address);
        self.plan.home_agent == home_agent && self.host.as_ref().is_some_and(has)
    }

    /// Whether one of its devices has an address, and the home agent knows where.
    fn is_registered(&self, (home_agent, number): Peer) -> bool {
        let address = Some(home_address(number));
        let is_it = |host: &NodeHost| {
            host.machine.sessions().any(|session| {
                session.home_address() == address
                    && matches!(session.phase(), Phase::Registered | Phase::AtHome)
            })
        };
        self.plan.home_agent == home_agent && self.host.as_ref().is_some_and(is_it)
    }

    /// The addresses of its devices that it answers for on its home link.
    pub(super) fn answers_for(&self, shape: &Shape) -> Vec<Ipv4Addr> {
        let is_home = self.segment == Some(shape.home_segment(self.plan.home_agent));
        let at_home = self
            .host
            .as_ref()
            .filter(|host| is_home && matches!(host.machine.attachment(), Attachment::Home { .. }));
        at_home.map_or(Vec::new(), |host| host.session_addresses().collect())
    }
}

impl World {
    /// A node has had its turn: who has an address is spoken to, and answers ARP for it at
    /// home.
    pub(super) fn tend_peers(&mut self, node: usize) {
        let World { mobiles, peers, elapsed, sites, plan, .. } = self;
        let Some(mobile) = mobiles.get(&node).filter(|mobile| mobile.plan.devices > 0) else {
            return;
        };
        let addresses = mobile.host.iter().flat_map(NodeHost::session_addresses);
        for address in addresses {
            let number = pooled().find(|number| home_address(*number) == address);
            let peer = number.and_then(|number| peers.get_mut(&(mobile.plan.home_agent, number)));
            if let Some(peer) = peer {
                peer.send_at = peer.send_at.or(Some(*elapsed));
            }
        }
        let site = &mut sites[plan.shape.home_agents[mobile.plan.home_agent].at];
        if let Some(one) = &mut site.one {
            answer_arp(mobile, &plan.shape, one, &mut site.neighbors);
        }
    }

    /// A box has started: whoever is at home answers its ARP.
    pub(super) fn resolve(&mut self, at: usize) {
        let World { mobiles, sites, plan, .. } = self;
        let site = &mut sites[at];
        site.neighbors.clear();
        let Some(one) = &mut site.one else { return };
        for mobile in mobiles.values() {
            if plan.shape.home_agents[mobile.plan.home_agent].at == at {
                answer_arp(mobile, &plan.shape, one, &mut site.neighbors);
            }
        }
    }

    /// Lets every peer speak that is due.
    pub(super) fn peer_turns(&mut self) {
        let World { mobiles, peers, network, elapsed, plan, .. } = self;
        for (key, peer) in peers {
            if peer.send_at.is_none_or(|at| at > *elapsed) {
                continue;
            }
            if !mobiles.values().any(|mobile| mobile.uses(*key)) {
                peer.send_at = None;
                continue;
            }
            peer.run(*elapsed);
            let segment = plan.shape.home_segment(key.0);
            for frame in peer.outbox.drain(..) {
                network.send(*elapsed, segment, Member::Peer(key.0, key.1), frame);
            }
        }
    }

    /// A frame has come to where a peer may be.
    pub(super) fn arrive_at_peers(&mut self, flight: &Flight) -> Outcome {
        let World { peers, elapsed, oracle, plan, .. } = self;
        let mut judged = Ok(());
        for (key, peer) in peers {
            if flight.segment == plan.shape.home_segment(key.0) {
                let before = peer.arrivals.len();
                peer.receive(&flight.frame, *elapsed);
                for (_, number) in &peer.arrivals[before..] {
                    judged = judged.and(oracle.judge_answer(*key, *number));
                }
            }
        }
        self.lawful(judged)
    }

    /// Forgets what came to peers, and gives those of addresses that devices of nodes which
    /// are on a link are registered with, each with the number of its next datagram.
    pub fn listen_to_devices(&mut self) -> Vec<((usize, usize), u64)> {
        let present = self.present();
        let World { mobiles, peers, oracle, sites, plan, elapsed, .. } = self;
        let is_heard = |mobile: &&Mobile| {
            let at = plan.shape.home_agents[mobile.plan.home_agent].at;
            let now = sites[at].clock.now(*elapsed);
            present.contains(&mobile.plan.node)
                && !oracle.is_locked_out_somewhere(&mobile.plan, now)
        };
        let mut listened = Vec::new();
        for (key, peer) in peers {
            peer.arrivals.clear();
            if mobiles.values().filter(is_heard).any(|mobile| mobile.is_registered(*key)) {
                listened.push((*key, peer.sent + 1));
            }
        }
        listened
    }

    /// Lets a peer say no more, and gives the number of its last datagram.
    pub fn hush_peer(&mut self, peer: (usize, usize)) -> Option<u64> {
        let peer = self.peers.get_mut(&peer)?;
        peer.interval = None;
        Some(peer.sent)
    }

    /// The numbers of what came back to a peer.
    pub fn answers_of_device(&self, peer: (usize, usize)) -> Vec<u64> {
        let arrivals = self.peers.get(&peer).into_iter().flat_map(|peer| &peer.arrivals);
        arrivals.map(|(_, number)| number & !ECHO).collect()
    }

    /// Who has an address, in words.
    pub fn describe_peer(&self, peer: (usize, usize)) -> String {
        let users = self.mobiles.values().filter(|mobile| mobile.uses(peer));
        let users: Vec<String> = users
            .map(|mobile| {
                let address = Some(home_address(peer.1));
                let mut sessions = mobile.host.iter().flat_map(|host| host.machine.sessions());
                let session = sessions.find(|session| session.home_address() == address);
                format!("{}, {session:?}", self.describe(mobile.plan.node))
            })
            .collect();
        format!("{} of home agent {}, of {users:?}", home_address(peer.1), peer.0)
    }
}

/// The kernel of a home agent's box has found out who answers for which address.
fn answer_arp(
    mobile: &Mobile,
    shape: &Shape,
    one: &mut AgentBox,
    known: &mut BTreeMap<Ipv4Addr, MacAddress>,
) {
    let station = node_mac(mobile.plan.node);
    for address in mobile.answers_for(shape) {
        if known.insert(address, station) != Some(station) {
            let change = answers_at_home(shape, mobile.plan.home_agent, (address, station));
            one.installer.apply_change(change);
        }
    }
}
