//! A config file is accepted as it was meant, or refused with every error where
//! it stands. (B-08)

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use homeport_dataplane::port::af_xdp::XdpMode;
use homeport_proto::config::Profile;
use homeport_proto::security::{Algorithm, ReplayProtection, Spi};
use homeport_proto::{Lifetime, PortId, TenantId};

use super::{Backend, Config, ConfigErrors, Effect, PollMode, Problem, diff};
use crate::admin::api::RefusalKind;

/// The example of the documentation, whole.
pub(super) const GOOD: &str = r#"[daemon]
admin_socket = "/run/homeport/ha.sock"
metrics = "127.0.0.1:9434"
log = "info"

[dataplane]
poll = "busy"
cores = [0]
share_control_core = true
buffers = 4096

[[port]]
name = "core"
backend = "af_packet"
interface = "eth0"
addresses = ["10.0.1.2/24"]

[[port]]
name = "home"
backend = "af_packet"
interface = "eth1"
mtu = 1400
kernel_twin = "home-twin"
addresses = ["10.1.0.1/24"]

[[port]]
name = "visited"
backend = "af_packet"
interface = "eth2"
addresses = ["10.0.2.2/24"]

[[route]]
destination = "0.0.0.0/0"
gateway = "10.0.1.1"

[[home_agent]]
name = "ha"
address = "10.0.1.2"
profile = "rfc2002"
max_lifetime = "600s"
max_bindings = 1000
[[home_agent.home_network]]
prefix = "10.1.0.0/24"
port = "home"
[[home_agent.security_association]]
mobile_node = "10.1.0.10"
spi = 256
algorithm = "hmac-sha256"
key_file = "keys/mn1.key"
replay = "timestamps"
tolerance = "5s"
[[home_agent.security_association]]
foreign_agent = "10.0.2.2"
spi = 0x101
key_file = "keys/mn1.key"
replay = "nonces"

[[foreign_agent]]
name = "fa1"
care_of_address = "10.0.2.2"
ports = ["visited"]
max_lifetime = "5m"
encapsulating_delivery = false

[[advertiser]]
port = "visited"
foreign_agent = "fa1"
interval = "2s"

[[advertiser]]
port = "home"
home_agent = "ha"
"#;

/// A directory with `keys/mn1.key` in it, gone when dropped.
pub(super) struct Room(PathBuf);

impl Room {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("homeport-config-{}-{number}", std::process::id());
        let room = Room(std::env::temp_dir().join(name));
        std::fs::create_dir_all(room.0.join("keys")).unwrap();
        room.key("mn1.key", "000102030405060708090a0b0c0d0e0f\n", 0o600);
        room
    }

    fn key(&self, name: &str, text: &str, mode: u32) {
        let path = self.0.join("keys").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(super) fn parse(&self, text: &str) -> Result<Config, ConfigErrors> {
        Config::parse(text, &self.0.join("ha.toml"))
    }

    /// The one problem of the good file with `from` replaced by `to`; and that it
    /// stands where `to` has its part `wrong`.
    pub(super) fn only_problem(&self, from: &str, to: &str, wrong: &str) -> Problem {
        assert_eq!(GOOD.matches(from).count(), 1, "{from} must stand once in the good file");
        let text = GOOD.replace(from, to);
        let errors = self.parse(&text).unwrap_err();
        assert_eq!(errors.problems.len(), 1, "{errors}");
        let problem = errors.problems[0].clone();
        let at = GOOD.find(from).unwrap() + to.find(wrong).unwrap();
        let line = text[..at].matches('\n').count() + 1;
        let column = at - text[..at].rfind('\n').map_or(0, |newline| newline + 1) + 1;
        assert_eq!((problem.line, problem.column), (line, column), "{problem}");
        assert_eq!(problem.offset, at);
        problem
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn says(problem: &Problem, message: &str, help: &str) {
    assert_eq!((problem.message.as_str(), problem.help.as_str()), (message, help));
}

// Shows 5944-3.7.1-a, 5944-3.8.1-a, 5944-3.8.1-b.
#[test]
fn the_example_is_read_as_it_was_meant() {
    let room = Room::new();
    let config = room.parse(GOOD).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.daemon.admin_socket, Path::new("/run/homeport/ha.sock"));
    assert_eq!(config.daemon.metrics, Some("127.0.0.1:9434".parse().unwrap()));
    assert_eq!(config.dataplane.poll, PollMode::Busy);
    assert_eq!((config.dataplane.cores.as_slice(), config.dataplane.buffers), (&[0][..], 4096));
    let [core, home, visited] = config.ports.as_slice() else { panic!() };
    assert_eq!((core.id, home.id, visited.id), (PortId(0), PortId(1), PortId(2)));
    assert_eq!(core.backend, Backend::AfPacket { interface: "eth0".into() });
    assert_eq!((core.kernel_interface.as_str(), core.mtu), ("hp-core", 1500));
    assert_eq!((home.kernel_interface.as_str(), home.mtu), ("home-twin", 1400));
    assert_eq!(
        (config.routes[0].gateway, config.routes[0].port),
        (Ipv4Addr::new(10, 0, 1, 1), PortId(0))
    );

    let agents = config.agent_config();
    let ha = &agents.home_agents[0];
    assert_eq!((ha.tenant, ha.address), (TenantId(0), Ipv4Addr::new(10, 0, 1, 2)));
    assert_eq!(
        (ha.profile, ha.max_lifetime, ha.max_bindings),
        (Profile::Rfc2002, Lifetime(600), 1000)
    );
    assert_eq!(ha.home_networks[0].link, Some(PortId(1)));
    let node = ha.security.mobile_node(Ipv4Addr::new(10, 1, 0, 10), Spi(256)).unwrap();
    assert_eq!(node.algorithm, Algorithm::HmacSha256);
    assert_eq!(node.replay, ReplayProtection::Timestamps { tolerance: Duration::from_secs(5) });
    let key: Vec<u8> = (0..16).collect();
    let same = homeport_proto::security::MobilitySecurityAssociation {
        key: homeport_proto::security::Key::new(key),
        ..node.clone()
    };
    assert_eq!(node.authenticator(b"x").as_bytes(), same.authenticator(b"x").as_bytes());
    let agent = ha.security.agent(Ipv4Addr::new(10, 0, 2, 2), Spi(257)).unwrap();
    assert_eq!((agent.algorithm, agent.replay), (Algorithm::HmacMd5, ReplayProtection::Nonces));

    let fa = &agents.foreign_agents[0];
    assert_eq!(fa.links, [(PortId(2), Ipv4Addr::new(10, 0, 2, 2))]);
    assert_eq!((fa.max_lifetime, fa.pending_timeout), (Lifetime(300), Duration::from_secs(7)));
    assert!(fa.reverse_tunnel && !fa.encapsulating_delivery);

    let [visited, home] = agents.advertisers.as_slice() else { panic!() };
    assert_eq!((visited.port, visited.prefix_len, visited.home_agent), (PortId(2), 24, false));
    assert_eq!(visited.care_of_addresses, [Ipv4Addr::new(10, 0, 2, 2)]);
    assert_eq!(
        (visited.interval, visited.registration_lifetime),
        (Duration::from_secs(2), Lifetime(300))
    );
    assert!(home.home_agent && home.care_of_addresses.is_empty() && home.unsolicited);
    assert_eq!(home.registration_lifetime, Lifetime(600));
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    let room = Room::new();
    let problem = room.only_problem("max_bindings = 1000", "max_binding = 1000", "max_binding");
    says(&problem, "unknown key `max_binding` in [[home_agent]]", "did you mean `max_bindings`?");
    assert_eq!(problem.len, "max_binding".len());
    let problem = room.only_problem("mtu = 1400", "colour = 1400", "colour");
    assert_eq!(problem.message, "unknown key `colour` in [[port]]");
    assert!(problem.help.starts_with("[[port]] knows: name, tenant, backend, interface"));
    // A section of an unknown name is an unknown key of the file.
    let problem = room.only_problem("[dataplane]", "[datplane]", "datplane");
    says(&problem, "unknown key `datplane` in the file", "did you mean `dataplane`?");
}

#[test]
fn a_time_without_or_with_a_wrong_unit_says_what_to_write() {
    let room = Room::new();
    let lifetime = |to: &str| {
        let to = format!("max_lifetime = {to}");
        room.only_problem("max_lifetime = \"600s\"", &to, to.split_once("= ").unwrap().1)
    };
    let seconds = "write \"60s\" for seconds, \"60m\" for minutes";
    says(&lifetime("\"60\""), "60 of what? A time needs a unit", seconds);
    says(&lifetime("60"), "60 of what? A time needs a unit", seconds);
    says(&lifetime("\"60 minutes\""), "the unit \" minutes\" is not known", "write \"60m\"");
    says(&lifetime("\"5 h\""), "the unit \" h\" is not known", "write \"5h\"");
    let any = "write a number and a unit: \"30s\", \"10m\", \"5h\" or \"infinite\"";
    says(&lifetime("\"soon\""), "\"soon\" is no time", any);
    says(&lifetime("true"), "a time is wanted here, and this is of type boolean", any);
    let most = "write at most \"65534s\" (18h 12m), or \"infinite\"";
    says(&lifetime("\"65535s\""), "65535 s is longer than a registration can last", most);
    says(&lifetime("\"19h\""), "68400 s is longer than a registration can last", most);
    let whole = "a lifetime is a whole number of seconds, at least one";
    assert_eq!(lifetime("\"0s\"").message, whole);
    assert_eq!(lifetime("\"500ms\"").message, whole);
    let problem = room.only_problem("\"5s\"", "\"2s\"", "\"2s\"");
    assert_eq!(problem.message, "a tolerance of 2s refuses honest nodes");
    for good in ["\"65534s\"", "\"18h\"", "\"infinite\"", "\"3s\""] {
        room.parse(&GOOD.replace("\"600s\"", good)).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

#[test]
fn overlapping_home_networks_are_refused_within_a_tenant() {
    let room = Room::new();
    let second = |tenant: &str| {
        format!(
            "[[home_agent]]\nname = \"two\"\n{tenant}address = \"10.0.2.2\"\n\
             [[home_agent.home_network]]\nprefix = \"10.1.0.128/25\"\n\n[[foreign_agent]]\n"
        )
    };
    let problem = room.only_problem("[[foreign_agent]]\n", &second(""), "\"10.1.0.128/25\"");
    says(
        &problem,
        "the home network 10.1.0.128/25 overlaps 10.1.0.0/24 of the home agent \"ha\"",
        "give each home agent networks of its own, or each its own tenant",
    );
    // Tenants may use the same addresses; but one underlay address has one tenant.
    let other = GOOD
        .replace("[[foreign_agent]]\n", &second("tenant = 7\n"))
        .replace("name = \"fa1\"", "name = \"fa1\"\ntenant = 7");
    let config = room.parse(&other).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.home_agents[1].config.tenant, TenantId(7));
}

#[test]
fn a_missing_key_file_says_how_to_make_one() {
    let room = Room::new();
    let from = "key_file = \"keys/mn1.key\"\nreplay = \"timestamps\"";
    let problem = room.only_problem(from, "key_file = \"keys/no.key\"\n", "\"keys/no.key\"");
    assert_eq!(problem.message, format!("there is no key file {}/keys/no.key", room.0.display()));
    assert!(problem.help.starts_with("make one: (umask 077; od "), "{}", problem.help);
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let room = Room::new();
    let from = "key_file = \"keys/mn1.key\"\nreplay = \"timestamps\"";
    for mode in [0o640, 0o604, 0o660, 0o610] {
        room.key("open.key", "000102030405060708090a0b0c0d0e0f", mode);
        let problem =
            room.only_problem(from, "key_file = \"keys/open.key\"\n", "\"keys/open.key\"");
        let path = room.0.join("keys/open.key");
        says(
            &problem,
            &format!(
                "the key file {} has mode {mode:04o}: others than its owner may use it",
                path.display()
            ),
            &format!("run: chmod 600 {}", path.display()),
        );
    }
    room.key("open.key", "000102030405060708090a0b0c0d0e0f", 0o400);
    room.parse(&GOOD.replace("mn1.key", "open.key")).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn a_key_that_is_short_or_no_hex_is_refused_and_never_shown() {
    let room = Room::new();
    let from = "key_file = \"keys/mn1.key\"\nreplay = \"timestamps\"";
    for (text, wrong) in [
        ("00112233445566778899aabbccddee", "has 120 bits; RFC 5944 asks for 128 at least"),
        ("", "has 0 bits"),
        ("00112233445566778899aabbccddeef", "does not hold hexadecimal digits in pairs"),
        ("a secret phrase, not hex at all!", "does not hold hexadecimal digits in pairs"),
    ] {
        room.key("bad.key", text, 0o600);
        let problem = room.only_problem(from, "key_file = \"keys/bad.key\"\n", "\"keys/bad.key\"");
        assert!(problem.message.contains(wrong), "{problem}");
        assert!(text.is_empty() || !problem.to_string().contains(text), "{problem}");
    }
    let config = room.parse(GOOD).unwrap();
    for shown in [format!("{config:?}"), config.to_json().to_string()] {
        assert!(!shown.contains("0001020304") && !shown.contains("[0, 1, 2, 3"), "{shown}");
    }
}

#[test]
fn names_that_nobody_has_are_refused_with_the_nearest() {
    let room = Room::new();
    let problem = room.only_problem("port = \"visited\"", "port = \"visitor\"", "\"visitor\"");
    says(&problem, "there is no port \"visitor\"", "did you mean \"visited\"?");
    let problem = room.only_problem("port = \"home\"\n[[", "port = \"x\"\n[[", "\"x\"");
    says(&problem, "there is no port \"x\"", "write one of \"core\", \"home\", \"visited\"");
    let problem = room.only_problem("home_agent = \"ha\"", "home_agent = \"hb\"", "\"hb\"");
    says(&problem, "there is no home agent \"hb\"", "did you mean \"ha\"?");
    let problem = room.only_problem("foreign_agent = \"fa1\"", "foreign_agent = \"ha\"", "\"ha\"");
    says(&problem, "there is no foreign agent \"ha\"", "write one of \"fa1\"");
    let problem = room.only_problem("ports = [\"visited\"]", "ports = []", "[]");
    assert_eq!(problem.message, "a foreign agent needs a port");
    let problem = room.only_problem("name = \"home\"", "name = \"core\"", "\"core\"");
    assert_eq!(problem.message, "two ports have the name \"core\"");
}

#[test]
fn duplicate_names_and_addresses_are_refused_at_the_second() {
    let room = Room::new();
    let problem = room.only_problem("name = \"fa1\"", "name = \"ha\"", "\"ha\"");
    assert_eq!(problem.message, "two agents have the name \"ha\"");
    let problem = room.only_problem("\"eth1\"", "\"eth0\"", "\"eth0\"");
    assert_eq!(problem.message, "two ports are on eth0");
    let problem = room.only_problem("\"home-twin\"", "\"hp-core\"", "\"hp-core\"");
    assert_eq!(problem.message, "two kernel twins are called hp-core");
    let to = "spi = 257\nkey_file = \"keys/mn1.key\"\n[[home_agent.security_association]]\nforeign_agent = \"10.0.2.2\"\nspi = 0x101";
    let problem = room.only_problem("spi = 0x101", to, "0x101");
    assert_eq!(problem.message, "two associations with 10.0.2.2 have the SPI 257");
}

#[test]
fn addresses_that_are_on_no_port_are_refused() {
    let room = Room::new();
    let problem = room.only_problem(
        "address = \"10.0.1.2\"\nprofile",
        "address = \"10.0.1.9\"\nprofile",
        "\"10.0.1.9\"",
    );
    says(
        &problem,
        "the home agent's address 10.0.1.9 is on no port",
        "add \"10.0.1.9/24\" to the addresses of the port \"core\"",
    );
    let problem = room.only_problem(
        "care_of_address = \"10.0.2.2\"",
        "care_of_address = \"10.9.9.9\"",
        "\"10.9.9.9\"",
    );
    says(
        &problem,
        "the care-of address 10.9.9.9 is on no port",
        "add it to a port's addresses, or write one of: 10.0.1.2, 10.1.0.1, 10.0.2.2",
    );
    let problem =
        room.only_problem("gateway = \"10.0.1.1\"", "gateway = \"10.9.9.9\"", "\"10.9.9.9\"");
    assert_eq!(problem.message, "the gateway 10.9.9.9 is on the link of no port");
    let problem = room.only_problem(
        "mobile_node = \"10.1.0.10\"",
        "mobile_node = \"10.2.0.10\"",
        "\"10.2.0.10\"",
    );
    says(
        &problem,
        "the home address 10.2.0.10 is in no network of this home agent",
        "write an address of 10.1.0.0/24, or add its network",
    );
}

// Shows 5944-1.6-b.
#[test]
fn values_out_of_range_or_badly_written_say_what_to_write() {
    let room = Room::new();
    let problem = room.only_problem("spi = 256", "spi = 255", "255");
    assert_eq!(problem.message, "the SPI 255 is reserved (RFC 5944 §1.6)");
    let problem = room.only_problem("name = \"core\"", "name = \"the-core-of-all\"", "\"the-core");
    says(
        &problem,
        "the kernel twin's name \"hp-the-core-of-all\" has 18 bytes, and Linux allows 15",
        "set kernel_twin = \"hp-the-core-of-\", or shorten the port's name",
    );
    let problem = room.only_problem("\"10.1.0.0/24\"", "\"10.1.0.7/24\"", "\"10.1.0.7/24\"");
    says(
        &problem,
        "10.1.0.7/24 has bits beyond its 24",
        "write \"10.1.0.0/24\" for the network that it lies in",
    );
    let problem = room.only_problem("[\"10.1.0.1/24\"]", "[\"10.1.0.1\"]", "\"10.1.0.1\"");
    says(
        &problem,
        "\"10.1.0.1\" lacks the length of its prefix",
        "write \"10.1.0.1/24\" if the network has 24 bits",
    );
    let problem = room.only_problem("\"10.0.1.1\"", "\"224.0.0.1\"", "\"224.0.0.1\"");
    assert_eq!(problem.message, "224.0.0.1 is no address that a host can have");
    let problem = room.only_problem("poll = \"busy\"", "poll = \"bussy\"", "\"bussy\"");
    says(&problem, "\"bussy\" is not known here", "did you mean \"busy\"?");
    let problem = room.only_problem("buffers = 4096", "buffers = 8", "8");
    says(&problem, "buffers cannot be 8", "write a number from 256 to 1048576");
    let problem = room.only_problem("log = \"info\"", "log = \"verbose\"", "\"verbose\"");
    assert_eq!(problem.message, "\"verbose\" is no log level");
    let problem = room.only_problem("max_bindings = 1000", "max_bindings = \"1000\"", "\"1000\"");
    assert_eq!(problem.message, "a number is wanted here");
    let problem = room.only_problem("interval = \"2s\"", "interval = \"200ms\"", "\"200ms\"");
    assert_eq!(problem.help, "write a time from \"1s\" to \"30m\"");
    let from = "foreign_agent = \"10.0.2.2\"\nspi = 0x101\nkey_file = \"keys/mn1.key\"\n";
    let text = GOOD.replace(from, "foreign_agent = \"10.0.2.2\"\nspi = 0x101\n");
    let problem = room.parse(&text).unwrap_err().problems[0].clone();
    // It stands where the section begins, for the key stands nowhere.
    assert_eq!((problem.line, problem.column), (52, 1));
    assert_eq!(problem.message, "the security association lacks the key `key_file`");
}

#[test]
fn an_af_xdp_port_has_queues_and_a_mode_and_no_twin() {
    let room = Room::new();
    let old = "backend = \"af_packet\"\ninterface = \"eth1\"";
    let with = |keys: &str| {
        let text = format!("backend = \"af_xdp\"\ninterface = \"eth1\"\n{keys}");
        room.parse(&GOOD.replace(old, &text).replace("kernel_twin = \"home-twin\"\n", ""))
    };
    let config = with("queues = 4\nxdp_mode = \"native\"").unwrap();
    let port = &config.ports[1];
    let (interface, queues, mode) = ("eth1".into(), Some(4), XdpMode::Native);
    assert_eq!(port.backend, Backend::AfXdp { interface, queues, mode });
    assert_eq!((port.kernel_interface.as_str(), port.backend.is_shared()), ("eth1", true));
    let (interface, queues, mode) = ("eth1".into(), None, XdpMode::Auto);
    assert_eq!(with("").unwrap().ports[1].backend, Backend::AfXdp { interface, queues, mode });
    for (keys, message) in [
        ("queues = 0", "queues cannot be 0"),
        ("device = \"x\"", "a port of backend af_xdp has no `device`"),
        ("kernel_twin = \"x\"", "a port of backend af_xdp has no kernel twin"),
        ("xdp_mode = \"nativ\"", "\"nativ\" is not known here"),
    ] {
        let errors = with(keys).unwrap_err();
        assert_eq!(errors.problems[0].message, message);
    }
    let problem = room.only_problem(old, &format!("{old}\nqueues = 7"), "7");
    says(
        &problem,
        "a port of backend af_packet has no `queues`",
        "take the key away, or write backend = \"af_xdp\"",
    );
}

#[test]
fn a_port_has_what_its_backend_needs() {
    let room = Room::new();
    let problem = room.only_problem("interface = \"eth1\"", "device = \"0000:01:00.0\"", "\"0000");
    says(
        &problem,
        "a port of backend af_packet has no `device`",
        "write interface = \"eth0\" instead",
    );
    let dpdk = GOOD.replace(
        "backend = \"af_packet\"\ninterface = \"eth1\"",
        "backend = \"dpdk\"\ndevice = \"net_af_packet0,iface=eth1\"",
    );
    match room.parse(&dpdk) {
        Ok(config) if cfg!(feature = "dpdk") => {
            let device = "net_af_packet0,iface=eth1".into();
            assert_eq!(config.ports[1].backend, Backend::Dpdk { device });
        }
        Err(errors) if !cfg!(feature = "dpdk") => {
            assert_eq!(errors.problems[0].message, "this build of Homeport has no DPDK");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_error_is_told_in_the_order_of_the_file_with_its_source() {
    let room = Room::new();
    let text = GOOD
        .replace("poll = \"busy\"", "pol = \"busy\"")
        .replace("mtu = 1400", "mtu = 9")
        .replace("max_lifetime = \"600s\"", "max_lifetime = 600")
        .replace("spi = 256", "spi = 5");
    let errors = room.parse(&text).unwrap_err();
    let lines: Vec<usize> = errors.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [7, 22, 40, 47], "{errors}");
    let shown = errors.to_string();
    for expected in [
        "unknown key `pol` in [dataplane]",
        "did you mean `poll`?",
        "ha.toml:7:1]",
        "7 │ pol = \"busy\"",
        "mtu cannot be 9",
        "60 of what?",
        "4 errors",
    ] {
        let expected = expected.replace("60 of", "600 of");
        assert!(shown.contains(&expected), "{expected} is not in\n{shown}");
    }
}

#[test]
fn text_that_is_no_toml_is_refused_where_it_stops_making_sense() {
    let room = Room::new();
    let problem = room.only_problem("poll = \"busy\"", "poll = busy", "busy");
    assert!(problem.help.starts_with("in TOML texts stand in quotes"), "{problem}");
    let problem = room.only_problem("mtu = 1400", "mtu = 1400\nmtu = 1500", "mtu = 1500");
    assert!(problem.message.contains("duplicate key"), "{problem}");
    assert!(room.parse("").unwrap_err().problems[0].message.contains("there is no port"));
    let missing = Config::load(&room.0.join("absent.toml")).unwrap_err();
    assert!(missing.problems[0].message.starts_with("the file cannot be read"), "{missing}");
}

#[test]
fn a_single_bracket_header_is_named_as_the_slip_that_it_is() {
    let room = Room::new();
    let errors = room.parse("[port]\nname = \"core\"\n").unwrap_err();
    let problem = &errors.problems[0];
    says(
        problem,
        "a list is wanted here, and this is a table",
        "write the header in double brackets, as in [[port]]",
    );
    assert_eq!((problem.line, problem.column), (1, 1));
}

#[test]
fn a_difference_tells_what_changed_and_what_needs_a_restart() {
    let room = Room::new();
    let old = room.parse(GOOD).unwrap();
    assert!(diff(&old, &room.parse(&GOOD.replace("\"600s\"", "\"10m\"")).unwrap()).is_empty());

    let new = GOOD
        .replace("\"600s\"", "\"601s\"")
        .replace("gateway = \"10.0.1.1\"", "gateway = \"10.0.1.3\"")
        .replace("[[advertiser]]\nport = \"home\"\nhome_agent = \"ha\"\n", "");
    let new = room.parse(&new).unwrap_or_else(|errors| panic!("{errors}"));
    let live = old.live_diff(&new).unwrap();
    let shown: Vec<String> = live
        .changes
        .iter()
        .map(|change| format!("{}: {} -> {}", change.path, change.old, change.new))
        .collect();
    assert!(
        shown.contains(&"home_agent[ha].max_lifetime: \"10m\" -> \"601s\"".into()),
        "{shown:#?}"
    );
    assert!(
        shown.contains(&"route[0.0.0.0/0].gateway: \"10.0.1.1\" -> \"10.0.1.3\"".into()),
        "{shown:#?}"
    );
    assert!(shown.contains(&"advertiser[home].home_agent: \"ha\" -> null".into()), "{shown:#?}");
    assert!(live.changes.iter().all(|change| change.effect == Effect::Live));

    let new = room.parse(&GOOD.replace("mtu = 1400", "mtu = 1300")).unwrap();
    let refusal = old.live_diff(&new).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert_eq!(refusal.error, "Nothing was changed: port[home].mtu can only change at a start.");
}

#[test]
fn a_changed_key_is_a_difference_and_stays_hidden() {
    let room = Room::new();
    let old = room.parse(GOOD).unwrap();
    room.key("mn1.key", "ff0102030405060708090a0b0c0d0e0f00", 0o600);
    let new = room.parse(GOOD).unwrap();
    let changes = diff(&old, &new).changes;
    let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "home_agent[ha].security_association[10.0.2.2 257].key",
            "home_agent[ha].security_association[10.1.0.10 256].key",
        ]
    );
    assert!(changes.iter().all(|change| change.old == "(hidden)" && change.new == "(hidden)"));
}

#[test]
fn reordered_ports_are_a_change_that_needs_a_restart() {
    let room = Room::new();
    let old = room.parse(GOOD).unwrap();
    let visited = "[[port]]\nname = \"visited\"\nbackend = \"af_packet\"\ninterface = \"eth2\"\naddresses = [\"10.0.2.2/24\"]\n\n";
    let text = GOOD.replace(visited, "").replacen("[[port]]", &format!("{visited}[[port]]"), 1);
    let new = room.parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let changes = diff(&old, &new).changes;
    assert_eq!((changes.len(), changes[0].path.as_str()), (1, "port"));
    assert_eq!(changes[0].effect, Effect::Restart);
}

#[test]
fn the_schema_knows_the_keys_that_the_reader_knows() {
    let schema = serde_json::to_value(super::schema()).unwrap();
    let config = Room::new().parse(GOOD).unwrap().to_json();
    // Every key of a config that is in force is in the schema, section by section.
    let properties =
        |pointer: &str| schema.pointer(pointer).and_then(|value| value.as_object()).unwrap();
    let sections = [
        ("", "File"),
        ("/daemon", "DaemonSection"),
        ("/dataplane", "DataplaneSection"),
        ("/port/0", "PortSection"),
        ("/route/0", "RouteSection"),
        ("/home_agent/0", "HomeAgentSection"),
        ("/home_agent/0/home_network/0", "HomeNetworkSection"),
        ("/home_agent/0/security_association/0", "SecurityAssociationSection"),
        ("/foreign_agent/0", "ForeignAgentSection"),
        ("/advertiser/0", "AdvertiserSection"),
    ];
    for (at, name) in sections {
        let pointer = if name == "File" { "".into() } else { format!("/$defs/{name}") };
        let known = properties(&format!("{pointer}/properties"));
        for key in config.pointer(at).unwrap().as_object().unwrap().keys() {
            assert!(known.contains_key(key), "{name} lacks {key}");
        }
        let strict = schema.pointer(&format!("{pointer}/additionalProperties"));
        assert_eq!(strict, Some(&serde_json::Value::Bool(false)), "{name}");
    }
    let required = &schema.pointer("/$defs/PortSection/required").unwrap();
    assert_eq!(**required, serde_json::json!(["name", "backend"]));
    let default = schema.pointer("/$defs/HomeAgentSection/properties/keepalive/default");
    assert_eq!(default, Some(&"110s".into()));
}

proptest::proptest! {
    /// Whatever stands in a file, it is read or refused, and each error points into it.
    #[test]
    fn noise_in_a_file_is_refused_without_a_panic(
        at in 0..GOOD.len(),
        cut in 0usize..40,
        noise in "\\PC{0,12}|[\\[\\]=\"0-9smh./\n\u{0}-\u{1f}]{0,12}",
    ) {
        let room = Room::new();
        let end = (at + cut).min(GOOD.len());
        let text = format!("{}{noise}{}", &GOOD[..at], &GOOD[end..]);
        if let Err(errors) = room.parse(&text) {
            proptest::prop_assert!(!errors.problems.is_empty());
            for problem in &errors.problems {
                let end = problem.offset + problem.len;
                proptest::prop_assert!(text.get(problem.offset..end).is_some(), "{problem:?}");
            }
            let shown = errors.to_string();
            let obeyed = |c: char| c != '\n' && crate::admin::print::is_obeyed(c);
            proptest::prop_assert!(!shown.contains(obeyed), "{shown:?}");
        }
    }
}
