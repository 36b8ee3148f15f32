//! Frames that arrive, and everybody's turn.

use std::time::Duration;

use homeport_proto::event::Event as AgentEvent;
use homeport_wire::{EthernetHeader, MacAddress};
use zerocopy::FromBytes;

use super::{Outcome, World};
use crate::simulation::layout::{PEER, node_mac, segment_of};
use crate::simulation::network::{Flight, Member};
use crate::simulation::oracle::Rule;
use crate::simulation::run::Telling;
use crate::world::box_mac;

impl World {
    /// Hands over the frames that have arrived.
    pub(super) fn arrive(&mut self) -> Outcome {
        while let Some(flight) = self.network.arrive(self.elapsed) {
            let Ok((header, _)) = EthernetHeader::ref_from_prefix(&flight.frame) else { continue };
            let to = header.destination;
            for index in 0..self.ports[flight.segment].len() {
                let (at, port) = self.ports[flight.segment][index];
                let member = Member::Box(at, port);
                let heard = member != flight.from && self.network.reaches(flight.from, member);
                // A switch: who is not meant does not hear it, unless nobody is known.
                let is_meant = to.is_multicast() || to == box_mac(at, port as u8);
                let site = &mut self.sites[at];
                if let Some(one) = site.one.as_ref().filter(|_| heard && is_meant) {
                    one.links()[port].push(&flight.frame);
                    site.due = Some(self.elapsed);
                }
            }
            if to.0[2] == PEER {
                self.arrive_at_peers(&flight)?;
            }
            self.arrive_at_hosts(&flight, to)?;
        }
        Ok(())
    }

    fn arrive_at_hosts(&mut self, flight: &Flight, to: MacAddress) -> Outcome {
        let World { mobiles, network, elapsed, oracle, plan, .. } = self;
        let mut judged = Ok(());
        for (node, mobile) in mobiles {
            let own_segment = plan.shape.home_segment(mobile.plan.home_agent);
            if flight.segment == own_segment && to == mobile.correspondent.mac {
                mobile.correspondent.receive(&flight.frame, *elapsed);
            }
            let member = Member::Node(*node);
            let hears = mobile.segment == Some(flight.segment)
                && member != flight.from
                && (to.is_multicast() || to == node_mac(*node))
                && network.reaches(flight.from, member);
            let Some(host) = mobile.host.as_mut().filter(|_| hears) else { continue };
            host.receive(&flight.frame, mobile.clock.now(*elapsed));
            mobile.due = Some(*elapsed);
            for (_, number) in host.arrivals.drain(..) {
                judged = judged.and(oracle.judge_arrival(&mobile.plan, number, true));
            }
        }
        self.lawful(judged)
    }

    /// Lets everybody do what is due.
    pub(super) fn take_turns(&mut self) -> Outcome {
        for at in 0..self.sites.len() {
            if self.sites[at].due.is_some_and(|due| due <= self.elapsed) {
                self.box_turn(at)?;
            }
        }
        let due: Vec<usize> = self
            .mobiles
            .iter()
            .filter(|(_, mobile)| mobile.due.is_some_and(|due| due <= self.elapsed))
            .map(|(node, _)| *node)
            .collect();
        for node in due {
            self.node_turn(node)?;
            self.tend_peers(node);
        }
        self.peer_turns();
        Ok(())
    }

    fn box_turn(&mut self, at: usize) -> Outcome {
        let World { sites, oracle, elapsed, origin, .. } = self;
        let site = &mut sites[at];
        let now = site.clock.now(*elapsed);
        let Some(one) = &mut site.one else {
            site.due = None;
            return Ok(());
        };
        oracle.before(at);
        one.run(now, *origin + *elapsed);
        for (tenant, home_agent, session) in one.to_store.drain(..) {
            let Some(folder) = &mut site.folder else { continue };
            let key = (tenant, home_agent, session.home_address);
            match session.kept {
                true => folder.insert(key, session),
                false => folder.remove(&key),
            };
        }
        let mut frames = Vec::new();
        for (port, link) in one.links().iter().enumerate() {
            while let Some(frame) = link.take() {
                frames.push((port, frame));
            }
        }
        site.due = one.agent.poll_timeout().map(|at| Duration::from_nanos(at.0));
        let mut judged = oracle.judge(at, one, &frames, now);
        let waiting = one.held() as usize;
        if judged.is_ok() && one.free_buffers() + waiting != site.buffers {
            let free = one.free_buffers();
            let what = format!("{free} buffers are free and {waiting} wait, of {}", site.buffers);
            judged = Err((Rule::Conservation, what));
        }
        self.tell_of_box(at);
        self.lawful(judged)?;
        for (port, frame) in frames {
            let segment = segment_of(&self.plan.shape, at, port);
            self.network.send(self.elapsed, segment, Member::Box(at, port), frame);
        }
        Ok(())
    }

    fn tell_of_box(&mut self, at: usize) {
        let site = &mut self.sites[at];
        let Some(one) = &mut site.one else { return };
        if self.telling == Telling::Nothing {
            one.events.clear();
            return;
        }
        for event in &one.events[site.events..] {
            let is_told = match event {
                AgentEvent::Discarded { .. } => false,
                AgentEvent::Decision(_) => self.telling == Telling::Decisions,
                _ => true,
            };
            if is_told {
                self.story.push((self.elapsed, format!("  box {at}: {event:?}")));
            }
        }
        site.events = one.events.len();
    }

    fn node_turn(&mut self, node: usize) -> Outcome {
        let World { mobiles, network, elapsed, oracle, plan, telling, .. } = self;
        let Some(mobile) = mobiles.get_mut(&node) else { return Ok(()) };
        let own_segment = plan.shape.home_segment(mobile.plan.home_agent);
        mobile.correspondent.run(*elapsed);
        for frame in mobile.correspondent.outbox.drain(..) {
            network.send(*elapsed, own_segment, Member::Correspondent(node), frame);
        }
        let mut due = mobile.correspondent.send_at;
        let mut told = Vec::new();
        if let Some(host) = &mut mobile.host {
            host.run(mobile.clock.now(*elapsed));
            oracle.sent(node, host.requests.drain(..));
            oracle.sent_for_sessions(node, host.session_requests.drain(..));
            for frame in host.outbox.drain(..) {
                if let Some(segment) = mobile.segment {
                    network.send(*elapsed, segment, Member::Node(node), frame);
                }
            }
            due = [due, host.next_event()].into_iter().flatten().min();
            if *telling > Telling::Nothing {
                told.extend(host.events.iter().map(|event| format!("  node {node}: {event:?}")));
            }
            host.events.clear();
        }
        mobile.due = due;
        for what in told {
            self.tell(|| what);
        }
        Ok(())
    }
}
