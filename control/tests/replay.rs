//! Row B-08: `homeport replay`, as a person runs it, on captures of a small life: a
//! node registers through the core and gets packets, comes back and deregisters.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use homeport_control::capture::{CaptureReader, CaptureWriter};
use homeport_proto::message::{
    AuthenticationKind, Identification, MessageWriter, RegistrationRequest, RequestFlags,
};
use homeport_proto::security::{
    Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, Spi,
};
use homeport_proto::{Lifetime, MacAddress, NtpTime};
use homeport_wire::{ArpPacket, EtherType, EthernetHeader, IpProtocol, Ipv4Header, UdpHeader};
use zerocopy::IntoBytes;

const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const CARE_OF: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 77);
const CORRESPONDENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);

const OURS: MacAddress = MacAddress([2, 0, 0, 0, 7, 1]);
const NODE_MAC: MacAddress = MacAddress([2, 0, 0, 0, 7, 2]);
const CORRESPONDENT_MAC: MacAddress = MacAddress([2, 0, 0, 0, 7, 3]);

const BEGIN: Duration = Duration::from_secs(1_790_000_000);

const CONFIG: &str = r#"[daemon]
admin_socket = "/run/homeport/replay.sock"
[[port]]
name = "core"
backend = "af_packet"
interface = "eth0"
addresses = ["10.0.1.2/24"]
[[home_agent]]
name = "ha"
address = "10.0.1.2"
[[home_agent.home_network]]
prefix = "10.1.0.0/24"
[[home_agent.security_association]]
mobile_node = "10.1.0.10"
spi = 256
key_file = "mn.key"
"#;

/// A directory of its own, gone when dropped.
struct Room(PathBuf);

impl Room {
    fn new() -> Room {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("homeport-replay-{}-{number}", std::process::id());
        let room = Room(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&room.0).unwrap();
        std::fs::write(room.path("mn.key"), "000102030405060708090a0b0c0d0e0f").unwrap();
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(room.path("mn.key"), private).unwrap();
        std::fs::write(room.path("ha.toml"), CONFIG).unwrap();
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Runs `homeport replay` in it.
    fn replay(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_homeport"))
            .arg("replay")
            .args(arguments)
            .current_dir(&self.0)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }

    fn capture(&self, name: &str, frames: &[(Duration, Vec<u8>)]) {
        let mut writer = CaptureWriter::create(&self.path(name)).unwrap();
        frames.iter().for_each(|(time, frame)| writer.write(*time, frame).unwrap());
        writer.finish().unwrap();
    }

    fn frames(&self, name: &str) -> Vec<(Duration, Vec<u8>)> {
        frames(&self.path(name))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn frames(path: &Path) -> Vec<(Duration, Vec<u8>)> {
    let mut reader = CaptureReader::open(path).unwrap();
    let mut frames = Vec::new();
    while let Some(time) = reader.next_frame().unwrap() {
        frames.push((time, reader.frame().to_vec()));
    }
    frames
}

fn ethernet(source: MacAddress, ether_type: EtherType, payload: &[u8]) -> Vec<u8> {
    [EthernetHeader::new(OURS, source, ether_type).as_bytes(), payload].concat()
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(Ipv4Header::LEN + payload.len()).unwrap();
    let mut header = Ipv4Header::new(from, to, protocol, 64, len);
    header.fill_checksum();
    [header.as_bytes(), payload].concat()
}

fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    let header = UdpHeader::new(from, to, data).unwrap();
    ipv4(from.0, to.0, IpProtocol::UDP, &[header.as_bytes(), data].concat())
}

fn request(at: Duration, lifetime: u16) -> Vec<u8> {
    let mut writer = MessageWriter::request(&RegistrationRequest {
        flags: RequestFlags::CO_LOCATED,
        lifetime: Lifetime(lifetime),
        home_address: NODE,
        home_agent: AGENT,
        care_of_address: CARE_OF,
        identification: Identification(NtpTime::from_unix(at).0),
    });
    writer.authenticate(
        AuthenticationKind::MobileHome,
        &MobilitySecurityAssociation {
            spi: Spi(256),
            algorithm: Algorithm::HmacMd5,
            key: Key::new((0..16).collect()),
            replay: ReplayProtection::default(),
        },
    );
    let message = writer.finish();
    ethernet(NODE_MAC, EtherType::IPV4, &udp((CARE_OF, 434), (AGENT, 434), &message))
}

fn data(number: u16) -> Vec<u8> {
    let payload = [&number.to_be_bytes()[..], &[0xa5; 30]].concat();
    let packet = udp((CORRESPONDENT, 9000), (NODE, 9001), &payload);
    ethernet(CORRESPONDENT_MAC, EtherType::IPV4, &packet)
}

/// The node registers, gets fifty packets, and deregisters; five more follow.
fn life() -> Vec<(Duration, Vec<u8>)> {
    let at = |millis| BEGIN + Duration::from_millis(millis);
    let gratuitous = ArpPacket::gratuitous(CARE_OF, NODE_MAC);
    let mut frames = vec![
        (at(10), request(at(4), 600)),
        (at(12), ethernet(NODE_MAC, EtherType::ARP, gratuitous.as_bytes())),
    ];
    frames.extend((0..50).map(|number| (at(20 + u64::from(number)), data(number))));
    frames.push((at(5_000), request(at(5_000), 0)));
    frames.extend((50..55).map(|number| (at(5_010 + u64::from(number)), data(number))));
    frames
}

#[test]
fn the_same_capture_gives_the_same_frames_byte_for_byte() {
    let room = Room::new();
    room.capture("in.pcap", &life());
    let (code, out, error) =
        room.replay(&["--config", "ha.toml", "in.pcap", "--out", "first.pcap"]);
    assert_eq!(code, Some(0), "{out}{error}");
    assert!(out.contains("received   58 frames"), "{out}");
    let sent = room.frames("first.pcap");
    let of = |protocol: u8| sent.iter().filter(|(_, frame)| frame[23] == protocol).count();
    // Two replies, every packet of the time between through the tunnel, and for the
    // others the correspondent is told that there is nobody.
    assert_eq!((of(17), of(4), of(1)), (2, 50, 5), "{out}");
    assert_eq!(sent[0].0, BEGIN + Duration::from_millis(10));
    let arguments = ["--config", "ha.toml", "in.pcap", "--out", "second.pcap"];
    let (code, ..) = room.replay(&[&arguments[..], &["--expect", "first.pcap"]].concat());
    assert_eq!(code, Some(0));
    let read = |name| std::fs::read(room.path(name)).unwrap();
    assert_eq!(read("first.pcap"), read("second.pcap"));
}

#[test]
fn a_difference_is_told_as_a_field() {
    let room = Room::new();
    room.capture("in.pcap", &life());
    let run = ["--config", "ha.toml", "in.pcap"];
    room.replay(&[&run[..], &["--out", "out.pcap"]].concat());
    let mut frames = room.frames("out.pcap");
    // The TTL of a packet in the tunnel, behind the outer header.
    frames[7].1[14 + 20 + 8] ^= 1;
    room.capture("changed.pcap", &frames);
    let (code, out, _) = room.replay(&[&run[..], &["--expect", "changed.pcap"]].concat());
    assert_eq!(code, Some(1));
    assert!(
        out.contains("frame 8 differs from changed.pcap:\n  inner.ipv4.ttl: expected 62, is 63"),
        "{out}"
    );
    assert!(out.contains("differs    1 frames from changed.pcap"), "{out}");
    // One that is missing, and one too many.
    let extra = frames.pop().unwrap();
    frames[7].1[14 + 20 + 8] ^= 1;
    room.capture("changed.pcap", &frames);
    let (code, out, _) = room.replay(&[&run[..], &["--expect", "changed.pcap"]].concat());
    assert_eq!(code, Some(1));
    assert!(out.contains("not expected: the capture has ended"), "{out}");
    frames.extend([extra.clone(), extra]);
    room.capture("changed.pcap", &frames);
    let (code, out, _) = room.replay(&[&run[..], &["--expect", "changed.pcap"]].concat());
    assert_eq!(code, Some(1));
    assert!(out.contains("frame 58 of changed.pcap did not leave"), "{out}");
}

#[test]
fn a_capture_that_breaks_runs_as_far_as_it_goes() {
    let room = Room::new();
    room.capture("in.pcap", &life());
    let bytes = std::fs::read(room.path("in.pcap")).unwrap();
    std::fs::write(room.path("torn.pcap"), &bytes[..bytes.len() - 10]).unwrap();
    let (code, out, _) = room.replay(&["--config", "ha.toml", "torn.pcap", "--out", "out.pcap"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("ended early: torn.pcap: packet 58: the file ends inside it"), "{out}");
    assert_eq!(room.frames("out.pcap").len(), 56);
}

#[test]
fn time_that_goes_back_stands_still_and_is_counted() {
    let room = Room::new();
    let mut frames = life();
    frames.swap(20, 30);
    room.capture("in.pcap", &frames);
    let (code, out, _) = room.replay(&["--config", "ha.toml", "in.pcap", "--out", "out.pcap"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("10 with a time before that of the frame in front of them"), "{out}");
    let times: Vec<Duration> = room.frames("out.pcap").iter().map(|(time, _)| *time).collect();
    assert!(times.is_sorted() && times.len() == 57);
}

#[test]
fn what_the_box_itself_had_sent_is_left_out() {
    let room = Room::new();
    room.capture("in.pcap", &life());
    room.replay(&["--config", "ha.toml", "in.pcap", "--out", "out.pcap"]);
    // As tcpdump on the box itself has it.
    let mut both = [life(), room.frames("out.pcap")].concat();
    both.sort_by_key(|(time, _)| *time);
    room.capture("both.pcap", &both);
    let run = ["--config", "ha.toml", "both.pcap", "--expect", "out.pcap"];
    let (code, out, _) = room.replay(&run);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("57 that the box itself had sent are left out"), "{out}");
}

#[test]
fn a_neighbour_that_the_capture_does_not_show_can_be_given() {
    let room = Room::new();
    let mut config = CONFIG.to_owned();
    config.push_str("[[route]]\ndestination = \"10.9.0.0/16\"\ngateway = \"10.0.1.1\"\n");
    std::fs::write(room.path("ha.toml"), config).unwrap();
    let at = |millis| BEGIN + Duration::from_millis(millis);
    let packet = udp((CORRESPONDENT, 1), (Ipv4Addr::new(10, 9, 0, 1), 2), b"on");
    let frame = ethernet(CORRESPONDENT_MAC, EtherType::IPV4, &packet);
    room.capture("in.pcap", &[(at(0), data(1)), (at(1), frame)]);
    let run = ["--config", "ha.toml", "in.pcap", "--out", "out.pcap"];
    let (code, out, _) = room.replay(&run);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("give it by --neighbor 10.0.1.1=MAC"), "{out}");
    assert!(out.contains("no-neighbor"), "{out}");
    let given = ["--neighbor", "10.0.1.1=02:00:00:00:07:09"];
    let (_, out, _) = room.replay(&[&run[..], &given].concat());
    assert!(!out.contains("--neighbor"), "{out}");
    let sent = room.frames("out.pcap");
    assert_eq!((sent.len(), &sent[1].1[..6]), (2, &[2, 0, 0, 0, 7, 9][..]));
}

#[test]
fn several_ports_are_merged_by_their_times() {
    let room = Room::new();
    let second = CONFIG.replace(
        "[[home_agent]]",
        "[[port]]\nname = \"far\"\nbackend = \"af_packet\"\ninterface = \"eth1\"\n\
         addresses = [\"10.5.0.1/24\"]\n[[home_agent]]",
    );
    std::fs::write(room.path("ha.toml"), second).unwrap();
    // The correspondent is on the other link; the way back to it is not.
    let (core, far): (Vec<_>, Vec<_>) =
        life().into_iter().partition(|(_, frame)| frame[6..12] == NODE_MAC.0);
    room.capture("core.pcap", &core);
    room.capture("far.pcap", &far);
    let run = ["--config", "ha.toml", "--port", "far=far.pcap", "--port", "core=core.pcap"];
    let outputs = ["--out", "core=core-out.pcap", "--out", "far=far-out.pcap", "--out", "all.pcap"];
    let (code, out, error) = room.replay(&[&run[..], &outputs].concat());
    assert_eq!(code, Some(0), "{out}{error}");
    let count = |name| room.frames(name).len();
    assert_eq!((count("core-out.pcap"), count("far-out.pcap"), count("all.pcap")), (52, 0, 52));
    let (code, _, error) = room.replay(&["--config", "ha.toml", "core.pcap"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("the config has 2 ports; give each its capture by --port"), "{error}");
    let (code, _, error) = room.replay(&[&run[..], &["--out", "nix=x.pcap"]].concat());
    assert_eq!(code, Some(1));
    assert!(error.contains("no port named nix; it has core, far"), "{error}");
}

#[test]
fn each_packet_has_a_line_with_its_verdict_and_the_entry_used() {
    let room = Room::new();
    room.capture("in.pcap", &life());
    let run = ["--config", "ha.toml", "in.pcap", "--out", "plain.pcap"];
    room.replay(&run);
    let run = ["--config", "ha.toml", "in.pcap", "--expect", "plain.pcap", "--verdicts", "v.tsv"];
    let (code, out, _) = room.replay(&run);
    // Who is followed goes where it goes else.
    assert_eq!(code, Some(0), "{out}");
    let text = std::fs::read_to_string(room.path("v.tsv")).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines[0], ["time", "port", "packet", "verdict", "reason", "entry"]);
    assert!(lines.iter().all(|line| line.len() == 6), "{text}");
    let count = |verdict: &str| lines.iter().filter(|line| line[3] == verdict).count();
    // Requests, their replies and ICMP errors; data; ARP; data for nobody.
    assert_eq!((count("punt"), count("to-kernel"), count("drop")), (2, 1, 5), "{text}");
    assert_eq!(count("transmit"), 57, "{text}");
    let data = lines.iter().find(|line| line[2].contains("10.1.0.10")).unwrap();
    assert_eq!((data[0], data[1]), ("1790000000.020000000", "core"));
    assert!(data[5].contains("10.1.0.10") && data[5].contains("10.0.1.77"), "{data:?}");
    let dropped = lines.iter().find(|line| line[3] == "drop").unwrap();
    assert_eq!(dropped[4], "no-route");
}

#[test]
fn json_has_all_of_it() {
    let room = Room::new();
    room.capture("in.pcap", &life());
    let (code, out, _) = room.replay(&["--json", "--config", "ha.toml", "in.pcap"]);
    assert_eq!(code, Some(0));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["received"], &report["left"]), (&58.into(), &57.into()));
    assert_eq!(report["ports"][0]["mac"], "02:00:00:00:07:01");
    assert_eq!((&report["conserved"], &report["bindings"]), (&true.into(), &0.into()));
}

#[test]
fn what_cannot_run_says_why() {
    let room = Room::new();
    room.capture("in.pcap", &life());
    let fails = |arguments: &[&str], expected: &str| {
        let (code, out, error) = room.replay(arguments);
        assert_eq!(code, Some(1), "{out}");
        assert!(error.contains(expected), "{error}");
    };
    fails(&["--config", "ha.toml", "none.pcap"], "none.pcap: No such file");
    fails(&["--config", "ha.toml", "ha.toml"], "a pcap or pcapng file is expected");
    fails(&["--config", "none.toml", "in.pcap"], "none.toml");
    let same = ["--out", "in.pcap", "--expect", "in.pcap"];
    fails(&[&["--config", "ha.toml", "in.pcap"][..], &same].concat(), "both name in.pcap");
    fails(&["--journal", "."], "holds no journal");
    let (code, _, error) = room.replay(&["in.pcap"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("--config"), "{error}");
}
