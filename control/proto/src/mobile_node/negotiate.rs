//! How the tunnel is asked for, what is granted, and what is given up when it is
//! denied (RFC 5944 §3.6.1, RFC 3519 §4.4, RFC 6245).

use alloc::vec::Vec;
use core::time::Duration;
use homeport_wire::{IpProtocol, MOBILE_IP_PORT};

use super::request::{Pending, Target};
use super::{DEFAULT_KEEPALIVE, MobileNode};
use crate::Encapsulation;
use crate::config::{MobileNodeConfig, PreferredEncapsulation};
use crate::message::advertisement::AgentFlags;
use crate::message::{
    Extension, Received, RegistrationReply, ReplyCode, RequestFlags, UdpTunnelRequest,
};

/// What the node still wants on this link: what it is configured for, less what
/// was denied here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    encapsulation: PreferredEncapsulation,
    nat_traversal: bool,
}

impl Wishes {
    pub(super) fn new(config: &MobileNodeConfig) -> Self {
        Wishes { encapsulation: config.encapsulation, nat_traversal: config.nat_traversal }
    }

    /// Gives up what `code` denied of what was asked for; `false` when there is
    /// nothing to give up, so that a new request would be as the old one. What another
    /// request's denial has given up already, this one's gives up too.
    fn concede(&mut self, code: ReplyCode, asked: &Asked) -> bool {
        let has_flags = asked.flags != RequestFlags::default();
        match code {
            ReplyCode::FA_ENCAPSULATION_UNAVAILABLE | ReplyCode::HA_ENCAPSULATION_UNAVAILABLE
                if has_flags =>
            {
                self.encapsulation = PreferredEncapsulation::IpInIp;
            }
            // Not with M or G; if without them neither, not at all.
            ReplyCode::HA_UDP_ENCAPSULATION_UNAVAILABLE if has_flags => {
                self.encapsulation = PreferredEncapsulation::IpInIp;
            }
            ReplyCode::HA_UDP_ENCAPSULATION_UNAVAILABLE | ReplyCode::HA_POORLY_FORMED_REQUEST
                if asked.udp.is_some() =>
            {
                self.nat_traversal = false;
                if self.encapsulation == PreferredEncapsulation::Udp {
                    self.encapsulation = PreferredEncapsulation::IpInIp;
                }
            }
            // The home agent forces nothing where there is no NAT (RFC 3519
            // §4.6.1). Without F the same code says that a NAT may not be
            // traversed, and then no other request helps.
            ReplyCode::HA_PROHIBITED if asked.udp.is_some_and(|udp| udp.forced) => {
                self.encapsulation = PreferredEncapsulation::IpInIp;
            }
            _ => return false,
        }
        true
    }
}

/// How one request asks for its tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// M or G, or none.
    pub(super) flags: RequestFlags,
    pub(super) udp: Option<UdpTunnelRequest>,
    /// The home agent's challenge, to be answered.
    pub(super) challenge: Option<Vec<u8>>,
    /// The foreign agent's challenge, to be answered (RFC 4721 §3.1).
    pub(super) foreign_challenge: Option<Vec<u8>>,
}

/// The tunnel of an accepted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) encapsulation: Encapsulation,
    /// Whether the home agent saw a NAT.
    pub(super) nat: bool,
    /// K, with a UDP tunnel.
    pub(super) keepalive: Option<Duration>,
}

impl MobileNode {
    /// What to ask for.
    pub(super) fn ask(&self, target: Target) -> Asked {
        let Wishes { encapsulation, nat_traversal } = self.wishes;
        let wanted = match encapsulation {
            PreferredEncapsulation::Minimal => Some((RequestFlags::MINIMAL, AgentFlags::MINIMAL)),
            PreferredEncapsulation::Gre => Some((RequestFlags::GRE, AgentFlags::GRE)),
            PreferredEncapsulation::IpInIp | PreferredEncapsulation::Udp => None,
        };
        let mut asked = Asked::default();
        match target {
            Target::Home(_) => {}
            Target::ForeignAgent(address) => {
                // Only what the agent advertises (RFC 5944 §3.6.1.1); the UDP
                // tunnel is the agent's own to ask for (RFC 3519 §4.4).
                let offered = self.agents.get(address).map(|agent| agent.mobility.flags);
                if let (Some((flags, needed)), Some(offered)) = (wanted, offered)
                    && offered.contains(needed)
                {
                    asked.flags = flags;
                }
            }
            Target::CoLocated(_) => {
                asked.flags = wanted.map(|(flags, _)| flags).unwrap_or_default();
                let forced = encapsulation == PreferredEncapsulation::Udp;
                if forced || nat_traversal {
                    // M and G say what to do where there is no NAT; where there
                    // is one, only IP in UDP is what every home agent has
                    // (RFC 3519 §3.1.4, §4.1).
                    let has_flags = asked.flags != RequestFlags::default();
                    let encapsulation = has_flags.then_some(IpProtocol::IP_IN_IP);
                    asked.udp =
                        Some(UdpTunnelRequest { forced, encapsulation, ..Default::default() });
                }
            }
        }
        asked
    }

    /// What an accepting reply grants.
    pub(super) fn granted(
        &self,
        pending: &Pending,
        reply: &Received<'_, RegistrationReply>,
    ) -> Granted {
        let asked = &pending.asked;
        let by_flags = if asked.flags.contains(RequestFlags::MINIMAL) {
            Encapsulation::Minimal
        } else if asked.flags.contains(RequestFlags::GRE) {
            let key = covered(reply).find_map(|extension| match *extension {
                Extension::GreKey(key) => Some(key),
                _ => None,
            });
            Encapsulation::Gre { key }
        } else {
            Encapsulation::IpInIp
        };
        let udp = covered(reply).find_map(|extension| match extension {
            Extension::UdpTunnelReply(reply) if asked.udp.is_some() => Some(*reply),
            _ => None,
        });
        let peer_port = MOBILE_IP_PORT;
        match udp {
            // A challenge says that there is a NAT, whether it had to be answered
            // this time or not.
            _ if self.challenge_of(pending, reply).is_some() => Granted {
                encapsulation: Encapsulation::PlainUdp { peer_port },
                nat: true,
                keepalive: Some(DEFAULT_KEEPALIVE),
            },
            Some(udp) if udp.assents() => Granted {
                encapsulation: Encapsulation::Udp { peer_port },
                nat: !udp.forced,
                // Zero leaves it to us (RFC 3519 §3.2).
                keepalive: Some(match udp.keepalive {
                    0 => DEFAULT_KEEPALIVE,
                    seconds => Duration::from_secs(u64::from(seconds)),
                }),
            },
            // Declined, or not understood: no UDP (RFC 3519 §4.4).
            _ => Granted { encapsulation: by_flags, nat: false, keepalive: None },
        }
    }

    /// The home agent's challenge to a node that goes through NATs.
    fn challenge_of<'a>(
        &self,
        pending: &Pending,
        reply: &Received<'a, RegistrationReply>,
    ) -> Option<&'a [u8]> {
        let co_located = matches!(pending.target, Target::CoLocated(_));
        let challenge = covered(reply).find_map(|extension| match *extension {
            Extension::Challenge(challenge) => Some(challenge),
            _ => None,
        });
        challenge.filter(|_| co_located && self.config.nat_traversal)
    }

    /// Changes the request so that a denial's reason is met; `false` when that
    /// cannot be.
    pub(super) fn give_way(
        &mut self,
        pending: &mut Pending,
        reply: &Received<'_, RegistrationReply>,
    ) -> bool {
        let code = reply.body.code;
        // The next request has the newest.
        if self.may_answer_anew(pending, code) {
            return true;
        }
        if code == ReplyCode::HA_MOBILE_NODE_FAILED_AUTHENTICATION {
            // It knows us, for it has authenticated its denial; what it does not
            // believe is the address that the request came from. So a NAPT is in
            // the way, and we are to show that we are there.
            let challenge = self.challenge_of(pending, reply);
            if let Some(challenge) = challenge {
                pending.asked.challenge = Some(challenge.to_vec());
            }
            return challenge.is_some();
        }
        let gives_way = self.wishes.concede(code, &pending.asked);
        if gives_way {
            let challenge = pending.asked.challenge.take();
            pending.asked = Asked { challenge, ..self.ask(pending.target) };
        }
        gives_way
    }
}

/// The extensions that the mobile-home authentication covers.
fn covered<'a, 'b>(
    reply: &'b Received<'a, RegistrationReply>,
) -> impl Iterator<Item = &'b Extension<'a>> {
    let end = reply.mobile_home_authentication().map_or(0, |authentication| authentication.offset);
    let before = reply.extensions().iter().filter(move |located| located.offset < end);
    before.map(|located| &located.extension)
}
