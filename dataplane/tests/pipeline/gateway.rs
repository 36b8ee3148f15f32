//! A foreign agent with a NAPT between the visited link and the core, on the very
//! address that is the agent's.

use homeport_dataplane::PortId;
use homeport_dataplane::napt::NaptConfig;
use homeport_dataplane::table::local::LocalEntry;
use homeport_dataplane::table::visitor::ReverseTunnel;

use crate::harness::*;
use crate::walk::{MOBILE, ROUTER};

pub(crate) const NODE: &str = "10.1.0.10";
pub(crate) const HOST: &str = "10.2.0.50";
pub(crate) const FAR: &str = "198.51.100.7";
pub(crate) const EXTERNAL: &str = "10.0.2.2";
pub(crate) const GATEWAY: &str = "10.2.0.1";

/// A foreign agent whose visitors, and the hosts of the visited network, get out by
/// its own address: port 0 is the core, port 1 the visited link.
pub(crate) fn gateway(reverse_tunnel: ReverseTunnel) -> Rig {
    gateway_with(reverse_tunnel, |_| ())
}

pub(crate) fn gateway_with(reverse_tunnel: ReverseTunnel, change: impl FnOnce(&mut Plan)) -> Rig {
    let mut plan = Plan::ports(2);
    let mut napt = NaptConfig::new("internet", vec![PortId(1)], PortId(0), vec![ip(EXTERNAL)]);
    napt.max_sessions = 1024;
    plan.config.napts = vec![napt];
    change(&mut plan);
    let mut rig = plan.build();
    rig.foreign_agent(EXTERNAL);
    rig.local(GATEWAY, LocalEntry { agent: true, ..LocalEntry::default() });
    rig.control.ports[0].set_address(Some(ip(EXTERNAL)));
    rig.control.ports[1].set_address(Some(ip(GATEWAY)));
    rig.route("0.0.0.0/0", 0, Some("10.0.2.1"));
    rig.route("10.2.0.0/24", 1, None);
    rig.neighbor(0, "10.0.2.1", station(ROUTER));
    rig.neighbor(1, HOST, station(50));
    let entry = visitor(station(MOBILE), 1, "10.0.1.2", EXTERNAL, reverse_tunnel);
    rig.visit(NODE, entry);
    rig
}
