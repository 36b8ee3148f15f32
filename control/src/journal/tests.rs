//! Row B-08: what is recorded runs again to the same actions, and what is missing or
//! changed is said.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use homeport_dataplane::config::DataplaneConfig;
use homeport_dataplane::launch;
use homeport_proto::agent::Datagram;
use homeport_proto::config::{AgentConfig, HomeAgentConfig, HomeNetwork, Prefix, Profile};
use homeport_proto::draws::Draws;
use homeport_proto::message::{
    AuthenticationKind, Identification, MessageWriter, RegistrationRequest, RequestFlags,
};
use homeport_proto::security::{
    Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, SecurityAssociations, Spi,
};
use homeport_proto::{Instant, Lifetime, MacAddress, Now, NtpTime, PortId, TenantId};

use super::recorder::MIN_LIMIT;
use super::*;
use crate::control_core::{ControlCore, Parts};
use crate::install::ClaimKeeper;

const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const KEY: &[u8] = b"0123456789abcdef";

/// A folder of the test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Folder(
            std::env::temp_dir().join(format!("homeport-journal-{}-{number}", std::process::id())),
        )
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs it, and gives all that was found.
    fn run(&self) -> (Summary, Vec<Finding>) {
        let mut found = Vec::new();
        let summary = replay(&self.0, Replay::default(), &mut |one| found.push(one)).unwrap();
        (summary, found)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn association(replay: ReplayProtection) -> MobilitySecurityAssociation {
    let key = Key::new(KEY.to_vec());
    MobilitySecurityAssociation { spi: Spi(256), algorithm: Algorithm::HmacMd5, key, replay }
}

/// Nodes with even numbers have timestamps, the others nonces.
fn replay_of(node: u8) -> ReplayProtection {
    if node.is_multiple_of(2) { ReplayProtection::default() } else { ReplayProtection::Nonces }
}

fn config(max_bindings: usize) -> AgentConfig {
    let mut security = SecurityAssociations::default();
    for node in 1..=20 {
        let home_address = Ipv4Addr::new(10, 1, 0, node);
        security.insert_mobile_node(home_address, association(replay_of(node)));
    }
    let home_agent = HomeAgentConfig {
        tenant: TenantId(0),
        address: AGENT,
        home_networks: vec![HomeNetwork {
            prefix: Prefix::new(Ipv4Addr::new(10, 1, 0, 0), 24).unwrap(),
            link: None,
        }],
        profile: Profile::Rfc5944,
        max_lifetime: Lifetime(600),
        max_bindings,
        max_simultaneous: 4,
        reverse_tunnel: true,
        require_reverse_tunnel: false,
        administratively_prohibited: false,
        security,
        require_foreign_home_authentication: false,
        tunnels: Default::default(),
        nat: Default::default(),
        mobile_networks: Vec::new(),
        message_strings: false,
        revocation: false,
        assignment: Default::default(),
        sessions: homeport_proto::config::SessionPolicy::default(),
    };
    AgentConfig { home_agents: vec![home_agent], ..AgentConfig::default() }
}

fn now(millis: u64) -> Now {
    let unix = Duration::from_secs(1_800_000_000) + Duration::from_millis(millis);
    Now { monotonic: Instant(millis * 1_000_000), ntp: NtpTime::from_unix(unix) }
}

/// A home agent that is recorded.
struct Recorded {
    core: ControlCore,
    millis: u64,
}

impl Recorded {
    fn new(folder: &Folder, limit: u64) -> Recorded {
        let (control, _) = launch::build(&DataplaneConfig::default(), Vec::new()).unwrap();
        let parts = Parts {
            control,
            agents: config(100),
            messages_per_second: 1_000,
            claims: ClaimKeeper::default(),
            draws: Draws::noted([3; 32]),
            remembered_nodes: 0,
            recorder: Some(Recorder::open(&folder.0, limit).unwrap()),
        };
        let mut core = ControlCore::new(parts, now(1_000));
        core.start(now(1_000).monotonic);
        Recorded { core, millis: 1_000 }
    }

    fn request(&mut self, node: u8, lifetime: u16) {
        self.millis += 7;
        let now = now(self.millis);
        let care_of_address = Ipv4Addr::new(172, 16, node, 9);
        let mut writer = MessageWriter::request(&RegistrationRequest {
            flags: RequestFlags::CO_LOCATED,
            lifetime: Lifetime(lifetime),
            home_address: Ipv4Addr::new(10, 1, 0, node),
            home_agent: AGENT,
            care_of_address,
            identification: Identification(now.ntp.0),
        });
        writer.authenticate(AuthenticationKind::MobileHome, &association(replay_of(node)));
        let payload = writer.finish();
        let datagram = Datagram {
            tenant: TenantId(0),
            port: PortId(0),
            source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            destination_mac: MacAddress([2, 0, 0, 0, 0, 2]),
            source: care_of_address,
            destination: AGENT,
            source_port: 434,
            destination_port: 434,
            ttl: 60,
            payload: &payload,
        };
        self.core.input(Input::Datagram(datagram), now);
    }

    fn pass(&mut self, millis: u64) {
        let end = self.millis + millis;
        while let Some(due) = self.core.poll_timeout().filter(|due| due.0 <= end * 1_000_000) {
            self.millis = self.millis.max(due.0.div_ceil(1_000_000));
            self.core.do_timers(now(self.millis));
        }
        self.millis = end;
    }

    /// Some minutes of a life: registrations, expiries, a config, an operator.
    fn live(&mut self) {
        for node in 1..=10 {
            self.request(node, 60);
        }
        self.request(30, 60);
        self.pass(20_000);
        self.core.input(Input::Config(config(4)), now(self.millis));
        let home_address = Ipv4Addr::new(10, 1, 0, 2);
        self.core
            .input(Input::ClearBinding { tenant: TenantId(0), home_address }, now(self.millis));
        self.core
            .input(Input::ClearVisitor { tenant: TenantId(0), home_address }, now(self.millis));
        for node in 1..=12 {
            self.request(node, if node == 4 { 0 } else { 30 });
        }
        self.pass(60_000);
    }
}

fn recorded() -> Folder {
    let folder = Folder::new();
    Recorded::new(&folder, MIN_LIMIT).live();
    folder
}

#[test]
fn what_is_recorded_runs_again_to_the_same_actions() {
    let folder = recorded();
    assert_eq!(folder.names(), ["000001.config.json", "000001.jsonl", "000002.config.json"]);
    let (summary, found) = folder.run();
    assert_eq!(found, []);
    assert!(summary.is_whole() && summary.starts == 1, "{summary:?}");
    assert!(summary.inputs > 25 && summary.actions > 40, "{summary:?}");
    // From the start to the last expiry.
    assert!(summary.span > Duration::from_secs(45), "{summary:?}");
}

#[test]
fn no_key_is_written_and_nobody_else_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = recorded();
    let hex: String = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = String::from_utf8(KEY.to_vec()).unwrap();
    for name in folder.names() {
        let kept = folder.read(&name);
        assert!(!kept.contains(&hex) && !kept.contains(&text), "{name}");
        let mode = std::fs::metadata(folder.0.join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(std::fs::metadata(&folder.0).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn other_actions_are_told_field_by_field() {
    let folder = recorded();
    let text = folder.read("000001.jsonl");
    // The lifetime of the first accepting reply: 60 s, at byte 2 of its data.
    let changed = text.replacen("\"data\":\"0300003c", "\"data\":\"0300003b", 1);
    assert_ne!(text, changed);
    folder.write("000001.jsonl", &changed);
    let (summary, found) = folder.run();
    assert_eq!((summary.differing, summary.gaps), (1, 0));
    let told = found[0].to_string();
    assert!(told.contains("registration.lifetime: expected 59 s, is 60 s"), "{told}");
    assert!(told.contains("a datagram to port 434"), "{told}");
}

#[test]
fn the_actions_of_now_can_take_the_place_of_those_that_are_written() {
    let folder = recorded();
    let text = folder.read("000001.jsonl");
    folder.write("000001.jsonl", &text.replace("\"data\":\"0300003c", "\"data\":\"0300003b"));
    let how = Replay { regenerate: true, ..Replay::default() };
    let summary = replay(&folder.0, how, &mut |_| {}).unwrap();
    assert!(summary.differing > 1);
    assert_eq!(folder.read("000001.jsonl"), text);
    assert!(folder.run().0.is_whole());
}

#[test]
fn missing_lines_pieces_and_inputs_are_told_and_the_rest_runs() {
    let folder = recorded();
    let text = folder.read("000001.jsonl");
    let lines: Vec<&str> = text.lines().collect();
    let count = lines.len() as u64;

    // An input that was not written: the line is not there.
    let without: Vec<&str> = [&lines[..4], &lines[5..]].concat();
    folder.write("000001.jsonl", &(without.join("\n") + "\n"));
    let (summary, found) = folder.run();
    let missing = Finding::MissingInputs { piece: 1, first: 2, last: 2 };
    assert_eq!((&found[0], summary.inputs), (&missing, count - 3));
    assert_eq!(summary.differing, summary.behind_gaps);

    // A line cut in the middle, as a crash leaves it.
    folder.write("000001.jsonl", &text[..text.len() - 40]);
    let (summary, found) = folder.run();
    assert!(matches!(&found[..], [Finding::BadLine { piece: 1, line, .. }] if *line == count));
    assert_eq!((summary.inputs, summary.differing), (count - 3, 0));

    // A piece in the middle.
    let (first, last) = lines.split_at(lines.len() / 2);
    folder.write("000001.jsonl", &(first.join("\n") + "\n"));
    folder.write("000004.jsonl", &(last.join("\n") + "\n"));
    let (summary, found) = folder.run();
    assert_eq!(found, [Finding::MissingPieces { first: 2, last: 3 }]);
    assert_eq!((summary.inputs, summary.differing), (count - 2, 0));
    assert!(found[0].to_string().starts_with("000002.jsonl to 000003.jsonl are missing"));
}

#[test]
fn the_folder_is_a_ring_and_its_rest_runs() {
    let folder = Folder::new();
    let mut agent = Recorded::new(&folder, MIN_LIMIT);
    for _ in 0..300 {
        for node in 1..=10 {
            agent.request(node, 600);
        }
    }
    drop(agent);
    let size: u64 =
        folder.names().iter().map(|name| folder.0.join(name).metadata().unwrap().len()).sum();
    assert!(size <= MIN_LIMIT + 20_000, "{size}");
    let names = folder.names();
    assert!(!names.contains(&piece_name(1)) && names.contains(&config_name(1)), "{names:?}");
    let (summary, found) = folder.run();
    assert!(matches!(found[0], Finding::NoStart { .. }), "{:?}", found[0]);
    assert!(summary.inputs > 500);
    // What differs is where nodes were bound before.
    assert_eq!((summary.differing, summary.gaps), (summary.behind_gaps, 1));
}

#[test]
fn a_process_that_begins_again_goes_on_in_the_same_folder() {
    let folder = recorded();
    Recorded::new(&folder, MIN_LIMIT).live();
    let (summary, found) = folder.run();
    assert_eq!((found, summary.starts, summary.pieces), (vec![], 2, 2));
}

#[test]
fn what_is_no_journal_says_so() {
    let folder = Folder::new();
    let fails = |folder: &Folder| {
        replay(&folder.0, Replay::default(), &mut |_| {}).unwrap_err().to_string()
    };
    assert!(fails(&folder).contains("No such file"));
    std::fs::create_dir(&folder.0).unwrap();
    assert!(fails(&folder).contains("holds no journal"));
    let folder = recorded();
    std::fs::remove_file(folder.0.join("000001.config.json")).unwrap();
    assert!(fails(&folder).contains("000001.config.json: No such file"));
    let text = folder.read("000001.jsonl").replace("\"format\":1", "\"format\":9");
    folder.write("000001.jsonl", &text);
    assert!(fails(&folder).contains("is of format 9"));
    assert!(matches!(Recorder::open(&folder.0, 5), Err(RecorderError::Limit { limit: 5 })));
    let file = folder.0.join("000001.jsonl");
    let error = Recorder::open(&file, MIN_LIMIT).unwrap_err().to_string();
    assert!(error.contains("000001.jsonl: "), "{error}");
}
