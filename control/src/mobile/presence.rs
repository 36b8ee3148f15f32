//! Whether the devices on the LAN are still there: each is asked by ARP from time to
//! time, at its own link-layer address, and counts as gone after [`PATIENCE`] questions
//! without an answer.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_proto::{Instant, MacAddress};

use super::deadlines::Deadlines;
use super::frame::Station;

/// Questions that may stay without an answer.
pub const PATIENCE: u8 = 3;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask this station for its address.
    Ask(Station),
    /// The device with this address is gone.
    Gone(Ipv4Addr),
}

/// The devices that are watched.
#[derive(Debug)]
pub struct Presence {
    interval: Duration,
    devices: BTreeMap<Ipv4Addr, (MacAddress, u8)>,
    deadlines: Deadlines<Ipv4Addr>,
    outputs: VecDeque<Output>,
}

impl Presence {
    /// Nobody yet; each will be asked every `interval`.
    pub fn new(interval: Duration) -> Self {
        Presence {
            interval,
            devices: BTreeMap::new(),
            deadlines: Deadlines::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Watches this station, which is there now.
    pub fn watch(&mut self, station: Station, now: Instant) {
        self.devices.insert(station.address, (station.mac, 0));
        self.deadlines.set(station.address, now + self.interval);
    }

    /// Watches whoever has this address no longer.
    pub fn forget(&mut self, address: Ipv4Addr) {
        self.devices.remove(&address);
        self.deadlines.remove(&address);
    }

    /// This station has said something.
    pub fn heard(&mut self, station: Station, now: Instant) {
        if let Some((mac, unanswered)) = self.devices.get_mut(&station.address)
            && *mac == station.mac
        {
            *unanswered = 0;
            self.deadlines.set(station.address, now + self.interval);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(address) = self.deadlines.take_due(now) {
            let Some((mac, unanswered)) = self.devices.get_mut(&address) else { continue };
            if *unanswered == PATIENCE {
                self.devices.remove(&address);
                self.outputs.push_back(Output::Gone(address));
            } else {
                *unanswered += 1;
                self.outputs.push_back(Output::Ask(Station { mac: *mac, address }));
                self.deadlines.set(address, now + self.interval);
            }
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Station =
        Station { mac: MacAddress([2, 0, 0, 0, 0, 1]), address: Ipv4Addr::new(10, 1, 0, 20) };

    const fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    fn at_next(presence: &mut Presence) -> (Instant, Vec<Output>) {
        let next = presence.poll_timeout().unwrap();
        presence.handle_timeout(next);
        (next, std::iter::from_fn(|| presence.poll_output()).collect())
    }

    #[test]
    fn who_answers_nothing_is_gone_after_three_questions() {
        let mut presence = Presence::new(Duration::from_secs(30));
        presence.watch(US, at(0));
        for second in [30, 60, 90] {
            assert_eq!(at_next(&mut presence), (at(second), vec![Output::Ask(US)]));
        }
        assert_eq!(at_next(&mut presence), (at(120), vec![Output::Gone(US.address)]));
        assert_eq!(presence.poll_timeout(), None);
    }

    #[test]
    fn who_says_anything_is_there_and_who_speaks_for_another_is_not_heard() {
        let mut presence = Presence::new(Duration::from_secs(30));
        presence.watch(US, at(0));
        at_next(&mut presence);
        at_next(&mut presence);
        presence.heard(US, at(65));
        for second in [95, 125, 155] {
            assert_eq!(at_next(&mut presence), (at(second), vec![Output::Ask(US)]));
        }
        let stranger = Station { mac: MacAddress([2, 0, 0, 0, 0, 2]), ..US };
        presence.heard(stranger, at(160));
        assert_eq!(at_next(&mut presence), (at(185), vec![Output::Gone(US.address)]));
        presence.watch(US, at(200));
        presence.forget(US.address);
        assert_eq!(presence.poll_timeout(), None);
    }
}
