//! homeport-mn's config file.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use homeport_dataplane::port::interface::NAME_LEN;
use homeport_proto::Lifetime;
use homeport_proto::config::MobileNodeConfig;
use toml::de::DeTable;

use crate::config::ConfigErrors;
use crate::config::file::SecurityAssociationSection;
use crate::config::problem::Problems;
use crate::config::read::{At, section};
use crate::config::security::{Owner, security_associations};
use crate::config::value::{LifetimeText, LogFilter, Network, ReverseTunnelName, Span};

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
        /// The lifetime to ask for.
        lifetime: At<LifetimeText> = LifetimeText(Lifetime(600)),
        /// How its own packets go back.
        reverse_tunnel: At<ReverseTunnelName> = ReverseTunnelName::Direct,
        /// Whether an address by DHCP is used where no agent answers.
        co_located: At<bool> = true,
        /// How long an agent is waited for before that.
        agent_wait: At<Span> = Span(std::time::Duration::from_millis(30)),
        /// Whom it shares keys with.
        security_association: Vec<SecurityAssociationSection>,
    }
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
    let directory = path.parent().unwrap_or(Path::new(""));
    let security = security_associations(
        &node.security_association,
        Owner::MobileNode,
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
        node: MobileNodeConfig {
            home_address: home,
            home_prefix: prefix,
            home_agent: *node.home_agent,
            lifetime: node.lifetime.0,
            reverse_tunnel: (*node.reverse_tunnel).into(),
            co_located: *node.co_located,
            agent_wait: node.agent_wait.0,
            security,
        },
    })
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
