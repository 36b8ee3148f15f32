//! What the plan does to a world.

use std::time::Duration;

use homeport_proto::TenantId;

use super::{Later, Outcome, World};
use crate::simulation::attacks;
use crate::simulation::clock::Clock;
use crate::simulation::layout::{CORE, home_address, home_agent_address};
use crate::simulation::network::Member;
use crate::simulation::plan::{BEGIN, Party, Place, What};

/// How much of what was seen is sent again at once.
const OLD: Duration = Duration::from_secs(2);

impl World {
    /// Whatever the plan has for now.
    pub(super) fn happen(&mut self) -> Outcome {
        while let Some(entry) = self.later.first_entry().filter(|at| at.key().0 <= self.elapsed) {
            match entry.remove() {
                Later::EndFault(segment, kind) => self.network.set_fault(segment, kind, 0),
                Later::EndCut(from, to) => self.network.set_cut(from, to, false),
                Later::BoxBack(at) => self.start_box(at),
                Later::NodeBack(node) => self.start_node(node),
            }
        }
        while let Some((number, event)) = self
            .events
            .get(self.next)
            .copied()
            .filter(|(_, event)| BEGIN + event.at <= self.elapsed)
        {
            self.next += 1;
            self.tell(|| format!("#{number} {:?}", event.what));
            self.do_event(number, event.what);
        }
        Ok(())
    }

    fn do_event(&mut self, number: usize, what: What) {
        let elapsed = self.elapsed;
        let mut later = |lasts: Duration, what| {
            self.later.insert((elapsed + lasts, number), what);
        };
        match what {
            What::Move { node, place } => self.move_node(node, place),
            What::Fault { segment, kind, amount, lasts } => {
                later(lasts, Later::EndFault(segment, kind));
                self.network.set_fault(segment, kind, amount);
            }
            What::Cut { from, to, lasts } => {
                later(lasts, Later::EndCut(from, to));
                self.network.set_cut(from, to, true);
            }
            What::CrashBox { at, down } => {
                later(down, Later::BoxBack(at));
                let site = &mut self.sites[at];
                (site.one, site.due) = (None, None);
                self.oracle.stopped(at);
            }
            What::CrashNode { node, down, lifetime } => {
                let Some(mobile) = self.mobiles.get_mut(&node) else { return };
                mobile.tend_devices(elapsed);
                (mobile.host, mobile.due, mobile.lifetime) = (None, None, lifetime);
                self.later.insert((elapsed + down, number), Later::NodeBack(node));
                self.wake_node(node);
            }
            What::Step { of, millis } => {
                if let Some(clock) = self.clock(of) {
                    clock.step(millis, elapsed);
                }
                if let Party::Box(at) = of {
                    self.oracle.stepped(at, millis);
                }
            }
            What::Drift { of, ppm } => {
                if let Some(clock) = self.clock(of) {
                    clock.drift(ppm, elapsed);
                }
            }
            What::Replay { back, count } => {
                for (segment, frame) in self.network.captured(back, count) {
                    self.network.send(elapsed, segment, Member::Stranger, frame);
                }
            }
            What::ReplayOld { age } => {
                let then = elapsed.saturating_sub(age);
                for (segment, frame) in self.network.captured_within(then, then + OLD) {
                    self.network.send(elapsed, segment, Member::Stranger, frame);
                }
            }
            What::ForgeRequest { node, made_up } => self.forge_request(node, made_up),
            What::ForgeTunnel { node, foreign_agent, kind } => {
                let Some(mobile) = self.mobiles.get(&node) else { return };
                self.forged += 1;
                let shape = &self.plan.shape;
                let frame =
                    attacks::tunnelled(shape, &mobile.plan, foreign_agent, kind, self.forged);
                self.network.send(elapsed, CORE, Member::Stranger, frame);
            }
            What::Flood { foreign_agent, count } => {
                let segment = self.plan.shape.visited_segment(foreign_agent);
                let now = Clock::default().now(elapsed);
                for one in 0..count {
                    let frame = attacks::unknown_request(&self.plan.shape, foreign_agent, one, now);
                    self.network.send(elapsed, segment, Member::Stranger, frame);
                }
            }
            What::Burst { node, count } => {
                let Some(mobile) = self.mobiles.get_mut(&node) else { return };
                for _ in 0..count {
                    mobile.correspondent.send_at = Some(elapsed);
                    mobile.correspondent.run(elapsed);
                }
                self.wake_node(node);
            }
            What::Stop { node } => {
                let Some(mobile) = self.mobiles.get_mut(&node) else { return };
                let now = mobile.clock.now(elapsed);
                if let Some(host) = &mut mobile.host {
                    host.machine.handle_stop(now);
                }
                self.wake_node(node);
            }
            What::Clear { node } => self.clear(node),
            What::Attach { node, device } => self.attach(node, device),
            What::Detach { node, device } => self.detach(node, device),
        }
    }

    fn clock(&mut self, of: Party) -> Option<&mut Clock> {
        match of {
            Party::Box(at) => self.sites.get_mut(at).map(|site| &mut site.clock),
            Party::Node(node) => self.mobiles.get_mut(&node).map(|mobile| &mut mobile.clock),
        }
    }

    fn clear(&mut self, node: usize) {
        let Some(mobile) = self.mobiles.get(&node) else { return };
        let (home_agent, home) = (mobile.plan.home_agent, home_address(mobile.plan.number));
        let place = self.plan.shape.home_agents[home_agent];
        let site = &mut self.sites[place.at];
        let now = site.clock.now(self.elapsed);
        let Some(one) = &mut site.one else { return };
        one.agent.clear_binding(TenantId(place.tenant), home, now);
        one.inputs += 1;
        self.oracle.cleared(home_agent, home);
        site.due = Some(self.elapsed);
    }

    fn forge_request(&mut self, node: usize, made_up: bool) {
        let Some(mobile) = self.mobiles.get(&node) else { return };
        let plan = mobile.plan;
        let frame = if made_up {
            let now = self.sites[self.plan.shape.home_agents[plan.home_agent].at].clock;
            let now = now.now(self.elapsed);
            Some(attacks::made_up_request(&self.plan.shape, &plan, now))
        } else {
            let to = home_agent_address(plan.home_agent);
            let genuine = self.network.last_captured(|frame| attacks::is_request_to(frame, to));
            genuine.and_then(attacks::diverted)
        };
        if let Some(frame) = frame {
            self.network.send(self.elapsed, CORE, Member::Stranger, frame);
        }
    }

    fn move_node(&mut self, node: usize, place: Place) {
        let shape = &self.plan.shape;
        let Some(mobile) = self.mobiles.get_mut(&node) else { return };
        mobile.segment = match place {
            Place::Home => Some(shape.home_segment(mobile.plan.home_agent)),
            Place::Visited(one) => Some(shape.visited_segment(one)),
            Place::CoLocated => Some(CORE),
            Place::Away => None,
        };
        let now = mobile.clock.now(self.elapsed);
        if let Some(host) = &mut mobile.host {
            host.handle_link(false, now);
            if let Some(segment) = mobile.segment {
                host.segment = segment;
                host.handle_link(true, now);
            }
        }
        mobile.tend_devices(self.elapsed);
        self.wake_node(node);
    }
}
