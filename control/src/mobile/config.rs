//! homeport-mn's config file.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use homeport_dataplane::port::interface::NAME_LEN;
use homeport_proto::Lifetime;
use homeport_proto::config::{MobileNodeConfig, Prefix};
use homeport_proto::message::SessionCarriage;
use homeport_proto::message::session::MAX_NAI;
use homeport_proto::mobile_node::MAX_SESSIONS;
use schemars::JsonSchema;
use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::ConfigErrors;
use crate::config::file::SecurityAssociationSection;
use crate::config::problem::Problems;
use crate::config::read::{At, FromToml, nearest, section};
use crate::config::security::{Owner, security_associations};
use crate::config::signalling::DynamicHomeAgentName;
use crate::config::value::{
    LifetimeText, LogFilter, Network, PreferredEncapsulationName, ReverseTunnelName, Span, text,
    words,
};

/// The most sessions that there can be: those of devices among them.
const MAX_DEVICES: u16 = MAX_SESSIONS as u16;

/// The shortest lease: half of it is left for a device to renew it.
const SHORTEST_LEASE: Duration = Duration::from_secs(20);

/// The lengths of prefixes in which devices find a router and each other.
const LAN_PREFIX_LENS: std::ops::RangeInclusive<u8> = 8..=30;

words! {
    /// How the node's name and its session's are carried.
    SessionCarriageName {
        /// Each in an extension of its own.
        Separate = "separate",
        /// Both in one.
        Combined = "combined",
    }
}

impl From<SessionCarriageName> for SessionCarriage {
    fn from(name: SessionCarriageName) -> SessionCarriage {
        match name {
            SessionCarriageName::Separate => SessionCarriage::Separate,
            SessionCarriageName::Combined => SessionCarriage::Combined,
        }
    }
}

words! {
    /// What a device's session is named by.
    SubNaiRule {
        /// Its DHCP client identifier; without one, its link-layer address.
        ClientId = "client-id",
        /// Its host name; without one, as with `client-id`.
        HostName = "host-name",
        /// Its link-layer address.
        Mac = "mac",
    }
}

/// The node's own home address. Zero, as in requests, is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OwnAddress(pub Ipv4Addr);

impl FromToml for OwnAddress {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        if value.get_ref().as_str() == Some("0.0.0.0") {
            problems.add(
                value.span(),
                "0.0.0.0 is no home address",
                "leave home_address away: with a nai, the home agent gives the node one",
            );
            return None;
        }
        Ipv4Addr::from_toml(value, problems).map(OwnAddress)
    }
}

section! {
    /// A whole file.
    File as "the file" {
        /// The process.
        daemon: Option<DaemonSection>,
        /// The mobile node.
        mobile_node: MobileNodeSection,
    }
}

section! {
    /// `[daemon]`: the process.
    DaemonSection as "[daemon]" {
        /// The unix socket of the admin API.
        admin_socket: At<PathBuf> = PathBuf::from("/run/homeport/mn.sock"),
        /// What is logged.
        log: At<LogFilter> = LogFilter("info".into()),
        /// The folder where a home address that was given is written down.
        state_dir: Option<At<PathBuf>>,
    }
}

section! {
    /// `[mobile_node]`: the mobile node.
    MobileNodeSection as "[mobile_node]" {
        /// The interface that it moves with.
        interface: At<String>,
        /// The tunnel interface, made and removed by the program.
        tunnel: At<String> = "hp-mn".to_owned(),
        /// Its home address; without one, its home agent gives it one, by its NAI.
        home_address: Option<At<OwnAddress>>,
        /// The prefix of its home network.
        home_prefix: At<Network>,
        /// Its home agent.
        home_agent: At<Ipv4Addr>,
        /// Whether the network may choose another, and how that is written.
        dynamic_home_agent: At<DynamicHomeAgentName> = DynamicHomeAgentName::Off,
        /// The lifetime to ask for.
        lifetime: At<LifetimeText> = LifetimeText(Lifetime(600)),
        /// How its own packets go back.
        reverse_tunnel: At<ReverseTunnelName> = ReverseTunnelName::Direct,
        /// Whether an address by DHCP is used where no agent answers.
        co_located: At<bool> = true,
        /// How long an agent is waited for before that.
        agent_wait: At<Span> = Span(Duration::from_millis(20)),
        /// The encapsulation to ask for.
        encapsulation: At<PreferredEncapsulationName> = PreferredEncapsulationName::IpInIp,
        /// Whether a UDP tunnel is used where there is a NAT.
        nat_traversal: At<bool> = true,
        /// Whether TCP is told of the tunnel's MTU.
        mss_clamp: At<bool> = false,
        /// Its network access identifier, which sessions need, and who has no home address.
        nai: Option<At<String>>,
        /// How requests carry the names of sessions.
        session_carriage: At<SessionCarriageName> = SessionCarriageName::Separate,
        /// The LAN whose devices are sessions.
        lan: Option<LanSection>,
        /// Whom it shares keys with.
        security_association: Vec<SecurityAssociationSection>,
    }
}

section! {
    /// `[mobile_node.lan]`: devices that know nothing of Mobile IP.
    LanSection as "[mobile_node.lan]" {
        /// The interface that they are on.
        interface: At<String>,
        /// The prefix that they take for their link.
        prefix: Option<At<Network>>,
        /// What their sessions are named by.
        sub_nai: At<SubNaiRule> = SubNaiRule::ClientId,
        /// How long they have an address before they must renew it.
        lease: At<Span> = Span::from_secs(120),
        /// How many there may be.
        max_devices: At<u16> = 64,
        /// How often each is asked whether it is there.
        probe: At<Span> = Span::from_secs(30),
        /// The name servers that they are told.
        name_servers: Vec<At<Ipv4Addr>>,
    }
}

/// What was found right of `[mobile_node.lan]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanConfig {
    /// The interface that the devices are on.
    pub interface: String,
    /// The prefix that they take for their link.
    pub prefix: Prefix,
    /// The router that they are told, which is we: an address in the prefix.
    pub router: Ipv4Addr,
    /// What their sessions are named by.
    pub sub_nai: SubNaiRule,
    /// How long they have an address before they must renew it.
    pub lease: Duration,
    /// How many there may be.
    pub max_devices: usize,
    /// How often each is asked whether it is there.
    pub probe: Duration,
    /// The name servers that they are told.
    pub name_servers: Vec<Ipv4Addr>,
}

/// A config that was found right.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it came from.
    pub path: PathBuf,
    /// The unix socket of the admin API.
    pub admin_socket: PathBuf,
    /// A filter for `tracing`.
    pub log: String,
    /// The folder where a home address that was given is written down.
    pub state_dir: Option<PathBuf>,
    /// The interface that it moves with.
    pub interface: String,
    /// The tunnel interface.
    pub tunnel: String,
    /// Whether TCP is told of the tunnel's MTU by its segment size.
    pub mss_clamp: bool,
    /// The LAN whose devices are sessions.
    pub lan: Option<LanConfig>,
    /// What the state machine is told.
    pub node: MobileNodeConfig,
}

impl Config {
    /// Reads and checks the file at `path`, and the key files that it names.
    ///
    /// # Errors
    /// Every error in it.
    pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigErrors::unreadable(path, &error))?;
        Config::parse(&text, path)
    }

    /// Checks `text` as if it stood in the file at `path`.
    ///
    /// # Errors
    /// Every error in it.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigErrors> {
        let mut problems = Problems::default();
        let config =
            read_file(text, &mut problems).and_then(|file| check(&file, path, &mut problems));
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems.into_errors(path, text)),
        }
    }
}

fn read_file(text: &str, problems: &mut Problems) -> Option<File> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.add(
            error.span().unwrap_or(0..0),
            error.message().replace('\n', ", "),
            "in TOML texts stand in quotes, lists in brackets, and a key only once",
        );
    }
    if !errors.is_empty() {
        return None;
    }
    File::from_table(table.get_ref(), 0..0, problems)
}

fn check(file: &File, path: &Path, problems: &mut Problems) -> Option<Config> {
    let daemon = match &file.daemon {
        Some(daemon) => daemon.clone(),
        None => DaemonSection::from_table(&DeTable::new(), 0..0, problems)?,
    };
    if let Some(folder) = daemon.state_dir.as_ref().filter(|folder| !folder.is_absolute()) {
        problems.add(
            folder.span(),
            format!("state_dir: \"{}\" does not begin with /", folder.display()),
            "write it from the root on, as in \"/var/lib/homeport-mn\"",
        );
    }
    let node = &file.mobile_node;
    interface_name(&node.interface, problems);
    interface_name(&node.tunnel, problems);
    if *node.interface == *node.tunnel {
        problems.add(
            node.tunnel.span(),
            "the tunnel has the name of the interface that it moves with",
            "choose another, as in \"hp-mn\"",
        );
    }
    let prefix = node.home_prefix.0;
    let home = node.home_address.as_ref().map(|home| home.0);
    if let Some(home) = &node.home_address {
        check_home_address(home, node, problems);
    } else if node.nai.is_none() && problems.is_empty() {
        problems.add(
            node.interface.span(),
            "[mobile_node] has neither a home_address nor a nai by which a home agent could give it one",
            "add home_address = \"…\", or nai = \"…\", as in \"phone@train.example\"",
        );
    }
    if *node.encapsulation == PreferredEncapsulationName::Udp && !*node.co_located {
        problems.add(
            node.encapsulation.span(),
            "UDP tunnels are between a co-located address and the home agent, and there is none",
            "write `co_located = true`, or another encapsulation",
        );
    }
    if node.lifetime.0.is_zero() {
        problems.add(
            node.lifetime.span(),
            "a lifetime of zero would deregister",
            "write a time such as \"10m\"",
        );
    }
    if let Some(nai) = node.nai.as_ref().filter(|nai| nai.len() > MAX_NAI) {
        problems.add(
            nai.span(),
            format!("a NAI has at most {MAX_NAI} bytes, and this has {}", nai.len()),
            "write a shorter one, as in \"phone@train.example\"",
        );
    }
    let lan = node.lan.as_ref().map(|lan| check_lan(lan, node, problems));
    let directory = path.parent().unwrap_or(Path::new(""));
    let security = security_associations(
        &node.security_association,
        Owner::MobileNode { nai: node.nai.as_ref().map(|nai| nai.as_str()) },
        directory,
        "mobile_node",
        &mut BTreeMap::new(),
        problems,
    );
    if problems.is_empty() && security.first_agent(*node.home_agent).is_none() {
        problems.add(
            node.home_agent.span(),
            format!("there is no security association with the home agent {}", *node.home_agent),
            format!(
                "add [[mobile_node.security_association]] with home_agent = \"{}\"",
                *node.home_agent
            ),
        );
    }
    Some(Config {
        path: path.into(),
        admin_socket: (*daemon.admin_socket).clone(),
        log: daemon.log.0.clone(),
        state_dir: daemon.state_dir.as_deref().cloned(),
        interface: (*node.interface).clone(),
        tunnel: (*node.tunnel).clone(),
        mss_clamp: *node.mss_clamp,
        lan,
        node: MobileNodeConfig {
            home_address: home.unwrap_or(Ipv4Addr::UNSPECIFIED),
            home_prefix: prefix,
            home_agent: *node.home_agent,
            dynamic_home_agent: (*node.dynamic_home_agent).into(),
            lifetime: node.lifetime.0,
            reverse_tunnel: (*node.reverse_tunnel).into(),
            co_located: *node.co_located,
            agent_wait: node.agent_wait.0,
            encapsulation: (*node.encapsulation).into(),
            nat_traversal: *node.nat_traversal,
            nai: node.nai.as_ref().map(|nai| nai.as_bytes().to_vec()),
            session_carriage: (*node.session_carriage).into(),
            agents_by_nai: node
                .security_association
                .iter()
                .filter(|section| section.nai.is_some())
                .filter_map(|section| section.foreign_agent.as_ref().map(|agent| **agent))
                .collect(),
            security,
        },
    })
}

fn check_home_address(home: &At<OwnAddress>, node: &MobileNodeSection, problems: &mut Problems) {
    let (OwnAddress(home), span, prefix) = (**home, home.span(), node.home_prefix.0);
    let is_network =
        prefix.prefix_len() < 31 && (home == prefix.address() || home == prefix.broadcast());
    if !prefix.contains(home) || is_network {
        problems.add(
            span,
            format!("{home} is no host's address in the home prefix {prefix}"),
            "write an address that the home agent serves",
        );
    }
    if home == *node.home_agent {
        problems.add(
            node.home_agent.span(),
            "the home agent has the mobile node's home address",
            "write the address of the home agent",
        );
    }
}

fn check_lan(lan: &LanSection, node: &MobileNodeSection, problems: &mut Problems) -> LanConfig {
    // One that is wrong is not absent.
    if node.nai.is_none() && problems.is_empty() {
        problems.add(
            lan.interface.span(),
            "devices on a LAN are sessions of a NAI, and [mobile_node] has none",
            "add nai = \"…\" to [mobile_node], as in \"phone@train.example\"",
        );
    }
    interface_name(&lan.interface, problems);
    if [&node.interface, &node.tunnel].iter().any(|other| ***other == *lan.interface) {
        problems.add(
            lan.interface.span(),
            "the devices' interface is the one that the node moves with, or the tunnel",
            "write the interface that the devices are on",
        );
    }
    let prefix = lan.prefix.as_ref().unwrap_or(&node.home_prefix);
    if !LAN_PREFIX_LENS.contains(&prefix.0.prefix_len()) {
        problems.add(
            prefix.span(),
            format!("in {} devices find no router, or too many neighbours", prefix.0),
            "add prefix = \"…\" to [mobile_node.lan], with a length of 8 to 30",
        );
    }
    if lan.lease.0 < SHORTEST_LEASE {
        problems.add(
            lan.lease.span(),
            "devices renew at half the lease, and this is too short for that",
            "write 20s or more",
        );
    }
    if lan.probe.0 < Duration::from_secs(1) {
        problems.add(
            lan.probe.span(),
            "devices would be asked all the time whether they are there",
            "write 1s or more",
        );
    }
    if *lan.max_devices == 0 || *lan.max_devices > MAX_DEVICES {
        problems.add(
            lan.max_devices.span(),
            format!("there can be 1 to {MAX_DEVICES} devices"),
            format!("write a number from 1 to {MAX_DEVICES}"),
        );
    }
    let prefix = prefix.0;
    let home = node.home_address.as_ref().map(|home| home.0);
    // One that comes later may be another each time: devices have a router before.
    let home = home.filter(|home| prefix.contains(*home));
    LanConfig {
        interface: (*lan.interface).clone(),
        prefix,
        router: home.unwrap_or_else(|| first_host(prefix)),
        sub_nai: *lan.sub_nai,
        lease: lan.lease.0,
        max_devices: usize::from(*lan.max_devices),
        probe: lan.probe.0,
        name_servers: lan.name_servers.iter().map(|server| **server).collect(),
    }
}

fn first_host(prefix: Prefix) -> Ipv4Addr {
    Ipv4Addr::from_bits(prefix.address().to_bits().saturating_add(1))
}

fn interface_name(name: &At<String>, problems: &mut Problems) {
    let forbidden = |byte: u8| byte.is_ascii_whitespace() || byte == b'/' || byte == b':';
    if name.is_empty() || name.len() > NAME_LEN || name.bytes().any(forbidden) {
        problems.add(
            name.span(),
            format!("\"{}\" is no name of an interface", name.escape_debug()),
            format!("use 1 to {NAME_LEN} characters, no blank, '/' or ':'"),
        );
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
