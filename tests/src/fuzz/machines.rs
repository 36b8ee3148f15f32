//! The protocol's machines, input by input: no panic, bounds that hold, installs before
//! replies, and the same actions again from what was drawn.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use homeport_control::config::Config;
use homeport_proto::agent::{Agent, Datagram};
use homeport_proto::config::{AgentConfig, MobileNodeConfig, PreferredEncapsulation, Prefix};
use homeport_proto::draws::{Differing, Draws};
use homeport_proto::message::{
    AuthenticationKind, Extension, Identification, Message, MessageWriter, RegistrationReply,
    RegistrationRequest, RegistrationRevocation, ReplyCode, RequestFlags,
    RevocationAcknowledgement, RevocationSupport,
};
use homeport_proto::mobile_node::{CoLocated, MobileNode, MobileNodeAction, SendRegistration};
use homeport_proto::security::{
    Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, SecurityAssociations, Spi,
};
use homeport_proto::{
    Action, Instant, Lifetime, MacAddress, Now, NtpTime, Payload, PortId, ReverseTunnel, TenantId,
    TunnelledEcho,
};

use super::later;

pub(super) const HOME_AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
pub(super) const FOREIGN_AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub(super) const FOREIGN_LINK: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
/// A home agent elsewhere, and a foreign agent elsewhere.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 2);

const CONFIG: &str = r#"[daemon]
admin_socket = "/run/homeport/fuzz.sock"
[[port]]
name = "core"
backend = "af_packet"
interface = "eth0"
addresses = ["10.0.1.2/24", "10.0.2.2/24"]
[[port]]
name = "visited"
backend = "af_packet"
interface = "eth1"
addresses = ["10.2.0.1/24"]
[[home_agent]]
name = "ha"
address = "10.0.1.2"
max_bindings = 3
max_simultaneous = 2
[[home_agent.home_network]]
prefix = "10.1.0.0/24"
[[foreign_agent]]
name = "fa"
care_of_address = "10.0.2.2"
ports = ["visited"]
max_visitors = 3
max_pending = 4
[[advertiser]]
port = "visited"
foreign_agent = "fa"
"#;

pub(super) fn association(spi: u32, replay: ReplayProtection) -> MobilitySecurityAssociation {
    let key = Key::new(spi.to_be_bytes().repeat(4));
    MobilitySecurityAssociation { spi: Spi(spi), algorithm: Algorithm::HmacMd5, key, replay }
}

const fn node(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, 10 + number % 6)
}

/// The key of a node; those with odd numbers have nonces.
fn key_of(number: u8) -> MobilitySecurityAssociation {
    let odd = number % 6 % 2 == 1;
    association(256, if odd { ReplayProtection::Nonces } else { ReplayProtection::default() })
}

/// The agents; they do not change while the target runs, so they are made once.
pub(super) fn config() -> AgentConfig {
    static CONFIGS: std::sync::OnceLock<AgentConfig> = std::sync::OnceLock::new();
    let config = CONFIGS.get_or_init(|| {
        let parsed = Config::parse(CONFIG, Path::new("fuzz.toml"));
        let mut config = parsed.map(|config| config.agent_config()).unwrap_or_default();
        for agent in &mut config.home_agents {
            // The sixth node is a stranger.
            (0..5)
                .for_each(|number| agent.security.insert_mobile_node(node(number), key_of(number)));
            agent.security.insert_agent(ELSEWHERE, association(300, ReplayProtection::default()));
        }
        for agent in &mut config.foreign_agents {
            agent.security.insert_agent(ELSEWHERE, association(300, ReplayProtection::default()));
        }
        config
    });
    assert!(!config.home_agents.is_empty() && !config.foreign_agents.is_empty());
    config.clone()
}

/// Agents, the same agents again, and what they have sent.
struct Agents {
    agent: Agent,
    again: Agent,
    now: Now,
    /// Messages that were handed over, and the foreign agent's to home agents.
    heard: Vec<(Heard, Vec<u8>)>,
    relayed: Vec<Vec<u8>>,
}

/// Where a message comes from and goes to.
#[derive(Clone, Copy)]
struct Heard {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    source_port: u16,
    port: PortId,
}

impl Agents {
    fn new() -> Agents {
        let now = Now { monotonic: Instant(1_000_000_000), ntp: NtpTime(0xe000_0000_0000_0000) };
        let mut agent = Agent::with_draws(config(), Draws::noted([5; 32]), now);
        let again = Agent::with_draws(config(), Draws::given(agent.take_drawn()), now);
        Agents { agent, again, now, heard: vec![], relayed: vec![] }
    }

    /// Hands both the same, and looks at what they ask for.
    fn input(&mut self, input: impl Fn(&mut Agent, Now)) {
        input(&mut self.agent, self.now);
        let actions: Vec<Action> = std::iter::from_fn(|| self.agent.poll_action()).collect();
        self.again.give(self.agent.take_drawn());
        input(&mut self.again, self.now);
        let repeated: Vec<Action> = std::iter::from_fn(|| self.again.poll_action()).collect();
        assert_eq!(actions, repeated);
        assert_eq!(self.again.differing(), Differing::default());
        assert_eq!(self.agent.poll_timeout(), self.again.poll_timeout());
        self.judge(&actions);
    }

    fn judge(&mut self, actions: &[Action]) {
        let bindings: Vec<_> = self.agent.bindings().collect();
        assert!(bindings.len() <= 3);
        assert!(self.agent.visitors().count() <= 3);
        let pending: usize = self.agent.foreign_agents().map(|agent| agent.pending().count()).sum();
        assert!(pending <= 4);
        let mut installed = Vec::new();
        for action in actions {
            match action {
                Action::InstallBinding(binding) => {
                    assert!(!binding.care_of_addresses.is_empty());
                    assert!(binding.care_of_addresses.len() <= 2);
                    installed.push(binding.home_address);
                }
                Action::Transmit(packet) => {
                    let Payload::Udp { data, destination_port, .. } = &packet.payload else {
                        continue;
                    };
                    assert!(packet.ttl > 0 && *destination_port > 0);
                    if packet.source == FOREIGN_AGENT {
                        self.relayed.push(data.clone());
                    }
                    let Ok(Message::Reply(reply)) = Message::parse(data) else { continue };
                    assert!(reply.defect().is_none());
                    let (code, lifetime) = (reply.body.code, reply.body.lifetime);
                    let ours = reply.body.home_agent == HOME_AGENT;
                    if ours && code.is_accepted() && !lifetime.is_zero() {
                        // Install before reply; of one that is repeated, before that.
                        let home_address = reply.body.home_address;
                        let bound = bindings.iter().any(|one| one.home_address == home_address);
                        assert!(installed.contains(&home_address) || bound, "{actions:?}");
                    }
                }
                _ => {}
            }
        }
    }

    fn datagram(&mut self, at: Heard, payload: &[u8]) {
        let Heard { source, destination, source_port, port } = at;
        let datagram = Datagram {
            tenant: TenantId(0),
            port,
            source_mac: MacAddress([2, 0, 0, 0, 0, 9]),
            destination_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            source,
            destination,
            source_port,
            destination_port: 434,
            ttl: 255,
            payload,
        };
        self.input(|agent, now| agent.handle_datagram(&datagram, now));
        if self.heard.len() < 64 {
            self.heard.push((at, payload.to_vec()));
        }
    }

    /// A request that is right but for what the bytes change in it.
    fn request(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        let [number, place, flags, lifetime, skew] = bytes.arbitrary::<[u8; 5]>()?;
        let at_foreign_agent = place & 1 == 1;
        let care_of_address = match place / 2 % 4 {
            0 if at_foreign_agent => FOREIGN_AGENT,
            0 => ELSEWHERE,
            other => Ipv4Addr::new(192, 0, 2, other),
        };
        let skew = i64::from(skew.cast_signed()) << 28;
        let ntp = self.now.ntp.0.wrapping_add_signed(skew);
        let request = RegistrationRequest {
            flags: RequestFlags(flags),
            lifetime: Lifetime(u16::from(lifetime)),
            home_address: node(number),
            home_agent: if place & 16 == 0 { HOME_AGENT } else { ELSEWHERE },
            care_of_address,
            identification: Identification(ntp),
        };
        let mut writer = MessageWriter::request(&request);
        writer.authenticate(AuthenticationKind::MobileHome, &key_of(number));
        if care_of_address == ELSEWHERE {
            if place & 32 == 32 {
                let _ = writer.extension(&revocable(self.now));
            }
            let key = association(300, ReplayProtection::default());
            writer.authenticate(AuthenticationKind::ForeignHome, &key);
        }
        let mut message = writer.finish();
        damage(&mut message, bytes)?;
        let at = if at_foreign_agent {
            let destination = FOREIGN_LINK;
            Heard { source: node(number), destination, source_port: 434, port: PortId(1) }
        } else {
            let source = care_of_address;
            Heard { source, destination: HOME_AGENT, source_port: 434, port: PortId(0) }
        };
        self.datagram(at, &message);
        Ok(())
    }

    /// The answer of a home agent elsewhere to what the foreign agent has relayed.
    fn reply(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        let [which, code, lifetime] = bytes.arbitrary::<[u8; 3]>()?;
        let which = usize::from(which) % self.relayed.len().max(1);
        let Some(relayed) = self.relayed.get(which).cloned() else {
            return Ok(());
        };
        let Ok(Message::Request(request)) = Message::parse(&relayed) else { return Ok(()) };
        let reply = RegistrationReply {
            code: ReplyCode(code),
            lifetime: Lifetime(u16::from(lifetime)),
            home_address: request.body.home_address,
            home_agent: ELSEWHERE,
            identification: request.body.identification,
        };
        let mut writer = MessageWriter::reply(&reply);
        writer.authenticate(AuthenticationKind::MobileHome, &key_of(0));
        if lifetime & 1 == 1 {
            let _ = writer.extension(&revocable(self.now));
        }
        let key = association(300, ReplayProtection::default());
        writer.authenticate(AuthenticationKind::ForeignHome, &key);
        let mut message = writer.finish();
        damage(&mut message, bytes)?;
        let (source, destination) = (ELSEWHERE, FOREIGN_AGENT);
        self.datagram(Heard { source, destination, source_port: 434, port: PortId(0) }, &message);
        Ok(())
    }

    /// What the agent elsewhere says of a revocation, its own or ours.
    fn revocation(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        let [number, how, later] = bytes.arbitrary::<[u8; 3]>()?;
        let (at_home, acknowledges, reflected) = (how & 1 == 0, how & 2 == 2, how & 12 == 12);
        let destination = if at_home { HOME_AGENT } else { FOREIGN_AGENT };
        let clock = Identification(self.now.ntp.0).high();
        let identifier = clock.wrapping_add_signed(later.cast_signed().into());
        let inform = how & 16 == 16;
        let home_address = node(number);
        let mut writer = if acknowledges {
            MessageWriter::acknowledgement(&RevocationAcknowledgement {
                inform,
                home_address,
                identifier,
            })
        } else {
            MessageWriter::revocation(&RegistrationRevocation {
                from_home_agent: at_home == reflected,
                inform,
                home_address,
                home_agent: if at_home { HOME_AGENT } else { ELSEWHERE },
                care_of_address: if at_home { ELSEWHERE } else { FOREIGN_AGENT },
                identifier,
            })
        };
        let key = association(300, ReplayProtection::default());
        writer.authenticate(AuthenticationKind::ForeignHome, &key);
        let mut message = writer.finish();
        damage(&mut message, bytes)?;
        let at = Heard { source: ELSEWHERE, destination, source_port: 434, port: PortId(0) };
        self.datagram(at, &message);
        Ok(())
    }

    fn pass(&mut self, by: Duration) {
        let end = self.now.monotonic + by;
        // Each timer is armed anew by at most one more.
        for _ in 0..1_000 {
            let Some(due) = self.agent.poll_timeout().filter(|due| *due <= end) else { break };
            self.go_to(due.max(self.now.monotonic));
            self.input(|agent, now| agent.handle_timeout(now));
        }
        self.go_to(end);
    }

    fn go_to(&mut self, monotonic: Instant) {
        self.now = later(self.now, monotonic);
    }
}

/// That the agent elsewhere takes part in revocations, from now on.
fn revocable(now: Now) -> Extension<'static> {
    let timestamp = Identification(now.ntp.0).high();
    Extension::RevocationSupport(RevocationSupport { inform: true, timestamp })
}

/// Sometimes changes a byte, cuts the end off, or adds to it.
pub(super) fn damage(message: &mut Vec<u8>, bytes: &mut Unstructured<'_>) -> Result<()> {
    let [how, at, value] = bytes.arbitrary::<[u8; 3]>()?;
    let at = usize::from(at) % message.len().max(1);
    match how % 8 {
        0 => message.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= value),
        1 => message.truncate(at),
        2 => message.extend_from_slice(bytes.bytes(bytes.len().min(usize::from(value % 32)))?),
        _ => {}
    }
    Ok(())
}

fn agents(bytes: &mut Unstructured<'_>) -> Result<()> {
    let mut agents = Agents::new();
    while !bytes.is_empty() {
        match bytes.arbitrary::<u8>()? % 13 {
            0..=3 => agents.request(bytes)?,
            4 => agents.reply(bytes)?,
            5 => {
                // What was heard before, as somebody who listens sends it again.
                let which = usize::from(bytes.arbitrary::<u8>()?);
                let heard = agents.heard.get(which % agents.heard.len().max(1)).cloned();
                if let Some((at, payload)) = heard {
                    agents.datagram(at, &payload);
                }
            }
            6 => {
                let [to, len] = bytes.arbitrary::<[u8; 2]>()?;
                let payload = bytes.bytes(bytes.len().min(usize::from(len)))?;
                let destination = if to & 1 == 0 { HOME_AGENT } else { FOREIGN_LINK };
                let (source, port) = (Ipv4Addr::new(192, 0, 2, to % 4), PortId(u16::from(to & 1)));
                agents.datagram(Heard { source, destination, source_port: 434, port }, payload);
            }
            7 => {
                let [number, place, port, plain] = bytes.arbitrary::<[u8; 4]>()?;
                let icmp = bytes.bytes(bytes.len().min(16))?;
                let echo = TunnelledEcho {
                    tenant: TenantId(0),
                    source: Ipv4Addr::new(192, 0, 2, place % 4),
                    source_port: u16::from(port) + 430,
                    destination: HOME_AGENT,
                    inner_source: node(number),
                    inner_destination: HOME_AGENT,
                    plain: plain & 1 == 1,
                    icmp,
                };
                agents.input(|agent, now| agent.handle_keepalive(&echo, now));
                agents.input(|agent, now| {
                    agent.handle_rebound(TenantId(0), node(number), echo.source, 99, now);
                });
            }
            8 => {
                let icmp = bytes.bytes(bytes.len().min(40))?;
                let mac = MacAddress([2, 0, 0, 0, 0, 9]);
                agents.input(|agent, now| {
                    let (tenant, port) = (TenantId(0), PortId(1));
                    agent.handle_solicitation(tenant, port, mac, node(0), 255, icmp, now);
                    agent.handle_unreachable(tenant, ELSEWHERE, icmp, now);
                });
            }
            9 => {
                let number = bytes.arbitrary::<u8>()?;
                agents.input(|agent, now| {
                    if number & 128 == 0 {
                        agent.clear_binding(TenantId(0), node(number), now);
                    } else {
                        agent.clear_visitor(TenantId(0), node(number), now);
                    }
                });
            }
            10 => {
                // The wall clock steps; the other does not.
                let step = i64::from(bytes.arbitrary::<i8>()?) << 32;
                agents.now.ntp = NtpTime(agents.now.ntp.0.wrapping_add_signed(step));
            }
            11 => agents.revocation(bytes)?,
            _ => {
                let millis = u64::from(bytes.arbitrary::<u16>()?);
                agents.pass(Duration::from_millis(millis));
            }
        }
    }
    // All lifetimes are at most four minutes here: in the end nobody is bound.
    agents.pass(Duration::from_secs(400));
    assert_eq!(agents.agent.visitors().count(), 0);
    assert_eq!(agents.agent.bindings().count(), 0);
    Ok(())
}

/// Home agent and foreign agent.
pub(super) fn agent(data: &[u8]) {
    let _ = agents(&mut Unstructured::new(data));
}

fn node_config() -> MobileNodeConfig {
    let mut security = SecurityAssociations::default();
    security.insert_agent(HOME_AGENT, association(256, ReplayProtection::default()));
    MobileNodeConfig {
        nai: None,
        session_carriage: homeport_proto::message::SessionCarriage::Separate,
        agents_by_nai: std::collections::BTreeSet::new(),
        home_address: node(0),
        home_prefix: Prefix::new(node(0), 24).unwrap_or(Prefix::ALL),
        home_agent: HOME_AGENT,
        lifetime: Lifetime(60),
        reverse_tunnel: ReverseTunnel::Direct,
        co_located: true,
        agent_wait: Duration::from_secs(2),
        encapsulation: PreferredEncapsulation::default(),
        dynamic_home_agent: None,
        nat_traversal: true,
        security,
    }
}

/// The mobile node: it hears what it wants and what it does not.
fn roams(bytes: &mut Unstructured<'_>) -> Result<()> {
    let mut machine = MobileNode::new(node_config(), [5; 32]);
    let mut now = Now { monotonic: Instant(1_000_000_000), ntp: NtpTime(0xe000_0000_0000_0000) };
    let mut sent: Vec<Vec<u8>> = Vec::new();
    while !bytes.is_empty() {
        match bytes.arbitrary::<u8>()? % 8 {
            0 => machine.handle_link(bytes.arbitrary()?, now),
            1 | 2 => {
                let [from, ttl, len] = bytes.arbitrary::<[u8; 3]>()?;
                let icmp = bytes.bytes(bytes.len().min(usize::from(len % 64)))?;
                let source = Ipv4Addr::new(10, 2, from % 3, 1);
                let mac = MacAddress([2, 0, 0, 0, 1, from % 3]);
                machine.handle_advertisement(source, mac, icmp, ttl, now);
            }
            3 => {
                let [last, len, lease] = bytes.arbitrary::<[u8; 3]>()?;
                let co_located = CoLocated {
                    address: Ipv4Addr::new(10, 3, 0, last),
                    prefix_len: len % 33,
                    gateway: (len & 64 == 0).then_some(Ipv4Addr::new(10, 3, 0, 1)),
                    lease: (lease > 0).then(|| Duration::from_secs(lease.into())),
                };
                machine.handle_co_located(co_located, now);
            }
            4 => {
                let [which, code, lifetime] = bytes.arbitrary::<[u8; 3]>()?;
                let Some(request) = sent.get(usize::from(which) % sent.len().max(1)) else {
                    continue;
                };
                let Ok(Message::Request(request)) = Message::parse(request) else { continue };
                let reply = RegistrationReply {
                    code: ReplyCode(code),
                    lifetime: Lifetime(lifetime.into()),
                    home_address: request.body.home_address,
                    home_agent: HOME_AGENT,
                    identification: request.body.identification,
                };
                let mut writer = MessageWriter::reply(&reply);
                let key = association(256, ReplayProtection::default());
                writer.authenticate(AuthenticationKind::MobileHome, &key);
                let mut message = writer.finish();
                damage(&mut message, bytes)?;
                machine.handle_datagram(HOME_AGENT, 434, &message, now);
            }
            5 => machine.handle_co_located_lost(now),
            6 => {
                let len = usize::from(bytes.arbitrary::<u8>()?);
                let payload = bytes.bytes(bytes.len().min(len))?;
                machine.handle_datagram(HOME_AGENT, 434, payload, now);
            }
            _ => {
                let millis = u64::from(bytes.arbitrary::<u16>()?);
                let end = now.monotonic + Duration::from_millis(millis);
                for _ in 0..1_000 {
                    let Some(due) = machine.poll_timeout().filter(|due| *due <= end) else { break };
                    now.monotonic = now.monotonic.max(due);
                    machine.handle_timeout(now);
                    drain(&mut machine, &mut sent);
                }
                now.monotonic = end;
                now.ntp = NtpTime(now.ntp.0.wrapping_add((millis << 32) / 1_000));
            }
        }
        drain(&mut machine, &mut sent);
        let _ = (machine.phase(), machine.keepalive_interval(), machine.agents().len());
    }
    Ok(())
}

/// What it sends must be messages that parse.
fn drain(machine: &mut MobileNode, sent: &mut Vec<Vec<u8>>) {
    while let Some(action) = machine.poll_action() {
        if let MobileNodeAction::SendRegistration(SendRegistration { bytes, .. }) = action {
            assert!(
                matches!(Message::parse(&bytes), Ok(Message::Request(request)) if request.defect().is_none())
            );
            if sent.len() < 64 {
                sent.push(bytes);
            }
        }
    }
}

/// The mobile node.
pub(super) fn mobile_node(data: &[u8]) {
    let _ = roams(&mut Unstructured::new(data));
}
