//! Boxes and nodes that start, and the end of all that is wrong.

use homeport_proto::mobile_node::Phase;

use super::World;
use crate::boxes::AgentBox;
use crate::host::NodeHost;
use crate::simulation::layout::{echoed, identity, node_config, setup};

impl World {
    pub(super) fn start_box(&mut self, at: usize) {
        let site = &mut self.sites[at];
        if site.one.is_some() {
            return;
        }
        let now = site.clock.now(self.elapsed);
        let mut one = AgentBox::build(setup(&self.plan, at, site.incarnation), now);
        let stored = site.folder.iter().flatten();
        stored.for_each(|(key, session)| one.restore(key.0, key.1, session, now));
        site.incarnation += 1;
        (site.buffers, site.events, site.due) = (one.free_buffers(), 0, Some(self.elapsed));
        site.one = Some(one);
        self.resolve(at);
        self.oracle.started(at, now);
        self.tell(|| format!("box {at} starts"));
    }

    pub(super) fn start_node(&mut self, node: usize) {
        let Some(mobile) = self.mobiles.get_mut(&node) else { return };
        if mobile.host.is_some() {
            return;
        }
        mobile.incarnation += 1;
        let mut seed = [mobile.incarnation; 32];
        seed[..8].copy_from_slice(&self.plan.seed.to_be_bytes());
        seed[8] = node as u8;
        let config = node_config(&self.plan.shape, &mobile.plan, mobile.lifetime);
        let who = identity(&self.plan.shape, &mobile.plan);
        let mut host = NodeHost::with_config(config, seed, who);
        host.echo = Some(echoed);
        if let Some(segment) = mobile.segment {
            host.segment = segment;
            host.handle_link(true, mobile.clock.now(self.elapsed));
        }
        mobile.events = 0;
        mobile.host = Some(host);
        mobile.tend_devices(self.elapsed);
        self.wake_node(node);
        self.tell(|| format!("node {node} starts"));
    }

    pub(super) fn wake_node(&mut self, node: usize) {
        if let Some(mobile) = self.mobiles.get_mut(&node) {
            mobile.due = Some(self.elapsed);
        }
    }

    /// Ends all that is wrong.
    pub fn heal(&mut self) {
        self.tell(|| "all is well from here on".into());
        self.network.heal();
        self.later.clear();
        (0..self.sites.len()).for_each(|at| self.start_box(at));
        let nodes: Vec<usize> = self.mobiles.keys().copied().collect();
        for node in nodes {
            self.start_node(node);
            self.plug_in(node);
        }
    }

    /// Starts the program of a node that ended in good order.
    fn plug_in(&mut self, node: usize) {
        let Some(mobile) = self.mobiles.get_mut(&node) else { return };
        let now = mobile.clock.now(self.elapsed);
        if let Some(host) = &mut mobile.host
            && mobile.segment.is_some()
            && matches!(host.machine.phase(), Phase::Disconnected | Phase::Stopping)
        {
            host.handle_link(false, now);
            host.handle_link(true, now);
        }
        mobile.tend_devices(self.elapsed);
        self.wake_node(node);
    }
}
