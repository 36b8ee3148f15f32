//! Telling a home link where a node's address is now: gratuitous ARP, repeated
//! (RFC 5944 §4.6).

use core::net::Ipv4Addr;
use core::time::Duration;
use homeport_wire::{MacAddress, PortId};

use super::HomeAgent;
use crate::agent::{Context, Token};
use crate::{Action, Instant};

/// When a gratuitous ARP is sent, from the change on. Past one second, because
/// neighbours ignore a change to an entry that is younger than their locktime.
const ANNOUNCEMENT_SCHEDULE: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(1_100),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// A gratuitous ARP that is being repeated.
#[derive(Debug)]
pub(super) struct Announcement {
    port: PortId,
    mac: Option<MacAddress>,
    begun: Instant,
    /// The next step of the schedule.
    step: usize,
}

impl HomeAgent {
    pub(super) fn announce(
        &mut self,
        address: Ipv4Addr,
        port: PortId,
        mac: Option<MacAddress>,
        context: &mut Context<'_>,
    ) {
        let begun = context.now.monotonic;
        self.announcements.insert(address, Announcement { port, mac, begun, step: 0 });
        self.handle_announcement(address, context);
    }

    pub(super) fn stop_announcing(&mut self, home_address: Ipv4Addr, context: &mut Context<'_>) {
        self.announcements.remove(&home_address);
        context.timers.stop(Token::Announcement(self.key(), home_address));
    }

    /// The next gratuitous ARP of a node's schedule is due.
    pub(crate) fn handle_announcement(&mut self, address: Ipv4Addr, context: &mut Context<'_>) {
        let key = self.key();
        let Some(announcement) = self.announcements.get_mut(&address) else { return };
        let (port, mac) = (announcement.port, announcement.mac);
        context.push(Action::GratuitousArp { port, address, mac });
        announcement.step += 1;
        match ANNOUNCEMENT_SCHEDULE.get(announcement.step) {
            Some(after) => {
                let token = Token::Announcement(key, address);
                context.timers.arm(token, announcement.begun + *after);
            }
            None => {
                self.announcements.remove(&address);
            }
        }
    }
}
