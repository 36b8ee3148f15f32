//! The mobile node on a virtual clock, against hand-made bytes and against the
//! real agents.

mod challenges;
mod clocks;
mod discovery;
mod noise;
mod redirect;
mod registration;
mod sessions;
mod tunnels;
mod with_agents;

use super::*;
use crate::config::Prefix;
use crate::message::advertisement::{AgentFlags, MobilityAgent};
use crate::message::{
    AuthenticationKind, MessageWriter, RegistrationReply, RegistrationRequest, ReplyCode,
};
use crate::security::{
    Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, SecurityAssociations, Spi,
};
use crate::{NtpTime, ReverseTunnel};
use alloc::vec;
use alloc::vec::Vec;

const HOME: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const HOME_AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const HOME_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 2, 1, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 2, 2, 1);
const CO_LOCATED: CoLocated = CoLocated {
    address: Ipv4Addr::new(10, 2, 3, 100),
    prefix_len: 24,
    gateway: Some(Ipv4Addr::new(10, 2, 3, 1)),
    lease: Some(Duration::from_secs(3600)),
};

/// The care-of address of an agent of these tests: its address in 10.0/16.
const fn care_of(agent: Ipv4Addr) -> Ipv4Addr {
    let [_, _, link, _] = agent.octets();
    Ipv4Addr::new(10, 0, link + 1, 2)
}

const fn mac_of(agent: Ipv4Addr) -> MacAddress {
    let [a, b, c, d] = agent.octets();
    MacAddress([2, 0, a, b, c, d])
}

fn association(spi: u32, replay: ReplayProtection) -> MobilitySecurityAssociation {
    let key = Key::new(vec![spi.to_be_bytes()[3]; 16]);
    MobilitySecurityAssociation { spi: Spi(spi), algorithm: Algorithm::HmacMd5, key, replay }
}

fn with_home_agent() -> MobilitySecurityAssociation {
    association(256, ReplayProtection::default())
}

fn config() -> MobileNodeConfig {
    let mut security = SecurityAssociations::default();
    security.insert_agent(HOME_AGENT, with_home_agent());
    MobileNodeConfig {
        home_address: HOME,
        home_prefix: Prefix::new(HOME, 24).unwrap(),
        home_agent: HOME_AGENT,
        lifetime: Lifetime(100),
        reverse_tunnel: ReverseTunnel::Direct,
        co_located: true,
        agent_wait: Duration::from_millis(30),
        encapsulation: crate::config::PreferredEncapsulation::IpInIp,
        dynamic_home_agent: None,
        nat_traversal: false,
        nai: None,
        session_carriage: crate::message::SessionCarriage::default(),
        agents_by_nai: alloc::collections::BTreeSet::new(),
        security,
    }
}

/// What an agent says of itself, with all that these tests change.
struct Advertised {
    address: Ipv4Addr,
    flags: AgentFlags,
    sequence: u16,
    lifetime: u16,
    registration_lifetime: Lifetime,
    prefix_len: Option<u8>,
}

impl Advertised {
    fn foreign(address: Ipv4Addr) -> Self {
        Advertised {
            address,
            flags: AgentFlags::FOREIGN_AGENT.with(AgentFlags::REVERSE_TUNNEL),
            sequence: 1,
            lifetime: 3,
            registration_lifetime: Lifetime(300),
            prefix_len: None,
        }
    }

    fn home() -> Self {
        Advertised { flags: AgentFlags::HOME_AGENT, ..Advertised::foreign(HOME_GATEWAY) }
    }

    fn emit(&self) -> Vec<u8> {
        AgentAdvertisement {
            code: 0,
            lifetime: self.lifetime,
            routers: vec![(self.address, 0)],
            mobility: Some(MobilityAgent {
                sequence: self.sequence,
                registration_lifetime: self.registration_lifetime,
                flags: self.flags,
                care_of_addresses: if self.flags.contains(AgentFlags::FOREIGN_AGENT) {
                    vec![care_of(self.address)]
                } else {
                    vec![]
                },
            }),
            prefix_lengths: self.prefix_len.into_iter().collect(),
            challenge: None,
        }
        .emit()
    }
}

/// A request that the node sent.
#[derive(Clone, Debug)]
struct Sent {
    at: u64,
    send: SendRegistration,
    body: RegistrationRequest,
}

impl Sent {
    /// The home agent's reply, authenticated.
    fn reply(&self, code: ReplyCode, lifetime: u16) -> RegistrationReply {
        RegistrationReply {
            code,
            lifetime: Lifetime(lifetime),
            home_address: self.body.home_address,
            home_agent: self.body.home_agent,
            identification: self.body.identification,
        }
    }
}

fn signed(reply: &RegistrationReply) -> Vec<u8> {
    let mut writer = MessageWriter::reply(reply);
    writer.authenticate(AuthenticationKind::MobileHome, &with_home_agent());
    writer.finish()
}

/// A node, its clock and what it asked for.
struct World {
    node: MobileNode,
    /// Milliseconds.
    now: u64,
    /// The wall clock less 2026-01-01.
    wall: Duration,
    log: Vec<(u64, MobileNodeAction)>,
}

impl World {
    fn new(config: MobileNodeConfig) -> Self {
        let node = MobileNode::new(config, [7; 32]);
        World { node, now: 1_000, wall: Duration::ZERO, log: vec![] }
    }

    /// A node whose link has just come up.
    fn up(config: MobileNodeConfig) -> Self {
        let mut world = World::new(config);
        world.link(true);
        world
    }

    /// A node that is registered through this agent.
    fn at(agent: Ipv4Addr, config: MobileNodeConfig) -> Self {
        let mut world = World::up(config);
        world.hear(&Advertised::foreign(agent));
        world.accept(100);
        assert_eq!(world.node.phase(), Phase::Registered);
        world
    }

    fn now(&self) -> Now {
        let year_2026 = Duration::from_secs(1_767_225_600);
        Now {
            monotonic: Instant(self.now * 1_000_000),
            ntp: NtpTime::from_unix(year_2026 + self.wall + Duration::from_millis(self.now)),
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.node.poll_action() {
            self.log.push((self.now, action));
        }
        let timeout = self.node.poll_timeout();
        assert!(
            timeout.is_none_or(|at| at.0 > self.now().monotonic.0) || self.now == u64::MAX,
            "a timeout in the past spins: {timeout:?} at {}",
            self.now
        );
    }

    /// Handles an input, then whatever is due at the same moment.
    fn input(&mut self, input: impl FnOnce(&mut MobileNode, Now)) {
        let now = self.now();
        input(&mut self.node, now);
        while let Some(action) = self.node.poll_action() {
            self.log.push((self.now, action));
        }
        while self.node.poll_timeout().is_some_and(|at| at <= now.monotonic) {
            self.node.handle_timeout(now);
            self.drain();
        }
    }

    fn link(&mut self, up: bool) {
        self.input(|node, now| node.handle_link(up, now));
    }

    fn hear(&mut self, advertised: &Advertised) {
        let icmp = advertised.emit();
        let (address, mac) = (advertised.address, mac_of(advertised.address));
        self.input(|node, now| node.handle_advertisement(address, mac, &icmp, 1, now));
    }

    fn co_located(&mut self) {
        self.input(|node, now| node.handle_co_located(CO_LOCATED, now));
    }

    /// A datagram from the one that the last request went to.
    fn receive(&mut self, payload: &[u8]) {
        let from = self.last().send.destination;
        self.input(|node, now| node.handle_datagram(from, 434, payload, now));
    }

    /// The home agent accepts the last request.
    fn accept(&mut self, lifetime: u16) {
        let reply = self.last().reply(ReplyCode::ACCEPTED, lifetime);
        self.receive(&signed(&reply));
    }

    fn deny(&mut self, code: ReplyCode) {
        let reply = self.last().reply(code, 0);
        if code.is_from_foreign_agent() {
            self.receive(&reply.emit());
        } else {
            self.receive(&signed(&reply));
        }
    }

    /// Lets this many milliseconds pass, each timer at its time.
    fn pass(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        while let Some(at) = self.node.poll_timeout() {
            let due = at.0.div_ceil(1_000_000);
            if due > end {
                break;
            }
            self.now = due.max(self.now);
            let now = self.now();
            self.node.handle_timeout(now);
            self.drain();
        }
        self.now = end;
    }

    /// Lets time pass, while these agents go on advertising every second.
    fn pass_hearing(&mut self, seconds: u64, heard: &mut [Advertised]) {
        for _ in 0..seconds {
            self.pass(1000);
            for advertised in &mut *heard {
                advertised.sequence += 1;
                self.hear(advertised);
            }
        }
    }

    fn requests(&self) -> Vec<Sent> {
        let request = |(at, action): &(u64, MobileNodeAction)| match action {
            MobileNodeAction::SendRegistration(send) => {
                let body = RegistrationRequest::parse(&send.bytes).unwrap();
                Some(Sent { at: *at, send: send.clone(), body })
            }
            _ => None,
        };
        self.log.iter().filter_map(request).collect()
    }

    fn last(&self) -> Sent {
        self.requests().pop().expect("a request was sent")
    }

    fn solicitations(&self) -> Vec<u64> {
        let solicitation = |(at, action): &(u64, MobileNodeAction)| {
            matches!(action, MobileNodeAction::SendSolicitation { .. }).then_some(*at)
        };
        self.log.iter().filter_map(solicitation).collect()
    }

    fn attachments(&self) -> Vec<Attachment> {
        let attachment = |(_, action): &(u64, MobileNodeAction)| match action {
            MobileNodeAction::UseAttachment(attachment) => Some(*attachment),
            _ => None,
        };
        self.log.iter().filter_map(attachment).collect()
    }

    fn events(&self) -> Vec<MobileNodeEvent> {
        let event = |(_, action): &(u64, MobileNodeAction)| match action {
            MobileNodeAction::Event(event) => Some(*event),
            _ => None,
        };
        self.log.iter().filter_map(event).collect()
    }

    fn discards(&self) -> Vec<DiscardReason> {
        let events = self.events().into_iter();
        events
            .filter_map(|event| match event {
                MobileNodeEvent::Discarded { reason, .. } => Some(reason),
                _ => None,
            })
            .collect()
    }

    fn did(&self, action: &MobileNodeAction) -> bool {
        self.log.iter().any(|(_, done)| done == action)
    }

    fn forget(&mut self) {
        self.log.clear();
    }
}

fn through(agent: Ipv4Addr) -> Attachment {
    Attachment::ForeignAgent {
        address: agent,
        mac: mac_of(agent),
        care_of_address: care_of(agent),
        style: ReverseTunnel::Direct,
        encapsulation: Encapsulation::IpInIp,
    }
}

const AT_HOME: Attachment = Attachment::Home { gateway: HOME_GATEWAY, mac: mac_of(HOME_GATEWAY) };

const BY_ITSELF: Attachment = Attachment::CoLocated {
    co_located: CO_LOCATED,
    reverse_tunnel: true,
    encapsulation: Encapsulation::IpInIp,
};
