//! Parsers of files that people write, and of files that programs write and people
//! change.

use std::path::{Path, PathBuf};

use homeport_control::capture::CaptureReader;
use homeport_control::config::{Config, subscribers};
use homeport_control::journal::{Replay, replay};
use homeport_control::mobile;
use homeport_proto::config::{HomeNetwork, Prefix};
use homeport_proto::security::SecurityAssociations;

/// A folder in memory of this thread's own, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let thread = format!("{:?}", std::thread::current().id());
        let number: String = thread.chars().filter(char::is_ascii_digit).collect();
        let folder = root.join(format!("homeport-fuzz-{}-{number}", std::process::id()));
        let _ = std::fs::create_dir_all(&folder);
        Scratch(folder)
    }

    /// A file that its owner alone may read.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join(name);
        let written = std::fs::write(&path, bytes);
        let private = std::fs::Permissions::from_mode(0o600);
        assert!(written.and_then(|()| std::fs::set_permissions(&path, private)).is_ok());
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Config files: each error names a place in the file.
pub(super) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Keys are read from files, which are nobody's here.
    let path = Path::new("/nonexistent/fuzz.toml");
    match Config::parse(text, path) {
        Ok(config) => drop(config.to_json()),
        Err(errors) => assert!(!errors.problems.is_empty() && !errors.to_string().is_empty()),
    }
    if let Err(errors) = mobile::config::Config::parse(text, path) {
        assert!(!errors.problems.is_empty() && !errors.to_string().is_empty());
    }
}

/// Subscriber files.
pub(super) fn subscribers(data: &[u8]) {
    let scratch = Scratch::new();
    let path = scratch.file("subscribers.csv", data);
    let prefix = Prefix::ALL;
    let networks = [HomeNetwork { prefix, link: None }];
    let mut security = SecurityAssociations::default();
    if let Ok(count) = subscribers::read(&path, &scratch.0, &networks, &mut security) {
        assert!(security.mobile_node_count() <= count);
    }
}

/// Captures: as many frames as there is room for.
pub(super) fn capture(data: &[u8]) {
    let scratch = Scratch::new();
    let path = scratch.file("capture.pcap", data);
    let Ok(mut reader) = CaptureReader::open(&path) else { return };
    let mut bytes = 0;
    while let Ok(Some(_)) = reader.next_frame() {
        bytes += reader.frame().len();
        assert!(bytes <= data.len());
    }
}

/// Journals: what cannot be run is said.
pub(super) fn journal(data: &[u8]) {
    let scratch = Scratch::new();
    // The config, a line with a NUL, the first piece; behind another, the second.
    let mut parts = data.split(|byte| *byte == 0);
    for name in ["000001.config.json", "000001.jsonl", "000002.jsonl"] {
        scratch.file(name, parts.next().unwrap_or_default());
    }
    let mut findings = 0u64;
    let found = &mut |finding: homeport_control::journal::Finding| {
        findings += 1;
        assert!(!finding.to_string().is_empty());
    };
    if let Ok(summary) = replay(&scratch.0, Replay::default(), found) {
        assert_eq!(summary.differing + summary.gaps, findings);
    }
}
