//! Devices behind nodes: they come, go, and want addresses.

use homeport_proto::mobile_node::Phase;

use super::{Mobile, World};
use crate::simulation::layout::{home_agent_address, sub_nai};

impl Mobile {
    /// Notes which addresses its devices have, and makes sessions of those that are none.
    pub(super) fn tend_devices(&mut self, elapsed: std::time::Duration) {
        let now = self.clock.now(elapsed);
        let Some(host) = &mut self.host else { return };
        for (device, last) in &mut self.devices {
            let name = sub_nai(*device);
            match host.machine.session(&name) {
                Some(session) => *last = session.home_address().or(*last),
                None => host.attach(&name, *last, now),
            }
        }
    }
}

impl World {
    /// A device comes to a node. The address that it had elsewhere it has forgotten.
    pub(super) fn attach(&mut self, node: usize, device: usize) {
        let elapsed = self.elapsed;
        let Some(mobile) = self.mobiles.get_mut(&node) else { return };
        mobile.devices.entry(device).or_default();
        mobile.tend_devices(elapsed);
        self.wake_node(node);
    }

    /// A device leaves its node.
    pub(super) fn detach(&mut self, node: usize, device: usize) {
        let elapsed = self.elapsed;
        let Some(mobile) = self.mobiles.get_mut(&node) else { return };
        let now = mobile.clock.now(elapsed);
        if mobile.devices.remove(&device).is_some()
            && let Some(host) = &mut mobile.host
        {
            host.detach(&sub_nai(device), now);
        }
        self.wake_node(node);
    }

    /// The devices of nodes that are on a link, and that their home agents can hear, which
    /// are not registered though there is a free address, in words.
    pub fn unserved(&self) -> Vec<String> {
        let mut unserved = Vec::new();
        for mobile in self.mobiles.values().filter(|mobile| mobile.segment.is_some()) {
            let plan = &mobile.plan;
            let site = &self.sites[self.plan.shape.home_agents[plan.home_agent].at];
            let (Some(host), Some(one)) = (&mobile.host, &site.one) else { continue };
            let address = home_agent_address(plan.home_agent);
            let agent = one.agent.home_agents().find(|agent| agent.config().address == address);
            let free: u64 =
                agent.map_or(0, |agent| agent.pools().iter().map(|pool| pool.free()).sum());
            let now = site.clock.now(self.elapsed);
            if free == 0 || self.oracle.is_locked_out_somewhere(plan, now) {
                continue;
            }
            for device in mobile.devices.keys() {
                let session = host.machine.session(&sub_nai(*device));
                let phase = session.map(homeport_proto::mobile_node::Session::phase);
                if !matches!(phase, Some(Phase::Registered | Phase::AtHome)) {
                    let node = plan.node;
                    unserved.push(format!(
                        "device {device} of node {node}: {session:?}, with {free} addresses free"
                    ));
                }
            }
        }
        unserved
    }
}
