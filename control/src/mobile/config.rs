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
    }
}

section! {
    /// `[mobile_node]`: the mobile node.
    MobileNodeSection as "[mobile_node]" {
        /// The interface that it moves with.
        interface: At<String>,
        /// The tunnel interface, made and removed by the program.
        tunnel: At<String> = "hp-mn".to_owned(),
        /// Its home address.
        home_address: At<Ipv4Addr>,
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
        /// Its network access identifier, which sessions need.
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
    let home = *node.home_address;
    let is_network =
        prefix.prefix_len() < 31 && (home == prefix.address() || home == prefix.broadcast());
    if !prefix.contains(home) || is_network {
        problems.add(
            node.home_address.span(),
            format!("{home} is no host's address in the home prefix {prefix}"),
            "write an address that the home agent serves",
        );
    }
    if *node.encapsulation == PreferredEncapsulationName::Udp && !*node.co_located {
        problems.add(
            node.encapsulation.span(),
            "UDP tunnels are between a co-located address and the home agent, and there is none",
            "write `co_located = true`, or another encapsulation",
        );
    }
    if home == *node.home_agent {
        problems.add(
            node.home_agent.span(),
            "the home agent has the mobile node's home address",
            "write the address of the home agent",
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
        interface: (*node.interface).clone(),
        tunnel: (*node.tunnel).clone(),
        mss_clamp: *node.mss_clamp,
        lan,
        node: MobileNodeConfig {
            home_address: home,
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
    let home = *node.home_address;
    let prefix = prefix.0;
    LanConfig {
        interface: (*lan.interface).clone(),
        prefix,
        router: if prefix.contains(home) { home } else { first_host(prefix) },
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
mod tests {
    use super::*;
    use homeport_proto::ReverseTunnel;
    use homeport_proto::config::PreferredEncapsulation;
    use std::os::unix::fs::PermissionsExt;

    const RIGHT: &str = r#"
[mobile_node]
interface = "eth0"
home_address = "10.1.0.10"
home_prefix = "10.1.0.0/24"
home_agent = "10.0.1.2"
lifetime = "60s"
reverse_tunnel = "encapsulating"
[[mobile_node.security_association]]
home_agent = "10.0.1.2"
spi = 256
key_file = "mn.key"
"#;

    const LAN: &str = r#"
[mobile_node]
interface = "eth0"
home_address = "10.1.0.10"
home_prefix = "10.1.0.0/24"
home_agent = "10.0.1.2"
nai = "phone@train.example"
[mobile_node.lan]
interface = "lan0"
[[mobile_node.security_association]]
home_agent = "10.0.1.2"
spi = 256
key_file = "mn.key"
"#;

    /// Checks `text` beside a key file of this mode.
    fn parse_beside(text: &str, mode: u32) -> Result<Config, ConfigErrors> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("homeport-mn-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let key = folder.join("mn.key");
        std::fs::write(&key, "000102030405060708090a0b0c0d0e0f").unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let result = Config::parse(text, &folder.join("mn.toml"));
        std::fs::remove_dir_all(&folder).unwrap();
        result
    }

    /// The one error of the file, as `line:column: message; help`.
    fn error(text: &str) -> String {
        let errors = parse_beside(text, 0o600).unwrap_err();
        let [problem] = &errors.problems[..] else { panic!("{errors}") };
        format!("{}:{}: {}; {}", problem.line, problem.column, problem.message, problem.help)
    }

    #[test]
    fn what_is_written_is_what_the_node_is_told_and_the_rest_has_defaults() {
        let config = parse_beside(RIGHT, 0o600).unwrap();
        assert_eq!(config.interface, "eth0");
        assert_eq!(config.tunnel, "hp-mn");
        assert_eq!(config.admin_socket, Path::new("/run/homeport/mn.sock"));
        assert_eq!(config.node.lifetime, Lifetime(60));
        assert_eq!(config.node.reverse_tunnel, ReverseTunnel::Encapsulating);
        assert!(config.node.co_located);
        assert_eq!(config.node.encapsulation, PreferredEncapsulation::IpInIp);
        assert!(config.node.nat_traversal && !config.mss_clamp);
        assert_eq!(config.node.security.agents().count(), 1);
        assert_eq!(config.node.nai, None);
        assert_eq!(config.node.session_carriage, SessionCarriage::Separate);
    }

    // Shows 5944-1.6-b, 5944-3.6-a.
    #[test]
    fn each_slip_is_named_with_its_place_and_what_to_write() {
        let slips = [
            ("lifetime = \"60s\"", "lifetme = \"60s\"", "7:1:", "`lifetime`"),
            ("\"60s\"", "\"0s\"", "7:12:", "10m"),
            ("\"60s\"", "60", "7:12:", "\""),
            ("\"10.1.0.10\"", "\"10.9.0.10\"", "4:16:", "home agent serves"),
            ("\"10.1.0.10\"", "\"10.1.0.255\"", "4:16:", "home agent serves"),
            ("\"10.1.0.0/24\"", "\"10.1.0.1/24\"", "5:15:", "10.1.0.0/24"),
            ("\"eth0\"", "\"a/b\"", "3:13:", "15 characters"),
            ("\"eth0\"", "\"hp-mn\"", "2:1:", "another"),
            ("\"encapsulating\"", "\"encapsulated\"", "8:18:", "did you mean"),
            ("lifetime = \"60s\"", "encapsulation = \"gra\"", "7:17:", "did you mean \"gre\""),
            ("lifetime = \"60s\"", "encapsulation = \"plain-udp\"", "7:17:", "write one of"),
            (
                "lifetime = \"60s\"",
                "encapsulation = \"udp\"\nco_located = false",
                "7:17:",
                "co_located",
            ),
            ("lifetime = \"60s\"", "nat_traversal = \"on\"", "7:17:", "true"),
            ("spi = 256", "spi = 255", "11:7:", "256 or more"),
            ("\"mn.key\"", "\"no.key\"", "12:12:", "make one"),
            (
                "[[mobile_node.security_association]]\nhome_agent = \"10.0.1.2\"",
                "[[mobile_node.security_association]]\nhome_agent = \"10.0.1.3\"",
                "6:14:",
                "add [[mobile_node.security_association]]",
            ),
        ];
        for (right, wrong, place, help) in slips {
            let text = RIGHT.replacen(right, wrong, 1);
            assert_ne!(text, RIGHT, "{right}");
            let error = error(&text);
            assert!(error.starts_with(place) && error.contains(help), "{wrong}: {error}");
        }
    }

    #[test]
    fn tunnels_are_asked_for_as_written() {
        let text = RIGHT.replacen(
            "lifetime = \"60s\"",
            "encapsulation = \"udp\"\nnat_traversal = false\nmss_clamp = true",
            1,
        );
        let config = parse_beside(&text, 0o600).unwrap();
        assert_eq!(config.node.encapsulation, PreferredEncapsulation::Udp);
        assert!(!config.node.nat_traversal && config.mss_clamp);
    }

    #[test]
    fn a_lan_has_defaults_and_a_router_in_its_prefix() {
        let config = parse_beside(LAN, 0o600).unwrap();
        assert_eq!(config.node.nai.as_deref(), Some(&b"phone@train.example"[..]));
        let lan = config.lan.unwrap();
        let expected = LanConfig {
            interface: "lan0".into(),
            prefix: Prefix::new(Ipv4Addr::new(10, 1, 0, 0), 24).unwrap(),
            router: Ipv4Addr::new(10, 1, 0, 10),
            sub_nai: SubNaiRule::ClientId,
            lease: Duration::from_secs(120),
            max_devices: 64,
            probe: Duration::from_secs(30),
            name_servers: vec![],
        };
        assert_eq!(lan, expected);
        let more = "interface = \"lan0\"\nprefix = \"10.7.0.0/16\"\nsub_nai = \"host-name\"\n\
                    name_servers = [\"192.0.2.53\"]";
        let lan = parse_beside(&LAN.replacen("interface = \"lan0\"", more, 1), 0o600).unwrap();
        let lan = lan.lan.unwrap();
        assert_eq!((lan.router, lan.sub_nai), (Ipv4Addr::new(10, 7, 0, 1), SubNaiRule::HostName));
        assert_eq!(lan.name_servers, [Ipv4Addr::new(192, 0, 2, 53)]);
        assert_eq!(parse_beside(RIGHT, 0o600).unwrap().lan, None);
    }

    const KNOWS_THE_NAI: &str = "[[mobile_node.security_association]]\n\
        foreign_agent = \"10.0.2.2\"\nnai = \"phone@Train.EXAMPLE\"\nspi = 257\nkey_file = \"mn.key\"\n";

    #[test]
    fn a_foreign_agent_may_know_the_node_by_its_nai() {
        let agent = Ipv4Addr::new(10, 0, 2, 2);
        for (section, by_nai) in [
            (KNOWS_THE_NAI.to_owned(), true),
            (KNOWS_THE_NAI.replace("nai = \"phone@Train.EXAMPLE\"\n", ""), false),
        ] {
            let config = parse_beside(&format!("{LAN}{section}"), 0o600).unwrap();
            assert!(config.node.security.first_agent(agent).is_some());
            assert_eq!(config.node.agents_by_nai.contains(&agent), by_nai);
        }
        let own = "nai = \"phone@train.example\"\n";
        for (text, place, help) in [
            (
                format!("{LAN}{}", KNOWS_THE_NAI.replace("phone@", "tablet@")),
                "16:7: nai: this node is phone@train.example;",
                "write nai = \"phone@train.example\", or leave it away",
            ),
            (
                LAN.replace("spi = 256", &format!("{own}spi = 256")),
                "12:7: nai: it says of a foreign agent that",
                "beside foreign_agent",
            ),
            (
                format!("{RIGHT}{KNOWS_THE_NAI}"),
                "15:7: nai: this node has none",
                "add nai = \"phone@Train.EXAMPLE\" to [mobile_node]",
            ),
        ] {
            let error = error(&text);
            assert!(error.starts_with(place) && error.contains(help), "{error}");
        }
    }

    #[test]
    fn each_slip_about_sessions_is_named_with_its_place_and_what_to_write() {
        let long = format!("\"{}\"", "n".repeat(254));
        let below = |line: &str| format!("interface = \"lan0\"\n{line}");
        let slips = [
            ("\"phone@train.example\"", "\"\"".to_owned(), "7:7:", "write a word"),
            ("\"phone@train.example\"", long, "7:7:", "shorter"),
            ("nai = \"phone@train.example\"", String::new(), "9:13:", "add nai"),
            ("\"lan0\"", "\"eth0\"".to_owned(), "9:13:", "devices are on"),
            ("\"lan0\"", "\"hp-mn\"".to_owned(), "9:13:", "devices are on"),
            ("\"lan0\"", "\"l n\"".to_owned(), "9:13:", "15 characters"),
            ("interface = \"lan0\"", below("prefix = \"10.1.0.0/31\""), "10:10:", "8 to 30"),
            ("interface = \"lan0\"", below("lease = \"19s\""), "10:9:", "20s"),
            ("interface = \"lan0\"", below("probe = \"999ms\""), "10:9:", "1s"),
            ("interface = \"lan0\"", below("max_devices = 0"), "10:15:", "1024"),
            ("interface = \"lan0\"", below("max_devices = 1025"), "10:15:", "1024"),
            ("interface = \"lan0\"", below("sub_nai = \"hostname\""), "10:11:", "host-name"),
            ("interface = \"lan0\"", below("leese = \"2m\""), "10:1:", "`lease`"),
            ("nai = ", "session_carriage = \"both\"\nnai = ".to_owned(), "7:20:", "combined"),
        ];
        for (right, wrong, place, help) in slips {
            let text = LAN.replacen(right, &wrong, 1);
            assert_ne!(text, LAN, "{right}");
            let error = error(&text);
            assert!(error.starts_with(place) && error.contains(help), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        let errors = parse_beside(RIGHT, 0o640).unwrap_err();
        assert!(errors.problems[0].help.contains("chmod 600"), "{errors}");
    }
}
