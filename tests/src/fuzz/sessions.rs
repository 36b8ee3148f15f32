//! Sessions from a mobile node through a foreign agent to a home agent, and directly:
//! names of every kind, keys, challenges, addresses that are given, kept and given back,
//! messages that are damaged, late and sent again. No address is two sessions', and when
//! all is over nobody has one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use homeport_proto::agent::{Agent, Datagram};
use homeport_proto::config::{
    AddressPool, AddressRange, AgentConfig, ChallengePolicy, SessionInsertion, SessionPolicy,
};
use homeport_proto::home_agent::SessionView;
use homeport_proto::message::{
    AuthenticationKind, Extension, Identification, Message, MessageWriter, RegistrationRequest,
    RequestFlags,
};
use homeport_proto::security::{ReplayProtection, SecurityAssociations};
use homeport_proto::{
    Action, Instant, Lifetime, MacAddress, Now, NtpTime, Payload, PortId, TenantId,
};

use super::later;
use super::machines::{FOREIGN_AGENT, FOREIGN_LINK, HOME_AGENT, association, config, damage};

/// Who is known, the one with timestamps and the other with nonces; and a stranger.
const NAIS: [&[u8]; 3] = [b"a@x.example", b"\x00\xff@Y", b"stranger@x.example"];
const NAMES: [&[u8]; 9] = [b"", b"a", b"b", b"\xff\x00\n", &[7; 247], b"c", b"d", b"e", b"f"];
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const LAST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 107);
/// Of them, twice as many fit into the pool, and not of both NAIs.
const MOST: u32 = 3;
/// Fewer than that, so that the foreign agent has something to deny.
const MOST_VISITORS: usize = 2;
const STICKY: Duration = Duration::from_secs(30);
const HOLD_DOWN: Duration = Duration::from_secs(20);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

fn key_of(who: usize) -> homeport_proto::security::MobilitySecurityAssociation {
    let replay = if who == 1 { ReplayProtection::Nonces } else { ReplayProtection::default() };
    association(256 + u32::try_from(who).unwrap_or(0), replay)
}

fn foreign_key() -> homeport_proto::security::MobilitySecurityAssociation {
    association(400, ReplayProtection::default())
}

/// The box of the home agent, and that of the foreign agent.
fn boxes() -> [AgentConfig; 2] {
    let AgentConfig { home_agents, foreign_agents, .. } = config();
    let mut home = AgentConfig { home_agents, ..AgentConfig::default() };
    let mut foreign = AgentConfig { foreign_agents, ..AgentConfig::default() };
    let between = association(300, ReplayProtection::default());
    for agent in &mut home.home_agents {
        agent.max_bindings = 4;
        agent.security = SecurityAssociations::default();
        agent.security.insert_agent(FOREIGN_AGENT, between.clone());
        for (who, nai) in NAIS.iter().enumerate().take(2) {
            let known = agent.security.insert_nai(nai, None, key_of(who), Lifetime::INFINITE);
            assert!(known.is_some());
        }
        let ranges = vec![AddressRange { first: FIRST, last: LAST }];
        let (name, exclusions) = ("few".into(), Vec::new());
        agent.sessions = SessionPolicy {
            pools: vec![AddressPool { name, realm: None, ranges, exclusions }],
            max_sessions_per_nai: MOST,
            sticky: STICKY,
            hold_down: HOLD_DOWN,
            ..SessionPolicy::default()
        };
    }
    for agent in &mut foreign.foreign_agents {
        agent.security = SecurityAssociations::default();
        agent.security.insert_agent(HOME_AGENT, between.clone());
        let known = agent.security.insert_nai(NAIS[0], None, foreign_key(), Lifetime::INFINITE);
        assert!(known.is_some());
        agent.challenge = ChallengePolicy::Offered;
        agent.session_insertion = SessionInsertion::Mac;
        agent.max_sessions_per_nai = MOST_VISITORS;
    }
    [home, foreign]
}

/// Whom a message is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Home,
    Foreign,
}

struct Boxes {
    home: Agent,
    foreign: Agent,
    now: Now,
    /// What was said so far: to whom, from whom.
    said: Vec<(To, Ipv4Addr, MacAddress, Vec<u8>)>,
    /// What the foreign agent has given last.
    challenge: Vec<u8>,
    /// The high half of the next identification, with nonces.
    nonce: u32,
    /// Whose each address is.
    held: BTreeMap<Ipv4Addr, (Vec<u8>, Vec<u8>)>,
}

impl Boxes {
    fn new() -> Self {
        let now = Now { monotonic: Instant(1_000_000_000), ntp: NtpTime(0xe000_0000_0000_0000) };
        let [home, foreign] = boxes();
        Boxes {
            home: Agent::new(home, [5; 32], now),
            foreign: Agent::new(foreign, [6; 32], now),
            now,
            said: Vec::new(),
            challenge: vec![0; 16],
            nonce: 0,
            held: BTreeMap::new(),
        }
    }

    fn hand(&mut self, to: To, source: Ipv4Addr, mac: MacAddress, payload: &[u8]) {
        let from_agent = to == To::Foreign && source == HOME_AGENT;
        let (destination, port) = match to {
            To::Home => (HOME_AGENT, PortId(0)),
            To::Foreign if from_agent => (FOREIGN_AGENT, PortId(0)),
            To::Foreign => (FOREIGN_LINK, PortId(1)),
        };
        let datagram = Datagram {
            tenant: TenantId(0),
            port,
            source_mac: mac,
            destination_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            source,
            destination,
            source_port: 434,
            destination_port: 434,
            ttl: 255,
            payload,
        };
        match to {
            To::Home => self.home.handle_datagram(&datagram, self.now),
            To::Foreign => self.foreign.handle_datagram(&datagram, self.now),
        }
        if self.said.len() < 64 {
            self.said.push((to, source, mac, payload.to_vec()));
        }
        self.settle();
    }

    /// Brings what the agents say to each other there, and looks at them.
    fn settle(&mut self) {
        loop {
            let (of_home, action) = match self.home.poll_action() {
                Some(action) => (true, Some(action)),
                None => (false, self.foreign.poll_action()),
            };
            let Some(action) = action else { break };
            let Action::Transmit(packet) = action else { continue };
            let Payload::Udp { data, .. } = packet.payload else { continue };
            let mac = MacAddress([2, 0, 0, 0, 0, 9]);
            match (of_home, packet.destination) {
                (false, HOME_AGENT) => self.hand(To::Home, FOREIGN_AGENT, mac, &data),
                (true, FOREIGN_AGENT) => self.hand(To::Foreign, HOME_AGENT, mac, &data),
                _ => self.hear(&data),
            }
        }
        self.judge();
    }

    /// The mobile node hears a reply.
    fn hear(&mut self, reply: &[u8]) {
        let Ok(Message::Reply(reply)) = Message::parse(reply) else { return };
        assert!(reply.defect().is_none());
        self.nonce = reply.body.identification.high();
        for one in reply.extensions() {
            if let Extension::Challenge(challenge) = one.extension {
                self.challenge = challenge.to_vec();
            }
        }
    }

    fn judge(&mut self) {
        let Some(agent) = self.home.home_agents().next() else { panic!("no home agent") };
        let sessions: Vec<SessionView<'_>> = agent.sessions(None);
        let mut addresses = BTreeSet::new();
        for one in &sessions {
            assert!((FIRST..=LAST).contains(&one.home_address), "{one:?}");
            assert!(addresses.insert(one.home_address), "{one:?} is not its alone");
        }
        for nai in NAIS {
            let all = agent.sessions(Some(nai));
            assert!(all.iter().filter(|one| one.state.is_live()).count() <= MOST as usize);
            assert!(all.len() <= 2 * MOST as usize);
        }
        for binding in agent.bindings() {
            assert!(addresses.contains(&binding.home_address), "nobody's is bound");
        }
        // Who has an address keeps it until it is nobody's.
        let now =
            sessions.iter().map(|one| (one.home_address, (one.nai.to_vec(), one.sub_nai.to_vec())));
        let now: BTreeMap<_, _> = now.collect();
        for (address, holder) in &self.held {
            let same = now.get(address).is_none_or(|it| it == holder);
            let elsewhere = now.iter().any(|(at, it)| it == holder && at != address);
            assert!(same && !elsewhere, "{holder:?} had {address}: {now:?}");
        }
        self.held = now;
        for agent in self.foreign.foreign_agents() {
            let mut visitors: BTreeMap<&[u8], usize> = BTreeMap::new();
            for visitor in agent.visitors() {
                let Some(name) = &visitor.name else { continue };
                *visitors.entry(&name.nai).or_default() += 1;
            }
            assert!(visitors.values().all(|count| *count <= MOST_VISITORS));
            assert!(agent.pending().count() <= agent.config().max_pending);
        }
    }

    /// A request that is right but for what the bytes change in it.
    fn request(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        let [who, name, how, place, lifetime, address, mac] = bytes.arbitrary::<[u8; 7]>()?;
        let who = usize::from(who) % NAIS.len();
        let nai = NAIS[who];
        let sub_nai = NAMES[usize::from(name) % NAMES.len()];
        let releases = how & 7 == 7;
        let home_address = match address % 11 {
            0..=1 => Ipv4Addr::UNSPECIFIED,
            other => Ipv4Addr::from_bits(FIRST.to_bits() - 2 + u32::from(other)),
        };
        let (to, source, care_of_address, flags) = match place % 4 {
            0 | 1 => (To::Foreign, home_address, FOREIGN_AGENT, RequestFlags::default()),
            2 => (To::Home, ELSEWHERE, ELSEWHERE, RequestFlags::CO_LOCATED),
            _ => (To::Home, home_address, home_address, RequestFlags::default()),
        };
        let at_home = place % 4 == 3;
        let lifetime = if releases || at_home { 0 } else { u16::from(lifetime) };
        let low = bytes.arbitrary::<u32>()?;
        let identification = match who {
            1 => Identification::from_halves(self.nonce, low),
            _ => Identification(self.now.ntp.0.wrapping_add(u64::from(low))),
        };
        let mut writer = MessageWriter::request(&RegistrationRequest {
            flags: flags.with(RequestFlags::REVERSE_TUNNEL),
            lifetime: Lifetime(lifetime),
            home_address,
            home_agent: HOME_AGENT,
            care_of_address,
            identification,
        });
        // What does not fit is left out.
        if how & 8 == 8 && !sub_nai.is_empty() {
            let _ = writer.extension(&Extension::CombinedSession { nai, sub_nai });
        } else {
            let _ = writer.extension(&Extension::NetworkAccessIdentifier(nai));
            if !sub_nai.is_empty() {
                let _ = writer.extension(&Extension::SubNai(sub_nai));
            }
        }
        if how & 16 == 16 && place & 16 == 16 {
            let other = NAMES[usize::from(mac) % NAMES.len()];
            let _ = writer.extension(&Extension::SubNai(other));
        }
        if releases {
            let _ = writer.extension(&Extension::SessionRelease);
        }
        writer.authenticate(AuthenticationKind::MobileHome, &key_of(who));
        if how & 32 == 32 {
            let _ = writer.extension(&Extension::SubNai(b"inserted"));
        }
        if how & 64 == 64 {
            let _ = writer.extension(&Extension::Challenge(&self.challenge));
        }
        if how & 128 == 0 && to == To::Foreign {
            writer.authenticate(AuthenticationKind::MobileForeign, &foreign_key());
        }
        let mut message = writer.finish();
        damage(&mut message, bytes)?;
        self.hand(to, source, MacAddress([2, 0, 0, 0, 2, mac % 3]), &message);
        Ok(())
    }

    fn pass(&mut self, by: Duration) {
        let end = self.now.monotonic + by;
        for _ in 0..1_000 {
            let due = [self.home.poll_timeout(), self.foreign.poll_timeout()];
            let due = due.into_iter().flatten().min().filter(|due| *due <= end);
            let Some(due) = due else { break };
            self.go_to(due.max(self.now.monotonic));
            self.home.handle_timeout(self.now);
            self.foreign.handle_timeout(self.now);
            self.settle();
        }
        self.go_to(end);
    }

    fn go_to(&mut self, monotonic: Instant) {
        self.now = later(self.now, monotonic);
    }
}

fn come_and_go(bytes: &mut Unstructured<'_>) -> Result<()> {
    let mut boxes = Boxes::new();
    while !bytes.is_empty() {
        match bytes.arbitrary::<u8>()? % 10 {
            0..=6 => boxes.request(bytes)?,
            7 => {
                // What was said before, as somebody who listens says it again, from where
                // it came or from another station.
                let [which, mac] = bytes.arbitrary::<[u8; 2]>()?;
                let said = boxes.said.get(usize::from(which) % boxes.said.len().max(1)).cloned();
                if let Some((to, source, own, payload)) = said {
                    let mac = if mac == 0 { own } else { MacAddress([2, 0, 0, 0, 2, mac % 3]) };
                    boxes.hand(to, source, mac, &payload);
                }
            }
            8 => {
                let step = i64::from(bytes.arbitrary::<i8>()?) << 31;
                boxes.now.ntp = NtpTime(boxes.now.ntp.0.wrapping_add_signed(step));
            }
            _ => boxes.pass(Duration::from_millis(u64::from(bytes.arbitrary::<u16>()?))),
        }
    }
    // All lifetimes are at most four minutes here: in the end nobody has anything.
    boxes.pass(Duration::from_secs(400));
    let Some(agent) = boxes.home.home_agents().next() else { panic!("no home agent") };
    assert!(agent.sessions(None).is_empty());
    assert!(agent.pools().iter().all(|pool| pool.free() == pool.pool.size()));
    assert_eq!((boxes.home.bindings().count(), boxes.foreign.visitors().count()), (0, 0));
    Ok(())
}

/// Home and foreign agent, with sessions.
pub(super) fn sessions(data: &[u8]) {
    let _ = come_and_go(&mut Unstructured::new(data));
}
