//! From what was written to a [`Config`] that holds: names resolved, addresses
//! on ports, networks apart, keys read.
//!
//! Each check notes what is wrong and goes on, so that a person sees all at once.
//! Where the file could not be read whole, names and addresses are not looked up:
//! what they name may be in the part that is missing.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use homeport_dataplane::packet::DATA_ROOM;
use homeport_dataplane::port::af_xdp::XdpMode;
use homeport_proto::{PortId, TenantId};
use toml::de::DeTable;

use super::file::{DaemonSection, File, ForeignAgentSection, PortSection, RouteSection};
use super::problem::Problems;
use super::read::{At, nearest};
use super::value::{BackendKind, Name, XdpModeName};
use super::{Backend, Config, ConfigErrors, Daemon, Named, Port, Route, key_file};
use crate::history::MAX_REMEMBERED_NODES;

/// The longest name that Linux gives an interface, in bytes.
const MAX_INTERFACE_NAME: usize = 15;
/// The longest path of a unix socket, in bytes (sun_path without its NUL).
const MAX_SOCKET_PATH: usize = 107;
/// The smallest MTU of an IPv4 link (RFC 791 §3.2).
const MIN_MTU: u16 = 68;
/// The largest, so that a frame with a VLAN tag fits into a packet buffer.
const MAX_MTU: usize = DATA_ROOM - 18;
/// More than a box has; every port is polled, and is a label of metrics.
const MAX_PORTS: usize = 256;
/// More than network cards have.
const MAX_QUEUES: u32 = 256;

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

    /// Checks a `text` as if it stood in the file at `path`, and reads the key
    /// files that it names.
    ///
    /// # Errors
    /// Every error in it.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigErrors> {
        let mut problems = Problems::default();
        let file = read_file(text, &mut problems);
        let config = file.and_then(|file| {
            let directory = path.parent().unwrap_or(Path::new(""));
            let complete = problems.is_empty();
            Checker { directory, complete, problems: &mut problems, keys: BTreeMap::new() }
                .check(file, path)
        });
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems.into_errors(path, text)),
        }
    }
}

/// The sections of `text`; `None` when it is no TOML.
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

/// What the checks of one file share.
pub(super) struct Checker<'a> {
    pub(super) directory: &'a Path,
    pub(super) complete: bool,
    pub(super) problems: &'a mut Problems,
    pub(super) keys: BTreeMap<String, key_file::Secret>,
}

impl Checker<'_> {
    fn check(mut self, file: File, path: &Path) -> Option<Config> {
        let daemon = self.daemon(file.daemon.as_ref());
        let dataplane = self.dataplane(file.dataplane.as_ref());
        let ports = self.ports(&file.port);
        let routes = self.routes(&file.route, &ports);
        self.agent_names(&file);
        let (mut seen, mut behind) = (Vec::new(), HashSet::new());
        let home_agents: Vec<_> = file
            .home_agent
            .iter()
            .filter_map(|at| self.home_agent(at, &ports, &mut seen, &mut behind))
            .collect();
        let napt_names: Vec<&str> = file.napt.iter().map(|at| at.name.0.as_str()).collect();
        let foreign_agents: Vec<_> = file
            .foreign_agent
            .iter()
            .filter_map(|at| self.foreign_agent(at, &ports, &napt_names))
            .collect();
        self.agent_addresses(&file);
        let advertisers = file
            .advertiser
            .iter()
            .filter_map(|at| self.advertiser(at, &ports, &home_agents, &foreign_agents))
            .collect();
        self.distinct(file.advertiser.iter().map(|at| (&*at.port, at.port.span())), |port| {
            (format!("the port {port} has two advertisers"), "name both agents in one".into())
        });
        let named = file.foreign_agent.iter().flat_map(ForeignAgentSection::napts).collect();
        let napts = self.napts(&file.napt, &ports, &named);
        Some(Config {
            path: path.into(),
            daemon: daemon?,
            dataplane: dataplane?,
            ports,
            routes,
            home_agents,
            foreign_agents,
            advertisers,
            napts,
            file,
            keys: self.keys,
        })
    }

    fn daemon(&mut self, section: Option<&DaemonSection>) -> Option<Daemon> {
        let section = match section {
            Some(section) => section.clone(),
            None => DaemonSection::from_table(&DeTable::new(), 0..0, self.problems)?,
        };
        let socket = &section.admin_socket;
        if !socket.is_absolute() || socket.as_os_str().len() > MAX_SOCKET_PATH {
            self.problems.add(
                socket.span(),
                format!("a socket's path begins with / and has at most {MAX_SOCKET_PATH} bytes"),
                "write it as in \"/run/homeport/ha.sock\"",
            );
        }
        self.within(&section.remembered_nodes, 0..=MAX_REMEMBERED_NODES, "remembered_nodes");
        if let Some(folder) = section.state_dir.as_ref().filter(|folder| !folder.is_absolute()) {
            let help = "write it from the root on, as in \"/var/lib/homeport\"";
            let message = format!("state_dir: \"{}\" does not begin with /", folder.display());
            self.problems.add(folder.span(), message, help);
        }
        Some(Daemon {
            admin_socket: PathBuf::clone(socket),
            metrics: section.metrics.as_deref().copied(),
            log: section.log.0.clone(),
            remembered_nodes: *section.remembered_nodes,
            state_dir: section.state_dir.as_deref().cloned(),
        })
    }

    fn ports(&mut self, sections: &[PortSection]) -> Vec<Port> {
        if sections.is_empty() && self.complete {
            self.problems.add(0..0, "there is no port", "add a [[port]] section");
        }
        if let Some(beyond) = sections.get(MAX_PORTS) {
            let help = "run another homeportd for the rest";
            self.problems.add(beyond.name.span(), format!("more than {MAX_PORTS} ports"), help);
        }
        let ports: Vec<_> = (0..=u16::MAX)
            .zip(sections)
            .filter_map(|(id, section)| self.port(PortId(id), section))
            .collect();
        let names = sections.iter().map(|at| (&*at.name, at.name.span()));
        let distinct = self.distinct(names, |name| {
            (format!("two ports have the name \"{name}\""), "give each its own".into())
        });
        // What a missing or ambiguous port would make wrong is not worth telling.
        self.complete &= distinct && ports.len() == sections.len();
        let devices = sections.iter().filter_map(|at| at.interface.as_ref().or(at.device.as_ref()));
        self.distinct(devices.map(|device| (&**device, device.span())), |device| {
            (format!("two ports are on {device}"), "one interface or device makes one port".into())
        });
        let addresses = sections.iter().flat_map(|at| &at.addresses);
        self.distinct(addresses.map(|at| (at.address, at.span())), |address| {
            (format!("{address} stands on two ports"), "leave it on one of them".into())
        });
        let has_twin = |section: &&PortSection| *section.backend != BackendKind::AfXdp;
        let names = sections.iter().filter(has_twin).map(|section| match &section.kernel_twin {
            Some(twin) => (twin.to_string(), twin.span()),
            None => (format!("hp-{}", *section.name), section.name.span()),
        });
        self.distinct(names, |twin| {
            (
                format!("two kernel twins are called {twin}"),
                "set kernel_twin to another name".into(),
            )
        });
        ports
    }

    fn port(&mut self, id: PortId, section: &PortSection) -> Option<Port> {
        let kernel_interface = self.kernel_interface(section);
        self.within(&section.mtu, MIN_MTU..=u16::try_from(MAX_MTU).unwrap_or(u16::MAX), "mtu");
        for address in &section.addresses {
            if address.prefix_len == 0 {
                let help = format!("write \"{}/24\" if the network has 24 bits", address.address);
                self.problems.add(address.span(), "a link's prefix has at least one bit", help);
            }
        }
        Some(Port {
            id,
            name: section.name.0.clone(),
            tenant: TenantId(*section.tenant),
            backend: self.backend(section)?,
            mtu: *section.mtu,
            kernel_interface,
            addresses: section.addresses.iter().map(|address| **address).collect(),
        })
    }

    /// The name of the port's twin, or of its own interface.
    fn kernel_interface(&mut self, section: &PortSection) -> String {
        if *section.backend == BackendKind::AfXdp {
            if let Some(twin) = &section.kernel_twin {
                let message = "a port of backend af_xdp has no kernel twin";
                let help = "take the key away: the kernel keeps the interface itself";
                self.problems.add(twin.span(), message, help);
            }
            return section.interface.as_ref().map(|at| at.to_string()).unwrap_or_default();
        }
        let twin = section.kernel_twin.as_ref();
        let kernel_twin =
            twin.map_or_else(|| format!("hp-{}", *section.name), |twin| twin.to_string());
        if !is_interface_name(&kernel_twin) {
            let (span, help) = match twin {
                Some(twin) => (twin.span(), "write a shorter name".to_owned()),
                None => {
                    let name = kernel_twin.get(..MAX_INTERFACE_NAME).unwrap_or("hp-0");
                    (
                        section.name.span(),
                        format!("set kernel_twin = \"{name}\", or shorten the port's name"),
                    )
                }
            };
            let message = format!(
                "the kernel twin's name \"{kernel_twin}\" has {} bytes, and Linux allows {MAX_INTERFACE_NAME}",
                kernel_twin.len()
            );
            let message = if kernel_twin.len() > MAX_INTERFACE_NAME {
                message
            } else {
                format!("Linux gives no interface the name \"{}\"", kernel_twin.escape_debug())
            };
            self.problems.add(span, message, help);
        }
        if let Some(interface) = &section.interface
            && **interface == kernel_twin
        {
            let span = twin.map_or(section.name.span(), At::span);
            let message = format!("the kernel twin has the name of the interface {kernel_twin}");
            self.problems.add(span, message, "set kernel_twin to another name");
        }
        kernel_twin
    }

    fn backend(&mut self, section: &PortSection) -> Option<Backend> {
        let kind = *section.backend;
        let (wanted, stray, key, stray_key, example) = match kind {
            BackendKind::AfPacket | BackendKind::AfXdp => {
                (&section.interface, &section.device, "interface", "device", "eth0")
            }
            BackendKind::Dpdk => {
                (&section.device, &section.interface, "device", "interface", "0000:01:00.0")
            }
        };
        let word = kind.word();
        if let Some(stray) = stray {
            let message = format!("a port of backend {word} has no `{stray_key}`");
            self.problems.add(
                stray.span(),
                message,
                format!("write {key} = \"{example}\" instead"),
            );
        }
        self.xdp_keys(section);
        if kind == BackendKind::Dpdk && !cfg!(feature = "dpdk") {
            self.problems.add(
                section.backend.span(),
                "this build of Homeport has no DPDK",
                "use \"af_packet\", or a build with the feature dpdk",
            );
        }
        let Some(wanted) = wanted else {
            if stray.is_none() {
                let message = format!("a port of backend {word} needs the key `{key}`");
                self.problems.add(
                    section.backend.span(),
                    message,
                    format!("add {key} = \"{example}\""),
                );
            }
            return None;
        };
        match kind {
            BackendKind::AfPacket | BackendKind::AfXdp if !is_interface_name(wanted) => {
                let message = format!("\"{}\" is no interface's name", wanted.escape_debug());
                let help = "write a name that `ip link` shows, as in \"eth0\"";
                self.problems.add(wanted.span(), message, help);
                None
            }
            BackendKind::AfPacket => Some(Backend::AfPacket { interface: wanted.to_string() }),
            BackendKind::AfXdp => Some(Backend::AfXdp {
                interface: wanted.to_string(),
                queues: section.queues.as_deref().copied(),
                mode: match section.xdp_mode.as_deref() {
                    None | Some(XdpModeName::Auto) => XdpMode::Auto,
                    Some(XdpModeName::Native) => XdpMode::Native,
                    Some(XdpModeName::Generic) => XdpMode::Generic,
                    Some(XdpModeName::ZeroCopy) => XdpMode::ZeroCopy,
                },
            }),
            BackendKind::Dpdk => Some(Backend::Dpdk { device: wanted.to_string() }),
        }
    }

    /// The keys that only af_xdp ports have.
    fn xdp_keys(&mut self, section: &PortSection) {
        if *section.backend == BackendKind::AfXdp {
            if let Some(queues) = &section.queues {
                self.within(queues, 1..=MAX_QUEUES, "queues");
            }
            return;
        }
        let word = section.backend.word();
        let queues = section.queues.as_ref().map(|at| ("queues", at.span()));
        let mode = section.xdp_mode.as_ref().map(|at| ("xdp_mode", at.span()));
        for (key, span) in queues.into_iter().chain(mode) {
            let message = format!("a port of backend {word} has no `{key}`");
            self.problems.add(span, message, "take the key away, or write backend = \"af_xdp\"");
        }
    }

    fn routes(&mut self, sections: &[RouteSection], ports: &[Port]) -> Vec<Route> {
        self.distinct(sections.iter().map(|at| (at.destination.0, at.destination.span())), |to| {
            (format!("two routes go to {to}"), "leave one of them".into())
        });
        let mut routes = Vec::new();
        for section in sections {
            let gateway = *section.gateway;
            let port = ports.iter().find(|port| {
                port.addresses.iter().any(|at| {
                    at.address != gateway && at.prefix().is_some_and(|on| on.contains(gateway))
                })
            });
            match port {
                Some(port) => routes.push(Route {
                    destination: section.destination.0,
                    gateway,
                    port: port.id,
                }),
                None if self.complete => {
                    let links = ports.iter().flat_map(|port| &port.addresses);
                    let links: Vec<_> = links.filter_map(|at| at.prefix()).collect();
                    self.problems.add(
                        section.gateway.span(),
                        format!("the gateway {gateway} is on the link of no port"),
                        format!("write a neighbour's address on one of: {}", join(&links)),
                    );
                }
                None => {}
            }
        }
        routes
    }

    pub(super) fn find_port<'p>(&mut self, name: &At<Name>, ports: &'p [Port]) -> Option<&'p Port> {
        let found = ports.iter().find(|port| port.name == name.0);
        if found.is_none() && self.complete {
            let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
            self.unknown_name(name, "port", &names);
        }
        found
    }

    pub(super) fn find_agent<'p, T>(
        &mut self,
        name: &At<Name>,
        agents: &'p [Named<T>],
        kind: &str,
    ) -> Option<&'p T> {
        let found = agents.iter().find(|agent| agent.name == name.0);
        if found.is_none() && self.complete {
            let names: Vec<&str> = agents.iter().map(|agent| agent.name.as_str()).collect();
            self.unknown_name(name, kind, &names);
        }
        found.map(|agent| &agent.config)
    }

    pub(super) fn unknown_name(&mut self, name: &At<Name>, kind: &str, names: &[&str]) {
        let help = match nearest(&name.0, names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if names.is_empty() => format!("add a {kind} of that name"),
            None => format!("write one of \"{}\"", names.join("\", \"")),
        };
        self.problems.add(name.span(), format!("there is no {kind} \"{}\"", **name), help);
    }

    pub(super) fn first_address<'p>(
        &mut self,
        port: &'p Port,
        span: Range<usize>,
    ) -> Option<&'p super::InterfaceAddress> {
        let first = port.addresses.first();
        if first.is_none() && self.complete {
            self.problems.add(
                span,
                format!("the port \"{}\" has no address for an agent to speak from", port.name),
                "give that [[port]] one, as in addresses = [\"10.0.2.2/24\"]",
            );
        }
        first
    }

    pub(super) fn on_a_port(&mut self, address: &At<Ipv4Addr>, what: &str, ports: &[Port]) {
        let mut own = ports.iter().flat_map(|port| &port.addresses);
        if own.any(|at| at.address == **address) || !self.complete {
            return;
        }
        let link = ports.iter().find_map(|port| {
            let at = port
                .addresses
                .iter()
                .find(|at| at.prefix().is_some_and(|on| on.contains(**address)));
            at.map(|at| (port, at.prefix_len))
        });
        let help = match link {
            Some((port, len)) => {
                format!(
                    "add \"{}/{len}\" to the addresses of the port \"{}\"",
                    **address, port.name
                )
            }
            None => {
                let own: Vec<_> =
                    ports.iter().flat_map(|port| &port.addresses).map(|at| at.address).collect();
                format!("add it to a port's addresses, or write one of: {}", join(&own))
            }
        };
        self.problems.add(address.span(), format!("{what} {} is on no port", **address), help);
    }

    pub(super) fn reverse_tunnel(&mut self, require: &At<bool>, offer: &At<bool>) {
        if **require && !**offer {
            self.problems.add(
                require.span(),
                "reverse tunnels are required and not offered",
                "write reverse_tunnel = true, or require_reverse_tunnel = false",
            );
        }
    }

    pub(super) fn within<T: PartialOrd + std::fmt::Display>(
        &mut self,
        value: &At<T>,
        range: std::ops::RangeInclusive<T>,
        key: &str,
    ) {
        if !range.contains(value) {
            self.problems.add(
                value.span(),
                format!("{key} cannot be {}", **value),
                format!("write a number from {} to {}", range.start(), range.end()),
            );
        }
    }

    /// Notes each value that stood before; whether there was none.
    pub(super) fn distinct<T: Hash + Eq>(
        &mut self,
        values: impl Iterator<Item = (T, Range<usize>)>,
        words: impl Fn(&T) -> (String, String),
    ) -> bool {
        let mut distinct = true;
        let mut seen = HashSet::new();
        for (value, span) in values {
            if seen.contains(&value) {
                let (message, help) = words(&value);
                self.problems.add(span, message, help);
                distinct = false;
            } else {
                seen.insert(value);
            }
        }
        distinct
    }
}

/// Whether Linux lets an interface be called so.
fn is_interface_name(name: &str) -> bool {
    (1..=MAX_INTERFACE_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && name.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != ':')
}

fn join<T: ToString>(values: &[T]) -> String {
    let texts: Vec<String> = values.iter().map(T::to_string).collect();
    texts.join(", ")
}
