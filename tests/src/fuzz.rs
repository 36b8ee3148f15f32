//! Fuzz targets: functions of bytes that panic when something is wrong.
//!
//! `scripts/fuzz` discovers: it builds tests/fuzz/ with coverage and lets libFuzzer
//! choose the bytes. What it found worth keeping is in tests/fuzz/corpus/, a folder for
//! each target, and every run of the tests goes through it. A crash becomes a file there
//! with a name that says what it was.

mod devices;
mod files;
mod machines;
mod parsers;
mod sessions;
mod tables;
mod worker;

use homeport_proto::{Instant, Now, NtpTime};

/// A target: its name, what it shows, and the function.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its corpus, and on the command line.
    pub name: &'static str,
    /// What it looks at.
    pub about: &'static str,
    /// Runs it on these bytes.
    pub run: fn(&[u8]),
}

/// Both clocks when the monotonic one has come to `monotonic`.
fn later(now: Now, monotonic: Instant) -> Now {
    let by = monotonic.saturating_since(now.monotonic).as_nanos();
    let ntp = NtpTime(now.ntp.0.wrapping_add(((by << 32) / 1_000_000_000) as u64));
    Now { monotonic, ntp }
}

const fn target(name: &'static str, about: &'static str, run: fn(&[u8])) -> Target {
    Target { name, about, run }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("wire", "the views over packet headers", parsers::wire),
    target("registration", "registration messages and their extensions", parsers::registration),
    target("discovery", "agent advertisements and solicitations", parsers::discovery),
    target("punt", "frames that the dataplane hands to the control core", parsers::punt),
    target("decode", "frames and messages as fields for people", parsers::decode),
    target("dhcp", "replies of DHCP servers", parsers::dhcp),
    target("heard", "frames that a mobile node hears", parsers::heard),
    target("config", "the config files of homeportd and homeport-mn", files::config),
    target("subscribers", "the file of subscribers", files::subscribers),
    target("capture", "pcap and pcapng files", files::capture),
    target("journal", "the journal of a homeportd", files::journal),
    target("agent", "home and foreign agents, input by input", machines::agent),
    target("sessions", "home and foreign agents with sessions, input by input", sessions::sessions),
    target("devices", "the DHCP server for devices, message by message", devices::devices),
    target("mobile_node", "the mobile node, input by input", machines::mobile_node),
    target("worker", "a worker with random tables, on both of its paths", worker::worker),
    target("hash_table", "the hash table, against an ordered map", tables::hash_table),
    target("route_table", "the route table, against a list", tables::route_table),
    target("visitor_table", "the visitor table, against a list", tables::visitor_table),
];

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
